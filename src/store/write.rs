//! Changing a store: blobs one by one, then manifests and tags together.

use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use bytes::Bytes;
use fs_err as fs;

use crate::oci::{Descriptor, Digest, Document, Hasher, RepositoryName, Tag, TagMeaning};

use super::durable::{Dirty, Staged, adopt, remove, stage};
use super::layout::Repository;
use super::new_file::NewFile;
use super::publication::Publication;
use super::record::{ManifestRecord, bounded};
use super::{Content as _, HostedFile, Store, StoreError, Writer, undo};

impl Writer {
    /// The store that is being written.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Starts to write the blob `digest` of `size` bytes. Several blobs may be written at once.
    pub fn begin_blob(&self, digest: &Digest, size: u64) -> Result<BlobWriter<'_>, StoreError> {
        Ok(BlobWriter {
            writer: self,
            file: NewFile::create(&self.store.layout().temporary(), size)?,
            hasher: Hasher::new(digest.algorithm()),
            digest: digest.clone(),
            expected: size,
            written: 0,
        })
    }

    /// Starts a set of manifests and tags that become visible together.
    pub fn batch(&self) -> Batch<'_> {
        Batch {
            writer: self,
            staged: Vec::new(),
            links: Vec::new(),
            publication: Publication::default(),
            removals: Vec::new(),
        }
    }

    /// Makes the blob `digest`, which is in the store, a blob of the repository `name`, claimed for a push that will name it
    /// in a manifest. It is durable when this returns.
    pub fn add_blob(&self, name: &RepositoryName, digest: &Digest) -> Result<(), StoreError> {
        let mut batch = self.batch();
        batch.link_blob(name, digest)?;
        batch.commit()?;
        self.store.claim_blob(name, digest)?;
        Ok(())
    }

    /// Makes every blob that was committed so far durable.
    pub fn sync(&self) -> Result<(), StoreError> {
        let mut dirty = std::mem::take(&mut *self.dirty.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(dirty.sync()?)
    }

    pub(super) fn note_dirty(&self, dirty: Dirty) {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner).absorb(dirty);
    }

    pub(super) fn repository(&self, name: &RepositoryName) -> Result<Repository, StoreError> {
        self.store.layout().repository(name).ok_or_else(|| StoreError::NameTooLong(name.to_string()))
    }
}

/// A blob on its way into the store. Dropped before [`BlobWriter::commit`] it leaves nothing behind.
#[derive(Debug)]
pub struct BlobWriter<'w> {
    writer: &'w Writer,
    file: NewFile,
    hasher: Hasher,
    digest: Digest,
    expected: u64,
    written: u64,
}

impl BlobWriter<'_> {
    /// Adds the next `bytes`.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let space = self.space();
            let count = space.len().min(bytes.len());
            space[..count].copy_from_slice(&bytes[..count]);
            self.advance(count)?;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Where the next bytes may be read to, so that they need not be copied; never empty. What was put there counts after
    /// [`BlobWriter::advance`].
    pub fn space(&mut self) -> &mut [u8] {
        self.file.space()
    }

    /// Adds the first `count` bytes of [`BlobWriter::space`] to the blob.
    pub fn advance(&mut self, count: usize) -> Result<(), StoreError> {
        self.written += count as u64;
        if self.written > self.expected {
            return Err(self.wrong_size());
        }
        self.hasher.update(&self.file.space()[..count]);
        Ok(self.file.advance(count)?)
    }

    /// Checks size and digest and gives the blob its place. It is durable after the next [`Writer::sync`] or
    /// [`Batch::commit`].
    pub fn commit(self) -> Result<(), StoreError> {
        if self.written != self.expected {
            return Err(self.wrong_size());
        }
        let actual = self.hasher.finish();
        if actual != self.digest {
            return Err(StoreError::WrongDigest { expected: self.digest, actual });
        }
        let (file, name) = self.file.finish()?;
        let path = self.writer.store.layout().blob(&self.digest);
        let mut dirty = Dirty::default();
        dirty.create_parent(&path)?;
        name.persist(&path).map_err(|e| e.error)?;
        self.writer.note_dirty(dirty);
        Ok(self.writer.store.0.verified.note_written(&self.digest, &file)?)
    }

    fn wrong_size(&self) -> StoreError {
        StoreError::WrongSize { digest: self.digest.clone(), expected: self.expected, actual: self.written }
    }
}

/// Manifests and tags that become visible together, or not at all. Dropped before [`Batch::commit`] it changes nothing.
#[derive(Debug)]
pub struct Batch<'w> {
    pub(super) writer: &'w Writer,
    /// Written files that get their names at the commit.
    staged: Vec<Staged>,
    /// Which repository has which blob.
    links: Vec<(Repository, Digest)>,
    pub(super) publication: Publication,
    /// Files to remove at last, when no tag leads to them any more.
    pub(super) removals: Vec<PathBuf>,
}

