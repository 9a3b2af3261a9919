//! Where commands write. Every path of an output is examined here before the command starts work.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::builder::{MapValueParser, PathBufValueParser, TypedValueParser, ValueParserFactory};
use dray::file::{self, Inputs, Place, PlaceError, Readers, Replacement, check_derived};
use serde::{Serialize, Serializer};

use super::error::CliError;
use super::runtime::{self, Context};

/// The path of an output as it was typed. A command has to examine it to get at it.
#[derive(Clone, Debug)]
pub(crate) struct OutputPath(PathBuf);

impl ValueParserFactory for OutputPath {
    type Parser = MapValueParser<PathBufValueParser, fn(PathBuf) -> Self>;

    fn value_parser() -> Self::Parser {
        let typed: fn(PathBuf) -> Self = Self;
        PathBufValueParser::new().map(typed)
    }
}

impl OutputPath {
    /// Examines the output of a command that writes in one pass, which may be a device, a FIFO or `-`.
    pub(crate) fn stream(&self, context: &Context) -> Result<Target, CliError> {
        self.stream_in(context, None)
    }

    /// Examines the output of a command that writes in one pass. A directory is refused,
    /// or gets a file called `name`.
    pub(crate) fn stream_in(&self, context: &Context, name: Option<&str>) -> Result<Target, CliError> {
        if self.is_dash() {
            return Target::new(&self.0, Place::Stdout, context);
        }
        match Place::examine(&self.0)? {
            Place::Directory(_) => {
                let path = self.0.join(name.ok_or_else(|| is_directory(&self.0))?);
                check_derived(&path)?;
                match Place::examine(&path)? {
                    Place::Directory(_) => Err(is_directory(&path)),
                    place => Target::new(&path, place, context),
                }
            }
            place => Target::new(&self.0, place, context),
        }
    }

    /// Examines the output of a command that writes at any position, so that it must be a regular file.
    pub(crate) fn seekable(&self, context: &Context) -> Result<Target, CliError> {
        refuse_dash(&self.0)?;
        match Place::examine(&self.0)? {
            Place::Directory(_) => Err(is_directory(&self.0)),
            Place::Stream(_) | Place::Stdout => Err(not_seekable(&self.0)),
            place @ Place::File(_) => Target::new(&self.0, place, context),
        }
    }

    /// Examines a directory that several files are written to, and that is made if it is not there.
    pub(crate) fn directory(&self, context: &Context) -> Result<&Path, CliError> {
        if self.is_dash() {
            return Err(CliError::usage("several files are written, which standard output cannot take")
                .hint("name a directory; one that is called `-` is ./-"));
        }
        file::examine_directory(&self.0)?;
        context.inputs.check(&self.0)?;
        Ok(&self.0)
    }

    /// Examines the files that are named after this path with `suffixes`, and that must not be there yet.
    /// If one is there, `taken` says so.
    pub(crate) fn new_files<const N: usize>(
        &self,
        suffixes: [&str; N],
        taken: impl Fn(&Path) -> CliError,
    ) -> Result<[PathBuf; N], CliError> {
        if self.is_dash() {
            return Err(CliError::usage("several files are written, which standard output cannot take")
                .hint("give the beginning of their names"));
        }
        let named = |source| PlaceError::Io { path: self.0.clone(), source };
        match std::fs::metadata(&self.0) {
            Ok(metadata) if metadata.is_dir() => return Err(is_directory(&self.0)),
            Ok(metadata) if metadata.is_file() => {}
            Ok(_) => return Err(not_seekable(&self.0)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(named(error).into()),
        }
        let prefix = file::resolve(&self.0).map_err(named)?;
        let paths = suffixes.map(|suffix| {
            let mut name = prefix.clone().into_os_string();
            name.push(suffix);
            PathBuf::from(name)
        });
        for path in &paths {
            // Not even a link may be there, whatever it leads to.
            if path.symlink_metadata().is_ok() {
                return Err(taken(path));
            }
            Place::examine(path)?;
        }
        Ok(paths)
    }

    fn is_dash(&self) -> bool {
        self.0.as_os_str() == "-"
    }
}

/// Makes sure that the file at `path` can be rewritten where it is. A directory, or a name that is not there, is left to the
/// command.
pub(crate) fn check_rewritable(path: &Path) -> Result<(), CliError> {
    refuse_dash(path)?;
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(file::examine_directory(path)?),
        Ok(metadata) if metadata.is_file() => match Place::examine(path)? {
            Place::File(_) => Ok(()),
            Place::Stream(_) | Place::Stdout | Place::Directory(_) => Err(not_seekable(path)),
        },
        Ok(_) => Err(not_seekable(path)),
        // Volumes may go by the name of their bundle.
        Err(_) => Ok(()),
    }
}

