//! What may be missing from a lock, as its maker writes it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use url::Url;

use super::Gap;
use crate::oci::{ParseReferenceError, Reference};

/// What may be missing: one image, one file, or all whose names match a pattern.
///
/// A reference is completed the way Docker completes it. `*` stands for any characters, also for `/` and `:`, and is
/// compared with complete references: `quay.io/acme/*`, `*:nightly`, `https://example.org/*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AllowMissing {
    /// The image with this reference.
    Image(Reference),
    /// The file at this address.
    File(Url),
    /// Everything that matches.
    Pattern(String),
}

/// Why a text does not name what may be missing.
#[derive(Debug, thiserror::Error)]
pub enum ParseAllowMissingError {
    /// Not an image reference.
    #[error(transparent)]
    Reference(#[from] ParseReferenceError),
    /// Not the address of a file.
    #[error("not an address: {0}")]
    Url(#[from] url::ParseError),
}

/// Something that was allowed to be missing without need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Unneeded {
    /// What was allowed, completed.
    pub pattern: String,
    /// Whether the definition has it, and nothing of it is missing.
    pub present: bool,
    /// The nearest name in the definition, if it does not have it and has a similar one.
    pub nearest: Option<String>,
}

impl AllowMissing {
    /// Returns whether `name`, a complete reference or an address, may be missing.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Image(reference) => reference.to_string() == name,
            Self::File(url) => url.as_str() == name,
            Self::Pattern(pattern) => matches(pattern, name),
        }
    }
}

impl FromStr for AllowMissing {
    type Err = ParseAllowMissingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let image = ["oci://", "docker://"].iter().find_map(|scheme| text.strip_prefix(scheme));
        match image {
            _ if text.contains('*') => Ok(Self::Pattern(image.unwrap_or(text).to_owned())),
            Some(reference) => Ok(Self::Image(reference.parse()?)),
            None if text.contains("://") => Ok(Self::File(text.parse()?)),
            None => Ok(Self::Image(text.parse()?)),
        }
    }
}

impl fmt::Display for AllowMissing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(reference) => reference.fmt(f),
            Self::File(url) => url.fmt(f),
            Self::Pattern(pattern) => f.write_str(pattern),
        }
    }
}

impl fmt::Display for Unneeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pattern, present, nearest } = self;
        match nearest {
            _ if *present => write!(f, "`{pattern}` is not missing"),
            _ if pattern.contains('*') => write!(f, "nothing in the definition matches `{pattern}`"),
            Some(nearest) => {
                write!(f, "`{pattern}` is not in the definition; did you mean {nearest}?")
            }
            None => write!(f, "`{pattern}` is not in the definition"),
        }
    }
}

/// Returns the patterns that allowed nothing of `gaps`, in their order. `names` are those in the definition.
pub(super) fn unneeded(
    patterns: &BTreeSet<AllowMissing>,
    names: &BTreeSet<String>,
    gaps: &[Gap],
) -> Vec<Unneeded> {
    let allows =
        |pattern: &AllowMissing| gaps.iter().filter_map(Gap::name).any(|name| pattern.matches(&name));
    let unneeded = |pattern: &AllowMissing| {
        let present = names.iter().any(|name| pattern.matches(name));
        let text = pattern.to_string();
        let nearest = if present { None } else { nearest(&text, names) };
        Unneeded { pattern: text, present, nearest }
    };
    patterns.iter().filter(|pattern| !allows(pattern)).map(unneeded).collect()
}

/// Returns the name that is most like `wanted`, by its last part first: the registry and the tag are what is forgotten.
fn nearest(wanted: &str, names: &BTreeSet<String>) -> Option<String> {
    let last = |name: &str| {
        let path = name.split('@').next().unwrap_or_default();
        let part = path.rsplit('/').next().unwrap_or_default();
        part.split(':').next().unwrap_or_default().to_owned()
    };
    let alike = |name: &&String| {
        let part = strsim::normalized_levenshtein(&last(wanted), &last(name));
        (part >= 0.6).then(|| (part, strsim::normalized_levenshtein(wanted, name)))
    };
    let best = names.iter().filter_map(|name| Some((alike(&name)?, name)));
    // The first of several that are equally alike.
    best.rev()
        .max_by(|(a, _), (b, _)| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)))
        .map(|(_, name)| name.clone())
}

/// Returns whether `text` matches `pattern`, in which `*` stands for any characters. Takes time in proportion to the
/// product of their lengths at most.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        // The earliest place leaves the most for what follows.
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    text.ends_with(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn allow(text: &str) -> AllowMissing {
        text.parse().unwrap()
    }

    #[test]
    fn star_stands_for_any_characters() {
        for (pattern, name, expected) in [
            ("quay.io/acme/*", "quay.io/acme/a/b:1", true),
            ("quay.io/acme/*", "quay.io/acm/a:1", false),
            ("*:nightly", "quay.io/a:nightly", true),
            ("*:nightly", "quay.io/a:nightly2", false),
            ("*/a*:1", "quay.io/app:1", true),
            ("a*a", "a", false),
            ("*ab*ab", "xab", false),
            ("*", "", true),
            ("nope", "docker.io/library/nope:latest", true),
            ("docker://nope:1", "docker.io/library/nope:1", true),
            ("oci://ghcr.io/acme/chart:1", "ghcr.io/acme/chart:1", true),
            ("https://Example.org/x", "https://example.org/x", true),
            ("https://example.org/*", "https://example.org/a/b", true),
        ] {
            assert_eq!(allow(pattern).matches(name), expected, "{pattern} {name}");
        }
        assert!("Upper/Case".parse::<AllowMissing>().is_err());
    }

    #[test]
    fn unneeded_pattern_names_what_is_near() {
        let names: BTreeSet<String> =
            ["quay.io/acme/nope:1", "quay.io/acme/other:1", "registry.k8s.io/pause:3.10"]
                .map(str::to_owned)
                .into();
        let text = |pattern: &str| {
            let patterns = BTreeSet::from([allow(pattern)]);
            unneeded(&patterns, &names, &[]).iter().map(ToString::to_string).collect::<String>()
        };
        assert_eq!(
            text("nope"),
            "`docker.io/library/nope:latest` is not in the definition; did you mean quay.io/acme/nope:1?"
        );
        assert!(text("registry.k8s.io/pause:3.1").ends_with("did you mean registry.k8s.io/pause:3.10?"));
        assert_eq!(text("quay.io/zebra:1"), "`quay.io/zebra:1` is not in the definition");
        assert_eq!(text("quay.io/acme/nope:1"), "`quay.io/acme/nope:1` is not missing");
        assert_eq!(text("ghcr.io/*"), "nothing in the definition matches `ghcr.io/*`");
    }

    proptest! {
        #[test]
        fn every_part_of_a_text_can_be_a_star(text in "[a-z/:]{0,12}", at in 0usize..12, length in 0usize..12) {
            let at = at.min(text.len());
            let end = (at + length).min(text.len());
            let pattern = format!("{}*{}", &text[..at], &text[end..]);
            prop_assert!(matches(&pattern, &text));
        }
    }
}
