//! Which images of a store belong to which release, and letting go of releases that a site is done with.
//!
//! What goes is worked out first, all of it, from the locks of the bundles that were imported. Only what came with them is
//! ever looked at, and of that everything stays that a kept release, a definition's own list, a tag, another manifest or a
//! node needs.

mod brought;
mod bundles;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use crate::oci::{Digest, Document, ParseReferenceError, Reference, RepositoryName, Tag, TagMeaning};
use crate::resolve::{Lock, LockedImage, tags_of};
use crate::store::{Author, Content as _, Event, Prune, Store, StoreError, Sweep, Swept, Writer};
use brought::{Brought, brought, document};
use bundles::{Leaving, leaving};

/// Why releases cannot be let go of.
#[derive(Debug, thiserror::Error)]
pub enum RetainError {
    /// A release that is to be kept is in none of the imported bundles, or went already.
    #[error("the store does not have the release {0}; it has {1}")]
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
    /// What the cluster has or uses, and who: reasons of the kinds [`Reason::Node`] and [`Reason::Pod`].
    pub in_use: BTreeMap<Observed, BTreeSet<Reason>>,
    /// Content that nothing refers to stays until it is this old: it may belong to a push that is not finished.
    pub grace: Duration,
}

/// An image as a kubelet names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Observed {
    /// By reference.
    Reference(Reference),
    /// By the digest of a manifest or configuration alone, as container runtimes name what has no reference.
    Digest(Digest),
}

/// The schemes that the Docker shim put before the id of an image.
const SCHEMES: [&str; 2] = ["docker-pullable://", "docker://"];

impl FromStr for Observed {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = SCHEMES.iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or(text);
        match text.parse() {
            Ok(digest) => Ok(Self::Digest(digest)),
            Err(_) => text.parse().map(Self::Reference),
        }
    }
}

impl Observed {
    fn digest(&self) -> Option<&Digest> {
        match self {
            Self::Reference(reference) => reference.digest(),
            Self::Digest(digest) => Some(digest),
        }
    }
}

/// Why an image stays, the strongest reason first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Reason {
    /// A release that is kept needs it.
    Release {
        /// The release.
        release: String,
    },
    /// A definition named it itself.
    List {
        /// The list, as the lock names it.
        list: String,
    },
    /// A pod uses it.
    Pod {
        /// The namespace of the pod.
        namespace: String,
        /// Its name.
        pod: String,
    },
    /// A kubelet lists it among the images on its disk.
    Node {
        /// The node.
        node: String,
    },
    /// Its content belongs to another image or tag that stays.
    Shared,
}

/// A tag with the meaning that it gets; `None` if it goes.
type Settled = (RepositoryName, Tag, Option<TagMeaning>);

/// What is kept and what goes, worked out before anything does.
#[derive(Debug)]
pub struct Retention {
    /// The images that stay, of those that came in bundles, with all reasons.
    pub kept: BTreeMap<Reference, BTreeSet<Reason>>,
    /// The images that go with their content.
    pub removed: BTreeSet<Reference>,
    /// The images of which only the tag goes: their content belongs to another image or tag that stays.
    pub untagged: BTreeSet<Reference>,
    /// The plain files that go, by their addresses upstream.
    pub files: BTreeSet<String>,
    /// Images that go, by the releases that need them.
    pub losing: BTreeMap<String, BTreeSet<Reference>>,
    /// The releases in the store that are not kept.
    pub others: BTreeSet<String>,
    /// Releases that are to be kept and of which images are not there, with these images.
    pub partial: BTreeMap<String, BTreeSet<Reference>>,
    tags: BTreeSet<(RepositoryName, Tag)>,
    settled: Vec<Settled>,
    manifests: BTreeMap<RepositoryName, BTreeSet<Digest>>,
    leaving: Leaving,
    sweep: Sweep,
}

impl Retention {
    /// Returns all images that cannot be pulled by their references any more.
    pub fn gone(&self) -> BTreeSet<Reference> {
        &self.removed | &self.untagged
    }

    /// Returns every tag that goes: of images, of their evidence, and of bundles.
    pub fn tags(&self) -> BTreeSet<String> {
        let tags = self.tags.iter().chain(&self.leaving.tags);
        tags.map(|(name, tag)| format!("{name}:{tag}")).collect()
    }

