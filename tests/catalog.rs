//! The catalog: every release answers as its distribution does, and every file is consistent.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use dray::catalog::{Catalog, CatalogError, Needs, PullPolicy, ReleaseId, Severity, StripDefaults};
use dray::oci::{Digest, NodeKind};
use serde::Deserialize;

const LINUX: &str = "linux/amd64";
const WINDOWS_2019: &str = "windows/ltsc2019";
const WINDOWS_2022: &str = "windows/ltsc2022";
const WINDOWS_2025: &str = "windows/ltsc2025";

fn catalog() -> &'static Catalog {
    static CATALOG: LazyLock<Catalog> = LazyLock::new(|| Catalog::builtin().unwrap());
    &CATALOG
}

fn needs(release: &str, with: &[&str], kinds: &[&str]) -> Needs {
    let catalog = catalog();
    let kinds: Vec<NodeKind> = kinds.iter().map(|kind| catalog.node_kind(kind).unwrap()).collect();
    let with: Vec<String> = with.iter().map(ToString::to_string).collect();
    catalog
        .needs(&release.parse().unwrap(), &with, &kinds)
        .unwrap_or_else(|error| panic!("{release}: {error}"))
}

fn references(needs: &Needs) -> Vec<String> {
    needs.images.iter().map(|need| need.reference.to_string()).collect()
}

fn ids(needs: &Needs) -> Vec<&str> {
    needs.problems.iter().map(|problem| problem.id.as_str()).collect()
}

/// What `k0s airgap list-images` prints and what Windows nodes need, read from k0s's sources by other means.
#[derive(Deserialize)]
struct K0sLists {
    references: Vec<String>,
    problems: Vec<BTreeSet<String>>,
    releases: Vec<K0sRelease>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct K0sRelease {
    version: String,
    default: Vec<usize>,
    all: Vec<usize>,
    arm: Vec<usize>,
    windows: Vec<usize>,
    containerd_config: u8,
    strip: StripDefaults,
    problems: usize,
    assets: usize,
}

#[test]
fn every_k0s_release_lists_what_k0s_lists() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/catalog/k0s-lists.json");
    let lists: K0sLists = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(lists.releases.len(), 128);
    let catalog = catalog();
    for expected in &lists.releases {
        let id = format!("k0s@{}", expected.version);
        let texts =
            |indices: &[usize]| indices.iter().map(|i| lists.references[*i].clone()).collect::<Vec<String>>();
        let listed = references(&needs(&id, &[], &[LINUX]));
        assert_eq!(listed, texts(&expected.default), "{id}: default, in k0s's order");

        let release = catalog.release(&id.parse().unwrap()).unwrap();
        let features: Vec<&str> =
            release.features().into_iter().filter(|feature| *feature != "windows").collect();
        // Releases before the fix of k0s issue 5456 leave the push gateway out of their own list.
        let listable: Vec<&str> = if release.problems.iter().any(|id| id == "pushgateway-not-listed") {
            features.iter().copied().filter(|feature| *feature != "metrics-scraper").collect()
        } else {
            features.clone()
        };
        let all = references(&needs(&id, &listable, &[LINUX]));
        assert_eq!(all, texts(&expected.all), "{id}: --all, in k0s's order");
        let arm = references(&needs(&id, &listable, &["linux/arm/v7"]));
        assert_eq!(arm, texts(&expected.arm), "{id}: --all on arm");

        let windows: BTreeSet<String> =
            references(&needs(&id, &["calico"], &[WINDOWS_2022])).into_iter().collect();
        assert_eq!(windows, texts(&expected.windows).into_iter().collect(), "{id}: Windows");

        assert_eq!(release.facts.containerd_config, Some(expected.containerd_config), "{id}");
        assert_eq!(release.facts.strip_defaults, Some(expected.strip), "{id}");
        assert!(release.facts.containerd.is_some(), "{id}");
        let problems: BTreeSet<String> = release.problems.iter().cloned().collect();
        assert_eq!(problems, lists.problems[expected.problems], "{id}");
        assert_eq!(release.assets.len(), expected.assets, "{id}");
        assert!(release.assets.contains(&format!("k0s-{}-amd64.exe", expected.version)), "{id}");
    }
    assert_eq!(catalog.releases(Some("k0s")).unwrap().len(), lists.releases.len());
}

