//! Channels: names for the newest release that a site can give out.

use std::fmt;
use std::str::FromStr;

use super::StockedFile;
use super::{Stock, StockError, Stocked};
use crate::catalog::ReleaseId;
use crate::oci::NodeKind;
use crate::site::export::Archive;

/// A name for the newest release of a distribution, as far as it is in stock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// `stable`: no alpha, beta or release candidate.
    Stable,
    /// `latest`: whatever it is.
    Latest,
    /// `v1.36`: of this minor version, no alpha, beta or release candidate.
    Minor(u32, u32),
}

impl Channel {
    /// Whether the channel may give out a release.
    pub fn has(self, release: &ReleaseId) -> bool {
        let is_final = !release.base_version().contains('-');
        match self {
            Self::Stable => is_final,
            Self::Latest => true,
            Self::Minor(major, minor) => is_final && release.minor() == Some((major, minor)),
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stable => f.write_str("stable"),
            Self::Latest => f.write_str("latest"),
            Self::Minor(major, minor) => write!(f, "v{major}.{minor}"),
        }
    }
}

impl FromStr for Channel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let minor = || {
            let (major, minor) = text.strip_prefix('v')?.split_once('.')?;
            let number = |text: &str| {
                let plain = text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit());
                text.parse().ok().filter(|_| plain)
            };
            Some(Self::Minor(number(major)?, number(minor)?))
        };
        match text {
            "stable" => Ok(Self::Stable),
            "latest" => Ok(Self::Latest),
            _ => minor().ok_or_else(|| {
                let shown: String = text.chars().take(40).collect();
                format!("`{shown}` is not a channel; there are stable, latest and such as v1.36")
            }),
        }
    }
}

/// What a Linux node of a kind needs to become a k0s release.
pub(super) struct K0sUpdate {
    pub(super) kind: NodeKind,
    pub(super) program: StockedFile,
    pub(super) archive: Archive,
}

impl Stock {
    /// The newest release of `distro` in the channel of which the site has all that an upgrade takes.
    pub fn newest(&self, distro: &str, channel: Channel) -> Result<Option<Stocked>, StockError> {
        let brought = self.brought()?;
        let of_channel = |id: &&ReleaseId| id.distro == distro && channel.has(id);
        for id in brought.releases.keys().rev().filter(of_channel) {
            let stocked = &brought.releases[id];
            let ready = match distro {
                "k0s" => !self.k0s_updates(stocked)?.is_empty(),
                _ => self.has_upgrade_image(stocked)?,
            };
            if ready {
                return Ok(Some(stocked.clone()));
            }
        }
        Ok(None)
    }

    /// The Linux nodes that can become a k0s release.
    pub(super) fn k0s_updates(&self, stocked: &Stocked) -> Result<Vec<K0sUpdate>, StockError> {
        let mut updates = Vec::new();
        for kind in stocked.linux() {
            if let Some(program) = self.k0s_program(&stocked.id, kind)?
                && let Some(archive) = self.complete_archive(stocked, kind)?
            {
                updates.push(K0sUpdate { kind: kind.clone(), program, archive });
            }
        }
        Ok(updates)
    }

    /// Whether every Linux node can become a k3s or RKE2 release: the images are there, also the one whose jobs replace
    /// the program.
    fn has_upgrade_image(&self, stocked: &Stocked) -> Result<bool, StockError> {
        let stocked = stocked.with_feature("suc");
        let mut kinds = stocked.linux().peekable();
        if kinds.peek().is_none() {
            return Ok(false);
        }
        for kind in kinds {
            if self.complete_archive(&stocked, kind)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Stocked {
    /// The same with one more feature on every kind of node.
    #[must_use]
    pub fn with_feature(&self, feature: &str) -> Self {
        let mut stocked = self.clone();
        for features in stocked.nodes.values_mut() {
            if !features.iter().any(|known| known == feature) {
                features.push(feature.to_owned());
            }
        }
        stocked
    }
}
