//! What each release needs, per operating system and Windows build.
//!
//! The data lives in `manifests/`, compiled in; directories given on the command line add to it or override it. An
//! answer for one release parses only that release's file, so that asking is instant.

mod checks;
mod component;
mod error;
mod facts;
mod image_list;
mod manifest;
mod need;
mod needs;
mod problem;
mod release_id;
mod runtimes;
mod source;
#[cfg(test)]
mod tests;
mod windows;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

pub use component::{Component, Os, PullPolicy};
pub use error::CatalogError;
pub use facts::{BundleArtifacts, Facts, ImportMatcher, ListImages, StripDefaults};
pub use image_list::{ImageList, ImageListError, MAX_LIST_BYTES};
pub use manifest::{Release, ReleaseComponent};
pub use need::Need;
pub use needs::Needs;
pub use problem::{Problem, ReleaseProblem, Severity, release_list};
pub use release_id::ReleaseId;
pub use runtimes::{RuntimeLine, RuntimeTable};
pub use windows::{KubernetesRange, Offer, PauseImage, WindowsRelease, WindowsTable, offer};

use crate::oci::{NodeKind, ParsePlatformError};
use manifest::{AddonFile, ReleaseFile};
use problem::ProblemTable;
use release_id::compare_versions;
use serde::Serialize;
use source::Sources;

/// The catalog.
#[derive(Debug)]
pub struct Catalog {
    sources: Sources,
    windows: WindowsTable,
    runtimes: RuntimeTable,
    /// Files of releases that were parsed, by name; each is asked about many times.
    parsed: Mutex<BTreeMap<String, Arc<[Parsed]>>>,
    /// The texts of known problems, when they were first needed.
    problems: Mutex<Option<Arc<[ProblemTable]>>>,
}

/// A parsed file of releases and what messages call it.
type Parsed = (String, ReleaseFile);

/// A release in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseSummary {
    /// Its name.
    #[serde(rename = "release")]
    pub id: ReleaseId,
    /// The containerd version inside, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub containerd: Option<String>,
    /// Whether it has images for Windows nodes.
    pub windows: bool,
    /// What `--with` takes.
    pub features: Vec<String>,
}

impl Catalog {
    /// The catalog compiled in.
    pub fn builtin() -> Result<Self, CatalogError> {
        Self::with_overrides(&[])
    }

    /// The catalog compiled in, with directories laid out like `manifests/` that add to it or override it; later
    /// directories win. A file there overrides the releases that it has, and leaves the others of its minor version.
    pub fn with_overrides(directories: &[PathBuf]) -> Result<Self, CatalogError> {
        let sources = Sources::with_directories(directories)?;
        let mut windows = WindowsTable::default();
        for text in sources.texts("windows")?.iter().rev() {
            windows.overlay(text.parse()?);
        }
        let mut runtimes = RuntimeTable::default();
        for text in sources.texts("runtimes")?.iter().rev() {
            runtimes.overlay(text.parse()?);
        }
        Ok(Self { sources, windows, runtimes, parsed: Mutex::default(), problems: Mutex::default() })
    }

