//! The files of a bundle while it is built: one, or its volumes, and recovery files. Each is called `NAME.partial` until all is there.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::journal::{Journal, Progress};
use super::parity::parity_output;
use super::volume::{Slice, parse_path};
use super::write::BuildError;
use crate::file::{self, Inputs, PlaceError, Span};

/// A file that is to be written.
#[derive(Debug)]
pub(super) struct NewFile {
    /// What it is called in the end.
    pub(super) path: PathBuf,
    pub(super) len: u64,
    pub(super) part: Part,
}

/// What a file is for.
#[derive(Debug)]
pub(super) enum Part {
    /// A part of the bundle, behind so many bytes.
    Bundle(u64, Slice),
    /// So many bytes of recovery blocks, the second number, behind others.
    Recovery(u64, u64),
}

/// What stands around the part in a file: where, and which bytes. The last of a whole file ends it.
pub(super) type Frame = Vec<(u64, Vec<u8>)>;

/// Unfinished files, which belong to one builder at a time.
#[derive(Debug)]
pub(super) struct Unfinished {
    output: PathBuf,
    /// Locked as long as the build goes on. It is the bundle, where that is one file.
    lock_path: PathBuf,
    _lock: Arc<File>,
    journal: Journal,
    journal_path: PathBuf,
    files: Vec<Named>,
    bytes: Span,
    recovery: Span,
    size: u64,
}

/// An open file that waits for its name.
#[derive(Debug)]
struct Named {
    path: PathBuf,
    output: PathBuf,
    file: Arc<File>,
}

impl Unfinished {
    /// Opens the unfinished `files` of the bundle `output` and reserves all their space. What an earlier run of the same
    /// build left of them stays, and what it says that it did is given back; `identity` tells builds apart.
    /// Nothing but regular files is written or replaced, and none of `inputs`.
    pub(super) fn open(
        output: &Path,
        files: Vec<NewFile>,
        identity: &str,
        inputs: &Inputs,
    ) -> Result<(Self, Progress), BuildError> {
        check_unfinished(output, inputs)?;
        for file in &files {
            check_derived(&file.path, inputs)?;
            check_derived(&with_suffix(&file.path, ".partial"), inputs)?;
        }
        let [lock_path, journal_path] = unfinished_paths(output);
        let lock = Arc::new(lock_file(&lock_path, output)?);
        let (journal, claims) = Journal::open(&journal_path, identity)
            .map_err(|source| BuildError::Io { path: journal_path.clone(), source })?;
        let size = files.iter().map(|file| file.len).sum();
        let full = |source| write_error(&lock_path, size, source);
        if claims.is_none() {
            // What another lock left there must not show through.
            lock.set_len(0).map_err(full)?;
            remove_unfinished_volumes(output).map_err(full)?;
        }
        let claims = claims.unwrap_or_default();
        let (mut named, mut bytes, mut recovery) = (Vec::new(), Vec::new(), Vec::new());
        for NewFile { path: output_path, len, part } in files {
            let path = with_suffix(&output_path, ".partial");
            let failed = |source| write_error(&path, size, source);
            let file = if output_path == output {
                Arc::clone(&lock)
            } else {
                if claims.naming && !path.exists() && output_path.exists() {
                    // The run that gave it its name did not get to the others.
                    std::fs::rename(&output_path, &path).map_err(failed)?;
                }
                Arc::new(file::open_own(&path, &to_write()).map_err(failed)?)
            };
            file::reserve(&file, len).map_err(failed)?;
            match part {
                Part::Bundle(skipped, slice) => bytes.push(Span::new(Arc::clone(&file), skipped, slice.len)),
                Part::Recovery(skipped, len) => recovery.push(Span::new(Arc::clone(&file), skipped, len)),
            }
            named.push(Named { path, output: output_path, file });
        }
        let (bytes, recovery) = (Span::join(bytes), Span::join(recovery));
        let output = output.to_owned();
        let unfinished = Self {
            output,
            lock_path,
            _lock: lock,
            journal,
            journal_path,
            files: named,
            bytes,
            recovery,
            size,
        };
        Ok((unfinished, claims))
    }

    /// The bytes of the bundle.
    pub(super) fn bytes(&self) -> &Span {
        &self.bytes
    }

    /// The recovery blocks.
    pub(super) fn recovery(&self) -> &Span {
        &self.recovery
    }

