//! Everything that keeps a definition from being resolved, as one report: sorted, and the same for the same causes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::allow::Unneeded;
use super::{Gap, GapKind, NeededBy};
use crate::catalog::{ReleaseId, ReleaseProblem, release_list};
use crate::oci::NodeKind;

/// Why a definition cannot be resolved: all that is missing, not just the first.
#[derive(Debug)]
pub struct Incomplete {
    /// What cannot be had, sorted.
    pub gaps: Vec<Gap>,
    /// What the catalog knows cannot work.
    pub blockers: Vec<ReleaseProblem>,
    /// What was allowed to be missing without need.
    pub unneeded: Vec<Unneeded>,
    /// How many images the definition needs.
    pub images: usize,
    /// Whether any image or file was read.
    pub reached: bool,
    /// Whether the definition states its runtimes.
    pub runtimes_stated: bool,
}

/// Gaps in lines of their own, sorted and grouped.
#[derive(Clone, Copy, Debug)]
pub struct GapList<'a>(pub &'a [Gap]);

impl fmt::Display for GapList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_gaps(f, self.0)
    }
}

/// What several images have in common: who needs them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Releases(Vec<ReleaseId>),
    Lists(Vec<String>),
    Nobody,
}

impl fmt::Display for Incomplete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the definition cannot be fulfilled")?;
        let references: BTreeSet<_> =
            self.gaps.iter().filter(|gap| !gap.evidence).filter_map(|gap| gap.reference.as_ref()).collect();
        if !references.is_empty() {
            write!(f, ": {} of {} images cannot be had", references.len(), self.images)?;
        }
        write_gaps(f, &self.gaps)?;
        for blocker in &self.blockers {
            write!(f, "\n  {}", blocker.to_string().replace('\n', "\n  "))?;
        }
        Ok(())
    }
}

/// Writes `gaps` in lines of their own: first what is the same for several images of a host, then the rest.
fn write_gaps(f: &mut fmt::Formatter<'_>, gaps: &[Gap]) -> fmt::Result {
    let mut causes: BTreeMap<(&str, GapKind, &str), Vec<&Gap>> = BTreeMap::new();
    let mut others: Vec<&Gap> = Vec::new();
    for gap in gaps {
        match &gap.server {
            Some(server) if gap.kind.is_of_host() => {
                causes.entry((server, gap.kind, &gap.reason)).or_default().push(gap);
            }
            _ => others.push(gap),
        }
    }
    for ((server, _, reason), gaps) in causes {
        let names: BTreeSet<_> = gaps.iter().map(|gap| gap.name()).collect();
        if names.len() < 2 {
            others.extend(gaps);
            continue;
        }
        write!(f, "\n  {server}: {reason}")?;
        for (group, gaps) in groups(gaps) {
            write!(f, "\n    {group}:")?;
            for same in gaps.chunk_by(|a, b| subject(a, &group) == subject(b, &group)) {
                let nodes: BTreeSet<_> = same.iter().flat_map(|gap| &gap.nodes).collect();
                write!(f, "\n      {}{}", subject(same[0], &group), for_nodes(nodes))?;
            }
        }
    }
    let elsewhere = |gap: &&Gap| gap.server != gap.host;
    let servers = others.iter().copied().filter(elsewhere).filter_map(|gap| gap.server.as_deref());
    let servers: BTreeSet<&str> = servers.collect();
    for (group, gaps) in groups(others) {
        write!(f, "\n  {group}:")?;
        for same in gaps.chunk_by(|a, b| subject(a, &group) == subject(b, &group)) {
            let subject = subject(same[0], &group);
            write!(f, "\n    {subject}")?;
            match same {
                [gap] if !subject.is_empty() => f.write_str(&reason(gap))?,
                [gap] => f.write_str(reason(gap).trim_start())?,
                gaps => gaps.iter().try_for_each(|gap| write!(f, "\n      {}", reason(gap).trim_start()))?,
            }
        }
    }
    if !servers.is_empty() {
        write!(f, "\n  read from {}", servers.into_iter().collect::<Vec<_>>().join(", "))?;
    }
    Ok(())
}

/// Sorts gaps by who needs them, then by what is missing.
fn groups(gaps: Vec<&Gap>) -> BTreeMap<Group, Vec<&Gap>> {
    let mut groups: BTreeMap<Group, Vec<&Gap>> = BTreeMap::new();
    for gap in gaps {
        groups.entry(Group::of(gap)).or_default().push(gap);
    }
    for gaps in groups.values_mut() {
        gaps.sort_by_cached_key(|gap| gap.sort_key());
    }
    groups
}

impl Group {
    fn of(gap: &Gap) -> Self {
        let releases: BTreeSet<ReleaseId> = gap.needed_by.iter().filter_map(NeededBy::release).collect();
        if !releases.is_empty() {
            return Self::Releases(releases.into_iter().collect());
        }
        let lists: BTreeSet<String> = gap.needed_by.iter().map(ToString::to_string).collect();
        if lists.is_empty() { Self::Nobody } else { Self::Lists(lists.into_iter().collect()) }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Releases(releases) => f.write_str(&release_list(releases)),
            Self::Lists(lists) => f.write_str(&lists.join(", ")),
            Self::Nobody => f.write_str("the site"),
        }
    }
}

/// Returns what is missing, with the components of `group` that need it.
fn subject(gap: &Gap, group: &Group) -> String {
    let evidence = if gap.evidence { "evidence of " } else { "" };
    let components = match group {
        Group::Releases(_) => format!(" ({})", components(&gap.needed_by)),
        Group::Lists(_) | Group::Nobody => String::new(),
    };
    gap.name().map(|name| format!("{evidence}{name}{components}")).unwrap_or_default()
}

/// Returns for whom it is missing, and why.
fn reason(gap: &Gap) -> String {
    let clients = if gap.clients.is_empty() { String::new() } else { format!(", by {}", gap.clients) };
    let digest = gap.digest.as_ref().map(|digest| format!("{digest}: ")).unwrap_or_default();
    format!("{}{clients}: {digest}{}", for_nodes(&gap.nodes), gap.reason)
}

fn for_nodes<'a>(nodes: impl IntoIterator<Item = &'a NodeKind>) -> String {
    let nodes: Vec<String> = nodes.into_iter().map(ToString::to_string).collect();
    if nodes.is_empty() { String::new() } else { format!(" for {}", nodes.join(", ")) }
}

/// Returns the names of the components and lists, each once.
fn components(needed_by: &[NeededBy]) -> String {
    let name = |by: &NeededBy| match by {
        NeededBy::Component { component, .. } => component.clone(),
        NeededBy::List { .. } | NeededBy::Sentence(_) => by.to_string(),
    };
    let names: BTreeSet<String> = needed_by.iter().map(name).collect();
    names.into_iter().collect::<Vec<_>>().join(", ")
}
