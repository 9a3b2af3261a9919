//! The index entry that a missing manifest or layer belongs to.
//!
//! A bundle carries an index as it is, but only those of its entries that its nodes run. A node that asks for another
//! entry is told which one is not here, and the miss is recorded under the name of the image. The manifest of such an
//! entry is often here (clients that read a whole index need it), so its layers can be traced back to it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::oci::{Descriptor, Digest, Document, NodeKind, Platform, Reference, RepositoryName, Tag};
use crate::store::{Content, ContentError};

/// How many manifests, and how many tags, of one repository are read. In a larger one not every entry is found.
const MAX_READ: usize = 1024;
/// How many bytes of manifests of one repository are read.
const MAX_BYTES: usize = 32 * 1024 * 1024;
/// How many repositories are kept in memory.
const MAX_KEPT: usize = 8;
/// How long a repository that was read counts as unchanged. Another process may import into it.
const FRESH: Duration = Duration::from_secs(1);
/// A read that takes longer than this is followed by a rest of ten times its length, so that clients that ask for what
/// nobody has take up little of the processor.
const QUICK: Duration = Duration::from_millis(5);
/// How deep indexes may be nested.
const MAX_DEPTH: usize = 4;
/// Says which image a `BuildKit` attestation belongs to (moby/buildkit `docs/attestations/attestation-storage.md`).
const ATTESTS: &str = "vnd.docker.reference.digest";

/// An entry of an index that is not here as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeftOut {
    /// The digest of the entry's manifest.
    pub digest: Digest,
    /// What the entry is for, written like a node kind: `windows(10.0.17763)/amd64`. Empty if the index does not say.
    pub platform: String,
    /// Whether the entry is the `BuildKit` attestation of the image for that platform, not the image itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub attestation: bool,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let platform = if self.platform.is_empty() { "an entry without a platform" } else { &self.platform };
        if self.attestation { write!(f, "the attestation of {platform}") } else { f.write_str(platform) }
    }
}

/// The image and the entry of its index that something missing belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// The image, by its tag if it has one.
    pub(super) image: Reference,
    pub(super) entry: LeftOut,
    /// The entries of the same index for other operating systems or architectures.
    pub(super) others: Vec<Digest>,
    /// That index, and those that it is a part of.
    pub(super) indexes: Vec<Digest>,
}

/// The indexes of the repositories that were asked for something they do not have.
#[derive(Debug, Default)]
pub(super) struct Indexes(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    repositories: HashMap<RepositoryName, (Instant, Arc<Family>)>,
    /// Nothing is read before this.
    rest_until: Option<Instant>,
}

/// How the content of one repository belongs together.
#[derive(Debug, Default)]
struct Family {
    tags: HashMap<Digest, Tag>,
    /// The index that has the manifest as an entry, and at which position.
    parents: HashMap<Digest, (Digest, usize)>,
    entries: HashMap<Digest, Vec<Descriptor>>,
    /// The manifests that have the blob.
    manifests: HashMap<Digest, Vec<Digest>>,
}

impl Indexes {
    /// Returns the entry of an index in the repository `name` that `missing` is, or that it is a part of; `None` if it
    /// belongs to no index there. Reads the manifests of the repository unless that was done a moment ago.
    pub(super) fn owner(
        &self,
        content: &dyn Content,
        name: &RepositoryName,
        missing: &Digest,
    ) -> Result<Option<Owner>, ContentError> {
        let family = self.family(content, name)?;
        Ok(family.and_then(|family| family.owner(name, missing)))
    }

    fn family(
        &self,
        content: &dyn Content,
        name: &RepositoryName,
    ) -> Result<Option<Arc<Family>>, ContentError> {
        // Several nodes that miss the same thing at once wait for one read.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let began = Instant::now();
        let known = kept.repositories.get(name);
        let is_resting = kept.rest_until.is_some_and(|until| began < until);
        if let Some((read, family)) = known
            && (is_resting || began.duration_since(*read) < FRESH)
        {
            return Ok(Some(family.clone()));
        }
        if is_resting {
            return Ok(None);
        }
        let family = Arc::new(Family::read(content, name)?);
        let took = began.elapsed();
        kept.rest_until = (took > QUICK).then(|| Instant::now() + took * 10);
        if kept.repositories.len() >= MAX_KEPT {
            let oldest = kept.repositories.iter().min_by_key(|(_, (read, _))| *read);
            let oldest = oldest.map(|(name, _)| name.clone());
            oldest.map(|oldest| kept.repositories.remove(&oldest));
        }
        kept.repositories.insert(name.clone(), (Instant::now(), family.clone()));
        Ok(Some(family))
    }
}

