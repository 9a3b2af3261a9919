//! What people do on nodes that no controller upgrades.

use serde::Serialize;

use crate::catalog::ReleaseId;
use crate::oci::NodeKind;
use crate::site::export::Importer;

/// The steps on each node of a kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Manual {
    /// The kind of node.
    pub node: NodeKind,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What is done, and where.
    pub what: String,
    /// How.
    pub commands: Vec<String>,
}

fn step(what: &str, commands: impl IntoIterator<Item = String>) -> Step {
    Step { what: what.to_owned(), commands: commands.into_iter().collect() }
}

/// The address of a file and its SHA-256.
type Resource = (String, String);

impl Manual {
    /// A Windows worker of k0s.
    pub(super) fn k0s_windows(
        release: &ReleaseId,
        node: &NodeKind,
        archive: Option<&Resource>,
        program: &Resource,
    ) -> Self {
        let mut steps = vec![drain()];
        steps.extend(archive.map(|archive| bring_archive(Importer::K0s, node, archive)));
        // The program is a service of its own since 1.34 (k0s `cmd/root.go`).
        let (what, replace) = if release.minor().is_some_and(|minor| minor >= (1, 34)) {
            ("the program", "k0s stop; move -Force \"$k0s.new\" $k0s; k0s start")
        } else {
            ("the program, while the worker is stopped", "move -Force \"$k0s.new\" $k0s")
        };
        let mut commands = vec!["$k0s = (Get-Command k0s.exe).Source".to_owned()];
        commands.extend(download("\"$k0s.new\"", program, replace));
        steps.push(on_node(what, commands));
        steps.push(uncordon());
        Self { node: node.clone(), steps }
    }

    /// A Windows agent of RKE2.
    pub(super) fn rke2_windows(node: &NodeKind, archive: &Resource, program: &Resource) -> Self {
        let new = r"C:\rke2.windows-amd64.tar.gz";
        let replace = format!(r"Stop-Service rke2; tar.exe -xzf {new} -C C:\usr\local; Start-Service rke2");
        let programs = on_node("the program", download(new, program, &replace));
        let steps = vec![drain(), bring_archive(Importer::Rke2, node, archive), programs, uncordon()];
        Self { node: node.clone(), steps }
    }
}

fn drain() -> Step {
    let command = "kubectl drain NODE --ignore-daemonsets --delete-emptydir-data";
    step("From a machine with kubectl", [command.to_owned()])
}

fn uncordon() -> Step {
    step("From a machine with kubectl", ["kubectl uncordon NODE".to_owned()])
}

/// The archive gets its name when all of it is there: the node watches the directory.
fn bring_archive(importer: Importer, node: &NodeKind, archive: &Resource) -> Step {
    let directory = importer.directory(node);
    let parent = directory.rsplit_once('\\').map_or(directory, |(parent, _)| parent);
    let new = format!(r"{parent}\dray-new.tar");
    let file = importer.file_name(node);
    let place = format!(r"mkdir -Force {directory} | Out-Null; move -Force {new} {directory}\{file}");
    on_node("the images", download(&new, archive, &place))
}

fn on_node(what: &str, commands: Vec<String>) -> Step {
    step(&format!("On the node, in a PowerShell of an administrator: {what}"), commands)
}

/// Commands that download a file, and do `then` with it only when it is the one that is meant.
fn download(to: &str, (url, sha256): &Resource, then: &str) -> Vec<String> {
    vec![
        format!("curl.exe -fsSo {to} {url}"),
        format!(
            "if ((Get-FileHash {to}).Hash -eq '{sha256}') {{ {then} }} else {{ throw 'this is another file' }}"
        ),
    ]
}
