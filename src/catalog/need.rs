//! An image that nodes need, with what is known about it.

use serde::Serialize;

use super::component::PullPolicy;
use crate::oci::{NodeKind, Reference};

/// An image that nodes need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Need {
    /// The image.
    #[serde(rename = "ref")]
    pub reference: Reference,
    /// The component that runs it; the first, where several do.
    pub component: String,
    /// The node kinds that need it, in the order asked for.
    pub nodes: Vec<NodeKind>,
    /// The features that bring it; empty: it always runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<String>,
    /// Where the cluster configuration sets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// Whether `spec.images.repository` rewrites the reference.
    pub repository_override: bool,
    /// Who decides whether it is pulled.
    pub pull: PullPolicy,
    /// Container runtimes that ask for it, `containerd@1.7`; empty: whatever the runtime is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runtimes: Vec<String>,
    /// What a reader should know.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}
