//! Reading a stretch of a blob while it is sent.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::store::Blob;

use super::splice::Splices;

/// How much of a blob is read at a time where it is in memory. What TLS takes at once is no more.
const PIECE: usize = 64 * 1024;
/// How much is read at a time where the disk has to be waited for, which takes another thread each time. Two such pieces
/// are held for each transfer.
const DISK_PIECE: usize = 256 * 1024;

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

    /// Has the connection take the bytes from the file itself.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(unreachable_code, reason = "no connection can do that elsewhere")
    )]
    pub(super) fn splice(&mut self, splices: &Splices) {
        self.splices = Some(splices.clone());
    }

    /// The bytes that are still to be sent.
    pub(super) fn left(&self) -> u64 {
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
