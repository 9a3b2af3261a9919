//! What the stored configuration of a k0s cluster states: pinned images, and a repository in front of names.

use super::super::pins::{Pin, Verdict, creators};
use super::super::repository::{bare, host};
use super::super::{ClusterConfig, MAX_TWINS, Source};
use super::{Facts, Finding};
use crate::catalog::{ReleaseId, Severity, StripDefaults};

/// What to know about pinned images.
pub(super) fn pins(facts: &Facts<'_>) -> Vec<Finding> {
    let of = |verdict: Verdict| facts.pins.iter().filter(|pin| pin.verdict == verdict).collect::<Vec<&Pin>>();
    let mut findings = Vec::new();
    findings.extend(stale(facts, &of(Verdict::Stale)));
    let redundant = of(Verdict::Redundant);
    if !redundant.is_empty() {
        findings.push(Finding::new(
            "redundant-pins",
            Severity::Note,
            format!(
                "the configuration states {} as {} has by itself; the next upgrade would find it stale",
                paths(&redundant),
                facts.inputs.target.version
            ),
            "take these paths out of the configuration, as the patch does",
            &[],
        ));
    }
    for (verdict, id, severity, what) in [
        (
            Verdict::VersionOverride,
            "version-override",
            Severity::Warning,
            "a version that no release has as its default",
        ),
        (
            Verdict::ImageOverride,
            "image-override",
            Severity::Warning,
            "an image of another name, with its version pinned",
        ),
        (Verdict::Custom, "custom-image", Severity::Note, "an image of the site's own"),
    ] {
        let pins: Vec<&Pin> = of(verdict).into_iter().filter(|pin| pin.is_complete()).collect();
        if !pins.is_empty() {
            findings.push(Finding::new(
                id,
                severity,
                format!("the configuration states {what}: {}; it stays as it is", stated(&pins)),
                "name these images under `images` in the definition, and see that they fit the new release",
                &[],
            ));
        }
    }
    let halves: Vec<&Pin> = facts.pins.iter().filter(|pin| !pin.is_complete()).collect();
    if !halves.is_empty() {
        findings.push(Finding::new(
            "incomplete-pins",
            Severity::Warning,
            format!(
                "the configuration states only the image or only the version of {}; the other half is that of whichever \
                 release reads it, and k0s 1.32 and 1.33 lose the half that is stated (k0s pull request 5914)",
                paths(&halves)
            ),
            "state both, image and version",
            &[],
        ));
    }
    findings
}

/// Defaults of an earlier release that the new one would obey.
fn stale(facts: &Facts<'_>, stale: &[&Pin]) -> Option<Finding> {
    if stale.is_empty() {
        return None;
    }
    let hits = |path: &String| stale.iter().any(|pin| pin.path == *path);
    // Where nothing is known of the content, a node that asks for a stale image may not get it.
    let unknown = matches!(facts.inputs.source, Source::Unknown);
    let lacking = |wanted: &&super::Wanted<'_>| {
        let missing = wanted.missing.iter().filter_map(|missing| missing.pinned.as_ref());
        let asked = wanted.asks.iter().filter(|_| unknown).filter_map(|ask| ask.pinned.as_ref());
        missing.chain(asked).any(hits)
    };
    let nodes: Vec<_> = facts.wanted.iter().filter(lacking).map(|wanted| wanted.node).collect();
    let severity = if nodes.is_empty() { Severity::Warning } else { Severity::Blocker };
    let creators = creators(facts.pins);
    let origin = match creators.as_slice() {
        [] => "of other releases".to_owned(),
        [one] => format!("of {}, {}", one.version, cause(facts, one)),
        [first, .., last] if creators.len() > MAX_TWINS => {
            format!("of {} to {}", first.version, last.version)
        }
        [first, .., last] => format!("of {} or {}, {}", first.version, last.version, cause(facts, first)),
    };
    let (count, are) = if stale.len() == 1 {
        ("1 image", "the default")
    } else {
        (&*format!("{} images", stale.len()), "the defaults")
    };
    let message = format!(
        "the configuration pins {count} to {are} {origin}; {} would run them instead of its own: {}",
        facts.inputs.target.version,
        paths(stale)
    );
    let asked = &facts.proposal.ask;
    let mut fix = Vec::new();
    if !facts.proposal.remove.is_empty() {
        fix.push(
            "apply the patch before the controllers are upgraded. The controllers that run now obey it at once and take \
             their own defaults, so have the images of both releases served first"
                .to_owned(),
        );
    }
    if !asked.is_empty() {
        fix.push(format!(
            "decide about {}: it may be left over or intended, so the patch leaves it alone; take it out if nobody put it \
             there on purpose",
            asked.join(", ")
        ));
    }
    Some(Finding::new("stale-pins", severity, message, &fix.join("; "), &nodes))
}

