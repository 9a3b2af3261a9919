//! A component of a release: the image it runs, and where and when it runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::windows::KubernetesRange;

/// Operating systems of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Os {
    /// Linux.
    Linux,
    /// Windows.
    Windows,
}

/// Who decides whether a node pulls an image that it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PullPolicy {
    /// The distribution's own setting (k0s: `spec.images.default_pull_policy`), else Kubernetes' default.
    #[default]
    #[serde(rename = "default")]
    Default,
    /// The container runtime pulls it for pod sandboxes; no pull policy applies.
    #[serde(rename = "sandbox")]
    Sandbox,
    /// Pulled at every start: preloading is not enough, a registry has to answer.
    Always,
    /// Pulled when the node lacks it.
    IfNotPresent,
    /// Never pulled: it has to be preloaded.
    Never,
}

/// One component of a release.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Component {
    /// Its name, the same in all releases.
    pub name: String,
    /// The image without its tag, host included.
    pub image: String,
    /// The tag, where it follows the release: `{version}`, `{tag}` (`+` replaced by `-`) and `{kubernetes}` stand
    /// for parts of the release's version.
    pub tag: Option<String>,
    /// Operating systems of the nodes that run it.
    #[serde(default = "linux")]
    pub os: Vec<Os>,
    /// Features that bring it, any of which is enough; empty: it always runs.
    #[serde(default)]
    pub when: Vec<String>,
    /// Architectures that the image exists for on Linux; empty: all of the release.
    #[serde(default)]
    pub arch: Vec<String>,
    /// Where the cluster configuration sets the image, `spec.images.pause`; none where it is fixed.
    pub config: Option<String>,
    /// Whether `spec.images.repository` rewrites the reference; as `config` when not stated.
    pub repository_override: Option<bool>,
    /// Who decides whether it is pulled.
    #[serde(default)]
    pub pull: PullPolicy,
    /// Windows builds that its index has an entry for; empty: not established, or the same for all.
    #[serde(default)]
    pub builds: Vec<String>,
    /// Configuration that has to be set for it to run.
    #[serde(default)]
    pub requires: BTreeMap<String, String>,
    /// Container runtimes that ask for it, `containerd@1.7`; empty: whatever the runtime is.
    #[serde(default)]
    pub runtimes: Vec<String>,
    /// The Kubernetes versions that it is for, where it does not follow the releases; none: any.
    pub kubernetes: Option<KubernetesRange>,
    /// What a reader should know.
    #[serde(default)]
    pub note: String,
}

fn linux() -> Vec<Os> {
    vec![Os::Linux]
}

impl Component {
    /// Whether `spec.images.repository` rewrites the reference.
    pub fn is_rewritten(&self) -> bool {
        self.repository_override.unwrap_or(self.config.is_some())
    }
}

/// What a release changes about a component; what is not stated stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ComponentChange {
    image: Option<String>,
    os: Option<Vec<Os>>,
    when: Option<Vec<String>>,
    arch: Option<Vec<String>>,
    config: Option<String>,
    repository_override: Option<bool>,
    pull: Option<PullPolicy>,
    builds: Option<Vec<String>>,
    requires: Option<BTreeMap<String, String>>,
    runtimes: Option<Vec<String>>,
    note: Option<String>,
}

impl ComponentChange {
    /// Makes the change.
    pub(super) fn apply(&self, component: &mut Component) {
        /// Overwrites a field when the change states it.
        fn set<T: Clone>(field: &mut T, change: Option<&T>) {
            if let Some(value) = change {
                field.clone_from(value);
            }
        }
        set(&mut component.image, self.image.as_ref());
        set(&mut component.os, self.os.as_ref());
        set(&mut component.when, self.when.as_ref());
        set(&mut component.arch, self.arch.as_ref());
        set(&mut component.pull, self.pull.as_ref());
        set(&mut component.builds, self.builds.as_ref());
        set(&mut component.requires, self.requires.as_ref());
        set(&mut component.runtimes, self.runtimes.as_ref());
        set(&mut component.note, self.note.as_ref());
        if self.config.is_some() {
            component.config.clone_from(&self.config);
        }
        if self.repository_override.is_some() {
            component.repository_override = self.repository_override;
        }
    }
}
