//! What several subcommands take: a definition or a lock, keys, trusted keys.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Args;
use dray::bundle::{Bundle, Media};
use dray::catalog::{Catalog, CatalogError, ImageListError};
use dray::input::{self, DocumentError, InputError};
use dray::oci::Reference;
use dray::resolve::{
    self, AllowMissing, Definition, DefinitionError, GapKind, GapList, Incomplete, Lock, LockError,
    MAX_LOCK_BYTES, ResolveError, ResolveOptions,
};
use dray::text::counted;
use dray::trust::{self, KeyError, KeyringError, Policy, PrivateKey, PublicKey, TrustError};
use jiff::{SignedDuration, Timestamp};

use super::clock;
use super::error::{CliError, Kind};
use super::passphrase;
use super::problems;
use super::runtime::{self, Context};
use super::target::Target;
use super::upstream;

/// A bundle that expires so soon may have expired when it arrives.
const SOON: SignedDuration = SignedDuration::from_hours(7 * 24);
/// The largest key file that is read.
pub(crate) const MAX_KEY_BYTES: u64 = 64 * 1024;

/// Either a definition, which is resolved first, or a lock.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct Source {
    /// Resolve this definition
    #[arg(short = 'f', long, value_name = "FILE")]
    definition: Option<PathBuf>,
    /// Take this lock, made by `dray lock`
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
}

/// What may be missing from a lock.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Allowances {
    /// Go on without this image or file if it cannot be had, for whatever reason; the lock records it; may be repeated.
    /// `*` stands for any characters: 'quay.io/acme/*'
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) allow_missing: Vec<AllowMissing>,
    /// Go on in spite of the known problem ID, as `dray images` names it; may be repeated
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    pub(crate) allow_problem: Vec<String>,
}

impl Source {
    /// The lock: as read, or as resolved.
    /// No file that it is made from may be the `target`.
    pub(crate) fn lock(
        &self,
        context: &Context,
        allowances: &Allowances,
        target: Option<&mut Target>,
    ) -> Result<Lock, CliError> {
        match (&self.definition, &self.lock) {
            (Some(definition), _) => resolve_definition(context, definition, allowances, target),
            (None, Some(lock)) => read_lock_to_carry(context, lock),
            (None, None) => Err(CliError::usage("give a definition with -f or a lock with --lock")),
        }
    }
}

/// Reads a lock.
pub(crate) fn read_lock(path: &Path) -> Result<Lock, CliError> {
    let (name, text) = (input::name(path), input::read_text(path, MAX_LOCK_BYTES as u64)?);
    Lock::from_json(text.as_bytes()).map_err(|error| {
        let again = "make it again with `dray lock`";
        let kind = match error {
            LockError::Json(_) => match input::json::parse::<Lock>(&name, &text) {
                Err(error) => return CliError::from(error).hint(again),
                Ok(_) => Kind::Usage,
            },
            LockError::Inconsistent(_) => Kind::Verification,
            LockError::TooLarge | LockError::Version(_) => Kind::Usage,
        };
        CliError::new(kind, format!("{name}: {error}")).hint(again)
    })
}

/// Warns if `target` had other content under the name and sequence number of `lock`.
pub(crate) fn warn_of_replaced(context: &Context, target: &Target, replaced: &Lock, lock: &Lock) {
    if (&replaced.name, replaced.sequence) == (&lock.name, lock.sequence) {
        context.output.warn(format!(
            "{target} had sequence {} of `{}` with other content, and no site takes both; if that one has left this \
             place, set `metadata.sequence` to {}",
            lock.sequence,
            lock.name,
            lock.sequence.saturating_add(1)
        ));
    }
}

/// Refuses what every site would refuse because it has expired, and warns of what will have by the time that it arrives.
/// `what` is the file that says so.
fn check_expiry(context: &Context, what: &Path, expires: Option<Timestamp>) -> Result<(), CliError> {
    let Some(expires) = expires else { return Ok(()) };
    let left = expires.duration_since(Timestamp::now());
    if left <= SignedDuration::ZERO {
        let message = format!("{}: the bundle has expired, on {expires}", input::name(what));
        return Err(CliError::usage(message).hint("set a later `metadata.expires` in the definition"));
    }
    if left < SOON {
        context.output.warn(format!(
            "{}: the bundle expires in {} hours, on {expires}, and sites refuse it from then on",
            input::name(what),
            left.as_hours()
        ));
    }
    Ok(())
}

