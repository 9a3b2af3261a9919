//! Images that the stored configuration pins, and which of them k0s itself left there.
//!
//! k0s with dynamic configuration wrote the default versions of the release that created the object into it, unless
//! `StripDefaults` took them out; later releases obey them (k0s issues 5258 and 7708). No release repairs an object that
//! exists. A pin is recognised by comparing it with what every release has as its default.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::ClusterConfig;
use super::repository::{host, rewritten, rewritten_always};
use crate::catalog::{Catalog, CatalogError, Release, ReleaseId};

/// How deep `spec.images` is searched. k0s nests two levels.
const MAX_DEPTH: usize = 6;
/// Where the load balancers on the nodes have their images.
const LOAD_BALANCERS: [&str; 2] = [
    "spec.network.nodeLocalLoadBalancing.envoyProxy.image",
    "spec.network.nodeLocalLoadBalancing.traefik.image",
];

/// What a pinned image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The default of another release: what k0s left behind.
    Stale,
    /// The default of the release to go to; stale at the next upgrade.
    Redundant,
    /// A default image with a version that no release has as its default.
    VersionOverride,
    /// An image of another name; the version beside it is some release's default.
    ImageOverride,
    /// An image of the site's own.
    Custom,
}

impl Verdict {
    /// The name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::Redundant => "redundant",
            Self::VersionOverride => "version-override",
            Self::ImageOverride => "image-override",
            Self::Custom => "custom",
        }
    }

    /// Whether k0s left the pin behind.
    pub fn is_leftover(self) -> bool {
        matches!(self, Self::Stale | Self::Redundant)
    }
}

/// An image that the stored configuration states.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pin {
    /// Where, `spec.images.coredns`.
    pub path: String,
    /// The image without its tag; empty where only the version is stated.
    pub image: String,
    /// The tag; empty where only the image is stated.
    pub version: String,
    /// What the pin is.
    pub verdict: Verdict,
    /// The releases that have just this as their default, in order.
    pub releases: Vec<ReleaseId>,
}

impl Pin {
    /// Whether image and version are both stated.
    pub(super) fn is_complete(&self) -> bool {
        !self.image.is_empty() && !self.version.is_empty()
    }
}

/// The default image of one release at one path.
#[derive(Clone, Debug, PartialEq, Eq)]
struct DefaultImage {
    image: String,
    version: String,
}

/// The default images of every release, by the path that configures them.
#[derive(Debug, Default)]
pub struct Defaults {
    releases: Vec<(ReleaseId, BTreeMap<String, DefaultImage>)>,
}

impl Defaults {
    /// The defaults of all releases of `distro`.
    pub fn of(catalog: &Catalog, distro: &str) -> Result<Self, CatalogError> {
        let mut releases = Vec::new();
        for summary in catalog.releases(Some(distro))? {
            let release = catalog.release(&summary.id)?;
            releases.push((summary.id, images(&release)));
        }
        Ok(Self { releases })
    }

    /// What the releases have at `path`.
    fn at<'a>(&'a self, path: &'a str) -> impl Iterator<Item = (&'a ReleaseId, &'a DefaultImage)> {
        self.releases.iter().filter_map(move |(id, images)| Some((id, images.get(path)?)))
    }
}

fn images(release: &Release) -> BTreeMap<String, DefaultImage> {
    let mut images = BTreeMap::new();
    for item in &release.components {
        // What the catalog brings only for Windows nodes is what an operator should set, not a default of k0s.
        if item.component.when == ["windows"] {
            continue;
        }
        if let (Some(path), Some(tag)) = (&item.component.config, item.reference.tag()) {
            let image = item.component.image.clone();
            images.insert(path.clone(), DefaultImage { image, version: tag.to_string() });
        }
    }
    images
}

/// The pins of `config`, each judged for an upgrade to `target`.
pub fn pins(config: &ClusterConfig, defaults: &Defaults, target: &ReleaseId) -> Vec<Pin> {
    let mut found = Vec::new();
    if let Some(images) = config.at("spec.images") {
        collect(images, "spec.images", 0, &mut found);
    }
    for path in LOAD_BALANCERS {
        if let Some(image) = config.at(path) {
            collect(image, path, MAX_DEPTH, &mut found);
        }
    }
    let judged = |(path, image, version): (String, String, String)| {
        let (verdict, releases) = judge(&path, &image, &version, config.repository(), defaults, target);
        Pin { path, image, version, verdict, releases }
    };
    found.into_iter().map(judged).collect()
}

