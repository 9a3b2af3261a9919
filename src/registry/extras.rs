//! What a server answers beside images and plain files: things that are made of the content when somebody asks.
//!
//! The registry knows the forms of such answers, and somebody else what they mean.

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use percent_encoding::percent_decode_str;
use serde_json::json;

use crate::oci::{Digest, RepositoryName};
use crate::store::ContentError;

use super::about::text;
use super::body::Body;
use super::composed::Composed;
use super::error::{ApiError, Code};
use super::pull::{ASK_AGAIN, BINARY, deliver};
use super::request::Request;
use super::route::{Service, header_value};

/// Makes answers.
pub trait Extras: Send + Sync + 'static {
    /// Whether a request for `path`, as it was sent, may be meant. Every request is asked about, so this is quick.
    fn may_have(&self, path: &str) -> bool;

    /// The answer to a `GET` or a `HEAD`; none when it is about something else. This may block.
    fn answer(&self, question: &Question<'_>) -> Result<Option<Extra>, ExtraError>;
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The path, decoded.
    pub path: &'a str,
    /// How the client reached the server: `https://registry.site.local:5000`. None when it did not say.
    pub base: Option<&'a str>,
}

/// An answer.
#[derive(Debug)]
pub enum Extra {
    /// What is asked for has another address.
    Elsewhere(String),
    /// A short text.
    Text {
        /// What the text is.
        media_type: &'static str,
        /// The text.
        text: String,
    },
    /// A file.
    File(Composition),
}

/// A file that is put together while it is sent.
#[derive(Clone, Debug)]
pub struct Composition {
    /// Is the same for the same bytes and for no others.
    pub identity: Digest,
    /// Its content, in order.
    pub pieces: Vec<Piece>,
}

/// A part of a file.
#[derive(Clone, Debug)]
pub enum Piece {
    /// A few bytes: texts, the headers of an archive.
    Bytes(Bytes),
    /// A blob, which is verified before its first byte is sent.
    Blob {
        /// A repository that has it.
        repository: RepositoryName,
        /// Its digest.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
    },
}

impl Piece {
    /// The size in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Blob { size, .. } => *size,
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExtraError {
    /// It is not here.
    #[error("{message}")]
    NotHere {
        /// What is not here, and what to do.
        message: String,
        /// The paths that may be meant.
        candidates: Vec<String>,
    },
    /// It is being worked out for somebody else.
    #[error("this is being worked out; ask again")]
    Busy,
    /// The content cannot be read.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// Something else is wrong here, which the log says.
    #[error("{0}")]
    Failed(String),
}

impl Service {
    /// Whether a request may be for an extra.
    pub(super) fn may_be_extra(&self, request: &Request) -> bool {
        request.is_read() && self.extras.as_ref().is_some_and(|extras| extras.may_have(&request.path))
    }

    /// Answers a request for an extra; none when it is for something else.
    pub(super) fn extra(&self, request: &Request) -> Result<Option<Response<Body>>, ApiError> {
        let Some(extras) = &self.extras else { return Ok(None) };
        let path = percent_decode_str(&request.path).decode_utf8();
        let path = path.map_err(|_| ApiError::bad_request(Code::NameInvalid, "the path is not UTF-8"))?;
        let base = request.host().filter(|host| is_authority(host)).map(|host| {
            let scheme = if self.secure { "https" } else { "http" };
            format!("{scheme}://{host}")
        });
        let answer = extras.answer(&Question { path: &path, base: base.as_deref() })?;
        answer.map(|extra| self.send_extra(request, extra)).transpose()
    }

    fn send_extra(&self, request: &Request, extra: Extra) -> Result<Response<Body>, ApiError> {
        match extra {
            Extra::Elsewhere(address) => {
                let mut response =
                    text(&request.method, "text/plain; charset=utf-8", &format!("{address}\n"));
                *response.status_mut() = StatusCode::FOUND;
                let headers = response.headers_mut();
                headers.insert(header::LOCATION, header_value(&address)?);
                headers.insert(header::CACHE_CONTROL, ASK_AGAIN);
                Ok(response)
            }
            Extra::Text { media_type, text: content } => {
                let mut response = text(&request.method, media_type, &content);
                response.headers_mut().insert(header::CACHE_CONTROL, ASK_AGAIN);
                Ok(response)
            }
            Extra::File(composition) => {
                let mut response = Response::new(Body::empty());
                let headers = response.headers_mut();
                headers.insert(header::ETAG, header_value(&format!("\"{}\"", composition.identity))?);
                headers.insert(header::CACHE_CONTROL, ASK_AGAIN);
                headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
                let size = composition.pieces.iter().map(Piece::size).sum();
                if request.method == Method::HEAD {
                    headers.insert(header::CONTENT_TYPE, BINARY);
                    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size));
                    return Ok(response);
                }
                let content = self.content.clone();
                deliver(request, &composition.identity, response, size, |start, end| {
                    Body::composed(Composed::new(content, composition.pieces, start, end))
                })
            }
        }
    }
}

/// Whether a `Host` header names a host and nothing else. It becomes part of addresses.
fn is_authority(host: &str) -> bool {
    !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".:-[]".contains(&b))
}

impl From<ExtraError> for ApiError {
    fn from(error: ExtraError) -> Self {
        match error {
            ExtraError::NotHere { message, candidates } => {
                let error = Self::unknown(Code::BlobUnknown, message);
                if candidates.is_empty() {
                    return error;
                }
                error.with_detail(json!({ "candidates": candidates }))
            }
            ExtraError::Busy => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, Code::TooManyRequests, error.to_string())
                    .with_header(header::RETRY_AFTER, HeaderValue::from_static("5"))
            }
            ExtraError::Content(error) => error.into(),
            ExtraError::Failed(reason) => Self::internal(reason),
        }
    }
}
