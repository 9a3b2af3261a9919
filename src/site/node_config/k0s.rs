//! k0s: drop-in files for the containerd inside.

use super::{NodeFile, Request, hosts_toml};

/// The drop-in files that are known, by the version of containerd's configuration.
const V2: (u8, &str) = (2, "io.containerd.grpc.v1.cri");
const V3: (u8, &str) = (3, "io.containerd.cri.v1.images");

pub(super) fn files(request: &Request) -> Vec<NodeFile> {
    let certs_d = "etc/k0s/containerd.d/certs.d";
    let mut files = hosts_toml::files(request, certs_d);
    let drop_in = |folder: &str, version| {
        NodeFile::new(format!("{folder}etc/k0s/containerd.d/dray.toml"), drop_in(request, version))
    };
    // k0s v1.36 has containerd 2, and its workers refuse to start with a drop-in of version 2 (k0s
    // internal/pkg/sysinfo/probes/containerd.go).
    match request.containerd_config {
        Some(2) => files.push(drop_in("", V2)),
        Some(_) => files.push(drop_in("", V3)),
        None => files.extend([drop_in("before-1.36/", V2), drop_in("from-1.36/", V3)]),
    }
    files.push(NodeFile::new("README.md", readme(request)));
    files
}

fn drop_in(request: &Request, (version, plugin): (u8, &str)) -> String {
    let certs_d = if request.is_windows() {
        r"'C:\etc\k0s\containerd.d\certs.d'"
    } else {
        "\"/etc/k0s/containerd.d/certs.d\""
    };
    format!(
        "{}version = {version}\n\n[plugins.\"{plugin}\".registry]\n  config_path = {certs_d}\n",
        request.head()
    )
}

fn readme(request: &Request) -> String {
    let (root, restart) = if request.is_windows() {
        (r"C:\etc\k0s\", "k0s stops and starts containerd by itself")
    } else {
        ("/etc/k0s/", "k0s reloads containerd by itself within seconds")
    };
    let releases = match request.containerd_config {
        Some(2) => {
            "These are for k0s v1.35 and older. Before a worker is updated to v1.36, replace `dray.toml` by the one that \
             `dray node-config k0s --release k0s@<the new version>` writes: a worker of v1.36 does not start with this \
             one.\n"
        }
        Some(_) => "These are for k0s v1.36 and later; an older worker does not understand `dray.toml`.\n",
        None => {
            "Then one of the two `dray.toml`, by the version of the worker: `before-1.36/` or `from-1.36/`. Replace the \
             file together with the k0s binary when a worker is updated to v1.36: with the old one it does not start.\n"
        }
    };
    format!(
        "# k0s\n\n\
         Copy `etc/k0s/` to `{root}` of every worker, and of controllers that run workloads. {restart}; the \
         certificates and `hosts.toml` are read at every pull. Leave `containerd.toml` to k0s.\n\n\
         {releases}\n\
         Images keep their names, so leave `spec.images.repository` unset. With `default_pull_policy: Never` only the \
         pause image would be pulled at all: preload the others (`dray export --for k0s`).\n\n\
         To see that it works, with an image that the site has: `k0s ctr images pull --hosts-dir {root}{dir} registry.k8s.io/pause:3.9`\n",
        dir = if request.is_windows() { r"containerd.d\certs.d" } else { "containerd.d/certs.d" },
    )
}
