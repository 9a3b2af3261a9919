//! Bands: the versions of a client that follow one rule.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::client::{ANY, Client, SKOPEO_1_12, Version};
use super::reason;
use super::rule::Rule;
use super::{containerd_linux, containerd_windows, copy_tools, docker, regclient};
use crate::oci::{Descriptor, Platform};

/// The versions of a client that pick in the same way, on one operating system.
#[derive(Debug)]
pub struct Band {
    /// The client.
    pub client: Client,
    /// The versions in words, `2.1.6-2.2.x`; empty where all known versions agree.
    pub versions: &'static str,
    /// The operating system of the host; none where it makes no difference to which rule is followed.
    os: Option<&'static str>,
    from: Version,
    to: Version,
    rule: Rule,
}

/// The stable name of a band, for files: the client, the first version that follows the rule, and the operating system
/// if the rule is for one: `containerd@1.7.6/windows`, `skopeo@0.0.0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BandId(Box<str>);

impl fmt::Display for BandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a client does with an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The position of the entry that will run; none where the pull or the start fails.
    pub picks: Option<usize>,
    /// The positions of all entries that are downloaded, in index order. One that cannot be had fails the
    /// pull.
    pub fetches: Vec<usize>,
    /// Whether the pick states no platform, so that the client reads its configuration and refuses it if that
    /// is for another host.
    pub checks_config: bool,
    /// Whether something is picked that the host can run, by Microsoft's rule for process isolation; some clients pick
    /// what cannot start. An entry that says too little to tell counts as one that runs.
    pub runs: bool,
    /// Why, in words for an operator.
    pub reason: String,
    /// The same without the client: what bands that behave alike have in common.
    pub why: String,
}

impl Band {
    /// What this client does on `host` (for a copy tool: when asked for the platform `host`) with an index of
    /// `entries`.
    ///
    /// `entries` are the descriptors of the index in its order, as they are written there; of their annotations
    /// at least those in [`ANNOTATIONS`](super::ANNOTATIONS).
    pub fn choose(&self, host: &Platform, entries: &[Descriptor]) -> Choice {
        let selection = (self.rule)(host, entries);
        let pick = selection.picks.and_then(|at| entries.get(at));
        let runs = pick.is_some_and(|entry| {
            entry.platform.as_ref().is_none_or(|platform| reason::can_run(host, platform))
        });
        let checks_config = selection.reads_config && pick.is_some_and(|entry| entry.platform.is_none());
        let why = reason::why(self.client, host, entries, &selection);
        let reason = format!("{} {why}", reason::subject(self.client, self.label()));
        Choice { picks: selection.picks, fetches: selection.fetches, checks_config, runs, reason, why }
    }

    /// The client and its versions: `containerd 2.1.6-2.2.x`.
    pub fn label(&self) -> String {
        if self.versions.is_empty() {
            self.client.name().to_owned()
        } else {
            format!("{} {}", self.client, self.versions)
        }
    }

    /// Returns the stable name of the band. The label is for people and may change.
    pub fn id(&self) -> BandId {
        let [major, minor, patch] = self.from;
        let os = self.os.map(|os| format!("/{os}")).unwrap_or_default();
        BandId(format!("{}@{major}.{minor}.{patch}{os}", self.client).into())
    }

    /// Whether hosts with this operating system follow this rule.
    pub fn applies_to(&self, os: &str) -> bool {
        self.os.is_none_or(|own| own == os)
    }

    /// Returns whether the band is the next one after `other`, given that it stands behind it in [`BANDS`].
    pub(super) fn follows(&self, other: &Self) -> bool {
        self.client == other.client && self.os == other.os
    }

    pub(super) fn range(&self) -> (Version, Version) {
        (self.from, self.to)
    }
}

const ALL: (Version, Version) = ([0; 3], [ANY; 3]);

const fn band(
    client: Client,
    os: Option<&'static str>,
    versions: &'static str,
    (from, to): (Version, Version),
    rule: Rule,
) -> Band {
    Band { client, versions, os, from, to, rule }
}

const fn windows(client: Client, versions: &'static str, from: Version, to: Version, rule: Rule) -> Band {
    band(client, Some("windows"), versions, (from, to), rule)
}

const fn linux(client: Client, versions: &'static str, from: Version, to: Version, rule: Rule) -> Band {
    band(client, Some("linux"), versions, (from, to), rule)
}

