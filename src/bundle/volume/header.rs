//! What a volume says of itself.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::cut::{MAX_BLOCKS, MIN_BLOCK};
use super::{MAX_VOLUMES, Slice};
use crate::bundle::{framing, tar};
use crate::oci::Digest;
use crate::resolve::BundleName;

/// The version of this form.
const VERSION: u32 = 1;
const HEADER_NAME: &str = "dray-volume.json";
const PART_NAME: &str = "bundle.part";
/// What the description takes besides the digests of its blocks, at most.
const BASE_LEN: u64 = 1536;
/// What the digest of a block takes, with quotes and comma.
const DIGEST_LEN: u64 = 74;
/// The longest header that is read.
pub(in crate::bundle) const MAX_HEADER_BYTES: u64 = 2 * 1024 * 1024;

/// The volumes that belong together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::bundle) struct SetName {
    /// Stands for the bundle and the places where it was cut.
    pub(in crate::bundle) id: Digest,
    /// The name of the bundle.
    pub(in crate::bundle) name: BundleName,
    /// Its sequence number.
    pub(in crate::bundle) sequence: u64,
    /// The digest of its bundle index.
    pub(in crate::bundle) digest: Digest,
}

impl SetName {
    /// The name of the volumes that begin at these places of a bundle with the time `mtime`.
    ///
    /// Signatures that are added later move nothing, so they do not change it.
    pub(in crate::bundle) fn new(
        name: BundleName,
        sequence: u64,
        digest: Digest,
        mtime: u64,
        starts: impl IntoIterator<Item = u64>,
    ) -> Self {
        let mut text = format!("dray-volumes {VERSION}\n{digest}\n{mtime}\n");
        for start in starts {
            let _ = writeln!(text, "{start}");
        }
        Self { id: Digest::sha256(text.as_bytes()), name, sequence, digest }
    }
}

/// What a volume says of itself: its place, and the digests of what it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::bundle) struct Header {
    schema_version: u32,
    pub(in crate::bundle) set: SetName,
    /// Counts the volumes from 1.
    pub(in crate::bundle) number: u32,
    pub(in crate::bundle) of: u32,
    /// Where in the bundle the part begins.
    pub(in crate::bundle) offset: u64,
    /// The bytes of the part.
    pub(in crate::bundle) length: u64,
    pub(in crate::bundle) block_size: u64,
    /// The digests of the blocks of the head that are in the part.
    pub(in crate::bundle) blocks: Vec<Digest>,
    /// The tail, which the last volume has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::bundle) tail: Option<TailPlace>,
}

/// The tail in the last volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::bundle) struct TailPlace {
    /// Where in the bundle it begins.
    pub(in crate::bundle) offset: u64,
    /// The digest of all of it.
    pub(in crate::bundle) digest: Digest,
}

/// The bytes before the part of a volume that states so many blocks.
pub(in crate::bundle) fn prefix_len(blocks: u64) -> u64 {
    // Three headers, the description and its digest.
    3 * tar::BLOCK + description_len(blocks) + tar::BLOCK
}

fn description_len(blocks: u64) -> u64 {
    (BASE_LEN + DIGEST_LEN * blocks).next_multiple_of(tar::BLOCK)
}

/// Whether `bytes`, the first of a file, are those of a volume: the length of all that comes before its part.
pub(in crate::bundle) fn starts_volume(bytes: &[u8]) -> Option<u64> {
    let header = tar::parse(bytes).ok().flatten().filter(|header| header.path == HEADER_NAME)?;
    tar::padded(header.size)?.checked_add(4 * tar::BLOCK)
}

/// Which volume it is, counted from 1, and of how many.
#[derive(Clone, Copy, Debug)]
pub(in crate::bundle) struct VolumeNumber {
    pub(in crate::bundle) number: u32,
    pub(in crate::bundle) of: u32,
}

