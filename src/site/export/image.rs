//! One image out of the store: what the node's containerd takes of it.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use bytes::Bytes;

use super::{ExportError, index};
use crate::oci::{Descriptor, Digest, Document, Image, Platform, Reference, RepositoryName};
use crate::select::{self, Band, Expansion};
use crate::store::Content;

/// An image that the store lacks, or lacks in part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// The image.
    #[serde(rename = "ref")]
    pub reference: Reference,
    /// What is not there.
    pub what: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reference, self.what)
    }
}

/// What goes into the archive of one image.
pub(super) struct Exported {
    /// What the name points at.
    pub(super) root: Descriptor,
    /// Indexes and manifests with their bytes, the root first.
    pub(super) documents: Vec<(Descriptor, Bytes)>,
    /// Configurations and layers, each in this repository.
    pub(super) blobs: Vec<Descriptor>,
    /// The image that the node runs.
    pub(super) runs: Image,
    /// Whether the root was made here.
    pub(super) reindexed: bool,
}

/// Reads images for one kind of node.
pub(super) struct Reader<'a> {
    pub(super) content: &'a dyn Content,
    pub(super) host: Platform,
    pub(super) bands: Vec<&'static Band>,
    /// Whether the importer takes indexes of which parts are missing.
    pub(super) sparse: bool,
}

impl Reader<'_> {
    /// The image behind `reference`, or what of it is not in the store.
    pub(super) fn image(&self, reference: &Reference) -> Result<Result<Exported, Missing>, ExportError> {
        let missing = |what: &str| Missing { reference: reference.clone(), what: what.to_owned() };
        let name = reference.name();
        let root = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => Some(digest.clone()),
            (None, Some(tag)) => self.content.resolve(name, tag)?.map(|root| root.digest),
            (None, None) => None,
        };
        let Some(digest) = root else { return Ok(Err(missing("unknown"))) };
        let Some((root, document)) = self.document(name, &digest)? else {
            return Ok(Err(missing("its manifest is not there")));
        };
        let exported = match document {
            Document::Image(image) => Ok(Exported {
                documents: vec![(root.clone(), document_bytes(&image))],
                root,
                blobs: image.blobs().cloned().collect(),
                runs: image,
                reindexed: false,
            }),
            Document::Index(index) => {
                let read = |digest: &Digest| {
                    Ok::<_, ExportError>(self.document(name, digest)?.map(|(_, read)| read))
                };
                let expansion = match select::expand(&index, read)? {
                    Ok(expansion) => expansion,
                    Err(error) => return Ok(Err(missing(&error.to_string()))),
                };
                self.of_index(name, (root, Document::Index(index).raw().clone()), &expansion)?
            }
        };
        let exported = match exported {
            Ok(exported) => exported,
            Err(what) => return Ok(Err(missing(&what))),
        };
        for blob in &exported.blobs {
            if self.content.blob_size(name, &blob.digest)?.is_none() {
                return Ok(Err(missing(&format!("{} is not there", blob.digest))));
            }
        }
        Ok(Ok(exported))
    }

    /// What the versions of containerd in question fetch of an index, as far as the store was made for them; or else what
    /// the store lacks.
    fn of_index(
        &self,
        name: &RepositoryName,
        root: (Descriptor, Bytes),
        index: &Expansion,
    ) -> Result<Result<Exported, String>, ExportError> {
        let entries = &index.entries;
        let mut kept = BTreeSet::new();
        let mut runs = None;
        let mut lacking = None;
        for band in &self.bands {
            let choice = band.choose(&self.host, entries);
            let Some(pick) = choice.picks.filter(|_| choice.runs) else { continue };
            let wanted: BTreeSet<usize> = choice.fetches.into_iter().chain([pick]).collect();
            let mut all_there = true;
            for at in &wanted {
                if let Some(what) = self.lacks(name, &entries[*at].digest)? {
                    all_there = false;
                    let platform = entries[*at].platform.as_ref();
                    let platform = platform.map_or_else(|| "an entry".to_owned(), Platform::shown);
                    lacking
                        .get_or_insert_with(|| format!("{} downloads {platform}, and {what}", band.label()));
                }
            }
            if all_there {
                kept.extend(wanted);
                runs.get_or_insert(pick);
            }
        }
        let nothing = || format!("nothing that containerd on {} runs", self.host);
        let Some(pick) = runs else { return Ok(Err(lacking.unwrap_or_else(nothing))) };
        let reindexed = !self.sparse && kept.len() < entries.len();
        let (root, mut documents) = if reindexed {
            let kept: Vec<&Digest> = kept.iter().map(|at| &entries[*at].digest).collect();
            let nested = self.indexes(name, index.through.iter().flatten())?;
            let bytes = index::over(&root.1, nested.iter().map(|(_, bytes)| bytes), &kept);
            let descriptor = Descriptor::of(root.0.media_type, &bytes);
            (descriptor.clone(), vec![(descriptor, bytes)])
        } else {
            let nested = self.indexes(name, kept.iter().flat_map(|at| &index.through[*at]))?;
            (root.0.clone(), std::iter::once(root.clone()).chain(nested).collect())
        };
        let mut blobs = Vec::new();
        let mut image_that_runs = None;
        for entry in kept.into_iter().map(|at| &entries[at]) {
            let Some((descriptor, Document::Image(image))) = self.document(name, &entry.digest)? else {
                continue;
            };
            documents.push((descriptor, document_bytes(&image)));
            blobs.extend(image.blobs().cloned());
            if entry.digest == entries[pick].digest {
                image_that_runs = Some(image);
            }
        }
        let exported = image_that_runs.map(|runs| Exported { root, documents, blobs, runs, reindexed });
        Ok(exported.ok_or_else(nothing))
    }

    /// The nested indexes in `through`, each once.
    fn indexes<'a>(
        &self,
        name: &RepositoryName,
        through: impl Iterator<Item = &'a Descriptor>,
    ) -> Result<Vec<(Descriptor, Bytes)>, ExportError> {
        let mut found: Vec<(Descriptor, Bytes)> = Vec::new();
        for nested in through {
            if found.iter().all(|(known, _)| known.digest != nested.digest)
                && let Some((descriptor, document)) = self.document(name, &nested.digest)?
            {
                found.push((descriptor, document.raw().clone()));
            }
        }
        Ok(found)
    }

    /// Returns what is not there of an image. Of the entries that no node kind of the bundle needs, the manifest and the
    /// configuration may be there alone.
    fn lacks(&self, name: &RepositoryName, digest: &Digest) -> Result<Option<String>, ExportError> {
        let image = match self.document(name, digest)? {
            Some((_, Document::Image(image))) => image,
            Some((_, Document::Index(_))) => return Ok(Some(format!("{digest} is not an image"))),
            None => return Ok(Some(format!("{digest} is not there"))),
        };
        for blob in image.blobs() {
            if self.content.blob_size(name, &blob.digest)?.is_none() {
                return Ok(Some(format!("{} is not there", blob.digest)));
            }
        }
        Ok(None)
    }

    fn document(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<(Descriptor, Document)>, ExportError> {
        let Some(manifest) = self.content.manifest(name, digest)? else { return Ok(None) };
        let size = manifest.bytes.len() as u64;
        let document = Document::parse(Some(&manifest.media_type), manifest.bytes)
            .map_err(|source| ExportError::Manifest { digest: digest.clone(), source })?;
        Ok(Some((Descriptor::new(manifest.media_type, digest.clone(), size), document)))
    }
}

fn document_bytes(image: &Image) -> Bytes {
    Document::Image(image.clone()).raw().clone()
}
