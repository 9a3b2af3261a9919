//! The definition: the YAML that a person writes.

use std::fmt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Deserialize;

use super::document::{Document, Entry, FileEntry, List, ReleaseEntry};
use super::lock::address_of;
use super::{BundleName, IMAGES_LIST, Programs};
use crate::catalog::{Catalog, CatalogError, ImageList, ImageListError, ReleaseId};
use crate::input::yaml::{self, Node};
use crate::input::{self, DocumentError, InputError};
use crate::oci::{Digest, NodeKind, Reference};
use crate::select::{self, Runtime, UnknownVersion};

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
    /// The catalog does not have a release as it is named.
    #[error("{}, line {line}: `{field}`: {source}", input::name(path))]
    Release {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// The field.
        field: String,
        /// What the catalog says.
        source: Box<CatalogError>,
    },
    /// An image list that it names cannot be used.
    #[error(transparent)]
    List(#[from] ImageListError),
}

/// Something in a definition that can be meant, but is probably a mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DefinitionWarning {
    /// An image list names no image.
    EmptyList {
        /// The file.
        path: PathBuf,
    },
    /// A runtime has a version that nobody has released.
    UnknownVersion {
        /// The definition.
        path: PathBuf,
        /// What is unknown.
        unknown: UnknownVersion,
    },
}

impl fmt::Display for DefinitionWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyList { path } => write!(f, "{}: the list has no image reference", input::name(path)),
            Self::UnknownVersion { path, unknown } => {
                write!(f, "{}: `spec.runtimes`: {unknown}", input::name(path))
            }
        }
    }
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
    /// The container runtimes on the nodes; empty for what the releases ship, or else what is still supported.
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
    /// What is carried of children that no node kind fetches, where an image does not say otherwise.
    pub child_metadata: ChildMetadata,
    /// What is probably a mistake.
    pub warnings: Vec<DefinitionWarning>,
}

/// What is carried of the children of an index that no node kind fetches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ChildMetadata {
    /// Nothing.
    Needed,
    /// Their manifests and configurations.
    #[default]
    All,
}

/// A release in a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedRelease {
    /// The release.
    pub id: ReleaseId,
    /// Features beyond its default configuration.
    pub with: Vec<String>,
    /// How its programs reach the nodes; `None` if `files` has to list them.
    pub programs: Option<Programs>,
}

/// An image in a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedImage {
    /// The reference.
    pub reference: Reference,
    /// The node kinds that need it.
    pub nodes: Vec<NodeKind>,
    /// Whether only those of `nodes` need it whose operating system and architecture the image has.
    pub auto: bool,
    /// Where the definition names it: `images`, or the file of an image list.
    pub source: String,
    /// What is carried of children that no node kind fetches; `None` for what the definition says for all images.
    pub child_metadata: Option<ChildMetadata>,
}

