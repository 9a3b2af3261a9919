//! Reading a blob once as a whole before its bytes may leave, and remembering that.

use std::collections::{HashMap, HashSet};
use std::fs::Metadata;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::oci::{Digest, Hasher};

use super::{Blob, ContentError};

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

    /// The stamp of a file that should be there and is not.
    pub fn missing() -> Self {
        Self { size: 0, modified: None, inode: 0 }
    }
}

/// Which blobs were verified since the program started, and which were found damaged.
#[derive(Debug, Default)]
pub struct Verified {
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
    good: bool,
}

impl Verified {
    /// Makes sure that `blob` is `digest`, by reading it unless that was done for this state of the file.
    ///
    /// Of several callers that ask for the same blob at once, one reads and the others wait for its verdict.
    pub fn check(&self, digest: &Digest, stamp: Stamp, blob: &Blob) -> Result<(), ContentError> {
        let mut state = self.lock();
        loop {
            match state.verdicts.get(digest) {
                Some(verdict) if verdict.stamp == stamp => return outcome(verdict.good, digest),
                _ if state.running.contains(digest) => {
                    state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                _ => break,
            }
        }
        state.running.insert(digest.clone());
        drop(state);
        let result = matches(digest, blob);
        let mut state = self.lock();
        state.running.remove(digest);
        self.ended.notify_all();
        let good = result?;
        state.note(digest, Verdict { stamp, good });
        outcome(good, digest)
    }

    /// Remembers what is known from elsewhere: that `digest` was just written, or was found missing.
    pub fn note(&self, digest: &Digest, stamp: Stamp, good: bool) {
        self.lock().note(digest, Verdict { stamp, good });
    }

    /// Whether `digest` was found damaged, and the file has not changed since.
    pub fn is_damaged(&self, digest: &Digest, stamp: Stamp) -> bool {
        self.lock().verdicts.get(digest).is_some_and(|verdict| verdict.stamp == stamp && !verdict.good)
    }

    /// All that were found damaged and have not been found good since.
    pub fn damaged(&self) -> Vec<Digest> {
        self.lock().verdicts.iter().filter(|(_, v)| !v.good).map(|(digest, _)| digest.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; if something did, the maps would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, digest: &Digest, verdict: Verdict) {
        if self.verdicts.len() >= REMEMBERED {
            self.verdicts.retain(|_, v| !v.good);
        }
        self.verdicts.insert(digest.clone(), verdict);
    }
}

fn outcome(good: bool, digest: &Digest) -> Result<(), ContentError> {
    if good { Ok(()) } else { Err(ContentError::Damaged(digest.clone())) }
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
