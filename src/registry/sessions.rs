//! The uploads in progress: which there are, and who may add to one. What has arrived is on disk, so that an upload can be
//! continued when this has forgotten it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderValue, StatusCode, header};
use tokio::sync::OwnedMutexGuard;

use crate::oci::{Algorithm, RepositoryName};
use crate::store::{Store, Upload, UploadId};

use super::error::{ApiError, Code, blocking};

/// How long a request waits for another one to the same session. A client that lost its connection comes back before
/// the server has noticed the loss.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many sessions there may be; each has a file open.
const MAX_SESSIONS: usize = 1000;

/// An upload that requests add to one after another; none when it has ended.
pub(super) type Slot = Arc<tokio::sync::Mutex<Option<Upload>>>;
/// The right to add to an upload.
pub(super) type Held = OwnedMutexGuard<Option<Upload>>;

/// The uploads in progress.
pub(super) struct Sessions {
    store: Store,
    open: Mutex<HashMap<UploadId, Slot>>,
    /// Those that were idle for too long when they were last looked at.
    suspects: Mutex<HashSet<UploadId>>,
}

impl Sessions {
    pub(super) fn new(store: Store) -> Self {
        Self { store, open: Mutex::default(), suspects: Mutex::default() }
    }

    /// Where the blobs go.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Begins an upload into a repository.
    pub(super) async fn begin(
        &self,
        name: &RepositoryName,
        algorithm: Algorithm,
    ) -> Result<(UploadId, Slot), ApiError> {
        let (store, name) = (self.store.clone(), name.clone());
        let (id, upload) = blocking(move || Ok(store.begin_upload(&name, algorithm)?)).await?;
        let slot = self.insert(&id, upload).await?;
        Ok((id, slot))
    }

    /// Waits for the right to a session of a repository.
    pub(super) async fn hold(&self, id: &UploadId, name: &RepositoryName) -> Result<Held, ApiError> {
        let known = self.open().get(id).cloned();
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

    /// Forgets a session, which has ended or can be continued from disk.
    pub(super) fn forget(&self, id: &UploadId) {
        self.open().remove(id);
    }

    /// Removes sessions that were left alone for `age` when this was called the last time, and still are. That they are
    /// found twice is for the sake of clocks: one that jumps makes everything look old.
    pub(super) fn expire(&self, age: Duration) {
        let idle = self.store.idle_uploads(age).unwrap_or_else(|error| {
            tracing::warn!("cannot look for unfinished uploads: {error}");
            Vec::new()
        });
        // Sessions that nobody holds can be continued from disk, so none needs to stay in memory.
        let mut open = self.open();
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

    /// Puts an upload among the open ones, or finds that another request has just done so.
    async fn insert(&self, id: &UploadId, upload: Upload) -> Result<Slot, ApiError> {
        let refused = {
            let mut open = self.open();
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

    fn open(&self) -> MutexGuard<'_, HashMap<UploadId, Slot>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much of an upload has arrived.
pub(super) fn size(held: &Held) -> Result<u64, ApiError> {
    held.as_ref().map(Upload::size).ok_or_else(unknown)
}

pub(super) fn unknown() -> ApiError {
    ApiError::unknown(Code::BlobUploadUnknown, "there is no such upload, or it has ended")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_idle_goes_when_it_is_so_twice_and_nobody_holds_it() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::create(&directory.path().join("store")).unwrap();
        let sessions = Sessions::new(store.clone());
        let name: RepositoryName = "a".parse().unwrap();
        let (left, _) = store.begin_upload(&name, Algorithm::Sha256).unwrap();
        let (held, _slot) = sessions.begin(&name, Algorithm::Sha256).await.unwrap();
        let there = |id: &UploadId| store.resume_upload(id).unwrap().is_some();
        sessions.expire(Duration::ZERO);
        assert!(there(&left) && there(&held), "the clock may have jumped");
        sessions.expire(Duration::from_hours(1));
        sessions.expire(Duration::ZERO);
        assert!(there(&left), "it was not idle in between");
        sessions.expire(Duration::ZERO);
        assert!(!there(&left) && there(&held));
    }

    #[tokio::test]
    async fn there_are_no_more_sessions_than_allowed() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::create(&directory.path().join("store")).unwrap();
        let sessions = Sessions::new(store.clone());
        let name: RepositoryName = "a".parse().unwrap();
        let (id, slot) = sessions.begin(&name, Algorithm::Sha256).await.unwrap();
        {
            let mut open = sessions.open();
            for _ in 1..MAX_SESSIONS {
                open.insert(store.begin_upload(&name, Algorithm::Sha256).unwrap().0, slot.clone());
            }
        }
        let before = store.idle_uploads(Duration::ZERO).unwrap().len();
        let refused = sessions.begin(&name, Algorithm::Sha256).await.unwrap_err();
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(store.idle_uploads(Duration::ZERO).unwrap().len(), before, "it leaves nothing");
        drop(slot);
        assert!(sessions.hold(&id, &name).await.is_ok(), "those that are open go on");
        sessions.forget(&id);
        assert!(sessions.begin(&name, Algorithm::Sha256).await.is_ok());
    }
}
