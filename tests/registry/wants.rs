//! What the registry remembers of what it does not have: what nodes missed, and nothing else.

use std::fs;

use dray::oci::{Descriptor, Digest, media_type};
use dray::registry::{Config, Naming};
use serde_json::json;

use crate::client::Response;
use crate::site::{Image, Site};
use crate::support::clients::Clients;
use crate::support::command::Run;
use crate::support::containerd::Containerd;
use crate::support::shelf;
use crate::support::site::{Serve, Site as Carrier, dray};

const NAME: &str = "registry.k8s.io/pause";
const NODE: [(&str, &str); 1] = [("User-Agent", "containerd/v2.1.4")];

fn list(site: &Site) -> String {
    site.get("/api/v1/wants.txt").expect(200).text()
}

/// An image for one platform, whose manifest is put into the store, and the digest of its layer, which is not.
fn without_layer(site: &Site, note: &str) -> (Image, Digest) {
    let layer = Descriptor::of(media_type::OCI_LAYER_GZIP, note.as_bytes());
    let digest = layer.digest.clone();
    let image = site.manifest(
        NAME,
        None,
        &json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
            "config": Descriptor::of(media_type::OCI_CONFIG, note.as_bytes()), "layers": [layer]}),
    );
    (image, digest)
}

fn entry(image: &Descriptor, platform: &str) -> Descriptor {
    Descriptor { platform: Some(platform.parse().unwrap()), ..image.clone() }
}

/// A site with an index of which only the entry for Linux is whole. Returns the layers of the entries for Windows: of the
/// first the manifest is here, of the second nothing is.
struct Gaps {
    site: Site,
    linux: Image,
    old_layer: Digest,
    new: Descriptor,
}

fn gaps() -> Gaps {
    let site = Site::open_to_pushes();
    let linux = site.image(NAME, "linux", "linux");
    site.blob(NAME, b"{}");
    let (old, old_layer) = without_layer(&site, "2019");
    let new = Descriptor::of(media_type::OCI_MANIFEST, b"2022");
    let attestation = Descriptor {
        annotations: [
            ("vnd.docker.reference.type".to_owned(), "attestation-manifest".to_owned()),
            ("vnd.docker.reference.digest".to_owned(), linux.digest()),
        ]
        .into(),
        ..entry(&Descriptor::of(media_type::OCI_MANIFEST, b"attestation"), "unknown/unknown")
    };
    let entries = [
        entry(&linux.descriptor, "linux/amd64"),
        entry(&old.descriptor, "windows(10.0.17763.5576)/amd64"),
        entry(&new, "windows(10.0.20348.2227)/amd64"),
        attestation,
    ];
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries});
    site.manifest(NAME, Some("3.10.2"), &index);
    Gaps { site, linux, old_layer, new }
}

fn node_get(site: &Site, target: &str) -> Response {
    site.get_with(target, &NODE)
}

#[test]
fn a_layer_that_was_left_out_counts_and_is_explained() {
    let Gaps { site, old_layer, .. } = gaps();
    let target = format!("/v2/pause/blobs/{old_layer}?ns=registry.k8s.io");
    // A client that pushes asks so.
    site.head(&target).expect(404);
    assert_eq!(list(&site), "");
    let error = node_get(&site, &target).expect(404).json()["errors"][0].clone();
    assert_eq!(error["code"], "BLOB_UNKNOWN");
    let said = error["message"].as_str().unwrap();
    assert!(said.contains("windows(10.0.17763)/amd64 was left out of this bundle"), "{said}");
    assert!(said.contains("registry.k8s.io/pause:3.10.2"), "{said}");
    assert_eq!(error["detail"]["leftOut"]["platform"], "windows(10.0.17763)/amd64");
    let line = "registry.k8s.io/pause:3.10.2  # windows(10.0.17763)/amd64 was left out: add it to `nodes`\n";
    assert_eq!(list(&site), line);
    let want = site.get("/api/v1/wants").expect(200).json()["wants"][0].clone();
    assert_eq!(want["what"], "windows(10.0.17763)/amd64 of registry.k8s.io/pause:3.10.2");
    // By the name alone as well, and a layer of nothing that is known is not a want.
    node_get(&site, &format!("/v2/pause/blobs/{old_layer}")).expect(404);
    let other = node_get(&site, &format!("/v2/{NAME}/blobs/{}", Digest::sha256(b"other"))).expect(404);
    assert!(!other.text().contains("left out"));
    assert_eq!(list(&site), line);
}

