//! Pull policies and archives: whether images that are there reach the nodes.

use super::super::needs::Ask;
use super::super::{ClusterConfig, Delivery};
use super::{Facts, Finding};
use crate::catalog::{PullPolicy, Severity};

/// What to know about pull policies.
pub(super) fn policies(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(never(facts));
    findings.extend(always(facts));
    let nodes = facts.asking(|ask| ask.pull == PullPolicy::Sandbox);
    if facts.is_preloaded() && !nodes.is_empty() {
        let mut images: Vec<&str> = facts
            .wanted
            .iter()
            .flat_map(|wanted| &wanted.asks)
            .filter(|ask| ask.pull == PullPolicy::Sandbox)
            .map(|ask| ask.image.as_str())
            .collect();
        images.sort_unstable();
        images.dedup();
        findings.push(Finding::new(
            "sandbox-ignores-policy",
            Severity::Note,
            format!(
                "the container runtime itself asks for the sandbox image ({}), and no pull policy applies to it",
                images.join(", ")
            ),
            "have it in the archive that is preloaded, as `dray export` does, or let a registry answer for it",
            &nodes,
        ));
    }
    findings
}

/// Nodes that may not pull have to have everything beforehand.
fn never(facts: &Facts<'_>) -> Option<Finding> {
    let absent = |ask: &Ask, images: &std::collections::BTreeSet<String>| {
        ask.pull == PullPolicy::Never && !images.contains(&ask.image)
    };
    let lacks = |wanted: &&super::Wanted<'_>| wanted.asks.iter().any(|ask| absent(ask, &wanted.node.images));
    let nodes: Vec<_> = facts.wanted.iter().filter(lacks).map(|wanted| wanted.node).collect();
    let severity = match facts.inputs.delivery {
        _ if nodes.is_empty() => return None,
        Delivery::Preload => return None,
        Delivery::Registry => Severity::Blocker,
        Delivery::Any => Severity::Warning,
    };
    Some(Finding::new(
        "pull-policy-never",
        severity,
        "the pull policy is Never: nodes run what was put into their images directory before, and ask no registry for it",
        "put the archive of each node kind on its nodes before the upgrade (`dray export --for k0s`), or set \
         spec.images.default_pull_policy to IfNotPresent and let the registry answer",
        &nodes,
    ))
}

/// Nodes that always pull need a registry whenever a pod starts.
fn always(facts: &Facts<'_>) -> Option<Finding> {
    let configured = facts.inputs.config.map(ClusterConfig::pull_policy);
    if !facts.plan.is_k0s() || configured != Some(PullPolicy::Always) {
        return None;
    }
    let nodes = facts.asking(|ask| ask.pull == PullPolicy::Always);
    let severity = match facts.inputs.delivery {
        Delivery::Preload => Severity::Blocker,
        Delivery::Registry => Severity::Note,
        Delivery::Any => Severity::Warning,
    };
    (!nodes.is_empty()).then(|| {
        Finding::new(
            "pull-policy-always",
            severity,
            "the pull policy is Always: preloaded images are not enough, a registry has to answer each time a pod starts",
            "keep `dray serve` reachable from every node, or set spec.images.default_pull_policy to IfNotPresent",
            &nodes,
        )
    })
}

/// What the release's importer of archives cannot do.
pub(super) fn archives(facts: &Facts<'_>) -> Vec<Finding> {
    if !facts.is_preloaded() {
        return Vec::new();
    }
    let known = &facts.plan.release.facts;
    let version = &facts.inputs.target.version;
    let mut findings = Vec::new();
    let mut add = |id, message: String, fix| {
        findings.push(Finding::new(id, Severity::Warning, message, fix, &[]));
    };
    if known.import_sparse == Some(false) {
        add(
            "import-sparse",
            format!("{version} imports no archive whose indexes name content that is left out of it"),
            "preload what `dray export` writes for this release, which has no such index; k0s 1.27.15, 1.28.11, 1.29.6 \
             and 1.30.2 are the first that tolerate them",
        );
    }
    if known.import_pins == Some(false) {
        add(
            "import-unpinned",
            format!(
                "{version} does not protect imported images: the kubelet may delete them when the disk fills"
            ),
            "use k0s 1.28.2 or later, or let a registry answer as well",
        );
    }
    if known.import_bad_file_is_fatal == Some(true) {
        add(
            "import-bad-file",
            format!("one file in the images directory that is no archive stops a worker of {version}"),
            "keep everything but the archive out of that directory, also checksums and signatures",
        );
    }
    findings
}
