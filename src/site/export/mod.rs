//! Archives that nodes import at their start: the images of a release for one kind of node, for sites without a registry
//! and for pull policy `Never`.
//!
//! An archive is a tar, compressed only on request, with an OCI image layout, and beside it the `manifest.json` of `docker save`, in
//! which RKE2 looks for its runtime image by tag. k0s hands the archive to containerd's importer, which takes the OCI part
//! when both are there.

mod archive;
mod compressed;
mod image;
mod index;
#[cfg(test)]
mod tests;

use std::fmt::{self, Write as _};
use std::str::FromStr;

pub use archive::Archive;
pub use compressed::Form;
pub use image::Missing;
use serde::Serialize;

use crate::catalog::{Catalog, CatalogError, Facts, ReleaseId};
use crate::oci::{Digest, ManifestError, NodeKind, Reference};
use crate::select::{self, Band, Runtime};
use crate::store::{Content, ContentError};

/// Who imports the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Importer {
    /// k0s: `<data-dir>/images`, files of any name.
    K0s,
    /// k3s: `/var/lib/rancher/k3s/agent/images`.
    K3s,
    /// RKE2: `/var/lib/rancher/rke2/agent/images`.
    Rke2,
}

impl Importer {
    /// Every importer.
    pub const ALL: [Self; 3] = [Self::K0s, Self::K3s, Self::Rke2];

    /// The name on the command line, which is the distribution's in the catalog.
    pub const fn name(self) -> &'static str {
        match self {
            Self::K0s => "k0s",
            Self::K3s => "k3s",
            Self::Rke2 => "rke2",
        }
    }

    /// The directory on nodes that archives are imported from.
    pub fn directory(self, kind: &NodeKind) -> &'static str {
        match (self, kind.is_windows()) {
            (Self::K0s, false) => "/var/lib/k0s/images",
            (Self::K0s, true) => r"C:\var\lib\k0s\images",
            (Self::K3s, _) => "/var/lib/rancher/k3s/agent/images",
            (Self::Rke2, false) => "/var/lib/rancher/rke2/agent/images",
            (Self::Rke2, true) => r"C:\var\lib\rancher\rke2\agent\images",
        }
    }

    /// A file name that stays the same from release to release: what it replaces does not fill the node's disk.
    pub fn file_name(self, kind: &NodeKind) -> String {
        let build = kind.windows_build().map(|build| format!("-{build}")).unwrap_or_default();
        let variant = if kind.variant().is_empty() { String::new() } else { format!("-{}", kind.variant()) };
        format!("dray-{}-{}{build}-{}{variant}.tar", self.name(), kind.os(), kind.architecture())
    }

    /// The form that a file of this name must have to be imported; none when no form makes it one. k3s and RKE2 go by the
    /// extension, k0s imports plain archives of any name.
    ///
    /// Source: k3s `pkg/agent/containerd`, wharfie `pkg/tarfile`.
    pub fn form(self, name: &str) -> Option<Form> {
        let ends = |end: &str| name.strip_suffix(end).is_some_and(|stem| !stem.is_empty());
        let says_zstd = ends(".zst") || ends(".tzst");
        match self {
            Self::K0s => (!says_zstd).then_some(Form::Tar),
            Self::K3s | Self::Rke2 if ends(".tar") => Some(Form::Tar),
            Self::K3s | Self::Rke2 => (ends(".tar.zst") || ends(".tzst")).then_some(Form::Zstd),
        }
    }
}

impl fmt::Display for Importer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Importer {
    type Err = ExportError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|importer| importer.name() == text);
        found.ok_or_else(|| ExportError::Importer(text.chars().take(40).collect()))
    }
}

