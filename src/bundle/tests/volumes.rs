//! Bundles in volumes: built, interrupted, joined, damaged, mixed up and signed.

use super::*;
use crate::bundle::volume::TailPlace;
use crate::oci::Hasher;
use crate::store::Blob;

pub(super) const IMAGE: &str = "registry.k8s.io/pause:3.9";

/// Bytes that do not repeat.
pub(super) fn noise(len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < len {
        let mut hasher = Hasher::new(crate::oci::Algorithm::Sha256);
        hasher.update(&(bytes.len() as u64).to_be_bytes());
        bytes.extend_from_slice(hasher.finish().hex().as_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// What volumes may be as large as.
pub(super) const SIZE: u64 = 120_000;

/// A bundle in three volumes, signed.
pub(super) struct Volumes {
    dir: tempfile::TempDir,
    lock: Lock,
    source: Source,
    key: PrivateKey,
    pub(super) paths: Vec<PathBuf>,
}

impl Volumes {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layer = noise(250_000);
        let (lock, source, key) =
            (sample(MANIFEST, &layer), Source::of(&[MANIFEST, &layer]), PrivateKey::generate());
        let built = build_into(&dir.path().join("a.tar"), &lock, &source, &key).unwrap();
        assert_eq!(names(dir.path()), ["a.1of3.tar", "a.2of3.tar", "a.3of3.tar"]);
        Self { dir, lock, source, key, paths: built.paths }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn verify(&self) -> Result<(), BundleError> {
        verify_all(&self.paths, &self.key)
    }
}

fn build_into(output: &Path, lock: &Lock, source: &Source, key: &PrivateKey) -> Result<Built, BuildError> {
    block_on(build_in(output, lock, source, std::slice::from_ref(key), Some(VolumeSize::from_bytes(SIZE))))
}

fn verify_all(paths: &[PathBuf], key: &PrivateKey) -> Result<(), BundleError> {
    let media = Media::open_all(paths)?;
    assert_eq!(media.len(), 1);
    for media in media {
        let bundle = Bundle::open_damaged(media)?;
        bundle.check_signatures(&Policy::new(vec![key.public()], 1).unwrap())?;
        bundle.verify_blobs(1, &|_| ())?;
    }
    Ok(())
}

#[test]
fn volumes_hold_what_the_bundle_would_and_are_no_larger_than_asked() {
    let volumes = Volumes::new();
    let whole = volumes.path("whole.tar");
    let key = std::slice::from_ref(&volumes.key);
    block_on(build_at(&whole, &volumes.lock, &volumes.source, key)).unwrap();
    let mut joined = Vec::new();
    for path in &volumes.paths {
        let bytes = std::fs::read(path).unwrap();
        assert!(bytes.len() as u64 <= SIZE, "{}", bytes.len());
        let mut archive = ::tar::Archive::new(&bytes[..]);
        let mut entry = archive.entries().unwrap().nth(2).unwrap().unwrap();
        std::io::Read::read_to_end(&mut entry, &mut joined).unwrap();
    }
    assert!(joined == std::fs::read(&whole).unwrap());
    // Volumes on a disk of their own are as reproducible as the bundle.
    let again = tempfile::tempdir().unwrap();
    let built =
        build_into(&again.path().join("a.tar"), &volumes.lock, &volumes.source, &volumes.key).unwrap();
    for (one, other) in volumes.paths.iter().zip(&built.paths) {
        assert!(std::fs::read(one).unwrap() == std::fs::read(other).unwrap());
    }
}

#[test]
fn any_order_one_for_all_the_directory_and_the_name_of_the_build() {
    let volumes = Volumes::new();
    let mut turned = volumes.paths.clone();
    turned.reverse();
    verify_all(&turned, &volumes.key).unwrap();
    for path in volumes.paths.iter().chain([&volumes.path(""), &volumes.path("a.tar")]) {
        verify_all(std::slice::from_ref(path), &volumes.key).unwrap();
    }
    // Where they are called something else all must be named.
    let renamed: Vec<PathBuf> = ["x", "y", "z"].map(|name| volumes.path(name)).to_vec();
    for (from, to) in volumes.paths.iter().zip(&renamed) {
        std::fs::rename(from, to).unwrap();
    }
    verify_all(&renamed, &volumes.key).unwrap();
    let missing = verify_all(&renamed[..2], &volumes.key).unwrap_err().to_string();
    assert!(missing.contains("volume 3 of 3 of plant-7 1 is missing"), "{missing}");
}

#[test]
fn a_missing_volume_is_named_with_the_images_that_it_hits() {
    let volumes = Volumes::new();
    let aside = volumes.path("aside");
    for (nth, path) in volumes.paths.iter().enumerate() {
        std::fs::rename(path, &aside).unwrap();
        let others: Vec<PathBuf> = volumes.paths.iter().filter(|other| *other != path).cloned().collect();
        let error = Bundle::open(&others[0]).unwrap_err();
        assert!(matches!(error, BundleError::Incomplete { .. }) && !error.is_verification(), "{error}");
        let expected = format!("volume {} of 3 of plant-7 1 is missing: {}", nth + 1, path.display());
        assert!(error.to_string().contains(&expected), "{error}");
        if nth < 2 {
            let bundle = Bundle::open_damaged(Media::open(&others[0]).unwrap()).unwrap();
            assert_eq!(bundle.images_in_absent(), [IMAGE.parse().unwrap()]);
            let damage = bundle.verify_blobs(1, &|_| ()).unwrap_err().to_string();
            assert!(damage.contains("which is missing, and hits registry.k8s.io/pause:3.9"), "{damage}");
        }
        std::fs::rename(&aside, path).unwrap();
    }
    volumes.verify().unwrap();
}

#[test]
fn a_foreign_volume_is_named_and_so_is_one_that_comes_twice() {
    let volumes = Volumes::new();
    let other = Volumes::new();
    let mut lock = other.lock.clone();
    lock.sequence = 2;
    build_into(&other.path("a.tar"), &lock, &other.source, &other.key).unwrap();
    std::fs::copy(&other.paths[1], &volumes.paths[1]).unwrap();
    let error = Bundle::open(&volumes.paths[0]).unwrap_err().to_string();
    assert!(error.contains("a.2of3.tar is another bundle's, volume 2 of 3 of plant-7 2"), "{error}");

    let copy = other.path("copy");
    std::fs::copy(&other.paths[0], &copy).unwrap();
    let twice = Media::open_all(&[other.paths[0].clone(), copy.clone()]).unwrap_err();
    assert!(twice.to_string().contains("both volume 1"), "{twice}");
    // A directory may hold copies.
    assert_eq!(Media::open_all(&[other.path("")]).unwrap().len(), 1);
    let several = Media::open(&volumes.path("")).unwrap_err();
    assert!(matches!(several, BundleError::Several { count: 2, .. }), "{several}");
}

#[test]
fn an_interrupted_build_goes_on_and_one_that_was_naming_its_files_too() {
    let dir = tempfile::tempdir().unwrap();
    let (output, layer) = (dir.path().join("a.tar"), noise(250_000));
    let (lock, key) = (sample(MANIFEST, &layer), PrivateKey::generate());
    let mut source = Source { breaks_after: Some(200_000), ..Source::of(&[MANIFEST, &layer]) };
    build_into(&output, &lock, &source, &key).unwrap_err();
    assert_eq!(
        names(dir.path()),
        [
            "a.1of3.tar.partial",
            "a.2of3.tar.partial",
            "a.3of3.tar.partial",
            "a.tar.partial",
            "a.tar.partial.journal"
        ]
    );
    source.breaks_after = None;
    let built = build_into(&output, &lock, &source, &key).unwrap();
    verify_all(&built.paths, &key).unwrap();
    let good: Vec<Vec<u8>> = built.paths.iter().map(|path| std::fs::read(path).unwrap()).collect();

    // Killed when the first had its name and the others had not.
    let journal = dir.path().join("a.tar.partial.journal");
    for path in &built.paths[1..] {
        std::fs::rename(path, format!("{}.partial", path.display())).unwrap();
    }
    let set = Volume::open(&built.paths[0]).unwrap().header().set.id.clone();
    let identity = format!("dray-journal 1 {} 0 {set}", Digest::sha256(&lock.to_json()));
    let all = lock.blobs.iter().enumerate().map(|(nth, blob)| format!("{nth} {}", blob.size));
    let blobs = all.collect::<Vec<_>>().join("\n");
    std::fs::write(&journal, format!("{identity}\n{blobs}\nnaming\n")).unwrap();
    source.given.store(0, Ordering::Relaxed);
    let built = build_into(&output, &lock, &source, &key).unwrap();
    assert_eq!(source.given.load(Ordering::Relaxed), 0, "nothing is fetched again");
    assert_eq!(built.continued, lock.total_bytes());
    assert_eq!(names(dir.path()), ["a.1of3.tar", "a.2of3.tar", "a.3of3.tar"]);
    assert!(built.paths.iter().zip(&good).all(|(path, good)| std::fs::read(path).unwrap() == *good));
}

#[test]
fn only_one_builds_volumes_at_a_time_and_older_ones_stay_until_the_end() {
    let volumes = Volumes::new();
    let output = volumes.path("a.tar");
    let busy = std::fs::File::create(volumes.path("a.tar.partial")).unwrap();
    busy.lock().unwrap();
    let error = build_into(&output, &volumes.lock, &volumes.source, &volumes.key).unwrap_err();
    assert!(matches!(error, BuildError::Busy { .. }), "{error}");
    drop(busy);
    let mut lock = volumes.lock.clone();
    lock.sequence = 2;
    let cut = Source { breaks_after: Some(1000), ..Source::of(&[MANIFEST, &noise(250_000)]) };
    build_into(&output, &lock, &cut, &volumes.key).unwrap_err();
    volumes.verify().unwrap();
    let built = build_into(&output, &lock, &volumes.source, &volumes.key).unwrap();
    verify_all(&built.paths, &volumes.key).unwrap();
    assert_eq!(names(volumes.dir.path()), ["a.1of3.tar", "a.2of3.tar", "a.3of3.tar"]);
}

#[test]
fn signing_changes_the_last_volume_only() {
    let volumes = Volumes::new();
    let before: Vec<Vec<u8>> = volumes.paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
    let bob = PrivateKey::generate();
    let bundle = sign_by(&volumes.paths[0], &bob).unwrap();
    let two = Policy::new(vec![volumes.key.public(), bob.public()], 2).unwrap();
    assert_eq!(bundle.check_signatures(&two).unwrap().len(), 2);
    for (path, before) in volumes.paths[..2].iter().zip(&before) {
        assert!(std::fs::read(path).unwrap() == *before);
    }
    assert!(std::fs::metadata(&volumes.paths[2]).unwrap().len() < SIZE, "there is room for signatures");
    assert_eq!(names(volumes.dir.path()), ["a.1of3.tar", "a.2of3.tar", "a.3of3.tar"]);
    volumes.verify().unwrap();
}

#[test]
fn the_tail_lies_where_the_last_volume_says() {
    let volumes = Volumes::new();
    let path = &volumes.paths[2];
    let header = Volume::open(path).unwrap().header().clone();
    let place = header.tail.clone().unwrap();
    // One block less of the head, and all digests are right.
    let good = std::fs::read(path).unwrap();
    let part = usize::try_from(header.prefix_len()).unwrap();
    let mut lie = header.clone();
    lie.blocks.pop();
    let offset = lie.offset + lie.block_size * lie.blocks.len() as u64;
    let from = part + usize::try_from(offset - lie.offset).unwrap();
    let end = part + usize::try_from(lie.length).unwrap();
    lie.tail = Some(TailPlace { offset, digest: Digest::sha256(&good[from..end]) });
    assert!(offset < place.offset);
    std::fs::write(path, [&lie.to_bytes(0), &good[part..]].concat()).unwrap();
    Volume::open(path).unwrap().verify(&|_| ()).unwrap();
    let error = volumes.verify().unwrap_err().to_string();
    assert!(error.contains("the tail does not begin where the last volume says"), "{error}");
    sign_by(path, &PrivateKey::generate()).unwrap_err();
}

#[test]
fn a_blob_is_read_across_the_seams_of_volumes() {
    let volumes = Volumes::new();
    let bundle = Bundle::open(&volumes.paths[0]).unwrap();
    let digest = Digest::sha256(&noise(250_000));
    let place = bundle.place(&digest).unwrap();
    let blob = Blob::new(bundle.media().bytes().slice(place.offset, place.size));
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 7000];
    loop {
        let read = blob.read_at(&mut buffer, bytes.len() as u64).unwrap();
        if read == 0 {
            break;
        }
        bytes.extend_from_slice(&buffer[..read]);
    }
    assert!(digest.matches(&bytes));
    assert!(blob.stretch_at(0).unwrap().unwrap().left < place.size);
}
