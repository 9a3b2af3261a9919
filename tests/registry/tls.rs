//! TLS with the certificates that `dray tls init` makes.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dray::registry::{Config, Limits, Tls};

use crate::site::Site;
use crate::support::command::Run;
use crate::support::site::dray;

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

#[test]
fn making_certificates_says_what_nodes_need() {
    let directory = tempfile::tempdir().unwrap();
    let made = directory.path().join("tls");
    let names = ["registry.site.local", "10.1.2.3", "fd00::7"];
    let mut init = dray();
    init.args(["tls", "init", "-o"]).arg(&made).args(names.iter().flat_map(|name| ["--san", name]));
    let said = init.succeed();
    let files = ["ca.crt", "server.crt", "server.key"].map(|file| made.join(file).display().to_string());
    for word in files.iter().map(String::as_str).chain([
        &*format!("--tls-cert {} --tls-key {}", files[1], files[2]),
        "hosts.toml",
        "/etc/containers/certs.d/registry.site.local:PORT/ca.crt",
        "/etc/docker/certs.d/registry.site.local:PORT/ca.crt",
        "Import-Certificate -FilePath ca.crt -CertStoreLocation Cert:\\LocalMachine\\Root",
    ]) {
        assert!(said.contains(word), "{word} is not in\n{said}");
    }
    let verified = |purpose: &str, name: &str| {
        let check = if name.contains(['.', ':']) && name.parse::<std::net::IpAddr>().is_ok() {
            "-verify_ip"
        } else {
            "-verify_hostname"
        };
        let mut verify = Command::new("openssl");
        verify.args(["verify", "-purpose", purpose, check, name, "-CAfile", &files[0], &files[1]]);
        verify.finish().code == 0
    };
    for name in names {
        assert!(verified("sslserver", name), "{name}");
        assert!(!verified("sslclient", name), "it is for servers only");
    }
    assert!(!verified("sslserver", "other.site.local") && !verified("sslserver", "10.1.2.4"));
    let other = directory.path().join("other");
    for bad in ["not a name", "https://site.local", "site.local:5000", "süd.local", "*"] {
        let mut init = dray();
        init.args(["tls", "init", "--san", bad, "-o"]).arg(&other);
        init.fail_with(2).says(&[&format!("`{bad}`"), "DNS name"]);
    }
    dray().args(["tls", "init", "--san", "*.site.local", "-o"]).arg(&other).succeed();
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

/// What OpenSSL's client says when it is to speak `version` of TLS only.
fn s_client(site: &Site, authority: &std::path::Path, version: &str) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &site.address.to_string(), "-servername", "site.local"])
        .args(["-verify_return_error", "-verify_hostname", "site.local", "-CAfile"])
        .arg(authority)
        // Without this the client itself refuses what is old.
        .args([version, "-cipher", "ALL:@SECLEVEL=0"])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn tls_is_1_2_or_later() {
    let (site, directory) = site(Limits::default());
    let authority = directory.join("ca.crt");
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let said = s_client(&site, &authority, version);
        assert!(said.contains("Verify return code: 0 (ok)") && said.contains(name), "{said}");
    }
    for version in ["-tls1", "-tls1_1"] {
        let said = s_client(&site, &authority, version);
        // It is the server that refuses.
        assert!(said.contains("SSL alert number") && said.contains("Cipher is (NONE)"), "{said}");
    }
}

