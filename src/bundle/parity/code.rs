//! Reed–Solomon over the blocks of a bundle, in columns: a few bytes of every block at a time, so that memory does not
//! grow with the bundle.

use std::io;

use reed_solomon_simd::{ReedSolomonDecoder, ReedSolomonEncoder};

use crate::bundle::volume::Blocks;
use crate::file::Span;

/// What the columns of all blocks may take together, in bytes.
const WINDOW: u64 = 8 * 1024 * 1024;
/// Columns are multiples of this, for which the code is fastest.
const GRAIN: u64 = 64;

/// How wide columns of so many blocks are.
fn width(blocks: Blocks, rows: u64) -> u64 {
    (WINDOW / rows.max(1) / GRAIN * GRAIN).clamp(GRAIN, blocks.size)
}

/// Reads a column of block `nth`. Behind the head there are zeros.
fn read_column(head: &Span, blocks: Blocks, nth: u64, at: u64, column: &mut [u8]) -> io::Result<()> {
    let (start, len) = blocks.place(nth);
    let there = usize::try_from(len.saturating_sub(at)).map_or(column.len(), |left| left.min(column.len()));
    head.read_exact_at(&mut column[..there], start + at)?;
    column[there..].fill(0);
    Ok(())
}

fn columns(blocks: Blocks, width: u64) -> impl Iterator<Item = (u64, usize)> {
    let step = usize::try_from(width).expect("a column is small");
    (0..blocks.size).step_by(step).map(move |at| {
        let len = width.min(blocks.size - at);
        (at, usize::try_from(len).expect("a column is small"))
    })
}

fn count(blocks: u64) -> usize {
    usize::try_from(blocks).expect("there are few blocks")
}

/// Makes so many recovery blocks of the blocks of `head`, and gives each piece of them to `write`: the recovery block, where
/// in it, and the bytes. `progress` is told of bytes of the head.
pub(in crate::bundle) fn encode(
    head: &Span,
    blocks: Blocks,
    made: u64,
    mut write: impl FnMut(u64, u64, &[u8]) -> io::Result<()>,
    mut progress: impl FnMut(u64),
) -> io::Result<()> {
    let originals = blocks.count();
    if originals == 0 || made == 0 {
        return Ok(());
    }
    let rows = originals
        .next_multiple_of(made.next_power_of_two())
        .max(made.next_multiple_of(originals.next_power_of_two()));
    let width = width(blocks, rows);
    let mut column = vec![0; count(width)];
    let mut encoder =
        ReedSolomonEncoder::new(count(originals), count(made), column.len()).map_err(io::Error::other)?;
    for (at, len) in columns(blocks, width) {
        // The last column may be narrower. A second encoder would take as much memory as the first.
        encoder.reset(count(originals), count(made), len).map_err(io::Error::other)?;
        let column = &mut column[..len];
        for nth in 0..originals {
            read_column(head, blocks, nth, at, column)?;
            encoder.add_original_shard(&*column).map_err(io::Error::other)?;
        }
        let result = encoder.encode().map_err(io::Error::other)?;
        for (nth, shard) in (0..).zip(result.recovery_iter()) {
            write(nth, at, shard)?;
        }
        progress(originals * len as u64);
    }
    Ok(())
}

