//! Resolving against an upstream of hand-made documents.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use url::Url;

use super::*;
use crate::catalog::Catalog;
use crate::oci::{Descriptor, Digest, Document, NodeKind, Platform, Reference, RepositoryName, media_type};
use crate::select::node_bands;
use crate::upstream::{Fetched, Identity, Manifests, Missing, Problem, Refusal, UpstreamError};

/// Answers from a table, and counts.
#[derive(Default)]
pub(crate) struct Table {
    tags: BTreeMap<Reference, Digest>,
    documents: BTreeMap<Digest, (String, Bytes)>,
    layers: Vec<Bytes>,
    referrers: BTreeMap<Digest, Vec<Descriptor>>,
    /// What asking for referrers comes to instead.
    refusal: Option<fn() -> Problem>,
    asked: Mutex<Vec<Digest>>,
    /// How many requests the registry still lets through.
    remaining: Option<u64>,
    /// After how many requests the registry refuses what can be done without.
    refuses_after: Option<usize>,
}

impl Table {
    fn add(&mut self, media_type: &str, content: &Value) -> Value {
        let bytes = Bytes::from(content.to_string());
        let digest = Digest::sha256(&bytes);
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
        self.documents.insert(digest, (media_type.to_owned(), bytes));
        descriptor
    }

    /// An image for `platform`; `null` for an entry that does not state one.
    pub(crate) fn image(&mut self, platform: &str, layer: &str) -> Value {
        let platform: Platform = platform.parse().unwrap();
        let config = self.add(media_type::OCI_CONFIG, &json!(platform));
        self.layers.push(Bytes::copy_from_slice(layer.as_bytes()));
        let layer = json!(Descriptor::of(media_type::OCI_LAYER_GZIP, layer.as_bytes()));
        let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": [layer]});
        let mut entry = self.add(media_type::OCI_MANIFEST, &manifest);
        entry["platform"] = json!(platform);
        entry
    }

    pub(crate) fn index(&mut self, entries: &[Value]) -> Value {
        let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries});
        self.add(media_type::OCI_INDEX, &index)
    }

    pub(crate) fn tag(&mut self, reference: &str, root: &Value) {
        let digest = root["digest"].as_str().unwrap().parse().unwrap();
        self.tags.insert(reference.parse().unwrap(), digest);
    }

    /// The bytes of everything that is here.
    pub(crate) fn contents(&self) -> Vec<&[u8]> {
        let documents = self.documents.values().map(|(_, bytes)| bytes.as_ref());
        documents.chain(self.layers.iter().map(AsRef::as_ref)).collect()
    }

    fn fetch(&self, digest: &Digest) -> Fetched {
        self.asked.lock().unwrap().push(digest.clone());
        let (media_type, bytes) = &self.documents[digest];
        let document = Document::parse(Some(media_type), bytes.clone()).unwrap();
        Fetched { digest: digest.clone(), document }
    }
}

impl Manifests for Table {
    async fn manifest(&self, reference: &Reference) -> Result<Fetched, UpstreamError> {
        let missing =
            || UpstreamError::read(reference.to_string(), reference.host(), Problem::Missing(Missing::Tag));
        Ok(self.fetch(self.tags.get(reference).ok_or_else(missing)?))
    }

