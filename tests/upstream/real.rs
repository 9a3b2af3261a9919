//! Debian's `docker-registry` with users and passwords, filled by skopeo.

use std::fs;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use dray::oci::{Descriptor, Digest, Document, Reference, media_type};
use dray::upstream::{CredentialStore, Options, Upstream};
use futures_util::TryStreamExt as _;

use crate::server::{content, quick};
use crate::support::command::Run as _;
use crate::support::registry::{Access, Registry};

/// `robot:s3cret`
const AUTH: &str = "cm9ib3Q6czNjcmV0";

/// Writes an image with one layer as an OCI layout, and returns the bytes of its manifest.
fn write_layout(folder: &Path, layer: &[u8]) -> Vec<u8> {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let blob = |media_type: &str, bytes: &[u8]| {
        let descriptor = Descriptor::of(media_type, bytes);
        fs::write(blobs.join(descriptor.digest.hex()), bytes).unwrap();
        serde_json::to_value(descriptor).unwrap()
    };
    let diff_id = Digest::sha256(layer);
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}
    });
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": blob(media_type::OCI_CONFIG, config.to_string().as_bytes()),
        "layers": [blob("application/vnd.oci.image.layer.v1.tar", layer)],
    })
    .to_string();
    let index = serde_json::json!({
        "schemaVersion": 2, "manifests": [blob(media_type::OCI_MANIFEST, manifest.as_bytes())]
    });
    fs::write(folder.join("index.json"), index.to_string()).unwrap();
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    manifest.into_bytes()
}

/// A tar with one file that holds `content`, so that clients take it for a layer.
fn tar_of(content: &[u8]) -> Bytes {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    archive.append_data(&mut header, "file", content).unwrap();
    archive.into_inner().unwrap().into()
}

fn options(registry: &Registry, credentials: Option<&str>) -> Options {
    let mut options = quick();
    options.plain_http.insert(registry.address().to_owned());
    let mut store = CredentialStore::new();
    match credentials {
        None => store.add_absent("/absent/auth.json"),
        Some(auth) => {
            // Under a path, as podman allows it.
            let key = format!("{}/registry.k8s.io", registry.address());
            store
                .add("/there/auth.json", format!(r#"{{"auths":{{"{key}":{{"auth":"{auth}"}}}}}}"#).as_bytes())
                .unwrap();
        }
    }
    options.credentials = store;
    options
}

fn connect(registry: &Registry, credentials: Option<&str>) -> Upstream {
    Upstream::new(options(registry, credentials)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn debians_registry_with_a_password() {
    let folder = tempfile::tempdir().unwrap();
    let layer = tar_of(&content(3_000_000));
    let manifest = write_layout(folder.path(), &layer);
    let data = tempfile::tempdir().unwrap();
    {
        let writable = Registry::start(data.path(), Access::Full);
        Command::new("skopeo")
            .args([
                "copy",
                "--preserve-digests",
                "--dest-tls-verify=false",
                &format!("oci:{}", folder.path().display()),
            ])
            .arg(writable.docker("registry.k8s.io/app:1.0"))
            .succeed();
    }
    let registry = Registry::start(data.path(), Access::Password("robot", "s3cret"));
    let image: Reference = format!("{}/registry.k8s.io/app:1.0", registry.address()).parse().unwrap();

    let upstream = connect(&registry, Some(AUTH));
    let fetched = upstream.manifest(&image).await.unwrap();
    assert_eq!(fetched.document.raw(), &manifest);
    assert_eq!(fetched.digest, Digest::sha256(&manifest));
    let Document::Image(document) = &fetched.document else { panic!("an index came out of one image") };
    let config = upstream.small_blob(image.name(), &document.config).await.unwrap();
    assert!(document.config.digest.matches(&config));
    for offset in [0, 2_999_999] {
        let stream = upstream.blob(image.name(), &document.layers[0], offset).await.unwrap();
        let chunks: Vec<Bytes> = stream.try_collect().await.unwrap();
        assert_eq!(chunks.concat(), layer[usize::try_from(offset).unwrap()..]);
    }
    let tags = upstream.tags(image.name()).await.unwrap();
    assert_eq!(tags.iter().map(dray::oci::Tag::as_str).collect::<Vec<_>>(), ["1.0"]);
    assert!(upstream.referrers(image.name(), &fetched.digest).await.unwrap().is_empty());

    let other: Reference = format!("{}:2.0", image.name()).parse().unwrap();
    let error = upstream.manifest(&other).await.unwrap_err();
    assert!(error.is_missing() && error.to_string().contains("no such tag"), "{error}");

    let error = connect(&registry, Some("cm9ib3Q6b2xk")).manifest(&image).await.unwrap_err();
    assert!(error.is_auth() && error.to_string().contains("/there/auth.json"), "{error}");
    let error = connect(&registry, None).manifest(&image).await.unwrap_err();
    assert!(error.is_auth() && error.hint().unwrap().contains("/absent/auth.json"), "{error}");

    let address = registry.address().to_owned();
    let options = options(&registry, Some(AUTH));
    drop(registry);
    let error = Upstream::new(options).unwrap().manifest(&image).await.unwrap_err();
    assert!(error.to_string().contains(&format!("no connection to {address}")), "{error}");
}
