//! Container runtimes: which lines of versions exist, and how long each is supported.

use std::collections::BTreeMap;

use jiff::civil::Date;
use serde::Deserialize;

use super::release_id::compare_versions;

/// The known container runtimes, by name: `containerd`, `docker`, `cri-o`, `podman`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeTable {
    runtimes: BTreeMap<String, Vec<RuntimeLine>>,
}

/// A line of versions of one runtime.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeLine {
    /// The numbers that the versions of the line share, `1.7`.
    pub version: String,
    /// The last day on which the line is supported; `None` while no end is announced.
    pub end: Option<Date>,
}

impl RuntimeTable {
    /// Returns the lines of the runtime `name`, oldest first; empty if it is not in the table.
    pub fn lines(&self, name: &str) -> &[RuntimeLine] {
        self.runtimes.get(name).map_or(&[], Vec::as_slice)
    }

    /// Returns the lines that are supported on `day`, each with the name of its runtime.
    ///
    /// The newest line of each runtime always counts: once its last day is over, its successors are not in this table.
    pub fn supported(&self, day: Date) -> impl Iterator<Item = (&str, &RuntimeLine)> {
        self.runtimes.iter().flat_map(move |(name, lines)| {
            let newest = lines.last();
            let is_supported = move |line: &&RuntimeLine| {
                line.end.is_none_or(|end| day <= end) || newest.is_some_and(|newest| newest == *line)
            };
            lines.iter().filter(is_supported).map(move |line| (name.as_str(), line))
        })
    }

    /// Takes lines of `other` in place of those here, and its new ones.
    pub(super) fn overlay(&mut self, other: Self) {
        for (name, new) in other.runtimes {
            let lines = self.runtimes.entry(name).or_default();
            lines.retain(|line| new.iter().all(|new| new.version != line.version));
            lines.extend(new);
            lines.sort_by(|a, b| compare_versions(&a.version, &b.version));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Catalog;
    use super::*;

    fn supported(table: &RuntimeTable, day: &str) -> Vec<String> {
        let day = day.parse().unwrap();
        table.supported(day).map(|(name, line)| format!("{name} {}", line.version)).collect()
    }

    #[test]
    fn lines_are_supported_through_their_last_day() {
        let catalog = Catalog::builtin().unwrap();
        let on = |day: &str| {
            let all = supported(catalog.runtimes(), day);
            all.into_iter().filter(|line| line.starts_with("containerd")).collect::<Vec<_>>()
        };
        let newer = ["containerd 2.0", "containerd 2.2", "containerd 2.3", "containerd 2.4"];
        assert_eq!(on("2026-09-30"), [&["containerd 1.7"], &newer[..]].concat());
        assert_eq!(on("2026-10-01"), newer);
        assert_eq!(on("2027-04-01"), ["containerd 2.3", "containerd 2.4"]);
    }

    #[test]
    fn newest_line_outlives_the_table() {
        let catalog = Catalog::builtin().unwrap();
        let last = ["containerd 2.4", "cri-o 1.37", "docker 29", "podman 6.1"];
        assert_eq!(supported(catalog.runtimes(), "2040-01-01"), last);
    }

    #[test]
    fn overlay_replaces_and_adds_lines() {
        let table = |text: &str| serde_saphyr::from_str::<RuntimeTable>(text).unwrap();
        let mut runtimes = table("runtimes: {a: [{version: '1.9'}, {version: '1.10', end: 2020-01-01}]}");
        runtimes.overlay(table("runtimes: {a: [{version: '1.10'}, {version: '1.11'}], b: [{version: '1'}]}"));
        let lines = |name| runtimes.lines(name).iter().map(|line| &*line.version).collect::<Vec<_>>();
        assert_eq!(lines("a"), ["1.9", "1.10", "1.11"]);
        assert_eq!(runtimes.lines("a")[1].end, None);
        assert_eq!(lines("b"), ["1"]);
        assert!(lines("c").is_empty());
    }
}