impl Header {
    pub(in crate::bundle) fn new(
        set: SetName,
        VolumeNumber { number, of }: VolumeNumber,
        slice: Slice,
        block_size: u64,
        blocks: Vec<Digest>,
        tail: Option<TailPlace>,
    ) -> Self {
        let Slice { offset, len: length } = slice;
        Self { schema_version: VERSION, set, number, of, offset, length, block_size, blocks, tail }
    }

    /// The same for a last volume whose tail, which begins at `offset` of the bundle, has become `tail`.
    pub(in crate::bundle) fn with_tail(&self, offset: u64, tail: &[u8]) -> Self {
        let length = offset - self.offset + tail.len() as u64;
        let tail = Some(TailPlace { offset, digest: Digest::sha256(tail) });
        Self { length, tail, ..self.clone() }
    }

    /// The bytes of a volume before its part.
    pub(in crate::bundle) fn to_bytes(&self, mtime: u64) -> Vec<u8> {
        let mut bytes = framing::framed(HEADER_NAME, self, description_len(self.blocks.len() as u64), mtime);
        bytes.extend(tar::header(PART_NAME, self.length, mtime));
        bytes
    }

    /// Reads the bytes before the part of a volume. They must be exactly what [`Header::to_bytes`] writes.
    pub(in crate::bundle) fn parse(bytes: &[u8]) -> Result<(Self, u64), String> {
        let entry = tar::parse(bytes)?.filter(|entry| entry.path == HEADER_NAME);
        let entry = entry.ok_or("it does not begin as a volume does")?;
        let header: Self = framing::parse(HEADER_NAME, bytes)?;
        header.check()?;
        if header.to_bytes(entry.mtime) != bytes {
            return Err("its header is not what dray writes".to_owned());
        }
        Ok((header, entry.mtime))
    }

    /// The bytes before the part.
    pub(in crate::bundle) fn prefix_len(&self) -> u64 {
        prefix_len(self.blocks.len() as u64)
    }

    /// The bytes of the whole volume.
    pub(in crate::bundle) fn file_len(&self) -> u64 {
        self.prefix_len() + self.length + tar::END
    }

    /// The bytes of the part that belong to the head.
    pub(in crate::bundle) fn head_len(&self) -> u64 {
        self.tail.as_ref().map_or(self.length, |tail| tail.offset - self.offset)
    }

    /// The blocks with their digests: where in the part each begins, and how long it is.
    pub(in crate::bundle) fn blocks(&self) -> impl Iterator<Item = (Slice, &Digest)> {
        let head = self.head_len();
        self.blocks.iter().zip(0..).map(move |(digest, nth): (_, u64)| {
            let offset = nth * self.block_size;
            (Slice { offset, len: self.block_size.min(head - offset) }, digest)
        })
    }

