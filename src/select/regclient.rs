//! regclient (`regctl`, `regsync`): walks the index and keeps what is better than the best so far.

use std::cmp::Ordering;

use super::rule::{Found, Needs, Order, Selection};
use super::spelling::{Era, Folded};
use super::versions::first_three;
use crate::oci::{Descriptor, Platform};

/// The best entry for the platform asked for. Windows versions must agree in their first three parts; the one
/// asked for comes first, then the greatest. A Linux image counts as one that a Windows host can run.
///
/// Source: `Better` and `Compatible` in regclient `types/platform/compare.go`, `DescriptorListSearch` in
/// `types/descriptor/descriptor.go`, both at 725072f.
pub(super) fn regclient(host: &Platform, entries: &[Descriptor]) -> Selection {
    let wanted = Candidate::new(host);
    let mut best: Option<(usize, Candidate<'_>)> = None;
    let mut matches = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        let Some(entry) = &entry.platform else { continue };
        let target = Candidate::new(entry);
        if !compatible(&wanted, &target) {
            continue;
        }
        matches.push(at);
        if best.as_ref().is_none_or(|(_, best)| better(&wanted, &target, best)) {
            best = Some((at, target));
        }
    }
    let needs = match host.os.as_str() {
        "windows" if host.os_version.is_empty() => Needs::AnyWindows,
        "windows" => Needs::SameBuild,
        _ => Needs::Platform,
    };
    let order = if host.os == "windows" { Order::VersionNumbers } else { Order::Variant };
    let found = Found { best: best.map(|(at, _)| at), unstated: None, matches };
    Selection::single(&found, needs, order)
}

/// A platform as regclient compares it.
struct Candidate<'a> {
    folded: Folded<'a>,
    os_version: &'a str,
}

impl<'a> Candidate<'a> {
    fn new(platform: &'a Platform) -> Self {
        Self { folded: Folded::new(platform, "", Era::V1_6), os_version: &platform.os_version }
    }
}

fn compatible(host: &Candidate<'_>, target: &Candidate<'_>) -> bool {
    let (own, other) = (&host.folded, &target.folded);
    if own.architecture != other.architecture || !variant_compatible(&own.variant, &other.variant) {
        return false;
    }
    match (&*own.os, &*other.os) {
        ("windows", "windows") => {
            host.os_version.is_empty() || first_three(host.os_version) == first_three(target.os_version)
        }
        ("windows" | "darwin", "linux") => true,
        (own, other) => own == other,
    }
}

/// Whether `target` is better than `best`; both are compatible.
fn better(host: &Candidate<'_>, target: &Candidate<'_>, best: &Candidate<'_>) -> bool {
    let (wanted, new, old) = (&host.folded, &target.folded, &best.folded);
    if old.os != new.os {
        return new.os == wanted.os;
    }
    if old.variant != new.variant {
        if new.variant == wanted.variant || old.variant == wanted.variant {
            return new.variant == wanted.variant;
        }
        match variant_number(&new.variant).cmp(&variant_number(&old.variant)) {
            Ordering::Equal => {}
            order => return order.is_gt(),
        }
    }
    if best.os_version == target.os_version || best.os_version == host.os_version {
        return false;
    }
    target.os_version == host.os_version || compare(best.os_version, target.os_version).is_lt()
}

fn variant_compatible(host: &str, target: &str) -> bool {
    let (own, other) = (variant_number(host), variant_number(target));
    own >= other || (host.is_empty() && other == 1)
}

fn variant_number(variant: &str) -> i64 {
    variant.strip_prefix('v').unwrap_or(variant).parse().unwrap_or(0)
}

/// Compares versions part by part as numbers; a part that is none is less than every number, and a version
/// that ends earlier is not compared further.
fn compare(a: &str, b: &str) -> Ordering {
    let mut others = b.split('.');
    for part in a.split('.') {
        let Some(other) = others.next() else { return Ordering::Greater };
        match (part.parse::<i64>(), other.parse::<i64>()) {
            (Ok(part), Ok(other)) if part == other => {}
            (Ok(part), Ok(other)) => return part.cmp(&other),
            (Err(_), Err(_)) => return Ordering::Equal,
            (Err(_), Ok(_)) => return Ordering::Less,
            (Ok(_), Err(_)) => return Ordering::Greater,
        }
    }
    Ordering::Equal
}
