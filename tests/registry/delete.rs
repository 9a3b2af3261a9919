//! Deleting tags, manifests and blobs: at once, and only where it was asked for.

use crate::site::Site;

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
    let digest = site.blob("a", b"layer");
    site.blob("b", b"layer");
    let target = format!("/v2/a/blobs/{digest}");
    site.request("DELETE", &target, b"").expect(202);
    site.head(&target).expect(404);
    site.get(&target).expect(404);
    assert_eq!(site.request("DELETE", &target, b"").expect(404).code(), "BLOB_UNKNOWN");
    assert_eq!(site.get(&format!("/v2/b/blobs/{digest}")).expect(200).body, b"layer");
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
