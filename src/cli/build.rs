//! `dray build`

use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use dray::bundle::{
    self, BlobSource, BuildError, BuildOptions, Bundle, ParityShare, RecoveryReach, SourceError, Tail,
    VolumeSize,
};
use dray::oci::Descriptor;
use dray::resolve::LockedBlob;
use dray::text::counted;
use dray::upstream::{BlobStream, Missing, Problem, Upstream, UpstreamError};
use futures_util::TryStreamExt;
use futures_util::stream::{self, BoxStream, StreamExt};
use serde_json::json;
use url::Url;

use super::clock;
use super::error::{CliError, Kind};
use super::inputs::{self, Allowances, Source};
use super::output::human_bytes;
use super::runtime::{self, Context};
use super::since::{self, Since};
use super::target::OutputPath;
use super::upstream;

/// Build a bundle from a lock or a definition
///
/// The bundle is one file, or several volumes, with everything that the nodes need.
///
/// Layers are fetched straight to their place in the file. A build that was interrupted goes on where it stopped when
/// the same command is run again. The same lock always gives the same bytes.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  dray build -f plant.yaml -o plant.tar --key release.key\n  dray build --lock plant.lock -o plant.tar\n  dray build --lock plant.lock -o delta.tar --since site.inv --key release.key\n  dray build --lock plant.lock -o plant.tar --key release.key --volume-size dvd --parity 10%"
)]
pub(crate) struct Build {
    #[command(flatten)]
    source: Source,
    /// Where the bundle goes: a file, since it is written at any position
    #[arg(short, long, value_name = "BUNDLE")]
    output: OutputPath,
    /// Sign with this private key, made by `dray keygen`; may be repeated
    #[arg(long, value_name = "KEY", value_delimiter = ',')]
    key: Vec<PathBuf>,
    /// Cut the bundle into volumes that are no larger: 700MB, 4.7GB, 1GiB, or cd, dvd, fat32. OUTPUT x.tar gives
    /// x.1of3.tar and so on
    #[arg(long, value_name = "SIZE")]
    volume_size: Option<VolumeSize>,
    /// Make recovery files, from which `dray repair` restores as much as this share of the bundle: 10%
    #[arg(long, value_name = "SHARE")]
    parity: Option<ParityShare>,
    #[command(flatten)]
    since: Since,
    #[command(flatten)]
    allowances: Allowances,
}

impl Build {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        let mut target = self.output.seekable(context)?;
        bundle::check_unfinished(target.path(), target.inputs())?;
        let keys = inputs::private_keys(&self.key)?;
        let mtime = clock::archive_time()?;
        let inventory = self.since.inventory()?;
        let lock = self.source.lock(context, &self.allowances, Some(&mut target))?;
        let lock = since::leave_out(context, lock, inventory.as_ref())?;
        if let Some(replaced) = target.present().and_then(|path| Bundle::open(path).ok())
            && replaced.index().digest != Tail::index_digest(&lock).map_err(CliError::usage)?
        {
            inputs::warn_of_replaced(context, &target, replaced.lock(), &lock);
        }
        let source = UpstreamBlobs(upstream::connect(&context.global)?);
        // What is finished is read once more for the digests of its blocks, and once more for parity.
        let passes = match (self.volume_size, self.parity) {
            (None, None) => 1,
            (Some(_), None) => 2,
            (_, Some(_)) => 3,
        };
        let bar = context.output.bytes_bar("building", passes * lock.total_bytes());
        let built = runtime::block_on(async {
            let options = BuildOptions {
                output: target.path(),
                inputs: target.inputs(),
                mtime,
                concurrency: context.global.concurrency.into(),
                keys: &keys,
                volume_size: self.volume_size,
                parity: self.parity,
                progress: &|bytes| bar.inc(bytes),
            };
            Ok(bundle::build(&lock, &source, &options).await?)
        })?;
        bar.finish_and_clear();
        if keys.is_empty() {
            context
                .output
                .warn("the bundle is not signed; sites refuse it until `dray sign` has added a signature");
        }
        let value = json!({
            "bundle": target,
            "files": built.paths,
            "digest": built.index.digest,
            "name": lock.name,
            "sequence": lock.sequence,
            "images": lock.images.len(),
            "bytes": built.size,
            "leftOut": lock.required_bytes(),
            "continued": built.continued,
            "signatures": keys.len(),
        });
        context.output.result(&value, || {
            let continued = match built.continued {
                0 => String::new(),
                bytes => format!(" ({} were there from an earlier run)", human_bytes(bytes)),
            };
            let left_out = match lock.required_bytes() {
                0 => String::new(),
                bytes => format!("; {} are left out, because the site has them", human_bytes(bytes)),
            };
            format!(
                "{}: {}, {}{continued}{left_out}\n{}{}",
                names(&built.paths),
                counted(lock.images.len(), "image"),
                human_bytes(built.size),
                built.index.digest,
                built.recovery.as_ref().map(reach).unwrap_or_default(),
            )
        })
    }
}

