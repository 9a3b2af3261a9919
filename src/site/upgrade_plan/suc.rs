//! Plans for system-upgrade-controller: servers first, then agents, each node by a job that replaces the program.
//!
//! Sources: rancher/system-upgrade-controller `pkg/apis/upgrade.cattle.io/v1`, `pkg/upgrade/job/job.go` (who cordons and
//! drains), `pkg/upgrade/plan/plan.go` (what a channel answers); the plans in the documentation of k3s and RKE2.

use serde_json::{Value, json};

use super::{Lack, Manual, PlanError, Request, UpgradePlan, architectures, has_any_tag};
use crate::catalog::ReleaseId;
use crate::oci::{Algorithm, NodeKind, Reference};
use crate::site::stock::{Channel, StockError, Stocked, archive_path};
use crate::store::ContentError;

/// The feature that brings the image whose jobs replace the program.
const FEATURE: &str = "suc";
/// What the jobs cordon and drain nodes with (`pkg/upgrade/job/job.go`, `defaultKubectlImage`).
const KUBECTL: &str = "docker.io/rancher/kubectl";
/// How long a pod may resist being evicted, in seconds; as in the controller's own example.
const EVICTION: u32 = 60;

/// What can be chosen about the plans.
#[derive(Clone, Debug)]
pub struct SystemUpgrade<'a> {
    /// The namespace of the controller.
    pub namespace: &'a str,
    /// The account that its jobs run as.
    pub service_account: &'a str,
    /// How many agents are upgraded at the same time; servers go one by one.
    pub concurrency: u32,
    /// Whether agents are drained; else they are cordoned, and what runs on them runs on.
    pub drain: bool,
    /// The channel that the plans follow; none: they state the version.
    pub channel: Option<Channel>,
    /// The registry that images are named after; none: they keep their names.
    pub registry: Option<&'a str>,
    /// The image that the controller is configured to cordon with; none: any tag of its default.
    pub kubectl: Option<&'a Reference>,
}

/// A plan for the servers and one for the agents of a k3s or RKE2 cluster.
pub fn system_upgrade(request: &Request<'_>, options: &SystemUpgrade<'_>) -> Result<UpgradePlan, PlanError> {
    let release = request.release;
    if !matches!(release.distro.as_str(), "k3s" | "rke2") {
        let (controller, upgrades) = ("system-upgrade-controller", "k3s and RKE2");
        return Err(PlanError::OtherDistribution { controller, release: release.clone(), upgrades });
    }
    let stocked = request.stocked()?.with_feature(FEATURE);
    let mut lacks = Vec::new();
    let mut windows = Vec::new();
    for kind in stocked.nodes.keys() {
        if kind.is_windows() && release.distro == "k3s" {
            continue;
        }
        let archive = request.archive(&stocked, kind, &mut lacks)?;
        if kind.is_windows() {
            let file = request.stock.file(&[format!("{}/rke2.windows-amd64.tar.gz", release.version)])?;
            if file.is_none() {
                lacks.push(Lack::rke2_windows(release, kind));
            }
            windows.extend(archive.zip(file).map(|(archive, file)| (kind, archive, file)));
        }
    }
    lacks.extend(lacking_kubectl(request, options)?);
    if !lacks.is_empty() {
        return Err(PlanError::Lacks(lacks));
    }
    if let Some(channel) = options.channel {
        check_channel(request, channel)?;
    }
    let mut manual = Vec::new();
    for (kind, archive, file) in windows {
        let sum = (request.sum)(&archive).map_err(StockError::from)?;
        let path = archive_path(release, kind).unwrap_or_default();
        let archive = (request.address(&path), sum.hex().to_owned());
        let sum = request.stock.file_sum(&file.file, Algorithm::Sha256)?;
        let sum = sum.ok_or_else(|| ContentError::Damaged(file.file.digest.clone()))?;
        manual.push(Manual::rke2_windows(
            kind,
            &archive,
            &(request.address(&file.path), sum.hex().to_owned()),
        ));
    }
    let image = upgrade_image(request, &stocked, options)?;
    let objects = vec![
        plan(request, &stocked, options, &image, Role::Server),
        plan(request, &stocked, options, &image, Role::Agent),
    ];
    Ok(UpgradePlan { release: release.clone(), objects, notes: notes(options, &manual), manual })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Server,
    Agent,
}

