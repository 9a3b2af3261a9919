//! The access log: one entry for each request, made when its response has ended.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use http::Method;
use jiff::Timestamp;
use serde::Serialize;

use super::metrics::{Metrics, Route};

/// A request and how it ended.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// When the request came.
    pub time: Timestamp,
    /// Where it came from.
    pub client: IpAddr,
    /// The user that it was made by, if it said so and proved it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The status of the response.
    pub status: u16,
    /// How many bytes of the body were sent.
    pub bytes: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// What the client calls itself.
    pub user_agent: String,
}

impl fmt::Display for Access {
    /// The entry as a line of text, with what clients chose in quotes and escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { time, client, method, target, status, bytes, seconds, user_agent, .. } = self;
        let user = self.user.as_deref().unwrap_or("-");
        write!(
            f,
            "{time:.3} {client} {user:?} {method} {target:?} {status} {bytes} {seconds:.3} {user_agent:?}"
        )
    }
}

/// Receives the entries of an access log. It is called on the threads that serve and should not wait.
#[derive(Clone)]
pub struct AccessLog(Arc<dyn Fn(&Access) + Send + Sync>);

impl AccessLog {
    /// Gives every entry to `write`.
    pub fn new(write: impl Fn(&Access) + Send + Sync + 'static) -> Self {
        Self(Arc::new(write))
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessLog")
    }
}

/// What is counted and logged when a response has ended, which is when this is dropped.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) under_way: UnderWay,
    pub(super) log: Option<AccessLog>,
    pub(super) route: Route,
    pub(super) began: Instant,
    pub(super) status: u16,
    pub(super) bytes: u64,
    /// What only the log wants to know.
    pub(super) told: Option<Told>,
}

/// What a request says about itself.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) time: Timestamp,
    pub(super) client: IpAddr,
    pub(super) user: Option<String>,
    pub(super) method: Method,
    pub(super) target: String,
    pub(super) user_agent: String,
}

/// Counts a request as being answered until it is dropped.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Metrics>);

impl UnderWay {
    pub(super) fn new(metrics: &Arc<Metrics>) -> Self {
        metrics.under_way.fetch_add(1, Ordering::Relaxed);
        Self(metrics.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let duration = self.began.elapsed();
        self.under_way.0.request(self.route, self.status, self.bytes, duration);
        if let (Some(log), Some(told)) = (&self.log, self.told.take()) {
            let access = Access {
                time: told.time,
                client: told.client,
                user: told.user,
                method: told.method.to_string(),
                target: told.target,
                status: self.status,
                bytes: self.bytes,
                seconds: duration.as_secs_f64(),
                user_agent: told.user_agent,
            };
            (log.0)(&access);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_cannot_forge_lines() {
        let access = Access {
            time: Timestamp::UNIX_EPOCH,
            client: [10, 0, 0, 7].into(),
            user: None,
            method: "GET".into(),
            target: "/v2/".into(),
            status: 200,
            bytes: 2,
            seconds: 0.25,
            user_agent: "x\"\n\u{1b}[31m".into(),
        };
        assert_eq!(
            access.to_string(),
            r#"1970-01-01T00:00:00.000Z 10.0.0.7 "-" GET "/v2/" 200 2 0.250 "x\"\n\u{1b}[31m""#
        );
    }
}
