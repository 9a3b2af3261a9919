//! `dray verify`

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use dray::bundle::{Bundle, BundleError, Media, Recovery, Volume};
use dray::input::FileKind;
use dray::oci::Digest;
use dray::resolve::Lock;
use dray::text::counted;
use dray::trust::TrustError;
use serde_json::json;

use super::error::{CliError, Kind};
use super::inputs::{Trust, read_lock};
use super::output::human_bytes;
use super::runtime::{self, Context};

/// Check the signatures and every byte of a bundle
///
/// Without --trust volumes and recovery files are checked one by one, each for itself: whether it is as it was written. By
/// whom can only be told with all volumes and --trust.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  dray verify plant.tar --trust release.pub\n  dray verify plant.tar --trust a.pub --trust b.pub --threshold 2\n  dray verify plant.tar --trust release.pub --rebuild plant.lock\n  dray verify /media/usb --trust release.pub      # all volumes in a directory\n  dray verify plant.2of3.tar                      # one volume alone, without signatures\n  dray verify plant.parity.1of1.tar               # a recovery file alone"
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
            return self.alone(context);
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
                    "{}: good, {signed}; {}, {}{volumes}\n",
                    bundle.path().display(),
                    counted(bundle.lock().blobs.len(), "blob"),
                    human_bytes(bundle.len())
                )
            };
            verified.iter().map(line).collect()
        })
    }
}

impl Verify {
    /// Checks volumes and recovery files by what they say of themselves.
    fn alone(&self, context: &Context) -> Result<(), CliError> {
        let files =
            self.bundles.iter().map(|path| Alone::open(path)).collect::<Result<Vec<_>, CliError>>()?;
        files.iter().try_for_each(|file| file.check(context))?;
        let value: Vec<_> = files.iter().map(Alone::to_json).collect();
        context.output.result(&value, || {
            let lines: String = files.iter().map(Alone::line).collect();
            lines + "Who made it is not checked: that takes all volumes and --trust.\n"
        })
    }
}

/// A file that can be checked without the others of its bundle.
enum Alone {
    Volume(Volume),
    Recovery(Recovery),
}

impl Alone {
    fn open(path: &Path) -> Result<Self, CliError> {
        let io = |source| BundleError::Io { path: path.to_owned(), source };
        match Volume::open(path) {
            Ok(volume) => Ok(Self::Volume(volume)),
            Err(error @ BundleError::Malformed { offset: 0, .. }) => {
                if let Some(recovery) = Recovery::open(path).map_err(io)? {
                    return Ok(Self::Recovery(recovery));
                }
                if Bundle::open(path).is_ok() {
                    let message = format!("{}: no trusted keys given", path.display());
                    return Err(CliError::usage(message).hint("give --trust PUB to check who signed it"));
                }
                Err(error.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What it is called, its number and of how many, what it belongs to, and its size.
    fn facts(&self) -> (&Path, (u32, u32), (&str, u64, &Digest), u64) {
        match self {
            Self::Volume(file) => (file.path(), (file.number(), file.of()), file.bundle(), file.len()),
            Self::Recovery(file) => (file.path(), (file.number(), file.of()), file.bundle(), file.len()),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Volume(_) => "volume",
            Self::Recovery(_) => "recovery file",
        }
    }

    fn check(&self, context: &Context) -> Result<(), CliError> {
        let (.., len) = self.facts();
        let bar = context.output.bytes_bar("verifying", len);
        let checked = match self {
            Self::Volume(volume) => volume.verify(&|bytes| bar.inc(bytes)),
            Self::Recovery(recovery) => recovery.verify(&|bytes| bar.inc(bytes)),
        };
        bar.finish_and_clear();
        Ok(checked?)
    }

    fn to_json(&self) -> serde_json::Value {
        let (path, (number, of), (name, sequence, digest), _) = self.facts();
        let kind = match self {
            Self::Volume(_) => "volume",
            Self::Recovery(_) => "recovery",
        };
        json!({
            kind: path,
            "number": number,
            "of": of,
            "name": name,
            "sequence": sequence,
            "digest": digest,
            "intact": true,
            "verified": false,
        })
    }

    fn line(&self) -> String {
        let (path, (number, of), (name, sequence, _), len) = self.facts();
        let (path, kind, size) = (path.display(), self.kind(), human_bytes(len));
        format!("{path}: intact, {kind} {number} of {of} of {name} {sequence}, {size}\n")
    }
}

/// Opens a bundle that may be damaged. Where volumes are missing, those that are there are checked first.
fn open(context: &Context, media: Media) -> Result<Bundle, CliError> {
    if media.absent().is_empty() {
        return Ok(Bundle::open_damaged(media)?);
    }
    for volume in media.present() {
        let bar = context.output.bytes_bar("verifying", volume.len());
        let checked = volume.verify(&|bytes| bar.inc(bytes));
        bar.finish_and_clear();
        checked?;
    }
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
            BundleError::Other { .. } | BundleError::Twice { .. } | BundleError::Several { .. } => {
                Kind::Usage
            }
            _ => Kind::Failed,
        };
        let remedy = remedy(&error);
        let error = Self::new(kind, error);
        remedy.into_iter().fold(error, Self::hint)
    }
}

/// Returns what to do about a bundle that cannot be used.
fn remedy(error: &BundleError) -> Option<String> {
    match error {
        BundleError::Untrusted { path, source: TrustError::Unsigned } => {
            Some(format!("sign it on the connected side: `dray sign {} --key KEY`", path.display()))
        }
        BundleError::Untrusted { path, .. } => Some(format!(
            "give the public keys of those who release with --trust; `dray inspect {}` shows who signed",
            path.display()
        )),
        BundleError::Malformed { path, .. }
        | BundleError::Damaged { path, .. }
        | BundleError::DamagedVolume { path, .. }
        | BundleError::Incomplete { path, .. } => Some(restore(path)),
        BundleError::Other { path, kind } => match kind {
            FileKind::Json => Some(format!(
                "if it is a lock, build the bundle: `dray build --lock {} -o BUNDLE`",
                path.display()
            )),
            FileKind::Text => Some(format!(
                "if it is a definition, build the bundle: `dray build -f {} -o BUNDLE`",
                path.display()
            )),
            FileKind::OciArchive | FileKind::DockerArchive => {
                Some("push it to the registry with skopeo, or name its images in a definition".to_owned())
            }
            kind => kind.hint().map(str::to_owned),
        },
        BundleError::Expired { .. } => {
            Some("get a newer bundle, or take this one in spite of its age with --allow-expired".to_owned())
        }
        BundleError::Io { .. }
        | BundleError::Lock { .. }
        | BundleError::Twice { .. }
        | BundleError::Several { .. } => None,
    }
}

/// Returns how to get back what of the bundle at `path` is damaged or missing.
fn restore(path: &Path) -> String {
    if !Recovery::is_beside(path) {
        return "copy it again from where it was made".to_owned();
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let place = if path.exists() { path } else { directory.unwrap_or(Path::new(".")) };
    format!("restore it from the recovery files next to it: `dray repair {}`", place.display())
}
