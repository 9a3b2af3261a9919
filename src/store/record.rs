//! The small files of a store: read as a whole, and never more of them than makes sense.

use std::io::{self, Read as _};
use std::path::Path;

use fs_err as fs;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::oci::{Descriptor, Digest, MAX_MANIFEST_BYTES, TagMeaning};

use super::ContentError;

/// The largest small file: a referrer's descriptor carries the annotations of its manifest.
pub(super) const MAX_RECORD: u64 = 2 * MAX_MANIFEST_BYTES as u64;

/// What most small files fit into. One is read in two calls then, instead of many that start small.
const USUAL: usize = 4096;

/// What the store keeps about a manifest of a repository.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ManifestRecord {
    pub(super) media_type: String,
    pub(super) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) subject: Option<Digest>,
}

/// What the store keeps about a tag that means something.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct TagRecord {
    #[serde(flatten)]
    target: Descriptor,
    /// Whether only pinned references have set the tag.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pinned: bool,
}

impl TagRecord {
    /// Returns the record of a tag; `None` if it means nothing.
    pub(super) fn of(meaning: TagMeaning) -> Option<Self> {
        let pinned = matches!(meaning, TagMeaning::Pinned(_));
        meaning.into_target().map(|target| Self { target, pinned })
    }

    pub(super) fn into_meaning(self) -> TagMeaning {
        if self.pinned { TagMeaning::Pinned(self.target) } else { TagMeaning::Unpinned(self.target) }
    }
}

/// The bytes of a file of at most `limit` bytes; none when there is no such file.
pub(super) fn bounded(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    // `fs_err` names the file in its errors but allocates for it, so the common answer is found without it.
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(_) => fs::File::open(path)?.into_file(),
    };
    let mut bytes = Vec::with_capacity(USUAL);
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|error| named(path, &error))?;
    if bytes.len() as u64 > limit {
        return Err(named(path, &io::Error::new(io::ErrorKind::FileTooLarge, "larger than it can be")));
    }
    Ok(Some(bytes))
}

pub(super) fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()))
}

/// Reads `bytes`, the content of `path`, as JSON.
pub(super) fn json<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, ContentError> {
    serde_json::from_slice(bytes).map_err(|error| ContentError::Invalid {
        path: path.display().to_string(),
        reason: error.to_string(),
    })
}

/// What the small file at `path` says; none when there is no such file.
pub(super) fn record<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ContentError> {
    bounded(path, MAX_RECORD)?.map(|bytes| json(path, &bytes)).transpose()
}

/// The names of the files in a directory; none when there is no such directory.
pub(super) fn file_names(directory: &Path) -> io::Result<Option<impl Iterator<Item = io::Result<String>>>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // What is not UTF-8 is none of ours and matches nothing.
    Ok(Some(entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))))
}
