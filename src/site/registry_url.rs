//! The address of the site's registry, and the upstream hosts that it stands in for, as configuration files name them.

use std::fmt;
use std::str::FromStr;

use url::Url;

use crate::oci::RepositoryName;

/// Why a text is not the address of a registry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseRegistryError {
    /// Not of the form that a registry has.
    #[error("`{0}` is not the address of a registry; write https://registry.site.local:5000")]
    Form(String),
    /// More than scheme, host and port.
    #[error(
        "`{0}` has more than a scheme, a host and a port; the paths are the clients' own business, and credentials do \
         not belong into files that every node has"
    )]
    TooMuch(String),
    /// Not the name of an upstream registry.
    #[error("`{0}` is not a registry host; write quay.io or registry.example.com:5000")]
    Host(String),
}

/// The address of the site's registry: `https://registry.site.local:5000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryUrl {
    https: bool,
    /// Host, and the port unless it is the scheme's own.
    authority: String,
}

impl RegistryUrl {
    /// Whether clients talk TLS to it.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// Host and port, as image references name the registry.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The address under which the API has the images of one upstream only. Clients that are told so use the path as it
    /// is and send nothing else about the upstream.
    pub fn of_host(&self, host: &RegistryHost) -> String {
        format!("{self}/v2/{host}")
    }
}

impl fmt::Display for RegistryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.https { "https" } else { "http" }, self.authority)
    }
}

impl FromStr for RegistryUrl {
    type Err = ParseRegistryError;

    /// Reads an address; without a scheme it is https.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shown = || text.chars().take(80).collect::<String>();
        let complete = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let url = Url::parse(&complete).map_err(|_| ParseRegistryError::Form(shown()))?;
        let (Some(host), "http" | "https") = (url.host_str(), url.scheme()) else {
            return Err(ParseRegistryError::Form(shown()));
        };
        let bare = matches!(url.path(), "" | "/")
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        if !bare {
            return Err(ParseRegistryError::TooMuch(shown()));
        }
        let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        // Image references must be able to name it.
        authority.parse::<RegistryHost>().map_err(|_| ParseRegistryError::Form(shown()))?;
        Ok(Self { https: url.scheme() == "https", authority })
    }
}

/// The host of an upstream registry, with its port if it has one. No other characters than `[A-Za-z0-9.:-]` and, for
/// addresses, brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegistryHost(Box<str>);

impl RegistryHost {
    /// The host as a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the directory in which containerd looks for the host's file. The form with underscores is the one
    /// that both systems know; on Windows a name cannot have a colon.
    ///
    /// Source: containerd `core/remotes/docker/config/config_{unix,windows}.go`, `hostPaths`.
    pub fn directory(&self) -> String {
        match self.0.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => format!("{host}_{port}_"),
            _ => self.0.to_string(),
        }
    }
}

impl fmt::Display for RegistryHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RegistryHost {
    type Err = ParseRegistryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = match text {
            "index.docker.io" | "registry-1.docker.io" => "docker.io",
            other => other,
        };
        let name = format!("{text}/x").parse::<RepositoryName>();
        match name {
            Ok(name) if name.host() == Some(text) => Ok(Self(text.into())),
            _ => Err(ParseRegistryError::Host(text.chars().take(80).collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses() {
        for (text, shown) in [
            ("https://registry.site.local:5000", "https://registry.site.local:5000"),
            ("https://registry.site.local:443/", "https://registry.site.local"),
            ("registry.site.local:5000", "https://registry.site.local:5000"),
            ("HTTP://127.0.0.1:5000", "http://127.0.0.1:5000"),
            ("http://[::1]:5000", "http://[::1]:5000"),
        ] {
            assert_eq!(text.parse::<RegistryUrl>().unwrap().to_string(), shown, "{text}");
        }
        for bad in [
            "",
            "registry",
            "ftp://registry.site.local",
            "https://registry.site.local/v2/",
            "https://user:secret@registry.site.local",
            "https://registry.site.local?ns=docker.io",
            "https://a b.local",
        ] {
            assert!(bad.parse::<RegistryUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn directories_have_no_colon() {
        for (host, directory) in [
            ("quay.io", "quay.io"),
            ("registry.example.com:5000", "registry.example.com_5000_"),
            ("registry-1.docker.io", "docker.io"),
        ] {
            assert_eq!(host.parse::<RegistryHost>().unwrap().directory(), directory);
        }
        for bad in ["", "quay", "../x", "a.b/c", "a.b\"", "a.b:"] {
            assert!(bad.parse::<RegistryHost>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_needs_no_quoting(text in ".{0,40}") {
            if let Ok(url) = text.parse::<RegistryUrl>() {
                let plain = |c: char| c.is_ascii_alphanumeric() || ".:-[]".contains(c);
                prop_assert!(url.authority().chars().all(plain));
            }
        }
    }
}
