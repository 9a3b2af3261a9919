//! The other documents of the tail: the bundle index, the manifest of the lock, `index.json`, `oci-layout`.

use super::bench::{attacks, bundle_index, changed, lock_position, sign, written};
use crate::{
    archive::{Archive, Part},
    sample::{self, Sample},
};

/// Every message says where.
const WHERE: &str = "at byte ";

/// The good bundle with the document `which` finds replaced, everything that names it right, and signed again.
fn document(which: fn(&Archive) -> usize, change: impl FnOnce(String) -> String) -> Vec<Vec<u8>> {
    let mut archive = Sample::new().archive(None);
    let at = which(&archive);
    let text = String::from_utf8(archive.parts[at].content.clone()).unwrap();
    archive.replace(at, change(text).into_bytes());
    if archive
        .content("index.json")
        .is_some_and(|index| serde_json::from_slice::<serde_json::Value>(index).is_ok())
    {
        sign(&mut archive, &sample::key());
    }
    vec![archive.to_bytes()]
}

/// The good bundle with another `index.json`, signatures and all.
fn listed(change: impl FnOnce(String) -> String) -> Vec<Vec<u8>> {
    changed(|archive| {
        let at = archive.position("index.json").unwrap();
        let text = String::from_utf8(archive.parts[at].content.clone()).unwrap();
        archive.replace(at, change(text).into_bytes());
    })
}

fn members(archive: &Archive) -> usize {
    let hex = bundle_index(archive).digest.hex().to_owned();
    archive.position(&format!("blobs/sha256/{hex}")).unwrap()
}

fn lock_manifest(archive: &Archive) -> usize {
    lock_position(archive) + 2
}

fn file_manifest(archive: &Archive) -> usize {
    lock_position(archive) + 3
}

