//! Where a registry's images are read from: its own address, or a server that stands in for it.

use std::collections::{BTreeMap, BTreeSet};

use url::Url;

use crate::oci::RepositoryName;

/// The host that names without one belong to.
const DEFAULT_HOST: &str = "docker.io";
/// Where Docker Hub's registry is; its name in references has no registry behind it.
const DOCKER_HUB_SERVER: &str = "registry-1.docker.io";

/// Why `HOST=URL` names no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// There is no `=`.
    #[error("`{0}` is not HOST=URL; write for instance quay.io=https://mirror.example.org/quay.io")]
    Form(String),
    /// The left side is not a registry host.
    #[error("`{0}` is not a registry host; write the part of an image reference before its first slash")]
    Host(String),
    /// The right side is not a URL of a server.
    #[error("`{url}` is not the URL of a registry: {reason}")]
    Url {
        /// The URL as given, without credentials.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Reads `HOST=URL`: HOST's images are read from URL.
///
/// A path in the URL goes in front of the repository: with `registry.k8s.io=http://127.0.0.1:5001/registry.k8s.io`,
/// `registry.k8s.io/pause:3.9` is read from `http://127.0.0.1:5001/v2/registry.k8s.io/pause/manifests/3.9`.
pub fn parse_endpoint(text: &str) -> Result<(String, Url), EndpointError> {
    let (host, url) = text.split_once('=').ok_or_else(|| EndpointError::Form(text.to_owned()))?;
    let host = normal_host(host);
    // A repository under the host is a name only if the host is one.
    let valid = format!("{host}/x").parse::<RepositoryName>().is_ok_and(|name| name.host() == Some(&*host));
    if !valid {
        return Err(EndpointError::Host(host));
    }
    let url = url.parse().map_err(|error: url::ParseError| EndpointError::Url {
        url: url.to_owned(),
        reason: error.to_string(),
    })?;
    check_url(&url)?;
    Ok((host, url))
}

/// Checks that `url` can be an endpoint: a server, perhaps a path, and nothing else.
fn check_url(url: &Url) -> Result<(), EndpointError> {
    let reason = if !matches!(url.scheme(), "http" | "https") {
        "it does not start with https:// or http://"
    } else if url.host().is_none() {
        "it has no host"
    } else if !url.username().is_empty() || url.password().is_some() {
        "credentials do not belong there; put them into an auth file with `podman login`"
    } else if url.query().is_some() || url.fragment().is_some() {
        "it has a query or a fragment"
    } else {
        return Ok(());
    };
    let mut shown = url.clone();
    // These fail only for URLs that cannot have credentials, and those have none to hide.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    Err(EndpointError::Url { url: shown.into(), reason: reason.into() })
}

/// Lower case, and Docker Hub's other names folded into `docker.io`.
fn normal_host(host: &str) -> String {
    match host.to_ascii_lowercase().as_str() {
        "index.docker.io" | DOCKER_HUB_SERVER => DEFAULT_HOST.into(),
        other => other.into(),
    }
}

/// Which server stands for which registry host.
#[derive(Clone, Debug)]
pub(super) struct Endpoints {
    given: BTreeMap<String, Url>,
    plain_http: BTreeSet<String>,
}

impl Endpoints {
    pub(super) fn new(
        given: BTreeMap<String, Url>,
        plain_http: &BTreeSet<String>,
    ) -> Result<Self, EndpointError> {
        given.values().try_for_each(check_url)?;
        Ok(Self {
            given: given.into_iter().map(|(host, url)| (normal_host(&host), url)).collect(),
            plain_http: plain_http.iter().map(|host| normal_host(host)).collect(),
        })
    }

    /// Where the repository `name` is read from.
    pub(super) fn locate(&self, name: &RepositoryName) -> Result<Endpoint, EndpointError> {
        let host = normal_host(name.host().unwrap_or(DEFAULT_HOST));
        if let Some(url) = self.given.get(&host) {
            return Ok(Endpoint::new(host, url.clone(), name.path()));
        }
        let server = if host == DEFAULT_HOST { DOCKER_HUB_SERVER } else { &host };
        let scheme = if self.plain_http.contains(&host) { "http" } else { "https" };
        let url = format!("{scheme}://{server}/");
        match url.parse() {
            Ok(parsed) => Ok(Endpoint::new(host, parsed, name.path())),
            Err(error) => Err(EndpointError::Url { url, reason: error.to_string() }),
        }
    }

    /// Where the file at `url` is read from: there, or under the URL of the server that stands in for its host.
    pub(super) fn locate_file(&self, url: &Url) -> (Endpoint, Url) {
        let host = normal_host(&authority(url));
        let mut at = url.clone();
        if let Some(given) = self.given.get(&host) {
            at = given.clone();
            at.set_path(&format!("{}{}", given.path().trim_end_matches('/'), url.path()));
            at.set_query(url.query());
        }
        (Endpoint { host, server: at.clone(), repository: String::new() }, at)
    }
}

/// One repository on one server.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    /// The registry host of the references that are read here.
    host: String,
    /// The server; the path is not used.
    server: Url,
    /// The repository as the server calls it.
    repository: String,
}

