//! Which endpoint a request's path means.
//!
//! Repository names contain slashes and may even contain words such as `manifests`, so paths are read from the right.
//! Pure functions: the same path always means the same, and nothing here looks at the disk.

use std::borrow::Cow;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

use crate::oci::{Digest, ParseDigestError, ParseReferenceError, RepositoryName, Tag};
use crate::store::UploadId;

/// An endpoint of the distribution API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/v2/`: is this a registry?
    Version,
    /// `/v2/_catalog`.
    Catalog,
    /// `/v2/<name>/tags/list`.
    Tags(RepositoryName),
    /// `/v2/<name>/manifests/<tag or digest>`.
    Manifest(RepositoryName, ManifestReference),
    /// `/v2/<name>/blobs/<digest>`.
    Blob(RepositoryName, Digest),
    /// `/v2/<name>/blobs/uploads/`.
    Uploads(RepositoryName),
    /// `/v2/<name>/blobs/uploads/<session>`.
    Upload(RepositoryName, UploadId),
    /// `/v2/<name>/referrers/<digest>`.
    Referrers(RepositoryName, Digest),
}

/// How a request names a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestReference {
    /// By a tag.
    Tag(Tag),
    /// By its digest.
    Digest(Digest),
}

/// Why a path means no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No endpoint has such a path.
    #[error("no such endpoint")]
    NotFound,
    /// The repository name is malformed.
    #[error(transparent)]
    Name(ParseReferenceError),
    /// The tag is malformed.
    #[error(transparent)]
    Tag(ParseReferenceError),
    /// The digest is malformed.
    #[error(transparent)]
    Digest(#[from] ParseDigestError),
    /// The upload's name is not one that this registry gave.
    #[error("there is no such upload")]
    Upload,
}

impl Endpoint {
    /// Reads the path of a request, without its query.
    pub fn parse(path: &str) -> Result<Self, PathError> {
        let decoded = percent_decode_str(path).decode_utf8().map_err(|_| PathError::NotFound)?;
        let rest = match decoded.strip_prefix("/v2") {
            Some("" | "/") => return Ok(Self::Version),
            Some(rest) => rest.strip_prefix('/').ok_or(PathError::NotFound)?,
            None => return Err(PathError::NotFound),
        };
        if rest == "_catalog" {
            return Ok(Self::Catalog);
        }
        let mut parts = rest.rsplitn(3, '/');
        let (Some(last), Some(second), Some(before)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(PathError::NotFound);
        };
        match (second, last) {
            ("tags", "list") => Ok(Self::Tags(name(before)?)),
            ("blobs", "uploads") => Ok(Self::Uploads(name(before)?)),
            ("uploads", id) if before.ends_with("/blobs") => {
                let name = name(&before[..before.len() - "/blobs".len()])?;
                match id {
                    "" => Ok(Self::Uploads(name)),
                    id => Ok(Self::Upload(name, id.parse().map_err(|_| PathError::Upload)?)),
                }
            }
            ("blobs", digest) => Ok(Self::Blob(name(before)?, digest.parse()?)),
            ("referrers", digest) => Ok(Self::Referrers(name(before)?, digest.parse()?)),
            ("manifests", reference) => Ok(Self::Manifest(name(before)?, reference.parse()?)),
            _ => Err(PathError::NotFound),
        }
    }
}

impl FromStr for ManifestReference {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // No tag has a colon, and every digest has one.
        if text.contains(':') {
            Ok(Self::Digest(text.parse()?))
        } else {
            Ok(Self::Tag(text.parse().map_err(PathError::Tag)?))
        }
    }
}

fn name(text: &str) -> Result<RepositoryName, PathError> {
    text.parse().map_err(PathError::Name)
}

/// The parameters of a request's query, as far as any endpoint knows them. The first of several wins, except for tags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// The registry host that the client means.
    pub ns: Option<String>,
    /// How many results to list.
    pub n: Option<String>,
    /// After which result to begin.
    pub last: Option<String>,
    /// Which referrers to list.
    pub artifact_type: Option<String>,
    /// The digest that an upload must have.
    pub digest: Option<String>,
    /// The hash function that an upload will be addressed by.
    pub digest_algorithm: Option<String>,
    /// The blob to take over from another repository.
    pub mount: Option<String>,
    /// The repository to take it from.
    pub from: Option<String>,
    /// The tags to set on a manifest that is pushed by its digest.
    pub tags: Vec<String>,
}

