//! Finding the documents of the tail from the end of the bundle backwards.
//!
//! Every bundle ends with the same file, and each file of the tail is JSON: no line of it can be mistaken for a header,
//! which has zero bytes. So the files are found one before the other, and nothing that lies before them has to be
//! readable. What is found is only believed once the whole tail has been made again and compared.

use std::collections::BTreeMap;
use std::io;

use serde::Deserialize;

use super::media::Media;
use super::plan::{
    Entry, INDEX_JSON, LOCK_TYPE, OCI_LAYOUT, OCI_LAYOUT_CONTENT, ROLE, ROLE_ATTESTATION, ROLE_BUNDLE,
    ROLE_SIGNATURES, blob_path,
};
use super::read::BundleError;
use super::tar;
use crate::file::Span;
use crate::oci::{Descriptor, MAX_MANIFEST_BYTES};
use crate::resolve::{Lock, MAX_LOCK_BYTES};
use crate::trust::{Attestation, Claim, SignatureManifest, Signatures};

/// The largest `index.json` or bundle index that is read.
const MAX_INDEX_BYTES: u64 = 64 * 1024 * 1024;
/// The longest tail that is searched: the lock, two indexes and what is small.
const MAX_TAIL_BYTES: u64 = MAX_LOCK_BYTES as u64 + 2 * MAX_INDEX_BYTES + 64 * 1024 * 1024;
/// How much is read at a time while headers are looked for.
const WINDOW: u64 = 64 * 1024;

/// What a bundle is made again from.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) lock: Lock,
    pub(super) claim: Claim,
    pub(super) signatures: Option<Signatures>,
    pub(super) mtime: u64,
}

#[derive(Deserialize)]
struct Listing {
    manifests: Vec<Descriptor>,
}

impl Listing {
    fn with_role<'a>(&'a self, role: &'a str) -> impl Iterator<Item = &'a Descriptor> {
        self.manifests.iter().filter(move |m| m.annotations.get(ROLE).is_some_and(|value| value == role))
    }
}

#[derive(Deserialize)]
struct Artifact {
    layers: Vec<Descriptor>,
}

impl Media {
    /// Whether the last file is that of a bundle.
    pub(super) fn ends_as_bundle(&self) -> bool {
        Search::new(self).is_ok()
    }
}

/// Reads what the bundle on `media` is made from.
pub(super) fn find(media: &Media) -> Result<Found, BundleError> {
    let (mut search, mtime) = Search::new(media)?;
    let index = search.step()?.filter(|entry| entry.path == INDEX_JSON);
    let index = index.ok_or_else(|| media.malformed(search.first, "it has no index.json"))?;
    let listing: Listing = search.json(&index)?;
    let bundle = listing.with_role(ROLE_BUNDLE).next();
    let bundle = bundle.ok_or_else(|| {
        media.malformed(index.offset, "the layout holds images, but no bundle made by dray")
    })?;
    let members: Listing = search.document(bundle)?;
    let artifact = members.manifests.iter().find(|m| m.artifact_type.as_deref() == Some(LOCK_TYPE));
    let artifact = artifact.ok_or_else(|| media.malformed(index.offset, "the bundle index has no lock"))?;
    let artifact: Artifact = search.document(artifact)?;
    let layer = artifact.layers.first();
    let layer = layer.ok_or_else(|| media.malformed(index.offset, "the lock's manifest is empty"))?;
    let lock = search.blob(layer, MAX_LOCK_BYTES as u64)?;
    let lock = Lock::from_json(&lock)
        .map_err(|source| BundleError::Lock { path: media.path().to_owned(), source })?;
    let claim = Claim::new(&lock.name.repository(), &bundle.digest);
    let signatures = search.signatures(&listing, &claim)?;
    Ok(Found { lock, claim, signatures, mtime })
}

/// The file of a tar that ends at `end`, which is looked for backwards up to `limit`. Only files with a `wanted` path are
/// considered; none when the first of them does not end there.
pub(super) fn file_before(
    bytes: &Span,
    end: u64,
    limit: u64,
    wanted: impl Fn(&str) -> bool,
) -> io::Result<Option<Entry>> {
    let mut window_start = end;
    let mut window = Vec::new();
    let mut at = end;
    while at >= limit + tar::BLOCK {
        at -= tar::BLOCK;
        if at < window_start {
            window_start = read_before(bytes, window_start, &mut window)?;
        }
        let from = usize::try_from(at - window_start).expect("less than a window");
        let header = window.get(from..from + 512).and_then(|block| tar::parse(block).ok().flatten());
        let Some(header) = header.filter(|header| wanted(&header.path)) else { continue };
        let offset = at + header.len;
        if tar::padded(header.size).and_then(|size| offset.checked_add(size)) != Some(end) {
            return Ok(None);
        }
        return Ok(Some(Entry { path: header.path, header: at, offset, size: header.size }));
    }
    Ok(None)
}

