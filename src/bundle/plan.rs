//! Where everything goes, known before the first byte is fetched.
//!
//! A bundle is the *head*, the blobs of the lock sorted by digest, and the *tail*: the lock itself, the bundle index,
//! the signatures, `index.json` and `oci-layout`. The same lock and signatures always give the same bytes, so a reader
//! plans again and compares instead of trusting what the archive says of itself.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::tar;
use crate::oci::{Descriptor, Digest, media_type};
use crate::resolve::{Lock, LockedFile, Root};
use crate::trust::{self, Attestation, Claim, Signatures};

/// The type of the bundle index.
pub const BUNDLE_TYPE: &str = "application/vnd.dray.bundle.v1+json";
/// The type of the lock, as an artifact and as its only layer.
pub const LOCK_TYPE: &str = "application/vnd.dray.lock.v1+json";
/// The type of a plain file that travels as an artifact.
pub const FILE_TYPE: &str = "application/vnd.dray.file.v1";

/// What an entry of `index.json` is for.
pub(super) const ROLE: &str = "dev.dray.role";
pub(super) const ROLE_BUNDLE: &str = "bundle";
pub(super) const ROLE_SIGNATURES: &str = "signatures";
pub(super) const ROLE_ATTESTATION: &str = "attestation";

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";
const TITLE: &str = "org.opencontainers.image.title";
/// Where a plain file comes from.
pub(super) const SOURCE: &str = "org.opencontainers.image.source";
const BUNDLE_NAME: &str = "dev.dray.bundle.name";
const BUNDLE_SEQUENCE: &str = "dev.dray.bundle.sequence";

pub(super) const INDEX_JSON: &str = "index.json";
pub(super) const OCI_LAYOUT: &str = "oci-layout";
pub(super) const OCI_LAYOUT_CONTENT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
const EMPTY: &[u8] = b"{}";

/// A file in the bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path in the archive.
    pub path: String,
    /// Where its header starts.
    pub header: u64,
    /// Where its content starts.
    pub offset: u64,
    /// The size of the content in bytes.
    pub size: u64,
}

/// The head: the blobs of the lock with their places.
#[derive(Clone, Debug)]
pub struct Plan {
    /// One entry for each blob of the lock, in its order.
    pub blobs: Vec<Entry>,
    /// The time that all entries bear, in seconds since 1970.
    pub mtime: u64,
    /// Where the tail starts.
    pub tail: u64,
}

/// Why a lock cannot be laid out.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The sum of all sizes is no offset that a file can have.
    #[error("the blobs of the lock are too large to be laid out in one file")]
    TooLarge,
}

impl Plan {
    /// Lays out the blobs of `lock`.
    pub fn new(lock: &Lock, mtime: u64) -> Result<Self, PlanError> {
        let mut at = 0u64;
        let mut blobs = Vec::with_capacity(lock.blobs.len());
        for blob in &lock.blobs {
            let entry = place(blob_path(&blob.digest), blob.size, at).ok_or(PlanError::TooLarge)?;
            at = end(&entry).ok_or(PlanError::TooLarge)?;
            blobs.push(entry);
        }
        // Positions are signed in every system's file interface.
        if at > i64::MAX as u64 {
            return Err(PlanError::TooLarge);
        }
        Ok(Self { blobs, mtime, tail: at })
    }
}

fn place(path: String, size: u64, at: u64) -> Option<Entry> {
    let offset = at.checked_add(tar::header_len(&path))?;
    Some(Entry { path, header: at, offset, size })
}

fn end(entry: &Entry) -> Option<u64> {
    entry.offset.checked_add(tar::padded(entry.size)?)
}

/// The path of a content in an OCI image layout.
pub(super) fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// The tail: everything that is made from the lock and the signatures.
#[derive(Clone, Debug)]
pub struct Tail {
    /// The digest that signatures are over.
    pub index: Descriptor,
    /// The bytes, from the end of the head to the end of the file.
    pub bytes: Vec<u8>,
    /// The files in `bytes`, at their places in the bundle.
    pub entries: Vec<Entry>,
    documents: BTreeMap<Digest, Document>,
}