    /// Returns whether nothing goes.
    pub fn is_empty(&self) -> bool {
        let leaving = &self.leaving;
        let manifests =
            self.manifests.values().chain(leaving.manifests.values()).chain(leaving.indexes.values());
        self.tags().is_empty()
            && manifests.flatten().next().is_none()
            && leaving.records.is_empty()
            && self.settled.is_empty()
            && self.swept() == Swept::default()
    }

    /// The content that goes with the images and files, and what else nothing refers to.
    pub fn swept(&self) -> Swept {
        self.sweep.swept()
    }
}

/// The locks of the bundles that were imported into `store` and of which something is left, each once, in the order in which
/// they first came.
///
/// Nothing is decided by them, so receipts that cannot be relied on are left out with a warning.
pub fn imported_locks(store: &Store) -> Result<Vec<Lock>, RetainError> {
    let log = store.log()?;
    for damage in log.damage() {
        tracing::warn!("the log of the store is damaged: {damage}");
    }
    Ok(brought(store, &log)?.0.into_iter().map(|bundle| bundle.lock).collect())
}

/// Works out which images only releases need that are not to be kept. Images that a definition named itself stay, and so
/// does everything that was pushed. Nothing is changed.
///
/// A plan that is to be carried out is made while the store's writer is held.
pub fn plan_retention(store: &Store, keep: &Keep) -> Result<Retention, RetainError> {
    let (all, remains) = brought(store, &store.log()?.sound()?)?;
    let partial = check_kept(store, &all, keep)?;
    let (stay, go): (Vec<&LockedImage>, Vec<&LockedImage>) =
        all.iter().flat_map(|bundle| &bundle.lock.images).partition(|image| is_kept(image, keep));
    let mut kept: BTreeMap<Reference, BTreeSet<Reason>> = BTreeMap::new();
    for image in &stay {
        kept.entry(image.reference.clone()).or_default().extend(reasons(image, keep));
    }
    let tags = image_tags(store, &go, &stay)?;
    let needed = Needed { stay: &stay, in_use: keep.in_use.keys().filter_map(Observed::digest).collect() };
    let images = manifests(&go, |image| root_and_children(image).cloned().collect());
    let images = needed.take_from(store, images, &tags)?;
    let goes = |image: &LockedImage| images[image.reference.name()].contains(&image.root.digest);
    // Evidence goes with the image that it is about, also when that went in an interrupted run.
    let mut gone: Vec<&LockedImage> = Vec::new();
    for image in go.iter().copied() {
        if goes(image)
            || store.manifest(image.reference.name(), &image.root.digest).map_err(StoreError::from)?.is_none()
        {
            gone.push(image);
        }
    }
    let tags = &tags | &evidence_tags(store, &gone, &stay)?;
    let candidates = manifests(&gone, |image| image.manifests().cloned().collect());
    let mut candidates = needed.take_from(store, candidates, &tags)?;
    for (name, digests) in &images {
        candidates.entry(name.clone()).or_default().extend(digests.iter().cloned());
    }
    let images = go.iter().copied().filter(|image| goes(image)).map(|image| &image.reference);
    let removed: BTreeSet<Reference> = images.filter(|name| !kept.contains_key(name)).cloned().collect();
    let (mut untagged, mut shared) = (BTreeSet::new(), BTreeSet::new());
    for image in go.iter().filter(|image| !goes(image) && !kept.contains_key(&image.reference)) {
        let reference = &image.reference;
        if reference.tag().is_some_and(|tag| tags.contains(&(reference.name().clone(), tag.clone()))) {
            untagged.insert(reference.clone());
        } else if store.manifest(reference.name(), &image.root.digest).map_err(StoreError::from)?.is_some() {
            shared.insert(reference.clone());
        }
    }
    for reference in
        shared.into_iter().filter(|shared| !removed.contains(shared) && !untagged.contains(shared))
    {
        kept.entry(reference).or_default().insert(Reason::Shared);
    }
    let leaving = leaving(store, &all, &remains, keep)?;
    let mut everything = candidates.clone();
    for (name, digests) in leaving.manifests.iter().chain(&leaving.indexes) {
        everything.entry(name.clone()).or_default().extend(digests.iter().cloned());
    }
    let sweep = store.plan_sweep(&everything, keep.grace)?;
    Ok(Retention {
        losing: losing(&all, keep, &(&removed | &untagged)),
        files: leaving.urls.clone(),
        others: releases(&all)
            .filter(|release| !keep.releases.contains(*release))
            .map(str::to_owned)
            .collect(),
        settled: settled(store, &all, &stay)?,
        kept,
        removed,
        untagged,
        partial,
        tags,
        manifests: candidates,
        leaving,
        sweep,
    })
}

