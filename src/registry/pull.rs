//! Reading manifests and blobs.

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use crate::oci::Digest;
use crate::store::{Blob, Store};

use super::body::Body;
use super::error::{ApiError, Code};
use super::lookup::Lookup;
use super::path::ManifestReference;
use super::range::{self, Wanted};
use super::request::Request;
use super::route::header_value;

/// What a digest names never changes.
const FOREVER: HeaderValue = HeaderValue::from_static("max-age=31536000, immutable");
/// What a tag names may change at any time.
pub(super) const ASK_AGAIN: HeaderValue = HeaderValue::from_static("no-cache");
pub(super) const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// `GET` and `HEAD` of a manifest.
pub(super) fn manifest(
    request: &Request,
    lookup: &Lookup<'_>,
    reference: &ManifestReference,
) -> Result<Response<Body>, ApiError> {
    let missing = || {
        let what = match reference {
            ManifestReference::Tag(tag) => format!("there is no tag {tag} here"),
            ManifestReference::Digest(digest) => format!("there is no manifest {digest} here"),
        };
        ApiError::unknown(Code::ManifestUnknown, what)
    };
    let (digest, caching, found) = match reference {
        ManifestReference::Tag(tag) => {
            let target = lookup.tag(tag)?.ok_or_else(missing)?;
            let manifest = lookup.content.manifest(&target.name, &target.value.digest)?;
            (target.value.digest, ASK_AGAIN, manifest)
        }
        ManifestReference::Digest(digest) => {
            let found = lookup.content(|name| lookup.content.manifest(name, digest))?;
            (digest.clone(), FOREVER, found.map(|found| found.value))
        }
    };
    let manifest = found.ok_or_else(missing)?;
    let mut response = describe(&digest, caching);
    if is_known(&request.headers, &digest) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header_value(&manifest.media_type)?);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(manifest.bytes.len()));
    if request.method != Method::HEAD {
        *response.body_mut() = Body::from(manifest.bytes);
    }
    Ok(response)
}

/// `GET` and `HEAD` of a blob. Where there is a store that takes pushes, whoever asks by `HEAD` may be a client that leaves
/// the blob out of its push because it is here.
pub(super) fn blob(
    request: &Request,
    lookup: &Lookup<'_>,
    digest: &Digest,
    push: Option<&Store>,
) -> Result<Response<Body>, ApiError> {
    let missing = || ApiError::unknown(Code::BlobUnknown, format!("there is no blob {digest} here"));
    let mut response = describe(digest, FOREVER);
    response.headers_mut().insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if request.method == Method::HEAD {
        let found = lookup.content(|name| lookup.content.blob_size(name, digest))?.ok_or_else(missing)?;
        if let Some(store) = push
            && !store.claim_blob(&found.name, digest)?
        {
            return Err(missing());
        }
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, BINARY);
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(found.value));
        return Ok(response);
    }
    let blob = lookup.content(|name| lookup.content.blob(name, digest))?.ok_or_else(missing)?.value;
    send(request, digest, response, blob)
}

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
fn is_known(headers: &HeaderMap, digest: &Digest) -> bool {
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
