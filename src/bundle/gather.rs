//! Which of the files that a user names belong together.
//!
//! Volumes may come in any order, one of them stands for all that lie beside it, and so does the directory that they are
//! in, or the name that was given to `dray build`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::media::{Absent, Media, Why};
use super::parity::Recovery;
use super::read::BundleError;
use super::volume::{Kind, MAX_VOLUMES, SetName, Volume, parse_path, volume_path, volumes_pattern};
use crate::file::{is_same, parent};

/// The most files of a directory that are looked at.
const MAX_FILES: usize = 20_000;

impl Media {
    /// Opens the bundle at `path`: a file, one of its volumes, the directory that they are in, or the name from which theirs
    /// were made.
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        let mut all = Self::open_all(&[path.to_owned()])?;
        match (all.pop(), all.len()) {
            (Some(media), 0) => Ok(media),
            (_, others) => Err(BundleError::Several { path: path.to_owned(), count: others + 1 }),
        }
    }

    /// Opens the bundles at `paths`, in the order of the first of each. Volumes that are not named are looked for beside
    /// those that are.
    pub fn open_all(paths: &[PathBuf]) -> Result<Vec<Self>, BundleError> {
        let mut gathered = Gathered::default();
        for path in paths {
            gathered.take(path)?;
        }
        gathered.finish()
    }
}

/// Files on their way to bundles.
#[derive(Default)]
struct Gathered {
    bundles: Vec<Pending>,
    /// A recovery file that was passed over.
    recovery: Option<PathBuf>,
}

enum Pending {
    /// A file that is no volume, or not any more.
    File(PathBuf),
    Set(SetName, BTreeMap<u32, Volume>),
}

impl Gathered {
    fn take(&mut self, path: &Path) -> Result<(), BundleError> {
        let io = |source| BundleError::Io { path: path.to_owned(), source };
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                let found = bundles_in(path).map_err(io)?;
                if found.is_empty() {
                    let source = io::Error::new(io::ErrorKind::NotFound, "no bundle is in this directory");
                    return Err(io(source));
                }
                found.iter().try_for_each(|path| self.take_file(path, false))
            }
            Ok(_) => self.take_file(path, true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => match volumes_of(path) {
                volumes if volumes.is_empty() => Err(io(error)),
                volumes => volumes.iter().try_for_each(|path| self.take_file(path, false)),
            },
            Err(error) => Err(io(error)),
        }
    }

    /// Takes one file. One that was not `named`, but found, may be there twice.
    fn take_file(&mut self, path: &Path, named: bool) -> Result<(), BundleError> {
        // Recovery files lie beside what they are for; only a repair reads them.
        if Recovery::is_one(path) {
            self.recovery = Some(path.to_owned());
            return Ok(());
        }
        let kind = match Volume::read(path) {
            Err(source)
                if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) =>
            {
                return Err(BundleError::Io { path: path.to_owned(), source });
            }
            // What cannot be read of a medium is as good as damaged.
            read => read.unwrap_or_else(|source| Kind::Damaged(source.to_string())),
        };
        let Kind::Volume(volume) = kind else {
            self.bundles.push(Pending::File(path.to_owned()));
            return Ok(());
        };
        let set = &volume.header().set;
        let known = self.bundles.iter_mut().find_map(|pending| match pending {
            Pending::Set(name, volumes) if name == set => Some(volumes),
            _ => None,
        });
        match known {
            None => {
                let set = set.clone();
                self.bundles.push(Pending::Set(set, BTreeMap::from([(volume.number(), volume)])));
            }
            Some(volumes) => match volumes.get(&volume.number()) {
                Some(other) if named && !is_same(other.path(), path) => {
                    return Err(BundleError::Twice {
                        path: path.to_owned(),
                        other: other.path().to_owned(),
                        number: volume.number(),
                    });
                }
                Some(_) => {}
                None => _ = volumes.insert(volume.number(), volume),
            },
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<Media>, BundleError> {
        let mut files = Vec::new();
        let mut media = Vec::new();
        for pending in self.bundles {
            match pending {
                Pending::File(path) => {
                    files.push((media.len(), path));
                    media.push(None);
                }
                Pending::Set(set, volumes) => media.push(Some(complete(&set, volumes)?)),
            }
        }
        // What has the name of a volume that is absent is that volume, damaged.
        let is_damaged = |path: &Path| {
            let absent = media.iter().flatten().flat_map(Media::absent);
            absent.into_iter().any(|absent| is_same(&absent.path, path))
        };
        files.retain(|(_, path)| !is_damaged(path));
        for (nth, path) in files {
            media[nth] = Some(plain(&path)?);
        }
        let media: Vec<Media> = media.into_iter().flatten().collect();
        match self.recovery {
            Some(path) if media.is_empty() => {
                let what = "this is a recovery file; name the bundle, or make it with `dray repair`";
                Err(BundleError::Io { path, source: io::Error::new(io::ErrorKind::NotFound, what) })
            }
            _ => Ok(media),
        }
    }
}

