//! Tips for command lines that were nearly right.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use dray::input::FileKind;

/// Returns the flag that a file needs that was typed without one, `dray lock plant.yaml`, if the command has such a flag.
pub(crate) fn missing_flag(
    error: &clap::Error,
    command: &clap::Command,
    arguments: &[OsString],
) -> Option<String> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidArg) else { return None };
    if typed.starts_with('-') && typed != "-" {
        return None;
    }
    let (command, name) = subcommand(command, arguments);
    let flag = fitting(typed).iter().find_map(|long| {
        let arg = command.get_arguments().find(|arg| arg.get_long() == Some(long))?;
        Some(arg.get_short().map_or_else(|| format!("--{long}"), |short| format!("-{short}")))
    })?;
    Some(format!("a file is given with a flag: `{name} {flag} {typed}`"))
}

/// The flags that a file like this may be for, the most likely first.
fn fitting(typed: &str) -> &'static [&'static str] {
    let path = Path::new(typed);
    if path.is_dir() {
        return &["store", "output", "bundle"];
    }
    let mut start = Vec::new();
    // Nothing is read of what might wait for a writer.
    if path.is_file() {
        let _ = File::open(path).and_then(|file| file.take(1024).read_to_end(&mut start));
    }
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match (FileKind::of(&start), extension) {
        (Some(FileKind::Bundle | FileKind::Volume), _) | (_, "tar") => &["bundle", "output"],
        (Some(FileKind::Json), _) | (_, "lock" | "json") => {
            &["lock", "definition", "nodes", "cluster-config"]
        }
        (_, "txt") => &["from-list", "definition"],
        (Some(FileKind::Pem), _) | (_, "pub") => &["trust"],
        _ => &["definition", "lock", "cluster-config"],
    }
}

/// The subcommand that was typed, with its name.
fn subcommand<'a>(mut command: &'a clap::Command, arguments: &[OsString]) -> (&'a clap::Command, String) {
    let mut name = command.get_name().to_owned();
    for argument in arguments.iter().skip(1) {
        if let Some(found) = argument.to_str().and_then(|argument| command.find_subcommand(argument)) {
            command = found;
            name = format!("{name} {}", found.get_name());
        }
    }
    (command, name)
}
