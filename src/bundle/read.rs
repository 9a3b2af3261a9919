//! Reading a bundle: what it says of itself is compared with what its lock makes it, byte by byte.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::damage::{Damage, describe, describe_absent, describe_ranges};
use super::find::{Found, find};
use super::media::{Absent, Media, Why};
use super::plan::{Entry, Plan, Tail, blob_path};
use crate::file::Span;
use crate::input::FileKind;
use crate::oci::{Descriptor, Digest};
use crate::resolve::{Lock, LockError, LockedBlob};
use crate::trust::{Claim, KeyId, Policy, Signatures, TrustError};

/// Why a file is no bundle that can be used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The bundle.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is something else.
    #[error("{} is not a bundle, it is {kind}", path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: FileKind,
    },
    /// The bytes are not those of a bundle.
    #[error("{} is damaged or is no bundle: {what}, at byte {offset}", path.display())]
    Malformed {
        /// The bundle.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The lock inside cannot be used.
    #[error("{}: {source}", path.display())]
    Lock {
        /// The bundle.
        path: PathBuf,
        /// Why.
        source: LockError,
    },
    /// Blobs do not have their digests.
    #[error("{}: {}", path.display(), describe(path, damage))]
    Damaged {
        /// The bundle.
        path: PathBuf,
        /// What is damaged.
        damage: Vec<Damage>,
    },
    /// Parts of a volume or of a recovery file do not have their digests.
    #[error("{}: {}", path.display(), describe_ranges(damaged))]
    DamagedVolume {
        /// The file.
        path: PathBuf,
        /// The first byte of each damaged part, and the byte after it.
        damaged: Vec<(u64, u64)>,
    },
    /// Volumes are missing, or are not those that belong there.
    #[error("{}: {}", path.display(), describe_absent(name, *of, absent))]
    Incomplete {
        /// What the volumes are called.
        path: PathBuf,
        /// The name of the bundle and its sequence number.
        name: String,
        /// How many volumes there are.
        of: u32,
        /// Those that cannot be had.
        absent: Vec<Absent>,
    },
    /// The same volume was named twice.
    #[error("{} and {} are both volume {number} of the same bundle; name one of them", other.display(), path.display())]
    Twice {
        /// One file.
        path: PathBuf,
        /// The other.
        other: PathBuf,
        /// The number of the volume.
        number: u32,
    },
    /// A directory holds more than the one bundle that is wanted.
    #[error("{} holds {count} bundles; name one of them", path.display())]
    Several {
        /// The directory.
        path: PathBuf,
        /// How many there are.
        count: usize,
    },
    /// The bundle may not be brought in any more.
    #[error("{}: the bundle expired at {expired}", path.display())]
    Expired {
        /// The bundle.
        path: PathBuf,
        /// When it expired.
        expired: Timestamp,
    },
    /// The bundle is not trusted.
    #[error("{}: {source}", path.display())]
    Untrusted {
        /// The bundle.
        path: PathBuf,
        /// Why.
        source: TrustError,
    },
}

impl BundleError {
    /// The error for a file that is neither a bundle nor part of one, by how its `bytes` begin; `None` if it may be one.
    pub(super) fn other(path: &Path, bytes: &Span) -> Option<Self> {
        let mut start = vec![0; usize::try_from(bytes.len().min(1024)).ok()?];
        bytes.read_exact_at(&mut start, 0).ok()?;
        match FileKind::of(&start)? {
            // What is left of a copy that failed is damaged.
            FileKind::Bundle | FileKind::Volume | FileKind::Recovery | FileKind::Empty => None,
            kind => Some(Self::Other { path: path.to_owned(), kind }),
        }
    }

    /// Whether the content is at fault, as opposed to the system that reads it.
    pub fn is_verification(&self) -> bool {
        match self {
            Self::Io { .. } | Self::Other { .. } | Self::Twice { .. } | Self::Several { .. } => false,
            Self::Incomplete { absent, .. } => {
                absent.iter().any(|absent| matches!(absent.why, Why::Damaged(_)))
            }
            _ => true,
        }
    }
}

/// Where a content lies in the bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The first byte.
    pub offset: u64,
    /// The number of bytes.
    pub size: u64,
}

/// An open bundle. Its lock and its tail are checked; its blobs are not until they are read.
#[derive(Debug)]
pub struct Bundle {
    media: Media,
    lock: Lock,
    plan: Plan,
    tail: Tail,
    claim: Claim,
    signatures: Option<Signatures>,
}

