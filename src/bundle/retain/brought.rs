//! What imports brought: the locks of their bundles, as the store has them.

use std::collections::BTreeSet;

use super::RetainError;
use crate::bundle::LOCK_TYPE;
use crate::oci::{Descriptor, Digest, Document, Reference, RepositoryName};
use crate::resolve::{BundleName, Lock, LockedImage, MAX_LOCK_BYTES};
use crate::store::{Content as _, Log, Store, StoreError};

/// How much of a lock is read at a time.
const CHUNK: usize = 256 * 1024;

/// A bundle that was imported and is not yet let go of.
pub(super) struct Brought {
    /// What it consists of.
    pub(super) lock: Lock,
    /// The repository that has its own documents.
    pub(super) repository: RepositoryName,
    /// The digest of its index.
    pub(super) digest: Digest,
    /// The entries of its index.
    pub(super) members: Vec<Descriptor>,
}

/// What is left of a bundle whose letting go was interrupted: its lock is gone, its index goes last.
pub(super) struct Remains {
    pub(super) repository: RepositoryName,
    pub(super) digest: Digest,
    pub(super) members: Vec<Descriptor>,
}

impl Brought {
    /// The images of the bundle that the release `release` needs.
    pub(super) fn images_of<'a>(&'a self, release: &str) -> impl Iterator<Item = &'a Reference> {
        let of = move |image: &&LockedImage| image.needed_by.iter().any(|by| by.is_release(release));
        self.lock.images.iter().filter(of).map(|image| &image.reference)
    }
}

/// All bundles in the log, in the order in which they were imported, and what is left of others.
pub(super) fn brought(store: &Store, log: &Log) -> Result<(Vec<Brought>, Vec<Remains>), RetainError> {
    let (mut all, mut remains) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for record in log.entries.iter().filter_map(|entry| entry.receipt.import()) {
        if !seen.insert(record.digest.clone()) {
            continue;
        }
        let Ok(name) = record.name.parse::<BundleName>() else { continue };
        let repository = name.repository();
        // The record of an import stays for ever; the bundle's documents go with its last release.
        let Some(index) = store.manifest(&repository, &record.digest).map_err(StoreError::from)? else {
            continue;
        };
        let members = match Document::parse(Some(&index.media_type), index.bytes) {
            Ok(Document::Index(index)) => index.manifests,
            _ => Vec::new(),
        };
        let digest = record.digest.clone();
        let lock_is_gone = match members.iter().find(|entry| is_lock(entry)) {
            Some(artifact) => {
                store.manifest(&repository, &artifact.digest).map_err(StoreError::from)?.is_none()
            }
            None => false,
        };
        if lock_is_gone {
            remains.push(Remains { repository, digest, members });
            continue;
        }
        let lock = read_lock(store, &repository, &members)?;
        let lock = lock.ok_or_else(|| RetainError::NoLock(format!("{} {}", record.name, record.sequence)))?;
        all.push(Brought { lock, repository, digest, members });
    }
    Ok((all, remains))
}

fn is_lock(entry: &Descriptor) -> bool {
    entry.artifact_type.as_deref() == Some(LOCK_TYPE)
}

/// Reads the lock among the entries of a bundle's index.
fn read_lock(
    store: &Store,
    name: &RepositoryName,
    members: &[Descriptor],
) -> Result<Option<Lock>, StoreError> {
    let Some(artifact) = members.iter().find(|entry| is_lock(entry)) else { return Ok(None) };
    let Some(Document::Image(artifact)) = document(store, name, &artifact.digest)? else { return Ok(None) };
    let Some(layer) = artifact.layers.first() else { return Ok(None) };
    let Some(blob) = store.blob(name, &layer.digest)? else { return Ok(None) };
    if blob.size() > MAX_LOCK_BYTES as u64 {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = blob.read_at(&mut buffer, bytes.len() as u64)?;
        if read == 0 {
            return Ok(Lock::from_json(&bytes).ok());
        }
        bytes.extend_from_slice(&buffer[..read]);
    }
}

/// The manifest or index `digest` of `name`; none when it is not there, or none of either.
pub(super) fn document(
    store: &Store,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<Option<Document>, StoreError> {
    let manifest = store.manifest(name, digest)?;
    Ok(manifest.and_then(|m| Document::parse(Some(&m.media_type), m.bytes).ok()))
}
