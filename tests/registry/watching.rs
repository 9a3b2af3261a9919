//! What operators see: metrics and the access log.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dray::registry::{AccessLog, Config};

use crate::site::Site;

#[test]
fn metrics() {
    let site = Site::new();
    let digest = site.blob("a", &[1; 5000]);
    site.get(&format!("/v2/a/blobs/{digest}")).expect(200);
    site.get("/v2/a/manifests/missing").expect(404);
    let expected = [
        "dray_http_requests_total{route=\"blob\",status=\"200\"} 1\n",
        "dray_http_requests_total{route=\"manifest\",status=\"404\"} 1\n",
        "dray_http_response_bytes_total{route=\"blob\"} 5000\n",
        "dray_misses_total 1\n",
        "dray_damaged_blobs 0\n",
        "dray_store_blobs 1\n",
        "dray_store_bytes 5000\n",
    ];
    // A request is counted when its response has ended, which may be a moment after the client has read it.
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let text = site.get("/metrics").expect(200).text();
        match expected.iter().find(|line| !text.contains(**line)) {
            None => break,
            Some(line) => assert!(Instant::now() < until, "{line} is not in\n{text}"),
        }
    }
}

#[test]
fn every_request_has_its_entry() {
    let entries = Arc::new(Mutex::new(Vec::new()));
    let written = entries.clone();
    let access_log = Some(AccessLog::new(move |access| written.lock().unwrap().push(access.clone())));
    let site = Site::with(Config { access_log, ..Config::default() });
    site.image("a", "1", "");
    site.get_with("/v2/a/manifests/1?ns=x", &[("User-Agent", "containerd/2.1")]).expect(404);
    site.head("/v2/a/manifests/1").expect(200);
    let until = Instant::now() + Duration::from_secs(10);
    while entries.lock().unwrap().len() < 2 {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(5));
    }
    let entries = entries.lock().unwrap();
    let first = entries.iter().find(|entry| entry.method == "GET").unwrap();
    assert_eq!((first.target.as_str(), first.status), ("/v2/a/manifests/1?ns=x", 404));
    assert_eq!((first.user_agent.as_str(), first.client.to_string()), ("containerd/2.1", "127.0.0.1".into()));
    assert!(first.bytes > 0);
    let second = entries.iter().find(|entry| entry.method == "HEAD").unwrap();
    assert_eq!((second.status, second.bytes), (200, 0));
    let json = serde_json::to_value(second).unwrap();
    assert_eq!(json["client"], "127.0.0.1");
}
