//! Targets that read bundles: whatever is accepted is exactly what its lock makes it, what tar sees as well, and nothing
//! but the sample passes under the key of the sample.

use std::io::Write as _;
use std::path::Path;
use std::sync::OnceLock;

use dray::bundle::{Bundle, Plan, ServedBundles, Tail};
use dray::oci::Digest;
use dray::resolve::Lock;
use dray::trust::Policy;

use super::archive::{Archive, BLOCK, fix_checksum};
use super::sample::{self, Sample};

/// What the signed sample is, and who is trusted.
pub(super) struct Signed {
    pub(super) index: Digest,
    pub(super) bytes: Vec<u8>,
    unsigned: Archive,
    policy: Policy,
}

pub(super) fn signed() -> &'static Signed {
    static SIGNED: OnceLock<Signed> = OnceLock::new();
    SIGNED.get_or_init(|| {
        let (sample, key) = (Sample::new(), sample::key());
        let policy = Policy::new(vec![key.public()], 1).expect("one key for one signature");
        let bytes = sample.signed_by(&[key]).to_bytes();
        let index =
            with_file(&bytes, |path| Bundle::open(path).expect("the sample is good").index().digest.clone());
        Signed { index, bytes, unsigned: sample.archive(None), policy }
    })
}

/// Gives `run` a file that holds `bytes`. Bundles are read at positions, by several threads: they are files.
pub(super) fn with_file<T>(bytes: &[u8], run: impl FnOnce(&Path) -> T) -> T {
    let mut file = tempfile::NamedTempFile::new().expect("there is room for temporary files");
    file.write_all(bytes).expect("there is room for temporary files");
    run(file.path())
}

/// Opens `bytes` as a bundle, checks what may be concluded from that having worked, and gives the digest of its index.
pub(super) fn open(bytes: &[u8]) -> Option<Digest> {
    with_file(bytes, |path| {
        let bundle = match Bundle::open(path) {
            Ok(bundle) => bundle,
            Err(error) => {
                // What is wrong is always the content, never the system that reads it.
                assert!(error.is_verification(), "{error}");
                return None;
            }
        };
        same_as_tar(&bundle, bytes);
        check_against(&bundle, bytes);
        let index = bundle.index().digest.clone();
        // Reads every manifest; what is not one is refused.
        let _ = ServedBundles::new(vec![bundle]);
        Some(index)
    })
}

/// Checks that `bundle`, whose bytes are `bytes`, is what its lock makes it, and that nothing but the sample is signed.
pub(super) fn check_against(bundle: &Bundle, bytes: &[u8]) {
    assert_eq!(bundle.len(), bytes.len() as u64);
    let plan = Plan::new(bundle.lock(), bundle.mtime()).expect("it was laid out already");
    let tail = Tail::new(bundle.lock(), &plan, bundle.signatures());
    assert!(bytes.ends_with(&tail.bytes));
    let signed = signed();
    if bundle.check_signatures(&signed.policy).is_ok() {
        assert_eq!(bundle.index().digest, signed.index, "something else is signed");
        if bundle.verify_blobs(1, &|_| ()).is_ok() && bundle.mtime() == 0 {
            let head = usize::try_from(plan.tail).expect("a few kilobytes");
            assert!(bytes[..head] == signed.bytes[..head]);
        }
    }
}

/// tar sees the same entries, as regular files, in the same places.
fn same_as_tar(bundle: &Bundle, bytes: &[u8]) {
    let head = bundle.lock().blobs.iter().map(|blob| {
        let place = bundle.place(&blob.digest).expect("every blob of the lock has a place");
        let path = format!("blobs/{}/{}", blob.digest.algorithm().name(), blob.digest.hex());
        (path, place.offset, place.size)
    });
    let tail = bundle.tail().entries.iter().map(|entry| (entry.path.clone(), entry.offset, entry.size));
    assert_eq!(entries_of_tar(bytes), head.chain(tail).collect::<Vec<_>>());
}

