//! `dray demo`

mod pull;
mod samples;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use dray::bundle::{self, BuildOptions, Bundle, ImportOptions};
use dray::catalog::Catalog;
use dray::file::Inputs;
use dray::registry::{Config, Listen, Server};
use dray::resolve::{self, Definition, Lock, LockedImage, ResolveOptions};
use dray::store::{Author, Store};
use dray::trust::{Policy, PrivateKey};
use dray::upstream::{Options, Upstream};
use serde::Serialize;
use tokio::sync::oneshot;

use super::build::UpstreamBlobs;
use super::clock;
use super::error::{CliError, Kind};
use super::output::{self, human_bytes, table};
use super::runtime::{self, Context, stop_signal};
use super::serve::listener;
use pull::{Pulled, pull_as};

/// Show the whole round trip on this machine, without a network
///
/// Starts an upstream registry with sample images (Linux, and a pause image with a manifest for each Windows build),
/// locks, builds and signs a bundle, stops the upstream, verifies and imports the bundle, serves it, and pulls it as
/// every kind of node. Everything happens in a temporary folder and on the loopback network.
#[derive(Args)]
#[command(after_help = "Examples:\n  dray demo\n  dray demo --serve")]
pub(crate) struct Demo {
    /// Keep serving at the end, and say how to pull
    #[arg(long)]
    serve: bool,
    /// With --serve: where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    listen: Listen,
}

/// What the demonstration came to.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    ready: bool,
    digest: String,
    bytes: u64,
    nodes: Vec<Pulled>,
}

impl Demo {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        let folder = tempfile::Builder::new().prefix("dray-demo-").tempdir()?;
        runtime::serve(async {
            let site = runtime::interruptible(self.round_trip(context, folder.path())).await?;
            if self.serve {
                context.output.note(how_to_pull(site.address));
                stop_signal().await;
            }
            site.stop().await
        })
    }

    /// Shows everything, and returns the site, which still serves.
    async fn round_trip(&self, context: &Context, folder: &Path) -> Result<Running, CliError> {
        let say = |text: String| if context.output.is_json() { Ok(()) } else { output::text(&text) };
        say(format!("On the connected side\n\n{}", indented(samples::DEFINITION)))?;

        let samples = Store::create(&folder.join("upstream"))?;
        samples::publish(&samples)?;
        let upstream = Running::start(samples).await?;
        let reader = upstream.reader()?;
        let lock = lock(&reader).await?;
        let kept: usize = lock.images.iter().map(|image| image.kept().count().max(1)).sum();
        say(format!(
            "1  lock    {} images resolved to digests; {kept} manifests are kept for {} kinds of node",
            lock.images.len(),
            lock.nodes.len()
        ))?;
        say(kept_of_pause(&lock))?;

        let key = PrivateKey::generate();
        let path = folder.join("demo.tar");
        let built = build(&lock, reader, &path, &key).await?;
        say(format!(
            "2  build   demo.tar, {}, laid out before the first byte was fetched",
            human_bytes(built.size)
        ))?;
        say(format!("3  sign    {}\n", built.index.digest))?;
        upstream.stop().await?;

        say("The network is gone; demo.tar is carried to the site\n".to_owned())?;
        let bundle = verify(&path, &key)?;
        say(format!(
            "4  verify  signed by {}, {} blobs have their digests",
            &key.public().id().as_str()[..16],
            lock.blobs.len()
        ))?;
        say(format!("           with one bit flipped: {}", refused(&bundle, &key)?))?;

        let store = Store::create(&folder.join("site"))?;
        let record = import(bundle, store.clone(), &key).await?.import;
        say(format!("5  import  {} images from {} blobs", record.images, record.copied_blobs))?;
        let site = if self.serve {
            Running::on(listener(&self.listen)?, store)?
        } else {
            Running::start(store).await?
        };
        say(format!("6  serve   http://{}\n", site.address))?;

        let pulled = pull_everywhere(&lock, &site.reader()?).await?;
        let outcome = Outcome {
            ready: pulled.iter().all(|node| node.ready),
            digest: built.index.digest.to_string(),
            bytes: built.size,
            nodes: pulled,
        };
        context.output.result(&outcome, || readiness(&outcome))?;
        if !outcome.ready {
            return Err(CliError::new(Kind::Incomplete, "a node would not start"));
        }
        if !self.serve {
            say("\nNext: `dray demo --serve` stays up; `dray images --release k0s@v1.36.3+k0s.2` lists a real release.".to_owned())?;
        }
        Ok(site)
    }
}

/// A registry that runs until it is stopped.
struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    /// Serves on a free port that only this machine reaches.
    async fn start(store: Store) -> Result<Self, CliError> {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        Ok(Self::run(Server::bind(Arc::new(store), Config { listen, ..Config::default() }).await?))
    }

    fn on(listener: TcpListener, store: Store) -> Result<Self, CliError> {
        Ok(Self::run(Server::on(listener, Arc::new(store), Config::default())?))
    }

    fn run(server: Server) -> Self {
        let address = server.local_addr();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(server.run(async {
            // A sender that is gone means stop as well.
            let _ = stopped.await;
        }));
        Self { address, stop, task }
    }

    /// A client that finds the images of all sample hosts here.
    fn reader(&self) -> Result<Upstream, CliError> {
        let endpoint = |host: &&str| {
            let url = format!("http://{}/{host}", self.address).parse().map_err(CliError::failed)?;
            Ok(((*host).to_owned(), url))
        };
        let endpoints = samples::HOSTS.iter().map(endpoint).collect::<Result<_, CliError>>()?;
        Ok(Upstream::new(Options { endpoints, ..Options::default() })?)
    }

    async fn stop(self) -> Result<(), CliError> {
        let _ = self.stop.send(());
        self.task.await.map_err(CliError::failed)
    }
}

