//! What the tests on real input share: Debian's registry as the upstream, images built by buildah out of software
//! that is installed here, and the clients that pull them (containerd, podman, skopeo).
//!
//! Everything runs on loopback and below a temporary directory, and ends with the test that started it.
#![allow(dead_code, reason = "every test binary uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

pub(crate) mod clients;
pub(crate) mod command;
pub(crate) mod containerd;
pub(crate) mod daemon;
pub(crate) mod disk;
pub(crate) mod proxy;
pub(crate) mod registry;
pub(crate) mod shelf;
pub(crate) mod site;
pub(crate) mod upstream;
pub(crate) mod workshop;
