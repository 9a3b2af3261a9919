//! Spellings of architectures, and the variants that stand in for one another.
//!
//! Runtimes fold `x86_64` into `amd64` before they compare, and a host falls back to older variants of its
//! architecture. What is folded and what falls back grew with containerd's platforms package.

use std::borrow::Cow;

use crate::oci::Platform;

/// A generation of containerd's platforms package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Era {
    /// Falls back between variants of `arm` only (containerd `platforms/compare.go@v1.4.13`).
    V1_4,
    /// … and from `amd64` to `386`, from `arm64` to `arm` (containerd `platforms/compare.go@v1.5.18`).
    V1_5,
    /// … and between levels of `amd64`; `amd64/v1` is `amd64` (containerd `platforms/compare.go@v1.6.39`,
    /// containerd/platforms v0.2.1).
    V1_6,
    /// … and between versions of `arm64` (containerd/platforms `compare.go@v1.0.0-rc.1`).
    V2_0,
}

/// Levels of amd64, best first; the plain one is the baseline.
const AMD64: &[&str] = &["v4", "v3", "v2", ""];
/// The only variant of 386.
const PLAIN: &[&str] = &[""];
/// Variants of 32-bit ARM, best first.
const ARM: &[&str] = &["v8", "v7", "v6", "v5"];
/// Versions of 64-bit ARM from 9.0 on, best first.
const ARM_V9: &[&str] = &["v9.7", "v9.6", "v9.5", "v9.4", "v9.3", "v9.2", "v9.1", "v9"];
/// Versions of 64-bit ARM up to 8.9, best first; the plain one is 8.0.
const ARM_V8: &[&str] = &["v8.9", "v8.8", "v8.7", "v8.6", "v8.5", "v8.4", "v8.3", "v8.2", "v8.1", ""];

/// A platform with its spellings folded, borrowed wherever the text already was as it should be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Folded<'a> {
    pub(super) os: Cow<'a, str>,
    pub(super) architecture: Cow<'a, str>,
    pub(super) variant: Cow<'a, str>,
}

impl<'a> Folded<'a> {
    /// Folds `platform` as `era` does; an empty operating system means the host's.
    ///
    /// Source: `normalizeOS` and `normalizeArch` in containerd/platforms `database.go`.
    pub(super) fn new(platform: &'a Platform, host_os: &'a str, era: Era) -> Self {
        let architecture = lower(&platform.architecture);
        let variant = lower(&platform.variant);
        let (architecture, variant) = match (&*architecture, &*variant) {
            ("i386", _) => ("386".into(), "".into()),
            ("x86_64" | "x86-64", _) if era < Era::V1_6 => ("amd64".into(), "".into()),
            ("x86_64" | "x86-64" | "amd64", "v1") if era >= Era::V1_6 => ("amd64".into(), "".into()),
            ("x86_64" | "x86-64", _) => ("amd64".into(), variant),
            ("aarch64" | "arm64", "8" | "v8") => ("arm64".into(), "".into()),
            ("aarch64" | "arm64", "v8.0") if era >= Era::V2_0 => ("arm64".into(), "".into()),
            ("aarch64" | "arm64", "9" | "9.0" | "v9.0") if era >= Era::V2_0 => ("arm64".into(), "v9".into()),
            ("aarch64", _) => ("arm64".into(), variant),
            ("armhf", _) | ("arm", "" | "7") => ("arm".into(), "v7".into()),
            ("armel", _) | ("arm", "6") => ("arm".into(), "v6".into()),
            ("arm", "5") => ("arm".into(), "v5".into()),
            ("arm", "8") => ("arm".into(), "v8".into()),
            _ => (architecture, variant),
        };
        let os = if platform.os.is_empty() { host_os.into() } else { lower(&platform.os) };
        let os = if os == "macos" { "darwin".into() } else { os };
        Self { os, architecture, variant }
    }

    /// Whether the two are the same.
    pub(super) fn is(&self, architecture: &str, variant: &str) -> bool {
        self.architecture == architecture && self.variant == variant
    }
}

fn lower(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_uppercase) { text.to_lowercase().into() } else { text.into() }
}

