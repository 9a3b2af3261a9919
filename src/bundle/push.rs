//! Pushing the images of bundles into a registry that a site has already.
//!
//! In three passes, each of them complete before the next one begins: blobs, manifests by their digests, tags. So nobody
//! who pulls by a name meanwhile gets an image that is not whole. Nothing is rewritten: digests stay as they were locked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;

use super::serve::ServedBundles;
use crate::oci::{
    Descriptor, Digest, Document, ParseReferenceError, Reference, RepositoryName, Tag, TagMeaning,
};
use crate::resolve::LockedImage;
use crate::store::{Content, ContentError, Manifest};
use crate::text;
use crate::upstream::{Problem, Pusher, ReadAt, UpstreamError};

/// How many refused indexes are named.
const NAMED: usize = 10;

/// A registry, perhaps with a path in it, that images are pushed below: `harbor.site.local/mirror`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination(String);

impl Destination {
    /// What the repository `name` is called there: its whole name below the path, host included, so that images of different
    /// registries stay apart. A colon before a port becomes an underscore.
    pub fn name(&self, name: &RepositoryName) -> Result<RepositoryName, ParseReferenceError> {
        format!("{}/{}", self.0, name.as_str().replace(':', "_")).parse()
    }
}

impl FromStr for Destination {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim_end_matches('/');
        let name: RepositoryName = format!("{text}/x").parse()?;
        match name.host() {
            Some(_) => Ok(Self(text.to_owned())),
            None => Err(ParseReferenceError::Host(text.to_owned())),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why images were not pushed. Tags are set last, so none points at what is not whole.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The registry.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The bundle.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// An image has no name there.
    #[error("{image} cannot have a name below {destination}: {reason}")]
    Name {
        /// The image.
        image: Reference,
        /// Where it was to go.
        destination: Destination,
        /// Why not.
        reason: ParseReferenceError,
    },
    /// The registry takes an index only with all of its manifests.
    #[error(
        "{destination} refuses {} whose platforms are not all in the bundle: {}; no tag was set",
        if images.len() == 1 { "an index" } else { "indexes" },
        named(images)
    )]
    Sparse {
        /// The registry.
        destination: Destination,
        /// The images with the number of manifests that are not in the bundle.
        images: Vec<(Reference, usize)>,
        /// What the registry says.
        answer: String,
    },
    /// A tag does not mean what it was just set to.
    #[error("{tag} means {actual} right after it was set to {expected}; does somebody else push there?")]
    Moved {
        /// The tag.
        tag: Reference,
        /// What it was set to.
        expected: Digest,
        /// What it means.
        actual: Digest,
    },
}

fn named(images: &[(Reference, usize)]) -> String {
    text::list(images.iter().map(|(image, absent)| format!("{image} ({absent} left out)")), NAMED)
}

/// What was pushed.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pushed {
    /// The images.
    pub images: Vec<PushedImage>,
    /// How many blobs were brought, counted in each repository.
    pub blobs: usize,
    /// How many were there.
    pub present: usize,
    /// Tags that only pinned references would have set, and that mean something else in the registry already.
    pub kept_tags: Vec<Reference>,
    /// Signatures and SBOMs that the registry does not list for their images, because it has no referrers API.
    pub unlisted: usize,
}

/// An image that was pushed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PushedImage {
    /// The image, as nodes ask for it.
    #[serde(rename = "ref")]
    pub reference: Reference,
    /// Where it is now.
    pub pushed: Reference,
    /// The digest of its index or manifest, which is the same in both places.
    pub digest: Digest,
}

/// Pushes the images of `bundles`, whose signatures the caller has checked, below `destination`, with `concurrency` transfers
/// at the same time. Every blob is verified before its first byte leaves. `progress` is told of bytes that have arrived or
/// were there, [`bytes_to_push`] in all.
pub async fn push(
    bundles: Arc<ServedBundles>,
    destination: &Destination,
    pusher: &Pusher,
    concurrency: usize,
    progress: &(dyn Fn(u64) + Send + Sync),
) -> Result<Pushed, PushError> {
    let plan = Plan::new(&bundles, destination)?;
    let counts = BlobCounts::default();
    stream::iter(&plan.blobs)
        .map(|(digest, blob)| push_blob(&bundles, pusher, digest, blob, progress, &counts))
        .buffer_unordered(concurrency.max(1))
        .try_collect::<()>()
        .await?;
    let unlisted = AtomicUsize::new(0);
    let mut refused = Vec::new();
    for level in &plan.manifests {
        let answers: Vec<_> = stream::iter(level)
            .map(|document| push_document(&bundles, pusher, document, &unlisted))
            .buffer_unordered(concurrency.max(1))
            .try_collect()
            .await?;
        refused.extend(answers.into_iter().flatten());
    }
    if let Some((_, _, answer)) = refused.first().cloned() {
        let mut images: Vec<_> = refused.into_iter().map(|(image, absent, _)| (image, absent)).collect();
        images.sort_unstable();
        images.dedup();
        return Err(PushError::Sparse { destination: destination.clone(), images, answer });
    }
    let mut kept_tags = Vec::new();
    for tagged in &plan.tags {
        let tag = Reference::new(tagged.name.clone(), Some(tagged.tag.clone()), None);
        // The registry does not say which kind of reference set a tag that it has.
        if !tagged.moves
            && let Some(present) = tag_in(pusher, &tag).await?
        {
            if present != tagged.target.digest {
                kept_tags.push(tag);
            }
            continue;
        }
        let manifest = read(&bundles, &tagged.source, &tagged.target.digest).await?;
        pusher.push_manifest(&tagged.name, &tagged.target, Some(&tagged.tag), &manifest.bytes).await?;
        let actual = pusher.read_back(&tag).await?.digest;
        if actual != tagged.target.digest {
            return Err(PushError::Moved { tag, expected: tagged.target.digest.clone(), actual });
        }
    }
    Ok(Pushed {
        images: plan.images,
        blobs: counts.brought.into_inner(),
        present: counts.present.into_inner(),
        kept_tags,
        unlisted: unlisted.into_inner(),
    })
}

