//! What a cluster at the site needs from dray besides the registry: proof that an upgrade starts, files for its nodes,
//! archives to preload, and plans for the tools that upgrade it.

pub mod check;
pub mod export;
#[cfg(test)]
mod fields;
pub mod node_config;
pub mod prepull;
mod registry_url;
pub mod stock;
pub mod upgrade_plan;
mod yaml;

pub use registry_url::{ParseRegistryError, RegistryHost, RegistryUrl};
pub use yaml::documents;
