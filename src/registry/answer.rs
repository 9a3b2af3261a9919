//! Answers that are at hand as a whole.

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};

use super::body::Body;

/// An answer with a text.
pub(super) fn text(method: &Method, content_type: &'static str, text: &str) -> Response<Body> {
    whole(method, HeaderValue::from_static(content_type), Bytes::copy_from_slice(text.as_bytes()))
}

/// An answer with these bytes.
pub(super) fn whole(method: &Method, content_type: HeaderValue, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    fill(&mut response, method, content_type, bytes);
    response
}

/// Gives `response` its content, or just what describes it when only the head was asked for.
pub(super) fn fill(response: &mut Response<Body>, method: &Method, content_type: HeaderValue, bytes: Bytes) {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    if method != Method::HEAD {
        *response.body_mut() = Body::from(bytes);
    }
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    if status != StatusCode::NO_CONTENT {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    response
}
