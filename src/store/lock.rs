//! One writer at a time: lock files between processes, a gate between the threads of one.

use std::fmt;
use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fs_err as fs;

use super::durable::{Dirty, adopt};
use super::{Store, StoreError, undo};

/// How long to wait between two attempts at another process' lock.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a writer waits before it says so.
const SILENCE: Duration = Duration::from_secs(1);

/// How long to wait for another writer, and who is told that this takes a while.
#[derive(Clone, Copy)]
pub struct Patience<'a> {
    /// How long to wait; zero does not wait.
    pub limit: Duration,
    /// Called once, after a second, with the process that is waited for, as it described itself.
    pub waiting: &'a (dyn Fn(&str) + Sync),
}

impl From<Duration> for Patience<'_> {
    /// Waits silently.
    fn from(limit: Duration) -> Self {
        Self { limit, waiting: &|_| () }
    }
}

impl fmt::Debug for Patience<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patience").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// The time that is left to wait.
struct Waiting<'a> {
    store: &'a Store,
    patience: Patience<'a>,
    began: Instant,
    told: bool,
}

impl Waiting<'_> {
    /// How long to wait before the next attempt, at most `pause`; an error when it is too late for one.
    fn pause(&mut self, pause: Duration) -> Result<Duration, StoreError> {
        let waited = self.began.elapsed();
        let left = self.patience.limit.saturating_sub(waited);
        if left.is_zero() {
            let holder = self.store.holder();
            return Err(StoreError::Busy { path: self.store.path().to_owned(), holder });
        }
        if !self.told && waited >= SILENCE {
            self.told = true;
            (self.patience.waiting)(&self.store.holder());
        }
        let silent = if self.told { left } else { SILENCE.saturating_sub(waited) };
        Ok(pause.min(left).min(silent))
    }

    /// Takes the lock of a file that other processes may hold.
    fn lock(&mut self, path: &Path) -> Result<File, StoreError> {
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path)?.into_file();
        adopt(path);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => std::thread::sleep(self.pause(PAUSE)?),
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
        }
    }
}

/// The right to change a store, and the methods that do. Others wait or are refused until it is dropped.
#[derive(Debug)]
pub struct Writer {
    pub(super) store: Store,
    /// What this process is to others: `dray import`.
    pub(super) purpose: String,
    /// Directories with new blobs in them that are not yet durable.
    pub(super) dirty: Mutex<Dirty>,
    /// Unlocks when it is closed, which is before the gate opens.
    _lock: File,
    _pass: Pass,
}

/// Leaves the gate of a store when it is dropped.
#[derive(Debug)]
struct Pass(Store);

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.0.gate.leave();
    }
}

/// Keeps the threads of one process apart; file locks are not made for that.
#[derive(Debug, Default)]
pub(super) struct Gate {
    taken: Mutex<bool>,
    freed: Condvar,
}

impl Gate {
    fn enter(&self, waiting: &mut Waiting<'_>) -> Result<(), StoreError> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        while *taken {
            let pause = waiting.pause(Duration::MAX)?;
            taken = self.freed.wait_timeout(taken, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
        *taken = true;
        Ok(())
    }

    fn leave(&self) {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.freed.notify_one();
    }
}

impl Store {
    /// Becomes the store's writer, waiting for another one to finish as long as `patience` allows.
    ///
    /// `purpose` is how this process is named to others that find the store taken: `dray import`. What an interrupted
    /// writer left behind is finished or cleared away first.
    pub fn writer<'a>(
        &'a self,
        purpose: &str,
        patience: impl Into<Patience<'a>>,
    ) -> Result<Writer, StoreError> {
        let began = Instant::now();
        let mut waiting = Waiting { store: self, patience: patience.into(), began, told: false };
        self.0.gate.enter(&mut waiting)?;
        let pass = Pass(self.clone());
        // Whoever waits for the lock holds the turn meanwhile, so that a process which changes the store again and again
        // cannot keep others from ever getting the lock. A full disk may have no room for its file.
        let turn = match waiting.lock(&self.layout().turn()) {
            Err(StoreError::Io(_)) => None,
            turn => Some(turn?),
        };
        let lock = waiting.lock(&self.layout().lock())?;
        drop(turn);
        self.describe_holder(purpose);
        let purpose = purpose.to_owned();
        let writer =
            Writer { store: self.clone(), purpose, dirty: Mutex::default(), _lock: lock, _pass: pass };
        writer.recover()?;
        Ok(writer)
    }

    /// Tells other processes who has the lock: a courtesy. There may be no room for it, and then this writer may be the one
    /// to make some.
    fn describe_holder(&self, purpose: &str) {
        let holder = self.layout().lock_holder();
        let words = format!("`{purpose}` (pid {})", std::process::id());
        match fs::write(&holder, words) {
            Ok(()) => adopt(&holder),
            Err(_) => _ = fs::remove_file(&holder),
        }
    }

    /// The process that has the lock, or had it last, as it described itself.
    fn holder(&self) -> String {
        let holder = fs::read_to_string(self.layout().lock_holder()).unwrap_or_default();
        if holder.is_empty() { "another process".to_owned() } else { holder.chars().take(200).collect() }
    }
}

impl Writer {
    /// Finishes what an interrupted writer had begun to publish and removes its temporary files.
    fn recover(&self) -> Result<(), StoreError> {
        let layout = self.store.layout();
        // What was on its way in may be what fills the disk, so it goes before anything is written.
        fs::create_dir_all(layout.temporary())?;
        for file in fs::read_dir(layout.temporary())? {
            fs::remove_file(file?.path())?;
        }
        match self.store.0.publication.current(layout)? {
            Some(publication) => publication.finish(layout),
            None => undo::undo(layout),
        }
    }
}
