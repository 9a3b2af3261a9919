//! Making lost parts of a bundle again from its recovery files.
//!
//! Nothing that a recovery file says is believed: blocks count when they have their digests, the tail when it is what its
//! lock makes it, and the whole when every blob of the bundle has its digest. What is made goes to new files, which get
//! their names when all that has been checked; until then nothing that was there is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::foreign::foreign;
use super::gather::{files_in, volumes_of};
use super::media::Media;
use super::parity::{Layout, Recovery, bundle_output, decode, parity_output};
use super::read::{Bundle, BundleError};
use super::tar;
use super::unfinished::{Frame, with_suffix};
use super::volume::{Blocks, Header, Kind, Slice, TailPlace, Volume, parse_path, prefix_len, volume_path};
use crate::file::{self, Span};
use crate::oci::{Algorithm, Digest, Hasher};

/// How much is read at a time.
const CHUNK: usize = 1024 * 1024;
/// The longest tail that is tried.
const MAX_TAIL_BYTES: u64 = 256 * 1024 * 1024;

/// Why a bundle was not repaired. Nothing of it has changed.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is not enough space for what is made again.
    #[error("{}: the disk is full: {needed} bytes are made again beside what is there", path.display())]
    Full {
        /// The new file.
        path: PathBuf,
        /// Its size in bytes.
        needed: u64,
    },
    /// Another process repairs the same file.
    #[error("{}: another dray is repairing this", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// There is nothing to repair with.
    #[error("no recovery file that can be read is there: look for {}", expected.display())]
    NoRecovery {
        /// What they are called, if they still have their names.
        expected: PathBuf,
    },
    /// The recovery files belong to different bundles.
    #[error("these are recovery files of more than one bundle: {} and {}; repair one bundle at a time", one.display(), other.display())]
    Several {
        /// One of them.
        one: PathBuf,
        /// Another.
        other: PathBuf,
    },
    /// Something else lies where a file would be made again.
    #[error("{} is {what}; move it away, and what was lost is made again in its place", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// More is lost than can be restored.
    #[error(
        "{lost} blocks of {size} bytes are lost, and {left} recovery blocks are left: that is too much to be repaired"
    )]
    TooMuch {
        /// How many blocks are lost.
        lost: usize,
        /// How many recovery blocks are good.
        left: usize,
        /// The bytes of a block.
        size: u64,
    },
    /// The tail is lost, and its copies too.
    #[error("{}: the end of the bundle is damaged, and so is every copy of it in the recovery files", path.display())]
    NoTail {
        /// The file that it belongs to.
        path: PathBuf,
    },
    /// What was made is not the bundle: the recovery files are not what they say.
    #[error("what the recovery files make is not the bundle, so nothing was changed: {0}")]
    Wrong(BundleError),
}

/// What was repaired.
#[derive(Debug)]
pub struct Repaired {
    /// What the bundle is called.
    pub path: PathBuf,
    /// The files that were made again; none when nothing was damaged.
    pub files: Vec<PathBuf>,
    /// How many blocks were restored.
    pub blocks: usize,
    /// The bytes of a block.
    pub block_size: u64,
    /// Recovery files that are damaged or missing themselves.
    pub weak: Vec<PathBuf>,
}

