//! The store as its users see it.

use std::time::Duration;

use bytes::Bytes;
use fs_err as fs;

use crate::oci::{Descriptor, Digest, RepositoryName, Tag, TagMeaning, media_type};

use super::*;

const NOW: Duration = Duration::ZERO;

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::create(&directory.path().join("store")).unwrap();
    (directory, store)
}

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

fn put_blob(writer: &Writer, bytes: &[u8]) -> Digest {
    let digest = Digest::sha256(bytes);
    let mut blob = writer.begin_blob(&digest, bytes.len() as u64).unwrap();
    bytes.chunks(3).for_each(|chunk| blob.write(chunk).unwrap());
    blob.commit().unwrap();
    digest
}

fn manifest(note: &str) -> (Descriptor, Bytes) {
    let config = Descriptor::of(media_type::OCI_CONFIG, b"{}");
    let bytes = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": config,
        "layers": [],
        "annotations": {"note": note},
    }))
    .unwrap();
    (Descriptor::of(media_type::OCI_MANIFEST, &bytes), bytes.into())
}

fn put_image(batch: &mut Batch<'_>, repository: &str, tag_text: &str) -> Descriptor {
    let (descriptor, bytes) = manifest(tag_text);
    batch.put_manifest(&name(repository), &descriptor.digest, &descriptor.media_type, &bytes).unwrap();
    batch.set_tag(&name(repository), &tag(tag_text), &descriptor).unwrap();
    descriptor
}

#[test]
fn an_image_goes_in_and_comes_out() {
    let (_directory, store) = store();
    let writer = store.writer("test", NOW).unwrap();
    let blob = put_blob(&writer, b"some layer");
    let mut batch = writer.batch();
    let pause = put_image(&mut batch, "registry.k8s.io/pause", "3.9");
    batch.link_blob(&name("registry.k8s.io/pause"), &blob).unwrap();
    batch.commit().unwrap();
    drop(writer);

    let store = Store::open(store.path()).unwrap();
    let repository = name("registry.k8s.io/pause");
    let target = store.resolve(&repository, &tag("3.9")).unwrap().unwrap();
    assert_eq!(target, pause);
    let found = store.manifest(&repository, &target.digest).unwrap().unwrap();
    assert_eq!((found.media_type.as_str(), &found.bytes), (media_type::OCI_MANIFEST, &manifest("3.9").1));
    let found = store.blob(&repository, &blob).unwrap().unwrap();
    let mut buffer = [0; 100];
    assert_eq!(found.read_at(&mut buffer, 5).unwrap(), 5);
    assert_eq!(&buffer[..5], b"layer");
    assert_eq!(found.read_at(&mut buffer, 10).unwrap(), 0);
    assert_eq!(store.blob_size(&repository, &blob).unwrap(), Some(10));
    assert_eq!(store.repositories(None, 10).unwrap(), [repository]);
    // Another repository does not have it, although the store does.
    assert!(store.blob(&name("other"), &blob).unwrap().is_none());
    assert!(store.has_blob(&blob).unwrap());
    assert_eq!(store.tags(&name("other"), None, 10).unwrap(), None);
}

#[test]
fn nothing_of_a_dropped_batch_is_seen() {
    let (_directory, store) = store();
    let writer = store.writer("test", NOW).unwrap();
    let mut batch = writer.batch();
    let image = put_image(&mut batch, "a", "1");
    drop(batch);
    assert!(store.manifest(&name("a"), &image.digest).unwrap().is_none());
    assert!(store.repositories(None, 10).unwrap().is_empty());
    assert_eq!(fs::read_dir(store.layout().temporary()).unwrap().count(), 0);
}

#[test]
fn wrong_bytes_are_refused() {
    let (_directory, store) = store();
    let writer = store.writer("test", NOW).unwrap();
    let digest = Digest::sha256(b"right");
    let mut blob = writer.begin_blob(&digest, 5).unwrap();
    blob.write(b"wrong").unwrap();
    assert!(matches!(blob.commit(), Err(StoreError::WrongDigest { .. })));
    let mut blob = writer.begin_blob(&digest, 5).unwrap();
    blob.write(b"rig").unwrap();
    assert!(matches!(blob.commit(), Err(StoreError::WrongSize { actual: 3, .. })));
    let mut blob = writer.begin_blob(&digest, 4).unwrap();
    assert!(matches!(blob.write(b"right"), Err(StoreError::WrongSize { .. })));
    drop(blob);
    assert!(!store.has_blob(&digest).unwrap());
    let (_, bytes) = manifest("x");
    let refused = writer.batch().put_manifest(&name("a"), &digest, media_type::OCI_MANIFEST, &bytes);
    assert!(matches!(refused, Err(StoreError::WrongDigest { .. })));
}

