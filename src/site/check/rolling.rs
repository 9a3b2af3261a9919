//! What must stay servable while nodes are upgraded one after the other.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Node;
use crate::catalog::{Catalog, CatalogError, ReleaseId};

/// Releases that nodes still run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Running {
    /// What the kubelets say, `v1.29.7+k0s`.
    pub kubelet: String,
    /// The releases that this can be: k0s does not tell which of its builds it is.
    pub releases: Vec<ReleaseId>,
    /// The nodes.
    pub nodes: Vec<String>,
}

/// The releases of `distro` that `nodes` run, other than `target`.
///
/// Their images stay needed until the last of the nodes is upgraded, because the kubelet deletes images that it has not
/// used for a while and pulls them again, and a node that is restarted before its turn starts the old release.
pub fn running(catalog: &Catalog, target: &ReleaseId, nodes: &[Node]) -> Result<Vec<Running>, CatalogError> {
    let known = catalog.releases(Some(&target.distro))?;
    let mut running: BTreeMap<&str, Running> = BTreeMap::new();
    for node in nodes.iter().filter(|node| !node.kubelet.is_empty()) {
        let entry = running.entry(&node.kubelet).or_insert_with(|| Running {
            kubelet: node.kubelet.clone(),
            releases: known
                .iter()
                .filter(|release| reports(&release.id, &node.kubelet))
                .map(|release| release.id.clone())
                .collect(),
            nodes: Vec::new(),
        });
        entry.nodes.push(node.name.clone());
    }
    Ok(running.into_values().filter(|entry| entry.releases != [target.clone()]).collect())
}

/// Whether a kubelet of `release` says `kubelet`. k0s leaves the number of its build out (`v1.29.7+k0s`), RKE2 on Windows
/// everything after the Kubernetes version.
pub fn reports(release: &ReleaseId, kubelet: &str) -> bool {
    let rest = release.version.strip_prefix(kubelet);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.') && kubelet.contains('+'))
        || (!kubelet.contains('+') && release.base_version() == kubelet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubelets_name_their_release() {
        for (release, kubelet, expected) in [
            ("k0s@v1.29.7+k0s.0", "v1.29.7+k0s", true),
            ("k0s@v1.29.7+k0s.0", "v1.29.7+k0s.0", true),
            ("k0s@v1.29.7+k0s.0", "v1.29.70+k0s", false),
            ("k3s@v1.33.5+k3s1", "v1.33.5+k3s1", true),
            ("k3s@v1.33.5+k3s10", "v1.33.5+k3s1", false),
            ("rke2@v1.33.5+rke2r1", "v1.33.5", true),
            ("rke2@v1.33.5+rke2r1", "v1.33", false),
            ("kubeadm@v1.33.5", "v1.33.5", true),
        ] {
            assert_eq!(reports(&release.parse().unwrap(), kubelet), expected, "{release} {kubelet}");
        }
    }
}
