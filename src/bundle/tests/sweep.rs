//! Bytes of bundles, volumes and recovery files flipped and zeroed, and the files cut: always detected, and the message says
//! where, and whom it hits.
//!
//! The ordinary tests change a byte here and there, by steps that share no factor with 512 and so come by every field.
//! `tests/run sweep` changes every byte and cuts to every length, but for the inside of the one large blob.

use std::fmt;
use std::fs::{File, OpenOptions};

use super::parity::Protected;
use super::volumes::{IMAGE, Volumes, noise};
use super::*;
use crate::file;

/// Every how many-th byte is taken: `ordinary`, unless all of them are asked for.
fn step(ordinary: usize) -> usize {
    if std::env::var_os("DRAY_SWEEP").is_some() { 1 } else { ordinary }
}

/// What was done to files and detected.
#[derive(Default)]
struct Tally {
    files: usize,
    bytes: usize,
    flipped: usize,
    zeroed: usize,
    cut: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { files, bytes, flipped, zeroed, cut } = self;
        write!(
            f,
            "{flipped} bytes flipped, {zeroed} bytes and blocks zeroed, {cut} cuts, all detected ({files} files, {bytes} bytes)"
        )
    }
}

/// Changes a file in place, and back.
struct Sweep {
    path: PathBuf,
    file: File,
    good: Vec<u8>,
}

impl Sweep {
    fn new(path: &Path) -> Self {
        let good = std::fs::read(path).unwrap();
        let file = OpenOptions::new().write(true).open(path).unwrap();
        Self { path: path.to_owned(), file, good }
    }

    fn len(&self) -> usize {
        self.good.len()
    }

    /// What `check` says of the file with other `bytes` at `at`; none when it has them already.
    fn changed<T>(&self, at: usize, bytes: &[u8], check: impl FnOnce() -> T) -> Option<T> {
        let old = &self.good[at..at + bytes.len()];
        if old == bytes {
            return None;
        }
        file::write_all_at(&self.file, bytes, at as u64).unwrap();
        let result = check();
        file::write_all_at(&self.file, old, at as u64).unwrap();
        Some(result)
    }

    /// What `check` says of the file cut to `len` bytes.
    fn cut<T>(&self, len: usize, check: impl FnOnce() -> T) -> T {
        self.file.set_len(len as u64).unwrap();
        let result = check();
        file::write_all_at(&self.file, &self.good[len..], len as u64).unwrap();
        result
    }

    /// Flips and zeroes the bytes at `places`, zeroes all blocks of 512 bytes that have one of them, and cuts the file to
    /// the lengths `cuts`. Each time `check` must refuse the file, and `judge` is given the place and the message.
    fn run(
        &self,
        tally: &mut Tally,
        places: &[usize],
        cuts: impl IntoIterator<Item = usize>,
        check: impl Fn() -> Result<(), BundleError>,
        judge: impl Fn(usize, &str),
    ) {
        let refused = |what: &str| refused(check(), &self.path, what);
        check().unwrap();
        for &at in places {
            let message =
                self.changed(at, &[self.good[at] ^ 0x20], || refused(&format!("byte {at} flipped")));
            judge(at, &message.expect("a flipped byte is another"));
            tally.flipped += 1;
            if let Some(message) = self.changed(at, &[0], || refused(&format!("byte {at} zeroed"))) {
                judge(at, &message);
                tally.zeroed += 1;
            }
        }
        let mut blocks: Vec<usize> = places.iter().map(|at| at / 512 * 512).collect();
        blocks.dedup();
        for at in blocks {
            let block = &[0; 512][..512.min(self.len() - at)];
            let zeroed = self.changed(at, block, || refused(&format!("block at {at} zeroed")));
            tally.zeroed += usize::from(zeroed.is_some());
        }
        for len in cuts {
            self.cut(len, || refused(&format!("{len} bytes left")));
            tally.cut += 1;
        }
        check().unwrap();
        tally.files += 1;
        tally.bytes += self.len();
    }
}

