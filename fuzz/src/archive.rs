//! Tar archives taken apart and put together again, so that they can be made wrong in one place and right in all others.
//!
//! Written from the format (POSIX.1-2024 `pax`, GNU tar's `tar.h`) and not from the code under test.

use std::collections::BTreeMap;

use dray::oci::Digest;

/// Headers and contents are padded to this many bytes.
pub const BLOCK: usize = 512;

/// Offset and length of the fields of a header.
pub const NAME: (usize, usize) = (0, 100);
/// The permission bits.
pub const MODE: (usize, usize) = (100, 8);
/// The size of the content.
pub const SIZE: (usize, usize) = (124, 12);
/// When the content changed.
pub const MTIME: (usize, usize) = (136, 12);
/// The kind of entry, in one byte.
pub const KIND: usize = 156;
/// What a link points at.
pub const LINK: (usize, usize) = (157, 100);
/// `ustar` and the version.
pub const MAGIC: (usize, usize) = (257, 8);
/// What goes in front of the name.
pub const PREFIX: (usize, usize) = (345, 155);

/// A header of a regular file: mode 0644, owner 0, time 0.
pub fn header(name: &str, size: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    put(&mut block, NAME, name.as_bytes());
    put(&mut block, MODE, b"0000644\0");
    put(&mut block, (108, 8), b"0000000\0");
    put(&mut block, (116, 8), b"0000000\0");
    set_size(&mut block, size);
    put(&mut block, MTIME, b"00000000000\0");
    block[KIND] = b'0';
    put(&mut block, MAGIC, b"ustar\x0000");
    put(&mut block, (329, 8), b"0000000\0");
    put(&mut block, (337, 8), b"0000000\0");
    fix_checksum(&mut block);
    block
}

/// Writes `value` to a field, as much of it as fits, and zeros to the rest of the field.
pub fn put(block: &mut [u8], (at, len): (usize, usize), value: &[u8]) {
    let value = &value[..value.len().min(len)];
    block[at..at + len].fill(0);
    block[at..at + value.len()].copy_from_slice(value);
}

/// Writes a size: octal, or in base 256 where that is too short.
pub fn set_size(block: &mut [u8], size: u64) {
    if size < 1 << 33 {
        put(block, SIZE, format!("{size:011o}\0").as_bytes());
    } else {
        let mut field = [0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        field[4..].copy_from_slice(&size.to_be_bytes());
        put(block, SIZE, &field);
    }
}

/// Makes the checksum that of the other fields.
pub fn fix_checksum(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block[..BLOCK].iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// A record of an extended header, `LEN key=value\n`, where LEN counts itself.
pub fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let mut len = rest.len() + 1;
    while len != rest.len() + len.to_string().len() {
        len = rest.len() + len.to_string().len();
    }
    format!("{len}{rest}")
}

/// An entry: its headers and its content without the padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// One block, or three where an extended header comes first.
    pub header: Vec<u8>,
    /// What follows, as much of it as there is.
    pub content: Vec<u8>,
}

impl Part {
    /// A regular file.
    pub fn file(name: &str, content: impl Into<Vec<u8>>) -> Self {
        let content = content.into();
        let size = content.len() as u64;
        if name.len() <= NAME.1 {
            return Self { header: header(name, size).to_vec(), content };
        }
        let extended = Self::extension(b'x', "PaxHeaders/path", &record("path", name));
        let mut bytes = extended.to_bytes();
        bytes.extend_from_slice(&header(&name[..NAME.1], size));
        Self { header: bytes, content }
    }

    /// An entry of another kind: a link, a directory, an extended header.
    pub fn extension(kind: u8, name: &str, content: &str) -> Self {
        let mut header = header(name, content.len() as u64).to_vec();
        header[KIND] = kind;
        fix_checksum(&mut header);
        Self { header, content: content.as_bytes().to_vec() }
    }

    /// The path, from whichever header has it.
    pub fn path(&self) -> String {
        let first = &self.header[..BLOCK];
        if first[KIND] == b'x' && self.header.len() == 3 * BLOCK {
            let record = String::from_utf8_lossy(&self.header[BLOCK..2 * BLOCK]);
            return record
                .split_once("path=")
                .map_or("", |(_, path)| path)
                .trim_end_matches(['\n', '\0'])
                .into();
        }
        let name = &first[..NAME.1];
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        String::from_utf8_lossy(&name[..end]).into_owned()
    }

