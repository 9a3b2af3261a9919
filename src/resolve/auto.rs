//! Which of the site's node kinds an image is for, where the definition leaves that to the image.

use std::collections::BTreeSet;

use super::demand::Wanted;
use super::tree::Reader;
use super::{Gap, GapKind, NeededBy};
use crate::oci::{Document, Image, Index, NodeKind, Platform, Reference};
use crate::select::Expansion;
use crate::upstream::{Manifests, UpstreamError};

/// What a reference leads to.
pub(super) enum Content<'a> {
    /// An index, with the entries that it leads to.
    Index(&'a Index, Expansion),
    /// An image without an index.
    Image(&'a Image),
}

/// Returns `wanted` without the node kinds that were left to the image and whose operating system and architecture it does
/// not have.
///
/// Builds of Windows and variants of an architecture are not looked at: an image that has Windows entries and none for
/// this build is missing for it. A gap if no node kind is left.
pub(super) async fn narrowed<M: Manifests>(
    reader: &Reader<'_, M>,
    reference: &Reference,
    content: &Content<'_>,
    wanted: &Wanted,
) -> Result<Result<Wanted, Box<Gap>>, UpstreamError> {
    if !wanted.demands.iter().any(|demand| demand.auto) {
        return Ok(Ok(wanted.clone()));
    }
    let platforms = platforms(reader, reference, content).await?;
    let mut narrowed = wanted.clone();
    // What states no platform at all, such as an artifact, is for every node.
    if !platforms.is_empty() {
        narrowed.demands.retain(|demand| !demand.auto || has(&platforms, &demand.node));
    }
    if narrowed.demands.iter().any(|demand| demand.auto) {
        return Ok(Ok(narrowed));
    }
    let auto = wanted.demands.iter().filter(|demand| demand.auto);
    let sources: BTreeSet<NeededBy> = auto.map(|demand| demand.source.clone()).collect();
    let kinds: BTreeSet<String> = platforms.iter().map(|platform| kind_of(platform).shown()).collect();
    let kinds: Vec<String> = kinds.into_iter().collect();
    let reason = format!("it is for {} only, which no node kind of the site is", kinds.join(", "));
    let gap = Gap::new(Some(reference.clone()), GapKind::Platform, reason);
    Ok(Err(Box::new(Gap { needed_by: sources.into_iter().collect(), ..gap })))
}

/// The platforms that the image has, as far as they are stated in the index or in configurations.
async fn platforms<M: Manifests>(
    reader: &Reader<'_, M>,
    reference: &Reference,
    content: &Content<'_>,
) -> Result<Vec<Platform>, UpstreamError> {
    let name = reference.name();
    let expansion = match content {
        Content::Index(_, expansion) => expansion,
        Content::Image(image) => return Ok(reader.platform_of(name, image).await?.into_iter().collect()),
    };
    let mut platforms = Vec::new();
    for entry in expansion.entries.iter().filter(|entry| !entry.is_attestation()) {
        if let Some(platform) = &entry.platform {
            platforms.push(platform.clone());
        } else if let Document::Image(image) = reader.document(name, &entry.digest).await? {
            platforms.extend(reader.platform_of(name, &image).await?);
        }
    }
    Ok(platforms)
}

fn has(platforms: &[Platform], node: &NodeKind) -> bool {
    platforms.iter().any(|platform| kind_of(platform) == kind_of(&node.platform()))
}

/// The operating system and the architecture of a platform, without what else it states.
fn kind_of(platform: &Platform) -> Platform {
    let Platform { architecture, os, .. } = platform.normalized();
    Platform { architecture, os, ..Platform::default() }
}
