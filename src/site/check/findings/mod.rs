//! What an operator has to know beyond missing images: traps of the release, of the configuration, of pull policies and
//! of platforms, each with what to do about it.

mod configuration;
mod delivery;
mod platforms;
mod releases;
mod upgrade;

use serde::Serialize;

use super::content::Shelf;
use super::needs::{Ask, Plan};
use super::patch::Proposal;
use super::pins::Pin;
use super::rolling::Running;
use super::skew::skew;
use super::{CheckError, Inputs, Node, Wanted};
use crate::catalog::{PullPolicy, Severity};

/// Something that an operator has to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A stable name, `stale-pins`.
    pub id: String,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub fix: Option<String>,
    /// The nodes concerned, by name; empty where it concerns the cluster as a whole.
    pub nodes: Vec<String>,
}

impl Finding {
    pub(super) fn new(
        id: &str,
        severity: Severity,
        message: impl Into<String>,
        fix: &str,
        nodes: &[&Node],
    ) -> Self {
        Self {
            id: id.to_owned(),
            severity,
            message: message.into(),
            fix: (!fix.is_empty()).then(|| fix.to_owned()),
            nodes: nodes.iter().map(|node| node.name.clone()).collect(),
        }
    }
}

/// What findings are drawn from.
pub(super) struct Facts<'a> {
    pub(super) inputs: &'a Inputs<'a>,
    pub(super) plan: &'a Plan<'a>,
    pub(super) shelf: &'a Shelf<'a>,
    pub(super) pins: &'a [Pin],
    pub(super) proposal: &'a Proposal,
    pub(super) wanted: &'a [Wanted<'a>],
    pub(super) running: &'a [Running],
}

impl<'a> Facts<'a> {
    /// The nodes that ask for an image of this sort.
    fn asking(&self, sort: impl Fn(&Ask) -> bool) -> Vec<&'a Node> {
        self.wanted.iter().filter(|wanted| wanted.asks.iter().any(&sort)).map(|wanted| wanted.node).collect()
    }

    /// The nodes of this sort.
    fn nodes(&self, sort: impl Fn(&Node) -> bool) -> Vec<&'a Node> {
        self.inputs.nodes.iter().filter(|node| sort(node)).collect()
    }

    fn windows(&self) -> Vec<&'a Node> {
        self.nodes(|node| node.kind.is_windows())
    }

    /// Whether nodes have to have images before they start.
    fn is_preloaded(&self) -> bool {
        self.inputs.delivery == super::Delivery::Preload
            || !self.asking(|ask| ask.pull == PullPolicy::Never).is_empty()
    }
}

/// Everything that there is to say, in no particular order.
pub(super) fn all(facts: &Facts<'_>) -> Result<Vec<Finding>, CheckError> {
    let mut findings = releases::known(facts)?;
    findings.extend(configuration::not_text(facts));
    findings.extend(configuration::k0sctl(facts));
    findings.extend(configuration::pins(facts));
    findings.extend(configuration::repository(facts));
    findings.extend(delivery::policies(facts));
    findings.extend(delivery::archives(facts));
    findings.extend(platforms::nodes(facts));
    findings.extend(platforms::windows(facts));
    findings.extend(skew(facts.inputs.target, facts.inputs.nodes));
    findings.extend(upgrade::runtimes(facts));
    findings.extend(upgrade::running_releases(facts)?);
    findings.extend(upgrade::current_pods(facts)?);
    Ok(findings)
}