#[test]
fn damage_is_an_error_and_is_repaired_by_writing_again() {
    let (_directory, store) = store();
    let writer = store.writer("test", NOW).unwrap();
    let blob = put_blob(&writer, b"good bytes");
    let mut batch = writer.batch();
    let image = put_image(&mut batch, "a", "1");
    batch.link_blob(&name("a"), &blob).unwrap();
    batch.commit().unwrap();
    for digest in [&blob, &image.digest] {
        let path = store.layout().blob(digest);
        let mut bytes = fs::read(&path).unwrap();
        bytes[3] ^= 1;
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
    }
    for _ in 0..2 {
        assert!(matches!(store.blob(&name("a"), &blob), Err(ContentError::Damaged(d)) if d == blob));
    }
    assert!(matches!(store.manifest(&name("a"), &image.digest), Err(ContentError::Damaged(_))));
    assert_eq!(store.damaged().len(), 2);
    assert_eq!(store.blob_size(&name("a"), &blob).unwrap(), None, "a push may bring it again");

    put_blob(&writer, b"good bytes");
    let mut batch = writer.batch();
    put_image(&mut batch, "a", "1");
    batch.commit().unwrap();
    assert!(store.blob(&name("a"), &blob).unwrap().is_some());
    assert!(store.manifest(&name("a"), &image.digest).unwrap().is_some());
    fs::remove_file(store.layout().blob(&blob)).unwrap();
    assert!(matches!(store.blob(&name("a"), &blob), Err(ContentError::Damaged(_))));
}

#[test]
fn tags_and_repositories_come_in_pages() {
    let (_directory, store) = store();
    let writer = store.writer("test", NOW).unwrap();
    let mut batch = writer.batch();
    for text in ["v2", "V1", "v10", "v1"] {
        put_image(&mut batch, "a/b", text);
    }
    put_image(&mut batch, "localhost:5000/a", "1");
    put_image(&mut batch, "a", "1");
    batch.commit().unwrap();
    let page = |after, limit| {
        let tags = store.tags(&name("a/b"), after, limit).unwrap().unwrap();
        tags.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(page(None, 10), ["V1", "v1", "v10", "v2"]);
    assert_eq!(page(Some("v1"), 1), ["v10"]);
    assert_eq!(page(Some("v1a"), 9), ["v2"]);
    assert_eq!(page(None, 0), [""; 0]);
    let names = store.repositories(Some("a"), 10).unwrap();
    assert_eq!(names, [name("a/b"), name("localhost:5000/a")]);
}

#[test]
fn referrers_carry_type_and_annotations() {
    let (_directory, store) = store();
    let writer = store.writer("test", NOW).unwrap();
    let subject = manifest("subject").0;
    let config = Descriptor::of(media_type::OCI_EMPTY, b"{}");
    let referrers = [
        serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": "a/sbom",
            "config": config, "layers": [], "subject": subject, "annotations": {"by": "me"}}),
        serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
            "config": config, "layers": [], "subject": subject, "annotations": null}),
        serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX,
            "manifests": [], "subject": subject}),
    ];
    let mut batch = writer.batch();
    for referrer in &referrers {
        let bytes = Bytes::from(serde_json::to_vec(referrer).unwrap());
        let media_type = referrer["mediaType"].as_str().unwrap();
        batch.put_manifest(&name("a"), &Digest::sha256(&bytes), media_type, &bytes).unwrap();
    }
    batch.commit().unwrap();
    let found = store.referrers(&name("a"), &subject.digest).unwrap();
    let mut types: Vec<_> = found.iter().map(|d| d.artifact_type.as_deref()).collect();
    types.sort_unstable();
    assert_eq!(types, [None, Some("a/sbom"), Some(media_type::OCI_EMPTY)]);
    let sbom = found.iter().find(|d| d.artifact_type.as_deref() == Some("a/sbom")).unwrap();
    assert_eq!(sbom.annotations["by"], "me");
    assert!(store.referrers(&name("b"), &subject.digest).unwrap().is_empty());
}

