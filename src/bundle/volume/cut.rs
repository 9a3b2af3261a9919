//! Where a bundle is cut.

use super::header::prefix_len;
use super::{MAX_VOLUMES, VolumeSize};
use crate::bundle::tar;

/// The most blocks that a head is divided into.
pub(in crate::bundle) const MAX_BLOCKS: u64 = 16_384;
/// The smallest block.
pub(in crate::bundle) const MIN_BLOCK: u64 = 4096;
/// What is left free in the last volume: room for a dozen further signatures.
pub(in crate::bundle) const SLACK: u64 = 64 * 1024;

/// How the head of a bundle is divided into blocks of the same size; the last may be shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bundle) struct Blocks {
    /// The bytes of a block, a power of two.
    pub(in crate::bundle) size: u64,
    /// The bytes of the head.
    pub(in crate::bundle) head: u64,
}

impl Blocks {
    /// The division of a head of `head` bytes: as fine as it may be.
    pub(in crate::bundle) fn new(head: u64) -> Self {
        Self { size: head.div_ceil(MAX_BLOCKS).next_power_of_two().max(MIN_BLOCK), head }
    }

    /// How many blocks there are.
    pub(in crate::bundle) fn count(self) -> u64 {
        self.head.div_ceil(self.size)
    }

    /// The position and the length of block `nth`.
    pub(in crate::bundle) fn place(self, nth: u64) -> (u64, u64) {
        let start = nth * self.size;
        (start, self.size.min(self.head - start))
    }
}

/// The part of a bundle that a volume has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bundle) struct Slice {
    pub(in crate::bundle) offset: u64,
    pub(in crate::bundle) len: u64,
}

/// Why a bundle cannot be cut as it is asked.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// A volume could not even hold what must not be divided.
    #[error("volumes of {size} bytes are too small for this bundle: the last one alone needs {needed}")]
    TooSmall {
        /// What was asked for.
        size: u64,
        /// What is needed at least.
        needed: u64,
    },
    /// There would be too many.
    #[error("volumes of {size} bytes would be more than {MAX_VOLUMES}; choose larger ones")]
    TooMany {
        /// What was asked for.
        size: u64,
    },
}

/// Cuts a bundle whose head is divided into `blocks` and whose tail has `tail` bytes into volumes that are no larger than
/// `size`. No block is divided, and neither is the tail, which has room to grow.
pub(in crate::bundle) fn cut(blocks: Blocks, tail: u64, size: VolumeSize) -> Result<Vec<Slice>, CutError> {
    let size = size.bytes();
    let whole = |blocks: u64, content: u64| prefix_len(blocks) + content + tar::END;
    let needed = whole(0, tail + SLACK).max(whole(1, blocks.size));
    if size < needed {
        return Err(CutError::TooSmall { size, needed });
    }
    let mut full = size / blocks.size;
    while whole(full, full * blocks.size) > size {
        full -= 1;
    }
    let mut slices = Vec::new();
    let mut nth = 0;
    loop {
        if slices.len() as u64 == u64::from(MAX_VOLUMES) {
            return Err(CutError::TooMany { size });
        }
        let (offset, left) = (nth * blocks.size, blocks.count() - nth);
        let rest = blocks.head - offset;
        if left <= full && whole(left, rest + tail + SLACK) <= size {
            slices.push(Slice { offset, len: rest + tail });
            return Ok(slices);
        }
        let taken = left.min(full);
        nth += taken;
        slices.push(Slice { offset, len: (taken * blocks.size).min(rest) });
        if taken == left {
            // The tail alone is left for the last volume; it begins where the head ends.
            slices.push(Slice { offset: blocks.head, len: tail });
            return Ok(slices);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_byte_lies_in_one_volume_and_none_is_too_large(
            head in 0u64..40_000_000, tail in 1u64..3000, size in 90_000u64..9_000_000,
        ) {
            let (head, tail) = (head * 512, tail * 512);
            let blocks = Blocks::new(head);
            prop_assert!(blocks.count() <= MAX_BLOCKS);
            let Ok(slices) = cut(blocks, tail, VolumeSize::from_bytes(size)) else {
                prop_assert!(size < tail + 70_000 || size < blocks.size + 3000 || head / size > 5000);
                return Ok(());
            };
            let mut at = 0;
            for (nth, slice) in slices.iter().enumerate() {
                prop_assert_eq!(slice.offset, at);
                at += slice.len;
                let last = nth + 1 == slices.len();
                let inside = slice.len - if last { tail } else { 0 };
                prop_assert!(slice.offset % blocks.size == 0 || inside == 0);
                let count = inside.div_ceil(blocks.size);
                let slack = if last { SLACK } else { 0 };
                prop_assert!(prefix_len(count) + slice.len + tar::END + slack <= size);
                prop_assert!(slice.len > 0);
            }
            prop_assert_eq!(at, head + tail);
        }
    }

    #[test]
    fn large_bundles_have_large_blocks() {
        assert_eq!(Blocks::new(0), Blocks { size: MIN_BLOCK, head: 0 });
        assert_eq!(Blocks::new(60 << 30).size, 4 << 20);
        assert_eq!(Blocks { size: 4096, head: 5000 }.place(1), (4096, 904));
        let fat = cut(Blocks::new(60 << 30), 1 << 20, "fat32".parse().unwrap()).unwrap();
        assert_eq!(fat.len(), 16);
        assert!(matches!(
            cut(Blocks::new(0), 512, VolumeSize::from_bytes(512)),
            Err(CutError::TooSmall { .. })
        ));
    }
}
