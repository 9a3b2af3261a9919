//! `dray prune`

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use dray::bundle::retain_releases;
use dray::catalog::ReleaseId;
use dray::store::Store;
use serde_json::json;

use super::error::CliError;
use super::output::human_bytes;
use super::runtime::Context;

/// What a push may take from its first blob to its manifest.
const GRACE: Duration = Duration::from_hours(24);

/// Remove what only releases need that the site is done with
///
/// Keep every release that a node still runs, and the one to go back to. Images that a definition named itself stay, and
/// so does what was pushed. A registry may go on serving the store meanwhile.
#[derive(Args)]
#[command(
    after_help = "Example:\n  dray prune --store /var/lib/dray --keep k0s@v1.35.4+k0s.0 --keep k0s@v1.36.3+k0s.2 --dry-run"
)]
pub(crate) struct Prune {
    /// The store
    #[arg(long, value_name = "DIR")]
    store: PathBuf,

    /// Keep this release; may be repeated
    #[arg(long, value_name = "D@V", required = true, value_delimiter = ',')]
    keep: Vec<ReleaseId>,

    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,

    /// Remove content that nothing refers to when it is older than this, in hours
    #[arg(long, value_name = "HOURS", default_value_t = GRACE.as_secs() / 3600)]
    grace: u64,
}

impl Prune {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        let store = Store::open(&self.store).map_err(CliError::failed)?;
        let writer = store.writer("dray prune", Duration::from_secs(10)).map_err(CliError::failed)?;
        let keep: BTreeSet<String> = self.keep.iter().map(ToString::to_string).collect();
        let retention = retain_releases(&writer, &keep, self.dry_run).map_err(CliError::failed)?;
        let grace = Duration::from_secs(self.grace.saturating_mul(3600));
        let swept = writer.sweep(grace, self.dry_run).map_err(CliError::failed)?;
        let value = json!({
            "kept": retention.kept,
            "removed": retention.removed,
            "blobs": swept.blobs,
            "bytes": swept.bytes,
            "dryRun": self.dry_run,
        });
        context.output.result(&value, || {
            let verb = if self.dry_run { "would be removed" } else { "removed" };
            let mut text: String =
                retention.removed.iter().flat_map(|image| [image.to_string(), "\n".to_owned()]).collect();
            let (kept, removed) = (retention.kept.len(), retention.removed.len());
            text.extend([format!("{kept} images kept, {removed} {verb}")]);
            if !self.dry_run {
                text.extend([format!(", {} freed", human_bytes(swept.bytes))]);
            }
            text
        })
    }
}