#[test]
fn a_manifest_that_was_left_out_is_a_want_of_its_image() {
    let Gaps { site, new, .. } = gaps();
    let said = node_get(&site, &format!("/v2/{NAME}/manifests/{}", new.digest)).expect(404);
    assert_eq!(said.code(), "MANIFEST_UNKNOWN");
    assert!(said.text().contains("windows(10.0.20348)/amd64 was left out of this bundle"), "{}", said.text());
    let attestation = Digest::sha256(b"attestation");
    let docker = [("User-Agent", "docker/29.1.0")];
    let target = format!("/v2/{NAME}/manifests/{attestation}");
    let said = site.get_with(&target, &docker).expect(404).text();
    assert!(said.contains("the attestation of linux/amd64 was left out of this bundle"), "{said}");
    assert_eq!(
        list(&site),
        "registry.k8s.io/pause:3.10.2  # the attestation of linux/amd64 was left out: add docker-containerd to `runtimes`\n\
         registry.k8s.io/pause:3.10.2  # windows(10.0.20348)/amd64 was left out: add it to `nodes`\n"
    );
}

#[test]
fn what_was_left_out_is_no_want_once_it_has_come() {
    let Gaps { site, old_layer, .. } = gaps();
    node_get(&site, &format!("/v2/{NAME}/blobs/{old_layer}")).expect(404);
    assert_ne!(list(&site), "");
    site.blob(NAME, b"2019");
    assert_eq!(list(&site), "");
    // Nor when the tag means something else.
    let Gaps { site, old_layer, .. } = gaps();
    node_get(&site, &format!("/v2/{NAME}/blobs/{old_layer}")).expect(404);
    site.image(NAME, "3.10.2", "another");
    assert_eq!(list(&site), "");
}

#[test]
fn a_tool_that_reads_the_whole_index_wants_nothing() {
    let Gaps { site, linux, old_layer, new } = gaps();
    let manifest = |digest: &str| format!("/v2/{NAME}/manifests/{digest}");
    for agent in ["crane/v0.20.2", "oras/1.3.3", "regclient/regctl", "containerd/2.4.0"] {
        let get = |target: &str| site.get_with(target, &[("User-Agent", agent)]).status;
        assert_eq!(get(&format!("/v2/{NAME}/tags/list")), 200);
        assert_eq!(get(&format!("/v2/{NAME}/referrers/{}", linux.digest())), 200);
        // Before and after an entry for another platform.
        assert_eq!(get(&manifest(&new.digest.to_string())), 404);
        assert_eq!(get(&manifest(&linux.digest())), 200);
        assert_eq!(get(&manifest(&new.digest.to_string())), 404);
        assert_eq!(get(&format!("/v2/{NAME}/blobs/{old_layer}")), 404);
        assert_eq!(list(&site), "", "{agent}");
    }
    // A node that asks at the same time wants what it cannot have.
    node_get(&site, &manifest(&new.digest.to_string())).expect(404);
    assert!(list(&site).contains("windows(10.0.20348)/amd64"));
}

#[test]
fn the_checks_of_a_push_are_no_wants() {
    let site = Site::open_to_pushes();
    let docker = [("User-Agent", "docker/29.1.0")];
    let request = |method: &str, target: &str, body: &[u8]| {
        site.connect().request(method, target, &docker, body).status
    };
    // One that succeeds, by a name that a node completes otherwise than the registry.
    let image = site.image("other", "1", "pushed");
    assert_eq!(request("HEAD", "/v2/acme/app/manifests/1", b""), 404);
    assert_eq!(list(&site), "docker.io/acme/app:1\n");
    let content_type = [("Content-Type", media_type::OCI_MANIFEST)];
    site.blob("acme/app", b"{}");
    site.connect().request("PUT", "/v2/acme/app/manifests/1", &content_type, &image.bytes).expect(201);
    assert_eq!(list(&site), "");
    // One that ends after its first blob, and one that is refused.
    for (method, target) in [("POST", "/v2/acme/app/blobs/uploads/"), ("PUT", "/v2/acme/app/manifests/3")] {
        assert_eq!(request("HEAD", "/v2/acme/app/manifests/2", b""), 404);
        assert_eq!(list(&site), "docker.io/acme/app:2\n");
        request(method, target, b"");
        assert_eq!(list(&site), "", "{method}");
    }
    // What a node asked for stays.
    node_get(&site, "/v2/acme/app/manifests/4").expect(404);
    request("POST", "/v2/acme/app/blobs/uploads/", b"");
    assert_eq!(list(&site), "docker.io/acme/app:4\n");
}

#[test]
fn the_checks_of_a_push_that_cannot_be_are_no_wants() {
    let wants = Some(std::sync::Arc::default());
    let site = Site::with(Config { wants, naming: Naming::default(), ..Config::default() });
    site.head("/v2/acme/app/manifests/1").expect(404);
    site.request("POST", "/v2/acme/app/blobs/uploads/", b"").expect(405);
    assert_eq!(list(&site), "");
}

