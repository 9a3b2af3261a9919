//! `dray prune`

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use dray::bundle::{Keep, RetainError, Retention, imported_releases, let_go, plan_retention};
use dray::catalog::ReleaseId;
use dray::site::check::{self, Node};
use dray::store::Store;
use serde_json::json;

use super::check::read_objects;
use super::error::{CliError, Kind};
use super::inputs;
use super::output::human_bytes;
use super::runtime::Context;

/// What a push may take from its first blob to its manifest.
const GRACE: Duration = Duration::from_hours(24);
/// How long to wait for another writer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Remove what only releases need that the site is done with
///
/// Keep every release that a node still runs, and the one to go back to. Images that a definition named itself stay, and
/// so does what was pushed, and what a tag or a node needs. A registry may go on serving the store meanwhile, and the disk
/// may be full.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kubectl get nodes -o json > nodes.json\n  dray prune --store /var/lib/dray --keep k0s@v1.36.3+k0s.2 --nodes nodes.json --dry-run"
)]
pub(crate) struct Prune {
    /// The store
    #[arg(long, value_name = "DIR")]
    store: PathBuf,

    /// Keep this release; may be repeated
    #[arg(long, value_name = "D@V", required = true, value_delimiter = ',')]
    keep: Vec<ReleaseId>,

    /// Keep what these nodes have, and stop when one runs a release that is not kept: `kubectl get nodes -o json`
    #[arg(long, value_name = "FILE")]
    nodes: Option<PathBuf>,

    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,

    /// Remove content that nothing refers to when it is older than this, in hours
    #[arg(long, value_name = "HOURS", default_value_t = GRACE.as_secs() / 3600)]
    grace: u64,
}

impl Prune {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        let store = Store::open(&self.store)?;
        let nodes = self.nodes(context)?;
        let writer = store.writer("dray prune", PATIENCE)?;
        refuse_running(&nodes, &self.keep, &imported_releases(&store)?)?;
        let images = nodes.iter().flat_map(|node| &node.images);
        let keep = Keep {
            releases: self.keep.iter().map(ToString::to_string).collect(),
            // What is no reference cannot be pulled again either.
            on_nodes: images.filter_map(|image| image.parse().ok()).collect(),
            grace: Duration::from_secs(self.grace.saturating_mul(3600)),
        };
        let retention = plan_retention(&writer, &keep)?;
        if !self.dry_run {
            let_go(&writer, &retention)?;
        }
        let value = json!({
            "kept": retention.kept,
            "removed": retention.removed,
            "blobs": retention.swept().blobs,
            "bytes": retention.swept().bytes,
            "dryRun": self.dry_run,
        });
        context.output.result(&value, || self.text(&retention))
    }

    fn nodes(&self, context: &Context) -> Result<Vec<Node>, CliError> {
        let Some(path) = &self.nodes else { return Ok(Vec::new()) };
        let catalog = inputs::catalog(context)?;
        read_objects(path, |text| check::parse_nodes(text, catalog.windows()))
    }

    fn text(&self, retention: &Retention) -> String {
        let (removed, freed) =
            if self.dry_run { ("would be removed", "would be freed") } else { ("removed", "freed") };
        let mut text: String =
            retention.removed.iter().flat_map(|image| [image.to_string(), "\n".to_owned()]).collect();
        text.extend([format!(
            "{} images kept, {} {removed}; {} {freed}",
            retention.kept.len(),
            retention.removed.len(),
            human_bytes(retention.swept().bytes)
        )]);
        text
    }
}

/// Refuses when a node runs one of the `imported` releases and none that it may run is kept.
fn refuse_running(nodes: &[Node], keep: &[ReleaseId], imported: &BTreeSet<String>) -> Result<(), CliError> {
    let imported: Vec<ReleaseId> = imported.iter().filter_map(|release| release.parse().ok()).collect();
    for node in nodes.iter().filter(|node| !node.kubelet.is_empty()) {
        let runs: Vec<&ReleaseId> =
            imported.iter().filter(|release| check::reports(release, &node.kubelet)).collect();
        if let Some(release) = runs.first().filter(|_| !runs.iter().any(|release| keep.contains(release))) {
            let message = format!("the node {} still runs {}", node.name, node.kubelet);
            return Err(CliError::new(Kind::Incomplete, message)
                .hint(format!("add --keep {release}, or upgrade the node first; nothing was removed")));
        }
    }
    Ok(())
}

impl From<RetainError> for CliError {
    fn from(error: RetainError) -> Self {
        match error {
            RetainError::Store(error) => error.into(),
            RetainError::Unknown(..) => Self::usage(error),
            RetainError::NoLock(_) => Self::failed(error),
        }
    }
}
