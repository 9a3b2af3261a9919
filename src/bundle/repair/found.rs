//! What there is of a bundle and its recovery files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::RepairError;
use super::made::Made;
use crate::bundle::gather::{files_in, volumes_of};
use crate::bundle::media::Media;
use crate::bundle::parity::{self, Layout, Recovery, bundle_output, parity_output};
use crate::bundle::read::Bundle;
use crate::bundle::tar;
use crate::bundle::unfinished::Frame;
use crate::bundle::volume::{
    Blocks, Header, Kind, Slice, TailPlace, Volume, VolumeNumber, parse_path, prefix_len, volume_path,
};
use crate::file::{self, Span};
use crate::oci::Digest;

/// The longest tail that is tried.
const MAX_TAIL_BYTES: u64 = 256 * 1024 * 1024;

/// What was found of a bundle and its recovery files.
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) layout: Arc<Layout>,
    recovery: Vec<Recovery>,
    pub(super) targets: Vec<Target>,
    /// What recovery files are named after.
    parity: PathBuf,
}

/// A file that has a part of the bundle, or should have.
pub(super) struct Target {
    pub(super) path: PathBuf,
    /// The part of the head.
    pub(super) slice: Slice,
    /// The bytes before it.
    pub(super) skipped: u64,
    pub(super) file: Option<(Arc<File>, u64)>,
}

impl Found {
    pub(super) fn look(paths: &[PathBuf]) -> Result<Self, RepairError> {
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
        // What belongs to a file lies next to it, not next to a link that leads to it.
        let followed = named.iter().map(|path| output_of(&real((*path).clone())));
        let mut outputs: BTreeSet<PathBuf> =
            files.iter().map(|path| output_of(path)).chain(followed).collect();
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

    /// The head as it lies there.
    pub(super) fn head(&self) -> Span {
        Span::join(self.targets.iter().map(Target::part))
    }

    /// The head with what was `made` in the place of what lies there.
    pub(super) fn head_with(&self, made: &[Option<Made<'_>>]) -> Span {
        Span::join(self.targets.iter().zip(made).map(|(target, made)| match made {
            Some(made) => Span::new(Arc::clone(&made.file), target.skipped, target.slice.len),
            None => target.part(),
        }))
    }

    /// All recovery blocks, one after another.
    pub(super) fn recovery_span(&self) -> Span {
        Span::join((1..=self.recovery_files()).map(|number| {
            let blocks = self.layout.recovery_in(number);
            match self.recovery.iter().find(|recovery| recovery.header.number == number) {
                Some(recovery) => recovery.part(),
                None => Span::missing((blocks.end - blocks.start) * self.layout.block_size),
            }
        }))
    }

    /// The tail: that of the bundle if it is good, or a copy.
    pub(super) fn tail(&self) -> Result<Vec<u8>, RepairError> {
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
    pub(super) fn frames(&self, tail: &[u8]) -> Vec<Frame> {
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
            let header = Header::new(
                layout.set.clone(),
                VolumeNumber { number, of },
                slice,
                layout.block_size,
                digests,
                place,
            );
            vec![(0, header.to_bytes(layout.mtime)), (target.skipped + len, [rest, &tar::ZEROS[..]].concat())]
        };
        (1..).zip(&self.targets).map(frame).collect()
    }

    /// How many recovery files there are.
    fn recovery_files(&self) -> u32 {
        u32::try_from(self.layout.files.len()).expect("there are few files")
    }

    /// The recovery files that are damaged or missing, when these of their blocks are `good`.
    pub(super) fn weak(&self, good: &[bool]) -> Vec<u32> {
        let is_good = |recovery: &Recovery| {
            let mut blocks = self.layout.recovery_in(recovery.header.number);
            recovery.is_framed() && blocks.all(|nth| usize::try_from(nth).is_ok_and(|nth| good[nth]))
        };
        let found = |number: u32| self.recovery.iter().find(|recovery| recovery.header.number == number);
        (1..=self.recovery_files()).filter(|number| !found(*number).is_some_and(is_good)).collect()
    }

    /// Closes the files at these paths: Windows does not replace a file that is open.
    pub(super) fn close(&mut self, replaced: &[PathBuf]) {
        for target in self.targets.iter_mut().filter(|target| replaced.contains(&target.path)) {
            target.file = None;
        }
        self.recovery.retain(|recovery| !replaced.contains(&real(recovery.path.clone())));
    }

    /// Where recovery file `number` is, or belongs.
    pub(super) fn recovery_path(&self, number: u32) -> PathBuf {
        let found = self.recovery.iter().find(|recovery| recovery.header.number == number);
        found.map_or_else(
            || volume_path(&self.parity, number, self.recovery_files()),
            |recovery| real(recovery.path.clone()),
        )
    }

    /// What recovery file `number` says.
    pub(super) fn recovery_header(&self, number: u32) -> parity::Header {
        parity::Header::new(number, Arc::clone(&self.layout))
    }

    /// What every file of the bundle and every recovery file is called.
    pub(super) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        let targets = self.targets.iter().map(|target| target.path.clone());
        targets.chain((1..=self.recovery_files()).map(|number| self.recovery_path(number)))
    }
}

/// Returns the file that `path` leads to, if it is a symbolic link.
fn real(path: PathBuf) -> PathBuf {
    file::resolve(&path).unwrap_or(path)
}

/// The bundle that a file belongs to, by its name.
fn output_of(path: &Path) -> PathBuf {
    let output = parse_path(path).map_or_else(|| path.to_owned(), |(output, ..)| output);
    bundle_output(&output).unwrap_or(output)
}

/// The volumes of a bundle: by what they say, or by their names.
fn volume_targets(layout: &Layout, output: &Path, files: &[PathBuf]) -> Vec<Target> {
    let of = u32::try_from(layout.volumes.len()).expect("there are few volumes");
    let mut said: BTreeMap<u32, PathBuf> = BTreeMap::new();
    for path in files {
        if let Ok(Kind::Volume(volume)) = Volume::read(path)
            && volume.header().set == layout.set
        {
            // Of several copies the first is read as well.
            said.entry(volume.number()).or_insert_with(|| path.clone());
        }
    }
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
        // What is not there is made under its own name, whatever a link of that name leads to.
        let path = if file.is_some() { real(path) } else { path };
        Self { path, slice, skipped, file }
    }

    /// The part of the head that lies here.
    fn part(&self) -> Span {
        match &self.file {
            Some((file, _)) => Span::new(Arc::clone(file), self.skipped, self.slice.len),
            None => Span::missing(self.slice.len),
        }
    }

    /// Whether one of the lost blocks lies here.
    pub(super) fn needs(&self, lost: &[u64], blocks: Blocks) -> bool {
        let (start, end) = (self.slice.offset, self.slice.offset + self.slice.len);
        lost.iter().any(|nth| (start..end).contains(&blocks.place(*nth).0))
    }

    /// Whether the file is there, and what stands around its part is as it should be.
    pub(super) fn is_framed(&self, frame: &Frame) -> bool {
        let Some((file, len)) = &self.file else { return false };
        let ends = frame.last().is_some_and(|(at, bytes)| at + bytes.len() as u64 == *len);
        ends && frame.iter().all(|(at, expected)| {
            let mut found = vec![0; expected.len()];
            file::read_exact_at(file, &mut found, *at).is_ok() && found == *expected
        })
    }
}