impl Family {
    fn read(content: &dyn Content, name: &RepositoryName) -> Result<Self, ContentError> {
        let mut family = Self::default();
        for tag in content.tags(name, None, MAX_READ)?.unwrap_or_default() {
            if let Some(target) = content.resolve(name, &tag)? {
                family.tags.entry(target.digest).or_insert(tag);
            }
        }
        let mut bytes = 0;
        for digest in content.manifests(name, MAX_READ)? {
            if bytes > MAX_BYTES {
                break;
            }
            // What is damaged or not a manifest has no entries.
            let Ok(Some(manifest)) = content.manifest(name, &digest) else { continue };
            bytes += manifest.bytes.len();
            match Document::parse(Some(&manifest.media_type), manifest.bytes) {
                Ok(Document::Index(index)) => {
                    for (position, entry) in index.manifests.iter().enumerate() {
                        family.parents.entry(entry.digest.clone()).or_insert((digest.clone(), position));
                    }
                    family.entries.insert(digest, index.manifests);
                }
                Ok(Document::Image(image)) => {
                    for blob in image.blobs() {
                        family.manifests.entry(blob.digest.clone()).or_default().push(digest.clone());
                    }
                }
                Err(_) => {}
            }
        }
        Ok(family)
    }

    fn owner(&self, name: &RepositoryName, missing: &Digest) -> Option<Owner> {
        let manifests = self.manifests.get(missing).map(Vec::as_slice).unwrap_or_default();
        let mut members = std::iter::once(missing).chain(manifests);
        let (digest, (index, position)) =
            members.find_map(|member| Some((member, self.parents.get(member)?)))?;
        let entries = self.entries.get(index)?;
        let entry = entries.get(*position)?;
        let described = if entry.is_attestation() {
            let image = entry.annotations.get(ATTESTS);
            image.and_then(|image| entries.iter().find(|entry| entry.digest.to_string() == *image))
        } else {
            Some(entry)
        };
        let platform = described.and_then(|entry| entry.platform.as_ref());
        let others = entries.iter().filter(|other| is_for_another(platform, other.platform.as_ref()));
        let (image, indexes) = self.image(name, index);
        Some(Owner {
            image,
            indexes,
            entry: LeftOut {
                digest: digest.clone(),
                platform: platform.map(as_node_kind).unwrap_or_default(),
                attestation: entry.is_attestation(),
            },
            others: others.map(|other| other.digest.clone()).collect(),
        })
    }

    /// The image that has the index as its root, or as a part of its root; and the indexes on the way there.
    fn image(&self, name: &RepositoryName, index: &Digest) -> (Reference, Vec<Digest>) {
        let mut way = vec![index.clone()];
        for depth in 0..MAX_DEPTH {
            if let Some(tag) = self.tags.get(&way[depth]) {
                return (Reference::new(name.clone(), Some(tag.clone()), None), way);
            }
            let Some((parent, _)) = self.parents.get(&way[depth]) else { break };
            way.push(parent.clone());
        }
        let root = way.last().cloned();
        (Reference::new(name.clone(), None, root), way)
    }
}

/// Whether two entries are for different operating systems or architectures. Attestations are for none.
fn is_for_another(one: Option<&Platform>, other: Option<&Platform>) -> bool {
    let known = |platform: &&Platform| platform.os != "unknown";
    match (one.filter(known), other.filter(known)) {
        (Some(one), Some(other)) => one.os != other.os || one.architecture != other.architecture,
        _ => false,
    }
}

/// A platform as the kind of node that it is for, which is how a definition says it.
fn as_node_kind(platform: &Platform) -> String {
    match NodeKind::try_from(platform.normalized()) {
        Ok(kind) => kind.to_string(),
        Err(_) => platform.shown(),
    }
}

/// Returns whether the entry is here by now, or no longer what `image` means.
pub(super) fn is_met(
    content: &dyn Content,
    image: &Reference,
    entry: &LeftOut,
) -> Result<bool, ContentError> {
    let name = image.name();
    let root = match (image.digest(), image.tag()) {
        (Some(digest), _) => Some(digest.clone()),
        (None, Some(tag)) => content.resolve(name, tag)?.map(|target| target.digest),
        (None, None) => None,
    };
    let Some(root) = root else { return Ok(false) };
    let document = |digest: &Digest| {
        let manifest = content.manifest(name, digest)?;
        Ok::<_, ContentError>(manifest.and_then(|m| Document::parse(Some(&m.media_type), m.bytes).ok()))
    };
    match document(&root)? {
        Some(Document::Index(index)) => {
            let is_part = |other: &Descriptor| {
                other.digest == entry.digest || crate::oci::media_type::is_index(&other.media_type)
            };
            if !index.manifests.iter().any(is_part) {
                return Ok(true);
            }
        }
        Some(Document::Image(_)) => return Ok(true),
        None => return Ok(false),
    }
    match document(&entry.digest)? {
        Some(Document::Image(image)) => {
            for blob in image.blobs() {
                if content.blob_size(name, &blob.digest)?.is_none() {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Some(Document::Index(_)) => Ok(true),
        None => Ok(false),
    }
}
