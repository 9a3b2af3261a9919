//! What must not be lost or served wrongly when things break: the process, the disk, the clock.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dray::oci::{Descriptor, Digest, media_type};
use dray::registry::Config;

use crate::client::{Connection, Response};
use crate::site::Site;
use crate::support::command::Run;
use crate::support::daemon::{Daemon, loopback_address};
use crate::support::disk::SmallDisk;
use crate::support::site::{Serve, dray};

/// strace, which does something to system calls of the name `call`, or only to those on the file `on`.
fn strace(call: &str, fault: &str, on: Option<&Path>) -> Command {
    let mut strace = Command::new("strace");
    // Signals that end it end what it runs.
    strace.args(["-f", "-qqq", "--interruptible=waiting", "-o", "/dev/null"]);
    strace.args(["-e", &format!("trace={call}"), "-e", &format!("inject={call}:{fault}")]);
    if let Some(file) = on {
        strace.arg("-P").arg(file);
    }
    strace
}

/// `dray serve` that takes pushes into `store`, run by `runner`.
pub(crate) fn serve_under(runner: &Command, store: &Path) -> (Daemon, SocketAddr) {
    let mut command = Command::new(runner.get_program());
    command.args(runner.get_args()).arg(env!("CARGO_BIN_EXE_dray"));
    command.args(["serve", "--allow-push", "--listen", "127.0.0.1:0", "--store"]).arg(store);
    for (key, value) in dray().get_envs() {
        match value {
            Some(value) => command.env(key, value),
            None => command.env_remove(key),
        };
    }
    let daemon = Daemon::start(&command);
    let address = daemon.wait_for("address", loopback_address);
    (daemon, address.parse().unwrap())
}

/// The store's own judgement of its content.
#[track_caller]
fn scrub(store: &Path) {
    let said = dray().args(["scrub", "--store"]).arg(store).finish();
    assert_eq!(said.code, 0, "{} {}", said.stdout, said.stderr);
}

/// An image that is pushed in several ways, and how far that got.
struct Push {
    layer: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
    /// The upload of the layer and how much of it was acknowledged.
    session: Option<(String, usize)>,
    has_layer: bool,
    has_config: bool,
    has_tag: bool,
}

const UPLOADS: &str = "/v2/a/blobs/uploads/";
const TAG: &str = "/v2/a/manifests/v1";

impl Push {
    fn new() -> Self {
        let (layer, config) = (b"0123456789".repeat(2000), b"{}".to_vec());
        let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
            "config": Descriptor::of(media_type::OCI_CONFIG, &config),
            "layers": [Descriptor::of(media_type::OCI_LAYER_GZIP, &layer)]});
        let manifest = serde_json::to_vec(&manifest).unwrap();
        Self { layer, config, manifest, session: None, has_layer: false, has_config: false, has_tag: false }
    }

    /// Pushes what has not been acknowledged yet, until all is or the server is gone.
    fn go_on(&mut self, address: SocketAddr) -> std::io::Result<()> {
        let mut connection = Connection::try_open(address)?;
        let mut ask = |method: &str, target: &str, headers: &[(&str, &str)], body: &[u8], status: u16| {
            connection.try_request(method, target, headers, body).map(|response| response.expect(status))
        };
        if !self.has_layer {
            if self.session.is_none() {
                let begun = ask("POST", UPLOADS, &[], b"", 202)?;
                self.session = Some((begun.header("location").to_owned(), 0));
            }
            let (location, done) = self.session.clone().unwrap();
            let half = self.layer.len() / 2;
            if done < half {
                let range = format!("{done}-{}", half - 1);
                ask("PATCH", &location, &[("Content-Range", &range)], &self.layer[done..half], 202)?;
                self.session = Some((location.clone(), half));
            }
            let (close, done) =
                (format!("{location}?digest={}", Digest::sha256(&self.layer)), done.max(half));
            let range = format!("{done}-{}", self.layer.len() - 1);
            let rest = &self.layer[done..];
            let headers: &[_] = if rest.is_empty() { &[] } else { &[("Content-Range", range.as_str())] };
            ask("PUT", &close, headers, rest, 201)?;
            self.has_layer = true;
        }
        let target = format!("{UPLOADS}?digest={}", Digest::sha256(&self.config));
        ask("POST", &target, &[], &self.config, 201)?;
        self.has_config = true;
        ask("PUT", TAG, &[("Content-Type", media_type::OCI_MANIFEST)], &self.manifest, 201)?;
        self.has_tag = true;
        Ok(())
    }

    /// What was acknowledged is there, what was not is there as a whole or not at all, and the upload goes on.
    #[track_caller]
    fn check(&mut self, address: SocketAddr) {
        let get = |target: &str| Connection::open(address).request("GET", target, &[], b"");
        let whole = |response: Response, bytes: &[u8], acknowledged: bool| match response.status {
            200 => assert!(response.body == bytes),
            404 => assert!(!acknowledged, "what was acknowledged is lost"),
            other => panic!("{other}: {}", response.text()),
        };
        for (bytes, acknowledged) in [(&self.layer, self.has_layer), (&self.config, self.has_config)] {
            whole(get(&format!("/v2/a/blobs/{}", Digest::sha256(bytes))), bytes, acknowledged);
        }
        whole(get(TAG), &self.manifest, self.has_tag);
        if let Some((location, done)) = self.session.take().filter(|_| !self.has_layer) {
            let status = get(&location);
            if status.status == 204 {
                let arrived: usize = status.header("range").strip_prefix("0-").unwrap().parse().unwrap();
                let arrived = if arrived == 0 { 0 } else { arrived + 1 };
                assert!(arrived >= done, "{arrived} of {done} bytes are left");
                self.session = Some((location, arrived));
            } else {
                // It had ended with the blob in its place, or had not quite begun.
                status.expect(404);
            }
        }
        self.go_on(address).unwrap();
    }
}

