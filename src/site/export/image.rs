//! One image out of the store: what the node's containerd takes of it.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use bytes::Bytes;

use super::{ExportError, index};
use crate::oci::{Descriptor, Digest, Document, Image, Platform, Reference, RepositoryName, media_type};
use crate::select::Band;
use crate::store::Content;

/// How deep indexes may be nested. Nobody publishes more than one level.
const MAX_DEPTH: usize = 4;

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

/// An entry of an index, with the nested indexes that lead to it.
#[derive(Clone)]
struct Entry {
    descriptor: Descriptor,
    through: Vec<(Descriptor, Bytes)>,
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
            Document::Image(image) => Some(Exported {
                documents: vec![(root.clone(), document_bytes(&image))],
                root,
                blobs: image.blobs().cloned().collect(),
                runs: image,
                reindexed: false,
            }),
            Document::Index(index) => {
                let bytes = Document::Index(index.clone()).raw().clone();
                let entries = self.entries(name, &index.manifests, &[])?;
                self.of_index(name, (root, bytes), &entries)?
            }
        };
        let Some(exported) = exported else {
            let host = &self.host;
            return Ok(Err(missing(&format!("nothing that containerd on {host} runs"))));
        };
        for blob in &exported.blobs {
            if self.content.blob_size(name, &blob.digest)?.is_none() {
                return Ok(Err(missing(&format!("{} is not there", blob.digest))));
            }
        }
        Ok(Ok(exported))
    }

    /// What the versions of containerd in question fetch of an index, as far as the store was made for them.
    fn of_index(
        &self,
        name: &RepositoryName,
        root: (Descriptor, Bytes),
        entries: &[Entry],
    ) -> Result<Option<Exported>, ExportError> {
        let platforms: Vec<Option<Platform>> =
            entries.iter().map(|entry| entry.descriptor.platform.clone()).collect();
        let mut kept = BTreeSet::new();
        let mut runs = None;
        for band in &self.bands {
            let choice = band.choose(&self.host, &platforms);
            let Some(pick) = choice.picks.filter(|_| choice.runs) else { continue };
            let wanted: BTreeSet<usize> = choice.fetches.into_iter().chain([pick]).collect();
            let mut all_there = true;
            for at in &wanted {
                all_there &= self.document(name, &entries[*at].descriptor.digest)?.is_some();
            }
            if all_there {
                kept.extend(wanted);
                runs.get_or_insert(pick);
            }
        }
        let Some(pick) = runs else { return Ok(None) };
        let kept: Vec<&Entry> = kept.into_iter().map(|at| &entries[at]).collect();
        let reindexed = !self.sparse && kept.len() < entries.len();
        let (root, mut documents) = if reindexed {
            let kept: Vec<&Digest> = kept.iter().map(|entry| &entry.descriptor.digest).collect();
            let nested = entries.iter().flat_map(|entry| &entry.through).map(|(_, bytes)| bytes);
            let bytes = index::over(&root.1, nested, &kept);
            let descriptor = Descriptor::of(root.0.media_type, &bytes);
            (descriptor.clone(), vec![(descriptor, bytes)])
        } else {
            let nested = kept.iter().flat_map(|entry| entry.through.iter().cloned());
            (root.0.clone(), std::iter::once(root.clone()).chain(nested).collect())
        };
        let mut blobs = Vec::new();
        let mut image_that_runs = None;
        for entry in kept {
            let Some((descriptor, Document::Image(image))) = self.document(name, &entry.descriptor.digest)?
            else {
                continue;
            };
            documents.push((descriptor, document_bytes(&image)));
            blobs.extend(image.blobs().cloned());
            if entry.descriptor.digest == entries[pick].descriptor.digest {
                image_that_runs = Some(image);
            }
        }
        Ok(image_that_runs.map(|runs| Exported { root, documents, blobs, runs, reindexed }))
    }

    /// All entries of an index, those of nested indexes in the place of the entry that leads to them, as containerd
    /// walks them. A nested index that is not in the store has none.
    fn entries(
        &self,
        name: &RepositoryName,
        manifests: &[Descriptor],
        through: &[(Descriptor, Bytes)],
    ) -> Result<Vec<Entry>, ExportError> {
        let mut entries = Vec::new();
        for descriptor in manifests {
            if !media_type::is_index(&descriptor.media_type) || through.len() >= MAX_DEPTH {
                entries.push(Entry { descriptor: descriptor.clone(), through: through.to_vec() });
            } else if let Some((own, Document::Index(index))) = self.document(name, &descriptor.digest)? {
                let manifests = index.manifests.clone();
                let mut through = through.to_vec();
                through.push((own, Document::Index(index).raw().clone()));
                entries.extend(self.entries(name, &manifests, &through)?);
            }
        }
        Ok(entries)
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
