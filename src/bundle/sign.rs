//! Adding signatures to a bundle by rewriting its tail.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::gather::volumes_of;
use super::parity::{Recovery, parity_output, tail_patches};
use super::plan::{Plan, Tail};
use super::read::Bundle;
use super::tar;
use super::unfinished::with_suffix;
use super::volume::{SetName, Volume, parse_path, volume_path};
use super::write::BuildError;
use crate::file::{self, Inputs};
use crate::oci::Digest;
use crate::trust::{Claim, Signatures, TrustError};

/// The most that is read back: the lock, the bundle index and `index.json`, none of which has more than a quarter of it.
const MAX_SIDECAR_BYTES: u64 = 256 * 1024 * 1024;

/// Adds the signatures that `make` gives for the bundle at `path`, rewriting its tail only, and the copies of it in recovery
/// files that lie beside it. Of volumes, the last has the tail.
///
/// What is to be written is first kept beside the file as `NAME.tail`, so that a run that is killed while it writes is
/// finished by the next one. That name must not be one of `inputs`, which are read to make the signatures. If `path` is a
/// symbolic link, the file that it leads to is rewritten, and what is derived is next to that file.
pub fn sign(
    path: &Path,
    inputs: &Inputs,
    make: impl FnOnce(&Claim) -> Result<Signatures, TrustError>,
) -> Result<Bundle, BuildError> {
    let bundle = open_to_sign(path)?;
    let signatures = bundle.signatures().cloned().unwrap_or_default().with(make(bundle.claim())?)?;
    let plan = Plan::new(bundle.lock(), bundle.mtime())?;
    let tail = Tail::new(bundle.lock(), &plan, Some(&signatures));
    let copies = recovery_patches(&bundle, &plan, &tail)?;
    // A copy that is not reached is that of a bundle with fewer signatures, and as whole as the new one.
    let rewritten = [vec![patches(&bundle, &plan, tail)?], copies].concat();
    for (target, _) in &rewritten {
        file::check_derived(target)?;
        for derived in [sidecar(target), unfinished_sidecar(target)] {
            file::check_derived(&derived)?;
            inputs.check(&derived)?;
        }
    }
    rewritten.iter().try_for_each(|(target, patches)| rewrite(target, patches))?;
    Ok(Bundle::open(path)?)
}

/// Which recovery files lie beside the bundle, and what is written to them to keep their copies of the tail.
fn recovery_patches(
    bundle: &Bundle,
    plan: &Plan,
    tail: &Tail,
) -> Result<Vec<(PathBuf, Vec<Patch>)>, BuildError> {
    let media = bundle.media();
    let set = media.set().cloned().unwrap_or_else(|| {
        let lock = bundle.lock();
        SetName::new(lock.name.clone(), lock.sequence, bundle.index().digest.clone(), bundle.mtime(), [])
    });
    let file = real(media.last_volume().map_or(bundle.path(), Volume::path))?;
    let output = parse_path(&file).map_or(file, |(output, ..)| output);
    let found = volumes_of(&parity_output(&output)).into_iter();
    let opened = found.filter_map(|path| Recovery::open(&path).ok().flatten());
    // The head says how long the recovery blocks may be, behind which the copy is written.
    let ours = opened.filter(|recovery| {
        let layout = &recovery.header.layout;
        layout.set == set && layout.head == plan.tail
    });
    ours.map(|recovery| Ok((real(&recovery.path)?, tail_patches(&recovery.header, &tail.bytes)))).collect()
}

/// Returns the file that `path` leads to, if it is a symbolic link.
fn real(path: &Path) -> Result<PathBuf, BuildError> {
    file::resolve(path).map_err(|source| BuildError::Io { path: path.to_owned(), source })
}

/// Returns where the patches of `target` are kept.
fn sidecar(target: &Path) -> PathBuf {
    with_suffix(target, ".tail")
}

/// Writes `patches` into `target` so that a run that is killed is finished by the next.
fn rewrite(target: &Path, patches: &[Patch]) -> Result<(), BuildError> {
    let sidecar = sidecar(target);
    file::replace_through(&unfinished_sidecar(target), &sidecar, &to_bytes(patches))
        .map_err(|source| BuildError::Io { path: sidecar, source })?;
    finish_signing(target)
}

