//! From the body of a request into an upload: one piece is hashed and written while the next one arrives.

use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::store::StoreError;

use super::error::ApiError;
use super::receive::Incoming;
use super::sessions::Held;

/// How much is gathered before it is written.
const PIECE: usize = 512 * 1024;

/// Adds a body to an upload.
pub(super) async fn into_upload(mut body: Incoming, held: Held) -> Result<Held, ApiError> {
    if body.is_at_end() {
        return Ok(held);
    }
    let mut upload = Pipe { idle: Some(held), busy: None };
    let mut pieces = Vec::new();
    let mut gathered = 0;
    loop {
        let piece = body.next().await;
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