impl Query {
    /// Reads a query string.
    pub fn parse(query: Option<&str>) -> Self {
        let mut parsed = Self::default();
        for (key, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let slot = match &*key {
                "ns" => &mut parsed.ns,
                "n" => &mut parsed.n,
                "last" => &mut parsed.last,
                "artifactType" => &mut parsed.artifact_type,
                "digest" => &mut parsed.digest,
                "digest-algorithm" => &mut parsed.digest_algorithm,
                "mount" => &mut parsed.mount,
                "from" => &mut parsed.from,
                "tag" => {
                    parsed.tags.push(value.into_owned());
                    continue;
                }
                _ => continue,
            };
            slot.get_or_insert_with(|| Cow::into_owned(value));
        }
        parsed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const SESSION: &str = "0123456789abcdef0123456789abcdef";

    fn repository(text: &str) -> RepositoryName {
        text.parse().unwrap()
    }

    fn digest() -> Digest {
        format!("sha256:{HEX}").parse().unwrap()
    }

    #[test]
    fn endpoints() {
        let parse = |path: &str| Endpoint::parse(path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let tag = |text: &str| ManifestReference::Tag(text.parse().unwrap());
        assert_eq!(parse("/v2"), Endpoint::Version);
        assert_eq!(parse("/v2/"), Endpoint::Version);
        assert_eq!(parse("/v2/_catalog"), Endpoint::Catalog);
        assert_eq!(parse("/v2/a/tags/list"), Endpoint::Tags(repository("a")));
        let name = repository("registry.k8s.io/coredns/coredns");
        for path in [
            "/v2/registry.k8s.io/coredns/coredns/manifests/v1.11.3",
            "/v2/registry.k8s.io%2Fcoredns/coredns/manifests/v1.11.3",
        ] {
            assert_eq!(parse(path), Endpoint::Manifest(name.clone(), tag("v1.11.3")));
        }
        assert_eq!(
            parse("/v2/localhost%3A5000/a/manifests/1"),
            Endpoint::Manifest(repository("localhost:5000/a"), tag("1"))
        );
        assert_eq!(
            parse(&format!("/v2/a/manifests/sha256:{HEX}")),
            Endpoint::Manifest(repository("a"), ManifestReference::Digest(digest()))
        );
        assert_eq!(
            parse(&format!("/v2/a/b/blobs/sha256:{HEX}")),
            Endpoint::Blob(repository("a/b"), digest())
        );
        assert_eq!(
            parse(&format!("/v2/a/referrers/sha256:{HEX}")),
            Endpoint::Referrers(repository("a"), digest())
        );
        for path in ["/v2/a/blobs/uploads", "/v2/a/blobs/uploads/"] {
            assert_eq!(parse(path), Endpoint::Uploads(repository("a")));
        }
        assert_eq!(
            parse(&format!("/v2/a/blobs/uploads/{SESSION}")),
            Endpoint::Upload(repository("a"), SESSION.parse().unwrap())
        );
    }

    #[test]
    fn names_may_hold_the_words_of_endpoints() {
        for words in
            ["manifests", "tags/list", "blobs/uploads", "v2", "a/manifests/b", "uploads", "referrers"]
        {
            let name = repository(words);
            let path = format!("/v2/{words}");
            assert_eq!(Endpoint::parse(&format!("{path}/tags/list")), Ok(Endpoint::Tags(name.clone())));
            assert_eq!(
                Endpoint::parse(&format!("{path}/blobs/sha256:{HEX}")),
                Ok(Endpoint::Blob(name.clone(), digest()))
            );
            assert_eq!(Endpoint::parse(&format!("{path}/blobs/uploads/")), Ok(Endpoint::Uploads(name)));
        }
    }

    #[test]
    fn refusals() {
        use PathError::{Name, NotFound, Tag, Upload};
        let error = |path: &str| Endpoint::parse(path).unwrap_err();
        for path in [
            "",
            "/",
            "/v1/",
            "/v2x",
            "/v2/a",
            "/v2/a/b",
            "/v2/manifests/latest",
            "/v2/tags/list",
            "/v2//",
            "/v2/%ff/tags/list",
        ] {
            assert!(matches!(error(path), NotFound), "{path}");
        }
        for path in [
            "/v2/A/tags/list",
            "/v2//tags/list",
            "/v2/a//b/tags/list",
            "/v2/../etc/tags/list",
            "/v2/a%00/tags/list",
        ] {
            assert!(matches!(error(path), Name(_)), "{path}");
        }
        assert!(matches!(error("/v2/a/manifests/.x"), Tag(_)));
        assert!(matches!(error("/v2/a/manifests/"), Tag(_)));
        assert!(matches!(error("/v2/a/manifests/sha256:baddigeststring"), PathError::Digest(_)));
        assert!(matches!(error("/v2/a/blobs/x"), PathError::Digest(_)));
        assert!(matches!(error("/v2/a/blobs/uploads/../x"), NotFound));
        assert!(matches!(error("/v2/a/blobs/uploads/x"), Upload));
    }

    #[test]
    fn queries() {
        let query = Query::parse(Some("ns=gcr.io%3A8443&ns=x&n=5&tag=a&tag=b&other=1&artifactType=a%2Fb+c"));
        assert_eq!(query.ns.as_deref(), Some("gcr.io:8443"));
        assert_eq!(query.n.as_deref(), Some("5"));
        assert_eq!(query.tags, ["a", "b"]);
        assert_eq!(query.artifact_type.as_deref(), Some("a/b c"));
        assert_eq!(Query::parse(None), Query::default());
    }

    proptest! {
        #[test]
        fn never_panics(path in "(/v2)?[-a-zA-Z0-9/%:._]{0,80}|\\PC{0,60}", query in "\\PC{0,60}") {
            let _ = Endpoint::parse(&path);
            let _ = Query::parse(Some(&query));
        }

        #[test]
        fn a_name_comes_out_as_it_went_in(name in "[a-z0-9]{1,5}([_-][a-z0-9]{1,5}){0,2}(/[a-z0-9]{1,5}){0,3}") {
            let expected = repository(&name);
            prop_assert_eq!(Endpoint::parse(&format!("/v2/{name}/tags/list")), Ok(Endpoint::Tags(expected)));
        }
    }
}
