//! A selection in words for an operator.

use std::fmt::Write;

use super::client::Client;
use super::rule::{Needs, Note, Order, Selection};
use super::spelling::{Era, Folded, Vector};
use super::versions::{self, Floor, Version, first_three};
use crate::oci::{Descriptor, Platform};

/// How many entries of an index a sentence names.
const NAMED: usize = 6;

/// Whether a host can run an image without an emulator or a virtual machine around it; true where the two say
/// too little to tell, as an amd64 host does about its level.
///
/// Source: Microsoft's "Windows container version compatibility": below Windows Server 2022 the same build,
/// from there on also the release before. For architectures `platformVector` in containerd/platforms
/// `compare.go@v1.0.0-rc.4`.
pub fn can_run(host: &Platform, image: &Platform) -> bool {
    let own = Folded::new(host, "", Era::V2_0);
    let other = Folded::new(image, &host.os, Era::V2_0);
    if own.os != other.os {
        return false;
    }
    let levels = own.architecture == "amd64" && other.architecture == "amd64";
    if !levels && !other.architecture.is_empty() && Vector::new(&own, Era::V2_0).rank(&other).is_none() {
        return false;
    }
    match (Version::parse(&host.os_version), Version::parse(&image.os_version)) {
        (Some(host), Some(image)) => versions::compatible(host, image, Floor::PreviousGeneration),
        _ => true,
    }
}

/// Returns the client as a reason names it.
pub(super) fn subject(client: Client, label: String) -> String {
    match client {
        Client::Skopeo => format!("{label} (also podman and CRI-O)"),
        _ => label,
    }
}

/// Says what the client does and why.
pub(super) fn why(client: Client, host: &Platform, entries: &[Descriptor], selection: &Selection) -> String {
    let mut text = String::new();
    match selection.picks.map(|at| entries.get(at).and_then(|entry| entry.platform.as_ref())) {
        Some(Some(image)) => {
            text.push_str(&taken(host, image, selection));
            text.push_str(&passed_over(host, image, entries));
            text.push_str(&cannot_run(host, image));
        }
        Some(None) => text.push_str(match (client, selection.reads_config) {
            (Client::Crane, _) => " takes the first entry without a platform, which counts as linux/amd64",
            (_, true) => {
                " finds no entry that states a matching platform, takes the first that states none and reads its \
                 configuration"
            }
            (_, false) => " finds no entry that states a matching platform and takes the first that states none",
        }),
        None => text.push_str(&refused(host, entries, selection)),
    }
    text.push_str(&noted(entries, selection));
    text.trim_start().to_owned()
}

/// Why this image.
fn taken(host: &Platform, image: &Platform, selection: &Selection) -> String {
    let image_name = name(image);
    match selection.order {
        Order::WindowsFirst if image.os != "windows" => {
            format!(" finds no Windows entry and falls back to {image_name}")
        }
        Order::WindowsFirst => format!(" ignores os.version and takes the first Windows entry: {image_name}"),
        Order::OwnBuild if first_three(&image.os_version) != first_three(&host.os_version) => {
            format!(" finds no entry of the host's build and takes the first that is not newer: {image_name}")
        }
        _ if selection.matches.len() == 1 => format!(" takes the only match: {image_name}"),
        Order::OwnBuild => format!(" takes the first entry of the host's build: {image_name}"),
        Order::Index => format!(" takes the first compatible entry in index order: {image_name}"),
        Order::Variant => format!(" takes the entry nearest to {host}: {image_name}"),
        Order::Revision => format!(
            " takes the greatest revision (the fourth part of os.version) of all compatible entries: {image_name}"
        ),
        Order::VersionText => format!(" takes the greatest os.version, compared as text: {image_name}"),
        Order::VersionNumbers => {
            format!(" takes the os.version that is asked for or else the greatest: {image_name}")
        }
    }
}

/// Says so when the index has an image of the host's own build and another one is taken.
fn passed_over(host: &Platform, image: &Platform, entries: &[Descriptor]) -> String {
    let own = first_three(&host.os_version);
    if own.is_empty() || first_three(&image.os_version) == own {
        return String::new();
    }
    let passed = platforms(entries).flatten().find(|entry| {
        entry.os == host.os
            && entry.architecture == host.architecture
            && first_three(&entry.os_version) == own
    });
    passed.map(|entry| format!(", not {}", name(entry))).unwrap_or_default()
}

fn cannot_run(host: &Platform, image: &Platform) -> String {
    if can_run(host, image) {
        return String::new();
    }
    let remedy =
        if host.os == "windows" && image.os == "windows" { " without Hyper-V isolation" } else { "" };
    format!("; {} cannot run it{remedy}", host_name(host))
}

