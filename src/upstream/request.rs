//! One request to a registry: who it is sent as, what its answer means, and when it is sent again.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, RANGE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use reqwest::Response;
use tokio::sync::OwnedSemaphorePermit;
use url::Url;

use super::body::{self, Detail};
use super::challenge::{self, Challenge};
use super::endpoint::{Endpoint, authority};
use super::error::{Missing, Problem, UpstreamError};
use super::redirect::{self, MAX_REDIRECTS};
use super::retry::{Again, Backoff, Failure, classify};
use super::{Shared, Upstream};

/// How long the body of a manifest or a list may take as a whole. Blobs have no such limit, only one on silence.
const DOCUMENT_TIMEOUT: Duration = Duration::from_mins(3);

/// What a request is for: the repository it reads and how errors call it.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) endpoint: Endpoint,
    pub(super) what: String,
    /// What a 404 means here.
    pub(super) missing: Missing,
    /// Whether it is pushed there and not read from there.
    pub(super) pushed: bool,
}

impl Subject {
    /// The error that `problem` with this request is.
    pub(super) fn error(&self, problem: impl Into<Problem>) -> UpstreamError {
        let (what, host) = (&self.what, self.endpoint.describe());
        if self.pushed {
            UpstreamError::push(what, host, problem.into())
        } else {
            UpstreamError::read(what, host, problem.into())
        }
    }
}

/// What to ask for.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) url: Url,
    /// The media types that are understood, as an `Accept` header.
    pub(super) accept: &'static str,
    /// How much of the answer is wanted.
    pub(super) part: Part,
    /// Whether the request is dropped when the server limits the rate of requests, instead of being sent again later.
    pub(super) spare: bool,
}

/// How much of an answer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Everything from this byte on.
    From(u64),
    /// One byte; the answer says how many there are.
    First,
    /// The headers.
    Nothing,
}

impl Ask {
    pub(super) fn new(url: Url, accept: &'static str) -> Self {
        Self { url, accept, part: Part::From(0), spare: false }
    }

    fn is_answered_by(&self, status: StatusCode) -> bool {
        status == StatusCode::OK || (status == StatusCode::PARTIAL_CONTENT && self.range().is_some())
    }

    fn method(&self) -> Method {
        if self.part == Part::Nothing { Method::HEAD } else { Method::GET }
    }

    fn range(&self) -> Option<String> {
        match self.part {
            Part::From(0) | Part::Nothing => None,
            Part::From(first) => Some(format!("bytes={first}-")),
            Part::First => Some("bytes=0-0".to_owned()),
        }
    }
}

/// A manifest or a list with its headers.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// An answer whose body is still to be read, and the right to read it.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) response: Response,
    /// Counts against the host's limit until the body is read or dropped.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Upstream {
    /// Where the repository `name` is read from, and how errors call what is read.
    pub(super) fn subject(
        &self,
        name: &crate::oci::RepositoryName,
        what: String,
        missing: Missing,
    ) -> Result<Subject, UpstreamError> {
        let endpoint = self.shared.endpoints.locate(name).map_err(super::error::SetupError::from)?;
        Ok(Subject { endpoint, what, missing, pushed: false })
    }

    /// Gets a document of at most `limit` bytes, with as many tries as the policy allows.
    pub(super) async fn page(
        &self,
        subject: &Subject,
        ask: &Ask,
        limit: usize,
    ) -> Result<Page, UpstreamError> {
        let mut backoff = Backoff::new(self.shared.retry);
        loop {
            match self.page_once(subject, ask, limit).await {
                Ok(page) => return Ok(page),
                Err(failure) if ask.spare && matches!(failure.problem, Problem::RateLimited { .. }) => {
                    return Err(subject.error(failure.problem));
                }
                Err(failure) => self.shared.wait(&mut backoff, failure, subject).await?,
            }
        }
    }

    async fn page_once(&self, subject: &Subject, ask: &Ask, limit: usize) -> Result<Page, Failure> {
        let opened = self.shared.open(subject, ask).await?;
        let headers = opened.response.headers().clone();
        let body = tokio::time::timeout(DOCUMENT_TIMEOUT, body::bounded(opened.response, limit)).await;
        let body = body.unwrap_or_else(|_| Err(Failure::passing(Problem::TimedOut)))?;
        // Some servers name a coding that the body is not in. Documents are JSON.
        let is_json = matches!(body.trim_ascii_start().first(), Some(b'{' | b'['));
        match body::coding(&headers) {
            Some(coding) if !is_json => Err(Failure::final_(Problem::Encoded(coding))),
            _ => Ok(Page { headers, body }),
        }
    }
}

