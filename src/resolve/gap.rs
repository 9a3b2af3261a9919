//! Content that a definition needs and that cannot be had.

use serde::{Deserialize, Serialize};
use url::Url;

use super::{FILES_LIST, NeededBy};
use crate::oci::{Digest, ManifestError, NodeKind, Reference};
use crate::select::Clients;
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
    /// The address of the file, or `None` if it is an image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<Url>,
    /// The manifest or blob of the image that cannot be had, or `None` if it is the reference itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The node kinds that miss it. Empty if no node kind in particular needs it.
    pub nodes: Vec<NodeKind>,
    /// The clients that find nothing. Empty if it makes no difference.
    pub clients: Clients,
    /// What would not run.
    pub needed_by: Vec<NeededBy>,
    /// Whether only the evidence of the image is missing, and the image itself is there.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub evidence: bool,
    /// Why it cannot be had, for programs.
    pub kind: GapKind,
    /// The host of the image or the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The server that was asked in words, with the host if it stands in for that.
    #[serde(skip)]
    pub server: Option<String>,
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
            host: reference.as_ref().map(|reference| reference.host().to_owned()),
            reference,
            url: None,
            digest: None,
            nodes: Vec::new(),
            clients: Clients::default(),
            needed_by: Vec::new(),
            evidence: false,
            kind,
            server: None,
            reason,
            hint: None,
        }
    }

    /// Returns the gap that `error` leaves in `reference`.
    pub(super) fn from_error(reference: &Reference, error: &UpstreamError) -> Self {
        Self::new(Some(reference.clone()), GapKind::of(error), String::new()).because_of(error)
    }

    /// Returns the gap that `error` leaves in the files of a definition.
    pub(super) fn of_file(url: &Url, error: &UpstreamError) -> Self {
        let gap = Self {
            host: url.host_str().map(str::to_owned),
            url: Some(url.clone()),
            needed_by: vec![NeededBy::list(FILES_LIST)],
            ..Self::new(None, GapKind::of(error), String::new())
        };
        gap.because_of(error)
    }

    fn because_of(self, error: &UpstreamError) -> Self {
        let (server, reason) = match error {
            UpstreamError::Read { host, problem, .. } | UpstreamError::Push { host, problem, .. } => {
                (Some(host.clone()), problem.to_string())
            }
            UpstreamError::Setup(_) => (None, error.to_string()),
        };
        Self { server, reason, hint: error.hint(), ..self }
    }

    /// Returns the reference or the address, or `None` if a node kind has no image at all.
    pub(super) fn name(&self) -> Option<String> {
        let url = || self.url.as_ref().map(ToString::to_string);
        self.reference.as_ref().map(ToString::to_string).or_else(url)
    }

    /// Returns what gaps are sorted by.
    pub(super) fn sort_key(&self) -> impl Ord + use<> {
        let reference = self.reference.clone();
        let url = self.url.as_ref().map(ToString::to_string);
        (
            reference,
            url,
            self.evidence,
            self.nodes.clone(),
            self.kind,
            self.digest.clone(),
            self.reason.clone(),
        )
    }

    /// Returns what is missing, for the proof.
    pub(super) fn missing(&self, reference: &Reference) -> String {
        if self.evidence { format!("evidence of {reference}") } else { reference.to_string() }
    }

    /// Joins gaps that differ in nothing but their node kinds, then those that differ in nothing but who needs them.
    pub(super) fn join(gaps: Vec<Self>) -> Vec<Self> {
        let by_nodes = join_by(gaps, |gap| &mut gap.nodes);
        join_by(by_nodes, |gap| &mut gap.needed_by)
    }
}

/// Joins gaps that are the same apart from one of their lists.
fn join_by<T: Ord>(gaps: Vec<Gap>, list: fn(&mut Gap) -> &mut Vec<T>) -> Vec<Gap> {
    let mut joined: Vec<(Gap, Vec<T>)> = Vec::new();
    for mut gap in gaps {
        let own = std::mem::take(list(&mut gap));
        match joined.iter_mut().find(|(known, _)| *known == gap) {
            Some((_, known)) => known.extend(own),
            None => joined.push((gap, own)),
        }
    }
    let whole = |(mut gap, mut own): (Gap, Vec<T>)| {
        own.sort();
        own.dedup();
        *list(&mut gap) = own;
        gap
    };
    joined.into_iter().map(whole).collect()
}

impl GapKind {
    /// Returns the kind of gap that `error` leaves.
    pub fn of(error: &UpstreamError) -> Self {
        error.problem().map_or(Self::Unreadable, Self::of_problem)
    }

    /// Returns whether the kind says something about the host more than about one image.
    pub(super) fn is_of_host(self) -> bool {
        match self {
            Self::Denied | Self::Credentials | Self::RateLimited | Self::Unreachable | Self::Unreadable => {
                true
            }
            Self::Missing | Self::Damaged | Self::Schema1 | Self::Platform | Self::Scope => false,
        }
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
            | Problem::Encoded(_)
            | Problem::TooLarge { .. }
            | Problem::Offset { .. }
            | Problem::Manifest(_)
            | Problem::Redirect(_)
            | Problem::Realm(_) => Self::Unreadable,
        }
    }
}
