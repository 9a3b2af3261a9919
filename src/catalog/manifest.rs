//! The form of a catalog file, and the state of a release after all changes before it.
//!
//! A file describes the releases of one distribution and minor version. Components are described once; the first
//! release states every tag, and each later one only what changed since the one before it, which is also what a
//! reviewer wants to see.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::component::{Component, ComponentChange};
use super::facts::Facts;
use super::release_id::minor_of;
use super::{CatalogError, ReleaseId};
use crate::oci::Reference;

/// A file of releases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ReleaseFile {
    /// The distribution, as in the file's path.
    pub(super) distribution: String,
    /// The Kubernetes minor version, as in the file's path; none for software that runs on any.
    pub(super) kubernetes: Option<String>,
    /// Architectures of Linux nodes that the releases exist for; empty: any.
    #[serde(default)]
    architectures: Vec<String>,
    /// Features that exist for some of these architectures only.
    #[serde(default)]
    feature_arch: BTreeMap<String, Vec<String>>,
    /// Features of the default configuration.
    #[serde(default)]
    defaults: Vec<String>,
    /// Networks that reach Windows nodes; the first is assumed when none of them is asked for.
    #[serde(default)]
    windows_networks: Vec<String>,
    /// Files with components that do not follow the releases.
    #[serde(default)]
    pub(super) addons: Vec<String>,
    /// Known problems, by id.
    #[serde(default)]
    problems: Vec<String>,
    #[serde(default)]
    facts: Facts,
    /// Names of release assets, with `{version}`.
    #[serde(default)]
    assets: Vec<String>,
    pub(super) components: Vec<Component>,
    pub(super) releases: Vec<ReleaseEntry>,
}

/// What a release changes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ReleaseEntry {
    pub(super) version: String,
    /// Tags by component; they hold until a later release states another.
    #[serde(default)]
    tags: BTreeMap<String, String>,
    /// What else changes about components.
    #[serde(default)]
    components: BTreeMap<String, ComponentChange>,
    /// Components that are gone.
    #[serde(default)]
    removed: Vec<String>,
    architectures: Option<Vec<String>>,
    feature_arch: Option<BTreeMap<String, Vec<String>>>,
    problems: Option<Vec<String>>,
    #[serde(default)]
    facts: Facts,
    assets: Option<Vec<String>>,
}

/// A file of components that do not follow the releases of a distribution.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct AddonFile {
    pub(super) components: Vec<Component>,
}

/// One release, complete.
#[derive(Clone, Debug)]
pub struct Release {
    /// Its name.
    pub id: ReleaseId,
    /// The Kubernetes minor version; none for software that runs on any.
    pub kubernetes: Option<(u32, u32)>,
    /// Architectures of Linux nodes that it exists for; empty: any.
    pub architectures: Vec<String>,
    /// Features that exist for some of these architectures only.
    pub feature_arch: BTreeMap<String, Vec<String>>,
    /// Features of the default configuration.
    pub defaults: Vec<String>,
    /// Networks that reach Windows nodes; the first is assumed when none is asked for.
    pub windows_networks: Vec<String>,
    /// Ids of known problems.
    pub problems: Vec<String>,
    /// How it behaves.
    pub facts: Facts,
    /// Names of the files that its publisher offers.
    pub assets: Vec<String>,
    /// Its components, in the order in which the distribution itself lists them.
    pub components: Vec<ReleaseComponent>,
    /// Files with more components.
    pub(super) addons: Vec<String>,
}

/// A component with the reference that the release has for it.
#[derive(Clone, Debug)]
pub struct ReleaseComponent {
    /// What it is.
    pub component: Component,
    /// The image it runs.
    pub reference: Reference,
}

impl Release {
    /// The features that `--with` takes.
    pub fn features(&self) -> BTreeSet<&str> {
        let conditions = self.components.iter().flat_map(|c| &c.component.when);
        conditions.chain(&self.windows_networks).chain(&self.defaults).map(String::as_str).collect()
    }

