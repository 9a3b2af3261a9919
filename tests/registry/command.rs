//! `dray serve` and `dray wants` as they are started at a site.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use crate::client::{Connection, Response};
use crate::support::command::Run;
use crate::support::daemon::{Daemon, loopback_address};
use crate::support::shelf;
use crate::support::site::{Site, dray};

fn serve(arguments: &[&str]) -> (Daemon, SocketAddr) {
    let daemon = Daemon::start(dray().arg("serve").args(arguments).args(["--listen", "127.0.0.1:0"]));
    let address = daemon.wait_for("address", loopback_address);
    (daemon, address.parse().unwrap())
}

fn get(address: SocketAddr, target: &str) -> Response {
    let headers = [("User-Agent", "containerd/2.1 \"quoted\"")];
    Connection::open(address).request("GET", target, &headers, b"")
}

/// What nodes asked for in vain goes to the other side as a list, and comes back as a bundle.
#[test]
fn what_is_missing_is_locked_on_the_other_side_and_imported() {
    let wanted = ["registry.k8s.io/pause:3.9", "docker.io/calico/node:v3.30.1", "quay.io/coreos/etcd:v3.6.4"];
    let site = Site::new(
        "apiVersion: dray.dev/v1alpha1\nkind: Bundle\nmetadata: {name: plant-7}\nspec:\n  \
         nodes: [linux/amd64, windows/ltsc2022]\n  runtimes: [containerd@1.7, containerd@2]\n  \
         imageLists: [wants.txt]\n",
    );
    let upstream = shelf::serve(&site.path("upstream"), &wanted.map(str::to_owned));
    let upstream_address = upstream.address().parse().unwrap();
    let etcd = get(upstream_address, "/v2/quay.io/coreos/etcd/manifests/v3.6.4").expect(200);
    let by_digest = format!("/v2/coreos/etcd/manifests/{}?ns=quay.io", etcd.header("docker-content-digest"));
    let store = site.path("store");
    drop(dray::store::Store::create(&store).unwrap());
    let (server, address) = serve(&["--store", store.to_str().unwrap()]);
    for target in [
        "/v2/pause/manifests/3.9?ns=k8s.gcr.io",
        "/v2/registry.k8s.io/pause/manifests/3.9",
        "/v2/calico/node/manifests/v3.30.1",
        &by_digest,
    ] {
        get(address, target).expect(404);
    }
    let list = get(address, "/api/v1/wants.txt").expect(200).text();
    let etcd = format!("quay.io/coreos/etcd@{}", etcd.header("docker-content-digest"));
    assert_eq!(list, format!("docker.io/calico/node:v3.30.1\n{etcd}\nregistry.k8s.io/pause:3.9\n"));
    server.signal("TERM");
    drop(server);
    let wants = || dray().args(["wants", "--store"]).arg(&store).succeed();
    assert_eq!(wants(), list);
    fs::write(site.path("wants.txt"), wants()).unwrap();
    let bundle = site.bundle(upstream.address());
    site.import(&bundle, &store).succeed();
    assert_eq!(wants(), "");
    let (_server, address) = serve(&["--store", store.to_str().unwrap()]);
    get(address, "/v2/pause/manifests/3.9?ns=k8s.gcr.io").expect(200);
    get(address, "/v2/calico/node/manifests/v3.30.1").expect(200);
    get(address, &by_digest).expect(200);
    assert_eq!(get(address, "/api/v1/wants.txt").expect(200).text(), "");

    // A bundle that is served as it is says the same of itself.
    let key = site.path("plant.pub");
    let bundle = bundle.to_str().unwrap();
    let (_server, address) = serve(&["--bundle", bundle, "--trust", key.to_str().unwrap()]);
    get(address, &by_digest).expect(200);
    get(address, "/v2/acme/other/manifests/1?ns=quay.io").expect(404);
    assert_eq!(get(address, "/api/v1/wants.txt").expect(200).text(), "quay.io/acme/other:1\n");
    let said = dray().args(["inspect", bundle, "--format", "json"]).succeed();
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let metrics = get(address, "/metrics").expect(200).text();
    let held = |name: &str| -> u64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap().parse().unwrap()
    };
    assert!(held("dray_store_blobs") >= said["blobs"].as_u64().unwrap());
    assert!(held("dray_store_bytes") >= 20_000 * 3, "three images with a layer of that size: {metrics}");
}

