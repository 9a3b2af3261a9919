//! What goes wrong on the way: each time a message that names the thing, the exit code that scripts rely on, nothing
//! lost, and a next run that continues.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

mod support;

mod bad_input {
    mod crash;
}

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use support::{
    command::Run,
    daemon::Daemon,
    disk::SmallDisk,
    proxy::Proxy,
    registry::{Access, Registry},
    site::{Serve, Site},
    upstream::{self, BIG, BIG_LAYER, PACKAGE, PAUSE_DOCKER, SINGLE},
};

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const UNVERIFIED: i32 = 3;
const INCOMPLETE: i32 = 4;

fn definition(images: &[&str]) -> String {
    let mut text = "apiVersion: dray.dev/v1alpha1\nkind: Bundle\nmetadata:\n  name: plant-7\n\
                    spec:\n  nodes:\n    - linux/amd64\n  images:\n"
        .to_owned();
    for image in images {
        text.push_str("    - ");
        text.push_str(image);
        text.push('\n');
    }
    text
}

/// Panics unless the store still serves `reference` with the upstream's bytes.
#[track_caller]
fn still_serves(store: &Path, reference: &str, upstream: &Registry) {
    let serve = Serve::start(&["--store", store.to_str().unwrap()]);
    let raw = Command::new("skopeo")
        .args(["inspect", "--raw", "--tls-verify=false", &serve.docker(reference)])
        .succeed();
    assert_eq!(raw, upstream.raw(reference));
}

/// What a command that ends well says on the way.
#[track_caller]
fn warnings(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{text}");
    text
}

#[test]
fn expired_bundle_is_neither_locked_nor_planned_nor_built() {
    let upstream = upstream::start();
    let text = definition(&[SINGLE]);
    let expiring = |time: &str| text.replace("name: plant-7", &format!("name: plant-7\n  expires: {time}"));
    let site = Site::new(&text);
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(72);
    let soon = jiff::Timestamp::from_second(soon.as_second()).unwrap().to_string();
    fs::write(site.path("bundle.yaml"), expiring(&soon)).unwrap();
    let warning = warnings(&mut site.lock(upstream.address()));
    assert!(warning.contains("bundle.yaml: the bundle expires in "), "{warning}");
    fs::write(site.path("bundle.yaml"), expiring("2020-01-01")).unwrap();
    site.lock(upstream.address())
        .fail_with(USAGE)
        .says(&["bundle.yaml", "has expired, on 2020-01-02T00:00:00Z"]);
    let lock = fs::read_to_string(site.path("bundle.lock")).unwrap().replace(&soon, "2020-01-02T00:00:00Z");
    fs::write(site.path("bundle.lock"), lock).unwrap();
    let bundle = site.path("x.tar");
    site.build(upstream.address(), &bundle).fail_with(USAGE).says(&["bundle.lock", "has expired"]);
    assert!(!bundle.exists());
}

#[test]
fn lock_that_replaces_its_sequence_is_warned_of() {
    let upstream = upstream::start();
    let site = Site::new(&definition(&[SINGLE]));
    assert_eq!(warnings(&mut site.lock(upstream.address())), "");
    assert_eq!(warnings(&mut site.lock(upstream.address())), "", "the same lock again");
    fs::write(site.path("bundle.yaml"), definition(&[SINGLE, PAUSE_DOCKER])).unwrap();
    let warning = warnings(&mut site.lock(upstream.address()));
    assert!(warning.contains("had sequence 1 of `plant-7` with other content"), "{warning}");
    let other = definition(&[SINGLE]).replace("name: plant-7", "name: plant-7\n  sequence: 2");
    fs::write(site.path("bundle.yaml"), other).unwrap();
    assert_eq!(warnings(&mut site.lock(upstream.address())), "");
}

#[test]
fn images_and_tags_that_are_missing_are_all_named() {
    let upstream = upstream::start();
    let (image, tag) = ("quay.io/k0sproject/nothing:1.0", "registry.k8s.io/pause:0.0");
    let site = Site::new(&definition(&[SINGLE, image, tag]));
    site.lock(upstream.address()).fail_with(INCOMPLETE).says(&[image, tag]);
    assert!(!site.path("bundle.lock").exists(), "a lock that is not complete must not be written");
}

#[test]
fn an_image_without_an_entry_for_a_node_kind_is_named_with_the_kind() {
    let upstream = upstream::start();
    let text = definition(&["docker.io/library/busybox:1.35"])
        .replace("    - linux/amd64\n", "    - linux/amd64\n    - windows/ltsc2022\n");
    let site = Site::new(&text);
    site.lock(upstream.address())
        .fail_with(INCOMPLETE)
        .says(&["docker.io/library/busybox:1.35", "windows(10.0.20348)/amd64"]);
}

