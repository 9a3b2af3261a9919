//! `dray prepull`

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use dray::catalog::ReleaseId;
use dray::oci::NodeKind;
use dray::site::prepull::{self, Engine, KruiseVersion, PrepullError, Request};

use super::error::CliError;
use super::inputs;
use super::runtime::Context;

/// Print manifests that pull images ahead of an upgrade
///
/// One object for each kind of node, to be applied with kubectl. The nodes pull through their own container runtime, so
/// they need no other configuration than for the upgrade itself.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    dray prepull --engine openkruise --release k0s@v1.36.3+k0s.2 --node linux/amd64 --node windows/ltsc2022 --with calico | kubectl apply -f -\n  \
    dray prepull --engine daemonset --release rke2@v1.36.3+rke2r1 --node linux/amd64 --registry registry.site.local:5000")]
pub(crate) struct Prepull {
    /// What pulls: OpenKruise's jobs, or a plain DaemonSet
    #[arg(
        long,
        value_parser = PossibleValuesParser::new(Engine::ALL.map(Engine::name)).try_map(|name| name.parse::<Engine>())
    )]
    engine: Engine,

    /// The release, e.g. k0s@v1.36.3+k0s.2
    #[arg(long, value_name = "DISTRO@VERSION")]
    release: ReleaseId,

    /// A kind of node: linux/arm64, windows(10.0.20348)/amd64, windows/ltsc2022; may be repeated
    #[arg(long, value_name = "KIND", required = true, value_delimiter = ',')]
    node: Vec<String>,

    /// A feature beyond the default configuration, e.g. calico, nllb:envoy; may be repeated
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    with: Vec<String>,

    /// The registry that the distribution itself is set to take images from, if it is (k0s images.repository, kubeadm
    /// imageRepository, k3s and RKE2 system-default-registry). With mirrors in the container runtime leave it out;
    #[arg(long, value_name = "HOST")]
    registry: Option<String>,

    /// The namespace of the objects and of the secrets
    #[arg(long, value_name = "NAME", default_value = "kube-system")]
    namespace: String,

    /// A secret with credentials for the registry; may be repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    secret: Vec<String>,

    /// With OpenKruise: how many nodes pull at the same time
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    parallelism: u32,

    /// With OpenKruise: its version in the cluster. Default: what every one from 1.5 on understands
    #[arg(long, value_name = "VERSION")]
    kruise_version: Option<KruiseVersion>,
}

impl Prepull {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        let catalog = inputs::catalog(context)?;
        let kinds = catalog.node_kinds(&self.node)?;
        let mut secrets = Vec::new();
        for secret in self.secret {
            if !secrets.contains(&secret) {
                secrets.push(secret);
            }
        }
        let objects = prepull::objects(
            &Request {
                engine: self.engine,
                release: &self.release,
                with: &self.with,
                kinds: &kinds,
                registry: self.registry.as_deref(),
                namespace: &self.namespace,
                secrets: &secrets,
                parallelism: self.parallelism,
                kruise: self.kruise_version,
            },
            &catalog,
        )?;
        context.output.result(&objects, || dray::site::documents(&objects))?;
        match self.engine {
            Engine::OpenKruise => {
                context
                    .output
                    .note("OpenKruise does these jobs only with its feature gate ImagePullJobGate turned on");
                if kinds.iter().any(NodeKind::is_windows) {
                    context.output.warn(
                        "on Windows nodes OpenKruise needs its own daemon, from 1.9 on, of which no image is published; \
                         --engine daemonset does without",
                    );
                }
            }
            Engine::DaemonSet => context.output.note(
                "the pods never become ready: they pull and run nothing. `kubectl get events` shows what is pulled; delete \
                 the objects after the upgrade",
            ),
        }
        Ok(())
    }
}

impl From<PrepullError> for CliError {
    fn from(error: PrepullError) -> Self {
        Self::usage(error)
    }
}
