//! TLS with the certificates that `dray tls init` makes.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dray::registry::{Config, Limits, Tls};

use crate::site::Site;

/// A site with certificates, and where they are.
fn site(limits: Limits) -> (Site, std::path::PathBuf) {
    let mut site = Site::new();
    let directory = site.store.path().join("../tls");
    init(&directory);
    let tls = Tls::open(&directory.join("server.crt"), &directory.join("server.key")).unwrap();
    site.ask_to_stop();
    site.wait();
    site.start(Config { tls: Some(Arc::new(tls)), limits, ..Config::default() });
    (site, directory)
}

fn init(directory: &std::path::Path) {
    let status = Command::new(env!("CARGO_BIN_EXE_dray"))
        .args(["tls", "init", "--san", "site.local,10.1.2.3", "-q", "-o"])
        .arg(directory)
        .status()
        .unwrap();
    assert!(status.success());
}

/// What a client that trusts `authority` only gets, and by which certificate.
fn get(site: &Site, authority: &std::path::Path, path: &str) -> Result<(u16, Vec<u8>), reqwest::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let authority = reqwest::Certificate::from_pem(&std::fs::read(authority).unwrap()).unwrap();
        let client = reqwest::Client::builder()
            .tls_certs_only([authority])
            .resolve("site.local", site.address)
            .no_proxy()
            .timeout(Duration::from_secs(20))
            .build()
            .unwrap();
        let url = format!("https://site.local:{}{path}", site.address.port());
        let response = client.get(url).send().await?;
        Ok((response.status().as_u16(), response.bytes().await?.to_vec()))
    })
}

#[test]
fn nodes_that_trust_the_site_pull() {
    let (site, directory) = site(Limits::default());
    let bytes: Vec<u8> = (0..2_000_000u32).map(|i| (i % 251) as u8).collect();
    let digest = site.blob("a", &bytes);
    let (status, body) = get(&site, &directory.join("ca.crt"), &format!("/v2/a/blobs/{digest}")).unwrap();
    assert_eq!(status, 200);
    assert!(body == bytes);
}

#[test]
fn renewing_keeps_the_authority_and_needs_no_restart() {
    let (site, directory) = site(Limits::default());
    let authority = std::fs::read(directory.join("ca.crt")).unwrap();
    let old = std::fs::read(directory.join("server.crt")).unwrap();
    init(&directory);
    assert_eq!(std::fs::read(directory.join("ca.crt")).unwrap(), authority);
    assert_ne!(std::fs::read(directory.join("server.crt")).unwrap(), old);
    get(&site, &directory.join("ca.crt"), "/healthz").unwrap();
    // Somebody else's authority is not trusted.
    let other = site.store.path().join("../other");
    init(&other);
    assert!(get(&site, &other.join("ca.crt"), "/healthz").is_err());
}

#[cfg(unix)]
#[test]
fn keys_are_readable_by_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let (_site, directory) = site(Limits::default());
    for (file, others) in [("ca.key", 0), ("server.key", 0), ("ca.crt", 0o044), ("server.crt", 0o044)] {
        let mode = std::fs::metadata(directory.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o044, others, "{file}");
    }
}

#[test]
fn whoever_does_not_shake_hands_is_dropped() {
    let limits = Limits { handshake_time: Duration::from_millis(300), ..Limits::default() };
    let (site, directory) = site(limits);
    let began = Instant::now();
    site.connect().rest();
    assert!(began.elapsed() < Duration::from_secs(10));
    // Nor does it hold up others.
    let _silent = site.connect();
    get(&site, &directory.join("ca.crt"), "/healthz").unwrap();
}
