//! The log of a store: chains of receipts, one chain for each writer.
//!
//! A receipt names the one before it in its chain by digest, and the newest ones of the other chains. Its own digest is a
//! part of its file's name, so no writer can overwrite what another one wrote. Whoever changes, inserts or removes a
//! receipt breaks the chain. Cutting off the newest ones does not; a receipt that was carried away proves later that
//! nothing up to it is gone.
//!
//! Commands hold the store's lock and share a chain under the store's own id, which the receipts of layout 1 begin. A
//! server draws an id when it starts.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::id::is_random_id;
use super::receipt::{AcceptDamage, Event, Receipt, ReceiptDamage};
use super::record::{bounded, file_names};
use super::{Store, StoreError};
use crate::oci::Digest;
use crate::trust::PublicKey;

/// The largest receipt that is read, in bytes: one that lists several hundred thousand tags.
pub const MAX_RECEIPT_BYTES: u64 = 64 * 1024 * 1024;

/// A receipt byte by byte, with its signature, as it is written to its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Written {
    /// The writer; `None` for the files of layout 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) writer: Option<String>,
    pub(super) number: u64,
    pub(super) record: String,
    /// In DER.
    pub(super) signature: Option<Vec<u8>>,
}

impl Written {
    /// Returns the files of the receipt, relative to the store, with their content: the signature first, so that no
    /// receipt is ever seen without the signature that it has.
    pub(super) fn files(&self) -> impl Iterator<Item = (PathBuf, &[u8])> {
        let digest = Digest::sha256(self.record.as_bytes());
        let place = Place { writer: self.writer.as_deref(), number: self.number, hex: digest.hex() };
        let signature = self.signature.as_deref().map(|bytes| (place.signature(), bytes));
        signature.into_iter().chain([(place.record(), self.record.as_bytes())])
    }
}

/// Where a receipt lies within a store.
struct Place<'a> {
    writer: Option<&'a str>,
    number: u64,
    hex: &'a str,
}

impl Place<'_> {
    fn record(&self) -> PathBuf {
        self.file("json")
    }

    fn signature(&self) -> PathBuf {
        self.file("sig")
    }

    fn file(&self, extension: &str) -> PathBuf {
        let Self { writer, number, hex } = self;
        match writer {
            Some(writer) => PathBuf::from(format!("imports/{writer}/{number:06}-{hex}.{extension}")),
            None => PathBuf::from(format!("imports/{number:06}.{extension}")),
        }
    }
}

/// A receipt in the log.
#[derive(Clone, Debug)]
pub struct LogEntry {
    /// What it says.
    pub receipt: Receipt,
    /// The digest of its bytes.
    pub digest: Digest,
    pub(super) written: Written,
}

impl LogEntry {
    /// Returns the bytes of the receipt, which are JSON.
    pub fn record(&self) -> &[u8] {
        self.written.record.as_bytes()
    }

    /// Returns the signature of the bytes in DER.
    pub fn signature(&self) -> Option<&[u8]> {
        self.written.signature.as_deref()
    }
}

/// All receipts of a store.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// The receipts that can be read, oldest first; those of one chain in their order, whatever the clock said.
    pub entries: Vec<LogEntry>,
    /// What is damaged or lost, by file.
    damage: Vec<ReceiptDamage>,
    /// The last number and digest of each chain, unreadable receipts included.
    pub(super) ends: BTreeMap<String, (u64, Option<Digest>)>,
}

/// What was found in a log that holds together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogReport {
    /// The number of receipts.
    pub entries: usize,
    /// How many of them are signed by a trusted key.
    pub signed: usize,
    /// How many receipts are damaged or lost and were accepted to be so.
    pub accepted: usize,
    /// The digest of the newest receipt.
    pub head: Option<Digest>,
    /// The digests of the newest receipts of all chains, by writer.
    pub heads: BTreeMap<String, Digest>,
}

