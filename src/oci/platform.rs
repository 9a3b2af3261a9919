//! What content runs on: platforms of image entries, and the node kinds that a site has.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::descriptor::or_default;

/// The platform of an entry in an index, or of an image configuration.
///
/// The field names have dots (`os.version`), as in the OCI image specification; an entry whose writer spelled
/// them otherwise has no version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`, `arm64`, `arm` …, in Go's spelling.
    #[serde(default)]
    pub architecture: String,
    /// `linux` or `windows`.
    #[serde(default)]
    pub os: String,
    /// The Windows version of the image, `10.0.20348.2527`; empty where the entry states none.
    #[serde(
        default,
        rename = "os.version",
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub os_version: String,
    /// Features the host must have, `win32k`.
    #[serde(
        default,
        rename = "os.features",
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
    /// Variant of the architecture, `v7`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

impl Platform {
    /// Returns whether neither a system nor an architecture is stated, as in `"platform": {}`.
    pub fn is_empty(&self) -> bool {
        self.os.is_empty() && self.architecture.is_empty()
    }

    /// The platform for people's eyes: an index can hold anything, so no control characters and 80 characters at most.
    pub fn shown(&self) -> String {
        self.to_string().chars().filter(|c| !c.is_control()).take(80).collect()
    }

    /// The platform with the spellings of its architecture and variant folded: `x86_64` is `amd64`, `arm64/v8`
    /// is `arm64`, `arm` is `arm/v7`.
    ///
    /// Source: containerd/platforms `database.go`, `normalizeArch`.
    #[must_use]
    pub fn normalized(&self) -> Self {
        let os = self.os.to_lowercase();
        let architecture = self.architecture.to_lowercase();
        let variant = self.variant.to_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("i386", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64" | "amd64", v) => ("amd64", v),
            ("aarch64" | "arm64", "8" | "v8") => ("arm64", ""),
            ("aarch64" | "arm64", v) => ("arm64", v),
            ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
            ("armel", _) | ("arm", "6") => ("arm", "v6"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "8") => ("arm", "v8"),
            (other, v) => (other, v),
        };
        let os = if os == "macos" { "darwin".to_owned() } else { os };
        Self {
            architecture: architecture.to_owned(),
            os,
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            variant: variant.to_owned(),
        }
    }
}

/// Why a string is not a platform or a node kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParsePlatformError {
    /// The general form is wrong.
    #[error("`{0}` is not a platform; write linux/arm64, linux/arm/v7 or windows(10.0.20348)/amd64")]
    Form(String),
    /// The operating system is not one that nodes run.
    #[error("`{0}`: nodes run linux or windows")]
    Os(String),
    /// A Windows node kind without its build.
    #[error(
        "`{0}` does not say which Windows: images are chosen per build, write windows(10.0.20348)/amd64 \
         or an alias like windows/ltsc2022"
    )]
    NoBuild(String),
    /// A build that is not three or four numbers.
    #[error("`{0}` is not a Windows version; write 10.0.20348")]
    Build(String),
}

impl FromStr for Platform {
    type Err = ParsePlatformError;

    /// Reads every spelling that [`parse_exact`](Self::parse_exact) reads, and folds architecture and variant.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::parse_exact(text)?.normalized())
    }
}

