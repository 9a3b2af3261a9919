//! What the registry serves from: the read side of a store, and of anything else that holds images.

use std::fmt;
use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::file::{Span, Stretch};
use crate::oci::{Algorithm, Descriptor, Digest, Hasher, RepositoryName, Tag, TagMeaning};

/// How much of a blob is hashed at a time.
const CHUNK: usize = 1024 * 1024;

/// Images that can be looked up by name and read by digest.
///
/// Names are complete: `registry.k8s.io/pause`. Which name a request means is decided before it gets here. The methods
/// block on the disk for as long as it takes, so asynchronous callers put them on threads of their own.
pub trait Content: Send + Sync + 'static {
    /// Returns what `tag` of `name` means; `None` if the repository or the tag is unknown.
    fn meaning(&self, name: &RepositoryName, tag: &Tag) -> Result<Option<TagMeaning>, ContentError>;

    /// Returns what `tag` of `name` points at; `None` if the repository or the tag is unknown, or the tag means nothing.
    fn resolve(&self, name: &RepositoryName, tag: &Tag) -> Result<Option<Descriptor>, ContentError> {
        Ok(self.meaning(name, tag)?.and_then(TagMeaning::into_target))
    }

    /// The manifest or index `digest` of `name`. The bytes are verified to have that digest.
    fn manifest(&self, name: &RepositoryName, digest: &Digest) -> Result<Option<Manifest>, ContentError>;

    /// The blob `digest` of `name`. It was verified as a whole before this returns, so that its bytes may leave.
    fn blob(&self, name: &RepositoryName, digest: &Digest) -> Result<Option<Blob>, ContentError>;

    /// The size of the blob `digest` of `name` in bytes. Unlike [`Content::blob`] this may skip reading the blob.
    fn blob_size(&self, name: &RepositoryName, digest: &Digest) -> Result<Option<u64>, ContentError> {
        Ok(self.blob(name, digest)?.map(|blob| blob.size()))
    }

    /// Up to `limit` tags of `name` that sort after `after`, in byte order; none when the repository is unknown.
    fn tags(
        &self,
        name: &RepositoryName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Option<Vec<Tag>>, ContentError>;

    /// Up to `limit` repositories that sort after `after`, in byte order.
    fn repositories(&self, after: Option<&str>, limit: usize) -> Result<Vec<RepositoryName>, ContentError>;

    /// Returns the digests of up to `limit` manifests and indexes of `name`, in no particular order.
    fn manifests(&self, name: &RepositoryName, limit: usize) -> Result<Vec<Digest>, ContentError> {
        let _ = (name, limit);
        Ok(Vec::new())
    }

    /// The manifests of `name` whose subject is `subject`, in the order of their digests. Their artifact types and
    /// annotations are filled in.
    fn referrers(&self, name: &RepositoryName, subject: &Digest) -> Result<Vec<Descriptor>, ContentError>;

    /// The plain files whose address upstream has this path, in the order of their hosts. The path is decoded and has no
    /// slash in front.
    fn files(&self, path: &str) -> Result<Vec<HostedFile>, ContentError>;

    /// How much there is. This looks at every file of content and may take seconds.
    fn usage(&self) -> Result<Usage, ContentError> {
        Ok(Usage::default())
    }

    /// The content that turned out to be damaged since this was opened, in no particular order.
    fn damaged(&self) -> Vec<Digest> {
        Vec::new()
    }
}

/// A plain file, as it is known under one path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostedFile {
    /// The host that it comes from, with its port where that is not the usual one.
    pub host: String,
    /// The repository that has its content as a blob.
    pub repository: RepositoryName,
    /// The digest of the content.
    pub digest: Digest,
    /// The size of the content in bytes.
    pub size: u64,
}

/// How much content there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// How many different pieces of content, manifests included.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A manifest or index: bytes, and the media type that they were stored under.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The media type.
    pub media_type: String,
    /// The bytes, verbatim.
    pub bytes: Bytes,
}

/// A verified blob: a stretch of an open file, or of several where a bundle was cut into volumes. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Blob {
    bytes: Span,
    /// Told when the bytes cannot be read although they could when they were verified.
    doubt: Option<Arc<dyn Doubt>>,
}

/// Whoever wants to know that the bytes of a blob cannot be read.
pub(super) trait Doubt: fmt::Debug + Send + Sync {
    /// They could not be read just now.
    fn raise(&self);
}

impl Blob {
    /// The blob of `size` bytes that begins in `file` at `offset`.
    pub fn in_file(file: Arc<File>, offset: u64, size: u64) -> Self {
        Self::new(Span::new(file, offset, size))
    }

    /// The blob that consists of these bytes.
    pub(crate) fn new(bytes: Span) -> Self {
        Self { bytes, doubt: None }
    }

    /// The same blob, which tells `doubt` when it cannot be read.
    pub(super) fn telling(self, doubt: impl Doubt + 'static) -> Self {
        Self { doubt: Some(Arc::new(doubt)), ..self }
    }

    /// The size of the blob in bytes.
    pub fn size(&self) -> u64 {
        self.bytes.len()
    }

    /// The open file that has the byte at `position`; none at the end of the blob.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "no connection sends from files elsewhere")
    )]
    pub(crate) fn stretch_at(&self, position: u64) -> io::Result<Option<Stretch<'_>>> {
        self.bytes.stretch_at(position)
    }

    /// Reads the blob from `position` on into `buffer` and returns how many bytes that were; 0 at its end.
    ///
    /// Reads are positional, so that any number of readers can share the files.
    pub fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.bytes.read_at(buffer, position).inspect_err(|_| self.doubt())
    }

    /// Like [`Blob::read_at`], but never waits for a disk: none when it would have to, or when the system cannot tell.
    pub fn read_at_once(&self, buffer: &mut [u8], position: u64) -> io::Result<Option<usize>> {
        self.bytes.read_at_once(buffer, position).inspect_err(|_| self.doubt())
    }

    /// Says that the blob's bytes cannot be read, so that it is verified again before it is served again.
    pub(crate) fn doubt(&self) {
        if let Some(doubt) = &self.doubt {
            doubt.raise();
        }
    }

    /// The digest of the blob by `algorithm`, computed by reading all of it.
    pub fn digest(&self, algorithm: Algorithm) -> io::Result<Digest> {
        let (mut hasher, mut position, mut buffer) = (Hasher::new(algorithm), 0, vec![0; CHUNK]);
        loop {
            match self.read_at(&mut buffer, position)? {
                0 => return Ok(hasher.finish()),
                read => {
                    hasher.update(&buffer[..read]);
                    position += read as u64;
                }
            }
        }
    }
}

/// Why content cannot be read, although it may be there.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The bytes on disk are not those that the digest stands for.
    #[error("{0} is damaged: its bytes no longer have that digest; run `dray scrub`, then import it again")]
    Damaged(Digest),
    /// A small file of the store makes no sense.
    #[error("{path} is not valid: {reason}; restore it from a backup or import its images again")]
    Invalid {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The disk, or the permissions on it. The message names the file.
    #[error(transparent)]
    Io(#[from] io::Error),
}
