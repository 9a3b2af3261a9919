//! Every byte of a bundle changed, every length cut: always detected, and the message says where.

use std::fs::{File, OpenOptions};

use super::*;
use crate::file;

/// Changes a file in place, and back.
pub(super) struct Sweep {
    pub(super) path: PathBuf,
    file: File,
    good: Vec<u8>,
}

impl Sweep {
    pub(super) fn new(path: &Path) -> Self {
        let good = std::fs::read(path).unwrap();
        let file = OpenOptions::new().write(true).open(path).unwrap();
        Self { path: path.to_owned(), file, good }
    }

    pub(super) fn len(&self) -> usize {
        self.good.len()
    }

    /// What `check` says of the file with other `bytes` at `at`; none when it has them already.
    pub(super) fn changed<T>(&self, at: usize, bytes: &[u8], check: impl FnOnce() -> T) -> Option<T> {
        let old = &self.good[at..at + bytes.len()];
        if old == bytes {
            return None;
        }
        file::write_all_at(&self.file, bytes, at as u64).unwrap();
        let result = check();
        file::write_all_at(&self.file, old, at as u64).unwrap();
        Some(result)
    }

    /// What `check` says of the file with one bit flipped.
    pub(super) fn flipped<T>(&self, at: usize, check: impl FnOnce() -> T) -> T {
        self.changed(at, &[self.good[at] ^ 0x20], check).unwrap()
    }

    /// What `check` says of the file cut to `len` bytes.
    pub(super) fn cut<T>(&self, len: usize, check: impl FnOnce() -> T) -> T {
        self.file.set_len(len as u64).unwrap();
        let result = check();
        file::write_all_at(&self.file, &self.good[len..], len as u64).unwrap();
        result
    }
}

/// What a bundle's damage must be called: a failed verification that names the file.
#[track_caller]
pub(super) fn refused(result: Result<(), BundleError>, path: &Path, what: &str) -> String {
    let error = result.expect_err(what);
    let message = error.to_string();
    assert!(error.is_verification(), "{what}: {message}");
    assert!(message.contains(path.to_str().unwrap()), "{what}: {message}");
    message
}

#[test]
fn every_changed_byte_is_detected() {
    let dir = tempfile::tempdir().unwrap();
    let (path, key) = small_bundle(dir.path());
    verify(&path, &key).unwrap();
    let sweep = Sweep::new(&path);
    // `tar` and the headers of volumes have every byte of theirs changed where they are tested; here the whole is what
    // counts, and steps that share no factor with 512 come by every field.
    let flipped = (0..sweep.len()).step_by(13);
    for at in flipped.clone() {
        sweep.flipped(at, || refused(verify(&path, &key), &path, &format!("byte {at}")));
    }
    let mut zeroed = 0;
    for at in (0..sweep.len()).step_by(512) {
        let check = || refused(verify(&path, &key), &path, &format!("block at {at}"));
        zeroed += usize::from(sweep.changed(at, &[0; 512], check).is_some());
    }
    verify(&path, &key).unwrap();
    println!("{} bytes flipped and {zeroed} blocks zeroed in one bundle, all detected", flipped.len());
}

#[test]
fn every_cut_is_detected() {
    let dir = tempfile::tempdir().unwrap();
    let (path, key) = small_bundle(dir.path());
    let sweep = Sweep::new(&path);
    let mut cuts = 0;
    for len in (0..sweep.len()).step_by(61).chain((sweep.len() - 1100..sweep.len()).step_by(9)) {
        sweep.cut(len, || refused(verify(&path, &key), &path, &format!("{len} bytes left")));
        cuts += 1;
    }
    verify(&path, &key).unwrap();
    let mut longer = std::fs::read(&path).unwrap();
    longer.extend_from_slice(&[0; 512]);
    std::fs::write(&path, &longer).unwrap();
    refused(verify(&path, &key), &path, "longer");
    println!("{cuts} lengths cut from one bundle, all detected");
}
