//! Talos Linux: patches of the machine configuration.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{NodeFile, Request};

pub(super) fn files(request: &Request) -> Vec<NodeFile> {
    vec![
        NodeFile::new("from-1.12.yaml", documents(request)),
        NodeFile::new("before-1.12.yaml", machine_patch(request)),
        NodeFile::new("README.md", readme()),
    ]
}

/// The name of each mirror with its endpoint, and whether the path of that is used as it is.
fn mirrors(request: &Request) -> Vec<(String, String, bool)> {
    if request.hosts.is_empty() {
        return vec![("*".to_owned(), request.registry.to_string(), false)];
    }
    request.hosts.iter().map(|host| (host.to_string(), request.registry.of_host(host), true)).collect()
}

/// Documents of their own, Talos 1.12 and later.
fn documents(request: &Request) -> String {
    let mut text = request.head();
    let mut documents = Vec::new();
    for (name, endpoint, override_path) in mirrors(request) {
        let mut document = format!(
            "apiVersion: v1alpha1\nkind: RegistryMirrorConfig\nname: \"{name}\"\nendpoints:\n  - url: \"{endpoint}\"\n"
        );
        if override_path {
            document.push_str("    overridePath: true\n");
        }
        document.push_str("skipFallback: true\n");
        documents.push(document);
    }
    if let Some(ca) = &request.ca {
        let mut document = format!(
            "apiVersion: v1alpha1\nkind: RegistryTLSConfig\nname: \"{}\"\nca: |-\n",
            request.registry.authority()
        );
        for line in ca.0.lines() {
            let _ = writeln!(document, "  {line}");
        }
        documents.push(document);
    }
    text.push_str(&documents.join("---\n"));
    text
}

/// Fields of the one machine configuration, before Talos 1.12.
fn machine_patch(request: &Request) -> String {
    let mut text = request.head();
    text.push_str("machine:\n  registries:\n    mirrors:\n");
    for (name, endpoint, override_path) in mirrors(request) {
        let _ = write!(text, "      \"{name}\":\n        endpoints:\n          - \"{endpoint}\"\n");
        if override_path {
            text.push_str("        overridePath: true\n");
        }
        text.push_str("        skipFallback: true\n");
    }
    if let Some(ca) = &request.ca {
        let _ = write!(
            text,
            "    config:\n      \"{}\":\n        tls:\n          ca: {}\n",
            request.registry.authority(),
            STANDARD.encode(&ca.0)
        );
    }
    text
}

fn readme() -> String {
    "# Talos\n\n\
     For Talos 1.12 and later:\n\n\
     ```sh\ntalosctl patch machineconfig --nodes NODE… --patch @from-1.12.yaml\n```\n\n\
     Before 1.12:\n\n\
     ```sh\ntalosctl patch machineconfig --nodes NODE… --patch @before-1.12.yaml\n```\n\n\
     No reboot is needed. With `skipFallback` the upstream is not asked when the site has no answer.\n\n\
     To see that it works, with an image that the site has: `talosctl image pull registry.k8s.io/pause:3.9`\n"
        .to_owned()
}