#[test]
fn windows_images_that_k0s_does_not_list() {
    let konnectivity = needs("k0s@v1.36.3+k0s.2", &[], &[WINDOWS_2022]);
    let need = konnectivity.images.iter().find(|need| need.component == "konnectivity-agent").unwrap();
    assert_eq!(need.reference.to_string(), "quay.io/k0sproject/apiserver-network-proxy-agent:v0.36.0-k0s.0");
    assert!(ids(&konnectivity).contains(&"win-konnectivity-not-listed"));
    assert!(ids(&konnectivity).contains(&"windows-network"), "Calico is implied");
    assert!(references(&konnectivity).contains(&"docker.io/calico/node-windows:v3.32.1".to_owned()));

    let before = references(&needs("k0s@v1.35.3+k0s.0", &[], &[WINDOWS_2022]));
    assert!(
        before.iter().all(|reference| !reference.contains("apiserver-network-proxy-agent")),
        "{before:?}"
    );

    let fixed = needs("k0s@v1.30.4+k0s.0", &[], &[WINDOWS_2022]);
    let powershell = fixed.images.iter().find(|n| n.component == "calico-windows-init-powershell").unwrap();
    assert_eq!(powershell.reference.to_string(), "mcr.microsoft.com/powershell:latest");
    assert_eq!(powershell.pull, PullPolicy::Always);
    assert!(ids(&fixed).contains(&"win-images-hardcoded"));
}

#[test]
fn the_linux_only_pause_of_k0s_1_33_is_replaced() {
    let mixed = needs("k0s@v1.33.4+k0s.0", &[], &[LINUX, WINDOWS_2022]);
    let nodes_of = |reference: &str| {
        let need = mixed.images.iter().find(|need| need.reference.to_string() == reference).unwrap();
        need.nodes.iter().map(NodeKind::os).collect::<Vec<_>>()
    };
    assert_eq!(nodes_of("registry.k8s.io/pause:3.10.1"), ["linux", "windows"], "the override holds for both");
    assert_eq!(nodes_of("quay.io/k0sproject/pause:3.10.1"), ["linux"]);
    let problem = mixed.problems.iter().find(|problem| problem.id == "win-pause-linux-only").unwrap();
    assert!(problem.fix.as_ref().unwrap().contains("spec.images.pause"));
    let linux = references(&needs("k0s@v1.33.4+k0s.0", &[], &[LINUX]));
    assert!(!linux.contains(&"registry.k8s.io/pause:3.10.1".to_owned()));
}

#[test]
fn windows_nodes_only_add_to_the_list() {
    let catalog = catalog();
    for release in catalog.releases(None).unwrap() {
        let id = release.id.to_string();
        let linux: BTreeSet<String> = references(&needs(&id, &[], &[LINUX])).into_iter().collect();
        let mixed: BTreeSet<String> =
            references(&needs(&id, &[], &[LINUX, WINDOWS_2022])).into_iter().collect();
        assert!(mixed.is_superset(&linux), "{id}");
    }
}

#[test]
fn windows_builds_that_will_not_do() {
    let old = needs("k0s@v1.36.3+k0s.2", &[], &[LINUX, WINDOWS_2019]);
    let unsupported = old.problems.iter().find(|problem| problem.id == "windows-unsupported").unwrap();
    assert_eq!(unsupported.severity, Severity::Warning, "{unsupported:?}");
    assert!(!old.is_blocked());

    let semi_annual = needs("k0s@v1.30.4+k0s.0", &[], &[LINUX, "windows/20h2"]);
    assert!(semi_annual.is_blocked(), "{:?}", semi_annual.problems);
    assert!(ids(&semi_annual).contains(&"windows-entry-missing"), "pause 3.9 has no 20H2 entry");

    let hyper_v = needs("k0s@v1.36.3+k0s.2", &[], &[LINUX, WINDOWS_2025]);
    let trap = hyper_v.problems.iter().find(|problem| problem.id == "pause-hyper-v").unwrap();
    assert_eq!(trap.severity, Severity::Warning);

    let alone = needs("k0s@v1.36.3+k0s.2", &[], &[WINDOWS_2022]);
    assert!(ids(&alone).contains(&"control-plane-needs-linux"));
    assert!(!ids(&old).contains(&"control-plane-needs-linux"));

    let first = needs("k0s@v1.27.4+k0s.0", &[], &[LINUX, WINDOWS_2022]);
    assert!(first.is_blocked(), "Windows workers of 1.27 download from GitHub");
    let arm = needs("k0s@v1.36.3+k0s.2", &[], &["windows(10.0.20348)/arm64"]);
    assert!(ids(&arm).contains(&"architecture-unsupported"));
}

