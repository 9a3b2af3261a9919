//! What a batch is about to add, written down before it does, so that one that never became visible leaves nothing.
//!
//! Manifests get their names before the tags that lead to them. A writer that dies in between would leave manifests that
//! nobody can find and nothing removes, since what was pushed without a tag looks just the same. So `batch.json` lists the
//! new files first. The next writer removes them, unless `publish.json` says that the batch had become visible.

use std::path::PathBuf;

use super::StoreError;
use super::durable::{Dirty, remove, write_json};
use super::layout::Layout;
use super::record::{bounded, json};

/// The largest list: a million files.
const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// Notes that `files` are about to appear. Content under its digest is not noted: it is of no harm, and a prune takes it.
pub(super) fn begin<'a>(
    layout: &Layout,
    files: impl IntoIterator<Item = &'a PathBuf>,
) -> Result<(), StoreError> {
    let mut new = Vec::new();
    for file in files {
        if file.starts_with(layout.blobs()) || file.try_exists()? {
            continue;
        }
        new.extend(file.strip_prefix(layout.root()).ok().and_then(|path| path.to_str()));
    }
    if new.is_empty() {
        return Ok(());
    }
    Ok(write_json(&layout.temporary(), &layout.batch(), &new)?)
}

/// Forgets the list: what is on it has become visible.
pub(super) fn forget(layout: &Layout) -> Result<(), StoreError> {
    let mut dirty = Dirty::default();
    remove(&layout.batch(), &mut dirty)?;
    Ok(dirty.sync()?)
}

/// Removes what a batch had added that never became visible.
pub(super) fn undo(layout: &Layout) -> Result<(), StoreError> {
    let path = layout.batch();
    let Some(bytes) = bounded(&path, MAX_BYTES)? else { return Ok(()) };
    let files: Vec<PathBuf> = json(&path, &bytes)?;
    let mut dirty = Dirty::default();
    for file in files {
        remove(&layout.root().join(file), &mut dirty)?;
    }
    // Only then is there nothing left to do.
    dirty.sync()?;
    forget(layout)
}
