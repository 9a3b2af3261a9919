//! Plans have only fields that their kinds have, and nothing in them is missing at the site.

use serde_json::json;

use super::*;
use crate::oci::Algorithm;
use crate::site::fields;
use crate::site::stock::Channel;
use crate::site::stock::tests::{Shop, program};

const K0S: &str = "k0s@v1.36.98+k0s.0";
const WINDOWS: &str = "windows(10.0.20348)/amd64";

/// Makes a plan of `stock`.
fn plan(
    stock: &Stock,
    release: &str,
    kinds: &[&str],
    make: impl FnOnce(&Request<'_>) -> Result<UpgradePlan, PlanError>,
) -> Result<UpgradePlan, PlanError> {
    let release = release.parse().unwrap();
    let kinds: Vec<NodeKind> = kinds.iter().map(|kind| kind.parse().unwrap()).collect();
    let url = "https://registry.site.local:5000".parse().unwrap();
    let sum = |archive: &Archive| archive.digest(stock.content(), Algorithm::Sha256, &mut |_| ());
    make(&Request { release: &release, kinds: &kinds, url: &url, stock, sum: &sum })
}

fn by_autopilot(stock: &Stock, release: &str, kinds: &[&str]) -> Result<UpgradePlan, PlanError> {
    let options = Autopilot { id: None, concurrency: 3, controllers: &[] };
    plan(stock, release, kinds, |request| autopilot(request, &options))
}

fn options() -> SystemUpgrade<'static> {
    SystemUpgrade {
        namespace: "system-upgrade",
        service_account: "system-upgrade",
        concurrency: 2,
        drain: false,
        channel: None,
        registry: None,
        kubectl: None,
    }
}

fn known_fields(plan: &UpgradePlan) {
    for object in &plan.objects {
        assert_eq!(fields::unknown(object), Vec::<String>::new(), "{object:#}");
    }
}

/// The objects in the YAML, which has comments before them.
fn read_back(plan: &UpgradePlan) -> Vec<Value> {
    let yaml = plan.to_yaml();
    yaml.split("---\n").map(|document| serde_saphyr::from_str(document).unwrap()).collect()
}

#[test]
fn autopilot_brings_images_before_programs_and_no_windows_nodes() {
    let shop = Shop::new();
    shop.image("quay.io/k0s/pause:v1.36.98-k0s.0");
    let version = "v1.36.98+k0s.0";
    let files = ["amd64", "arm64", "amd64.exe"].map(|end| program(version, end));
    let files = files.each_ref().map(String::as_str);
    let stock = shop.stock(&[K0S], &["linux/amd64", "linux/arm64", WINDOWS], &files);
    let plan = by_autopilot(&stock, K0S, &[]).unwrap();
    known_fields(&plan);
    assert_eq!(read_back(&plan), plan.objects);
    let spec = &plan.objects[0]["spec"];
    assert_eq!(plan.objects[0]["metadata"]["name"], "autopilot");
    let (images, programs) = (&spec["commands"][0]["airgapupdate"], &spec["commands"][1]["k0supdate"]);
    for command in [images, programs] {
        assert_eq!(command["version"], version);
        let keys: Vec<&String> = command["platforms"].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["linux-amd64", "linux-arm64"]);
    }
    let arm = &programs["platforms"]["linux-arm64"];
    let site = "https://registry.site.local:5000/files";
    let download = "github.com/k0sproject/k0s/releases/download";
    assert_eq!(arm["url"], format!("{site}/{download}/{version}/k0s-{version}-arm64"));
    assert_eq!(arm["sha256"], Digest::sha256(files[1].as_bytes()).hex());
    let archive = &images["platforms"]["linux-amd64"];
    assert_eq!(archive["url"], format!("{site}/export/k0s/{version}/dray-k0s-linux-amd64.tar"));
    let stocked = &stock.brought().unwrap().releases[&K0S.parse().unwrap()];
    let bytes = stock.archive(stocked, &"linux/amd64".parse().unwrap()).unwrap();
    let sum = bytes.digest(stock.content(), Algorithm::Sha256, &mut |_| ()).unwrap();
    assert_eq!(archive["sha256"], sum.hex());
    let labels = "kubernetes.io/os=linux,kubernetes.io/arch in (amd64,arm64)";
    assert_eq!(images["workers"]["discovery"]["selector"]["labels"], labels);
    assert_eq!(images["workers"]["limits"]["concurrent"], 3);
    assert_eq!(programs["targets"]["controllers"]["discovery"]["selector"]["labels"], labels);

    let [manual] = &plan.manual[..] else { panic!("{:?}", plan.manual) };
    assert_eq!(manual.node.to_string(), WINDOWS);
    let yaml = plan.to_yaml();
    for part in [
        "# By hand, on each node of the kind windows(10.0.20348)/amd64:",
        "dray-k0s-windows-10.0.20348-amd64.tar",
        "k0s-v1.36.98+k0s.0-amd64.exe",
        r"C:\var\lib\k0s\images\",
        "kubectl drain NODE",
    ] {
        assert!(yaml.contains(part), "{part} in\n{yaml}");
    }
}

