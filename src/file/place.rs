//! Where output goes: what a path names, whether it can be written, and which files must not be overwritten.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};

use super::parent;

/// The most symbolic links that are followed, as in the Linux kernel.
const MAX_LINKS: usize = 40;

/// What the path of an output names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A regular file, or a free name in a directory that can be written. Symbolic links are resolved.
    File(PathBuf),
    /// Something that takes bytes one after another: a character device, a FIFO, or an open file of a process.
    Stream(PathBuf),
    /// The standard output of this process.
    Stdout,
    /// A directory.
    Directory(PathBuf),
}

/// Why nothing can be written to a path.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// There is no directory for the file.
    #[error("{}: there is no directory {}", path.display(), directory.display())]
    NoDirectory {
        /// The output.
        path: PathBuf,
        /// The directory that is missing.
        directory: PathBuf,
    },
    /// The file or its directory is protected.
    #[error("{}: cannot write {}: {source}", path.display(), denied.display())]
    Denied {
        /// The output.
        path: PathBuf,
        /// The file or the directory that cannot be written.
        denied: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The path names something that holds no output.
    #[error("{} is {what}", path.display())]
    Unsuitable {
        /// The output.
        path: PathBuf,
        /// What it is, with an article.
        what: &'static str,
    },
    /// The output is read by the same command.
    #[error("{} would be overwritten, but it is also an input{}", path.display(), also(path, input))]
    Input {
        /// The output.
        path: PathBuf,
        /// The same file under its name as an input.
        input: PathBuf,
    },
    /// The path cannot be looked at.
    #[error("{}: {source}", path.display())]
    Io {
        /// The output.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn also(path: &Path, input: &Path) -> String {
    if path == input { String::new() } else { format!(": it is the same file as {}", input.display()) }
}

impl Place {
    /// Examines what `path` names and whether it can be written. Nothing is changed.
    pub fn examine(path: &Path) -> Result<Self, PlaceError> {
        let io = |source| PlaceError::Io { path: path.to_owned(), source };
        let real = resolve(path).map_err(io)?;
        if let Some(number) = own_descriptor(&real) {
            return examine_descriptor(path, real, number);
        }
        // Through the links once more: the system may forbid to follow one that somebody else made.
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Ok(Self::Directory(real)),
            Ok(metadata) if metadata.is_file() && is_descriptor(&real) => Ok(Self::Stream(real)),
            Ok(metadata) if metadata.is_file() => {
                check_writable(path, &real)?;
                check_directory(path, &real, Some(&metadata))?;
                Ok(Self::File(real))
            }
            Ok(metadata) => match obstacle(&metadata) {
                None => {
                    check_writable(path, &real)?;
                    Ok(Self::Stream(real))
                }
                Some(what) => Err(PlaceError::Unsuitable { path: path.to_owned(), what }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if ends_with_separator(&real) {
                    return Err(PlaceError::NoDirectory { path: path.to_owned(), directory: real });
                }
                check_directory(path, &real, None)?;
                Ok(Self::File(real))
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                let directory = if ends_with_separator(&real) { &real } else { parent(&real) };
                Err(PlaceError::NoDirectory { path: path.to_owned(), directory: directory.to_owned() })
            }
            Err(error) => Err(io(error)),
        }
    }
}

/// Examines a directory that may not be there yet and can be made, with those above it.
pub fn examine_directory(path: &Path) -> Result<(), PlaceError> {
    let mut folder = path;
    loop {
        match std::fs::metadata(folder) {
            Ok(metadata) if metadata.is_dir() => return probe(path, folder, None),
            Ok(_) if folder == path => {
                return Err(PlaceError::Unsuitable { path: path.to_owned(), what: "not a directory" });
            }
            Ok(_) => {
                let directory = folder.to_owned();
                return Err(PlaceError::NoDirectory { path: path.to_owned(), directory });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && !folder.is_symlink() => {
                let above = parent(folder);
                if above == folder {
                    return Err(PlaceError::NoDirectory {
                        path: path.to_owned(),
                        directory: folder.to_owned(),
                    });
                }
                folder = above;
            }
            Err(source) => return Err(PlaceError::Io { path: folder.to_owned(), source }),
        }
    }
}

/// Makes sure that `path`, a name that was derived from another, is free or a regular file. It is never followed.
pub fn check_derived(path: &Path) -> Result<(), PlaceError> {
    let unsuitable = |what| Err(PlaceError::Unsuitable { path: path.to_owned(), what });
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(metadata) if metadata.is_symlink() => unsuitable("a symbolic link"),
        Ok(metadata) if metadata.is_dir() => unsuitable("a directory"),
        Ok(metadata) => unsuitable(obstacle(&metadata).unwrap_or("a device or a FIFO")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(PlaceError::Io { path: path.to_owned(), source }),
    }
}

/// Follows the symbolic links at the end of `path` to the name that stands for the file, whether there is one or not.
/// Open files of processes, as below `/proc/self/fd`, have no other name.
pub fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        if is_descriptor(&path) || !path.is_symlink() {
            return Ok(path);
        }
        let target = std::fs::read_link(&path)?;
        path = parent(&path).join(target);
    }
    Err(io::Error::other("too many levels of symbolic links"))
}

