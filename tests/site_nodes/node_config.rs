//! `dray node-config`: the upstream is out of reach, the files are used exactly as they are written, and images are
//! pulled by their original names.

use std::{fs, path::Path, process::Command};

use dray::oci::Digest;
use tempfile::TempDir;

use crate::support::{
    command::{Finished, Run},
    containerd::Containerd,
    site::{Serve, Site, dray},
    upstream::{self, HUB, PACKAGE, PAUSE_DOCKER, PAUSE_OCI, SINGLE},
};

const DEFINITION: &str = "\
apiVersion: dray.dev/v1alpha1
kind: Bundle
metadata:
  name: nodes
spec:
  nodes: [linux/amd64]
  runtimes: [containerd]
  images:
    - registry.k8s.io/pause:3.9
    - registry.k8s.io/pause:3.10
    - quay.io/k0sproject/coredns:1.11.3
    - ghcr.io/containerd/containerd:1.6
    - busybox:1.35
";
const ALL: [&str; 5] = [PAUSE_DOCKER, PAUSE_OCI, SINGLE, PACKAGE, HUB];

/// A site that serves, with nothing behind it: the upstream has ended.
fn site() -> (Site, Serve, Vec<String>) {
    let (site, digests) = stored();
    let serve = Serve::start(&["--store", site.path("store").to_str().unwrap()]);
    (site, serve, digests)
}

/// A site with the images in its store, and their digests.
fn stored() -> (Site, Vec<String>) {
    let upstream = upstream::start();
    let site = Site::new(DEFINITION);
    let bundle = site.bundle(upstream.address());
    site.import(&bundle, &site.path("store")).succeed();
    let digests = ALL.iter().map(|name| Digest::sha256(upstream.raw(name).as_bytes()).to_string()).collect();
    (site, digests)
}

/// The same over TLS, with the certificate of an authority of its own; `strange` is the certificate of another one.
fn site_with_tls() -> (Site, Serve, Vec<String>) {
    let (site, digests) = stored();
    for authority in ["tls", "strange"] {
        dray().args(["tls", "init", "--san", "127.0.0.1", "-o"]).arg(site.path(authority)).succeed();
    }
    let path = |name: &str| site.path(name).display().to_string();
    let serve = Serve::start(&[
        "--store",
        &path("store"),
        "--tls-cert",
        &path("tls/server.crt"),
        "--tls-key",
        &path("tls/server.key"),
    ]);
    (site, serve, digests)
}

fn node_config(target: &str, registry: &str, more: &[&str], directory: &Path) -> Command {
    let mut command = dray();
    command.args(["node-config", target, "--registry", registry]).args(more).arg("-o").arg(directory);
    command
}

fn pull(containerd: &Containerd, hosts: &Path, reference: &str) -> Finished {
    containerd
        .ctr()
        .args(["images", "pull", "--snapshotter", "native", "--hosts-dir"])
        .arg(hosts)
        .arg(reference)
        .finish()
}

#[test]
fn containerd_pulls_through_the_files_as_written() {
    let (_site, serve, digests) = site();
    let registry = format!("http://{}", serve.address());
    for (target, more, hosts) in [
        ("containerd", &[][..], "etc/containerd/certs.d"),
        ("containerd", &["--host", "registry.k8s.io,quay.io,ghcr.io,docker.io"], "etc/containerd/certs.d"),
        ("k0s", &[], "etc/k0s/containerd.d/certs.d"),
        ("containerd", &["--os", "windows"], "ProgramData/containerd/certs.d"),
        ("docker", &[], "etc/docker/certs.d"),
    ] {
        let node = tempfile::tempdir().unwrap();
        node_config(target, &registry, more, node.path()).succeed();
        let containerd = Containerd::start();
        for (reference, digest) in ALL.iter().zip(&digests) {
            let pulled = pull(&containerd, &node.path().join(hosts), reference);
            assert_eq!(pulled.code, 0, "{target} {more:?} {reference}: {}", pulled.stderr);
            assert_eq!(containerd.digest(reference).as_ref(), Some(digest), "{target} {more:?}");
        }
    }
}

#[test]
fn over_tls_the_authority_of_the_files_counts() {
    let (site, serve, digests) = site_with_tls();
    let registry = format!("https://{}", serve.address());
    for authority in ["tls", "strange"] {
        let ca = site.path(authority).join("ca.crt");
        let ca = ["--ca", ca.to_str().unwrap()];
        for (target, hosts) in
            [("containerd", "etc/containerd/certs.d"), ("k0s", "etc/k0s/containerd.d/certs.d")]
        {
            let node = tempfile::tempdir().unwrap();
            node_config(target, &registry, &ca, node.path()).succeed();
            let containerd = Containerd::start();
            let pulled = pull(&containerd, &node.path().join(hosts), HUB);
            if authority == "tls" {
                assert_eq!(pulled.code, 0, "{target}: {}", pulled.stderr);
                assert_eq!(containerd.digest(HUB).as_ref(), digests.last(), "{target}");
            } else {
                assert_ne!(pulled.code, 0, "{target}");
                pulled.says(&["certificate signed by unknown authority", serve.address()]);
            }
        }

        let node = tempfile::tempdir().unwrap();
        node_config("crio", &registry, &ca, node.path()).succeed();
        let podman = Podman::new(&node.path().join("etc/containers/registries.conf.d/50-dray.conf"));
        podman.trust(&node.path().join("etc/containers/certs.d"));
        let pulled = podman.podman().args(["pull", "-q", HUB]).finish();
        if authority == "tls" {
            assert_eq!(pulled.code, 0, "{}", pulled.stderr);
        } else {
            assert_ne!(pulled.code, 0);
            pulled.says(&["certificate signed by unknown authority", serve.address()]);
        }
    }
}

