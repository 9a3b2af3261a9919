//! The log of a site: receipts of imports, each of which names the one before it by its digest.
//!
//! Whoever changes, inserts or removes a receipt breaks the chain from there on. Cutting off the newest ones leaves a
//! whole chain, so a receipt that was carried home proves at the next visit that nothing up to it is gone.

use serde::Deserialize;

use super::PublicKey;
use crate::oci::Digest;

/// One receipt as the store keeps it.
#[derive(Clone, Copy, Debug)]
pub struct LogEntry<'a> {
    /// Its number, by which the store found it.
    pub number: u64,
    /// The bytes of the receipt.
    pub record: &'a [u8],
    /// A signature of those bytes in DER.
    pub signature: Option<&'a [u8]>,
}

/// What was found in a log that holds together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogReport {
    /// The number of receipts.
    pub entries: u64,
    /// How many of them are signed by a trusted key.
    pub signed: u64,
    /// The digest of the newest receipt, which stands for the whole log.
    pub head: Option<Digest>,
}

/// Why a log is not believed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A number is left out or comes twice.
    #[error("receipt {expected} is missing from the log")]
    Missing {
        /// The number that should come.
        expected: u64,
    },
    /// A receipt is not in the form that an import writes.
    #[error("receipt {number} is not valid: {reason}")]
    Malformed {
        /// The receipt.
        number: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The chain is broken.
    #[error(
        "receipt {number} does not follow from the one before it: one of them was changed after it was written"
    )]
    Broken {
        /// The later one.
        number: u64,
    },
    /// A signature is not by any trusted key.
    #[error("the signature of receipt {number} is not by a trusted key, or the receipt was changed")]
    Signature {
        /// The receipt.
        number: u64,
    },
    /// Keys are given, and nothing stands under the newest receipt.
    #[error("receipt {number}, the newest, is not signed; import with --receipt-key")]
    Unsigned {
        /// The receipt.
        number: u64,
    },
    /// A receipt that was given out is not in the log.
    #[error("the receipt {0} is not in the log: the log was cut off or replaced since")]
    Gone(Digest),
}

/// The part of a receipt that makes the chain.
#[derive(Deserialize)]
struct Link {
    number: u64,
    previous: Option<Digest>,
}

/// Checks that `entries`, oldest first, are a chain from the first import to the last.
///
/// With `keys`, every signature must be by one of them and the newest receipt must be signed; the chain carries that
/// back to the older ones. Each of `held`, digests of receipts that were carried away, must be in the log.
pub fn verify_log(
    entries: &[LogEntry<'_>],
    keys: &[PublicKey],
    held: &[Digest],
) -> Result<LogReport, LogError> {
    let mut report = LogReport { entries: 0, signed: 0, head: None };
    let mut digests = Vec::with_capacity(entries.len());
    for (entry, expected) in entries.iter().zip(1..) {
        let number = entry.number;
        if number != expected {
            return Err(LogError::Missing { expected });
        }
        let link: Link = serde_json::from_slice(entry.record)
            .map_err(|error| LogError::Malformed { number, reason: error.to_string() })?;
        if link.number != number || link.previous != report.head {
            return Err(LogError::Broken { number });
        }
        match entry.signature {
            _ if keys.is_empty() => {}
            Some(der) if keys.iter().any(|key| key.verifies(entry.record, der)) => report.signed += 1,
            Some(_) => return Err(LogError::Signature { number }),
            None if expected == entries.len() as u64 => return Err(LogError::Unsigned { number }),
            None => {}
        }
        let digest = Digest::sha256(entry.record);
        report.entries += 1;
        report.head = Some(digest.clone());
        digests.push(digest);
    }
    match held.iter().find(|held| !digests.contains(held)) {
        None => Ok(report),
        Some(gone) => Err(LogError::Gone(gone.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::PrivateKey;

    fn chain(length: u64) -> Vec<String> {
        let mut records: Vec<String> = Vec::new();
        for number in 1..=length {
            let previous = records.last().map(|record| Digest::sha256(record.as_bytes()));
            records
                .push(serde_json::json!({"number": number, "previous": previous, "name": "a"}).to_string());
        }
        records
    }

    fn entries<'a>(records: &'a [String], signatures: &'a [Option<Vec<u8>>]) -> Vec<LogEntry<'a>> {
        let signature = |nth: usize| signatures.get(nth).and_then(Option::as_deref);
        let entry = |(nth, record): (usize, &'a String)| LogEntry {
            number: nth as u64 + 1,
            record: record.as_bytes(),
            signature: signature(nth),
        };
        records.iter().enumerate().map(entry).collect()
    }

    #[test]
    fn a_whole_chain_is_good() {
        let records = chain(3);
        let report = verify_log(&entries(&records, &[]), &[], &[]).unwrap();
        assert_eq!((report.entries, report.signed), (3, 0));
        assert_eq!(report.head, Some(Digest::sha256(records[2].as_bytes())));
        assert_eq!(verify_log(&[], &[], &[]).unwrap().head, None);
    }

    #[test]
    fn every_change_is_found() {
        let good = chain(4);
        let held = [Digest::sha256(good[3].as_bytes())];
        for nth in 0..good.len() {
            let mut changed = good.clone();
            changed[nth] = changed[nth].replace("\"a\"", "\"b\"");
            assert!(verify_log(&entries(&changed, &[]), &[], &held).is_err(), "{nth} changed");
            let mut shorter = good.clone();
            shorter.remove(nth);
            assert!(verify_log(&entries(&shorter, &[]), &[], &held).is_err(), "{nth} removed");
        }
        let mut with_gap = entries(&good, &[]);
        with_gap.remove(1);
        assert!(matches!(verify_log(&with_gap, &[], &[]), Err(LogError::Missing { expected: 2 })));
    }

    #[test]
    fn the_newest_receipt_must_be_signed_and_every_signature_good() {
        let (site, other) = (PrivateKey::generate(), PrivateKey::generate());
        let records = chain(2);
        let by = |key: &PrivateKey, nth: usize| Some(key.sign(records[nth].as_bytes()));
        let check = |signatures: [Option<Vec<u8>>; 2]| {
            verify_log(&entries(&records, &signatures), &[site.public()], &[])
        };
        assert_eq!(check([None, by(&site, 1)]).unwrap().signed, 1);
        assert_eq!(check([by(&site, 0), by(&site, 1)]).unwrap().signed, 2);
        assert!(matches!(check([by(&site, 0), None]), Err(LogError::Unsigned { number: 2 })));
        assert!(matches!(check([by(&other, 0), by(&site, 1)]), Err(LogError::Signature { number: 1 })));
        assert!(matches!(check([by(&site, 1), by(&site, 1)]), Err(LogError::Signature { number: 1 })));
    }
}
