//! The report for people.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use dray::catalog::Severity;
use dray::site::check::{ClusterConfig, Missing, NodeReport, Report};
use dray::text;

use crate::cli::output::table;

/// How many nodes a line names.
const NAMED: usize = 4;

/// A report with what its commands need.
pub(super) struct Paper<'a> {
    pub(super) report: &'a Report,
    pub(super) config: Option<&'a ClusterConfig>,
    /// The file that the patch is written to.
    pub(super) patch: Option<&'a Path>,
}

impl Paper<'_> {
    /// All of it; notes only where they are asked for.
    pub(super) fn text(&self, with_notes: bool) -> String {
        let mut text = self.nodes();
        let parts = [
            self.missing(),
            self.pins(),
            self.findings(with_notes),
            self.patch(),
            self.keep(),
            self.unchecked(),
        ];
        for part in parts {
            if !part.is_empty() {
                text.push('\n');
                text.push_str(&part);
            }
        }
        text
    }

    fn nodes(&self) -> String {
        let verdict = if self.report.content_checked { "STARTS" } else { "CONFIGURED" };
        let heading = ["NODE", "KIND", "KUBELET", "RUNTIME", "IMAGES", verdict];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        for node in &self.report.nodes {
            let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
            rows.push(vec![
                node.name.clone(),
                node.kind.to_string(),
                or_dash(&node.kubelet),
                or_dash(node.runtime.as_deref().unwrap_or_default()),
                node.images.to_string(),
                starts(node),
            ]);
        }
        format!("upgrade to {}\n\n{}", self.report.to, table(&rows))
    }

    /// Each missing image once, with the nodes that ask for it.
    fn missing(&self) -> String {
        let mut images: BTreeMap<&Missing, Vec<&str>> = BTreeMap::new();
        for node in &self.report.nodes {
            for missing in &node.missing {
                images.entry(missing).or_default().push(&node.name);
            }
        }
        let mut text = String::new();
        for (missing, nodes) in images {
            let pinned = missing.pinned.as_ref().map(|path| format!(", set by {path}")).unwrap_or_default();
            let _ = writeln!(
                text,
                "missing: {} ({}{pinned}) for {}: {}",
                missing.image,
                missing.component,
                named(&nodes),
                missing.reason
            );
        }
        text
    }

    fn pins(&self) -> String {
        if self.report.pins.is_empty() {
            return String::new();
        }
        let heading = ["PIN", "IMAGE", "VERSION", "VERDICT"];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        for pin in &self.report.pins {
            let verdict = pin.verdict.as_str().to_owned();
            rows.push(vec![pin.path.clone(), pin.image.clone(), pin.version.clone(), verdict]);
        }
        let mut text = table(&rows);
        if self.report.creator.is_some() {
            let creators: Vec<String> = self.report.creators.iter().map(ToString::to_string).collect();
            let _ = writeln!(text, "left by {}", creators.join(" or "));
        }
        text
    }

    fn findings(&self, with_notes: bool) -> String {
        let mut text = String::new();
        let mut notes = 0;
        for finding in &self.report.problems {
            if finding.severity == Severity::Note && !with_notes {
                notes += 1;
                continue;
            }
            let _ = writeln!(text, "{}: [{}] {}", finding.severity.as_str(), finding.id, finding.message);
            if let Some(fix) = &finding.fix {
                let _ = writeln!(text, "  fix: {fix}");
            }
        }
        if notes > 0 {
            let (things, them) = if notes == 1 { ("note", "it") } else { ("notes", "them") };
            let _ = writeln!(text, "{notes} {things} more; -v shows {them}");
        }
        text
    }

    /// How to apply the patch, and what that changes.
    fn patch(&self) -> String {
        let (Some(ready), Some(config)) = (self.report.ready_with_patch, self.config) else {
            return String::new();
        };
        let then = if ready { "every node starts" } else { "some nodes still will not start" };
        let argument = match self.patch {
            Some(path) => format!("--patch-file {}", path.display()),
            None => format!("--patch '{}'", self.report.patch),
        };
        if !config.is_stored() {
            return format!(
                "remove the fields listed in this merge patch from the configuration file{}, and {then}:\n  {}\n",
                config.place_in_file().map(|path| format!(", below {path}")).unwrap_or_default(),
                self.patch.map_or_else(|| self.report.patch.to_string(), |path| path.display().to_string())
            );
        }
        let (namespace, name) = config.name();
        format!(
            "patch the configuration, and {then}:\n  kubectl -n {namespace} patch clusterconfigs.k0s.k0sproject.io \
             {name} --type merge {argument}\n"
        )
    }

    /// Says that no image was looked for, so that nobody takes the answer for more than it is.
    fn unchecked(&self) -> String {
        if self.report.content_checked {
            return String::new();
        }
        "only the configuration was checked, no image was looked for: add --store, --bundle, --lock or --registry\n"
            .to_owned()
    }

    fn keep(&self) -> String {
        let mut text = String::new();
        for running in &self.report.keep {
            let releases: Vec<String> = running.releases.iter().map(ToString::to_string).collect();
            let releases = if releases.is_empty() { running.kubelet.clone() } else { releases.join(" or ") };
            let nodes: Vec<&str> = running.nodes.iter().map(String::as_str).collect();
            let _ = writeln!(
                text,
                "do not prune before these nodes are upgraded: {releases} ({})",
                named(&nodes)
            );
        }
        text
    }
}

/// Whether a node starts, or why not.
fn starts(node: &NodeReport) -> String {
    if node.ready {
        return "yes".to_owned();
    }
    let mut why = Vec::new();
    match node.missing.len() {
        0 => {}
        1 => why.push("1 image missing".to_owned()),
        n => why.push(format!("{n} images missing")),
    }
    why.extend(node.blockers.iter().cloned());
    format!("no: {}", why.join(", "))
}

fn named(nodes: &[&str]) -> String {
    text::list(nodes, NAMED)
}
