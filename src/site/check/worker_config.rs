//! The `ConfigMap`s from which k0s workers take their configuration, one for each profile and minor version.

use super::objects::{ObjectsError, objects, text};

/// The configuration of a worker profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerConfig {
    /// The profile, `default` or `default-windows` where nobody made others.
    pub profile: String,
    /// The Kubernetes minor version of the workers that read it.
    pub minor: (u32, u32),
    /// The sandbox image that it names.
    pub pause: Option<String>,
}

impl WorkerConfig {
    /// Whether k0s made the profile.
    pub fn is_builtin(&self) -> bool {
        matches!(self.profile.as_str(), "default" | "default-windows")
    }

    /// Reads those among objects that are worker configurations: `worker-config-PROFILE-1.30`. `file` is what messages
    /// call it.
    pub fn parse_all(file: &str, input: &str) -> Result<Vec<Self>, ObjectsError> {
        let mut found = Vec::new();
        for object in objects(file, input)? {
            let name =
                text(&object, &["metadata", "name"]).and_then(|name| name.strip_prefix("worker-config-"));
            let Some((profile, minor)) = name.and_then(|name| name.rsplit_once('-')) else { continue };
            let Some(minor) = version(minor) else { continue };
            let pause = match text(&object, &["data", "pauseImage"]) {
                Some(inner) => objects(file, inner)?.first().and_then(|image| {
                    Some(format!("{}:{}", text(image, &["image"])?, text(image, &["version"])?))
                }),
                None => None,
            };
            found.push(Self { profile: profile.to_owned(), minor, pause });
        }
        Ok(found)
    }
}

fn version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_and_their_sandbox_image() {
        let input = r#"{"kind":"List","items":[
            {"metadata":{"name":"worker-config-default-1.30"},
             "data":{"pauseImage":"{\"image\":\"registry.k8s.io/pause\",\"version\":\"3.9\"}"}},
            {"metadata":{"name":"worker-config-gpu-nodes-1.30"},"data":{"pauseImage":"image: a/b\nversion: c\n"}},
            {"metadata":{"name":"worker-config-odd"}}, {"metadata":{"name":"kube-root-ca.crt"}}]}"#;
        let found = WorkerConfig::parse_all("configmaps.json", input).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].pause.as_deref(), Some("registry.k8s.io/pause:3.9"));
        assert_eq!((found[1].profile.as_str(), found[1].minor), ("gpu-nodes", (1, 30)));
        assert_eq!(found[1].pause.as_deref(), Some("a/b:c"));
        assert!(found[0].is_builtin() && !found[1].is_builtin());
    }
}
