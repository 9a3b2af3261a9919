//! Many of everything: tags in one repository, and nodes that pull at once.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use dray::oci::{Descriptor, Digest, media_type};

use crate::client::Connection;
use crate::site::Site;

const TAGS: usize = 20_000;
const NODES: usize = 200;
const LAYERS: usize = 4;
const LAYER: usize = 512 * 1024;
/// What a server may need more than an idle one while all nodes pull. A layer held for each of them would be more.
const MORE: u64 = 48 * 1024 * 1024;

#[test]
fn a_repository_may_have_many_tags() {
    let site = Site::new();
    let image = site.image("registry.k8s.io/a", "v00000", "");
    let tags = site.store.path().join("repositories/registry.k8s.io+a/tags");
    let first = fs::read(tags.join("v00000.json")).unwrap();
    for number in 1..TAGS {
        fs::write(tags.join(format!("v{number:05}.json")), &first).unwrap();
    }
    let before = inodes(&tags);
    let other = site.image("registry.k8s.io/a", "v12345", "another");
    let after = inodes(&tags);
    let changed: Vec<&String> =
        after.iter().filter(|(tag, inode)| before[*tag] != **inode).map(|(tag, _)| tag).collect();
    assert_eq!(changed, ["v12345.json"], "publishing a tag leaves the others alone");

    let mut connection = site.connect();
    for (tag, image) in [("v00000", &image), ("v12345", &other), ("v19999", &image)] {
        let target = format!("/v2/registry.k8s.io/a/manifests/{tag}");
        let response = connection.request("HEAD", &target, &[], b"").expect(200);
        assert_eq!(response.header("docker-content-digest"), image.digest());
    }
    connection.request("GET", "/v2/registry.k8s.io/a/manifests/v20000", &[], b"").expect(404);

    let mut listed = Vec::new();
    let mut next = Some("/v2/registry.k8s.io/a/tags/list?n=6000".to_owned());
    while let Some(target) = next {
        let response = connection.request("GET", &target, &[], b"").expect(200);
        listed.extend(serde_json::from_value::<Vec<String>>(response.json()["tags"].clone()).unwrap());
        next = response.headers.get("link").map(|link| link[1..link.find('>').unwrap()].to_owned());
    }
    assert!(listed.iter().eq(&(0..TAGS).map(|number| format!("v{number:05}")).collect::<Vec<_>>()));
}

fn inodes(directory: &Path) -> BTreeMap<String, u64> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().ino())
    });
    entries.collect()
}

#[test]
fn all_nodes_may_pull_at_once() {
    let site = Site::new();
    let layers: Vec<Descriptor> = (0..LAYERS)
        .map(|seed| {
            let bytes: Vec<u8> =
                (0..LAYER).map(|at| u8::try_from((at * (seed + 3)) % 251).unwrap()).collect();
            site.blob("registry.k8s.io/a", &bytes);
            Descriptor::of(media_type::OCI_LAYER_GZIP, &bytes)
        })
        .collect();
    site.blob("registry.k8s.io/a", b"{}");
    let config = Descriptor::of(media_type::OCI_CONFIG, b"{}");
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": config, "layers": layers});
    site.manifest("registry.k8s.io/a", Some("1"), &manifest);

    let server = Process::serve(site.store.path());
    pull(&server.address);
    let idle = server.peak();
    std::thread::scope(|scope| {
        for _ in 0..NODES {
            scope.spawn(|| pull(&server.address));
        }
    });
    let more = server.peak() - idle;
    assert!(more <= MORE, "{more} bytes more than {idle}");
}

/// Pulls the image as containerd does, and checks every digest.
fn pull(address: &str) {
    let mut connection = Connection::open(address.parse().unwrap());
    let mut get = |method, path: &str| {
        let target = format!("/v2/a/{path}?ns=registry.k8s.io");
        connection.request(method, &target, &[], b"").expect(200)
    };
    let digest = get("HEAD", "manifests/1").header("docker-content-digest").to_owned();
    let manifest = get("GET", &format!("manifests/{digest}"));
    assert_eq!(Digest::sha256(&manifest.body).to_string(), digest);
    let manifest = manifest.json();
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(layers.len(), LAYERS);
    for blob in layers.iter().chain([&manifest["config"]]) {
        let digest = blob["digest"].as_str().unwrap();
        let body = get("GET", &format!("blobs/{digest}")).body;
        assert_eq!(Digest::sha256(&body).to_string(), digest);
    }
}

/// `dray serve` as a process of its own, whose memory is its own too.
struct Process {
    child: Child,
    address: String,
}

impl Process {
    fn serve(store: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dray"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--store"]).arg(store);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit('/').next().unwrap().to_owned();
        Self { child, address }
    }

    /// The most memory that it has had, in bytes.
    fn peak(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
