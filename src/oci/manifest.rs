//! Views over manifests and indexes. The bytes are kept as they came; the view is for looking.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;

use super::descriptor::or_default;
use super::{Descriptor, Digest, Platform, media_type};

/// The largest manifest or index that is read: what the distribution specification asks registries to accept,
/// and clients read no more.
pub const MAX_MANIFEST_BYTES: usize = 4 * 1024 * 1024;

/// Why bytes are not a manifest that can be carried.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Larger than registries and clients accept.
    #[error("the manifest is larger than {MAX_MANIFEST_BYTES} bytes")]
    TooLarge,
    /// Not JSON of the expected shape.
    #[error("the manifest is not valid JSON of its type: {0}")]
    Json(#[from] serde_json::Error),
    /// Docker's schema 1.
    #[error(
        "the image is published as Docker schema 1, which has no content digests and which current runtimes \
         refuse; ask for it to be pushed again as schema 2 or OCI"
    )]
    Schema1,
    /// The document's own media type contradicts the one it came with.
    #[error("the manifest calls itself `{inner}` but came as `{outer}`")]
    Contradiction {
        /// The media type it was delivered as.
        outer: String,
        /// The media type inside.
        inner: String,
    },
    /// Not a manifest or an index at all.
    #[error("`{0}` is not a manifest or an index")]
    Unknown(String),
}

/// A manifest or an index, with the bytes it was read from.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "documents live behind an `Arc` or on the stack for a moment")]
pub enum Document {
    /// Several images under one reference.
    Index(Index),
    /// One image or artifact.
    Image(Image),
}

/// An OCI index or a Docker manifest list.
#[derive(Clone, Debug)]
pub struct Index {
    raw: Bytes,
    media_type: String,
    /// The entries, in the order of the document. The order matters: some runtimes take the first match.
    pub manifests: Vec<Descriptor>,
    /// What this document refers to, if it is a referrer.
    pub subject: Option<Descriptor>,
}

/// The manifest of one image or artifact.
#[derive(Clone, Debug)]
pub struct Image {
    raw: Bytes,
    media_type: String,
    /// The image configuration.
    pub config: Descriptor,
    /// The layers, bottom first.
    pub layers: Vec<Descriptor>,
    /// What this document refers to, if it is a referrer.
    pub subject: Option<Descriptor>,
    /// The type of an artifact; images have none.
    pub artifact_type: Option<String>,
}

/// The fields of both kinds of document, as read; which are there tells the kind.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    #[serde(default)]
    schema_version: Option<u32>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    subject: Option<Descriptor>,
}

impl Document {
    /// Reads `raw`, delivered as `content_type` if that is known.
    ///
    /// The document's own `mediaType` must agree with `content_type`; parameters after `;` do not count. A document
    /// that states its type nowhere is recognised by its fields.
    pub fn parse(content_type: Option<&str>, raw: Bytes) -> Result<Self, ManifestError> {
        if raw.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLarge);
        }
        let outer = content_type
            .map(|t| t.split(';').next().unwrap_or_default().trim())
            // Static file servers know no better type; the document's own then decides.
            .filter(|t| !matches!(*t, "" | "application/json" | "text/plain" | "application/octet-stream"));
        if matches!(outer, Some(media_type::DOCKER_SCHEMA1 | media_type::DOCKER_SCHEMA1_SIGNED)) {
            return Err(ManifestError::Schema1);
        }
        let fields: Fields = serde_json::from_slice(&raw)?;
        if fields.schema_version == Some(1) {
            return Err(ManifestError::Schema1);
        }
        let inner = fields.media_type.as_deref().filter(|t| !t.is_empty());
        let media_type = match (outer, inner) {
            (Some(outer), Some(inner)) if outer != inner => {
                return Err(ManifestError::Contradiction { outer: outer.into(), inner: inner.into() });
            }
            (Some(stated), _) | (None, Some(stated)) => stated.to_owned(),
            (None, None) if fields.manifests.is_some() => media_type::OCI_INDEX.to_owned(),
            (None, None) if fields.config.is_some() => media_type::OCI_MANIFEST.to_owned(),
            (None, None) => return Err(ManifestError::Unknown("document without mediaType".into())),
        };
        if media_type::is_index(&media_type) {
            // A document with both lists can be read as either kind, depending on who reads (CVE-2021-41190).
            let (Some(manifests), None) = (fields.manifests, &fields.layers) else {
                return Err(ManifestError::Unknown(media_type));
            };
            Ok(Self::Index(Index { raw, media_type, manifests, subject: fields.subject }))
        } else if media_type::is_image(&media_type) {
            let (Some(config), None) = (fields.config, &fields.manifests) else {
                return Err(ManifestError::Unknown(media_type));
            };
            Ok(Self::Image(Image {
                raw,
                media_type,
                config,
                layers: fields.layers.unwrap_or_default(),
                subject: fields.subject,
                artifact_type: fields.artifact_type,
            }))
        } else {
            Err(ManifestError::Unknown(media_type))
        }
    }

    /// The bytes as they came.
    pub fn raw(&self) -> &Bytes {
        match self {
            Self::Index(index) => &index.raw,
            Self::Image(image) => &image.raw,
        }
    }

    /// The media type.
    pub fn media_type(&self) -> &str {
        match self {
            Self::Index(index) => &index.media_type,
            Self::Image(image) => &image.media_type,
        }
    }

    /// What this document refers to, if it is a referrer.
    pub fn subject(&self) -> Option<&Descriptor> {
        match self {
            Self::Index(index) => index.subject.as_ref(),
            Self::Image(image) => image.subject.as_ref(),
        }
    }

    /// How the document, whose digest is `digest`, appears among the referrers of its subject.
    ///
    /// Source: OCI distribution specification 1.1, "Listing Referrers": the artifact type is the manifest's own, or
    /// else the media type of its configuration, and the annotations are copied.
    pub fn as_referrer(&self, digest: &Digest) -> Descriptor {
        // Whoever writes annotations that are no strings gets an entry without them.
        let fields: ArtifactFields = serde_json::from_slice(self.raw()).unwrap_or_default();
        let mut descriptor = Descriptor::new(self.media_type(), digest.clone(), self.raw().len() as u64);
        descriptor.artifact_type = match self {
            Self::Image(image) => {
                let stated = image.artifact_type.clone().filter(|stated| !stated.is_empty());
                Some(stated.unwrap_or_else(|| image.config.media_type.clone()))
            }
            Self::Index(_) => fields.artifact_type,
        };
        descriptor.annotations = fields.annotations.unwrap_or_default();
        descriptor
    }

    /// Describes the document by its SHA-256 digest.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(self.media_type(), Digest::sha256(self.raw()), self.raw().len() as u64)
    }
}

