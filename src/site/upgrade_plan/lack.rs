//! What a plan needs and a store does not have, with what to do about it.

use std::fmt;

use serde::Serialize;

use crate::catalog::ReleaseId;
use crate::oci::NodeKind;
use crate::site::export::Missing;

/// Something that is not in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Lack {
    /// An image, or a part of it.
    Image {
        /// The image.
        image: String,
        /// What of it is not there.
        what: String,
        /// The nodes that need it.
        nodes: Vec<NodeKind>,
    },
    /// A plain file.
    File {
        /// Its name.
        name: String,
        /// Its address upstream.
        url: String,
        /// Where its checksum is stated.
        sums: &'static str,
        /// The node that needs it.
        node: NodeKind,
    },
    /// An image of which no release says the tag.
    Tool {
        /// The image, without a tag.
        image: String,
        /// What it is needed for.
        what: &'static str,
    },
}

impl Lack {
    /// Adds a missing image, or one more kind of node that needs it.
    pub(super) fn add_image(lacks: &mut Vec<Self>, missing: Missing, kind: &NodeKind) {
        let reference = missing.reference.to_string();
        for lack in lacks.iter_mut() {
            if let Self::Image { image, what, nodes } = lack
                && *image == reference
                && *what == missing.what
            {
                nodes.push(kind.clone());
                return;
            }
        }
        lacks.push(Self::Image { image: reference, what: missing.what, nodes: vec![kind.clone()] });
    }

    /// A program of a k0s release.
    pub(super) fn k0s_program(release: &ReleaseId, name: String, node: &NodeKind) -> Self {
        let upstream = "https://github.com/k0sproject/k0s/releases/download";
        let version = release.version.replace('+', "%2B");
        let url = format!("{upstream}/{version}/{}", name.replace('+', "%2B"));
        Self::File { name, url, sums: "sha256sums.txt of the release", node: node.clone() }
    }

    /// The programs of an RKE2 release for Windows.
    pub(super) fn rke2_windows(release: &ReleaseId, node: &NodeKind) -> Self {
        let upstream = "https://github.com/rancher/rke2/releases/download";
        let name = "rke2.windows-amd64.tar.gz".to_owned();
        let url = format!("{upstream}/{}/{name}", release.version.replace('+', "%2B"));
        Self::File { name, url, sums: "sha256sum-amd64.txt of the release", node: node.clone() }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image { image, what, nodes } => {
                let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
                write!(f, "{image}: {what}, for {}", nodes.join(", "))
            }
            Self::File { name, url, sums, node } => write!(
                f,
                "the file {name}, for {node}; put into the definition's `files`:\n    - url: {url}\n      sha256: what \
                 {sums} states"
            ),
            Self::Tool { image, what } => {
                write!(f, "{image}, which {what}; put it into the definition's `images`")
            }
        }
    }
}
