//! An open recovery file.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::bundle_output;
use super::header::{HEADER_NAME, Header, MAX_HEADER_BYTES, is_recovery};
use crate::bundle::find::file_before;
use crate::bundle::read::BundleError;
use crate::bundle::volume::{Slice, hash, parse_path};
use crate::bundle::{framing, tar};
use crate::file::{Span, read_up_to_at};
use crate::oci::Digest;

/// More files than a medium has beside a bundle.
const MAX_ENTRIES: usize = 10_000;

const TAIL_NAME: &str = "bundle.tail";
/// The longest second description and tail that are looked for from the end.
const MAX_END: u64 = 256 * 1024 * 1024;

/// How much is read and hashed at a time.
const CHUNK: usize = 1024 * 1024;

/// A recovery file of which at least one description could be read. It can be checked without the others and without the
/// bundle: whether it is as it was written, not by whom.
#[derive(Debug)]
pub struct Recovery {
    pub(in crate::bundle) path: PathBuf,
    pub(in crate::bundle) header: Header,
    file: Arc<File>,
    len: u64,
}

impl Recovery {
    /// Opens the recovery file at `path`; none when it is something else, or nothing of it can be understood.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        // Looking for the second description takes time, so the file must at least be called as recovery files are.
        Self::read(path, is_named(path))
    }

    /// The same, whatever the file is called.
    pub(in crate::bundle) fn open_by_content(path: &Path) -> io::Result<Option<Self>> {
        Self::read(path, true)
    }

    fn read(path: &Path, to_the_end: bool) -> io::Result<Option<Self>> {
        let file = Arc::new(File::open(path)?);
        let len = file.metadata()?.len();
        let whole = Span::new(Arc::clone(&file), 0, len);
        let header = match first(&file)? {
            None if to_the_end => second(&whole),
            header => header,
        };
        Ok(header.map(|header| Self { path: path.to_owned(), header, file, len }))
    }

    /// Returns whether a file that is named as recovery files are lies in the same directory as `bundle`, or in it.
    pub fn is_beside(bundle: &Path) -> bool {
        let parent = bundle.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = if bundle.is_dir() { bundle } else { parent.unwrap_or(Path::new(".")) };
        let entries = std::fs::read_dir(directory).into_iter().flatten().take(MAX_ENTRIES);
        entries.flatten().any(|entry| is_named(&entry.path()))
    }

    /// Whether the file at `path` begins as a recovery file does.
    pub(in crate::bundle) fn is_one(path: &Path) -> bool {
        let begin = || {
            let mut block = [0; 512];
            let read = read_up_to_at(&File::open(path)?, &mut block, 0)?;
            Ok::<_, io::Error>(is_recovery(&block[..read]).is_some())
        };
        begin().unwrap_or(false)
    }

    /// Where the file was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name of the bundle, its sequence number, and the digest of its index.
    pub fn bundle(&self) -> (&str, u64, &Digest) {
        let set = &self.header.layout.set;
        (set.name.as_str(), set.sequence, &set.digest)
    }

    /// Counts the recovery files from 1.
    pub fn number(&self) -> u32 {
        self.header.number
    }

    /// How many recovery files there are.
    pub fn of(&self) -> u32 {
        u32::try_from(self.header.layout.files.len()).expect("there are few files")
    }

    /// The bytes of the recovery blocks in it.
    pub fn len(&self) -> u64 {
        self.header.part_len()
    }

    /// Whether it has no recovery blocks: those of a bundle without blobs have none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Hashes everything in the file. `progress` is told of bytes of the recovery blocks as they are read.
    pub fn verify(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<(), BundleError> {
        let mut damaged = self.damaged_frame();
        let mut buffer = vec![0; CHUNK];
        let (layout, part) = (&self.header.layout, self.part());
        let size = layout.block_size;
        for (nth, at) in layout.recovery_in(self.header.number).zip((0..).step_by(count(size))) {
            let digest = &layout.recovery[count(nth)];
            let place = Slice { offset: at, len: size };
            if !hash(&part, place, digest, &mut buffer).is_ok_and(|found| found == *digest) {
                let start = self.header.part_offset() + at;
                damaged.push((start, start + size));
            }
            progress(size);
        }
        if damaged.is_empty() {
            return Ok(());
        }
        damaged.sort_unstable();
        damaged.dedup_by(|next, last| {
            last.1 >= next.0 && {
                last.1 = last.1.max(next.1);
                true
            }
        });
        Err(BundleError::DamagedVolume { path: self.path.clone(), damaged })
    }

    /// Shares the layout of `other`, if it has the same.
    pub(in crate::bundle) fn share_layout(&mut self, other: &Self) -> bool {
        let same = self.header.layout == other.header.layout;
        if same {
            self.header.layout = Arc::clone(&other.header.layout);
        }
        same
    }

    /// The recovery blocks in it.
    pub(in crate::bundle) fn part(&self) -> Span {
        Span::new(Arc::clone(&self.file), self.header.part_offset(), self.header.part_len())
    }

    /// Where the file has its copy of the tail, and how long it is, by the length of the file alone.
    pub(in crate::bundle) fn tail(&self) -> Option<Span> {
        let offset = self.header.tail_offset() + 3 * tar::BLOCK;
        let len = self.len.checked_sub(offset + tar::END)?;
        Some(Span::new(Arc::clone(&self.file), offset, len))
    }

    /// Whether everything but the recovery blocks is as it was written.
    pub(in crate::bundle) fn is_framed(&self) -> bool {
        self.damaged_frame().is_empty()
    }

    /// Where the file is not as it was written, but for the recovery blocks: first byte, and the byte after the last.
    fn damaged_frame(&self) -> Vec<(u64, u64)> {
        let mut tail = Vec::new();
        if let Some(span) = self.tail().filter(|span| span.len() <= MAX_END) {
            tail.resize(count(span.len()), 0);
            if span.read_exact_at(&mut tail, 0).is_err() {
                tail.clear();
            }
        }
        let tail_offset = self.header.tail_offset();
        let differs = |(at, expected): (u64, Vec<u8>)| {
            let mut found = vec![0; expected.len()];
            let read = read_up_to_at(&self.file, &mut found, at).unwrap_or_default();
            let same = |nth: &usize| *nth < read && found[*nth] == expected[*nth];
            let first = (0..expected.len()).find(|nth| !same(nth))?;
            if at == tail_offset {
                // The tail and its digest: which of them is wrong nobody knows.
                return Some((at, self.len.max(at + 1)));
            }
            let last = (0..expected.len()).rfind(|nth| !same(nth)).unwrap_or(first);
            Some((at + first as u64, at + last as u64 + 1))
        };
        self.header.frame(&tail).into_iter().filter_map(differs).collect()
    }
}

