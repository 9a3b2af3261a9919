//! `dray inspect`

use std::path::PathBuf;

use clap::Args;
use dray::bundle::Bundle;
use dray::oci::{NodeKind, Reference, RepositoryName, Tag, TagMeaning, Tags};
use dray::resolve::{Lock, LockedImage, Programs};
use dray::text::counted;
use dray::trust::PublicKey;
use serde_json::{Value, json};

use super::error::CliError;
use super::inputs;
use super::output::{human_bytes, table};
use super::runtime::Context;

/// Show what a bundle contains
///
/// Prints its releases, node kinds, images and signatures, and the proof that it is complete.
///
/// Reads the structure and the lock, not the layers; `dray verify` reads everything.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  dray inspect plant.tar\n  dray inspect plant.tar --images\n  dray inspect plant.tar --trust release.pub --format json"
)]
pub(crate) struct Inspect {
    /// The bundle, one of its volumes, or the directory that they are in
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// Say of each signature whether it is by this public key, or one of this directory; may be repeated
    #[arg(long, value_name = "PUB", value_delimiter = ',')]
    trust: Vec<PathBuf>,
    /// List every image with what is kept of it
    #[arg(long)]
    images: bool,
}

impl Inspect {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        let bundle = Bundle::open(&self.bundle)?;
        let keys = inputs::public_keys(&self.trust)?;
        let signatures = signatures(&bundle, &keys);
        let lock = bundle.lock();
        let tags = lock.tags();
        inputs::warn_of_disputed(context, tags.disputed());
        let mut value = json!({
            "name": lock.name,
            "sequence": lock.sequence,
            "digest": bundle.index().digest,
            "expires": lock.expires,
            "signatures": signatures.iter().map(|(key, verified)| json!({"keyId": key, "verified": verified})).collect::<Vec<_>>(),
            "releases": lock.releases.iter().map(|release| &release.release).collect::<Vec<_>>(),
            "nodes": lock.nodes,
            "images": lock.images.len(),
            "disputedTags": tags.disputed().collect::<Vec<_>>(),
            "blobs": lock.blobs.len(),
            "bytes": bundle.len(),
            "volumes": bundle.volumes(),
            "requires": lock.requires,
            "proof": lock.proof,
            "allowedMissing": lock.allowed_missing,
            "allowedUnproved": lock.allowed_unproved,
        });
        if self.images {
            value["imageList"] = json!(lock.images);
            value["tagList"] = tag_list(&tags);
        }
        context.output.result(&value, || {
            let mut text = summary(&bundle, &signatures);
            text.push_str(&matrix(lock));
            if self.images {
                text.push_str(&image_list(lock, &tags));
            }
            text
        })
    }
}

/// Each signature: the key that it says it is by, and whether one of `keys` verifies it.
fn signatures(bundle: &Bundle, keys: &[PublicKey]) -> Vec<(String, bool)> {
    let all = bundle.signatures().map(|all| all.simple().signatures()).unwrap_or_default();
    all.iter()
        .map(|signature| {
            let by = keys.iter().find(|key| key.verifies(&bundle.claim().payload, &signature.der));
            let claimed = || signature.claimed_key.clone().unwrap_or_else(|| "unnamed".into());
            (by.map_or_else(claimed, |key| key.id().to_string()), by.is_some())
        })
        .collect()
}

