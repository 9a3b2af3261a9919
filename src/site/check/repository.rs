//! How `spec.images.repository` of k0s changes the names of images.

/// The registry host of an image: what stands before the first slash, where it can only be a host.
pub(super) fn host(image: &str) -> Option<&str> {
    let (first, _) = image.split_once('/')?;
    (first.contains(['.', ':']) || first == "localhost").then_some(first)
}

/// An image's name under `repository`, unless it is there already.
///
/// Source: k0s `pkg/apis/k0s/v1beta1/images.go`, releases that have the fix of k0s issue 6230.
pub(super) fn rewritten(repository: &str, image: &str) -> String {
    if image.starts_with(repository) { image.to_owned() } else { rewritten_always(repository, image) }
}

/// As [`rewritten`], in releases that do not look whether the name is there already.
pub(super) fn rewritten_always(repository: &str, image: &str) -> String {
    match host(image) {
        _ if repository.is_empty() => image.to_owned(),
        Some(host) => format!("{repository}{}", &image[host.len()..]),
        None => format!("{repository}/{image}"),
    }
}

/// What is left of a rewritten name without host and path of `repository`, however often the path stands there: what a
/// registry finds that answers for several.
pub(super) fn bare<'a>(repository: &str, image: &'a str) -> Option<&'a str> {
    let (registry, path) = match host(repository) {
        Some(host) => (host, repository[host.len()..].trim_matches('/')),
        None => (repository, ""),
    };
    let mut rest = image.strip_prefix(registry).filter(|_| !registry.is_empty())?.strip_prefix('/')?;
    while !path.is_empty()
        && let Some(shorter) = rest.strip_prefix(path).and_then(|rest| rest.strip_prefix('/'))
    {
        rest = shorter;
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_under_a_repository() {
        for (repository, image, expected) in [
            ("", "quay.io/k0sproject/pause", "quay.io/k0sproject/pause"),
            ("site.local:5000", "quay.io/k0sproject/pause", "site.local:5000/k0sproject/pause"),
            ("site.local/mirror", "registry.k8s.io/pause", "site.local/mirror/pause"),
            ("site.local/mirror", "site.local/mirror/pause", "site.local/mirror/pause"),
            ("site.local", "rancher/pause", "site.local/rancher/pause"),
            ("site.local", "localhost/pause", "site.local/pause"),
        ] {
            assert_eq!(rewritten(repository, image), expected, "{image}");
        }
        assert_eq!(rewritten_always("site.local/m", "site.local/m/pause"), "site.local/m/m/pause");
    }

    #[test]
    fn a_mirror_sees_the_bare_name() {
        assert_eq!(bare("site.local:5000", "site.local:5000/k0sproject/pause"), Some("k0sproject/pause"));
        assert_eq!(bare("site.local/m", "site.local/m/m/k0sproject/pause"), Some("k0sproject/pause"));
        assert_eq!(bare("site.local/m", "quay.io/pause"), None);
        assert_eq!(bare("", "/pause"), None);
    }

    proptest! {
        #[test]
        fn rewriting_again_changes_nothing(repository in "[a-z.:/]{0,12}", image in "[a-z.:/]{0,20}") {
            let once = rewritten(&repository, &image);
            prop_assert_eq!(rewritten(&repository, &once), once);
        }

        #[test]
        fn never_panics(repository in ".{0,20}", image in ".{0,30}") {
            let _ = bare(&repository, &image);
            let _ = rewritten_always(&repository, &image);
        }
    }
}
