//! What is wrong with a YAML or JSON file, in the words of this program and not in those of a parser.

use std::fmt;

/// The most problems of one file that are named.
const MAX_SHOWN: usize = 20;

/// Why a file of YAML or JSON cannot be used: everything that was found wrong with it, in the order of its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentError {
    file: String,
    problems: Vec<Problem>,
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line, from 1; 0 if the problem is the file as a whole.
    pub line: usize,
    /// What is wrong, with the field that it concerns.
    pub what: String,
}

impl DocumentError {
    /// One problem at `line` of `file`.
    pub fn new(file: impl Into<String>, line: usize, what: impl Into<String>) -> Self {
        Self { file: file.into(), problems: vec![Problem { line, what: what.into() }] }
    }

    /// All `problems` of `file`, of which there is at least one.
    pub(crate) fn all(file: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.line);
        Self { file: file.to_owned(), problems }
    }

    /// Returns the problems in the order of their lines.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl std::error::Error for DocumentError {}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problems[..] {
            [Problem { line: 0, what }] => write!(f, "{} {what}", self.file),
            [problem] => write!(f, "{}, {problem}", self.file),
            problems => {
                write!(f, "{} has {} errors", self.file, problems.len())?;
                for problem in problems.iter().take(MAX_SHOWN) {
                    write!(f, "\n  {problem}")?;
                }
                match problems.len().saturating_sub(MAX_SHOWN) {
                    0 => Ok(()),
                    more => write!(f, "\n  and {more} more"),
                }
            }
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}
