//! The programs that Windows nodes run beside their images: no distribution brings them along by itself.

use super::Definition;
use crate::catalog::{Catalog, CatalogError, Problem, Release, ReleaseId, Severity};

/// The stable name of the problem.
const ID: &str = "windows-files-unlisted";

/// Finds for each release the programs that its Windows nodes need, that `spec.files` does not list, and that do not come
/// from elsewhere.
///
/// Releases that lack the same programs, apart from the version in their names, have the same problem.
pub(super) fn unlisted(
    definition: &Definition,
    catalog: &Catalog,
) -> Result<Vec<(ReleaseId, Problem)>, CatalogError> {
    let nodes: Vec<_> = definition.nodes.iter().filter(|node| node.is_windows()).cloned().collect();
    if nodes.is_empty() {
        return Ok(Vec::new());
    }
    let paths: Vec<String> = definition.files.iter().map(|file| decoded(file.url.path())).collect();
    let listed = |name: &String| paths.iter().any(|path| path.ends_with(&format!("/{name}")));
    let mut lacking: Vec<(&ReleaseId, String, String)> = Vec::new();
    for wanted in definition.releases.iter().filter(|wanted| wanted.programs.is_none()) {
        let needed = windows_files(&catalog.release(&wanted.id)?);
        let missing = needed.into_iter().filter(|alternatives| !alternatives.iter().any(listed));
        let missing: Vec<String> = missing.map(|alternatives| alternatives.join(" or ")).collect();
        let missing = missing.join(", ");
        if !missing.is_empty() {
            let general = missing.replace(&wanted.id.version, "VERSION");
            lacking.push((&wanted.id, missing, general));
        }
    }
    let shared = |general: &String| lacking.iter().filter(|(_, _, other)| other == general).count() > 1;
    let problem = |(release, missing, general): &(&ReleaseId, String, String)| {
        let named = if shared(general) { general } else { missing };
        let problem = Problem {
            id: ID.to_owned(),
            severity: Severity::Blocker,
            message: format!("Windows nodes run {named}, which `spec.files` does not list"),
            fix: Some(
                "list it with its address and checksum, or state `programs: elsewhere` beside the release if it \
                 reaches the nodes in another way"
                    .to_owned(),
            ),
            nodes: nodes.clone(),
        };
        ((*release).clone(), problem)
    };
    Ok(lacking.iter().map(problem).collect())
}

/// The ends of the paths of the files that a Windows node of `release` runs; of each list one is enough.
///
/// Sources: the release's own assets; for kubeadm sig-windows-tools `PrepareNode.ps1` and the Kubernetes node tarball, for
/// RKE2 its `install.ps1`.
fn windows_files(release: &Release) -> Vec<Vec<String>> {
    let version = &release.id.version;
    match release.id.distro.as_str() {
        "kubeadm" => ["kubelet.exe", "kubeadm.exe"]
            .map(|name| {
                vec![
                    format!("{version}/bin/windows/amd64/{name}"),
                    format!("{version}/kubernetes-node-windows-amd64.tar.gz"),
                ]
            })
            .into(),
        "rke2" => vec![vec![format!("{version}/rke2.windows-amd64.tar.gz")]],
        _ => {
            let programs = release.assets.iter().filter(|asset| asset.strip_suffix(".exe").is_some());
            programs.map(|asset| vec![asset.clone()]).collect()
        }
    }
}

fn decoded(path: &str) -> String {
    percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned()
}
