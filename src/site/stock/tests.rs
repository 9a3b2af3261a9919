//! Channels, indexes and archives of a store with small releases.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::oci::{Algorithm, Descriptor, Digest, RepositoryName, media_type};
use crate::registry::{Extra, ExtraError, Extras, Question};
use crate::resolve::Lock;
use crate::store::{HostedFile, Writer};

const BASE: &str = "https://registry.site.local:5000";

/// Small releases, and a store for them.
pub(in crate::site) struct Shop {
    directory: TempDir,
    store: Store,
}

const RELEASES: [(&str, &str); 3] = [
    (
        "k0s/1.36",
        "distribution: k0s\nkubernetes: '1.36'\narchitectures: [amd64, arm64]\nfacts: {containerd: 2.3.1}\n\
         components:\n  - {name: pause, image: quay.io/k0s/pause, tag: '{tag}', os: [linux, windows]}\n\
         releases:\n  - version: v1.36.97+k0s.0\n  - version: v1.36.98+k0s.0\n  - version: v1.36.99-rc.1+k0s.0\n",
    ),
    (
        "k3s/1.36",
        "distribution: k3s\nkubernetes: '1.36'\narchitectures: [amd64]\n\
         components:\n  - {name: pause, image: docker.io/rancher/pause, tag: '{tag}'}\n\
         \x20 - {name: k3s-upgrade, image: docker.io/rancher/k3s-upgrade, tag: '{tag}', when: [suc]}\n\
         releases:\n  - version: v1.36.97+k3s1\n  - version: v1.36.98+k3s1\n",
    ),
    (
        "rke2/1.36",
        "distribution: rke2\nkubernetes: '1.36'\narchitectures: [amd64]\n\
         components:\n  - {name: pause, image: docker.io/rancher/mirrored-pause, tag: '{tag}', os: [linux, windows]}\n\
         \x20 - {name: rke2-upgrade, image: docker.io/rancher/rke2-upgrade, tag: '{tag}', when: [suc]}\n\
         releases:\n  - version: v1.36.98+rke2r1\n",
    ),
];

impl Shop {
    pub(in crate::site) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in RELEASES {
            let path = directory.path().join("catalog").join(format!("{name}.yaml"));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let store = Store::create(&directory.path().join("store")).unwrap();
        Self { directory, store }
    }

    fn catalog(&self) -> Catalog {
        Catalog::with_overrides(&[self.directory.path().join("catalog")]).unwrap()
    }

    /// The stock after bundles brought `releases` for these nodes, with these files.
    pub(in crate::site) fn stock(&self, releases: &[&str], nodes: &[&str], files: &[&str]) -> Stock {
        let files: Vec<_> = files.iter().map(|url| self.file(url)).collect();
        let releases: Vec<_> = releases.iter().map(|release| json!({"release": release})).collect();
        let mut blobs: Vec<_> =
            files.iter().map(|file| json!({"digest": file["digest"], "size": file["size"]})).collect();
        blobs.sort_by_key(|blob| blob["digest"].to_string());
        let lock = json!({
            "schemaVersion": 1, "name": "plant", "sequence": 1, "nodes": nodes, "releases": releases,
            "images": [], "blobs": blobs, "files": files,
        });
        let lock = Lock::from_json(lock.to_string().as_bytes()).unwrap();
        Stock::of_bundles(Brought::by([&lock]), Arc::new(self.store.clone()), self.catalog())
    }

    fn writer(&self) -> Writer {
        self.store.writer("test", Duration::ZERO).unwrap()
    }

    fn blob(&self, name: &RepositoryName, bytes: &[u8]) -> Descriptor {
        let descriptor = Descriptor::of("application/octet-stream", bytes);
        let writer = self.writer();
        if !self.store.has_blob(&descriptor.digest).unwrap() {
            let mut blob = writer.begin_blob(&descriptor.digest, descriptor.size).unwrap();
            blob.write(bytes).unwrap();
            blob.commit().unwrap();
        }
        let mut batch = writer.batch();
        batch.link_blob(name, &descriptor.digest).unwrap();
        batch.commit().unwrap();
        descriptor
    }