#[test]
fn the_names_of_a_site_are_told_by_flags() {
    let site = Site::new("");
    let images = ["docker.io/library/nginx:1.27", "quay.io/k0sproject/pause:3.9"].map(str::to_owned);
    drop(shelf::serve(&site.path("store"), &images));
    let store = site.path("store");
    let flags = ["--host", "hub.site.local=docker.io,q.site.local=quay.io", "--prefix", "infra,old/k0s"];
    let (_server, address) = serve(&[&flags[..], &["--store", store.to_str().unwrap()]].concat());
    let status = |host: &str, target: &str| {
        Connection::open(address).request("HEAD", target, &[("Host", host)], b"").status
    };
    assert_eq!(status("hub.site.local", "/v2/nginx/manifests/1.27"), 200);
    assert_eq!(status("q.site.local", "/v2/k0sproject/pause/manifests/3.9"), 200);
    assert_eq!(status("q.site.local", "/v2/nginx/manifests/1.27"), 200, "the only one of that name");
    for prefix in ["infra", "old/k0s", "infra/old/k0s/infra"] {
        let target = format!("/v2/{prefix}/k0sproject/pause/manifests/3.9");
        assert_eq!(status("site:5000", &target), 200, "{target}");
    }
    assert_eq!(status("site:5000", "/v2/other/k0sproject/pause/manifests/3.9"), 404);
    let mut wrong = dray();
    wrong.args(["serve", "--listen", "127.0.0.1:0", "--host", "hub.site.local", "--store"]).arg(&store);
    wrong.fail_with(2).says(&["NAME=HOST"]);
}

