//! The rule of a site: whose signatures a bundle must have before anything of it is believed.

use std::collections::{BTreeMap, BTreeSet};

use super::{Claim, KeyId, PublicKey, Signatures};

/// Why a bundle is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// No signature at all.
    #[error("the bundle is not signed")]
    Unsigned,
    /// Signatures are there, but not enough of them are by trusted keys.
    #[error(
        "the bundle has {found} of {needed} required signatures by trusted keys ({})",
        signers(.claimed)
    )]
    Untrusted {
        /// Distinct trusted keys that signed.
        found: usize,
        /// How many are required.
        needed: usize,
        /// The keys that the signatures say they are by.
        claimed: Vec<String>,
    },
    /// A role has not approved.
    #[error("the bundle has {found} of {needed} required signatures by keys of the role `{role}`")]
    Role {
        /// The role.
        role: String,
        /// Distinct keys of the role that signed.
        found: usize,
        /// How many are required.
        needed: usize,
    },
    /// A signature manifest that is not of the expected form.
    #[error("the signature manifest is malformed: {0}")]
    Malformed(String),
    /// A Sigstore bundle that names a trusted key and is not by it.
    #[error("the attestation that names the trusted key {0} is not by that key")]
    Attestation(KeyId),
    /// What was given as a signature is none of this bundle by this key.
    #[error("this is no signature of the bundle by the key {key}; sign exactly the bytes of `--payload-out`")]
    Foreign {
        /// The key.
        key: KeyId,
    },
    /// More trusted signatures required than keys given.
    #[error("{needed} signatures are required but only {keys} trusted keys are given")]
    Threshold {
        /// How many signatures are required.
        needed: usize,
        /// How many distinct keys are trusted.
        keys: usize,
    },
}

fn signers(claimed: &[String]) -> String {
    let short: Vec<&str> = claimed.iter().map(|id| id.get(..16).unwrap_or(id)).collect();
    format!("signed by {}", short.join(", "))
}

/// Which signatures a bundle must have.
#[derive(Clone, Debug)]
pub struct Policy {
    keys: Vec<PublicKey>,
    threshold: usize,
    roles: Vec<Role>,
}

/// Keys of people with the same task, of whom some must have signed.
#[derive(Clone, Debug)]
pub(super) struct Role {
    pub(super) name: String,
    pub(super) threshold: usize,
    pub(super) keys: BTreeSet<KeyId>,
}

impl Policy {
    /// A bundle must be signed by at least `threshold` different keys of `keys`.
    ///
    /// A key that is given twice counts once, so nobody releases alone by repeating himself.
    pub fn new(keys: Vec<PublicKey>, threshold: usize) -> Result<Self, TrustError> {
        let distinct: BTreeMap<KeyId, PublicKey> = keys.into_iter().map(|key| (key.id(), key)).collect();
        let threshold = threshold.max(1);
        if distinct.len() < threshold {
            return Err(TrustError::Threshold { needed: threshold, keys: distinct.len() });
        }
        Ok(Self { keys: distinct.into_values().collect(), threshold, roles: Vec::new() })
    }

    /// The same, and each of `roles` must have approved.
    pub(super) fn with_roles(self, roles: Vec<Role>) -> Self {
        Self { roles, ..self }
    }

    /// The trusted keys.
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// Checks `signatures` of `claim` and gives the trusted keys that signed.
    pub fn check(
        &self,
        claim: &Claim,
        signatures: Option<&Signatures>,
    ) -> Result<BTreeSet<KeyId>, TrustError> {
        let signatures =
            signatures.filter(|s| !s.simple().signatures().is_empty()).ok_or(TrustError::Unsigned)?;
        let verified = signatures.simple().verified_by(&claim.payload, &self.keys);
        if verified.len() < self.threshold {
            let all = signatures.simple().signatures().iter();
            let claimed = all.map(|s| s.claimed_key.clone().unwrap_or_else(|| "an unnamed key".into()));
            return Err(TrustError::Untrusted {
                found: verified.len(),
                needed: self.threshold,
                claimed: claimed.collect(),
            });
        }
        for role in &self.roles {
            let found = role.keys.intersection(&verified).count();
            if found < role.threshold {
                return Err(TrustError::Role { role: role.name.clone(), found, needed: role.threshold });
            }
        }
        self.check_attestations(claim, signatures)?;
        Ok(verified)
    }

