//! The cluster's configuration as it is stored, never as a program would complete it.
//!
//! k0s fills in defaults whenever it decodes its `ClusterConfig`, so what is pinned can only be seen in the raw object.

use serde_json::Value;

use super::objects::{self, Object, ObjectsError, is_kind, objects, trees};
use crate::catalog::PullPolicy;
use crate::input::yaml::{self, Node};

/// Where node-local load balancing is configured.
const NLLB: &str = "spec.network.nodeLocalLoadBalancing";

/// Where a k0sctl file has the configuration of k0s (k0sctl `pkg/apis/k0sctl.k0sproject.io/v1beta1/cluster/k0s.go`).
const K0SCTL_CONFIG: &str = "spec.k0s.config";

/// The configuration of a cluster: k0s' `ClusterConfig`, kubeadm's `ClusterConfiguration`, the configuration file of
/// k3s or RKE2.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterConfig {
    object: Value,
    /// The same with its lines.
    tree: Option<Node>,
    /// What messages call the file.
    file: String,
    k0sctl: Option<K0sctl>,
}

/// What a k0sctl file says besides the configuration.
#[derive(Clone, Debug, PartialEq)]
struct K0sctl {
    /// The k0s that it installs.
    version: Option<String>,
}

/// A field that must be text and is something else, so that its reader refuses the whole configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NotText {
    /// The file and the line, if it is known.
    pub(super) place: String,
    pub(super) path: String,
    /// The value as it is written.
    pub(super) written: String,
}

impl ClusterConfig {
    /// Reads the configuration of a cluster of `distro`, JSON or YAML, by itself, in a `List`, for kubeadm in its
    /// `ConfigMap`, or for k0s in the file of k0sctl. `file` is what messages call it.
    pub fn parse(distro: &str, file: &str, text: &str) -> Result<Self, ObjectsError> {
        let found = trees(file, text)?;
        let (object, k0sctl) = match distro {
            "k0s" => k0s(found)?,
            "kubeadm" => (kubeadm(file, found)?, None),
            _ => (found.into_iter().next().unwrap_or_else(nothing), None),
        };
        Ok(Self { object: object.value, tree: object.tree, file: file.to_owned(), k0sctl })
    }

    /// The object.
    pub fn object(&self) -> &Value {
        &self.object
    }

    /// The same configuration with changes.
    pub(super) fn with_object(&self, object: Value) -> Self {
        Self { object, ..self.clone() }
    }