#[test]
fn a_batch_that_was_interrupted_before_it_was_visible_leaves_nothing() {
    let (_directory, store) = store();
    let writer = store.writer("test", NOW).unwrap();
    let mut batch = writer.batch();
    let kept = put_image(&mut batch, "a", "1");
    batch.commit().unwrap();
    // As if the process had died between the manifests and the tags.
    let repository = store.layout().repository(&name("a")).unwrap();
    let old = repository.manifest(&kept.digest);
    let new = repository.manifest(&Digest::sha256(b"new"));
    undo::begin(store.layout(), [&old, &new]).unwrap();
    fs::write(&new, b"{}").unwrap();
    drop(writer);

    drop(store.writer("test", NOW).unwrap());
    assert!(!new.exists() && !store.layout().batch().exists());
    assert_eq!(store.manifests(&name("a")).unwrap().len(), 1);
    assert!(store.manifest(&name("a"), &kept.digest).unwrap().is_some());

    // Nor does the list of a batch that is visible take anything away again.
    let writer = store.writer("test", NOW).unwrap();
    let mut batch = writer.batch();
    put_image(&mut batch, "b", "1");
    put_image(&mut batch, "b", "2");
    batch.commit().unwrap();
    drop(writer);
    assert!(!store.layout().batch().exists());
    drop(store.writer("test", NOW).unwrap());
    assert_eq!(store.tags(&name("b"), None, 10).unwrap().unwrap().len(), 2);
}

#[test]
fn a_publication_that_was_interrupted_is_seen_whole_and_finished() {
    let (_directory, store) = store();
    let writer = store.writer("test", NOW).unwrap();
    let mut batch = writer.batch();
    let first = put_image(&mut batch, "a", "1");
    put_image(&mut batch, "a", "gone");
    batch.commit().unwrap();

    // As if the process had died right after `publish.json` got its name.
    let mut publication = publication::Publication::default();
    publication.set(&name("a"), &tag("gone"), None);
    publication.set(&name("a"), &tag("pins"), Some(TagMeaning::Disputed));
    publication.set(&name("a"), &tag("2"), Some(TagMeaning::Unpinned(first.clone())));
    durable::write_json(&store.layout().temporary(), &store.layout().publication(), &publication).unwrap();
    // With the receipt in the form of layout 1.
    let path = store.layout().publication();
    let mut interrupted: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let receipt = log_tests::first_version(1, None, 5);
    interrupted["import"] = serde_json::json!({"number": 1, "record": receipt, "signature": [48, 0]});
    fs::write(&path, interrupted.to_string()).unwrap();
    fs::write(store.layout().temporary().join("left-over"), b"x").unwrap();
    drop(writer);

    let check = |store: &Store| {
        assert_eq!(store.resolve(&name("a"), &tag("2")).unwrap().unwrap(), first);
        assert_eq!(store.meaning(&name("a"), &tag("gone")).unwrap(), None);
        assert_eq!(store.meaning(&name("a"), &tag("pins")).unwrap(), Some(TagMeaning::Disputed));
        assert_eq!(store.tags(&name("a"), None, 10).unwrap().unwrap(), [tag("1"), tag("2")]);
    };
    check(&store);
    assert!(store.imports().unwrap().is_empty());
    drop(store.writer("test", NOW).unwrap());
    check(&store);
    assert_eq!(fs::read_to_string(store.path().join("imports/000001.json")).unwrap(), receipt);
    assert_eq!(fs::read(store.path().join("imports/000001.sig")).unwrap(), [48, 0]);
    assert_eq!(store.imports().unwrap()[0].import().unwrap().sequence, 5);
    assert!(!store.layout().publication().exists());
    assert_eq!(fs::read_dir(store.layout().temporary()).unwrap().count(), 0);
}

