//! Clients that cannot run here: the requests that their source says they make, in order, against a bundle from which the
//! layers of most platforms were left out.

use std::time::Duration;

use bytes::Bytes;
use dray::oci::{Descriptor, Digest, Reference, RepositoryName, media_type};
use dray::store::{Batch, Store, Writer};
use serde_json::{Value, json};

use crate::client::Connection;
use crate::support::command::Run;
use crate::support::site::{Serve, Site, dray};

const IMAGE: &str = "ghcr.io/acme/app:1";
/// What containerd accepts when it resolves a tag (containerd core/remotes/docker/resolver.go@v2.2.7).
const ACCEPT: &str = "application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, */*";

/// An upstream with one image as `BuildKit` makes them: an index with an entry for each platform, the attestation of each,
/// and one platform more in a nested index.
struct Upstream<'a, 'b> {
    writer: &'a Writer,
    batch: &'a mut Batch<'b>,
    name: RepositoryName,
}

impl Upstream<'_, '_> {
    fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::sha256(bytes);
        let mut target = self.writer.begin_blob(&digest, bytes.len() as u64).unwrap();
        target.write(bytes).unwrap();
        target.commit().unwrap();
        self.batch.link_blob(&self.name, &digest).unwrap();
        json!(Descriptor::of(media_type, bytes))
    }

    fn manifest(&mut self, media_type: &str, mut document: Value) -> Value {
        document["schemaVersion"] = json!(2);
        document["mediaType"] = json!(media_type);
        let bytes = Bytes::from(document.to_string());
        let descriptor = Descriptor::of(media_type, &bytes);
        self.batch.put_manifest(&self.name, &descriptor.digest, media_type, &bytes).unwrap();
        json!(descriptor)
    }

    /// An image, or with the layer of an attestation that.
    fn image(&mut self, platform: &Value, layer_type: &str) -> Value {
        let layer = self.blob(layer_type, format!("layer for {platform}").as_bytes());
        let config = self.blob(media_type::OCI_CONFIG, platform.to_string().as_bytes());
        let mut entry = self.manifest(media_type::OCI_MANIFEST, json!({"config": config, "layers": [layer]}));
        entry["platform"] = platform.clone();
        entry
    }

    fn attestation(&mut self, of: &Value) -> Value {
        let platform = json!({"os": "unknown", "architecture": "unknown"});
        let layer = self.blob("application/vnd.in-toto+json", of["digest"].to_string().as_bytes());
        let config = self.blob(media_type::OCI_CONFIG, platform.to_string().as_bytes());
        let mut entry = self.manifest(media_type::OCI_MANIFEST, json!({"config": config, "layers": [layer]}));
        entry["platform"] = platform;
        entry["annotations"] = json!({
            "vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": of["digest"],
        });
        entry
    }

    fn index(&mut self, entries: &[Value]) -> Value {
        self.manifest(media_type::OCI_INDEX, json!({"manifests": entries}))
    }

    fn publish(&mut self) {
        let platforms = [
            json!({"os": "linux", "architecture": "amd64"}),
            json!({"os": "linux", "architecture": "arm64"}),
            json!({"os": "windows", "architecture": "amd64", "os.version": "10.0.20348.1"}),
        ];
        let mut entries: Vec<Value> =
            platforms.iter().map(|platform| self.image(platform, media_type::OCI_LAYER_GZIP)).collect();
        let attestations: Vec<Value> = entries.iter().map(|entry| self.attestation(entry)).collect();
        entries.extend(attestations);
        let nested = self.image(&json!({"os": "linux", "architecture": "s390x"}), media_type::OCI_LAYER_GZIP);
        entries.push(self.index(&[nested]));
        let root: Descriptor = serde_json::from_value(self.index(&entries)).unwrap();
        let reference: Reference = IMAGE.parse().unwrap();
        self.batch.set_tag(&self.name, reference.tag().unwrap(), &root).unwrap();
    }
}

/// A bundle of the image for linux/amd64 and this runtime, served in place and from a store.
fn serve(runtime: &str) -> (Site, [Serve; 2]) {
    let site = Site::new(&format!(
        "apiVersion: dray.dev/v1alpha1\nkind: Bundle\nmetadata: {{name: plant-7}}\nspec:\n  nodes: [linux/amd64]\n  \
         runtimes: [{runtime}]\n  images: ['{IMAGE}']\n"
    ));
    let store = Store::create(&site.path("upstream")).unwrap();
    let writer = store.writer("a test", Duration::ZERO).unwrap();
    let mut batch = writer.batch();
    let name = IMAGE.parse::<Reference>().unwrap().name().clone();
    Upstream { writer: &writer, batch: &mut batch, name }.publish();
    batch.commit().unwrap();
    drop(writer);
    let upstream = Serve::start(&["--store", site.path("upstream").to_str().unwrap()]);
    let bundle = site.bundle(upstream.address());
    site.import(&bundle, &site.path("store")).succeed();
    let key = site.path("plant.pub");
    let served = [
        Serve::start(&["--store", site.path("store").to_str().unwrap()]),
        Serve::start(&["--bundle", bundle.to_str().unwrap(), "--trust", key.to_str().unwrap()]),
    ];
    (site, served)
}

/// A client of containerd's code that pulls the image from a mirror.
struct Client {
    connection: Connection,
}

impl Client {
    fn new(serve: &Serve) -> Self {
        Self { connection: Connection::open(serve.address().parse().unwrap()) }
    }

