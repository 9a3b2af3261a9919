//! `dray export`: the archives are imported by containerd, podman and skopeo.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::support::{
    command::Run,
    containerd::Containerd,
    site::{Site, dray},
    upstream::{self, HUB, PAUSE_DOCKER, PAUSE_OCI, SINGLE},
};

const DEFINITION: &str = "\
apiVersion: dray.dev/v1alpha1
kind: Bundle
metadata:
  name: preload
spec:
  nodes: [linux/amd64, windows/ltsc2022, windows(10.0.26100)/amd64]
  runtimes: [containerd@1.7, containerd@2]
  images:
    - registry.k8s.io/pause:3.9
    - registry.k8s.io/pause:3.10
    - {ref: quay.io/k0sproject/coredns:1.11.3, nodes: [linux/amd64]}
    - {ref: busybox:1.35, nodes: [linux/amd64]}
";

/// Releases of which the upstream of these tests has the images.
const RELEASES: [(&str, &str); 3] = [
    (
        "k0s/1.36",
        "\
distribution: k0s
kubernetes: '1.36'
architectures: [amd64]
facts: {containerd: 2.3.1, import-sparse: true}
components:
  - {name: pause, image: registry.k8s.io/pause, tag: '3.9', os: [linux, windows]}
  - {name: coredns, image: quay.io/k0sproject/coredns, tag: 1.11.3}
  - {name: busybox, image: docker.io/library/busybox, tag: '1.35'}
releases: [{version: v1.36.99+k0s.0}]
",
    ),
    (
        "k0s/1.30",
        "\
distribution: k0s
kubernetes: '1.30'
architectures: [amd64]
facts: {containerd: 1.7.16, import-sparse: false}
components:
  - {name: pause, image: registry.k8s.io/pause, tag: '3.10', os: [linux, windows]}
  - {name: pause-docker, image: registry.k8s.io/pause, tag: '3.9', os: [linux, windows]}
releases: [{version: v1.30.99+k0s.0}]
",
    ),
    (
        "rke2/1.36",
        "\
distribution: rke2
kubernetes: '1.36'
architectures: [amd64]
facts: {containerd: 2.2.3}
components:
  - {name: pause, image: registry.k8s.io/pause, tag: '3.10', os: [linux, windows]}
  - {name: busybox, image: docker.io/library/busybox, tag: '1.35'}
releases: [{version: v1.36.99+rke2r1}]
",
    ),
];

