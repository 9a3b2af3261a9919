//! Credentials as podman and Docker store them.
//!
//! Sources: containers/image `docs/containers-auth.json.5.md` and `pkg/docker/config/config.go` (path-scoped keys, the
//! order of files); docker/cli `cli/config/configfile` (`credHelpers`, `credsStore`, identity tokens).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::credential::{Credential, Secret};
use super::helper::{self, HelperError};

/// The key that Docker files Docker Hub's credentials under.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// Why credentials cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The file is not JSON of the expected shape. The words of the file are left out: they are secrets.
    #[error(
        "{origin} is not a file of registry credentials: unexpected content in line {line}, column {column}"
    )]
    Json {
        /// The file.
        origin: String,
        /// Where reading it failed.
        line: usize,
        /// Where reading it failed.
        column: usize,
    },
    /// An entry's `auth` is not the base64 form of `user:password`.
    #[error(
        "the credentials for {key} in {origin} are damaged; `podman login` or `docker login` writes them anew"
    )]
    Entry {
        /// The file.
        origin: String,
        /// The entry.
        key: String,
    },
    /// A credential helper failed.
    #[error("no credentials for {server} (configured in {origin}): {error}")]
    Helper {
        /// The file that names the helper.
        origin: String,
        /// The server asked about.
        server: String,
        /// What went wrong.
        error: HelperError,
    },
}

impl CredentialError {
    /// What an operator may do about it.
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::Helper { server, error, .. } => error.hint(server),
            Self::Json { .. } | Self::Entry { .. } => None,
        }
    }
}

/// A credential and where it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) credential: Credential,
    pub(super) source: String,
}

/// What helpers answered, by helper and server.
type Answers = HashMap<(String, String), Option<Credential>>;

/// The credentials of one run: files in the order in which they are asked.
#[derive(Clone, Debug, Default)]
pub struct CredentialStore {
    files: Vec<AuthFile>,
    looked_in: Vec<String>,
    /// Helpers may ask a person, so each is asked once about a server.
    answers: Arc<Mutex<Answers>>,
}

impl CredentialStore {
    /// A store that finds nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a document in the form of podman's `auth.json` or Docker's `config.json`; earlier ones win.
    ///
    /// `origin` is what errors call it, usually its path.
    pub fn add(&mut self, origin: impl Into<String>, document: &[u8]) -> Result<(), CredentialError> {
        let origin = origin.into();
        self.files.push(AuthFile::parse(origin.clone(), document)?);
        self.looked_in.push(origin);
        Ok(())
    }

    /// Notes a place where credentials were looked for in vain, for error messages.
    pub fn add_absent(&mut self, origin: impl Into<String>) {
        self.looked_in.push(origin.into());
    }

    /// Where credentials were looked for.
    pub fn looked_in(&self) -> &[String] {
        &self.looked_in
    }

