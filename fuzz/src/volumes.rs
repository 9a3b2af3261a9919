//! Bundles in volumes and their recovery files, taken apart and put together again, so that they can be made to lie.
//!
//! Written from the description of the form (`docs/bundle.md`) and not from the code under test.

use std::collections::BTreeMap;

use dray::oci::Digest;
use serde::{Deserialize, Serialize};

use super::archive::{Archive, BLOCK, Part};

/// The bytes of a block of the sample.
pub const BLOCK_SIZE: usize = 4096;
/// The name of what a volume says of itself.
const VOLUME: &str = "dray-volume.json";
/// The name of what a recovery file says.
const PARITY: &str = "dray-parity.json";

/// What volumes and recovery files say that they belong to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetName {
    /// Stands for the bundle and the places where it is cut.
    pub id: String,
    /// The name of the bundle.
    pub name: String,
    /// Its sequence number.
    pub sequence: u64,
    /// The digest of its index.
    pub digest: String,
}

impl SetName {
    /// The name of the volumes of this bundle that begin at `starts`.
    pub fn new(name: &str, sequence: u64, digest: &Digest, starts: &[u64]) -> Self {
        let mut set = Self { id: String::new(), name: name.into(), sequence, digest: digest.to_string() };
        set.seal(0, starts);
        set
    }

    /// Makes the identity the one of what the rest says.
    fn seal(&mut self, mtime: u64, starts: &[u64]) {
        let starts: Vec<String> = starts.iter().map(u64::to_string).chain([String::new()]).collect();
        let text = format!("dray-volumes 1\n{}\n{mtime}\n{}", self.digest, starts.join("\n"));
        self.id = Digest::sha256(text.as_bytes()).to_string();
    }
}

/// What a volume says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    schema_version: u64,
    /// What it belongs to.
    pub set: SetName,
    /// Counts the volumes from 1.
    pub number: u64,
    of: u64,
    offset: u64,
    length: u64,
    block_size: u64,
    blocks: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tail: Option<Tail>,
}

/// Where the last volume has the tail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Tail {
    offset: u64,
    digest: String,
}

/// What a recovery file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recovery {
    schema_version: u64,
    number: u64,
    layout: Layout,
}

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layout {
    set: SetName,
    mtime: u64,
    volumes: Vec<u64>,
    head: u64,
    block_size: u64,
    blocks: Vec<String>,
    recovery: Vec<String>,
    files: Vec<u64>,
}

/// What either of them says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Description {
    /// A volume.
    Volume(Volume),
    /// A recovery file.
    Recovery(Recovery),
}

impl Description {
    /// What the file `archive` says of itself.
    pub fn of(archive: &Archive) -> Option<Self> {
        let json = |name| archive.content(name);
        let volume = json(VOLUME).and_then(|json| serde_json::from_slice(json).ok()).map(Self::Volume);
        volume.or_else(|| json(PARITY).and_then(|json| serde_json::from_slice(json).ok()).map(Self::Recovery))
    }

    /// Has `archive` say this, with the digest that belongs to it, wherever it says what it is.
    pub fn put_into(&self, archive: &mut Archive) {
        let parts = self.parts();
        for part in &mut archive.parts {
            if let Some(new) = parts.iter().find(|new| new.path() == part.path()) {
                *part = new.clone();
            }
        }
    }

    fn parts(&self) -> [Part; 2] {
        match self {
            Self::Volume(volume) => described(VOLUME, volume, 74 * volume.blocks.len()),
            Self::Recovery(recovery) => {
                let Layout { volumes, blocks, recovery: made, files, .. } = &recovery.layout;
                let lists = 74 * (blocks.len() + made.len()) + 21 * (volumes.len() + files.len());
                described(PARITY, recovery, lists)
            }
        }
    }

    /// What it says that it belongs to.
    pub fn set(&mut self) -> &mut SetName {
        match self {
            Self::Volume(volume) => &mut volume.set,
            Self::Recovery(recovery) => &mut recovery.layout.set,
        }
    }

