//! `dray import`

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use dray::bundle::{self, Bundle, Destination, ImportError, ImportOptions, Imported, Media};
use dray::file::{self, Readers};
use dray::oci::{Reference, TagMeaning};
use dray::store::{Content as _, Import as ImportRecord, Store, StoreError};
use dray::text::counted;
use serde_json::json;

use super::error::{CliError, Kind};
use super::inputs::{self, Trust};
use super::output::human_bytes;
use super::push;
use super::runtime::{self, Context};
use super::target::{self, OutputPath};
use super::writing::{Operator, Wait};

/// Verify bundles and import them into a store or registry
///
/// Nothing of a bundle can be pulled before all of it is there. Importing the same bundle again is safe and quick; a
/// store that is being served may be imported into.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  dray import plant.tar --store /srv/dray --trust release.pub\n  dray serve --store /srv/dray\n  dray import /media/usb --store /srv/dray --trust release.pub --keep-going -o wants.txt\n  dray import plant.tar --to harbor.site.local/mirror --trust release.pub"
)]
pub(crate) struct Import {
    /// The bundles: files, all or one of their volumes in any order, or the directory that they are in
    #[arg(value_name = "BUNDLE", required = true)]
    bundles: Vec<PathBuf>,
    /// The store; made if it is not there
    #[arg(long, value_name = "DIR", required_unless_present = "to", conflicts_with = "to")]
    store: Option<PathBuf>,
    /// Push the images below PREFIX in a registry that is there already, under their whole names: PREFIX/registry.k8s.io/pause
    #[arg(long, value_name = "REGISTRY/PREFIX", conflicts_with_all = ["allow_rollback", "keep_going", "receipt", "receipt_key"])]
    to: Option<Destination>,
    #[command(flatten)]
    trust: Trust,
    /// Take a bundle that is older than what the store has; this is recorded
    #[arg(long)]
    allow_rollback: bool,
    /// Of a damaged bundle import the images that are whole, list the others as `dray wants` does, and end with code 4
    #[arg(long)]
    keep_going: bool,
    /// With --keep-going: write the list here; `-` for standard output
    #[arg(short, long, value_name = "FILE", requires = "keep_going")]
    output: Option<OutputPath>,
    /// Put a copy of each receipt into this directory, to be carried back
    #[arg(long, value_name = "DIR")]
    receipt: Option<OutputPath>,
    /// Sign the receipts with this private key of the site
    #[arg(long, value_name = "KEY")]
    receipt_key: Option<PathBuf>,
    #[command(flatten)]
    wait: Wait,
}

impl Import {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        let mut output = self.output.as_ref().map(|path| path.stream(context)).transpose()?;
        let receipts = self.receipt.as_ref().map(|path| path.directory(context)).transpose()?;
        let policy = self.trust.policy(context)?;
        if let Some(destination) = &self.to {
            return push::push(
                context,
                &self.bundles,
                policy.as_ref(),
                self.trust.allow_expired,
                destination,
            );
        }
        // Without a destination there is a store.
        let directory = self.store.unwrap_or_default();
        let receipt_key = inputs::private_keys(self.receipt_key.as_slice())?.pop().map(Arc::new);
        let (mut written, mut imports) = (Vec::new(), Vec::new());
        let all = Media::open_all(&self.bundles)?;
        if let Some(target) = &mut output {
            target.protect(all.iter().flat_map(Media::paths))?;
        }
        let open = |media| if self.keep_going { open_damaged(media) } else { Ok(Bundle::open_media(media)?) };
        for bundle in inputs::in_order(all.into_iter().map(open).collect::<Result<_, _>>()?) {
            let keys = policy.as_ref().map(|policy| bundle.check_signatures(policy)).transpose()?;
            // Made only when there is something that may be imported.
            let store = Store::create(&directory)?;
            let bar = Arc::new(context.output.bytes_bar("importing", bundle.lock().total_bytes()));
            let progress = Arc::clone(&bar);
            // Threads wait for the disk more than for each other: while one makes its blob durable, others hash.
            let (threads, allow_rollback) = (context.global.concurrency.into(), self.allow_rollback);
            let keep_going = self.keep_going;
            let allow_expired = self.trust.allow_expired;
            let (output, wait, who) = (context.output.clone(), self.wait, Operator::new(receipt_key.clone()));
            let importing = store.clone();
            let (imported, disputed) = runtime::block_on_work(move || {
                let waiting = |holder: &str| output.waiting(holder);
                let options = ImportOptions {
                    verified_by: keys.unwrap_or_default(),
                    allow_rollback,
                    allow_expired,
                    keep_going,
                    author: who.author(),
                    patience: wait.patience(&waiting),
                    threads,
                    progress: &|bytes| progress.inc(bytes),
                };
                let imported = bundle::import(&bundle, &importing, &options)?;
                Ok((imported, disputed(&bundle, &importing)?))
            })?;
            bar.finish_and_clear();
            inputs::warn_of_disputed(context, disputed.into_iter());
            if let Some(directory) = receipts {
                copy_receipt(&imported, directory)?;
            }
            written.push(imported.entry.receipt);
            imports.push(imported.import);
        }
        let summary: String = imports.iter().map(line).collect();
        let wants = wants(&imports);
        if wants.is_empty() {
            return context.output.result(&written, || summary);
        }
        if let Some(target) = &output {
            target.write(wants.into_bytes())?;
            context.output.result(&written, || summary)?;
        } else {
            // The list is what a script redirects.
            context.output.note(summary.trim_end());
            context.output.result(&written, || wants)?;
        }
        let missing: usize =
            imports.iter().map(|import| import.missing.len() + import.missing_files.len()).sum();
        let partial =
            CliError::new(Kind::Incomplete, format!("{missing} images or files are damaged and missing"));
        Err(partial.hint(
            "bring a whole copy of the bundle and import it again, or resolve the list as `imageLists`",
        ))
    }
}

