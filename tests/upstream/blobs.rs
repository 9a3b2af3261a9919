//! Blobs: streamed, resumed, and never other than their descriptor says in size.

use std::time::Duration;

use bytes::Bytes;
use dray::oci::{Descriptor, RepositoryName};
use dray::upstream::{MAX_SMALL_BLOB, Problem, Upstream, UpstreamError};
use futures_util::{StreamExt as _, TryStreamExt as _};

use crate::server::{Reply, Server, content, layer, plain, upstream};

const LENGTH: usize = 700_000;

fn name(server: &Server) -> RepositoryName {
    format!("{}/team/app", server.address()).parse().unwrap()
}

async fn read_from(server: &Server, blob: &Descriptor, offset: u64) -> Result<Bytes, UpstreamError> {
    let stream = upstream(server).blob(&name(server), blob, offset).await?;
    stream
        .try_fold(Vec::new(), |mut all, chunk| async move {
            all.extend_from_slice(&chunk);
            Ok(all)
        })
        .await
        .map(Bytes::from)
}

async fn read(server: &Server, blob: &Descriptor) -> Result<Bytes, UpstreamError> {
    read_from(server, blob, 0).await
}

#[tokio::test]
async fn reads_all_or_the_rest() {
    let bytes = content(LENGTH);
    let stored = bytes.clone();
    let server = Server::start(move |asked| Reply::range(&stored, asked)).await;
    let blob = layer(&bytes);
    assert_eq!(read(&server, &blob).await.unwrap(), bytes);
    assert_eq!(read_from(&server, &blob, 500_000).await.unwrap(), bytes.slice(500_000..));
    assert_eq!(server.asked()[0].target, format!("/v2/team/app/blobs/{}", blob.digest));
    assert_eq!(server.asked()[0].header("range"), "");
    assert_eq!(server.asked()[1].header("range"), "bytes=500000-");
    // Nothing is left to ask for.
    assert_eq!(read_from(&server, &blob, LENGTH as u64).await.unwrap(), Bytes::new());
    assert_eq!(server.asked().len(), 2);
    assert!(read_from(&server, &blob, LENGTH as u64 + 1).await.is_err());
}

#[tokio::test]
async fn goes_on_where_the_connection_broke() {
    let bytes = content(LENGTH);
    let stored = bytes.clone();
    let server = Server::start(move |asked| match asked.earlier {
        0..6 => Reply::range(&stored, asked).cut_after(100_000),
        _ => Reply::range(&stored, asked),
    })
    .await;
    // More breaks than tries: each connection brought something, so the count starts again.
    assert_eq!(read(&server, &layer(&bytes)).await.unwrap(), bytes);
    let asked: Vec<usize> = server.asked().iter().map(crate::server::Asked::from).collect();
    assert_eq!(asked, [0, 100_000, 200_000, 300_000, 400_000, 500_000, 600_000]);
}

#[tokio::test]
async fn silence_in_the_middle_is_a_broken_connection() {
    let bytes = content(LENGTH);
    let stored = bytes.clone();
    let server = Server::start(move |asked| match asked.earlier {
        0 => Reply::range(&stored, asked).silent_after(100_000),
        _ => Reply::range(&stored, asked),
    })
    .await;
    let mut options = plain(&server);
    options.timeouts.idle = Duration::from_millis(300);
    let stream = Upstream::new(options).unwrap().blob(&name(&server), &layer(&bytes), 0).await.unwrap();
    let chunks: Vec<Bytes> = stream.try_collect().await.unwrap();
    assert_eq!(chunks.concat(), bytes);
}

#[tokio::test]
async fn servers_without_ranges_start_again() {
    let bytes = content(LENGTH);
    let stored = bytes.clone();
    let server = Server::start(move |asked| match asked.earlier {
        0 => Reply::ok(stored.clone()).cut_after(300_001),
        _ => Reply::ok(stored.clone()),
    })
    .await;
    assert_eq!(read(&server, &layer(&bytes)).await.unwrap(), bytes);
    assert_eq!(server.asked()[1].header("range"), "bytes=300001-");
    assert_eq!(read_from(&server, &layer(&bytes), 650_000).await.unwrap(), bytes.slice(650_000..));
}