fn refuse_dash(path: &Path) -> Result<(), CliError> {
    if path.as_os_str() == "-" {
        return Err(CliError::usage(
            "a bundle is written at any position of its file, so it cannot be a stream",
        )
        .hint("name a file; one that is called `-` is ./-"));
    }
    Ok(())
}

fn not_seekable(path: &Path) -> CliError {
    CliError::usage(format!("{} is no regular file, and needs to be one", path.display()))
        .hint("name a file; what is finished can be copied to a device or a pipe")
}

fn is_directory(path: &Path) -> CliError {
    CliError::usage(format!("{} is a directory", path.display())).hint("name a file in it")
}

/// Where a command writes, examined before it starts work.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    typed: PathBuf,
    place: Place,
    inputs: Inputs,
}

impl Target {
    fn new(typed: &Path, place: Place, context: &Context) -> Result<Self, CliError> {
        if let Place::File(real) = &place {
            file::check_replaceable(real)?;
        }
        if place == Place::Stdout {
            context.output.leave_stdout_to_data();
        }
        let target = Self { typed: typed.to_owned(), place, inputs: context.inputs.clone() };
        target.inputs.check(target.path())?;
        Ok(target)
    }

    /// Makes sure that none of `paths`, which the command reads as well, is overwritten.
    pub(crate) fn protect<'a>(&mut self, paths: impl IntoIterator<Item = &'a Path>) -> Result<(), CliError> {
        paths.into_iter().for_each(|path| self.inputs.add(path));
        Ok(self.inputs.check(self.path())?)
    }

    /// Makes sure that this is not the same as `other`, which gets something else.
    pub(crate) fn differs_from(&self, other: &Self) -> Result<(), CliError> {
        let same = match (&self.place, &other.place) {
            (Place::Stdout, Place::Stdout) => true,
            (Place::File(one), Place::File(another)) => file::is_same(one, another),
            _ => false,
        };
        if same {
            return Err(CliError::usage(format!("two different things would be written to {self}"))
                .hint("give each its own output"));
        }
        Ok(())
    }

    /// The files that the command reads.
    pub(crate) fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    /// Returns the path of the file that will be replaced; `None` if there is none.
    pub(crate) fn present(&self) -> Option<&Path> {
        match &self.place {
            Place::File(path) if path.is_file() => Some(path),
            _ => None,
        }
    }

    /// Where the data goes, after symbolic links.
    pub(crate) fn path(&self) -> &Path {
        match &self.place {
            Place::File(path) | Place::Stream(path) | Place::Directory(path) => path,
            Place::Stdout => Path::new("/dev/stdout"),
        }
    }

    /// The name of the file as it was typed; `None` for what is no file, and so has no name that means anything.
    pub(crate) fn file_name(&self) -> Option<String> {
        match self.place {
            Place::File(_) => Some(self.typed.file_name()?.to_string_lossy().into_owned()),
            _ => None,
        }
    }

    pub(crate) fn is_stdout(&self) -> bool {
        self.place == Place::Stdout
    }

    /// Opens what the data is written to.
    pub(crate) fn open(&self) -> Result<Sink, CliError> {
        let opened = match &self.place {
            Place::File(path) => Replacement::begin(path, Readers::Usual).map(Sink::File),
            // What is behind a descriptor may be a file that others have written to.
            Place::Stream(path) | Place::Directory(path) => {
                OpenOptions::new().append(true).open(path).map(Sink::Stream)
            }
            Place::Stdout => Ok(Sink::Stdout(io::stdout())),
        };
        opened.map_err(|error| self.failed(&error))
    }

    /// Writes `bytes`: to a file as a whole or not at all.
    pub(crate) fn write(&self, bytes: Vec<u8>) -> Result<(), CliError> {
        let target = self.clone();
        // A FIFO that nobody reads must not keep the command from being interrupted.
        runtime::block_on_work(move || {
            let mut sink = target.open()?;
            let written = sink.write_all(&bytes);
            written.and_then(|()| sink.finish()).map_err(|error| target.failed(&error))
        })
    }

    /// The error that says that writing failed.
    pub(crate) fn failed(&self, error: &io::Error) -> CliError {
        with_disk_hint(CliError::failed(format!("{self}: {error}")), error)
    }
}