/// Restores the blocks of `head` that are not `good`, by those that are and the recovery blocks that are, and gives each
/// piece of a restored block to `restored`: the block, where in it, and the bytes.
pub(in crate::bundle) fn decode(
    head: &Span,
    blocks: Blocks,
    good: &[bool],
    recovery: &Span,
    good_recovery: &[bool],
    mut restored: impl FnMut(u64, u64, &[u8]) -> io::Result<()>,
    mut progress: impl FnMut(u64),
) -> io::Result<()> {
    let lost = good.iter().filter(|good| !**good).count();
    if lost == 0 {
        return Ok(());
    }
    let used: Vec<usize> =
        good_recovery.iter().enumerate().filter(|(_, good)| **good).map(|(nth, _)| nth).take(lost).collect();
    let (originals, made) = (good.len() as u64, good_recovery.len() as u64);
    let rows = (originals.next_power_of_two() + made.next_power_of_two()).next_power_of_two();
    let width = width(blocks, rows);
    let mut column = vec![0; count(width)];
    let mut decoder =
        ReedSolomonDecoder::new(good.len(), good_recovery.len(), column.len()).map_err(io::Error::other)?;
    for (at, len) in columns(blocks, width) {
        decoder.reset(good.len(), good_recovery.len(), len).map_err(io::Error::other)?;
        let column = &mut column[..len];
        for (nth, _) in (0..).zip(good).filter(|(_, good)| **good) {
            read_column(head, blocks, nth, at, column)?;
            decoder.add_original_shard(count(nth), &*column).map_err(io::Error::other)?;
        }
        for nth in &used {
            recovery.read_exact_at(column, *nth as u64 * blocks.size + at)?;
            decoder.add_recovery_shard(*nth, &*column).map_err(io::Error::other)?;
        }
        let result = decoder.decode().map_err(io::Error::other)?;
        for (nth, shard) in result.restored_original_iter() {
            let (_, block_len) = blocks.place(nth as u64);
            let wanted = usize::try_from(block_len.saturating_sub(at)).map_or(len, |left| left.min(len));
            restored(nth as u64, at, &shard[..wanted])?;
        }
        progress(originals * len as u64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn file(len: u64) -> Span {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        Span::new(Arc::new(file), 0, len)
    }

    fn bytes(span: &Span) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(span.len()).unwrap()];
        span.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn as_many_lost_blocks_are_restored_as_there_are_recovery_blocks(
            len in 1u64..200_000, made in 1usize..40, seed in any::<u64>(),
        ) {
            let blocks = Blocks { size: 4096, head: len };
            let head = file(len);
            let mut random = fastrand::Rng::with_seed(seed);
            let content: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(usize::try_from(len).unwrap()).collect();
            head.write_all_at(&content, 0).unwrap();
            let recovery = file(4096 * made as u64);
            let write = |nth, at, bytes: &[u8]| recovery.write_all_at(bytes, nth * 4096 + at);
            encode(&head, blocks, made as u64, write, |_| ()).unwrap();
            // As many as possible are lost, of both kinds.
            let originals = usize::try_from(blocks.count()).unwrap();
            let mut all: Vec<usize> = (0..originals + made).collect();
            random.shuffle(&mut all);
            let lost = &all[..made];
            let good: Vec<bool> = (0..originals).map(|nth| !lost.contains(&nth)).collect();
            let good_recovery: Vec<bool> = (originals..originals + made).map(|nth| !lost.contains(&nth)).collect();
            for nth in lost {
                let (span, nth) = if *nth < originals { (&head, *nth) } else { (&recovery, *nth - originals) };
                let start = nth as u64 * 4096;
                span.write_all_at(&vec![0xaa; usize::try_from((span.len() - start).min(4096)).unwrap()], start).unwrap();
            }
            let restored = head.clone();
            let write = |nth, at, bytes: &[u8]| restored.write_all_at(bytes, blocks.place(nth).0 + at);
            decode(&head, blocks, &good, &recovery, &good_recovery, write, |_| ()).unwrap();
            prop_assert!(bytes(&head) == content);
        }
    }

    #[test]
    fn memory_does_not_grow_with_the_bundle() {
        for (head, made) in [(60u64 << 30, 1640), (1 << 30, 16_384), (4 << 40, 165)] {
            let blocks = Blocks::new(head);
            for rows in [blocks.count() + made, 32_768] {
                let width = width(blocks, rows);
                assert!(width * rows <= WINDOW && width >= 256, "{width}");
            }
        }
    }
}
