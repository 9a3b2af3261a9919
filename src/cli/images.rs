//! `dray images`

use std::path::PathBuf;

use std::collections::BTreeSet;

use clap::Args;
use dray::catalog::{Catalog, CatalogError, ImageList, Need, Problem, ReleaseId, ReleaseProblem, Severity};
use dray::input;
use dray::oci::{NodeKind, Reference};
use dray::resolve::{Definition, DefinitionWarning};
use serde::Serialize;

use super::error::{CliError, Kind};
use super::inputs;
use super::problems;
use super::runtime::Context;

/// The node kind that is meant where none is named.
const DEFAULT_NODE: &str = "linux/amd64";

/// List the images that releases need, without a network
///
/// Prints one reference a line to stdout, and to stderr what an operator has to know about the releases: what the
/// distribution's own list leaves out, Windows builds that will not do, images that preloading does not cover. Without
/// --with it is the distribution's default configuration; each --with adds.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    dray images --release k0s@v1.36.3+k0s.2 --node linux/amd64 --node windows/ltsc2022\n  \
    dray images --release rke2@v1.36.3+rke2r1 --with cilium --format json\n  \
    k0s airgap list-images --all > k0s.txt; dray images --from-list k0s.txt")]
pub(crate) struct Images {
    /// The release, e.g. k0s@v1.36.3+k0s.2; more than one for what an update needs; may be repeated
    #[arg(
        long,
        value_name = "DISTRO@VERSION",
        required_unless_present_any = ["from_list", "definition"],
        value_delimiter = ','
    )]
    release: Vec<ReleaseId>,

    /// The releases, nodes and images of a definition instead
    #[arg(short = 'f', long, value_name = "FILE", conflicts_with_all = ["release", "node", "with"])]
    definition: Option<PathBuf>,

    /// A node kind: linux/arm64, windows(10.0.20348)/amd64, windows/ltsc2022; may be repeated
    #[arg(long, value_name = "KIND", default_value = DEFAULT_NODE, value_delimiter = ',')]
    node: Vec<String>,

    /// A feature beyond the default configuration, e.g. calico, nllb:envoy; may be repeated
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    with: Vec<String>,

    /// Add the images of a list: output of `k0s airgap list-images` or `kubeadm config images list`, or your own; may
    /// be repeated
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    from_list: Vec<PathBuf>,
}

/// The answer, as programs read it.
#[derive(Serialize)]
struct Answer {
    nodes: Vec<NodeKind>,
    releases: Vec<ReleaseNeeds>,
    lists: Vec<ListedImages>,
}

#[derive(Serialize)]
struct ReleaseNeeds {
    release: ReleaseId,
    images: Vec<Need>,
    problems: Vec<Problem>,
}

#[derive(Serialize)]
struct ListedImages {
    /// The file of the list, or the field of the definition.
    source: String,
    images: Vec<Reference>,
}

impl Images {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        let catalog = inputs::catalog(context)?;
        let answer = self.answer(context, &catalog)?;
        context.output.result(&answer, || answer.text())?;
        answer.tell(context);
        answer.verdict()
    }

    fn answer(self, context: &Context, catalog: &Catalog) -> Result<Answer, CliError> {
        let mut answer = match &self.definition {
            Some(path) => Answer::of_definition(&inputs::read_definition(context, path, catalog)?, catalog)?,
            None => self.of_flags(catalog)?,
        };
        for file in self.from_list {
            let images = ImageList::read(&file)?.images;
            let source = input::name(&file);
            if images.is_empty() {
                context.output.warn(DefinitionWarning::EmptyList { path: file }.to_string());
            }
            answer.lists.push(ListedImages { source, images });
        }
        Ok(answer)
    }

    fn of_flags(&self, catalog: &Catalog) -> Result<Answer, CliError> {
        let nodes = catalog.node_kinds(&self.node)?;
        let with = features(catalog, &self.release, &self.with)?;
        let pairs = self.release.iter().zip(&with);
        let releases = pairs.map(|(release, with)| ReleaseNeeds::new(catalog, release, with, &nodes));
        Ok(Answer { releases: releases.collect::<Result<_, _>>()?, nodes, lists: Vec::new() })
    }
}

