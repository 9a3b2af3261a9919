//! From one release to the next: what a site has is left out of the bundle, and what it does not need any more goes.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

#[path = "delta/damaged.rs"]
mod damaged;
#[path = "delta/prune.rs"]
mod prune_tests;
mod support;
#[path = "delta/volumes.rs"]
mod volumes;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use dray::oci::Digest;
use serde_json::{Value, json};
use support::{
    command::Run,
    disk::SmallDisk,
    shelf,
    site::{Serve, Site, dray, files_below},
};

const BEFORE: &str = "k0s@v1.36.2+k0s.0";
const AFTER: &str = "k0s@v1.36.3+k0s.2";
const NODES: [&str; 2] = ["linux/amd64", "windows/ltsc2022"];

/// A site that runs the first of two consecutive releases, and the connected side that knows both.
struct Upgrade {
    upstream: Serve,
    site: Site,
    before: PathBuf,
    store: PathBuf,
}

fn definition(sequence: u32, release: &str) -> String {
    format!(
        "apiVersion: dray.dev/v1alpha1\nkind: Bundle\nmetadata: {{name: plant-7, sequence: {sequence}}}\nspec:\n  \
         nodes: [{}]\n  runtimes: [containerd@1.7, containerd@2]\n  releases:\n    - {}\n      with: [calico]\n      programs: elsewhere\n  \
         files:\n    - {{url: 'https://{}', sha256: {}}}\n",
        NODES.join(", "),
        release.replace('@', ": "),
        program(release),
        Digest::sha256(&program_bytes(release)).hex(),
    )
}

/// The address of a program of the release.
fn program(release: &str) -> String {
    format!("example.org/{}/k0s.exe", release.strip_prefix("k0s@").unwrap())
}

fn program_bytes(release: &str) -> Vec<u8> {
    release.bytes().cycle().take(40_000).collect()
}

/// The images of a release, from the catalog.
fn images(release: &str) -> BTreeSet<String> {
    let mut images = dray();
    images.args(["images", "--with", "calico", "--release", release]);
    images.args(NODES.iter().flat_map(|node| ["--node", node]));
    images.succeed().lines().map(str::to_owned).collect()
}

impl Upgrade {
    /// Brings the first release to the site.
    fn new() -> Self {
        let site = Site::new(&definition(1, BEFORE));
        for release in [BEFORE, AFTER] {
            let (address, bytes) = (program(release), program_bytes(release));
            shelf::put_files(&site.path("upstream"), [(&*address, &*bytes)]);
        }
        let upstream = shelf::serve(&site.path("upstream"), &(&images(BEFORE) | &images(AFTER)));
        let before = site.bundle(upstream.address());
        let store = site.path("store");
        site.import(&before, &store).succeed();
        fs::rename(&before, site.path("before.tar")).unwrap();
        fs::write(site.path("bundle.yaml"), definition(2, AFTER)).unwrap();
        site.lock(upstream.address()).succeed();
        Self { upstream, before: site.path("before.tar"), site, store }
    }

    /// Takes the inventory of the store, signed by the site.
    fn inventory(&self, store: &Path) -> PathBuf {
        let inventory = self.site.path("site.inv");
        dray()
            .args(["inventory", "--store"])
            .arg(store)
            .arg("-o")
            .arg(&inventory)
            .arg("--key")
            .arg(self.site.path("plant.key"))
            .succeed();
        inventory
    }

    /// Builds the second release, without what `since` lists.
    fn build(&self, name: &str, since: Option<&Path>) -> PathBuf {
        let bundle = self.site.path(name);
        let mut build = self.site.build(self.upstream.address(), &bundle);
        if let Some(since) = since {
            build.arg("--since").arg(since).arg("--since-trust").arg(self.site.path("plant.pub"));
        }
        build.succeed();
        bundle
    }

    /// Builds the second release as the difference from what the site has.
    fn delta(&self) -> PathBuf {
        self.build("delta.tar", Some(&self.inventory(&self.store)))
    }
}

fn inspect(bundle: &Path) -> Value {
    let text = dray().args(["inspect", "--images", "--format", "json"]).arg(bundle).succeed();
    serde_json::from_str(&text).unwrap()
}

/// The configurations and layers that the images of a bundle consist of.
fn contents(bundle: &Value) -> BTreeSet<String> {
    let images = bundle["imageList"].as_array().unwrap();
    let children = images.iter().flat_map(|image| image["children"].as_array().unwrap());
    let blobs = children.flat_map(|child| {
        // The first is the configuration, and only that is carried of a child without layers.
        let carried = if child["metadataOnly"] == true { 1 } else { usize::MAX };
        child["blobs"].as_array().unwrap().iter().take(carried)
    });
    blobs.map(|digest| digest.as_str().unwrap().to_owned()).collect()
}

