//! The same approval in the form that newer verifiers look for: a Sigstore bundle v0.3 that refers to the bundle index.
//!
//! It holds a DSSE envelope around an in-toto statement "this digest was signed", with the name of the public key in
//! place of a certificate and without a transparency log, so that it verifies with a key and without a network.
//!
//! Sources: sigstore/protobuf-specs `sigstore_bundle.proto`, secure-systems-lab/dsse `protocol.md`, sigstore/cosign
//! `pkg/cosign/verify.go` (`verifyImageAttestationsSigstoreBundle`).

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{KeyId, PrivateKey, PublicKey, TrustError};
use crate::oci::{Algorithm, Descriptor, Digest, RepositoryName, media_type};

/// The type of a Sigstore bundle, as a layer and as the artifact around it.
pub const SIGSTORE_BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

const IN_TOTO: &str = "application/vnd.in-toto+json";
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
/// What cosign states of an image that it signs.
const PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";
/// Annotations by which cosign knows what a bundle holds without reading it.
const CONTENT_ANNOTATION: &str = "dev.sigstore.bundle.content";
const PREDICATE_ANNOTATION: &str = "dev.sigstore.bundle.predicateType";

/// The in-toto statement that "`digest` is `name`, and was signed".
///
/// Verifiers compare the subject's digest; the name is for people.
pub fn statement(name: &RepositoryName, digest: &Digest) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Statement<'a> {
        #[serde(rename = "_type")]
        kind: &'a str,
        subject: [Subject<'a>; 1],
        predicate_type: &'a str,
        predicate: BTreeMap<&'a str, &'a str>,
    }
    #[derive(Serialize)]
    struct Subject<'a> {
        name: &'a str,
        digest: BTreeMap<&'a str, &'a str>,
    }
    let statement = Statement {
        kind: STATEMENT,
        subject: [Subject {
            name: name.as_str(),
            digest: BTreeMap::from([(digest.algorithm().name(), digest.hex())]),
        }],
        predicate_type: PREDICATE,
        predicate: BTreeMap::new(),
    };
    serde_json::to_vec(&statement).expect("strings always serialise")
}

/// The bytes that a DSSE signature of `statement` is over: type and content, each with its length in front of it.
pub fn signed_bytes(statement: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {IN_TOTO} {} ", IN_TOTO.len(), statement.len()).into_bytes();
    bytes.extend_from_slice(statement);
    bytes
}

