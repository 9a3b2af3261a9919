//! Taking things out of repositories. The content itself stays until it is pruned, because others may have it too.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::oci::{Descriptor, Digest, RepositoryName, Tag, media_type};

use super::write::Batch;
use super::{Content as _, StoreError};

impl Batch<'_> {
    /// Removes `tag` from `name`. Returns whether it was there.
    pub fn delete_tag(&mut self, name: &RepositoryName, tag: &Tag) -> Result<bool, StoreError> {
        let present = self.writer.store.resolve(name, tag)?.is_some();
        if present {
            self.publication.set(name, tag, None);
        }
        Ok(present)
    }

    /// Removes the manifest `digest` from `name`, with the tags that point at it. Returns whether it was there.
    pub fn delete_manifest(&mut self, name: &RepositoryName, digest: &Digest) -> Result<bool, StoreError> {
        let store = &self.writer.store;
        let Some(record) = store.manifest_record(name, digest)? else { return Ok(false) };
        let repository = self.writer.repository(name)?;
        for tag in store.tags(name, None, usize::MAX)?.unwrap_or_default() {
            if store.resolve(name, &tag)?.is_some_and(|target| target.digest == *digest) {
                self.publication.set(name, &tag, None);
            }
        }
        self.removals.push(repository.manifest(digest));
        if let Some(subject) = &record.subject {
            self.removals.push(repository.referrer(subject, digest));
            self.keep_referrers_tag(name, subject, digest, None)?;
        }
        Ok(true)
    }

    /// Takes the blob `digest` out of `name`. Returns whether it was there.
    pub fn delete_blob(&mut self, name: &RepositoryName, digest: &Digest) -> Result<bool, StoreError> {
        let path = self.writer.repository(name)?.blob(digest);
        let present = path.try_exists()?;
        if present {
            self.removals.push(path);
        }
        Ok(present)
    }

    /// Forgets the plain file that `host` has under `path`. Its content stays, because others may have it too. Returns
    /// whether it was known.
    pub fn delete_file(&mut self, path: &str, host: &str) -> Result<bool, StoreError> {
        let Some(place) = self.writer.store.layout().file(host, path) else { return Ok(false) };
        let present = place.try_exists()?;
        if present {
            self.removals.push(place);
        }
        Ok(present)
    }

    /// Brings the referrers tag of `subject` in line with the referrer `digest` having come (with its descriptor) or gone,
    /// if there is such a tag.
    ///
    /// It is a tag for clients that do not know the referrers endpoint, and comes with images of registries that do not
    /// have one. Clients leave it alone once the registry says that it looks after referrers, so then the registry must.
    /// Source: OCI distribution specification 1.1, "Referrers Tag Schema".
    pub fn keep_referrers_tag(
        &mut self,
        name: &RepositoryName,
        subject: &Digest,
        digest: &Digest,
        descriptor: Option<&Descriptor>,
    ) -> Result<(), StoreError> {
        let Some(tag) = referrers_tag(subject) else { return Ok(()) };
        let store = &self.writer.store;
        let Some(target) = store.resolve(name, &tag)? else { return Ok(()) };
        let Some(manifest) = store.manifest(name, &target.digest)? else { return Ok(()) };
        if manifest.media_type != media_type::OCI_INDEX {
            return Ok(());
        }
        let Some(index) = with_entry(&manifest.bytes, digest, descriptor)? else { return Ok(()) };
        let updated = Descriptor::of(media_type::OCI_INDEX, &index);
        self.put_manifest(name, &updated.digest, media_type::OCI_INDEX, &index)?;
        self.set_tag(name, &tag, &updated)
    }
}

/// The tag under which referrers of `subject` are listed where there is no endpoint for them.
fn referrers_tag(subject: &Digest) -> Option<Tag> {
    let encoded = &subject.hex()[..subject.hex().len().min(64)];
    format!("{}-{encoded}", subject.algorithm().name()).parse().ok()
}

/// The index `bytes` with the entry `digest` replaced, added or taken away; none when that is no index.
fn with_entry(
    bytes: &[u8],
    digest: &Digest,
    descriptor: Option<&Descriptor>,
) -> Result<Option<Bytes>, StoreError> {
    let Ok(mut index) = serde_json::from_slice::<BTreeMap<String, serde_json::Value>>(bytes) else {
        return Ok(None);
    };
    let Some(entries) = index.get_mut("manifests").and_then(serde_json::Value::as_array_mut) else {
        return Ok(None);
    };
    let text = digest.to_string();
    entries.retain(|entry| entry["digest"] != *text);
    if let Some(descriptor) = descriptor {
        entries.push(serde_json::to_value(descriptor).map_err(std::io::Error::from)?);
    }
    Ok(Some(serde_json::to_vec(&index).map_err(std::io::Error::from)?.into()))
}
