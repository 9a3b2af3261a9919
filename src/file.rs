//! Files as every system has them: where output goes, replacing a file as a whole, reading and writing at a position, and
//! reserving space.

mod place;
mod replace;
mod span;

use std::fs::File;
use std::io;
use std::path::Path;

pub use place::{
    FileId, Inputs, Place, PlaceError, check_derived, check_replaceable, examine_directory, is_same, resolve,
};
pub use replace::{Readers, Replacement, create_new, replace};
pub(crate) use replace::{open_left, open_own, replace_through};
pub(crate) use span::{Span, Stretch};

/// Returns the directory that `path` is in: `.` for a bare name.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        // The root has none above it.
        None => path,
    }
}

/// Reads up to `buffer.len()` bytes at `position`; 0 at the end of the file.
pub(crate) fn read_at(file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_at(file, buffer, position);
    #[cfg(windows)]
    return std::os::windows::fs::FileExt::seek_read(file, buffer, position);
}

/// Like [`read_at`], but only what is in memory: none where the disk would have to be waited for, and where there is no
/// telling.
pub(crate) fn read_at_once(file: &File, buffer: &mut [u8], position: u64) -> io::Result<Option<usize>> {
    #[cfg(target_os = "linux")]
    {
        use rustix::io::{Errno, ReadWriteFlags, preadv2};
        let mut buffers = [io::IoSliceMut::new(buffer)];
        match preadv2(file, &mut buffers, position, ReadWriteFlags::NOWAIT) {
            Ok(read) => Ok(Some(read)),
            Err(Errno::AGAIN | Errno::INTR | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (file, buffer, position);
        Ok(None)
    }
}

/// Fills `buffer` from `position` on; an early end of the file is an error.
pub(crate) fn read_exact_at(file: &File, buffer: &mut [u8], position: u64) -> io::Result<()> {
    match read_up_to_at(file, buffer, position)? {
        read if read == buffer.len() => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Fills `buffer` from `position` on, or as much of it as there is, and says how much that was.
pub(crate) fn read_up_to_at(file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match read_at(file, &mut buffer[filled..], position + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Writes all of `buffer` at `position`.
pub(crate) fn write_all_at(file: &File, buffer: &[u8], position: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::write_all_at(file, buffer, position);
    #[cfg(windows)]
    {
        let mut written = 0;
        while written < buffer.len() {
            let position = position + written as u64;
            match std::os::windows::fs::FileExt::seek_write(file, &buffer[written..], position)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => written += count,
            }
        }
        Ok(())
    }
}

/// Makes `file` `size` bytes long and reserves the space, so that a full disk shows before the work and not after it.
///
/// What is new in the file reads as zeros. File systems that cannot reserve only set the length.
pub(crate) fn reserve(file: &File, size: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        match fallocate(file, FallocateFlags::empty(), 0, size) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    file.set_len(size)
}

/// Makes a rename or a new name in the folder of `path` survive a loss of power.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(parent(path))?.sync_all()?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Whether `path` still names the open `file`.
pub(crate) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    #[cfg(unix)]
    match std::fs::metadata(path) {
        Ok(named) => Ok(FileId::of_metadata(&named) == FileId::of_metadata(&file.metadata()?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
    // Elsewhere an open and locked file cannot be renamed.
    #[cfg(not(unix))]
    {
        let _ = (file, path);
        Ok(true)
    }
}