#[test]
fn a_typo_in_the_definition_is_named_by_its_line() {
    let site = Site::new(&definition(&[SINGLE]).replace("  images:", "  imagse:"));
    site.lock("127.0.0.1:9").fail_with(USAGE).says(&["imagse", "bundle.yaml", "8"]);
    let site = Site::new(&definition(&["Quay.io/UPPER:1"]));
    site.lock("127.0.0.1:9").fail_with(USAGE).says(&["UPPER", "bundle.yaml", "spec.images[0]"]);
}

#[test]
fn an_upstream_that_wants_a_password_says_so_and_takes_one() {
    let upstream = Registry::start(&upstream::data(), Access::Password("courier", "se/cret"));
    let site = Site::new(&definition(&[SINGLE]));
    site.lock(upstream.address()).fail_with(INCOMPLETE).says(&[
        "quay.io",
        "without credentials",
        "podman login",
    ]);

    let auth = site.path("auth.json");
    // base64 of `courier:wrong` and of `courier:se/cret`
    for (word, code) in [("Y291cmllcjp3cm9uZw==", INCOMPLETE), ("Y291cmllcjpzZS9jcmV0", 0)] {
        let text = format!(r#"{{"auths": {{"{}": {{"auth": "{word}"}}}}}}"#, upstream.address());
        fs::write(&auth, text).unwrap();
        let finished = site.lock(upstream.address()).env("REGISTRY_AUTH_FILE", &auth).fail_with(code);
        assert!(
            !finished.stderr.contains(word) && !finished.stderr.contains("se/cret"),
            "a secret is printed"
        );
    }
    let bundle = site.path("bundle.tar");
    site.build(upstream.address(), &bundle).fail_with(INCOMPLETE);
    site.build(upstream.address(), &bundle).env("REGISTRY_AUTH_FILE", &auth).succeed();
}

#[test]
fn an_upstream_that_is_down_is_named_within_a_minute() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let site = Site::new(&definition(&[SINGLE]));
    let start = Instant::now();
    site.lock(&closed).fail_with(FAILED).says(&["quay.io", &closed]);
    assert!(start.elapsed() < Duration::from_mins(1));
}

#[test]
fn a_connection_that_breaks_in_mid_blob_is_taken_up_again() {
    let upstream = upstream::start();
    let site = Site::new(&definition(&[PACKAGE]));
    site.lock(upstream.address()).succeed();
    let line = Proxy::start(upstream.address(), 20_000_000);
    let bundle = site.path("bundle.tar");
    let mut build = Daemon::start(&site.build(line.address(), &bundle));
    line.wait_for(10_000_000);
    line.cut();
    line.wait_for(20_000_000);
    line.cut();
    line.set_rate(u64::MAX);
    assert_eq!(build.wait(), 0, "{}", build.log());
    let total = fs::metadata(&bundle).unwrap().len();
    assert!(line.received() < total + 8_000_000, "{} bytes fetched for {total}", line.received());
    site.verify(&bundle).succeed();
}

#[test]
fn an_upstream_that_goes_away_leaves_a_build_that_continues() {
    let upstream = upstream::start();
    let site = Site::new(&definition(&[PACKAGE, SINGLE]));
    site.lock(upstream.address()).succeed();
    let bundle = site.path("bundle.tar");
    let line = Proxy::start(upstream.address(), 20_000_000);
    let mut build = Daemon::start(&site.build(line.address(), &bundle));
    line.wait_for(10_000_000);
    drop(line);
    assert_eq!(build.wait(), FAILED, "{}", build.log());
    assert!(!bundle.exists());

    let line = Proxy::start(upstream.address(), u64::MAX);
    site.build(line.address(), &bundle).succeed();
    let total = fs::metadata(&bundle).unwrap().len();
    assert!(line.received() < total - 5_000_000, "{} bytes fetched again of {total}", line.received());
    site.verify(&bundle).succeed();
}

#[test]
fn two_builds_of_one_output_do_not_meet() {
    let upstream = upstream::start();
    let site = Site::new(&definition(&[PACKAGE]));
    site.lock(upstream.address()).succeed();
    let bundle = site.path("bundle.tar");
    let line = Proxy::start(upstream.address(), 5_000_000);
    let mut first = Daemon::start(&site.build(line.address(), &bundle));
    line.wait_for(2_000_000);
    site.build(upstream.address(), &bundle).fail_with(FAILED).says(&["bundle.tar", "another"]);
    line.set_rate(u64::MAX);
    assert_eq!(first.wait(), 0, "{}", first.log());
    site.verify(&bundle).succeed();
}

