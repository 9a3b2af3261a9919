//! Release identities, `k0s@v1.36.3+k0s.2`, and their order.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::CatalogError;

/// One version of a distribution.
///
/// Keyed by the full version: image sets differ between `+k0s.N` builds of one Kubernetes version. Ordered by
/// distribution, then by version the way people count (`.10` after `.9`, release candidates before releases).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReleaseId {
    /// The distribution, `k0s`.
    pub distro: String,
    /// The version with its `v`, `v1.36.3+k0s.2`.
    pub version: String,
}

impl ReleaseId {
    /// The version without the distribution's own build part, `v1.36.3`.
    pub fn base_version(&self) -> &str {
        self.version.split('+').next().unwrap_or(&self.version)
    }

    /// Major and minor number; none when the version has another form.
    pub fn minor(&self) -> Option<(u32, u32)> {
        minor_of(&self.version)
    }

    /// The version as a container tag: `+` is not allowed there and becomes `-`.
    pub fn tag(&self) -> String {
        self.version.replace('+', "-")
    }
}

/// Major and minor number of `v1.36.3` or `1.36`.
pub(super) fn minor_of(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.strip_prefix('v').unwrap_or(version).split('.');
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?;
    let digits = minor.find(|c: char| !c.is_ascii_digit()).unwrap_or(minor.len());
    Some((major, minor[..digits].parse().ok()?))
}

/// Compares versions: numbers as numbers, a pre-release before its release, a build after the plain version.
pub(super) fn compare_versions(a: &str, b: &str) -> Ordering {
    /// Core, pre-release and build of `v1.2.3-rc.1+k0s.0`.
    fn parts(version: &str) -> (&str, Option<&str>, &str) {
        let (rest, build) = version.split_once('+').unwrap_or((version, ""));
        match rest.split_once('-') {
            Some((core, pre)) => (core, Some(pre), build),
            None => (rest, None, build),
        }
    }
    let ((core_a, pre_a, build_a), (core_b, pre_b, build_b)) = (parts(a), parts(b));
    let pre = match (pre_a, pre_b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => natural(a, b),
    };
    natural(core_a, core_b).then(pre).then_with(|| natural(build_a, build_b)).then_with(|| a.cmp(b))
}

/// Compares texts with runs of digits as numbers.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let ((head_a, rest_a), (head_b, rest_b)) = (run(a), run(b));
        let order = match (head_a.parse::<u64>(), head_b.parse::<u64>()) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            _ => head_a.cmp(head_b),
        };
        if order != Ordering::Equal || (rest_a.is_empty() && rest_b.is_empty()) {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
}

/// The leading run of digits, or of anything else, and what follows it.
fn run(text: &str) -> (&str, &str) {
    let digits = text.starts_with(|c: char| c.is_ascii_digit());
    text.split_at(text.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(text.len()))
}

impl Ord for ReleaseId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.distro.cmp(&other.distro).then_with(|| compare_versions(&self.version, &other.version))
    }
}

impl PartialOrd for ReleaseId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl FromStr for ReleaseId {
    type Err = CatalogError;

    /// Reads `k0s@v1.36.3+k0s.2`. The `v` may be left out, and `-k0s.2` means `+k0s.2`, as in the tags of images.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || CatalogError::ReleaseForm(text.chars().take(80).collect());
        let (distro, version) = text.split_once('@').ok_or_else(error)?;
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let word = |b: u8| b.is_ascii_alphanumeric() || b"._+-".contains(&b);
        let number = version.strip_prefix('v').unwrap_or(version);
        // A distribution names a directory of the catalog, so its characters are few.
        if distro.is_empty()
            || distro.len() > 32
            || !distro.bytes().all(plain)
            || version.len() > 64
            || !number.starts_with(|c: char| c.is_ascii_digit())
            || !version.bytes().all(word)
        {
            return Err(error());
        }
        let build = number.rfind(&format!("-{distro}")).filter(|_| !number.contains('+'));
        let version = match build {
            Some(at) => format!("v{}+{}", &number[..at], &number[at + 1..]),
            None => format!("v{number}"),
        };
        Ok(Self { distro: distro.to_owned(), version })
    }
}

impl fmt::Display for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.distro, self.version)
    }
}

impl Serialize for ReleaseId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ReleaseId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn orders_like_people_count() {
        let sorted = [
            "v1.31.9+k0s.0",
            "v1.31.10+k0s.0",
            "v1.37.0-alpha.2",
            "v1.37.0-alpha.10",
            "v1.37.0-rc.0",
            "v1.37.0",
            "v1.37.0+k3s1",
            "v1.37.0+k3s2",
            "v1.37.0+k3s10",
        ];
        for pair in sorted.windows(2) {
            assert_eq!(compare_versions(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare_versions(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
    }

    #[test]
    fn reads_and_prints() {
        let id: ReleaseId = "k0s@1.36.3+k0s.2".parse().unwrap();
        assert_eq!(id.to_string(), "k0s@v1.36.3+k0s.2");
        assert_eq!(id.base_version(), "v1.36.3");
        assert_eq!(id.tag(), "v1.36.3-k0s.2");
        assert_eq!(id.minor(), Some((1, 36)));
        for (given, expected) in [
            ("k0s@v1.36.3-k0s.2", "k0s@v1.36.3+k0s.2"),
            ("k0s@1.36.0-rc.1-k0s.0", "k0s@v1.36.0-rc.1+k0s.0"),
            ("k3s@v1.36.4-k3s1", "k3s@v1.36.4+k3s1"),
            ("rke2@v1.36.3-rc1-rke2r1", "rke2@v1.36.3-rc1+rke2r1"),
            ("kubeadm@v1.36.0-rc.1", "kubeadm@v1.36.0-rc.1"),
            ("k0s@v1.36.3+k0s.2-k0s", "k0s@v1.36.3+k0s.2-k0s"),
        ] {
            assert_eq!(given.parse::<ReleaseId>().unwrap().to_string(), expected, "{given}");
        }
        for bad in ["", "k0s", "k0s@", "@v1", "k0s@latest", "../x@v1.2.3", "K0S@v1.2.3", "k0s@v1.2 3"] {
            assert!(bad.parse::<ReleaseId>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn order_is_total(a in "v[0-9]{1,2}\\.[0-9]{1,3}(-rc\\.[0-9])?(\\+k[0-9]{1,2})?",
                          b in "v[0-9]{1,2}\\.[0-9]{1,3}(-rc\\.[0-9])?(\\+k[0-9]{1,2})?") {
            prop_assert_eq!(compare_versions(&a, &b), compare_versions(&b, &a).reverse());
        }

        #[test]
        fn never_panics(text in ".{0,90}") {
            let _ = text.parse::<ReleaseId>();
            let _ = minor_of(&text);
        }
    }
}
