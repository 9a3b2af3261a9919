//! The whole way, on real input: images from Debian's registry are locked, built into a bundle, carried, verified,
//! imported and served, and containerd, podman and skopeo pull them by their original names.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

mod support;

use std::{collections::BTreeSet, fmt::Write as _, fs, path::PathBuf, process::Command};

use dray::oci::Digest;
use serde_json::Value;
use support::{
    clients::Clients,
    command::Run,
    containerd::Containerd,
    registry::{Access, Registry},
    site::{Serve, Site, dray},
    upstream::{self, HUB, PACKAGE, PAUSE_DOCKER, PAUSE_OCI, SINGLE, SPARSE, WINDOWS, ZSTD},
};

/// Every shape that the upstream holds, for a cluster of Linux and three builds of Windows.
const DEFINITION: &str = "\
apiVersion: dray.dev/v1alpha1
kind: Bundle
metadata:
  name: plant-7
spec:
  nodes:
    - linux/amd64
    - windows(10.0.17763)/amd64
    - windows/ltsc2022
    - windows(10.0.26100)/amd64
  runtimes: [containerd@1.6, containerd@1.7, containerd@2]
  images:
    - registry.k8s.io/pause:3.9
    - registry.k8s.io/pause:3.10
    - ref: quay.io/k0sproject/coredns:1.11.3
      nodes: [linux/amd64]
    - ref: ghcr.io/containerd/containerd:1.6
      nodes: [linux/amd64]
    - ref: busybox:1.35
      nodes: [linux/amd64]
    - ref: quay.io/k0sproject/busybox:zstd
      nodes: [linux/amd64]
    - ref: quay.io/k0sproject/sparse:1.0
      nodes: [linux/amd64]
";

const ALL: [&str; 7] = [PAUSE_DOCKER, PAUSE_OCI, SINGLE, PACKAGE, HUB, ZSTD, SPARSE];
const HOSTS: [&str; 4] = ["registry.k8s.io", "quay.io", "ghcr.io", "docker.io"];

/// The far side of the gap: what was built is here, and the upstream is there for comparison only.
struct Carried {
    upstream: Registry,
    site: Site,
    bundle: PathBuf,
}

/// Locks and builds on one side, and copies the file to the other.
fn carry() -> Carried {
    let upstream = upstream::start();
    let site = Site::new(DEFINITION);
    let built = site.bundle(upstream.address());
    let bundle = site.path("carried.tar");
    fs::copy(&built, &bundle).unwrap();
    fs::remove_file(&built).unwrap();
    Carried { upstream, site, bundle }
}

impl Carried {
    fn serve_store(&self) -> Serve {
        let store = self.site.path("store");
        self.site.verify(&self.bundle).succeed();
        self.site.import(&self.bundle, &store).succeed();
        Serve::start(&["--store", store.to_str().unwrap()])
    }

    fn serve_bundle(&self) -> Serve {
        let key = self.site.path("plant.pub");
        Serve::start(&["--bundle", self.bundle.to_str().unwrap(), "--trust", key.to_str().unwrap()])
    }

    fn upstream_digest(&self, reference: &str) -> String {
        Digest::sha256(self.upstream.raw(reference).as_bytes()).to_string()
    }
}

/// The name without its tag.
fn repository(reference: &str) -> &str {
    reference.rsplit_once(':').unwrap().0
}

