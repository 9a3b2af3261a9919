//! One lock, one sequence of bytes: whatever the order of downloads, and however often the build was interrupted.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

mod support;

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
};

use dray::oci::{Algorithm, Digest, Hasher};
use support::{
    command::Run,
    daemon::Daemon,
    proxy::Proxy,
    site::Site,
    upstream::{self, BIG, BIG_LAYER, SINGLE},
};

const DEFINITION: &str = "\
apiVersion: dray.dev/v1alpha1
kind: Bundle
metadata:
  name: plant-7
spec:
  nodes:
    - linux/amd64
    - windows/ltsc2022
  runtimes: [containerd@1.7, containerd@2]
  images:
    - registry.k8s.io/pause:3.9
    - registry.k8s.io/pause:3.10
    - ref: ghcr.io/containerd/containerd:1.6
      nodes: [linux/amd64]
    - ref: docker.io/library/busybox:1.35
      nodes: [linux/amd64]
";

/// How much of the big layer has arrived when a build is interrupted.
const INTERRUPTED_AT: u64 = 400_000_000;
/// What may have been under way at that moment, and is fetched again.
const IN_FLIGHT: u64 = 100_000_000;

fn digest(path: &Path) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut file = File::open(path).unwrap();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer).unwrap();
        if count == 0 {
            return hasher.finish();
        }
        hasher.update(&buffer[..count]);
    }
}

#[test]
fn two_locks_of_one_definition_are_the_same_bytes() {
    let upstream = upstream::start();
    let site = Site::new(DEFINITION);
    site.lock(upstream.address()).succeed();
    let first = fs::read(site.path("bundle.lock")).unwrap();
    site.lock(upstream.address()).args(["-j", "1"]).succeed();
    assert_eq!(first, fs::read(site.path("bundle.lock")).unwrap());
}

#[test]
fn two_builds_of_one_lock_are_the_same_bytes() {
    let upstream = upstream::start();
    let site = Site::new(DEFINITION);
    site.lock(upstream.address()).succeed();
    let (one, many) = (site.path("one.tar"), site.path("many.tar"));
    site.build(upstream.address(), &one).args(["-j", "1"]).succeed();
    site.build(upstream.address(), &many).args(["-j", "32"]).succeed();
    assert_eq!(digest(&one), digest(&many));
}

#[test]
fn a_bundle_is_proved_to_be_what_its_lock_gives() {
    let upstream = upstream::start();
    let site = Site::new(DEFINITION);
    let bundle = site.bundle(upstream.address());
    site.verify(&bundle).arg("--rebuild").arg(site.path("bundle.lock")).succeed();

    let other = Site::new(&definition_of(SINGLE));
    other.lock(upstream.address()).succeed();
    site.verify(&bundle).arg("--rebuild").arg(other.path("bundle.lock")).fail_with(3);
}

#[test]
fn a_build_that_was_killed_is_continued_and_gives_the_same_bytes() {
    let upstream = upstream::big();
    let site = Site::new(&definition_of(BIG));
    site.lock(upstream.address()).succeed();
    let whole = site.path("whole.tar");
    site.build(upstream.address(), &whole).succeed();
    let expected = digest(&whole);
    fs::remove_file(&whole).unwrap();

    let bundle = site.path("bundle.tar");
    let slow = Proxy::start(upstream.address(), 300_000_000);
    let mut build = Daemon::start(&site.build(slow.address(), &bundle));
    slow.wait_for(INTERRUPTED_AT);
    build.kill();
    assert!(!bundle.exists(), "an unfinished bundle must not look like one");

    let line = Proxy::start(upstream.address(), u64::MAX);
    site.build(line.address(), &bundle).succeed();
    assert_eq!(digest(&bundle), expected);
    let again = line.received();
    assert!(again < BIG_LAYER - INTERRUPTED_AT + IN_FLIGHT, "{again} bytes were fetched again");
    site.verify(&bundle).succeed();
}

#[test]
fn ctrl_c_ends_a_build_with_130_and_loses_nothing() {
    let upstream = upstream::big();
    let site = Site::new(&definition_of(BIG));
    site.lock(upstream.address()).succeed();
    let bundle = site.path("bundle.tar");
    let slow = Proxy::start(upstream.address(), 300_000_000);
    let mut build = Daemon::start(&site.build(slow.address(), &bundle));
    slow.wait_for(INTERRUPTED_AT);
    build.signal("INT");
    assert_eq!(build.wait(), 130, "{}", build.log());

    let line = Proxy::start(upstream.address(), u64::MAX);
    site.build(line.address(), &bundle).succeed();
    assert!(line.received() < BIG_LAYER - INTERRUPTED_AT + IN_FLIGHT);
}

fn definition_of(image: &str) -> String {
    format!(
        "apiVersion: dray.dev/v1alpha1\nkind: Bundle\nmetadata: {{name: big}}\n\
         spec:\n  nodes: [linux/amd64]\n  images: ['{image}']\n"
    )
}
