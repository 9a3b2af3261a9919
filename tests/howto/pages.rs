//! A test for each page: what was there before it begins, and what happens in the world meanwhile.

use std::{collections::BTreeSet, fmt::Write as _, fs};

use super::{
    cluster::{Node, SERVER_2022, System, list},
    page::Page,
    stage::Stage,
};
use crate::support::{
    command::Run as _,
    shelf,
    site::{Serve, dray},
};

/// Every registry that the pages' images are from, and every server of their files.
const HOSTS: [&str; 4] = ["registry.k8s.io", "quay.io", "docker.io", "ghcr.io"];
const FILE_HOSTS: [&str; 2] = ["github.com", "dl.k8s.io"];
const K0S_RELEASES: &str = "github.com/k0sproject/k0s/releases/download";

/// The internet, as far as a page needs it.
struct Internet {
    // Answers for as long as the page is carried out.
    serve: Serve,
    _store: tempfile::TempDir,
    sums: Vec<(String, String)>,
}

impl Internet {
    /// Has what `releases` need, `images` beside them, and files by address.
    fn new(releases: &[&str], images: &[&str], files: &[String]) -> Self {
        let store = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut all: BTreeSet<String> = images.iter().map(ToString::to_string).collect();
        for release in releases {
            let mut needed = dray();
            let network = if release.starts_with("k0s@") { "calico" } else { "calico-windows" };
            needed.args(["images", "-q", "--with", network, "--node", "linux/amd64"]);
            needed.args(["--node", "windows/ltsc2022"]);
            all.extend(needed.args(["--release", release]).succeed().lines().map(str::to_owned));
        }
        let content = |address: &String| format!("what is at {address}\n").into_bytes();
        let contents: Vec<Vec<u8>> = files.iter().map(content).collect();
        shelf::put_files(
            store.path(),
            files.iter().map(String::as_str).zip(contents.iter().map(Vec::as_slice)),
        );
        let sum = |(address, bytes): (&String, &Vec<u8>)| {
            let name = address.rsplit('/').next().unwrap().to_owned();
            (format!("SHA256-OF-{name}"), dray::oci::Digest::sha256(bytes).hex().to_owned())
        };
        let sums = files.iter().zip(&contents).map(sum).collect();
        Self { serve: shelf::serve(store.path(), &all), _store: store, sums }
    }

    fn stage(&self) -> Stage {
        let mut stage = Stage::new(self.serve.address(), &HOSTS, &FILE_HOSTS);
        for (word, sum) in &self.sums {
            stage.word(word, sum);
        }
        stage
    }
}

/// The address of a file of a k0s release.
fn k0s(version: &str, end: &str) -> String {
    format!("{K0S_RELEASES}/{version}/k0s-{version}-{end}")
}

/// A site that has imported a bundle for `release` with `files`, and its keys: what the first how-to leaves behind.
fn installed(stage: &Stage, release: &str, with: &str, files: &[String]) {
    for machine in ["connected", "site"] {
        fs::create_dir_all(stage.path(machine)).unwrap();
    }
    let (distro, version) = release.split_once('@').unwrap();
    let mut definition = format!(
        "apiVersion: dray.dev/v1alpha1\nkind: Bundle\nmetadata: {{name: plant-7, sequence: 1}}\nspec:\n  \
         nodes: [linux/amd64, windows/ltsc2022]\n  releases:\n    \
         - {{{distro}: {version}, with: [{with}], programs: elsewhere}}\n"
    );
    if distro == "kubeadm" {
        definition.push_str("  runtimes: [containerd@2]\n");
    }
    if !files.is_empty() {
        definition.push_str("  files:\n");
    }
    for address in files {
        let sum = dray::oci::Digest::sha256(format!("what is at {address}\n").as_bytes());
        let url = address.replace('+', "%2B");
        let _ = writeln!(definition, "    - {{url: 'https://{url}', sha256: {}}}", sum.hex());
    }
    fs::write(stage.path("before.yaml"), definition).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = dray();
        command.current_dir(stage.path("")).env("DRAY_UPSTREAM", stage.upstream()).args(arguments).succeed();
    };
    run(&["keygen", "-o", "connected/release"]);
    run(&["keygen", "-o", "etc/dray/site"]);
    run(&["tls", "init", "--san", "localhost", "-o", "etc/dray/tls"]);
    fs::copy(stage.path("connected/release.pub"), stage.path("etc/dray/release.pub")).unwrap();
    fs::copy(stage.path("etc/dray/site.pub"), stage.path("connected/site.pub")).unwrap();
    run(&["build", "-f", "before.yaml", "-o", "usb/plant-7-1.tar", "--key", "connected/release.key"]);
    run(&["import", "usb/plant-7-1.tar", "--store", "store", "--trust", "etc/dray/release.pub"]);
}

