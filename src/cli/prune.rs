//! `dray prune`

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use dray::bundle::{Keep, RetainError, Retention, let_go, plan_retention};
use dray::catalog::ReleaseId;
use dray::oci::Reference;
use dray::site::check::{self, Node};
use dray::store::Store;
use serde_json::json;

use super::check::read_objects;
use super::error::{CliError, Kind};
use super::inputs;
use super::output::{counted, human_bytes};
use super::runtime::Context;

/// What a push may take from its first blob to its manifest.
const GRACE: Duration = Duration::from_hours(24);
/// How long to wait for another writer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Remove images that only unneeded releases use
///
/// Keep every release that a node still runs, and the one to go back to. Signatures go with their images, and plain files
/// with the releases of their bundle. Images that a definition named itself stay, and so does what was pushed, and what a
/// tag or a node needs. A registry may go on serving the store meanwhile, and the disk may be full.
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
        let images = nodes.iter().flat_map(|node| &node.images);
        let keep = Keep {
            releases: self.keep.iter().map(ToString::to_string).collect(),
            // What is no reference cannot be pulled again either.
            on_nodes: images.filter_map(|image| image.parse().ok()).collect(),
            grace: Duration::from_secs(self.grace.saturating_mul(3600)),
        };
        let retention = plan_retention(&writer, &keep)?;
        for (release, absent) in &retention.partial {
            context.output.warn(format!(
                "{release} is not whole: the store does not have {}; import its bundle again before you rely on it",
                examples(absent)
            ));
        }
        for losing in losing_nodes(&nodes, &self.keep, &retention) {
            if let Some(kept) = losing.kept {
                context.output.warn(format!(
                    "{} may be of {} as well as of {kept}, which is kept",
                    losing.names(),
                    losing.release
                ));
            } else {
                return Err(CliError::new(
                    Kind::Incomplete,
                    format!(
                        "{} still {} {}, which needs {}",
                        losing.names(),
                        if losing.nodes.len() == 1 { "runs" } else { "run" },
                        losing.nodes[0].kubelet,
                        examples(losing.images)
                    ),
                )
                .hint(format!(
                    "add --keep {}, or upgrade those nodes first; nothing was removed",
                    losing.release
                )));
            }
        }
        if !self.dry_run {
            let_go(&writer, &retention)?;
        }
        let value = json!({
            "kept": retention.kept,
            "removed": retention.removed,
            "files": retention.files,
            "blobs": retention.swept().blobs,
            "bytes": retention.swept().bytes,
            "dryRun": self.dry_run,
        });
        context.output.result(&value, || self.text(&retention))
    }

    fn nodes(&self, context: &Context) -> Result<Vec<Node>, CliError> {
        let Some(path) = &self.nodes else { return Ok(Vec::new()) };
        let catalog = inputs::catalog(context)?;
        read_objects(path, |file, text| check::parse_nodes(file, text, catalog.windows()))
    }

    fn text(&self, retention: &Retention) -> String {
        let (removed, freed) =
            if self.dry_run { ("would be removed", "would be freed") } else { ("removed", "freed") };
        let images = retention.removed.iter().map(ToString::to_string);
        let lines = images.chain(retention.files.iter().cloned());
        let mut text: String = lines.flat_map(|line| [line, "\n".to_owned()]).collect();
        let files = match retention.files.len() {
            0 => String::new(),
            count => format!(" and {}", counted(count, "file")),
        };
        text.extend([format!(
            "{} kept, {}{files} {removed}; {} {freed}",
            counted(retention.kept.len(), "image"),
            retention.removed.len(),
            human_bytes(retention.swept().bytes)
        )]);
        text
    }
}

/// Nodes of one version, and a release that they can be of and that would lose images.
struct Losing<'a> {
    release: &'a String,
    images: &'a BTreeSet<Reference>,
    nodes: Vec<&'a Node>,
    /// A release that they can be of as well, and that is kept.
    kept: Option<&'a ReleaseId>,
}

impl Losing<'_> {
    fn names(&self) -> String {
        let names: Vec<&str> = self.nodes.iter().take(EXAMPLES).map(|node| node.name.as_str()).collect();
        let more = self.nodes.len() - names.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let noun = if self.nodes.len() == 1 { "the node" } else { "the nodes" };
        format!("{noun} {}{more}", names.join(", "))
    }
}

/// The nodes that may run a release which would lose images.
fn losing_nodes<'a>(nodes: &'a [Node], keep: &'a [ReleaseId], retention: &'a Retention) -> Vec<Losing<'a>> {
    let mut all = Vec::new();
    for (release, images) in &retention.losing {
        let Ok(id) = release.parse::<ReleaseId>() else { continue };
        let runs = |node: &&Node| !node.kubelet.is_empty() && check::reports(&id, &node.kubelet);
        let running: Vec<&Node> = nodes.iter().filter(runs).collect();
        if let Some(first) = running.first() {
            let kept = keep.iter().find(|kept| check::reports(kept, &first.kubelet));
            all.push(Losing { release, images, nodes: running, kept });
        }
    }
    all
}

/// How many are named where there are many.
const EXAMPLES: usize = 3;

/// `11 images, such as a, b, c`
fn examples(images: &BTreeSet<Reference>) -> String {
    let named: Vec<String> = images.iter().take(EXAMPLES).map(ToString::to_string).collect();
    match images.len() {
        1 => named.join(", "),
        count if count <= EXAMPLES => format!("{count} images: {}", named.join(", ")),
        count => format!("{count} images, such as {}", named.join(", ")),
    }
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
