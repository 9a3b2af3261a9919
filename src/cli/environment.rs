//! Flags from environment variables: `--store` can be given as `DRAY_STORE`.
//!
//! A flag on the command line beats a variable, also one that it excludes: with `DRAY_STORE` set, `dray check --lock x`
//! looks at the lock. An empty variable counts as not set. What a variable holds is never printed.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, Error, Id};

/// Flags whose values mean something else than those of the same flag of other commands, with their own variables.
const OWN_VARIABLES: [(&str, &str, &str); 1] = [("node-config", "host", "DRAY_NODE_CONFIG_HOST")];

/// Lets every flag of `command`, and of its subcommands, be given as `DRAY_<FLAG>` as well, unless a flag in
/// `arguments` excludes it.
pub(super) fn with_environment(command: Command, arguments: &[OsString]) -> Command {
    let lenient = command.clone().ignore_errors(true).try_get_matches_from(arguments);
    add(command, lenient.as_ref().ok())
}

fn add(command: Command, typed: Option<&ArgMatches>) -> Command {
    let name = command.get_name().to_owned();
    let excluded = typed.map(|matches| excluded(&command, matches)).unwrap_or_default();
    command
        .mut_args(|arg| {
            let Some(variable) = variable(&name, &arg) else { return arg };
            let is_empty = std::env::var_os(&variable).is_some_and(|value| value.is_empty());
            let arg = match arg.get_action() {
                ArgAction::SetTrue => arg.value_parser(Switch),
                _ => arg,
            };
            if is_empty || excluded.contains(arg.get_id()) {
                return arg;
            }
            arg.env(variable).hide_env_values(true)
        })
        .mut_subcommands(|subcommand| {
            let below = typed.and_then(ArgMatches::subcommand);
            let typed = below.filter(|(name, _)| *name == subcommand.get_name()).map(|(_, matches)| matches);
            add(subcommand, typed)
        })
}

/// Returns the variable of a flag, or `None` for what is no flag or has none.
fn variable(command: &str, arg: &Arg) -> Option<String> {
    let long = arg.get_long().filter(|long| !matches!(*long, "help" | "version"))?;
    let own = OWN_VARIABLES.iter().find(|(of, flag, _)| *of == command && *flag == long);
    let general = || format!("DRAY_{}", long.to_uppercase().replace('-', "_"));
    Some(own.map_or_else(general, |(.., variable)| (*variable).to_owned()))
}

/// Returns the flags that cannot be used with what was typed.
fn excluded(command: &Command, typed: &ArgMatches) -> BTreeSet<Id> {
    let is_typed = |id: &Id| {
        typed.try_contains_id(id.as_str()).is_ok()
            && typed.value_source(id.as_str()) == Some(ValueSource::CommandLine)
    };
    let mut excluded = BTreeSet::new();
    for arg in command.get_arguments() {
        for other in command.get_arg_conflicts_with(arg) {
            // An exclusion is stated on one side only.
            for (one, two) in [(arg.get_id(), other.get_id()), (other.get_id(), arg.get_id())] {
                if is_typed(one) && !is_typed(two) {
                    excluded.insert(two.clone());
                }
            }
        }
    }
    for group in command.get_groups().filter(|group| !(*group).clone().is_multiple()) {
        let (typed, others): (Vec<&Id>, Vec<&Id>) = group.get_args().partition(|id| is_typed(id));
        if !typed.is_empty() {
            excluded.extend(others.into_iter().cloned());
        }
    }
    excluded
}

/// Returns the variables that are set and may have given flags to `command`.
pub(super) fn variables_set(command: &Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter_map(|arg| variable(command.get_name(), arg));
    let set = own.filter(|variable| std::env::var_os(variable).is_some_and(|value| !value.is_empty()));
    set.chain(command.get_subcommands().flat_map(variables_set)).collect()
}

/// Reads a switch. clap's own parser repeats what it cannot read, which may be a secret in the wrong variable.
#[derive(Clone)]
struct Switch;

impl TypedValueParser for Switch {
    type Value = bool;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<bool, Error> {
        let text = value.to_str().unwrap_or_default().to_ascii_lowercase();
        match text.as_str() {
            "true" | "yes" | "on" | "y" | "t" | "1" => Ok(true),
            "false" | "no" | "off" | "n" | "f" | "0" => Ok(false),
            _ => {
                let flag = arg.and_then(Arg::get_long).unwrap_or_default();
                let variable = arg.and_then(|arg| variable(command.get_name(), arg)).unwrap_or_default();
                let message = format!("--{flag} is a switch: set {variable} to true or false\n");
                Err(command.clone().error(ErrorKind::InvalidValue, message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    fn for_each(command: &Command, check: &mut dyn FnMut(&Command, &Arg)) {
        command.get_arguments().for_each(|arg| check(command, arg));
        command.get_subcommands().for_each(|subcommand| for_each(subcommand, check));
    }

    #[test]
    fn arguments_are_consistent() {
        with_environment(Cli::command(), &[]).debug_assert();
    }

    #[test]
    fn every_flag_has_its_variable() {
        for_each(&with_environment(Cli::command(), &[]), &mut |_, arg| {
            let is_flag = arg.get_long().is_some_and(|long| !matches!(long, "help" | "version"));
            assert_eq!(is_flag, arg.get_env().is_some(), "{}", arg.get_id());
        });
    }

    #[test]
    fn variable_means_one_thing() {
        // `-o` names what the command writes, whatever that is.
        const SAME: [&str; 1] = ["output"];
        let mut meanings: BTreeMap<String, (String, String)> = BTreeMap::new();
        for_each(&Cli::command(), &mut |command, arg| {
            let Some(variable) = variable(command.get_name(), arg) else { return };
            if arg.get_long().is_some_and(|long| SAME.contains(&long)) {
                return;
            }
            let form = |text: &str| if text.contains('=') { "pair" } else { "value" }.to_owned();
            let names = arg.get_value_names().unwrap_or_default();
            let meaning =
                (form(names.first().map_or("", |name| name.as_str())), format!("{:?}", arg.get_action()));
            let known = meanings.entry(variable.clone()).or_insert_with(|| meaning.clone());
            assert_eq!(known.0, meaning.0, "{variable} of {}", command.get_name());
        });
    }

    #[test]
    fn typed_flag_excludes_variables_of_its_group() {
        let command = Cli::command();
        let typed = |line: &str| {
            let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let matches = Cli::command().ignore_errors(true).try_get_matches_from(arguments).unwrap();
            let (name, matches) = matches.subcommand().map(|(n, m)| (n.to_owned(), m.clone())).unwrap();
            let subcommand = command.find_subcommand(&name).unwrap().clone();
            excluded(&subcommand, &matches).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            typed("dray check --to k0s@v1.36.3+k0s.2 --nodes n --lock l"),
            ["bundle", "registry", "store"]
        );
        assert!(typed("dray import b --to r.test/p --trust k").contains(&"store".to_owned()));
        assert!(typed("dray serve --bundle b").contains(&"store".to_owned()));
        assert!(typed("dray import b --store s").contains(&"to".to_owned()));
    }
}