    async fn manifest_by_digest(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<Fetched, UpstreamError> {
        if !self.documents.contains_key(digest) {
            let missing = Problem::Missing(Missing::Manifest);
            return Err(UpstreamError::read(format!("{name}@{digest}"), name.host().unwrap(), missing));
        }
        Ok(self.fetch(digest))
    }

    async fn small_blob(&self, _: &RepositoryName, blob: &Descriptor) -> Result<Bytes, UpstreamError> {
        Ok(self.documents[&blob.digest].1.clone())
    }

    async fn spare_manifest(&self, name: &RepositoryName, digest: &Digest) -> Result<Fetched, UpstreamError> {
        let asked = self.asked.lock().unwrap().len();
        if self.refuses_after.is_some_and(|after| asked >= after) {
            return Err(UpstreamError::read("manifest", "r.io", Problem::RateLimited { wait: None }));
        }
        self.manifest_by_digest(name, digest).await
    }

    fn remaining_requests(&self, _: &RepositoryName) -> Option<u64> {
        self.remaining
    }

    async fn blob_size(&self, _: &RepositoryName, digest: &Digest) -> Result<u64, UpstreamError> {
        let missing = || UpstreamError::read("blob", "r.io", Problem::Missing(Missing::Blob));
        Ok(self.documents.get(digest).ok_or_else(missing)?.1.len() as u64)
    }

    async fn referrers(&self, _: &RepositoryName, of: &Digest) -> Result<Vec<Descriptor>, UpstreamError> {
        match self.refusal {
            Some(refusal) => Err(UpstreamError::read("referrers", "r.io", refusal())),
            None => Ok(self.referrers.get(of).cloned().unwrap_or_default()),
        }
    }

    async fn file_size(&self, url: &Url) -> Result<u64, UpstreamError> {
        Err(UpstreamError::read(url.as_str(), "files", Problem::Missing(Missing::File)))
    }
}

pub(crate) fn resolve_with(
    table: &Table,
    nodes: &str,
    more: &str,
    allow_missing: &[&str],
) -> Result<Resolution, ResolveError> {
    let catalog = Catalog::builtin().unwrap();
    let text = format!(
        "apiVersion: dray.dev/v1alpha1\nkind: Bundle\nmetadata: {{name: t}}\nspec:\n  nodes: [{nodes}]\n  {}\n",
        more.replace('\n', "\n  ")
    );
    let definition = Definition::parse(Path::new("t.yaml"), &text, &catalog).unwrap();
    let options = ResolveOptions {
        allow_missing: allow_missing.iter().map(|text| text.parse().unwrap()).collect(),
        allow_problems: BTreeSet::new(),
        concurrency: 3,
        day: jiff::civil::date(2026, 9, 1),
        progress: &|_, _| (),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(resolve(&definition, &catalog, table, options))
}

fn gaps(result: Result<Resolution, ResolveError>) -> Vec<Gap> {
    match result.unwrap_err() {
        ResolveError::Incomplete(incomplete) => incomplete.gaps,
        other @ ResolveError::Catalog(_) => panic!("{other}"),
    }
}

fn kept(lock: &Lock) -> Vec<String> {
    let platform = |child: &Child| child.platform.as_ref().map_or("-".to_owned(), ToString::to_string);
    lock.images[0].kept().map(platform).collect()
}

const LIST: &str = "runtimes: [containerd@2.3]\nimages: [r.io/a:1]";

#[test]
fn keeps_what_any_client_in_scope_fetches_and_nothing_else() {
    let mut table = Table::default();
    let builds = ["10.0.17763.1", "10.0.20348.1", "10.0.26100.1"];
    let mut entries = vec![table.image("linux/amd64", "l"), table.image("linux/s390x", "s")];
    entries.extend(builds.map(|build| table.image(&format!("windows({build})/amd64"), build)));
    let root = table.index(&entries);
    table.tag("r.io/a:1", &root);
    let lock = resolve_with(&table, "windows/ltsc2025, linux/amd64", LIST, &[]).unwrap().lock;
    // containerd 2 downloads every match, on Windows Server 2025 that is 2022 as well.
    assert_eq!(kept(&lock), ["linux/amd64", "windows(10.0.20348.1)/amd64", "windows(10.0.26100.1)/amd64"]);
    assert_eq!(lock.images[0].root.digest.to_string(), root["digest"].as_str().unwrap());
    // Root, three manifests, three configurations, three layers; two manifests and configurations without layers.
    assert_eq!(lock.blobs.len(), 14);
    assert!(Lock::from_json(&lock.to_json()).is_ok());
}

#[test]
fn the_whole_list_of_what_is_missing_comes_at_once() {
    let mut table = Table::default();
    let linux = table.image("linux/amd64", "l");
    let root = table.index(&[linux]);
    table.tag("r.io/a:1", &root);
    let more = "runtimes: [containerd@2.3]\nimages: [r.io/a:1, r.io/gone:1]";
    let gaps = gaps(resolve_with(&table, "linux/amd64, windows/ltsc2022", more, &[]));
    assert_eq!(gaps.len(), 2, "{gaps:?}");
    let text = GapList(&gaps).to_string();
    assert!(text.contains("r.io/a:1 for windows(10.0.20348)/amd64"), "{text}");
    assert!(text.contains("r.io/gone:1") && text.contains("no such tag"), "{text}");
}

#[test]
fn absent_system_is_told_once_with_its_remedy() {
    let mut table = Table::default();
    let entries = [table.image("linux/amd64", "l"), table.image("linux/s390x", "s")];
    let root = table.index(&entries);
    table.tag("r.io/a:1", &root);
    let nodes = "linux/amd64, windows/ltsc2022, windows/ltsc2019, linux/arm64";
    let gaps = gaps(resolve_with(&table, nodes, "runtimes: [containerd, docker]\nimages: [r.io/a:1]", &[]));
    assert_eq!(gaps.len(), 2, "{gaps:#?}");
    for (gap, nodes, reason) in [
        (&gaps[0], 1, "no entry for linux/arm64, but for linux/amd64, linux/s390x"),
        (&gaps[1], 2, "no entry for windows, but for linux/amd64, linux/s390x"),
    ] {
        assert_eq!(gap.nodes.len(), nodes);
        assert!(gap.reason.contains(reason), "{}", gap.reason);
        assert!(gap.hint.as_ref().unwrap().contains("`nodes: [linux/amd64]`"), "{:?}", gap.hint);
        assert_eq!(gap.clients.to_string(), "every client in scope");
    }
}

#[test]
fn versions_that_agree_why_share_one_line() {
    let mut table = Table::default();
    let entries =
        [table.image("windows(10.0.17763.1)/amd64", "a"), table.image("windows(10.0.20348.1)/amd64", "b")];
    let root = table.index(&entries);
    table.tag("r.io/a:1", &root);
    let more = "runtimes: [containerd@1.4, containerd@2]\nimages: [r.io/a:1]";
    let gaps = gaps(resolve_with(&table, "windows/ltsc2022", more, &[]));
    // Containerd 1.4 takes the first entry for Windows, whatever its build.
    let text = GapList(&gaps).to_string();
    assert_eq!(gaps.len(), 1, "{text}");
    assert!(text.contains("r.io/a:1 for windows(10.0.20348)/amd64, by containerd <=1.4: "), "{text}");
}

#[test]
fn what_may_be_missing_is_recorded() {
    let mut table = Table::default();
    let root = table.image("linux/amd64", "l");
    table.tag("r.io/a:1", &root);
    let more = "runtimes: [containerd@2.3]\nimages: [r.io/a:1, r.io/gone:1]";
    let resolution = resolve_with(&table, "linux/amd64", more, &["r.io/gone:1"]).unwrap();
    let reference = "r.io/gone:1".parse().unwrap();
    assert_eq!(resolution.lock.allowed_missing, [Allowed::Image { reference, kind: GapKind::Missing }]);
    assert_eq!(resolution.lock.proof[0].missing, ["r.io/gone:1"]);
    assert_eq!(resolution.allowed.len(), 1);
}

#[test]
fn a_single_manifest_is_checked_through_its_configuration() {
    let mut table = Table::default();
    let root = table.image("linux/amd64", "l");
    table.tag("r.io/a:1", &root);
    assert!(resolve_with(&table, "linux/amd64", LIST, &[]).is_ok());
    for other in ["linux/arm64", "windows/ltsc2022"] {
        let gaps = gaps(resolve_with(&table, other, LIST, &[]));
        assert!(gaps[0].reason.contains("linux/amd64"), "{}", gaps[0].reason);
    }
    // HostProcess images state no Windows version and run on all builds.
    let root = table.image("windows/amd64", "w");
    table.tag("r.io/a:1", &root);
    assert!(resolve_with(&table, "windows/ltsc2019, windows/ltsc2025", LIST, &[]).is_ok());
    let root = table.image("windows(10.0.17763.1)/amd64", "w");
    table.tag("r.io/a:1", &root);
    assert_eq!(gaps(resolve_with(&table, "windows/ltsc2019, windows/ltsc2025", LIST, &[])).len(), 1);
}

#[test]
fn an_entry_without_a_platform_counts_by_its_configuration() {
    let mut table = Table::default();
    let mut entry = table.image("linux/arm64", "l");
    entry.as_object_mut().unwrap().remove("platform");
    let root = table.index(&[entry]);
    table.tag("r.io/a:1", &root);
    assert!(resolve_with(&table, "linux/arm64", LIST, &[]).is_ok());
    assert!(!gaps(resolve_with(&table, "linux/amd64", LIST, &[])).is_empty());
}

#[test]
fn nested_indexes_are_walked_and_kept() {
    let mut table = Table::default();
    let (amd, arm) = (table.image("linux/amd64", "a"), table.image("linux/arm64", "b"));
    let inner = table.index(&[amd]);
    let root = table.index(&[arm, inner.clone()]);
    table.tag("r.io/a:1", &root);
    let lock = resolve_with(&table, "linux/amd64", LIST, &[]).unwrap().lock;
    let digests: Vec<String> = lock.images[0].kept().map(|child| child.digest.to_string()).collect();
    assert_eq!(digests.len(), 2);
    assert!(digests.contains(&inner["digest"].as_str().unwrap().to_owned()));
}

#[test]
fn foreign_layers_are_carried_and_told() {
    let mut table = Table::default();
    let config = table.add(media_type::OCI_CONFIG, &json!({"os": "windows", "architecture": "amd64"}));
    let layer = json!({
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "digest": Digest::sha256(b"base"), "size": 4, "urls": ["https://mcr.example.org/v2/x/blobs/y"],
    });
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": [layer]});
    let root = table.add(media_type::OCI_MANIFEST, &manifest);
    table.tag("r.io/a:1", &root);
    let resolution = resolve_with(&table, "windows/ltsc2022", LIST, &[]).unwrap();
    assert_eq!(resolution.foreign.len(), 1);
    let blob = resolution.lock.blobs.iter().find(|blob| !blob.urls.is_empty()).unwrap();
    assert_eq!(blob.digest, Digest::sha256(b"base"));
}

#[test]
fn charts_are_carried_whole() {
    let mut table = Table::default();
    let config = table.add("application/vnd.cncf.helm.config.v1+json", &json!({}));
    let manifest =
        json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": []});
    let root = table.add(media_type::OCI_MANIFEST, &manifest);
    table.tag("r.io/charts/x:1.0.0", &root);
    let lock =
        resolve_with(&table, "windows/ltsc2022", "charts: [oci://r.io/charts/x:1.0.0]", &[]).unwrap().lock;
    assert_eq!(lock.images[0].needed_by, [NeededBy::list("charts")]);
    assert_eq!(lock.blobs.len(), 2);
}

#[test]
fn runtimes_that_no_node_has_are_no_proof() {
    let mut table = Table::default();
    let root = table.image("windows/amd64", "w");
    table.tag("r.io/a:1", &root);
    let more = "runtimes: [cri-o]\nimages: [r.io/a:1]";
    let gaps = gaps(resolve_with(&table, "windows/ltsc2022", more, &[]));
    assert!(gaps[0].reason.contains("spec.runtimes"), "{}", gaps[0].reason);
}

#[test]
fn no_manifest_is_read_twice() {
    let mut table = Table::default();
    let entries = [table.image("linux/amd64", "a"), table.image("linux/arm64", "b")];
    let root = table.index(&entries);
    for n in 0..20 {
        table.tag(&format!("r.io/a:{n}"), &root);
    }
    let list: Vec<String> = (0..20).map(|n| format!("r.io/a:{n}")).collect();
    let more = format!("runtimes: [containerd@2.3]\nimages: [{}]", list.join(", "));
    resolve_with(&table, "linux/amd64, linux/arm64", &more, &[]).unwrap();
    let asked = table.asked.lock().unwrap();
    // Each tag once, because only the upstream knows where it points; each child once.
    assert_eq!(asked.len(), 20 + 2);
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let mut table = Table::default();
    let (a, b) = (table.image("linux/amd64", "shared"), table.image("linux/amd64", "shared"));
    let (a, b) = (table.index(&[a]), table.index(&[b]));
    table.tag("z.io/a:1", &a);
    table.tag("a.io/b:1", &b);
    let more = "images: [z.io/a:1, a.io/b:1]";
    let one = resolve_with(&table, "linux/amd64", more, &[]).unwrap().lock;
    let two = resolve_with(&table, "linux/amd64", more, &[]).unwrap().lock;
    assert_eq!(one.to_json(), two.to_json());
    let layer = one.blobs.iter().find(|blob| blob.size == "shared".len() as u64).unwrap();
    assert_eq!(layer.from.as_ref().unwrap().as_str(), "a.io/b");
}

const EVIDENCE: &str = "evidence: true\nruntimes: [containerd@2.3]\nimages: [r.io/a:1]";

/// An artifact that holds `text`, and its digest.
fn artifact(table: &mut Table, text: &str) -> (Value, Digest) {
    let config = table.add(media_type::OCI_EMPTY, &json!({}));
    let layer =
        json!({"mediaType": "application/json", "digest": Digest::sha256(text.as_bytes()), "size": 9});
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": [layer]});
    let entry = table.add(media_type::OCI_MANIFEST, &manifest);
    let digest = entry["digest"].as_str().unwrap().parse().unwrap();
    (entry, digest)
}

fn digest_of(entry: &Value) -> Digest {
    entry["digest"].as_str().unwrap().parse().unwrap()
}

#[test]
fn evidence_comes_along_wherever_its_makers_put_it() {
    let mut table = Table::default();
    let (kept, other) = (table.image("linux/amd64", "a"), table.image("linux/s390x", "s"));
    let mut entries = vec![kept.clone(), other.clone()];
    let mut expected = BTreeSet::new();
    for (subject, wanted) in [(&kept, true), (&other, false)] {
        let (mut entry, digest) = artifact(&mut table, &format!("provenance of {subject}"));
        entry["platform"] = json!({"os": "unknown", "architecture": "unknown"});
        entry["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": digest_of(subject)});
        entries.push(entry);
        expected.extend(wanted.then_some((digest, None)));
    }
    let root = table.index(&entries);
    table.tag("r.io/a:1", &root);
    let (sbom, sbom_digest) = artifact(&mut table, "sbom");
    let (_, signature) = artifact(&mut table, "signature of the sbom");
    let descriptor = |value: &Value| serde_json::from_value::<Descriptor>(value.clone()).unwrap();
    table.referrers.insert(digest_of(&kept), vec![descriptor(&sbom)]);
    let of_sbom = Descriptor::new(media_type::OCI_MANIFEST, signature.clone(), 7);
    table.referrers.insert(sbom_digest.clone(), vec![of_sbom]);
    let tag = format!("sha256-{}.sig", digest_of(&root).hex());
    let (cosign, cosign_digest) = artifact(&mut table, "cosign");
    table.tag(&format!("r.io/a:{tag}"), &cosign);
    expected.extend([(sbom_digest, None), (signature, None), (cosign_digest, Some(tag))]);

    let lock = resolve_with(&table, "linux/amd64", EVIDENCE, &[]).unwrap().lock;
    let evidence = &lock.images[0].evidence;
    let tag = |evidence: &Evidence| evidence.tag.as_ref().map(ToString::to_string);
    let found: BTreeSet<_> = evidence.iter().map(|e| (e.digest.clone(), tag(e))).collect();
    assert_eq!(found, expected);
    let stated =
        |digest: &Digest, manifest| lock.blobs.iter().any(|b| b.digest == *digest && b.manifest == manifest);
    for evidence in evidence {
        assert!(stated(&evidence.digest, true) && evidence.blobs.iter().all(|blob| stated(blob, false)));
    }
    assert_eq!(Lock::from_json(&lock.to_json()).unwrap(), lock);
    assert!(resolve_with(&table, "linux/amd64", LIST, &[]).unwrap().lock.images[0].evidence.is_empty());
}

#[test]
fn evidence_that_is_absent_denied_or_unreadable_is_told_apart() {
    let mut table = Table::default();
    let root = table.image("linux/amd64", "l");
    table.tag("r.io/a:1", &root);
    let absent = resolve_with(&table, "linux/amd64", EVIDENCE, &[]).unwrap();
    assert_eq!(absent.unproved, ["r.io/a:1".parse().unwrap()]);
    assert!(resolve_with(&table, "linux/amd64", LIST, &[]).unwrap().unproved.is_empty());

    let denied = || {
        let identity = Identity::Anonymous { looked_in: Vec::new() };
        let (by, registry) = ("r.io".to_owned(), "r.io".to_owned());
        Problem::Unauthorized(Refusal { by, registry, identity, detail: String::new() })
    };
    let cases: [(fn() -> Problem, _, _); 2] = [
        (denied, "is denied", GapKind::Denied),
        (|| Problem::TimedOut, "cannot be read", GapKind::Unreachable),
    ];
    for (refusal, expected, kind) in cases {
        table.refusal = Some(refusal);
        let gaps = gaps(resolve_with(&table, "linux/amd64", EVIDENCE, &[]));
        assert!(gaps[0].reason.contains(expected), "{}", gaps[0].reason);
        let allowed = resolve_with(&table, "linux/amd64", EVIDENCE, &["r.io/a:1"]).unwrap();
        assert_eq!((allowed.allowed.len(), allowed.lock.images.len()), (1, 1));
        assert!(allowed.unproved.is_empty());
        // The image is there; its evidence is what is missing.
        let lock = allowed.lock;
        let reference = "r.io/a:1".parse().unwrap();
        assert_eq!(
            (lock.allowed_missing.len(), lock.allowed_unproved),
            (0, vec![Allowed::Image { reference, kind }])
        );
        assert_eq!(lock.proof[0].missing, ["evidence of r.io/a:1"]);
    }
}

#[test]
fn an_index_of_evidence_comes_along_with_all_that_it_leads_to() {
    let mut table = Table::default();
    let root = table.image("linux/amd64", "l");
    table.tag("r.io/a:1", &root);
    // A referrer that is an index of an index, and a tag of cosign's that is an index.
    let leaves: Vec<(Value, Digest)> =
        ["one", "two", "three"].map(|text| artifact(&mut table, text)).into_iter().collect();
    let inner = table.index(&[leaves[0].0.clone()]);
    let outer = table.index(&[inner.clone(), leaves[1].0.clone()]);
    let descriptor = serde_json::from_value::<Descriptor>(outer.clone()).unwrap();
    table.referrers.insert(digest_of(&root), vec![descriptor]);
    let tagged = table.index(&[leaves[2].0.clone(), leaves[1].0.clone()]);
    table.tag(&format!("r.io/a:sha256-{}.sbom", digest_of(&root).hex()), &tagged);

    let lock = resolve_with(&table, "linux/amd64", EVIDENCE, &[]).unwrap().lock;
    let found: Vec<&Digest> = lock.images[0].evidence.iter().map(|evidence| &evidence.digest).collect();
    let mut expected: Vec<Digest> = leaves.into_iter().map(|(_, digest)| digest).collect();
    expected.extend([&inner, &outer, &tagged].map(digest_of));
    expected.sort();
    assert_eq!(found, expected.iter().collect::<Vec<_>>());
    for evidence in &lock.images[0].evidence {
        assert_eq!(evidence.blobs.is_empty(), evidence.media_type == media_type::OCI_INDEX);
    }
}

#[test]
fn windows_nodes_need_programs_that_somebody_has_to_bring() {
    let catalog = Catalog::builtin().unwrap();
    let unlisted = |nodes: &str, release: &str, urls: &[&str]| -> Vec<String> {
        let file = |url: &&str| format!("{{url: '{url}', sha256: {}}}", "0".repeat(64));
        let files: Vec<String> = urls.iter().map(file).collect();
        let text = format!(
            "apiVersion: dray.dev/v1alpha1\nkind: Bundle\nmetadata: {{name: t}}\nspec:\n  nodes: [{nodes}]\n  \
             releases: [{{{release}}}]\n  files: [{}]\n",
            files.join(", ")
        );
        let definition = Definition::parse(Path::new("t.yaml"), &text, &catalog).unwrap();
        let problems = files::unlisted(&definition, &catalog).unwrap();
        problems.into_iter().map(|(_, problem)| problem.message).collect()
    };
    let k0s = "k0s: v1.36.3+k0s.2";
    assert!(unlisted("linux/amd64", k0s, &[]).is_empty());
    for release in [k0s, "kubeadm: v1.36.0", "rke2: v1.36.3+rke2r1"] {
        assert_eq!(unlisted("windows/ltsc2022", release, &[]).len(), 1, "{release}");
        assert!(unlisted("windows/ltsc2022", &format!("{release}, programs: elsewhere"), &[]).is_empty());
    }
    let message = unlisted("windows/ltsc2022", k0s, &[]).remove(0);
    assert!(message.contains("k0s-v1.36.3+k0s.2-amd64.exe,"), "{message}");
    let url =
        "https://github.com/k0sproject/k0s/releases/download/v1.36.3%2Bk0s.2/k0s-v1.36.3%2Bk0s.2-amd64.exe";
    assert!(unlisted("windows/ltsc2022", k0s, &[url]).is_empty());
    assert_eq!(unlisted("windows/ltsc2022", k0s, &["https://a.b/k0s.exe"]).len(), 1);

    let kubeadm = "kubeadm: v1.36.0";
    let kubelet = "https://dl.k8s.io/v1.36.0/bin/windows/amd64/kubelet.exe";
    let message = unlisted("windows/ltsc2022", kubeadm, &[kubelet]).remove(0);
    assert!(message.contains("kubeadm.exe") && !message.contains("kubelet.exe"), "{message}");
    let archive = "https://dl.k8s.io/release/v1.36.0/kubernetes-node-windows-amd64.tar.gz";
    assert!(unlisted("windows/ltsc2022", kubeadm, &[archive]).is_empty());
}

/// The digest of an entry.
fn digest(entry: &Value) -> Digest {
    entry["digest"].as_str().unwrap().parse().unwrap()
}

/// The children by their platforms: with nodes, `whole`, or `metadata`.
fn carried(lock: &Lock) -> Vec<(String, &'static str)> {
    let one = |child: &Child| {
        let what = match (child.metadata_only, child.nodes.is_empty()) {
            (true, _) => "metadata",
            (false, true) => "whole",
            (false, false) => "nodes",
        };
        (child.platform.as_ref().map_or("-".to_owned(), ToString::to_string), what)
    };
    lock.images[0].children.iter().map(one).collect()
}

#[test]
fn other_children_are_carried_without_layers() {
    let mut table = Table::default();
    let entries = ["linux/s390x", "linux/amd64", "linux/arm64"].map(|text| table.image(text, text));
    let root = table.index(&entries);
    table.tag("r.io/a:1", &root);
    let resolution = resolve_with(&table, "linux/amd64", LIST, &[]).unwrap();
    let lock = resolution.lock;
    let expected = [("linux/s390x", "metadata"), ("linux/amd64", "nodes"), ("linux/arm64", "metadata")];
    assert_eq!(carried(&lock), expected.map(|(platform, what)| (platform.to_owned(), what)));
    let other = &lock.images[0].children[0];
    assert_eq!((other.digest.clone(), other.carried_blobs().len()), (digest(&entries[0]), 1));
    let layer = |text: &str| lock.blobs.iter().any(|blob| blob.digest == Digest::sha256(text.as_bytes()));
    assert!(layer("linux/amd64") && !layer("linux/s390x"));
    assert!(lock.images[0].essentials().all(|found| *found != other.digest && *found != other.blobs[0]));
    assert_eq!(Lock::from_json(&lock.to_json()).unwrap(), lock);
    assert!(resolution.metadata_left_out.is_empty());
    // The same definition gives the same bytes, and a child without layers cannot be for a node.
    let again = resolve_with(&table, "linux/amd64", LIST, &[]).unwrap().lock;
    assert_eq!(again.to_json(), lock.to_json());
    let mut wrong = lock.clone();
    wrong.images[0].children[0].nodes = lock.nodes.clone();
    assert!(matches!(Lock::from_json(&wrong.to_json()), Err(LockError::Inconsistent(_))));
}

#[test]
fn child_metadata_can_be_turned_off() {
    let mut table = Table::default();
    let entries = ["linux/s390x", "linux/amd64"].map(|text| table.image(text, text));
    let root = table.index(&entries);
    table.tag("r.io/a:1", &root);
    for (more, children) in [
        ("images: [r.io/a:1]", 2),
        ("images: [r.io/a:1]\nchildMetadata: all", 2),
        ("images: [r.io/a:1]\nchildMetadata: needed", 1),
        ("images: [{ref: r.io/a:1, childMetadata: needed}]", 1),
        ("images: [{ref: r.io/a:1, childMetadata: all}]\nchildMetadata: needed", 2),
        ("images: [r.io/a:1, {ref: r.io/a:1, childMetadata: needed}]", 1),
    ] {
        table.asked.lock().unwrap().clear();
        let more = format!("runtimes: [containerd@2.3]\n{more}");
        let lock = resolve_with(&table, "linux/amd64", &more, &[]).unwrap().lock;
        assert_eq!(lock.images[0].children.len(), children, "{more}");
        assert_eq!(table.asked.lock().unwrap().len(), 1 + children, "{more}");
    }
}

#[test]
fn metadata_that_is_not_upstream_is_no_gap() {
    let mut table = Table::default();
    let platforms = ["linux/s390x", "linux/amd64", "linux/arm64", "linux/ppc64le", "linux/riscv64"];
    let mut entries = platforms.map(|text| table.image(text, text));
    entries[4]["size"] = json!(1);
    let root = table.index(&entries);
    table.tag("r.io/a:1", &root);
    // The first has no manifest upstream, the third no configuration.
    table.documents.remove(&digest(&entries[0]));
    let Document::Image(image) = table.fetch(&digest(&entries[2])).document else { panic!() };
    table.documents.remove(&image.config.digest);
    let resolution = resolve_with(&table, "linux/amd64", LIST, &[]).unwrap();
    let expected = [("linux/amd64", "nodes"), ("linux/ppc64le", "metadata")];
    assert_eq!(carried(&resolution.lock), expected.map(|(platform, what)| (platform.to_owned(), what)));
    assert!(resolution.metadata_left_out.is_empty());
    // What a node needs has to be there.
    table.documents.remove(&digest(&entries[1]));
    assert_eq!(gaps(resolve_with(&table, "linux/amd64", LIST, &[])).len(), 1);
}

#[test]
fn metadata_is_the_first_to_go_at_a_limit() {
    let mut table = Table::default();
    let platforms = ["linux/s390x", "linux/amd64", "linux/arm64", "linux/ppc64le"];
    let entries = platforms.map(|text| table.image(text, text));
    let root = table.index(&entries);
    table.tag("r.io/a:1", &root);
    // Three manifests now, and with two that are needed once more while the bundle is built.
    for (remaining, children) in [(0, 1), (7, 1), (8, 4), (1000, 4)] {
        table.remaining = Some(remaining);
        table.asked.lock().unwrap().clear();
        let resolution = resolve_with(&table, "linux/amd64", LIST, &[]).unwrap();
        assert_eq!(resolution.lock.images[0].children.len(), children, "{remaining}");
        assert_eq!(table.asked.lock().unwrap().len(), 1 + children, "{remaining}");
        let left_out = MetadataLeftOut { host: "r.io".into(), manifests: 3, remaining: table.remaining };
        assert_eq!(resolution.metadata_left_out, Vec::from_iter((children == 1).then_some(left_out)));
    }
    table.remaining = None;
    table.asked.lock().unwrap().clear();
    table.refuses_after = Some(3);
    let resolution = resolve_with(&table, "linux/amd64", LIST, &[]).unwrap();
    assert_eq!(resolution.lock.images[0].children.len(), 2);
    assert_eq!(resolution.metadata_left_out[0].manifests, 2);
}

#[test]
fn no_manifest_is_asked_for_twice() {
    let mut table = Table::default();
    let entries = ["linux/s390x", "linux/amd64"].map(|text| table.image(text, text));
    let inner = table.index(&entries);
    let arm = table.image("linux/arm64", "arm");
    let root = table.index(&[inner, arm]);
    table.tag("r.io/a:1", &root);
    let text = root["digest"].as_str().unwrap();
    for pinned in ["r.io/a:1", "r.io/a"] {
        table.tag(&format!("{pinned}@{text}"), &root);
    }
    let more = format!("runtimes: [containerd@2.3]\nimages: ['r.io/a@{text}', 'r.io/a:1@{text}']");
    resolve_with(&table, "linux/amd64", &more, &[]).unwrap();
    let mut asked = table.asked.lock().unwrap().clone();
    let all = asked.len();
    asked.sort();
    asked.dedup();
    assert_eq!((all, asked.len()), (5, 5));
}

/// An index of an image with its attestation, as `BuildKit` writes it.
fn attested(table: &mut Table) -> [Value; 2] {
    let image = table.image("linux/amd64", "layer");
    let mut attestation = table.image("unknown/unknown", "provenance");
    attestation["annotations"] = json!({
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": image["digest"],
        "org.opencontainers.image.created": "2026-01-01T00:00:00Z",
    });
    let root = table.index(&[image.clone(), attestation.clone()]);
    table.tag("r.io/a:1", &root);
    [image, attestation]
}

#[test]
fn docker_gets_the_attestation_of_what_it_takes() {
    let mut table = Table::default();
    let [_, attestation] = attested(&mut table);
    let lock = |table: &Table, runtime: &str| {
        let more = format!("runtimes: [{runtime}]\nimages: [r.io/a:1]");
        resolve_with(table, "linux/amd64", &more, &[]).map(|resolution| resolution.lock)
    };
    let docker = lock(&table, "docker-containerd@29.3").unwrap();
    assert_eq!(carried(&docker).iter().map(|(_, what)| *what).collect::<Vec<_>>(), ["nodes", "nodes"]);
    assert!(docker.blobs.iter().any(|blob| blob.digest == Digest::sha256(b"provenance")));
    assert_eq!(docker.indexes[0].entries[1].annotations.len(), 2);
    for runtime in ["containerd@2.3", "docker-containerd@29.0", "docker-containerd@28", "cri-o@1.34"] {
        let other = lock(&table, runtime).unwrap();
        assert_eq!(carried(&other)[1].1, "metadata", "{runtime}");
    }
    table.documents.remove(&digest(&attestation));
    assert!(lock(&table, "containerd@2.3").is_ok());
    let more = "runtimes: [docker-containerd@29.3]\nimages: [r.io/a:1]";
    let gaps = gaps(resolve_with(&table, "linux/amd64", more, &[]));
    assert_eq!((gaps.len(), gaps[0].kind), (1, GapKind::Missing));
}

#[test]
fn an_attestation_that_docker_takes_is_evidence() {
    let mut table = Table::default();
    attested(&mut table);
    for runtime in ["docker-containerd@29.3", "containerd@2.3"] {
        let more = format!("runtimes: [{runtime}]\nimages: [r.io/a:1]\nevidence: true");
        let resolution = resolve_with(&table, "linux/amd64", &more, &[]).unwrap();
        assert!(resolution.unproved.is_empty(), "{runtime}");
        let layers = resolution.lock.blobs.iter();
        assert_eq!(
            layers.filter(|blob| blob.digest == Digest::sha256(b"provenance")).count(),
            1,
            "{runtime}"
        );
    }
}

#[test]
fn an_index_beyond_the_limit_is_a_gap() {
    let mut table = Table::default();
    let entry = table.image("linux/amd64", "layer");
    let root = table.index(&vec![entry; crate::select::MAX_ENTRIES + 1]);
    table.tag("r.io/a:1", &root);
    let gaps = gaps(resolve_with(&table, "linux/amd64", LIST, &[]));
    assert_eq!((gaps.len(), gaps[0].kind), (1, GapKind::Unreadable));
    assert!(gaps[0].reason.contains("more than 10000 entries"), "{}", gaps[0].reason);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Explaining and resolving agree: whatever any client on a node fetches is in the lock.
    #[test]
    fn whatever_any_client_fetches_is_in_the_lock(
        platforms in proptest::collection::vec(
            prop_oneof![
                Just("linux/amd64"), Just("linux/arm64"), Just("linux/arm/v7"), Just("windows/amd64"),
                Just("windows(10.0.17763.1)/amd64"), Just("windows(10.0.20348.9)/amd64"),
                Just("windows(10.0.26100.10)/amd64"), Just("windows(10.0.26100.9)/amd64"),
            ],
            1..7,
        ),
        node in prop_oneof![Just("linux/amd64"), Just("linux/arm64"), Just("windows(10.0.26100)/amd64"), Just("windows(10.0.17763)/amd64")],
    ) {
        let mut table = Table::default();
        let entries: Vec<Value> =
            platforms.iter().enumerate().map(|(n, platform)| table.image(platform, &n.to_string())).collect();
        let root = table.index(&entries);
        table.tag("r.io/a:1", &root);
        let every = "runtimes: [containerd, docker, docker-containerd, cri-o]\nimages: [r.io/a:1]";
        let resolved = resolve_with(&table, node, every, &[]);
        let kind: NodeKind = node.parse().unwrap();
        let stated: Vec<Descriptor> =
            entries.iter().map(|entry| serde_json::from_value(entry.clone()).unwrap()).collect();
        let choices: Vec<_> = node_bands(&kind, &[]).iter().map(|band| band.choose(&kind.platform(), &stated)).collect();
        let all_run = choices.iter().all(|choice| choice.picks.is_some() && choice.runs);
        prop_assert_eq!(resolved.is_ok(), all_run);
        if let Ok(resolution) = resolved {
            let children: Vec<&Child> = resolution.lock.images[0].kept().collect();
            for at in choices.iter().flat_map(|choice| choice.fetches.iter().chain(&choice.picks)) {
                let digest = entries[*at]["digest"].as_str().unwrap();
                prop_assert!(children.iter().any(|child| child.digest.to_string() == digest));
            }
        }
    }
}

/// The bands of a lock for `nodes`, by their ids.
fn bands_of(definition: &str, day: jiff::civil::Date) -> Vec<String> {
    let catalog = Catalog::builtin().unwrap();
    let text =
        format!("apiVersion: dray.dev/v1alpha1\nkind: Bundle\nmetadata: {{name: t}}\nspec:\n{definition}");
    let definition = Definition::parse(Path::new("t.yaml"), &text, &catalog).unwrap();
    let demands = demand::Demands::collect(&definition, &catalog, day).unwrap();
    demands.bands().iter().map(ToString::to_string).collect()
}

#[test]
fn default_scope_is_what_is_supported_that_day() {
    let images = "  nodes: [windows/ltsc2022]\n  images: [r.io/a:1]\n";
    let on = |day: &str| bands_of(images, day.parse().unwrap());
    let newer = ["containerd@2.1.6/windows", "containerd@2.3.0/windows", "containerd@2.4.0/windows"];
    let containerd = |bands: Vec<String>| {
        bands.into_iter().filter(|band| band.starts_with("containerd@")).collect::<Vec<_>>()
    };
    assert_eq!(
        containerd(on("2026-06-01")),
        [&["containerd@1.7.0/windows", "containerd@1.7.6/windows", "containerd@2.1.0/windows"], &newer[..]]
            .concat()
    );
    assert_eq!(containerd(on("2027-03-31")), ["containerd@1.7.6/windows", newer[1], newer[2]]);
    assert_eq!(containerd(on("2027-04-01")), newer[1..]);
    assert!(on("2026-06-01").iter().any(|band| band.starts_with("docker@")), "{:?}", on("2026-06-01"));
    let linux = bands_of("  nodes: [linux/amd64]\n  images: [r.io/a:1]\n", jiff::civil::date(2026, 9, 1));
    assert!(linux.contains(&"skopeo@1.12.0".to_owned()), "{linux:?}");
    let stated = "  nodes: [windows/ltsc2022]\n  runtimes: [containerd@1.4]\n  images: [r.io/a:1]\n";
    assert_eq!(bands_of(stated, jiff::civil::date(2026, 9, 1)), ["containerd@0.0.0/windows"]);
}

#[test]
fn default_scope_is_what_the_releases_ship() {
    let day = jiff::civil::date(2026, 9, 1);
    let with = |releases: &str| {
        let text = format!("  nodes: [linux/amd64]\n  releases: [{releases}]\n  images: [r.io/a:1]\n");
        bands_of(&text, day)
    };
    let k0s = "{k0s: v1.35.7+k0s.0}, {k0s: v1.36.3+k0s.2}";
    assert_eq!(with(k0s), ["containerd@1.6.0/linux", "containerd@2.3.0/linux"]);
    // Software without a runtime of its own runs on the nodes of the others.
    assert_eq!(with(&format!("{k0s}, {{openkruise: v1.9.0}}")), with(k0s));
    let mixed = with("{k0s: v1.35.7+k0s.0}, {kubeadm: v1.36.3}");
    assert!(mixed.contains(&"containerd@1.6.0/linux".to_owned()) && mixed.len() > 3, "{mixed:?}");
    assert!(with("{kubeadm: v1.36.3}").contains(&"skopeo@1.12.0".to_owned()));
    assert!(!with("{kubeadm: v1.36.3}").contains(&"containerd@0.0.0/linux".to_owned()));
}

/// The nodes of each image in a lock, in its order.
fn nodes_of(lock: &Lock) -> Vec<Vec<String>> {
    lock.images.iter().map(|image| image.nodes.iter().map(ToString::to_string).collect()).collect()
}

#[test]
fn auto_means_the_nodes_that_the_image_has() {
    let mut table = Table::default();
    let both = [table.image("linux/x86_64", "l"), table.image("windows(10.0.20348.1)/amd64", "w")];
    let linux = [both[0].clone(), table.image("unknown/unknown", "?")];
    let mut unstated = both[0].clone();
    unstated["platform"] = Value::Null;
    let [both, linux, unstated] = [&both[..], &linux, &[unstated]].map(|entries| table.index(entries));
    for (reference, root) in
        [("r.io/both:1", &both), ("r.io/linux:1", &linux), ("r.io/unstated:1", &unstated)]
    {
        table.tag(reference, root);
    }
    let single = table.image("linux/amd64", "s");
    table.tag("r.io/single:1", &single);
    let nodes = "linux/amd64, linux/arm64, windows/ltsc2022";
    let images = "runtimes: [containerd@2.3]\nimageNodes: auto\n\
                  images: [r.io/both:1, r.io/linux:1, r.io/single:1, r.io/unstated:1]";
    let lock = resolve_with(&table, nodes, images, &[]).unwrap().lock;
    let amd64 = vec!["linux/amd64".to_owned()];
    let windows = vec!["linux/amd64".to_owned(), "windows(10.0.20348)/amd64".to_owned()];
    assert_eq!(nodes_of(&lock), [windows, amd64.clone(), amd64.clone(), amd64]);
    let counted: Vec<_> = lock.proof.iter().map(|row| (row.node.to_string(), row.images)).collect();
    assert_eq!(counted, [("linux/amd64".to_owned(), 4), ("windows(10.0.20348)/amd64".to_owned(), 1)]);
    // A build that the image does not have stays an error, as does an image for other nodes altogether.
    let gaps_with = |nodes: &str| gaps(resolve_with(&table, nodes, images, &[]));
    let build = gaps_with("linux/amd64, windows/ltsc2019");
    assert_eq!(build.len(), 1);
    assert_eq!(build[0].nodes[0].to_string(), "windows(10.0.17763)/amd64");
    let none = gaps_with("linux/arm64");
    let reasons: Vec<&str> = none.iter().map(|gap| gap.reason.as_str()).collect();
    assert_eq!(none.len(), 4, "{none:?}");
    assert!(
        reasons.contains(&"it is for linux/amd64, windows/amd64 only, which no node kind of the site is")
    );
    // What is stated beside it counts in any case.
    let stated = images.replace("r.io/linux:1,", "{ref: r.io/linux:1, nodes: [windows/ltsc2022]},");
    assert_eq!(gaps(resolve_with(&table, nodes, &stated, &[])).len(), 1);
}

#[test]
fn auto_keeps_every_node_for_what_states_no_platform() {
    let mut table = Table::default();
    let config = table.add("application/vnd.wasm.config.v0+json", &json!({"os": "wasip1"}));
    let artifact =
        json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": []});
    let artifact = table.add(media_type::OCI_MANIFEST, &artifact);
    table.tag("r.io/a:1", &artifact);
    let more = "runtimes: [containerd@2.3]\nimages: {ref: r.io/a:1, nodes: auto}";
    let lock = resolve_with(&table, "linux/amd64, windows/ltsc2022", more, &[]).unwrap().lock;
    assert_eq!(nodes_of(&lock)[0].len(), 2);
}
