//! The images that pods use, as `kubectl get pods -A -o json` describes them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::objects::{ObjectsError, at, is_kind, objects, text};

/// The lists of containers in the `spec` of a pod.
const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];
/// The lists of what became of them in its `status`.
const STATUSES: [&str; 3] = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];

/// A pod and its images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it asks for and what its node says that it runs: references, and ids such as `docker.io/library/a@sha256:…` or
    /// `sha256:…`.
    pub images: BTreeSet<String>,
}

impl Pod {
    /// Reads pods: a `List`, a single pod, or several documents, in JSON or YAML. An empty list is refused, because it is
    /// what a command prints that looked in the wrong namespace.
    pub fn parse_all(file: &str, input: &str) -> Result<Vec<Self>, ObjectsError> {
        let found = objects(file, input)?;
        let pods: Vec<Self> = found.iter().filter(|object| is_kind(object, "Pod")).map(pod).collect();
        if pods.iter().all(|pod| pod.images.is_empty()) {
            let message = "there are no pods; give the output of `kubectl get pods -A -o json`";
            return Err(ObjectsError::Unfit(message.to_owned()));
        }
        Ok(pods)
    }
}

fn pod(object: &Value) -> Pod {
    let list = |part: &str, key: &str| {
        let items = at(object, &[part, key]).and_then(Value::as_array);
        items.map(Vec::as_slice).unwrap_or_default()
    };
    let asked = CONTAINERS.into_iter().flat_map(|key| list("spec", key));
    let running = STATUSES.into_iter().flat_map(|key| list("status", key));
    // Volumes of the type `image`, since Kubernetes 1.31 (KEP-4639).
    let volumes = list("spec", "volumes").iter().filter_map(|volume| text(volume, &["image", "reference"]));
    let images = asked.filter_map(|container| text(container, &["image"])).chain(volumes);
    let observed =
        running.flat_map(|status| [text(status, &["image"]), text(status, &["imageID"])]).flatten();
    let own = |key| text(object, &["metadata", key]).unwrap_or("?").to_owned();
    Pod {
        namespace: own("namespace"),
        name: own("name"),
        images: images.chain(observed).map(str::to_owned).collect(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn pod_uses_images_of_containers_statuses_and_volumes() {
        let pods = json!({"kind": "List", "items": [{
            "kind": "Pod",
            "metadata": {"namespace": "kube-system", "name": "coredns-1"},
            "spec": {
                "containers": [{"image": "a:1"}, {"name": "without"}],
                "initContainers": [{"image": "b:1"}],
                "ephemeralContainers": [{"image": "c:1"}],
                "volumes": [{"name": "x"}, {"image": {"reference": "d:1"}}],
            },
            "status": {
                "containerStatuses": [{"image": "site/a:1", "imageID": "site/a@sha256:00"}, {"image": "", "imageID": ""}],
                "initContainerStatuses": [{"imageID": "sha256:01"}],
                "ephemeralContainerStatuses": [{"image": "e:1"}],
            },
        }, {"kind": "Node", "metadata": {"name": "w1"}}]});
        let pods = Pod::parse_all("pods.json", &pods.to_string()).unwrap();
        assert_eq!(pods.len(), 1);
        assert_eq!((pods[0].namespace.as_str(), pods[0].name.as_str()), ("kube-system", "coredns-1"));
        let images: Vec<&str> = pods[0].images.iter().map(String::as_str).collect();
        let expected = ["a:1", "b:1", "c:1", "d:1", "e:1", "sha256:01", "site/a:1", "site/a@sha256:00"];
        assert_eq!(images, expected);
    }

    #[test]
    fn list_without_pods_is_refused() {
        for text in
            [r#"{"kind":"List","items":[]}"#, r#"{"kind":"Node","metadata":{"name":"w1"}}"#, "kind: Pod\n"]
        {
            let error = Pod::parse_all("pods.json", text).unwrap_err();
            assert!(error.to_string().contains("kubectl get pods -A"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn parse_never_panics(text in "[ -~\n]{0,200}") {
            let _ = Pod::parse_all("pods.json", &text);
        }
    }
}
