//! Reading blobs: streamed, resumed where the connection breaks, never more bytes than the descriptor says.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream, StreamExt as _};
use http::StatusCode;
use http::header::CONTENT_RANGE;
use reqwest::Response;
use url::Url;

use super::endpoint::authority;
use super::error::{Missing, Problem, UpstreamError};
use super::request::{Ask, Opened, Part, Subject};
use super::retry::{Backoff, Failure, classify};
use super::{Shared, Upstream, body};
use crate::oci::{Descriptor, Digest, Hasher, RepositoryName};

/// The largest blob that is read into memory, in bytes: configurations and signatures, not layers.
pub const MAX_SMALL_BLOB: u64 = 4 * 1024 * 1024;
/// How much must arrive on a connection for earlier failures to be forgotten, in bytes. Without it, a server that
/// sends a byte and hangs up would be asked for ever.
const PROGRESS: u64 = 64 * 1024;
/// The most addresses outside of the registry that are tried for one foreign layer.
const MAX_URLS: usize = 4;

type Chunk = Result<Bytes, UpstreamError>;

/// The bytes of a blob from an offset to its end. After an error the stream is over.
///
/// While it lives it counts against the limit of requests to its host, so a task that reads a blob must not wait for
/// another answer from the same host before it reads on.
pub struct BlobStream(Pin<Box<dyn Stream<Item = Chunk> + Send>>);

impl Stream for BlobStream {
    type Item = Chunk;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Chunk>> {
        self.0.as_mut().poll_next(context)
    }
}

impl std::fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlobStream")
    }
}

impl Upstream {
    /// The bytes of `blob` from `offset` to its end, exactly as many as the descriptor says.
    ///
    /// They are not verified: who writes them hashes them, also the part before `offset` that is there already. Foreign
    /// layers that the registry does not have are read from the descriptor's `urls`, over https and without credentials.
    pub async fn blob(
        &self,
        name: &RepositoryName,
        blob: &Descriptor,
        offset: u64,
    ) -> Result<BlobStream, UpstreamError> {
        let subject = self.blob_subject(name, blob)?;
        Reader::blob(Arc::clone(&self.shared), subject, blob, offset).stream().await
    }

    /// All of a blob of at most [`MAX_SMALL_BLOB`] bytes, verified.
    pub async fn small_blob(&self, name: &RepositoryName, blob: &Descriptor) -> Result<Bytes, UpstreamError> {
        let subject = self.blob_subject(name, blob)?;
        if blob.size > MAX_SMALL_BLOB {
            return Err(subject.error(Problem::TooLarge { limit: MAX_SMALL_BLOB }));
        }
        let mut bytes = BytesMut::new();
        let mut hasher = Hasher::new(blob.digest.algorithm());
        let mut chunks = self.blob(name, blob, 0).await?;
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            hasher.update(&chunk);
            bytes.extend_from_slice(&chunk);
        }
        let actual = hasher.finish();
        if actual != blob.digest {
            return Err(subject.error(Problem::Digest { expected: blob.digest.clone(), actual }));
        }
        Ok(bytes.freeze())
    }

    /// The size of a blob in bytes, as the registry states it.
    pub async fn blob_size(&self, name: &RepositoryName, digest: &Digest) -> Result<u64, UpstreamError> {
        let subject = self.subject(name, format!("blob {digest} of {name}"), Missing::Blob)?;
        let url = subject.endpoint.url(&format!("blobs/{digest}"));
        let ask = Ask { url, accept: "*/*", part: Part::Nothing, spare: false };
        let mut backoff = Backoff::new(self.shared.retry);
        loop {
            let failure = match self.shared.open(&subject, &ask).await {
                Ok(opened) => match body::stated_length(&opened.response) {
                    Some(size) => return Ok(size),
                    None => Failure::final_(Problem::Answer("it does not say how large the blob is".into())),
                },
                Err(failure) => failure,
            };
            self.shared.wait(&mut backoff, failure, &subject).await?;
        }
    }

    fn blob_subject(&self, name: &RepositoryName, blob: &Descriptor) -> Result<Subject, UpstreamError> {
        self.subject(name, format!("blob {} of {name}", blob.digest), Missing::Blob)
    }
}

