//! k3s and RKE2: `registries.yaml`, from which they write containerd's files themselves.

use std::fmt::Write as _;

use super::{CA_FILE, NodeFile, Request, Target};

pub(super) fn files(request: &Request) -> Vec<NodeFile> {
    let directory = format!("etc/rancher/{}", request.target);
    let mut files = vec![
        NodeFile::new(format!("{directory}/registries.yaml"), registries(request, &directory)),
        NodeFile::new(format!("{directory}/config.yaml.d/dray.yaml"), no_fallback(request)),
        NodeFile::new("README.md", readme(request)),
    ];
    files.extend(request.ca_file(&directory, CA_FILE));
    files
}

/// Hosts by name go by path, which also RKE2's own fetcher understood before it sent `?ns=` (wharfie 0.6.4); `*` stands
/// for all the rest.
fn registries(request: &Request, directory: &str) -> String {
    let registry = &request.registry;
    let mut text = request.head();
    text.push_str("mirrors:\n");
    for host in request.named_hosts() {
        let _ = write!(text, "  \"{host}\":\n    endpoint:\n      - \"{}\"\n", registry.of_host(&host));
    }
    if request.hosts.is_empty() {
        let _ = write!(text, "  \"*\":\n    endpoint:\n      - \"{registry}\"\n");
    }
    if request.ca.is_some() {
        // Forward slashes: the path ends up in a file of containerd's, where a backslash would be an escape.
        let root = if request.is_windows() { "C:/" } else { "/" };
        let _ = write!(
            text,
            "configs:\n  \"{}\":\n    tls:\n      ca_file: \"{root}{directory}/{CA_FILE}\"\n",
            registry.authority()
        );
    }
    text
}

fn no_fallback(request: &Request) -> String {
    format!("{}disable-default-registry-endpoint: true\n", request.head())
}

fn readme(request: &Request) -> String {
    let target = request.target;
    let (title, root, restart) = match (target, request.is_windows()) {
        (Target::K3s, _) => ("k3s", "/etc/rancher/k3s/", "`systemctl restart k3s` (agents: `k3s-agent`)"),
        (_, false) => {
            ("RKE2", "/etc/rancher/rke2/", "`systemctl restart rke2-server` (agents: `rke2-agent`)")
        }
        (_, true) => ("RKE2", r"C:\etc\rancher\rke2\", "`Restart-Service rke2`"),
    };
    let windows_ca = if request.is_windows() && request.ca.is_some() {
        "\nOlder releases do not look at the TLS part on Windows; there the certificate goes into the system's store:\n\n\
         ```powershell\nImport-Certificate -FilePath C:\\etc\\rancher\\rke2\\site-ca.crt -CertStoreLocation \
         Cert:\\LocalMachine\\Root\n```\n"
    } else {
        ""
    };
    format!(
        "# {title}\n\n\
         1. Copy `etc/rancher/{target}/` to `{root}` of every node, servers and agents. If there is a `registries.yaml`, \
         merge the two: there can be only one.\n\
         2. {restart}. The files are read at the start only.\n\n\
         `disable-default-registry-endpoint` keeps containerd from asking the upstream when the site has no answer; \
         releases from before 2024 do not know it. Leave `system-default-registry` unset: images keep their names.\n\
         {windows_ca}\n\
         To see that it works, with an image that the site has: `crictl pull docker.io/rancher/mirrored-pause:3.6`\n"
    )
}
