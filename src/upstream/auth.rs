//! Proof of identity: none, user name and password, or a token from the token server that the registry names.
//!
//! Credentials belong to the server that the request goes to. They are sent to it, or to the token server that it
//! names in its own answer, and then only over TLS, unless the registry itself has none: whoever can forge that answer
//! could as well ask for the password itself. An answer that came by way of a redirect is never obeyed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::HeaderValue;
use url::Url;

use super::challenge::{Bearer, Challenge};
use super::client::Client;
use super::credential::Credential;
use super::credentials::CredentialStore;
use super::endpoint::{Endpoint, authority};
use super::error::{Identity, Problem, Refusal};
use super::header::{basic_header, bearer_header};
use super::retry::Failure;
use super::token::{self, Token};

/// A token is renewed this long before it ends, so that it does not end on the way.
const MARGIN: Duration = Duration::from_secs(30);

/// What a proof holds for: a repository on a server. Tokens are given per repository.
type Key = (String, String);

/// Gets proofs of identity and keeps them.
#[derive(Debug)]
pub(super) struct Auth {
    client: Arc<Client>,
    credentials: CredentialStore,
    proofs: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<Option<Proof>>>>>,
}

/// What a request is sent with.
#[derive(Clone, Debug)]
struct Proof {
    header: HeaderValue,
    identity: Identity,
    /// When to renew it, and how.
    renewal: Option<(Instant, Bearer)>,
}

impl Proof {
    fn is_fresh(&self) -> bool {
        self.renewal.as_ref().is_none_or(|(when, _)| Instant::now() < *when)
    }
}

impl Auth {
    pub(super) fn new(client: Arc<Client>, credentials: CredentialStore) -> Self {
        Self { client, credentials, proofs: Mutex::default() }
    }

    /// The `Authorization` to send in the first place: what the registry accepted before.
    pub(super) async fn known(&self, endpoint: &Endpoint) -> Result<Option<HeaderValue>, Failure> {
        let slot = self.slot(endpoint);
        let mut proof = slot.lock().await;
        if let Some(stale) = proof.take_if(|proof| !proof.is_fresh())
            && let Some((_, bearer)) = stale.renewal
        {
            *proof = Some(self.token(endpoint, bearer).await?);
        }
        Ok(proof.as_ref().map(|proof| proof.header.clone()))
    }

    /// The `Authorization` that answers `challenges`, after the request with `refused` got 401.
    pub(super) async fn answer(
        &self,
        endpoint: &Endpoint,
        challenges: Vec<Challenge>,
        refused: Option<&HeaderValue>,
    ) -> Result<HeaderValue, Failure> {
        let slot = self.slot(endpoint);
        // Requests for the same repository wait here and share what the first one gets.
        let mut proof = slot.lock().await;
        if let Some(newer) = proof.as_ref().filter(|proof| Some(&proof.header) != refused) {
            return Ok(newer.header.clone());
        }
        let bearer = challenges.iter().find_map(|challenge| match challenge {
            Challenge::Bearer(bearer) => Some(bearer.clone()),
            Challenge::Basic => None,
        });
        let new = match bearer {
            Some(bearer) => self.token(endpoint, bearer).await?,
            None if challenges.contains(&Challenge::Basic) => self.basic(endpoint).await?,
            None => return Err(self.refusal(endpoint, None, String::new())),
        };
        Ok(proof.insert(new).header.clone())
    }

    /// The error for a request that was refused in the end.
    pub(super) fn refusal(&self, endpoint: &Endpoint, by: Option<&str>, detail: String) -> Failure {
        let slot = self.slot(endpoint);
        let identity = match slot.try_lock() {
            Ok(proof) => proof.as_ref().map(|proof| proof.identity.clone()),
            // Another request is getting a new proof at this moment; the refused one was made without.
            Err(_) => None,
        };
        let identity = identity.unwrap_or_else(|| self.anonymous());
        refused(endpoint, by.map_or_else(|| endpoint.server(), str::to_owned), identity, detail)
    }

    fn slot(&self, endpoint: &Endpoint) -> Arc<tokio::sync::Mutex<Option<Proof>>> {
        let key = (endpoint.origin(), endpoint.repository().to_owned());
        let mut proofs = self.proofs.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Arc::clone(proofs.entry(key).or_default())
    }

    fn anonymous(&self) -> Identity {
        Identity::Anonymous { looked_in: self.credentials.looked_in().to_vec() }
    }

