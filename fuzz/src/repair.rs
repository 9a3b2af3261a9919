//! Targets that read several files: a bundle in volumes is what its volumes are together, and a repair ends with the very
//! bytes of the bundle or changes nothing, whatever a recovery file says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use dray::bundle::{Bundle, BundleError, Making, Media, Recovery, RepairError, Volume};
use dray::file::Inputs;
use dray::oci::Digest;
use dray::trust::{Policy, PrivateKey, Signatures};

use super::archive::Archive;
use super::bundle::{check_against, open, signed, with_file};
use super::sample::Sample;
use super::volumes::{Cut, Description, SetName, archive_of, files};

/// The entry of an input of [`repair`] that says how the sample lies there, what is damaged, and what is named.
pub const SCRIPT: &str = "damage";
/// Where the volumes of the sample begin.
const STARTS: [u64; 3] = [0, 4096, 8192];
/// How many recovery blocks the sample has: as many as blocks, so that everything may be lost.
const MADE: usize = 3;

type Files = BTreeMap<String, Vec<u8>>;

/// The bundle that is cut and protected, and one with other content under the same name.
struct Samples {
    bundle: Vec<u8>,
    volumes: Vec<Vec<u8>>,
    other: Vec<Vec<u8>>,
    recovery: Vec<Vec<u8>>,
    recovery_of_volumes: Vec<Vec<u8>>,
}

fn samples() -> &'static Samples {
    static SAMPLES: OnceLock<Samples> = OnceLock::new();
    SAMPLES.get_or_init(|| {
        let signed = signed();
        let unsigned = Sample::of("other").archive(None).to_bytes();
        let other =
            with_file(&unsigned, |path| Bundle::open(path).expect("it is good").index().digest.clone());
        let bytes = |archives: Vec<Archive>| archives.iter().map(Archive::to_bytes).collect();
        let cut = cut(&signed.bytes, &signed.index);
        Samples {
            bundle: signed.bytes.clone(),
            volumes: bytes(cut.volumes(&STARTS)),
            other: bytes(self::cut(&unsigned, &other).volumes(&STARTS)),
            recovery: bytes(cut.recovery(&[], MADE, &[0])),
            recovery_of_volumes: bytes(cut.recovery(&STARTS, MADE, &[0, 1])),
        }
    })
}

fn cut<'a>(bytes: &'a [u8], index: &'a Digest) -> Cut<'a> {
    let sample = Sample::new().lock;
    let parts = &Archive::parse(bytes).parts[..sample.blobs.len()];
    let head = parts.iter().map(|part| part.to_bytes().len()).sum();
    Cut { name: "plant-7", sequence: sample.sequence, index, bytes, head }
}

/// Gives `run` a folder with `files` in it, and makes sure that nothing appears beside that folder.
fn with_files<T>(files: &Files, run: impl FnOnce(&Path) -> T) -> T {
    let outside = tempfile::tempdir().expect("there is room for temporary files");
    let folder = outside.path().join("folder");
    std::fs::create_dir(&folder).expect("the folder is new");
    for (name, content) in files {
        std::fs::write(folder.join(name), content).expect("there is room for temporary files");
    }
    let result = run(&folder);
    let beside = std::fs::read_dir(outside.path()).expect("it was made above").count();
    assert_eq!(beside, 1, "something was written outside the folder");
    result
}

fn files_in(folder: &Path) -> Files {
    let entries = std::fs::read_dir(folder).expect("it is a folder");
    let file = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.expect("it is there").path();
        (name_of(&path), std::fs::read(&path).expect("it is a file"))
    };
    entries.map(file).collect()
}

fn name_of(path: &Path) -> String {
    path.file_name().and_then(|name| name.to_str()).expect("names are ASCII").to_owned()
}

/// Files that may be volumes of a bundle: each alone, all named, and their folder.
pub fn volumes(data: &[u8]) {
    accepted(data);
}

