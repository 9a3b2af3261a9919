//! Docker, with its own graph drivers and with containerd's image store.

use std::collections::BTreeMap;

use super::containerd_linux::nearest;
use super::containerd_windows::{builds, first_compatible, v2_1_6_to_2_2};
use super::rule::{Needs, Note, Order, Selection, find};
use super::spelling::{Era, Folded, Vector};
use super::versions::{Floor, Version, first_three};
use crate::oci::{Descriptor, Digest, Platform, REFERENCE_DIGEST, REFERENCE_TYPE, media_type};

/// Graph driver on Windows, the default there even in 29: the architecture as written and a build up to the
/// host's. There is no oldest build, so what is pulled may not start. An entry of the host's own build comes
/// first, then the index decides. An entry without a platform has no architecture and never matches.
///
/// Source: `filterManifests` in moby `distribution/pull_v2_windows.go@v28.5.2`;
/// `daemon/image_store_choice.go@docker-v29.7.2`.
pub(super) fn graphdriver_windows(host: &Platform, entries: &[Descriptor]) -> Selection {
    let own = Version::parse(&host.os_version).map(Version::build);
    let prefix = first_three(&host.os_version);
    let found = find(entries, |entry| {
        let newer =
            matches!((own, build(&entry.os_version)), (Some(own), Some(image)) if image > u32::from(own));
        if newer || entry.architecture != host.architecture || !entry.os.eq_ignore_ascii_case("windows") {
            return None;
        }
        let same = entry.os_version.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.'));
        Some(u8::from(!same))
    });
    let needs = own.map_or(Needs::AnyWindows, Needs::UpTo);
    Selection::single(&found, needs, Order::OwnBuild)
}

/// The build in an `os.version`, whatever the parts before it say. What is no number is not compared.
fn build(version: &str) -> Option<u32> {
    version.split('.').nth(2)?.parse().ok()
}

/// Graph driver on Linux up to 20.10: the first match in the index, variants notwithstanding; where none
/// matches, any entry for 32-bit ARM.
///
/// Source: `filterManifests` in moby `distribution/pull_v2_unix.go@v20.10.24`.
pub(super) fn graphdriver_linux_to_20_10(host: &Platform, entries: &[Descriptor]) -> Selection {
    let era = Era::V1_4;
    let folded = Folded::new(host, "linux", era);
    let vector = Vector::new(&folded, era);
    let mut found = find(entries, |entry| {
        let candidate = Folded::new(entry, "linux", era);
        (candidate.os == folded.os && vector.rank(&candidate).is_some()).then_some(())
    });
    if found.best.is_none() && folded.architecture == "arm" {
        found = find(entries, |entry| (entry.os == "linux" && entry.architecture == "arm").then_some(()));
    }
    Selection::single(&found, Needs::Platform, Order::Index)
}

/// Graph driver on Linux from 23.0 on: the variant nearest to the host's. The host states its amd64 level.
///
/// Source: `filterManifests` in moby `distribution/pull_v2_unix.go@v28.5.2`, `maximumSpec` in
/// `distribution/pull_v2.go@v23.0.6`.
pub(super) fn graphdriver_linux(host: &Platform, entries: &[Descriptor]) -> Selection {
    by_level(host, entries, Era::V2_0, false)
}

/// Graph driver on Linux from 29.6 on: `os.features` count.
///
/// Source: moby `daemon/internal/distribution/pull_v2_unix.go@docker-v29.7.2` with containerd/platforms
/// v1.0.0-rc.4.
pub(super) fn graphdriver_linux_from_29_6(host: &Platform, entries: &[Descriptor]) -> Selection {
    by_level(host, entries, Era::V2_0, true)
}

/// containerd's store on Linux up to 29.0: as containerd, one manifest.
///
/// Source: `pullTag` in moby `daemon/containerd/image_pull.go@docker-v29.0.4` (`platforms.Default`).
pub(super) fn store_linux_to_29_0(host: &Platform, entries: &[Descriptor]) -> Selection {
    let found = nearest(host, entries, Era::V2_0, false);
    Selection::limit_one(&found, Needs::Platform, Order::Variant)
}

/// containerd's store on Linux, 29.1 to 29.5: as before, with what is about the image.
///
/// Source: `pullTag` in moby `daemon/containerd/image_pull.go@docker-v29.1.0` and `@docker-v29.5.3`.
pub(super) fn store_linux_29_1_to_29_5(host: &Platform, entries: &[Descriptor]) -> Selection {
    with_referrers(entries, store_linux_to_29_0(host, entries))
}

/// containerd's store on Linux from 29.6 on: as before, and the host states its amd64 level.
///
/// Source: `hostPlatformSpec` in moby `daemon/containerd/platform_matchers.go@docker-v29.7.2`, `pullTag` in
/// `image_pull.go` there.
pub(super) fn store_linux_from_29_6(host: &Platform, entries: &[Descriptor]) -> Selection {
    with_referrers(entries, by_level(host, entries, Era::V2_0, true))
}

