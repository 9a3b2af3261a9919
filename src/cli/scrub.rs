//! `dray scrub`

use std::path::PathBuf;

use clap::Args;
use dray::store::Store;
use dray::text::counted;
use serde_json::json;

use super::error::{CliError, Kind};
use super::output::human_bytes;
use super::runtime::Context;
use super::writing::Wait;

/// Read a whole store again and find damaged content
///
/// A registry may go on serving the store meanwhile. What is damaged is put aside into `damaged/`, so that importing its
/// bundle again, or pushing it, brings it back. Exit code 3 when something is damaged or missing.
#[derive(Args)]
#[command(after_help = "Example:\n  dray scrub --store /srv/dray")]
pub(crate) struct Scrub {
    /// The store
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    #[command(flatten)]
    wait: Wait,
}

impl Scrub {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        let store = Store::open(&self.store).map_err(CliError::failed)?;
        let waiting = |holder: &str| context.output.waiting(holder);
        let scrubbed = store.scrub(self.wait.patience(&waiting), &mut |_, _| {})?;
        let value = json!({
            "blobs": scrubbed.blobs,
            "bytes": scrubbed.bytes,
            "damaged": scrubbed.damaged,
            "missing": scrubbed.missing,
        });
        context.output.result(&value, || {
            let mut text =
                format!("{}, {} read\n", counted(scrubbed.blobs, "blob"), human_bytes(scrubbed.bytes));
            text.extend(scrubbed.damaged.iter().map(|digest| format!("damaged  {digest}\n")));
            text.extend(scrubbed.missing.iter().map(|digest| format!("missing  {digest}\n")));
            text
        })?;
        match scrubbed.damaged.len() + scrubbed.missing.len() {
            0 => Ok(()),
            lost => Err(CliError::new(Kind::Verification, format!("{lost} blobs are damaged or missing"))
                .hint("import the bundle that brought them again")),
        }
    }
}
