//! Uploads over HTTP: sessions that are opened, added to, asked about, closed and cancelled.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use tokio::sync::OwnedMutexGuard;

use crate::oci::{Algorithm, Digest, RepositoryName};
use crate::store::{Store, Upload, UploadId};

use super::body::Body;
use super::error::{ApiError, Code};
use super::receive::{self, Incoming};
use super::request::Request;
use super::route::{blocking, header_value};
use super::write::{created, empty, mount, writer};

/// How long a request waits for another one to the same session. A client that lost its connection comes back before
/// the server has noticed the loss.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many sessions there may be; each has a file open.
const MAX_SESSIONS: usize = 1000;

/// An upload that requests add to one after another; none when it has ended.
type Slot = Arc<tokio::sync::Mutex<Option<Upload>>>;
/// The right to add to an upload.
pub(super) type Held = OwnedMutexGuard<Option<Upload>>;

/// The uploads in progress.
pub(super) struct Uploads {
    store: Store,
    open: Mutex<HashMap<UploadId, Slot>>,
    /// Those that were idle for too long when they were last looked at.
    suspects: Mutex<HashSet<UploadId>>,
}

impl Uploads {
    pub(super) fn new(store: Store) -> Self {
        Self { store, open: Mutex::default(), suspects: Mutex::default() }
    }

    /// `POST` to the uploads of a repository: a mount, a whole blob, or the beginning of a session.
    pub(super) async fn begin(
        &self,
        request: &Request,
        name: &RepositoryName,
        body: Incoming,
    ) -> Result<Response<Body>, ApiError> {
        if let Some(digest) = &request.query.mount {
            let digest = parse_digest(digest)?;
            let from = request.query.from.as_deref().and_then(|from| from.parse().ok());
            let (store, name) = (self.store.clone(), name.clone());
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
        let (store, repository) = (self.store.clone(), name.clone());
        let (id, upload) = blocking(move || Ok(store.begin_upload(&repository, algorithm)?)).await?;
        let slot = self.insert(&id, upload).await?;
        match digest {
            Some(digest) => {
                let held = slot.clone().lock_owned().await;
                match Self::receive(held, body, &request.headers).await {
                    Ok(held) => self.finish(&id, held, name, digest).await,
                    // The client was never told of the session, so it cannot go on with it.
                    Err(error) => {
                        self.forget(&id);
                        let left = slot.lock().await.take();
                        blocking(move || Ok(left.map_or(Ok(()), Upload::cancel)?)).await?;
                        Err(error)
                    }
                }
            }
            None => status(name, &id, 0, StatusCode::ACCEPTED),
        }
    }

    /// `PATCH` of a session: the next bytes.
    pub(super) async fn append(
        &self,
        request: &Request,
        name: &RepositoryName,
        id: &UploadId,
        body: Incoming,
    ) -> Result<Response<Body>, ApiError> {
        let held = self.hold(id, name).await?;
        let held = Self::receive(held, body, &request.headers).await?;
        status(name, id, size(&held)?, StatusCode::ACCEPTED)
    }

    /// `PUT` of a session: perhaps the last bytes, and the digest of the whole.
    pub(super) async fn close(
        &self,
        request: &Request,
        name: &RepositoryName,
        id: &UploadId,
        body: Incoming,
    ) -> Result<Response<Body>, ApiError> {
        let held = self.hold(id, name).await?;
        let digest = request.query.digest.as_deref().ok_or_else(|| {
            ApiError::bad_request(Code::DigestInvalid, "the blob's digest is missing: ?digest=sha256:…")
        })?;
        let digest = parse_digest(digest)?;
        let held = Self::receive(held, body, &request.headers).await?;
        self.finish(id, held, name, digest).await
    }

    /// `GET` of a session: how much has arrived.
    pub(super) async fn status(
        &self,
        name: &RepositoryName,
        id: &UploadId,
    ) -> Result<Response<Body>, ApiError> {
        let held = self.hold(id, name).await?;
        status(name, id, size(&held)?, StatusCode::NO_CONTENT)
    }

    /// `DELETE` of a session.
    pub(super) async fn cancel(
        &self,
        name: &RepositoryName,
        id: &UploadId,
    ) -> Result<Response<Body>, ApiError> {
        let mut held = self.hold(id, name).await?;
        let upload = held.take().ok_or_else(unknown)?;
        self.forget(id);
        blocking(move || Ok(upload.cancel()?)).await?;
        Ok(empty(StatusCode::NO_CONTENT))
    }

    /// Removes sessions that were left alone for `age` when this was called the last time, and still are. That they are
    /// found twice is for the sake of clocks: one that jumps makes everything look old.
    pub(super) fn expire(&self, age: Duration) {
        let idle = self.store.idle_uploads(age).unwrap_or_else(|error| {
            tracing::warn!("cannot look for unfinished uploads: {error}");
            Vec::new()
        });
        // Sessions that nobody holds can be continued from disk, so none needs to stay in memory.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, slot| Arc::strong_count(slot) > 1);
        let idle: HashSet<UploadId> = idle.into_iter().filter(|id| !open.contains_key(id)).collect();
        let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        for id in suspects.intersection(&idle) {
            match self.store.remove_upload(id) {
                Ok(()) => tracing::info!("removed an upload that was never finished"),
                Err(error) => tracing::warn!("cannot remove an unfinished upload: {error}"),
            }
        }
        *suspects = idle;
    }

    /// Adds the body of a request to a session, after a look at where the client says it belongs.
    async fn receive(held: Held, body: Incoming, headers: &HeaderMap) -> Result<Held, ApiError> {
        let before = size(&held)?;
        let announced = content_length(headers);
        if let Some(range) = headers.get(header::CONTENT_RANGE) {
            let (first, last) = content_range(range)?;
            if first != before {
                let message = format!("{before} bytes have arrived, the next one is number {before}");
                let error =
                    ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, Code::BlobUploadInvalid, message);
                return Err(error.with_header(header::RANGE, range_value(before)?));
            }
            if announced.is_some_and(|announced| announced != last - first + 1) {
                let message = "Content-Range and Content-Length do not agree";
                return Err(ApiError::bad_request(Code::SizeInvalid, message));
            }
        }
        let held = receive::into_upload(body, held).await?;
        if announced.is_some_and(|announced| size(&held).is_ok_and(|now| now - before != announced)) {
            return Err(ApiError::bad_request(Code::SizeInvalid, "the body is not as long as announced"));
        }
        Ok(held)
    }

