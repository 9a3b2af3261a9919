//! Changing a repository: manifests, tags, blobs; what needs the store's one writer for a moment.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode, header};

use crate::oci::{Descriptor, Digest, Document, RepositoryName, Tag};
use crate::store::{Content as _, Store, StoreError, Writer};

use super::answer::empty;
use super::body::Body;
use super::error::{ApiError, Code, header_value};
use super::path::{ManifestReference, PathError};
use super::request::Request;

/// How long a push waits for another writer. An import takes longer, a push does not.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many tags one push may set.
const MAX_TAGS: usize = 100;

/// The store's writer, when there is no other.
pub(super) fn writer(store: &Store) -> Result<Writer, ApiError> {
    Ok(store.writer("dray serve", PATIENCE)?)
}

/// `PUT` of a manifest.
pub(super) fn put_manifest(
    store: &Store,
    request: &Request,
    name: &RepositoryName,
    reference: &ManifestReference,
    bytes: &Bytes,
) -> Result<Response<Body>, ApiError> {
    let content_type = request.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let document = Document::parse(content_type, bytes.clone()).map_err(StoreError::from)?;
    let (digest, tags) = match reference {
        ManifestReference::Tag(tag) => (Digest::sha256(bytes), vec![tag.clone()]),
        ManifestReference::Digest(digest) => (digest.clone(), tags(request)?),
    };
    let target = Descriptor::new(document.media_type(), digest.clone(), bytes.len() as u64);
    let writer = writer(store)?;
    let mut batch = writer.batch();
    batch.put_manifest(name, &digest, document.media_type(), bytes)?;
    if let Some(subject) = document.subject() {
        batch.keep_referrers_tag(name, &subject.digest, &digest, Some(&document.as_referrer(&digest)))?;
    }
    for tag in &tags {
        batch.set_tag(name, tag, &target)?;
    }
    batch.commit()?;
    drop(writer);

    let mut response = created(&format!("/v2/{name}/manifests/{digest}"), &digest)?;
    let headers = response.headers_mut();
    if let Some(subject) = document.subject() {
        headers.insert("oci-subject", header_value(&subject.digest.to_string())?);
    }
    if matches!(reference, ManifestReference::Digest(_)) {
        for tag in &tags {
            headers.append("oci-tag", header_value(tag.as_str())?);
        }
    }
    Ok(response)
}

/// The tags that the query asks for.
fn tags(request: &Request) -> Result<Vec<Tag>, ApiError> {
    if request.query.tags.len() > MAX_TAGS {
        let message = format!("one push may set {MAX_TAGS} tags");
        return Err(ApiError::new(StatusCode::URI_TOO_LONG, Code::Unsupported, message));
    }
    let parse = |tag: &String| tag.parse().map_err(|error| PathError::Tag(error).into());
    request.query.tags.iter().map(parse).collect()
}

/// `DELETE` of a tag or a manifest.
pub(super) fn delete_manifest(
    store: &Store,
    name: &RepositoryName,
    reference: &ManifestReference,
) -> Result<Response<Body>, ApiError> {
    let writer = writer(store)?;
    let mut batch = writer.batch();
    let present = match reference {
        ManifestReference::Tag(tag) => batch.delete_tag(name, tag)?,
        ManifestReference::Digest(digest) => batch.delete_manifest(name, digest)?,
    };
    if !present {
        return Err(ApiError::unknown(Code::ManifestUnknown, "there is no such manifest here"));
    }
    batch.commit()?;
    Ok(empty(StatusCode::ACCEPTED))
}

/// `DELETE` of a blob.
pub(super) fn delete_blob(
    store: &Store,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<Response<Body>, ApiError> {
    let writer = writer(store)?;
    let mut batch = writer.batch();
    if !batch.delete_blob(name, digest)? {
        return Err(ApiError::unknown(Code::BlobUnknown, format!("there is no blob {digest} here")));
    }
    batch.commit()?;
    Ok(empty(StatusCode::ACCEPTED))
}

/// Takes over a blob from another repository. Returns none when no repository has it, so that it must be uploaded.
pub(super) fn mount(
    store: &Store,
    name: &RepositoryName,
    digest: &Digest,
    from: Option<&RepositoryName>,
) -> Result<Option<Response<Body>>, ApiError> {
    let has = |repository: &RepositoryName| Ok::<_, ApiError>(store.blob_size(repository, digest)?.is_some());
    let mut found = from.is_some_and(|from| has(from).unwrap_or(false));
    if !found && store.has_blob(digest)? {
        // A blob that no repository has any more was deleted; it is only not yet pruned.
        for repository in store.repositories(None, usize::MAX)? {
            if has(&repository)? {
                found = true;
                break;
            }
        }
    }
    if !found {
        return Ok(None);
    }
    let writer = writer(store)?;
    // It may have been pruned while this waited.
    if !store.has_blob(digest)? {
        return Ok(None);
    }
    writer.add_blob(name, digest)?;
    created(&format!("/v2/{name}/blobs/{digest}"), digest).map(Some)
}

/// Something has come to be at `location`.
pub(super) fn created(location: &str, digest: &Digest) -> Result<Response<Body>, ApiError> {
    let mut response = empty(StatusCode::CREATED);
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, header_value(location)?);
    headers.insert("docker-content-digest", header_value(&digest.to_string())?);
    Ok(response)
}
