//! The rules against known results, and properties that hold for all of them.

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::oci::{Descriptor, Platform, media_type};

#[derive(Deserialize)]
struct Fixture {
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    id: String,
    client: String,
    host: String,
    index: Vec<Option<String>>,
    picks: Option<usize>,
    fetches: Option<Vec<usize>>,
}

fn band(label: &str, os: &str) -> &'static Band {
    bands()
        .iter()
        .find(|band| band.label() == label && band.applies_to(os))
        .unwrap_or_else(|| panic!("no band {label} on {os}"))
}

fn platform(text: &str) -> Platform {
    text.parse().unwrap()
}

/// An entry of an index; each position has a digest of its own.
fn entry(position: usize, platform: Option<Platform>) -> Descriptor {
    let mut entry = Descriptor::of(media_type::OCI_MANIFEST, position.to_string().as_bytes());
    entry.platform = platform;
    entry
}

fn index(entries: &[&str]) -> Vec<Descriptor> {
    let platforms = entries.iter().map(|text| (*text != "-").then(|| platform(text)));
    platforms.enumerate().map(|(at, platform)| entry(at, platform)).collect()
}

fn annotate(entry: &mut Descriptor, annotations: &[(&str, &str)]) {
    let owned = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    entry.annotations.extend(owned);
}

/// Makes the entry at a position `BuildKit`'s attestation of another one.
fn attest(index: &mut [Descriptor], at: usize, of: usize) {
    let digest = index[of].digest.to_string();
    annotate(&mut index[at], &[(REFERENCE_TYPE, "attestation-manifest"), (REFERENCE_DIGEST, &digest)]);
}

fn choose(label: &str, host: &str, entries: &[&str]) -> Choice {
    let host = platform(host);
    band(label, &host.os).choose(&host, &index(entries))
}

#[test]
fn known_results() {
    let fixture: Fixture = serde_json::from_str(include_str!("testdata/vectors.json")).unwrap();
    assert!(fixture.vectors.len() > 150);
    for vector in fixture.vectors {
        let host = platform(&vector.host);
        let platforms = vector.index.iter().map(|text| text.as_deref().map(platform));
        let entries: Vec<_> = platforms.enumerate().map(|(at, platform)| entry(at, platform)).collect();
        // Copy tools follow the same rule whatever they are asked for; the others are asked for their host.
        let choice = band(&vector.client, &host.os).choose(&host, &entries);
        assert_eq!(choice.picks, vector.picks, "{} {} {:?}", vector.id, vector.client, choice);
        match vector.fetches {
            Some(fetches) => assert_eq!(choice.fetches, fetches, "{} {}", vector.id, vector.client),
            None if vector.client.starts_with("containerd 2.") || vector.client == "containerd main" => {
                assert!(choice.picks.is_none_or(|at| choice.fetches.contains(&at)), "{}", vector.id);
            }
            None => assert_eq!(choice.fetches, Vec::from_iter(vector.picks), "{}", vector.id),
        }
    }
}

const SKOPEO: &str = "skopeo 1.12-main";
const PAUSE: [&str; 5] = [
    "linux/amd64",
    "linux/arm64",
    "windows(10.0.17763.7919)/amd64",
    "windows(10.0.20348.4294)/amd64",
    "windows(10.0.26100.6899)/amd64",
];

