//! Releases that come and go: images, their evidence, plain files, and the bundles themselves.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::bundle::tests::{Source, block_on, build_at};
use crate::bundle::{Bundle, ImportOptions, import};
use crate::oci::{Descriptor, media_type};
use crate::resolve::lock_tests::sample;
use crate::resolve::{Evidence, Lock, LockedBlob, LockedFile, LockedRelease, NeededBy};
use crate::store::{HostedFile, Usage};
use crate::trust::PrivateKey;

const OLD: &str = "k0s@v1.35.4+k0s.0";
const NEW: &str = "k0s@v1.36.3+k0s.2";

struct Site {
    dir: tempfile::TempDir,
    store: Store,
    writer: Writer,
}

fn on_node() -> Reason {
    Reason::Node { node: "w1".into() }
}

fn pause_of(release: &str) -> NeededBy {
    NeededBy::Component { component: "pause".into(), release: release.parse().unwrap() }
}

/// A bundle in the making: one image, `pause`, with a signature.
struct Parts {
    lock: Lock,
    contents: Vec<Vec<u8>>,
}

impl Parts {
    fn new(sequence: u64, release: &str, tag: &str) -> Self {
        let layer = tag.as_bytes().to_vec();
        let manifest = document(&layer);
        let mut lock = sample(&manifest, &layer);
        lock.sequence = sequence;
        lock.releases = vec![LockedRelease { release: release.into(), with: Vec::new(), programs: None }];
        let image = &mut lock.images[0];
        image.reference = format!("registry.k8s.io/pause:{tag}").parse().unwrap();
        image.needed_by = vec![pause_of(release)];
        let mut parts = Self { lock, contents: vec![manifest, layer] };
        let subject = parts.lock.images[0].root.digest.clone();
        parts.evidence(&subject, tag);
        parts
    }

    /// Adds a signature of `subject`, found by cosign's tag.
    fn evidence(&mut self, subject: &Digest, tag: &str) {
        let name = self.lock.images[0].reference.name().clone();
        let signature = format!("signature of {tag}").into_bytes();
        let manifest = document(&signature);
        for (bytes, is_manifest) in [(&signature, false), (&manifest, true)] {
            self.blob(bytes, Some(name.clone()), is_manifest);
        }
        self.lock.images[0].evidence = vec![Evidence {
            digest: Digest::sha256(&manifest),
            tag: Some(format!("sha256-{}.sig", subject.hex()).parse().unwrap()),
            size: manifest.len() as u64,
            media_type: media_type::OCI_MANIFEST.to_owned(),
            blobs: vec![Digest::sha256(&signature)],
        }];
        self.contents.extend([signature, manifest]);
    }

    fn file(mut self, url: &str) -> Self {
        let bytes = format!("the file {url}").into_bytes();
        let (url, size) = (url.to_owned(), bytes.len() as u64);
        self.lock.files.push(LockedFile { url, digest: Digest::sha256(&bytes), size });
        self.blob(&bytes, None, false);
        self.contents.push(bytes);
        self
    }

    fn blob(&mut self, bytes: &[u8], from: Option<RepositoryName>, manifest: bool) {
        let (digest, size) = (Digest::sha256(bytes), bytes.len() as u64);
        self.lock.blobs.push(LockedBlob { digest, size, from, manifest, urls: Vec::new() });
        self.lock.blobs.sort_by(|a, b| a.digest.cmp(&b.digest));
    }
}

/// An image whose configuration is `config`.
fn document(config: &[u8]) -> Vec<u8> {
    json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": Descriptor::of(media_type::OCI_CONFIG, config),
        "layers": [],
    })
    .to_string()
    .into_bytes()
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(&dir.path().join("store")).unwrap();
        let writer = store.writer("test", Duration::ZERO).unwrap();
        Self { dir, store, writer }
    }

    /// Builds and imports a bundle, signed.
    fn bring(self, parts: &Parts) -> Self {
        let Self { dir, store, writer } = self;
        drop(writer);
        let path = dir.path().join(format!("{}.tar", parts.lock.sequence));
        let contents: Vec<&[u8]> = parts.contents.iter().map(Vec::as_slice).collect();
        let key = [PrivateKey::generate()];
        block_on(build_at(&path, &parts.lock, &Source::of(&contents), &key)).unwrap();
        let options = ImportOptions { allow_rollback: true, ..ImportOptions::default() };
        import(&Bundle::open(&path).unwrap(), &store, &options).unwrap();
        let writer = store.writer("test", Duration::ZERO).unwrap();
        Self { dir, store, writer }
    }

    fn plan(&self, releases: &[&str], on_nodes: &[&str]) -> Result<Retention, RetainError> {
        let keep = Keep {
            releases: releases.iter().map(ToString::to_string).collect(),
            in_use: on_nodes.iter().map(|name| (name.parse().unwrap(), [on_node()].into())).collect(),
            grace: Duration::from_hours(1),
        };
        plan_retention(&self.store, &keep)
    }

    /// Lets go of everything but `releases`, and compares with what was announced.
    fn prune(&self, releases: &[&str]) -> Retention {
        let retention = self.plan(releases, &[]).unwrap();
        let before = self.store.usage().unwrap();
        assert!(let_go(&self.writer, &retention, &Keep::default(), &Author::default()).unwrap());
        let Usage { blobs, bytes } = self.store.usage().unwrap();
        let swept = Swept { blobs: before.blobs - blobs, bytes: before.bytes - bytes };
        assert_eq!(retention.swept(), swept);
        retention
    }

    fn tags(&self, name: &str) -> Vec<String> {
        let tags = self.store.tags(&name.parse().unwrap(), None, 100).unwrap().unwrap_or_default();
        tags.iter().map(ToString::to_string).collect()
    }

    fn file(&self, path: &str) -> Vec<HostedFile> {
        self.store.files(path).unwrap()
    }
}

