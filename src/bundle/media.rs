//! What a bundle lies on: one file, or several volumes that are read as one run of bytes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::read::BundleError;
use super::volume::{SetName, Slice, Volume};
use crate::file::Span;
use crate::store::Stamp;

/// The open file or files of a bundle.
#[derive(Debug)]
pub struct Media {
    path: PathBuf,
    parts: Vec<Part>,
    whole: Span,
    stamp: Stamp,
    volumes: Option<Volumes>,
}

/// A file with a part of a bundle.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    /// Where in the bundle it begins.
    start: u64,
    /// The bytes of the file before it.
    skipped: u64,
    /// None for a plain file, and for volumes that are not there.
    volume: Option<Volume>,
}

/// What is known of a bundle in volumes.
#[derive(Debug)]
struct Volumes {
    set: SetName,
    of: u32,
    absent: Vec<Absent>,
}

/// A volume that a bundle needs and that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    /// Its number.
    pub number: u32,
    /// What it is called, if it still has its name.
    pub path: PathBuf,
    /// Why it cannot be had.
    pub why: Why,
}

/// Why a volume cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// There is no such file.
    Missing,
    /// The file that has its name belongs to the volumes of another bundle.
    Foreign(String),
    /// The file that has its name cannot be read as a volume.
    Damaged(String),
}

impl Media {
    /// Opens the file at `path`, which is not cut into volumes.
    pub(super) fn plain(path: &Path) -> Result<Self, BundleError> {
        let io = |source| BundleError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        let whole = Span::new(Arc::new(file), 0, metadata.len());
        let part = Part { path: path.to_owned(), start: 0, skipped: 0, volume: None };
        let stamp = Stamp::of(&metadata);
        Ok(Self { path: path.to_owned(), parts: vec![part], whole, stamp, volumes: None })
    }

    /// These bytes, which are called `path`.
    pub(super) fn of(path: PathBuf, whole: Span) -> Self {
        let part = Part { path: path.clone(), start: 0, skipped: 0, volume: None };
        Self { path, parts: vec![part], whole, stamp: Stamp::missing(), volumes: None }
    }

    /// Joins volumes of one bundle, which is called `path`. `absent` are those that are not there.
    pub(super) fn join(
        path: PathBuf,
        present: BTreeMap<u32, Volume>,
        mut absent: Vec<Absent>,
    ) -> Result<Self, BundleError> {
        let first = present.values().next().expect("whoever joins has something to join");
        let last = present.values().next_back().expect("there is a first");
        let stamp =
            Stamp::of(&last.metadata().map_err(|source| BundleError::Io { path: path.clone(), source })?);
        let (set, of, mtime, block) =
            (first.header().set.clone(), first.of(), first.mtime(), first.header().block_size);
        let mut joined = Joined::default();
        absent.sort_by_key(|absent| absent.number);
        let mut gap = absent.iter().peekable();
        for (number, volume) in present {
            let header = volume.header();
            let mut hole = Vec::new();
            while let Some(absent) = gap.next_if(|absent| absent.number < number) {
                hole.push(absent);
            }
            let unfit = header.of != of || volume.mtime() != mtime || header.block_size != block;
            if unfit || header.offset < joined.len || hole.is_empty() != (header.offset == joined.len) {
                return Err(BundleError::Malformed {
                    path: volume.path().to_owned(),
                    offset: 0,
                    what: "it does not fit together with the other volumes".to_owned(),
                });
            }
            joined.skip(&hole, header.offset);
            joined.add(volume);
        }
        let Joined { parts, spans, .. } = joined;
        let starts = parts.iter().map(|part| part.start);
        let expected = SetName::new(set.name.clone(), set.sequence, set.digest.clone(), mtime, starts);
        if absent.is_empty() && expected != set {
            let what = "it is not what its volumes say that it is".to_owned();
            return Err(BundleError::Malformed { path, offset: 0, what });
        }
        Ok(Self { path, parts, whole: Span::join(spans), stamp, volumes: Some(Volumes { set, of, absent }) })
    }