/// The releases that all leftovers agree with: the one that created the object, or a run of patches with the same images.
pub fn creators(pins: &[Pin]) -> Vec<ReleaseId> {
    let mut leftovers = pins.iter().filter(|pin| pin.verdict.is_leftover());
    let Some(first) = leftovers.next() else { return Vec::new() };
    leftovers.fold(first.releases.clone(), |mut common, pin| {
        common.retain(|release| pin.releases.contains(release));
        common
    })
}

/// The image configurations below `value`: objects that state an image, a version or both.
fn collect(value: &Value, path: &str, depth: usize, found: &mut Vec<(String, String, String)>) {
    let Some(object) = value.as_object() else { return };
    let part = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (image, version) = (part("image"), part("version"));
    if !image.is_empty() || !version.is_empty() {
        found.push((path.to_owned(), image, version));
    } else if depth < MAX_DEPTH {
        for (key, inner) in object {
            collect(inner, &format!("{path}.{key}"), depth + 1, found);
        }
    }
}

fn judge(
    path: &str,
    image: &str,
    version: &str,
    repository: &str,
    defaults: &Defaults,
    target: &ReleaseId,
) -> (Verdict, Vec<ReleaseId>) {
    // Half an image is completed from the release that reads it; k0s leaves no such thing behind.
    if image.is_empty() {
        return (Verdict::VersionOverride, Vec::new());
    }
    if version.is_empty() {
        return (Verdict::ImageOverride, Vec::new());
    }
    let same_version = |default: &DefaultImage| default.version == version;
    let exact: Vec<ReleaseId> = defaults
        .at(path)
        .filter(|(_, default)| same_version(default) && is_name(image, &default.image, repository))
        .map(|(id, _)| id.clone())
        .collect();
    if exact.contains(target) {
        return (Verdict::Redundant, exact);
    }
    if !exact.is_empty() {
        return (Verdict::Stale, exact);
    }
    // The name of an earlier repository, which k0s rewrote into the object (k0s issue 8361). Without a repository the
    // name is somebody's choice.
    let moved: Vec<ReleaseId> = defaults
        .at(path)
        .filter(|(_, default)| {
            !repository.is_empty() && same_version(default) && is_moved(image, &default.image)
        })
        .map(|(id, _)| id.clone())
        .collect();
    if !moved.is_empty() {
        return (Verdict::Stale, moved);
    }
    if defaults.at(path).any(|(_, default)| is_name(image, &default.image, repository)) {
        return (Verdict::VersionOverride, Vec::new());
    }
    let materialised: Vec<ReleaseId> =
        defaults.at(path).filter(|(_, default)| same_version(default)).map(|(id, _)| id.clone()).collect();
    if materialised.is_empty() {
        (Verdict::Custom, materialised)
    } else {
        (Verdict::ImageOverride, materialised)
    }
}

/// Whether `image` is the default, as it is, rewritten once, or rewritten twice without looking (k0s issue 6230).
fn is_name(image: &str, default: &str, repository: &str) -> bool {
    image == default
        || image == rewritten(repository, default)
        || image == rewritten_always(repository, &rewritten_always(repository, default))
}