#[test]
fn a_release_goes_with_its_evidence() {
    let site = Site::new().bring(&Parts::new(1, OLD, "3.9")).bring(&Parts::new(2, NEW, "3.10"));
    let unknown = site.plan(&["k0s@v1.99.0+k0s.0"], &[]).unwrap_err().to_string();
    assert!(unknown.contains(&format!("{OLD}, {NEW}")), "{unknown}");

    let name: RepositoryName = "registry.k8s.io/pause".parse().unwrap();
    let root = site.store.resolve(&name, &"3.9".parse().unwrap()).unwrap().unwrap();
    // A node that has it keeps it: under its name, at a mirror, and by digest.
    for on_node in
        ["registry.k8s.io/pause:3.9", "site:5000/pause:3.9", &format!("site:5000/x@{}", root.digest)]
    {
        let retention = site.plan(&[NEW], &[on_node]).unwrap();
        assert_eq!(retention.removed, BTreeSet::new(), "{on_node}");
        let pause: Reference = "registry.k8s.io/pause:3.9".parse().unwrap();
        assert_eq!(retention.kept[&pause], [self::on_node()].into(), "{on_node}");
        assert_eq!(retention.tags, BTreeSet::new(), "{on_node}");
    }
    // So does a tag that did not come with the release.
    let mut batch = site.writer.batch();
    batch.set_tag(&name, &"ours".parse().unwrap(), &root).unwrap();
    batch.commit().unwrap();
    let untagged = site.plan(&[NEW], &[]).unwrap();
    assert!(untagged.removed.is_empty());
    assert_eq!(untagged.untagged, ["registry.k8s.io/pause:3.9".parse().unwrap()].into(), "its own tag goes");
    assert!(untagged.tags().contains("registry.k8s.io/pause:3.9"));
    assert!(!untagged.kept.contains_key(untagged.untagged.first().unwrap()));
    let mut batch = site.writer.batch();
    batch.delete_tag(&name, &"ours".parse().unwrap()).unwrap();
    batch.commit().unwrap();

    let retention = site.prune(&[NEW]);
    assert_eq!(retention.removed, ["registry.k8s.io/pause:3.9".parse().unwrap()].into());
    assert_eq!(retention.losing.keys().collect::<Vec<_>>(), [OLD]);
    assert_eq!(retention.kept.len(), 1);
    let left = site.tags("registry.k8s.io/pause");
    assert_eq!(left.len(), 2, "3.10 and its signature: {left:?}");
    assert_eq!(site.tags("bundles.dray.dev/plant-7").len(), 2, "the second bundle and its signature");
    assert!(site.plan(&[NEW], &[]).unwrap().removed.is_empty());
    assert!(site.store.imports().unwrap().len() == 2, "what was imported stays on record");
}

#[test]
fn what_went_is_not_known_any_more_and_can_come_back() {
    let site = Site::new().bring(&Parts::new(1, OLD, "3.9")).bring(&Parts::new(2, NEW, "3.10"));
    site.prune(&[NEW]);
    let gone = site.plan(&[NEW, OLD], &[]).unwrap_err().to_string();
    assert!(gone.contains(OLD) && gone.ends_with(NEW), "{gone}");
    let site = site.bring(&Parts::new(1, OLD, "3.9"));
    assert!(site.plan(&[NEW, OLD], &[]).unwrap().removed.is_empty());
    assert_eq!(site.prune(&[OLD]).removed, ["registry.k8s.io/pause:3.10".parse().unwrap()].into());
}

