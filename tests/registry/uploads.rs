//! Pushing blobs in every way that the specification has.

use std::io::Write;
use std::time::Duration;

use dray::oci::Digest;

use crate::client::Response;
use crate::site::{Site, sha512};

const UPLOADS: &str = "/v2/a/blobs/uploads/";

fn begin(site: &Site) -> String {
    let response = site.request("POST", UPLOADS, b"").expect(202);
    assert_eq!(response.header("range"), "0-0");
    let location = response.header("location").to_owned();
    assert!(location.ends_with(response.header("docker-upload-uuid")));
    location
}

fn patch(site: &Site, location: &str, range: &str, bytes: &[u8]) -> Response {
    site.connect().request("PATCH", location, &[("Content-Range", range)], bytes)
}

/// The blob is there, under its location and for every question about it.
#[track_caller]
fn arrived(site: &Site, response: &Response, digest: &Digest, bytes: &[u8]) {
    assert_eq!(response.status, 201, "{}", response.text());
    assert_eq!(response.header("docker-content-digest"), digest.to_string());
    let location = response.header("location");
    assert_eq!(location, format!("/v2/a/blobs/{digest}"));
    assert_eq!(site.get(location).expect(200).body, bytes);
    assert_eq!(site.head(location).expect(200).header("content-length"), bytes.len().to_string());
    let left = site.store.path().join("uploads");
    assert_eq!(std::fs::read_dir(left).map_or(0, Iterator::count), 0, "nothing of the upload is left");
}

#[test]
fn post_then_put() {
    let site = Site::open_to_pushes();
    for bytes in [&b"some bytes"[..], b"", b"{}"] {
        for digest in [Digest::sha256(bytes), sha512(bytes)] {
            let location = begin(&site);
            let response = site.request("PUT", &format!("{location}?digest={digest}"), bytes);
            arrived(&site, &response, &digest, bytes);
        }
    }
}

#[test]
fn one_post() {
    let site = Site::open_to_pushes();
    for digest in [Digest::sha256(b"bytes"), sha512(b"bytes")] {
        let response = site.request("POST", &format!("{UPLOADS}?digest={digest}"), b"bytes");
        arrived(&site, &response, &digest, b"bytes");
    }
}

#[test]
fn one_stream_of_unknown_length() {
    let site = Site::open_to_pushes();
    let large = vec![b'x'; 1_300_000];
    let whole = [b"first ", &large[..], b" last"].concat();
    for digest in [Digest::sha256(&whole), sha512(&whole)] {
        let location = begin(&site);
        let response = site.connect().chunked("PATCH", &location, &[b"first ", &large, b" last"]).expect(202);
        assert_eq!(response.header("range"), format!("0-{}", large.len() + 10));
        let response = site.request("PUT", &format!("{}?digest={digest}", response.header("location")), b"");
        arrived(&site, &response, &digest, &whole);
    }
}

#[test]
fn chunks_in_their_order() {
    let site = Site::open_to_pushes();
    let bytes = b"0123456789";
    for digest in [Digest::sha256(bytes), sha512(bytes)] {
        for last_by_put in [false, true] {
            let response = site.request(
                "POST",
                &format!("{UPLOADS}?digest-algorithm={}", digest.algorithm().name()),
                b"",
            );
            let location = response.expect(202).header("location").to_owned();
            assert_eq!(patch(&site, &location, "0-3", &bytes[..4]).expect(202).header("range"), "0-3");
            assert_eq!(patch(&site, &location, "4-6", &bytes[4..7]).expect(202).header("range"), "0-6");
            let close = format!("{location}?digest={digest}");
            let response = if last_by_put {
                site.connect().request("PUT", &close, &[("Content-Range", "7-9")], &bytes[7..])
            } else {
                patch(&site, &location, "7-9", &bytes[7..]).expect(202);
                site.request("PUT", &close, b"")
            };
            arrived(&site, &response, &digest, bytes);
        }
    }
    site.request("POST", &format!("{UPLOADS}?digest-algorithm=md5"), b"").expect(400);
}

