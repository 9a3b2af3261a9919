//! Files that are there as a whole or not at all, also after a power failure.
//!
//! The order is always: write under another name, `fsync`, rename, `fsync` of the directory.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::Serialize;
use tempfile::{NamedTempFile, TempPath};

/// Replaces `destination` by `value` as JSON and returns when that is durable. `temporary` is on the same file system.
pub(super) fn write_json<T: Serialize>(temporary: &Path, destination: &Path, value: &T) -> io::Result<()> {
    let staged = stage(temporary, destination, &serde_json::to_vec(value)?)?;
    let mut dirty = Dirty::default();
    staged.sync()?;
    staged.place(&mut dirty)?;
    dirty.sync()
}

/// Replaces the file `destination` by `bytes` as a whole, and returns when that is durable.
pub fn write_file(destination: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = destination.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let staged = stage(directory, destination, bytes)?;
    let mut dirty = Dirty::default();
    staged.sync()?;
    staged.place(&mut dirty)?;
    dirty.sync()
}

/// Gives what was just made at `path` to the owner of the folder that it is in. Only root makes things in folders of others:
/// whoever imports as root into the store of a service leaves nothing there that the service cannot change. Where it cannot
/// be given away, it stays as it is.
#[cfg(unix)]
pub(super) fn adopt(path: &Path) {
    use std::os::unix::fs::{MetadataExt as _, chown};

    let Some(folder) = path.parent().and_then(|folder| folder.metadata().ok()) else { return };
    let Ok(made) = path.symlink_metadata() else { return };
    if made.uid() != folder.uid() {
        let _ = chown(path, Some(folder.uid()), Some(folder.gid()));
    }
}

/// Windows has rights that folders hand down.
#[cfg(not(unix))]
pub(super) fn adopt(_path: &Path) {}

/// A file in `directory` that is removed unless it gets a name. Who may read it is left to the process' umask, because
/// the one who imports need not be the one who serves.
pub(super) fn temporary_file(directory: &Path) -> io::Result<NamedTempFile> {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "there are no permission bits to set elsewhere"))]
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let file = builder.tempfile_in(directory)?;
    adopt(file.path());
    Ok(file)
}

/// Writes `bytes` to a temporary file that is to become `destination`.
pub(super) fn stage(temporary: &Path, destination: &Path, bytes: &[u8]) -> io::Result<Staged> {
    let mut file = temporary_file(temporary)?;
    file.write_all(bytes)?;
    Ok(Staged { file: file.into_temp_path(), destination: destination.to_owned() })
}

/// A written file that waits for its name. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Staged {
    file: TempPath,
    destination: PathBuf,
}

impl Staged {
    /// The name that the file will get.
    pub(super) fn destination(&self) -> &PathBuf {
        &self.destination
    }

    /// Makes the bytes durable; the name comes later.
    pub(super) fn sync(&self) -> io::Result<()> {
        sync_file(&self.file)
    }

    /// Gives the file its name.
    pub(super) fn place(self, dirty: &mut Dirty) -> io::Result<PathBuf> {
        dirty.create_parent(&self.destination)?;
        self.file.persist(&self.destination).map_err(|e| e.error)?;
        Ok(self.destination)
    }

    /// Gives the file its name, which no other file may have. The folder is there and is synced by the caller.
    pub(super) fn place_new(self) -> io::Result<()> {
        self.file.persist_noclobber(&self.destination).map_err(|e| e.error)
    }
}

/// Makes the bytes of a file durable.
pub(super) fn sync_file(path: &Path) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(path)?.sync_all()
}

/// Directories whose entries have changed and are not yet durable.
#[derive(Debug, Default)]
pub(super) struct Dirty(BTreeSet<PathBuf>);

impl Dirty {
    /// Makes sure that the directory of `path` exists, and notes that it is about to change.
    pub(super) fn create_parent(&mut self, path: &Path) -> io::Result<()> {
        let Some(parent) = path.parent() else { return Ok(()) };
        let mut missing = Vec::new();
        let mut folder = parent;
        while !folder.try_exists()? {
            let Some(above) = folder.parent() else { break };
            missing.push(folder);
            self.0.insert(above.to_owned());
            folder = above;
        }
        for folder in missing.into_iter().rev() {
            // Another process may have been quicker.
            fs::create_dir_all(folder)?;
            adopt(folder);
        }
        self.0.insert(parent.to_owned());
        Ok(())
    }

    /// Notes that an entry of `path`'s directory was removed.
    pub(super) fn changed(&mut self, path: &Path) {
        if let Some(parent) = path.parent() {
            self.0.insert(parent.to_owned());
        }
    }

    /// Takes over what `other` noted.
    pub(super) fn absorb(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// Makes all noted changes durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        while let Some(directory) = self.0.pop_first() {
            sync_directory(&directory)?;
        }
        Ok(())
    }
}

#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

/// Windows keeps directories consistent by itself and cannot open them as files.
#[cfg(not(unix))]
fn sync_directory(_path: &Path) -> io::Result<()> {
    Ok(())
}

/// Removes a file; that it is gone already is as good.
pub(super) fn remove(path: &Path, dirty: &mut Dirty) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => {
            dirty.changed(path);
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
