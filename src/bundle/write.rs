//! Building a bundle: every blob is fetched straight to its place, several at a time, hashed on the way.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::cutting::Cutting;
use super::journal::Progress;
use super::parity::{self, Layout, ParityShare};
use super::plan::{Entry, Plan, PlanError, Tail};
use super::read::BundleError;
use super::tar;
use super::unfinished::{Frame, NewFile, Part, Unfinished};
use super::volume::{Blocks, CutError, Slice, VolumeSize, prefix_len, volume_path};
use crate::file::{Inputs, PlaceError, Span};
use crate::oci::{Algorithm, Descriptor, Digest, Hasher};
use crate::resolve::{Lock, LockedBlob};
use crate::trust::{Claim, PrivateKey, Signatures, TrustError};

/// How much of a blob is gathered before it is hashed and written.
const CHUNK: usize = 1024 * 1024;
/// How often the journal is told how far a blob has come, in bytes.
const NOTE_EVERY: u64 = 8 * 1024 * 1024;

/// How much of the finished head one thread hashes before it tells of it.
const HASHED_AT_ONCE: u64 = 16 * 1024 * 1024;

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
    /// The file system does not take a file of this size.
    #[error("{}: the file system cannot hold a file this large", path.display())]
    TooLarge {
        /// The unfinished file.
        path: PathBuf,
    },
    /// A file of the bundle cannot have its name.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// Another process builds the same file.
    #[error("{}: another dray is building this bundle; wait for it or choose another output", path.display())]
    Busy {
        /// The bundle.
        path: PathBuf,
    },
    /// The lock cannot be laid out.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The bundle cannot be cut into volumes of that size.
    #[error(transparent)]
    Cut(#[from] CutError),
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
    /// Files that are read for the build, which it must not write or replace.
    pub inputs: &'a Inputs,
    /// The time that the archive's entries bear, in seconds since 1970.
    pub mtime: u64,
    /// How many blobs are fetched at the same time.
    pub concurrency: usize,
    /// Who signs.
    pub keys: &'a [PrivateKey],
    /// The bundle is cut into volumes that are no larger; none for one file.
    pub volume_size: Option<VolumeSize>,
    /// Recovery files are made, from which this share of the bundle can be restored.
    pub parity: Option<ParityShare>,
    /// Is told how many bytes have come, and, when an earlier run is continued, how many were already there. With volumes
    /// or parity it is told of all bytes once more while they are hashed, and once more while parity is made.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

/// What was built.
#[derive(Debug)]
pub struct Built {
    /// The bundle index.
    pub index: Descriptor,
    /// The size of its files in bytes.
    pub size: u64,
    /// How many of its bytes an earlier, interrupted run had fetched.
    pub continued: u64,
    /// The files: the bundle, or its volumes in their order, and the recovery files.
    pub paths: Vec<PathBuf>,
    /// What the recovery files can do, or `None` if there are none.
    pub recovery: Option<RecoveryReach>,
}

/// How much of a bundle its recovery files restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveryReach {
    /// The most bytes that may be lost, in whole blocks.
    pub bytes: u64,
    /// The bytes of the largest volume, in whole blocks; all of the bundle if it is not cut.
    pub volume: u64,
    /// The bytes of the bundle that recovery files are made of.
    pub whole: u64,
}

impl RecoveryReach {
    fn of(layout: &Layout, cutting: &Cutting) -> Self {
        let size = layout.block_size;
        let volumes = cutting.volumes().map(|(_, blocks)| (blocks.end - blocks.start) * size);
        Self {
            bytes: layout.recovery.len() as u64 * size,
            volume: volumes.max().unwrap_or(layout.head),
            whole: layout.head,
        }
    }
}

