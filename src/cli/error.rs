//! Errors as the user meets them: a message, its causes, what to do next, and the exit code.

use std::error::Error;
use std::fmt;

/// Why the process ends, as its exit code. Scripts rely on these numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Something went wrong.
    Failed = 1,
    /// The command line or an input file is wrong.
    Usage = 2,
    /// A signature, a digest or the order of bundles did not hold.
    Verification = 3,
    /// Images are missing, or a check found what would not start.
    Incomplete = 4,
    /// Ctrl-C.
    Interrupted = 130,
}

/// An error with its exit code and hints.
#[derive(Debug)]
pub(crate) struct CliError {
    pub(crate) kind: Kind,
    pub(crate) error: Box<dyn Error + Send + Sync>,
    pub(crate) hints: Vec<String>,
}

impl CliError {
    pub(crate) fn new(kind: Kind, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind, error: error.into(), hints: Vec::new() }
    }

    pub(crate) fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Kind::Failed, error)
    }

    pub(crate) fn usage(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Kind::Usage, error)
    }

    /// Adds a line that says what to do next.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)?;
        let mut told = self.error.to_string();
        let mut source = self.error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Many errors print their cause as part of their own message; say it once.
            if !told.contains(&text) {
                write!(f, "\n  caused by: {text}")?;
                told.push_str(&text);
            }
            source = cause.source();
        }
        for hint in &self.hints {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        Self::failed(error)
    }
}
