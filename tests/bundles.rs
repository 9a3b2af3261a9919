//! The definitions in `bundles/`: each resolves completely where every registry answers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use bytes::Bytes;
use dray::catalog::{Catalog, Severity};
use dray::oci::{Descriptor, Digest, Document, Reference, RepositoryName, media_type};
use dray::resolve::{Definition, Resolution, ResolveError, ResolveOptions, resolve};
use dray::upstream::{Fetched, Manifests, Missing, Problem, UpstreamError};
use serde_json::{Value, json};
use url::Url;

/// What Linux nodes may have.
const LINUX: [(&str, &str); 4] = [("amd64", ""), ("arm64", ""), ("arm", "v7"), ("riscv64", "")];
/// What Windows nodes may have, where the catalog does not know better.
const WINDOWS: [&str; 3] = ["10.0.17763", "10.0.20348", "10.0.26100"];

/// An upstream that has an index with every platform for any reference, and pause images with the Windows entries that
/// the catalog says they have.
struct Everything {
    catalog: Catalog,
    /// Manifests and configurations that were named in answers.
    documents: Mutex<BTreeMap<Digest, Bytes>>,
    asked: Mutex<Vec<String>>,
}

impl Everything {
    fn new() -> Self {
        let catalog = Catalog::builtin().expect("the catalog is consistent");
        Self { catalog, documents: Mutex::default(), asked: Mutex::default() }
    }

    /// Keeps a document and describes it.
    fn keep(&self, media_type: &str, content: &Value) -> Value {
        let bytes = Bytes::from(content.to_string());
        let digest = Digest::sha256(&bytes);
        let size = bytes.len();
        self.documents.lock().expect("no test panics holding it").insert(digest.clone(), bytes);
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": size})
    }

    /// An entry of an index, with its manifest, configuration and one layer.
    fn entry(&self, name: &str, platform: Value) -> Value {
        let config = self.keep(media_type::OCI_CONFIG, &platform);
        let layer = Digest::sha256(format!("{name} {platform}").as_bytes()).to_string();
        let layers = json!([{"mediaType": media_type::OCI_LAYER_GZIP, "digest": layer, "size": 1000}]);
        let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": layers});
        let mut entry = self.keep(media_type::OCI_MANIFEST, &manifest);
        entry["platform"] = platform;
        entry
    }

    fn index(&self, reference: &Reference) -> Value {
        let name = reference.to_string();
        let linux = LINUX.iter().map(|(architecture, variant)| match *variant {
            "" => json!({"os": "linux", "architecture": architecture}),
            variant => json!({"os": "linux", "architecture": architecture, "variant": variant}),
        });
        let builds: Vec<String> = match self.catalog.windows().pause(reference) {
            Some(pause) => pause.builds.iter().map(ToString::to_string).collect(),
            None => WINDOWS.map(str::to_owned).to_vec(),
        };
        let windows = builds.iter().map(
            |build| json!({"os": "windows", "architecture": "amd64", "os.version": format!("{build}.1000")}),
        );
        let entries: Vec<Value> = linux.chain(windows).map(|platform| self.entry(&name, platform)).collect();
        json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries})
    }

    fn document(&self, digest: &Digest) -> Bytes {
        self.documents.lock().expect("no test panics holding it")[digest].clone()
    }
}

fn fetched(media_type: &str, bytes: Bytes) -> Fetched {
    Fetched {
        digest: Digest::sha256(&bytes),
        document: Document::parse(Some(media_type), bytes).expect("the test writes valid documents"),
    }
}

impl Manifests for Everything {
    async fn manifest(&self, reference: &Reference) -> Result<Fetched, UpstreamError> {
        self.asked.lock().expect("no test panics holding it").push(reference.to_string());
        Ok(fetched(media_type::OCI_INDEX, Bytes::from(self.index(reference).to_string())))
    }

