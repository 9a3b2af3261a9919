//! What the server counts, in the text format of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::store::{Content, Usage};

use super::path::Endpoint;

/// How long a count of what is there is good enough. Counting reads every directory of blobs.
const COUNT_AGAIN: Duration = Duration::from_mins(10);
/// The upper bounds of the histogram of durations, in seconds.
const BOUNDS: [f64; 8] = [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0];

/// What kind of request something was counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Route {
    Version,
    Catalog,
    Tags,
    Manifest,
    Blob,
    Upload,
    Referrers,
    Other,
}

impl Route {
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        match endpoint {
            Endpoint::Version => Self::Version,
            Endpoint::Catalog => Self::Catalog,
            Endpoint::Tags(_) => Self::Tags,
            Endpoint::Manifest(..) => Self::Manifest,
            Endpoint::Blob(..) => Self::Blob,
            Endpoint::Uploads(_) | Endpoint::Upload(..) => Self::Upload,
            Endpoint::Referrers(..) => Self::Referrers,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Catalog => "catalog",
            Self::Tags => "tags",
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::Upload => "upload",
            Self::Referrers => "referrers",
            Self::Other => "other",
        }
    }
}

/// Counters of a server since it started.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    requests: Mutex<BTreeMap<(Route, u16), u64>>,
    routes: Mutex<BTreeMap<Route, Totals>>,
    pub(super) connections: AtomicU64,
    /// Requests that are being answered.
    pub(super) under_way: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) misses: AtomicU64,
}

#[derive(Debug, Default)]
struct Totals {
    bytes: u64,
    seconds: f64,
    /// How many requests took no longer than each bound, and how many longer than all.
    buckets: [u64; BOUNDS.len() + 1],
}

/// What is known from elsewhere when the counters are read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gauges {
    pub(super) damaged: usize,
    pub(super) held: Usage,
    /// When the certificate ends, in seconds since 1970; `None` if there is none.
    pub(super) certificate_end: Option<i64>,
}

/// How much there was when it was last counted.
#[derive(Debug, Default)]
pub(super) struct Held(Mutex<Option<(Instant, Usage)>>);

impl Held {
    /// How much `content` holds.
    pub(super) fn usage(&self, content: &dyn Content) -> Usage {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *counted {
            Some((when, usage)) if when.elapsed() < COUNT_AGAIN => usage,
            _ => {
                let usage = content.usage().unwrap_or_else(|error| {
                    tracing::warn!("cannot count what is in the store: {error}");
                    Usage::default()
                });
                *counted = Some((Instant::now(), usage));
                usage
            }
        }
    }
}

impl Metrics {
    /// Counts a request that was answered in full, or until its client had enough.
    pub(super) fn request(&self, route: Route, status: u16, bytes: u64, duration: Duration) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((route, status)).or_default() += 1;
        drop(requests);
        let seconds = duration.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let totals = routes.entry(route).or_default();
        totals.bytes += bytes;
        totals.seconds += seconds;
        totals.buckets[bucket] += 1;
    }

    /// All counters as text.
    pub(super) fn render(&self, gauges: Gauges) -> String {
        let mut text = String::new();
        let version = env!("CARGO_PKG_VERSION");
        head(&mut text, "dray_build_info", "gauge", "The version that runs.");
        line(&mut text, "dray_build_info", &format!("version=\"{version}\""), 1);
        head(&mut text, "dray_http_requests_total", "counter", "Requests by kind and status.");
        for ((route, status), count) in &*self.requests.lock().unwrap_or_else(PoisonError::into_inner) {
            let labels = format!("route=\"{}\",status=\"{status}\"", route.label());
            line(&mut text, "dray_http_requests_total", &labels, count);
        }
        self.render_routes(&mut text);
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for (name, kind, help, value) in [
            ("dray_connections", "gauge", "Connections that are open.", load(&self.connections)),
            ("dray_requests_under_way", "gauge", "Requests that are being answered.", load(&self.under_way)),
            (
                "dray_connections_refused_total",
                "counter",
                "Connections beyond the limits.",
                load(&self.refused),
            ),
            ("dray_misses_total", "counter", "Manifests that were asked for in vain.", load(&self.misses)),
            ("dray_damaged_blobs", "gauge", "Blobs that were found damaged.", gauges.damaged as u64),
            ("dray_store_blobs", "gauge", "Blobs in the store.", gauges.held.blobs),
            ("dray_store_bytes", "gauge", "Bytes in the store.", gauges.held.bytes),
        ] {
            head(&mut text, name, kind, help);
            line(&mut text, name, "", value);
        }
        if let Some(end) = gauges.certificate_end {
            let name = "dray_certificate_not_after_timestamp_seconds";
            head(&mut text, name, "gauge", "When the certificate of the server ends.");
            line(&mut text, name, "", end);
        }
        text
    }

    fn render_routes(&self, text: &mut String) {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        head(text, "dray_http_response_bytes_total", "counter", "Bytes of bodies that were sent.");
        for (route, totals) in &*routes {
            let labels = format!("route=\"{}\"", route.label());
            line(text, "dray_http_response_bytes_total", &labels, totals.bytes);
        }
        let name = "dray_http_request_duration_seconds";
        head(text, name, "histogram", "Time from the head of a request to the end of its response.");
        for (route, totals) in &*routes {
            let route = route.label();
            let mut sum = 0;
            for (count, bound) in
                totals.buckets.iter().zip(BOUNDS.iter().map(f64::to_string).chain(["+Inf".into()]))
            {
                sum += count;
                line(text, &format!("{name}_bucket"), &format!("route=\"{route}\",le=\"{bound}\""), sum);
            }
            line(text, &format!("{name}_sum"), &format!("route=\"{route}\""), totals.seconds);
            line(text, &format!("{name}_count"), &format!("route=\"{route}\""), sum);
        }
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(text: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = if labels.is_empty() {
        writeln!(text, "{name} {value}")
    } else {
        writeln!(text, "{name}{{{labels}}} {value}")
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_format() {
        let metrics = Metrics::default();
        metrics.request(Route::Blob, 200, 1000, Duration::from_millis(20));
        metrics.request(Route::Blob, 206, 500, Duration::from_mins(5));
        metrics.misses.fetch_add(3, Ordering::Relaxed);
        let text = metrics.render(Gauges {
            damaged: 1,
            held: Usage { blobs: 2, bytes: 3000 },
            certificate_end: Some(86_400),
        });
        for expected in [
            "# TYPE dray_http_requests_total counter\n",
            "dray_http_requests_total{route=\"blob\",status=\"206\"} 1\n",
            "dray_http_response_bytes_total{route=\"blob\"} 1500\n",
            "dray_http_request_duration_seconds_bucket{route=\"blob\",le=\"0.005\"} 0\n",
            "dray_http_request_duration_seconds_bucket{route=\"blob\",le=\"0.025\"} 1\n",
            "dray_http_request_duration_seconds_bucket{route=\"blob\",le=\"+Inf\"} 2\n",
            "dray_http_request_duration_seconds_count{route=\"blob\"} 2\n",
            "dray_misses_total 3\n",
            "dray_damaged_blobs 1\n",
            "dray_store_bytes 3000\n",
            "dray_certificate_not_after_timestamp_seconds 86400\n",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
    }
}