#[test]
fn unknown_releases_and_features_name_what_is_there() {
    let catalog = catalog();
    let error = |text: &str, with: &[String]| {
        let id: ReleaseId = text.parse().unwrap();
        catalog.needs(&id, with, &[LINUX.parse().unwrap()]).unwrap_err().to_string()
    };
    let between = error("k0s@v1.36.2+k0s.7", &[]);
    assert!(between.contains("v1.36.2+k0s.0 and v1.36.3+k0s.0"), "{between}");
    let build = error("k0s@1.36.3", &[]);
    assert!(build.contains("does not know k0s@v1.36.3; the newest of v1.36.3 is v1.36.3+k0s.2"), "{build}");
    let newer = error("k0s@v9.1.0+k0s.0", &[]);
    assert!(newer.contains("its newest is v1."), "{newer}");
    let older = error("k0s@v1.2.0+k0s.0", &[]);
    assert!(older.contains("its oldest is v1.27.1+k0s.0"), "{older}");
    let gap = error("k0s@v1.28.99+k0s.0", &[]);
    assert!(gap.contains("v1.28.15+k0s.0 and v1.29.1+k0s.0"), "{gap}");
    let distro = error("rancher@v1.36.3", &[]);
    assert!(distro.contains("k0s"), "{distro}");
    let feature = error("k0s@v1.36.3+k0s.2", &["cilium".to_owned()]);
    assert!(feature.contains("calico, kuberouter, metrics-scraper, nllb:envoy, nllb:traefik"), "{feature}");
}

#[test]
fn aliases_of_node_kinds() {
    let catalog = catalog();
    for (alias, expected) in [
        ("windows/ltsc2022", "windows(10.0.20348)/amd64"),
        ("windows/LTSC2022", "windows(10.0.20348)/amd64"),
        ("windows/2022", "windows(10.0.20348)/amd64"),
        ("windows/1809", "windows(10.0.17763)/amd64"),
        ("windows/ltsc2019", "windows(10.0.17763)/amd64"),
        ("windows/20H2", "windows(10.0.19042)/amd64"),
        ("windows/2025", "windows(10.0.26100)/amd64"),
        ("windows/amd64/ltsc2025", "windows(10.0.26100)/amd64"),
        ("windows/amd64:10.0.20348", "windows(10.0.20348)/amd64"),
        ("linux/arm64", "linux/arm64"),
    ] {
        assert_eq!(catalog.node_kind(alias).unwrap().to_string(), expected, "{alias}");
    }
    let error = catalog.node_kind("windows/ltsc2021").unwrap_err().to_string();
    assert!(error.contains("ltsc2022"), "{error}");
    assert!(catalog.node_kind("windows/amd64").unwrap_err().to_string().contains("which Windows"));
    let mut seen = BTreeMap::new();
    for release in &catalog.windows().builds {
        for alias in &release.aliases {
            assert_eq!(*alias, alias.to_lowercase());
            assert_eq!(seen.insert(alias, release.build), None, "{alias} stands for two builds");
        }
    }
}

