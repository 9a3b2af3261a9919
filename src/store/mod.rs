//! The site's store: images in a directory, without a database and without a scan at start.
//!
//! Blobs lie under their digests and never change. Everything else is a small JSON file that is replaced as a whole, so
//! that a reader sees the old content or the new and nothing between. Readers need no lock; one writer at a time holds
//! one, and serving goes on meanwhile. How names become files: `layout.rs`.

mod chain;
mod content;
mod durable;
mod id;
mod layout;
mod lock;
mod log;
mod new_file;
mod publication;
mod read;
mod receipt;
mod record;
mod remove;
mod scrub;
mod sweep;
mod undo;
mod upload;
mod verify;
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err as fs;
use serde::{Deserialize, Serialize};

pub use chain::{Author, OwnChain};
pub use content::{Blob, Content, ContentError, HostedFile, Manifest, Usage};
pub use durable::write_file;
pub use id::{ParseUploadIdError, UploadId};
pub use lock::{Patience, Writer};
pub use log::{Log, LogEntry, LogError, LogReport, MAX_RECEIPT_BYTES};
pub use receipt::{
    AcceptDamage, Change, Changed, Changes, Event, Import, Prune, RECEIPT_VERSION, Receipt, ReceiptDamage,
    ReceiptError,
};
pub use scrub::Scrubbed;
pub use sweep::{Sweep, Swept};
pub use upload::Upload;
pub use verify::{Stamp, Verified};
pub use write::{Batch, BlobWriter};

use crate::oci::Digest;
use id::{is_random_id, random_id};
use layout::Layout;
use record::{MAX_RECORD, bounded, json};

/// The version of the layout that this program writes. It reads and continues version 1 as well.
const VERSION: u32 = 2;
/// What file systems and operating systems put into a volume by themselves.
const OF_VOLUMES: [&str; 9] = [
    "lost+found",
    "System Volume Information",
    "$RECYCLE.BIN",
    ".DS_Store",
    ".Spotlight-V100",
    ".Trashes",
    ".fseventsd",
    ".snapshot",
    "aquota.user",
];

/// Why a store cannot be opened or changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory has no store in it.
    #[error("{0} is not a store; `dray import` makes one")]
    NotAStore(PathBuf),
    /// The directory holds something else.
    #[error("{0} is not empty and not a store; give an empty or a new directory")]
    NotEmpty(PathBuf),
    /// A later program wrote the store.
    #[error("{path} has version {found} of the store layout, this program knows {VERSION}; use a newer dray")]
    Version {
        /// The store.
        path: PathBuf,
        /// The version that it has.
        found: u32,
    },
    /// Receipts are damaged or lost, so that nothing can be decided that rests on them.
    #[error("the log of the store cannot be relied on:{}", log::lines(.0))]
    Log(Vec<ReceiptDamage>),
    /// Another process is changing the store.
    #[error("the store {path} is being changed by {holder}; try again when it is done")]
    Busy {
        /// The store.
        path: PathBuf,
        /// The other process, as it described itself.
        holder: String,
    },
    /// The bytes written are not those announced.
    #[error("expected a blob {expected}, but the bytes are {actual}")]
    WrongDigest {
        /// What was announced.
        expected: Digest,
        /// What the bytes hash to.
        actual: Digest,
    },
    /// More or fewer bytes were written than announced.
    #[error("{digest} was announced with {expected} bytes, but {actual} came")]
    WrongSize {
        /// The blob.
        digest: Digest,
        /// What was announced.
        expected: u64,
        /// How many came; one too many stands for any number.
        actual: u64,
    },
    /// The name makes no file name.
    #[error("the name `{0}` is too long to be stored")]
    NameTooLong(String),
    /// The manifest cannot be stored.
    #[error(transparent)]
    Manifest(#[from] crate::oci::ManifestError),
    /// Something that is there cannot be read.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The disk, or the permissions on it. The message names the file.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl StoreError {
    /// Whether there is no room left on the disk.
    pub fn is_storage_full(&self) -> bool {
        let full = |error: &std::io::Error| {
            matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
        };
        match self {
            Self::Io(error) | Self::Content(ContentError::Io(error)) => full(error),
            _ => false,
        }
    }
}

