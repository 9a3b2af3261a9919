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
    weak.arg("--htpasswd").arg(&plain).fail_with(1).says(&["bcrypt"]);
}
