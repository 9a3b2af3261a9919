//! All signatures of one bundle, in both forms, and what they are over.

use super::{
    Attestation, PrivateKey, PublicKey, Signature, SignatureManifest, TrustError, payload, statement,
};
use crate::oci::{Digest, RepositoryName};

/// The sentence that is signed, "this digest is the bundle of this name", in the two forms that verifiers read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// For simple signing.
    pub payload: Vec<u8>,
    /// For Sigstore bundles.
    pub statement: Vec<u8>,
}

impl Claim {
    /// The claim that `digest` is the bundle index of `name`.
    pub fn new(name: &RepositoryName, digest: &Digest) -> Self {
        Self { payload: payload(name, digest), statement: statement(name, digest) }
    }
}

/// The signatures of one bundle. A bundle is trusted by its simple signatures; attestations are for other verifiers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signatures {
    simple: SignatureManifest,
    attestations: Vec<Attestation>,
}

impl Signatures {
    /// More than any release process asks for; each costs a verification per trusted key.
    pub const MAX: usize = 64;

    /// Signatures, sorted so that the order of signing leaves no trace.
    pub fn new(simple: Vec<Signature>, mut attestations: Vec<Attestation>) -> Result<Self, TrustError> {
        attestations.sort();
        attestations.dedup();
        let simple = SignatureManifest::new(simple);
        if simple.signatures().len() > Self::MAX || attestations.len() > Self::MAX {
            return Err(TrustError::Malformed(format!("more than {} signatures", Self::MAX)));
        }
        Ok(Self { simple, attestations })
    }

    /// Signs `claim` in both forms with each of `keys`.
    pub fn create(keys: &[PrivateKey], claim: &Claim) -> Result<Self, TrustError> {
        Self::new(
            keys.iter().map(|key| Signature::create(key, &claim.payload)).collect(),
            keys.iter().map(|key| Attestation::create(key, &claim.statement)).collect(),
        )
    }

    /// Takes what a signer outside this program (an HSM, `openssl`) made of the claim, in whatever encoding, after
    /// checking that it is `key`'s.
    pub fn accept(
        key: &PublicKey,
        claim: &Claim,
        signature: &[u8],
        attestation: Option<&[u8]>,
    ) -> Result<Self, TrustError> {
        let refused = || TrustError::Foreign { key: key.id() };
        let der = key.accept(&claim.payload, signature).ok_or_else(refused)?;
        let simple = Signature { der, claimed_key: Some(key.id().as_str().to_owned()) };
        let attestation = match attestation {
            None => None,
            Some(signature) => {
                let signed = super::signed_bytes(&claim.statement);
                let der = key.accept(&signed, signature).ok_or_else(refused)?;
                Some(Attestation { key: key.id(), der })
            }
        };
        Self::new(vec![simple], attestation.into_iter().collect())
    }

    /// These and `others`.
    pub fn with(self, others: Self) -> Result<Self, TrustError> {
        let simple = [self.simple.signatures(), others.simple.signatures()].concat();
        Self::new(simple, [self.attestations, others.attestations].concat())
    }

    /// The simple signatures.
    pub fn simple(&self) -> &SignatureManifest {
        &self.simple
    }

    /// The attestations, sorted by key.
    pub fn attestations(&self) -> &[Attestation] {
        &self.attestations
    }

    /// Whether nobody signed.
    pub fn is_empty(&self) -> bool {
        self.simple.signatures().is_empty() && self.attestations.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> Claim {
        Claim::new(&"bundles.dray.dev/plant-7".parse().unwrap(), &Digest::sha256(b"index"))
    }

    #[test]
    fn the_order_of_signing_leaves_no_trace() {
        let (alice, bob) = (PrivateKey::generate(), PrivateKey::generate());
        let by = |key: &PrivateKey| Signatures::create(std::slice::from_ref(key), &claim()).unwrap();
        assert_eq!(by(&alice).with(by(&bob)).unwrap(), by(&bob).with(by(&alice)).unwrap());
        assert_eq!(by(&alice).with(by(&alice)).unwrap(), by(&alice));
    }

    #[test]
    fn a_signature_from_outside_is_checked_before_it_is_taken() {
        let (alice, bob, claim) = (PrivateKey::generate(), PrivateKey::generate(), claim());
        let simple = alice.sign(&claim.payload);
        let dsse = alice.sign(&super::super::signed_bytes(&claim.statement));
        let taken = Signatures::accept(&alice.public(), &claim, &simple, Some(&dsse)).unwrap();
        assert_eq!(taken, Signatures::create(&[alice], &claim).unwrap());
        assert!(Signatures::accept(&bob.public(), &claim, &simple, None).is_err());
        assert!(Signatures::accept(&bob.public(), &claim, &bob.sign(&claim.payload), Some(&dsse)).is_err());
    }
}
