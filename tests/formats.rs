//! Files that dray 0.1.0 wrote stay readable: a lock, a bundle and a store.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use dray::resolve::Lock;
use serde_json::Value;

use support::command::Run as _;
use support::site::dray;

fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/0.1.0").join(name)
}

/// Unpacks the store into `directory`.
fn store(directory: &Path) -> PathBuf {
    Command::new("tar").arg("-xf").arg(kept("store.tar")).arg("-C").arg(directory).succeed();
    directory.join("store")
}

#[test]
fn lock_of_0_1_0_keeps_its_bytes() {
    let bytes = std::fs::read(kept("kept.lock")).unwrap();
    assert_eq!(Lock::from_json(&bytes).unwrap().to_json(), bytes);
}

#[test]
fn bundle_of_0_1_0_is_verified_and_rebuilt() {
    let mut verify = dray();
    verify.arg("verify").arg(kept("kept.tar")).arg("--trust").arg(kept("kept.pub"));
    verify.arg("--rebuild").arg(kept("kept.lock")).succeed();
    let inspected = dray().args(["inspect", "--format", "json"]).arg(kept("kept.tar")).succeed();
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!((&inspected["name"], &inspected["sequence"]), (&Value::from("kept"), &Value::from(3)));
}

#[test]
fn bundle_of_0_1_0_is_imported() {
    let site = tempfile::tempdir().unwrap();
    let mut import = dray();
    import.arg("import").arg(kept("kept.tar")).arg("--trust").arg(kept("kept.pub"));
    import.arg("--store").arg(site.path().join("store")).succeed();
}

#[test]
fn store_of_0_1_0_is_read_and_its_log_continues() {
    let site = tempfile::tempdir().unwrap();
    let store = store(site.path());
    dray().args(["log", "verify", "--store"]).arg(&store).succeed();
    dray().args(["scrub", "--store"]).arg(&store).succeed();
    let mut import = dray();
    import.arg("import").arg(kept("kept.tar")).arg("--trust").arg(kept("kept.pub"));
    import.arg("--store").arg(&store).succeed();
    let log = dray().args(["log", "list", "--format", "json", "--store"]).arg(&store).succeed();
    let log: Value = serde_json::from_str(&log).unwrap();
    assert_eq!(log.as_array().map(Vec::len), Some(2), "{log}");
    dray().args(["log", "verify", "--store"]).arg(&store).succeed();
}