/// Adds what to do about a disk that cannot take what is written.
pub(crate) fn with_disk_hint(error: CliError, cause: &io::Error) -> CliError {
    match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            error.hint("free some space or choose another place, then run the same command again")
        }
        io::ErrorKind::FileTooLarge => error.hint(
            "a FAT32 medium holds files of less than 4 GiB; format it with exFAT or NTFS, or choose another place",
        ),
        _ => error,
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Stdout => f.write_str("standard output"),
            _ => self.typed.display().fmt(f),
        }
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.typed.serialize(serializer)
    }
}

/// What data is written to in one pass.
#[derive(Debug)]
pub(crate) enum Sink {
    /// A file that is there as a whole or not at all.
    File(Replacement),
    Stream(File),
    Stdout(io::Stdout),
}

impl Sink {
    /// Ends the data, and makes a file durable.
    pub(crate) fn finish(self) -> io::Result<()> {
        match self {
            Self::File(replacement) => replacement.finish(),
            Self::Stream(_) => Ok(()),
            Self::Stdout(mut stdout) => stdout.flush(),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(replacement) => replacement.file().write(bytes),
            Self::Stream(file) => file.write(bytes),
            Self::Stdout(stdout) => stdout.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(replacement) => replacement.file().flush(),
            Self::Stream(file) => file.flush(),
            Self::Stdout(stdout) => stdout.flush(),
        }
    }
}

impl From<PlaceError> for CliError {
    fn from(error: PlaceError) -> Self {
        let hint = match &error {
            PlaceError::NoDirectory { directory, .. } => {
                format!("make the directory {} first, or choose another", directory.display())
            }
            PlaceError::Denied { .. } => "choose a place that you can write to".to_owned(),
            PlaceError::Unsuitable { .. } => "name a file, or move this away".to_owned(),
            PlaceError::Input { .. } => "choose another name for the output".to_owned(),
            PlaceError::Io { .. } => "choose another output".to_owned(),
        };
        Self::usage(error).hint(hint)
    }
}

/// Collects the files that a command was told to read: every path on the command line that is no output, and standard
/// input.
pub(crate) fn inputs(matches: &clap::ArgMatches) -> Inputs {
    let mut inputs = Inputs::default();
    collect(matches, &mut inputs);
    inputs.add(Path::new("/dev/stdin"));
    inputs
}

fn collect(matches: &clap::ArgMatches, inputs: &mut Inputs) {
    for id in matches.ids() {
        // Other values than paths are of another type, and so are outputs.
        let Ok(Some(paths)) = matches.try_get_many::<PathBuf>(id.as_str()) else { continue };
        for path in paths {
            if id == "store" {
                inputs.add_closed(path);
            } else {
                add(path, inputs, 2);
            }
        }
    }
    if let Some((_, matches)) = matches.subcommand() {
        collect(matches, inputs);
    }
}

/// Adds a file, or the keys, policies and catalogs in a directory and in those right below it.
fn add(path: &Path, inputs: &mut Inputs, levels: usize) {
    /// The most entries of a directory that are looked at.
    const MAX_ENTRIES: usize = 10_000;
    inputs.add(path);
    if levels == 0 || !path.is_dir() {
        return;
    }
    // A directory that cannot be listed is not read either.
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten().take(MAX_ENTRIES) {
        let path = entry.path();
        let is_read =
            ["pub", "yaml", "yml"].iter().any(|kind| path.extension().is_some_and(|is| is == *kind));
        if is_read || path.is_dir() {
            add(&path, inputs, levels - 1);
        }
    }
}
