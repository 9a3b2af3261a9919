//! Who signed it, what they signed, and when.

use dray::{
    oci::Digest,
    trust::{Attestation, Claim, PrivateKey, Signature, Signatures},
};

use super::bench::{attacks, changed, locked, sign};
use crate::{
    archive::Archive,
    sample::{self, Sample},
};

/// The good bundle with these signatures.
fn signed(signatures: &Signatures) -> Vec<Vec<u8>> {
    vec![Sample::new().archive(Some(signatures)).to_bytes()]
}

/// The good bundle with these simple signatures of its claim.
fn simple(make: impl FnOnce(&[u8]) -> Vec<Signature>) -> Vec<Vec<u8>> {
    signed(&Signatures::new(make(&Sample::new().claim().payload), Vec::new()).unwrap())
}

/// A claim that is not about the good bundle.
fn other_claim() -> Claim {
    let mut other = Sample::new();
    other.lock.sequence = 6;
    other.claim()
}

/// The good bundle, where the text `from` in the signed documents is `to`.
fn rewritten(from: &str, to: &str) -> Vec<Vec<u8>> {
    changed(|archive| {
        let at = archive.parts.iter().position(|part| {
            String::from_utf8_lossy(&part.content).contains(from) && part.path().starts_with("blobs/")
        });
        let at = at.unwrap();
        let text = String::from_utf8(archive.parts[at].content.clone()).unwrap();
        archive.replace(at, text.replacen(from, to, 1).into_bytes());
    })
}

