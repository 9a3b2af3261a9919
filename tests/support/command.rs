//! Running other programs to their end, with a failure that shows what they said.

use std::process::{Command, Output};

/// A finished program: its exit code and what it wrote.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    fn new(output: &Output) -> Self {
        Self {
            // A program that was ended by a signal has no code; no program here returns -1.
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Panics unless the program said all of `words` on stderr.
    #[track_caller]
    pub(crate) fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(
                self.stderr.contains(word),
                "expected {word:?} in the message, which is:\n{}",
                self.stderr
            );
        }
        self
    }
}

/// What the tests do with a command.
pub(crate) trait Run {
    /// Runs it, whatever comes of it.
    fn finish(&mut self) -> Finished;

    /// Runs it, panics unless it succeeds, and returns what it wrote to stdout.
    fn succeed(&mut self) -> String;

    /// Runs it and panics unless it ends with `code`.
    fn fail_with(&mut self, code: i32) -> Finished;
}

impl Run for Command {
    #[track_caller]
    fn finish(&mut self) -> Finished {
        match self.output() {
            Ok(output) => Finished::new(&output),
            Err(error) => {
                panic!("cannot start {self:?}: {error} (tests/run installs what is missing)")
            }
        }
    }

    #[track_caller]
    fn succeed(&mut self) -> String {
        self.fail_with(0).stdout
    }

    #[track_caller]
    fn fail_with(&mut self, code: i32) -> Finished {
        let finished = self.finish();
        assert!(
            finished.code == code,
            "{self:?}\nended with {}, expected {code}\n--- stdout\n{}\n--- stderr\n{}",
            finished.code,
            finished.stdout,
            finished.stderr
        );
        finished
    }
}
