//! Bodies of responses: a few bytes, a stretch of a blob read in large pieces, or a file put together of both.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use crate::store::Blob;

use super::access::Ending;
use super::composed::Composed;
use super::reader::BlobReader;
use super::splice::Splices;

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
    pub(super) fn splice(&mut self, splices: &Splices) {
        match &mut self.kind {
            Kind::Bytes(_) => {}
            Kind::Blob(reader) => reader.splice(splices),
            Kind::Composed(composed) => composed.splice(splices),
        }
    }

    /// Has `ending` told how the response ends.
    pub(super) fn end_with(&mut self, ending: Ending) {
        self.ending = Some(Box::new(ending));
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self { kind: Kind::Bytes(bytes), ending: None }
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