impl Bundle {
    /// Opens the bundle at `path` and checks everything but the contents of its blobs.
    ///
    /// The archive must be exactly what its lock and its signatures make: no entry more, none less, none elsewhere.
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        Self::open_media(Media::open(path)?)
    }

    /// Opens the bundle on `media` as [`Bundle::open`] does.
    pub fn open_media(media: Media) -> Result<Self, BundleError> {
        media.check_whole()?;
        let bundle = Self::open_damaged(media)?;
        bundle.check_headers()?;
        Ok(bundle)
    }

    /// Opens the bundle on `media`, of which only the tail has to be whole. Nothing is known of its blobs, nor of their
    /// headers.
    pub fn open_damaged(media: Media) -> Result<Self, BundleError> {
        if !media.has_end() {
            return Err(media.incomplete());
        }
        let Found { lock, claim, signatures, mtime } = find(&media)?;
        let plan = Plan::new(&lock, mtime).map_err(|error| media.malformed(0, error.to_string()))?;
        let tail = Tail::new(&lock, &plan, signatures.as_ref());
        compare_tail(&media, &plan, &tail)?;
        check_set(&media, &lock, &plan, &tail)?;
        Ok(Self { media, lock, plan, tail, claim, signatures })
    }

    /// The path that the bundle was opened at.
    pub fn path(&self) -> &Path {
        self.media.path()
    }

    /// The files that the bundle lies in.
    /// The files that it lies in.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.media.paths()
    }

    pub(super) fn media(&self) -> &Media {
        &self.media
    }

    /// What the bundle holds.
    pub fn lock(&self) -> &Lock {
        &self.lock
    }

    /// The bundle index, whose digest names the bundle and is what signatures are over.
    pub fn index(&self) -> &Descriptor {
        &self.tail.index
    }

    /// The whole tail: the documents made from lock and signatures.
    pub fn tail(&self) -> &Tail {
        &self.tail
    }

    /// The signatures, if there are any.
    pub fn signatures(&self) -> Option<&Signatures> {
        self.signatures.as_ref()
    }

    /// What a signature of this bundle is over.
    pub fn claim(&self) -> &Claim {
        &self.claim
    }

    /// How many volumes the bundle lies in; 1 for one that was not cut.
    pub fn volumes(&self) -> u32 {
        self.media.volumes()
    }

    /// The bytes of the bundle, without what volumes add.
    pub fn len(&self) -> u64 {
        self.plan.tail + self.tail.bytes.len() as u64
    }

    /// Never: a bundle has a tail at least.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The time that the archive's entries bear, in seconds since 1970.
    pub fn mtime(&self) -> u64 {
        self.plan.mtime
    }

    /// Fills `buffer` with the bytes of the bundle from `offset` on.
    pub(super) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), BundleError> {
        self.media.read_exact_at(buffer, offset)
    }

    /// Where the blob `digest` of the lock lies.
    pub fn place(&self, digest: &Digest) -> Option<Place> {
        let at = self.lock.blobs.binary_search_by(|blob| blob.digest.cmp(digest)).ok()?;
        let entry = &self.plan.blobs[at];
        Some(Place { offset: entry.offset, size: entry.size })
    }

    /// Where a document of the tail lies.
    pub(super) fn tail_place(&self, digest: &Digest) -> Option<Place> {
        let path = blob_path(digest);
        let entry = self.tail.entries.iter().find(|entry| entry.path == path)?;
        Some(Place { offset: entry.offset, size: entry.size })
    }

    /// The `nth` blob of the lock and its place.
    pub(super) fn blob(&self, nth: usize) -> Option<(&LockedBlob, &Entry)> {
        Some((self.lock.blobs.get(nth)?, self.plan.blobs.get(nth)?))
    }

    /// Checks the signatures and gives the trusted keys that signed.
    pub fn check_signatures(&self, policy: &Policy) -> Result<BTreeSet<KeyId>, BundleError> {
        policy
            .check(&self.claim, self.signatures.as_ref())
            .map_err(|source| BundleError::Untrusted { path: self.path().to_owned(), source })
    }

    /// Refuses a bundle whose time is over at `now`.
    pub fn check_expiry(&self, now: Timestamp) -> Result<(), BundleError> {
        match self.lock.expires {
            Some(expired) if self.lock.is_expired(now) => {
                Err(BundleError::Expired { path: self.path().to_owned(), expired })
            }
            _ => Ok(()),
        }
    }
}

/// Makes sure that volumes are of the bundle that they say they are of, and that the last has the whole tail where it says:
/// there a signature is written.
fn check_set(media: &Media, lock: &Lock, plan: &Plan, tail: &Tail) -> Result<(), BundleError> {
    let fits = media.set().is_none_or(|set| {
        set.name == lock.name && set.sequence == lock.sequence && set.digest == tail.index.digest
    });
    if !fits {
        return Err(media.malformed(0, "the volumes are not of the bundle that they name"));
    }
    let place = media.last_volume().and_then(|volume| volume.header().tail.as_ref());
    match place {
        Some(place) if place.offset != plan.tail => {
            Err(media.malformed(plan.tail, "the tail does not begin where the last volume says"))
        }
        _ => Ok(()),
    }
}

/// Compares the end of the bundle with what its lock and its signatures make.
fn compare_tail(media: &Media, plan: &Plan, tail: &Tail) -> Result<(), BundleError> {
    let len = plan.tail + tail.bytes.len() as u64;
    if media.bytes().len() != len {
        let what = format!("it has {} bytes, and its lock makes {len}", media.bytes().len());
        return Err(media.malformed(len.min(media.bytes().len()), what));
    }
    let mut bytes = vec![0; tail.bytes.len()];
    media.read_exact_at(&mut bytes, plan.tail)?;
    match bytes.iter().zip(&tail.bytes).position(|(found, expected)| found != expected) {
        None => Ok(()),
        Some(at) => {
            let at = plan.tail + at as u64;
            let entry = tail.entries.iter().rev().find(|entry| entry.header <= at);
            let name = entry.map_or("the tail", |entry| &entry.path);
            Err(media.malformed(at, format!("{name} is not what the lock makes it")))
        }
    }
}
