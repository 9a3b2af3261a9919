//! `dray wants`

use std::path::PathBuf;

use clap::Args;
use dray::registry::{read_wants, wants_json, wants_list};
use dray::store::Store;

use super::error::CliError;
use super::runtime::Context;

/// List what nodes requested and did not get
///
/// Prints one image a line, as `imageLists` of a definition takes it. If a comment follows, the image is here, but not for
/// that kind of node: add the node kind to the definition. With --format json also when, how often and by whom. Images that
/// have come since are not listed.
#[derive(Args)]
#[command(
    after_help = "Example:\n  dray wants --store /var/lib/dray > wants.txt    # carry it to the other side"
)]
pub(crate) struct WantsCommand {
    /// The store that is served
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
}

impl WantsCommand {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        let store = Store::open(&self.store).map_err(CliError::failed)?;
        let wants = read_wants(&store.wants_file(), &store).map_err(CliError::failed)?;
        context.output.result(&wants_json(&wants), || wants_list(&wants))
    }
}
