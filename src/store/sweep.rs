//! Removing what nothing refers to any more, beside a registry that serves the store.
//!
//! A push names its blobs last, in a manifest. Until then the blobs that it was told are here, or that it has brought, are
//! *claimed*: the file that makes a blob one of its repository is one byte long, and its time is that of the claim. Setting
//! a length writes nothing, and importing claims nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fs_err as fs;

use crate::oci::{Digest, Document, RepositoryName};

use super::durable::{Dirty, remove};
use super::layout::parse_digest_file;
use super::record::file_names;
use super::{Content as _, ContentError, Store, StoreError, Writer};

/// How old a claim gets before it is renewed, so that not every question for a blob changes a file.
const RENEW: Duration = Duration::from_mins(10);
/// The name that what is removed has for a moment.
const LEAVING: &str = "leaving";

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
    links: Vec<Link>,
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

/// The file that makes a blob one of a repository.
#[derive(Debug)]
struct Link {
    path: PathBuf,
    digest: Digest,
    /// When a push claimed the blob, if one did.
    claimed: Option<SystemTime>,
}

/// What the manifests of all repositories say about content.
#[derive(Default)]
struct Census {
    /// What some repository keeps.
    kept: BTreeSet<Digest>,
    /// What belongs to manifests that go: known to be nothing that is still arriving.
    freed: BTreeSet<Digest>,
    links: Vec<Link>,
}

impl Writer {
    /// Removes content that no repository has, and blobs of repositories that none of their manifests names. What is
    /// younger than `grace` stays: it may belong to a push that is not finished. With `dry_run` nothing is removed.
    pub fn sweep(&self, grace: Duration, dry_run: bool) -> Result<Swept, StoreError> {
        let sweep = self.store.plan_sweep(&BTreeMap::new(), grace)?;
        if !dry_run {
            self.finish_sweep(&sweep)?;
        }
        Ok(sweep.swept)
    }

    /// Removes what [`Store::plan_sweep`] found, but for what was claimed since. Nothing is written, so that it works on a
    /// full disk.
    ///
    /// Readers that have a file open read it to its end.
    pub fn finish_sweep(&self, sweep: &Sweep) -> Result<(), StoreError> {
        let mut dirty = Dirty::default();
        let mut claimed = BTreeSet::new();
        for link in &sweep.links {
            if !self.remove_link(link, &mut dirty)? {
                claimed.insert(&link.digest);
            }
        }
        // First no repository has it, and then it is gone, also when the power fails in between.
        dirty.sync()?;
        for digest in sweep.content.iter().filter(|digest| !claimed.contains(digest)) {
            remove(&self.store.layout().blob(digest), &mut dirty)?;
        }
        Ok(dirty.sync()?)
    }

    /// Removes a blob from its repository, unless it was claimed since the sweep was planned. Claims need no writer, so the
    /// file is taken out of their way before it is looked at.
    fn remove_link(&self, link: &Link, dirty: &mut Dirty) -> Result<bool, StoreError> {
        let leaving = self.store.layout().temporary().join(LEAVING);
        match fs::rename(&link.path, &leaving) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            other => other?,
        }
        if claim_time(&fs::metadata(&leaving)?) != link.claimed {
            fs::rename(&leaving, &link.path)?;
            return Ok(false);
        }
        dirty.changed(&link.path);
        remove(&leaving, &mut Dirty::default())?;
        Ok(true)
    }
}

impl Store {
    /// Works out what a sweep will remove once the manifests `gone` are deleted. What only they need goes at any age, unless
    /// a push has claimed it within `grace`. Nothing is written, so that a store which is read-only can be asked; what a
    /// [`Writer`] is to remove is worked out while it holds the lock.
    pub fn plan_sweep(
        &self,
        gone: &BTreeMap<RepositoryName, BTreeSet<Digest>>,
        grace: Duration,
    ) -> Result<Sweep, StoreError> {
        let before = SystemTime::now().checked_sub(grace).unwrap_or(SystemTime::UNIX_EPOCH);
        let none = BTreeSet::new();
        let mut census = Census::default();
        for name in self.repositories(None, usize::MAX)? {
            self.count_repository(&name, gone.get(&name).unwrap_or(&none), before, &mut census)?;
        }
        let mut sweep = Sweep { links: census.links, ..Sweep::default() };
        self.each_blob(|digest, metadata| {
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

    /// Adds what the repository `name` has to the census, its manifests `gone` not counted.
    fn count_repository(
        &self,
        name: &RepositoryName,
        gone: &BTreeSet<Digest>,
        before: SystemTime,
        census: &mut Census,
    ) -> Result<(), StoreError> {
        let repository = self.layout().repository(name);
        let repository = repository.ok_or_else(|| StoreError::NameTooLong(name.to_string()))?;
        let (mut named, mut freed) = (BTreeSet::new(), BTreeSet::new());
        for digest in self.manifests(name)? {
            let goes = gone.contains(&digest);
            let manifest = match self.manifest(name, &digest) {
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
        for file in file_names(&repository.blobs())?.into_iter().flatten() {
            let Some(digest) = parse_digest_file(&file?) else { continue };
            let path = repository.blob(&digest);
            let metadata = match fs::metadata(&path) {
                // It was removed since its name was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            let claimed = claim_time(&metadata);
            let since = if freed.contains(&digest) { claimed } else { metadata.modified().ok() };
            if named.contains(&digest) || since.is_some_and(|since| since >= before) {
                census.kept.insert(digest);
            } else {
                census.links.push(Link { path, digest, claimed });
            }
        }
        census.freed.append(&mut freed);
        Ok(())
    }
    /// Claims the blob `digest` of `name` for a push that was told that it is here. Returns whether it still is.
    pub fn claim_blob(&self, name: &RepositoryName, digest: &Digest) -> Result<bool, StoreError> {
        match self.layout().repository(name) {
            Some(repository) => Ok(claim(&repository.blob(digest))?),
            None => Ok(false),
        }
    }

    /// The manifests of a repository, with tags or without, in no particular order.
    pub fn manifests(&self, name: &RepositoryName) -> Result<Vec<Digest>, ContentError> {
        let Some(repository) = self.layout().repository(name) else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for file in file_names(&repository.manifests())?.into_iter().flatten() {
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
            for file in file_names(&repository.blobs())?.into_iter().flatten() {
                members.extend(parse_digest_file(&file?));
            }
        }
        Ok(members)
    }
}

/// Claims the blob of which `link` is the file in its repository. Returns whether there is such a file.
pub(super) fn claim(link: &Path) -> io::Result<bool> {
    let file = match fs::OpenOptions::new().write(true).open(link) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    let age = claim_time(&metadata).map(|claimed| SystemTime::now().duration_since(claimed));
    // A claim from the future was made before the clock was set.
    if !age.is_some_and(|age| age.is_ok_and(|age| age < RENEW)) {
        file.set_len(1)?;
        file.file().set_modified(SystemTime::now())?;
    }
    // A sweep that came in between has it under another name, and looks at its time only now.
    link.try_exists()
}

/// When a push claimed the blob of which this is the file in its repository; none when none did.
fn claim_time(link: &Metadata) -> Option<SystemTime> {
    if link.len() > 0 { link.modified().ok() } else { None }
}
