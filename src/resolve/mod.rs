//! From a definition to a lock: what each image reference is upstream, what is kept of it for which node kind, and
//! the proof that nothing is missing.

mod lock;

pub use lock::{
    BundleName, Child, LOCK_VERSION, Lock, LockError, LockedBlob, LockedFile, LockedImage, LockedRelease,
    MAX_LOCK_BYTES, ProofRow, Root,
};

#[cfg(test)]
pub(crate) use lock::tests as lock_tests;
