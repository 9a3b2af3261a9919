//! What nodes need from a release: the images, and the problems that come with them.

use std::collections::BTreeSet;

use super::checks;
use super::component::{Component, Os};
use super::manifest::{Release, ReleaseComponent};
use super::need::Need;
use super::problem::{Problem, Severity};
use super::windows::WindowsTable;
use crate::oci::NodeKind;

/// The condition that holds when there are Windows nodes.
pub(super) const WINDOWS: &str = "windows";

/// What nodes need from a release.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// The images, each once, in the order in which the distribution lists them.
    pub images: Vec<Need>,
    /// What an operator has to know, the worst first.
    pub problems: Vec<Problem>,
}

/// The features that are on: the defaults, those asked for, and what Windows nodes imply.
fn active(
    release: &Release,
    with: &[String],
    kinds: &[NodeKind],
    problems: &mut Vec<Problem>,
) -> BTreeSet<String> {
    let mut active: BTreeSet<String> = release.defaults.iter().chain(with).cloned().collect();
    let windows: Vec<NodeKind> = kinds.iter().filter(|kind| kind.is_windows()).cloned().collect();
    if windows.is_empty() {
        return active;
    }
    active.insert(WINDOWS.to_owned());
    let networks = &release.windows_networks;
    if let Some(first) = networks.first()
        && !networks.iter().any(|network| with.contains(network))
    {
        active.insert(first.clone());
        problems.push(checks::network_assumed(release, networks, windows));
    }
    active
}

/// What `kinds` need from a release with the features `with`; `known` are the problems that the release names.
pub(super) fn needs(
    release: &Release,
    with: &[String],
    kinds: &[NodeKind],
    table: &WindowsTable,
    known: Vec<Problem>,
) -> Needs {
    let mut problems = known;
    let active = active(release, with, kinds, &mut problems);
    let mut images: Vec<Need> = Vec::new();
    let on = |c: &&ReleaseComponent| {
        c.component.when.is_empty() || c.component.when.iter().any(|f| active.contains(f))
    };
    let exists: Vec<NodeKind> =
        kinds.iter().filter(|kind| checks::architecture(release, kind, &mut problems)).cloned().collect();
    let items: Vec<&ReleaseComponent> = release.components.iter().filter(on).collect();
    for item in &items {
        let mut nodes = Vec::new();
        for kind in exists.iter().filter(|kind| runs_on(item, kind)) {
            if has_architecture(release, item, &active, kind) {
                nodes.push(kind.clone());
            } else {
                problems.push(checks::no_image_for_architecture(item, kind));
            }
        }
        if !nodes.is_empty() {
            add(&mut images, item, nodes, kinds);
        }
    }
    for kind in &exists {
        let on_kind: Vec<&ReleaseComponent> =
            items.iter().copied().filter(|item| runs_on(item, kind)).collect();
        checks::entries(&on_kind, kind, table, &mut problems);
    }
    checks::nodes(release, &exists, &images, table, &mut problems);
    problems.sort_by_key(|problem| std::cmp::Reverse(problem.severity));
    Needs { images, problems }
}

fn runs_on(item: &ReleaseComponent, kind: &NodeKind) -> bool {
    item.component.os.contains(if kind.is_windows() { &Os::Windows } else { &Os::Linux })
}

/// Whether the image exists for the node's architecture, and so does a feature that brings it.
fn has_architecture(
    release: &Release,
    item: &ReleaseComponent,
    active: &BTreeSet<String>,
    kind: &NodeKind,
) -> bool {
    if kind.is_windows() {
        return true;
    }
    let allows = |list: &[String]| list.iter().any(|arch| arch == kind.architecture());
    let Component { arch, when, .. } = &item.component;
    let brings = |feature: &&String| active.contains(*feature);
    (arch.is_empty() || allows(arch))
        && (when.is_empty()
            || when
                .iter()
                .filter(brings)
                .any(|f| release.feature_arch.get(f).is_none_or(|list| allows(list))))
}

/// Adds an image, or the nodes of one that is there already.
fn add(images: &mut Vec<Need>, item: &ReleaseComponent, nodes: Vec<NodeKind>, order: &[NodeKind]) {
    let component = &item.component;
    if let Some(need) = images.iter_mut().find(|need| need.reference == item.reference) {
        need.nodes.extend(nodes);
        let all = std::mem::take(&mut need.nodes);
        need.nodes = order.iter().filter(|kind| all.contains(kind)).cloned().collect();
        // An image that any runtime asks for is not bound to one, and one that always runs has no condition.
        if component.runtimes.is_empty() || need.runtimes.is_empty() {
            need.runtimes.clear();
        } else {
            need.runtimes.extend(component.runtimes.iter().cloned());
        }
        if component.when.is_empty() {
            need.when.clear();
        }
        return;
    }
    images.push(Need {
        reference: item.reference.clone(),
        component: component.name.clone(),
        nodes,
        when: component.when.clone(),
        config: component.config.clone(),
        repository_override: component.is_rewritten(),
        pull: component.pull,
        runtimes: component.runtimes.clone(),
        note: component.note.clone(),
    });
}

impl Needs {
    /// Whether something will not work.
    pub fn is_blocked(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Blocker)
    }
}
