//! `dray import --to`

use std::path::PathBuf;
use std::sync::Arc;

use dray::bundle::{self, Destination, PushError, PushedImage, ServeError, ServedBundles};
use dray::text::counted;
use dray::trust::Policy;
use jiff::Timestamp;

use super::error::{CliError, Kind};
use super::inputs;
use super::output::human_bytes;
use super::runtime::{Context, block_on};
use super::upstream;

/// Pushes the images of bundles below `destination`.
pub(crate) fn push(
    context: &Context,
    paths: &[PathBuf],
    policy: Option<&Policy>,
    allow_expired: bool,
    destination: &Destination,
) -> Result<(), CliError> {
    let bundles = inputs::bundles(paths)?;
    for bundle in &bundles {
        policy.map(|policy| bundle.check_signatures(policy)).transpose()?;
        if !allow_expired {
            bundle.check_expiry(Timestamp::now())?;
        }
    }
    let bundles = Arc::new(ServedBundles::new(bundles)?);
    inputs::warn_of_disputed(context, bundles.all_tags().disputed());
    let pusher = upstream::pusher(&context.global)?;
    let total = bundle::bytes_to_push(&bundles, destination)?;
    let bar = context.output.bytes_bar("pushing", total);
    let concurrency = context.global.concurrency.into();
    let progress = |bytes| bar.inc(bytes);
    let result =
        block_on(async { Ok(bundle::push(bundles, destination, &pusher, concurrency, &progress).await?) })?;
    bar.finish_and_clear();
    if !result.kept_tags.is_empty() {
        let tags: Vec<String> = result.kept_tags.iter().map(ToString::to_string).collect();
        context.output.warn(format!(
            "tags that mean something else in {destination} were not moved, because the bundle names them in pinned references \
             only: {}",
            tags.join(", ")
        ));
    }
    if result.unlisted > 0 {
        context.output.warn(format!(
            "{destination} has no referrers API: {} signatures or SBOMs are there, but are not listed with their images",
            result.unlisted
        ));
    }
    context.output.result(&result, || {
        let line = |image: &PushedImage| format!("{}\n", image.pushed);
        let mut text: String = result.images.iter().map(line).collect();
        let (images, size) = (counted(result.images.len(), "image"), human_bytes(total));
        text.extend([format!(
            "{images}, {size}; {} pushed, {} were there",
            counted(result.blobs, "blob"),
            result.present
        )]);
        text
    })
}

impl From<PushError> for CliError {
    fn from(error: PushError) -> Self {
        match error {
            PushError::Upstream(error) => error.into(),
            PushError::Content(error) => Self::new(Kind::Verification, error),
            PushError::Name { .. } => Self::usage(error),
            PushError::Moved { .. } => Self::new(Kind::Verification, error),
            PushError::Sparse { ref answer, .. } => {
                let answer = format!("the registry says: {answer}");
                Self::failed(error).hint(answer).hint(
                    "let the registry accept indexes of which parts are missing (distribution 3: \
                     validation.manifests.indexes.platforms: none), or serve the bundle with `dray serve`; dray does not \
                     rewrite an index, because that changes its digest",
                )
            }
        }
    }
}

impl From<ServeError> for CliError {
    fn from(error: ServeError) -> Self {
        let left_out = matches!(error, ServeError::LeftOut { .. });
        Self::new(if left_out { Kind::Incomplete } else { Kind::Verification }, error)
    }
}
