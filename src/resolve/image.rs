//! One reference resolved: its root, the children that are kept and for whom, the blobs, and what would not run.

use std::collections::{BTreeMap, BTreeSet};

use super::auto::{self, Content};
use super::demand::{Demand, Wanted};
use super::evidence::{Gathered, Search, Trouble};
use super::tree::Reader;
use super::{
    Child, ChildMetadata, Evidence, Gap, GapKind, LockedBlob, LockedImage, LockedIndex, NeededBy, Root,
};
use crate::oci::{
    Descriptor, Digest, Document, Image, Index, NodeKind, Platform, Reference, RepositoryName, media_type,
};
use crate::select::{self, Band, Clients, Expansion};
use crate::upstream::{Manifests, Problem, UpstreamError};

/// How many platforms of an index a sentence names.
const NAMED: usize = 6;

/// A reference resolved.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) image: LockedImage,
    /// What the kept indexes list.
    pub(super) indexes: Vec<LockedIndex>,
    pub(super) blobs: Vec<LockedBlob>,
    pub(super) gaps: Vec<Gap>,
    /// Layers that name places outside the registry.
    pub(super) foreign: Vec<Digest>,
    /// Whether there are layers of no bytes.
    pub(super) empty_layers: bool,
    /// Whether evidence was looked for and there is none.
    pub(super) unproved: bool,
    /// The entries of the index, also of nested ones, of which the metadata is to be carried if nobody needs them.
    pub(super) left: Vec<Descriptor>,
    /// The place of every entry in the index.
    pub(super) order: BTreeMap<Digest, usize>,
}

/// What resolving one reference came to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The reference was read. Parts of it may be missing, as its gaps say.
    Resolved(Box<Resolved>),
    /// The reference cannot be had.
    Failed(Box<Gap>),
}

impl Outcome {
    /// Returns what is missing.
    pub(super) fn gaps(&self) -> &[Gap] {
        match self {
            Self::Resolved(resolved) => &resolved.gaps,
            Self::Failed(gap) => std::slice::from_ref(gap),
        }
    }

    /// Returns what was read; `None` if the reference cannot be had.
    pub(super) fn resolved_mut(&mut self) -> Option<&mut Resolved> {
        match self {
            Self::Resolved(resolved) => Some(resolved),
            Self::Failed(_) => None,
        }
    }
}

/// Resolves `reference` for everybody in `wanted`.
///
/// No failure ends anything but the part of the reference that it concerns.
pub(super) async fn resolve<M: Manifests>(
    reader: &Reader<'_, M>,
    upstream: &M,
    reference: &Reference,
    wanted: &Wanted,
    evidence: bool,
) -> Outcome {
    let failed = |gap: Gap| {
        let (nodes, needed_by) =
            (wanted.nodes().into_iter().collect(), wanted.sources().into_iter().collect());
        Outcome::Failed(Box::new(Gap { nodes, needed_by, ..gap }))
    };
    let (digest, document) = match reader.root(reference).await {
        Ok(root) => root,
        Err(error) => return failed(Gap::from_error(reference, &error)),
    };
    let content = match &document {
        Document::Index(index) => match reader.expand(reference.name(), index).await {
            Ok(Ok(expansion)) => Content::Index(index, expansion),
            // Without all entries nobody can say what a client would take.
            Ok(Err(error)) => {
                let gap = Gap::new(Some(reference.clone()), GapKind::Unreadable, error.to_string());
                return failed(gap);
            }
            Err(error) => return failed(Gap::from_error(reference, &error)),
        },
        Document::Image(image) => Content::Image(image),
    };
    let wanted = match auto::narrowed(reader, reference, &content, wanted).await {
        Ok(Ok(wanted)) => wanted,
        Ok(Err(gap)) => return Outcome::Failed(gap),
        Err(error) => return failed(Gap::from_error(reference, &error)),
    };
    let mut work = Work::new(reader, reference, &digest, &document, &wanted);
    match &content {
        Content::Index(index, expansion) => {
            work.index(expansion, &wanted).await;
            work.list(&digest, index).await;
        }
        Content::Image(image) => work.single(image, &wanted).await,
    }
    if evidence {
        work.evidence(upstream).await;
    }
    Outcome::Resolved(Box::new(work.finish()))
}

struct Work<'a, 'r, M> {
    reader: &'a Reader<'r, M>,
    name: &'a RepositoryName,
    resolved: Resolved,
    blobs: BTreeMap<Digest, LockedBlob>,
    /// The clients that do not run the image, by whose node they are on and why.
    misfits: BTreeMap<(NeededBy, NodeKind, String), Misfit>,
    /// Attestations that the index lists among its images.
    attestations: Vec<Descriptor>,
}

