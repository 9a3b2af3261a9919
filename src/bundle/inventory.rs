//! The inventory: which content a store has, small enough to be carried back over the gap.
//!
//! ```text
//! dray-inventory 2 <store> <time> <count> <bundles>\n   the store's identity, RFC 3339, how many digests and bundles follow
//! bundle <name> <sequence> <digest>\n                   a line for each name of bundles, in their order: the newest one that
//!                                                       was imported, by the digest of its bundle index
//! <count × 32 bytes>                                    SHA-256 digests, in their order, without anything between them
//! signature <key> <base64>\n                            optional: ECDSA P-256 of everything before this line
//! ```
//!
//! Version 1, which a store without bundles has still, lacks the number of bundles and their lines.
//!
//! There is one way to write an inventory, and nothing else is read. A false one does no harm at the site, which proves
//! that it has what a bundle leaves out before it changes anything; it can only make a bundle too small or too large.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Serialize;

use crate::oci::{Algorithm, Digest};
use crate::resolve::BundleName;
use crate::store::{Import, Store, StoreError};
use crate::trust::{KeyId, PrivateKey, PublicKey};

/// The versions of the form: without bundles, and with them.
const VERSIONS: [&str; 2] = ["1", "2"];
/// The most bundles that are listed.
const MAX_BUNDLES: usize = 10_000;
/// The first word of every inventory.
const MAGIC: &str = "dray-inventory";
/// The first word of the line of a bundle.
const BUNDLE: &str = "bundle";
/// The first word of the last line.
const SIGNATURE: &str = "signature";
/// The largest inventory that is read, in bytes: two million digests, which is more than a store of 100 TB has.
pub const MAX_INVENTORY_BYTES: usize = 64 * 1024 * 1024;
/// The longest first or last line.
const MAX_LINE: usize = 512;
/// The bytes of a digest.
const RAW: usize = 32;

/// Why bytes are not an inventory that can be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InventoryError {
    /// Something else, or cut off before the end of the first line.
    #[error("this is no inventory; `dray inventory` makes one")]
    NotAnInventory,
    /// Written by a later version of this program.
    #[error("the inventory has version {0}, this dray reads versions 1 and 2; use a newer dray")]
    Version(String),
    /// Larger than any inventory.
    #[error("the inventory is larger than {MAX_INVENTORY_BYTES} bytes")]
    TooLarge,
    /// An inventory that was damaged on its way.
    #[error("the inventory is damaged: {0}; copy it again from the site")]
    Damaged(&'static str),
    /// There is no signature, and one was asked for.
    #[error("the inventory is not signed; make it again at the site with `dray inventory --key`")]
    Unsigned,
    /// The signature is by none of the keys that were given.
    #[error("the inventory is not signed by a trusted key; it says that it is signed by {claimed}")]
    Untrusted {
        /// The key that the signature says it is by.
        claimed: String,
    },
}

/// Which content a store has, and when that was so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    store: String,
    taken: Timestamp,
    /// Sorted by name, each name once.
    bundles: Vec<InventoryBundle>,
    /// Sorted, each once.
    digests: Vec<[u8; RAW]>,
    signature: Option<Signature>,
}

/// The newest bundle of its name that was imported.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct InventoryBundle {
    /// The name of the bundle.
    pub name: BundleName,
    /// Its sequence number.
    pub sequence: u64,
    /// The digest of its bundle index.
    pub digest: Digest,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Signature {
    claimed_key: String,
    der: Vec<u8>,
}

