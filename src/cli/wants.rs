//! `dray wants`

use std::path::PathBuf;

use clap::Args;
use dray::registry::read_wants;
use dray::store::Store;

use super::error::CliError;
use super::runtime::Context;

/// List what nodes asked for and did not get
///
/// One image on a line, as `imageLists:` of a definition takes it; with --format json also when, how often and who. What
/// the store has by now is left out.
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
        let value = serde_json::json!({ "wants": wants });
        context.output.result(&value, || {
            wants.iter().flat_map(|want| [want.reference.to_string(), "\n".to_owned()]).collect()
        })
    }
}
