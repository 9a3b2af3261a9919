//! Reading a store: the [`Content`] that the registry serves.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use fs_err as fs;

use crate::oci::{Algorithm, Descriptor, Digest, MAX_MANIFEST_BYTES, RepositoryName, Tag, TagMeaning};

use super::layout::{Repository, parse_digest_file, parse_escaped};
use super::receipt::Receipt;
use super::record::{ManifestRecord, TagRecord, bounded, file_names, named, record};
use super::verify::Stamp;
use super::{Blob, Content, ContentError, HostedFile, Manifest, Store, StoreError, Usage};

/// The first `limit` of `names` after `after`.
fn page<T>(names: BTreeSet<T>, text: impl Fn(&T) -> &str, after: Option<&str>, limit: usize) -> Vec<T> {
    names.into_iter().filter(|name| after.is_none_or(|after| text(name) > after)).take(limit).collect()
}

impl Store {
    fn repository(&self, name: &RepositoryName) -> Option<Repository> {
        self.layout().repository(name)
    }

    pub(super) fn manifest_record(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<ManifestRecord>, ContentError> {
        match self.repository(name) {
            Some(repository) => record(&repository.manifest(digest)),
            None => Ok(None),
        }
    }

    /// Opens a file of content; none when it is missing.
    pub(super) fn open_blob(&self, digest: &Digest) -> Result<Option<(Blob, Stamp)>, ContentError> {
        let path = self.layout().blob(digest);
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(_) => fs::File::open(&path)?.into_file(),
        };
        let metadata = file.metadata().map_err(|error| named(&path, &error))?;
        let stamp = Stamp::of(&metadata);
        Ok(Some((Blob::in_file(Arc::new(file), 0, metadata.len()), stamp)))
    }

    /// The whole of a manifest's content, verified.
    pub(super) fn manifest_bytes(&self, digest: &Digest) -> Result<Bytes, ContentError> {
        let path = self.layout().blob(digest);
        let verified = &self.0.verified;
        let bytes = bounded(&path, MAX_MANIFEST_BYTES as u64)
            .inspect_err(|_| verified.note_unreadable(digest, Stamp::at(&path)))?;
        match bytes {
            Some(bytes) if digest.matches(&bytes) => {
                verified.note_readable(digest);
                Ok(Bytes::from(bytes))
            }
            _ => {
                verified.note(digest, Stamp::at(&path), false);
                Err(ContentError::Damaged(digest.clone()))
            }
        }
    }

