//! Bundles that are wrong on purpose, in every way that we could think of: each is refused by `verify`, `import` and
//! `serve`, by name and place, and leaves the store as it was.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

#[path = "../fuzz/src/archive.rs"]
#[allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "shared with the fuzzers, which use other parts of it"
)]
mod archive;
#[path = "../fuzz/src/sample.rs"]
#[allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "shared with the fuzzers, which use other parts of it"
)]
mod sample;
mod support;

mod attacks {
    pub(crate) mod bench;

    mod contents;
    mod documents;
    mod entries;
    mod harmless;
    mod locks;
    mod suite;
    mod trust;
}
