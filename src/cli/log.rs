//! `dray log`

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use dray::input;
use dray::oci::Digest;
use dray::store::{
    Changed, Changes, Event, Import, LogError, MAX_RECEIPT_BYTES, Prune, Receipt, ReceiptDamage, Store,
};
use dray::text::counted;
use serde_json::json;

use super::error::{CliError, Kind};
use super::inputs;
use super::output::{human_bytes, table};
use super::runtime::Context;
use super::writing::{Operator, Wait};

/// Show what was done to a store, when, and who signed it
///
/// Every import and prune leaves a receipt in the store, which names the one before it by its digest. A store of which a
/// receipt is damaged or lost refuses imports and prunes.
#[derive(Args)]
pub(crate) struct Log {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    List(List),
    Verify(Verify),
    AcceptDamage(AcceptDamage),
}

/// List the receipts, oldest first
#[derive(Args)]
#[command(after_help = "Example:\n  dray log list --store /srv/dray")]
struct List {
    /// The store
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
}

/// Check that no receipt was changed, inserted or removed
#[derive(Args)]
#[command(
    after_help = "Example, with the receipt that was carried home from the last visit:\n  dray log verify --store /srv/dray --trust site.pub --receipt 000004-plant-7.json"
)]
struct Verify {
    /// The store
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// The public key of the site's --receipt-key, or a directory of them: the newest receipt of a command must be signed;
    /// may be repeated
    #[arg(long, value_name = "PUB", value_delimiter = ',')]
    trust: Vec<PathBuf>,
    /// A receipt that was carried away; it must still be in the log; may be repeated
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    receipt: Vec<PathBuf>,
}

/// Accept that receipts are damaged or lost, and record it
///
/// The last resort, when there is no copy to put back: afterwards nothing shows what these receipts said, so a bundle
/// older than one of theirs can be imported. What is given up is named in a receipt of its own. Files stay as they are.
#[derive(Args)]
#[command(
    after_help = "Example:\n  dray log verify --store /srv/dray\n  dray log accept-damage --store /srv/dray --receipt-key site.key"
)]
struct AcceptDamage {
    /// The store
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// Sign the receipt with this private key of the site
    #[arg(long, value_name = "KEY")]
    receipt_key: Option<PathBuf>,
    #[command(flatten)]
    wait: Wait,
}

impl Log {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        match self.action {
            Action::List(list) => list.run(context),
            Action::Verify(verify) => verify.run(context),
            Action::AcceptDamage(accept) => accept.run(context),
        }
    }
}

impl List {
    fn run(&self, context: &Context) -> Result<(), CliError> {
        let store = Store::open(&self.store)?;
        let log = store.log()?;
        let receipts: Vec<&Receipt> = log.entries.iter().map(|entry| &entry.receipt).collect();
        context.output.result(&receipts, || {
            let heading = ["number", "time", "what", "by", "allowed"].map(str::to_owned).to_vec();
            let rows = receipts.iter().map(|receipt| row(receipt, store.id()));
            table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>())
        })?;
        // All that can be read is listed, and that it is not all is an error.
        log.sound()?;
        Ok(())
    }
}

fn row(receipt: &Receipt, store: &str) -> Vec<String> {
    // The chains of servers are told apart by the beginning of their ids.
    let number = match receipt.writer.get(..8) {
        Some(server) if receipt.writer != store => format!("{server}/{}", receipt.number),
        _ => receipt.number.to_string(),
    };
    let user = receipt.user.clone().unwrap_or_default();
    let (what, by, allowed) = match &receipt.event {
        Event::Import(import) => {
            (format!("{} {}", import.name, import.sequence), signers(import), exceptions(import))
        }
        Event::Prune(prune) => (pruned(prune), user, String::new()),
        Event::Push(changes) => (pushed(changes), users(changes), String::new()),
        Event::Delete(changes) => (deleted(changes), users(changes), String::new()),
        Event::AcceptDamage(accepted) => {
            (format!("{} given up", counted(accepted.damage.len(), "receipt")), user, "damage".to_owned())
        }
    };
    vec![number, receipt.time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(), what, by, allowed]
}

fn signers(import: &Import) -> String {
    let keys: Vec<&str> = import.verified_by.iter().map(|key| key.get(..16).unwrap_or(key)).collect();
    keys.join(", ")
}

fn exceptions(import: &Import) -> String {
    let allowed = [
        (import.verification_skipped, "no verification"),
        (import.rollback, "rollback"),
        (import.expired, "expired"),
        (import.is_partial(), "partial"),
    ];
    let allowed: Vec<&str> = allowed.iter().filter(|(done, _)| *done).map(|(_, what)| *what).collect();
    allowed.join(", ")
}

