//! Removing what nothing refers to any more, beside a registry that serves the store.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
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

/// What can be removed, worked out before anything is. It holds for as long as the writer that made it changes nothing
/// else.
#[derive(Debug, Default)]
pub struct Sweep {
    /// What repositories have and none of their manifests names.
    links: Vec<PathBuf>,
    /// Content that no repository has then.
    content: Vec<Digest>,
    swept: Swept,
}

impl Sweep {
    /// How much that is.
    pub fn swept(&self) -> Swept {
        self.swept
    }
}

/// What the manifests of all repositories say about content.
#[derive(Default)]
struct Census {
    /// What some repository keeps.
    kept: BTreeSet<Digest>,
    /// What belongs to manifests that go: known to be nothing that is still arriving.
    freed: BTreeSet<Digest>,
    links: Vec<PathBuf>,
}

impl Writer {
    /// Removes content that no repository has, and blobs of repositories that none of their manifests names. What is
    /// younger than `grace` stays: it may belong to a push that is not finished. With `dry_run` nothing is removed.
    pub fn sweep(&self, grace: Duration, dry_run: bool) -> Result<Swept, StoreError> {
        let sweep = self.plan_sweep(&BTreeMap::new(), grace)?;
        if !dry_run {
            self.finish_sweep(&sweep)?;
        }
        Ok(sweep.swept)
    }

    /// Works out what a sweep will remove once the manifests `gone` are deleted. What only they need goes at any age.
    pub fn plan_sweep(
        &self,
        gone: &BTreeMap<RepositoryName, BTreeSet<Digest>>,
        grace: Duration,
    ) -> Result<Sweep, StoreError> {
        let before = SystemTime::now().checked_sub(grace).unwrap_or(SystemTime::UNIX_EPOCH);
        let none = BTreeSet::new();
        let mut census = Census::default();
        for name in self.store.repositories(None, usize::MAX)? {
            self.count_repository(&name, gone.get(&name).unwrap_or(&none), before, &mut census)?;
        }
        let mut sweep = Sweep { links: census.links, ..Sweep::default() };
        self.store.each_blob(|digest, metadata| {
            let old = || metadata.modified().is_ok_and(|modified| modified < before);
            if !census.kept.contains(digest) && (census.freed.contains(digest) || old()) {
                sweep.swept.blobs += 1;
                sweep.swept.bytes += metadata.len();
                sweep.content.push(digest.clone());
            }
            Ok(())
        })?;
        Ok(sweep)
    }

    /// Removes what [`Writer::plan_sweep`] found. Nothing is written, so that it works on a full disk.
    ///
    /// Readers that have a file open read it to its end.
    pub fn finish_sweep(&self, sweep: &Sweep) -> Result<(), StoreError> {
        let mut dirty = Dirty::default();
        for path in &sweep.links {
            remove(path, &mut dirty)?;
        }
        // First no repository has it, and then it is gone, also when the power fails in between.
        dirty.sync()?;
        for digest in &sweep.content {
            remove(&self.store.layout().blob(digest), &mut dirty)?;
        }
        Ok(dirty.sync()?)
    }

    /// Adds what the repository `name` has to the census, its manifests `gone` not counted.
    fn count_repository(
        &self,
        name: &RepositoryName,
        gone: &BTreeSet<Digest>,
        before: SystemTime,
        census: &mut Census,
    ) -> Result<(), StoreError> {
        let repository = self.repository(name)?;
        let (mut named, mut freed) = (BTreeSet::new(), BTreeSet::new());
        for digest in self.store.manifests(name)? {
            let goes = gone.contains(&digest);
            let manifest = match self.store.manifest(name, &digest) {
                // What goes may be damaged; what stays must say what it needs.
                Err(ContentError::Damaged(_)) if goes => None,
                other => other?,
            };
            let document = manifest.and_then(|m| Document::parse(Some(&m.media_type), m.bytes).ok());
            let blobs = if goes { &mut freed } else { &mut named };
            if let Some(Document::Image(image)) = document {
                blobs.extend(image.blobs().map(|blob| blob.digest.clone()));
            }
            if goes {
                freed.insert(digest)
            } else {
                census.kept.insert(digest)
            };
        }
        for file in read::file_names(&repository.blobs())?.into_iter().flatten() {
            let Some(digest) = parse_digest_file(&file?) else { continue };
            let path = repository.blob(&digest);
            let young =
                || fs::metadata(&path).and_then(|m| m.modified()).is_ok_and(|modified| modified >= before);
            if named.contains(&digest) || (!freed.contains(&digest) && young()) {
                census.kept.insert(digest);
            } else {
                census.links.push(path);
            }
        }
        census.freed.append(&mut freed);
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
