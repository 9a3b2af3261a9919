//! Bodies of responses: a few bytes, or a stretch of a blob read in large pieces.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::task::JoinHandle;

use crate::store::Blob;

use super::access::Ending;
use super::splice::Splices;

/// How much of a blob is read at once. Smaller pieces cost more calls, larger ones only memory: two of them are held for
/// each transfer.
const PIECE: usize = 256 * 1024;

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
}

impl Body {
    pub(super) fn empty() -> Self {
        Self::from(Bytes::new())
    }

    /// The bytes of `blob` from `start` to before `end`.
    pub(super) fn blob(blob: Blob, start: u64, end: u64) -> Self {
        let reader = BlobReader { blob, position: start, end, reading: None, splices: None };
        Self { kind: Kind::Blob(reader), ending: None }
    }

    /// Has the connection take a blob's bytes from its file itself, where it can.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(unreachable_code, unused_variables, reason = "no connection can do that elsewhere")
    )]
    pub(super) fn splice(&mut self, splices: &Splices) {
        if let Kind::Blob(reader) = &mut self.kind {
            reader.splices = Some(splices.clone());
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

/// Reads a stretch of a blob on threads for blocking work, one piece ahead of what is being sent.
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
    fn left(&self) -> u64 {
        self.end - self.position
    }

    /// Starts to read the next piece, if there is one.
    fn start(&mut self) {
        if self.left() == 0 {
            return;
        }
        let length = usize::try_from(self.left()).map_or(PIECE, |left| left.min(PIECE));
        let (blob, position) = (self.blob.clone(), self.position);
        self.reading = Some(tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; length];
            let read = blob.read_at(&mut piece, position)?;
            piece.truncate(read);
            Ok(Bytes::from(piece))
        }));
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if let Some(splices) = &self.splices {
            let left = self.end - self.position;
            let place = (left > 0).then(|| splices.push(&self.blob, self.position, left));
            self.position += place.as_ref().map_or(0, |place| place.len() as u64);
            return Poll::Ready(place.map(Ok));
        }
        if self.reading.is_none() {
            self.start();
        }
        let Some(reading) = &mut self.reading else { return Poll::Ready(None) };
        let result = ready!(Pin::new(reading).poll(context));
        self.reading = None;
        Poll::Ready(Some(match result.map_err(io::Error::other).flatten() {
            Ok(piece) if piece.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(piece) => {
                self.position += piece.len() as u64;
                self.start();
                Ok(piece)
            }
            Err(error) => {
                // The status line has gone out; all that is left is to break the connection off.
                tracing::error!("cannot read a blob while sending it: {error}");
                Err(error)
            }
        }))
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
        };
        if let (Some(Ok(bytes)), Some(ending)) = (&frame, &mut this.ending) {
            ending.bytes += bytes.len() as u64;
        }
        Poll::Ready(frame.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Bytes(bytes) => bytes.is_empty(),
            Kind::Blob(reader) => reader.left() == 0 && reader.reading.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Blob(reader) => SizeHint::with_exact(reader.left()),
        }
    }
}
