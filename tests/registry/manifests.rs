//! Pushing manifests and tags.

use std::collections::BTreeMap;

use dray::oci::{Descriptor, Digest, media_type};
use serde_json::json;

use crate::client::Response;
use crate::site::{Site, sha512};

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
    let digest = sha512(&body);
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

/// What clients push beside plain images, by tag.
fn shapes(subject: &Descriptor) -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let missing = Descriptor::of(media_type::OCI_MANIFEST, b"not here");
    let empty = Descriptor::of(media_type::OCI_EMPTY, b"{}");
    let layer = |media_type: &str| serde_json::to_value(Descriptor::of(media_type, b"layer")).unwrap();
    let with = |mut descriptor: serde_json::Value, field: &str, value: serde_json::Value| {
        descriptor[field] = value;
        descriptor
    };
    let with_data = with(serde_json::to_value(&empty).unwrap(), "data", json!("e30="));
    let foreign =
        |media_type: &str| with(layer(media_type), "urls", json!(["https://store.example.com/layer"]));
    let index = |tag: &'static str, extra: serde_json::Value| {
        let mut index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": []});
        index.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        (tag, media_type::OCI_INDEX, serde_json::to_vec(&index).unwrap())
    };
    let manifest =
        |tag: &'static str, extra: serde_json::Value| (tag, media_type::OCI_MANIFEST, image(&extra));
    let inner = index("inner-index", json!({"annotations": {"which": "the inner one"}}));
    vec![
        index("empty-index", json!({})),
        index("nested-index", json!({"manifests": [Descriptor::of(inner.1, &inner.2)]})),
        inner,
        index("index-with-subject", json!({"subject": subject, "artifactType": "a/kind"})),
        index("artifact-index", json!({"artifactType": "a/kind"})),
        index("sparse-index", json!({"manifests": [missing]})),
        manifest("artifact", json!({"artifactType": "a/kind", "config": empty, "layers": [layer("a/kind")]})),
        manifest(
            "artifact-without-layers",
            json!({"artifactType": "a/kind", "config": empty, "layers": [empty]}),
        ),
        manifest(
            "artifact-with-subject",
            json!({"artifactType": "a/other", "config": empty, "subject": subject}),
        ),
        manifest("image-with-subject", json!({"subject": subject, "annotations": {"by": "me"}})),
        manifest("missing-subject", json!({"artifactType": "a/kind", "subject": missing})),
        manifest("data", json!({"config": with_data, "layers": [with_data]})),
        manifest("no-layers", json!({})),
        manifest("uncompressed", json!({"layers": [layer("application/vnd.oci.image.layer.v1.tar")]})),
        manifest(
            "non-distributable",
            json!({"layers": [
                foreign("application/vnd.oci.image.layer.nondistributable.v1.tar"),
                foreign("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
            ]}),
        ),
        manifest(
            "sparse-image",
            json!({"layers": [Descriptor::of(media_type::OCI_LAYER_GZIP, b"not here")]}),
        ),
        manifest("unknown-types", json!({"layers": [layer("application/x-own")]})),
        manifest(
            "unknown-fields",
            json!({"org.example.own": {"kept": [1, 2.5, null]}, "layers": [layer("a/kind")]}),
        ),
        manifest(
            "large",
            json!({"annotations": (0..390).map(|n| (format!("a{n}"), json!("A".repeat(10_000))))
            .collect::<serde_json::Map<_, _>>()}),
        ),
    ]
}

