//! Files for nodes, and writing them to a directory.

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::file::{self, Readers};

/// A file for a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFile {
    /// Where it goes, relative to `/` or `C:\`, with slashes.
    pub path: String,
    /// What is in it.
    pub text: String,
}

impl NodeFile {
    pub(super) fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into() }
    }
}

/// Why files could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteFilesError {
    /// Files of another kind could be copied to nodes together with the new ones.
    #[error(
        "{0} is not empty; give a new or an empty directory, so that nothing but these files gets to the nodes"
    )]
    NotEmpty(PathBuf),
    /// The disk, or the permissions on it. The message names the file.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Writes `files` below `directory`, which is made if it is not there.
pub fn write(directory: &Path, files: &[NodeFile]) -> Result<(), WriteFilesError> {
    fs::create_dir_all(directory)?;
    if fs::read_dir(directory)?.next().is_some() {
        return Err(WriteFilesError::NotEmpty(directory.to_owned()));
    }
    for node_file in files {
        let path = directory.join(&node_file.path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        file::create_new(&path, node_file.text.as_bytes(), Readers::Usual)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    }
    Ok(())
}
