//! Where the catalog's files come from: those compiled in, and directories given on the command line.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::de::DeserializeOwned;

use super::CatalogError;
use crate::input::{self, yaml};

/// No catalog file is larger; the largest of ours has a few dozen kilobytes.
const MAX_FILE: u64 = 4 << 20;
/// No catalog directory has more entries.
const MAX_ENTRIES: usize = 4096;

/// Compiles files of `manifests/` in.
macro_rules! files {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/", $name, ".yaml")))),+]
    };
}

/// The files compiled in, by name, sorted.
pub(super) const BUILTIN: &[(&str, &str)] = files![
    "addons-containerd",
    "addons-windows",
    "k0s/1.27",
    "k0s/1.28",
    "k0s/1.29",
    "k0s/1.30",
    "k0s/1.31",
    "k0s/1.32",
    "k0s/1.33",
    "k0s/1.34",
    "k0s/1.35",
    "k0s/1.36",
    "k3s/1.24",
    "k3s/1.25",
    "k3s/1.26",
    "k3s/1.27",
    "k3s/1.28",
    "k3s/1.29",
    "k3s/1.30",
    "k3s/1.31",
    "k3s/1.32",
    "k3s/1.33",
    "k3s/1.34",
    "k3s/1.35",
    "k3s/1.36",
    "k3s/1.37",
    "kubeadm/1.24",
    "kubeadm/1.25",
    "kubeadm/1.26",
    "kubeadm/1.27",
    "kubeadm/1.28",
    "kubeadm/1.29",
    "kubeadm/1.30",
    "kubeadm/1.31",
    "kubeadm/1.32",
    "kubeadm/1.33",
    "kubeadm/1.34",
    "kubeadm/1.35",
    "kubeadm/1.36",
    "kubeadm/1.37",
    "openkruise",
    "problems",
    "rke2/1.24",
    "rke2/1.25",
    "rke2/1.26",
    "rke2/1.27",
    "rke2/1.28",
    "rke2/1.29",
    "rke2/1.30",
    "rke2/1.31",
    "rke2/1.32",
    "rke2/1.33",
    "rke2/1.34",
    "rke2/1.35",
    "rke2/1.36",
    "runtimes",
    "windows",
];

/// Whether a file describes the releases of a distribution; the others are tables and addons.
fn has_releases(name: &str) -> bool {
    !matches!(name, "problems" | "runtimes" | "windows") && !name.starts_with("addons-")
}

/// The text of a catalog file.
pub(super) struct Text {
    /// What messages call it.
    pub(super) label: String,
    text: Cow<'static, str>,
}

impl Text {
    /// Reads the text as YAML. Tags and versions need no quotes.
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, CatalogError> {
        Ok(yaml::parse_lenient(&self.label, &self.text)?)
    }
}

/// All files, those of later directories before those of earlier ones and before those compiled in.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// Directory and the names of its files, most important first.
    directories: Vec<(PathBuf, BTreeSet<String>)>,
}

impl Sources {
    /// The files compiled in, with directories that add to them or override them.
    pub(super) fn with_directories(directories: &[PathBuf]) -> Result<Self, CatalogError> {
        let scanned = directories.iter().rev().map(|path| Ok((path.clone(), scan(path)?)));
        Ok(Self { directories: scanned.collect::<Result<_, CatalogError>>()? })
    }

    /// The texts of a file by name (`k0s/1.36`), the most important first.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<Text>, CatalogError> {
        let mut texts = Vec::new();
        for (directory, names) in &self.directories {
            if names.contains(name) {
                let path = directory.join(format!("{name}.yaml"));
                let text = Cow::Owned(input::read_text(&path, MAX_FILE)?);
                texts.push(Text { label: path.display().to_string(), text });
            }
        }
        if let Ok(found) = BUILTIN.binary_search_by_key(&name, |(name, _)| name) {
            texts.push(Text {
                label: format!("manifests/{name}.yaml"),
                text: Cow::Borrowed(BUILTIN[found].1),
            });
        }
        Ok(texts)
    }

    /// The names of all files of releases: `k0s/1.36`, `openkruise`.
    pub(super) fn names(&self) -> BTreeSet<&str> {
        let own = BUILTIN.iter().map(|(name, _)| *name);
        let added = self.directories.iter().flat_map(|(_, names)| names).map(String::as_str);
        own.chain(added).filter(|name| has_releases(name)).collect()
    }
}

/// The names of the catalog files in a directory, and in directories in it.
fn scan(directory: &Path) -> Result<BTreeSet<String>, CatalogError> {
    let mut names = BTreeSet::new();
    for (path, name) in entries(directory)? {
        if path.is_dir() {
            let files = entries(&path)?;
            names.extend(
                files.iter().filter_map(|(path, file)| Some(format!("{name}/{}", stem(path, file)?))),
            );
        } else {
            names.extend(stem(&path, &name).map(str::to_owned));
        }
    }
    Ok(names)
}

/// The name of a catalog file without its extension; none for other files.
fn stem<'a>(path: &Path, name: &'a str) -> Option<&'a str> {
    name.strip_suffix(".yaml").filter(|_| path.is_file())
}

/// Paths and names of the entries of a directory.
fn entries(directory: &Path) -> Result<Vec<(PathBuf, String)>, CatalogError> {
    let read_error = |source| CatalogError::Read { path: directory.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(read_error)?.take(MAX_ENTRIES) {
        let entry = entry.map_err(read_error)?;
        if let Ok(name) = entry.file_name().into_string() {
            found.push((entry.path(), name));
        }
    }
    Ok(found)
}
