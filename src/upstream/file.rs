//! Plain files from web servers: how large they are, and their bytes.
//!
//! Files are public downloads: no credentials are sent for them, and what they hold is checked by whoever reads them
//! against the digest that the definition states.

use std::sync::Arc;

use http::StatusCode;
use reqwest::Response;
use url::Url;

use super::blob::{BlobStream, Reader, whole_size};
use super::error::{Missing, Problem, UpstreamError};
use super::request::{Ask, Opened, Part, Subject};
use super::retry::{Again, Backoff, Failure, classify};
use super::{Shared, Upstream, body};

/// The largest file whose bytes are counted because its server does not state its size, in bytes.
const MAX_COUNTED: u64 = 4 << 30;

impl Upstream {
    /// The size of the file at `url` in bytes, as its server states it, or else as counted.
    pub async fn file_size(&self, url: &Url) -> Result<u64, UpstreamError> {
        let (subject, at) = self.file_subject(url);
        let mut backoff = Backoff::new(self.shared.retry);
        loop {
            match self.shared.file_size(&at).await {
                Ok(size) => return Ok(size),
                Err(failure) => self.shared.wait(&mut backoff, failure, &subject).await?,
            }
        }
    }

    /// The bytes of the file at `url` from `offset` to its end, `size` bytes with those before `offset`.
    ///
    /// They are not verified: who writes them hashes them.
    pub async fn file(&self, url: &Url, size: u64, offset: u64) -> Result<BlobStream, UpstreamError> {
        let (subject, at) = self.file_subject(url);
        Reader::file(Arc::clone(&self.shared), subject, at, size, offset).stream().await
    }

    /// How errors call the file at `url`, and where it is read from.
    fn file_subject(&self, url: &Url) -> (Subject, Url) {
        let (endpoint, at) = self.shared.endpoints.locate_file(url);
        // The query may be a signature.
        let mut shown = url.clone();
        shown.set_query(None);
        (Subject { endpoint, what: shown.into(), missing: Missing::File, pushed: false }, at)
    }
}

impl Shared {
    /// Asks for a file, without credentials.
    pub(super) async fn open_file(&self, ask: &Ask) -> Result<Opened, Failure> {
        self.open_elsewhere(ask).await.map_err(|failure| match failure.problem {
            Problem::Status { status: 404 | 410, .. } => Failure::final_(Problem::Missing(Missing::File)),
            _ => failure,
        })
    }

    /// Returns the size of the file at `url`.
    ///
    /// Asks for the headers, and if that does not tell the size, for the first byte: some servers refuse `HEAD`, and
    /// storage behind redirects may allow just what its signature is for. A server that states no size at all, as for
    /// archives that it makes on request, has to send the file, which is read once and counted.
    async fn file_size(&self, url: &Url) -> Result<u64, Failure> {
        let ask = |part| Ask { url: url.clone(), accept: "*/*", part, spare: false };
        match self.open_file(&ask(Part::Nothing)).await {
            // The length of a coded body is not the file's.
            Ok(opened) if body::coding(opened.response.headers()).is_none() => {
                if let Some(size) = body::stated_length(&opened.response) {
                    return Ok(size);
                }
            }
            Ok(_) => {}
            Err(failure) if failure.again == Again::Never => {}
            Err(failure) => return Err(failure),
        }
        let first = self.open_file(&ask(Part::First)).await?;
        let coding = body::coding(first.response.headers());
        match (whole_size(&first.response), coding) {
            (Some(size), _) => Ok(size),
            (None, Some(coding)) => Err(Failure::final_(Problem::Encoded(coding))),
            (None, None) if first.response.status() == StatusCode::OK => count(first.response).await,
            (None, None) => {
                drop(first);
                count(self.open_file(&ask(Part::From(0))).await?.response).await
            }
        }
    }
}

/// Reads a body to its end and returns how many bytes it has, at most [`MAX_COUNTED`].
async fn count(mut response: Response) -> Result<u64, Failure> {
    let mut size = 0;
    let url = response.url().clone();
    while let Some(chunk) = response.chunk().await.map_err(|error| classify(&error, &url))? {
        size += chunk.len() as u64;
        if size > MAX_COUNTED {
            return Err(Failure::final_(Problem::TooLarge { limit: MAX_COUNTED }));
        }
    }
    Ok(size)
}
