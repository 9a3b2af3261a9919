//! The lock: a definition resolved to digests. Everything that a bundle holds is stated here, with its size, before
//! the first layer is fetched.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Gap, GapKind, NeededBy};
use crate::oci::{
    Descriptor, Digest, Index, NodeKind, Platform, Reference, RepositoryName, Tag, TagMeaning, Tags,
};
use crate::select::{ANNOTATIONS, Band, BandId};

/// The version of the lock's form that this program writes. Locks of version 1 are read as well.
pub const LOCK_VERSION: u32 = 2;
/// The largest lock that is read, in bytes. A lock of thirty releases for five node kinds has about two million.
pub const MAX_LOCK_BYTES: usize = 64 * 1024 * 1024;

/// Why bytes are not a lock that can be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Not JSON of the expected shape.
    #[error("the lock is not valid: {0}")]
    Json(#[from] serde_json::Error),
    /// Larger than any lock.
    #[error("the lock is larger than {MAX_LOCK_BYTES} bytes")]
    TooLarge,
    /// Written by a later version of this program.
    #[error("the lock has version {0}, this dray reads versions 1 to {LOCK_VERSION}; use a newer dray")]
    Version(u32),
    /// Fields that contradict each other.
    #[error("the lock contradicts itself: {0}")]
    Inconsistent(String),
}

/// A definition resolved: each reference with its root digest, what is kept of it for whom, and every blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lock {
    /// The version of this form.
    pub schema_version: u32,
    /// The name of the bundle.
    pub name: BundleName,
    /// Counts the bundles of this name; a site refuses an older one than it has.
    pub sequence: u64,
    /// From when on a site refuses the bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// The node kinds that the lock is complete for.
    pub nodes: Vec<NodeKind>,
    /// The container runtimes in scope, as the definition states them; empty if it states none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runtimes: Vec<String>,
    /// The client bands that were in scope, sorted. Locks of schema 1 have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bands: Vec<BandId>,
    /// The releases that the images belong to.
    #[serde(default)]
    pub releases: Vec<LockedRelease>,
    /// The images, sorted by reference.
    pub images: Vec<LockedImage>,
    /// What the indexes list that the bundle holds, sorted by their digests. Locks of schema 1 do not have it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub indexes: Vec<LockedIndex>,
    /// Every manifest, configuration and layer that the bundle holds, sorted by digest.
    pub blobs: Vec<LockedBlob>,
    /// What the bundle leaves out because the site has it, sorted by digest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<RequiredBlob>,
    /// Plain files that travel along.
    #[serde(default)]
    pub files: Vec<LockedFile>,
    /// What the proof of completeness found, a row for each release and node kind.
    #[serde(default)]
    pub proof: Vec<ProofRow>,
    /// Images and files whose absence was allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_missing: Vec<Allowed>,
    /// Images that are here, and of which signatures, attestations or SBOMs are missing, which was allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_unproved: Vec<Allowed>,
}

/// Content that is missing from the lock, which was allowed.
///
/// In JSON `{"ref":"quay.io/acme/app:1","kind":"denied"}` or `{"url":"https://example.org/app","kind":"missing"}`. Locks
/// of schema 1 have the reference alone, which is kept as it is, so that such a lock is written with the bytes that it
/// was read with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Allowed {
    /// An image, or a part of it.
    Image {
        /// The reference.
        #[serde(rename = "ref")]
        reference: Reference,
        /// Why it cannot be had.
        kind: GapKind,
    },
    /// A file.
    File {
        /// Its address.
        url: String,
        /// Why it cannot be had.
        kind: GapKind,
    },
    /// The reference of a schema 1 lock.
    Reference(Reference),
}

impl Allowed {
    /// Returns whether it is about the image `reference`.
    pub fn is_of(&self, reference: &Reference) -> bool {
        match self {
            Self::Image { reference: own, .. } | Self::Reference(own) => own == reference,
            Self::File { .. } => false,
        }
    }

    /// Returns what is recorded of `gap`, or `None` if that names neither an image nor a file.
    pub(super) fn of(gap: &Gap) -> Option<Self> {
        let kind = gap.kind;
        let image = gap.reference.clone().map(|reference| Self::Image { reference, kind });
        image.or_else(|| Some(Self::File { url: gap.url.as_ref()?.to_string(), kind }))
    }
}

