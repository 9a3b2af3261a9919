//! Files that are there as a whole or not at all, also after a loss of power.
//!
//! The order is always: write under another name, `fsync`, rename, `fsync` of the directory.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::place::check_derived;
use super::{parent, sync_parent};

/// Who may read a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Those that the umask of the process lets, or that could read the file that is replaced.
    Usual,
    /// The owner only.
    Owner,
}

/// A file that is written next to another and then takes its place. Dropping it removes it.
#[derive(Debug)]
pub struct Replacement {
    file: NamedTempFile,
    destination: PathBuf,
    #[cfg(unix)]
    readers: Readers,
}

impl Replacement {
    /// Begins a file that is to be called `destination`. A symbolic link of that name is not followed.
    pub fn begin(destination: &Path, readers: Readers) -> io::Result<Self> {
        Self::begin_as(tempfile::Builder::new().prefix(".dray-"), destination, readers)
    }

    /// Begins a file that `builder` gives its first name.
    #[cfg_attr(not(unix), expect(unused_variables, reason = "there are no permission bits to set elsewhere"))]
    fn begin_as(
        builder: &mut tempfile::Builder<'_, '_>,
        destination: &Path,
        readers: Readers,
    ) -> io::Result<Self> {
        check_derived(destination).map_err(io::Error::other)?;
        #[cfg(unix)]
        if readers == Readers::Usual {
            use std::os::unix::fs::PermissionsExt as _;
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        // The error names a file that nobody knows.
        let file = builder.tempfile_in(parent(destination)).map_err(|error| io::Error::from(error.kind()))?;
        Ok(Self {
            file,
            destination: destination.to_owned(),
            #[cfg(unix)]
            readers,
        })
    }

    /// The file, to be written.
    pub fn file(&mut self) -> &mut File {
        self.file.as_file_mut()
    }

    /// Makes the file durable and gives it its name.
    pub fn finish(self) -> io::Result<()> {
        #[cfg(unix)]
        self.resemble()?;
        self.file.as_file().sync_all()?;
        self.file.persist(&self.destination).map_err(|error| error.error)?;
        sync_parent(&self.destination)
    }

    /// Takes over who may use the file that is replaced.
    ///
    /// Its owner is kept only if the directory is the owner's too: in a directory that everybody writes to, anybody
    /// may have put the file there.
    #[cfg(unix)]
    fn resemble(&self) -> io::Result<()> {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
        let Ok(replaced) = std::fs::symlink_metadata(&self.destination) else { return Ok(()) };
        let file = self.file.as_file();
        let (made, folder) = (file.metadata()?, std::fs::metadata(parent(&self.destination))?);
        if made.uid() != replaced.uid() && replaced.uid() == folder.uid() {
            // Only root can give files away; for everybody else it stays as it is.
            let _ = fchown(file, Some(replaced.uid()), Some(replaced.gid()));
        }
        if self.readers == Readers::Usual {
            file.set_permissions(std::fs::Permissions::from_mode(replaced.mode() & 0o777))?;
        }
        Ok(())
    }
}

/// Replaces `destination` by `bytes` as a whole, and returns when that is durable.
pub fn replace(destination: &Path, bytes: &[u8], readers: Readers) -> io::Result<()> {
    let mut replacement = Replacement::begin(destination, readers)?;
    replacement.file().write_all(bytes)?;
    replacement.finish()
}

/// Replaces `destination` like [`replace`], and calls the new file `aside` until then, in the same directory: what a run that
/// is killed leaves there is removed by the next.
pub(crate) fn replace_through(aside: &Path, destination: &Path, bytes: &[u8]) -> io::Result<()> {
    match open_left(aside, OpenOptions::new().read(true)) {
        Ok(_) => std::fs::remove_file(aside)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let name = aside.file_name().unwrap_or_default();
    let mut builder = tempfile::Builder::new();
    builder.prefix(name).rand_bytes(0);
    let mut replacement = Replacement::begin_as(&mut builder, destination, Readers::Usual)?;
    replacement.file().write_all(bytes)?;
    replacement.finish()
}

/// Writes a file that must not be there yet, and returns when that is durable.
pub fn create_new(path: &Path, bytes: &[u8], readers: Readers) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if readers == Readers::Owner {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    #[cfg(not(unix))]
    let _ = readers;
    let mut file = options.open(path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    drop(file);
    if let Err(error) = written.and_then(|()| sync_parent(path)) {
        // Half a file would be in the way of the next try.
        let _ = std::fs::remove_file(path);
        return Err(error);
    }
    Ok(())
}

/// Makes a file of dray's own, or opens the one that an earlier run left. A link is never followed, and nothing is
/// opened but a regular file that has no other name.
pub(crate) fn open_own(path: &Path, options: &OpenOptions) -> io::Result<File> {
    match options.clone().create_new(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => open_left(path, options),
        made => made,
    }
}

/// Opens a file that an earlier run of dray left, under the conditions of [`open_own`].
pub(crate) fn open_left(path: &Path, options: &OpenOptions) -> io::Result<File> {
    let foreign = |what: &str| {
        let text = format!("it is {what}, and dray makes a file of this name itself; move it away");
        Err(io::Error::new(io::ErrorKind::AlreadyExists, text))
    };
    // Opening may already do something to a device or wait for the other end of a FIFO.
    let named = std::fs::symlink_metadata(path)?;
    if named.is_symlink() {
        return foreign("a symbolic link");
    }
    if !named.is_file() {
        return foreign("not a regular file");
    }
    let mut options = options.clone();
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt as _;
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        options.custom_flags(flags.bits().cast_signed());
    }
    #[cfg(windows)]
    {
        use std::os::windows::fs::OpenOptionsExt as _;
        /// Opens a link instead of what it leads to.
        const FILE_FLAG_OPEN_REPARSE_POINT: u32 = 0x0020_0000;
        options.custom_flags(FILE_FLAG_OPEN_REPARSE_POINT);
    }
    let file = options.open(path)?;
    let opened = file.metadata()?;
    if !opened.is_file() {
        return foreign("not a regular file");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        if opened.nlink() > 1 {
            return foreign("a file that has another name as well");
        }
    }
    Ok(file)
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_replacement_keeps_the_mode_and_a_secret_has_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let (old, secret) = (path("old"), path("secret"));
        for path in [&old, &secret] {
            std::fs::write(path, "old").unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o640)).unwrap();
        }
        replace(&old, b"new", Readers::Usual).unwrap();
        replace(&secret, b"new", Readers::Owner).unwrap();
        assert_eq!((mode(&old), mode(&secret)), (0o640, 0o600));
        assert_eq!(std::fs::read(&old).unwrap(), b"new");
        replace(&path("fresh"), b"new", Readers::Usual).unwrap();
        std::fs::write(path("reference"), "").unwrap();
        assert_eq!(mode(&path("fresh")), mode(&path("reference")), "as the umask says");
        create_new(&path("key"), b"key", Readers::Owner).unwrap();
        assert_eq!(mode(&path("key")), 0o600);
    }

    #[test]
    fn nothing_but_a_regular_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("target"), "old").unwrap();
        symlink("target", path("link")).unwrap();
        symlink("nowhere", path("dangling")).unwrap();
        std::fs::create_dir(path("folder")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        for name in ["link", "dangling", "folder", "socket"] {
            let before = std::fs::symlink_metadata(path(name)).unwrap().file_type();
            assert!(replace(&path(name), b"new", Readers::Usual).is_err(), "{name}");
            assert!(create_new(&path(name), b"new", Readers::Usual).is_err(), "{name}");
            assert_eq!(std::fs::symlink_metadata(path(name)).unwrap().file_type(), before);
        }
        assert_eq!(std::fs::read(path("target")).unwrap(), b"old");
        assert!(!path("nowhere").exists());
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 5, "a temporary file is left");
    }

    #[test]
    fn a_file_of_its_own_is_made_or_continued() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        open_own(&path("own"), &options).unwrap().write_all(b"half").unwrap();
        assert_eq!(io::read_to_string(open_own(&path("own"), &options).unwrap()).unwrap(), "half");

        std::fs::write(path("victim"), "precious").unwrap();
        symlink("victim", path("soft")).unwrap();
        symlink("nowhere", path("dangling")).unwrap();
        std::fs::hard_link(path("victim"), path("hard")).unwrap();
        for name in ["soft", "dangling", "hard"] {
            assert!(open_own(&path(name), &options).is_err(), "{name}");
        }
        assert!(!path("nowhere").exists());
    }
}
