//! The programs that Windows nodes run beside their images: no distribution brings them along by itself.

use super::Definition;
use crate::catalog::{Catalog, CatalogError, Problem, Release, ReleaseId, Severity};

/// The stable name of the problem.
const ID: &str = "windows-files-unlisted";

/// Finds for each release the programs that its Windows nodes need, that `spec.files` does not list, and that do not come
/// from elsewhere.
pub(super) fn unlisted(
    definition: &Definition,
    catalog: &Catalog,
) -> Result<Vec<(ReleaseId, Problem)>, CatalogError> {
    let nodes: Vec<_> = definition.nodes.iter().filter(|node| node.is_windows()).cloned().collect();
    let mut problems = Vec::new();
    if nodes.is_empty() {
        return Ok(problems);
    }
    let paths: Vec<String> = definition.files.iter().map(|file| decoded(file.url.path())).collect();
    for wanted in definition.releases.iter().filter(|wanted| wanted.programs.is_none()) {
        let needed = windows_files(&catalog.release(&wanted.id)?);
        let listed = |name: &&String| paths.iter().any(|path| path.ends_with(&format!("/{name}")));
        let missing: Vec<String> = needed
            .into_iter()
            .filter(|alternatives| !alternatives.iter().any(|name| listed(&name)))
            .map(|alternatives| alternatives.join(" or "))
            .collect();
        if !missing.is_empty() {
            let problem = Problem {
                id: ID.to_owned(),
                severity: Severity::Blocker,
                message: format!(
                    "Windows nodes run {}, which `spec.files` does not list",
                    missing.join(", ")
                ),
                fix: Some(
                    "list it with its address and checksum, or state `programs: elsewhere` beside the release if it \
                     reaches the nodes in another way"
                        .to_owned(),
                ),
                nodes: nodes.clone(),
            };
            problems.push((wanted.id.clone(), problem));
        }
    }
    Ok(problems)
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
