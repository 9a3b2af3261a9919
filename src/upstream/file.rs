//! Plain files from web servers: how large they are, and their bytes.
//!
//! Files are public downloads: no credentials are sent for them, and what they hold is checked by whoever reads them
//! against the digest that the definition states.

use std::sync::Arc;

use http::StatusCode;
use http::header::CONTENT_RANGE;
use reqwest::Response;
use url::Url;

use super::blob::{BlobStream, Reader, parse_content_range};
use super::error::{Missing, Problem, UpstreamError};
use super::request::{Ask, Opened, Part, Subject};
use super::retry::{Again, Backoff, Failure};
use super::{Shared, Upstream, body};

impl Upstream {
    /// The size of the file at `url` in bytes, as its server states it.
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

    /// Asks for the headers, and where that does not tell the size, for the first byte: some servers refuse `HEAD`, and
    /// storage behind redirects may allow just what its signature is for.
    async fn file_size(&self, url: &Url) -> Result<u64, Failure> {
        let ask = |part| Ask { url: url.clone(), accept: "*/*", part };
        match self.open_file(&ask(Part::Nothing)).await {
            Ok(opened) => {
                if let Some(size) = body::stated_length(&opened.response) {
                    return Ok(size);
                }
            }
            Err(failure) if failure.again == Again::Never => {}
            Err(failure) => return Err(failure),
        }
        let opened = self.open_file(&ask(Part::First)).await?;
        whole_size(&opened.response).ok_or_else(|| {
            let text = "it does not say how large the file is; read the file from a mirror that does";
            Failure::final_(Problem::Answer(text.into()))
        })
    }
}

/// The size of the whole file, of which the answer holds the first byte or all.
fn whole_size(response: &Response) -> Option<u64> {
    if response.status() == StatusCode::PARTIAL_CONTENT {
        parse_content_range(response.headers().get(CONTENT_RANGE)?.to_str().ok()?)?.1
    } else {
        body::stated_length(response)
    }
}
