//! Who requests are made as, and whom passwords and tokens are shown to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dray::oci::{Reference, media_type};
use dray::upstream::{CredentialStore, Options, Problem, Upstream, UpstreamError};
use http::Method;

use crate::server::{Asked, Reply, Server, TlsIdentity, credentials, plain, quick};

const INDEX: &str =
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
/// `robot:s3cret`
const BASIC: &str = "Basic cm9ib3Q6czNjcmV0";

fn index() -> Reply {
    Reply::ok(INDEX).with("content-type", media_type::OCI_INDEX)
}

fn image(server: &Server) -> Reference {
    format!("{}/team/app:1.0", server.address()).parse().unwrap()
}

/// Options that know `robot` with its password at `server`.
fn robot(server: &Server) -> Options {
    let document = format!(r#"{{"auths":{{"{}":{{"auth":"cm9ib3Q6czNjcmV0"}}}}}}"#, server.address());
    Options { credentials: credentials(&document), ..plain(server) }
}

async fn read(options: Options, server: &Server) -> Result<(), UpstreamError> {
    Upstream::new(options).unwrap().manifest(&image(server)).await.map(drop)
}

/// A registry that wants tokens and its token server in one. The tokens are `token-0`, `token-1` and so on; only those
/// from `valid` on are good.
async fn token_registry(valid: Arc<AtomicUsize>, expires_in: u32) -> Server {
    let given = AtomicUsize::new(0);
    Server::start(move |asked| {
        if asked.target.starts_with("/token") {
            let number = given.fetch_add(1, Ordering::SeqCst);
            return Reply::ok(format!(r#"{{"token":"token-{number}","expires_in":{expires_in}}}"#))
                .after(Duration::from_millis(50));
        }
        let number = asked.header("authorization").strip_prefix("Bearer token-").map(str::parse::<usize>);
        match number {
            Some(Ok(number)) if number >= valid.load(Ordering::SeqCst) => index(),
            _ => Reply::error(401, "UNAUTHORIZED").with("www-authenticate", challenge(asked)),
        }
    })
    .await
}

fn challenge(asked: &Asked) -> String {
    format!(
        r#"Bearer realm="http://{}/token",service="the registry",scope="repository:team/app:pull""#,
        asked.header("host")
    )
}

fn tokens(server: &Server) -> Vec<Asked> {
    server.asked().into_iter().filter(|asked| asked.target.starts_with("/token")).collect()
}

#[tokio::test]
async fn tokens_are_asked_for_once() {
    let server = token_registry(Arc::default(), 300).await;
    let upstream = Upstream::new(robot(&server)).unwrap();
    let reference = image(&server);
    let requests = (0..6).map(|_| upstream.manifest(&reference));
    for fetched in futures_util::future::join_all(requests).await {
        fetched.unwrap();
    }
    let before = server.asked().len();
    upstream.manifest(&reference).await.unwrap();
    assert_eq!(server.asked().len(), before + 1);

    let tokens = tokens(&server);
    assert_eq!(tokens.len(), 1);
    assert_eq!(
        tokens[0].target,
        "/token?service=the+registry&scope=repository%3Ateam%2Fapp%3Apull&account=robot"
    );
    assert_eq!(tokens[0].header("authorization"), BASIC);
    // The registry itself sees tokens only.
    let others = server.asked().into_iter().filter(|asked| asked.target.starts_with("/v2/"));
    assert!(others.into_iter().all(|asked| !asked.header("authorization").starts_with("Basic")));
}

#[tokio::test]
async fn tokens_for_everybody_need_no_password() {
    let server = token_registry(Arc::default(), 300).await;
    read(plain(&server), &server).await.unwrap();
    assert_eq!(tokens(&server)[0].header("authorization"), "");
}

#[tokio::test]
async fn tokens_are_renewed_before_they_end_and_when_they_are_revoked() {
    let valid = Arc::new(AtomicUsize::new(0));
    let server = token_registry(Arc::clone(&valid), 1).await;
    let upstream = Upstream::new(robot(&server)).unwrap();
    upstream.manifest(&image(&server)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    upstream.manifest(&image(&server)).await.unwrap();
    // 401, token, answer; then the second token without another 401.
    assert_eq!(server.asked().len(), 5);
    assert_eq!(tokens(&server).len(), 2);

    let server = token_registry(Arc::clone(&valid), 300).await;
    let upstream = Upstream::new(robot(&server)).unwrap();
    upstream.manifest(&image(&server)).await.unwrap();
    valid.store(1, Ordering::SeqCst);
    upstream.manifest(&image(&server)).await.unwrap();
    assert_eq!(tokens(&server).len(), 2);
    // A token that is never good enough ends in an error, not in a loop.
    valid.store(1000, Ordering::SeqCst);
    let error = upstream.manifest(&image(&server)).await.unwrap_err();
    assert!(error.is_auth() && error.to_string().contains("the credentials from auth.json"), "{error}");
    assert_eq!(tokens(&server).len(), 3);
}

#[tokio::test]
async fn identity_tokens_are_exchanged() {
    let server = token_registry(Arc::default(), 300).await;
    let document = format!(r#"{{"auths":{{"{}":{{"identitytoken":"refresh me"}}}}}}"#, server.address());
    read(Options { credentials: credentials(&document), ..plain(&server) }, &server).await.unwrap();
    let token = &tokens(&server)[0];
    assert_eq!((&token.method, token.target.as_str()), (&Method::POST, "/token"));
    assert_eq!(
        token.body,
        "grant_type=refresh_token&refresh_token=refresh+me&client_id=dray&scope=repository%3Ateam%2Fapp%3Apull\
         &service=the+registry"
    );
}

#[tokio::test]
async fn token_servers_fail_too() {
    let server = Server::start(|asked| {
        if !asked.target.starts_with("/token") && asked.header("authorization") == "Bearer good" {
            index()
        } else if !asked.target.starts_with("/token") {
            Reply::status(401).with("www-authenticate", challenge(asked))
        } else if asked.earlier == 0 {
            Reply::status(502)
        } else {
            Reply::ok(r#"{"access_token":"good"}"#)
        }
    })
    .await;
    read(plain(&server), &server).await.unwrap();

    let huge = format!(r#"{{"token":"{}"}}"#, "x".repeat(100_000));
    for (answer, expected) in [
        (Reply::ok(huge), "larger than 65536 bytes"),
        (
            Reply::ok(r#"{"tokens":[]}"#),
            "gives no token: the server's answer makes no sense: there is no token",
        ),
        (Reply::ok(r#"{"token":"a\nb"}"#), "characters that no token may have"),
        (Reply::status(307).with("location", "https://elsewhere.invalid/token"), "answered 307"),
    ] {
        let server = Server::start(move |asked| {
            if asked.target.starts_with("/token") {
                answer.clone()
            } else {
                Reply::status(401).with("www-authenticate", challenge(asked))
            }
        })
        .await;
        let error = read(robot(&server), &server).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn refused_passwords_are_reported_with_their_source() {
    let server = Server::start(|asked| {
        if asked.target.starts_with("/token") {
            Reply::new(401, r#"{"details":"incorrect username or password"}"#)
        } else {
            Reply::status(401).with("www-authenticate", challenge(asked))
        }
    })
    .await;
    let error = read(robot(&server), &server).await.unwrap_err();
    assert!(error.is_auth());
    let text = error.to_string();
    assert!(text.contains("the credentials from auth.json (incorrect username or password)"), "{text}");
    assert!(!format!("{error:?}").contains("s3cret"));
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn basic_authentication() {
    let handler = |asked: &Asked| match asked.header("authorization") {
        BASIC => index(),
        _ => Reply::error(401, "UNAUTHORIZED").with("www-authenticate", r#"Basic realm="registry""#),
    };
    let server = Server::start(handler).await;
    let upstream = Upstream::new(robot(&server)).unwrap();
    upstream.manifest(&image(&server)).await.unwrap();
    upstream.manifest(&image(&server)).await.unwrap();
    assert_eq!(server.asked().len(), 3);

    let server = Server::start(handler).await;
    let document = format!(r#"{{"auths":{{"{}":{{"auth":"cm9ib3Q6b2xk"}}}}}}"#, server.address());
    let wrong = Options { credentials: credentials(&document), ..plain(&server) };
    let error = read(wrong, &server).await.unwrap_err();
    assert!(error.is_auth() && error.to_string().contains("the credentials from auth.json"), "{error}");
    assert_eq!(server.asked().len(), 2);

    let server = Server::start(handler).await;
    let mut store = CredentialStore::new();
    store.add_absent("/run/user/1000/containers/auth.json");
    let nobody = Options { credentials: store, ..plain(&server) };
    let error = read(nobody, &server).await.unwrap_err();
    assert!(error.is_auth() && error.to_string().contains("without credentials"), "{error}");
    assert!(error.hint().unwrap().contains("/run/user/1000/containers/auth.json"));
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn forbidden_is_final() {
    let server = Server::start(|_| Reply::error(403, "DENIED")).await;
    let error = read(plain(&server), &server).await.unwrap_err();
    assert!(error.is_auth() && error.to_string().contains("DENIED"), "{error}");
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn passwords_belong_to_the_server_not_to_the_name() {
    let server = Server::start(|_| Reply::status(401).with("www-authenticate", "Basic")).await;
    let mut options = quick();
    options.credentials = credentials(r#"{"auths":{"quay.io":{"auth":"cm9ib3Q6czNjcmV0"}}}"#);
    let endpoint = format!("quay.io=http://{}/quay.io", server.address());
    options.endpoints.extend([dray::upstream::parse_endpoint(&endpoint).unwrap()]);
    let error = Upstream::new(options).unwrap().manifest(&"quay.io/a:1".parse().unwrap()).await.unwrap_err();
    assert!(error.is_auth(), "{error}");
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn redirects_to_another_server_carry_no_authorization() {
    let storage = Server::start(|_| index()).await;
    let location = format!("http://{}/signed?signature=secret", storage.address());
    let server = Server::start(move |asked| match asked.header("authorization") {
        BASIC => Reply::status(307).with("location", location.clone()),
        _ => Reply::status(401).with("www-authenticate", "Basic"),
    })
    .await;
    read(robot(&server), &server).await.unwrap();
    assert_eq!(storage.targets(), ["/signed?signature=secret"]);
    assert_eq!(storage.asked()[0].header("authorization"), "");
}

#[tokio::test]
async fn challenges_of_another_server_are_not_answered() {
    let other = Server::start(|_| Reply::status(401).with("www-authenticate", "Basic")).await;
    let location = format!("http://{}/take/the/bait", other.address());
    let server = Server::start(move |_| Reply::status(307).with("location", location.clone())).await;
    let error = read(robot(&server), &server).await.unwrap_err();
    assert!(error.is_auth() && error.to_string().contains(&other.address()), "{error}");
    assert_eq!(other.asked().len(), 1);
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn token_servers_without_tls_are_not_asked() {
    let eavesdropper = Server::start(|_| Reply::ok(r#"{"token":"t"}"#)).await;
    let realm = format!(r#"Bearer realm="http://{}/token""#, eavesdropper.address());
    let identity = TlsIdentity::new();
    let server =
        Server::start_tls(&identity, move |_| Reply::status(401).with("www-authenticate", realm.clone()))
            .await;
    let options = Options { plain_http: [].into(), ca_files: vec![identity.ca_file()], ..robot(&server) };
    let error = read(options, &server).await.unwrap_err();
    assert!(matches!(error.problem(), Some(Problem::Realm(_))), "{error}");
    assert!(eavesdropper.asked().is_empty());
}

#[tokio::test]
async fn the_server_that_is_down_is_the_one_that_is_named() {
    let down = Server::start(|_| index()).await;
    let address = down.address();
    drop(down);
    tokio::time::sleep(Duration::from_millis(50)).await;
    // Registries behind a firewall that lets them through, but not their token server or their storage.
    let realm = format!(r#"Bearer realm="http://{address}/token""#);
    let server = Server::start(move |_| Reply::status(401).with("www-authenticate", realm.clone())).await;
    let error = read(plain(&server), &server).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&format!("the token server {address} gives no token: no connection")), "{text}");
    assert!(error.hint().unwrap().contains("HTTPS_PROXY"));

    let location = format!("http://{address}/storage");
    let server = Server::start(move |_| Reply::status(307).with("location", location.clone())).await;
    let error = read(plain(&server), &server).await.unwrap_err();
    assert!(error.to_string().contains(&format!("no connection to {address}: ")), "{error}");
}
