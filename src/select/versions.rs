//! Windows versions as container runtimes compare them.

use std::ops::RangeInclusive;

/// Windows Server 2022, the first release whose container ABI is stable.
const LTSC2022: u16 = 20348;
/// Windows Server 2025.
const LTSC2025: u16 = 26100;

/// The first three parts of an `os.version`, the most that decides whether an image matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    major: u8,
    minor: u8,
    build: u16,
}

impl Version {
    /// Reads three or more parts; none when there are fewer, or when one of the three is not a number in
    /// range.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        Some(Self {
            major: parts.next()?.parse().ok()?,
            minor: parts.next()?.parse().ok()?,
            build: parts.next()?.parse().ok()?,
        })
    }

    pub(super) fn build(self) -> u16 {
        self.build
    }
}

/// An `os.version` without its fourth part, the revision.
pub(super) fn first_three(text: &str) -> &str {
    text.match_indices('.').nth(2).map_or(text, |(at, _)| &text[..at])
}

/// The fourth part of an `os.version`, the revision (UBR); 0 where there is none.
pub(super) fn revision(text: &str) -> u64 {
    text.split('.').nth(3).and_then(|part| part.parse().ok()).unwrap_or(0)
}

/// The oldest build that a host from Windows Server 2022 on accepts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Floor {
    /// 20348 for every host: Windows Server 2022 was the only release with a stable ABI that the code knew.
    Ltsc2022,
    /// The newest long-term release strictly below the host, so a 26200 host refuses 2022 images.
    BelowHost,
    /// The long-term release before the one that the host's generation began with.
    PreviousGeneration,
}

/// The builds that a host of `build` accepts. Before Windows Server 2022 only the host's own.
pub(super) fn accepted(build: u16, floor: Floor) -> RangeInclusive<u16> {
    if build < LTSC2022 {
        return build..=build;
    }
    let oldest = match floor {
        Floor::BelowHost if build > LTSC2025 => LTSC2025,
        // The generation of Windows Server 2025 began with 26100, and the one before it with 20348.
        Floor::Ltsc2022 | Floor::BelowHost | Floor::PreviousGeneration => LTSC2022,
    };
    oldest..=build
}

/// Whether a host accepts an image, as containerd and hcsshim compare the two.
pub(super) fn compatible(host: Version, image: Version, floor: Floor) -> bool {
    host.major == image.major
        && host.minor == image.minor
        && accepted(host.build, floor).contains(&image.build)
}

/// What people call a build.
pub(super) fn release_name(build: u16) -> Option<&'static str> {
    Some(match build {
        14393 => "2016",
        17763 => "2019",
        18362 => "1903",
        18363 => "1909",
        19041 => "2004",
        19042 => "20H2",
        LTSC2022 => "2022",
        25398 => "23H2",
        LTSC2025 => "2025",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_three_parts() {
        assert_eq!(Version::parse("10.0.20348.2527"), Version::parse("10.0.20348"));
        for bad in ["", "10.0", "10.0.x", "10.0.70000", "300.0.1", "10..1"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
        assert_eq!(first_three("10.0.20348.2527"), "10.0.20348");
        assert_eq!(first_three("10.0.20348"), "10.0.20348");
        assert_eq!(revision("10.0.20348.2527"), 2527);
        assert_eq!(revision("10.0.20348"), 0);
        assert_eq!(revision("10.0.20348.x"), 0);
    }

    #[test]
    fn floors_differ_beyond_2025_only() {
        for (host, floor, oldest) in [
            (17763, Floor::BelowHost, 17763),
            (20348, Floor::Ltsc2022, 20348),
            (20348, Floor::BelowHost, 20348),
            (26100, Floor::BelowHost, 20348),
            (26100, Floor::PreviousGeneration, 20348),
            (26200, Floor::Ltsc2022, 20348),
            (26200, Floor::BelowHost, 26100),
            (26200, Floor::PreviousGeneration, 20348),
        ] {
            assert_eq!(*accepted(host, floor).start(), oldest, "{host} {floor:?}");
        }
    }

    proptest! {
        #[test]
        fn a_host_always_accepts_its_own_build_and_never_a_newer_one(build: u16, newer: u16) {
            for floor in [Floor::Ltsc2022, Floor::BelowHost, Floor::PreviousGeneration] {
                let range = accepted(build, floor);
                prop_assert!(range.contains(&build));
                prop_assert!(newer <= build || !range.contains(&newer));
            }
        }

        #[test]
        fn never_panics(text in ".{0,40}") {
            let _ = Version::parse(&text);
            let _ = revision(&text);
            prop_assert!(text.starts_with(first_three(&text)));
        }
    }
}