/// A store with what the definition names, and a catalog with the releases above.
fn site() -> Site {
    let upstream = upstream::start();
    let site = Site::new(DEFINITION);
    let bundle = site.bundle(upstream.address());
    site.import(&bundle, &site.path("store")).succeed();
    for (name, text) in RELEASES {
        let file = site.path("catalog").join(format!("{name}.yaml"));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    site
}

fn export(site: &Site, release: &str, node: &str, output: &str) -> (Command, PathBuf) {
    let file = site.path(output);
    let mut export = dray();
    let distro = release.split('@').next().unwrap();
    export.args(["export", "--for", distro, "--release", release, "--node", node, "--catalog"]);
    export.arg(site.path("catalog")).arg("--store").arg(site.path("store")).arg("-o").arg(&file);
    (export, file)
}

/// `podman` with a storage of its own.
fn podman(storage: &Path) -> Command {
    let mut command = Command::new("podman");
    command.args(["--storage-driver", "vfs", "--root"]).arg(storage.join("root"));
    command.arg("--runroot").arg(storage.join("run")).env("XDG_RUNTIME_DIR", storage);
    command
}

/// A file of the archive.
fn member(archive: &PathBuf, path: &str) -> Value {
    let mut tar = Command::new("tar");
    let text = tar.arg("-xOf").arg(archive).arg(path).succeed();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn containerd_and_podman_take_the_archive_for_linux() {
    let site = site();
    for release in ["k0s@v1.36.99+k0s.0", "rke2@v1.36.99+rke2r1"] {
        let (mut command, file) = export(&site, release, "linux/amd64", "linux.tar");
        let said: Value = serde_json::from_str(&command.args(["--format", "json"]).succeed()).unwrap();
        let sum = Command::new("sha256sum").arg(&file).succeed();
        assert_eq!(sum.split_whitespace().next(), said["sha256"].as_str());
        assert_eq!(fs::metadata(&file).unwrap().len(), said["bytes"].as_u64().unwrap());

        let containerd = Containerd::start();
        containerd.ctr().args(["images", "import", "--snapshotter", "native"]).arg(&file).succeed();
        let storage = tempfile::tempdir().unwrap();
        podman(storage.path()).args(["load", "-q", "-i"]).arg(&file).succeed();
        let loaded =
            podman(storage.path()).args(["images", "--format", "{{.Repository}}:{{.Tag}}"]).succeed();
        for image in said["images"].as_array().unwrap() {
            let name = image["ref"].as_str().unwrap();
            // The name stands for what it stands for upstream, whatever is left out below it.
            assert_eq!(containerd.digest(name).as_deref(), image["digest"].as_str(), "{name}");
            assert_eq!(image["reindexed"], false);
            assert!(loaded.lines().any(|line| line == name), "{name} of {release} in:\n{loaded}");
        }
        assert_eq!(containerd.run(HUB, &["/bin/busybox", "echo", "preloaded"]), "preloaded\n");
    }
}

#[test]
fn compressed_archives_are_imported_too() {
    let site = site();
    let release = "rke2@v1.36.99+rke2r1";
    let (mut command, file) = export(&site, release, "linux/amd64", "linux.tar.zst");
    let said: Value = serde_json::from_str(&command.args(["--format", "json"]).succeed()).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().len(), said["bytes"].as_u64().unwrap());
    let sum = Command::new("sha256sum").arg(&file).succeed();
    assert_eq!(sum.split_whitespace().next(), said["sha256"].as_str());
    let (mut again, same) = export(&site, release, "linux/amd64", "again.tzst");
    again.succeed();
    assert!(fs::read(&file).unwrap() == fs::read(same).unwrap(), "two exports differ");

    // As much memory as the reader of k3s and RKE2 has.
    let plain = site.path("plain.tar");
    let mut zstd = Command::new("zstd");
    zstd.args(["-d", "-q", "--memory=32MB"]).arg(&file).arg("-o").arg(&plain).succeed();
    let (mut uncompressed, expected) = export(&site, release, "linux/amd64", "linux.tar");
    uncompressed.succeed();
    assert!(fs::read(plain).unwrap() == fs::read(expected).unwrap(), "another archive");

    let storage = tempfile::tempdir().unwrap();
    podman(storage.path()).args(["load", "-q", "-i"]).arg(&file).succeed();
    for image in said["images"].as_array().unwrap() {
        podman(storage.path()).args(["image", "exists", image["ref"].as_str().unwrap()]).succeed();
    }
    let (mut k0s, _) = export(&site, "k0s@v1.36.99+k0s.0", "linux/amd64", "k0s.tar.zst");
    k0s.fail_with(2).says(&["not compressed"]);
}

#[test]
fn old_k0s_gets_an_index_with_nothing_missing() {
    let site = site();
    let (mut command, file) = export(&site, "k0s@v1.30.99+k0s.0", "windows/ltsc2022", "old.tar");
    let warned = command.fail_with(0).says(&["new index", PAUSE_OCI, "k0s@v1.30.99+k0s.0"]);
    assert!(warned.stdout.contains(r"C:\var\lib\k0s\images"), "{}", warned.stdout);
    let containerd = Containerd::start();
    // Fails on anything that an index names and the archive lacks, whatever its platform.
    containerd.ctr().args(["images", "import", "--all-platforms", "--no-unpack"]).arg(&file).succeed();
    for reference in [PAUSE_OCI, PAUSE_DOCKER] {
        let digest = containerd.digest(reference).unwrap();
        let index = containerd.ctr().args(["content", "get", &digest]).succeed();
        let index: Value = serde_json::from_str(&index).unwrap();
        let entries = index["manifests"].as_array().unwrap();
        assert_eq!(entries.len(), 1, "{index}");
        assert!(entries[0]["platform"]["os.version"].as_str().unwrap().starts_with("10.0.20348."), "{index}");
    }

    // A k0s that takes sparse indexes gets the upstream's own.
    let (mut command, file) = export(&site, "k0s@v1.36.99+k0s.0", "windows/ltsc2022", "new.tar");
    assert_eq!(command.fail_with(0).stderr, "");
    let root = &member(&file, "index.json")["manifests"][0];
    assert_eq!(root["annotations"]["io.containerd.image.name"], PAUSE_DOCKER);
    assert_eq!(root["annotations"]["org.opencontainers.image.ref.name"], PAUSE_DOCKER);
    let all = member(&file, &format!("blobs/{}", root["digest"].as_str().unwrap().replace(':', "/")));
    assert_eq!(all["manifests"].as_array().unwrap().len(), 5);
}

#[test]
fn windows_archives_hold_what_the_build_runs() {
    let site = site();
    for (node, version, manifests) in
        [("windows/ltsc2022", "10.0.20348", 1), ("windows(10.0.26100)/amd64", "10.0.26100", 2)]
    {
        let (mut command, file) = export(&site, "rke2@v1.36.99+rke2r1", node, "windows.tar");
        command.succeed();
        let docker = member(&file, "manifest.json");
        assert_eq!(docker.as_array().unwrap().len(), 1);
        assert_eq!(docker[0]["RepoTags"][0], PAUSE_OCI);
        let config = member(&file, docker[0]["Config"].as_str().unwrap());
        assert!(config["os.version"].as_str().unwrap().starts_with(version), "{config}");
        // containerd 2.2 on Windows Server 2025 fetches the image for 2022 as well.
        let listed = Command::new("tar").arg("-tf").arg(&file).succeed();
        let layers: Vec<&str> =
            docker[0]["Layers"].as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect();
        assert!(layers.iter().all(|layer| listed.lines().any(|line| line == *layer)), "{listed}");
        let blobs = listed.lines().filter(|line| line.starts_with("blobs/")).count();
        assert_eq!(blobs, 1 + manifests * 3, "{listed}");
        // RKE2 looks its images up by their tag in this part, as skopeo does.
        let archive = format!("docker-archive:{}:{PAUSE_OCI}", file.display());
        let inspected = Command::new("skopeo")
            .args(["--override-os", "windows", "--override-arch", "amd64", "inspect", "--config", &archive])
            .succeed();
        assert!(inspected.contains(version), "{inspected}");
    }
}

#[test]
fn the_command_line() {
    let site = site();
    let release = "k0s@v1.36.99+k0s.0";
    fs::create_dir(site.path("out")).unwrap();
    let (mut first, _) = export(&site, release, "linux/amd64", "out");
    let text = first.succeed();
    let stable = site.path("out").join("dray-k0s-linux-amd64.tar");
    assert!(text.starts_with(&stable.display().to_string()), "{text}");
    let bytes = fs::read(&stable).unwrap();
    let (mut again, other) = export(&site, release, "linux/amd64", "again.tar");
    again.succeed();
    assert!(fs::read(other).unwrap() == bytes, "two exports differ");
    assert_eq!(fs::read_dir(site.path("out")).unwrap().count(), 1);

    let (mut more, _) = export(&site, release, "linux/amd64", "more.tar");
    more.args(["--image", "quay.io/acme/agent:1"])
        .fail_with(4)
        .says(&["quay.io/acme/agent:1: unknown", "dray import"]);
    assert!(!site.path("more.tar").exists());
    // The store has no image of this architecture.
    let (mut arm, _) = export(&site, "k0s@v1.35.4+k0s.0", "linux/arm64", "arm.tar");
    arm.fail_with(4).says(&["not in the store"]);
    let (mut name, _) = export(&site, "rke2@v1.36.99+rke2r1", "linux/amd64", "images.bin");
    name.fail_with(2).says(&["*.tar"]);
    let (mut text, _) = export(&site, release, "linux/amd64", "single.tar");
    assert!(text.args(["--image", SINGLE]).succeed().contains(": 3 images"));
}

#[test]
fn export_takes_the_features_of_the_bundles() {
    let upstream = upstream::start();
    let site = Site::new(
        "\
apiVersion: dray.dev/v1alpha1
kind: Bundle
metadata:
  name: features
spec:
  nodes: [linux/amd64]
  releases:
    - {k0s: v1.36.99+k0s.0, with: [calico]}
",
    );
    let catalog = site.path("catalog/k0s/1.36.yaml");
    fs::create_dir_all(catalog.parent().unwrap()).unwrap();
    let release = "\
distribution: k0s
kubernetes: '1.36'
architectures: [amd64]
facts: {containerd: 2.3.1, import-sparse: true}
components:
  - {name: pause, image: registry.k8s.io/pause, tag: '3.9'}
  - {name: calico, image: docker.io/library/busybox, tag: '1.35', when: [calico]}
releases: [{version: v1.36.99+k0s.0}]
";
    fs::write(&catalog, release).unwrap();
    let bundle = site.path("bundle.tar");
    let mut build = site.build(upstream.address(), &bundle);
    build.arg("--catalog").arg(site.path("catalog"));
    let lock = site.path("bundle.lock");
    let mut locked = site.lock(upstream.address());
    locked.arg("--catalog").arg(site.path("catalog")).succeed();
    assert!(lock.exists());
    build.succeed();
    site.import(&bundle, &site.path("store")).succeed();

    let images = |more: &[&str]| -> Value {
        let mut command = dray();
        command.args(["export", "--release", "k0s@v1.36.99+k0s.0", "--node", "linux/amd64"]);
        command.arg("--catalog").arg(site.path("catalog")).arg("--store").arg(site.path("store"));
        command.arg("-o").arg(site.path("out.tar")).args(["--format", "json"]).args(more);
        serde_json::from_str(&command.succeed()).unwrap()
    };
    let exported = images(&[]);
    assert_eq!(exported["with"], serde_json::json!(["calico"]));
    assert_eq!(exported["images"].as_array().unwrap().len(), 2, "{exported}");
    assert_eq!(images(&["--with", "calico"])["images"], exported["images"]);
}
