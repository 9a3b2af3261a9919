//! Inputs made from inputs: of any kind, and of archives, entry by entry. The same seed always gives the same.

use fastrand::Rng;

use super::archive::{
    Archive, BLOCK, KIND, LINK, MODE, MTIME, NAME, PREFIX, Part, fix_checksum, put, record, set_size,
};

/// Numbers where something ends.
const NUMBERS: [&str; 8] = [
    "0",
    "-1",
    "1e9",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "007",
];
/// Pieces that mean something to some reader.
const WORDS: [&str; 16] = [
    "../",
    "/",
    "..",
    "%2e%2e%2f",
    "%00",
    "\\",
    ":",
    "@",
    "\"digest\":",
    "\"size\":0",
    "[[[[[[[[",
    "{\"a\":{\"a\":",
    "\u{202e}",
    "sha512:",
    "con",
    "null",
];
/// Names that an archive may not hold.
const NAMES: [&str; 8] =
    ["../evil", "/etc/passwd", "index.json", "oci-layout", "blobs/sha256", "C:\\evil", "a/../../b", ""];
/// Kinds of entries: old file, links, devices, directory, contiguous, extended and GNU's headers, sparse.
const KINDS: &[u8] = b"\x0012345670xgLKSDMNV";
/// Records that change what an entry is.
const RECORDS: [(&str, &str); 7] = [
    ("path", "../evil"),
    ("linkpath", "/etc/passwd"),
    ("size", "1"),
    ("GNU.sparse.major", "1"),
    ("GNU.sparse.realsize", "1000000000000"),
    ("SCHILY.xattr.user.x", "y"),
    ("hdrcharset", "BINARY"),
];

/// One or a few changes of `data`, whatever it is.
pub fn bytes(data: &[u8], seed: u64, limit: usize) -> Vec<u8> {
    let mut rng = Rng::with_seed(seed);
    let mut data = data.to_vec();
    for _ in 0..rng.usize(1..4) {
        change(&mut data, &mut rng);
    }
    data.truncate(limit);
    data
}

fn change(data: &mut Vec<u8>, rng: &mut Rng) {
    let at = rng.usize(..=data.len());
    let span = rng.usize(..=16.min(data.len() - at));
    let part = data[at..at + span].to_vec();
    match rng.u8(..8) {
        0 if at < data.len() => data[at] ^= 1 << rng.u8(..8),
        1 if at < data.len() => data[at] = rng.u8(..),
        2 => drop(data.splice(at..at, [rng.u8(..)])),
        3 => drop(data.drain(at..at + span)),
        4 => drop(data.splice(at..at, part.repeat(rng.usize(1..4)))),
        5 => drop(data.splice(at..at, pick(rng, &WORDS).bytes())),
        6 => {
            let digits = data[at..].iter().position(u8::is_ascii_digit).map(|first| at + first);
            let Some(first) = digits else { return };
            let end = data[first..]
                .iter()
                .position(|byte| !byte.is_ascii_digit())
                .map_or(data.len(), |n| first + n);
            data.splice(first..end, pick(rng, &NUMBERS).bytes());
        }
        _ => data.truncate(at),
    }
}

/// What `libfuzzer_sys::fuzz_mutator` asks for: three quarters of the changes are those of `structured`, as changes of mere
/// bytes would hardly ever leave a file whole; the rest are the fuzzer's own.
pub fn in_place(
    data: &mut [u8],
    size: usize,
    limit: usize,
    seed: u32,
    structured: fn(&[u8], u64, usize) -> Vec<u8>,
    plain: impl FnOnce(&mut [u8], usize, usize) -> usize,
) -> usize {
    if seed.is_multiple_of(4) {
        return plain(data, size, limit);
    }
    let changed = structured(&data[..size], seed.into(), limit);
    data[..changed.len()].copy_from_slice(&changed);
    changed.len()
}

/// One or two changes of the archive `data` that leave everything else of it valid.
pub fn archive(data: &[u8], seed: u64, limit: usize) -> Vec<u8> {
    changed(data, seed, limit, change_archive)
}

/// One or two of the changes that `change` makes to the archive `data`; others where it is none.
pub(super) fn changed(data: &[u8], seed: u64, limit: usize, change: fn(&mut Archive, &mut Rng)) -> Vec<u8> {
    let mut rng = Rng::with_seed(seed);
    let mut archive = Archive::parse(data);
    if archive.parts.is_empty() {
        return bytes(data, seed, limit);
    }
    for _ in 0..rng.usize(1..3) {
        change(&mut archive, &mut rng);
    }
    let mut data = archive.to_bytes();
    data.truncate(limit);
    data
}

pub(super) fn change_archive(archive: &mut Archive, rng: &mut Rng) {
    let Some(at) = archive.parts.len().checked_sub(1).map(|last| rng.usize(..=last)) else { return };
    let other = rng.usize(..archive.parts.len());
    let part = &mut archive.parts[at];
    match rng.u8(..16) {
        0 => archive.parts.swap(at, other),
        1 => {
            let copy = part.clone();
            archive.parts.insert(other, copy);
        }
        2 => drop(archive.parts.remove(at)),
        3 => {
            let name = pick(rng, &NAMES).as_bytes();
            put(part.main(), NAME, name);
            fix_checksum(part.main());
        }
        4 => {
            part.main()[KIND] = *pick(rng, KINDS);
            put(part.main(), LINK, b"/etc/passwd");
            fix_checksum(part.main());
        }
        5 => {
            let size = part.content.len() as u64;
            let size =
                *pick(rng, &[0, size + 1, size.wrapping_sub(1), size + 512, u64::MAX, 1 << 33, 1 << 40]);
            set_size(part.main(), size);
            fix_checksum(part.main());
        }
        6 => {
            let header = part.main();
            let field =
                *pick(rng, &[MODE, (108, 8), (116, 8), MTIME, (257, 8), (265, 32), PREFIX, (500, 12)]);
            let value: Vec<u8> = (0..field.1).map(|_| *pick(rng, b"01237 \0\x80\xffa/")).collect();
            put(header, field, &value);
            fix_checksum(header);
        }
        7 => {
            let (key, value) = *pick(rng, &RECORDS);
            let kind = *pick(rng, b"xg");
            archive.parts.insert(at, Part::extension(kind, "PaxHeaders/x", &record(key, value)));
        }
        8 => {
            let (kind, name) = (*pick(rng, b"LK"), *pick(rng, &NAMES));
            archive.parts.insert(at, Part::extension(kind, "././@LongLink", name));
        }
        9 => {
            let name = *pick(rng, &NAMES);
            archive.parts.insert(at, Part::file(name, &b"extra"[..]));
        }
        10 => archive.end.extend_from_slice(&[0; BLOCK]),
        11 => archive.end.truncate(rng.usize(..=archive.end.len())),
        12 => {
            let content = archive.parts[other].content.clone();
            archive.parts[at].content = content;
            archive.parts[at].seal();
        }
        13 => {
            let at = rng.usize(..part.header.len());
            part.header[at] ^= 1 << rng.u8(..8);
        }
        // Another content, with the checksums and digests that belong to it.
        _ => {
            let content = bytes(&part.content, rng.u64(..), usize::MAX);
            archive.replace(at, content);
        }
    }
}

pub(super) fn pick<'a, T>(rng: &mut Rng, from: &'a [T]) -> &'a T {
    &from[rng.usize(..from.len())]
}