impl<'a, 'r, M: Manifests> Work<'a, 'r, M> {
    fn new(
        reader: &'a Reader<'r, M>,
        reference: &'a Reference,
        digest: &Digest,
        document: &Document,
        wanted: &Wanted,
    ) -> Self {
        let root = Root {
            media_type: document.media_type().to_owned(),
            digest: digest.clone(),
            size: document.raw().len() as u64,
        };
        let mut work = Self {
            reader,
            name: reference.name(),
            blobs: BTreeMap::new(),
            misfits: BTreeMap::new(),
            attestations: Vec::new(),
            resolved: Resolved {
                image: LockedImage {
                    reference: reference.clone(),
                    root: root.clone(),
                    platform: None,
                    nodes: wanted.nodes().into_iter().collect(),
                    children: Vec::new(),
                    blobs: Vec::new(),
                    evidence: Vec::new(),
                    needed_by: wanted.sources().into_iter().collect(),
                },
                indexes: Vec::new(),
                blobs: Vec::new(),
                gaps: Vec::new(),
                foreign: Vec::new(),
                empty_layers: false,
                unproved: false,
                left: Vec::new(),
                order: BTreeMap::new(),
            },
        };
        work.blob(&Descriptor::new(root.media_type, root.digest, root.size), true);
        work
    }

    fn finish(mut self) -> Resolved {
        self.resolved.blobs = self.blobs.into_values().collect();
        let reference = &self.resolved.image.reference;
        let gap = |((source, node, reason), misfit): ((NeededBy, NodeKind, String), Misfit)| Gap {
            nodes: vec![node],
            clients: Clients::new(&misfit.bands, &misfit.scope),
            needed_by: vec![source],
            hint: misfit.hint,
            ..Gap::new(Some(reference.clone()), GapKind::Platform, reason)
        };
        let misfits = Gap::join(self.misfits.into_iter().map(gap).collect());
        self.resolved.gaps.extend(misfits);
        self.resolved
    }

    /// Keeps of an index what any client in scope fetches.
    async fn index(&mut self, index: &Expansion, wanted: &Wanted) {
        let entries = &index.entries;
        self.attestations = entries.iter().filter(|entry| entry.is_attestation()).cloned().collect();
        let images = entries.iter().filter(|entry| !entry.is_attestation());
        let platforms: Vec<Option<Platform>> =
            images.map(|entry| entry.platform.clone().filter(|platform| !platform.is_empty())).collect();
        let mut kept: BTreeMap<usize, BTreeSet<NodeKind>> = BTreeMap::new();
        let mut unread: BTreeMap<Digest, (BTreeSet<NodeKind>, UpstreamError)> = BTreeMap::new();
        if !wanted.whole.is_empty() {
            kept.extend((0..entries.len()).map(|at| (at, BTreeSet::new())));
        }
        for demand in &wanted.demands {
            for band in &demand.bands {
                let choice = band.choose(&demand.node.platform(), entries);
                for at in choice.fetches.iter().chain(&choice.picks) {
                    kept.entry(*at).or_default().insert(demand.node.clone());
                }
                let fits = match choice.picks {
                    Some(at) if choice.checks_config => {
                        match self.entry_runs_on(&entries[at], &demand.node).await {
                            Ok(runs) => runs,
                            Err(error) => {
                                let digest = entries[at].digest.clone();
                                unread
                                    .entry(digest)
                                    .or_insert((BTreeSet::new(), error))
                                    .0
                                    .insert(demand.node.clone());
                                true
                            }
                        }
                    }
                    Some(_) => choice.runs,
                    None => false,
                };
                if !fits {
                    self.misfit(demand, &[band], &platforms, choice.why, wanted);
                }
            }
        }
        for (at, nodes) in kept {
            if let Err(error) = self.keep(index, at, &nodes).await {
                let digest = entries[at].digest.clone();
                unread.entry(digest).or_insert((BTreeSet::new(), error)).0.extend(nodes);
            }
        }
        for (digest, (nodes, error)) in unread {
            self.unreadable(wanted, &digest, nodes, &error);
        }
        let every = entries.iter().zip(&index.through);
        for descriptor in every.flat_map(|(entry, through)| through.iter().chain([entry])) {
            let place = self.resolved.order.len();
            self.resolved.order.entry(descriptor.digest.clone()).or_insert(place);
            if wanted.child_metadata == ChildMetadata::All {
                self.resolved.left.push(descriptor.clone());
            }
        }
    }

