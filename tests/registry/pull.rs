//! Reading: manifests, blobs and parts of them, lists.

use dray::oci::{Digest, media_type};

use crate::site::Site;

#[test]
fn ping() {
    let site = Site::new();
    for path in ["/v2/", "/v2"] {
        let response = site.get(path).expect(200);
        assert_eq!(response.header("docker-distribution-api-version"), "registry/2.0");
    }
    site.get("/healthz").expect(200);
    assert_eq!(site.get("/readyz").expect(200).text(), "ready\n");
    site.get("/").expect(404);
    assert_eq!(site.get("/v2/x").expect(404).code(), "UNSUPPORTED");
}

#[test]
fn manifests_are_served_as_stored() {
    let site = Site::new();
    let list = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::DOCKER_LIST, "manifests": [],
        "unknown": {"kept": true}});
    let stored = site.manifest("a", Some("list"), &list);
    for reference in ["list".to_owned(), stored.digest()] {
        let target = format!("/v2/a/manifests/{reference}");
        let response = site.get_with(&target, &[("Accept", media_type::OCI_MANIFEST)]).expect(200);
        assert_eq!(response.body, stored.bytes);
        let head = site.head(&target).expect(200);
        for response in [&response, &head] {
            assert_eq!(response.header("content-type"), media_type::DOCKER_LIST);
            assert_eq!(response.header("docker-content-digest"), stored.digest());
            assert_eq!(response.header("content-length"), stored.bytes.len().to_string());
        }
        let known = format!("W/\"x\", \"{}\"", stored.digest());
        site.get_with(&target, &[("If-None-Match", &known)]).expect(304);
        site.get_with(&target, &[("If-None-Match", "\"x\"")]).expect(200);
    }
}

#[test]
fn what_is_missing_has_a_code() {
    let site = Site::new();
    site.image("a", "1", "");
    let digest = Digest::sha256(b"missing");
    for (target, status, code) in [
        ("/v2/a/manifests/2".to_owned(), 404, "MANIFEST_UNKNOWN"),
        (format!("/v2/a/manifests/{digest}"), 404, "MANIFEST_UNKNOWN"),
        (format!("/v2/a/blobs/{digest}"), 404, "BLOB_UNKNOWN"),
        ("/v2/b/tags/list".to_owned(), 404, "NAME_UNKNOWN"),
        ("/v2/A/tags/list".to_owned(), 400, "NAME_INVALID"),
        ("/v2/a/manifests/sha256:baddigeststring".to_owned(), 400, "DIGEST_INVALID"),
        ("/v2/a/blobs/sha256:baddigeststring".to_owned(), 400, "DIGEST_INVALID"),
        ("/v2/a/referrers/sha256:baddigeststring".to_owned(), 400, "DIGEST_INVALID"),
        ("/v2/a/tags/list?n=x".to_owned(), 400, "UNSUPPORTED"),
    ] {
        assert_eq!(site.get(&target).expect(status).code(), code, "{target}");
        assert_eq!(site.head(&target).status, status);
    }
}

#[test]
fn a_registry_that_is_read_only_says_so() {
    let site = Site::new();
    let digest = Digest::sha256(b"");
    for (method, target) in [
        ("POST", "/v2/a/blobs/uploads/".to_owned()),
        ("PUT", "/v2/a/manifests/1".to_owned()),
        ("DELETE", format!("/v2/a/blobs/{digest}")),
        ("BREW", "/v2/".to_owned()),
    ] {
        let response = site.connect().request(method, &target, &[], b"").expect(405);
        assert_eq!(response.code(), "UNSUPPORTED");
        assert_eq!(response.header("allow"), "GET, HEAD");
    }
}

#[test]
fn parts_of_blobs() {
    let site = Site::new();
    let bytes: Vec<u8> = (0..3000u32).map(|i| (i % 251) as u8).collect();
    let digest = site.blob("a", &bytes);
    let target = format!("/v2/a/blobs/{digest}");
    for (range, from, to) in [
        ("bytes=500-1499", 500, 1500),
        ("bytes=500-", 500, 3000),
        ("bytes=-500", 2500, 3000),
        ("bytes=2000-5000", 2000, 3000),
    ] {
        let response = site.get_with(&target, &[("Range", range)]).expect(206);
        assert_eq!(response.header("content-range"), format!("bytes {from}-{}/3000", to - 1));
        assert_eq!(response.body, bytes[from..to], "{range}");
    }
    for range in ["bytes=500-0", "bytes=5000-10000"] {
        let response = site.get_with(&target, &[("Range", range)]).expect(416);
        assert_eq!(response.header("content-range"), "bytes */3000");
    }
    for range in ["lines=1-2", "bytes=x-", "bytes=0-1,7-8"] {
        assert_eq!(site.get_with(&target, &[("Range", range)]).expect(200).body, bytes);
    }
    let etag = format!("\"{digest}\"");
    site.get_with(&target, &[("Range", "bytes=1-2"), ("If-Range", &etag)]).expect(206);
    site.get_with(&target, &[("Range", "bytes=1-2"), ("If-Range", "\"other\"")]).expect(200);
    site.get_with(&target, &[("If-None-Match", &etag)]).expect(304);
    let head = site.head(&target).expect(200);
    assert_eq!((head.header("content-length"), head.header("accept-ranges")), ("3000", "bytes"));
    assert_eq!(head.header("docker-content-digest"), digest.to_string());
}

