//! A plain DaemonSet whose containers never start: each names a command that no image has, so that the kubelet pulls the
//! image and nothing of it is run.

use serde_json::{Value, json};

use super::{Group, Request};

/// In no image.
const NO_COMMAND: &str = "/dray-prepull-runs-nothing";
const NO_COMMAND_WINDOWS: &str = r"C:\dray-prepull-runs-nothing.exe";

pub(super) fn daemon_set(request: &Request<'_>, group: &Group<'_>) -> Value {
    let windows = group.kind.is_windows();
    let command = if windows { NO_COMMAND_WINDOWS } else { NO_COMMAND };
    let container = |(nth, image): (usize, &String)| {
        let mut container = json!({
            "name": format!("image-{}", nth + 1),
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "command": [command],
            "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}},
        });
        // Windows has neither.
        if !windows {
            container["securityContext"] =
                json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
        }
        container
    };
    let mut pod = json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 0,
        "nodeSelector": group.node_labels(),
        "tolerations": [{"operator": "Exists"}],
        "containers": group.images.iter().enumerate().map(container).collect::<Vec<_>>(),
    });
    if !windows {
        // Works while the network of the cluster does not, and takes no address of it.
        pod["hostNetwork"] = json!(true);
    }
    if !request.secrets.is_empty() {
        let secrets = request.secrets.iter().map(|secret| json!({"name": secret}));
        pod["imagePullSecrets"] = Value::Array(secrets.collect());
    }
    // Values of labels are short; the name may not be.
    let labels = json!({"app.kubernetes.io/name": "dray-prepull", "dray.dev/nodes": label(group)});
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": group.name, "namespace": request.namespace, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%"}},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    })
}

fn label(group: &Group<'_>) -> String {
    let labels = group.node_labels();
    labels.into_values().rev().collect::<Vec<_>>().join("-")
}
