//! Bringing a bundle into a store: every blob is hashed while it is copied, and nothing of the bundle can be asked for
//! before all of it is there.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::Entry;
use super::damage::Damage;
use super::read::{Bundle, BundleError};
use crate::oci::{
    Digest, Document, MAX_MANIFEST_BYTES, ManifestError, Reference, RepositoryName, media_type,
};
use crate::resolve::{Child, LockedBlob, LockedFile, LockedImage, tags_of};
use crate::store::{
    Author, Batch, Event, HostedFile, Import, LogEntry, Patience, Receipt, Store, StoreError, Writer,
};
use crate::text;
use crate::trust::{self, KeyId};

/// How many images a message names.
const NAMED: usize = 5;

/// Why a bundle was not imported. The store is as it was before, but for blobs that nothing refers to.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The bundle cannot be read or is damaged.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The store cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store has a newer bundle of this name.
    #[error(
        "the store already has sequence {present} of `{name}`, this bundle is the older sequence {offered}; \
         if going back is meant, allow it with --allow-rollback"
    )]
    Rollback {
        /// The name of the bundles.
        name: String,
        /// What the store has.
        present: u64,
        /// What was to be imported.
        offered: u64,
    },
    /// Another bundle has this name and sequence number.
    #[error(
        "the store has another bundle `{name}` with the same sequence {sequence} ({present}); \
         build with a higher `metadata.sequence`"
    )]
    Replaced {
        /// The name of the bundles.
        name: String,
        /// The sequence of both.
        sequence: u64,
        /// The digest of the bundle that the store has.
        present: Digest,
    },
    /// The bundle leaves out what this store does not have.
    #[error(
        "the bundle leaves out {count} blobs ({bytes} bytes) that this store does not have, for {}",
        text::list(images, NAMED)
    )]
    NotHere {
        /// How many blobs are not here.
        count: usize,
        /// Their size together in bytes.
        bytes: u64,
        /// The images that need them.
        images: Vec<Reference>,
    },
    /// A manifest in the bundle cannot be served.
    #[error("{}: {digest} is no manifest that can be served: {source}", path.display())]
    Manifest {
        /// The bundle.
        path: PathBuf,
        /// The manifest.
        digest: Digest,
        /// Why.
        source: ManifestError,
    },
}

impl ImportError {
    /// Whether the bundle is at fault: its signatures, its content or its age.
    pub fn is_verification(&self) -> bool {
        match self {
            Self::Bundle(error) => error.is_verification(),
            Self::Rollback { .. }
            | Self::Replaced { .. }
            | Self::Manifest { .. }
            | Self::Store(StoreError::Log(_)) => true,
            Self::Store(_) | Self::NotHere { .. } => false,
        }
    }
}

/// How a bundle is imported.
pub struct ImportOptions<'a> {
    /// The trusted keys that signed; empty when verification was skipped.
    pub verified_by: BTreeSet<KeyId>,
    /// Whether a bundle older than what the store has is taken.
    pub allow_rollback: bool,
    /// Whether a bundle is taken after it has expired.
    pub allow_expired: bool,
    /// Whether the images that are whole are taken when others are not.
    pub keep_going: bool,
    /// Who imports, when, and with which key the receipt is signed.
    pub author: Author<'a>,
    /// How long to wait while another process changes the store.
    pub patience: Patience<'a>,
    /// How many blobs are copied at the same time.
    pub threads: usize,
    /// Is told of bytes as they are copied or found to be there.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

impl Default for ImportOptions<'_> {
    /// Strict, silent, and dated at the epoch.
    fn default() -> Self {
        Self {
            verified_by: BTreeSet::new(),
            allow_rollback: false,
            allow_expired: false,
            keep_going: false,
            author: Author::default(),
            patience: Duration::ZERO.into(),
            threads: 1,
            progress: &|_| (),
        }
    }
}

/// An import that was carried out.
#[derive(Clone, Debug)]
pub struct Imported {
    /// What was imported.
    pub import: Import,
    /// The receipt in the log of the store.
    pub entry: LogEntry,
}

