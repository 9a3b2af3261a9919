//! What a site has of each release: the kinds of node that it is there for, the programs, and archives to preload; and the
//! addresses under which `dray serve` gives them to upgrade controllers.
//!
//! Everything is read from the bundles that were imported, or that are served as they are. Nothing is kept beside them.

mod channel;
mod routes;
mod sums;
#[cfg(test)]
pub(super) mod tests;
mod update_server;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

pub use channel::Channel;

use super::export::{self, Archive, ExportError, Importer, Request};
use crate::bundle::{RetainError, imported_locks};
use crate::catalog::{Catalog, ReleaseId};
use crate::oci::NodeKind;
use crate::resolve::{Lock, LockedFile};
use crate::store::{Content, ContentError, HostedFile, Store, StoreError};
use sums::Sums;

/// What stands for itself in the path of an address.
const PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'+');
/// The archives have addresses below this.
const ARCHIVES: &str = "/files/export";

/// Why it cannot be said what is in stock.
#[derive(Debug, thiserror::Error)]
pub enum StockError {
    /// What was imported cannot be read.
    #[error(transparent)]
    Imports(#[from] RetainError),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An archive cannot be laid out, for another reason than that images are missing.
    #[error(transparent)]
    Archive(#[from] ExportError),
}

impl From<ContentError> for StockError {
    fn from(error: ContentError) -> Self {
        Self::Store(error.into())
    }
}

/// What a site has of each release.
pub struct Stock {
    catalog: Catalog,
    content: Arc<dyn Content>,
    source: Source,
    sums: Sums,
}

/// Where it is written what was brought.
enum Source {
    /// In the log of a store; read again when it has other files than before.
    Imports(Store, Mutex<Option<(BTreeSet<String>, Arc<Brought>)>>),
    /// In bundles that are served as they are.
    Bundles(Arc<Brought>),
}

/// What bundles brought.
#[derive(Debug, Default)]
pub struct Brought {
    /// The releases.
    pub releases: BTreeMap<ReleaseId, Stocked>,
    /// How many different images.
    pub images: usize,
    /// Hosts and paths of the plain files, the newest last.
    files: Vec<(String, String)>,
}

/// A release that bundles brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stocked {
    /// The release.
    pub id: ReleaseId,
    /// The kinds of node that it was brought for, with the features that any bundle brought for them.
    pub nodes: BTreeMap<NodeKind, Vec<String>>,
}

/// A plain file of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StockedFile {
    /// The path of its address at the site.
    pub path: String,
    /// What it is.
    pub file: HostedFile,
}

impl Stock {
    /// What was imported into `store`, now and later.
    pub fn of_store(store: &Store, catalog: Catalog) -> Self {
        let source = Source::Imports(store.clone(), Mutex::default());
        Self { catalog, content: Arc::new(store.clone()), source, sums: Sums::default() }
    }

    /// What is in bundles that are served as they are; `content` has all of them.
    pub fn of_bundles(brought: Brought, content: Arc<dyn Content>, catalog: Catalog) -> Self {
        let source = Source::Bundles(Arc::new(brought));
        Self { catalog, content, source, sums: Sums::default() }
    }

    /// What is known about releases.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// What has the images and files.
    pub fn content(&self) -> &dyn Content {
        &*self.content
    }

    /// What bundles brought so far.
    pub fn brought(&self) -> Result<Arc<Brought>, StockError> {
        let (store, known) = match &self.source {
            Source::Bundles(brought) => return Ok(Arc::clone(brought)),
            Source::Imports(store, known) => (store, known),
        };
        let files = store.log_files()?;
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((seen, brought)) = &*known
            && *seen == files
        {
            return Ok(Arc::clone(brought));
        }
        let brought = Arc::new(Brought::by(&imported_locks(store)?));
        *known = Some((files, Arc::clone(&brought)));
        Ok(brought)
    }

    /// The archive that nodes of this kind import the release's images from. It is the same as long as no other bundle
    /// brings the release.
    pub fn archive(&self, stocked: &Stocked, kind: &NodeKind) -> Result<Archive, ExportError> {
        let request = Request {
            importer: stocked.id.distro.parse()?,
            release: &stocked.id,
            with: stocked.features(kind),
            kind,
            images: &[],
            mtime: 0,
        };
        export::plan(&request, &self.catalog, self.content())
    }