    /// Returns the path under which the file has the configuration, if it is not the whole object.
    pub fn place_in_file(&self) -> Option<&'static str> {
        self.k0sctl.as_ref().map(|_| K0SCTL_CONFIG)
    }

    /// The k0s that a k0sctl file installs, without `v`.
    pub(super) fn installs(&self) -> Option<&str> {
        let version = self.k0sctl.as_ref()?.version.as_deref()?;
        Some(version.strip_prefix('v').unwrap_or(version))
    }

    /// The fields of `distro`'s configuration that must be text and are numbers or booleans.
    pub(super) fn not_texts(&self, distro: &str) -> Vec<NotText> {
        let texts = match distro {
            "k0s" => &K0S_TEXTS[..],
            "kubeadm" => &KUBEADM_TEXTS[..],
            _ => &[],
        };
        let mut found = Vec::new();
        for pattern in texts {
            let steps: Vec<&str> = pattern.split('.').collect();
            find(&self.object, "", &steps, &mut |path, value| {
                if !found.iter().any(|known: &NotText| known.path == path) {
                    found.push(self.not_text(path, value));
                }
            });
        }
        found
    }

    fn not_text(&self, path: &str, value: &Value) -> NotText {
        let node = self.tree.as_ref().and_then(|tree| tree.at(path));
        let written = match node.map(|node| &node.value) {
            Some(yaml::Value::Number(written) | yaml::Value::Bool(_, written)) => written.clone(),
            _ => value.to_string(),
        };
        let place = match node {
            Some(node) => format!("{}, line {}", self.file, node.line),
            None => self.file.clone(),
        };
        let outer = self.place_in_file().map(|outer| format!("{outer}.")).unwrap_or_default();
        NotText { place, path: outer + path, written }
    }

    /// Whether the object was read from the API, where k0s' dynamic configuration keeps it.
    pub fn is_stored(&self) -> bool {
        objects::text(&self.object, &["metadata", "resourceVersion"]).is_some()
            || objects::text(&self.object, &["metadata", "uid"]).is_some()
    }

    /// What the patch command calls the object.
    pub fn name(&self) -> (&str, &str) {
        let part = |key, default| objects::text(&self.object, &["metadata", key]).unwrap_or(default);
        (part("namespace", "kube-system"), part("name", "k0s"))
    }

    /// The value at a path with dots.
    pub(super) fn at(&self, path: &str) -> Option<&Value> {
        objects::at(&self.object, &path.split('.').collect::<Vec<_>>())
    }

    /// The text at a path with dots; none where it is empty.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.at(path)?.as_str().filter(|text| !text.is_empty())
    }

    /// The texts at a path that takes one or a list.
    pub(super) fn texts(&self, path: &str) -> Vec<&str> {
        match self.at(path) {
            Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(text)) => text.split(',').map(str::trim).collect(),
            _ => Vec::new(),
        }
    }

    fn is_on(&self, path: &str) -> bool {
        self.at(path).and_then(Value::as_bool).unwrap_or(false)
    }

    /// k0s' `spec.images.repository`; empty where it is not set.
    pub(super) fn repository(&self) -> &str {
        self.text("spec.images.repository").unwrap_or_default()
    }

    /// k0s' `spec.images.default_pull_policy`, or its default.
    pub(super) fn pull_policy(&self) -> PullPolicy {
        policy(self.text("spec.images.default_pull_policy")).unwrap_or(PullPolicy::IfNotPresent)
    }

    /// The pull policy that a load balancer on the nodes has for itself.
    pub(super) fn load_balancer_policy(&self, config: &str) -> Option<PullPolicy> {
        let path = config.strip_suffix(".image").filter(|path| path.starts_with(NLLB))?;
        policy(self.text(&format!("{path}.imagePullPolicy")))
    }

    /// The network of a k0s cluster.
    pub(super) fn network(&self) -> &str {
        self.text("spec.network.provider").unwrap_or("kuberouter")
    }

    /// Whether k0s' kube-proxy is turned off.
    pub(super) fn without_kube_proxy(&self) -> bool {
        self.is_on("spec.network.kubeProxy.disabled")
    }

    /// The load balancer on the nodes of a k0s cluster, as the catalog's feature; none where it is off.
    pub(super) fn load_balancer(&self) -> Option<&'static str> {
        if !self.is_on(&format!("{NLLB}.enabled")) {
            return None;
        }
        match self.text(&format!("{NLLB}.type")) {
            Some("Traefik") => Some("nllb:traefik"),
            _ => Some("nllb:envoy"),
        }
    }
}

fn policy(text: Option<&str>) -> Option<PullPolicy> {
    match text? {
        "Always" => Some(PullPolicy::Always),
        "IfNotPresent" => Some(PullPolicy::IfNotPresent),
        "Never" => Some(PullPolicy::Never),
        _ => None,
    }
}

/// Texts in k0s' configuration, whose readers refuse anything else: its types read JSON themselves, so nothing is
/// converted before (k0s `pkg/apis/k0s/v1beta1`). `*` is any name, `**` everything below, `[]` the items of a list.
const K0S_TEXTS: [&str; 24] = [
    "apiVersion",
    "kind",
    "metadata.name",
    "metadata.namespace",
    "spec.images.**",
    "spec.network.provider",
    "spec.network.podCIDR",
    "spec.network.serviceCIDR",
    "spec.network.clusterDomain",
    "spec.network.kubeProxy.mode",
    "spec.network.nodeLocalLoadBalancing.type",
    "spec.network.nodeLocalLoadBalancing.*.image.**",
    "spec.network.nodeLocalLoadBalancing.*.imagePullPolicy",
    "spec.api.address",
    "spec.api.externalAddress",
    "spec.api.sans.[]",
    "spec.api.extraArgs.*",
    "spec.controllerManager.extraArgs.*",
    "spec.scheduler.extraArgs.*",
    "spec.storage.type",
    "spec.storage.etcd.extraArgs.*",
    "spec.workerProfiles.[].name",
    "spec.extensions.helm.repositories.[].*",
    "spec.extensions.helm.charts.[].version",
];

