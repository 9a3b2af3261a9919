//! What is asked for: each reference with the nodes that need it, the runtimes there, and on whose behalf.

use std::collections::BTreeMap;

use super::{CHARTS_LIST, Definition, Gap, NeededBy};
use crate::catalog::{Catalog, CatalogError, Problem, ReleaseId};
use crate::oci::{NodeKind, Reference};
use crate::select::{Band, Runtime, node_bands};

/// One node kind that needs an image.
#[derive(Clone, Debug)]
pub(super) struct Demand {
    pub(super) source: NeededBy,
    pub(super) node: NodeKind,
    /// The client bands that may run there.
    pub(super) bands: Vec<&'static Band>,
}

/// An image with everybody who needs it.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) demands: Vec<Demand>,
    /// Who wants it as it is, for no node in particular.
    pub(super) whole: Vec<NeededBy>,
}

/// Everything that a definition asks for.
#[derive(Debug, Default)]
pub(super) struct Demands {
    pub(super) images: BTreeMap<Reference, Wanted>,
    /// What the catalog has to say about the releases.
    pub(super) problems: Vec<(ReleaseId, Problem)>,
    /// Rows of the proof that have no image at all.
    pub(super) empty: Vec<Gap>,
}

impl Demands {
    /// Collects what `definition` asks for.
    pub(super) fn collect(definition: &Definition, catalog: &Catalog) -> Result<Self, CatalogError> {
        let mut demands = Self::default();
        let mut embedded = Vec::new();
        let mut all_known = !definition.releases.is_empty();
        for wanted in &definition.releases {
            let release = catalog.release(&wanted.id)?;
            let own = release
                .facts
                .containerd
                .as_deref()
                .and_then(|version| format!("containerd@{version}").parse().ok());
            all_known &= own.is_some();
            let runtimes = scope(&definition.runtimes, own.as_slice());
            embedded.extend(own.iter().cloned());
            let needs = catalog.needs(&wanted.id, &wanted.with, &definition.nodes)?;
            for need in &needs.images {
                let source =
                    NeededBy::Component { release: wanted.id.clone(), component: need.component.clone() };
                let asking: Vec<Runtime> =
                    need.runtimes.iter().filter_map(|text| text.parse().ok()).collect();
                for node in &need.nodes {
                    let bands = node_bands(node, &runtimes);
                    // A runtime's own sandbox image is of no use to the others.
                    let asks =
                        |band: &Band| asking.is_empty() || asking.iter().any(|runtime| runtime.covers(band));
                    if bands.is_empty() || bands.iter().any(|band| asks(band)) {
                        let bands = bands.into_iter().filter(|band| asks(band)).collect();
                        demands.add(&need.reference, source.clone(), node, bands);
                    }
                }
            }
            // Software that runs on any cluster, such as OpenKruise, need not run on every node of it.
            if release.kubernetes.is_some() {
                demands.check_rows(&wanted.id, &definition.nodes);
            }
            demands.problems.extend(needs.problems.into_iter().map(|problem| (wanted.id.clone(), problem)));
        }
        // Where every release brings its own runtime, the other images run on those as well.
        let runtimes = scope(&definition.runtimes, if all_known { &embedded } else { &[] });
        for image in &definition.images {
            for node in &image.nodes {
                let source = NeededBy::list(&image.source);
                demands.add(&image.reference, source, node, node_bands(node, &runtimes));
            }
        }
        for chart in &definition.charts {
            let wanted = demands.images.entry(chart.clone()).or_default();
            wanted.whole.push(NeededBy::list(CHARTS_LIST));
        }
        Ok(demands)
    }

    fn add(&mut self, reference: &Reference, source: NeededBy, node: &NodeKind, bands: Vec<&'static Band>) {
        if bands.is_empty() {
            self.empty.push(Gap {
                reference: Some(reference.clone()),
                node: Some(node.clone()),
                clients: Vec::new(),
                needed_by: vec![source.clone()],
                evidence: false,
                reason: "none of `spec.runtimes` runs on this node kind".to_owned(),
            });
        }
        let wanted = self.images.entry(reference.clone()).or_default();
        wanted.demands.push(Demand { source, node: node.clone(), bands });
    }

    /// A release without a single image for a node kind is complete only in appearance.
    fn check_rows(&mut self, release: &ReleaseId, nodes: &[NodeKind]) {
        for node in nodes {
            let needed = |wanted: &Wanted| {
                wanted
                    .demands
                    .iter()
                    .any(|demand| demand.source.release().as_ref() == Some(release) && demand.node == *node)
            };
            if !self.images.values().any(needed) {
                self.empty.push(Gap {
                    reference: None,
                    node: Some(node.clone()),
                    clients: Vec::new(),
                    needed_by: Vec::new(),
                    evidence: false,
                    reason: format!("the catalog knows no image of {release} that this node kind would run"),
                });
            }
        }
    }
}

/// The runtimes that count: what the definition states, or else what the releases bring.
fn scope(stated: &[Runtime], own: &[Runtime]) -> Vec<Runtime> {
    if stated.is_empty() { own.to_vec() } else { stated.to_vec() }
}
