//! Plain files: their sizes, their bytes, and a bundle of them.

use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use dray::bundle::Bundle;
use dray::oci::{Algorithm, Digest, Hasher};
use dray::upstream::{Missing, Options, Problem, Upstream, UpstreamError, parse_endpoint};
use futures_util::TryStreamExt as _;
use http::Method;
use url::Url;

use crate::server::{Asked, Reply, Server, TlsIdentity, content, quick};
use crate::support::command::Run as _;
use crate::ways_to_serve;

const LENGTH: usize = 300_000;
const PATH: &str = "/v1.36.3%2Bk0s.2/k0s.exe";

fn url(server: &Server) -> Url {
    format!("http://{}{PATH}", server.address()).parse().unwrap()
}

fn upstream() -> Upstream {
    Upstream::new(quick()).unwrap()
}

async fn read(upstream: &Upstream, url: &Url, offset: u64) -> Result<Bytes, UpstreamError> {
    let chunks: Vec<Bytes> = upstream.file(url, LENGTH as u64, offset).await?.try_collect().await?;
    Ok(chunks.concat().into())
}

fn methods(server: &Server) -> Vec<Method> {
    server.asked().into_iter().map(|asked| asked.method).collect()
}

#[tokio::test]
async fn sizes_come_from_the_headers_or_from_the_first_byte() {
    let server = Server::start(|_| Reply::ok(content(LENGTH))).await;
    assert_eq!(upstream().file_size(&url(&server)).await.unwrap(), LENGTH as u64);
    assert_eq!(methods(&server), [Method::HEAD]);
    assert_eq!(server.targets(), [PATH]);

    // Storage that signs addresses for GET refuses HEAD.
    let server = Server::start(|asked| match asked.method {
        Method::HEAD => Reply::status(403),
        _ => Reply::new(206, "x").with("content-range", format!("bytes 0-0/{LENGTH}")),
    })
    .await;
    assert_eq!(upstream().file_size(&url(&server)).await.unwrap(), LENGTH as u64);
    assert_eq!(server.asked()[1].header("range"), "bytes=0-0");

    // Archives that are made on request have no stated size: they are read once and counted.
    let server = Server::start(|_| Reply::ok(content(LENGTH)).chunked()).await;
    assert_eq!(upstream().file_size(&url(&server)).await.unwrap(), LENGTH as u64);
    assert_eq!(methods(&server), [Method::HEAD, Method::GET]);
    let server = Server::start(|asked| match asked.header("range") {
        "bytes=0-0" => Reply::new(206, "x").with("content-range", "bytes 0-0/*"),
        _ => Reply::ok(content(LENGTH)).chunked(),
    })
    .await;
    assert_eq!(upstream().file_size(&url(&server)).await.unwrap(), LENGTH as u64);
}

#[tokio::test]
async fn coding_that_was_not_accepted_is_named() {
    let server = Server::start(|_| Reply::ok(content(100)).with("content-encoding", "gzip").chunked()).await;
    let error = upstream().file_size(&url(&server)).await.unwrap_err();
    assert!(error.to_string().contains("coding `gzip`"), "{error}");
    assert!(server.asked().iter().all(|asked| asked.header("accept-encoding") == "identity"));
    let error = read(&upstream(), &url(&server), 0).await.unwrap_err();
    assert!(error.to_string().contains("coding `gzip`"), "{error}");

    // A server that says so of a file that is there as it is (`AddEncoding x-gzip .tgz`) does no harm.
    let server = Server::start(|_| Reply::ok(content(LENGTH)).with("content-encoding", "x-gzip")).await;
    assert_eq!(upstream().file_size(&url(&server)).await.unwrap(), LENGTH as u64);
    assert_eq!(read(&upstream(), &url(&server), 0).await.unwrap(), content(LENGTH));
}

#[tokio::test]
async fn failures_that_may_pass_are_tried_again() {
    let server = Server::start(|asked| match asked.earlier {
        0 | 1 => Reply::status(503),
        _ => Reply::ok(content(LENGTH)),
    })
    .await;
    assert_eq!(upstream().file_size(&url(&server)).await.unwrap(), LENGTH as u64);
    assert_eq!(methods(&server).len(), 3);
}

#[tokio::test]
async fn goes_on_where_the_connection_broke() {
    let bytes = content(LENGTH);
    let stored = bytes.clone();
    let server = Server::start(move |asked| match asked.earlier {
        0 => Reply::range(&stored, asked).cut_after(100_000),
        _ => Reply::range(&stored, asked),
    })
    .await;
    assert_eq!(read(&upstream(), &url(&server), 0).await.unwrap(), bytes);
    assert_eq!(server.asked()[1].header("range"), "bytes=100000-");
    assert_eq!(read(&upstream(), &url(&server), 200_000).await.unwrap(), bytes.slice(200_000..));
}