/// How many of the files of an input pass as a volume on their own, and how many whole bundles they make together.
pub fn accepted(data: &[u8]) -> (usize, usize) {
    let files = files(data);
    with_files(&files, |folder| {
        let paths: Vec<PathBuf> = files.keys().map(|name| folder.join(name)).collect();
        let good = paths.iter().zip(files.values()).filter(|(path, bytes)| alone(path, bytes)).count();
        let turned: Vec<PathBuf> = paths.iter().rev().cloned().collect();
        let mut whole = 0;
        for paths in [&[folder.to_owned()][..], &turned] {
            match Media::open_all(paths) {
                Ok(all) => whole += all.into_iter().filter_map(|media| together(media, &files)).count(),
                Err(error) => refused(&error),
            }
        }
        if whole > 0 {
            signable(folder, &paths);
        }
        (good, whole)
    })
}

/// What passes as a bundle can be signed, and each volume of it is whole afterwards if all were before.
fn signable(folder: &Path, paths: &[PathBuf]) {
    let is_whole = |path: &PathBuf| Volume::open(path).is_ok_and(|volume| volume.verify(&|_| ()).is_ok());
    let whole: Vec<&PathBuf> = paths.iter().filter(|path| is_whole(path)).collect();
    let Ok(bundle) = Bundle::open(folder) else { return };
    let signatures = bundle.signatures().map_or(0, |signatures| signatures.simple().signatures().len());
    if signatures == Signatures::MAX {
        return;
    }
    let key = PrivateKey::generate();
    let policy = Policy::new(vec![key.public()], 1).expect("one key for one signature");
    let signed = dray::bundle::sign(folder, &Inputs::default(), |claim| Signatures::create(&[key], claim))
        .expect("it can be signed");
    signed.check_signatures(&policy).expect("it was just signed");
    assert!(whole.iter().all(|path| is_whole(path)), "a signature damaged a volume");
}

/// What is wrong is the content, or what there is of it, never the system that reads it.
fn refused(error: &BundleError) {
    let content = error.is_verification();
    let choice = match error {
        BundleError::Incomplete { .. }
        | BundleError::Other { .. }
        | BundleError::Twice { .. }
        | BundleError::Several { .. } => true,
        BundleError::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    };
    assert!(content || choice, "{error}");
}

/// What passes as a volume is one for tar, too, and has the digests that it says.
fn alone(path: &Path, bytes: &[u8]) -> bool {
    let checked = Volume::open(path).and_then(|volume| volume.verify(&|_| ()).map(|()| volume));
    let volume = match checked {
        Ok(volume) => volume,
        Err(error) => {
            refused(&error);
            return false;
        }
    };
    assert!((1..=volume.of()).contains(&volume.number()));
    let part = part_of(bytes);
    assert_eq!(part.len() as u64, volume.len());
    // Made again from its content, it is what it is: no digest in it is another's.
    let mut archive = Archive::parse(bytes);
    let mut description = Description::of(&archive).expect("it says what it is");
    description.seal(&archive);
    description.put_into(&mut archive);
    assert!(archive.to_bytes() == bytes, "a volume passes that is not what it says");
    true
}

/// The part of the bundle that a volume has, as the `tar` crate reads it.
fn part_of(bytes: &[u8]) -> Vec<u8> {
    let mut archive = ::tar::Archive::new(bytes);
    let mut contents = Vec::new();
    for entry in archive.entries().expect("it is at its beginning") {
        let mut entry = entry.expect("tar reads what we accept");
        assert!(entry.header().entry_type().is_file());
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).expect("it is in memory");
        contents.push((entry.path().expect("a path").display().to_string(), content));
    }
    let names: Vec<&str> = contents.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["dray-volume.json", "dray-volume.json.sha256", "bundle.part"]);
    contents.pop().expect("there are three").1
}

/// What passes as a bundle in volumes is the bundle that their parts make, one after another.
fn together(media: Media, files: &Files) -> Option<Bundle> {
    let volumes: Vec<String> = media.present().map(|volume| name_of(volume.path())).collect();
    if !media.absent().is_empty() {
        match Bundle::open_damaged(media) {
            Ok(bundle) => {
                let error = bundle.verify_blobs(1, &|_| ()).expect_err("something is missing");
                let _ = (error.to_string(), bundle.images_in_absent());
            }
            Err(error) => refused(&error),
        }
        return None;
    }
    let bundle = Bundle::open_media(media).inspect_err(refused).ok()?;
    let joined = if volumes.is_empty() {
        files[&name_of(bundle.path())].clone()
    } else {
        volumes.iter().flat_map(|name| part_of(&files[name])).collect()
    };
    let whole = open(&joined).expect("what volumes make is a bundle in one file");
    assert_eq!(bundle.index().digest, whole);
    check_against(&bundle, &joined);
    Some(bundle)
}

