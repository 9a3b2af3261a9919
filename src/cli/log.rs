//! `dray log`

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use dray::bundle::ImportRecord;
use dray::input;
use dray::oci::Digest;
use dray::store::{ImportEntry, Store};
use dray::trust::{self, LogEntry, LogError};
use serde_json::json;

use super::error::{CliError, Kind};
use super::inputs;
use super::output::table;
use super::runtime::Context;

/// The largest receipt that is read.
const MAX_RECEIPT_BYTES: u64 = 4 * 1024 * 1024;

/// What was brought to a site, when, and by whose signatures
///
/// Every import leaves a receipt in the store that names the one before it by its digest.
#[derive(Args)]
pub(crate) struct Log {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    List(List),
    Verify(Verify),
}

/// List the receipts, oldest first
#[derive(Args)]
struct List {
    /// The store
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
}

/// Check that no receipt was changed, inserted or taken away
#[derive(Args)]
#[command(
    after_help = "Example, with the receipt that was carried home from the last visit:\n  dray log verify --store /srv/dray --trust site.pub --receipt 000004-plant-7.json"
)]
struct Verify {
    /// The store
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// The public key of the site's --receipt-key, or a directory of them: the newest receipt must be signed
    #[arg(long, value_name = "PUB", value_delimiter = ',')]
    trust: Vec<PathBuf>,
    /// A receipt that was carried away; it must still be in the log; may be repeated
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    receipt: Vec<PathBuf>,
}

impl Log {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        match self.action {
            Action::List(list) => list.run(context),
            Action::Verify(verify) => verify.run(context),
        }
    }
}

impl List {
    fn run(&self, context: &Context) -> Result<(), CliError> {
        let store = Store::open(&self.store)?;
        let read = |value| serde_json::from_value(value).map_err(CliError::failed);
        let records: Vec<ImportRecord> = store.imports()?.into_iter().map(read).collect::<Result<_, _>>()?;
        context.output.result(&records, || {
            let heading = ["number", "time", "bundle", "verified by", "allowed"].map(str::to_owned).to_vec();
            let rows: Vec<Vec<String>> = std::iter::once(heading).chain(records.iter().map(row)).collect();
            table(&rows)
        })
    }
}

fn row(record: &ImportRecord) -> Vec<String> {
    let keys: Vec<&str> = record.verified_by.iter().map(|key| key.get(..16).unwrap_or(key)).collect();
    let allowed = [
        (record.verification_skipped, "no verification"),
        (record.rollback, "rollback"),
        (record.expired, "expired"),
        (record.is_partial(), "partial"),
    ];
    let allowed: Vec<&str> = allowed.iter().filter(|(done, _)| *done).map(|(_, what)| *what).collect();
    vec![
        record.number.to_string(),
        record.imported.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        format!("{} {}", record.name, record.sequence),
        keys.join(", "),
        allowed.join(", "),
    ]
}

impl Verify {
    fn run(&self, context: &Context) -> Result<(), CliError> {
        let log = Store::open(&self.store)?.import_log()?;
        let keys = inputs::public_keys(&self.trust)?;
        let held = self.receipt.iter().map(|path| digest(path)).collect::<Result<Vec<_>, _>>()?;
        let entries: Vec<LogEntry<'_>> = log.iter().map(entry).collect();
        let report = trust::verify_log(&entries, &keys, &held)?;
        let value = json!({
            "verified": true,
            "entries": report.entries,
            "signed": report.signed,
            "head": report.head,
        });
        context.output.result(&value, || {
            let newest = report.head.as_ref().map_or_else(String::new, |head| format!("\nnewest {head}"));
            format!(
                "{}: good, {} receipts, {} signed{newest}",
                self.store.display(),
                report.entries,
                report.signed
            )
        })
    }
}

fn entry(entry: &ImportEntry) -> LogEntry<'_> {
    LogEntry { number: entry.number, record: entry.record.as_bytes(), signature: entry.signature.as_deref() }
}

fn digest(path: &Path) -> Result<Digest, CliError> {
    Ok(Digest::sha256(&input::read_bytes(path, MAX_RECEIPT_BYTES)?))
}

impl From<LogError> for CliError {
    fn from(error: LogError) -> Self {
        Self::new(Kind::Verification, error)
    }
}