/// Why a log is not believed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Receipts are damaged or lost.
    #[error("the log is damaged:{}", lines(.0))]
    Damaged(Vec<ReceiptDamage>),
    /// A signature is not by any trusted key.
    #[error(
        "the signature of receipt {number} is not by a trusted key, or the receipt was changed ({digest})"
    )]
    Signature {
        /// The receipt's number in its chain.
        number: u64,
        /// Its digest.
        digest: Digest,
    },
    /// Keys are given, and the newest receipt of a command has no signature.
    #[error("receipt {number}, the newest of a command, is not signed")]
    Unsigned {
        /// The receipt's number in its chain.
        number: u64,
    },
    /// A receipt that was given out is not in the log.
    #[error("the receipt {0} is not in the log: the log was cut off or replaced since")]
    Gone(Digest),
}

/// One indented line for each.
pub(super) fn lines(damage: &[ReceiptDamage]) -> String {
    damage.iter().flat_map(|damage| ["\n  ".to_owned(), damage.to_string()]).collect()
}

impl Log {
    /// Returns what is damaged or lost and was never accepted to be so.
    pub fn damage(&self) -> Vec<ReceiptDamage> {
        self.damage.iter().filter(|damage| !self.is_accepted(damage)).cloned().collect()
    }

    fn is_accepted(&self, damage: &ReceiptDamage) -> bool {
        self.entries.iter().any(|entry| match &entry.receipt.event {
            Event::AcceptDamage(AcceptDamage { damage: accepted }) => accepted.iter().any(|a| damage.is(a)),
            Event::Import(_) | Event::Prune(_) | Event::Push(_) | Event::Delete(_) => false,
        })
    }

    /// Returns the log if every receipt can be relied on, but for damage that was accepted.
    pub fn sound(self) -> Result<Self, StoreError> {
        let damage = self.damage();
        if damage.is_empty() { Ok(self) } else { Err(StoreError::Log(damage)) }
    }

    /// Checks that nothing was changed, inserted or removed.
    ///
    /// With `keys`, every signature must be by one of them and the newest receipt of a command must be signed; the chain
    /// carries that back to the older ones. Each of `held`, digests of receipts that were carried away, must be there.
    pub fn verify(&self, keys: &[PublicKey], held: &[Digest]) -> Result<LogReport, LogError> {
        let damage = self.damage();
        if !damage.is_empty() {
            return Err(LogError::Damaged(damage));
        }
        let mut report = LogReport {
            entries: self.entries.len(),
            signed: 0,
            accepted: self.damage.len(),
            head: self.entries.last().map(|entry| entry.digest.clone()),
            heads: BTreeMap::new(),
        };
        for entry in &self.entries {
            let number = entry.receipt.number;
            match entry.signature() {
                _ if keys.is_empty() => {}
                Some(der) if keys.iter().any(|key| key.verifies(entry.record(), der)) => report.signed += 1,
                Some(_) => return Err(LogError::Signature { number, digest: entry.digest.clone() }),
                None => {}
            }
            report.heads.insert(entry.receipt.writer.clone(), entry.digest.clone());
        }
        let newest = self.entries.iter().rfind(|entry| entry.receipt.event.is_signable());
        if let Some(entry) = newest.filter(|entry| !keys.is_empty() && entry.signature().is_none()) {
            return Err(LogError::Unsigned { number: entry.receipt.number });
        }
        match held.iter().find(|held| !self.entries.iter().any(|entry| entry.digest == **held)) {
            None => Ok(report),
            Some(gone) => Err(LogError::Gone(gone.clone())),
        }
    }

    /// Returns the newest receipts of chains other than that of `writer`, where no receipt names them.
    pub(super) fn tips(&self, writer: &str) -> Vec<Digest> {
        let named: BTreeSet<&Digest> = self
            .entries
            .iter()
            .flat_map(|entry| entry.receipt.previous.iter().chain(&entry.receipt.others))
            .collect();
        let ends = self.ends.iter().filter(|(other, _)| other.as_str() != writer);
        let digests = ends.filter_map(|(_, (_, digest))| digest.as_ref());
        digests.filter(|digest| !named.contains(digest)).cloned().collect()
    }
}

/// A file in the log, before anything is judged.
struct Found {
    /// Its path within the store.
    file: String,
    number: u64,
    /// The digest that its name states: that of the bytes that it should have.
    stated: Option<Digest>,
    /// The digest of its bytes; `None` if it cannot be read.
    digest: Option<Digest>,
    entry: Result<LogEntry, String>,
}

