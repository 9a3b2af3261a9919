//! An open recovery file.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::bundle_output;
use super::header::{HEADER_NAME, Header, MAX_HEADER_BYTES, is_recovery};
use crate::bundle::find::file_before;
use crate::bundle::volume::parse_path;
use crate::bundle::{framing, tar};
use crate::file::{Span, read_up_to_at};

const TAIL_NAME: &str = "bundle.tail";
/// The longest second description and tail that are looked for from the end.
const MAX_END: u64 = 256 * 1024 * 1024;

/// A recovery file of which at least one description could be read.
#[derive(Debug)]
pub(in crate::bundle) struct Recovery {
    pub(in crate::bundle) path: PathBuf,
    pub(in crate::bundle) header: Header,
    file: Arc<File>,
    len: u64,
}

impl Recovery {
    /// Opens the recovery file at `path`; none when it is something else.
    pub(in crate::bundle) fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = Arc::new(File::open(path)?);
        let len = file.metadata()?.len();
        let whole = Span::new(Arc::clone(&file), 0, len);
        let header = match first(&file)? {
            Some(header) => Some(header),
            // Looking for it takes time, so it must at least be called as recovery files are.
            None if is_named(path) => second(&whole),
            None => None,
        };
        Ok(header.map(|header| Self { path: path.to_owned(), header, file, len }))
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
        let mut tail = Vec::new();
        if let Some(span) = self.tail() {
            if span.len() > MAX_END {
                return false;
            }
            tail.resize(usize::try_from(span.len()).unwrap_or_default(), 0);
            if span.read_exact_at(&mut tail, 0).is_err() {
                return false;
            }
        }
        let whole = Span::new(Arc::clone(&self.file), 0, self.len);
        self.header.frame(&tail).iter().all(|(at, expected)| {
            let mut found = vec![0; expected.len()];
            whole.read_exact_at(&mut found, *at).is_ok() && found == *expected
        })
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