/// containerd's store on Windows, 25.0 to 28: as containerd 1.7.6 to 2.0.
///
/// Source: `pullTag` in moby `daemon/containerd/image_pull.go@v28.5.2` (`platforms.Default` of containerd
/// 1.7.12 in 25.0, of containerd/platforms v0.2.1 in 27.5 and v1.0.0-rc.1 in 28.5).
pub(super) fn store_windows_25_to_28(host: &Platform, entries: &[Descriptor]) -> Selection {
    Selection::limit_one(&first_compatible(host, entries, false), builds(host, Floor::Ltsc2022), Order::Index)
}

/// containerd's store on Windows, 29.0: the match of containerd 2.1.6, of which one is downloaded.
///
/// Source: `pullTag` in moby `daemon/containerd/image_pull.go@docker-v29.0.4` (`platforms.Default`,
/// v1.0.0-rc.2).
pub(super) fn store_windows_29_0(host: &Platform, entries: &[Descriptor]) -> Selection {
    let every = v2_1_6_to_2_2(host, entries);
    Selection { fetches: every.picks.into_iter().collect(), ..every }
}

/// containerd's store on Windows, 29.1 to 29.5: as before, with what is about the image.
///
/// Source: `pullTag` in moby `daemon/containerd/image_pull.go@docker-v29.1.0` and `@docker-v29.5.3`.
pub(super) fn store_windows_29_1_to_29_5(host: &Platform, entries: &[Descriptor]) -> Selection {
    with_referrers(entries, store_windows_29_0(host, entries))
}

/// containerd's store on Windows from 29.6 on: as before, but `platforms.Only` hides the preference, so the
/// first match in the index wins.
///
/// Source: `pullTag` in moby `daemon/containerd/image_pull.go@docker-v29.7.2` (v1.0.0-rc.4).
pub(super) fn store_windows_from_29_6(host: &Platform, entries: &[Descriptor]) -> Selection {
    let found = first_compatible(host, entries, true);
    let selection = Selection::limit_one(&found, builds(host, Floor::BelowHost), Order::Index);
    with_referrers(entries, selection)
}

/// The annotation of an entry that names the digest of the entry that it is about (containerd
/// `core/images/annotations.go@v2.2.0`, `AnnotationManifestSubject`).
pub(super) const SUBJECT: &str = "io.containerd.manifest.subject";

/// Adds the entries that are about an entry that is downloaded, and those that are about them. Docker forgives no
/// missing one. It then asks the registry for the referrers of each attestation; a registry that knows none
/// answers with an empty list.
///
/// Source: `referrersForPull` in moby `daemon/containerd/image_pull.go@docker-v29.1.0` to `@docker-v29.7.2`,
/// `SetReferrers` in containerd `core/images/handlers.go@v2.2.0`.
fn with_referrers(entries: &[Descriptor], mut selection: Selection) -> Selection {
    let referrers = referrers(entries);
    let mut waiting = selection.fetches.clone();
    while let Some(at) = waiting.pop() {
        for about in referrers.get(&entries[at].digest).into_iter().flatten() {
            let entry = &entries[*about];
            // The platform of an attestation, `unknown`, is not compared; that of anything else is.
            let counts = attests(entry) || entry.platform.is_none() || selection.matches.contains(about);
            if counts && selection.also_fetch(*about) {
                waiting.push(*about);
            }
        }
    }
    selection
}

/// The entries that are about another one, by its digest. An attestation displaces what came before it.
///
/// Source: `readFrom` and `parseSubject` in moby `daemon/containerd/image_pull.go@docker-v29.7.2`.
fn referrers(entries: &[Descriptor]) -> BTreeMap<Digest, Vec<usize>> {
    let mut referrers: BTreeMap<Digest, Vec<usize>> = BTreeMap::new();
    for (at, entry) in entries.iter().enumerate() {
        let subject = if attests(entry) { REFERENCE_DIGEST } else { SUBJECT };
        let subject = entry.annotations.get(subject).and_then(|text| text.parse().ok());
        let Some(subject) = subject.filter(|_| media_type::is_image(&entry.media_type)) else { continue };
        let known = referrers.entry(subject).or_default();
        known.retain(|other| entries[*other].digest != entry.digest && !entry.is_attestation());
        known.push(at);
    }
    referrers
}

fn attests(entry: &Descriptor) -> bool {
    entry.annotations.get(REFERENCE_TYPE).is_some_and(|kind| kind == "attestation-manifest")
}

/// The nearest entry. A node kind that says no more than amd64 leaves the level to the processor, so that
/// every level in the index may be downloaded.
fn by_level(host: &Platform, entries: &[Descriptor], era: Era, features: bool) -> Selection {
    let found = nearest(host, entries, era, features);
    let mut selection = Selection::limit_one(&found, Needs::Platform, Order::Variant);
    let folded = Folded::new(host, "linux", era);
    if folded.is("amd64", "") {
        for (at, entry) in entries.iter().enumerate() {
            let levelled = entry.platform.as_ref().is_some_and(|entry| {
                let entry = Folded::new(entry, "linux", era);
                entry.os == folded.os && entry.architecture == "amd64" && !entry.variant.is_empty()
            });
            if levelled {
                selection.also_fetch(at);
                selection.note = Note::ProcessorDecides;
            }
        }
    }
    selection
}