/// A store. Clones are cheap and mean the same store.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    layout: Layout,
    id: String,
    verified: Verified,
    gate: lock::Gate,
    publication: publication::Cache,
}

/// What marks a directory as a store.
#[derive(Serialize, Deserialize)]
struct Marker {
    version: u32,
    /// Drawn at random when the store is made: tells it from other stores, wherever it is moved to.
    id: String,
}

/// What every version of the marker has.
#[derive(Deserialize)]
struct AnyMarker {
    version: u32,
}

impl Store {
    /// Opens the store in `directory`.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let layout = Layout::new(directory);
        let marker = layout.marker();
        let bytes = match bounded(&marker, MAX_RECORD) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Err(StoreError::NotAStore(directory.to_owned())),
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
                return Err(StoreError::NotAStore(directory.to_owned()));
            }
            Err(error) => return Err(error.into()),
        };
        let AnyMarker { version } = json(&marker, &bytes)?;
        if !(1..=VERSION).contains(&version) {
            return Err(StoreError::Version { path: directory.to_owned(), found: version });
        }
        let Marker { id, .. } = json(&marker, &bytes)?;
        if !is_random_id(&id) {
            let reason = "its id is not 32 hexadecimal characters".to_owned();
            return Err(ContentError::Invalid { path: marker.display().to_string(), reason }.into());
        }
        Ok(Self(Arc::new(Inner {
            layout,
            id,
            verified: Verified::default(),
            gate: lock::Gate::default(),
            publication: publication::Cache::default(),
        })))
    }

    /// Opens the store in `directory`, and makes it first when there is none and the directory is empty or missing.
    pub fn create(directory: &Path) -> Result<Self, StoreError> {
        match Self::open(directory) {
            Err(StoreError::NotAStore(_)) => {}
            other => return other,
        }
        fs::create_dir_all(directory)?;
        let layout = Layout::new(directory);
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            // A creation that was interrupted left nothing but empty directories of ours.
            let path = entry.path();
            let ours =
                [layout.temporary(), layout.blobs(), layout.repositories(), layout.imports()].contains(&path);
            let of_volume = OF_VOLUMES.iter().any(|name| entry.file_name().eq_ignore_ascii_case(name));
            if !ours && !of_volume {
                return Err(StoreError::NotEmpty(directory.to_owned()));
            }
        }
        for part in [layout.temporary(), layout.blobs(), layout.repositories(), layout.imports()] {
            fs::create_dir_all(part)?;
        }
        let marker = Marker { version: VERSION, id: random_id()? };
        durable::write_json(&layout.temporary(), &layout.marker(), &marker)?;
        Self::open(directory)
    }

    /// Where the store is.
    pub fn path(&self) -> &Path {
        self.0.layout.root()
    }

    /// The identity of the store: 32 hexadecimal characters that it got when it was made.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// Where a registry that serves the store keeps what it was asked for in vain.
    pub fn wants_file(&self) -> PathBuf {
        self.0.layout.root().join("wants.json")
    }

    /// Whether the content `digest` is there, in any repository. It is not read, so it may be damaged.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool, StoreError> {
        Ok(self.0.layout.blob(digest).try_exists()?)
    }

    /// Marks a store of layout 1 as one of layout 2 before something is added that a program of then would overlook.
    fn open_layout(&self) -> Result<(), StoreError> {
        let marker = self.layout().marker();
        let Some(bytes) = bounded(&marker, MAX_RECORD)? else { return Ok(()) };
        if json::<AnyMarker>(&marker, &bytes)?.version < VERSION {
            let upgraded = Marker { version: VERSION, id: self.id().to_owned() };
            durable::write_json(self.path(), &marker, &upgraded)?;
        }
        Ok(())
    }

    fn layout(&self) -> &Layout {
        &self.0.layout
    }
}

#[cfg(test)]
mod log_tests;
#[cfg(test)]
mod tests;