#[test]
fn controllers_and_kinds_of_node_can_be_named() {
    let shop = Shop::new();
    shop.image("quay.io/k0s/pause:v1.36.98-k0s.0");
    let file = program("v1.36.98+k0s.0", "amd64");
    let stock = shop.stock(&[K0S], &["linux/amd64", "linux/arm64", WINDOWS], &[&file]);
    let controllers = ["c0".to_owned(), "c1".to_owned()];
    let options = Autopilot { id: Some("mine"), concurrency: 1, controllers: &controllers };
    let plan = plan(&stock, K0S, &["linux/amd64"], |request| autopilot(request, &options)).unwrap();
    known_fields(&plan);
    let spec = &plan.objects[0]["spec"];
    assert_eq!(spec["id"], "mine");
    let controllers = &spec["commands"][1]["k0supdate"]["targets"]["controllers"];
    assert_eq!(controllers["discovery"]["static"]["nodes"], json!(["c0", "c1"]));
    assert!(plan.manual.is_empty());

    let error = by_autopilot(&stock, K0S, &[WINDOWS]).unwrap_err();
    assert!(matches!(error, PlanError::NoLinux(_)), "{error}");
    let error = by_autopilot(&stock, K0S, &["linux/riscv64"]).unwrap_err();
    assert!(matches!(error, PlanError::NoSuchNode { .. }), "{error}");
    let error = by_autopilot(&stock, "k0s@v1.36.97+k0s.0", &[]).unwrap_err().to_string();
    assert!(error.ends_with("the store has: k0s@v1.36.98+k0s.0"), "{error}");
    let error = by_autopilot(&stock, "k3s@v1.36.98+k3s1", &[]).unwrap_err().to_string();
    assert_eq!(error, "Autopilot does not upgrade k3s@v1.36.98+k3s1; it upgrades k0s");
}

#[test]
fn everything_that_is_missing_is_named_at_once() {
    let shop = Shop::new();
    let stock = shop.stock(&[K0S], &["linux/amd64", WINDOWS], &[]);
    let PlanError::Lacks(lacks) = by_autopilot(&stock, K0S, &[]).unwrap_err() else {
        panic!("another error")
    };
    let text = lacks.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert_eq!(
        text,
        "quay.io/k0s/pause:v1.36.98-k0s.0: unknown, for linux/amd64, windows(10.0.20348)/amd64\n\
         the file k0s-v1.36.98+k0s.0-amd64, for linux/amd64; put into the definition's `files`:\n    \
         - url: https://github.com/k0sproject/k0s/releases/download/v1.36.98%2Bk0s.0/k0s-v1.36.98%2Bk0s.0-amd64\n      \
         sha256: what sha256sums.txt of the release states\n\
         the file k0s-v1.36.98+k0s.0-amd64.exe, for windows(10.0.20348)/amd64; put into the definition's `files`:\n    \
         - url: https://github.com/k0sproject/k0s/releases/download/v1.36.98%2Bk0s.0/k0s-v1.36.98%2Bk0s.0-amd64.exe\n      \
         sha256: what sha256sums.txt of the release states"
    );
}

