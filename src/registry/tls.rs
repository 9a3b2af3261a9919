//! TLS: certificate and key from files, taken anew when they change, and certificates for a site that has none.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use fs_err as fs;
use jiff::{SignedDuration, Span, Timestamp, ToSpan as _};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::input::{self, InputError};
use crate::text::counted;

use super::certificate::Certificate;

/// The largest certificate or key file.
const MAX_FILE: u64 = 1024 * 1024;
/// What is said of a certificate that cannot be decoded.
const DAMAGED: &str = "the certificate in it is damaged";
/// How often the files are looked at for changes.
const LOOK: Duration = Duration::from_secs(2);
/// The name of a site's certificate authority.
const AUTHORITY: &str = "dray site CA";
/// How long a certificate authority lasts, in years.
const AUTHORITY_YEARS: i64 = 10;

/// A certificate is near its end when a third of its time is left, but no more than this.
const NEAR: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not PEM of what it should be.
    #[error("{path} is not a {expected} in PEM form: {found}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should be.
        expected: Expected,
        /// What is in it.
        found: String,
    },
    /// The key is protected by a passphrase.
    #[error("the private key {0} is encrypted, and a server has nobody to ask for the passphrase")]
    Encrypted(PathBuf),
    /// The key is that of another certificate.
    #[error("the private key {key} does not belong to the certificate {certificate}")]
    Mismatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// Certificate and key are read, but cannot be used.
    #[error("the certificate {path} cannot be used: {error}")]
    Unusable {
        /// The file of the certificate.
        path: PathBuf,
        /// Why.
        error: rustls::Error,
    },
    /// A file cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// What is to be in a certificate is no name of a server.
    #[error(
        "`{0}` is no DNS name and no IP address; give the name of a server, such as registry.site.local, without a port"
    )]
    Name(String),
    /// No certificate can be made of what was given.
    #[error("cannot make the certificate: {0}")]
    Making(#[from] rcgen::Error),
    /// The certificate would last longer than there is a calendar for.
    #[error("cannot make a certificate for that time: {0}")]
    Time(#[from] jiff::Error),
    /// The disk, or the permissions on it.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// What a file should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// A certificate, with those that lead from it to its authority after it.
    Certificate,
    /// A private key.
    Key,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "certificate",
            Self::Key => "private key",
        })
    }
}

/// The server's certificate and key. Changes of the files take effect within seconds, for new connections.
#[derive(Debug)]
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    config: Arc<ServerConfig>,
    /// How long it can be used; `None` if that cannot be read.
    validity: Option<Validity>,
    modified: [Option<SystemTime>; 2],
    looked: Instant,
}

impl Tls {
    /// Reads certificate (with the chain after it) and key.
    pub fn open(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let modified = [modified(certificate), modified(key)];
        let (config, validity) = load(certificate, key)?;
        let state = State { config, validity, modified, looked: Instant::now() };
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), state: Mutex::new(state) })
    }

    /// Returns when the first certificate of the chain ends; `None` if that cannot be read.
    pub fn not_after(&self) -> Option<Timestamp> {
        self.validity().map(|validity| validity.not_after)
    }

    /// Says that the certificate has ended or ends soon; `None` if there is time.
    pub(super) fn warning(&self, now: Timestamp) -> Option<String> {
        let Validity { not_before, not_after } = self.validity()?;
        let (left, all) = (not_after.duration_since(now), not_after.duration_since(not_before));
        let path = self.certificate.display();
        if left <= SignedDuration::ZERO {
            Some(format!("the certificate {path} has expired on {not_after}, so no node can connect"))
        } else if left < NEAR.min(all / 3) {
            Some(format!("the certificate {path} expires on {not_after}, in {}", days_or_hours(left)))
        } else {
            None
        }
    }

    /// Whether the certificate has ended.
    pub(super) fn is_expired(&self, now: Timestamp) -> bool {
        self.not_after().is_some_and(|end| end <= now)
    }

    fn validity(&self) -> Option<Validity> {
        // The files may have changed without a connection since.
        self.config();
        self.state.lock().unwrap_or_else(PoisonError::into_inner).validity
    }

    /// What a new connection is to use. Files that make no sense are not taken.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= LOOK {
            state.looked = Instant::now();
            let modified = [modified(&self.certificate), modified(&self.key)];
            if modified != state.modified {
                match load(&self.certificate, &self.key) {
                    Ok((config, validity)) => {
                        tracing::info!("{} has changed and is used from now on", self.certificate.display());
                        state.config = config;
                        state.validity = validity;
                        state.modified = modified;
                    }
                    Err(error) => tracing::warn!("the certificate stays as it was: {error}"),
                }
            }
        }
        state.config.clone()
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// How long a chain of certificates can be used.
#[derive(Clone, Copy, Debug)]
struct Validity {
    not_before: Timestamp,
    not_after: Timestamp,
}

