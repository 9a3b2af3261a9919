//! What a selection rule gives, and the walk over an index that all rules share.

use std::ops::RangeInclusive;

use crate::oci::{Descriptor, Platform};

/// A selection rule: the platform of the host (or the one asked for) and the entries of an index, in order.
pub(super) type Rule = fn(&Platform, &[Descriptor]) -> Selection;

/// What a rule selects, with what is needed to put it into words.
#[derive(Debug)]
pub(super) struct Selection {
    /// The entry that will run.
    pub(super) picks: Option<usize>,
    /// The entries that are downloaded, in index order.
    pub(super) fetches: Vec<usize>,
    /// The entries that match by their platform, in index order.
    pub(super) matches: Vec<usize>,
    /// What an entry must have to match.
    pub(super) needs: Needs,
    /// What decides among several matches.
    pub(super) order: Order,
    /// What else the operator should know.
    pub(super) note: Note,
    /// Whether an entry without a platform is checked through its configuration.
    pub(super) reads_config: bool,
}

/// What an entry must have to match.
#[derive(Clone, Debug)]
pub(super) enum Needs {
    /// The platform of the host, or one that it falls back to.
    Platform,
    /// Exactly the platform asked for, `os.version` to the last digit.
    Equal,
    /// Any Windows image.
    AnyWindows,
    /// A Windows image whose `os.version` begins with the host's.
    SameBuild,
    /// As `SameBuild`, or an image without `os.version`.
    SameBuildOrNone,
    /// A Windows image of one of these builds, or without `os.version`.
    Builds(RangeInclusive<u16>),
    /// A Windows image of this build or an older one, or without `os.version`.
    UpTo(u16),
}

/// What decides among several matches.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    /// The first.
    Index,
    /// The variant nearest to the host's, then the first.
    Variant,
    /// Windows before Linux, then the first.
    WindowsFirst,
    /// The greatest revision, the fourth part of `os.version`, whatever the build.
    Revision,
    /// The greatest `os.version`, compared as text.
    VersionText,
    /// The greatest `os.version`, compared as numbers; the one asked for first.
    VersionNumbers,
    /// The host's build, then the first.
    OwnBuild,
}

/// What else the operator should know of a selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// Nothing.
    None,
    /// The entry at this position would run, but is not downloaded because it is not exactly the host's
    /// platform.
    NotDownloaded(usize),
    /// The runtime asks the processor for its amd64 level; every level that is there may be taken.
    ProcessorDecides,
    /// The runtime does not know amd64 levels of its host; the entry for plain amd64 is downloaded as well.
    StatesNoLevel,
    /// Which build is asked for makes no difference.
    IgnoresBuild,
}

impl Selection {
    /// A client that downloads what it picks.
    pub(super) fn single(found: &Found, needs: Needs, order: Order) -> Self {
        Self {
            picks: found.best,
            fetches: found.best.into_iter().collect(),
            matches: found.matches.clone(),
            needs,
            order,
            note: Note::None,
            reads_config: false,
        }
    }

    /// A client of containerd's image code that downloads one manifest: an entry without a platform comes
    /// last, and its configuration decides.
    ///
    /// Source: `LimitManifests` in containerd `images/handlers.go@v1.7.34`, `Manifest` in
    /// `images/image.go@v1.7.34`.
    pub(super) fn limit_one(found: &Found, needs: Needs, order: Order) -> Self {
        let picks = found.best.or(found.unstated);
        Self {
            picks,
            fetches: picks.into_iter().collect(),
            reads_config: true,
            ..Self::single(found, needs, order)
        }
    }

    /// A client that pulls through containerd's transfer service: it downloads every entry that `exact`
    /// accepts and every entry without a platform, then picks among what is there.
    ///
    /// The download compares with the host's own platform only, without the fallbacks of the pick: a 32-bit
    /// ARM host that would run an older variant does not get it (containerd/containerd#12838).
    ///
    /// Source: `ImageFilter` in containerd `core/transfer/image/imagestore.go@v2.2.7`, called by
    /// `internal/cri/server/images/image_pull.go@v2.2.7` with `DefaultSpec` and without a limit.
    pub(super) fn transfer(
        entries: &[Descriptor],
        exact: impl Fn(&Platform) -> bool,
        found: &Found,
        needs: Needs,
        order: Order,
    ) -> Self {
        let fetches: Vec<usize> =
            (0..entries.len()).filter(|at| entries[*at].platform.as_ref().is_none_or(&exact)).collect();
        let wanted = found.best.or(found.unstated);
        let picks = wanted.filter(|at| fetches.contains(at));
        let note = match wanted {
            Some(at) if picks.is_none() => Note::NotDownloaded(at),
            _ => Note::None,
        };
        Self { picks, fetches, note, reads_config: true, ..Self::single(found, needs, order) }
    }

    /// Adds an entry to the downloads. Returns whether it was not among them.
    pub(super) fn also_fetch(&mut self, at: usize) -> bool {
        let place = self.fetches.binary_search(&at);
        if let Err(place) = place {
            self.fetches.insert(place, at);
        }
        place.is_err()
    }
}

/// What a walk over an index finds.
pub(super) struct Found {
    /// The match that comes first in the order of preference.
    pub(super) best: Option<usize>,
    /// The first entry without a platform.
    pub(super) unstated: Option<usize>,
    /// All matches, in index order.
    pub(super) matches: Vec<usize>,
}

/// Finds the entry with the smallest key; among equals the first, as a stable sort would leave it.
pub(super) fn find<'e, K: Ord>(entries: &'e [Descriptor], key: impl Fn(&'e Platform) -> Option<K>) -> Found {
    find_entry(entries, |_, platform| key(platform))
}

/// As [`find`], for a key that depends on more of an entry than its platform.
pub(super) fn find_entry<'e, K: Ord>(
    entries: &'e [Descriptor],
    key: impl Fn(&'e Descriptor, &'e Platform) -> Option<K>,
) -> Found {
    let mut best: Option<(K, usize)> = None;
    let mut unstated = None;
    let mut matches = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        let Some(platform) = &entry.platform else {
            unstated = unstated.or(Some(at));
            continue;
        };
        let Some(key) = key(entry, platform) else { continue };
        matches.push(at);
        if best.as_ref().is_none_or(|(least, _)| key < *least) {
            best = Some((key, at));
        }
    }
    Found { best: best.map(|(_, at)| at), unstated, matches }
}