fn plan(
    request: &Request<'_>,
    stocked: &Stocked,
    options: &SystemUpgrade<'_>,
    image: &str,
    role: Role,
) -> Value {
    let is_server = role == Role::Server;
    let distro = &stocked.id.distro;
    let mut selector = vec![
        json!({"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}),
        json!({"key": "kubernetes.io/arch", "operator": "In", "values": architectures(stocked)}),
    ];
    let control_plane = "node-role.kubernetes.io/control-plane";
    selector.push(if is_server {
        json!({"key": control_plane, "operator": "In", "values": ["true"]})
    } else {
        json!({"key": control_plane, "operator": "NotIn", "values": ["true"]})
    });
    let mut spec = json!({
        "concurrency": if is_server { 1 } else { options.concurrency },
        "nodeSelector": {"matchExpressions": selector},
        "serviceAccountName": options.service_account,
        "tolerations": [{"operator": "Exists"}],
        "upgrade": {"image": image},
    });
    match options.channel {
        Some(channel) => spec["channel"] = json!(request.address(&format!("/channels/{distro}/{channel}"))),
        None => spec["version"] = json!(stocked.id.version),
    }
    if !is_server && options.drain {
        spec["drain"] = json!({"force": true, "skipWaitForDeleteTimeout": EVICTION});
    } else {
        spec["cordon"] = json!(true);
    }
    if !is_server {
        // Waits until every server has the version.
        spec["prepare"] = json!({"image": image, "args": ["prepare", plan_name(distro, Role::Server)]});
    }
    json!({
        "apiVersion": "upgrade.cattle.io/v1",
        "kind": "Plan",
        "metadata": {"name": plan_name(distro, role), "namespace": options.namespace},
        "spec": spec,
    })
}

fn plan_name(distro: &str, role: Role) -> String {
    format!("{distro}-{}", if role == Role::Server { "server" } else { "agent" })
}

/// The image of the jobs, without a tag: the controller adds that of the version.
fn upgrade_image(
    request: &Request<'_>,
    stocked: &Stocked,
    options: &SystemUpgrade<'_>,
) -> Result<String, PlanError> {
    let kinds: Vec<NodeKind> = stocked.linux().cloned().collect();
    let needs = request.stock.catalog().needs(&stocked.id, &[FEATURE.to_owned()], &kinds)?;
    let need = needs.images.iter().find(|need| need.when.iter().any(|feature| feature == FEATURE));
    let Some(need) = need else { return Err(no_image(&stocked.id)) };
    let name = need.reference.name();
    let Some(registry) = options.registry else { return Ok(name.to_string()) };
    let image = format!("{}/{}", registry.trim_end_matches('/'), need.reference.repository());
    match format!("{image}:1").parse::<Reference>() {
        Ok(reference) if reference.name().as_str() == image => Ok(image),
        _ => Err(PlanError::Registry(image)),
    }
}

fn no_image(release: &ReleaseId) -> PlanError {
    let (image, what) = (format!("{}-upgrade", release.distro), "replaces the program");
    PlanError::Lacks(vec![Lack::Tool { image, what }])
}

/// The image that the jobs cordon with, if it is not there.
fn lacking_kubectl(request: &Request<'_>, options: &SystemUpgrade<'_>) -> Result<Option<Lack>, PlanError> {
    let (image, is_here) = if let Some(image) = options.kubectl {
        let content = request.stock.content();
        let digest = match (image.digest(), image.tag()) {
            (Some(digest), _) => Some(digest.clone()),
            (None, Some(tag)) => content.resolve(image.name(), tag)?.map(|target| target.digest),
            (None, None) => None,
        };
        let found = digest.map(|digest| content.manifest(image.name(), &digest)).transpose()?.flatten();
        (image.to_string(), found.is_some())
    } else {
        let image: Reference =
            format!("{KUBECTL}:any").parse().map_err(|_| PlanError::Registry(KUBECTL.into()))?;
        let what = "with the tag in the ConfigMap of the controller (SYSTEM_UPGRADE_JOB_KUBECTL_IMAGE)";
        (format!("{KUBECTL}, {what}"), has_any_tag(request.stock, &image)?)
    };
    Ok((!is_here).then_some(Lack::Tool { image, what: "cordons and drains the nodes" }))
}

fn check_channel(request: &Request<'_>, channel: Channel) -> Result<(), PlanError> {
    let current = request.stock.newest(&request.release.distro, channel)?.map(|stocked| stocked.id);
    if current.as_ref() == Some(request.release) {
        return Ok(());
    }
    Err(PlanError::Channel {
        channel: channel.to_string(),
        release: request.release.clone(),
        current: current.map(|id| id.to_string()),
    })
}

fn notes(options: &SystemUpgrade<'_>, manual: &[Manual]) -> Vec<String> {
    let mut notes = vec![format!(
        "system-upgrade-controller has to run in the namespace {}. Its jobs pull their images anew each time, so the \
             registry has to answer until the upgrade is over.",
        options.namespace
    )];
    if let Some(channel) = options.channel {
        notes.push(format!(
            "The plans follow the channel {channel}: when a later import brings a newer release, the cluster goes there."
        ));
    }
    if !manual.is_empty() {
        notes.push(
            "No image upgrades Windows nodes: go on by hand, as below, when the servers are done.".to_owned(),
        );
    }
    notes
}
