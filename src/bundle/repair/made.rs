//! Files that are made again, and get their names when they have been checked.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::found::Target;
use super::{CHUNK, RepairError};
use crate::bundle::unfinished::{Frame, with_suffix};
use crate::bundle::volume::Blocks;
use crate::file;

/// The files that a repair is making, for whoever interrupts it to take them away.
#[derive(Debug, Default)]
pub struct Making(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    unnamed: BTreeSet<PathBuf>,
    given_up: bool,
}

impl Making {
    /// Removes what has not got its name. From here on the repair makes nothing more, and gives nothing a name.
    pub fn give_up(&self) {
        // The lock is kept: nobody may begin a file while others are removed.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.given_up = true;
        for path in std::mem::take(&mut state.unnamed) {
            // Whoever interrupts has no use for a reason why something is left; the next repair uses it again.
            let _ = std::fs::remove_file(path);
        }
    }

    /// The error that says why a repair ended: `error`, unless it was given up.
    pub(super) fn unless_given_up(&self, error: RepairError) -> RepairError {
        self.state().err().unwrap_or(error)
    }

    fn state(&self) -> Result<MutexGuard<'_, State>, RepairError> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.given_up { Err(RepairError::GivenUp) } else { Ok(state) }
    }
}

/// What a file is called until it has been checked.
fn unnamed(path: &Path) -> PathBuf {
    with_suffix(path, ".repair")
}

/// Removes what a repair that was killed left of the file at `path`.
pub(super) fn remove_left(path: &Path) {
    let left = unnamed(path);
    if file::open_left(&left, OpenOptions::new().read(true)).is_ok_and(|file| file.try_lock().is_ok()) {
        // It is in nobody's way, and the next file that is made here takes its place.
        let _ = std::fs::remove_file(left);
    }
}

/// A file that is made again, removed unless it gets its name.
pub(super) struct Made<'a> {
    making: &'a Making,
    /// What it is called in the end.
    pub(super) path: PathBuf,
    pub(super) file: Arc<File>,
    len: u64,
    named: bool,
}

impl<'a> Made<'a> {
    /// Begins the file that is to be called `path`, with what stands around its part.
    pub(super) fn begin(making: &'a Making, path: PathBuf, frame: &Frame) -> Result<Self, RepairError> {
        let len = frame.last().map_or(0, |(at, bytes)| at + bytes.len() as u64);
        let mut state = making.state()?;
        let file = file::open_own(&unnamed(&path), OpenOptions::new().read(true).write(true));
        let file = file.map_err(|source| failed(&path, len, source))?;
        if file.try_lock().is_err() {
            return Err(RepairError::Busy { path });
        }
        state.unnamed.insert(unnamed(&path));
        drop(state);
        let made = Self { making, path, file: Arc::new(file), len, named: false };
        made.file.set_len(0).map_err(|source| made.failed(source))?;
        file::reserve(&made.file, len).map_err(|source| made.failed(source))?;
        for (at, bytes) in frame {
            file::write_all_at(&made.file, bytes, *at).map_err(|source| made.failed(source))?;
        }
        Ok(made)
    }

    /// Begins `target` with all that is good of it.
    pub(super) fn of_target(
        making: &'a Making,
        target: &Target,
        frame: &Frame,
        lost: &[u64],
        blocks: Blocks,
    ) -> Result<Self, RepairError> {
        let made = Self::begin(making, target.path.clone(), frame)?;
        let Some((source, _)) = &target.file else { return Ok(made) };
        let (start, end) = (target.slice.offset, target.slice.offset + target.slice.len);
        let mut buffer = vec![0; CHUNK];
        for nth in start.div_ceil(blocks.size)..end.div_ceil(blocks.size) {
            if lost.binary_search(&nth).is_ok() {
                continue;
            }
            let (offset, len) = blocks.place(nth);
            copy(source, &made.file, offset - start + target.skipped, len, &mut buffer)
                .map_err(|source| made.failed(source))?;
        }
        Ok(made)
    }

    /// Where it is until it has its name.
    pub(super) fn unnamed(&self) -> PathBuf {
        unnamed(&self.path)
    }

    pub(super) fn failed(&self, source: io::Error) -> RepairError {
        failed(&self.path, self.len, source)
    }

    pub(super) fn sync(&self) -> Result<(), RepairError> {
        self.file.sync_all().map_err(|source| self.failed(source))
    }

    /// Gives the file its name, and says what that is.
    pub(super) fn name(mut self) -> Result<PathBuf, RepairError> {
        let io = |source| RepairError::Io { path: self.path.clone(), source };
        let mut state = self.making.state()?;
        std::fs::rename(self.unnamed(), &self.path).map_err(io)?;
        state.unnamed.remove(&self.unnamed());
        drop(state);
        file::sync_parent(&self.path).map_err(io)?;
        self.named = true;
        Ok(self.path.clone())
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        let Ok(mut state) = self.making.state() else { return };
        if !self.named && state.unnamed.remove(&self.unnamed()) {
            // Whoever fails says why; that it cannot tidy up as well helps nobody.
            let _ = std::fs::remove_file(self.unnamed());
        }
    }
}

fn failed(path: &Path, needed: u64, source: io::Error) -> RepairError {
    let path = unnamed(path);
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => RepairError::Full { path, needed },
        _ => RepairError::Io { path, source },
    }
}

fn copy(from: &File, to: &File, at: u64, len: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < len {
        let wanted = usize::try_from(len - done).map_or(buffer.len(), |left| left.min(buffer.len()));
        file::read_exact_at(from, &mut buffer[..wanted], at + done)?;
        file::write_all_at(to, &buffer[..wanted], at + done)?;
        done += wanted as u64;
    }
    Ok(())
}
