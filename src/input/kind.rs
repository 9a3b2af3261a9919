//! What a file is, by its first bytes.

use std::fmt;

/// How many bytes of a file [`FileKind::of`] looks at.
const LOOKED_AT: usize = 1024;
/// Where the magic of a tar header lies (POSIX.1-2017, `pax`, "ustar Interchange Format").
const USTAR: std::ops::Range<usize> = 257..262;
/// Where the kind of an entry lies in a tar header.
const TAR_TYPE: usize = 156;
/// Where the checksum lies in a tar header.
const CHECKSUM: std::ops::Range<usize> = 148..156;

/// How files begin that can be told by it.
const MAGIC: [(&[u8], FileKind); 22] = [
    (b"\x1f\x8b", FileKind::Compressed("gzip")),
    (b"\x28\xb5\x2f\xfd", FileKind::Compressed("zstd")),
    (b"\xfd7zXZ\0", FileKind::Compressed("xz")),
    (b"BZh", FileKind::Compressed("bzip2")),
    (b"\x04\x22\x4d\x18", FileKind::Compressed("lz4")),
    (b"PK\x03\x04", FileKind::Archive("a zip archive")),
    (b"PK\x05\x06", FileKind::Archive("an empty zip archive")),
    (b"7z\xbc\xaf\x27\x1c", FileKind::Archive("a 7-Zip archive")),
    (b"Rar!\x1a\x07", FileKind::Archive("a RAR archive")),
    (b"MSCF", FileKind::Archive("a cabinet archive")),
    (b"!<arch>\n", FileKind::Archive("a Debian package or a library")),
    (b"\xed\xab\xee\xdb", FileKind::Archive("an RPM package")),
    (b"\x7fELF", FileKind::Program("Linux")),
    (b"MZ", FileKind::Program("Windows")),
    (b"\xcf\xfa\xed\xfe", FileKind::Program("macOS")),
    (b"%PDF-", FileKind::Document("a PDF document")),
    (b"\x89PNG\r\n", FileKind::Document("a PNG picture")),
    (b"\xff\xd8\xff", FileKind::Document("a JPEG picture")),
    (b"\xd0\xcf\x11\xe0", FileKind::Document("a document of an older Microsoft Office")),
    (b"SQLite format 3\0", FileKind::Document("an SQLite database")),
    (b"\xff\xfe\0\0", FileKind::Utf32),
    (b"\0\0\xfe\xff", FileKind::Utf32),
];

