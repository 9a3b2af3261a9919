//! Bodies of requests: never more than allowed, never waited for too long.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use tokio::task::JoinHandle;

use crate::store::StoreError;

use super::error::{ApiError, Code};
use super::upload::Held;

/// The body of a request, which is waited for only so long.
pub(super) struct Incoming {
    body: hyper::body::Incoming,
    /// How long the client may send nothing.
    idle: Duration,
}

impl Incoming {
    pub(super) fn new(body: hyper::body::Incoming, idle: Duration) -> Self {
        Self { body, idle }
    }
}

/// How much is gathered before it is written.
const PIECE: usize = 512 * 1024;
/// How much more of a body that is too long is read, so that the client has finished sending when it gets the answer.
const COURTESY: usize = 16 * 1024 * 1024;

/// The whole of a body that may have `limit` bytes.
pub(super) async fn whole(mut body: Incoming, limit: usize) -> Result<Bytes, ApiError> {
    let mut bytes = BytesMut::new();
    let mut excess = 0;
    while let Some(piece) = next(&mut body).await? {
        if excess == 0 && bytes.len() + piece.len() <= limit {
            bytes.extend_from_slice(&piece);
        } else {
            excess += piece.len();
            if excess > COURTESY {
                break;
            }
        }
    }
    if excess > 0 {
        let message = format!("the manifest is larger than {limit} bytes");
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid, message));
    }
    Ok(bytes.freeze())
}

/// Adds a body to an upload. One piece is hashed and written while the next one arrives.
pub(super) async fn into_upload(mut body: Incoming, held: Held) -> Result<Held, ApiError> {
    if body.body.is_end_stream() {
        return Ok(held);
    }
    let mut upload = Pipe { idle: Some(held), busy: None };
    let mut pieces = Vec::new();
    let mut gathered = 0;
    loop {
        let piece = next(&mut body).await;
        if let Ok(Some(piece)) = &piece {
            gathered += piece.len();
            pieces.push(piece.clone());
            if gathered < PIECE {
                continue;
            }
        }
        upload.write(std::mem::take(&mut pieces)).await?;
        gathered = 0;
        // What came before the client went away is kept: it may come back for the rest.
        match piece {
            Ok(Some(_)) => {}
            Ok(None) => return upload.finish().await,
            Err(error) => {
                upload.finish().await?;
                return Err(error);
            }
        }
    }
}

/// An upload that is written to on another thread, one batch at a time.
struct Pipe {
    idle: Option<Held>,
    busy: Option<JoinHandle<(Held, Result<(), ApiError>)>>,
}

impl Pipe {
    /// Begins to write `pieces`, as soon as what came before them is written.
    async fn write(&mut self, pieces: Vec<Bytes>) -> Result<(), ApiError> {
        let mut held = self.wait().await?;
        self.busy = Some(tokio::task::spawn_blocking(move || {
            let result = match held.as_mut() {
                Some(upload) => pieces.iter().try_for_each(|piece| upload.append(piece)),
                None => Ok(()),
            };
            // What has arrived would take the room that others need, and the rest has none.
            if result.as_ref().is_err_and(StoreError::is_storage_full)
                && let Some(upload) = held.take()
                && let Err(error) = upload.cancel()
            {
                tracing::warn!("cannot remove an upload: {error}");
            }
            (held, result.map_err(ApiError::from))
        }));
        Ok(())
    }

    async fn finish(mut self) -> Result<Held, ApiError> {
        self.wait().await
    }

    async fn wait(&mut self) -> Result<Held, ApiError> {
        if let Some(busy) = self.busy.take() {
            let (held, result) = busy.await.map_err(ApiError::internal)?;
            result?;
            return Ok(held);
        }
        self.idle.take().ok_or_else(|| ApiError::internal("an upload was written to after it ended"))
    }
}

/// The next bytes of a body; none at its end.
async fn next(body: &mut Incoming) -> Result<Option<Bytes>, ApiError> {
    loop {
        let frame = tokio::time::timeout(body.idle, body.body.frame()).await.map_err(|_| {
            ApiError::new(StatusCode::REQUEST_TIMEOUT, Code::SizeInvalid, "the body stopped arriving")
        })?;
        let Some(frame) = frame else { return Ok(None) };
        let frame = frame.map_err(|error| {
            tracing::debug!("a request ended in its middle: {error}");
            ApiError::bad_request(Code::SizeInvalid, "the body ended before it was complete")
        })?;
        // Trailers mean nothing here.
        if let Ok(bytes) = frame.into_data() {
            return Ok(Some(bytes));
        }
    }
}