impl Inventory {
    /// Lists what `store` has. No content is read, so what is damaged there is listed as well.
    ///
    /// Content under SHA-512 is left out, and so travels again: hardly any image has it, and its digests are twice as long.
    pub fn of(store: &Store, now: Timestamp) -> Result<Self, StoreError> {
        let mut digests = Vec::new();
        store.each_digest(|digest| digests.extend(raw(digest)))?;
        let mut newest: BTreeMap<BundleName, InventoryBundle> = BTreeMap::new();
        for receipt in store.imports()? {
            let Some(import) = receipt.import() else { continue };
            let Ok(name) = import.name.parse::<BundleName>() else { continue };
            // Of two with the same number, allowed by somebody, the later one counts.
            if newest.get(&name).is_none_or(|known| known.sequence <= import.sequence) {
                let Import { sequence, digest, .. } = import.clone();
                newest.insert(name.clone(), InventoryBundle { name, sequence, digest });
            }
        }
        let bundles = newest.into_values().take(MAX_BUNDLES).collect();
        Ok(Self::new(store.id(), now, bundles, digests))
    }

    fn new(store: &str, now: Timestamp, bundles: Vec<InventoryBundle>, mut digests: Vec<[u8; RAW]>) -> Self {
        digests.sort_unstable();
        digests.dedup();
        // Whole seconds, which is what the form has room for.
        let taken = Timestamp::from_second(now.as_second()).unwrap_or(now);
        Self { store: store.to_owned(), taken, bundles, digests, signature: None }
    }

    /// The identity of the store, which it keeps for good.
    pub fn store(&self) -> &str {
        &self.store
    }

    /// When the store was looked at.
    pub fn taken(&self) -> Timestamp {
        self.taken
    }

    /// Returns the newest bundle of each name that was imported.
    pub fn bundles(&self) -> &[InventoryBundle] {
        &self.bundles
    }

    /// How many pieces of content are listed.
    pub fn len(&self) -> usize {
        self.digests.len()
    }

    /// Whether nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// Whether the store has `digest`.
    pub fn contains(&self, digest: &Digest) -> bool {
        raw(digest).is_some_and(|raw| self.digests.binary_search(&raw).is_ok())
    }

    /// Signs the inventory, in place of a signature that it may have.
    pub fn sign(&mut self, key: &PrivateKey) {
        let claimed_key = key.public().id().as_str().to_owned();
        self.signature = Some(Signature { claimed_key, der: key.sign(&self.content()) });
    }

    /// The key that the signature says it is by; none when there is no signature.
    pub fn claimed_key(&self) -> Option<&str> {
        self.signature.as_ref().map(|signature| signature.claimed_key.as_str())
    }

    /// The key among `keys` that signed.
    pub fn check(&self, keys: &[PublicKey]) -> Result<KeyId, InventoryError> {
        let signature = self.signature.as_ref().ok_or(InventoryError::Unsigned)?;
        let content = self.content();
        keys.iter()
            .find(|key| key.verifies(&content, &signature.der))
            .map(PublicKey::id)
            .ok_or_else(|| InventoryError::Untrusted { claimed: signature.claimed_key.clone() })
    }

