//! Where images are looked up: content that is here, or a registry that is asked.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Runtime;

use crate::oci::{Descriptor, Digest, MAX_MANIFEST_BYTES, Reference, RepositoryName, TagMeaning};
use crate::site::RegistryUrl;
use crate::store::{Content, ContentError, Manifest};
use crate::upstream::{Problem, Upstream, UpstreamError};

/// What images are looked up in.
pub(super) trait Images {
    /// Returns the digest that a reference stands for; `None` if there is no such image.
    fn root(&self, reference: &Reference) -> Result<Option<Digest>, ContentError>;

    /// Returns what the tag of a reference without a digest means; `None` if it is not known who set it.
    fn meaning(&self, reference: &Reference) -> Result<Option<TagMeaning>, ContentError>;

    /// A manifest or index, verified.
    fn manifest(&self, name: &RepositoryName, digest: &Digest) -> Result<Option<Manifest>, ContentError>;

    /// The size of a blob in bytes.
    fn blob_size(&self, name: &RepositoryName, digest: &Digest) -> Result<Option<u64>, ContentError>;

    /// A configuration, verified; none also where it is damaged or too large.
    fn config(&self, name: &RepositoryName, config: &Descriptor) -> Result<Option<Bytes>, ContentError>;
}

impl Images for Arc<dyn Content> {
    fn root(&self, reference: &Reference) -> Result<Option<Digest>, ContentError> {
        match (reference.digest(), reference.tag()) {
            (Some(digest), _) => match self.as_ref().manifest(reference.name(), digest) {
                Ok(None) => Ok(None),
                Ok(Some(_)) | Err(ContentError::Damaged(_)) => Ok(Some(digest.clone())),
                Err(error) => Err(error),
            },
            (None, Some(tag)) => Ok(self.resolve(reference.name(), tag)?.map(|root| root.digest)),
            (None, None) => Ok(None),
        }
    }

    fn meaning(&self, reference: &Reference) -> Result<Option<TagMeaning>, ContentError> {
        match (reference.digest(), reference.tag()) {
            (None, Some(tag)) => self.as_ref().meaning(reference.name(), tag),
            _ => Ok(None),
        }
    }

    fn manifest(&self, name: &RepositoryName, digest: &Digest) -> Result<Option<Manifest>, ContentError> {
        self.as_ref().manifest(name, digest)
    }

    fn blob_size(&self, name: &RepositoryName, digest: &Digest) -> Result<Option<u64>, ContentError> {
        self.as_ref().blob_size(name, digest)
    }

    fn config(&self, name: &RepositoryName, config: &Descriptor) -> Result<Option<Bytes>, ContentError> {
        let blob = match self.blob(name, &config.digest) {
            Ok(Some(blob)) => blob,
            Ok(None) | Err(ContentError::Damaged(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        if blob.size() > MAX_MANIFEST_BYTES as u64 {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(blob.size()).unwrap_or_default()];
        let mut done = 0;
        while done < bytes.len() {
            match blob.read_at(&mut bytes[done..], done as u64)? {
                0 => return Ok(None),
                read => done += read,
            }
        }
        Ok(Some(bytes.into()))
    }
}

/// A registry at the site that is asked over the network. It has each image below the image's own host:
/// `registry.site.local:5000/registry.k8s.io/pause`.
pub struct SiteRegistry {
    upstream: Upstream,
    authority: String,
    runtime: Runtime,
}

impl SiteRegistry {
    /// The registry at `url`. `upstream` knows whether it speaks TLS, and with which credentials.
    pub fn new(upstream: Upstream, url: &RegistryUrl) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { upstream, authority: url.authority().to_owned(), runtime })
    }

    /// The name that an image has there.
    fn name(&self, name: &RepositoryName) -> Result<RepositoryName, ContentError> {
        format!("{}/{name}", self.authority).parse().map_err(|error| io::Error::other(error).into())
    }

    /// What comes of a request, or none where the registry does not have what it is for.
    fn ask<T>(
        &self,
        request: impl Future<Output = Result<T, UpstreamError>>,
    ) -> Result<Option<T>, ContentError> {
        match self.runtime.block_on(request) {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if matches!(error.problem(), Some(Problem::Missing(_))) => Ok(None),
            Err(error) => Err(io::Error::other(error).into()),
        }
    }
}

impl Images for SiteRegistry {
    fn root(&self, reference: &Reference) -> Result<Option<Digest>, ContentError> {
        let there = Reference::new(
            self.name(reference.name())?,
            reference.tag().cloned(),
            reference.digest().cloned(),
        );
        Ok(self.ask(self.upstream.manifest(&there))?.map(|found| found.digest))
    }

    fn meaning(&self, _: &Reference) -> Result<Option<TagMeaning>, ContentError> {
        Ok(None)
    }

    fn manifest(&self, name: &RepositoryName, digest: &Digest) -> Result<Option<Manifest>, ContentError> {
        let name = self.name(name)?;
        let found = self.ask(self.upstream.manifest_by_digest(&name, digest))?;
        Ok(found.map(|found| Manifest {
            media_type: found.document.media_type().to_owned(),
            bytes: found.document.raw().clone(),
        }))
    }

    fn blob_size(&self, name: &RepositoryName, digest: &Digest) -> Result<Option<u64>, ContentError> {
        let name = self.name(name)?;
        self.ask(self.upstream.blob_size(&name, digest))
    }

    fn config(&self, name: &RepositoryName, config: &Descriptor) -> Result<Option<Bytes>, ContentError> {
        let name = self.name(name)?;
        self.ask(self.upstream.small_blob(&name, config))
    }
}