/// Kills the server when it makes its `nth` call of `call` on any thread, in the middle of a push, and looks at what a new
/// one finds. Returns whether the server got so far.
fn killed_at(call: &str, nth: usize) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    dray::store::Store::create(&store).unwrap();
    let mut push = Push::new();
    let (mut server, address) = serve_under(&strace(call, &format!("signal=KILL:when={nth}"), None), &store);
    let died = push.go_on(address).is_err();
    if died {
        server.wait();
    }
    drop(server);
    let serve = Serve::start(&["--allow-push", "--store", store.to_str().unwrap()]);
    push.check(serve.address().parse().unwrap());
    assert!(push.has_layer && push.has_config && push.has_tag);
    drop(serve);
    scrub(&store);
    assert_eq!(fs::read_dir(store.join("tmp")).unwrap().count(), 0);
    died
}

#[test]
fn a_server_that_is_killed_anywhere_in_a_push_keeps_its_word() {
    let calls = [
        ("mkdir", 1..=4),
        ("ftruncate", 1..=1),
        ("fsync", 1..=8),
        ("rename", 1..=1),
        ("renameat", 1..=3),
        ("unlinkat", 1..=2),
    ];
    let points: Vec<(&str, usize)> =
        calls.into_iter().flat_map(|(call, nths)| nths.map(move |nth| (call, nth))).collect();
    let (next, died) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((call, nth)) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
                    died.fetch_add(usize::from(killed_at(call, *nth)), Ordering::Relaxed);
                }
            });
        }
    });
    assert!(died.into_inner() > points.len() / 2, "it is killed in a push and not before or after");
}

#[test]
fn a_full_disk_refuses_pushes_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(directory.path().join("disk"), "8m");
    let mut site = Site::below(tempfile::tempdir_in(disk.path("")).unwrap(), Config::default());
    site.restart();
    let digest = site.blob("a", b"was here before");
    let image = site.image("a", "before", "");
    let large = vec![7; 20_000_000];
    let large_digest = Digest::sha256(&large);
    let location = site.request("POST", UPLOADS, b"").expect(202).header("location").to_owned();
    for (method, target) in [
        ("POST", format!("{UPLOADS}?digest={large_digest}")),
        ("PUT", format!("{location}?digest={large_digest}")),
    ] {
        let refused = site.connect().try_request(method, &target, &[], &large).unwrap().expect(507);
        assert_eq!((refused.code().as_str(), refused.text().contains("disk is full")), ("UNKNOWN", true));
        let left = fs::read_dir(site.store.path().join("uploads")).unwrap().count();
        assert_eq!(left, usize::from(method == "POST"), "what came of it takes no room");
    }
    site.head(&format!("/v2/a/blobs/{large_digest}")).expect(404);
    let room = vec![8; 1_000_000];
    site.request("POST", &format!("{UPLOADS}?digest={}", Digest::sha256(&room)), &room).expect(201);

    disk.fill();
    site.request("POST", &format!("{UPLOADS}?digest={}", Digest::sha256(b"x")), b"x").expect(507);
    let put = site.connect().request(
        "PUT",
        "/v2/a/manifests/after",
        &[("Content-Type", media_type::OCI_MANIFEST)],
        &[&image.bytes[..], b" "].concat(),
    );
    put.expect(507);
    site.get("/v2/a/manifests/after").expect(404);
    assert_eq!(site.get("/v2/a/manifests/before").expect(200).body, image.bytes);
    assert_eq!(site.get(&format!("/v2/a/blobs/{digest}")).expect(200).body, b"was here before");
    site.get("/readyz").expect(200);
    site.get("/v2/missing/manifests/1").expect(404);
    // Deleting is how room is made.
    site.request("DELETE", "/v2/a/manifests/before", b"").expect(202);
    fs::remove_file(disk.path("filling")).unwrap();
    site.request("POST", &format!("{UPLOADS}?digest={}", Digest::sha256(b"x")), b"x").expect(201);
    scrub(site.store.path());
}

