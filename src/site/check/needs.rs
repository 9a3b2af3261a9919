//! What a node asks for once it runs a release, given the configuration as that release reads it.

use std::collections::BTreeSet;

use super::repository::{bare, host, rewritten, rewritten_always};
use super::{ClusterConfig, Node};
use crate::catalog::{Component, Os, PullPolicy, Release, ReleaseComponent};
use crate::oci::Reference;
use crate::select::{Band, Client, Runtime, node_bands};

/// Components that run on nodes of the control plane only: kubeadm's static pods, and RKE2's.
const CONTROL_PLANE: [&str; 6] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "etcd",
    "hardened-etcd",
    "rke2-cloud-provider",
];

/// An image that a node asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    /// The reference as the node asks for it.
    pub(super) image: String,
    /// The same, and the names under which a registry finds it; empty where it is no reference.
    pub(super) names: Vec<Reference>,
    /// The component that runs it.
    pub(super) component: String,
    /// Who decides whether it is pulled.
    pub(super) pull: PullPolicy,
    /// Where the configuration pins it.
    pub(super) pinned: Option<String>,
    /// Why there is no such image for the node, where that is known.
    pub(super) lacking: Option<String>,
}

/// A release with the configuration that it reads.
pub(super) struct Plan<'a> {
    pub(super) release: &'a Release,
    pub(super) config: Option<&'a ClusterConfig>,
    /// Features that the configuration does not show, such as k0s' `--enable-metrics-scraper`.
    pub(super) with: &'a [String],
    /// Components that are turned off.
    pub(super) without: &'a [String],
    /// The sandbox image that the container runtimes are configured with, where it is not their own.
    pub(super) sandbox: Option<&'a Reference>,
}

impl Plan<'_> {
    pub(super) fn is_k0s(&self) -> bool {
        self.release.id.distro == "k0s"
    }

    /// The features that are on.
    pub(super) fn features(&self) -> BTreeSet<String> {
        let mut features: BTreeSet<String> = self.with.iter().cloned().collect();
        match self.config {
            Some(config) if self.is_k0s() => {
                features.insert(config.network().to_owned());
                features.extend(config.load_balancer().map(str::to_owned));
            }
            Some(config) if !config.texts("cni").is_empty() => {
                features.extend(config.texts("cni").into_iter().map(str::to_owned));
            }
            _ => features.extend(self.release.defaults.iter().cloned()),
        }
        features
    }

    /// What `node` asks for.
    pub(super) fn asks(&self, node: &Node) -> Vec<Ask> {
        let features = self.features();
        let mut asks: Vec<Ask> = Vec::new();
        for item in self.release.components.iter().filter(|item| self.runs(item, node, &features)) {
            let ask = self.ask(item, node);
            if asks.iter().all(|other| other.image != ask.image) {
                asks.push(ask);
            }
        }
        asks
    }

    fn runs(&self, item: &ReleaseComponent, node: &Node, features: &BTreeSet<String>) -> bool {
        let Component { name, when, runtimes, requires, .. } = &item.component;
        let on = when.is_empty() || when.iter().any(|feature| features.contains(feature));
        let of_runtime = |text: &String| {
            let asking: Option<Runtime> = text.parse().ok();
            asking.zip(node.runtime.as_ref()).is_some_and(|(asking, own)| asking.shares_versions(own))
        };
        let configured = |(path, value): (&String, &String)| {
            self.config.and_then(|config| config.text(path)).is_none_or(|found| found == value)
        };
        on && self.is_for(item, node)
            && !self.without.contains(name)
            && (runtimes.is_empty() || runtimes.iter().any(of_runtime))
            && requires.iter().all(configured)
            && !(name.starts_with("kube-proxy") && self.config.is_some_and(ClusterConfig::without_kube_proxy))
            && (node.control_plane || !CONTROL_PLANE.contains(&name.as_str()))
    }

    /// Whether the component runs on the node's operating system. k0s releases without a sandbox image for Windows give
    /// Windows workers the one for Linux.
    fn is_for(&self, item: &ReleaseComponent, node: &Node) -> bool {
        let component = &item.component;
        if !node.kind.is_windows() {
            return component.os.contains(&Os::Linux);
        }
        component.os.contains(&Os::Windows)
            || (self.is_k0s() && component.pull == PullPolicy::Sandbox && !self.has_windows_sandbox())
    }

    /// Whether Windows workers have a sandbox image of their own.
    pub(super) fn has_windows_sandbox(&self) -> bool {
        let own = |item: &ReleaseComponent| {
            item.component.pull == PullPolicy::Sandbox
                && item.component.os.contains(&Os::Windows)
                && item.component.when.is_empty()
        };
        self.release.components.iter().any(own)
    }

    fn ask(&self, item: &ReleaseComponent, node: &Node) -> Ask {
        let component = &item.component;
        let (image, names, pinned) = self.named(item);
        let architecture = node.kind.architecture();
        let unknown = pinned.is_none()
            && !node.kind.is_windows()
            && !component.arch.is_empty()
            && !component.arch.iter().any(|arch| arch == architecture);
        Ask {
            names,
            component: component.name.clone(),
            pull: self.policy(component),
            lacking: unknown.then(|| {
                format!("{} publishes it for {} only", self.release.id.distro, component.arch.join(", "))
            }),
            image,
            pinned,
        }
    }

    fn policy(&self, component: &Component) -> PullPolicy {
        match (component.pull, self.config) {
            (PullPolicy::Default, Some(config)) if self.is_k0s() => {
                let own = component.config.as_deref().and_then(|path| config.load_balancer_policy(path));
                own.unwrap_or_else(|| config.pull_policy())
            }
            (PullPolicy::Default, _) => PullPolicy::IfNotPresent,
            (policy, _) => policy,
        }
    }

    /// The image of a component, the names that a registry finds it under, and where it is pinned.
    fn named(&self, item: &ReleaseComponent) -> (String, Vec<Reference>, Option<String>) {
        let sandbox = item.component.pull == PullPolicy::Sandbox;
        if let Some(reference) = self.sandbox.filter(|_| sandbox) {
            return (reference.to_string(), vec![reference.clone()], None);
        }
        let Some(config) = self.config else { return plain(&item.reference) };
        match self.release.id.distro.as_str() {
            "k0s" => self.k0s(item, config),
            "kubeadm" if item.component.runtimes.is_empty() => kubeadm(item, config),
            "k3s" | "rke2" => rancher(item, config),
            _ => plain(&item.reference),
        }
    }

    fn k0s(
        &self,
        item: &ReleaseComponent,
        config: &ClusterConfig,
    ) -> (String, Vec<Reference>, Option<String>) {
        let component = &item.component;
        let tag = item.reference.tag().map(ToString::to_string).unwrap_or_default();
        let part = |key: &str| config.text(&format!("{}.{key}", component.config.as_deref()?));
        let (stated, version) = (part("image"), part("version"));
        let own = stated.unwrap_or(&component.image);
        let version = version.unwrap_or(&tag);
        let repository = if component.is_rewritten() { config.repository() } else { "" };
        let image = if self.release.facts.repository_idempotent == Some(false) {
            rewritten_always(repository, own)
        } else {
            rewritten(repository, own)
        };
        let mut names = vec![image.clone()];
        if let Some(rest) = bare(repository, &image) {
            names.extend(
                [own, &component.image].into_iter().filter_map(host).map(|host| format!("{host}/{rest}")),
            );
        }
        let pinned =
            component.config.clone().filter(|_| part("image").is_some() || part("version").is_some());
        let texts = names.iter().map(|name| format!("{name}:{version}"));
        (format!("{image}:{version}"), references(texts), pinned)
    }
}

