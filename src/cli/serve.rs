//! `dray serve`

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use dray::bundle::{Bundle, ServedBundles};
use dray::catalog::Catalog;
use dray::registry::{AccessLog, Config, Naming, Server, Tls, TlsError, Users, UsersError, Wants};
use dray::site::stock::{Brought, Stock};
use dray::store::{Content, Store};
use serde::Serialize;

use super::bundles::Signers;
use super::error::CliError;
use super::inputs;
use super::runtime::{Context, serve, stop_signal};

/// Serve images as a registry
///
/// Nodes find images by their original names: by path (/v2/registry.k8s.io/pause/…), by containerd's ?ns=, by both, by
/// the Host header, or by the name alone where it is the only one. SIGTERM and Ctrl-C let transfers finish first.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  dray serve --store /var/lib/dray --listen 0.0.0.0:5000\n  dray serve --bundle /media/usb/plant.tar --trust release.pub"
)]
pub(crate) struct Serve {
    /// The store to serve
    #[arg(long, value_name = "DIR", required_unless_present = "bundle", conflicts_with = "bundle")]
    store: Option<PathBuf>,

    /// Serve this bundle, or these volumes, without importing it; may be repeated, the later one wins where tags are
    /// the same
    #[arg(long, value_name = "BUNDLE", num_args = 1..)]
    bundle: Vec<PathBuf>,

    #[command(flatten)]
    signers: Signers,

    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000")]
    listen: SocketAddr,

    /// Serve requests addressed to NAME as images of the registry HOST; may be repeated
    #[arg(long, value_name = "NAME=HOST", value_parser = parse_host, value_delimiter = ',')]
    host: Vec<(String, String)>,

    /// Strip PATH from the front of repository names (k0s images.repository: site:5000/PATH); may be repeated
    #[arg(long, value_name = "PATH", value_delimiter = ',')]
    prefix: Vec<String>,

    /// Let clients push and delete. The store is made if there is none
    #[arg(long, conflicts_with = "bundle")]
    allow_push: bool,

    /// Users and bcrypt passwords, as `htpasswd -B` writes them; only they may push
    #[arg(long, value_name = "FILE")]
    htpasswd: Option<PathBuf>,

    /// With --htpasswd: only users may pull
    #[arg(long, requires = "htpasswd")]
    private: bool,

    /// Speak TLS with this certificate, the chain after it. It is taken anew when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The private key of --tls-cert
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Write a line for every request to stderr
    #[arg(long, value_name = "FORMAT", value_enum)]
    access_log: Option<LogFormat>,
}

/// How lines of the access log look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

#[derive(Serialize)]
struct Serving {
    address: SocketAddr,
}

impl Serve {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        if self.allow_push && self.htpasswd.is_none() && !self.listen.ip().is_loopback() {
            let error = "everybody who can reach this address could push and delete";
            return Err(CliError::usage(error).hint("name the users with --htpasswd, or listen on 127.0.0.1"));
        }
        let tls = self.tls_cert.as_deref().zip(self.tls_key.as_deref());
        let tls = tls.map(|(certificate, key)| Tls::open(certificate, key)).transpose()?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let users = self.htpasswd.as_deref().map(Users::open).transpose()?;
        let open = if self.allow_push { Store::create } else { Store::open };
        let store = self.store.as_deref().map(open).transpose().map_err(CliError::failed)?;
        let catalog = inputs::catalog(context)?;
        let (images, stock): (Arc<dyn Content>, Stock) = match &store {
            Some(store) => (Arc::new(store.clone()), Stock::of_store(store, catalog)),
            None => self.bundles(context, catalog)?,
        };
        // A bundle has no place for them.
        let wants =
            store.as_ref().map_or_else(|| Ok(Wants::default()), |store| Wants::open(&store.wants_file()));
        let wants = wants.map_err(CliError::failed)?;
        let config = Config {
            listen: self.listen,
            naming: Naming { hosts: BTreeMap::from_iter(self.host), prefixes: self.prefix },
            wants: Some(Arc::new(wants)),
            push: store.filter(|_| self.allow_push),
            tls: tls.map(Arc::new),
            users: users.map(Arc::new),
            private: self.private,
            access_log: self.access_log.map(access_log),
            extras: Some(Arc::new(stock)),
            ..Config::default()
        };
        serve(async {
            let server = Server::bind(images, config).await?;
            let serving = Serving { address: server.local_addr() };
            context.output.result(&serving, || format!("serving on {scheme}://{}", serving.address))?;
            server.run(stop_signal()).await;
            Ok(())
        })
    }

    fn bundles(&self, context: &Context, catalog: Catalog) -> Result<(Arc<dyn Content>, Stock), CliError> {
        let bundles = self.signers.open(context, &self.bundle)?;
        let brought = Brought::by(bundles.iter().map(Bundle::lock));
        let served = Arc::new(ServedBundles::new(bundles)?);
        inputs::warn_of_disputed(context, served.all_tags().disputed());
        let stock = Stock::of_bundles(brought, served.clone(), catalog);
        Ok((served, stock))
    }
}

/// Writes entries to stderr. A closed stderr is nobody's error.
fn access_log(format: LogFormat) -> AccessLog {
    AccessLog::new(move |access| {
        let line = match format {
            LogFormat::Text => access.to_string(),
            LogFormat::Json => serde_json::to_string(access).unwrap_or_default(),
        };
        let _ = writeln!(io::stderr(), "{line}");
    })
}

fn parse_host(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, host)) if !name.is_empty() && !host.is_empty() => {
            Ok((name.to_ascii_lowercase(), host.to_owned()))
        }
        _ => Err("expected NAME=HOST, such as hub.site.local=docker.io".into()),
    }
}

impl From<TlsError> for CliError {
    fn from(error: TlsError) -> Self {
        match error {
            TlsError::Input(error) => error.into(),
            TlsError::Pem { .. } | TlsError::Unusable { .. } | TlsError::Name(_) => Self::usage(error),
            TlsError::Making(_) | TlsError::Time(_) | TlsError::Io(_) => Self::failed(error),
        }
    }
}

impl From<UsersError> for CliError {
    fn from(error: UsersError) -> Self {
        match error {
            UsersError::Input(error) => error.into(),
            UsersError::Lines(_) | UsersError::Empty(_) => Self::usage(error),
            UsersError::Io(_) => Self::failed(error),
        }
    }
}