    /// Puts an image into the store that runs anywhere.
    pub(in crate::site) fn image(&self, reference: &str) {
        let reference: crate::oci::Reference = reference.parse().unwrap();
        let mut config = self.blob(reference.name(), format!("{{\"of\":\"{reference}\"}}").as_bytes());
        config.media_type = media_type::OCI_CONFIG.to_owned();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": [],
        });
        let bytes = Bytes::from(manifest.to_string());
        let descriptor = Descriptor::of(media_type::OCI_MANIFEST, &bytes);
        let writer = self.writer();
        let mut batch = writer.batch();
        batch.put_manifest(reference.name(), &descriptor.digest, &descriptor.media_type, &bytes).unwrap();
        batch.set_tag(reference.name(), reference.tag().unwrap(), &descriptor).unwrap();
        batch.commit().unwrap();
    }

    /// Puts a file into the store whose content is its address.
    fn file(&self, url: &str) -> serde_json::Value {
        let repository: RepositoryName = "bundles.dray.dev/plant".parse().unwrap();
        let blob = self.blob(&repository, url.as_bytes());
        let (host, path) = url.strip_prefix("https://").unwrap().split_once('/').unwrap();
        let file =
            HostedFile { host: host.to_owned(), repository, digest: blob.digest.clone(), size: blob.size };
        let writer = self.writer();
        let mut batch = writer.batch();
        batch.put_file(&path.replace("%2B", "+"), &file).unwrap();
        batch.commit().unwrap();
        json!({"url": url, "digest": blob.digest, "size": blob.size})
    }
}

/// The address of a program of k0s.
pub(in crate::site) fn program(version: &str, end: &str) -> String {
    let version = version.replace('+', "%2B");
    format!("https://github.com/k0sproject/k0s/releases/download/{version}/k0s-{version}-{end}")
}

fn ask(stock: &Stock, path: &str) -> Result<Option<Extra>, ExtraError> {
    assert!(stock.may_have(path), "{path}");
    stock.answer(&Question { path, base: Some(BASE) })
}

fn text(stock: &Stock, path: &str) -> String {
    match ask(stock, path) {
        Ok(Some(Extra::Text { text, .. })) => text,
        other => panic!("{path}: {other:?}"),
    }
}

fn refusal(stock: &Stock, path: &str) -> (String, Vec<String>) {
    match ask(stock, path) {
        Err(ExtraError::NotHere { message, candidates }) => (message, candidates),
        other => panic!("{path}: {other:?}"),
    }
}

fn location(stock: &Stock, path: &str) -> String {
    match ask(stock, path) {
        Ok(Some(Extra::Elsewhere(location))) => location,
        other => panic!("{path}: {other:?}"),
    }
}

#[test]
fn channels_stand_for_the_newest_release_that_is_all_here() {
    let shop = Shop::new();
    shop.image("rancher/pause:v1.36.97-k3s1");
    shop.image("rancher/pause:v1.36.98-k3s1");
    shop.image("rancher/k3s-upgrade:v1.36.97-k3s1");
    let stock = shop.stock(&["k3s@v1.36.97+k3s1", "k3s@v1.36.98+k3s1"], &["linux/amd64"], &[]);
    // What upgrades to .98 is not here.
    for path in ["/channels/stable", "/channels/v1.36", "/channels/k3s/latest"] {
        assert_eq!(location(&stock, path), "/api/v1/releases/k3s/v1.36.97+k3s1", "{path}");
    }
    shop.image("rancher/k3s-upgrade:v1.36.98-k3s1");
    assert_eq!(location(&stock, "/channels/stable"), "/api/v1/releases/k3s/v1.36.98+k3s1");
    for path in ["/channels/v1.35", "/channels/rke2/stable", "/channels/k0s/stable"] {
        let (message, _) = refusal(&stock, path);
        assert!(message.contains("no k3s or RKE2 release"), "{message}");
    }
    for path in ["/channels/testing", "/channels/v1", "/channels/v1.", "/channels/1.36", "/channels/v+1.36"] {
        assert!(refusal(&stock, path).0.contains("is not a channel"), "{path}");
    }
    assert!(ask(&stock, "/channels/k3s/stable/x").unwrap().is_none());
}

#[test]
fn two_distributions_are_told_apart() {
    let shop = Shop::new();
    for image in ["pause:v1.36.98-k3s1", "k3s-upgrade:v1.36.98-k3s1", "mirrored-pause:v1.36.98-rke2r1"] {
        shop.image(&format!("rancher/{image}"));
    }
    shop.image("rancher/rke2-upgrade:v1.36.98-rke2r1");
    let stock = shop.stock(&["k3s@v1.36.98+k3s1", "rke2@v1.36.98+rke2r1"], &["linux/amd64"], &[]);
    let (_, candidates) = refusal(&stock, "/channels/stable");
    assert_eq!(candidates, ["/channels/k3s/stable", "/channels/rke2/stable"]);
    assert_eq!(location(&stock, "/channels/rke2/stable"), "/api/v1/releases/rke2/v1.36.98+rke2r1");
}