    /// How many files there are.
    pub(super) fn count(&self) -> usize {
        self.files.len()
    }

    /// The bytes of all files together.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Writes at a position of the bundle.
    pub(super) fn write_all_at(&self, bytes: &[u8], position: u64) -> Result<(), BuildError> {
        self.bytes.write_all_at(bytes, position).map_err(|source| self.failed(source))
    }

    /// Notes how much of a blob is there.
    pub(super) fn note(&self, nth: usize, bytes: u64) -> Result<(), BuildError> {
        let noted = self.journal.note(nth, bytes);
        noted.map_err(|source| BuildError::Io { path: self.journal_path.clone(), source })
    }

    pub(super) fn failed(&self, source: io::Error) -> BuildError {
        write_error(&self.lock_path, self.size, source)
    }

    /// Writes what stands around the parts, `frames` for the first files, makes all durable, and gives the files their names.
    pub(super) fn finish(self, frames: impl IntoIterator<Item = Frame>) -> Result<Vec<PathBuf>, BuildError> {
        for (file, frame) in self.files.iter().zip(frames) {
            for (position, bytes) in frame {
                file::write_all_at(&file.file, &bytes, position)
                    .map_err(|source| write_error(&file.path, self.size, source))?;
            }
        }
        for file in &self.files {
            file.file.sync_all().map_err(|source| write_error(&file.path, self.size, source))?;
        }
        let several = self.files.len() > 1;
        if several {
            let noted = self.journal.note_naming();
            noted.map_err(|source| BuildError::Io { path: self.journal_path.clone(), source })?;
        }
        // The bundle itself comes last: while it has not its name, the build is not finished.
        for file in self.files.iter().rev() {
            let io = |source| BuildError::Io { path: file.path.clone(), source };
            std::fs::rename(&file.path, &file.output).map_err(io)?;
        }
        file::sync_parent(&self.output).map_err(|source| self.failed(source))?;
        remove(&self.journal_path)?;
        if self.files.iter().all(|file| file.path != self.lock_path) {
            remove(&self.lock_path)?;
        }
        Ok(self.files.into_iter().map(|file| file.output).collect())
    }
}

/// Makes sure that a build of `output` can keep its unfinished files: that their names are free or those of regular files,
/// and none of `inputs`.
pub fn check_unfinished(output: &Path, inputs: &Inputs) -> Result<(), PlaceError> {
    unfinished_paths(output).iter().try_for_each(|path| check_derived(path, inputs))
}

fn check_derived(path: &Path, inputs: &Inputs) -> Result<(), PlaceError> {
    file::check_derived(path)?;
    inputs.check(path)
}

/// What the unfinished bundle, or what stands for it, and the journal are called.
fn unfinished_paths(output: &Path) -> [PathBuf; 2] {
    [".partial", ".partial.journal"].map(|suffix| with_suffix(output, suffix))
}

/// How unfinished files are opened.
fn to_write() -> OpenOptions {
    OpenOptions::new().read(true).write(true).clone()
}

fn remove(path: &Path) -> Result<(), BuildError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(BuildError::Io { path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

/// Removes the unfinished volumes of a build of `output` that was given up.
fn remove_unfinished_volumes(output: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(file::parent(output))? {
        let path = output.with_file_name(entry?.file_name());
        let is_partial = path.extension().is_some_and(|extension| extension == "partial");
        let named = parse_path(&path.with_extension("")).map(|(named, ..)| named);
        if is_partial && named.is_some_and(|named| named == output || named == parity_output(output)) {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Opens the file at `path`, which stands for the unfinished bundle, for this process alone.
fn lock_file(path: &Path, output: &Path) -> Result<File, BuildError> {
    let io = |source| BuildError::Io { path: path.to_owned(), source };
    loop {
        let file = file::open_own(path, &to_write()).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(BuildError::Busy { path: output.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        // Between opening and locking, another builder may have finished the file and given it its final name.
        if file::is_at(&file, path).map_err(io)? {
            return Ok(file);
        }
    }
}

fn write_error(path: &Path, needed: u64, source: io::Error) -> BuildError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            BuildError::Full { path: path.to_owned(), needed }
        }
        io::ErrorKind::FileTooLarge => BuildError::TooLarge { path: path.to_owned() },
        _ => BuildError::Io { path: path.to_owned(), source },
    }
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
