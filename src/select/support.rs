//! Which versions of the runtimes are in use: what is supported on a day, and what has never been released.

use std::cmp::Ordering;
use std::fmt;

use jiff::civil::Date;

use super::bands;
use super::client::Runtime;
use crate::catalog::RuntimeTable;

/// Returns the runtimes that are supported on `day`, as `table` has them.
pub fn supported(table: &RuntimeTable, day: Date) -> Vec<Runtime> {
    table.supported(day).filter_map(|(name, line)| format!("{name}@{}", line.version).parse().ok()).collect()
}

/// A version of a runtime that is in no line of the table: a typing error, or newer than the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownVersion {
    runtime: Runtime,
    /// Where the version lies, compared with all known lines; equal if between them.
    place: Ordering,
    /// The oldest and the newest known line.
    known: (String, String),
    /// The line that was probably meant.
    meant: Option<String>,
    /// The bands whose rules the version is judged by.
    judged_as: Vec<String>,
}

/// Returns what is odd about the version of `runtime`; `None` if `table` has it or does not have the program at all.
pub fn unknown_version(runtime: &Runtime, table: &RuntimeTable) -> Option<UnknownVersion> {
    let name = runtime.name();
    let lines = table.lines(name);
    let known: Vec<Runtime> =
        lines.iter().filter_map(|line| format!("{name}@{}", line.version).parse().ok()).collect();
    let (first, last) = (known.first()?, known.last()?);
    let (from, to) = runtime.range();
    let is_known = |line: &Runtime| line.range().0 <= to && from <= line.range().1;
    // `main` is newer than every release, and is meant to be.
    if known.iter().any(is_known) || runtime.is_main() {
        return None;
    }
    let place = if from > last.range().1 {
        Ordering::Greater
    } else if to < first.range().0 {
        Ordering::Less
    } else {
        Ordering::Equal
    };
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    let version = runtime.to_string();
    let version = version.split('@').nth(1).unwrap_or_default();
    let meant = lines.iter().rev().find(|line| digits(&line.version) == digits(version));
    let mut judged_as: Vec<String> = Vec::new();
    for band in bands().iter().filter(|band| runtime.covers_on_node(band)) {
        let label = band.label();
        if !judged_as.contains(&label) {
            judged_as.push(label);
        }
    }
    Some(UnknownVersion {
        runtime: runtime.clone(),
        place,
        known: (lines.first()?.version.clone(), lines.last()?.version.clone()),
        meant: meant.map(|line| format!("{name}@{}", line.version)),
        judged_as,
    })
}

impl fmt::Display for UnknownVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (oldest, newest) = &self.known;
        let name = self.runtime.name();
        write!(f, "`{}` is ", self.runtime)?;
        match self.place {
            Ordering::Greater => write!(f, "newer than any known version of {name} ({newest})")?,
            Ordering::Less => write!(f, "older than any known version of {name} ({oldest})")?,
            Ordering::Equal => write!(f, "no known version of {name}")?,
        }
        if !self.judged_as.is_empty() {
            write!(f, "; judged as {}", self.judged_as.join(", "))?;
        }
        match &self.meant {
            Some(meant) => write!(f, "; did you mean {meant}?"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    fn unknown(runtime: &str) -> Option<String> {
        let catalog = Catalog::builtin().unwrap();
        unknown_version(&runtime.parse().unwrap(), catalog.runtimes()).map(|unknown| unknown.to_string())
    }

    #[test]
    fn unknown_versions_are_named() {
        for (runtime, expected) in [
            ("containerd@9.9", "newer than any known version of containerd (2.4); judged as containerd main"),
            (
                "containerd@0.1",
                "older than any known version of containerd (1.0); judged as containerd <=1.4",
            ),
            ("containerd@17", "did you mean containerd@1.7?"),
            ("containerd@1.8", "`containerd@1.8` is no known version of containerd; judged as containerd"),
            ("containerd://9.9.1", "`containerd@9.9.1` is newer"),
            ("docker@99", "newer than any known version of docker (29)"),
            ("docker@2010", "did you mean docker@20.10?"),
            ("docker@21", "no known version of docker"),
            ("docker-containerd@99", "newer than any known version of docker"),
            ("cri-o@9", "newer than any known version of cri-o"),
            ("crio@134", "did you mean cri-o@1.34?"),
            ("podman://61.0.0", "newer than any known version of podman"),
        ] {
            let found = unknown(runtime).unwrap_or_default();
            assert!(found.contains(expected), "{runtime}: {found}");
        }
    }

    #[test]
    fn known_versions_are_not_doubted() {
        for runtime in [
            "containerd",
            "containerd@1",
            "containerd@1.7.27",
            "containerd://1.7.27",
            "containerd@2.4",
            "containerd@main",
            "docker@29",
            "docker://29.3",
            "docker@20.10.24",
            "docker@18.09",
            "docker-containerd@29.6.1",
            "cri-o://1.31.0",
            "podman@4.3",
            "skopeo@1",
            "crane@9",
            "k0s@v1.34.1+k0s.0",
        ] {
            assert_eq!(unknown(runtime), None, "{runtime}");
        }
    }

    #[test]
    fn every_line_of_the_table_has_rules() {
        let catalog = Catalog::builtin().unwrap();
        let day = Date::constant(1970, 1, 1);
        assert_eq!(supported(catalog.runtimes(), day).len(), catalog.runtimes().supported(day).count());
        for runtime in supported(catalog.runtimes(), day) {
            assert!(bands().iter().any(|band| runtime.covers_on_node(band)), "{runtime}");
            assert!(!runtime.client().is_copy_tool() || runtime.client().runs_on("linux"), "{runtime}");
        }
    }
}