#[test]
fn the_access_log_is_text_or_json() {
    let site = Site::new("");
    let store = site.path("store");
    drop(dray::store::Store::create(&store).unwrap());
    let users = site.path("users");
    Command::new("htpasswd")
        .args(["-B", "-C", "5", "-b", "-c"])
        .arg(&users)
        .args(["ann", "secret"])
        .succeed();
    for format in ["text", "json"] {
        let (store, users) = (store.to_str().unwrap(), users.to_str().unwrap());
        let (server, address) = serve(&["--store", store, "--htpasswd", users, "--access-log", format]);
        let headers =
            [("User-Agent", "containerd/2.1 \"quoted\""), ("Authorization", "Basic YW5uOnNlY3JldA==")];
        let target = "/v2/a/manifests/1?ns=quay.io";
        let answer = Connection::open(address).request("GET", target, &headers, b"").expect(404);
        let length = answer.body.len();
        let line = server.wait_for("line", |line| line.contains(target).then(|| line.to_owned()));
        if format == "json" {
            let mut entry: serde_json::Value = serde_json::from_str(&line).unwrap();
            let mut take = |field: &str| entry.as_object_mut().unwrap().remove(field).unwrap();
            take("time").as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
            assert!(take("seconds").as_f64().unwrap() > 0.0);
            let expected = serde_json::json!({"client": "127.0.0.1", "user": "ann", "method": "GET", "target": target,
                "status": 404, "bytes": length, "userAgent": "containerd/2.1 \"quoted\""});
            assert_eq!(entry, expected);
        } else {
            let expected = format!(r#" 127.0.0.1 "ann" GET "{target}" 404 {length} "#);
            assert!(line.contains(&expected), "{line}");
            assert!(line.ends_with(r#""containerd/2.1 \"quoted\"""#), "{line}");
        }
    }
}

#[test]
fn a_server_that_is_asked_to_stop_ends_well() {
    let site = Site::new("");
    let store = site.path("store");
    for signal in ["TERM", "INT"] {
        let (mut server, address) = serve(&["--allow-push", "--store", store.to_str().unwrap()]);
        // A connection that does nothing does not hold it up.
        let mut idle = Connection::open(address);
        idle.request("GET", "/v2/", &[], b"").expect(200);
        server.signal(signal);
        assert_eq!(server.wait(), 0, "{signal}");
    }
}

#[test]
fn what_would_be_open_to_everybody_is_not_started() {
    let site = Site::new("");
    let store = site.path("store");
    let mut open = dray();
    open.args(["serve", "--allow-push", "--listen", "0.0.0.0:0", "--store"]).arg(&store);
    open.fail_with(2).says(&["everybody", "--htpasswd"]);
    assert!(!store.exists());
    dray()
        .args(["serve", "--listen", "127.0.0.1:0", "--store"])
        .arg(&store)
        .fail_with(1)
        .says(&["is not a store"]);
    let plain = site.path("users");
    fs::write(&plain, "ann:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n").unwrap();
    let mut weak = dray();
    weak.args(["serve", "--allow-push", "--listen", "127.0.0.1:0", "--store"]).arg(&store);
    weak.arg("--htpasswd").arg(&plain).fail_with(2).says(&["bcrypt"]);
}

#[test]
fn serve_without_content_names_both_kinds() {
    let mut serve = dray();
    serve.arg("serve").fail_with(2).says(&["--store <DIR>", "--bundle <BUNDLE>"]);
}

#[test]
fn a_bundle_is_served_unverified_only_on_request() {
    let site = Site::new(
        "apiVersion: dray.dev/v1alpha1\nkind: Bundle\nmetadata: {name: plant-7}\nspec:\n  \
         nodes: [linux/amd64]\n  runtimes: [containerd@1.7]\n  images: ['quay.io/coreos/etcd:v3.6.4']\n",
    );
    let upstream = shelf::serve(&site.path("upstream"), &["quay.io/coreos/etcd:v3.6.4".to_owned()]);
    let bundle = site.bundle(upstream.address());
    let bundle = bundle.to_str().unwrap();
    let mut unsaid = dray();
    unsaid.args(["serve", "--listen", "127.0.0.1:0", "--bundle", bundle]);
    unsaid.fail_with(2).says(&["--trust PUB", "--insecure-skip-verify"]);
    let (server, address) = serve(&["--bundle", bundle, "--insecure-skip-verify"]);
    get(address, "/v2/coreos/etcd/manifests/v3.6.4?ns=quay.io").expect(200);
    let said = server.wait_for("what is served", |line| line.contains("1 image").then(|| line.to_owned()));
    assert_eq!(said, "1 image; only this machine reaches it; --listen :5000 is for nodes");
    assert!(server.log().contains("signatures are not checked"), "{}", server.log());
}

#[test]
fn listening_takes_every_usual_form_of_an_address() {
    let site = Site::new("");
    let store = site.path("store");
    drop(dray::store::Store::create(&store).unwrap());
    let store = store.to_str().unwrap();
    let port = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let forms: [fn(u16) -> String; 5] = [
        |port| format!("localhost:{port}"),
        |port| format!(":{port}"),
        |port| port.to_string(),
        |port| format!("[::]:{port}"),
        |port| format!("0.0.0.0:{port}"),
    ];
    for form in forms {
        let (port, json) = (port(), ["--format", "json"]);
        let arguments = ["serve", "--store", store, "--listen", &form(port)];
        let server = Daemon::start(dray().args(arguments).args(json));
        server.wait_for("the end of what it says", |line| (line == "}").then_some(()));
        get(([127, 0, 0, 1], port).into(), "/healthz").expect(200);
        let said: serde_json::Value = serde_json::from_str(&server.log()).unwrap();
        let is_for_nodes = !form(port).starts_with("localhost");
        if !is_for_nodes {
            assert_eq!(said["urlForNodes"], serde_json::Value::Null);
        }
        let mut second = dray();
        second.args(arguments).fail_with(1).says(&[
            &format!(
                "cannot listen on {}",
                if form(port).contains(':') { form(port) } else { format!(":{port}") }
            ),
            "another program has this port",
        ]);
    }
    for bad in ["localhost", "a b:1", "::1:5000"] {
        let mut wrong = dray();
        wrong.args(["serve", "--store", store, "--listen", bad]);
        wrong.fail_with(2).says(&["0.0.0.0:5000, :5000 or localhost:5000"]);
    }
}

#[test]
fn pushing_beyond_this_machine_needs_users_in_every_form() {
    let site = Site::new("");
    for listen in [":0", "0", "[::]:0"] {
        let mut open = dray();
        open.args(["serve", "--allow-push", "--listen", listen, "--store"]).arg(site.path("store"));
        open.fail_with(2).says(&["everybody", "--htpasswd"]);
    }
}

#[test]
fn files_of_a_server_that_cannot_be_read_are_named() {
    let site = Site::new("");
    let store = site.path("store");
    drop(dray::store::Store::create(&store).unwrap());
    let command = |flags: &[&str]| {
        let mut serve = dray();
        serve.args(["serve", "--listen", "127.0.0.1:0", "--store"]).arg(&store).args(flags);
        serve
    };
    let nothing = site.path("nothing");
    let nothing = nothing.to_str().unwrap();
    command(&["--tls-cert", nothing, "--tls-key", nothing])
        .fail_with(2)
        .says(&[&format!("cannot read {nothing}"), "No such file"]);
    command(&["--htpasswd", nothing]).fail_with(2).says(&[nothing, "No such file"]);
}

/// A layer that no buffer holds, and a client that takes the first bytes of it.
fn slow_pull(site: &crate::site::Site, address: SocketAddr) -> (Connection, usize) {
    const SIZE: usize = 64 * 1024 * 1024;
    let digest = site.blob("a", &vec![7; SIZE]);
    let mut slow = Connection::open(address);
    slow.send(format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    slow.read(1000);
    (slow, SIZE)
}

#[test]
fn a_server_that_stops_says_what_it_waits_for() {
    let site = crate::site::Site::new();
    for signals in 1..=2 {
        let (mut server, address) = serve(&["--store", site.store.path().to_str().unwrap()]);
        let (slow, length) = slow_pull(&site, address);
        server.signal("TERM");
        server.wait_for("what it waits for", |line| {
            line.contains("waiting for 1 transfer to end").then_some(())
        });
        if signals == 2 {
            server.signal("TERM");
            assert_eq!(server.wait(), 0);
            assert!(slow.rest().len() < length);
        } else {
            // The port is free for the next one.
            let listen = address.to_string();
            let mut next = dray();
            next.args(["serve", "--store", site.store.path().to_str().unwrap(), "--listen", &listen]);
            let next = Daemon::start(&next);
            next.wait_for("address", loopback_address);
            get(address, "/healthz").expect(200);
            assert!(slow.rest().len() > length - 1000, "it gets the rest");
            assert_eq!(server.wait(), 0);
        }
    }
}

/// A service manager holds the socket, and starts the server again whenever it ends.
const MANAGER: &str = r#"
import os, signal, socket, sys
held = socket.create_server(("127.0.0.1", 0))
print("held 127.0.0.1:%d" % held.getsockname()[1], flush=True)
while True:
    child = os.fork()
    if child == 0:
        os.dup2(held.fileno(), 3)
        os.set_inheritable(3, True)
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
        os.execv(sys.argv[1], sys.argv[1:])
    print("server %d" % child, flush=True)
    signal.signal(signal.SIGTERM, lambda *_: (os.kill(child, signal.SIGKILL), sys.exit()))
    print("ended %d" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"#;

#[test]
fn a_restart_under_a_service_manager_refuses_nobody() {
    let site = crate::site::Site::new();
    let mut manager = Command::new("python3");
    manager.args(["-c", MANAGER, env!("CARGO_BIN_EXE_dray"), "serve", "--store"]).arg(site.store.path());
    // The socket comes before what the flag says.
    manager.args(["--listen", "127.0.0.1:1"]);
    let manager = Daemon::start(&manager);
    let address: SocketAddr = manager.wait_for("address", loopback_address).parse().unwrap();
    let server = || manager.wait_for("server", |line| line.strip_prefix("server ")?.parse::<u32>().ok());
    let first = server();
    let (slow, length) = slow_pull(&site, address);
    Command::new("sh").args(["-c", &format!("kill -s TERM {first}")]).succeed();
    manager.wait_for("what it waits for", |line| line.contains("waiting for 1 transfer").then_some(()));
    for _ in 0..5 {
        // The old server answers as long as it is there, and then asks clients to come again.
        let answer = get(address, "/healthz").expect(200);
        assert_eq!(answer.header("connection"), "close");
    }
    assert!(slow.rest().len() > length - 1000);
    // Whoever comes in between waits for the next one.
    get(address, "/healthz").expect(200);
    manager.wait_for("end", |line| (line == "ended 0").then_some(()));
    assert_ne!(server(), first);
    get(address, "/healthz").expect(200);
}

#[test]
fn the_demo_that_serves_ends_well() {
    let mut demo = Daemon::start(dray().args(["demo", "--serve"]));
    demo.wait_for("how it ends", |line| line.contains("Ctrl-C").then_some(()));
    demo.signal("INT");
    assert_eq!(demo.wait(), 0, "{}", demo.log());
    assert!(!demo.log().contains("interrupted"), "{}", demo.log());
}