/// Reads a lock from which a bundle is to be made.
fn read_lock_to_carry(context: &Context, path: &Path) -> Result<Lock, CliError> {
    let lock = read_lock(path)?;
    check_expiry(context, path, lock.expires)?;
    check_content(path, &lock, Kind::Usage)?;
    Ok(lock)
}

/// Refuses a lock with nothing in it: a bundle of it would be of no use at a site.
fn check_content(path: &Path, lock: &Lock, kind: Kind) -> Result<(), CliError> {
    if lock.images.is_empty() && lock.files.is_empty() {
        return Err(CliError::new(kind, format!("{}: the bundle would be empty", input::name(path))));
    }
    Ok(())
}

/// Warns of tags that mean nothing because pinned references to them disagree.
pub(crate) fn warn_of_disputed(context: &Context, tags: impl Iterator<Item = Reference>) {
    for tag in tags {
        context.output.warn(format!(
            "pinned references to {tag} disagree, so the tag means nothing and the images are found by their digests only; \
             list {tag} without a digest to give it a meaning"
        ));
    }
}

/// Reads the definition at `path`, and warns of what is probably a mistake in it.
pub(crate) fn read_definition(
    context: &Context,
    path: &Path,
    catalog: &Catalog,
) -> Result<Definition, CliError> {
    let definition = Definition::read(path, catalog)?;
    for warning in &definition.warnings {
        context.output.warn(warning.to_string());
    }
    Ok(definition)
}

/// Resolves the definition at `path` and says what its maker should know. Neither it nor a list that it names may be
/// the `target`.
pub(crate) fn resolve_definition(
    context: &Context,
    path: &Path,
    allowances: &Allowances,
    target: Option<&mut Target>,
) -> Result<Lock, CliError> {
    let catalog = catalog(context)?;
    let definition = read_definition(context, path, &catalog)?;
    if let Some(target) = target {
        target.protect(definition.list_files.iter().map(PathBuf::as_path))?;
    }
    check_expiry(context, path, definition.expires)?;
    let day = clock::today()?;
    let upstream = upstream::connect(&context.global)?;
    let bar = context.output.count_bar("resolving", 0);
    let resolution = runtime::block_on(async {
        let progress = |done: usize, all: usize| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        };
        let concurrency = usize::from(context.global.concurrency);
        let options = ResolveOptions {
            allow_missing: allowances.allow_missing.iter().cloned().collect(),
            allow_problems: allowances.allow_problem.iter().cloned().collect::<BTreeSet<_>>(),
            concurrency,
            day,
            progress: &progress,
        };
        Ok(resolve::resolve(&definition, &catalog, &upstream, options).await)
    })?;
    bar.finish_and_clear();
    let unneeded = match &resolution {
        Ok(resolution) => &resolution.unneeded,
        Err(ResolveError::Incomplete(incomplete)) => &incomplete.unneeded,
        Err(ResolveError::Catalog(_)) => &Vec::new(),
    };
    for unneeded in unneeded {
        context.output.warn(format!("--allow-missing: {unneeded}"));
    }
    let resolution = resolution?;
    problems::tell(context, &resolution.problems);
    if !resolution.allowed.is_empty() {
        context.output.warn(format!("missing, which is allowed:{}", GapList(&resolution.allowed)));
    }
    // The definition has content, so all of it was allowed to be missing.
    check_content(path, &resolution.lock, Kind::Incomplete)?;
    if !resolution.empty_layers.is_empty() {
        context.output.warn(format!(
            "layers of 0 bytes, which containerd refuses (\"content size of zero\"): {}",
            joined(&resolution.empty_layers)
        ));
    }
    for left_out in &resolution.metadata_left_out {
        let limit = match left_out.remaining {
            Some(0) => "it limits the rate of requests".to_owned(),
            Some(remaining) => format!("it lets only {} through", counted(remaining, "more request")),
            None => "its limit is near".to_owned(),
        };
        context.output.warn(format!(
            "{}: {limit}, so {} of platforms that no node kind needs {} left out; clients that read a whole index, such as \
             `ctr images pull` of containerd 2, will miss them; lock again later, or state `childMetadata: needed`",
            left_out.host,
            counted(left_out.manifests, "manifest"),
            if left_out.manifests == 1 { "is" } else { "are" },
        ));
    }
    if !resolution.unproved.is_empty() {
        context.output.warn(format!(
            "no signature, attestation or SBOM is published for {} of {} images: {}",
            resolution.unproved.len(),
            resolution.lock.images.len(),
            joined(&resolution.unproved)
        ));
    }
    if !resolution.foreign.is_empty() {
        context.output.warn(format!(
            "layers that name addresses outside the registry are in the bundle, but containerd asks those addresses \
             first and gives up if it cannot connect: let them answer 404 at the site; they are in {}",
            joined(&resolution.foreign)
        ));
    }
    warn_of_disputed(context, resolution.lock.tags().disputed());
    Ok(resolution.lock)
}

