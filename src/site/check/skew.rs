//! The order of versions that Kubernetes allows during an upgrade.
//!
//! Source: kubernetes/website `content/en/releases/version-skew-policy.md`.

use super::Node;
use super::findings::Finding;
use crate::catalog::{ReleaseId, Severity};
use crate::text;

/// How many minor versions a kubelet may be behind the API server; 2 for kubelets before 1.25.
const KUBELET_BEHIND: u32 = 3;
/// The first kubelet that may be three versions behind.
const FIRST_THREE_BEHIND: (u32, u32) = (1, 25);

/// What is wrong with going to `target` from where the nodes are.
pub(super) fn skew(target: &ReleaseId, nodes: &[Node]) -> Vec<Finding> {
    let Some(to) = target.minor() else { return Vec::new() };
    let mut problems = Vec::new();
    let named = |holds: &dyn Fn((u32, u32)) -> bool| -> Vec<&Node> {
        nodes.iter().filter(|node| node.minor().is_some_and(holds)).collect()
    };
    let newer = named(&|minor| minor > to);
    if !newer.is_empty() {
        problems.push(Finding::new(
            "kubelet-newer",
            Severity::Blocker,
            format!("{} is older than the kubelets of {}", target.version, list(&newer)),
            "a kubelet may not be newer than the API server: choose a release that is not older than any node",
            &newer,
        ));
    }
    let behind = named(&|minor| {
        let allowed = if minor < FIRST_THREE_BEHIND { KUBELET_BEHIND - 1 } else { KUBELET_BEHIND };
        minor.0 == to.0 && minor.1 + allowed < to.1
    });
    if !behind.is_empty() {
        problems.push(Finding::new(
            "kubelet-skew",
            Severity::Blocker,
            format!("{} is too far ahead of the kubelets of {}", target.version, list(&behind)),
            "upgrade these nodes to a release in between first: at most three minor versions apart, two before 1.25",
            &behind,
        ));
    }
    problems.extend(skipped(target, to, nodes));
    problems
}

/// The control plane may not skip a minor version. Where it is not among the nodes, it is at least as new as the newest.
fn skipped(target: &ReleaseId, to: (u32, u32), nodes: &[Node]) -> Option<Finding> {
    let members: Vec<&Node> = nodes.iter().filter(|node| node.control_plane).collect();
    let (seen, known) = if members.is_empty() { (nodes.iter().collect(), false) } else { (members, true) };
    let from = seen.iter().filter_map(|node| node.minor()).max()?;
    if from.0 != to.0 || from.1 + 1 >= to.1 {
        return None;
    }
    let next = format!("{}.{}", from.0, from.1 + 1);
    let (severity, whose) = if known {
        (Severity::Blocker, "the control plane is")
    } else {
        (Severity::Warning, "the newest node is")
    };
    Some(Finding::new(
        "control-plane-skips",
        severity,
        format!(
            "{whose} at {}.{}, and a control plane may not skip a minor version on the way to {}",
            from.0, from.1, target.version
        ),
        &format!(
            "go to {next} first, unless the controllers are there already; serve the releases in between too"
        ),
        if known { &seen } else { &[] },
    ))
}

/// Names of nodes for a sentence.
pub(super) fn list(nodes: &[&Node]) -> String {
    const NAMED: usize = 4;
    text::list(nodes.iter().map(|node| &node.name), NAMED)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn node(name: &str, kubelet: &str, control_plane: bool) -> Node {
        Node {
            name: name.into(),
            kind: "linux/amd64".parse().unwrap(),
            kubelet: kubelet.into(),
            runtime: None,
            control_plane,
            images: BTreeSet::new(),
        }
    }

    fn ids(target: &str, nodes: &[Node]) -> Vec<String> {
        skew(&target.parse().unwrap(), nodes).into_iter().map(|problem| problem.id).collect()
    }

    #[test]
    fn versions_that_may_meet() {
        let worker = |kubelet| [node("w", kubelet, false)];
        assert!(ids("k0s@v1.30.3+k0s.0", &worker("v1.29.7+k0s")).is_empty());
        assert!(ids("k0s@v1.30.3+k0s.0", &worker("v1.30.3+k0s")).is_empty());
        assert!(ids("k0s@v1.30.3+k0s.0", &worker("nonsense")).is_empty());
        assert_eq!(ids("k0s@v1.30.3+k0s.0", &worker("v1.31.1+k0s")), ["kubelet-newer"]);
        assert_eq!(ids("k0s@v1.33.1+k0s.0", &worker("v1.29.7+k0s")), ["kubelet-skew", "control-plane-skips"]);
        assert_eq!(ids("kubeadm@v1.27.1", &worker("v1.24.1")), ["kubelet-skew", "control-plane-skips"]);
        assert_eq!(ids("kubeadm@v1.28.1", &worker("v1.25.1")), ["control-plane-skips"]);
        let mixed = [node("c", "v1.32.1", true), node("w", "v1.30.1", false)];
        assert!(ids("kubeadm@v1.33.1", &mixed).is_empty(), "workers may be three behind");
        let known = skew(&"kubeadm@v1.34.1".parse().unwrap(), &mixed);
        assert_eq!(known[0].severity, Severity::Blocker, "{known:?}");
    }

    #[test]
    fn many_nodes_are_counted() {
        let nodes: Vec<Node> = (0..7).map(|n| node(&format!("w{n}"), "v1.30.0", false)).collect();
        assert_eq!(list(&nodes.iter().collect::<Vec<_>>()), "w0, w1, w2, w3 and 3 more");
    }
}
