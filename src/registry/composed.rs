//! The body of a file that is put together of texts and blobs while it is sent.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::oci::{Digest, RepositoryName};
use crate::store::{Blob, Content, ContentError};

use super::extras::Piece;
use super::reader::BlobReader;
use super::splice::Splices;

/// Sends a stretch of a composed file. One blob is open at a time.
pub(super) struct Composed {
    content: Arc<dyn Content>,
    spans: VecDeque<Span>,
    left: u64,
    opening: Option<JoinHandle<io::Result<BlobReader>>>,
    reader: Option<BlobReader>,
    splices: Option<Splices>,
}

/// What is wanted of a piece.
#[derive(Debug)]
enum Span {
    Bytes(Bytes),
    Blob { repository: RepositoryName, digest: Digest, size: u64, start: u64, end: u64 },
}

impl Composed {
    /// The bytes of the file of `pieces` from `start` to before `end`.
    pub(super) fn new(content: Arc<dyn Content>, pieces: Vec<Piece>, start: u64, end: u64) -> Self {
        let mut position = 0;
        let mut spans = VecDeque::new();
        for piece in pieces {
            let (first, size) = (position, piece.size());
            position += size;
            let (from, to) = (start.clamp(first, position) - first, end.clamp(first, position) - first);
            if from < to {
                spans.push_back(span(piece, from, to));
            }
        }
        let left = end.min(position).saturating_sub(start);
        Self { content, spans, left, opening: None, reader: None, splices: None }
    }

    #[cfg_attr(
        not(target_os = "linux"),
        expect(unreachable_code, reason = "no connection can do that elsewhere")
    )]
    pub(super) fn splice(&mut self, splices: &Splices) {
        self.splices = Some(splices.clone());
    }

    /// The bytes that are still to be sent.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            if let Some(reader) = &mut self.reader {
                match ready!(reader.poll(context)) {
                    None => self.reader = None,
                    Some(Ok(bytes)) => return self.gives(bytes),
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                }
            }
            if let Some(opening) = &mut self.opening {
                let opened = ready!(Pin::new(opening).poll(context));
                self.opening = None;
                match opened.map_err(io::Error::other).flatten() {
                    Ok(reader) => self.reader = Some(reader),
                    Err(error) => {
                        // The status line has gone out; all that is left is to break the connection off.
                        tracing::error!("cannot go on with a file that is put together: {error}");
                        return Poll::Ready(Some(Err(error)));
                    }
                }
                continue;
            }
            match self.spans.pop_front() {
                None => return Poll::Ready(None),
                Some(Span::Bytes(bytes)) => return self.gives(bytes),
                Some(Span::Blob { repository, digest, size, start, end }) => {
                    let (source, splices) = (self.content.clone(), self.splices.clone());
                    self.opening = Some(tokio::task::spawn_blocking(move || {
                        let blob = open(&*source, &repository, &digest, size)?;
                        Ok(BlobReader::new(blob, start, end, splices))
                    }));
                }
            }
        }
    }

    fn gives(&mut self, bytes: Bytes) -> Poll<Option<io::Result<Bytes>>> {
        self.left -= bytes.len() as u64;
        Poll::Ready(Some(Ok(bytes)))
    }
}

impl fmt::Debug for Composed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Composed").field("left", &self.left).finish_non_exhaustive()
    }
}

fn span(piece: Piece, from: u64, to: u64) -> Span {
    match piece {
        Piece::Bytes(bytes) => {
            // Both are at most the length of what is in memory.
            let at = |position: u64| usize::try_from(position).unwrap_or(bytes.len());
            Span::Bytes(bytes.slice(at(from)..at(to)))
        }
        Piece::Blob { repository, digest, size } => {
            Span::Blob { repository, digest, size, start: from, end: to }
        }
    }
}

/// The blob, verified; with the size that the file was laid out for.
fn open(content: &dyn Content, name: &RepositoryName, digest: &Digest, size: u64) -> io::Result<Blob> {
    let blob = content.blob(name, digest).map_err(io::Error::other)?;
    let blob = blob.filter(|blob| blob.size() == size);
    blob.ok_or_else(|| io::Error::other(ContentError::Damaged(digest.clone())))
}
