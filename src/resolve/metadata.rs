//! Manifests and configurations of children that no node kind fetches, for clients that read a whole index.
//!
//! `ctr images pull` since containerd 2.0 asks for them (`FilterManifestByPlatformHandler` in containerd
//! core/remotes/handlers.go@v2.2.7, `skip-metadata` in cmd/ctr/commands/images/pull.go), and so does everything that copies
//! or lists a whole index. They are the best that the upstream gives: it may itself be trimmed, so what it does not have is
//! left out, and none of this is asked for before everything that nodes need was read.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::{self, StreamExt};

use super::image::Resolved;
use super::tree::{Read, Reader};
use super::{Child, LockedBlob, LockedIndex};
use crate::oci::{Descriptor, Digest, Document, RepositoryName, media_type};
use crate::upstream::{MAX_SMALL_BLOB, Manifests, Problem, UpstreamError};

/// Manifests of children that nobody needs, which were not asked for or refused because the registry limits the rate of
/// requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataLeftOut {
    /// The registry host.
    pub host: String,
    /// How many manifests.
    pub manifests: usize,
    /// How many requests the registry still let through; 0 after it refused one.
    pub remaining: Option<u64>,
}

/// Adds the metadata of the children that `images` leave behind. Returns what the registries' limits do not allow.
pub(super) async fn add<M: Manifests>(
    reader: &Reader<'_, M>,
    upstream: &M,
    images: &mut [&mut Resolved],
    concurrency: usize,
) -> Vec<MetadataLeftOut> {
    let mut hosts: BTreeMap<String, Asked> = BTreeMap::new();
    for resolved in images.iter() {
        let name = resolved.image.reference.name();
        let asked = hosts.entry(name.host().unwrap_or_default().to_owned()).or_default();
        asked
            .needed
            .extend(resolved.blobs.iter().filter(|blob| blob.manifest).map(|blob| blob.digest.clone()));
        for entry in resolved.left.iter().filter(|entry| media_type::is_image(&entry.media_type)) {
            if !reader.has(&entry.digest) {
                asked.children.entry(entry.digest.clone()).or_insert_with(|| name.clone());
            }
        }
    }
    let mut left_out = Vec::new();
    for (host, asked) in hosts {
        left_out.extend(asked.read(reader, upstream, host, concurrency).await);
    }
    let sizes = configs(reader, upstream, images, concurrency).await;
    for resolved in images.iter_mut() {
        resolved.add_metadata(reader, &sizes);
    }
    left_out
}

/// What is asked of one registry.
#[derive(Default)]
struct Asked {
    /// Manifests that nodes need, which building the bundle will ask for again.
    needed: BTreeSet<Digest>,
    /// Manifests of children that no node needs, each with a repository that has it.
    children: BTreeMap<Digest, RepositoryName>,
}

impl Asked {
    /// Reads the children into `reader`, unless the registry's limit is near: then the requests that are left are for what
    /// nodes need.
    async fn read<M: Manifests>(
        self,
        reader: &Reader<'_, M>,
        upstream: &M,
        host: String,
        concurrency: usize,
    ) -> Option<MetadataLeftOut> {
        let name = self.children.values().next()?;
        let remaining = upstream.remaining_requests(name);
        let planned = self.children.len() as u64;
        // Building the bundle asks for every manifest once more.
        if remaining.is_some_and(|remaining| remaining < 2 * planned + self.needed.len() as u64) {
            return Some(MetadataLeftOut { host, manifests: self.children.len(), remaining });
        }
        let limited = |error: &UpstreamError| matches!(error.problem(), Some(Problem::RateLimited { .. }));
        let one = async |(digest, name): (&Digest, &RepositoryName)| {
            if upstream.remaining_requests(name) == Some(0) {
                return true;
            }
            match upstream.spare_manifest(name, digest).await {
                Ok(fetched) => {
                    reader.remember(name, digest, &fetched.document);
                    false
                }
                Err(error) => {
                    tracing::info!("left out of the bundle: {error}");
                    limited(&error)
                }
            }
        };
        let refused = stream::iter(&self.children).map(one).buffer_unordered(concurrency.max(1));
        let manifests = refused.filter(|refused| std::future::ready(*refused)).count().await;
        (manifests > 0).then_some(MetadataLeftOut { host, manifests, remaining: Some(0) })
    }
}

