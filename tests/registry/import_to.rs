//! `dray import --to`: the images of a bundle go into a registry that is there already.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use dray::oci::Digest;
use serde_json::Value;

use crate::support::command::{Finished, Run};
use crate::support::proxy::Proxy;
use crate::support::registry::{Access, Registry};
use crate::support::shelf;
use crate::support::site::{Serve, Site, dray};
use crate::support::upstream::{self, PACKAGE, SINGLE};

/// A bundle of images that have an entry for each of the two kinds of node.
struct Carried {
    site: Site,
    bundle: PathBuf,
}

const IMAGES: [&str; 3] =
    ["registry.k8s.io/pause:3.9", "quay.io/calico/node:v3.30.1", "quay.io/calico/node:v3.30.2"];

fn carry(nodes: &str) -> Carried {
    let (_, carried) = carry_images("plant-7", nodes, |_| IMAGES.map(str::to_owned).into());
    carried
}

/// Carries what `images` lists, from an upstream that has all of [`IMAGES`].
fn carry_images(name: &str, nodes: &str, images: impl FnOnce(&str) -> Vec<String>) -> (Serve, Carried) {
    let site = Site::new("");
    let upstream = shelf::serve(&site.path("upstream"), &IMAGES.map(str::to_owned));
    let images = format!("\"{}\"", images(upstream.address()).join("\", \""));
    let definition = format!(
        "apiVersion: dray.dev/v1alpha1\nkind: Bundle\nmetadata: {{name: {name}}}\nspec:\n  nodes: [{nodes}]\n  \
         runtimes: [containerd@1.7, containerd@2]\n  images: [{images}]\n"
    );
    fs::write(site.path("bundle.yaml"), definition).unwrap();
    let bundle = site.bundle(upstream.address());
    (upstream, Carried { site, bundle })
}

const BOTH: &str = "linux/amd64, windows/ltsc2022";

impl Carried {
    fn import(&self, address: &str, prefix: &str) -> Command {
        let mut import = dray();
        import.arg("import").arg(&self.bundle).arg("--trust").arg(self.site.path("plant.pub"));
        import.args(["--to", &format!("{address}/{prefix}"), "--plain-http", address, "--format", "json"]);
        import
    }
}

fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap()
}

fn raw(address: &str, reference: &str) -> String {
    Command::new("skopeo")
        .args(["inspect", "--raw", "--tls-verify=false", &format!("docker://{address}/{reference}")])
        .succeed()
}

/// Pulls everything of an image, which verifies all digests.
fn pull(address: &str, reference: &str, to: &Path) {
    Command::new("skopeo")
        .args(["copy", "-q", "--all", "--preserve-digests", "--src-tls-verify=false"])
        .args([format!("docker://{address}/{reference}"), format!("dir:{}", to.display())])
        .succeed();
}