/// A document of the tail.
#[derive(Clone, Debug)]
struct Document {
    media_type: String,
    bytes: Vec<u8>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IndexDocument<'a> {
    schema_version: u32,
    media_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'a str>,
    manifests: Vec<Descriptor>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'a str, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ArtifactDocument<'a> {
    schema_version: u32,
    media_type: &'a str,
    artifact_type: &'a str,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

impl Tail {
    /// Makes the tail of a bundle of `lock`, to be written at `plan.tail`.
    pub fn new(lock: &Lock, plan: &Plan, signatures: Option<&Signatures>) -> Self {
        let mut writer = TailWriter::new(lock, plan);
        let lock_json = lock.to_json();
        let lock_layer = writer.blob(LOCK_TYPE, lock_json);
        let mut members = vec![writer.artifact(LOCK_TYPE, lock_layer)];
        for file in &lock.files {
            members.push(writer.artifact(FILE_TYPE, file_layer(file)));
        }
        let images: Vec<Descriptor> =
            lock.images.iter().map(|i| named(&i.root, &i.reference.to_string())).collect();
        members.extend(images.iter().cloned());
        let index = writer.index(lock, members);

        let mut listed = vec![with_role(&index, ROLE_BUNDLE)];
        if let Some(signatures) = signatures {
            let claim = Claim::new(&lock.name.repository(), &index.digest);
            writer.blob(media_type::OCI_CONFIG, trust::SIGNATURE_CONFIG.to_vec());
            let manifest = signatures.simple().to_bytes(&claim.payload);
            let manifest = writer.blob(media_type::OCI_MANIFEST, manifest);
            writer.blob(trust::SIGNATURE_LAYER, claim.payload);
            listed.push(with_role(&manifest, ROLE_SIGNATURES));
            for attestation in signatures.attestations() {
                let layer = writer.blob(trust::SIGSTORE_BUNDLE, attestation.to_bytes(&claim.statement));
                let manifest = Attestation::manifest(layer, &index);
                let mut manifest = writer.blob(media_type::OCI_MANIFEST, manifest);
                manifest.artifact_type = Some(trust::SIGSTORE_BUNDLE.to_owned());
                listed.push(with_role(&manifest, ROLE_ATTESTATION));
            }
        }
        listed.extend(images);
        writer.finish(listed, index)
    }

    /// Returns the digest of the bundle index of a bundle of `lock`: what a site knows the bundle by.
    pub fn index_digest(lock: &Lock) -> Result<Digest, PlanError> {
        Ok(Self::new(lock, &Plan::new(lock, 0)?, None).index.digest)
    }

    /// A document of the tail that is no part of the head: its media type and bytes.
    pub fn document(&self, digest: &Digest) -> Option<(&str, &[u8])> {
        self.documents.get(digest).map(|document| (document.media_type.as_str(), document.bytes.as_slice()))
    }

    /// All documents of the tail: digest, media type and bytes.
    pub fn documents(&self) -> impl Iterator<Item = (&Digest, &str, &[u8])> {
        self.documents.iter().map(|(digest, d)| (digest, d.media_type.as_str(), d.bytes.as_slice()))
    }
}

/// The descriptor under which `index.json` lists a reference. containerd reads its own annotation, everybody else the
/// other; k0s wants the full reference in it.
fn named(root: &Root, reference: &str) -> Descriptor {
    let mut descriptor = Descriptor::new(&root.media_type, root.digest.clone(), root.size);
    descriptor.annotations.insert(REF_NAME.into(), reference.to_owned());
    descriptor.annotations.insert(CONTAINERD_NAME.into(), reference.to_owned());
    descriptor
}

fn with_role(descriptor: &Descriptor, role: &str) -> Descriptor {
    let mut descriptor = descriptor.clone();
    descriptor.annotations.insert(ROLE.into(), role.into());
    descriptor
}

/// A file as the layer of its artifact, titled so that `oras pull` restores its name.
fn file_layer(file: &LockedFile) -> Descriptor {
    let mut layer = Descriptor::new("application/octet-stream", file.digest.clone(), file.size);
    layer.annotations.extend(file.name().map(|name| (TITLE.to_owned(), name)));
    layer.annotations.insert(SOURCE.into(), file.url.clone());
    layer
}

/// Lays documents one after another, each content once.
struct TailWriter<'a> {
    plan: &'a Plan,
    head: BTreeSet<&'a Digest>,
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    documents: BTreeMap<Digest, Document>,
}

impl<'a> TailWriter<'a> {
    fn new(lock: &'a Lock, plan: &'a Plan) -> Self {
        let head = lock.blobs.iter().map(|blob| &blob.digest).collect();
        Self { plan, head, bytes: Vec::new(), entries: Vec::new(), documents: BTreeMap::new() }
    }

    fn file(&mut self, path: String, content: &[u8]) {
        let at = self.plan.tail + self.bytes.len() as u64;
        let size = content.len() as u64;
        self.bytes.extend_from_slice(&tar::header(&path, size, self.plan.mtime));
        self.entries.push(Entry { path, header: at, offset: self.plan.tail + self.bytes.len() as u64, size });
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
    }