/// Returns references on one line.
fn joined(references: &[Reference]) -> String {
    references.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The catalog with the directories of `--catalog`.
pub(crate) fn catalog(context: &Context) -> Result<Catalog, CliError> {
    Ok(Catalog::with_overrides(&context.global.catalog)?)
}

/// Reads private keys; what is encrypted is opened with the passphrase of `DRAY_KEY_PASSPHRASE` or the terminal.
pub(crate) fn private_keys(paths: &[PathBuf]) -> Result<Vec<PrivateKey>, CliError> {
    let read = |path: &PathBuf| {
        let pem = zeroize::Zeroizing::new(input::read_text(path, MAX_KEY_BYTES)?);
        let key = match PrivateKey::from_pem(&pem) {
            Err(KeyError::Encrypted) => {
                let passphrase = passphrase::ask(&format!("passphrase of {}: ", path.display()))?;
                PrivateKey::from_encrypted_pem(&pem, &passphrase)
            }
            read => read,
        };
        key.map_err(|error| key_error(path, &error))
    };
    paths.iter().map(read).collect()
}

/// Opens bundles whose files must be there as a whole, in the order in which a site takes them.
pub(crate) fn bundles(paths: &[PathBuf]) -> Result<Vec<Bundle>, CliError> {
    Ok(in_order(Media::open_all(paths)?.into_iter().map(Bundle::open_media).collect::<Result<_, _>>()?))
}

/// Sorts bundles by their sequence numbers: an older one is refused where a newer one is, and what is newer counts.
pub(crate) fn in_order(mut bundles: Vec<Bundle>) -> Vec<Bundle> {
    bundles.sort_by_key(|bundle| bundle.lock().sequence);
    bundles
}

/// Reads public keys: files, or directories of them.
pub(crate) fn public_keys(paths: &[PathBuf]) -> Result<Vec<PublicKey>, CliError> {
    Ok(trust::read_keys(paths)?)
}

fn key_error(path: &Path, error: &KeyError) -> CliError {
    CliError::usage(format!("{}: {error}", input::name(path)))
}

/// Whose bundles are accepted.
#[derive(Args, Clone, Debug)]
pub(crate) struct Trust {
    /// A public key that is trusted, or a directory of them with its policy.yaml; may be repeated
    #[arg(long = "trust", id = "trust", value_name = "PUB", value_delimiter = ',')]
    keys: Vec<PathBuf>,
    /// How many different trusted keys must have signed
    #[arg(long, value_name = "N", default_value_t = 1)]
    threshold: usize,
    /// Accept the bundle without any signature; this is recorded
    #[arg(long, conflicts_with = "trust")]
    insecure_skip_verify: bool,
    /// Take a bundle after it has expired; this is recorded
    #[arg(long)]
    pub(crate) allow_expired: bool,
}

impl Trust {
    /// Whether something is said about whom to trust.
    pub(crate) fn is_given(&self) -> bool {
        self.insecure_skip_verify || !self.keys.is_empty()
    }

    /// The policy; none when verification is skipped on request.
    pub(crate) fn policy(&self, context: &Context) -> Result<Option<Policy>, CliError> {
        if !self.is_given() {
            return Err(CliError::usage("no trusted keys given")
                .hint("give the public keys of those who may sign with --trust PUB"));
        }
        if self.insecure_skip_verify {
            context.output.warn("signatures are not checked (--insecure-skip-verify)");
            return Ok(None);
        }
        Ok(Some(trust::read_policy(&self.keys, self.threshold)?))
    }
}

impl From<InputError> for CliError {
    fn from(error: InputError) -> Self {
        let hint = error.hint();
        let error = Self::usage(error);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

impl From<DocumentError> for CliError {
    fn from(error: DocumentError) -> Self {
        Self::usage(error)
    }
}

impl From<ImageListError> for CliError {
    fn from(error: ImageListError) -> Self {
        match error {
            ImageListError::Input(error) => error.into(),
            ImageListError::Lines { .. } => Self::usage(error),
        }
    }
}

impl From<CatalogError> for CliError {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::Input(error) => error.into(),
            error => {
                let hint = catalog_hint(&error);
                hint.into_iter().fold(Self::usage(error), Self::hint)
            }
        }
    }
}

/// What helps where the catalog has no answer.
fn catalog_hint(error: &CatalogError) -> Option<&'static str> {
    match error {
        CatalogError::UnknownRelease { .. } | CatalogError::UnknownDistribution { .. } => {
            Some("--catalog DIR adds releases to the catalog")
        }
        CatalogError::ReleaseForm(_)
        | CatalogError::UnknownFeature { .. }
        | CatalogError::UnknownWindows { .. }
        | CatalogError::Node(_)
        | CatalogError::Document(_)
        | CatalogError::Input(_)
        | CatalogError::Inconsistent { .. }
        | CatalogError::Read { .. } => None,
    }
}

