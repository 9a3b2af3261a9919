//! Every finding: a cluster that has it, how bad it is there, and that it says what to do.

use std::collections::BTreeSet;

use dray::catalog::{Catalog, Severity};
use dray::resolve::Lock;
use dray::site::check::{
    ClusterConfig, Delivery, Finding, Inputs, Source, WorkerConfig, Workload, check, parse_nodes,
};
use serde_json::{Value, json};

use Severity::{Blocker, Note, Warning};

const CALICO: &str = "kind: ClusterConfig\nspec: {network: {provider: calico}}\n";

/// A cluster that goes to a release, with nothing served.
#[derive(Clone)]
struct Cluster {
    to: &'static str,
    config: Option<String>,
    nodes: Vec<Value>,
    delivery: Delivery,
    with: &'static [&'static str],
    worker_configs: &'static str,
    workloads: &'static str,
}

fn node(name: &str, os: &str, arch: &str, version: &str, kubelet: &str) -> Value {
    json!({
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/os": os, "kubernetes.io/arch": arch}},
        "status": {"nodeInfo": {
            "kernelVersion": version, "kubeletVersion": kubelet, "containerRuntimeVersion": "containerd://1.7.20",
        }},
    })
}

fn linux(arch: &str) -> Value {
    node(&format!("linux-{arch}"), "linux", arch, "6.1.0", "")
}

fn windows(version: &str) -> Value {
    node(&format!("windows-{version}"), "windows", "amd64", version, "")
}

/// A Linux and a Windows worker that go to `to`.
fn mixed(to: &'static str) -> Cluster {
    let config = to.starts_with("k0s@").then(|| CALICO.to_owned());
    Cluster {
        to,
        config,
        nodes: vec![linux("amd64"), windows("10.0.20348.2655")],
        delivery: Delivery::Any,
        with: &[],
        worker_configs: "",
        workloads: "",
    }
}

impl Cluster {
    fn spec(mut self, spec: &str) -> Self {
        self.config = Some(format!("kind: ClusterConfig\nspec: {spec}\n"));
        self
    }

    fn nodes(mut self, nodes: &[Value]) -> Self {
        self.nodes = nodes.to_vec();
        self
    }

    fn by(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }

    fn findings(&self, catalog: &Catalog) -> Vec<Finding> {
        let target = self.to.parse().unwrap();
        let config = self
            .config
            .as_deref()
            .map(|text| ClusterConfig::parse(&self.distro(), "config.yaml", text).unwrap());
        let nodes = json!({"kind": "List", "items": self.nodes}).to_string();
        let nothing =
            json!({"schemaVersion": 1, "name": "x", "sequence": 1, "nodes": [], "images": [], "blobs": []});
        let source = Source::Locks(vec![Lock::from_json(nothing.to_string().as_bytes()).unwrap()]);
        let with: Vec<String> = self.with.iter().map(ToString::to_string).collect();
        let report = check(&Inputs {
            catalog,
            target: &target,
            config: config.as_ref(),
            nodes: &parse_nodes("nodes.json", &nodes, catalog.windows()).unwrap(),
            source: &source,
            delivery: self.delivery,
            worker_configs: &WorkerConfig::parse_all("objects.json", self.worker_configs).unwrap(),
            workloads: &Workload::parse_all("objects.json", self.workloads).unwrap(),
            with: &with,
            without: &[],
            sandbox: None,
        });
        report.unwrap().problems
    }

    fn distro(&self) -> String {
        self.to.split('@').next().unwrap().to_owned()
    }
}

fn k0s_131() -> Cluster {
    mixed("k0s@v1.31.1+k0s.0")
}

fn k0s_136() -> Cluster {
    mixed("k0s@v1.36.3+k0s.2")
}

fn linux_only(to: &'static str) -> Cluster {
    mixed(to).nodes(&[linux("amd64")])
}

const ENVOY: &str =
    "{network: {provider: calico, nodeLocalLoadBalancing: {enabled: true, type: EnvoyProxy}}}";
const REPOSITORY: &str = "{network: {provider: calico}, images: {repository: site.local:5000/mirror}}";

/// Each finding with a cluster that has it.
fn clusters() -> Vec<(&'static str, Severity, Cluster)> {
    let mut all = of_releases();
    all.extend(of_clusters());
    all
}

