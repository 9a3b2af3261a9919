//! Sending blobs over plain connections without reading them: the kernel copies from the file to the socket.
//!
//! hyper has no way to say that. So the body of a response hands out *places*, slices of one constant that stand for the
//! bytes of a file, and the connection below hyper knows them by their address and sends the file's bytes instead. hyper
//! passes slices on without looking into them as long as it writes vectored. Should it ever copy one, the connection
//! notices the constant's pattern among what it is to write, and breaks off before a byte of it leaves.

#[cfg(target_os = "linux")]
pub(super) use linux::{Splices, plain};
#[cfg(not(target_os = "linux"))]
pub(super) use other::{Splices, plain};

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::VecDeque;
    use std::io::{self, IoSlice};
    use std::pin::Pin;
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
    use std::task::{Context, Poll, ready};

    use bytes::Bytes;
    use rustix::io::Errno;
    use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
    use tokio::net::TcpStream;

    use crate::store::Blob;

    /// What places are filled with: a byte that is never there twice in a row in UTF-8.
    const PATTERN: u8 = 0xd7;
    /// How much of the pattern cannot be a coincidence.
    const TELLING: usize = 16;
    /// Places are slices of this. Its size is how much is sent at once.
    static PLACES: [u8; 2 * 1024 * 1024] = [PATTERN; 2 * 1024 * 1024];

    /// What the places that were handed out for a connection stand for, in their order.
    #[derive(Clone, Debug, Default)]
    pub(in super::super) struct Splices(Arc<Mutex<VecDeque<Stretch>>>);

    /// A stretch of a file.
    #[derive(Debug)]
    struct Stretch {
        blob: Blob,
        position: u64,
        left: usize,
        /// Whether another stretch follows right behind.
        more: bool,
    }

    impl Stretch {
        /// Breaks off what cannot be read.
        fn failed(&self, error: io::Error) -> Poll<io::Result<usize>> {
            tracing::error!("cannot read a blob while sending it: {error}");
            self.blob.doubt();
            Poll::Ready(Err(error))
        }
    }

    /// Whether it is the file that failed and not the connection.
    fn is_of_the_disk(error: &io::Error) -> bool {
        let errno = error.raw_os_error().map(Errno::from_raw_os_error);
        matches!(errno, Some(Errno::IO | Errno::BADMSG | Errno::REMOTEIO | Errno::STALE | Errno::UCLEAN))
    }

    impl Splices {
        /// A place for the bytes of `blob` from `position` on, `most` at most.
        pub(in super::super) fn push(&self, blob: &Blob, position: u64, most: u64) -> Bytes {
            let left = usize::try_from(most).map_or(PLACES.len(), |most| most.min(PLACES.len()));
            let more = left as u64 != most;
            self.lock().push_back(Stretch { blob: blob.clone(), position, left, more });
            Bytes::from_static(&PLACES[..left])
        }

        fn lock(&self) -> MutexGuard<'_, VecDeque<Stretch>> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    /// A plain connection that fills places from files.
    pub(in super::super) struct Splicing {
        stream: TcpStream,
        splices: Splices,
        /// Whether the kernel holds back what does not fill a packet.
        corked: bool,
    }

    /// Prepares a plain connection for splicing.
    pub(in super::super) fn plain(stream: TcpStream) -> (Splicing, Option<Splices>) {
        let splices = Splices::default();
        (Splicing { stream, splices: splices.clone(), corked: false }, Some(splices))
    }

    /// Whether these are the bytes of a place and not a copy of them.
    fn is_place(bytes: &[u8]) -> bool {
        PLACES.as_ptr_range().contains(&bytes.as_ptr())
    }

    impl Splicing {
        /// Has only full packets leave, or all. A small one after every stretch would wake a quick client each time,
        /// which costs both sides a fifth more.
        fn cork(&mut self, corked: bool) {
            if self.corked != corked && rustix::net::sockopt::set_tcp_cork(&self.stream, corked).is_ok() {
                self.corked = corked;
            }
        }

        /// Sends up to `most` bytes of the first stretch.
        fn poll_splice(&mut self, context: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
            if self.splices.lock().front().is_some_and(|stretch| stretch.more) {
                self.cork(true);
            }
            let mut stretches = self.splices.lock();
            let Some(stretch) = stretches.front_mut() else {
                return Poll::Ready(Err(io::Error::other("a place stands for nothing")));
            };
            let sent = loop {
                ready!(self.stream.poll_write_ready(context))?;
                let Some(part) = stretch.blob.stretch_at(stretch.position)? else {
                    return stretch.failed(io::ErrorKind::UnexpectedEof.into());
                };
                let in_file = usize::try_from(part.left).unwrap_or(usize::MAX);
                let count = most.min(stretch.left).min(in_file);
                let mut offset = part.offset;
                let send = || {
                    rustix::fs::sendfile(&self.stream, part.file, Some(&mut offset), count)
                        .map_err(io::Error::from)
                };
                match self.stream.try_io(Interest::WRITABLE, send) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if is_of_the_disk(&error) => return stretch.failed(error),
                    result => break result?,
                }
            };
            if sent == 0 {
                return stretch.failed(io::ErrorKind::UnexpectedEof.into());
            }
            stretch.position += sent as u64;
            stretch.left -= sent;
            if stretch.left > 0 {
                return Poll::Ready(Ok(sent));
            }
            let more = stretch.more;
            stretches.pop_front();
            drop(stretches);
            if !more {
                self.cork(false);
            }
            Poll::Ready(Ok(sent))
        }

        /// Makes sure that no copy of a place is among bytes that are to be sent as they are.
        fn check(&self, slices: &[IoSlice<'_>]) -> io::Result<()> {
            let copied = |slice: &IoSlice<'_>| {
                slice.windows(TELLING).step_by(TELLING / 2).any(|part| part.iter().all(|b| *b == PATTERN))
            };
            if !self.splices.lock().is_empty() && slices.iter().any(copied) {
                return Err(io::Error::other("a place was copied"));
            }
            Ok(())
        }
    }

    impl AsyncRead for Splicing {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_read(context, buffer)
        }
    }

    impl AsyncWrite for Splicing {
        fn poll_write(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(context, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let first = slices.iter().position(|slice| !slice.is_empty()).unwrap_or(slices.len());
            let slices = &slices[first..];
            match slices.first() {
                Some(place) if is_place(place) => self.poll_splice(context, place.len()),
                _ => {
                    let end = slices.iter().position(|slice| is_place(slice)).unwrap_or(slices.len());
                    self.check(&slices[..end])?;
                    Pin::new(&mut self.stream).poll_write_vectored(context, &slices[..end])
                }
            }
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_flush(context)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_shutdown(context)
        }
    }

    #[cfg(test)]
    mod tests {
        use std::io::Write as _;

        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        use tokio::net::TcpListener;

        use super::*;
        use crate::file::Span;

        async fn pair() -> (Splicing, Splices, TcpStream) {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (splicing, splices) = plain(listener.accept().await.unwrap().0);
            (splicing, splices.unwrap(), client)
        }

        /// A file with `bytes` behind others.
        fn span(bytes: &[u8]) -> Span {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(b"before").unwrap();
            file.write_all(bytes).unwrap();
            Span::new(Arc::new(file), 6, bytes.len() as u64)
        }

        fn blob(bytes: &[u8]) -> Blob {
            Blob::new(span(bytes))
        }

        #[tokio::test]
        async fn places_are_filled_in_their_order() {
            let (mut server, splices, mut client) = pair().await;
            let bytes: Vec<u8> = (0..5_000_000u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
            // The middle of the second place lies in another file.
            let (first, second) = bytes.split_at(3_000_001);
            let blob = Blob::new(Span::join([span(first), span(second)]));
            let sender = tokio::spawn(async move {
                server.write_all(b"head ").await.unwrap();
                let mut position = 0;
                while position < blob.size() {
                    let place = splices.push(&blob, position, blob.size() - position);
                    position += place.len() as u64;
                    server.write_all(&place).await.unwrap();
                    assert_eq!(server.corked, position < blob.size(), "only the last packet may be small");
                }
                server.write_all(b" tail").await.unwrap();
            });
            let mut received = Vec::new();
            client.read_to_end(&mut received).await.unwrap();
            sender.await.unwrap();
            assert!(received == [b"head ", &bytes[..], b" tail"].concat());
        }

        #[tokio::test]
        async fn a_copied_place_does_not_leave() {
            let (mut server, splices, _client) = pair().await;
            let place = splices.push(&blob(&[1; 5000]), 0, 5000);
            let copied = [b"HTTP/1.1 200 OK\r\n\r\n", &place.to_vec()[..]].concat();
            assert!(server.write_all(&copied).await.unwrap_err().to_string().contains("copied"));
        }

        #[tokio::test]
        async fn a_file_that_was_cut_short_breaks_the_connection_off() {
            let (mut server, splices, _client) = pair().await;
            let file = Arc::new(tempfile::tempfile().unwrap());
            file.set_len(5000).unwrap();
            let place = splices.push(&Blob::in_file(Arc::clone(&file), 0, 5000), 0, 5000);
            file.set_len(10).unwrap();
            assert_eq!(server.write_all(&place).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    use bytes::Bytes;
    use tokio::net::TcpStream;

    use crate::store::Blob;

    /// There is no splicing here, so there never is a value of this.
    #[derive(Clone, Debug)]
    pub(in super::super) enum Splices {}

    impl Splices {
        pub(in super::super) fn push(&self, _blob: &Blob, _position: u64, _most: u64) -> Bytes {
            match *self {}
        }
    }

    pub(in super::super) fn plain(stream: TcpStream) -> (TcpStream, Option<Splices>) {
        (stream, None)
    }
}