attacks! {
    a_bundle_index_that_is_not_there: AtOnce, [WHERE], || {
        listed(|text| text.replacen("sha256:", "sha256:0", 1).replacen("\",\"size\"", "#", 1).replacen("0#", "#", 1)
            .replacen('#', "\",\"size\"", 1))
    };
    no_bundle_in_the_index: AtOnce, ["holds images, but no bundle made by dray"], || {
        listed(|text| text.replace("\"dev.dray.role\":\"bundle\"", "\"dev.dray.role\":\"image\""))
    };
    two_bundles_in_the_index: AtOnce, [WHERE], || {
        listed(|text| {
            let end = text.find("},{").unwrap() + 1;
            let start = text.find("[{").unwrap() + 1;
            let entry = text[start..end].to_owned();
            text.replacen("[{", &format!("[{entry},{{"), 1)
        })
    };
    an_image_more_in_the_index: AtOnce, [WHERE], || {
        listed(|text| {
            let entry = text[text.rfind("{\"mediaType\"").unwrap()..text.rfind(']').unwrap()].to_owned();
            text.replace("]}", &format!(",{entry}]}}"))
        })
    };
    another_name_for_an_image_in_the_index: AtOnce, [WHERE], || {
        listed(|text| text.replace("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:9.9"))
    };
    an_image_in_place_of_another_in_the_index: AtOnce, [WHERE], || {
        listed(|text| {
            let digests: Vec<String> =
                text.split("sha256:").skip(1).map(|rest| rest[..64].to_owned()).collect();
            let (a, b) = (&digests[digests.len() - 2], &digests[digests.len() - 1]);
            text.replace(a, "#").replace(b, a).replace('#', b)
        })
    };
    an_index_that_goes_on_forever: AtOnce, [WHERE], || {
        let annotations = |deep: String| listed(move |text| text.replacen("[{", &format!("[{{\"x\":{deep},"), 1));
        [annotations("[".repeat(100_000)), annotations(format!("{}{}", "[".repeat(50_000), "]".repeat(50_000)))].concat()
    };
    an_index_larger_than_any: AtOnce, ["index.json is too large, at byte"], || {
        listed(|text| format!("{text}{}", " ".repeat(64 * 1024 * 1024)))
    };
    an_index_that_is_none: AtOnce, [WHERE], || {
        ["", "null", "[]", "{", "{\"manifests\":{}}", "{\"manifests\":[7]}"]
            .into_iter()
            .flat_map(|text| listed(|_| text.to_owned()))
            .collect()
    };
    an_index_that_names_paths: AtOnce, [WHERE], || {
        ["../../../etc/passwd", "sha256:../../x", "sha256:", "file:///etc/passwd"]
            .into_iter()
            .flat_map(|path| {
                listed(|text| {
                    let at = text.find("sha256:").unwrap();
                    format!("{}{path}{}", &text[..at], &text[at + 71..])
                })
            })
            .collect()
    };
    a_role_of_its_own: AtOnce, [WHERE], || {
        listed(|text| text.replacen("]}", ",{\"mediaType\":\"a\",\"digest\":\"sha256:\
            e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\",\"size\":0,\
            \"annotations\":{\"dev.dray.role\":\"root\"}}]}", 1))
    };
    a_size_in_the_index_that_is_not_so: AtOnce, [WHERE], || {
        listed(|text| text.replacen("\"size\":", "\"size\":1", 1))
    };
    a_bundle_index_without_a_lock: AtOnce, ["the bundle index has no lock"], || {
        document(members, |text| text.replace("application/vnd.dray.lock.v1+json", "application/vnd.dray.lock.v9+json"))
    };
    a_bundle_index_with_an_image_more: AtOnce, [WHERE], || {
        document(members, |text| {
            let start = text.rfind("{\"mediaType\"").unwrap();
            let end = text.rfind(']').unwrap();
            let entry = text[start..end].to_owned();
            format!("{},{entry}{}", &text[..end], &text[end..])
        })
    };
    a_bundle_index_of_another_name: AtOnce, [WHERE], || {
        [
            document(members, |text| text.replace("\"plant-7\"", "\"plant-8\"")),
            document(members, |text| text.replace("bundle.sequence\":\"7\"", "bundle.sequence\":\"70\"")),
        ]
        .concat()
    };
    a_manifest_of_the_lock_without_the_lock: AtOnce, ["the lock's manifest is empty"], || {
        document(lock_manifest, |text| {
            let at = text.find("\"layers\":[").unwrap() + "\"layers\":[".len();
            format!("{}]}}", &text[..at])
        })
    };
    a_manifest_of_the_lock_with_two: AtOnce, [WHERE], || {
        document(lock_manifest, |text| {
            let at = text.find("\"layers\":[").unwrap() + "\"layers\":[".len();
            let layer = text[at..text.rfind(']').unwrap()].to_owned();
            text.replacen("\"layers\":[", &format!("\"layers\":[{layer},"), 1)
        })
    };
    a_file_with_another_name: AtOnce, [WHERE], || {
        document(file_manifest, |text| text.replace("\"tool.exe\"", "\"../../evil.exe\""))
    };
    a_file_from_elsewhere: AtOnce, [WHERE], || {
        document(file_manifest, |text| text.replace("https://dl.example.org", "https://evil.example.org"))
    };
    another_version_of_the_layout: AtOnce, [WHERE], || {
        changed(|archive| {
            let at = archive.position("oci-layout").unwrap();
            archive.replace(at, br#"{"imageLayoutVersion":"9.9.9"}"#.to_vec());
        })
    };
    a_document_more_in_the_tail: AtOnce, [WHERE], || {
        changed(|archive| {
            let at = archive.position("index.json").unwrap();
            archive.parts.insert(at, Part::file(&format!("blobs/sha256/{}", "0".repeat(64)), *b"more"));
        })
    };
    a_document_with_another_content: AtOnce, [WHERE], || {
        let tail = Sample::new().lock.blobs.len();
        let documents = super::bench::good().parts.len();
        let one = |at: usize| changed(|archive| *archive.parts[at].content.last_mut().unwrap() ^= 1);
        (tail..documents).flat_map(one).collect()
    };
    the_tail_of_another_bundle: AtOnce, [WHERE], || {
        let mut other = Sample::new();
        other.lock.sequence = 8;
        other.lock.images.remove(0);
        other.add(b"the other has something more", false);
        let tail = other.signed_by(&[sample::key()]).parts.split_off(other.lock.blobs.len());
        let head = Sample::new().lock.blobs.len();
        changed(|archive| drop(archive.parts.splice(head.., tail)))
    };
    two_tails: AtOnce, [WHERE], || {
        let head = Sample::new().lock.blobs.len();
        changed(|archive| {
            let tail = archive.parts[head..].to_vec();
            archive.parts.extend(tail);
        })
    };
    a_tail_alone: AtOnce, [WHERE], || {
        let head = Sample::new().lock.blobs.len();
        changed(|archive| drop(archive.parts.drain(..head)))
    };
    a_head_alone: AtOnce, [WHERE], || {
        let head = Sample::new().lock.blobs.len();
        changed(|archive| archive.parts.truncate(head))
    };
    another_bundle_under_the_same_signature: AtOnce, [WHERE], || {
        let text = String::from_utf8(Sample::new().lock.to_json()).unwrap();
        let mut forged = Archive::parse(&written([text.replace("\"sequence\": 7", "\"sequence\": 9")])[0]);
        let signatures: Vec<Part> = super::bench::good().parts.into_iter().rev().skip(2).take(5).rev().collect();
        let at = forged.position("index.json").unwrap();
        forged.parts.splice(at - 5..at, signatures);
        vec![forged.to_bytes()]
    };
}
