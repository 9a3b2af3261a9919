//! Known problems of releases, and what to do about them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::ReleaseId;
use crate::oci::NodeKind;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Needs care.
    Warning,
    /// Will not work.
    Blocker,
}

impl Severity {
    /// `note`, `warning` or `blocker`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Blocker => "blocker",
        }
    }
}

/// Something that an operator has to know about a release on these nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// A stable name, `win-pause-linux-only`.
    pub id: String,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub fix: Option<String>,
    /// The node kinds concerned.
    pub nodes: Vec<NodeKind>,
}

/// A problem with all the releases that have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReleaseProblem {
    /// The releases, sorted.
    pub releases: Vec<ReleaseId>,
    /// The problem.
    pub problem: Problem,
}

impl ReleaseProblem {
    /// Joins what several releases have in common, in the order in which it comes up.
    pub fn join(problems: impl IntoIterator<Item = (ReleaseId, Problem)>) -> Vec<Self> {
        let mut joined: Vec<Self> = Vec::new();
        for (release, problem) in problems {
            match joined.iter_mut().find(|known| known.problem == problem) {
                Some(known) if known.releases.contains(&release) => {}
                Some(known) => known.releases.push(release),
                None => joined.push(Self { releases: vec![release], problem }),
            }
        }
        for problem in &mut joined {
            problem.releases.sort();
        }
        joined
    }
}

/// The releases, the node kinds, the id, what is wrong, and below it what to do.
impl fmt::Display for ReleaseProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { id, message, fix, nodes, .. } = &self.problem;
        let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
        write!(f, "{} on {} [{id}]: {message}", release_list(&self.releases), nodes.join(", "))?;
        fix.iter().try_for_each(|fix| write!(f, "\n  fix: {fix}"))
    }
}

/// The most releases of one distribution that are named one by one.
const NAMED: usize = 3;

/// Returns sorted `releases` in words: one by one, or if there are many the first and the last of each distribution.
pub fn release_list(releases: &[ReleaseId]) -> String {
    let part = |same: &[ReleaseId]| match same {
        [first, .., last] if same.len() > NAMED => {
            format!("{} releases of {} from {} to {}", same.len(), first.distro, first.version, last.version)
        }
        _ => same.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    };
    let parts: Vec<String> = releases.chunk_by(|a, b| a.distro == b.distro).map(part).collect();
    parts.join(", ")
}

/// The texts of problems that releases name by id.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProblemTable {
    pub(super) problems: BTreeMap<String, KnownProblem>,
}

/// A problem as the table has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KnownProblem {
    severity: Severity,
    nodes: Concerned,
    /// Features that bring it; empty: it is always there.
    #[serde(default)]
    pub(super) when: Vec<String>,
    message: String,
    fix: Option<String>,
}

/// Which nodes a problem concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Concerned {
    Linux,
    Windows,
    All,
}

impl KnownProblem {
    /// The problem on these nodes; none when it concerns none of them.
    pub(super) fn on(&self, id: &str, kinds: &[NodeKind]) -> Option<Problem> {
        let concerned = |kind: &&NodeKind| match self.nodes {
            Concerned::All => true,
            Concerned::Linux => !kind.is_windows(),
            Concerned::Windows => kind.is_windows(),
        };
        let nodes: Vec<NodeKind> = kinds.iter().filter(concerned).cloned().collect();
        (!nodes.is_empty()).then(|| Problem {
            id: id.to_owned(),
            severity: self.severity,
            message: self.message.clone(),
            fix: self.fix.clone(),
            nodes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_with_one_problem_are_told_once() {
        let problem = |id: &str| Problem {
            id: id.to_owned(),
            severity: Severity::Warning,
            message: "it breaks".to_owned(),
            fix: Some("mend it".to_owned()),
            nodes: vec!["linux/amd64".parse().unwrap()],
        };
        let release = |text: &str| text.parse::<ReleaseId>().unwrap();
        let versions = ["k0s@v1.36.10+k0s.0", "k0s@v1.36.9+k0s.0", "k3s@v1.36.1+k3s1", "k0s@v1.36.10+k0s.0"];
        let mut problems: Vec<_> = versions.map(|text| (release(text), problem("a"))).into();
        problems.push((release("k0s@v1.36.9+k0s.0"), problem("b")));
        let joined: Vec<String> = ReleaseProblem::join(problems).iter().map(ToString::to_string).collect();
        assert_eq!(
            joined,
            [
                "k0s@v1.36.9+k0s.0, k0s@v1.36.10+k0s.0, k3s@v1.36.1+k3s1 on linux/amd64 [a]: it breaks\n  fix: mend it",
                "k0s@v1.36.9+k0s.0 on linux/amd64 [b]: it breaks\n  fix: mend it",
            ]
        );
        let many: Vec<ReleaseId> = (0..84).map(|n| release(&format!("k0s@v1.36.{n}+k0s.0"))).collect();
        assert_eq!(release_list(&many), "84 releases of k0s from v1.36.0+k0s.0 to v1.36.83+k0s.0");
    }
}