    /// Notes what the index `digest` and the kept ones in it list.
    async fn list(&mut self, digest: &Digest, index: &Index) {
        let mut indexes = vec![(digest.clone(), index.clone())];
        for child in
            self.resolved.image.children.iter().filter(|child| media_type::is_index(&child.media_type))
        {
            // It was read to find what is in it.
            if let Ok(Document::Index(nested)) = self.reader.document(self.name, &child.digest).await {
                indexes.push((child.digest.clone(), nested));
            }
        }
        self.resolved.indexes =
            indexes.into_iter().map(|(digest, index)| LockedIndex::new(digest, &index)).collect();
    }

    async fn entry_runs_on(&self, entry: &Descriptor, node: &NodeKind) -> Result<bool, UpstreamError> {
        let Document::Image(image) = self.reader.document(self.name, &entry.digest).await? else {
            return Ok(false);
        };
        let platform = self.reader.platform_of(self.name, &image).await?;
        Ok(platform.is_none_or(|platform| runs_on(node, &platform)))
    }

    /// Keeps an entry with everything below it.
    async fn keep(
        &mut self,
        index: &Expansion,
        at: usize,
        nodes: &BTreeSet<NodeKind>,
    ) -> Result<(), UpstreamError> {
        let entry = &index.entries[at];
        // Tools list an image that runs on two platforms under both.
        let states_another =
            |other: &Descriptor| other.digest == entry.digest && other.platform != entry.platform;
        let is_unclear = entry.platform.is_none() || index.entries.iter().any(states_another);
        let nodes: Vec<NodeKind> = nodes.iter().cloned().collect();
        let document = self.reader.document(self.name, &entry.digest).await?;
        for index in &index.through[at] {
            self.child(index, &nodes, Vec::new());
        }
        let (blobs, config_platform) = match document {
            Document::Image(image) => {
                let platform = if is_unclear { self.config_platform(&image).await? } else { None };
                (self.image_blobs(&image), platform)
            }
            Document::Index(_) => (Vec::new(), None),
        };
        if let Some(child) = self.child(entry, &nodes, blobs) {
            child.config_platform = config_platform;
        }
        Ok(())
    }

    /// What the configuration of an image says that it runs on; `None` if it is not one that can be read.
    async fn config_platform(&self, image: &Image) -> Result<Option<Platform>, UpstreamError> {
        match self.reader.platform_of(self.name, image).await {
            Err(error) if matches!(error.problem(), Some(Problem::Manifest(_))) => Ok(None),
            other => other,
        }
    }

    /// Adds a kept manifest, and returns it if it was not there yet.
    fn child(
        &mut self,
        descriptor: &Descriptor,
        nodes: &[NodeKind],
        blobs: Vec<Digest>,
    ) -> Option<&mut Child> {
        self.blob(descriptor, true);
        let children = &mut self.resolved.image.children;
        // An index may list the same manifest twice, and nested indexes are on the way to several.
        if let Some(child) = children.iter_mut().find(|child| child.digest == descriptor.digest) {
            child.nodes.extend(nodes.iter().cloned());
            child.nodes.sort();
            child.nodes.dedup();
            return None;
        }
        children.push(Child::new(descriptor, nodes, blobs));
        children.last_mut()
    }

    /// Takes a single manifest; runtimes take it too without looking, so its configuration is looked at here.
    async fn single(&mut self, image: &Image, wanted: &Wanted) {
        self.resolved.image.blobs = self.image_blobs(image);
        let platform = match self.reader.platform_of(self.name, image).await {
            Ok(platform) => platform,
            Err(error) => {
                self.unreadable(wanted, &image.config.digest, wanted.nodes(), &error);
                None
            }
        };
        if let Some(platform) = &platform {
            let stated = Some(platform.clone());
            for demand in wanted.demands.iter().filter(|demand| !runs_on(&demand.node, platform)) {
                let reason = format!("the reference is one image for {platform}, without an index");
                self.misfit(demand, &[], std::slice::from_ref(&stated), reason, wanted);
            }
        }
        self.resolved.image.platform = platform;
    }

    /// Keeps what the upstream has to prove what the image is. What is there and cannot be read is a gap.
    async fn evidence<U: Manifests>(&mut self, upstream: &U) {
        let image = &self.resolved.image;
        let search = Search::new(self.reader, upstream, self.name, image, &self.attestations);
        let Gathered { found, trouble } = search.run().await;
        for (descriptor, tag, document) in found {
            self.blob(&descriptor, true);
            let blobs = match &document {
                Document::Image(image) => self.image_blobs(image),
                Document::Index(_) => Vec::new(),
            };
            let Descriptor { digest, size, media_type, .. } = descriptor;
            self.resolved.image.evidence.push(Evidence { digest, tag, size, media_type, blobs });
        }
        self.resolved.image.evidence.sort();
        let attested = self.attestations.iter().any(|attestation| {
            self.resolved.image.children.iter().any(|child| child.digest == attestation.digest)
        });
        self.resolved.unproved = self.resolved.image.evidence.is_empty() && trouble.is_none() && !attested;
        let image = &self.resolved.image;
        self.resolved.gaps.extend(trouble.map(|trouble| {
            let gap = match &trouble {
                Trouble::Upstream(error) => Gap::from_error(&image.reference, error),
                Trouble::TooMuch(_) => {
                    Gap::new(Some(image.reference.clone()), GapKind::Unreadable, String::new())
                }
            };
            Gap {
                nodes: image.nodes.clone(),
                needed_by: image.needed_by.clone(),
                evidence: true,
                reason: trouble.to_string(),
                ..gap
            }
        }));
    }

