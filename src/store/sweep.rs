//! Removing what nothing refers to any more, beside a registry that serves the store.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use fs_err as fs;

use crate::oci::{Digest, Document, RepositoryName};

use super::durable::{Dirty, remove};
use super::layout::parse_digest_file;
use super::{Content as _, ContentError, Store, StoreError, Writer, read};

/// What a sweep removed, or would remove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// How many pieces of content.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Writer {
    /// Removes content that no repository has, and blobs of repositories that none of their manifests names. What is
    /// younger than `grace` stays: it may belong to a push that is not finished. With `dry_run` nothing is removed.
    ///
    /// Readers that have a file open read it to its end.
    pub fn sweep(&self, grace: Duration, dry_run: bool) -> Result<Swept, StoreError> {
        let before = SystemTime::now().checked_sub(grace).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut dirty = Dirty::default();
        let mut kept = BTreeSet::new();
        for name in self.store.repositories(None, usize::MAX)? {
            self.sweep_repository(&name, before, dry_run, &mut kept, &mut dirty)?;
        }
        let mut swept = Swept::default();
        let mut unowned = Vec::new();
        self.store.each_blob(|digest, metadata| {
            if !kept.contains(digest) && metadata.modified().is_ok_and(|modified| modified < before) {
                swept.blobs += 1;
                swept.bytes += metadata.len();
                unowned.push(digest.clone());
            }
            Ok(())
        })?;
        if !dry_run {
            for digest in &unowned {
                remove(&self.store.layout().blob(digest), &mut dirty)?;
            }
            dirty.sync()?;
        }
        Ok(swept)
    }

    /// Adds what the repository `name` keeps to `kept`, and removes its blobs that none of its manifests names.
    fn sweep_repository(
        &self,
        name: &RepositoryName,
        before: SystemTime,
        dry_run: bool,
        kept: &mut BTreeSet<Digest>,
        dirty: &mut Dirty,
    ) -> Result<(), StoreError> {
        let repository = self.repository(name)?;
        let mut named = BTreeSet::new();
        for digest in self.store.manifests(name)? {
            if let Some(manifest) = self.store.manifest(name, &digest)?
                && let Ok(Document::Image(image)) =
                    Document::parse(Some(&manifest.media_type), manifest.bytes)
            {
                named.extend(image.blobs().map(|blob| blob.digest.clone()));
            }
            kept.insert(digest);
        }
        for file in read::file_names(&repository.blobs())?.into_iter().flatten() {
            let Some(digest) = parse_digest_file(&file?) else { continue };
            let path = repository.blob(&digest);
            let young =
                fs::metadata(&path).and_then(|m| m.modified()).is_ok_and(|modified| modified >= before);
            if named.contains(&digest) || young {
                kept.insert(digest);
            } else if !dry_run {
                remove(&path, dirty)?;
            }
        }
        Ok(())
    }
}

impl Store {
    /// The manifests of a repository, with tags or without, in no particular order.
    pub fn manifests(&self, name: &RepositoryName) -> Result<Vec<Digest>, ContentError> {
        let Some(repository) = self.layout().repository(name) else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for file in read::file_names(&repository.manifests())?.into_iter().flatten() {
            found.extend(file?.strip_suffix(".json").and_then(parse_digest_file));
        }
        Ok(found)
    }

    /// The content that any repository has: manifests and blobs.
    pub(super) fn members(&self) -> Result<BTreeSet<Digest>, ContentError> {
        let mut members = BTreeSet::new();
        for name in self.repositories(None, usize::MAX)? {
            members.extend(self.manifests(&name)?);
            let Some(repository) = self.layout().repository(&name) else { continue };
            for file in read::file_names(&repository.blobs())?.into_iter().flatten() {
                members.extend(parse_digest_file(&file?));
            }
        }
        Ok(members)
    }
}
