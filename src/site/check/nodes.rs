//! The nodes of a cluster, as `kubectl get nodes -o json` describes them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::objects::{ObjectsError, at, is_kind, objects, text};
use crate::catalog::WindowsTable;
use crate::oci::{NodeKind, WindowsBuild};
use crate::select::Runtime;

/// Labels that mark a node of the control plane.
const CONTROL_PLANE: [&str; 3] = [
    "node-role.kubernetes.io/control-plane",
    "node-role.kubernetes.io/master",
    "node-role.kubernetes.io/controlplane",
];

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Operating system, architecture and Windows build.
    pub kind: NodeKind,
    /// The version of its kubelet, `v1.29.7+k0s`; empty where it does not say.
    pub kubelet: String,
    /// Its container runtime; none where it does not say, or says something unknown.
    pub runtime: Option<Runtime>,
    /// Whether it belongs to the control plane.
    pub control_plane: bool,
    /// References of images that it has. The kubelet names fifty at most.
    pub images: BTreeSet<String>,
}

impl Node {
    /// The minor version of its kubelet.
    pub fn minor(&self) -> Option<(u32, u32)> {
        format!("k@{}", self.kubelet).parse::<crate::catalog::ReleaseId>().ok()?.minor()
    }
}

/// Reads nodes: a `List`, a single node, or several documents, in JSON or YAML. `file` is what messages call it.
pub fn parse(file: &str, input: &str, windows: &WindowsTable) -> Result<Vec<Node>, ObjectsError> {
    let found = objects(file, input)?;
    let nodes: Vec<Node> = found
        .iter()
        .filter(|object| is_kind(object, "Node"))
        .map(|object| node(object, windows))
        .collect::<Result<_, _>>()?;
    if nodes.is_empty() {
        let message = "there are no nodes; give the output of `kubectl get nodes -o json`";
        return Err(ObjectsError::Unfit(message.to_owned()));
    }
    Ok(nodes)
}

fn node(object: &Value, windows: &WindowsTable) -> Result<Node, ObjectsError> {
    let name = text(object, &["metadata", "name"]).unwrap_or("(without a name)").to_owned();
    let label = |key| text(object, &["metadata", "labels", key]);
    let info = |key| text(object, &["status", "nodeInfo", key]);
    let unfit = |what: &str| ObjectsError::Unfit(format!("node {name}: {what}"));
    let os = label("kubernetes.io/os").or(info("operatingSystem"));
    let os = os.ok_or_else(|| unfit("it states no operating system (label kubernetes.io/os)"))?;
    let arch = label("kubernetes.io/arch").or(info("architecture"));
    let arch = arch.ok_or_else(|| unfit("it states no architecture (label kubernetes.io/arch)"))?;
    let kind = if os == "windows" {
        let stated = label("node.kubernetes.io/windows-build").or(info("kernelVersion"));
        let build = stated.and_then(|version| version.parse::<WindowsBuild>().ok());
        let build = build.or_else(|| info("osImage").and_then(|title| titled(title, windows)));
        let build = build.ok_or_else(|| {
            unfit("it states no Windows version (label node.kubernetes.io/windows-build, or nodeInfo.kernelVersion)")
        })?;
        format!("windows({build})/{arch}")
    } else {
        format!("{os}/{arch}")
    };
    let kind = kind.parse().map_err(|error| unfit(&format!("{error}")))?;
    let role = |key: &&str| at(object, &["metadata", "labels", key]).is_some();
    let images = at(object, &["status", "images"]).and_then(Value::as_array);
    let names = images.into_iter().flatten().filter_map(|image| image.get("names")?.as_array()).flatten();
    Ok(Node {
        kind,
        kubelet: info("kubeletVersion").unwrap_or_default().to_owned(),
        runtime: info("containerRuntimeVersion").and_then(|version| version.parse().ok()),
        control_plane: CONTROL_PLANE.iter().any(role)
            || label("node.k0sproject.io/role") == Some("control-plane"),
        images: names.filter_map(Value::as_str).map(str::to_owned).collect(),
        name,
    })
}

