//! The patch that takes out of the stored configuration what k0s left there, and nothing else.

use serde_json::{Map, Value};

use super::pins::Pin;
use crate::catalog::ReleaseId;

/// Objects that hold images only, and go when their last image goes.
const HOLDERS: [&str; 5] = ["calico", "kuberouter", "windows", "envoyProxy", "traefik"];

/// What to do about the leftovers of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proposal {
    /// The paths to take out.
    pub remove: Vec<String>,
    /// Paths that look like leftovers but may be somebody's intention: the operator decides.
    pub ask: Vec<String>,
}

/// Decides which leftovers to take out.
///
/// A pin that an operator chose looks like one that k0s left; what gives k0s away is that it leaves many at once, all of
/// one release. So a single one is asked about, and so are those that do not agree with the release that explains most.
pub fn propose(pins: &[Pin]) -> Proposal {
    let leftovers: Vec<&Pin> = pins.iter().filter(|pin| pin.verdict.is_leftover()).collect();
    let explained =
        |release: &ReleaseId| leftovers.iter().filter(|pin| pin.releases.contains(release)).count();
    let candidates = leftovers.iter().flat_map(|pin| &pin.releases);
    let best = candidates.max_by_key(|release| (explained(release), std::cmp::Reverse(*release)));
    let mut proposal = Proposal::default();
    for pin in &leftovers {
        let together = best.is_some_and(|best| explained(best) > 1 && pin.releases.contains(best));
        let list = if together { &mut proposal.remove } else { &mut proposal.ask };
        list.push(pin.path.clone());
    }
    proposal
}

/// The JSON merge patch (RFC 7386) that takes `paths` out of `object`, and with them what would be left empty.
pub fn merge_patch(object: &Value, paths: &[String]) -> Value {
    let mut patch = Value::Object(Map::new());
    for path in paths {
        let mut place = &mut patch;
        for key in path.split('.') {
            if !place.is_object() {
                *place = Value::Object(Map::new());
            }
            place = &mut place[key];
        }
    }
    drop_emptied(&mut patch, object);
    patch
}

/// Takes out a holder of images as a whole when nothing would be left in it.
fn drop_emptied(patch: &mut Value, object: &Value) {
    let (Some(changes), Some(fields)) = (patch.as_object_mut(), object.as_object()) else { return };
    for (key, change) in changes {
        let Some(field) = fields.get(key) else { continue };
        drop_emptied(change, field);
        let all_gone = match (change.as_object(), field.as_object()) {
            (Some(inner), Some(fields)) => {
                fields.keys().all(|key| inner.get(key).is_some_and(Value::is_null))
            }
            _ => false,
        };
        if all_gone && HOLDERS.contains(&key.as_str()) {
            *change = Value::Null;
        }
    }
}

/// `object` with a JSON merge patch applied, as the API server does it.
pub fn apply(object: &mut Value, patch: &Value) {
    let Some(changes) = patch.as_object() else {
        object.clone_from(patch);
        return;
    };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Some(fields) = object.as_object_mut() else { return };
    for (key, change) in changes {
        if change.is_null() {
            fields.remove(key);
        } else {
            apply(fields.entry(key.clone()).or_insert(Value::Null), change);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::pins::Verdict;
    use super::*;

    fn pin(path: &str, releases: &[&str]) -> Pin {
        Pin {
            path: path.to_owned(),
            image: "i".into(),
            version: "v".into(),
            verdict: Verdict::Stale,
            releases: releases.iter().map(|release| release.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn one_pin_is_asked_about_and_several_of_one_release_are_taken_out() {
        assert_eq!(propose(&[]), Proposal::default());
        let alone = propose(&[pin("spec.images.pause", &["k0s@v1.29.7+k0s.0"])]);
        assert_eq!((alone.remove.len(), alone.ask.len()), (0, 1));
        let mixed = propose(&[
            pin("spec.images.a", &["k0s@v1.29.7+k0s.0", "k0s@v1.29.8+k0s.0"]),
            pin("spec.images.b", &["k0s@v1.29.7+k0s.0"]),
            pin("spec.images.c", &["k0s@v1.28.1+k0s.0"]),
        ]);
        assert_eq!(mixed.remove, ["spec.images.a", "spec.images.b"]);
        assert_eq!(mixed.ask, ["spec.images.c"]);
        let apart = propose(&[
            pin("spec.images.a", &["k0s@v1.29.7+k0s.0"]),
            pin("spec.images.b", &["k0s@v1.28.1+k0s.0"]),
        ]);
        assert!(apart.remove.is_empty());
    }

    #[test]
    fn empty_parents_go_and_settings_stay() {
        let object = json!({"spec": {"images": {
            "default_pull_policy": "Never", "repository": "r.io",
            "coredns": {"image": "a", "version": "b"},
            "calico": {"cni": {"image": "a", "version": "b"}, "node": {"image": "a", "version": "b"}},
            "kuberouter": {"cni": {"image": "a", "version": "b"}, "cniInstaller": {"image": "mine", "version": "1"}},
        }, "network": {"nodeLocalLoadBalancing": {"enabled": true, "envoyProxy": {
            "image": {"image": "a", "version": "b"}, "apiServerBindPort": 7443}}}}});
        let paths = [
            "spec.images.coredns",
            "spec.images.calico.cni",
            "spec.images.calico.node",
            "spec.images.kuberouter.cni",
            "spec.network.nodeLocalLoadBalancing.envoyProxy.image",
        ];
        let patch = merge_patch(&object, &paths.map(str::to_owned));
        assert_eq!(
            patch,
            json!({"spec": {"images": {"coredns": null, "calico": null, "kuberouter": {"cni": null}},
                "network": {"nodeLocalLoadBalancing": {"envoyProxy": {"image": null}}}}})
        );
        let mut patched = object;
        apply(&mut patched, &patch);
        assert_eq!(
            patched,
            json!({"spec": {"images": {"default_pull_policy": "Never", "repository": "r.io",
                "kuberouter": {"cniInstaller": {"image": "mine", "version": "1"}}},
                "network": {"nodeLocalLoadBalancing": {"enabled": true, "envoyProxy": {"apiServerBindPort": 7443}}}}})
        );
    }

    proptest! {
        #[test]
        fn repository_and_pull_policy_always_stay(
            names in proptest::collection::vec("(coredns|pause|calico\\.cni|calico\\.node|windows\\.pause|kuberouter\\.cni)", 0..8),
            policy in "(Never|Always)",
        ) {
            let mut object = json!({"spec": {"images": {"repository": "r.io/x", "default_pull_policy": policy}}});
            let paths: Vec<String> = names.iter().map(|name| format!("spec.images.{name}")).collect();
            for path in &paths {
                let mut place = &mut object;
                for key in path.split('.') {
                    place = &mut place[key];
                }
                *place = json!({"image": "a", "version": "b"});
            }
            let patch = merge_patch(&object, &paths);
            apply(&mut object, &patch);
            prop_assert_eq!(object, json!({"spec": {"images": {"repository": "r.io/x", "default_pull_policy": policy}}}));
        }
    }
}
