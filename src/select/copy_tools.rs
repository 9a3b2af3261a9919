//! Tools that copy images: they are asked for a platform and know nothing of the host that will run the
//! image.

use super::containerd_linux::nearest;
use super::containerd_windows::{builds, first_compatible};
use super::rule::{Found, Needs, Note, Order, Selection, find, find_entry};
use super::spelling::{Era, Folded, Vector};
use super::versions::Floor;
use crate::oci::{Descriptor, Digest, Platform, REFERENCE_DIGEST, media_type};

/// The annotation of an entry whose layers are compressed with zstd (containers/image
/// `internal/manifest/oci_index.go`, `OCI1InstanceAnnotationCompressionZSTD`).
pub(super) const ZSTD: &str = "io.github.containers.compression.zstd";

/// Everything that is built on containers/image up to 5.24 (skopeo 1.11, podman 4.4, buildah 1.29, CRI-O
/// 1.26): the first entry of the nearest platform.
///
/// Source: `ChooseInstance` in containers/image `manifest/oci_index.go@v5.24.2`.
pub(super) fn containers_image_to_5_24(host: &Platform, entries: &[Descriptor]) -> Selection {
    containers_image(host, entries, |_| false)
}

/// Everything that is built on containers/image from 5.25 on (skopeo 1.12, podman 4.5, buildah 1.30, CRI-O
/// 1.27): of several entries for one platform, those that are annotated as compressed with zstd come first.
///
/// Source: `chooseInstance` and `isPreferredOver` in containers/image `internal/manifest/oci_index.go@v5.25.0`
/// and at df7e80d2.
pub(super) fn containers_image_from_5_25(host: &Platform, entries: &[Descriptor]) -> Selection {
    containers_image(host, entries, |entry| entry.annotations.get(ZSTD).is_some_and(|value| value == "true"))
}

/// Operating system, architecture and variant as they are written; the version of Windows is not looked at. An
/// entry without a platform comes last.
///
/// On arm64 the variant `v8` is asked for first, as the library does when it runs on such a machine.
///
/// Source: `WantedPlatforms` in containers/image `internal/pkg/platform/platform_matcher.go` at df7e80d2.
fn containers_image(
    host: &Platform,
    entries: &[Descriptor],
    preferred: impl Fn(&Descriptor) -> bool,
) -> Selection {
    const ARM: [&str; 5] = ["v8", "v7", "v6", "v5", ""];
    const ARM64: [&str; 2] = ["v8", ""];
    let own = [host.variant.as_str(), ""];
    let variants = match (host.architecture.as_str(), host.variant.as_str()) {
        ("arm64", "" | "v8") => &ARM64[..],
        ("arm", variant) => ARM.iter().position(|v| *v == variant).map_or(&own[..], |at| &ARM[at..]),
        _ => &own[..],
    };
    let found = find_entry(entries, |descriptor, entry| {
        let same = entry.os == host.os && entry.architecture == host.architecture;
        let rank = same.then(|| variants.iter().position(|variant| entry.variant == *variant)).flatten()?;
        Some((rank, !preferred(descriptor)))
    });
    let unstated = entries.iter().position(|entry| entry.platform.is_none() && preferred(entry));
    let picks = found.best.or(unstated).or(found.unstated);
    let order = if host.os == "windows" { Order::Index } else { Order::Variant };
    Selection {
        picks,
        fetches: picks.into_iter().collect(),
        note: if host.os_version.is_empty() { Note::None } else { Note::IgnoresBuild },
        ..Selection::single(&found, Needs::Platform, order)
    }
}

/// crane and ko: the first entry that equals what is asked for, field by field; a version is compared to the
/// last digit. An entry without a platform counts as linux/amd64.
///
/// Source: `matchesPlatform` in google/go-containerregistry `pkg/v1/remote/index.go` at 3f4ff3ca.
pub(super) fn crane(host: &Platform, entries: &[Descriptor]) -> Selection {
    let default =
        Platform { os: "linux".to_owned(), architecture: "amd64".to_owned(), ..Platform::default() };
    let equal = |entry: &Descriptor| equals(entry.platform.as_ref().unwrap_or(&default), host);
    let matches: Vec<usize> = (0..entries.len()).filter(|at| equal(&entries[*at])).collect();
    let found = Found { best: matches.first().copied(), unstated: None, matches };
    Selection::single(&found, Needs::Equal, Order::Index)
}

