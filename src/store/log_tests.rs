//! The log: what it records, and that nobody can change it unnoticed.

use std::collections::BTreeSet;
use std::time::Duration;

use fs_err as fs;
use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::trust::PrivateKey;

/// A receipt as dray 0.1.0 wrote it.
pub(super) fn first_version(number: u64, previous: Option<&str>, sequence: u64) -> String {
    json!({"number": number, "previous": previous.map(|text| Digest::sha256(text.as_bytes())), "name": "plant-7",
        "sequence": sequence, "digest": Digest::sha256(b"bundle"), "imported": format!("2026-11-22T08:25:{number:02}Z"),
        "verifiedBy": [], "verificationSkipped": true, "rollback": false, "expired": false, "releases": [], "images": 1,
        "copiedBlobs": 3, "copiedBytes": 4})
    .to_string()
}

/// A store of layout 1 with `count` imports.
fn first_layout(count: u64) -> (tempfile::TempDir, Store) {
    let (directory, store) = new();
    let marker = json!({"version": 1, "id": store.id()});
    fs::write(store.path().join("store.json"), marker.to_string()).unwrap();
    let mut previous: Option<String> = None;
    for number in 1..=count {
        let record = first_version(number, previous.as_deref(), number);
        fs::write(store.path().join(format!("imports/{number:06}.json")), &record).unwrap();
        previous = Some(record);
    }
    let store = Store::open(store.path()).unwrap();
    (directory, store)
}

fn new() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::create(&directory.path().join("store")).unwrap();
    (directory, store)
}

pub(super) fn import(sequence: u64) -> Event {
    Event::Import(Import {
        name: "plant-7".into(),
        sequence,
        digest: Digest::sha256(b"bundle"),
        verified_by: Vec::new(),
        verification_skipped: true,
        rollback: false,
        expired: false,
        missing: Vec::new(),
        missing_files: Vec::new(),
        releases: Vec::new(),
        images: 1,
        copied_blobs: 0,
        copied_bytes: 0,
    })
}

fn at(second: i64, key: Option<&PrivateKey>) -> Author<'_> {
    Author { user: Some("ann"), now: Timestamp::from_second(second).unwrap(), key }
}

fn writer(store: &Store) -> Writer {
    store.writer("dray import", Duration::from_secs(10)).unwrap()
}

/// Records imports with these sequence numbers, the first one by way of a batch.
fn record(store: &Store, sequences: impl IntoIterator<Item = u64>) {
    let writer = writer(store);
    for sequence in sequences {
        if sequence == 1 {
            let mut batch = writer.batch();
            batch.record(import(sequence), &at(1_000, None)).unwrap();
            batch.commit().unwrap();
        } else {
            writer.record(import(sequence), &at(1_000, None)).unwrap();
        }
    }
}

fn sequences(store: &Store) -> Vec<u64> {
    store.imports().unwrap().iter().map(|receipt| receipt.import().unwrap().sequence).collect()
}

/// The files of the log, within `imports`.
fn files(store: &Store) -> BTreeSet<String> {
    store.log_files().unwrap()
}

