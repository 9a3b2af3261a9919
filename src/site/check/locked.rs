//! Images that bundles will bring, looked up in their locks.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use serde_json::{Value, json};

use super::images::Images;
use crate::oci::{Descriptor, Digest, Platform, Reference, RepositoryName, TagMeaning, Tags, media_type};
use crate::resolve::{Lock, LockedImage};
use crate::store::{ContentError, Manifest};

/// What a site has once the bundles of some locks have been imported in their order. It answers with documents that say as
/// much as the locks do.
pub(super) struct Locked<'a> {
    locks: &'a [Lock],
    tags: Tags,
    manifests: HashMap<(&'a RepositoryName, &'a Digest), Carried<'a>>,
    /// What the indexes list.
    indexes: HashMap<&'a Digest, &'a [Descriptor]>,
    /// What images run on by their configurations, by the digests of these.
    platforms: HashMap<&'a Digest, Option<&'a Platform>>,
    sizes: HashMap<&'a Digest, u64>,
    /// The blobs that each repository gets.
    blobs: HashSet<(&'a RepositoryName, &'a Digest)>,
}

/// A manifest that is carried.
struct Carried<'a> {
    media_type: &'a str,
    /// Its configuration and its layers.
    blobs: &'a [Digest],
}

impl<'a> Locked<'a> {
    pub(super) fn new(locks: &'a [Lock]) -> Self {
        let mut locked = Self {
            locks,
            tags: Tags::default(),
            manifests: HashMap::new(),
            indexes: HashMap::new(),
            platforms: HashMap::new(),
            sizes: HashMap::new(),
            blobs: HashSet::new(),
        };
        for lock in locks {
            locked.tags.add_all(&lock.tags());
            locked.indexes.extend(lock.indexes.iter().map(|index| (&index.digest, index.entries.as_slice())));
            locked.sizes.extend(lock.blobs.iter().map(|blob| (&blob.digest, blob.size)));
            locked.sizes.extend(lock.requires.iter().map(|blob| (&blob.digest, blob.size)));
        }
        let images = || locks.iter().flat_map(|lock| &lock.images);
        for image in images() {
            let name = image.reference.name();
            locked.blobs.extend(image.contents().map(|digest| (name, digest)));
            locked.add_children(image);
        }
        // What a configuration was read to say counts more than what an index says of it.
        for image in images() {
            locked.add_root(image);
        }
        locked
    }

    fn add_children(&mut self, image: &'a LockedImage) {
        for child in &image.children {
            let carried = Carried { media_type: &child.media_type, blobs: &child.blobs };
            self.manifests.insert((image.reference.name(), &child.digest), carried);
            if let Some(config) = child.blobs.first() {
                let platform = child.config_platform.as_ref().or(child.platform.as_ref());
                self.platforms.insert(config, platform);
            }
        }
        for evidence in &image.evidence {
            let carried = Carried { media_type: &evidence.media_type, blobs: &evidence.blobs };
            self.manifests.entry((image.reference.name(), &evidence.digest)).or_insert(carried);
        }
    }

    fn add_root(&mut self, image: &'a LockedImage) {
        let carried = Carried { media_type: &image.root.media_type, blobs: &image.blobs };
        self.manifests.insert((image.reference.name(), &image.root.digest), carried);
        if let Some(config) = image.blobs.first() {
            self.platforms.insert(config, image.platform.as_ref());
        }
    }

    /// Returns the image behind `reference` if its lock does not say what its index lists, as those of schema 1 do not.
    pub(super) fn unlisted(&self, reference: &Reference) -> Option<&'a LockedImage> {
        let digest = self.target(reference)?;
        let images = || self.locks.iter().rev().flat_map(|lock| &lock.images);
        let is_it =
            |image: &&LockedImage| image.root.digest == *digest && image.reference.name() == reference.name();
        // The same reference says more about the nodes that it is kept for.
        let same = |image: &&LockedImage| image.reference == *reference && is_it(image);
        let image = images().find(same).or_else(|| images().find(is_it))?;
        (media_type::is_index(&image.root.media_type) && !self.indexes.contains_key(digest)).then_some(image)
    }

    fn target<'r>(&'r self, reference: &'r Reference) -> Option<&'r Digest> {
        match (reference.digest(), reference.tag()) {
            (Some(digest), _) => Some(digest),
            (None, Some(tag)) => self.tags.target(reference.name(), tag).map(|target| &target.digest),
            (None, None) => None,
        }
    }

    fn described(&self, media_type: &str, digest: &Digest) -> Value {
        let size = self.sizes.get(digest).copied().unwrap_or_default();
        json!(Descriptor::new(media_type, digest.clone(), size))
    }
}

impl Images for Locked<'_> {
    fn root(&self, reference: &Reference) -> Result<Option<Digest>, ContentError> {
        let target = self.target(reference);
        let is_carried = |digest: &&Digest| self.manifests.contains_key(&(reference.name(), *digest));
        Ok(target.filter(is_carried).cloned())
    }

    fn meaning(&self, reference: &Reference) -> Result<Option<TagMeaning>, ContentError> {
        let tag = reference.tag().filter(|_| reference.digest().is_none());
        Ok(tag.and_then(|tag| self.tags.get(reference.name(), tag)).cloned())
    }

    fn manifest(&self, name: &RepositoryName, digest: &Digest) -> Result<Option<Manifest>, ContentError> {
        let Some(Carried { media_type, blobs }) = self.manifests.get(&(name, digest)) else {
            return Ok(None);
        };
        let mut document = json!({"schemaVersion": 2, "mediaType": media_type});
        if media_type::is_index(media_type) {
            document["manifests"] = json!(self.indexes.get(digest).copied().unwrap_or_default());
        } else if let Some((config, layers)) = blobs.split_first() {
            let layer = |digest: &Digest| self.described(media_type::OCI_LAYER_GZIP, digest);
            document["config"] = self.described(media_type::OCI_CONFIG, config);
            document["layers"] = layers.iter().map(layer).collect();
        }
        let bytes = Bytes::from(document.to_string());
        Ok(Some(Manifest { media_type: (*media_type).to_owned(), bytes }))
    }

    fn blob_size(&self, name: &RepositoryName, digest: &Digest) -> Result<Option<u64>, ContentError> {
        // The layers of children that no node kind fetches are there only if another image of the repository has them.
        Ok(self.sizes.get(digest).copied().filter(|_| self.blobs.contains(&(name, digest))))
    }

    fn config(&self, _: &RepositoryName, config: &Descriptor) -> Result<Option<Bytes>, ContentError> {
        let platform = self.platforms.get(&config.digest).copied().flatten();
        Ok(platform.map(|platform| json!(platform).to_string().into()))
    }
}
