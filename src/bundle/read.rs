//! Reading a bundle: what it says of itself is compared with what its lock makes it, byte by byte.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;
use serde::Deserialize;

use super::plan::{
    Entry, LOCK_TYPE, Plan, ROLE, ROLE_ATTESTATION, ROLE_BUNDLE, ROLE_SIGNATURES, Tail, blob_path,
};
use super::tar;
use crate::file;
use crate::oci::{Descriptor, Digest, Hasher, MAX_MANIFEST_BYTES, Reference};
use crate::resolve::{Lock, LockError, LockedBlob, LockedImage, MAX_LOCK_BYTES};
use crate::trust::{Attestation, Claim, KeyId, Policy, SignatureManifest, Signatures, TrustError};

/// The largest `index.json` or bundle index that is read.
const MAX_INDEX_BYTES: u64 = 64 * 1024 * 1024;
/// More files than any bundle has.
const MAX_ENTRIES: usize = 4_000_000;
/// How much is read and hashed at a time.
const CHUNK: usize = 1024 * 1024;

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
    /// The bytes are not those of a bundle.
    #[error("{} is damaged or is no bundle: {what}, at byte {offset}; copy it again from where it was made", path.display())]
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
    #[error("{}: {}", path.display(), describe(.damage))]
    Damaged {
        /// The bundle.
        path: PathBuf,
        /// What is damaged.
        damage: Vec<Damage>,
    },
    /// The bundle may not be brought in any more.
    #[error(
        "{}: the bundle expired at {expired}; get a newer one, or allow this one with --allow-expired",
        path.display()
    )]
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
    /// Whether the content is at fault, as opposed to the system that reads it.
    pub fn is_verification(&self) -> bool {
        !matches!(self, Self::Io { .. })
    }
}

/// A blob whose bytes are not what its digest stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The blob.
    pub digest: Digest,
    /// Where it lies in the file.
    pub offset: u64,
    /// The images that need it.
    pub images: Vec<Reference>,
}

fn describe(damage: &[Damage]) -> String {
    let one = |damage: &Damage| {
        let images: Vec<String> = damage.images.iter().map(ToString::to_string).collect();
        let images = if images.is_empty() { "plain files".to_owned() } else { images.join(", ") };
        format!("{} at byte {} is damaged and hits {images}", damage.digest, damage.offset)
    };
    let listed: Vec<String> = damage.iter().take(20).map(one).collect();
    let more = damage.len().saturating_sub(20);
    let more = if more == 0 { String::new() } else { format!("; and {more} more") };
    format!("{}{more}; copy the bundle again from where it was made", listed.join("; "))
}

/// Where a content lies in the bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The first byte.
    pub offset: u64,
    /// The number of bytes.
    pub size: u64,
}

/// An open bundle. Its structure, its lock and its tail are checked; its blobs are not until they are read.
#[derive(Debug)]
pub struct Bundle {
    path: PathBuf,
    file: Arc<File>,
    lock: Lock,
    plan: Plan,
    tail: Tail,
    claim: Claim,
    signatures: Option<Signatures>,
}

#[derive(Deserialize)]
struct Listing {
    manifests: Vec<Descriptor>,
}

impl Listing {
    fn with_role<'a>(&'a self, role: &'a str) -> impl Iterator<Item = &'a Descriptor> {
        self.manifests.iter().filter(move |m| m.annotations.get(ROLE).is_some_and(|value| value == role))
    }
}

#[derive(Deserialize)]
struct Artifact {
    layers: Vec<Descriptor>,
}

