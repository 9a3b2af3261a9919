//! Pushing manifests and tags.

use dray::oci::{Algorithm, Descriptor, Digest, Hasher, media_type};
use serde_json::json;

use crate::client::Response;
use crate::site::Site;

fn put(site: &Site, target: &str, media_type: &str, body: &[u8]) -> Response {
    site.connect().request("PUT", target, &[("Content-Type", media_type)], body)
}

fn image(extra: &serde_json::Value) -> Vec<u8> {
    let mut manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": Descriptor::of(media_type::OCI_CONFIG, b"{}"), "layers": []});
    manifest.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    serde_json::to_vec(&manifest).unwrap()
}

#[test]
fn by_tag_and_by_digest() {
    let site = Site::open_to_pushes();
    let body = image(&json!({"x-unknown": [1, 2]}));
    let digest = Digest::sha256(&body);
    for reference in ["v1".to_owned(), digest.to_string()] {
        let target = format!("/v2/a/manifests/{reference}");
        let response = put(&site, &target, media_type::OCI_MANIFEST, &body).expect(201);
        assert_eq!(response.header("location"), format!("/v2/a/manifests/{digest}"));
        assert_eq!(response.header("docker-content-digest"), digest.to_string());
        assert_eq!(site.get(&target).expect(200).body, body);
        assert_eq!(site.get(response.header("location")).expect(200).body, body);
    }
    assert_eq!(site.get("/v2/a/tags/list").expect(200).json()["tags"], json!(["v1"]));
}

#[test]
fn by_a_sha512_digest_with_tags_in_the_query() {
    let site = Site::open_to_pushes();
    let body = image(&json!({}));
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(&body);
    let digest = hasher.finish();
    let target = format!("/v2/a/manifests/{digest}?tag=one&tag=two");
    put(&site, &target, media_type::OCI_MANIFEST, &body).expect(201);
    for reference in ["one", "two", &digest.to_string()] {
        let response = site.get(&format!("/v2/a/manifests/{reference}")).expect(200);
        assert_eq!(response.header("docker-content-digest"), digest.to_string());
        assert_eq!(response.body, body);
    }
    let many = (0..101).map(|n| format!("tag=t{n}")).collect::<Vec<_>>().join("&");
    put(&site, &format!("/v2/a/manifests/{digest}?{many}"), media_type::OCI_MANIFEST, &body).expect(414);
    put(&site, &format!("/v2/a/manifests/{digest}?tag=.x"), media_type::OCI_MANIFEST, &body).expect(400);
}

#[test]
fn tags_that_were_set_are_told() {
    let site = Site::open_to_pushes();
    let body = image(&json!({}));
    let mut connection = site.connect();
    let head = format!(
        "PUT /v2/a/manifests/{}?tag=one&tag=two HTTP/1.1\r\nHost: a\r\nContent-Type: {}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        Digest::sha256(&body),
        media_type::OCI_MANIFEST,
        body.len()
    );
    connection.send(&[head.as_bytes(), &body].concat());
    let response = String::from_utf8(connection.rest()).unwrap();
    assert!(response.contains("oci-tag: one\r\n") && response.contains("oci-tag: two\r\n"), "{response}");
}

#[test]
fn what_is_no_manifest_is_refused() {
    let site = Site::open_to_pushes();
    let body = image(&json!({}));
    let other = Digest::sha256(b"other");
    let by_digest = format!("/v2/a/manifests/{other}");
    for (target, media_type, body, code) in [
        (by_digest.as_str(), media_type::OCI_MANIFEST, &body[..], "DIGEST_INVALID"),
        ("/v2/a/manifests/sha256:bad", media_type::OCI_MANIFEST, &body, "DIGEST_INVALID"),
        ("/v2/a/manifests/.bad", media_type::OCI_MANIFEST, &body, "MANIFEST_INVALID"),
        ("/v2/A/manifests/v1", media_type::OCI_MANIFEST, &body, "NAME_INVALID"),
        ("/v2/a/manifests/v1", media_type::OCI_INDEX, &body, "MANIFEST_INVALID"),
        ("/v2/a/manifests/v1", media_type::OCI_MANIFEST, b"{", "MANIFEST_INVALID"),
        ("/v2/a/manifests/v1", media_type::OCI_MANIFEST, b"", "MANIFEST_INVALID"),
        ("/v2/a/manifests/v1", media_type::DOCKER_SCHEMA1, b"{\"schemaVersion\":1}", "MANIFEST_INVALID"),
    ] {
        assert_eq!(put(&site, target, media_type, body).expect(400).code(), code, "{target}");
    }
    site.get("/v2/a/tags/list").expect(404);
}

