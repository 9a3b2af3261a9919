//! `dray explain` on the index of pause 3.10.2, which has an image for each of three Windows releases.
#![allow(clippy::unwrap_used)]

use assert_cmd::Command;
use dray::select::{Band, bands};
use serde_json::Value;

const PAUSE: &str = "src/oci/testdata/pause-3.10.2.json";

fn explain(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dray"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).arg("explain").args(arguments);
    command
}

fn stdout(arguments: &[&str]) -> String {
    let output = explain(arguments).assert().success().get_output().stdout.clone();
    String::from_utf8(output).unwrap()
}

fn answers(arguments: &[&str]) -> Vec<Value> {
    serde_json::from_str(&stdout(&[arguments, &["--format", "json"]].concat())).unwrap()
}

fn refusal(arguments: &[&str], code: i32) -> String {
    let output = explain(arguments).assert().code(code).get_output().stderr.clone();
    String::from_utf8(output).unwrap()
}

#[test]
fn every_band_of_a_windows_2025_node() {
    let text = stdout(&["registry.k8s.io/pause:3.10.2", "--index", PAUSE, "--node", "windows/ltsc2025"]);
    insta::assert_snapshot!(text);
}

#[test]
fn two_kinds_of_node() {
    let text = stdout(&[
        "--index",
        PAUSE,
        "--node",
        "windows(10.0.17763)/amd64",
        "--node",
        "linux/arm/v6",
        "--client",
        "containerd@2.1.6",
        "--client",
        "cri-o",
    ]);
    insta::assert_snapshot!(text);
}

#[test]
fn programs_read_the_positions_and_digests() {
    let answers = answers(&["--index", PAUSE, "--node", "windows/ltsc2025", "--client", "containerd@2.1.6"]);
    assert_eq!(answers.len(), 1);
    let answer = &answers[0];
    assert_eq!(answer["client"], "containerd 2.1.6-2.2.x");
    assert_eq!(answer["node"], "windows(10.0.26100)/amd64");
    assert_eq!(answer["picks"]["position"], 7);
    assert_eq!(
        answer["picks"]["digest"],
        "sha256:204307c2c0c323fd15250a322c086df5b2d9f2d329c628c0805749068a53b0ba"
    );
    assert_eq!(answer["fetches"], serde_json::json!([6, 7]));
    assert!(answer["reason"].as_str().unwrap().contains("the 2025 image"));
}

#[test]
fn copy_tools_are_asked_for_what_was_typed() {
    let picks = |node: &str, client: &str| {
        answers(&["--index", PAUSE, "--node", node, "--client", client])[0]["picks"]["position"].as_u64()
    };
    assert_eq!(picks("windows/amd64", "crane"), Some(5));
    assert_eq!(picks("windows/amd64:10.0.20348", "crane"), None);
    assert_eq!(picks("windows/amd64:10.0.20348.4294", "crane"), Some(6));
    assert_eq!(picks("windows/amd64,osver=10.0.26100.1", "regclient"), Some(7));
    // The index has linux/arm without a variant; a node of that kind is linux/arm/v7.
    assert_eq!(picks("linux/arm", "crane"), Some(1));
    assert_eq!(picks("linux/arm/v7", "crane"), None);
    assert_eq!(picks("linux/arm", "containerd@1.7"), Some(1));
    // A host states no revision, whatever was typed.
    assert_eq!(picks("windows(10.0.20348.1)/amd64", "containerd@1.7.0"), Some(6));
}

#[test]
fn without_a_build_only_copy_tools_can_answer() {
    let output = explain(&["--index", PAUSE, "--node", "windows/amd64", "--format", "json"])
        .assert()
        .success()
        .get_output()
        .clone();
    let answers: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert!(answers.iter().all(|answer| !answer["client"].as_str().unwrap().starts_with("containerd")));
    assert!(String::from_utf8_lossy(&output.stderr).contains("windows/ltsc2022"));
    let message = refusal(&["--index", PAUSE, "--node", "windows/amd64", "--client", "containerd"], 2);
    assert!(message.contains("windows/ltsc2022"), "{message}");
}