#[track_caller]
fn is_whole(carried: &Carried, address: &str, prefix: &str, pushed: &Value) {
    let names: BTreeSet<&str> =
        pushed["images"].as_array().unwrap().iter().map(|image| image["pushed"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        IMAGES
            .iter()
            .map(|image| format!("{address}/{prefix}/{image}"))
            .collect::<BTreeSet<_>>()
            .iter()
            .map(String::as_str)
            .collect()
    );
    for (nth, image) in IMAGES.iter().enumerate() {
        let reference = format!("{prefix}/{image}");
        let digest = Digest::sha256(raw(address, &reference).as_bytes()).to_string();
        let said = pushed["images"].as_array().unwrap().iter().find(|i| i["ref"] == *image).unwrap();
        assert_eq!(said["digest"], digest);
        pull(address, &reference, &carried.site.path(&format!("pulled-{nth}")));
        fs::remove_dir_all(carried.site.path(&format!("pulled-{nth}"))).unwrap();
    }
}

#[test]
fn into_debians_registry_and_into_ours() {
    let carried = carry(BOTH);
    let data = carried.site.path("data");
    let registry = Registry::start(&data, Access::Full);
    let store = carried.site.path("store");
    let ours = Serve::start(&["--allow-push", "--store", store.to_str().unwrap()]);
    for address in [registry.address(), ours.address()] {
        let first = json(&carried.import(address, "mirror").fail_with(0));
        is_whole(&carried, address, "mirror", &first);
        assert!(first["blobs"].as_u64().unwrap() > 0, "{first}");
        // The versions of an image share a layer, which goes over the network once.
        let again = json(&carried.import(address, "mirror").fail_with(0));
        let all = first["blobs"].as_u64().unwrap() + first["present"].as_u64().unwrap();
        assert_eq!((&again["blobs"], &again["present"]), (&0.into(), &all.into()), "{first} {again}");
        // Below another prefix it is taken over from nowhere, and pushed.
        is_whole(
            &carried,
            address,
            "other/place",
            &json(&carried.import(address, "other/place").fail_with(0)),
        );
    }
    drop(ours);
    dray().args(["scrub", "--store"]).arg(&store).succeed();
}

#[test]
fn pinned_reference_moves_no_tag_anywhere() {
    let [_, first, second] = IMAGES;
    let digest = |address: &str, reference: &str| Digest::sha256(raw(address, reference).as_bytes());
    let pinned = |address: &str| format!("{first}@{}", digest(address, second));
    let (upstream, unpinned) = carry_images("tag", BOTH, |_| vec![first.to_owned()]);
    let (_, pin) = carry_images("pin", BOTH, |address| vec![pinned(address)]);
    let own = digest(upstream.address(), first);
    let other = digest(upstream.address(), second);
    let registry = Registry::start(&unpinned.site.path("data"), Access::Full);
    let address = registry.address();
    // Nobody has set the tag yet.
    pin.import(address, "new").succeed();
    assert_eq!(digest(address, &format!("new/{first}")), other);
    for (bundle, warns) in [(&unpinned, false), (&pin, true)] {
        let pushed = bundle.import(address, "mirror").fail_with(0);
        assert_eq!(json(&pushed)["keptTags"].as_array().unwrap().len(), usize::from(warns));
        assert_eq!(pushed.stderr.contains("were not moved"), warns, "{}", pushed.stderr);
    }
    // In either order in a store, and served in place.
    let orders = [[&unpinned, &pin], [&pin, &unpinned]];
    let mut served = Vec::new();
    for (nth, order) in orders.iter().enumerate() {
        let store = unpinned.site.path(&format!("store-{nth}"));
        for bundle in order {
            bundle.site.import(&bundle.bundle, &store).succeed();
        }
        served.push(Serve::start(&["--store", store.to_str().unwrap()]));
        let files = order.iter().flat_map(|carried| [carried.bundle.clone(), carried.site.path("plant.pub")]);
        let files: Vec<PathBuf> = files.collect();
        let files: Vec<&str> = files.iter().map(|file| file.to_str().unwrap()).collect();
        served
            .push(Serve::start(&["--bundle", files[0], files[2], "--trust", files[1], "--trust", files[3]]));
    }
    let places = served.iter().map(|serve| (serve.address(), "")).chain([(address, "mirror/")]);
    for (address, prefix) in places {
        assert_eq!(digest(address, &format!("{prefix}{first}")), own, "{address}");
        let (name, _) = first.split_once(':').unwrap();
        assert_eq!(digest(address, &format!("{prefix}{name}@{other}")), other, "{address}");
    }
}

#[test]
fn a_registry_that_wants_whole_indexes_says_so_before_any_tag() {
    let carried = carry("linux/amd64");
    let registry = Registry::start(&carried.site.path("data"), Access::Full);
    carried.import(registry.address(), "mirror").fail_with(1).says(&[
        "refuses indexes whose platforms are not all in the bundle",
        "registry.k8s.io/pause:3.9 (1 left out)",
        "no tag was set",
        "validation.manifests.indexes.platforms: none",
    ]);
    let tags = Command::new("skopeo")
        .args(["list-tags", "--tls-verify=false"])
        .arg(format!("docker://{}/mirror/registry.k8s.io/pause", registry.address()))
        .finish();
    assert!(tags.code != 0 || tags.stdout.contains("\"Tags\": []"), "{}", tags.stdout);
    // Ours takes them as they are.
    let ours = Serve::start(&["--allow-push", "--store", carried.site.path("store").to_str().unwrap()]);
    let pushed = json(&carried.import(ours.address(), "mirror").fail_with(0));
    for image in IMAGES {
        let digest = Digest::sha256(raw(ours.address(), &format!("mirror/{image}")).as_bytes()).to_string();
        assert!(
            pushed["images"].as_array().unwrap().iter().any(|i| i["ref"] == image && i["digest"] == digest)
        );
    }
}

#[test]
fn credentials_are_used_and_asked_for() {
    let carried = carry(BOTH);
    let users = carried.site.path("users");
    fs::write(&users, Command::new("htpasswd").args(["-nbB", "ann", "secret"]).succeed()).unwrap();
    let store = carried.site.path("store");
    let (store, users) = (store.to_str().unwrap(), users.to_str().unwrap());
    let ours = Serve::start(&["--allow-push", "--store", store, "--htpasswd", users, "--private"]);
    carried
        .import(ours.address(), "mirror")
        .fail_with(1)
        .says(&["refused the request without credentials", "podman login"]);
    let auth = carried.site.path("auth.json");
    let login = |password: &str| {
        use base64::Engine as _;
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("ann:{password}"));
        fs::write(&auth, serde_json::json!({"auths": {ours.address(): {"auth": pair}}}).to_string()).unwrap();
    };
    login("wrong");
    carried
        .import(ours.address(), "mirror")
        .env("REGISTRY_AUTH_FILE", &auth)
        .fail_with(1)
        .says(&["auth.json"]);
    login("secret");
    carried.import(ours.address(), "mirror").env("REGISTRY_AUTH_FILE", &auth).succeed();
}

