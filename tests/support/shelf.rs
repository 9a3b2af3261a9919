//! An upstream made by hand: a store of images of a few kilobytes each, served by dray itself.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use dray::{
    oci::{Descriptor, Digest, Reference, RepositoryName, media_type},
    store::{Batch, HostedFile, Store, Writer},
};
use serde_json::{Value, json};

use super::site::Serve;

/// What every image here has an entry for: operating system and version.
const PLATFORMS: [(&str, &str); 2] = [("linux", ""), ("windows", "10.0.20348.2655")];
/// A layer that is not compressed.
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// The repository that plain files are in.
const FILES: &str = "bundles.dray.dev/files";
/// The bytes of the layer that all versions of an image share.
const BASE: usize = 20_000;
/// The bytes of the layer that each version has for itself.
const TOP: usize = 1_000;

/// Makes an image for each of `references` in a store at `dir`, and serves it.
///
/// The versions of one image share a layer, as they do in life.
#[track_caller]
pub(crate) fn serve<'a>(dir: &Path, references: impl IntoIterator<Item = &'a String>) -> Serve {
    let store = Store::create(dir).unwrap();
    let writer = store.writer("a test", Duration::ZERO).unwrap();
    let mut batch = writer.batch();
    for reference in references {
        put_index(&writer, &mut batch, &reference.parse().unwrap());
    }
    batch.commit().unwrap();
    drop(writer);
    Serve::start(&["--store", dir.to_str().unwrap()])
}

/// Puts plain files, by their addresses without the scheme, into the store at `dir`.
#[track_caller]
pub(crate) fn put_files<'a>(dir: &Path, files: impl IntoIterator<Item = (&'a str, &'a [u8])>) {
    let store = Store::create(dir).unwrap();
    let writer = store.writer("a test", Duration::ZERO).unwrap();
    let mut batch = writer.batch();
    let repository: RepositoryName = FILES.parse().unwrap();
    for (address, bytes) in files {
        let (host, path) = address.split_once('/').unwrap();
        let digest = put_blob(&writer, &mut batch, &repository, bytes);
        let (host, size) = (host.to_owned(), bytes.len() as u64);
        let file = HostedFile { host, repository: repository.clone(), digest, size };
        batch.put_file(path, &file).unwrap();
    }
    batch.commit().unwrap();
}

fn put_blob(writer: &Writer, batch: &mut Batch<'_>, name: &RepositoryName, bytes: &[u8]) -> Digest {
    let digest = Digest::sha256(bytes);
    let mut target = writer.begin_blob(&digest, bytes.len() as u64).unwrap();
    target.write(bytes).unwrap();
    target.commit().unwrap();
    batch.link_blob(name, &digest).unwrap();
    digest
}

fn put_index(writer: &Writer, batch: &mut Batch<'_>, reference: &Reference) {
    let entries: Vec<Value> = PLATFORMS
        .iter()
        .map(|(os, version)| {
            let image = put_image(writer, batch, reference, os, version);
            let mut platform = json!({"os": os, "architecture": "amd64"});
            if !version.is_empty() {
                platform["os.version"] = json!(version);
            }
            json!({
                "mediaType": image.media_type, "digest": image.digest, "size": image.size, "platform": platform
            })
        })
        .collect();
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries});
    let index = put_manifest(batch, reference, media_type::OCI_INDEX, &index);
    batch.set_tag(reference.name(), reference.tag().unwrap(), &index).unwrap();
}

fn put_image(
    writer: &Writer,
    batch: &mut Batch<'_>,
    reference: &Reference,
    os: &str,
    version: &str,
) -> Descriptor {
    let base = layer("base", &format!("{} {os} {version}", reference.name()), BASE);
    let top = layer("top", &format!("{reference} {os} {version}"), TOP);
    let config = json!({
        "architecture": "amd64", "os": os, "os.version": version, "created_by": reference.to_string(),
        "rootfs": {"type": "layers", "diff_ids": [Digest::sha256(&base), Digest::sha256(&top)]},
    });
    let mut put = |media_type: &str, bytes: &[u8]| {
        put_blob(writer, batch, reference.name(), bytes);
        Descriptor::of(media_type, bytes)
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": put(media_type::OCI_CONFIG, config.to_string().as_bytes()),
        "layers": [put(LAYER, &base), put(LAYER, &top)],
    });
    put_manifest(batch, reference, media_type::OCI_MANIFEST, &manifest)
}

fn put_manifest(
    batch: &mut Batch<'_>,
    reference: &Reference,
    media_type: &str,
    document: &Value,
) -> Descriptor {
    let bytes = Bytes::from(document.to_string());
    let descriptor = Descriptor::of(media_type, &bytes);
    batch.put_manifest(reference.name(), &descriptor.digest, media_type, &bytes).unwrap();
    descriptor
}

/// A layer with one file of `length` bytes that no other `text` gives.
fn layer(name: &str, text: &str, length: usize) -> Vec<u8> {
    let content: Vec<u8> = Digest::sha256(text.as_bytes()).hex().bytes().cycle().take(length).collect();
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    let mut layer = tar::Builder::new(Vec::new());
    layer.append_data(&mut header, name, content.as_slice()).unwrap();
    layer.into_inner().unwrap()
}
