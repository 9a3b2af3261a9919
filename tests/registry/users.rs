//! Who may do what.

use std::sync::Arc;

use dray::registry::{Config, Users};

use crate::client::Response;
use crate::site::Site;

const ANN: &str = "Basic YW5uOnNlY3JldA==";
const WRONG: &str = "Basic YW5uOndyb25n";

/// `secret`, as `htpasswd -B -C 5` writes it.
const HASH: &str = "$2y$05$wCN3BEgt2DfZwgP5xD5.R.ZHZIfTSEP1E0hqcauiRkYF2SLpdTBjW";

/// A site where ann, whose password is `secret`, may push.
fn site(private: bool) -> Site {
    let mut site = Site::new();
    let file = site.store.path().join("../users");
    std::fs::write(&file, format!("ann:{HASH}\n")).unwrap();
    let users = Some(Arc::new(Users::open(&file).unwrap()));
    let push = Some(site.store.clone());
    site.ask_to_stop();
    site.wait();
    site.start(Config { users, private, push, ..Config::default() });
    site
}

fn ask(site: &Site, method: &str, target: &str, authorization: Option<&str>) -> Response {
    let headers: Vec<_> = authorization.into_iter().map(|value| ("Authorization", value)).collect();
    site.connect().request(method, target, &headers, b"")
}

#[test]
fn everybody_pulls_and_users_push() {
    let site = site(false);
    site.image("a", "1", "");
    let uploads = "/v2/a/blobs/uploads/";
    for nobody in [None, Some("Basic Og==")] {
        ask(&site, "GET", "/v2/a/manifests/1", nobody).expect(200);
        let response = ask(&site, "POST", uploads, nobody).expect(401);
        assert_eq!(response.code(), "UNAUTHORIZED");
        assert!(response.header("www-authenticate").starts_with("Basic realm="));
        // Where there is something to log in to, the ping says so.
        ask(&site, "GET", "/v2/", nobody).expect(401);
    }
    ask(&site, "POST", uploads, Some(ANN)).expect(202);
    ask(&site, "GET", "/v2/", Some(ANN)).expect(200);
    for wrong in [WRONG, "Bearer x", "Basic %", "nonsense"] {
        ask(&site, "POST", uploads, Some(wrong)).expect(401);
        ask(&site, "GET", "/v2/a/manifests/1", Some(wrong)).expect(401);
    }
    ask(&site, "DELETE", "/v2/a/manifests/1", None).expect(401);
    ask(&site, "DELETE", "/v2/a/manifests/1", Some(ANN)).expect(202);
}

#[test]
fn only_users_pull_from_a_private_registry() {
    let site = site(true);
    site.image("a", "1", "");
    for target in ["/v2/a/manifests/1", "/v2/_catalog", "/v2/", "/metrics", "/api/v1/wants"] {
        ask(&site, "GET", target, None).expect(401);
        ask(&site, "GET", target, Some(ANN)).expect(200);
    }
    ask(&site, "GET", "/healthz", None).expect(200);
    ask(&site, "GET", "/readyz", None).expect(200);
}
