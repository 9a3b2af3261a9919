//! `dray explain`

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use dray::catalog::{Catalog, CatalogError};
use dray::input;
use dray::oci::{
    Digest, Document, ImageConfig, MAX_MANIFEST_BYTES, NodeKind, Platform, REFERENCE_DIGEST, Reference,
};
use dray::select::{self, Band, Choice, Runtime};
use serde::{Serialize, Serializer};

use super::error::CliError;
use super::inputs;
use super::output::table;
use super::runtime::{self, Context};
use super::upstream;

/// Show which manifest of an index each runtime picks
///
/// One line per client and range of versions that behaves alike: the entry that will run, and everything that
/// is downloaded. An entry that is downloaded and cannot be had fails the pull.
#[derive(Args)]
#[command(after_help = "\
Examples:
  dray explain registry.k8s.io/pause:3.10.2 --node windows/ltsc2025
  dray explain registry.k8s.io/pause:3.10.2 --node 'windows(10.0.20348)/amd64' --client containerd@1.7
  skopeo inspect --raw docker://registry.k8s.io/pause:3.10.2 | dray explain --index - --node linux/arm/v7
  dray explain docker.io/library/nginx:1.27 --client crane --node windows/amd64:10.0.20348.2527")]
pub(crate) struct Explain {
    /// The image to look up
    #[arg(required_unless_present = "index")]
    image: Option<String>,

    /// Kind of node, e.g. linux/arm64 or windows/ltsc2022; for copy tools the platform that is asked for, which may
    /// go without a Windows build; may be repeated
    #[arg(long, required = true, value_name = "KIND")]
    node: Vec<String>,

    /// Only this client, or these versions of it, e.g. containerd@1.7: containerd, docker (graph drivers),
    /// docker-containerd, skopeo (podman, CRI-O), crane, oras, regclient, k0s (its bundler). Repeatable; may be
    /// repeated
    #[arg(long, value_name = "NAME[@VERSION]")]
    client: Vec<Runtime>,

    /// Read the index from this file, - for standard input, instead of upstream
    #[arg(long, value_name = "FILE")]
    index: Option<PathBuf>,
}

impl Explain {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        let catalog = inputs::catalog(context)?;
        for client in &self.client {
            if let Some(unknown) = select::unknown_version(client, catalog.runtimes()) {
                context.output.warn(unknown.to_string());
            }
        }
        let mut questions: Vec<(&Band, Platform)> = Vec::new();
        for text in &self.node {
            let asked = Asked::read(text, &catalog)?;
            for band in self.bands(&asked)? {
                let question = (band, asked.platform(band));
                // Several spellings may mean the same kind.
                if !questions.iter().any(|(other, on)| std::ptr::eq(*other, band) && *on == question.1) {
                    questions.push(question);
                }
            }
            if asked.node.is_err() && self.client.is_empty() {
                context.output.warn(format!(
                    "{text} does not say which Windows, so only copy tools are shown; runtimes on nodes need a build: \
                     windows/ltsc2022 or windows(10.0.20348)/amd64"
                ));
            }
        }
        let subject = self.subject(context)?;
        let answers: Vec<Answer> =
            questions.iter().map(|(band, platform)| subject.answer(band, platform)).collect();
        context.output.result(&answers, || subject.text(&answers))
    }

    /// The bands that were asked for and that have a rule for the platform.
    fn bands(&self, asked: &Asked) -> Result<Vec<&'static Band>, CliError> {
        let os = &asked.exact.os;
        let applicable = || {
            let answerable = |band: &&Band| asked.node.is_ok() || band.client.is_copy_tool();
            select::bands().iter().filter(|band| band.applies_to(os)).filter(answerable)
        };
        for client in &self.client {
            if let Err(error) = &asked.node
                && !client.client().is_copy_tool()
            {
                return Err(CliError::usage(error.to_string()));
            }
            if !applicable().any(|band| client.covers(band)) {
                let known: Vec<String> =
                    applicable().filter(|band| band.client == client.client()).map(Band::label).collect();
                return Err(CliError::usage(format!(
                    "no rule is known for {client} on {os}; there are {}",
                    known.join(", ")
                )));
            }
        }
        let wanted = |band: &&Band| self.client.is_empty() || self.client.iter().any(|c| c.covers(band));
        Ok(applicable().filter(wanted).collect())
    }

    fn subject(&self, context: &Context) -> Result<Subject, CliError> {
        if let Some(file) = &self.index {
            let name = self.image.clone().unwrap_or_else(|| input::name(file));
            let document = Document::parse(None, read_index(file)?)
                .map_err(|error| CliError::usage(format!("{}: {error}", input::name(file))))?;
            return Ok(Subject { name, document, config: None });
        }
        // clap requires the image where there is no file.
        let text = self.image.as_deref().unwrap_or_default();
        let reference: Reference = text.parse().map_err(CliError::usage)?;
        let upstream = upstream::connect(&context.global)?;
        runtime::block_on(async {
            let document = upstream.manifest(&reference).await?.document;
            let config = match &document {
                Document::Index(_) => None,
                Document::Image(image) => {
                    let raw = upstream.small_blob(reference.name(), &image.config).await?;
                    ImageConfig::parse(&raw).ok().and_then(|config| config.platform())
                }
            };
            Ok(Subject { name: reference.to_string(), document, config })
        })
    }
}

/// What `--node` says: a kind of node, or for copy tools a platform.
struct Asked {
    node: Result<NodeKind, CatalogError>,
    exact: Platform,
}