#[test]
fn reasons_are_sentences_for_operators() {
    let reason = |label: &str, host: &str, entries: &[&str]| choose(label, host, entries).reason;
    let host = "windows(10.0.26100)/amd64";
    let reasons = [
        reason("containerd <=1.4", host, &PAUSE),
        reason("containerd 1.5.0-1.6.17", host, &PAUSE),
        reason("containerd 1.6.23-1.6.39", host, &PAUSE[..4]),
        reason("containerd 1.7.0-1.7.5", host, &PAUSE[..4]),
        reason("containerd 1.7.6-2.0.x", host, &PAUSE),
        reason("containerd 2.1.0-2.1.5", host, &PAUSE),
        reason("containerd 2.1.6-2.2.x", host, &PAUSE),
        reason("containerd 2.1.6-2.2.x", "windows(10.0.26200)/amd64", &PAUSE[..4]),
        reason("containerd <=1.4", host, &PAUSE[..2]),
        reason("docker 19.03-29", host, &PAUSE[..4]),
        reason("docker 19.03-29", host, &PAUSE),
        reason("containerd 1.7.6-2.0.x", host, &["linux/amd64", "-"]),
        reason("containerd 2.1.0-2.2.x", "linux/arm/v7", &["linux/amd64", "linux/arm/v6"]),
        reason("containerd 1.6.0-1.7.x", "linux/arm/v7", &["linux/arm/v5", "linux/arm/v6"]),
        reason("docker 23.0-29.5", "linux/amd64", &["linux/amd64", "linux/amd64/v3"]),
        reason("containerd 2.0.x", "linux/amd64/v3", &["linux/amd64", "linux/amd64/v3"]),
        reason(SKOPEO, host, &PAUSE),
        reason("crane", "windows(10.0.20348)/amd64", &PAUSE),
        reason(
            "regclient",
            "windows(10.0.26100.1742)/amd64",
            &["linux/amd64", "windows(10.0.20348.169)/amd64"],
        ),
    ]
    .join("\n");
    insta::assert_snapshot!(reasons);
}

#[test]
fn what_cannot_start_is_said() {
    let host = "windows(10.0.26100)/amd64";
    assert!(!choose("docker 19.03-29", host, &PAUSE[..4]).runs);
    assert!(!choose("containerd <=1.4", host, &PAUSE).runs);
    assert!(choose("containerd 1.7.6-2.0.x", host, &PAUSE).runs);
    assert!(!choose("containerd <=1.4", host, &PAUSE[..1]).runs);
    assert!(!choose("containerd 1.7.0-1.7.5", host, &PAUSE[..4]).runs, "nothing is picked");
    assert!(choose("containerd 1.7.6-2.0.x", host, &["-"]).runs, "the configuration decides");
}

#[test]
fn what_a_host_can_run() {
    for (host, image, runs) in [
        ("linux/amd64", "linux/amd64", true),
        ("linux/amd64", "linux/amd64/v3", true),
        ("linux/amd64", "linux/386", true),
        ("linux/amd64", "linux/arm64", false),
        ("linux/arm64", "linux/arm/v7", true),
        ("linux/arm/v6", "linux/arm/v7", false),
        ("linux/amd64", "windows(10.0.20348.1)/amd64", false),
        ("windows(10.0.20348)/amd64", "windows/amd64", true),
        ("windows(10.0.20348)/amd64", "windows/arm64", false),
        ("windows(10.0.20348)/amd64", "windows(10.0.17763.1)/amd64", false),
        ("windows(10.0.26100)/amd64", "windows(10.0.20348.1)/amd64", true),
        ("windows(10.0.25398)/amd64", "windows(10.0.20348.1)/amd64", true),
        ("windows(10.0.17763)/amd64", "windows(10.0.20348.1)/amd64", false),
    ] {
        assert_eq!(can_run(&platform(host), &platform(image)), runs, "{image} on {host}");
    }
}

#[test]
fn text_from_an_index_cannot_steer_a_terminal() {
    let evil =
        Platform { os: "linux\u{1b}[2J".into(), architecture: "amd64\n".into(), ..Platform::default() };
    let host = platform("linux/amd64");
    for band in bands() {
        let choice = band.choose(&host, &[entry(0, Some(evil.clone()))]);
        assert!(!choice.reason.chars().any(char::is_control), "{}", choice.reason);
    }
}

#[test]
fn an_entry_without_platform_comes_last() {
    for label in ["containerd 1.6.0-1.7.x", "containerd 2.1.0-2.2.x", "docker 23.0-29.5", SKOPEO] {
        let choice = choose(label, "linux/amd64", &["-", "linux/arm64", "linux/amd64"]);
        assert_eq!(choice.picks, Some(2), "{label}");
        assert!(!choice.checks_config);
        let choice = choose(label, "linux/amd64", &["linux/arm64", "-", "-"]);
        assert_eq!(choice.picks, Some(1), "{label}");
        assert_eq!(choice.checks_config, label != SKOPEO, "{label}");
    }
    // The transfer service and the bundler of k0s take all of them along.
    for label in ["containerd 2.1.0-2.2.x", "containerd 2.3.0-main", "k0s 1.36-main"] {
        assert_eq!(choose(label, "linux/amd64", &["-", "linux/amd64", "-"]).fetches, [0, 1, 2], "{label}");
    }
    assert_eq!(choose("crane", "linux/amd64", &["linux/arm64", "-"]).picks, Some(1));
    assert_eq!(choose("oras", "linux/amd64", &["-"]).picks, None);
    assert_eq!(choose("regclient", "linux/amd64", &["-"]).picks, None);
    assert_eq!(choose("docker <=20.10", "linux/amd64", &["-"]).picks, None);
    assert_eq!(choose("docker 19.03-29", "windows(10.0.20348)/amd64", &["-"]).picks, None);
}

