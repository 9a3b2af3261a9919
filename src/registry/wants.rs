//! Wants: what nodes asked for and did not get. They are kept on disk, bounded, so that a list of them can be carried to
//! where the missing images can be had.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fs_err as fs;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::oci::{Digest, Reference, RepositoryName, Tag};
use crate::store::{Content, write_file};

use super::left_out::{self, LeftOut};
use super::readers;

/// How many different wants are kept. A new one then takes the place of the oldest want of the network that has most.
pub const MAX_WANTS: usize = 5000;
/// How many of them may come from one network: an IPv4 address, or a /64 of IPv6.
const MAX_PER_NETWORK: usize = 1000;
/// The largest file of wants that is read.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// How much of a client's own words is kept.
const MAX_AGENT: usize = 200;
/// How many times the file may be written at once, in [`BURST`]. Beyond that changes wait for the next turn.
const MAX_BURST: u32 = 30;
const BURST: Duration = Duration::from_secs(10);
/// How soon after a `HEAD` the push has to begin whose check it was.
const CHECK: SignedDuration = SignedDuration::from_mins(1);

/// An image that was asked for in vain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Want {
    /// The image.
    pub reference: Reference,
    /// The entry of the image's index that was asked for; `None` if the image itself is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOut>,
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

impl Want {
    /// Describes it for people: `windows(10.0.17763)/amd64 of registry.k8s.io/pause:3.10.2`.
    pub fn what(&self) -> String {
        match &self.left_out {
            Some(entry) => format!("{entry} of {}", self.reference),
            None => self.reference.to_string(),
        }
    }
}

/// Formats wants as a list of images that a definition takes as it is. A comment says what has to be added to the
/// definition besides, so that the image is carried for the node that missed it.
pub fn wants_list(wants: &[Want]) -> String {
    let line = |want: &Want| {
        let comment = match &want.left_out {
            None => String::new(),
            Some(entry) if entry.attestation => {
                format!("  # {entry} was left out: add docker-containerd to `runtimes`")
            }
            Some(entry) if entry.platform.is_empty() => format!("  # {entry} was left out"),
            Some(entry) => format!("  # {entry} was left out: add it to `nodes`"),
        };
        format!("{}{comment}\n", want.reference)
    };
    wants.iter().map(line).collect()
}

/// Formats wants as JSON: what is kept of each, and `what` it is.
pub fn wants_json(wants: &[Want]) -> serde_json::Value {
    #[derive(Serialize)]
    struct Shown<'a> {
        what: String,
        #[serde(flatten)]
        want: &'a Want,
    }
    let shown: Vec<Shown<'_>> = wants.iter().map(|want| Shown { what: want.what(), want }).collect();
    serde_json::json!({ "wants": shown })
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

/// A request for an image that is not here.
#[derive(Clone, Debug)]
pub struct Miss<'a> {
    /// The image.
    pub reference: Reference,
    /// The entry of its index, if the image itself is here.
    pub left_out: Option<LeftOut>,
    /// Where the request came from.
    pub client: IpAddr,
    /// What the client calls itself.
    pub user_agent: &'a str,
    /// Whether it was a `HEAD`, which may be the check before a push.
    pub is_head: bool,
}

/// Remembers what is asked for in vain. The default does so for as long as the program runs.
#[derive(Debug, Default)]
pub struct Wants {
    /// Where it is kept, if it is.
    file: Option<PathBuf>,
    state: Mutex<State>,
    /// Held while the file is written, so that an older state never replaces a newer one.
    writing: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    wants: HashMap<Key, Kept>,
    /// Whether there is something that is not in the file.
    dirty: bool,
    /// When the current burst of writes began, and how many there were.
    burst: Option<(Instant, u32)>,
}

type Key = (Reference, Option<Digest>);

#[derive(Debug)]
struct Kept {
    want: Want,
    /// Whether it was asked for by nothing but `HEAD` since the program started.
    only_heads: bool,
}

impl Wants {
    /// Opens the file of wants, which need not exist.
    pub fn open(file: &Path) -> Result<Self, WantsError> {
        let recorded = read(file)?;
        let kept = |want: Want| (key(&want), Kept { want, only_heads: false });
        let state = State { wants: recorded.wants.into_iter().map(kept).collect(), ..State::default() };
        Ok(Self { file: Some(file.to_owned()), state: Mutex::new(state), writing: Mutex::default() })
    }