impl Batch<'_> {
    /// Adds the manifest or index `digest` to the repository `name`. The document is kept byte by byte.
    ///
    /// The blobs that it names are not checked: an image of which a site needs only some platforms is complete without the
    /// others.
    pub fn put_manifest(
        &mut self,
        name: &RepositoryName,
        digest: &Digest,
        media_type: &str,
        bytes: &Bytes,
    ) -> Result<(), StoreError> {
        let document = Document::parse(Some(media_type), bytes.clone())?;
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(bytes);
        let actual = hasher.finish();
        if actual != *digest {
            return Err(StoreError::WrongDigest { expected: digest.clone(), actual });
        }
        let repository = self.writer.repository(name)?;
        let subject = document.subject().map(|subject| subject.digest.clone());
        if let Some(subject) = &subject {
            let referrer = document.as_referrer(digest);
            self.stage(&repository.referrer(subject, digest), &to_json(&referrer)?)?;
        }
        let record = ManifestRecord {
            media_type: document.media_type().to_owned(),
            size: bytes.len() as u64,
            subject,
        };
        self.stage(&self.writer.store.layout().blob(digest), bytes)?;
        self.stage(&repository.manifest(digest), &to_json(&record)?)
    }

    /// Makes the blob `digest`, which is in the store, a blob of the repository `name`.
    pub fn link_blob(&mut self, name: &RepositoryName, digest: &Digest) -> Result<(), StoreError> {
        self.links.push((self.writer.repository(name)?, digest.clone()));
        Ok(())
    }

    /// Makes `file`, whose content is a blob of its repository, known under `path`, the path of its address upstream.
    pub fn put_file(&mut self, path: &str, file: &HostedFile) -> Result<(), StoreError> {
        let place = self.writer.store.layout().file(&file.host, path);
        let place = place.ok_or_else(|| StoreError::NameTooLong(file.host.clone()))?;
        self.stage(&place, &to_json(file)?)
    }

    /// Points `tag` of `name` at `target`, a manifest that is in the repository or in this batch, whatever it meant before.
    pub fn set_tag(
        &mut self,
        name: &RepositoryName,
        tag: &Tag,
        target: &Descriptor,
    ) -> Result<(), StoreError> {
        self.set_meaning(name, tag, Some(TagMeaning::Unpinned(target.clone())))
    }

    /// Adds what was said about `tag` of `name` to what it means already. A target is a manifest that is in the repository
    /// or in this batch.
    pub fn add_meaning(
        &mut self,
        name: &RepositoryName,
        tag: &Tag,
        meaning: TagMeaning,
    ) -> Result<(), StoreError> {
        let known = if self.publication.has(name, tag) {
            self.publication.meaning(name, tag)
        } else {
            self.writer.store.meaning(name, tag)?
        };
        let meaning = match known {
            Some(known) => known.then(meaning),
            None => meaning,
        };
        self.set_meaning(name, tag, Some(meaning))
    }

    /// Gives `tag` of `name` this meaning, whatever it meant before; `None` removes it.
    pub fn set_meaning(
        &mut self,
        name: &RepositoryName,
        tag: &Tag,
        meaning: Option<TagMeaning>,
    ) -> Result<(), StoreError> {
        self.writer.repository(name)?;
        self.publication.set(name, tag, meaning);
        Ok(())
    }

    /// Makes all blobs durable, then the manifests, and then the tags visible. When this returns, a power failure changes
    /// nothing any more.
    pub fn commit(self) -> Result<(), StoreError> {
        for staged in &self.staged {
            staged.sync()?;
        }
        let links: Vec<PathBuf> =
            self.links.iter().map(|(repository, digest)| repository.blob(digest)).collect();
        if !self.publication.is_single() {
            let files = self.staged.iter().map(Staged::destination).chain(&links);
            undo::begin(self.writer.store.layout(), files)?;
        }
        let mut dirty = Dirty::default();
        // First the blobs and then the manifests that name them, which can be asked for by their digests from here on.
        for path in &links {
            if !path.try_exists()? {
                dirty.create_parent(path)?;
                fs::File::create(path)?;
                adopt(path);
            }
        }
        for staged in self.staged {
            staged.place(&mut dirty)?;
        }
        self.writer.note_dirty(dirty);
        self.writer.sync()?;
        if self.publication.has_receipt() {
            self.writer.store.open_layout()?;
        }
        self.publication.publish(self.writer.store.layout())?;
        let mut dirty = Dirty::default();
        for path in &self.removals {
            remove(path, &mut dirty)?;
        }
        Ok(dirty.sync()?)
    }

    /// Writes a file that is to become `destination`, unless just that is there already.
    fn stage(&mut self, destination: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        if bounded(destination, bytes.len() as u64).is_ok_and(|there| there.as_deref() == Some(bytes)) {
            return Ok(());
        }
        self.staged.push(stage(&self.writer.store.layout().temporary(), destination, bytes)?);
        Ok(())
    }
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    Ok(serde_json::to_vec(value).map_err(std::io::Error::from)?)
}
