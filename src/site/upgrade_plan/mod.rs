//! Plans for the controllers that upgrade clusters: k0s' Autopilot and Rancher's system-upgrade-controller. Their addresses
//! are those of the site, and what stands behind them is in stock: a plan that would stop half-way is not made.

mod autopilot;
mod lack;
mod manual;
mod suc;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

pub use autopilot::{Autopilot, autopilot};
pub use lack::Lack;
pub use manual::Manual;
pub use suc::{SystemUpgrade, system_upgrade};

use super::export::{Archive, ExportError};
use super::stock::{Stock, StockError, Stocked};
use super::{RegistryUrl, documents};
use crate::catalog::{CatalogError, ReleaseId};
use crate::oci::{Digest, NodeKind, Reference};
use crate::store::ContentError;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The controller upgrades something else.
    #[error("{controller} does not upgrade {release}; it upgrades {upgrades}")]
    OtherDistribution {
        /// The controller.
        controller: &'static str,
        /// The release asked for.
        release: ReleaseId,
        /// What it upgrades.
        upgrades: &'static str,
    },
    /// The release is in no bundle.
    #[error("no imported bundle has the release {release}; the store has: {}", list(.stocked))]
    NotStocked {
        /// The release asked for.
        release: ReleaseId,
        /// What there is.
        stocked: Vec<String>,
    },
    /// A kind of node that the release was not brought for.
    #[error("{release} was brought for {}, not for {kind}", list(.stocked))]
    NoSuchNode {
        /// The release.
        release: ReleaseId,
        /// The node kind asked for.
        kind: NodeKind,
        /// What it was brought for.
        stocked: Vec<String>,
    },
    /// The controller upgrades Linux nodes, and there are none.
    #[error("none of {} is a kind of Linux node, and others are not upgraded by the controller", list(.0))]
    NoLinux(Vec<String>),
    /// A channel that stands for another release.
    #[error("the channel {channel} stands for {} here, not for {release}", .current.as_deref().unwrap_or("no release"))]
    Channel {
        /// The channel.
        channel: String,
        /// The release asked for.
        release: ReleaseId,
        /// What it stands for.
        current: Option<String>,
    },
    /// The registry's name and an image's do not go together.
    #[error("`{0}` is not an image name")]
    Registry(String),
    /// What the plan needs is not in the store.
    #[error("the store lacks what the plan needs:{}", lines(.0))]
    Lacks(Vec<Lack>),
    /// The catalog does not have what is asked for.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The store.
    #[error(transparent)]
    Stock(#[from] StockError),
}

impl From<ContentError> for PlanError {
    fn from(error: ContentError) -> Self {
        Self::Stock(error.into())
    }
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "nothing".to_owned() } else { items.join(", ") }
}

fn lines(lacks: &[Lack]) -> String {
    lacks.iter().fold(String::new(), |mut text, lack| {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  {lack}");
        text
    })
}

/// What every plan is made for.
pub struct Request<'a> {
    /// The release to go to.
    pub release: &'a ReleaseId,
    /// The kinds of node; empty for all that the release was brought for.
    pub kinds: &'a [NodeKind],
    /// The site.
    pub url: &'a RegistryUrl,
    /// What is there.
    pub stock: &'a Stock,
    /// Computes the SHA-256 of an archive, which takes as long as to read it.
    pub sum: &'a dyn Fn(&Archive) -> Result<Digest, ExportError>,
}

/// Objects for the cluster, and what is left to people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UpgradePlan {
    /// The release to go to.
    pub release: ReleaseId,
    /// What to apply.
    pub objects: Vec<Value>,
    /// Nodes that the controller does not upgrade.
    pub manual: Vec<Manual>,
    /// What to know before it is applied.
    pub notes: Vec<String>,
}

impl UpgradePlan {
    /// The objects as YAML, with everything else as comments before them.
    pub fn to_yaml(&self) -> String {
        let mut text = format!("# Upgrade to {}\n", self.release);
        for note in &self.notes {
            comment(&mut text, note);
        }
        for manual in &self.manual {
            text.push_str("#\n");
            comment(&mut text, &format!("By hand, on each node of the kind {}:", manual.node));
            for (nth, step) in manual.steps.iter().enumerate() {
                comment(&mut text, &format!("{}. {}", nth + 1, step.what));
                for line in &step.commands {
                    comment(&mut text, &format!("     {line}"));
                }
            }
        }
        text + &documents(&self.objects)
    }
}

fn comment(text: &mut String, line: &str) {
    let _ = writeln!(text, "# {line}");
}

impl Request<'_> {
    /// The release as it is in stock, with the kinds of node asked for.
    fn stocked(&self) -> Result<Stocked, PlanError> {
        let brought = self.stock.brought()?;
        let found = brought.releases.get(self.release).cloned();
        let mut stocked = found.ok_or_else(|| PlanError::NotStocked {
            release: self.release.clone(),
            stocked: brought.releases.keys().map(ToString::to_string).collect(),
        })?;
        if !self.kinds.is_empty() {
            if let Some(kind) = self.kinds.iter().find(|kind| !stocked.nodes.contains_key(kind)) {
                return Err(PlanError::NoSuchNode {
                    release: self.release.clone(),
                    kind: kind.clone(),
                    stocked: stocked.nodes.keys().map(ToString::to_string).collect(),
                });
            }
            stocked.nodes.retain(|kind, _| self.kinds.contains(kind));
        }
        if stocked.linux().next().is_none() {
            return Err(PlanError::NoLinux(stocked.nodes.keys().map(ToString::to_string).collect()));
        }
        Ok(stocked)
    }

    /// The complete address of a path at the site.
    fn address(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// The archive for a kind of node; or the images that are missing are added to `lacks`.
    fn archive(
        &self,
        stocked: &Stocked,
        kind: &NodeKind,
        lacks: &mut Vec<Lack>,
    ) -> Result<Option<Archive>, PlanError> {
        match self.stock.archive(stocked, kind) {
            Ok(archive) => Ok(Some(archive)),
            Err(ExportError::Missing(images)) => {
                for image in images {
                    Lack::add_image(lacks, image, kind);
                }
                Ok(None)
            }
            Err(ExportError::Catalog(error)) => Err(error.into()),
            Err(error) => Err(StockError::from(error).into()),
        }
    }
}

/// The architectures of the Linux nodes, in Go's spelling, each once.
fn architectures(stocked: &Stocked) -> Vec<&str> {
    let mut architectures: Vec<&str> = stocked.linux().map(NodeKind::architecture).collect();
    architectures.dedup();
    architectures
}

/// Whether an image is in stock under any tag.
fn has_any_tag(stock: &Stock, image: &Reference) -> Result<bool, PlanError> {
    Ok(stock.content().tags(image.name(), None, 1)?.is_some_and(|tags| !tags.is_empty()))
}
