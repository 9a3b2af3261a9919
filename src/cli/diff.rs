//! `dray diff`

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::Args;
use dray::bundle::Bundle;
use dray::oci::{Digest, Reference, RepositoryName, Tag};
use dray::resolve::Lock;
use serde::Serialize;

use super::error::CliError;
use super::output::human_bytes;
use super::runtime::Context;

/// Show what changed between two bundles
///
/// Compares images, node kinds, releases and bytes.
#[derive(Args)]
#[command(after_help = "Example:\n  dray diff last-month.tar today.tar")]
pub(crate) struct Diff {
    /// The bundle before
    #[arg(value_name = "OLD")]
    old: PathBuf,
    /// The bundle after
    #[arg(value_name = "NEW")]
    new: PathBuf,
}

/// A tag that both bundles have, with another content.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Changed {
    #[serde(rename = "ref")]
    reference: Reference,
    from: Digest,
    to: Digest,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Difference {
    added: Vec<Reference>,
    removed: Vec<Reference>,
    changed: Vec<Changed>,
    /// Images whose reference means the same, but of which other manifests are kept.
    kept_otherwise: Vec<Reference>,
    nodes_added: Vec<String>,
    nodes_removed: Vec<String>,
    releases_added: Vec<String>,
    releases_removed: Vec<String>,
    new_blobs: usize,
    new_bytes: u64,
}

impl Diff {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        let (old, new) = (Bundle::open(&self.old)?, Bundle::open(&self.new)?);
        let difference = Difference::between(old.lock(), new.lock());
        context.output.result(&difference, || difference.text())
    }
}

/// The tags that images of both bundles name, and that mean something else in the new one.
fn changed_tags(old: &Lock, new: &Lock) -> Vec<Changed> {
    let (before, after) = (old.tags(), new.tags());
    let tagged = new.images.iter().map(|image| &image.reference);
    let tagged: BTreeSet<_> = tagged.filter_map(|image| Some((image.name(), image.tag()?))).collect();
    let change = |(name, tag): (&RepositoryName, &Tag)| {
        let (from, to) = (&before.target(name, tag)?.digest, &after.target(name, tag)?.digest);
        let reference = Reference::new(name.clone(), Some(tag.clone()), None);
        (from != to).then(|| Changed { reference, from: from.clone(), to: to.clone() })
    };
    tagged.into_iter().filter_map(change).collect()
}

impl Difference {
    fn between(old: &Lock, new: &Lock) -> Self {
        let images = |lock: &'_ Lock| -> BTreeMap<Reference, (Digest, BTreeSet<Digest>)> {
            let kept = |image: &dray::resolve::LockedImage| image.kept_manifests().cloned().collect();
            lock.images.iter().map(|i| (i.reference.clone(), (i.root.digest.clone(), kept(i)))).collect()
        };
        let (before, after) = (images(old), images(new));
        let changed = changed_tags(old, new);
        let mut kept_otherwise = Vec::new();
        for (reference, (root, kept)) in &after {
            match before.get(reference) {
                Some((was, were)) if was == root && were != kept => kept_otherwise.push(reference.clone()),
                _ => {}
            }
        }
        let there: BTreeSet<&Digest> = old.blobs.iter().map(|blob| &blob.digest).collect();
        let fresh = new.blobs.iter().filter(|blob| !there.contains(&blob.digest));
        let nodes = |lock: &Lock| lock.nodes.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        let releases = |lock: &Lock| lock.releases.iter().map(|r| r.release.clone()).collect::<BTreeSet<_>>();
        Self {
            added: after.keys().filter(|image| !before.contains_key(image)).cloned().collect(),
            removed: before.keys().filter(|image| !after.contains_key(image)).cloned().collect(),
            changed,
            kept_otherwise,
            nodes_added: nodes(new).difference(&nodes(old)).cloned().collect(),
            nodes_removed: nodes(old).difference(&nodes(new)).cloned().collect(),
            releases_added: releases(new).difference(&releases(old)).cloned().collect(),
            releases_removed: releases(old).difference(&releases(new)).cloned().collect(),
            new_blobs: fresh.clone().count(),
            new_bytes: fresh.map(|blob| blob.size).sum(),
        }
    }

    fn text(&self) -> String {
        let mut lines = Vec::new();
        for (mark, texts) in [
            ("+ release", &self.releases_added),
            ("- release", &self.releases_removed),
            ("+ node", &self.nodes_added),
            ("- node", &self.nodes_removed),
        ] {
            lines.extend(texts.iter().map(|text| format!("{mark} {text}")));
        }
        lines.extend(self.added.iter().map(|image| format!("+ {image}")));
        lines.extend(self.removed.iter().map(|image| format!("- {image}")));
        let changed =
            |image: &Changed| format!("~ {} {} -> {}", image.reference, image.from.short(), image.to.short());
        lines.extend(self.changed.iter().map(changed));
        lines.extend(
            self.kept_otherwise.iter().map(|image| format!("~ {image} is kept for other node kinds")),
        );
        if lines.is_empty() {
            lines.push("no image differs".to_owned());
        }
        lines.push(format!("{} blobs are new, {}", self.new_blobs, human_bytes(self.new_bytes)));
        lines.join("\n")
    }
}
