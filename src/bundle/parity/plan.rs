//! How recovery blocks are made for a bundle, and into which files.

use std::sync::Arc;

use super::header::{Header, Layout};
use super::{ParityShare, tail_patches};
use crate::bundle::volume::{Blocks, CutError, MAX_VOLUMES, SLACK, SetName, VolumeSize};
use crate::oci::Digest;

/// Lays out recovery files, none of them larger than `size`. The digests in the layout are not yet those of the blocks.
pub(in crate::bundle) fn plan(
    set: SetName,
    mtime: u64,
    volumes: Vec<u64>,
    blocks: Blocks,
    share: ParityShare,
    size: Option<VolumeSize>,
    tail: u64,
) -> Result<Layout, CutError> {
    let unknown =
        |count: u64| vec![Digest::sha256(b""); usize::try_from(count).expect("there are few blocks")];
    let made = share.of(blocks.count());
    let mut layout = Layout {
        set,
        mtime,
        volumes,
        head: blocks.head,
        block_size: blocks.size,
        blocks: unknown(blocks.count()),
        recovery: unknown(made),
        files: vec![0],
    };
    let Some(size) = size.map(VolumeSize::bytes) else { return Ok(layout) };
    loop {
        let files = layout.files.len() as u64;
        let bare = Layout { recovery: unknown(0), files: vec![0], ..layout.clone() };
        let around =
            file_len(&Header::new(1, Arc::new(bare)), 0) + tail + SLACK + 2 * (74 * made + 21 * files + 512);
        let needed = around + blocks.size;
        let fit = size.checked_sub(around).map_or(0, |left| left / blocks.size);
        if fit == 0 && made > 0 {
            return Err(CutError::TooSmall { size, needed });
        }
        let wanted = made.div_ceil(fit.max(1)).max(1);
        if wanted > u64::from(MAX_VOLUMES) {
            return Err(CutError::TooMany { size });
        }
        layout.files = (0..wanted).map(|nth| nth * fit).collect();
        // More files make longer descriptions, which may make more files.
        if wanted == files {
            return Ok(layout);
        }
    }
}

/// The length of the recovery file with a tail of `tail` bytes.
pub(in crate::bundle) fn file_len(header: &Header, tail: usize) -> u64 {
    let (at, end) = tail_patches(header, &vec![0; tail]).pop().expect("there is one");
    at + end.len() as u64
}
