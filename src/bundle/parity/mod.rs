//! Parity: recovery blocks beside a bundle, from which lost blocks of it are made again.
//!
//! The head of a bundle is divided into blocks, and Reed–Solomon recovery blocks are made of all of them together: as many
//! lost blocks are restored as there are recovery blocks, whichever they are. Which blocks are lost their digests say, that
//! stand at both ends of each recovery file. The tail is small and changes when signatures are added: a copy of it stands
//! in each recovery file, too.

mod code;
mod file;
mod header;
mod plan;
mod share;

pub(super) use code::{decode, encode};
pub use file::Recovery;
pub(super) use file::tail_patches;
pub(super) use header::{Header, Layout};
pub(super) use plan::{file_len, plan};
pub use share::{ParityShare, ParseParityShareError};

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What recovery files are named after: `plant.parity.tar` for `plant.tar`.
pub(super) fn parity_output(output: &Path) -> PathBuf {
    let mut name = OsString::from(output.file_stem().unwrap_or_default());
    name.push(".parity");
    if let Some(extension) = output.extension() {
        name.push(".");
        name.push(extension);
    }
    output.with_file_name(name)
}

/// The bundle that recovery files named after `parity` belong to.
pub(super) fn bundle_output(parity: &Path) -> Option<PathBuf> {
    let name = match parity.extension().and_then(|extension| extension.to_str()) {
        Some("parity") => parity.file_stem()?.to_owned(),
        Some(extension) => {
            let stem = Path::new(parity.file_stem()?).file_stem()?.to_str()?;
            format!("{stem}.{extension}").into()
        }
        None => return None,
    };
    let output = parity.with_file_name(name);
    (parity_output(&output) == parity).then_some(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recovery_files_are_named_after_the_bundle() {
        for (output, parity) in
            [("a/plant.tar", "a/plant.parity.tar"), ("plant", "plant.parity"), ("x.1.tar", "x.1.parity.tar")]
        {
            assert_eq!(parity_output(Path::new(output)), Path::new(parity));
            assert_eq!(bundle_output(Path::new(parity)), Some(output.into()));
        }
        for other in ["plant.tar", "parity", "tar"] {
            assert_eq!(bundle_output(Path::new(other)), None, "{other}");
        }
    }
}
