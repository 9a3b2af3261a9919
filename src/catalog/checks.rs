//! Problems that follow from the release and the nodes together.

use super::component::PullPolicy;
use super::manifest::{Release, ReleaseComponent};
use super::need::Need;
use super::problem::{Problem, Severity};
use super::windows::{Offer, WindowsTable, offer};
use crate::oci::{NodeKind, WindowsBuild};

/// Windows Server 2025, the first build that boots utility VMs of another build than the pause image's.
const SERVER_2025: u32 = 26100;

fn problem(id: &str, severity: Severity, message: String, fix: &str, nodes: Vec<NodeKind>) -> Problem {
    Problem { id: id.to_owned(), severity, message, fix: (!fix.is_empty()).then(|| fix.to_owned()), nodes }
}

/// Windows nodes are asked for, and no network that reaches them.
pub(super) fn network_assumed(release: &Release, networks: &[String], nodes: Vec<NodeKind>) -> Problem {
    let list = networks.join(" or ");
    problem(
        "windows-network",
        Severity::Note,
        format!(
            "Windows nodes of {} need {list} as their network; the list has the images of {}",
            release.id.distro, networks[0]
        ),
        &format!("set {list} as the cluster's network; --with says which and silences this"),
        nodes,
    )
}

/// Whether the release exists for the node's architecture.
pub(super) fn architecture(release: &Release, kind: &NodeKind, problems: &mut Vec<Problem>) -> bool {
    let known: Vec<&str> = if kind.is_windows() {
        vec!["amd64"]
    } else {
        release.architectures.iter().map(String::as_str).collect()
    };
    let exists = known.is_empty() || known.contains(&kind.architecture());
    if !exists {
        // A distribution is what the node runs; other software need not run on every node.
        let severity = if release.kubernetes.is_some() { Severity::Blocker } else { Severity::Warning };
        problems.push(problem(
            "architecture-unsupported",
            severity,
            format!("{} does not exist for {kind}; it exists for {}", release.id, known.join(", ")),
            "leave this node kind out, or choose another release",
            vec![kind.clone()],
        ));
    }
    exists
}

/// A component that is on has no image for the node's architecture.
pub(super) fn no_image_for_architecture(item: &ReleaseComponent, kind: &NodeKind) -> Problem {
    problem(
        "no-image-for-architecture",
        Severity::Warning,
        format!("{} ({}) has no image for {kind}", item.component.name, item.reference),
        "use another feature on these nodes, or accept that the component does not run there",
        vec![kind.clone()],
    )
}

/// What the image's index offers to a Windows node, and whether that is certain; none where it is not known without a
/// network.
fn offered(item: &ReleaseComponent, kind: &NodeKind, table: &WindowsTable) -> Option<(Offer, bool)> {
    let host = kind.windows_build()?;
    let component = &item.component;
    if !component.builds.is_empty() {
        let builds: Vec<WindowsBuild> =
            component.builds.iter().filter_map(|build| build.parse().ok()).collect();
        return Some((offer(host, &builds), true));
    }
    let pause = (component.pull == PullPolicy::Sandbox).then(|| table.pause(&item.reference)).flatten()?;
    Some((offer(host, &pause.builds), pause.certain))
}

