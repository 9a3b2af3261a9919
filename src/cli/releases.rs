//! `dray releases`

use clap::Args;
use dray::catalog::ReleaseSummary;

use super::error::CliError;
use super::runtime::Context;
use super::{inputs, output};

/// List the releases in the catalog
///
/// With a distribution, one line for each of its releases: the containerd inside, whether it has images for Windows
/// nodes, and the features that `dray images --with` and a definition's `with` take.
#[derive(Args)]
#[command(after_help = "Examples:\n  dray releases\n  dray releases k0s\n  dray releases rke2 --format json")]
pub(crate) struct Releases {
    /// Only this distribution: k0s, kubeadm, k3s, rke2, openkruise
    #[arg(value_name = "DISTRO")]
    distro: Option<String>,
}

impl Releases {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        let catalog = inputs::catalog(context)?;
        let releases = catalog.releases(self.distro.as_deref())?;
        context.output.result(&releases, || match self.distro {
            Some(_) => output::table(&rows(&releases)),
            None => overview(&releases),
        })
    }
}

/// A line for each release.
fn rows(releases: &[ReleaseSummary]) -> Vec<Vec<String>> {
    let heading = ["RELEASE", "CONTAINERD", "WINDOWS", "FEATURES"].map(str::to_owned).to_vec();
    let row = |release: &ReleaseSummary| {
        vec![
            release.id.to_string(),
            release.containerd.clone().unwrap_or_else(|| "-".to_owned()),
            if release.windows { "yes" } else { "-" }.to_owned(),
            release.features.join(","),
        ]
    };
    std::iter::once(heading).chain(releases.iter().map(row)).collect()
}

/// A line for each distribution and minor version, so that everything fits on a screen.
fn overview(releases: &[ReleaseSummary]) -> String {
    let mut rows = vec![["DISTRO", "VERSION", "RELEASES", "OLDEST", "NEWEST"].map(str::to_owned).to_vec()];
    let of_one_minor =
        |a: &ReleaseSummary, b: &ReleaseSummary| a.id.distro == b.id.distro && a.id.minor() == b.id.minor();
    for group in releases.chunk_by(of_one_minor) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
        let minor = first.id.minor().map_or_else(String::new, |(major, minor)| format!("{major}.{minor}"));
        let (oldest, newest) = (first.id.version.clone(), last.id.version.clone());
        rows.push(vec![first.id.distro.clone(), minor, group.len().to_string(), oldest, newest]);
    }
    output::table(&rows)
}