impl ReleaseNeeds {
    fn new(
        catalog: &Catalog,
        release: &ReleaseId,
        with: &[String],
        nodes: &[NodeKind],
    ) -> Result<Self, CliError> {
        let needs = catalog.needs(release, with, nodes).map_err(unanswered)?;
        Ok(Self { release: release.clone(), images: needs.images, problems: needs.problems })
    }
}

/// The error of a release that the catalog cannot answer for.
fn unanswered(error: CatalogError) -> CliError {
    let is_unknown = matches!(error, CatalogError::UnknownRelease { .. });
    let hint = is_unknown.then_some("--from-list FILE takes the list that the distribution prints instead");
    hint.into_iter().fold(CliError::from(error), CliError::hint)
}

/// The features of each release. With one release an unknown feature is an error; with several, one that none has.
fn features(
    catalog: &Catalog,
    releases: &[ReleaseId],
    with: &[String],
) -> Result<Vec<Vec<String>>, CliError> {
    if releases.len() < 2 {
        return Ok(vec![with.to_vec(); releases.len()]);
    }
    let mut known = Vec::new();
    for id in releases {
        let release = catalog.release(id).map_err(unanswered)?;
        let has = |feature: &&String| release.features().contains(feature.as_str());
        known.push(with.iter().filter(has).cloned().collect::<Vec<String>>());
    }
    match with.iter().find(|feature| known.iter().all(|of| !of.contains(feature))) {
        Some(feature) => Err(CliError::usage(format!("none of these releases has the feature `{feature}`"))
            .hint("`dray releases DISTRO` shows the features of each release")),
        None => Ok(known),
    }
}

impl Answer {
    /// What a definition names: its releases, and its images by where they stand.
    fn of_definition(definition: &Definition, catalog: &Catalog) -> Result<Self, CliError> {
        let nodes = definition.nodes.clone();
        let releases = definition.releases.iter();
        let releases = releases.map(|wanted| ReleaseNeeds::new(catalog, &wanted.id, &wanted.with, &nodes));
        let mut lists: Vec<ListedImages> = Vec::new();
        let images = definition.images.iter().map(|image| (image.source.as_str(), &image.reference));
        for (source, reference) in images.chain(definition.charts.iter().map(|chart| ("charts", chart))) {
            match lists.iter_mut().find(|list| list.source == source) {
                Some(list) => list.images.push(reference.clone()),
                None => {
                    lists.push(ListedImages { source: source.to_owned(), images: vec![reference.clone()] });
                }
            }
        }
        Ok(Self { releases: releases.collect::<Result<_, _>>()?, nodes, lists })
    }

    /// Every reference once, in the order of the releases and lists.
    fn text(&self) -> String {
        let mut seen = std::collections::HashSet::new();
        let needed = self.releases.iter().flat_map(|release| &release.images).map(|need| &need.reference);
        let listed = self.lists.iter().flat_map(|list| &list.images);
        let distinct = needed.chain(listed).filter(|reference| seen.insert(*reference));
        distinct.map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    /// Tells the problems, each once for all releases that have it.
    fn tell(&self, context: &Context) {
        let of = |needs: &ReleaseNeeds| {
            let release = needs.release.clone();
            needs.problems.clone().into_iter().map(move |problem| (release.clone(), problem))
        };
        problems::tell(context, &ReleaseProblem::join(self.releases.iter().flat_map(of)));
        if self.releases.is_empty() && self.nodes.iter().any(NodeKind::is_windows) {
            context.output.warn(
                "a list says nothing about Windows nodes: k0s and kubeadm leave their images out of the lists that \
                 they print",
            );
        }
    }

    /// An error when something will not work.
    fn verdict(&self) -> Result<(), CliError> {
        let problems = self.releases.iter().flat_map(|release| &release.problems);
        let blockers = problems.filter(|problem| problem.severity == Severity::Blocker);
        let ids: BTreeSet<&str> = blockers.map(|problem| problem.id.as_str()).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let (noun, keep) = if ids.len() == 1 { ("problem", "keeps") } else { ("problems", "keep") };
        let ids = ids.into_iter().collect::<Vec<_>>().join(", ");
        Err(CliError::new(Kind::Incomplete, format!("the {noun} {ids} {keep} nodes from working")))
    }
}
