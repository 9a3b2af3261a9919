//! Build, import, prune and sign, killed at every place where they write, and at random times: what is there afterwards is
//! whole and verified, and the same command run again ends as if nothing had happened.
//!
//! `strace` kills the process as it enters a system call that changes a file. An undisturbed run tells which calls there
//! are; `DRAY_CRASH_POINTS` says how many of them are tried for each command.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use dray::{
    bundle::{Bundle, Media, Recovery, Volume},
    oci::{Descriptor, Digest, Document, RepositoryName, Tag},
    resolve::{Lock, LockedRelease, NeededBy},
    store::{Content as _, Store},
    trust::{Policy, PublicKey},
};
use tempfile::TempDir;

use crate::support::{
    command::Run,
    shelf,
    site::{Serve, Site, dray, files_below},
};

/// How many kills of each command are tried unless the environment says otherwise.
const POINTS: usize = 24;
/// The system calls that change files; `openat` only where it makes one.
const CALLS: &str = "write,pwrite64,writev,pwritev,fallocate,ftruncate,rename,renameat,renameat2,link,linkat,unlink,\
                     unlinkat,mkdir,mkdirat,fsync,fdatasync,openat";
const BEFORE: &str = "k0s@v1.36.2+k0s.0";
const AFTER: &str = "k0s@v1.36.3+k0s.2";

/// Where and how a process is killed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kill {
    /// As a thread enters its so many-th call of this name.
    Call(String, usize),
    /// This long after its start.
    After(Duration),
}

/// A command that is killed.
struct Scenario<'a> {
    name: &'a str,
    /// What is there before; copied for each run.
    state: &'a Path,
    /// The command, in a copy of the state.
    command: &'a dyn Fn(&Path) -> Command,
    /// Panics unless what is there after a kill is whole.
    check: &'a dyn Fn(&Path),
    /// Panics if something is left that costs space for good.
    reclaim: &'a dyn Fn(&Path),
    /// How many kills are tried, unless the environment says otherwise.
    points: usize,
    /// What it is killed by, in turn.
    signals: &'a [&'static str],
}

/// What no program can catch, as when the power goes.
const KILL: &str = "KILL";
/// Ctrl-C.
const INTERRUPT: &str = "INT";
/// The exit code after [`INTERRUPT`].
const INTERRUPTED: i32 = 130;

