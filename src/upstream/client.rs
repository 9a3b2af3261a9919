//! The HTTP client: trust, timeouts and proxies.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Certificate, ClientBuilder};
use url::{Host, Url};

use super::error::SetupError;
use super::retry::root_cause;

/// The largest file of certificate authorities, in bytes; the system's bundle is a fifth of it.
const MAX_CA_FILE: u64 = 1024 * 1024;

/// How this program's clients call themselves.
const USER_AGENT: &str = concat!("dray/", env!("CARGO_PKG_VERSION"));

/// Returns whether a client that calls itself `user_agent` is this program, of any version.
pub fn is_own_agent(user_agent: &str) -> bool {
    user_agent.starts_with("dray/")
}

/// How long to wait for a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// For the next byte. There is no limit on a whole blob.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(15), idle: Duration::from_mins(1) }
    }
}

/// A client that takes proxies from the environment, as `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` say, except on the
/// way to this machine itself, which no proxy can reach. Go's clients make the same exception
/// (`golang.org/x/net/http/httpproxy`).
#[derive(Debug)]
pub(super) struct Client {
    proxied: reqwest::Client,
    direct: reqwest::Client,
}

impl Client {
    /// A client that trusts the authorities in `ca_files` besides the system's.
    pub(super) fn new(timeouts: Timeouts, ca_files: &[PathBuf]) -> Result<Self, SetupError> {
        Self::with(timeouts.connect, Some(timeouts.idle), ca_files)
    }

    /// The same for sending bodies: it waits for an answer for as long as it takes, since that comes when all is sent.
    pub(super) fn patient(timeouts: Timeouts, ca_files: &[PathBuf]) -> Result<Self, SetupError> {
        Self::with(timeouts.connect, None, ca_files)
    }

    fn with(connect: Duration, idle: Option<Duration>, ca_files: &[PathBuf]) -> Result<Self, SetupError> {
        let mut authorities = Vec::new();
        for path in ca_files {
            authorities.extend(read_authorities(path)?);
        }
        let builder = || {
            let client = reqwest::Client::builder()
                .user_agent(USER_AGENT)
                .connect_timeout(connect)
                .redirect(Policy::none());
            match idle {
                Some(idle) => client.read_timeout(idle),
                None => client,
            }
        };
        Ok(Self {
            proxied: with_trust(&builder, &authorities)?,
            direct: with_trust(&|| builder().no_proxy(), &authorities)?,
        })
    }

    /// The client for requests to `url`. It follows no redirects.
    pub(super) fn to(&self, url: &Url) -> &reqwest::Client {
        if is_loopback(url) { &self.direct } else { &self.proxied }
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn with_trust(
    builder: &dyn Fn() -> ClientBuilder,
    authorities: &[Certificate],
) -> Result<reqwest::Client, SetupError> {
    let client = if authorities.is_empty() {
        // A machine without any certificate authorities can still talk to registries without TLS; the others are
        // refused when they are asked, and the error says to give a file.
        builder().build().or_else(|_| builder().tls_certs_only([]).build())
    } else {
        builder().tls_certs_merge(authorities.iter().cloned()).build()
    };
    client.map_err(|error| SetupError::Client(root_cause(&error)))
}

/// Reads a PEM file of certificate authorities, all of which must be usable.
fn read_authorities(path: &Path) -> Result<Vec<Certificate>, SetupError> {
    let unusable = |reason: String| SetupError::CaFile { path: path.to_owned(), reason };
    let length = fs_err::metadata(path).map_err(|error| unusable(error.to_string()))?.len();
    if length > MAX_CA_FILE {
        return Err(unusable(format!("it is larger than {MAX_CA_FILE} bytes")));
    }
    let pem = fs_err::read(path).map_err(|error| unusable(error.to_string()))?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| unusable(root_cause(&error)))?;
    if certificates.is_empty() {
        return Err(unusable("it holds no PEM certificate".into()));
    }
    // Only a whole client looks into the certificates; one with nothing else in it tells which file is bad.
    ClientBuilder::new()
        .tls_certs_only(certificates.iter().cloned())
        .build()
        .map_err(|error| unusable(root_cause(&error)))?;
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_reached_without_a_proxy() {
        for (url, expected) in [
            ("http://127.0.0.1:5000/", true),
            ("https://127.9.9.9/", true),
            ("http://[::1]:5000/", true),
            ("http://LOCALHOST/", true),
            ("https://localhost.example.org/", false),
            ("https://10.0.0.1/", false),
            ("https://[fe80::1]/", false),
        ] {
            assert_eq!(is_loopback(&url.parse().unwrap()), expected, "{url}");
        }
    }

    fn error(content: &[u8]) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs_err::write(file.path(), content).unwrap();
        let error = Client::new(Timeouts::default(), &[file.path().to_owned()]).unwrap_err().to_string();
        assert!(error.contains(&file.path().display().to_string()), "{error}");
        error
    }

    #[test]
    fn bad_files_of_authorities_are_named() {
        assert!(error(b"").contains("no PEM certificate"));
        assert!(error(b"not PEM at all").contains("no PEM certificate"));
        error(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        error(b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n");
        let absent = PathBuf::from("/absent/ca.pem");
        let error = Client::new(Timeouts::default(), &[absent]).unwrap_err().to_string();
        assert!(error.contains("/absent/ca.pem"), "{error}");
    }
}
