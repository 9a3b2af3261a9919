//! Volumes: a bundle cut into files of a given size.
//!
//! A volume is a tar of its own with three files: what it says of itself, the digest of that, and its part of the bundle.
//! So any tar joins volumes again (`tar -xO`), and each can be checked alone. A part of the bundle's head is divided into
//! blocks, whose digests the volume states: that finds damage without the other volumes. The whole tail lies in the last
//! one.

mod cut;
mod file;
mod header;
mod size;

pub use cut::CutError;
pub(super) use cut::{Blocks, MAX_BLOCKS, SLACK, Slice, cut};
pub use file::Volume;
pub(super) use file::{Kind, hash};
pub(super) use header::{Header, MAX_HEADER_BYTES, SetName, TailPlace, VolumeNumber, prefix_len};
pub use size::{ParseVolumeSizeError, VolumeSize};

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The most volumes that a bundle may be cut into.
pub(super) const MAX_VOLUMES: u32 = 9999;

/// The path of volume `number` of `of` of the bundle that was to be written to `output`: `plant.tar` becomes
/// `plant.02of12.tar`.
pub(super) fn volume_path(output: &Path, number: u32, of: u32) -> PathBuf {
    let width = of.to_string().len();
    named(output, &format!(".{number:0width$}of{of}"))
}

/// What the volumes of `output` are called together, as a shell would match them.
pub(super) fn volumes_pattern(output: &Path, of: u32) -> PathBuf {
    named(output, &format!(".*of{of}"))
}

fn named(output: &Path, infix: &str) -> PathBuf {
    let mut name = OsString::from(output.file_stem().unwrap_or_default());
    name.push(infix);
    if let Some(extension) = output.extension() {
        name.push(".");
        name.push(extension);
    }
    output.with_file_name(name)
}

/// What [`volume_path`] made `path` from, and the number and the count in it.
pub(super) fn parse_path(path: &Path) -> Option<(PathBuf, u32, u32)> {
    let (stem, extension) = match path.extension().and_then(|e| e.to_str()) {
        Some(extension) if number_of(extension).is_none() => (path.file_stem()?.to_str()?, Some(extension)),
        _ => (path.file_name()?.to_str()?, None),
    };
    let (stem, infix) = stem.rsplit_once('.').filter(|(stem, _)| !stem.is_empty())?;
    let (number, of) = number_of(infix)?;
    let name = extension.map_or_else(|| stem.to_owned(), |extension| format!("{stem}.{extension}"));
    let output = path.with_file_name(name);
    (volume_path(&output, number, of) == path).then_some((output, number, of))
}

/// Reads `02of12`.
fn number_of(infix: &str) -> Option<(u32, u32)> {
    let (number, of) = infix.split_once("of")?;
    let (number, of) = (number.parse().ok()?, of.parse().ok()?);
    (1 <= number && number <= of && of <= MAX_VOLUMES).then_some((number, of))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn volumes_are_named_after_the_bundle() {
        for (output, number, of, expected) in [
            ("/x/plant.tar", 1, 3, "/x/plant.1of3.tar"),
            ("plant.tar", 2, 12, "plant.02of12.tar"),
            ("plant", 2, 2, "plant.2of2"),
            ("plant.v1.tar", 1, 1, "plant.v1.1of1.tar"),
        ] {
            let path = volume_path(Path::new(output), number, of);
            assert_eq!(path, Path::new(expected));
            assert_eq!(parse_path(&path), Some((output.into(), number, of)));
        }
        for other in
            ["plant.tar", "plant.1of.tar", "plant.4of3.tar", "plant.0of3.tar", "plant.01of3.tar", ".1of3"]
        {
            assert_eq!(parse_path(Path::new(other)), None, "{other}");
        }
        assert_eq!(volumes_pattern(Path::new("a/plant.tar"), 3), Path::new("a/plant.*of3.tar"));
    }

    proptest! {
        #[test]
        fn any_name_is_read_without_a_panic(name in ".{0,40}") {
            let _ = parse_path(Path::new(&name));
        }
    }
}
