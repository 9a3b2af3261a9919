//! `dray verify`

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use dray::bundle::{Bundle, BundleError, Media, Volume};
use dray::oci::Digest;
use dray::resolve::Lock;
use serde_json::json;

use super::error::{CliError, Kind};
use super::inputs::{Trust, read_lock};
use super::output::human_bytes;
use super::runtime::{self, Context};

/// Check a bundle: its signatures, its structure, and every byte
///
/// Without --trust volumes are checked one by one, each for itself: whether it is as it was written. By whom can only be
/// told with all of them and --trust.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  dray verify plant.tar --trust release.pub\n  dray verify plant.tar --trust a.pub --trust b.pub --threshold 2\n  dray verify plant.tar --trust release.pub --rebuild plant.lock\n  dray verify /media/usb --trust release.pub      # all volumes in a directory\n  dray verify plant.2of3.tar                      # one volume alone, without signatures"
)]
pub(crate) struct Verify {
    /// The bundles: files, all or one of their volumes in any order, or the directory that they are in
    #[arg(value_name = "BUNDLE", required = true)]
    bundles: Vec<PathBuf>,
    #[command(flatten)]
    trust: Trust,
    /// Prove that the bundle is what this lock gives, byte for byte
    #[arg(long, value_name = "LOCK")]
    rebuild: Option<PathBuf>,
}

impl Verify {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        if !self.trust.is_given() && self.rebuild.is_none() {
            return self.volumes_alone(context);
        }
        let policy = self.trust.policy(context)?;
        let rebuild = self.rebuild.as_deref().map(read_lock).transpose()?;
        let mut verified = Vec::new();
        for media in Media::open_all(&self.bundles)? {
            let bundle = open(context, media)?;
            let keys = policy.as_ref().map(|policy| bundle.check_signatures(policy)).transpose()?;
            if !self.trust.allow_expired {
                bundle.check_expiry(jiff::Timestamp::now())?;
            }
            if let Some(lock) = &rebuild
                && !is_made_from(bundle.lock(), lock)
            {
                let message = format!("{} was not built from this lock", bundle.path().display());
                return Err(CliError::new(Kind::Verification, message)
                    .hint("compare the lock with `dray inspect --format json`"));
            }
            let bar = Arc::new(context.output.bytes_bar("verifying", bundle.lock().total_bytes()));
            let threads = context.threads();
            let (bundle, progress) = (Arc::new(bundle), Arc::clone(&bar));
            let checked = Arc::clone(&bundle);
            runtime::block_on_work(move || Ok(checked.verify_blobs(threads, &|bytes| progress.inc(bytes))?))?;
            bar.finish_and_clear();
            let keys: Vec<String> = keys.unwrap_or_default().iter().map(ToString::to_string).collect();
            verified.push((bundle, keys));
        }
        let value: Vec<_> = verified
            .iter()
            .map(|(bundle, keys)| {
                json!({
                    "bundle": bundle.path(),
                    "volumes": bundle.volumes(),
                    "digest": bundle.index().digest,
                    "verified": true,
                    "verifiedBy": keys,
                    "blobs": bundle.lock().blobs.len(),
                    "bytes": bundle.len(),
                })
            })
            .collect();
        context.output.result(&value, || {
            let line = |(bundle, keys): &(Arc<Bundle>, Vec<String>)| {
                let signed = match keys.len() {
                    0 => "signatures not checked".to_owned(),
                    _ => format!(
                        "signed by {}",
                        keys.iter().map(|key| &key[..16]).collect::<Vec<_>>().join(", ")
                    ),
                };
                let volumes = match bundle.volumes() {
                    1 => String::new(),
                    volumes => format!(" in {volumes} volumes"),
                };
                format!(
                    "{}: good, {signed}; {} blobs, {}{volumes}\n",
                    bundle.path().display(),
                    bundle.lock().blobs.len(),
                    human_bytes(bundle.len())
                )
            };
            verified.iter().map(line).collect()
        })
    }
}

impl Verify {
    /// Checks volumes by what they say of themselves.
    fn volumes_alone(&self, context: &Context) -> Result<(), CliError> {
        let open = |path: &PathBuf| match Volume::open(path) {
            Err(BundleError::Malformed { offset: 0, .. }) if Bundle::open(path).is_ok() => {
                Err(CliError::usage(format!("{} is a bundle: who must have signed it?", path.display()))
                    .hint("name the public keys of those who release with --trust PUB"))
            }
            opened => Ok(opened?),
        };
        let volumes = self.bundles.iter().map(open).collect::<Result<Vec<_>, CliError>>()?;
        for volume in &volumes {
            check_volume(context, volume)?;
        }
        let value: Vec<_> = volumes
            .iter()
            .map(|volume| {
                let (name, sequence, digest) = volume.bundle();
                json!({
                    "volume": volume.path(),
                    "number": volume.number(),
                    "of": volume.of(),
                    "name": name,
                    "sequence": sequence,
                    "digest": digest,
                    "intact": true,
                    "verified": false,
                })
            })
            .collect();
        context.output.result(&value, || {
            let line = |volume: &Volume| {
                let (name, sequence, _) = volume.bundle();
                format!(
                    "{}: intact, volume {} of {} of {name} {sequence}, {}\n",
                    volume.path().display(),
                    volume.number(),
                    volume.of(),
                    human_bytes(volume.len())
                )
            };
            let lines: String = volumes.iter().map(line).collect();
            lines + "Who made it is not checked: that takes all volumes and --trust.\n"
        })
    }
}

fn check_volume(context: &Context, volume: &Volume) -> Result<(), CliError> {
    let bar = context.output.bytes_bar("verifying", volume.len());
    let checked = volume.verify(&|bytes| bar.inc(bytes));
    bar.finish_and_clear();
    Ok(checked?)
}

/// Opens a bundle that may be damaged. Where volumes are missing, those that are there are checked first.
fn open(context: &Context, media: Media) -> Result<Bundle, CliError> {
    if media.absent().is_empty() {
        return Ok(Bundle::open_damaged(media)?);
    }
    media.present().try_for_each(|volume| check_volume(context, volume))?;
    let incomplete = CliError::from(media.incomplete());
    Err(match Bundle::open_damaged(media) {
        Ok(bundle) => {
            let images: Vec<String> = bundle.images_in_absent().iter().map(ToString::to_string).collect();
            match images.len() {
                0 => incomplete,
                _ => incomplete.hint(format!("without it these images are not whole: {}", images.join(", "))),
            }
        }
        Err(_) => incomplete,
    })
}

/// Whether `made` is `lock`, or a delta of it.
fn is_made_from(made: &Lock, lock: &Lock) -> bool {
    let required: BTreeSet<&Digest> = made.requires.iter().map(|blob| &blob.digest).collect();
    lock.clone().without(|digest| required.contains(digest)) == *made
}

impl From<BundleError> for CliError {
    fn from(error: BundleError) -> Self {
        let kind = match error {
            _ if error.is_verification() => Kind::Verification,
            BundleError::Incomplete { .. } => Kind::Incomplete,
            BundleError::Twice { .. } | BundleError::Several { .. } => Kind::Usage,
            _ => Kind::Failed,
        };
        let untrusted = matches!(error, BundleError::Untrusted { .. });
        let error = Self::new(kind, error);
        if untrusted {
            error.hint(
                "give the public keys of those who release with --trust; `dray inspect` shows who signed",
            )
        } else {
            error
        }
    }
}