    async fn manifest_by_digest(
        &self,
        _: &RepositoryName,
        digest: &Digest,
    ) -> Result<Fetched, UpstreamError> {
        Ok(fetched(media_type::OCI_MANIFEST, self.document(digest)))
    }

    async fn small_blob(&self, _: &RepositoryName, blob: &Descriptor) -> Result<Bytes, UpstreamError> {
        Ok(self.document(&blob.digest))
    }

    async fn blob_size(&self, _: &RepositoryName, digest: &Digest) -> Result<u64, UpstreamError> {
        Ok(self.document(digest).len() as u64)
    }

    async fn referrers(&self, _: &RepositoryName, _: &Digest) -> Result<Vec<Descriptor>, UpstreamError> {
        Ok(Vec::new())
    }

    async fn file_size(&self, url: &Url) -> Result<u64, UpstreamError> {
        Err(UpstreamError::read(url.as_str(), "files", Problem::Missing(Missing::File)))
    }
}

async fn resolved(definition: &Definition, upstream: &Everything) -> Result<Resolution, ResolveError> {
    let options = ResolveOptions {
        allow_missing: BTreeSet::new(),
        allow_problems: BTreeSet::new(),
        concurrency: 4,
        day: jiff::civil::date(2026, 9, 1),
        progress: &|_, _| {},
    };
    resolve(definition, &upstream.catalog, upstream, options).await
}

fn definitions() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("bundles");
    let entries = std::fs::read_dir(directory).expect("bundles/ is there");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    paths
}

#[tokio::test]
async fn every_definition_resolves() {
    assert_eq!(definitions().len(), 6);
    for path in definitions() {
        let upstream = Everything::new();
        let definition = Definition::read(&path, &upstream.catalog).unwrap_or_else(|error| panic!("{error}"));
        let stem = path.file_stem().expect("a file").to_str().expect("plain names");
        assert_eq!(definition.name.as_str(), stem, "a bundle has the name of its file");
        let resolution =
            resolved(&definition, &upstream).await.unwrap_or_else(|error| panic!("{stem}: {error}"));
        let blocked = resolution.problems.iter().find(|known| known.problem.severity == Severity::Blocker);
        assert!(blocked.is_none(), "{stem}: {blocked:?}");
        for kind in &definition.nodes {
            let kept = |image: &dray::resolve::LockedImage| {
                image.children.iter().any(|child| child.nodes.contains(kind))
            };
            assert!(resolution.lock.images.iter().any(kept), "{stem}: nothing for {kind}");
        }
        let asked = upstream.asked.lock().expect("no test panics holding it").clone();
        let distinct: BTreeSet<&String> = asked.iter().collect();
        assert_eq!(asked.len(), distinct.len(), "{stem}: a reference is read once");
    }
}

#[tokio::test]
async fn the_mixed_update_carries_both_releases_for_every_windows_build() {
    let upstream = Everything::new();
    let path = definitions().into_iter().find(|path| path.ends_with("k0s-mixed.yaml")).expect("it is there");
    let definition = Definition::read(&path, &upstream.catalog).expect("valid");
    let lock = resolved(&definition, &upstream).await.expect("complete").lock;
    let image = |reference: &str| {
        let found = lock.images.iter().find(|image| image.reference.to_string() == reference);
        found.unwrap_or_else(|| panic!("{reference} is not in the lock"))
    };
    for old in ["quay.io/k0sproject/kube-proxy:v1.35.7", "quay.io/k0sproject/kube-proxy:v1.36.3-1"] {
        image(old);
    }
    let agent = image("quay.io/k0sproject/apiserver-network-proxy-agent:v0.36.0-k0s.0");
    for build in WINDOWS {
        let platform = format!("windows({build}.1000)/amd64");
        let has = agent
            .children
            .iter()
            .any(|child| child.platform.as_ref().is_some_and(|found| found.to_string() == platform));
        assert!(has, "the konnectivity agent for {platform}, which k0s does not list");
    }
}
