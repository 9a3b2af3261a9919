//! The one form of tar that a bundle has: regular files, mode 0644, owner 0, one time for all.
//!
//! The reader accepts exactly what the writer writes: it takes path and size from a header, writes the header again
//! and compares. Links, duplicates of fields, extended attributes, sparse entries and everything else that archives
//! can be made to say are refused by that one comparison.

/// Headers and contents are padded to this many bytes.
pub(crate) const BLOCK: u64 = 512;
/// An archive ends with this many zero bytes.
pub(crate) const END: u64 = 2 * BLOCK;
/// As many zeros as an archive ends with.
pub(super) const ZEROS: [u8; 1024] = [0; 1024];
/// Sizes from here on do not fit the octal field and are written in base 256, as GNU tar, libarchive and Go do.
const OCTAL_SIZE_LIMIT: u64 = 1 << 33;
/// The longest path that the name field of a header holds.
const NAME_LEN: usize = 100;
/// The name that the extended header of a long path is given; extracting programs never see it.
const PAX_NAME: &str = "PaxHeaders/path";

/// The bytes before a file's content: a header, and before it an extended header where the path is long.
///
/// `path` must be at most 200 ASCII bytes; only `blobs/sha512/…` is longer than a plain header can hold.
pub(crate) fn header(path: &str, size: u64, mtime: u64) -> Vec<u8> {
    if path.len() <= NAME_LEN {
        return block(path, size, mtime, b'0').to_vec();
    }
    let record = pax_record("path", path);
    let mut bytes = block(PAX_NAME, record.len() as u64, mtime, b'x').to_vec();
    bytes.extend_from_slice(record.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes.extend_from_slice(&block(&path[..NAME_LEN], size, mtime, b'0'));
    bytes
}

/// The number of bytes that `header` gives for a path.
pub(crate) fn header_len(path: &str) -> u64 {
    if path.len() <= NAME_LEN { BLOCK } else { 3 * BLOCK }
}

/// The length of a content with its padding.
pub(crate) fn padded(size: u64) -> Option<u64> {
    size.checked_next_multiple_of(BLOCK)
}

/// `LEN key=value\n`, where LEN counts itself.
fn pax_record(key: &str, value: &str) -> String {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    format!("{len} {key}={value}\n")
}

fn block(name: &str, size: u64, mtime: u64, kind: u8) -> [u8; 512] {
    let mut block = [0u8; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    if size < OCTAL_SIZE_LIMIT {
        put(124, format!("{size:011o}\0").as_bytes());
    } else {
        put(124, &[0x80, 0, 0, 0]);
        put(128, &size.to_be_bytes());
    }
    put(136, format!("{:011o}\0", mtime.min(OCTAL_SIZE_LIMIT - 1)).as_bytes());
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    put(329, b"0000000\0");
    put(337, b"0000000\0");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// What a header says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) path: String,
    pub(super) size: u64,
    pub(super) mtime: u64,
    /// The length of the header itself.
    pub(super) len: u64,
}

/// Reads the header at the start of `bytes`, which holds at least three blocks or all that is left of the file.
///
/// Gives nothing where the archive ends, and an error for everything that `header` would not have written.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Header>, &'static str> {
    let first = bytes.get(..512).ok_or("the archive ends in the middle of a header")?;
    if first.iter().all(|b| *b == 0) {
        return Ok(None);
    }
    let mtime = octal(&first[136..147]).ok_or("not a time")?;
    let parsed = if first[156] == b'x' {
        let size =
            octal(&first[124..135]).filter(|size| *size <= 512).ok_or("an extended header of no use here")?;
        let record = bytes.get(512..).and_then(|rest| rest.get(..usize::try_from(size).ok()?));
        let record = record.ok_or("the archive ends in the middle of a header")?;
        let path = std::str::from_utf8(record)
            .ok()
            .and_then(|record| record.split_once("path=")?.1.strip_suffix('\n'))
            .filter(|path| is_plain(path) && (NAME_LEN + 1..=200).contains(&path.len()))
            .ok_or("an extended header of no use here")?;
        let main = bytes.get(1024..1536).ok_or("the archive ends in the middle of a header")?;
        Header { path: path.to_owned(), size: size_field(main)?, mtime, len: 3 * BLOCK }
    } else {
        let end = first[..NAME_LEN].iter().position(|b| *b == 0).unwrap_or(NAME_LEN);
        let path =
            std::str::from_utf8(&first[..end]).ok().filter(|path| is_plain(path)).ok_or("not a path")?;
        Header { path: path.to_owned(), size: size_field(first)?, mtime, len: BLOCK }
    };
    let expected = header(&parsed.path, parsed.size, parsed.mtime);
    if bytes.get(..expected.len()) != Some(&expected[..]) {
        return Err("a header that dray does not write");
    }
    Ok(Some(parsed))
}

/// Whether a path has nothing but visible ASCII: a line feed would end a record of an extended header for some readers and
/// not for others.
fn is_plain(path: &str) -> bool {
    path.bytes().all(|byte| byte.is_ascii_graphic())
}

fn size_field(block: &[u8]) -> Result<u64, &'static str> {
    if block[124] == 0x80 {
        let bytes: [u8; 8] = block[128..136].try_into().expect("eight bytes");
        Ok(u64::from_be_bytes(bytes))
    } else {
        octal(&block[124..135]).ok_or("not a size")
    }
}

