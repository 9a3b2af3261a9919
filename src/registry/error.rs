//! Errors as the distribution specification wants them: a status, and JSON with a code; and what turns failures of our own
//! into them.

use http::{HeaderValue, Method, Response, StatusCode, header};
use serde::Serialize;

use crate::store::{ContentError, StoreError};

use super::answer::whole;
use super::body::Body;
use super::path::PathError;

/// The codes of the specification, section "Error Codes".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    #[serde(rename = "TOOMANYREQUESTS")]
    TooManyRequests,
    Unauthorized,
    Unsupported,
    /// Not in the specification's list, but what other registries say when they are at fault.
    Unknown,
}

/// An answer that is an error. It is rare, so it is kept small where it is not.
#[derive(Debug)]
pub(super) struct ApiError(Box<Answer>);

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    code: Code,
    message: String,
    detail: Option<serde_json::Value>,
    header: Option<(header::HeaderName, HeaderValue)>,
}

#[derive(Serialize)]
struct Errors<'a> {
    errors: [Entry<'a>; 1],
}

#[derive(Serialize)]
struct Entry<'a> {
    code: Code,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a serde_json::Value>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(Answer { status, code, message: message.into(), detail: None, header: None }))
    }

    /// Something is not there.
    pub(super) fn unknown(code: Code, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// The client's mistake.
    pub(super) fn bad_request(code: Code, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// The endpoint exists and does not do that.
    pub(super) fn method(allowed: &'static str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unsupported, "this registry does not allow that here")
            .with_header(header::ALLOW, HeaderValue::from_static(allowed))
    }

    /// Our mistake. What it is goes to the log only.
    pub(super) fn internal(error: impl std::fmt::Display) -> Self {
        tracing::error!("a request could not be answered: {error}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Unknown, "the registry failed; its log says why")
    }

    pub(super) fn with_detail(mut self, detail: serde_json::Value) -> Self {
        self.0.detail = Some(detail);
        self
    }

    /// Adds to the message what explains it.
    pub(super) fn and_say(mut self, more: &str) -> Self {
        self.0.message.push_str(": ");
        self.0.message.push_str(more);
        self
    }

    pub(super) fn with_header(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.0.header = Some((name, value));
        self
    }

    pub(super) fn status(&self) -> StatusCode {
        self.0.status
    }

    pub(super) fn into_response(self, method: &Method) -> Response<Body> {
        let Answer { status, code, message, detail, header } = *self.0;
        let errors = Errors { errors: [Entry { code, message: &message, detail: detail.as_ref() }] };
        // Strings and JSON values always serialise.
        let json = serde_json::to_vec(&errors).unwrap_or_default();
        let mut response = whole(method, HeaderValue::from_static("application/json"), json.into());
        *response.status_mut() = status;
        response.headers_mut().extend(header);
        response
    }
}

/// Does what blocks on the disk on a thread for that.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| Err(ApiError::internal(panic)))
}

/// A header's value; what cannot be one came from a file that is not as it was written.
pub(super) fn header_value(text: &str) -> Result<HeaderValue, ApiError> {
    HeaderValue::from_str(text).map_err(|_| ApiError::internal("the content has what no header can carry"))
}

impl From<PathError> for ApiError {
    fn from(error: PathError) -> Self {
        let message = error.to_string();
        match error {
            PathError::NotFound => Self::unknown(Code::Unsupported, message),
            PathError::Name(_) => Self::bad_request(Code::NameInvalid, message),
            PathError::Tag(_) => Self::bad_request(Code::ManifestInvalid, message),
            PathError::Digest(_) => Self::bad_request(Code::DigestInvalid, message),
            PathError::Upload => Self::unknown(Code::BlobUploadUnknown, message),
        }
    }
}

impl From<ContentError> for ApiError {
    fn from(error: ContentError) -> Self {
        // Clients learn that it is our fault; what is wrong and where is for the operator.
        tracing::error!("{error}");
        let message = match error {
            ContentError::Damaged(digest) => format!("{digest} is damaged in this registry"),
            ContentError::Invalid { .. } | ContentError::Io(_) => {
                "the registry cannot read its content".into()
            }
        };
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Unknown, message)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::WrongDigest { .. } => Self::bad_request(Code::DigestInvalid, message),
            StoreError::WrongSize { .. } => Self::bad_request(Code::SizeInvalid, message),
            StoreError::NameTooLong(_) => Self::bad_request(Code::NameInvalid, message),
            StoreError::Manifest(_) => Self::bad_request(Code::ManifestInvalid, message),
            StoreError::Busy { holder, .. } => {
                let message = format!("the store is being changed by {holder}, try again when it is done");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, Code::Unknown, message)
                    .with_header(header::RETRY_AFTER, HeaderValue::from_static("10"))
            }
            error if error.is_storage_full() => {
                tracing::error!("{error}");
                Self::new(StatusCode::INSUFFICIENT_STORAGE, Code::Unknown, "the registry's disk is full")
            }
            StoreError::Content(error) => error.into(),
            StoreError::NotAStore(_)
            | StoreError::NotEmpty(_)
            | StoreError::Version { .. }
            | StoreError::Log(_)
            | StoreError::Io(_) => Self::internal(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn json_as_specified() {
        let error = ApiError::unknown(Code::BlobUploadUnknown, "no such upload")
            .with_detail(serde_json::json!({"candidates": ["a"]}));
        let response = error.into_response(&Method::GET);
        assert_eq!(response.status(), 404);
        assert_eq!(response.headers()["content-type"], "application/json");
        let length: usize = response.headers()["content-length"].to_str().unwrap().parse().unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.len(), length);
        assert_eq!(
            body,
            r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"no such upload","detail":{"candidates":["a"]}}]}"#
        );
    }

    #[tokio::test]
    async fn head_has_no_body() {
        let response = ApiError::from(PathError::NotFound).into_response(&Method::HEAD);
        assert!(response.headers().contains_key("content-length"));
        assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
}