    /// The node kinds that `texts` stand for, each once: several spellings may mean the same.
    pub fn node_kinds(&self, texts: &[String]) -> Result<Vec<NodeKind>, CatalogError> {
        let mut kinds = Vec::new();
        for text in texts {
            let kind = self.node_kind(text)?;
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        Ok(kinds)
    }

    /// Reads a node kind: any spelling that [`NodeKind`] reads, and aliases like `windows/ltsc2022`.
    pub fn node_kind(&self, text: &str) -> Result<NodeKind, CatalogError> {
        match text.parse::<NodeKind>() {
            Err(ParsePlatformError::NoBuild(_)) => {}
            other => return Ok(other?),
        }
        match text.split('/').collect::<Vec<_>>()[..] {
            ["windows", "amd64" | "arm64"] => Ok(text.parse()?),
            ["windows", alias] | ["windows", alias, "amd64"] | ["windows", "amd64", alias] => {
                Ok(format!("windows({})/amd64", self.windows.alias(alias)?).parse()?)
            }
            _ => Ok(text.parse()?),
        }
    }

    /// The Windows releases and pause images.
    pub fn windows(&self) -> &WindowsTable {
        &self.windows
    }

    /// Returns the known container runtimes.
    pub fn runtimes(&self) -> &RuntimeTable {
        &self.runtimes
    }

    /// The names of the distributions.
    pub fn distributions(&self) -> Vec<&str> {
        let mut names: Vec<&str> =
            self.sources.names().into_iter().filter_map(|name| name.split('/').next()).collect();
        names.dedup();
        names
    }

    /// All releases, or those of one distribution, in order.
    pub fn releases(&self, distro: Option<&str>) -> Result<Vec<ReleaseSummary>, CatalogError> {
        if let Some(name) = distro {
            self.check_distribution(name)?;
        }
        let mut found: Vec<ReleaseSummary> = Vec::new();
        for name in self.files(distro) {
            for (label, file) in self.parsed(name)?.iter() {
                for entry in &file.releases {
                    if let Some(release) = file.release(label, &entry.version)? {
                        found.push(self.summary(release)?);
                    }
                }
            }
        }
        // The sort is stable and the most important file comes first, so the survivor of duplicates is the right one.
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found.dedup_by(|later, earlier| later.id == earlier.id);
        Ok(found)
    }

    /// A release with all that is known about it.
    pub fn release(&self, id: &ReleaseId) -> Result<Release, CatalogError> {
        self.check_distribution(&id.distro)?;
        for name in Self::names_for(id) {
            for (label, file) in self.parsed(&name)?.iter() {
                if let Some(release) = file.release(label, &id.version)? {
                    return self.with_addons(release);
                }
            }
        }
        Err(self.unknown(id)?)
    }

    /// Returns a release that has the features `with`.
    pub fn release_with(&self, id: &ReleaseId, with: &[String]) -> Result<Release, CatalogError> {
        let release = self.release(id)?;
        let features = release.features();
        let Some(feature) = with.iter().find(|feature| !features.contains(feature.as_str())) else {
            return Ok(release);
        };
        let known = features.into_iter().collect::<Vec<_>>().join(", ");
        Err(CatalogError::UnknownFeature {
            release: id.to_string(),
            feature: feature.clone(),
            known: if known.is_empty() { "none".to_owned() } else { known },
        })
    }

    /// What nodes need from a release: its default configuration, plus the features `with`.
    ///
    /// Windows nodes imply a network that reaches them. The answer is a superset of what the Linux nodes need
    /// without them.
    pub fn needs(&self, id: &ReleaseId, with: &[String], kinds: &[NodeKind]) -> Result<Needs, CatalogError> {
        let release = self.release_with(id, with)?;
        let mut distinct = kinds.to_vec();
        let mut seen = std::collections::HashSet::new();
        distinct.retain(|kind| seen.insert(kind.clone()));
        let known = self.known_problems(&release, with, &distinct)?;
        Ok(needs::needs(&release, with, &distinct, &self.windows, known))
    }

    /// The problems that the release names, as far as they concern these nodes and features.
    fn known_problems(
        &self,
        release: &Release,
        with: &[String],
        kinds: &[NodeKind],
    ) -> Result<Vec<Problem>, CatalogError> {
        if release.problems.is_empty() {
            return Ok(Vec::new());
        }
        let tables = self.problem_tables()?;
        let mut found = Vec::new();
        for id in &release.problems {
            let known = tables.iter().find_map(|table| table.problems.get(id));
            let known = known.ok_or_else(|| CatalogError::Inconsistent {
                file: "problems.yaml".to_owned(),
                problem: format!("{} names the problem `{id}`, which has no text", release.id),
            })?;
            let on = |feature: &String| with.contains(feature) || release.defaults.contains(feature);
            if known.when.is_empty() || known.when.iter().any(on) {
                found.extend(known.on(id, kinds));
            }
        }
        Ok(found)
    }

    /// Adds the components that do not follow the release.
    fn with_addons(&self, mut release: Release) -> Result<Release, CatalogError> {
        for name in std::mem::take(&mut release.addons) {
            // Addons are replaced as a whole: the most important file is the one.
            let texts = self.sources.texts(&name)?;
            let text = texts.first().ok_or_else(|| CatalogError::Inconsistent {
                file: format!("{}.yaml", release.id.distro),
                problem: format!("the addons `{name}` have no file"),
            })?;
            let addons: AddonFile = text.parse()?;
            release.extend(&text.label, addons.components)?;
        }
        Ok(release)
    }

    /// The files of this name, the most important first.
    fn parsed(&self, name: &str) -> Result<Arc<[Parsed]>, CatalogError> {
        let mut parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(files) = parsed.get(name) {
            return Ok(Arc::clone(files));
        }
        let texts = self.sources.texts(name)?;
        let files = texts.into_iter().map(|text| Ok((text.label.clone(), text.parse()?)));
        let files: Arc<[Parsed]> = files.collect::<Result<_, CatalogError>>()?;
        parsed.insert(name.to_owned(), Arc::clone(&files));
        Ok(files)
    }

    /// The texts of known problems, the most important first.
    fn problem_tables(&self) -> Result<Arc<[ProblemTable]>, CatalogError> {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tables) = problems.as_ref() {
            return Ok(Arc::clone(tables));
        }
        let texts = self.sources.texts("problems")?;
        let tables: Arc<[ProblemTable]> = texts.iter().map(source::Text::parse).collect::<Result<_, _>>()?;
        *problems = Some(Arc::clone(&tables));
        Ok(tables)
    }