/// Reads one blob or file over as many connections as it takes.
pub(super) struct Reader {
    shared: Arc<Shared>,
    subject: Subject,
    size: u64,
    /// Bytes handed out, counted from the start of the blob.
    position: u64,
    /// The place that is read from.
    place: Place,
    /// Places still to try: the `urls` of a foreign layer.
    more: std::vec::IntoIter<Url>,
    open: Option<Body>,
    backoff: Backoff,
}

/// Where a blob is read from.
enum Place {
    /// The blob's address in its registry.
    Registry(Url),
    /// An address outside of the registry.
    Elsewhere(Url),
    /// The address of a file, which no registry knows of.
    Server(Url),
}

/// An answer that is being read.
struct Body {
    opened: Opened,
    /// Bytes that a server without ranges sends first although they are there already.
    skip: u64,
    /// Bytes handed out of this answer.
    read: u64,
}

impl Reader {
    fn blob(shared: Arc<Shared>, subject: Subject, blob: &Descriptor, offset: u64) -> Self {
        let urls = blob.urls.iter().filter_map(|text| Url::parse(text).ok());
        let urls: Vec<_> = urls.filter(|url| url.scheme() == "https").take(MAX_URLS).collect();
        let place = Place::Registry(subject.endpoint.url(&format!("blobs/{}", blob.digest)));
        Self::new(shared, subject, place, urls, blob.size, offset)
    }

    /// Reads the file of `size` bytes at `url`.
    pub(super) fn file(shared: Arc<Shared>, subject: Subject, url: Url, size: u64, offset: u64) -> Self {
        Self::new(shared, subject, Place::Server(url), Vec::new(), size, offset)
    }

    fn new(
        shared: Arc<Shared>,
        subject: Subject,
        place: Place,
        more: Vec<Url>,
        size: u64,
        offset: u64,
    ) -> Self {
        let backoff = Backoff::new(shared.retry);
        let more = more.into_iter();
        Self { shared, subject, size, position: offset, place, more, open: None, backoff }
    }

    /// The bytes as a stream. The first answer comes before the stream does, so that it is an error of this call when
    /// there is nothing to read.
    pub(super) async fn stream(mut self) -> Result<BlobStream, UpstreamError> {
        self.start().await?;
        let chunks = stream::try_unfold(self, async |mut reader| {
            Ok(reader.chunk().await?.map(|chunk| (chunk, reader)))
        });
        Ok(BlobStream(Box::pin(chunks)))
    }

    /// Opens the first connection; where nothing is left to read, none.
    async fn start(&mut self) -> Result<(), UpstreamError> {
        if self.position > self.size {
            let problem = Problem::Offset { offset: self.position, size: self.size };
            return Err(self.subject.error(problem));
        }
        while self.position < self.size && self.open.is_none() {
            if let Err(failure) = self.connect().await {
                self.after(failure).await?;
            }
        }
        Ok(())
    }