impl Validity {
    fn of(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let read: Option<Vec<Certificate>> = chain.iter().map(|der| Certificate::parse(der).ok()).collect();
        let read = read?;
        Some(Self {
            not_before: read.iter().map(|certificate| certificate.not_before).max()?,
            not_after: read.iter().map(|certificate| certificate.not_after).min()?,
        })
    }
}

fn days_or_hours(left: SignedDuration) -> String {
    match left.as_hours() {
        hours @ 0..48 => counted(hours, "hour"),
        hours => counted(hours / 24, "day"),
    }
}

fn load(certificate: &Path, key: &Path) -> Result<(Arc<ServerConfig>, Option<Validity>), TlsError> {
    let chain = read_chain(certificate)?;
    let private = read_key(key)?;
    let validity = Validity::of(&chain);
    let unusable = |error| match error {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::Mismatch { certificate: certificate.to_owned(), key: key.to_owned() }
        }
        error => TlsError::Unusable { path: certificate.to_owned(), error },
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((Arc::new(config), validity))
}

/// Reads a file in PEM form.
fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    Ok(input::read_text(path, MAX_FILE)?.into_bytes())
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(path)?;
    let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| not_pem(path, Expected::Certificate, &bytes))
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read(path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| not_pem(path, Expected::Key, &bytes))
}

/// The error for a file that does not have what it should have.
fn not_pem(path: &Path, expected: Expected, bytes: &[u8]) -> TlsError {
    const BEGIN: &str = "-----BEGIN ";
    let text = String::from_utf8_lossy(bytes);
    // In the older form the header after the label says it.
    if expected == Expected::Key && text.contains("ENCRYPTED") {
        return TlsError::Encrypted(path.to_owned());
    }
    let label = text.lines().find_map(|line| line.trim().strip_prefix(BEGIN)?.strip_suffix("-----"));
    let found = match (label, expected) {
        (Some("CERTIFICATE"), Expected::Certificate) => DAMAGED.to_owned(),
        (Some(label), _) => {
            let label: String = label.chars().filter(|c| !c.is_control()).take(40).collect();
            format!("it has a {}", label.to_lowercase())
        }
        (None, _) if bytes.is_empty() => "it is empty".to_owned(),
        (None, _) => format!("it has no line that begins with {}", BEGIN.trim_end()),
    };
    TlsError::Pem { path: path.to_owned(), expected, found }
}

/// Reads the names that the certificate at `path` is for.
pub fn certificate_names(path: &Path) -> Result<Vec<String>, TlsError> {
    let chain = read_chain(path)?;
    let own = chain.first().and_then(|der| Certificate::parse(der).ok());
    let damaged = || TlsError::Pem {
        path: path.to_owned(),
        expected: Expected::Certificate,
        found: DAMAGED.to_owned(),
    };
    Ok(own.ok_or_else(damaged)?.names)
}

/// A certificate and its private key, in PEM form.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The private key, PKCS#8.
    pub key: String,
}

/// Makes a certificate authority for a site.
pub fn make_authority(now: Timestamp) -> Result<Pair, TlsError> {
    let key = KeyPair::generate()?;
    let mut params = authority_params();
    set_validity(&mut params, now, AUTHORITY_YEARS.years())?;
    Ok(Pair { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
}

/// Makes a server certificate for `names`, DNS names and IP addresses, that lasts `days` and is signed by the certificate
/// authority with the private key `authority_key`.
pub fn make_server(
    authority_key: &str,
    names: &[String],
    days: u32,
    now: Timestamp,
) -> Result<Pair, TlsError> {
    if let Some(name) = names.iter().find(|name| !is_server_name(name)) {
        return Err(TlsError::Name(name.clone()));
    }
    let issuer = Issuer::new(authority_params(), KeyPair::from_pem(authority_key)?);
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, names.first().map_or("dray", String::as_str));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, now, i64::from(days).days())?;
    Ok(Pair { certificate: params.signed_by(&key, &issuer)?.pem(), key: key.serialize_pem() })
}

/// Whether clients can know a server by `name`: an IP address, a DNS name, or one that begins with `*.`.
fn is_server_name(name: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(domain) => matches!(ServerName::try_from(domain), Ok(ServerName::DnsName(_))),
        None => ServerName::try_from(name).is_ok(),
    }
}