    /// Calls `visit` with every piece of content, in no particular order.
    pub(super) fn each_blob(
        &self,
        mut visit: impl FnMut(&Digest, &Metadata) -> Result<(), ContentError>,
    ) -> Result<(), ContentError> {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let directory = self.layout().blobs().join(algorithm.name());
            for shard in file_names(&directory)?.into_iter().flatten() {
                let shard = directory.join(shard?);
                for file in file_names(&shard)?.into_iter().flatten() {
                    let file = file?;
                    let Ok(digest) = format!("{}:{file}", algorithm.name()).parse::<Digest>() else {
                        continue;
                    };
                    match fs::metadata(shard.join(&file)) {
                        Ok(metadata) => visit(&digest, &metadata)?,
                        // It was pruned since its name was read.
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
        Ok(())
    }

    /// Calls `visit` with the digest of every piece of content, in no particular order. Nothing is opened.
    pub fn each_digest(&self, mut visit: impl FnMut(&Digest)) -> Result<(), StoreError> {
        self.each_blob(|digest, _| {
            visit(digest);
            Ok(())
        })
        .map_err(StoreError::from)
    }

    fn has_member(&self, name: &RepositoryName, digest: &Digest) -> Result<bool, ContentError> {
        match self.repository(name) {
            Some(repository) => Ok(repository.blob(digest).try_exists()?),
            None => Ok(false),
        }
    }

    /// Returns the tags of `name` that mean nothing because pinned references to them disagree.
    pub fn disputed_tags(&self, name: &RepositoryName) -> Result<Vec<Tag>, StoreError> {
        let Some(repository) = self.repository(name) else { return Ok(Vec::new()) };
        let mut tags = BTreeSet::new();
        for file in file_names(&repository.disputed_tags())?.into_iter().flatten() {
            tags.extend(parse_escaped::<Tag>(&file?));
        }
        Ok(tags.into_iter().collect())
    }

    /// The receipts of all imports, oldest first. It is an error that any receipt cannot be relied on.
    pub fn imports(&self) -> Result<Vec<Receipt>, StoreError> {
        let entries = self.log()?.sound()?.entries.into_iter();
        Ok(entries.map(|entry| entry.receipt).filter(|receipt| receipt.import().is_some()).collect())
    }
}

impl Content for Store {
    fn meaning(&self, name: &RepositoryName, tag: &Tag) -> Result<Option<TagMeaning>, ContentError> {
        let Some(repository) = self.repository(name) else { return Ok(None) };
        if let Some(publication) = self.0.publication.current(self.layout())?
            && publication.has(name, tag)
        {
            return Ok(publication.meaning(name, tag));
        }
        match record::<TagRecord>(&repository.tag(tag))? {
            Some(record) => Ok(Some(record.into_meaning())),
            None => Ok(repository.disputed_tag(tag).try_exists()?.then_some(TagMeaning::Disputed)),
        }
    }

    fn manifest(&self, name: &RepositoryName, digest: &Digest) -> Result<Option<Manifest>, ContentError> {
        let Some(record) = self.manifest_record(name, digest)? else { return Ok(None) };
        match self.manifest_bytes(digest) {
            // It was pruned since its record was read.
            Err(ContentError::Damaged(_)) if self.manifest_record(name, digest)?.is_none() => Ok(None),
            bytes => Ok(Some(Manifest { media_type: record.media_type, bytes: bytes? })),
        }
    }

    fn blob(&self, name: &RepositoryName, digest: &Digest) -> Result<Option<Blob>, ContentError> {
        if !self.has_member(name, digest)? {
            return Ok(None);
        }
        let Some((blob, stamp)) = self.open_blob(digest)? else {
            // It may have been pruned since the repository was asked.
            if !self.has_member(name, digest)? {
                return Ok(None);
            }
            self.0.verified.note(digest, Stamp::missing(), false);
            return Err(ContentError::Damaged(digest.clone()));
        };
        self.0.verified.check(digest, stamp, blob).map(Some)
    }

    /// Content that is known to be damaged or is missing has no size here, so that a push brings it anew.
    fn blob_size(&self, name: &RepositoryName, digest: &Digest) -> Result<Option<u64>, ContentError> {
        if !self.has_member(name, digest)? {
            return Ok(None);
        }
        match std::fs::metadata(self.layout().blob(digest)) {
            Ok(metadata) if self.0.verified.is_damaged(digest, Stamp::of(&metadata)) => Ok(None),
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(named(&self.layout().blob(digest), &error).into()),
        }
    }

    fn tags(
        &self,
        name: &RepositoryName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Option<Vec<Tag>>, ContentError> {
        let Some(repository) = self.repository(name) else { return Ok(None) };
        let publication = self.0.publication.current(self.layout())?;
        let mut tags = BTreeSet::new();
        for file in file_names(&repository.tags())?.into_iter().flatten() {
            tags.extend(file?.strip_suffix(".json").and_then(parse_escaped::<Tag>));
        }
        for (tag, present) in publication.iter().flat_map(|publication| publication.of(name)) {
            if present {
                tags.insert(tag.clone())
            } else {
                tags.remove(tag)
            };
        }
        if tags.is_empty() && !repository.root().try_exists()? {
            return Ok(None);
        }
        Ok(Some(page(tags, Tag::as_str, after, limit)))
    }

    fn repositories(&self, after: Option<&str>, limit: usize) -> Result<Vec<RepositoryName>, ContentError> {
        let mut names = BTreeSet::new();
        for file in file_names(&self.layout().repositories())?.into_iter().flatten() {
            names.extend(parse_escaped::<RepositoryName>(&file?));
        }
        Ok(page(names, RepositoryName::as_str, after, limit))
    }

    fn manifests(&self, name: &RepositoryName, limit: usize) -> Result<Vec<Digest>, ContentError> {
        let Some(repository) = self.repository(name) else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for file in file_names(&repository.manifests())?.into_iter().flatten().take(limit) {
            found.extend(file?.strip_suffix(".json").and_then(parse_digest_file));
        }
        Ok(found)
    }

    fn referrers(&self, name: &RepositoryName, subject: &Digest) -> Result<Vec<Descriptor>, ContentError> {
        let Some(repository) = self.repository(name) else { return Ok(Vec::new()) };
        let directory = repository.referrers(subject);
        let mut found = Vec::new();
        for file in file_names(&directory)?.into_iter().flatten() {
            let file = file?;
            if file.strip_suffix(".json").and_then(parse_digest_file).is_some() {
                found.extend(record::<Descriptor>(&directory.join(file))?);
            }
        }
        found.sort_unstable_by(|a, b| a.digest.cmp(&b.digest));
        Ok(found)
    }

    fn files(&self, path: &str) -> Result<Vec<HostedFile>, ContentError> {
        let directory = self.layout().files(path);
        let mut found = Vec::new();
        for file in file_names(&directory)?.into_iter().flatten() {
            let file = file?;
            if file.strip_suffix(".json").is_some() {
                found.extend(record::<HostedFile>(&directory.join(file))?);
            }
        }
        found.sort_unstable_by(|a, b| a.host.cmp(&b.host));
        Ok(found)
    }

    fn usage(&self) -> Result<Usage, ContentError> {
        let mut usage = Usage::default();
        self.each_blob(|_, metadata| {
            usage.blobs += 1;
            usage.bytes += metadata.len();
            Ok(())
        })?;
        Ok(usage)
    }

    fn damaged(&self) -> Vec<Digest> {
        let found = self.0.verified.found_damaged().into_iter();
        // What has been written anew is not what was found. A scrub puts it aside, which brings nothing back.
        let is_still = |(digest, stamp): &(Digest, Stamp)| {
            let now = Stamp::at(&self.layout().blob(digest));
            now == *stamp || (now == Stamp::missing() && self.layout().damaged(digest).exists())
        };
        found.filter(is_still).map(|(digest, _)| digest).collect()
    }
}
