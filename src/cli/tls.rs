//! `dray tls`

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use dray::file::{self, Readers};
use dray::input;
use dray::registry::{certificate_names, make_authority, make_server};
use jiff::Timestamp;
use serde::Serialize;

use super::error::CliError;
use super::inputs;
use super::runtime::Context;
use super::target::{self, OutputPath};

/// Create certificates for the site's registry
#[derive(Args)]
pub(crate) struct TlsCommand {
    #[command(subcommand)]
    command: TlsSubcommand,
}

#[derive(Subcommand)]
enum TlsSubcommand {
    Init(Init),
}

/// Create a certificate authority and a server certificate
///
/// Writes ca.crt and ca.key once, and server.crt and server.key every time: run it again to renew, nodes go on to trust
/// ca.crt, and a running registry takes the new certificate within seconds. The names of the certificate that is replaced
/// stay; --san adds to them.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  dray tls init --san registry.site.local --san 10.0.0.7 -o tls\n  dray serve --store /var/lib/dray --listen :5000 --tls-cert tls/server.crt --tls-key tls/server.key\n  dray tls init -o tls    # renews it"
)]
struct Init {
    /// A name or an address that nodes reach the registry by; may be repeated. Not needed to renew a certificate
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    san: Vec<String>,

    /// Make the certificate for the names of --san only, and drop those of the certificate that is replaced
    #[arg(long, requires = "san")]
    replace_names: bool,

    /// Where to write
    #[arg(short, long, value_name = "DIR")]
    output: OutputPath,

    /// How long the server certificate lasts
    #[arg(long, value_name = "DAYS", default_value_t = 825, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Made {
    authority: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    names: Vec<String>,
}

impl TlsCommand {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        match self.command {
            TlsSubcommand::Init(init) => init.run(context),
        }
    }
}

impl Init {
    fn run(self, context: &Context) -> Result<(), CliError> {
        let now = Timestamp::now();
        let directory = self.output.directory(context)?;
        let file = |name: &str| directory.join(name);
        let made = Made {
            authority: file("ca.crt"),
            certificate: file("server.crt"),
            key: file("server.key"),
            names: self.names(context, &file("server.crt"))?,
        };
        let authority_key = file("ca.key");
        let is_new = !authority_key.try_exists()?;
        let authority = is_new.then(|| make_authority(now)).transpose()?;
        let key = match &authority {
            Some(authority) => authority.key.clone(),
            None => input::read_text(&authority_key, inputs::MAX_KEY_BYTES)?,
        };
        let server = make_server(&key, &made.names, self.days, now)?;
        fs_err::create_dir_all(directory)?;
        if let Some(authority) = authority {
            write(&made.authority, &authority.certificate, Readers::Usual)?;
            // Last, because it is the one that says that there is an authority.
            write(&authority_key, &authority.key, Readers::Owner)?;
        }
        write(&made.key, &server.key, Readers::Owner)?;
        write(&made.certificate, &server.certificate, Readers::Usual)?;
        context.output.result(&made, || {
            let Made { authority, certificate, key, names } = &made;
            format!(
                "authority    {}  (every node must trust it; keep ca.key off the server)\n\
                 certificate  {}  for {}\n\
                 key          {}  (keep it secret)\n\n\
                 serve with   --tls-cert {} --tls-key {}\n\
                 containerd   copy ca.crt beside hosts.toml and name it there: ca = \"…/ca.crt\"\n\
                 podman       copy it to /etc/containers/certs.d/{}:PORT/ca.crt\n\
                 Docker       copy it to /etc/docker/certs.d/{}:PORT/ca.crt\n\
                 Windows      Import-Certificate -FilePath ca.crt -CertStoreLocation Cert:\\LocalMachine\\Root",
                authority.display(),
                certificate.display(),
                names.join(", "),
                key.display(),
                certificate.display(),
                key.display(),
                names[0],
                names[0],
            )
        })
    }

    /// The names of the new certificate: those of the one that it replaces, and those that are given.
    fn names(&self, context: &Context, replaced: &Path) -> Result<Vec<String>, CliError> {
        let mut names = Vec::new();
        if !self.replace_names && replaced.try_exists()? {
            names = certificate_names(replaced).map_err(|error| {
                CliError::from(error).hint("give all names with --san, and --replace-names")
            })?;
        }
        let kept: Vec<&str> =
            names.iter().filter(|name| !self.san.contains(name)).map(String::as_str).collect();
        if !kept.is_empty() && !self.san.is_empty() {
            let kept = kept.join(", ");
            context.output.note(format!("kept from the certificate that was there: {kept}"));
        }
        for name in &self.san {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        if names.is_empty() {
            return Err(CliError::usage("no name for the certificate")
                .hint("give the names and addresses that nodes reach the registry by with --san"));
        }
        Ok(names)
    }
}

fn write(path: &Path, text: &str, readers: Readers) -> Result<(), CliError> {
    file::replace(path, text.as_bytes(), readers).map_err(|error| {
        target::with_disk_hint(CliError::failed(format!("{}: {error}", path.display())), &error)
    })
}