#[test]
fn up_to_four_mebibytes() {
    let site = Site::open_to_pushes();
    let frame = image(&json!({"annotations": {"x": ""}})).len();
    let body = |size: usize| image(&json!({"annotations": {"x": "y".repeat(size - frame)}}));
    let limit = 4 * 1024 * 1024;
    put(&site, "/v2/a/manifests/full", media_type::OCI_MANIFEST, &body(limit)).expect(201);
    assert_eq!(site.get("/v2/a/manifests/full").expect(200).body.len(), limit);
    put(&site, "/v2/a/manifests/more", media_type::OCI_MANIFEST, &body(limit + 1)).expect(413);
    site.get("/v2/a/manifests/more").expect(404);
}

#[test]
fn what_an_image_refers_to_need_not_be_there() {
    let site = Site::open_to_pushes();
    let missing = Descriptor::of(media_type::OCI_LAYER_GZIP, b"not here");
    let mut foreign = serde_json::to_value(&missing).unwrap();
    foreign["urls"] = json!(["https://example.com/layer"]);
    let body = image(&json!({"layers": [missing, foreign]}));
    put(&site, "/v2/a/manifests/sparse", media_type::OCI_MANIFEST, &body).expect(201);
    for media_type in [media_type::OCI_INDEX, media_type::DOCKER_LIST] {
        let index = json!({"schemaVersion": 2, "mediaType": media_type,
            "manifests": [Descriptor::of(media_type::OCI_MANIFEST, b"not here")]});
        let body = serde_json::to_vec(&index).unwrap();
        put(&site, "/v2/a/manifests/index", media_type, &body).expect(201);
        assert_eq!(site.get("/v2/a/manifests/index").expect(200).header("content-type"), media_type);
    }
    let docker = image(&json!({"mediaType": media_type::DOCKER_MANIFEST}));
    put(&site, "/v2/a/manifests/docker", media_type::DOCKER_MANIFEST, &docker).expect(201);
}

#[test]
fn every_shape_comes_back_as_it_was_pushed() {
    let site = Site::open_to_pushes();
    let subject = Descriptor::of(media_type::OCI_MANIFEST, &image(&json!({})));
    let empty = Descriptor::of(media_type::OCI_EMPTY, b"{}");
    let mut with_data = serde_json::to_value(&empty).unwrap();
    with_data["data"] = json!("e30=");
    let index = |extra: serde_json::Value| {
        let mut index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": []});
        index.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        (media_type::OCI_INDEX, serde_json::to_vec(&index).unwrap())
    };
    let manifest = |extra: serde_json::Value| (media_type::OCI_MANIFEST, image(&extra));
    let inner = index(json!({"annotations": {"which": "the inner one"}}));
    let referrer = index(json!({"subject": subject, "artifactType": "a/kind"}));
    for (tag, (media_type, body)) in [
        ("empty-index", index(json!({}))),
        ("inner-index", inner.clone()),
        ("nested-index", index(json!({"manifests": [Descriptor::of(inner.0, &inner.1)]}))),
        ("index-with-subject", referrer.clone()),
        ("artifact", manifest(json!({"artifactType": "a/kind", "config": empty, "layers": [empty]}))),
        ("data", manifest(json!({"config": with_data, "layers": [with_data]}))),
        ("no-layers", manifest(json!({}))),
        ("unknown-types", manifest(json!({"layers": [Descriptor::of("application/x-own", b"own")]}))),
    ] {
        put(&site, &format!("/v2/a/manifests/{tag}"), media_type, &body).expect(201);
        let response = site.get(&format!("/v2/a/manifests/{tag}")).expect(200);
        assert_eq!((response.header("content-type"), &response.body), (media_type, &body), "{tag}");
        let head = site.head(&format!("/v2/a/manifests/{tag}")).expect(200);
        assert_eq!(head.header("content-length"), body.len().to_string());
    }
    let list =
        site.get(&format!("/v2/a/referrers/{}?artifactType=a/kind", subject.digest)).expect(200).json();
    assert_eq!(list["manifests"][0]["digest"], Digest::sha256(&referrer.1).to_string());
    assert_eq!(list["manifests"][0]["mediaType"], media_type::OCI_INDEX);
}