#[test]
fn both_releases_of_one_bundle() {
    let mut both = Parts::new(1, OLD, "3.9");
    both.lock.releases.push(LockedRelease { release: NEW.into(), with: Vec::new(), programs: None });
    both.lock.images[0].needed_by.push(pause_of(NEW));
    let both = both
        .file("https://example.org/v1.35.4%2Bk0s.0/k0s")
        .file("https://example.org/v1.36.3%2Bk0s.2/k0s")
        .file("https://example.org/csi-proxy.exe");
    let site = Site::new().bring(&both);
    let retention = site.prune(&[NEW]);
    assert_eq!(retention.removed, BTreeSet::new(), "both need it");
    assert_eq!(retention.files, ["https://example.org/v1.35.4%2Bk0s.0/k0s".to_owned()].into());
    assert!(site.file("v1.35.4+k0s.0/k0s").is_empty());
    let stays = site.file("v1.36.3+k0s.2/k0s").pop().unwrap();
    assert!(site.store.blob(&stays.repository, &stays.digest).unwrap().is_some());
    assert_eq!(site.file("csi-proxy.exe").len(), 1, "it belongs to both");
}

#[test]
fn files_go_with_the_last_bundle_that_lists_them() {
    let shared = "https://example.org/csi-proxy.exe";
    let old = Parts::new(1, OLD, "3.9").file(shared).file("https://example.org/old.exe");
    let new = Parts::new(2, NEW, "3.10").file(shared);
    let site = Site::new().bring(&old).bring(&new);
    let retention = site.prune(&[NEW]);
    assert_eq!(retention.files, ["https://example.org/old.exe".to_owned()].into());
    assert!(site.file("old.exe").is_empty());
    let stays = site.file("csi-proxy.exe").pop().unwrap();
    assert!(site.store.blob(&stays.repository, &stays.digest).unwrap().is_some());
    assert!(site.plan(&[NEW], &[]).unwrap().files.is_empty());
}

#[test]
fn disputed_tag_follows_the_pins_that_stay() {
    let pin = |sequence, release, content: &str| {
        let mut parts = Parts::new(sequence, release, content);
        let image = &mut parts.lock.images[0];
        let (name, digest) = (image.reference.name().clone(), image.root.digest.clone());
        image.reference = Reference::new(name, "both".parse().ok(), Some(digest));
        parts
    };
    let (name, tag): (RepositoryName, Tag) =
        ("registry.k8s.io/pause".parse().unwrap(), "both".parse().unwrap());
    let (old, new) = (pin(1, OLD, "3.9"), pin(2, NEW, "3.10"));
    let site = Site::new().bring(&old).bring(&new);
    assert_eq!(site.store.meaning(&name, &tag).unwrap(), Some(TagMeaning::Disputed));
    site.prune(&[NEW]);
    let stays = new.lock.images[0].root.descriptor();
    assert_eq!(site.store.meaning(&name, &tag).unwrap(), Some(TagMeaning::Pinned(stays)));
    site.prune(&[]);
    assert_eq!(site.store.meaning(&name, &tag).unwrap(), None);
}

#[test]
fn tag_goes_with_the_unpinned_reference() {
    let mut pinned = Parts::new(2, NEW, "3.10");
    let image = &mut pinned.lock.images[0];
    image.reference =
        Reference::new(image.reference.name().clone(), "3.9".parse().ok(), Some(image.root.digest.clone()));
    let site = Site::new().bring(&Parts::new(1, OLD, "3.9")).bring(&pinned);
    site.prune(&[NEW]);
    let (name, tag): (RepositoryName, Tag) =
        ("registry.k8s.io/pause".parse().unwrap(), "3.9".parse().unwrap());
    assert_eq!(site.store.meaning(&name, &tag).unwrap(), None, "a pin has never set it");
    assert!(site.store.manifest(&name, &pinned.lock.images[0].root.digest).unwrap().is_some());
}

#[test]
fn a_release_of_which_a_part_is_left_is_kept_with_a_warning() {
    let mut old = Parts::new(1, OLD, "3.9");
    let more = Parts::new(1, OLD, "3.8");
    let known: BTreeSet<Digest> = old.lock.blobs.iter().map(|blob| blob.digest.clone()).collect();
    old.lock.blobs.extend(more.lock.blobs.into_iter().filter(|blob| !known.contains(&blob.digest)));
    old.lock.blobs.sort_by(|a, b| a.digest.cmp(&b.digest));
    old.lock.images.splice(0..0, more.lock.images);
    old.contents.extend(more.contents);
    let site = Site::new().bring(&old).bring(&Parts::new(2, NEW, "3.10"));
    let held = "registry.k8s.io/pause:3.8";
    let retention = site.plan(&[NEW], &[held]).unwrap();
    let_go(&site.writer, &retention, &Keep::default(), &Author::default()).unwrap();
    let partial = site.plan(&[NEW, OLD], &[]).unwrap().partial;
    assert_eq!(partial[OLD], ["registry.k8s.io/pause:3.9".parse().unwrap()].into());
}
