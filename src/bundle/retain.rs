//! Which images of a store belong to which release, and letting go of releases that a site is done with.
//!
//! What goes is worked out first, all of it, from the locks of the bundles that were imported. Only what came with them is
//! ever looked at, and of that everything stays that a kept release, a definition's own list, a tag, another manifest or a
//! node needs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::oci::{Descriptor, Digest, Document, Reference, RepositoryName, Tag};
use crate::resolve::{BundleName, Lock, LockedImage, MAX_LOCK_BYTES};
use crate::store::{Content as _, Store, StoreError, Sweep, Swept, Writer};

use super::LOCK_TYPE;
use super::import::ImportRecord;

/// How much of a lock is read at a time.
const CHUNK: usize = 256 * 1024;

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

/// What a site cannot do without.
#[derive(Clone, Debug, Default)]
pub struct Keep {
    /// The releases, `k0s@v1.36.3+k0s.2`.
    pub releases: BTreeSet<String>,
    /// What nodes have, by tag or digest, as a kubelet names it.
    pub on_nodes: BTreeSet<Reference>,
    /// Content that nothing refers to stays until it is this old: it may belong to a push that is not finished.
    pub grace: Duration,
}

/// What is kept and what goes, worked out before anything does.
#[derive(Debug)]
pub struct Retention {
    /// The images that stay, of those that came in bundles.
    pub kept: BTreeSet<Reference>,
    /// The images that go.
    pub removed: BTreeSet<Reference>,
    tags: BTreeSet<(RepositoryName, Tag)>,
    manifests: BTreeMap<RepositoryName, BTreeSet<Digest>>,
    sweep: Sweep,
}

impl Retention {
    /// The content that goes with the images, and what else nothing refers to.
    pub fn swept(&self) -> Swept {
        self.sweep.swept()
    }
}

/// The releases in the bundles that were imported into `store`.
pub fn imported_releases(store: &Store) -> Result<BTreeSet<String>, RetainError> {
    let locks = imported_locks(store)?;
    Ok(locks.into_iter().flat_map(|lock| lock.releases).map(|release| release.release).collect())
}

/// Works out which images only releases need that are not to be kept. Images that a definition named itself stay, and so
/// does everything that was pushed. Nothing is changed.
pub fn plan_retention(writer: &Writer, keep: &Keep) -> Result<Retention, RetainError> {
    let store = writer.store();
    let locks = imported_locks(store)?;
    let known: BTreeSet<&str> =
        locks.iter().flat_map(|lock| &lock.releases).map(|release| release.release.as_str()).collect();
    if let Some(unknown) = keep.releases.iter().find(|release| !known.contains(release.as_str())) {
        let all = known.iter().copied().collect::<Vec<_>>().join(", ");
        return Err(RetainError::Unknown(unknown.clone(), all));
    }
    let (stay, go): (Vec<&LockedImage>, Vec<&LockedImage>) =
        locks.iter().flat_map(|lock| &lock.images).partition(|image| is_kept(image, keep));
    let kept: BTreeSet<Reference> = stay.iter().map(|image| image.reference.clone()).collect();
    let mut tags = BTreeSet::new();
    for image in go.iter().filter(|image| !kept.contains(&image.reference)) {
        let name = image.reference.name();
        let Some(tag) = image.reference.tag() else { continue };
        // A tag that has been moved since is not what the release brought.
        let target = store.resolve(name, tag).map_err(StoreError::from)?;
        if target.is_some_and(|target| target.digest == image.root.digest) {
            tags.insert((name.clone(), tag.clone()));
        }
    }
    let mut manifests: BTreeMap<RepositoryName, BTreeSet<Digest>> = BTreeMap::new();
    for image in &go {
        manifests.entry(image.reference.name().clone()).or_default().extend(image.manifests().cloned());
    }
    for (name, candidates) in &mut manifests {
        let needed = stay.iter().filter(|image| image.reference.name() == name).flat_map(|i| i.manifests());
        let on_nodes = keep.on_nodes.iter().filter_map(Reference::digest);
        let roots = needed.chain(on_nodes).cloned().collect();
        take_needed(store, name, &tags, roots, candidates)?;
    }
    let is_gone = |image: &&LockedImage| {
        manifests[image.reference.name()].contains(&image.root.digest) && !kept.contains(&image.reference)
    };
    let removed = go.into_iter().filter(is_gone).map(|image| image.reference.clone()).collect();
    let sweep = writer.plan_sweep(&manifests, keep.grace)?;
    Ok(Retention { kept, removed, tags, manifests, sweep })
}

