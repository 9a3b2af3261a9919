//! What refers to an image: signatures, attestations, SBOMs (distribution specification, "Listing Referrers").

use http::header::CONTENT_TYPE;

use super::Upstream;
use super::error::{Missing, Problem, UpstreamError};
use super::request::{Ask, Page};
use crate::oci::{
    Descriptor, Digest, Document, MAX_MANIFEST_BYTES, ManifestError, Reference, RepositoryName, Tag,
    media_type,
};

impl Upstream {
    /// What refers to the manifest `subject` of the repository `name`.
    ///
    /// Registries without the referrers API are asked for the tag that stands in for it.
    pub async fn referrers(
        &self,
        name: &RepositoryName,
        subject: &Digest,
    ) -> Result<Vec<Descriptor>, UpstreamError> {
        let request = self.subject(name, format!("the referrers of {name}@{subject}"), Missing::Manifest)?;
        let ask = Ask::new(request.endpoint.url(&format!("referrers/{subject}")), media_type::OCI_INDEX);
        let mut referrers = Vec::new();
        let read = self
            .pages(&request, ask, MAX_MANIFEST_BYTES, |page| {
                referrers.extend(entries(page)?);
                Ok(referrers.len())
            })
            .await;
        match read {
            Ok(()) => Ok(referrers),
            Err(error) if referrers.is_empty() && lacks_the_api(&error) => {
                self.tagged_referrers(name, subject).await
            }
            Err(error) => Err(error),
        }
    }

    /// The referrers that clients list under a tag where the registry has no API for it
    /// (distribution specification, "Referrers Tag Schema").
    async fn tagged_referrers(
        &self,
        name: &RepositoryName,
        subject: &Digest,
    ) -> Result<Vec<Descriptor>, UpstreamError> {
        let Ok(tag) = referrers_tag(subject).parse::<Tag>() else { return Ok(Vec::new()) };
        match self.manifest(&Reference::new(name.clone(), Some(tag), None)).await {
            Ok(fetched) => match fetched.document {
                Document::Index(index) => Ok(index.manifests),
                // Another tool's use of the same tag.
                Document::Image(_) => Ok(Vec::new()),
            },
            Err(error) if error.is_missing() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

fn entries(page: Page) -> Result<Vec<Descriptor>, Problem> {
    let content_type = page.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    match Document::parse(content_type, page.body)? {
        Document::Index(index) => Ok(index.manifests),
        Document::Image(_) => Err(ManifestError::Unknown("manifest in place of a list".into()).into()),
    }
}

/// Whether a registry's answer means that it does not know the referrers API; older ones take the path for something
/// else and answer in various ways.
fn lacks_the_api(error: &UpstreamError) -> bool {
    match error.problem() {
        Some(Problem::Missing(_) | Problem::Manifest(_)) => true,
        Some(Problem::Status { status, .. }) => matches!(status, 400 | 405 | 406 | 501),
        _ => false,
    }
}

/// The tag that lists the referrers of `subject`; the specification keeps 64 characters of the hash.
fn referrers_tag(subject: &Digest) -> String {
    format!("{}-{}", subject.algorithm().name(), &subject.hex()[..64])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Algorithm, Hasher};

    #[test]
    fn tags_follow_the_schema() {
        let sha256 = Digest::sha256(b"");
        assert_eq!(referrers_tag(&sha256), format!("sha256-{}", sha256.hex()));
        let sha512 = Hasher::new(Algorithm::Sha512).finish();
        let tag = referrers_tag(&sha512);
        assert_eq!(tag.len(), "sha512-".len() + 64);
        assert!(tag.parse::<Tag>().is_ok());
    }
}
