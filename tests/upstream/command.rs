//! The command on top: where it looks for credentials and proxies, its flags, exit codes and hints.

use std::path::Path;
use std::process::Command;

use dray::oci::media_type;

use crate::server::{Asked, Reply, Server, TlsIdentity};
use crate::support::command::Run as _;

const INDEX: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[
    {"mediaType":"application/vnd.oci.image.manifest.v1+json","size":7,"platform":{"os":"linux","architecture":"amd64"},
    "digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}]}"#;

/// `robot:s3cret`, which is also what the credential helper `table` answers for ghcr.io.
const BASIC: &str = "Basic cm9ib3Q6czNjcmV0";
const ENTRY: &str = r#"{"auth":"cm9ib3Q6czNjcmV0"}"#;

fn index() -> Reply {
    Reply::ok(INDEX).with("content-type", media_type::OCI_INDEX)
}

fn for_robot_only(asked: &Asked) -> Reply {
    match asked.header("authorization") {
        BASIC => index(),
        _ => Reply::error(401, "UNAUTHORIZED").with("www-authenticate", r#"Basic realm="registry""#),
    }
}

/// `dray explain IMAGE` as a user with this home folder and nothing else in the environment.
fn explain(home: &Path, image: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dray"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/upstream/testdata");
    command
        .env_clear()
        .env("HOME", home)
        .env("XDG_RUNTIME_DIR", home.join("run"))
        .env("PATH", format!("{}:/usr/bin:/bin", path.display()))
        .args(["explain", image, "--node", "linux/amd64"]);
    command
}

/// Explains an image of `server`, which is spoken to without TLS.
fn explain_from(home: &Path, server: &Server) -> Command {
    let address = server.address();
    let mut command = explain(home, &format!("{address}/team/app:1.0"));
    command.args(["--plain-http", &address]);
    command
}

fn write(path: &Path, document: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, document).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_found_where_podman_and_docker_keep_them() {
    let server = Server::start(for_robot_only).await;
    let document = format!(r#"{{"auths":{{"{}":{ENTRY}}}}}"#, server.address());
    for file in ["run/containers/auth.json", ".config/containers/auth.json", ".docker/config.json"] {
        let home = tempfile::tempdir().unwrap();
        write(&home.path().join(file), &document);
        explain_from(home.path(), &server).succeed();
    }
    let home = tempfile::tempdir().unwrap();
    let elsewhere = home.path().join("elsewhere");
    write(&elsewhere.join("config.json"), &document);
    explain_from(home.path(), &server).env("DOCKER_CONFIG", &elsewhere).succeed();
    explain_from(home.path(), &server).env("REGISTRY_AUTH_FILE", elsewhere.join("config.json")).succeed();

    explain_from(home.path(), &server).fail_with(4).says(&[
        "refused the request without credentials",
        "hint: no credentials for",
        "run/containers/auth.json",
        ".config/containers/auth.json",
        ".docker/config.json",
    ]);
    explain_from(home.path(), &server)
        .env("REGISTRY_AUTH_FILE", elsewhere.join("absent.json"))
        .fail_with(2)
        .says(&["absent.json", "hint: REGISTRY_AUTH_FILE"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn credential_helpers_are_asked() {
    let server = Server::start(for_robot_only).await;
    let home = tempfile::tempdir().unwrap();
    write(&home.path().join(".docker/config.json"), r#"{"credsStore":"table","auths":{"ghcr.io":{}}}"#);
    // The helper knows the password of ghcr.io, and this server is not ghcr.io.
    let asked = explain_from(home.path(), &server).fail_with(4);
    asked.says(&["without credentials"]);
    // A request for ghcr.io by way of a proxy is one.
    let mut command = explain(home.path(), "ghcr.io/team/app:1.0");
    command.args(["--plain-http", "ghcr.io"]).env("HTTP_PROXY", format!("http://{}", server.address()));
    command.succeed();

    write(&home.path().join(".docker/config.json"), r#"{"credsStore":"absent"}"#);
    explain_from(home.path(), &server).fail_with(1).says(&[
        "docker-credential-absent cannot be run",
        ".docker/config.json",
        "hint: install",
    ]);
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_come_from_the_environment() {
    let proxy = Server::start(|_| index()).await;
    let home = tempfile::tempdir().unwrap();
    let proxied = |image: &str| {
        let mut command = explain(home.path(), image);
        command
            .env("HTTP_PROXY", format!("http://{}", proxy.address()))
            .env("HTTPS_PROXY", format!("http://{}", proxy.address()))
            .args(["--plain-http", "registry.invalid"]);
        command
    };
    proxied("registry.invalid/app:1").succeed();
    assert_eq!(proxy.asked()[0].header("host"), "registry.invalid");

    // The proxy here opens no tunnels, but it is asked for one.
    proxied("tls.invalid/app:1").fail_with(1);
    assert_eq!(proxy.asked()[1].target, "tls.invalid:443");

    let before = proxy.asked().len();
    proxied("registry.invalid/app:1").env("NO_PROXY", "registry.invalid").fail_with(1);
    let here = Server::start(|_| index()).await;
    proxied(&format!("{}/app:1", here.address())).args(["--plain-http", &here.address()]).succeed();
    assert_eq!(proxy.asked().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_say_where_and_whom_to_trust() {
    let identity = TlsIdentity::new();
    let server = Server::start_tls(&identity, |_| index()).await;
    let home = tempfile::tempdir().unwrap();
    let from_mirror = |ca_file: &Path| {
        let mut command = explain(home.path(), "registry.k8s.io/pause:3.9");
        let mirror = format!("registry.k8s.io=https://{}/k8s", server.address());
        command.args(["--upstream", &mirror, "--ca-file"]).arg(ca_file);
        command
    };
    from_mirror(&identity.ca_file()).succeed();
    assert_eq!(server.targets(), ["/v2/k8s/pause/manifests/3.9"]);

    let not_pem = home.path().join("ca.pem");
    write(&not_pem, "no certificate");
    from_mirror(&not_pem).fail_with(2).says(&["ca.pem", "no PEM certificate"]);
    explain(home.path(), "quay.io/app:1")
        .args(["--upstream", "quay.io=mirror.example"])
        .fail_with(2)
        .says(&["mirror.example"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_tell_what_is_wrong() {
    let home = tempfile::tempdir().unwrap();
    let missing = Server::start(|_| Reply::error(404, "MANIFEST_UNKNOWN")).await;
    explain_from(home.path(), &missing).fail_with(4).says(&["no such tag", "hint: check the spelling"]);

    let other = format!("sha256:{}", "0".repeat(64));
    let damaged = Server::start(move |_| index().with("docker-content-digest", other.clone())).await;
    explain_from(home.path(), &damaged).fail_with(3).says(&["instead of sha256:000000"]);

    let down = Server::start(|_| index()).await;
    let mut command = explain_from(home.path(), &down);
    drop(down);
    command.fail_with(1).says(&["no connection", "refused", "hint: check that the host is up"]);
}
