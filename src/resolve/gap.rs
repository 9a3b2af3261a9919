//! Content that a definition needs and that cannot be had.

use serde::{Deserialize, Serialize};

use super::NeededBy;
use crate::oci::{Digest, ManifestError, NodeKind, Reference};
use crate::upstream::{Problem, UpstreamError};

/// Why content cannot be had, as programs tell it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum GapKind {
    /// The server answered that it does not have it.
    Missing,
    /// The server or its token server refused the request (401, 403).
    Denied,
    /// The credentials for the server cannot be had from where they are configured.
    Credentials,
    /// The server limits the rate of requests, also after waiting.
    RateLimited,
    /// No server answered, or the connection broke.
    Unreachable,
    /// The server answered with something that is not the content: an error, a web page, bad JSON, too many bytes.
    Unreadable,
    /// The content does not have the digest or the size that was stated for it.
    Damaged,
    /// The image is published as Docker schema 1, which has no content digests.
    Schema1,
    /// The image is there, but not for this node kind.
    Platform,
    /// No client in scope runs on the node kind, or the catalog knows no image for it.
    Scope,
}

/// Something without which a node kind would not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// The image, or `None` if a node kind has no image at all.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<Reference>,
    /// The manifest or blob of the image that cannot be had, or `None` if it is the reference itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The node kinds that miss it. Empty if no node kind in particular needs it.
    pub nodes: Vec<NodeKind>,
    /// The client bands that find nothing. Empty if it makes no difference.
    pub clients: Vec<String>,
    /// What would not run.
    pub needed_by: Vec<NeededBy>,
    /// Whether only the evidence of the image is missing, and the image itself is there.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub evidence: bool,
    /// Why it cannot be had, for programs.
    pub kind: GapKind,
    /// The server that was asked, or `None` if none had to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Why it cannot be had, for an operator.
    pub reason: String,
    /// What may help.
    #[serde(skip)]
    pub hint: Option<String>,
}

impl Gap {
    /// Returns a gap of `reference` that nobody is known to miss yet.
    pub(super) fn new(reference: Option<Reference>, kind: GapKind, reason: String) -> Self {
        Self {
            reference,
            digest: None,
            nodes: Vec::new(),
            clients: Vec::new(),
            needed_by: Vec::new(),
            evidence: false,
            kind,
            host: None,
            reason,
            hint: None,
        }
    }

    /// Returns the gap that `error` leaves in `reference`.
    pub(super) fn from_error(reference: &Reference, error: &UpstreamError) -> Self {
        let (host, reason) = match error {
            UpstreamError::Read { host, problem, .. } | UpstreamError::Push { host, problem, .. } => {
                (Some(host.clone()), problem.to_string())
            }
            UpstreamError::Setup(_) => (None, error.to_string()),
        };
        Self { host, hint: error.hint(), ..Self::new(Some(reference.clone()), GapKind::of(error), reason) }
    }

    /// Returns what is missing, for the proof.
    pub(super) fn missing(&self, reference: &Reference) -> String {
        if self.evidence { format!("evidence of {reference}") } else { reference.to_string() }
    }
}

impl GapKind {
    /// Returns the kind of gap that `error` leaves.
    pub fn of(error: &UpstreamError) -> Self {
        error.problem().map_or(Self::Unreadable, Self::of_problem)
    }

    fn of_problem(problem: &Problem) -> Self {
        match problem {
            Problem::Missing(_) => Self::Missing,
            Problem::Unauthorized(_) | Problem::Status { status: 401 | 403, .. } => Self::Denied,
            Problem::Credentials(_) => Self::Credentials,
            Problem::RateLimited { .. } => Self::RateLimited,
            Problem::Unreachable { .. } | Problem::Tls { .. } | Problem::TimedOut | Problem::Broken(_) => {
                Self::Unreachable
            }
            Problem::Size { .. } | Problem::Digest { .. } => Self::Damaged,
            Problem::Manifest(ManifestError::Schema1) => Self::Schema1,
            Problem::TokenServer { problem, .. } | Problem::Elsewhere { problem, .. } => {
                Self::of_problem(problem)
            }
            Problem::Status { .. }
            | Problem::Answer(_)
            | Problem::TooLarge { .. }
            | Problem::Offset { .. }
            | Problem::Manifest(_)
            | Problem::Redirect(_)
            | Problem::Realm(_) => Self::Unreadable,
        }
    }
}

impl std::fmt::Display for Gap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let nodes: Vec<String> = self.nodes.iter().map(ToString::to_string).collect();
        let nodes = nodes.join(", ");
        match &self.reference {
            Some(reference) if nodes.is_empty() => write!(f, "{reference}")?,
            Some(reference) => write!(f, "{reference} for {nodes}")?,
            None => f.write_str(&nodes)?,
        }
        match &self.host {
            Some(host) => write!(f, ": {host}: {}", self.reason)?,
            None => write!(f, ": {}", self.reason)?,
        }
        let needed_by: Vec<String> = self.needed_by.iter().map(ToString::to_string).collect();
        if !needed_by.is_empty() {
            write!(f, "; needed by {}", needed_by.join(", "))?;
        }
        if !self.clients.is_empty() {
            write!(f, "; on {}", self.clients.join(", "))?;
        }
        Ok(())
    }
}
