//! ECDSA P-256 keys in the PEM forms that openssl and cosign exchange.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::signature::{Signer, Verifier};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
use p256::elliptic_curve::Generate;
use pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey, LineEnding};
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
    #[error("the private key is encrypted and needs its passphrase")]
    Encrypted,
    /// A passphrase that does not open the key, or an encryption that is not understood.
    #[error(
        "the passphrase does not open the private key, or it is encrypted in an old way; \
         encrypt it anew with `openssl pkcs8 -topk8 -v2 aes-256-cbc -in KEY`"
    )]
    Passphrase,
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
    /// An identifier from its 64 hexadecimal digits.
    pub(super) fn from_hex(hex: String) -> Self {
        Self(hex)
    }

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

    /// Reads PKCS#8 PEM that is encrypted under `passphrase` (PBES2: scrypt or PBKDF2 with AES).
    pub fn from_encrypted_pem(pem: &str, passphrase: &str) -> Result<Self, KeyError> {
        SigningKey::from_pkcs8_encrypted_pem(pem.trim(), passphrase)
            .map(Self)
            .map_err(|_| KeyError::Passphrase)
    }

    /// Writes PKCS#8 PEM, encrypted under `passphrase`: scrypt with the parameters that OpenSSL takes (16 MiB) and
    /// AES-256-CBC.
    pub fn to_encrypted_pem(&self, passphrase: &str) -> Result<Zeroizing<String>, KeyError> {
        self.0
            .to_pkcs8_encrypted_pem(passphrase, LineEnding::LF)
            .map_err(|error| KeyError::Encode(error.to_string()))
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

    /// This key's signature of `message` in DER, from whatever form the signer gave it in: DER, base64 of DER, or the
    /// two numbers one after the other as PKCS#11 tools write them. None when it is no signature of `message`.
    pub fn accept(&self, message: &[u8], signature: &[u8]) -> Option<Vec<u8>> {
        let decoded = crate::input::decode(signature).ok();
        let text = decoded.as_deref().map(str::trim);
        let decoded = text.and_then(|text| STANDARD.decode(text).ok());
        [Some(signature), decoded.as_deref()].into_iter().flatten().find_map(|bytes| {
            let parsed = Signature::from_der(bytes).or_else(|_| Signature::from_slice(bytes)).ok()?;
            let der = parsed.to_der().as_bytes().to_vec();
            self.verifies(message, &der).then_some(der)
        })
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
    fn a_passphrase_opens_what_it_closed() {
        let key = PrivateKey::generate();
        let pem = key.to_encrypted_pem("correct horse").unwrap();
        assert!(pem.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
        assert!(matches!(PrivateKey::from_pem(&pem), Err(KeyError::Encrypted)));
        assert!(matches!(PrivateKey::from_encrypted_pem(&pem, "battery"), Err(KeyError::Passphrase)));
        assert_eq!(PrivateKey::from_encrypted_pem(&pem, "correct horse").unwrap().public(), key.public());
    }

    #[test]
    fn takes_signatures_in_the_forms_that_signers_give_them_in() {
        let key = PrivateKey::generate();
        let der = key.sign(b"cargo");
        let fixed = Signature::from_der(&der).unwrap().to_bytes();
        let text = format!("{}\n", STANDARD.encode(&der));
        for form in [&der[..], &fixed[..], text.as_bytes()] {
            assert_eq!(key.public().accept(b"cargo", form).as_deref(), Some(&der[..]));
            assert_eq!(key.public().accept(b"Cargo", form), None);
        }
        assert_eq!(key.public().accept(b"cargo", b""), None);
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
