//! `dray node-config`

use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use dray::catalog::{Os, ReleaseId};
use dray::input;
use dray::site::node_config::{self, NodeConfigError, Request, Target, WriteFilesError};
use dray::site::{RegistryHost, RegistryUrl};
use serde::Serialize;

use super::error::CliError;
use super::inputs;
use super::runtime::Context;
use super::target::OutputPath;

/// The largest file of certificates that is read.
const MAX_CA_BYTES: u64 = 1024 * 1024;

/// Write the files that point nodes at the site's registry
///
/// Images keep their original names. The files lie below DIR as they go on the node, with a README.md that says where to
/// copy them and what to restart.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    dray node-config containerd --registry https://registry.site.local:5000 --ca site-ca.crt -o node\n  \
    dray node-config k0s --release k0s@v1.36.3+k0s.2 --os windows --registry https://registry.site.local:5000 -o win")]
pub(crate) struct NodeConfig {
    /// The container runtime or distribution of the nodes
    #[arg(value_parser = PossibleValuesParser::new(Target::ALL.map(Target::name)).try_map(|name| name.parse::<Target>()))]
    target: Target,

    /// The site's registry as nodes reach it
    #[arg(long, value_name = "URL")]
    registry: RegistryUrl,

    /// The certificate authority behind the registry's certificate, in PEM
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// The operating system of the nodes
    #[arg(long, value_enum, default_value_t = NodeOs::Linux)]
    os: NodeOs,

    /// Send only the pulls from HOST to the site; may be repeated. Default: all pulls
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    host: Vec<RegistryHost>,

    /// With k0s: the release on the nodes, which decides the version of the drop-in. Default: files for both
    #[arg(long, value_name = "DISTRO@VERSION")]
    release: Option<ReleaseId>,

    /// The directory to write, new or empty
    #[arg(short, long, value_name = "DIR")]
    output: OutputPath,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum NodeOs {
    Linux,
    Windows,
}

#[derive(Serialize)]
struct Written<'a> {
    target: &'a str,
    directory: &'a Path,
    files: Vec<&'a str>,
}

impl NodeConfig {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        let directory = self.output.directory(context)?;
        let request = Request {
            target: self.target,
            os: match self.os {
                NodeOs::Linux => Os::Linux,
                NodeOs::Windows => Os::Windows,
            },
            ca: self.ca.as_deref().map(certificates).transpose()?,
            containerd_config: self.containerd_config(context)?,
            registry: self.registry,
            hosts: self.host,
        };
        if !request.registry.is_https() {
            context.output.warn(
                "without TLS anybody on the way can change what nodes run; images pulled by digest stay safe, tags do not",
            );
        }
        let files = request.files().map_err(CliError::usage)?;
        node_config::write(directory, &files)?;
        let written = Written {
            target: self.target.name(),
            directory,
            files: files.iter().map(|file| file.path.as_str()).collect(),
        };
        context.output.result(&written, || {
            let path = |file: &&str| directory.join(file).display().to_string();
            written.files.iter().map(path).collect::<Vec<_>>().join("\n")
        })
    }

    /// What the catalog says about the release's containerd.
    fn containerd_config(&self, context: &Context) -> Result<Option<u8>, CliError> {
        let Some(id) = &self.release else { return Ok(None) };
        if self.target != Target::K0s || id.distro != "k0s" {
            let error = format!("--release is for k0s; the files for {} serve every release", self.target);
            return Err(CliError::usage(error));
        }
        let release = inputs::catalog(context)?.release(id)?;
        match release.facts.containerd_config {
            Some(version) => Ok(Some(version)),
            None => Err(CliError::usage(format!("the catalog does not know which drop-ins {id} reads"))
                .hint("leave out --release to get the files for both versions")),
        }
    }
}

fn certificates(path: &Path) -> Result<node_config::CertificateAuthority, CliError> {
    let named = |error: NodeConfigError| CliError::usage(format!("{}: {error}", input::name(path)));
    input::read_text(path, MAX_CA_BYTES)?.parse().map_err(named)
}

impl From<WriteFilesError> for CliError {
    fn from(error: WriteFilesError) -> Self {
        match error {
            WriteFilesError::NotEmpty(_) => Self::usage(error),
            WriteFilesError::Io(_) => Self::failed(error),
        }
    }
}
