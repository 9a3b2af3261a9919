//! Trusted keys as files: single public keys, or a directory of them with a rule beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::policy::Role;
use super::{KeyError, Policy, PublicKey, TrustError};
use crate::input::{self, DocumentError, InputError, yaml};

/// The name of the rule in a directory of keys.
const POLICY_FILE: &str = "policy.yaml";
/// The largest key or rule that is read, in bytes.
const MAX_BYTES: u64 = 64 * 1024;
/// More keys than any site trusts.
const MAX_KEYS: usize = 1000;

/// Why trusted keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// A directory cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// A file is no public key.
    #[error("{}: {source}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// A directory without a single key.
    #[error("{}: there is no *.pub in this directory; copy the public keys of those who release there", path.display())]
    Empty {
        /// The directory.
        path: PathBuf,
    },
    /// The YAML of the rule is not that of a rule.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The rule makes no sense.
    #[error("{}: {what}", path.display())]
    Policy {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
    /// The keys cannot satisfy the rule.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Document {
    api_version: String,
    kind: String,
    #[serde(default = "one")]
    threshold: usize,
    #[serde(default)]
    roles: BTreeMap<String, RoleEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleEntry {
    keys: Vec<String>,
    #[serde(default = "one")]
    threshold: usize,
}

fn one() -> usize {
    1
}

/// The public keys at `paths`: PEM files, or directories of which every `*.pub` is taken.
pub fn read_keys(paths: &[PathBuf]) -> Result<Vec<PublicKey>, KeyringError> {
    let mut keys = Vec::new();
    for path in paths {
        if path.is_dir() {
            keys.extend(read_directory(path)?.into_values());
        } else {
            keys.push(read_key(path)?);
        }
    }
    Ok(keys)
}

/// The rule that the keys at `paths` make: `threshold` different keys must have signed, and whatever the `policy.yaml`
/// of a directory asks for besides.
pub fn read_policy(paths: &[PathBuf], threshold: usize) -> Result<Policy, KeyringError> {
    let (mut keys, mut roles, mut threshold) = (Vec::new(), Vec::new(), threshold);
    for path in paths {
        if !path.is_dir() {
            keys.push(read_key(path)?);
            continue;
        }
        let named = read_directory(path)?;
        if let Some((asked, of_directory)) = read_rule(&path.join(POLICY_FILE), &named)? {
            threshold = threshold.max(asked);
            roles.extend(of_directory);
        }
        keys.extend(named.into_values());
    }
    Ok(Policy::new(keys, threshold)?.with_roles(roles))
}

/// The keys of a directory by their file names without `.pub`.
fn read_directory(path: &Path) -> Result<BTreeMap<String, PublicKey>, KeyringError> {
    let io = |source| KeyringError::Io { path: path.to_owned(), source };
    let mut keys = BTreeMap::new();
    for entry in std::fs::read_dir(path).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(".pub")) else { continue };
        if keys.len() >= MAX_KEYS {
            return Err(io(io::Error::other(format!("more than {MAX_KEYS} keys"))));
        }
        keys.insert(stem.to_owned(), read_key(&path.join(&name))?);
    }
    if keys.is_empty() {
        return Err(KeyringError::Empty { path: path.to_owned() });
    }
    Ok(keys)
}

fn read_key(path: &Path) -> Result<PublicKey, KeyringError> {
    let text = input::read_text(path, MAX_BYTES)?;
    PublicKey::from_pem(&text).map_err(|source| KeyringError::Key { path: path.to_owned(), source })
}

