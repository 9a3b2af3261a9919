//! Credential helpers: programs named `docker-credential-…` that keep secrets outside of files.
//!
//! Protocol: docker/docker-credential-helpers `credentials/credentials.go`. The server's name goes to the program's
//! standard input, JSON or an error message comes back on its standard output.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use zeroize::Zeroizing;

use super::credential::{Credential, Secret};

/// How long a helper may take; some ask a person.
const TIMEOUT: Duration = Duration::from_mins(1);
/// The longest answer of a helper, in bytes.
const MAX_ANSWER: u64 = 64 * 1024;
/// What a helper answers when it has nothing for a server.
const NOT_FOUND: &str = "credentials not found";
/// The user name that stands for an identity token in place of a password.
const TOKEN_USER: &str = "<token>";

/// Why a credential helper gave no answer. What it printed is left out: it may be a secret.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// Its name is not the end of a program's name.
    #[error("`{0}` is not the name of a credential helper (letters, digits, - _ and .)")]
    Name(String),
    /// It cannot be run.
    #[error("docker-credential-{name} cannot be run: {error}")]
    Run {
        /// The helper.
        name: String,
        /// What the system says.
        error: io::Error,
    },
    /// It ended with an error.
    #[error("docker-credential-{name} ended with {status}")]
    Failed {
        /// The helper.
        name: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// It did not end in time.
    #[error("docker-credential-{name} gave no answer within {} s", TIMEOUT.as_secs())]
    TimedOut {
        /// The helper.
        name: String,
    },
    /// Its answer is not what the protocol says.
    #[error("docker-credential-{name} gave an answer that is not understood")]
    Answer {
        /// The helper.
        name: String,
    },
}

impl HelperError {
    /// What an operator may do about it.
    pub(super) fn hint(&self, server: &str) -> Option<String> {
        match self {
            Self::Name(_) => None,
            Self::Run { name, .. } => Some(format!(
                "install docker-credential-{name} where PATH finds it, or point REGISTRY_AUTH_FILE at a file that \
                 needs no helper"
            )),
            Self::Failed { name, .. } | Self::TimedOut { name } | Self::Answer { name } => {
                Some(format!("`echo {server} | docker-credential-{name} get` shows what it answers"))
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: Secret,
}

/// Asks the helper `name` about `server`; nothing when it knows of none.
pub(super) async fn get(name: &str, server: &str) -> Result<Option<Credential>, HelperError> {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || !name.bytes().all(is_word) {
        return Err(HelperError::Name(name.chars().take(80).collect()));
    }
    ask(Path::new(&format!("docker-credential-{name}")), name, server).await
}

async fn ask(program: &Path, name: &str, server: &str) -> Result<Option<Credential>, HelperError> {
    let (status, output) = match tokio::time::timeout(TIMEOUT, run(program, server)).await {
        Ok(Ok(ended)) => ended,
        Ok(Err(error)) => return Err(HelperError::Run { name: name.into(), error }),
        Err(_) => return Err(HelperError::TimedOut { name: name.into() }),
    };
    if !status.success() {
        let said = String::from_utf8_lossy(&output);
        return if said.contains(NOT_FOUND) {
            Ok(None)
        } else {
            Err(HelperError::Failed { name: name.into(), status })
        };
    }
    let answer: Answer =
        serde_json::from_slice(&output).map_err(|_| HelperError::Answer { name: name.into() })?;
    Ok(Some(if answer.username == TOKEN_USER {
        Credential::Identity(answer.secret)
    } else {
        Credential::Password { user: answer.username, password: answer.secret }
    }))
}

/// Runs the helper to its end; one that is still running when this is dropped is killed.
async fn run(program: &Path, server: &str) -> io::Result<(ExitStatus, Zeroizing<Vec<u8>>)> {
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(format!("{server}\n").as_bytes()).await {
            // A helper with one fixed answer need not read the question.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            result => result?,
        }
    }
    let mut output = Zeroizing::new(Vec::new());
    if let Some(stdout) = child.stdout.take() {
        // The other end is closed with the answer cut off, so that an endless one does not parse.
        stdout.take(MAX_ANSWER).read_to_end(&mut output).await?;
    }
    Ok((child.wait().await?, output))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the script `testdata/docker-credential-<name>`.
    async fn ask_script(name: &str, server: &str) -> Result<Option<Credential>, HelperError> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/upstream/testdata");
        ask(&folder.join(format!("docker-credential-{name}")), name, server).await
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn speaks_the_protocol() {
        let Some(Credential::Password { user, password }) = ask_script("table", "ghcr.io").await.unwrap()
        else {
            panic!("no password");
        };
        assert_eq!((user.as_str(), password.reveal()), ("robot", "s3cret"));
        let token = ask_script("table", "acr.example").await.unwrap();
        assert!(matches!(token, Some(Credential::Identity(token)) if token.reveal() == "refresh"));
        assert!(ask_script("table", "quay.io").await.unwrap().is_none());
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn failures_show_no_output() {
        let error = ask_script("table", "locked.example").await.unwrap_err();
        assert!(matches!(error, HelperError::Failed { .. }));
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
        assert!(error.hint("locked.example").unwrap().contains("docker-credential-table get"));
        let error = ask_script("endless", "ghcr.io").await.unwrap_err();
        assert!(matches!(error, HelperError::Answer { .. } | HelperError::Failed { .. }), "{error}");
    }

    #[tokio::test]
    async fn names_never_leave_the_path() {
        for bad in ["", "../evil", "a/b", "a b", "x;rm"] {
            assert!(matches!(get(bad, "ghcr.io").await, Err(HelperError::Name(_))), "{bad}");
        }
    }

    #[tokio::test]
    async fn absent_helpers_are_named() {
        let error = get("dray-test-absent", "ghcr.io").await.unwrap_err();
        assert!(error.to_string().contains("docker-credential-dray-test-absent cannot be run"), "{error}");
        assert!(error.hint("ghcr.io").unwrap().contains("PATH"));
    }
}