/// The runtimes that ask for images on a node while it goes to a release: its own, and the one that the release brings.
/// The sandbox image is asked for by the new one only.
pub(super) fn bands(release: &Release, node: &Node, pull: PullPolicy) -> Vec<&'static Band> {
    let managed = node.runtime.as_ref().is_none_or(|runtime| runtime.client() == Client::Containerd);
    let brought = release.facts.containerd.as_deref().filter(|_| managed);
    let brought: Option<Runtime> = brought.and_then(|version| format!("containerd@{version}").parse().ok());
    let own = node.runtime.clone().filter(|_| brought.is_none() || pull != PullPolicy::Sandbox);
    let runtimes: Vec<Runtime> = brought.into_iter().chain(own).collect();
    node_bands(&node.kind, &runtimes)
}

/// The references that can be read, each once, with the present name of Kubernetes' old registry.
fn references(texts: impl Iterator<Item = String>) -> Vec<Reference> {
    let mut found: Vec<Reference> = Vec::new();
    for text in texts {
        let moved = text.strip_prefix("k8s.gcr.io/").map(|rest| format!("registry.k8s.io/{rest}"));
        for reference in std::iter::once(text).chain(moved).filter_map(|text| text.parse().ok()) {
            if !found.contains(&reference) {
                found.push(reference);
            }
        }
    }
    found
}

fn plain(reference: &Reference) -> (String, Vec<Reference>, Option<String>) {
    let image = reference.to_string();
    (image.clone(), references(std::iter::once(image)), None)
}

/// The image of a kubeadm component; with `imageRepository` the path before its name is dropped, also that of coredns.
///
/// Source: kubernetes/kubernetes `cmd/kubeadm/app/images/images.go`.
fn kubeadm(item: &ReleaseComponent, config: &ClusterConfig) -> (String, Vec<Reference>, Option<String>) {
    let section = match item.component.name.as_str() {
        "coredns" => Some("dns"),
        "etcd" => Some("etcd.local"),
        _ => None,
    };
    let part = |key: &str| config.text(&format!("{}.{key}", section?));
    let original = item.reference.to_string();
    let tag = part("imageTag").map(str::to_owned).or_else(|| item.reference.tag().map(ToString::to_string));
    let repository = part("imageRepository").or_else(|| config.text("imageRepository"));
    let (Some(tag), "registry.k8s.io" | "k8s.gcr.io") = (tag, item.reference.host()) else {
        return plain(&item.reference);
    };
    let path = item.reference.repository();
    let last = path.rsplit('/').next().unwrap_or(path);
    let own = format!("{}/{path}:{tag}", item.reference.host());
    let image = repository.map_or_else(|| own.clone(), |repository| format!("{repository}/{last}:{tag}"));
    let pinned = (image != original).then(|| "imageRepository".to_owned());
    (image.clone(), references([image, own].into_iter()), pinned)
}

/// The image of a k3s or RKE2 component under `system-default-registry`.
fn rancher(item: &ReleaseComponent, config: &ClusterConfig) -> (String, Vec<Reference>, Option<String>) {
    let pause = config.text("pause-image").filter(|_| item.component.pull == PullPolicy::Sandbox);
    let original = pause.map_or_else(|| item.reference.to_string(), str::to_owned);
    let registry = config.text("system-default-registry").filter(|_| pause.is_none());
    let image = match (registry, original.strip_prefix("docker.io/")) {
        (Some(registry), Some(path)) => format!("{registry}/{path}"),
        _ => original.clone(),
    };
    let pinned = pause.map(|_| "pause-image".to_owned());
    (image.clone(), references([image, original].into_iter()), pinned)
}
