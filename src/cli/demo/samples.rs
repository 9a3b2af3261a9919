//! Sample images in the shapes that real ones have: a pause index with a manifest for each Windows build, a Linux
//! index, and an image for `HostProcess` containers that states no Windows version.

use bytes::Bytes;
use dray::oci::{Descriptor, Platform, Reference, media_type};
use dray::store::{Batch, Store, StoreError, Writer};
use serde_json::json;

/// The definition that the demonstration resolves.
pub(super) const DEFINITION: &str = "\
apiVersion: dray.dev/v1alpha1
kind: Bundle
metadata:
  name: demo
spec:
  nodes: [linux/amd64, linux/arm64, windows/ltsc2019, windows/ltsc2022, windows/ltsc2025]
  runtimes: [containerd@1.7.34, containerd@2.3]
  images:
    - registry.k8s.io/pause:3.10.2
    - ref: quay.io/k0sproject/coredns:1.14.6-k0s.0
      nodes: [linux/amd64, linux/arm64]
    - ref: docker.io/sigwindowstools/kube-proxy:v1.36.3-calico-hostprocess
      nodes: [windows/ltsc2019, windows/ltsc2022, windows/ltsc2025]
";

/// The pause image of the samples.
pub(super) const PAUSE: &str = "registry.k8s.io/pause:3.10.2";
const COREDNS: &str = "quay.io/k0sproject/coredns:1.14.6-k0s.0";
const KUBE_PROXY: &str = "docker.io/sigwindowstools/kube-proxy:v1.36.3-calico-hostprocess";

/// The hosts that the samples come from.
pub(super) const HOSTS: [&str; 3] = ["registry.k8s.io", "quay.io", "docker.io"];

/// Fills `store` with the samples.
pub(super) fn publish(store: &Store) -> Result<(), StoreError> {
    let writer = store.writer("dray demo", std::time::Duration::ZERO)?;
    let mut batch = writer.batch();
    let mut shelf = Shelf { writer: &writer, batch: &mut batch };
    // Oldest build first, as `docker manifest` writes it: the order that some runtimes trip over.
    let pause = [
        ("linux", "amd64", ""),
        ("linux", "arm64", ""),
        ("windows", "amd64", "10.0.17763.7919"),
        ("windows", "amd64", "10.0.20348.4294"),
        ("windows", "amd64", "10.0.26100.6899"),
    ];
    shelf.index(PAUSE, media_type::DOCKER_LIST, &pause)?;
    shelf.index(COREDNS, media_type::OCI_INDEX, &[("linux", "amd64", ""), ("linux", "arm64", "")])?;
    shelf.single(KUBE_PROXY, ("windows", "amd64", ""))?;
    batch.commit()
}

struct Shelf<'w, 'b> {
    writer: &'w Writer,
    batch: &'b mut Batch<'w>,
}

impl Shelf<'_, '_> {
    fn index(
        &mut self,
        reference: &str,
        media_type: &str,
        platforms: &[(&str, &str, &str)],
    ) -> Result<(), StoreError> {
        let reference = parsed(reference);
        let child_type = if media_type == media_type::OCI_INDEX {
            media_type::OCI_MANIFEST
        } else {
            media_type::DOCKER_MANIFEST
        };
        let manifests = platforms.iter().map(|&platform| {
            let mut descriptor = self.image(&reference, child_type, platform)?;
            descriptor.platform = Some(stated(platform));
            Ok(descriptor)
        });
        let manifests = manifests.collect::<Result<Vec<_>, StoreError>>()?;
        let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests});
        self.tagged(&reference, media_type, &index)
    }

    fn single(&mut self, reference: &str, platform: (&str, &str, &str)) -> Result<(), StoreError> {
        let reference = parsed(reference);
        let root = self.image(&reference, media_type::OCI_MANIFEST, platform)?;
        self.tag(&reference, &root)
    }

    /// One image: a layer with a file in it, a configuration, a manifest.
    fn image(
        &mut self,
        reference: &Reference,
        media_type: &str,
        platform: (&str, &str, &str),
    ) -> Result<Descriptor, StoreError> {
        let (os, architecture, version) = platform;
        let text = format!("{reference} for {}\n", stated(platform));
        let layer = layer(os, text.as_bytes());
        let layer_type = "application/vnd.oci.image.layer.v1.tar";
        let layer = self.blob(reference, layer_type, &layer)?;
        let mut config = json!({
            "architecture": architecture,
            "os": os,
            "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
        });
        if !version.is_empty() {
            config["os.version"] = json!(version);
        }
        let config_type = if media_type == media_type::OCI_MANIFEST {
            media_type::OCI_CONFIG
        } else {
            media_type::DOCKER_CONFIG
        };
        let config = self.blob(reference, config_type, config.to_string().as_bytes())?;
        let manifest =
            json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer]});
        self.manifest(reference, media_type, &manifest)
    }

    fn blob(
        &mut self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Descriptor, StoreError> {
        let descriptor = Descriptor::of(media_type, bytes);
        let mut target = self.writer.begin_blob(&descriptor.digest, descriptor.size)?;
        target.write(bytes)?;
        target.commit()?;
        self.batch.link_blob(reference.name(), &descriptor.digest)?;
        Ok(descriptor)
    }

    fn manifest(
        &mut self,
        reference: &Reference,
        media_type: &str,
        manifest: &serde_json::Value,
    ) -> Result<Descriptor, StoreError> {
        let bytes = Bytes::from(manifest.to_string());
        let descriptor = Descriptor::of(media_type, &bytes);
        self.batch.put_manifest(reference.name(), &descriptor.digest, media_type, &bytes)?;
        Ok(descriptor)
    }

    fn tagged(
        &mut self,
        reference: &Reference,
        media_type: &str,
        manifest: &serde_json::Value,
    ) -> Result<(), StoreError> {
        let root = self.manifest(reference, media_type, manifest)?;
        self.tag(reference, &root)
    }

    fn tag(&mut self, reference: &Reference, root: &Descriptor) -> Result<(), StoreError> {
        let tag = reference.tag().expect("the samples are tagged");
        self.batch.set_tag(reference.name(), tag, root)
    }
}

fn parsed(reference: &str) -> Reference {
    reference.parse().expect("the samples have valid references")
}

fn stated((os, architecture, version): (&str, &str, &str)) -> Platform {
    Platform {
        os: os.to_owned(),
        architecture: architecture.to_owned(),
        os_version: version.to_owned(),
        ..Platform::default()
    }
}

/// A layer with one file, where the operating system's layers have their files.
fn layer(os: &str, content: &[u8]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    let path = if os == "windows" { "Files/sample.txt" } else { "sample.txt" };
    archive.append_data(&mut header, path, content).expect("writing to memory does not fail");
    archive.into_inner().expect("writing to memory does not fail")
}