#[tokio::test]
async fn what_is_missing_or_has_another_size_is_named() {
    let server = Server::start(|asked| match asked.target.as_str() {
        PATH => Reply::status(404),
        _ => Reply::ok(content(LENGTH - 1)),
    })
    .await;
    let error = upstream().file_size(&url(&server)).await.unwrap_err();
    assert!(matches!(error.problem(), Some(Problem::Missing(Missing::File))), "{error}");
    assert!(error.to_string().contains("the server has no such file"), "{error}");
    let other = url(&server).join("/other?signature=secret").unwrap();
    let error = read(&upstream(), &other, 0).await.unwrap_err();
    assert!(matches!(error.problem(), Some(Problem::Size { .. })), "{error}");
    assert!(!error.to_string().contains("secret"), "{error}");
}

#[tokio::test]
async fn mirrors_certificates_and_redirects() {
    let identity = TlsIdentity::new();
    let mirror = Server::start_tls(&identity, |asked| match asked.target.strip_prefix("/files/dl.k8s.io") {
        Some(path) => Reply::status(302).with("location", format!("/cdn{path}")),
        None => Reply::range(&content(LENGTH), asked),
    })
    .await;
    let given = parse_endpoint(&format!("dl.k8s.io=https://{}/files/dl.k8s.io", mirror.address())).unwrap();
    let options = Options { endpoints: [given].into(), ca_files: vec![identity.ca_file()], ..quick() };
    let upstream = Upstream::new(options).unwrap();
    let url: Url = format!("https://dl.k8s.io{PATH}").parse().unwrap();
    assert_eq!(upstream.file_size(&url).await.unwrap(), LENGTH as u64);
    assert_eq!(read(&upstream, &url, 0).await.unwrap(), content(LENGTH));
    assert_eq!(mirror.targets()[..2], [format!("/files/dl.k8s.io{PATH}"), format!("/cdn{PATH}")]);
}

fn sha512(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(bytes);
    hasher.finish()
}

/// `dray COMMAND -f DEFINITION -o OUTPUT` with a definition of `files`, each an address and a digest.
fn dray(home: &Path, command: &str, files: &[(String, Digest)]) -> Command {
    let definition = home.join("files.yaml");
    let mut text = "apiVersion: dray.dev/v1alpha1\nkind: Bundle\nmetadata: {name: files}\n".to_owned();
    text += "spec:\n  nodes: [windows/ltsc2022]\n  files:\n";
    for (url, digest) in files {
        let (algorithm, hex) = (digest.algorithm().name(), digest.hex());
        text.extend(["    - {url: '", url, "', ", algorithm, ": ", hex, "}\n"]);
    }
    std::fs::write(&definition, text).unwrap();
    let mut dray = Command::new(env!("CARGO_BIN_EXE_dray"));
    dray.env_clear().env("HOME", home).args([command, "-f"]).arg(definition);
    dray.arg("-o").arg(home.join(format!("{command}.out")));
    dray
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_of_files() {
    let server = Server::start(|asked: &Asked| match asked.target.as_str() {
        "/a" => Reply::range(&content(LENGTH), asked),
        "/b" => Reply::ok("other"),
        _ => Reply::status(404),
    })
    .await;
    let home = tempfile::tempdir().unwrap();
    let at = |path: &str| format!("https://example.org/{path}");
    let mirror = format!("example.org=http://{}", server.address());
    let run = |command: &str, files: &[(String, Digest)]| {
        let mut dray = dray(home.path(), command, files);
        dray.args(["--upstream", &mirror]);
        dray
    };
    let good = [(at("a"), sha512(&content(LENGTH))), (at("b"), Digest::sha256(b"other"))];
    run("lock", &good).succeed();
    run("build", &good).succeed();
    let bundle = Bundle::open(&home.path().join("build.out")).unwrap();
    let sizes: Vec<(&str, u64)> = bundle.lock().files.iter().map(|f| (f.url.as_str(), f.size)).collect();
    assert_eq!(sizes, [("https://example.org/a", LENGTH as u64), ("https://example.org/b", 5)]);

    // Read from the bundle itself and from a store that it was imported into, they are the same.
    for content in ways_to_serve(bundle, home.path()) {
        let file = content.files("a").unwrap().pop().unwrap();
        assert_eq!((file.host.as_str(), &file.digest), ("example.org", &good[0].1));
        let blob = content.blob(&file.repository, &file.digest).unwrap().unwrap();
        assert_eq!((blob.size(), file.size), (LENGTH as u64, LENGTH as u64));
        assert!(content.files("c").unwrap().is_empty());
    }

    let lying = [(at("b"), sha512(b"what it should be"))];
    run("build", &lying).fail_with(3).says(&["https://example.org/b", "other bytes"]);
    let missing = [(at("c"), sha512(b"")), (at("b"), sha512(b"")), (at("d"), sha512(b""))];
    run("lock", &missing).fail_with(4).says(&[
        "https://example.org/c",
        "https://example.org/d",
        "no such file",
    ]);
    run("lock", &[("file:///etc/passwd".to_owned(), sha512(b""))]).fail_with(2).says(&["http or https"]);
}
