//! Reading a file that a person names, or standard input.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::encoding::{EncodingError, decode};
use super::kind::FileKind;

/// The name that stands for standard input. A file of this name is `./-`.
pub const STDIN: &str = "-";

/// Whether standard input was read; what was read once is gone.
static STDIN_READ: AtomicBool = AtomicBool::new(false);

/// Why a file cannot be used. The file is named by [`name`].
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The file cannot be read.
    #[error("cannot read {}", name(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A directory, where a file is needed.
    #[error("{} is a directory, not a file", name(.0))]
    Directory(PathBuf),
    /// The file is larger than anything of its kind.
    #[error("{} is larger than {limit} bytes", name(path))]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// How large it may be, in bytes.
        limit: u64,
    },
    /// The file is something else.
    #[error("{} is {kind}, not text", name(path))]
    NotText {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: FileKind,
    },
    /// The file is text in no encoding that is read.
    #[error("{} cannot be read as text: {source}", name(path))]
    Encoding {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: EncodingError,
    },
    /// Standard input is to be read a second time.
    #[error("standard input can be read only once, and two files are named `-`")]
    StdinAgain,
}

impl InputError {
    /// Returns whether the file does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Returns what to do about it, if there is something to do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotText { kind, .. } => kind.hint(),
            Self::StdinAgain => Some("save one of them to a file first"),
            Self::Read { .. } | Self::Directory(_) | Self::TooLarge { .. } | Self::Encoding { .. } => None,
        }
    }
}

/// Returns whether `path` stands for standard input.
pub fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == STDIN
}

/// Returns what messages call the file at `path`.
pub fn name(path: &Path) -> String {
    if is_stdin(path) { "standard input".to_owned() } else { path.display().to_string() }
}

/// Reads the file at `path`, or standard input if it is [`STDIN`], of at most `limit` bytes.
pub fn read_bytes(path: &Path, limit: u64) -> Result<Vec<u8>, InputError> {
    let error = |source| InputError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    if is_stdin(path) {
        if STDIN_READ.swap(true, Ordering::Relaxed) {
            return Err(InputError::StdinAgain);
        }
        io::stdin().lock().take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(error)?;
    } else {
        let file = File::open(path).map_err(error)?;
        if file.metadata().map_err(error)?.is_dir() {
            return Err(InputError::Directory(path.to_owned()));
        }
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(error)?;
    }
    if bytes.len() as u64 > limit {
        // What is too large because it is something else altogether is better told by what it is.
        return Err(match FileKind::of(&bytes).filter(|kind| !kind.is_text()) {
            Some(kind) => InputError::NotText { path: path.to_owned(), kind },
            None => InputError::TooLarge { path: path.to_owned(), limit },
        });
    }
    Ok(bytes)
}

/// Reads the text at `path` as [`read_bytes`] does, and [decodes](decode) it.
pub fn read_text(path: &Path, limit: u64) -> Result<String, InputError> {
    text(path, &read_bytes(path, limit)?)
}

/// Reads the text at `path` as [`read_text`] does; `None` if there is no such file.
pub fn read_text_if_present(path: &Path, limit: u64) -> Result<Option<String>, InputError> {
    match read_text(path, limit) {
        Err(error) if error.is_missing() => Ok(None),
        read => read.map(Some),
    }
}

/// Decodes the bytes of the file at `path`, as [`read_text`] does.
pub fn text(path: &Path, bytes: &[u8]) -> Result<String, InputError> {
    let kind = FileKind::of(bytes).filter(|kind| !kind.is_text());
    // The first letters of a text may be those of some other kind of file: `BZhang:$2y$05$…`.
    let is_certain = |kind: &FileKind| *kind == FileKind::Html || bytes.contains(&0);
    match (kind, decode(bytes)) {
        (Some(kind), decoded) if decoded.is_err() || is_certain(&kind) => {
            Err(InputError::NotText { path: path.to_owned(), kind })
        }
        (_, decoded) => decoded.map_err(|source| InputError::Encoding { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<String, InputError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        read_text(file.path(), 16)
    }

    #[test]
    fn a_file_that_is_no_text_is_named_as_what_it_is() {
        for (bytes, expected) in [
            (&b"\x1f\x8b\x08\0"[..], "is compressed with gzip, not text"),
            (b"MZ\x90\0", "is a program for Windows, not text"),
            (b"<!DOCTYPE html>", "is a page of HTML, not text"),
            (b"PK\x03\x04 and more than sixteen bytes", "is a zip archive, not text"),
            (b"more than sixteen bytes", "is larger than 16 bytes"),
            (b"a\xff", "line 1 has a byte (0xff)"),
        ] {
            let error = read(bytes).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(read(b"\xff\xfea\0\r\0\n\0").unwrap(), "a\n");
        assert_eq!(read(b"BZhang:x").unwrap(), "BZhang:x");
    }

    #[test]
    fn directories_and_missing_files_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = read_text(directory.path(), 16).unwrap_err();
        assert!(error.to_string().ends_with("is a directory, not a file"), "{error}");
        let absent = directory.path().join("absent");
        let error = read_text(&absent, 16).unwrap_err();
        assert!(error.is_missing() && error.to_string().contains("absent"), "{error}");
        assert!(read_text_if_present(&absent, 16).unwrap().is_none());
    }
}
