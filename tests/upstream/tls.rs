//! TLS: whom to trust, and what must not go without it.

use dray::oci::{Descriptor, Reference, media_type};
use dray::upstream::{Options, Problem, Upstream};
use futures_util::TryStreamExt as _;

use crate::server::{Reply, Server, TlsIdentity, content, credentials, layer, plain, quick};

const INDEX: &str =
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;

fn index() -> Reply {
    Reply::ok(INDEX).with("content-type", media_type::OCI_INDEX)
}

fn image(server: &Server) -> Reference {
    format!("{}/team/app:1.0", server.address()).parse().unwrap()
}

#[tokio::test]
async fn certificates_are_trusted_only_when_told() {
    let identity = TlsIdentity::new();
    let server = Server::start_tls(&identity, |_| index()).await;
    let error = Upstream::new(quick()).unwrap().manifest(&image(&server)).await.unwrap_err();
    assert!(matches!(error.problem(), Some(Problem::Tls { .. })), "{error}");
    assert!(error.hint().unwrap().contains("--ca-file"));

    let options = Options { ca_files: vec![identity.ca_file()], ..quick() };
    Upstream::new(options).unwrap().manifest(&image(&server)).await.unwrap();
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn loopback_is_no_exception() {
    let server = Server::start(|_| index()).await;
    let error = Upstream::new(quick()).unwrap().manifest(&image(&server)).await.unwrap_err();
    assert!(matches!(error.problem(), Some(Problem::Tls { .. })), "{error}");
    assert!(error.hint().unwrap().contains("--plain-http"));
    assert!(server.asked().is_empty());
    Upstream::new(plain(&server)).unwrap().manifest(&image(&server)).await.unwrap();
}

#[tokio::test]
async fn redirects_never_give_up_tls() {
    let plain = Server::start(|_| index()).await;
    let location = format!("http://{}/blob?signature=secret", plain.address());
    let identity = TlsIdentity::new();
    let server =
        Server::start_tls(&identity, move |_| Reply::status(307).with("location", location.clone())).await;
    let options = Options { ca_files: vec![identity.ca_file()], ..quick() };
    let error = Upstream::new(options).unwrap().manifest(&image(&server)).await.unwrap_err();
    assert!(matches!(error.problem(), Some(Problem::Redirect(_))), "{error}");
    let text = error.to_string();
    assert!(text.contains("from https to http") && !text.contains("secret"), "{text}");
    assert_eq!((server.asked().len(), plain.asked().len()), (1, 0));
}

#[tokio::test]
async fn redirects_come_to_an_end() {
    let server = Server::start(|asked| Reply::status(302).with("location", asked.target.clone() + "x")).await;
    let error = Upstream::new(plain(&server)).unwrap().manifest(&image(&server)).await.unwrap_err();
    assert!(matches!(error.problem(), Some(Problem::Redirect(_))), "{error}");
    assert_eq!(server.asked().len(), 6);
}

/// A foreign layer, as Windows images have: the registry does not hold it, the descriptor says who does.
fn foreign(bytes: &[u8], urls: &[String]) -> Descriptor {
    let mut blob = layer(bytes);
    blob.media_type = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".into();
    blob.urls = urls.to_vec();
    blob
}

#[tokio::test]
async fn foreign_layers_come_from_their_address() {
    let bytes = content(300_000);
    let identity = TlsIdentity::new();
    let stored = bytes.clone();
    let vendor = Server::start_tls(&identity, move |asked| match asked.earlier {
        0 => Reply::range(&stored, asked).cut_after(100_000),
        _ => Reply::range(&stored, asked),
    })
    .await;
    let registry = Server::start(|_| Reply::error(404, "BLOB_UNKNOWN")).await;
    let everywhere =
        r#"{"auths":{"REGISTRY":{"auth":"cm9ib3Q6czNjcmV0"},"VENDOR":{"auth":"cm9ib3Q6czNjcmV0"}}}"#
            .replace("REGISTRY", &registry.address())
            .replace("VENDOR", &vendor.address());
    let options = Options {
        ca_files: vec![identity.ca_file()],
        credentials: credentials(&everywhere),
        ..plain(&registry)
    };
    let upstream = Upstream::new(options).unwrap();
    let name = image(&registry).name().clone();
    let urls = [
        "https://vendor.invalid/layer".to_owned(),
        format!("http://{}/without-tls", vendor.address()),
        format!("https://{}/layer", vendor.address()),
    ];
    let stream = upstream.blob(&name, &foreign(&bytes, &urls), 0).await.unwrap();
    let chunks: Vec<_> = stream.try_collect().await.unwrap();
    assert_eq!(chunks.concat(), bytes);
    assert_eq!(vendor.targets(), ["/layer", "/layer"]);
    assert!(vendor.asked().iter().all(|asked| asked.header("authorization").is_empty()));
    assert_eq!(vendor.asked()[1].header("range"), "bytes=100000-");
    assert_eq!(registry.asked().len(), 1);

    let error = upstream.blob(&name, &foreign(&bytes, &urls[1..2]), 0).await.unwrap_err();
    assert!(error.is_missing(), "{error}");
    let error = upstream.blob(&name, &foreign(&bytes, &urls[..1]), 0).await.unwrap_err();
    assert!(!error.is_missing() && error.to_string().contains("vendor.invalid does not give it"), "{error}");
}

#[tokio::test]
async fn foreign_layers_in_the_registry_are_read_there() {
    let bytes = content(1000);
    let stored = bytes.clone();
    let registry = Server::start(move |_| Reply::ok(stored.clone())).await;
    let blob = foreign(&bytes, &["https://vendor.invalid/layer".into()]);
    let upstream = Upstream::new(plain(&registry)).unwrap();
    assert_eq!(upstream.small_blob(image(&registry).name(), &blob).await.unwrap(), bytes);
}