/// Says how much the recovery files restore, and what it takes to restore a whole volume.
fn reach(recovery: &RecoveryReach) -> String {
    let restores = format!("\nrecovery files restore up to {} of lost bytes", human_bytes(recovery.bytes));
    if recovery.volume >= recovery.whole {
        return restores;
    }
    if recovery.bytes >= recovery.volume {
        return format!("{restores}, such as any one volume");
    }
    // One more than the quotient, because shares are rounded to whole blocks.
    let percent = recovery.volume * 100 / recovery.whole + 1;
    format!("{restores}; a whole volume would take --parity {percent}%")
}

/// The file, or the first and the last volume.
fn names(paths: &[PathBuf]) -> String {
    match paths {
        [first, .., last] => format!("{} to {}", first.display(), last.display()),
        paths => paths.iter().map(|path| path.display().to_string()).collect(),
    }
}

/// Registries, and web servers for plain files, as the source of a bundle's blobs.
pub(crate) struct UpstreamBlobs(pub(crate) Upstream);

impl UpstreamBlobs {
    async fn open(
        &self,
        blob: &LockedBlob,
        offset: u64,
    ) -> Result<BoxStream<'static, Result<Bytes, SourceError>>, SourceError> {
        let Some(name) = &blob.from else { return self.open_file(blob, offset).await };
        if blob.manifest {
            let fetched = self.0.manifest_by_digest(name, &blob.digest).await?;
            let raw = fetched.document.raw();
            let at = usize::try_from(offset).unwrap_or(usize::MAX).min(raw.len());
            return Ok(stream::iter([Ok(raw.slice(at..))]).boxed());
        }
        let mut descriptor = Descriptor::new("application/octet-stream", blob.digest.clone(), blob.size);
        descriptor.urls.clone_from(&blob.urls);
        let chunks = self.0.blob(name, &descriptor, offset).await?;
        Ok(boxed(chunks))
    }

    /// Opens a plain file at the first of its addresses that has it.
    async fn open_file(
        &self,
        blob: &LockedBlob,
        offset: u64,
    ) -> Result<BoxStream<'static, Result<Bytes, SourceError>>, SourceError> {
        let mut problem: SourceError = "the lock names neither a repository nor an address for it".into();
        for url in &blob.urls {
            match self.0.file(&Url::parse(url)?, blob.size, offset).await {
                Ok(chunks) => return Ok(boxed(chunks)),
                Err(error) => problem = error.into(),
            }
        }
        Err(problem)
    }
}

fn boxed(chunks: BlobStream) -> BoxStream<'static, Result<Bytes, SourceError>> {
    chunks.map_err(|error| -> SourceError { Box::new(error) }).boxed()
}

impl BlobSource for UpstreamBlobs {
    fn read<'a>(&'a self, blob: &'a LockedBlob, offset: u64) -> BoxStream<'a, Result<Bytes, SourceError>> {
        let opened = async move { self.open(blob, offset).await };
        stream::once(opened).try_flatten().boxed()
    }
}

impl From<BuildError> for CliError {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Bundle(error) => error.into(),
            BuildError::Trust(error) => error.into(),
            BuildError::Cut(error) => Self::usage(error),
            BuildError::Place(error) => error.into(),
            BuildError::TooLarge { .. } => Self::failed(error).hint(
                "a FAT32 medium holds files of less than 4 GiB: cut the bundle into volumes with --volume-size fat32",
            ),
            BuildError::Digest { .. } => Self::new(Kind::Verification, error),
            BuildError::Fetch { ref source, .. } => {
                let upstream = source.downcast_ref::<UpstreamError>();
                let kind = upstream.map_or(Kind::Failed, upstream::exit_kind);
                let problem = upstream.and_then(UpstreamError::problem);
                // The registry had the manifest when the lock was made.
                let gone = matches!(problem, Some(Problem::Missing(Missing::Manifest)));
                let hint = upstream.and_then(UpstreamError::hint).filter(|_| !gone);
                let error = Self::new(kind, error).hint(if gone {
                    "the registry had it when the lock was made: make the lock again with `dray lock`"
                } else {
                    "what was fetched is kept; run the same command again to go on"
                });
                hint.into_iter().fold(error, CliError::hint)
            }
            other => Self::failed(other),
        }
    }
}
