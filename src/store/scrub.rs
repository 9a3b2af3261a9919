//! Reading everything again to find what the disk has damaged, beside a registry that serves the store.

use std::io;

use fs_err as fs;

use crate::oci::Digest;

use super::durable::Dirty;
use super::verify::{Stamp, matches};
use super::{Patience, Store, StoreError};

/// What a scrub found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// How many pieces of content were read.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Content whose bytes were not those of its digest or could not be read. It was put aside, so that it can be written
    /// anew.
    pub damaged: Vec<Digest>,
    /// Content that repositories have and that is not there. Damaged content is not repeated here.
    pub missing: Vec<Digest>,
}

fn is_forbidden(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}

impl Store {
    /// Reads all content and puts what is damaged aside, into `damaged/` of the store. `progress` is told of every piece
    /// with its size, before it is read.
    ///
    /// A writer is held up only while something is put aside, for which this waits up to `patience`.
    pub fn scrub<'a>(
        &'a self,
        patience: impl Into<Patience<'a>>,
        progress: &mut dyn FnMut(&Digest, u64),
    ) -> Result<Scrubbed, StoreError> {
        let patience = patience.into();
        let mut scrubbed = Scrubbed::default();
        let mut found = Vec::new();
        self.each_blob(|digest, metadata| {
            found.push((digest.clone(), metadata.len()));
            Ok(())
        })?;
        for (digest, size) in found {
            progress(&digest, size);
            // It may have been pruned since.
            let Some((blob, stamp)) = self.open_blob(&digest)? else { continue };
            scrubbed.blobs += 1;
            scrubbed.bytes += blob.size();
            let good = matches(&digest, &blob).unwrap_or_else(|error| {
                // What the disk cannot give any more is as lost as what it gives wrongly.
                tracing::warn!("{digest}: {error}");
                false
            });
            if good {
                continue;
            }
            let is_damaged = match self.put_aside(&digest, stamp, patience) {
                // Whoever may only read learns of the damage all the same.
                Err(StoreError::Io(error)) if is_forbidden(&error) => {
                    tracing::warn!("{digest} is damaged and stays where it is: {error}");
                    true
                }
                aside => aside?,
            };
            if is_damaged {
                scrubbed.damaged.push(digest);
            }
        }
        for digest in self.members()? {
            if !self.has_blob(&digest)? && !scrubbed.damaged.contains(&digest) {
                scrubbed.missing.push(digest);
            }
        }
        Ok(scrubbed)
    }

    /// Moves damaged content away, unless it has been replaced since it was read.
    fn put_aside(&self, digest: &Digest, stamp: Stamp, patience: Patience<'_>) -> Result<bool, StoreError> {
        let _writer = self.writer("dray scrub", patience)?;
        let path = self.layout().blob(digest);
        if Stamp::of(&fs::metadata(&path)?) != stamp {
            return Ok(false);
        }
        let mut dirty = Dirty::default();
        let aside = self.layout().damaged(digest);
        dirty.create_parent(&aside)?;
        dirty.changed(&path);
        fs::rename(&path, &aside)?;
        dirty.sync()?;
        Ok(true)
    }
}
