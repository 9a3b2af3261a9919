//! Real clients: they push with skopeo, podman and buildah, and pull as nodes, caches and libraries do.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use dray::oci::Digest;
use dray::registry::Config;

use crate::client::Connection;
use crate::site::Site;
use crate::support::clients::Clients;
use crate::support::command::Run;
use crate::support::containerd::Containerd;
use crate::support::proxy::Proxy;
use crate::support::registry::{Access, Registry};
use crate::support::upstream::{self, HUB, PACKAGE, PAUSE_DOCKER, PAUSE_OCI, SINGLE, ZSTD};

const HOSTS: [&str; 4] = ["registry.k8s.io", "quay.io", "ghcr.io", "docker.io"];

fn bytes_of(address: SocketAddr, reference: &str) -> Vec<u8> {
    let (name, tag) = reference.rsplit_once(':').unwrap();
    let response = Connection::open(address).request("GET", &format!("/v2/{name}/manifests/{tag}"), &[], b"");
    response.expect(200).body
}

/// A site with images that skopeo pushed to it, byte for byte, and the registry that they come from.
fn pushed(references: &[&str]) -> (Site, Registry) {
    let upstream = upstream::start();
    let site = Site::open_to_pushes();
    for reference in references {
        Command::new("skopeo")
            .args(["copy", "-q", "--all", "--preserve-digests", "--src-tls-verify=false"])
            .args(["--dest-tls-verify=false", &upstream.docker(reference)])
            .arg(format!("docker://{}/{reference}", site.address))
            .succeed();
        assert_eq!(bytes_of(site.address, reference), upstream.raw(reference).as_bytes(), "{reference}");
    }
    (site, upstream)
}

#[test]
fn skopeo_podman_and_buildah_push() {
    let (site, upstream) = pushed(&[PAUSE_DOCKER, PAUSE_OCI, SINGLE, ZSTD]);
    let clients = Clients::new(&site.address.to_string(), &HOSTS);
    clients.podman().args(["pull", "-q", SINGLE]).succeed();
    let by_podman = format!("{}/team/podman:1", site.address);
    clients.podman().args(["push", "-q", "--tls-verify=false", SINGLE, &by_podman]).succeed();
    let by_buildah = format!("{}/team/buildah:1", site.address);
    let buildah = |arguments: &[&str]| {
        let podman = clients.podman();
        let storage: Vec<_> = podman.get_args().collect();
        let mut buildah = Command::new("buildah");
        for (key, value) in podman.get_envs() {
            buildah.env(key, value.unwrap_or_default());
        }
        buildah.args(storage).args(arguments).succeed()
    };
    buildah(&["push", "-q", "--tls-verify=false", SINGLE, &format!("docker://{by_buildah}")]);
    // What they pushed is pulled again and runs as it did.
    let original = clients.podman().args(["image", "inspect", "--format", "{{.Id}}", SINGLE]).succeed();
    for reference in [&by_podman, &by_buildah] {
        clients.podman().args(["pull", "-q", "--tls-verify=false", reference]).succeed();
        let pulled = clients.podman().args(["image", "inspect", "--format", "{{.Id}}", reference]).succeed();
        assert_eq!(pulled, original, "{reference}");
    }
    drop(upstream);
}

#[test]
fn a_push_of_what_is_there_already_sends_no_layer() {
    let (site, upstream) = pushed(&[PACKAGE]);
    let metrics = |line: &str| -> u64 {
        let text = site.get("/metrics").expect(200).text();
        let found = text.lines().filter_map(|l| l.strip_prefix(line)).filter_map(|l| l.rsplit(' ').next());
        found.filter_map(|value| value.parse::<u64>().ok()).sum()
    };
    let uploads = || metrics("dray_http_requests_total{route=\"upload\"");
    let before = uploads();
    Command::new("skopeo")
        .args(["copy", "-q", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false"])
        .args([upstream.docker(PACKAGE), format!("docker://{}/{PACKAGE}-again", site.address)])
        .succeed();
    assert_eq!(uploads(), before);
}

/// containerd with its plugin for Kubernetes, asked as a kubelet asks it.
#[test]
fn a_kubelet_pulls_through_cri() {
    let (site, upstream) = pushed(&[PAUSE_DOCKER, PAUSE_OCI, SINGLE, HUB]);
    let containerd = Containerd::with_cri();
    for host in HOSTS {
        containerd.mirror_by_path(host, &format!("http://{}/v2/{host}", site.address));
    }
    for reference in [PAUSE_DOCKER, PAUSE_OCI, SINGLE, HUB] {
        let digest = Digest::sha256(upstream.raw(reference).as_bytes()).to_string();
        containerd.pull_as_kubelet(reference);
        assert_eq!(containerd.digest(reference).as_deref(), Some(&*digest), "{reference}");
        let by_digest = format!("{}@{digest}", reference.rsplit_once(':').unwrap().0);
        containerd.pull_as_kubelet(&by_digest);
        assert_eq!(containerd.digest(&by_digest).as_deref(), Some(&*digest), "{by_digest}");
    }
}

#[test]
fn containerd_goes_on_in_the_middle_of_a_layer() {
    let (site, upstream) = pushed(&[PACKAGE]);
    let proxy = Proxy::start(&site.address.to_string(), 20_000_000);
    let containerd = Containerd::start();
    containerd.mirror_by_path("ghcr.io", &format!("http://{}/v2/ghcr.io", proxy.address()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            proxy.wait_for(8_000_000);
            proxy.cut();
            proxy.set_rate(1_000_000_000);
        });
        containerd.pull("linux/amd64", PACKAGE);
    });
    let digest = Digest::sha256(upstream.raw(PACKAGE).as_bytes()).to_string();
    assert_eq!(containerd.digest(PACKAGE), Some(digest));
    let metrics = site.get("/metrics").expect(200).text();
    assert!(metrics.contains("{route=\"blob\",status=\"206\"}"), "{metrics}");
}

