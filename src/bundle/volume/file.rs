//! An open volume, and checking it alone.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::header::{Header, starts_volume};
use super::{MAX_HEADER_BYTES, Slice};
use crate::bundle::read::BundleError;
use crate::bundle::tar;
use crate::file::{Span, read_up_to_at};
use crate::oci::{Digest, Hasher};

/// How much is read and hashed at a time.
const CHUNK: u64 = 1024 * 1024;

/// One volume of a bundle, which can be checked without the others: whether it is as it was written, not by whom.
#[derive(Debug)]
pub struct Volume {
    path: PathBuf,
    file: Arc<File>,
    header: Header,
    mtime: u64,
    /// The length of the file as it is.
    len: u64,
}

/// What a file turned out to be.
pub(in crate::bundle) enum Kind {
    /// A volume.
    Volume(Volume),
    /// What once was a volume, and why it cannot be read as one.
    Damaged(String),
    /// Something else.
    Other,
}

impl Volume {
    /// Opens the volume at `path`.
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        let malformed = |what| BundleError::Malformed { path: path.to_owned(), offset: 0, what };
        let io = |source| BundleError::Io { path: path.to_owned(), source };
        match Self::read(path).map_err(io)? {
            Kind::Volume(volume) => Ok(volume),
            Kind::Damaged(what) => Err(malformed(what)),
            Kind::Other => {
                let file = File::open(path).map_err(io)?;
                let len = file.metadata().map_err(io)?.len();
                Err(BundleError::other(path, &Span::new(Arc::new(file), 0, len))
                    .unwrap_or_else(|| malformed("it does not begin as a volume does".to_owned())))
            }
        }
    }

    /// Opens the file at `path`, whatever it is.
    pub(in crate::bundle) fn read(path: &Path) -> io::Result<Kind> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        let mut prefix = vec![0; 512];
        let read = read_up_to_at(&file, &mut prefix, 0)?;
        let Some(prefix_len) = starts_volume(&prefix[..read]) else { return Ok(Kind::Other) };
        if prefix_len > MAX_HEADER_BYTES {
            return Ok(Kind::Damaged("its header is too large".to_owned()));
        }
        prefix.resize(usize::try_from(prefix_len).map_err(io::Error::other)?, 0);
        let read = read_up_to_at(&file, &mut prefix, 0)?;
        Ok(match Header::parse(&prefix[..read]) {
            Ok((header, mtime)) => {
                Kind::Volume(Self { path: path.to_owned(), file: Arc::new(file), header, mtime, len })
            }
            Err(what) => Kind::Damaged(what),
        })
    }

    /// Where the volume was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name of the bundle, its sequence number, and the digest of its index.
    pub fn bundle(&self) -> (&str, u64, &Digest) {
        let set = &self.header.set;
        (set.name.as_str(), set.sequence, &set.digest)
    }

    /// Counts the volumes from 1.
    pub fn number(&self) -> u32 {
        self.header.number
    }

    /// How many volumes there are.
    pub fn of(&self) -> u32 {
        self.header.of
    }

    /// The bytes of the bundle that it has.
    pub fn len(&self) -> u64 {
        self.header.length
    }

    /// Never: every volume has a part.
    pub fn is_empty(&self) -> bool {
        false
    }

    pub(in crate::bundle) fn header(&self) -> &Header {
        &self.header
    }

    /// The time that its entries bear, as those of the bundle do.
    pub(in crate::bundle) fn mtime(&self) -> u64 {
        self.mtime
    }

    pub(in crate::bundle) fn metadata(&self) -> io::Result<std::fs::Metadata> {
        self.file.metadata()
    }

    /// The part of the bundle.
    pub(in crate::bundle) fn part(&self) -> Span {
        Span::new(Arc::clone(&self.file), self.header.prefix_len(), self.header.length)
    }

    /// Makes sure that the file ends as and where it should.
    pub(in crate::bundle) fn check_end(&self) -> Result<(), BundleError> {
        let expected = self.header.file_len();
        let malformed = |offset, what: &str| {
            Err(BundleError::Malformed { path: self.path.clone(), offset, what: what.to_owned() })
        };
        if self.len < expected {
            return malformed(self.len, "the file is cut off");
        }
        if self.len > expected {
            return malformed(expected, "something follows the volume");
        }
        let start = expected - tar::END;
        let mut end = [1; tar::ZEROS.len()];
        let read = crate::file::read_exact_at(&self.file, &mut end, start);
        match end.iter().position(|byte| *byte != 0) {
            None if read.is_ok() => Ok(()),
            at => malformed(start + at.unwrap_or_default() as u64, "it does not end as a volume does"),
        }
    }

    /// Hashes everything in the volume. `progress` is told of bytes as they are read.
    pub fn verify(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<(), BundleError> {
        let mut buffer = vec![0; usize::try_from(CHUNK).expect("a small constant")];
        let mut damaged: Vec<(u64, u64)> = Vec::new();
        for (slice, digest) in self.pieces() {
            if !self.is_good(slice, digest, &mut buffer) {
                let start = self.header.prefix_len() + slice.offset;
                match damaged.last_mut() {
                    Some((_, end)) if *end == start => *end += slice.len,
                    _ => damaged.push((start, start + slice.len)),
                }
            }
            progress(slice.len);
        }
        if damaged.is_empty() {
            return self.check_end();
        }
        Err(BundleError::DamagedVolume { path: self.path.clone(), damaged })
    }

    /// Where in the file the first damage lies among the bytes `range` of its part.
    pub(in crate::bundle) fn first_damage(&self, range: Slice) -> Option<u64> {
        let mut buffer = vec![0; usize::try_from(CHUNK).expect("a small constant")];
        let end = range.offset + range.len;
        let touched = |slice: &Slice| slice.offset < end && slice.offset + slice.len > range.offset;
        let mut pieces = self.pieces().filter(|(slice, _)| touched(slice));
        let (slice, _) = pieces.find(|(slice, digest)| !self.is_good(*slice, digest, &mut buffer))?;
        Some(self.header.prefix_len() + slice.offset.max(range.offset))
    }

    /// All that has a digest: the blocks, and the tail.
    fn pieces(&self) -> impl Iterator<Item = (Slice, &Digest)> {
        let head = self.header.head_len();
        let tail = self.header.tail.iter();
        let tail =
            tail.map(move |tail| (Slice { offset: head, len: self.header.length - head }, &tail.digest));
        self.header.blocks().chain(tail)
    }

    fn is_good(&self, slice: Slice, digest: &Digest, buffer: &mut [u8]) -> bool {
        hash(&self.part(), slice, digest, buffer).is_ok_and(|found| found == *digest)
    }
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, sequence, digest) = self.bundle();
        write!(f, "volume {} of {} of {name} {sequence} ({digest})", self.number(), self.of())
    }
}

/// Hashes the bytes `slice` of `span`, with the algorithm of `like`.
pub(in crate::bundle) fn hash(
    span: &Span,
    slice: Slice,
    like: &Digest,
    buffer: &mut [u8],
) -> io::Result<Digest> {
    let mut hasher = Hasher::new(like.algorithm());
    let mut done = 0;
    while done < slice.len {
        let wanted = usize::try_from(slice.len - done).map_or(buffer.len(), |left| left.min(buffer.len()));
        span.read_exact_at(&mut buffer[..wanted], slice.offset + done)?;
        hasher.update(&buffer[..wanted]);
        done += wanted as u64;
    }
    Ok(hasher.finish())
}
