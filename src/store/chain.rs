//! Adding receipts to the log of a store.

use std::io;
use std::path::Path;

use jiff::Timestamp;

use super::durable::{Dirty, stage};
use super::id::random_id;
use super::log::{Log, LogEntry, Written};
use super::receipt::{AcceptDamage, Event, RECEIPT_VERSION, Receipt};
use super::{Batch, Store, StoreError, Writer};
use crate::oci::Digest;
use crate::trust::PrivateKey;

/// Who makes a change that is recorded, when, and with which key the receipt is signed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Author<'a> {
    /// The user of the operating system, if known.
    pub user: Option<&'a str>,
    /// The time.
    pub now: Timestamp,
    /// The key that signs the receipt.
    pub key: Option<&'a PrivateKey>,
}

/// A chain that a writer continues.
#[derive(Debug)]
struct Chain {
    writer: String,
    next: u64,
    previous: Option<Digest>,
    /// What the next receipt names of other chains.
    others: Vec<Digest>,
}

impl Chain {
    /// Continues the chain of `writer` in `log`, or begins it.
    fn of(log: &Log, writer: &str) -> Self {
        let (last, previous) = log.ends.get(writer).cloned().unwrap_or_default();
        Self { writer: writer.to_owned(), next: last + 1, previous, others: log.tips(writer) }
    }

    /// Makes the next receipt, without writing it.
    fn link(&self, event: Event, command: &str, author: &Author<'_>) -> Result<LogEntry, StoreError> {
        let receipt = Receipt {
            version: RECEIPT_VERSION,
            writer: self.writer.clone(),
            number: self.next,
            previous: self.previous.clone(),
            others: self.others.clone(),
            time: author.now,
            command: command.to_owned(),
            user: author.user.map(str::to_owned),
            event,
        };
        let record = serde_json::to_string(&receipt).map_err(io::Error::from)?;
        let digest = Digest::sha256(record.as_bytes());
        let signature = author.key.map(|key| key.sign(record.as_bytes()));
        let writer = Some(receipt.writer.clone());
        Ok(LogEntry {
            digest,
            written: Written { writer, number: receipt.number, record, signature },
            receipt,
        })
    }
}

impl Writer {
    /// Makes the receipt of `event` that comes next in the chain of commands, without writing it.
    fn next_receipt(&self, event: Event, author: &Author<'_>) -> Result<LogEntry, StoreError> {
        Chain::of(&self.store.log()?, self.store.id()).link(event, &self.purpose, author)
    }

    /// Adds a receipt to the log. It is durable when this returns.
    pub fn record(&self, event: Event, author: &Author<'_>) -> Result<LogEntry, StoreError> {
        let entry = self.next_receipt(event, author)?;
        self.store.write_receipt(&entry, Some(&self.store.layout().temporary()))?;
        Ok(entry)
    }

    /// Declares that the log goes on without the receipts that are damaged or lost now. Returns the receipt of that, or
    /// `None` if nothing is.
    pub fn accept_damage(&self, author: &Author<'_>) -> Result<Option<LogEntry>, StoreError> {
        let damage = self.store.log()?.damage();
        if damage.is_empty() {
            return Ok(None);
        }
        self.record(Event::AcceptDamage(AcceptDamage { damage }), author).map(Some)
    }
}

impl Batch<'_> {
    /// Adds a receipt, which becomes visible with the tags of the batch.
    pub fn record(&mut self, event: Event, author: &Author<'_>) -> Result<LogEntry, StoreError> {
        let entry = self.writer.next_receipt(event, author)?;
        self.publication.record(entry.written.clone());
        Ok(entry)
    }
}

impl Store {
    /// Writes a receipt under its own name, which no other file can have, and makes it durable. Files are made in
    /// `temporary`, or next to their place.
    fn write_receipt(&self, entry: &LogEntry, temporary: Option<&Path>) -> Result<(), StoreError> {
        self.open_layout()?;
        let mut dirty = Dirty::default();
        for (path, bytes) in entry.written.files() {
            let path = self.path().join(path);
            dirty.create_parent(&path)?;
            let folder = path.parent().unwrap_or(self.path());
            let staged = stage(temporary.unwrap_or(folder), &path, bytes)?;
            staged.sync()?;
            staged.place_new()?;
        }
        Ok(dirty.sync()?)
    }
}

/// The chain of a process that records without holding the store's lock: a server, which must not wait for an import.
#[derive(Debug)]
pub struct OwnChain {
    store: Store,
    command: String,
    /// `None` until the first receipt.
    chain: Option<Chain>,
}

impl OwnChain {
    /// Prepares a chain of `command`'s own in the log of `store`. Nothing is written before the first receipt.
    pub fn new(store: &Store, command: &str) -> Self {
        Self { store: store.clone(), command: command.to_owned(), chain: None }
    }

    /// Adds a receipt to the chain. It is durable when this returns; after an error it is not part of the chain.
    pub fn record(&mut self, event: Event, author: &Author<'_>) -> Result<LogEntry, StoreError> {
        let chain = match &mut self.chain {
            Some(chain) => chain,
            none => none.insert(Chain::of(&self.store.log()?, &random_id()?)),
        };
        let entry = chain.link(event, &self.command, author)?;
        self.store.write_receipt(&entry, None)?;
        chain.next += 1;
        chain.previous = Some(entry.digest.clone());
        chain.others.clear();
        Ok(entry)
    }
}