/// What the catalog knows of releases.
fn of_releases() -> Vec<(&'static str, Severity, Cluster)> {
    vec![
        ("win-external-cri", Blocker, mixed("k0s@v1.27.16+k0s.0")),
        ("win-images-not-listed", Warning, k0s_131()),
        ("win-images-hardcoded", Warning, k0s_131()),
        ("win-kube-proxy-frozen", Warning, k0s_131()),
        ("win-pull-policy-always", Warning, k0s_131()),
        ("win-pull-policy-always", Blocker, k0s_131().by(Delivery::Preload)),
        ("win-pause-linux-only", Blocker, mixed("k0s@v1.33.4+k0s.0")),
        ("win-pause-legacy-host", Warning, mixed("k0s@v1.34.2+k0s.0")),
        ("win-bundle-import-broken", Warning, k0s_131()),
        ("win-bundle-import-broken", Blocker, k0s_131().by(Delivery::Preload)),
        ("win-konnectivity-not-listed", Warning, k0s_136()),
        ("win-custom-profile-linux-pause", Note, k0s_136()),
        ("win-no-autopilot", Note, k0s_136()),
        ("win-kube-proxy-third-party", Note, k0s_136()),
        ("win-nllb-envoy", Blocker, k0s_136().spec(ENVOY)),
        ("dyncfg-pins-images", Note, k0s_131()),
        ("dyncfg-pins-images-with-repository", Note, mixed("k0s@v1.34.2+k0s.0").spec(REPOSITORY)),
        ("dyncfg-partial-override-loses-field", Note, mixed("k0s@v1.32.1+k0s.0")),
        ("dyncfg-pins-partial-override", Note, k0s_136()),
        ("repo-override-not-idempotent", Note, k0s_131().spec(REPOSITORY)),
        (
            "pushgateway-not-overridden",
            Warning,
            Cluster { with: &["metrics-scraper"], ..mixed("k0s@v1.30.1+k0s.0") }.spec(REPOSITORY),
        ),
        (
            "pushgateway-not-listed",
            Warning,
            Cluster { with: &["metrics-scraper"], ..mixed("k0s@v1.30.1+k0s.0") },
        ),
        ("pause-not-overridden-in-list", Note, mixed("k0s@v1.30.1+k0s.0")),
        ("list-images-rejects-dynamic-config", Note, k0s_131()),
        // Of the other distributions.
        ("kubeadm-no-network", Note, linux_only("kubeadm@v1.35.7")),
        ("kubeadm-containerd-2", Blocker, linux_only("kubeadm@v1.36.3")),
        ("k3s-no-windows", Blocker, mixed("k3s@v1.35.3+k3s1")),
        ("k3s-list-unconfirmed", Warning, linux_only("k3s@v1.37.1+k3s1")),
        ("rke2-windows-tarball-pause", Warning, mixed("rke2@v1.35.3+rke2r1")),
        ("rke2-windows-list-pause", Warning, mixed("rke2@v1.29.3+rke2r1")),
        ("rke2-windows-2025-tarball", Note, mixed("rke2@v1.36.3+rke2r1")),
        ("rke2-windows-upgrade", Note, mixed("rke2@v1.36.3+rke2r1")),
    ]
}

