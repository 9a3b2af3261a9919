//! What every command does alike: flags from the environment, and errors for programs.
#![allow(clippy::unwrap_used)]

mod support;

use dray::resolve::GapKind;
use serde_json::Value;

use support::command::Run as _;
use support::site::dray;

const LOCK: &str = "tests/fixtures/check/none.lock";

#[test]
fn typed_flag_beats_variable_that_it_excludes() {
    let variables = [("DRAY_STORE", "/nonexistent"), ("DRAY_BUNDLE", "/nonexistent.tar")];
    // The lock is not there: that it is looked for shows that the variables do not count.
    dray()
        .args([
            "check",
            "--to",
            "kubeadm@v1.36.3",
            "--nodes",
            "tests/fixtures/check/kubeadm-nodes.json",
            "--lock",
            LOCK,
        ])
        .envs(variables)
        .fail_with(2)
        .says(&[LOCK]);
    dray()
        .args(["import", "/nonexistent.tar", "--to", "127.0.0.1:9/p", "--insecure-skip-verify"])
        .envs([("DRAY_STORE", "/nonexistent")])
        .fail_with(1)
        .says(&["/nonexistent.tar"]);
}

#[test]
fn conflicting_variables_are_named() {
    let variables = [("DRAY_STORE", "s"), ("DRAY_REGISTRY", "http://127.0.0.1:9")];
    dray()
        .args(["check", "--to", "kubeadm@v1.36.3", "--nodes", "n.json"])
        .envs(variables)
        .fail_with(2)
        .says(&["DRAY_STORE", "DRAY_REGISTRY"]);
}

#[test]
fn empty_variable_counts_as_not_set() {
    dray().args(["releases", "k0s"]).env("DRAY_FORMAT", "").env("DRAY_QUIET", "").succeed();
}

#[test]
fn secret_in_the_wrong_variable_is_not_repeated() {
    let failed = dray()
        .args(["keygen", "-o", "/nonexistent/key"])
        .env("DRAY_PASSPHRASE", "hunter22222")
        .fail_with(2)
        .says(&["DRAY_PASSPHRASE", "true or false"]);
    assert!(!failed.stderr.contains("hunter"), "{}", failed.stderr);
    let help = dray().args(["keygen", "--help"]).env("DRAY_PASSPHRASE", "hunter22222").succeed();
    assert!(help.contains("DRAY_PASSPHRASE") && !help.contains("hunter"), "{help}");
}

#[test]
fn help_names_the_variables() {
    let help = dray().args(["import", "--help"]).env("DRAY_STORE", "/srv/secret").succeed();
    assert!(help.contains("[env: DRAY_STORE]") && !help.contains("/srv/secret"), "{help}");
}

/// Runs a command that fails with `code` and returns its error as programs read it.
#[track_caller]
fn error(code: i32, arguments: &[&str]) -> Value {
    let finished = dray().args(arguments).fail_with(code);
    let json: Value = serde_json::from_str(&finished.stdout).unwrap();
    let object = json.as_object().unwrap();
    assert_eq!(object.keys().collect::<Vec<_>>(), ["error"], "{json}");
    let message = json["error"]["message"].as_str().unwrap();
    assert!(!message.starts_with("error:") && !message.is_empty(), "{message}");
    // People who read the log see the same.
    assert!(finished.stderr.contains(message.lines().next().unwrap()), "{}", finished.stderr);
    json["error"].clone()
}

#[test]
fn errors_are_json_where_results_are() {
    let usage = error(2, &["--format", "json", "lock", "--nonsense"]);
    assert_eq!(usage["kind"], "usage");
    let usage = error(2, &["images", "--release", "k0s@v0.1.0", "--node", "linux/amd64", "--format=json"]);
    assert_eq!(usage["kind"], "usage");
    let failed = error(1, &["verify", "/nonexistent.tar", "--insecure-skip-verify", "--format", "json"]);
    assert_eq!((&failed["kind"], &failed["missing"]), (&Value::from("failed"), &Value::Array(Vec::new())));
    let finished = dray().args(["lock", "--nonsense"]).env("DRAY_FORMAT", "json").fail_with(2);
    assert!(finished.stdout.starts_with('{'), "{}", finished.stdout);
    let finished = dray().args(["lock", "--nonsense"]).fail_with(2);
    assert!(finished.stdout.is_empty(), "{}", finished.stdout);
}

#[test]
fn documentation_names_every_kind_of_error() {
    let page = include_str!("../docs/json.md");
    for kind in ["failed", "usage", "verification", "incomplete", "interrupted"] {
        assert!(page.contains(&format!("| `{kind}` |")), "{kind}");
    }
    for kind in [
        GapKind::Missing,
        GapKind::Denied,
        GapKind::Credentials,
        GapKind::RateLimited,
        GapKind::Unreachable,
        GapKind::Unreadable,
        GapKind::Damaged,
        GapKind::Schema1,
        GapKind::Platform,
        GapKind::Scope,
    ] {
        let name = serde_json::to_value(kind).unwrap();
        assert!(page.contains(&format!("| `{}` |", name.as_str().unwrap())), "{name}");
    }
}
