//! Receipts: what happened to a store, one for each import, each prune, and each batch of pushes or deletions.
//!
//! A receipt is parsed here and nowhere else. What cannot be parsed is never skipped: a decision that protects the store
//! from older bundles is only as good as the receipts that it rests on.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use crate::oci::{Digest, Reference, RepositoryName, Tag};

/// The version of the receipts that this program writes. Version 1, written by dray 0.1.0, states no version.
pub const RECEIPT_VERSION: u32 = 2;
/// What a receipt of [`RECEIPT_VERSION`] may be about.
const KINDS: [&str; 5] = ["import", "prune", "push", "delete", "acceptDamage"];

/// A link in a chain of receipts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// The version of its form: 1 or [`RECEIPT_VERSION`].
    pub version: u32,
    /// The writer whose chain it belongs to: the store's own id for commands, an id drawn at random for a server.
    pub writer: String,
    /// Counts the receipts of the chain from 1.
    pub number: u64,
    /// The digest of the receipt before this one in the chain, so that none can be changed or removed unnoticed.
    pub previous: Option<Digest>,
    /// The digests of the newest receipts of other chains, where no other receipt names them yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Digest>,
    /// When it was written.
    pub time: Timestamp,
    /// The command that wrote it, `dray import`.
    pub command: String,
    /// The user of the operating system who ran the command, as far as that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened to a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Event {
    /// A bundle was imported.
    Import(Import),
    /// Content was removed that only releases needed which the site is done with.
    Prune(Prune),
    /// Clients pushed.
    Push(Changes),
    /// Clients deleted.
    Delete(Changes),
    /// Somebody declared that the log goes on without receipts that are damaged or lost.
    AcceptDamage(AcceptDamage),
}

impl Event {
    /// Returns whether a command wrote the receipt, which signs it if it has a key. Servers do not sign.
    pub fn is_signable(&self) -> bool {
        match self {
            Self::Import(_) | Self::Prune(_) | Self::AcceptDamage(_) => true,
            Self::Push(_) | Self::Delete(_) => false,
        }
    }

    /// Returns the kind as the receipt states it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Import(_) => "import",
            Self::Prune(_) => "prune",
            Self::Push(_) => "push",
            Self::Delete(_) => "delete",
            Self::AcceptDamage(_) => "acceptDamage",
        }
    }
}

/// The import of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Import {
    /// The name of the bundle.
    pub name: String,
    /// Its sequence number.
    pub sequence: u64,
    /// The digest of its bundle index.
    pub digest: Digest,
    /// The trusted keys that had signed it.
    pub verified_by: Vec<String>,
    /// Whether it was imported without verification, which somebody had to ask for.
    pub verification_skipped: bool,
    /// Whether it replaced a newer bundle, which somebody had to ask for.
    #[serde(default)]
    pub rollback: bool,
    /// Whether it had expired, which somebody had to allow.
    #[serde(default)]
    pub expired: bool,
    /// The images of it that were damaged and therefore not imported.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Reference>,
    /// The addresses of the plain files that were damaged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_files: Vec<String>,
    /// The releases in it.
    pub releases: Vec<String>,
    /// How many images it brought.
    pub images: usize,
    /// How many blobs were copied; the store had the others.
    pub copied_blobs: usize,
    /// How many bytes were copied.
    pub copied_bytes: u64,
}

impl Import {
    /// Returns whether a part of the bundle was damaged. Importing a whole copy of it brings the rest.
    pub fn is_partial(&self) -> bool {
        !self.missing.is_empty() || !self.missing_files.is_empty()
    }
}

/// The removal of what only releases needed that the site is done with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Prune {
    /// The releases that were kept.
    pub keep: BTreeSet<String>,
    /// The images that were removed.
    pub removed: BTreeSet<Reference>,
    /// The tags that were removed, `registry.k8s.io/pause:3.9`.
    pub tags: BTreeSet<String>,
    /// The addresses of the plain files that were removed.
    pub files: BTreeSet<String>,
    /// How many blobs were removed.
    pub blobs: u64,
    /// Their size together in bytes.
    pub bytes: u64,
}