/// A damaged bundle with recovery files that say what they like.
pub fn repair(data: &[u8]) {
    repaired(data);
}

/// The files that are made again from an input; none if the repair refuses.
pub fn repaired(data: &[u8]) -> Option<Vec<String>> {
    let mut overlay = files(data);
    let script = overlay.remove(SCRIPT).unwrap_or_default();
    let (good, mut there, named) = laid_out(&script);
    there.extend(overlay);
    with_files(&there, |folder| {
        let paths: Vec<PathBuf> = match named {
            Some(name) => vec![folder.join(name)],
            None => vec![folder.to_owned()],
        };
        let repaired = dray::bundle::repair(&paths, 1, &Making::default(), &|_| ());
        let after = files_in(folder);
        match repaired {
            Ok(repaired) => {
                let made: Vec<String> = repaired.files.iter().map(|path| name_of(path)).collect();
                let recovery: Vec<String> = repaired.recovery.iter().map(|path| name_of(path)).collect();
                let all = || repaired.files.iter().chain(&repaired.recovery);
                assert!(all().all(|path| path.parent() == Some(folder)));
                changed_only(&there, &after, &[made.clone(), recovery].concat());
                for path in &repaired.recovery {
                    let made = Recovery::open(path).expect("it is there").expect("it was made");
                    made.verify(&|_| ()).expect("what was made is whole");
                    assert!(
                        !samples().other.contains(&there.get(&name_of(path)).cloned().unwrap_or_default())
                    );
                }
                for name in &made {
                    spared(&good, &there, &after, name);
                }
                if !made.is_empty() {
                    is_whole(folder, &made, &after);
                }
                Some(made)
            }
            Err(error) => {
                let cause = if let RepairError::Recovery(cause) = &error {
                    // The bundle is whole by then.
                    let recovery = |name: &&String| name.contains("parity");
                    let kept = there.keys().filter(recovery).all(|name| after.get(name) == there.get(name));
                    assert!(kept, "a repair that failed changed recovery files: {error}");
                    cause
                } else {
                    assert!(after == there, "a repair that failed changed something: {error}");
                    &error
                };
                let content = match cause {
                    RepairError::Wrong(error) => error.is_verification(),
                    RepairError::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
                    RepairError::Full { .. } | RepairError::Busy { .. } => false,
                    _ => true,
                };
                assert!(content, "{error}");
                None
            }
        }
    })
}

/// The sample as the script wants it: as it was, as it lies there, and the file that is named, if not the folder.
fn laid_out(script: &[u8]) -> (Files, Files, Option<&'static str>) {
    let samples = samples();
    let (form, named) = (script.first().copied().unwrap_or(0), script.get(1).copied().unwrap_or(0));
    let volume = |number: usize| format!("a.{number}of3.tar");
    let good: Files = match form % 4 {
        0 => [("a.tar".to_owned(), samples.bundle.clone())].into(),
        1 | 2 => (1..).map(volume).zip(samples.volumes.iter().cloned()).collect(),
        _ => Files::new(),
    };
    let mut there = good.clone();
    for damage in script.get(2..).unwrap_or_default().chunks_exact(4) {
        let Some(nth) = usize::from(damage[0]).checked_rem(there.len()) else { break };
        let (name, content) = there.iter_mut().nth(nth).expect("there are more than that");
        let at = usize::from(u16::from_be_bytes([damage[1], damage[2]])) % content.len().max(1);
        let kind = damage[3];
        let end = content.len().min(at + 16 * usize::from(kind));
        match kind % 8 {
            0 => {
                let name = name.clone();
                there.remove(&name);
            }
            1 => content.truncate(at),
            2 => content.extend_from_slice(&[kind; 512]),
            3 => *content = samples.other[nth % samples.other.len()].clone(),
            4 => content[at..end].fill(0),
            5 => content[at..end].rotate_left(1.min(end - at)),
            _ => content[at..end].iter_mut().for_each(|byte| *byte ^= kind),
        }
    }
    let named = match named % 4 {
        0 => Some("a.tar"),
        1 => Some("a.2of3.tar"),
        _ => None,
    };
    (good, there, named)
}