/// Whether `image` is the default's path under some other repository.
fn is_moved(image: &str, default: &str) -> bool {
    let path = host(default).map_or(default, |host| &default[host.len() + 1..]);
    image
        .strip_suffix(path)
        .and_then(|prefix| prefix.strip_suffix('/'))
        .is_some_and(|prefix| !prefix.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn judged(config: &Value, target: &str) -> Vec<Pin> {
        let catalog = Catalog::builtin().unwrap();
        let config = ClusterConfig::parse(
            "k0s",
            "config.yaml",
            &json!({"kind": "ClusterConfig", "spec": config}).to_string(),
        );
        pins(&config.unwrap(), &Defaults::of(&catalog, "k0s").unwrap(), &target.parse().unwrap())
    }

    /// What a release leaves behind: all its defaults, rewritten `times` to `repository`.
    fn leftovers(release: &str, repository: &str, times: usize) -> Value {
        let catalog = Catalog::builtin().unwrap();
        let mut spec = json!({"images": {"default_pull_policy": "Never", "repository": repository}});
        for (path, default) in images(&catalog.release(&release.parse().unwrap()).unwrap()) {
            let mut image = default.image;
            for _ in 0..times {
                image = rewritten_always(repository, &image);
            }
            let mut place = &mut spec;
            for key in path.split('.').skip(1) {
                place = &mut place[key];
            }
            *place = json!({"image": image, "version": default.version});
        }
        spec
    }

    #[test]
    fn each_verdict() {
        let spec = json!({"images": {
            "coredns": {"image": "quay.io/k0sproject/coredns", "version": "1.11.1"},
            "konnectivity": {"image": "quay.io/k0sproject/apiserver-network-proxy-agent", "version": "v0.30.3"},
            "kubeproxy": {"image": "quay.io/k0sproject/kube-proxy", "version": "v1.30.0-patched"},
            "pause": {"image": "site.local/pause", "version": "3.9"},
            "metricsserver": {"image": "site.local/ms", "version": "1"},
            "calico": {"cni": {"version": "v3.27.3-0"}, "node": {"image": "site.local/node"}, "kubecontrollers": {}},
        }});
        let found = judged(&spec, "k0s@v1.30.3+k0s.0");
        let verdict = |path: &str| found.iter().find(|pin| pin.path == path).map(|pin| pin.verdict);
        assert_eq!(verdict("spec.images.coredns"), Some(Verdict::Stale));
        assert_eq!(verdict("spec.images.konnectivity"), Some(Verdict::Redundant));
        assert_eq!(verdict("spec.images.kubeproxy"), Some(Verdict::VersionOverride));
        assert_eq!(verdict("spec.images.pause"), Some(Verdict::ImageOverride));
        assert_eq!(verdict("spec.images.metricsserver"), Some(Verdict::Custom));
        assert_eq!(verdict("spec.images.calico.cni"), Some(Verdict::VersionOverride), "half an image");
        assert_eq!(verdict("spec.images.calico.node"), Some(Verdict::ImageOverride), "half an image");
        assert_eq!(verdict("spec.images.calico.kubecontrollers"), None, "nothing is stated");
    }

    #[test]
    fn the_creator_is_found_whatever_the_repository() {
        for (release, target, repository, times) in [
            ("k0s@v1.29.7+k0s.0", "k0s@v1.30.3+k0s.0", "", 0),
            ("k0s@v1.34.3+k0s.0", "k0s@v1.34.4+k0s.0", "site.local:5000/k0s", 1),
            ("k0s@v1.33.9+k0s.0", "k0s@v1.35.7+k0s.0", "site.local:5000/mirror/k0s", 2),
        ] {
            let found = judged(&leftovers(release, repository, times), target);
            assert!(found.len() >= 10, "{release}: {found:?}");
            assert!(found.iter().all(|pin| pin.verdict.is_leftover()), "{release}: {found:?}");
            assert!(found.iter().any(|pin| pin.verdict == Verdict::Stale), "{release}");
            assert_eq!(creators(&found), [release.parse().unwrap()], "{release}");
        }
    }

    #[test]
    fn every_release_is_recognised_by_what_it_leaves() {
        let catalog = Catalog::builtin().unwrap();
        let defaults = Defaults::of(&catalog, "k0s").unwrap();
        let target: ReleaseId = "k0s@v1.36.3+k0s.2".parse().unwrap();
        for (id, images) in &defaults.releases {
            let spec = leftovers(&id.to_string(), "", 0);
            let config = json!({"kind": "ClusterConfig", "spec": spec}).to_string();
            let found =
                pins(&ClusterConfig::parse("k0s", "config.yaml", &config).unwrap(), &defaults, &target);
            let creators = creators(&found);
            assert!(creators.contains(id) && creators.len() <= 2, "{id}: {creators:?}");
            assert_eq!(found.len(), images.len(), "{id}");
        }
    }

    #[test]
    fn an_old_repository_is_recognised_where_there_is_a_new_one() {
        let mut spec = leftovers("k0s@v1.31.2+k0s.0", "old.local/k0s", 1);
        spec["images"]["repository"] = json!("new.local/k0s");
        let found = judged(&spec, "k0s@v1.32.4+k0s.0");
        assert!(found.iter().all(|pin| pin.verdict.is_leftover()), "{found:?}");
        assert_eq!(creators(&found), ["k0s@v1.31.2+k0s.0".parse().unwrap()]);
        spec["images"]["repository"] = json!("");
        let chosen = judged(&spec, "k0s@v1.32.4+k0s.0");
        assert!(chosen.iter().all(|pin| pin.verdict == Verdict::ImageOverride), "{chosen:?}");
    }

    proptest! {
        #[test]
        fn never_panics(image in ".{0,40}", version in ".{0,20}", repository in ".{0,30}") {
            let defaults = Defaults { releases: vec![(
                "k0s@v1.2.3".parse().unwrap(),
                BTreeMap::from([("spec.images.pause".to_owned(),
                    DefaultImage { image: "registry.k8s.io/pause".into(), version: "3.9".into() })]),
            )] };
            judge("spec.images.pause", &image, &version, &repository, &defaults, &"k0s@v1.2.4".parse().unwrap());
        }
    }
}