impl From<DefinitionError> for CliError {
    fn from(error: DefinitionError) -> Self {
        match error {
            DefinitionError::Input(error) => error.into(),
            DefinitionError::List(error) => error.into(),
            DefinitionError::Release { ref source, .. } => {
                let is_unknown = matches!(**source, CatalogError::UnknownRelease { .. });
                let other = is_unknown
                    .then_some("without the catalog: name a file with its images under `imageLists`");
                let hints = catalog_hint(source).into_iter().chain(other);
                hints.fold(Self::usage(error), Self::hint)
            }
            DefinitionError::Document(_) | DefinitionError::Field { .. } => Self::usage(error),
        }
    }
}

impl From<KeyringError> for CliError {
    fn from(error: KeyringError) -> Self {
        match error {
            KeyringError::Input(error) => error.into(),
            _ => Self::usage(error),
        }
    }
}

impl From<TrustError> for CliError {
    fn from(error: TrustError) -> Self {
        Self::new(Kind::Verification, error)
    }
}

impl From<ResolveError> for CliError {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::Catalog(error) => error.into(),
            ResolveError::Incomplete(incomplete) => {
                let Incomplete { gaps, blockers, .. } = &*incomplete;
                let kinds: BTreeSet<GapKind> = gaps.iter().map(|gap| gap.kind).collect();
                let kind = if blockers.is_empty() {
                    upstream::gaps_exit_kind(&kinds, incomplete.reached)
                } else {
                    Kind::Incomplete
                };
                let named = gaps.iter().any(|gap| gap.reference.is_some() || gap.url.is_some());
                // Where nothing fits the operating system, other clients would not help.
                let by_client = gaps.iter().any(|gap| !gap.clients.is_empty() && gap.hint.is_none());
                let clients = by_client && !incomplete.runtimes_stated;
                let problems: BTreeSet<String> =
                    blockers.iter().map(|known| known.problem.id.clone()).collect();
                let hints: BTreeSet<String> = gaps.iter().filter_map(|gap| gap.hint.clone()).collect();
                let missing = gaps.clone();
                let error = Self::new(kind, ResolveError::Incomplete(incomplete)).missing(missing);
                let mut error = hints.into_iter().fold(error, Self::hint);
                if clients {
                    error = error.hint("if those clients are not on your nodes, state `spec.runtimes`");
                }
                if named {
                    error = error.hint("to go on without what is missing name it with --allow-missing NAME, for instance `quay.io/acme/*`");
                }
                for id in problems {
                    error = error.hint(format!("to go on in spite of it add --allow-problem {id}"));
                }
                error
            }
        }
    }
}
