//! Why something could not be read from a registry or pushed into one, in words that an operator can act on.

use std::path::PathBuf;
use std::time::Duration;

use super::credentials::CredentialError;
use super::endpoint::EndpointError;
use crate::oci::{Digest, ManifestError};

/// Why a registry could not be read from or pushed into.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The options make no usable client; nothing was sent.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// A registry, the way to it, or its answer is the trouble.
    #[error("cannot read {what} from {host}: {problem}")]
    Read {
        /// What was wanted: an image reference, a blob of a repository, a list.
        what: String,
        /// The server that was asked, and for which registry if it stands in for another.
        host: String,
        /// What went wrong.
        problem: Box<Problem>,
    },
    /// The registry that is pushed into, the way to it, or its answer is the trouble.
    #[error("cannot push {what} into {host}: {problem}")]
    Push {
        /// What was to be pushed: a blob, a manifest or a tag of a repository.
        what: String,
        /// The server.
        host: String,
        /// What went wrong.
        problem: Box<Problem>,
    },
}

/// Why the options make no usable client.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A file of certificate authorities cannot be used.
    #[error("the certificate authorities in {path} cannot be used: {reason}")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// An endpoint is not one.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The HTTP client cannot be made, for instance because a proxy setting is malformed.
    #[error("the HTTP client cannot be set up: {0}")]
    Client(String),
}

/// What went wrong between a request and its answer.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The registry does not have it.
    #[error("the {holder} has no such {0}", holder = .0.holder())]
    Missing(Missing),
    /// The registry or its token server wants other credentials.
    #[error("{0}")]
    Unauthorized(Refusal),
    /// Too many requests, also after waiting.
    #[error("the server limits the rate of requests{}", wait_text(*.wait))]
    RateLimited {
        /// How long the server asks to wait, if it says so.
        wait: Option<Duration>,
    },
    /// No connection came about.
    #[error("no connection to {host}: {reason}")]
    Unreachable {
        /// The server, which is not the registry's own where that redirects.
        host: String,
        /// What the system says.
        reason: String,
    },
    /// The connection came about but its encryption did not.
    #[error("no trusted TLS connection to {host}: {reason}")]
    Tls {
        /// The server, which is not the registry's own where that redirects.
        host: String,
        /// What the TLS library says.
        reason: String,
    },
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// Nothing arrived for too long.
    #[error("no answer in time")]
    TimedOut,
    /// A status that has no better variant here.
    #[error("the server answered {status}{}", detail_text(.detail))]
    Status {
        /// The HTTP status.
        status: u16,
        /// What the server says about it; empty if nothing.
        detail: String,
    },
    /// An answer that the protocol does not allow.
    #[error("the server's answer makes no sense: {0}")]
    Answer(String),
    /// The content came in a coding that the request did not accept (RFC 9110, section 12.5.3).
    #[error(
        "the server sends the content with the coding `{0}`, although only the content itself was accepted"
    )]
    Encoded(String),
    /// More bytes than the limit for this kind of document or than the descriptor says.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The size is not the one in the descriptor or the lock.
    #[error("the server has {actual} bytes where {expected} are expected")]
    Size {
        /// What was stated before, in bytes.
        expected: u64,
        /// What the server has, in bytes.
        actual: u64,
    },
    /// A reader wants to go on behind the end of a blob.
    #[error("there is nothing from byte {offset} on, it has {size} bytes")]
    Offset {
        /// Where reading was to start, in bytes.
        offset: u64,
        /// The size of the blob in bytes.
        size: u64,
    },
    /// The registry does not hold a foreign layer, and the address in its descriptor does not give it either.
    #[error("the registry does not hold this foreign layer, and {host} does not give it: {problem}")]
    Elsewhere {
        /// The server of the address.
        host: String,
        /// What went wrong there.
        problem: Box<Problem>,
    },
    /// The bytes are not the ones asked for.
    #[error("the content has digest {actual} instead of {expected}")]
    Digest {
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// The bytes are not a manifest that can be carried.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The answer points where no request may go.
    #[error("the server redirects {0}")]
    Redirect(String),
    /// The token server that the registry names must not be asked.
    #[error("the registry names a token server that is not safe to ask: {0}")]
    Realm(String),
    /// The token server that the registry names gives no token; not because of who asks.
    #[error("the token server {host} gives no token: {problem}")]
    TokenServer {
        /// The token server.
        host: String,
        /// What went wrong there.
        problem: Box<Problem>,
    },
    /// Credentials could not be had from where they are configured.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
}