    async fn finish(
        &self,
        id: &UploadId,
        mut held: Held,
        name: &RepositoryName,
        digest: Digest,
    ) -> Result<Response<Body>, ApiError> {
        let upload = held.take().ok_or_else(unknown)?;
        self.forget(id);
        let (store, blob) = (self.store.clone(), digest.clone());
        blocking(move || {
            let writer = writer(&store)?;
            Ok(upload.commit(&blob, &writer)?)
        })
        .await?;
        created(&format!("/v2/{name}/blobs/{digest}"), &digest)
    }

    /// Waits for the right to a session of a repository.
    async fn hold(&self, id: &UploadId, name: &RepositoryName) -> Result<Held, ApiError> {
        let known = self.open.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        let slot = if let Some(slot) = known {
            slot
        } else {
            let (store, wanted) = (self.store.clone(), id.clone());
            let upload = blocking(move || Ok(store.resume_upload(&wanted)?)).await?.ok_or_else(unknown)?;
            self.insert(id, upload).await?
        };
        let busy = || {
            let message = "another request is adding to this upload";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, Code::BlobUploadInvalid, message)
                .with_header(header::RETRY_AFTER, HeaderValue::from_static("5"))
        };
        let held = tokio::time::timeout(PATIENCE, slot.lock_owned()).await.map_err(|_| busy())?;
        match &*held {
            Some(upload) if upload.repository() == name => Ok(held),
            Some(_) => Err(unknown()),
            None => {
                self.forget(id);
                Err(unknown())
            }
        }
    }

    /// Puts an upload among the open ones, or finds that another request has just done so.
    async fn insert(&self, id: &UploadId, upload: Upload) -> Result<Slot, ApiError> {
        let refused = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            if open.len() < MAX_SESSIONS || open.contains_key(id) {
                let slot = || Arc::new(tokio::sync::Mutex::new(Some(upload)));
                return Ok(open.entry(id.clone()).or_insert_with(slot).clone());
            }
            upload
        };
        blocking(move || Ok(refused.cancel()?)).await?;
        let message = "too many uploads are in progress";
        Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, Code::TooManyRequests, message)
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("10")))
    }

    fn forget(&self, id: &UploadId) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

fn unknown() -> ApiError {
    ApiError::unknown(Code::BlobUploadUnknown, "there is no such upload, or it has ended")
}

fn size(held: &Held) -> Result<u64, ApiError> {
    held.as_ref().map(Upload::size).ok_or_else(unknown)
}

fn parse_digest(text: &str) -> Result<Digest, ApiError> {
    text.parse().map_err(|error| super::path::PathError::Digest(error).into())
}

fn status(
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

/// Reads `<first>-<last>`, the form that the distribution specification gives to `Content-Range`.
pub(super) fn content_range(value: &HeaderValue) -> Result<(u64, u64), ApiError> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u64>().ok().filter(|n| digits && *n < u64::MAX)
    };
    let text = value.to_str().unwrap_or_default();
    match text.split_once('-').map(|(first, last)| (number(first), number(last))) {
        Some((Some(first), Some(last))) if first <= last => Ok((first, last)),
        _ => Err(ApiError::bad_request(
            Code::BlobUploadInvalid,
            "Content-Range has the form <first byte>-<last byte>, such as 0-1023",
        )),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(text: &str) -> Option<(u64, u64)> {
        content_range(&HeaderValue::from_str(text).ok()?).ok()
    }

    #[test]
    fn content_ranges() {
        assert_eq!(range("0-1023"), Some((0, 1023)));
        assert_eq!(range("5-5"), Some((5, 5)));
        for bad in ["", "-", "5-", "-5", "5-4", "bytes 0-5/6", "0-5/6", "+1-2", "0-18446744073709551615"] {
            assert_eq!(range(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn what_is_idle_goes_when_it_is_so_twice_and_nobody_holds_it() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::create(&directory.path().join("store")).unwrap();
        let uploads = Uploads::new(store.clone());
        let name: RepositoryName = "a".parse().unwrap();
        let (left, _) = store.begin_upload(&name, Algorithm::Sha256).unwrap();
        let (held, upload) = store.begin_upload(&name, Algorithm::Sha256).unwrap();
        let _slot = uploads.insert(&held, upload).await.unwrap();
        let there = |id: &UploadId| store.resume_upload(id).unwrap().is_some();
        uploads.expire(Duration::ZERO);
        assert!(there(&left) && there(&held), "the clock may have jumped");
        uploads.expire(Duration::from_hours(1));
        uploads.expire(Duration::ZERO);
        assert!(there(&left), "it was not idle in between");
        uploads.expire(Duration::ZERO);
        assert!(!there(&left) && there(&held));
    }

    proptest! {
        #[test]
        fn content_ranges_never_panic(text in "[0-9]{0,22}-[0-9]{0,22}|[ -~]{0,30}") {
            if let Some((first, last)) = range(&text) {
                prop_assert!(first <= last && last < u64::MAX);
            }
        }
    }
}
