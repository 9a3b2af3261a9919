//! What the volumes of one bundle say of themselves.

use std::ops::Range;

use super::plan::{Plan, Tail};
use super::volume::{Blocks, CutError, Header, SetName, Slice, TailPlace, VolumeNumber, VolumeSize, cut};
use crate::oci::Digest;
use crate::resolve::Lock;

/// Where a bundle is cut, if it is, and what its files are called together.
pub(super) struct Cutting {
    pub(super) set: SetName,
    pub(super) blocks: Blocks,
    /// None for a bundle that is not cut.
    slices: Vec<Slice>,
}

impl Cutting {
    /// Cuts the bundle of `lock` into volumes that are no larger than `size`, if there is one.
    pub(super) fn new(
        lock: &Lock,
        plan: &Plan,
        tail: &Tail,
        size: Option<VolumeSize>,
    ) -> Result<Self, CutError> {
        let blocks = Blocks::new(plan.tail);
        let slices = size.map(|size| cut(blocks, tail.bytes.len() as u64, size)).transpose()?;
        let slices = slices.unwrap_or_default();
        let starts = slices.iter().map(|slice| slice.offset);
        let digest = tail.index.digest.clone();
        let set = SetName::new(lock.name.clone(), lock.sequence, digest, plan.mtime, starts);
        Ok(Self { set, blocks, slices })
    }

    /// Where each volume begins.
    pub(super) fn starts(&self) -> Vec<u64> {
        self.slices.iter().map(|slice| slice.offset).collect()
    }

    /// The part of the bundle that each volume has, and which blocks.
    pub(super) fn volumes(&self) -> impl Iterator<Item = (Slice, Range<u64>)> {
        let starts = self.slices.iter().map(|slice| slice.offset.div_ceil(self.blocks.size));
        let ends = starts.clone().skip(1).chain([self.blocks.count()]);
        self.slices.iter().copied().zip(starts.zip(ends).map(|(start, end)| start..end))
    }

    /// What stands before the parts: `digests` are those of all blocks.
    pub(super) fn prefixes(&self, digests: &[Digest], tail: &Tail, mtime: u64) -> Vec<Vec<u8>> {
        let of = u32::try_from(self.slices.len()).expect("no more volumes than there may be");
        let volumes = (1..).zip(self.volumes()).map(|(number, (slice, blocks))| {
            let place = |nth: u64| usize::try_from(nth).expect("there are few blocks");
            let digests = digests[place(blocks.start)..place(blocks.end)].to_vec();
            let tail = (number == of)
                .then(|| TailPlace { offset: self.blocks.head, digest: Digest::sha256(&tail.bytes) });
            let number = VolumeNumber { number, of };
            Header::new(self.set.clone(), number, slice, self.blocks.size, digests, tail).to_bytes(mtime)
        });
        volumes.collect()
    }
}