    /// What the bundle is called in messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files that are there.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let whole = self.volumes.is_none().then_some(&*self.path);
        whole.into_iter().chain(self.present().map(Volume::path))
    }

    /// How many volumes the bundle has; 1 for one that was not cut.
    pub fn volumes(&self) -> u32 {
        self.volumes.as_ref().map_or(1, |volumes| volumes.of)
    }

    /// The volumes that are there; none for a bundle that was not cut.
    pub fn present(&self) -> impl Iterator<Item = &Volume> {
        self.parts.iter().filter_map(|part| part.volume.as_ref())
    }

    /// The volumes that cannot be had.
    pub fn absent(&self) -> &[Absent] {
        self.volumes.as_ref().map_or(&[], |volumes| &volumes.absent)
    }

    /// What the volumes say that they belong to.
    pub(super) fn set(&self) -> Option<&SetName> {
        self.volumes.as_ref().map(|volumes| &volumes.set)
    }

    /// Makes sure that no volume is absent and each ends where it should.
    pub fn check_whole(&self) -> Result<(), BundleError> {
        if !self.absent().is_empty() {
            return Err(self.incomplete());
        }
        self.present().try_for_each(Volume::check_end)
    }

    /// Whether a part of `range` lies in a volume that is absent.
    pub(super) fn is_absent(&self, range: Slice) -> bool {
        let ends = self.parts.iter().skip(1).map(|part| part.start).chain([self.whole.len()]);
        let touched = |part: &Part, end: u64| part.start < range.offset + range.len && end > range.offset;
        let mut parts = self.parts.iter().zip(ends);
        self.volumes.is_some() && parts.any(|(part, end)| part.volume.is_none() && touched(part, end))
    }

    /// Names the volumes that cannot be had.
    pub fn incomplete(&self) -> BundleError {
        let of = self.volumes();
        let name = self.set().map_or_else(String::new, |set| format!("{} {}", set.name, set.sequence));
        BundleError::Incomplete { path: self.path.clone(), name, of, absent: self.absent().to_vec() }
    }

    /// Whether the last volume is there, which has the tail.
    pub(super) fn has_end(&self) -> bool {
        let of = self.volumes();
        self.absent().iter().all(|absent| absent.number != of)
    }

    /// The bytes of the bundle.
    pub(super) fn bytes(&self) -> &Span {
        &self.whole
    }

    /// The state of the files as they were opened.
    pub(super) fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The last volume; none for a bundle that was not cut.
    pub(super) fn last_volume(&self) -> Option<&Volume> {
        self.parts.last()?.volume.as_ref()
    }

    fn part_at(&self, offset: u64) -> &Part {
        let after = self.parts.partition_point(|part| part.start <= offset);
        &self.parts[after.saturating_sub(1)]
    }

    /// The file that has the byte of the bundle at `offset`, and where in that file.
    pub(super) fn locate(&self, offset: u64) -> (&Path, u64) {
        let part = self.part_at(offset);
        (&part.path, offset - part.start + part.skipped)
    }

    /// Where the first damage among the bytes of `range` lies, as far as the volumes know: a volume that is absent, which has
    /// no place unless what it says of itself is damaged, or a block that has not its digest.
    pub(super) fn first_damage(&self, range: Slice) -> Option<(&Path, Option<u64>)> {
        let end = range.offset + range.len;
        let mut at = range.offset;
        while at < end {
            let next = self.parts.partition_point(|part| part.start <= at);
            let part = &self.parts[next.saturating_sub(1)];
            let part_end = self.parts.get(next).map_or(end, |part| part.start.min(end));
            match &part.volume {
                None if self.volumes.is_some() => {
                    let absent = self.absent().iter().find(|absent| absent.path == part.path);
                    let damaged = absent.is_some_and(|absent| matches!(absent.why, Why::Damaged(_)));
                    return Some((&part.path, damaged.then_some(0)));
                }
                None => {}
                Some(volume) => {
                    let inside = Slice { offset: at - part.start, len: part_end - at };
                    if let Some(offset) = volume.first_damage(inside) {
                        return Some((&part.path, Some(offset)));
                    }
                }
            }
            at = part_end;
        }
        None
    }

    pub(super) fn malformed(&self, offset: u64, what: impl Into<String>) -> BundleError {
        let (path, offset) = self.locate(offset);
        BundleError::Malformed { path: path.to_owned(), offset, what: what.into() }
    }

    /// The error for a file that is no bundle, by how it begins; `None` if it may be one.
    pub(super) fn other(&self) -> Option<BundleError> {
        let [Part { volume: None, path, .. }] = &self.parts[..] else { return None };
        BundleError::other(path, &self.whole)
    }

    /// Says of the byte at `offset` that it could not be read.
    pub(super) fn failed(&self, offset: u64, source: &io::Error) -> BundleError {
        let what = match source.kind() {
            io::ErrorKind::UnexpectedEof => "the file is cut off".to_owned(),
            // It could be opened: what cannot be read of a medium is as good as damaged.
            _ => format!("it cannot be read: {source}"),
        };
        self.malformed(offset, what)
    }

    pub(super) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), BundleError> {
        self.whole.read_exact_at(buffer, offset).map_err(|source| self.failed(offset, &source))
    }
}

/// Volumes and the gaps between them, one after another.
#[derive(Default)]
struct Joined {
    parts: Vec<Part>,
    spans: Vec<Span>,
    len: u64,
}

impl Joined {
    /// Leaves out the volumes `hole`, up to `end`.
    fn skip(&mut self, hole: &[&Absent], end: u64) {
        let Some(first) = hole.first() else { return };
        // Where one of several ends and the next begins nobody knows.
        self.parts.push(Part { path: first.path.clone(), start: self.len, skipped: 0, volume: None });
        self.spans.push(Span::missing(end - self.len));
        self.len = end;
    }

    fn add(&mut self, volume: Volume) {
        self.spans.push(volume.part());
        let (path, skipped) = (volume.path().to_owned(), volume.header().prefix_len());
        let len = volume.len();
        self.parts.push(Part { path, start: self.len, skipped, volume: Some(volume) });
        self.len += len;
    }
}
