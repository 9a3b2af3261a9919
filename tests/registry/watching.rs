//! What operators see: metrics and the access log.

use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dray::registry::{AccessLog, Config};

use crate::site::Site;

/// Waits until the metrics of `site` show every one of `expected`, each a sample as it is written. A request is counted when
/// its response has ended, which may be a moment after the client has read it.
#[track_caller]
fn shows(site: &Site, expected: &[&str]) {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let text = site.get("/metrics").expect(200).text();
        match expected.iter().find(|sample| !text.lines().any(|line| line == **sample)) {
            None => return,
            Some(sample) => assert!(Instant::now() < until, "{sample} is not in\n{text}"),
        }
    }
}

fn sample<T: FromStr<Err: std::fmt::Debug>>(site: &Site, name: &str) -> T {
    let text = site.get("/metrics").expect(200).text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse().unwrap()
}

#[test]
fn requests_are_counted_by_what_they_are_for_and_how_they_end() {
    let site = Site::open_to_pushes();
    let digest = site.blob("a", &[1; 5000]);
    let image = site.image("a", "1", "");
    let blob = format!("/v2/a/blobs/{digest}");
    site.get("/v2/").expect(200);
    site.get("/v2/_catalog").expect(200);
    site.get("/v2/a/tags/list").expect(200);
    site.get("/v2/a/manifests/1").expect(200);
    site.get("/v2/a/manifests/missing").expect(404);
    site.get("/v2/b/manifests/missing").expect(404);
    site.get(&blob).expect(200);
    site.get_with(&blob, &[("Range", "bytes=0-999")]).expect(206);
    site.head(&blob).expect(200);
    site.request("DELETE", &blob, b"").expect(202);
    site.get(&format!("/v2/a/referrers/{digest}")).expect(200);
    site.request("POST", "/v2/a/blobs/uploads/", b"").expect(202);
    site.get("/healthz").expect(200);
    site.get("/nothing").expect(404);
    shows(
        &site,
        &[
            "dray_http_requests_total{route=\"version\",status=\"200\"} 1",
            "dray_http_requests_total{route=\"catalog\",status=\"200\"} 1",
            "dray_http_requests_total{route=\"tags\",status=\"200\"} 1",
            "dray_http_requests_total{route=\"manifest\",status=\"200\"} 1",
            "dray_http_requests_total{route=\"manifest\",status=\"404\"} 2",
            "dray_http_requests_total{route=\"blob\",status=\"200\"} 2",
            "dray_http_requests_total{route=\"blob\",status=\"206\"} 1",
            "dray_http_requests_total{route=\"blob\",status=\"202\"} 1",
            "dray_http_requests_total{route=\"referrers\",status=\"200\"} 1",
            "dray_http_requests_total{route=\"upload\",status=\"202\"} 1",
            "dray_http_requests_total{route=\"other\",status=\"404\"} 1",
            "dray_http_response_bytes_total{route=\"blob\"} 6000",
            "dray_http_request_duration_seconds_count{route=\"blob\"} 4",
            "dray_http_request_duration_seconds_bucket{route=\"blob\",le=\"+Inf\"} 4",
            "dray_misses_total 2",
            &format!("dray_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")),
        ],
    );
    let sent: usize = sample(&site, "dray_http_response_bytes_total{route=\"manifest\"}");
    assert!(sent > image.bytes.len(), "the manifest and what is wrong with the others");
    let time = || sample::<f64>(&site, "dray_http_request_duration_seconds_sum{route=\"blob\"}");
    let before = time();
    assert!(before > 0.0);
    site.head(&blob).expect(404);
    shows(&site, &["dray_http_request_duration_seconds_count{route=\"blob\"} 5"]);
    assert!(time() > before);
}

#[test]
fn gauges_show_what_is_there_now() {
    let mut site = Site::open_to_pushes();
    let digest = site.blob("a", &[1; 5000]);
    shows(&site, &["dray_store_blobs 1", "dray_store_bytes 5000", "dray_damaged_blobs 0"]);
    site.blob("a", &[2; 700]);
    // Counting takes a look at everything, so it is not done for every question.
    site.restart();
    shows(&site, &["dray_store_blobs 2", "dray_store_bytes 5700"]);

    let mut open: Vec<_> = (0..3).map(|_| site.connect()).collect();
    for connection in &mut open {
        connection.request("GET", "/v2/", &[], b"").expect(200);
    }
    // The fourth is the one that asks.
    shows(&site, &["dray_connections 4"]);
    drop(open);
    shows(&site, &["dray_connections 1"]);

    std::fs::write(site.blob_file(&digest), [3; 5000]).unwrap();
    site.get(&format!("/v2/a/blobs/{digest}")).expect(500);
    shows(&site, &["dray_damaged_blobs 1"]);
    assert!(site.get("/readyz").expect(503).text().contains("1 blob is damaged"));
    site.get("/healthz").expect(200);
    site.request("POST", &format!("/v2/a/blobs/uploads/?digest={digest}"), &[1; 5000]).expect(201);
    shows(&site, &["dray_damaged_blobs 0"]);
    site.get("/readyz").expect(200);
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
