//! The definition: the YAML that a person writes.

use std::fmt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::lock::address_of;
use super::{BundleName, IMAGES_LIST};
use crate::catalog::{Catalog, ImageList, ImageListError, ReleaseId};
use crate::input::yaml::{self, Node};
use crate::input::{self, DocumentError, InputError};
use crate::oci::{Digest, NodeKind, Reference};
use crate::select::{ParseRuntimeError, Runtime};

/// The version of the definition's form.
pub const API_VERSION: &str = "dray.dev/v1alpha1";
/// The largest definition that is read, in bytes.
pub const MAX_DEFINITION_BYTES: u64 = 4 * 1024 * 1024;

/// Why a definition cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// The file cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The YAML is not that of a definition.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A field has a value that means nothing here.
    #[error("{}, line {line}: `{field}`: {message}", input::name(path))]
    Field {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// The field.
        field: String,
        /// What is wrong with it.
        message: String,
    },
    /// An image list that it names cannot be used.
    #[error(transparent)]
    List(#[from] ImageListError),
}

/// A definition, with its aliases resolved.
#[derive(Clone, Debug)]
pub struct Definition {
    /// The name of the bundle.
    pub name: BundleName,
    /// Counts the bundles of this name.
    pub sequence: u64,
    /// From when on a site refuses the bundle.
    pub expires: Option<Timestamp>,
    /// The node kinds to be complete for.
    pub nodes: Vec<NodeKind>,
    /// The container runtimes on the nodes; empty for all.
    pub runtimes: Vec<Runtime>,
    /// The releases whose images are needed.
    pub releases: Vec<WantedRelease>,
    /// Further images.
    pub images: Vec<WantedImage>,
    /// Helm charts and other artifacts, which are the same for all nodes.
    pub charts: Vec<Reference>,
    /// Plain files.
    pub files: Vec<WantedFile>,
    /// The image lists that were read.
    pub list_files: Vec<PathBuf>,
    /// Whether signatures, attestations and SBOMs of the images come along.
    pub evidence: bool,
}

/// A release in a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedRelease {
    /// The release.
    pub id: ReleaseId,
    /// Features beyond its default configuration.
    pub with: Vec<String>,
}

/// An image in a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedImage {
    /// The reference.
    pub reference: Reference,
    /// The node kinds that need it.
    pub nodes: Vec<NodeKind>,
    /// Where the definition names it: `images`, or the file of an image list.
    pub source: String,
}

/// A file in a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedFile {
    /// Where it is.
    pub url: url::Url,
    /// What it must hash to.
    pub digest: Digest,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Document {
    api_version: String,
    kind: String,
    metadata: Metadata,
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    name: BundleName,
    #[serde(default = "first")]
    sequence: u64,
    expires: Option<String>,
}

fn first() -> u64 {
    1
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Spec {
    nodes: Vec<String>,
    #[serde(default)]
    runtimes: Vec<String>,
    #[serde(default)]
    releases: Vec<ReleaseEntry>,
    #[serde(default)]
    images: Vec<ImageEntry>,
    #[serde(default)]
    image_lists: Vec<PathBuf>,
    #[serde(default)]
    files: Vec<FileEntry>,
    #[serde(default)]
    charts: Vec<String>,
    #[serde(default)]
    evidence: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReleaseEntry {
    k0s: Option<String>,
    kubeadm: Option<String>,
    k3s: Option<String>,
    rke2: Option<String>,
    openkruise: Option<String>,
    #[serde(default)]
    with: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEntry {
    url: url::Url,
    sha256: Option<String>,
    sha512: Option<String>,
}

/// `docker.io/library/nginx:1.27`, or the same with the nodes that need it.
struct ImageEntry {
    reference: String,
    nodes: Option<Vec<String>>,
}

impl<'de> Deserialize<'de> for ImageEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntryVisitor;

        impl<'de> Visitor<'de> for EntryVisitor {
            type Value = ImageEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an image reference, or `ref` with `nodes`")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ImageEntry, E> {
                Ok(ImageEntry { reference: text.to_owned(), nodes: None })
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<ImageEntry, M::Error> {
                let (mut reference, mut nodes) = (None, None);
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "ref" => reference = Some(map.next_value()?),
                        "nodes" => nodes = Some(map.next_value()?),
                        other => return Err(M::Error::unknown_field(other, &["ref", "nodes"])),
                    }
                }
                Ok(ImageEntry { reference: reference.ok_or_else(|| M::Error::missing_field("ref"))?, nodes })
            }
        }

        deserializer.deserialize_any(EntryVisitor)
    }
}

impl Definition {
    /// Reads the definition at `path`, or standard input if it is `-`, and the image lists that it names relative to itself.
    pub fn read(path: &Path, catalog: &Catalog) -> Result<Self, DefinitionError> {
        let text = input::read_text(path, MAX_DEFINITION_BYTES)?;
        Self::parse(path, &text, catalog)
    }