/// Builds the bundle of `lock` from `source`, or goes on where an interrupted run stopped.
///
/// Until it is complete each of its files is called `NAME.partial`. A file that had its name before is replaced only then.
pub async fn build(
    lock: &Lock,
    source: &impl BlobSource,
    options: &BuildOptions<'_>,
) -> Result<Built, BuildError> {
    let plan = Plan::new(lock, options.mtime)?;
    let tail = signed_tail(lock, &plan, options.keys)?;
    let cutting = Cutting::new(lock, &plan, &tail, options.volume_size)?;
    let parity =
        options.parity.map(|share| plan_parity(&cutting, &plan, &tail, share, options)).transpose()?;
    let parity = parity.map(Arc::new);
    let partial = Partial::open(options, lock, &plan, &tail, &cutting, parity.as_ref())?;
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
    partial.files.write_all_at(&tail.bytes, plan.tail)?;
    let mut prefixes = Vec::new();
    let mut layout = None;
    if parity.is_some() || options.volume_size.is_some() {
        let bytes = partial.files.bytes().clone();
        let digests = hash_blocks(&partial.files, bytes, cutting.blocks, options).await?;
        prefixes = cutting.prefixes(&digests, &tail, plan.mtime);
        if let Some(mut made) = parity.map(Arc::unwrap_or_clone) {
            let recovery = partial.files.recovery().clone();
            make_parity(&partial.files, cutting.blocks, options).await?;
            let blocks = Blocks { size: cutting.blocks.size, head: recovery.len() };
            made.recovery = hash_blocks(&partial.files, recovery, blocks, options).await?;
            made.blocks = digests;
            layout = Some(Arc::new(made));
        }
    }
    let recovery = layout.as_ref().map(|layout| RecoveryReach::of(layout, &cutting));
    let (size, index) = (partial.files.size(), tail.index.clone());
    let finish = move || {
        let of_bundle = partial.files.count() - layout.as_ref().map_or(0, |layout| layout.files.len());
        let prefixes = prefixes.into_iter().map(|prefix| vec![(0, prefix)]);
        let frames = prefixes.chain(std::iter::repeat_with(Vec::new)).take(of_bundle);
        let parity = layout.iter().flat_map(|layout| parity_frames(layout, &tail));
        Ok(partial.files.finish(frames.chain(parity)))
    };
    let paths = joined(tokio::task::spawn_blocking(finish).await);
    let paths = paths.map_err(|source| BuildError::Io { path: options.output.to_owned(), source })??;
    Ok(Built { index, size, continued, paths, recovery })
}

fn plan_parity(
    cutting: &Cutting,
    plan: &Plan,
    tail: &Tail,
    share: ParityShare,
    options: &BuildOptions<'_>,
) -> Result<Layout, CutError> {
    let (set, tail) = (cutting.set.clone(), tail.bytes.len() as u64);
    parity::plan(set, plan.mtime, cutting.starts(), cutting.blocks, share, options.volume_size, tail)
}

/// Makes the recovery blocks.
async fn make_parity(
    files: &Unfinished,
    blocks: Blocks,
    options: &BuildOptions<'_>,
) -> Result<(), BuildError> {
    let (head, recovery) = (files.bytes().clone(), files.recovery().clone());
    let (told, mut telling) = tokio::sync::mpsc::unbounded_channel();
    let work = tokio::task::spawn_blocking(move || {
        // Nobody listens any more when the build was interrupted.
        let tell = |bytes| _ = told.send(bytes);
        let write = |nth, at, bytes: &[u8]| recovery.write_all_at(bytes, nth * blocks.size + at);
        parity::encode(&head, blocks, recovery.len() / blocks.size, write, tell)
    });
    while let Some(bytes) = telling.recv().await {
        (options.progress)(bytes);
    }
    joined(work.await).map_err(|source| files.failed(source))
}

/// What stands around the recovery blocks, for each recovery file: made when it is asked for, since it takes megabytes.
fn parity_frames(layout: &Arc<Layout>, tail: &Tail) -> impl Iterator<Item = Frame> {
    let frame = |number| parity::Header::new(number, Arc::clone(layout)).frame(&tail.bytes);
    (1..).take(layout.files.len()).map(frame)
}

/// Hashes blocks of `bytes`, several at a time.
async fn hash_blocks(
    files: &Unfinished,
    bytes: Span,
    blocks: Blocks,
    options: &BuildOptions<'_>,
) -> Result<Vec<Digest>, BuildError> {
    let at_once = blocks.count().min((HASHED_AT_ONCE / blocks.size).max(1));
    let runs =
        (0..blocks.count()).step_by(usize::try_from(at_once.max(1)).unwrap_or(usize::MAX)).map(|first| {
            let end = blocks.count().min(first + at_once);
            let bytes = bytes.clone();
            async move {
                let hash = move || (first..end).map(|nth| hash_block(&bytes, blocks, nth)).collect();
                let digests: Vec<Digest> = joined(tokio::task::spawn_blocking(hash).await)?;
                (options.progress)((first..end).map(|nth| blocks.place(nth).1).sum());
                Ok(digests)
            }
        });
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = options.concurrency.clamp(1, processors);
    let digests: io::Result<Vec<Vec<Digest>>> = stream::iter(runs).buffered(threads).try_collect().await;
    Ok(digests.map_err(|source| files.failed(source))?.concat())
}

fn hash_block(bytes: &Span, blocks: Blocks, nth: u64) -> io::Result<Digest> {
    let (offset, len) = blocks.place(nth);
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut buffer = vec![0; usize::try_from(len).map_or(CHUNK, |len| len.min(CHUNK))];
    let mut done = 0;
    while done < len {
        let wanted = usize::try_from(len - done).map_or(buffer.len(), |left| left.min(buffer.len()));
        bytes.read_exact_at(&mut buffer[..wanted], offset + done)?;
        hasher.update(&buffer[..wanted]);
        done += wanted as u64;
    }
    Ok(hasher.finish())
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
    files: Unfinished,
    claims: Progress,
}