#[test]
fn receipts_are_numbered_linked_and_named_by_digest() {
    let (_directory, store) = new();
    record(&store, 1..=3);
    let log = store.log().unwrap().sound().unwrap();
    let numbers: Vec<u64> = log.entries.iter().map(|entry| entry.receipt.number).collect();
    assert_eq!((numbers, sequences(&store)), (vec![1, 2, 3], vec![1, 2, 3]));
    let expected: BTreeSet<String> = log
        .entries
        .iter()
        .map(|entry| format!("{}/{:06}-{}.json", store.id(), entry.receipt.number, entry.digest.hex()))
        .collect();
    assert_eq!(files(&store), expected);
    assert_eq!(log.entries[2].receipt.previous.as_ref(), Some(&log.entries[1].digest));
    assert_eq!(log.entries[0].receipt.user.as_deref(), Some("ann"));
    assert_eq!(log.entries[0].receipt.command, "dray import");
    let report = log.verify(&[], &[log.entries[1].digest.clone()]).unwrap();
    assert_eq!((report.entries, report.head.as_ref()), (3, Some(&log.entries[2].digest)));
    assert_eq!(fs::read_dir(store.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn log_of_layout_1_continues() {
    let (_directory, store) = first_layout(2);
    assert_eq!(sequences(&store), [1, 2]);
    assert!(fs::read_to_string(store.path().join("store.json")).unwrap().contains("\"version\":1"));
    record(&store, [3, 4]);
    assert_eq!(sequences(&store), [1, 2, 3, 4]);
    let marker = fs::read_to_string(store.path().join("store.json")).unwrap();
    assert!(
        marker.contains("\"version\":2") && marker.contains(store.id()),
        "a program of layout 1 keeps away"
    );
    let log = Store::open(store.path()).unwrap().log().unwrap();
    assert_eq!(log.verify(&[], &[]).unwrap().entries, 4);
    let third = &log.entries[2].receipt;
    assert_eq!((third.number, third.previous.as_ref()), (3, Some(&log.entries[1].digest)));
    assert!(files(&store).contains("000002.json"), "what was written stays as it is");
}

/// What may happen to a file of the log. Gives the words that the damage is described with.
type Harm = fn(&Path) -> &'static str;

const HARMS: [Harm; 9] = [
    |path| {
        fs::write(path, b"").unwrap();
        "not a receipt"
    },
    |path| {
        fs::write(path, b"\0\0\0\0\0\0").unwrap();
        "not a receipt"
    },
    |path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        "not a receipt"
    },
    |path| {
        fs::write(path, br#"{"version":3,"kind":"import","number":2}"#).unwrap();
        "version 3"
    },
    |path| {
        fs::write(path, br#"{"version":2,"kind":"merge","number":2}"#).unwrap();
        "`merge`"
    },
    |path| {
        let text = fs::read_to_string(path).unwrap().replace("\"images\":1", "\"images\":2");
        fs::write(path, text).unwrap();
        "was changed after it was written"
    },
    |path| {
        fs::remove_file(path).unwrap();
        "missing from the log"
    },
    |path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
        "not a regular file"
    },
    |path| {
        fs::rename(path, path.with_file_name("000002-copy.json")).unwrap();
        "not that of a receipt"
    },
];

/// The second of three receipts, in both layouts.
fn second_of_three(first: bool) -> (tempfile::TempDir, Store, PathBuf) {
    let (directory, store) = if first { first_layout(2) } else { new() };
    record(&store, if first { 3..=3 } else { 1..=3 });
    let prefix = if first { "000002".to_owned() } else { format!("{}/000002-", store.id()) };
    let file = files(&store).into_iter().find(|file| file.starts_with(&prefix)).unwrap();
    let path = store.path().join("imports").join(file);
    (directory, store, path)
}

#[test]
fn damaged_receipt_of_any_kind_stops_decisions_until_accepted() {
    for first in [false, true] {
        for (nth, harm) in HARMS.into_iter().enumerate() {
            let (_directory, store, path) = second_of_three(first);
            let good = fs::read(&path).unwrap();
            let words = harm(&path);
            let error = store.imports().unwrap_err();
            assert!(
                matches!(error, StoreError::Log(_)) && error.to_string().contains(words),
                "{nth}: {error}"
            );
            assert!(matches!(store.log().unwrap().verify(&[], &[]), Err(LogError::Damaged(_))), "{nth}");
            assert!(!store.log().unwrap().entries.is_empty(), "{nth}: the others can be read");

            let accepted = writer(&store).accept_damage(&at(2_000, None)).unwrap().unwrap();
            assert_eq!(accepted.receipt.number, 4);
            let counted: BTreeSet<u64> = sequences(&store).into_iter().collect();
            let expected = if words.starts_with("was changed") { vec![1, 2, 3] } else { vec![1, 3] };
            assert_eq!(counted, BTreeSet::from_iter(expected), "{nth}: what can be read counts");
            let report = store.log().unwrap().verify(&[], &[]).unwrap();
            assert!(report.accepted > 0, "{nth}");
            assert!(writer(&store).accept_damage(&at(3_000, None)).unwrap().is_none(), "{nth}");
            record(&store, [5]);
            assert_eq!(store.log().unwrap().verify(&[], &[]).unwrap().accepted, report.accepted);

            // Put back it counts again; other damage in its place was never accepted.
            let _ = fs::remove_dir(&path);
            let _ = fs::remove_file(path.with_file_name("000002-copy.json"));
            fs::write(&path, &good).unwrap();
            assert!(sequences(&store).contains(&2), "{nth}");
            fs::write(&path, b"something else").unwrap();
            assert!(store.imports().is_err(), "{nth}");
        }
    }
}

#[test]
fn chain_that_was_cut_off_is_missed_by_who_kept_a_receipt() {
    let (_directory, store) = new();
    record(&store, 1..=2);
    let log = store.log().unwrap();
    let newest = log.entries[1].digest.clone();
    let file = files(&store).into_iter().next_back().unwrap();
    fs::remove_file(store.path().join("imports").join(file)).unwrap();
    let gone = store.log().unwrap().verify(&[], std::slice::from_ref(&newest)).unwrap_err();
    assert!(matches!(gone, LogError::Gone(digest) if digest == newest));
}

#[test]
fn receipt_copied_to_another_number_or_chain_is_damage() {
    let (_directory, store) = new();
    record(&store, 1..=2);
    let first = files(&store).into_iter().next().unwrap();
    let (_, name) = first.split_once('/').unwrap();
    let from = store.path().join("imports").join(&first);
    let other = "0123456789abcdef0123456789abcdef";
    for to in [
        format!("{}/{}", store.id(), name.replace("000001", "000003")),
        format!("{}/{}", store.id(), name.replace("000001", "000002")),
        format!("{other}/{name}"),
        "000001.json".to_owned(),
        "000007.json".to_owned(),
    ] {
        let to = store.path().join("imports").join(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&from, &to).unwrap();
        assert!(store.imports().is_err(), "{}", to.display());
        fs::remove_file(to).unwrap();
        assert!(store.imports().is_ok());
    }
}

#[test]
fn what_is_no_receipt_is_ignored() {
    let (_directory, store) = new();
    record(&store, [1]);
    let imports = store.path().join("imports");
    for name in [".tmp0a", "._000001.json", "notes.txt", "000001.json.bak"] {
        fs::write(imports.join(name), b"x").unwrap();
        fs::write(imports.join(store.id()).join(name), b"x").unwrap();
    }
    fs::create_dir(imports.join("old")).unwrap();
    assert_eq!(sequences(&store), [1]);
}

#[test]
fn newest_receipt_of_a_command_must_be_signed_and_every_signature_good() {
    let (site, other) = (PrivateKey::generate(), PrivateKey::generate());
    let check = |keys: [Option<&PrivateKey>; 2]| {
        let (_directory, store) = new();
        for (sequence, key) in (1..).zip(keys) {
            writer(&store).record(import(sequence), &at(1_000, key)).unwrap();
        }
        // Servers do not sign.
        OwnChain::new(&store, "dray serve")
            .record(Event::Push(Changes::default()), &at(2_000, None))
            .unwrap();
        store.log().unwrap().verify(&[site.public()], &[])
    };
    assert_eq!(check([None, Some(&site)]).unwrap().signed, 1);
    assert_eq!(check([Some(&site), Some(&site)]).unwrap().signed, 2);
    assert!(matches!(check([Some(&site), None]), Err(LogError::Unsigned { number: 2 })));
    assert!(matches!(check([Some(&other), Some(&site)]), Err(LogError::Signature { number: 1, .. })));
}

#[test]
fn chains_of_several_writers_are_merged_and_name_each_other() {
    let (_directory, store) = new();
    record(&store, [1]);
    let mut servers = [OwnChain::new(&store, "dray serve"), OwnChain::new(&store, "dray serve")];
    // A server needs no lock: it records while a command holds it.
    let held = writer(&store);
    for (nth, second) in [(0, 1_010), (1, 1_005), (0, 1_020)] {
        servers[nth].record(Event::Push(Changes::default()), &at(second, None)).unwrap();
    }
    drop(held);
    writer(&store).record(import(2), &at(1_030, None)).unwrap();
    let log = store.log().unwrap().sound().unwrap();
    let times: Vec<i64> = log.entries.iter().map(|entry| entry.receipt.time.as_second()).collect();
    assert_eq!(times, [1_000, 1_005, 1_010, 1_020, 1_030]);
    let report = log.verify(&[], &[]).unwrap();
    assert_eq!((report.entries, report.heads.len()), (5, 3));
    assert_eq!(log.entries[4].receipt.others.len(), 2, "the ends of both servers");
    // So a whole chain cannot be removed either.
    let server = log.entries[2].receipt.writer.clone();
    fs::remove_dir_all(store.path().join("imports").join(server)).unwrap();
    assert!(store.imports().unwrap_err().to_string().contains("of another chain"));
}

#[test]
fn clock_that_was_set_back_does_not_reorder_a_chain() {
    let (_directory, store) = new();
    let writer = writer(&store);
    for (sequence, second) in [(1, 9_000), (2, 1_000), (3, 10_000)] {
        writer.record(import(sequence), &at(second, None)).unwrap();
    }
    assert_eq!(sequences(&store), [1, 2, 3]);
}

#[test]
fn writers_at_the_same_time_lose_nothing() {
    let (_directory, store) = new();
    let servers: Vec<_> = (0..4)
        .map(|_| {
            let mut chain = OwnChain::new(&store, "dray serve");
            std::thread::spawn(move || {
                for second in 0..10 {
                    chain.record(Event::Push(Changes::default()), &at(second, None)).unwrap();
                }
            })
        })
        .collect();
    record(&store, 1..=10);
    for server in servers {
        server.join().unwrap();
    }
    let report = store.log().unwrap().verify(&[], &[]).unwrap();
    assert_eq!((report.entries, report.heads.len()), (50, 5));
}
