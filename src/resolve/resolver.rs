//! The whole way from a definition to a complete lock.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::{self, StreamExt};
use jiff::civil::Date;

use super::demand::{Demands, Wanted};
use super::files;
use super::image::{self, Outcome};
use super::tree::Reader;
use super::{
    Definition, Gap, IMAGES_LIST, LOCK_VERSION, Lock, LockedBlob, LockedFile, LockedImage, LockedIndex,
    LockedRelease, ProofRow,
};
use crate::catalog::{Catalog, CatalogError, Problem, ReleaseId, Severity};
use crate::oci::{Digest, Reference};
use crate::upstream::Manifests;

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The catalog does not know a release or a feature.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// Two documents state different sizes for the same content.
    #[error("{digest} is said to have {one} bytes and {other} bytes; one of its manifests lies")]
    Sizes {
        /// The content.
        digest: Digest,
        /// One size.
        one: u64,
        /// The other.
        other: u64,
    },
    /// Something would not run.
    #[error("the definition cannot be fulfilled: {}", summary(.gaps, .blockers))]
    Incomplete {
        /// What is missing.
        gaps: Vec<Gap>,
        /// What the catalog knows cannot work.
        blockers: Vec<(ReleaseId, Problem)>,
    },
}

fn summary(gaps: &[Gap], blockers: &[(ReleaseId, Problem)]) -> String {
    let mut lines: Vec<String> = gaps.iter().map(ToString::to_string).collect();
    for (release, problem) in blockers {
        let nodes: Vec<String> = problem.nodes.iter().map(ToString::to_string).collect();
        let fix = problem.fix.as_ref().map(|fix| format!("; {fix}")).unwrap_or_default();
        lines.push(format!("{release} on {}: {}{fix}", nodes.join(", "), problem.message));
    }
    format!("\n  {}", lines.join("\n  "))
}

/// How a definition is resolved.
pub struct ResolveOptions<'a> {
    /// References that may be missing. That is recorded in the lock.
    pub allow_missing: BTreeSet<Reference>,
    /// Problems of the catalog, by id, that do not stand in the way.
    pub allow_problems: BTreeSet<String>,
    /// How many references are resolved at the same time.
    pub concurrency: usize,
    /// The day that decides which runtimes are still supported, for a definition that states none.
    pub day: Date,
    /// The sizes of the definition's files, which only their servers know.
    pub files: Vec<LockedFile>,
    /// Is told how many references there are, and how many are resolved.
    pub progress: &'a (dyn Fn(usize, usize) + Sync),
}

/// A complete lock, and what its makers should know.
#[derive(Debug)]
pub struct Resolution {
    /// The lock.
    pub lock: Lock,
    /// What the catalog has to say about the releases.
    pub problems: Vec<(ReleaseId, Problem)>,
    /// What was allowed to be missing.
    pub allowed: Vec<Gap>,
    /// Images with layers that name places outside the registry.
    pub foreign: Vec<Reference>,
    /// Images without any signature, attestation or SBOM upstream, where the definition asks for them.
    pub unproved: Vec<Reference>,
}

/// Resolves `definition` against `upstream`. Everything that is missing is found before this fails.
pub async fn resolve<M: Manifests>(
    definition: &Definition,
    catalog: &Catalog,
    upstream: &M,
    options: ResolveOptions<'_>,
) -> Result<Resolution, ResolveError> {
    let mut demands = Demands::collect(definition, catalog, options.day)?;
    demands.problems.extend(files::unlisted(definition, catalog)?);
    let results = resolve_images(&demands.images, upstream, definition.evidence, &options).await;
    let mut found = Found { gaps: std::mem::take(&mut demands.empty), ..Found::default() };
    for result in results {
        found.add(result)?;
    }
    for file in &options.files {
        found.blob(LockedBlob {
            digest: file.digest.clone(),
            size: file.size,
            from: None,
            manifest: false,
            urls: vec![file.url.clone()],
        })?;
    }
    let allows = |gap: &Gap| gap.reference.as_ref().is_some_and(|r| options.allow_missing.contains(r));
    let (allowed, gaps): (Vec<Gap>, Vec<Gap>) = found.gaps.into_iter().partition(allows);
    let blocks = |(_, problem): &&(ReleaseId, Problem)| {
        problem.severity == Severity::Blocker && !options.allow_problems.contains(&problem.id)
    };
    let blockers: Vec<_> = demands.problems.iter().filter(blocks).cloned().collect();
    if !gaps.is_empty() || !blockers.is_empty() {
        return Err(ResolveError::Incomplete { gaps, blockers });
    }
    let lock = Lock {
        schema_version: LOCK_VERSION,
        name: definition.name.clone(),
        sequence: definition.sequence,
        expires: definition.expires,
        nodes: definition.nodes.clone(),
        runtimes: definition.runtimes.iter().map(ToString::to_string).collect(),
        bands: demands.bands(),
        releases: definition
            .releases
            .iter()
            .map(|release| LockedRelease {
                release: release.id.to_string(),
                with: release.with.clone(),
                programs: release.programs,
            })
            .collect(),
        proof: proof(definition, &demands.images, &found.images, &allowed),
        images: found.images.into_values().collect(),
        indexes: found.indexes.into_values().collect(),
        blobs: found.blobs.into_values().collect(),
        requires: Vec::new(),
        files: options.files,
        allowed_missing: references(allowed.iter().filter(|gap| !gap.evidence)),
        allowed_unproved: references(allowed.iter().filter(|gap| gap.evidence)),
    };
    found.unproved.sort();
    Ok(Resolution {
        lock,
        problems: demands.problems,
        allowed,
        foreign: found.foreign,
        unproved: found.unproved,
    })
}