    /// Reads `text`, the content of `path`.
    pub fn parse(path: &Path, text: &str, catalog: &Catalog) -> Result<Self, DefinitionError> {
        let file = input::name(path);
        let tree = yaml::document(&file, text)?;
        let reader = Reader { path, tree: &tree, catalog };
        reader.definition(tree.to(&file)?)
    }
}

/// Turns the fields of a definition into what they mean.
struct Reader<'a> {
    path: &'a Path,
    tree: &'a Node,
    catalog: &'a Catalog,
}

impl Reader<'_> {
    fn definition(&self, document: Document) -> Result<Definition, DefinitionError> {
        for (field, found, expected) in
            [("apiVersion", &document.api_version, API_VERSION), ("kind", &document.kind, "Bundle")]
        {
            if found != expected {
                return Err(self.field(field, format!("this is `{found}`, and this dray reads `{expected}`")));
            }
        }
        let spec = document.spec;
        let nodes = self.node_kinds("spec.nodes", &spec.nodes)?;
        if nodes.is_empty() {
            return Err(self.field("spec.nodes", "name at least one node kind, e.g. linux/amd64"));
        }
        let mut images = Vec::new();
        for (nth, entry) in spec.images.iter().enumerate() {
            let field = format!("spec.images[{nth}]");
            images.push(WantedImage {
                reference: self.parsed(&field, &entry.reference)?,
                nodes: match &entry.nodes {
                    Some(kinds) => self.node_kinds(&field, kinds)?,
                    None => nodes.clone(),
                },
                source: IMAGES_LIST.to_owned(),
            });
        }
        let mut list_files = Vec::new();
        for list in &spec.image_lists {
            let path = self.path.parent().unwrap_or(Path::new("")).join(list);
            list_files.push(path.clone());
            for reference in ImageList::read(&path)?.images {
                let source = list.display().to_string();
                images.push(WantedImage { reference, nodes: nodes.clone(), source });
            }
        }
        let runtimes = spec.runtimes.iter().map(|text| {
            text.parse().map_err(|error: ParseRuntimeError| self.field("spec.runtimes", error.to_string()))
        });
        Ok(Definition {
            name: document.metadata.name,
            sequence: document.metadata.sequence,
            expires: document.metadata.expires.map(|text| self.expiry(&text)).transpose()?,
            runtimes: runtimes.collect::<Result<_, _>>()?,
            releases: self.releases(spec.releases)?,
            images,
            charts: self.charts(&spec.charts)?,
            files: self.files(spec.files)?,
            list_files,
            evidence: spec.evidence,
            nodes,
        })
    }

    /// A time, or a day through whose end (in UTC) the bundle is good.
    fn expiry(&self, text: &str) -> Result<Timestamp, DefinitionError> {
        let end_of_day = || {
            let day: Date = text.parse().ok()?;
            Some(day.tomorrow().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp())
        };
        text.parse().ok().or_else(end_of_day).ok_or_else(|| {
            let message =
                format!("`{text}` is neither a day as 2027-01-31 nor a time as 2027-01-31T12:00:00Z");
            self.field("metadata.expires", message)
        })
    }

    fn releases(&self, entries: Vec<ReleaseEntry>) -> Result<Vec<WantedRelease>, DefinitionError> {
        let one = |(nth, entry): (usize, ReleaseEntry)| {
            let named = [
                ("k0s", entry.k0s),
                ("kubeadm", entry.kubeadm),
                ("k3s", entry.k3s),
                ("rke2", entry.rke2),
                ("openkruise", entry.openkruise),
            ];
            let mut named = named.into_iter().filter_map(|(distro, version)| Some((distro, version?)));
            match (named.next(), named.next()) {
                (Some((distro, version)), None) => Ok(WantedRelease {
                    id: ReleaseId { distro: distro.to_owned(), version },
                    with: entry.with,
                }),
                _ => Err(self
                    .field(&format!("spec.releases[{nth}]"), "name one release, e.g. `k0s: v1.36.3+k0s.2`")),
            }
        };
        entries.into_iter().enumerate().map(one).collect()
    }

    fn charts(&self, charts: &[String]) -> Result<Vec<Reference>, DefinitionError> {
        let one = |(nth, text): (usize, &String)| {
            let field = format!("spec.charts[{nth}]");
            match text.strip_prefix("oci://") {
                Some(reference) => self.parsed(&field, reference),
                None => Err(self.field(&field, format!("`{text}` does not start with oci://"))),
            }
        };
        charts.iter().enumerate().map(one).collect()
    }

    fn files(&self, entries: Vec<FileEntry>) -> Result<Vec<WantedFile>, DefinitionError> {
        let one = |nth: usize, entry: FileEntry| {
            let field = format!("spec.files[{nth}]");
            check_address(&entry.url).map_err(|message| self.field(&field, message))?;
            let digest = match (entry.sha256, entry.sha512) {
                (Some(hex), None) => format!("sha256:{hex}"),
                (None, Some(hex)) => format!("sha512:{hex}"),
                _ => {
                    let message = "give the file's `sha256` or its `sha512`, as its publisher states it";
                    return Err(self.field(&field, message));
                }
            };
            Ok(WantedFile { url: entry.url, digest: self.parsed(&field, &digest)? })
        };
        let mut files: Vec<WantedFile> = Vec::new();
        for (nth, entry) in entries.into_iter().enumerate() {
            let file = one(nth, entry)?;
            let place = |file: &WantedFile| (file.url.origin(), file.url.path().to_owned());
            match files.iter().find(|other| place(other) == place(&file)) {
                None => files.push(file),
                Some(same) if same.digest == file.digest => {}
                Some(_) => {
                    let message =
                        format!("`{}` is listed twice with different digests", without_query(&file.url));
                    return Err(self.field(&format!("spec.files[{nth}]"), message));
                }
            }
        }
        Ok(files)
    }

    fn node_kinds(&self, field: &str, texts: &[String]) -> Result<Vec<NodeKind>, DefinitionError> {
        let mut kinds = Vec::new();
        for text in texts {
            let kind = self.catalog.node_kind(text).map_err(|error| self.field(field, error.to_string()))?;
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        Ok(kinds)
    }

    fn parsed<T>(&self, field: &str, text: &str) -> Result<T, DefinitionError>
    where
        T: std::str::FromStr<Err: fmt::Display>,
    {
        text.parse().map_err(|error: T::Err| self.field(field, error.to_string()))
    }

    fn field(&self, field: &str, message: impl Into<String>) -> DefinitionError {
        DefinitionError::Field {
            path: self.path.to_owned(),
            line: self.tree.line_of(field),
            field: field.to_owned(),
            message: message.into(),
        }
    }
}