/// Lets go of what [`plan_retention`] found, with the same writer: tags first, then manifests, then content, so that nothing
/// that can be asked for is ever incomplete; and bundles after their images, so that what was interrupted is found again.
/// Hardly anything is written, so that it works on a full disk.
///
/// It is recorded in the log before anything goes, or afterwards where the disk has no room before. Returns whether it is.
pub fn let_go(
    writer: &Writer,
    retention: &Retention,
    keep: &Keep,
    author: &Author<'_>,
) -> Result<bool, RetainError> {
    if retention.is_empty() {
        return Ok(true);
    }
    let record = || match writer.record(Event::Prune(receipt(retention, keep)), author) {
        Err(error) if error.is_storage_full() => Ok(false),
        recorded => recorded.map(|_| true),
    };
    let recorded = record()?;
    remove(writer, retention)?;
    Ok(recorded || record()?)
}

/// What the log says about a prune.
fn receipt(retention: &Retention, keep: &Keep) -> Prune {
    let Swept { blobs, bytes } = retention.swept();
    Prune {
        keep: keep.releases.clone(),
        removed: retention.gone(),
        tags: retention.tags(),
        files: retention.files.clone(),
        blobs,
        bytes,
    }
}

fn remove(writer: &Writer, retention: &Retention) -> Result<(), StoreError> {
    // One by one: several at once would be announced in a file, which a full disk has no room for.
    let delete_tags = |tags: &BTreeSet<(RepositoryName, Tag)>| -> Result<(), StoreError> {
        for (name, tag) in tags {
            let mut batch = writer.batch();
            batch.delete_tag(name, tag)?;
            batch.commit()?;
        }
        Ok(())
    };
    let delete_manifests =
        |manifests: &BTreeMap<RepositoryName, BTreeSet<Digest>>| -> Result<(), StoreError> {
            for (name, digests) in manifests {
                let mut batch = writer.batch();
                for digest in digests {
                    batch.delete_manifest(name, digest)?;
                }
                batch.commit()?;
            }
            Ok(())
        };
    let leaving = &retention.leaving;
    delete_tags(&retention.tags)?;
    delete_manifests(&retention.manifests)?;
    let mut batch = writer.batch();
    for (path, host) in &leaving.records {
        batch.delete_file(path, host)?;
    }
    batch.commit()?;
    delete_tags(&leaving.tags)?;
    delete_manifests(&leaving.manifests)?;
    delete_manifests(&leaving.indexes)?;
    writer.finish_sweep(&retention.sweep)?;
    // Last, because it takes a little room.
    for (name, tag, meaning) in &retention.settled {
        let mut batch = writer.batch();
        batch.set_meaning(name, tag, meaning.clone())?;
        batch.commit()?;
    }
    Ok(())
}

/// The releases of bundles, some of them more than once.
fn releases(all: &[Brought]) -> impl Iterator<Item = &str> {
    all.iter().flat_map(|bundle| &bundle.lock.releases).map(|release| release.release.as_str())
}

