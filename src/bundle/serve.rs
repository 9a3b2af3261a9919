//! Serving bundles as they are: names from the lock, bytes from the file, each blob verified before its first byte
//! leaves.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;

use super::import::hosted;
use super::read::Bundle;
use crate::oci::{Descriptor, Digest, Document, RepositoryName, Tag, TagMeaning, Tags, media_type};
use crate::resolve::LockedImage;
use crate::store::{Blob, Content, ContentError, HostedFile, Manifest, Stamp, Usage, Verified};
use crate::trust;

/// Why bundles cannot be served as they are.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// They leave out what a store has, and nothing here is a store.
    #[error(
        "{count} blobs ({bytes} bytes) are left out of the bundle, so these images would not start: {}; import it into \
         the store that has the rest, or serve the bundle that it builds on beside it",
        images.join(", ")
    )]
    LeftOut {
        /// How many blobs are in none of the bundles.
        count: usize,
        /// Their size together in bytes.
        bytes: u64,
        /// The images that need them.
        images: Vec<String>,
    },
    /// A bundle cannot be read.
    #[error(transparent)]
    Content(#[from] ContentError),
}

/// Bundles that are served together. Tags mean what they would if the bundles had been imported in this order.
pub struct ServedBundles {
    bundles: Vec<Bundle>,
    stamps: Vec<Stamp>,
    repositories: BTreeMap<RepositoryName, Repository>,
    tags: Tags,
    /// Plain files by the path of their address and its host.
    files: BTreeMap<String, BTreeMap<String, HostedFile>>,
    verified: Verified,
}

#[derive(Default)]
struct Repository {
    /// The manifests with the bundle that has them.
    manifests: HashMap<Digest, (usize, String)>,
    /// The blobs of those manifests.
    blobs: HashMap<Digest, usize>,
    /// Referrers by their subject, in the order of their digests.
    referrers: HashMap<Digest, BTreeMap<Digest, Descriptor>>,
}

/// What a manifest says about other content.
#[derive(Default)]
struct Links {
    /// Its configuration and layers, with the bundles that have them.
    blobs: Vec<(Digest, usize)>,
    /// The subject, and how this manifest appears among its referrers.
    subject: Option<(Digest, Descriptor)>,
}

impl ServedBundles {
    /// Takes `bundles`, whose signatures the caller has checked. Reads their manifests, but no layer.
    ///
    /// What one of them leaves out must be in another.
    pub fn new(bundles: Vec<Bundle>) -> Result<Self, ServeError> {
        check_left_out(&bundles)?;
        let stamps = bundles.iter().map(|bundle| bundle.media().stamp()).collect();
        let mut repositories = BTreeMap::new();
        let mut tags = Tags::default();
        for (nth, bundle) in bundles.iter().enumerate() {
            add_images(&mut repositories, nth, &bundles)?;
            tags.add_all(&bundle.lock().tags());
            add_own(&mut repositories, nth, &bundles);
            tags.add_all(&bundle.own_tags());
        }
        let mut files: BTreeMap<String, BTreeMap<String, HostedFile>> = BTreeMap::new();
        for lock in bundles.iter().map(Bundle::lock) {
            for (path, file) in lock.files.iter().filter_map(|file| hosted(&lock.name.repository(), file)) {
                files.entry(path).or_default().insert(file.host.clone(), file);
            }
        }
        Ok(Self { bundles, stamps, repositories, tags, files, verified: Verified::default() })
    }
}

impl ServedBundles {
    /// Returns the images of all bundles, without those that a later bundle replaces: it has the same reference without a
    /// digest, and something else under it.
    pub(super) fn images(&self) -> impl Iterator<Item = &LockedImage> {
        let images = self.bundles.iter().flat_map(|bundle| &bundle.lock().images);
        images.filter(|image| match (image.reference.digest(), image.reference.tag()) {
            (None, Some(tag)) => {
                let target = self.tags.target(image.reference.name(), tag);
                target.is_some_and(|target| target.digest == image.root.digest)
            }
            _ => true,
        })
    }

    /// Returns what the tags mean.
    pub fn all_tags(&self) -> &Tags {
        &self.tags
    }
}

/// The bundle that has the content `digest`: the `nth` if it does, or the last of the others.
fn holder(bundles: &[Bundle], nth: usize, digest: &Digest) -> Option<usize> {
    let own = &bundles[nth];
    if own.place(digest).is_some() || own.tail_place(digest).is_some() {
        return Some(nth);
    }
    bundles.iter().rposition(|bundle| bundle.place(digest).is_some())
}

