//! A page of the documentation in the parts that a test acts on.
//!
//! A fenced block that starts with `console MACHINE` has commands behind `$ ` and, below each, what it prints; a line that
//! ends in a backslash goes on in the next one. A fenced block of any other language with `MACHINE FILE` behind it is a
//! file that the reader writes. A comment `<!-- now: … -->` tells the test what happened in the world meanwhile.

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

/// A page.
pub(crate) struct Page {
    path: PathBuf,
    lines: Vec<String>,
    pub(crate) parts: Vec<Part>,
}

pub(crate) enum Part {
    File { machine: String, name: String, content: String },
    Command(Command),
    Now(String),
}

pub(crate) struct Command {
    pub(crate) machine: String,
    pub(crate) text: String,
    /// The lines of the page with what it prints.
    output: Range<usize>,
}

impl Page {
    /// Reads a page of `docs/`.
    pub(crate) fn read(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let mut parts = Vec::new();
        let mut at = 0;
        while at < lines.len() {
            let line = &lines[at];
            at += 1;
            if let Some(event) = line.strip_prefix("<!-- now: ").and_then(|rest| rest.strip_suffix(" -->")) {
                parts.push(Part::Now(event.to_owned()));
            }
            let Some(info) = line.strip_prefix("```") else { continue };
            let end = at + lines[at..].iter().position(|line| line == "```").expect("a fence has an end");
            let words: Vec<&str> = info.split_whitespace().collect();
            match words[..] {
                ["console", machine] => commands(machine, &lines, at..end, &mut parts),
                ["console"] => panic!("{name}, line {at}: whose console is that?"),
                [_, machine, file] => parts.push(Part::File {
                    machine: machine.to_owned(),
                    name: file.to_owned(),
                    content: lines[at..end].join("\n") + "\n",
                }),
                _ => {}
            }
            at = end + 1;
        }
        Self { path, lines, parts }
    }

    /// What the page shows that the command prints.
    pub(crate) fn shown(&self, command: &Command) -> &[String] {
        &self.lines[command.output.clone()]
    }

    /// Where the command is, for a message.
    pub(crate) fn place(&self, command: &Command) -> String {
        format!("{}:{}", self.path.display(), command.output.start)
    }

    /// Puts what was printed in the place of what the page shows.
    pub(crate) fn rewrite(&self, changes: &[(&Command, Vec<String>)]) {
        let mut lines = self.lines.clone();
        for (command, printed) in changes.iter().rev() {
            lines.splice(command.output.clone(), printed.iter().cloned());
        }
        fs::write(&self.path, lines.join("\n") + "\n").unwrap();
    }
}

fn commands(machine: &str, lines: &[String], block: Range<usize>, parts: &mut Vec<Part>) {
    let mut at = block.start;
    while at < block.end {
        let first = lines[at].strip_prefix("$ ").expect("a block of commands starts with one");
        let mut text = first.to_owned();
        at += 1;
        while text.ends_with('\\') {
            text.push('\n');
            text.push_str(&lines[at]);
            at += 1;
        }
        let start = at;
        while at < block.end && !lines[at].starts_with("$ ") {
            at += 1;
        }
        parts.push(Part::Command(Command { machine: machine.to_owned(), text, output: start..at }));
    }
}
