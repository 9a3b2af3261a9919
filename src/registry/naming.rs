//! Which repository a request means.
//!
//! Images keep their original names, `registry.k8s.io/pause`, but clients of a mirror say only a part of that, each in its
//! own way: containerd adds `?ns=registry.k8s.io` to the path, with or without the host in the path as well; CRI-O and
//! podman put the host into the path; old Docker is led here by DNS and says it in the `Host` header; k3s
//! (`system-default-registry`), kubeadm (`imageRepository`) and k0s (`images.repository`) leave the host out. From all
//! that a list of complete names is made, the likeliest first.

use std::collections::BTreeMap;

use crate::oci::{RepositoryName, canonical_host};

/// How this site names things.
#[derive(Clone, Debug, Default)]
pub struct Naming {
    /// What `Host` headers mean, where that is not the host itself: the name of this server to the registry host that it
    /// stands for.
    pub hosts: BTreeMap<String, String>,
    /// Path prefixes that nodes put before names (k0s `images.repository: site:5000/mirror`) and that mean nothing. They
    /// are taken off as often as they are there, because k0s repeats them (k0s issues 6230 and 8361).
    pub prefixes: Vec<String>,
}

/// What a request says about the repository that it means.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The name in the path.
    pub name: &'a RepositoryName,
    /// The value of the query parameter `ns`.
    pub ns: Option<&'a str>,
    /// The value of the `Host` header.
    pub host: Option<&'a str>,
}

/// The repositories that a request can mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidates {
    /// Complete names in the order in which they are looked for; never empty.
    pub names: Vec<RepositoryName>,
    /// Paths without any host, which may be found under any host. Empty when the request names a host.
    pub paths: Vec<String>,
}

impl Naming {
    /// The repositories that `asked` can mean.
    pub fn candidates(&self, asked: Asked<'_>) -> Candidates {
        let mut list = List::default();
        let stripped = self.strip(asked.name);
        let name = stripped.as_ref().unwrap_or(asked.name);
        let host = asked.host.map(without_default_port);
        // A client whose mirror is the image's own registry has no more to say than its Host header does.
        let ns = asked.ns.filter(|ns| Some(*ns) != host);
        // What was pushed here is found again under just the name that it was pushed with, whatever that may mean to others.
        // Only old Docker's Host header says more than a path without a host.
        if asked.ns.is_none() && asked.name.host().is_some() {
            list.push(asked.name.as_str());
        }
        match (name.host(), ns) {
            (Some(inner), Some(ns)) if !same_host(inner, ns) => {
                list.add(ns, name.as_str());
                list.add(inner, name.path());
            }
            (Some(inner), _) => list.add(inner, name.path()),
            (None, Some(ns)) => list.add(ns, name.as_str()),
            (None, None) => {
                if let Some(host) = host {
                    list.add(self.hosts.get(host).map_or(host, String::as_str), name.as_str());
                }
                list.push(asked.name.as_str());
                list.push(name.as_str());
                list.paths.extend(paths(name.as_str()));
            }
        }
        if asked.ns.is_none() {
            list.push(asked.name.as_str());
        }
        if list.names.is_empty() {
            list.names.push(asked.name.clone());
        }
        Candidates { names: list.names, paths: list.paths }
    }

    /// The complete name that a request most probably means, for somebody who is to get what was not found. As Docker
    /// does, names without a host are completed to `docker.io`.
    pub fn probable(&self, asked: Asked<'_>) -> Option<RepositoryName> {
        let stripped = self.strip(asked.name);
        let name = stripped.as_ref().unwrap_or(asked.name);
        let host = asked.host.map(without_default_port);
        let ns = asked.ns.filter(|ns| Some(*ns) != host);
        let told = host.map(|host| self.hosts.get(host).map_or(host, String::as_str));
        let host = match (name.host(), ns) {
            (Some(inner), Some(ns)) if !same_host(inner, ns) => {
                // A mirror of a mirror: the inner name is the one that others know as well.
                if is_known_shape(inner) { inner } else { ns }
            }
            (Some(inner), _) => inner,
            (None, Some(ns)) => ns,
            (None, None) => told.filter(|host| is_known_shape(host)).unwrap_or("docker.io"),
        };
        let host = canonical_host(host);
        paths_at(host, name.path()).into_iter().find_map(|path| format!("{host}/{path}").parse().ok())
    }

    /// The name without what stands before it: configured prefixes, and anything before a second registry host.
    fn strip(&self, name: &RepositoryName) -> Option<RepositoryName> {
        let mut rest = name.as_str();
        loop {
            let shorter = self.prefixes.iter().find_map(|prefix| {
                let prefix = prefix.trim_matches('/');
                rest.strip_prefix(prefix)?.strip_prefix('/').filter(|_| !prefix.is_empty())
            });
            match shorter {
                Some(shorter) => rest = shorter,
                None => break,
            }
        }
        // `mirror/registry.k8s.io/pause`, `registry.k8s.io/registry.k8s.io/pause`: the last host counts.
        let mut from = 0;
        let mut start = 0;
        for component in rest.split('/') {
            let is_last = start + component.len() == rest.len();
            if !is_last && is_known_shape(component) {
                from = start;
            }
            start += component.len() + 1;
        }
        let rest = &rest[from..];
        if rest.len() == name.as_str().len() { None } else { rest.parse().ok() }
    }
}

