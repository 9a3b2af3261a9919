//! What is emitted has only fields that its kind has, and one object for each kind of node.

use super::*;
use crate::site::fields;

fn request<'a>(engine: Engine, release: &'a ReleaseId, kinds: &'a [NodeKind]) -> Request<'a> {
    Request {
        engine,
        release,
        with: &[],
        kinds,
        registry: None,
        namespace: "kube-system",
        secrets: &[],
        parallelism: 5,
        kruise: None,
    }
}

fn kinds() -> Vec<NodeKind> {
    ["linux/amd64", "windows(10.0.17763)/amd64", "windows(10.0.20348)/amd64"]
        .map(|kind| kind.parse().unwrap())
        .into()
}

#[test]
fn one_object_for_each_kind_of_node() {
    let catalog = Catalog::builtin().unwrap();
    let (release, kinds) = ("k0s@v1.36.3+k0s.2".parse().unwrap(), kinds());
    let secrets = ["site".to_owned()];
    for engine in Engine::ALL {
        for kruise in [None, Some("v1.9.0".parse().unwrap())] {
            let request = Request { secrets: &secrets, kruise, ..request(engine, &release, &kinds) };
            let objects = objects(&request, &catalog).unwrap();
            assert_eq!(objects.len(), kinds.len());
            for (object, kind) in objects.iter().zip(&kinds) {
                assert_eq!(fields::unknown(object), Vec::<String>::new(), "{object:#}");
                let selector = match engine {
                    Engine::OpenKruise => &object["spec"]["selector"]["matchLabels"],
                    Engine::DaemonSet => &object["spec"]["template"]["spec"]["nodeSelector"],
                };
                assert_eq!(selector["kubernetes.io/os"], kind.os());
                let build = kind.windows_build().map(|build| build.to_string());
                assert_eq!(selector["node.kubernetes.io/windows-build"].as_str(), build.as_deref());
            }
        }
    }
}

#[test]
fn jobs_are_those_of_the_version() {
    let catalog = Catalog::builtin().unwrap();
    let release = "k0s@v1.36.3+k0s.2".parse().unwrap();
    let linux = &kinds()[..1];
    for (version, api, kind, policy) in [
        (None, "apps.kruise.io/v1alpha1", "ImageListPullJob", false),
        (Some("1.4.2"), "apps.kruise.io/v1alpha1", "ImagePullJob", false),
        (Some("v1.6.0"), "apps.kruise.io/v1alpha1", "ImageListPullJob", true),
        (Some("v1.9.0"), "apps.kruise.io/v1beta1", "ImageListPullJob", true),
    ] {
        let kruise = version.map(|version| version.parse().unwrap());
        let request = Request { kruise, ..request(Engine::OpenKruise, &release, linux) };
        let objects = objects(&request, &catalog).unwrap();
        assert_eq!(objects.len() > 1, kind == "ImagePullJob");
        for job in &objects {
            assert_eq!((job["apiVersion"].as_str(), job["kind"].as_str()), (Some(api), Some(kind)));
            assert_eq!(job["spec"].get("imagePullPolicy").is_some(), policy);
            assert_eq!(fields::unknown(job), Vec::<String>::new());
        }
    }
    let old =
        Request { kruise: Some("1.8".parse().unwrap()), ..request(Engine::OpenKruise, &release, linux) };
    let windows = kinds();
    let error = objects(&Request { kinds: &windows, ..old }, &catalog).unwrap_err();
    assert!(error.to_string().contains("--engine daemonset"), "{error}");
}

#[test]
fn long_lists_are_divided() {
    let release = "k0s@v1.36.3+k0s.2".parse().unwrap();
    let kinds = kinds();
    let images = (0..600).map(|nth| format!("a.io/x:{nth}")).collect();
    let group = Group { name: object_name(&release, &kinds[0]), kind: &kinds[0], images };
    let jobs = kruise::jobs(&request(Engine::OpenKruise, &release, &kinds), &group).unwrap();
    let sizes: Vec<usize> = jobs.iter().map(|job| job["spec"]["images"].as_array().unwrap().len()).collect();
    assert_eq!(sizes, [255, 255, 90]);
    assert_eq!(jobs[2]["metadata"]["name"], "dray-k0s-v1-36-3-k0s-2-linux-amd64-3");
}

#[test]
fn names_follow_the_distribution_s_own_setting() {
    let catalog = Catalog::builtin().unwrap();
    for (release, original, renamed) in [
        ("k0s@v1.36.3+k0s.2", "quay.io/k0sproject/pause:", "site:5000/k0sproject/pause:"),
        ("rke2@v1.36.3+rke2r1", "docker.io/rancher/mirrored-pause:", "site:5000/rancher/mirrored-pause:"),
    ] {
        let release = release.parse().unwrap();
        let linux = &kinds()[..1];
        for (registry, expected) in [(None, original), (Some("site:5000/"), renamed)] {
            let request = Request { registry, ..request(Engine::DaemonSet, &release, linux) };
            let objects = objects(&request, &catalog).unwrap();
            let containers = objects[0]["spec"]["template"]["spec"]["containers"].as_array().unwrap();
            let has = |container: &Value| container["image"].as_str().unwrap().starts_with(expected);
            assert!(containers.iter().any(has), "{expected} in {containers:?}");
        }
    }
}
