//! What is printed and where: data to stdout, everything else to stderr, progress only to a terminal.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::error::{CliError, Kind};
use super::global::{Format, Global};

/// Prints for one run of the command. Clones print to the same place.
#[derive(Clone)]
pub(crate) struct Output {
    format: Format,
    quiet: bool,
    colour: bool,
    bars: MultiProgress,
    /// Whether stdout has a result, so that an error is not printed there as well.
    has_result: Arc<AtomicBool>,
    /// Whether stdout is for data, so that nothing else is printed there.
    data_on_stdout: Arc<AtomicBool>,
}

impl Output {
    pub(crate) fn new(global: &Global) -> Self {
        let terminal = io::stderr().is_terminal();
        let bars = MultiProgress::new();
        if global.no_progress || global.quiet || !terminal {
            bars.set_draw_target(ProgressDrawTarget::hidden());
        }
        Self {
            format: global.format,
            quiet: global.quiet,
            colour: terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            bars,
            has_result: Arc::default(),
            data_on_stdout: Arc::default(),
        }
    }

    /// Whether results are for programs.
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Prints a result: `value` as JSON, or the text. It goes to stderr if stdout is for data.
    pub(crate) fn result(
        &self,
        value: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), CliError> {
        if self.data_on_stdout.load(Ordering::Relaxed) {
            if self.is_json() {
                self.line_after("", &serde_json::to_string_pretty(value).map_err(CliError::failed)?);
            } else {
                self.note(text().trim_end());
            }
            return Ok(());
        }
        if self.is_json() {
            let mut json = serde_json::to_string_pretty(value).map_err(CliError::failed)?;
            json.push('\n');
            self.has_result.store(true, Ordering::Relaxed);
            write_stdout(&json)
        } else {
            let mut text = text();
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            write_stdout(&harmless(&text))
        }
    }

    /// Keeps stdout for data that the command writes there: whoever reads it expects nothing else.
    pub(crate) fn leave_stdout_to_data(&self) {
        self.data_on_stdout.store(true, Ordering::Relaxed);
    }

    /// Says what was done; not a result, so nothing that a program reads.
    pub(crate) fn note(&self, message: impl Display) {
        if !self.quiet {
            self.line_after("", &message.to_string());
        }
    }

    /// Says that another process has the store.
    pub(crate) fn waiting(&self, holder: &str) {
        self.note(format!("waiting for {holder} to release the store"));
    }

    /// Warns, unless only results and errors are wanted.
    pub(crate) fn warn(&self, message: impl Display) {
        if !self.quiet {
            self.line_after(&self.paint("33", "warning:"), &message.to_string());
        }
    }

    /// Prints an error with its hints and returns the exit code for it. Programs get it on stdout as well, unless the
    /// result is there already or stdout is for data.
    pub(crate) fn failure(&self, error: &CliError) -> ExitCode {
        let taken =
            [&self.has_result, &self.data_on_stdout].iter().any(|taken| taken.load(Ordering::Relaxed));
        if self.is_json() && !taken {
            json_error(error);
        }
        self.line_after(&self.paint("31", "error:"), &error.to_string());
        ExitCode::from(error.kind as u8)
    }

    /// A bar over `total` bytes with rate and time left; invisible where no terminal looks.
    pub(crate) fn bytes_bar(&self, what: &'static str, total: u64) -> ProgressBar {
        let style = ProgressStyle::with_template(
            "{msg:>10} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta} left",
        )
        .expect("the template is constant and valid")
        .progress_chars("=> ");
        self.bars.add(ProgressBar::new(total).with_style(style).with_message(what))
    }

    /// A counter over `total` things.
    pub(crate) fn count_bar(&self, what: &'static str, total: u64) -> ProgressBar {
        let style = ProgressStyle::with_template("{msg:>10} [{bar:30}] {pos}/{len} {eta} left")
            .expect("the template is constant and valid")
            .progress_chars("=> ");
        let bar = self.bars.add(ProgressBar::new(total).with_style(style).with_message(what));
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[1;{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Writes a line to stderr without tearing a progress bar. A closed stderr is nobody's error.
    fn line_after(&self, label: &str, text: &str) {
        let space = if label.is_empty() { "" } else { " " };
        self.bars.suspend(|| {
            let _ = writeln!(io::stderr(), "{label}{space}{}", harmless(text));
        });
    }
}

/// The text without what would steer a terminal or show words in another order than they have: names and messages come
/// from bundles that nobody has verified yet.
fn harmless(text: &str) -> Cow<'_, str> {
    let steers = |c: char| {
        let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        turns || (c.is_control() && !matches!(c, '\n' | '\t'))
    };
    if text.contains(steers) { text.replace(steers, "\u{fffd}").into() } else { text.into() }
}

/// Prints a part of a result that comes in parts.
pub(crate) fn text(text: &str) -> Result<(), CliError> {
    write_stdout(&harmless(&format!("{text}\n")))
}

/// Writes to stdout; a reader that has gone away (`dray images | head`) ends the command quietly.
fn write_stdout(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(CliError::from),
    }
}

/// Prints clap's answer: help and version to stdout with code 0, wrong usage to stderr with code 2, and for programs to
/// stdout as well. `variables` are those that may have given flags that nobody typed,
/// `tip` says how the command line could be meant.
pub(crate) fn usage(
    error: &clap::Error,
    variables: &BTreeSet<String>,
    tip: Option<String>,
    json: bool,
) -> ExitCode {
    let _ = error.print();
    if !error.use_stderr() {
        return ExitCode::SUCCESS;
    }
    let text = error.to_string();
    let mut told = CliError::usage(text.strip_prefix("error: ").unwrap_or(&text).trim_end());
    let is_conflict = error.kind() == clap::error::ErrorKind::ArgumentConflict && !variables.is_empty();
    let conflict = is_conflict.then(|| {
        let set = variables.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        format!("flags also come from these environment variables: {set}")
    });
    for hint in conflict.into_iter().chain(tip) {
        let _ = writeln!(io::stderr(), "\n  hint: {hint}");
        told = told.hint(hint);
    }
    if json {
        json_error(&told);
    }
    ExitCode::from(Kind::Usage as u8)
}

/// Prints an error for programs. It is on stderr too, so that a closed stdout hides nothing.
fn json_error(error: &CliError) {
    let _ = write_stdout(&format!("{:#}\n", error.to_json()));
}

/// Bytes as a person reads them: `1.5 GB`, decimal as on the boxes that media come in.
pub(crate) fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut divisor = 1u64;
    let mut unit = 0;
    while unit + 1 < UNITS.len() && bytes / divisor >= 1000 {
        divisor *= 1000;
        unit += 1;
    }
    if unit == 0 {
        return format!("{bytes} B");
    }
    let tenths = (u128::from(bytes) * 10 + u128::from(divisor) / 2) / u128::from(divisor);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// Columns padded to their widest cell; the first row is the heading.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_for_people() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (1_550_000, "1.6 MB"),
            (4_700_000_000, "4.7 GB"),
            (u64::MAX, "18446744.1 TB"),
        ] {
            assert_eq!(human_bytes(bytes), text);
        }
    }

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(harmless("a\tb\nä"), "a\tb\nä");
        assert_eq!(harmless("\u{1b}[2J\u{202e}x\r\u{9b}"), "\u{fffd}[2J\u{fffd}x\u{fffd}\u{fffd}");
    }

    #[test]
    fn tables_line_up() {
        let rows = vec![vec!["A".into(), "B".into()], vec!["long".into(), "x".into()]];
        assert_eq!(table(&rows), "A     B\nlong  x\n");
    }
}
