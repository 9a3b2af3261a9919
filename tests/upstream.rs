//! Reading from registries that fail in every way a network and a server can, and from Debian's real one.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

use std::path::Path;

use dray::bundle::{Bundle, ImportOptions, ServedBundles, import};
use dray::store::{Content, Store};

mod support;

#[path = "upstream/auth.rs"]
mod auth;
#[path = "upstream/blobs.rs"]
mod blobs;
#[path = "upstream/command.rs"]
mod command;
#[path = "upstream/evidence.rs"]
mod evidence;
#[path = "upstream/failures.rs"]
mod failures;
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

/// What a site can serve `bundle` from, once it is known to be whole: a store in `home`, and the bundle itself.
fn ways_to_serve(bundle: Bundle, home: &Path) -> [Box<dyn Content>; 2] {
    bundle.verify_blobs(1, &|_| ()).unwrap();
    let store = Store::create(&home.join("store")).unwrap();
    import(&bundle, &store, &ImportOptions::default()).unwrap();
    [Box::new(store), Box::new(ServedBundles::new(vec![bundle]).unwrap())]
}
