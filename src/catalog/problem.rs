//! Known problems of releases, and what to do about them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
