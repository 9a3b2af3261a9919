//! `dray sign`

use std::path::PathBuf;

use clap::Args;
use dray::bundle;
use serde_json::json;

use super::error::CliError;
use super::inputs;
use super::runtime::Context;

/// Add a signature to a bundle
///
/// Only the last few kilobytes of the file are rewritten. Signatures that are there stay.
#[derive(Args)]
#[command(
    after_help = "Example, for a site that wants two people to release:\n  dray sign plant.tar --key second.key"
)]
pub(crate) struct Sign {
    /// The bundle
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// The private key, made by `dray keygen`; may be repeated
    #[arg(long, value_name = "KEY", required = true, value_delimiter = ',')]
    key: Vec<PathBuf>,
}

impl Sign {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        let keys = inputs::private_keys(&self.key)?;
        let bundle = bundle::sign(&self.bundle, &keys)?;
        let signatures = bundle.signatures().map_or(0, |manifest| manifest.signatures().len());
        let value = json!({
            "bundle": self.bundle,
            "digest": bundle.index().digest,
            "signatures": signatures,
        });
        context.output.result(&value, || {
            format!("{}: {} signatures of {}", self.bundle.display(), signatures, bundle.index().digest)
        })
    }
}