#[test]
fn a_full_disk_in_a_build_is_named_and_the_next_run_succeeds() {
    let upstream = upstream::start();
    let site = Site::new(&definition(&[PACKAGE]));
    site.lock(upstream.address()).succeed();
    let disk = SmallDisk::mount(site.path("disk"), "10m");
    let bundle = disk.path("bundle.tar");
    site.build(upstream.address(), &bundle).fail_with(FAILED).says(&["bundle.tar", "space"]);
    assert!(!bundle.exists());
    disk.grow("200m");
    site.build(upstream.address(), &bundle).succeed();
    site.verify(&bundle).succeed();
}

#[test]
fn a_full_disk_in_an_import_keeps_what_was_there() {
    let upstream = upstream::start();
    let first = Site::new(&definition(&[SINGLE]));
    let small = first.bundle(upstream.address());
    let second = Site::new(&definition(&[SINGLE, PACKAGE]).replace("plant-7", "plant-8"));
    let large = second.bundle(upstream.address());

    let disk = SmallDisk::mount(first.path("disk"), "10m");
    let store = disk.path("store");
    first.import(&small, &store).succeed();
    second.import(&large, &store).fail_with(FAILED).says(&["space"]);
    still_serves(&store, SINGLE, &upstream);
    disk.grow("200m");
    second.import(&large, &store).succeed();
    still_serves(&store, PACKAGE, &upstream);
}

#[test]
fn a_truncated_bundle_is_refused() {
    let upstream = upstream::start();
    let site = Site::new(&definition(&[PAUSE_DOCKER, PACKAGE]));
    let bundle = site.bundle(upstream.address());
    let total = fs::metadata(&bundle).unwrap().len();
    let cut = site.path("cut.tar");
    for length in [0, 1, 511, 512, 10_000, total / 2, total - 20_000, total - 1025] {
        fs::copy(&bundle, &cut).unwrap();
        OpenOptions::new().write(true).open(&cut).unwrap().set_len(length).unwrap();
        refused(&site, &cut, &format!("cut at {length} of {total}"));
    }
}

#[test]
fn one_flipped_bit_anywhere_is_found() {
    let upstream = upstream::start();
    let site = Site::new(&definition(&[PAUSE_DOCKER, PACKAGE]));
    let bundle = site.bundle(upstream.address());
    let damaged = site.path("damaged.tar");
    fs::copy(&bundle, &damaged).unwrap();
    for (what, offset) in places(&bundle) {
        flip(&damaged, offset);
        refused(&site, &damaged, &format!("{what}, byte {offset}"));
        flip(&damaged, offset);
    }
    site.verify(&damaged).succeed();
}

/// A byte in the header and one in the content of every entry of the archive.
fn places(bundle: &Path) -> Vec<(String, u64)> {
    let mut archive = tar::Archive::new(File::open(bundle).unwrap());
    let mut places = Vec::new();
    for entry in archive.entries_with_seek().unwrap() {
        let entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        // The name is at the start of a header.
        places.push((format!("header of {name}"), entry.raw_header_position() + 20));
        if entry.size() > 0 {
            places.push((format!("content of {name}"), entry.raw_file_position() + entry.size() / 2));
        }
    }
    assert!(places.len() > 20);
    places
}

fn flip(path: &Path, offset: u64) {
    let mut file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.read_exact(&mut byte).unwrap();
    byte[0] ^= 0x10;
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(&byte).unwrap();
}

/// Panics unless neither `verify` nor `import` takes the bundle, and nothing of it is in the store.
#[track_caller]
fn refused(site: &Site, bundle: &Path, why: &str) {
    let name = bundle.file_name().unwrap().to_str().unwrap();
    // A new one each time: a blob that a store already has is not read from the bundle, and damage to it does no harm.
    let store = tempfile::tempdir_in(site.path("")).unwrap();
    for mut command in [site.verify(bundle), site.import(bundle, store.path())] {
        let finished = command.finish();
        assert_eq!(finished.code, UNVERIFIED, "{why}: {command:?}\n{}", finished.stderr);
        assert!(
            finished.stderr.contains(name),
            "{why}: the message does not name the file\n{}",
            finished.stderr
        );
    }
    let list = Command::new("find").arg(store.path()).args(["-type", "f", "-path", "*tags*"]).finish();
    assert_eq!(list.stdout, "", "{why}: a refused import left tags behind");
}