/// The digests of the children of an index that run on `os`.
fn children(index: &str, os: &str) -> Vec<String> {
    let index: Value = serde_json::from_str(index).unwrap();
    let entries = index["manifests"].as_array().unwrap();
    let wanted = entries.iter().filter(|entry| entry["platform"]["os"] == os);
    wanted.map(|entry| entry["digest"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn containerd_pulls_by_the_original_name_and_runs_a_container() {
    let carried = carry();
    let serve = carried.serve_store();
    for mirror in [
        |containerd: &Containerd, address: &str| {
            for host in HOSTS {
                containerd.mirror_by_path(host, &format!("http://{address}/v2/{host}"));
            }
        },
        |containerd: &Containerd, address: &str| containerd.mirror_everything(&format!("http://{address}")),
    ] {
        let containerd = Containerd::start();
        mirror(&containerd, serve.address());
        for reference in ALL {
            let digest = carried.upstream_digest(reference);
            containerd.pull("linux/amd64", reference);
            assert_eq!(containerd.digest(reference).as_deref(), Some(&*digest), "{reference}");
            let by_digest = format!("{}@{digest}", repository(reference));
            containerd.pull("linux/amd64", &by_digest);
            assert_eq!(containerd.digest(&by_digest).as_deref(), Some(&*digest), "{by_digest}");
        }
        assert_eq!(containerd.run(PAUSE_DOCKER, &["/bin/busybox", "echo", "pause"]), "pause\n");
        let sum = containerd.run(PACKAGE, &["/bin/busybox", "sha256sum", "/usr/bin/containerd"]);
        let original = Digest::sha256(&fs::read("/usr/bin/containerd").unwrap());
        assert_eq!(sum.split_whitespace().next(), Some(original.hex()));
    }
}

#[test]
fn containerd_pulls_the_content_of_every_windows_build() {
    let carried = carry();
    let serve = carried.serve_store();
    let containerd = Containerd::start();
    containerd.mirror_by_path("registry.k8s.io", &format!("http://{}/v2/registry.k8s.io", serve.address()));
    for reference in [PAUSE_DOCKER, PAUSE_OCI] {
        let digest = carried.upstream_digest(reference);
        containerd.pull("windows/amd64", reference);
        containerd.pull("windows/amd64", &format!("{}@{digest}", repository(reference)));
        let content = containerd.content();
        let windows = children(&carried.upstream.raw(reference), "windows");
        assert_eq!(windows.len(), WINDOWS.len());
        for child in windows {
            assert!(content.contains(&child), "{reference} {child}");
        }
    }
}

#[test]
fn what_no_node_needs_is_carried_without_layers() {
    let carried = carry();
    let serve = carried.serve_store();
    let arm64 = &children(&carried.upstream.raw(HUB), "linux")[1];
    let image = serve.docker(&format!("{}@{arm64}", repository(HUB)));
    let skopeo = |arguments: &[&str]| {
        let mut skopeo = Command::new("skopeo");
        skopeo.args(arguments).arg(&image);
        skopeo
    };
    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false"]).succeed();
    assert_eq!(&Digest::sha256(raw.as_bytes()).to_string(), arm64);
    let config = skopeo(&["inspect", "--config", "--tls-verify=false"]).succeed();
    assert!(config.contains("arm64"), "{config}");
    // No command counts it as present.
    let listed = dray().arg("inspect").arg(&carried.bundle).arg("--images").succeed();
    assert!(listed.contains("nobody (without layers)"), "{listed}");
}

#[test]
fn podman_and_skopeo_pull_through_registries_conf() {
    let carried = carry();
    let serve = carried.serve_store();
    let clients = Clients::new(serve.address(), &HOSTS);
    for reference in ALL {
        let digest = carried.upstream_digest(reference);
        let by_digest = format!("{}@{digest}", repository(reference));
        for name in [reference, &by_digest] {
            let raw = clients.skopeo().args(["inspect", "--raw", &format!("docker://{name}")]).succeed();
            assert_eq!(raw, carried.upstream.raw(reference), "{name}");
            clients.podman().args(["pull", "-q", name]).succeed();
        }
        let digests =
            clients.podman().args(["image", "inspect", "--format", "{{.RepoDigests}}", reference]).succeed();
        assert!(digests.contains(&by_digest), "{reference}: {digests}");
    }
    let layout = format!("oci:{}:w", carried.site.path("windows").display());
    clients
        .skopeo()
        .args(["--override-os", "windows", "copy", "-q", &format!("docker://{PAUSE_OCI}"), &layout])
        .succeed();
}

#[test]
fn a_bundle_is_served_as_it_is() {
    let carried = carry();
    let serve = carried.serve_bundle();
    let containerd = Containerd::start();
    for host in HOSTS {
        containerd.mirror_by_path(host, &format!("http://{}/v2/{host}", serve.address()));
    }
    for reference in ALL {
        containerd.pull("linux/amd64", reference);
        assert_eq!(containerd.digest(reference), Some(carried.upstream_digest(reference)), "{reference}");
    }
    containerd.pull("windows/amd64", PAUSE_DOCKER);
    assert_eq!(containerd.run(SINGLE, &["/bin/busybox", "echo", "served"]), "served\n");
}

#[test]
fn other_tools_read_the_bundle_file_itself() {
    let carried = carry();
    let bundle = carried.bundle.display();
    // containers/image takes OCI media types only from an archive; an image with Docker's keeps its own (and its digest).
    for reference in [PAUSE_OCI, SINGLE, HUB, ZSTD, SPARSE] {
        let name = format!("oci-archive:{bundle}:{reference}");
        let raw = Command::new("skopeo").args(["inspect", "--raw", &name]).succeed();
        assert_eq!(raw, carried.upstream.raw(reference), "{reference}");
        let config: Value =
            serde_json::from_str(&Command::new("skopeo").args(["inspect", "--config", &name]).succeed())
                .unwrap();
        assert_eq!(config["os"], "linux", "{reference}");
    }
    let containerd = Containerd::start();
    containerd.ctr().args(["images", "import", "--snapshotter", "native"]).arg(&carried.bundle).succeed();
    for reference in ALL {
        assert_eq!(containerd.digest(reference), Some(carried.upstream_digest(reference)), "{reference}");
    }
    assert_eq!(containerd.run(HUB, &["/bin/busybox", "echo", "imported"]), "imported\n");
}

/// An upgrade as sites have it: the release that runs and the one to come, with every image under its real name.
#[test]
fn two_releases_of_k0s_arrive_whole() {
    let releases = ["k0s@v1.35.4+k0s.0", "k0s@v1.36.3+k0s.2"];
    let nodes = ["linux/amd64", "windows/ltsc2022"];
    let mut images = dray();
    images.args(["images", "--with", "calico"]);
    for release in releases {
        images.args(["--release", release]);
    }
    for node in nodes {
        images.args(["--node", node]);
    }
    let references: BTreeSet<String> = images.succeed().lines().map(str::to_owned).collect();
    assert!(references.len() > 15, "{references:?}");

    // What the images hold is of no account here, only that each has entries for both node kinds.
    let shapes = upstream::start();
    let data = tempfile::tempdir().unwrap();
    let upstream = Registry::start(data.path(), Access::Full);
    for reference in &references {
        Command::new("skopeo")
            .args([
                "copy",
                "-q",
                "--all",
                "--preserve-digests",
                "--src-tls-verify=false",
                "--dest-tls-verify=false",
            ])
            .args([shapes.docker(PAUSE_OCI), upstream.docker(reference)])
            .succeed();
    }

    let mut definition =
        "apiVersion: dray.dev/v1alpha1\nkind: Bundle\nmetadata: {name: upgrade}\nspec:\n".to_owned();
    let _ = writeln!(
        definition,
        "  nodes: [{}]\n  runtimes: [containerd@1.7, containerd@2]\n  releases:",
        nodes.join(", ")
    );
    for release in releases {
        let _ = writeln!(
            definition,
            "    - {}\n      with: [calico]\n      programs: elsewhere",
            release.replace('@', ": ")
        );
    }
    let site = Site::new(&definition);
    let bundle = site.bundle(upstream.address());
    drop(upstream);
    let store = site.path("store");
    site.import(&bundle, &store).succeed();
    let serve = Serve::start(&["--store", store.to_str().unwrap()]);
    let hosts: BTreeSet<&str> = references.iter().filter_map(|name| name.split('/').next()).collect();
    let clients = Clients::new(serve.address(), &hosts.into_iter().collect::<Vec<_>>());
    let expected = shapes.raw(PAUSE_OCI);
    for reference in &references {
        let raw = clients.skopeo().args(["inspect", "--raw", &format!("docker://{reference}")]).succeed();
        assert_eq!(raw, expected, "{reference}");
    }
}