impl Endpoint {
    fn new(host: String, url: Url, path: &str) -> Self {
        let prefix = url.path().trim_matches('/');
        // People paste the URL with the API's own prefix, too.
        let prefix = match prefix.strip_prefix("v2") {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => rest.trim_start_matches('/'),
            _ => prefix,
        };
        let repository = if prefix.is_empty() { path.to_owned() } else { format!("{prefix}/{path}") };
        Self { host, server: url, repository }
    }

    /// The URL of something in the repository: `manifests/3.9`, `blobs/sha256:…`, `tags/list`.
    pub(super) fn url(&self, rest: &str) -> Url {
        let mut url = self.server.clone();
        url.set_path(&format!("/v2/{}/{rest}", self.repository));
        url
    }

    /// The repository as the server calls it.
    pub(super) fn repository(&self) -> &str {
        &self.repository
    }

    /// Scheme, host and port; credentials and tokens never leave it, except for the token server it names.
    pub(super) fn origin(&self) -> String {
        self.server.origin().ascii_serialization()
    }

    /// Whether `url` is on this server.
    pub(super) fn is_at(&self, url: &Url) -> bool {
        url.origin() == self.server.origin()
    }

    /// Whether the server is spoken to without TLS.
    pub(super) fn is_plain(&self) -> bool {
        self.server.scheme() == "http"
    }

    /// The server's name with its port.
    pub(super) fn server(&self) -> String {
        authority(&self.server)
    }

    /// The host that credentials are filed under: the server's own, never that of the registry it stands in for.
    pub(super) fn credential_host(&self) -> String {
        normal_host(&self.server())
    }

    /// The server as an error message calls it.
    pub(super) fn describe(&self) -> String {
        let server = self.credential_host();
        if server == self.host { server } else { format!("{server} (in place of {})", self.host) }
    }
}