/// What a registry does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The whole repository.
    Repository,
    /// The tag.
    Tag,
    /// The manifest with this digest.
    Manifest,
    /// The blob.
    Blob,
    /// The file at an address.
    File,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Repository => "repository",
            Self::Tag => "tag",
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::File => "file",
        })
    }
}

impl Missing {
    /// What kind of server lacks it.
    fn holder(self) -> &'static str {
        if self == Self::File { "server" } else { "registry" }
    }
}

/// Who was refused what.
#[derive(Debug, thiserror::Error)]
#[error("{by} refused {}{}", identity.text(), detail_text(.detail))]
pub struct Refusal {
    /// The server that refused: the registry or its token server.
    pub by: String,
    /// The host that credentials are looked up under.
    pub registry: String,
    /// Who asked.
    pub identity: Identity,
    /// What the server says about it; empty if nothing.
    pub detail: String,
}

/// Who a request was made as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// No credentials are configured for the registry.
    Anonymous {
        /// Where they were looked for.
        looked_in: Vec<String>,
    },
    /// Credentials were sent.
    Known {
        /// The file or helper that they come from.
        source: String,
    },
}

impl Identity {
    fn text(&self) -> String {
        match self {
            Self::Anonymous { .. } => "the request without credentials".into(),
            Self::Known { source } => format!("the credentials from {source}"),
        }
    }
}

impl UpstreamError {
    /// A failed read; for implementations of [`Manifests`](super::Manifests) other than the network's.
    pub fn read(what: impl Into<String>, host: impl Into<String>, problem: Problem) -> Self {
        Self::Read { what: what.into(), host: host.into(), problem: Box::new(problem) }
    }

    /// A failed push.
    pub(super) fn push(what: impl Into<String>, host: impl Into<String>, problem: Problem) -> Self {
        Self::Push { what: what.into(), host: host.into(), problem: Box::new(problem) }
    }

    /// What went wrong between a request and its answer, if something did.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Setup(_) => None,
            Self::Read { problem, .. } | Self::Push { problem, .. } => Some(problem),
        }
    }

    /// Whether the registry answered that it does not have what was asked for.
    pub fn is_missing(&self) -> bool {
        matches!(self.problem(), Some(Problem::Missing(_)))
    }

    /// Whether other credentials would help.
    pub fn is_auth(&self) -> bool {
        matches!(self.problem(), Some(Problem::Unauthorized(_) | Problem::Credentials(_)))
    }

    /// What an operator may do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Setup(_) => None,
            Self::Read { problem, .. } => problem.hint(),
            Self::Push { problem, .. } => problem.push_hint(),
        }
    }
}

