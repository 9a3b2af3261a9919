//! The ways in which clients say which image they mean.

use std::collections::BTreeMap;

use dray::oci::Digest;
use dray::registry::{Config, Naming};
use jiff::Timestamp;

use crate::site::Site;

#[track_caller]
fn finds(site: &Site, target: &str, host: &str, digest: &str) {
    let response = site.get_with(target, &[("Host", host)]);
    assert_eq!(response.status, 200, "{target} at {host}: {}", response.text());
    assert_eq!(response.header("docker-content-digest"), digest, "{target} at {host}");
}

#[test]
fn an_image_is_found_in_every_way_that_clients_ask() {
    let site = Site::new();
    let pause = site.image("registry.k8s.io/pause", "3.9", "pause").digest();
    let coredns = site.image("registry.k8s.io/coredns/coredns", "v1.11.3", "coredns").digest();
    let nginx = site.image("docker.io/library/nginx", "1.27", "nginx").digest();
    let mirrored = site.image("docker.io/rancher/mirrored-pause", "3.6", "mirrored").digest();
    let here = "site.local:5000";

    finds(&site, "/v2/pause/manifests/3.9?ns=registry.k8s.io", here, &pause);
    finds(&site, "/v2/registry.k8s.io/pause/manifests/3.9", here, &pause);
    finds(&site, "/v2/registry.k8s.io/pause/manifests/3.9?ns=registry.k8s.io", here, &pause);
    finds(&site, "/v2/pause/manifests/3.9", "registry.k8s.io", &pause);
    finds(&site, "/v2/pause/manifests/3.9", "registry.k8s.io:443", &pause);
    finds(&site, "/v2/pause/manifests/3.9", here, &pause);
    finds(&site, "/v2/pause/manifests/3.9?ns=k8s.gcr.io", here, &pause);
    finds(&site, &format!("/v2/pause/manifests/{pause}"), here, &pause);
    finds(&site, "/v2/registry.k8s.io/coredns/manifests/v1.11.3", here, &coredns);
    finds(&site, "/v2/coredns/manifests/v1.11.3", here, &coredns);
    finds(&site, "/v2/nginx/manifests/1.27?ns=docker.io", here, &nginx);
    finds(&site, "/v2/library/nginx/manifests/1.27", "registry-1.docker.io", &nginx);
    finds(&site, "/v2/nginx/manifests/1.27", here, &nginx);
    finds(&site, "/v2/rancher/mirrored-pause/manifests/3.6", here, &mirrored);
}

/// Every other name that an image is known by, in every way to say it.
#[test]
fn other_names_lead_to_the_same_image() {
    let naming = Naming { prefixes: vec!["infra/k0s".to_owned()], ..Naming::default() };
    let site = Site::with(Config { naming, ..Config::default() });
    let here = "site.local:5000";
    for (repository, aliases) in [
        ("registry.k8s.io/pause", &["k8s.gcr.io/pause"][..]),
        ("registry.k8s.io/coredns/coredns", &["registry.k8s.io/coredns", "k8s.gcr.io/coredns"]),
        (
            "docker.io/library/nginx",
            &[
                "docker.io/nginx",
                "index.docker.io/nginx",
                "index.docker.io/library/nginx",
                "registry-1.docker.io/nginx",
                "registry.hub.docker.com/library/nginx",
            ],
        ),
    ] {
        let digest = site.image(repository, "1", repository).digest();
        for alias in aliases.iter().chain([&repository]) {
            let (host, path) = alias.split_once('/').unwrap();
            finds(&site, &format!("/v2/{path}/manifests/1?ns={host}"), here, &digest);
            finds(&site, &format!("/v2/{alias}/manifests/1"), here, &digest);
            finds(&site, &format!("/v2/{alias}/manifests/1?ns={host}"), here, &digest);
            finds(&site, &format!("/v2/{path}/manifests/1"), host, &digest);
            finds(&site, &format!("/v2/{path}/manifests/1"), here, &digest);
            // With what k0s puts before it, once and again.
            for prefix in ["infra/k0s", "infra/k0s/infra/k0s"] {
                finds(&site, &format!("/v2/{prefix}/{path}/manifests/1"), here, &digest);
                finds(&site, &format!("/v2/{prefix}/{alias}/manifests/1"), here, &digest);
            }
        }
    }
}

#[test]
fn the_namespace_is_decisive() {
    let site = Site::new();
    site.image("registry.k8s.io/pause", "3.9", "pause");
    let response = site.get("/v2/pause/manifests/3.9?ns=quay.io").expect(404);
    assert_eq!(response.code(), "MANIFEST_UNKNOWN");
    assert_eq!(response.header("oci-namespace"), "quay.io");
    site.get("/v2/other/pause/manifests/3.9").expect(404);
}