impl Scenario<'_> {
    /// Kills the command again and again, and says how often.
    fn run(&self) -> String {
        let work = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let undisturbed = self.copy(&work, "undisturbed");
        let began = Instant::now();
        (self.command)(&undisturbed).succeed();
        let took = began.elapsed();
        (self.check)(&undisturbed);
        let expected = files(&undisturbed);

        let wanted = std::env::var("DRAY_CRASH_POINTS").map_or(self.points, |text| text.parse().unwrap());
        let calls = self.calls(&work);
        let mut kills: Vec<Kill> = spread(&calls, wanted * 4 / 5).cloned().collect();
        let timed = wanted.saturating_sub(kills.len());
        kills.extend(
            (1..=timed).map(|nth| {
                Kill::After(took * u32::try_from(nth).unwrap() / u32::try_from(timed + 1).unwrap())
            }),
        );

        let mut killed = 0;
        for (nth, kill) in kills.iter().enumerate() {
            let dir = self.copy(&work, "killed");
            // The loader opens files, too, before the program is there to listen.
            let loads = matches!(kill, Kill::Call(call, _) if call == "openat");
            let signal = if loads { KILL } else { self.signals[nth % self.signals.len()] };
            killed += usize::from(self.kill(&dir, kill, signal));
            (self.check)(&dir);
            if nth % 4 == 3 {
                (self.reclaim)(&dir);
            }
            (self.command)(&dir).succeed();
            (self.check)(&dir);
            let found = files(&dir);
            let names = |files: &BTreeMap<PathBuf, Digest>| files.keys().cloned().collect::<BTreeSet<_>>();
            assert_eq!(
                names(&found),
                names(&expected),
                "{}: {kill:?}: other files than undisturbed",
                self.name
            );
            assert!(found == expected, "{}: {kill:?}: other bytes than undisturbed", self.name);
            fs::remove_dir_all(dir).unwrap();
        }
        // A few are over before their time, and threads share their work differently each time.
        assert!(killed * 2 > kills.len(), "{}: only {killed} of {} were killed", self.name, kills.len());
        let how = if self.signals.contains(&INTERRUPT) { "killed or interrupted" } else { "killed" };
        format!(
            "crashes survived: {} {how} {killed} times, of {} places where it writes and {timed} times in between",
            self.name,
            calls.len()
        )
    }

    fn copy(&self, work: &TempDir, name: &str) -> PathBuf {
        let copy = work.path().join(name);
        Command::new("cp").arg("-a").arg(self.state).arg(&copy).succeed();
        copy
    }

    /// The calls that change a file in an undisturbed run.
    fn calls(&self, work: &TempDir) -> Vec<Kill> {
        let dir = self.copy(work, "observed");
        let log = work.path().join("strace.log");
        strace(&(self.command)(&dir), &log, &[]).succeed();
        let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
        let mut calls = BTreeSet::new();
        for line in fs::read_to_string(&log).unwrap().lines() {
            let Some((thread, rest)) = line.split_once(' ') else { continue };
            let Some((call, arguments)) = rest.trim_start().split_once('(') else { continue };
            if call.is_empty() || !call.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                continue;
            }
            let count = counts.entry((thread.to_owned(), call.to_owned())).or_default();
            *count += 1;
            let ours = arguments.contains(dir.to_str().unwrap());
            if ours && (call != "openat" || arguments.contains("O_CREAT")) {
                calls.insert(Kill::Call(call.to_owned(), *count));
            }
        }
        assert!(!calls.is_empty(), "{} writes nothing", self.name);
        fs::remove_dir_all(dir).unwrap();
        calls.into_iter().collect()
    }

    /// Runs the command and kills it. Whether it was killed before it had ended.
    fn kill(&self, dir: &Path, kill: &Kill, signal: &str) -> bool {
        let mut command = (self.command)(dir);
        let code = match kill {
            Kill::Call(call, nth) => {
                let inject = format!("inject={call}:signal={signal}:when={nth}");
                strace(&command, Path::new("/dev/null"), &["-e", &inject]).finish().code
            }
            Kill::After(time) => {
                let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
                std::thread::sleep(*time);
                Command::new("sh")
                    .args(["-c", r#"kill -s "$1" "$2""#, "sh", signal, &child.id().to_string()])
                    .finish();
                // What ends a program that has not begun to listen to it is the signal itself.
                child.wait().unwrap().code().unwrap_or(INTERRUPTED)
            }
        };
        if signal == INTERRUPT {
            assert!([0, INTERRUPTED].contains(&code), "{}: {kill:?}: ended with {code}", self.name);
            let left = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
            let left: Vec<_> = left.filter(|path| path.extension().is_some_and(|e| e == "repair")).collect();
            assert!(left.is_empty(), "{}: {kill:?}: left {left:?}", self.name);
        }
        code != 0
    }
}

/// `count` of `all`, evenly spread; all of them if there are no more.
fn spread<T>(all: &[T], count: usize) -> impl Iterator<Item = &T> {
    let count = count.min(all.len());
    (0..count).map(move |nth| &all[nth * all.len() / count])
}

/// The command under strace, which watches [`CALLS`].
fn strace(command: &Command, log: &Path, arguments: &[&str]) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-y", "-o"]).arg(log).args(["-e", &format!("trace={CALLS}")]).args(arguments);
    strace.arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => strace.env(key, value),
            None => strace.env_remove(key),
        };
    }
    strace
}

/// Every file below `dir` but locks, and the records of imports, which say when they were made.
fn files(dir: &Path) -> BTreeMap<PathBuf, Digest> {
    let lasting = files_below(dir).into_iter().filter(|path| !path.iter().any(|part| part == "imports"));
    let digest = |path: PathBuf| {
        let digest = Digest::sha256(&fs::read(&path).unwrap());
        (path.strip_prefix(dir).unwrap().to_owned(), digest)
    };
    lasting.map(digest).collect()
}

