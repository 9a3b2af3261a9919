//! Who may say what is brought to a site: keys, signatures, and the rule for when a bundle is trusted.
//!
//! A signature is over the digest of the bundle index, which covers the lock and so every byte of the bundle. It is
//! kept in the simple-signing layout that `cosign verify --key` and containers/image read.

mod key;
mod signature;

pub use key::{KeyError, KeyId, PrivateKey, PublicKey};
pub use signature::{
    Policy, SIGNATURE_CONFIG, SIGNATURE_LAYER, Signature, SignatureManifest, TrustError, payload,
    signature_tag,
};
