//! `dray check`

mod text;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use dray::bundle::ServedBundles;
use dray::catalog::ReleaseId;
use dray::input;
use dray::oci::Reference;
use dray::resolve::Lock;
use dray::site::RegistryUrl;
use dray::site::check::{
    self, CheckError, ClusterConfig, Delivery, Inputs, MAX_OBJECTS_BYTES, ObjectsError, Report, SiteRegistry,
    Source, WorkerConfig, Workload,
};
use dray::store::Store;

use super::bundles::Signers;
use super::error::{CliError, Kind};
use super::inputs::{self, read_lock};
use super::runtime::Context;
use super::target::{OutputPath, Target};
use super::upstream;

/// Check before an upgrade whether every node will start
///
/// Works out which images each node will ask for, from the configuration as it is stored, and looks for them as the
/// node's container runtime will: in a store, in bundles, in a registry, or in what a lock says a bundle will have.
/// Without any of these only the configuration is judged. Finds the image versions that k0s left in its ClusterConfig,
/// and prints the patch that removes them. Exit code 4 if a node would not start.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    kubectl -n kube-system get clusterconfig k0s -o json > config.json\n  \
    kubectl get nodes -o json > nodes.json\n  \
    dray check --to k0s@v1.30.3+k0s.0 --cluster-config config.json --nodes nodes.json --store /var/lib/dray --patch pins.json\n  \
    dray check --to kubeadm@v1.36.3 --nodes nodes.json --lock plant.lock --with calico-windows")]
pub(crate) struct Check {
    /// The release to go to, e.g. k0s@v1.36.3+k0s.2
    #[arg(long, value_name = "DISTRO@VERSION")]
    to: ReleaseId,

    /// The cluster's configuration: k0s' ClusterConfig, kubeadm's kubeadm-config, config.yaml of k3s or RKE2;
    /// YAML or JSON
    #[arg(long, value_name = "FILE")]
    cluster_config: Option<PathBuf>,

    /// The nodes: `kubectl get nodes -o json`
    #[arg(long, value_name = "FILE")]
    nodes: PathBuf,

    #[command(flatten)]
    content: ContentArgs,

    #[command(flatten)]
    signers: Signers,

    /// Write the patch for the configuration here, when there is one; `-` for standard output, and the report goes to stderr
    #[arg(long, value_name = "FILE")]
    patch: Option<OutputPath>,

    /// What k0s tells its workers: `kubectl -n kube-system get configmaps -o json`
    #[arg(long, value_name = "FILE")]
    worker_configs: Option<PathBuf>,

    /// Workloads as they run now: `kubectl -n kube-system get daemonsets,deployments -o json`
    #[arg(long, value_name = "FILE")]
    workloads: Option<PathBuf>,

    /// How images get to the nodes
    #[arg(long, value_enum, default_value_t = DeliveryArg::Any)]
    delivery: DeliveryArg,

    /// A feature that the configuration does not show, e.g. metrics-scraper, cilium; may be repeated
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    with: Vec<String>,

    /// A component that is turned off, as the report names it, e.g. metrics-server; may be repeated
    #[arg(long, value_name = "COMPONENT", value_delimiter = ',')]
    without: Vec<String>,

    /// The sandbox image that the container runtimes are configured with, where it is not the one that they or the
    /// distribution bring
    #[arg(long, value_name = "IMAGE")]
    sandbox_image: Option<Reference>,
}

/// What serves the nodes.
#[derive(Args)]
#[group(multiple = false)]
struct ContentArgs {
    /// What serves the nodes: this store
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// What serves the nodes: this bundle as it is, or its volumes; may be repeated
    #[arg(long, value_name = "BUNDLE", num_args = 1..)]
    bundle: Vec<PathBuf>,
    /// What will serve the nodes: the bundle of this lock; may be repeated
    #[arg(long, value_name = "LOCK", num_args = 1..)]
    lock: Vec<PathBuf>,
    /// What serves the nodes: this registry, which is asked for every image below the image's own host
    #[arg(long, value_name = "URL")]
    registry: Option<RegistryUrl>,
}

/// How images get to the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DeliveryArg {
    /// From a registry, or put on the nodes before the upgrade
    Any,
    /// From a registry only
    Registry,
    /// Put on the nodes before the upgrade; there is no registry
    Preload,
}