fn required(bundle: &Value) -> BTreeSet<String> {
    let required = bundle["requires"].as_array().unwrap().iter();
    required.map(|blob| blob["digest"].as_str().unwrap().to_owned()).collect()
}

/// Every file of a store with its bytes.
fn files(store: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    files_below(store).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn a_delta_carries_only_what_is_new() {
    let upgrade = Upgrade::new();
    let (whole, delta) = (upgrade.build("whole.tar", None), upgrade.delta());
    let (before, after, carried) = (inspect(&upgrade.before), inspect(&whole), inspect(&delta));
    let (old, new) = (contents(&before), contents(&after));
    assert!(old.len() > 20 && !new.is_subset(&old), "{} {}", old.len(), new.len());
    assert_eq!(required(&carried), &old & &new);
    assert_eq!(contents(&carried), new, "what the images consist of does not change");
    let size = |bundle: &Path| fs::metadata(bundle).unwrap().len();
    assert!(size(&delta) < size(&whole) * 2 / 3, "{} {}", size(&delta), size(&whole));
    upgrade.site.verify(&delta).arg("--rebuild").arg(upgrade.site.path("bundle.lock")).succeed();
    let text = dray().arg("inspect").arg(&delta).succeed();
    assert!(text.contains("which the site must have"), "{text}");
}

#[test]
fn sequence_that_the_site_has_is_not_built_again() {
    let upgrade = Upgrade::new();
    let delta = upgrade.delta();
    upgrade.site.import(&delta, &upgrade.store).succeed();
    let inventory = upgrade.inventory(&upgrade.store);
    let again = |sequence| {
        fs::write(upgrade.site.path("bundle.yaml"), definition(sequence, AFTER)).unwrap();
        upgrade.site.lock(upgrade.upstream.address()).succeed();
        let mut build = upgrade.site.build(upgrade.upstream.address(), &upgrade.site.path("again.tar"));
        build.arg("--since").arg(&inventory);
        build
    };
    again(2).fail_with(4).says(&["another bundle `plant-7` with sequence 2", "`metadata.sequence` to 3"]);
    again(1).fail_with(4).says(&["the site has sequence 2 of `plant-7`", "refuse sequence 1 as older"]);
    again(3).succeed();
}

#[test]
fn bundles_are_imported_in_order_of_sequence() {
    let upgrade = Upgrade::new();
    let delta = upgrade.delta();
    let (first, second) = (upgrade.site.path("z.tar"), upgrade.site.path("a.tar"));
    fs::rename(&upgrade.before, &first).unwrap();
    fs::rename(&delta, &second).unwrap();
    let store = upgrade.site.path("fresh");
    upgrade.site.import(&second, &store).arg(&first).succeed();
    let mut inventory = dray();
    inventory.args(["inventory", "--format", "json", "-o"]).arg(upgrade.site.path("fresh.inv"));
    let taken: Value = serde_json::from_str(&inventory.arg("--store").arg(&store).succeed()).unwrap();
    assert_eq!(taken["bundles"][0]["sequence"], 2, "{taken}");
}

#[test]
fn a_delta_makes_the_right_site_whole() {
    let upgrade = Upgrade::new();
    let (whole, delta) = (upgrade.build("whole.tar", None), upgrade.delta());
    upgrade.site.import(&delta, &upgrade.store).succeed();
    // Whoever builds the release again with the site as the upstream pulls every byte of it by the original names.
    let site = Serve::start(&["--store", upgrade.store.to_str().unwrap()]);
    let again = upgrade.site.path("again.tar");
    upgrade.site.build(site.address(), &again).succeed();
    assert!(fs::read(&again).unwrap() == fs::read(&whole).unwrap());
}

#[test]
fn the_wrong_site_stays_as_it_is_and_says_what_it_lacks() {
    let upgrade = Upgrade::new();
    let delta = upgrade.delta();
    let other = upgrade.site.path("other");
    fs::write(upgrade.site.path("bundle.yaml"), definition(1, AFTER).replace("plant-7", "other")).unwrap();
    upgrade.site.lock(upgrade.upstream.address()).succeed();
    let bundle = upgrade.build("other.tar", None);
    upgrade.site.import(&bundle, &other).succeed();
    // It has everything but one layer of what it is to have.
    let missing = required(&inspect(&delta)).pop_first().unwrap();
    let hex = missing.strip_prefix("sha256:").unwrap();
    fs::remove_file(other.join("blobs/sha256").join(&hex[..2]).join(hex)).unwrap();
    let files_before = files(&other);
    upgrade.site.import(&delta, &other).fail_with(4).says(&[
        "leaves out 1 blobs",
        "without --since",
        "the inventory of this very store",
    ]);
    assert!(files(&other) == files_before);
}

#[test]
fn a_delta_is_served_only_beside_what_it_builds_on() {
    let upgrade = Upgrade::new();
    let delta = upgrade.delta();
    let mut alone = dray();
    alone.args(["serve", "--listen", "127.0.0.1:0", "--trust"]).arg(upgrade.site.path("plant.pub"));
    alone
        .arg("--bundle")
        .arg(&delta)
        .fail_with(4)
        .says(&["left out of the bundle", "import it into the store"]);

    let key = upgrade.site.path("plant.pub");
    let both = [&upgrade.before, &delta].map(|bundle| bundle.to_str().unwrap());
    let serve = Serve::start(&["--trust", key.to_str().unwrap(), "--bundle", both[0], "--bundle", both[1]]);
    let whole = upgrade.build("whole.tar", None);
    let again = upgrade.site.path("again.tar");
    upgrade.site.build(serve.address(), &again).succeed();
    assert!(fs::read(&again).unwrap() == fs::read(&whole).unwrap());
}

#[test]
fn the_plan_knows_both_sizes() {
    let upgrade = Upgrade::new();
    let (whole, delta) = (inspect(&upgrade.build("whole.tar", None)), upgrade.delta());
    let plan = |arguments: &[&str]| {
        let mut plan = dray();
        plan.args(["plan", "--format", "json", "--lock"]).arg(upgrade.site.path("bundle.lock"));
        serde_json::from_str::<Value>(&plan.args(arguments).succeed()).unwrap()
    };
    let inventory = upgrade.site.path("site.inv");
    let (all, new) = (plan(&[]), plan(&["--since", inventory.to_str().unwrap()]));
    assert_eq!(all["whole"], all["bytes"]);
    assert_eq!(new["whole"], all["bytes"]);
    let left_out = all["bytes"].as_u64().unwrap() - new["bytes"].as_u64().unwrap();
    assert_eq!(new["required"], left_out);
    assert_eq!(new["blobs"], inspect(&delta)["blobs"]);
    assert_eq!(all["blobs"], whole["blobs"]);
    assert_eq!(new["releases"][0]["whole"], all["releases"][0]["bytes"]);
}

#[test]
fn an_inventory_is_believed_only_as_it_was_made() {
    let upgrade = Upgrade::new();
    let inventory = upgrade.inventory(&upgrade.store);
    dray().args(["keygen", "-o"]).arg(upgrade.site.path("stranger")).succeed();
    let build = |since: &Path, key: &str| {
        let mut build = upgrade.site.build(upgrade.upstream.address(), &upgrade.site.path("never.tar"));
        build.arg("--since").arg(since).arg("--since-trust").arg(upgrade.site.path(key));
        build
    };
    build(&inventory, "stranger.pub").fail_with(3).says(&["not signed by a trusted key"]);
    let mut bytes = fs::read(&inventory).unwrap();
    assert!(bytes.len() < 40 * files(&upgrade.store.join("blobs")).len());
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&inventory, bytes).unwrap();
    build(&inventory, "plant.pub").fail_with(3);
    build(&upgrade.site.path("bundle.lock"), "plant.pub").fail_with(2).says(&["this is no inventory"]);
    assert!(!upgrade.site.path("never.tar").exists());
}

