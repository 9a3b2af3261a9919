//! The addresses of what is in stock.
//!
//! ```text
//! /files/export/<distro>/<version>/<file>        an archive that nodes import; <file> as `dray export` names it;
//!                                                .sha256 and .sha512 beside it
//! /channels/<channel>, /channels/<distro>/<channel>   302 to the newest k3s or RKE2 release, for system-upgrade-controller
//! /<channel>/index.yaml                          the newest k0s release, as k0s' update server tells it
//! /api/v1/releases, /api/v1/releases/<distro>/<version>   what is in stock, as JSON
//! ```

use serde_json::{Value, json};

use super::update_server::Index;
use super::{ARCHIVES, Channel, Stock, StockError, Stocked, archive_path};
use crate::bundle::RetainError;
use crate::catalog::ReleaseId;
use crate::oci::Algorithm;
use crate::registry::{Extra, ExtraError, Extras, Question};
use crate::site::documents;
use crate::site::export::{ExportError, Importer};
use crate::store::StoreError;

const RELEASES: &str = "/api/v1/releases";
/// The distributions whose upgrades system-upgrade-controller does.
const WITH_CHANNELS: [&str; 2] = ["k3s", "rke2"];

impl Extras for Stock {
    fn may_have(&self, path: &str) -> bool {
        path.starts_with(ARCHIVES)
            || path.starts_with("/channels/")
            || path.starts_with(RELEASES)
            || index_channel(path).is_some()
    }

    fn answer(&self, question: &Question<'_>) -> Result<Option<Extra>, ExtraError> {
        let segments: Vec<&str> = question.path.split('/').skip(1).collect();
        match segments[..] {
            ["files", "export", distro, version, file] => self.exported(distro, version, file),
            ["channels", channel] => self.channel(None, channel).map(Some),
            ["channels", distro, channel] => self.channel(Some(distro), channel).map(Some),
            ["api", "v1", "releases"] => self.releases().map(Some),
            ["api", "v1", "releases", distro, version] => self.release(distro, version).map(Some),
            _ => match index_channel(question.path) {
                Some(channel) => self.index(channel, question.base).map(Some),
                None => Ok(None),
            },
        }
    }
}

/// The channel whose index has this path.
fn index_channel(path: &str) -> Option<&str> {
    let channel = path.strip_prefix('/')?.strip_suffix("/index.yaml")?;
    (!channel.contains('/')).then_some(channel)
}

impl Stock {
    /// An archive or its checksum; none when the path is not that of an archive.
    fn exported(&self, distro: &str, version: &str, file: &str) -> Result<Option<Extra>, ExtraError> {
        let (Ok(importer), Ok(id)) = (distro.parse::<Importer>(), format!("{distro}@{version}").parse())
        else {
            return Ok(None);
        };
        let stocked = self.stocked(&id)?;
        let beside = |suffix: &str, algorithm| Some((file.strip_suffix(suffix)?, Some(algorithm)));
        let (name, algorithm) = beside(".sha256", Algorithm::Sha256)
            .or_else(|| beside(".sha512", Algorithm::Sha512))
            .unwrap_or((file, None));
        let Some(kind) = stocked.nodes.keys().find(|kind| importer.file_name(kind) == name) else {
            let candidates = stocked.nodes.keys().filter_map(|kind| archive_path(&id, kind)).collect();
            let message = format!("there is no archive {name} of {id} here");
            return Err(ExtraError::NotHere { message, candidates });
        };
        let archive = self.archive(&stocked, kind).map_err(StockError::from)?;
        let Some(algorithm) = algorithm else { return Ok(Some(Extra::File(archive.composition()))) };
        let sum = self.archive_sum(&archive, algorithm)?.ok_or(ExtraError::Busy)?;
        Ok(Some(plain(sum.hex().to_owned())))
    }

    fn stocked(&self, id: &ReleaseId) -> Result<Stocked, ExtraError> {
        let brought = self.brought()?;
        brought.releases.get(id).cloned().ok_or_else(|| {
            let all: Vec<String> = brought.releases.keys().map(release_path).collect();
            not_here(format!("no bundle here has the release {id}"), all)
        })
    }

