//! A plan for k0s' Autopilot: images first, then the program, controllers before workers.
//!
//! Sources: k0s `pkg/apis/autopilot/v1beta2/types.go` (the object), `pkg/autopilot/controller/plans` (commands run in their
//! order; a target whose platform is not listed fails the plan), `pkg/autopilot/controller/setup.go` (control nodes have
//! the labels of operating system and architecture too).

use serde_json::{Map, Value, json};

use super::{Lack, Manual, PlanError, Request, UpgradePlan, architectures};
use crate::oci::{Algorithm, NodeKind};
use crate::site::stock::{Stocked, StockedFile, archive_path, k0s_program_name};
use crate::store::ContentError;

/// What can be chosen about an Autopilot plan.
#[derive(Clone, Debug)]
pub struct Autopilot<'a> {
    /// The plan's id; none: made from the release.
    pub id: Option<&'a str>,
    /// How many workers are upgraded at the same time.
    pub concurrency: u32,
    /// The names of the controllers; empty: all that there are.
    pub controllers: &'a [String],
}

/// A plan that brings the images and the program of a k0s release to all Linux nodes.
pub fn autopilot(request: &Request<'_>, options: &Autopilot<'_>) -> Result<UpgradePlan, PlanError> {
    let release = request.release;
    if release.distro != "k0s" {
        let (controller, upgrades) = ("Autopilot", "k0s");
        return Err(PlanError::OtherDistribution { controller, release: release.clone(), upgrades });
    }
    let stocked = request.stocked()?;
    let (mut archives, mut programs) = (Map::new(), Map::new());
    let (mut lacks, mut manual) = (Vec::new(), Vec::new());
    let mut parts = Vec::new();
    for kind in stocked.nodes.keys() {
        let archive = request.archive(&stocked, kind, &mut lacks)?;
        let program = request.stock.k0s_program(release, kind)?;
        if program.is_none() {
            lacks.push(Lack::k0s_program(release, k0s_program_name(release, kind), kind));
        }
        parts.extend(archive.zip(program).map(|(archive, program)| (kind, archive, program)));
    }
    if !lacks.is_empty() {
        return Err(PlanError::Lacks(lacks));
    }
    let imports_on_windows = request.stock.catalog().release(release)?.facts.import_on_windows != Some(false);
    for (kind, archive, program) in parts {
        let program = (request.address(&program.path), program_sum(request, &program)?);
        let is_wanted = !kind.is_windows() || imports_on_windows;
        let archive = if is_wanted {
            let sum = (request.sum)(&archive).map_err(crate::site::stock::StockError::from)?;
            let path = archive_path(release, kind).unwrap_or_default();
            Some((request.address(&path), sum.hex().to_owned()))
        } else {
            None
        };
        if kind.is_windows() {
            manual.push(Manual::k0s_windows(release, kind, archive.as_ref(), &program));
            continue;
        }
        let key = platform_key(kind);
        programs.insert(key.clone(), resource(&program));
        archives.extend(archive.map(|archive| (key, resource(&archive))));
    }
    let plan = object(&stocked, options, (archives, programs));
    Ok(UpgradePlan { release: release.clone(), objects: vec![plan], notes: notes(&stocked, &manual), manual })
}

fn object(
    stocked: &Stocked,
    options: &Autopilot<'_>,
    (archives, programs): (Map<String, Value>, Map<String, Value>),
) -> Value {
    // A node of an architecture that is not listed would fail the plan.
    let labels =
        format!("kubernetes.io/os=linux,kubernetes.io/arch in ({})", architectures(stocked).join(","));
    let selected = json!({"selector": {"labels": labels}});
    let workers = json!({"limits": {"concurrent": options.concurrency}, "discovery": selected});
    let controllers = if options.controllers.is_empty() {
        selected
    } else {
        json!({"static": {"nodes": options.controllers}})
    };
    let version = &stocked.id.version;
    let id = options.id.map_or_else(|| stocked.id.to_string().replace(['@', '+'], "-"), str::to_owned);
    json!({
        "apiVersion": "autopilot.k0sproject.io/v1beta2",
        "kind": "Plan",
        "metadata": {"name": "autopilot"},
        "spec": {
            "id": id,
            "timestamp": "now",
            "commands": [
                {"airgapupdate": {"version": version, "platforms": archives, "workers": workers}},
                {"k0supdate": {
                    "version": version,
                    "platforms": programs,
                    "targets": {"controllers": {"discovery": controllers}, "workers": workers},
                }},
            ],
        },
    })
}

fn resource((url, sha256): &(String, String)) -> Value {
    json!({"url": url, "sha256": sha256})
}

/// Go's names for the platform, as Autopilot knows a node's.
fn platform_key(kind: &NodeKind) -> String {
    format!("{}-{}", kind.os(), kind.architecture())
}

fn program_sum(request: &Request<'_>, program: &StockedFile) -> Result<String, PlanError> {
    let sum = request.stock.file_sum(&program.file, Algorithm::Sha256)?;
    // Nobody else computes it in this process.
    Ok(sum.ok_or_else(|| ContentError::Damaged(program.file.digest.clone()))?.hex().to_owned())
}

fn notes(stocked: &Stocked, manual: &[Manual]) -> Vec<String> {
    let mut notes = vec![
        "A cluster has one plan; delete the one before it first: kubectl delete plan autopilot".to_owned(),
        format!(
            "It reaches Linux nodes of these architectures: {}. Autopilot asks for the files without a password, over TLS \
             with a certificate that the nodes' own systems trust.",
            architectures(stocked).join(", ")
        ),
    ];
    if !manual.is_empty() {
        notes.push(
            "Autopilot does not upgrade Windows nodes: go on by hand, as below, when the plan is completed: kubectl get \
             plan autopilot -o jsonpath='{.status.state}'"
                .to_owned(),
        );
    }
    notes
}