impl Shared {
    /// Waits before another try, or gives the error when there is none.
    pub(super) async fn wait(
        &self,
        backoff: &mut Backoff,
        failure: Failure,
        subject: &Subject,
    ) -> Result<(), UpstreamError> {
        let again = failure.again;
        let pause = backoff.pause(failure).map_err(|problem| subject.error(problem))?;
        if let Again::After(wait) = again {
            // What the host asked for holds for every request to it.
            self.hosts.get(&subject.endpoint.origin()).quiet(wait);
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Sends a request and checks the status of the answer.
    pub(super) async fn open(&self, subject: &Subject, ask: &Ask) -> Result<Opened, Failure> {
        let endpoint = &subject.endpoint;
        let permit = self.hosts.get(&endpoint.origin()).enter().await;
        let sent = self.auth.known(endpoint).await?;
        let mut response = self.send(ask, sent.as_ref()).await?;
        // A challenge that came by way of a redirect is some other server's, which gets no credentials.
        if response.status() == StatusCode::UNAUTHORIZED && endpoint.is_at(response.url()) {
            let challenges = challenges(&response);
            let proof = self.auth.answer(endpoint, challenges, sent.as_ref()).await?;
            response = self.send(ask, Some(&proof)).await?;
        }
        let host = self.hosts.get(&endpoint.origin());
        if let Some(requests) = remaining(response.headers()).filter(|_| endpoint.is_at(response.url())) {
            host.note_remaining(requests);
        }
        if ask.is_answered_by(response.status()) {
            return Ok(Opened { response, _permit: permit });
        }
        let failure = self.refused(subject, response).await;
        if matches!(failure.problem, Problem::RateLimited { .. }) {
            host.note_remaining(0);
        }
        Err(failure)
    }

    /// Sends a request without credentials to a server that is not the registry.
    pub(super) async fn open_elsewhere(&self, ask: &Ask) -> Result<Opened, Failure> {
        let permit = self.hosts.get(&ask.url.origin().ascii_serialization()).enter().await;
        let response = self.send(ask, None).await?;
        if ask.is_answered_by(response.status()) {
            Ok(Opened { response, _permit: permit })
        } else {
            Err(body::failure(response).await)
        }
    }

    /// Sends a request and follows redirects. `authorization` stays behind on the way to another server.
    async fn send(&self, ask: &Ask, mut authorization: Option<&HeaderValue>) -> Result<Response, Failure> {
        let mut url = ask.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let method = ask.method();
            let request = self.client.to(&url).request(method.clone(), url.clone());
            // Without it a server may choose any coding (RFC 9110, section 12.5.3).
            let mut request = request.header(ACCEPT, ask.accept).header(ACCEPT_ENCODING, "identity");
            if let Some(authorization) = authorization {
                request = request.header(AUTHORIZATION, authorization);
            }
            if let Some(range) = ask.range() {
                request = request.header(RANGE, range);
            }
            let response = request.send().await.map_err(|error| classify(&error, &url))?;
            // The query stays out of the log: it may be a signature.
            tracing::debug!("{method} {}{} -> {}", authority(&url), url.path(), response.status());
            let Some(next) = redirect::target(&url, &response).map_err(Failure::final_)? else {
                return Ok(response);
            };
            authorization = authorization.filter(|_| next.origin() == url.origin());
            url = next;
        }
        let problem = format!("more than {MAX_REDIRECTS} times, at last to {}", authority(&url));
        Err(Failure::final_(Problem::Redirect(problem)))
    }

    /// The failure that an error status means.
    pub(super) async fn refused(&self, subject: &Subject, response: Response) -> Failure {
        match response.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let by = authority(response.url());
                let Detail { code, text } = body::detail(response).await;
                if code == "TOOMANYREQUESTS" {
                    return Failure::passing(Problem::RateLimited { wait: None });
                }
                self.auth.refusal(&subject.endpoint, Some(&by), text)
            }
            StatusCode::NOT_FOUND => {
                let detail = body::detail(response).await;
                let missing =
                    if detail.code == "NAME_UNKNOWN" { Missing::Repository } else { subject.missing };
                Failure::final_(Problem::Missing(missing))
            }
            _ => body::failure(response).await,
        }
    }
}

/// How many requests a server still lets through: `ratelimit-remaining: 76;w=21600`, as Docker Hub has it for pulls, with
/// or without the window in seconds.
///
/// Source: Docker's documentation, "Docker Hub pull usage and limits"; draft-ietf-httpapi-ratelimit-headers-03.
fn remaining(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get("ratelimit-remaining")?.to_str().ok()?;
    value.split([';', ',']).next()?.trim().parse().ok()
}

/// What a server wants to know of who asks.
pub(super) fn challenges(response: &Response) -> Vec<Challenge> {
    let values = response.headers().get_all(WWW_AUTHENTICATE).iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(challenge::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remaining_requests_are_read_as_registries_write_them() {
        for (value, expected) in [
            ("76;w=21600", Some(76)),
            ("0;w=21600", Some(0)),
            (" 599 ", Some(599)),
            ("12, 100;w=60", Some(12)),
            ("-1", None),
            ("many", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("RateLimit-Remaining", HeaderValue::from_static(value));
            assert_eq!(remaining(&headers), expected, "{value}");
        }
        assert_eq!(remaining(&HeaderMap::new()), None);
    }
}