#[test]
fn what_cannot_be_pushed_is_said_before_anything_is_sent() {
    let carried = carry(BOTH);
    let readonly = Registry::start(&carried.site.path("data"), Access::ReadOnly);
    carried.import(readonly.address(), "mirror").fail_with(1).says(&["cannot push", "405"]);
    carried
        .import("127.0.0.1:1", "mirror")
        .env("DRAY_NO_PROGRESS", "1")
        .fail_with(1)
        .says(&["no connection"]);
    for nowhere in ["mirror", "Harbor.local/Mirror", "harbor.local/../x", ""] {
        dray()
            .arg("import")
            .arg(&carried.bundle)
            .args(["--insecure-skip-verify", "--to", nowhere])
            .fail_with(2);
    }
    // Nor is what is not trusted, or damaged.
    let registry = Registry::start(&carried.site.path("data-2"), Access::Full);
    let address = registry.address();
    dray().args(["keygen", "-o"]).arg(carried.site.path("stranger")).succeed();
    let mut import = dray();
    import.arg("import").arg(&carried.bundle).args([
        "--to",
        &format!("{address}/m"),
        "--plain-http",
        address,
    ]);
    import.arg("--trust").arg(carried.site.path("stranger.pub")).fail_with(3);
    let mut bytes = fs::read(&carried.bundle).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 1;
    fs::write(&carried.bundle, bytes).unwrap();
    carried.import(address, "m").fail_with(3).says(&["damaged"]);
}

/// A layer of some megabytes over a line that breaks again and again.
#[test]
fn a_push_over_a_bad_line_goes_on_where_it_was() {
    let upstream = upstream::start();
    let site = Site::new(&format!(
        "apiVersion: dray.dev/v1alpha1\nkind: Bundle\nmetadata: {{name: plant-7}}\nspec:\n  nodes: [linux/amd64]\n  \
         images: [\"{PACKAGE}\", \"{SINGLE}\"]\n"
    ));
    let carried = Carried { bundle: site.bundle(upstream.address()), site };
    let registry = Registry::start(&carried.site.path("data"), Access::Full);
    let store = carried.site.path("store");
    let ours = Serve::start(&["--allow-push", "--store", store.to_str().unwrap()]);
    for (address, most) in [(registry.address(), 4), (ours.address(), 2)] {
        let proxy = Proxy::start(address, 20_000_000);
        let import = {
            let mut import = carried.import(proxy.address(), "mirror");
            std::thread::spawn(move || import.finish())
        };
        for nth in 1..=2 {
            proxy.wait_for_sent(nth * 5_000_000);
            proxy.cut();
        }
        let finished = import.join().unwrap();
        assert_eq!(finished.code, 0, "{}", finished.stderr);
        for image in [PACKAGE, SINGLE] {
            assert_eq!(raw(address, &format!("mirror/{image}")), upstream.raw(image));
            pull(address, &format!("mirror/{image}"), &carried.site.path("pulled"));
        }
        // Debian's registry forgets an upload whose connection breaks.
        let bundle = fs::metadata(&carried.bundle).unwrap().len();
        assert!(proxy.sent() < bundle * most, "{} of {bundle}", proxy.sent());
    }
}
