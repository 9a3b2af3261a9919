//! What upgrade controllers ask the site for: the plans that dray prints are followed with curl, as the controllers do.

use std::{fs, path::Path, process::Command, time::Duration};

use dray::{
    oci::{Algorithm, Digest, Hasher},
    store::{HostedFile, Store},
};
use serde_json::Value;

use crate::support::{
    command::Run,
    shelf,
    site::{Serve, Site, dray},
};

const IMAGES: [&str; 4] = [
    "quay.io/k0sproject/pause:v1.36.99-k0s.0",
    "docker.io/rancher/mirrored-pause:v1.36.99-k3s1",
    "docker.io/rancher/k3s-upgrade:v1.36.99-k3s1",
    "docker.io/rancher/kubectl:v1.30.3",
];
const PROGRAM: &str = "github.com/k0sproject/k0s/releases/download/v1.36.99+k0s.0/k0s-v1.36.99+k0s.0-amd64";
const PROGRAM_WINDOWS: &str =
    "github.com/k0sproject/k0s/releases/download/v1.36.99+k0s.0/k0s-v1.36.99+k0s.0-amd64.exe";
const NODE_ARCHIVE: &str = "dl.k8s.io/v1.36.3/kubernetes-node-windows-amd64.tar.gz";
/// Releases of which the upstream of these tests has the images.
const RELEASES: [(&str, &str); 2] = [
    (
        "k0s/1.36",
        "\
distribution: k0s
kubernetes: '1.36'
architectures: [amd64]
facts: {containerd: 2.3.1, import-sparse: true, import-on-windows: true}
components:
  - {name: pause, image: quay.io/k0sproject/pause, tag: '{tag}', os: [linux, windows]}
releases: [{version: v1.36.99+k0s.0}]
",
    ),
    (
        "k3s/1.36",
        "\
distribution: k3s
kubernetes: '1.36'
architectures: [amd64]
facts: {containerd: 2.2.3}
components:
  - {name: pause, image: docker.io/rancher/mirrored-pause, tag: '{tag}'}
  - {name: k3s-upgrade, image: docker.io/rancher/k3s-upgrade, tag: '{tag}', when: [suc]}
releases: [{version: v1.36.99+k3s1}]
",
    ),
];

/// The content of an upstream file, which is its address over and over.
fn content(address: &str) -> Vec<u8> {
    address.bytes().cycle().take(300_000).collect()
}

fn sha512(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(bytes);
    hasher.finish()
}

/// An upstream of the images above and of `files`.
fn upstream(directory: &Path, files: &[&str]) -> Serve {
    let images = IMAGES.map(str::to_owned);
    let upstream = shelf::serve(directory, &images);
    let store = Store::open(directory).unwrap();
    let writer = store.writer("a test", Duration::ZERO).unwrap();
    let mut batch = writer.batch();
    for address in files {
        let bytes = content(address);
        let digest = Digest::sha256(&bytes);
        let mut blob = writer.begin_blob(&digest, bytes.len() as u64).unwrap();
        blob.write(&bytes).unwrap();
        blob.commit().unwrap();
        let repository = "files.example/upstream".parse().unwrap();
        batch.link_blob(&repository, &digest).unwrap();
        let (host, path) = address.split_once('/').unwrap();
        let file = HostedFile { host: host.to_owned(), repository, digest, size: bytes.len() as u64 };
        batch.put_file(path, &file).unwrap();
    }
    batch.commit().unwrap();
    upstream
}

const K0S: &str = "\
apiVersion: dray.dev/v1alpha1
kind: Bundle
metadata: {name: plant}
spec:
  nodes: [linux/amd64, windows/ltsc2022]
  releases: [{k0s: v1.36.99+k0s.0}]
  files:
";
const K3S: &str = "\
apiVersion: dray.dev/v1alpha1
kind: Bundle
metadata: {name: edge}
spec:
  nodes: [linux/amd64]
  releases: [{k3s: v1.36.99+k3s1, with: [suc]}]
  images: ['docker.io/rancher/kubectl:v1.30.3']
";

