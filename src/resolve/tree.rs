//! What a reference is upstream: an index with its entries, or a single manifest with its configuration.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use crate::oci::{
    Digest, Document, Image, ImageConfig, Index, Platform, Reference, RepositoryName, media_type,
};
use crate::select::{ExpandError, Expansion, Walk};
use crate::upstream::{Fetched, Manifests, Problem, UpstreamError};

/// Reads manifests, each digest once however many references share it.
pub(super) struct Reader<'a, M> {
    upstream: &'a M,
    seen: Mutex<HashMap<Digest, Arc<OnceCell<Read>>>>,
    platforms: Mutex<HashMap<Digest, Option<Platform>>>,
}

/// A document that was read.
#[derive(Clone)]
pub(super) struct Read {
    pub(super) document: Document,
    /// The repository that it was read from.
    pub(super) from: RepositoryName,
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
        let cell = self.cell(digest);
        let fetch = async || {
            let document = self.upstream.manifest_by_digest(name, digest).await?.document;
            Ok(Read { document, from: name.clone() })
        };
        let read: Result<&Read, UpstreamError> = cell.get_or_try_init(fetch).await;
        Ok(read?.document.clone())
    }

    /// Returns whether the document `digest` was read.
    pub(super) fn has(&self, digest: &Digest) -> bool {
        self.known(digest).is_some()
    }

    /// Returns the document `digest` if it was read.
    pub(super) fn known(&self, digest: &Digest) -> Option<Read> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(digest).and_then(|cell| cell.get().cloned())
    }

    /// What `reference` means. What it pins is read once, as by [`document`](Self::document).
    pub(super) async fn root(&self, reference: &Reference) -> Result<(Digest, Document), UpstreamError> {
        let Some(digest) = reference.digest() else {
            let Fetched { digest, document } = self.upstream.manifest(reference).await?;
            self.remember(reference.name(), &digest, &document);
            return Ok((digest, document));
        };
        let cell = self.cell(digest);
        let fetch = async || {
            let document = self.upstream.manifest(reference).await?.document;
            Ok(Read { document, from: reference.name().clone() })
        };
        let read: Result<&Read, UpstreamError> = cell.get_or_try_init(fetch).await;
        Ok((digest.clone(), read?.document.clone()))
    }

    fn cell(&self, digest: &Digest) -> Arc<OnceCell<Read>> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(seen.entry(digest.clone()).or_default())
    }

    /// Remembers a document that was read from the repository `name` otherwise.
    pub(super) fn remember(&self, name: &RepositoryName, digest: &Digest, document: &Document) {
        let read = Read { document: document.clone(), from: name.clone() };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(digest.clone(), Arc::new(OnceCell::new_with(Some(read))));
    }

    /// Expands `index`. A nested index that the upstream does not have counts as an entry.
    pub(super) async fn expand(
        &self,
        name: &RepositoryName,
        index: &Index,
    ) -> Result<Result<Expansion, ExpandError>, UpstreamError> {
        let mut walk = match Walk::over(index) {
            Ok(walk) => walk,
            Err(error) => return Ok(Err(error)),
        };
        while let Some(nested) = walk.nested() {
            let document = match self.document(name, &nested.descriptor.digest).await {
                Ok(document) => Some(document),
                Err(error) if error.is_missing() => None,
                Err(error) => return Err(error),
            };
            if let Err(error) = walk.enter(nested, document.as_ref()) {
                return Ok(Err(error));
            }
        }
        Ok(Ok(walk.finish()))
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