/// `dray prune` that keeps the second release.
fn prune(store: &Path) -> std::process::Command {
    let mut prune = dray();
    prune.args(["prune", "--format", "json", "--keep", AFTER, "--store"]).arg(store);
    prune
}

/// The bytes of content in a store.
fn content(store: &Path) -> u64 {
    files(&store.join("blobs")).values().map(|bytes| bytes.len() as u64).sum()
}

/// What only the first release has.
fn outdated() -> BTreeSet<String> {
    &images(BEFORE) - &images(AFTER)
}

#[test]
fn pruning_frees_what_it_said_and_leaves_the_rest_whole() {
    let upgrade = Upgrade::new();
    let (whole, delta) = (upgrade.build("whole.tar", None), upgrade.delta());
    upgrade.site.import(&delta, &upgrade.store).succeed();
    let serve = Serve::start(&["--store", upgrade.store.to_str().unwrap()]);
    let (before, size) = (files(&upgrade.store), content(&upgrade.store));
    let plan: Value = serde_json::from_str(&prune(&upgrade.store).arg("--dry-run").succeed()).unwrap();
    assert!(files(&upgrade.store) == before, "a dry run changes nothing");
    let removed: BTreeSet<String> = serde_json::from_value(plan["removed"].clone()).unwrap();
    assert_eq!(removed, outdated());
    assert!(!removed.is_empty());

    let done: Value = serde_json::from_str(&prune(&upgrade.store).succeed()).unwrap();
    assert_eq!((&done["removed"], &done["bytes"]), (&plan["removed"], &plan["bytes"]));
    assert_eq!(done["files"], json!([format!("https://{}", program(BEFORE))]));
    assert_eq!(size - content(&upgrade.store), done["bytes"].as_u64().unwrap());
    let again = upgrade.site.path("again.tar");
    upgrade.site.build(serve.address(), &again).succeed();
    assert!(fs::read(&again).unwrap() == fs::read(&whole).unwrap(), "the kept release is whole");
    let lock = |name: &str, release: &str| {
        let definition = upgrade.site.path(name);
        let images = self::definition(3, release);
        fs::write(&definition, images.split("  files:").next().unwrap()).unwrap();
        let mut lock = dray();
        lock.args(["lock", "-f"]).arg(definition).arg("-o").arg(upgrade.site.path("again.lock"));
        lock.args(support::upstream::flags(serve.address()));
        lock
    };
    lock("after.yaml", AFTER).succeed();
    lock("before.yaml", BEFORE).fail_with(4).says(&[outdated().first().unwrap()]);
    let nothing: Value = serde_json::from_str(&prune(&upgrade.store).succeed()).unwrap();
    assert_eq!((&nothing["removed"], &nothing["bytes"]), (&json!([]), &json!(0)));
    for gone in ["k0s@v1.20.1+k0s.0", BEFORE] {
        prune(&upgrade.store).args(["--keep", gone]).fail_with(2).says(&[gone, &format!("it has {AFTER}")]);
    }
}