/// An index that the bundle holds, with everything that it lists: clients choose among all entries, also among those that are
/// not in the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockedIndex {
    /// The digest of the index.
    pub digest: Digest,
    /// Its entries in their order, as far as clients look at them.
    pub entries: Vec<Descriptor>,
}

impl LockedIndex {
    /// What `index`, whose digest is `digest`, lists.
    pub(super) fn new(digest: Digest, index: &Index) -> Self {
        let listed = |entry: &Descriptor| {
            let mut listed = Descriptor::new(&entry.media_type, entry.digest.clone(), entry.size);
            listed.platform.clone_from(&entry.platform);
            let looked_at = |(key, _): &(&String, &String)| ANNOTATIONS.contains(&key.as_str());
            let annotations = entry.annotations.iter().filter(looked_at);
            listed.annotations = annotations.map(|(key, value)| (key.clone(), value.clone())).collect();
            listed
        };
        Self { digest, entries: index.manifests.iter().map(listed).collect() }
    }
}

/// A release that the lock was resolved for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockedRelease {
    /// `k0s@v1.36.3+k0s.2`
    pub release: String,
    /// Features beyond the default configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub with: Vec<String>,
    /// How its programs reach the nodes; `None` if the bundle's files are all that is known of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub programs: Option<Programs>,
}

/// How the programs of a release reach the nodes: `k0s.exe`, `kubelet.exe`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Programs {
    /// In another way than in the bundle.
    Elsewhere,
}

/// An image reference and what is kept of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LockedImage {
    /// The reference, as nodes ask for it.
    #[serde(rename = "ref")]
    pub reference: Reference,
    /// What the reference resolved to upstream; carried verbatim.
    pub root: Root,
    /// What the image runs on, where the root is no index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The node kinds that need the image; none for what is carried for no node in particular.
    #[serde(default)]
    pub nodes: Vec<NodeKind>,
    /// The manifests of the root that are carried, in the order of the index; empty where the root is no index.
    #[serde(default)]
    pub children: Vec<Child>,
    /// The configuration and the layers, where the root is no index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<Digest>,
    /// Signatures, attestations and SBOMs of what is kept, in the order of their digests and tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Evidence>,
    /// Who needs the image.
    #[serde(default)]
    pub needed_by: Vec<NeededBy>,
}

impl LockedImage {
    /// The children that are carried with their layers.
    pub fn kept(&self) -> impl Iterator<Item = &Child> {
        self.children.iter().filter(|child| !child.metadata_only)
    }

    /// The manifests that are carried with everything that belongs to them: the root, the children that are kept, and the
    /// evidence.
    pub fn kept_manifests(&self) -> impl Iterator<Item = &Digest> {
        let evidence = self.evidence.iter().map(|evidence| &evidence.digest);
        std::iter::once(&self.root.digest).chain(self.kept().map(|child| &child.digest)).chain(evidence)
    }

    /// The manifests, configurations and layers without which the image is not whole.
    pub fn essentials(&self) -> impl Iterator<Item = &Digest> {
        let children = self.kept().flat_map(|child| &child.blobs);
        let evidence = self.evidence.iter().flat_map(|evidence| &evidence.blobs);
        self.kept_manifests().chain(&self.blobs).chain(children).chain(evidence)
    }

    /// The configurations and layers of everything that is carried of the image.
    pub fn contents(&self) -> impl Iterator<Item = &Digest> {
        let children = self.children.iter().flat_map(Child::carried_blobs);
        let evidence = self.evidence.iter().flat_map(|evidence| &evidence.blobs);
        self.blobs.iter().chain(children).chain(evidence)
    }

    /// The manifests that are carried: the root, the children in their order, and the evidence.
    pub fn manifests(&self) -> impl Iterator<Item = &Digest> {
        let children = self.children.iter().map(|child| &child.digest);
        let evidence = self.evidence.iter().map(|evidence| &evidence.digest);
        std::iter::once(&self.root.digest).chain(children).chain(evidence)
    }

    /// Everything that a node of this kind may download of the image.
    pub fn needed_on<'a>(&'a self, node: &'a NodeKind) -> impl Iterator<Item = &'a Digest> {
        let needed = self.nodes.contains(node);
        let root = std::iter::once(&self.root.digest).chain(&self.blobs).filter(move |_| needed);
        let children = self.children.iter().filter(|child| child.nodes.contains(node));
        root.chain(children.flat_map(|child| std::iter::once(&child.digest).chain(&child.blobs)))
    }
}

