//! From a definition to a lock: what each image reference is upstream, what is kept of it for which node kind, and
//! the proof that nothing is missing.

mod allow;
mod auto;
mod definition;
mod demand;
mod document;
mod evidence;
mod files;
mod gap;
mod image;
mod incomplete;
mod lock;
mod metadata;
mod needed_by;
mod resolver;
mod tree;

pub use allow::{AllowMissing, ParseAllowMissingError, Unneeded};
pub use definition::{
    API_VERSION, ChildMetadata, Definition, DefinitionError, DefinitionWarning, MAX_DEFINITION_BYTES,
    WantedFile, WantedImage, WantedRelease,
};
pub use gap::{Gap, GapKind};
pub use incomplete::{GapList, Incomplete};
pub use lock::{
    Allowed, BUNDLE_HOST, BundleName, Child, Evidence, LOCK_VERSION, Lock, LockError, LockedBlob, LockedFile,
    LockedImage, LockedIndex, LockedRelease, MAX_LOCK_BYTES, Programs, ProofRow, RequiredBlob, Root, tags_of,
};
pub use metadata::MetadataLeftOut;
pub use needed_by::{CHARTS_LIST, FILES_LIST, IMAGES_LIST, NeededBy};
pub use resolver::{Resolution, ResolveError, ResolveOptions, resolve};

#[cfg(test)]
pub(crate) use lock::tests as lock_tests;
#[cfg(test)]
pub(crate) mod tests;