#[tokio::test]
async fn a_server_that_brings_nothing_is_left() {
    let bytes = content(LENGTH);
    let stored = bytes.clone();
    let server = Server::start(move |asked| Reply::range(&stored, asked).cut_after(10)).await;
    let error = read(&server, &layer(&bytes)).await.unwrap_err();
    assert!(matches!(error.problem(), Some(Problem::Broken(_))), "{error}");
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn other_ranges_than_asked_for_are_refused() {
    let bytes = content(LENGTH);
    for range in ["bytes 5-699999/700000", "bytes 100-699999/700001", "bytes */700000", "nonsense"] {
        let stored = bytes.clone();
        let reply = Reply::new(206, stored.slice(100..)).with("content-range", range);
        let server = Server::start(move |_| reply.clone()).await;
        let error = read_from(&server, &layer(&bytes), 100).await.unwrap_err();
        assert!(
            matches!(error.problem(), Some(Problem::Answer(_) | Problem::Size { .. })),
            "{range}: {error}"
        );
        assert_eq!(server.asked().len(), 1);
    }
}

#[tokio::test]
async fn sizes_must_be_the_descriptors() {
    let bytes = content(LENGTH);
    let blob = layer(&bytes);
    for actual in [LENGTH - 1, LENGTH + 1] {
        let reply = Reply::ok(content(actual));
        let server = Server::start(move |_| reply.clone()).await;
        let error = read(&server, &blob).await.unwrap_err();
        assert!(matches!(error.problem(), Some(Problem::Size { .. })), "{error}");
    }
    // Without a stated length it shows on the way. Not a byte more than promised comes out.
    let reply = Reply::ok(content(LENGTH + 100_000)).chunked();
    let server = Server::start(move |_| reply.clone()).await;
    let mut stream = upstream(&server).blob(&name(&server), &blob, 0).await.unwrap();
    let mut length = 0;
    let error = loop {
        match stream.next().await.unwrap() {
            Ok(chunk) => length += chunk.len(),
            Err(error) => break error,
        }
    };
    assert!(length <= LENGTH);
    assert!(matches!(error.problem(), Some(Problem::TooLarge { .. })), "{error}");
    assert!(stream.next().await.is_none());

    let reply = Reply::ok(content(LENGTH - 1)).chunked();
    let server = Server::start(move |_| reply.clone()).await;
    let error = read(&server, &blob).await.unwrap_err();
    assert!(error.to_string().contains("1 bytes are missing"), "{error}");
}

#[tokio::test]
async fn missing_blobs_are_named_at_once() {
    let server = Server::start(|_| Reply::error(404, "BLOB_UNKNOWN")).await;
    let blob = layer(b"gone");
    let error = upstream(&server).blob(&name(&server), &blob, 0).await.unwrap_err();
    assert!(error.is_missing());
    assert!(error.to_string().contains(&blob.digest.to_string()), "{error}");
}

#[tokio::test]
async fn small_blobs_are_verified() {
    let bytes = content(5000);
    let stored = bytes.clone();
    let server = Server::start(move |_| Reply::ok(stored.clone())).await;
    let upstream = upstream(&server);
    assert_eq!(upstream.small_blob(&name(&server), &layer(&bytes)).await.unwrap(), bytes);

    let mut other = bytes.to_vec();
    other[4999] ^= 1;
    let error = upstream.small_blob(&name(&server), &layer(&other)).await.unwrap_err();
    assert!(matches!(error.problem(), Some(Problem::Digest { .. })), "{error}");

    let mut big = layer(&bytes);
    big.size = MAX_SMALL_BLOB + 1;
    let error = upstream.small_blob(&name(&server), &big).await.unwrap_err();
    assert!(matches!(error.problem(), Some(Problem::TooLarge { .. })), "{error}");
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn ranges_go_along_to_where_the_blobs_are() {
    let bytes = content(LENGTH);
    let stored = bytes.clone();
    let storage = Server::start(move |asked| match asked.earlier {
        0 => Reply::range(&stored, asked).cut_after(200_000),
        _ => Reply::range(&stored, asked),
    })
    .await;
    let location = format!("http://{}/storage", storage.address());
    let server = Server::start(move |_| Reply::status(307).with("location", location.clone())).await;
    assert_eq!(read(&server, &layer(&bytes)).await.unwrap(), bytes);
    // Each try asks the registry again, because what it signs for the storage holds for a short time only.
    assert_eq!(server.asked().len(), 2);
    assert_eq!(storage.asked()[1].header("range"), "bytes=200000-");
}
