//! Reading a blob once as a whole before its bytes may leave, and remembering that.

use std::collections::{HashMap, HashSet};
use std::fs::{File, Metadata};
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::oci::{Digest, Hasher};

use super::content::{Blob, ContentError, Doubt};

/// How much is read at once. Larger reads are not faster.
const CHUNK: usize = 256 * 1024;
/// How many digests are remembered; at about 150 bytes each. Beyond that all are forgotten and verified again.
const REMEMBERED: usize = 100_000;

/// What tells one state of a file from another without reading it: size, time of change and, where there is one, the
/// number of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    size: u64,
    modified: Option<SystemTime>,
    inode: u64,
}

impl Stamp {
    /// The stamp of a file.
    pub fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(metadata);
        #[cfg(not(unix))]
        let inode = 0;
        Self { size: metadata.len(), modified: metadata.modified().ok(), inode }
    }

    /// The stamp of the file at `path`; that of a missing one when it cannot be looked at.
    pub fn at(path: &Path) -> Self {
        std::fs::metadata(path).map_or_else(|_| Self::missing(), |metadata| Self::of(&metadata))
    }

    /// The stamp of a file that should be there and is not.
    pub fn missing() -> Self {
        Self { size: 0, modified: None, inode: 0 }
    }
}

/// Which blobs were verified since the program started, and which were found damaged. Clones share what they know.
#[derive(Clone, Debug, Default)]
pub struct Verified(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Signalled whenever a verification ends.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    verdicts: HashMap<Digest, Verdict>,
    running: HashSet<Digest>,
}

#[derive(Clone, Copy, Debug)]
struct Verdict {
    stamp: Stamp,
    condition: Condition,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Good,
    Damaged,
    /// The disk did not give the bytes. It may the next time.
    Unreadable,
}

impl Verified {
    /// Makes sure that `blob` is `digest`, by reading it unless that was done for this state of the file. When the blob that
    /// this gives back cannot be read after all, it counts as unreadable until it was verified again.
    ///
    /// Of several callers that ask for the same blob at once, one reads and the others wait for its verdict.
    pub fn check(&self, digest: &Digest, stamp: Stamp, blob: Blob) -> Result<Blob, ContentError> {
        self.verify(digest, stamp, &blob)?;
        Ok(blob.telling(Verification { verified: self.clone(), digest: digest.clone(), stamp }))
    }

    fn verify(&self, digest: &Digest, stamp: Stamp, blob: &Blob) -> Result<(), ContentError> {
        let mut state = self.lock();
        loop {
            match state.verdicts.get(digest) {
                Some(verdict) if verdict.stamp == stamp && verdict.condition == Condition::Good => {
                    return Ok(());
                }
                Some(verdict) if verdict.stamp == stamp && verdict.condition == Condition::Damaged => {
                    return Err(ContentError::Damaged(digest.clone()));
                }
                _ if state.running.contains(digest) => {
                    state = self.0.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                _ => break,
            }
        }
        state.running.insert(digest.clone());
        drop(state);
        let result = matches(digest, blob);
        let mut state = self.lock();
        state.running.remove(digest);
        self.0.ended.notify_all();
        let condition = match result {
            Ok(true) => Condition::Good,
            Ok(false) => Condition::Damaged,
            Err(_) => Condition::Unreadable,
        };
        state.note(digest, Verdict { stamp, condition });
        if result? { Ok(()) } else { Err(ContentError::Damaged(digest.clone())) }
    }

    /// Remembers what is known from elsewhere: that `digest` was just written, or was found missing.
    pub fn note(&self, digest: &Digest, stamp: Stamp, good: bool) {
        let condition = if good { Condition::Good } else { Condition::Damaged };
        self.lock().note(digest, Verdict { stamp, condition });
    }

    /// Remembers that the bytes of `file` are those of `digest`: they were hashed on their way into it.
    pub(super) fn note_written(&self, digest: &Digest, file: &File) -> io::Result<()> {
        self.note(digest, Stamp::of(&file.metadata()?), true);
        Ok(())
    }

    /// Remembers that the disk did not give the bytes of `digest`.
    pub fn note_unreadable(&self, digest: &Digest, stamp: Stamp) {
        self.lock().note(digest, Verdict { stamp, condition: Condition::Unreadable });
    }

    /// Forgets that the disk did not give the bytes of `digest`, because it has given them since.
    pub fn note_readable(&self, digest: &Digest) {
        let mut state = self.lock();
        if state.verdicts.get(digest).is_some_and(|verdict| verdict.condition == Condition::Unreadable) {
            state.verdicts.remove(digest);
        }
    }

    /// Whether `digest` was found damaged or unreadable, and the file has not changed since.
    pub fn is_damaged(&self, digest: &Digest, stamp: Stamp) -> bool {
        let is_bad = |verdict: &Verdict| verdict.stamp == stamp && verdict.condition != Condition::Good;
        self.lock().verdicts.get(digest).is_some_and(is_bad)
    }

    /// All that were found damaged or unreadable and have not been found good since.
    pub fn damaged(&self) -> Vec<Digest> {
        self.found_damaged().into_iter().map(|(digest, _)| digest).collect()
    }

    /// The same, with what was known of their files then.
    pub fn found_damaged(&self) -> Vec<(Digest, Stamp)> {
        let state = self.lock();
        let bad = state.verdicts.iter().filter(|(_, verdict)| verdict.condition != Condition::Good);
        bad.map(|(digest, verdict)| (digest.clone(), verdict.stamp)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; if something did, the maps would still be whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// That a blob was verified, which is called off when it cannot be read after all.
#[derive(Debug)]
struct Verification {
    verified: Verified,
    digest: Digest,
    stamp: Stamp,
}

impl Doubt for Verification {
    fn raise(&self) {
        self.verified.note_unreadable(&self.digest, self.stamp);
    }
}

impl State {
    fn note(&mut self, digest: &Digest, verdict: Verdict) {
        if self.verdicts.len() >= REMEMBERED {
            self.verdicts.retain(|_, verdict| verdict.condition != Condition::Good);
        }
        self.verdicts.insert(digest.clone(), verdict);
    }
}

/// Whether the bytes of `blob` are those of `digest`, by reading it as a whole.
pub(super) fn matches(digest: &Digest, blob: &Blob) -> Result<bool, ContentError> {
    let mut hasher = Hasher::new(digest.algorithm());
    let mut buffer = vec![0; CHUNK];
    let mut position = 0;
    loop {
        let read = blob.read_at(&mut buffer, position)?;
        if read == 0 {
            return Ok(hasher.finish() == *digest);
        }
        hasher.update(&buffer[..read]);
        position += read as u64;
    }
}