/// Whether a component in the middle of a path is a registry host beyond doubt: it ends in a well-known registry's domain.
/// A dot alone is not enough there, repositories may have dots in their names.
fn is_known_shape(component: &str) -> bool {
    const KNOWN: [&str; 10] = [
        "docker.io",
        "registry.k8s.io",
        "k8s.gcr.io",
        "quay.io",
        "ghcr.io",
        "gcr.io",
        "mcr.microsoft.com",
        "public.ecr.aws",
        "registry.gitlab.com",
        "nvcr.io",
    ];
    KNOWN.contains(&component) || canonical_host(component) != component
}

/// Collects names without repeating any.
#[derive(Default)]
struct List {
    names: Vec<RepositoryName>,
    paths: Vec<String>,
}

impl List {
    /// Adds `path` at `host`, under all names that the two are known by.
    fn add(&mut self, host: &str, path: &str) {
        let canonical = canonical_host(host);
        self.push(&format!("{host}/{path}"));
        for path in paths_at(canonical, path) {
            self.push(&format!("{canonical}/{path}"));
        }
    }

    /// Adds a name, if it is one.
    fn push(&mut self, name: &str) {
        if let Ok(name) = name.parse()
            && !self.names.contains(&name)
        {
            self.names.push(name);
        }
    }
}

fn same_host(a: &str, b: &str) -> bool {
    canonical_host(a) == canonical_host(b)
}

/// The paths that `path` can have at `host`, the likeliest first.
fn paths_at(host: &str, path: &str) -> Vec<String> {
    match (host, path) {
        // Docker Hub's official images.
        ("docker.io", path) if !path.contains('/') => vec![format!("library/{path}"), path.to_owned()],
        // kubeadm drops the doubled segment when its imageRepository is changed.
        ("registry.k8s.io", "coredns") => vec!["coredns/coredns".to_owned(), path.to_owned()],
        _ => vec![path.to_owned()],
    }
}

/// The paths that a name without a host can have at any host.
fn paths(path: &str) -> Vec<String> {
    let mut paths = vec![path.to_owned()];
    if !path.contains('/') {
        paths.push(format!("library/{path}"));
    }
    if path == "coredns" {
        paths.push("coredns/coredns".to_owned());
    }
    paths
}

