//! TLS: certificate and key from files, taken anew when they change, and certificates for a site that has none.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use fs_err as fs;
use jiff::{Span, Timestamp, ToSpan as _};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::input::{self, InputError};

/// The largest certificate or key file.
const MAX_FILE: u64 = 1024 * 1024;
/// How often the files are looked at for changes.
const LOOK: Duration = Duration::from_secs(2);
/// The name of a site's certificate authority.
const AUTHORITY: &str = "dray site CA";
/// How long a certificate authority lasts, in years.
const AUTHORITY_YEARS: i64 = 10;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not PEM of what it should be.
    #[error("{path} is not {expected} in PEM form")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
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
    modified: [Option<SystemTime>; 2],
    looked: Instant,
}

impl Tls {
    /// Reads certificate (with the chain after it) and key.
    pub fn open(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let modified = [modified(certificate), modified(key)];
        let state = State { config: load(certificate, key)?, modified, looked: Instant::now() };
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), state: Mutex::new(state) })
    }

    /// What a new connection is to use. Files that make no sense are not taken.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= LOOK {
            state.looked = Instant::now();
            let modified = [modified(&self.certificate), modified(&self.key)];
            if modified != state.modified {
                match load(&self.certificate, &self.key) {
                    Ok(config) => {
                        tracing::info!("{} has changed and is used from now on", self.certificate.display());
                        state.config = config;
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

fn load(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let pem = |path: &Path, expected| TlsError::Pem { path: path.to_owned(), expected };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&read(certificate)?)
        .collect::<Result<_, _>>()
        .map_err(|_| pem(certificate, "a certificate"))?;
    if chain.is_empty() {
        return Err(pem(certificate, "a certificate"));
    }
    let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|_| pem(key, "a private key"))?;
    let unusable = |error| TlsError::Unusable { path: certificate.to_owned(), error };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Reads a file in PEM form.
fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    Ok(input::read_text(path, MAX_FILE)?.into_bytes())
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
        assert!(Tls::open(&certificate, &key).unwrap_err().to_string().contains("not a private key"));
        assert!(Tls::open(&key, &key).unwrap_err().to_string().contains("not a certificate"));
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
