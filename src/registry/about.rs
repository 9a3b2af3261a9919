//! What the server says about itself: probes, metrics, wants.

use http::{Method, Response, StatusCode};
use jiff::Timestamp;

use super::answer::text;
use super::body::Body;
use super::error::{ApiError, blocking};
use super::metrics::Gauges;
use super::request::Request;
use super::service::Service;
use super::wants::{Want, wants_json, wants_list};

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
        let now = Timestamp::now();
        let warning = self.tls.as_ref().and_then(|tls| tls.warning(now));
        let is_expired = self.tls.as_ref().is_some_and(|tls| tls.is_expired(now));
        let damaged = match self.content.damaged().len() {
            0 => None,
            1 => Some("1 blob is damaged".to_owned()),
            n => Some(format!("{n} blobs are damaged")),
        };
        match (damaged, warning) {
            (Some(damaged), _) => {
                probe(method, false, &format!("{damaged}; run `dray scrub`, or `dray verify` on a bundle"))
            }
            // What probes may not look at the certificate, but nodes do.
            (None, Some(warning)) if is_expired => probe(method, false, &warning),
            (None, Some(warning)) => probe(method, true, &format!("ready; {warning}")),
            (None, None) => probe(method, true, "ready"),
        }
    }

    fn metrics(&self, method: &Method) -> Response<Body> {
        let held = self.held.usage(&*self.content);
        let metrics = self.metrics.render(Gauges {
            damaged: self.content.damaged().len(),
            held,
            certificate_end: self.tls.as_ref().and_then(|tls| tls.not_after()).map(Timestamp::as_second),
        });
        text(method, "text/plain; version=0.0.4; charset=utf-8", &metrics)
    }

    /// What nodes asked for in vain, with when and who.
    fn wants(&self, method: &Method) -> Response<Body> {
        text(method, "application/json", &wants_json(&self.unmet()).to_string())
    }

    /// The same as a list of images.
    fn wants_list(&self, method: &Method) -> Response<Body> {
        text(method, "text/plain; charset=utf-8", &wants_list(&self.unmet()))
    }

    fn unmet(&self) -> Vec<Want> {
        self.wants.as_ref().map(|wants| wants.unmet(&*self.content)).unwrap_or_default()
    }
}

fn probe(method: &Method, good: bool, message: &str) -> Response<Body> {
    let mut response = text(method, "text/plain; charset=utf-8", &format!("{message}\n"));
    if !good {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}