/// Nothing but `made` is another file than before.
fn changed_only(before: &Files, after: &Files, made: &[String]) {
    for name in before.keys().chain(after.keys()) {
        assert!(
            made.contains(name) || before.get(name) == after.get(name),
            "{name} was changed and not named"
        );
    }
}

/// What was the sample's, or is another bundle's, has not been replaced.
fn spared(good: &Files, before: &Files, after: &Files, name: &str) {
    let Some(old) = before.get(name).filter(|old| after.get(name) != Some(*old)) else { return };
    assert!(good.get(name) != Some(old), "{name} was good and was replaced");
    assert!(!samples().other.contains(old), "{name} was another bundle's and was replaced");
    assert!(!is_recovery(old) || name.contains("parity"), "{name} was a recovery file and was replaced");
}

/// Whether one of the two descriptions can be read by which a recovery file is known.
fn is_recovery(bytes: &[u8]) -> bool {
    let folder = tempfile::tempdir().expect("there is room for temporary files");
    let path = folder.path().join("a.parity.1of1.tar");
    std::fs::write(&path, bytes).expect("there is room for temporary files");
    Recovery::open(&path).expect("it is there").is_some()
}

/// The bundle that the files `made` belong to is whole.
fn is_whole(folder: &Path, made: &[String], files: &Files) {
    let mut volumes = BTreeMap::new();
    let set = said_by(&files[&made[0]]).map(|(set, _)| set);
    for name in made.iter().chain(files.keys()) {
        let path = folder.join(name);
        if let Some((_, number)) = said_by(&files[name]).filter(|(of, _)| Some(of) == set.as_ref())
            && (made.contains(name) || alone(&path, &files[name]))
        {
            volumes.entry(number).or_insert(path);
        }
    }
    let paths = if set.is_none() { vec![folder.join(&made[0])] } else { volumes.into_values().collect() };
    let mut all = Media::open_all(&paths).expect("a repair leaves a bundle");
    let media = all.pop().expect("a repair leaves a bundle");
    assert!(all.is_empty());
    let bundle = together(media, files).expect("a repair leaves a whole bundle");
    bundle.verify_blobs(1, &|_| ()).expect("a repair leaves a bundle without damage");
}

/// What a volume says that it belongs to, and which one it is.
fn said_by(bytes: &[u8]) -> Option<(SetName, u64)> {
    match Description::of(&Archive::parse(bytes))? {
        Description::Volume(volume) => Some((volume.set, volume.number)),
        Description::Recovery(_) => None,
    }
}

/// Inputs of [`volumes`]: the sample in three volumes, and a mixture of two bundles.
pub fn volume_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let Samples { volumes, other, .. } = samples();
    let names = ["a.1of3.tar", "a.2of3.tar", "a.3of3.tar"];
    let whole = archive_of(names.into_iter().zip(volumes.iter().cloned()));
    let mixed = [volumes[0].clone(), other[1].clone(), volumes[2].clone()];
    vec![("whole.tar", whole.to_bytes()), ("mixed.tar", archive_of(names.into_iter().zip(mixed)).to_bytes())]
}

/// Inputs of [`repair`]: a damaged bundle in one file and in volumes, with good recovery files.
pub fn repair_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let Samples { recovery, recovery_of_volumes, .. } = samples();
    let single = [(SCRIPT, vec![0, 2, 0, 0x10, 0, 0x26]), ("a.parity.1of1.tar", recovery[0].clone())];
    let volumes = [
        (SCRIPT, vec![1, 2, 1, 0, 0, 0, 1, 0x20, 0, 0x0c]),
        ("a.parity.1of2.tar", recovery_of_volumes[0].clone()),
        ("a.parity.2of2.tar", recovery_of_volumes[1].clone()),
    ];
    vec![("single.tar", archive_of(single).to_bytes()), ("volumes.tar", archive_of(volumes).to_bytes())]
}