/// What the first bytes of a file say that it is.
///
/// [`fmt::Display`] gives words that follow "is": "compressed with gzip", "a zip archive".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Compressed, with the program named.
    Compressed(&'static str),
    /// An archive of a kind that holds several files, with its article.
    Archive(&'static str),
    /// A tar archive that begins as a bundle does: with a blob, and no directory before it.
    Bundle,
    /// A tar archive with an OCI image layout that is not made by this program.
    OciArchive,
    /// A tar archive as `docker save` writes it.
    DockerArchive,
    /// A volume of a bundle.
    Volume,
    /// A recovery file of a bundle.
    Recovery,
    /// A program, with the system that it is for.
    Program(&'static str),
    /// A document, picture or database, with its article.
    Document(&'static str),
    /// A certificate or key in DER form.
    Der,
    /// Text in UTF-32.
    Utf32,
    /// A page of HTML, which is what many servers send in place of a file.
    Html,
    /// A certificate or key in PEM form.
    Pem,
    /// JSON.
    Json,
    /// Other text.
    Text,
    /// An empty file.
    Empty,
}

impl FileKind {
    /// Recognises a file by its first bytes, of which a kilobyte is enough.
    ///
    /// Returns `None` for everything that is not known.
    pub fn of(start: &[u8]) -> Option<Self> {
        let start = &start[..start.len().min(LOOKED_AT)];
        if start.is_empty() {
            return Some(Self::Empty);
        }
        let magic = MAGIC.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, kind)| *kind);
        magic.or_else(|| tar(start)).or_else(|| der(start)).or_else(|| text(start))
    }

    /// Returns whether a text reader can use the file, if it is one of the text that it reads.
    pub fn is_text(self) -> bool {
        match self {
            Self::Pem | Self::Json | Self::Text | Self::Empty => true,
            Self::Compressed(_)
            | Self::Archive(_)
            | Self::Bundle
            | Self::OciArchive
            | Self::DockerArchive
            | Self::Volume
            | Self::Recovery
            | Self::Program(_)
            | Self::Document(_)
            | Self::Der
            | Self::Utf32
            | Self::Html => false,
        }
    }

    /// Returns what to do with a file of this kind before it can be used.
    pub fn hint(self) -> Option<&'static str> {
        match self {
            Self::Compressed(_) => Some("decompress it first"),
            Self::Archive(_) => Some("unpack it first"),
            Self::Html => {
                Some("a server sent a page in place of the file, often one to log in; fetch it again")
            }
            Self::Utf32 => Some("save it as UTF-8"),
            Self::Der => Some("convert it to PEM: `openssl x509 -inform der` or `openssl pkey -inform der`"),
            Self::Empty
            | Self::Bundle
            | Self::OciArchive
            | Self::DockerArchive
            | Self::Volume
            | Self::Recovery
            | Self::Program(_)
            | Self::Document(_)
            | Self::Pem
            | Self::Json
            | Self::Text => None,
        }
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compressed(program) => write!(f, "compressed with {program}"),
            Self::Archive(what) | Self::Document(what) => f.write_str(what),
            Self::Bundle => f.write_str("a bundle or another OCI archive"),
            Self::OciArchive => f.write_str("an OCI archive that dray has not made"),
            Self::DockerArchive => f.write_str("an archive of `docker save`"),
            Self::Volume => f.write_str("a volume of a bundle"),
            Self::Recovery => f.write_str("a recovery file of a bundle"),
            Self::Program(system) => write!(f, "a program for {system}"),
            Self::Der => f.write_str("in DER form"),
            Self::Utf32 => f.write_str("text in UTF-32"),
            Self::Html => f.write_str("a page of HTML"),
            Self::Pem => f.write_str("a certificate or key in PEM form"),
            Self::Json => f.write_str("JSON"),
            Self::Text => f.write_str("text"),
            Self::Empty => f.write_str("empty"),
        }
    }
}

/// Recognises a tar archive, and what is in it by the path of its first entry.
fn tar(start: &[u8]) -> Option<FileKind> {
    // A header that is damaged says nothing: its file may be a bundle with a flipped bit.
    if start.get(USTAR)? != b"ustar" || !has_its_checksum(start.get(..512)?) {
        return None;
    }
    // The first entry of an archive in pax form is a record, which the path of the real one follows.
    let path = match start[TAR_TYPE] {
        b'x' | b'g' => start.get(512..)?.split(|byte| *byte == b'\n').find_map(|line| {
            let at = line.windows(5).position(|window| window == b"path=")?;
            Some(&line[at + 5..])
        }),
        _ => start[..100].split(|byte| *byte == 0).next(),
    };
    let path = String::from_utf8_lossy(path.unwrap_or_default());
    let path = path.strip_prefix("./").unwrap_or(&path);
    let is_image = |name: &str| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_blob =
        matches!(start[TAR_TYPE], b'0' | 0 | b'x') && path.starts_with("blobs/sha") && !path.ends_with('/');
    Some(match path.split('/').next().unwrap_or_default() {
        "dray-volume.json" => FileKind::Volume,
        "dray-parity.json" => FileKind::Recovery,
        "blobs" if is_blob => FileKind::Bundle,
        "blobs" | "oci-layout" | "index.json" => FileKind::OciArchive,
        "manifest.json" | "repositories" => FileKind::DockerArchive,
        name if is_image(name.strip_suffix(".json").unwrap_or(name)) => FileKind::DockerArchive,
        // Nothing guards the bytes of a pax record.
        _ if matches!(start[TAR_TYPE], b'x' | b'g') => return None,
        _ => FileKind::Archive("a tar archive"),
    })
}

