//! Uploads over HTTP: sessions that are opened, added to, asked about, closed and cancelled.

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use crate::oci::{Algorithm, Digest, RepositoryName};
use crate::store::{Upload, UploadId};

use super::answer::empty;
use super::body::Body;
use super::error::{ApiError, Code, blocking, header_value};
use super::path::PathError;
use super::pipe::into_upload;
use super::range::parse_chunk;
use super::receive::Incoming;
use super::request::Request;
use super::sessions::{Held, Sessions, size, unknown};
use super::write::{created, mount, writer};

/// `POST` to the uploads of a repository: a mount, a whole blob, or the beginning of a session.
pub(super) async fn begin(
    sessions: &Sessions,
    request: &Request,
    name: &RepositoryName,
    body: Incoming,
) -> Result<Response<Body>, ApiError> {
    if let Some(digest) = &request.query.mount {
        let digest = parse_digest(digest)?;
        let from = request.query.from.as_deref().and_then(|from| from.parse().ok());
        let (store, name) = (sessions.store().clone(), name.clone());
        if let Some(mounted) = blocking(move || mount(&store, &name, &digest, from.as_ref())).await? {
            return Ok(mounted);
        }
    }
    let digest = request.query.digest.as_deref().map(parse_digest).transpose()?;
    let algorithm = match (&digest, request.query.digest_algorithm.as_deref()) {
        (Some(digest), _) => digest.algorithm(),
        (None, None | Some("sha256")) => Algorithm::Sha256,
        (None, Some("sha512")) => Algorithm::Sha512,
        (None, Some(_)) => {
            let message = "digest-algorithm is sha256 or sha512";
            return Err(ApiError::bad_request(Code::DigestInvalid, message));
        }
    };
    let (id, slot) = sessions.begin(name, algorithm).await?;
    let Some(digest) = digest else { return progress(name, &id, 0, StatusCode::ACCEPTED) };
    let held = slot.clone().lock_owned().await;
    match receive(held, body, &request.headers).await {
        Ok(held) => finish(sessions, &id, held, name, digest).await,
        // The client was never told of the session, so it cannot go on with it.
        Err(error) => {
            sessions.forget(&id);
            let left = slot.lock().await.take();
            blocking(move || Ok(left.map_or(Ok(()), Upload::cancel)?)).await?;
            Err(error)
        }
    }
}

/// `PATCH` and `PUT` of a session: the next bytes, which may be none. With a `PUT` they are the last ones, and the digest of
/// the whole is told.
pub(super) async fn add(
    sessions: &Sessions,
    request: &Request,
    name: &RepositoryName,
    id: &UploadId,
    body: Incoming,
) -> Result<Response<Body>, ApiError> {
    let held = sessions.hold(id, name).await?;
    let missing =
        || ApiError::bad_request(Code::DigestInvalid, "the blob's digest is missing: ?digest=sha256:…");
    let whole = match request.method {
        Method::PUT => Some(request.query.digest.as_deref().ok_or_else(missing).and_then(parse_digest)?),
        _ => None,
    };
    let held = receive(held, body, &request.headers).await?;
    match whole {
        Some(digest) => finish(sessions, id, held, name, digest).await,
        None => progress(name, id, size(&held)?, StatusCode::ACCEPTED),
    }
}

/// `GET` of a session: how much has arrived.
pub(super) async fn status(
    sessions: &Sessions,
    name: &RepositoryName,
    id: &UploadId,
) -> Result<Response<Body>, ApiError> {
    let held = sessions.hold(id, name).await?;
    progress(name, id, size(&held)?, StatusCode::NO_CONTENT)
}

/// `DELETE` of a session.
pub(super) async fn cancel(
    sessions: &Sessions,
    name: &RepositoryName,
    id: &UploadId,
) -> Result<Response<Body>, ApiError> {
    let mut held = sessions.hold(id, name).await?;
    let upload = held.take().ok_or_else(unknown)?;
    sessions.forget(id);
    blocking(move || Ok(upload.cancel()?)).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Adds the body of a request to a session, after a look at where the client says it belongs.
async fn receive(held: Held, body: Incoming, headers: &HeaderMap) -> Result<Held, ApiError> {
    let before = size(&held)?;
    let announced = content_length(headers);
    if let Some(range) = headers.get(header::CONTENT_RANGE) {
        let (first, last) = content_range(range)?;
        if first != before {
            let message = format!("{before} bytes have arrived, the next one is number {before}");
            let error = ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, Code::BlobUploadInvalid, message);
            return Err(error.with_header(header::RANGE, range_value(before)?));
        }
        if announced.is_some_and(|announced| announced != last - first + 1) {
            let message = "Content-Range and Content-Length do not agree";
            return Err(ApiError::bad_request(Code::SizeInvalid, message));
        }
    }
    let held = into_upload(body, held).await?;
    if announced.is_some_and(|announced| size(&held).is_ok_and(|now| now - before != announced)) {
        return Err(ApiError::bad_request(Code::SizeInvalid, "the body is not as long as announced"));
    }
    Ok(held)
}

/// Makes what has arrived a blob, if it has that digest.
async fn finish(
    sessions: &Sessions,
    id: &UploadId,
    mut held: Held,
    name: &RepositoryName,
    digest: Digest,
) -> Result<Response<Body>, ApiError> {
    let upload = held.take().ok_or_else(unknown)?;
    sessions.forget(id);
    let (store, blob) = (sessions.store().clone(), digest.clone());
    blocking(move || {
        let writer = writer(&store)?;
        Ok(upload.commit(&blob, &writer)?)
    })
    .await?;
    created(&format!("/v2/{name}/blobs/{digest}"), &digest)
}

fn parse_digest(text: &str) -> Result<Digest, ApiError> {
    text.parse().map_err(|error| PathError::Digest(error).into())
}

/// How far an upload has come.
fn progress(
    name: &RepositoryName,
    id: &UploadId,
    size: u64,
    code: StatusCode,
) -> Result<Response<Body>, ApiError> {
    let mut response = empty(code);
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, header_value(&format!("/v2/{name}/blobs/uploads/{}", id.as_str()))?);
    headers.insert(header::RANGE, range_value(size)?);
    headers.insert("docker-upload-uuid", header_value(id.as_str())?);
    Ok(response)
}

/// How much has arrived, as the number of the last byte. The specification has no way to say "nothing"; registries say 0.
fn range_value(size: u64) -> Result<HeaderValue, ApiError> {
    header_value(&format!("0-{}", size.saturating_sub(1)))
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn content_range(value: &HeaderValue) -> Result<(u64, u64), ApiError> {
    value.to_str().ok().and_then(parse_chunk).ok_or_else(|| {
        ApiError::bad_request(
            Code::BlobUploadInvalid,
            "Content-Range has the form <first byte>-<last byte>, such as 0-1023",
        )
    })
}
