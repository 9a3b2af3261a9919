//! The whole way from a definition to a complete lock.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::{self, StreamExt};
use jiff::civil::Date;

use super::demand::{Demands, Wanted};
use super::files;
use super::image::{self, Outcome, Resolved};
use super::metadata::{self, MetadataLeftOut};
use super::tree::Reader;
use super::{
    AllowMissing, Allowed, Definition, FILES_LIST, Gap, GapKind, IMAGES_LIST, Incomplete, LOCK_VERSION, Lock,
    LockedBlob, LockedFile, LockedImage, LockedIndex, LockedRelease, NeededBy, ProofRow, Unneeded,
    WantedFile, allow,
};
use crate::catalog::{Catalog, CatalogError, ReleaseProblem, Severity};
use crate::oci::{Digest, Reference};
use crate::upstream::Manifests;

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The catalog does not know a release or a feature.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// Something would not run.
    #[error("{0}")]
    Incomplete(Box<Incomplete>),
}

/// How a definition is resolved.
pub struct ResolveOptions<'a> {
    /// What may be missing. What is missing then is recorded in the lock.
    pub allow_missing: BTreeSet<AllowMissing>,
    /// Problems of the catalog, by id, that do not stand in the way.
    pub allow_problems: BTreeSet<String>,
    /// How many references are resolved at the same time.
    pub concurrency: usize,
    /// The day that decides which runtimes are still supported, for a definition that states none.
    pub day: Date,
    /// Is told how many references there are, and how many are resolved.
    pub progress: &'a (dyn Fn(usize, usize) + Sync),
}

impl ResolveOptions<'_> {
    fn allows(&self, gap: &Gap) -> bool {
        gap.name().is_some_and(|name| self.allow_missing.iter().any(|allowed| allowed.matches(&name)))
    }
}

/// A complete lock, and what its makers should know.
#[derive(Debug)]
pub struct Resolution {
    /// The lock.
    pub lock: Lock,
    /// What the catalog has to say about the releases.
    pub problems: Vec<ReleaseProblem>,
    /// What was allowed to be missing and is.
    pub allowed: Vec<Gap>,
    /// What was allowed to be missing without need.
    pub unneeded: Vec<Unneeded>,
    /// Images with layers of no bytes, which containerd refuses.
    pub empty_layers: Vec<Reference>,
    /// Images with layers that name places outside the registry.
    pub foreign: Vec<Reference>,
    /// Images without any signature, attestation or SBOM upstream, where the definition asks for them.
    pub unproved: Vec<Reference>,
    /// Metadata of children that nobody needs, which was left out because of the registries' limits.
    pub metadata_left_out: Vec<MetadataLeftOut>,
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
    let reader = Reader::new(upstream);
    let mut outcomes =
        resolve_images(&reader, &demands.images, upstream, definition.evidence, &options).await;
    let files = measure_files(&definition.files, upstream, options.concurrency).await;
    let mut metadata_left_out = Vec::new();
    // A lock that will not be written is worth no further request.
    if outcomes.iter().flat_map(Outcome::gaps).all(|gap| options.allows(gap)) {
        let mut images: Vec<&mut Resolved> = outcomes.iter_mut().filter_map(Outcome::resolved_mut).collect();
        metadata_left_out = metadata::add(&reader, upstream, &mut images, options.concurrency).await;
    }
    let mut found = Found { gaps: std::mem::take(&mut demands.empty), ..Found::default() };
    for outcome in outcomes {
        found.add(outcome);
    }
    for file in files {
        found.add_file(file);
    }
    found.gaps.sort_by_cached_key(Gap::sort_key);
    let names = demands.images.keys().map(ToString::to_string);
    let names = names.chain(definition.files.iter().map(|file| file.url.to_string())).collect();
    let unneeded = allow::unneeded(&options.allow_missing, &names, &found.gaps);
    let (allowed, gaps): (Vec<Gap>, Vec<Gap>) = found.gaps.into_iter().partition(|gap| options.allows(gap));
    let problems = ReleaseProblem::join(std::mem::take(&mut demands.problems));
    let blocks = |known: &&ReleaseProblem| {
        known.problem.severity == Severity::Blocker && !options.allow_problems.contains(&known.problem.id)
    };
    let blockers: Vec<_> = problems.iter().filter(blocks).cloned().collect();
    if !gaps.is_empty() || !blockers.is_empty() {
        return Err(ResolveError::Incomplete(Box::new(Incomplete {
            gaps,
            blockers,
            unneeded,
            images: demands.images.len(),
            reached: !found.images.is_empty() || !found.files.is_empty(),
            runtimes_stated: !definition.runtimes.is_empty(),
        })));
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
        files: found.files,
        allowed_missing: recorded(allowed.iter().filter(|gap| !gap.evidence)),
        allowed_unproved: recorded(allowed.iter().filter(|gap| gap.evidence)),
    };
    found.unproved.sort();
    Ok(Resolution {
        lock,
        problems,
        allowed,
        unneeded,
        empty_layers: found.empty_layers,
        foreign: found.foreign,
        unproved: found.unproved,
        metadata_left_out,
    })
}