#[test]
fn chunks_out_of_order_are_refused_and_leave_no_trace() {
    let site = Site::open_to_pushes();
    let bytes = b"0123456789";
    for digest in [Digest::sha256(bytes), sha512(bytes)] {
        let location = begin(&site);
        let close = format!("{location}?digest={digest}");
        let arrived_so_far = |range: &str| {
            let status = site.get(&location).expect(204);
            assert_eq!((status.header("range"), status.header("location")), (range, location.as_str()));
        };
        // The first one may be wrong already.
        patch(&site, &location, "4-6", &bytes[4..7]).expect(416);
        site.connect().request("PUT", &close, &[("Content-Range", "4-9")], &bytes[4..]).expect(416);
        arrived_so_far("0-0");
        patch(&site, &location, "0-3", &bytes[..4]).expect(202);
        for range in ["0-3", "5-6", "9-9"] {
            let response = patch(&site, &location, range, b"0123").expect(416);
            assert_eq!(response.header("range"), "0-3");
        }
        site.connect().request("PUT", &close, &[("Content-Range", "8-9")], b"89").expect(416);
        // What does not add up is refused as well.
        assert_eq!(patch(&site, &location, "4-9", b"45").expect(400).code(), "SIZE_INVALID");
        patch(&site, &location, "bytes 4-9/10", &bytes[4..]).expect(400);
        arrived_so_far("0-3");
        let response = site.connect().request("PUT", &close, &[("Content-Range", "4-9")], &bytes[4..]);
        arrived(&site, &response, &digest, bytes);
        site.get(&location).expect(404);
    }
}

#[test]
fn a_wrong_digest_never_becomes_a_blob() {
    let site = Site::open_to_pushes();
    for wrong in [Digest::sha256(b"other"), sha512(b"other")] {
        let response = site.request("POST", &format!("{UPLOADS}?digest={wrong}"), b"bytes").expect(400);
        assert_eq!(response.code(), "DIGEST_INVALID");
        let location = begin(&site);
        site.request("PUT", &format!("{location}?digest={wrong}"), b"bytes").expect(400);
        let location = begin(&site);
        site.request("PATCH", &location, b"bytes").expect(202);
        site.request("PUT", &format!("{location}?digest={wrong}"), b"").expect(400);
        let location = begin(&site);
        patch(&site, &location, "0-2", b"byt").expect(202);
        let close = format!("{location}?digest={wrong}");
        site.connect().request("PUT", &close, &[("Content-Range", "3-4")], b"es").expect(400);
        let location = begin(&site);
        site.connect().chunked("PATCH", &location, &[b"byt", b"es"]).expect(202);
        site.request("PUT", &format!("{location}?digest={wrong}"), b"").expect(400);
        site.head(&format!("/v2/a/blobs/{wrong}")).expect(404);
    }
    let location = begin(&site);
    for query in ["", "?digest=sha256:bad", "?digest=md5:d41d8cd98f00b204e9800998ecf8427e"] {
        let response = site.request("PUT", &format!("{location}{query}"), b"bytes").expect(400);
        assert_eq!(response.code(), "DIGEST_INVALID");
    }
}

#[test]
fn sessions_belong_to_their_repository() {
    let site = Site::open_to_pushes();
    let location = begin(&site);
    let elsewhere = location.replace("/v2/a/", "/v2/b/");
    for (method, target) in [("GET", &elsewhere), ("PATCH", &elsewhere), ("DELETE", &elsewhere)] {
        assert_eq!(site.request(method, target, b"").expect(404).code(), "BLOB_UPLOAD_UNKNOWN");
    }
    site.request("DELETE", &location, b"").expect(204);
    site.request("DELETE", &location, b"").expect(404);
    site.request("PATCH", &location, b"x").expect(404);
    site.get(&format!("{UPLOADS}0123456789abcdef0123456789abcdef")).expect(404);
    site.get(&format!("{UPLOADS}..%2f..%2fstore.json")).expect(404);
}

#[test]
fn an_upload_survives_a_restart() {
    let mut site = Site::open_to_pushes();
    let bytes = b"0123456789";
    for digest in [Digest::sha256(bytes), sha512(bytes)] {
        let location = begin(&site);
        patch(&site, &location, "0-3", &bytes[..4]).expect(202);
        site.restart();
        assert_eq!(site.get(&location).expect(204).header("range"), "0-3");
        patch(&site, &location, "4-8", &bytes[4..9]).expect(202);
        site.restart();
        let response = site.request("PUT", &format!("{location}?digest={digest}"), &bytes[9..]);
        arrived(&site, &response, &digest, bytes);
    }
}