/// Panics unless all that can be asked for in the store is there and is what its digest says. Gives the tags.
fn whole(store: &Path) -> BTreeMap<(RepositoryName, Tag), Descriptor> {
    let Ok(store) = Store::open(store) else { return BTreeMap::new() };
    let mut tags = BTreeMap::new();
    for name in store.repositories(None, usize::MAX).unwrap() {
        for tag in store.tags(&name, None, usize::MAX).unwrap().unwrap_or_default() {
            let target = store.resolve(&name, &tag).unwrap().expect("a tag that is listed");
            complete(&store, &name, &target.digest, true);
            tags.insert((name.clone(), tag), target);
        }
        for digest in store.manifests(&name).unwrap() {
            complete(&store, &name, &digest, false);
        }
    }
    tags
}

/// Panics unless the manifest and its blobs are there, and all of an index that a tag leads to.
fn complete(store: &Store, name: &RepositoryName, digest: &Digest, tagged: bool) {
    let manifest = store.manifest(name, digest).unwrap();
    let manifest = manifest.unwrap_or_else(|| panic!("{name} has no {digest}"));
    match Document::parse(Some(&manifest.media_type), manifest.bytes).unwrap() {
        Document::Image(image) => {
            for blob in image.blobs() {
                // Its first byte leaves only after all of it has been hashed.
                let found = store.blob(name, &blob.digest).unwrap();
                assert!(
                    found.is_some_and(|found| found.size() == blob.size),
                    "{name} has no {}",
                    blob.digest
                );
            }
        }
        // The index of a bundle names images of other repositories.
        Document::Index(index) if tagged && !name.as_str().starts_with("bundles.dray.dev/") => {
            index.manifests.iter().for_each(|entry| complete(store, name, &entry.digest, true));
        }
        Document::Index(_) => {}
    }
}

/// A connected side with two releases of twelve images each, and a site.
struct World {
    site: Site,
    upstream: Serve,
    key: PublicKey,
}

fn images(version: &str) -> Vec<String> {
    (0..12).map(|nth| format!("registry.k8s.io/system/part-{nth:02}:{version}")).collect()
}

impl World {
    fn new() -> Self {
        let site = Site::new("");
        let all = [images("v1"), images("v2")].concat();
        let upstream = shelf::serve(&site.path("upstream"), &all);
        let key = PublicKey::from_pem(&fs::read_to_string(site.path("plant.pub")).unwrap()).unwrap();
        fs::create_dir(site.path("state")).unwrap();
        Self { site, upstream, key }
    }

    fn state(&self) -> PathBuf {
        self.site.path("state")
    }

    /// Makes `bundle.lock` of the images of one release.
    fn lock(&self, sequence: u64, release: &str, version: &str) {
        let text = format!(
            "apiVersion: dray.dev/v1alpha1\nkind: Bundle\nmetadata: {{name: plant-7, sequence: {sequence}}}\n\
             spec:\n  nodes: [linux/amd64, windows/ltsc2022]\n  images: [{}]\n",
            images(version).join(", ")
        );
        fs::write(self.site.path("bundle.yaml"), text).unwrap();
        self.site.lock(self.upstream.address()).succeed();
        let path = self.site.path("bundle.lock");
        let mut lock = Lock::from_json(&fs::read(&path).unwrap()).unwrap();
        lock.releases = vec![LockedRelease { release: release.to_owned(), with: Vec::new(), programs: None }];
        lock.images.iter_mut().for_each(|image| {
            image.needed_by =
                vec![NeededBy::Component { component: "system".into(), release: release.parse().unwrap() }];
        });
        fs::write(path, lock.to_json()).unwrap();
    }

    fn build(&self, bundle: &Path) -> Command {
        let mut build = self.site.build(self.upstream.address(), bundle);
        build.args(["--concurrency", "1"]);
        build
    }

    /// Builds both releases and imports the first into the store of the state.
    fn imported(&self) -> (PathBuf, PathBuf) {
        let (first, second) = (self.site.path("first.tar"), self.site.path("second.tar"));
        self.lock(1, BEFORE, "v1");
        self.build(&first).succeed();
        self.lock(2, AFTER, "v2");
        self.build(&second).succeed();
        self.site.import(&first, &self.state().join("store")).succeed();
        (first, second)
    }