/// What is the same about an authority whenever it signs, so that its key alone is enough to sign with.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, AUTHORITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// From yesterday, because clocks of sites without a network are seldom right.
fn set_validity(params: &mut CertificateParams, now: Timestamp, span: Span) -> Result<(), TlsError> {
    let today = now.to_zoned(jiff::tz::TimeZone::UTC).date();
    let date = |date: jiff::civil::Date| {
        // Months and days of a date are small and positive.
        let (month, day) = (date.month().unsigned_abs(), date.day().unsigned_abs());
        rcgen::date_time_ymd(i32::from(date.year()), month, day)
    };
    params.not_before = date(today.checked_sub(1.day())?);
    params.not_after = date(today.checked_add(span)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_taken_anew_and_nonsense_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = (directory.path().join("c"), directory.path().join("k"));
        let now = Timestamp::now();
        let authority = make_authority(now).unwrap();
        let renew = || {
            let server =
                make_server(&authority.key, &["site.local".into(), "10.0.0.7".into()], 30, now).unwrap();
            fs::write(&certificate, server.certificate).unwrap();
            fs::write(&key, server.key).unwrap();
        };
        renew();
        let tls = Tls::open(&certificate, &key).unwrap();
        let first = tls.config();
        let look = || {
            let mut state = tls.state.lock().unwrap();
            state.looked = Instant::now().checked_sub(LOOK).unwrap();
            state.modified = [None; 2];
            drop(state);
            tls.config()
        };
        renew();
        let second = look();
        assert!(!Arc::ptr_eq(&first, &second));
        fs::write(&key, "nonsense").unwrap();
        assert!(Arc::ptr_eq(&second, &look()));
    }

    #[test]
    fn files_that_cannot_be_used_are_named_with_the_reason() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let now = Timestamp::now();
        let authority = make_authority(now).unwrap();
        let pair = || make_server(&authority.key, &["a".into()], 30, now).unwrap();
        let (one, other) = (pair(), pair());
        for (name, text) in [("crt", one.certificate.as_str()), ("key", &one.key), ("other", &other.key)] {
            fs::write(path(name), text).unwrap();
        }
        fs::write(path("empty"), "").unwrap();
        fs::write(path("text"), "hello").unwrap();
        fs::write(path("der"), [0x30, 0x82, 1, 2]).unwrap();
        fs::write(path("cut"), &one.certificate[..200]).unwrap();
        let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        fs::write(path("locked"), locked).unwrap();
        for (certificate, key, expected) in [
            ("crt", "other", "the private key DIR/other does not belong to the certificate DIR/crt"),
            ("none", "key", "cannot read DIR/none"),
            ("crt", "none", "cannot read DIR/none"),
            (".", "key", "DIR/. is a directory"),
            ("key", "key", "DIR/key is not a certificate in PEM form: it has a private key"),
            ("crt", "crt", "DIR/crt is not a private key in PEM form: it has a certificate"),
            ("empty", "key", "DIR/empty is not a certificate in PEM form: it is empty"),
            (
                "text",
                "key",
                "DIR/text is not a certificate in PEM form: it has no line that begins with -----BEGIN",
            ),
            ("der", "key", "DIR/der "),
            ("cut", "key", "DIR/cut is not a certificate in PEM form: the certificate in it is damaged"),
            ("crt", "locked", "the private key DIR/locked is encrypted"),
        ] {
            let error = Tls::open(&path(certificate), &path(key)).unwrap_err().to_string();
            let expected = expected.replace("DIR", &directory.path().display().to_string());
            assert!(error.starts_with(&expected), "{error}");
        }
    }

    #[test]
    fn the_end_of_a_certificate_is_announced() {
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = (directory.path().join("c"), directory.path().join("k"));
        let first: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let day = |day: i64| first + SignedDuration::from_hours(24 * day);
        let authority = make_authority(day(0)).unwrap();
        let warning = |days: u32, at: i64| {
            let server = make_server(&authority.key, &["a".into()], days, day(0)).unwrap();
            fs::write(&certificate, server.certificate).unwrap();
            fs::write(&key, server.key).unwrap();
            let tls = Tls::open(&certificate, &key).unwrap();
            assert_eq!(tls.not_after(), Some(day(days.into())));
            assert_eq!(tls.is_expired(day(at)), at >= i64::from(days));
            tls.warning(day(at)).unwrap_or_default()
        };
        assert_eq!(warning(825, 700), "");
        assert!(warning(825, 800).ends_with("expires on 2028-04-05T00:00:00Z, in 25 days"));
        // One that lasts a week is not near its end from the first day on.
        assert_eq!(warning(8, 3), "");
        assert!(warning(8, 6).ends_with("in 2 days"));
        assert!(warning(8, 8).contains("has expired on 2026-01-09"));
    }

    #[test]
    fn names_are_checked() {
        let now = Timestamp::now();
        let authority = make_authority(now).unwrap();
        for bad in ["süd", "a b", "", "site:5000", "*.10.0.0.7", "*.*.a"] {
            let refused = make_server(&authority.key, &["site".into(), bad.into()], 30, now);
            assert!(matches!(refused, Err(TlsError::Name(name)) if name == bad), "{bad}");
        }
        assert!(make_server("nonsense", &["site".into()], 30, now).is_err());
    }
}
