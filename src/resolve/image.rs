//! One reference resolved: its root, the children that are kept and for whom, the blobs, and what would not run.

use std::collections::{BTreeMap, BTreeSet};

use super::demand::{Demand, Wanted};
use super::evidence::{Gathered, Search};
use super::tree::{Entry, Reader};
use super::{Child, Evidence, Gap, LockedBlob, LockedImage, NeededBy, Root};
use crate::oci::{Descriptor, Digest, Document, Image, Index, NodeKind, Platform, Reference, RepositoryName};
use crate::select;
use crate::upstream::{Manifests, UpstreamError};

/// A reference resolved.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) image: LockedImage,
    pub(super) blobs: Vec<LockedBlob>,
    pub(super) gaps: Vec<Gap>,
    /// Layers that name places outside the registry.
    pub(super) foreign: Vec<Digest>,
    /// Whether evidence was looked for and there is none.
    pub(super) unproved: bool,
}

/// Resolves `reference` for everybody in `wanted`. A reference that the upstream does not have gives gaps only.
pub(super) async fn resolve<M: Manifests>(
    reader: &Reader<'_, M>,
    upstream: &M,
    reference: &Reference,
    wanted: &Wanted,
    evidence: bool,
) -> Result<Result<Resolved, Vec<Gap>>, UpstreamError> {
    let fetched = match upstream.manifest(reference).await {
        Ok(fetched) => fetched,
        Err(error) if error.is_missing() => return Ok(Err(vec![absent(reference, wanted, &error)])),
        Err(error) => return Err(error),
    };
    reader.remember(&fetched.digest, &fetched.document);
    let mut work = Work::new(reader, reference, &fetched.digest, &fetched.document, wanted);
    match &fetched.document {
        Document::Index(index) => work.index(index, wanted).await?,
        Document::Image(image) => work.single(image, wanted).await?,
    }
    if evidence {
        work.evidence(upstream).await;
    }
    Ok(Ok(work.finish()))
}

fn absent(reference: &Reference, wanted: &Wanted, error: &UpstreamError) -> Gap {
    let sources = wanted.demands.iter().map(|demand| &demand.source).chain(&wanted.whole);
    let sources: BTreeSet<NeededBy> = sources.cloned().collect();
    Gap {
        reference: Some(reference.clone()),
        node: None,
        clients: Vec::new(),
        needed_by: sources.into_iter().collect(),
        evidence: false,
        reason: error.to_string(),
    }
}

