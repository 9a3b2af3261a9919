//! CRI-O, podman, skopeo and buildah: `registries.conf`.

use std::fmt::Write as _;

use super::{NodeFile, Request};

pub(super) fn files(request: &Request) -> Vec<NodeFile> {
    let certs_d = format!("etc/containers/certs.d/{}", request.registry.authority());
    let mut files = vec![
        NodeFile::new("etc/containers/registries.conf.d/50-dray.conf", registries(request)),
        NodeFile::new("README.md", readme()),
    ];
    files.extend(request.ca_file(&certs_d, "ca.crt"));
    files
}

/// The hosts' places are moved, and nothing falls back to them. There is no word for all hosts, and these clients send
/// no `?ns=`: one block each, by path.
fn registries(request: &Request) -> String {
    let mut text = request.head();
    for host in request.named_hosts() {
        let _ = write!(
            text,
            "\n[[registry]]\nprefix = \"{host}\"\nlocation = \"{}/{host}\"\n",
            request.registry.authority()
        );
        if !request.registry.is_https() {
            text.push_str("insecure = true\n");
        }
    }
    text
}

fn readme() -> String {
    "# CRI-O and podman\n\n\
     1. Copy `etc/containers/` to `/etc/containers/` of every node.\n\
     2. `systemctl reload crio`. podman, skopeo and buildah need nothing.\n\n\
     A host that is not in `50-dray.conf` is still asked itself; name it with `--host`. Signatures that \
     `/etc/containers/policy.json` asks for are looked up at the site too.\n\n\
     To see that it works, with an image that the site has: `crictl pull registry.k8s.io/pause:3.9`, or `podman pull registry.k8s.io/pause:3.9`\n"
        .to_owned()
}
