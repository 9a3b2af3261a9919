//! Making lost parts of a bundle again from its recovery files.
//!
//! Nothing that a recovery file says is believed: blocks count when they have their digests, the tail when it is what its
//! lock makes it, and the whole when every blob of the bundle has its digest. What is made goes to new files, which get
//! their names when all that has been checked; until then nothing that was there is touched.

mod blocks;
mod found;
mod made;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::foreign::{Role, foreign};
use super::media::Media;
use super::parity::{decode, encode};
use super::read::{Bundle, BundleError};
use super::volume::{Blocks, Volume};
use crate::file::{self, PlaceError, Span};
use blocks::check_blocks;
use found::{Found, Target};
use made::Made;
pub use made::Making;

/// How much is read at a time.
const CHUNK: usize = 1024 * 1024;
/// Why a bundle was not repaired. Nothing of it has changed, unless the error is about its recovery files.
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
    /// A file cannot be made again under its name.
    #[error(transparent)]
    Place(#[from] PlaceError),
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
    /// A recovery file is not what the others say that it was.
    #[error("{}: what the recovery files say of this one is not true of the bundle, so it was not made again", path.display())]
    WrongRecovery {
        /// The file.
        path: PathBuf,
    },
    /// The bundle is whole, but its recovery files are not.
    #[error("the bundle is whole, but its recovery files could not be made again: {0}")]
    Recovery(Box<RepairError>),
    /// It was interrupted by [`Making::give_up`].
    #[error("the repair was interrupted")]
    GivenUp,
}

/// What was repaired.
#[derive(Debug)]
pub struct Repaired {
    /// What the bundle is called.
    pub path: PathBuf,
    /// The files of the bundle that were made again; none when nothing was damaged.
    pub files: Vec<PathBuf>,
    /// The recovery files that were made again.
    pub recovery: Vec<PathBuf>,
    /// How many blocks were restored.
    pub blocks: usize,
    /// The bytes of a block.
    pub block_size: u64,
}