/// The descriptor that a reference resolves to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Root {
    /// Index, manifest list, or manifest.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

impl Root {
    /// Returns the descriptor.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(&self.media_type, self.digest.clone(), self.size)
    }
}

/// A manifest of an index that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Child {
    /// The digest of the manifest.
    pub digest: Digest,
    /// The size of the manifest in bytes.
    pub size: u64,
    /// The type of the manifest; an index where indexes are nested.
    pub media_type: String,
    /// What the manifest runs on, as the index states it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// What the manifest runs on by its configuration, if the index does not state it or states several platforms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_platform: Option<Platform>,
    /// The node kinds that fetch it.
    pub nodes: Vec<NodeKind>,
    /// Whether the manifest and its configuration are carried without the layers, for clients that read a whole index. No
    /// node kind fetches such a child. Of a nested index it means that no node kind fetches anything in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub metadata_only: bool,
    /// Its configuration and its layers. If `metadata_only`, of these only the configuration is carried for its sake.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<Digest>,
}

impl Child {
    /// A child as an index describes it, with its configuration and its layers.
    pub(super) fn new(descriptor: &Descriptor, nodes: &[NodeKind], blobs: Vec<Digest>) -> Self {
        Self {
            digest: descriptor.digest.clone(),
            size: descriptor.size,
            media_type: descriptor.media_type.clone(),
            platform: descriptor.platform.clone(),
            config_platform: None,
            nodes: nodes.to_vec(),
            metadata_only: false,
            blobs,
        }
    }

    /// The blobs that are carried for the sake of this child: its configuration, and its layers unless it is
    /// `metadata_only`.
    pub fn carried_blobs(&self) -> &[Digest] {
        let count = if self.metadata_only { self.blobs.len().min(1) } else { self.blobs.len() };
        &self.blobs[..count]
    }

    /// Describes the child as the index does, except for annotations.
    pub fn descriptor(&self) -> Descriptor {
        let mut descriptor = Descriptor::new(&self.media_type, self.digest.clone(), self.size);
        descriptor.platform.clone_from(&self.platform);
        descriptor
    }
}

/// A manifest that says something about a kept manifest: a signature, an attestation, an SBOM.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// The digest of the manifest.
    pub digest: Digest,
    /// The tag that verifiers find it by, where that is how they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
    /// The size of the manifest in bytes.
    pub size: u64,
    /// The type of the manifest.
    pub media_type: String,
    /// What it holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<Digest>,
}

impl Evidence {
    /// Returns the descriptor of the manifest.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(&self.media_type, self.digest.clone(), self.size)
    }
}

/// Content that a bundle leaves out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequiredBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// Content that the bundle holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LockedBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// A repository to fetch it from; none for plain files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<RepositoryName>,
    /// Whether it is a manifest, which registries give out under another path than blobs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub manifest: bool,
    /// Other places to fetch it from: a file's address, or the `urls` of a foreign layer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
}

/// A plain file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LockedFile {
    /// Where it comes from; the site serves it under the same path.
    pub url: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

impl LockedFile {
    /// The host, with its port where that is not the usual one, and the path without its first slash and decoded; none
    /// when the URL is not that of a file that can be served.
    ///
    /// Clients and upstreams disagree about which characters are encoded (`+` or `%2B`), so paths are compared decoded.
    pub fn address(&self) -> Option<(String, String)> {
        address_of(&url::Url::parse(&self.url).ok()?)
    }

    /// The name of the file, without the folders; none where there is no address.
    pub fn name(&self) -> Option<String> {
        let (_, path) = self.address()?;
        path.rsplit('/').next().map(str::to_owned)
    }
}

/// What [`LockedFile::address`] says of a URL.
pub(super) fn address_of(url: &url::Url) -> Option<(String, String)> {
    let host = match url.port() {
        Some(port) => format!("{}:{port}", url.host_str()?),
        None => url.host_str()?.to_owned(),
    };
    let path = percent_encoding::percent_decode_str(url.path().strip_prefix('/')?).decode_utf8().ok()?;
    // Whoever fetches the file from the site gives it this name.
    let is_name = |segment: &str| !matches!(segment, "." | "..") && !segment.contains('\\');
    let good = !path.is_empty()
        && !path.ends_with('/')
        && !path.chars().any(char::is_control)
        && path.split('/').all(is_name);
    good.then(|| (host, path.into_owned()))
}