/// The rule at `path`: how many keys must have signed in all, and the roles. None where there is no such file.
fn read_rule(
    path: &Path,
    keys: &BTreeMap<String, PublicKey>,
) -> Result<Option<(usize, Vec<Role>)>, KeyringError> {
    let wrong = |what: String| KeyringError::Policy { path: path.to_owned(), what };
    let Some(text) = input::read_text_if_present(path, MAX_BYTES)? else { return Ok(None) };
    let document: Document = yaml::parse(&input::name(path), &text)?;
    for (field, found, expected) in
        [("apiVersion", &document.api_version, "dray.dev/v1alpha1"), ("kind", &document.kind, "TrustPolicy")]
    {
        if found != expected {
            return Err(wrong(format!("`{field}` is `{found}`, and this dray reads `{expected}`")));
        }
    }
    let (mut roles, mut placed) = (Vec::new(), BTreeSet::new());
    for (name, entry) in document.roles {
        let mut of_role = BTreeSet::new();
        for stem in &entry.keys {
            let stem = stem.strip_suffix(".pub").unwrap_or(stem);
            let key =
                keys.get(stem).ok_or_else(|| wrong(format!("role `{name}`: there is no {stem}.pub")))?;
            // With two roles one person would approve twice.
            if !placed.insert(key.id()) {
                return Err(wrong(format!("{stem}.pub is named twice; a key has one role")));
            }
            of_role.insert(key.id());
        }
        if entry.threshold == 0 || entry.threshold > of_role.len() {
            let what = format!("role `{name}` needs {} of {} keys", entry.threshold, of_role.len());
            return Err(wrong(what));
        }
        roles.push(Role { name, threshold: entry.threshold, keys: of_role });
    }
    if !roles.is_empty()
        && let Some((stem, _)) = keys.iter().find(|(_, key)| !placed.contains(&key.id()))
    {
        return Err(wrong(format!("{stem}.pub has no role; give it one or take the file away")));
    }
    Ok(Some((document.threshold, roles)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;
    use crate::trust::{Claim, PrivateKey, Signatures};

    struct Keys {
        dir: tempfile::TempDir,
        keys: BTreeMap<&'static str, PrivateKey>,
    }

    impl Keys {
        fn new(names: &[&'static str]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let keys: BTreeMap<_, _> = names.iter().map(|name| (*name, PrivateKey::generate())).collect();
            for (name, key) in &keys {
                std::fs::write(dir.path().join(format!("{name}.pub")), key.public().to_pem().unwrap())
                    .unwrap();
            }
            std::fs::write(dir.path().join("README"), "not a key").unwrap();
            Self { dir, keys }
        }

        fn rule(&self, body: &str) {
            let text = format!("apiVersion: dray.dev/v1alpha1\nkind: TrustPolicy\n{body}");
            std::fs::write(self.dir.path().join("policy.yaml"), text).unwrap();
        }

        fn policy(&self, threshold: usize) -> Result<Policy, KeyringError> {
            read_policy(&[self.dir.path().to_owned()], threshold)
        }

        fn accepts(&self, signers: &[&str]) -> bool {
            let claim = Claim::new(&"bundles.dray.dev/a".parse().unwrap(), &Digest::sha256(b"a"));
            let by =
                |name: &&str| Signatures::create(std::slice::from_ref(&self.keys[*name]), &claim).unwrap();
            let all = signers.iter().map(by).reduce(|a, b| a.with(b).unwrap());
            self.policy(1).unwrap().check(&claim, all.as_ref()).is_ok()
        }
    }

    #[test]
    fn every_public_key_of_a_directory_is_trusted() {
        let keys = Keys::new(&["alice", "bob"]);
        assert_eq!(keys.policy(2).unwrap().keys().len(), 2);
        assert!(keys.accepts(&["bob"]));
        assert!(keys.policy(3).is_err());
    }

    #[test]
    fn a_rule_names_roles() {
        let keys = Keys::new(&["alice", "bob", "carol"]);
        keys.rule("roles:\n  release:\n    keys: [alice, bob.pub]\n  security:\n    keys: [carol]\n");
        assert!(keys.accepts(&["alice", "carol"]));
        assert!(!keys.accepts(&["alice", "bob"]));
        keys.rule("threshold: 3\n");
        assert!(!keys.accepts(&["alice", "carol"]));
        assert!(keys.accepts(&["alice", "bob", "carol"]));
    }

    #[test]
    fn rules_that_make_no_sense_are_refused() {
        let keys = Keys::new(&["alice", "bob"]);
        for (rule, expected) in [
            ("threshold: 3\n", "only 2 trusted keys"),
            ("treshold: 1\n", "treshold"),
            ("roles: {release: {keys: [dave]}}\n", "there is no dave.pub"),
            ("roles: {release: {keys: [alice, bob], threshold: 3}}\n", "needs 3 of 2"),
            ("roles: {release: {keys: [alice]}}\n", "bob.pub has no role"),
            ("roles: {release: {keys: [alice, bob]}, security: {keys: [bob]}}\n", "one role"),
        ] {
            keys.rule(rule);
            let error = keys.policy(1).unwrap_err().to_string();
            assert!(error.contains(expected), "{rule}: {error}");
        }
    }

    #[test]
    fn what_is_no_key_is_named() {
        let keys = Keys::new(&["alice"]);
        std::fs::write(keys.dir.path().join("bad.pub"), "hello").unwrap();
        assert!(keys.policy(1).unwrap_err().to_string().contains("bad.pub"));
        let empty = tempfile::tempdir().unwrap();
        let error = read_policy(&[empty.path().to_owned()], 1).unwrap_err();
        assert!(matches!(error, KeyringError::Empty { .. }));
    }
}
