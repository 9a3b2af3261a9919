//! Bodies of responses: a few bytes, a stretch of a blob read in large pieces, or a file put together of both.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::task::JoinHandle;

use crate::store::Blob;

use super::access::Ending;
use super::composed::Composed;
use super::splice::Splices;

/// How much of a blob is read at a time where it is in memory. What TLS takes at once is no more.
const PIECE: usize = 64 * 1024;
/// How much is read at a time where the disk has to be waited for, which takes another thread each time. Two such pieces
/// are held for each transfer.
const DISK_PIECE: usize = 256 * 1024;

/// The body of a response.
#[derive(Debug)]
pub(super) struct Body {
    kind: Kind,
    /// Told how many bytes went out, and dropped when the response has ended.
    ending: Option<Box<Ending>>,
}

#[derive(Debug)]
enum Kind {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A stretch of a blob.
    Blob(BlobReader),
    /// A file that is put together.
    Composed(Box<Composed>),
}

impl Body {
    pub(super) fn empty() -> Self {
        Self::from(Bytes::new())
    }

    /// The bytes of `blob` from `start` to before `end`.
    pub(super) fn blob(blob: Blob, start: u64, end: u64) -> Self {
        Self { kind: Kind::Blob(BlobReader::new(blob, start, end, None)), ending: None }
    }

    pub(super) fn composed(composed: Composed) -> Self {
        Self { kind: Kind::Composed(Box::new(composed)), ending: None }
    }

    /// Has the connection take a blob's bytes from its file itself, where it can.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(unreachable_code, unused_variables, reason = "no connection can do that elsewhere")
    )]
    pub(super) fn splice(&mut self, splices: &Splices) {
        match &mut self.kind {
            Kind::Bytes(_) => {}
            Kind::Blob(reader) => reader.splices = Some(splices.clone()),
            Kind::Composed(composed) => composed.splice(splices),
        }
    }

    /// Has `ending` told how the response ends.
    pub(super) fn end_with(&mut self, ending: Ending) {
        self.ending = Some(Box::new(ending));
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from(Bytes::from(bytes))
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self { kind: Kind::Bytes(bytes), ending: None }
    }
}

/// Reads a stretch of a blob: what is in memory at once, the rest on threads for blocking work, one piece ahead of what is
/// being sent.
#[derive(Debug)]
pub(super) struct BlobReader {
    blob: Blob,
    position: u64,
    end: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
    /// Who takes the bytes from the file, if they do not have to come by here.
    splices: Option<Splices>,
}

impl BlobReader {
    /// Reads `blob` from `start` to before `end`, or has the connection do it that `splices` belongs to.
    pub(super) fn new(blob: Blob, start: u64, end: u64, splices: Option<Splices>) -> Self {
        Self { blob, position: start, end, reading: None, splices }
    }

    fn left(&self) -> u64 {
        self.end - self.position
    }

    /// How long the next piece is, if none is longer than `most`.
    fn next(&self, most: usize) -> usize {
        usize::try_from(self.left()).map_or(most, |left| left.min(most))
    }

    /// The next piece, if it is in memory.
    fn at_once(&mut self) -> io::Result<Option<Bytes>> {
        let mut piece = vec![0; self.next(PIECE)];
        let Some(read) = self.blob.read_at_once(&mut piece, self.position)? else { return Ok(None) };
        piece.truncate(read);
        self.position += read as u64;
        Ok(Some(Bytes::from(piece)))
    }

    /// Starts to read the next piece from the disk.
    fn start(&self) -> JoinHandle<io::Result<Bytes>> {
        let (blob, position) = (self.blob.clone(), self.position);
        // Taken here, where it is given back as well: allocators keep far too much of what wanders between threads.
        let mut piece = vec![0; self.next(DISK_PIECE)];
        tokio::task::spawn_blocking(move || {
            let read = blob.read_at(&mut piece, position)?;
            piece.truncate(read);
            Ok(Bytes::from(piece))
        })
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if let Some(splices) = &self.splices {
            let left = self.end - self.position;
            let place = (left > 0).then(|| splices.push(&self.blob, self.position, left));
            self.position += place.as_ref().map_or(0, |place| place.len() as u64);
            return Poll::Ready(place.map(Ok));
        }
        if self.left() == 0 {
            return Poll::Ready(None);
        }
        let at_once = if self.reading.is_none() { self.at_once().transpose() } else { None };
        let result = match at_once {
            Some(result) => result,
            None => ready!(self.poll_disk(context)),
        };
        Poll::Ready(Some(result.inspect_err(|error| {
            // The status line has gone out; all that is left is to break the connection off.
            tracing::error!("cannot read a blob while sending it: {error}");
        })))
    }

    /// The next piece, from the disk.
    fn poll_disk(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let mut reading = self.reading.take().unwrap_or_else(|| self.start());
        let Poll::Ready(result) = Pin::new(&mut reading).poll(context) else {
            self.reading = Some(reading);
            return Poll::Pending;
        };
        let piece = result.map_err(io::Error::other).flatten()?;
        self.position += piece.len() as u64;
        if self.left() > 0 {
            self.reading = Some(self.start());
        }
        Poll::Ready(Ok(piece))
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        let frame = match &mut this.kind {
            Kind::Bytes(bytes) if bytes.is_empty() => None,
            Kind::Bytes(bytes) => Some(Ok(std::mem::take(bytes))),
            Kind::Blob(reader) => ready!(reader.poll(context)),
            Kind::Composed(composed) => ready!(composed.poll(context)),
        };
        if let (Some(Ok(bytes)), Some(ending)) = (&frame, &mut this.ending) {
            ending.bytes += bytes.len() as u64;
        }
        Poll::Ready(frame.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Bytes(bytes) => bytes.is_empty(),
            Kind::Blob(reader) => reader.left() == 0,
            Kind::Composed(composed) => composed.left() == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Blob(reader) => SizeHint::with_exact(reader.left()),
            Kind::Composed(composed) => SizeHint::with_exact(composed.left()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write as _;
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn memory_and_disk_give_the_same_bytes() {
        let bytes: Vec<u8> = (0..700_000u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let blob = Blob::in_file(Arc::new(file), 0, bytes.len() as u64);
        for waiting in [false, true] {
            let (blob, position, end) = (blob.clone(), 5, 690_000);
            let mut reader = BlobReader { blob, position, end, reading: None, splices: None };
            let mut read = Vec::new();
            while reader.left() > 0 {
                let piece = if waiting {
                    poll_fn(|context| reader.poll_disk(context)).await
                } else {
                    poll_fn(|context| reader.poll(context)).await.unwrap()
                };
                read.extend_from_slice(&piece.unwrap());
            }
            assert!(read == bytes[5..690_000]);
            assert!(poll_fn(|context| reader.poll(context)).await.is_none());
        }
    }
}