/// Checks that a site can serve a file under this address: it ends up in the lock, and its path becomes the path at the
/// site.
fn check_address(url: &url::Url) -> Result<(), String> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("`{}` is not an http or https address", without_query(url)));
    }
    let problem = if !url.username().is_empty() || url.password().is_some() {
        "has credentials, which the lock would show to everybody; use a mirror with --upstream HOST=URL"
    } else if url.fragment().is_some() {
        "has a fragment, which means nothing for a file"
    } else if address_of(url).is_none() || url.path().to_ascii_lowercase().contains("%2f") {
        "names no file"
    } else {
        return Ok(());
    };
    Err(format!("`{}` {problem}", without_query(url)))
}

/// The address without what may be secret in it.
fn without_query(url: &url::Url) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    // These fail only for addresses that cannot have credentials, and those have none to hide.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "\
apiVersion: dray.dev/v1alpha1
kind: Bundle
metadata:
  name: plant-7
spec:
  nodes: [linux/amd64, windows/ltsc2022]
  runtimes: [containerd@1.7, containerd@2]
  releases:
    - k0s: v1.36.3+k0s.2
      with: [calico, nllb:traefik]
  images:
    - nginx:1.27
    - ref: ghcr.io/acme/agent:2.4
      nodes: [windows/ltsc2022]
  files:
    - url: https://example.org/k0s-v1.36.3+k0s.2-amd64
      sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
  charts:
    - oci://ghcr.io/acme/charts/agent:1.2.0
