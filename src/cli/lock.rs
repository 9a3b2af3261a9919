//! `dray lock`

use std::path::PathBuf;

use clap::Args;
use dray::text::counted;
use serde_json::json;

use super::error::CliError;
use super::inputs::{self, Allowances};
use super::output::human_bytes;
use super::runtime::Context;
use super::target::OutputPath;

/// Resolve a definition to digests
///
/// Reads manifests only. Fails when anything that a node needs is missing upstream, and names it.
#[derive(Args)]
#[command(
    after_help = "Example:\n  dray lock -f plant.yaml -o plant.lock\n  dray build --lock plant.lock -o plant.tar"
)]
pub(crate) struct LockCommand {
    /// The definition
    #[arg(short = 'f', long, value_name = "FILE")]
    definition: PathBuf,
    /// Where the lock goes; `-` for standard output
    #[arg(short, long, value_name = "LOCK")]
    output: OutputPath,
    #[command(flatten)]
    allowances: Allowances,
}

impl LockCommand {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        let mut target = self.output.stream(context)?;
        let replaced = target.present().and_then(|path| inputs::read_lock(path).ok());
        let lock =
            inputs::resolve_definition(context, &self.definition, &self.allowances, Some(&mut target))?;
        if let Some(replaced) = replaced.filter(|replaced| *replaced != lock) {
            inputs::warn_of_replaced(context, &target, &replaced, &lock);
        }
        target.write(lock.to_json())?;
        let value = json!({
            "name": lock.name,
            "lock": target,
            "images": lock.images.len(),
            "blobs": lock.blobs.len(),
            "bytes": lock.total_bytes(),
        });
        context.output.result(&value, || {
            format!(
                "{target}: {}, {}, {}",
                counted(lock.images.len(), "image"),
                counted(lock.blobs.len(), "blob"),
                human_bytes(lock.total_bytes())
            )
        })
    }
}
