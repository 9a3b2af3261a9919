//! Nodes that the release cannot serve: the wrong place for a control plane, networks and load balancers that do not
//! reach Windows, sandbox images without an entry.

use std::collections::BTreeMap;

use super::super::skew::list;
use super::{Facts, Finding, Node};
use crate::catalog::{Offer, PullPolicy, Severity, offer};

/// What to know about the set of nodes.
pub(super) fn nodes(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let misplaced = facts.nodes(|node| node.kind.is_windows() && node.control_plane);
    if !misplaced.is_empty() {
        findings.push(Finding::new(
            "control-plane-on-windows",
            Severity::Blocker,
            format!("{} are Windows nodes of the control plane, which runs on Linux only", list(&misplaced)),
            "make these nodes workers, and have the control plane on Linux",
            &misplaced,
        ));
    }
    if facts.inputs.nodes.iter().all(|node| node.kind.is_windows()) {
        findings.push(Finding::new(
            "linux-worker-missing",
            Severity::Blocker,
            "there are Windows nodes only; CoreDNS and the other system pods need a Linux worker",
            "add a Linux worker, or give all nodes of the cluster with --nodes",
            &facts.windows(),
        ));
    }
    findings.extend(envoy(facts));
    findings
}

/// Envoy as load balancer on Linux nodes that it is not built for. For Windows nodes the catalog says it.
fn envoy(facts: &Facts<'_>) -> Option<Finding> {
    let nodes = facts.asking(|ask| ask.component == "envoy" && ask.lacking.is_some());
    (!nodes.is_empty()).then(|| {
        Finding::new(
            "nllb-envoy-architecture",
            Severity::Blocker,
            format!(
                "node-local load balancing with Envoy does not start on {}: it is built for amd64 and arm64",
                list(&nodes)
            ),
            "use k0s 1.36 or later with type Traefik, or a load balancer in front of the controllers",
            &nodes,
        )
    })
}

/// What to know about Windows nodes.
pub(super) fn windows(facts: &Facts<'_>) -> Vec<Finding> {
    let nodes = facts.windows();
    if nodes.is_empty() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    findings.extend(network(facts, &nodes));
    findings.extend(sandboxes(facts));
    findings.extend(profiles(facts, &nodes));
    findings
}

/// A network that does not reach Windows nodes.
fn network(facts: &Facts<'_>, nodes: &[&Node]) -> Option<Finding> {
    let networks = &facts.plan.release.windows_networks;
    let features = facts.plan.features();
    let supported = networks.join(" or ");
    if let Some(config) = facts.inputs.config.filter(|_| facts.plan.is_k0s()) {
        let mode = config.text("spec.network.calico.mode").filter(|mode| *mode != "vxlan");
        return match (config.network(), mode) {
            ("calico", None) => None,
            ("calico", Some(mode)) => Some(Finding::new(
                "windows-network",
                Severity::Blocker,
                format!("Calico is in the mode {mode}, and runs on Windows nodes in the mode vxlan only"),
                "set spec.network.calico.mode to vxlan; a running cluster cannot change its network without new pods",
                nodes,
            )),
            ("custom", _) => Some(Finding::new(
                "windows-network",
                Severity::Note,
                "the network is the site's own, so its images for Windows nodes are not looked for here",
                "name them under `images` in the definition",
                nodes,
            )),
            (other, _) => Some(Finding::new(
                "windows-network",
                Severity::Blocker,
                format!("the network {other} does not reach Windows nodes"),
                &format!("Windows nodes need {supported} as the network"),
                nodes,
            )),
        };
    }
    if networks.is_empty() || networks.iter().any(|network| features.contains(network)) {
        return None;
    }
    let severity = if facts.inputs.config.is_some() { Severity::Blocker } else { Severity::Warning };
    Some(Finding::new(
        "windows-network",
        severity,
        format!("Windows nodes of {} need {supported} as the network", facts.inputs.target.distro),
        "set the network, and say so with --with where the configuration does not show it",
        nodes,
    ))
}

