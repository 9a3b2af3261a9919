//! Who may push: users with bcrypt passwords, from a file as `htpasswd -B` writes it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use fs_err as fs;
use http::HeaderValue;
use tokio::sync::Semaphore;

use crate::input::{self, DocumentError, InputError, Problem};
use crate::oci::Digest;

/// The largest file of users.
const MAX_FILE: u64 = 1024 * 1024;
/// Passwords that take longer to check than this many rounds (as a power of two) would let anybody stop the server.
const MAX_COST: u32 = 14;
/// How many passwords are checked at once; each takes a processor for tens of milliseconds.
const AT_ONCE: usize = 2;
/// How long a password that was right need not be checked again.
const REMEMBERED: Duration = Duration::from_mins(5);
/// How often the file is looked at for changes.
const LOOK: Duration = Duration::from_secs(2);

/// Why a file of users cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// The file cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// Lines are not those of users.
    #[error(transparent)]
    Lines(#[from] DocumentError),
    /// Nobody could log in.
    #[error("{} has no users; `htpasswd -B` adds one", input::name(.0))]
    Empty(PathBuf),
    /// No random numbers can be had.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// The users of a registry. Changes of the file take effect within seconds.
#[derive(Debug)]
pub struct Users {
    file: PathBuf,
    state: Mutex<State>,
    checks: Semaphore,
    /// Keeps what is remembered of passwords from being of use to anybody else.
    secret: [u8; 16],
}

#[derive(Debug)]
struct State {
    hashes: Arc<HashMap<String, String>>,
    modified: Option<SystemTime>,
    looked: Instant,
    right: HashMap<String, Right>,
}

/// A password that was found right.
#[derive(Debug)]
struct Right {
    /// Which entry of the file it was right for.
    hash: String,
    password: Digest,
    until: Instant,
}

/// Who sent a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Client {
    /// Nobody in particular.
    Anonymous,
    /// This user.
    User(String),
    /// Somebody who says to be a user and is not.
    Impostor,
}

impl Users {
    /// Reads the file of users.
    pub fn open(file: &Path) -> Result<Self, UsersError> {
        let mut secret = [0; 16];
        getrandom::fill(&mut secret).map_err(std::io::Error::other)?;
        let (hashes, modified) = read(file)?;
        let state =
            State { hashes: Arc::new(hashes), modified, looked: Instant::now(), right: HashMap::new() };
        let checks = Semaphore::new(AT_ONCE);
        Ok(Self { file: file.to_owned(), state: Mutex::new(state), checks, secret })
    }

    /// Who the value of an `Authorization` header stands for.
    pub(super) async fn identify(&self, header: Option<&HeaderValue>) -> Client {
        let Some(header) = header else { return Client::Anonymous };
        let Some((user, password)) = credentials(header) else { return Client::Impostor };
        // podman sends an empty user where it has none.
        if user.is_empty() && password.is_empty() {
            return Client::Anonymous;
        }
        if self.check(&user, password).await { Client::User(user) } else { Client::Impostor }
    }

    async fn check(&self, user: &str, password: String) -> bool {
        let fingerprint = Digest::sha256(&[&self.secret, password.as_bytes()].concat());
        let hashes = {
            let mut state = self.lock();
            self.look(&mut state);
            let hash = state.hashes.get(user);
            if let (Some(hash), Some(right)) = (hash, state.right.get(user))
                && right.hash == *hash
                && right.password == fingerprint
                && right.until > Instant::now()
            {
                return true;
            }
            state.hashes.clone()
        };
        // Whoever is unknown is checked against somebody, so that the time it takes tells nothing.
        let known = hashes.get(user).cloned();
        let Some(hash) = known.clone().or_else(|| hashes.values().next().cloned()) else { return false };
        let Ok(_permit) = self.checks.acquire().await else { return false };
        let compared = hash.clone();
        let right =
            tokio::task::spawn_blocking(move || bcrypt::verify(password, &compared).unwrap_or(false)).await;
        let right = right.unwrap_or(false) && known.is_some();
        if right {
            let until = Instant::now() + REMEMBERED;
            self.lock().right.insert(user.to_owned(), Right { hash, password: fingerprint, until });
        }
        right
    }