/// What is written to the end of a recovery file when the tail is `tail`: the file ends with it.
pub(in crate::bundle) fn tail_patches(header: &Header, tail: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mtime = header.layout.mtime;
    let mut bytes = framing::summed(TAIL_NAME, tail, mtime);
    bytes.extend(tar::header(TAIL_NAME, tail.len() as u64, mtime));
    bytes.extend(tail);
    bytes.extend(tar::ZEROS);
    vec![(header.tail_offset(), bytes)]
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, sequence, digest) = self.bundle();
        write!(f, "recovery file {} of {} of {name} {sequence} ({digest})", self.number(), self.of())
    }
}

fn count(number: u64) -> usize {
    usize::try_from(number).expect("what is counted fits into memory")
}

fn is_named(path: &Path) -> bool {
    parse_path(path).is_some_and(|(output, ..)| bundle_output(&output).is_some())
}

/// The description at the begin of a file.
fn first(file: &File) -> io::Result<Option<Header>> {
    let mut bytes = vec![0; 512];
    let read = read_up_to_at(file, &mut bytes, 0)?;
    let Some(len) = is_recovery(&bytes[..read]) else { return Ok(None) };
    bytes.resize(usize::try_from(len).map_err(io::Error::other)?, 0);
    let read = read_up_to_at(file, &mut bytes, 0)?;
    Ok(Header::parse(&bytes[..read]))
}

/// The description near the end of a file.
fn second(whole: &Span) -> Option<Header> {
    let limit = whole.len().saturating_sub(MAX_END);
    let end = whole.len().checked_sub(tar::END)?;
    let tail = file_before(whole, end, limit, |path| path == TAIL_NAME).ok()??;
    // Between them stand the digests of both.
    let sum = tail.header.checked_sub(2 * tar::BLOCK)?;
    let description_end = sum.checked_sub(2 * tar::BLOCK)?;
    let description = file_before(whole, description_end, limit, |path| path == HEADER_NAME).ok()??;
    let len = sum.checked_sub(description.header).filter(|len| *len <= MAX_HEADER_BYTES)?;
    let mut bytes = vec![0; usize::try_from(len).ok()?];
    whole.read_exact_at(&mut bytes, description.header).ok()?;
    Header::parse(&bytes)
}