impl Store {
    /// Reads all receipts. What is wrong with some of them is part of the answer.
    pub fn log(&self) -> Result<Log, StoreError> {
        let mut files = self.log_files()?;
        loop {
            let log = self.read_log()?;
            // A receipt may name one that another writer added only after the folder of that one had been read.
            let before = std::mem::replace(&mut files, self.log_files()?);
            if log.damage.is_empty() || files == before {
                return Ok(log);
            }
        }
    }

    fn read_log(&self) -> Result<Log, StoreError> {
        let mut log = Log::default();
        let mut chains: BTreeMap<String, Vec<Found>> = BTreeMap::new();
        let folder = self.layout().imports();
        for name in file_names(&folder)?.into_iter().flatten() {
            let name = name?;
            if !is_random_id(&name) {
                self.find(&mut log, &mut chains, None, &name);
                continue;
            }
            let files =
                file_names(&folder.join(&name)).and_then(|files| files.into_iter().flatten().collect());
            match files {
                Ok::<Vec<String>, _>(files) => {
                    for file in files {
                        self.find(&mut log, &mut chains, Some(&name), &file);
                    }
                }
                Err(error) => {
                    let (file, reason) = (format!("imports/{name}"), format!("it cannot be read: {error}"));
                    log.damage.push(ReceiptDamage { file, digest: None, reason });
                }
            }
        }
        for (writer, mut chain) in chains {
            chain.sort_by(|a, b| (a.number, &a.file).cmp(&(b.number, &b.file)));
            let end = |last: &Found| (last.number, last.stated.clone().or_else(|| last.digest.clone()));
            log.ends.extend(chain.last().map(|last| (writer.clone(), end(last))));
            judge(&writer, chain, &mut log);
        }
        let known: BTreeSet<&Digest> = log.entries.iter().map(|entry| &entry.digest).collect();
        let lost =
            |entry: &LogEntry| entry.receipt.others.iter().find(|other| !known.contains(other)).cloned();
        let lost: Vec<ReceiptDamage> = log
            .entries
            .iter()
            .filter_map(|entry| {
                let reason =
                    format!("it names the receipt {} of another chain, which is not there", lost(entry)?);
                let file = entry.written.files().last().map(|(path, _)| path.display().to_string());
                Some(ReceiptDamage { file: file?, digest: Some(entry.digest.clone()), reason })
            })
            .collect();
        log.damage.extend(lost);
        log.damage.sort();
        sort(&mut log.entries);
        Ok(log)
    }

    /// Returns the names of all files of the log, which change whenever a receipt is added. No receipt is read.
    pub fn log_files(&self) -> Result<BTreeSet<String>, StoreError> {
        let folder = self.layout().imports();
        let mut files = BTreeSet::new();
        for name in file_names(&folder)?.into_iter().flatten() {
            let name = name?;
            if is_random_id(&name) {
                // What cannot be read is for whoever reads the receipts to report.
                for file in file_names(&folder.join(&name)).into_iter().flatten().flatten() {
                    files.insert(format!("{name}/{}", file?));
                }
            } else {
                files.insert(name);
            }
        }
        Ok(files)
    }

    /// Adds the file `name` of a chain to what was found, if it is meant to be a receipt.
    fn find(
        &self,
        log: &mut Log,
        chains: &mut BTreeMap<String, Vec<Found>>,
        writer: Option<&str>,
        name: &str,
    ) {
        // What begins with a dot was left by an interrupted writer or made by an operating system.
        let Some(stem) = name.strip_suffix(".json").filter(|_| !name.starts_with('.')) else { return };
        let file = match writer {
            Some(writer) => format!("imports/{writer}/{name}"),
            None => format!("imports/{name}"),
        };
        let path = self.path().join(&file);
        let parsed = || match writer {
            Some(_) => {
                let (number, hex) = stem.split_once('-')?;
                Some((parse_number(number)?, Some(format!("sha256:{hex}").parse::<Digest>().ok()?)))
            }
            None => Some((parse_number(stem)?, None)),
        };
        let Some((number, stated)) = parsed() else {
            let digest = read(&path).ok().flatten().map(|bytes| Digest::sha256(&bytes));
            let reason = "its name is not that of a receipt".to_owned();
            log.damage.push(ReceiptDamage { file, digest, reason });
            return;
        };
        let chain = writer.unwrap_or(self.id());
        let bytes = read(&path).and_then(|bytes| bytes.ok_or_else(|| "it was removed just now".to_owned()));
        let digest = bytes.as_ref().ok().map(|bytes| Digest::sha256(bytes));
        let entry = bytes.and_then(|bytes| {
            let receipt = Receipt::parse(&bytes, self.id()).map_err(|error| error.to_string())?;
            let record = String::from_utf8(bytes).map_err(|error| error.to_string())?;
            let signature = read(&path.with_extension("sig"))?;
            let digest = Digest::sha256(record.as_bytes());
            let written = Written { writer: writer.map(str::to_owned), number, record, signature };
            Ok(LogEntry { receipt, digest, written })
        });
        chains.entry(chain.to_owned()).or_default().push(Found { file, number, stated, digest, entry });
    }
}

