//! Deleting tags, manifests and blobs: at once, and only where it was asked for.

use std::time::Duration;

use dray::oci::Digest;
use dray::store::Store;

use crate::site::{Site, sha512};

#[test]
fn a_tag() {
    let site = Site::open_to_pushes();
    let image = site.image("a", "one", "same");
    site.image("a", "two", "same");
    site.request("DELETE", "/v2/a/manifests/one", b"").expect(202);
    site.get("/v2/a/manifests/one").expect(404);
    assert_eq!(site.get("/v2/a/tags/list").expect(200).json()["tags"], serde_json::json!(["two"]));
    site.get(&format!("/v2/a/manifests/{}", image.digest())).expect(200);
    let response = site.request("DELETE", "/v2/a/manifests/one", b"").expect(404);
    assert_eq!(response.code(), "MANIFEST_UNKNOWN");
}

#[test]
fn a_manifest_with_its_tags() {
    let site = Site::open_to_pushes();
    let image = site.image("a", "one", "same");
    site.image("a", "two", "same");
    site.image("a", "three", "other");
    site.image("b", "one", "same");
    let target = format!("/v2/a/manifests/{}", image.digest());
    site.request("DELETE", &target, b"").expect(202);
    site.get(&target).expect(404);
    site.get("/v2/a/manifests/two").expect(404);
    assert_eq!(site.get("/v2/a/tags/list").expect(200).json()["tags"], serde_json::json!(["three"]));
    site.get("/v2/b/manifests/one").expect(200);
    site.request("DELETE", &target, b"").expect(404);
    // What was deleted can be pushed again.
    site.image("a", "one", "same");
    site.get(&target).expect(200);
}

#[test]
fn a_blob() {
    let site = Site::open_to_pushes();
    for digest in [Digest::sha256(b"layer"), sha512(b"layer")] {
        for name in ["a", "b"] {
            let uploads = format!("/v2/{name}/blobs/uploads/?digest={digest}");
            site.request("POST", &uploads, b"layer").expect(201);
        }
        let target = format!("/v2/a/blobs/{digest}");
        site.request("DELETE", &target, b"").expect(202);
        site.head(&target).expect(404);
        site.get(&target).expect(404);
        assert_eq!(site.request("DELETE", &target, b"").expect(404).code(), "BLOB_UNKNOWN");
        assert_eq!(site.get(&format!("/v2/b/blobs/{digest}")).expect(200).body, b"layer");
    }
}

/// As `dray prune` does it in another process.
#[test]
fn what_is_being_sent_is_sent_to_its_end_when_it_is_pruned() {
    let site = Site::open_to_pushes();
    // More than the buffers of both sides of the socket hold.
    let bytes = vec![7; 40_000_000];
    let digest = site.blob("a", &bytes);
    let target = format!("/v2/a/blobs/{digest}");
    let mut slow = site.connect();
    slow.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes());
    let begin = slow.read(1000);
    let store = Store::open(site.store.path()).unwrap();
    let writer = store.writer("dray prune", Duration::from_secs(10)).unwrap();
    assert_eq!(writer.sweep(Duration::ZERO, false).unwrap().blobs, 1);
    drop(writer);
    assert!(!site.blob_file(&digest).exists());
    site.get(&target).expect(404);
    let all = [begin, slow.rest()].concat();
    let body = all.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    assert!(all[body..] == bytes);
    site.get("/readyz").expect(200);
}

#[test]
fn what_cannot_be_deleted_says_what_can_be_done() {
    let site = Site::open_to_pushes();
    for (target, allowed) in [
        ("/v2/", "GET, HEAD"),
        ("/v2/_catalog", "GET, HEAD"),
        ("/v2/a/tags/list", "GET, HEAD"),
        ("/v2/a/blobs/uploads/", "POST"),
    ] {
        assert_eq!(site.request("DELETE", target, b"").expect(405).header("allow"), allowed);
    }
}
