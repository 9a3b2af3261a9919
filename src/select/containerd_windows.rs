//! containerd on Windows. Its rule changed with almost every minor version, and twice within one.
//!
//! The host states `windows`, Go's name of its architecture and `10.0.<build>` without a revision
//! (`platforms/defaults_windows.go`, `RtlGetNtVersionNumbers`). The sort is stable, so where a rule has no
//! preference the order of the index decides.

use std::cmp::Reverse;

use super::rule::{Found, Needs, Order, Selection, find};
use super::spelling::{Era, Folded, Vector};
use super::versions::{self, Floor, Version, first_three, revision};
use crate::oci::{Descriptor, Platform};

/// Up to 1.4 the version is ignored, and linux/amd64 is accepted behind every Windows entry.
///
/// Source: `Default` in containerd `platforms/defaults_windows.go@v1.4.13`.
pub(super) fn up_to_1_4(host: &Platform, entries: &[Descriptor]) -> Selection {
    let folded = Folded::new(host, "windows", Era::V1_4);
    let found = find(entries, |entry| {
        let entry = Folded::new(entry, "windows", Era::V1_4);
        if entry.os == folded.os && entry.is(&folded.architecture, &folded.variant) {
            Some(0)
        } else {
            (entry.os == "linux" && entry.is("amd64", "")).then_some(1)
        }
    });
    Selection::limit_one(&found, Needs::AnyWindows, Order::WindowsFirst)
}

/// 1.5.0 to 1.6.17: the text of the version must begin with the host's, so an entry without one never
/// matches.
///
/// Source: `matchComparer` in containerd `platforms/defaults_windows.go@v1.5.18`. It accepts a Linux entry as
/// well, if that has a Windows version; none has.
pub(super) fn v1_5_0_to_1_6_17(host: &Platform, entries: &[Descriptor]) -> Selection {
    let own = Own::new(host, Era::V1_5);
    let found = find(entries, |entry| {
        let matches = own.is(entry) && entry.os_version.starts_with(first_three(&host.os_version));
        matches.then(|| Reverse(revision(&entry.os_version)))
    });
    Selection::limit_one(&found, Needs::SameBuild, Order::Revision)
}

/// 1.6.18 to 1.6.22: as before, and an entry without a version matches (for HostProcess images).
///
/// Source: `matchComparer` in containerd `platforms/defaults_windows.go@v1.6.20`.
pub(super) fn v1_6_18_to_1_6_22(host: &Platform, entries: &[Descriptor]) -> Selection {
    let own = Own::new(host, Era::V1_6);
    let found = find(entries, |entry| {
        let matches = own.is(entry) && begins_or_none(host, entry);
        matches.then(|| Reverse(revision(&entry.os_version)))
    });
    Selection::limit_one(&found, Needs::SameBuildOrNone, Order::Revision)
}

/// 1.6.23 to 1.6.39: the compatibility check of hcsshim; the greatest revision wins, whatever its build.
///
/// Source: `matchComparer` in containerd `platforms/defaults_windows.go@v1.6.39`.
pub(super) fn v1_6_23_to_1_6_39(host: &Platform, entries: &[Descriptor]) -> Selection {
    let own = Own::new(host, Era::V1_6);
    let found = find(entries, |entry| {
        let matches = own.is(entry) && compatible_or_none(host, entry, Floor::Ltsc2022);
        matches.then(|| Reverse(revision(&entry.os_version)))
    });
    Selection::limit_one(&found, builds(host, Floor::Ltsc2022), Order::Revision)
}

/// 1.7.0 to 1.7.5: as 1.6.18, but `Only` hides the preference, so the first match in the index wins.
///
/// Source: `Default` and `windowsmatcher` in containerd `platforms/defaults_windows.go@v1.7.3`, `Ordered` in
/// `platforms/compare.go@v1.7.3`.
pub(super) fn v1_7_0_to_1_7_5(host: &Platform, entries: &[Descriptor]) -> Selection {
    let folded = Folded::new(host, "windows", Era::V1_6);
    let vector = Vector::new(&folded, Era::V1_6);
    let found = find(entries, |entry| {
        let rank = rank(&vector, entry, Era::V1_6)?;
        begins_or_none(host, entry).then_some(rank)
    });
    Selection::limit_one(&found, Needs::SameBuildOrNone, Order::Index)
}

/// 1.7.6 to 2.0: hcsshim's check, and the first match in the index wins.
///
/// Source: containerd `platforms/defaults_windows.go@v1.7.6`; containerd/platforms `defaults_windows.go`
/// v0.2.1 (from containerd 1.7.19), v1.0.0-rc.0 and v1.0.0-rc.1 (containerd 2.0).
pub(super) fn v1_7_6_to_2_0(host: &Platform, entries: &[Descriptor]) -> Selection {
    Selection::limit_one(&first_compatible(host, entries, false), builds(host, Floor::Ltsc2022), Order::Index)
}

