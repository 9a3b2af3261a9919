//! Connections: limits, slow clients, stopping.

use std::io::Read;
use std::time::{Duration, Instant};

use dray::registry::{Config, Limits};

use crate::site::Site;

#[test]
fn a_client_that_sends_its_request_too_slowly_is_dropped() {
    let limits = Limits { header_time: Duration::from_millis(300), ..Limits::default() };
    let site = Site::with(Config { limits, ..Config::default() });
    let mut slow = site.connect();
    slow.send(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n");
    let began = Instant::now();
    slow.rest();
    assert!(began.elapsed() < Duration::from_secs(10));
    site.get("/v2/").expect(200);
}

#[test]
fn a_client_that_stops_in_the_middle_of_a_body_is_told_so_and_dropped() {
    let limits = Limits { body_time: Duration::from_millis(300), ..Limits::default() };
    let mut site = Site::new();
    site.reopen(Config { limits, ..Config::default() });
    let location =
        site.request("POST", "/v2/a/blobs/uploads/", b"").expect(202).header("location").to_owned();
    for (method, target) in [("PATCH", location.as_str()), ("PUT", "/v2/a/manifests/1")] {
        let mut slow = site.connect();
        slow.send(
            format!("{method} {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n123").as_bytes(),
        );
        slow.response(false).expect(408);
        assert!(slow.rest().is_empty(), "the connection is closed");
    }
    assert_eq!(site.get(&location).expect(204).header("range"), "0-2", "what came is kept");
}

#[test]
fn the_head_of_a_request_has_a_limit() {
    let site = Site::new();
    let value = "x".repeat(300_000);
    site.get_with("/v2/", &[("X-Long", &value[..60_000])]).expect(200);
    let (long, path, many) = ([("X-Long", &*value)], format!("/v2/{value}"), vec![("X", "y"); 60_000]);
    for (target, headers) in [("/v2/", &long[..]), (&path, &[]), ("/v2/", &many)] {
        // A server that does not read on may close the connection under its own answer.
        if let Ok(answer) = site.connect().try_request("GET", target, headers, b"") {
            assert!(matches!(answer.status, 414 | 431), "{}", answer.status);
        }
    }
    site.get("/v2/").expect(200);
}

#[test]
fn stopping_lets_an_upload_finish() {
    let mut site = Site::open_to_pushes();
    let location =
        site.request("POST", "/v2/a/blobs/uploads/", b"").expect(202).header("location").to_owned();
    let mut connection = site.connect();
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n123");
    connection.send(head.as_bytes());
    std::thread::sleep(Duration::from_millis(100));
    site.ask_to_stop();
    std::thread::sleep(Duration::from_millis(200));
    connection.send(b"4567890");
    assert_eq!(connection.response(false).expect(202).header("range"), "0-9");
    site.wait();
    site.restart();
    assert_eq!(site.get(&location).expect(204).header("range"), "0-9");
}

#[test]
fn stopping_does_not_wait_for_ever() {
    let limits = Limits {
        drain: Duration::from_millis(300),
        // When this is over, the client would be told so.
        body_time: Duration::from_secs(5),
        ..Limits::default()
    };
    let mut site = Site::new();
    site.reopen(Config { limits, ..Config::default() });
    let location =
        site.request("POST", "/v2/a/blobs/uploads/", b"").expect(202).header("location").to_owned();
    let mut connection = site.connect();
    connection
        .send(format!("PATCH {location} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n123").as_bytes());
    std::thread::sleep(Duration::from_millis(100));
    site.ask_to_stop();
    assert!(connection.rest().is_empty(), "it is cut off without an answer");
    site.wait();
}

#[test]
fn a_client_that_takes_nothing_is_dropped() {
    let limits = Limits { write_time: Duration::from_millis(300), ..Limits::default() };
    let site = Site::with(Config { limits, ..Config::default() });
    let bytes = vec![7; 40_000_000];
    let digest = site.blob("a", &bytes);
    let mut slow = site.connect();
    slow.send(format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    std::thread::sleep(Duration::from_secs(2));
    assert!(slow.rest().len() < bytes.len());
}

#[test]
fn there_are_no_more_connections_than_allowed() {
    let limits = Limits { connections_per_address: 2, ..Limits::default() };
    let site = Site::with(Config { limits, ..Config::default() });
    let mut first = site.connect();
    first.request("GET", "/v2/", &[], b"").expect(200);
    let mut second = site.connect();
    second.request("GET", "/v2/", &[], b"").expect(200);
    assert!(site.connect().rest().is_empty(), "the third is closed");
    drop(first);
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let mut again = site.connect();
        again.send(b"GET /v2/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        if again.rest().starts_with(b"HTTP/1.1 200") {
            break;
        }
        assert!(Instant::now() < until, "the place of a closed connection stays taken");
    }
}

#[test]
fn there_are_no_more_connections_than_allowed_in_all() {
    let limits = Limits { connections: 2, ..Limits::default() };
    let site = Site::with(Config { limits, ..Config::default() });
    let mut open: Vec<_> = (0..2).map(|_| site.connect()).collect();
    for connection in &mut open {
        connection.request("GET", "/v2/", &[], b"").expect(200);
    }
    assert!(site.connect().rest().is_empty(), "the third is closed");
    let metrics = open[0].request("GET", "/metrics", &[], b"").expect(200).text();
    assert!(metrics.contains("dray_connections_refused_total 1\n"), "{metrics}");
}

#[test]
fn stopping_lets_a_transfer_finish() {
    let mut site = Site::new();
    // More than the buffers of both sides of the socket hold.
    let bytes = vec![7; 40_000_000];
    let digest = site.blob("a", &bytes);
    let mut stream = std::net::TcpStream::connect(site.address).unwrap();
    let request = format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: a\r\n\r\n");
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    let mut begin = [0; 1000];
    stream.read_exact(&mut begin).unwrap();
    site.ask_to_stop();
    std::thread::sleep(Duration::from_millis(200));
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    let all = [&begin[..], &rest].concat();
    let body = all.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    assert_eq!(all.len() - body, bytes.len());
    site.wait();
    assert!(std::net::TcpStream::connect(site.address).is_err());
}
