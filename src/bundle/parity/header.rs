//! What a recovery file says of the bundle and of itself.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::file::tail_patches;
use crate::bundle::framing;
use crate::bundle::tar;
use crate::bundle::unfinished::Frame;
use crate::bundle::volume::{Blocks, MAX_VOLUMES, SetName, Slice};
use crate::oci::Digest;

/// The version of this form.
const VERSION: u32 = 1;
pub(super) const HEADER_NAME: &str = "dray-parity.json";
const PART_NAME: &str = "parity.part";
/// What the description takes besides lists, at most.
const BASE_LEN: u64 = 1536;
const DIGEST_LEN: u64 = 74;
const NUMBER_LEN: u64 = 21;
/// The longest description that is read.
pub(super) const MAX_HEADER_BYTES: u64 = 4 * 1024 * 1024;

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::bundle) struct Layout {
    pub(in crate::bundle) set: SetName,
    /// The time that the entries of the bundle bear.
    pub(in crate::bundle) mtime: u64,
    /// Where each volume begins; empty for a bundle that was not cut.
    pub(in crate::bundle) volumes: Vec<u64>,
    /// The bytes of the head.
    pub(in crate::bundle) head: u64,
    pub(in crate::bundle) block_size: u64,
    /// The digests of the blocks of the head.
    pub(in crate::bundle) blocks: Vec<Digest>,
    /// The digests of the recovery blocks.
    pub(in crate::bundle) recovery: Vec<Digest>,
    /// Which recovery block each recovery file begins with.
    pub(in crate::bundle) files: Vec<u64>,
}

/// What a recovery file says: the same as all others, and which of them it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::bundle) struct Header {
    schema_version: u32,
    /// Counts the recovery files from 1.
    pub(in crate::bundle) number: u32,
    /// Megabytes of digests, so all files of a bundle share one.
    #[serde(with = "shared")]
    pub(in crate::bundle) layout: Arc<Layout>,
}

/// Writes and reads what is shared as if it were not.
mod shared {
    use super::{Arc, Deserialize, Layout, Serialize};

    pub(super) fn serialize<S: serde::Serializer>(layout: &Layout, to: S) -> Result<S::Ok, S::Error> {
        layout.serialize(to)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Arc<Layout>, D::Error> {
        Layout::deserialize(from).map(Arc::new)
    }
}

/// Whether `bytes`, the first of a file, are those of a recovery file: the length of its header.
pub(in crate::bundle) fn is_recovery(bytes: &[u8]) -> Option<u64> {
    let header = tar::parse(bytes).ok().flatten().filter(|header| header.path == HEADER_NAME)?;
    framing::framed_len(tar::padded(header.size)?).filter(|len| *len <= MAX_HEADER_BYTES)
}

impl Layout {
    pub(in crate::bundle) fn blocks(&self) -> Blocks {
        Blocks { size: self.block_size, head: self.head }
    }

    /// The part of the head and the blocks that each volume has, or the only file.
    pub(in crate::bundle) fn parts(&self) -> Vec<Slice> {
        let starts: Vec<u64> = if self.volumes.is_empty() { vec![0] } else { self.volumes.clone() };
        let ends = starts.iter().skip(1).copied().chain([self.head]);
        starts.iter().zip(ends).map(|(start, end)| Slice { offset: *start, len: end - start }).collect()
    }

    /// The recovery blocks that file `number` has.
    pub(in crate::bundle) fn recovery_in(&self, number: u32) -> std::ops::Range<u64> {
        let nth = number as usize - 1;
        self.files[nth]..self.files.get(nth + 1).copied().unwrap_or(self.recovery.len() as u64)
    }

    fn description_len(&self) -> u64 {
        let digests = (self.blocks.len() + self.recovery.len()) as u64 * DIGEST_LEN;
        let numbers = (self.volumes.len() + self.files.len()) as u64 * NUMBER_LEN;
        (BASE_LEN + digests + numbers).next_multiple_of(tar::BLOCK)
    }

    fn check(&self) -> bool {
        // Whoever makes recovery files again reserves the space for as many blocks as they say, so that must not be more than
        // the bundle can need.
        let limits = i64::try_from(self.head).is_ok()
            && self.blocks() == Blocks::new(self.head)
            && self.blocks.len() as u64 == self.blocks().count()
            && self.recovery.len() <= self.blocks.len() + 1
            && self.volumes.len() <= MAX_VOLUMES as usize
            && (1..=MAX_VOLUMES as usize).contains(&self.files.len());
        let rises =
            |places: &[u64]| places.first() == Some(&0) && places.windows(2).all(|pair| pair[0] < pair[1]);
        let in_head = |at: &u64| at.is_multiple_of(self.block_size) && *at < self.head || *at == self.head;
        limits
            && (self.volumes.is_empty() || rises(&self.volumes) && self.volumes.iter().all(in_head))
            && rises(&self.files)
            && self.files.iter().skip(1).all(|first| *first < self.recovery.len() as u64)
    }
}

impl Header {
    pub(in crate::bundle) fn new(number: u32, layout: Arc<Layout>) -> Self {
        Self { schema_version: VERSION, number, layout }
    }