#[test]
fn a_broken_connection_loses_nothing_that_arrived() {
    let site = Site::open_to_pushes();
    let bytes = vec![7; 2_000_000];
    let digest = Digest::sha256(&bytes);
    let location = begin(&site);
    let mut stream = std::net::TcpStream::connect(site.address).unwrap();
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n");
    stream.write_all(&[head.as_bytes(), &bytes[..1_500_000]].concat()).unwrap();
    drop(stream);
    let mut arrived_bytes = 0;
    for _ in 0..100 {
        let response = site.get(&location).expect(204);
        arrived_bytes = response.header("range").strip_prefix("0-").unwrap().parse::<usize>().unwrap() + 1;
        if arrived_bytes > 1_000_000 {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!((1_000_000..=1_500_000).contains(&arrived_bytes), "{arrived_bytes}");
    let response = site.request("PUT", &format!("{location}?digest={digest}"), &bytes[arrived_bytes..]);
    arrived(&site, &response, &digest, &bytes);
}

#[test]
fn abandoned_uploads_are_removed() {
    let site = Site::open_to_pushes();
    let location = begin(&site);
    site.request("PATCH", &location, b"x").expect(202);
    assert!(site.store.idle_uploads(Duration::from_hours(1)).unwrap().is_empty());
    let idle = site.store.idle_uploads(Duration::ZERO).unwrap();
    assert_eq!(idle.len(), 1);
    site.store.remove_upload(&idle[0]).unwrap();
    assert_eq!(std::fs::read_dir(site.store.path().join("uploads")).unwrap().count(), 0);
}

#[test]
fn mounts() {
    let site = Site::open_to_pushes();
    let bytes = b"shared layer";
    let mount = |query: &str| site.request("POST", &format!("{UPLOADS}?{query}"), b"");
    for digest in [Digest::sha256(bytes), sha512(bytes)] {
        let source = format!("/v2/library/source/blobs/uploads/?digest={digest}");
        site.request("POST", &source, bytes).expect(201);
        let delete =
            |name: &str| site.request("DELETE", &format!("/v2/{name}/blobs/{digest}"), b"").expect(202);
        for from in ["&from=library%2Fsource", "", "&from=no/such"] {
            let response = mount(&format!("mount={digest}{from}"));
            arrived(&site, &response, &digest, bytes);
            delete("a");
        }
        // What nobody has any more is not brought back, and the client gets a session to upload it.
        delete("library/source");
        let begun = mount(&format!("mount={digest}&from=library/source")).expect(202);
        let response = site.request("PUT", &format!("{}?digest={digest}", begun.header("location")), bytes);
        arrived(&site, &response, &digest, bytes);
        delete("a");
    }
    mount("mount=sha256:bad&from=a").expect(400);
}

/// Makes the links of a repository, and the content, look as if they were two days old.
fn age(site: &Site, digest: &Digest) {
    let then = std::time::SystemTime::now() - Duration::from_hours(48);
    let link = format!("repositories/a/blobs/sha256-{}", digest.hex());
    for file in [site.blob_file(digest), site.store.path().join(link)] {
        let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
        file.set_modified(then).unwrap();
    }
}

#[test]
fn what_a_push_was_told_is_here_is_not_pruned_under_it() {
    let site = Site::open_to_pushes();
    let [asked, mounted, uploaded, other] =
        ["asked", "mounted", "uploaded", "other"].map(|text| site.blob("a", text.as_bytes()));
    for digest in [&asked, &mounted, &uploaded, &other] {
        age(&site, digest);
    }
    site.head(&format!("/v2/a/blobs/{asked}")).expect(200);
    site.request("POST", &format!("{UPLOADS}?mount={mounted}&from=a"), b"").expect(201);
    site.request("POST", &format!("{UPLOADS}?digest={uploaded}"), b"uploaded").expect(201);
    // As another process does it, with what it knows only from the disk.
    let store = dray::store::Store::open(site.store.path()).unwrap();
    let writer = store.writer("dray prune", Duration::from_secs(10)).unwrap();
    assert_eq!(writer.sweep(Duration::from_hours(24), false).unwrap().blobs, 1);
    drop(writer);
    site.head(&format!("/v2/a/blobs/{other}")).expect(404);
    for digest in [&asked, &mounted, &uploaded] {
        site.get(&format!("/v2/a/blobs/{digest}")).expect(200);
    }
}

#[test]
fn a_push_repairs_a_damaged_blob() {
    let site = Site::open_to_pushes();
    let digest = site.blob("a", b"precious");
    std::fs::write(site.blob_file(&digest), b"perished").unwrap();
    let target = format!("/v2/a/blobs/{digest}");
    site.get(&target).expect(500);
    site.head(&target).expect(404);
    site.request("POST", &format!("{UPLOADS}?digest={digest}"), b"precious").expect(201);
    assert_eq!(site.get(&target).expect(200).body, b"precious");
    site.get("/readyz").expect(200);
}
