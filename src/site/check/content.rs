//! Whether what serves the nodes has an image for a node, down to the last blob that its runtime would download.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::images::{Images, SiteRegistry};
use super::locked::Locked;
use crate::oci::{
    Descriptor, Digest, Document, Image, ImageConfig, NodeKind, Platform, Reference, RepositoryName,
    TagMeaning, media_type,
};
use crate::resolve::{Child, Lock, LockedImage};
use crate::select::{self, Band};
use crate::store::{Content, ContentError};

/// What serves the nodes, or will.
#[derive(Clone)]
pub enum Source {
    /// A store, or bundles served in place.
    Content(Arc<dyn Content>),
    /// A registry that is asked over the network.
    Registry(Arc<SiteRegistry>),
    /// What bundles will have, as their locks say.
    Locks(Vec<Lock>),
    /// Nothing is known of it: only the configuration is judged, and no image is looked for.
    Unknown,
}

/// The images of a source; each is looked at once, however many nodes need it.
pub(super) struct Shelf<'a> {
    source: &'a Source,
    /// What the locks say, if the source is locks.
    locked: Option<Locked<'a>>,
    seen: RefCell<BTreeMap<Reference, Option<Rc<Found>>>>,
}

/// An image that is there.
#[expect(clippy::large_enum_variant, reason = "one is made for a moment for each image")]
enum Found {
    /// An index.
    Index(Shelved),
    /// A single image, what it was built for, and what of it is missing.
    Single(Option<Platform>, Option<String>),
    /// An image of a lock that does not say what the image's index lists.
    Locked(LockedImage),
}

/// An index that is there. Its images are looked at when a runtime downloads them and not before: a registry would count
/// every other question as something that a node missed.
struct Shelved {
    name: RepositoryName,
    entries: Vec<Descriptor>,
    seen: RefCell<BTreeMap<usize, Rc<Looked>>>,
}

/// An image of an index, looked at.
struct Looked {
    /// What its configuration says, where the index does not.
    config: Option<Platform>,
    /// What is missing of it.
    missing: Option<String>,
}

impl<'a> Shelf<'a> {
    pub(super) fn new(source: &'a Source) -> Self {
        let locked = match source {
            Source::Locks(locks) => Some(Locked::new(locks)),
            Source::Content(_) | Source::Registry(_) | Source::Unknown => None,
        };
        Self { source, locked, seen: RefCell::default() }
    }

