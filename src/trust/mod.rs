//! Who may say what is brought to a site: keys, signatures, and the rule for when a bundle is trusted.
//!
//! A signature is over the digest of the bundle index, which covers the lock and so every byte of the bundle. It is
//! kept in the simple-signing layout that `cosign verify --key` and containers/image read, and once more as a Sigstore
//! bundle for verifiers that look for referrers.

mod attestation;
mod key;
mod keyring;
mod policy;
mod signature;
mod signatures;

pub use attestation::{Attestation, SIGSTORE_BUNDLE, signed_bytes, statement};
pub use key::{KeyError, KeyId, PrivateKey, PublicKey};
pub use keyring::{KeyringError, read_keys, read_policy};
pub use policy::{Policy, TrustError};
pub use signature::{
    SIGNATURE_CONFIG, SIGNATURE_LAYER, Signature, SignatureManifest, payload, signature_tag,
};
pub use signatures::{Claim, Signatures};