/// Texts in kubeadm's configuration (Kubernetes `cmd/kubeadm/app/apis/kubeadm/v1beta3` and `v1beta4`).
const KUBEADM_TEXTS: [&str; 12] = [
    "apiVersion",
    "kind",
    "kubernetesVersion",
    "imageRepository",
    "clusterName",
    "controlPlaneEndpoint",
    "dns.imageRepository",
    "dns.imageTag",
    "etcd.local.imageRepository",
    "etcd.local.imageTag",
    "networking.*",
    "apiServer.certSANs.[]",
];

/// Tells of every number and boolean in `value` that `pattern` fits.
fn find(value: &Value, path: &str, pattern: &[&str], tell: &mut impl FnMut(&str, &Value)) {
    match (pattern, value) {
        ([] | ["**"], Value::Number(_) | Value::Bool(_)) => tell(path, value),
        (["**"], Value::Object(fields)) => {
            for (name, value) in fields {
                find(value, &join(path, name), pattern, tell);
            }
        }
        (["[]", rest @ ..], Value::Array(items)) => {
            for (nth, value) in items.iter().enumerate() {
                find(value, &format!("{path}[{nth}]"), rest, tell);
            }
        }
        ([step, rest @ ..], Value::Object(fields)) => {
            for (name, value) in fields.iter().filter(|(name, _)| *step == "*" || step == name) {
                find(value, &join(path, name), rest, tell);
            }
        }
        _ => {}
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// A configuration that says nothing.
fn nothing() -> Object {
    Object { value: Value::Object(serde_json::Map::new()), tree: None }
}

/// The configuration of k0s in a k0sctl file. Without one k0s has its defaults.
fn k0sctl(object: &Object) -> (Object, K0sctl) {
    let version = match objects::at(&object.value, &["spec", "k0s", "version"]) {
        Some(Value::String(version)) => Some(version.clone()),
        _ => None,
    };
    let value = objects::at(&object.value, &["spec", "k0s", "config"]).filter(|config| config.is_object());
    let config = match value {
        Some(value) => Object {
            value: value.clone(),
            tree: object.tree.as_ref().and_then(|tree| tree.at(K0SCTL_CONFIG)).cloned(),
        },
        None => nothing(),
    };
    (config, K0sctl { version })
}

/// The `ClusterConfig` among objects; of several the one that k0s itself uses.
fn k0s(found: Vec<Object>) -> Result<(Object, Option<K0sctl>), ObjectsError> {
    let is_k0sctl = |object: &Object| {
        objects::text(&object.value, &["apiVersion"])
            .is_some_and(|it| it.starts_with("k0sctl.k0sproject.io/"))
            && objects::text(&object.value, &["kind"]) == Some("Cluster")
    };
    let fits = |object: &Object| {
        let value = &object.value;
        is_kind(value, "ClusterConfig") && (value.get("spec").is_some() || value.get("kind").is_some())
    };
    let (clusters, others): (Vec<Object>, Vec<Object>) = found.into_iter().partition(is_k0sctl);
    let clusters = clusters.iter().map(k0sctl).map(|(config, k0sctl)| (config, Some(k0sctl)));
    let mut configs: Vec<(Object, Option<K0sctl>)> =
        clusters.chain(others.into_iter().filter(fits).map(|config| (config, None))).collect();
    let own = |(object, _): &(Object, _)| objects::text(&object.value, &["metadata", "name"]) == Some("k0s");
    if configs.len() > 1 && configs.iter().filter(|config| own(config)).count() == 1 {
        configs.retain(own);
    }
    match <[_; 1]>::try_from(configs) {
        Ok([config]) => Ok(config),
        Err(configs) if configs.is_empty() => Err(ObjectsError::Unfit(
            "there is no ClusterConfig; give the output of `kubectl -n kube-system get clusterconfig k0s -o json`, \
             the k0s.yaml of the controllers, or a k0sctl.yaml"
                .to_owned(),
        )),
        Err(configs) => Err(ObjectsError::Unfit(format!(
            "there are {} ClusterConfig objects and it is not clear which one counts; give one",
            configs.len()
        ))),
    }
}

/// kubeadm's `ClusterConfiguration`, by itself or within its `ConfigMap`.
fn kubeadm(file: &str, found: Vec<Object>) -> Result<Object, ObjectsError> {
    let mut inner = Vec::new();
    for object in &found {
        if let Some(text) = objects::text(&object.value, &["data", "ClusterConfiguration"]) {
            // Lines within a text are none of the file's.
            inner.extend(objects(file, text)?.into_iter().map(|value| Object { value, tree: None }));
        }
    }
    let own = |object: &Object| objects::text(&object.value, &["kind"]) == Some("ClusterConfiguration");
    inner.into_iter().chain(found).find(own).ok_or_else(|| {
        ObjectsError::Unfit(
            "there is no ClusterConfiguration; give the output of `kubectl -n kube-system get configmap kubeadm-config \
             -o json`"
                .to_owned(),
        )
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_is_filled_in() {
        let config = ClusterConfig::parse(
            "k0s",
            "config.yaml",
            "kind: ClusterConfig\nspec: {images: {repository: r.io/a}}\n",
        );
        let config = config.unwrap();
        assert_eq!(config.object()["spec"], serde_json::json!({"images": {"repository": "r.io/a"}}));
        assert_eq!(config.repository(), "r.io/a");
        assert_eq!(config.pull_policy(), PullPolicy::IfNotPresent);
        assert_eq!(config.network(), "kuberouter");
        assert_eq!(config.load_balancer(), None);
        assert!(!config.is_stored());
    }

    #[test]
    fn k0s_objects_come_in_lists_too() {
        let text = r#"{"kind":"List","items":[
            {"kind":"ClusterConfig","metadata":{"name":"k0s","uid":"1"},"spec":{"network":{"provider":"calico"}}},
            {"kind":"ClusterConfig","metadata":{"name":"old"}}, {"kind":"Node"}]}"#;
        let config = ClusterConfig::parse("k0s", "config.yaml", text).unwrap();
        assert_eq!(config.network(), "calico");
        assert!(config.is_stored());
        let two = r#"[{"kind":"ClusterConfig"},{"kind":"ClusterConfig"}]"#;
        assert!(
            ClusterConfig::parse("k0s", "config.yaml", two).unwrap_err().to_string().contains("give one")
        );
        assert!(
            ClusterConfig::parse("k0s", "config.yaml", "kind: Node")
                .unwrap_err()
                .to_string()
                .contains("kubectl")
        );
        assert!(ClusterConfig::parse("k0s", "config.yaml", "").is_err());
    }

    #[test]
    fn k0sctl_files_have_the_configuration_inside() {
        let file = "apiVersion: v1\nkind: Secret\n---\napiVersion: k0sctl.k0sproject.io/v1beta1\nkind: Cluster\n\
                    metadata: {name: k0s-cluster}\nspec:\n  hosts: [{role: controller}]\n  k0s:\n    version: 1.35.4+k0s.0\n    \
                    config:\n      spec:\n        network: {provider: calico}\n        images: {coredns: {version: 1.10}}\n";
        let config = ClusterConfig::parse("k0s", "k0sctl.yaml", file).unwrap();
        assert_eq!(config.network(), "calico");
        assert_eq!(config.installs(), Some("1.35.4+k0s.0"));
        assert_eq!(
            config.not_texts("k0s"),
            [NotText {
                place: "k0sctl.yaml, line 14".into(),
                path: "spec.k0s.config.spec.images.coredns.version".into(),
                written: "1.10".into()
            }]
        );
        let bare = "apiVersion: k0sctl.k0sproject.io/v1beta1\nkind: Cluster\nspec: {k0s: {version: v1.35.4+k0s.0}}\n";
        let config = ClusterConfig::parse("k0s", "k0sctl.yaml", bare).unwrap();
        assert_eq!((config.installs(), config.network()), (Some("1.35.4+k0s.0"), "kuberouter"));
    }

    #[test]
    fn numbers_and_booleans_in_place_of_text_are_found() {
        for (distro, text, path, line, written) in [
            (
                "k0s",
                "kind: ClusterConfig\nspec:\n  images:\n    pause:\n      version: 3.10\n",
                "spec.images.pause.version",
                5,
                "3.10",
            ),
            (
                "k0s",
                "kind: ClusterConfig\nspec:\n  network: {nodeLocalLoadBalancing: {envoyProxy: {image: {version: 1.30}}}}\n",
                "spec.network.nodeLocalLoadBalancing.envoyProxy.image.version",
                3,
                "1.30",
            ),
            (
                "k0s",
                "kind: ClusterConfig\nspec:\n  images: {default_pull_policy: on}\n",
                "spec.images.default_pull_policy",
                3,
                "on",
            ),
            (
                "k0s",
                "kind: ClusterConfig\nspec:\n  api: {extraArgs: {v: 4}}\n",
                "spec.api.extraArgs.v",
                3,
                "4",
            ),
            (
                "k0s",
                "kind: ClusterConfig\nspec:\n  extensions:\n    helm:\n      charts:\n      - name: a\n        version: 1.0\n",
                "spec.extensions.helm.charts[0].version",
                7,
                "1.0",
            ),
            (
                "k0s",
                "{\"kind\": \"ClusterConfig\",\n \"spec\": {\"images\": {\"pause\": {\"version\": 3.10}}}}",
                "spec.images.pause.version",
                2,
                "3.10",
            ),
            (
                "kubeadm",
                "kind: ClusterConfiguration\nkubernetesVersion: 1.36\n",
                "kubernetesVersion",
                2,
                "1.36",
            ),
        ] {
            let config = ClusterConfig::parse(distro, "c.yaml", text).unwrap();
            let expected =
                NotText { place: format!("c.yaml, line {line}"), path: path.into(), written: written.into() };
            assert_eq!(config.not_texts(distro), [expected], "{text}");
        }
        let right = "kind: ClusterConfig\nspec: {images: {pause: {version: '3.10'}}, network: {calico: {mtu: 1400}}}\n";
        assert!(ClusterConfig::parse("k0s", "c.yaml", right).unwrap().not_texts("k0s").is_empty());
    }

    #[test]
    fn kubeadm_keeps_its_configuration_in_a_text() {
        let text = "kind: ConfigMap\ndata:\n  ClusterConfiguration: |\n    kind: ClusterConfiguration\n    \
                    imageRepository: site.local/k8s\n";
        let config = ClusterConfig::parse("kubeadm", "config.yaml", text).unwrap();
        assert_eq!(config.text("imageRepository"), Some("site.local/k8s"));
        assert!(ClusterConfig::parse("kubeadm", "config.yaml", "kind: ConfigMap").is_err());
        assert_eq!(
            ClusterConfig::parse("rke2", "config.yaml", "cni: [multus, calico]").unwrap().texts("cni"),
            ["multus", "calico"]
        );
    }

    proptest! {
        #[test]
        fn never_panics(text in "[ -~\n]{0,200}", distro in "(k0s|kubeadm|k3s)") {
            let _ = ClusterConfig::parse(&distro, "config.yaml", &text);
        }
    }
}
