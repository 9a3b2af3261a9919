//! containerd's `hosts.toml`, which Docker from version 29 on reads as well.

use std::fmt::Write as _;

use super::{CA_FILE, NodeFile, Request};
use crate::site::RegistryHost;

/// The files below the directory that `config_path` names: for the hosts asked for, or one for all of them.
///
/// Source of what is avoided here: containerd `core/remotes/docker/config/hosts.go`.
pub(super) fn files(request: &Request, certs_d: &str) -> Vec<NodeFile> {
    let file =
        |directory: &str, text: String| NodeFile::new(format!("{certs_d}/{directory}/hosts.toml"), text);
    let ca = request.ca.is_some().then(|| format!("../{CA_FILE}"));
    let mut files = if request.hosts.is_empty() {
        // The image's own host comes in the query (`?ns=`), so one file serves for all.
        vec![file("_default", everything(request, ca.as_deref()))]
    } else {
        let of = |host: &RegistryHost| file(&host.directory(), one_host(request, host, ca.as_deref()));
        request.hosts.iter().map(of).collect()
    };
    files.extend(request.ca_file(certs_d, CA_FILE));
    files
}

fn everything(request: &Request, ca: Option<&str>) -> String {
    text(request, &request.registry.to_string(), false, ca)
}

/// The file for one upstream: its images lie below a path of their own.
pub(super) fn one_host(request: &Request, host: &RegistryHost, ca: Option<&str>) -> String {
    text(request, &request.registry.of_host(host), true, ca)
}

fn text(request: &Request, server: &str, override_path: bool, ca: Option<&str>) -> String {
    let mut text = request.head();
    // Without `server` containerd would go on to the upstream when the site has no answer.
    let _ = write!(text, "server = \"{server}\"\ncapabilities = [\"pull\", \"resolve\"]\n");
    if override_path {
        text.push_str("override_path = true\n");
    }
    if let Some(ca) = ca {
        let _ = writeln!(text, "ca = \"{ca}\"");
    }
    text.push_str(
        "\n# containerd before 1.7.32 ignores a file without this table, and goes to the upstream.\n[host]\n",
    );
    text
}
