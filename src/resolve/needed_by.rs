//! Who needs an image: a component of a release, or a list in the definition.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::catalog::ReleaseId;

/// The list that holds the definition's own `images`.
pub const IMAGES_LIST: &str = "images";
/// The list that holds the definition's own `charts`.
pub const CHARTS_LIST: &str = "charts";
/// The list that holds the definition's own `files`.
pub const FILES_LIST: &str = "files";

/// Who needs an image.
///
/// In JSON `{"component":"coredns","release":"k0s@v1.36.3+k0s.2"}` or `{"list":"images"}`. Locks of schema 1 have a
/// sentence instead, which is kept as it is, so that such a lock is written with the bytes that it was read with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum NeededBy {
    /// A component of a release.
    Component {
        /// The component's name in the catalog, `coredns`.
        component: String,
        /// The release that it belongs to.
        release: ReleaseId,
    },
    /// A list of the definition: `images`, `charts`, or the path of an image list as the definition writes it.
    List {
        /// The list's name.
        list: String,
    },
    /// The sentence of a schema 1 lock: `coredns of k0s@v1.36.3+k0s.2`, or the name of a list.
    Sentence(String),
}

impl NeededBy {
    /// Returns the list called `name`.
    pub fn list(name: impl Into<String>) -> Self {
        Self::List { list: name.into() }
    }

    /// Returns the release that needs the image, or `None` if a list does.
    ///
    /// A sentence that does not end in a release counts as a list: doubt must not make anything removable.
    pub fn release(&self) -> Option<ReleaseId> {
        match self {
            Self::Component { release, .. } => Some(release.clone()),
            Self::List { .. } => None,
            Self::Sentence(text) => text.rsplit_once(" of ")?.1.parse().ok(),
        }
    }

    /// Returns whether `release` needs the image.
    pub fn is_release(&self, release: &str) -> bool {
        self.release().is_some_and(|own| own.to_string() == release)
    }
}

impl fmt::Display for NeededBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Component { component, release } => write!(f, "{component} of {release}"),
            Self::List { list } => f.write_str(list),
            Self::Sentence(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> NeededBy {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn json_is_read_as_written() {
        for json in [
            r#"{"component":"coredns","release":"k0s@v1.36.3+k0s.2"}"#,
            r#"{"list":"apps of site.txt"}"#,
            r#""coredns of k0s@v1.36.3+k0s.2""#,
        ] {
            assert_eq!(serde_json::to_string(&read(json)).unwrap(), json);
        }
        assert!(serde_json::from_str::<NeededBy>(r#"{"list":"a","release":"k0s@v1.36.3+k0s.2"}"#).is_err());
    }

    #[test]
    fn list_with_of_in_its_name_is_no_release() {
        let release = Some("k0s@v1.36.3+k0s.2".parse().unwrap());
        assert_eq!(read(r#"{"list":"x of k0s@v1.36.3+k0s.2"}"#).release(), None);
        assert_eq!(read(r#"{"component":"cni of mine","release":"k0s@v1.36.3+k0s.2"}"#).release(), release);
        assert_eq!(read(r#""cni of mine of k0s@v1.36.3+k0s.2""#).release(), release);
        assert_eq!(read(r#""x of y.txt""#).release(), None);
        assert_eq!(read(r#""images""#).release(), None);
    }
}