/// Returns the tags of a bundle that mean nothing in the store that it was imported into.
fn disputed(bundle: &Bundle, store: &Store) -> Result<Vec<Reference>, StoreError> {
    let mut disputed = Vec::new();
    for (name, tag, _) in bundle.lock().tags().iter() {
        if store.meaning(name, tag)? == Some(TagMeaning::Disputed) {
            disputed.push(Reference::new(name.clone(), Some(tag.clone()), None));
        }
    }
    Ok(disputed)
}

fn line(record: &ImportRecord) -> String {
    let partial = if record.is_partial() { ", in part" } else { "" };
    format!(
        "{} {}{partial}: {}; {} copied, {}\n",
        record.name,
        record.sequence,
        counted(record.images, "image"),
        counted(record.copied_blobs, "blob"),
        human_bytes(record.copied_bytes)
    )
}

/// What was damaged: a list of images, in which files are comments.
fn wants(records: &[ImportRecord]) -> String {
    let images: BTreeSet<String> =
        records.iter().flat_map(|record| &record.missing).map(ToString::to_string).collect();
    let files: BTreeSet<String> =
        records.iter().flat_map(|record| &record.missing_files).map(|url| format!("# file {url}")).collect();
    images.iter().chain(&files).flat_map(|line| [line, "\n"]).collect()
}

/// Opens a bundle of which only the end has to be whole.
fn open_damaged(media: Media) -> Result<Bundle, CliError> {
    Bundle::open_damaged(media).map_err(|error| {
        CliError::from(error)
            .hint("nothing can be taken out of a bundle without its end: the lock and the signatures")
    })
}

/// Copies the receipt of an import, and its signature, as `NUMBER-NAME.json` and `NUMBER-NAME.json.sig`.
fn copy_receipt(imported: &Imported, directory: &Path) -> Result<(), CliError> {
    let Imported { import, entry } = imported;
    fs_err::create_dir_all(directory)?;
    let name = format!("{:06}-{}.json", entry.receipt.number, import.name);
    let write = |path: PathBuf, bytes: &[u8]| {
        file::replace(&path, bytes, Readers::Usual).map_err(|error| {
            target::with_disk_hint(CliError::failed(format!("{}: {error}", path.display())), &error)
        })
    };
    write(directory.join(&name), entry.record())?;
    if let Some(signature) = entry.signature() {
        write(directory.join(name + ".sig"), signature)?;
    }
    Ok(())
}

impl From<ImportError> for CliError {
    fn from(error: ImportError) -> Self {
        match error {
            ImportError::Bundle(error) => error.into(),
            ImportError::Store(error) => error.into(),
            ImportError::NotHere { ref images, .. } => {
                let missing: Vec<_> = images.iter().map(|image| json!({"ref": image})).collect();
                Self::new(Kind::Incomplete, error).missing(missing).hint(
                    "bring a bundle that was built without --since, or with the inventory of this very store",
                )
            }
            other if other.is_verification() => Self::new(Kind::Verification, other),
            other => Self::failed(other),
        }
    }
}