    /// Resolves the tag and gets what it means (`dockerResolver.Resolve`, `dockerFetcher.Fetch`).
    fn root(&mut self) -> Value {
        let target = "/v2/acme/app/manifests/1?ns=ghcr.io";
        let head = self.connection.request("HEAD", target, &[("Accept", ACCEPT)], b"").expect(200);
        let root = json!({
            "mediaType": head.header("content-type"), "digest": head.header("docker-content-digest"),
            "size": head.header("content-length").parse::<u64>().unwrap(),
        });
        self.fetch("manifests", &root)
    }

    /// Gets the content of a descriptor, and checks it as `content.Copy` does.
    fn get(&mut self, kind: &str, descriptor: &Value) -> Vec<u8> {
        let digest = descriptor["digest"].as_str().unwrap();
        let target = format!("/v2/acme/app/{kind}/{digest}?ns=ghcr.io");
        let accept = format!("{}, */*", descriptor["mediaType"].as_str().unwrap());
        let answer = self.connection.request("GET", &target, &[("Accept", &accept)], b"").expect(200);
        assert_eq!(answer.body.len() as u64, descriptor["size"].as_u64().unwrap());
        assert_eq!(Digest::sha256(&answer.body).to_string(), digest);
        answer.body
    }

    fn fetch(&mut self, kind: &str, descriptor: &Value) -> Value {
        serde_json::from_slice(&self.get(kind, descriptor)).unwrap()
    }

    /// Gets the configuration and every layer of a manifest.
    fn whole(&mut self, manifest: &Value) {
        self.get("blobs", &manifest["config"]);
        for layer in manifest["layers"].as_array().unwrap() {
            self.get("blobs", layer);
        }
    }

    /// What `ctr images pull` gets of an index since containerd 2.0: every manifest, the layers of those that match or
    /// state no platform, and the configuration of the others (`FilterManifestByPlatformHandler` in containerd
    /// core/remotes/handlers.go@v2.2.7, set by `WithAllMetadata` in cmd/ctr/commands/images/pull.go).
    fn pull_all_metadata(&mut self, index: &Value) -> usize {
        let mut manifests = 0;
        for entry in index["manifests"].as_array().unwrap() {
            let document = self.fetch("manifests", entry);
            let platform = &entry["platform"];
            if document.get("manifests").is_some() {
                manifests += self.pull_all_metadata(&document);
            } else if platform.is_null() || (platform["os"] == "linux" && platform["architecture"] == "amd64")
            {
                self.whole(&document);
            } else if document["config"]["mediaType"] == media_type::OCI_CONFIG {
                self.get("blobs", &document["config"]);
            }
            manifests += 1;
        }
        manifests
    }
}

#[test]
fn ctr_2_reads_every_platform_of_a_trimmed_index() {
    let (_site, served) = serve("containerd@2.2");
    for serve in &served {
        let mut client = Client::new(serve);
        let root = client.root();
        // Three images with their attestations, and one in a nested index.
        assert_eq!(client.pull_all_metadata(&root), 8);
        // The layers of the others are not here.
        let arm64 = client.fetch("manifests", &root["manifests"][1]);
        let layer = arm64["layers"][0]["digest"].as_str().unwrap();
        let target = format!("/v2/acme/app/blobs/{layer}?ns=ghcr.io");
        let missing = client.connection.request("GET", &target, &[], b"").expect(404);
        assert_eq!(missing.code(), "BLOB_UNKNOWN");
    }
}

#[test]
fn docker_29_gets_the_attestation_and_its_referrers() {
    let (_site, served) = serve("docker-containerd@29.3");
    for serve in &served {
        let mut client = Client::new(serve);
        let root = client.root();
        let image = client.fetch("manifests", &root["manifests"][0]);
        client.whole(&image);
        // `referrersForPull` in moby daemon/containerd/image_pull.go@docker-v29.3.1: the attestation as a whole, then what
        // refers to it (`FetchReferrers` in containerd core/remotes/docker/referrers.go@v2.2.1).
        let attestation = &root["manifests"][3];
        let manifest = client.fetch("manifests", attestation);
        client.whole(&manifest);
        let digest = attestation["digest"].as_str().unwrap();
        let target = format!("/v2/acme/app/referrers/{digest}?ns=ghcr.io");
        let accept = format!("{}, */*", media_type::OCI_INDEX);
        let referrers = client.connection.request("GET", &target, &[("Accept", &accept)], b"").expect(200);
        assert_eq!(referrers.header("content-type"), media_type::OCI_INDEX);
        assert_eq!(referrers.json()["manifests"], json!([]));
    }
}

#[test]
fn without_child_metadata_the_rest_is_unknown() {
    let (site, _served) = serve("containerd@2.2");
    let definition = site.path("bundle.yaml");
    let text = std::fs::read_to_string(&definition).unwrap() + "  childMetadata: needed\n";
    std::fs::write(&definition, text).unwrap();
    let upstream = Serve::start(&["--store", site.path("upstream").to_str().unwrap()]);
    let bundle = site.path("needed.tar");
    site.lock(upstream.address()).succeed();
    site.build(upstream.address(), &bundle).succeed();
    let key = site.path("plant.pub");
    let serve = Serve::start(&["--bundle", bundle.to_str().unwrap(), "--trust", key.to_str().unwrap()]);
    let mut client = Client::new(&serve);
    let root = client.root();
    let image = client.fetch("manifests", &root["manifests"][0]);
    client.whole(&image);
    let other = root["manifests"][1]["digest"].as_str().unwrap();
    let target = format!("/v2/acme/app/manifests/{other}?ns=ghcr.io");
    client.connection.request("GET", &target, &[], b"").expect(404);
    let listed = dray().arg("inspect").arg(&bundle).arg("--images").succeed();
    assert!(!listed.contains("without layers"), "{listed}");
}
