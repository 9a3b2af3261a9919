//! Manifests: what they are checked against, which failures are tried again, and what the errors say.

use std::time::{Duration, Instant};

use dray::oci::{Digest, Document, MAX_MANIFEST_BYTES, Reference, RepositoryName, media_type};
use dray::upstream::{Problem, Upstream, UpstreamError, parse_endpoint};

use crate::server::{Asked, Reply, Server, plain, quick, upstream};

const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
    "config":{"mediaType":"application/vnd.oci.image.config.v1+json",
    "digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0},"layers":[]}"#;

fn manifest() -> Reply {
    Reply::ok(MANIFEST).with("content-type", media_type::OCI_MANIFEST)
}

fn tag(server: &Server) -> Reference {
    format!("{}/team/app:1.0", server.address()).parse().unwrap()
}

async fn read(server: &Server) -> Result<dray::upstream::Fetched, UpstreamError> {
    upstream(server).manifest(&tag(server)).await
}

async fn failing(handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> (UpstreamError, usize) {
    let server = Server::start(handler).await;
    let error = read(&server).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&tag(&server).to_string()) && text.contains(&server.address()), "{text}");
    (error, server.asked().len())
}

#[tokio::test]
async fn reads_by_tag_and_by_digest() {
    let server = Server::start(|_| manifest()).await;
    let fetched = read(&server).await.unwrap();
    assert_eq!(fetched.digest, Digest::sha256(MANIFEST.as_bytes()));
    assert_eq!(fetched.document.raw(), MANIFEST.as_bytes());
    assert!(matches!(fetched.document, Document::Image(_)));

    let name: RepositoryName = format!("{}/team/app", server.address()).parse().unwrap();
    upstream(&server).manifest_by_digest(&name, &fetched.digest).await.unwrap();
    let asked = server.asked();
    assert_eq!(asked[0].target, "/v2/team/app/manifests/1.0");
    assert_eq!(asked[1].target, format!("/v2/team/app/manifests/{}", fetched.digest));
    assert_eq!(asked[0].header("user-agent"), concat!("dray/", env!("CARGO_PKG_VERSION")));
    assert_eq!(asked[0].header("accept"), media_type::ACCEPT_MANIFESTS);
    assert_eq!(asked[0].header("authorization"), "");
}

#[tokio::test]
async fn a_server_stands_in_for_a_registry() {
    let server = Server::start(|_| manifest()).await;
    let mut options = quick();
    let endpoint = format!("registry.k8s.io=http://{}/registry.k8s.io", server.address());
    options.endpoints.extend([parse_endpoint(&endpoint).unwrap()]);
    let upstream = Upstream::new(options).unwrap();
    upstream.manifest(&"registry.k8s.io/pause:3.9".parse().unwrap()).await.unwrap();
    assert_eq!(server.targets(), ["/v2/registry.k8s.io/pause/manifests/3.9"]);
}

#[tokio::test]
async fn tries_again_when_it_may_help() {
    for status in [408, 500, 502, 503, 504] {
        let server = Server::start(move |asked| match asked.earlier {
            0 | 1 => Reply::status(status),
            _ => manifest(),
        })
        .await;
        read(&server).await.unwrap();
        assert_eq!(server.asked().len(), 3, "{status}");
    }
    let server = Server::start(|asked| match asked.earlier {
        0 => manifest().cut_after(20),
        _ => manifest(),
    })
    .await;
    read(&server).await.unwrap();
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn gives_up_in_the_end() {
    let (error, requests) = failing(|_| Reply::error(503, "UNAVAILABLE")).await;
    assert_eq!(requests, 3);
    assert!(error.to_string().ends_with("the server answered 503 (UNAVAILABLE: no luck)"), "{error}");
    assert!(!error.is_missing() && !error.is_auth());
}

#[tokio::test]
async fn waits_as_long_as_the_registry_asks() {
    let server = Server::start(|asked| match asked.earlier {
        0 => Reply::status(429).with("retry-after", "1"),
        _ => manifest(),
    })
    .await;
    let upstream = upstream(&server);
    let start = Instant::now();
    upstream.manifest(&tag(&server)).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));

    // A whole night is not waited for.
    let (error, requests) = failing(|_| Reply::status(429).with("retry-after", "28800")).await;
    assert_eq!(requests, 1);
    assert!(error.to_string().contains("asks to wait 28800 s"), "{error}");
    assert!(error.hint().unwrap().contains("log in"));
}

