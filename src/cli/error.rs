//! Errors as the user meets them: a message, its causes, what to do next, and the exit code.

use std::error::Error;
use std::fmt;

use dray::store::StoreError;
use serde::Serialize;
use serde_json::{Value, json};

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

impl Kind {
    /// Returns the word for it in JSON.
    const fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Verification => "verification",
            Self::Incomplete => "incomplete",
            Self::Interrupted => "interrupted",
        }
    }
}

/// An error with its exit code and hints.
#[derive(Debug)]
pub(crate) struct CliError {
    pub(crate) kind: Kind,
    pub(crate) error: Box<dyn Error + Send + Sync>,
    pub(crate) hints: Vec<String>,
    /// What is missing, one object for each thing, for programs.
    pub(crate) missing: Vec<Value>,
}

impl CliError {
    pub(crate) fn new(kind: Kind, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind, error: error.into(), hints: Vec::new(), missing: Vec::new() }
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

    /// States what is missing, one object for each thing, for programs that read the error as JSON.
    #[must_use]
    pub(crate) fn missing(mut self, missing: impl IntoIterator<Item = impl Serialize>) -> Self {
        let values = missing.into_iter().filter_map(|thing| serde_json::to_value(thing).ok());
        self.missing.extend(values);
        self
    }

    /// Returns the form for programs, `{"error":{"kind","message","hints","missing"}}`.
    pub(crate) fn to_json(&self) -> Value {
        json!({"error": {
            "kind": self.kind.name(),
            "message": self.message(),
            "hints": self.hints,
            "missing": self.missing,
        }})
    }

    /// Returns the message with its causes.
    fn message(&self) -> String {
        let mut message = self.error.to_string();
        let mut source = self.error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Many errors end with their cause; it is not repeated then.
            if message != text && !message.ends_with(&format!(": {text}")) {
                message.push_str("\n  caused by: ");
                message.push_str(&text);
            }
            source = cause.source();
        }
        message
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())?;
        for hint in &self.hints {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        let full = error.is_storage_full();
        match error {
            StoreError::Log(_) => Self::new(Kind::Verification, error)
                .hint(
                    "put the files back, from a backup or from the copies that `dray import --receipt` made; what a \
                     newer dray wrote, a newer dray reads",
                )
                .hint(
                    "if they are lost for good, let `dray log accept-damage` record that the log goes on without them: \
                     bundles older than those that they recorded can be imported then",
                ),
            StoreError::Busy { .. } => Self::failed(error).hint("wait longer with --wait, such as --wait 30m"),
            _ if full => Self::failed(error).hint(
                "the disk is full: free some space, then run the same command again; what was copied stays",
            ),
            _ => Self::failed(error),
        }
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        Self::failed(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{message}")]
    struct Outer {
        message: &'static str,
        source: std::num::ParseIntError,
    }

    fn shown(message: &'static str) -> String {
        let source = "x".parse::<u8>().unwrap_err();
        CliError::failed(Outer { message, source }).to_string()
    }

    #[test]
    fn cause_is_shown_once() {
        let cause = "invalid digit found in string";
        assert_eq!(shown("cannot count"), format!("cannot count\n  caused by: {cause}"));
        assert_eq!(shown("3: invalid digit found in string"), format!("3: {cause}"));
        // A cause that is only part of the message is a cause of its own.
        let part = "the text `invalid digit found in string` cannot be read";
        assert_eq!(shown(part), format!("{part}\n  caused by: {cause}"));
    }

    #[test]
    fn json_has_everything_that_the_text_has() {
        let error = CliError::new(Kind::Incomplete, "two images are missing")
            .hint("bring them")
            .missing([json!({"ref": "a.test/b:1"})]);
        assert_eq!(
            error.to_json(),
            json!({"error": {
                "kind": "incomplete",
                "message": "two images are missing",
                "hints": ["bring them"],
                "missing": [{"ref": "a.test/b:1"}],
            }})
        );
    }
}