/// Gives the node the certificate authority that an earlier page put there.
fn node_has_ca(stage: &Stage, directory: &str) {
    let place = stage.path("node").join(directory);
    fs::create_dir_all(&place).unwrap();
    fs::copy(stage.path("etc/dray/tls/ca.crt"), place.join("site-ca.crt")).unwrap();
}

/// Workers of a k0s cluster, two of each system.
fn workers(linux: (&'static str, &'static str), windows: (&'static str, &'static str)) -> String {
    let node = |name, system, (kubelet, containerd)| Node { name, system, kubelet, containerd };
    list(&[
        node("linux-1", System::Linux, linux),
        node("linux-2", System::Linux, linux),
        node("press-1", SERVER_2022, windows),
        node("press-2", SERVER_2022, windows),
    ])
}

#[test]
fn first_install() {
    let version = "v1.36.3+k0s.2";
    let internet =
        Internet::new(&["k0s@v1.36.3+k0s.2"], &[], &[k0s(version, "amd64"), k0s(version, "amd64.exe")]);
    let mut stage = internet.stage();
    stage.with_containerd();
    stage.carry_out(&Page::read("howto/first-install.md"), |_, event| panic!("{event}?"));
}

#[test]
fn k0s_rolling_update() {
    let (old, new) = ("v1.35.7+k0s.0", "v1.36.3+k0s.2");
    let files = [k0s(old, "amd64.exe"), k0s(new, "amd64"), k0s(new, "amd64.exe")];
    let internet = Internet::new(&["k0s@v1.35.7+k0s.0", "k0s@v1.36.3+k0s.2"], &[], &files);
    let stage = internet.stage();
    installed(&stage, "k0s@v1.35.7+k0s.0", "calico", &files[..1]);
    node_has_ca(&stage, "etc/k0s/containerd.d/certs.d");
    let (before, after) = (("v1.35.7+k0s", "1.7.34"), ("v1.36.3+k0s", "2.3.4"));
    stage.cluster("nodes.json", &workers(before, before));
    stage.cluster("config.json", &pinned_by_131());
    stage.carry_out(&Page::read("howto/k0s-rolling-update.md"), |stage, event| match event {
        "the Linux nodes are done" => stage.cluster("nodes.json", &workers(after, before)),
        "all nodes are done" => stage.cluster("nodes.json", &workers(after, after)),
        other => panic!("{other}?"),
    });
}

/// The configuration of a cluster that k0s v1.31.5 created with dynamic configuration and a pull policy that is not the
/// default: it wrote all its images down.
fn pinned_by_131() -> String {
    let image = |path: &str, version: &str| serde_json::json!({"image": format!("quay.io/k0sproject/{path}"), "version": version});
    let catalog = dray::catalog::Catalog::builtin().unwrap();
    let release = catalog.release(&"k0s@v1.31.5+k0s.0".parse().unwrap()).unwrap();
    let mut object = serde_json::json!({
        "apiVersion": "k0s.k0sproject.io/v1beta1", "kind": "ClusterConfig",
        "metadata": {"name": "k0s", "namespace": "kube-system", "resourceVersion": "4711"},
        "spec": {
            "images": {"default_pull_policy": "IfNotPresent"},
            "network": {"provider": "calico", "calico": {"mode": "vxlan"}},
        },
    });
    for item in &release.components {
        let Some(path) = item.component.config.as_deref().and_then(|path| path.strip_prefix("spec.images."))
        else {
            continue;
        };
        let (Some(name), Some(tag)) =
            (item.reference.repository().strip_prefix("k0sproject/"), item.reference.tag())
        else {
            continue;
        };
        let place = path.split('.').fold(&mut object["spec"]["images"], |place, key| &mut place[key]);
        *place = image(name, tag.as_str());
    }
    object.to_string()
}

