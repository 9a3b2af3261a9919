//! What the server says about itself: probes, metrics, wants.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, Response, StatusCode, header};

use crate::store::Usage;

use super::body::Body;
use super::error::ApiError;
use super::metrics::Gauges;
use super::request::Request;
use super::route::{Service, blocking};

/// How long a count of the store's blobs is good enough. Counting reads every directory of blobs.
const COUNT_AGAIN: Duration = Duration::from_mins(10);

/// How much the store held when it was last counted.
#[derive(Debug, Default)]
pub(super) struct Counted(Mutex<Option<(Instant, Usage)>>);

impl Service {
    /// Answers a request for something beside the distribution API; none when there is no such thing.
    pub(super) async fn about(&self, request: &Request) -> Option<Result<Response<Body>, ApiError>> {
        let (service, method) = (self.clone(), request.method.clone());
        Some(match request.path.as_str() {
            "/healthz" => Ok(probe(&method, true, "ok")),
            "/readyz" => Ok(self.ready(&method)),
            "/metrics" => blocking(move || Ok(service.metrics(&method))).await,
            "/api/v1/wants" => blocking(move || Ok(service.wants(&method))).await,
            "/api/v1/wants.txt" => blocking(move || Ok(service.wants_list(&method))).await,
            _ => return None,
        })
    }

    fn ready(&self, method: &Method) -> Response<Body> {
        match self.content.damaged().len() {
            0 => probe(method, true, "ready"),
            1 => probe(method, false, "1 blob is damaged; run `dray scrub`, or `dray verify` on a bundle"),
            n => {
                let message =
                    format!("{n} blobs are damaged; run `dray scrub`, or `dray verify` on a bundle");
                probe(method, false, &message)
            }
        }
    }

    fn metrics(&self, method: &Method) -> Response<Body> {
        let Usage { blobs, bytes } = self.usage();
        let gauges = Gauges { damaged: self.content.damaged().len(), blobs, bytes };
        let metrics = self.metrics.render(gauges);
        text(method, "text/plain; version=0.0.4; charset=utf-8", &metrics)
    }

    fn usage(&self) -> Usage {
        let mut counted = self.counted.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *counted {
            Some((when, usage)) if when.elapsed() < COUNT_AGAIN => usage,
            _ => {
                let usage = self.content.usage().unwrap_or_else(|error| {
                    tracing::warn!("cannot count what is in the store: {error}");
                    Usage::default()
                });
                *counted = Some((Instant::now(), usage));
                usage
            }
        }
    }

    /// What nodes asked for in vain, with when and who.
    fn wants(&self, method: &Method) -> Response<Body> {
        let wants = self.wants.as_ref().map(|wants| wants.unmet(&*self.content)).unwrap_or_default();
        text(method, "application/json", &serde_json::json!({ "wants": wants }).to_string())
    }

    /// The same as a list of images.
    fn wants_list(&self, method: &Method) -> Response<Body> {
        let wants = self.wants.as_ref().map(|wants| wants.unmet(&*self.content)).unwrap_or_default();
        let list: String = wants.iter().flat_map(|w| [w.reference.to_string(), "\n".to_owned()]).collect();
        text(method, "text/plain; charset=utf-8", &list)
    }
}

fn probe(method: &Method, good: bool, message: &str) -> Response<Body> {
    let mut response = text(method, "text/plain; charset=utf-8", &format!("{message}\n"));
    if !good {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

/// A response with a text; without it when only the head was asked for.
pub(super) fn text(method: &Method, content_type: &'static str, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
    if method != Method::HEAD {
        *response.body_mut() = Body::from(text.as_bytes().to_vec());
    }
    response
}
