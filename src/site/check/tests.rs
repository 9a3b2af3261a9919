//! Everything that says what a tag means, or whether a node gets an image, says the same.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::content::{Shelf, Source};
use super::images::SiteRegistry;
use crate::bundle::tests::{Source as Blobs, block_on, build_at};
use crate::bundle::{Bundle, ImportOptions, ServedBundles, import};
use crate::oci::{Digest, NodeKind, Reference};
use crate::registry::{Config, Server};
use crate::resolve::tests::{Table, resolve_with};
use crate::resolve::{Lock, LockedImage};
use crate::select::{Band, Runtime, node_bands};
use crate::store::{Content, Store};
use crate::upstream::{Options, RetryPolicy, Upstream};

const KINDS: [&str; 5] = [
    "linux/amd64",
    "linux/arm64",
    "windows(10.0.17763)/amd64",
    "windows(10.0.20348)/amd64",
    "windows(10.0.26100)/amd64",
];
const RUNTIMES: [&str; 3] = ["containerd@1.6.20", "containerd@1.7.20", "containerd@2.3"];
const REPOSITORIES: [&str; 2] = ["r.io/a", "r.io/b"];
const TAGS: [&str; 2] = ["1", "2"];

/// What an upstream has, in every repository.
struct Roots {
    table: Table,
    /// Indexes and images that a tag may mean.
    tagged: Vec<Digest>,
    /// The same, and the entries of the indexes.
    all: Vec<Digest>,
}

impl Roots {
    fn new() -> Self {
        let mut table = Table::default();
        let mut entries = Vec::new();
        for (platform, layer) in [
            ("linux/amd64", "amd64"),
            ("linux/arm64", "arm64"),
            ("windows(10.0.17763.1)/amd64", "2019"),
            ("windows(10.0.20348.1)/amd64", "2022"),
            ("windows(10.0.26100.1)/amd64", "2025"),
            ("linux/amd64", "other amd64"),
            ("linux/arm64", "unnamed arm64"),
        ] {
            entries.push(table.image(platform, layer));
        }
        let unnamed = &mut entries[6];
        unnamed.as_object_mut().unwrap().remove("platform");
        let whole = table.index(&entries[..5]);
        let other = table.index(&[entries[5].clone(), entries[3].clone()]);
        let bare = table.index(&entries[6..]);
        let nested = table.index(&[bare.clone(), entries[0].clone()]);
        // Under two platforms: tools do that with images that run on both.
        let mut twice = entries[0].clone();
        twice["platform"] = entries[1]["platform"].clone();
        let twice = table.index(&[entries[0].clone(), twice]);
        let roots = [whole, other, bare.clone(), nested, twice, entries[5].clone(), entries[4].clone()];
        let digest = |value: &serde_json::Value| value["digest"].as_str().unwrap().parse::<Digest>().unwrap();
        let all = roots.iter().chain(&entries).map(digest).collect();
        Self { tagged: roots.iter().map(digest).collect(), all, table }
    }

    /// Points every tag of every repository somewhere, and lets pinned references find what they name.
    fn publish(&mut self, tags: &[usize]) {
        for name in REPOSITORIES {
            for (tag, at) in TAGS.iter().zip(tags) {
                let root = serde_json::json!({"digest": self.tagged[at % self.tagged.len()]});
                self.table.tag(&format!("{name}:{tag}"), &root);
            }
            for digest in &self.all {
                let root = serde_json::json!({"digest": digest});
                self.table.tag(&format!("{name}@{digest}"), &root);
                for tag in TAGS.iter().chain(["gone"].iter()) {
                    self.table.tag(&format!("{name}:{tag}@{digest}"), &root);
                }
            }
        }
    }
}

/// An entry of a definition: repository, tag and pin by their numbers, and a bit for each node kind.
#[derive(Clone, Debug)]
struct Listed {
    repository: usize,
    tag: Option<usize>,
    pin: Option<usize>,
    nodes: u8,
}

