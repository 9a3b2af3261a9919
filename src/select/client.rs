//! The clients that pull or copy images, their versions, and how a person names them.

use std::fmt;
use std::str::FromStr;

/// A program that picks one manifest of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Client {
    /// containerd, through the Kubernetes runtime interface.
    Containerd,
    /// Docker with its own graph drivers.
    Docker,
    /// Docker with containerd's image store.
    DockerContainerd,
    /// skopeo, podman, CRI-O and others that are built on containers/image.
    Skopeo,
    /// crane and others that are built on go-containerregistry.
    Crane,
    /// oras and others that are built on oras-go.
    Oras,
    /// regctl and regsync.
    Regclient,
    /// The bundler of k0s (`k0s airgap bundle-artifacts`).
    K0s,
}

impl Client {
    /// The name on the command line and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Docker => "docker",
            Self::DockerContainerd => "docker-containerd",
            Self::Skopeo => "skopeo",
            Self::Crane => "crane",
            Self::Oras => "oras",
            Self::Regclient => "regclient",
            Self::K0s => "k0s",
        }
    }

    /// Whether it is asked for a platform; the others take that of the host they run on.
    pub fn is_copy_tool(self) -> bool {
        !matches!(self, Self::Containerd | Self::Docker | Self::DockerContainerd)
    }

    /// Whether it runs containers on nodes; skopeo stands for CRI-O and podman here, which exist for Linux
    /// only.
    pub(super) fn runs_on(self, os: &str) -> bool {
        !self.is_copy_tool() || (self == Self::Skopeo && os == "linux")
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A version of a client, up to three numbers.
pub(super) type Version = [u32; 3];

/// Greater than every version that will be released: the end of a range that goes on.
pub(super) const ANY: u32 = u32::MAX;

/// The first version of skopeo with containers/image 5.25, whose rule differs from that of older ones.
pub(super) const SKOPEO_1_12: Version = [1, 12, 0];

/// A client, or some versions of it: `containerd`, `containerd@2`, `containerd@1.7`, `docker@29.6.1`.
///
/// `containerd://1.7.27`, as the Kubernetes API has it, means the same as `containerd@1.7.27`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Runtime {
    client: Client,
    name: &'static str,
    from: Version,
    to: Version,
    text: Box<str>,
}

/// Why a text names no client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseRuntimeError {
    /// A client that has no rules here.
    #[error(
        "`{0}` is not a client that is known here; there are containerd, docker, docker-containerd, cri-o, podman, \
         skopeo, crane, oras, regclient and k0s"
    )]
    Client(String),
    /// A version that is not one.
    #[error("`{0}` is not a version; write containerd@1.7, containerd@2 or containerd@2.1.6")]
    Version(String),
}

impl Runtime {
    /// The client.
    pub fn client(&self) -> Client {
        self.client
    }

    /// Returns the name of the program, `cri-o`, where several of them share the rules of one client.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns whether the unreleased main branch is meant.
    pub(super) fn is_main(&self) -> bool {
        self.from == [ANY; 3]
    }

    /// The versions that are meant, from the first to the last.
    pub(super) fn range(&self) -> (Version, Version) {
        (self.from, self.to)
    }

    /// The versions of the client that pick as those that are meant, from the first to the last.
    pub(super) fn range_of_client(&self) -> (Version, Version) {
        let Some(same) = as_skopeo_1_12(self.name) else { return (self.from, self.to) };
        let from = if self.from < same { [0; 3] } else { SKOPEO_1_12 };
        let to = if self.to < same { [1, 11, ANY] } else { [ANY; 3] };
        (from, to)
    }

    /// Whether some version is meant here and by `other`.
    pub fn shares_versions(&self, other: &Self) -> bool {
        self.client == other.client && self.from <= other.to && other.from <= self.to
    }
}

impl FromStr for Runtime {
    type Err = ParseRuntimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shown = || text.chars().take(80).collect::<String>();
        let split = text.split_once("://").or_else(|| text.split_once('@'));
        let (name, version) = split.map_or((text, None), |(name, version)| (name, Some(version)));
        let (client, name) = match name {
            "containerd" => (Client::Containerd, "containerd"),
            "docker" => (Client::Docker, "docker"),
            "docker-containerd" => (Client::DockerContainerd, "docker"),
            "cri-o" | "crio" => (Client::Skopeo, "cri-o"),
            "podman" => (Client::Skopeo, "podman"),
            "skopeo" => (Client::Skopeo, "skopeo"),
            "buildah" => (Client::Skopeo, "buildah"),
            "crane" | "ko" => (Client::Crane, "crane"),
            "oras" => (Client::Oras, "oras"),
            "regclient" | "regctl" | "regsync" => (Client::Regclient, "regclient"),
            "k0s" => (Client::K0s, "k0s"),
            _ => return Err(ParseRuntimeError::Client(shown())),
        };
        let (from, to) = match version {
            None => ([0; 3], [ANY; 3]),
            Some("main") => ([ANY; 3], [ANY; 3]),
            Some(version) => versions(version).ok_or_else(|| ParseRuntimeError::Version(shown()))?,
        };
        Ok(Self { client, name, from, to, text: text.replacen("://", "@", 1).into() })
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The first version of the program `name` that picks as skopeo 1.12 does; `None` if its versions are those of the client
/// that it is an instance of.
///
/// Source: `go.mod` of podman v4.4.4 and v4.5.0, buildah v1.29.1 and v1.30.0, CRI-O v1.26.4 and v1.27.0: each
/// first one has containers/image 5.24, each second one 5.25.
fn as_skopeo_1_12(name: &str) -> Option<Version> {
    match name {
        "podman" => Some([4, 5, 0]),
        "buildah" => Some([1, 30, 0]),
        "cri-o" => Some([1, 27, 0]),
        _ => None,
    }
}

/// The first and the last version that `text` means; `1.7`, `1.7.x` and `v1.7` mean every patch of 1.7. What
/// follows `-` or `+` belongs to the build and not to the rule.
fn versions(text: &str) -> Option<(Version, Version)> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let numbers = text.split(['-', '+']).next().unwrap_or_default();
    let (mut from, mut to) = ([0; 3], [ANY; 3]);
    for (at, part) in numbers.split('.').enumerate() {
        if at > 0 && matches!(part, "x" | "*") {
            break;
        }
        let number: u32 = part.parse().ok().filter(|number| *number < ANY)?;
        *from.get_mut(at)? = number;
        to[at] = number;
    }
    Some((from, to))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::bands;
    use super::*;

