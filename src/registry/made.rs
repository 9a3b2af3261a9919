//! Answering with what is made of the content when somebody asks for it.

use http::{HeaderValue, Method, Response, StatusCode, header};
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::answer::text;
use super::body::Body;
use super::composed::Composed;
use super::deliver::{ASK_AGAIN, BINARY, deliver};
use super::error::{ApiError, Code, header_value};
use super::extras::{Extra, ExtraError, Piece, Question};
use super::request::Request;
use super::service::Service;

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
            let scheme = if self.tls.is_some() { "https" } else { "http" };
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