attacks! {
    nobody_signed: AtOnce, ["the bundle is not signed"], || vec![Sample::new().archive(None).to_bytes()];
    a_list_of_no_signatures: AtOnce, ["the bundle is not signed"], || simple(|_| Vec::new());
    a_stranger_signed: AtOnce, ["0 of 1 required signatures by trusted keys"], || {
        vec![Sample::new().signed_by(&[PrivateKey::generate()]).to_bytes()]
    };
    a_stranger_signed_in_a_trusted_name: AtOnce, ["0 of 1 required signatures"], || {
        simple(|payload| {
            let mut signature = Signature::create(&PrivateKey::generate(), payload);
            signature.claimed_key = Some(sample::key().public().id().to_string());
            vec![signature]
        })
    };
    a_stranger_attested_in_a_trusted_name: AtOnce, ["the attestation that names the trusted key"], || {
        let claim = Sample::new().claim();
        let mut forged = Attestation::create(&PrivateKey::generate(), &claim.statement);
        forged.key = sample::key().public().id();
        signed(&Signatures::new(vec![Signature::create(&sample::key(), &claim.payload)], vec![forged]).unwrap())
    };
    an_attestation_and_no_signature: AtOnce, ["the bundle is not signed"], || {
        let claim = Sample::new().claim();
        signed(&Signatures::new(Vec::new(), vec![Attestation::create(&sample::key(), &claim.statement)]).unwrap())
    };
    the_signature_of_another_bundle: AtOnce, ["0 of 1 required signatures"], || {
        simple(|_| vec![Signature::create(&sample::key(), &other_claim().payload)])
    };
    the_signature_of_another_bundle_as_a_whole: AtOnce, ["a layer that is no signature of this bundle"], || {
        let mut other = Sample::new();
        other.lock.sequence = 6;
        let other = other.signed_by(&[sample::key()]);
        let documents = other.position("index.json").unwrap();
        changed(|archive| {
            let at = archive.position("index.json").unwrap();
            let index = archive.parts[at].content.clone();
            archive.parts.splice(at - 5..at, other.parts[documents - 5..documents].iter().cloned());
            // The index of the good bundle, with the signatures of the other.
            let theirs = String::from_utf8(other.content("index.json").unwrap().to_vec()).unwrap();
            let ours = String::from_utf8(index).unwrap();
            let end = |text: &str| text.find("},{").unwrap();
            let joined = format!("{}{}", &ours[..end(&ours)], &theirs[end(&theirs)..]);
            let at = archive.position("index.json").unwrap();
            archive.replace(at, joined.into_bytes());
        })
    };
    a_signature_that_is_no_signature: AtOnce, ["0 of 1 required signatures"], || {
        let good = Signature::create(&sample::key(), &Sample::new().claim().payload).der;
        let forms = [Vec::new(), vec![0], vec![0x30, 0], vec![0x30, 0x80, 2, 1, 0, 2, 1, 0], vec![0x30, 6, 2, 1, 0, 2, 1, 0],
            [&good[..], &[0]].concat(), good[..good.len() - 1].to_vec(), vec![0xff; 4096]];
        forms
            .into_iter()
            .flat_map(|der| simple(|_| vec![Signature { der, claimed_key: None }]))
            .collect()
    };
    a_signature_of_the_bytes_without_a_claim: AtOnce, ["0 of 1 required signatures"], || {
        let digest = super::bench::bundle_index(&Sample::new().archive(None)).digest;
        simple(|_| {
            [digest.to_string(), digest.hex().to_owned()]
                .map(|text| Signature { der: sample::key().sign(text.as_bytes()), claimed_key: None })
                .into()
        })
    };
    more_signatures_than_anybody_needs: AtOnce, ["more than 64 signatures"], || {
        let mut archive = Sample::new().archive(None);
        sign(&mut archive, &sample::key());
        let at = archive.parts.iter().position(|part| {
            String::from_utf8_lossy(&part.content).contains("simplesigning.v1+json") && part.content.starts_with(b"{\"schema")
        });
        let at = at.unwrap();
        let text = String::from_utf8(archive.parts[at].content.clone()).unwrap();
        let start = text.find("\"layers\":[").unwrap() + "\"layers\":[".len();
        let layer = text[start..text.rfind(']').unwrap()].to_owned();
        archive.replace(at, format!("{}{}]}}", &text[..start], vec![layer; 65].join(",")).into_bytes());
        vec![archive.to_bytes()]
    };
    one_person_who_signs_twice: TwoPeople, ["1 of 2 required signatures"], || {
        simple(|payload| {
            let mut again = Signature::create(&sample::key(), payload);
            again.claimed_key = Some("somebody else".into());
            vec![Signature::create(&sample::key(), payload), again]
        })
    };
    one_person_and_a_stranger: TwoPeople, ["1 of 2 required signatures"], || {
        vec![Sample::new().signed_by(&[sample::key(), PrivateKey::generate()]).to_bytes()]
    };
    another_name_in_the_claim: AtOnce, [], || rewritten("bundles.dray.dev/plant-7", "bundles.dray.dev/plant-8");
    another_digest_in_the_claim: AtOnce, [], || {
        let digest = super::bench::bundle_index(&Sample::new().archive(None)).digest;
        rewritten(&format!("\"docker-manifest-digest\":\"{digest}\""), &format!("\"docker-manifest-digest\":\"{}\"", Digest::sha256(b"")))
    };
    a_lock_that_was_changed_after_signing: AtOnce, [], || {
        changed(|archive: &mut Archive| {
            let at = super::bench::lock_position(archive);
            let text = String::from_utf8(archive.parts[at].content.clone()).unwrap();
            archive.replace(at, text.replace("\"sequence\": 7", "\"sequence\": 8").into_bytes());
        })
    };
    a_bundle_that_has_expired: InTime, ["expired at 2020-01-01"], || {
        locked(|sample| sample.lock.expires = Some("2020-01-01T00:00:00Z".parse().unwrap()))
    };
    an_older_bundle: InStore, ["already has sequence 5", "the older sequence 4", "--allow-rollback"], || {
        locked(|sample| sample.lock.sequence = 4)
    };
    the_oldest_bundle: InStore, ["already has sequence 5"], || locked(|sample| sample.lock.sequence = 0);
    another_bundle_of_the_same_sequence: InStore, ["with the same sequence 5", "build with a higher"], || {
        locked(|sample| sample.lock.sequence = 5)
    };
}