#[test]
fn attestations_never_match() {
    for kind in ["linux/amd64", "linux/arm/v7", "windows(10.0.20348)/amd64"] {
        let host = platform(kind);
        for band in bands().iter().filter(|band| band.applies_to(&host.os)) {
            let choice = band.choose(&host, &index(&["unknown/unknown"]));
            assert_eq!((choice.picks, choice.fetches), (None, vec![]), "{} on {kind}", band.label());
        }
    }
}

#[test]
fn linux_variants() {
    let arm = ["linux/arm/v5", "linux/arm/v7", "linux/arm/v6", "linux/arm64"];
    for (label, host, entries, picks, fetches) in [
        ("containerd <=1.4", "linux/arm/v7", &arm[..], Some(1), &[1][..]),
        ("containerd <=1.4", "linux/arm/v6", &arm, Some(2), &[2]),
        ("containerd <=1.4", "linux/arm64", &arm[..3], None, &[]),
        ("containerd 1.5.x", "linux/arm64", &arm[..3], Some(1), &[1]),
        ("containerd 1.6.0-1.7.x", "linux/arm/v8", &arm[..1], Some(0), &[0]),
        ("containerd 2.0.x", "linux/arm64", &arm, Some(3), &[3]),
        // The transfer service downloads the host's own platform only.
        ("containerd 2.1.0-2.2.x", "linux/arm64", &arm, Some(3), &[3]),
        ("containerd 2.1.0-2.2.x", "linux/arm/v7", &arm, Some(1), &[1]),
        ("containerd 2.1.0-2.2.x", "linux/arm/v8", &arm, None, &[]),
        ("containerd 2.3.0-main", "linux/arm/v7", &arm[..1], None, &[]),
        ("containerd <=1.4", "linux/amd64", &["linux/386"], None, &[]),
        ("containerd 1.6.0-1.7.x", "linux/amd64", &["linux/386", "linux/amd64/v2"], Some(0), &[0]),
        ("containerd 2.1.0-2.2.x", "linux/amd64", &["linux/386", "linux/amd64"], Some(1), &[1]),
        ("containerd 2.1.0-2.2.x", "linux/amd64", &["linux/386"], None, &[]),
        // A node kind with a level is taken at its word, and the plain entry comes along.
        (
            "containerd 2.0.x",
            "linux/amd64/v3",
            &["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"],
            Some(1),
            &[0, 1],
        ),
        ("containerd 2.1.0-2.2.x", "linux/amd64/v3", &["linux/amd64", "linux/amd64/v3"], Some(1), &[0, 1]),
        ("containerd 2.1.0-2.2.x", "linux/amd64/v3", &["linux/amd64", "linux/amd64/v2"], Some(0), &[0]),
        // Docker asks the processor.
        ("docker 23.0-29.5", "linux/amd64", &["linux/amd64/v2", "linux/amd64"], Some(1), &[0, 1]),
        ("docker 23.0-29.5", "linux/amd64/v3", &["linux/amd64/v2", "linux/amd64"], Some(0), &[0]),
        ("docker-containerd 24.0-29.0", "linux/amd64", &["linux/amd64/v2", "linux/amd64"], Some(1), &[1]),
        ("docker <=20.10", "linux/arm/v7", &arm, Some(0), &[0]),
        ("docker <=20.10", "linux/arm/v5", &["linux/arm/v7"], Some(0), &[0]),
        ("docker 23.0-29.5", "linux/arm/v5", &["linux/arm/v7"], None, &[]),
        (SKOPEO, "linux/arm/v7", &["linux/arm/v6", "linux/arm64"], Some(0), &[0]),
        (SKOPEO, "linux/arm64", &["linux/arm/v7"], None, &[]),
        (SKOPEO, "linux/amd64", &["linux/386"], None, &[]),
        ("k0s 1.33-1.35", "linux/arm64", &["linux/arm/v7", "linux/arm64"], Some(1), &[1]),
        ("k0s 1.33-1.35", "windows(10.0.26100)/amd64", &PAUSE, Some(2), &[2]),
        ("regclient", "linux/arm/v7", &["linux/arm/v5", "linux/arm/v6"], Some(1), &[1]),
    ] {
        let choice = choose(label, host, entries);
        assert_eq!((choice.picks, &choice.fetches[..]), (picks, fetches), "{label} {host} {entries:?}");
    }
}

