//! Signatures of a bundle in the simple-signing layout, which cosign and containers/image read.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{KeyId, PrivateKey, PublicKey, TrustError};
use crate::oci::{Descriptor, Digest, RepositoryName, media_type};

/// The media type of a signed payload.
///
/// Source: sigstore/cosign `specs/SIGNATURE_SPEC.md`.
pub const SIGNATURE_LAYER: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The configuration of a signature manifest. Readers ignore it; cosign writes an image configuration.
pub const SIGNATURE_CONFIG: &[u8] =
    br#"{"architecture":"","os":"","rootfs":{"type":"layers","diff_ids":[]}}"#;

/// Where the base64 signature stands in a signature manifest.
const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// Where the name of the signing key stands. A claim for people; trust never depends on it.
const KEY_ANNOTATION: &str = "dev.dray.key-id";
/// More signatures than any release process asks for; each costs a verification per trusted key.
const MAX_SIGNATURES: usize = 64;

/// One signature of a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// DER encoding of the ECDSA signature.
    pub der: Vec<u8>,
    /// The key that the signature says it is by.
    pub claimed_key: Option<String>,
}

impl Signature {
    /// Signs `payload`.
    pub fn create(key: &PrivateKey, payload: &[u8]) -> Self {
        Self { der: key.sign(payload), claimed_key: Some(key.public().id().as_str().to_owned()) }
    }
}

/// The payload that says "`digest` is `name`", in the exact form that containers/image accepts: these keys and no
/// others, `optional` present.
///
/// Source: containers/image `signature/internal/sigstore_payload.go`.
pub fn payload(name: &RepositoryName, digest: &Digest) -> Vec<u8> {
    #[derive(Serialize)]
    struct Payload<'a> {
        critical: Critical<'a>,
        optional: Option<()>,
    }
    #[derive(Serialize)]
    struct Critical<'a> {
        identity: BTreeMap<&'a str, &'a str>,
        image: BTreeMap<&'a str, &'a Digest>,
        r#type: &'a str,
    }
    let payload = Payload {
        critical: Critical {
            identity: BTreeMap::from([("docker-reference", name.as_str())]),
            image: BTreeMap::from([("docker-manifest-digest", digest)]),
            r#type: "cosign container image signature",
        },
        optional: None,
    };
    serde_json::to_vec(&payload).expect("strings always serialise")
}

/// The tag under which the signatures of `digest` are found.
pub fn signature_tag(digest: &Digest) -> String {
    format!("{}-{}.sig", digest.algorithm().name(), digest.hex())
}

/// The manifest that holds the signatures of one payload, a layer for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignatureManifest {
    signatures: Vec<Signature>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: String,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

impl SignatureManifest {
    /// A manifest of `signatures`, which are sorted so that the order of signing leaves no trace.
    pub fn new(mut signatures: Vec<Signature>) -> Self {
        signatures.sort_by(|a, b| (&a.claimed_key, &a.der).cmp(&(&b.claimed_key, &b.der)));
        signatures.dedup();
        Self { signatures }
    }

    /// The signatures.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// The manifest's bytes, for signatures of `payload`.
    pub fn to_bytes(&self, payload: &[u8]) -> Vec<u8> {
        let layer = |signature: &Signature| {
            let mut layer = Descriptor::of(SIGNATURE_LAYER, payload);
            layer.annotations.insert(SIGNATURE_ANNOTATION.into(), STANDARD.encode(&signature.der));
            if let Some(key) = &signature.claimed_key {
                layer.annotations.insert(KEY_ANNOTATION.into(), key.clone());
            }
            layer
        };
        let manifest = Manifest {
            schema_version: 2,
            media_type: media_type::OCI_MANIFEST.into(),
            config: Descriptor::of(media_type::OCI_CONFIG, SIGNATURE_CONFIG),
            layers: self.signatures.iter().map(layer).collect(),
        };
        serde_json::to_vec(&manifest).expect("descriptors always serialise")
    }

    /// Reads a manifest of signatures of `payload`; layers that sign anything else are an error.
    pub fn parse(bytes: &[u8], payload: &[u8]) -> Result<Self, TrustError> {
        let malformed = |what: &str| TrustError::Malformed(what.into());
        let manifest: Manifest =
            serde_json::from_slice(bytes).map_err(|error| TrustError::Malformed(error.to_string()))?;
        if manifest.layers.len() > MAX_SIGNATURES {
            return Err(malformed("more than 64 signatures"));
        }
        let signature = |layer: Descriptor| {
            if layer.media_type != SIGNATURE_LAYER || !layer.digest.matches(payload) {
                return Err(malformed("a layer that is no signature of this bundle"));
            }
            let encoded =
                layer.annotations.get(SIGNATURE_ANNOTATION).ok_or_else(|| malformed("no signature"))?;
            let der = STANDARD.decode(encoded).map_err(|_| malformed("a signature that is not base64"))?;
            Ok(Signature { der, claimed_key: layer.annotations.get(KEY_ANNOTATION).cloned() })
        };
        let signatures = manifest.layers.into_iter().map(signature).collect::<Result<_, _>>()?;
        Ok(Self { signatures })
    }

    /// The keys among `keys` that signed `payload`.
    pub fn verified_by(&self, payload: &[u8], keys: &[PublicKey]) -> BTreeSet<KeyId> {
        let signed = |key: &&PublicKey| self.signatures.iter().any(|s| key.verifies(payload, &s.der));
        keys.iter().filter(signed).map(PublicKey::id).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn signed_payload() -> Vec<u8> {
        payload(&"bundles.dray.dev/plant-7".parse().unwrap(), &Digest::sha256(b"index"))
    }

    #[test]
    fn payload_has_exactly_the_keys_that_verifiers_accept() {
        let digest = Digest::sha256(b"index");
        let expected = format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"bundles.dray.dev/plant-7"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"cosign container image signature"}},"optional":null}}"#
        );
        assert_eq!(String::from_utf8(signed_payload()).unwrap(), expected);
    }

    #[test]
    fn manifests_survive_writing_in_any_order() {
        let (alice, bob) = (PrivateKey::generate(), PrivateKey::generate());
        let payload = signed_payload();
        let (a, b) = (Signature::create(&alice, &payload), Signature::create(&bob, &payload));
        let bytes = SignatureManifest::new(vec![a.clone(), b.clone()]).to_bytes(&payload);
        assert_eq!(bytes, SignatureManifest::new(vec![b, a]).to_bytes(&payload));
        let read = SignatureManifest::parse(&bytes, &payload).unwrap();
        assert_eq!(read.to_bytes(&payload), bytes);
        assert!(SignatureManifest::parse(&bytes, b"another payload").is_err());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = SignatureManifest::parse(&bytes, b"payload");
        }
    }
}