/// The sizes that the upstream states for the configurations of the children that were read, with a repository that has
/// each.
async fn configs<M: Manifests>(
    reader: &Reader<'_, M>,
    upstream: &M,
    images: &[&mut Resolved],
    concurrency: usize,
) -> BTreeMap<Digest, (u64, RepositoryName)> {
    let mut known = BTreeMap::new();
    let mut asked: BTreeMap<Digest, RepositoryName> = BTreeMap::new();
    for resolved in images {
        let name = resolved.image.reference.name();
        known.extend(resolved.blobs.iter().map(|blob| (blob.digest.clone(), (blob.size, name.clone()))));
        for entry in &resolved.left {
            if let Some(Read { document: Document::Image(image), from }) = reader.known(&entry.digest) {
                asked.insert(image.config.digest, from);
            }
        }
    }
    asked.retain(|digest, _| !known.contains_key(digest));
    let one = async |(digest, name): (&Digest, &RepositoryName)| match upstream.blob_size(name, digest).await
    {
        Ok(size) => Some((digest.clone(), (size, name.clone()))),
        Err(error) => {
            tracing::info!("left out of the bundle: {error}");
            None
        }
    };
    let sizes = stream::iter(&asked).map(one).buffer_unordered(concurrency.max(1));
    known.extend(sizes.filter_map(std::future::ready).collect::<Vec<_>>().await);
    known
}

impl Resolved {
    /// Adds the children that were read and whose configuration is there.
    fn add_metadata<M: Manifests>(
        &mut self,
        reader: &Reader<'_, M>,
        configs: &BTreeMap<Digest, (u64, RepositoryName)>,
    ) {
        let carried: BTreeSet<Digest> = self.image.manifests().cloned().collect();
        for entry in std::mem::take(&mut self.left) {
            let known = self.image.children.iter().any(|child| child.digest == entry.digest);
            if known || carried.contains(&entry.digest) {
                continue;
            }
            let Some(Read { document, from }) = reader.known(&entry.digest) else { continue };
            // What the index says of it and what it is may differ, and the bundle is laid out by what the index says.
            if document.raw().len() as u64 != entry.size {
                continue;
            }
            let mut blobs = Vec::new();
            if let Document::Index(index) = &document {
                self.indexes.push(LockedIndex::new(entry.digest.clone(), index));
            }
            if let Document::Image(image) = &document {
                let config = &image.config;
                let found = configs.get(&config.digest);
                let Some((_, from)) = found.filter(|(size, _)| *size == config.size) else { continue };
                if config.size > MAX_SMALL_BLOB {
                    continue;
                }
                self.blobs.push(blob(config, from, false));
                for named in image.blobs() {
                    if !blobs.contains(&named.digest) {
                        blobs.push(named.digest.clone());
                    }
                }
            }
            self.blobs.push(blob(&entry, &from, true));
            self.image.children.push(Child { metadata_only: true, ..Child::new(&entry, &[], blobs) });
        }
        let place = |child: &Child| self.order.get(&child.digest).copied().unwrap_or(usize::MAX);
        self.image.children.sort_by_key(place);
    }
}

/// Metadata that is fetched from where it was seen: another repository may have less of the same index.
fn blob(descriptor: &Descriptor, from: &RepositoryName, manifest: bool) -> LockedBlob {
    LockedBlob {
        digest: descriptor.digest.clone(),
        size: descriptor.size,
        from: Some(from.clone()),
        manifest,
        urls: Vec::new(),
    }
}
