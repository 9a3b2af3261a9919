//! `dray check`: the update that once failed, mixed clusters, and other distributions, node by node.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dray::catalog::Catalog;
use dray::oci::{Digest, NodeKind, Reference, media_type};
use serde_json::{Value, json};
use tempfile::TempDir;

use self::support::command::Run as _;
use self::support::shelf;
use self::support::site::{Serve, Site};

mod check {
    mod findings;
}

const OLD: &str = "k0s@v1.29.7+k0s.0";
const NEW: &str = "k0s@v1.30.3+k0s.0";
const LINUX: [&str; 2] = ["linux/amd64", "linux/arm64"];
const MIXED: [&str; 4] =
    ["linux/amd64", "windows(10.0.17763)/amd64", "windows(10.0.20348)/amd64", "windows(10.0.26100)/amd64"];

/// A directory with what a check reads.
struct Desk(TempDir);

struct Answer {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap();
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.path(name)).unwrap()).unwrap()
    }

    fn yaml(&self, name: &str) -> Value {
        serde_saphyr::from_str(&std::fs::read_to_string(self.path(name)).unwrap()).unwrap()
    }

    /// Writes a lock that has what releases need on these node kinds, and further images.
    fn lock(&self, releases: &[(&str, &[&str])], kinds: &[&str], more: &[&str]) {
        self.write("plant.lock", lock(releases, kinds, more).to_string());
    }

    /// Runs the command in this directory.
    fn check(&self, arguments: &[&str]) -> Answer {
        let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_dray"));
        let output = command.current_dir(self.0.path()).arg("check").args(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Answer {
            code: output.status.code().unwrap(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    fn report(&self, arguments: &[&str]) -> (i32, Value) {
        let answer = self.check(&[arguments, &["--format", "json"]].concat());
        let report = serde_json::from_str(&answer.stdout).unwrap_or_else(|_| panic!("{}", answer.stderr));
        (answer.code, report)
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit code {}\n\n{}\n{}", self.code, self.stdout, self.stderr)
    }
}

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/check").join(name);
    path.to_str().unwrap().to_owned()
}

fn references(releases: &[(&str, &[&str])], kinds: &[NodeKind]) -> BTreeMap<Reference, Vec<NodeKind>> {
    let catalog = Catalog::builtin().unwrap();
    let mut images: BTreeMap<Reference, Vec<NodeKind>> = BTreeMap::new();
    for (release, with) in releases {
        let with: Vec<String> = with.iter().map(ToString::to_string).collect();
        for need in catalog.needs(&release.parse().unwrap(), &with, kinds).unwrap().images {
            images.entry(need.reference).or_default().extend(need.nodes);
        }
    }
    images
}

/// A lock in which every image is an index with an entry for each node kind that needs it.
fn lock(releases: &[(&str, &[&str])], kinds: &[&str], more: &[&str]) -> Value {
    let kinds: Vec<NodeKind> = kinds.iter().map(|kind| kind.parse().unwrap()).collect();
    let mut wanted = references(releases, &kinds);
    wanted.extend(more.iter().map(|reference| (reference.parse().unwrap(), kinds.clone())));
    let mut blobs: BTreeMap<Digest, Value> = BTreeMap::new();
    let mut manifest = |text: &str, media_type: &str| {
        let digest = Digest::sha256(text.as_bytes());
        let entry = json!({"digest": digest, "size": text.len(), "manifest": true});
        blobs.insert(digest.clone(), entry);
        json!({"mediaType": media_type, "digest": digest, "size": text.len()})
    };
    let mut images = Vec::new();
    for (reference, mut nodes) in wanted {
        nodes.sort();
        nodes.dedup();
        let root = manifest(&reference.to_string(), media_type::OCI_INDEX);
        let child = |node: &NodeKind| {
            let mut child = manifest(&format!("{reference} {node}"), media_type::OCI_MANIFEST);
            child["platform"] = json!(node.platform());
            child["nodes"] = json!([node]);
            child["blobs"] = json!([]);
            child
        };
        let children: Vec<Value> = nodes.iter().map(child).collect();
        images.push(json!({"ref": reference, "root": root, "nodes": nodes, "children": children}));
    }
    let blobs: Vec<Value> = blobs.into_values().collect();
    json!({"schemaVersion": 1, "name": "plant-7", "sequence": 1, "nodes": kinds, "images": images, "blobs": blobs})
}

/// Panics unless the report has the problem `id` and calls it a blocker.
#[track_caller]
fn is_blocked_by(id: &str, report: &Value) {
    assert!(ids(report).contains(&("blocker", id)), "{id}: {:?}", ids(report));
}

fn ids(report: &Value) -> Vec<(&str, &str)> {
    let problems = report["problems"].as_array().unwrap().iter();
    problems.map(|problem| (problem["severity"].as_str().unwrap(), problem["id"].as_str().unwrap())).collect()
}

/// An update from 1.29 to 1.30 without a network, with dynamic configuration, node-local load balancing and the pull
/// policy Never: the new controllers ask for the images of 1.29, because the stored configuration pins them.
#[test]
fn without_content_only_the_configuration_is_judged() {
    let desk = Desk::new();
    for file in ["incident-config.yaml", "incident-nodes.json"] {
        desk.write(file, std::fs::read(Path::new("tests/fixtures/check").join(file)).unwrap());
    }
    let inputs = ["--cluster-config", "incident-config.yaml", "--nodes", "incident-nodes.json", "--to", NEW];
    // What the configuration does wrong is found.
    let (code, report) = desk.report(&inputs);
    assert_eq!((code, &report["ready"], &report["contentChecked"]), (4, &json!(false), &json!(false)));
    assert!(report["nodes"].as_array().unwrap().iter().all(|node| node["missing"] == json!([])), "{report}");
    assert!(report["problems"].as_array().unwrap().iter().any(|p| p["id"] == "stale-pins"), "{report}");
    // Once it is right the answer is yes, and says what it is about.
    let mut config: Value = desk.yaml("incident-config.yaml");
    dray::site::check::apply(&mut config, &report["patch"]);
    desk.write("incident-config.yaml", config.to_string());
    let answer = desk.check(&inputs);
    assert_eq!(answer.code, 0, "{answer}");
    assert!(answer.stdout.contains("CONFIGURED"), "{answer}");
    assert!(answer.stdout.contains("no image was looked for"), "{answer}");
}

#[test]
fn the_update_that_started_the_old_images() {
    let desk = Desk::new();
    let config = fixture("incident-config.yaml");
    let nodes = fixture("incident-nodes.json");
    desk.lock(&[(NEW, &["nllb:envoy"])], &LINUX, &[]);
    let common = ["--to", NEW, "--nodes", &nodes, "--lock", "plant.lock"];
    let before = [&common[..], &["--cluster-config", &config, "--patch", "pins.json"]].concat();

    let (code, report) = desk.report(&before);
    assert_eq!(code, 4);
    assert_eq!(report["ready"], false);
    assert_eq!(report["creator"], OLD);
    assert_eq!(report["readyWithPatch"], true);
    is_blocked_by("stale-pins", &report);
    assert_eq!(report["nodes"][0]["ready"], false);
    assert_eq!(report["patch"], desk.json("pins.json"));
    assert!(report["patch"]["spec"]["images"]["pause"].is_null());
    assert!(report["patch"]["spec"]["images"].get("default_pull_policy").is_none());
    insta::assert_json_snapshot!("incident", report);
    insta::assert_snapshot!("incident_text", desk.check(&before));

    let mut patched: Value = serde_saphyr::from_str(&std::fs::read_to_string(&config).unwrap()).unwrap();
    dray::site::check::apply(&mut patched, &desk.json("pins.json"));
    desk.write("patched.json", patched.to_string());
    desk.lock(&[(OLD, &["nllb:envoy"]), (NEW, &["nllb:envoy"])], &LINUX, &[]);
    let after = [&common[..], &["--cluster-config", "patched.json"]].concat();
    let (code, report) = desk.report(&after);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!((&report["ready"], &report["patch"]), (&json!(true), &json!({})));
    assert!(report["pins"].as_array().unwrap().is_empty());
    assert!(ids(&report).contains(&("warning", "pull-policy-never")), "the archive has to be on the nodes");
    assert_eq!(report["keep"][0]["releases"], json!([OLD]));
    insta::assert_snapshot!("incident_patched_text", desk.check(&after));

    let (code, report) = desk.report(&[&after[..], &["--delivery", "registry"]].concat());
    assert_eq!(code, 4, "no node may ask a registry");
    is_blocked_by("pull-policy-never", &report);
}

#[test]
fn the_old_images_start_where_they_are_served_too() {
    let desk = Desk::new();
    let (config, nodes) = (fixture("incident-config.yaml"), fixture("incident-nodes.json"));
    desk.lock(&[(OLD, &["nllb:envoy"]), (NEW, &["nllb:envoy"])], &LINUX, &[]);
    let (code, report) =
        desk.report(&["--to", NEW, "--cluster-config", &config, "--nodes", &nodes, "--lock", "plant.lock"]);
    assert_eq!(code, 0);
    assert!(ids(&report).contains(&("warning", "stale-pins")), "they start, with old images");
}

#[test]
fn a_single_pin_is_asked_about() {
    let desk = Desk::new();
    let nodes = fixture("incident-nodes.json");
    desk.write(
        "k0s.yaml",
        "kind: ClusterConfig\nspec: {images: {coredns: {image: quay.io/k0sproject/coredns, version: 1.10.1}}}\n",
    );
    desk.lock(&[(NEW, &[])], &LINUX, &["quay.io/k0sproject/coredns:1.10.1"]);
    let common = ["--to", NEW, "--cluster-config", "k0s.yaml", "--nodes", &nodes, "--lock", "plant.lock"];
    let (code, report) = desk.report(&[&common[..], &["--patch", "pins.json"]].concat());
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["ask"], json!(["spec.images.coredns"]));
    assert_eq!(report["patch"], json!({}));
    assert!(!desk.path("pins.json").exists());
    let stale =
        report["problems"].as_array().unwrap().iter().find(|problem| problem["id"] == "stale-pins").unwrap();
    assert!(stale["fix"].as_str().unwrap().contains("decide about spec.images.coredns"), "{stale}");
}

#[test]
fn a_mixed_cluster_node_by_node() {
    let desk = Desk::new();
    let [config, nodes, workers, workloads] =
        ["mixed-config.yaml", "mixed-nodes.json", "mixed-worker-configs.json", "mixed-workloads.yaml"]
            .map(fixture);
    let target = "k0s@v1.36.3+k0s.2";
    desk.lock(&[("k0s@v1.35.7+k0s.0", &["calico"]), (target, &["calico"])], &MIXED[..3], &[]);
    let arguments = [
        "--to",
        target,
        "--cluster-config",
        &config,
        "--nodes",
        &nodes,
        "--lock",
        "plant.lock",
        "--worker-configs",
        &workers,
        "--workloads",
        &workloads,
    ];
    let (code, report) = desk.report(&arguments);
    assert_eq!(code, 4);
    let found = ids(&report);
    for expected in [
        ("blocker", "win-nllb-envoy"),
        ("warning", "version-override"),
        ("blocker", "stale-pins"),
        ("note", "custom-image"),
        ("warning", "win-custom-profile-linux-pause"),
        ("warning", "containerd-dropins"),
        ("warning", "windows-unsupported"),
        ("warning", "pause-hyper-v"),
        ("warning", "running-release-not-servable"),
        ("warning", "workload-image-missing"),
        ("warning", "win-konnectivity-not-listed"),
    ] {
        assert!(found.contains(&expected), "{expected:?}: {found:?}");
    }
    let missing = |name: &str| {
        let node = report["nodes"].as_array().unwrap().iter().find(|node| node["name"] == name).unwrap();
        let refs = node["missing"].as_array().unwrap().iter();
        refs.map(|missing| missing["ref"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert!(missing("linux-0").contains(&"registry.plant.example/dns/coredns:1.12.0-plant".to_owned()));
    assert!(missing("win-2022").is_empty(), "{:?}", missing("win-2022"));
    assert!(missing("win-2025").contains(&"registry.k8s.io/pause:3.10.1".to_owned()), "the lock has no 2025");
    insta::assert_snapshot!("mixed_text", desk.check(&arguments));
}

#[test]
fn the_linux_only_pause_of_1_33_stops_windows_nodes_until_it_is_overridden() {
    let desk = Desk::new();
    let nodes = fixture("mixed-nodes.json");
    let only = |config: &str| {
        desk.write("k0s.yaml", config);
        desk.report(&[
            "--to",
            "k0s@v1.33.4+k0s.0",
            "--cluster-config",
            "k0s.yaml",
            "--nodes",
            &nodes,
            "--lock",
            "plant.lock",
        ])
    };
    desk.lock(&[("k0s@v1.33.4+k0s.0", &["calico"])], &MIXED, &[]);
    let (_, report) = only("kind: ClusterConfig\nspec: {network: {provider: calico}}\n");
    is_blocked_by("win-pause-linux-only", &report);
    let (_, report) = only(
        "kind: ClusterConfig\nspec: {network: {provider: calico}, images: {pause: {image: registry.k8s.io/pause, version: \
         \"3.10.1\"}}}\n",
    );
    assert!(!ids(&report).iter().any(|(_, id)| *id == "win-pause-linux-only"), "{:?}", ids(&report));
}

#[test]
fn windows_nodes_cannot_import_before_1_33() {
    let desk = Desk::new();
    let nodes = fixture("mixed-nodes.json");
    desk.lock(&[("k0s@v1.32.4+k0s.0", &["calico"])], &MIXED, &[]);
    desk.write("k0s.yaml", "kind: ClusterConfig\nspec: {network: {provider: calico}}\n");
    let common = [
        "--to",
        "k0s@v1.32.4+k0s.0",
        "--cluster-config",
        "k0s.yaml",
        "--nodes",
        &nodes,
        "--lock",
        "plant.lock",
    ];
    let (_, report) = desk.report(&common);
    assert!(ids(&report).contains(&("warning", "win-bundle-import-broken")));
    let (code, report) = desk.report(&[&common[..], &["--delivery", "preload"]].concat());
    assert_eq!(code, 4);
    for id in ["win-bundle-import-broken", "win-pull-policy-always", "kubelet-newer"] {
        is_blocked_by(id, &report);
    }
}

#[test]
fn kubeadm_asks_for_the_sandbox_of_each_containerd() {
    let desk = Desk::new();
    let nodes = fixture("kubeadm-nodes.json");
    desk.lock(&[("kubeadm@v1.35.7", &[]), ("kubeadm@v1.34.9", &[])], &MIXED[..3], &[]);
    let arguments = ["--to", "kubeadm@v1.35.7", "--nodes", &nodes, "--lock", "plant.lock"];
    let (code, report) = desk.report(&arguments);
    assert_eq!(code, 0, "{report:#}");
    let mut sparse = lock(&[("kubeadm@v1.35.7", &[])], &MIXED[..3], &[]);
    sparse["images"].as_array_mut().unwrap().retain(|image| image["ref"] != "registry.k8s.io/pause:3.8");
    desk.write("plant.lock", sparse.to_string());
    let (code, report) = desk.report(&arguments);
    assert_eq!(code, 4);
    let sandbox = |at: usize| report["nodes"][at]["missing"].as_array().unwrap().len();
    assert_eq!([sandbox(0), sandbox(1), sandbox(2)], [1, 0, 1], "containerd 1.7 asks for pause 3.8");
    let configured = [&arguments[..], &["--sandbox-image", "registry.k8s.io/pause:3.10.1"]].concat();
    assert_eq!(desk.report(&configured).0, 0);

    desk.write("kubeadm.yaml", "kind: ClusterConfiguration\nimageRepository: site.local:5000/k8s\n");
    let (_, report) = desk.report(
        &[
            &arguments[..],
            &["--cluster-config", "kubeadm.yaml", "--sandbox-image", "registry.k8s.io/pause:3.10.1"],
        ]
        .concat(),
    );
    assert_eq!(report["ready"], true, "a mirror finds names without their host: {report:#}");

    let (code, report) = desk.report(&["--to", "kubeadm@v1.36.3", "--nodes", &nodes, "--lock", "plant.lock"]);
    assert_eq!(code, 4);
    is_blocked_by("kubeadm-containerd-2", &report);
}

#[test]
fn rke2_and_k3s_get_the_same_answer() {
    let desk = Desk::new();
    let nodes = fixture("rke2-nodes.json");
    desk.write("config.yaml", "cni: calico\nsystem-default-registry: site.local:5000\n");
    desk.lock(&[("rke2@v1.35.3+rke2r1", &["calico"])], &["linux/amd64", "windows(10.0.20348)/amd64"], &[]);
    let common = ["--nodes", &nodes, "--lock", "plant.lock", "--cluster-config", "config.yaml"];
    let (code, report) = desk.report(&[&common[..], &["--to", "rke2@v1.35.3+rke2r1"]].concat());
    assert_eq!(code, 0, "{report:#}");
    assert!(ids(&report).contains(&("warning", "rke2-windows-tarball-pause")), "{:?}", ids(&report));
    assert!(report["nodes"][1]["images"].as_u64().unwrap() >= 1);
    assert!(
        !report["keep"][1]["releases"].as_array().unwrap().is_empty(),
        "Windows kubelets leave +rke2r1 out"
    );
    let (code, report) =
        desk.report(&[&common[..2], &["--lock", "plant.lock", "--to", "k3s@v1.35.3+k3s1"]].concat());
    assert_eq!(code, 4);
    is_blocked_by("k3s-no-windows", &report);
}

#[test]
fn wrong_input_is_named() {
    let desk = Desk::new();
    let nodes = fixture("incident-nodes.json");
    desk.lock(&[(NEW, &[])], &LINUX, &[]);
    desk.write("empty.json", r#"{"kind":"List","items":[]}"#);
    let refused = |arguments: &[&str]| {
        let answer = desk.check(arguments);
        assert_eq!(answer.code, 2, "{answer}");
        answer.stderr
    };
    let lock = ["--lock", "plant.lock"];
    let without = refused(&[&["--to", NEW, "--nodes", &nodes][..], &lock].concat());
    assert!(without.contains("--cluster-config"), "{without}");
    let config = ["--cluster-config", "empty.json"];
    let no_config = refused(&[&["--to", NEW, "--nodes", &nodes][..], &config, &lock].concat());
    assert!(no_config.contains("empty.json: there is no ClusterConfig"), "{no_config}");
    let no_nodes = refused(&[&["--to", "kubeadm@v1.35.7", "--nodes", "empty.json"][..], &lock].concat());
    assert!(no_nodes.contains("kubectl get nodes"), "{no_nodes}");
    let unknown = refused(&[&["--to", "kubeadm@v1.35.99", "--nodes", &nodes][..], &lock].concat());
    assert!(unknown.contains("v1.35.99"), "{unknown}");
    let addon = refused(&[&["--to", "openkruise@v1.9.0", "--nodes", &nodes][..], &lock].concat());
    assert!(addon.contains("not a release of Kubernetes"), "{addon}");
    refused(&["--to", NEW, "--nodes", &nodes]);
}

/// Nodes of the kinds that the images of [`shelf`] are for.
fn two_nodes() -> String {
    let node = |name: &str, image: &str, os: &str, kernel: &str| {
        json!({
            "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/os": os}},
            "status": {"nodeInfo": {
                "operatingSystem": os, "architecture": "amd64", "kubeletVersion": "v1.36.1+k0s",
                "containerRuntimeVersion": "containerd://2.3.1", "osImage": image, "kernelVersion": kernel,
            }},
        })
    };
    let items =
        [node("l", "Debian", "linux", "6.1"), node("w", "Windows Server 2022", "windows", "10.0.20348.2655")];
    json!({"kind": "List", "items": items}).to_string()
}

#[test]
fn store_bundle_lock_and_registry_give_the_same_answer() {
    let (release, features) = ("k0s@v1.36.3+k0s.2", ["calico"]);
    let kinds = ["linux/amd64", "windows(10.0.20348)/amd64"].map(|kind| kind.parse().unwrap());
    let images: Vec<String> =
        references(&[(release, &features)], &kinds).keys().map(ToString::to_string).collect();
    let definition = "apiVersion: dray.dev/v1alpha1\nkind: Bundle\nmetadata: {name: plant}\nspec:\n  \
        nodes: [linux/amd64, windows/ltsc2022]\n  releases: [{k0s: v1.36.3+k0s.2, with: [calico], programs: elsewhere}]\n";
    let site = Site::new(definition);
    let upstream = shelf::serve(&site.path("upstream"), &images);
    let microsoft = format!("mcr.microsoft.com=http://{}/mcr.microsoft.com", upstream.address());
    let flags = ["--upstream", &microsoft];
    site.lock(upstream.address()).args(flags).succeed();
    let bundle = site.path("bundle.tar");
    site.build(upstream.address(), &bundle).args(flags).succeed();
    site.import(&bundle, &site.path("store")).succeed();
    let serve = Serve::start(&["--store", site.path("store").to_str().unwrap()]);

    let desk = Desk::new();
    desk.write("nodes.json", two_nodes());
    desk.write("config.yaml", "apiVersion: k0s.k0sproject.io/v1beta1\nkind: ClusterConfig\nmetadata: {name: k0s}\nspec: {network: {provider: calico}}\n");
    let common = ["--to", release, "--nodes", "nodes.json", "--cluster-config", "config.yaml"];
    let path = |name: &str| site.path(name).to_str().unwrap().to_owned();
    let (key, url) = (path("plant.pub"), format!("http://{}", serve.address()));
    let (store, bundle, lock) = (path("store"), path("bundle.tar"), path("bundle.lock"));
    let mut reports = Vec::new();
    for source in [
        &["--store", &store][..],
        &["--bundle", &bundle, "--trust", &key],
        &["--lock", &lock],
        &["--registry", &url],
    ] {
        let (code, report) = desk.report(&[&common[..], source].concat());
        assert_eq!(code, 0, "{source:?}: {report:#}");
        assert!(report["nodes"].as_array().unwrap().iter().all(|node| node["ready"] == true), "{report:#}");
        reports.push(report);
    }
    assert!(reports.windows(2).all(|pair| pair[0] == pair[1]), "{reports:#?}");

    // Who signed a bundle is checked, or it is said that it is not.
    let unchecked = desk.check(&[&common[..], &["--bundle", &bundle]].concat());
    assert_eq!(unchecked.code, 0, "{unchecked}");
    assert!(unchecked.stderr.contains("signatures are not checked"), "{unchecked}");
    support::site::dray().args(["keygen", "-o"]).arg(site.path("other")).succeed();
    let other = path("other.pub");
    let refused = desk.check(&[&common[..], &["--bundle", &bundle, "--trust", &other]].concat());
    assert_eq!(refused.code, 3, "{refused}");

    // What is not there is missing in each.
    let gone = site.path("upstream").join("repositories/quay.io+k0sproject+coredns");
    assert!(gone.exists());
    std::fs::remove_dir_all(gone).unwrap();
    let (upstream_store, url) = (path("upstream"), format!("http://{}", upstream.address()));
    for source in [["--store", &upstream_store], ["--registry", &url]] {
        let (code, report) = desk.report(&[&common[..], &source].concat());
        assert_eq!(code, 4, "{source:?}: {report:#}");
        assert!(
            report["nodes"][0]["missing"].to_string().contains("quay.io/k0sproject/coredns"),
            "{report:#}"
        );
        assert_eq!(report["nodes"][1]["ready"], true, "{report:#}");
    }
    let nobody = desk.check(&[&common[..], &["--registry", "http://127.0.0.1:1"]].concat());
    assert_eq!(nobody.code, 1, "{nobody}");
}
