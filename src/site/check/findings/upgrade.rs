//! The upgrade itself: drop-in files that the new runtime refuses, releases that must stay servable meanwhile, and pods
//! as they run now.

use std::collections::BTreeSet;

use super::super::needs::{Plan, bands};
use super::super::rolling::Running;
use super::super::skew::list;
use super::super::{CheckError, Delivery, missing};
use super::{Facts, Finding, Node};
use crate::catalog::{PullPolicy, Severity};
use crate::oci::{NodeKind, Reference};
use crate::select::Runtime;

/// The version of drop-in files from containerd 2 on.
const CONTAINERD_2_CONFIG: u8 = 3;

/// Nodes that run containerd 1.
pub(super) fn on_containerd_1<'a>(facts: &Facts<'a>) -> Vec<&'a Node> {
    let first: Option<Runtime> = "containerd@1".parse().ok();
    let runs = |node: &Node| {
        first.as_ref().zip(node.runtime.as_ref()).is_some_and(|(first, own)| first.shares_versions(own))
    };
    facts.nodes(runs)
}

/// Nodes whose container runtime changes its configuration.
pub(super) fn runtimes(facts: &Facts<'_>) -> Option<Finding> {
    let nodes = on_containerd_1(facts);
    let changes = facts.plan.release.facts.containerd_config == Some(CONTAINERD_2_CONFIG);
    (changes && !nodes.is_empty()).then(|| {
        Finding::new(
            "containerd-dropins",
            Severity::Warning,
            format!(
                "{} brings containerd 2, and a worker does not start while files in containerd.d are of version 2, where \
                 registry mirrors are configured; concerned are {}",
                facts.inputs.target.version,
                list(&nodes)
            ),
            "write the files anew for containerd 2 (`dray node-config k0s`), and put them in place when the node's k0s is \
             replaced, not before",
            &nodes,
        )
    })
}

/// Releases that nodes run now and that would not be servable.
pub(super) fn running_releases(facts: &Facts<'_>) -> Result<Vec<Finding>, CheckError> {
    let mut findings = Vec::new();
    for running in facts.running {
        let nodes = facts.nodes(|node| running.nodes.contains(&node.name));
        if running.releases.is_empty() {
            findings.push(Finding::new(
                "running-release-unknown",
                Severity::Note,
                format!(
                    "the catalog knows no release whose kubelet says {} ({})",
                    running.kubelet,
                    list(&nodes)
                ),
                "see yourself that the images of that release stay servable until these nodes are upgraded",
                &nodes,
            ));
        } else if let Some(images) = unservable(facts, running, &nodes)? {
            let shown: Vec<&str> = images.iter().take(3).map(String::as_str).collect();
            let more = if images.len() > shown.len() { ", …" } else { "" };
            findings.push(Finding::new(
                "running-release-not-servable",
                Severity::Warning,
                format!(
                    "{} of the images that {} ({}) needs now are not there: {}{more}; a node that restarts or cleans up \
                     before its turn does not get them again",
                    images.len(),
                    running.kubelet,
                    list(&nodes),
                    shown.join(", ")
                ),
                "list the release that runs now beside the new one in the definition, and keep it until the last node is \
                 upgraded",
                &nodes,
            ));
        }
    }
    Ok(findings)
}

/// The images of a running release that are not there. Of the releases that it can be, the one that lacks least counts.
fn unservable(
    facts: &Facts<'_>,
    running: &Running,
    nodes: &[&Node],
) -> Result<Option<BTreeSet<String>>, CheckError> {
    let mut least: Option<BTreeSet<String>> = None;
    for id in &running.releases {
        let release = facts.inputs.catalog.release(id)?;
        let plan = Plan { release: &release, ..*facts.plan };
        let mut lacking = BTreeSet::new();
        let mut seen: BTreeSet<(&NodeKind, Option<String>, bool)> = BTreeSet::new();
        for node in nodes {
            if seen.insert((&node.kind, node.runtime.as_ref().map(ToString::to_string), node.control_plane)) {
                let asks = plan.asks(node);
                lacking.extend(
                    missing(&release, node, &asks, facts.shelf)?.into_iter().map(|missing| missing.image),
                );
            }
        }
        if least.as_ref().is_none_or(|least| lacking.len() < least.len()) {
            least = Some(lacking);
        }
    }
    Ok(least.filter(|images| !images.is_empty()))
}

/// Pods as they run now: their images, and the sandbox image that their workers were told.
pub(super) fn current_pods(facts: &Facts<'_>) -> Result<Vec<Finding>, CheckError> {
    let mut findings = Vec::new();
    for workload in facts.inputs.workloads {
        let nodes = facts.nodes(|node| workload.os.as_deref().is_none_or(|os| node.kind.os() == os));
        for image in &workload.images {
            if let Some((reason, lacking)) = absent(facts, &image.image, PullPolicy::IfNotPresent, &nodes)? {
                findings.push(Finding::new(
                    "workload-image-missing",
                    Severity::Warning,
                    format!("{} of {} for {}: {reason}", image.image, workload.name, list(&lacking)),
                    "name the image under `images` in the definition",
                    &lacking,
                ));
            }
            if image.always && facts.inputs.delivery == Delivery::Preload {
                findings.push(Finding::new(
                    "workload-pulls-always",
                    Severity::Warning,
                    format!(
                        "{} of {} is pulled each time a pod starts, and there is no registry",
                        image.image, workload.name
                    ),
                    "set its imagePullPolicy to IfNotPresent, or let a registry answer",
                    &nodes,
                ));
            }
        }
    }
    for config in facts.inputs.worker_configs {
        let Some(pause) = &config.pause else { continue };
        let os = if config.profile == "default-windows" { "windows" } else { "linux" };
        let nodes = facts.nodes(|node| node.kind.os() == os && node.minor() == Some(config.minor));
        if let Some((reason, lacking)) = absent(facts, pause, PullPolicy::Sandbox, &nodes)? {
            findings.push(Finding::new(
                "running-sandbox-missing",
                Severity::Warning,
                format!(
                    "{pause}, the sandbox image of the worker profile {} for {}: {reason}",
                    config.profile,
                    list(&lacking)
                ),
                "carry it too: a node that loses it starts no pod, not even one of the old release",
                &lacking,
            ));
        }
    }
    Ok(findings)
}

/// Why an image is not there for some of `nodes`, and for which.
fn absent<'a>(
    facts: &Facts<'_>,
    image: &str,
    pull: PullPolicy,
    nodes: &[&'a Node],
) -> Result<Option<(String, Vec<&'a Node>)>, CheckError> {
    let Ok(reference) = image.parse::<Reference>() else { return Ok(None) };
    let mut found: Option<(String, Vec<&Node>)> = None;
    for node in nodes {
        let bands = bands(facts.plan.release, node, pull);
        if let Some(reason) = facts.shelf.lacks(std::slice::from_ref(&reference), &node.kind, &bands)? {
            found.get_or_insert_with(|| (reason, Vec::new())).1.push(node);
        }
    }
    Ok(found)
}
