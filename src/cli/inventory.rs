//! `dray inventory`

use std::path::PathBuf;

use clap::Args;
use dray::bundle::Inventory;
use dray::store::Store;
use dray::text::counted;
use serde_json::json;

use super::error::CliError;
use super::inputs;
use super::output::human_bytes;
use super::runtime::Context;
use super::target::OutputPath;

/// Write the inventory of a store, for smaller bundles
///
/// The file has 32 bytes for each blob. Carry it to the connected side and give it to `dray build --since`. Nothing is
/// read but names; `dray scrub` finds out whether the content is sound.
#[derive(Args)]
#[command(
    after_help = "Example:\n  dray inventory --store /var/lib/dray -o plant-7.inv --key site.key\n  dray build --lock plant.lock -o next.tar --since plant-7.inv --since-trust site.pub"
)]
pub(crate) struct InventoryCommand {
    /// The store
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// Where the inventory goes; `-` for standard output
    #[arg(short, long, value_name = "FILE")]
    output: OutputPath,
    /// Sign with this private key of the site, made by `dray keygen`
    #[arg(long, value_name = "KEY")]
    key: Option<PathBuf>,
}

impl InventoryCommand {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        let target = self.output.stream(context)?;
        let keys = inputs::private_keys(self.key.as_slice())?;
        let store = Store::open(&self.store)?;
        let mut inventory = Inventory::of(&store, jiff::Timestamp::now())?;
        if let Some(key) = keys.first() {
            inventory.sign(key);
        }
        let bytes = inventory.to_bytes();
        let size = bytes.len() as u64;
        target.write(bytes)?;
        let value = json!({
            "inventory": target,
            "store": inventory.store(),
            "taken": inventory.taken(),
            "bundles": inventory.bundles(),
            "blobs": inventory.len(),
            "bytes": size,
            "signedBy": inventory.claimed_key(),
        });
        context.output.result(&value, || {
            let signed = inventory.claimed_key().map_or_else(String::new, |key| format!("\nsigned by {key}"));
            format!(
                "{target}: {} of the store {} in {}{signed}",
                counted(inventory.len(), "blob"),
                inventory.store(),
                human_bytes(size)
            )
        })
    }
}
