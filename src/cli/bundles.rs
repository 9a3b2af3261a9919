//! Bundles that are read where they lie, and who signed them.

use std::path::PathBuf;

use clap::Args;
use dray::bundle::Bundle;
use dray::trust;

use super::error::CliError;
use super::inputs;
use super::runtime::Context;

/// Whose bundles may be read where they lie.
#[derive(Args, Clone, Debug)]
pub(crate) struct Signers {
    /// With --bundle: a public key that must have signed it, or a directory of them; may be repeated
    #[arg(long, value_name = "PUB", value_delimiter = ',', requires = "bundle")]
    trust: Vec<PathBuf>,

    /// With --trust: how many different trusted keys must have signed
    #[arg(long, value_name = "N", default_value_t = 1)]
    threshold: usize,

    /// With --bundle: do not check who signed it
    #[arg(long, requires = "bundle", conflicts_with = "trust")]
    insecure_skip_verify: bool,
}

impl Signers {
    /// Opens bundles that nodes are to run, and refuses those that the signers did not sign.
    pub(crate) fn open(&self, context: &Context, paths: &[PathBuf]) -> Result<Vec<Bundle>, CliError> {
        if self.trust.is_empty() && !self.insecure_skip_verify {
            return Err(CliError::usage("no trusted keys given for the bundles").hint(
                "name the public keys of those who release with --trust PUB, or pass --insecure-skip-verify",
            ));
        }
        self.open_to_look(context, paths)
    }

    /// Opens bundles that are only looked at, and refuses those that the signers did not sign. Warns if none are named.
    pub(crate) fn open_to_look(&self, context: &Context, paths: &[PathBuf]) -> Result<Vec<Bundle>, CliError> {
        let bundles = inputs::bundles(paths)?;
        if self.trust.is_empty() {
            context
                .output
                .warn("signatures are not checked; name the keys that must have signed with --trust");
            return Ok(bundles);
        }
        let policy = trust::read_policy(&self.trust, self.threshold)?;
        for bundle in &bundles {
            bundle.check_signatures(&policy)?;
        }
        Ok(bundles)
    }
}