    fn summary(&self, release: Release) -> Result<ReleaseSummary, CatalogError> {
        let release = self.with_addons(release)?;
        Ok(ReleaseSummary {
            containerd: release.facts.containerd.clone(),
            windows: release.components.iter().any(|c| c.component.os.contains(&Os::Windows)),
            features: release.features().into_iter().map(str::to_owned).collect(),
            id: release.id,
        })
    }

    /// The names of the files that may have a release.
    fn names_for(id: &ReleaseId) -> Vec<String> {
        let minor = id.minor().map(|(major, minor)| format!("{}/{major}.{minor}", id.distro));
        minor.into_iter().chain([id.distro.clone()]).collect()
    }

    /// The names of the files of a distribution, or of all.
    fn files(&self, distro: Option<&str>) -> Vec<&str> {
        let of = |name: &&str| distro.is_none_or(|distro| name.split('/').next() == Some(distro));
        self.sources.names().into_iter().filter(of).collect()
    }

    fn check_distribution(&self, name: &str) -> Result<(), CatalogError> {
        let known = self.distributions();
        if known.contains(&name) {
            return Ok(());
        }
        Err(CatalogError::UnknownDistribution { name: name.to_owned(), known: known.join(", ") })
    }

    /// The error for a release that is not there, with those next to it.
    fn unknown(&self, id: &ReleaseId) -> Result<CatalogError, CatalogError> {
        let mut versions: Vec<String> = Vec::new();
        for name in self.files(Some(&id.distro)) {
            let files = self.parsed(name)?;
            let entries = files.iter().flat_map(|(_, file)| &file.releases);
            versions.extend(entries.map(|entry| entry.version.clone()));
        }
        versions.sort_by(|a, b| compare_versions(a, b));
        versions.dedup();
        // Versions are sorted, so the last one that only adds to what was asked for is the newest.
        let whole = versions.iter().rev().find(|version| {
            version.strip_prefix(id.version.as_str()).is_some_and(|rest| rest.starts_with(['.', '+']))
        });
        let next = versions.partition_point(|version| compare_versions(version, &id.version).is_lt());
        let before = next.checked_sub(1).and_then(|index| versions.get(index));
        let nearest = match (before, versions.get(next)) {
            _ if let Some(whole) = whole => format!("the newest of {} is {whole}", id.version),
            (Some(before), Some(after)) => format!("the nearest are {before} and {after}"),
            (Some(one), None) => format!("its newest is {one}"),
            (None, Some(one)) => format!("its oldest is {one}"),
            (None, None) => "it has no releases".to_owned(),
        };
        Ok(CatalogError::UnknownRelease { release: id.to_string(), nearest })
    }
}