/// oras: as crane, except that an entry without a platform never matches.
///
/// Source: `Match` in oras-project/oras-go `internal/platform/platform.go` at 19db72b1.
pub(super) fn oras(host: &Platform, entries: &[Descriptor]) -> Selection {
    let found = find(entries, |entry| equals(entry, host).then_some(()));
    Selection::single(&found, Needs::Equal, Order::Index)
}

/// Whether an entry has everything that is asked for; what is not asked for is not compared.
fn equals(entry: &Platform, asked: &Platform) -> bool {
    let optional = |have: &str, want: &str| want.is_empty() || have == want;
    entry.os == asked.os
        && entry.architecture == asked.architecture
        && optional(&entry.variant, &asked.variant)
        && optional(&entry.os_version, &asked.os_version)
        && asked.os_features.iter().all(|feature| entry.os_features.contains(feature))
}

/// `k0s airgap bundle-artifacts` of k0s 1.33 to 1.35 on Linux: the version of Windows is ignored, the first
/// match is kept, and every entry without a platform, with the attestations of what is kept.
///
/// Source: `findSuccessors` in k0s `pkg/airgap/ociartifactsbundler.go@v1.35.1+k0s.0`,
/// containerd/platforms v0.2.1.
pub(super) fn k0s_1_33_to_1_35(host: &Platform, entries: &[Descriptor]) -> Selection {
    let folded = Folded::new(host, "linux", Era::V1_6);
    let vector = Vector::new(&folded, Era::V1_6);
    let found = find(entries, |entry| {
        let entry = Folded::new(entry, "linux", Era::V1_6);
        if entry.os == folded.os { vector.rank(&entry) } else { None }
    });
    let note = if host.os_version.is_empty() { Note::None } else { Note::IgnoresBuild };
    Selection { note, ..bundled(entries, &found, Needs::Platform, order(host)) }
}

/// `k0s airgap bundle-artifacts` from k0s 1.36 on: one entry that the host can run, the first in the index
/// where several can, and every entry without a platform, with the attestations of what is kept.
///
/// Source: `findSuccessors` in k0s `pkg/airgap/ociartifactsbundler.go@v1.36.3+k0s.0`,
/// containerd/platforms v1.0.0-rc.4.
pub(super) fn k0s_from_1_36(host: &Platform, entries: &[Descriptor]) -> Selection {
    if host.os == "windows" {
        let found = first_compatible(host, entries, true);
        bundled(entries, &found, builds(host, Floor::BelowHost), Order::Index)
    } else {
        bundled(entries, &nearest(host, entries, Era::V2_0, true), Needs::Platform, Order::Variant)
    }
}

fn order(host: &Platform) -> Order {
    if host.os == "windows" { Order::Index } else { Order::Variant }
}

/// What the bundler of k0s keeps: the best match, every entry without a platform, and every entry that does not
/// match and names one of them by its digest in [`REFERENCE_DIGEST`], whatever it is. It refuses an index with
/// images of which it keeps none.
fn bundled(entries: &[Descriptor], found: &Found, needs: Needs, order: Order) -> Selection {
    let kept = |at: &usize| entries[*at].platform.is_none() || found.best == Some(*at);
    let fetches = (0..entries.len()).filter(kept).collect();
    let mut selection =
        Selection { picks: found.best.or(found.unstated), fetches, ..Selection::single(found, needs, order) };
    let is_image = |entry: &Descriptor| media_type::is_image(&entry.media_type);
    if entries.iter().any(is_image) && !selection.fetches.iter().any(|at| is_image(&entries[*at])) {
        return Selection { picks: None, fetches: Vec::new(), ..selection };
    }
    for (at, entry) in entries.iter().enumerate() {
        let about = entry.annotations.get(REFERENCE_DIGEST).and_then(|text| text.parse::<Digest>().ok());
        let Some(about) = about else { continue };
        let discarded = entry.platform.is_some() && !found.matches.contains(&at);
        if discarded && selection.fetches.iter().any(|kept| entries[*kept].digest == about) {
            selection.also_fetch(at);
        }
    }
    selection
}
