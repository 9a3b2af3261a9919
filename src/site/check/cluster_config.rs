//! The cluster's configuration as it is stored, never as a program would complete it.
//!
//! k0s fills in defaults whenever it decodes its `ClusterConfig`, so what is pinned can only be seen in the raw object.

use serde_json::Value;

use super::objects::{self, ObjectsError, is_kind, objects};
use crate::catalog::PullPolicy;

/// Where node-local load balancing is configured.
const NLLB: &str = "spec.network.nodeLocalLoadBalancing";

/// The configuration of a cluster: k0s' `ClusterConfig`, kubeadm's `ClusterConfiguration`, the configuration file of
/// k3s or RKE2.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterConfig {
    object: Value,
}

impl ClusterConfig {
    /// Reads the configuration of a cluster of `distro`, JSON or YAML, by itself, in a `List`, or for kubeadm in its
    /// `ConfigMap`. `file` is what messages call it.
    pub fn parse(distro: &str, file: &str, text: &str) -> Result<Self, ObjectsError> {
        let found = objects(file, text)?;
        let object = match distro {
            "k0s" => k0s(found)?,
            "kubeadm" => kubeadm(file, found)?,
            _ => found.into_iter().next().unwrap_or(Value::Object(serde_json::Map::new())),
        };
        Ok(Self { object })
    }

    /// The object.
    pub fn object(&self) -> &Value {
        &self.object
    }

    /// The configuration that is another object.
    pub(super) fn of_object(object: Value) -> Self {
        Self { object }
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

/// The `ClusterConfig` among objects; of several the one that k0s itself uses.
fn k0s(found: Vec<Value>) -> Result<Value, ObjectsError> {
    let fits = |object: &Value| {
        is_kind(object, "ClusterConfig") && (object.get("spec").is_some() || object.get("kind").is_some())
    };
    let mut configs: Vec<Value> = found.into_iter().filter(fits).collect();
    let own = |object: &Value| objects::text(object, &["metadata", "name"]) == Some("k0s");
    if configs.len() > 1 && configs.iter().filter(|object| own(object)).count() == 1 {
        configs.retain(own);
    }
    match <[Value; 1]>::try_from(configs) {
        Ok([config]) => Ok(config),
        Err(configs) if configs.is_empty() => Err(ObjectsError::Unfit(
            "there is no ClusterConfig; give the output of `kubectl -n kube-system get clusterconfig k0s -o json`, or \
             the k0s.yaml of the controllers"
                .to_owned(),
        )),
        Err(configs) => Err(ObjectsError::Unfit(format!(
            "there are {} ClusterConfig objects and it is not clear which one counts; give one",
            configs.len()
        ))),
    }
}

/// kubeadm's `ClusterConfiguration`, by itself or within its `ConfigMap`.
fn kubeadm(file: &str, found: Vec<Value>) -> Result<Value, ObjectsError> {
    let mut inner = Vec::new();
    for object in &found {
        if let Some(text) = objects::text(object, &["data", "ClusterConfiguration"]) {
            inner.extend(objects(file, text)?);
        }
    }
    let own = |object: &Value| objects::text(object, &["kind"]) == Some("ClusterConfiguration");
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
