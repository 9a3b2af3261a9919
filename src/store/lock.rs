//! One writer at a time: a lock file between processes, a gate between the threads of one.

use std::fs::{File, TryLockError};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fs_err as fs;

use super::durable::{Dirty, adopt};
use super::{Store, StoreError, undo};

/// How long to wait between two attempts at another process' lock.
const PAUSE: Duration = Duration::from_millis(20);

/// The right to change a store, and the methods that do. Others wait or are refused until it is dropped.
#[derive(Debug)]
pub struct Writer {
    pub(super) store: Store,
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
    fn enter(&self, until: Instant) -> bool {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        while *taken {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            taken = self.freed.wait_timeout(taken, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *taken = true;
        true
    }

    fn leave(&self) {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.freed.notify_one();
    }
}

impl Store {
    /// Becomes the store's writer, waiting up to `patience` for another one to finish.
    ///
    /// `purpose` is how this process is named to others that find the store taken: `dray import`. What an interrupted
    /// writer left behind is finished or cleared away first.
    pub fn writer(&self, purpose: &str, patience: Duration) -> Result<Writer, StoreError> {
        let until = Instant::now() + patience;
        if !self.0.gate.enter(until) {
            return Err(self.busy());
        }
        let pass = Pass(self.clone());
        let lock = self.lock_file(purpose, until)?;
        let writer = Writer { store: self.clone(), dirty: Mutex::default(), _lock: lock, _pass: pass };
        writer.recover()?;
        Ok(writer)
    }

    fn lock_file(&self, purpose: &str, until: Instant) -> Result<File, StoreError> {
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.layout().lock())?
            .into_file();
        adopt(&self.layout().lock());
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => return Err(self.busy()),
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
        }
        // A courtesy to others. There may be no room for it, and then this writer may be the one to make some.
        let holder = self.layout().lock_holder();
        let words = format!("{purpose} (process {})", std::process::id());
        match fs::write(&holder, words) {
            Ok(()) => adopt(&holder),
            Err(_) => _ = fs::remove_file(&holder),
        }
        Ok(file)
    }

    fn busy(&self) -> StoreError {
        let holder = fs::read_to_string(self.layout().lock_holder()).unwrap_or_default();
        let holder =
            if holder.is_empty() { "another process".to_owned() } else { holder.chars().take(200).collect() };
        StoreError::Busy { path: self.path().to_owned(), holder }
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
