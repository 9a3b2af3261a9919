//! A lock for which much is missing, for every reason: all of it is told at once, in the same words each time.

use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use dray::oci::{Digest, media_type};
use dray::resolve::{Allowed, GapKind, Lock};
use serde_json::{Value, json};

use crate::server::{Asked, Reply, Server};
use crate::support::command::Run as _;

const CONFIG: &str = r#"{"os":"linux","architecture":"amd64"}"#;

fn manifest(layer: u64) -> String {
    let config = json!({
        "mediaType": media_type::OCI_CONFIG, "digest": Digest::sha256(CONFIG.as_bytes()), "size": CONFIG.len(),
    });
    let layer = json!({
        "mediaType": media_type::OCI_LAYER_GZIP, "digest": Digest::sha256(b"layer"), "size": layer,
    });
    json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": [layer]})
        .to_string()
}

/// An index of one image for Linux, which is there, and one for Windows, which is not.
fn index() -> String {
    let linux = manifest(5);
    let entry = |digest: Digest, size: usize, os: &str| {
        json!({
            "mediaType": media_type::OCI_MANIFEST, "digest": digest, "size": size,
            "platform": {"os": os, "architecture": "amd64"},
        })
    };
    let entries = [
        entry(Digest::sha256(linux.as_bytes()), linux.len(), "linux"),
        entry(Digest::sha256(b"gone"), 7, "windows"),
    ];
    json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries}).to_string()
}

