//! Bytes that lie in one file, or begin in one and go on in others.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::{read_at, read_at_once};

/// A run of bytes: a stretch of an open file, or several stretches one after another. Clones are cheap.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pieces: Arc<[Piece]>,
    len: u64,
}

/// A part of a span that lies in one file.
#[derive(Clone, Debug)]
struct Piece {
    /// None where the file is missing.
    file: Option<Arc<File>>,
    /// Where in the file the piece begins.
    offset: u64,
    /// Where in the span the piece begins.
    start: u64,
    len: u64,
}

/// Where a position of a span lies, and how far the bytes after it lie in the same file.
#[derive(Debug)]
pub(crate) struct Stretch<'a> {
    pub(crate) file: &'a File,
    pub(crate) offset: u64,
    pub(crate) left: u64,
}

impl Stretch<'_> {
    /// As much of `buffer` as the stretch has bytes for.
    fn fitting<'b>(&self, buffer: &'b mut [u8]) -> &'b mut [u8] {
        let wanted = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        &mut buffer[..wanted]
    }
}

impl Span {
    /// `len` bytes of `file` from `offset` on.
    pub(crate) fn new(file: Arc<File>, offset: u64, len: u64) -> Self {
        Self { pieces: Arc::new([Piece { file: Some(file), offset, start: 0, len }]), len }
    }

    /// `len` bytes that cannot be read, because the file that holds them is not there.
    pub(crate) fn missing(len: u64) -> Self {
        Self { pieces: Arc::new([Piece { file: None, offset: 0, start: 0, len }]), len }
    }

    /// The bytes of all `parts`, one after another.
    pub(crate) fn join(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut len = 0;
        let mut pieces = Vec::new();
        for part in parts {
            pieces.extend(part.pieces.iter().map(|p| Piece { start: len + p.start, ..p.clone() }));
            len += part.len;
        }
        Self { pieces: pieces.into(), len }
    }

    /// `len` bytes of this span from `offset` on. They must lie within it.
    pub(crate) fn slice(&self, offset: u64, len: u64) -> Self {
        let end = offset + len;
        debug_assert!(end <= self.len, "a slice lies within its span");
        let first = self.pieces.partition_point(|piece| piece.start + piece.len <= offset);
        let pieces = self.pieces[first..].iter().take_while(|piece| piece.start < end).map(|piece| {
            let skipped = offset.saturating_sub(piece.start);
            let start = piece.start + skipped;
            Piece {
                file: piece.file.clone(),
                offset: piece.offset + skipped,
                start: start - offset,
                len: (piece.len - skipped).min(end - start),
            }
        });
        Self { pieces: pieces.collect(), len }
    }

    /// How many bytes these are.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The file that has the byte at `position`; none at the end.
    pub(crate) fn stretch_at(&self, position: u64) -> io::Result<Option<Stretch<'_>>> {
        let nth = self.pieces.partition_point(|piece| piece.start + piece.len <= position);
        let Some(piece) = self.pieces.get(nth) else { return Ok(None) };
        let skipped = position - piece.start;
        let file = piece.file.as_deref().ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "these bytes lie in a volume that is missing")
        })?;
        Ok(Some(Stretch { file, offset: piece.offset + skipped, left: piece.len - skipped }))
    }

    /// Reads up to `buffer.len()` bytes at `position`; 0 at the end. A file that is shorter than its piece is an error.
    pub(crate) fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let Some(stretch) = self.stretch_at(position)? else { return Ok(0) };
        let wanted = stretch.fitting(buffer);
        if wanted.is_empty() {
            return Ok(0);
        }
        match read_at(stretch.file, wanted, stretch.offset)? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than it should be")),
            read => Ok(read),
        }
    }

    /// Like [`Span::read_at`], but only what is in memory: none where the disk would have to be waited for, where there is
    /// no telling, and where [`Span::read_at`] has an error to tell.
    pub(crate) fn read_at_once(&self, buffer: &mut [u8], position: u64) -> io::Result<Option<usize>> {
        let Some(stretch) = self.stretch_at(position)? else { return Ok(Some(0)) };
        let read = read_at_once(stretch.file, stretch.fitting(buffer), stretch.offset)?;
        Ok(read.filter(|read| *read > 0))
    }

    /// Fills `buffer` from `position` on; an early end is an error.
    pub(crate) fn read_exact_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_at(&mut buffer[filled..], position + filled as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes all of `bytes` at `position`. They must lie within the span.
    pub(crate) fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let mut written = 0;
        while written < bytes.len() {
            let stretch = self.stretch_at(position + written as u64)?.ok_or(io::ErrorKind::WriteZero)?;
            let rest = &bytes[written..];
            let count = usize::try_from(stretch.left).map_or(rest.len(), |left| left.min(rest.len()));
            super::write_all_at(stretch.file, &rest[..count], stretch.offset)?;
            written += count;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    /// A file with `skipped` bytes before `bytes`.
    fn file(skipped: usize, bytes: &[u8]) -> Span {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![0xee; skipped]).unwrap();
        file.write_all(bytes).unwrap();
        Span::new(Arc::new(file), skipped as u64, bytes.len() as u64)
    }

    fn read(span: &Span) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(span.len()).unwrap()];
        span.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn what_is_missing_is_an_error_and_nothing_else_is() {
        let span = Span::join([file(3, b"abc"), Span::missing(4), file(0, b"xyz")]);
        assert_eq!(span.len(), 10);
        assert_eq!(read(&span.slice(0, 3)), b"abc");
        assert_eq!(read(&span.slice(7, 3)), b"xyz");
        let error = span.slice(2, 6).read_exact_at(&mut [0; 6], 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_that_was_cut_short_is_an_error() {
        let whole = Span::new(Arc::new(tempfile::tempfile().unwrap()), 0, 5);
        let error = whole.read_at(&mut [0; 5], 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(whole.read_at(&mut [0; 5], 5).unwrap(), 0);
    }

    proptest! {
        #[test]
        fn joined_and_sliced_as_bytes_are(
            parts in proptest::collection::vec((0usize..9, proptest::collection::vec(any::<u8>(), 0..20)), 0..5),
            cuts in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        ) {
            let bytes = parts.iter().flat_map(|(_, bytes)| bytes.clone()).collect::<Vec<u8>>();
            let span = Span::join(parts.iter().map(|(skipped, bytes)| file(*skipped, bytes)));
            prop_assert_eq!(&read(&span), &bytes);
            let (a, b) = (cuts.0.index(bytes.len() + 1), cuts.1.index(bytes.len() + 1));
            let (from, to) = (a.min(b), a.max(b));
            let slice = span.slice(from as u64, (to - from) as u64);
            prop_assert_eq!(read(&slice), &bytes[from..to]);
            let new: Vec<u8> = bytes[from..to].iter().map(|byte| !byte).collect();
            slice.write_all_at(&new, 0).unwrap();
            prop_assert_eq!(read(&span), [&bytes[..from], &new, &bytes[to..]].concat());
        }
    }
}