impl Listed {
    fn reference(&self, roots: &Roots) -> String {
        let tag = self.tag.map(|at| format!(":{}", TAGS.iter().chain(&["gone"]).nth(at).unwrap()));
        let pin = self.pin.map(|at| format!("@{}", roots.all[at % roots.all.len()]));
        format!("{}{}{}", REPOSITORIES[self.repository], tag.unwrap_or_default(), pin.unwrap_or_default())
    }

    fn line(&self, roots: &Roots) -> String {
        let nodes = KINDS.iter().enumerate().filter(|(at, _)| self.nodes & (1 << at) != 0);
        let nodes: Vec<&str> = nodes.map(|(_, kind)| *kind).collect();
        format!("\n- {{ref: \"{}\", nodes: [{}]}}", self.reference(roots), nodes.join(", "))
    }
}

fn listed() -> impl Strategy<Value = Listed> {
    let reference = prop_oneof![
        3 => (0..2usize).prop_map(|tag| (Some(tag), None)),
        4 => (0..3usize, 0..14usize).prop_map(|(tag, pin)| (Some(tag), Some(pin))),
        1 => (0..14usize).prop_map(|pin| (None, Some(pin))),
    ];
    let repository = prop_oneof![3 => Just(0usize), 1 => Just(1usize)];
    (repository, reference, 1..32u8).prop_map(|(repository, (tag, pin), nodes)| Listed {
        repository,
        tag,
        pin,
        nodes,
    })
}

/// A definition, and what the tags mean upstream on the day of its lock.
fn definition() -> impl Strategy<Value = (Vec<Listed>, Vec<usize>)> {
    (proptest::collection::vec(listed(), 1..5), proptest::collection::vec(0..7usize, 2))
}

fn lock_of(roots: &Roots, name: &str, images: &[Listed]) -> Lock {
    let lines: String = images.iter().map(|image| image.line(roots)).collect();
    let more = format!("runtimes: [containerd@1.7.20, containerd@2.3]\nimages:{lines}");
    let references: Vec<String> = images.iter().map(|image| image.reference(roots)).collect();
    let references: Vec<&str> = references.iter().map(String::as_str).collect();
    let mut lock = resolve_with(&roots.table, &KINDS.join(", "), &more, &references).unwrap().lock;
    lock.name = name.parse().unwrap();
    // What is checked is what a lock file says.
    Lock::from_json(&lock.to_json()).unwrap()
}

/// A server of `content`, and what it says as `check --registry` asks it.
struct Served {
    registry: Source,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Served {
    fn new(content: Arc<dyn Content>) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (bound, address) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let config = Config { listen: ([127, 0, 0, 1], 0).into(), ..Config::default() };
                let server = Server::bind(content, config).await.unwrap();
                bound.send(server.local_addr()).unwrap();
                server.run(async { _ = stopped.await }).await;
            });
        });
        let address = address.recv().unwrap().to_string();
        let options = Options {
            plain_http: [address.clone()].into(),
            retry: RetryPolicy { attempts: 1, ..RetryPolicy::default() },
            ..Options::default()
        };
        let url = format!("http://{address}").parse().unwrap();
        let registry = SiteRegistry::new(Upstream::new(options).unwrap(), &url).unwrap();
        Self { registry: Source::Registry(Arc::new(registry)), stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// A bundle and its lock.
type Brought = (PathBuf, Lock);

/// Bundles at a site, in an order: in a store, and served as they are.
struct Site {
    locks: Vec<Lock>,
    store: Arc<Store>,
    bundles: Arc<ServedBundles>,
    _directory: TempDir,
}

impl Site {
    fn new(brought: &[&Brought]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::create(&directory.path().join("store")).unwrap();
        for (bundle, _) in brought {
            import(&Bundle::open(bundle).unwrap(), &store, &ImportOptions::default()).unwrap();
        }
        let bundles = brought.iter().map(|(bundle, _)| Bundle::open(bundle).unwrap()).collect();
        Self {
            locks: brought.iter().map(|(_, lock)| lock.clone()).collect(),
            store: Arc::new(store),
            bundles: Arc::new(ServedBundles::new(bundles).unwrap()),
            _directory: directory,
        }
    }

    /// What is said about each reference, for every node kind and runtime, by each that can be asked.
    fn answers(&self, references: &[Reference]) -> Vec<Vec<Option<String>>> {
        let served = Served::new(self.store.clone());
        let sources = [
            &Source::Locks(self.locks.clone()),
            &Source::Content(self.store.clone()),
            &Source::Content(self.bundles.clone()),
            &served.registry,
        ];
        sources.iter().map(|source| answers(source, references)).collect()
    }

    fn tag(&self, reference: &Reference) -> [Option<Digest>; 3] {
        let (name, tag) = (reference.name(), reference.tag().unwrap());
        let mut tags = crate::oci::Tags::default();
        self.locks.iter().for_each(|lock| tags.add_all(&lock.tags()));
        let of = |content: &dyn Content| content.resolve(name, tag).unwrap().map(|target| target.digest);
        [tags.target(name, tag).map(|target| target.digest.clone()), of(&*self.store), of(&*self.bundles)]
    }
}

fn bands(kind: &NodeKind, runtime: &str) -> Vec<&'static Band> {
    node_bands(kind, &[runtime.parse::<Runtime>().unwrap()])
}