impl Bundle {
    /// Opens the bundle at `path` and checks everything but the contents of its blobs.
    ///
    /// The archive must be exactly what its lock and its signatures make: no entry more, none less, none elsewhere.
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        let io = |source| BundleError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        let raw = Raw { path, file: &file, len };
        let (entries, mtime) = raw.entries()?;
        let index = raw.index_entry(&entries)?;
        let listing: Listing = raw.json(index)?;
        let bundle = listing.with_role(ROLE_BUNDLE).next().ok_or_else(|| {
            raw.malformed(index.offset, "the layout holds images, but no bundle made by dray")
        })?;
        let members: Listing = raw.document(&entries, bundle)?;
        let lock_artifact = members.manifests.iter().find(|m| m.artifact_type.as_deref() == Some(LOCK_TYPE));
        let lock_artifact =
            lock_artifact.ok_or_else(|| raw.malformed(index.offset, "the bundle index has no lock"))?;
        let artifact: Artifact = raw.document(&entries, lock_artifact)?;
        let layer = artifact.layers.first();
        let layer = layer.ok_or_else(|| raw.malformed(index.offset, "the lock's manifest is empty"))?;
        let lock_bytes = raw.blob(&entries, layer, MAX_LOCK_BYTES as u64)?;
        let lock = Lock::from_json(&lock_bytes)
            .map_err(|source| BundleError::Lock { path: path.to_owned(), source })?;

        let claim = Claim::new(&lock.name.repository(), &bundle.digest);
        let signatures = raw.signatures(&entries, &listing, &claim)?;
        let plan = Plan::new(&lock, mtime).map_err(|error| raw.malformed(0, &error.to_string()))?;
        let tail = Tail::new(&lock, &plan, signatures.as_ref());
        raw.compare(&entries, &plan, &tail)?;
        Ok(Self { path: path.to_owned(), file: Arc::new(file), lock, plan, tail, claim, signatures })
    }

    /// The path that the bundle was opened at.
    pub fn path(&self) -> &Path {
        &self.path
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

    /// The size of the file in bytes.
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

    /// The open file.
    pub fn file(&self) -> &Arc<File> {
        &self.file
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

    /// Where the `nth` blob of the lock stands in the archive.
    pub(super) fn entry(&self, nth: usize) -> Option<&Entry> {
        self.plan.blobs.get(nth)
    }

    /// Checks the signatures and gives the trusted keys that signed.
    pub fn check_signatures(&self, policy: &Policy) -> Result<BTreeSet<KeyId>, BundleError> {
        policy
            .check(&self.claim, self.signatures.as_ref())
            .map_err(|source| BundleError::Untrusted { path: self.path.clone(), source })
    }

    /// Refuses a bundle whose time is over at `now`.
    pub fn check_expiry(&self, now: Timestamp) -> Result<(), BundleError> {
        match self.lock.expires {
            Some(expired) if self.lock.is_expired(now) => {
                Err(BundleError::Expired { path: self.path.clone(), expired })
            }
            _ => Ok(()),
        }
    }

    /// Hashes every blob on `threads` threads and names all that are damaged. `progress` is told of bytes as they are
    /// read.
    pub fn verify_blobs(&self, threads: usize, progress: &(dyn Fn(u64) + Sync)) -> Result<(), BundleError> {
        let next = AtomicUsize::new(0);
        let check_next = || {
            let mut damaged = Vec::new();
            let mut buffer = vec![0; CHUNK];
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let (Some(blob), Some(entry)) = (self.lock.blobs.get(at), self.plan.blobs.get(at)) else {
                    return Ok(damaged);
                };
                if !self.blob_is_good(blob, entry, &mut buffer, progress)? {
                    damaged.push(self.damage(blob, entry));
                }
            }
        };
        let results: Vec<Result<Vec<Damage>, BundleError>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(check_next)).collect();
            workers.into_iter().map(|worker| worker.join().expect("hashing does not panic")).collect()
        });
        let mut damage: Vec<Damage> = results.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
        if damage.is_empty() {
            return Ok(());
        }
        damage.sort_by_key(|damage| damage.offset);
        Err(BundleError::Damaged { path: self.path.clone(), damage })
    }

    /// Names the images that `blob` belongs to.
    pub(super) fn damage(&self, blob: &LockedBlob, entry: &Entry) -> Damage {
        Damage { digest: blob.digest.clone(), offset: entry.offset, images: self.images_with(&blob.digest) }
    }

    /// The images that need the blob `digest`.
    fn images_with(&self, digest: &Digest) -> Vec<Reference> {
        let needs =
            |image: &&LockedImage| image.manifests().chain(image.contents()).any(|found| found == digest);
        self.lock.images.iter().filter(needs).map(|image| image.reference.clone()).collect()
    }

    fn blob_is_good(
        &self,
        blob: &LockedBlob,
        entry: &Entry,
        buffer: &mut [u8],
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<bool, BundleError> {
        let io = |source| BundleError::Io { path: self.path.clone(), source };
        let mut hasher = Hasher::new(blob.digest.algorithm());
        let mut done = 0;
        while done < entry.size {
            let wanted =
                usize::try_from(entry.size - done).map_or(buffer.len(), |left| left.min(buffer.len()));
            file::read_exact_at(&self.file, &mut buffer[..wanted], entry.offset + done).map_err(io)?;
            hasher.update(&buffer[..wanted]);
            done += wanted as u64;
            progress(wanted as u64);
        }
        let padding =
            usize::try_from(entry.size.next_multiple_of(tar::BLOCK) - entry.size).expect("less than a block");
        let padding = &mut buffer[..padding];
        file::read_exact_at(&self.file, padding, entry.offset + entry.size).map_err(io)?;
        Ok(hasher.finish() == blob.digest && padding.iter().all(|b| *b == 0))
    }
}