#[test]
fn servers_are_upgraded_before_agents() {
    let shop = Shop::new();
    for image in ["pause:v1.36.98-k3s1", "k3s-upgrade:v1.36.98-k3s1", "kubectl:v1.30.3"] {
        shop.image(&format!("rancher/{image}"));
    }
    let (release, nodes) = ("k3s@v1.36.98+k3s1", ["linux/amd64"]);
    let stock = shop.stock(&[release], &nodes, &[]);
    let made = |options: &SystemUpgrade<'_>| {
        let plan = plan(&stock, release, &[], |request| system_upgrade(request, options)).unwrap();
        known_fields(&plan);
        assert_eq!(read_back(&plan), plan.objects);
        (plan.objects[0].clone(), plan.objects[1].clone())
    };
    let (server, agent) = made(&options());
    assert_eq!((&server["spec"]["concurrency"], &agent["spec"]["concurrency"]), (&json!(1), &json!(2)));
    for plan in [&server, &agent] {
        assert_eq!(plan["spec"]["version"], "v1.36.98+k3s1");
        assert_eq!(plan["spec"]["upgrade"]["image"], "docker.io/rancher/k3s-upgrade");
        assert_eq!(plan["spec"]["cordon"], true);
    }
    assert_eq!(agent["spec"]["prepare"]["args"], json!(["prepare", server["metadata"]["name"]]));
    assert!(server["spec"]["prepare"].is_null());

    let channel = Some(Channel::Minor(1, 36));
    let (server, agent) = made(&SystemUpgrade {
        drain: true,
        channel,
        registry: Some("registry.site.local:5000/docker.io"),
        ..options()
    });
    assert_eq!(server["spec"]["channel"], "https://registry.site.local:5000/channels/k3s/v1.36");
    assert!(server["spec"]["version"].is_null());
    assert_eq!(agent["spec"]["drain"]["force"], true);
    assert!(agent["spec"]["cordon"].is_null());
    let image = "registry.site.local:5000/docker.io/rancher/k3s-upgrade";
    assert_eq!(
        (&server["spec"]["upgrade"]["image"], &agent["spec"]["prepare"]["image"]),
        (&json!(image), &json!(image))
    );

    let channel = Some(Channel::Minor(1, 35));
    let other = SystemUpgrade { channel, ..options() };
    let error =
        plan(&stock, release, &[], |request| system_upgrade(request, &other)).unwrap_err().to_string();
    assert_eq!(error, "the channel v1.35 stands for no release here, not for k3s@v1.36.98+k3s1");
    let other = SystemUpgrade { registry: Some("not a host"), ..options() };
    let error = plan(&stock, release, &[], |request| system_upgrade(request, &other)).unwrap_err();
    assert!(matches!(error, PlanError::Registry(_)), "{error}");
}

#[test]
fn images_of_the_controller_have_to_be_here() {
    let shop = Shop::new();
    shop.image("rancher/pause:v1.36.98-k3s1");
    let release = "k3s@v1.36.98+k3s1";
    let stock = shop.stock(&[release], &["linux/amd64"], &[]);
    let error =
        plan(&stock, release, &[], |request| system_upgrade(request, &options())).unwrap_err().to_string();
    for part in [
        "docker.io/rancher/k3s-upgrade:v1.36.98-k3s1: unknown",
        "docker.io/rancher/kubectl",
        "SYSTEM_UPGRADE_JOB",
    ] {
        assert!(error.contains(part), "{part} in\n{error}");
    }
    shop.image("rancher/k3s-upgrade:v1.36.98-k3s1");
    shop.image("quay.io/acme/kubectl:1");
    for (image, is_here) in [("quay.io/acme/kubectl:1", true), ("quay.io/acme/kubectl:2", false)] {
        let image = image.parse().unwrap();
        let options = SystemUpgrade { kubectl: Some(&image), ..options() };
        let result = plan(&stock, release, &[], |request| system_upgrade(request, &options));
        assert_eq!(result.is_ok(), is_here, "{image}");
    }
}

#[test]
fn windows_agents_of_rke2_are_upgraded_by_hand() {
    let shop = Shop::new();
    for image in ["mirrored-pause:v1.36.98-rke2r1", "rke2-upgrade:v1.36.98-rke2r1", "kubectl:v1.30.3"] {
        shop.image(&format!("rancher/{image}"));
    }
    let release = "rke2@v1.36.98+rke2r1";
    let file =
        "https://github.com/rancher/rke2/releases/download/v1.36.98%2Brke2r1/rke2.windows-amd64.tar.gz";
    let nodes = ["linux/amd64", WINDOWS];
    let bare = shop.stock(&[release], &nodes, &[]);
    let error =
        plan(&bare, release, &[], |request| system_upgrade(request, &options())).unwrap_err().to_string();
    assert!(error.contains(file), "{error}");
    let stock = shop.stock(&[release], &nodes, &[file]);
    let plan = plan(&stock, release, &[], |request| system_upgrade(request, &options())).unwrap();
    known_fields(&plan);
    for object in &plan.objects {
        let os = json!({"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]});
        assert!(object["spec"]["nodeSelector"]["matchExpressions"].as_array().unwrap().contains(&os));
    }
    let yaml = plan.to_yaml();
    for part in [
        "rke2.windows-amd64.tar.gz",
        r"C:\var\lib\rancher\rke2\agent\images\dray-rke2-windows-10.0.20348-amd64.tar",
    ] {
        assert!(yaml.contains(part), "{part} in\n{yaml}");
    }
}
