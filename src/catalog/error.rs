//! Why the catalog has no answer.

use std::path::PathBuf;

use crate::input::{DocumentError, InputError};
use crate::oci::ParsePlatformError;

/// Why a question to the catalog fails.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The text is not `DISTRIBUTION@VERSION`.
    #[error("`{0}` is not a release; write DISTRIBUTION@VERSION, for example k0s@v1.36.3+k0s.2")]
    ReleaseForm(String),
    /// No file describes this distribution.
    #[error("the catalog does not know the distribution `{name}`; it knows {known}")]
    UnknownDistribution {
        /// What was asked for.
        name: String,
        /// The distributions that are there, for the message.
        known: String,
    },
    /// The distribution is known, this release is not.
    #[error("the catalog does not know {release}; {nearest}")]
    UnknownRelease {
        /// What was asked for.
        release: String,
        /// The nearest releases that are there, for the message.
        nearest: String,
    },
    /// `--with` names something that the release does not have.
    #[error("{release} has no feature `{feature}`; it has {known}")]
    UnknownFeature {
        /// The release asked about.
        release: String,
        /// What was asked for.
        feature: String,
        /// The features that are there, for the message.
        known: String,
    },
    /// A Windows alias that no entry of the table has.
    #[error("`windows/{alias}` is no Windows release that the catalog knows; it knows {known}")]
    UnknownWindows {
        /// The part after `windows/`.
        alias: String,
        /// The aliases that are there, for the message.
        known: String,
    },
    /// The text is not a node kind.
    #[error(transparent)]
    Node(#[from] ParsePlatformError),
    /// A catalog file does not parse, or has fields that are not in its form.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A catalog file parses and contradicts itself.
    #[error("{file}: {problem}")]
    Inconsistent {
        /// The file.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// A file of a directory given with `--catalog` cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// A directory given with `--catalog` cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The directory.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
}
