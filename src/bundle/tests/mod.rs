//! Building, interrupting, reading, damaging and signing bundles of a small lock.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};

mod parity;
mod sweep;
mod volumes;

use super::*;
use crate::file::Inputs;
use crate::oci::Digest;
use crate::resolve::lock_tests::sample;
use crate::resolve::{Lock, LockedBlob};
use crate::trust::{Policy, PrivateKey, Signatures, TrustError};

const MANIFEST: &[u8] = b"the manifest";

/// Gives out blobs in pieces, and can be told to break off or to lie.
#[derive(Default)]
pub(crate) struct Source {
    blobs: HashMap<Digest, Vec<u8>>,
    /// Breaks off after so many bytes of a blob.
    breaks_after: Option<usize>,
    lies: bool,
    given: AtomicU64,
    offsets: Mutex<Vec<u64>>,
}

impl Source {
    pub(crate) fn of(blobs: &[&[u8]]) -> Self {
        let blobs = blobs.iter().map(|bytes| (Digest::sha256(bytes), bytes.to_vec())).collect();
        Self { blobs, ..Self::default() }
    }
}

impl BlobSource for Source {
    fn read<'a>(&'a self, blob: &'a LockedBlob, offset: u64) -> BoxStream<'a, Result<Bytes, SourceError>> {
        self.offsets.lock().unwrap().push(offset);
        let mut bytes = self.blobs[&blob.digest].clone();
        if self.lies {
            bytes[0] ^= 1;
        }
        let rest = bytes[usize::try_from(offset).unwrap()..].to_vec();
        let end = self.breaks_after.unwrap_or(usize::MAX).min(rest.len());
        let pieces = rest[..end].chunks(300_000).map(Bytes::copy_from_slice).map(Ok).collect::<Vec<_>>();
        self.given.fetch_add(end as u64, Ordering::Relaxed);
        let tail: Vec<Result<Bytes, SourceError>> =
            if end < rest.len() { vec![Err("the line is cut".into())] } else { Vec::new() };
        stream::iter(pieces.into_iter().chain(tail)).boxed()
    }
}

fn layer() -> Vec<u8> {
    (0..20_000_000u32).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

pub(crate) async fn build_at(
    output: &Path,
    lock: &Lock,
    source: &Source,
    keys: &[PrivateKey],
) -> Result<Built, BuildError> {
    build_in(output, lock, source, keys, None).await
}

async fn build_in(
    output: &Path,
    lock: &Lock,
    source: &Source,
    keys: &[PrivateKey],
    volume_size: Option<VolumeSize>,
) -> Result<Built, BuildError> {
    let options = BuildOptions {
        output,
        inputs: &Inputs::default(),
        mtime: 0,
        concurrency: 2,
        keys,
        volume_size,
        parity: None,
        progress: &|_| (),
    };
    build(lock, source, &options).await
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().build().unwrap().block_on(future)
}

#[test]
fn builds_the_same_bytes_twice_and_leaves_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let lock = sample(MANIFEST, &layer());
    let source = Source::of(&[MANIFEST, &layer()]);
    let key = [PrivateKey::generate()];
    let (a, b) = (dir.path().join("a.tar"), dir.path().join("b.tar"));
    let built = block_on(build_at(&a, &lock, &source, &key)).unwrap();
    block_on(build_at(&b, &lock, &source, &key)).unwrap();
    assert_eq!(std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
    assert_eq!(std::fs::metadata(&a).unwrap().len(), built.size);
    assert_eq!(names(dir.path()), ["a.tar", "b.tar"]);
    let bundle = Bundle::open(&a).unwrap();
    assert_eq!(bundle.lock(), &lock);
    assert_eq!(bundle.index(), &built.index);
    bundle.verify_blobs(2, &|_| ()).unwrap();
}

#[test]
fn an_interrupted_build_goes_on_in_the_middle_of_a_blob() {
    let dir = tempfile::tempdir().unwrap();
    let (output, lock) = (dir.path().join("a.tar"), sample(MANIFEST, &layer()));
    let mut source = Source { breaks_after: Some(17_000_000), ..Source::of(&[MANIFEST, &layer()]) };
    let error = block_on(build_at(&output, &lock, &source, &[])).unwrap_err();
    assert!(error.to_string().contains("the line is cut"), "{error}");
    assert_eq!(names(dir.path()), ["a.tar.partial", "a.tar.partial.journal"]);

    source.breaks_after = None;
    source.given.store(0, Ordering::Relaxed);
    let built = block_on(build_at(&output, &lock, &source, &[])).unwrap();
    assert!(built.continued >= 16_000_000, "{}", built.continued);
    assert!(source.given.load(Ordering::Relaxed) < 5_000_000);
    Bundle::open(&output).unwrap().verify_blobs(1, &|_| ()).unwrap();
}

#[test]
fn what_an_earlier_run_left_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let (output, lock) = (dir.path().join("a.tar"), sample(MANIFEST, &layer()));
    let mut source = Source { breaks_after: Some(17_000_000), ..Source::of(&[MANIFEST, &layer()]) };
    block_on(build_at(&output, &lock, &source, &[])).unwrap_err();
    // A loss of power: the journal is there, the data are not.
    let partial = dir.path().join("a.tar.partial");
    let len = std::fs::metadata(&partial).unwrap().len();
    std::fs::write(&partial, vec![0; usize::try_from(len).unwrap()]).unwrap();
    source.breaks_after = None;
    block_on(build_at(&output, &lock, &source, &[])).unwrap();
    Bundle::open(&output).unwrap().verify_blobs(1, &|_| ()).unwrap();
}