/// What clients pushed or deleted within a short time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Changes {
    /// Each manifest that was pushed, or each thing that was deleted, in order.
    pub changes: Vec<Change>,
    /// How many blobs were uploaded.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub blobs: u64,
    /// The size of these blobs together in bytes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes: u64,
    /// How many changes are not listed, because the disk was full for too long to remember them all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unlisted: u64,
}

impl Changes {
    /// Returns whether nothing happened.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.blobs == 0 && self.unlisted == 0
    }
}

/// One change that a client made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// When it was made.
    pub time: Timestamp,
    /// What was pushed or deleted.
    pub what: Changed,
    /// The repository.
    pub repository: RepositoryName,
    /// The tags that were set or deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
    /// The manifest or blob; `None` where a tag alone was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The registry user who made it, where users have to log in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The address that the request came from.
    pub client: IpAddr,
}

/// What a client pushed or deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Changed {
    /// A manifest or index.
    Manifest,
    /// A tag alone.
    Tag,
    /// A blob.
    Blob,
}

/// The receipts that the log goes on without.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AcceptDamage {
    /// What is damaged or lost.
    pub damage: Vec<ReceiptDamage>,
}

/// A receipt that cannot be relied on, or one that is lost.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, thiserror::Error)]
#[error("{file}: {reason}")]
pub struct ReceiptDamage {
    /// Its file within the store, `imports/000001.json`.
    pub file: String,
    /// The digest of the bytes that are there; `None` if there is no such file or it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// What is wrong.
    pub reason: String,
}

impl ReceiptDamage {
    /// Returns whether this is the damage that `accepted` names, whatever words describe it.
    pub(super) fn is(&self, accepted: &Self) -> bool {
        (&self.file, &self.digest) == (&accepted.file, &accepted.digest)
    }
}

/// Why bytes are not a receipt that this program understands.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    /// The bytes are not JSON, or a field is missing or malformed.
    #[error("it is not a receipt: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A later program wrote it.
    #[error("it has version {0} of the form, this dray reads up to version {RECEIPT_VERSION}")]
    Version(u32),
    /// A later program wrote it.
    #[error("it is of the kind `{0}`, which this dray does not know")]
    Kind(String),
}

/// What every receipt states, whatever its version.
#[derive(Deserialize)]
struct AnyReceipt {
    version: Option<u32>,
    kind: Option<String>,
}

/// A receipt of version 1, which was always about an import.
#[derive(Deserialize)]
struct FirstVersion {
    number: u64,
    previous: Option<Digest>,
    imported: Timestamp,
    #[serde(flatten)]
    import: Import,
}

impl Receipt {
    /// Reads the bytes of a receipt. One of version 1 names no writer and belongs to `writer`.
    pub fn parse(bytes: &[u8], writer: &str) -> Result<Self, ReceiptError> {
        let any: AnyReceipt = serde_json::from_slice(bytes)?;
        match (any.version, any.kind) {
            (None | Some(1), None) => {
                let FirstVersion { number, previous, imported, import } = serde_json::from_slice(bytes)?;
                Ok(Self {
                    version: 1,
                    writer: writer.to_owned(),
                    number,
                    previous,
                    others: Vec::new(),
                    time: imported,
                    command: "dray import".to_owned(),
                    user: None,
                    event: Event::Import(import),
                })
            }
            (Some(RECEIPT_VERSION), Some(kind)) if !KINDS.contains(&kind.as_str()) => {
                Err(ReceiptError::Kind(kind.chars().take(40).collect()))
            }
            (Some(RECEIPT_VERSION), _) => Ok(serde_json::from_slice(bytes)?),
            (Some(other), _) => Err(ReceiptError::Version(other)),
            (None, Some(_)) => Err(serde_json::Error::custom("it states a kind and no version").into()),
        }
    }

