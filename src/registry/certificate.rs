//! Reading from a certificate how long it is valid, and which names it is for.
//!
//! Only these fields are read (RFC 5280, section 4.1). Whether the certificate can be used is for rustls to say.

use std::net::IpAddr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pkcs8::ObjectIdentifier;
use pkcs8::der::asn1::{AnyRef, GeneralizedTime, UtcTime};
use pkcs8::der::{Decode as _, ErrorKind, Reader as _, Result, SliceReader, Tag, TagNumber, Tagged as _};

/// `subjectAltName` (RFC 5280, section 4.2.1.6).
const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
/// The field `extensions` of a certificate.
const EXTENSIONS: TagNumber = TagNumber(3);
/// The choice `dNSName` of a general name.
const DNS_NAME: TagNumber = TagNumber(2);
/// The choice `iPAddress` of a general name.
const IP_ADDRESS: TagNumber = TagNumber(7);

/// How long a certificate is valid, and which names it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Certificate {
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    /// DNS names and IP addresses, in the order of the certificate.
    pub(super) names: Vec<String>,
}

impl Certificate {
    /// Reads a certificate in DER form.
    pub(super) fn parse(der: &[u8]) -> Result<Self> {
        let certificate = AnyRef::from_der(der)?;
        let body = members(certificate.value())?.first().copied().ok_or(ErrorKind::Failed)?;
        let mut fields = members(body.value())?;
        // The version, which has a number where the other fields have their order.
        fields.retain(|field| field.tag().number() != TagNumber(0) || !field.tag().is_context_specific());
        // serialNumber, signature, issuer, validity
        let validity = members(fields.get(3).ok_or(ErrorKind::Failed)?.value())?;
        let [not_before, not_after] = validity[..] else { return Err(ErrorKind::Failed.into()) };
        let extensions = fields.iter().find(|field| is_choice(field, EXTENSIONS));
        Ok(Self {
            not_before: time(not_before)?,
            not_after: time(not_after)?,
            names: extensions.map_or_else(|| Ok(Vec::new()), |field| names(field.value()))?,
        })
    }
}

/// Reads the values that stand one after the other in `bytes`.
fn members(bytes: &[u8]) -> Result<Vec<AnyRef<'_>>> {
    let mut reader = SliceReader::new(bytes)?;
    let mut found = Vec::new();
    while !reader.is_finished() {
        found.push(AnyRef::decode(&mut reader)?);
    }
    Ok(found)
}

fn is_choice(value: &AnyRef<'_>, number: TagNumber) -> bool {
    value.tag().is_context_specific() && value.tag().number() == number
}

fn time(value: AnyRef<'_>) -> Result<Timestamp> {
    let since: Duration = match value.tag() {
        Tag::UtcTime => value.decode_as::<UtcTime>()?.to_unix_duration(),
        _ => value.decode_as::<GeneralizedTime>()?.to_unix_duration(),
    };
    let since = SignedDuration::try_from(since).map_err(|_| ErrorKind::DateTime)?;
    Timestamp::from_duration(since).map_err(|_| ErrorKind::DateTime.into())
}

/// Reads the names of the server from the extensions of its certificate.
fn names(extensions: &[u8]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for extension in members(AnyRef::from_der(extensions)?.value())? {
        let parts = members(extension.value())?;
        let (Some(id), Some(content)) = (parts.first(), parts.last()) else { continue };
        if id.tag() != Tag::ObjectIdentifier || id.decode_as::<ObjectIdentifier>()? != SUBJECT_ALT_NAME {
            continue;
        }
        for name in members(AnyRef::from_der(content.value())?.value())? {
            let bytes = name.value();
            if is_choice(&name, DNS_NAME) {
                found.extend(str::from_utf8(bytes).ok().map(str::to_owned));
            } else if is_choice(&name, IP_ADDRESS) {
                let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
                let address = four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
                found.extend(address.ok().map(|address| address.to_string()));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn certificate(names: &[&str], until: i32) -> Vec<u8> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 1, 31);
        params.not_after = rcgen::date_time_ymd(until, 2, 28);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn names_and_times_are_read() {
        let names = ["registry.site.local", "10.0.0.7", "*.site.local", "fd00::7"];
        // Years from 2050 on are written in another way.
        for until in [2027, 2062] {
            let read = Certificate::parse(&certificate(&names, until)).unwrap();
            assert_eq!(read.names, names);
            assert_eq!(read.not_before.to_string(), "2026-01-31T00:00:00Z");
            assert_eq!(read.not_after.to_string(), format!("{until}-02-28T00:00:00Z"));
        }
        assert_eq!(Certificate::parse(&certificate(&[], 2027)).unwrap().names, Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn what_is_damaged_never_panics(at in 0..300usize, byte: u8, cut in 0..400usize) {
            let mut bytes = certificate(&["a"], 2027);
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = Certificate::parse(&bytes);
            bytes.truncate(cut);
            let _ = Certificate::parse(&bytes);
        }
    }
}