    fn check(&self) -> Result<(), String> {
        if self.schema_version != VERSION {
            return Err(format!("its form has version {}; use a newer dray", self.schema_version));
        }
        let end = self.offset.checked_add(self.length).filter(|end| i64::try_from(*end).is_ok());
        let tail = self.tail.as_ref().map(|tail| tail.offset);
        let head_end = tail.or(end).unwrap_or_default();
        let consistent = (1..=MAX_VOLUMES).contains(&self.of)
            && (1..=self.of).contains(&self.number)
            && (self.number == self.of) == tail.is_some()
            && end.is_some_and(|end| end >= head_end && self.length > 0)
            && head_end >= self.offset
            && self.block_size.is_power_of_two()
            && self.block_size >= MIN_BLOCK
            && (self.offset.is_multiple_of(self.block_size) || head_end == self.offset)
            && self.blocks.len() as u64 == (head_end - self.offset).div_ceil(self.block_size)
            && self.blocks.len() as u64 <= MAX_BLOCKS
            && self.length.is_multiple_of(tar::BLOCK);
        if consistent { Ok(()) } else { Err("its header contradicts itself".to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(number: u32, of: u32, blocks: usize) -> Header {
        let name = "a-name".parse().unwrap();
        let set = SetName::new(name, u64::MAX, Digest::sha256(b"index"), 7, [0, 8192]);
        let len = 4096 * blocks as u64;
        let tail = (number == of).then(|| TailPlace { offset: 8192 + len, digest: Digest::sha256(b"tail") });
        let slice = Slice { offset: 8192, len: len + if tail.is_some() { 1024 } else { 0 } };
        Header::new(
            set,
            VolumeNumber { number, of },
            slice,
            4096,
            vec![Digest::sha256(b"block"); blocks],
            tail,
        )
    }

    #[test]
    fn what_is_written_is_read() {
        for header in [header(2, 3, 5), header(9998, 9999, 1), header(3, 3, 2), header(2, 2, 0)] {
            let bytes = header.to_bytes(1_700_000_000);
            assert_eq!(bytes.len() as u64, header.prefix_len());
            assert_eq!(starts_volume(&bytes[..512]), Some(header.prefix_len()));
            assert_eq!(Header::parse(&bytes).unwrap(), (header.clone(), 1_700_000_000));
            assert_eq!(header.blocks().map(|(slice, _)| slice.len).sum::<u64>(), header.head_len());
        }
        let most = header(1, 2, usize::try_from(MAX_BLOCKS).unwrap());
        assert!(most.to_bytes(0).len() as u64 <= MAX_HEADER_BYTES);
    }

    #[test]
    fn tar_and_sha256sum_read_it() {
        use std::io::Read as _;
        let header = header(3, 3, 2);
        let mut volume = header.to_bytes(0);
        volume.resize(usize::try_from(header.file_len()).unwrap(), 0);
        let mut archive = ::tar::Archive::new(&volume[..]);
        let mut files = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.push((entry.path().unwrap().display().to_string(), content));
        }
        assert_eq!(
            files.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            [HEADER_NAME, "dray-volume.json.sha256", PART_NAME]
        );
        let sum = format!("{}  {HEADER_NAME}\n", Digest::sha256(&files[0].1).hex());
        assert_eq!(files[1].1, sum.as_bytes());
        assert_eq!(files[2].1.len() as u64, header.length);
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let good = header(3, 3, 2).to_bytes(0);
        for at in 0..good.len() {
            for change in [0x01, 0x20, 0x80] {
                let mut bad = good.clone();
                bad[at] ^= change;
                assert!(Header::parse(&bad).is_err(), "byte {at}");
            }
            assert!(Header::parse(&good[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let broken: [fn(&mut Header); 11] = [
            |h| h.schema_version = 2,
            |h| h.number = 0,
            |h| h.number = 4,
            |h| h.of = MAX_VOLUMES + 1,
            |h| h.offset = u64::MAX,
            |h| h.length = u64::MAX - 8192,
            |h| h.length = 0,
            |h| h.block_size = 0,
            |h| h.block_size = 4097,
            |h| h.blocks.push(Digest::sha256(b"more")),
            |h| h.tail = None,
        ];
        for (nth, spoil) in broken.into_iter().enumerate() {
            let mut header = header(3, 3, 2);
            spoil(&mut header);
            assert!(header.check().is_err(), "{nth}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(json in "\\PC{0,300}", cut in 0usize..3000) {
            let mut bytes = tar::header(HEADER_NAME, json.len() as u64, 0);
            bytes.extend(json.as_bytes());
            bytes.resize(bytes.len().next_multiple_of(512) + 1536, 0);
            bytes.truncate(cut);
            prop_assert!(Header::parse(&bytes).is_err());
        }

        #[test]
        fn any_numbers_are_read_without_a_panic(numbers in any::<[u64; 5]>(), tail in any::<Option<u64>>()) {
            let mut header = header(1, 2, 3);
            let [number, of, offset, length, block_size] = numbers;
            header.number = u32::try_from(number % 20_000).unwrap();
            header.of = u32::try_from(of % 20_000).unwrap();
            (header.offset, header.length, header.block_size) = (offset, length, block_size);
            header.tail = tail.map(|offset| TailPlace { offset, digest: Digest::sha256(b"") });
            let _ = header.check();
        }
    }
}
