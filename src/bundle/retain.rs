//! Which images of a store belong to which release, and letting go of releases that a site is done with.

use std::collections::BTreeSet;

use crate::oci::{Descriptor, Digest, Document, Reference, RepositoryName};
use crate::resolve::{Lock, LockedImage, MAX_LOCK_BYTES};
use crate::store::{Content as _, Store, StoreError, Writer};

use super::LOCK_TYPE;
use super::import::ImportRecord;

/// Why releases cannot be let go of.
#[derive(Debug, thiserror::Error)]
pub enum RetainError {
    /// A release that is to be kept is in none of the imported bundles.
    #[error("no imported bundle has the release {0}; the store has: {1}")]
    Unknown(String, String),
    /// What an import left in the store is not complete.
    #[error("the lock of the imported bundle {0} cannot be read from the store; import the bundle again")]
    NoLock(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is kept and what is let go of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// The images that stay, of those that came in bundles.
    pub kept: BTreeSet<Reference>,
    /// The images that go.
    pub removed: BTreeSet<Reference>,
}

/// Takes the images out of the store that only releases other than `keep` need. Images that a definition named itself
/// stay, and so does everything that was pushed. With `dry_run` nothing is changed.
///
/// The content goes with the next sweep.
pub fn retain_releases(
    writer: &Writer,
    keep: &BTreeSet<String>,
    dry_run: bool,
) -> Result<Retention, RetainError> {
    let store = writer.store();
    let locks = locks(store)?;
    let known: BTreeSet<&str> =
        locks.iter().flat_map(|lock| &lock.releases).map(|release| release.release.as_str()).collect();
    if let Some(unknown) = keep.iter().find(|release| !known.contains(release.as_str())) {
        let all = known.iter().copied().collect::<Vec<_>>().join(", ");
        return Err(RetainError::Unknown(unknown.clone(), all));
    }
    let (stay, go): (Vec<&LockedImage>, Vec<&LockedImage>) =
        locks.iter().flat_map(|lock| &lock.images).partition(|image| is_kept(image, keep));
    let kept: BTreeSet<Reference> = stay.iter().map(|image| image.reference.clone()).collect();
    // The same content may be there for two reasons, under one name or two.
    let used: BTreeSet<(&RepositoryName, &Digest)> = stay
        .iter()
        .flat_map(|image| image.manifests().map(|digest| (image.reference.name(), digest)))
        .collect();
    let mut batch = writer.batch();
    let mut removed = BTreeSet::new();
    for image in go.into_iter().filter(|image| !kept.contains(&image.reference)) {
        let name = image.reference.name();
        if let Some(tag) = image.reference.tag()
            && store
                .resolve(name, tag)
                .map_err(StoreError::from)?
                .is_some_and(|t| t.digest == image.root.digest)
        {
            batch.delete_tag(name, tag)?;
        }
        for digest in image.manifests().filter(|digest| !used.contains(&(name, *digest))) {
            if batch.delete_manifest(name, digest)? {
                removed.insert(image.reference.clone());
            }
        }
    }
    if !dry_run {
        batch.commit()?;
    }
    Ok(Retention { kept, removed })
}

/// Whether a kept release or a list of a definition needs the image.
fn is_kept(image: &LockedImage, keep: &BTreeSet<String>) -> bool {
    image.needed_by.iter().any(|need| match need.split_once(" of ") {
        Some((_, release)) => keep.contains(release),
        None => true,
    })
}

/// The locks of all bundles that were imported and are not yet let go of.
fn locks(store: &Store) -> Result<Vec<Lock>, RetainError> {
    let mut locks = Vec::new();
    let mut seen = BTreeSet::new();
    for record in store.imports()? {
        let Ok(record) = serde_json::from_value::<ImportRecord>(record) else { continue };
        if seen.insert(record.digest.clone()) {
            let lock = read_lock(store, &record)?;
            locks.push(
                lock.ok_or_else(|| RetainError::NoLock(format!("{} {}", record.name, record.sequence)))?,
            );
        }
    }
    Ok(locks)
}

/// Follows the bundle's index to its lock.
fn read_lock(store: &Store, record: &ImportRecord) -> Result<Option<Lock>, StoreError> {
    let Ok(bundle) = record.name.parse::<crate::resolve::BundleName>() else { return Ok(None) };
    let name = bundle.repository();
    let document = |digest: &Digest| -> Result<Option<Document>, StoreError> {
        let manifest = store.manifest(&name, digest)?;
        Ok(manifest.and_then(|m| Document::parse(Some(&m.media_type), m.bytes).ok()))
    };
    let Some(Document::Index(index)) = document(&record.digest)? else { return Ok(None) };
    let is_lock = |entry: &&Descriptor| entry.artifact_type.as_deref() == Some(LOCK_TYPE);
    let Some(artifact) = index.manifests.iter().find(is_lock) else { return Ok(None) };
    let Some(Document::Image(artifact)) = document(&artifact.digest)? else { return Ok(None) };
    let Some(layer) = artifact.layers.first() else { return Ok(None) };
    let Some(blob) = store.blob(&name, &layer.digest)? else { return Ok(None) };
    if blob.size > MAX_LOCK_BYTES as u64 {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = blob.read_at(&mut buffer, bytes.len() as u64)?;
        if read == 0 {
            return Ok(Lock::from_json(&bytes).ok());
        }
        bytes.extend_from_slice(&buffer[..read]);
    }
}