#[test]
fn entries_are_compared_as_they_are_written_by_copy_tools() {
    let entry = |variant: &str| {
        let (os, architecture, variant) = ("linux".into(), "arm64".into(), variant.into());
        vec![entry(0, Some(Platform { architecture, os, variant, ..Platform::default() }))]
    };
    let host = platform("linux/arm64");
    for label in [SKOPEO, "crane", "oras", "regclient", "containerd 2.3.0-main"] {
        assert_eq!(band(label, "linux").choose(&host, &entry("v8")).picks, Some(0), "{label}");
        assert_eq!(band(label, "linux").choose(&host, &entry("")).picks, Some(0), "{label}");
    }
}

#[test]
fn os_features_count_since_2_3() {
    let entries = ["linux(+gpu)/amd64", "linux/amd64"];
    assert_eq!(choose("containerd 2.1.0-2.2.x", "linux/amd64", &entries).picks, Some(0));
    assert_eq!(choose("containerd 2.3.0-main", "linux/amd64", &entries).picks, Some(1));
    assert_eq!(choose("docker 29.6-29.x", "linux(+gpu)/amd64", &["linux/amd64", entries[0]]).picks, Some(1));
    let win32k = ["windows(10.0.20348.1)/amd64", "windows(10.0.20348.2+win32k)/amd64"];
    assert_eq!(choose("docker-containerd 29.6-29.x", "windows(10.0.20348)/amd64", &win32k).picks, Some(1));
}

#[test]
fn nodes_have_runtimes_of_their_own_system() {
    let labels = |kind: &str, runtimes: &[&str]| -> Vec<String> {
        let runtimes: Vec<Runtime> = runtimes.iter().map(|text| text.parse().unwrap()).collect();
        node_bands(&kind.parse().unwrap(), &runtimes).iter().map(|band| band.label()).collect()
    };
    let windows = "windows(10.0.20348)/amd64";
    assert_eq!(labels(windows, &[]).len(), 15);
    assert!(labels("linux/amd64", &[]).contains(&SKOPEO.to_owned()));
    assert!(!labels("linux/amd64", &[]).contains(&"crane".to_owned()));
    assert_eq!(labels(windows, &["containerd@1.7"]), ["containerd 1.7.0-1.7.5", "containerd 1.7.6-2.0.x"]);
    assert_eq!(
        labels(windows, &["docker@29"]),
        [
            "docker 19.03-29",
            "docker-containerd 29.0",
            "docker-containerd 29.1-29.5",
            "docker-containerd 29.6-29.x"
        ]
    );
    assert_eq!(labels(windows, &["docker-containerd@29.2"]), ["docker-containerd 29.1-29.5"]);
    assert_eq!(labels(windows, &["cri-o"]), [""; 0]);
    assert_eq!(
        labels("linux/arm64", &["cri-o", "containerd@1.7.20"]),
        ["containerd 1.6.0-1.7.x", "skopeo <=1.11", SKOPEO]
    );
}

