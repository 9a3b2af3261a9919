//! containerd as kubeadm clusters run it.

use super::{NodeFile, Request, hosts_toml};

/// Where containerd looks for `hosts.toml` files, and how its own configuration names the place.
struct Place {
    certs_d: &'static str,
    /// Quoted for TOML: a backslash in double quotes would be an escape.
    quoted: &'static str,
    config: &'static str,
    copy: &'static str,
    restart: &'static str,
}

const LINUX: Place = Place {
    certs_d: "etc/containerd/certs.d",
    quoted: "\"/etc/containerd/certs.d\"",
    config: "/etc/containerd/config.toml",
    copy: "Copy `etc/` to `/etc/` of every node.",
    restart: "systemctl restart containerd",
};

const WINDOWS: Place = Place {
    certs_d: "ProgramData/containerd/certs.d",
    quoted: r"'C:\ProgramData\containerd\certs.d'",
    config: r"C:\Program Files\containerd\config.toml",
    copy: r"Copy `ProgramData\` to `C:\ProgramData\` of every node.",
    restart: "Restart-Service containerd",
};

pub(super) fn files(request: &Request) -> Vec<NodeFile> {
    let place = if request.is_windows() { &WINDOWS } else { &LINUX };
    let mut files = hosts_toml::files(request, place.certs_d);
    files.push(NodeFile::new("README.md", readme(request, place)));
    files
}

/// The configuration proper is left to the operator: an `imports` of containerd 1.x replaces the whole section of the
/// Kubernetes interface, with its sandbox image and its cgroup driver (`services/server/config/config.go`).
fn readme(request: &Request, place: &Place) -> String {
    let Place { quoted, config, copy, restart, .. } = place;
    let shell = if request.is_windows() { "powershell" } else { "sh" };
    let hosts_dir = quoted.trim_matches(['"', '\'']);
    let encoding = if request.is_windows() {
        "Save it as ASCII or UTF-8 without a byte order mark. With a `ca` in `hosts.toml`, containerd on Windows trusts \
         that one alone for the registry.\n"
    } else {
        ""
    };
    format!(
        "# containerd\n\n\
         1. {copy}\n   containerd reads these files at every pull, without a restart.\n\
         2. In `{config}`, set `config_path` to that one directory. Change the key in the table that is there; do not put \
         it into a file of `imports`, which in containerd 1.x replaces the whole section.\n\n\
         containerd 1.6 and 1.7 (`version = 2`):\n\n\
         ```toml\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = {quoted}\n```\n\n\
         containerd 2.x (`version = 3`):\n\n\
         ```toml\n[plugins.\"io.containerd.cri.v1.images\".registry]\n  config_path = {quoted}\n```\n\n\
         {encoding}\
         Remove `registry.mirrors` and `registry.configs` if they are there: beside `config_path` containerd refuses \
         them. On containerd 2.2 and later set `config_path` although Linux has a default: the default is a list, which \
         pulls do not understand.\n\n\
         3. `{restart}`\n\n\
         To see that it works, with an image that the site has:\n\n\
         ```{shell}\ncrictl pull registry.k8s.io/pause:3.9\n\
         ctr -n k8s.io images pull --hosts-dir {quoted} registry.k8s.io/pause:3.9\n```\n\n\
         `ctr` reads `{hosts_dir}` only when told so.\n"
    )
}
