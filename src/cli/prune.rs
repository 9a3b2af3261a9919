//! `dray prune`

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use dray::bundle::{Keep, Observed, Reason, RetainError, Retention, let_go, plan_retention};
use dray::catalog::ReleaseId;
use dray::oci::Reference;
use dray::site::check::{self, Node, Pod};
use dray::store::Store;
use dray::text::{self, counted};
use serde_json::json;

use super::check::read_objects;
use super::error::{CliError, Kind};
use super::inputs;
use super::output::human_bytes;
use super::runtime::Context;
use super::writing::{Operator, Wait};

/// What a push may take from its first blob to its manifest.
const GRACE: Duration = Duration::from_hours(24);

/// Remove images that only unneeded releases use
///
/// Keep every release that a node still runs, and the one to go back to. Signatures go with their images, and plain files
/// with the releases of their bundle. Images that a definition named itself stay, and so does what was pushed, and what a
/// tag, a node or a pod needs. A registry may go on serving the store meanwhile, and the disk may be full. What was removed
/// is recorded in the log of the store.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  kubectl get nodes -o json > nodes.json\n  dray prune --store /var/lib/dray --keep k0s@v1.36.3+k0s.2 --nodes nodes.json --dry-run\n  kubectl get pods -A -o json > pods.json\n  dray prune --store /var/lib/dray --keep k0s@v1.36.3+k0s.2 --keep-observed pods.json"
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

    /// Keep what these pods use: `kubectl get pods -A -o json`. Without --nodes, what kubelets list does not count
    #[arg(long, value_name = "PODS")]
    keep_observed: Option<PathBuf>,

    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,

    /// Remove content that nothing refers to when it is older than this, in hours
    #[arg(long, value_name = "HOURS", default_value_t = GRACE.as_secs() / 3600)]
    grace: u64,

    /// Sign the receipt with this private key of the site
    #[arg(long, value_name = "KEY")]
    receipt_key: Option<PathBuf>,

    #[command(flatten)]
    wait: Wait,
}