async fn resolve_images<M: Manifests>(
    reader: &Reader<'_, M>,
    images: &BTreeMap<Reference, Wanted>,
    upstream: &M,
    evidence: bool,
    options: &ResolveOptions<'_>,
) -> Vec<Outcome> {
    let done = std::sync::atomic::AtomicUsize::new(0);
    (options.progress)(0, images.len());
    let one = async |(at, (reference, wanted))| {
        let outcome = image::resolve(reader, upstream, reference, wanted, evidence).await;
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

/// Asks how large files are; one that cannot be had is a gap.
async fn measure_files<M: Manifests>(
    files: &[WantedFile],
    upstream: &M,
    concurrency: usize,
) -> Vec<Result<LockedFile, Gap>> {
    let size = async |file: &WantedFile| match upstream.file_size(&file.url).await {
        Ok(size) => Ok(LockedFile { url: file.url.to_string(), digest: file.digest.clone(), size }),
        Err(error) => Err(Gap::of_file(&file.url, &error)),
    };
    stream::iter(files.iter().map(size)).buffered(concurrency.max(1)).collect().await
}

/// Returns what a lock says about allowed `gaps`, each name once, with the first kind of failure.
fn recorded<'a>(gaps: impl Iterator<Item = &'a Gap>) -> Vec<Allowed> {
    let mut recorded: BTreeMap<String, Allowed> = BTreeMap::new();
    for gap in gaps {
        if let (Some(name), Some(allowed)) = (gap.name(), Allowed::of(gap)) {
            recorded.entry(name).or_insert(allowed);
        }
    }
    recorded.into_values().collect()
}

/// What all references together come to.
#[derive(Default)]
struct Found {
    images: BTreeMap<Reference, LockedImage>,
    indexes: BTreeMap<Digest, LockedIndex>,
    blobs: BTreeMap<Digest, LockedBlob>,
    gaps: Vec<Gap>,
    foreign: Vec<Reference>,
    empty_layers: Vec<Reference>,
    unproved: Vec<Reference>,
    files: Vec<LockedFile>,
}

impl Found {
    fn add(&mut self, outcome: Outcome) {
        let resolved = match outcome {
            Outcome::Resolved(resolved) => *resolved,
            Outcome::Failed(gap) => return self.gaps.push(*gap),
        };
        let image = resolved.image;
        self.gaps.extend(resolved.gaps);
        if let Some((digest, reason)) = self.contradiction(&resolved.blobs) {
            return self.gaps.push(Gap {
                digest: Some(digest),
                nodes: image.nodes,
                needed_by: image.needed_by,
                ..Gap::new(Some(image.reference), GapKind::Damaged, reason)
            });
        }
        if resolved.unproved {
            self.unproved.push(image.reference.clone());
        }
        if !resolved.foreign.is_empty() {
            self.foreign.push(image.reference.clone());
        }
        if resolved.empty_layers {
            self.empty_layers.push(image.reference.clone());
        }
        self.indexes.extend(resolved.indexes.into_iter().map(|index| (index.digest.clone(), index)));
        for blob in resolved.blobs {
            self.blob(blob);
        }
        self.images.insert(image.reference.clone(), image);
    }

    fn add_file(&mut self, file: Result<LockedFile, Gap>) {
        let file = match file {
            Ok(file) => file,
            Err(gap) => return self.gaps.push(gap),
        };
        let blob = LockedBlob {
            digest: file.digest.clone(),
            size: file.size,
            from: None,
            manifest: false,
            urls: vec![file.url.clone()],
        };
        match self.contradiction(std::slice::from_ref(&blob)) {
            None => {
                self.blob(blob);
                self.files.push(file);
            }
            Some((digest, reason)) => self.gaps.push(Gap {
                url: file.url.parse().ok(),
                digest: Some(digest),
                needed_by: vec![NeededBy::list(FILES_LIST)],
                ..Gap::new(None, GapKind::Damaged, reason)
            }),
        }
    }

    /// Returns the first of `blobs` that was stated with another size before, and a sentence about it.
    fn contradiction(&self, blobs: &[LockedBlob]) -> Option<(Digest, String)> {
        let other = |blob: &LockedBlob| self.blobs.get(&blob.digest).filter(|known| known.size != blob.size);
        let (blob, known) = blobs.iter().find_map(|blob| Some((blob, other(blob)?)))?;
        let reason = format!(
            "it is said to have {} bytes here and {} bytes elsewhere in the definition",
            blob.size, known.size
        );
        Some((blob.digest.clone(), reason))
    }

    /// Adds a blob. Which of several repositories it is fetched from must not depend on which answered first.
    fn blob(&mut self, blob: LockedBlob) {
        let Some(known) = self.blobs.get_mut(&blob.digest) else {
            self.blobs.insert(blob.digest.clone(), blob);
            return;
        };
        known.manifest |= blob.manifest;
        known.from = match (known.from.take(), blob.from) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        known.urls.extend(blob.urls);
        known.urls.sort();
        known.urls.dedup();
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