fn plain(path: &Path) -> Result<Media, BundleError> {
    match Volume::read(path) {
        Ok(Kind::Damaged(what)) => Err(BundleError::Malformed { path: path.to_owned(), offset: 0, what }),
        _ => Media::plain(path),
    }
}

/// Looks beside the volumes that are there for those that are not, and joins them.
fn complete(set: &SetName, mut present: BTreeMap<u32, Volume>) -> Result<Media, BundleError> {
    let first = present.values().next().expect("a set is made for a volume");
    let of = first.of();
    // Where volumes that have kept their names lie, and what the bundle was called.
    let mut outputs: Vec<PathBuf> =
        present.values().filter_map(|volume| parse_path(volume.path())).map(|(output, ..)| output).collect();
    outputs.sort();
    outputs.dedup();
    let name = outputs.first().map_or_else(|| first.path().to_owned(), |output| volumes_pattern(output, of));
    let unnamed = first.path().with_file_name(format!("{}.tar", set.name));
    let mut absent = Vec::new();
    for number in 1..=of {
        if present.contains_key(&number) {
            continue;
        }
        let called = |output: &PathBuf| volume_path(output, number, of);
        let mut missing =
            Absent { number, path: called(outputs.first().unwrap_or(&unnamed)), why: Why::Missing };
        for path in outputs.iter().map(called) {
            match Volume::read(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => missing.why = Why::Damaged(error.to_string()),
                Ok(Kind::Other) => missing.why = Why::Damaged("it does not begin as a volume does".into()),
                Ok(Kind::Damaged(what)) => missing.why = Why::Damaged(what),
                Ok(Kind::Volume(volume)) if volume.header().set == *set && volume.number() == number => {
                    present.insert(number, volume);
                    break;
                }
                Ok(Kind::Volume(volume)) => {
                    missing.why = Why::Foreign(volume.to_string());
                }
            }
            missing.path = path;
        }
        if !present.contains_key(&number) {
            absent.push(missing);
        }
    }
    Media::join(name, present, absent)
}

/// The bundles and volumes in `directory`, in the order of their names.
fn bundles_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = files_in(directory)?;
    found.retain(|path| match Volume::read(path) {
        Ok(Kind::Volume(_)) => true,
        Ok(Kind::Other) => Media::plain(path).is_ok_and(|media| media.ends_as_bundle()),
        _ => false,
    });
    Ok(found)
}

/// The finished files in `directory`, in the order of their names.
pub(super) fn files_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)?.take(MAX_FILES) {
        let path = entry?.path();
        let unfinished =
            path.extension().is_some_and(|extension| extension == "partial" || extension == "repair");
        if !unfinished && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The volumes that were made when the bundle was to be called `output`.
pub(super) fn volumes_of(output: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(parent(output)) else { return Vec::new() };
    let names =
        entries.take(MAX_FILES).filter_map(|entry| Some(output.with_file_name(entry.ok()?.file_name())));
    let is_volume = |path: &PathBuf| {
        // A FIFO of that name would be waited for.
        path.is_file() && parse_path(path).is_some_and(|(named, _, of)| named == output && of <= MAX_VOLUMES)
    };
    let mut found: Vec<PathBuf> = names.filter(is_volume).collect();
    found.sort();
    found
}
