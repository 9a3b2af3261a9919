//! The answer, as programs read it.

use serde::Serialize;
use serde_json::Value;

use super::Wanted;
use super::findings::Finding;
use super::pins::Pin;
use super::rolling::Running;
use crate::catalog::{ReleaseId, Severity};
use crate::oci::NodeKind;

/// The answer for a cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whether every node starts, as far as was looked: see `content_checked`.
    pub ready: bool,
    /// Whether images were looked for. If not, only the configuration was judged.
    pub content_checked: bool,
    /// The release to go to.
    pub to: ReleaseId,
    /// The answer for each node.
    pub nodes: Vec<NodeReport>,
    /// Images that the stored configuration pins.
    pub pins: Vec<Pin>,
    /// The release that left pins behind, the older where two have the same images; none where many may have.
    pub creator: Option<ReleaseId>,
    /// All releases that can have left them.
    pub creators: Vec<ReleaseId>,
    /// What an operator has to know, the worst first.
    pub problems: Vec<Finding>,
    /// The JSON merge patch that takes out what k0s left in the configuration; empty where there is nothing to take out.
    pub patch: Value,
    /// Pins that may be left behind or intended, so that they are not in the patch.
    pub ask: Vec<String>,
    /// Whether every node starts once the configuration is patched; none without a patch.
    pub ready_with_patch: Option<bool>,
    /// Releases that have to stay servable until no node runs them.
    pub keep: Vec<Running>,
}

/// The answer for a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeReport {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: NodeKind,
    /// The version of its kubelet now.
    pub kubelet: String,
    /// Its container runtime now.
    pub runtime: Option<String>,
    /// Whether it starts.
    pub ready: bool,
    /// How many images it asks for.
    pub images: usize,
    /// What of them it does not get.
    pub missing: Vec<Missing>,
    /// Ids of the problems that keep it from starting.
    pub blockers: Vec<String>,
}

/// An image that a node does not get.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Missing {
    /// The reference as the node asks for it.
    #[serde(rename = "ref")]
    pub image: String,
    /// The component that runs it.
    pub component: String,
    /// Why.
    pub reason: String,
    /// Where the configuration pins it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pinned: Option<String>,
}

impl Report {
    pub(super) fn new(
        to: &ReleaseId,
        wanted: &[Wanted<'_>],
        mut problems: Vec<Finding>,
        content_checked: bool,
    ) -> Self {
        problems.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        let nodes: Vec<NodeReport> = wanted.iter().map(|wanted| NodeReport::new(wanted, &problems)).collect();
        let blocked = problems.iter().any(|finding| finding.severity == Severity::Blocker);
        Self {
            ready: !blocked && nodes.iter().all(|node| node.ready),
            content_checked,
            to: to.clone(),
            nodes,
            pins: Vec::new(),
            creator: None,
            creators: Vec::new(),
            problems,
            patch: Value::Null,
            ask: Vec::new(),
            ready_with_patch: None,
            keep: Vec::new(),
        }
    }
}

impl NodeReport {
    fn new(wanted: &Wanted<'_>, problems: &[Finding]) -> Self {
        let node = wanted.node;
        let blocks =
            |finding: &&Finding| finding.severity == Severity::Blocker && finding.nodes.contains(&node.name);
        let blockers: Vec<String> =
            problems.iter().filter(blocks).map(|finding| finding.id.clone()).collect();
        Self {
            name: node.name.clone(),
            kind: node.kind.clone(),
            kubelet: node.kubelet.clone(),
            runtime: node.runtime.as_ref().map(ToString::to_string),
            ready: wanted.missing.is_empty() && blockers.is_empty(),
            images: wanted.asks.len(),
            missing: wanted.missing.clone(),
            blockers,
        }
    }
}