    /// The bytes of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.content();
        if let Some(Signature { claimed_key, der }) = &self.signature {
            let line = format!("{SIGNATURE} {claimed_key} {}\n", STANDARD.encode(der));
            bytes.extend_from_slice(line.as_bytes());
        }
        bytes
    }

    /// Reads the bytes of the file.
    pub fn parse(bytes: &[u8]) -> Result<Self, InventoryError> {
        if bytes.len() > MAX_INVENTORY_BYTES {
            return Err(InventoryError::TooLarge);
        }
        let (line, rest) = first_line(bytes).ok_or(InventoryError::NotAnInventory)?;
        let mut words = line.split(' ');
        if words.next() != Some(MAGIC) {
            return Err(InventoryError::NotAnInventory);
        }
        let has_bundles = match words.next() {
            Some(version) if version == VERSIONS[0] => false,
            Some(version) if version == VERSIONS[1] => true,
            Some(other) => return Err(InventoryError::Version(other.chars().take(20).collect())),
            None => return Err(InventoryError::NotAnInventory),
        };
        let damaged = || InventoryError::Damaged("its first line is not that of an inventory");
        let words: Vec<&str> = words.collect();
        let (store, taken, count, bundles) = match words[..] {
            [store, taken, count] if !has_bundles => (store, taken, count, "0"),
            [store, taken, count, bundles] if has_bundles => (store, taken, count, bundles),
            _ => return Err(damaged()),
        };
        if !is_hex(store, 32) {
            return Err(damaged());
        }
        let taken: Timestamp = taken.parse().map_err(|_| damaged())?;
        let count: usize = count.parse().map_err(|_| damaged())?;
        let bundles: usize =
            bundles.parse().ok().filter(|count| *count <= MAX_BUNDLES).ok_or_else(damaged)?;
        let (bundles, rest) = parse_bundles(rest, bundles)?;
        let length = count.checked_mul(RAW).filter(|length| *length <= rest.len());
        let length = length.ok_or(InventoryError::Damaged("it is cut off"))?;
        let (digests, rest) = rest.split_at(length);
        let digests: Vec<[u8; RAW]> =
            digests.chunks_exact(RAW).filter_map(|raw| raw.try_into().ok()).collect();
        if digests.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(InventoryError::Damaged("its digests are not in order"));
        }
        let signature = if rest.is_empty() { None } else { Some(parse_signature(rest)?) };
        let inventory = Self { store: store.to_owned(), taken, bundles, digests, signature };
        // Numbers and times can be written in more than one way; only ours is signed.
        if inventory.first_line() != format!("{line}\n") {
            return Err(damaged());
        }
        Ok(inventory)
    }

    fn first_line(&self) -> String {
        let (version, bundles) = match self.bundles.len() {
            0 => (VERSIONS[0], String::new()),
            count => (VERSIONS[1], format!(" {count}")),
        };
        format!("{MAGIC} {version} {} {} {}{bundles}\n", self.store, self.taken, self.digests.len())
    }

    /// Everything that a signature is over.
    fn content(&self) -> Vec<u8> {
        let mut bytes = self.first_line().into_bytes();
        bytes.extend(self.bundles.iter().flat_map(|bundle| bundle.line().into_bytes()));
        bytes.extend(self.digests.iter().flatten());
        bytes
    }
}

impl InventoryBundle {
    fn line(&self) -> String {
        format!("{BUNDLE} {} {} {}\n", self.name, self.sequence, self.digest)
    }

    fn parse(line: &str) -> Option<Self> {
        let [word, name, sequence, digest] = line.split(' ').collect::<Vec<_>>().try_into().ok()?;
        let bundle =
            Self { name: name.parse().ok()?, sequence: sequence.parse().ok()?, digest: digest.parse().ok()? };
        // Numbers can be written in more than one way; only ours is signed.
        (word == BUNDLE && bundle.line().trim_end() == line).then_some(bundle)
    }
}

/// Reads `count` lines of bundles, and returns what follows them.
fn parse_bundles(mut rest: &[u8], count: usize) -> Result<(Vec<InventoryBundle>, &[u8]), InventoryError> {
    let mut bundles: Vec<InventoryBundle> = Vec::new();
    for _ in 0..count {
        let damaged = InventoryError::Damaged("its bundles are not listed as they should be");
        let Some((line, after)) = first_line(rest) else { return Err(damaged) };
        match InventoryBundle::parse(line) {
            Some(bundle) if bundles.last().is_none_or(|last| last.name < bundle.name) => bundles.push(bundle),
            _ => return Err(damaged),
        }
        rest = after;
    }
    Ok((bundles, rest))
}

/// The text up to the first newline, and what follows it.
fn first_line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().take(MAX_LINE).position(|byte| *byte == b'\n')?;
    Some((std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 1..]))
}