/// `Host` values carry the port unless it is the default one, but some proxies add it all the same.
fn without_default_port(host: &str) -> &str {
    host.strip_suffix(":443").or_else(|| host.strip_suffix(":80")).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SITE: Option<&str> = Some("site.local:5000");

    fn names(naming: &Naming, path: &str, ns: Option<&str>, host: Option<&str>) -> Vec<String> {
        let name = path.parse().unwrap();
        let candidates = naming.candidates(Asked { name: &name, ns, host });
        candidates.names.iter().map(ToString::to_string).collect()
    }

    #[track_caller]
    fn check(path: &str, ns: Option<&str>, host: Option<&str>, expected: &[&str]) {
        assert_eq!(names(&Naming::default(), path, ns, host), expected);
    }

    #[test]
    fn containerd_says_it_in_the_query() {
        check("pause", Some("registry.k8s.io"), SITE, &["registry.k8s.io/pause"]);
        check("k0sproject/pause", Some("quay.io"), SITE, &["quay.io/k0sproject/pause"]);
        check("a/b", Some("gcr.io:8443"), SITE, &["gcr.io:8443/a/b"]);
    }

    #[test]
    fn a_path_with_the_host_is_not_doubled() {
        check("registry.k8s.io/pause", Some("registry.k8s.io"), SITE, &["registry.k8s.io/pause"]);
        check("docker.io/library/nginx", Some("registry-1.docker.io"), SITE, &["docker.io/library/nginx"]);
        check(
            "registry.k8s.io/registry.k8s.io/pause",
            None,
            SITE,
            &["registry.k8s.io/registry.k8s.io/pause", "registry.k8s.io/pause"],
        );
    }

    #[test]
    fn a_mirror_of_a_mirror_may_mean_either() {
        check(
            "registry.k8s.io/pause",
            Some("harbor.corp"),
            SITE,
            &["harbor.corp/registry.k8s.io/pause", "registry.k8s.io/pause"],
        );
    }

    #[test]
    fn podman_says_it_in_the_path() {
        check("registry.k8s.io/pause", None, SITE, &["registry.k8s.io/pause"]);
        check("acme.corp/team/app", None, SITE, &["acme.corp/team/app"]);
    }

    #[test]
    fn old_docker_says_it_in_the_host_header() {
        check("pause", None, Some("registry.k8s.io"), &["registry.k8s.io/pause", "pause"]);
        check("pause", None, Some("registry.k8s.io:443"), &["registry.k8s.io/pause", "pause"]);
        check(
            "library/nginx",
            None,
            Some("registry-1.docker.io"),
            &["registry-1.docker.io/library/nginx", "docker.io/library/nginx", "library/nginx"],
        );
        let naming = Naming { hosts: [("hub.site".into(), "docker.io".into())].into(), ..Naming::default() };
        let found = names(&naming, "nginx", None, Some("hub.site"));
        assert_eq!(found, ["docker.io/nginx", "docker.io/library/nginx", "nginx"]);
    }

    #[test]
    fn aliases() {
        check("pause", Some("k8s.gcr.io"), SITE, &["k8s.gcr.io/pause", "registry.k8s.io/pause"]);
        check("nginx", Some("docker.io"), SITE, &["docker.io/nginx", "docker.io/library/nginx"]);
        check(
            "nginx",
            Some("index.docker.io"),
            SITE,
            &["index.docker.io/nginx", "docker.io/library/nginx", "docker.io/nginx"],
        );
        check(
            "registry.k8s.io/coredns",
            None,
            SITE,
            &["registry.k8s.io/coredns", "registry.k8s.io/coredns/coredns"],
        );
    }

    #[test]
    fn without_a_host_any_host_will_do() {
        let name = "rancher/mirrored-pause".parse().unwrap();
        let found = Naming::default().candidates(Asked { name: &name, ns: None, host: SITE });
        assert_eq!(found.paths, ["rancher/mirrored-pause"]);
        let name = "coredns".parse().unwrap();
        let found = Naming::default().candidates(Asked { name: &name, ns: None, host: None });
        assert_eq!(found.paths, ["coredns", "library/coredns", "coredns/coredns"]);
        // The namespace is decisive: an image of the same path elsewhere is another image.
        let found = Naming::default().candidates(Asked { name: &name, ns: Some("quay.io"), host: None });
        assert_eq!(found.paths, [""; 0]);
        // Unless it only repeats whom the client is talking to.
        let found = Naming::default().candidates(Asked { name: &name, ns: SITE, host: SITE });
        assert_eq!(found.paths.len(), 3);
    }

    #[test]
    fn prefixes_of_k0s_are_taken_off_however_often() {
        let naming = Naming { prefixes: vec!["mirror".into(), "old/one/".into()], ..Naming::default() };
        for path in
            ["mirror/k0sproject/pause", "mirror/mirror/k0sproject/pause", "mirror/old/one/k0sproject/pause"]
        {
            let name = path.parse().unwrap();
            let found = naming.candidates(Asked { name: &name, ns: None, host: None });
            assert_eq!(found.paths, ["k0sproject/pause"]);
            assert!(found.names.contains(&name));
        }
        let found = names(&naming, "mirror/registry.k8s.io/pause", None, None);
        assert_eq!(found, ["registry.k8s.io/pause", "mirror/registry.k8s.io/pause"]);
        // Without being told, a first segment is part of the name.
        check("mirror/pause", None, None, &["mirror/pause"]);
        check("mirror/quay.io/a/b", None, None, &["quay.io/a/b", "mirror/quay.io/a/b"]);
    }

    #[test]
    fn what_is_missing_is_named_so_that_it_can_be_fetched() {
        let naming = Naming { prefixes: vec!["mirror".into()], ..Naming::default() };
        let probable = |path: &str, ns, host| {
            let name = path.parse().unwrap();
            naming.probable(Asked { name: &name, ns, host }).unwrap().to_string()
        };
        assert_eq!(probable("pause", Some("k8s.gcr.io"), SITE), "registry.k8s.io/pause");
        assert_eq!(probable("registry.k8s.io/coredns", None, SITE), "registry.k8s.io/coredns/coredns");
        assert_eq!(probable("registry.k8s.io/pause", Some("harbor.corp"), SITE), "registry.k8s.io/pause");
        assert_eq!(probable("mirror/rancher/pause", None, SITE), "docker.io/rancher/pause");
        assert_eq!(probable("nginx", None, SITE), "docker.io/library/nginx");
        assert_eq!(probable("nginx", None, Some("registry-1.docker.io")), "docker.io/library/nginx");
        assert_eq!(probable("a/b", None, Some("quay.io")), "quay.io/a/b");
        assert_eq!(probable("a/b", Some("acme.corp"), SITE), "acme.corp/a/b");
    }

    #[test]
    fn nonsense_in_the_query_finds_nothing() {
        check("pause", Some("../etc"), None, &["pause"]);
        check("pause", Some(""), None, &["pause"]);
    }

    proptest! {
        #[test]
        fn there_is_always_a_candidate(
            name in "([a-z0-9.]{1,8}(:[0-9]{2})?/)?[a-z0-9]{1,5}(/[a-z0-9]{1,5}){0,3}",
            ns in proptest::option::of("\\PC{0,20}"),
            host in proptest::option::of("\\PC{0,20}"),
        ) {
            if let Ok(name) = name.parse::<RepositoryName>() {
                let naming = Naming { prefixes: vec!["a".into(), String::new()], ..Naming::default() };
                let found = naming.candidates(Asked { name: &name, ns: ns.as_deref(), host: host.as_deref() });
                prop_assert!(!found.names.is_empty());
                if ns.is_none() {
                    prop_assert!(found.names.contains(&name));
                }
            }
        }
    }
}
