//! A small bundle with every shape that bundles have: an index with two platforms, an image without one, a plain file
//! under SHA-512 (whose path is long), signatures in both forms.

use std::collections::BTreeMap;

use dray::bundle::{Plan, Tail};
use dray::oci::{Algorithm, Descriptor, Digest, Hasher, NodeKind, RepositoryName, media_type};
use dray::resolve::{
    Child, LOCK_VERSION, Lock, LockedBlob, LockedFile, LockedImage, LockedRelease, NeededBy, Root,
};
use dray::trust::{Claim, PrivateKey, Signatures};

use super::archive::{Archive, Part};

/// A key for tests. Nothing that matters is signed with it.
const KEY: &str = include_str!("key.pem");

/// The key that signs the sample.
pub fn key() -> PrivateKey {
    PrivateKey::from_pem(KEY).expect("it is a key")
}

/// A lock and the content that it speaks of.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The lock.
    pub lock: Lock,
    /// What its blobs are.
    pub contents: BTreeMap<Digest, Vec<u8>>,
}

impl Default for Sample {
    fn default() -> Self {
        Self::new()
    }
}

impl Sample {
    /// The sample.
    pub fn new() -> Self {
        Self::of("layer")
    }

    /// The sample with other layers: their text begins with `word`.
    pub fn of(word: &str) -> Self {
        let mut shelf = Shelf { word: word.to_owned(), ..Shelf::default() };
        let pause: RepositoryName = "registry.k8s.io/pause".parse().expect("a name");
        let agent: RepositoryName = "quay.io/acme/agent".parse().expect("a name");
        let linux = shelf.image(&pause, "linux", "");
        let windows = shelf.image(&pause, "windows", "10.0.20348.2655");
        let index = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_INDEX,
            "manifests": [linux.entry(), windows.entry()],
        });
        let index = shelf.put(&pause, media_type::OCI_INDEX, index.to_string().into_bytes(), true);
        let single = shelf.image(&agent, "linux", "");
        let file = if word == "layer" { b"a program".to_vec() } else { b"another program".to_vec() };
        let digest = sha512(&file);
        let file = LockedFile {
            url: "https://dl.example.org/v1/tool.exe".into(),
            digest: digest.clone(),
            size: shelf.keep(digest, file, None, false),
        };
        let (kind, other) = ("linux/amd64", "windows/amd64:10.0.20348");
        let nodes: Vec<NodeKind> = vec![kind.parse().expect("a kind"), other.parse().expect("a kind")];
        let images = vec![
            LockedImage {
                reference: "quay.io/acme/agent:2.4".parse().expect("a reference"),
                root: single.root(),
                platform: None,
                nodes: vec![nodes[0].clone()],
                children: Vec::new(),
                blobs: single.blobs.clone(),
                evidence: Vec::new(),
                needed_by: vec![NeededBy::list("images")],
            },
            LockedImage {
                reference: "registry.k8s.io/pause:3.9".parse().expect("a reference"),
                root: root(&index),
                platform: None,
                nodes: nodes.clone(),
                children: vec![linux.child(&nodes[0]), windows.child(&nodes[1])],
                blobs: Vec::new(),
                evidence: Vec::new(),
                needed_by: vec![NeededBy::Component {
                    component: "pause".into(),
                    release: "k0s@v1.36.3+k0s.2".parse().unwrap(),
                }],
            },
        ];
        let lock = Lock {
            schema_version: LOCK_VERSION,
            name: "plant-7".parse().expect("a name"),
            sequence: 7,
            expires: None,
            nodes,
            runtimes: Vec::new(),
            bands: Vec::new(),
            releases: vec![LockedRelease {
                release: "k0s@v1.36.3+k0s.2".into(),
                with: Vec::new(),
                programs: None,
            }],
            images,
            indexes: Vec::new(),
            blobs: shelf.blobs.into_values().collect(),
            requires: Vec::new(),
            files: vec![file],
            proof: Vec::new(),
            allowed_missing: Vec::new(),
            allowed_unproved: Vec::new(),
        };
        Self { lock, contents: shelf.contents }
    }

    /// Adds a blob that nothing in the sample needs.
    pub fn add(&mut self, content: &[u8], manifest: bool) -> Digest {
        let digest = Digest::sha256(content);
        let size = content.len() as u64;
        let blob = LockedBlob { digest: digest.clone(), size, from: None, manifest, urls: Vec::new() };
        self.lock.blobs.push(blob);
        self.lock.blobs.sort_by(|a, b| a.digest.cmp(&b.digest));
        self.contents.insert(digest.clone(), content.to_vec());
        digest
    }

    /// What a signature of the bundle is over.
    pub fn claim(&self) -> Claim {
        Claim::new(&self.lock.name.repository(), &self.tail(None).index.digest)
    }

    /// The bundle, signed by `keys`.
    pub fn signed_by(&self, keys: &[PrivateKey]) -> Archive {
        let signatures = Signatures::create(keys, &self.claim()).expect("a few signatures");
        self.archive(Some(&signatures))
    }

    /// The bundle with these signatures.
    pub fn archive(&self, signatures: Option<&Signatures>) -> Archive {
        let head = self.lock.blobs.iter().map(|blob| {
            let path = format!("blobs/{}/{}", blob.digest.algorithm().name(), blob.digest.hex());
            Part::file(&path, self.contents[&blob.digest].clone())
        });
        let mut archive = Archive::parse(&self.tail(signatures).bytes);
        archive.parts.splice(0..0, head);
        archive
    }

    fn tail(&self, signatures: Option<&Signatures>) -> Tail {
        let plan = Plan::new(&self.lock, 0).expect("it is small");
        Tail::new(&self.lock, &plan, signatures)
    }
}