async fn resolve_images<M: Manifests>(
    images: &BTreeMap<Reference, Wanted>,
    upstream: &M,
    evidence: bool,
    options: &ResolveOptions<'_>,
) -> Vec<Outcome> {
    let reader = Reader::new(upstream);
    let done = std::sync::atomic::AtomicUsize::new(0);
    (options.progress)(0, images.len());
    let one = async |(at, (reference, wanted))| {
        let outcome = image::resolve(&reader, upstream, reference, wanted, evidence).await;
        let done = done.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        (options.progress)(done, images.len());
        (at, outcome)
    };
    let mut outcomes: Vec<(usize, Outcome)> = stream::iter(images.iter().enumerate().map(one))
        .buffer_unordered(options.concurrency.max(1))
        .collect()
        .await;
    // Which answered first must not show in what is reported.
    outcomes.sort_by_key(|(at, _)| *at);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// The references of `gaps`, each once.
fn references<'a>(gaps: impl Iterator<Item = &'a Gap>) -> Vec<Reference> {
    let references: BTreeSet<Reference> = gaps.filter_map(|gap| gap.reference.clone()).collect();
    references.into_iter().collect()
}

/// What all references together come to.
#[derive(Default)]
struct Found {
    images: BTreeMap<Reference, LockedImage>,
    indexes: BTreeMap<Digest, LockedIndex>,
    blobs: BTreeMap<Digest, LockedBlob>,
    gaps: Vec<Gap>,
    foreign: Vec<Reference>,
    unproved: Vec<Reference>,
}

impl Found {
    fn add(&mut self, outcome: Outcome) -> Result<(), ResolveError> {
        let resolved = match outcome {
            Outcome::Resolved(resolved) => *resolved,
            Outcome::Failed(gap) => {
                self.gaps.push(*gap);
                return Ok(());
            }
        };
        if resolved.unproved {
            self.unproved.push(resolved.image.reference.clone());
        }
        if !resolved.foreign.is_empty() {
            self.foreign.push(resolved.image.reference.clone());
        }
        self.indexes.extend(resolved.indexes.into_iter().map(|index| (index.digest.clone(), index)));
        for blob in resolved.blobs {
            self.blob(blob)?;
        }
        self.gaps.extend(resolved.gaps);
        self.images.insert(resolved.image.reference.clone(), resolved.image);
        Ok(())
    }

    /// Adds a blob. Which of several repositories it is fetched from must not depend on which answered first.
    fn blob(&mut self, blob: LockedBlob) -> Result<(), ResolveError> {
        let Some(known) = self.blobs.get_mut(&blob.digest) else {
            self.blobs.insert(blob.digest.clone(), blob);
            return Ok(());
        };
        if known.size != blob.size {
            return Err(ResolveError::Sizes { digest: blob.digest, one: known.size, other: blob.size });
        }
        known.manifest |= blob.manifest;
        known.from = match (known.from.take(), blob.from) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        known.urls.extend(blob.urls);
        known.urls.sort();
        known.urls.dedup();
        Ok(())
    }
}

/// A row for each release and node kind, and for what the definition lists by itself.
fn proof(
    definition: &Definition,
    images: &BTreeMap<Reference, Wanted>,
    found: &BTreeMap<Reference, LockedImage>,
    allowed: &[Gap],
) -> Vec<ProofRow> {
    let mut rows: BTreeMap<(usize, usize), ProofRow> = BTreeMap::new();
    let releases: Vec<String> = definition.releases.iter().map(|release| release.id.to_string()).collect();
    for (reference, wanted) in images {
        let mut counted = BTreeSet::new();
        let is_for = |node| found.get(reference).is_none_or(|image| image.nodes.contains(node));
        for demand in wanted.demands.iter().filter(|demand| is_for(&demand.node)) {
            let row =
                demand.source.release().map_or_else(|| IMAGES_LIST.to_owned(), |release| release.to_string());
            let key = (
                releases.iter().position(|release| *release == row).unwrap_or(releases.len()),
                definition
                    .nodes
                    .iter()
                    .position(|node| *node == demand.node)
                    .unwrap_or(definition.nodes.len()),
            );
            let proof = rows.entry(key).or_insert_with(|| ProofRow {
                release: row,
                node: demand.node.clone(),
                images: 0,
                clients: Vec::new(),
                missing: Vec::new(),
            });
            if counted.insert(key) {
                proof.images += 1;
            }
            for band in &demand.bands {
                let label = band.label();
                if !proof.clients.contains(&label) {
                    proof.clients.push(label);
                }
            }
            let is_here = |gap: &&Gap| {
                gap.reference.as_ref() == Some(reference)
                    && (gap.nodes.is_empty() || gap.nodes.contains(&demand.node))
            };
            for missing in allowed.iter().filter(is_here).map(|gap| gap.missing(reference)) {
                if !proof.missing.contains(&missing) {
                    proof.missing.push(missing);
                }
            }
        }
    }
    let mut rows: Vec<ProofRow> = rows.into_values().collect();
    for row in &mut rows {
        row.clients.sort();
    }
    rows
}