    /// Notes that an image was asked for that is not there. Returns whether that is new.
    pub fn note(&self, miss: Miss<'_>) -> bool {
        // Signatures and lists of referrers are looked for by tag as a matter of course; nobody needs them to run.
        if miss.reference.tag().is_some_and(is_derived) {
            return false;
        }
        let now = Timestamp::now();
        let key = (miss.reference.clone(), miss.left_out.as_ref().map(|entry| entry.digest.clone()));
        let mut state = self.lock();
        state.dirty = true;
        let is_new = !state.wants.contains_key(&key);
        if is_new {
            state.make_room(miss.client);
        }
        let kept = state.wants.entry(key).or_insert_with(|| Kept {
            want: Want {
                reference: miss.reference,
                left_out: miss.left_out,
                first: now,
                last: now,
                count: 0,
                client: miss.client,
                user_agent: String::new(),
            },
            only_heads: true,
        });
        kept.want.last = now;
        kept.want.count += 1;
        kept.want.client = miss.client;
        kept.want.user_agent = kept_agent(miss.user_agent);
        kept.only_heads &= miss.is_head;
        is_new
    }

    /// Forgets what a client checked for just before it began to push to the repository `name`. Returns whether there was
    /// something.
    pub fn forget_checks(&self, name: &RepositoryName, client: IpAddr, user_agent: &str) -> bool {
        let (since, user_agent) = (ago(CHECK), kept_agent(user_agent));
        self.forget(|kept| {
            let Kept { want, only_heads } = kept;
            *only_heads
                && want.reference.name() == name
                && (want.client, &want.user_agent) == (client, &user_agent)
                && want.last >= since
        })
    }

    /// Forgets the entries of an image's index that a client just asked for, because it turned out to read the index as a
    /// whole. Returns whether there was something.
    pub(super) fn forget_reading(&self, image: &Reference, client: IpAddr, user_agent: &str) -> bool {
        let reading = SignedDuration::try_from(readers::READING).unwrap_or(SignedDuration::MAX);
        let (since, user_agent) = (ago(reading), kept_agent(user_agent));
        self.forget(|Kept { want, .. }| {
            want.left_out.is_some()
                && want.reference == *image
                && (want.client, &want.user_agent) == (client, &user_agent)
                && want.first >= since
        })
    }

    /// Forgets an image that has come. Returns whether it was wanted.
    pub fn forget_image(&self, reference: &Reference) -> bool {
        self.forget(|kept| kept.want.left_out.is_none() && kept.want.reference == *reference)
    }

    /// What `content` still does not have, in the order of the references. The rest is forgotten.
    pub fn unmet(&self, content: &dyn Content) -> Vec<Want> {
        let all: Vec<Want> = self.lock().wants.values().map(|kept| kept.want.clone()).collect();
        let (unmet, met): (Vec<Want>, Vec<Want>) = all.into_iter().partition(|want| is_unmet(want, content));
        if !met.is_empty() {
            let mut state = self.lock();
            for want in &met {
                // It may have been asked for again, and deleted, since.
                if state.wants.get(&key(want)).is_some_and(|kept| kept.want.last == want.last) {
                    state.wants.remove(&key(want));
                    state.dirty = true;
                }
            }
        }
        sorted(unmet)
    }

    /// Writes what is new to the file, if there is one.
    pub fn save(&self) -> std::io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let recorded = {
            let mut state = self.lock();
            if !std::mem::take(&mut state.dirty) {
                return Ok(());
            }
            sorted(state.wants.values().map(|kept| kept.want.clone()).collect())
        };
        let json = serde_json::to_vec(&Recorded { wants: recorded })?;
        let saved = write_file(file, &json);
        if saved.is_err() {
            self.lock().dirty = true;
        }
        saved
    }

    /// Writes what is new to the file at once, so that `dray wants` shows it, unless that happened too often just now.
    pub fn save_at_once(&self) -> std::io::Result<()> {
        {
            let mut state = self.lock();
            let (began, count) = match state.burst {
                Some((began, count)) if began.elapsed() < BURST => (began, count + 1),
                _ => (Instant::now(), 1),
            };
            state.burst = Some((began, count));
            if count > MAX_BURST {
                return Ok(());
            }
        }
        self.save()
    }

    fn forget(&self, is_over: impl Fn(&Kept) -> bool) -> bool {
        let mut state = self.lock();
        let before = state.wants.len();
        state.wants.retain(|_, kept| !is_over(kept));
        let forgotten = state.wants.len() < before;
        state.dirty |= forgotten;
        forgotten
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes room for one more want of `client`, at the cost of the network that has most: one that asks for what nobody
    /// has cannot displace what others want.
    fn make_room(&mut self, client: IpAddr) {
        if self.wants.len() < MAX_PER_NETWORK {
            return;
        }
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for kept in self.wants.values() {
            *counts.entry(network(kept.want.client)).or_default() += 1;
        }
        let own = network(client);
        let crowded = if counts.get(&own).is_some_and(|count| *count >= MAX_PER_NETWORK) {
            own
        } else if self.wants.len() >= MAX_WANTS {
            counts
                .into_iter()
                .max_by_key(|(network, count)| (*count, Reverse(*network)))
                .map_or(own, |(n, _)| n)
        } else {
            return;
        };
        let of_it = self.wants.iter().filter(|(_, kept)| network(kept.want.client) == crowded);
        let oldest = of_it.min_by_key(|(_, kept)| kept.want.last).map(|(key, _)| key.clone());
        oldest.map(|oldest| self.wants.remove(&oldest));
    }
}