/// Answers as the last part of the repository says.
fn answer(asked: &Asked) -> Reply {
    let oci = |body: String, media_type: &str| Reply::ok(body).with("content-type", media_type);
    let rest = asked.target.strip_prefix("/v2/team/").unwrap_or_default();
    let (name, what) = rest.split_once('/').unwrap_or_default();
    let linux = manifest(5);
    match name {
        _ if asked.target.starts_with("/files/") => Reply::status(404),
        _ if what.ends_with(Digest::sha256(b"layer").hex()) => Reply::ok("layer"),
        _ if what.starts_with("blobs/") => Reply::ok(CONFIG),
        "index" if what.ends_with(&Digest::sha256(linux.as_bytes()).to_string()) => {
            oci(linux, media_type::OCI_MANIFEST)
        }
        "index" if what.starts_with("manifests/sha256:") => Reply::error(404, "MANIFEST_UNKNOWN"),
        "index" => oci(index(), media_type::OCI_INDEX),
        "good" => oci(linux, media_type::OCI_MANIFEST),
        "liar" => oci(manifest(6), media_type::OCI_MANIFEST),
        "denied1" | "denied2" => Reply::error(403, "DENIED"),
        "page" => Reply::ok("<html>sign in</html>").with("content-type", "text/html"),
        "cut" => oci("{".into(), media_type::OCI_MANIFEST),
        "packed" => oci("\u{1f}\u{8b}".into(), media_type::OCI_MANIFEST).with("content-encoding", "gzip"),
        "old" => oci(r#"{"schemaVersion":1}"#.into(), media_type::DOCKER_SCHEMA1),
        "changed" => {
            let other = Digest::sha256(b"other").to_string();
            oci(linux, media_type::OCI_MANIFEST).with("docker-content-digest", other)
        }
        _ => Reply::error(404, "MANIFEST_UNKNOWN"),
    }
}

const IMAGES: [&str; 12] = [
    "good", "nope1", "nope2", "denied2", "denied1", "page", "cut", "packed", "old", "changed", "liar",
    "index",
];

fn lock(home: &Path, server: &Server, more: &[&str]) -> Command {
    let address = server.address();
    let image = |name: &str| {
        let windows = if name == "index" { ", windows/ltsc2022" } else { "" };
        format!("{{ref: '{address}/team/{name}:1', nodes: [linux/amd64{windows}]}}")
    };
    let images = IMAGES.map(image).join(", ");
    let file = format!("{{url: 'http://{address}/files/x.tgz', sha256: {}}}", "0".repeat(64));
    let text = format!(
        "apiVersion: dray.dev/v1alpha1\nkind: Bundle\nmetadata: {{name: much}}\nspec:\n  \
         nodes: [linux/amd64, windows/ltsc2022]\n  runtimes: [containerd@2]\n  files: [{file}]\n  images: [{images}]\n"
    );
    std::fs::write(home.join("much.yaml"), text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_dray"));
    command.env_clear().env("HOME", home).args(["lock", "--plain-http", &address, "-f"]);
    command.arg(home.join("much.yaml")).arg("-o").arg(home.join("lock")).args(more);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn all_failures_of_a_lock_are_told_at_once() {
    let server = Server::start(answer).await;
    let home = tempfile::tempdir().unwrap();
    let first = lock(home.path(), &server, &["-j", "1"]).fail_with(4);
    for concurrency in ["2", "6", "16"] {
        let again = lock(home.path(), &server, &["-j", concurrency]).fail_with(4);
        assert_eq!(again.stderr, first.stderr);
    }
    let address = server.address();
    for name in IMAGES.iter().filter(|name| **name != "good") {
        assert!(first.stderr.contains(&format!("{address}/team/{name}:1")), "{name}: {}", first.stderr);
    }
    assert_eq!(first.stderr.matches("DENIED").count(), 1, "{}", first.stderr);
    first.says(&["11 of 12 images", "/files/x.tgz", "no such file", "schema 1", "coding `gzip`"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_data_for_programs() {
    let server = Server::start(answer).await;
    let home = tempfile::tempdir().unwrap();
    let output = lock(home.path(), &server, &["--format", "json"]).fail_with(4).stdout;
    let error: Value = serde_json::from_str(&output).unwrap();
    let missing = error["error"]["missing"].as_array().unwrap();
    let kind = |name: &str| -> Vec<&str> {
        let end = format!("/{name}:1");
        let of = |gap: &&Value| gap["ref"].as_str().is_some_and(|reference| reference.ends_with(&end));
        missing.iter().filter(of).map(|gap| gap["kind"].as_str().unwrap()).collect()
    };
    for (name, expected) in [
        ("nope1", "missing"),
        ("denied1", "denied"),
        ("page", "unreadable"),
        ("cut", "unreadable"),
        ("packed", "unreadable"),
        ("old", "schema1"),
        ("changed", "damaged"),
        ("liar", "damaged"),
        ("index", "missing"),
    ] {
        assert!(kind(name).contains(&expected), "{name}: {missing:#?}");
    }
    assert!(kind("good").is_empty());
    let file = missing.iter().find(|gap| gap["url"].is_string()).unwrap();
    assert_eq!((&file["kind"], &file["neededBy"]), (&json!("missing"), &json!([{"list": "files"}])));
    // Only the node kind whose image is gone misses it.
    let index =
        missing.iter().find(|gap| gap["ref"].as_str().is_some_and(|r| r.ends_with("/index:1"))).unwrap();
    assert_eq!(index["nodes"], json!(["windows(10.0.20348)/amd64"]));
    assert_eq!(index["digest"], json!(Digest::sha256(b"gone")));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_failure_can_be_allowed() {
    let server = Server::start(answer).await;
    let home = tempfile::tempdir().unwrap();
    let finished = lock(home.path(), &server, &["--allow-missing", "*/team/*,*/files/*,good:1"]).fail_with(0);
    let good = format!("did you mean {}/team/good:1?", server.address());
    finished.says(&[
        "`docker.io/library/good:1` is not in the definition",
        &good,
        "missing, which is allowed",
    ]);

    let lock = Lock::from_json(&std::fs::read(home.path().join("lock")).unwrap()).unwrap();
    let names: Vec<&str> = lock.images.iter().map(|image| image.reference.name().path()).collect();
    assert_eq!(names, ["team/good", "team/index"]);
    let is_denied = |allowed: &&Allowed| matches!(allowed, Allowed::Image { kind: GapKind::Denied, .. });
    assert_eq!(lock.allowed_missing.iter().filter(is_denied).count(), 2);
    let is_file = |allowed: &Allowed| matches!(allowed, Allowed::File { kind: GapKind::Missing, .. });
    assert!(lock.allowed_missing.iter().any(is_file));
    let bytes = Bytes::from(lock.to_json());
    assert_eq!(Lock::from_json(&bytes).unwrap(), lock);
}

#[tokio::test(flavor = "multi_thread")]
async fn lock_that_names_what_is_gone_is_made_again() {
    let gone = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let switch = std::sync::Arc::clone(&gone);
    let server = Server::start(move |asked| {
        if switch.load(std::sync::atomic::Ordering::SeqCst) && asked.target.contains("/manifests/") {
            return Reply::error(404, "MANIFEST_UNKNOWN");
        }
        answer(asked)
    })
    .await;
    let home = tempfile::tempdir().unwrap();
    let quiet = lock(home.path(), &server, &["--allow-missing", "*/team/*,*/files/*", "-q"]).fail_with(0);
    assert_eq!(quiet.stderr, "");
    gone.store(true, std::sync::atomic::Ordering::SeqCst);
    let mut build = Command::new(env!("CARGO_BIN_EXE_dray"));
    build.env_clear().env("HOME", home.path()).args(["build", "--plain-http", &server.address(), "--lock"]);
    build.arg(home.path().join("lock")).arg("-o").arg(home.path().join("bundle.tar"));
    let failed =
        build.fail_with(4).says(&["no such manifest", "hint:", "make the lock again with `dray lock`"]);
    assert!(!failed.stderr.contains("spelling"), "{}", failed.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn lock_of_which_nothing_is_left_is_refused() {
    let server = Server::start(answer).await;
    let home = tempfile::tempdir().unwrap();
    let mut lock = lock(home.path(), &server, &["--allow-missing", "*"]);
    let text = format!(
        "apiVersion: dray.dev/v1alpha1\nkind: Bundle\nmetadata: {{name: none}}\nspec: {{nodes: [linux/amd64], \
         runtimes: [containerd@2], images: ['{}/team/denied1:1']}}\n",
        server.address()
    );
    std::fs::write(home.path().join("much.yaml"), text).unwrap();
    lock.fail_with(4).says(&["denied1", "the bundle would be empty"]);
    assert!(!home.path().join("lock").exists());
}