#[test]
fn a_subject_makes_a_referrer() {
    let site = Site::open_to_pushes();
    let subject = image(&json!({}));
    let descriptor = Descriptor::of(media_type::OCI_MANIFEST, &subject);
    let referrers = format!("/v2/a/referrers/{}", descriptor.digest);
    // The subject comes after what refers to it.
    let sbom = image(&json!({"subject": descriptor, "artifactType": "a/sbom", "annotations": {"by": "me"}}));
    let target = format!("/v2/a/manifests/{}", Digest::sha256(&sbom));
    let response = put(&site, &target, media_type::OCI_MANIFEST, &sbom).expect(201);
    assert_eq!(response.header("oci-subject"), descriptor.digest.to_string());
    let list = site.get(&referrers).expect(200).json()["manifests"].clone();
    assert_eq!(list[0]["digest"], Digest::sha256(&sbom).to_string());
    assert_eq!(list[0]["size"], sbom.len());
    assert_eq!((&list[0]["artifactType"], &list[0]["annotations"]["by"]), (&json!("a/sbom"), &json!("me")));
    put(&site, "/v2/a/manifests/v1", media_type::OCI_MANIFEST, &subject).expect(201);
    site.request("DELETE", &target, b"").expect(202);
    assert_eq!(site.get(&referrers).expect(200).json()["manifests"], json!([]));
}

#[test]
fn a_referrers_tag_is_kept_in_step() {
    let site = Site::open_to_pushes();
    let subject = Descriptor::of(media_type::OCI_MANIFEST, &image(&json!({})));
    let tag = format!("/v2/a/manifests/{}", subject.digest.to_string().replace(':', "-"));
    let push = |kind: &str| {
        let body = image(&json!({"subject": subject, "artifactType": kind}));
        let target = format!("/v2/a/manifests/{}", Digest::sha256(&body));
        put(&site, &target, media_type::OCI_MANIFEST, &body).expect(201);
        target
    };
    let kinds = || -> Vec<serde_json::Value> {
        let index = site.get(&tag).expect(200).json();
        index["manifests"].as_array().unwrap().iter().map(|m| m["artifactType"].clone()).collect()
    };
    // Nobody made the tag, so nobody needs it.
    let first = push("a/first");
    site.get(&tag).expect(404);
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "annotations": {"kept": "yes"},
        "manifests": [{"mediaType": media_type::OCI_MANIFEST, "size": 1, "artifactType": "a/first",
            "digest": first.rsplit('/').next().unwrap()}]});
    put(&site, &tag, media_type::OCI_INDEX, &serde_json::to_vec(&index).unwrap()).expect(201);
    push("a/second");
    push("a/second");
    assert_eq!(kinds(), [json!("a/first"), json!("a/second")]);
    site.request("DELETE", &first, b"").expect(202);
    assert_eq!(kinds(), [json!("a/second")]);
    assert_eq!(site.get(&tag).expect(200).json()["annotations"]["kept"], "yes");
}

#[test]
fn a_store_that_another_process_changes_is_not_pushed_to() {
    let site = Site::open_to_pushes();
    let other = dray::store::Store::open(site.store.path()).unwrap();
    let import = other.writer("dray import", std::time::Duration::ZERO).unwrap();
    let target = "/v2/a/manifests/v1".to_owned();
    let address = site.address;
    let push = std::thread::spawn(move || {
        let body = image(&json!({}));
        crate::client::Connection::open(address).request(
            "PUT",
            &target,
            &[("Content-Type", media_type::OCI_MANIFEST)],
            &body,
        )
    });
    site.get("/v2/").expect(200);
    let response = push.join().unwrap().expect(503);
    assert!(response.text().contains("dray import (process"), "{}", response.text());
    assert_eq!(response.header("retry-after"), "10");
    drop(import);
    put(&site, "/v2/a/manifests/v1", media_type::OCI_MANIFEST, &image(&json!({}))).expect(201);
}