    fn blob(&mut self, media_type: &str, bytes: Vec<u8>) -> Descriptor {
        let descriptor = Descriptor::of(media_type, &bytes);
        // An image may hold the same content, the empty configuration for one.
        if !self.head.contains(&descriptor.digest) && !self.documents.contains_key(&descriptor.digest) {
            self.file(blob_path(&descriptor.digest), &bytes);
            self.documents
                .insert(descriptor.digest.clone(), Document { media_type: media_type.to_owned(), bytes });
        }
        descriptor
    }

    fn artifact(&mut self, artifact_type: &str, layer: Descriptor) -> Descriptor {
        let config = self.blob(media_type::OCI_EMPTY, EMPTY.to_vec());
        let document = ArtifactDocument {
            schema_version: 2,
            media_type: media_type::OCI_MANIFEST,
            artifact_type,
            config,
            layers: vec![layer],
        };
        let mut descriptor = self.blob(media_type::OCI_MANIFEST, json(&document));
        descriptor.artifact_type = Some(artifact_type.to_owned());
        descriptor
    }

    fn index(&mut self, lock: &Lock, manifests: Vec<Descriptor>) -> Descriptor {
        let document = IndexDocument {
            schema_version: 2,
            media_type: media_type::OCI_INDEX,
            artifact_type: Some(BUNDLE_TYPE),
            manifests,
            annotations: BTreeMap::from([
                (BUNDLE_NAME, lock.name.to_string()),
                (BUNDLE_SEQUENCE, lock.sequence.to_string()),
            ]),
        };
        self.blob(media_type::OCI_INDEX, json(&document))
    }

    fn finish(mut self, listed: Vec<Descriptor>, index: Descriptor) -> Tail {
        let document = IndexDocument {
            schema_version: 2,
            media_type: media_type::OCI_INDEX,
            artifact_type: None,
            manifests: listed,
            annotations: BTreeMap::new(),
        };
        self.file(INDEX_JSON.into(), &json(&document));
        self.file(OCI_LAYOUT.into(), OCI_LAYOUT_CONTENT);
        self.bytes.resize(self.bytes.len() + usize::try_from(tar::END).expect("a small constant"), 0);
        Tail { index, bytes: self.bytes, entries: self.entries, documents: self.documents }
    }
}

fn json(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(document).expect("documents of strings and numbers always serialise")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::lock_tests::sample;
    use crate::trust::PrivateKey;

    #[test]
    fn places_do_not_overlap_and_are_in_order() {
        let lock = sample(b"manifest", &[7; 1000]);
        let plan = Plan::new(&lock, 0).unwrap();
        let mut at = 0;
        for (entry, blob) in plan.blobs.iter().zip(&lock.blobs) {
            assert_eq!((entry.header, entry.size), (at, blob.size));
            assert_eq!(entry.offset % 512, 0);
            at = entry.offset + entry.size.next_multiple_of(512);
        }
        assert_eq!(plan.tail, at);
    }

    #[test]
    fn the_same_lock_gives_the_same_tail() {
        let lock = sample(b"manifest", b"layer");
        let plan = Plan::new(&lock, 0).unwrap();
        let (a, b) = (Tail::new(&lock, &plan, None), Tail::new(&lock.clone(), &plan, None));
        assert_eq!(a.bytes, b.bytes);
        assert_eq!(a.bytes.len() % 512, 0);
    }

    #[test]
    fn signing_does_not_change_what_is_signed() {
        let lock = sample(b"manifest", b"layer");
        let plan = Plan::new(&lock, 0).unwrap();
        let unsigned = Tail::new(&lock, &plan, None);
        let claim = Claim::new(&lock.name.repository(), &unsigned.index.digest);
        let signatures = Signatures::create(&[PrivateKey::generate()], &claim).unwrap();
        let signed = Tail::new(&lock, &plan, Some(&signatures));
        assert_eq!(signed.index, unsigned.index);
        assert!(signed.bytes.len() > unsigned.bytes.len());
    }

    #[test]
    fn content_that_an_image_has_is_not_written_twice() {
        let lock = sample(b"manifest", EMPTY);
        let plan = Plan::new(&lock, 0).unwrap();
        let tail = Tail::new(&lock, &plan, None);
        let empty = blob_path(&Digest::sha256(EMPTY));
        assert_eq!(plan.blobs.iter().chain(&tail.entries).filter(|entry| entry.path == empty).count(), 1);
    }

    #[test]
    fn sizes_that_overflow_are_refused() {
        let mut lock = sample(b"manifest", b"layer");
        lock.blobs[0].size = u64::MAX - 10;
        assert!(Plan::new(&lock, 0).is_err());
        lock.blobs[0].size = i64::MAX as u64;
        assert!(Plan::new(&lock, 0).is_err());
    }
}
