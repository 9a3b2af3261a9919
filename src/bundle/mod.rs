//! The bundle: one file that travels, an OCI image layout in an uncompressed tar.
//!
//! skopeo, podman, `ctr`, oras and k0s read it as it is. It is laid out before anything is fetched, can be continued
//! after any interruption, has the same bytes whenever it is made from the same lock, and is served in place.

mod cutting;
mod damage;
mod find;
mod foreign;
mod framing;
mod gather;
mod import;
mod inventory;
mod journal;
mod media;
mod parity;
mod plan;
mod push;
mod read;
mod repair;
mod retain;
mod serve;
mod sign;
pub(crate) mod tar;
mod unfinished;
mod volume;
mod write;

pub use damage::Damage;
pub use import::{ImportError, ImportOptions, Imported, import};
pub use inventory::{Inventory, InventoryBundle, InventoryError, MAX_INVENTORY_BYTES};
pub use media::{Absent, Media, Why};
pub use parity::{ParityShare, ParseParityShareError, Recovery};
pub use plan::{BUNDLE_TYPE, Entry, FILE_TYPE, LOCK_TYPE, Plan, PlanError, Tail};
pub use push::{Destination, PushError, Pushed, PushedImage, bytes_to_push, push};
pub use read::{Bundle, BundleError, Place};
pub use repair::{Making, Progress, RepairError, Repaired, repair};
pub use retain::{Keep, Observed, Reason, RetainError, Retention, imported_locks, let_go, plan_retention};
pub use serve::{ServeError, ServedBundles};
pub use sign::sign;
pub use unfinished::check_unfinished;
pub use volume::{CutError, ParseVolumeSizeError, Volume, VolumeSize};
pub use write::{BlobSource, BuildError, BuildOptions, Built, RecoveryReach, SourceError, build};

/// What the fuzz targets reach and programs do not.
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing {
    /// Reads the header at the start of `bytes`: the path, the size of the content, and the length of the header.
    pub fn tar_header(bytes: &[u8]) -> Result<Option<(String, u64, u64)>, &'static str> {
        let header = super::tar::parse(&bytes[..bytes.len().min(1536)])?;
        Ok(header.map(|header| (header.path, header.size, header.len)))
    }
}

#[cfg(test)]
pub(crate) mod tests;