#[test]
fn large_and_empty_blobs_arrive_whole_on_one_connection() {
    let site = Site::new();
    let large: Vec<u8> = (0..3_000_001u32).map(|i| (i % 253) as u8).collect();
    let mut connection = site.connect();
    for bytes in [&large[..], b"", b"{}", &large] {
        let digest = site.blob("a", bytes);
        let response = connection.request("GET", &format!("/v2/a/blobs/{digest}"), &[], b"").expect(200);
        assert!(response.body == bytes);
    }
}

#[test]
fn damaged_content_does_not_leave() {
    let site = Site::new();
    let image = site.image("a", "1", "");
    let blob = site.blob("a", b"precious bytes");
    for digest in [&image.descriptor.digest, &blob] {
        let file = site.blob_file(digest);
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[1] ^= 0x20;
        std::fs::write(&file, bytes).unwrap();
    }
    for target in [format!("/v2/a/blobs/{blob}"), "/v2/a/manifests/1".into()] {
        for _ in 0..2 {
            let response = site.get(&target).expect(500);
            assert!(response.text().contains("is damaged"), "{}", response.text());
            assert!(!response.text().contains("store/"), "paths of the server are nobody's business");
        }
    }
    assert!(site.get("/readyz").expect(503).text().contains("2 blobs are damaged"));
    site.get("/healthz").expect(200);
}

#[test]
fn tags_come_in_pages() {
    let site = Site::new();
    for tag in ["3", "1", "2", "10"] {
        site.image("registry.k8s.io/a", tag, tag);
    }
    let list = |target: &str| {
        let response = site.get(target).expect(200);
        let tags: Vec<String> = serde_json::from_value(response.json()["tags"].clone()).unwrap();
        (tags.join(" "), response.headers.get("link").cloned())
    };
    assert_eq!(list("/v2/registry.k8s.io/a/tags/list"), ("1 10 2 3".into(), None));
    assert_eq!(list("/v2/a/tags/list?ns=registry.k8s.io&last=10").0, "2 3");
    assert_eq!(list("/v2/registry.k8s.io/a/tags/list?n=0"), (String::new(), None));
    assert_eq!(list("/v2/registry.k8s.io/a/tags/list?n=4").1, None);
    let (tags, link) = list("/v2/a/tags/list?n=3&ns=registry.k8s.io");
    assert_eq!(tags, "1 10 2");
    let link = link.unwrap();
    let next = link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap();
    assert_eq!(list(next), ("3".into(), None));
}

#[test]
fn repositories_come_in_pages_with_their_original_names() {
    let site = Site::new();
    for repository in ["registry.k8s.io/pause", "docker.io/library/nginx", "app"] {
        site.image(repository, "1", "");
    }
    let response = site.get("/v2/_catalog").expect(200);
    let all =
        serde_json::json!({"repositories": ["app", "docker.io/library/nginx", "registry.k8s.io/pause"]});
    assert_eq!(response.json(), all);
    let response = site.get("/v2/_catalog?n=1&last=app").expect(200);
    assert_eq!(response.json()["repositories"], serde_json::json!(["docker.io/library/nginx"]));
    assert_eq!(response.header("link"), "</v2/_catalog?n=1&last=docker.io%2Flibrary%2Fnginx>; rel=\"next\"");
}

#[test]
fn referrers_with_filter() {
    let site = Site::new();
    let subject = site.image("a", "1", "").descriptor;
    for kind in ["a/sbom", "a/signature"] {
        let referrer = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
            "artifactType": kind, "config": subject, "layers": [], "subject": subject, "annotations": {"kind": kind}});
        site.manifest("a", None, &referrer);
    }
    let target = format!("/v2/a/referrers/{}", subject.digest);
    let response = site.get(&target).expect(200);
    assert_eq!(response.header("content-type"), media_type::OCI_INDEX);
    assert_eq!(response.json()["manifests"].as_array().unwrap().len(), 2);
    let response = site.get(&format!("{target}?artifactType=a%2Fsbom")).expect(200);
    assert_eq!(response.header("oci-filters-applied"), "artifactType");
    let manifests = &response.json()["manifests"];
    assert_eq!(manifests.as_array().unwrap().len(), 1);
    assert_eq!(manifests[0]["annotations"]["kind"], "a/sbom");
    // Nothing refers to it, and nobody knows the repository: an empty list all the same.
    let response = site.get(&format!("/v2/unknown/referrers/{}", subject.digest)).expect(200);
    assert_eq!(
        response.json(),
        serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": []})
    );
}

#[test]
fn many_referrers_come_in_pages() {
    let site = Site::new();
    let subject = site.image("a", "1", "").descriptor;
    for n in 0..5 {
        let referrer = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
            "config": subject, "layers": [], "subject": subject,
            "annotations": {"n": n.to_string(), "large": "x".repeat(1_500_000)}});
        site.manifest("a", None, &referrer);
    }
    let mut target = format!("/v2/a/referrers/{}", subject.digest);
    let mut found = Vec::new();
    for _ in 0..3 {
        let response = site.get(&target).expect(200);
        assert!(response.body.len() < 4 * 1024 * 1024);
        for manifest in response.json()["manifests"].as_array().unwrap() {
            found.push(manifest["annotations"]["n"].as_str().unwrap().to_owned());
        }
        let Some(link) = response.headers.get("link") else { break };
        target = link[1..link.find('>').unwrap()].to_owned();
    }
    found.sort();
    assert_eq!(found, ["0", "1", "2", "3", "4"]);
}
