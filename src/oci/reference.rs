//! Image references: `registry.k8s.io/pause:3.9`, completed the way Docker completes them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Digest, ParseDigestError};

/// The host that references without one belong to.
const DEFAULT_HOST: &str = "docker.io";
/// The tag of references that name none.
const DEFAULT_TAG: &str = "latest";
/// A repository name with its host; longer ones break clients (distribution/reference `NameTotalLengthMax`).
const MAX_NAME: usize = 255;

/// Why a string is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseReferenceError {
    /// Nothing is there.
    #[error("the image reference is empty")]
    Empty,
    /// Longer than clients accept.
    #[error("the name is longer than {MAX_NAME} characters")]
    TooLong,
    /// The host part is malformed.
    #[error("`{0}` is not a registry host")]
    Host(String),
    /// Repository names are lower case.
    #[error("repository name `{0}` has upper-case letters; registries accept lower case only")]
    UpperCase(String),
    /// The repository name has characters or separators in the wrong place.
    #[error("`{0}` is not a repository name (lower-case letters and digits, separated by . _ - and /)")]
    Repository(String),
    /// The tag has characters that no tag may have.
    #[error("`{0}` is not a tag (up to 128 letters, digits, _ . and -, not starting with . or -)")]
    Tag(String),
    /// The digest after `@` is malformed.
    #[error(transparent)]
    Digest(#[from] ParseDigestError),
}

/// A repository name: path components of lower-case letters, digits and separators, where the first may be a
/// registry host with a port.
///
/// The grammar is the OCI distribution specification's; the host in front is how a mirror of several
/// registries tells them apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName(Box<str>);

impl RepositoryName {
    /// The name as a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first component, when it can be a registry host: it has a dot or a port, or is `localhost`. With an underscore
    /// it is none: no host has one, but the grammar of repositories allows it.
    pub fn host(&self) -> Option<&str> {
        split_host(&self.0).map(|(host, _)| host)
    }

    /// Returns whether this and `other` are names of the same repository, such as those below `k8s.gcr.io` and
    /// `registry.k8s.io`.
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.path() == other.path() && self.host().map(canonical_host) == other.host().map(canonical_host)
    }

    /// The name without its host.
    pub fn path(&self) -> &str {
        match self.host() {
            Some(host) => &self.0[host.len() + 1..],
            None => &self.0,
        }
    }
}

impl FromStr for RepositoryName {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(ParseReferenceError::Empty);
        }
        if text.len() > MAX_NAME {
            return Err(ParseReferenceError::TooLong);
        }
        let path = match split_host(text) {
            Some((host, path)) => {
                check_host(host)?;
                path
            }
            None => text,
        };
        check_path(path)?;
        Ok(Self(text.into()))
    }
}

/// A tag.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Box<str>);

impl Tag {
    /// The tag as a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let valid = text.len() <= 128
            && text.bytes().next().is_some_and(word)
            && text.bytes().all(|b| word(b) || b == b'.' || b == b'-');
        if valid { Ok(Self(text.into())) } else { Err(ParseReferenceError::Tag(excerpt(text))) }
    }
}

/// A complete image reference: host, repository, and a tag or a digest or both.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    name: RepositoryName,
    tag: Option<Tag>,
    digest: Option<Digest>,
}

impl Reference {
    /// A reference put together from its parts; without tag and digest it means the tag `latest`.
    pub fn new(name: RepositoryName, tag: Option<Tag>, digest: Option<Digest>) -> Self {
        let tag = match (&tag, &digest) {
            (None, None) => Some(Tag(DEFAULT_TAG.into())),
            _ => tag,
        };
        Self { name, tag, digest }
    }

    /// Reads the reference of a Helm chart, whose version may have build metadata. A tag has no `+`, so Helm puts `_` in its
    /// place when it pushes a chart to a registry and when it pulls one from there (helm v3.18 `pkg/registry/client.go`,
    /// `registryUnderscoreMessage`).
    pub fn of_chart(text: &str) -> Result<Self, ParseReferenceError> {
        let (rest, digest) = text.split_once('@').map_or((text, None), |(rest, digest)| (rest, Some(digest)));
        let last = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, version) = rest.split_at(last);
        let reference = format!("{name}{}", version.replace('+', "_"));
        match digest {
            Some(digest) => format!("{reference}@{digest}").parse(),
            None => reference.parse(),
        }
    }

    /// Host and repository, `registry.k8s.io/pause`.
    pub fn name(&self) -> &RepositoryName {
        &self.name
    }

    /// The registry host with its port, `registry.k8s.io`.
    pub fn host(&self) -> &str {
        self.name.host().unwrap_or(DEFAULT_HOST)
    }

    /// The repository on that host, `pause`.
    pub fn repository(&self) -> &str {
        self.name.path()
    }

    /// The tag, if the reference has one.
    pub fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// The digest, if the reference is pinned.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(ParseReferenceError::Empty);
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (text, None),
        };
        // A colon before the last slash belongs to the host's port or IPv6 address.
        let last = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[last..].split_once(':') {
            Some((component, tag)) => (&rest[..last + component.len()], Some(tag.parse()?)),
            None => (rest, None),
        };
        let name: RepositoryName = complete(name).parse()?;
        match name.as_str().split_once('/') {
            // What Docker takes for a host is not read as a repository of Docker Hub.
            Some((host, _)) if name.host().is_none() => Err(ParseReferenceError::Host(excerpt(host))),
            _ => Ok(Self::new(name, tag, digest)),
        }
    }
}

