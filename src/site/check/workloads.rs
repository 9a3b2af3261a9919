//! Workloads as they run now: their images, and the nodes that they are for.

use serde_json::Value;

use super::objects::{ObjectsError, at, objects, text};

/// A container's image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadImage {
    /// The reference as it is written.
    pub image: String,
    /// Whether it is pulled at every start. An image without a tag, or with `latest`, is unless something else is said.
    pub always: bool,
}

/// A `DaemonSet`, `Deployment` or `StatefulSet`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// `DaemonSet kube-system/kube-proxy`.
    pub name: String,
    /// The operating system that its nodes must have; none where it does not say.
    pub os: Option<String>,
    /// The images of its containers.
    pub images: Vec<WorkloadImage>,
}

impl Workload {
    /// Reads those among objects that are workloads. `file` is what messages call it.
    pub fn parse_all(file: &str, input: &str) -> Result<Vec<Self>, ObjectsError> {
        Ok(objects(file, input)?.iter().filter_map(workload).collect())
    }
}

fn workload(object: &Value) -> Option<Workload> {
    let pod = at(object, &["spec", "template", "spec"])?;
    let part = |key| text(object, &["metadata", key]).unwrap_or("?");
    let kind = text(object, &["kind"]).unwrap_or("workload");
    let containers =
        ["initContainers", "containers"].into_iter().filter_map(|key| pod.get(key)?.as_array()).flatten();
    let image = |container: &Value| {
        let image = text(container, &["image"])?.to_owned();
        let latest = !image.contains('@')
            && image.rsplit('/').next().is_some_and(|last| !last.contains(':') || last.ends_with(":latest"));
        let always = text(container, &["imagePullPolicy"]).map_or(latest, |policy| policy == "Always");
        Some(WorkloadImage { image, always })
    };
    Some(Workload {
        name: format!("{kind} {}/{}", part("namespace"), part("name")),
        os: text(pod, &["nodeSelector", "kubernetes.io/os"]).map(str::to_owned),
        images: containers.filter_map(image).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_and_policies() {
        let input = "kind: DaemonSet\nmetadata: {namespace: kube-system, name: kube-proxy}\nspec:\n  template:\n    spec:\n\
                     \x20     nodeSelector: {kubernetes.io/os: windows}\n      initContainers: [{image: mcr.microsoft.com/powershell}]\n\
                     \x20     containers: [{image: 'r.io:5000/a:1'}, {image: 'a:1', imagePullPolicy: Always}]\n---\nkind: Node\n";
        let found = Workload::parse_all("workloads.json", input).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name, "DaemonSet kube-system/kube-proxy");
        assert_eq!(found[0].os.as_deref(), Some("windows"));
        let always: Vec<bool> = found[0].images.iter().map(|image| image.always).collect();
        assert_eq!(always, [true, false, true]);
    }
}
