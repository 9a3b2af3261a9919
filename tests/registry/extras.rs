//! What is made when it is asked for: files put together of texts and blobs, redirects, texts.

use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use dray::oci::Digest;
use dray::registry::{Composition, Config, Extra, ExtraError, Extras, Piece, Question};

use crate::site::{Site, name};

const REPOSITORY: &str = "quay.io/acme/parts";

/// Answers below `/made/`.
struct Made(Vec<Digest>);

impl Extras for Made {
    fn may_have(&self, path: &str) -> bool {
        path.starts_with("/made/")
    }

    fn answer(&self, question: &Question<'_>) -> Result<Option<Extra>, ExtraError> {
        Ok(Some(match question.path {
            "/made/file" => {
                Extra::File(Composition { identity: Digest::sha256(b"it"), pieces: self.pieces() })
            }
            "/made/else+where" => Extra::Elsewhere("/made/v1.36.3+k3s1".to_owned()),
            "/made/base" => {
                Extra::Text { media_type: "text/plain", text: question.base.unwrap_or_default().to_owned() }
            }
            "/made/busy" => return Err(ExtraError::Busy),
            "/made/gone" => {
                let candidates = vec!["/made/file".to_owned()];
                return Err(ExtraError::NotHere { message: "not here".to_owned(), candidates });
            }
            _ => return Ok(None),
        }))
    }
}

impl Made {
    fn pieces(&self) -> Vec<Piece> {
        let mut pieces = vec![Piece::Bytes(Bytes::from_static(b"head"))];
        for digest in &self.0 {
            let size = if *digest == Digest::sha256(&large()) { large().len() } else { 5 } as u64;
            pieces.push(Piece::Blob { repository: name(REPOSITORY), digest: digest.clone(), size });
            pieces.push(Piece::Bytes(Bytes::from_static(b"-")));
        }
        pieces
    }
}

/// More than is read or spliced at once.
fn large() -> Vec<u8> {
    (0..700_001u32).flat_map(u32::to_le_bytes).collect()
}

fn site() -> (Site, Vec<u8>) {
    let (small, large) = (b"small".to_vec(), large());
    let digests = vec![Digest::sha256(&small), Digest::sha256(&large), Digest::sha256(&small)];
    let site = Site::with(Config { extras: Some(Arc::new(Made(digests))), ..Config::default() });
    site.blob(REPOSITORY, &small);
    site.blob(REPOSITORY, &large);
    let whole = [b"head", &small[..], b"-", &large, b"-", &small, b"-"].concat();
    (site, whole)
}

#[test]
fn files_are_put_together_while_they_are_sent() {
    let (site, whole) = site();
    let mut connection = site.connect();
    let length = whole.len();
    for _ in 0..2 {
        let answer = connection.request("GET", "/made/file", &[], b"").expect(200);
        assert_eq!(answer.header("content-length"), length.to_string());
        assert_eq!(answer.header("accept-ranges"), "bytes");
        assert!(answer.body == whole, "another content");
    }
    let head = connection.request("HEAD", "/made/file", &[], b"").expect(200);
    assert_eq!(head.header("content-length"), length.to_string());
    let tag = head.header("etag").to_owned();
    connection.request("GET", "/made/file", &[("if-none-match", &tag)], b"").expect(304);
    let from_large = 4 + 5 + 1;
    for (start, end) in [
        (0, 1),
        (3, 5),
        (4, 9),
        (8, from_large + 1),
        (from_large - 1, from_large + 300_000),
        (from_large + 262_143, from_large + 262_145),
        (length - 8, length),
        (0, length),
    ] {
        let range = format!("bytes={start}-{}", end - 1);
        let part = connection.request("GET", "/made/file", &[("range", &range)], b"").expect(206);
        assert_eq!(part.header("content-range"), format!("bytes {start}-{}/{length}", end - 1));
        assert!(part.body == whole[start..end], "{range}");
    }
    let beyond = format!("bytes={length}-");
    connection.request("GET", "/made/file", &[("range", &beyond)], b"").expect(416);
}

#[test]
fn a_damaged_blob_ends_the_file_before_its_first_byte() {
    let (site, whole) = site();
    let file = site.blob_file(&Digest::sha256(&large()));
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::remove_file(&file).unwrap();
    fs::write(&file, bytes).unwrap();
    let mut connection = site.connect();
    connection.send(b"GET /made/file HTTP/1.1\r\nHost: a\r\n\r\n");
    let received = connection.rest();
    let end = received.windows(4).position(|part| part == b"\r\n\r\n").unwrap() + 4;
    assert!(whole[..10].starts_with(&received[end..]), "more than what is before the damaged blob");
}

#[test]
fn redirects_texts_and_refusals() {
    let (site, _) = site();
    let answer = site.get("/made/else%2Bwhere").expect(302);
    assert_eq!(answer.header("location"), "/made/v1.36.3+k3s1");
    let base = site.get_with("/made/base", &[("host", "registry.site.local:5000")]).expect(200);
    assert_eq!(base.text(), "http://registry.site.local:5000");
    assert_eq!(site.get_with("/made/base", &[("host", "a\"b")]).body, b"");
    assert_eq!(site.get("/made/busy").expect(503).header("retry-after"), "5");
    let gone = site.get("/made/gone").expect(404);
    assert_eq!(gone.json()["errors"][0]["detail"]["candidates"][0], "/made/file");
    for (method, path) in [("GET", "/made/other"), ("POST", "/made/file"), ("PUT", "/made/file")] {
        assert!(matches!(site.request(method, path, b"").status, 404 | 405), "{method} {path}");
    }
}
