//! Files of text that people supply: every encoding, standard input, and what is said of those that cannot be used.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

mod support;

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::path::Path;

use support::command::Run as _;
use support::site::dray;

const NODES: &str = "apiVersion: v1
kind: Node
metadata: {name: w1}
status: {nodeInfo: {operatingSystem: linux, architecture: amd64, kubeletVersion: v1.36.3+k0s}}
";
const CONFIG: &str = "apiVersion: k0s.k0sproject.io/v1beta1
kind: ClusterConfig
spec:
  network: {provider: calico}
";
const DEFINITION: &str = "apiVersion: dray.dev/v1alpha1
kind: Bundle
metadata: {name: plant-7}
spec:
  nodes: [linux/amd64]
  images: [nginx:1.27]
  charts: ['oci://ghcr.io/acme/chart:1.2.0+build.5']
";
const INDEX: &str =
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;

/// A standard input with these bytes.
fn stdin(bytes: impl AsRef<[u8]>) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes.as_ref()).unwrap();
    file.rewind().unwrap();
    file
}

/// `text` as shells and editors store it.
fn encodings(text: &str) -> Vec<Vec<u8>> {
    let windows = text.replace('\n', "\r\n");
    let utf16 = |unit: fn(u16) -> [u8; 2]| windows.encode_utf16().flat_map(unit).collect::<Vec<u8>>();
    vec![
        windows.clone().into_bytes(),
        text.replace('\n', "\r").into_bytes(),
        [b"\xef\xbb\xbf", windows.as_bytes()].concat(),
        [b"\xff\xfe", &utf16(u16::to_le_bytes)[..]].concat(),
        [b"\xfe\xff", &utf16(u16::to_be_bytes)[..]].concat(),
        utf16(u16::to_le_bytes),
        utf16(u16::to_be_bytes),
    ]
}

/// Runs a command for a file in every encoding, and for the same on standard input.
fn same_for_every_encoding(text: &str, arguments: impl Fn(&str) -> Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    let run = |bytes: &[u8], name: &str| {
        let mut command = dray();
        command.current_dir(folder.path()).args(arguments(name)).stdin(stdin(bytes));
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).replace("standard input", "file");
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap().replace("standard input", "file"),
            told,
        )
    };
    std::fs::write(&file, text).unwrap();
    let expected = run(b"", "file");
    assert!(!expected.1.is_empty() && !expected.2.contains("error: file"), "{expected:?}");
    for bytes in encodings(text) {
        std::fs::write(&file, &bytes).unwrap();
        assert_eq!(run(b"", "file"), expected, "{}", bytes.escape_ascii());
        assert_eq!(run(&bytes, "-"), expected, "- {}", bytes.escape_ascii());
    }
}

fn owned(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(ToString::to_string).collect()
}

#[test]
fn definitions_and_lists_are_read_in_every_encoding() {
    same_for_every_encoding(DEFINITION, |file| owned(&["images", "-f", file]));
    same_for_every_encoding("# ours\nnginx:1\nghcr.io/acme/x:2\n", |file| {
        owned(&["images", "--from-list", file])
    });
}

#[test]
fn objects_of_kubernetes_are_read_in_every_encoding() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (nodes, config) = (path("nodes", NODES), path("config", CONFIG));
    let check = ["check", "--to", "k0s@v1.36.3+k0s.2"];
    same_for_every_encoding(NODES, |file| {
        owned(&[&check[..], &["--cluster-config", &config, "--nodes", file]].concat())
    });
    same_for_every_encoding(CONFIG, |file| {
        owned(&[&check[..], &["--cluster-config", file, "--nodes", &nodes]].concat())
    });
}

#[test]
fn indexes_are_read_in_every_encoding() {
    let folder = tempfile::tempdir().unwrap();
    let index = folder.path().join("index");
    for bytes in encodings(INDEX) {
        std::fs::write(&index, bytes).unwrap();
        dray().args(["explain", "--node", "linux/amd64", "--index"]).arg(&index).succeed();
    }
}

#[test]
fn standard_input_is_read_only_once() {
    dray()
        .args(["check", "--to", "k0s@v1.36.3+k0s.2", "--cluster-config", "-", "--nodes", "-"])
        .stdin(stdin(CONFIG))
        .fail_with(2)
        .says(&["standard input can be read only once"]);
}

#[test]
fn chart_version_with_build_metadata_is_a_tag_as_helm_makes_it() {
    let listed = dray().args(["images", "-f", "-"]).stdin(stdin(DEFINITION)).succeed();
    assert!(listed.contains("ghcr.io/acme/chart:1.2.0_build.5\n"), "{listed}");
}