    /// Every number.
    pub fn numbers(&mut self) -> Vec<&mut u64> {
        match self {
            Self::Volume(Volume {
                schema_version,
                set,
                number,
                of,
                offset,
                length,
                block_size,
                tail,
                ..
            }) => {
                let tail = tail.iter_mut().map(|tail| &mut tail.offset);
                [offset, length, number, of, block_size, &mut set.sequence, schema_version]
                    .into_iter()
                    .chain(tail)
                    .collect()
            }
            Self::Recovery(Recovery { schema_version, number, layout }) => {
                let Layout { set, mtime, volumes, head, block_size, files, .. } = layout;
                [number, head, block_size, mtime, &mut set.sequence, schema_version]
                    .into_iter()
                    .chain(volumes)
                    .chain(files)
                    .collect()
            }
        }
    }

    /// Every list of digests.
    pub fn digests(&mut self) -> Vec<&mut Vec<String>> {
        match self {
            Self::Volume(volume) => vec![&mut volume.blocks],
            Self::Recovery(recovery) => vec![&mut recovery.layout.blocks, &mut recovery.layout.recovery],
        }
    }

    /// Every list of places.
    pub fn places(&mut self) -> Vec<&mut Vec<u64>> {
        match self {
            Self::Volume(_) => Vec::new(),
            Self::Recovery(recovery) => vec![&mut recovery.layout.volumes, &mut recovery.layout.files],
        }
    }

    /// Has all digests be those of what `archive` holds, and the identity that of the places, where these are known.
    pub fn seal(&mut self, archive: &Archive) {
        let sums = |content: &[u8], size: u64| {
            let size = usize::try_from(size).unwrap_or(usize::MAX).max(1);
            content.chunks(size).map(|block| Digest::sha256(block).to_string()).collect::<Vec<_>>()
        };
        match self {
            Self::Volume(volume) => {
                let content = archive.content("bundle.part").unwrap_or_default();
                let head = volume.tail.as_ref().map_or(content.len(), |tail| {
                    let head = tail.offset.saturating_sub(volume.offset);
                    usize::try_from(head).unwrap_or(usize::MAX).min(content.len())
                });
                let (head, rest) = content.split_at(head);
                volume.blocks = sums(head, volume.block_size);
                if let Some(tail) = &mut volume.tail {
                    tail.digest = Digest::sha256(rest).to_string();
                }
                volume.length = content.len() as u64;
            }
            Self::Recovery(recovery) => {
                let content = archive.content("parity.part").unwrap_or_default();
                let layout = &mut recovery.layout;
                let first = layout.files.get(usize::try_from(recovery.number).unwrap_or(0).wrapping_sub(1));
                let first = first.map_or(0, |first| usize::try_from(*first).unwrap_or(usize::MAX));
                let known = layout.recovery.iter_mut().skip(first);
                known.zip(sums(content, layout.block_size)).for_each(|(digest, found)| *digest = found);
                layout.set.seal(layout.mtime, &layout.volumes);
            }
        }
    }
}

/// A description that has room for so many bytes of lists, and its digest.
fn described(name: &str, description: &impl Serialize, lists: usize) -> [Part; 2] {
    let mut json = serde_json::to_vec(description).expect("it has nothing that JSON cannot hold");
    json.resize((1536 + lists).next_multiple_of(BLOCK) - 1, b' ');
    json.push(b'\n');
    let sum = sum_of(name, &json);
    [Part::file(name, json), sum]
}

/// The digest of the file `name`, as `sha256sum` writes it.
fn sum_of(name: &str, content: &[u8]) -> Part {
    let sum = format!("{}  {name}\n", Digest::sha256(content).hex());
    Part::file(&format!("{name}.sha256"), sum)
}

/// The end of an archive.
fn no_more() -> Vec<u8> {
    vec![0; 2 * BLOCK]
}

/// A bundle that is cut and protected.
pub struct Cut<'a> {
    /// The name of the bundle.
    pub name: &'a str,
    /// Its sequence number.
    pub sequence: u64,
    /// The digest of its index.
    pub index: &'a Digest,
    /// The whole bundle.
    pub bytes: &'a [u8],
    /// The length of its head.
    pub head: usize,
}