#[test]
fn docker_downloads_attestations_since_29_1() {
    for (os, before, after) in [
        (
            "linux",
            ["docker-containerd 24.0-29.0"],
            ["docker-containerd 29.1-29.5", "docker-containerd 29.6-29.x"],
        ),
        (
            "windows",
            ["docker-containerd 29.0"],
            ["docker-containerd 29.1-29.5", "docker-containerd 29.6-29.x"],
        ),
    ] {
        let (host, own, other) = match os {
            "linux" => ("linux/amd64", "linux/amd64", "linux/arm64"),
            _ => ("windows(10.0.20348)/amd64", "windows(10.0.20348.1)/amd64", "windows(10.0.17763.1)/amd64"),
        };
        let mut entries = index(&[other, own, "unknown/unknown", "unknown/unknown"]);
        attest(&mut entries, 2, 0);
        attest(&mut entries, 3, 1);
        let fetches = |label: &str| band(label, os).choose(&platform(host), &entries).fetches;
        for label in before.iter().chain(&["containerd main", "docker 19.03-29", "docker 29.6-29.x"]) {
            if bands().iter().any(|band| band.label() == *label && band.applies_to(os)) {
                assert_eq!(fetches(label), [1], "{label} on {os}");
            }
        }
        for label in after {
            assert_eq!(fetches(label), [1, 3], "{label} on {os}");
        }
    }
}

#[test]
fn docker_takes_what_is_about_an_image_as_its_source_does() {
    const DOCKER: &str = "docker-containerd 29.6-29.x";
    let host = platform("linux/arm64");
    let fetches = |entries: &[Descriptor]| band(DOCKER, "linux").choose(&host, entries).fetches;
    let plain = index(&["linux/arm64", "unknown/unknown", "unknown/unknown"]);
    // Of two attestations of one image the last one counts.
    let mut entries = plain.clone();
    attest(&mut entries, 1, 0);
    attest(&mut entries, 2, 0);
    assert_eq!(fetches(&entries), [0, 2]);
    // An attestation of an attestation is downloaded too.
    let mut entries = plain.clone();
    attest(&mut entries, 1, 0);
    attest(&mut entries, 2, 1);
    assert_eq!(fetches(&entries), [0, 1, 2]);
    // Another kind of reference, or none to a digest, is not one.
    let mut entries = plain.clone();
    attest(&mut entries, 1, 0);
    annotate(&mut entries[1], &[(REFERENCE_TYPE, "something")]);
    attest(&mut entries, 2, 0);
    annotate(&mut entries[2], &[(REFERENCE_DIGEST, "sha256:1")]);
    assert_eq!(fetches(&entries), [0]);
    // Only a manifest can be one.
    let mut entries = plain.clone();
    attest(&mut entries, 1, 0);
    entries[1].media_type = "application/vnd.in-toto+json".to_owned();
    assert_eq!(fetches(&entries), [0]);
    // What containerd wrote as a referrer counts if it states no platform or one that matches.
    let subject = plain[0].digest.to_string();
    let mut entries = index(&["linux/arm64", "-", "unknown/unknown", "linux/arm/v7", "linux/amd64"]);
    for entry in &mut entries[1..] {
        annotate(entry, &[(docker::SUBJECT, &subject)]);
    }
    assert_eq!(fetches(&entries), [0, 1, 3]);
    // Every level of amd64 may be the pick, and so may be its attestation.
    let mut entries = index(&["linux/amd64", "linux/amd64/v3", "unknown/unknown", "unknown/unknown"]);
    attest(&mut entries, 2, 0);
    attest(&mut entries, 3, 1);
    assert_eq!(band(DOCKER, "linux").choose(&platform("linux/amd64"), &entries).fetches, [0, 1, 2, 3]);
}

#[test]
fn the_bundler_of_k0s_keeps_attestations() {
    for label in ["k0s 1.33-1.35", "k0s 1.36-main"] {
        let choose = |entries: &[Descriptor]| band(label, "linux").choose(&platform("linux/amd64"), entries);
        let mut entries =
            index(&["linux/arm64", "linux/amd64", "unknown/unknown", "unknown/unknown", "linux/386"]);
        attest(&mut entries, 2, 0);
        attest(&mut entries, 3, 1);
        assert_eq!(choose(&entries).fetches, [1, 3], "{label}");
        // Whatever names what is kept is kept, and what names that in turn; but no image that matches and is not the best.
        let digest = entries[1].digest.to_string();
        annotate(&mut entries[0], &[(REFERENCE_DIGEST, &digest)]);
        annotate(&mut entries[4], &[(REFERENCE_DIGEST, &digest)]);
        assert_eq!(choose(&entries).fetches, [0, 1, 2, 3], "{label}");
        // Entries that are no images do not make up for the image that is missing.
        let mut entries = index(&["linux/arm64", "-"]);
        assert_eq!(choose(&entries).picks, Some(1), "{label}");
        entries[1].media_type = "application/vnd.acme.thing".to_owned();
        assert_eq!((choose(&entries).picks, choose(&entries).fetches), (None, vec![]), "{label}");
    }
}

