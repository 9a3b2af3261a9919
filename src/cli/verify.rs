//! `dray verify`

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use dray::bundle::{Bundle, BundleError};
use dray::oci::Digest;
use dray::resolve::Lock;
use serde_json::json;

use super::error::{CliError, Kind};
use super::inputs::{Trust, read_lock};
use super::output::human_bytes;
use super::runtime::{self, Context};

/// Check a bundle: its signatures, its structure, and every byte
#[derive(Args)]
#[command(
    after_help = "Examples:\n  dray verify plant.tar --trust release.pub\n  dray verify plant.tar --trust a.pub --trust b.pub --threshold 2\n  dray verify plant.tar --trust release.pub --rebuild plant.lock"
)]
pub(crate) struct Verify {
    /// The bundles
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
        let policy = self.trust.policy(context)?;
        let rebuild = self.rebuild.as_deref().map(read_lock).transpose()?;
        let mut verified = Vec::new();
        for path in &self.bundles {
            let bundle = Bundle::open(path)?;
            let keys = policy.as_ref().map(|policy| bundle.check_signatures(policy)).transpose()?;
            if !self.trust.allow_expired {
                bundle.check_expiry(jiff::Timestamp::now())?;
            }
            if let Some(lock) = &rebuild
                && !is_made_from(bundle.lock(), lock)
            {
                let message = format!("{} was not built from this lock", path.display());
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
            verified.push((path, bundle, keys));
        }
        let value: Vec<_> = verified
            .iter()
            .map(|(path, bundle, keys)| {
                json!({
                    "bundle": path,
                    "digest": bundle.index().digest,
                    "verified": true,
                    "verifiedBy": keys,
                    "blobs": bundle.lock().blobs.len(),
                    "bytes": bundle.len(),
                })
            })
            .collect();
        context.output.result(&value, || {
            let line = |(path, bundle, keys): &(&PathBuf, Arc<Bundle>, Vec<String>)| {
                let signed = match keys.len() {
                    0 => "signatures not checked".to_owned(),
                    _ => format!(
                        "signed by {}",
                        keys.iter().map(|key| &key[..16]).collect::<Vec<_>>().join(", ")
                    ),
                };
                format!(
                    "{}: good, {signed}; {} blobs, {}\n",
                    path.display(),
                    bundle.lock().blobs.len(),
                    human_bytes(bundle.len())
                )
            };
            verified.iter().map(line).collect()
        })
    }
}

/// Whether `made` is `lock`, or a delta of it.
fn is_made_from(made: &Lock, lock: &Lock) -> bool {
    let required: BTreeSet<&Digest> = made.requires.iter().map(|blob| &blob.digest).collect();
    lock.clone().without(|digest| required.contains(digest)) == *made
}

impl From<BundleError> for CliError {
    fn from(error: BundleError) -> Self {
        let kind = if error.is_verification() { Kind::Verification } else { Kind::Failed };
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