/// What a cluster's own configuration and nodes bring about.
fn of_clusters() -> Vec<(&'static str, Severity, Cluster)> {
    let never = "{network: {provider: calico}, images: {default_pull_policy: Never}}";
    let always = "{network: {provider: calico}, images: {default_pull_policy: Always}}";
    let pinned = "{images: {coredns: {image: quay.io/k0sproject/coredns, version: 1.12.2}}}";
    let at = |kubelet| node("worker", "linux", "amd64", "6.1.0", kubelet);
    let mut control = windows("10.0.20348.2655");
    control["metadata"]["labels"]["node-role.kubernetes.io/control-plane"] = json!("");
    vec![
        // Of pull policies and archives.
        ("pull-policy-never", Warning, k0s_136().spec(never)),
        ("pull-policy-never", Blocker, k0s_136().spec(never).by(Delivery::Registry)),
        ("pull-policy-always", Warning, k0s_136().spec(always)),
        ("pull-policy-always", Blocker, k0s_136().spec(always).by(Delivery::Preload)),
        ("sandbox-ignores-policy", Note, k0s_136().spec(never)),
        ("import-sparse", Warning, linux_only("k0s@v1.30.1+k0s.0").by(Delivery::Preload)),
        ("import-unpinned", Warning, linux_only("k0s@v1.27.16+k0s.0").by(Delivery::Preload)),
        ("import-bad-file", Warning, linux_only("k0s@v1.28.2+k0s.0").by(Delivery::Preload)),
        // Of the nodes.
        ("nllb-envoy-architecture", Blocker, k0s_136().spec(ENVOY).nodes(&[linux("amd64"), linux("arm")])),
        (
            "nllb-envoy-architecture",
            Blocker,
            k0s_136().spec(ENVOY).nodes(&[linux("amd64"), linux("riscv64")]),
        ),
        ("control-plane-on-windows", Blocker, k0s_136().nodes(&[linux("amd64"), control])),
        ("linux-worker-missing", Blocker, k0s_136().nodes(&[windows("10.0.20348.2655")])),
        ("windows-network", Blocker, k0s_136().spec("{network: {provider: kuberouter}}")),
        ("windows-network", Blocker, k0s_136().spec("{network: {provider: calico, calico: {mode: bird}}}")),
        ("windows-unsupported", Blocker, k0s_136().nodes(&[linux("amd64"), windows("10.0.14393.1")])),
        ("pause-hyper-v", Warning, k0s_136().nodes(&[linux("amd64"), windows("10.0.26100.1742")])),
        (
            "windows-entry-missing",
            Blocker,
            mixed("k0s@v1.29.7+k0s.0").nodes(&[linux("amd64"), windows("10.0.14393.1")]),
        ),
        (
            "win-custom-profile-linux-pause",
            Warning,
            Cluster {
                worker_configs: r#"{"metadata":{"name":"worker-config-win-1.36"},"data":{}}"#,
                ..k0s_136()
            },
        ),
        // Of the configuration.
        ("stale-pins", Blocker, linux_only("k0s@v1.36.3+k0s.2").spec(pinned)),
        (
            "incomplete-pins",
            Warning,
            linux_only("k0s@v1.36.3+k0s.2").spec("{images: {coredns: {image: quay.io/k0sproject/coredns}}}"),
        ),
        ("repository-prefix", Note, k0s_136().spec(REPOSITORY)),
        // Of the upgrade.
        ("kubelet-newer", Blocker, k0s_131().nodes(&[at("v1.32.1+k0s")])),
        ("kubelet-skew", Blocker, k0s_136().nodes(&[at("v1.32.1+k0s")])),
        ("control-plane-skips", Warning, k0s_136().nodes(&[at("v1.34.1+k0s")])),
        ("containerd-dropins", Warning, k0s_136().nodes(&[at("v1.35.7+k0s")])),
        ("running-release-not-servable", Warning, k0s_136().nodes(&[at("v1.35.7+k0s")])),
        ("running-release-unknown", Note, k0s_136().nodes(&[at("v1.35.99+k0s")])),
        (
            "running-sandbox-missing",
            Warning,
            Cluster {
                worker_configs: r#"{"metadata":{"name":"worker-config-default-1.35"},
                    "data":{"pauseImage":"{\"image\":\"registry.k8s.io/pause\",\"version\":\"3.9\"}"}}"#,
                ..k0s_136().nodes(&[at("v1.35.7+k0s")])
            },
        ),
        (
            "workload-image-missing",
            Warning,
            Cluster {
                workloads: "kind: DaemonSet\nspec: {template: {spec: {containers: [{image: 'a.io/b:1'}]}}}\n",
                ..k0s_136()
            },
        ),
        (
            "workload-pulls-always",
            Warning,
            Cluster {
                workloads: "kind: DaemonSet\nspec: {template: {spec: {containers: [{image: 'a.io/b'}]}}}\n",
                ..k0s_136().by(Delivery::Preload)
            },
        ),
    ]
}

#[test]
fn every_finding_has_a_cluster_and_a_fix() {
    let catalog = Catalog::builtin().unwrap();
    let mut wrong = Vec::new();
    for (id, severity, cluster) in clusters() {
        let findings = cluster.findings(&catalog);
        match findings.iter().find(|finding| finding.id == id) {
            Some(finding) if finding.severity != severity => {
                wrong.push(format!("{id} of {}: {:?}, not {severity:?}", cluster.to, finding.severity));
            }
            Some(finding) if finding.fix.as_deref().unwrap_or_default().is_empty() => {
                wrong.push(format!("{id} of {}: no fix", cluster.to));
            }
            Some(_) => {}
            None => {
                let ids: Vec<&str> = findings.iter().map(|finding| finding.id.as_str()).collect();
                wrong.push(format!("{id} of {} is not found, but {}", cluster.to, ids.join(", ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What the catalog calls a problem is a finding of `dray check`, except what concerns software that is no Kubernetes.
#[test]
fn no_problem_of_the_catalog_is_left_out() {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/problems.yaml")).unwrap();
    let catalog: Value = serde_saphyr::from_str(&text).unwrap();
    let found: BTreeSet<&str> = clusters().iter().map(|(id, ..)| *id).collect();
    let known = catalog["problems"].as_object().unwrap().keys().map(String::as_str);
    let left: Vec<&str> = known.filter(|id| !found.contains(id) && !id.starts_with("openkruise-")).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// What only some clusters have is not said of the others.
#[test]
fn a_plain_cluster_has_no_warnings() {
    let mut node = linux("amd64");
    node["status"]["nodeInfo"]["containerRuntimeVersion"] = json!("containerd://2.3.4");
    let plain = mixed("k0s@v1.36.3+k0s.2").nodes(&[node]);
    let findings = plain.findings(&Catalog::builtin().unwrap());
    let loud: Vec<Finding> = findings.into_iter().filter(|finding| finding.severity > Note).collect();
    assert!(loud.is_empty(), "{loud:?}");
}
