//! containerd on Linux: the host's architecture and variant first, then what it falls back to.
//!
//! On amd64 containerd never states a level: its platform is plain `linux/amd64` on every processor
//! (`cpuVariant` in containerd/platforms `cpuinfo.go`). A node kind with a level is taken at its word here,
//! and the entry for plain amd64 is downloaded as well.

use std::cmp::Reverse;

use super::rule::{Found, Needs, Note, Order, Selection, find};
use super::spelling::{Era, Folded, Vector};
use crate::oci::{Descriptor, Platform};

/// Up to 1.4: fallbacks between variants of 32-bit ARM only.
///
/// Source: `Only` in containerd `platforms/compare.go@v1.4.13`.
pub(super) fn up_to_1_4(host: &Platform, entries: &[Descriptor]) -> Selection {
    local(host, entries, Era::V1_4)
}

/// 1.5: amd64 falls back to 386, arm64 to 32-bit ARM.
///
/// Source: `platformVector` in containerd `platforms/compare.go@v1.5.18`.
pub(super) fn v1_5(host: &Platform, entries: &[Descriptor]) -> Selection {
    local(host, entries, Era::V1_5)
}

/// 1.6 and 1.7: levels of amd64 fall back to lower ones.
///
/// Source: `platformVector` in containerd `platforms/compare.go@v1.6.39` and containerd/platforms v0.2.1.
pub(super) fn v1_6_to_1_7(host: &Platform, entries: &[Descriptor]) -> Selection {
    local(host, entries, Era::V1_6)
}

/// 2.0: versions of arm64 fall back to older ones.
///
/// Source: `platformVector` in containerd/platforms `compare.go` v1.0.0-rc.0 and v1.0.0-rc.1.
pub(super) fn v2_0(host: &Platform, entries: &[Descriptor]) -> Selection {
    local(host, entries, Era::V2_0)
}

/// 2.1 and 2.2: the same preference, but the transfer service downloads exact matches only.
///
/// Source: containerd/platforms `compare.go` v1.0.0-rc.1 and v1.0.0-rc.2; containerd/containerd#12838.
pub(super) fn v2_1_to_2_2(host: &Platform, entries: &[Descriptor]) -> Selection {
    transfer(host, entries, false)
}

/// From 2.3 on: an entry that asks for `os.features` is refused.
///
/// Source: `matcher.Match` in containerd/platforms `platforms.go` v1.0.0-rc.4.
pub(super) fn from_2_3(host: &Platform, entries: &[Descriptor]) -> Selection {
    transfer(host, entries, true)
}

fn local(host: &Platform, entries: &[Descriptor], era: Era) -> Selection {
    let found = nearest(host, entries, era, false);
    let mut selection = Selection::limit_one(&found, Needs::Platform, Order::Variant);
    if has_level(&Folded::new(host, "linux", era)) {
        let plain = Platform { variant: String::new(), ..host.clone() };
        if let Some(at) = nearest(&plain, entries, era, false).best {
            selection.also_fetch(at);
        }
        selection.note = Note::StatesNoLevel;
    }
    selection
}

fn transfer(host: &Platform, entries: &[Descriptor], features: bool) -> Selection {
    let era = Era::V2_0;
    let folded = Folded::new(host, "linux", era);
    let levelled = has_level(&folded);
    let exact = |entry: &Platform| {
        let candidate = Folded::new(entry, "linux", era);
        let plain = levelled && candidate.os == folded.os && candidate.is("amd64", "");
        (candidate == folded || plain) && (!features || has_features(host, entry))
    };
    let found = nearest_among(host, entries, era, features, |entry| !levelled || exact(entry));
    let mut selection = Selection::transfer(entries, exact, &found, Needs::Platform, Order::Variant);
    if levelled {
        selection.note = Note::StatesNoLevel;
    }
    selection
}

/// The entry nearest to the host in containerd's order. From v1.0.0-rc.4 of containerd/platforms on
/// `features` count: an entry may ask only for those that the host has, and more of them are better.
pub(super) fn nearest(host: &Platform, entries: &[Descriptor], era: Era, features: bool) -> Found {
    nearest_among(host, entries, era, features, |_| true)
}

fn nearest_among(
    host: &Platform,
    entries: &[Descriptor],
    era: Era,
    features: bool,
    eligible: impl Fn(&Platform) -> bool,
) -> Found {
    let folded = Folded::new(host, "linux", era);
    let vector = Vector::new(&folded, era);
    find(entries, |entry| {
        let candidate = Folded::new(entry, "linux", era);
        if candidate.os != folded.os || !eligible(entry) || (features && !has_features(host, entry)) {
            return None;
        }
        let asked = if features { entry.os_features.len() } else { 0 };
        vector.rank(&candidate).map(|rank| (rank, Reverse(asked)))
    })
}

fn has_features(host: &Platform, entry: &Platform) -> bool {
    entry.os_features.iter().all(|feature| host.os_features.contains(feature))
}

fn has_level(host: &Folded<'_>) -> bool {
    host.architecture == "amd64" && !host.variant.is_empty()
}