";

    fn parse(text: &str) -> Result<Definition, DefinitionError> {
        Definition::parse(Path::new("plant.yaml"), text, &Catalog::builtin().unwrap())
    }

    #[test]
    fn reads_every_field() {
        let definition = parse(WHOLE).unwrap();
        assert_eq!(definition.name.as_str(), "plant-7");
        assert_eq!(definition.sequence, 1);
        assert_eq!(definition.nodes[1].to_string(), "windows(10.0.20348)/amd64");
        assert_eq!(definition.releases[0].id.to_string(), "k0s@v1.36.3+k0s.2");
        assert_eq!(definition.images[0].reference.to_string(), "docker.io/library/nginx:1.27");
        assert_eq!(definition.images[0].nodes.len(), 2);
        assert_eq!(definition.images[1].nodes, definition.nodes[1..]);
        assert_eq!(definition.charts[0].to_string(), "ghcr.io/acme/charts/agent:1.2.0");
        assert_eq!(definition.files[0].url.path(), "/k0s-v1.36.3+k0s.2-amd64");
    }

    #[test]
    fn files_have_addresses_that_a_site_can_serve() {
        let files = |list: &str| {
            let start = "apiVersion: dray.dev/v1alpha1\nkind: Bundle\nmetadata: {name: f}\nspec:\n";
            parse(&format!("{start}  nodes: [linux/amd64]\n  files:\n{list}"))
        };
        let file = |url: &str, digit: &str| format!("    - {{url: '{url}', sha256: {}}}\n", digit.repeat(64));
        for (url, expected) in [
            ("file:///etc/passwd", "http or https"),
            ("ftp://example.org/x", "http or https"),
            ("https://me:secret@example.org/x", "credentials"),
            ("https://example.org/", "names no file"),
            ("https://example.org/a%2Fb", "names no file"),
            ("https://example.org/a%0Ab", "names no file"),
            ("https://example.org/a%ffb", "names no file"),
            ("https://example.org/a%5Cb", "names no file"),
            ("https://example.org/a#b", "fragment"),
        ] {
            let error = files(&file(url, "0")).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("spec.files[0]"), "{url}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let twice = |other| files(&(file("https://a.b/c", "0") + &file("https://a.b/c?token=1", other)));
        assert_eq!(twice("0").unwrap().files.len(), 1);
        let error = twice("1").unwrap_err().to_string();
        assert!(error.contains("spec.files[1]") && error.contains("different digests"), "{error}");
        let digest = "ab".repeat(64);
        let sha512 = files(&format!("    - {{url: https://a.b/c, sha512: {digest}}}\n")).unwrap();
        assert_eq!(sha512.files[0].digest.to_string(), format!("sha512:{digest}"));
    }

    #[test]
    fn expires_at_a_time_or_after_a_day() {
        for (text, expected) in [
            ("2027-01-31", Some("2027-02-01T00:00:00Z")),
            ("2027-01-31T12:00:00Z", Some("2027-01-31T12:00:00Z")),
            ("next year", None),
        ] {
            let definition =
                parse(&WHOLE.replace("name: plant-7\n", &format!("name: plant-7\n  expires: {text}\n")));
            match expected {
                Some(expected) => assert_eq!(definition.unwrap().expires.unwrap().to_string(), expected),
                None => assert!(definition.unwrap_err().to_string().contains("metadata.expires")),
            }
        }
    }

    #[test]
    fn typos_are_named_with_their_line() {
        for (right, wrong, line) in [
            ("  images:\n", "  imagse:\n", "line 11"),
            ("    - ref: ghcr.io/acme/agent:2.4", "    - rfe: ghcr.io/acme/agent:2.4", "line 13"),
            ("    - k0s: v1.36.3+k0s.2", "    - k0ss: v1.36.3+k0s.2", "line 9"),
            ("  name: plant-7", "  name: Plant 7", "line 4"),
        ] {
            let error = parse(&WHOLE.replace(right, wrong)).unwrap_err().to_string();
            assert!(error.starts_with("plant.yaml, "), "{error}");
            assert!(error.contains(line), "{wrong}: {error}");
        }
    }

    #[test]
    fn values_are_checked() {
        for (right, wrong, expected) in [
            ("nginx:1.27", "Nginx:1.27", "upper-case"),
            ("linux/amd64", "windows/amd64", "which Windows"),
            ("containerd@1.7", "dockerd@1.7", "spec.runtimes"),
            ("oci://", "https://", "oci://"),
            ("v1alpha1", "v2", "`apiVersion`: this is `dray.dev/v2`, and this dray reads"),
            (
                "kind: Bundle",
                "kind: bundle",
                "line 2: `kind`: this is `bundle`, and this dray reads `Bundle`",
            ),
            ("sha256: e3", "sha256: zz", "hexadecimal"),
        ] {
            let error = parse(&WHOLE.replacen(right, wrong, 1)).unwrap_err().to_string();
            assert!(error.contains(expected), "{wrong}: {error}");
        }
        assert!(
            parse(&WHOLE.replace(
                "      sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n",
                ""
            ))
            .is_err()
        );
    }

    #[test]
    fn image_lists_are_relative_to_the_definition() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("apps.txt"), "# ours\nghcr.io/acme/x:1\n\nredis\n").unwrap();
        let path = dir.path().join("plant.yaml");
        std::fs::write(&path, format!("{WHOLE}  imageLists: [apps.txt]\n")).unwrap();
        let catalog = Catalog::builtin().unwrap();
        let definition = Definition::read(&path, &catalog).unwrap();
        assert_eq!(definition.images.len(), 4);
        assert_eq!(definition.images[3].reference.to_string(), "docker.io/library/redis:latest");
        assert_eq!(definition.images[3].source, "apps.txt");
        std::fs::remove_file(dir.path().join("apps.txt")).unwrap();
        assert!(Definition::read(&path, &catalog).unwrap_err().to_string().contains("apps.txt"));
    }
}