fn octal(bytes: &[u8]) -> Option<u64> {
    let text =
        std::str::from_utf8(bytes).ok().filter(|text| text.bytes().all(|b| (b'0'..=b'7').contains(&b)))?;
    u64::from_str_radix(text, 8).ok()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    fn sha512_path() -> String {
        format!("blobs/sha512/{}", "ab".repeat(64))
    }

    #[test]
    fn tar_reads_what_is_written() {
        let mut archive = Vec::new();
        let files = [("index.json".to_owned(), 5), (sha512_path(), 700), ("oci-layout".to_owned(), 0)];
        for (path, size) in &files {
            archive.extend(header(path, *size, 1_700_000_000));
            archive.resize(archive.len() + usize::try_from(padded(*size).unwrap()).unwrap(), b'x');
        }
        archive.resize(archive.len() + 1024, 0);
        let mut reader = ::tar::Archive::new(&archive[..]);
        let read: Vec<(String, u64)> = reader
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                assert_eq!(entry.header().mode().unwrap(), 0o644);
                assert_eq!(entry.header().mtime().unwrap(), 1_700_000_000);
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                (entry.path().unwrap().to_str().unwrap().to_owned(), content.len() as u64)
            })
            .collect();
        assert_eq!(read, files);
    }

    #[test]
    fn sizes_beyond_octal_are_understood_by_tar() {
        let bytes = header("blobs/x", 20 << 30, 0);
        let mut theirs = ::tar::Header::new_ustar();
        theirs.as_mut_bytes().copy_from_slice(&bytes);
        assert_eq!(theirs.size().unwrap(), 20 << 30);
        assert_eq!(parse(&bytes).unwrap().unwrap().size, 20 << 30);
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        for path in ["index.json".to_owned(), sha512_path()] {
            let good = header(&path, 7, 0);
            let meant = parse(&good).unwrap().unwrap();
            for at in 0..good.len() {
                for bit in 0..8 {
                    let mut bad = good.clone();
                    bad[at] ^= 1 << bit;
                    // The end of a long path has no checksum: there a flip names another file, which the plan of
                    // the bundle does not have.
                    let noticed = parse(&bad).is_err() || parse(&bad).unwrap().unwrap().path != meant.path;
                    assert!(noticed, "{path}: byte {at}, bit {bit}");
                }
            }
        }
    }

    #[test]
    fn refuses_other_kinds_of_entries() {
        for kind in [b'1', b'2', b'5', b'g', b'L', b'S', 0] {
            assert!(parse(&block("index.json", 0, 0, kind)).is_err(), "{kind}");
        }
        assert!(parse(&[0u8; 100]).is_err());
        assert_eq!(parse(&[0u8; 1024]).unwrap(), None);
    }

    proptest! {
        #[test]
        fn never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..2000), kind in any::<u8>()) {
            if let Some(b) = bytes.get_mut(156) { *b = kind; }
            let _ = parse(&bytes);
        }

        #[test]
        fn what_it_writes_it_reads(path in "[a-z0-9/-]{1,200}", size in any::<u64>(), mtime in 0u64..1 << 33) {
            let bytes = header(&path, size, mtime);
            prop_assert_eq!(bytes.len() as u64, header_len(&path));
            let len = header_len(&path);
            prop_assert_eq!(parse(&bytes).unwrap(), Some(Header { path, size, mtime, len }));
        }
    }
}
