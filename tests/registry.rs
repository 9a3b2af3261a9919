//! The registry over HTTP, as clients meet it. Each test has a server of its own on loopback.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

mod support;

#[path = "registry/client.rs"]
mod client;
#[path = "registry/clients.rs"]
mod clients;
#[path = "registry/command.rs"]
mod command;
#[path = "registry/delete.rs"]
mod delete;
#[path = "registry/extras.rs"]
mod extras;
#[path = "registry/faults.rs"]
mod faults;
#[path = "registry/files.rs"]
mod files;
#[path = "registry/import_to.rs"]
mod import_to;
#[path = "registry/manifests.rs"]
mod manifests;
#[path = "registry/names.rs"]
mod names;
#[path = "registry/power.rs"]
mod power;
#[path = "registry/pull.rs"]
mod pull;
#[path = "registry/replay.rs"]
mod replay;
#[path = "registry/scale.rs"]
mod scale;
#[path = "registry/server.rs"]
mod server;
#[path = "registry/service.rs"]
mod service;
#[path = "registry/site.rs"]
mod site;
#[path = "registry/tls.rs"]
mod tls;
#[path = "registry/uploads.rs"]
mod uploads;
#[path = "registry/users.rs"]
mod users;
#[path = "registry/wants.rs"]
mod wants;
#[path = "registry/watching.rs"]
mod watching;