/// Returns what the tags mean that `images` and their evidence name. What an image is called counts more than the tag that
/// evidence of another image was found by.
pub fn tags_of<'a>(images: impl IntoIterator<Item = &'a LockedImage> + Clone) -> Tags {
    let mut tags = Tags::default();
    for image in images.clone() {
        for evidence in &image.evidence {
            if let Some(tag) = &evidence.tag {
                tags.add(image.reference.name(), tag, TagMeaning::Unpinned(evidence.descriptor()));
            }
        }
    }
    for image in images {
        let root = image.root.descriptor();
        let meaning = match image.reference.digest() {
            Some(_) => TagMeaning::Pinned(root),
            None => TagMeaning::Unpinned(root),
        };
        if let Some(tag) = image.reference.tag() {
            tags.add(image.reference.name(), tag, meaning);
        }
    }
    tags
}

/// One cell of the proof: whether a node kind can run a release with what the lock holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProofRow {
    /// The release, or `images` for what the definition lists by itself.
    pub release: String,
    /// The node kind.
    pub node: NodeKind,
    /// How many images the node kind needs for it.
    pub images: usize,
    /// The labels of the client bands that were tried. [`Lock::covers`] tells whether one of them was.
    pub clients: Vec<String>,
    /// What would not run and was allowed to be missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// The host of the repositories in which bundles describe themselves. There is no server of that name.
pub const BUNDLE_HOST: &str = "bundles.dray.dev";

/// The name of a bundle: lower-case letters, digits and dashes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct BundleName(String);

impl BundleName {
    /// The name as a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The repository under which a registry offers the bundle's own index and its signatures.
    pub fn repository(&self) -> RepositoryName {
        format!("{BUNDLE_HOST}/{}", self.0).parse().expect("a bundle name is a repository name")
    }
}

impl std::str::FromStr for BundleName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        if !text.is_empty()
            && text.len() <= 63
            && text.bytes().all(|b| valid(b) || b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-')
        {
            Ok(Self(text.to_owned()))
        } else {
            let shown: String = text.chars().take(80).collect();
            Err(format!("`{shown}` is not a bundle name: use up to 63 lower-case letters, digits and dashes"))
        }
    }
}