#[test]
fn the_index_of_the_update_server() {
    let shop = Shop::new();
    let releases = ["k0s@v1.36.97+k0s.0", "k0s@v1.36.98+k0s.0", "k0s@v1.36.99-rc.1+k0s.0"];
    let nodes = ["linux/amd64", "linux/arm64", "windows(10.0.20348)/amd64"];
    let files = [
        program("v1.36.97+k0s.0", "amd64"),
        program("v1.36.98+k0s.0", "amd64"),
        program("v1.36.98+k0s.0", "amd64.exe"),
        program("v1.36.99-rc.1+k0s.0", "amd64"),
    ];
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let stock = shop.stock(&releases, &nodes, &files);
    assert!(refusal(&stock, "/stable/index.yaml").0.contains("no k0s release"));
    for tag in ["v1.36.97-k0s.0", "v1.36.98-k0s.0", "v1.36.99-rc.1-k0s.0"] {
        shop.image(&format!("quay.io/k0s/pause:{tag}"));
    }
    let index: serde_json::Value = serde_saphyr::from_str(&text(&stock, "/stable/index.yaml")).unwrap();
    let path = "/files/export/k0s/v1.36.98+k0s.0/dray-k0s-linux-amd64.tar";
    let name = "k0s-v1.36.98+k0s.0-amd64";
    let program = format!("/files/github.com/k0sproject/k0s/releases/download/v1.36.98+k0s.0/{name}");
    let digest = Digest::sha256(files[1].as_bytes());
    // There is no program for arm64, and Autopilot updates no Windows nodes.
    assert_eq!(
        index,
        json!({
            "channel": "stable", "version": "v1.36.98+k0s.0",
            "downloadURLs": [{
                "os": "linux", "arch": "amd64",
                "k0s": format!("{BASE}{program}"), "k0sSha256": digest.hex(),
                "airgapBundle": format!("{BASE}{path}"), "airgapSha256": text(&stock, &format!("{path}.sha256")),
            }],
        })
    );
    assert!(text(&stock, "/latest/index.yaml").contains("v1.36.99-rc.1+k0s.0"));
    assert!(text(&stock, "/v1.36/index.yaml").contains("v1.36.98+k0s.0"));
    assert!(refusal(&stock, "/v1.35/index.yaml").0.contains("v1.35"));
    assert!(refusal(&stock, "/v2/index.yaml").0.contains("is not a channel"));
    for path in ["/a/b/index.yaml", "/index.yaml", "/stable/index.yml", "/v2/", "/files/x"] {
        assert!(!stock.may_have(path), "{path}");
    }
    let nobody = stock.answer(&Question { path: "/stable/index.yaml", base: None });
    assert!(matches!(nobody, Err(ExtraError::NotHere { .. })), "{nobody:?}");
}

#[test]
fn archives_have_addresses_and_checksums() {
    let shop = Shop::new();
    shop.image("quay.io/k0s/pause:v1.36.98-k0s.0");
    let stock = shop.stock(&["k0s@v1.36.98+k0s.0"], &["linux/amd64", "windows(10.0.20348)/amd64"], &[]);
    let path = "/files/export/k0s/v1.36.98+k0s.0/dray-k0s-windows-10.0.20348-amd64.tar";
    let Ok(Some(Extra::File(composition))) = ask(&stock, path) else { panic!("no file") };
    let stocked = &stock.brought().unwrap().releases[&"k0s@v1.36.98+k0s.0".parse().unwrap()];
    let archive = stock.archive(stocked, &"windows(10.0.20348)/amd64".parse().unwrap()).unwrap();
    let mut bytes = Vec::new();
    archive.write(stock.content(), &mut bytes, &mut |_| ()).unwrap();
    assert_eq!(composition.pieces.iter().map(crate::registry::Piece::size).sum::<u64>(), bytes.len() as u64);
    for (suffix, algorithm) in [("sha256", Algorithm::Sha256), ("sha512", Algorithm::Sha512)] {
        let mut hasher = crate::oci::Hasher::new(algorithm);
        hasher.write_all(&bytes).unwrap();
        assert_eq!(text(&stock, &format!("{path}.{suffix}")), hasher.finish().hex());
    }
    let (message, candidates) = refusal(&stock, "/files/export/k0s/v1.36.98+k0s.0/images.tar");
    assert!(message.contains("images.tar"), "{message}");
    assert_eq!(candidates.len(), 2);
    let (_, candidates) = refusal(&stock, "/files/export/k0s/v1.36.97+k0s.0/dray-k0s-linux-amd64.tar");
    assert_eq!(candidates, ["/api/v1/releases/k0s/v1.36.98+k0s.0"]);
    for path in ["/files/export/kubeadm/v1.36.3/x", "/files/export/k0s/latest/x", "/files/export/k0s"] {
        assert!(ask(&stock, path).unwrap().is_none(), "{path}");
    }
    let listed = text(&stock, "/api/v1/releases");
    assert!(listed.contains("/api/v1/releases/k0s/v1.36.98+k0s.0"), "{listed}");
    let release: serde_json::Value =
        serde_json::from_str(&text(&stock, "/api/v1/releases/k0s/v1.36.98+k0s.0")).unwrap();
    assert_eq!(release["nodes"][1]["archive"], json!({"path": path, "bytes": bytes.len()}));
}