impl Partial {
    /// Opens the unfinished files for one builder at a time, and writes all headers.
    fn open(
        options: &BuildOptions<'_>,
        lock: &Lock,
        plan: &Plan,
        tail: &Tail,
        cutting: &Cutting,
        parity: Option<&Arc<Layout>>,
    ) -> Result<Self, BuildError> {
        let output = options.output;
        let mut identity = format!("dray-journal 1 {} {}", Digest::sha256(&lock.to_json()), plan.mtime);
        let mut files = Vec::new();
        if cutting.starts().is_empty() {
            let len = plan.tail + tail.bytes.len() as u64;
            files.push(NewFile {
                path: output.to_owned(),
                len,
                part: Part::Bundle(0, Slice { offset: 0, len }),
            });
        } else {
            identity = format!("{identity} {}", cutting.set.id);
        }
        let of = u32::try_from(cutting.starts().len()).expect("no more volumes than there may be");
        for (number, (slice, blocks)) in (1..).zip(cutting.volumes()) {
            let skipped = prefix_len(blocks.end - blocks.start);
            let len = skipped + slice.len + tar::END;
            files.push(NewFile {
                path: volume_path(output, number, of),
                len,
                part: Part::Bundle(skipped, slice),
            });
        }
        if let Some(layout) = parity {
            identity = format!("{identity} {} {:?}", layout.recovery.len(), layout.files);
            let of = u32::try_from(layout.files.len()).expect("no more files than there may be");
            for number in 1..=of {
                let header = parity::Header::new(number, Arc::clone(layout));
                let path = volume_path(&parity::parity_output(output), number, of);
                let part = Part::Recovery(header.part_offset(), header.part_len());
                files.push(NewFile { path, len: parity::file_len(&header, tail.bytes.len()), part });
            }
        }
        let (files, claims) = Unfinished::open(output, files, &identity, options.inputs)?;
        for entry in &plan.blobs {
            files.write_all_at(&tar::header(&entry.path, entry.size, plan.mtime), entry.header)?;
            let padding = entry.size.next_multiple_of(tar::BLOCK) - entry.size;
            let padding = usize::try_from(padding).expect("less than a block");
            files.write_all_at(&tar::ZEROS[..padding], entry.offset + entry.size)?;
        }
        Ok(Self { files, claims })
    }

    /// Hashes what an earlier run left of a blob. What does not lead to the blob's digest is fetched again.
    async fn start(&self, nth: usize, blob: &LockedBlob, entry: &Entry) -> Result<Start, BuildError> {
        let fresh = || Hasher::new(blob.digest.algorithm());
        let claimed = self.claims.blobs.get(&nth).copied().unwrap_or(0).min(entry.size);
        let (bytes, mut state, offset) = (self.files.bytes().clone(), fresh(), entry.offset);
        let job = tokio::task::spawn_blocking(move || {
            let mut buffer = vec![0; CHUNK];
            let mut done = 0;
            while done < claimed {
                let wanted = usize::try_from(claimed - done).map_or(CHUNK, |left| left.min(CHUNK));
                bytes.read_exact_at(&mut buffer[..wanted], offset + done)?;
                state.update(&buffer[..wanted]);
                done += wanted as u64;
            }
            Ok(state)
        });
        let hasher = joined(job.await).map_err(|source| self.files.failed(source))?;
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
        self.files.note(nth, 0)?;
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
            let mut chunk = chunk.unwrap_or_default();
            if (gathered.len() + chunk.len()) as u64 > entry.size - offset {
                return Ok(false);
            }
            while !chunk.is_empty() || (ended && !gathered.is_empty()) {
                // Never more than a chunk: a buffer that grows doubles what a build needs.
                let fitting = chunk.split_to(chunk.len().min(CHUNK - gathered.len()));
                gathered.extend_from_slice(&fitting);
                if gathered.len() < CHUNK && !ended {
                    break;
                }
                let count = gathered.len() as u64;
                (hasher, gathered) = self.put(hasher, gathered, entry.offset + offset).await?;
                offset += count;
                progress(count);
                if offset - noted >= NOTE_EVERY {
                    self.files.note(nth, offset)?;
                    noted = offset;
                }
            }
            if ended {
                break;
            }
        }
        let good = offset == entry.size && hasher.finish() == blob.digest;
        if good {
            self.files.note(nth, offset)?;
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
        let target = self.files.bytes().clone();
        let written = tokio::task::spawn_blocking(move || {
            hasher.update(&bytes);
            target.write_all_at(&bytes, position)?;
            bytes.clear();
            Ok((hasher, bytes))
        });
        joined(written.await).map_err(|source| self.files.failed(source))
    }
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
