//! ECDSA P-256 keys in the PEM forms that openssl and cosign exchange.

use std::fmt;

use p256::ecdsa::signature::{Signer, Verifier};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
use p256::elliptic_curve::Generate;
use p256::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey, LineEnding};
use zeroize::Zeroizing;

use crate::oci::Digest;

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not PKCS#8 PEM, or not a P-256 key.
    #[error(
        "not an ECDSA P-256 private key in PKCS#8 PEM; convert one with `openssl pkcs8 -topk8 -nocrypt -in KEY`"
    )]
    Private,
    /// A key that needs a passphrase.
    #[error("the private key is encrypted")]
    Encrypted,
    /// Not an SPKI PEM, or not a P-256 key.
    #[error("not an ECDSA P-256 public key in PEM (`-----BEGIN PUBLIC KEY-----`)")]
    Public,
    /// The key was given where its other half belongs.
    #[error("this is a private key; give its public half, made beside it by `dray keygen`")]
    PrivateForPublic,
    /// The key could not be written out.
    #[error("the key cannot be encoded: {0}")]
    Encode(String),
}

/// Names a public key: the SHA-256 of its DER encoding, in hexadecimal.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(transparent)]
pub struct KeyId(String);

impl KeyId {
    /// The identifier as a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A key that signs.
pub struct PrivateKey(SigningKey);

impl PrivateKey {
    /// Makes a new key from the operating system's randomness.
    pub fn generate() -> Self {
        Self(SigningKey::generate())
    }

    /// Reads PKCS#8 PEM.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        if pem.contains("-----BEGIN ENCRYPTED ") {
            return Err(KeyError::Encrypted);
        }
        SigningKey::from_pkcs8_pem(pem.trim()).map(Self).map_err(|_| KeyError::Private)
    }

    /// Writes PKCS#8 PEM, unencrypted.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        self.0.to_pkcs8_pem(LineEnding::LF).map_err(|error| KeyError::Encode(error.to_string()))
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(*self.0.verifying_key())
    }

    /// Signs `message` with SHA-256 and gives the DER encoding.
    ///
    /// The nonce is derived from key and message (RFC 6979), so that signing the same bundle twice gives the same
    /// bytes.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature: Signature = self.0.sign(message);
        signature.to_der().as_bytes().to_vec()
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(of {})", self.public().id())
    }
}

/// A key that verifies.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads PEM.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        if pem.contains("PRIVATE KEY-----") {
            return Err(KeyError::PrivateForPublic);
        }
        VerifyingKey::from_public_key_pem(pem.trim()).map(Self).map_err(|_| KeyError::Public)
    }

    /// Writes PEM.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        self.0.to_public_key_pem(LineEnding::LF).map_err(|error| KeyError::Encode(error.to_string()))
    }

    /// The name of the key.
    pub fn id(&self) -> KeyId {
        let der = self.0.to_public_key_der().expect("a point on the curve always has an encoding");
        KeyId(Digest::sha256(der.as_bytes()).hex().to_owned())
    }

    /// Whether `der` is this key's signature of `message`.
    pub fn verifies(&self, message: &[u8], der: &[u8]) -> bool {
        Signature::from_der(der).is_ok_and(|signature| self.0.verify(message, &signature).is_ok())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `openssl ecparam -name prime256v1 -genkey | openssl pkcs8 -topk8 -nocrypt`.
    const FOREIGN_PRIVATE: &str = include_str!("testdata/openssl-p256.key");
    const FOREIGN_PUBLIC: &str = include_str!("testdata/openssl-p256.pub");

    #[test]
    fn a_pair_survives_pem() {
        let key = PrivateKey::generate();
        let again = PrivateKey::from_pem(&key.to_pem().unwrap()).unwrap();
        let public = PublicKey::from_pem(&key.public().to_pem().unwrap()).unwrap();
        assert_eq!(again.public(), public);
        assert_eq!(public.id(), key.public().id());
        assert!(public.verifies(b"cargo", &again.sign(b"cargo")));
        assert_eq!(key.sign(b"cargo"), again.sign(b"cargo"));
    }

    #[test]
    fn refuses_other_messages_other_keys_and_damage() {
        let (key, other) = (PrivateKey::generate(), PrivateKey::generate());
        let signature = key.sign(b"cargo");
        assert!(!key.public().verifies(b"Cargo", &signature));
        assert!(!other.public().verifies(b"cargo", &signature));
        for at in 0..signature.len() {
            let mut damaged = signature.clone();
            damaged[at] ^= 1;
            assert!(!key.public().verifies(b"cargo", &damaged), "byte {at}");
        }
        assert!(!key.public().verifies(b"cargo", b""));
    }

    #[test]
    fn reads_openssl_s_keys() {
        let key = PrivateKey::from_pem(FOREIGN_PRIVATE).unwrap();
        assert_eq!(key.public(), PublicKey::from_pem(FOREIGN_PUBLIC).unwrap());
    }

    #[test]
    fn says_what_is_wrong() {
        assert!(matches!(PublicKey::from_pem(FOREIGN_PRIVATE), Err(KeyError::PrivateForPublic)));
        assert!(matches!(PrivateKey::from_pem(FOREIGN_PUBLIC), Err(KeyError::Private)));
        assert!(matches!(PublicKey::from_pem("hello"), Err(KeyError::Public)));
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----";
        assert!(matches!(PrivateKey::from_pem(encrypted), Err(KeyError::Encrypted)));
    }
}
