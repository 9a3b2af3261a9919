//! Many tags at once, all or nothing.
//!
//! Tags are one file each, so a set of them cannot change in one step. Instead the whole set is written to
//! `publish.json` first. From the moment that file has its name, readers look there before they look at tag files; then
//! the tag files are written one by one, and at last it is removed. A writer that dies in the middle is finished by the
//! next one.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::oci::{RepositoryName, Tag, TagMeaning};

use super::durable::{Dirty, Staged, remove, stage, sync_file, write_json};
use super::layout::Layout;
use super::log::Written;
use super::record::{TagRecord, bounded, json};
use super::verify::Stamp;
use super::{ContentError, StoreError, undo};

/// The largest set: several hundred thousand tags.
const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// A set of changes that become visible together.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Publication {
    /// Repository to tag to what it points at from now on; none for a tag that is deleted.
    tags: BTreeMap<RepositoryName, BTreeMap<Tag, Option<TagRecord>>>,
    /// Those of the deleted tags to which pinned references disagree from now on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    disputed: BTreeMap<RepositoryName, BTreeSet<Tag>>,
    /// The receipt of the import that brings them.
    import: Option<Written>,
}

impl Publication {
    pub(super) fn set(&mut self, name: &RepositoryName, tag: &Tag, meaning: Option<TagMeaning>) {
        if meaning == Some(TagMeaning::Disputed) {
            self.disputed.entry(name.clone()).or_default().insert(tag.clone());
        } else if let Some(disputed) = self.disputed.get_mut(name) {
            disputed.remove(tag);
        }
        self.tags.entry(name.clone()).or_default().insert(tag.clone(), meaning.and_then(TagRecord::of));
    }

    pub(super) fn record(&mut self, receipt: Written) {
        self.import = Some(receipt);
    }

    /// Whether a receipt becomes visible with the tags.
    pub(super) fn has_receipt(&self) -> bool {
        self.import.is_some()
    }

    /// Whether the set says something about a tag.
    pub(super) fn has(&self, name: &RepositoryName, tag: &Tag) -> bool {
        self.tags.get(name).is_some_and(|tags| tags.contains_key(tag))
    }

    /// What a tag means by the set, if it says something about it; `None` if it goes.
    pub(super) fn meaning(&self, name: &RepositoryName, tag: &Tag) -> Option<TagMeaning> {
        let record = self.tags.get(name).and_then(|tags| tags.get(tag)).cloned().flatten();
        let disputed = self.is_disputed(name, tag).then_some(TagMeaning::Disputed);
        record.map(TagRecord::into_meaning).or(disputed)
    }

    fn is_disputed(&self, name: &RepositoryName, tag: &Tag) -> bool {
        self.disputed.get(name).is_some_and(|disputed| disputed.contains(tag))
    }

    /// The changed tags of a repository, and whether each is there from now on.
    pub(super) fn of(&self, name: &RepositoryName) -> impl Iterator<Item = (&Tag, bool)> {
        self.tags.get(name).into_iter().flatten().map(|(tag, target)| (tag, target.is_some()))
    }

    pub(super) fn is_single(&self) -> bool {
        self.import.is_none() && self.tags.values().map(BTreeMap::len).sum::<usize>() <= 1
    }

    /// Makes the changes visible together and durable.
    pub(super) fn publish(&self, layout: &Layout) -> Result<(), StoreError> {
        if self.is_single() {
            return Ok(self.apply(layout)?);
        }
        write_json(&layout.temporary(), &layout.publication(), self)?;
        self.finish(layout)
    }

    /// Brings the tag files in line with a set that is visible already.
    pub(super) fn finish(&self, layout: &Layout) -> Result<(), StoreError> {
        undo::forget(layout)?;
        self.apply(layout)?;
        let mut dirty = Dirty::default();
        remove(&layout.publication(), &mut dirty)?;
        Ok(dirty.sync()?)
    }

    fn apply(&self, layout: &Layout) -> io::Result<()> {
        let mut dirty = Dirty::default();
        let mut placed = Vec::new();
        let mut place = |staged: Staged, dirty: &mut Dirty| -> io::Result<()> {
            if self.is_single() {
                staged.sync()?;
            }
            placed.push(staged.place(dirty)?);
            Ok(())
        };
        for (path, bytes) in self.import.iter().flat_map(Written::files) {
            place(stage(&layout.temporary(), &layout.root().join(path), bytes)?, &mut dirty)?;
        }
        for (name, tags) in &self.tags {
            let Some(repository) = layout.repository(name) else { continue };
            for (tag, target) in tags {
                let (path, mark) = (repository.tag(tag), repository.disputed_tag(tag));
                if self.is_disputed(name, tag) {
                    place(stage(&layout.temporary(), &mark, b"")?, &mut dirty)?;
                } else {
                    remove(&mark, &mut dirty)?;
                }
                match target {
                    Some(target) => {
                        place(stage(&layout.temporary(), &path, &serde_json::to_vec(target)?)?, &mut dirty)?;
                    }
                    None => _ = remove(&path, &mut dirty)?,
                }
            }
        }
        // While `publish.json` stands, the files behind it may be made durable at the end, which is far quicker.
        if !self.is_single() {
            placed.iter().try_for_each(|path| sync_file(path))?;
        }
        dirty.sync()
    }
}

/// The set that was last read from `publish.json`, so that it is not parsed at every request.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<Option<(Stamp, Arc<Publication>)>>);

impl Cache {
    /// The set that is being published now, if there is one.
    pub(super) fn current(&self, layout: &Layout) -> Result<Option<Arc<Publication>>, ContentError> {
        let path = layout.publication();
        // Not `fs_err`: this is looked at for every request, and the error needs no words.
        let metadata = match std::fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(_) => fs::metadata(&path)?,
        };
        let stamp = Stamp::of(&metadata);
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, publication)) = &*cached
            && *known == stamp
        {
            return Ok(Some(publication.clone()));
        }
        let Some(bytes) = bounded(&path, MAX_BYTES)? else { return Ok(None) };
        let publication: Arc<Publication> = Arc::new(json(&path, &bytes)?);
        *cached = Some((stamp, publication.clone()));
        Ok(Some(publication))
    }
}