/// Which file something is, under whatever name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileId(Identity);

#[cfg(unix)]
type Identity = (u64, u64);
/// Hard links to one file cannot be told from several files.
#[cfg(not(unix))]
type Identity = PathBuf;

impl FileId {
    /// The file at `path`; `None` if there is none that can be looked at.
    pub fn of(path: &Path) -> Option<Self> {
        #[cfg(unix)]
        return std::fs::metadata(path).ok().map(|metadata| Self::of_metadata(&metadata));
        #[cfg(not(unix))]
        return std::fs::canonicalize(path).ok().map(Self);
    }

    #[cfg(unix)]
    pub(super) fn of_metadata(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        Self((metadata.dev(), metadata.ino()))
    }
}

/// Whether `one` and `other` are the same file, or would be if they were there.
pub fn is_same(one: &Path, other: &Path) -> bool {
    match (FileId::of(one), FileId::of(other)) {
        (Some(one), Some(other)) => one == other,
        (None, None) => matches!((real_path(one), real_path(other)), (Ok(one), Ok(other)) if one == other),
        _ => false,
    }
}

/// Files that a command reads, none of which it may overwrite.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    files: BTreeMap<FileId, PathBuf>,
    /// Directories in which nothing may be written, as they are called and as they really are.
    closed: Vec<(PathBuf, PathBuf)>,
}

impl Inputs {
    /// Adds the file at `path`; nothing if there is none, or a directory.
    pub fn add(&mut self, path: &Path) {
        if let Some(id) = FileId::of(path)
            && path.is_file()
        {
            self.files.entry(id).or_insert_with(|| path.to_owned());
        }
    }

    /// Adds everything below `directory`, which need not be there yet: nothing may be written there.
    pub fn add_closed(&mut self, directory: &Path) {
        if let Ok(real) = real_path(directory) {
            self.closed.push((directory.to_owned(), real));
        }
    }

    /// Fails if what would be written at `path` is one of these files, or lies in a closed directory.
    pub fn check(&self, path: &Path) -> Result<(), PlaceError> {
        let input = FileId::of(path).and_then(|id| self.files.get(&id));
        if let Some(input) = input {
            return Err(PlaceError::Input { path: path.to_owned(), input: input.clone() });
        }
        if !self.closed.is_empty() {
            let real = real_path(path).map_err(|source| PlaceError::Io { path: path.to_owned(), source })?;
            if let Some((name, _)) = self.closed.iter().find(|(_, closed)| real.starts_with(closed)) {
                return Err(PlaceError::Input { path: path.to_owned(), input: name.clone() });
            }
        }
        Ok(())
    }
}

/// The path without links, `.` and `..`, whether its last parts are there or not.
fn real_path(path: &Path) -> io::Result<PathBuf> {
    match std::fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match path.file_name() {
            Some(name) => Ok(real_path(parent(path))?.join(name)),
            None => Err(error),
        },
        real => real,
    }
}

/// Returns why nothing can be written in one pass to what is neither a regular file nor a directory nor a link, with an
/// article; `None` if it can.
#[cfg(unix)]
fn obstacle(metadata: &Metadata) -> Option<&'static str> {
    use std::os::unix::fs::FileTypeExt as _;
    let kind = metadata.file_type();
    if kind.is_char_device() || kind.is_fifo() {
        None
    } else if kind.is_block_device() {
        Some("a block device")
    } else if kind.is_socket() {
        Some("a socket")
    } else {
        Some("not a regular file")
    }
}

#[cfg(not(unix))]
fn obstacle(_metadata: &Metadata) -> Option<&'static str> {
    Some("not a regular file")
}