    /// The bytes of the description with its digest, as they stand at both ends.
    pub(in crate::bundle) fn to_bytes(&self) -> Vec<u8> {
        framing::framed(HEADER_NAME, self, self.layout.description_len(), self.layout.mtime)
    }

    /// What stands around the recovery blocks in the file of a bundle that ends with `tail`. The last ends the file.
    pub(in crate::bundle) fn frame(&self, tail: &[u8]) -> Frame {
        let bytes = self.to_bytes();
        let mut frame = vec![(0, bytes.clone()), (self.len(), self.part_header()), (self.second(), bytes)];
        frame.extend(tail_patches(self, tail));
        frame
    }

    /// The bytes of [`Header::to_bytes`].
    pub(in crate::bundle) fn len(&self) -> u64 {
        framing::framed_len(self.layout.description_len()).expect("a description is small")
    }

    /// Reads what [`Header::to_bytes`] wrote, and nothing else.
    pub(in crate::bundle) fn parse(bytes: &[u8]) -> Option<Self> {
        let header: Self = framing::parse(HEADER_NAME, bytes).ok()?;
        let layout = &header.layout;
        let number = usize::try_from(header.number).ok()?;
        let good = header.schema_version == VERSION
            && layout.check()
            && (1..=layout.files.len()).contains(&number)
            && header.to_bytes() == bytes;
        good.then_some(header)
    }

    /// The bytes of the recovery blocks in this file.
    pub(in crate::bundle) fn part_len(&self) -> u64 {
        let blocks = self.layout.recovery_in(self.number);
        (blocks.end - blocks.start) * self.layout.block_size
    }

    /// Where the recovery blocks begin.
    pub(in crate::bundle) fn part_offset(&self) -> u64 {
        self.len() + tar::BLOCK
    }

    /// The tar header of the recovery blocks.
    pub(in crate::bundle) fn part_header(&self) -> Vec<u8> {
        tar::header(PART_NAME, self.part_len(), self.layout.mtime)
    }

    /// Where the second description begins.
    pub(in crate::bundle) fn second(&self) -> u64 {
        self.part_offset() + self.part_len()
    }

    /// Where the copy of the tail begins, with its digest before it.
    pub(in crate::bundle) fn tail_offset(&self) -> u64 {
        self.second() + self.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(number: u32) -> Header {
        let name = "a-name".parse().unwrap();
        let volumes = vec![0, 8192];
        let set = SetName::new(name, u64::MAX, Digest::sha256(b"index"), 7, volumes.clone());
        let digests = |count| vec![Digest::sha256(b"block"); count];
        let layout = Layout {
            set,
            mtime: 7,
            volumes,
            head: 10_000,
            block_size: 4096,
            blocks: digests(3),
            recovery: digests(4),
            files: vec![0, 3],
        };
        Header::new(number, Arc::new(layout))
    }

    fn layout(header: &mut Header) -> &mut Layout {
        Arc::make_mut(&mut header.layout)
    }

    #[test]
    fn what_is_written_is_read() {
        for (number, blocks) in [(1, 3), (2, 1)] {
            let header = header(number);
            let bytes = header.to_bytes();
            assert_eq!((bytes.len() as u64, header.part_len()), (header.len(), blocks * 4096));
            assert_eq!(is_recovery(&bytes[..512]), Some(header.len()));
            assert_eq!(Header::parse(&bytes), Some(header));
        }
        assert_eq!(
            header(1).layout.parts(),
            [Slice { offset: 0, len: 8192 }, Slice { offset: 8192, len: 1808 }]
        );
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let good = header(2).to_bytes();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x01;
            assert_eq!(Header::parse(&bad), None, "byte {at}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let broken: [fn(&mut Header); 16] = [
            |h| h.schema_version = 2,
            |h| h.number = 0,
            |h| h.number = 3,
            |h| layout(h).head = u64::MAX,
            |h| layout(h).head = 4096,
            |h| layout(h).block_size = 0,
            |h| layout(h).block_size = 5000,
            |h| layout(h).block_size = 1 << 62,
            |h| layout(h).block_size = 8192,
            |h| layout(h).blocks.clear(),
            |h| layout(h).recovery.push(Digest::sha256(b"more")),
            |h| layout(h).volumes = vec![4096],
            |h| layout(h).volumes = vec![0, 8192, 8192],
            |h| layout(h).volumes = vec![0, 12_288],
            |h| layout(h).files = Vec::new(),
            |h| layout(h).files = vec![0, 4],
        ];
        for (nth, spoil) in broken.into_iter().enumerate() {
            let mut header = header(1);
            spoil(&mut header);
            assert_eq!(Header::parse(&header.to_bytes()), None, "{nth}");
        }
    }

    proptest! {
        #[test]
        fn any_numbers_are_read_without_a_panic(
            numbers in any::<[u64; 3]>(), volumes in any::<[u64; 2]>(), files in any::<[u64; 2]>(), number in any::<u32>(),
        ) {
            let mut header = header(number);
            let layout = layout(&mut header);
            [layout.mtime, layout.head, layout.block_size] = numbers;
            layout.mtime %= 1 << 33;
            (layout.volumes, layout.files) = (volumes.to_vec(), files.to_vec());
            let _ = Header::parse(&header.to_bytes());
        }
    }
}