/// Opens the bundle at `path`, after finishing a signing that was killed while it wrote the tail.
///
/// A bundle that can be opened has a whole tail, and whoever signs may have looked at it: then what lies beside it counts
/// for nothing, since a run that was killed before it wrote may have left it there, and so may anybody else.
fn open_to_sign(path: &Path) -> Result<Bundle, BuildError> {
    let target = real(&last_volume(path))?;
    match Bundle::open(path) {
        Err(error) if error.is_verification() && sidecar(&target).exists() => {
            finish_signing(&target)?;
            Ok(Bundle::open(path)?)
        }
        opened => Ok(opened?),
    }
}

/// Bytes and where in a file they belong.
type Patch = (u64, Vec<u8>);

/// Which file gets the tail, and what is written to it. It ends with the last patch.
fn patches(bundle: &Bundle, plan: &Plan, mut tail: Tail) -> Result<(PathBuf, Vec<Patch>), BuildError> {
    let Some(volume) = bundle.media().last_volume() else {
        return Ok((real(bundle.path())?, vec![(plan.tail, tail.bytes)]));
    };
    let header = volume.header().with_tail(plan.tail, &tail.bytes);
    let position = header.prefix_len() + header.head_len();
    tail.bytes.extend(tar::ZEROS);
    Ok((real(volume.path())?, vec![(0, header.to_bytes(volume.mtime())), (position, tail.bytes)]))
}

/// The file that has the tail of the bundle at `path`, by its name.
fn last_volume(path: &Path) -> PathBuf {
    parse_path(path).map_or_else(|| path.to_owned(), |(output, _, of)| volume_path(&output, of, of))
}

/// Returns what the patches of `target` are called until they are whole.
fn unfinished_sidecar(target: &Path) -> PathBuf {
    with_suffix(target, ".tail.new")
}

/// Patches as they are kept: position, length and bytes of each, and the digest of all that.
fn to_bytes(patches: &[Patch]) -> Vec<u8> {
    let mut kept = Vec::new();
    for (position, bytes) in patches {
        kept.extend(position.to_be_bytes());
        kept.extend((bytes.len() as u64).to_be_bytes());
        kept.extend(bytes);
    }
    let digest = Digest::sha256(&kept).to_string();
    kept.extend(digest.as_bytes());
    kept
}

/// Reads what [`to_bytes`] wrote; none when it is not whole.
fn parse(kept: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    let digest_len = Digest::sha256(b"").to_string().len();
    let (mut rest, digest) = kept.split_at(kept.len().checked_sub(digest_len)?);
    if Digest::sha256(rest).to_string().as_bytes() != digest {
        return None;
    }
    let mut patches = Vec::new();
    while let Some((position, more)) = rest.split_first_chunk::<8>() {
        let (len, more) = more.split_first_chunk::<8>()?;
        let (bytes, more) = more.split_at_checked(usize::try_from(u64::from_be_bytes(*len)).ok()?)?;
        patches.push((u64::from_be_bytes(*position), bytes));
        rest = more;
    }
    rest.is_empty().then_some(patches)
}

/// Writes what is kept beside `target` into it, if there is something whole.
fn finish_signing(target: &Path) -> Result<(), BuildError> {
    let sidecar = sidecar(target);
    let io = |source| BuildError::Io { path: target.to_owned(), source };
    let mut kept = Vec::new();
    file::open_left(&sidecar, OpenOptions::new().read(true))
        .and_then(|file| file.take(MAX_SIDECAR_BYTES).read_to_end(&mut kept))
        .map_err(|source| BuildError::Io { path: sidecar.clone(), source })?;
    let len = std::fs::metadata(target).map_err(io)?.len();
    // A tail follows the head, and never lies beyond the end.
    if let Some(patches) = parse(&kept).filter(|patches| patches.iter().all(|(at, _)| *at <= len)) {
        let file = OpenOptions::new().write(true).open(target).map_err(io)?;
        let mut end = 0;
        for (position, bytes) in patches {
            file::write_all_at(&file, bytes, position).map_err(io)?;
            end = position + bytes.len() as u64;
        }
        file.set_len(end).map_err(io)?;
        file.sync_all().map_err(io)?;
    }
    std::fs::remove_file(&sidecar).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_whole_is_read_back() {
        let patches = vec![(0, b"head".to_vec()), (1 << 40, Vec::new())];
        let kept = to_bytes(&patches);
        let read: Vec<Patch> = parse(&kept).unwrap().into_iter().map(|(at, b)| (at, b.to_vec())).collect();
        assert_eq!(read, patches);
        for cut in 0..kept.len() {
            assert_eq!(parse(&kept[..cut]), None, "{cut}");
        }
    }
}