    fn labels(runtime: &str, os: &str) -> Vec<String> {
        let runtime: Runtime = runtime.parse().unwrap();
        bands()
            .iter()
            .filter(|band| band.applies_to(os) && runtime.covers(band))
            .map(crate::select::Band::label)
            .collect()
    }

    #[test]
    fn a_version_finds_its_bands() {
        for (runtime, expected) in [
            ("containerd@1.7", &["containerd 1.7.0-1.7.5", "containerd 1.7.6-2.0.x"][..]),
            ("containerd@1.7.5", &["containerd 1.7.0-1.7.5"]),
            ("containerd@1.7.x", &["containerd 1.7.0-1.7.5", "containerd 1.7.6-2.0.x"]),
            ("containerd@v2.0.3", &["containerd 1.7.6-2.0.x"]),
            ("containerd@2.1.6-rc.1", &["containerd 2.1.6-2.2.x"]),
            ("containerd://1.7.27", &["containerd 1.7.6-2.0.x"]),
            ("containerd://v2.3.1-k3s1", &["containerd 2.3.x"]),
            ("docker://29.3", &["docker 19.03-29"]),
            ("cri-o://1.31.0", &["skopeo 1.12-main"]),
            (
                "containerd@2",
                &[
                    "containerd 1.7.6-2.0.x",
                    "containerd 2.1.0-2.1.5",
                    "containerd 2.1.6-2.2.x",
                    "containerd 2.3.x",
                    "containerd main",
                ],
            ),
            ("containerd@main", &["containerd main"]),
            ("containerd@1.2", &["containerd <=1.4"]),
            ("docker@29", &["docker 19.03-29"]),
            ("docker-containerd@29.6.1", &["docker-containerd 29.6-29.x"]),
            ("docker-containerd@29.0.4", &["docker-containerd 29.0"]),
            ("docker-containerd@29.3", &["docker-containerd 29.1-29.5"]),
            ("cri-o@1.31", &["skopeo 1.12-main"]),
            ("cri-o@1.26", &["skopeo <=1.11"]),
            ("cri-o", &["skopeo <=1.11", "skopeo 1.12-main"]),
            ("podman@4.3.1", &["skopeo <=1.11"]),
            ("podman@4", &["skopeo <=1.11", "skopeo 1.12-main"]),
            ("buildah@1.30.0", &["skopeo 1.12-main"]),
            ("skopeo@1.9.3", &["skopeo <=1.11"]),
            ("skopeo@1.18", &["skopeo 1.12-main"]),
            ("k0s@v1.34.1+k0s.0", &["k0s 1.33-1.35"]),
            ("k0s@1.30", &[]),
        ] {
            assert_eq!(labels(runtime, "windows"), expected, "{runtime}");
        }
    }

    #[test]
    fn refuses_what_names_no_client() {
        for bad in [
            "",
            "rkt",
            "containerd@",
            "containerd@x",
            "containerd@1.2.3.4",
            "containerd@one",
            "@1",
            "docker@1..2",
            "containerd://",
            "rkt://1.30",
            "containerd://1.7@2",
            "docker://Unknown",
        ] {
            assert!(bad.parse::<Runtime>().is_err(), "{bad}");
        }
        let error = "rkt@1".parse::<Runtime>().unwrap_err().to_string();
        assert!(error.contains("containerd"), "{error}");
    }

    proptest! {
        #[test]
        fn never_panics(text in "[a-z0-9@:/.x*+-]{0,30}") {
            if let Ok(runtime) = text.parse::<Runtime>() {
                prop_assert_eq!(runtime.to_string(), text.replacen("://", "@", 1));
            }
        }

        #[test]
        fn every_version_of_a_node_runtime_has_one_rule(minor in 0u32..30, patch in 0u32..60, major in 1u32..3) {
            let runtime = format!("containerd@{major}.{minor}.{patch}");
            for os in ["linux", "windows"] {
                prop_assert_eq!(labels(&runtime, os).len(), 1, "{} {:?}", runtime, labels(&runtime, os));
            }
        }
    }
}
