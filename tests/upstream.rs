//! Reading from registries that fail in every way a network and a server can, and from Debian's real one.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

mod support;

#[path = "upstream/auth.rs"]
mod auth;
#[path = "upstream/blobs.rs"]
mod blobs;
#[path = "upstream/command.rs"]
mod command;
#[path = "upstream/evidence.rs"]
mod evidence;
#[path = "upstream/files.rs"]
mod files;
#[path = "upstream/lists.rs"]
mod lists;
#[path = "upstream/manifests.rs"]
mod manifests;
#[path = "upstream/real.rs"]
mod real;
#[path = "upstream/server.rs"]
mod server;
#[path = "upstream/tls.rs"]
mod tls;