    fn prune(store: &Path, keep: &[&str]) -> Command {
        let mut prune = dray();
        prune.args(["prune", "--grace", "0", "--store"]).arg(store);
        prune.args(keep.iter().flat_map(|release| ["--keep", release]));
        prune
    }

    /// Whether the bundle is whole and signed by the key of the site.
    fn is_good(&self, bundle: &Path) -> bool {
        let policy = Policy::new(vec![self.key.clone()], 1).unwrap();
        Bundle::open(bundle).is_ok_and(|bundle| {
            bundle.check_signatures(&policy).is_ok() && bundle.verify_blobs(2, &|_| ()).is_ok()
        })
    }
}

#[test]
fn a_build_that_is_killed_leaves_the_old_bundle_or_the_new() {
    let world = World::new();
    // An unfinished build of another lock is in the way, and a finished one is to be replaced.
    let (_, second) = world.imported();
    let first = world.site.path("first.tar");
    fs::remove_dir_all(world.state()).unwrap();
    fs::create_dir(world.state()).unwrap();
    fs::copy(&first, world.state().join("bundle.tar")).unwrap();
    fs::write(world.state().join("bundle.tar.partial"), vec![0xff; 400_000]).unwrap();
    let (old, new) = (fs::read(&first).unwrap(), fs::read(&second).unwrap());
    let scenario = Scenario {
        name: "build",
        state: &world.state(),
        command: &|dir| world.build(&dir.join("bundle.tar")),
        check: &|dir| {
            let found = fs::read(dir.join("bundle.tar")).unwrap();
            assert!(found == old || found == new, "neither the old bundle nor the new one");
        },
        reclaim: &|_| (),
        points: POINTS,
        signals: &[KILL],
    };
    println!("{}", scenario.run());
}

#[test]
fn an_import_that_is_killed_has_brought_all_or_nothing() {
    let world = World::new();
    let (_, second) = world.imported();
    let old = whole(&world.state().join("store"));
    let new = images("v2");
    // What a prune leaves of the store as it was.
    let pruned = world.site.path("pruned");
    Command::new("cp").arg("-a").arg(world.state().join("store")).arg(&pruned).succeed();
    World::prune(&pruned, &[BEFORE]).succeed();
    let pruned = files(&pruned);
    let scenario = Scenario {
        name: "import",
        state: &world.state(),
        command: &|dir| {
            let mut import = world.site.import(&second, &dir.join("store"));
            import.args(["--concurrency", "1"]);
            import
        },
        check: &|dir| {
            let tags = whole(&dir.join("store"));
            let come = tags.keys().filter(|(name, tag)| new.contains(&format!("{name}:{tag}"))).count();
            assert!(come == 0 || come == new.len(), "{come} of {} images are there", new.len());
            assert!(old.iter().all(|(tag, target)| tags.get(tag) == Some(target)), "an old tag has changed");
            dray().args(["log", "verify", "--store"]).arg(dir.join("store")).succeed();
        },
        reclaim: &|dir| {
            let store = dir.join("store");
            let brought = Store::open(&store).unwrap().imports().unwrap().len() > 1;
            if !brought && !store.join("publish.json").exists() {
                World::prune(&store, &[BEFORE]).succeed();
                let left: Vec<_> =
                    files(&store).into_keys().filter(|path| !pruned.contains_key(path)).collect();
                assert!(left.is_empty(), "a prune leaves what nobody needs: {left:?}");
                assert_eq!(files(&store).len(), pruned.len());
            }
        },
        points: POINTS,
        signals: &[KILL],
    };
    println!("{}", scenario.run());
}

#[test]
fn a_prune_that_is_killed_leaves_whole_images_and_the_next_one_takes_the_rest() {
    let world = World::new();
    let (_, second) = world.imported();
    let store = world.state().join("store");
    world.site.import(&second, &store).succeed();
    let kept: BTreeMap<_, _> =
        whole(&store).into_iter().filter(|((_, tag), _)| tag.as_str() == "v2").collect();
    assert_eq!(kept.len(), images("v2").len());
    let scenario = Scenario {
        name: "prune",
        state: &world.state(),
        command: &|dir| World::prune(&dir.join("store"), &[AFTER]),
        check: &|dir| {
            let tags = whole(&dir.join("store"));
            assert!(kept.iter().all(|(tag, target)| tags.get(tag) == Some(target)), "a kept image is gone");
        },
        reclaim: &|_| (),
        points: POINTS,
        signals: &[KILL],
    };
    println!("{}", scenario.run());
}