fn check_left_out(bundles: &[Bundle]) -> Result<(), ServeError> {
    let mut absent = BTreeMap::new();
    let mut images = BTreeSet::new();
    for (nth, bundle) in bundles.iter().enumerate() {
        let lock = bundle.lock();
        let missing = lock.requires.iter().filter(|blob| holder(bundles, nth, &blob.digest).is_none());
        absent.extend(missing.map(|blob| (&blob.digest, blob.size)));
        let needs = lock.images.iter().filter(|image| image.contents().any(|d| absent.contains_key(d)));
        images.extend(needs.map(|image| image.reference.to_string()));
    }
    if absent.is_empty() {
        return Ok(());
    }
    let (count, bytes) = (absent.len(), absent.values().sum());
    Err(ServeError::LeftOut { count, bytes, images: images.into_iter().collect() })
}

fn add_images(
    repositories: &mut BTreeMap<RepositoryName, Repository>,
    nth: usize,
    bundles: &[Bundle],
) -> Result<(), ContentError> {
    let bundle = &bundles[nth];
    let mut read: HashMap<&Digest, Links> = HashMap::new();
    for image in &bundle.lock().images {
        let repository = repositories.entry(image.reference.name().clone()).or_default();
        let root = (&image.root.digest, &image.root.media_type, true);
        let children =
            image.children.iter().map(|child| (&child.digest, &child.media_type, !child.metadata_only));
        let evidence = image.evidence.iter().map(|evidence| (&evidence.digest, &evidence.media_type, true));
        for (digest, media_type, whole) in std::iter::once(root).chain(children).chain(evidence) {
            repository.manifests.insert(digest.clone(), (nth, media_type.clone()));
            if !read.contains_key(digest) {
                read.insert(digest, links_of(bundles, nth, digest, media_type)?);
            }
            let links = &read[digest];
            // The configuration comes first.
            let count = if whole { usize::MAX } else { 1 };
            repository.blobs.extend(links.blobs.iter().take(count).cloned());
            if let Some((subject, referrer)) = &links.subject {
                let referrers = repository.referrers.entry(subject.clone()).or_default();
                referrers.insert(digest.clone(), referrer.clone());
            }
        }
    }
    Ok(())
}

fn links_of(
    bundles: &[Bundle],
    nth: usize,
    digest: &Digest,
    media_type: &str,
) -> Result<Links, ContentError> {
    let damaged = || ContentError::Damaged(digest.clone());
    let bytes = bundles[nth].manifest_bytes(digest).map_err(|_| damaged())?;
    let document = Document::parse(Some(media_type), bytes).map_err(|_| damaged())?;
    let subject = document.subject().map(|subject| (subject.digest.clone(), document.as_referrer(digest)));
    let blobs = match &document {
        Document::Image(image) => image.blobs().map(|blob| blob.digest.clone()).collect(),
        Document::Index(_) => Vec::new(),
    };
    let held = |blob: Digest| holder(bundles, nth, &blob).map(|holder| (blob, holder));
    Ok(Links { blobs: blobs.into_iter().filter_map(held).collect(), subject })
}

/// Adds the bundle's own documents, as an import does.
fn add_own(repositories: &mut BTreeMap<RepositoryName, Repository>, nth: usize, bundles: &[Bundle]) {
    let bundle = &bundles[nth];
    let repository = repositories.entry(bundle.lock().name.repository()).or_default();
    for (digest, media_type, bytes) in bundle.tail().documents() {
        repository.manifests.insert(digest.clone(), (nth, media_type.to_owned()));
        repository.blobs.insert(digest.clone(), nth);
        // What is no manifest refers to nothing.
        if let Ok(document) = Document::parse(Some(media_type), Bytes::copy_from_slice(bytes))
            && let Some(subject) = document.subject()
        {
            let referrers = repository.referrers.entry(subject.digest.clone()).or_default();
            referrers.insert(digest.clone(), document.as_referrer(digest));
        }
    }
    for file in &bundle.lock().files {
        repository.blobs.extend(holder(bundles, nth, &file.digest).map(|nth| (file.digest.clone(), nth)));
    }
}

impl Bundle {
    /// Returns the tags of the bundle's own documents: its index is found by its sequence number, the signatures by the tag
    /// that cosign derives from the index.
    pub(super) fn own_tags(&self) -> Tags {
        let name = self.lock().name.repository();
        let mut tags = Tags::default();
        let mut tag = |text: String, target: Descriptor| {
            let tag = text.parse().expect("numbers and digests make valid tags");
            tags.add(&name, &tag, TagMeaning::Unpinned(target));
        };
        tag(self.lock().sequence.to_string(), self.index().clone());
        if let Some(signatures) = self.signatures() {
            let bytes = signatures.simple().to_bytes(&self.claim().payload);
            tag(trust::signature_tag(&self.index().digest), Descriptor::of(media_type::OCI_MANIFEST, &bytes));
        }
        tags
    }
}

