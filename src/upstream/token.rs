//! Asking a token server for a token.
//!
//! Source: distribution `docs/content/spec/auth/token.md` and `oauth.md`.

use std::time::Duration;

use http::StatusCode;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use serde::Deserialize;
use url::Url;
use url::form_urlencoded::Serializer;

use super::body;
use super::challenge::Bearer;
use super::credential::{Credential, Secret};
use super::endpoint::authority;
use super::error::Problem;
use super::header::basic_header;
use super::retry::{Failure, classify};

/// The longest answer of a token server, in bytes. Tokens end up in a header, which servers keep well below this.
const MAX_ANSWER: usize = 64 * 1024;
/// How long a token lasts if its server does not say (the specification's default).
const DEFAULT_LIFETIME: Duration = Duration::from_mins(1);
/// The longest time that a token is believed to last.
const LONGEST_LIFETIME: Duration = Duration::from_hours(24);
/// How long a token server may take for its whole answer.
const TIMEOUT: Duration = Duration::from_mins(1);
/// The name of this program towards token servers.
const CLIENT_ID: &str = "dray";

/// A token and how long it lasts from now.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) secret: Secret,
    pub(super) lifetime: Duration,
}

/// Why there is no token.
#[derive(Debug)]
pub(super) enum TokenError {
    /// The token server does not accept who asks.
    Refused { by: String, detail: String },
    /// Anything else.
    Other(Failure),
}

impl From<Failure> for TokenError {
    fn from(failure: Failure) -> Self {
        Self::Other(failure)
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: Option<Secret>,
    #[serde(default)]
    access_token: Option<Secret>,
    #[serde(default)]
    expires_in: Option<f64>,
}

/// Asks the server at `realm` for a token to read `repository`. A redirect is not followed, because the request may
/// carry the password.
pub(super) async fn request(
    client: &reqwest::Client,
    realm: &Url,
    bearer: &Bearer,
    repository: &str,
    credential: Option<&Credential>,
) -> Result<Token, TokenError> {
    let scope = bearer.scope.clone().unwrap_or_else(|| format!("repository:{repository}:pull"));
    let service = bearer.service.as_deref();
    let request = match credential {
        Some(Credential::Identity(token)) => {
            let mut form = Serializer::new(String::new());
            form.append_pair("grant_type", "refresh_token")
                .append_pair("refresh_token", token.reveal())
                .append_pair("client_id", CLIENT_ID)
                .append_pair("scope", &scope)
                .append_pair("service", service.unwrap_or_default());
            client
                .post(realm.clone())
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form.finish())
        }
        other => {
            let mut url = realm.clone();
            url.query_pairs_mut().extend_pairs(service.map(|s| ("service", s))).append_pair("scope", &scope);
            if let Some(Credential::Password { user, password }) = other {
                url.query_pairs_mut().append_pair("account", user);
                client.get(url).header(AUTHORIZATION, basic_header(user, password.reveal())?)
            } else {
                client.get(url)
            }
        }
    };
    let response = request.timeout(TIMEOUT).send().await.map_err(|error| classify(&error, realm))?;
    let status = response.status();
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        let detail = body::detail(response).await.text;
        return Err(TokenError::Refused { by: authority(realm), detail });
    }
    if status != StatusCode::OK {
        return Err(body::failure(response).await.into());
    }
    let bytes = body::bounded(response, MAX_ANSWER).await?;
    let answer: Answer = serde_json::from_slice(&bytes).map_err(|_| not_a_token())?;
    let secret = answer.token.filter(is_given).or(answer.access_token.filter(is_given));
    Ok(Token { secret: secret.ok_or_else(not_a_token)?, lifetime: lifetime(answer.expires_in) })
}

fn is_given(secret: &Secret) -> bool {
    !secret.reveal().is_empty()
}

fn lifetime(seconds: Option<f64>) -> Duration {
    seconds
        .filter(|seconds| *seconds > 0.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .map_or(DEFAULT_LIFETIME, |given| given.min(LONGEST_LIFETIME))
}

fn not_a_token() -> Failure {
    Failure::final_(Problem::Answer("there is no token in it".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_bounded() {
        for (given, seconds) in [
            (None, 60),
            (Some(300.0), 300),
            (Some(0.0), 60),
            (Some(-5.0), 60),
            (Some(f64::NAN), 60),
            (Some(1e300), 60),
            (Some(1e9), 86400),
        ] {
            assert_eq!(lifetime(given).as_secs(), seconds, "{given:?}");
        }
    }
}
