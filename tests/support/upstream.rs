//! The upstream of the tests: a registry filled once, with every shape of image that registries hold.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    command::Run,
    registry::{Access, Registry},
    workshop::{Format, Target, Workshop, busybox_root, package_root, windows_root},
};

/// The builds of Windows that the index `pause` has an entry for, as in the real one: one tag, a manifest per build.
pub(crate) const WINDOWS: [&str; 3] = ["10.0.17763.6293", "10.0.20348.2655", "10.0.26100.1742"];

/// A Docker manifest list over Linux and Windows, as registry.k8s.io has it.
pub(crate) const PAUSE_DOCKER: &str = "registry.k8s.io/pause:3.9";
/// The same as an OCI index.
pub(crate) const PAUSE_OCI: &str = "registry.k8s.io/pause:3.10";
/// One OCI manifest for linux/amd64, no index.
pub(crate) const SINGLE: &str = "quay.io/k0sproject/coredns:1.11.3";
/// One Docker schema 2 manifest with two layers, the second holding a Debian package.
pub(crate) const PACKAGE: &str = "ghcr.io/containerd/containerd:1.6";
/// An OCI index over two architectures, on Docker Hub.
pub(crate) const HUB: &str = "docker.io/library/busybox:1.35";
/// One manifest whose layer is compressed with zstd.
pub(crate) const ZSTD: &str = "quay.io/k0sproject/busybox:zstd";
/// An index whose entry for arm64 is gone from the upstream.
pub(crate) const SPARSE: &str = "quay.io/k0sproject/sparse:1.0";
/// One manifest with a layer of [`BIG_LAYER`] bytes that do not compress; only in [`big`].
pub(crate) const BIG: &str = "ghcr.io/acme/big:1.0";

/// 1 GB.
pub(crate) const BIG_LAYER: u64 = 1_000_000_000;

/// Changes whenever what is made below changes, so that an older filling is not used.
const VERSION: &str = "4";

/// Serves the images named above, except [`BIG`].
#[track_caller]
pub(crate) fn start() -> Registry {
    Registry::start(&data(), Access::ReadOnly)
}

/// The data directory behind [`start`], filled on first use; not to be changed.
#[track_caller]
pub(crate) fn data() -> PathBuf {
    filled("upstream", fill)
}

/// Serves [`BIG`].
#[track_caller]
pub(crate) fn big() -> Registry {
    Registry::start(&filled("upstream-big", fill_big), Access::ReadOnly)
}

/// The `--upstream` arguments that send dray to `address` for every host used here, `example.org` for plain files.
pub(crate) fn flags(address: &str) -> Vec<String> {
    let images = ["registry.k8s.io", "quay.io", "ghcr.io", "docker.io"];
    let images = images.map(|host| format!("{host}=http://{address}/{host}"));
    let files = format!("example.org=http://{address}/files/example.org");
    images.into_iter().chain([files]).flat_map(|mirror| ["--upstream".to_owned(), mirror]).collect()
}

/// A data directory that outlives the test: filled by the first one that asks, used by all.
#[track_caller]
fn filled(name: &str, fill: fn(&Registry)) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{VERSION}"));
    fs::create_dir_all(dir.parent().unwrap()).unwrap();
    let lock = File::create(dir.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    let ready = dir.with_extension("ready");
    if !ready.exists() {
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        fill(&Registry::start(&dir, Access::Full));
        File::create(ready).unwrap();
    }
    dir
}