#[test]
fn a_directory_adds_and_overrides() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("k0s")).unwrap();
    std::fs::write(
        directory.path().join("k0s/1.36.yaml"),
        "distribution: k0s\nkubernetes: \"1.36\"\ncomponents:\n  - name: pause\n    image: quay.io/k0sproject/pause\n\
         releases:\n  - version: v1.36.9+k0s.0\n    tags:\n      pause: 3.20\n",
    )
    .unwrap();
    let catalog = Catalog::with_overrides(&[directory.path().to_owned()]).unwrap();
    let kinds = [LINUX.parse().unwrap()];
    let added = catalog.needs(&"k0s@v1.36.9+k0s.0".parse().unwrap(), &[], &kinds).unwrap();
    assert_eq!(references(&added), ["quay.io/k0sproject/pause:3.20"], "an unquoted tag is a text");
    let kept = catalog.needs(&"k0s@v1.36.3+k0s.2".parse().unwrap(), &[], &kinds).unwrap();
    assert_eq!(kept.images.len(), 7);
    assert_eq!(catalog.releases(Some("k0s")).unwrap().last().unwrap().id.version, "v1.36.9+k0s.0");

    std::fs::write(directory.path().join("k0s/1.36.yaml"), "distribution: k0s\nimages: []\n").unwrap();
    let broken = Catalog::with_overrides(&[directory.path().to_owned()]).unwrap();
    let error = broken.needs(&"k0s@v1.36.3+k0s.2".parse().unwrap(), &[], &kinds).unwrap_err();
    assert!(matches!(error, CatalogError::Document(_)), "{error}");
    assert!(error.to_string().contains("k0s/1.36.yaml"), "{error}");
    let missing = Catalog::with_overrides(&[PathBuf::from("/nonexistent")]).unwrap_err();
    assert!(missing.to_string().contains("/nonexistent"), "{missing}");
}

/// Lists of a release as one text: Linux by default, Linux with all features, Windows.
fn fingerprint(id: &str) -> String {
    let catalog = catalog();
    let release = catalog.release(&id.parse().unwrap()).unwrap();
    let features: Vec<&str> = release.features().into_iter().collect();
    let sorted = |needs: &Needs| {
        let unique: BTreeSet<String> = references(needs).into_iter().collect();
        unique.into_iter().collect::<Vec<_>>().join("\n")
    };
    let [default, all, windows] =
        [needs(id, &[], &[LINUX]), needs(id, &features, &[LINUX]), needs(id, &[], &[WINDOWS_2022])]
            .map(|needs| sorted(&needs));
    let digest = Digest::sha256(format!("{default}\n\n{all}\n\n{windows}").as_bytes());
    digest.hex()[..16].to_owned()
}

#[test]
fn every_other_release_lists_what_its_sources_list() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/catalog/list-hashes.json");
    let expected: BTreeMap<String, String> =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let known = catalog().releases(None).unwrap();
    let listed: BTreeMap<String, String> = known
        .into_iter()
        .filter(|release| !matches!(release.id.distro.as_str(), "k0s" | "openkruise"))
        .map(|release| (release.id.to_string(), fingerprint(&release.id.to_string())))
        .collect();
    let wrong: Vec<_> = listed.iter().filter(|(id, hash)| expected.get(*id) != Some(*hash)).collect();
    assert!(wrong.is_empty(), "differ, or are new (see docs/adding-a-release.md): {wrong:#?}");
    assert!(expected.keys().all(|id| listed.contains_key(id)), "a release is gone");
}

/// What the command prints: its exit code, stdout and stderr.
fn printed(arguments: &[&str]) -> String {
    let output = assert_cmd::Command::cargo_bin("dray").unwrap().args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    format!(
        "exit code {}\n\n{}\n{}",
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr)
    )
}

#[test]
fn warnings_say_what_is_wrong_and_what_to_do() {
    let mixed = ["--node", "linux/amd64", "--node", "windows/ltsc2019", "--node", "windows/ltsc2025"];
    for (name, release, more) in [
        ("k0s-1.27", "k0s@v1.27.4+k0s.0", &[][..]),
        ("k0s-1.29", "k0s@v1.29.7+k0s.0", &["--with", "metrics-scraper", "-v"][..]),
        ("k0s-1.33", "k0s@v1.33.4+k0s.0", &[][..]),
        ("k0s-1.34", "k0s@v1.34.2+k0s.0", &[][..]),
        ("k0s-1.36", "k0s@v1.36.3+k0s.2", &["--with", "nllb:traefik", "-v"][..]),
        ("kubeadm-1.31", "kubeadm@v1.31.4", &["--with", "calico-windows"][..]),
        ("k3s-1.36", "k3s@v1.36.3+k3s1", &[][..]),
        ("rke2-1.28", "rke2@v1.28.8+rke2r1", &[][..]),
        ("openkruise-1.9", "openkruise@v1.9.0", &[][..]),
    ] {
        let arguments = [&["images", "--release", release], &mixed[..], more].concat();
        insta::assert_snapshot!(name, printed(&arguments));
    }
}

