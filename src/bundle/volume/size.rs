//! How large volumes may be, as a person states it.

use std::fmt;
use std::str::FromStr;

/// The size of a medium, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VolumeSize(u64);

/// Media by name. A file system on an optical disc takes a little of it, so these are not the whole capacity.
const NAMED: [(&str, u64); 3] = [
    // 360,000 sectors of 2048 bytes, less 1 %.
    ("cd", 729_907_200),
    // 2,295,104 sectors of 2048 bytes, the smaller of DVD-R and DVD+R, less 1 %.
    ("dvd", 4_653_368_320),
    // The largest file that FAT32 has: 4 GiB less one byte.
    ("fat32", 4_294_967_295),
];

const UNITS: [(&str, u64); 9] = [
    ("kb", 1000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("b", 1),
];

/// Why a text is no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a size: write 700MB, 4.7GB, 1GiB, or one of cd, dvd, fat32")]
pub struct ParseVolumeSizeError(String);

impl VolumeSize {
    /// A size of so many bytes.
    pub fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for VolumeSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}B", self.0)
    }
}

impl FromStr for VolumeSize {
    type Err = ParseVolumeSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseVolumeSizeError(text.chars().take(40).collect());
        let lower = text.trim().to_ascii_lowercase();
        if let Some((_, bytes)) = NAMED.iter().find(|(name, _)| *name == lower) {
            return Ok(Self(*bytes));
        }
        let unit = UNITS.iter().find(|(unit, _)| lower.ends_with(unit)).ok_or_else(error)?;
        let number = lower[..lower.len() - unit.0.len()].trim_end();
        times(number, unit.1).filter(|bytes| *bytes > 0).map(Self).ok_or_else(error)
    }
}

/// The decimal `number` times `unit`, rounded down; exact, as floating point is not.
fn times(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits =
        |text: &str| !text.is_empty() && text.len() <= 18 && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let part = fraction.parse::<u128>().ok()? * u128::from(unit) / scale;
    whole.checked_add(u64::try_from(part).ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(text: &str) -> Option<u64> {
        text.parse::<VolumeSize>().ok().map(VolumeSize::bytes)
    }

    #[test]
    fn sizes_as_people_write_them() {
        for (text, expected) in [
            ("4.7GB", 4_700_000_000),
            ("700MB", 700_000_000),
            ("700 mb", 700_000_000),
            ("1GiB", 1 << 30),
            ("0.5KiB", 512),
            ("1.0000000001GB", 1_000_000_000),
            ("512B", 512),
            ("DVD", 4_653_368_320),
            ("cd", 729_907_200),
            ("fat32", (1 << 32) - 1),
        ] {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
        let wrong = [
            "",
            "700",
            "GB",
            "-1GB",
            "1e3MB",
            ".5GB",
            "5.GB",
            "1,5GB",
            "0MB",
            "1GBB",
            "99999999999TB",
            "usb",
            "0.1B",
        ];
        for text in wrong {
            assert_eq!(bytes(text), None, "{text}");
        }
        assert!("x".repeat(100).parse::<VolumeSize>().unwrap_err().to_string().contains("fat32"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in ".{0,30}") {
            let _ = bytes(&text);
        }

        #[test]
        fn what_it_writes_it_reads(size in 1u64..1 << 59) {
            prop_assert_eq!(bytes(&VolumeSize::from_bytes(size).to_string()), Some(size));
        }

        #[test]
        fn a_fraction_is_at_most_one_unit_more(whole in 0u64..1000, fraction in 0u64..1_000_000) {
            let text = format!("{whole}.{fraction:06}MB");
            prop_assert_eq!(bytes(&text).unwrap_or(0), whole * 1_000_000 + fraction);
        }
    }
}