/// What one party is likely to have addresses in.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

fn key(want: &Want) -> Key {
    (want.reference.clone(), want.left_out.as_ref().map(|entry| entry.digest.clone()))
}

fn kept_agent(user_agent: &str) -> String {
    user_agent.chars().take(MAX_AGENT).collect()
}

fn ago(duration: SignedDuration) -> Timestamp {
    Timestamp::now().checked_sub(duration).unwrap_or(Timestamp::MIN)
}

/// The wants in `file` that `content` still does not have, in the order of the references.
pub fn read_wants(file: &Path, content: &dyn Content) -> Result<Vec<Want>, WantsError> {
    let mut wants = read(file)?.wants;
    wants.retain(|want| is_unmet(want, content));
    Ok(sorted(wants))
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

fn sorted(mut wants: Vec<Want>) -> Vec<Want> {
    wants.sort_unstable_by(|a, b| {
        let entry = |want: &'_ Want| {
            want.left_out.as_ref().map(|entry| (entry.platform.clone(), entry.digest.clone()))
        };
        a.reference.cmp(&b.reference).then_with(|| entry(a).cmp(&entry(b)))
    });
    wants
}

/// Whether `content` lacks what was wanted. What cannot be read is not there.
fn is_unmet(want: &Want, content: &dyn Content) -> bool {
    let (name, reference) = (want.reference.name(), &want.reference);
    !match (&want.left_out, reference.digest(), reference.tag()) {
        (Some(entry), ..) => left_out::is_met(content, reference, entry).unwrap_or(false),
        (None, Some(digest), _) => content.manifest(name, digest).is_ok_and(|found| found.is_some()),
        (None, None, Some(tag)) => content.resolve(name, tag).is_ok_and(|found| found.is_some()),
        (None, None, None) => false,
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

    fn miss(reference: &str) -> Miss<'static> {
        let reference = reference.parse().unwrap();
        Miss { reference, left_out: None, client: CLIENT, user_agent: "", is_head: false }
    }

    #[test]
    fn kept_over_a_restart() {
        let (directory, store) = store();
        let file = directory.path().join("wants.json");
        let wants = Wants::open(&file).unwrap();
        let agent = "containerd/2.1 ".repeat(50);
        for nth in 0..3 {
            let is_new = wants.note(Miss { user_agent: &agent, ..miss("registry.k8s.io/pause:3.9") });
            assert_eq!(is_new, nth == 0);
        }
        wants.note(miss("nginx:1.27"));
        let derived = format!("nginx:sha256-{}.sig", "a".repeat(64));
        assert!(!wants.note(miss(&derived)));
        wants.save().unwrap();
        let again = Wants::open(&file).unwrap();
        again.note(miss("nginx:1.27"));
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
        wants.note(miss("nginx:1.27"));
        wants.save().unwrap();
        assert_eq!(names(&wants.unmet(&store)), ["docker.io/library/nginx:1.27"]);
    }

    #[test]
    fn one_client_does_not_displace_the_wants_of_others() {
        let (directory, store) = store();
        let wants = Wants::open(&directory.path().join("wants.json")).unwrap();
        wants.note(miss("other:1"));
        // All of one network, whichever of its addresses is used.
        for n in 0..MAX_WANTS + 10 {
            let client = Ipv6Addr::new(0xfd00, 0, 0, 7, 0, 0, 0, n.try_into().unwrap()).into();
            wants.note(Miss { client, ..miss(&format!("a:{n}")) });
        }
        let found = names(&wants.unmet(&store));
        assert_eq!(found.len(), MAX_PER_NETWORK + 1);
        assert!(found.contains(&"docker.io/library/other:1".to_owned()));
        assert!(!found.contains(&"docker.io/library/a:0".to_owned()));
    }

    #[test]
    fn never_more_than_the_limit() {
        let (directory, store) = store();
        let wants = Wants::open(&directory.path().join("wants.json")).unwrap();
        for n in 0..MAX_WANTS + 10 {
            let client = [10, 0, 0, u8::try_from(n % 20).unwrap()].into();
            wants.note(Miss { client, ..miss(&format!("a:{n}")) });
        }
        let found = names(&wants.unmet(&store));
        assert_eq!(found.len(), MAX_WANTS);
        assert!(found.contains(&format!("docker.io/library/a:{}", MAX_WANTS + 9)));
    }

    #[test]
    fn a_check_is_forgotten_when_its_push_begins() {
        let (_directory, store) = store();
        let wants = Wants::default();
        let check = |reference| Miss { user_agent: "docker/29", is_head: true, ..miss(reference) };
        wants.note(check("quay.io/acme/app:1"));
        wants.note(check("quay.io/acme/other:1"));
        wants.note(Miss { user_agent: "containerd/2", ..check("quay.io/acme/app:2") });
        wants.note(Miss { is_head: false, ..check("quay.io/acme/app:3") });
        wants.note(Miss { client: [10, 0, 0, 1].into(), ..check("quay.io/acme/app:4") });
        let name = "quay.io/acme/app".parse().unwrap();
        assert!(wants.forget_checks(&name, CLIENT, "docker/29"));
        let left = ["acme/app:2", "acme/app:3", "acme/app:4", "acme/other:1"];
        assert_eq!(names(&wants.unmet(&store)), left.map(|name| format!("quay.io/{name}")));
        assert!(!wants.forget_checks(&name, CLIENT, "docker/29"));
    }

    #[test]
    fn a_node_that_also_pushes_keeps_its_wants() {
        let (_directory, store) = store();
        let wants = Wants::default();
        wants.note(Miss { is_head: true, ..miss("a:1") });
        wants.note(miss("a:1"));
        assert!(!wants.forget_checks(&"docker.io/library/a".parse().unwrap(), CLIENT, ""));
        assert_eq!(wants.unmet(&store).len(), 1);
    }

    #[test]
    fn what_has_come_does_not_return_when_it_goes() {
        use crate::oci::{Descriptor, media_type};
        let (directory, store) = store();
        let wants = Wants::open(&directory.path().join("wants.json")).unwrap();
        wants.note(miss("a:1"));
        let bytes = bytes::Bytes::from(format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[]}}"#,
            media_type::OCI_INDEX
        ));
        let (name, tag) = ("docker.io/library/a".parse().unwrap(), "1".parse().unwrap());
        let target = Descriptor::of(media_type::OCI_INDEX, &bytes);
        let writer = store.writer("test", Duration::ZERO).unwrap();
        let mut batch = writer.batch();
        batch.put_manifest(&name, &target.digest, &target.media_type, &bytes).unwrap();
        batch.set_tag(&name, &tag, &target).unwrap();
        batch.commit().unwrap();
        assert!(wants.unmet(&store).is_empty());
        let mut batch = writer.batch();
        batch.delete_tag(&name, &tag).unwrap();
        batch.commit().unwrap();
        assert!(wants.unmet(&store).is_empty());
    }

    #[test]
    fn lines_are_references_and_say_what_to_add() {
        let want = |left_out| Want {
            reference: "registry.k8s.io/pause:3.10.2".parse().unwrap(),
            left_out,
            first: Timestamp::UNIX_EPOCH,
            last: Timestamp::UNIX_EPOCH,
            count: 1,
            client: CLIENT,
            user_agent: String::new(),
        };
        let entry = |platform: &str, attestation| {
            Some(LeftOut { digest: Digest::sha256(b""), platform: platform.into(), attestation })
        };
        let wants = [
            want(None),
            want(entry("windows(10.0.17763)/amd64", false)),
            want(entry("linux/amd64", true)),
            want(entry("", false)),
        ];
        let list = wants_list(&wants);
        let pause = "registry.k8s.io/pause:3.10.2";
        assert_eq!(
            list,
            format!(
                "{pause}\n\
                 {pause}  # windows(10.0.17763)/amd64 was left out: add it to `nodes`\n\
                 {pause}  # the attestation of linux/amd64 was left out: add docker-containerd to `runtimes`\n\
                 {pause}  # an entry without a platform was left out\n"
            )
        );
        let read = crate::catalog::ImageList::parse("wants.txt", &list).unwrap();
        assert_eq!(read.images, [pause.parse().unwrap()]);
        let json = wants_json(&wants[1..2]);
        assert_eq!(json["wants"][0]["what"], format!("windows(10.0.17763)/amd64 of {pause}"));
        assert_eq!(json["wants"][0]["leftOut"]["platform"], "windows(10.0.17763)/amd64");
        assert_eq!(serde_json::from_value::<Want>(json["wants"][0].clone()).unwrap(), wants[1]);
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
