//! `dray upgrade-plan`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use dray::catalog::ReleaseId;
use dray::oci::{Algorithm, Reference};
use dray::site::RegistryUrl;
use dray::site::export::{Archive, ExportError};
use dray::site::stock::{Channel, Stock, StockError};
use dray::site::upgrade_plan::{
    Autopilot, PlanError, Request, SystemUpgrade, UpgradePlan, autopilot, system_upgrade,
};
use dray::store::{ContentError, Store, StoreError};

use super::error::{CliError, Kind};
use super::inputs;
use super::runtime::Context;

/// Print the plan for an upgrade controller
///
/// Its addresses are those of the site, and its checksums those of what `dray serve` gives out there. What the plan needs
/// and the store does not have is named, with what to put into the definition; the exit code is 4 then. What no controller
/// does, such as the upgrade of Windows nodes, stands in comments before the plan.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    dray upgrade-plan autopilot --release k0s@v1.36.3+k0s.2 --url https://registry.site.local:5000 --store /srv/dray | kubectl apply -f -\n  \
    dray upgrade-plan suc --release k3s@v1.36.3+k3s1 --url https://registry.site.local:5000 --store /srv/dray --drain")]
pub(crate) struct UpgradePlanCommand {
    #[command(subcommand)]
    controller: Controller,
}

#[derive(Subcommand)]
enum Controller {
    Autopilot(AutopilotArgs),
    Suc(SucArgs),
}

#[derive(Args)]
struct Common {
    /// The release to go to, e.g. k0s@v1.36.3+k0s.2
    #[arg(long, value_name = "DISTRO@VERSION")]
    release: ReleaseId,

    /// Where nodes reach the registry of the site, with http or https in front
    #[arg(long, value_name = "URL")]
    url: RegistryUrl,

    /// The store that is served there
    #[arg(long, value_name = "DIR")]
    store: PathBuf,

    /// A kind of node; may be repeated. Default: all that the release was brought for
    #[arg(long, value_name = "KIND")]
    node: Vec<String>,
}

/// Plan for k0s' Autopilot
///
/// First the images are brought to the Linux workers, then the program to controllers and workers.
#[derive(Args)]
#[command(
    after_help = "Example:\n  dray upgrade-plan autopilot --release k0s@v1.36.3+k0s.2 --url https://registry.site.local:5000 --store /srv/dray --parallelism 2 > plan.yaml"
)]
struct AutopilotArgs {
    #[command(flatten)]
    common: Common,

    /// How many workers are upgraded at the same time; controllers go one by one
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    parallelism: u32,

    /// A controller; may be repeated. Default: all that there are
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    controller: Vec<String>,

    /// The plan's id. Default: made from the release
    #[arg(long, value_name = "ID")]
    id: Option<String>,
}

/// Plans for Rancher's system-upgrade-controller
///
/// One for the servers of a k3s or RKE2 cluster, and one for the agents, which waits for the first.
#[derive(Args)]
#[command(
    after_help = "Example:\n  dray upgrade-plan suc --release rke2@v1.36.3+rke2r1 --url https://registry.site.local:5000 --store /srv/dray --channel v1.36"
)]
struct SucArgs {
    #[command(flatten)]
    common: Common,

    /// How many agents are upgraded at the same time; servers go one by one
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    parallelism: u32,

    /// Drain agents before they are upgraded. Default: cordon them, and what runs there runs on
    #[arg(long)]
    drain: bool,

    /// Follow this channel of the site (stable, latest, v1.36), whatever it brings later. Default: state the version
    #[arg(long, value_name = "CHANNEL")]
    channel: Option<Channel>,

    /// The registry to name images after. Default: they keep their names
    #[arg(long, value_name = "HOST")]
    registry: Option<String>,

    /// What the controller is configured to cordon nodes with. Default: docker.io/rancher/kubectl with any tag
    #[arg(long, value_name = "IMAGE")]
    kubectl_image: Option<Reference>,

    /// The namespace of the controller
    #[arg(long, value_name = "NAME", default_value = "system-upgrade")]
    namespace: String,

    /// The account that the controller's jobs run as
    #[arg(long, value_name = "NAME", default_value = "system-upgrade")]
    service_account: String,
}

impl UpgradePlanCommand {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        let plan = match &self.controller {
            Controller::Autopilot(args) => {
                let options = Autopilot {
                    id: args.id.as_deref(),
                    concurrency: args.parallelism,
                    controllers: &args.controller,
                };
                args.common.plan(context, |request| autopilot(request, &options))?
            }
            Controller::Suc(args) => {
                let options = SystemUpgrade {
                    namespace: &args.namespace,
                    service_account: &args.service_account,
                    concurrency: args.parallelism,
                    drain: args.drain,
                    channel: args.channel,
                    registry: args.registry.as_deref(),
                    kubectl: args.kubectl_image.as_ref(),
                };
                args.common.plan(context, |request| system_upgrade(request, &options))?
            }
        };
        context.output.result(&plan, || plan.to_yaml())?;
        for manual in &plan.manual {
            context
                .output
                .warn(format!("{} nodes are upgraded by hand; the steps are in the plan", manual.node));
        }
        Ok(())
    }
}

impl Common {
    fn plan(
        &self,
        context: &Context,
        make: impl FnOnce(&Request<'_>) -> Result<UpgradePlan, PlanError>,
    ) -> Result<UpgradePlan, CliError> {
        let catalog = inputs::catalog(context)?;
        let kinds = catalog.node_kinds(&self.node)?;
        let store = Store::open(&self.store)?;
        let stock = Stock::of_store(&store, catalog);
        let sum = |archive: &Archive| {
            let bar = context.output.bytes_bar("hashing", archive.size());
            let sum = archive.digest(&store, Algorithm::Sha256, &mut |bytes| bar.inc(bytes));
            bar.finish_and_clear();
            sum
        };
        let (release, url) = (&self.release, &self.url);
        Ok(make(&Request { release, kinds: &kinds, url, stock: &stock, sum: &sum })?)
    }
}

/// What to do about what is missing.
const BRING: &str = "then `dray build` a bundle of it, and `dray import` it here";

impl From<PlanError> for CliError {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Lacks(ref lacks) => {
                let lacks = lacks.clone();
                Self::new(Kind::Incomplete, error).missing(lacks).hint(BRING)
            }
            PlanError::NotStocked { .. } => Self::new(Kind::Incomplete, error).hint(BRING),
            PlanError::NoSuchNode { .. } | PlanError::NoLinux(_) | PlanError::Channel { .. } => {
                Self::new(Kind::Incomplete, error)
            }
            PlanError::OtherDistribution { .. } | PlanError::Registry(_) | PlanError::Catalog(_) => {
                Self::usage(error)
            }
            PlanError::Stock(error) => error.into(),
        }
    }
}

impl From<StockError> for CliError {
    fn from(error: StockError) -> Self {
        match error {
            StockError::Imports(error) => error.into(),
            StockError::Store(StoreError::Content(ContentError::Damaged(_))) => {
                Self::new(Kind::Verification, error)
            }
            StockError::Store(error) => error.into(),
            StockError::Archive(error) => ExportError::into(error),
        }
    }
}
