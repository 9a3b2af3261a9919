//! Docker Engine, and cri-dockerd with it.

use super::{NodeFile, Request, hosts_toml};

pub(super) fn files(request: &Request) -> Vec<NodeFile> {
    let (daemon, certs_d) = if request.is_windows() {
        ("ProgramData/docker/config/daemon.json", "ProgramData/docker/certs.d")
    } else {
        ("etc/docker/daemon.json", "etc/docker/certs.d")
    };
    let mut files =
        vec![NodeFile::new(daemon, settings(request)), NodeFile::new("README.md", readme(request, daemon))];
    for host in request.named_hosts() {
        let directory = format!("{certs_d}/{}", host.directory());
        // Beside hosts.toml and under this name, it is also what older engines trust for the host itself.
        let ca = request.ca.as_ref().map(|_| "ca.crt");
        files
            .push(NodeFile::new(format!("{directory}/hosts.toml"), hosts_toml::one_host(request, &host, ca)));
        files.extend(request.ca_file(&directory, "ca.crt"));
    }
    // The engine looks for the mirror's own certificate under the mirror's name, on Windows without the colon.
    let own = request.registry.authority();
    let own = if request.is_windows() { own.replace(':', "") } else { own.to_owned() };
    files.extend(request.ca_file(&format!("{certs_d}/{own}"), "ca.crt"));
    files
}

fn settings(request: &Request) -> String {
    let registry = request.registry.to_string();
    let mut settings = serde_json::json!({ "registry-mirrors": [registry] });
    if !request.registry.is_https() {
        settings["insecure-registries"] = serde_json::json!([request.registry.authority()]);
    }
    format!("{settings:#}\n")
}

fn readme(request: &Request, daemon: &str) -> String {
    let (copy, restart) = if request.is_windows() {
        (r"Copy `ProgramData\docker\` to `C:\ProgramData\docker\`", "Restart-Service docker")
    } else {
        ("Copy `etc/docker/` to `/etc/docker/`", "systemctl restart docker")
    };
    format!(
        "# Docker Engine\n\n\
         1. {copy} of every node. If there is a `daemon.json`, merge `{daemon}` into it.\n\
         2. `{restart}`\n\n\
         `registry-mirrors` is for Docker Hub only; where the mirror has no answer the engine asks Docker Hub.\n\n\
         The other hosts are mirrored by `certs.d/<host>/hosts.toml`, which Docker 29 and later read, with the containerd \
         image store (`docker info` shows `io.containerd.snapshotter.v1`). Older engines and the classic store cannot be \
         told to take another registry for registry.k8s.io: let those names lead to the site by DNS, with a certificate \
         for them at the site (dray finds the images by the Host header; `certs.d/<host>/ca.crt` is there for that), or \
         preload the images.\n\n\
         To see that it works, with an image that the site has: `docker pull registry.k8s.io/pause:3.9`\n"
    )
}
