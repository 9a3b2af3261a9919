//! Will every node start after the upgrade?
//!
//! The answer comes from the release to go to, the cluster's configuration as it is stored, the nodes, and what serves
//! them: for each node the images that it will ask for are worked out as the new controllers will, and looked for as its
//! container runtime will. Beside that it finds the image versions that k0s once left in the configuration (`pins`), and
//! the traps of releases, pull policies and platforms (`findings`).

mod cluster_config;
mod content;
mod findings;
mod images;
mod locked;
mod needs;
mod nodes;
mod objects;
mod patch;
mod pins;
mod pods;
mod report;
mod repository;
mod rolling;
mod skew;
#[cfg(test)]
mod tests;
mod worker_config;
mod workloads;

use std::collections::BTreeMap;

use serde_json::Value;

pub use cluster_config::ClusterConfig;
pub use content::Source;
pub use findings::Finding;
pub use images::SiteRegistry;
pub use nodes::{Node, parse as parse_nodes};
pub use objects::{MAX_OBJECTS_BYTES, ObjectsError};
pub use patch::{Proposal, apply, merge_patch, propose};
pub use pins::{Defaults, Pin, Verdict, creators, pins};
pub use pods::Pod;
pub use report::{Missing, NodeReport, Report};
pub use rolling::{Running, reports, running};
pub use worker_config::WorkerConfig;
pub use workloads::{Workload, WorkloadImage};

use crate::catalog::{Catalog, CatalogError, Release, ReleaseId};
use crate::oci::{NodeKind, Reference};
use crate::store::ContentError;
use content::Shelf;
use findings::Facts;
use needs::{Ask, Plan};

/// How many releases have the same default images at most.
const MAX_TWINS: usize = 2;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The catalog does not know the release.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The release is of software that no node runs as its Kubernetes.
    #[error("{0} is not a release of Kubernetes; give the distribution that the nodes run")]
    NotKubernetes(ReleaseId),
    /// What serves the nodes cannot be read.
    #[error(transparent)]
    Content(#[from] ContentError),
}

/// How images get to the nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// From a registry, or put on the nodes before; it is not said which.
    #[default]
    Any,
    /// From a registry only.
    Registry,
    /// Put on the nodes before; there is no registry.
    Preload,
}

/// What the answer depends on.
pub struct Inputs<'a> {
    /// What releases need.
    pub catalog: &'a Catalog,
    /// The release to go to.
    pub target: &'a ReleaseId,
    /// The cluster's configuration as it is stored; none where the distribution has its defaults.
    pub config: Option<&'a ClusterConfig>,
    /// The nodes.
    pub nodes: &'a [Node],
    /// What serves the nodes.
    pub source: &'a Source,
    /// How images get to the nodes.
    pub delivery: Delivery,
    /// The configurations of k0s workers, where they are known.
    pub worker_configs: &'a [WorkerConfig],
    /// Workloads as they run now, where they are known.
    pub workloads: &'a [Workload],
    /// Features that the configuration does not show.
    pub with: &'a [String],
    /// Components that are turned off.
    pub without: &'a [String],
    /// The sandbox image that container runtimes are configured with; none: their own default.
    pub sandbox: Option<&'a Reference>,
}

/// Answers for every node.
pub fn check(inputs: &Inputs<'_>) -> Result<Report, CheckError> {
    let release = inputs.catalog.release(inputs.target)?;
    if release.kubernetes.is_none() {
        return Err(CheckError::NotKubernetes(inputs.target.clone()));
    }
    let shelf = Shelf::new(inputs.source);
    let (pins, proposal) = judge_pins(inputs)?;
    let patch = inputs.config.filter(|_| !proposal.remove.is_empty());
    let patch = patch.map(|config| merge_patch(config.object(), &proposal.remove));
    let plan = plan(inputs, &release, inputs.config);
    let wanted = wanted(&plan, inputs.nodes, &shelf)?;
    let running = running(inputs.catalog, inputs.target, inputs.nodes)?;
    let facts = Facts {
        inputs,
        plan: &plan,
        shelf: &shelf,
        pins: &pins,
        proposal: &proposal,
        wanted: &wanted,
        running: &running,
    };
    let findings = findings::all(&facts)?;
    let mut report = Report::new(inputs.target, &wanted, findings, !matches!(inputs.source, Source::Unknown));
    report.ready_with_patch = match (&patch, inputs.config) {
        (Some(patch), Some(config)) => {
            let mut object = config.object().clone();
            apply(&mut object, patch);
            let patched = Inputs { config: Some(&config.with_object(object)), ..*inputs };
            Some(check(&patched)?.ready)
        }
        _ => None,
    };
    report.creators = creators(&pins);
    // No more than two releases have the same images; what many have in common is nobody's in particular.
    report.creator = report.creators.first().filter(|_| report.creators.len() <= MAX_TWINS).cloned();
    report.pins = pins;
    report.ask = proposal.ask;
    report.patch = patch.unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    report.keep = running;
    Ok(report)
}

fn judge_pins(inputs: &Inputs<'_>) -> Result<(Vec<Pin>, Proposal), CheckError> {
    let Some(config) = inputs.config.filter(|_| inputs.target.distro == "k0s") else {
        return Ok((Vec::new(), Proposal::default()));
    };
    let pins = pins(config, &Defaults::of(inputs.catalog, "k0s")?, inputs.target);
    let proposal = propose(&pins);
    Ok((pins, proposal))
}

fn plan<'a>(inputs: &Inputs<'a>, release: &'a Release, config: Option<&'a ClusterConfig>) -> Plan<'a> {
    Plan { release, config, with: inputs.with, without: inputs.without, sandbox: inputs.sandbox }
}

/// What one node asks for, and what of it is missing.
pub(in crate::site::check) struct Wanted<'a> {
    node: &'a Node,
    asks: Vec<Ask>,
    missing: Vec<Missing>,
}

/// What each node asks for. Nodes that are alike are looked at once.
fn wanted<'a>(plan: &Plan<'_>, nodes: &'a [Node], shelf: &Shelf<'_>) -> Result<Vec<Wanted<'a>>, CheckError> {
    type Group = (NodeKind, Option<String>, bool);
    let mut groups: BTreeMap<Group, (Vec<Ask>, Vec<Missing>)> = BTreeMap::new();
    let mut all = Vec::with_capacity(nodes.len());
    for node in nodes {
        let group = (node.kind.clone(), node.runtime.as_ref().map(ToString::to_string), node.control_plane);
        let (asks, missing) = if let Some(known) = groups.get(&group) {
            known.clone()
        } else {
            let asks = plan.asks(node);
            let missing = missing(plan.release, node, &asks, shelf)?;
            groups.entry(group).or_insert((asks, missing)).clone()
        };
        all.push(Wanted { node, asks, missing });
    }
    Ok(all)
}

/// What of `asks` the node does not get.
fn missing(
    release: &Release,
    node: &Node,
    asks: &[Ask],
    shelf: &Shelf<'_>,
) -> Result<Vec<Missing>, ContentError> {
    let mut found = Vec::new();
    for ask in asks {
        let reason = match &ask.lacking {
            Some(reason) => Some(reason.clone()),
            None if ask.names.is_empty() => Some("it is not a reference of an image".to_owned()),
            None => shelf.lacks(&ask.names, &node.kind, &needs::bands(release, node, ask.pull))?,
        };
        if let Some(reason) = reason {
            found.push(Missing {
                image: ask.image.clone(),
                component: ask.component.clone(),
                reason,
                pinned: ask.pinned.clone(),
            });
        }
    }
    Ok(found)
}