/// The SHA-512 digest of `bytes`.
pub fn sha512(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(bytes);
    hasher.finish()
}

fn root(descriptor: &Descriptor) -> Root {
    Root {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.clone(),
        size: descriptor.size,
    }
}

/// Collects blobs.
#[derive(Default)]
struct Shelf {
    word: String,
    blobs: BTreeMap<Digest, LockedBlob>,
    contents: BTreeMap<Digest, Vec<u8>>,
}

/// An image of one platform.
struct Built {
    manifest: Descriptor,
    platform: serde_json::Value,
    blobs: Vec<Digest>,
}

impl Built {
    fn entry(&self) -> serde_json::Value {
        serde_json::json!({
            "mediaType": self.manifest.media_type,
            "digest": self.manifest.digest,
            "size": self.manifest.size,
            "platform": self.platform,
        })
    }

    fn root(&self) -> Root {
        root(&self.manifest)
    }

    fn child(&self, node: &NodeKind) -> Child {
        Child {
            digest: self.manifest.digest.clone(),
            size: self.manifest.size,
            media_type: self.manifest.media_type.clone(),
            platform: serde_json::from_value(self.platform.clone()).ok(),
            config_platform: None,
            nodes: vec![node.clone()],
            metadata_only: false,
            blobs: self.blobs.clone(),
        }
    }
}

impl Shelf {
    fn keep(
        &mut self,
        digest: Digest,
        content: Vec<u8>,
        from: Option<RepositoryName>,
        manifest: bool,
    ) -> u64 {
        let size = content.len() as u64;
        let blob = LockedBlob { digest: digest.clone(), size, from, manifest, urls: Vec::new() };
        self.blobs.insert(digest.clone(), blob);
        self.contents.insert(digest, content);
        size
    }

    fn put(
        &mut self,
        name: &RepositoryName,
        media_type: &str,
        content: Vec<u8>,
        manifest: bool,
    ) -> Descriptor {
        let descriptor = Descriptor::of(media_type, &content);
        self.keep(descriptor.digest.clone(), content, Some(name.clone()), manifest);
        descriptor
    }

    fn image(&mut self, name: &RepositoryName, os: &str, version: &str) -> Built {
        let platform = match version {
            "" => serde_json::json!({"os": os, "architecture": "amd64"}),
            _ => serde_json::json!({"os": os, "architecture": "amd64", "os.version": version}),
        };
        let layer = self.put(
            name,
            media_type::OCI_LAYER_GZIP,
            format!("{} of {name} {os}", self.word).into_bytes(),
            false,
        );
        let config = self.put(name, media_type::OCI_CONFIG, platform.to_string().into_bytes(), false);
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "config": config,
            "layers": [layer],
        });
        let manifest = self.put(name, media_type::OCI_MANIFEST, manifest.to_string().into_bytes(), true);
        Built { manifest, platform, blobs: vec![config.digest, layer.digest] }
    }
}