/// Host and port of `url`, the port only where it is not the scheme's own.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn locate(given: &[&str], plain: &[&str], name: &str) -> Endpoint {
        let given = given.iter().map(|text| parse_endpoint(text).unwrap()).collect();
        let plain = plain.iter().map(ToString::to_string).collect();
        Endpoints::new(given, &plain).unwrap().locate(&name.parse().unwrap()).unwrap()
    }

    #[test]
    fn hosts_become_servers() {
        for (given, plain, name, expected) in [
            (vec![], vec![], "registry.k8s.io/pause", "https://registry.k8s.io/v2/pause/tags/list"),
            (
                vec![],
                vec![],
                "docker.io/library/nginx",
                "https://registry-1.docker.io/v2/library/nginx/tags/list",
            ),
            (
                vec!["registry.k8s.io=http://127.0.0.1:5001/registry.k8s.io"],
                vec![],
                "registry.k8s.io/pause",
                "http://127.0.0.1:5001/v2/registry.k8s.io/pause/tags/list",
            ),
            (
                vec!["index.docker.io=https://mirror.example.org/hub/"],
                vec![],
                "docker.io/library/nginx",
                "https://mirror.example.org/v2/hub/library/nginx/tags/list",
            ),
            (
                vec!["quay.io=https://m.example.org/v2/quay.io"],
                vec![],
                "quay.io/a/b",
                "https://m.example.org/v2/quay.io/a/b/tags/list",
            ),
            (
                vec!["quay.io=https://m.example.org/v2x"],
                vec![],
                "quay.io/a",
                "https://m.example.org/v2/v2x/a/tags/list",
            ),
            (vec![], vec![], "localhost:5000/a", "https://localhost:5000/v2/a/tags/list"),
            (vec![], vec!["localhost:5000"], "localhost:5000/a", "http://localhost:5000/v2/a/tags/list"),
            (vec![], vec![], "[::1]:5000/a", "https://[::1]:5000/v2/a/tags/list"),
        ] {
            assert_eq!(locate(&given, &plain, name).url("tags/list").as_str(), expected);
        }
    }

    #[test]
    fn files_are_read_below_the_server_that_stands_in() {
        let locate = |given: &str, url: &str| {
            let endpoints =
                Endpoints::new([parse_endpoint(given).unwrap()].into(), &BTreeSet::new()).unwrap();
            let (endpoint, at) = endpoints.locate_file(&url.parse().unwrap());
            (endpoint.describe(), String::from(at))
        };
        let given = "dl.k8s.io=http://127.0.0.1:5001/files/dl.k8s.io/";
        assert_eq!(
            locate(given, "https://dl.k8s.io/v1.36.3%2Bk0s.2/x.exe?a=b"),
            (
                "127.0.0.1:5001 (in place of dl.k8s.io)".to_owned(),
                "http://127.0.0.1:5001/files/dl.k8s.io/v1.36.3%2Bk0s.2/x.exe?a=b".to_owned()
            )
        );
        for elsewhere in ["https://dl.k8s.io:8443/x", "https://example.org/dl.k8s.io/x"] {
            assert_eq!(locate(given, elsewhere).1, elsewhere);
        }
    }

    #[test]
    fn credentials_are_filed_under_the_server() {
        let mirror = locate(&["registry.k8s.io=http://127.0.0.1:5001/k8s"], &[], "registry.k8s.io/pause");
        assert_eq!(mirror.credential_host(), "127.0.0.1:5001");
        assert_eq!(mirror.repository(), "k8s/pause");
        assert_eq!(mirror.describe(), "127.0.0.1:5001 (in place of registry.k8s.io)");
        let hub = locate(&[], &[], "docker.io/library/nginx");
        assert_eq!(hub.credential_host(), "docker.io");
        assert_eq!(hub.describe(), "docker.io");
    }

    #[test]
    fn refuses() {
        for bad in [
            "quay.io",
            "=https://a.b",
            "quay.io/x=https://a.b",
            "quay=https://a.b",
            "quay.io=a.b",
            "quay.io=ftp://a.b",
            "quay.io=https://",
            "quay.io=https://a.b?x=1",
            "quay.io=https://a.b#x",
        ] {
            assert!(parse_endpoint(bad).is_err(), "{bad}");
        }
        let error = parse_endpoint("quay.io=https://me:secret@a.b/c").unwrap_err().to_string();
        assert!(!error.contains("secret") && error.contains("auth file"), "{error}");
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,80}") {
            let _ = parse_endpoint(&text);
        }

        #[test]
        fn a_name_stays_on_its_server(name in "[a-z0-9]{1,8}\\.io(:[0-9]{1,4})?(/[a-z0-9]{1,8}){1,3}") {
            if let Ok(name) = name.parse::<RepositoryName>() {
                let endpoints = Endpoints::new(BTreeMap::new(), &BTreeSet::new()).unwrap();
                if let Ok(endpoint) = endpoints.locate(&name) {
                    let url = endpoint.url("manifests/latest");
                    prop_assert!(endpoint.is_at(&url));
                    prop_assert_eq!(url.path(), format!("/v2/{}/manifests/latest", name.path()));
                }
            }
        }
    }
}