/// Returns whether a tar header adds up to the checksum in it, which counts itself as blanks (POSIX.1-2017, `pax`).
fn has_its_checksum(header: &[u8]) -> bool {
    let counted = |(at, byte): (usize, &u8)| u32::from(if CHECKSUM.contains(&at) { b' ' } else { *byte });
    let digits = header[CHECKSUM].split(|byte| matches!(byte, b' ' | 0)).find(|part| !part.is_empty());
    let stated = digits.and_then(|digits| str::from_utf8(digits).ok());
    stated.and_then(|text| u32::from_str_radix(text, 8).ok())
        == Some(header.iter().enumerate().map(counted).sum())
}

/// Recognises a certificate or key in DER: a sequence with a length of two bytes, and a sequence or number in it.
fn der(start: &[u8]) -> Option<FileKind> {
    match start {
        [0x30, 0x82, _, _, 0x30 | 0x02, ..] | [0x30, 0x81, _, 0x30 | 0x02, ..] => Some(FileKind::Der),
        [0x30, len, 0x30 | 0x02, ..] if *len < 0x80 && start.len() == usize::from(*len) + 2 => {
            Some(FileKind::Der)
        }
        _ => None,
    }
}

/// Recognises text, and some kinds of it.
fn text(start: &[u8]) -> Option<FileKind> {
    let is_text = match str::from_utf8(start) {
        Ok(text) => !text.contains('\0'),
        // The last character may be cut.
        Err(error) => error.error_len().is_none() && !start.contains(&0),
    } || matches!(start, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]);
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
    let begins =
        |with: &str| start.get(..with.len()).is_some_and(|it| it.eq_ignore_ascii_case(with.as_bytes()));
    match start {
        _ if begins("<!doctype html") || begins("<html") => Some(FileKind::Html),
        _ if begins("-----begin ") => Some(FileKind::Pem),
        // The beginning of a bundle, cut off before the first zero.
        _ if !is_text || start.starts_with(b"blobs/sha") || b"blobs/sha".starts_with(start) => None,
        [b'{', ..] | [b'[', b'{' | b'"' | b'[' | b'\n' | b'\r' | b' ', ..] => Some(FileKind::Json),
        _ => Some(FileKind::Text),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn archive(path: &str) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(2);
        builder.append_data(&mut header, path, &b"{}"[..]).unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn archives_are_known_by_their_first_entry() {
        let hex = "0".repeat(64);
        for (path, expected) in [
            (format!("blobs/sha256/{hex}"), FileKind::Bundle),
            ("blobs/".into(), FileKind::OciArchive),
            ("./oci-layout".into(), FileKind::OciArchive),
            ("dray-volume.json".into(), FileKind::Volume),
            ("dray-parity.json".into(), FileKind::Recovery),
            ("manifest.json".into(), FileKind::DockerArchive),
            (format!("{hex}.json"), FileKind::DockerArchive),
            (format!("{hex}/layer.tar"), FileKind::DockerArchive),
            ("etc/passwd".into(), FileKind::Archive("a tar archive")),
        ] {
            assert_eq!(FileKind::of(&archive(&path)), Some(expected), "{path}");
        }
    }

    #[test]
    fn texts_are_not_taken_for_something_else() {
        for (start, expected) in [
            (&b"apiVersion: dray.dev/v1alpha1\n"[..], Some(FileKind::Text)),
            (b"# MZ\n", Some(FileKind::Text)),
            (b"[section]\nkey = 1\n", Some(FileKind::Text)),
            (b"\x01\x02\xff\0", None),
            (b"\xef\xbb\xbf {\"a\":1}", Some(FileKind::Json)),
            (b"\r\n<!DOCTYPE HTML><html>", Some(FileKind::Html)),
            (b"-----BEGIN PUBLIC KEY-----", Some(FileKind::Pem)),
            (b"", Some(FileKind::Empty)),
            (b"0\x82\x01\x0a\x30\x82", Some(FileKind::Der)),
            (b"\xff\xfea\0", Some(FileKind::Text)),
        ] {
            assert_eq!(FileKind::of(start), expected, "{}", start.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_kind_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..1100)) {
            let _ = FileKind::of(&bytes);
        }
    }
}