/// Sandbox images that a Windows node cannot run, or that do not do for Hyper-V.
fn sandboxes(facts: &Facts<'_>) -> Vec<Finding> {
    const SERVER_2025: u32 = 26100;
    let mut linux_only: BTreeMap<String, Vec<&Node>> = BTreeMap::new();
    let mut none: BTreeMap<String, Vec<&Node>> = BTreeMap::new();
    let mut older: BTreeMap<String, Vec<&Node>> = BTreeMap::new();
    for wanted in facts.wanted {
        let Some(host) = wanted.node.kind.windows_build() else { continue };
        for ask in wanted.asks.iter().filter(|ask| ask.pull == PullPolicy::Sandbox) {
            let table = facts.inputs.catalog.windows();
            let Some(pause) = ask.names.iter().find_map(|name| table.pause(name)) else {
                // k0s' own pause image is a static Linux program, whatever its version.
                if ask.names.iter().any(|name| name.repository() == "k0sproject/pause") {
                    linux_only.entry(ask.image.clone()).or_default().push(wanted.node);
                }
                continue;
            };
            let list = match offer(host, &pause.builds) {
                _ if pause.builds.is_empty() => &mut linux_only,
                Offer::Nothing => &mut none,
                Offer::Older(_) if host.build >= SERVER_2025 => &mut older,
                _ => continue,
            };
            list.entry(ask.image.clone()).or_default().push(wanted.node);
        }
    }
    let each =
        |found: BTreeMap<String, Vec<&Node>>, id: &str, severity, text: &str, fix: &str| -> Vec<Finding> {
            let finding = |(image, nodes): (String, Vec<&Node>)| {
                Finding::new(
                    id,
                    severity,
                    format!("{image}, the sandbox image of {}, {text}", list(&nodes)),
                    fix,
                    &nodes,
                )
            };
            found.into_iter().map(finding).collect()
        };
    let mut findings = each(
        linux_only,
        "win-pause-linux-only",
        Severity::Blocker,
        "exists for Linux only: no pod starts there",
        "set spec.images.pause (from k0s 1.34 on spec.images.windows.pause) to image registry.k8s.io/pause, version \
         \"3.10.1\"; in k0s 1.33 it then holds for Linux workers too",
    );
    findings.extend(each(
        none,
        "windows-entry-missing",
        Severity::Blocker,
        "has no entry for that Windows: no pod starts there",
        "use a release whose sandbox image has one, or set another in the configuration",
    ));
    findings.extend(each(
        older,
        "pause-hyper-v",
        Severity::Warning,
        "has no entry for that Windows but for the one before: with Hyper-V isolation the utility VM boots as Windows \
         Server 2022 and images of the host's own build fail in it (HCS_E_IMAGE_MISMATCH); process isolation works",
        "set the sandbox image to registry.k8s.io/pause:3.10.2 or later where Hyper-V isolation is used",
    ));
    findings
}

/// Worker profiles that somebody made, where Windows nodes may have them.
fn profiles(facts: &Facts<'_>, nodes: &[&Node]) -> Option<Finding> {
    let mut custom: Vec<&str> = facts
        .inputs
        .worker_configs
        .iter()
        .filter(|config| !config.is_builtin())
        .map(|config| config.profile.as_str())
        .collect();
    custom.sort_unstable();
    custom.dedup();
    (!custom.is_empty() && facts.plan.is_k0s() && facts.plan.has_windows_sandbox()).then(|| {
        Finding::new(
            "win-custom-profile-linux-pause",
            Severity::Warning,
            format!(
                "there are worker profiles of the site's own ({}); a Windows worker that was started with one gets the \
                 sandbox image for Linux, and which profile a node has cannot be seen from here",
                custom.join(", ")
            ),
            "start Windows workers without --profile, or set spec.images.pause to an image for both systems",
            nodes,
        )
    })
}