impl std::fmt::Display for BundleName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for BundleName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Lock {
    /// Reads and checks a lock.
    pub fn from_json(bytes: &[u8]) -> Result<Self, LockError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            schema_version: u32,
        }
        if bytes.len() > MAX_LOCK_BYTES {
            return Err(LockError::TooLarge);
        }
        let Version { schema_version } = serde_json::from_slice(bytes)?;
        if !(1..=LOCK_VERSION).contains(&schema_version) {
            return Err(LockError::Version(schema_version));
        }
        let lock: Self = serde_json::from_slice(bytes)?;
        lock.check()?;
        Ok(lock)
    }

    /// The canonical JSON: fields in their fixed order, lists sorted, two spaces, a newline at the end.
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).expect("a lock has nothing that JSON cannot hold");
        json.push(b'\n');
        json
    }

    /// Returns whether the proof is for nodes of `kind` whose client follows `band`.
    pub fn covers(&self, kind: &NodeKind, band: &Band) -> bool {
        let mut rows = self.proof.iter().filter(|row| row.node == *kind);
        if self.schema_version == 1 {
            return rows.any(|row| row.clients.contains(&band.label()));
        }
        rows.next().is_some() && self.bands.contains(&band.id())
    }

    /// Returns what the tags mean that the lock's references and evidence name.
    pub fn tags(&self) -> Tags {
        tags_of(&self.images)
    }

    /// Whether the bundle is refused at `now`.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// The bytes that the blobs take together.
    pub fn total_bytes(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.size).sum()
    }

    /// The bytes of what the bundle leaves out.
    pub fn required_bytes(&self) -> u64 {
        self.requires.iter().map(|blob| blob.size).sum()
    }

    /// Leaves out the configurations and layers that the site has, as `has` says. Manifests are small and stay, so
    /// that what a bundle means can be read from itself.
    #[must_use]
    pub fn without(mut self, has: impl Fn(&Digest) -> bool) -> Self {
        let leave_out = |blob: &LockedBlob| !blob.manifest && has(&blob.digest);
        let (left, kept): (Vec<LockedBlob>, Vec<LockedBlob>) = self.blobs.into_iter().partition(leave_out);
        self.blobs = kept;
        self.requires
            .extend(left.into_iter().map(|blob| RequiredBlob { digest: blob.digest, size: blob.size }));
        self.requires.sort_by(|a, b| a.digest.cmp(&b.digest));
        self
    }

    fn check(&self) -> Result<(), LockError> {
        let inconsistent = |what: String| Err(LockError::Inconsistent(what));
        let sentence =
            |image: &&LockedImage| image.needed_by.iter().any(|by| matches!(by, NeededBy::Sentence(_)));
        if self.schema_version > 1
            && let Some(image) = self.images.iter().find(sentence)
        {
            return inconsistent(format!("`neededBy` of {} has the form of schema 1", image.reference));
        }
        let old = |allowed: &&Allowed| matches!(allowed, Allowed::Reference(_));
        if self.schema_version > 1
            && let Some(Allowed::Reference(reference)) =
                self.allowed_missing.iter().chain(&self.allowed_unproved).find(old)
        {
            return inconsistent(format!("what is allowed of {reference} has the form of schema 1"));
        }
        if let Some(pair) = self.blobs.windows(2).find(|pair| pair[0].digest >= pair[1].digest) {
            return inconsistent(format!("blobs are not sorted at {}", pair[1].digest));
        }
        if let Some(pair) = self.images.windows(2).find(|pair| pair[0].reference >= pair[1].reference) {
            return inconsistent(format!("images are not sorted at {}", pair[1].reference));
        }
        if let Some(pair) = self.indexes.windows(2).find(|pair| pair[0].digest >= pair[1].digest) {
            return inconsistent(format!("indexes are not sorted at {}", pair[1].digest));
        }
        let sizes = self.blobs.iter().map(|blob| blob.size).chain(self.requires.iter().map(|blob| blob.size));
        if sizes.into_iter().try_fold(0u64, u64::checked_add).is_none() {
            return inconsistent("the sizes of the blobs overflow".into());
        }
        if let Some(pair) = self.requires.windows(2).find(|pair| pair[0].digest >= pair[1].digest) {
            return inconsistent(format!("what is required is not sorted at {}", pair[1].digest));
        }
        let carried: BTreeMap<&Digest, u64> =
            self.blobs.iter().map(|blob| (&blob.digest, blob.size)).collect();
        let required: BTreeMap<&Digest, u64> =
            self.requires.iter().map(|blob| (&blob.digest, blob.size)).collect();
        if let Some(digest) = required.keys().find(|digest| carried.contains_key(*digest)) {
            return inconsistent(format!("{digest} is both carried and required"));
        }
        let listed = |digest: &Digest, size: u64| carried.get(digest) == Some(&size);
        let marked: BTreeSet<&Digest> =
            self.blobs.iter().filter(|blob| blob.manifest).map(|blob| &blob.digest).collect();
        let is_other =
            |image: &&LockedImage| image.reference.digest().is_some_and(|d| *d != image.root.digest);
        if let Some(image) = self.images.iter().find(is_other) {
            return inconsistent(format!("{} is {}", image.reference, image.root.digest));
        }
        for image in &self.images {
            let root = std::iter::once((&image.root.digest, image.root.size));
            let children = image.children.iter().map(|child| (&child.digest, child.size));
            let evidence = image.evidence.iter().map(|evidence| (&evidence.digest, evidence.size));
            let mut manifests = root.chain(children).chain(evidence);
            if let Some((digest, _)) = manifests.find(|(digest, size)| !listed(digest, *size)) {
                return inconsistent(format!(
                    "{} needs {digest}, which is not among the blobs",
                    image.reference
                ));
            }
            if let Some(digest) = image.manifests().find(|digest| !marked.contains(digest)) {
                return inconsistent(format!("{digest} of {} is not marked as a manifest", image.reference));
            }
            if let Some(child) =
                image.children.iter().find(|child| child.metadata_only && !child.nodes.is_empty())
            {
                return inconsistent(format!(
                    "{} of {} is carried without its layers and for node kinds",
                    child.digest, image.reference
                ));
            }
            let known = |digest: &&Digest| carried.contains_key(digest) || required.contains_key(digest);
            if let Some(digest) = image.contents().find(|digest| !known(digest)) {
                return inconsistent(format!("{} needs {digest}, which is nowhere", image.reference));
            }
        }
        let known = |file: &LockedFile| {
            listed(&file.digest, file.size) || required.get(&file.digest) == Some(&file.size)
        };
        if let Some(file) = self.files.iter().find(|file| !known(file)) {
            return inconsistent(format!("{} is not among the blobs", file.url));
        }
        if let Some(file) = self.files.iter().find(|file| file.address().is_none()) {
            return inconsistent(format!("{} is not the address of a file", file.url));
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::oci::media_type;

    /// A lock of one image whose root and only layer are the given bytes.
    pub(crate) fn sample(manifest: &[u8], layer: &[u8]) -> Lock {
        let name: RepositoryName = "registry.k8s.io/pause".parse().unwrap();
        let blob = |bytes: &[u8], manifest| LockedBlob {
            digest: Digest::sha256(bytes),
            size: bytes.len() as u64,
            from: Some(name.clone()),
            manifest,
            urls: Vec::new(),
        };
        let mut blobs = vec![blob(manifest, true), blob(layer, false)];
        blobs.sort_by(|a, b| a.digest.cmp(&b.digest));
        Lock {
            schema_version: LOCK_VERSION,
            name: "plant-7".parse().unwrap(),
            sequence: 1,
            expires: None,
            nodes: vec!["linux/amd64".parse().unwrap()],
            runtimes: Vec::new(),
            bands: Vec::new(),
            releases: Vec::new(),
            images: vec![LockedImage {
                reference: "registry.k8s.io/pause:3.9".parse().unwrap(),
                root: Root {
                    media_type: media_type::OCI_MANIFEST.into(),
                    digest: Digest::sha256(manifest),
                    size: manifest.len() as u64,
                },
                platform: None,
                nodes: vec!["linux/amd64".parse().unwrap()],
                children: Vec::new(),
                blobs: vec![Digest::sha256(layer)],
                evidence: Vec::new(),
                needed_by: vec![NeededBy::list("images")],
            }],
            indexes: Vec::new(),
            blobs,
            requires: Vec::new(),
            files: Vec::new(),
            proof: Vec::new(),
            allowed_missing: Vec::new(),
            allowed_unproved: Vec::new(),
        }
    }

    #[test]
    fn survives_writing() {
        let lock = sample(b"manifest", b"layer");
        let json = lock.to_json();
        assert_eq!(Lock::from_json(&json).unwrap(), lock);
        assert_eq!(Lock::from_json(&json).unwrap().to_json(), json);
    }

    #[test]
    fn refuses_contradictions() {
        let good = sample(b"manifest", b"layer");
        let refused = |change: &dyn Fn(&mut Lock)| {
            let mut lock = good.clone();
            change(&mut lock);
            Lock::from_json(&lock.to_json()).unwrap_err()
        };
        assert!(matches!(refused(&|lock| lock.blobs.reverse()), LockError::Inconsistent(_)));
        assert!(matches!(refused(&|lock| lock.blobs.clear()), LockError::Inconsistent(_)));
        assert!(matches!(refused(&|lock| lock.images[0].root.size += 1), LockError::Inconsistent(_)));
        assert!(matches!(
            refused(&|lock| lock.blobs.iter_mut().for_each(|b| b.size = u64::MAX)),
            LockError::Inconsistent(_)
        ));
        assert!(matches!(refused(&|lock| lock.schema_version = 3), LockError::Version(3)));
        let pinned = Digest::sha256(b"another");
        let pin = |lock: &mut Lock| {
            let name = lock.images[0].reference.name().clone();
            lock.images[0].reference = Reference::new(name, None, Some(pinned.clone()));
        };
        assert!(matches!(refused(&pin), LockError::Inconsistent(_)));
        // What is not marked would be left out of a delta.
        assert!(matches!(
            refused(&|lock| lock.blobs.iter_mut().for_each(|blob| blob.manifest = false)),
            LockError::Inconsistent(_)
        ));
    }

    #[test]
    fn proof_covers_bands_by_id() {
        let kind: NodeKind = "windows(10.0.20348)/amd64".parse().unwrap();
        let bands = |runtime: &str| crate::select::node_bands(&kind, &[runtime.parse().unwrap()]);
        let (tried, other) = (bands("containerd@2.3")[0], bands("containerd@1.6.20")[0]);
        let mut lock = sample(b"manifest", b"layer");
        lock.nodes.push(kind.clone());
        lock.bands = vec![tried.id()];
        lock.proof.push(ProofRow {
            release: "images".to_owned(),
            node: kind.clone(),
            images: 1,
            clients: vec!["another label".to_owned()],
            missing: Vec::new(),
        });
        let lock = Lock::from_json(&lock.to_json()).unwrap();
        assert!(lock.covers(&kind, tried) && !lock.covers(&kind, other));
        assert!(!lock.covers(&"windows(10.0.26100)/amd64".parse().unwrap(), tried));
        // Locks of schema 1 have labels and no ids.
        let mut old = lock;
        old.schema_version = 1;
        old.bands.clear();
        old.proof[0].clients = vec![other.label()];
        let old = Lock::from_json(&old.to_json()).unwrap();
        assert!(old.covers(&kind, other) && !old.covers(&kind, tried));
    }

    #[test]
    fn tag_follows_the_unpinned_reference() {
        let name: RepositoryName = "registry.k8s.io/pause".parse().unwrap();
        let tag: Tag = "3.9".parse().unwrap();
        let image = |manifest: &[u8], pinned: bool| {
            let mut image = sample(manifest, b"layer").images.remove(0);
            let digest = pinned.then(|| image.root.digest.clone());
            image.reference = Reference::new(name.clone(), Some(tag.clone()), digest);
            image
        };
        let meaning = |images: &[LockedImage]| tags_of(images).get(&name, &tag).cloned();
        let (index, child, other) = (image(b"index", false), image(b"child", true), image(b"other", true));
        let unpinned = Some(TagMeaning::Unpinned(index.root.descriptor()));
        // Pinned references sort behind the others.
        assert_eq!(meaning(&[index.clone(), child.clone()]), unpinned);
        assert_eq!(meaning(&[child.clone(), index.clone(), other.clone()]), unpinned);
        assert_eq!(meaning(std::slice::from_ref(&child)), Some(TagMeaning::Pinned(child.root.descriptor())));
        assert_eq!(meaning(&[child.clone(), other.clone()]), Some(TagMeaning::Disputed));
        let disputed: Vec<Reference> = tags_of(&[child, other]).disputed().collect();
        assert_eq!(disputed, ["registry.k8s.io/pause:3.9".parse().unwrap()]);
    }

    #[test]
    fn addresses_of_files() {
        let address = |url: &str| {
            let file = LockedFile { url: url.to_owned(), digest: Digest::sha256(b""), size: 0 };
            file.address().map(|(host, path)| format!("{host} {path}"))
        };
        for (url, expected) in [
            ("https://dl.k8s.io/v1.36.3/bin/kubelet.exe", Some("dl.k8s.io v1.36.3/bin/kubelet.exe")),
            ("https://A.b:8443/x%2B1?token=1", Some("a.b:8443 x+1")),
            ("https://a.b:443/x+1", Some("a.b x+1")),
            ("https://a.b/../../x", Some("a.b x")),
            ("https://a.b/x/", None),
            ("https://a.b", None),
            ("https://a.b/%0a", None),
            ("https://a.b/%ff", None),
            ("https://a.b/x%2f..%2fy", None),
            ("https://a.b/..%2fy", None),
            ("https://a.b/x/%2e%2e%5cy", None),
            ("x", None),
        ] {
            assert_eq!(address(url).as_deref(), expected, "{url}");
        }
    }

    #[test]
    fn leaves_out_layers_but_no_manifests() {
        let lock = sample(b"manifest", b"layer").without(|_| true);
        assert_eq!(lock.blobs.len(), 1);
        assert!(lock.blobs[0].manifest);
        assert_eq!(lock.requires, [RequiredBlob { digest: Digest::sha256(b"layer"), size: 5 }]);
        assert_eq!(Lock::from_json(&lock.to_json()).unwrap(), lock);
        let mut lost = lock;
        lost.requires.clear();
        assert!(matches!(Lock::from_json(&lost.to_json()), Err(LockError::Inconsistent(_))));
    }

    #[test]
    fn bundle_names() {
        assert_eq!(
            "plant-7".parse::<BundleName>().unwrap().repository().as_str(),
            "bundles.dray.dev/plant-7"
        );
        for bad in ["", "-a", "a-", "Plant", "a/b", "a.b", "ü", &"a".repeat(64)] {
            assert!(bad.parse::<BundleName>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Lock::from_json(&bytes);
        }
    }
}