/// Why nothing, what would have been taken, and what is there.
fn refused(host: &Platform, entries: &[Descriptor], selection: &Selection) -> String {
    if let Note::NotDownloaded(at) = selection.note
        && let Some(image) = entries.get(at).and_then(|entry| entry.platform.as_ref())
    {
        return format!(
            " cannot pull: its transfer service downloads entries for exactly {host}, not {}; with \
             use_local_image_pull = true in containerd's configuration it takes that one",
            name(image)
        );
    }
    format!(
        " finds no match: it needs {}; the index has {}",
        needs(host, &selection.needs),
        list(host, entries)
    )
}

fn needs(host: &Platform, needs: &Needs) -> String {
    let architecture = &host.architecture;
    let build = first_three(&host.os_version);
    let windows = format!("an entry for windows/{architecture}");
    match needs {
        Needs::Platform => {
            let plain = Platform { os_version: String::new(), ..host.clone() };
            format!("an entry for {plain} or for what that falls back to")
        }
        Needs::Equal if host.os_version.is_empty() => format!("an entry for {host}"),
        Needs::Equal => format!("an entry for {host}, with this os.version to the last digit"),
        Needs::AnyWindows => windows,
        Needs::SameBuild => format!("{windows} whose os.version begins with {build}"),
        Needs::SameBuildOrNone => {
            format!("{windows} whose os.version begins with {build}, or without os.version")
        }
        Needs::Builds(range) if range.start() == range.end() => {
            format!("{windows} of build {}, or without os.version", range.start())
        }
        Needs::Builds(range) => {
            format!("{windows} of build {} to {}, or without os.version", range.start(), range.end())
        }
        Needs::UpTo(build) => format!("{windows} of build {build} or older, or without os.version"),
    }
}

/// What is there, entries for the system of the host first.
fn list(host: &Platform, entries: &[Descriptor]) -> String {
    let own = |entry: Option<&Platform>| entry.is_none_or(|entry| entry.os == host.os);
    let (own, others): (Vec<_>, Vec<_>) = platforms(entries).partition(|entry| own(*entry));
    let named: Vec<String> = own
        .into_iter()
        .chain(others)
        .take(NAMED)
        .map(|entry| entry.filter(|platform| !platform.is_empty()))
        .map(|entry| entry.map_or_else(|| "an entry that states no platform".to_owned(), Platform::shown))
        .collect();
    match entries.len().saturating_sub(NAMED) {
        _ if named.is_empty() => "no entries".to_owned(),
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

fn platforms(entries: &[Descriptor]) -> impl Iterator<Item = Option<&Platform>> {
    entries.iter().map(|entry| entry.platform.as_ref())
}

fn noted(entries: &[Descriptor], selection: &Selection) -> String {
    let mut text = match selection.note {
        Note::None | Note::NotDownloaded(_) => String::new(),
        Note::IgnoresBuild => "; it does not look at the Windows build".to_owned(),
        Note::ProcessorDecides => {
            "; it asks the processor for its level of amd64, so any of them may be downloaded".to_owned()
        }
        Note::StatesNoLevel => {
            "; containerd itself states plain linux/amd64 on every processor, so that entry is downloaded too"
                .to_owned()
        }
    };
    if selection.fetches.len() > 1 && selection.note != Note::ProcessorDecides {
        let _ = write!(
            text,
            "; it downloads {} entries, and one that is missing fails the pull",
            selection.fetches.len()
        );
    }
    let attests = |at: &usize| Some(*at) != selection.picks && entries[*at].is_attestation();
    match selection.fetches.iter().filter(|at| attests(at)).count() {
        0 => {}
        1 => text.push_str("; one of them is an attestation of what it takes"),
        many => {
            let _ = write!(text, "; {many} of them are attestations of what it takes");
        }
    }
    text
}

/// `the 2022 image`, `the linux/arm/v6 image`.
fn name(image: &Platform) -> String {
    if image.is_empty() {
        return "the image that states no platform".to_owned();
    }
    if image.os != "windows" {
        return format!("the {} image", image.shown());
    }
    match Version::parse(&image.os_version).map(Version::build) {
        Some(build) => match versions::release_name(build) {
            Some(name) => format!("the {name} image"),
            None => format!("the image of build {build}"),
        },
        None if image.os_version.is_empty() => "the Windows image without os.version".to_owned(),
        None => format!("the {} image", image.shown()),
    }
}

fn host_name(host: &Platform) -> String {
    match Version::parse(&host.os_version).map(Version::build) {
        Some(build) => match versions::release_name(build) {
            Some(name) => format!("a Windows {name} host"),
            None => format!("a Windows host of build {build}"),
        },
        None => format!("a {} host", host.shown()),
    }
}