#[test]
fn files_that_are_something_else_are_named_as_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x4b\x04\0\x43\xbe\xb7\xe8\x01\0\0\0";
    for (name, bytes, told) in [
        ("plant.gz", &gzip[..], "compressed with gzip"),
        ("plant.zip", b"PK\x03\x04\x14\0\0\0\x08\0", "a zip archive"),
        ("plant.exe", b"MZ\x90\0\x03\0\0\0\x04\0\0\0\xff\xff", "a program for Windows"),
        ("plant.html", b"<!DOCTYPE html><html></html>", "a page of HTML"),
    ] {
        std::fs::write(path(name), bytes).unwrap();
        let reads: [&[&str]; 3] = [&["images", "-f"], &["images", "--from-list"], &["plan", "--lock"]];
        for command in reads {
            dray().args(command).arg(path(name)).fail_with(2).says(&[name, told]);
        }
        dray().args(["verify", "--insecure-skip-verify"]).arg(path(name)).fail_with(2).says(&[name, told]);
    }
    // A script with zeros in it is no kind that is known: it counts as damaged.
    for (name, magic, code) in [
        ("a.zst", &b"\x28\xb5\x2f\xfd"[..], 2),
        ("a.bz2", b"BZh9", 2),
        ("a.xz", b"\xfd7zXZ\0", 2),
        ("a.sh", b"#!/bin/sh\n", 3),
    ] {
        std::fs::write(path(name), [magic, &[0; 2000]].concat()).unwrap();
        let store = path("store");
        let store = store.to_str().unwrap();
        for command in [&["verify"][..], &["import", "--store", store]] {
            let mut refused = dray();
            refused.args(command).arg("--insecure-skip-verify").arg(path(name));
            refused.fail_with(code).says(&[name]);
        }
        assert!(!path("store").join("imports").exists(), "{name}");
    }
    std::fs::write(path("plant.yaml"), DEFINITION).unwrap();
    dray()
        .args(["verify", "--insecure-skip-verify"])
        .arg(path("plant.yaml"))
        .fail_with(2)
        .says(&["is not a bundle, it is text", "dray build -f"]);
    dray().args(["images", "-f"]).arg(folder.path()).fail_with(2).says(&["is a directory, not a file"]);
}

#[test]
fn file_without_its_flag_is_told_the_flag() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("plant.yaml"), DEFINITION).unwrap();
    std::fs::write(folder.path().join("plant.lock"), "{}").unwrap();
    for (command, file, expected) in [
        ("lock", "plant.yaml", "`dray lock -f plant.yaml`"),
        ("plan", "plant.yaml", "`dray plan -f plant.yaml`"),
        ("build", "plant.lock", "`dray build --lock plant.lock`"),
        ("serve", ".", "`dray serve --store .`"),
        ("serve", "plant.tar", "`dray serve --bundle plant.tar`"),
        ("images", "apps.txt", "`dray images --from-list apps.txt`"),
    ] {
        dray().current_dir(folder.path()).args([command, file]).fail_with(2).says(&[expected]);
    }
}

#[test]
fn users_are_needed_where_a_password_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    for (text, expected) in [("\u{feff}", "users has no users"), ("ann", "line 1: expected USER:HASH")] {
        std::fs::write(&users, text).unwrap();
        dray()
            .args(["serve", "--private", "--store", "/nonexistent", "--htpasswd"])
            .arg(&users)
            .fail_with(2)
            .says(&[expected]);
    }
}

#[test]
fn empty_credentials_are_none() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), "").unwrap();
    let reads = |path: &Path| {
        dray()
            .args(["explain", "127.0.0.1:9/a/b:1", "--node", "linux/amd64", "--plain-http", "127.0.0.1:9"])
            .env("DOCKER_CONFIG", path)
            .env("HOME", path)
            .env_remove("REGISTRY_AUTH_FILE")
            .fail_with(1)
    };
    let told = reads(folder.path()).stderr;
    assert!(told.contains("127.0.0.1:9") && !told.contains("config.json is not"), "{told}");
}

#[test]
fn number_in_place_of_text_blocks_the_check() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = folder.path().join("nodes.yaml");
    std::fs::write(&nodes, NODES).unwrap();
    let k0sctl = format!(
        "apiVersion: k0sctl.k0sproject.io/v1beta1\nkind: Cluster\nspec:\n  k0s:\n    version: 1.35.4+k0s.0\n    config:\n      {}",
        CONFIG.replace('\n', "\n      ")
    );
    let check = |config: &str| {
        let mut command = dray();
        command.args(["check", "--to", "k0s@v1.36.3+k0s.2", "--cluster-config", "-", "--nodes"]);
        command.arg(&nodes).args(["-v", "--format", "json"]).stdin(stdin(config));
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let wrong = "  images: {pause: {version: 3.10}}\n";
    for (config, line, path) in [
        (format!("{CONFIG}{wrong}"), 5, "spec.images.pause.version"),
        (
            format!("{}{wrong}", k0sctl.trim_end_matches(' ').to_owned() + "      "),
            11,
            "spec.k0s.config.spec.images.pause.version",
        ),
    ] {
        let (code, report) = check(&config);
        assert_eq!(code, 4, "{report}");
        assert!(report.contains(&format!("standard input, line {line}: `{path}` is 3.10")), "{report}");
    }
    let (_, report) = check(&k0sctl);
    assert!(report.contains("k0sctl-version") && !report.contains("not-text"), "{report}");
}

#[test]
fn node_kind_that_is_named_twice_counts_once() {
    let prepull = |nodes: &[&str]| {
        let mut command = dray();
        command.args(["prepull", "--engine", "daemonset", "--release", "k0s@v1.36.3+k0s.2"]);
        for node in nodes {
            command.args(["--node", node]);
        }
        command.succeed()
    };
    assert_eq!(prepull(&["linux/amd64", "linux/x86_64"]), prepull(&["linux/amd64"]));
}
