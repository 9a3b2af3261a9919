//! Wants: what nodes asked for and did not get. They are kept on disk, bounded, so that a list of them can be carried to
//! where the missing images can be had.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fs_err as fs;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::oci::{Reference, Tag};
use crate::store::{Content, write_file};

/// How many different wants are kept. Beyond that the one that was not repeated for the longest time is forgotten.
pub const MAX_WANTS: usize = 5000;
/// The largest file of wants that is read.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// How much of a client's own words is kept.
const MAX_AGENT: usize = 200;

/// An image that was asked for in vain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Want {
    /// The image.
    pub reference: Reference,
    /// When it was first asked for.
    pub first: Timestamp,
    /// When it was last asked for.
    pub last: Timestamp,
    /// How often it was asked for.
    pub count: u64,
    /// Who asked for it last.
    pub client: IpAddr,
    /// What that client calls itself.
    #[serde(default)]
    pub user_agent: String,
}

/// The file of wants.
#[derive(Default, Serialize, Deserialize)]
struct Recorded {
    wants: Vec<Want>,
}

/// Why wants cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WantsError {
    /// The file makes no sense.
    #[error("{path} is not a file of wants: {error}; remove it to begin anew")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: serde_json::Error,
    },
    /// The disk, or the permissions on it.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Remembers what is asked for in vain. The default does so for as long as the program runs.
#[derive(Debug, Default)]
pub struct Wants {
    /// Where it is kept, if it is.
    file: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    wants: HashMap<Reference, Want>,
    /// Whether there is something that is not in the file.
    dirty: bool,
}

impl Wants {
    /// Opens the file of wants, which need not exist.
    pub fn open(file: &Path) -> Result<Self, WantsError> {
        let recorded = read(file)?;
        let wants = recorded.wants.into_iter().map(|want| (want.reference.clone(), want)).collect();
        Ok(Self { file: Some(file.to_owned()), state: Mutex::new(State { wants, dirty: false }) })
    }

    /// Notes that `client` asked for an image that is not there.
    pub fn note(&self, reference: Reference, client: IpAddr, user_agent: &str) {
        // Signatures and lists of referrers are looked for by tag as a matter of course; nobody needs them to run.
        if reference.tag().is_some_and(is_derived) {
            return;
        }
        let now = Timestamp::now();
        let mut state = self.lock();
        state.dirty = true;
        if state.wants.len() >= MAX_WANTS && !state.wants.contains_key(&reference) {
            let oldest = state.wants.values().min_by_key(|want| want.last).map(|want| want.reference.clone());
            oldest.map(|oldest| state.wants.remove(&oldest));
        }
        let want = state.wants.entry(reference.clone()).or_insert_with(|| Want {
            reference,
            first: now,
            last: now,
            count: 0,
            client,
            user_agent: String::new(),
        });
        want.last = now;
        want.count += 1;
        want.client = client;
        want.user_agent = user_agent.chars().take(MAX_AGENT).collect();
    }

    /// What `content` still does not have, in the order of the references.
    pub fn unmet(&self, content: &dyn Content) -> Vec<Want> {
        let wants = self.lock().wants.values().cloned().collect();
        unmet(wants, content)
    }

    /// Writes what is new to the file, if there is one.
    pub fn save(&self) -> std::io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let recorded = {
            let mut state = self.lock();
            if !std::mem::take(&mut state.dirty) {
                return Ok(());
            }
            sorted(state.wants.values().cloned().collect())
        };
        let json = serde_json::to_vec(&Recorded { wants: recorded })?;
        let saved = write_file(file, &json);
        if saved.is_err() {
            self.lock().dirty = true;
        }
        saved
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The wants in `file` that `content` still does not have, in the order of the references.
pub fn read_wants(file: &Path, content: &dyn Content) -> Result<Vec<Want>, WantsError> {
    Ok(unmet(read(file)?.wants, content))
}

fn read(file: &Path) -> Result<Recorded, WantsError> {
    match fs::metadata(file) {
        Ok(metadata) if metadata.len() > MAX_BYTES => {
            return Err(std::io::Error::other(format!("{} is too large", file.display())).into());
        }
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Recorded::default()),
        Err(error) => return Err(error.into()),
    }
    let bytes = fs::read(file)?;
    serde_json::from_slice(&bytes).map_err(|error| WantsError::Invalid { path: file.to_owned(), error })
}

