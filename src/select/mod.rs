//! Which manifest of an index a client takes.
//!
//! There is no single rule. A container runtime matches the entries of an index against its host and prefers
//! some matches to others, and both changed from version to version, on Windows more than once within one
//! minor. A [`Band`] is a range of versions of one client that follow one rule; [`Band::choose`] says what it
//! picks and what it downloads.
//!
//! What a node may ask for is the union over the bands that may run there ([`node_bands`]), because the index
//! travels unchanged: an entry that a runtime prefers but that was left behind fails the pull, it does not
//! fall back.
//!
//! A [`Walk`] puts the entries of nested indexes in their place before a band chooses.

mod band;
mod client;
mod clients;
mod containerd_linux;
mod containerd_windows;
mod copy_tools;
mod docker;
mod expand;
mod reason;
mod regclient;
mod rule;
mod scope;
mod spelling;
mod support;
#[cfg(test)]
mod tests;
mod versions;

pub use band::{Band, BandId, Choice};
pub use client::{Client, ParseRuntimeError, Runtime};
pub use clients::Clients;
pub use expand::{ExpandError, Expansion, MAX_DEPTH, MAX_ENTRIES, Walk, expand};
pub use reason::can_run;
pub use support::{UnknownVersion, supported, unknown_version};

use crate::oci::{NodeKind, REFERENCE_DIGEST, REFERENCE_TYPE};

/// The annotations of an entry that some rule looks at. No rule looks at others.
pub const ANNOTATIONS: [&str; 4] = [REFERENCE_DIGEST, REFERENCE_TYPE, copy_tools::ZSTD, docker::SUBJECT];

/// Every band of every client.
pub fn bands() -> &'static [Band] {
    band::BANDS
}

/// The bands of the runtimes that nodes of `kind` may have, narrowed to `runtimes` where there are any.
///
/// The result is empty when none of `runtimes` exists for the operating system, CRI-O on Windows for example.
pub fn node_bands(kind: &NodeKind, runtimes: &[Runtime]) -> Vec<&'static Band> {
    bands()
        .iter()
        .filter(|band| band.applies_to(kind.os()) && band.client.runs_on(kind.os()))
        .filter(|band| runtimes.is_empty() || runtimes.iter().any(|runtime| runtime.covers_on_node(band)))
        .collect()
}
