//! Pushing into registries: blobs in pieces that go on where the connection broke, manifests, tags.
//!
//! A blob goes up as clients of Docker's registry send it: a session is opened, one request carries all the bytes, another
//! one closes it. Only after a failure is the session asked how much has arrived, and the rest sent as a piece.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use http::{Method, StatusCode};
use reqwest::{Body, RequestBuilder, Response};
use url::Url;

use super::client::Client;
use super::error::{Missing, Problem, UpstreamError};
use super::request::{Ask, Part, Subject, challenges};
use super::retry::{Backoff, Failure, classify};
use super::{Fetched, Options, Upstream};
use crate::oci::{Descriptor, Digest, Reference, RepositoryName, Tag};

/// How much of a blob is read and handed over at once.
const PIECE: usize = 512 * 1024;
/// How often a request is looked at for whether anything moves.
const LOOK: Duration = Duration::from_secs(1);

/// What a blob is read from: fills the buffer from a position on, and says how far. It may block.
pub type ReadAt = Arc<dyn Fn(&mut [u8], u64) -> io::Result<usize> + Send + Sync>;

/// Pushes into registries.
#[derive(Clone, Debug)]
pub struct Pusher {
    upstream: Upstream,
    /// A client that does not give up on an answer while a body is being sent.
    client: Arc<Client>,
    idle: Duration,
}

/// What a registry says to a manifest that it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Whether it lists the manifest as a referrer of its subject.
    pub lists_referrer: bool,
}

impl Pusher {
    /// A pusher with these options; nothing is sent yet.
    pub fn new(options: Options) -> Result<Self, UpstreamError> {
        let idle = options.timeouts.idle;
        let client = Arc::new(Client::patient(options.timeouts, &options.ca_files)?);
        Ok(Self { upstream: Upstream::new(options)?, client, idle })
    }

    /// Whether the repository `name` has the blob, with its size.
    pub async fn has_blob(&self, name: &RepositoryName, blob: &Descriptor) -> Result<bool, UpstreamError> {
        let subject = self.blob_subject(name, &blob.digest)?;
        let url = subject.endpoint.url(&format!("blobs/{}", blob.digest));
        let ask = Ask { url, accept: "*/*", part: Part::Nothing, spare: false };
        let found = self
            .again(&subject, async || match self.upstream.shared.open(&subject, &ask).await {
                Ok(opened) => Ok(super::body::stated_length(&opened.response)),
                Err(failure) if matches!(failure.problem, Problem::Missing(_)) => Ok(None),
                Err(failure) => Err(failure),
            })
            .await?;
        Ok(found == Some(blob.size))
    }

    /// Brings a blob into the repository `name`: taken over from the repository `from` of the same registry where that is
    /// possible, or read with `read`. `progress` is told of bytes as they leave for the first time.
    pub async fn push_blob(
        &self,
        name: &RepositoryName,
        blob: &Descriptor,
        from: Option<&RepositoryName>,
        read: &ReadAt,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), UpstreamError> {
        let subject = self.blob_subject(name, &blob.digest)?;
        let mut backoff = Backoff::new(self.upstream.shared.retry);
        let upload = Upload {
            pusher: self,
            subject: &subject,
            blob,
            read,
            sent: Arc::default(),
            progress,
            told: AtomicU64::new(0),
        };
        let mut session = None;
        loop {
            let before = upload.told.load(Ordering::Relaxed);
            let pushed = upload.go_on(&mut session, from).await;
            upload.tell();
            match pushed {
                Ok(()) => {
                    progress(blob.size - upload.told.into_inner());
                    return Ok(());
                }
                Err(failure) => {
                    if upload.told.load(Ordering::Relaxed) > before {
                        // Earlier failures are forgotten when something got done.
                        backoff.reset();
                    }
                    self.upstream.shared.wait(&mut backoff, failure, &subject).await?;
                }
            }
        }
    }

    /// Puts the manifest `bytes` into the repository `name`, under `tag` or else under its digest.
    pub async fn push_manifest(
        &self,
        name: &RepositoryName,
        manifest: &Descriptor,
        tag: Option<&Tag>,
        bytes: &Bytes,
    ) -> Result<Accepted, UpstreamError> {
        let reference = tag.map_or_else(|| manifest.digest.to_string(), ToString::to_string);
        let what = tag.map_or_else(|| format!("{name}@{reference}"), |tag| format!("{name}:{tag}"));
        let subject = self.subject(name, what, Missing::Manifest)?;
        let url = subject.endpoint.url(&format!("manifests/{reference}"));
        let media_type = manifest.media_type.as_str();
        let answer = self
            .again(&subject, async || {
                let request = |client: &reqwest::Client| {
                    client.put(url.clone()).header(CONTENT_TYPE, media_type).body(bytes.clone())
                };
                self.exchange(&subject, &url, &request, &[StatusCode::CREATED]).await
            })
            .await?;
        Ok(Accepted { lists_referrer: answer.headers().contains_key("oci-subject") })
    }