/// A file that may be a bundle.
struct Raw<'a> {
    path: &'a Path,
    file: &'a File,
    len: u64,
}

impl Raw<'_> {
    fn malformed(&self, offset: u64, what: &str) -> BundleError {
        BundleError::Malformed { path: self.path.to_owned(), offset, what: what.to_owned() }
    }

    fn io(&self, source: io::Error) -> BundleError {
        BundleError::Io { path: self.path.to_owned(), source }
    }

    /// Reads all headers, and the time that the first of them bears.
    fn entries(&self) -> Result<(Vec<Entry>, u64), BundleError> {
        let mut entries = Vec::new();
        let mut mtime = 0;
        let mut at = 0;
        let mut buffer = [0; 1536];
        loop {
            let read = file::read_up_to_at(self.file, &mut buffer, at).map_err(|source| self.io(source))?;
            let header = tar::parse(&buffer[..read]).map_err(|what| self.malformed(at, what))?;
            let Some(header) = header else { break };
            if entries.is_empty() {
                mtime = header.mtime;
            }
            if header.mtime != mtime {
                return Err(self.malformed(at, "a file with another time than the first"));
            }
            if entries.len() >= MAX_ENTRIES {
                return Err(self.malformed(at, "more files than a bundle has"));
            }
            let offset = at + header.len;
            let next = tar::padded(header.size).and_then(|size| offset.checked_add(size));
            let next = next.filter(|next| *next <= self.len);
            let next = next.ok_or_else(|| self.malformed(self.len, "the file is cut off"))?;
            entries.push(Entry { path: header.path, header: at, offset, size: header.size });
            at = next;
        }
        if self.len != at + tar::END {
            let what = if self.len < at + tar::END {
                "the file is cut off"
            } else {
                "something follows the archive"
            };
            return Err(self.malformed(at, what));
        }
        Ok((entries, mtime))
    }

    fn index_entry<'e>(&self, entries: &'e [Entry]) -> Result<&'e Entry, BundleError> {
        entries
            .iter()
            .rev()
            .find(|entry| entry.path == "index.json")
            .ok_or_else(|| self.malformed(self.len, "it has no index.json"))
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, entry: &Entry) -> Result<T, BundleError> {
        let bytes = self.read(entry, MAX_INDEX_BYTES)?;
        serde_json::from_slice(&bytes).map_err(|error| self.malformed(entry.offset, &error.to_string()))
    }

    fn document<T: for<'de> Deserialize<'de>>(
        &self,
        entries: &[Entry],
        descriptor: &Descriptor,
    ) -> Result<T, BundleError> {
        let bytes = self.blob(entries, descriptor, MAX_INDEX_BYTES)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| self.malformed(0, &format!("{}: {error}", descriptor.digest)))
    }

    /// Reads the content that `descriptor` points at and checks its digest.
    fn blob(&self, entries: &[Entry], descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, BundleError> {
        let digest = &descriptor.digest;
        let path = blob_path(digest);
        let entry = entries.iter().rev().find(|entry| entry.path == path);
        let entry = entry.ok_or_else(|| self.malformed(self.len, &format!("{digest} is missing")))?;
        let bytes = self.read(entry, limit)?;
        if digest.matches(&bytes) {
            Ok(bytes)
        } else {
            Err(self.malformed(entry.offset, &format!("{digest} has another content")))
        }
    }

    /// Reads the signatures of `claim` in both forms, as `index.json` lists them.
    fn signatures(
        &self,
        entries: &[Entry],
        listing: &Listing,
        claim: &Claim,
    ) -> Result<Option<Signatures>, BundleError> {
        let untrusted = |source| BundleError::Untrusted { path: self.path.to_owned(), source };
        let Some(descriptor) = listing.with_role(ROLE_SIGNATURES).next() else { return Ok(None) };
        let bytes = self.blob(entries, descriptor, MAX_INDEX_BYTES)?;
        let simple = SignatureManifest::parse(&bytes, &claim.payload).map_err(untrusted)?;
        let mut attestations = Vec::new();
        for descriptor in listing.with_role(ROLE_ATTESTATION).take(Signatures::MAX) {
            let artifact: Artifact = self.document(entries, descriptor)?;
            let layer = artifact.layers.first();
            let layer = layer.ok_or_else(|| self.malformed(self.len, "an attestation without content"))?;
            let bytes = self.blob(entries, layer, MAX_MANIFEST_BYTES as u64)?;
            attestations.push(Attestation::parse(&bytes, &claim.statement).map_err(untrusted)?);
        }
        let signatures = Signatures::new(simple.signatures().to_vec(), attestations);
        signatures.map(Some).map_err(untrusted)
    }

    fn read(&self, entry: &Entry, limit: u64) -> Result<Vec<u8>, BundleError> {
        let size = usize::try_from(entry.size).ok().filter(|_| entry.size <= limit);
        let size =
            size.ok_or_else(|| self.malformed(entry.header, &format!("{} is too large", entry.path)))?;
        let mut bytes = vec![0; size];
        file::read_exact_at(self.file, &mut bytes, entry.offset).map_err(|source| self.io(source))?;
        Ok(bytes)
    }

    /// Compares the archive with what its lock and its signatures make.
    fn compare(&self, entries: &[Entry], plan: &Plan, tail: &Tail) -> Result<(), BundleError> {
        let expected = plan.blobs.iter().chain(&tail.entries);
        let mut found = entries.iter();
        for expected in expected {
            match found.next() {
                Some(found) if found == expected => {}
                Some(found) => {
                    let what = format!("{} stands where {} belongs", found.path, expected.path);
                    return Err(self.malformed(found.header, &what));
                }
                None => return Err(self.malformed(self.len, &format!("{} is missing", expected.path))),
            }
        }
        if let Some(extra) = found.next() {
            return Err(self.malformed(extra.header, &format!("{} does not belong there", extra.path)));
        }
        let mut bytes = vec![0; tail.bytes.len()];
        file::read_exact_at(self.file, &mut bytes, plan.tail).map_err(|source| self.io(source))?;
        match bytes.iter().zip(&tail.bytes).position(|(found, expected)| found != expected) {
            None => Ok(()),
            Some(at) => {
                let at = plan.tail + at as u64;
                let name = |entry: &&Entry| entry.header <= at;
                let entry = tail.entries.iter().rev().find(name).map_or("the tail", |entry| &entry.path);
                Err(self.malformed(at, &format!("{entry} is not what the lock makes it")))
            }
        }
    }
}
