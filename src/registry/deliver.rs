//! Sending content that has a digest: all of it, a part, or nothing to a client that has it already.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use crate::oci::Digest;
use crate::store::Blob;

use super::body::Body;
use super::error::{ApiError, Code, header_value};
use super::range::{self, Wanted};
use super::request::Request;

/// What a digest names never changes.
pub(super) const FOREVER: HeaderValue = HeaderValue::from_static("max-age=31536000, immutable");
/// What a tag names may change at any time.
pub(super) const ASK_AGAIN: HeaderValue = HeaderValue::from_static("no-cache");
/// What all blobs are, whatever they mean to clients.
pub(super) const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Completes `response` with what the client wants of `blob`: all, a part, or nothing because it has it.
pub(super) fn send(
    request: &Request,
    digest: &Digest,
    response: Response<Body>,
    blob: Blob,
) -> Result<Response<Body>, ApiError> {
    deliver(request, digest, response, blob.size(), |start, end| Body::blob(blob, start, end))
}

/// The same for any content of `size` bytes that `identity` stands for; `body` makes the bytes from the first number to
/// before the second.
pub(super) fn deliver(
    request: &Request,
    identity: &Digest,
    mut response: Response<Body>,
    size: u64,
    body: impl FnOnce(u64, u64) -> Body,
) -> Result<Response<Body>, ApiError> {
    if is_known(&request.headers, identity) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    let (start, end) = match wanted(&request.headers, identity, size) {
        Wanted::Whole => (0, size),
        Wanted::Part { start, end } => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let range = header_value(&format!("bytes {start}-{}/{size}", end - 1))?;
            response.headers_mut().insert(header::CONTENT_RANGE, range);
            (start, end)
        }
        Wanted::Unsatisfiable => {
            let range = header_value(&format!("bytes */{size}"))?;
            let error = ApiError::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                Code::SizeInvalid,
                format!("there are {size} bytes, the range that was asked for lies outside"),
            );
            return Err(error.with_header(header::CONTENT_RANGE, range));
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, BINARY);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(end - start));
    *response.body_mut() = body(start, end);
    Ok(response)
}

/// What every response about content with a digest says.
pub(super) fn describe(digest: &Digest, caching: HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    // Digests are ASCII.
    if let (Ok(value), Ok(tag)) = (header_value(&digest.to_string()), header_value(&format!("\"{digest}\"")))
    {
        headers.insert("docker-content-digest", value);
        headers.insert(header::ETAG, tag);
    }
    headers.insert(header::CACHE_CONTROL, caching);
    response
}

/// Whether the client says that it has the content already.
pub(super) fn is_known(headers: &HeaderMap, digest: &Digest) -> bool {
    headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').map(str::trim).any(|tag| {
            tag == "*" || tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"') == digest.to_string()
        })
    })
}

/// What part of the blob the client wants: with `If-Range`, a part only of the very blob that it began with.
fn wanted(headers: &HeaderMap, digest: &Digest, size: u64) -> Wanted {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    match text(header::IF_RANGE) {
        Some(tag) if tag.trim().trim_matches('"') != digest.to_string() => Wanted::Whole,
        _ => range::parse(text(header::RANGE), size),
    }
}
