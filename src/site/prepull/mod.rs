//! Objects that make a cluster pull a release's images before the upgrade, so that it does not wait for them.
//!
//! The images are pulled by the nodes' own container runtimes, through their mirrors and with their own choice of an
//! index's entries: one object for each kind of node names what that kind needs.

mod daemonset;
mod kruise;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde_json::Value;

pub use kruise::KruiseVersion;

use crate::catalog::{Catalog, CatalogError, Need, ReleaseId};
use crate::oci::{NodeKind, ParseReferenceError, Reference};

/// What pulls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// OpenKruise's jobs.
    OpenKruise,
    /// A plain DaemonSet, for clusters without OpenKruise.
    DaemonSet,
}

impl Engine {
    /// Every engine.
    pub const ALL: [Self; 2] = [Self::OpenKruise, Self::DaemonSet];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenKruise => "openkruise",
            Self::DaemonSet => "daemonset",
        }
    }
}

impl FromStr for Engine {
    type Err = PrepullError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|engine| engine.name() == text);
        found.ok_or_else(|| PrepullError::Engine(text.chars().take(40).collect()))
    }
}

/// Why there are no objects.
#[derive(Debug, thiserror::Error)]
pub enum PrepullError {
    /// An unknown engine.
    #[error("`{0}` is not an engine; there are openkruise and daemonset")]
    Engine(String),
    /// Not the version of an OpenKruise release.
    #[error("`{0}` is not a version of OpenKruise; write v1.9.0")]
    KruiseVersion(String),
    /// An OpenKruise that pulls nothing on Windows.
    #[error("OpenKruise {0} has no daemon for Windows, 1.9 is the first; use --engine daemonset for {1}")]
    NoWindowsDaemon(KruiseVersion, NodeKind),
    /// The registry's name and an image's do not go together.
    #[error("`{registry}` with {image} is not an image name: {source}")]
    Registry {
        /// The registry.
        registry: String,
        /// The image.
        image: Reference,
        /// Why not.
        source: ParseReferenceError,
    },
    /// Nothing to pull.
    #[error("{0} has no images for these nodes")]
    NothingNeeded(ReleaseId),
    /// The catalog does not have what is asked for.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// What is to be pulled, and how.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// What pulls.
    pub engine: Engine,
    /// The release.
    pub release: &'a ReleaseId,
    /// Features beyond its default configuration.
    pub with: &'a [String],
    /// The kinds of nodes.
    pub kinds: &'a [NodeKind],
    /// The registry that the distribution is configured to take its images from (k0s `images.repository`, kubeadm
    /// `imageRepository`, k3s and RKE2 `system-default-registry`); none: images keep their names.
    pub registry: Option<&'a str>,
    /// The namespace of the objects and of the secrets.
    pub namespace: &'a str,
    /// Secrets with credentials for the registry.
    pub secrets: &'a [String],
    /// How many nodes pull at the same time.
    pub parallelism: u32,
    /// The OpenKruise in the cluster; none: any from 1.5 on.
    pub kruise: Option<KruiseVersion>,
}

/// The objects, in the order of the node kinds.
pub fn objects(request: &Request<'_>, catalog: &Catalog) -> Result<Vec<Value>, PrepullError> {
    let needs = catalog.needs(request.release, request.with, request.kinds)?;
    let mut objects = Vec::new();
    for kind in request.kinds {
        let images = needs.images.iter().filter(|need| need.nodes.contains(kind));
        let images: Vec<String> = images.map(|need| name(request, need)).collect::<Result<_, _>>()?;
        if images.is_empty() {
            continue;
        }
        let group = Group { name: object_name(request.release, kind), kind, images };
        match request.engine {
            Engine::OpenKruise => objects.extend(kruise::jobs(request, &group)?),
            Engine::DaemonSet => objects.push(daemonset::daemon_set(request, &group)),
        }
    }
    if objects.is_empty() {
        return Err(PrepullError::NothingNeeded(request.release.clone()));
    }
    Ok(objects)
}

/// What one kind of node pulls.
struct Group<'a> {
    name: String,
    kind: &'a NodeKind,
    images: Vec<String>,
}

impl Group<'_> {
    /// The labels that nodes of the kind have, and no others.
    fn node_labels(&self) -> BTreeMap<&'static str, String> {
        let mut labels = BTreeMap::from([
            ("kubernetes.io/os", self.kind.os().to_owned()),
            ("kubernetes.io/arch", self.kind.architecture().to_owned()),
        ]);
        if let Some(build) = self.kind.windows_build() {
            labels.insert("node.kubernetes.io/windows-build", build.to_string());
        }
        labels
    }
}

/// The name under which the cluster will ask for the image: its own, or what the distribution makes of it for its
/// `--registry`.
fn name(request: &Request<'_>, need: &Need) -> Result<String, PrepullError> {
    let rewritten = match request.release.distro.as_str() {
        "k3s" | "rke2" => need.reference.host() == "docker.io",
        _ => need.repository_override,
    };
    let Some(registry) = request.registry.filter(|_| rewritten) else {
        return Ok(need.reference.to_string());
    };
    let path = need.reference.repository();
    // kubeadm keeps the last part only: coredns/coredns becomes coredns (cmd/kubeadm/app/images/images.go).
    let path = match request.release.distro.as_str() {
        "kubeadm" => path.rsplit('/').next().unwrap_or(path),
        _ => path,
    };
    let original = need.reference.to_string();
    let version = &original[need.reference.name().as_str().len()..];
    let name = format!("{}/{path}{version}", registry.trim_end_matches('/'));
    match name.parse::<Reference>() {
        Ok(_) => Ok(name),
        Err(source) => Err(PrepullError::Registry {
            registry: registry.to_owned(),
            image: need.reference.clone(),
            source,
        }),
    }
}

/// `dray-k0s-v1-36-3-k0s-2-windows-10-0-20348-amd64`: letters, digits and dashes, as names of objects are.
fn object_name(release: &ReleaseId, kind: &NodeKind) -> String {
    let text = format!("dray-{release}-{kind}").to_lowercase();
    let mut name = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            name.push(c);
        } else if !name.ends_with('-') {
            name.push('-');
        }
    }
    name.trim_end_matches('-').to_owned()
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