    async fn credential(&self, endpoint: &Endpoint) -> Result<(Option<Credential>, Identity), Failure> {
        let found = self.credentials.find(&endpoint.credential_host(), endpoint.repository()).await;
        Ok(match found.map_err(Failure::final_)? {
            Some(found) => (Some(found.credential), Identity::Known { source: found.source }),
            None => (None, self.anonymous()),
        })
    }

    async fn basic(&self, endpoint: &Endpoint) -> Result<Proof, Failure> {
        let (credential, identity) = self.credential(endpoint).await?;
        let header = match &credential {
            Some(Credential::Password { user, password }) => basic_header(user, password.reveal()),
            Some(Credential::Registry(token)) => bearer_header(token.reveal()),
            // An identity token is of use to token servers only.
            Some(Credential::Identity(_)) | None => {
                return Err(refused(endpoint, endpoint.server(), identity, String::new()));
            }
        };
        Ok(Proof { header: header?, identity, renewal: None })
    }

    async fn token(&self, endpoint: &Endpoint, bearer: Bearer) -> Result<Proof, Failure> {
        let (credential, identity) = self.credential(endpoint).await?;
        if let Some(Credential::Registry(token)) = &credential {
            return Ok(Proof { header: bearer_header(token.reveal())?, identity, renewal: None });
        }
        let realm = check_realm(&bearer.realm, endpoint).map_err(Failure::final_)?;
        let answer = token::request(
            self.client.to(&realm),
            &realm,
            &bearer,
            endpoint.repository(),
            credential.as_ref(),
        )
        .await;
        let Token { secret, lifetime } = answer.map_err(|error| match error {
            token::TokenError::Refused { by, detail } => refused(endpoint, by, identity.clone(), detail),
            token::TokenError::Other(Failure { problem, again }) => {
                let problem = Problem::TokenServer { host: authority(&realm), problem: Box::new(problem) };
                Failure { problem, again }
            }
        })?;
        let until_renewal = lifetime.saturating_sub(MARGIN).max(lifetime / 2);
        Ok(Proof {
            header: bearer_header(secret.reveal())?,
            identity,
            renewal: Some((Instant::now() + until_renewal, bearer)),
        })
    }
}

fn refused(endpoint: &Endpoint, by: String, identity: Identity, detail: String) -> Failure {
    let registry = endpoint.credential_host();
    Failure::final_(Problem::Unauthorized(Refusal { by, registry, identity, detail }))
}

/// The token server's URL, if it may be asked: over TLS, or without it where the registry has none either.
fn check_realm(realm: &str, endpoint: &Endpoint) -> Result<Url, Problem> {
    let shown = || realm.chars().take(200).collect::<String>();
    let url: Url = realm.parse().map_err(|error| Problem::Realm(format!("`{}`: {error}", shown())))?;
    let safe = match url.scheme() {
        "https" => true,
        "http" => endpoint.is_plain(),
        _ => false,
    };
    if !safe {
        return Err(Problem::Realm(format!("`{}` is not an https URL", shown())));
    }
    if url.host().is_none() || !url.username().is_empty() || url.password().is_some() {
        return Err(Problem::Realm("the URL has credentials in it".into()));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::endpoint::Endpoints;
    use super::*;

    fn endpoint(plain: bool) -> Endpoint {
        let plain_http = if plain { BTreeSet::from(["r.example".to_owned()]) } else { BTreeSet::new() };
        let endpoints = Endpoints::new(BTreeMap::new(), &plain_http).unwrap();
        endpoints.locate(&"r.example/app".parse().unwrap()).unwrap()
    }

    #[test]
    fn realms_are_https_unless_the_registry_is_not() {
        assert!(check_realm("https://auth.example/token", &endpoint(false)).is_ok());
        assert!(check_realm("http://auth.example/token", &endpoint(true)).is_ok());
        for bad in [
            "http://auth.example/token",
            "/token",
            "file:///etc/passwd",
            "ftp://a/b",
            "https://u:p@a.example/t",
        ] {
            let problem = check_realm(bad, &endpoint(false)).unwrap_err();
            assert!(matches!(problem, Problem::Realm(_)), "{bad}");
            assert!(!problem.to_string().contains("u:p"), "{problem}");
        }
    }

    #[test]
    fn headers_do_not_print() {
        let header = basic_header("user", "hunter2").unwrap();
        assert_eq!(header, "Basic dXNlcjpodW50ZXIy");
        assert_eq!(format!("{header:?}"), "Sensitive");
        assert!(bearer_header("a\nb").is_err());
    }
}
