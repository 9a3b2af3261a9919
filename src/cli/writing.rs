//! What the commands that change a store have in common: how long they wait for it, and who runs them.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use dray::store::{Author, Patience};
use dray::trust::PrivateKey;

/// How long to wait while another process changes the store.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Wait {
    /// Wait up to DURATION while another process changes the store: 90s, 5m; 0 does not wait
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub(crate) wait: Duration,
}

impl Wait {
    /// Waits that long, and calls `waiting` with the other process when it takes more than a moment.
    pub(crate) fn patience<'a>(&self, waiting: &'a (dyn Fn(&str) + Sync)) -> Patience<'a> {
        Patience { limit: self.wait, waiting }
    }
}

/// Reads `90s`, `5m`, `1h 30m`, or a number of seconds.
fn parse_duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.trim().parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let span = text.parse::<jiff::SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok());
    span.ok_or_else(|| "expected a duration such as 90s, 5m or 0".to_owned())
}

/// Who runs a command, and the key that signs its receipts.
pub(crate) struct Operator {
    user: Option<String>,
    key: Option<Arc<PrivateKey>>,
}

impl Operator {
    /// The user as the environment names it, the one behind `sudo` first.
    pub(crate) fn new(key: Option<Arc<PrivateKey>>) -> Self {
        let names = ["SUDO_USER", "USER", "LOGNAME", "USERNAME"].map(std::env::var);
        let user = names.into_iter().flatten().find(|name| !name.is_empty());
        Self { user: user.map(|name| name.chars().take(200).collect()), key }
    }

    /// The author of a receipt that is written now.
    pub(crate) fn author(&self) -> Author<'_> {
        Author { user: self.user.as_deref(), now: jiff::Timestamp::now(), key: self.key.as_deref() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_seconds_or_have_units() {
        for (text, seconds) in [("0", 0), ("0s", 0), ("90", 90), ("90s", 90), ("5m", 300), ("1h 30m", 5400)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "soon", "-1", "-5s", "1 fortnight"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