#[test]
fn what_a_node_needs_is_not_pruned() {
    let upgrade = Upgrade::new();
    upgrade.site.import(&upgrade.delta(), &upgrade.store).succeed();
    let outdated = outdated();
    let held = outdated.first().unwrap();
    let nodes = |kubelet: &str| {
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "w1", "labels": {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}},
            "status": {"nodeInfo": {"kubeletVersion": kubelet}, "images": [{"names": [held]}]},
        });
        let file = upgrade.site.path("nodes.json");
        fs::write(&file, json!({"apiVersion": "v1", "kind": "List", "items": [node]}).to_string()).unwrap();
        file
    };
    let before = files(&upgrade.store);
    let running = nodes("v1.36.2+k0s");
    prune(&upgrade.store)
        .arg("--nodes")
        .arg(running)
        .fail_with(4)
        .says(&["the node w1 still runs v1.36.2+k0s, which needs", &format!("--keep {BEFORE}")]);
    assert!(files(&upgrade.store) == before);
    let upgraded = nodes("v1.36.3+k0s");
    let done = prune(&upgrade.store).arg("--nodes").arg(upgraded).succeed();
    let done: Value = serde_json::from_str(&done).unwrap();
    let removed: BTreeSet<String> = serde_json::from_value(done["removed"].clone()).unwrap();
    assert_eq!(removed.len(), outdated.len() - 1);
    assert!(!removed.contains(held));
}

#[test]
fn a_full_disk_can_be_pruned() {
    let upgrade = Upgrade::new();
    let disk = SmallDisk::mount(upgrade.site.path("disk"), "20m");
    let store = disk.path("store");
    upgrade.site.import(&upgrade.before, &store).succeed();
    upgrade.site.import(&upgrade.build("whole.tar", None), &store).succeed();
    disk.fill();
    let size = content(&store);
    let done: Value = serde_json::from_str(&prune(&store).succeed()).unwrap();
    assert!(content(&store) < size && done["bytes"].as_u64().unwrap() == size - content(&store));
    let removed: BTreeSet<String> = serde_json::from_value(done["removed"].clone()).unwrap();
    assert_eq!((removed, &done["files"]), (outdated(), &json!([format!("https://{}", program(BEFORE))])));
    let verified = dray().args(["log", "verify", "--store"]).arg(&store).succeed();
    assert!(verified.contains("3 receipts"), "the prune is recorded when there is room: {verified}");
}
