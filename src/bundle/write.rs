//! Building a bundle: every blob is fetched straight to its place, several at a time, hashed on the way.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::journal::Journal;
use super::plan::{Entry, Plan, PlanError, Tail};
use super::read::{Bundle, BundleError};
use super::tar;
use crate::file;
use crate::oci::{Descriptor, Digest, Hasher};
use crate::resolve::{Lock, LockedBlob};
use crate::trust::{Claim, PrivateKey, Signatures, TrustError};

/// How much is gathered before it is hashed and written.
const CHUNK: usize = 1024 * 1024;
/// How often the journal is told how far a blob has come, in bytes.
const NOTE_EVERY: u64 = 8 * 1024 * 1024;

/// An error of whatever blobs are read from.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Where the blobs of a lock are read from.
pub trait BlobSource: Send + Sync {
    /// The bytes of `blob` from `offset` on. Whoever reads checks size and digest.
    fn read<'a>(&'a self, blob: &'a LockedBlob, offset: u64) -> BoxStream<'a, Result<Bytes, SourceError>>;
}

/// Why a bundle was not built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A file cannot be written or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is not enough space.
    #[error("{}: the disk is full: the bundle needs {needed} bytes; free some space or choose another place, then run the same command again", path.display())]
    Full {
        /// The unfinished bundle.
        path: PathBuf,
        /// The size of the finished bundle in bytes.
        needed: u64,
    },
    /// Another process builds the same file.
    #[error("{}: another dray is building this bundle; wait for it or choose another output", path.display())]
    Busy {
        /// The bundle.
        path: PathBuf,
    },
    /// The lock cannot be laid out.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A blob could not be fetched.
    #[error("cannot fetch {digest} of {name}: {source}")]
    Fetch {
        /// The blob.
        digest: Digest,
        /// The repository or address that it was fetched from.
        name: String,
        /// Why.
        source: SourceError,
    },
    /// The upstream gave something else than the lock states.
    #[error(
        "{name} gave other bytes for {digest} than the lock states; the upstream or something on the way to it is damaged"
    )]
    Digest {
        /// The blob.
        digest: Digest,
        /// The repository or address that it was fetched from.
        name: String,
    },
    /// The bundle that is to be signed cannot be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The signatures cannot be added.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// How a bundle is built.
pub struct BuildOptions<'a> {
    /// Where the bundle goes.
    pub output: &'a Path,
    /// The time that the archive's entries bear, in seconds since 1970.
    pub mtime: u64,
    /// How many blobs are fetched at the same time.
    pub concurrency: usize,
    /// Who signs.
    pub keys: &'a [PrivateKey],
    /// Is told how many bytes have come, and, when an earlier run is continued, how many were already there.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

/// What was built.
#[derive(Debug)]
pub struct Built {
    /// The bundle index.
    pub index: Descriptor,
    /// The size of the bundle in bytes.
    pub size: u64,
    /// How many of its bytes an earlier, interrupted run had fetched.
    pub continued: u64,
}

/// Builds the bundle of `lock` from `source`, or goes on where an interrupted run stopped.
///
/// Until it is complete the bundle is called `OUTPUT.partial`. A file that was called `OUTPUT` before is replaced
/// only then.
pub async fn build(
    lock: &Lock,
    source: &impl BlobSource,
    options: &BuildOptions<'_>,
) -> Result<Built, BuildError> {
    let plan = Plan::new(lock, options.mtime)?;
    let tail = signed_tail(lock, &plan, options.keys)?;
    let size = plan.tail + tail.bytes.len() as u64;
    let partial = Partial::open(options.output, lock, &plan, size)?;
    let mut continued = 0;
    let mut fetches = Vec::new();
    for (nth, (blob, entry)) in lock.blobs.iter().zip(&plan.blobs).enumerate() {
        let start = partial.start(nth, blob, entry).await?;
        continued += start.offset;
        (options.progress)(start.offset);
        if !start.complete {
            fetches.push(partial.fetch(nth, blob, entry, start, source, options.progress));
        }
    }
    stream::iter(fetches).buffer_unordered(options.concurrency.max(1)).try_collect::<()>().await?;
    partial.finish(options.output, &plan, &tail)?;
    Ok(Built { index: tail.index, size, continued })
}

fn signed_tail(lock: &Lock, plan: &Plan, keys: &[PrivateKey]) -> Result<Tail, TrustError> {
    let tail = Tail::new(lock, plan, None);
    if keys.is_empty() {
        return Ok(tail);
    }
    let claim = Claim::new(&lock.name.repository(), &tail.index.digest);
    Ok(Tail::new(lock, plan, Some(&Signatures::create(keys, &claim)?)))
}

/// Where a blob goes on.
struct Start {
    offset: u64,
    hasher: Hasher,
    complete: bool,
}

/// The unfinished bundle.
struct Partial {
    path: PathBuf,
    journal_path: PathBuf,
    file: Arc<File>,
    size: u64,
    journal: Journal,
    claims: super::journal::Progress,
}