#[test]
fn the_rest_of_another_bundle_does_not_shine_through() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("a.tar");
    let other = vec![0xff; 50_000];
    let mut source = Source { breaks_after: Some(40_000), ..Source::of(&[MANIFEST, &other, b"small"]) };
    block_on(build_at(&output, &sample(MANIFEST, &other), &source, &[])).unwrap_err();
    source.breaks_after = None;
    block_on(build_at(&output, &sample(MANIFEST, b"small"), &source, &[])).unwrap();
    Bundle::open(&output).unwrap().verify_blobs(1, &|_| ()).unwrap();
}

#[test]
fn nor_does_rubbish_that_the_journal_says_is_this_bundle() {
    let dir = tempfile::tempdir().unwrap();
    let (output, lock) = (dir.path().join("a.tar"), sample(MANIFEST, b"layer"));
    let mut source = Source { breaks_after: Some(0), ..Source::of(&[MANIFEST, b"layer"]) };
    block_on(build_at(&output, &lock, &source, &[])).unwrap_err();
    // Killed after the journal had begun and before the rest of another bundle was cleared.
    std::fs::write(dir.path().join("a.tar.partial"), vec![0xff; 100_000]).unwrap();
    source.breaks_after = None;
    block_on(build_at(&output, &lock, &source, &[])).unwrap();
    Bundle::open(&output).unwrap().verify_blobs(1, &|_| ()).unwrap();
}

#[test]
fn an_upstream_that_lies_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (output, lock) = (dir.path().join("a.tar"), sample(MANIFEST, b"layer"));
    let source = Source { lies: true, ..Source::of(&[MANIFEST, b"layer"]) };
    let error = block_on(build_at(&output, &lock, &source, &[])).unwrap_err();
    assert!(matches!(error, BuildError::Digest { .. }), "{error}");
    assert!(!output.exists());
}

#[test]
fn only_one_builds_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let (output, lock) = (dir.path().join("a.tar"), sample(MANIFEST, b"layer"));
    let partial = std::fs::File::create(dir.path().join("a.tar.partial")).unwrap();
    partial.lock().unwrap();
    let source = Source::of(&[MANIFEST, b"layer"]);
    let error = block_on(build_at(&output, &lock, &source, &[])).unwrap_err();
    assert!(matches!(error, BuildError::Busy { .. }), "{error}");
}

/// A small signed bundle, and the key.
fn small_bundle(dir: &Path) -> (PathBuf, PrivateKey) {
    let key = PrivateKey::generate();
    let path = dir.join("small.tar");
    let source = Source::of(&[MANIFEST, &[7; 700]]);
    let keys = std::slice::from_ref(&key);
    block_on(build_at(&path, &sample(MANIFEST, &[7; 700]), &source, keys)).unwrap();
    (path, key)
}

fn sign_by(path: &Path, key: &PrivateKey) -> Result<Bundle, BuildError> {
    sign(path, &Inputs::default(), |claim| Signatures::create(std::slice::from_ref(key), claim))
}

fn verify(path: &Path, key: &PrivateKey) -> Result<(), BundleError> {
    let bundle = Bundle::open(path)?;
    bundle.check_signatures(&Policy::new(vec![key.public()], 1).unwrap())?;
    bundle.verify_blobs(1, &|_| ())
}

#[test]
fn damage_names_the_images_it_hits() {
    let dir = tempfile::tempdir().unwrap();
    let (path, key) = small_bundle(dir.path());
    let bundle = Bundle::open(&path).unwrap();
    let place = bundle.place(&Digest::sha256(MANIFEST)).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[usize::try_from(place.offset).unwrap()] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let message = verify(&path, &key).unwrap_err().to_string();
    assert!(message.contains("registry.k8s.io/pause:3.9"), "{message}");
    assert!(message.contains(&format!("at byte {}", place.offset)), "{message}");
}