/// Imports `bundle`, whose signatures the caller has checked, into `store`.
pub fn import(bundle: &Bundle, store: &Store, options: &ImportOptions<'_>) -> Result<Imported, ImportError> {
    let writer = store.writer("dray import", options.patience)?;
    let expired = bundle.lock().is_expired(options.author.now);
    if expired && !options.allow_expired {
        bundle.check_expiry(options.author.now)?;
    }
    let rollback = check_sequence(bundle, store, options.allow_rollback)?;
    check_required(bundle, store)?;
    let mut copied = copy_blobs(bundle, &writer, options)?;
    let lost = lost(bundle, std::mem::take(&mut copied.damage), options.keep_going)?;
    let lock = bundle.lock();
    let (whole, missing): (Vec<&LockedImage>, Vec<&LockedImage>) =
        lock.images.iter().partition(|image| !image.essentials().any(|digest| lost.contains(digest)));
    let mut batch = writer.batch();
    for image in &whole {
        publish_image(bundle, &mut batch, image, &lost)?;
    }
    let tags = lock.tags();
    for (name, tag, meaning) in tags_of(whole.iter().copied()).iter() {
        // A tag of an image that is damaged must not go to a pinned reference instead.
        if tags.get(name, tag) == Some(meaning) {
            batch.add_meaning(name, tag, meaning.clone())?;
        }
    }
    publish_bundle(bundle, &writer, &mut batch, &lost)?;
    let import = Import {
        name: lock.name.to_string(),
        sequence: lock.sequence,
        digest: bundle.index().digest.clone(),
        verified_by: options.verified_by.iter().map(ToString::to_string).collect(),
        verification_skipped: options.verified_by.is_empty(),
        rollback,
        expired,
        releases: lock.releases.iter().map(|release| release.release.clone()).collect(),
        missing: missing.iter().map(|image| image.reference.clone()).collect(),
        missing_files: lock
            .files
            .iter()
            .filter(|file| lost.contains(&file.digest))
            .map(|file| file.url.clone())
            .collect(),
        images: whole.len(),
        copied_blobs: copied.blobs,
        copied_bytes: copied.bytes,
    };
    let entry = batch.record(Event::Import(import.clone()), &options.author)?;
    batch.commit()?;
    Ok(Imported { import, entry })
}

/// Refuses a bundle that is older than what the store has of the same name. Says whether it is one and was allowed.
///
/// No exception is made for a log that cannot be relied on: a receipt that cannot be read may be that of a newer bundle.
fn check_sequence(bundle: &Bundle, store: &Store, allow_rollback: bool) -> Result<bool, ImportError> {
    let lock = bundle.lock();
    let receipts = store.imports()?;
    let imports = receipts.iter().filter_map(Receipt::import);
    let present =
        imports.filter(|import| import.name == lock.name.as_str()).max_by_key(|import| import.sequence);
    let Some(present) = present else { return Ok(false) };
    if allow_rollback {
        return Ok(present.sequence > lock.sequence);
    }
    if present.sequence > lock.sequence {
        return Err(ImportError::Rollback {
            name: present.name.clone(),
            present: present.sequence,
            offered: lock.sequence,
        });
    }
    if present.sequence == lock.sequence && present.digest != bundle.index().digest {
        return Err(ImportError::Replaced {
            name: present.name.clone(),
            sequence: present.sequence,
            present: present.digest.clone(),
        });
    }
    Ok(false)
}

/// Makes sure that the store has what the bundle leaves out, before anything is changed.
fn check_required(bundle: &Bundle, store: &Store) -> Result<(), ImportError> {
    let lock = bundle.lock();
    let mut absent = BTreeSet::new();
    let mut bytes = 0;
    for blob in &lock.requires {
        if !store.has_blob(&blob.digest)? {
            absent.insert(&blob.digest);
            bytes += blob.size;
        }
    }
    if absent.is_empty() {
        return Ok(());
    }
    let needs = |image: &&LockedImage| image.contents().any(|digest| absent.contains(digest));
    let images = lock.images.iter().filter(needs).map(|image| image.reference.clone()).collect();
    Err(ImportError::NotHere { count: absent.len(), bytes, images })
}

