//! The files that send a node's pulls to the site: one set per container runtime or distribution.
//!
//! Every image keeps its original name. What makes runtimes ignore their configuration without a word is avoided by
//! construction: `hosts.toml` always has a `[host]` table and a `server`, `config_path` is one directory, directory
//! names and quoting are such that Windows takes them.

mod containerd;
mod crio;
mod docker;
mod files;
mod hosts_toml;
mod k0s;
mod rancher;
mod talos;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

pub use files::{NodeFile, WriteFilesError, write};

use super::{RegistryHost, RegistryUrl};
use crate::catalog::Os;

/// The upstream hosts that the catalog's images come from.
pub const CATALOG_HOSTS: [&str; 6] =
    ["quay.io", "registry.k8s.io", "docker.io", "mcr.microsoft.com", "k8s.gcr.io", "ghcr.io"];

/// The name under which nodes have the site's certificate authority.
const CA_FILE: &str = "site-ca.crt";

/// What is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// containerd as kubeadm clusters run it, 1.6 and later.
    Containerd,
    /// k0s, which has a containerd inside.
    K0s,
    /// k3s, likewise.
    K3s,
    /// RKE2, likewise.
    Rke2,
    /// CRI-O, and podman and skopeo, which read the same files.
    Crio,
    /// Docker Engine.
    Docker,
    /// Talos Linux.
    Talos,
}

impl Target {
    /// Every target.
    pub const ALL: [Self; 7] =
        [Self::Containerd, Self::K0s, Self::K3s, Self::Rke2, Self::Crio, Self::Docker, Self::Talos];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::K0s => "k0s",
            Self::K3s => "k3s",
            Self::Rke2 => "rke2",
            Self::Crio => "crio",
            Self::Docker => "docker",
            Self::Talos => "talos",
        }
    }

    fn runs_on_windows(self) -> bool {
        matches!(self, Self::Containerd | Self::K0s | Self::Rke2 | Self::Docker)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Target {
    type Err = NodeConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|target| target.name() == text);
        found.ok_or_else(|| NodeConfigError::Target(text.chars().take(40).collect()))
    }
}

/// Why there are no files for a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeConfigError {
    /// An unknown target.
    #[error("`{0}` is not a target; there are containerd, k0s, k3s, rke2, crio, docker and talos")]
    Target(String),
    /// A target that does not exist for Windows.
    #[error("{0} does not run on Windows nodes; use --os linux")]
    NoWindows(Target),
    /// Not a PEM file of certificates.
    #[error(
        "the certificate authority is not a PEM file of certificates; it begins with -----BEGIN CERTIFICATE----- \
         (openssl x509 -inform der -in FILE converts one in DER)"
    )]
    NotACertificate,
    /// A private key where everybody would read it.
    #[error(
        "the file of the certificate authority has a private key in it; give one with the certificate alone"
    )]
    PrivateKey,
    /// A certificate authority for a registry without TLS.
    #[error("a certificate authority is of no use for {0}, which has no TLS; write https://")]
    CaWithoutTls(RegistryUrl),
}

/// The certificates that nodes trust for the registry, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateAuthority(String);

impl FromStr for CertificateAuthority {
    type Err = NodeConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains("PRIVATE KEY-----") {
            return Err(NodeConfigError::PrivateKey);
        }
        let count = |marker: &str| text.matches(marker).count();
        let begins = count("-----BEGIN CERTIFICATE-----");
        if begins == 0 || begins != count("-----END CERTIFICATE-----") {
            return Err(NodeConfigError::NotACertificate);
        }
        Ok(Self(format!("{}\n", text.replace("\r\n", "\n").trim())))
    }
}

/// What files are asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// What is configured.
    pub target: Target,
    /// The operating system of the nodes.
    pub os: Os,
    /// The site's registry.
    pub registry: RegistryUrl,
    /// The certificate authority behind the registry's certificate, if nodes do not trust it already.
    pub ca: Option<CertificateAuthority>,
    /// The upstream hosts that the registry stands in for; empty: all of them, or where a runtime has no word for all,
    /// those of [`CATALOG_HOSTS`].
    pub hosts: Vec<RegistryHost>,
    /// For k0s: the version of containerd's configuration in the release, 2 or 3; none: files for both.
    pub containerd_config: Option<u8>,
}

impl Request {
    /// The files, in the order of their paths.
    pub fn files(&self) -> Result<Vec<NodeFile>, NodeConfigError> {
        if self.os == Os::Windows && !self.target.runs_on_windows() {
            return Err(NodeConfigError::NoWindows(self.target));
        }
        if self.ca.is_some() && !self.registry.is_https() {
            return Err(NodeConfigError::CaWithoutTls(self.registry.clone()));
        }
        let mut files = match self.target {
            Target::Containerd => containerd::files(self),
            Target::K0s => k0s::files(self),
            Target::K3s | Target::Rke2 => rancher::files(self),
            Target::Crio => crio::files(self),
            Target::Docker => docker::files(self),
            Target::Talos => talos::files(self),
        };
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    fn is_windows(&self) -> bool {
        self.os == Os::Windows
    }

    /// The upstream hosts by name, for runtimes that have no word for all.
    fn named_hosts(&self) -> Vec<RegistryHost> {
        if self.hosts.is_empty() {
            CATALOG_HOSTS
                .iter()
                .map(|host| host.parse().expect("the hosts of the catalog are hosts"))
                .collect()
        } else {
            self.hosts.clone()
        }
    }

    /// The first line of each file.
    fn head(&self) -> String {
        format!("# Pulls go to the site's registry. Written by `dray node-config {}`.\n", self.target)
    }

    fn ca_file(&self, directory: &str, name: &str) -> Option<NodeFile> {
        self.ca.as_ref().map(|ca| NodeFile::new(format!("{directory}/{name}"), ca.0.clone()))
    }
}
