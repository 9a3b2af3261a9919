//! Reading manifests and indexes, whole and verified.

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;

use super::error::{Missing, Problem, UpstreamError};
use super::request::{Ask, Page, Subject};
use super::{Fetched, Upstream};
use crate::oci::{Digest, Document, Hasher, MAX_MANIFEST_BYTES, Reference, RepositoryName, media_type};

impl Upstream {
    /// The manifest or index that `reference` means; by its digest where it has one.
    ///
    /// The digest in the result was computed from the bytes, and agrees with the reference's and the registry's.
    pub async fn manifest(&self, reference: &Reference) -> Result<Fetched, UpstreamError> {
        let name = reference.name();
        if let Some(digest) = reference.digest() {
            return self.by_digest(name, digest, reference.to_string(), false).await;
        }
        // `Reference` gives every reference without a digest a tag.
        let tag = reference.tag().map_or("latest", |tag| tag.as_str());
        let subject = self.subject(name, reference.to_string(), Missing::Tag)?;
        let page = self.manifest_page(&subject, tag, false).await?;
        let digest = match stated_digest(&page.headers) {
            Some(stated) => verified(&subject, stated, &page.body)?,
            None => Digest::sha256(&page.body),
        };
        Ok(Fetched { digest, document: document(&subject, page)? })
    }

    /// The manifest or index with this digest in the repository `name`.
    pub async fn manifest_by_digest(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<Fetched, UpstreamError> {
        self.by_digest(name, digest, format!("{name}@{digest}"), false).await
    }

    /// As [`manifest_by_digest`](Self::manifest_by_digest), for what can be done without: fails at once when the registry
    /// limits the rate of requests.
    pub async fn spare_manifest(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<Fetched, UpstreamError> {
        self.by_digest(name, digest, format!("{name}@{digest}"), true).await
    }

    /// Returns how many requests the registry of `name` still lets through, as far as it has said so far: 0 after it has
    /// refused one, `None` if it has said nothing.
    pub fn remaining_requests(&self, name: &RepositoryName) -> Option<u64> {
        let endpoint = self.shared.endpoints.locate(name).ok()?;
        self.shared.hosts.get(&endpoint.origin()).remaining()
    }

    async fn by_digest(
        &self,
        name: &RepositoryName,
        digest: &Digest,
        what: String,
        spare: bool,
    ) -> Result<Fetched, UpstreamError> {
        let subject = self.subject(name, what, Missing::Manifest)?;
        let page = self.manifest_page(&subject, &digest.to_string(), spare).await?;
        let digest = verified(&subject, digest.clone(), &page.body)?;
        Ok(Fetched { digest, document: document(&subject, page)? })
    }

    async fn manifest_page(
        &self,
        subject: &Subject,
        tag_or_digest: &str,
        spare: bool,
    ) -> Result<Page, UpstreamError> {
        let url = subject.endpoint.url(&format!("manifests/{tag_or_digest}"));
        let ask = Ask { spare, ..Ask::new(url, media_type::ACCEPT_MANIFESTS) };
        self.page(subject, &ask, MAX_MANIFEST_BYTES).await
    }
}

/// The digest that the registry says the manifest has. One that cannot be read is as good as none.
fn stated_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

fn verified(subject: &Subject, expected: Digest, body: &Bytes) -> Result<Digest, UpstreamError> {
    let mut hasher = Hasher::new(expected.algorithm());
    hasher.update(body);
    let actual = hasher.finish();
    if actual == expected { Ok(actual) } else { Err(subject.error(Problem::Digest { expected, actual })) }
}

fn document(subject: &Subject, page: Page) -> Result<Document, UpstreamError> {
    let content_type = page.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    Document::parse(content_type, page.body).map_err(|error| subject.error(error))
}