    /// Adds components that do not follow the release, those for its Kubernetes version.
    pub(super) fn extend(&mut self, file: &str, components: Vec<Component>) -> Result<(), CatalogError> {
        let applies = |component: &Component| match (&component.kubernetes, self.kubernetes) {
            (Some(range), Some(minor)) => range.contains(minor),
            _ => true,
        };
        let applicable: Vec<Component> = components.into_iter().filter(applies).collect();
        for component in applicable {
            let tag = component.tag.clone();
            self.components.extend(complete(file, &self.id, component, tag)?);
        }
        Ok(())
    }
}

/// A release while the changes up to it are made.
struct State {
    components: Vec<(Component, Option<String>)>,
    architectures: Vec<String>,
    feature_arch: BTreeMap<String, Vec<String>>,
    problems: Vec<String>,
    facts: Facts,
    assets: Vec<String>,
}

impl ReleaseFile {
    /// The release `version` of this file; none when the file does not have it.
    pub(super) fn release(&self, file: &str, version: &str) -> Result<Option<Release>, CatalogError> {
        let Some(last) = self.releases.iter().position(|entry| entry.version == version) else {
            return Ok(None);
        };
        let mut state = State {
            components: self.components.iter().map(|c| (c.clone(), c.tag.clone())).collect(),
            architectures: self.architectures.clone(),
            feature_arch: self.feature_arch.clone(),
            problems: self.problems.clone(),
            facts: self.facts.clone(),
            assets: self.assets.clone(),
        };
        for entry in &self.releases[..=last] {
            state.make(file, entry)?;
        }
        let id = ReleaseId { distro: self.distribution.clone(), version: version.to_owned() };
        let mut components = Vec::with_capacity(state.components.len());
        for (component, tag) in state.components {
            components.extend(complete(file, &id, component, tag)?);
        }
        Ok(Some(Release {
            kubernetes: self.kubernetes.as_deref().and_then(minor_of),
            architectures: state.architectures,
            feature_arch: state.feature_arch,
            defaults: self.defaults.clone(),
            windows_networks: self.windows_networks.clone(),
            problems: state.problems,
            facts: state.facts,
            assets: state.assets.iter().map(|asset| filled(asset, &id)).collect(),
            components,
            addons: self.addons.clone(),
            id,
        }))
    }
}

impl State {
    /// Makes the changes of one release.
    fn make(&mut self, file: &str, entry: &ReleaseEntry) -> Result<(), CatalogError> {
        for (name, tag) in &entry.tags {
            self.find(file, entry, name)?.1 = Some(tag.clone());
        }
        for (name, change) in &entry.components {
            change.apply(&mut self.find(file, entry, name)?.0);
        }
        for name in &entry.removed {
            self.find(file, entry, name)?.1 = None;
        }
        self.facts = self.facts.overlaid(&entry.facts);
        if let Some(value) = &entry.feature_arch {
            self.feature_arch.clone_from(value);
        }
        for (field, change) in [
            (&mut self.architectures, &entry.architectures),
            (&mut self.problems, &entry.problems),
            (&mut self.assets, &entry.assets),
        ] {
            if let Some(value) = change {
                field.clone_from(value);
            }
        }
        Ok(())
    }

    fn find(
        &mut self,
        file: &str,
        entry: &ReleaseEntry,
        name: &str,
    ) -> Result<&mut (Component, Option<String>), CatalogError> {
        self.components.iter_mut().find(|(c, _)| c.name == name).ok_or_else(|| CatalogError::Inconsistent {
            file: file.to_owned(),
            problem: format!(
                "release {} names the component `{name}`, which the file does not describe",
                entry.version
            ),
        })
    }
}

/// A component with its reference; none where the release does not have it.
fn complete(
    file: &str,
    id: &ReleaseId,
    component: Component,
    tag: Option<String>,
) -> Result<Option<ReleaseComponent>, CatalogError> {
    let Some(tag) = tag else { return Ok(None) };
    let text = format!("{}:{}", component.image, filled(&tag, id));
    let reference = text.parse().map_err(|error| CatalogError::Inconsistent {
        file: file.to_owned(),
        problem: format!("release {}, component `{}`: `{text}`: {error}", id.version, component.name),
    })?;
    Ok(Some(ReleaseComponent { component, reference }))
}

/// Fills in the parts of the release's version.
fn filled(template: &str, id: &ReleaseId) -> String {
    template
        .replace("{version}", &id.version)
        .replace("{tag}", &id.tag())
        .replace("{kubernetes}", id.base_version())
}