    /// The credential for a repository on `host`, from the first file that has one.
    pub(super) async fn find(&self, host: &str, repository: &str) -> Result<Option<Found>, CredentialError> {
        for file in &self.files {
            if let Some(found) = self.find_in(file, host, repository).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// A helper for this very host goes before an entry, an entry before a helper for everything.
    async fn find_in(
        &self,
        file: &AuthFile,
        host: &str,
        repository: &str,
    ) -> Result<Option<Found>, CredentialError> {
        if let Some(helper) = file.helpers.get(host) {
            return self.ask(file, helper, host).await;
        }
        if let Some(found) = file.entry(host, repository) {
            return Ok(Some(found));
        }
        match &file.store {
            Some(helper) => self.ask(file, helper, host).await,
            None => Ok(None),
        }
    }

    async fn ask(&self, file: &AuthFile, helper: &str, host: &str) -> Result<Option<Found>, CredentialError> {
        let server = if host == "docker.io" { DOCKER_HUB_KEY } else { host };
        let key = (helper.to_owned(), server.to_owned());
        let mut answers = self.answers.lock().await;
        let answer = if let Some(answer) = answers.get(&key) {
            answer.clone()
        } else {
            let answer = helper::get(helper, server).await.map_err(|error| CredentialError::Helper {
                origin: file.origin.clone(),
                server: server.to_owned(),
                error,
            })?;
            answers.insert(key, answer.clone());
            answer
        };
        let source = format!("docker-credential-{helper}");
        Ok(answer.map(|credential| Found { credential, source }))
    }
}

/// One document of credentials.
#[derive(Clone, Debug)]
struct AuthFile {
    origin: String,
    /// By host, or host and path; podman's files may tell the repositories of a host apart.
    entries: BTreeMap<String, Credential>,
    /// Names of helpers by host.
    helpers: BTreeMap<String, String>,
    /// The helper for all other hosts.
    store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileFields {
    #[serde(default)]
    auths: Option<BTreeMap<String, EntryFields>>,
    #[serde(default)]
    cred_helpers: Option<BTreeMap<String, String>>,
    #[serde(default)]
    creds_store: Option<String>,
}

#[derive(Deserialize)]
struct EntryFields {
    #[serde(default)]
    auth: Option<Secret>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<Secret>,
    #[serde(default)]
    identitytoken: Option<Secret>,
    #[serde(default)]
    registrytoken: Option<Secret>,
}

impl AuthFile {
    fn parse(origin: String, document: &[u8]) -> Result<Self, CredentialError> {
        let fields: FileFields = match serde_json::from_slice(document) {
            Ok(fields) => fields,
            // Docker takes an empty file for none (docker/cli cli/config/configfile/file.go, LoadFromReader); a secret that
            // is mounted and has no content is one.
            Err(_) if document.trim_ascii().is_empty() => FileFields::default(),
            Err(error) => {
                return Err(CredentialError::Json { origin, line: error.line(), column: error.column() });
            }
        };
        let mut entries = BTreeMap::new();
        // Keys that are written as this program looks them up go before old spellings of the same host.
        let (plain, old): (Vec<_>, Vec<_>) =
            fields.auths.unwrap_or_default().into_iter().partition(|(key, _)| *key == normal_key(key));
        for (key, entry) in plain.into_iter().chain(old) {
            match entry.credential() {
                Ok(Some(credential)) => {
                    entries.entry(normal_key(&key)).or_insert(credential);
                }
                // Docker leaves empty entries for hosts whose credentials are in a helper.
                Ok(None) => {}
                Err(Damaged) => return Err(CredentialError::Entry { origin, key }),
            }
        }
        let helpers = fields.cred_helpers.unwrap_or_default();
        Ok(Self {
            origin,
            entries,
            helpers: helpers
                .into_iter()
                .filter(|(_, helper)| !helper.is_empty())
                .map(|(host, helper)| (normal_key(&host), helper))
                .collect(),
            store: fields.creds_store.filter(|helper| !helper.is_empty()),
        })
    }

    /// The entry with the longest path that the repository is under.
    fn entry(&self, host: &str, repository: &str) -> Option<Found> {
        let full = format!("{host}/{repository}");
        let mut key = full.as_str();
        loop {
            if let Some(credential) = self.entries.get(key) {
                return Some(Found { credential: credential.clone(), source: self.origin.clone() });
            }
            key = &key[..key.rfind('/')?];
        }
    }
}

/// An entry that is there but cannot be read.
struct Damaged;

impl EntryFields {
    fn credential(self) -> Result<Option<Credential>, Damaged> {
        let given = |secret: Option<Secret>| secret.filter(|secret| !secret.reveal().is_empty());
        if let Some(token) = given(self.registrytoken) {
            return Ok(Some(Credential::Registry(token)));
        }
        if let Some(token) = given(self.identitytoken) {
            return Ok(Some(Credential::Identity(token)));
        }
        if let Some(auth) = given(self.auth) {
            return decode(auth.reveal()).map(Some);
        }
        match (self.username.filter(|u| !u.is_empty()), given(self.password)) {
            (Some(user), Some(password)) => Ok(Some(Credential::Password { user, password })),
            _ => Ok(None),
        }
    }
}

/// Reads base64 of `user:password`; the password may hold colons, the user's name may not.
fn decode(auth: &str) -> Result<Credential, Damaged> {
    let bytes = Zeroizing::new(STANDARD.decode(auth.trim()).map_err(|_| Damaged)?);
    let text = std::str::from_utf8(&bytes).map_err(|_| Damaged)?;
    let (user, password) = text.split_once(':').ok_or(Damaged)?;
    // Docker's own writer pads with NUL.
    let password = Secret::new(password.trim_end_matches('\0').to_owned());
    Ok(Credential::Password { user: user.to_owned(), password })
}

/// The key as it is looked up: no scheme, no API path, Docker Hub by its one name.
///
/// A key with a scheme names a host only; one without may name a path on it (containers/image
/// `normalizeAuthFileKey`).
fn normal_key(key: &str) -> String {
    let (bare, has_scheme) = match key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")) {
        Some(bare) => (bare, true),
        None => (key, false),
    };
    let bare = bare.trim_end_matches('/');
    let bare = bare.strip_suffix("/v1").or_else(|| bare.strip_suffix("/v2")).unwrap_or(bare);
    let (host, path) = match bare.split_once('/') {
        Some((host, path)) if !has_scheme => (host, format!("/{path}")),
        Some((host, _)) => (host, String::new()),
        None => (bare, String::new()),
    };
    let host = match host.to_ascii_lowercase().as_str() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        other => other.to_owned(),
    };
    host + &path
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn store(documents: &[&str]) -> CredentialStore {
        let mut store = CredentialStore::new();
        for (number, document) in documents.iter().enumerate() {
            store.add(format!("file{number}"), document.as_bytes()).unwrap();
        }
        store
    }

    async fn user(store: &CredentialStore, host: &str, repository: &str) -> String {
        match store.find(host, repository).await.unwrap() {
            Some(Found { credential: Credential::Password { user, password }, source }) => {
                format!("{user}/{}@{source}", password.reveal())
            }
            Some(Found { credential: Credential::Identity(token), .. }) => {
                format!("identity {}", token.reveal())
            }
            Some(Found { credential: Credential::Registry(token), .. }) => {
                format!("registry {}", token.reveal())
            }
            None => "nobody".into(),
        }
    }

    #[tokio::test]
    async fn the_longest_path_wins_and_the_first_file() {
        // a:1, b:2, c:3:4
        let first = r#"{"auths":{"quay.io":{"auth":"YToxCg=="},"quay.io/org":{"auth":"Yjoy"},"quay.io/org/app":{"auth":"YzozOjQ="}}}"#;
        let first = first.replace("YToxCg==", "YTox");
        let second =
            r#"{"auths":{"quay.io":{"auth":"ZDo1"},"ghcr.io":{"auth":"ZDo1"}},"HttpHeaders":{"X":"y"}}"#;
        let store = store(&[&first, second]);
        assert_eq!(user(&store, "quay.io", "other/x").await, "a/1@file0");
        assert_eq!(user(&store, "quay.io", "org/x").await, "b/2@file0");
        assert_eq!(user(&store, "quay.io", "org/app").await, "c/3:4@file0");
        assert_eq!(user(&store, "quay.io", "organisation").await, "a/1@file0");
        assert_eq!(user(&store, "ghcr.io", "x").await, "d/5@file1");
        assert_eq!(user(&store, "evil-quay.io", "org").await, "nobody");
    }

    #[tokio::test]
    async fn old_and_other_spellings() {
        let document = r#"{"auths":{
            "https://index.docker.io/v1/":{"auth":"YTox"},
            "https://ghcr.io":{"username":"b","password":"2"},
            "http://localhost:5000/v2/":{"auth":"Yzoz"},
            "acr.example":{"identitytoken":"it","auth":"MDAwMDo="},
            "r.example":{"registrytoken":"rt"},
            "empty.example":{},
            "Upper.Example":{"auth":"ZDo0"}}}"#;
        let store = store(&[document]);
        for (host, expected) in [
            ("docker.io", "a/1@file0"),
            ("ghcr.io", "b/2@file0"),
            ("localhost:5000", "c/3@file0"),
            ("localhost", "nobody"),
            ("acr.example", "identity it"),
            ("r.example", "registry rt"),
            ("empty.example", "nobody"),
            ("upper.example", "d/4@file0"),
        ] {
            assert_eq!(user(&store, host, "a/b").await, expected, "{host}");
        }
    }

    #[test]
    fn refuses_without_showing_secrets() {
        let mut store = CredentialStore::new();
        let error = store.add("f", br#"{"auths":{"ghcr.io":"hunter2"}}"#).unwrap_err();
        assert!(matches!(error, CredentialError::Json { line: 1, .. }));
        store.add("empty", b" \n").unwrap();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
        let error = store.add("f", br#"{"auths":{"ghcr.io":{"auth":"aHVudGVyMg=="}}}"#).unwrap_err();
        assert!(error.to_string().contains("ghcr.io in f"), "{error}");
        store.add("f", br#"{"auths":{"ghcr.io":{"auth":"YTpodW50ZXIy"}}}"#).unwrap();
        assert!(!format!("{store:?}").contains("hunter2"), "{store:?}");
    }

    proptest! {
        #[test]
        fn never_panics(document in ".{0,200}", key in ".{0,60}") {
            let _ = AuthFile::parse("f".into(), document.as_bytes());
            let _ = normal_key(&key);
            let _ = decode(&key);
        }

        #[test]
        fn normal_keys_are_stable(key in "(https?://)?[a-z.]{1,12}(:[0-9]{2})?(/[a-z0-9]{1,4}){0,3}/?") {
            let once = normal_key(&key);
            prop_assume!(!once.ends_with("/v1") && !once.ends_with("/v2"));
            prop_assert_eq!(normal_key(&once), once);
        }
    }
}