/// The lines of the README, and why it asks to change the file itself.
#[test]
fn containerd_keeps_its_other_settings() {
    let node = tempfile::tempdir().unwrap();
    node_config("containerd", "https://registry.site.local:5000", &[], node.path()).succeed();
    let readme = fs::read_to_string(node.path().join("README.md")).unwrap();
    let snippet = readme.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let own = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"own/pause:1\"\n";

    let merged = effective_settings(node.path(), &format!("{own}{snippet}"));
    assert!(merged.contains("config_path = \"/etc/containerd/certs.d\""), "{merged}");
    assert!(merged.contains("sandbox_image = \"own/pause:1\""), "{merged}");

    let imported = node.path().join("imported.toml");
    fs::write(&imported, format!("version = 2\n{snippet}")).unwrap();
    let own = own.replacen('\n', &format!("\nimports = [\"{}\"]\n", imported.display()), 1);
    let replaced = effective_settings(node.path(), &own);
    assert!(!replaced.contains("own/pause:1"), "imports merge now; the README can be simpler:\n{replaced}");
}

fn effective_settings(directory: &Path, text: &str) -> String {
    let config = directory.join("config.toml");
    fs::write(&config, text).unwrap();
    Command::new("containerd").arg("-c").arg(config).args(["config", "dump"]).succeed()
}

#[test]
fn podman_and_skopeo_pull_through_the_files_as_written() {
    let (_site, serve, digests) = site();
    let node = tempfile::tempdir().unwrap();
    node_config("crio", &format!("http://{}", serve.address()), &[], node.path()).succeed();
    let podman = Podman::new(&node.path().join("etc/containers/registries.conf.d/50-dray.conf"));
    for (reference, digest) in ALL.iter().zip(&digests) {
        let raw =
            podman.command("skopeo").args(["inspect", "--raw", &format!("docker://{reference}")]).succeed();
        assert_eq!(Digest::sha256(raw.as_bytes()).to_string(), *digest, "{reference}");
        podman.podman().args(["pull", "-q", reference]).succeed();
    }
    let listed = podman.podman().args(["images", "--format", "{{.Repository}}:{{.Tag}}"]).succeed();
    assert!(ALL.iter().all(|reference| listed.contains(reference)), "{listed}");
}

/// podman and skopeo with this configuration and no other.
struct Podman {
    dir: TempDir,
    registries: std::path::PathBuf,
}

impl Podman {
    fn new(registries: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("auth.json"), "{}").unwrap();
        Self { dir, registries: registries.to_owned() }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("CONTAINERS_REGISTRIES_CONF", &self.registries)
            .env("REGISTRY_AUTH_FILE", self.dir.path().join("auth.json"))
            .env("HOME", self.dir.path())
            .env("XDG_RUNTIME_DIR", self.dir.path());
        if program == "skopeo" {
            command.arg("--registries-conf").arg(&self.registries);
        }
        command
    }

    /// Takes the place of `/etc/containers/certs.d`, which belongs to the machine.
    fn trust(&self, certificates: &Path) {
        let home = self.dir.path().join(".config/containers");
        fs::create_dir_all(&home).unwrap();
        std::os::unix::fs::symlink(certificates, home.join("certs.d")).unwrap();
    }

    fn podman(&self) -> Command {
        let mut podman = self.command("podman");
        podman.args(["--storage-driver", "vfs", "--root"]).arg(self.dir.path().join("root"));
        podman.arg("--runroot").arg(self.dir.path().join("run"));
        podman
    }
}

#[test]
fn the_command_line() {
    let node = tempfile::tempdir().unwrap();
    let registry = "https://registry.site.local:5000";
    let fresh = |name: &str| node.path().join(name);

    let mut json = node_config("k0s", registry, &["--release", "k0s@v1.35.4+k0s.0"], &fresh("v2"));
    let written: serde_json::Value =
        serde_json::from_str(&json.args(["--format", "json"]).succeed()).unwrap();
    assert_eq!(written["files"][1], "etc/k0s/containerd.d/certs.d/_default/hosts.toml");
    let drop_in = fs::read_to_string(fresh("v2").join("etc/k0s/containerd.d/dray.toml")).unwrap();
    assert!(drop_in.contains("version = 2\n"), "{drop_in}");
    node_config("k0s", registry, &["--release", "k0s@v1.36.3+k0s.2", "--os", "windows"], &fresh("v3"))
        .succeed();
    let drop_in = fs::read_to_string(fresh("v3").join("etc/k0s/containerd.d/dray.toml")).unwrap();
    assert!(drop_in.contains("version = 3\n") && drop_in.contains(r"'C:\etc\k0s\"), "{drop_in}");

    node_config("k0s", registry, &[], &fresh("v2")).fail_with(2).says(&["is not empty"]);
    node_config("crio", registry, &["--os", "windows"], &fresh("x")).fail_with(2).says(&["--os linux"]);
    node_config("k3s", "registry", &[], &fresh("x")).fail_with(2).says(&["https://registry.site.local:5000"]);
    node_config("k3s", registry, &["--release", "k3s@v1.36.1+k3s1"], &fresh("x"))
        .fail_with(2)
        .says(&["for k0s"]);
    fs::write(fresh("key.pem"), "-----BEGIN PRIVATE KEY-----\n").unwrap();
    let key = fresh("key.pem");
    let ca = ["--ca", key.to_str().unwrap()];
    node_config("k3s", registry, &ca, &fresh("x")).fail_with(2).says(&["key.pem", "private key"]);
    assert!(!fresh("x").exists());
}