/// Whether the path names an open file of a process: `/proc/self/fd/1`, or `/dev/fd/1`, which leads there.
fn is_descriptor(path: &Path) -> bool {
    cfg!(unix) && descriptor_in(path).is_some()
}

/// The number of an open file, and the real directory that it is listed in.
fn descriptor_in(path: &Path) -> Option<(PathBuf, u32)> {
    let number = path.file_name()?.to_str()?.parse().ok()?;
    let directory = std::fs::canonicalize(parent(path)).ok()?;
    let listed = directory == Path::new("/dev/fd")
        || (directory.starts_with("/proc") && directory.file_name().is_some_and(|name| name == "fd"));
    listed.then_some((directory, number))
}

/// The number of an open file of this process that `path` names.
fn own_descriptor(path: &Path) -> Option<u32> {
    if !cfg!(unix) {
        return None;
    }
    let (directory, number) = descriptor_in(path)?;
    let own = directory == Path::new("/dev/fd")
        || ["/proc/self/fd", "/proc/thread-self/fd"]
            .iter()
            .any(|own| std::fs::canonicalize(own).is_ok_and(|own| own == directory));
    own.then_some(number)
}

fn examine_descriptor(path: &Path, real: PathBuf, number: u32) -> Result<Place, PlaceError> {
    let unsuitable = |what| Err(PlaceError::Unsuitable { path: path.to_owned(), what });
    if number == 1 {
        return Ok(Place::Stdout);
    }
    match std::fs::metadata(&real) {
        Ok(metadata) if metadata.is_dir() => unsuitable("an open directory"),
        Ok(metadata) if metadata.is_file() => Ok(Place::Stream(real)),
        Ok(metadata) => obstacle(&metadata).map_or(Ok(Place::Stream(real)), unsuitable),
        Err(error) if error.kind() == io::ErrorKind::NotFound => unsuitable("not an open file"),
        Err(source) => Err(PlaceError::Io { path: path.to_owned(), source }),
    }
}

fn ends_with_separator(path: &Path) -> bool {
    path.as_os_str().to_string_lossy().ends_with(std::path::is_separator) || path.file_name().is_none()
}

/// Makes sure that this process may write what is there.
fn check_writable(path: &Path, real: &Path) -> Result<(), PlaceError> {
    let denied = |source| PlaceError::Denied { path: path.to_owned(), denied: real.to_owned(), source };
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{Access, AtFlags, CWD, accessat};
        accessat(CWD, real, Access::WRITE_OK, AtFlags::EACCESS).map_err(|error| denied(error.into()))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let metadata = std::fs::metadata(real).map_err(denied)?;
        if metadata.permissions().readonly() {
            return Err(denied(io::ErrorKind::PermissionDenied.into()));
        }
        Ok(())
    }
}

/// Makes sure that another file can take the place of the one at `path`, if there is one.
pub fn check_replaceable(path: &Path) -> Result<(), PlaceError> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
        // Linux 5.8 and later tell; before, the rename fails.
        let mounted = statx(CWD, path, AtFlags::empty(), StatxFlags::empty())
            .is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
        if mounted {
            let what = "a file that is mounted by itself; it cannot be replaced";
            return Err(PlaceError::Unsuitable { path: path.to_owned(), what });
        }
    }
    let _ = path;
    Ok(())
}

/// Makes sure that a file can be made, and the one that `replaced` is of be replaced, in the directory of `real`.
fn check_directory(path: &Path, real: &Path, replaced: Option<&Metadata>) -> Result<(), PlaceError> {
    let directory = parent(real);
    match std::fs::metadata(directory) {
        Ok(metadata) if metadata.is_dir() => probe(path, directory, replaced),
        Ok(_) => Err(PlaceError::NoDirectory { path: path.to_owned(), directory: directory.to_owned() }),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(PlaceError::NoDirectory { path: path.to_owned(), directory: directory.to_owned() })
        }
        Err(source) => {
            Err(PlaceError::Denied { path: path.to_owned(), denied: directory.to_owned(), source })
        }
    }
}