/// Every rule, oldest version first within a client. A version that lies between two bands belongs to the one
/// before.
pub(super) static BANDS: &[Band] = {
    use Client::{Containerd, Crane, Docker, DockerContainerd, K0s, Oras, Regclient, Skopeo};
    use containerd_linux as ctl;
    use containerd_windows as ctw;
    &[
        windows(Containerd, "<=1.4", [0, 0, 0], [1, 4, ANY], ctw::up_to_1_4),
        windows(Containerd, "1.5.0-1.6.17", [1, 5, 0], [1, 6, 17], ctw::v1_5_0_to_1_6_17),
        windows(Containerd, "1.6.18-1.6.22", [1, 6, 18], [1, 6, 22], ctw::v1_6_18_to_1_6_22),
        windows(Containerd, "1.6.23-1.6.39", [1, 6, 23], [1, 6, ANY], ctw::v1_6_23_to_1_6_39),
        windows(Containerd, "1.7.0-1.7.5", [1, 7, 0], [1, 7, 5], ctw::v1_7_0_to_1_7_5),
        windows(Containerd, "1.7.6-2.0.x", [1, 7, 6], [2, 0, ANY], ctw::v1_7_6_to_2_0),
        windows(Containerd, "2.1.0-2.1.5", [2, 1, 0], [2, 1, 5], ctw::v2_1_0_to_2_1_5),
        windows(Containerd, "2.1.6-2.2.x", [2, 1, 6], [2, 2, ANY], ctw::v2_1_6_to_2_2),
        windows(Containerd, "2.3.x", [2, 3, 0], [2, 3, ANY], ctw::v2_3),
        windows(Containerd, "main", [2, 4, 0], [ANY; 3], ctw::main),
        linux(Containerd, "<=1.4", [0, 0, 0], [1, 4, ANY], ctl::up_to_1_4),
        linux(Containerd, "1.5.x", [1, 5, 0], [1, 5, ANY], ctl::v1_5),
        linux(Containerd, "1.6.0-1.7.x", [1, 6, 0], [1, ANY, ANY], ctl::v1_6_to_1_7),
        linux(Containerd, "2.0.x", [2, 0, 0], [2, 0, ANY], ctl::v2_0),
        linux(Containerd, "2.1.0-2.2.x", [2, 1, 0], [2, 2, ANY], ctl::v2_1_to_2_2),
        linux(Containerd, "2.3.0-main", [2, 3, 0], [ANY; 3], ctl::from_2_3),
        windows(Docker, "19.03-29", [0, 0, 0], [ANY; 3], docker::graphdriver_windows),
        linux(Docker, "<=20.10", [0, 0, 0], [22, ANY, ANY], docker::graphdriver_linux_to_20_10),
        linux(Docker, "23.0-29.5", [23, 0, 0], [29, 5, ANY], docker::graphdriver_linux),
        linux(Docker, "29.6-29.x", [29, 6, 0], [ANY; 3], docker::graphdriver_linux_from_29_6),
        windows(DockerContainerd, "25.0-28.x", [25, 0, 0], [28, ANY, ANY], docker::store_windows_25_to_28),
        windows(DockerContainerd, "29.0", [29, 0, 0], [29, 0, ANY], docker::store_windows_29_0),
        windows(DockerContainerd, "29.1-29.5", [29, 1, 0], [29, 5, ANY], docker::store_windows_29_1_to_29_5),
        windows(DockerContainerd, "29.6-29.x", [29, 6, 0], [ANY; 3], docker::store_windows_from_29_6),
        linux(DockerContainerd, "24.0-29.0", [24, 0, 0], [29, 0, ANY], docker::store_linux_to_29_0),
        linux(DockerContainerd, "29.1-29.5", [29, 1, 0], [29, 5, ANY], docker::store_linux_29_1_to_29_5),
        linux(DockerContainerd, "29.6-29.x", [29, 6, 0], [ANY; 3], docker::store_linux_from_29_6),
        band(Skopeo, None, "<=1.11", ([0; 3], [1, 11, ANY]), copy_tools::containers_image_to_5_24),
        band(Skopeo, None, "1.12-main", (SKOPEO_1_12, [ANY; 3]), copy_tools::containers_image_from_5_25),
        band(Crane, None, "", ALL, copy_tools::crane),
        band(Oras, None, "", ALL, copy_tools::oras),
        band(Regclient, None, "", ALL, regclient::regclient),
        band(K0s, None, "1.33-1.35", ([1, 33, 0], [1, 35, ANY]), copy_tools::k0s_1_33_to_1_35),
        band(K0s, None, "1.36-main", ([1, 36, 0], [ANY; 3]), copy_tools::k0s_from_1_36),
    ]
};