/// Repairs the bundle that `paths` belong to: its files, its recovery files, or directories with them; recovery files
/// that are damaged or missing as well. `progress` is told of how much is to be read in all, and of bytes as they are read.
pub fn repair(
    paths: &[PathBuf],
    threads: usize,
    making: &Making,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Repaired, RepairError> {
    let mut found = Found::look(paths)?;
    let layout = Arc::clone(&found.layout);
    let paths: Vec<PathBuf> = found.paths().collect();
    let blocks = layout.blocks();
    let recovery = found.recovery_span();
    progress(Progress::Total(layout.head + recovery.len()));
    let good = check_blocks(&found.head(), blocks, &layout.blocks, threads, progress);
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
    let whole = !damaged.contains(&true);
    let mut repaired = Repaired {
        path: found.path.clone(),
        files: Vec::new(),
        recovery: Vec::new(),
        blocks: if whole { 0 } else { lost.len() },
        block_size: layout.block_size,
    };
    if lost.len() > left {
        return Err(RepairError::TooMuch { lost: lost.len(), left, size: layout.block_size });
    }
    for (number, (target, _)) in
        (1..).zip(found.targets.iter().zip(&damaged)).filter(|(_, (_, damaged))| **damaged)
    {
        let role = if layout.volumes.is_empty() { Role::Bundle } else { Role::Volume(number) };
        check_place(&found, &target.path, role)?;
    }
    if !whole || !weak.is_empty() {
        progress(Progress::Total(layout.head + if lost.is_empty() { 0 } else { layout.head }));
        let mut made = Vec::new();
        for ((target, frame), damaged) in found.targets.iter().zip(&frames).zip(&damaged) {
            let begin = || Made::of_target(making, target, frame, &lost, blocks);
            made.push(damaged.then(begin).transpose()?);
        }
        let restored = found.head_with(&made);
        let write = |nth, at, bytes: &[u8]| restored.write_all_at(bytes, blocks.place(nth).0 + at);
        let told = |bytes| progress(Progress::Read(bytes));
        decode(&found.head(), blocks, &good, &recovery, &good_recovery, write, told)
            .map_err(|source| RepairError::Io { path: found.path.clone(), source })?;
        made.iter().flatten().try_for_each(Made::sync)?;
        check_whole(&found, &made, threads, making, progress)?;
        drop(recovery);
        repaired.files = name(&mut found, made.into_iter().flatten().collect())?;
        let remade = remake(&mut found, &restored, &tail, &weak, threads, making, progress);
        repaired.recovery = remade.map_err(|error| RepairError::Recovery(Box::new(error)))?;
    }
    for path in &paths {
        made::remove_left(path);
    }
    Ok(repaired)
}

/// Gives what was made its names, and returns them.
fn name(found: &mut Found, made: Vec<Made<'_>>) -> Result<Vec<PathBuf>, RepairError> {
    let paths: Vec<PathBuf> = made.iter().map(|made| made.path.clone()).collect();
    found.close(&paths);
    made.into_iter().map(Made::name).collect()
}

/// Makes sure that nothing else lies where a file is to be made again.
fn check_place(found: &Found, path: &Path, role: Role) -> Result<(), RepairError> {
    file::check_derived(path)?;
    match foreign(path, &found.layout.set, role) {
        Some(what) => Err(RepairError::Foreign { path: path.to_owned(), what }),
        None => Ok(()),
    }
}

/// Makes the recovery files `weak` again, of the bundle that has this `head` and `tail`.
fn remake(
    found: &mut Found,
    head: &Span,
    tail: &[u8],
    weak: &[u32],
    threads: usize,
    making: &Making,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Vec<PathBuf>, RepairError> {
    let layout = Arc::clone(&found.layout);
    if weak.is_empty() {
        return Ok(Vec::new());
    }
    let mut made = Vec::new();
    for number in weak {
        let path = found.recovery_path(*number);
        check_place(found, &path, Role::Recovery(*number))?;
        made.push(Made::begin(making, path, &found.recovery_header(*number).frame(tail))?);
    }
    let parts: Vec<_> = weak.iter().map(|number| layout.recovery_in(*number)).collect();
    let recovery = Span::join((1..).take(layout.files.len()).map(|number| {
        let header = found.recovery_header(number);
        match weak.binary_search(&number) {
            Ok(nth) => Span::new(Arc::clone(&made[nth].file), header.part_offset(), header.part_len()),
            Err(_) => Span::missing(header.part_len()),
        }
    }));
    progress(Progress::Total(layout.head + recovery.len()));
    let write = |nth, at, bytes: &[u8]| {
        let wanted = parts.iter().any(|part| part.contains(&nth));
        if wanted { recovery.write_all_at(bytes, nth * layout.block_size + at) } else { Ok(()) }
    };
    let told = |bytes| progress(Progress::Read(bytes));
    encode(head, layout.blocks(), layout.recovery.len() as u64, write, told)
        .map_err(|source| made[0].failed(source))?;
    let blocks = Blocks { size: layout.block_size, head: recovery.len() };
    let good = check_blocks(&recovery, blocks, &layout.recovery, threads, progress);
    for (made, mut part) in made.iter().zip(parts) {
        if !part.all(|nth| usize::try_from(nth).is_ok_and(|nth| good[nth])) {
            return Err(RepairError::WrongRecovery { path: made.path.clone() });
        }
        made.sync()?;
    }
    name(found, made)
}

/// How far a repair is.
#[derive(Clone, Copy, Debug)]
pub enum Progress {
    /// So many bytes will be read from here on.
    Total(u64),
    /// So many bytes more were read.
    Read(u64),
}

/// Opens the bundle as it will be and reads every byte of it.
fn check_whole(
    found: &Found,
    made: &[Option<Made<'_>>],
    threads: usize,
    making: &Making,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<(), RepairError> {
    let path = |target: &Target, made: &Option<Made<'_>>| {
        made.as_ref().map_or_else(|| target.path.clone(), Made::unnamed)
    };
    let media = || {
        if found.layout.volumes.is_empty() {
            return Media::plain(&path(&found.targets[0], &made[0]));
        }
        let volume = |(target, made)| {
            let volume = Volume::open(&path(target, made))?;
            if made.is_some() {
                // What it says of its blocks comes from the recovery files, and nobody else asks for it here.
                volume.verify(&|_| ())?;
            }
            Ok((volume.number(), volume))
        };
        let volumes = found.targets.iter().zip(made).map(volume).collect::<Result<_, BundleError>>()?;
        Media::join(found.path.clone(), volumes, Vec::new())
    };
    let whole =
        || Bundle::open_media(media()?)?.verify_blobs(threads, &|bytes| progress(Progress::Read(bytes)));
    whole().map_err(|error| making.unless_given_up(RepairError::Wrong(error)))
}
