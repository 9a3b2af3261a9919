//! What a build that has not finished has already fetched.
//!
//! The journal stands beside the unfinished bundle and says how far each blob has come. It is a claim, not a proof:
//! whoever continues hashes the bytes again, so a journal that is ahead of the disk after a loss of power costs a
//! repeated download and nothing else.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Mutex;

use crate::file;

/// The longest journal that is read; longer ones are started anew.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// The journal of one unfinished bundle.
#[derive(Debug)]
pub(super) struct Journal {
    file: Mutex<File>,
}

/// What an earlier run says that it did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// How much of each blob is there, by its position in the lock.
    pub(super) blobs: BTreeMap<usize, u64>,
    /// Whether all is there, so that the files were being given their names.
    pub(super) naming: bool,
}

/// The line that says that files are given their names from here on.
const NAMING: &str = "naming";

impl Journal {
    /// Opens the journal at `path` for a bundle that `identity` describes. What an earlier run of the same bundle left
    /// is returned; the journal of another bundle is discarded, and that is `None`.
    pub(super) fn open(path: &Path, identity: &str) -> io::Result<(Self, Option<Progress>)> {
        let mut file = file::open_own(path, OpenOptions::new().read(true).append(true))?;
        let mut text = String::new();
        // Bytes that are not text come from no journal of ours.
        let readable = (&mut file).take(MAX_BYTES).read_to_string(&mut text).is_ok();
        let progress = if readable { parse(&text, identity) } else { None };
        if progress.is_none() {
            file.set_len(0)?;
            writeln!(file, "{identity}")?;
        }
        Ok((Self { file: Mutex::new(file) }, progress))
    }

    /// Notes that the first `bytes` bytes of blob `nth` are in the bundle.
    pub(super) fn note(&self, nth: usize, bytes: u64) -> io::Result<()> {
        self.line(&format!("{nth} {bytes}"))
    }

    /// Notes that all is there, and makes that durable.
    pub(super) fn note_naming(&self) -> io::Result<()> {
        self.line(NAMING)?;
        self.file.lock().expect("nobody panics while writing a line").sync_all()
    }

    fn line(&self, line: &str) -> io::Result<()> {
        let line = format!("{line}\n");
        let mut file = self.file.lock().expect("nobody panics while writing a line");
        file.write_all(line.as_bytes())
    }
}

/// Reads a journal; a last line that was cut off by a crash is left out.
fn parse(text: &str, identity: &str) -> Option<Progress> {
    let (head, lines) = text.split_once('\n')?;
    if head != identity {
        return None;
    }
    let mut progress = Progress::default();
    for line in lines.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        if line == NAMING {
            progress.naming = true;
            continue;
        }
        let (nth, bytes) = line.split_once(' ')?;
        progress.blobs.insert(nth.parse().ok()?, bytes.parse().ok()?);
    }
    Some(progress)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(blobs: &[(usize, u64)], naming: bool) -> Progress {
        Progress { blobs: blobs.iter().copied().collect(), naming }
    }

    #[test]
    fn remembers_across_runs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.journal");
        let (journal, before) = Journal::open(&path, "bundle a").unwrap();
        assert_eq!(before, None);
        journal.note(3, 10).unwrap();
        journal.note(1, 5).unwrap();
        journal.note(3, 20).unwrap();
        let (_, progress) = Journal::open(&path, "bundle a").unwrap();
        assert_eq!(progress, Some(claims(&[(1, 5), (3, 20)], false)));
        let (_, other) = Journal::open(&path, "bundle b").unwrap();
        assert_eq!(other, None);
        let (_, again) = Journal::open(&path, "bundle b").unwrap();
        assert_eq!(again, Some(Progress::default()));
    }

    #[test]
    fn a_line_that_was_cut_off_does_not_count() {
        assert_eq!(parse("id\n1 5\n2 77", "id"), Some(claims(&[(1, 5)], false)));
        assert_eq!(parse("id\n1 5\nnaming\n", "id"), Some(claims(&[(1, 5)], true)));
        assert_eq!(parse("id\n1 5\nnaming", "id"), Some(claims(&[(1, 5)], false)));
        assert_eq!(parse("id\n1 5\nnonsense\n", "id"), None);
        assert_eq!(parse("id", "id"), None);
    }
}
