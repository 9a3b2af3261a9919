//! What proves what an image is: signatures, attestations, SBOMs, wherever their makers put them.
//!
//! Three ways are in use: referrers (distribution specification 1.1, also by their fallback tag), tags that cosign
//! derives from the digest (cosign `pkg/oci/remote/remote.go`, `SignatureTag` and its neighbours), and entries that
//! `BuildKit` adds to the index itself (moby/buildkit `docs/attestations/attestation-storage.md`).

use std::collections::{BTreeSet, VecDeque};

use super::LockedImage;
use super::tree::Reader;
use crate::oci::{Descriptor, Digest, Document, Index, REFERENCE_DIGEST, Reference, RepositoryName, Tag};
use crate::select::MAX_DEPTH;
use crate::upstream::{Manifests, UpstreamError};

/// What cosign appends to the tag that it makes of a digest.
const COSIGN_SUFFIXES: [&str; 3] = ["sig", "att", "sbom"];
/// More evidence than one image has.
const MAX_EVIDENCE: usize = 512;

/// A search for the evidence of one image.
pub(super) struct Search<'a, 'r, M, U> {
    reader: &'a Reader<'r, M>,
    upstream: &'a U,
    name: &'a RepositoryName,
    attestations: &'a [Descriptor],
    /// Manifests whose evidence is still to be found: what is kept of the image, and evidence itself, which may be signed.
    subjects: VecDeque<Digest>,
    known: BTreeSet<Digest>,
    found: Vec<(Descriptor, Option<Tag>, Document)>,
}

/// What a search came to.
pub(super) struct Gathered {
    /// The manifests, with the tags that they are found by.
    pub(super) found: Vec<(Descriptor, Option<Tag>, Document)>,
    /// Why there may be more: it was denied, or reading failed. That nothing is published is no trouble.
    pub(super) trouble: Option<Trouble>,
}

/// Why there may be more evidence than was found.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// It was denied, or reading failed.
    #[error("its evidence {}: {}", if .0.is_auth() { "is denied" } else { "cannot be read" }, said(.0))]
    Upstream(UpstreamError),
    /// More than any image has.
    #[error("it has more than {0} signatures and attestations")]
    TooMuch(usize),
}

/// Returns what went wrong; which image and host it was is said elsewhere.
fn said(error: &UpstreamError) -> String {
    error.problem().map_or_else(|| error.to_string(), ToString::to_string)
}

impl<'a, 'r, M: Manifests, U: Manifests> Search<'a, 'r, M, U> {
    pub(super) fn new(
        reader: &'a Reader<'r, M>,
        upstream: &'a U,
        name: &'a RepositoryName,
        image: &LockedImage,
        attestations: &'a [Descriptor],
    ) -> Self {
        let kept: Vec<Digest> = image.kept_manifests().cloned().collect();
        let known = kept.iter().cloned().collect();
        Self { reader, upstream, name, attestations, subjects: kept.into(), known, found: Vec::new() }
    }

    pub(super) async fn run(mut self) -> Gathered {
        while let Some(subject) = self.subjects.pop_front() {
            let trouble = match self.about(&subject).await {
                Ok(()) if self.found.len() > MAX_EVIDENCE => Trouble::TooMuch(MAX_EVIDENCE),
                Ok(()) => continue,
                Err(error) => Trouble::Upstream(error),
            };
            return Gathered { found: self.found, trouble: Some(trouble) };
        }
        Gathered { found: self.found, trouble: None }
    }

    /// Finds what is about `subject`.
    async fn about(&mut self, subject: &Digest) -> Result<(), UpstreamError> {
        let text = subject.to_string();
        let about = |entry: &&Descriptor| entry.annotations.get(REFERENCE_DIGEST) == Some(&text);
        let mut listed: Vec<Descriptor> = self.attestations.iter().filter(about).cloned().collect();
        listed.extend(self.upstream.referrers(self.name, subject).await?);
        for descriptor in listed {
            if self.known.insert(descriptor.digest.clone()) {
                let document = self.reader.document(self.name, &descriptor.digest).await?;
                if let Document::Index(index) = &document {
                    self.add_below(index).await?;
                }
                self.add(&descriptor.digest, None, document);
            }
        }
        for suffix in COSIGN_SUFFIXES {
            let tag = format!("{}-{}.{suffix}", subject.algorithm().name(), subject.hex());
            let Ok(tag) = tag.parse::<Tag>() else { continue };
            let reference = Reference::new(self.name.clone(), Some(tag.clone()), None);
            match self.upstream.manifest(&reference).await {
                Ok(fetched) => {
                    self.known.insert(fetched.digest.clone());
                    self.reader.remember(self.name, &fetched.digest, &fetched.document);
                    if let Document::Index(index) = &fetched.document {
                        self.add_below(index).await?;
                    }
                    self.add(&fetched.digest, Some(tag), fetched.document);
                }
                Err(error) if error.is_missing() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Adds what an index of evidence leads to: manifests, and indexes down to a limit.
    async fn add_below(&mut self, index: &Index) -> Result<(), UpstreamError> {
        let mut waiting: Vec<(Descriptor, usize)> =
            index.manifests.iter().map(|entry| (entry.clone(), 1)).collect();
        while let Some((entry, depth)) = waiting.pop() {
            // How many there may be is looked at when all of a subject are there.
            if self.found.len() > MAX_EVIDENCE || !self.known.insert(entry.digest.clone()) {
                continue;
            }
            let document = self.reader.document(self.name, &entry.digest).await?;
            if let Document::Index(index) = &document
                && depth < MAX_DEPTH
            {
                waiting.extend(index.manifests.iter().map(|entry| (entry.clone(), depth + 1)));
            }
            let descriptor = described(&entry.digest, &document);
            self.found.push((descriptor, None, document));
        }
        Ok(())
    }

    fn add(&mut self, digest: &Digest, tag: Option<Tag>, document: Document) {
        let descriptor = described(digest, &document);
        // Cosign's tags are on images; only referrers have evidence of their own.
        if tag.is_none() {
            self.subjects.push_back(digest.clone());
        }
        self.found.push((descriptor, tag, document));
    }
}

fn described(digest: &Digest, document: &Document) -> Descriptor {
    Descriptor::new(document.media_type(), digest.clone(), document.raw().len() as u64)
}