#[test]
fn requests_of_this_program_and_for_bundles_are_no_wants() {
    let site = Site::open_to_pushes();
    for agent in ["dray/0.1.0", concat!("dray/", env!("CARGO_PKG_VERSION"))] {
        site.get_with("/v2/acme/app/manifests/1", &[("User-Agent", agent)]).expect(404);
    }
    for target in ["/v2/bundles.dray.dev/plant-7/manifests/1", "/v2/plant-7/manifests/2?ns=bundles.dray.dev"]
    {
        node_get(&site, target).expect(404);
    }
    let digest = Digest::sha256(b"signature");
    node_get(&site, &format!("/v2/bundles.dray.dev/plant-7/manifests/{digest}")).expect(404);
    assert_eq!(list(&site), "");
}

#[test]
fn a_want_is_on_disk_before_its_answer() {
    let site = Site::open_to_pushes();
    for nth in 1..=5 {
        node_get(&site, &format!("/v2/acme/app/manifests/{nth}?ns=quay.io")).expect(404);
        let wants = dray().args(["wants", "--store"]).arg(site.store.path()).succeed();
        assert_eq!(wants.lines().last(), Some(&*format!("quay.io/acme/app:{nth}")));
    }
    let json = dray().args(["wants", "--format", "json", "--store"]).arg(site.store.path()).succeed();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["wants"][4]["what"], "quay.io/acme/app:5");
    assert_eq!(json, site.get("/api/v1/wants").expect(200).json());
}

/// Real clients ask for what is not there; the list of it is locked as it is, carried, and imported beside the server.
#[test]
fn what_real_clients_missed_is_locked_and_imported() {
    let wanted = ["registry.k8s.io/pause:3.9", "docker.io/calico/node:v3.30.1", "quay.io/coreos/etcd:v3.6.4"];
    let carrier = Carrier::new(
        "apiVersion: dray.dev/v1alpha1\nkind: Bundle\nmetadata: {name: plant-7}\nspec:\n  \
         nodes: [linux/amd64]\n  runtimes: [containerd@1.6]\n  images: ['registry.k8s.io/pause:3.9']\n",
    );
    let upstream = shelf::serve(&carrier.path("upstream"), &wanted.map(str::to_owned));
    let store = carrier.path("store");
    carrier.import(&carrier.bundle(upstream.address()), &store).succeed();
    let server = Serve::start(&["--store", store.to_str().unwrap()]);
    let wants = || dray().args(["wants", "--store"]).arg(&store).succeed();

    let clients = Clients::new(server.address(), &["docker.io", "quay.io", "registry.k8s.io"]);
    assert_ne!(clients.podman().args(["pull", "-q", wanted[1]]).finish().code, 0);
    assert_ne!(
        clients.skopeo().args(["inspect", "--raw", &format!("docker://{}", wanted[2])]).finish().code,
        0
    );
    let containerd = Containerd::start();
    containerd.mirror_everything(&format!("http://{}", server.address()));
    containerd.pull("linux/amd64", wanted[0]);
    let mut windows = containerd.ctr();
    windows.args(["content", "fetch", "--platform", "windows/amd64", "--hosts-dir"]);
    assert_ne!(windows.arg(containerd.hosts()).arg(wanted[0]).finish().code, 0);
    let line = format!("{}  # windows(10.0.20348)/amd64 was left out: add it to `nodes`", wanted[0]);
    assert_eq!(wants(), format!("{}\n{}\n{line}\n", wanted[1], wanted[2]));
    // What dray itself asks for, and what skopeo checks before it pushes, adds nothing.
    let missing = format!("docker://{}/quay.io/acme/pushed:1", server.address());
    let source = format!("docker://{}/{}", server.address(), wanted[0]);
    let copy = ["copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false", &source, &missing];
    assert_ne!(clients.skopeo().args(copy).finish().code, 0, "the registry is read-only");
    assert_eq!(wants().lines().count(), 3);

    fs::write(carrier.path("wants.txt"), wants()).unwrap();
    fs::write(
        carrier.path("bundle.yaml"),
        "apiVersion: dray.dev/v1alpha1\nkind: Bundle\nmetadata: {name: plant-7, sequence: 2}\nspec:\n  \
         nodes: [linux/amd64, windows/ltsc2022]\n  runtimes: [containerd@1.6]\n  imageLists: [wants.txt]\n",
    )
    .unwrap();
    carrier.import(&carrier.bundle(upstream.address()), &store).succeed();
    assert_eq!(wants(), "");
    assert_ne!(clients.podman().args(["pull", "-q", "quay.io/coreos/etcd:none"]).finish().code, 0);
    assert_eq!(wants(), "quay.io/coreos/etcd:none\n");
}