/// The build of `Windows Server 2022 Datacenter`.
fn titled(title: &str, windows: &WindowsTable) -> Option<WindowsBuild> {
    let named = windows.builds.iter().filter(|release| title.starts_with(&release.title));
    named.max_by_key(|release| release.title.len()).map(|release| release.build)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::catalog::Catalog;

    fn parsed(value: &Value) -> Result<Vec<Node>, ObjectsError> {
        parse("nodes.json", &value.to_string(), Catalog::builtin().unwrap().windows())
    }

    fn windows(extra: &Value, info: &Value) -> Value {
        let mut labels = json!({"kubernetes.io/os": "windows", "kubernetes.io/arch": "amd64"});
        labels.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        json!({"kind": "Node", "metadata": {"name": "w1", "labels": labels}, "status": {"nodeInfo": info}})
    }

    #[test]
    fn reads_what_kubectl_prints() {
        let list = json!({"kind": "List", "items": [{
            "kind": "Node",
            "metadata": {"name": "c0", "labels": {"node-role.kubernetes.io/control-plane": ""}},
            "status": {
                "nodeInfo": {"operatingSystem": "linux", "architecture": "arm64", "kubeletVersion": "v1.29.7+k0s",
                    "containerRuntimeVersion": "containerd://1.7.20"},
                "images": [{"names": ["quay.io/k0sproject/pause:3.9", "quay.io/k0sproject/pause@sha256:00"]}],
            },
        }]});
        let nodes = parsed(&list).unwrap();
        let node = &nodes[0];
        assert_eq!(node.kind.to_string(), "linux/arm64");
        assert_eq!(node.minor(), Some((1, 29)));
        assert_eq!(node.runtime.as_ref().unwrap().to_string(), "containerd@1.7.20");
        assert!(node.control_plane);
        assert!(node.images.contains("quay.io/k0sproject/pause:3.9"));
    }

    #[test]
    fn a_windows_build_is_found_in_three_places() {
        for (labels, info) in [
            (json!({"node.kubernetes.io/windows-build": "10.0.20348"}), json!({})),
            (json!({}), json!({"kernelVersion": "10.0.20348.2527"})),
            (json!({}), json!({"osImage": "Windows Server 2022 Datacenter"})),
        ] {
            let nodes = parsed(&windows(&labels, &info)).unwrap();
            assert_eq!(nodes[0].kind.to_string(), "windows(10.0.20348)/amd64");
        }
        let error = parsed(&windows(&json!({}), &json!({"osImage": "Windows Something"}))).unwrap_err();
        assert!(error.to_string().contains("node w1: it states no Windows version"), "{error}");
    }

    #[test]
    fn what_cannot_be_a_node_is_named() {
        assert!(parsed(&json!({"kind": "List", "items": []})).unwrap_err().to_string().contains("no nodes"));
        assert!(
            parsed(&json!({"kind": "Node", "metadata": {"name": "x"}}))
                .unwrap_err()
                .to_string()
                .contains("x:")
        );
        let odd = json!({"kind": "Node", "status": {"nodeInfo": {"operatingSystem": "linux", "architecture": "amd64",
            "containerRuntimeVersion": "rkt://1", "kubeletVersion": 7}}});
        let nodes = parsed(&odd).unwrap();
        assert!(nodes[0].runtime.is_none() && nodes[0].minor().is_none());
    }

    proptest! {
        #[test]
        fn never_panics(os in ".{0,10}", arch in ".{0,8}", version in ".{0,16}") {
            let _ = parsed(&json!({"metadata": {"name": "n"}, "status": {"nodeInfo": {
                "operatingSystem": os, "architecture": arch, "kernelVersion": version.clone(),
                "kubeletVersion": version.clone(), "containerRuntimeVersion": format!("containerd://{version}")}}}));
        }
    }
}
