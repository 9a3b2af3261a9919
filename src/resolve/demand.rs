//! What is asked for: each reference with the nodes that need it, the runtimes there, and on whose behalf.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;

use super::{CHARTS_LIST, ChildMetadata, Definition, Gap, GapKind, NeededBy};
use crate::catalog::{Catalog, CatalogError, Problem, Release, ReleaseId};
use crate::oci::{NodeKind, Reference};
use crate::select::{self, Band, BandId, Runtime, node_bands};

/// One node kind that needs an image.
#[derive(Clone, Debug)]
pub(super) struct Demand {
    pub(super) source: NeededBy,
    pub(super) node: NodeKind,
    /// Whether the node kind counts only if the image has its operating system and architecture.
    pub(super) auto: bool,
    /// The client bands that may run there.
    pub(super) bands: Vec<&'static Band>,
}

/// An image with everybody who needs it.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) demands: Vec<Demand>,
    /// Who wants it as it is, for no node in particular.
    pub(super) whole: Vec<NeededBy>,
    /// What is carried of children that nobody needs.
    pub(super) child_metadata: ChildMetadata,
}

impl Wanted {
    /// Returns the node kinds that need the image.
    pub(super) fn nodes(&self) -> BTreeSet<NodeKind> {
        self.demands.iter().map(|demand| demand.node.clone()).collect()
    }

    /// Returns who needs the image.
    pub(super) fn sources(&self) -> BTreeSet<NeededBy> {
        self.demands.iter().map(|demand| &demand.source).chain(&self.whole).cloned().collect()
    }

    /// Returns who needs the image on these node kinds; everybody if there are none.
    pub(super) fn sources_on(&self, nodes: &BTreeSet<NodeKind>) -> BTreeSet<NeededBy> {
        if nodes.is_empty() {
            return self.sources();
        }
        let demands = self.demands.iter().filter(|demand| nodes.contains(&demand.node));
        demands.map(|demand| demand.source.clone()).collect()
    }
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
    /// Collects what `definition` asks for. Runtimes that it does not state are those of `day`.
    pub(super) fn collect(
        definition: &Definition,
        catalog: &Catalog,
        day: Date,
    ) -> Result<Self, CatalogError> {
        let mut demands = Self::default();
        let releases: Vec<Release> =
            definition.releases.iter().map(|wanted| catalog.release(&wanted.id)).collect::<Result<_, _>>()?;
        let scope = Scope::new(definition, catalog, &releases, day);
        for (wanted, release) in definition.releases.iter().zip(&releases) {
            let runtimes = scope.of(release);
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
                        demands.add(&need.reference, source.clone(), node, false, bands);
                    }
                }
            }
            // Software that runs on any cluster, such as OpenKruise, need not run on every node of it.
            if is_cluster(release) {
                demands.check_rows(&wanted.id, &definition.nodes);
            }
            demands.problems.extend(needs.problems.into_iter().map(|problem| (wanted.id.clone(), problem)));
        }
        for image in &definition.images {
            for node in &image.nodes {
                let source = NeededBy::list(&image.source);
                let bands = node_bands(node, &scope.everywhere);
                demands.add(&image.reference, source, node, image.auto, bands);
            }
        }
        for (reference, wanted) in &mut demands.images {
            let stated = definition.images.iter().filter(|image| image.reference == *reference);
            let stated = stated.filter_map(|image| image.child_metadata).max();
            wanted.child_metadata = stated.unwrap_or(definition.child_metadata);
        }
        for chart in &definition.charts {
            let wanted = demands.images.entry(chart.clone()).or_default();
            wanted.whole.push(NeededBy::list(CHARTS_LIST));
        }
        Ok(demands)
    }

    /// The bands that count for anything, sorted.
    pub(super) fn bands(&self) -> Vec<BandId> {
        let demands = self.images.values().flat_map(|wanted| &wanted.demands);
        let bands: BTreeSet<BandId> =
            demands.flat_map(|demand| &demand.bands).map(|band| band.id()).collect();
        bands.into_iter().collect()
    }

    fn add(
        &mut self,
        reference: &Reference,
        source: NeededBy,
        node: &NodeKind,
        auto: bool,
        bands: Vec<&'static Band>,
    ) {
        if bands.is_empty() {
            let reason = "none of `spec.runtimes` runs on this node kind".to_owned();
            self.empty.push(Gap {
                nodes: vec![node.clone()],
                needed_by: vec![source.clone()],
                ..Gap::new(Some(reference.clone()), GapKind::Scope, reason)
            });
        }
        let wanted = self.images.entry(reference.clone()).or_default();
        wanted.demands.push(Demand { source, node: node.clone(), auto, bands });
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
                let reason = format!("the catalog knows no image of {release} that this node kind would run");
                self.empty.push(Gap { nodes: vec![node.clone()], ..Gap::new(None, GapKind::Scope, reason) });
            }
        }
    }
}

/// The runtimes that count.
struct Scope {
    stated: bool,
    /// The runtimes for what does not bring its own.
    everywhere: Vec<Runtime>,
}

impl Scope {
    /// What the definition states; or else what its releases ship, and what is still supported on `day` if a cluster's
    /// release ships none or there is no cluster's release.
    fn new(definition: &Definition, catalog: &Catalog, releases: &[Release], day: Date) -> Self {
        if !definition.runtimes.is_empty() {
            return Self { stated: true, everywhere: definition.runtimes.clone() };
        }
        let mut everywhere: Vec<Runtime> = Vec::new();
        everywhere.extend(releases.iter().filter_map(shipped));
        // Software such as OpenKruise runs on the nodes of the other releases.
        if !releases.iter().any(is_cluster)
            || releases.iter().any(|one| is_cluster(one) && shipped(one).is_none())
        {
            everywhere.extend(select::supported(catalog.runtimes(), day));
        }
        Self { stated: false, everywhere }
    }

    /// The runtimes that the images of `release` have to suit.
    fn of(&self, release: &Release) -> Vec<Runtime> {
        match shipped(release) {
            Some(own) if !self.stated => vec![own],
            _ => self.everywhere.clone(),
        }
    }
}

/// The containerd inside a release.
fn shipped(release: &Release) -> Option<Runtime> {
    format!("containerd@{}", release.facts.containerd.as_deref()?).parse().ok()
}

/// Whether the release is a Kubernetes distribution, and not software that runs on any.
fn is_cluster(release: &Release) -> bool {
    release.kubernetes.is_some()
}