/// What a host runs: its own architecture and variant, then those that it falls back to, best first.
///
/// Source: `platformVector` in containerd/platforms `compare.go`.
pub(super) struct Vector<'a> {
    own: (&'a str, &'a str),
    fallbacks: [(&'static str, &'static [&'static str]); 3],
}

impl<'a> Vector<'a> {
    pub(super) fn new(host: &'a Folded<'_>, era: Era) -> Self {
        let architecture = &*host.architecture;
        let variant = &*host.variant;
        let none: (&str, &[&str]) = ("", &[]);
        let arm: (&str, &[&str]) = ("arm", ARM);
        let fallbacks = match architecture {
            "amd64" if era >= Era::V1_6 => [("amd64", after(AMD64, variant)), ("386", PLAIN), none],
            "amd64" if era == Era::V1_5 => [("386", PLAIN), none, none],
            "arm" => [("arm", after(ARM, variant)), none, none],
            "arm64" if era >= Era::V2_0 => {
                if let Some(at) = ARM_V9.iter().position(|v| *v == variant) {
                    // ARMv9.n contains ARMv8.(n+5), and nothing beyond ARMv8.9 exists.
                    let eight = at.saturating_sub(3);
                    [("arm64", &ARM_V9[at + 1..]), ("arm64", &ARM_V8[eight..]), arm]
                } else {
                    [("arm64", after(ARM_V8, variant)), arm, none]
                }
            }
            // Before 2.0 the variant was handed on to 32-bit ARM as it was, and `v9.1` is none there.
            "arm64" if era >= Era::V1_5 && !variant.contains('.') => [arm, none, none],
            _ => [none, none, none],
        };
        Self { own: (architecture, variant), fallbacks }
    }

    /// The place of `entry` in the order of preference, 0 for the host's own; none when the host cannot run
    /// it. The operating system is not looked at.
    pub(super) fn rank(&self, entry: &Folded<'_>) -> Option<usize> {
        if entry.is(self.own.0, self.own.1) {
            return Some(0);
        }
        let mut before = 1;
        for (architecture, variants) in self.fallbacks {
            if entry.architecture == architecture
                && let Some(at) = variants.iter().position(|variant| entry.variant == *variant)
            {
                return Some(before + at);
            }
            before += variants.len();
        }
        None
    }
}

/// The part of `order` behind `variant`; empty when `variant` is not in it.
fn after(order: &'static [&'static str], variant: &str) -> &'static [&'static str] {
    order.iter().position(|v| *v == variant).map_or(&[], |at| &order[at + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order<'e>(host: &str, era: Era, entries: &[&'e str]) -> Vec<&'e str> {
        let host = Platform::from_parts(host);
        let host = Folded::new(&host, "linux", era);
        let vector = Vector::new(&host, era);
        let mut found: Vec<(usize, &str)> = entries
            .iter()
            .filter_map(|text| {
                let entry = Platform::from_parts(text);
                vector.rank(&Folded::new(&entry, "linux", era)).map(|rank| (rank, *text))
            })
            .collect();
        found.sort_by_key(|(rank, _)| *rank);
        found.into_iter().map(|(_, text)| text).collect()
    }

    impl Platform {
        /// `arm/v7` as an index has it, nothing folded.
        fn from_parts(text: &str) -> Self {
            let (architecture, variant) = text.split_once('/').unwrap_or((text, ""));
            Self {
                os: "linux".into(),
                architecture: architecture.into(),
                variant: variant.into(),
                ..Self::default()
            }
        }
    }

    #[test]
    fn arm_falls_back_to_older_variants() {
        let entries = ["arm/v5", "arm", "arm/v6", "arm/v8", "arm64", "amd64"];
        assert_eq!(order("arm/v7", Era::V1_4, &entries), ["arm", "arm/v6", "arm/v5"]);
        assert_eq!(order("arm/v6", Era::V2_0, &entries), ["arm/v6", "arm/v5"]);
        assert_eq!(order("arm/v8", Era::V1_6, &entries), ["arm/v8", "arm", "arm/v6", "arm/v5"]);
        assert_eq!(order("arm/v5", Era::V1_6, &entries), ["arm/v5"]);
    }

    #[test]
    fn arm64_runs_arm_since_1_5() {
        let entries = ["arm/v7", "arm64/v8", "arm/v8"];
        assert_eq!(order("arm64", Era::V1_4, &entries), ["arm64/v8"]);
        assert_eq!(order("arm64", Era::V1_5, &entries), ["arm64/v8", "arm/v8", "arm/v7"]);
        assert_eq!(order("aarch64", Era::V2_0, &entries), ["arm64/v8", "arm/v8", "arm/v7"]);
    }

    #[test]
    fn arm64_versions_since_2_0() {
        let entries = ["arm64", "arm64/v8.5", "arm64/v8.6", "arm64/v8.9", "arm64/v9", "arm64/v9.1", "arm/v7"];
        assert_eq!(
            order("arm64/v9.1", Era::V2_0, &entries),
            ["arm64/v9.1", "arm64/v9", "arm64/v8.6", "arm64/v8.5", "arm64", "arm/v7"]
        );
        assert_eq!(
            order("arm64/v9.6", Era::V2_0, &entries),
            ["arm64/v9.1", "arm64/v9", "arm64/v8.9", "arm64/v8.6", "arm64/v8.5", "arm64", "arm/v7"]
        );
        assert_eq!(order("arm64/v8.5", Era::V2_0, &entries), ["arm64/v8.5", "arm64", "arm/v7"]);
        assert_eq!(order("arm64/v9.1", Era::V1_6, &entries), ["arm64/v9.1"]);
    }

    #[test]
    fn amd64_levels_since_1_6() {
        let entries = ["386", "amd64", "amd64/v2", "x86_64/v3", "amd64/v4"];
        assert_eq!(order("amd64/v3", Era::V1_6, &entries), ["x86_64/v3", "amd64/v2", "amd64", "386"]);
        assert_eq!(order("amd64", Era::V1_6, &entries), ["amd64", "386"]);
        assert_eq!(order("amd64", Era::V1_4, &entries), ["amd64", "x86_64/v3"]);
        assert_eq!(order("amd64", Era::V1_5, &["386", "amd64/v1"]), ["386"]);
        assert_eq!(order("amd64", Era::V1_6, &["386", "amd64/v1"]), ["amd64/v1", "386"]);
    }
}
