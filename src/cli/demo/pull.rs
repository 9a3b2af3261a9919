//! Pulling as a node would: the runtime's own choice from the index, then every blob of it, checked.

use dray::oci::{Document, NodeKind, RepositoryName};
use dray::resolve::{Lock, LockedImage};
use dray::select::{self, Band};
use dray::upstream::Upstream;
use serde::Serialize;

use super::super::error::CliError;
use super::samples;

/// What one kind of node got.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pulled {
    pub(super) node: NodeKind,
    pub(super) ready: bool,
    /// How many images were pulled.
    pub(super) images: usize,
    /// The runtimes that pulled them.
    pub(super) clients: Vec<String>,
    /// Which pause each runtime took.
    pub(super) pause: Vec<String>,
}

/// Pulls every image that `node` needs, once as each runtime in the scope of the lock.
pub(super) async fn pull_as(node: &NodeKind, lock: &Lock, site: &Upstream) -> Result<Pulled, CliError> {
    let bands: Vec<&Band> =
        select::node_bands(node, &[]).into_iter().filter(|band| lock.covers(node, band)).collect();
    let mut pulled = Pulled {
        node: node.clone(),
        ready: !bands.is_empty(),
        images: 0,
        clients: bands.iter().map(|band| band.label()).collect(),
        pause: Vec::new(),
    };
    for image in lock.images.iter().filter(|image| needs(node, image)) {
        for band in &bands {
            let root = site.manifest(&image.reference).await?;
            match &root.document {
                Document::Image(_) => fetch(site, image.reference.name(), &root.document).await?,
                Document::Index(index) => {
                    let choice = band.choose(&node.platform(), &index.manifests);
                    for at in &choice.fetches {
                        let digest = &index.manifests[*at].digest;
                        let child = site.manifest_by_digest(image.reference.name(), digest).await?;
                        fetch(site, image.reference.name(), &child.document).await?;
                    }
                    pulled.ready &= choice.picks.is_some() && choice.runs;
                    let picked = choice
                        .picks
                        .and_then(|at| index.manifests[at].platform.as_ref())
                        .map(ToString::to_string);
                    if image.reference.to_string() == samples::PAUSE {
                        let picked = picked.unwrap_or_else(|| "nothing".to_owned());
                        if !pulled.pause.contains(&picked) {
                            pulled.pause.push(picked);
                        }
                    }
                }
            }
        }
        pulled.images += 1;
    }
    Ok(pulled)
}

fn needs(node: &NodeKind, image: &LockedImage) -> bool {
    let by_child = image.children.iter().any(|child| child.nodes.contains(node));
    let by_root = image.platform.as_ref().is_some_and(|platform| select::can_run(&node.platform(), platform));
    by_child || by_root
}

/// Fetches what a manifest refers to; the client checks every digest.
async fn fetch(site: &Upstream, name: &RepositoryName, document: &Document) -> Result<(), CliError> {
    if let Document::Image(image) = document {
        for blob in image.blobs() {
            site.small_blob(name, blob).await?;
        }
    }
    Ok(())
}