/// What damage must be called: a failed verification that names the file.
#[track_caller]
fn refused(result: Result<(), BundleError>, path: &Path, what: &str) -> String {
    let error = result.expect_err(what);
    let message = error.to_string();
    assert!(error.is_verification(), "{what}: {message}");
    assert!(message.contains(path.to_str().unwrap()), "{what}: {message}");
    message
}

/// Where the message says that the damage is: the first byte, and the last if it knows.
#[track_caller]
fn said(message: &str) -> (usize, Option<usize>) {
    let number = |after: &str| {
        let text = message.split_once(after)?.1;
        text[..text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len())].parse().ok()
    };
    match (number("at byte "), number(": bytes ")) {
        (Some(at), _) => (at, None),
        (None, Some(first)) => (first, number(" to ")),
        (None, None) => panic!("no place is named: {message}"),
    }
}

/// `all` by steps, and the last of them.
fn by(step: usize, all: std::ops::Range<usize>) -> impl Iterator<Item = usize> {
    let last = all.end - 1;
    all.step_by(step).filter(move |at| *at != last).chain([last])
}

#[test]
fn damage_to_a_bundle_is_detected() {
    let dir = tempfile::tempdir().unwrap();
    let (path, key) = small_bundle(dir.path());
    verify(&path, &key).unwrap();
    let entries: Vec<(usize, usize)> = {
        let bundle = Bundle::open(&path).unwrap();
        let ends =
            (1..).map_while(|nth| Some(bundle.blob(nth)?.1.header)).chain([bundle.tail().entries[0].header]);
        let starts = (0..).map_while(|nth| Some(bundle.blob(nth)?.1.header));
        let place = |at| usize::try_from(at).unwrap();
        starts.zip(ends).map(|(start, end)| (place(start), place(end))).collect()
    };
    // The signatures need not even be asked: what they cover is not what the lock makes it.
    let check = || Bundle::open(&path)?.verify_blobs(1, &|_| ());
    let judge = |at: usize, message: &str| {
        let (offset, _) = said(message);
        if let Some((start, end)) = entries.iter().find(|(start, end)| (*start..*end).contains(&at)) {
            assert!((*start..*end).contains(&offset), "{at}: {message}");
            assert!(message.contains(IMAGE), "{at}: {message}");
        }
    };
    let sweep = Sweep::new(&path);
    let places: Vec<usize> = by(step(23), 0..sweep.len()).collect();
    let mut tally = Tally::default();
    sweep.run(&mut tally, &places, by(step(61), 0..sweep.len()), check, judge);
    let mut longer = sweep.good.clone();
    longer.extend_from_slice(&[0; 512]);
    std::fs::write(&path, &longer).unwrap();
    refused(verify(&path, &key), &path, "longer");
    println!("damage to a bundle: {tally}");
}

/// The places of a volume that are changed: one of `step` of what is around its part and of the tail, and a few inside the
/// part, which is one large blob.
fn places(sweep: &Sweep, step: usize) -> Vec<usize> {
    let volume = Volume::open(&sweep.path).unwrap();
    let part = usize::try_from(volume.header().prefix_len()).unwrap();
    let end = part + usize::try_from(volume.len()).unwrap();
    let head = part..part + usize::try_from(volume.header().head_len()).unwrap();
    let mut places: Vec<usize> = by(step, 0..part).chain(by(4999, head.clone())).collect();
    // The headers of the blobs, and the first one, which is a manifest.
    if volume.number() == 1 {
        places.extend(by(step, part..part + 2048));
    }
    places.extend(by(step, head.end..end).filter(|at| *at >= head.end));
    places.extend(by(step, end..sweep.len()));
    places.sort_unstable();
    places.dedup();
    places
}