fn answers(source: &Source, references: &[Reference]) -> Vec<Option<String>> {
    let shelf = Shelf::new(source);
    let mut answers = Vec::new();
    for reference in references {
        for kind in KINDS {
            let kind: NodeKind = kind.parse().unwrap();
            for runtime in RUNTIMES {
                let bands = bands(&kind, runtime);
                answers.push(shelf.lacks(std::slice::from_ref(reference), &kind, &bands).unwrap());
            }
        }
    }
    answers
}

/// Every reference that somebody may ask for.
fn references(roots: &Roots) -> (Vec<Reference>, Vec<Reference>) {
    let parse = |text: String| text.parse::<Reference>().unwrap();
    let of =
        |name: &&str| TAGS.iter().chain(&["gone"]).map(|tag| format!("{name}:{tag}")).collect::<Vec<_>>();
    let tags: Vec<Reference> = REPOSITORIES.iter().flat_map(of).map(parse).collect();
    let pinned = |name: &&str| roots.all.iter().map(|digest| format!("{name}@{digest}")).collect::<Vec<_>>();
    let pins = REPOSITORIES.iter().flat_map(pinned).map(parse);
    (tags.clone(), tags.iter().cloned().chain(pins).collect())
}

#[test]
fn pin_under_an_old_host_leaves_the_tag_alone() {
    let mut roots = Roots::new();
    let [index, child] =
        [&roots.tagged[0], &roots.all[7]].map(|digest| serde_json::json!({"digest": digest}));
    let (old, new) = ("k8s.gcr.io/a:1", "registry.k8s.io/a:1");
    let pin = format!("{old}@{}", child["digest"].as_str().unwrap());
    roots.table.tag(new, &index);
    roots.table.tag(&pin, &child);
    let more =
        format!("runtimes: [containerd@2.3]\nimages: [\"{new}\", {{ref: \"{pin}\", nodes: [linux/amd64]}}]");
    let lock = resolve_with(&roots.table, "linux/amd64, windows/ltsc2022", &more, &[]).unwrap().lock;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    block_on(build_at(&path, &lock, &Blobs::of(&roots.table.contents()), &[])).unwrap();
    let site = Site::new(&[&(path, lock)]);
    let names = [old, new].map(|name| name.parse::<Reference>().unwrap());
    let kind: NodeKind = "windows(10.0.20348)/amd64".parse().unwrap();
    let served = [Served::new(site.store.clone()), Served::new(site.bundles.clone())];
    for (source, names) in [
        (&Source::Locks(site.locks.clone()), &names[..]),
        (&Source::Content(site.store.clone()), &names[..]),
        (&Source::Content(site.bundles.clone()), &names[..]),
        (&served[0].registry, &names[..1]),
        (&served[1].registry, &names[..1]),
    ] {
        let lacks = Shelf::new(source).lacks(names, &kind, &bands(&kind, "containerd@2.3"));
        assert_eq!(lacks.unwrap(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 60, ..ProptestConfig::with_cases(12) })]
    #[test]
    fn locks_stores_bundles_and_registries_agree(a in definition(), b in definition()) {
        let mut roots = Roots::new();
        let directory = tempfile::tempdir().unwrap();
        let mut bring = |name: &str, (images, day): &(Vec<Listed>, Vec<usize>)| {
            roots.publish(day);
            let lock = lock_of(&roots, name, images);
            let path = directory.path().join(name);
            block_on(build_at(&path, &lock, &Blobs::of(&roots.table.contents()), &[])).unwrap();
            (path, lock)
        };
        let brought = [bring("a", &a), bring("b", &b)];
        let (first, second) = (&brought[0].1, &brought[1].1);
        let (tags, references) = references(&roots);
        let sites = [[0, 1], [1, 0]].map(|order| Site::new(&order.map(|at| &brought[at])));
        let mut of_orders = Vec::new();
        for site in &sites {
            for tag in &tags {
                let [locks, store, bundles] = site.tag(tag);
                prop_assert_eq!(&locks, &store, "{} in the store", tag);
                prop_assert_eq!(&locks, &bundles, "{} in the bundles", tag);
            }
            let answers = site.answers(&references);
            for (other, source) in answers[1..].iter().zip(["the store", "the bundles", "the registry"]) {
                for (nth, (locks, other)) in answers[0].iter().zip(other).enumerate() {
                    let (reference, rest) =
                        (&references[nth / (KINDS.len() * RUNTIMES.len())], nth % (KINDS.len() * RUNTIMES.len()));
                    let kind = KINDS[rest / RUNTIMES.len()];
                    prop_assert_eq!(locks, other, "{} for {} in {}", reference, kind, source);
                }
            }
            of_orders.push(answers);
        }
        // Whatever the rule is made of, the tag follows the last reference without a digest, or else the only pin.
        for (site, order) in sites.iter().zip([[first, second], [second, first]]) {
            for tag in &tags {
                let images = || order.iter().flat_map(|lock| &lock.images);
                let unpinned = images().rfind(|image| image.reference == *tag);
                let is_pin = |image: &&LockedImage| {
                    (image.reference.name(), image.reference.tag()) == (tag.name(), tag.tag())
                };
                let pins: BTreeSet<&Digest> = images().filter(is_pin).map(|image| &image.root.digest).collect();
                let only = pins.first().filter(|_| pins.len() == 1).copied();
                let expected = unpinned.map(|image| &image.root.digest).or(only);
                let [_, in_store, _] = site.tag(tag);
                prop_assert_eq!(in_store.as_ref(), expected, "{}", tag);
            }
        }
        // The order counts where two references without a digest differ, and nowhere else.
        let moved = |tag: &&Reference| {
            let roots = [first, second].map(|lock| {
                lock.images.iter().find(|image| image.reference == **tag).map(|image| &image.root.digest)
            });
            matches!(roots, [Some(one), Some(other)] if one != other)
        };
        for tag in tags.iter().filter(|tag| !moved(tag)) {
            prop_assert_eq!(sites[0].tag(tag), sites[1].tag(tag), "{}", tag);
        }
        // A pinned reference is found by its digest, and what the proof calls complete is.
        for image in first.images.iter().filter(|image| !first.allowed_missing.iter().any(|allowed| allowed.is_of(&image.reference))) {
            let pinned =
                Reference::new(image.reference.name().clone(), None, Some(image.root.digest.clone()));
            let source = Source::Content(sites[0].store.clone());
            for kind in &image.nodes {
                for runtime in &RUNTIMES[1..] {
                    let lacks = Shelf::new(&source).lacks(std::slice::from_ref(&pinned), kind, &bands(kind, runtime));
                    prop_assert_eq!(lacks.unwrap(), None, "{} for {}", &image.reference, kind);
                }
            }
        }
    }
}
