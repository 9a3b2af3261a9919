//! The command line: one file per subcommand, each of which parses its arguments, calls the library and prints.
//!
//! Everything that touches the terminal, the environment or the process lives here, so that the library can be used
//! by other programs.

mod build;
mod bundles;
mod check;
mod clock;
mod demo;
mod diff;
mod environment;
mod error;
mod explain;
mod export;
mod global;
mod images;
mod import;
mod inputs;
mod inspect;
mod inventory;
mod keygen;
mod lock;
mod log;
mod node_config;
mod output;
mod passphrase;
mod plan;
mod prepull;
mod problems;
mod prune;
mod push;
mod releases;
mod repair;
mod runtime;
mod scrub;
mod serve;
mod sign;
mod since;
mod target;
mod tips;
mod tls;
mod upgrade_plan;
mod upstream;
mod verify;
mod wants;
mod writing;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use self::error::CliError;
use self::global::Global;
use self::runtime::Context;

/// Carries container images across an air gap.
///
/// On a connected machine dray resolves what a Kubernetes release needs, per version, per operating system and per
/// Windows build, and builds one signed bundle. At the site it verifies, imports and serves the bundle as a registry.
#[derive(Parser)]
#[command(name = "dray", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Start with `dray demo`: the whole round trip on this machine, without a network.")]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Demo),
    Releases(releases::Releases),
    Images(images::Images),
    Explain(explain::Explain),
    Lock(lock::LockCommand),
    Plan(plan::Plan),
    Build(build::Build),
    Inspect(inspect::Inspect),
    Diff(diff::Diff),
    Verify(verify::Verify),
    Import(import::Import),
    Log(log::Log),
    Serve(serve::Serve),
    Inventory(inventory::InventoryCommand),
    Check(check::Check),
    Wants(wants::WantsCommand),
    Keygen(keygen::Keygen),
    Sign(sign::Sign),
    Repair(repair::RepairCommand),
    NodeConfig(node_config::NodeConfig),
    Prune(prune::Prune),
    Scrub(scrub::Scrub),
    Tls(tls::TlsCommand),
    Export(export::Export),
    Prepull(prepull::Prepull),
    UpgradePlan(upgrade_plan::UpgradePlanCommand),
}

impl Command {
    fn run(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::Demo(command) => command.run(context),
            Self::Releases(command) => command.run(context),
            Self::Images(command) => command.run(context),
            Self::Explain(command) => command.run(context),
            Self::Lock(command) => command.run(context),
            Self::Plan(command) => command.run(context),
            Self::Build(command) => command.run(context),
            Self::Inspect(command) => command.run(context),
            Self::Diff(command) => command.run(context),
            Self::Verify(command) => command.run(context),
            Self::Import(command) => command.run(context),
            Self::Log(command) => command.run(context),
            Self::Serve(command) => command.run(context),
            Self::Inventory(command) => command.run(context),
            Self::Check(command) => command.run(context),
            Self::Wants(command) => command.run(context),
            Self::Keygen(command) => command.run(context),
            Self::Sign(command) => command.run(context),
            Self::Repair(command) => command.run(context),
            Self::NodeConfig(command) => command.run(context),
            Self::Prune(command) => command.run(context),
            Self::Scrub(command) => command.run(context),
            Self::Tls(command) => command.run(context),
            Self::Export(command) => command.run(context),
            Self::Prepull(command) => command.run(context),
            Self::UpgradePlan(command) => command.run(context),
        }
    }
}

/// Runs the command that the process was started with.
pub(crate) fn run() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let mut command = environment::with_environment(Cli::command(), &arguments);
    let parsed = command
        .try_get_matches_from_mut(&arguments)
        .and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, target::inputs(&matches))))
        .map_err(|error| error.format(&mut command));
    let (cli, inputs) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            let variables = environment::variables_set(&command);
            let tip = tips::missing_flag(&error, &command, &arguments);
            return output::usage(&error, &variables, tip, asks_for_json(&arguments));
        }
    };
    let context = Context::new(cli.global, inputs);
    match cli.command.run(&context) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => context.output.failure(&error),
    }
}