#[derive(Default)]
struct Copied {
    blobs: usize,
    bytes: u64,
    damage: Vec<Damage>,
}

/// Copies the blobs that the store does not have. All that are damaged are named before it fails.
fn copy_blobs(bundle: &Bundle, writer: &Writer, options: &ImportOptions<'_>) -> Result<Copied, ImportError> {
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let work = || {
        let mut copied = Copied::default();
        while !stop.load(Ordering::Relaxed) {
            let nth = next.fetch_add(1, Ordering::Relaxed);
            let Some((blob, entry)) = bundle.blob(nth) else { break };
            let result = copy_blob(bundle, writer, blob, entry, options.progress);
            match result {
                Ok(None) => {}
                Ok(Some(bytes)) => {
                    copied.blobs += 1;
                    copied.bytes += bytes;
                }
                // What cannot be read is as good as damaged.
                Err(ImportError::Store(StoreError::WrongDigest { .. }) | ImportError::Bundle(_)) => {
                    copied.damage.push(bundle.damage(blob, entry));
                }
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(copied)
    };
    let results: Vec<Result<Copied, ImportError>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.threads.max(1)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().expect("copying does not panic")).collect()
    });
    let mut all = Copied::default();
    for result in results {
        let copied = result?;
        all.blobs += copied.blobs;
        all.bytes += copied.bytes;
        all.damage.extend(copied.damage);
    }
    Ok(all)
}

/// The blobs that are not to be had, because they are damaged. It is an error that there are any, unless what is whole is
/// to be taken all the same.
fn lost(bundle: &Bundle, mut damage: Vec<Damage>, keep_going: bool) -> Result<HashSet<Digest>, ImportError> {
    if !keep_going {
        if damage.is_empty() {
            return Ok(HashSet::new());
        }
        damage.sort_by(|a, b| (&a.path, a.offset).cmp(&(&b.path, b.offset)));
        return Err(BundleError::Damaged { path: bundle.path().to_owned(), damage }.into());
    }
    let mut lost: HashSet<Digest> = damage.into_iter().map(|damage| damage.digest).collect();
    // A manifest that the store has was not read by now.
    let manifests = bundle.lock().images.iter().flat_map(LockedImage::manifests);
    let unread = manifests.filter(|digest| bundle.manifest_bytes(digest).is_err()).cloned();
    lost.extend(unread.collect::<Vec<_>>());
    Ok(lost)
}

