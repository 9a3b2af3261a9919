//! Bodies of requests: never more than allowed, never waited for too long.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;

use super::error::{ApiError, Code};

/// How much more of a body that is too long is read, so that the client has finished sending when it gets the answer.
const COURTESY: usize = 16 * 1024 * 1024;

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

    /// Whether nothing comes any more.
    pub(super) fn is_at_end(&self) -> bool {
        self.body.is_end_stream()
    }

    /// The next bytes of the body; none at its end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            let frame = tokio::time::timeout(self.idle, self.body.frame()).await.map_err(|_| {
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

    /// The whole of a body that may have `limit` bytes.
    pub(super) async fn whole(mut self, limit: usize) -> Result<Bytes, ApiError> {
        let mut bytes = BytesMut::new();
        let mut excess = 0;
        while let Some(piece) = self.next().await? {
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
}