    /// Notes the configuration and the layers of `image`, and gives their digests, each once.
    fn image_blobs(&mut self, image: &Image) -> Vec<Digest> {
        let mut digests: Vec<Digest> = Vec::new();
        for descriptor in image.blobs() {
            self.blob(descriptor, false);
            self.resolved.empty_layers |= descriptor.size == 0;
            if !descriptor.urls.is_empty() {
                self.resolved.foreign.push(descriptor.digest.clone());
            }
            if !digests.contains(&descriptor.digest) {
                digests.push(descriptor.digest.clone());
            }
        }
        digests
    }

    fn blob(&mut self, descriptor: &Descriptor, manifest: bool) {
        let name = self.name;
        self.blobs.entry(descriptor.digest.clone()).or_insert_with(|| LockedBlob {
            digest: descriptor.digest.clone(),
            size: descriptor.size,
            from: Some(name.clone()),
            manifest,
            urls: descriptor.urls.clone(),
        });
    }

    /// Notes that a part of the image, which these node kinds need, cannot be had.
    fn unreadable(
        &mut self,
        wanted: &Wanted,
        digest: &Digest,
        nodes: BTreeSet<NodeKind>,
        error: &UpstreamError,
    ) {
        self.resolved.gaps.push(Gap {
            digest: Some(digest.clone()),
            needed_by: wanted.sources_on(&nodes).into_iter().collect(),
            nodes: nodes.into_iter().collect(),
            ..Gap::from_error(&self.resolved.image.reference, error)
        });
    }

    /// Notes that a node kind would not run the image with the clients of `bands`. The clients that agree why share one
    /// note, and all do if `entries` have nothing for the operating system or the architecture at all.
    fn misfit(
        &mut self,
        demand: &Demand,
        bands: &[&'static Band],
        entries: &[Option<Platform>],
        reason: String,
        wanted: &Wanted,
    ) {
        let (node, source) = (&demand.node, &demand.source);
        let lacking = lacking(node, entries);
        let fitting = wanted.nodes().into_iter().filter(|node| self::lacking(node, entries).is_none());
        let fitting: Vec<String> = fitting.map(|node| node.to_string()).collect();
        let hint = (lacking.is_some() && source.release().is_none() && !fitting.is_empty()).then(|| {
            format!(
                "an image that is not for every node kind takes `nodes: [{}]` in the definition, or `nodes: auto`",
                fitting.join(", ")
            )
        });
        let reason = match lacking {
            Some(lacking) if !bands.is_empty() => {
                let shown: BTreeSet<String> = entries.iter().flatten().map(Platform::shown).collect();
                let shown: Vec<String> = shown.into_iter().take(NAMED).collect();
                format!("the index has no entry for {lacking}, but for {}", shown.join(", "))
            }
            _ => reason,
        };
        let misfit = self.misfits.entry((source.clone(), node.clone(), reason)).or_default();
        misfit.bands.extend(bands);
        misfit.scope.clone_from(&demand.bands);
        misfit.hint = hint;
    }
}

/// Returns the operating system, or with its architecture, that no entry is for and `node` is of.
fn lacking(node: &NodeKind, entries: &[Option<Platform>]) -> Option<String> {
    let own = node.platform().normalized();
    let stated: Vec<Platform> = entries.iter().flatten().map(Platform::normalized).collect();
    if stated.is_empty() || stated.len() < entries.len() {
        return None;
    }
    let mut of_os = stated.iter().filter(|entry| entry.os == own.os).peekable();
    if of_os.peek().is_none() {
        return Some(own.os);
    }
    let found = of_os.any(|entry| entry.architecture == own.architecture);
    (!found).then(|| format!("{}/{}", own.os, own.architecture))
}

/// Clients that do not run an image for the same reason.
#[derive(Default)]
struct Misfit {
    bands: Vec<&'static Band>,
    /// All clients that may run it there.
    scope: Vec<&'static Band>,
    hint: Option<String>,
}

/// Whether a node of this kind runs an image of `platform`.
fn runs_on(node: &NodeKind, platform: &Platform) -> bool {
    select::can_run(&node.platform(), platform)
}
