//! OpenKruise: a job that pulls a list of images, or before 1.5 a job for each image.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

use super::{Group, PrepullError, Request};

/// The most images that one `ImageListPullJob` may have (kruise `apis/apps/v1alpha1/imagelistpulljob_types.go`).
const MAX_IMAGES: usize = 255;
/// Seconds for one image. OpenKruise's own 600 are too few for the base layers of Windows.
const TIMEOUT: u32 = 1800;
/// Finished jobs are kept for a day, so that their status can be read.
const KEEP: u32 = 86400;

/// Major and minor version of OpenKruise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KruiseVersion(u32, u32);

/// The first with `ImageListPullJob`, and what is assumed where the version is not known.
const LISTS: KruiseVersion = KruiseVersion(1, 5);
/// The first with `imagePullPolicy`.
const PULL_POLICY: KruiseVersion = KruiseVersion(1, 6);
/// The first that serves `v1beta1`, and that has a daemon for Windows.
const BETA: KruiseVersion = KruiseVersion(1, 9);

impl fmt::Display for KruiseVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl FromStr for KruiseVersion {
    type Err = PrepullError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut numbers = text.strip_prefix('v').unwrap_or(text).split('.').map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Ok(Self(major, minor)),
            _ => Err(PrepullError::KruiseVersion(text.chars().take(40).collect())),
        }
    }
}

pub(super) fn jobs(request: &Request<'_>, group: &Group<'_>) -> Result<Vec<Value>, PrepullError> {
    if let Some(version) = request.kruise
        && version < BETA
        && group.kind.is_windows()
    {
        return Err(PrepullError::NoWindowsDaemon(version, group.kind.clone()));
    }
    let version = request.kruise.unwrap_or(LISTS);
    let lists = version >= LISTS;
    let jobs = group.images.chunks(if lists { MAX_IMAGES } else { 1 }).enumerate().map(|(nth, images)| {
        let name = if nth == 0 { group.name.clone() } else { format!("{}-{}", group.name, nth + 1) };
        let mut spec = json!({
            "parallelism": request.parallelism,
            "selector": {"matchLabels": group.node_labels()},
            "pullPolicy": {"timeoutSeconds": TIMEOUT, "backoffLimit": 3},
            "completionPolicy": {"type": "Always", "ttlSecondsAfterFinished": KEEP},
        });
        if lists {
            spec["images"] = json!(images);
        } else {
            spec["image"] = json!(images[0]);
        }
        if version >= PULL_POLICY {
            spec["imagePullPolicy"] = json!("IfNotPresent");
        }
        if !request.secrets.is_empty() {
            spec["pullSecrets"] = json!(request.secrets);
        }
        json!({
            "apiVersion": if version >= BETA { "apps.kruise.io/v1beta1" } else { "apps.kruise.io/v1alpha1" },
            "kind": if lists { "ImageListPullJob" } else { "ImagePullJob" },
            "metadata": {"name": name, "namespace": request.namespace},
            "spec": spec,
        })
    });
    Ok(jobs.collect())
}