/// Returns whether a command line that cannot be read asks for JSON all the same.
fn asks_for_json(arguments: &[OsString]) -> bool {
    let typed = arguments.iter().map(|argument| argument.to_string_lossy());
    let mut typed = typed.skip(1).take_while(|argument| argument != "--");
    let mut wanted = std::env::var("DRAY_FORMAT").ok();
    while let Some(argument) = typed.next() {
        match argument.strip_prefix("--format") {
            Some("") => wanted = typed.next().map(Into::into),
            Some(value) if value.starts_with('=') => wanted = Some(value[1..].to_owned()),
            _ => {}
        }
    }
    wanted.as_deref() == Some("json")
}

#[cfg(test)]
#[path = "../../tests/outputs/args.rs"]
mod outputs;

#[cfg(test)]
mod tests {
    use std::any::TypeId;

    use clap::{ArgAction, Command as Page};

    use super::*;

    /// Calls `check` with the words of every command and its page, `dray` first.
    fn for_each_page(page: &Page, words: &str, check: &mut dyn FnMut(&str, &Page)) {
        check(words, page);
        for subcommand in page.get_subcommands() {
            for_each_page(subcommand, &format!("{words} {}", subcommand.get_name()), check);
        }
    }

    #[test]
    fn every_output_is_examined_and_tested() {
        let mut found = Vec::new();
        for_each_page(&Cli::command(), "dray", &mut |words, page| {
            for arg in page.get_arguments() {
                let long = arg.get_long().unwrap_or_default();
                let is_output = arg.get_value_parser().type_id() == TypeId::of::<target::OutputPath>();
                let sounds_so = long == "output" || long.ends_with("-out") || arg.get_short() == Some('o');
                assert!(
                    is_output || !sounds_so,
                    "{words} --{long} is an output, and must be an `OutputPath`"
                );
                if is_output {
                    let command = words.strip_prefix("dray ").unwrap_or_default();
                    found.push((command.to_owned(), arg.get_id().to_string()));
                }
            }
        });
        found.sort();
        let listed = outputs::OUTPUTS.iter().map(|(command, flag, _)| ((*command).into(), (*flag).into()));
        assert_eq!(
            found,
            listed.collect::<Vec<(String, String)>>(),
            "tests/outputs/args.rs lists every output"
        );
    }

    #[test]
    fn help_begins_with_a_short_imperative() {
        for_each_page(&Cli::command(), "dray", &mut |words, page| {
            let first = page.get_about().unwrap_or_default().to_string();
            assert!((10..=60).contains(&first.chars().count()), "{words}: {first}");
            let verb = first.split(' ').next().unwrap_or_default();
            assert!(!["Say", "What", "Whether", "Make", "How"].contains(&verb), "{words}: {first}");
        });
    }

    #[test]
    fn every_page_has_an_example() {
        for_each_page(&Cli::command(), "dray", &mut |words, page| {
            let examples = page.get_after_help().unwrap_or_default().to_string();
            // A page that only leads to others needs none.
            assert!(page.has_subcommands() || examples.contains(words), "{words}");
        });
    }

    #[test]
    fn repeatable_flags_say_so() {
        let mut silent = Vec::new();
        for_each_page(&Cli::command(), "dray", &mut |words, page| {
            for arg in page.get_arguments().filter(|arg| matches!(arg.get_action(), ArgAction::Append)) {
                let help = arg.get_help().unwrap_or_default().to_string();
                let long = arg.get_long_help().unwrap_or_default().to_string();
                let says = |text: &str| text.contains("may be repeated");
                if !(arg.is_positional() || says(&help) || says(&long)) {
                    silent.push(format!("{words} --{}", arg.get_long().unwrap_or_default()));
                }
            }
        });
        assert!(silent.is_empty(), "{silent:#?}");
    }
}
