//! Lists: tags and referrers, page by page.

use dray::oci::{Digest, RepositoryName, media_type};
use dray::upstream::Problem;

use crate::server::{Reply, Server, upstream};

fn name(server: &Server) -> RepositoryName {
    format!("{}/team/app", server.address()).parse().unwrap()
}

fn link(query: &str) -> String {
    format!(r#"<https://elsewhere.invalid/v2/team/app/tags/list?{query}>; rel="next""#)
}

#[tokio::test]
async fn tags_page_by_page() {
    let server = Server::start(|asked| match asked.target.split_once('?').unwrap().1 {
        "n=1000" => {
            Reply::ok(r#"{"name":"team/app","tags":["1.0","1.1"]}"#).with("link", link("n=2&last=1.1"))
        }
        "n=2&last=1.1" => Reply::ok(r#"{"tags":["2.0"]}"#).with("link", link("n=2&last=2.0")),
        "n=2&last=2.0" => Reply::ok(r#"{"tags":null}"#),
        other => panic!("asked for {other}"),
    })
    .await;
    let tags = upstream(&server).tags(&name(&server)).await.unwrap();
    let tags: Vec<&str> = tags.iter().map(dray::oci::Tag::as_str).collect();
    assert_eq!(tags, ["1.0", "1.1", "2.0"]);
}

#[tokio::test]
async fn lists_do_not_go_round_in_circles() {
    let server = Server::start(|_| Reply::ok(r#"{"tags":["1"]}"#).with("link", link("last=1"))).await;
    let error = upstream(&server).tags(&name(&server)).await.unwrap_err();
    assert!(matches!(error.problem(), Some(Problem::Answer(_))), "{error}");
    assert_eq!(server.asked().len(), 2);

    let server = Server::start(|_| Reply::ok(r#"{"tags":["../../etc"]}"#)).await;
    assert!(upstream(&server).tags(&name(&server)).await.is_err());
    let server = Server::start(|_| Reply::error(404, "NAME_UNKNOWN")).await;
    assert!(upstream(&server).tags(&name(&server)).await.unwrap_err().is_missing());
}

fn referrers(digests: &[&Digest]) -> Reply {
    let entries: Vec<String> = digests
        .iter()
        .map(|digest| {
            format!(
                r#"{{"mediaType":"{}","digest":"{digest}","size":7,"artifactType":"application/x-signature"}}"#,
                media_type::OCI_MANIFEST
            )
        })
        .collect();
    let body = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{}]}}"#,
        media_type::OCI_INDEX,
        entries.join(",")
    );
    Reply::ok(body).with("content-type", media_type::OCI_INDEX)
}

#[tokio::test]
async fn referrers_page_by_page() {
    let (subject, first, second) = (Digest::sha256(b"s"), Digest::sha256(b"1"), Digest::sha256(b"2"));
    let pages = [first.clone(), second.clone()];
    let server = Server::start(move |asked| match asked.target.split_once('?') {
        None => referrers(&[&pages[0]]).with("link", r#"</v2/team/app/referrers/x?page=2>; rel="next""#),
        Some(_) => referrers(&[&pages[1]]),
    })
    .await;
    let found = upstream(&server).referrers(&name(&server), &subject).await.unwrap();
    assert_eq!(found.iter().map(|found| &found.digest).collect::<Vec<_>>(), [&first, &second]);
    assert_eq!(found[0].artifact_type.as_deref(), Some("application/x-signature"));
    let path = format!("/v2/team/app/referrers/{subject}");
    assert_eq!(server.targets(), [path.clone(), path + "?page=2"]);
}

#[tokio::test]
async fn old_registries_list_referrers_under_a_tag() {
    let (subject, signature) = (Digest::sha256(b"s"), Digest::sha256(b"1"));
    // What registries answer that take the path for something else.
    for answer in
        [Reply::status(404), Reply::status(405), Reply::error(400, "UNSUPPORTED"), Reply::ok("<html>")]
    {
        let signature = signature.clone();
        let server = Server::start(move |asked| {
            if asked.target.contains("/referrers/") { answer.clone() } else { referrers(&[&signature]) }
        })
        .await;
        let found = upstream(&server).referrers(&name(&server), &subject).await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(server.targets()[1], format!("/v2/team/app/manifests/sha256-{}", subject.hex()));
    }
    let server = Server::start(|_| Reply::status(404)).await;
    assert!(upstream(&server).referrers(&name(&server), &subject).await.unwrap().is_empty());
    // A registry that is down has not said that there are none.
    let server = Server::start(|_| Reply::status(500)).await;
    assert!(upstream(&server).referrers(&name(&server), &subject).await.is_err());
}
