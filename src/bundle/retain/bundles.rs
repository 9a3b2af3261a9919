//! What bundles have beside images: plain files, and documents of their own.

use std::collections::{BTreeMap, BTreeSet};

use super::brought::{Brought, Remains, document};
use super::{Keep, RetainError, is_kept};
use crate::bundle::FILE_TYPE;
use crate::bundle::import::hosted;
use crate::bundle::plan::SOURCE;
use crate::oci::{Descriptor, Digest, Document, RepositoryName, Tag};
use crate::resolve::{LockedFile, LockedRelease};
use crate::store::{Content as _, Store, StoreError};
use crate::trust;

/// What of bundles goes.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// The addresses of plain files.
    pub(super) urls: BTreeSet<String>,
    /// Their records: path and host.
    pub(super) records: BTreeSet<(String, String)>,
    /// Tags of bundles and of their signatures.
    pub(super) tags: BTreeSet<(RepositoryName, Tag)>,
    /// Artifacts of files, and the documents of bundles of which nothing stays.
    pub(super) manifests: BTreeMap<RepositoryName, BTreeSet<Digest>>,
    /// The indexes of these bundles, which go last: they say what else there is.
    pub(super) indexes: BTreeMap<RepositoryName, BTreeSet<Digest>>,
}

/// Works out which files no bundle has for a release that stays, and which bundles nothing stays of.
pub(super) fn leaving(
    store: &Store,
    all: &[Brought],
    remains: &[Remains],
    keep: &Keep,
) -> Result<Leaving, RetainError> {
    let staying: BTreeSet<(&str, &Digest)> = all
        .iter()
        .flat_map(|bundle| bundle.lock.files.iter().filter(|file| stays(bundle, file, keep)))
        .map(|file| (file.url.as_str(), &file.digest))
        .collect();
    let goes = |file: &LockedFile| !staying.contains(&(file.url.as_str(), &file.digest));
    let mut leaving = Leaving::default();
    for bundle in all {
        for file in bundle.lock.files.iter().filter(|file| goes(file)) {
            leaving.file(store, bundle, file)?;
        }
        let lock = &bundle.lock;
        let is_done = !lock.releases.is_empty()
            && lock.files.iter().all(goes)
            && !lock.images.iter().any(|image| is_kept(image, keep))
            && !lock.releases.iter().any(|release| keep.releases.contains(&release.release));
        if is_done {
            leaving.bundle(store, bundle)?;
        }
    }
    for Remains { repository, digest, members } in remains {
        leaving.documents(store, repository, digest, members)?;
    }
    let tagged = tagged(store, &leaving)?;
    for (name, digests) in leaving.manifests.iter_mut().chain(&mut leaving.indexes) {
        digests.retain(|digest| !tagged.contains(&(name.clone(), digest.clone())));
    }
    Ok(leaving)
}

impl Leaving {
    /// Adds a plain file of `bundle`: its record, unless that is of another content by now, and its artifact.
    fn file(&mut self, store: &Store, bundle: &Brought, file: &LockedFile) -> Result<(), StoreError> {
        if let Some((path, record)) = hosted(&bundle.repository, file) {
            let is_there = store.files(&path)?.iter().any(|there| {
                (&there.host, &there.repository, &there.digest)
                    == (&record.host, &record.repository, &record.digest)
            });
            if is_there {
                self.urls.insert(file.url.clone());
                self.records.insert((path, record.host));
            }
        }
        for artifact in bundle.members.iter().filter(|e| e.artifact_type.as_deref() == Some(FILE_TYPE)) {
            let found = document(store, &bundle.repository, &artifact.digest)?;
            let Some(Document::Image(image)) = found else { continue };
            if image.layers.first().is_some_and(|layer| is_layer_of(layer, file)) {
                self.manifest(&bundle.repository, &artifact.digest);
            }
        }
        Ok(())
    }

    /// Adds what a bundle has for itself: its index, lock and signatures, and their tags.
    fn bundle(&mut self, store: &Store, bundle: &Brought) -> Result<(), StoreError> {
        let name = &bundle.repository;
        self.documents(store, name, &bundle.digest, &bundle.members)?;
        let sequence = bundle.lock.sequence.to_string().parse::<Tag>().ok();
        let signature = trust::signature_tag(&bundle.digest).parse::<Tag>().ok();
        for tag in [&sequence, &signature].into_iter().flatten() {
            let Some(target) = store.resolve(name, tag)? else { continue };
            // Another bundle may have taken the number.
            if Some(tag) == signature.as_ref() || target.digest == bundle.digest {
                self.tags.insert((name.clone(), tag.clone()));
            }
        }
        Ok(())
    }

