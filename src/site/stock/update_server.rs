//! k0s' update server: the index of a channel, from which Autopilot's periodic updates make their plans.
//!
//! Source: k0s `pkg/autopilot/channels` (what is asked for and read) and `pkg/apis/autopilot/v1beta2/updateconfig.go`
//! (what is made of it).

use serde_json::{Value, json};

use super::{Channel, Stock, StockError, archive_path};
use crate::oci::Algorithm;

/// The index of a channel.
pub(super) enum Index {
    /// No k0s release of the channel can be given out.
    None,
    /// A checksum is being computed for somebody else.
    Busy,
    /// The index.
    Some(Value),
}

impl Stock {
    /// The index of a channel with addresses that begin with `base`. Windows nodes are not in it: Autopilot updates none,
    /// and waits for those that it is told to update.
    pub(super) fn k0s_index(&self, channel: Channel, base: &str) -> Result<Index, StockError> {
        let Some(stocked) = self.newest("k0s", channel)? else { return Ok(Index::None) };
        let mut urls = Vec::new();
        for update in self.k0s_updates(&stocked)? {
            let program = self.file_sum(&update.program.file, Algorithm::Sha256)?;
            let archive = self.archive_sum(&update.archive, Algorithm::Sha256)?;
            let (Some(program), Some(archive)) = (program, archive) else { return Ok(Index::Busy) };
            let path = archive_path(&stocked.id, &update.kind).unwrap_or_default();
            urls.push(json!({
                "os": update.kind.os(),
                "arch": update.kind.architecture(),
                "k0s": format!("{base}{}", update.program.path),
                "k0sSha256": program.hex(),
                "airgapBundle": format!("{base}{path}"),
                "airgapSha256": archive.hex(),
            }));
        }
        Ok(Index::Some(json!({
            "channel": channel.to_string(),
            "version": stocked.id.version,
            "downloadURLs": urls,
        })))
    }
}