impl Cut<'_> {
    /// The volumes that begin at `starts`.
    pub fn volumes(&self, starts: &[u64]) -> Vec<Archive> {
        let set = SetName::new(self.name, self.sequence, self.index, starts);
        let of = starts.len() as u64;
        let ends = starts.iter().skip(1).copied().chain([self.bytes.len() as u64]);
        let volumes = starts.iter().zip(ends).zip(1..).map(|((start, end), number)| {
            let place = |at: u64| usize::try_from(at).expect("the sample is small");
            let part = Part::file("bundle.part", &self.bytes[place(*start)..place(end)]);
            let tail = Tail { offset: self.head as u64, digest: String::new() };
            let volume = Volume {
                schema_version: 1,
                set: set.clone(),
                number,
                of,
                offset: *start,
                length: 0,
                block_size: BLOCK_SIZE as u64,
                blocks: Vec::new(),
                tail: (number == of).then_some(tail),
            };
            let mut archive = Archive { parts: vec![part], end: no_more() };
            let mut description = Description::Volume(volume);
            description.seal(&archive);
            archive.parts.splice(0..0, description.parts());
            archive
        });
        volumes.collect()
    }

    /// Recovery files with `made` recovery blocks in all, which begin with the blocks `files`. `starts` are those of the
    /// volumes; none for a bundle in one file.
    pub fn recovery(&self, starts: &[u64], made: usize, files: &[u64]) -> Vec<Archive> {
        let (head, tail) = self.bytes.split_at(self.head);
        let blocks: Vec<Vec<u8>> = head
            .chunks(BLOCK_SIZE)
            .map(|block| [block, &vec![0; BLOCK_SIZE - block.len()]].concat())
            .collect();
        let recovery =
            reed_solomon_simd::encode(blocks.len(), made, &blocks).expect("a few blocks of the same size");
        let sums =
            |blocks: &mut dyn Iterator<Item = &[u8]>| blocks.map(|b| Digest::sha256(b).to_string()).collect();
        let layout = Layout {
            set: SetName::new(self.name, self.sequence, self.index, starts),
            mtime: 0,
            volumes: starts.to_vec(),
            head: head.len() as u64,
            block_size: BLOCK_SIZE as u64,
            blocks: sums(&mut head.chunks(BLOCK_SIZE)),
            recovery: sums(&mut recovery.iter().map(|block| &block[..])),
            files: files.to_vec(),
        };
        let ends = files.iter().skip(1).copied().chain([made as u64]);
        let archives = files.iter().zip(ends).zip(1..).map(|((first, end), number)| {
            let place = |at: u64| usize::try_from(at).expect("there are few blocks");
            let part = Part::file("parity.part", recovery[place(*first)..place(end)].concat());
            let description =
                Description::Recovery(Recovery { schema_version: 1, number, layout: layout.clone() });
            let [json, sum] = description.parts();
            let tail = [sum_of("bundle.tail", tail), Part::file("bundle.tail", tail)];
            let parts = [json.clone(), sum.clone(), part, json, sum].into_iter().chain(tail).collect();
            Archive { parts, end: no_more() }
        });
        archives.collect()
    }
}

/// Files by their names, as an archive holds them. What has no name that is harmless in a folder is left out.
pub fn files(data: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let harmless = |name: &str| {
        let plain =
            name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'.');
        plain && !name.starts_with('.') && (1..40).contains(&name.len())
    };
    let parts = Archive::parse(data).parts.into_iter().take(16);
    parts.map(|part| (part.path(), part.content)).filter(|(name, _)| harmless(name)).collect()
}

/// An archive of files.
pub fn archive_of<'a>(files: impl IntoIterator<Item = (&'a str, Vec<u8>)>) -> Archive {
    let parts = files.into_iter().map(|(name, content)| Part::file(name, content)).collect();
    Archive { parts, end: no_more() }
}