/// The record of a tag as it stands on the disk.
fn tag_record(store: &Store, repository: &str, of: &str) -> serde_json::Value {
    let path = store.layout().repository(&name(repository)).unwrap().tag(&tag(of));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn tag_record_says_which_kind_of_reference_set_it() {
    let (_directory, store) = store();
    let writer = store.writer("test", NOW).unwrap();
    let mut batch = writer.batch();
    let [one, other] = ["1", "2"].map(|text| put_image(&mut batch, "a", text));
    batch.add_meaning(&name("a"), &tag("pin"), TagMeaning::Pinned(one.clone())).unwrap();
    batch.commit().unwrap();
    assert_eq!(tag_record(&store, "a", "pin")["pinned"], true);
    // A store of layout 1 has no such field, and neither has what was pushed.
    assert_eq!(tag_record(&store, "a", "1").get("pinned"), None);
    assert_eq!(store.meaning(&name("a"), &tag("1")).unwrap(), Some(TagMeaning::Unpinned(one.clone())));

    let add = |of: &str, meaning| {
        let mut batch = writer.batch();
        batch.add_meaning(&name("a"), &tag(of), meaning).unwrap();
        batch.record(log_tests::import(1), &Author::default()).unwrap();
        batch.commit().unwrap();
        store.resolve(&name("a"), &tag(of)).unwrap()
    };
    assert_eq!(add("1", TagMeaning::Pinned(other.clone())), Some(one.clone()));
    assert_eq!(add("pin", TagMeaning::Pinned(one.clone())), Some(one));
    assert_eq!(add("pin", TagMeaning::Unpinned(other.clone())), Some(other));
    assert_eq!(tag_record(&store, "a", "pin").get("pinned"), None);
}

#[test]
fn disputed_tag_is_remembered_until_it_is_pushed() {
    let (_directory, store) = store();
    let writer = store.writer("test", NOW).unwrap();
    let mut batch = writer.batch();
    let [one, other] = ["1", "2"].map(|text| put_image(&mut batch, "a", text));
    batch.commit().unwrap();
    for pin in [&one, &other, &one] {
        let mut batch = writer.batch();
        batch.add_meaning(&name("a"), &tag("pin"), TagMeaning::Pinned(pin.clone())).unwrap();
        batch.record(log_tests::import(1), &Author::default()).unwrap();
        batch.commit().unwrap();
    }
    assert_eq!(store.meaning(&name("a"), &tag("pin")).unwrap(), Some(TagMeaning::Disputed));
    assert_eq!(store.resolve(&name("a"), &tag("pin")).unwrap(), None);
    assert_eq!(store.tags(&name("a"), None, 10).unwrap().unwrap(), [tag("1"), tag("2")]);
    assert_eq!(store.disputed_tags(&name("a")).unwrap(), [tag("pin")]);

    let mut batch = writer.batch();
    batch.set_tag(&name("a"), &tag("pin"), &other).unwrap();
    batch.commit().unwrap();
    assert_eq!(store.meaning(&name("a"), &tag("pin")).unwrap(), Some(TagMeaning::Unpinned(other)));
    assert_eq!(store.disputed_tags(&name("a")).unwrap(), []);
}

#[test]
fn one_writer_at_a_time_who_is_named() {
    let (_directory, store) = store();
    let other = Store::open(store.path()).unwrap();
    let writer = store.writer("dray import", NOW).unwrap();
    for taken in [&store, &other] {
        let error = taken.writer("dray prune", Duration::from_millis(50)).unwrap_err().to_string();
        assert!(error.contains(&format!("`dray import` (pid {})", std::process::id())), "{error}");
    }
    let waiting = std::thread::spawn(move || other.writer("dray prune", Duration::from_secs(20)).is_ok());
    drop(writer);
    assert!(waiting.join().unwrap());
    drop(store.writer("again", NOW).unwrap());
}

#[test]
fn only_stores_are_opened() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    assert!(matches!(Store::open(path), Err(StoreError::NotAStore(_))));
    assert!(matches!(Store::open(&path.join("missing")), Err(StoreError::NotAStore(_))));
    fs::write(path.join("photo.jpg"), b"").unwrap();
    assert!(matches!(Store::create(path), Err(StoreError::NotEmpty(_))));
    fs::remove_file(path.join("photo.jpg")).unwrap();
    Store::create(path).unwrap();
    Store::create(path).unwrap();
    fs::write(path.join("store.json"), br#"{"version":99}"#).unwrap();
    assert!(matches!(Store::open(path), Err(StoreError::Version { found: 99, .. })));
    fs::write(path.join("store.json"), b"{").unwrap();
    assert!(matches!(Store::open(path), Err(StoreError::Content(ContentError::Invalid { .. }))));
}

#[test]
fn a_scrub_finds_what_is_damaged_and_what_is_missing() {
    let (_directory, store) = store();
    let writer = store.writer("test", NOW).unwrap();
    let [good, bad, lost] = [b"good blob", b"bad  blob", b"lost blob"].map(|bytes| put_blob(&writer, bytes));
    let mut batch = writer.batch();
    for digest in [&good, &bad, &lost] {
        batch.link_blob(&name("a"), digest).unwrap();
    }
    put_image(&mut batch, "a", "1");
    batch.commit().unwrap();
    drop(writer);
    fs::write(store.layout().blob(&bad), b"evil blob").unwrap();
    fs::remove_file(store.layout().blob(&lost)).unwrap();
    let mut seen = 0;
    let scrubbed = store.scrub(NOW, &mut |_, _| seen += 1).unwrap();
    assert_eq!((scrubbed.blobs, seen), (3, 3));
    assert_eq!((&scrubbed.damaged[..], &scrubbed.missing[..]), (&[bad.clone()][..], &[lost][..]));
    assert!(!store.has_blob(&bad).unwrap(), "it can be written anew");
    assert!(store.blob(&name("a"), &good).unwrap().is_some());
    let again = store.scrub(NOW, &mut |_, _| {}).unwrap();
    assert_eq!((again.blobs, again.damaged.len(), again.missing.len()), (2, 0, 2));
}

#[test]
fn a_sweep_removes_only_what_nothing_refers_to() {
    let (_directory, store) = store();
    let writer = store.writer("test", NOW).unwrap();
    let config = put_blob(&writer, b"{}");
    let [unnamed, unowned] = [b"no manifest names it", b"no repository has it"].map(|b| put_blob(&writer, b));
    let mut batch = writer.batch();
    let image = put_image(&mut batch, "a", "1");
    let untagged = manifest("untagged");
    batch.put_manifest(&name("a"), &untagged.0.digest, media_type::OCI_MANIFEST, &untagged.1).unwrap();
    for digest in [&config, &unnamed] {
        batch.link_blob(&name("a"), digest).unwrap();
    }
    batch.commit().unwrap();

    let hour = Duration::from_hours(1);
    assert_eq!(writer.sweep(hour, false).unwrap(), Swept::default(), "all of it is young");
    std::thread::sleep(Duration::from_millis(20));
    let swept = writer.sweep(NOW, true).unwrap();
    assert_eq!(swept, Swept { blobs: 2, bytes: 40 });
    assert!(store.has_blob(&unnamed).unwrap(), "it was only a question");
    assert_eq!(writer.sweep(NOW, false).unwrap(), swept);
    assert!(!store.has_blob(&unnamed).unwrap() && !store.has_blob(&unowned).unwrap());
    assert!(store.blob(&name("a"), &unnamed).unwrap().is_none());
    assert!(store.blob(&name("a"), &config).unwrap().is_some());
    assert!(store.manifest(&name("a"), &image.digest).unwrap().is_some());
    assert!(store.manifest(&name("a"), &untagged.0.digest).unwrap().is_some());

    let mut batch = writer.batch();
    assert!(batch.delete_manifest(&name("a"), &image.digest).unwrap());
    batch.commit().unwrap();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(writer.sweep(NOW, false).unwrap().blobs, 1);
    assert!(!store.has_blob(&image.digest).unwrap());
}

/// Makes everything that is in the store, and every claim, look as if it were `age` old.
fn age(store: &Store, age: Duration) {
    let then = std::time::SystemTime::now() - age;
    let mut folders = vec![store.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                fs::OpenOptions::new().write(true).open(path).unwrap().file().set_modified(then).unwrap();
            }
        }
    }
}