    /// Reads the file again if it has changed. One that makes no sense is not taken.
    fn look(&self, state: &mut State) {
        if state.looked.elapsed() < LOOK {
            return;
        }
        state.looked = Instant::now();
        let modified = fs::metadata(&self.file).and_then(|metadata| metadata.modified()).ok();
        if modified == state.modified {
            return;
        }
        match read(&self.file) {
            Ok((hashes, modified)) => {
                tracing::info!("{} has changed, {} users", self.file.display(), hashes.len());
                state.hashes = Arc::new(hashes);
                state.modified = modified;
            }
            Err(error) => tracing::warn!("the users stay as they were: {error}"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(file: &Path) -> Result<(HashMap<String, String>, Option<SystemTime>), UsersError> {
    let text = input::read_text(file, MAX_FILE)?;
    let modified = fs::metadata(file).and_then(|metadata| metadata.modified()).ok();
    let hashes = parse(&text).map_err(|problems| DocumentError::all(&input::name(file), problems))?;
    if hashes.is_empty() {
        return Err(UsersError::Empty(file.to_owned()));
    }
    Ok((hashes, modified))
}

/// Reads `user:hash` lines. The error has every line that is wrong.
fn parse(text: &str) -> Result<HashMap<String, String>, Vec<Problem>> {
    let mut hashes = HashMap::new();
    let mut problems = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match user(line) {
            Ok((user, hash)) if hashes.insert(user.to_owned(), hash.to_owned()).is_none() => {}
            Ok((user, _)) => {
                problems.push(Problem { line: index + 1, what: format!("{user} is there twice") });
            }
            Err(what) => problems.push(Problem { line: index + 1, what }),
        }
    }
    if problems.is_empty() { Ok(hashes) } else { Err(problems) }
}

/// The name and the hash of a line.
fn user(line: &str) -> Result<(&str, &str), String> {
    let Some((user, hash)) = line.split_once(':').filter(|(user, _)| !user.is_empty()) else {
        return Err("expected USER:HASH".into());
    };
    let cost = ["$2a$", "$2b$", "$2y$"].iter().find_map(|prefix| hash.strip_prefix(prefix)?.get(..2));
    match cost.and_then(|cost| cost.parse::<u32>().ok()) {
        None => Err(format!("the password of {user} is not bcrypt; use `htpasswd -B`")),
        Some(cost) if cost > MAX_COST => {
            Err(format!("the password of {user} has cost {cost}, at most {MAX_COST} is taken"))
        }
        Some(_) => Ok((user, hash)),
    }
}

/// User and password of a `Basic` authorization.
pub(super) fn credentials(header: &HeaderValue) -> Option<(String, String)> {
    let (scheme, encoded) = header.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(BASE64_STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(user: &str, password: &str) -> HeaderValue {
        let encoded = BASE64_STANDARD.encode(format!("{user}:{password}"));
        HeaderValue::from_str(&format!("Basic {encoded}")).unwrap()
    }

    fn line(user: &str, password: &str) -> String {
        format!("{user}:{}\n", bcrypt::hash(password, 4).unwrap())
    }

    #[tokio::test]
    async fn passwords() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("users");
        fs::write(&file, format!("# site\n\n{}{}", line("ann", "s:cret"), line("bob", "other"))).unwrap();
        let users = Users::open(&file).unwrap();
        let ann = Client::User("ann".into());
        for _ in 0..2 {
            assert_eq!(users.identify(Some(&header("ann", "s:cret"))).await, ann);
            assert_eq!(users.identify(Some(&header("ann", "other"))).await, Client::Impostor);
            assert_eq!(users.identify(Some(&header("eve", "other"))).await, Client::Impostor);
        }
        assert_eq!(users.identify(Some(&header("", ""))).await, Client::Anonymous);
        assert_eq!(users.identify(None).await, Client::Anonymous);
        let bearer = HeaderValue::from_static("Bearer x");
        assert_eq!(users.identify(Some(&bearer)).await, Client::Impostor);

        // A changed password counts, a file that makes no sense does not.
        let change = |text: &str| {
            fs::write(&file, text).unwrap();
            let mut state = users.lock();
            state.modified = None;
            state.looked = Instant::now().checked_sub(LOOK).unwrap();
        };
        change(&line("ann", "new"));
        assert_eq!(users.identify(Some(&header("ann", "s:cret"))).await, Client::Impostor);
        assert_eq!(users.identify(Some(&header("ann", "new"))).await, ann);
        change("nonsense");
        assert_eq!(users.identify(Some(&header("ann", "new"))).await, ann);
    }

    #[test]
    fn lines_that_are_refused() {
        for (text, line, reason) in [
            ("\nann", 2, "USER:HASH"),
            (":x", 1, "USER:HASH"),
            ("ann:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", 1, "htpasswd -B"),
            ("ann:$2y$31$xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", 1, "cost 31"),
            ("a:$2y$05$x\na:$2y$05$y", 2, "twice"),
        ] {
            let problems = parse(text).unwrap_err();
            assert_eq!(problems[0].line, line, "{text}");
            assert!(problems[0].what.contains(reason), "{problems:?}");
        }
    }

    #[test]
    fn every_wrong_line_of_a_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("users");
        fs::write(&file, "ann\n# comment\nbob:{SHA}x\n").unwrap();
        let error = Users::open(&file).unwrap_err().to_string();
        assert!(error.contains("users has 2 errors\n  line 1: ") && error.contains("line 3: "), "{error}");
        for empty in ["", "# nobody yet\n"] {
            fs::write(&file, empty).unwrap();
            let error = Users::open(&file).unwrap_err().to_string();
            assert!(error.contains("users has no users"), "{error}");
        }
        let error = Users::open(&directory.path().join("absent")).unwrap_err().to_string();
        assert!(error.contains("cannot read") && error.contains("absent"), "{error}");
    }

    #[tokio::test]
    async fn files_of_windows_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("users");
        let text = format!("\u{feff}{}", line("ann", "s:cret").replace('\n', "\r\n"));
        let utf16 = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        for bytes in [text.into_bytes(), utf16] {
            fs::write(&file, bytes).unwrap();
            let users = Users::open(&file).unwrap();
            assert_eq!(users.identify(Some(&header("ann", "s:cret"))).await, Client::User("ann".into()));
        }
    }

    proptest! {
        #[test]
        fn headers_never_panic(text in "(Basic )?[ -~]{0,60}") {
            let _ = credentials(&HeaderValue::from_str(&text).unwrap());
        }
    }
}
