//! What the fuzzers run, and the tests run as well over the kept inputs: one function for each target.
//!
//! A target gets bytes from outside and panics when the code under test breaks a promise. The functions are ordinary code,
//! so that `cargo test` needs no fuzzer to try them: see `src/fuzz_tests.rs` of the library.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "a library of its own for the fuzzers, a module for the tests, and in part one for the tests of attacks"
)]

pub mod archive;
pub mod bundle;
pub mod lies;
pub mod mutate;
pub mod repair;
pub mod sample;
pub mod text;
pub mod volumes;

/// A target: its name, which is also that of its folder in `fuzz/seeds`, and what it runs.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 15] = [
    ("archive", bundle::archive),
    ("authorization", text::authorization),
    ("content_range", text::content_range),
    ("definition", text::definition),
    ("digest", text::digest),
    ("index", bundle::index),
    ("lock", bundle::lock),
    ("manifest", text::manifest),
    ("path", text::path),
    ("platform", text::platform),
    ("range", text::range),
    ("reference", text::reference),
    ("repair", repair::repair),
    ("tar", bundle::tar),
    ("volumes", repair::volumes),
];