fn pruned(prune: &Prune) -> String {
    let (images, files) = (counted(prune.removed.len(), "image"), counted(prune.files.len(), "file"));
    format!("pruned {images}, {files}, {}", human_bytes(prune.bytes))
}

fn pushed(changes: &Changes) -> String {
    let manifests = changes.changes.len() as u64 + changes.unlisted;
    let (manifests, blobs) = (counted(manifests, "manifest"), counted(changes.blobs, "blob"));
    format!("pushed {manifests}, {blobs}, {}{}", human_bytes(changes.bytes), example(changes))
}

fn deleted(changes: &Changes) -> String {
    let of = |what| changes.changes.iter().filter(|change| change.what == what).count();
    let kinds = [(Changed::Tag, "tag"), (Changed::Manifest, "manifest"), (Changed::Blob, "blob")];
    let mut parts: Vec<String> = kinds
        .into_iter()
        .map(|(what, noun)| (of(what), noun))
        .filter(|(n, _)| *n > 0)
        .map(|(n, noun)| counted(n, noun))
        .collect();
    if changes.unlisted > 0 {
        parts.push(format!("{} more", changes.unlisted));
    }
    format!("deleted {}{}", parts.join(", "), example(changes))
}

/// `: a/b:1`, and that there are more.
fn example(changes: &Changes) -> String {
    let Some(first) = changes.changes.first() else { return String::new() };
    let name = match (first.tags.first(), &first.digest) {
        (Some(tag), _) => format!("{}:{tag}", first.repository),
        (None, Some(digest)) => format!("{}@{}", first.repository, digest.short()),
        (None, None) => first.repository.to_string(),
    };
    let more = if changes.changes.len() > 1 { ", …" } else { "" };
    format!(": {name}{more}")
}

/// The users of the registry who made the changes.
fn users(changes: &Changes) -> String {
    let mut users: Vec<&str> = changes.changes.iter().filter_map(|change| change.user.as_deref()).collect();
    users.sort_unstable();
    users.dedup();
    users.join(", ")
}

impl Verify {
    fn run(&self, context: &Context) -> Result<(), CliError> {
        let log = Store::open(&self.store)?.log()?;
        let keys = inputs::public_keys(&self.trust)?;
        let held = self.receipt.iter().map(|path| digest(path)).collect::<Result<Vec<_>, _>>()?;
        let report = log.verify(&keys, &held)?;
        let value = json!({
            "verified": true,
            "entries": report.entries,
            "signed": report.signed,
            "accepted": report.accepted,
            "head": report.head,
            "heads": report.heads,
        });
        context.output.result(&value, || {
            let newest = report.head.as_ref().map_or_else(String::new, |head| format!("\nnewest {head}"));
            let accepted = match report.accepted {
                0 => String::new(),
                count => format!(", {count} damaged or lost, which was accepted"),
            };
            format!(
                "{}: good, {} receipts, {} signed{accepted}{newest}",
                self.store.display(),
                report.entries,
                report.signed
            )
        })
    }
}

impl AcceptDamage {
    fn run(&self, context: &Context) -> Result<(), CliError> {
        let key = inputs::private_keys(self.receipt_key.as_slice())?.pop().map(Arc::new);
        let store = Store::open(&self.store)?;
        let waiting = |holder: &str| context.output.waiting(holder);
        let writer = store.writer("dray log accept-damage", self.wait.patience(&waiting))?;
        let entry = writer.accept_damage(&Operator::new(key).author())?;
        let accepted: Vec<&ReceiptDamage> = match entry.as_ref().map(|entry| &entry.receipt.event) {
            Some(Event::AcceptDamage(accepted)) => accepted.damage.iter().collect(),
            _ => Vec::new(),
        };
        context.output.result(&json!({"accepted": accepted}), || {
            if accepted.is_empty() {
                return "no receipt is damaged or lost".to_owned();
            }
            let lines: Vec<String> = accepted.iter().map(|damage| format!("given up: {damage}")).collect();
            lines.join("\n")
        })
    }
}

fn digest(path: &Path) -> Result<Digest, CliError> {
    Ok(Digest::sha256(&input::read_bytes(path, MAX_RECEIPT_BYTES)?))
}

impl From<LogError> for CliError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Damaged(damage) => dray::store::StoreError::Log(damage).into(),
            LogError::Unsigned { .. } => {
                Self::new(Kind::Verification, error).hint("import with --receipt-key")
            }
            LogError::Signature { .. } | LogError::Gone(_) => Self::new(Kind::Verification, error),
        }
    }
}