#[test]
fn a_sweep_leaves_what_a_push_counts_on() {
    let (_directory, store) = store();
    let (day, hour) = (Duration::from_hours(24), Duration::from_hours(1));
    let writer = store.writer("test", NOW).unwrap();
    let blobs = [&b"claimed"[..], b"claimed long ago", b"claimed and then deleted", b"not claimed"];
    let [claimed, before, deleted, other] = blobs.map(|bytes| put_blob(&writer, bytes));
    let mut batch = writer.batch();
    for digest in [&claimed, &before, &deleted, &other] {
        batch.link_blob(&name("a"), digest).unwrap();
    }
    batch.commit().unwrap();
    assert!(store.claim_blob(&name("a"), &before).unwrap());
    age(&store, 2 * day);
    for digest in [&claimed, &deleted] {
        assert!(store.claim_blob(&name("a"), digest).unwrap());
    }
    assert!(!store.claim_blob(&name("b"), &claimed).unwrap(), "there it is not");
    let mut batch = writer.batch();
    assert!(batch.delete_blob(&name("a"), &deleted).unwrap());
    batch.commit().unwrap();
    assert!(!store.claim_blob(&name("a"), &deleted).unwrap());

    assert_eq!(writer.sweep(day, false).unwrap().blobs, 3);
    assert!(store.blob(&name("a"), &claimed).unwrap().is_some());
    for digest in [&before, &deleted, &other] {
        assert!(!store.has_blob(digest).unwrap(), "{digest}");
    }
    age(&store, hour);
    assert!(store.claim_blob(&name("a"), &claimed).unwrap());
    age(&store, 2 * day);
    assert_eq!(writer.sweep(day, false).unwrap().blobs, 1);
}