#[test]
fn a_signing_that_is_killed_is_finished_and_nothing_half_signed_passes() {
    let world = World::new();
    world.imported();
    fs::remove_dir_all(world.state()).unwrap();
    fs::create_dir(world.state()).unwrap();
    fs::copy(world.site.path("second.tar"), world.state().join("bundle.tar")).unwrap();
    dray().args(["keygen", "-o"]).arg(world.site.path("other")).succeed();
    let scenario = Scenario {
        name: "sign",
        state: &world.state(),
        command: &|dir| {
            let mut sign = dray();
            sign.arg("sign").arg(dir.join("bundle.tar")).arg("--key").arg(world.site.path("other.key"));
            sign
        },
        check: &|dir| {
            let bundle = dir.join("bundle.tar");
            // While the tail is being written there is one beside the bundle, from which the next run goes on.
            assert!(world.is_good(&bundle) || dir.join("bundle.tar.tail").exists());
        },
        reclaim: &|_| (),
        points: POINTS,
        signals: &[KILL],
    };
    println!("{}", scenario.run());
}

/// Builds `bundle` in volumes, with recovery files.
fn build_protected(world: &World, bundle: &Path) -> Command {
    let mut build = world.build(bundle);
    build.args(["--volume-size", "220kB", "--parity", "60%"]);
    build
}

#[test]
fn a_build_of_volumes_that_is_killed_or_interrupted_names_only_what_is_whole() {
    let world = World::new();
    // The volumes of an older release are to be replaced.
    world.lock(1, BEFORE, "v1");
    build_protected(&world, &world.state().join("plant.tar")).succeed();
    world.lock(2, AFTER, "v2");
    let scenario = Scenario {
        name: "build with parity",
        state: &world.state(),
        command: &|dir| build_protected(&world, &dir.join("plant.tar")),
        check: &|dir| {
            for (path, _) in files(dir) {
                let path = dir.join(path);
                if path.extension().is_some_and(|extension| extension == "tar") {
                    match Recovery::open(&path).unwrap() {
                        Some(recovery) => recovery.verify(&|_| ()).unwrap(),
                        None => Volume::open(&path).unwrap().verify(&|_| ()).unwrap(),
                    }
                }
            }
            // While they are being named there are some of both, and then they are no bundle.
            let media = Media::open(&dir.join("plant.tar"));
            if media.is_ok_and(|media| media.absent().is_empty()) {
                assert!(world.is_good(&dir.join("plant.tar")));
            }
        },
        reclaim: &|_| (),
        points: 8,
        signals: &[KILL, INTERRUPT],
    };
    println!("{}", scenario.run());
}

#[test]
fn a_repair_that_is_killed_or_interrupted_leaves_each_file_as_it_was_or_whole() {
    let world = World::new();
    world.lock(1, BEFORE, "v1");
    build_protected(&world, &world.state().join("plant.tar")).succeed();
    let good = files(&world.state());
    let volumes: Vec<PathBuf> = good.keys().map(|path| world.state().join(path)).collect();
    let (lost, damaged) = (&volumes[1], [&volumes[0], volumes.last().unwrap()]);
    fs::remove_file(lost).unwrap();
    for path in damaged {
        let mut bytes = fs::read(path).unwrap();
        bytes[60_000..64_000].fill(0xaa);
        fs::write(path, bytes).unwrap();
    }
    let before = files(&world.state());
    let scenario = Scenario {
        name: "repair",
        state: &world.state(),
        command: &|dir| {
            let mut repair = dray();
            repair.arg("repair").arg(dir);
            repair
        },
        check: &|dir| {
            for (path, digest) in files(dir) {
                let unnamed = path.extension().is_some_and(|extension| extension == "repair");
                let known = good.get(&path) == Some(&digest) || before.get(&path) == Some(&digest);
                assert!(unnamed || known, "{} is neither what it was nor whole", path.display());
            }
        },
        reclaim: &|_| (),
        points: 8,
        signals: &[KILL, INTERRUPT],
    };
    println!("{}", scenario.run());
}