/// A site whose bundle has what `definition` names and `files`, and whose upstream has ended.
fn site(definition: &str, files: &[&str]) -> Site {
    let mut definition = definition.to_owned();
    for address in files {
        let url = format!("https://{}", address.replace('+', "%2B"));
        // Publishers state one or the other.
        let sum = match *address {
            PROGRAM_WINDOWS => format!("sha512: {}", sha512(&content(address)).hex()),
            _ => format!("sha256: {}", Digest::sha256(&content(address)).hex()),
        };
        definition.extend(["    - {url: '", &url, "', ", &sum, "}\n"]);
    }
    let site = Site::new(&definition);
    for (name, text) in RELEASES {
        let file = site.path("catalog").join(format!("{name}.yaml"));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    let upstream = upstream(&site.path("upstream"), files);
    let flags = ["github.com", "dl.k8s.io"]
        .map(|host| format!("--upstream={host}=http://{}/files/{host}", upstream.address()));
    let catalog = format!("--catalog={}", site.path("catalog").display());
    site.lock(upstream.address()).args(&flags).arg(catalog).succeed();
    let bundle = site.path("bundle.tar");
    site.build(upstream.address(), &bundle).args(&flags).succeed();
    site.import(&bundle, &site.path("store")).succeed();
    site
}

fn k0s() -> Site {
    site(K0S, &[PROGRAM, PROGRAM_WINDOWS, NODE_ARCHIVE])
}

/// `dray serve` of the site's store, or of its bundle.
fn serve(site: &Site, what: &str, name: &str) -> Serve {
    let (path, catalog) = (site.path(name), site.path("catalog"));
    let mut arguments = vec![what, path.to_str().unwrap(), "--catalog", catalog.to_str().unwrap()];
    let key = site.path("plant.pub");
    if what == "--bundle" {
        arguments.extend(["--trust", key.to_str().unwrap()]);
    }
    Serve::start(&arguments)
}

/// `dray upgrade-plan CONTROLLER` for a site at `url`.
fn plan(site: &Site, controller: &str, release: &str, url: &str) -> Command {
    let mut plan = dray();
    plan.args(["upgrade-plan", controller, "--release", release, "--url", url, "--store"]);
    plan.arg(site.path("store")).arg("--catalog").arg(site.path("catalog"));
    plan
}

/// Downloads as Autopilot does: whole, with a status of 200, and then the checksum is compared.
#[track_caller]
fn download(site: &Site, resource: &Value) -> Vec<u8> {
    let url = resource["url"].as_str().unwrap();
    let file = site.path("download");
    Command::new("curl").args(["-fsS", "--max-time", "30", "-o"]).arg(&file).arg(url).succeed();
    let sum = Command::new("sha256sum").arg(&file).succeed();
    assert_eq!(sum.split_whitespace().next(), resource["sha256"].as_str(), "{url}");
    fs::read(file).unwrap()
}

fn curl(url: &str) -> String {
    Command::new("curl").args(["-fsS", "--max-time", "30", url]).succeed()
}

#[test]
fn what_an_autopilot_plan_names_is_at_the_site() {
    let site = k0s();
    for (what, name) in [("--store", "store"), ("--bundle", "bundle.tar")] {
        let serve = serve(&site, what, name);
        let base = format!("http://{}", serve.address());
        let mut command = plan(&site, "autopilot", "k0s@v1.36.99+k0s.0", &base);
        let plan: Value = serde_json::from_str(&command.args(["--format", "json"]).succeed()).unwrap();
        let commands = &plan["objects"][0]["spec"]["commands"];
        let archive = &commands[0]["airgapupdate"]["platforms"]["linux-amd64"];
        let program = &commands[1]["k0supdate"]["platforms"]["linux-amd64"];
        assert!(download(&site, program) == content(PROGRAM), "another program");
        let bytes = download(&site, archive);
        // The name that Autopilot gives it in the directory of images is the URL's last part.
        assert!(archive["url"].as_str().unwrap().ends_with("/v1.36.99+k0s.0/dray-k0s-linux-amd64.tar"));
        assert_eq!(curl(&format!("{}.sha256", archive["url"].as_str().unwrap())), archive["sha256"]);
        let mut export = dray();
        export.args(["export", "--for", "k0s", "--release", "k0s@v1.36.99+k0s.0", "--node", "linux/amd64"]);
        export.arg("--catalog").arg(site.path("catalog")).arg("--store").arg(site.path("store"));
        export.arg("-o").arg(site.path("exported.tar")).succeed();
        assert!(fs::read(site.path("exported.tar")).unwrap() == bytes, "not what dray export writes");

        // Periodic updates make the same plan of what the update server says.
        let index: Value = serde_saphyr::from_str(&curl(&format!("{base}/stable/index.yaml"))).unwrap();
        assert_eq!(index["version"], "v1.36.99+k0s.0");
        let [one] = &index["downloadURLs"].as_array().unwrap()[..] else { panic!("{index}") };
        assert_eq!((&one["k0s"], &one["k0sSha256"]), (&program["url"], &program["sha256"]));
        assert_eq!((&one["airgapBundle"], &one["airgapSha256"]), (&archive["url"], &archive["sha256"]));

        // The steps for Windows name files that are there, too.
        let steps = plan["manual"][0]["steps"].as_array().unwrap();
        let commands: Vec<&str> = steps
            .iter()
            .flat_map(|s| s["commands"].as_array().unwrap())
            .map(|c| c.as_str().unwrap())
            .collect();
        let downloads = commands.windows(2).filter_map(|pair| {
            let url = pair[0].strip_prefix("curl.exe -fsSo ")?.rsplit_once(' ')?.1;
            let sum = pair[1].split('\'').nth(1)?;
            Some(serde_json::json!({"url": url, "sha256": sum}))
        });
        let downloads: Vec<Vec<u8>> = downloads.map(|resource| download(&site, &resource)).collect();
        assert_eq!(downloads.len(), 2);
        assert!(downloads[1] == content(PROGRAM_WINDOWS), "another program");
    }
}

#[test]
fn the_plans_as_people_see_them() {
    let url = "https://registry.site.local:5000";
    let autopilot = plan(&k0s(), "autopilot", "k0s@v1.36.99+k0s.0", url).fail_with(0);
    insta::assert_snapshot!("autopilot", autopilot.stdout);
    insta::assert_snapshot!("autopilot_said", autopilot.stderr);
    let suc = plan(&site(K3S, &[]), "suc", "k3s@v1.36.99+k3s1", url)
        .args(["--drain", "--channel", "v1.36"])
        .succeed();
    insta::assert_snapshot!("suc", suc);
}

#[test]
fn what_a_plan_needs_and_the_store_lacks_is_named() {
    let edge = site(K3S, &[]);
    let site = site(K0S, &[PROGRAM_WINDOWS]);
    let url = "https://registry.site.local:5000";
    let failed = plan(&site, "autopilot", "k0s@v1.36.99+k0s.0", url).fail_with(4);
    assert_eq!(failed.stdout, "");
    failed.says(&[
        "the file k0s-v1.36.99+k0s.0-amd64, for linux/amd64",
        "url: https://github.com/k0sproject/k0s/releases/download/v1.36.99%2Bk0s.0/k0s-v1.36.99%2Bk0s.0-amd64",
        "dray import",
    ]);
    let kubectl = ["--kubectl-image", "rancher/kubectl:v9.9.9"];
    let missing = "docker.io/rancher/kubectl:v9.9.9, which cordons";
    plan(&edge, "suc", "k3s@v1.36.99+k3s1", url).args(kubectl).fail_with(4).says(&[missing]);
    plan(&edge, "suc", "k3s@v1.36.98+k3s1", url).fail_with(4).says(&["k3s@v1.36.99+k3s1"]);
    plan(&site, "suc", "k0s@v1.36.99+k0s.0", url).fail_with(2).says(&["k3s and RKE2"]);
    plan(&site, "autopilot", "k0s@v1.36.99+k0s.0", "site.local/x").fail_with(2);
    // An index that would name a program that is not there is not given out either.
    let serve = serve(&site, "--store", "store");
    let index = format!("http://{}/stable/index.yaml", serve.address());
    let status =
        Command::new("curl").args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", &index]).succeed();
    assert_eq!(status, "404");
}

#[test]
fn a_channel_leads_to_an_image_that_is_here() {
    let site = site(K3S, &[]);
    let serve = serve(&site, "--store", "store");
    let base = format!("http://{}", serve.address());
    let plan: Value = serde_json::from_str(
        &plan(&site, "suc", "k3s@v1.36.99+k3s1", &base)
            .args(["--channel", "stable", "--format", "json"])
            .succeed(),
    )
    .unwrap();
    for object in plan["objects"].as_array().unwrap() {
        // The controller follows no redirect: it takes the last part of its address as the tag, with - for +.
        let channel = object["spec"]["channel"].as_str().unwrap();
        let answer = Command::new("curl")
            .args(["-sS", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", channel])
            .succeed();
        let (status, location) = answer.split_once(' ').unwrap();
        assert_eq!(status, "302");
        let tag = location.rsplit('/').next().unwrap().replace('+', "-");
        let image = object["spec"]["upgrade"]["image"].as_str().unwrap();
        assert_eq!(format!("{image}:{tag}"), IMAGES[2]);
        curl(&format!("{base}/v2/{image}/manifests/{tag}"));
        // People who follow it learn what there is.
        assert!(curl(location).contains("dray-k3s-linux-amd64.tar"));
    }
}

#[test]
fn a_node_archive_comes_with_its_checksum() {
    let site = k0s();
    let serve = serve(&site, "--store", "store");
    // As scripts do that are given a NODE_BINARY_TAR_URL: the checksum has the same address with an ending.
    let script = r#"
        set -eu
        curl -fsS -o node.tar.gz "$NODE_BINARY_TAR_URL"
        echo "$(curl -fsS "$NODE_BINARY_TAR_URL.sha512")  node.tar.gz" | sha512sum --check --status
    "#;
    for path in [NODE_ARCHIVE.to_owned(), NODE_ARCHIVE.replace("/v1.36.3", "/release/v1.36.3")] {
        let url = format!("http://{}/files/{path}", serve.address());
        let directory = tempfile::tempdir().unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).current_dir(directory.path()).env("NODE_BINARY_TAR_URL", &url).succeed();
        assert!(fs::read(directory.path().join("node.tar.gz")).unwrap() == content(NODE_ARCHIVE));
    }
}
