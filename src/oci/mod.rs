//! The vocabulary of container images: digests, references, platforms, descriptors, and views over manifests.
//!
//! Nothing here does I/O. Documents that come from outside keep their original bytes; the types are views for
//! reading, never for writing the bytes back, because re-serialising a manifest changes its digest.

mod descriptor;
mod digest;
mod manifest;
pub mod media_type;
mod platform;
mod reference;
mod tags;

pub use descriptor::{Descriptor, REFERENCE_DIGEST, REFERENCE_TYPE};
pub use digest::{Algorithm, Digest, Hasher, ParseDigestError};
pub use manifest::{Document, Image, ImageConfig, Index, MAX_MANIFEST_BYTES, ManifestError};
pub use platform::{NodeKind, ParsePlatformError, Platform, WindowsBuild};
pub use reference::{ParseReferenceError, Reference, RepositoryName, Tag, canonical_host};
pub use tags::{TagMeaning, Tags};