    /// The same, or none where images are missing or this program does not know the release.
    fn complete_archive(&self, stocked: &Stocked, kind: &NodeKind) -> Result<Option<Archive>, StockError> {
        match self.archive(stocked, kind) {
            Ok(archive) => Ok(Some(archive)),
            Err(error @ (ExportError::Content(_) | ExportError::Manifest { .. } | ExportError::Io(_))) => {
                Err(error.into())
            }
            Err(_) => Ok(None),
        }
    }

    /// The file with one of these names, which its address ends with; the one that came last.
    pub fn file(&self, names: &[String]) -> Result<Option<StockedFile>, StockError> {
        let is_named = |path: &str, name: &String| {
            path.strip_suffix(name.as_str()).is_some_and(|front| front.is_empty() || front.ends_with('/'))
        };
        let brought = self.brought()?;
        for (host, path) in brought.files.iter().rev() {
            if !names.iter().any(|name| is_named(path, name)) {
                continue;
            }
            let found = self.content.files(path)?.into_iter().find(|file| file.host == *host);
            // It may have been taken away since.
            if let Some(file) = found
                && self.content.blob_size(&file.repository, &file.digest)?.is_some()
            {
                let path = format!("/files/{host}/{}", utf8_percent_encode(path, PATH));
                return Ok(Some(StockedFile { path, file }));
            }
        }
        Ok(None)
    }

    /// The program of a k0s release for a kind of node, if it was brought along.
    pub fn k0s_program(
        &self,
        release: &ReleaseId,
        kind: &NodeKind,
    ) -> Result<Option<StockedFile>, StockError> {
        self.file(&[k0s_program_name(release, kind)])
    }
}

/// What the publisher of k0s calls its program.
pub fn k0s_program_name(release: &ReleaseId, kind: &NodeKind) -> String {
    let end = if kind.is_windows() { ".exe" } else { "" };
    format!("k0s-{}-{}{end}", release.version, kind.architecture())
}

/// The path of the address of an archive at the site; none for distributions whose nodes import none.
pub fn archive_path(release: &ReleaseId, kind: &NodeKind) -> Option<String> {
    let importer: Importer = release.distro.parse().ok()?;
    Some(format!("{ARCHIVES}/{importer}/{}/{}", release.version, importer.file_name(kind)))
}

impl Brought {
    /// What the bundles with these locks bring, the oldest first.
    pub fn by<'a>(locks: impl IntoIterator<Item = &'a Lock>) -> Self {
        let mut brought = Self::default();
        let mut images = BTreeSet::new();
        for lock in locks {
            images.extend(lock.images.iter().map(|image| &image.reference));
            for release in &lock.releases {
                // A later version of this program may have written it.
                let Ok(id) = release.release.parse::<ReleaseId>() else { continue };
                let stocked = brought.releases.entry(id.clone()).or_insert_with(|| Stocked::new(id));
                for kind in &lock.nodes {
                    let features = stocked.nodes.entry(kind.clone()).or_default();
                    let more = release.with.iter().filter(|feature| !features.contains(feature)).cloned();
                    features.extend(more.collect::<Vec<_>>());
                    features.sort();
                }
            }
            brought.files.extend(lock.files.iter().filter_map(LockedFile::address));
        }
        brought.images = images.len();
        brought
    }

    /// Returns the features that `release` was brought with for nodes of this kind, in all bundles together.
    pub fn features(&self, release: &ReleaseId, kind: &NodeKind) -> &[String] {
        self.releases.get(release).map_or(&[], |stocked| stocked.features(kind))
    }
}

impl Stocked {
    fn new(id: ReleaseId) -> Self {
        Self { id, nodes: BTreeMap::new() }
    }

    /// Returns the features beyond the default configuration that it was brought with for nodes of this kind.
    fn features(&self, kind: &NodeKind) -> &[String] {
        self.nodes.get(kind).map(Vec::as_slice).unwrap_or_default()
    }

    /// The kinds of Linux node that it was brought for.
    pub fn linux(&self) -> impl Iterator<Item = &NodeKind> {
        self.nodes.keys().filter(|kind| !kind.is_windows())
    }
}