#[test]
fn going_back() {
    let (old, new) = ("v1.36.2+k0s.0", "v1.36.3+k0s.2");
    let files = [k0s(old, "amd64"), k0s(new, "amd64")];
    let internet = Internet::new(&["k0s@v1.36.2+k0s.0", "k0s@v1.36.3+k0s.2"], &[], &files);
    let stage = internet.stage();
    installed(&stage, "k0s@v1.36.2+k0s.0", "calico", &files[..1]);
    let definition = fs::read_to_string(stage.path("before.yaml")).unwrap();
    let definition = definition.replace("sequence: 1", "sequence: 2").replace(
        "  releases:\n",
        "  releases:\n    - {k0s: v1.36.3+k0s.2, with: [calico], programs: elsewhere}\n",
    );
    fs::write(stage.path("after.yaml"), definition).unwrap();
    let run = |stage: &Stage, arguments: &[&str]| {
        let mut command = dray();
        command.current_dir(stage.path("")).env("DRAY_UPSTREAM", stage.upstream()).args(arguments).succeed();
    };
    run(&stage, &["build", "-f", "after.yaml", "-o", "usb/plant-7-2.tar", "--key", "connected/release.key"]);
    run(&stage, &["import", "usb/plant-7-2.tar", "--store", "store", "--trust", "etc/dray/release.pub"]);
    node_has_ca(&stage, "etc/k0s");
    let now = ("v1.36.3+k0s", "2.3.4");
    stage.cluster("nodes.json", &workers(now, now));
    stage.cluster(
        "config.json",
        "{\"kind\": \"ClusterConfig\", \"spec\": {\"network\": {\"provider\": \"calico\"}}}",
    );
    stage.carry_out(&Page::read("howto/going-back.md"), |stage, event| match event {
        "somebody prunes the old release" => {
            run(stage, &["prune", "--store", "store", "--keep", "k0s@v1.36.3+k0s.2"]);
        }
        other => panic!("{other}?"),
    });
}

#[test]
fn two_person_release() {
    let internet = Internet::new(&["k0s@v1.36.3+k0s.2"], &[], &[]);
    internet.stage().carry_out(&Page::read("howto/two-person-release.md"), |_, event| panic!("{event}?"));
}

#[test]
fn kubeadm_windows() {
    let calico = ["cni", "node", "kube-controllers"].map(|name| format!("docker.io/calico/{name}:v3.32.1"));
    let calico: Vec<&str> = calico.iter().map(String::as_str).collect();
    let files =
        ["kubelet.exe", "kubeadm.exe"].map(|name| format!("dl.k8s.io/v1.36.3/bin/windows/amd64/{name}"));
    let internet = Internet::new(&["kubeadm@v1.35.7", "kubeadm@v1.36.3"], &calico, &files);
    let mut stage = internet.stage();
    installed(&stage, "kubeadm@v1.35.7", "calico-windows", &[]);
    stage.with_containerd();
    let nodes = |windows| {
        let kubelet = "v1.35.7";
        list(&[
            Node { name: "control-1", system: System::Control, kubelet, containerd: "2.1.6" },
            Node { name: "worker-1", system: System::Linux, kubelet, containerd: "2.1.6" },
            Node { name: "press-1", system: SERVER_2022, kubelet, containerd: windows },
        ])
    };
    stage.cluster("nodes.json", &nodes("1.7.20"));
    stage.cluster(
        "config.json",
        "apiVersion: v1\nkind: ConfigMap\ndata:\n  ClusterConfiguration: |\n    kind: ClusterConfiguration\n    \
         kubernetesVersion: v1.35.7\n",
    );
    stage.carry_out(&Page::read("howto/kubeadm-windows.md"), |stage, event| match event {
        "containerd is updated" => stage.cluster("nodes.json", &nodes("2.1.6")),
        other => panic!("{other}?"),
    });
}

#[test]
fn prepull() {
    Stage::new("127.0.0.1:1", &[], &[]).carry_out(&Page::read("prepull.md"), |_, event| panic!("{event}?"));
}

/// Every page has a test.
#[test]
fn no_page_is_left_out() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/howto");
    let tests = include_str!("pages.rs");
    for page in fs::read_dir(directory).unwrap() {
        let name = page.unwrap().file_name().into_string().unwrap();
        assert!(tests.contains(&format!("Page::read(\"howto/{name}\")")), "{name} has no test");
    }
}