impl Content for ServedBundles {
    fn meaning(&self, name: &RepositoryName, tag: &Tag) -> Result<Option<TagMeaning>, ContentError> {
        Ok(self.tags.get(name, tag).cloned())
    }

    fn manifest(&self, name: &RepositoryName, digest: &Digest) -> Result<Option<Manifest>, ContentError> {
        let found = self.repositories.get(name).and_then(|repository| repository.manifests.get(digest));
        let Some((nth, media_type)) = found else { return Ok(None) };
        match self.bundles[*nth].manifest_bytes(digest) {
            Ok(bytes) => {
                self.verified.note_readable(digest);
                Ok(Some(Manifest { media_type: media_type.clone(), bytes }))
            }
            // It is read anew for the next one who asks, when the medium may give it again.
            Err(error) => {
                tracing::error!("{error}");
                self.verified.note_unreadable(digest, self.stamps[*nth]);
                Err(ContentError::Damaged(digest.clone()))
            }
        }
    }

    fn blob(&self, name: &RepositoryName, digest: &Digest) -> Result<Option<Blob>, ContentError> {
        let found = self.repositories.get(name).and_then(|repository| repository.blobs.get(digest));
        let Some(nth) = found else { return Ok(None) };
        let bundle = &self.bundles[*nth];
        let Some(place) = bundle.place(digest).or_else(|| bundle.tail_place(digest)) else { return Ok(None) };
        let blob = Blob::new(bundle.media().bytes().slice(place.offset, place.size));
        self.verified.check(digest, self.stamps[*nth], blob).map(Some)
    }

    fn blob_size(&self, name: &RepositoryName, digest: &Digest) -> Result<Option<u64>, ContentError> {
        let found = self.repositories.get(name).and_then(|repository| repository.blobs.get(digest));
        let Some(nth) = found else { return Ok(None) };
        let bundle = &self.bundles[*nth];
        Ok(bundle.place(digest).or_else(|| bundle.tail_place(digest)).map(|place| place.size))
    }

    fn tags(
        &self,
        name: &RepositoryName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Option<Vec<Tag>>, ContentError> {
        let page = || {
            let tags = self.tags.names(name).filter(|tag| after.is_none_or(|after| tag.as_str() > after));
            tags.take(limit).cloned().collect()
        };
        Ok(self.repositories.contains_key(name).then(page))
    }

    fn repositories(&self, after: Option<&str>, limit: usize) -> Result<Vec<RepositoryName>, ContentError> {
        let names = self.repositories.keys().filter(|name| after.is_none_or(|after| name.as_str() > after));
        Ok(names.take(limit).cloned().collect())
    }

    fn manifests(&self, name: &RepositoryName, limit: usize) -> Result<Vec<Digest>, ContentError> {
        let manifests = self.repositories.get(name).into_iter().flat_map(|found| found.manifests.keys());
        Ok(manifests.take(limit).cloned().collect())
    }

    fn referrers(&self, name: &RepositoryName, subject: &Digest) -> Result<Vec<Descriptor>, ContentError> {
        let Some(repository) = self.repositories.get(name) else { return Ok(Vec::new()) };
        Ok(repository
            .referrers
            .get(subject)
            .map(|found| found.values().cloned().collect())
            .unwrap_or_default())
    }

    fn files(&self, path: &str) -> Result<Vec<HostedFile>, ContentError> {
        Ok(self.files.get(path).map(|hosts| hosts.values().cloned().collect()).unwrap_or_default())
    }

    fn usage(&self) -> Result<Usage, ContentError> {
        let mut sizes = HashMap::new();
        for repository in self.repositories.values() {
            let manifests = repository.manifests.iter().map(|(digest, (nth, _))| (digest, *nth));
            let blobs = repository.blobs.iter().map(|(digest, nth)| (digest, *nth));
            for (digest, nth) in manifests.chain(blobs) {
                let bundle = &self.bundles[nth];
                let place = bundle.place(digest).or_else(|| bundle.tail_place(digest));
                sizes.extend(place.map(|place| (digest, place.size)));
            }
        }
        Ok(Usage { blobs: sizes.len() as u64, bytes: sizes.values().sum() })
    }

    fn damaged(&self) -> Vec<Digest> {
        self.verified.damaged()
    }
}
