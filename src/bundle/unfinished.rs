//! The files of a bundle while it is built: one, or its volumes. Each is called `NAME.partial` until all is there.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::journal::{Journal, Progress};
use super::tar;
use super::volume::{Slice, parse_path, prefix_len, volume_path};
use super::write::BuildError;
use crate::file::{self, Span};

/// What a bundle is written as.
#[derive(Debug)]
pub(super) enum Shape {
    /// One file of so many bytes.
    File(u64),
    /// Volumes: the part of each, and how many blocks it states.
    Volumes(Vec<(Slice, u64)>),
}

/// Unfinished files, which belong to one builder at a time.
#[derive(Debug)]
pub(super) struct Unfinished {
    output: PathBuf,
    /// Locked as long as the build goes on. It is the bundle, where that is one file.
    lock_path: PathBuf,
    _lock: Arc<File>,
    journal: Journal,
    journal_path: PathBuf,
    parts: Vec<Part>,
    bytes: Span,
    size: u64,
}

/// A file with a part of the bundle.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    output: PathBuf,
    file: Arc<File>,
}

impl Unfinished {
    /// Opens the unfinished files of `output` and reserves all their space. What an earlier run of the same build left of
    /// them stays, and what it says that it did is given back; `identity` tells builds apart.
    pub(super) fn open(output: &Path, shape: &Shape, identity: &str) -> Result<(Self, Progress), BuildError> {
        let lock_path = with_suffix(output, ".partial");
        let journal_path = with_suffix(output, ".partial.journal");
        let lock = Arc::new(lock_file(&lock_path, output)?);
        let (journal, claims) = Journal::open(&journal_path, identity)
            .map_err(|source| BuildError::Io { path: journal_path.clone(), source })?;
        let placed: Vec<(PathBuf, u64, Slice, u64)> = match shape {
            Shape::File(size) => vec![(output.to_owned(), 0, Slice { offset: 0, len: *size }, 0)],
            Shape::Volumes(slices) => {
                let of = u32::try_from(slices.len()).expect("no more volumes than there may be");
                let volumes = (1..).zip(slices).map(|(number, (slice, blocks))| {
                    (volume_path(output, number, of), prefix_len(*blocks), *slice, tar::END)
                });
                volumes.collect()
            }
        };
        let size = placed.iter().map(|(_, skipped, slice, rest)| skipped + slice.len + rest).sum();
        let full = |source| write_error(&lock_path, size, source);
        if claims.is_none() {
            // What another lock left there must not show through.
            lock.set_len(0).map_err(full)?;
            remove_unfinished_volumes(output).map_err(full)?;
        }
        let claims = claims.unwrap_or_default();
        let mut parts = Vec::new();
        let mut spans = Vec::new();
        for (output, skipped, slice, rest) in placed {
            let path = with_suffix(&output, ".partial");
            let file = match shape {
                Shape::File(_) => Arc::clone(&lock),
                Shape::Volumes(_) => {
                    if claims.naming && !path.exists() && output.exists() {
                        // The run that gave it its name did not get to the others.
                        std::fs::rename(&output, &path).map_err(full)?;
                    }
                    let file =
                        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
                    Arc::new(file.map_err(|source| write_error(&path, size, source))?)
                }
            };
            file::reserve(&file, skipped + slice.len + rest)
                .map_err(|source| write_error(&path, size, source))?;
            spans.push(Span::new(Arc::clone(&file), skipped, slice.len));
            parts.push(Part { path, output, file });
        }
        let bytes = Span::join(spans);
        let output = output.to_owned();
        Ok((Self { output, lock_path, _lock: lock, journal, journal_path, parts, bytes, size }, claims))
    }

    /// The bytes of the bundle.
    pub(super) fn bytes(&self) -> &Span {
        &self.bytes
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

    /// Frames the volumes with `prefixes`, one for each, makes all durable, and gives the files their names.
    pub(super) fn finish(self, prefixes: &[Vec<u8>]) -> Result<Vec<PathBuf>, BuildError> {
        for (part, prefix) in self.parts.iter().zip(prefixes) {
            let io = |source| write_error(&part.path, self.size, source);
            let end = part.file.metadata().map_err(io)?.len() - tar::END;
            file::write_all_at(&part.file, prefix, 0).map_err(io)?;
            file::write_all_at(&part.file, &tar::ZEROS, end).map_err(io)?;
        }
        for part in &self.parts {
            part.file.sync_all().map_err(|source| write_error(&part.path, self.size, source))?;
        }
        if !prefixes.is_empty() {
            let noted = self.journal.note_naming();
            noted.map_err(|source| BuildError::Io { path: self.journal_path.clone(), source })?;
        }
        for part in &self.parts {
            let io = |source| BuildError::Io { path: part.path.clone(), source };
            std::fs::rename(&part.path, &part.output).map_err(io)?;
        }
        file::sync_parent(&self.output).map_err(|source| self.failed(source))?;
        remove(&self.journal_path)?;
        if !prefixes.is_empty() {
            remove(&self.lock_path)?;
        }
        Ok(self.parts.into_iter().map(|part| part.output).collect())
    }
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
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for entry in std::fs::read_dir(folder)? {
        let path = output.with_file_name(entry?.file_name());
        let is_partial = path.extension().is_some_and(|extension| extension == "partial");
        let named = parse_path(&path.with_extension("")).map(|(named, ..)| named);
        if is_partial && named.as_deref() == Some(output) {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Opens the file at `path`, which stands for the unfinished bundle, for this process alone.
fn lock_file(path: &Path, output: &Path) -> Result<File, BuildError> {
    let io = |source| BuildError::Io { path: path.to_owned(), source };
    loop {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(io)?;
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
        _ => BuildError::Io { path: path.to_owned(), source },
    }
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