/// Adds what Docker leaves out (`nginx` is `docker.io/library/nginx`) and folds Docker Hub's other names.
///
/// Source: distribution/reference `normalize.go`, `splitDockerDomain`.
fn complete(name: &str) -> String {
    let (host, path) = match name.split_once('/') {
        Some((first, rest)) if is_host(first) => (first, rest),
        _ => (DEFAULT_HOST, name),
    };
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" => DEFAULT_HOST,
        other => other,
    };
    if host == DEFAULT_HOST && !path.contains('/') {
        format!("{host}/library/{path}")
    } else {
        format!("{host}/{path}")
    }
}

/// Returns the host that images of the registry `host` are known by.
pub fn canonical_host(host: &str) -> &str {
    match host {
        // Docker Hub's other names.
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => "docker.io",
        // Frozen in 2023; everything in it is in the new one.
        "k8s.gcr.io" => "registry.k8s.io",
        other => other,
    }
}

/// Splits a name into its registry host and its path, if it has a host.
fn split_host(name: &str) -> Option<(&str, &str)> {
    let (first, path) = name.split_once('/')?;
    (is_host(first) && (first.contains(':') || !first.contains('_'))).then_some((first, path))
}

/// Whether Docker takes the first component of a reference for a registry host.
fn is_host(component: &str) -> bool {
    component == "localhost" || component.contains(['.', ':'])
}

fn check_host(host: &str) -> Result<(), ParseReferenceError> {
    let error = || ParseReferenceError::Host(excerpt(host));
    let (name, port) = if let Some(rest) = host.strip_prefix('[') {
        let (address, after) = rest.split_once(']').ok_or_else(error)?;
        address.parse::<std::net::Ipv6Addr>().map_err(|_| error())?;
        (None, after.strip_prefix(':').or_else(|| after.is_empty().then_some("")))
    } else {
        match host.split_once(':') {
            Some((name, port)) => (Some(name), Some(port)),
            None => (Some(host), Some("")),
        }
    };
    let port = port.ok_or_else(error)?;
    let has_port = host.ends_with(port) && !port.is_empty();
    let port_is_valid = if has_port { port.parse::<u16>().is_ok() } else { !host.ends_with(':') };
    let label = |label: &str| {
        let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
        edge(label.bytes().next())
            && edge(label.bytes().last())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if port_is_valid && name.is_none_or(|name| name.split('.').all(label)) { Ok(()) } else { Err(error()) }
}

/// Checks `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` for each component (OCI distribution specification, "Pull").
fn check_path(path: &str) -> Result<(), ParseReferenceError> {
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(ParseReferenceError::UpperCase(excerpt(path)));
    }
    if path.split('/').all(is_component) {
        Ok(())
    } else {
        Err(ParseReferenceError::Repository(excerpt(path)))
    }
}

fn is_component(component: &str) -> bool {
    let word = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut rest = component.as_bytes();
    loop {
        let letters = rest.iter().take_while(|b| word(b)).count();
        if letters == 0 {
            return false;
        }
        rest = &rest[letters..];
        let separators = rest.iter().take_while(|b| !word(b)).count();
        match &rest[..separators] {
            [] => return true,
            [b'.' | b'_'] | [b'_', b'_'] => {}
            dashes if dashes.iter().all(|b| *b == b'-') => {}
            _ => return false,
        }
        rest = &rest[separators..];
    }
}