/// Why there is no archive.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// An unknown importer.
    #[error("`{0}` imports no archives; there are k0s, k3s and rke2")]
    Importer(String),
    /// The release is another distribution's.
    #[error("{release} is not a release of {importer}; --for and --release must agree")]
    OtherDistribution {
        /// The release asked for.
        release: ReleaseId,
        /// The importer asked for.
        importer: Importer,
    },
    /// No image is needed.
    #[error("{release} has no images for {kind} nodes")]
    NothingNeeded {
        /// The release.
        release: ReleaseId,
        /// The node kind.
        kind: NodeKind,
    },
    /// Images are not in the store, or not with what this node kind runs.
    #[error("not in the store:{}", lines(.0))]
    Missing(Vec<Missing>),
    /// A reference without a tag, which k3s and RKE2 import with an error each time.
    #[error("{0} has no tag, and {1} reports an archive with such a name as broken; give it with a tag")]
    NoTag(Reference, Importer),
    /// A pinned reference whose tag means something else, so that k3s and RKE2 would have to import it without a tag.
    #[error(
        "the tag of {0} means something else, and {1} reports an image without a tag as broken; leave the image out"
    )]
    OtherTag(Reference, Importer),
    /// The catalog does not have what is asked for.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The store cannot be read.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// A manifest in the store is none.
    #[error("manifest {digest} in the store: {source}")]
    Manifest {
        /// The manifest.
        digest: Digest,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// Writing the archive failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

fn lines(missing: &[Missing]) -> String {
    missing.iter().fold(String::new(), |mut text, missing| {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  {missing}");
        text
    })
}

/// What archive is asked for.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Who imports it.
    pub importer: Importer,
    /// The release whose images it holds.
    pub release: &'a ReleaseId,
    /// Features beyond the release's default configuration.
    pub with: &'a [String],
    /// The kind of node that imports it.
    pub kind: &'a NodeKind,
    /// Further images.
    pub images: &'a [Reference],
    /// The time stamped on its entries, in seconds since 1970.
    pub mtime: u64,
}

/// An image in an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExportedImage {
    /// The name that it is imported under.
    #[serde(rename = "ref")]
    pub reference: Reference,
    /// What the name stands for in the archive.
    pub digest: Digest,
    /// Whether that is a new index over what is in the archive, because the importer takes no index of which parts are
    /// missing. It differs from the upstream's digest.
    pub reindexed: bool,
}

/// Lays out the archive: what is in it and where, before a byte is written.
pub fn plan(request: &Request<'_>, catalog: &Catalog, content: &dyn Content) -> Result<Archive, ExportError> {
    let Request { importer, release, kind, .. } = *request;
    if release.distro != importer.name() {
        return Err(ExportError::OtherDistribution { release: release.clone(), importer });
    }
    let facts = catalog.release(release)?.facts;
    let needs = catalog.needs(release, request.with, std::slice::from_ref(kind))?;
    if needs.images.is_empty() {
        return Err(ExportError::NothingNeeded { release: release.clone(), kind: kind.clone() });
    }
    let mut references: Vec<&Reference> = needs.images.iter().map(|need| &need.reference).collect();
    for image in request.images {
        if !references.contains(&image) {
            references.push(image);
        }
    }
    let no_tag = |reference: &&&Reference| reference.tag().is_none();
    if importer != Importer::K0s
        && let Some(reference) = references.iter().find(no_tag)
    {
        return Err(ExportError::NoTag((*reference).clone(), importer));
    }
    let reader = image::Reader {
        content,
        host: kind.platform(),
        bands: bands(&facts, kind),
        // Only k0s ever had an importer that fails on an index of which parts are missing.
        sparse: facts.import_sparse != Some(false),
    };
    let mut archive = Archive::new(request.mtime);
    let mut missing = Vec::new();
    for reference in references {
        match reader.image(reference)? {
            Ok(image) => {
                let name = imported_as(content, reference)?;
                if name.tag().is_none() && importer != Importer::K0s {
                    return Err(ExportError::OtherTag(reference.clone(), importer));
                }
                archive.add(&name, image);
            }
            Err(gap) => missing.push(gap),
        }
    }
    if !missing.is_empty() {
        return Err(ExportError::Missing(missing));
    }
    archive.finish();
    Ok(archive)
}

/// Returns the name that an image is imported under. The tag of a pinned reference stays out of it where the tag means
/// another image, which would lose it on the node.
fn imported_as(content: &dyn Content, reference: &Reference) -> Result<Reference, ContentError> {
    let name = reference.name();
    let (Some(digest), Some(tag)) = (reference.digest(), reference.tag()) else {
        return Ok(reference.clone());
    };
    let is_own = content.resolve(name, tag)?.is_some_and(|target| target.digest == *digest);
    let tag = is_own.then(|| tag.clone());
    Ok(Reference::new(name.clone(), tag, Some(digest.clone())))
}

/// The containerd that runs the images: the release's own, or where its version is not known every one.
fn bands(facts: &Facts, kind: &NodeKind) -> Vec<&'static Band> {
    let runtime =
        facts.containerd.as_deref().and_then(|version| format!("containerd@{version}").parse().ok());
    let runtime: Runtime =
        runtime.unwrap_or_else(|| "containerd".parse().expect("containerd is a client that is known"));
    select::node_bands(kind, &[runtime])
}