/// Refuses to keep what is not there. A release of which only a part is there can be kept; the rest is returned.
fn check_kept(
    store: &Store,
    all: &[Brought],
    keep: &Keep,
) -> Result<BTreeMap<String, BTreeSet<Reference>>, RetainError> {
    let absent = absent_images(store, all)?;
    let known: BTreeSet<&str> = releases(all).collect();
    let images = |release: &str| -> BTreeSet<&Reference> {
        all.iter().flat_map(|bundle| bundle.images_of(release)).collect()
    };
    let whole: BTreeSet<&str> =
        known.iter().copied().filter(|release| images(release).is_disjoint(&absent)).collect();
    let kept = whole.iter().filter(|release| keep.releases.contains(**release));
    let others: BTreeSet<&Reference> = kept.flat_map(|release| images(release)).collect();
    let mut partial = BTreeMap::new();
    for release in keep.releases.iter().filter(|release| !whole.contains(release.as_str())) {
        let needed = images(release);
        let lacking: BTreeSet<Reference> = needed.intersection(&absent).copied().cloned().collect();
        if lacking.is_empty() || needed.iter().all(|image| absent.contains(image) || others.contains(image)) {
            let whole = whole.iter().copied().collect::<Vec<_>>().join(", ");
            let whole = if whole.is_empty() { "no release at all".to_owned() } else { whole };
            return Err(RetainError::Unknown(release.clone(), whole));
        }
        partial.insert(release.clone(), lacking);
    }
    Ok(partial)
}

/// The images of bundles that the store does not have any more.
fn absent_images<'a>(store: &Store, all: &'a [Brought]) -> Result<BTreeSet<&'a Reference>, StoreError> {
    let mut there = BTreeSet::new();
    let mut absent = BTreeSet::new();
    for image in all.iter().flat_map(|bundle| &bundle.lock.images) {
        let is_there = store.manifest(image.reference.name(), &image.root.digest)?.is_some();
        if is_there { &mut there } else { &mut absent }.insert(&image.reference);
    }
    Ok(&absent - &there)
}

/// The tags of images that go. A tag that has been moved since is not what the release brought. A tag stays with an image
/// that stays and gives it the same meaning.
fn image_tags(
    store: &Store,
    go: &[&LockedImage],
    stay: &[&LockedImage],
) -> Result<BTreeSet<(RepositoryName, Tag)>, StoreError> {
    let kept = tags_of(stay.iter().copied());
    let mut tags = BTreeSet::new();
    for image in go {
        let name = image.reference.name();
        let Some(tag) = image.reference.tag() else { continue };
        let stays = match kept.get(name, tag) {
            Some(TagMeaning::Unpinned(_)) => true,
            Some(TagMeaning::Pinned(target)) => target.digest == image.root.digest,
            Some(TagMeaning::Disputed) | None => false,
        };
        if !stays && store.resolve(name, tag)?.is_some_and(|target| target.digest == image.root.digest) {
            tags.insert((name.clone(), tag.clone()));
        }
    }
    Ok(tags)
}

/// What tags mean after the images have gone to which pinned references disagree now: what the images that stay say.
fn settled(store: &Store, all: &[Brought], stay: &[&LockedImage]) -> Result<Vec<Settled>, StoreError> {
    let kept = tags_of(stay.iter().copied());
    let images = all.iter().flat_map(|bundle| &bundle.lock.images);
    let names: BTreeSet<&RepositoryName> = images.map(|image| image.reference.name()).collect();
    let mut settled = Vec::new();
    for name in names {
        for tag in store.disputed_tags(name)? {
            let is_disputed = store.meaning(name, &tag)? == Some(TagMeaning::Disputed);
            let meaning = kept.get(name, &tag).cloned();
            if is_disputed && meaning != Some(TagMeaning::Disputed) {
                settled.push((name.clone(), tag, meaning));
            }
        }
    }
    Ok(settled)
}

/// The tags by which the evidence of images that are `gone` is found, unless an image has it that stays.
fn evidence_tags(
    store: &Store,
    gone: &[&LockedImage],
    stay: &[&LockedImage],
) -> Result<BTreeSet<(RepositoryName, Tag)>, StoreError> {
    let tags = |images: &[&LockedImage]| -> BTreeSet<(RepositoryName, Tag, Digest)> {
        let of = |image: &&LockedImage| {
            let name = image.reference.name().clone();
            let tagged = image.evidence.clone().into_iter();
            tagged.filter_map(move |evidence| Some((name.clone(), evidence.tag?, evidence.digest)))
        };
        images.iter().flat_map(of).collect()
    };
    let mut found = BTreeSet::new();
    for (name, tag, digest) in &tags(gone) - &tags(stay) {
        if store.resolve(&name, &tag)?.is_some_and(|target| target.digest == digest) {
            found.insert((name, tag));
        }
    }
    Ok(found)
}