#[test]
fn a_disk_that_fails_to_read_is_reported_and_never_served() {
    let site = Site::open_to_pushes();
    let digest = site.blob("a", b"unreadable");
    let target = format!("/v2/a/blobs/{digest}");
    let file = site.blob_file(&digest);
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    site.get(&target).expect(500);
    assert!(site.get("/readyz").expect(503).text().contains("1 blob is damaged"));
    assert!(site.get("/metrics").expect(200).text().contains("dray_damaged_blobs 1\n"));
    site.head(&target).expect(404);
    // A scrub makes way for it, and a push brings it back.
    let said = dray().args(["scrub", "--store"]).arg(site.store.path()).finish();
    assert_eq!(said.code, 3, "{} {}", said.stdout, said.stderr);
    site.get("/readyz").expect(503);
    site.request("POST", &format!("{UPLOADS}?digest={digest}"), b"unreadable").expect(201);
    assert_eq!(site.get(&target).expect(200).body, b"unreadable");
    site.get("/readyz").expect(200);
}

#[test]
fn a_read_error_is_an_error_until_it_has_passed() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    let site = Site::below(directory, Config::default());
    let bytes = b"read later".repeat(10_000);
    let blob = site.blob("a", &bytes);
    let image = site.image("a", "1", "");
    for (call, digest, target, whole) in [
        ("pread64", &blob, format!("/v2/a/blobs/{blob}"), &bytes[..]),
        ("read", &image.descriptor.digest, "/v2/a/manifests/1".to_owned(), &image.bytes),
    ] {
        let once = strace(call, "error=EIO:when=1", Some(&site.blob_file(digest)));
        let (server, address) = serve_under(&once, &store);
        let get = |target: &str| Connection::open(address).request("GET", target, &[], b"");
        get(&target).expect(500);
        assert!(get("/readyz").expect(503).text().contains("1 blob is damaged"));
        assert!(get("/metrics").expect(200).text().contains("dray_damaged_blobs 1\n"));
        server.wait_for("reason", |line| line.contains("Input/output error").then_some(()));
        // Once on each thread that reads.
        let found = (0..8).map(|_| get(&target)).find(|response| response.status == 200);
        assert!(found.unwrap().body == whole, "{target}");
        get("/readyz").expect(200);
    }
}

#[test]
fn a_blob_that_breaks_while_it_is_sent_is_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    let site = Site::below(directory, Config::default());
    // More than is sent at once.
    let bytes: Vec<u8> = (0..9_000_000u32).map(|i| (i % 251) as u8).collect();
    let digest = site.blob("a", &bytes);
    let once = strace("sendfile", "error=EIO:when=2", None);
    let (server, address) = serve_under(&once, &store);
    let target = format!("/v2/a/blobs/{digest}");
    let mut cut = Connection::open(address);
    cut.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    let received = cut.rest();
    let body = received.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    let body = &received[body..];
    assert!(!body.is_empty() && body.len() < bytes.len() && bytes.starts_with(body), "{}", body.len());
    let ready = || Connection::open(address).request("GET", "/readyz", &[], b"").status;
    assert_eq!(ready(), 503);
    server.wait_for("reason", |line| line.contains("while sending it").then_some(()));
    // Once on each thread that sends.
    let mut whole =
        (0..8).filter_map(|_| Connection::open(address).try_request("GET", &target, &[], b"").ok());
    assert!(whole.next().unwrap().expect(200).body == bytes);
    assert_eq!(ready(), 200);
}

#[test]
fn a_clock_that_jumps_under_the_server_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    dray::store::Store::create(&store).unwrap();
    let library = Command::new("sh").args(["-c", "dpkg -L libfaketime | grep -F libfaketimeMT.so"]).succeed();
    let mut push = Push::new();
    let half = push.layer.len() / 2;
    // As on a machine without a battery for its clock, and as after somebody has set it wrongly.
    for clock in ["-4000d", "+400d", "-10d", "+0d"] {
        let mut wrong = Command::new("env");
        wrong.args([format!("LD_PRELOAD={}", library.trim()), format!("FAKETIME={clock}")]);
        let (server, address) = serve_under(&wrong, &store);
        let mut connection = Connection::open(address);
        if clock == "-4000d" {
            let begun = connection.request("POST", UPLOADS, &[], b"").expect(202);
            let location = begun.header("location").to_owned();
            connection.request("PATCH", &location, &[], &push.layer[..half]).expect(202);
            push.session = Some((location, half));
            connection.request("GET", "/v2/missing/manifests/1", &[], b"").expect(404);
        } else {
            push.check(address);
        }
        connection.request("GET", "/readyz", &[], b"").expect(200);
        let wants = connection.request("GET", "/api/v1/wants.txt", &[], b"").expect(200).text();
        assert!(wants.contains("docker.io/library/missing:1\n"), "{clock}: {wants}");
        drop(server);
        let pruned = dray::store::Store::open(&store).unwrap();
        let swept = pruned.writer("test", Duration::ZERO).unwrap().sweep(Duration::from_hours(24), false);
        assert_eq!(swept.unwrap().blobs, 0, "{clock}");
    }
    scrub(&store);
}