fn unmet(mut wants: Vec<Want>, content: &dyn Content) -> Vec<Want> {
    wants.retain(|want| !has(content, &want.reference));
    sorted(wants)
}

fn sorted(mut wants: Vec<Want>) -> Vec<Want> {
    wants.sort_unstable_by(|a, b| a.reference.cmp(&b.reference));
    wants
}

fn has(content: &dyn Content, reference: &Reference) -> bool {
    let name = reference.name();
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => content.manifest(name, digest).is_ok_and(|found| found.is_some()),
        (None, Some(tag)) => content.resolve(name, tag).is_ok_and(|found| found.is_some()),
        (None, None) => false,
    }
}

/// Whether a tag was made from a digest: `sha256-<hex>`, `sha256-<hex>.sig`.
fn is_derived(tag: &Tag) -> bool {
    let hex = tag.as_str().strip_prefix("sha256-").or_else(|| tag.as_str().strip_prefix("sha512-"));
    hex.is_some_and(|hex| hex.len() >= 64 && hex.bytes().take(64).all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::create(&directory.path().join("store")).unwrap();
        (directory, store)
    }

    fn names(wants: &[Want]) -> Vec<String> {
        wants.iter().map(|want| want.reference.to_string()).collect()
    }

    #[test]
    fn kept_over_a_restart() {
        let (directory, store) = store();
        let file = directory.path().join("wants.json");
        let wants = Wants::open(&file).unwrap();
        for _ in 0..3 {
            wants.note("registry.k8s.io/pause:3.9".parse().unwrap(), CLIENT, &"containerd/2.1 ".repeat(50));
        }
        wants.note("nginx:1.27".parse().unwrap(), CLIENT, "");
        let derived = format!("nginx:sha256-{}.sig", "a".repeat(64));
        wants.note(derived.parse().unwrap(), CLIENT, "cosign");
        wants.save().unwrap();
        let again = Wants::open(&file).unwrap();
        again.note("nginx:1.27".parse().unwrap(), CLIENT, "");
        let found = again.unmet(&store);
        assert_eq!(names(&found), ["docker.io/library/nginx:1.27", "registry.k8s.io/pause:3.9"]);
        assert_eq!((found[0].count, found[1].count), (2, 3));
        assert!(found[0].first <= found[0].last && found[1].user_agent.len() == MAX_AGENT);
        assert_eq!(read_wants(&file, &store).unwrap().len(), 2);
    }

    #[test]
    fn without_a_file_they_are_kept_in_memory() {
        let (_directory, store) = store();
        let wants = Wants::default();
        wants.note("nginx:1.27".parse().unwrap(), CLIENT, "");
        wants.save().unwrap();
        assert_eq!(names(&wants.unmet(&store)), ["docker.io/library/nginx:1.27"]);
    }

    #[test]
    fn never_more_than_the_limit() {
        let (directory, store) = store();
        let wants = Wants::open(&directory.path().join("wants.json")).unwrap();
        for n in 0..MAX_WANTS + 10 {
            wants.note(format!("a:{n}").parse().unwrap(), CLIENT, "");
        }
        let found = wants.unmet(&store);
        assert_eq!(found.len(), MAX_WANTS);
        assert!(!names(&found).contains(&"docker.io/library/a:0".to_owned()));
    }

    #[test]
    fn a_broken_file_is_named() {
        let (directory, store) = store();
        let file = directory.path().join("wants.json");
        fs::write(&file, b"{").unwrap();
        assert!(Wants::open(&file).unwrap_err().to_string().contains("wants.json"));
        assert!(read_wants(&file, &store).is_err());
    }
}
