//! Contents that are not what the lock says, under a lock that is signed and right.

use dray::oci::{Digest, MAX_MANIFEST_BYTES};
use dray::resolve::LockedImage;

use super::bench::{attacks, changed, locked};
use crate::{archive::Archive, sample::Sample};

/// Where the blob that starts with `start` stands.
fn blob(archive: &Archive, start: &str) -> usize {
    archive.parts.iter().position(|part| part.content.starts_with(start.as_bytes())).unwrap()
}

/// The good bundle, where the content that starts with `start` is changed and keeps its name and its size.
fn content(start: &str, change: impl FnOnce(&mut Vec<u8>)) -> Vec<Vec<u8>> {
    changed(|archive| {
        let at = blob(archive, start);
        let size = archive.parts[at].content.len();
        change(&mut archive.parts[at].content);
        assert_eq!(archive.parts[at].content.len(), size);
    })
}

/// A bundle whose single image has `manifest` as its manifest. The lock says so, and the trusted key has signed it.
fn manifest(manifest: &[u8], media_type: &str) -> Vec<Vec<u8>> {
    locked(|sample| {
        let digest = sample.add(manifest, true);
        let image: &mut LockedImage = &mut sample.lock.images[0];
        image.root.digest = digest;
        image.root.size = manifest.len() as u64;
        image.root.media_type = media_type.into();
    })
}

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const NO_MANIFEST: &str = "no manifest that can be served";

attacks! {
    another_content_of_the_same_size: InContent, ["registry.k8s.io/pause:3.9"], || {
        content("layer of registry.k8s.io/pause linux", |content| content.reverse())
    };
    one_bit_of_a_layer: InContent, ["quay.io/acme/agent:2.4"], || {
        content("layer of quay.io", |content| content[3] ^= 1)
    };
    zeros_in_place_of_a_layer: InContent, ["is damaged"], || {
        content("layer of quay.io", |content| content.fill(0))
    };
    two_blobs_that_have_changed_places: InContent, [" at byte "], || {
        changed(|archive| {
            let manifests: Vec<usize> = (0..archive.parts.len())
                .filter(|at| archive.parts[*at].content.starts_with(br#"{"config""#))
                .collect();
            let (a, b) = (manifests[0], manifests[1]);
            assert_eq!(archive.parts[a].content.len(), archive.parts[b].content.len());
            let content = std::mem::take(&mut archive.parts[a].content);
            archive.parts[a].content = std::mem::replace(&mut archive.parts[b].content, content);
        })
    };
    a_plain_file_with_another_content: InContent, ["sha512:", "is damaged and hits plain files"], || {
        content("a program", |content| content.copy_from_slice(b"a malware"))
    };
    a_content_that_is_said_to_be_empty: InContent, ["is damaged"], || {
        let layer = Digest::sha256(b"layer of quay.io/acme/agent linux");
        locked(|sample| {
            let blob = sample.lock.blobs.iter_mut().find(|blob| blob.digest == layer).unwrap();
            blob.size = 0;
            sample.contents.insert(layer, Vec::new());
        })
    };
    the_same_digits_under_another_algorithm: InContent, ["sha512:"], || {
        let layer = Digest::sha256(b"layer of quay.io/acme/agent linux");
        let text = String::from_utf8(Sample::new().lock.to_json()).unwrap();
        let twice = format!("sha512:{}{}", layer.hex(), layer.hex());
        let lock = text.replace(&layer.to_string(), &twice);
        let mut sample = Sample::new();
        sample.lock = serde_json::from_str(&lock).unwrap();
        sample.lock.blobs.sort_by(|a, b| a.digest.cmp(&b.digest));
        sample.contents.insert(twice.parse().unwrap(), b"layer of quay.io/acme/agent linux".to_vec());
        vec![sample.signed_by(&[crate::sample::key()]).to_bytes()]
    };
    a_manifest_that_is_none: InManifests, [NO_MANIFEST, "sha256:"], || {
        [&b"\x7fELF"[..], b"", b"null", b"[]", b"{}", b"{\"layers\":7}", b"\xff\xfe"]
            .into_iter()
            .flat_map(|bytes| manifest(bytes, OCI))
            .collect()
    };
    a_manifest_that_is_something_else_than_it_says: InManifests, [NO_MANIFEST], || {
        let index = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
        [manifest(index, OCI), manifest(index, "text/html")].concat()
    };
    a_manifest_without_an_end: InManifests, [NO_MANIFEST], || {
        let deep = |open: &str| format!(r#"{{"schemaVersion":2,"config":{}"#, open.repeat(100_000));
        [manifest(deep("[").as_bytes(), OCI), manifest(deep(r#"{"a":"#).as_bytes(), OCI)].concat()
    };
    a_manifest_that_names_a_path: InManifests, [NO_MANIFEST], || {
        let named = |digest: &str| {
            let text = format!(r#"{{"schemaVersion":2,"config":{{"mediaType":"a","size":1,"digest":"{digest}"}},"layers":[]}}"#);
            manifest(text.as_bytes(), OCI)
        };
        ["sha256:../../../../etc/passwd", "../../etc/passwd", "sha256:", "md5:d41d8cd98f00b204e9800998ecf8427e"]
            .into_iter()
            .flat_map(named)
            .collect()
    };
    a_manifest_larger_than_any: InManifests, ["a manifest that is too large, at byte"], || {
        let mut text = br#"{"schemaVersion":2,"config":null,"layers":[]}"#.to_vec();
        text.resize(MAX_MANIFEST_BYTES + 1, b' ');
        manifest(&text, OCI)
    };
}