struct Work<'a, 'r, M> {
    reader: &'a Reader<'r, M>,
    name: &'a RepositoryName,
    resolved: Resolved,
    blobs: BTreeMap<Digest, LockedBlob>,
    gaps: BTreeMap<(NodeKind, String), Gap>,
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
        let sources = wanted.demands.iter().map(|demand| &demand.source).chain(&wanted.whole);
        let needed_by: BTreeSet<NeededBy> = sources.cloned().collect();
        let nodes: BTreeSet<NodeKind> = wanted.demands.iter().map(|demand| demand.node.clone()).collect();
        let root = Root {
            media_type: document.media_type().to_owned(),
            digest: digest.clone(),
            size: document.raw().len() as u64,
        };
        let mut work = Self {
            reader,
            name: reference.name(),
            blobs: BTreeMap::new(),
            gaps: BTreeMap::new(),
            attestations: Vec::new(),
            resolved: Resolved {
                image: LockedImage {
                    reference: reference.clone(),
                    root: root.clone(),
                    platform: None,
                    nodes: nodes.into_iter().collect(),
                    children: Vec::new(),
                    blobs: Vec::new(),
                    evidence: Vec::new(),
                    needed_by: needed_by.into_iter().collect(),
                },
                blobs: Vec::new(),
                gaps: Vec::new(),
                foreign: Vec::new(),
                unproved: false,
            },
        };
        work.blob(&Descriptor::new(root.media_type, root.digest, root.size), true);
        work
    }

    fn finish(mut self) -> Resolved {
        self.resolved.blobs = self.blobs.into_values().collect();
        self.resolved.gaps.extend(self.gaps.into_values());
        self.resolved
    }

    /// Keeps of an index what any client in scope fetches.
    async fn index(&mut self, index: &Index, wanted: &Wanted) -> Result<(), UpstreamError> {
        let entries = self.reader.entries(self.name, &index.manifests).await?;
        let attestations = entries.iter().map(|e| &e.descriptor).filter(|entry| entry.is_attestation());
        self.attestations = attestations.cloned().collect();
        let platforms: Vec<Option<Platform>> =
            entries.iter().map(|e| e.descriptor.platform.clone()).collect();
        let mut kept: BTreeMap<usize, BTreeSet<NodeKind>> = BTreeMap::new();
        if !wanted.whole.is_empty() {
            kept.extend((0..entries.len()).map(|at| (at, BTreeSet::new())));
        }
        for demand in &wanted.demands {
            for band in &demand.bands {
                let choice = band.choose(&demand.node.platform(), &platforms);
                for at in choice.fetches.iter().chain(&choice.picks) {
                    kept.entry(*at).or_default().insert(demand.node.clone());
                }
                let fits = match choice.picks {
                    Some(at) if choice.checks_config => {
                        self.entry_runs_on(&entries[at], &demand.node).await?
                    }
                    Some(_) => choice.runs,
                    None => false,
                };
                if !fits {
                    self.gap(demand, Some(band.label()), choice.reason);
                }
            }
        }
        for (at, nodes) in kept {
            self.keep(&entries[at], nodes).await?;
        }
        Ok(())
    }

    async fn entry_runs_on(&self, entry: &Entry, node: &NodeKind) -> Result<bool, UpstreamError> {
        let Document::Image(image) = self.reader.document(self.name, &entry.descriptor.digest).await? else {
            return Ok(false);
        };
        let platform = self.reader.platform_of(self.name, &image).await?;
        Ok(platform.is_none_or(|platform| runs_on(node, &platform)))
    }

    /// Keeps an entry with everything below it.
    async fn keep(&mut self, entry: &Entry, nodes: BTreeSet<NodeKind>) -> Result<(), UpstreamError> {
        let nodes: Vec<NodeKind> = nodes.into_iter().collect();
        for index in &entry.through {
            self.child(index, &nodes, Vec::new());
        }
        let blobs = match self.reader.document(self.name, &entry.descriptor.digest).await? {
            Document::Image(image) => self.image_blobs(&image),
            Document::Index(_) => Vec::new(),
        };
        self.child(&entry.descriptor, &nodes, blobs);
        Ok(())
    }

    fn child(&mut self, descriptor: &Descriptor, nodes: &[NodeKind], blobs: Vec<Digest>) {
        self.blob(descriptor, true);
        let children = &mut self.resolved.image.children;
        // An index may list the same manifest twice, and nested indexes are on the way to several.
        if let Some(child) = children.iter_mut().find(|child| child.digest == descriptor.digest) {
            child.nodes.extend(nodes.iter().cloned());
            child.nodes.sort();
            child.nodes.dedup();
            return;
        }
        children.push(Child {
            digest: descriptor.digest.clone(),
            size: descriptor.size,
            media_type: descriptor.media_type.clone(),
            platform: descriptor.platform.clone(),
            nodes: nodes.to_vec(),
            blobs,
        });
    }

    /// Takes a single manifest; runtimes take it too without looking, so its configuration is looked at here.
    async fn single(&mut self, image: &Image, wanted: &Wanted) -> Result<(), UpstreamError> {
        self.resolved.image.blobs = self.image_blobs(image);
        let platform = self.reader.platform_of(self.name, image).await?;
        if let Some(platform) = &platform {
            for demand in wanted.demands.iter().filter(|demand| !runs_on(&demand.node, platform)) {
                let reason = format!("the reference is one image for {platform}, without an index");
                self.gap(demand, None, reason);
            }
        }
        self.resolved.image.platform = platform;
        Ok(())
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
        self.resolved.unproved = self.resolved.image.evidence.is_empty() && trouble.is_none();
        self.resolved.gaps.extend(trouble.map(|reason| Gap {
            reference: Some(self.resolved.image.reference.clone()),
            node: None,
            clients: Vec::new(),
            needed_by: Vec::new(),
            evidence: true,
            reason,
        }));
    }

    /// Notes the configuration and the layers of `image`, and gives their digests, each once.
    fn image_blobs(&mut self, image: &Image) -> Vec<Digest> {
        let mut digests: Vec<Digest> = Vec::new();
        for descriptor in image.blobs() {
            self.blob(descriptor, false);
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

    /// Notes that a node kind would not run the image; the clients that agree why share one note.
    fn gap(&mut self, demand: &Demand, client: Option<String>, reason: String) {
        let reference = &self.resolved.image.reference;
        let gap = self.gaps.entry((demand.node.clone(), reason)).or_insert_with_key(|(node, reason)| Gap {
            reference: Some(reference.clone()),
            node: Some(node.clone()),
            clients: Vec::new(),
            needed_by: Vec::new(),
            evidence: false,
            reason: reason.clone(),
        });
        gap.clients.extend(client.filter(|client| !gap.clients.contains(client)));
        if !gap.needed_by.contains(&demand.source) {
            gap.needed_by.push(demand.source.clone());
        }
    }
}

/// Whether a node of this kind runs an image of `platform`.
fn runs_on(node: &NodeKind, platform: &Platform) -> bool {
    select::can_run(&node.platform(), platform)
}