impl Platform {
    /// Reads containerd's spelling (`windows(10.0.17763+win32k)/amd64`), crane's (`windows/amd64:10.0.17763`),
    /// regclient's (`windows/amd64,osver=10.0.17763`) and the plain one (`linux/arm/v7`), and folds nothing: for tools
    /// that compare what they are asked for as it is written.
    pub fn parse_exact(text: &str) -> Result<Self, ParsePlatformError> {
        let form = || ParsePlatformError::Form(text.chars().take(80).collect());
        let (main, suffix_version) = if let Some((main, option)) = text.split_once(',') {
            let version = option.strip_prefix("osver=").or_else(|| option.strip_prefix("osversion="));
            (main, Some(version.ok_or_else(form)?))
        } else if let Some((main, version)) = text.rsplit_once(':') {
            (main, Some(version))
        } else {
            (text, None)
        };
        let mut parts = main.split('/');
        let os = parts.next().ok_or_else(form)?;
        let architecture = parts.next().ok_or_else(form)?;
        let variant = parts.next().unwrap_or_default();
        let (os, inner) = match os.split_once('(') {
            Some((os, inner)) => (os, Some(inner.strip_suffix(')').ok_or_else(form)?)),
            None => (os, None),
        };
        let (inner_version, features) = match inner.map(|inner| inner.split_once('+')) {
            None => (None, Vec::new()),
            Some(None) => (inner, Vec::new()),
            Some(Some((version, features))) => {
                (Some(version), features.split('+').map(str::to_owned).collect())
            }
        };
        let version = match (inner_version, suffix_version) {
            (Some(_), Some(_)) => return Err(form()),
            (version, None) | (None, version) => version.unwrap_or_default(),
        };
        let word =
            |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        let optional = |s: &str| s.is_empty() || word(s);
        if parts.next().is_some()
            || main.ends_with('/')
            || !word(os)
            || !word(architecture)
            || !optional(variant)
            || !optional(version)
            || !features.iter().all(|f| word(f))
        {
            return Err(form());
        }
        Ok(Self {
            architecture: architecture.to_owned(),
            os: os.to_owned(),
            os_version: version.to_owned(),
            os_features: features,
            variant: variant.to_owned(),
        })
    }
}

impl fmt::Display for Platform {
    /// Prints containerd's spelling.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.os.is_empty() { "unknown" } else { &self.os })?;
        if !self.os_version.is_empty() || !self.os_features.is_empty() {
            write!(f, "({}", self.os_version)?;
            for feature in &self.os_features {
                write!(f, "+{feature}")?;
            }
            f.write_str(")")?;
        }
        let architecture = &self.architecture;
        write!(f, "/{}", if architecture.is_empty() { "unknown" } else { architecture })?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

/// A Windows version without its revision: `10.0.20348`. The revision (UBR) never decides whether a container
/// runs on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WindowsBuild {
    /// 10 on every Windows that runs containers.
    pub major: u32,
    /// 0 on every Windows that runs containers.
    pub minor: u32,
    /// The build number, 20348 for Windows Server 2022.
    pub build: u32,
}

impl FromStr for WindowsBuild {
    type Err = ParsePlatformError;

    /// Reads three or four numbers; the fourth, the revision, is dropped.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParsePlatformError::Build(text.chars().take(80).collect());
        let numbers: Vec<u32> =
            text.split('.').map(str::parse).collect::<Result<_, _>>().map_err(|_| error())?;
        match numbers[..] {
            [major, minor, build] | [major, minor, build, _] => Ok(Self { major, minor, build }),
            _ => Err(error()),
        }
    }
}

impl fmt::Display for WindowsBuild {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.build)
    }
}

/// A kind of node that a site has: operating system, architecture, and on Windows the build.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeKind {
    windows: Option<WindowsBuild>,
    architecture: Box<str>,
    variant: Box<str>,
}

impl NodeKind {
    /// `linux` or `windows`.
    pub fn os(&self) -> &'static str {
        if self.windows.is_some() { "windows" } else { "linux" }
    }

    /// The architecture in Go's spelling.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The variant of the architecture, empty where there is none.
    pub fn variant(&self) -> &str {
        &self.variant
    }

    /// The Windows build; none on Linux.
    pub fn windows_build(&self) -> Option<WindowsBuild> {
        self.windows
    }

    /// Whether this is a Windows node.
    pub fn is_windows(&self) -> bool {
        self.windows.is_some()
    }

    /// The platform as a container runtime on such a node states its own.
    pub fn platform(&self) -> Platform {
        Platform {
            architecture: self.architecture.to_string(),
            os: self.os().to_owned(),
            os_version: self.windows.map(|build| build.to_string()).unwrap_or_default(),
            os_features: Vec::new(),
            variant: self.variant.to_string(),
        }
    }
}

impl TryFrom<Platform> for NodeKind {
    type Error = ParsePlatformError;