/// Path, offset and size of every entry, as the `tar` crate reads them.
fn entries_of_tar(bytes: &[u8]) -> Vec<(String, u64, u64)> {
    let mut archive = ::tar::Archive::new(bytes);
    let entries = archive.entries().expect("it is at its beginning");
    let one = |entry: std::io::Result<::tar::Entry<'_, &[u8]>>| {
        let entry = entry.expect("tar reads what we accept");
        assert!(entry.header().entry_type().is_file());
        assert!(entry.link_name_bytes().is_none_or(|link| link.is_empty()));
        let path = String::from_utf8(entry.path_bytes().into_owned()).expect("we accept ASCII");
        (path, entry.raw_file_position(), entry.size())
    };
    entries.map(one).collect()
}

/// A file that may be a bundle, as it is and once more with every checksum set right.
pub fn archive(data: &[u8]) {
    open(data);
    let mut archive = Archive::parse(data);
    for part in &mut archive.parts {
        for block in part.header.chunks_exact_mut(BLOCK).step_by(2) {
            fix_checksum(block);
        }
    }
    let sealed = archive.to_bytes();
    if sealed != data {
        open(&sealed);
    }
}

/// A document of the tail that is something else, while everything that names it says so. The first byte tells which one.
pub fn index(data: &[u8]) {
    let Some((which, document)) = data.split_first() else { return };
    let mut archive = match which & 0x80 {
        0 => signed().unsigned.clone(),
        _ => Archive::parse(&signed().bytes),
    };
    let head = Sample::new().lock.blobs.len();
    let tail = archive.parts.len() - head;
    archive.replace(head + usize::from(which & 0x7f) % tail, document.to_vec());
    open(&archive.to_bytes());
}

/// The documents of the tail as inputs of [`index`].
pub fn index_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (flag, archive) in [(0, signed().unsigned.clone()), (0x80, Archive::parse(&signed().bytes))] {
        let head = Sample::new().lock.blobs.len();
        for (nth, part) in archive.parts[head..].iter().enumerate() {
            let which = flag | u8::try_from(nth).expect("about twenty documents");
            seeds.push([&[which][..], &part.content].concat());
        }
    }
    seeds
}

/// A lock that is accepted is written as the same lock, can be laid out or is refused, and every file in it has an address.
pub fn lock(data: &[u8]) {
    let Ok(lock) = Lock::from_json(data) else { return };
    let json = lock.to_json();
    let again = Lock::from_json(&json).expect("what is written is read");
    assert_eq!(again, lock);
    assert_eq!(again.to_json(), json);
    assert!(lock.files.iter().all(|file| file.address().is_some()));
    let total = lock.total_bytes().checked_add(lock.required_bytes()).expect("sizes do not overflow");
    let delta = lock.clone().without(|digest| digest.hex().as_bytes()[0] & 1 == 0);
    assert_eq!(delta.total_bytes() + delta.required_bytes(), total);
    Lock::from_json(&delta.to_json()).expect("a delta is a lock");
    if let Ok(plan) = Plan::new(&lock, 0) {
        let tail = Tail::new(&lock, &plan, None);
        assert_eq!(tail.bytes.len() % BLOCK, 0);
        assert!(plan.tail >= lock.total_bytes());
    }
}

/// Headers that we accept mean the same to tar: the same names, sizes and places.
pub fn tar(data: &[u8]) {
    let mut ours = Vec::new();
    let mut at = 0;
    while let Ok(Some((path, size, len))) = dray::bundle::fuzzing::tar_header(&data[at..]) {
        let offset = at as u64 + len;
        let end = size.checked_next_multiple_of(BLOCK as u64).and_then(|size| offset.checked_add(size));
        let Some(end) = end.and_then(|end| usize::try_from(end).ok()).filter(|end| *end <= data.len()) else {
            break;
        };
        ours.push((path, offset, size));
        at = end;
    }
    let mut accepted = data[..at].to_vec();
    accepted.resize(at + 2 * BLOCK, 0);
    assert_eq!(entries_of_tar(&accepted), ours);
}

/// The bytes of the signed sample.
pub fn sample_bytes() -> Vec<u8> {
    signed().bytes.clone()
}
