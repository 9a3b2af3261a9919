//! What `kubectl` answers on the pages: nodes and configurations as real clusters have them.

use serde_json::{Value, json};

/// A node: its name, what it runs on, its kubelet, its container runtime.
pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) system: System,
    pub(crate) kubelet: &'static str,
    pub(crate) containerd: &'static str,
}

#[derive(Clone, Copy)]
pub(crate) enum System {
    Linux,
    /// A Linux node of the control plane.
    Control,
    /// With its version.
    Windows(&'static str),
}

pub(crate) const SERVER_2022: System = System::Windows("10.0.20348.2655");

/// What `kubectl get nodes -o json` prints.
pub(crate) fn list(nodes: &[Node]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": nodes.iter().map(node).collect::<Vec<_>>()})
        .to_string()
}

fn node(node: &Node) -> Value {
    let (os, title, kernel) = match node.system {
        System::Linux | System::Control => ("linux", "Debian GNU/Linux 12 (bookworm)", "6.1.0-26-amd64"),
        System::Windows(version) => ("windows", "Windows Server 2022 Standard", version),
    };
    let mut labels = json!({
        "kubernetes.io/os": os, "kubernetes.io/arch": "amd64", "kubernetes.io/hostname": node.name,
    });
    match node.system {
        System::Control => labels["node-role.kubernetes.io/control-plane"] = json!(""),
        System::Windows(version) => {
            labels["node.kubernetes.io/windows-build"] = json!(version.rsplit_once('.').unwrap().0);
        }
        System::Linux => {}
    }
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": node.name, "labels": labels},
        "status": {"nodeInfo": {
            "operatingSystem": os, "architecture": "amd64", "osImage": title, "kernelVersion": kernel,
            "kubeletVersion": node.kubelet, "containerRuntimeVersion": format!("containerd://{}", node.containerd),
        }},
    })
}
