//! What looks dangerous and is right all the same: it is taken, and does no harm.

use std::{fs, path::Path};

use dray::store::Content as _;

use super::bench::{Bench, Sight, locked};
use crate::sample::Sample;

/// A gzip stream of `blocks` times 65,535 zeros would be an honest bomb; so is one that only says so. Nobody looks.
fn bomb() -> Vec<u8> {
    let mut bytes = b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec();
    // A run of the longest repetition there is in deflate's fixed code, 258 zeros for 13 bits, over and over.
    bytes.extend(std::iter::repeat_n([0x63, 0x60, 0x18, 0x05, 0xa3, 0x60, 0x14, 0x0c], 2000).flatten());
    bytes.extend_from_slice(&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    bytes
}

fn size_of(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .map(
            |entry| {
                if entry.path().is_dir() { size_of(&entry.path()) } else { entry.metadata().unwrap().len() }
            },
        )
        .sum()
}

#[test]
fn a_layer_that_would_unpack_to_terabytes_is_never_unpacked() {
    let bench = Bench::new();
    let before = size_of(bench.store().path());
    let bundle = &locked(|sample| {
        let layer = sample.add(&bomb(), false);
        sample.lock.images[0].blobs.push(layer);
    })[0];
    let path = bench.write(bundle);
    bench.verify(&path, Sight::AtOnce).unwrap();
    bench.import(&path, Sight::AtOnce).unwrap();
    assert!(size_of(bench.store().path()) - before < bundle.len() as u64);
}

#[test]
fn names_that_mean_something_to_some_system_become_plain_files() {
    let bench = Bench::new();
    let names = [
        "con/nul:aux",
        "localhost:5000/com1:lpt1",
        "a.b/c/manifests/blobs/uploads:tags",
        "xn--nxasmq6b/a__b:a-_.b",
        "a.b/c:CON",
    ];
    let bundle = &locked(|sample| {
        for name in names {
            let mut image = sample.lock.images[0].clone();
            image.reference = name.parse().unwrap();
            sample.lock.images.push(image);
        }
        sample.lock.images.sort_by(|a, b| a.reference.cmp(&b.reference));
        sample.lock.files[0].url = "https://dl.example.org/aux/con.txt/nul".into();
    })[0];
    let path = bench.write(bundle);
    bench.import(&path, Sight::AtOnce).unwrap();
    for name in names {
        let reference: dray::oci::Reference = name.parse().unwrap();
        assert!(
            bench.store().resolve(reference.name(), reference.tag().unwrap()).unwrap().is_some(),
            "{name}"
        );
    }
    let root = fs::canonicalize(bench.store().path()).unwrap();
    for path in bench.fingerprint().keys() {
        assert!(fs::canonicalize(path).unwrap().starts_with(&root), "{}", path.display());
        assert!(!fs::symlink_metadata(path).unwrap().is_symlink());
        for part in path.strip_prefix(bench.store().path()).unwrap() {
            let part = part.to_str().unwrap();
            let stem = part.split('.').next().unwrap();
            assert!(!["con", "nul", "aux", "com1", "lpt1"].contains(&stem), "{part} is a device on Windows");
            assert!(part.bytes().all(|byte| byte.is_ascii_lowercase()
                || byte.is_ascii_digit()
                || b"+%^._-~".contains(&byte)));
        }
    }
}

#[test]
fn the_good_bundle_is_good() {
    let bench = Bench::new();
    let path = bench.write(&locked(|_| ())[0]);
    bench.verify(&path, Sight::AtOnce).unwrap();
    bench.serve(&path, Sight::AtOnce).unwrap();
    bench.import(&path, Sight::AtOnce).unwrap();
    // A lock that is written by hand and signed is as good: what refuses the others is what was changed in them.
    let text = String::from_utf8(Sample::new().lock.to_json()).unwrap();
    let path = bench.write(&super::bench::written([text])[0]);
    bench.verify(&path, Sight::AtOnce).unwrap();
    bench.import(&path, Sight::AtOnce).unwrap();
    drop(bench.writer());
}
