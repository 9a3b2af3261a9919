//! `dray plan`

use std::collections::BTreeMap;

use clap::Args;
use dray::oci::Digest;
use dray::resolve::{Lock, LockedImage};
use dray::text::counted;
use serde::Serialize;

use super::error::CliError;
use super::inputs::{Allowances, Source};
use super::output::{human_bytes, table};
use super::runtime::Context;
use super::since::{self, Since};

/// Estimate the size of a bundle before downloading it
///
/// Bytes by release, node kind and image. Blobs that several of them share count in each, so the parts add up to more
/// than the whole. With --since also what it would be without.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  dray plan -f plant.yaml\n  dray plan --lock plant.lock --since site.inv\n  dray plan --lock plant.lock --format json"
)]
pub(crate) struct Plan {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    since: Since,
    #[command(flatten)]
    allowances: Allowances,
}

#[derive(Serialize)]
struct Size {
    name: String,
    images: usize,
    bytes: u64,
    /// What nothing else in the same list needs.
    own: u64,
    /// The bytes with what is left out.
    whole: u64,
}

#[derive(Serialize)]
struct Sizes {
    name: String,
    bytes: u64,
    blobs: usize,
    /// The bytes that are left out, because the site has them.
    required: u64,
    /// The bytes with what is left out.
    whole: u64,
    releases: Vec<Size>,
    nodes: Vec<Size>,
    images: Vec<Size>,
}

impl Plan {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        let inventory = self.since.inventory()?;
        let lock = self.source.lock(context, &self.allowances, None)?;
        let sizes = sizes(&since::leave_out(context, lock, inventory.as_ref())?);
        context.output.result(&sizes, || sizes.text())
    }
}

impl Sizes {
    fn text(&self) -> String {
        let mut text =
            format!("{}: {} in {}", self.name, human_bytes(self.bytes), counted(self.blobs, "blob"));
        if self.required > 0 {
            text.extend([format!(
                "; {} without --since, of which the site has {}",
                human_bytes(self.whole),
                human_bytes(self.required)
            )]);
        }
        text.push('\n');
        for (heading, list) in
            [("release", &self.releases), ("node kind", &self.nodes), ("image", &self.images)]
        {
            text.push('\n');
            text.push_str(&listing(heading, list, self.required > 0));
        }
        text
    }
}

fn sizes(lock: &Lock) -> Sizes {
    let carried = lock.blobs.iter().map(|blob| (&blob.digest, Blob { size: blob.size, carried: true }));
    let required = lock.requires.iter().map(|blob| (&blob.digest, Blob { size: blob.size, carried: false }));
    let of: BTreeMap<&Digest, Blob> = carried.chain(required).collect();
    let everything =
        |image: &'_ LockedImage| image.manifests().chain(image.contents()).cloned().collect::<Vec<_>>();
    let releases = lock.releases.iter().map(|release| {
        let belongs = |image: &&LockedImage| image.needed_by.iter().any(|by| by.is_release(&release.release));
        (release.release.clone(), lock.images.iter().filter(belongs).map(everything).collect())
    });
    let nodes = lock.nodes.iter().map(|node| {
        let needed = lock.images.iter().map(|image| image.needed_on(node).cloned().collect::<Vec<_>>());
        (node.to_string(), needed.filter(|digests| !digests.is_empty()).collect())
    });
    let images = lock.images.iter().map(|image| (image.reference.to_string(), vec![everything(image)]));
    let mut images = measure(&images.collect::<Vec<_>>(), &of);
    images.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
    Sizes {
        name: lock.name.to_string(),
        bytes: lock.total_bytes(),
        blobs: lock.blobs.len(),
        required: lock.required_bytes(),
        whole: lock.total_bytes() + lock.required_bytes(),
        releases: measure(&releases.collect::<Vec<_>>(), &of),
        nodes: measure(&nodes.collect::<Vec<_>>(), &of),
        images,
    }
}

/// What a digest stands for: its bytes, and whether they travel.
struct Blob {
    size: u64,
    carried: bool,
}

/// The sizes of groups of images, each a list of digests.
fn measure(groups: &[(String, Vec<Vec<Digest>>)], of: &BTreeMap<&Digest, Blob>) -> Vec<Size> {
    let mut owners: BTreeMap<&Digest, (usize, bool)> = BTreeMap::new();
    for (nth, (_, images)) in groups.iter().enumerate() {
        for digest in images.iter().flatten() {
            let owner = owners.entry(digest).or_insert((nth, true));
            owner.1 &= owner.0 == nth;
        }
    }
    let size = |(nth, (name, images)): (usize, &(String, Vec<Vec<Digest>>))| {
        let mut digests: Vec<&Digest> = images.iter().flatten().collect();
        digests.sort();
        digests.dedup();
        let blobs = || digests.iter().filter_map(|digest| Some((*digest, of.get(digest)?)));
        let carried = || blobs().filter(|(_, blob)| blob.carried);
        Size {
            name: name.clone(),
            images: images.len(),
            bytes: carried().map(|(_, blob)| blob.size).sum(),
            own: carried()
                .filter(|(digest, _)| owners[digest] == (nth, true))
                .map(|(_, blob)| blob.size)
                .sum(),
            whole: blobs().map(|(_, blob)| blob.size).sum(),
        }
    };
    groups.iter().enumerate().map(size).collect()
}

fn listing(heading: &str, sizes: &[Size], delta: bool) -> String {
    if sizes.is_empty() {
        return String::new();
    }
    let mut rows = vec![vec![heading.to_owned(), "images".into(), "bytes".into(), "of its own".into()]];
    rows[0].extend(delta.then(|| "without --since".into()));
    for size in sizes {
        let mut row =
            vec![size.name.clone(), size.images.to_string(), human_bytes(size.bytes), human_bytes(size.own)];
        row.extend(delta.then(|| human_bytes(size.whole)));
        rows.push(row);
    }
    table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_blobs_count_in_each_but_belong_to_none() {
        let digest = |text: &str| Digest::sha256(text.as_bytes());
        let (shared, own) = (digest("shared"), digest("own"));
        let required = digest("required");
        let blob = |size, carried| Blob { size, carried };
        let of = BTreeMap::from([
            (&shared, blob(100, true)),
            (&own, blob(7, true)),
            (&required, blob(1000, false)),
        ]);
        let groups = vec![
            ("a".to_owned(), vec![vec![shared.clone(), own.clone(), required.clone()], vec![shared.clone()]]),
            ("b".to_owned(), vec![vec![shared.clone()]]),
        ];
        let sizes = measure(&groups, &of);
        assert_eq!((sizes[0].images, sizes[0].bytes, sizes[0].own, sizes[0].whole), (2, 107, 7, 1107));
        assert_eq!((sizes[1].images, sizes[1].bytes, sizes[1].own), (1, 100, 0));
    }
}