#[test]
fn a_bundle_that_nobody_signed_is_refused() {
    let upstream = upstream::start();
    let site = Site::new(&definition(&[SINGLE]));
    let bundle = site.bundle(upstream.address());
    let stranger = Site::new(&definition(&[SINGLE]));
    stranger.verify(&bundle).fail_with(UNVERIFIED);
    let store = stranger.path("store");
    stranger.import(&bundle, &store).fail_with(UNVERIFIED);
    site.import(&bundle, &store).succeed();
    stranger.import(&bundle, &store).fail_with(UNVERIFIED);
    still_serves(&store, SINGLE, &upstream);
}

#[test]
fn an_import_that_was_killed_shows_nothing_and_is_done_again() {
    let upstream = upstream::big();
    let site = Site::new(&definition(&[BIG]));
    let bundle = site.bundle(upstream.address());
    let store = site.path("store");
    let mut import = Daemon::start(&site.import(&bundle, &store));
    wait_for_bytes(&store, BIG_LAYER / 10);
    import.kill();

    let serve = Serve::start(&["--store", store.to_str().unwrap()]);
    let missing =
        Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &serve.docker(BIG)]).finish();
    assert!(missing.stderr.contains("manifest unknown"), "{}", missing.stderr);
    drop(serve);
    site.import(&bundle, &store).succeed();
    still_serves(&store, BIG, &upstream);
}

/// Waits until `dir` holds `bytes`.
#[track_caller]
fn wait_for_bytes(dir: &Path, bytes: u64) {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let du = Command::new("du").args(["-s", "-B1"]).arg(dir).finish();
        let size = du.stdout.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0);
        if size >= bytes {
            return;
        }
        assert!(Instant::now() < deadline, "{} holds only {size} of {bytes} bytes", dir.display());
    }
}

#[test]
fn a_damaged_blob_never_leaves_a_bundle_that_is_served() {
    let upstream = upstream::start();
    let site = Site::new(&definition(&[SINGLE, PACKAGE]));
    let bundle = site.bundle(upstream.address());
    let layer = |reference: &str| {
        let manifest: serde_json::Value = serde_json::from_str(&upstream.raw(reference)).unwrap();
        manifest["layers"].as_array().unwrap().last().unwrap()["digest"].as_str().unwrap().to_owned()
    };
    let damaged = layer(PACKAGE).replace(':', "/");
    let (_, offset) = places(&bundle)
        .into_iter()
        .find(|(what, _)| what.starts_with("content of") && what.ends_with(&damaged))
        .unwrap();
    flip(&bundle, offset);

    let serve = serve_in_place(&site, &bundle);
    let of = |reference: &str| {
        let (repository, _) = reference.rsplit_once(':').unwrap();
        status(&serve, &format!("/v2/{repository}/blobs/{}", layer(reference)))
    };
    assert_eq!(of(SINGLE), "HTTP/1.1 200");
    assert_eq!(of(PACKAGE), "HTTP/1.1 500");
}

/// `dray serve` of a bundle as it is.
fn serve_in_place(site: &Site, bundle: &Path) -> Serve {
    let key = site.path("plant.pub");
    Serve::start(&["--bundle", bundle.to_str().unwrap(), "--trust", key.to_str().unwrap()])
}

/// What the answer to a request for `path` begins with.
fn status(serve: &Serve, path: &str) -> String {
    let mut stream = TcpStream::connect(serve.address()).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..12]).into_owned()
}

/// As when somebody pulls out the disk with the bundle, and puts it back.
#[test]
fn a_bundle_that_cannot_be_read_for_a_while_is_served_again() {
    let upstream = upstream::start();
    let site = Site::new(&definition(&[SINGLE]));
    let bundle = site.bundle(upstream.address());
    let bytes = fs::read(&bundle).unwrap();
    let serve = serve_in_place(&site, &bundle);
    let (repository, tag) = SINGLE.rsplit_once(':').unwrap();
    let manifest = format!("/v2/{repository}/manifests/{tag}");
    let file = OpenOptions::new().write(true).open(&bundle).unwrap();
    file.set_len(0).unwrap();
    assert_eq!(status(&serve, &manifest), "HTTP/1.1 500");
    assert_eq!(status(&serve, "/readyz"), "HTTP/1.1 503");
    fs::write(&bundle, &bytes).unwrap();
    assert_eq!(status(&serve, &manifest), "HTTP/1.1 200");
    assert_eq!(status(&serve, "/readyz"), "HTTP/1.1 200");
}
