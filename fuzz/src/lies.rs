//! Inputs made from sets of files, by changing what volumes and recovery files say of themselves and of each other, with
//! the checksums and digests that belong to it. The same seed always gives the same.

use fastrand::Rng;

use super::archive::{Archive, Part};
use super::mutate::{bytes, change_archive, changed, pick};
use super::repair;
use super::volumes::{Description, archive_of};

/// Names that mean something beside the sample.
const NAMES: [&str; 11] = [
    "a.1of3.tar",
    "a.2of3.tar",
    "a.3of3.tar",
    "a.tar",
    "a.parity.1of1.tar",
    "a.parity.1of2.tar",
    "a.parity.2of2.tar",
    "a.2of2.tar",
    "b.tar",
    "b.parity.1of1.tar",
    "other",
];

/// What volumes and recovery files have besides descriptions.
const PARTS: [&str; 2] = ["bundle.part", "parity.part"];

/// One or two changes of the files in the archive `data`.
pub fn files(data: &[u8], seed: u64, limit: usize) -> Vec<u8> {
    changed(data, seed, limit, change_files)
}

fn change_files(files: &mut Archive, rng: &mut Rng) {
    let Some(last) = files.parts.len().checked_sub(1) else { return };
    let (at, other) = (rng.usize(..=last), rng.usize(..=last));
    let content = files.parts[at].content.clone();
    let name = *pick(rng, &NAMES);
    match rng.u8(..16) {
        0 => files.parts.swap(at, other),
        1 => drop(files.parts.remove(at)),
        2 => files.parts[at] = Part::file(name, content),
        3 => files.parts.push(Part::file(name, content)),
        4 => {
            // Two files change their names.
            files.parts[at].content = files.parts[other].content.clone();
            files.parts[other].content = content;
            files.parts[at].seal();
            files.parts[other].seal();
        }
        5 | 6 => {
            let len = 2 + 4 * rng.usize(..5);
            let script: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(len).collect();
            let known = files.position(repair::SCRIPT);
            let part = archive_of([(repair::SCRIPT, script)]).parts.remove(0);
            match known {
                Some(known) => files.parts[known] = part,
                None => files.parts.push(part),
            }
        }
        7 => put(files, at, bytes(&content, rng.u64(..), usize::MAX)),
        8 => change_inside(files, at, |archive| change_archive(archive, rng)),
        9 => change_inside(files, at, |archive| change_content(archive, rng)),
        // All say the same.
        10 | 11 => {
            let seed = rng.u64(..);
            for nth in 0..files.parts.len() {
                change_inside(files, nth, |archive| change_description(archive, &mut Rng::with_seed(seed)));
            }
        }
        _ => change_inside(files, at, |archive| change_description(archive, rng)),
    }
}

fn put(files: &mut Archive, at: usize, content: Vec<u8>) {
    files.parts[at].content = content;
    files.parts[at].seal();
}

fn change_inside(files: &mut Archive, at: usize, change: impl FnOnce(&mut Archive)) {
    let mut archive = Archive::parse(&files.parts[at].content);
    change(&mut archive);
    put(files, at, archive.to_bytes());
}

/// Another content of a part, of which the description knows.
fn change_content(archive: &mut Archive, rng: &mut Rng) {
    let Some(at) = archive.parts.iter().position(|part| PARTS.contains(&&*part.path())) else { return };
    let part = &mut archive.parts[at];
    match rng.u8(..4) {
        0 => part.content.truncate(rng.usize(..=part.content.len())),
        1 => part.content.extend_from_within(..part.content.len().min(rng.usize(..8192))),
        _ => {
            let Some(last) = part.content.len().checked_sub(1) else { return };
            let from = rng.usize(..=last);
            let end = last.min(from + rng.usize(..64));
            part.content[from..=end].iter_mut().for_each(|byte| *byte ^= rng.u8(..));
        }
    }
    part.seal();
    if let Some(mut description) = Description::of(archive).filter(|_| rng.u8(..4) > 0) {
        description.seal(archive);
        description.put_into(archive);
    }
}

/// Another description, with the digest that belongs to it.
fn change_description(archive: &mut Archive, rng: &mut Rng) {
    let Some(mut description) = Description::of(archive) else { return };
    match rng.u8(..8) {
        0 => {
            let set = description.set();
            match rng.u8(..4) {
                0 => set.name = pick(rng, &["plant-7", "plant-8", "", "../x", "A"]).to_string(),
                1 => set.sequence = rng.u64(..9),
                2 => set.id = set.digest.clone(),
                _ => set.digest = set.id.clone(),
            }
        }
        1 | 2 => {
            let mut lists = description.digests();
            let nth = rng.usize(..lists.len());
            change_list(lists[nth], rng);
        }
        3 => {
            let mut lists = description.places();
            if lists.is_empty() {
                return;
            }
            let nth = rng.usize(..lists.len());
            change_list(lists[nth], rng);
        }
        _ => {
            let mut numbers = description.numbers();
            let other = *numbers[rng.usize(..numbers.len())];
            let at = rng.usize(..numbers.len());
            let number = &mut *numbers[at];
            let (less, more) = (number.wrapping_sub(1), number.wrapping_add(1));
            let (before, after) = (number.wrapping_sub(4096), number.wrapping_add(4096));
            let near =
                [less, more, before, after, number.wrapping_add(512), number.wrapping_mul(2), *number / 2];
            let far =
                [0, 1, 2, other, 4096, 9999, 10_000, 1 << 20, 1 << 48, i64::MAX as u64, u64::MAX, 1 << 63];
            *number = if rng.bool() { *pick(rng, &near) } else { *pick(rng, &far) };
        }
    }
    if rng.u8(..4) == 0 {
        description.seal(archive);
    }
    description.put_into(archive);
}

fn change_list<T: Clone>(list: &mut Vec<T>, rng: &mut Rng) {
    let Some(most) = list.len().checked_sub(1) else { return };
    let (at, other) = (rng.usize(..=most), rng.usize(..=most));
    match rng.u8(..5) {
        0 => drop(list.remove(at)),
        1 => list.insert(at, list[other].clone()),
        2 => list.swap(at, other),
        3 => list.truncate(at),
        _ => list.extend(vec![list[other].clone(); rng.usize(..40)]),
    }
}