fn root_and_children(image: &LockedImage) -> impl Iterator<Item = &Digest> {
    std::iter::once(&image.root.digest).chain(image.children.iter().map(|child| &child.digest))
}

/// The manifests of images, by repository.
fn manifests(
    images: &[&LockedImage],
    of: impl Fn(&LockedImage) -> Vec<Digest>,
) -> BTreeMap<RepositoryName, BTreeSet<Digest>> {
    let mut manifests: BTreeMap<RepositoryName, BTreeSet<Digest>> = BTreeMap::new();
    for image in images {
        manifests.entry(image.reference.name().clone()).or_default().extend(of(image));
    }
    manifests
}

/// The releases that lose images, and which.
fn losing(
    all: &[Brought],
    keep: &Keep,
    removed: &BTreeSet<Reference>,
) -> BTreeMap<String, BTreeSet<Reference>> {
    let mut losing: BTreeMap<String, BTreeSet<Reference>> = BTreeMap::new();
    for bundle in all {
        for release in bundle.lock.releases.iter().map(|release| &release.release) {
            let images: BTreeSet<Reference> =
                bundle.images_of(release).filter(|image| removed.contains(image)).cloned().collect();
            if !images.is_empty() && !keep.releases.contains(release) {
                losing.entry(release.clone()).or_default().extend(images);
            }
        }
    }
    losing
}

/// What manifests cannot go for.
struct Needed<'a> {
    stay: &'a [&'a LockedImage],
    in_use: Vec<&'a Digest>,
}

impl Needed<'_> {
    /// What of `candidates` is there and nothing needs that stays: images, the tags of the repositories but those in
    /// `going`, every other manifest, nodes.
    fn take_from(
        &self,
        store: &Store,
        mut candidates: BTreeMap<RepositoryName, BTreeSet<Digest>>,
        going: &BTreeSet<(RepositoryName, Tag)>,
    ) -> Result<BTreeMap<RepositoryName, BTreeSet<Digest>>, StoreError> {
        for (name, candidates) in &mut candidates {
            let images = self.stay.iter().filter(|image| image.reference.name() == name);
            let roots = images.flat_map(|image| image.manifests()).chain(self.in_use.iter().copied());
            take_needed(store, name, going, roots.cloned().collect(), candidates)?;
        }
        Ok(candidates)
    }
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

/// Whether a kept release, a list of a definition, a node or a pod needs the image.
fn is_kept(image: &LockedImage, keep: &Keep) -> bool {
    !reasons(image, keep).is_empty()
}

/// Why the image stays, if it does.
fn reasons(image: &LockedImage, keep: &Keep) -> BTreeSet<Reason> {
    let needed =
        image.needed_by.iter().filter_map(|by| match by.release().map(|release| release.to_string()) {
            Some(release) => keep.releases.contains(&release).then_some(Reason::Release { release }),
            None => Some(Reason::List { list: by.to_string() }),
        });
    let in_use = keep.in_use.iter().filter(|(observed, _)| is_observed(image, observed));
    needed.chain(in_use.flat_map(|(_, who)| who.iter().cloned())).collect()
}

/// Whether a node may have the image as `observed`: under its own name, or the same path and tag at another registry or
/// below a prefix, as with k0s' `images.repository`, or by the digest of its root, of a manifest for a platform, or of a
/// configuration.
fn is_observed(image: &LockedImage, observed: &Observed) -> bool {
    let is_digest =
        |digest: &Digest| root_and_children(image).chain(image.contents()).any(|own| own == digest);
    let Observed::Reference(pulled) = observed else { return observed.digest().is_some_and(is_digest) };
    let (own, other) = (&image.reference, pulled.name().as_str());
    let below = |path: &str| other.strip_suffix(path).is_some_and(|front| front.ends_with('/'));
    let named = pulled.tag().is_some()
        && pulled.tag() == own.tag()
        && (other == own.name().as_str() || below(own.repository()));
    named || pulled.digest().is_some_and(|digest| root_and_children(image).any(|own| own == digest))
}
