//! `dray serve`

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};
use dray::bundle::{Bundle, ServedBundles};
use dray::catalog::Catalog;
use dray::registry::{
    AccessLog, Config, Listen, Naming, Server, Tls, TlsError, Transfers, Users, UsersError, Wants,
    inherited_listener,
};
use dray::site::stock::{Brought, Stock};
use dray::store::{Content, Store};
use dray::text::{counted, list};
use serde::Serialize;

use super::bundles::Signers;
use super::error::CliError;
use super::inputs;
use super::runtime::{Context, serve, stop_signal, stop_signals};

/// How many releases are named at the start.
const NAMED: usize = 4;

/// Serve images as a registry
///
/// Nodes find images by their original names: by path (/v2/registry.k8s.io/pause/…), by containerd's ?ns=, by both, by
/// the Host header, or by the name alone where it is the only one. SIGTERM and Ctrl-C let transfers finish first.
#[derive(Args)]
#[command(
    group = ArgGroup::new("content").required(true).args(["store", "bundle"]),
    after_help = "Examples:\n  dray serve --store /var/lib/dray --listen :5000\n  dray serve --bundle /media/usb/plant.tar --trust release.pub"
)]
pub(crate) struct Serve {
    /// The store to serve
    #[arg(long, value_name = "DIR", conflicts_with = "bundle")]
    store: Option<PathBuf>,

    /// Serve this bundle, or these volumes, without importing it; may be repeated, the later one wins where tags are
    /// the same
    #[arg(long, value_name = "BUNDLE", num_args = 1..)]
    bundle: Vec<PathBuf>,

    #[command(flatten)]
    signers: Signers,

    /// Where to listen: an address or a name, and a port. :5000 listens on every address; port 0 takes a free one. A
    /// socket that a service manager hands over (`$LISTEN_FDS`) comes before this
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000")]
    listen: Listen,

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

/// What is served, and where.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Serving {
    address: SocketAddr,
    /// Where nodes find it; `None` if only this machine does.
    url_for_nodes: Option<String>,
    releases: Vec<String>,
    /// How many images bundles brought.
    images: usize,
}

impl Serve {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        // What a service manager holds stays open when this process ends, and the next one takes it over.
        let inherited = inherited_listener()?;
        if self.allow_push && self.htpasswd.is_none() && !self.is_local(inherited.as_ref())? {
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
        let stock = Arc::new(stock);
        // A bundle has no place for them.
        let wants =
            store.as_ref().map_or_else(|| Ok(Wants::default()), |store| Wants::open(&store.wants_file()));
        let wants = wants.map_err(CliError::failed)?;
        let config = Config {
            naming: Naming { hosts: BTreeMap::from_iter(self.host), prefixes: self.prefix },
            wants: Some(Arc::new(wants)),
            push: store.filter(|_| self.allow_push),
            tls: tls.map(Arc::new),
            users: users.map(Arc::new),
            private: self.private,
            access_log: self.access_log.map(access_log),
            extras: Some(stock.clone()),
            ..Config::default()
        };
        let is_inherited = inherited.is_some();
        let listener = inherited.map_or_else(|| listener(&self.listen), Ok)?;
        serve(async {
            let server = Server::on(listener, images, config)?;
            let server = if is_inherited { server.keep_listening() } else { server };
            let (address, transfers) = (server.local_addr(), server.transfers());
            let drain = Config::default().limits.drain;
            let stopping = async {
                stop_signal().await;
                say_what_is_waited_for(context, &transfers, drain);
            };
            // The server answers while it is counted what there is.
            let announcing = async {
                let brought = tokio::task::spawn_blocking(move || what_is_here(&stock)).await;
                let (releases, images) = brought.map_err(CliError::failed)?;
                let url_for_nodes = reachable(address)
                    .map(|ip| format!("{scheme}://{}", SocketAddr::new(ip, address.port())));
                let serving = Serving { address, url_for_nodes, releases, images };
                context.output.result(&serving, || serving.text(scheme))?;
                Ok::<_, CliError>(())
            };
            let both = async {
                let ((), announced) = tokio::join!(server.run(stopping), announcing);
                announced
            };
            tokio::select! {
                result = both => result,
                () = stop_signals(2) => {
                    context.output.warn(format!("stopped with {} unfinished", counted(transfers.count(), "transfer")));
                    Ok(())
                }
            }
        })
    }

    /// Whether only this machine can connect.
    fn is_local(&self, inherited: Option<&TcpListener>) -> Result<bool, CliError> {
        let addresses = match inherited {
            Some(listener) => vec![listener.local_addr()?],
            None => self.listen.addresses()?,
        };
        Ok(addresses.iter().all(|address| address.ip().is_loopback()))
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

impl Serving {
    fn text(&self, scheme: &str) -> String {
        let address = self.address;
        let (releases, images) = (self.releases.len(), counted(self.images, "image"));
        let here = match releases {
            0 => images,
            _ => format!("{} ({}), {images}", counted(releases, "release"), list(&self.releases, NAMED)),
        };
        let nodes = match &self.url_for_nodes {
            Some(url) => format!("nodes reach it at {url}"),
            None if address.ip().is_unspecified() => {
                "nodes reach it at any address of this machine".to_owned()
            }
            None => "only this machine reaches it; --listen :5000 is for nodes".to_owned(),
        };
        format!("serving on {scheme}://{address}\n{here}; {nodes}")
    }
}

/// Takes the port that nodes are to reach.
pub(crate) fn listener(listen: &Listen) -> Result<TcpListener, CliError> {
    listen.bind().map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another program has this port, maybe another `dray serve`: stop it, or take another port with --listen"
            }
            io::ErrorKind::PermissionDenied => "ports below 1024 are for root; take another port with --listen",
            io::ErrorKind::AddrNotAvailable => "--listen takes an address of this machine, or :5000 for all of them",
            _ => return CliError::failed(error),
        };
        CliError::failed(error).hint(hint)
    })
}

/// The releases and the number of images that bundles brought. What cannot be read is not counted; serving goes on.
fn what_is_here(stock: &Stock) -> (Vec<String>, usize) {
    match stock.brought() {
        Ok(brought) => (brought.releases.keys().map(ToString::to_string).collect(), brought.images),
        Err(error) => {
            tracing::warn!("cannot tell what was imported: {error}");
            (Vec::new(), 0)
        }
    }
}

/// The address at which nodes reach a server that listens on `address`; `None` if only this machine does.
fn reachable(address: SocketAddr) -> Option<IpAddr> {
    let ip = address.ip();
    if !ip.is_unspecified() {
        return (!ip.is_loopback()).then_some(ip);
    }
    // Nothing is sent: the system only says which of its addresses it would send from (the target is for documentation,
    // RFC 5737).
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
}

fn say_what_is_waited_for(context: &Context, transfers: &Transfers, drain: Duration) {
    let count = transfers.count();
    if count > 0 {
        context.output.note(format!(
            "waiting for {} to end, for {} seconds at most; a second signal stops at once",
            counted(count, "transfer"),
            drain.as_secs()
        ));
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
            TlsError::Encrypted(_) => Self::usage(error)
                .hint("write it without a passphrase: openssl pkey -in KEY -out NEW-KEY, readable by its owner only"),
            TlsError::Pem { .. }
            | TlsError::Mismatch { .. }
            | TlsError::Unusable { .. }
            | TlsError::Name(_) => Self::usage(error),
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