#[test]
fn what_could_be_either_is_refused_and_named() {
    let site = Site::new();
    let first = site.image("docker.io/calico/node", "v3", "one");
    site.image("quay.io/calico/node", "v3", "two");
    site.image("quay.io/calico/node", "v4", "only there");
    for repository in ["docker.io/calico/node", "quay.io/calico/node"] {
        site.image(repository, "same", "same");
    }
    let response = site.get("/v2/calico/node/manifests/v3").expect(404);
    assert_eq!(response.code(), "NAME_UNKNOWN");
    let candidates = &response.json()["errors"][0]["detail"]["candidates"];
    assert_eq!(*candidates, serde_json::json!(["docker.io/calico/node", "quay.io/calico/node"]));
    // Nothing is in doubt where only one has it, where both have the same, or where the digest says it.
    site.get("/v2/calico/node/manifests/v4").expect(200);
    site.get("/v2/calico/node/manifests/same").expect(200);
    site.get(&format!("/v2/calico/node/manifests/{}", first.digest())).expect(200);
    site.get("/v2/calico/node/tags/list").expect(404);
}

#[test]
fn hosts_and_prefixes_can_be_told() {
    let naming = Naming {
        hosts: BTreeMap::from([("hub.site.local".to_owned(), "docker.io".to_owned())]),
        prefixes: vec!["k8s-mirror".to_owned()],
    };
    let site = Site::with(Config { naming, ..Config::default() });
    let nginx = site.image("docker.io/library/nginx", "1", "nginx").digest();
    let pause = site.image("quay.io/k0sproject/pause", "3.9", "pause").digest();
    finds(&site, "/v2/nginx/manifests/1", "hub.site.local", &nginx);
    finds(&site, "/v2/k8s-mirror/k0sproject/pause/manifests/3.9", "site:5000", &pause);
    finds(&site, "/v2/k8s-mirror/k8s-mirror/k0sproject/pause/manifests/3.9", "site:5000", &pause);
}

#[test]
fn blobs_tags_and_referrers_are_found_alike() {
    let site = Site::new();
    let pause = site.image("registry.k8s.io/pause", "3.9", "pause");
    let blob = site.blob("registry.k8s.io/pause", b"layer");
    let sbom = serde_json::json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "a/sbom", "config": pause.descriptor, "layers": [], "subject": pause.descriptor});
    site.manifest("registry.k8s.io/pause", None, &sbom);
    for (path, query) in [("pause", "?ns=registry.k8s.io"), ("registry.k8s.io/pause", ""), ("pause", "")] {
        let response = site.get(&format!("/v2/{path}/blobs/{blob}{query}")).expect(200);
        assert_eq!(response.body, b"layer");
        let response = site.get(&format!("/v2/{path}/tags/list{query}")).expect(200);
        assert_eq!(response.json(), serde_json::json!({"name": "registry.k8s.io/pause", "tags": ["3.9"]}));
        let response = site.get(&format!("/v2/{path}/referrers/{}{query}", pause.digest())).expect(200);
        assert_eq!(response.json()["manifests"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn what_is_missing_is_remembered_until_it_comes() {
    let mut site = Site::new();
    site.restart();
    let digest = Digest::sha256(b"wanted");
    let before = Timestamp::now();
    let by_digest = format!("/v2/b/manifests/{digest}?ns=quay.io");
    for target in ["/v2/pause/manifests/3.9?ns=registry.k8s.io", "/v2/a/manifests/1?ns=quay.io", &by_digest] {
        site.head(target).expect(404);
        site.get_with(target, &[("User-Agent", "containerd/2.1")]).expect(404);
    }
    let wants = site.get("/api/v1/wants").expect(200).json()["wants"].clone();
    let references: Vec<_> = (0..3).map(|nth| wants[nth]["reference"].clone()).collect();
    assert_eq!(references, ["quay.io/a:1", &format!("quay.io/b@{digest}"), "registry.k8s.io/pause:3.9"]);
    let pause = &wants[2];
    assert_eq!((&pause["count"], &pause["client"]), (&2.into(), &"127.0.0.1".into()));
    assert_eq!(pause["userAgent"], "containerd/2.1");
    let [first, last] =
        ["first", "last"].map(|field| pause[field].as_str().unwrap().parse::<Timestamp>().unwrap());
    assert!(before <= first && first < last && last <= Timestamp::now());
    site.image("quay.io/a", "1", "");
    let left = format!("quay.io/b@{digest}\nregistry.k8s.io/pause:3.9\n");
    assert_eq!(site.get("/api/v1/wants.txt").expect(200).text(), left);
    // They are on disk when the server stops.
    site.restart();
    assert_eq!(site.get("/api/v1/wants.txt").expect(200).text(), left);
}