#[test]
fn damage_is_detected_by_volumes_together() {
    let volumes = Volumes::new();
    let mut tally = Tally::default();
    for path in &volumes.paths {
        let sweep = Sweep::new(path);
        let volume = Volume::open(path).unwrap();
        let part = usize::try_from(volume.header().prefix_len()).unwrap();
        let head = part..part + usize::try_from(volume.header().head_len()).unwrap();
        let judge = |at: usize, message: &str| {
            let (offset, _) = said(message);
            if at < part {
                assert_eq!(offset, 0, "{at}: {message}");
            } else if head.contains(&at) {
                assert!(offset <= at && at < offset + 4096, "{at}: {message}");
                assert!(message.contains(IMAGE), "{message}");
            } else {
                assert!(offset >= head.end, "{at}: {message}");
            }
        };
        let cuts = by(step(8191).max(if volume.number() == 3 { 1 } else { 61 }), 0..sweep.len());
        let check = || {
            for media in Media::open_all(&volumes.paths)? {
                Bundle::open_damaged(media)?.verify_blobs(1, &|_| ())?;
            }
            Ok(())
        };
        sweep.run(&mut tally, &places(&sweep, step(97)), cuts, check, judge);
    }
    volumes.verify().unwrap();
    println!("damage to volumes, found by all together: {tally}");
}

#[test]
fn damage_is_detected_in_a_volume_alone() {
    let volumes = Volumes::new();
    let mut tally = Tally::default();
    for path in &volumes.paths {
        let sweep = Sweep::new(path);
        let judge = |at: usize, message: &str| match said(message) {
            (first, Some(last)) => assert!((first..=last).contains(&at), "{at}: {message}"),
            (offset, None) => assert!(offset <= at, "{at}: {message}"),
        };
        let check = || Volume::open(path)?.verify(&|_| ());
        sweep.run(&mut tally, &places(&sweep, step(29)), by(step(8191), 0..sweep.len()), check, judge);
    }
    println!("damage to volumes, each alone: {tally}");
}

#[test]
fn damage_is_detected_in_a_recovery_file_alone() {
    let protected = Protected::of(&noise(9000), "20%", None);
    let path = &protected.paths[1];
    let sweep = Sweep::new(path);
    let check = || match Recovery::open(path).unwrap() {
        Some(recovery) => recovery.verify(&|_| ()),
        // Whoever asks is told that it begins as nothing that is known.
        None => Err(BundleError::Malformed { path: path.clone(), offset: 0, what: "unknown".to_owned() }),
    };
    let judge = |at: usize, message: &str| {
        let (first, last) = said(message);
        assert!((first..=last.unwrap()).contains(&at), "{at}: {message}");
    };
    let header = Recovery::open(path).unwrap().unwrap().header;
    let place = |at: u64| usize::try_from(at).unwrap();
    let part = place(header.part_offset())..place(header.second());
    let mut places: Vec<usize> = by(step(61), 0..part.start).collect();
    places.extend(by(step(997), part.clone()));
    places.extend(by(step(61), part.end..sweep.len()));
    let mut tally = Tally::default();
    sweep.run(&mut tally, &places, by(step(1021), 0..sweep.len()), check, judge);
    println!("damage to a recovery file, alone: {tally}");
}

#[test]
fn damage_anywhere_is_repaired() {
    let protected = Protected::volumes();
    let every = step(2) == 1;
    let mut repaired = 0;
    for (nth, good) in protected.good.iter().enumerate() {
        let len = good.len() as u64;
        // Half of the steps fall into what is around the parts, which is small.
        let (around, inside) = if every { (149, 4001) } else { (3001, 60_011) };
        let places = (0..7000).step_by(around).chain((7000..len).step_by(inside)).chain([len - 1]);
        for at in places {
            protected.spoil(nth, at, 1);
            let done = protected.is_restored();
            let made: Vec<&PathBuf> = done.files.iter().chain(&done.recovery).collect();
            assert_eq!(made, [&protected.paths[nth]], "byte {at}");
            repaired += 1;
        }
    }
    println!("{repaired} places of volumes and recovery files damaged and repaired");
}
