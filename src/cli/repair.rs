//! `dray repair`

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use dray::bundle::{self, Making, Progress, RepairError, Repaired};
use serde_json::json;

use super::error::{CliError, Kind};
use super::output::human_bytes;
use super::runtime::{self, Context};
use super::target;

/// Restore damaged or lost parts of a bundle
///
/// `dray build --parity 10%` makes the recovery files. As many blocks as they have can be restored, whichever are lost: a
/// volume, a stretch of zeros, sectors here and there. Recovery files that are damaged or missing are made again as well.
/// What is there stays as it is until the new files have been checked. `dray verify --trust` says as ever who made the
/// bundle.
#[derive(Args)]
#[command(
    name = "repair",
    after_help = "Examples:\n  dray repair plant.tar\n  dray repair /media/usb\n  dray repair plant.1of3.tar plant.3of3.tar plant.parity.1of1.tar"
)]
pub(crate) struct RepairCommand {
    /// What there is of the bundle and its recovery files, or the directory that they are in
    #[arg(value_name = "BUNDLE", required = true)]
    files: Vec<PathBuf>,
}

impl RepairCommand {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        self.files.iter().try_for_each(|path| target::check_rewritable(path))?;
        let bar = Arc::new(context.output.bytes_bar("repairing", 0));
        let making = Arc::new(Making::default());
        let (shown, files, threads) = (Arc::clone(&bar), self.files, context.threads());
        let made = Arc::clone(&making);
        let repaired = runtime::block_on_work(move || {
            let progress = |progress| match progress {
                Progress::Total(bytes) => {
                    shown.set_position(0);
                    shown.set_length(bytes);
                }
                Progress::Read(bytes) => shown.inc(bytes),
            };
            Ok(bundle::repair(&files, threads, &made, &progress)?)
        });
        bar.finish_and_clear();
        if repaired.as_ref().is_err_and(|error| error.kind == Kind::Interrupted) {
            making.give_up();
        }
        let repaired = repaired?;
        let value = json!({
            "bundle": repaired.path,
            "repaired": repaired.files,
            "blocks": repaired.blocks,
            "blockSize": repaired.block_size,
            "recovery": repaired.recovery,
        });
        context.output.result(&value, || text(&repaired))
    }
}

fn text(repaired: &Repaired) -> String {
    let path = repaired.path.display();
    let names = |files: &[PathBuf]| {
        let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        names.join(", ")
    };
    let bundle = if repaired.files.is_empty() {
        format!("{path}: nothing is damaged")
    } else {
        let bytes = human_bytes(repaired.blocks as u64 * repaired.block_size);
        format!(
            "{path}: whole again, {} blocks ({bytes}) were restored in {}",
            repaired.blocks,
            names(&repaired.files)
        )
    };
    match &repaired.recovery[..] {
        [] => bundle,
        files => format!("{bundle}\nrecovery files were made again: {}", names(files)),
    }
}

impl From<RepairError> for CliError {
    fn from(error: RepairError) -> Self {
        match error {
            RepairError::NoRecovery { .. } => Self::new(Kind::Incomplete, error)
                .hint("recovery files are made by `dray build --parity`; copy the bundle again, or take what is whole with `dray import --keep-going`"),
            RepairError::TooMuch { .. } | RepairError::NoTail { .. } => Self::new(Kind::Verification, error)
                .hint("copy the damaged files again; `dray import --keep-going` takes the images that are whole"),
            RepairError::Wrong(_) | RepairError::WrongRecovery { .. } => Self::new(Kind::Verification, error),
            RepairError::Recovery(ref cause) if matches!(**cause, RepairError::WrongRecovery { .. }) => {
                Self::new(Kind::Verification, error)
            }
            RepairError::Several { .. } => Self::usage(error),
            RepairError::Place(error) => error.into(),
            RepairError::Io { source: ref cause, .. } => {
                let kind = cause.kind();
                target::with_disk_hint(Self::failed(error), &kind.into())
            }
            other => Self::failed(other),
        }
    }
}
