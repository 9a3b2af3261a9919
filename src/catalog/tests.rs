//! Every file of `manifests/` is compiled in, consistent with itself and with the others.

use std::collections::BTreeSet;
use std::path::Path;

use super::component::Component;
use super::manifest::{AddonFile, ReleaseFile};
use super::problem::ProblemTable;
use super::release_id::compare_versions;
use super::source::{BUILTIN, Sources};
use super::windows::WindowsTable;
use crate::oci::WindowsBuild;

/// Parses a file of `manifests/`.
fn parse<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let texts = Sources::default().texts(name).unwrap();
    texts[0].parse().unwrap_or_else(|error| panic!("{error}"))
}

fn release_files() -> Vec<(String, ReleaseFile)> {
    let sources = Sources::default();
    sources.names().into_iter().map(|name| (name.to_owned(), parse(name))).collect()
}

fn addon_files() -> Vec<(&'static str, AddonFile)> {
    let names = BUILTIN.iter().map(|(name, _)| *name).filter(|name| name.starts_with("addons-"));
    names.map(|name| (name, parse(name))).collect()
}

#[test]
fn every_file_is_compiled_in() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests");
    let mut found = BTreeSet::new();
    let mut open = vec![root.clone()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(&root).unwrap().with_extension("");
                found.insert(name.to_str().unwrap().replace('\\', "/"));
            }
        }
    }
    let compiled: Vec<String> = BUILTIN.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(compiled, found.into_iter().collect::<Vec<_>>(), "src/catalog/source.rs lists them, sorted");
}

#[test]
fn every_file_describes_what_its_name_says() {
    for (name, file) in release_files() {
        let path = match &file.kubernetes {
            Some(minor) => format!("{}/{minor}", file.distribution),
            None => file.distribution.clone(),
        };
        assert_eq!(name, path);
        for entry in &file.releases {
            if let Some(minor) = &file.kubernetes {
                assert!(entry.version.starts_with(&format!("v{minor}.")), "{name}: {}", entry.version);
            }
        }
    }
}

#[test]
fn releases_are_sorted_and_complete() {
    for (name, file) in release_files() {
        assert!(!file.releases.is_empty(), "{name}");
        for pair in file.releases.windows(2) {
            let order = compare_versions(&pair[0].version, &pair[1].version);
            assert!(order.is_lt(), "{name}: {} does not come before {}", pair[0].version, pair[1].version);
        }
        for entry in &file.releases {
            let release = file.release(&name, &entry.version).unwrap().unwrap();
            assert!(!release.components.is_empty(), "{name}: {}", entry.version);
            let conditions: BTreeSet<&str> =
                release.components.iter().flat_map(|c| &c.component.when).map(String::as_str).collect();
            for feature in &release.defaults {
                assert!(conditions.contains(feature.as_str()), "{}: default {feature}", release.id);
            }
            assert!(
                release.windows_networks.is_empty()
                    || release.windows_networks.iter().any(|network| conditions.contains(network.as_str())),
                "{}: none of its networks for Windows has images",
                release.id
            );
            let known = |arch: &String| release.architectures.contains(arch);
            for component in &release.components {
                assert!(component.component.arch.iter().all(known), "{}: {component:?}", release.id);
            }
            for (feature, arch) in &release.feature_arch {
                assert!(conditions.contains(feature.as_str()), "{}: {feature}", release.id);
                assert!(arch.iter().all(known), "{}: {feature}: {arch:?}", release.id);
            }
        }
    }
}

/// The features that files may name, so that a typing error is not a new feature.
const FEATURES: [&str; 19] = [
    "calico",
    "calico-windows",
    "canal",
    "cilium",
    "csi-proxy",
    "eventflow-logger",
    "flannel",
    "flannel-windows",
    "harvester",
    "ingress-nginx",
    "kuberouter",
    "metrics-scraper",
    "multus",
    "nllb:envoy",
    "nllb:traefik",
    "suc",
    "traefik",
    "vsphere",
    "windows",
];

fn check_component(file: &str, component: &Component) {
    let name = &component.name;
    assert!(
        component.image.split('/').next().unwrap().contains('.'),
        "{file}: {name}: the image has no host"
    );
    assert!(!component.os.is_empty(), "{file}: {name}");
    for feature in &component.when {
        assert!(FEATURES.contains(&feature.as_str()), "{file}: {name}: unknown feature {feature}");
    }
    for build in &component.builds {
        assert!(build.parse::<WindowsBuild>().is_ok(), "{file}: {name}: {build}");
    }
    for runtime in &component.runtimes {
        let version =
            runtime.strip_prefix("containerd@").unwrap_or_else(|| panic!("{file}: {name}: {runtime}"));
        assert!(version.split('.').all(|part| part.parse::<u32>().is_ok()), "{file}: {name}: {runtime}");
    }
    if let Some(path) = &component.config {
        assert!(path.starts_with("spec."), "{file}: {name}: {path}");
    }
}

#[test]
fn components_are_named_once_and_make_sense() {
    for (name, file) in release_files() {
        let mut names = BTreeSet::new();
        for component in &file.components {
            assert!(names.insert(&component.name), "{name}: {} twice", component.name);
            check_component(&name, component);
        }
        for addon in &file.addons {
            assert!(BUILTIN.iter().any(|(name, _)| name == addon), "{name}: {addon}");
        }
    }
    for (name, file) in addon_files() {
        for component in &file.components {
            check_component(name, component);
            assert!(component.tag.is_some(), "{name}: {} has no tag", component.name);
        }
    }
}

#[test]
fn problems_have_a_text_and_are_used() {
    let table: ProblemTable = parse("problems");
    let mut used = BTreeSet::new();
    for (name, file) in release_files() {
        for entry in &file.releases {
            for id in file.release(&name, &entry.version).unwrap().unwrap().problems {
                assert!(table.problems.contains_key(&id), "{name}: {id} has no text in problems.yaml");
                used.insert(id);
            }
        }
    }
    assert_eq!(
        table.problems.keys().cloned().collect::<BTreeSet<_>>(),
        used,
        "problems.yaml has no more than that"
    );
    for (id, problem) in &table.problems {
        assert!(problem.when.iter().all(|feature| FEATURES.contains(&feature.as_str())), "{id}");
    }
}

#[test]
fn windows_releases_are_sorted_by_build() {
    let table: WindowsTable = parse("windows");
    assert!(table.builds.windows(2).all(|pair| pair[0].build < pair[1].build));
    let pauses: BTreeSet<_> = table.pause.iter().map(|pause| &pause.reference).collect();
    assert_eq!(pauses.len(), table.pause.len(), "each pause image once");
    for pause in &table.pause {
        for build in &pause.builds {
            assert!(table.release(*build).is_some(), "{}: {build} is not in the table", pause.reference);
        }
    }
}
