//! The ground that the other tests stand on: the upstream holds what it says, in the shapes that real registries have.

mod support;

use serde_json::Value;
use support::{
    containerd::Containerd,
    upstream::{self, BIG, BIG_LAYER, HUB, PACKAGE, PAUSE_DOCKER, PAUSE_OCI, SINGLE, SPARSE, WINDOWS, ZSTD},
};

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("the upstream serves JSON")
}

#[test]
fn the_upstream_holds_every_shape() {
    let upstream = upstream::start();
    for (name, media_type) in [
        (PAUSE_DOCKER, "application/vnd.docker.distribution.manifest.list.v2+json"),
        (PAUSE_OCI, "application/vnd.oci.image.index.v1+json"),
    ] {
        let index = json(&upstream.raw(name));
        assert_eq!(index["mediaType"], media_type);
        let versions: Vec<_> = index["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|entry| entry["platform"]["os.version"].as_str())
            .collect();
        assert_eq!(versions, WINDOWS);
    }
    assert_eq!(json(&upstream.raw(HUB))["manifests"].as_array().unwrap().len(), 2);
    assert_eq!(
        json(&upstream.raw(SINGLE))["layers"][0]["mediaType"],
        "application/vnd.oci.image.layer.v1.tar+gzip"
    );
    assert_eq!(
        json(&upstream.raw(PACKAGE))["mediaType"],
        "application/vnd.docker.distribution.manifest.v2+json"
    );
    assert_eq!(json(&upstream.raw(PACKAGE))["layers"].as_array().unwrap().len(), 2);
    assert_eq!(
        json(&upstream.raw(ZSTD))["layers"][0]["mediaType"],
        "application/vnd.oci.image.layer.v1.tar+zstd"
    );
}

#[test]
fn the_sparse_index_names_a_manifest_that_is_gone() {
    let upstream = upstream::start();
    let index = json(&upstream.raw(SPARSE));
    let (name, _) = SPARSE.rsplit_once(':').unwrap();
    let child = |position: usize| index["manifests"][position]["digest"].as_str().unwrap().to_owned();
    upstream.raw(&format!("{name}@{}", child(0)));
    let gone = std::process::Command::new("skopeo")
        .args(["inspect", "--raw", "--tls-verify=false", &upstream.docker(&format!("{name}@{}", child(1)))])
        .output()
        .unwrap();
    assert!(!gone.status.success());
}

#[test]
fn containerd_pulls_from_the_upstream_and_runs_a_container() {
    let upstream = upstream::start();
    let containerd = Containerd::start();
    containerd
        .mirror_by_path("registry.k8s.io", &format!("http://{}/v2/registry.k8s.io", upstream.address()));
    containerd.pull("linux/amd64", PAUSE_DOCKER);
    assert_eq!(containerd.run(PAUSE_DOCKER, &["/bin/busybox", "echo", "hello"]), "hello\n");
}

#[test]
fn the_big_layer_does_not_compress_and_is_not_compressed() {
    let upstream = upstream::big();
    let manifest = json(&upstream.raw(BIG));
    let layer = &manifest["layers"][0];
    assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar");
    assert!(layer["size"].as_u64().unwrap() > BIG_LAYER);
}
