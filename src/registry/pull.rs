//! Reading manifests and blobs.

use http::{HeaderValue, Method, Response, StatusCode, header};

use crate::oci::Digest;
use crate::store::Store;

use super::answer::fill;
use super::body::Body;
use super::deliver::{ASK_AGAIN, BINARY, FOREVER, describe, is_known, send};
use super::error::{ApiError, Code, header_value};
use super::lookup::Lookup;
use super::path::ManifestReference;
use super::request::Request;

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
    fill(&mut response, &request.method, header_value(&manifest.media_type)?, manifest.bytes);
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