    /// The block that has size and kind of the content.
    pub fn main(&mut self) -> &mut [u8] {
        let at = self.header.len() - BLOCK;
        &mut self.header[at..]
    }

    /// Makes the checksums those of the other fields, and has the headers say how long the content is.
    pub fn seal(&mut self) {
        let size = self.content.len() as u64;
        set_size(self.main(), size);
        fix_checksum(self.main());
    }

    /// Headers, content and padding.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = [&self.header[..], &self.content].concat();
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }
}

/// An archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Archive {
    /// The entries, in their order.
    pub parts: Vec<Part>,
    /// What follows them: two blocks of zeros, if all is well.
    pub end: Vec<u8>,
}

impl Archive {
    /// Takes `bytes` apart. Nothing is checked; what makes no sense is left in `end`.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut parts = Vec::new();
        let mut at = 0;
        while let Some(first) = bytes.get(at..at + BLOCK) {
            if first.iter().all(|byte| *byte == 0) {
                break;
            }
            let extended = first[KIND] == b'x' && bytes.len() >= at + 3 * BLOCK;
            let headers = if extended { 3 * BLOCK } else { BLOCK };
            let header = bytes[at..at + headers].to_vec();
            let size = size_of(&header[headers - BLOCK..]).unwrap_or(0);
            let start = at + headers;
            let end = usize::try_from(size).ok().and_then(|size| start.checked_add(size));
            let end = end.unwrap_or(usize::MAX).min(bytes.len());
            parts.push(Part { header, content: bytes[start..end].to_vec() });
            at = end.next_multiple_of(BLOCK);
        }
        Self { parts, end: bytes.get(at..).unwrap_or_default().to_vec() }
    }

    /// The bytes of the archive.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.parts.iter().flat_map(Part::to_bytes).collect();
        bytes.extend_from_slice(&self.end);
        bytes
    }

    /// Where the entry `path` stands.
    pub fn position(&self, path: &str) -> Option<usize> {
        self.parts.iter().position(|part| part.path() == path)
    }

    /// The content of the entry `path`.
    pub fn content(&self, path: &str) -> Option<&[u8]> {
        self.position(path).map(|at| &self.parts[at].content[..])
    }

    /// Gives the entry at `at` another content. Where its name is its digest it gets the name that belongs to the new
    /// content, and so does every document that names it, up to `index.json`.
    pub fn replace(&mut self, at: usize, content: Vec<u8>) {
        let mut changed = BTreeMap::from([(at, content)]);
        // Documents of an archive that was changed before may name each other in a circle.
        for _ in 0..4 * self.parts.len() {
            let Some((at, content)) = changed.pop_first() else { break };
            let old = Link::of(&self.parts[at]);
            let Some(old) = old else {
                self.parts[at].content = content;
                self.parts[at].seal();
                continue;
            };
            let name = format!("blobs/sha256/{}", Digest::sha256(&content).hex());
            self.parts[at] = Part::file(&name, content);
            let Some(new) = Link::of(&self.parts[at]).filter(|new| new.digest != old.digest) else {
                continue;
            };
            for (other, part) in self.parts.iter().enumerate() {
                let content = changed.get(&other).unwrap_or(&part.content);
                if let Some(updated) = old.replaced_in(content, &new)
                    && other != at
                {
                    changed.insert(other, updated);
                }
            }
        }
    }
}

/// How documents name a content.
struct Link {
    digest: String,
    size: String,
}

impl Link {
    fn of(part: &Part) -> Option<Self> {
        let hex = part.path().strip_prefix("blobs/sha256/")?.to_owned();
        Some(Self { digest: format!("sha256:{hex}"), size: format!(r#"","size":{}"#, part.content.len()) })
    }

    /// The document `content` with the new name; none if it does not have the old one.
    fn replaced_in(&self, content: &[u8], new: &Self) -> Option<Vec<u8>> {
        let text = std::str::from_utf8(content).ok().filter(|text| text.contains(&self.digest))?;
        let sized =
            text.replace(&format!("{}{}", self.digest, self.size), &format!("{}{}", new.digest, new.size));
        Some(sized.replace(&self.digest, &new.digest).into_bytes())
    }
}

/// The size that a header states.
fn size_of(header: &[u8]) -> Option<u64> {
    let field = &header[SIZE.0..SIZE.0 + SIZE.1];
    if field[0] == 0x80 {
        return Some(u64::from_be_bytes(field[4..].try_into().ok()?));
    }
    let text = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    u64::from_str_radix(text, 8).ok()
}