impl Partial {
    /// Opens `OUTPUT.partial` for one builder at a time, reserves the whole size, and writes all headers.
    fn open(output: &Path, lock: &Lock, plan: &Plan, size: u64) -> Result<Self, BuildError> {
        let path = with_suffix(output, ".partial");
        let journal_path = with_suffix(output, ".partial.journal");
        let io = |source| BuildError::Io { path: path.clone(), source };
        let file = lock_file(&path, output)?;
        let identity = format!("dray-journal 1 {} {}", Digest::sha256(&lock.to_json()), plan.mtime);
        let journal = Journal::open(&journal_path, &identity);
        let (journal, claims) =
            journal.map_err(|source| BuildError::Io { path: journal_path.clone(), source })?;
        let full = |source| write_error(&path, size, source);
        if claims.is_none() {
            // What another lock left there must not show through in the padding.
            file.set_len(0).map_err(io)?;
        }
        file::reserve(&file, size).map_err(full)?;
        for entry in &plan.blobs {
            let header = tar::header(&entry.path, entry.size, plan.mtime);
            file::write_all_at(&file, &header, entry.header).map_err(full)?;
        }
        let claims = claims.unwrap_or_default();
        Ok(Self { path, journal_path, file: Arc::new(file), size, journal, claims })
    }

    fn io(&self, source: io::Error) -> BuildError {
        BuildError::Io { path: self.path.clone(), source }
    }

    /// Hashes what an earlier run left of a blob. What does not lead to the blob's digest is fetched again.
    async fn start(&self, nth: usize, blob: &LockedBlob, entry: &Entry) -> Result<Start, BuildError> {
        let fresh = || Hasher::new(blob.digest.algorithm());
        let claimed = self.claims.get(&nth).copied().unwrap_or(0).min(entry.size);
        let (file, mut state, offset) = (Arc::clone(&self.file), fresh(), entry.offset);
        let job = tokio::task::spawn_blocking(move || {
            let mut buffer = vec![0; CHUNK];
            let mut done = 0;
            while done < claimed {
                let wanted = usize::try_from(claimed - done).map_or(CHUNK, |left| left.min(CHUNK));
                file::read_exact_at(&file, &mut buffer[..wanted], offset + done)?;
                state.update(&buffer[..wanted]);
                done += wanted as u64;
            }
            Ok(state)
        });
        let hasher = joined(job.await).map_err(|source| self.io(source))?;
        if claimed < entry.size || entry.size == 0 {
            let complete = entry.size == 0 && hasher.clone().finish() == blob.digest;
            return Ok(Start { offset: claimed, hasher, complete });
        }
        if hasher.clone().finish() == blob.digest {
            Ok(Start { offset: claimed, hasher, complete: true })
        } else {
            Ok(Start { offset: 0, hasher: fresh(), complete: false })
        }
    }

    /// Fetches the rest of a blob to its place. If that does not make the blob, it is fetched once more as a whole:
    /// the part that an earlier run left may be what is wrong.
    async fn fetch(
        &self,
        nth: usize,
        blob: &LockedBlob,
        entry: &Entry,
        start: Start,
        source: &impl BlobSource,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), BuildError> {
        let from_start = start.offset == 0;
        if self.fetch_once(nth, blob, entry, start, source, progress).await? {
            return Ok(());
        }
        if !from_start {
            let start = Start { offset: 0, hasher: Hasher::new(blob.digest.algorithm()), complete: false };
            if self.fetch_once(nth, blob, entry, start, source, &|_| ()).await? {
                return Ok(());
            }
        }
        self.note(nth, 0)?;
        Err(BuildError::Digest { digest: blob.digest.clone(), name: origin(blob) })
    }

    async fn fetch_once(
        &self,
        nth: usize,
        blob: &LockedBlob,
        entry: &Entry,
        start: Start,
        source: &impl BlobSource,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<bool, BuildError> {
        let failed = |source| BuildError::Fetch { digest: blob.digest.clone(), name: origin(blob), source };
        let Start { mut offset, mut hasher, .. } = start;
        let mut noted = offset;
        let mut chunks = source.read(blob, offset);
        let mut gathered = Vec::with_capacity(CHUNK.min(usize::try_from(entry.size).unwrap_or(CHUNK)));
        loop {
            let chunk = chunks.try_next().await.map_err(failed)?;
            let ended = chunk.is_none();
            gathered.extend_from_slice(&chunk.unwrap_or_default());
            if gathered.len() as u64 > entry.size - offset {
                return Ok(false);
            }
            if gathered.len() >= CHUNK || (ended && !gathered.is_empty()) {
                let count = gathered.len() as u64;
                (hasher, gathered) = self.put(hasher, gathered, entry.offset + offset).await?;
                offset += count;
                progress(count);
                if offset - noted >= NOTE_EVERY {
                    self.note(nth, offset)?;
                    noted = offset;
                }
            }
            if ended {
                break;
            }
        }
        let good = offset == entry.size && hasher.finish() == blob.digest;
        if good {
            self.note(nth, offset)?;
        }
        Ok(good)
    }

    /// Hashes and writes `bytes` on a thread that may block, and gives the buffer back empty.
    async fn put(
        &self,
        mut hasher: Hasher,
        mut bytes: Vec<u8>,
        position: u64,
    ) -> Result<(Hasher, Vec<u8>), BuildError> {
        let file = Arc::clone(&self.file);
        let written = tokio::task::spawn_blocking(move || {
            hasher.update(&bytes);
            file::write_all_at(&file, &bytes, position)?;
            bytes.clear();
            Ok((hasher, bytes))
        });
        joined(written.await).map_err(|source| write_error(&self.path, self.size, source))
    }

    fn note(&self, nth: usize, bytes: u64) -> Result<(), BuildError> {
        let io = |source| BuildError::Io { path: self.journal_path.clone(), source };
        self.journal.note(nth, bytes).map_err(io)
    }

    /// Writes the tail and gives the bundle its name.
    fn finish(self, output: &Path, plan: &Plan, tail: &Tail) -> Result<(), BuildError> {
        let io = |source| BuildError::Io { path: self.path.clone(), source };
        file::write_all_at(&self.file, &tail.bytes, plan.tail).map_err(io)?;
        self.file.set_len(plan.tail + tail.bytes.len() as u64).map_err(io)?;
        self.file.sync_all().map_err(io)?;
        std::fs::rename(&self.path, output).map_err(io)?;
        file::sync_parent(output).map_err(io)?;
        match std::fs::remove_file(&self.journal_path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(BuildError::Io { path: self.journal_path, source: error })
            }
            _ => Ok(()),
        }
    }
}

