//! `dray export`

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use dray::bundle::imported_locks;
use dray::catalog::ReleaseId;
use dray::oci::{Algorithm, Hasher, Reference};
use dray::site::export::{self, Archive, ExportError, ExportedImage, Form, Importer, Request};
use dray::site::stock::Brought;
use dray::store::{ContentError, Store};
use dray::text::counted;
use serde::Serialize;

use super::clock;
use super::error::{CliError, Kind};
use super::inputs;
use super::output::human_bytes;
use super::runtime::{self, Context};
use super::target::{OutputPath, Target};

/// Write the archive that nodes import images from
///
/// One archive is for one kind of node. Copied into the directory that the node imports from, the images are there before
/// the first pod, and no registry is asked for them.
#[derive(Args)]
#[command(after_help = "Example:\n  \
    dray export --release k0s@v1.36.3+k0s.2 --node windows/ltsc2022 --store /srv/dray -o .")]
pub(crate) struct Export {
    /// The distribution that imports the archive. Default: the one of --release
    #[arg(
        long = "for",
        value_name = "DISTRO",
        value_parser = PossibleValuesParser::new(Importer::ALL.map(Importer::name)).try_map(|name| name.parse::<Importer>())
    )]
    importer: Option<Importer>,

    /// The release, e.g. k0s@v1.36.3+k0s.2
    #[arg(long, value_name = "DISTRO@VERSION")]
    release: ReleaseId,

    /// The kind of node: linux/arm64, windows(10.0.20348)/amd64, windows/ltsc2022
    #[arg(long, value_name = "KIND")]
    node: String,

    /// A feature beyond the default configuration, e.g. calico, nllb:envoy; may be repeated. Default: the features that
    /// the bundles in the store were made for
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    with: Option<Vec<String>>,

    /// A further image; may be repeated
    #[arg(long, value_name = "IMAGE", value_delimiter = ',')]
    image: Vec<Reference>,

    /// The store that has the images
    #[arg(long, value_name = "DIR")]
    store: PathBuf,

    /// The archive, or a directory, in which it gets a name that stays the same from release to release. For k3s and RKE2
    /// a name that ends in .tar.zst has it compressed. `-` for standard output
    #[arg(short, long, value_name = "FILE")]
    output: OutputPath,
}

#[derive(Serialize)]
struct Exported {
    file: Target,
    bytes: u64,
    sha256: String,
    with: Vec<String>,
    images: Vec<ExportedImage>,
    directory: &'static str,
}

impl Export {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        let catalog = inputs::catalog(context)?;
        let kind = catalog.node_kind(&self.node)?;
        let importer = self.importer.map_or_else(|| self.release.distro.parse(), Ok)?;
        let target = self.output.stream_in(context, Some(&importer.file_name(&kind)))?;
        // What comes out of a device or a pipe is named later.
        let form = target
            .file_name()
            .map_or(Ok(Form::Tar), |name| importer.form(&name).ok_or_else(|| wrong_name(importer, &name)))?;
        let store = Store::open(&self.store)?;
        let with = match &self.with {
            Some(with) => with.clone(),
            None => Brought::by(&imported_locks(&store)?).features(&self.release, &kind).to_vec(),
        };
        let request = Request {
            importer,
            release: &self.release,
            with: &with,
            kind: &kind,
            images: &self.image,
            mtime: clock::archive_time()?,
        };
        let archive = export::plan(&request, &catalog, &store)?;
        for image in archive.images().iter().filter(|image| image.reindexed) {
            context.output.warn(format!(
                "{} gets a new index, {}: {} does not import an index of which parts are missing",
                image.reference, image.digest, self.release
            ));
        }
        let images = archive.images().to_vec();
        let (bytes, sha256) = write(context, archive, form, store, &target)?;
        let directory = importer.directory(&kind);
        let exported = Exported { file: target, bytes, sha256, with, images, directory };
        context.output.result(&exported, || exported.text())
    }
}

impl Exported {
    fn text(&self) -> String {
        let with = match &self.with[..] {
            [] => String::new(),
            features => format!(" with {}", features.join(", ")),
        };
        format!(
            "{}: {}{with}, {}\nsha256 {}\ncopy it into {} on the node",
            self.file,
            counted(self.images.len(), "image"),
            human_bytes(self.bytes),
            self.sha256,
            self.directory
        )
    }
}

fn wrong_name(importer: Importer, name: &str) -> CliError {
    match importer {
        Importer::K0s => CliError::usage("k0s imports only archives that are not compressed")
            .hint("give a name that does not end in .zst or .tzst"),
        Importer::K3s | Importer::Rke2 => CliError::usage(format!(
            "{importer} imports only files that are named *.tar, *.tar.zst or *.tzst"
        ))
        .hint(format!("write to {name}.tar")),
    }
}

/// Writes the archive as a whole or not at all, and returns its size in bytes and its SHA-256 in hexadecimal.
fn write(
    context: &Context,
    archive: Archive,
    form: Form,
    store: Store,
    target: &Target,
) -> Result<(u64, String), CliError> {
    let bar = context.output.bytes_bar("exporting", archive.size());
    let progress = bar.clone();
    let target = target.clone();
    let written = runtime::block_on_work(move || {
        let hasher = Hasher::new(Algorithm::Sha256);
        let mut out = Hashing { inner: target.open()?, hasher, bytes: 0 };
        archive.write_as(form, &store, &mut out, &mut |bytes| progress.inc(bytes)).map_err(|error| {
            match error {
                ExportError::Io(cause) => target.failed(&cause),
                error => error.into(),
            }
        })?;
        let Hashing { inner, hasher, bytes } = out;
        inner.finish().map_err(|error| target.failed(&error))?;
        let digest = hasher.finish();
        Ok((bytes, digest.hex().to_owned()))
    })?;
    bar.finish_and_clear();
    Ok(written)
}

/// Hashes and counts what is written.
struct Hashing<W> {
    inner: W,
    hasher: Hasher,
    bytes: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl From<ExportError> for CliError {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Missing(ref missing) => {
                let missing = missing.clone();
                Self::new(Kind::Incomplete, error).missing(missing).hint(
                    "bring a bundle with this release, these features and this node kind: `dray build`, then `dray import`",
                )
            }
            ExportError::Content(ContentError::Damaged(_)) | ExportError::Manifest { .. } => {
                Self::new(Kind::Verification, error)
            }
            ExportError::Content(_) | ExportError::Io(_) => Self::failed(error),
            _ => Self::usage(error),
        }
    }
}