/// Docker's own client library, as it is in Docker's registry when that is a cache in front of another one.
#[test]
fn a_cache_of_docker_pulls_through() {
    let (site, upstream) = pushed(&[PAUSE_DOCKER, PAUSE_OCI, SINGLE, PACKAGE]);
    let data = tempfile::tempdir().unwrap();
    let url = format!("http://{}", site.address);
    let cache = Registry::start(data.path(), Access::CacheOf(&url));
    for reference in [PAUSE_DOCKER, PAUSE_OCI, SINGLE, PACKAGE] {
        assert_eq!(cache.raw(reference), upstream.raw(reference), "{reference}");
        let layout = data.path().join("copy");
        Command::new("skopeo")
            .args(["copy", "-q", "--all", "--preserve-digests", "--src-tls-verify=false"])
            .args([cache.docker(reference), format!("dir:{}", layout.display())])
            .succeed();
    }
}

/// Another program in Rust, with the library that most of them use.
#[tokio::test]
async fn a_program_with_oci_client_pulls() {
    use oci_client::client::{ClientConfig, ClientProtocol};
    use oci_client::secrets::RegistryAuth;
    let (site, upstream) = tokio::task::spawn_blocking(|| pushed(&[SINGLE, PAUSE_OCI])).await.unwrap();
    let client =
        oci_client::Client::new(ClientConfig { protocol: ClientProtocol::Http, ..Default::default() });
    for reference in [SINGLE, PAUSE_OCI] {
        let there: oci_client::Reference = format!("{}/{reference}", site.address).parse().unwrap();
        let (manifest, digest) = client.pull_manifest(&there, &RegistryAuth::Anonymous).await.unwrap();
        let raw = upstream.raw(reference);
        assert_eq!(digest, Digest::sha256(raw.as_bytes()).to_string());
        let oci_client::manifest::OciManifest::Image(image) = manifest else { continue };
        let layer = &image.layers[0];
        let mut bytes = Vec::new();
        client.pull_blob(&there, layer, &mut bytes).await.unwrap();
        assert_eq!(Digest::sha256(&bytes).to_string(), layer.digest);
    }
    tokio::task::spawn_blocking(move || drop((site, upstream))).await.unwrap();
}

#[test]
fn a_download_that_was_cut_goes_on_where_it_was() {
    let site = Site::with(Config::default());
    let bytes: Vec<u8> = (0..9_000_000u32).map(|i| (i % 253) as u8).collect();
    let digest = site.blob("a", &bytes);
    let proxy = Proxy::start(&site.address.to_string(), 4_000_000);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("blob");
    let curl = |file: &Path| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--fail", "-C", "-", "-o"]).arg(file);
        curl.arg(format!("http://{}/v2/a/blobs/{digest}", proxy.address()));
        curl
    };
    let first = {
        let mut download = curl(&file);
        std::thread::spawn(move || download.finish().code)
    };
    proxy.wait_for(3_000_000);
    proxy.cut();
    assert_ne!(first.join().unwrap(), 0);
    let arrived = fs::metadata(&file).unwrap().len();
    assert!(arrived > 1_000_000 && arrived < bytes.len() as u64, "{arrived}");
    let before = proxy.received();
    proxy.set_rate(1_000_000_000);
    curl(&file).succeed();
    assert!(fs::read(&file).unwrap() == bytes);
    assert!(proxy.received() - before < bytes.len() as u64 - arrived + 100_000, "only the rest is sent");
}
