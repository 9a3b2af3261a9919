//! Windows releases: their builds and names, the Kubernetes versions that support them, and which pause images have
//! an entry for them.

use std::fmt;

use serde::{Deserialize, Deserializer};

use super::release_id::minor_of;
use super::{CatalogError, Severity};
use crate::oci::{Reference, WindowsBuild};

/// The first build whose containers run on later builds too (Microsoft "Windows container version compatibility").
const FIRST_STABLE_BUILD: u32 = 20348;

/// What is known about Windows.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct WindowsTable {
    /// The releases, by build.
    pub builds: Vec<WindowsRelease>,
    /// Pause images with the builds that they have entries for.
    pub pause: Vec<PauseImage>,
}

/// One release of Windows.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct WindowsRelease {
    /// Its version without the revision.
    #[serde(deserialize_with = "build")]
    pub build: WindowsBuild,
    /// What people call it, `Windows Server 2022`.
    pub title: String,
    /// Names that stand for it after `windows/`, lower case.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// The servicing channel: `LTSC`, `SAC`, `Annual`, `client`.
    pub channel: String,
    /// The Kubernetes versions whose documentation supports it as a worker; none: no version does.
    pub kubernetes: Option<KubernetesRange>,
    /// How bad it is to use it with another Kubernetes version.
    pub outside: Severity,
    /// End of mainstream support, `2026-10-13`.
    pub mainstream_end: Option<String>,
    /// End of all support, `2031-10-14`.
    pub end: Option<String>,
    /// What a reader should know.
    #[serde(default)]
    pub note: String,
}

/// Kubernetes minor versions, both ends included.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KubernetesRange {
    /// The first, `1.14`; none: all before the last.
    pub from: Option<String>,
    /// The last; none: all after the first.
    pub until: Option<String>,
}

impl fmt::Display for KubernetesRange {
    /// Prints `Kubernetes 1.14 to 1.34`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.from, &self.until) {
            (Some(from), Some(until)) if from == until => write!(f, "Kubernetes {from} only"),
            (Some(from), Some(until)) => write!(f, "Kubernetes {from} to {until}"),
            (Some(from), None) => write!(f, "Kubernetes {from} and later"),
            (None, Some(until)) => write!(f, "Kubernetes {until} and earlier"),
            (None, None) => f.write_str("any Kubernetes"),
        }
    }
}

impl KubernetesRange {
    /// Whether the range starts after this minor version.
    pub fn starts_after(&self, minor: (u32, u32)) -> bool {
        self.from.as_deref().and_then(minor_of).is_some_and(|from| minor < from)
    }

    /// Whether the range has this minor version. A bound that is no version holds for nothing.
    pub fn contains(&self, minor: (u32, u32)) -> bool {
        let within = |bound: &Option<String>, holds: fn(&(u32, u32), &(u32, u32)) -> bool| {
            bound.as_deref().is_none_or(|bound| minor_of(bound).is_some_and(|bound| holds(&bound, &minor)))
        };
        within(&self.from, PartialOrd::le) && within(&self.until, PartialOrd::ge)
    }
}

/// A pause image and the Windows builds that its index has entries for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PauseImage {
    /// The image.
    #[serde(rename = "ref")]
    pub reference: Reference,
    /// Builds of its Windows entries; empty: it is an image for Linux only.
    #[serde(deserialize_with = "builds")]
    pub builds: Vec<WindowsBuild>,
    /// Whether the list of builds was seen in full.
    #[serde(default = "yes")]
    pub certain: bool,
    /// What a reader should know.
    #[serde(default)]
    pub note: String,
}

/// What an index offers to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// An entry of the host's own build.
    Native,
    /// An entry of an older build, which the host runs as well.
    Older(WindowsBuild),
    /// Nothing that the host runs.
    Nothing,
}

/// What an index with entries for `builds` offers to a host: its own build, and from Windows Server 2022 on an older
/// one, not below 20348.
pub fn offer(host: WindowsBuild, builds: &[WindowsBuild]) -> Offer {
    if builds.contains(&host) {
        return Offer::Native;
    }
    let runs = |image: &&WindowsBuild| {
        (image.major, image.minor) == (host.major, host.minor)
            && (FIRST_STABLE_BUILD..=host.build).contains(&image.build)
    };
    builds.iter().filter(runs).max().map_or(Offer::Nothing, |build| Offer::Older(*build))
}

impl WindowsTable {
    /// The release with this build.
    pub fn release(&self, build: WindowsBuild) -> Option<&WindowsRelease> {
        self.builds.iter().find(|release| release.build == build)
    }

    /// The build that `ltsc2022`, `2022` or `20H2` stands for.
    pub fn alias(&self, name: &str) -> Result<WindowsBuild, CatalogError> {
        let name = name.to_ascii_lowercase();
        let found = self.builds.iter().find(|release| release.aliases.contains(&name));
        found.map(|release| release.build).ok_or_else(|| CatalogError::UnknownWindows {
            alias: name.chars().take(40).collect(),
            known: self.builds.iter().filter_map(|release| release.aliases.first()).fold(
                String::new(),
                |list, alias| {
                    if list.is_empty() { alias.clone() } else { format!("{list}, {alias}") }
                },
            ),
        })
    }

    /// What is known about a pause image. Kubernetes' old registry name stands for the new one.
    pub fn pause(&self, reference: &Reference) -> Option<&PauseImage> {
        let wanted = reference.to_string();
        let wanted = match wanted.strip_prefix("k8s.gcr.io/") {
            Some(path) => format!("registry.k8s.io/{path}"),
            None => wanted,
        };
        self.pause.iter().find(|pause| pause.reference.to_string() == wanted)
    }

    /// Takes entries of `other` in place of those here, and its new ones.
    pub(super) fn overlay(&mut self, other: Self) {
        self.builds.retain(|release| other.release(release.build).is_none());
        self.builds.extend(other.builds);
        self.builds.sort_by_key(|release| release.build);
        self.pause.retain(|pause| other.pause.iter().all(|new| new.reference != pause.reference));
        self.pause.extend(other.pause);
    }
}

fn yes() -> bool {
    true
}

fn build<'de, D: Deserializer<'de>>(deserializer: D) -> Result<WindowsBuild, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

fn builds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<WindowsBuild>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| text.parse().map_err(serde::de::Error::custom)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(build: u32) -> WindowsBuild {
        WindowsBuild { major: 10, minor: 0, build }
    }

    #[test]
    fn hosts_run_their_own_build_and_from_2022_on_older_ones() {
        let builds = [number(17763), number(20348)];
        assert_eq!(offer(number(17763), &builds), Offer::Native);
        assert_eq!(offer(number(19042), &builds), Offer::Nothing);
        assert_eq!(offer(number(26100), &builds), Offer::Older(number(20348)));
        assert_eq!(offer(number(20348), &[number(17763)]), Offer::Nothing);
        assert_eq!(offer(number(20348), &[number(26100)]), Offer::Nothing);
    }

    #[test]
    fn ranges_include_both_ends() {
        let range = KubernetesRange { from: Some("1.14".into()), until: Some("1.34".into()) };
        assert!(range.contains((1, 14)) && range.contains((1, 34)));
        assert!(!range.contains((1, 13)) && !range.contains((1, 35)));
        assert!(KubernetesRange { from: Some("1.23".into()), until: None }.contains((1, 40)));
    }
}