/// The fields of a manifest that only its entry among referrers needs.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ArtifactFields {
    artifact_type: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
}

impl Image {
    /// The configuration and the layers.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        std::iter::once(&self.config).chain(&self.layers)
    }
}

/// What an image configuration says about where the image runs.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ImageConfig {
    #[serde(default, deserialize_with = "or_default")]
    architecture: String,
    #[serde(default, deserialize_with = "or_default")]
    os: String,
    #[serde(default, rename = "os.version", deserialize_with = "or_default")]
    os_version: String,
    #[serde(default, rename = "os.features", deserialize_with = "or_default")]
    os_features: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    variant: String,
}

impl ImageConfig {
    /// Reads a configuration blob.
    pub fn parse(raw: &[u8]) -> Result<Self, ManifestError> {
        Ok(serde_json::from_slice(raw)?)
    }

    /// The platform the image was built for; none when the configuration belongs to an artifact.
    pub fn platform(&self) -> Option<Platform> {
        if self.os.is_empty() {
            return None;
        }
        Some(Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            variant: self.variant.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The shape that Kubernetes' `build/pause/Makefile` publishes: a Docker manifest list with Windows entries.
    const PAUSE: &str = include_str!("testdata/pause-3.10.2.json");

    #[test]
    fn golden_windows_index() {
        let Document::Index(index) = Document::parse(None, Bytes::from_static(PAUSE.as_bytes())).unwrap()
        else {
            panic!("not an index");
        };
        assert_eq!(index.media_type, media_type::DOCKER_LIST);
        let platforms: Vec<String> =
            index.manifests.iter().map(|m| m.platform.as_ref().unwrap().to_string()).collect();
        assert_eq!(
            platforms,
            [
                "linux/amd64",
                "linux/arm",
                "linux/arm64",
                "linux/ppc64le",
                "linux/s390x",
                "windows(10.0.17763.7919)/amd64",
                "windows(10.0.20348.4294)/amd64",
                "windows(10.0.26100.6899)/amd64",
            ]
        );
        assert_eq!(&index.raw[..], PAUSE.as_bytes());
    }

    #[test]
    fn refuses_by_name() {
        let parse = |outer: Option<&str>, body: &'static str| {
            Document::parse(outer, Bytes::from_static(body.as_bytes())).unwrap_err()
        };
        let schema1 = r#"{"schemaVersion":1,"name":"a","fsLayers":[]}"#;
        assert!(matches!(parse(None, schema1), ManifestError::Schema1));
        assert!(matches!(parse(Some(media_type::DOCKER_SCHEMA1_SIGNED), "{}"), ManifestError::Schema1));
        assert!(matches!(
            parse(
                Some(media_type::OCI_INDEX),
                r#"{"mediaType":"application/vnd.oci.image.manifest.v1+json"}"#
            ),
            ManifestError::Contradiction { .. }
        ));
        assert!(matches!(parse(None, "{}"), ManifestError::Unknown(_)));
        assert!(matches!(parse(None, "["), ManifestError::Json(_)));
        let both = r#"{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"layers":[]}"#;
        assert!(matches!(parse(None, both), ManifestError::Unknown(_)));
        let huge = Bytes::from(vec![b' '; MAX_MANIFEST_BYTES + 1]);
        assert!(matches!(Document::parse(None, huge).unwrap_err(), ManifestError::TooLarge));
    }

    #[test]
    fn reads_nulls_and_missing_types() {
        let body = r#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json",
            "digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0,"annotations":null},
            "layers":[]}"#;
        let document = Document::parse(Some("application/json"), Bytes::from(body)).unwrap();
        assert_eq!(document.media_type(), media_type::OCI_MANIFEST);
    }

    #[test]
    fn configuration_tells_the_windows_version() {
        let config =
            ImageConfig::parse(br#"{"architecture":"amd64","os":"windows","os.version":"10.0.17763.1"}"#)
                .unwrap();
        assert_eq!(config.platform().unwrap().to_string(), "windows(10.0.17763.1)/amd64");
        assert!(ImageConfig::parse(b"{}").unwrap().platform().is_none());
    }

    proptest! {
        #[test]
        fn never_panics(body in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Document::parse(None, Bytes::from(body.clone()));
            let _ = ImageConfig::parse(&body);
        }
    }
}
