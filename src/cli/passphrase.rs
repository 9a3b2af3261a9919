//! Passphrases of private keys: from the environment for machines, from the terminal for people.

use std::io::{self, IsTerminal};

use zeroize::Zeroizing;

use super::error::CliError;

/// Where machines put the passphrase.
const VARIABLE: &str = "DRAY_KEY_PASSPHRASE";
/// Shorter ones fall to a guess, however slow each guess is.
const SHORTEST: usize = 8;

/// The passphrase that opens a key. What is typed is not shown.
pub(crate) fn ask(prompt: &str) -> Result<Zeroizing<String>, CliError> {
    let given = from_environment()?;
    given.map_or_else(|| typed(prompt), Ok)
}

/// The passphrase for a new key. A person types it twice.
pub(crate) fn choose() -> Result<Zeroizing<String>, CliError> {
    let passphrase = from_environment()?.map_or_else(typed_twice, Ok)?;
    if passphrase.chars().count() < SHORTEST {
        return Err(CliError::usage(format!("the passphrase has fewer than {SHORTEST} characters")));
    }
    Ok(passphrase)
}

fn from_environment() -> Result<Option<Zeroizing<String>>, CliError> {
    match std::env::var(VARIABLE) {
        Ok(passphrase) => Ok(Some(Zeroizing::new(passphrase))),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(CliError::usage(format!("{VARIABLE} is not text in UTF-8")))
        }
    }
}

fn typed_twice() -> Result<Zeroizing<String>, CliError> {
    let passphrase = typed("passphrase for the new key: ")?;
    if typed("once more: ")? == passphrase {
        Ok(passphrase)
    } else {
        Err(CliError::usage("the two passphrases differ"))
    }
}

fn typed(prompt: &str) -> Result<Zeroizing<String>, CliError> {
    if !io::stdin().is_terminal() {
        return Err(CliError::usage(
            "the private key needs a passphrase, and there is no terminal to ask at",
        )
        .hint(format!("put it into {VARIABLE}")));
    }
    let passphrase = rpassword::prompt_password(prompt).map_err(CliError::failed)?;
    Ok(Zeroizing::new(passphrase))
}