#[tokio::test]
async fn says_what_is_missing() {
    let (tag, requests) = failing(|_| Reply::error(404, "MANIFEST_UNKNOWN")).await;
    assert!(tag.is_missing() && tag.to_string().ends_with("no such tag"), "{tag}");
    assert_eq!(requests, 1);
    let (repository, _) = failing(|_| Reply::error(404, "NAME_UNKNOWN")).await;
    assert!(
        repository.is_missing() && repository.to_string().ends_with("no such repository"),
        "{repository}"
    );
    assert!(repository.hint().unwrap().contains("spelling"));
}

#[tokio::test]
async fn refuses_other_content_than_was_asked_for() {
    let server = Server::start(|_| manifest()).await;
    let name: RepositoryName = format!("{}/app", server.address()).parse().unwrap();
    let other = Digest::sha256(b"another manifest");
    let error = upstream(&server).manifest_by_digest(&name, &other).await.unwrap_err();
    assert!(
        matches!(error.problem(), Some(Problem::Digest { expected, .. }) if *expected == other),
        "{error}"
    );

    let (error, requests) = failing(|_| {
        manifest().with("docker-content-digest", Digest::sha256(b"another manifest").to_string())
    })
    .await;
    assert!(matches!(error.problem(), Some(Problem::Digest { .. })), "{error}");
    assert_eq!(requests, 1);
}

#[tokio::test]
async fn refuses_what_is_no_manifest() {
    let (error, _) = failing(|_| Reply::ok("<html>log in to the hotel's network</html>")).await;
    assert!(matches!(error.problem(), Some(Problem::Manifest(_))), "{error}");
    let (error, _) = failing(|_| Reply::ok(r#"{"schemaVersion":1,"fsLayers":[]}"#)).await;
    assert!(error.to_string().contains("schema 1"), "{error}");
    let (error, _) = failing(|_| manifest().with("content-type", media_type::OCI_INDEX)).await;
    assert!(matches!(error.problem(), Some(Problem::Manifest(_))), "{error}");
}

#[tokio::test]
async fn reads_no_more_than_the_limit() {
    let huge = vec![b' '; MAX_MANIFEST_BYTES + 1];
    let stated = Reply::ok(huge.clone());
    let (error, requests) = failing(move |_| stated.clone()).await;
    assert!(matches!(error.problem(), Some(Problem::TooLarge { .. })), "{error}");
    assert_eq!(requests, 1);
    // The end never comes, so this returns only because the limit is looked at on the way.
    let endless = Reply::ok(huge).chunked().silent_after(MAX_MANIFEST_BYTES + 1);
    let (error, _) = failing(move |_| endless.clone()).await;
    assert!(matches!(error.problem(), Some(Problem::TooLarge { .. })), "{error}");
}

#[tokio::test]
async fn says_why_there_is_no_connection() {
    let gone = Server::start(|_| manifest()).await;
    let (address, options) = (gone.address(), plain(&gone));
    drop(gone);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let reference = format!("{address}/app:1").parse().unwrap();
    let error = Upstream::new(options).unwrap().manifest(&reference).await.unwrap_err();
    assert!(matches!(error.problem(), Some(Problem::Unreachable { .. })), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(error.hint().unwrap().contains("--upstream"));

    let unknown = "registry.invalid/app:1".parse().unwrap();
    let error = Upstream::new(quick()).unwrap().manifest(&unknown).await.unwrap_err();
    assert!(
        error.to_string().contains("no connection to registry.invalid: the name is not known"),
        "{error}"
    );
}

#[tokio::test]
async fn silence_is_not_waited_for() {
    let server = Server::start(|asked| match asked.earlier {
        0 => manifest().after(Duration::from_mins(1)),
        1 => manifest().silent_after(10),
        _ => manifest(),
    })
    .await;
    let mut options = plain(&server);
    options.timeouts.idle = Duration::from_millis(300);
    let start = Instant::now();
    Upstream::new(options).unwrap().manifest(&tag(&server)).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn asks_one_host_only_so_many_things_at_once() {
    let server = Server::start(|_| manifest().after(Duration::from_millis(30))).await;
    let mut options = plain(&server);
    options.per_host = 3;
    let upstream = Upstream::new(options).unwrap();
    let reference = tag(&server);
    let requests = (0..12).map(|_| upstream.manifest(&reference));
    for fetched in futures_util::future::join_all(requests).await {
        fetched.unwrap();
    }
    assert_eq!(server.busiest(), 3);
}