/// Makes a file without a name in `directory`, as nothing else shows that one can be made there.
fn probe(path: &Path, directory: &Path, replaced: Option<&Metadata>) -> Result<(), PlaceError> {
    let denied = |source| PlaceError::Denied { path: path.to_owned(), denied: directory.to_owned(), source };
    // The error names a file that nobody knows.
    let file = tempfile::tempfile_in(directory).map_err(|error| denied(error.kind().into()))?;
    #[cfg(unix)]
    if let Some(replaced) = replaced {
        use std::os::unix::fs::MetadataExt as _;
        /// `S_ISVTX`: files can be replaced only by their owners, as in `/tmp`.
        const STICKY: u32 = 0o1000;
        let (made, folder) =
            (file.metadata().map_err(denied)?, std::fs::metadata(directory).map_err(denied)?);
        let foreign = made.uid() != 0 && ![replaced.uid(), folder.uid()].contains(&made.uid());
        if folder.mode() & STICKY != 0 && foreign {
            return Err(denied(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the file belongs to another user",
            )));
        }
    }
    #[cfg(not(unix))]
    let _ = (file, replaced);
    Ok(())
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_resolved_whether_their_target_is_there_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("stick")).unwrap();
        symlink("stick/new", path("dangling")).unwrap();
        symlink("dangling", path("twice")).unwrap();
        symlink("loop", path("loop")).unwrap();
        symlink("nowhere/new", path("lost")).unwrap();
        assert_eq!(Place::examine(&path("twice")).unwrap(), Place::File(path("stick/new")));
        std::fs::write(path("stick/new"), "").unwrap();
        assert_eq!(Place::examine(&path("twice")).unwrap(), Place::File(path("stick/new")));
        assert!(matches!(Place::examine(&path("loop")), Err(PlaceError::Io { .. })));
        assert!(matches!(Place::examine(&path("lost")), Err(PlaceError::NoDirectory { .. })));
    }

    #[test]
    fn open_files_are_streams() {
        assert_eq!(Place::examine(Path::new("/dev/stdout")).unwrap(), Place::Stdout);
        assert_eq!(Place::examine(Path::new("/dev/fd/1")).unwrap(), Place::Stdout);
        assert!(matches!(Place::examine(Path::new("/dev/fd/9999")), Err(PlaceError::Unsuitable { .. })));
        assert_eq!(Place::examine(Path::new("/dev/null")).unwrap(), Place::Stream("/dev/null".into()));
    }

    #[test]
    fn names_that_cannot_be_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        std::fs::write(path("file"), "").unwrap();
        assert!(matches!(Place::examine(&path("socket")), Err(PlaceError::Unsuitable { .. })));
        for name in ["new/", "no/file", "no/..", "file/x", "file/x/y"] {
            let error = Place::examine(&path(name)).unwrap_err();
            assert!(matches!(error, PlaceError::NoDirectory { .. }), "{name}: {error}");
        }
        assert_eq!(Place::examine(folder.path()).unwrap(), Place::Directory(folder.path().to_owned()));
    }

    #[test]
    fn an_input_is_known_under_every_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("input"), "").unwrap();
        std::fs::hard_link(path("input"), path("hard")).unwrap();
        symlink("input", path("soft")).unwrap();
        let mut inputs = Inputs::default();
        inputs.add(&path("soft"));
        inputs.add(&path("absent"));
        for name in ["input", "hard", "soft", "./input", "../input"] {
            let name = if name.starts_with("..") {
                folder.path().join("..").join(folder.path().file_name().unwrap()).join("input")
            } else {
                path(name)
            };
            assert!(matches!(inputs.check(&name), Err(PlaceError::Input { .. })), "{}", name.display());
        }
        inputs.check(&path("other")).unwrap();
        inputs.check(&path("absent")).unwrap();
    }

    #[test]
    fn nothing_is_written_below_a_closed_directory() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(path("store/blobs")).unwrap();
        symlink("store", path("link")).unwrap();
        let mut inputs = Inputs::default();
        inputs.add_closed(&path("store"));
        inputs.add_closed(&path("later"));
        for name in ["store", "store/x", "store/blobs/y", "link/x", "store/new/x", "later/x", "later"] {
            assert!(inputs.check(&path(name)).is_err(), "{name}");
        }
        inputs.check(&path("stores")).unwrap();
    }

    #[test]
    fn directories_are_examined_before_they_are_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("file"), "").unwrap();
        symlink("nowhere", path("dangling")).unwrap();
        examine_directory(folder.path()).unwrap();
        examine_directory(&path("a/b/c")).unwrap();
        assert!(!path("a").exists());
        assert!(examine_directory(&path("file")).is_err());
        assert!(examine_directory(&path("file/a")).is_err());
        assert!(examine_directory(&path("dangling")).is_err());
    }
}