impl Prune {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        let key = inputs::private_keys(self.receipt_key.as_slice())?.pop().map(Arc::new);
        let store = Store::open(&self.store)?;
        let nodes = self.nodes(context)?;
        let pods = self.keep_observed.as_ref().map(|path| read_objects(path, Pod::parse_all)).transpose()?;
        let waiting = |holder: &str| context.output.waiting(holder);
        // A dry run writes nothing, not even a lock, so that it works on a store that is read-only.
        let lock = || store.writer("dray prune", self.wait.patience(&waiting));
        let writer = if self.dry_run { None } else { Some(lock()?) };
        let keep = Keep {
            releases: self.keep.iter().map(ToString::to_string).collect(),
            in_use: in_use(&nodes, &pods.unwrap_or_default()),
            grace: Duration::from_secs(self.grace.saturating_mul(3600)),
        };
        let retention = plan_retention(&store, &keep)?;
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
        if let Some(writer) = &writer
            && !let_go(writer, &retention, &keep, &Operator::new(key).author())?
        {
            context.output.warn("the disk is so full that the log has no receipt of this prune");
        }
        let reasons: BTreeMap<String, &BTreeSet<Reason>> =
            retention.kept.iter().map(|(image, reasons)| (image.to_string(), reasons)).collect();
        let value = json!({
            "kept": retention.kept.keys().collect::<Vec<_>>(),
            "reasons": reasons,
            "removed": retention.gone(),
            "tags": retention.tags(),
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
        let gone = retention.gone();
        let mut names: BTreeSet<String> = gone.iter().map(ToString::to_string).collect();
        names.extend(retention.tags());
        let lines = names.into_iter().chain(retention.files.iter().cloned());
        let mut text: String = lines.flat_map(|line| [line, "\n".to_owned()]).collect();
        let files = match retention.files.len() {
            0 => String::new(),
            count => format!(" and {}", counted(count, "file")),
        };
        text.extend([format!(
            "{} kept, {}{files} {removed}; {} {freed}",
            counted(retention.kept.len(), "image"),
            gone.len(),
            human_bytes(retention.swept().bytes)
        )]);
        text.extend(why_kept(retention).into_iter().flat_map(|line| ["\n".to_owned(), line]));
        text
    }
}

/// What nodes have and pods use. What is no reference cannot be pulled again either.
fn in_use(nodes: &[Node], pods: &[Pod]) -> BTreeMap<Observed, BTreeSet<Reason>> {
    let on_nodes = nodes
        .iter()
        .flat_map(|node| node.images.iter().map(|image| (image, Reason::Node { node: node.name.clone() })));
    let in_pods = pods.iter().flat_map(|pod| {
        let reason = Reason::Pod { namespace: pod.namespace.clone(), pod: pod.name.clone() };
        pod.images.iter().map(move |image| (image, reason.clone()))
    });
    let mut in_use: BTreeMap<Observed, BTreeSet<Reason>> = BTreeMap::new();
    for (image, reason) in on_nodes.chain(in_pods) {
        if let Ok(image) = image.parse() {
            in_use.entry(image).or_default().insert(reason);
        }
    }
    in_use
}

/// Images that stay only because of pods, or of nodes, and which ones.
#[derive(Default)]
struct Holders {
    images: usize,
    names: BTreeSet<String>,
}

impl Holders {
    /// Counts an image that has these reasons to stay.
    fn add(&mut self, reasons: &BTreeSet<Reason>) {
        self.images += 1;
        // Pods come first: where one is among the reasons, the nodes that list the image as well are not named.
        let is_pod = |reason: &Reason| matches!(reason, Reason::Pod { .. });
        let strongest =
            reasons.iter().take_while(|reason| is_pod(reason) == reasons.first().is_some_and(is_pod));
        self.names.extend(strongest.filter_map(|reason| match reason {
            Reason::Pod { namespace, pod } => Some(format!("{namespace}/{pod}")),
            Reason::Node { node } => Some(node.clone()),
            Reason::Release { .. } | Reason::List { .. } | Reason::Shared => None,
        }));
    }
}

/// Why images are kept, those with the same strongest reason counted together, and why nothing goes where nothing does.
fn why_kept(retention: &Retention) -> Vec<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut count = |reason: String| *counts.entry(reason).or_default() += 1;
    let (mut pods, mut nodes) = (Holders::default(), Holders::default());
    for reasons in retention.kept.values() {
        match reasons.first() {
            Some(Reason::Release { release }) => count(format!("for {release}")),
            Some(Reason::List { list }) => count(format!("named by `{list}`")),
            Some(Reason::Pod { .. }) => pods.add(reasons),
            Some(Reason::Node { .. }) => nodes.add(reasons),
            Some(Reason::Shared) => count("that have content in common with others".to_owned()),
            None => {}
        }
    }
    let mut parts: Vec<String> =
        counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    if pods.images > 0 {
        parts.push(format!("{} that pods use ({})", pods.images, text::list(&pods.names, EXAMPLES)));
    }
    if nodes.images > 0 {
        parts.push(format!(
            "{} that only kubelets still list ({})",
            nodes.images,
            text::list(&nodes.names, EXAMPLES)
        ));
    }
    let mut lines = Vec::new();
    if !parts.is_empty() {
        lines.push(format!("kept: {}", parts.join(", ")));
    }
    if retention.gone().is_empty() {
        let others = &retention.others;
        lines.push(if others.is_empty() {
            "no image goes: the store has no release but those that are kept".to_owned()
        } else {
            format!("no image goes: all that {} had is kept, or went before", text::list(others, EXAMPLES))
        });
    }
    if nodes.images > 0 {
        lines.push(
            "kubelets list what is on their disks, used or not, and by default 50 images at most; to go by what pods \
             use, give --keep-observed PODS and leave out --nodes"
                .to_owned(),
        );
    }
    lines
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