async fn lock(reader: &Upstream) -> Result<Lock, CliError> {
    let catalog = Catalog::builtin().map_err(CliError::failed)?;
    let definition = Definition::parse(Path::new("demo.yaml"), samples::DEFINITION, &catalog)?;
    let options = ResolveOptions {
        allow_missing: std::collections::BTreeSet::new(),
        allow_problems: std::collections::BTreeSet::new(),
        concurrency: 4,
        day: clock::today()?,
        progress: &|_, _| (),
    };
    Ok(resolve::resolve(&definition, &catalog, reader, options).await?.lock)
}

async fn build(
    lock: &Lock,
    reader: Upstream,
    path: &Path,
    key: &PrivateKey,
) -> Result<bundle::Built, CliError> {
    let keys = std::slice::from_ref(key);
    let options = BuildOptions {
        output: path,
        inputs: &Inputs::default(),
        mtime: 0,
        concurrency: 4,
        keys,
        volume_size: None,
        parity: None,
        progress: &|_| (),
    };
    Ok(bundle::build(lock, &UpstreamBlobs(reader), &options).await?)
}

fn verify(path: &Path, key: &PrivateKey) -> Result<Bundle, CliError> {
    let bundle = Bundle::open(path)?;
    bundle.check_signatures(&Policy::new(vec![key.public()], 1)?)?;
    bundle.verify_blobs(2, &|_| ())?;
    Ok(bundle)
}

/// Flips a bit of a layer in a copy of the bundle and gives what verification says of it.
fn refused(bundle: &Bundle, key: &PrivateKey) -> Result<String, CliError> {
    let mut bytes = std::fs::read(bundle.path())?;
    let layers = bundle.lock().blobs.iter().filter(|blob| !blob.manifest);
    let place = layers.max_by_key(|blob| blob.size).and_then(|blob| bundle.place(&blob.digest));
    let at = place.and_then(|place| usize::try_from(place.offset).ok()).unwrap_or_default();
    bytes[at] ^= 1;
    let damaged: PathBuf = bundle.path().with_extension("damaged");
    std::fs::write(&damaged, bytes)?;
    match verify(&damaged, key) {
        Ok(_) => Err(CliError::new(Kind::Verification, "a flipped bit went unnoticed")),
        Err(error) => {
            let text = error.error.to_string();
            let text = text.strip_prefix(&format!("{}: ", damaged.display())).unwrap_or(&text);
            Ok(text.split(';').next().unwrap_or_default().to_owned())
        }
    }
}

async fn import(bundle: Bundle, store: Store, key: &PrivateKey) -> Result<bundle::Imported, CliError> {
    let verified_by = std::iter::once(key.public().id()).collect();
    let work = tokio::task::spawn_blocking(move || {
        let author = Author { now: jiff::Timestamp::now(), ..Author::default() };
        let options = ImportOptions { verified_by, author, ..ImportOptions::default() };
        bundle::import(&bundle, &store, &options)
    });
    Ok(work.await.map_err(CliError::failed)??)
}

async fn pull_everywhere(lock: &Lock, site: &Upstream) -> Result<Vec<Pulled>, CliError> {
    let mut pulled = Vec::new();
    for node in &lock.nodes {
        pulled.push(pull_as(node, lock, site).await?);
    }
    Ok(pulled)
}

/// What is kept of the pause image, for whom.
fn kept_of_pause(lock: &Lock) -> String {
    let pause = lock.images.iter().find(|image| image.reference.to_string() == samples::PAUSE);
    let rows: Vec<Vec<String>> = pause
        .into_iter()
        .flat_map(LockedImage::kept)
        .map(|child| {
            let platform = child.platform.as_ref().map(ToString::to_string).unwrap_or_default();
            let nodes: Vec<String> = child.nodes.iter().map(ToString::to_string).collect();
            vec![format!("           {platform}"), format!("for {}", nodes.join(" and "))]
        })
        .collect();
    format!("           of {} :\n{}", samples::PAUSE, table(&rows))
        .replace(" :\n", ":\n")
        .trim_end()
        .to_owned()
}

fn readiness(outcome: &Outcome) -> String {
    let mut rows =
        vec![vec!["node".to_owned(), "ready".into(), "images".into(), "as".into(), "pause for".into()]];
    for node in &outcome.nodes {
        rows.push(vec![
            node.node.to_string(),
            if node.ready { "yes".into() } else { "no".into() },
            node.images.to_string(),
            node.clients.join(", "),
            node.pause.join(", "),
        ]);
    }
    format!("7  pull    by the original names, as each kind of node and each runtime\n\n{}", table(&rows))
}

fn how_to_pull(address: SocketAddr) -> String {
    format!(
        "\nServing until Ctrl-C. Try, in another terminal:\n\n  \
         skopeo inspect --raw --tls-verify=false docker://{address}/registry.k8s.io/pause:3.10.2\n  \
         curl 'http://{address}/v2/pause/manifests/3.10.2?ns=registry.k8s.io'\n  \
         curl http://{address}/v2/_catalog\n"
    )
}

fn indented(text: &str) -> String {
    text.lines().flat_map(|line| ["    ", line, "\n"]).collect()
}