/// The part of a foreign string that an error message may show.
fn excerpt(text: &str) -> String {
    text.chars().take(120).collect()
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Serialises a type as the string that it prints and parses.
macro_rules! as_string {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
as_string!(RepositoryName, Tag, Reference);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn chart_versions_with_build_metadata_are_tags_as_helm_makes_them() {
        for (text, expected) in [
            ("ghcr.io/acme/chart:1.2.0+build.5", "ghcr.io/acme/chart:1.2.0_build.5".to_owned()),
            ("ghcr.io:5000/acme/chart:1.2.0-rc.1+a+b", "ghcr.io:5000/acme/chart:1.2.0-rc.1_a_b".to_owned()),
            ("ghcr.io/acme/chart:1.2.0", "ghcr.io/acme/chart:1.2.0".to_owned()),
        ] {
            assert_eq!(Reference::of_chart(text).unwrap().to_string(), expected);
            let pinned = format!("{text}@sha256:{HEX}");
            assert_eq!(Reference::of_chart(&pinned).unwrap().to_string(), format!("{expected}@sha256:{HEX}"));
        }
        assert!(Reference::of_chart("ghcr.io/ac+me/chart:1").is_err());
    }

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn full(text: &str) -> String {
        text.parse::<Reference>().unwrap_or_else(|e| panic!("{text}: {e}")).to_string()
    }

    #[test]
    fn completes_like_docker() {
        for (given, expected) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("calico/node:v3", "docker.io/calico/node:v3"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/library/nginx:1", "docker.io/library/nginx:1"),
            ("registry-1.docker.io/a/b:1", "docker.io/a/b:1"),
            ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"),
            ("localhost/a:1", "localhost/a:1"),
            ("localhost:5000/a", "localhost:5000/a:latest"),
            ("[::1]:5000/a/b:1", "[::1]:5000/a/b:1"),
            ("[fe80::1]/a", "[fe80::1]/a:latest"),
            ("mcr.microsoft.com/powershell", "mcr.microsoft.com/powershell:latest"),
            ("r.io/a/b__c/d.e/f---g:T_1", "r.io/a/b__c/d.e/f---g:T_1"),
        ] {
            assert_eq!(full(given), expected);
        }
        let both = format!("registry.k8s.io/pause:3.9@sha256:{HEX}");
        assert_eq!(full(&both), both);
        let pinned = format!("registry.k8s.io/pause@sha256:{HEX}");
        assert_eq!(full(&pinned), pinned);
    }

    #[test]
    fn takes_names_apart() {
        let reference: Reference = "quay.io:8443/k0sproject/pause:3.9".parse().unwrap();
        assert_eq!(reference.host(), "quay.io:8443");
        assert_eq!(reference.repository(), "k0sproject/pause");
        assert_eq!(reference.tag().unwrap().as_str(), "3.9");
    }

    #[test]
    fn refuses() {
        for bad in [
            "",
            "Foo/bar",
            "docker.io/Library/nginx",
            "a//b",
            "/a",
            "a/",
            "a:b:c",
            "a/b:",
            "a@sha256:0",
            "r.io/../x",
            "r.io/a/../b",
            "r.io/a_-b",
            "r.io/a..b",
            "r.io:port/a",
            "r.io:/a",
            "[::1/a",
            "[::zz]:5/a",
            "[::1]x/a",
            "-a.io/b",
            "a.io/b:.tag",
            "my_registry.io/b",
            "a b",
            "a\nb",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?}");
        }
        assert!(format!("r.io/{}", "a".repeat(300)).parse::<Reference>().is_err());
        assert!(format!("r.io/a:{}", "t".repeat(129)).parse::<Reference>().is_err());
        let error = "ghcr.io/Acme/agent".parse::<Reference>().unwrap_err().to_string();
        assert!(error.contains("upper-case"), "{error}");
    }

    #[test]
    fn a_dot_and_an_underscore_make_no_host() {
        for (name, host, path) in [
            ("0.0_a/a", None, "0.0_a/a"),
            ("a.b__c/d", None, "a.b__c/d"),
            ("a.b/c_d", Some("a.b"), "c_d"),
            ("localhost/a_b", Some("localhost"), "a_b"),
        ] {
            let parsed: RepositoryName = name.parse().unwrap();
            assert_eq!((parsed.host(), parsed.path()), (host, path), "{name}");
        }
        assert!("a_b:5000/c".parse::<RepositoryName>().is_err());
    }

    proptest! {
        #[test]
        fn every_name_of_the_specification_is_one(
            name in "[a-z0-9]{1,3}((\\.|_|__|-{1,3})[a-z0-9]{1,3}){0,3}(/[a-z0-9]{1,3}((\\.|_|__|-{1,3})[a-z0-9]{1,3}){0,3}){0,3}"
        ) {
            let parsed = name.parse::<RepositoryName>().unwrap();
            prop_assert_eq!(parsed.as_str(), &name);
            let host = parsed.host().map(|host| format!("{host}/")).unwrap_or_default();
            prop_assert_eq!(host + parsed.path(), name);
        }

        #[test]
        fn never_panics(text in ".{0,300}") {
            let _ = text.parse::<Reference>();
            let _ = text.parse::<RepositoryName>();
        }

        #[test]
        fn what_it_prints_it_reads(text in "([a-z0-9.:-]{1,12}/)?[a-z0-9./_-]{1,20}(:[A-Za-z0-9._-]{1,8})?") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
            }
        }

        #[test]
        fn names_never_leave_their_folder(text in "[a-z0-9./:_-]{1,40}") {
            if let Ok(name) = text.parse::<RepositoryName>() {
                prop_assert!(name.as_str().split('/').all(|c| !c.is_empty() && c != "." && c != ".."));
            }
        }
    }
}