/// How the release came to write its defaults down.
fn cause(facts: &Facts<'_>, creator: &ReleaseId) -> &'static str {
    let era = facts.inputs.catalog.release(creator).ok().and_then(|release| release.facts.strip_defaults);
    match era {
        Some(StripDefaults::WholeStruct) => {
            "which wrote them there when it created the object (k0s issue 5258)"
        }
        Some(StripDefaults::PerField | StripDefaults::PerImage) => {
            "which wrote them there when it created the object (k0s issue 7708)"
        }
        _ => "which it wrote there or somebody copied",
    }
}

/// Numbers and booleans where the configuration must have text.
pub(super) fn not_text(facts: &Facts<'_>) -> Option<Finding> {
    let distro = &facts.inputs.target.distro;
    let found = facts.inputs.config?.not_texts(distro);
    let first = found.first()?;
    let list = found.iter().map(|it| format!("{}: `{}` is {}", it.place, it.path, it.written));
    Some(Finding::new(
        "not-text",
        Severity::Blocker,
        format!(
            "{distro} cannot read the configuration, because text is needed where it has a number or a boolean: {}",
            list.collect::<Vec<_>>().join("; ")
        ),
        &format!("put the value in quotes: \"{}\"", first.written),
        &[],
    ))
}

/// A k0sctl file that installs another release.
pub(super) fn k0sctl(facts: &Facts<'_>) -> Option<Finding> {
    let installs = facts.inputs.config?.installs()?;
    let target = &facts.inputs.target.version;
    (installs != target.strip_prefix('v').unwrap_or(target)).then(|| {
        Finding::new(
            "k0sctl-version",
            Severity::Note,
            format!("the k0sctl file installs v{installs}, and {target} is what is checked"),
            &format!("set spec.k0s.version to {target} for the upgrade"),
            &[],
        )
    })
}

/// What to know about `spec.images.repository`.
pub(super) fn repository(facts: &Facts<'_>) -> Vec<Finding> {
    let repository = facts.inputs.config.map(ClusterConfig::repository).unwrap_or_default();
    if repository.is_empty() || !facts.plan.is_k0s() {
        return Vec::new();
    }
    let path = host(repository).map_or("", |host| repository[host.len()..].trim_matches('/'));
    let mut findings = Vec::new();
    let doubled = format!("{repository}/{path}/");
    let twice =
        |image: &str| !path.is_empty() && image.starts_with(&doubled) && bare(repository, image).is_some();
    let nodes = facts.asking(|ask| twice(&ask.image));
    if let Some(example) = facts.wanted.iter().flat_map(|wanted| &wanted.asks).find(|ask| twice(&ask.image)) {
        findings.push(Finding::new(
            "repository-doubled",
            Severity::Warning,
            format!("the path of spec.images.repository is applied more than once: nodes ask for {} (k0s issues 6230, 8361)", example.image),
            &format!("take the pinned names out of the configuration, or serve with --prefix {path}, which takes the path off however often it is there"),
            &nodes,
        ));
    } else if !path.is_empty() {
        findings.push(Finding::new(
            "repository-prefix",
            Severity::Note,
            format!("nodes ask for names under {repository}"),
            &format!("serve with --prefix {path}, so that the names are found without it"),
            &[],
        ));
    }
    findings
}

fn paths(pins: &[&Pin]) -> String {
    pins.iter().map(|pin| pin.path.as_str()).collect::<Vec<_>>().join(", ")
}

fn stated(pins: &[&Pin]) -> String {
    pins.iter()
        .map(|pin| format!("{}:{} ({})", pin.image, pin.version, pin.path))
        .collect::<Vec<_>>()
        .join(", ")
}