impl Asked {
    fn read(text: &str, catalog: &Catalog) -> Result<Self, CliError> {
        let exact = Platform::parse_exact(text).ok();
        match (catalog.node_kind(text), exact) {
            (Ok(node), exact) => {
                // An alias has its build from the catalog, not from the text.
                let stated = |platform: &Platform| platform.os_version.is_empty() != node.is_windows();
                let exact = exact.filter(stated).unwrap_or_else(|| node.platform());
                Ok(Self { node: Ok(node), exact })
            }
            (Err(error), Some(exact))
                if exact.os == "windows" && matches!(exact.architecture.as_str(), "amd64" | "arm64") =>
            {
                Ok(Self { node: Err(error), exact })
            }
            (Err(error), _) => Err(CliError::usage(error)),
        }
    }

    /// The platform that this band is asked with: a host states its build without a revision, a copy tool is
    /// given what was typed.
    fn platform(&self, band: &Band) -> Platform {
        match &self.node {
            Ok(node) if !band.client.is_copy_tool() => node.platform(),
            _ => self.exact.clone(),
        }
    }
}

/// The document that clients choose from.
struct Subject {
    name: String,
    document: Document,
    /// What the configuration says of a single image, where it could be read.
    config: Option<Platform>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    client: String,
    #[serde(serialize_with = "as_text")]
    node: Platform,
    picks: Option<Pick>,
    fetches: Vec<usize>,
    runs: bool,
    checks_config: bool,
    reason: String,
}

#[derive(Serialize)]
struct Pick {
    position: usize,
    digest: Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<Platform>,
}

impl Subject {
    fn answer(&self, band: &Band, platform: &Platform) -> Answer {
        let (choice, pick) = match &self.document {
            Document::Index(index) => {
                let choice = band.choose(platform, &index.manifests);
                let pick = choice.picks.and_then(|position| {
                    let entry = index.manifests.get(position)?;
                    Some(Pick { position, digest: entry.digest.clone(), platform: entry.platform.clone() })
                });
                (choice, pick)
            }
            Document::Image(_) => {
                let digest = self.document.descriptor().digest;
                (
                    self.single(band, platform),
                    Some(Pick { position: 0, digest, platform: self.config.clone() }),
                )
            }
        };
        let Choice { fetches, checks_config, runs, reason, .. } = choice;
        Answer {
            client: band.label(),
            node: platform.clone(),
            picks: pick,
            fetches,
            runs,
            checks_config,
            reason,
        }
    }

    /// There is nothing to choose when the reference is one image.
    fn single(&self, band: &Band, platform: &Platform) -> Choice {
        let runs = self.config.as_ref().is_none_or(|config| select::can_run(platform, config));
        let mut reason =
            format!("{} takes what there is: the reference is one image and no index", band.label());
        if let Some(config) = &self.config {
            let _ = write!(reason, "; its configuration says {}", config.shown());
        }
        if !runs {
            let _ = write!(reason, ", which {platform} cannot run");
        }
        Choice { picks: Some(0), fetches: vec![0], checks_config: false, runs, why: reason.clone(), reason }
    }

    fn text(&self, answers: &[Answer]) -> String {
        let digest = self.document.descriptor().digest;
        let mut text = format!("{}  {digest}\n", self.name);
        if let Document::Index(index) = &self.document {
            let rows = index.manifests.iter().enumerate().map(|(position, entry)| {
                let platform =
                    entry.platform.as_ref().map_or_else(|| "no platform".to_owned(), Platform::shown);
                let digest = entry.digest.short();
                let about = entry.annotations.get(REFERENCE_DIGEST).and_then(|text| text.parse().ok());
                let digest = match about.filter(|_| entry.is_attestation()) {
                    Some(about) => format!("{digest}  attestation of {}", Digest::short(&about)),
                    None => digest.to_owned(),
                };
                vec![format!("{position:>4}"), platform, digest]
            });
            text.push_str(&table(&rows.collect::<Vec<_>>()));
        }
        for answers in answers.chunk_by(|a, b| a.node == b.node) {
            let _ = write!(text, "\n{}\n", answers[0].node);
            let heading = ["CLIENT", "PICKS", "PLATFORM", "DIGEST", "FETCHES", "RUNS"];
            let mut rows = vec![heading.map(str::to_owned).to_vec()];
            rows.extend(answers.iter().map(Answer::row));
            text.push_str(&table(&rows));
            text.push('\n');
            for answer in answers {
                let _ = writeln!(text, "- {}", answer.reason);
            }
        }
        text
    }
}

impl Answer {
    fn row(&self) -> Vec<String> {
        let fetches: Vec<String> = self.fetches.iter().map(usize::to_string).collect();
        let fetches = if fetches.is_empty() { "-".to_owned() } else { fetches.join(" ") };
        let Some(pick) = &self.picks else {
            return vec![
                self.client.clone(),
                "-".into(),
                "no match".into(),
                "-".into(),
                fetches,
                "no".into(),
            ];
        };
        vec![
            self.client.clone(),
            pick.position.to_string(),
            pick.platform.as_ref().map_or_else(|| "unknown".to_owned(), Platform::shown),
            pick.digest.short().to_owned(),
            fetches,
            if self.runs { "yes" } else { "no" }.to_owned(),
        ]
    }
}

fn as_text<S: Serializer>(platform: &Platform, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(platform)
}

/// Reads an index. Its bytes stay as they are, because they are what the digest is of, unless a shell has put them into
/// another encoding.
fn read_index(file: &Path) -> Result<Bytes, CliError> {
    let bytes = input::read_bytes(file, MAX_MANIFEST_BYTES as u64)?;
    let text = input::text(file, &bytes)?;
    input::json::parse::<serde::de::IgnoredAny>(&input::name(file), &text)?;
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok();
    Ok(if is_json { bytes.into() } else { text.into() })
}