    /// Where the newest release of a channel is: the last part of the address is what the controller reads.
    fn channel(&self, distro: Option<&str>, channel: &str) -> Result<Extra, ExtraError> {
        let wanted: Channel = channel.parse().map_err(|error| not_here(error, Vec::new()))?;
        let mut found = Vec::new();
        for distro in WITH_CHANNELS.iter().filter(|known| distro.is_none_or(|distro| distro == **known)) {
            found.extend(self.newest(distro, wanted)?);
        }
        match &found[..] {
            [one] => Ok(Extra::Elsewhere(release_path(&one.id))),
            [] => {
                let message = format!(
                    "no k3s or RKE2 release of the channel {wanted} can be given out: its images have to be here, also \
                     the one of the feature `suc`"
                );
                Err(not_here(message, Vec::new()))
            }
            _ => {
                let candidates = found.iter().map(|one| format!("/channels/{}/{wanted}", one.id.distro));
                Err(not_here("several distributions have this channel".to_owned(), candidates.collect()))
            }
        }
    }

    fn index(&self, channel: &str, base: Option<&str>) -> Result<Extra, ExtraError> {
        let channel: Channel = channel.parse().map_err(|error| not_here(error, Vec::new()))?;
        let base = base.ok_or_else(|| {
            not_here(
                "the addresses in an index begin with the host that was asked; name it".to_owned(),
                Vec::new(),
            )
        })?;
        match self.k0s_index(channel, base)? {
            Index::Some(index) => {
                Ok(Extra::Text { media_type: "application/yaml", text: documents(&[index]) })
            }
            Index::Busy => Err(ExtraError::Busy),
            Index::None => {
                let message = format!(
                    "no k0s release of the channel {channel} can be given out: its images and its program (`files` of \
                     the definition) have to be here, for one kind of Linux node at least"
                );
                Err(not_here(message, Vec::new()))
            }
        }
    }

    fn releases(&self) -> Result<Extra, ExtraError> {
        let brought = self.brought()?;
        let releases: Vec<Value> = brought
            .releases
            .values()
            .map(|stocked| {
                let nodes: Vec<_> = stocked.nodes.keys().collect();
                json!({"release": stocked.id, "nodes": nodes, "path": release_path(&stocked.id)})
            })
            .collect();
        Ok(json_text(&json!({ "releases": releases })))
    }

    fn release(&self, distro: &str, version: &str) -> Result<Extra, ExtraError> {
        let id = format!("{distro}@{version}").parse().map_err(|error| not_here(format!("{error}"), vec![]));
        let stocked = self.stocked(&id?)?;
        let mut nodes = Vec::new();
        for (kind, with) in &stocked.nodes {
            let mut node = json!({"node": kind, "with": with});
            if let Some(path) = archive_path(&stocked.id, kind) {
                match self.archive(&stocked, kind) {
                    Ok(archive) => node["archive"] = json!({"path": path, "bytes": archive.size()}),
                    Err(ExportError::Content(error)) => return Err(error.into()),
                    Err(error) => node["archive"] = json!({"path": path, "missing": error.to_string()}),
                }
            }
            nodes.push(node);
        }
        Ok(json_text(&json!({"release": stocked.id, "nodes": nodes})))
    }
}

fn release_path(id: &ReleaseId) -> String {
    format!("{RELEASES}/{}/{}", id.distro, id.version)
}

fn not_here(message: String, candidates: Vec<String>) -> ExtraError {
    ExtraError::NotHere { message, candidates }
}

fn plain(text: String) -> Extra {
    Extra::Text { media_type: "text/plain; charset=utf-8", text }
}

fn json_text(value: &Value) -> Extra {
    Extra::Text { media_type: "application/json", text: value.to_string() }
}

impl From<StockError> for ExtraError {
    fn from(error: StockError) -> Self {
        match error {
            StockError::Archive(ExportError::Content(error))
            | StockError::Store(StoreError::Content(error))
            | StockError::Imports(RetainError::Store(StoreError::Content(error))) => error.into(),
            StockError::Archive(ExportError::Manifest { .. } | ExportError::Io(_))
            | StockError::Store(_)
            | StockError::Imports(_) => Self::Failed(error.to_string()),
            StockError::Archive(error) => not_here(error.to_string(), Vec::new()),
        }
    }
}