    /// Nothing rests on attestations here, but what is served in a trusted key's name must be that key's.
    fn check_attestations(&self, claim: &Claim, signatures: &Signatures) -> Result<(), TrustError> {
        let keys: BTreeMap<KeyId, &PublicKey> = self.keys.iter().map(|key| (key.id(), key)).collect();
        let forged = signatures.attestations().iter().find(|attestation| {
            keys.get(&attestation.key).is_some_and(|key| !attestation.is_by(key, &claim.statement))
        });
        forged.map_or(Ok(()), |attestation| Err(TrustError::Attestation(attestation.key.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;
    use crate::trust::{Attestation, PrivateKey, Signature};

    fn claim() -> Claim {
        Claim::new(&"bundles.dray.dev/plant-7".parse().unwrap(), &Digest::sha256(b"index"))
    }

    fn by(keys: &[&PrivateKey]) -> Signatures {
        let simple = keys.iter().map(|key| Signature::create(key, &claim().payload)).collect();
        Signatures::new(simple, Vec::new()).unwrap()
    }

    #[test]
    fn threshold_counts_distinct_trusted_keys() {
        let (alice, bob, mallory) = (PrivateKey::generate(), PrivateKey::generate(), PrivateKey::generate());
        let claim = claim();
        let trusted = vec![alice.public(), bob.public()];
        let one = Policy::new(trusted.clone(), 1).unwrap();
        let two = Policy::new(trusted.clone(), 2).unwrap();
        assert!(one.check(&claim, Some(&by(&[&alice]))).is_ok());
        assert!(two.check(&claim, Some(&by(&[&alice, &bob]))).is_ok());
        assert!(matches!(
            two.check(&claim, Some(&by(&[&alice, &alice, &mallory]))),
            Err(TrustError::Untrusted { found: 1, needed: 2, .. })
        ));
        assert!(matches!(one.check(&claim, None), Err(TrustError::Unsigned)));
        assert!(matches!(one.check(&claim, Some(&by(&[]))), Err(TrustError::Unsigned)));
        assert!(matches!(one.check(&claim, Some(&by(&[&mallory]))), Err(TrustError::Untrusted { .. })));
        let repeated = vec![alice.public(), alice.public()];
        assert!(matches!(Policy::new(repeated, 2), Err(TrustError::Threshold { needed: 2, keys: 1 })));
    }

    #[test]
    fn every_role_must_approve() {
        let (alice, bob, carol) = (PrivateKey::generate(), PrivateKey::generate(), PrivateKey::generate());
        let role = |name: &str, keys: &[&PrivateKey]| Role {
            name: name.into(),
            threshold: 1,
            keys: keys.iter().map(|key| key.public().id()).collect(),
        };
        let policy = Policy::new(vec![alice.public(), bob.public(), carol.public()], 1)
            .unwrap()
            .with_roles(vec![role("release", &[&alice, &bob]), role("security", &[&carol])]);
        assert!(policy.check(&claim(), Some(&by(&[&bob, &carol]))).is_ok());
        let error = policy.check(&claim(), Some(&by(&[&alice, &bob]))).unwrap_err();
        assert!(matches!(error, TrustError::Role { ref role, found: 0, needed: 1 } if role == "security"));
    }

    #[test]
    fn a_claimed_key_is_no_proof() {
        let (alice, mallory) = (PrivateKey::generate(), PrivateKey::generate());
        let mut forged = Signature::create(&mallory, &claim().payload);
        forged.claimed_key = Some(alice.public().id().as_str().to_owned());
        let policy = Policy::new(vec![alice.public()], 1).unwrap();
        let forged = Signatures::new(vec![forged], Vec::new()).unwrap();
        assert!(policy.check(&claim(), Some(&forged)).is_err());
    }

    #[test]
    fn nobody_attests_in_the_name_of_a_trusted_key() {
        let (alice, mallory) = (PrivateKey::generate(), PrivateKey::generate());
        let policy = Policy::new(vec![alice.public()], 1).unwrap();
        let good = Attestation::create(&alice, &claim().statement);
        let stranger = Attestation::create(&mallory, &claim().statement);
        let forged = Attestation { key: alice.public().id(), ..stranger.clone() };
        let check = |attestation: Attestation| {
            let simple = vec![Signature::create(&alice, &claim().payload)];
            policy.check(&claim(), Some(&Signatures::new(simple, vec![attestation]).unwrap()))
        };
        assert!(check(good).is_ok());
        assert!(check(stranger).is_ok());
        assert!(matches!(check(forged), Err(TrustError::Attestation(_))));
    }
}