    /// Adds the documents of the bundle `digest` that are there.
    fn documents(
        &mut self,
        store: &Store,
        name: &RepositoryName,
        digest: &Digest,
        members: &[Descriptor],
    ) -> Result<(), StoreError> {
        let mut documents: BTreeSet<Digest> =
            members.iter().filter(|entry| entry.artifact_type.is_some()).map(digest_of).collect();
        let is_ours = |entry: &&Descriptor| entry.artifact_type.as_deref() == Some(trust::SIGSTORE_BUNDLE);
        documents.extend(store.referrers(name, digest)?.iter().filter(is_ours).map(digest_of));
        // A signature is found by its tag alone, which goes before it; those of bundles that stay have theirs.
        for signature in store.manifests(name)? {
            let Some(Document::Image(image)) = document(store, name, &signature)? else { continue };
            if image.layers.first().is_some_and(|layer| layer.media_type == trust::SIGNATURE_LAYER) {
                documents.insert(signature);
            }
        }
        for document in documents {
            if store.manifest(name, &document)?.is_some() {
                self.manifest(name, &document);
            }
        }
        self.indexes.entry(name.clone()).or_default().insert(digest.clone());
        Ok(())
    }

    fn manifest(&mut self, name: &RepositoryName, digest: &Digest) {
        self.manifests.entry(name.clone()).or_default().insert(digest.clone());
    }
}

fn digest_of(descriptor: &Descriptor) -> Digest {
    descriptor.digest.clone()
}

fn is_layer_of(layer: &Descriptor, file: &LockedFile) -> bool {
    layer.digest == file.digest && layer.annotations.get(SOURCE) == Some(&file.url)
}

/// What the tags point at that stay.
fn tagged(store: &Store, leaving: &Leaving) -> Result<BTreeSet<(RepositoryName, Digest)>, StoreError> {
    let mut tagged = BTreeSet::new();
    for name in leaving.manifests.keys().chain(leaving.indexes.keys()) {
        for tag in store.tags(name, None, usize::MAX)?.unwrap_or_default() {
            let tag = (name.clone(), tag);
            if !leaving.tags.contains(&tag) {
                tagged.extend(store.resolve(name, &tag.1)?.map(|target| (tag.0, target.digest)));
            }
        }
    }
    Ok(tagged)
}

/// Whether the site may still want the file: a release of its bundle is kept, or there is none, and the address is not that
/// of a release which goes.
fn stays(bundle: &Brought, file: &LockedFile, keep: &Keep) -> bool {
    let releases = &bundle.lock.releases;
    let (kept, gone): (Vec<_>, Vec<_>) = releases.iter().partition(|r| keep.releases.contains(&r.release));
    let path = file.address().map_or_else(String::new, |(_, path)| path);
    let names = |release: &&LockedRelease| {
        release.release.split_once('@').is_some_and(|(_, version)| names_version(&path, version))
    };
    releases.is_empty() || (!kept.is_empty() && (kept.iter().any(names) || !gone.iter().any(names)))
}

/// Whether `version` stands in `path`, and no longer one that begins with it.
fn names_version(path: &str, version: &str) -> bool {
    path.match_indices(version).any(|(at, _)| {
        let mut after = path[at + version.len()..].chars();
        match after.next() {
            Some('.') => !after.next().is_some_and(|c| c.is_ascii_digit()),
            Some(next) => !next.is_ascii_alphanumeric() && next != '+',
            None => true,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::names_version;

    #[test]
    fn addresses_name_versions() {
        for (path, version, expected) in [
            (
                "k0sproject/k0s/releases/download/v1.36.3+k0s.2/k0s-v1.36.3+k0s.2-amd64.exe",
                "v1.36.3+k0s.2",
                true,
            ),
            ("k0s-v1.36.3+k0s.20-amd64", "v1.36.3+k0s.2", false),
            ("v1.35.7/bin/windows/amd64/kubelet.exe", "v1.35.7", true),
            ("v1.35.70/bin/kubelet", "v1.35.7", false),
            ("v1.35.7.1/bin/kubelet", "v1.35.7", false),
            ("kubelet-v1.35.7.tar.gz", "v1.35.7", true),
            ("rke2/releases/download/v1.35.7+rke2r1/rke2", "v1.35.7", false),
            ("csi-proxy/v1.2.0/csi-proxy.exe", "v1.35.7", false),
        ] {
            assert_eq!(names_version(path, version), expected, "{path}");
        }
    }
}