#[test]
fn the_command_reads_lists_and_several_releases() {
    let list = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(list.path(), "# apps\nnginx:1.27\nquay.io/k0sproject/pause:3.10.2-0\n").unwrap();
    let path = list.path().to_str().unwrap();
    let both = printed(&["images", "--release", "k0s@v1.36.3+k0s.2", "--from-list", path, "-q"]);
    assert!(both.starts_with("exit code 0\n"), "{both}");
    assert_eq!(both.matches("quay.io/k0sproject/pause:3.10.2-0").count(), 1, "{both}");
    assert!(both.contains("docker.io/library/nginx:1.27"), "{both}");
    let windows = printed(&["images", "--from-list", path, "--node", "windows/2022"]);
    assert!(windows.contains("a list says nothing about Windows nodes"), "{windows}");

    let definition = format!("{}/bundles/kubeadm-windows.yaml", env!("CARGO_MANIFEST_DIR"));
    let defined = printed(&["images", "-f", &definition, "-q"]);
    assert!(defined.contains("docker.io/calico/kube-controllers:v3.32.1"), "{defined}");
    assert!(
        defined.contains("kube-apiserver:v1.35.7") && defined.contains("kube-apiserver:v1.36.3"),
        "{defined}"
    );
    assert!(
        printed(&["images", "-f", &definition, "--release", "k0s@v1.36.3+k0s.2"])
            .starts_with("exit code 2\n")
    );

    for releases in ["k0s@v9.1.0+k0s.0", "k0s@v9.1.0+k0s.0,k0s@v1.36.3+k0s.2"] {
        let unknown = printed(&["images", "--release", releases]);
        assert!(unknown.starts_with("exit code 2\n"), "{unknown}");
        assert!(unknown.contains("--from-list FILE") && unknown.contains("--catalog DIR"), "{unknown}");
    }
    for spelling in ["k0s@1.36.3+k0s.2", "k0s@v1.36.3-k0s.2", "k0s@1.36.3-k0s.2"] {
        let arguments = |release| ["images", "--release", release, "-q"];
        assert_eq!(printed(&arguments(spelling)), printed(&arguments("k0s@v1.36.3+k0s.2")), "{spelling}");
    }

    let update = ["images", "--release", "k0s@v1.35.4+k0s.0,k0s@v1.36.3+k0s.2", "--with", "nllb:traefik"];
    let update = printed(&update);
    assert!(update.contains("traefik:v3.7.7-k0s.0") && update.contains("kube-proxy:v1.35.4"), "{update}");
    let unknown = printed(&["images", "--release", "k0s@v1.35.4+k0s.0", "--with", "nllb:traefik"]);
    assert!(unknown.starts_with("exit code 2\n") && unknown.contains("nllb:envoy"), "{unknown}");

    let json = printed(&["images", "--release", "k0s@v1.36.3+k0s.2", "--format", "json", "-q"]);
    let json: serde_json::Value = serde_json::from_str(json.split_once("\n\n").unwrap().1.trim()).unwrap();
    let pause = &json["releases"][0]["images"][0];
    assert_eq!(pause["ref"], "quay.io/k0sproject/pause:3.10.2-0");
    assert_eq!(pause["nodes"][0], "linux/amd64");
    assert_eq!(pause["pull"], "sandbox");
    assert_eq!(pause["config"], "spec.images.pause");

    let releases = printed(&["releases", "k0s"]);
    let newest = releases.lines().find(|line| line.starts_with("k0s@v1.36.3+k0s.2")).unwrap();
    assert!(newest.contains("2.3.3") && newest.contains("nllb:traefik"), "{newest}");
    assert!(printed(&["releases", "nonsense"]).starts_with("exit code 2\n"));
}
