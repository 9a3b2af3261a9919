//! Carries container images across an air gap.
//!
//! On a connected machine a *definition* is resolved against upstream registries into a *lock*, and the lock is built
//! into one signed *bundle*: an OCI image layout in a tar. At the site the bundle is verified, imported into a
//! *store*, and served as a registry. The modules follow that way: [`oci`] is the vocabulary, [`catalog`] knows
//! what each release needs, [`select`] which manifest of an index each runtime takes, [`trust`] whose bundles a site
//! accepts, [`site`] what the nodes there need besides.

pub mod bundle;
pub mod catalog;
pub mod file;
pub mod input;
pub mod oci;
pub mod registry;
pub mod resolve;
pub mod select;
pub mod site;
pub mod store;
pub mod text;
pub mod trust;
pub mod upstream;

// The fuzz targets name this crate as others do.
#[cfg(test)]
extern crate self as dray;
#[cfg(test)]
#[path = "../fuzz/src/lib.rs"]
mod fuzz;
#[cfg(test)]
mod fuzz_tests;