/// Reads what comes before `end` into `window`, and says where that begins.
fn read_before(bytes: &Span, end: u64, window: &mut Vec<u8>) -> io::Result<u64> {
    let mut read = |len: u64| {
        window.resize(usize::try_from(len).expect("a small constant"), 0);
        bytes.read_exact_at(window, end - len).map(|()| end - len)
    };
    // What lies farther ahead may be missing or unreadable, and need not be read.
    read(WINDOW.min(end)).or_else(|_| read(tar::BLOCK))
}

/// Goes through the files of the tail from the last to the first.
struct Search<'a> {
    media: &'a Media,
    /// What was passed, by path.
    passed: BTreeMap<String, Entry>,
    /// Where the first file that was passed begins.
    first: u64,
}

impl<'a> Search<'a> {
    /// Begins at the end, and gives the time that the last file bears.
    fn new(media: &'a Media) -> Result<(Self, u64), BundleError> {
        let len = media.bytes().len();
        let last = tar::BLOCK + OCI_LAYOUT_CONTENT.len().next_multiple_of(512) as u64 + tar::END;
        let first = len.checked_sub(last).filter(|first| first % tar::BLOCK == 0);
        let mut block = [0; 512];
        let header = match first {
            None => None,
            Some(first) => {
                media.read_exact_at(&mut block, first)?;
                tar::parse(&block).ok().flatten()
            }
        };
        let size = OCI_LAYOUT_CONTENT.len() as u64;
        match (first, header) {
            (Some(first), Some(header)) if header.path == OCI_LAYOUT && header.size == size => {
                Ok((Self { media, passed: BTreeMap::new(), first }, header.mtime))
            }
            _ => Err(media.other().unwrap_or_else(|| {
                let what =
                    "it does not end as a bundle does; it was cut off, something follows it, or its end is damaged";
                media.malformed(len, what)
            })),
        }
    }

    /// Passes the file that ends where the first that was passed begins; none when there is no such file.
    fn step(&mut self) -> Result<Option<Entry>, BundleError> {
        let bytes = self.media.bytes();
        let limit = bytes.len().saturating_sub(MAX_TAIL_BYTES);
        let entry = file_before(bytes, self.first, limit, |_| true)
            .map_err(|error| self.media.failed(self.first, &error))?;
        if let Some(entry) = &entry {
            self.passed.insert(entry.path.clone(), entry.clone());
            self.first = entry.header;
        }
        Ok(entry)
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, entry: &Entry) -> Result<T, BundleError> {
        let bytes = self.read(entry, MAX_INDEX_BYTES)?;
        serde_json::from_slice(&bytes).map_err(|error| self.media.malformed(entry.offset, error.to_string()))
    }

    fn document<T: for<'de> Deserialize<'de>>(&mut self, descriptor: &Descriptor) -> Result<T, BundleError> {
        let bytes = self.blob(descriptor, MAX_INDEX_BYTES)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| self.media.malformed(self.first, format!("{}: {error}", descriptor.digest)))
    }

    /// Reads the content that `descriptor` points at and checks its digest.
    fn blob(&mut self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, BundleError> {
        let digest = &descriptor.digest;
        let path = blob_path(digest);
        while !self.passed.contains_key(&path) {
            if self.step()?.is_none() {
                let what = format!("{digest}, which belongs to the end of the bundle, is not found");
                return Err(self.media.malformed(self.first, what));
            }
        }
        let entry = &self.passed[&path];
        let bytes = self.read(entry, limit)?;
        if digest.matches(&bytes) {
            Ok(bytes)
        } else {
            Err(self.media.malformed(entry.offset, format!("{digest} has another content")))
        }
    }

    fn read(&self, entry: &Entry, limit: u64) -> Result<Vec<u8>, BundleError> {
        let size = usize::try_from(entry.size).ok().filter(|_| entry.size <= limit);
        let too_large = || self.media.malformed(entry.header, format!("{} is too large", entry.path));
        let mut bytes = vec![0; size.ok_or_else(too_large)?];
        self.media.read_exact_at(&mut bytes, entry.offset)?;
        Ok(bytes)
    }

    /// Reads the signatures of `claim` in both forms, as `index.json` lists them.
    fn signatures(&mut self, listing: &Listing, claim: &Claim) -> Result<Option<Signatures>, BundleError> {
        let media = self.media;
        let untrusted = |source| BundleError::Untrusted { path: media.path().to_owned(), source };
        let Some(descriptor) = listing.with_role(ROLE_SIGNATURES).next() else { return Ok(None) };
        let bytes = self.blob(descriptor, MAX_INDEX_BYTES)?;
        let simple = SignatureManifest::parse(&bytes, &claim.payload).map_err(untrusted)?;
        let mut attestations = Vec::new();
        for descriptor in listing.with_role(ROLE_ATTESTATION).take(Signatures::MAX) {
            let artifact: Artifact = self.document(descriptor)?;
            let layer = artifact.layers.first();
            let layer = layer.ok_or_else(|| media.malformed(self.first, "an attestation without content"))?;
            let bytes = self.blob(layer, MAX_MANIFEST_BYTES as u64)?;
            attestations.push(Attestation::parse(&bytes, &claim.statement).map_err(untrusted)?);
        }
        let signatures = Signatures::new(simple.signatures().to_vec(), attestations);
        signatures.map(Some).map_err(untrusted)
    }
}