impl Check {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        let patch = self.patch.as_ref().map(|path| path.stream(context)).transpose()?;
        let catalog = inputs::catalog(context)?;
        let distro = self.to.distro.clone();
        let read =
            |path: &PathBuf| read_objects(path, |file, text| ClusterConfig::parse(&distro, file, text));
        let config = self.cluster_config.as_ref().map(read).transpose()?;
        if config.is_none() && distro == "k0s" {
            return Err(CliError::usage("which images a k0s cluster asks for depends on its configuration")
                .hint("give it with --cluster-config: `kubectl -n kube-system get clusterconfig k0s -o json`, k0s.yaml or k0sctl.yaml"));
        }
        let nodes =
            read_objects(&self.nodes, |file, text| check::parse_nodes(file, text, catalog.windows()))?;
        let all = |path: &PathBuf| read_objects(path, WorkerConfig::parse_all);
        let worker_configs = self.worker_configs.as_ref().map(all).transpose()?.unwrap_or_default();
        let all = |path: &PathBuf| read_objects(path, Workload::parse_all);
        let workloads = self.workloads.as_ref().map(all).transpose()?.unwrap_or_default();
        let report = check::check(&Inputs {
            catalog: &catalog,
            target: &self.to,
            config: config.as_ref(),
            nodes: &nodes,
            source: &self.source(context)?,
            delivery: self.delivery.into(),
            worker_configs: &worker_configs,
            workloads: &workloads,
            with: &self.with,
            without: &self.without,
            sandbox: self.sandbox_image.as_ref(),
        })?;
        write_patch(context, &report, patch.as_ref())?;
        let file = patch.as_ref().filter(|target| !target.is_stdout()).map(Target::path);
        let paper = text::Paper { report: &report, config: config.as_ref(), patch: file };
        context.output.result(&report, || paper.text(context.global.verbose > 0))?;
        verdict(&report)
    }

    fn source(&self, context: &Context) -> Result<Source, CliError> {
        let ContentArgs { store, bundle, lock, registry } = &self.content;
        if let Some(url) = registry {
            let upstream = upstream::connect_site(&context.global, url)?;
            return Ok(Source::Registry(Arc::new(SiteRegistry::new(upstream, url)?)));
        }
        if let Some(directory) = store {
            return Ok(Source::Content(Arc::new(Store::open(directory).map_err(CliError::failed)?)));
        }
        if !lock.is_empty() {
            let mut locks: Vec<Lock> = lock.iter().map(|path| read_lock(path)).collect::<Result<_, _>>()?;
            // As with bundles, what is newer counts.
            locks.sort_by_key(|lock| lock.sequence);
            return Ok(Source::Locks(locks));
        }
        if bundle.is_empty() {
            return Ok(Source::Unknown);
        }
        Ok(Source::Content(Arc::new(ServedBundles::new(self.signers.open_to_look(context, bundle)?)?)))
    }
}

fn write_patch(context: &Context, report: &Report, target: Option<&Target>) -> Result<(), CliError> {
    let Some(target) = target else { return Ok(()) };
    if report.ready_with_patch.is_none() {
        context.output.note(format!("nothing to patch, so {target} is not written"));
        return Ok(());
    }
    let mut json = serde_json::to_string_pretty(&report.patch).map_err(CliError::failed)?;
    json.push('\n');
    target.write(json.into_bytes())
}

impl From<DeliveryArg> for Delivery {
    fn from(arg: DeliveryArg) -> Self {
        match arg {
            DeliveryArg::Any => Self::Any,
            DeliveryArg::Registry => Self::Registry,
            DeliveryArg::Preload => Self::Preload,
        }
    }
}

impl From<CheckError> for CliError {
    fn from(error: CheckError) -> Self {
        match error {
            CheckError::Catalog(error) => Self::usage(error),
            CheckError::NotKubernetes(_) => Self::usage(error),
            CheckError::Content(error) => Self::failed(error),
        }
    }
}

/// An error when something would not start.
fn verdict(report: &Report) -> Result<(), CliError> {
    if report.ready {
        return Ok(());
    }
    let failing = report.nodes.iter().filter(|node| !node.ready).count();
    let error = CliError::new(
        Kind::Incomplete,
        match failing {
            0 => format!("the cluster is not ready for {}", report.to),
            n => format!("{n} of {} nodes would not start with {}", report.nodes.len(), report.to),
        },
    );
    Err(if report.ready_with_patch == Some(true) {
        error.hint("with the configuration patched they would; the report has the command")
    } else {
        error
    })
}

/// Reads a file of Kubernetes objects.
pub(crate) fn read_objects<T>(
    path: &Path,
    parse: impl FnOnce(&str, &str) -> Result<T, ObjectsError>,
) -> Result<T, CliError> {
    let (name, text) = (input::name(path), input::read_text(path, MAX_OBJECTS_BYTES)?);
    parse(&name, &text).map_err(|error| match error {
        ObjectsError::Document(error) => error.into(),
        ObjectsError::Unfit(_) => CliError::usage(format!("{name}: {error}")),
    })
}
