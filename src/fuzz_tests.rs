//! The fuzz targets over what `fuzz/seeds` keeps of their inputs, and over inputs made from those in a fixed way.

use std::path::{Path, PathBuf};

use crate::fuzz::{self, TARGETS, Target, mutate};

/// How many inputs are made for a target.
const MADE: u64 = 3_000;
/// The same for targets that write each input to a file.
const MADE_OF_FILES: u64 = 600;
/// The same for targets that write several, and more than once.
const MADE_OF_SETS: u64 = 100;
/// The largest input that is made.
const LIMIT: usize = 100_000;

type Mutator = fn(&[u8], u64, usize) -> Vec<u8>;

fn seeds(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target)
}

fn kept(target: &str) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(seeds(target)).unwrap_or_else(|error| panic!("{target}: {error}"));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Runs a target over its inputs. A failure shows the target and the input.
fn run((name, target): Target) {
    let kept = kept(name);
    assert!(!kept.is_empty(), "{name} has no inputs");
    let structured = match name {
        "archive" | "tar" => Some(mutate::archive as Mutator),
        "repair" | "volumes" => Some(fuzz::lies::files as Mutator),
        _ => None,
    };
    let try_out = |input: &[u8], origin: &str| {
        let holds = std::panic::catch_unwind(|| target(input)).is_ok();
        assert!(holds, "{name} fails on {origin}: {}", String::from_utf8_lossy(input));
    };
    for (nth, input) in kept.iter().enumerate() {
        try_out(input, &format!("kept input {nth}"));
    }
    let made = match name {
        "archive" | "index" | "tar" => MADE_OF_FILES,
        "repair" | "volumes" => MADE_OF_SETS,
        _ => MADE,
    };
    for seed in 0..made {
        let from = &kept[usize::try_from(seed).unwrap() % kept.len()];
        let mutate = structured.filter(|_| seed % 4 > 0).unwrap_or(mutate::bytes);
        let input = mutate(from, seed, LIMIT);
        try_out(&input, &format!("the input made from seed {seed}"));
    }
}

#[test]
fn every_target_holds_over_its_corpus() {
    std::thread::scope(|scope| {
        for target in TARGETS {
            scope.spawn(move || run(target));
        }
    });
}

#[test]
fn every_target_is_built_and_has_inputs() {
    let manifest = include_str!("../fuzz/Cargo.toml");
    for (name, _) in TARGETS {
        assert!(
            manifest.contains(&format!("path = \"targets/{name}.rs\"")),
            "{name} is not in fuzz/Cargo.toml"
        );
        assert!(
            kept(name).iter().map(Vec::len).sum::<usize>() < 128 * 1024,
            "the inputs of {name} are too large"
        );
    }
    assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
}

#[test]
fn the_kept_bundle_is_the_sample() {
    let kept = std::fs::read(seeds("archive").join("signed.tar")).unwrap();
    assert!(kept == fuzz::bundle::sample_bytes(), "the form of bundles has changed: make the seeds anew");
    // A mutation that never gets past the first header would test nothing.
    assert!(fuzz::bundle::index_seeds().iter().all(|seed| super::fuzz_tests::kept("index").contains(seed)));
}

#[test]
fn the_kept_volumes_are_whole_or_mixed_and_the_kept_damage_is_repaired() {
    let seeds = fuzz::repair::volume_seeds().into_iter().chain(fuzz::repair::repair_seeds());
    let [whole, mixed, single, volumes] = &seeds.collect::<Vec<_>>()[..] else { panic!("there are four") };
    // Each bundle is opened by its folder and by its files.
    assert_eq!(fuzz::repair::accepted(&whole.1), (3, 2));
    assert_eq!(fuzz::repair::accepted(&mixed.1), (3, 0));
    assert_eq!(fuzz::repair::repaired(&single.1).unwrap(), ["a.tar"]);
    assert_eq!(fuzz::repair::repaired(&volumes.1).unwrap(), ["a.2of3.tar", "a.3of3.tar"]);
    for (target, (name, seed)) in
        ["volumes", "volumes", "repair", "repair"].iter().zip([whole, mixed, single, volumes])
    {
        assert!(kept(target).contains(seed), "{name}: the form of bundles has changed: make the seeds anew");
    }
}

/// Writes the inputs that come from the sample. To be run by hand when the form of bundles has changed.
#[test]
#[ignore = "writes fuzz/seeds"]
fn make_seeds() {
    let write = |target: &str, name: &str, bytes: &[u8]| {
        std::fs::create_dir_all(seeds(target)).unwrap();
        std::fs::write(seeds(target).join(name), bytes).unwrap();
    };
    let sample = fuzz::sample::Sample::new();
    write("archive", "signed.tar", &fuzz::bundle::sample_bytes());
    write("archive", "unsigned.tar", &sample.archive(None).to_bytes());
    write("tar", "signed.tar", &fuzz::bundle::sample_bytes());
    write("lock", "sample.json", &sample.lock.to_json());
    let delta =
        sample.lock.clone().without(|digest| digest.hex().starts_with(['0', '1', '2', '3', '4', '5']));
    write("lock", "delta.json", &delta.to_json());
    for (target, seeds) in
        [("volumes", fuzz::repair::volume_seeds()), ("repair", fuzz::repair::repair_seeds())]
    {
        for (name, seed) in seeds {
            write(target, name, &seed);
        }
    }
    for (nth, seed) in fuzz::bundle::index_seeds().into_iter().enumerate() {
        write("index", &format!("{nth:02}"), &seed);
    }
    for (digest, content) in &sample.contents {
        if content.starts_with(b"{\"") {
            write("manifest", digest.short(), content);
        }
    }
}