#[test]
fn a_claim_holds_when_it_comes_after_the_plan_and_when_the_manifest_goes() {
    let (_directory, store) = store();
    let day = Duration::from_hours(24);
    let writer = store.writer("test", NOW).unwrap();
    let config = put_blob(&writer, b"{}");
    let mut batch = writer.batch();
    let image = put_image(&mut batch, "a", "1");
    batch.link_blob(&name("a"), &config).unwrap();
    batch.commit().unwrap();
    age(&store, 2 * day);

    let gone = [(name("a"), [image.digest.clone()].into())].into();
    let plan = || {
        let mut batch = writer.batch();
        batch.delete_manifest(&name("a"), &image.digest).unwrap();
        batch.commit().unwrap();
        store.plan_sweep(&gone, day).unwrap()
    };
    assert_eq!(store.plan_sweep(&gone, day).unwrap().swept().blobs, 2);
    let sweep = plan();
    assert!(store.claim_blob(&name("a"), &config).unwrap());
    writer.finish_sweep(&sweep).unwrap();
    assert!(store.blob(&name("a"), &config).unwrap().is_some());
    assert!(!store.has_blob(&image.digest).unwrap());
    writer.finish_sweep(&plan()).unwrap();
    assert!(store.blob(&name("a"), &config).unwrap().is_some());
    age(&store, 2 * day);
    writer.finish_sweep(&plan()).unwrap();
    assert!(!store.has_blob(&config).unwrap());
}

#[test]
fn clocks_that_jump_lose_nothing() {
    let (_directory, store) = store();
    let writer = store.writer("test", NOW).unwrap();
    let blob = put_blob(&writer, b"from the future");
    let mut batch = writer.batch();
    let image = put_image(&mut batch, "a", "1");
    batch.link_blob(&name("a"), &blob).unwrap();
    batch.commit().unwrap();
    let (id, mut upload) = store.begin_upload(&name("a"), crate::oci::Algorithm::Sha256).unwrap();
    upload.append(b"half").unwrap();
    for back in [Duration::ZERO, Duration::from_hours(24 * 400)] {
        // As if the clock had been set back since.
        let ahead = std::time::SystemTime::now() + back;
        let file = store.layout().blob(&blob);
        fs::OpenOptions::new().write(true).open(file).unwrap().file().set_modified(ahead).unwrap();
        let data = store.layout().upload(&id).join("data");
        fs::OpenOptions::new().write(true).open(data).unwrap().file().set_modified(ahead).unwrap();
        assert_eq!(writer.sweep(Duration::from_hours(1), false).unwrap(), Swept::default());
        assert!(store.idle_uploads(Duration::from_hours(1)).unwrap().is_empty());
        assert!(store.blob(&name("a"), &blob).unwrap().is_some());
        assert_eq!(store.resolve(&name("a"), &tag("1")).unwrap(), Some(image.clone()));
    }
    assert_eq!(store.resume_upload(&id).unwrap().unwrap().size(), 4);
}