#[test]
fn signing_again_adds_and_never_moves_the_head() {
    let dir = tempfile::tempdir().unwrap();
    let (path, alice) = small_bundle(dir.path());
    let bob = PrivateKey::generate();
    let before = std::fs::read(&path).unwrap();
    let bundle = sign_by(&path, &bob).unwrap();
    let two = Policy::new(vec![alice.public(), bob.public()], 2).unwrap();
    assert_eq!(bundle.check_signatures(&two).unwrap().len(), 2);
    let after = std::fs::read(&path).unwrap();
    assert_eq!(before[..2048], after[..2048]);
    assert_eq!(names(dir.path()), ["small.tar"]);
    verify(&path, &alice).unwrap();
}

#[test]
fn a_signing_that_was_killed_is_finished_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let (path, alice) = small_bundle(dir.path());
    let unsigned_twice = std::fs::read(&path).unwrap();
    let bob = PrivateKey::generate();
    sign_by(&path, &bob).unwrap();
    let signed = std::fs::read(&path).unwrap();
    let tail_at = Bundle::open(&path).unwrap().tail().entries[0].header;
    let new_tail = &signed[usize::try_from(tail_at).unwrap()..];
    let mut kept = [tail_at.to_be_bytes(), (new_tail.len() as u64).to_be_bytes()].concat();
    kept.extend_from_slice(new_tail);
    let digest = Digest::sha256(&kept).to_string();
    kept.extend_from_slice(digest.as_bytes());
    // Killed in the middle of the tail.
    let mut torn = signed[..signed.len() / 2].to_vec();
    torn.extend_from_slice(&unsigned_twice[torn.len()..]);
    std::fs::write(&path, &torn).unwrap();
    std::fs::write(dir.path().join("small.tar.tail"), &kept).unwrap();
    let bundle = sign_by(&path, &alice).unwrap();
    let two = Policy::new(vec![alice.public(), bob.public()], 2).unwrap();
    assert_eq!(bundle.check_signatures(&two).unwrap().len(), 2);
}

#[test]
fn what_lies_beside_a_whole_bundle_does_not_change_what_is_signed() {
    let dir = tempfile::tempdir().unwrap();
    let (path, alice) = small_bundle(dir.path());
    let before = Bundle::open(&path).unwrap().index().clone();
    let keep = |position: u64, tail: &[u8]| {
        let len = tail.len() as u64;
        let mut kept = [&position.to_be_bytes()[..], &len.to_be_bytes(), tail].concat();
        let digest = Digest::sha256(&kept).to_string();
        kept.extend_from_slice(digest.as_bytes());
        std::fs::write(dir.path().join("small.tar.tail"), kept).unwrap();
    };
    // Another whole bundle, to be written over this one.
    let other = dir.path().join("other.tar");
    let source = Source::of(&[MANIFEST, b"evil"]);
    block_on(build_at(&other, &sample(MANIFEST, b"evil"), &source, &[])).unwrap();
    keep(0, &std::fs::read(&other).unwrap());
    let bob = PrivateKey::generate();
    assert_eq!(sign_by(&path, &bob).unwrap().index(), &before);
    verify(&path, &alice).unwrap();
    verify(&path, &bob).unwrap();
    // Nor is a damaged bundle made as long as somebody likes.
    let mut torn = std::fs::read(&path).unwrap();
    torn.truncate(2000);
    std::fs::write(&path, &torn).unwrap();
    for position in [u64::MAX, 1 << 50] {
        keep(position, b"tail");
        assert!(sign_by(&path, &bob).is_err());
        assert!(std::fs::read(&path).unwrap() == torn);
    }
}

#[test]
fn who_signed_is_who_is_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = small_bundle(dir.path());
    let stranger = Policy::new(vec![PrivateKey::generate().public()], 1).unwrap();
    let error = Bundle::open(&path).unwrap().check_signatures(&stranger).unwrap_err();
    assert!(matches!(error, BundleError::Untrusted { source: TrustError::Untrusted { .. }, .. }));
    let unsigned = dir.path().join("unsigned.tar");
    let source = Source::of(&[MANIFEST, b"layer"]);
    block_on(build_at(&unsigned, &sample(MANIFEST, b"layer"), &source, &[])).unwrap();
    let error = Bundle::open(&unsigned).unwrap().check_signatures(&stranger).unwrap_err();
    assert!(matches!(error, BundleError::Untrusted { source: TrustError::Unsigned, .. }));
}