/// Lets go of what [`plan_retention`] found, with the same writer: tags first, then manifests, then content, so that nothing
/// that can be asked for is ever incomplete. Hardly anything is written, so that it works on a full disk.
pub fn let_go(writer: &Writer, retention: &Retention) -> Result<(), RetainError> {
    // One by one: several at once would be announced in a file, which a full disk has no room for.
    for (name, tag) in &retention.tags {
        let mut batch = writer.batch();
        batch.delete_tag(name, tag)?;
        batch.commit()?;
    }
    for (name, digests) in &retention.manifests {
        let mut batch = writer.batch();
        for digest in digests {
            batch.delete_manifest(name, digest)?;
        }
        batch.commit()?;
    }
    Ok(writer.finish_sweep(&retention.sweep)?)
}

/// Takes out of `candidates` what is not there, and what something needs that stays: `roots`, the tags of the repository
/// but those in `going`, and every other manifest in it.
fn take_needed(
    store: &Store,
    name: &RepositoryName,
    going: &BTreeSet<(RepositoryName, Tag)>,
    roots: BTreeSet<Digest>,
    candidates: &mut BTreeSet<Digest>,
) -> Result<(), StoreError> {
    let present: BTreeSet<Digest> = store.manifests(name)?.into_iter().collect();
    candidates.retain(|digest| present.contains(digest));
    let mut next: Vec<Digest> = roots.into_iter().chain(present.difference(candidates).cloned()).collect();
    for tag in store.tags(name, None, usize::MAX)?.unwrap_or_default() {
        if !going.contains(&(name.clone(), tag.clone())) {
            next.extend(store.resolve(name, &tag)?.map(|target| target.digest));
        }
    }
    let mut seen = BTreeSet::new();
    while let Some(digest) = next.pop() {
        if !present.contains(&digest) || !seen.insert(digest.clone()) {
            continue;
        }
        candidates.remove(&digest);
        if let Some(Document::Index(index)) = document(store, name, &digest)? {
            next.extend(index.manifests.into_iter().map(|entry| entry.digest));
        }
    }
    Ok(())
}

/// Whether a kept release, a list of a definition or a node needs the image.
fn is_kept(image: &LockedImage, keep: &Keep) -> bool {
    let needed = image.needed_by.iter().any(|need| match need.split_once(" of ") {
        Some((_, release)) => keep.releases.contains(release),
        None => true,
    });
    needed || keep.on_nodes.iter().any(|on_node| is_pulled_as(image, on_node))
}

/// Whether a node may have pulled the image under the name `pulled`: its own, or the same path and tag at another registry
/// or below a prefix, as with k0s' `images.repository`.
fn is_pulled_as(image: &LockedImage, pulled: &Reference) -> bool {
    let (own, other) = (&image.reference, pulled.name().as_str());
    let below = |path: &str| other.strip_suffix(path).is_some_and(|front| front.ends_with('/'));
    pulled.tag().is_some()
        && pulled.tag() == own.tag()
        && (other == own.name().as_str() || below(own.repository()))
}

/// The locks of the bundles that were imported into `store`, each once, in the order in which they first came.
pub fn imported_locks(store: &Store) -> Result<Vec<Lock>, RetainError> {
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
    let Ok(bundle) = record.name.parse::<BundleName>() else { return Ok(None) };
    let name = bundle.repository();
    let Some(Document::Index(index)) = document(store, &name, &record.digest)? else { return Ok(None) };
    let is_lock = |entry: &&Descriptor| entry.artifact_type.as_deref() == Some(LOCK_TYPE);
    let Some(artifact) = index.manifests.iter().find(is_lock) else { return Ok(None) };
    let Some(Document::Image(artifact)) = document(store, &name, &artifact.digest)? else { return Ok(None) };
    let Some(layer) = artifact.layers.first() else { return Ok(None) };
    let Some(blob) = store.blob(&name, &layer.digest)? else { return Ok(None) };
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
fn document(store: &Store, name: &RepositoryName, digest: &Digest) -> Result<Option<Document>, StoreError> {
    let manifest = store.manifest(name, digest)?;
    Ok(manifest.and_then(|m| Document::parse(Some(&m.media_type), m.bytes).ok()))
}