/// Images that have no entry which the Windows node runs, and pause images whose entry does not do for Hyper-V.
pub(super) fn entries(
    items: &[&ReleaseComponent],
    kind: &NodeKind,
    table: &WindowsTable,
    problems: &mut Vec<Problem>,
) {
    let Some(host) = kind.windows_build() else { return };
    let mut older = Vec::new();
    for item in items {
        match offered(item, kind, table) {
            Some((Offer::Nothing, certain)) => {
                // Of the images of several container runtimes, a node asks for one.
                let certain = certain && item.component.runtimes.is_empty();
                problems.push(problem(
                    "windows-entry-missing",
                    if certain { Severity::Blocker } else { Severity::Warning },
                    format!(
                        "{} has no entry that {kind} runs; needed by {}",
                        item.reference, item.component.name
                    ),
                    "use a release whose image has one, or override the image in the node's configuration",
                    vec![kind.clone()],
                ));
            }
            Some((Offer::Older(_), _))
                if item.component.pull == PullPolicy::Sandbox && host.build >= SERVER_2025 =>
            {
                let reference = item.reference.to_string();
                if !older.contains(&reference) {
                    older.push(reference);
                }
            }
            _ => {}
        }
    }
    if !older.is_empty() {
        problems.push(problem(
            "pause-hyper-v",
            Severity::Warning,
            format!(
                "no entry for {kind} in {}: with Hyper-V isolation the utility VM boots as Windows Server 2022 and \
                 images of the host's own build fail in it (HCS_E_IMAGE_MISMATCH); process isolation works",
                older.join(", ")
            ),
            "set the sandbox image to registry.k8s.io/pause:3.10.2 or later where Hyper-V isolation is used",
            vec![kind.clone()],
        ));
    }
}

/// Problems of the set of nodes as a whole.
pub(super) fn nodes(
    release: &Release,
    kinds: &[NodeKind],
    images: &[Need],
    table: &WindowsTable,
    problems: &mut Vec<Problem>,
) {
    for kind in kinds.iter().filter(|kind| kind.is_windows()) {
        support(release, kind, table, problems);
        let nothing = images.iter().all(|need| !need.nodes.contains(kind));
        let explained = problems.iter().any(|p| p.severity == Severity::Blocker && p.nodes.contains(kind));
        // Software that is no distribution need not run on every node.
        if nothing && !explained && release.kubernetes.is_some() {
            problems.push(problem(
                "windows-part-empty",
                Severity::Blocker,
                format!("{} has nothing for Windows nodes, and {kind} is asked for", release.id),
                "leave the Windows node kinds out, or choose a distribution with Windows workers",
                vec![kind.clone()],
            ));
        }
    }
    if release.kubernetes.is_some() && !kinds.is_empty() && kinds.iter().all(NodeKind::is_windows) {
        problems.push(problem(
            "control-plane-needs-linux",
            Severity::Warning,
            "only Windows nodes are asked for; a control plane never runs on Windows".to_owned(),
            "add the node kind of the control plane, such as linux/amd64, unless the site has its images already",
            kinds.to_vec(),
        ));
    }
}

/// Whether this Kubernetes version supports the node's Windows release.
fn support(release: &Release, kind: &NodeKind, table: &WindowsTable, problems: &mut Vec<Problem>) {
    let (Some(build), Some(kubernetes)) = (kind.windows_build(), release.kubernetes) else { return };
    let (major, minor) = kubernetes;
    let Some(windows) = table.release(build) else {
        problems.push(problem(
            "windows-unknown",
            Severity::Warning,
            format!("{kind} is no Windows release that the catalog knows"),
            "check the build with `Get-ComputerInfo -Property OsVersion`, or add it to windows.yaml (--catalog DIR)",
            vec![kind.clone()],
        ));
        return;
    };
    if windows.kubernetes.as_ref().is_some_and(|range| range.contains(kubernetes)) {
        return;
    }
    let supported = match &windows.kubernetes {
        Some(range) => format!("by {range}"),
        None => "by no version of Kubernetes".to_owned(),
    };
    let comes_later = windows.kubernetes.as_ref().is_some_and(|range| range.starts_after(kubernetes));
    let fix = if comes_later {
        "use a later Kubernetes for these nodes, or an earlier Windows Server"
    } else {
        "update these nodes to a Windows Server that this Kubernetes supports, or stay with an earlier Kubernetes"
    };
    let note = if windows.note.is_empty() { String::new() } else { format!(" ({})", windows.note) };
    problems.push(problem(
        "windows-unsupported",
        windows.outside,
        format!("{} ({kind}) is supported {supported}, not by {major}.{minor}{note}", windows.title),
        fix,
        vec![kind.clone()],
    ));
}