    /// Reads back what a tag or a digest means at the registry, verified.
    pub async fn read_back(&self, reference: &Reference) -> Result<Fetched, UpstreamError> {
        self.upstream.manifest(reference).await
    }

    fn blob_subject(&self, name: &RepositoryName, digest: &Digest) -> Result<Subject, UpstreamError> {
        self.subject(name, format!("blob {digest} of {name}"), Missing::Blob)
    }

    fn subject(
        &self,
        name: &RepositoryName,
        what: String,
        missing: Missing,
    ) -> Result<Subject, UpstreamError> {
        Ok(Subject { pushed: true, ..self.upstream.subject(name, what, missing)? })
    }

    /// Tries as often as the policy allows.
    async fn again<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        subject: &Subject,
        attempt: impl Fn() -> F,
    ) -> Result<T, UpstreamError> {
        let mut backoff = Backoff::new(self.upstream.shared.retry);
        loop {
            match attempt().await {
                Ok(done) => return Ok(done),
                Err(failure) => self.upstream.shared.wait(&mut backoff, failure, subject).await?,
            }
        }
    }

    /// Sends the request that `make` makes, with proof of identity where the registry wants one.
    async fn exchange(
        &self,
        subject: &Subject,
        url: &Url,
        make: &(dyn Fn(&reqwest::Client) -> RequestBuilder + Sync),
        expected: &[StatusCode],
    ) -> Result<Response, Failure> {
        let (shared, endpoint) = (&self.upstream.shared, &subject.endpoint);
        let _permit = shared.hosts.get(&endpoint.origin()).enter().await;
        let known = if endpoint.is_at(url) { shared.auth.known(endpoint).await? } else { None };
        let send = async |authorization: Option<&http::HeaderValue>| {
            let mut request = make(self.client.to(url));
            if let Some(authorization) = authorization {
                request = request.header(AUTHORIZATION, authorization);
            }
            let response = request.send().await.map_err(|error| classify(&error, url))?;
            tracing::debug!("{} {} -> {}", endpoint.server(), url.path(), response.status());
            Ok::<_, Failure>(response)
        };
        let mut response = send(known.as_ref()).await?;
        if response.status() == StatusCode::UNAUTHORIZED && endpoint.is_at(response.url()) {
            let proof = shared.auth.answer(endpoint, challenges(&response), known.as_ref()).await?;
            response = send(Some(&proof)).await?;
        }
        if expected.contains(&response.status()) {
            Ok(response)
        } else {
            Err(shared.refused(subject, response).await)
        }
    }
}

/// One blob on its way up.
struct Upload<'a> {
    pusher: &'a Pusher,
    subject: &'a Subject,
    blob: &'a Descriptor,
    read: &'a ReadAt,
    /// How far into the blob bytes were handed to the connection.
    sent: Arc<AtomicU64>,
    progress: &'a (dyn Fn(u64) + Send + Sync),
    /// How many bytes `progress` was told of.
    told: AtomicU64,
}

