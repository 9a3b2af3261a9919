//! `dray prune`: what stays and why, what is recorded, and that a dry run writes nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use dray::oci::Reference;
use dray::store::{Content as _, Store};
use serde_json::{Value, json};

use crate::support::{
    command::Run,
    disk::SmallDisk,
    site::{Serve, dray},
};
use crate::{AFTER, Upgrade, outdated, prune};

fn prune_for_people(store: &Path) -> Command {
    let mut prune = dray();
    prune.args(["prune", "--keep", AFTER, "--store"]).arg(store);
    prune
}

fn json_of(command: &mut Command) -> Value {
    serde_json::from_str(&command.succeed()).unwrap()
}

#[test]
fn image_of_a_pod_stays_and_every_reason_is_given() {
    let upgrade = Upgrade::new();
    upgrade.site.import(&upgrade.delta(), &upgrade.store).succeed();
    let outdated: Vec<String> = outdated().into_iter().collect();
    let [init, by_manifest, by_config, on_disk] = [0, 1, 2, 3].map(|nth| outdated[nth].as_str());
    let store = Store::open(&upgrade.store).unwrap();
    // A container runtime names the manifest that it took, or its configuration.
    let first_child = |image: &str| -> (String, Value) {
        let image: Reference = image.parse().unwrap();
        let read = |digest: &str| -> Option<Value> {
            let manifest = store.manifest(image.name(), &digest.parse().unwrap()).unwrap()?;
            serde_json::from_slice(&manifest.bytes).unwrap()
        };
        let root = store.resolve(image.name(), image.tag().unwrap()).unwrap().unwrap().digest;
        let index = read(&root.to_string()).unwrap();
        let mut children =
            index["manifests"].as_array().unwrap().iter().map(|entry| entry["digest"].as_str().unwrap());
        children.find_map(|child| Some((child.to_owned(), read(child)?))).unwrap()
    };
    let manifest = format!("site/x@{}", first_child(by_manifest).0);
    let config = &first_child(by_config).1["config"]["digest"];
    let pods = json!({"kind": "List", "items": [
        {"kind": "Pod", "metadata": {"namespace": "apps", "name": "one"},
            "spec": {"initContainers": [{"image": init}], "containers": [{"image": "x:1"}]},
            "status": {"containerStatuses": [{"image": "x:1", "imageID": manifest}]}},
        {"kind": "Pod", "metadata": {"namespace": "apps", "name": "two"},
            "status": {"containerStatuses": [{"image": "sha256:00", "imageID": config}]}},
    ]});
    let nodes = json!({"kind": "Node", "metadata": {"name": "w1", "labels": {"kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64"}},
        "status": {"nodeInfo": {"kubeletVersion": "v1.36.3+k0s"}, "images": [{"names": [on_disk]}]}});
    let [pods_file, nodes_file] = ["pods.json", "nodes.json"].map(|name| upgrade.site.path(name));
    fs::write(&pods_file, pods.to_string()).unwrap();
    fs::write(&nodes_file, nodes.to_string()).unwrap();
    let plan = |mut prune: Command| {
        prune.arg("--dry-run").arg("--keep-observed").arg(&pods_file).arg("--nodes").arg(&nodes_file);
        prune
    };
    let planned = json_of(&mut plan(prune(&upgrade.store)));
    let removed: Vec<String> = serde_json::from_value(planned["removed"].clone()).unwrap();
    assert_eq!(removed, outdated[4..]);
    let pod = |name: &str| json!([{"kind": "pod", "namespace": "apps", "pod": name}]);
    assert_eq!(planned["reasons"][init], pod("one"));
    assert_eq!(planned["reasons"][by_manifest], pod("one"));
    assert_eq!(planned["reasons"][by_config], pod("two"));
    assert_eq!(planned["reasons"][on_disk], json!([{"kind": "node", "node": "w1"}]));
    let text = plan(prune_for_people(&upgrade.store)).succeed();
    let release = format!("for {AFTER}");
    for words in ["3 that pods use (apps/one, apps/two)", "1 that only kubelets still list (w1)", &release] {
        assert!(text.contains(words), "{words} in {text}");
    }
    for file in [r#"{"kind":"List","items":[]}"#, "{"] {
        fs::write(&pods_file, file).unwrap();
        plan(prune_for_people(&upgrade.store)).fail_with(2).says(&["pods.json"]);
    }
}

#[test]
fn prune_is_recorded_and_says_why_nothing_goes() {
    let upgrade = Upgrade::new();
    upgrade.site.import(&upgrade.delta(), &upgrade.store).succeed();
    dray().args(["keygen", "-o"]).arg(upgrade.site.path("site")).succeed();
    let done = json_of(prune(&upgrade.store).arg("--receipt-key").arg(upgrade.site.path("site.key")));
    let log = || json_of(dray().args(["log", "list", "--format", "json", "--store"]).arg(&upgrade.store));
    let receipt = &log()[2];
    assert_eq!((&receipt["kind"], &receipt["command"]), (&json!("prune"), &json!("dray prune")));
    for field in ["removed", "tags", "files", "blobs", "bytes"] {
        assert_eq!(receipt[field], done[field], "{field}");
    }
    assert_eq!(receipt["keep"], json!([AFTER]));
    let tags: BTreeSet<String> = serde_json::from_value(done["tags"].clone()).unwrap();
    assert!(outdated().is_subset(&tags), "{tags:?}");
    let mut verify = dray();
    verify.args(["log", "verify", "--store"]).arg(&upgrade.store);
    verify.arg("--trust").arg(upgrade.site.path("site.pub"));
    assert!(verify.succeed().contains("3 receipts, 1 signed"));

    let nothing = prune_for_people(&upgrade.store).succeed();
    assert!(nothing.contains("no image goes: the store has no release but those that are kept"), "{nothing}");
    assert_eq!(log().as_array().unwrap().len(), 3, "what removes nothing is not recorded");
}

#[test]
fn read_only_store_can_be_looked_at() {
    let upgrade = Upgrade::new();
    upgrade.site.import(&upgrade.delta(), &upgrade.store).succeed();
    let disk = SmallDisk::mount(upgrade.site.path("disk"), "20m");
    let store = disk.path("store");
    Command::new("cp").arg("-r").arg(&upgrade.store).arg(&store).succeed();
    for left in ["lock", "lock.holder", "lock.turn"] {
        let _ = fs::remove_file(store.join(left));
    }
    disk.make_read_only();
    let planned = json_of(prune(&store).arg("--dry-run"));
    assert_eq!(serde_json::from_value::<BTreeSet<String>>(planned["removed"].clone()).unwrap(), outdated());
    prune(&store).fail_with(1).says(&["Read-only file system"]);
    let mut inventory = dray();
    inventory
        .args(["inventory", "-o"])
        .arg(upgrade.site.path("again.inv"))
        .arg("--store")
        .arg(&store)
        .succeed();
    for command in [&["scrub"][..], &["wants"], &["log", "list"], &["log", "verify"]] {
        dray().args(command).arg("--store").arg(&store).succeed();
    }
    let serve = Serve::start(&["--store", store.to_str().unwrap()]);
    upgrade.site.build(serve.address(), &upgrade.site.path("again.tar")).succeed();
    drop(serve);
    // Damage is reported although nothing can be put aside.
    disk.make_writable();
    let blobs = crate::files(&store.join("blobs"));
    let (damaged, _) = blobs.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    fs::write(store.join("blobs").join(damaged), b"damaged").unwrap();
    disk.make_read_only();
    dray().arg("scrub").arg("--store").arg(&store).fail_with(3).says(&["1 blobs are damaged"]);
}
