//! `Authorization` headers, kept out of logs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use zeroize::Zeroizing;

use super::error::Problem;
use super::retry::Failure;

/// `Authorization: Basic` for a user name and a password.
pub(super) fn basic_header(user: &str, password: &str) -> Result<HeaderValue, Failure> {
    let pair = Zeroizing::new(format!("{user}:{password}"));
    secret_header(&Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes()))))
}

/// `Authorization: Bearer` for a token.
pub(super) fn bearer_header(token: &str) -> Result<HeaderValue, Failure> {
    secret_header(&Zeroizing::new(format!("Bearer {token}")))
}

/// A header whose value is left out of logs.
fn secret_header(value: &str) -> Result<HeaderValue, Failure> {
    let mut header = HeaderValue::from_str(value).map_err(|_| {
        Failure::final_(Problem::Answer("the token has characters that no token may have".into()))
    })?;
    header.set_sensitive(true);
    Ok(header)
}