#[test]
fn zstd_comes_first_since_skopeo_1_12() {
    let mut entries = index(&["linux/amd64", "linux/amd64", "linux/arm64", "-", "-"]);
    for at in [1, 2, 4] {
        annotate(&mut entries[at], &[(copy_tools::ZSTD, "true")]);
    }
    let picks = |label: &str, host: &str| band(label, "linux").choose(&platform(host), &entries).fetches;
    for (host, old, new) in [("linux/amd64", 0, 1), ("linux/arm64", 2, 2), ("linux/s390x", 3, 4)] {
        assert_eq!(picks("skopeo <=1.11", host), [old], "{host}");
        assert_eq!(picks(SKOPEO, host), [new], "{host}");
    }
    annotate(&mut entries[1], &[(copy_tools::ZSTD, "1")]);
    assert_eq!(band(SKOPEO, "linux").choose(&platform("linux/amd64"), &entries).fetches, [0]);
}

fn any_platform() -> impl Strategy<Value = Option<Platform>> {
    prop_oneof![
        1 => Just(None),
        9 => (
            prop::sample::select(vec!["linux", "windows", "unknown", ""]),
            prop::sample::select(vec!["amd64", "arm64", "arm", "386", "X86_64", "unknown", ""]),
            prop::sample::select(vec![
                "", "10.0.17763.7919", "10.0.20348.4294", "10.0.20348.999", "10.0.26100.3000", "10.0.26100", "10.0.x.1",
            ]),
            prop::sample::select(vec!["", "v1", "v2", "v5", "v6", "v7", "v8"]),
            prop::collection::vec(prop::sample::select(vec!["win32k".to_owned(), "gpu".to_owned()]), 0..2),
        )
            .prop_map(|(os, architecture, os_version, variant, os_features)| {
                Some(Platform {
                    architecture: architecture.into(),
                    os: os.into(),
                    os_version: os_version.into(),
                    os_features,
                    variant: variant.into(),
                })
            }),
    ]
}

/// An index whose entries may be about each other.
fn any_index() -> impl Strategy<Value = Vec<Descriptor>> {
    let about = prop::option::weighted(
        0.4,
        (prop::sample::select(vec![REFERENCE_DIGEST, docker::SUBJECT]), 0usize..9, any::<bool>()),
    );
    prop::collection::vec((any_platform(), about, any::<bool>()), 0..9).prop_map(|parts| {
        let mut entries: Vec<Descriptor> =
            parts.iter().enumerate().map(|(at, (platform, ..))| entry(at, platform.clone())).collect();
        for (at, (_, about, zstd)) in parts.iter().enumerate() {
            if let Some((key, of, attests)) = about
                && let Some(digest) = entries.get(*of).map(|of| of.digest.to_string())
            {
                let kind = if *attests { "attestation-manifest" } else { "other" };
                annotate(&mut entries[at], &[(key, &digest), (REFERENCE_TYPE, kind)]);
            }
            if *zstd {
                annotate(&mut entries[at], &[(copy_tools::ZSTD, "true")]);
            }
        }
        entries
    })
}

fn any_host() -> impl Strategy<Value = Platform> {
    prop::sample::select(vec![
        "windows(10.0.17763)/amd64",
        "windows(10.0.20348)/amd64",
        "windows(10.0.25398)/amd64",
        "windows(10.0.26100)/amd64",
        "windows(10.0.26200)/amd64",
        "windows/amd64",
        "linux/amd64",
        "linux/amd64/v3",
        "linux/arm64",
        "linux/arm/v7",
        "linux/arm/v6",
        "linux/386",
        "linux/s390x",
    ])
    .prop_map(platform)
}

