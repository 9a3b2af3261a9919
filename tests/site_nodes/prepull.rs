//! `dray prepull`: what is printed goes to `kubectl apply` as it is, so every field is one that its kind has.

use std::{collections::BTreeSet, fmt::Write as _, fs};

use serde_json::{Value, json};

use super::fields;
use crate::support::{command::Run, site::dray};

const RELEASE: &str = "k0s@v1.36.3+k0s.2";
const KINDS: [(&str, &str, Option<&str>); 5] = [
    ("linux/amd64", "linux", None),
    ("linux/arm64", "linux", None),
    ("windows/ltsc2019", "windows", Some("10.0.17763")),
    ("windows/ltsc2022", "windows", Some("10.0.20348")),
    ("windows/ltsc2025", "windows", Some("10.0.26100")),
];

/// The documents that the command prints, all of them with known fields only.
#[track_caller]
fn objects(arguments: &[&str]) -> Vec<Value> {
    let text = dray().arg("prepull").args(arguments).succeed();
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    for object in &objects {
        assert_eq!(fields::unknown(object), Vec::<String>::new(), "{text}");
    }
    let json: Vec<Value> =
        serde_json::from_str(&dray().args(["prepull", "--format", "json"]).args(arguments).succeed())
            .unwrap();
    assert_eq!(json, objects, "the same in both forms");
    objects
}

/// What `dray images` has for a kind of node.
fn needed(kind: &str) -> BTreeSet<String> {
    let mut images = dray();
    images.args(["images", "-q", "--with", "calico", "--release", RELEASE, "--node", kind]);
    images.succeed().lines().map(str::to_owned).collect()
}

fn texts(list: &Value) -> BTreeSet<String> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

#[test]
fn one_object_for_each_system_and_build_with_all_its_images() {
    let kinds: Vec<&str> = KINDS.iter().flat_map(|(kind, ..)| ["--node", kind]).collect();
    let common =
        [&["--release", RELEASE, "--with", "calico", "--secret", "site", "--secret", "spare"], &*kinds];
    let common = common.concat();
    for engine in [
        &["--engine", "daemonset"][..],
        &["--engine", "openkruise"],
        &["--engine", "openkruise", "--kruise-version", "v1.9.0"],
    ] {
        let objects = objects(&[engine, &*common].concat());
        assert_eq!(objects.len(), KINDS.len(), "{engine:?}");
        let names: BTreeSet<&str> = objects.iter().map(|o| o["metadata"]["name"].as_str().unwrap()).collect();
        assert_eq!(names.len(), KINDS.len(), "{names:?}");
        for (object, (kind, os, build)) in objects.iter().zip(KINDS) {
            let spec = &object["spec"];
            let (labels, images, secrets) = if object["kind"] == "DaemonSet" {
                let pod = &spec["template"]["spec"];
                let image = |container: &Value| container["image"].clone();
                let images: Value = pod["containers"].as_array().unwrap().iter().map(image).collect();
                (&pod["nodeSelector"], images, &pod["imagePullSecrets"])
            } else {
                (&spec["selector"]["matchLabels"], spec["images"].clone(), &spec["pullSecrets"])
            };
            assert_eq!(labels["kubernetes.io/os"], os);
            assert_eq!(labels["node.kubernetes.io/windows-build"].as_str(), build);
            assert_eq!(texts(&images), needed(kind), "{kind}");
            let expected = [json!(["site", "spare"]), json!([{"name": "site"}, {"name": "spare"}])];
            assert!(expected.contains(secrets), "{secrets}");
        }
    }
}

#[test]
fn no_job_has_more_images_than_openkruise_takes() {
    let catalog = tempfile::tempdir().unwrap();
    let mut release =
        "distribution: k0s\nkubernetes: '1.36'\narchitectures: [amd64]\nfacts: {containerd: 2.3.1}\n\
                       components:\n"
            .to_owned();
    for nth in 0..300 {
        let _ = writeln!(release, "  - {{name: part-{nth}, image: example.org/part-{nth}, tag: '1'}}");
    }
    release.push_str("releases: [{version: v1.36.99+k0s.0}]\n");
    fs::create_dir(catalog.path().join("k0s")).unwrap();
    fs::write(catalog.path().join("k0s/1.36.yaml"), release).unwrap();
    let jobs = objects(&[
        "--engine",
        "openkruise",
        "--release",
        "k0s@v1.36.99+k0s.0",
        "--node",
        "linux/amd64",
        "--catalog",
        catalog.path().to_str().unwrap(),
    ]);
    let sizes: Vec<usize> = jobs.iter().map(|job| texts(&job["spec"]["images"]).len()).collect();
    assert_eq!(sizes, [255, 45]);
}

#[test]
fn what_cannot_be_pulled_ahead_is_said() {
    let prepull = |more: &[&str]| {
        let mut prepull = dray();
        prepull.args([
            "prepull",
            "--engine",
            "openkruise",
            "--release",
            RELEASE,
            "--node",
            "windows/ltsc2022",
        ]);
        prepull.args(more);
        prepull
    };
    prepull(&["--kruise-version", "1.8"]).fail_with(2).says(&["no daemon for Windows", "--engine daemonset"]);
    prepull(&["--kruise-version", "new"]).fail_with(2).says(&["v1.9.0"]);
    prepull(&[]).fail_with(0).says(&["ImagePullJobGate", "needs its own daemon"]);
    prepull(&["--registry", "not a host"]).fail_with(2).says(&["not a host"]);
}