/// Reads a receipt or a signature, which must be a regular file. Returns `None` if there is none.
fn read(path: &Path) -> Result<Option<Vec<u8>>, String> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => {
            bounded(path, MAX_RECEIPT_BYTES).map_err(|error| error.to_string())
        }
        Ok(_) => Err("it is not a regular file".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("it cannot be read: {error}")),
    }
}

/// Reads a number as it is written in the name of a receipt, with at least six digits.
fn parse_number(text: &str) -> Option<u64> {
    let number = text.parse::<u64>().ok()?;
    (format!("{number:06}") == text && number > 0 && number < u64::MAX).then_some(number)
}

/// Adds the receipts of one chain, in the order of their numbers, to the log, and what is wrong with them.
fn judge(writer: &str, chain: Vec<Found>, log: &mut Log) {
    let mut before: (u64, Option<Digest>) = (0, None);
    for found in chain {
        let Found { file, number, stated, digest, entry } = found;
        if number > before.0 + 1 {
            let (first, last) = (before.0 + 1, number - 1);
            let (missing, which) = if first == last {
                (format!("imports/{writer}/{first:06}"), format!("receipt {first} is"))
            } else {
                (
                    format!("imports/{writer}/{first:06} to {last:06}"),
                    format!("receipts {first} to {last} are"),
                )
            };
            let reason = format!("{which} missing from the log, before {file}");
            log.damage.push(ReceiptDamage { file: missing, digest: None, reason });
            before.1 = None;
        }
        let is_first = number == 1;
        let wrong = match &entry {
            Err(reason) => Some(reason.clone()),
            Ok(entry) if stated.as_ref().is_some_and(|stated| *stated != entry.digest) => Some(format!(
                "receipt {number} was changed after it was written: its digest is not that of its name"
            )),
            Ok(entry) if (entry.receipt.number, entry.receipt.writer.as_str()) != (number, writer) => {
                Some(format!("receipt {number} has the name of another one"))
            }
            Ok(_) if number == before.0 => Some(format!("there are several receipts {number}")),
            Ok(entry) => match (&before.1, &entry.receipt.previous) {
                (None, Some(_)) if is_first => Some("receipt 1 names one before it".to_owned()),
                (None, _) => None,
                (before, named) if before == named => None,
                _ => Some(format!(
                    "receipt {number} does not follow from receipt {}: one of them was changed after it was written",
                    number - 1
                )),
            },
        };
        if let Some(reason) = wrong {
            log.damage.push(ReceiptDamage { file, digest: digest.clone(), reason });
        }
        // What can be read counts in any case: a bundle that it names is not forgotten because somebody accepts the damage.
        log.entries.extend(entry.ok());
        // The next one names the bytes that were there when it was written, and so does the one that is put back.
        before = (number, stated.or(digest));
    }
}

/// Sorts by time. Within a chain the numbers decide: a clock that was set back does not reorder it.
fn sort(entries: &mut Vec<LogEntry>) {
    let mut latest: BTreeMap<String, Timestamp> = BTreeMap::new();
    let mut timed: Vec<(Timestamp, LogEntry)> = Vec::with_capacity(entries.len());
    for entry in entries.drain(..) {
        let time = latest.entry(entry.receipt.writer.clone()).or_insert(entry.receipt.time);
        *time = entry.receipt.time.max(*time);
        timed.push((*time, entry));
    }
    timed.sort_by_key(|(time, _)| *time);
    entries.extend(timed.into_iter().map(|(_, entry)| entry));
}