fn summary(bundle: &Bundle, signatures: &[(String, bool)]) -> String {
    let lock = bundle.lock();
    let mut rows = vec![
        vec!["name".to_owned(), format!("{} (sequence {})", lock.name, lock.sequence)],
        vec!["digest".into(), bundle.index().digest.to_string()],
        vec![
            "content".into(),
            format!(
                "{}, {}, {}",
                counted(lock.images.len(), "image"),
                counted(lock.blobs.len(), "blob"),
                human_bytes(bundle.len())
            ),
        ],
    ];
    if bundle.volumes() > 1 {
        rows.push(vec!["volumes".into(), bundle.volumes().to_string()]);
    }
    if !lock.requires.is_empty() {
        let (blobs, bytes) = (counted(lock.requires.len(), "blob"), human_bytes(lock.required_bytes()));
        rows.push(vec!["left out".into(), format!("{blobs}, {bytes}, which the site must have")]);
    }
    if let Some(expires) = lock.expires {
        rows.push(vec!["expires".into(), expires.to_string()]);
    }
    for (key, verified) in signatures {
        let verdict = if *verified { "verified" } else { "not verified" };
        rows.push(vec!["signature".into(), format!("{key} ({verdict})")]);
    }
    if signatures.is_empty() {
        rows.push(vec!["signature".into(), "none".into()]);
    }
    for release in &lock.releases {
        let with = if release.with.is_empty() {
            String::new()
        } else {
            format!(" with {}", release.with.join(", "))
        };
        let programs = match release.programs {
            Some(Programs::Elsewhere) => "; programs elsewhere",
            None => "",
        };
        rows.push(vec!["release".into(), format!("{}{with}{programs}", release.release)]);
    }
    table(&rows)
}

/// The proof of completeness: a row for each release, a column for each node kind, the number of images in it.
fn matrix(lock: &Lock) -> String {
    if lock.proof.is_empty() {
        return String::new();
    }
    let mut releases: Vec<&str> = Vec::new();
    for row in &lock.proof {
        if !releases.contains(&row.release.as_str()) {
            releases.push(&row.release);
        }
    }
    let mut rows = vec![
        std::iter::once("complete for".to_owned())
            .chain(lock.nodes.iter().map(ToString::to_string))
            .collect(),
    ];
    for release in releases {
        let cell = |node: &NodeKind| {
            let row = lock.proof.iter().find(|row| row.release == release && row.node == *node);
            match row {
                None => "-".to_owned(),
                Some(row) if row.missing.is_empty() => counted(row.images, "image"),
                Some(row) => format!("{}, {} missing", counted(row.images, "image"), row.missing.len()),
            }
        };
        rows.push(std::iter::once(release.to_owned()).chain(lock.nodes.iter().map(cell)).collect::<Vec<_>>());
    }
    format!("\n{}", table(&rows))
}

/// Each tag with what it points at, and whether only pinned references set it.
fn tag_list(tags: &Tags) -> Value {
    let entry = |(name, tag, meaning): (_, _, &TagMeaning)| {
        let pinned = !matches!(meaning, TagMeaning::Unpinned(_));
        json!({
            "ref": Reference::new(RepositoryName::clone(name), Some(Tag::clone(tag)), None),
            "digest": meaning.target().map(|target| &target.digest),
            "pinned": pinned,
        })
    };
    tags.iter().map(entry).collect()
}

/// What is to be known about the tag of a pinned reference: it may mean something else.
fn note(image: &LockedImage, tags: &Tags) -> String {
    let (Some(_), Some(tag)) = (image.reference.digest(), image.reference.tag()) else {
        return String::new();
    };
    match tags.target(image.reference.name(), tag) {
        Some(target) if target.digest == image.root.digest => format!("sets the tag {tag}"),
        Some(target) => format!("by digest only: the tag {tag} is {}", target.digest.short()),
        None => format!("by digest only: the tag {tag} means nothing"),
    }
}

fn image_list(lock: &Lock, tags: &Tags) -> String {
    let mut rows = vec![vec!["image".to_owned(), "digest".into(), "kept for".into()]];
    for image in &lock.images {
        rows.push(vec![image.reference.to_string(), image.root.digest.to_string(), note(image, tags)]);
        for child in &image.children {
            let platform = child.platform.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
            let nodes: Vec<String> = if child.metadata_only {
                vec!["nobody (without layers)".to_owned()]
            } else {
                child.nodes.iter().map(ToString::to_string).collect()
            };
            rows.push(vec![format!("  {platform}"), child.digest.to_string(), nodes.join(", ")]);
        }
    }
    format!("\n{}", table(&rows))
}
