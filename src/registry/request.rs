//! A request, without its body.

use std::net::IpAddr;

use http::{HeaderMap, Method, header};

use crate::oci::RepositoryName;

use super::naming::Asked;
use super::path::Query;

/// A request, without its body.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    /// The path as it was sent.
    pub(super) path: String,
    pub(super) query: Query,
    pub(super) headers: HeaderMap,
    /// Where it came from.
    pub(super) peer: IpAddr,
    /// Path and query as they were sent.
    pub(super) target: String,
    host: Option<String>,
}

impl Request {
    pub(super) fn new(parts: http::request::Parts, peer: IpAddr) -> Self {
        let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let host = host.or_else(|| parts.uri.authority().map(http::uri::Authority::as_str));
        Self {
            host: host.map(str::to_ascii_lowercase),
            path: parts.uri.path().to_owned(),
            query: Query::parse(parts.uri.query()),
            target: parts.uri.path_and_query().map_or_else(String::new, ToString::to_string),
            method: parts.method,
            headers: parts.headers,
            peer,
        }
    }

    /// What the request says about the repository `name`.
    pub(super) fn asked<'a>(&'a self, name: &'a RepositoryName) -> Asked<'a> {
        Asked { name, ns: self.query.ns.as_deref(), host: self.host.as_deref() }
    }

    /// The host and the port that the client meant to reach.
    pub(super) fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    pub(super) fn is_read(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }

    /// What the client calls itself.
    pub(super) fn user_agent(&self) -> &str {
        self.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default()
    }
}
