//! A file that is written once from front to back, past the page cache where the system allows it.
//!
//! Whoever writes gigabytes that must be durable waits for the disk in any case. Going through the page cache, every byte
//! is copied once more, and the write begins only when the system finds the time: importing a bundle of 1 GB takes twice
//! as long. It would also throw out of memory what the site's registry is serving at that moment.

use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use tempfile::{NamedTempFile, TempPath};

use super::durable::temporary_file;

/// What a direct write's place in the file, its place in memory and its length must be multiples of. Disks ask for 512 or
/// 4096 bytes.
const BLOCK: usize = 4096;

/// How much is written at a time.
const BUFFER: usize = 1024 * 1024;

/// A temporary file of a known size on its way to a name.
#[derive(Debug)]
pub(super) struct NewFile {
    file: NamedTempFile,
    /// Has room for the aligned buffer, which begins at `start`.
    memory: Vec<u8>,
    start: usize,
    capacity: usize,
    /// How much of the buffer waits to be written.
    filled: usize,
    /// How much has been written.
    written: u64,
    direct: bool,
}

impl NewFile {
    /// Begins a file in `directory` that will be about `size` bytes long.
    pub(super) fn create(directory: &Path, size: u64) -> io::Result<Self> {
        let file = temporary_file(directory)?;
        let capacity =
            usize::try_from(size).map_or(BUFFER, |size| size.clamp(1, BUFFER)).next_multiple_of(BLOCK);
        let memory = vec![0; capacity + BLOCK];
        let start = memory.as_ptr().align_offset(BLOCK);
        let direct = capacity == BUFFER && set_direct(&file, true).is_ok();
        Ok(Self { file, memory, start, capacity, filled: 0, written: 0, direct })
    }

    /// Where the next bytes may be put, which is never empty. What was put there counts after [`NewFile::advance`].
    pub(super) fn space(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..][self.filled..self.capacity]
    }

    /// Adds the first `count` bytes of [`NewFile::space`] to the file.
    pub(super) fn advance(&mut self, count: usize) -> io::Result<()> {
        self.filled += count;
        if self.filled == self.capacity { self.write_out() } else { Ok(()) }
    }

    /// Writes what is left, makes the file durable and returns it, which still goes away unless it gets a name.
    pub(super) fn finish(mut self) -> io::Result<(std::fs::File, TempPath)> {
        let size = self.written + self.filled as u64;
        if self.direct {
            // Only whole blocks can be written. What is too much is cut off again.
            let whole = self.filled.next_multiple_of(BLOCK);
            self.memory[self.start..][self.filled..whole].fill(0);
            self.filled = whole;
        }
        self.write_out()?;
        let (file, path) = self.file.into_parts();
        file.set_len(size).and_then(|()| file.sync_all()).map_err(|error| named(&error, &path))?;
        Ok((file, path))
    }

    fn write_out(&mut self) -> io::Result<()> {
        let bytes = &self.memory[self.start..][..self.filled];
        match self.file.write_all(bytes) {
            // Some file systems let the flag be set and refuse the write.
            Err(error) if self.direct && error.kind() == io::ErrorKind::InvalidInput => {
                set_direct(&self.file, false)?;
                self.direct = false;
                self.file.seek(SeekFrom::Start(self.written))?;
                self.file.write_all(bytes)?;
            }
            other => other?,
        }
        self.written += self.filled as u64;
        self.filled = 0;
        Ok(())
    }
}

fn named(error: &io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Turns writing past the page cache on or off.
#[cfg(target_os = "linux")]
fn set_direct(file: &NamedTempFile, direct: bool) -> io::Result<()> {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

    let mut flags = fcntl_getfl(file.as_file())?;
    flags.set(OFlags::DIRECT, direct);
    Ok(fcntl_setfl(file.as_file(), flags)?)
}

/// Other systems have other ways, which are not worth their code on the side where media is only looked at.
#[cfg(not(target_os = "linux"))]
fn set_direct(_file: &NamedTempFile, _direct: bool) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes `bytes` in pieces of `piece` into a directory and reads the file back.
    fn round_trip(directory: &Path, bytes: &[u8], piece: usize) -> Vec<u8> {
        let mut file = NewFile::create(directory, bytes.len() as u64).unwrap();
        let mut rest = bytes;
        while !rest.is_empty() {
            let space = file.space();
            let count = rest.len().min(piece).min(space.len());
            space[..count].copy_from_slice(&rest[..count]);
            file.advance(count).unwrap();
            rest = &rest[count..];
        }
        let (_, path) = file.finish().unwrap();
        std::fs::read(&path).unwrap()
    }

    fn numbered(length: usize) -> Vec<u8> {
        (0u32..).flat_map(u32::to_le_bytes).take(length).collect()
    }

    #[test]
    fn every_length_around_a_block_and_a_buffer_comes_out() {
        let directory = tempfile::tempdir().unwrap();
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, BUFFER - 1, BUFFER, BUFFER + 1, 3 * BUFFER + 511] {
            let bytes = numbered(length);
            for piece in [4097, BUFFER] {
                assert!(
                    round_trip(directory.path(), &bytes, piece) == bytes,
                    "{length} bytes in pieces of {piece}"
                );
            }
        }
    }

    #[test]
    fn a_size_that_was_too_small_is_no_limit() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = NewFile::create(directory.path(), 1).unwrap();
        for _ in 0..3 {
            let space = file.space();
            space.fill(7);
            let count = space.len();
            file.advance(count).unwrap();
        }
        let (_, path) = file.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), vec![7; 3 * BLOCK]);
    }

    #[test]
    fn what_is_not_finished_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = NewFile::create(directory.path(), 10).unwrap();
        file.advance(10).unwrap();
        drop(file);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_refused_direct_write_is_repeated() {
        let directory = tempfile::tempdir().unwrap();
        let bytes = numbered(2 * BUFFER);
        let mut file = NewFile::create(directory.path(), bytes.len() as u64).unwrap();
        // From memory that is not aligned, a direct write is refused with the error that counts.
        file.start += 1;
        for half in bytes.chunks(BUFFER) {
            file.space().copy_from_slice(half);
            file.advance(half.len()).unwrap();
        }
        assert!(!file.direct);
        let (_, path) = file.finish().unwrap();
        assert!(std::fs::read(&path).unwrap() == bytes);
    }
}