    /// The next bytes; nothing at the end of the blob.
    async fn chunk(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        loop {
            let next = match &mut self.open {
                None if self.position == self.size => return Ok(None),
                None => self.connect().await.map(|()| None),
                Some(body) => body.next(self.size - self.position).await,
            };
            match next {
                Ok(Some(bytes)) => {
                    self.position += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                // Connected, or the answer has been read to its end.
                Ok(None) if self.position == self.size => self.open = None,
                Ok(None) => {}
                Err(failure) => self.after(failure).await?,
            }
        }
    }

    /// Closes the connection and decides how to go on after `failure`.
    async fn after(&mut self, mut failure: Failure) -> Result<(), UpstreamError> {
        if self.open.take().is_some_and(|body| body.read >= PROGRESS) {
            self.backoff.reset();
        }
        let may_move = match &self.place {
            Place::Registry(_) => matches!(failure.problem, Problem::Missing(_)),
            Place::Server(_) => false,
            Place::Elsewhere(url) => {
                failure.problem =
                    Problem::Elsewhere { host: authority(url), problem: Box::new(failure.problem) };
                true
            }
        };
        let waited = self.shared.wait(&mut self.backoff, failure, &self.subject).await;
        if waited.is_err()
            && may_move
            && let Some(url) = self.more.next()
        {
            tracing::info!("reading {} from {}", self.subject.what, authority(&url));
            self.place = Place::Elsewhere(url);
            self.backoff.reset();
            return Ok(());
        }
        waited
    }

    async fn connect(&mut self) -> Result<(), Failure> {
        let ask = |url: &Url| Ask {
            url: url.clone(),
            accept: "*/*",
            part: Part::From(self.position),
            spare: false,
        };
        let opened = match &self.place {
            Place::Registry(url) => self.shared.open(&self.subject, &ask(url)).await?,
            Place::Elsewhere(url) => self.shared.open_elsewhere(&ask(url)).await?,
            Place::Server(url) => self.shared.open_file(&ask(url)).await?,
        };
        let skip = check(&opened.response, self.position, self.size)?;
        self.open = Some(Body { opened, skip, read: 0 });
        Ok(())
    }
}

impl Body {
    /// The next bytes, of which at most `left` are expected; nothing when all have come.
    async fn next(&mut self, left: u64) -> Result<Option<Bytes>, Failure> {
        loop {
            let response = &mut self.opened.response;
            let chunk = match response.chunk().await {
                Ok(chunk) => chunk,
                Err(error) => return Err(classify(&error, response.url())),
            };
            let Some(mut chunk) = chunk else {
                return if left == 0 {
                    Ok(None)
                } else {
                    Err(Failure::passing(Problem::Broken(format!("{left} bytes are missing at the end"))))
                };
            };
            let skipped = self.skip.min(chunk.len() as u64);
            self.skip -= skipped;
            // Lossless: not more than the chunk's length.
            let chunk = chunk.split_off(usize::try_from(skipped).unwrap_or(chunk.len()));
            if chunk.len() as u64 > left {
                return Err(Failure::final_(Problem::TooLarge { limit: self.read + left }));
            }
            if !chunk.is_empty() {
                self.read += chunk.len() as u64;
                return Ok(Some(chunk));
            }
        }
    }
}

/// Checks that an answer is the blob of `size` bytes from `from` on, and says how many bytes to skip.
fn check(response: &Response, from: u64, size: u64) -> Result<u64, Failure> {
    // Some servers name a coding that the body is not in. The size, and later the digest, tell.
    if let Some(coding) = body::coding(response.headers())
        && whole_size(response) != Some(size)
    {
        return Err(Failure::final_(Problem::Encoded(coding)));
    }
    if response.status() == StatusCode::PARTIAL_CONTENT {
        let value = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        return match value.and_then(parse_content_range) {
            Some((_, Some(actual))) if actual != size => {
                Err(Failure::final_(Problem::Size { expected: size, actual }))
            }
            Some((first, _)) if first == from => Ok(0),
            _ => Err(Failure::final_(Problem::Answer(format!(
                "asked for bytes from {from} on, it sent `{}`",
                value.unwrap_or("no Content-Range").chars().take(60).collect::<String>()
            )))),
        };
    }
    match body::stated_length(response) {
        Some(actual) if actual != size => Err(Failure::final_(Problem::Size { expected: size, actual })),
        _ => Ok(from),
    }
}

/// Returns the size of the whole blob or file, of which the answer holds a part or all.
pub(super) fn whole_size(response: &Response) -> Option<u64> {
    if response.status() == StatusCode::PARTIAL_CONTENT {
        parse_content_range(response.headers().get(CONTENT_RANGE)?.to_str().ok()?)?.1
    } else {
        body::stated_length(response)
    }
}

/// Reads `bytes 5-9/10` as the first position and, if stated, the whole length.
fn parse_content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, whole) = value.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let whole = match whole.trim() {
        "*" => None,
        number => Some(number.parse().ok()?),
    };
    (first <= last && whole.is_none_or(|whole| last < whole)).then_some((first, whole))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn content_ranges() {
        for (value, expected) in [
            ("bytes 5-9/10", Some((5, Some(10)))),
            ("bytes 0-0/*", Some((0, None))),
            ("bytes 5-10/10", None),
            ("bytes 9-5/10", None),
            ("bytes */10", None),
            ("bytes=5-9/10", None),
            ("items 5-9/10", None),
            ("bytes 5-9", None),
        ] {
            assert_eq!(parse_content_range(value), expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(value in ".{0,60}") {
            let _ = parse_content_range(&value);
        }

        #[test]
        fn reads_what_servers_write(first in 0..u64::MAX / 2, length in 1..u64::MAX / 4) {
            let last = first + length - 1;
            let value = format!("bytes {first}-{last}/{}", last + 1);
            prop_assert_eq!(parse_content_range(&value), Some((first, Some(last + 1))));
        }
    }
}