/// A file in a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedFile {
    /// Where it is.
    pub url: url::Url,
    /// What it must hash to.
    pub digest: Digest,
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
        let default = match &spec.image_nodes {
            Some(list) => self.needing("spec.imageNodes", list, &nodes)?,
            None => (nodes.clone(), false),
        };
        let needing = |field: String, own: Option<&List<String>>| match own {
            Some(list) => self.needing(&format!("{field}.nodes"), list, &nodes),
            None => Ok(default.clone()),
        };
        let mut warnings = Vec::new();
        let mut images = Vec::new();
        for (nth, Entry { subject, nodes, child_metadata, .. }) in spec.images.0.iter().enumerate() {
            let field = format!("spec.images[{nth}]");
            let reference = self.parsed(&field, subject)?;
            let (nodes, auto) = needing(field, nodes.as_ref())?;
            let (source, child_metadata) = (IMAGES_LIST.to_owned(), *child_metadata);
            images.push(WantedImage { reference, nodes, auto, source, child_metadata });
        }
        let mut list_files = Vec::new();
        for (nth, Entry { subject: list, nodes, .. }) in spec.image_lists.0.iter().enumerate() {
            let (nodes, auto) = needing(format!("spec.imageLists[{nth}]"), nodes.as_ref())?;
            let path = self.path.parent().unwrap_or(Path::new("")).join(list);
            let references = ImageList::read(&path)?.images;
            let image = |reference| WantedImage {
                reference,
                nodes: nodes.clone(),
                auto,
                source: list.clone(),
                child_metadata: None,
            };
            if references.is_empty() {
                warnings.push(DefinitionWarning::EmptyList { path: path.clone() });
            }
            images.extend(references.into_iter().map(image));
            list_files.push(path);
        }
        let definition = Definition {
            name: document.metadata.name,
            sequence: document.metadata.sequence,
            expires: document.metadata.expires.map(|text| self.expiry(&text)).transpose()?,
            runtimes: self.runtimes(&spec.runtimes, &mut warnings)?,
            releases: self.releases(spec.releases)?,
            images,
            charts: self.charts(&spec.charts)?,
            files: self.files(spec.files)?,
            list_files,
            evidence: spec.evidence,
            child_metadata: spec.child_metadata.unwrap_or_default(),
            nodes,
            warnings,
        };
        self.check_content(&definition)?;
        Ok(definition)
    }

    /// Refuses a definition of a bundle in which there would be nothing.
    fn check_content(&self, definition: &Definition) -> Result<(), DefinitionError> {
        let Definition { releases, images, charts, files, warnings, .. } = definition;
        if !(releases.is_empty() && images.is_empty() && charts.is_empty() && files.is_empty()) {
            return Ok(());
        }
        let empty = warnings.iter().filter_map(|warning| match warning {
            DefinitionWarning::EmptyList { path } => Some(input::name(path)),
            DefinitionWarning::UnknownVersion { .. } => None,
        });
        let lists = empty.collect::<Vec<_>>().join(", ");
        let message = if lists.is_empty() {
            "the bundle would be empty; name releases, images, imageLists, charts or files".to_owned()
        } else {
            format!("the bundle would be empty, because there is no image reference in {lists}")
        };
        Err(self.field("spec", message))
    }

    fn runtimes(
        &self,
        texts: &List<String>,
        warnings: &mut Vec<DefinitionWarning>,
    ) -> Result<Vec<Runtime>, DefinitionError> {
        let runtimes: Vec<Runtime> =
            texts.0.iter().map(|text| self.parsed("spec.runtimes", text)).collect::<Result<_, _>>()?;
        let unknown = runtimes.iter().filter_map(|one| select::unknown_version(one, self.catalog.runtimes()));
        let warning = |unknown| DefinitionWarning::UnknownVersion { path: self.path.to_owned(), unknown };
        warnings.extend(unknown.map(warning));
        Ok(runtimes)
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

    fn releases(&self, entries: List<ReleaseEntry>) -> Result<Vec<WantedRelease>, DefinitionError> {
        let one = |(nth, entry): (usize, ReleaseEntry)| {
            let field = format!("spec.releases[{nth}]");
            let named = [
                ("k0s", entry.k0s),
                ("kubeadm", entry.kubeadm),
                ("k3s", entry.k3s),
                ("rke2", entry.rke2),
                ("openkruise", entry.openkruise),
            ];
            let mut named = named.into_iter().filter_map(|(distro, version)| Some((distro, version?)));
            let (Some((distro, version)), None) = (named.next(), named.next()) else {
                return Err(self.field(&field, "name one release, e.g. `k0s: v1.36.3+k0s.2`"));
            };
            let line = self.tree.line_of(&field);
            let named = |error| DefinitionError::Release {
                path: self.path.to_owned(),
                line,
                field,
                source: Box::new(error),
            };
            let id: ReleaseId = match format!("{distro}@{version}").parse() {
                Ok(id) => id,
                Err(error) => return Err(named(error)),
            };
            self.catalog.release_with(&id, &entry.with.0).map_err(named)?;
            Ok(WantedRelease { id, with: entry.with.0, programs: entry.programs })
        };
        entries.0.into_iter().enumerate().map(one).collect()
    }

    fn charts(&self, charts: &List<String>) -> Result<Vec<Reference>, DefinitionError> {
        let one = |(nth, text): (usize, &String)| {
            let field = format!("spec.charts[{nth}]");
            match text.strip_prefix("oci://") {
                Some(reference) => {
                    Reference::of_chart(reference).map_err(|error| self.field(&field, error.to_string()))
                }
                None => Err(self.field(&field, format!("`{text}` does not start with oci://"))),
            }
        };
        charts.0.iter().enumerate().map(one).collect()
    }

    fn files(&self, entries: List<FileEntry>) -> Result<Vec<WantedFile>, DefinitionError> {
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
        for (nth, entry) in entries.0.into_iter().enumerate() {
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

    fn node_kinds(&self, field: &str, texts: &List<String>) -> Result<Vec<NodeKind>, DefinitionError> {
        let mut kinds = Vec::new();
        for text in &texts.0 {
            let kind = self.catalog.node_kind(text).map_err(|error| self.field(field, error.to_string()))?;
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        if kinds.is_empty() {
            return Err(self.field(field, "name at least one node kind, e.g. linux/amd64"));
        }
        Ok(kinds)
    }

    /// The node kinds that need an image, among those of the site, and whether the image narrows them down.
    fn needing(
        &self,
        field: &str,
        texts: &List<String>,
        site: &[NodeKind],
    ) -> Result<(Vec<NodeKind>, bool), DefinitionError> {
        if texts.0 == ["auto"] {
            return Ok((site.to_vec(), true));
        }
        let kinds = self.node_kinds(field, texts)?;
        match kinds.iter().find(|kind| !site.contains(kind)) {
            Some(kind) => Err(self.field(field, format!("{kind} is not among `spec.nodes`"))),
            None => Ok((kinds, false)),
        }
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
    fn one_value_is_a_list_of_one_and_null_is_none() {
        let text = "apiVersion: dray.dev/v1alpha1\nkind: Bundle\nmetadata: {name: w}\nspec:\n  nodes: linux/amd64\n  \
                    runtimes: containerd://1.7.27\n  releases: {k0s: 1.36.3-k0s.2, with: calico}\n  images:\n  \
                    charts: oci://ghcr.io/acme/chart:1\n  imageLists: ~\n  files:\n";
        let definition = parse(text).unwrap();
        assert_eq!(definition.nodes.len(), 1);
        assert_eq!(definition.runtimes[0].to_string(), "containerd@1.7.27");
        assert_eq!(definition.releases[0].id.to_string(), "k0s@v1.36.3+k0s.2");
        assert_eq!(definition.releases[0].with, ["calico"]);
        assert_eq!((definition.images.len(), definition.charts.len(), definition.files.len()), (0, 1, 0));
        let one = parse(&text.replace("images:\n", "images: {ref: nginx, nodes: linux/amd64}\n")).unwrap();
        assert_eq!(one.images[0].nodes, one.nodes);
        assert!(parse(&text.replace("runtimes: containerd://1.7.27", "runtimes: 1.7")).is_err());
    }

    #[test]
    fn images_need_the_nodes_that_are_nearest_stated() {
        let nodes = |more: &str| {
            let definition = parse(&format!("{WHOLE}{more}")).unwrap();
            definition.images.iter().map(|image| (image.nodes.len(), image.auto)).collect::<Vec<_>>()
        };
        assert_eq!(nodes(""), [(2, false), (1, false)]);
        assert_eq!(nodes("  imageNodes: auto\n"), [(2, true), (1, false)]);
        assert_eq!(nodes("  imageNodes: linux/amd64\n"), [(1, false), (1, false)]);
        let auto = parse(&WHOLE.replace("nodes: [windows/ltsc2022]", "nodes: auto")).unwrap();
        assert!(auto.images[1].auto && auto.images[1].nodes == auto.nodes);
    }

    #[test]
    fn nodes_outside_the_site_are_refused() {
        for (more, field) in [
            ("  imageNodes: [linux/arm64]\n", "spec.imageNodes"),
            ("  imageLists: [{file: a.txt, nodes: windows/ltsc2019}]\n", "spec.imageLists[0].nodes"),
        ] {
            let error = parse(&format!("{WHOLE}{more}")).unwrap_err().to_string();
            assert!(error.contains(field) && error.contains("is not among `spec.nodes`"), "{error}");
        }
        for (nodes, expected) in [
            ("[windows/ltsc2025]", "windows(10.0.26100)/amd64 is not among `spec.nodes`"),
            ("[]", "at least one"),
            ("[auto, linux/amd64]", "auto"),
        ] {
            let text = WHOLE.replace("nodes: [windows/ltsc2022]", &format!("nodes: {nodes}"));
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.contains("spec.images[1].nodes") && error.contains(expected), "{nodes}: {error}");
        }
    }

    #[test]
    fn releases_are_named_by_their_place() {
        for (version, expected) in [
            ("v1.36.3", "the newest of v1.36.3 is v1.36.3+k0s.2"),
            ("v1.36", "the newest of v1.36 is v1.36.3+k0s.2"),
            ("v1.99.0+k0s.0", "the catalog does not know k0s@v1.99.0+k0s.0"),
            ("latest", "`k0s@latest` is not a release"),
        ] {
            let error = parse(&WHOLE.replace("v1.36.3+k0s.2\n      with", &format!("{version}\n      with")));
            let error = error.unwrap_err().to_string();
            assert!(error.starts_with("plant.yaml, line 9: `spec.releases[0]`: "), "{error}");
            assert!(error.contains(expected), "{error}");
        }
        let feature = parse(&WHOLE.replace("nllb:traefik", "nllb:haproxy")).unwrap_err().to_string();
        assert!(
            feature.contains("`spec.releases[0]`: ") && feature.contains("no feature `nllb:haproxy`"),
            "{feature}"
        );
    }

    #[test]
    fn programs_come_from_elsewhere_or_are_listed() {
        let with = |value: &str| {
            parse(&WHOLE.replace("nllb:traefik]\n", &format!("nllb:traefik]\n      programs: {value}\n")))
        };
        assert_eq!(with("elsewhere").unwrap().releases[0].programs, Some(Programs::Elsewhere));
        assert_eq!(with("").unwrap().releases[0].programs, None);
        for value in ["true", "here"] {
            let error = with(value).unwrap_err().to_string();
            let said = error.starts_with("plant.yaml, line 11: `spec.releases[0].programs`: ");
            let names = error.contains(&format!("`{value}`")) && error.contains("`elsewhere`");
            assert!(said && names, "{value}: {error}");
        }
    }

    #[test]
    fn bundle_with_nothing_in_it_is_refused() {
        let start =
            "apiVersion: dray.dev/v1alpha1\nkind: Bundle\nmetadata: {name: e}\nspec:\n  nodes: linux/amd64\n";
        let error = parse(start).unwrap_err().to_string();
        assert!(error.starts_with("plant.yaml, line 4: `spec`: the bundle would be empty"), "{error}");
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("apps.txt"), "# nothing\n").unwrap();
        let path = dir.path().join("plant.yaml");
        let read = |more: &str| {
            std::fs::write(&path, format!("{start}{more}  imageLists: [apps.txt]\n")).unwrap();
            Definition::read(&path, &Catalog::builtin().unwrap())
        };
        let error = read("").unwrap_err().to_string();
        assert!(error.contains("no image reference in ") && error.ends_with("apps.txt"), "{error}");
        let warnings = read("  images: nginx\n").unwrap().warnings;
        assert!(
            matches!(&warnings[..], [DefinitionWarning::EmptyList { path }] if path.ends_with("apps.txt"))
        );
    }

    #[test]
    fn unknown_versions_of_runtimes_are_warned_of() {
        let warnings = parse(&WHOLE.replace("containerd@1.7,", "containerd@17,")).unwrap().warnings;
        let [warning] = &warnings[..] else { panic!("{warnings:?}") };
        let text = warning.to_string();
        assert!(text.starts_with("plant.yaml: `spec.runtimes`: `containerd@17` is newer"), "{text}");
        assert!(text.ends_with("did you mean containerd@1.7?"), "{text}");
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
        let narrow =
            "  imageLists: [{file: apps.txt, nodes: [linux/amd64]}, {file: apps.txt, nodes: auto}]\n";
        std::fs::write(&path, format!("{WHOLE}{narrow}")).unwrap();
        let images = Definition::read(&path, &catalog).unwrap().images;
        let nodes: Vec<_> = images[2..].iter().map(|image| (image.nodes.len(), image.auto)).collect();
        assert_eq!(nodes, [(1, false), (1, false), (2, true), (2, true)]);
        std::fs::remove_file(dir.path().join("apps.txt")).unwrap();
        assert!(Definition::read(&path, &catalog).unwrap_err().to_string().contains("apps.txt"));
    }

    #[test]
    fn all_fields_that_are_missing_are_named_at_once() {
        for (text, expected) in [
            ("", "plant.yaml is empty".to_owned()),
            (
                "spec: {}\n",
                "plant.yaml has 4 errors\n  line 1: `spec.nodes` is missing\n  line 1: `apiVersion` is missing\n  \
                 line 1: `kind` is missing\n  line 1: `metadata.name` is missing"
                    .to_owned(),
            ),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), expected);
        }
        let error = parse(&WHOLE.replace("k0s: v1.36.3+k0s.2", "k0s: 1.36")).unwrap_err().to_string();
        assert_eq!(
            error,
            "plant.yaml, line 9: `spec.releases[0].k0s` is the number 1.36, and text is needed; put it in quotes"
        );
    }

    /// Words of parsers and of this program's inside.
    const FOREIGN: [&str; 22] = [
        "sequence",
        "mapping",
        "scalar",
        "struct",
        "enum",
        "string",
        "integer",
        "expected",
        "unexpected",
        "EOF",
        "eof",
        "<input>",
        "from_str",
        "serde",
        "visitor",
        "token",
        "Policy",
        "anchor",
        "u64",
        "usize",
        "option",
        "error:",
    ];

    fn mutated(text: &str, at: usize, how: usize) -> String {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let nth = at % lines.len();
        let line = lines[nth].clone();
        let cut = line.char_indices().map(|(at, _)| at).nth(at % line.len().max(1)).unwrap_or(0);
        let insert = |what: &str| format!("{}{what}{}", &line[..cut], &line[cut..]);
        match how % 20 {
            0 => _ = lines.remove(nth),
            1 => lines.insert(nth, line),
            2 => lines[nth] = format!("\t{}", line.trim_start()),
            3 => lines[nth] = format!("  {line}"),
            4 => lines[nth] = line.trim_start().to_owned(),
            5 => lines[nth] = line[..cut].to_owned(),
            6 => lines.insert(nth, "---".to_owned()),
            7 => lines[nth] = line.split_once(':').map_or(line.clone(), |(name, _)| format!("{name}:")),
            8 => lines[nth] = line.split_once(':').map_or(line.clone(), |(name, _)| format!("{name}: 1.10")),
            9 => lines[nth] = line.split_once(':').map_or(line.clone(), |(name, _)| format!("{name}: on")),
            10 => {
                lines[nth] =
                    line.split_once(':').map_or(line.clone(), |(name, _)| format!("{name}: [a, {{b: c}}]"));
            }
            other => lines[nth] = insert(["'", "\"", "[", "}", ": ", "*", "&x ", "!", "@"][other - 11]),
        }
        lines.join("\n")
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(500))]

        #[test]
        fn mistakes_are_told_in_our_words_with_file_and_line(
            mistakes in proptest::collection::vec((0usize..10_000, 0usize..20), 1..4)
        ) {
            let text = mistakes.iter().fold(WHOLE.to_owned(), |text, (at, how)| mutated(&text, *at, *how));
            if let Err(error) = parse(&text) {
                let told = error.to_string();
                proptest::prop_assert!(told.starts_with("plant.yaml") && told.contains("line "), "{told}\n{text}");
                // What is quoted is the file's own.
                let words: String = told.split('`').step_by(2).collect();
                for word in FOREIGN {
                    proptest::prop_assert!(!words.contains(word), "{word}: {told}\n{text}");
                }
            }
        }
    }
}