/// A signature of a statement, and the key that it says it is by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attestation {
    /// The key that the attestation says it is by. A claim until a key verifies it.
    pub key: KeyId,
    /// DER encoding of the ECDSA signature.
    pub der: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SigstoreBundle {
    media_type: String,
    verification_material: Material,
    dsse_envelope: Envelope,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Material {
    public_key: Hint,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hint {
    hint: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: [Sig; 1],
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sig {
    sig: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u32,
    media_type: &'a str,
    artifact_type: &'a str,
    config: Descriptor,
    layers: [Descriptor; 1],
    subject: Descriptor,
    annotations: BTreeMap<&'a str, &'a str>,
}

impl Attestation {
    /// Signs `statement`.
    pub fn create(key: &PrivateKey, statement: &[u8]) -> Self {
        Self { key: key.public().id(), der: key.sign(&signed_bytes(statement)) }
    }

    /// Whether `key` signed `statement`.
    pub fn is_by(&self, key: &PublicKey, statement: &[u8]) -> bool {
        key.verifies(&signed_bytes(statement), &self.der)
    }

    /// The Sigstore bundle.
    pub fn to_bytes(&self, statement: &[u8]) -> Vec<u8> {
        let bundle = SigstoreBundle {
            media_type: SIGSTORE_BUNDLE.into(),
            // cosign's name for a key: what our own is in hexadecimal, in base64.
            verification_material: Material { public_key: Hint { hint: STANDARD.encode(self.key.bytes()) } },
            dsse_envelope: Envelope {
                payload: STANDARD.encode(statement),
                payload_type: IN_TOTO.into(),
                signatures: [Sig { sig: STANDARD.encode(&self.der) }],
            },
        };
        serde_json::to_vec(&bundle).expect("strings always serialise")
    }

    /// The manifest that makes the Sigstore bundle `layer` a referrer of `subject`.
    pub fn manifest(layer: Descriptor, subject: &Descriptor) -> Vec<u8> {
        let manifest = Manifest {
            schema_version: 2,
            media_type: media_type::OCI_MANIFEST,
            artifact_type: SIGSTORE_BUNDLE,
            config: Descriptor::of(media_type::OCI_EMPTY, b"{}"),
            layers: [layer],
            subject: Descriptor::new(&subject.media_type, subject.digest.clone(), subject.size),
            annotations: BTreeMap::from([
                (CONTENT_ANNOTATION, "dsse-envelope"),
                (PREDICATE_ANNOTATION, PREDICATE),
            ]),
        };
        serde_json::to_vec(&manifest).expect("descriptors always serialise")
    }

    /// Reads a Sigstore bundle of `statement`; one of anything else is an error.
    pub fn parse(bytes: &[u8], statement: &[u8]) -> Result<Self, TrustError> {
        let malformed = |what: &str| TrustError::Malformed(what.into());
        let bundle: SigstoreBundle =
            serde_json::from_slice(bytes).map_err(|error| TrustError::Malformed(error.to_string()))?;
        let Envelope { payload, payload_type, signatures: [Sig { sig }] } = bundle.dsse_envelope;
        let signed = STANDARD.decode(payload).ok();
        if bundle.media_type != SIGSTORE_BUNDLE
            || payload_type != IN_TOTO
            || signed.as_deref() != Some(statement)
        {
            return Err(malformed("an attestation that is not of this bundle"));
        }
        let hint = STANDARD.decode(bundle.verification_material.public_key.hint).ok();
        let key =
            hint.and_then(|bytes| KeyId::from_bytes(&bytes)).ok_or_else(|| malformed("no key named"))?;
        let der = STANDARD.decode(sig).map_err(|_| malformed("a signature that is not base64"))?;
        Ok(Self { key, der })
    }
}

impl KeyId {
    /// The 32 bytes of the identifier.
    fn bytes(&self) -> Vec<u8> {
        let digits = self.as_str().as_bytes().chunks(2);
        digits.map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | nibble(*digit))).collect()
    }

    /// The identifier of 32 bytes.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut hex = String::with_capacity(Algorithm::Sha256.hex_len());
        for byte in bytes {
            hex.extend(
                [byte >> 4, byte & 15].map(|nibble| char::from(b"0123456789abcdef"[usize::from(nibble)])),
            );
        }
        (hex.len() == Algorithm::Sha256.hex_len()).then_some(Self::from_hex(hex))
    }
}

fn nibble(digit: u8) -> u8 {
    if digit.is_ascii_digit() { digit - b'0' } else { digit - b'a' + 10 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Vec<u8> {
        statement(&"bundles.dray.dev/plant-7".parse().unwrap(), &Digest::sha256(b"index"))
    }

    #[test]
    fn the_statement_is_what_verifiers_compare() {
        let expected = format!(
            r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"name":"bundles.dray.dev/plant-7","digest":{{"sha256":"{}"}}}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{{}}}}"#,
            Digest::sha256(b"index").hex()
        );
        assert_eq!(String::from_utf8(sample()).unwrap(), expected);
    }

    #[test]
    fn pre_authentication_is_that_of_the_dsse_specification() {
        let mut expected = b"DSSEv1 28 application/vnd.in-toto+json 5 ".to_vec();
        expected.extend_from_slice(b"hello");
        assert_eq!(signed_bytes(b"hello"), expected);
    }

    #[test]
    fn survives_writing_and_names_its_key() {
        let key = PrivateKey::generate();
        let made = Attestation::create(&key, &sample());
        let read = Attestation::parse(&made.to_bytes(&sample()), &sample()).unwrap();
        assert_eq!(read, made);
        assert!(read.is_by(&key.public(), &sample()));
        assert!(!read.is_by(&PrivateKey::generate().public(), &sample()));
        assert!(Attestation::parse(&made.to_bytes(&sample()), b"another").is_err());
        assert!(Attestation::parse(&made.to_bytes(b"another"), &sample()).is_err());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Attestation::parse(&bytes, b"statement");
        }
    }
}
