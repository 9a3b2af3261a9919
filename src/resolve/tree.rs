//! What a reference is upstream: an index with its entries, or a single manifest with its configuration.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use crate::oci::{Descriptor, Digest, Document, Image, ImageConfig, Platform, RepositoryName, media_type};
use crate::upstream::{Manifests, Problem, UpstreamError};

/// How deep indexes may be nested. Nobody publishes more than one level.
pub(super) const MAX_DEPTH: usize = 4;
/// More entries than any index has.
const MAX_ENTRIES: usize = 10_000;

/// Reads manifests, each digest once however many references share it.
pub(super) struct Reader<'a, M> {
    upstream: &'a M,
    seen: Mutex<HashMap<Digest, Arc<OnceCell<Document>>>>,
    platforms: Mutex<HashMap<Digest, Option<Platform>>>,
}

/// An entry of an index, or of an index within it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) descriptor: Descriptor,
    /// The nested indexes that lead to it.
    pub(super) through: Vec<Descriptor>,
}

impl<'a, M: Manifests> Reader<'a, M> {
    pub(super) fn new(upstream: &'a M) -> Self {
        Self { upstream, seen: Mutex::default(), platforms: Mutex::default() }
    }

    /// The manifest or index `digest`.
    pub(super) async fn document(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<Document, UpstreamError> {
        let cell = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(seen.entry(digest.clone()).or_default())
        };
        let fetch = async || Ok(self.upstream.manifest_by_digest(name, digest).await?.document);
        cell.get_or_try_init(fetch).await.cloned()
    }

    /// Remembers a document that was read by its tag.
    pub(super) fn remember(&self, digest: &Digest, document: &Document) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(digest.clone(), Arc::new(OnceCell::new_with(Some(document.clone()))));
    }

    /// All entries of `index`, those of nested indexes in the place of the entry that leads to them, as containerd
    /// walks them (containerd v2.1.6 core/images/image.go, `Manifest`).
    pub(super) async fn entries(
        &self,
        name: &RepositoryName,
        manifests: &[Descriptor],
    ) -> Result<Vec<Entry>, UpstreamError> {
        let mut entries = Vec::new();
        let mut waiting: Vec<Entry> = level(manifests, &[]);
        while let Some(entry) = waiting.pop() {
            let nested =
                media_type::is_index(&entry.descriptor.media_type) && entry.through.len() < MAX_DEPTH;
            if nested {
                let document = self.document(name, &entry.descriptor.digest).await?;
                if let Document::Index(index) = document {
                    let mut through = entry.through;
                    through.push(entry.descriptor);
                    waiting.extend(level(&index.manifests, &through));
                }
            } else if entries.len() < MAX_ENTRIES {
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    /// What the image was built for, from its configuration; none for artifacts.
    pub(super) async fn platform_of(
        &self,
        name: &RepositoryName,
        image: &Image,
    ) -> Result<Option<Platform>, UpstreamError> {
        let config = &image.config;
        if !matches!(config.media_type.as_str(), media_type::OCI_CONFIG | media_type::DOCKER_CONFIG) {
            return Ok(None);
        }
        let known =
            self.platforms.lock().unwrap_or_else(PoisonError::into_inner).get(&config.digest).cloned();
        if let Some(platform) = known {
            return Ok(platform);
        }
        let bytes = self.upstream.small_blob(name, config).await?;
        let parsed = ImageConfig::parse(&bytes).map_err(|error| {
            let what = format!("configuration {} of {name}", config.digest);
            UpstreamError::read(what, name.host().unwrap_or_default(), Problem::Manifest(error))
        })?;
        let platform = parsed.platform();
        let mut platforms = self.platforms.lock().unwrap_or_else(PoisonError::into_inner);
        platforms.insert(config.digest.clone(), platform.clone());
        Ok(platform)
    }
}

/// The entries of one index, the last first, for a stack.
fn level(manifests: &[Descriptor], through: &[Descriptor]) -> Vec<Entry> {
    let entry = |descriptor: &Descriptor| Entry { descriptor: descriptor.clone(), through: through.to_vec() };
    manifests.iter().rev().map(entry).collect()
}