#[test]
fn what_was_pruned_is_missing() {
    let shop = Shop::new();
    let stock = shop.stock(&["k0s@v1.36.98+k0s.0"], &["linux/amd64"], &[]);
    let (message, _) = refusal(&stock, "/files/export/k0s/v1.36.98+k0s.0/dray-k0s-linux-amd64.tar");
    assert!(message.contains("quay.io/k0s/pause:v1.36.98-k0s.0: unknown"), "{message}");
    assert!(text(&stock, "/api/v1/releases/k0s/v1.36.98+k0s.0").contains("not in the store"));
}

#[test]
fn a_program_is_found_by_the_end_of_its_address() {
    let shop = Shop::new();
    let files =
        ["https://a.example/x/k0s-v1.36.98%2Bk0s.0-arm64", "https://b.example/k0s-v1.36.98+k0s.0-amd64"];
    let stock = shop.stock(&["k0s@v1.36.98+k0s.0"], &["linux/amd64"], &files);
    let release = "k0s@v1.36.98+k0s.0".parse().unwrap();
    for (kind, path) in [
        ("linux/arm64", Some("/files/a.example/x/k0s-v1.36.98+k0s.0-arm64")),
        ("linux/amd64", Some("/files/b.example/k0s-v1.36.98+k0s.0-amd64")),
        ("windows(10.0.20348)/amd64", None),
    ] {
        let found = stock.k0s_program(&release, &kind.parse().unwrap()).unwrap();
        assert_eq!(found.map(|file| file.path).as_deref(), path, "{kind}");
    }
    assert!(stock.file(&["0s-v1.36.98+k0s.0-amd64".to_owned()]).unwrap().is_none());
    std::fs::remove_dir_all(Path::new(shop.store.path()).join("files")).unwrap();
    assert!(stock.k0s_program(&release, &"linux/amd64".parse().unwrap()).unwrap().is_none());
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(64))]
    #[test]
    fn no_path_is_too_strange(
        start in "(/files/export|/channels|/api/v1/releases|)", rest in "(/[a-z0-9.@:%+-]{0,6}|/k3s|/k0s|/v1\\.36|/index\\.yaml){0,4}",
    ) {
        let shop = Shop::new();
        let stock = shop.stock(&["k3s@v1.36.98+k3s1"], &["linux/amd64"], &[]);
        let path = format!("{start}{rest}");
        if stock.may_have(&path) {
            let answer = stock.answer(&Question { path: &path, base: Some(BASE) });
            proptest::prop_assert!(!matches!(answer, Err(ExtraError::Failed(_) | ExtraError::Content(_))));
        }
    }
}

#[test]
fn features_of_several_bundles_are_united() {
    let lock = |with: &[&str]| {
        let lock = json!({
            "schemaVersion": 2, "name": "plant", "sequence": 1, "nodes": ["linux/amd64"],
            "releases": [{"release": "k0s@v1.36.97+k0s.0", "with": with}],
            "images": [], "blobs": [], "files": [],
        });
        Lock::from_json(lock.to_string().as_bytes()).unwrap()
    };
    let (release, kind) = ("k0s@v1.36.97+k0s.0".parse().unwrap(), "linux/amd64".parse().unwrap());
    let brought = Brought::by(&[lock(&["calico"]), lock(&[]), lock(&["kuberouter", "calico"])]);
    assert_eq!(brought.features(&release, &kind), ["calico", "kuberouter"]);
    assert!(brought.features(&release, &"linux/arm64".parse().unwrap()).is_empty());
}
