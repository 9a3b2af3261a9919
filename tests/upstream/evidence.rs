//! Signatures and SBOMs from Debian's registry, which knows no referrers API, to a site that answers it.

use std::process::Command;

use bytes::Bytes;
use dray::bundle::Bundle;
use dray::oci::{Descriptor, Digest, RepositoryName, media_type};
use http::header::{CONTENT_TYPE, LOCATION};
use reqwest::{Client, Response};
use serde_json::{Value, json};

use crate::support::command::Run as _;
use crate::support::registry::{Access, Registry};
use crate::ways_to_serve;

/// Pushes to one repository of a registry.
struct Push {
    client: Client,
    base: String,
}

impl Push {
    async fn send(&self, request: reqwest::RequestBuilder) -> Response {
        request.send().await.unwrap().error_for_status().unwrap()
    }

    async fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let started = self.send(self.client.post(format!("{}/blobs/uploads/", self.base))).await;
        let location = started.headers()[LOCATION].to_str().unwrap();
        let digest = Digest::sha256(bytes);
        let put = self.client.put(format!("{location}&digest={digest}")).body(bytes.to_vec());
        self.send(put).await;
        json!(Descriptor::of(media_type, bytes))
    }

    async fn manifest(&self, tag: Option<&str>, media_type: &str, manifest: &Value) -> Value {
        let bytes = Bytes::from(manifest.to_string());
        let descriptor = Descriptor::of(media_type, &bytes);
        let name = tag.map_or_else(|| descriptor.digest.to_string(), str::to_owned);
        let put = self.client.put(format!("{}/manifests/{name}", self.base)).header(CONTENT_TYPE, media_type);
        self.send(put.body(bytes)).await;
        json!(descriptor)
    }

    /// An image or an artifact with one layer.
    async fn image(&self, tag: Option<&str>, config: Value, layer: &[u8], subject: Option<&Value>) -> Value {
        let layer = self.blob("application/vnd.oci.image.layer.v1.tar", layer).await;
        let mut manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": [layer]});
        if let Some(subject) = subject {
            manifest["subject"] = subject.clone();
            manifest["artifactType"] = json!("application/spdx+json");
        }
        self.manifest(tag, media_type::OCI_MANIFEST, &manifest).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_registry_without_the_referrers_api_to_a_site_with_it() {
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path(), Access::Full);
    let push =
        Push { client: Client::new(), base: format!("http://{}/v2/ghcr.io/acme/app", registry.address()) };
    let config = push
        .blob(
            media_type::OCI_CONFIG,
            br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#,
        )
        .await;
    let empty = push.blob(media_type::OCI_EMPTY, b"{}").await;
    let root = push.image(Some("1.0"), config, b"layer", None).await;
    let hex = root["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let signature = push.image(Some(&format!("sha256-{hex}.sig")), empty.clone(), b"signature", None).await;
    let sbom = push.image(None, empty, b"sbom", Some(&root)).await;
    let list = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [sbom]});
    push.manifest(Some(&format!("sha256-{hex}")), media_type::OCI_INDEX, &list).await;

    let home = tempfile::tempdir().unwrap();
    let definition = home.path().join("app.yaml");
    let text = "apiVersion: dray.dev/v1alpha1\nkind: Bundle\nmetadata: {name: app}\nspec:\n  \
                nodes: [linux/amd64]\n  evidence: true\n  images: ['ghcr.io/acme/app:1.0']\n";
    std::fs::write(&definition, text).unwrap();
    let output = home.path().join("app.tar");
    let mut build = Command::new(env!("CARGO_BIN_EXE_dray"));
    build.env_clear().env("HOME", home.path()).arg("build").arg("-f").arg(&definition).arg("-o").arg(&output);
    build.args(["--upstream", &format!("ghcr.io=http://{}/ghcr.io", registry.address())]).succeed();

    let bundle = Bundle::open(&output).unwrap();
    assert_eq!(bundle.lock().images[0].evidence.len(), 2);
    let name: RepositoryName = "ghcr.io/acme/app".parse().unwrap();
    let subject: Digest = root["digest"].as_str().unwrap().parse().unwrap();
    for content in ways_to_serve(bundle, home.path()) {
        let tag = format!("sha256-{hex}.sig").parse().unwrap();
        let found = content.resolve(&name, &tag).unwrap().unwrap();
        assert_eq!(json!(found.digest), signature["digest"]);
        let blob = content.blob(&name, &Digest::sha256(b"signature")).unwrap().unwrap();
        assert_eq!(blob.size(), 9);
        let referrers = content.referrers(&name, &subject).unwrap();
        assert_eq!(json!(referrers[0].digest), sbom["digest"]);
        assert_eq!(referrers[0].artifact_type.as_deref(), Some("application/spdx+json"));
        assert!(content.blob(&name, &Digest::sha256(b"sbom")).unwrap().is_some());
    }
}