impl Upload<'_> {
    /// Tells of the bytes that left for the first time since this was called the last time.
    fn tell(&self) {
        let sent = self.sent.load(Ordering::Relaxed);
        let told = self.told.fetch_max(sent, Ordering::Relaxed);
        if sent > told {
            (self.progress)(sent - told);
        }
    }

    /// Opens a session or goes on with the one that there is, and ends with the blob in its place.
    async fn go_on(&self, session: &mut Option<Url>, from: Option<&RepositoryName>) -> Result<(), Failure> {
        let arrived = match session.take() {
            Some(url) => self.arrived(&url).await?,
            None => None,
        };
        let (url, arrived) = match arrived {
            Some(found) => found,
            None => match self.begin(from).await? {
                Some(url) => (url, 0),
                None => return Ok(()),
            },
        };
        *session = Some(url.clone());
        let url = if arrived < self.blob.size || self.blob.size == 0 {
            self.send(&url, arrived).await?
        } else {
            url
        };
        *session = Some(url.clone());
        let closed = self.close(url).await;
        if closed.is_err() {
            // Whether it was closed or what was wrong with it cannot be told; the next try begins anew.
            *session = None;
        }
        closed
    }

    /// Opens a session; none when the blob was taken over from the repository `from`.
    async fn begin(&self, from: Option<&RepositoryName>) -> Result<Option<Url>, Failure> {
        let mut url = self.subject.endpoint.url("blobs/uploads/");
        if let Some(from) = from {
            let from = self.pusher.upstream.shared.endpoints.locate(from);
            if let Ok(from) = from {
                url.query_pairs_mut()
                    .append_pair("mount", &self.blob.digest.to_string())
                    .append_pair("from", from.repository());
            }
        }
        let expected = [StatusCode::ACCEPTED, StatusCode::CREATED];
        let answer = self.exchange(Method::POST, &url, |request| request, &expected).await?;
        if answer.status() == StatusCode::CREATED {
            return Ok(None);
        }
        location(&url, &answer).map(Some)
    }

    /// How much of the blob a session has, and where it goes on; none when there is no such session any more.
    async fn arrived(&self, url: &Url) -> Result<Option<(Url, u64)>, Failure> {
        let expected = [StatusCode::NO_CONTENT, StatusCode::ACCEPTED];
        let answer = match self.exchange(Method::GET, url, |request| request, &expected).await {
            Err(Failure { problem: Problem::Missing(_) | Problem::Status { .. }, .. }) => return Ok(None),
            other => other?,
        };
        let range = answer.headers().get(RANGE).and_then(|range| range.to_str().ok());
        let arrived = match range.and_then(last_of) {
            // `0-0` stands for nothing as well as for one byte; whoever takes it for nothing is refused or begins anew.
            None | Some(0) => return Ok(None),
            Some(last) => last + 1,
        };
        if arrived > self.blob.size {
            return Ok(None);
        }
        Ok(Some((location(url, &answer).unwrap_or_else(|_| url.clone()), arrived)))
    }

    /// Sends everything from `first` on, and says where the session is closed.
    async fn send(&self, url: &Url, first: u64) -> Result<Url, Failure> {
        let size = self.blob.size;
        self.sent.store(first, Ordering::Relaxed);
        let request = |request: RequestBuilder| {
            let request = request
                .header(CONTENT_TYPE, "application/octet-stream")
                .header(CONTENT_LENGTH, size - first)
                .body(self.body(first));
            if first == 0 { request } else { request.header(CONTENT_RANGE, format!("{first}-{}", size - 1)) }
        };
        let expected = [StatusCode::ACCEPTED, StatusCode::NO_CONTENT, StatusCode::CREATED];
        let mut sending = std::pin::pin!(self.exchange(Method::PATCH, url, request, &expected));
        let mut before = first;
        let mut still = Duration::ZERO;
        loop {
            if let Ok(answer) = tokio::time::timeout(LOOK, &mut sending).await {
                return location(url, &answer?);
            }
            self.tell();
            let now = self.sent.load(Ordering::Relaxed);
            still = if now == before { still + LOOK } else { Duration::ZERO };
            before = now;
            if still >= self.pusher.idle {
                return Err(Failure::passing(Problem::TimedOut));
            }
        }
    }

    async fn close(&self, mut url: Url) -> Result<(), Failure> {
        url.query_pairs_mut().append_pair("digest", &self.blob.digest.to_string());
        let request = |request: RequestBuilder| request.header(CONTENT_LENGTH, 0);
        let expected = [StatusCode::CREATED, StatusCode::NO_CONTENT];
        self.exchange(Method::PUT, &url, request, &expected).await.map(drop)
    }

    async fn exchange(
        &self,
        method: Method,
        url: &Url,
        finish: impl Fn(RequestBuilder) -> RequestBuilder + Sync,
        expected: &[StatusCode],
    ) -> Result<Response, Failure> {
        let make = |client: &reqwest::Client| finish(client.request(method.clone(), url.clone()));
        self.pusher.exchange(self.subject, url, &make, expected).await
    }

    /// The bytes from `first` on, read on threads that may wait for the disk.
    fn body(&self, first: u64) -> Body {
        let (read, sent, size) = (Arc::clone(self.read), Arc::clone(&self.sent), self.blob.size);
        Body::wrap_stream(stream::try_unfold(first, move |position| {
            let read = Arc::clone(&read);
            // Whoever asks for more has passed on what there was.
            sent.store(position, Ordering::Relaxed);
            async move {
                if position == size {
                    return Ok::<_, io::Error>(None);
                }
                let length = usize::try_from(size - position).map_or(PIECE, |left| left.min(PIECE));
                let piece = tokio::task::spawn_blocking(move || {
                    let mut piece = vec![0; length];
                    let count = read(&mut piece, position)?;
                    piece.truncate(count);
                    Ok::<_, io::Error>(piece)
                });
                let piece = piece.await.map_err(io::Error::other)??;
                if piece.is_empty() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let next = position + piece.len() as u64;
                Ok(Some((Bytes::from(piece), next)))
            }
        }))
    }
}

/// Where an answer says that a session goes on. It stays encrypted where it was.
fn location(url: &Url, answer: &Response) -> Result<Url, Failure> {
    let text = answer.headers().get(LOCATION).and_then(|location| location.to_str().ok());
    let next = text.and_then(|text| url.join(text).ok());
    let is_safe = |next: &Url| next.scheme() == "https" || next.scheme() == url.scheme();
    next.filter(|next| is_safe(next) && next.host().is_some()).ok_or_else(|| {
        Failure::final_(Problem::Answer("an upload has no address, or one that is not safe".into()))
    })
}

/// The last byte of a range, `0-1023`, as sessions state it.
fn last_of(range: &str) -> Option<u64> {
    let range = range.trim().strip_prefix("bytes=").unwrap_or(range.trim());
    let (first, last) = range.split_once('-')?;
    (first == "0").then(|| last.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_much_has_arrived() {
        for (range, last) in [
            ("0-1023", Some(1023)),
            ("bytes=0-9", Some(9)),
            ("0-0", Some(0)),
            ("5-9", None),
            ("0-", None),
            ("", None),
            ("0--1", None),
        ] {
            assert_eq!(last_of(range), last, "{range}");
        }
    }
}
