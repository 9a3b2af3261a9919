//! What `dray plan` and `dray build` take to leave out what the site has.

use std::cmp::Ordering;
use std::path::PathBuf;

use clap::Args;
use dray::bundle::{Inventory, InventoryError, MAX_INVENTORY_BYTES, Tail};
use dray::input;
use dray::resolve::Lock;

use super::error::{CliError, Kind};
use super::inputs;
use super::runtime::Context;

/// The site's inventory, and who must have signed it.
#[derive(Args, Clone, Debug)]
pub(crate) struct Since {
    /// Leave out what the site has, as its inventory says; the site makes one with `dray inventory`
    #[arg(long, value_name = "INVENTORY")]
    since: Option<PathBuf>,
    /// The inventory must be signed by this public key of the site; may be repeated
    #[arg(long, value_name = "PUB", value_delimiter = ',', requires = "since")]
    since_trust: Vec<PathBuf>,
}

impl Since {
    /// The inventory; none when nothing is to be left out.
    pub(crate) fn inventory(&self) -> Result<Option<Inventory>, CliError> {
        let Some(path) = &self.since else { return Ok(None) };
        let named = |error: InventoryError| {
            let kind = match error {
                InventoryError::Damaged(_) | InventoryError::Unsigned | InventoryError::Untrusted { .. } => {
                    Kind::Verification
                }
                InventoryError::NotAnInventory | InventoryError::Version(_) | InventoryError::TooLarge => {
                    Kind::Usage
                }
            };
            CliError::new(kind, format!("{}: {error}", input::name(path)))
        };
        let keys = inputs::public_keys(&self.since_trust)?;
        let bytes = input::read_bytes(path, MAX_INVENTORY_BYTES as u64)?;
        let inventory = Inventory::parse(&bytes).map_err(named)?;
        if !keys.is_empty() {
            inventory.check(&keys).map_err(named)?;
        }
        Ok(Some(inventory))
    }
}

/// The lock without what the inventory lists. Fails if the site would refuse a bundle of it for its sequence number.
pub(crate) fn leave_out(
    context: &Context,
    lock: Lock,
    inventory: Option<&Inventory>,
) -> Result<Lock, CliError> {
    let Some(inventory) = inventory else { return Ok(lock) };
    let delta = lock.without(|digest| inventory.contains(digest));
    if delta.requires.is_empty() {
        context.output.warn(format!(
            "nothing is left out: the store {} had none of these layers on {}",
            inventory.store(),
            inventory.taken()
        ));
    }
    check_sequence(&delta, inventory)?;
    Ok(delta)
}

/// Compares with the bundle of the same name that the site had imported when the inventory was taken.
fn check_sequence(lock: &Lock, inventory: &Inventory) -> Result<(), CliError> {
    let Some(present) = inventory.bundles().iter().find(|bundle| bundle.name == lock.name) else {
        return Ok(());
    };
    let (name, sequence) = (&lock.name, lock.sequence);
    let what = match present.sequence.cmp(&sequence) {
        Ordering::Less => return Ok(()),
        Ordering::Greater => format!(
            "the site has sequence {} of `{name}`, and would refuse sequence {sequence} as older",
            present.sequence
        ),
        Ordering::Equal if Tail::index_digest(lock).map_err(CliError::usage)? == present.digest => {
            return Ok(());
        }
        Ordering::Equal => format!(
            "the site has another bundle `{name}` with sequence {sequence} ({}), and would refuse this one",
            present.digest
        ),
    };
    let next = present.sequence.saturating_add(1);
    Err(CliError::new(Kind::Incomplete, what).hint(format!("set `metadata.sequence` to {next} or more")))
}