impl Problem {
    fn push_hint(&self) -> Option<String> {
        let hint = match self {
            Self::Unauthorized(refusal) => return Some(refusal.hint()),
            Self::Missing(_) => {
                "check the spelling of the registry and the prefix; some registries want a project made first"
            }
            Self::Unreachable { .. } | Self::TimedOut | Self::Broken(_) => {
                "check that the registry is up and can be reached from here, then run the same command again: what has \
                 arrived is not sent again"
            }
            Self::Status { status: 405, .. } => "this registry is read-only",
            Self::Status { status: 507, .. } => {
                "the registry's disk is full; make room, then run the same command again"
            }
            other => return other.hint(),
        };
        Some(hint.into())
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Unauthorized(refusal) => return Some(refusal.hint()),
            Self::Credentials(error) => return error.hint(),
            Self::TokenServer { problem, .. } => return problem.hint(),
            Self::Missing(Missing::Blob) => {
                "the registry lost part of the image; push the image again, or read it from a mirror with \
                 --upstream HOST=URL"
            }
            Self::Missing(Missing::File) => {
                "check the address; --upstream HOST=URL reads the files of a host from a mirror"
            }
            Self::Missing(_) => {
                "check the spelling of the repository and the tag; some registries answer like this for private \
                 repositories when no credentials are sent"
            }
            Self::RateLimited { .. } => {
                "run the same command again later, log in to get a higher limit, or lower --concurrency"
            }
            Self::Unreachable { .. } | Self::TimedOut | Self::Broken(_) => {
                "check that the host is up and can be reached from here, and HTTPS_PROXY and NO_PROXY; \
                 --upstream HOST=URL reads from a mirror instead"
            }
            Self::Tls { .. } => {
                "give the certificate authority with --ca-file, or --plain-http HOST if the registry has no TLS"
            }
            Self::Encoded(_) => {
                "turn compression off in the server or in the proxy on the way; --upstream HOST=URL reads from a mirror \
                 instead"
            }
            Self::Elsewhere { .. } => {
                "push the layer into a registry that may hold it (many old Windows base images are foreign), and read \
                 the image from there with --upstream HOST=URL"
            }
            Self::Digest { .. } | Self::Size { .. } => {
                "the server or a proxy on the way serves damaged or other content; if it is an image, push it again; if \
                 it is a file, make the lock again"
            }
            _ => return None,
        };
        Some(hint.into())
    }
}

impl Refusal {
    fn hint(&self) -> String {
        let registry = &self.registry;
        match &self.identity {
            Identity::Anonymous { looked_in } if looked_in.is_empty() => {
                format!("no credentials for {registry} are configured")
            }
            Identity::Anonymous { looked_in } => format!(
                "no credentials for {registry} were found in {}; `podman login {registry}` or `docker login \
                 {registry}` stores them. Some registries answer like this for repositories that do not exist",
                looked_in.join(", ")
            ),
            Identity::Known { source } => format!(
                "check that the account in {source} has the right to the repository; `podman login {registry}` or `docker \
                 login {registry}` replaces the credentials"
            ),
        }
    }
}

fn wait_text(wait: Option<Duration>) -> String {
    wait.map(|wait| format!(" and asks to wait {} s", wait.as_secs())).unwrap_or_default()
}

fn detail_text(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(" ({detail})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unauthorized(identity: Identity) -> UpstreamError {
        let refusal =
            Refusal { by: "ghcr.io".into(), registry: "ghcr.io".into(), identity, detail: "DENIED".into() };
        UpstreamError::read("ghcr.io/acme/agent:2.4", "ghcr.io", Problem::Unauthorized(refusal))
    }

    #[test]
    fn names_the_image_and_the_host() {
        let error = UpstreamError::read(
            "registry.k8s.io/pause:3.99",
            "registry.k8s.io",
            Problem::Missing(Missing::Tag),
        );
        assert_eq!(
            error.to_string(),
            "cannot read registry.k8s.io/pause:3.99 from registry.k8s.io: the registry has no such tag"
        );
        assert!(error.is_missing() && !error.is_auth());
        assert!(error.hint().unwrap().contains("spelling"));
    }

    #[test]
    fn says_which_credentials_were_used() {
        let looked_in = vec!["/run/auth.json".to_owned(), "/root/.docker/config.json".to_owned()];
        let error = unauthorized(Identity::Anonymous { looked_in });
        assert_eq!(
            error.to_string(),
            "cannot read ghcr.io/acme/agent:2.4 from ghcr.io: ghcr.io refused the request without credentials (DENIED)"
        );
        assert!(error.hint().unwrap().contains("/run/auth.json, /root/.docker/config.json"));

        let error = unauthorized(Identity::Known { source: "/root/.docker/config.json".into() });
        assert!(error.is_auth());
        assert!(error.to_string().contains("the credentials from /root/.docker/config.json"));
    }
}