fn parse_signature(line: &[u8]) -> Result<Signature, InventoryError> {
    let damaged = || InventoryError::Damaged("what follows its digests is no signature");
    let (line, rest) = first_line(line).ok_or_else(damaged)?;
    let [word, key, encoded] = line.split(' ').collect::<Vec<_>>().try_into().map_err(|_| damaged())?;
    if word != SIGNATURE || !is_hex(key, 64) || !rest.is_empty() {
        return Err(damaged());
    }
    let der = STANDARD.decode(encoded).map_err(|_| damaged())?;
    Ok(Signature { claimed_key: key.to_owned(), der })
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The bytes that a SHA-256 digest stands for.
fn raw(digest: &Digest) -> Option<[u8; RAW]> {
    if digest.algorithm() != Algorithm::Sha256 {
        return None;
    }
    let mut raw = [0; RAW];
    for (byte, at) in raw.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(digest.hex().get(at..at + 2)?, 16).ok()?;
    }
    Some(raw)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STORE: &str = "0123456789abcdef0123456789abcdef";

    fn sample(count: u32) -> Inventory {
        let now = "2026-11-22T05:47:14.9Z".parse().unwrap();
        let digests = (0..count).filter_map(|n| raw(&Digest::sha256(&n.to_be_bytes()))).collect();
        Inventory::new(STORE, now, Vec::new(), digests)
    }

    fn with_bundles(count: u32, bundles: &[(&str, u64)]) -> Inventory {
        let one = |(name, sequence): &(&str, u64)| InventoryBundle {
            name: name.parse().unwrap(),
            sequence: *sequence,
            digest: Digest::sha256(name.as_bytes()),
        };
        Inventory { bundles: bundles.iter().map(one).collect(), ..sample(count) }
    }

    #[test]
    fn bundles_are_listed_by_name_before_the_content() {
        let mut inventory = with_bundles(3, &[("apps", 12), ("plant-7", u64::MAX)]);
        inventory.sign(&PrivateKey::generate());
        let bytes = inventory.to_bytes();
        assert!(bytes.starts_with(b"dray-inventory 2 "));
        let read = Inventory::parse(&bytes).unwrap();
        assert_eq!(read, inventory);
        assert_eq!(read.bundles()[1].sequence, u64::MAX);
        // A store without bundles writes what older programs read.
        assert!(sample(3).to_bytes().starts_with(b"dray-inventory 1 "));
        assert_eq!(Inventory::parse(&sample(3).to_bytes()).unwrap().bundles(), []);
        let refused = |bundles: &[(&str, u64)]| {
            let damaged = InventoryError::Damaged("its bundles are not listed as they should be");
            Inventory::parse(&with_bundles(3, bundles).to_bytes()) == Err(damaged)
        };
        assert!(refused(&[("b", 1), ("a", 1)]) && refused(&[("a", 1), ("a", 2)]));
        let spelled = String::from_utf8(with_bundles(0, &[("a", 1)]).to_bytes()).unwrap();
        assert!(Inventory::parse(spelled.replace("bundle a 1", "bundle a 01").as_bytes()).is_err());
        assert!(Inventory::parse(spelled.replace(" 0 1\n", " 0 99999\n").as_bytes()).is_err());
    }

    #[test]
    fn survives_writing_and_knows_what_it_lists() {
        let inventory = sample(100);
        let again = Inventory::parse(&inventory.to_bytes()).unwrap();
        assert_eq!(again, inventory);
        assert_eq!((again.len(), again.store()), (100, STORE));
        assert_eq!(again.taken().to_string(), "2026-11-22T05:47:14Z");
        assert!(again.contains(&Digest::sha256(&7u32.to_be_bytes())));
        assert!(!again.contains(&Digest::sha256(b"another")));
        assert!(sample(0).is_empty());
        assert_eq!(Inventory::parse(&sample(0).to_bytes()).unwrap(), sample(0));
    }

    #[test]
    fn takes_less_than_forty_bytes_for_a_blob() {
        let mut inventory = sample(100);
        inventory.sign(&PrivateKey::generate());
        assert!(inventory.to_bytes().len() <= 100 * 40, "{}", inventory.to_bytes().len());
    }

    #[test]
    fn lists_what_a_store_has_without_reading_it() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::create(&directory.path().join("store")).unwrap();
        let now = Timestamp::UNIX_EPOCH;
        assert!(Inventory::of(&store, now).unwrap().is_empty());
        let writer = store.writer("test", std::time::Duration::ZERO).unwrap();
        let digest = Digest::sha256(b"layer");
        let mut blob = writer.begin_blob(&digest, 5).unwrap();
        blob.write(b"layer").unwrap();
        blob.commit().unwrap();
        let inventory = Inventory::of(&store, now).unwrap();
        assert_eq!((inventory.len(), inventory.contains(&digest)), (1, true));
        assert_eq!(Store::open(store.path()).unwrap().id(), inventory.store());
        let other = Store::create(&directory.path().join("other")).unwrap();
        assert_ne!(other.id(), store.id());
    }

    #[test]
    fn a_signature_covers_every_byte() {
        let (key, other) = (PrivateKey::generate(), PrivateKey::generate());
        let mut inventory = with_bundles(3, &[("plant-7", 4)]);
        assert_eq!(inventory.check(&[key.public()]), Err(InventoryError::Unsigned));
        inventory.sign(&key);
        let bytes = inventory.to_bytes();
        let read = Inventory::parse(&bytes).unwrap();
        assert_eq!(read.check(&[other.public(), key.public()]), Ok(key.public().id()));
        assert!(matches!(read.check(&[other.public()]), Err(InventoryError::Untrusted { .. })));
        for at in 0..inventory.content().len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            let held = Inventory::parse(&damaged).is_ok_and(|read| read.check(&[key.public()]).is_ok());
            assert!(!held, "byte {at}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let bytes = sample(3).to_bytes();
        let refused = |bytes: &[u8]| Inventory::parse(bytes).unwrap_err();
        assert_eq!(refused(b""), InventoryError::NotAnInventory);
        assert_eq!(refused(b"{\"schemaVersion\": 1}\n"), InventoryError::NotAnInventory);
        assert_eq!(refused(b"dray-inventory 3 x\n"), InventoryError::Version("3".into()));
        assert_eq!(refused(&bytes[..bytes.len() - 1]), InventoryError::Damaged("it is cut off"));
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(matches!(refused(&longer), InventoryError::Damaged(_)));
        let count = format!("dray-inventory 1 {STORE} 2026-11-22T05:47:14Z {}\n", usize::MAX);
        assert_eq!(refused(count.as_bytes()), InventoryError::Damaged("it is cut off"));
        let spelled = format!("dray-inventory 1 {STORE} 2026-11-22T05:47:14.0Z +0\n");
        assert!(matches!(refused(spelled.as_bytes()), InventoryError::Damaged(_)));
        let mut swapped = bytes;
        let first = swapped.len() - 3 * RAW;
        swapped[first..first + 2 * RAW].rotate_left(RAW);
        assert_eq!(refused(&swapped), InventoryError::Damaged("its digests are not in order"));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Inventory::parse(&bytes);
        }

        #[test]
        fn what_is_read_is_written_the_same(
            version in "[12]",
            count in "[0-9+]{1,3}",
            bundles in "( [0-2+]{1,2})?",
            lines in "(bundle [a-c-]{1,2} [0-9+]{1,2} sha256:0{64}\n){0,2}",
            time in "2026-11-22T05:47:1[0-9](\\.0)?Z",
            body in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut bytes = format!("dray-inventory {version} {STORE} {time} {count}{bundles}\n{lines}").into_bytes();
            bytes.extend(body);
            if let Ok(inventory) = Inventory::parse(&bytes) {
                prop_assert_eq!(inventory.to_bytes(), bytes);
            }
        }
    }
}