    fn try_from(platform: Platform) -> Result<Self, Self::Error> {
        let windows = match platform.os.as_str() {
            "linux" => None,
            "windows" if platform.os_version.is_empty() => {
                return Err(ParsePlatformError::NoBuild(platform.to_string()));
            }
            "windows" => Some(platform.os_version.parse()?),
            _ => return Err(ParsePlatformError::Os(platform.to_string())),
        };
        Ok(Self { windows, architecture: platform.architecture.into(), variant: platform.variant.into() })
    }
}

impl FromStr for NodeKind {
    type Err = ParsePlatformError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<Platform>()?.try_into()
    }
}

impl fmt::Display for NodeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.platform(), f)
    }
}

impl Serialize for NodeKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NodeKind {
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
    fn four_spellings_print_as_containerd_s() {
        for (given, expected) in [
            ("windows(10.0.20348)/amd64", "windows(10.0.20348)/amd64"),
            ("windows/amd64:10.0.20348", "windows(10.0.20348)/amd64"),
            ("windows/amd64,osver=10.0.20348", "windows(10.0.20348)/amd64"),
            ("windows(10.0.17763+win32k)/amd64", "windows(10.0.17763+win32k)/amd64"),
            ("linux/arm64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/x86_64", "linux/amd64"),
            ("windows/amd64", "windows/amd64"),
        ] {
            assert_eq!(given.parse::<Platform>().unwrap().to_string(), expected, "{given}");
        }
    }

    #[test]
    fn exact_platforms_stay_as_written() {
        for text in ["linux/arm", "linux/arm64/v8", "linux/x86_64", "windows(10.0.20348.1)/amd64"] {
            assert_eq!(Platform::parse_exact(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_shown_cannot_steer_a_terminal() {
        let evil = Platform { os: "a\u{1b}[2J".into(), architecture: "b".repeat(100), ..Platform::default() };
        assert_eq!(evil.shown(), format!("a[2J/{}", "b".repeat(75)));
    }

    #[test]
    fn refuses_platforms() {
        for bad in [
            "",
            "linux",
            "linux/",
            "/amd64",
            "linux/arm64/v8/x",
            "windows(10.0/amd64",
            "linux/a b",
            "windows/amd64,x=1",
            "windows(1)/amd64:2",
            "windows()x/amd64",
        ] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn node_kinds_need_a_build_on_windows() {
        let kind: NodeKind = "windows(10.0.20348.2527)/amd64".parse().unwrap();
        assert_eq!(kind.to_string(), "windows(10.0.20348)/amd64");
        assert_eq!(kind.windows_build().unwrap().build, 20348);
        let error = "windows/amd64".parse::<NodeKind>().unwrap_err().to_string();
        assert!(error.contains("windows/ltsc2022"), "{error}");
        assert!("darwin/arm64".parse::<NodeKind>().is_err());
        assert!("windows(ltsc)/amd64".parse::<NodeKind>().is_err());
    }

    #[test]
    fn only_dotted_names_are_read() {
        let platform: Platform = serde_json::from_str(
            r#"{"architecture":"amd64","os":"windows","os.version":"10.0.20348.2527","os.features":["win32k"]}"#,
        )
        .unwrap();
        assert_eq!(platform.os_version, "10.0.20348.2527");
        assert_eq!(platform.os_features, ["win32k"]);
        let snake: Platform =
            serde_json::from_str(r#"{"architecture":"amd64","os":"windows","os_version":"10.0.20348.2527"}"#)
                .unwrap();
        assert_eq!(snake.os_version, "");
        assert!(serde_json::to_string(&platform).unwrap().contains(r#""os.version":"10.0.20348.2527""#));
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,100}") {
            let _ = text.parse::<Platform>();
            let _ = text.parse::<NodeKind>();
        }

        #[test]
        fn what_it_prints_it_reads(text in "(linux|windows)(\\([0-9.]{1,10}(\\+[a-z0-9]{1,4})?\\))?/[a-z0-9]{1,6}(/v[0-9])?") {
            if let Ok(platform) = text.parse::<Platform>() {
                prop_assert_eq!(platform.to_string().parse::<Platform>().unwrap(), platform);
            }
        }
    }
}
