//! Problems that the catalog knows of the release, as far as they concern this cluster, and how bad they are in it.

use super::super::{CheckError, ClusterConfig, Delivery};
use super::{Facts, Finding};
use crate::catalog::{Problem, Severity};
use crate::oci::NodeKind;

/// Problems that are worked out here from the cluster's own configuration instead.
const OWN: [&str; 6] = [
    "windows-network",
    "windows-entry-missing",
    "control-plane-needs-linux",
    "no-image-for-architecture",
    "win-pause-linux-only",
    "pause-hyper-v",
];

/// What to do about pins that the release would leave in a new object: the one that exists is looked at already.
const LOOKED_AT: &str =
    "nothing now: this configuration was looked at for such pins; check it again before the next upgrade";

/// The known problems of the release.
pub(super) fn known(facts: &Facts<'_>) -> Result<Vec<Finding>, CheckError> {
    let mut kinds: Vec<NodeKind> = facts.inputs.nodes.iter().map(|node| node.kind.clone()).collect();
    kinds.sort();
    kinds.dedup();
    let known = facts.plan.release.features();
    let features: Vec<String> =
        facts.plan.features().into_iter().filter(|feature| known.contains(feature.as_str())).collect();
    let needs = facts.inputs.catalog.needs(facts.inputs.target, &features, &kinds)?;
    let concerned = needs.problems.into_iter().filter(|problem| !OWN.contains(&problem.id.as_str()));
    Ok(concerned.filter_map(|problem| here(facts, problem)).collect())
}

/// The problem in this cluster; none where its configuration avoids it.
fn here(facts: &Facts<'_>, problem: Problem) -> Option<Finding> {
    let config = facts.inputs.config;
    let repository = config.map(ClusterConfig::repository).unwrap_or_default();
    let preload = facts.inputs.delivery == Delivery::Preload;
    let severity = match problem.id.as_str() {
        "repo-override-not-idempotent" if !repository.contains('/') => return None,
        "dyncfg-pins-images-with-repository" | "pushgateway-not-overridden" if repository.is_empty() => {
            return None;
        }
        "win-nllb-envoy" => Severity::Blocker,
        "win-pull-policy-always" | "win-bundle-import-broken" if preload => Severity::Blocker,
        // Where the profiles are known, `platforms` says which.
        "win-custom-profile-linux-pause" if !facts.inputs.worker_configs.is_empty() => return None,
        "kubeadm-containerd-2" if !super::upgrade::on_containerd_1(facts).is_empty() => Severity::Blocker,
        _ => problem.severity,
    };
    let nodes = match problem.id.as_str() {
        "kubeadm-containerd-2" => super::upgrade::on_containerd_1(facts),
        _ => facts.nodes(|node| problem.nodes.contains(&node.kind)),
    };
    Some(Finding::new(
        &problem.id,
        severity,
        problem.message,
        if problem.id.starts_with("dyncfg-pins") {
            LOOKED_AT
        } else {
            problem.fix.as_deref().unwrap_or_default()
        },
        &nodes,
    ))
}