fn fill(registry: &Registry) {
    let files = tempfile::tempdir().unwrap();
    let workshop = Workshop::new();
    let busybox = busybox_root(files.path());
    let amd64 = Target::linux("amd64");
    let arm64 = Target::linux("arm64");

    for (name, format) in [(PAUSE_DOCKER, Format::Docker), (PAUSE_OCI, Format::Oci)] {
        let mut images = vec![
            (amd64, workshop.image("pause", amd64, format, &[&busybox])),
            (arm64, workshop.image("pause", arm64, format, &[&busybox])),
        ];
        for version in WINDOWS {
            let target = Target::windows(version);
            let root = windows_root(files.path(), version);
            images.push((target, workshop.image("pause", target, format, &[&root])));
        }
        workshop.push_index(&images, format, &registry.docker(name));
    }

    let single = workshop.image("single", amd64, Format::Oci, &[&busybox]);
    let other = workshop.image("single", arm64, Format::Oci, &[&busybox]);
    workshop.push(&single, Format::Oci, &registry.docker(SINGLE));
    workshop.push_index(
        &[(amd64, single.clone()), (arm64, other.clone())],
        Format::Oci,
        &registry.docker(HUB),
    );

    let package = package_root(files.path(), "/usr/bin/containerd");
    let image = workshop.image("package", amd64, Format::Docker, &[&busybox, &package]);
    workshop.push(&image, Format::Docker, &registry.docker(PACKAGE));

    push_recompressed(registry, files.path());

    workshop.push_index(&[(amd64, single), (arm64, other)], Format::Oci, &registry.docker(SPARSE));
    let index: serde_json::Value = serde_json::from_str(&registry.raw(SPARSE)).unwrap();
    let (name, _) = SPARSE.rsplit_once(':').unwrap();
    registry.delete(&format!("{name}@{}", index["manifests"][1]["digest"].as_str().unwrap()));
}

/// Pushes [`ZSTD`], which is [`SINGLE`] with another compression. skopeo compresses only what is plain, and a registry
/// that has the gzip layer would be asked to reuse it: hence the detour over two directories.
fn push_recompressed(registry: &Registry, dir: &Path) {
    let plain = format!("dir:{}", dir.join("plain").display());
    let layout = format!("oci:{}:zstd", dir.join("zstd").display());
    let skopeo = |options: &[&str], from: &str, to: &str| {
        Command::new("skopeo").args(["copy", "-q"]).args(options).args([from, to]).succeed();
    };
    skopeo(&["--src-tls-verify=false", "--dest-decompress"], &registry.docker(SINGLE), &plain);
    skopeo(&["--dest-compress-format", "zstd"], &plain, &layout);
    skopeo(&["--dest-tls-verify=false", "--preserve-digests"], &layout, &registry.docker(ZSTD));
}

fn fill_big(registry: &Registry) {
    let layout = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    write_layout(layout.path(), BIG_LAYER);
    Command::new("skopeo")
        .args(["copy", "-q", "--preserve-digests", "--dest-tls-verify=false"])
        .args([&format!("oci:{}:big", layout.path().display()), &registry.docker(BIG)])
        .succeed();
}

/// Lays an OCI image by hand: one layer, an uncompressed tar with one file of `size` random bytes.
fn write_layout(dir: &Path, size: u64) {
    use dray::oci::{Algorithm, Digest, Hasher};

    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_path("data.bin").unwrap();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();

    let mut hasher = Hasher::new(Algorithm::Sha256);
    let unnamed = dir.join("layer");
    let mut layer = File::create(&unnamed).unwrap();
    let mut random = File::open("/dev/urandom").unwrap().take(size);
    let mut length = 0_u64;
    let mut append = |bytes: &[u8]| {
        hasher.update(bytes);
        layer.write_all(bytes).unwrap();
        length += bytes.len() as u64;
    };
    append(header.as_bytes());
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = random.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        append(&buffer[..count]);
    }
    let padding = usize::try_from(size.next_multiple_of(512) - size).unwrap();
    append(&vec![0; padding + 1024]);
    let digest = hasher.finish();
    fs::rename(&unnamed, blobs.join(digest.hex())).unwrap();

    let put = |media_type: &str, document: &serde_json::Value| {
        let bytes = document.to_string();
        let digest = Digest::sha256(bytes.as_bytes());
        fs::write(blobs.join(digest.hex()), &bytes).unwrap();
        serde_json::json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
    };
    let config = put(
        "application/vnd.oci.image.config.v1+json",
        &serde_json::json!({
            "architecture": "amd64", "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [digest.to_string()]},
        }),
    );
    let mut manifest = put(
        "application/vnd.oci.image.manifest.v1+json",
        &serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": digest.to_string(),
                "size": length,
            }],
        }),
    );
    manifest["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": "big"});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}