/// Repairs the bundle that `paths` belong to: its files, its recovery files, or directories with them. `progress` is told of
/// how much is to be read in all, and of bytes as they are read.
pub fn repair(
    paths: &[PathBuf],
    threads: usize,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Repaired, RepairError> {
    let found = Found::look(paths)?;
    let layout = &found.layout;
    let blocks = layout.blocks();
    let recovery = found.recovery_span();
    progress(Progress::Total(layout.head + recovery.len()));
    let head = head_of(&found.targets);
    let good = check_blocks(&head, blocks, &layout.blocks, threads, progress);
    let made = Blocks { size: layout.block_size, head: recovery.len() };
    let good_recovery = check_blocks(&recovery, made, &layout.recovery, threads, progress);
    let tail = found.tail()?;
    let lost: Vec<u64> = (0..).zip(&good).filter(|(_, good)| !**good).map(|(nth, _)| nth).collect();
    let left = good_recovery.iter().filter(|good| **good).count();
    let weak = found.weak(&good_recovery);
    let frames = found.frames(&tail);
    let damaged: Vec<bool> = found
        .targets
        .iter()
        .zip(&frames)
        .map(|(target, frame)| target.needs(&lost, blocks) || !target.is_framed(frame))
        .collect();
    let path = found.path.clone();
    let block_size = layout.block_size;
    if !damaged.contains(&true) {
        return Ok(Repaired { path, files: Vec::new(), blocks: 0, block_size, weak });
    }
    if lost.len() > left {
        return Err(RepairError::TooMuch { lost: lost.len(), left, size: block_size });
    }
    for (number, (target, _)) in
        (1..).zip(found.targets.iter().zip(&damaged)).filter(|(_, (_, damaged))| **damaged)
    {
        let number = Some(number).filter(|_| !layout.volumes.is_empty());
        if let Some(what) = foreign(&target.path, &layout.set, number) {
            return Err(RepairError::Foreign { path: target.path.clone(), what });
        }
    }
    let mut made = Vec::new();
    for ((target, frame), damaged) in found.targets.iter().zip(&frames).zip(&damaged) {
        made.push(damaged.then(|| Made::begin(target, frame, &lost, blocks)).transpose()?);
    }
    let restored = Span::join(found.targets.iter().zip(&made).map(|(target, made)| match made {
        Some(made) => Span::new(Arc::clone(&made.file), target.skipped, target.slice.len),
        None => Span::missing(target.slice.len),
    }));
    progress(Progress::Total(layout.head + if lost.is_empty() { 0 } else { layout.head }));
    let write = |nth, at, bytes: &[u8]| restored.write_all_at(bytes, blocks.place(nth).0 + at);
    let told = |bytes| progress(Progress::Read(bytes));
    decode(&head, blocks, &good, &recovery, &good_recovery, write, told)
        .map_err(|source| RepairError::Io { path: path.clone(), source })?;
    let made: Vec<(&Target, Made)> =
        found.targets.iter().zip(made).filter_map(|(target, made)| Some((target, made?))).collect();
    made.iter().try_for_each(|(_, made)| made.sync())?;
    check_whole(&found, &made, threads, progress)?;
    let count = lost.len();
    let mut files = Vec::new();
    for (target, made) in made {
        made.name(&target.path)?;
        files.push(target.path.clone());
    }
    Ok(Repaired { path, files, blocks: count, block_size, weak })
}

/// How far a repair is.
#[derive(Clone, Copy, Debug)]
pub enum Progress {
    /// So many bytes will be read from here on.
    Total(u64),
    /// So many bytes more were read.
    Read(u64),
}

/// What was found of a bundle and its recovery files.
struct Found {
    path: PathBuf,
    layout: Arc<Layout>,
    recovery: Vec<Recovery>,
    targets: Vec<Target>,
    /// What recovery files are named after.
    parity: PathBuf,
}

/// A file that has a part of the bundle, or should have.
struct Target {
    path: PathBuf,
    /// The part of the head.
    slice: Slice,
    /// The bytes before it.
    skipped: u64,
    file: Option<(Arc<File>, u64)>,
}

impl Found {
    fn look(paths: &[PathBuf]) -> Result<Self, RepairError> {
        let (mut files, mut named) = (Vec::new(), Vec::new());
        for path in paths {
            if path.is_dir() {
                let io = |source| RepairError::Io { path: path.clone(), source };
                files.extend(files_in(path).map_err(io)?);
            } else {
                files.push(path.clone());
                named.push(path);
            }
        }
        let mut outputs: BTreeSet<PathBuf> = files.iter().map(|path| output_of(path)).collect();
        let beside = outputs.iter().flat_map(|output| volumes_of(&parity_output(output)));
        let candidates: BTreeSet<PathBuf> = files.iter().cloned().chain(beside).collect();
        let mut recovery: Vec<Recovery> = Vec::new();
        // What cannot even be opened is as good as lost.
        for mut found in candidates.iter().filter_map(|path| Recovery::open(path).ok().flatten()) {
            if let Some(first) = recovery.first()
                && !found.share_layout(first)
            {
                return Err(RepairError::Several { one: first.path.clone(), other: found.path });
            }
            recovery.push(found);
        }
        recovery.sort_by_key(|recovery| recovery.header.number);
        recovery.dedup_by_key(|recovery| recovery.header.number);
        let Some(first) = recovery.first() else {
            let output = outputs.pop_first().unwrap_or_default();
            return Err(RepairError::NoRecovery { expected: volume_path(&parity_output(&output), 1, 1) });
        };
        let layout = Arc::clone(&first.header.layout);
        let path = output_of(&first.path);
        let parity = parity_output(&path);
        let is_recovery = |path: &PathBuf| recovery.iter().any(|recovery| recovery.path == *path);
        let targets = if layout.volumes.is_empty() {
            // A single file that is named may be called anything; what merely lies there must have the bundle's name.
            named.retain(|path| !is_recovery(path));
            let path = named.first().map_or(path.clone(), |named| (*named).clone());
            vec![Target::open(path, layout.parts()[0], 0)]
        } else {
            volume_targets(&layout, &path, &files)
        };
        let path = targets.first().map_or(path, |target| output_of(&target.path));
        Ok(Self { path, layout, recovery, targets, parity })
    }

    /// All recovery blocks, one after another.
    fn recovery_span(&self) -> Span {
        let of = u32::try_from(self.layout.files.len()).expect("there are few files");
        Span::join((1..=of).map(|number| {
            let blocks = self.layout.recovery_in(number);
            match self.recovery.iter().find(|recovery| recovery.header.number == number) {
                Some(recovery) => recovery.part(),
                None => Span::missing((blocks.end - blocks.start) * self.layout.block_size),
            }
        }))
    }

    /// The tail: that of the bundle if it is good, or a copy.
    fn tail(&self) -> Result<Vec<u8>, RepairError> {
        let last = self.targets.last().expect("a bundle lies in a file");
        let end = if self.layout.volumes.is_empty() { 0 } else { tar::END };
        let own = last.file.as_ref().and_then(|(file, len)| {
            let offset = last.skipped + last.slice.len;
            Some(Span::new(Arc::clone(file), offset, len.checked_sub(offset + end)?))
        });
        let copies = self.recovery.iter().filter_map(Recovery::tail);
        let good = own.into_iter().chain(copies).find_map(|tail| self.good_tail(&tail));
        good.ok_or_else(|| RepairError::NoTail { path: last.path.clone() })
    }

    /// The bytes of `tail`, if they end this bundle.
    fn good_tail(&self, tail: &Span) -> Option<Vec<u8>> {
        if tail.len() > MAX_TAIL_BYTES {
            return None;
        }
        let whole = Span::join([Span::missing(self.layout.head), tail.clone()]);
        let bundle = Bundle::open_damaged(Media::of(self.path.clone(), whole)).ok()?;
        let set = &self.layout.set;
        if bundle.index().digest != set.digest || bundle.mtime() != self.layout.mtime {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(tail.len()).ok()?];
        tail.read_exact_at(&mut bytes, 0).ok()?;
        Some(bytes)
    }

    /// What stands around the parts.
    fn frames(&self, tail: &[u8]) -> Vec<Frame> {
        let layout = &self.layout;
        if layout.volumes.is_empty() {
            return vec![vec![(layout.head, tail.to_vec())]];
        }
        let of = u32::try_from(layout.volumes.len()).expect("there are few volumes");
        let frame = |(number, target): (u32, &Target)| {
            let Slice { offset, len } = target.slice;
            let digests = digests_in(layout, target.slice);
            let (rest, place) = if number == of {
                (tail, Some(TailPlace { offset: layout.head, digest: Digest::sha256(tail) }))
            } else {
                (&[][..], None)
            };
            let slice = Slice { offset, len: len + rest.len() as u64 };
            let header =
                Header::new(layout.set.clone(), (number, of), slice, layout.block_size, digests, place);
            vec![(0, header.to_bytes(layout.mtime)), (target.skipped + len, [rest, &tar::ZEROS[..]].concat())]
        };
        (1..).zip(&self.targets).map(frame).collect()
    }

    /// The recovery files that are damaged or missing.
    fn weak(&self, good: &[bool]) -> Vec<PathBuf> {
        let of = u32::try_from(self.layout.files.len()).expect("there are few files");
        let is_good = |recovery: &Recovery, number| {
            let mut blocks = self.layout.recovery_in(number);
            recovery.is_framed() && blocks.all(|nth| usize::try_from(nth).is_ok_and(|nth| good[nth]))
        };
        (1..=of)
            .filter_map(|number| match self.recovery.iter().find(|r| r.header.number == number) {
                None => Some(volume_path(&self.parity, number, of)),
                Some(recovery) if is_good(recovery, number) => None,
                Some(recovery) => Some(recovery.path.clone()),
            })
            .collect()
    }
}

/// The bundle that a file belongs to, by its name.
fn output_of(path: &Path) -> PathBuf {
    let output = parse_path(path).map_or_else(|| path.to_owned(), |(output, ..)| output);
    bundle_output(&output).unwrap_or(output)
}

/// The volumes of a bundle: by what they say, or by their names.
fn volume_targets(layout: &Layout, output: &Path, files: &[PathBuf]) -> Vec<Target> {
    let of = u32::try_from(layout.volumes.len()).expect("there are few volumes");
    let said: BTreeMap<u32, PathBuf> = files
        .iter()
        .filter_map(|path| match Volume::read(path) {
            Ok(Kind::Volume(volume)) if volume.header().set == layout.set => {
                Some((volume.number(), path.clone()))
            }
            _ => None,
        })
        .collect();
    // What is made again is called as what is there, whatever the recovery file is called.
    let known = said.values().find_map(|path| parse_path(path));
    let output = known.map_or_else(|| output.to_owned(), |(output, ..)| output);
    (1..)
        .zip(layout.parts())
        .map(|(number, slice)| {
            let by_name = || volume_path(&output, number, of);
            let path = said.get(&number).cloned().unwrap_or_else(by_name);
            Target::open(path, slice, prefix_len(slice.len.div_ceil(layout.block_size)))
        })
        .collect()
}

fn digests_in(layout: &Layout, slice: Slice) -> Vec<Digest> {
    let place = |at: u64| usize::try_from(at.div_ceil(layout.block_size)).expect("there are few blocks");
    layout.blocks[place(slice.offset)..place(slice.offset + slice.len)].to_vec()
}

impl Target {
    fn open(path: PathBuf, slice: Slice, skipped: u64) -> Self {
        let open = || {
            let file = File::open(&path)?;
            let len = file.metadata()?.len();
            Ok::<_, io::Error>((Arc::new(file), len))
        };
        let file = open().ok();
        Self { path, slice, skipped, file }
    }

    /// Whether one of the lost blocks lies here.
    fn needs(&self, lost: &[u64], blocks: Blocks) -> bool {
        let (start, end) = (self.slice.offset, self.slice.offset + self.slice.len);
        lost.iter().any(|nth| (start..end).contains(&blocks.place(*nth).0))
    }

    /// Whether the file is there, and what stands around its part is as it should be.
    fn is_framed(&self, frame: &Frame) -> bool {
        let Some((file, len)) = &self.file else { return false };
        let ends = frame.last().is_some_and(|(at, bytes)| at + bytes.len() as u64 == *len);
        ends && frame.iter().all(|(at, expected)| {
            let mut found = vec![0; expected.len()];
            file::read_exact_at(file, &mut found, *at).is_ok() && found == *expected
        })
    }
}

/// A file that is made again, removed unless it gets its name.
struct Made {
    path: PathBuf,
    file: Arc<File>,
    named: bool,
}

impl Made {
    /// Begins a file with all that is good of `target`.
    fn begin(target: &Target, frame: &Frame, lost: &[u64], blocks: Blocks) -> Result<Self, RepairError> {
        let path = with_suffix(&target.path, ".repair");
        let len = frame.last().map_or(0, |(at, bytes)| at + bytes.len() as u64);
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                RepairError::Full { path: path.clone(), needed: len }
            }
            _ => RepairError::Io { path: path.clone(), source },
        };
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(failed)?;
        if file.try_lock().is_err() {
            return Err(RepairError::Busy { path: target.path.clone() });
        }
        let made = Self { path: path.clone(), file: Arc::new(file), named: false };
        made.file.set_len(0).map_err(failed)?;
        file::reserve(&made.file, len).map_err(failed)?;
        if let Some((source, _)) = &target.file {
            let (start, end) = (target.slice.offset, target.slice.offset + target.slice.len);
            let mut buffer = vec![0; CHUNK];
            for nth in start.div_ceil(blocks.size)..end.div_ceil(blocks.size) {
                if lost.binary_search(&nth).is_ok() {
                    continue;
                }
                let (offset, len) = blocks.place(nth);
                copy(source, &made.file, offset - start + target.skipped, len, &mut buffer)
                    .map_err(failed)?;
            }
        }
        for (at, bytes) in frame {
            file::write_all_at(&made.file, bytes, *at).map_err(failed)?;
        }
        Ok(made)
    }

    fn sync(&self) -> Result<(), RepairError> {
        self.file.sync_all().map_err(|source| RepairError::Io { path: self.path.clone(), source })
    }

    fn name(mut self, path: &Path) -> Result<(), RepairError> {
        let io = |source| RepairError::Io { path: path.to_owned(), source };
        std::fs::rename(&self.path, path).map_err(io)?;
        self.named = true;
        file::sync_parent(path).map_err(io)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if !self.named {
            // Whoever fails says why; that it cannot tidy up as well helps nobody.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn copy(from: &File, to: &File, at: u64, len: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < len {
        let wanted = usize::try_from(len - done).map_or(buffer.len(), |left| left.min(buffer.len()));
        file::read_exact_at(from, &mut buffer[..wanted], at + done)?;
        file::write_all_at(to, &buffer[..wanted], at + done)?;
        done += wanted as u64;
    }
    Ok(())
}