/// Copies one blob and says how many bytes that were; none when the store has it.
fn copy_blob(
    bundle: &Bundle,
    writer: &Writer,
    blob: &LockedBlob,
    entry: &Entry,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Option<u64>, ImportError> {
    if writer.store().has_blob(&blob.digest)? {
        progress(entry.size);
        return Ok(None);
    }
    let mut target = writer.begin_blob(&blob.digest, entry.size)?;
    let mut done = 0;
    while done < entry.size {
        let space = target.space();
        let wanted = usize::try_from(entry.size - done).map_or(space.len(), |left| left.min(space.len()));
        bundle.read_exact_at(&mut space[..wanted], entry.offset + done)?;
        target.advance(wanted)?;
        done += wanted as u64;
        progress(wanted as u64);
    }
    target.commit()?;
    Ok(Some(entry.size))
}

/// Adds the manifests of `image` to its repository.
fn publish_image(
    bundle: &Bundle,
    batch: &mut Batch<'_>,
    image: &LockedImage,
    lost: &HashSet<Digest>,
) -> Result<(), ImportError> {
    let name = image.reference.name();
    let root = &image.root;
    publish_manifest(bundle, batch, name, &root.digest, &root.media_type, true)?;
    // An image is whole without the metadata of children that no node kind fetches.
    let is_lost = |child: &Child| {
        child.metadata_only
            && std::iter::once(&child.digest).chain(child.carried_blobs()).any(|d| lost.contains(d))
    };
    for child in image.children.iter().filter(|child| !is_lost(child)) {
        publish_manifest(bundle, batch, name, &child.digest, &child.media_type, !child.metadata_only)?;
    }
    for evidence in &image.evidence {
        publish_manifest(bundle, batch, name, &evidence.digest, &evidence.media_type, true)?;
    }
    Ok(())
}

/// Adds a manifest to the repository `name` and gives it the blobs of the manifest; only the configuration unless `whole`.
fn publish_manifest(
    bundle: &Bundle,
    batch: &mut Batch<'_>,
    name: &RepositoryName,
    digest: &Digest,
    media_type: &str,
    whole: bool,
) -> Result<(), ImportError> {
    let bytes = bundle.manifest_bytes(digest)?;
    let document = Document::parse(Some(media_type), bytes.clone()).map_err(|source| {
        ImportError::Manifest { path: bundle.path().to_owned(), digest: digest.clone(), source }
    })?;
    batch.put_manifest(name, digest, media_type, &bytes)?;
    if let Document::Image(image) = document {
        let lock = bundle.lock();
        let required =
            |digest: &Digest| lock.requires.binary_search_by(|blob| blob.digest.cmp(digest)).is_ok();
        let here = |digest: &Digest| bundle.place(digest).is_some() || required(digest);
        let count = if whole { usize::MAX } else { 1 };
        for blob in image.blobs().take(count).filter(|blob| here(&blob.digest)) {
            batch.link_blob(name, &blob.digest)?;
        }
    }
    Ok(())
}

/// Adds the bundle's own documents, so that the site can be asked what it was brought and who signed it.
fn publish_bundle(
    bundle: &Bundle,
    writer: &Writer,
    batch: &mut Batch<'_>,
    lost: &HashSet<Digest>,
) -> Result<(), ImportError> {
    let name = bundle.lock().name.repository();
    for (digest, media_type, bytes) in bundle.tail().documents() {
        if media_type::is_index(media_type) || media_type::is_image(media_type) {
            batch.put_manifest(&name, digest, media_type, &Bytes::copy_from_slice(bytes))?;
            continue;
        }
        if !writer.store().has_blob(digest)? {
            let mut target = writer.begin_blob(digest, bytes.len() as u64)?;
            target.write(bytes)?;
            target.commit()?;
        }
        batch.link_blob(&name, digest)?;
    }
    // A configuration that an image has as well lies in the head.
    for digest in [Digest::sha256(b"{}"), Digest::sha256(trust::SIGNATURE_CONFIG)] {
        if bundle.place(&digest).is_some() && !lost.contains(&digest) {
            batch.link_blob(&name, &digest)?;
        }
    }
    for file in bundle.lock().files.iter().filter(|file| !lost.contains(&file.digest)) {
        batch.link_blob(&name, &file.digest)?;
        if let Some((path, file)) = hosted(&name, file) {
            batch.put_file(&path, &file)?;
        }
    }
    for (name, tag, meaning) in bundle.own_tags().iter() {
        batch.add_meaning(name, tag, meaning.clone())?;
    }
    Ok(())
}

/// The path under which a site serves `file`, whose content is in the repository `name`, and what it keeps of it.
pub(super) fn hosted(name: &RepositoryName, file: &LockedFile) -> Option<(String, HostedFile)> {
    let (host, path) = file.address()?;
    let (repository, digest) = (name.clone(), file.digest.clone());
    Some((path, HostedFile { host, repository, digest, size: file.size }))
}

impl Bundle {
    /// The bytes of the manifest `digest`, verified.
    pub(super) fn manifest_bytes(&self, digest: &Digest) -> Result<Bytes, BundleError> {
        if let Some((_, bytes)) = self.tail().document(digest) {
            return Ok(Bytes::copy_from_slice(bytes));
        }
        let malformed = |offset, what: &str| self.media().malformed(offset, what);
        let place = self.place(digest).ok_or_else(|| malformed(0, &format!("{digest} is missing")))?;
        let size = usize::try_from(place.size).ok().filter(|size| *size <= MAX_MANIFEST_BYTES);
        let size = size.ok_or_else(|| malformed(place.offset, "a manifest that is too large"))?;
        let mut bytes = vec![0; size];
        self.read_exact_at(&mut bytes, place.offset)?;
        if digest.matches(&bytes) {
            Ok(bytes.into())
        } else {
            Err(malformed(place.offset, &format!("{digest} has another content")))
        }
    }
}
