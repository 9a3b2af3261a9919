//! How much of a bundle may be lost, as a person states it.

use std::fmt;
use std::str::FromStr;

use crate::bundle::volume::MAX_BLOCKS;

/// The share of a bundle that may be lost, in percent: 1 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ParityShare(u8);

/// Why a text is no share.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a share: write a whole number of percent from 1% to 100%")]
pub struct ParseParityShareError(String);

impl ParityShare {
    /// The share in percent.
    pub fn percent(self) -> u8 {
        self.0
    }

    /// How many recovery blocks `blocks` blocks need. One more than the share: a damaged range seldom begins where a block
    /// does.
    pub(in crate::bundle) fn of(self, blocks: u64) -> u64 {
        if blocks == 0 {
            return 0;
        }
        ((blocks * u64::from(self.0)).div_ceil(100) + 1).min(MAX_BLOCKS)
    }
}

impl fmt::Display for ParityShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl FromStr for ParityShare {
    type Err = ParseParityShareError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.trim().strip_suffix('%').map(str::trim_end);
        let digits = number.filter(|number| number.bytes().all(|b| b.is_ascii_digit()));
        digits
            .and_then(|digits| digits.parse().ok())
            .filter(|percent| (1..=100).contains(percent))
            .map(Self)
            .ok_or_else(|| ParseParityShareError(text.chars().take(40).collect()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shares_as_people_write_them() {
        for (text, percent) in [("10%", 10), ("1%", 1), ("100%", 100), (" 7 % ", 7)] {
            assert_eq!(text.parse::<ParityShare>().unwrap().percent(), percent);
        }
        for text in ["", "10", "0%", "101%", "-1%", "1.5%", "+5%", "%", "1e1%"] {
            assert!(text.parse::<ParityShare>().is_err(), "{text}");
        }
        let share: ParityShare = "10%".parse().unwrap();
        assert_eq!(
            [share.of(0), share.of(1), share.of(10), share.of(11), share.of(16_384)],
            [0, 2, 2, 3, 1640]
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in ".{0,20}") {
            let _ = text.parse::<ParityShare>();
        }
    }
}