/// The head as it lies there.
fn head_of(targets: &[Target]) -> Span {
    Span::join(targets.iter().map(|target| match &target.file {
        Some((file, _)) => Span::new(Arc::clone(file), target.skipped, target.slice.len),
        None => Span::missing(target.slice.len),
    }))
}

/// Which blocks have their digests.
fn check_blocks(
    bytes: &Span,
    blocks: Blocks,
    digests: &[Digest],
    threads: usize,
    progress: &(dyn Fn(Progress) + Sync),
) -> Vec<bool> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut buffer = vec![0; CHUNK];
        let mut good = Vec::new();
        loop {
            let nth = next.fetch_add(1, Ordering::Relaxed);
            let Some(digest) = digests.get(nth) else { return good };
            let (offset, len) = blocks.place(nth as u64);
            if is_good(bytes, Slice { offset, len }, digest, &mut buffer) {
                good.push(nth);
            }
            progress(Progress::Read(len));
        }
    };
    let mut all = vec![false; digests.len()];
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            worker.join().expect("hashing does not panic").into_iter().for_each(|nth| all[nth] = true);
        }
    });
    all
}

fn is_good(bytes: &Span, slice: Slice, digest: &Digest, buffer: &mut [u8]) -> bool {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut done = 0;
    while done < slice.len {
        let wanted = usize::try_from(slice.len - done).map_or(buffer.len(), |left| left.min(buffer.len()));
        if bytes.read_exact_at(&mut buffer[..wanted], slice.offset + done).is_err() {
            return false;
        }
        hasher.update(&buffer[..wanted]);
        done += wanted as u64;
    }
    hasher.finish() == *digest
}

/// Opens the bundle as it will be and reads every byte of it.
fn check_whole(
    found: &Found,
    made: &[(&Target, Made)],
    threads: usize,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<(), RepairError> {
    let path = |target: &Target| {
        let new = made.iter().find(|(other, _)| other.path == target.path);
        new.map_or_else(|| target.path.clone(), |(_, made)| made.path.clone())
    };
    let media = || {
        if found.layout.volumes.is_empty() {
            return Media::plain(&path(&found.targets[0]));
        }
        let volume = |target: &Target| {
            let path = path(target);
            let volume = Volume::open(&path)?;
            if path != target.path {
                // What it says of its blocks comes from the recovery files, and nobody else asks for it here.
                volume.verify(&|_| ())?;
            }
            Ok((volume.number(), volume))
        };
        let volumes = found.targets.iter().map(volume).collect::<Result<_, BundleError>>()?;
        Media::join(found.path.clone(), volumes, Vec::new())
    };
    let whole =
        || Bundle::open_media(media()?)?.verify_blobs(threads, &|bytes| progress(Progress::Read(bytes)));
    whole().map_err(RepairError::Wrong)
}