/// Opens the unfinished bundle at `path` for this process alone.
fn lock_file(path: &Path, output: &Path) -> Result<File, BuildError> {
    let io = |source| BuildError::Io { path: path.to_owned(), source };
    loop {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(BuildError::Busy { path: output.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        // Between opening and locking, another builder may have finished the file and given it its final name.
        if file::is_at(&file, path).map_err(io)? {
            return Ok(file);
        }
    }
}

fn write_error(path: &Path, needed: u64, source: io::Error) -> BuildError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            BuildError::Full { path: path.to_owned(), needed }
        }
        _ => BuildError::Io { path: path.to_owned(), source },
    }
}

/// Adds the signatures that `make` gives for the bundle at `path`, rewriting its tail only.
///
/// The new tail is first kept beside the bundle as `PATH.tail`, so that a run that is killed while it writes is
/// finished by the next one.
pub fn sign(
    path: &Path,
    make: impl FnOnce(&Claim) -> Result<Signatures, TrustError>,
) -> Result<Bundle, BuildError> {
    let sidecar = with_suffix(path, ".tail");
    finish_signing(path, &sidecar)?;
    let bundle = Bundle::open(path)?;
    let signatures = bundle.signatures().cloned().unwrap_or_default().with(make(bundle.claim())?)?;
    let plan = Plan::new(bundle.lock(), bundle.mtime())?;
    let tail = Tail::new(bundle.lock(), &plan, Some(&signatures));
    let io = |source| BuildError::Io { path: sidecar.clone(), source };
    let mut kept = plan.tail.to_be_bytes().to_vec();
    kept.extend_from_slice(&tail.bytes);
    let digest = Digest::sha256(&kept).to_string();
    kept.extend_from_slice(digest.as_bytes());
    let unfinished = with_suffix(path, ".tail.new");
    std::fs::write(&unfinished, &kept).map_err(io)?;
    File::open(&unfinished).and_then(|file| file.sync_all()).map_err(io)?;
    std::fs::rename(&unfinished, &sidecar).map_err(io)?;
    file::sync_parent(&sidecar).map_err(io)?;
    finish_signing(path, &sidecar)?;
    Ok(Bundle::open(path)?)
}

/// Writes the tail that `sidecar` holds into the bundle, if there is a whole one.
fn finish_signing(path: &Path, sidecar: &Path) -> Result<(), BuildError> {
    let io = |source| BuildError::Io { path: path.to_owned(), source };
    let kept = match std::fs::read(sidecar) {
        Ok(kept) => kept,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(BuildError::Io { path: sidecar.to_owned(), source }),
    };
    let digest_len = Digest::sha256(b"").to_string().len();
    let whole = kept.len().checked_sub(digest_len).map(|at| kept.split_at(at));
    if let Some((content, digest)) = whole
        && Digest::sha256(content).to_string().as_bytes() == digest
        && let Some((position, tail)) = content.split_first_chunk::<8>()
    {
        let position = u64::from_be_bytes(*position);
        let bundle = OpenOptions::new().write(true).open(path).map_err(io)?;
        file::write_all_at(&bundle, tail, position).map_err(io)?;
        bundle.set_len(position + tail.len() as u64).map_err(io)?;
        bundle.sync_all().map_err(io)?;
    }
    std::fs::remove_file(sidecar).map_err(io)
}

/// The result of a blocking task; one that panicked is an error like any other.
fn joined<T>(result: Result<io::Result<T>, tokio::task::JoinError>) -> io::Result<T> {
    result.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn origin(blob: &LockedBlob) -> String {
    match (&blob.from, blob.urls.first()) {
        (Some(name), _) => name.to_string(),
        (None, Some(url)) => url.clone(),
        (None, None) => "nowhere".into(),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
