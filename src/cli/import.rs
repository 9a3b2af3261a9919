//! `dray import`

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use dray::bundle::{self, Bundle, ImportError, ImportOptions};
use dray::store::{Store, StoreError};

use super::error::{CliError, Kind};
use super::inputs::Trust;
use super::output::human_bytes;
use super::runtime::{self, Context};

/// Verify bundles and make them servable from a store
///
/// Nothing of a bundle can be pulled before all of it is there. Importing the same bundle again is safe and quick; a
/// store that is being served may be imported into.
#[derive(Args)]
#[command(
    after_help = "Example:\n  dray import plant.tar --store /srv/dray --trust release.pub\n  dray serve --store /srv/dray"
)]
pub(crate) struct Import {
    /// The bundles
    #[arg(value_name = "BUNDLE", required = true)]
    bundles: Vec<PathBuf>,
    /// The store; made if it is not there
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    #[command(flatten)]
    trust: Trust,
    /// Take a bundle that is older than what the store has; this is recorded
    #[arg(long)]
    allow_rollback: bool,
}

impl Import {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        let policy = self.trust.policy(context)?;
        let mut records = Vec::new();
        for path in &self.bundles {
            let bundle = Bundle::open(path)?;
            let keys = policy.as_ref().map(|policy| bundle.check_signatures(policy)).transpose()?;
            // Made only when there is something that may be imported.
            let store = Store::create(&self.store)?;
            let bar = Arc::new(context.output.bytes_bar("importing", bundle.lock().total_bytes()));
            let progress = Arc::clone(&bar);
            let (threads, allow_rollback) = (context.threads(), self.allow_rollback);
            let record = runtime::block_on_work(move || {
                let options = ImportOptions {
                    verified_by: keys.unwrap_or_default(),
                    allow_rollback,
                    threads,
                    now: jiff::Timestamp::now(),
                    progress: &|bytes| progress.inc(bytes),
                };
                Ok(bundle::import(&bundle, &store, &options)?)
            })?;
            bar.finish_and_clear();
            records.push(record);
        }
        context.output.result(&records, || {
            let line = |record: &bundle::ImportRecord| {
                format!(
                    "{} {}: {} images; {} blobs copied, {}\n",
                    record.name,
                    record.sequence,
                    record.images,
                    record.copied_blobs,
                    human_bytes(record.copied_bytes)
                )
            };
            records.iter().map(line).collect()
        })
    }
}

impl From<ImportError> for CliError {
    fn from(error: ImportError) -> Self {
        match error {
            ImportError::Bundle(error) => error.into(),
            ImportError::Store(error) => error.into(),
            other @ ImportError::NotHere { .. } => Self::new(Kind::Incomplete, other),
            other if other.is_verification() => Self::new(Kind::Verification, other),
            other => Self::failed(other),
        }
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        let full = match &error {
            StoreError::Io(error) => error.kind() == std::io::ErrorKind::StorageFull,
            _ => false,
        };
        let error = Self::failed(error);
        if full {
            error.hint(
                "the disk is full: free some space, then run the same command again; what was copied stays",
            )
        } else {
            error
        }
    }
}