#[test]
fn a_renewed_certificate_is_shown_to_the_next_client() {
    let (site, directory) = site(Limits::default());
    let shown = || {
        let said = s_client(&site, &directory.join("ca.crt"), "-tls1_3");
        let begin = said.find("-----BEGIN CERTIFICATE-----").unwrap_or_else(|| panic!("{said}"));
        said[begin..].split_inclusive("-----END CERTIFICATE-----").next().unwrap().replace('\r', "")
    };
    let on_disk = || std::fs::read_to_string(directory.join("server.crt")).unwrap().replace('\r', "");
    let before = on_disk();
    assert!(before.contains(&shown()));
    init(&directory);
    let until = Instant::now() + Duration::from_secs(20);
    while !on_disk().contains(&shown()) {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(!before.contains(&shown()));
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

#[test]
fn http_at_the_port_for_tls_is_answered_in_words() {
    let (site, directory) = site(Limits::default());
    for request in
        ["GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n", "PUT /v2/a/manifests/1 HTTP/1.1\r\nHost: a\r\n\r\nbody"]
    {
        let mut plain = site.connect();
        plain.send(request.as_bytes());
        let answer = plain.response(false).expect(400);
        assert!(answer.text().contains("use https://"), "{}", answer.text());
        assert!(plain.rest().is_empty(), "the connection ends");
    }
    get(&site, &directory.join("ca.crt"), "/healthz").unwrap();
}

#[test]
fn the_end_of_the_certificate_is_a_metric() {
    let (site, directory) = site(Limits::default());
    let (_, metrics) = get(&site, &directory.join("ca.crt"), "/metrics").unwrap();
    let metrics = String::from_utf8(metrics).unwrap();
    let name = "dray_certificate_not_after_timestamp_seconds ";
    let end: i64 = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap();
    let said = Command::new("openssl")
        .args(["x509", "-noout", "-enddate", "-dateopt", "iso_8601", "-in"])
        .arg(directory.join("server.crt"))
        .succeed();
    let until = said.trim().strip_prefix("notAfter=").unwrap().replacen(' ', "T", 1);
    assert_eq!(until.parse::<jiff::Timestamp>().unwrap().as_second(), end);
    // With time left there is nothing to say.
    assert_eq!(get(&site, &directory.join("ca.crt"), "/readyz").unwrap(), (200, b"ready\n".to_vec()));
    let plain = Site::new();
    assert!(!plain.get("/metrics").expect(200).text().contains("dray_certificate"));
}

#[test]
fn a_certificate_near_its_end_is_warned_of() {
    let directory = tempfile::tempdir().unwrap();
    let made = directory.path().join("tls");
    let init = |days: &str| {
        let mut init = dray();
        init.args(["tls", "init", "--san", "site.local", "--days", days, "-q", "-o"]).arg(&made).succeed();
    };
    // It began yesterday, so most of its time is over.
    init("1");
    let store = directory.path().join("store");
    drop(dray::store::Store::create(&store).unwrap());
    let mut serve = dray();
    serve.args(["serve", "--listen", "127.0.0.1:0", "--store"]).arg(&store);
    serve.arg("--tls-cert").arg(made.join("server.crt")).arg("--tls-key").arg(made.join("server.key"));
    let server = crate::support::daemon::Daemon::start(&serve);
    server.wait_for("warning", |line| {
        (line.contains("server.crt expires on") && line.contains("hour")).then_some(())
    });
}

#[test]
fn renewing_keeps_the_names_of_the_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let made = directory.path().join("tls");
    let init = |arguments: &[&str]| {
        let mut init = dray();
        init.args(["tls", "init"]).args(arguments).arg("-o").arg(&made);
        init
    };
    let names = || {
        let mut show = Command::new("openssl");
        show.args(["x509", "-noout", "-ext", "subjectAltName", "-in"]).arg(made.join("server.crt"));
        show.succeed().lines().last().unwrap().trim().to_owned()
    };
    init(&[]).fail_with(2).says(&["no name for the certificate", "--san"]);
    init(&["--san", "registry.site.local,localhost,10.1.2.3"]).succeed();
    init(&[]).succeed();
    assert_eq!(names(), "DNS:registry.site.local, DNS:localhost, IP Address:10.1.2.3");
    let said = init(&["--san", "x.site.local,localhost"]).finish();
    assert_eq!(said.code, 0);
    assert!(said.stderr.contains("kept from the certificate that was there: registry.site.local, 10.1.2.3"));
    assert_eq!(names(), "DNS:registry.site.local, DNS:localhost, IP Address:10.1.2.3, DNS:x.site.local");
    init(&["--san", "only.site.local", "--replace-names"]).succeed();
    assert_eq!(names(), "DNS:only.site.local");
    std::fs::write(made.join("server.crt"), "nonsense").unwrap();
    init(&["--san", "a"]).fail_with(2).says(&["server.crt is not a certificate", "--replace-names"]);
}