    /// Returns the import that the receipt is about.
    pub fn import(&self) -> Option<&Import> {
        match &self.event {
            Event::Import(import) => Some(import),
            Event::Prune(_) | Event::Push(_) | Event::Delete(_) | Event::AcceptDamage(_) => None,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// A receipt as dray 0.1.0 wrote it.
    fn first_version() -> Value {
        json!({"number": 1, "previous": null, "name": "plant-7", "sequence": 2, "digest": Digest::sha256(b"a"),
            "imported": "2026-11-22T08:25:46Z", "verifiedBy": ["00"], "verificationSkipped": false, "rollback": false,
            "expired": false, "releases": [], "images": 1, "copiedBlobs": 3, "copiedBytes": 4})
    }

    fn parse(value: &Value) -> Result<Receipt, ReceiptError> {
        Receipt::parse(value.to_string().as_bytes(), "site")
    }

    #[test]
    fn receipt_of_version_1_is_an_import_of_the_store() {
        let receipt = parse(&first_version()).unwrap();
        assert_eq!((receipt.version, receipt.number, receipt.writer.as_str()), (1, 1, "site"));
        assert_eq!(receipt.time.to_string(), "2026-11-22T08:25:46Z");
        assert_eq!(receipt.import().unwrap().sequence, 2);
    }

    #[test]
    fn receipt_of_every_kind_survives_writing() {
        let import = parse(&first_version()).unwrap().event;
        let change = Change {
            time: Timestamp::UNIX_EPOCH,
            what: Changed::Tag,
            repository: "a".parse().unwrap(),
            tags: vec!["1".parse().unwrap()],
            digest: None,
            user: Some("ann".into()),
            client: [127, 0, 0, 1].into(),
        };
        let changes = Changes { changes: vec![change], blobs: 1, bytes: 2, unlisted: 3 };
        let damage =
            ReceiptDamage { file: "imports/000001.json".into(), digest: None, reason: "gone".into() };
        let events = [
            import,
            Event::Prune(Prune::default()),
            Event::Push(changes.clone()),
            Event::Delete(changes),
            Event::AcceptDamage(AcceptDamage { damage: vec![damage] }),
        ];
        let kinds: Vec<&str> = events.iter().map(Event::kind).collect();
        assert_eq!(kinds, KINDS);
        for event in events {
            let receipt = Receipt {
                version: RECEIPT_VERSION,
                writer: "w".into(),
                number: 7,
                previous: Some(Digest::sha256(b"before")),
                others: vec![Digest::sha256(b"other")],
                time: Timestamp::UNIX_EPOCH,
                command: "dray import".into(),
                user: Some("ann".into()),
                event,
            };
            let value = serde_json::to_value(&receipt).unwrap();
            assert_eq!(value["kind"], receipt.event.kind());
            assert_eq!(parse(&value).unwrap(), receipt);
        }
    }

    #[test]
    fn receipt_that_is_not_understood_is_an_error() {
        let with = |changes: &[(&str, Value)]| {
            let mut value = first_version();
            for (key, new) in changes {
                value[*key] = new.clone();
            }
            parse(&value).unwrap_err()
        };
        assert!(matches!(with(&[("version", json!(3))]), ReceiptError::Version(3)));
        assert!(matches!(with(&[("version", json!(0))]), ReceiptError::Version(0)));
        let unknown = with(&[("version", json!(2)), ("kind", json!("merge"))]);
        assert!(matches!(unknown, ReceiptError::Kind(kind) if kind == "merge"));
        for malformed in [
            with(&[("version", json!("2"))]),
            with(&[("version", json!(2))]),
            with(&[("kind", json!("import"))]),
            with(&[("sequence", json!(-1))]),
            with(&[("sequence", json!("2"))]),
            with(&[("name", Value::Null)]),
            with(&[("digest", json!("sha256:00"))]),
            with(&[("imported", json!("yesterday"))]),
        ] {
            assert!(matches!(malformed, ReceiptError::Malformed(_)), "{malformed}");
        }
        for bytes in [&b""[..], b"\0\0\0\0", b"null", b"[]", b"{}", b"{\"number\": 1", b"\xff\xfe"] {
            assert!(Receipt::parse(bytes, "site").is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn parse_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Receipt::parse(&bytes, "site");
        }
    }
}