    /// Why a node of `kind` with a runtime of one of `bands` does not get the image; none when it does. Of several names
    /// the first that is there counts.
    pub(super) fn lacks(
        &self,
        names: &[Reference],
        kind: &NodeKind,
        bands: &[&'static Band],
    ) -> Result<Option<String>, ContentError> {
        if matches!(self.source, Source::Unknown) {
            return Ok(None);
        }
        // As a registry looks for tags.
        let mut pinned: Option<(&Reference, Rc<Found>)> = None;
        for name in names {
            let Some(found) = self.find(name)? else { continue };
            match &pinned {
                None if self.is_pinned(name)? => pinned = Some((name, found)),
                Some((first, _)) if !first.name().is_same_as(name.name()) || self.is_pinned(name)? => {}
                _ => return self.reason(&found, kind, bands),
            }
        }
        match pinned {
            Some((_, found)) => self.reason(&found, kind, bands),
            None => Ok(Some("it is not there".to_owned())),
        }
    }

    /// Whether only pinned references have set the tag of a reference without a digest.
    fn is_pinned(&self, reference: &Reference) -> Result<bool, ContentError> {
        let Some(images) = self.images() else { return Ok(false) };
        Ok(matches!(images.meaning(reference)?, Some(TagMeaning::Pinned(_))))
    }

    fn find(&self, reference: &Reference) -> Result<Option<Rc<Found>>, ContentError> {
        if let Some(found) = self.seen.borrow().get(reference) {
            return Ok(found.clone());
        }
        let unlisted = self.locked.as_ref().and_then(|locked| locked.unlisted(reference));
        let found = match (unlisted, self.images()) {
            (Some(image), _) => Some(Found::Locked(image.clone())),
            (None, Some(images)) => look_up(images, reference)?,
            (None, None) => None,
        };
        let found = found.map(Rc::new);
        self.seen.borrow_mut().insert(reference.clone(), found.clone());
        Ok(found)
    }

    /// Where manifests and blobs are looked up.
    fn images(&self) -> Option<&dyn Images> {
        match self.source {
            Source::Content(content) => Some(content),
            Source::Registry(registry) => Some(registry.as_ref()),
            Source::Locks(_) => self.locked.as_ref().map(|locked| locked as &dyn Images),
            Source::Unknown => None,
        }
    }

    fn reason(
        &self,
        found: &Found,
        kind: &NodeKind,
        bands: &[&'static Band],
    ) -> Result<Option<String>, ContentError> {
        match found {
            Found::Single(platform, missing) => {
                Ok(missing.clone().or_else(|| unfit(platform.as_ref(), kind)))
            }
            Found::Index(index) => chosen(&index.entries, kind, bands, |at| self.look_at(index, at)),
            Found::Locked(image) => match self.unproven(kind, bands) {
                Some(reason) => Ok(Some(reason)),
                None => locked(image, kind, bands),
            },
        }
    }

    /// Looks at the image at a position of an index, once.
    fn look_at(&self, index: &Shelved, at: usize) -> Result<Rc<Looked>, ContentError> {
        if let Some(seen) = index.seen.borrow().get(&at) {
            return Ok(Rc::clone(seen));
        }
        let Some(images) = self.images() else {
            return Ok(Rc::new(Looked { config: None, missing: None }));
        };
        let entry = &index.entries[at];
        let looked = match document(images, &index.name, &entry.digest)? {
            Ok(Document::Image(image)) => Looked {
                missing: missing_blob(images, &index.name, &image)?,
                config: match entry.platform {
                    None => config(images, &index.name, &image)?,
                    Some(_) => None,
                },
            },
            Ok(Document::Index(_)) => {
                Looked { config: None, missing: Some(format!("{} is not an image", entry.digest)) }
            }
            Err(missing) => Looked { config: None, missing: Some(missing) },
        };
        let looked = Rc::new(looked);
        index.seen.borrow_mut().insert(at, Rc::clone(&looked));
        Ok(looked)
    }

    /// Says when locks were made for other runtimes than a Windows node has: they keep only what those download.
    fn unproven(&self, kind: &NodeKind, bands: &[&'static Band]) -> Option<String> {
        let Source::Locks(locks) = self.source else { return None };
        let mut rows = locks.iter().flat_map(|lock| &lock.proof);
        if !kind.is_windows() || !rows.any(|row| row.node == *kind) {
            return None;
        }
        let other = bands.iter().find(|band| !locks.iter().any(|lock| lock.covers(kind, band)))?;
        Some(format!(
            "the lock was made for other runtimes than {}; state it in the definition's `runtimes`",
            other.label()
        ))
    }
}

/// Why a single image does not run on a node.
fn unfit(platform: Option<&Platform>, kind: &NodeKind) -> Option<String> {
    let platform = platform.filter(|platform| !select::can_run(&kind.platform(), platform))?;
    Some(format!("it is one image for {}, without an index", platform.shown()))
}

/// Why a runtime would not get along with these entries; `look_at` gives what is there of one.
fn chosen(
    entries: &[Descriptor],
    kind: &NodeKind,
    bands: &[&'static Band],
    mut look_at: impl FnMut(usize) -> Result<Rc<Looked>, ContentError>,
) -> Result<Option<String>, ContentError> {
    for band in bands {
        let choice = band.choose(&kind.platform(), entries);
        let Some(pick) = choice.picks else { return Ok(Some(choice.reason)) };
        if !choice.checks_config && !choice.runs {
            return Ok(Some(choice.reason));
        }
        for at in &choice.fetches {
            if let Some(missing) = &look_at(*at)?.missing {
                let platform = entries[*at].platform.as_ref();
                let platform = platform.map_or_else(|| "an entry".to_owned(), Platform::shown);
                return Ok(Some(format!("{} downloads {platform}, and {missing}", band.label())));
            }
        }
        if choice.checks_config && unfit(look_at(pick)?.config.as_ref(), kind).is_some() {
            return Ok(Some(choice.reason));
        }
    }
    Ok(None)
}

/// Why a runtime would not get along with what a lock keeps.
fn locked(
    image: &LockedImage,
    kind: &NodeKind,
    bands: &[&'static Band],
) -> Result<Option<String>, ContentError> {
    let children: Vec<&Child> =
        image.children.iter().filter(|child| !media_type::is_index(&child.media_type)).collect();
    // What was kept as a whole names no nodes.
    let carried =
        |child: &&Child| !child.metadata_only && (child.nodes.is_empty() || child.nodes.contains(kind));
    if !children.iter().copied().any(|child| carried(&child)) {
        return Ok(Some(format!("the lock keeps nothing of it for {kind}")));
    }
    let entries: Vec<Descriptor> = children.iter().map(|child| child.descriptor()).collect();
    chosen(&entries, kind, bands, |at| {
        let missing = children[at].metadata_only.then(|| "its layers were left out".to_owned());
        Ok(Rc::new(Looked { config: None, missing }))
    })
}

/// Looks up an image with all that belongs to it.
fn look_up(images: &dyn Images, reference: &Reference) -> Result<Option<Found>, ContentError> {
    let name = reference.name();
    let Some(digest) = images.root(reference)? else { return Ok(None) };
    Ok(Some(match document(images, name, &digest)? {
        Ok(Document::Index(index)) => {
            let read = |digest: &Digest| Ok::<_, ContentError>(document(images, name, digest)?.ok());
            match select::expand(&index, read)? {
                Ok(expansion) => Found::Index(Shelved {
                    name: name.clone(),
                    entries: expansion.entries,
                    seen: RefCell::default(),
                }),
                Err(error) => Found::Single(None, Some(error.to_string())),
            }
        }
        Ok(Document::Image(image)) => {
            let missing = missing_blob(images, name, &image)?;
            Found::Single(config(images, name, &image)?, missing)
        }
        Err(missing) => Found::Single(None, Some(missing)),
    }))
}

/// A manifest, or why there is none.
fn document(
    images: &dyn Images,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<Result<Document, String>, ContentError> {
    match images.manifest(name, digest) {
        Ok(Some(manifest)) => {
            let parsed = Document::parse(Some(&manifest.media_type), manifest.bytes);
            Ok(parsed.map_err(|error| format!("{digest} cannot be read: {error}")))
        }
        Ok(None) => Ok(Err(format!("{digest} is not there"))),
        Err(ContentError::Damaged(digest)) => Ok(Err(format!("{digest} is damaged"))),
        Err(error) => Err(error),
    }
}

/// The first blob of an image that is not there.
fn missing_blob(
    images: &dyn Images,
    name: &RepositoryName,
    image: &Image,
) -> Result<Option<String>, ContentError> {
    for blob in image.blobs() {
        match images.blob_size(name, &blob.digest)? {
            Some(size) if size == blob.size => {}
            Some(_) => return Ok(Some(format!("its blob {} has another size than stated", blob.digest))),
            None => return Ok(Some(format!("its blob {} is not there", blob.digest))),
        }
    }
    Ok(None)
}

/// What an image was built for, from its configuration. Its absence or damage is told as that of a blob.
fn config(
    images: &dyn Images,
    name: &RepositoryName,
    image: &Image,
) -> Result<Option<Platform>, ContentError> {
    let bytes = images.config(name, &image.config)?;
    Ok(bytes.and_then(|bytes| ImageConfig::parse(&bytes).ok()).and_then(|config| config.platform()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::select::{Runtime, node_bands};
    use crate::store::{Batch, Store, Writer};

    const NAME: &str = "registry.k8s.io/pause";

    /// A store in the making.
    struct Site {
        _directory: tempfile::TempDir,
        store: Store,
    }

    impl Site {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let store = Store::create(&directory.path().join("store")).unwrap();
            Self { _directory: directory, store }
        }

        fn fill(&self, fill: impl FnOnce(&Writer, &mut Batch<'_>)) {
            let writer = self.store.writer("test", Duration::ZERO).unwrap();
            let mut batch = writer.batch();
            fill(&writer, &mut batch);
            batch.commit().unwrap();
        }

        fn lacks(&self, image: &str, kind: &str, runtime: &str) -> Option<String> {
            let source = Source::Content(Arc::new(self.store.clone()));
            let kind: NodeKind = kind.parse().unwrap();
            let bands = node_bands(&kind, &[runtime.parse::<Runtime>().unwrap()]);
            Shelf::new(&source).lacks(&[image.parse().unwrap()], &kind, &bands).unwrap()
        }
    }

    fn document(media_type: &str, mut fields: Value) -> (Descriptor, Vec<u8>) {
        fields["schemaVersion"] = json!(2);
        fields["mediaType"] = json!(media_type);
        let bytes = fields.to_string().into_bytes();
        (Descriptor::of(media_type, &bytes), bytes)
    }

    fn put(batch: &mut Batch<'_>, (descriptor, bytes): &(Descriptor, Vec<u8>)) {
        let name = NAME.parse().unwrap();
        let bytes = bytes.clone().into();
        batch.put_manifest(&name, &descriptor.digest, &descriptor.media_type, &bytes).unwrap();
    }

    /// An image for a platform, with its blobs unless `bare`.
    fn image(
        writer: &Writer,
        batch: &mut Batch<'_>,
        platform: &Platform,
        bare: bool,
    ) -> (Descriptor, Vec<u8>) {
        let config = serde_json::to_vec(platform).unwrap();
        let layer = format!("layer for {platform}").into_bytes();
        if !bare {
            for bytes in [&config, &layer] {
                let digest = Digest::sha256(bytes);
                let mut blob = writer.begin_blob(&digest, bytes.len() as u64).unwrap();
                blob.write(bytes).unwrap();
                blob.commit().unwrap();
                batch.link_blob(&NAME.parse().unwrap(), &digest).unwrap();
            }
        }
        let config = Descriptor::of(media_type::OCI_CONFIG, &config);
        let layer = Descriptor::of(media_type::OCI_LAYER_GZIP, &layer);
        document(media_type::OCI_MANIFEST, json!({"config": config, "layers": [layer]}))
    }

    /// An index under the tag, with what is there of its entries.
    fn index(site: &Site, tag: &str, entries: &[(&str, bool, bool)]) {
        site.fill(|writer, batch| {
            let mut manifests = Vec::new();
            for (platform, absent, bare) in entries {
                let platform: Platform = platform.parse().unwrap();
                let image = image(writer, batch, &platform, *bare);
                if !absent {
                    put(batch, &image);
                }
                manifests.push(Descriptor { platform: Some(platform), ..image.0 });
            }
            let index = document(media_type::OCI_INDEX, json!({"manifests": manifests}));
            put(batch, &index);
            batch.set_tag(&NAME.parse().unwrap(), &tag.parse().unwrap(), &index.0).unwrap();
        });
    }

    #[test]
    fn what_a_runtime_downloads_has_to_be_there() {
        let site = Site::new();
        let (old, new) = ("windows(10.0.20348.1)/amd64", "windows(10.0.26100.1)/amd64");
        index(&site, "3.9", &[("linux/amd64", false, false), (old, true, true), (new, false, false)]);
        let pause = "registry.k8s.io/pause:3.9";
        assert_eq!(site.lacks(pause, "linux/amd64", "containerd@1.7.34"), None);
        let arm = site.lacks(pause, "linux/arm64", "containerd@1.7.34").unwrap();
        assert!(arm.contains("linux/arm64"), "{arm}");
        // containerd 2.1 and later downloads every entry that a Windows Server 2025 runs.
        let host = "windows(10.0.26100)/amd64";
        let both = site.lacks(pause, host, "containerd@2.1.6").unwrap();
        assert!(both.contains("downloads windows(10.0.20348.1)/amd64, and sha256:"), "{both}");
        assert!(site.lacks(pause, "windows(10.0.17763)/amd64", "containerd@2.1.6").is_some());
        assert_eq!(
            site.lacks("registry.k8s.io/pause:3.8", host, "containerd@2.1.6").unwrap(),
            "it is not there"
        );
    }

    #[test]
    fn blobs_count_too() {
        let site = Site::new();
        index(&site, "3.9", &[("linux/amd64", false, true)]);
        let missing = site.lacks("registry.k8s.io/pause:3.9", "linux/amd64", "containerd@1.7.34").unwrap();
        assert!(missing.contains("its blob sha256:") && missing.ends_with("is not there"), "{missing}");
    }

    #[test]
    fn a_single_image_is_judged_by_its_configuration() {
        let site = Site::new();
        site.fill(|writer, batch| {
            let single = image(writer, batch, &"linux/amd64".parse().unwrap(), false);
            put(batch, &single);
            batch.set_tag(&NAME.parse().unwrap(), &"1".parse().unwrap(), &single.0).unwrap();
        });
        assert_eq!(site.lacks("registry.k8s.io/pause:1", "linux/amd64", "containerd@1.7.34"), None);
        let windows = site.lacks("registry.k8s.io/pause:1", "windows(10.0.20348)/amd64", "containerd@1.7.34");
        assert_eq!(windows.unwrap(), "it is one image for linux/amd64, without an index");
    }
}