proptest! {
    #[test]
    fn a_choice_lies_within_the_index(host in any_host(), entries in any_index()) {
        for band in bands() {
            let choice = band.choose(&host, &entries);
            prop_assert!(choice.fetches.is_sorted_by(|a, b| a < b), "{} {:?}", band.label(), choice);
            prop_assert!(choice.fetches.iter().all(|at| *at < entries.len()));
            prop_assert!(choice.picks.is_none_or(|at| choice.fetches.contains(&at)), "{} {:?}", band.label(), choice);
            prop_assert!(!choice.reason.is_empty());
        }
    }

    /// No rule looks at annotations that are not listed.
    #[test]
    fn listed_annotations_decide_alone(host in any_host(), entries in any_index()) {
        let mut stripped = entries.clone();
        for (at, entry) in stripped.iter_mut().enumerate() {
            entry.annotations.retain(|key, _| ANNOTATIONS.contains(&key.as_str()));
            annotate(entry, &[("org.opencontainers.image.ref.name", &at.to_string())]);
        }
        for band in bands() {
            prop_assert_eq!(band.choose(&host, &entries), band.choose(&host, &stripped));
        }
    }

    /// Entries that a client does not download do not matter to it.
    #[test]
    fn what_is_left_behind_is_not_missed(host in any_host(), entries in any_index()) {
        for band in bands().iter().filter(|band| band.applies_to(&host.os)) {
            let choice = band.choose(&host, &entries);
            let Some(pick) = choice.picks else { continue };
            let kept: Vec<_> = choice.fetches.iter().map(|at| entries[*at].clone()).collect();
            let again = band.choose(&host, &kept);
            prop_assert_eq!(again.picks.map(|at| choice.fetches[at]), Some(pick), "{} {:?}", band.label(), choice.reason);
            prop_assert_eq!(again.fetches.len(), kept.len(), "{} {:?}", band.label(), choice.reason);
        }
    }

    /// Where no two entries are alike, rules that compare versions do not depend on the order of the index.
    #[test]
    fn order_matters_only_where_the_rule_says_so(
        host in prop::sample::select(vec!["windows(10.0.20348)/amd64", "windows(10.0.26100)/amd64"]),
        order in Just(vec![0usize, 1, 2, 3, 4]).prop_shuffle(),
    ) {
        for label in [
            "containerd 1.5.0-1.6.17",
            "containerd 1.6.18-1.6.22",
            "containerd 1.6.23-1.6.39",
            "containerd 2.1.6-2.2.x",
            "containerd 2.3.x",
            "containerd main",
            "docker-containerd 29.1-29.5",
            "docker 19.03-29",
        ] {
            let straight = choose(label, host, &PAUSE);
            let shuffled: Vec<&str> = order.iter().map(|at| PAUSE[*at]).collect();
            let found = choose(label, host, &shuffled);
            prop_assert_eq!(found.picks.map(|at| order[at]), straight.picks, "{}", label);
        }
    }

    /// The newest build first gives every containerd from 1.7 on the best image of a host.
    #[test]
    fn newest_first_is_a_good_order(host in prop::sample::select(vec![17763u32, 20348, 25398, 26100])) {
        let newest_first: Vec<&str> = PAUSE.iter().rev().copied().collect();
        let kind = format!("windows(10.0.{host})/amd64").parse().unwrap();
        let best = newest_first.iter().position(|entry| {
            platform(entry).os_version.split('.').nth(2).is_some_and(|build| build.parse::<u32>().unwrap() <= host)
        });
        for band in node_bands(&kind, &["containerd@1.7.6".parse().unwrap(), "containerd@2".parse().unwrap()]) {
            let choice = band.choose(&kind.platform(), &index(&newest_first));
            prop_assert_eq!(choice.picks, best, "{}", band.label());
        }
    }
}

#[test]
fn band_ids_are_unique_and_stable() {
    let ids: Vec<String> = bands().iter().map(|band| band.id().to_string()).collect();
    let distinct: std::collections::BTreeSet<&String> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len());
    for id in
        ["containerd@0.0.0/windows", "containerd@1.7.6/windows", "containerd@2.3.0/linux", "skopeo@0.0.0"]
    {
        assert!(ids.iter().any(|own| own == id), "{id}: {ids:?}");
    }
}