#[test]
fn wrong_usage_says_what_is_right() {
    for (arguments, word) in [
        (&["--node", "windows/ltsc2021"][..], "ltsc2022"),
        (&["--node", "darwin/arm64"], "linux or windows"),
        (&["--node", "linux/amd64", "--client", "rkt"], "containerd"),
        (&["--node", "linux/amd64", "--client", "k0s@1.20"], "k0s 1.33-1.35"),
        (&["--node", "linux/amd64", "--client", "containerd@new"], "containerd@1.7"),
    ] {
        let message = refusal(&[&["--index", PAUSE], arguments].concat(), 2);
        assert!(message.contains(word), "{message}");
    }
    refusal(&["--node", "linux/amd64"], 2);
    refusal(&["--index", "Cargo.toml", "--node", "linux/amd64"], 2);
    assert!(refusal(&["--index", "no-such-file", "--node", "linux/amd64"], 2).contains("no-such-file"));
}

#[test]
fn standard_input_is_bounded() {
    let index = std::fs::read(PAUSE).unwrap();
    explain(&["--index", "-", "--node", "linux/amd64"]).write_stdin(index).assert().success();
    let message = explain(&["--index", "-", "--node", "linux/amd64"])
        .write_stdin(vec![b' '; 5 * 1024 * 1024])
        .assert()
        .code(2)
        .get_output()
        .stderr
        .clone();
    assert!(String::from_utf8_lossy(&message).contains("larger"));
}

/// An index as `BuildKit` writes it: an image, and its attestation.
const ATTESTED: &str = r#"{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [
    {"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 418,
     "digest": "sha256:c6d8a10db0a4dccd5f5d64d62be23c89983936d7f635ba16f9fbb496097f3c58",
     "platform": {"os": "linux", "architecture": "amd64"}},
    {"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 482,
     "digest": "sha256:500d53249a72bb829714c0b7b49a2842b93a6cdb1a0884f620a9c8f4dac5ebf8",
     "annotations": {"vnd.docker.reference.type": "attestation-manifest",
       "vnd.docker.reference.digest": "sha256:c6d8a10db0a4dccd5f5d64d62be23c89983936d7f635ba16f9fbb496097f3c58"},
     "platform": {"os": "unknown", "architecture": "unknown"}}]}"#;

#[test]
fn attestations_are_fetched_by_those_who_look_at_annotations() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("index.json");
    std::fs::write(&file, ATTESTED).unwrap();
    let file = file.to_str().unwrap();
    let answers = answers(&["--index", file, "--node", "linux/amd64"]);
    for answer in &answers {
        let client = answer["client"].as_str().unwrap();
        let both = client.starts_with("k0s ") || client.starts_with("docker-containerd 29.");
        let expected = if both { serde_json::json!([0, 1]) } else { serde_json::json!([0]) };
        assert_eq!((&answer["fetches"], &answer["picks"]["position"]), (&expected, &0.into()), "{client}");
    }
    let text = stdout(&["--index", file, "--node", "linux/amd64", "--client", "docker-containerd@29.3"]);
    assert!(text.contains("attestation of c6d8a10db0a4"), "{text}");
    assert!(text.contains("docker-containerd 29.1-29.5") && text.contains("  0 1 "), "{text}");
    assert!(text.contains("one of them is an attestation of what it takes"), "{text}");
}

#[test]
fn one_image_leaves_no_choice() {
    let image = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
        "config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,
        "digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},"layers":[]}"#;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("image.json");
    std::fs::write(&file, image).unwrap();
    let answers = answers(&["--index", file.to_str().unwrap(), "--node", "windows/ltsc2022"]);
    assert!(answers.iter().all(|answer| answer["picks"]["position"] == 0));
    assert!(answers[0]["reason"].as_str().unwrap().contains("no index"));
}

#[test]
fn the_documentation_shows_what_is_printed() {
    let page = include_str!("../docs/windows-selection.md");
    let arguments = [
        "--index",
        PAUSE,
        "--node",
        "windows/ltsc2025",
        "--client",
        "containerd@1.7",
        "--client",
        "containerd@2",
    ];
    let shown = format!("$ dray explain {}\n{}```", arguments.join(" "), stdout(&arguments));
    assert!(page.contains(&shown), "docs/windows-selection.md should have:\n{shown}");
    let windows = bands().iter().filter(|band| band.applies_to("windows"));
    for label in windows.map(Band::label).filter(|label| !matches!(label.as_str(), "crane" | "oras")) {
        assert!(page.contains(&format!("\n| {label} ")), "docs/windows-selection.md has no row for {label}");
    }
}