/// Returns what a tag means in the registry; `None` if it has no such tag.
async fn tag_in(pusher: &Pusher, tag: &Reference) -> Result<Option<Digest>, UpstreamError> {
    match pusher.read_back(tag).await {
        Ok(found) => Ok(Some(found.digest)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}

/// How many bytes of blobs the images of `bundles` have, counted in each repository that they go to.
pub fn bytes_to_push(bundles: &ServedBundles, destination: &Destination) -> Result<u64, PushError> {
    let plan = Plan::new(bundles, destination)?;
    Ok(plan.blobs.values().map(|blob| blob.size * blob.places.len() as u64).sum())
}

/// What goes where.
#[derive(Default)]
struct Plan {
    blobs: BTreeMap<Digest, Placed>,
    /// What names nothing else first, then what names only that, and so on.
    manifests: Vec<Vec<Placement>>,
    tags: Vec<Tagged>,
    images: Vec<PushedImage>,
}

/// A blob: its repositories there, and here.
#[derive(Default)]
struct Placed {
    size: u64,
    places: BTreeMap<RepositoryName, RepositoryName>,
}

/// A manifest: its repository there, and the image that it belongs to.
struct Placement {
    image: Reference,
    name: RepositoryName,
    digest: Digest,
    /// How many of the manifests that it names are not in the bundle.
    absent: usize,
}

struct Tagged {
    source: RepositoryName,
    name: RepositoryName,
    tag: Tag,
    target: Descriptor,
    /// Whether the tag is moved if the registry has it already.
    moves: bool,
}

impl Plan {
    fn new(bundles: &ServedBundles, destination: &Destination) -> Result<Self, PushError> {
        let mut plan = Self::default();
        let mut seen = BTreeSet::new();
        let mut names = BTreeMap::new();
        for image in bundles.images() {
            let name = destination.name(image.reference.name()).map_err(|reason| PushError::Name {
                image: image.reference.clone(),
                destination: destination.clone(),
                reason,
            })?;
            plan.add(bundles, image, &name, &mut seen)?;
            names.insert(image.reference.name(), name);
        }
        for (source, tag, meaning) in bundles.all_tags().iter() {
            let (Some(name), Some(target)) = (names.get(source), meaning.target()) else { continue };
            // The evidence of images that a later bundle replaces is not pushed.
            if seen.contains(&(name.clone(), target.digest.clone())) {
                plan.tags.push(Tagged {
                    source: source.clone(),
                    name: name.clone(),
                    tag: tag.clone(),
                    target: target.clone(),
                    moves: matches!(meaning, TagMeaning::Unpinned(_)),
                });
            }
        }
        Ok(plan)
    }

    fn add(
        &mut self,
        bundles: &ServedBundles,
        image: &LockedImage,
        name: &RepositoryName,
        seen: &mut BTreeSet<(RepositoryName, Digest)>,
    ) -> Result<(), PushError> {
        let source = image.reference.name();
        // Registries refuse a manifest without its layers.
        let present: BTreeSet<&Digest> = image.kept_manifests().collect();
        let mut levels = BTreeMap::new();
        for digest in image.kept_manifests() {
            let level = level(bundles, source, digest, &present, &mut levels)?;
            if !seen.insert((name.clone(), digest.clone())) {
                continue;
            }
            let mut absent = 0;
            match document(bundles, source, digest)? {
                Some(Document::Image(manifest)) => {
                    for blob in manifest.blobs() {
                        if let Some(size) = bundles.blob_size(source, &blob.digest)? {
                            let blob = self.blobs.entry(blob.digest.clone()).or_default();
                            blob.size = size;
                            blob.places.insert(name.clone(), source.clone());
                        }
                    }
                }
                Some(Document::Index(index)) => {
                    absent = index.manifests.iter().filter(|entry| !present.contains(&entry.digest)).count();
                }
                None => {}
            }
            if self.manifests.len() <= level {
                self.manifests.resize_with(level + 1, Vec::new);
            }
            let (image, name, digest) = (image.reference.clone(), name.clone(), digest.clone());
            self.manifests[level].push(Placement { image, name, digest, absent });
        }
        let digest = image.root.digest.clone();
        let pinned = image.reference.digest().map(|_| digest.clone());
        let pushed = Reference::new(name.clone(), image.reference.tag().cloned(), pinned);
        self.images.push(PushedImage { reference: image.reference.clone(), pushed, digest });
        Ok(())
    }
}

/// How many steps there are from a manifest down to what names no other manifest that is here.
fn level(
    bundles: &ServedBundles,
    name: &RepositoryName,
    digest: &Digest,
    present: &BTreeSet<&Digest>,
    known: &mut BTreeMap<Digest, usize>,
) -> Result<usize, PushError> {
    if let Some(level) = known.get(digest) {
        return Ok(*level);
    }
    let mut found = 0;
    if let Some(Document::Index(index)) = document(bundles, name, digest)? {
        for entry in index.manifests.iter().filter(|entry| present.contains(&entry.digest)) {
            found = found.max(level(bundles, name, &entry.digest, present, known)? + 1);
        }
    }
    known.insert(digest.clone(), found);
    Ok(found)
}

fn document(
    bundles: &ServedBundles,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<Option<Document>, ContentError> {
    let manifest = bundles.manifest(name, digest)?;
    Ok(manifest.and_then(|manifest| Document::parse(Some(&manifest.media_type), manifest.bytes).ok()))
}

/// The manifest `digest`, read on a thread that may wait for the disk.
async fn read(
    bundles: &Arc<ServedBundles>,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<Manifest, PushError> {
    let (bundles, name, wanted) = (Arc::clone(bundles), name.clone(), digest.clone());
    let read = tokio::task::spawn_blocking(move || bundles.manifest(&name, &wanted));
    let manifest = read.await.map_err(std::io::Error::other).map_err(ContentError::from)??;
    Ok(manifest.ok_or_else(|| ContentError::Damaged(digest.clone()))?)
}

/// Counts blobs, in each repository that they go to.
#[derive(Default)]
struct BlobCounts {
    brought: AtomicUsize,
    /// Those that were there.
    present: AtomicUsize,
}

/// Brings a blob into every repository that is to have it: once over the network, then from there.
async fn push_blob(
    bundles: &Arc<ServedBundles>,
    pusher: &Pusher,
    digest: &Digest,
    placed: &Placed,
    progress: &(dyn Fn(u64) + Send + Sync),
    counts: &BlobCounts,
) -> Result<(), PushError> {
    let blob = Descriptor::new("application/octet-stream", digest.clone(), placed.size);
    let mut held_by: Option<&RepositoryName> = None;
    for (name, source) in &placed.places {
        if pusher.has_blob(name, &blob).await? {
            counts.present.fetch_add(1, Ordering::Relaxed);
            progress(blob.size);
        } else {
            let (bundles, source, wanted) = (Arc::clone(bundles), source.clone(), digest.clone());
            // It is read once as a whole here, to be verified.
            let opened = tokio::task::spawn_blocking(move || bundles.blob(&source, &wanted));
            let opened = opened.await.map_err(std::io::Error::other).map_err(ContentError::from)??;
            let opened = opened.ok_or_else(|| ContentError::Damaged(digest.clone()))?;
            let read: ReadAt = Arc::new(move |buffer, position| opened.read_at(buffer, position));
            pusher.push_blob(name, &blob, held_by, &read, progress).await?;
            counts.brought.fetch_add(1, Ordering::Relaxed);
        }
        held_by = Some(name);
    }
    Ok(())
}

/// Puts a manifest under its digest and reads it back. An index that the registry refuses, and that has manifests which are
/// not here, is returned with what the registry says.
async fn push_document(
    bundles: &Arc<ServedBundles>,
    pusher: &Pusher,
    placement: &Placement,
    unlisted: &AtomicUsize,
) -> Result<Option<(Reference, usize, String)>, PushError> {
    let Placement { image, name, digest, absent } = placement;
    let Manifest { media_type, bytes } = read(bundles, image.name(), digest).await?;
    let descriptor = Descriptor::new(&media_type, digest.clone(), bytes.len() as u64);
    let answer = pusher.push_manifest(name, &descriptor, None, &bytes).await;
    let accepted = match answer {
        Err(error) if *absent > 0 && is_refusal(&error) => {
            let said = error.problem().map(ToString::to_string).unwrap_or_default();
            return Ok(Some((image.clone(), *absent, said)));
        }
        other => other?,
    };
    pusher.read_back(&Reference::new(name.clone(), None, Some(digest.clone()))).await?;
    let refers = Document::parse(Some(&media_type), bytes).is_ok_and(|document| document.subject().is_some());
    if refers && !accepted.lists_referrer {
        unlisted.fetch_add(1, Ordering::Relaxed);
    }
    Ok(None)
}

/// Whether the registry has understood the request and does not want it.
fn is_refusal(error: &UpstreamError) -> bool {
    matches!(
        error.problem(),
        Some(Problem::Missing(_) | Problem::Status { status: 400 | 409 | 412 | 415 | 422, .. })
    )
}
