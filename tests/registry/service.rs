//! The unit for systemd in `contrib/`, under systemd.

use std::fs;
use std::process::Command;

use crate::support::command::Run;

const DRAY: &str = env!("CARGO_BIN_EXE_dray");
const CONTRIB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib");

#[test]
fn the_unit_is_right_and_leaves_few_rights() {
    let directory = tempfile::tempdir().unwrap();
    let unit = directory.path().join("dray.service");
    let shipped = fs::read_to_string(format!("{CONTRIB}/dray.service")).unwrap();
    fs::write(&unit, shipped.replace("/usr/local/bin/dray", DRAY)).unwrap();
    let socket = directory.path().join("dray.socket");
    fs::copy(format!("{CONTRIB}/dray.socket"), &socket).unwrap();
    let said = Command::new("systemd-analyze").arg("verify").args([&unit, &socket]).finish();
    assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{}", said.stdout);
    // In tenths: 1.5 of 10, where 10 is a service with all rights.
    Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=15"])
        .arg(&unit)
        .succeed();
}

/// As an ordinary user, with no capability, under the filter of system calls.
#[test]
fn systemd_runs_it() {
    let directory = tempfile::tempdir().unwrap();
    let [scratch, out] = ["scratch", "out"].map(|name| directory.path().join(name));
    fs::create_dir(&scratch).unwrap();
    fs::create_dir(&out).unwrap();
    Command::new("timeout")
        .args(["--kill-after=5", "60", "unshare"])
        .args(["--mount", "--pid", "--fork", "--kill-child", "--ipc", "--uts", "--net", "--cgroup", "bash"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/registry/service.sh"))
        .args([DRAY, CONTRIB])
        .args([&scratch, &out])
        .succeed();
    let log = fs::read_to_string(out.join("log")).unwrap();
    let expected = "push of nobody 401\n\
                    push 201\n\
                    dray\n\
                    CapEff:\t0000000000000000\n\
                    CapBnd:\t0000000000000000\n\
                    NoNewPrivs:\t1\n\
                    Seccomp:\t2\n\
                    dray 750\n\
                    hello pulled as pushed\n\
                    push of root 201\n\
                    push after root 201\n\
                    200\n\
                    the slow one has it all\n\
                    hello pulled after a restart\n\
                    hello pulled after it was killed\n\
                    Result=success\n\
                    ExecMainStatus=0\n";
    assert_eq!(log, expected);
}