/// The whole life of every shape, by tag and by digest, with both hash functions.
#[test]
fn every_shape_is_pushed_listed_pulled_and_deleted() {
    let site = Site::open_to_pushes();
    let mut connection = site.connect();
    let subject =
        Descriptor::of(media_type::OCI_MANIFEST, &image(&json!({"annotations": {"is": "the subject"}})));
    for (tag, media_type, body) in shapes(&subject) {
        for digest in [Digest::sha256(&body), sha512(&body)] {
            let (by_tag, by_digest) = (format!("/v2/a/manifests/{tag}"), format!("/v2/a/manifests/{digest}"));
            let headers = [("Content-Type", media_type)];
            let answer =
                connection.request("PUT", &format!("{by_digest}?tag={tag}"), &headers, &body).expect(201);
            assert_eq!(answer.header("docker-content-digest"), digest.to_string(), "{tag}");
            assert_eq!(answer.header("oci-tag"), tag);
            let told =
                serde_json::from_slice::<serde_json::Value>(&body).unwrap()["subject"]["digest"].clone();
            assert_eq!(
                answer.headers.get("oci-subject").map(|subject| json!(subject)).unwrap_or_default(),
                told
            );
            let location = answer.header("location").to_owned();
            for target in [&by_tag, &by_digest, &location] {
                let whole = connection.request("GET", target, &[], b"").expect(200);
                assert!(whole.body == body, "{target}");
                let head = connection.request("HEAD", target, &[], b"").expect(200);
                for answer in [&whole, &head] {
                    assert_eq!(answer.header("content-type"), media_type, "{tag}");
                    assert_eq!(answer.header("content-length"), body.len().to_string(), "{tag}");
                    assert_eq!(answer.header("docker-content-digest"), digest.to_string(), "{tag}");
                }
            }
            let tags = |query: &str, connection: &mut crate::client::Connection| {
                connection.request("GET", &format!("/v2/a/tags/list{query}"), &[], b"").expect(200).json()["tags"].clone()
            };
            assert_eq!(tags("", &mut connection), json!([tag]));
            assert_eq!(tags(&format!("?last={tag}"), &mut connection), json!([]));
            connection.request("DELETE", &by_tag, &[], b"").expect(202);
            connection.request("HEAD", &by_tag, &[], b"").expect(404);
            assert_eq!(tags("", &mut connection), json!([]));
            connection.request("GET", &by_digest, &[], b"").expect(200);
            connection.request("DELETE", &by_digest, &[], b"").expect(202);
            connection.request("HEAD", &by_digest, &[], b"").expect(404);
        }
    }
}

#[test]
fn all_that_has_a_subject_is_listed_with_what_it_is() {
    let site = Site::open_to_pushes();
    let subject =
        Descriptor::of(media_type::OCI_MANIFEST, &image(&json!({"annotations": {"is": "the subject"}})));
    let mut expected = BTreeMap::new();
    for (tag, media_type, body) in shapes(&subject) {
        put(&site, &format!("/v2/a/manifests/{tag}"), media_type, &body).expect(201);
        let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
        if document["subject"]["digest"] == json!(subject.digest) {
            // An image that does not say what it is, is what its configuration is.
            let kind = [&document["artifactType"], &document["config"]["mediaType"]];
            let kind = kind.into_iter().find_map(|kind| kind.as_str()).unwrap().to_owned();
            let mut entry = json!({"mediaType": media_type, "digest": Digest::sha256(&body), "size": body.len(),
                "artifactType": kind});
            if !document["annotations"].is_null() {
                entry["annotations"] = document["annotations"].clone();
            }
            expected.insert(kind, entry);
        }
    }
    assert_eq!(expected.len(), 3);
    let list = |filter: &str| {
        let answer = site.get(&format!("/v2/a/referrers/{}{filter}", subject.digest)).expect(200);
        assert_eq!(answer.header("content-type"), media_type::OCI_INDEX);
        assert_eq!(answer.headers.contains_key("oci-filters-applied"), !filter.is_empty());
        let index = answer.json();
        assert_eq!(
            (&index["schemaVersion"], &index["mediaType"]),
            (&json!(2), &json!(media_type::OCI_INDEX))
        );
        index["manifests"].as_array().unwrap().clone()
    };
    let by_kind = |entry: &serde_json::Value| entry["artifactType"].as_str().unwrap().to_owned();
    let all: BTreeMap<String, serde_json::Value> =
        list("").into_iter().map(|entry| (by_kind(&entry), entry)).collect();
    assert_eq!(all, expected);
    for (kind, entry) in &expected {
        let filter: String = url::form_urlencoded::byte_serialize(kind.as_bytes()).collect();
        assert_eq!(list(&format!("?artifactType={filter}")), std::slice::from_ref(entry));
    }
    assert_eq!(list("?artifactType=nobody/has-it"), [json!(null); 0]);
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
    assert!(response.text().contains("`dray import` (pid"), "{}", response.text());
    assert_eq!(response.header("retry-after"), "10");
    drop(import);
    put(&site, "/v2/a/manifests/v1", media_type::OCI_MANIFEST, &image(&json!({}))).expect(201);
}