/// 2.1.0 to 2.1.5: as 2.0, but the transfer service downloads every match.
///
/// Source: containerd/platforms v1.0.0-rc.1 `defaults_windows.go`.
pub(super) fn v2_1_0_to_2_1_5(host: &Platform, entries: &[Descriptor]) -> Selection {
    let own = Own::new(host, Era::V2_0);
    Selection::transfer(
        entries,
        |entry| own.is(entry) && compatible_or_none(host, entry, Floor::Ltsc2022),
        &first_compatible(host, entries, false),
        builds(host, Floor::Ltsc2022),
        Order::Index,
    )
}

/// 2.1.6 to 2.2: the compatibility check knows Windows Server 2025, and the greatest version wins, compared
/// as text.
///
/// Source: containerd/platforms v1.0.0-rc.2 `platform_windows_compat.go` and `defaults_windows.go`.
pub(super) fn v2_1_6_to_2_2(host: &Platform, entries: &[Descriptor]) -> Selection {
    greatest_text(host, entries, Floor::BelowHost, false)
}

/// 2.3: as before; an entry that asks for `os.features` besides `win32k` is refused.
///
/// Source: containerd/platforms v1.0.0-rc.4 `platforms.go` and `platform_windows_compat.go`.
pub(super) fn v2_3(host: &Platform, entries: &[Descriptor]) -> Selection {
    greatest_text(host, entries, Floor::BelowHost, true)
}

/// The main branch, which becomes 2.4: as 2.3, with the oldest accepted build taken from the host's
/// generation.
///
/// Source: containerd/platforms v1.0.0-rc.5 `platform_windows_compat.go`, as vendored by containerd at
/// 301026e58.
pub(super) fn main(host: &Platform, entries: &[Descriptor]) -> Selection {
    greatest_text(host, entries, Floor::PreviousGeneration, true)
}

fn greatest_text(host: &Platform, entries: &[Descriptor], floor: Floor, features: bool) -> Selection {
    let own = Own::new(host, Era::V2_0);
    let matches = |entry: &Platform| {
        own.is(entry) && compatible_or_none(host, entry, floor) && (!features || has_features(host, entry))
    };
    let found = find(entries, |entry| matches(entry).then_some(Reverse(entry.os_version.as_str())));
    Selection::transfer(entries, matches, &found, builds(host, floor), Order::VersionText)
}

/// The first entry that hcsshim's check accepts, as `platforms.Only` finds it; among those of one rank the
/// ones with more `os.features` come first where `features` count (containerd/platforms v1.0.0-rc.4
/// `compare.go`).
pub(super) fn first_compatible(host: &Platform, entries: &[Descriptor], features: bool) -> Found {
    let floor = if features { Floor::BelowHost } else { Floor::Ltsc2022 };
    let folded = Folded::new(host, "windows", Era::V2_0);
    let vector = Vector::new(&folded, Era::V2_0);
    find(entries, |entry| {
        let rank = rank(&vector, entry, Era::V2_0)?;
        let matches = compatible_or_none(host, entry, floor) && (!features || has_features(host, entry));
        matches.then_some((rank, Reverse(if features { entry.os_features.len() } else { 0 })))
    })
}

/// A host's own platform, for rules without fallbacks.
struct Own<'a> {
    folded: Folded<'a>,
    era: Era,
}

impl<'a> Own<'a> {
    fn new(host: &'a Platform, era: Era) -> Self {
        Self { folded: Folded::new(host, "windows", era), era }
    }

    fn is(&self, entry: &Platform) -> bool {
        let entry = Folded::new(entry, "windows", self.era);
        entry.os == self.folded.os && entry.is(&self.folded.architecture, &self.folded.variant)
    }
}

fn rank(vector: &Vector<'_>, entry: &Platform, era: Era) -> Option<usize> {
    let entry = Folded::new(entry, "windows", era);
    if entry.os == "windows" { vector.rank(&entry) } else { None }
}

fn begins_or_none(host: &Platform, entry: &Platform) -> bool {
    entry.os_version.is_empty() || entry.os_version.starts_with(first_three(&host.os_version))
}

/// A host that states no version accepts every version, and an entry without one is accepted by every host.
fn compatible_or_none(host: &Platform, entry: &Platform, floor: Floor) -> bool {
    let Some(own) = Version::parse(&host.os_version) else { return true };
    entry.os_version.is_empty()
        || Version::parse(&entry.os_version).is_some_and(|image| versions::compatible(own, image, floor))
}

/// Whether the host has the features that an entry asks for; `win32k` is not asked for.
fn has_features(host: &Platform, entry: &Platform) -> bool {
    entry.os_features.iter().all(|feature| feature == "win32k" || host.os_features.contains(feature))
}

pub(super) fn builds(host: &Platform, floor: Floor) -> Needs {
    match Version::parse(&host.os_version) {
        Some(version) => Needs::Builds(versions::accepted(version.build(), floor)),
        None => Needs::AnyWindows,
    }
}
