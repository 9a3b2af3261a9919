//! Where things lie in a store, and how names become file names.
//!
//! ```text
//! store.json                                        marks the directory as a store: the layout's version, the store's identity
//! blobs/<algorithm>/<first two hex>/<hex>           content, manifests included; immutable
//! repositories/<name>/tags/<tag>.json               descriptor of what the tag points at; `pinned` if only pinned references
//!                                                   (`:tag@digest`) have set it
//! repositories/<name>/disputed/<tag>                empty; pinned references to the tag disagree, so it means nothing
//! repositories/<name>/manifests/<algorithm>-<hex>.json              media type, size, subject
//! repositories/<name>/blobs/<algorithm>-<hex>       this repository has the blob; one byte long when a push counts on it
//! repositories/<name>/referrers/<algorithm>-<hex of the subject>/<algorithm>-<hex>.json   descriptor
//! files/<path>/<host>.json                          plain file with that address upstream: repository, digest, size
//! imports/<writer>/<number>-<hex>.json              receipt: what happened, and the digest of the one before; <hex> is its own
//! imports/<writer>/<number>-<hex>.sig               its signature in DER, where the site signs receipts
//! imports/<number>.json, imports/<number>.sig       receipts of layout 1; the chain of the store's own id continues them
//! publish.json                                      tags in the middle of being published together
//! batch.json                                        files in the middle of being added, before that
//! wants.json                                        what was asked for in vain, kept by the registry
//! lock, lock.holder, lock.turn                      one writer at a time, who that is, and who is next
//! damaged/<algorithm>-<hex>                         content that a scrub found damaged
//! tmp/, uploads/                                    files on their way in
//! ```

use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::oci::{Digest, RepositoryName, Tag};

use super::id::UploadId;

/// File names that Windows gives to devices, whatever their extension.
///
/// Source: Microsoft, "Naming Files, Paths, and Namespaces".
const RESERVED: [&str; 4] = ["con", "prn", "aux", "nul"];
/// The same, when followed by one digit.
const RESERVED_NUMBERED: [&str; 2] = ["com", "lpt"];
/// The longest file name that common file systems take, less the extension that is added here.
const MAX_FILE_NAME: usize = 255 - ".json".len();

/// The paths of a store.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn marker(&self) -> PathBuf {
        self.root.join("store.json")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(super) fn turn(&self) -> PathBuf {
        self.root.join("lock.turn")
    }

    pub(super) fn lock_holder(&self) -> PathBuf {
        self.root.join("lock.holder")
    }

    pub(super) fn publication(&self) -> PathBuf {
        self.root.join("publish.json")
    }

    pub(super) fn batch(&self) -> PathBuf {
        self.root.join("batch.json")
    }

    pub(super) fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        let mut path = self.blobs();
        path.extend([digest.algorithm().name(), &digest.hex()[..2], digest.hex()]);
        path
    }

    pub(super) fn imports(&self) -> PathBuf {
        self.root.join("imports")
    }

    /// The directory of the plain files whose addresses have this path. A path that no file name can hold is known by
    /// its hash; escaped names have no `~`.
    pub(super) fn files(&self, path: &str) -> PathBuf {
        let name = escape(path).unwrap_or_else(|| format!("~{}", Digest::sha256(path.as_bytes()).hex()));
        self.root.join("files").join(name)
    }

    /// The record of the plain file with this address; none when no file name can hold the host.
    pub(super) fn file(&self, host: &str, path: &str) -> Option<PathBuf> {
        Some(self.files(path).join(escape(host)? + ".json"))
    }

    /// Where content goes that turned out damaged.
    pub(super) fn damaged(&self, digest: &Digest) -> PathBuf {
        self.root.join("damaged").join(digest_file(digest))
    }

    pub(super) fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    pub(super) fn upload(&self, id: &UploadId) -> PathBuf {
        self.uploads().join(id.as_str())
    }

    pub(super) fn repositories(&self) -> PathBuf {
        self.root.join("repositories")
    }

    /// The directory of a repository; none when no file name can hold the name.
    pub(super) fn repository(&self, name: &RepositoryName) -> Option<Repository> {
        Some(Repository { root: self.repositories().join(escape(name.as_str())?) })
    }
}

/// The paths of one repository in a store.
#[derive(Clone, Debug)]
pub(super) struct Repository {
    root: PathBuf,
}

impl Repository {
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn tags(&self) -> PathBuf {
        self.root.join("tags")
    }

    pub(super) fn tag(&self, tag: &Tag) -> PathBuf {
        // A tag has at most 128 characters; escaped they stay far below the limit of a file name.
        let file = escape(tag.as_str()).unwrap_or_default();
        self.tags().join(file + ".json")
    }

    pub(super) fn disputed_tags(&self) -> PathBuf {
        self.root.join("disputed")
    }

    /// The mark of a tag to which pinned references disagree.
    pub(super) fn disputed_tag(&self, tag: &Tag) -> PathBuf {
        self.disputed_tags().join(escape(tag.as_str()).unwrap_or_default())
    }

    pub(super) fn manifests(&self) -> PathBuf {
        self.root.join("manifests")
    }

    pub(super) fn manifest(&self, digest: &Digest) -> PathBuf {
        self.manifests().join(digest_file(digest) + ".json")
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest_file(digest))
    }

    pub(super) fn referrers(&self, subject: &Digest) -> PathBuf {
        self.root.join("referrers").join(digest_file(subject))
    }

    pub(super) fn referrer(&self, subject: &Digest, digest: &Digest) -> PathBuf {
        self.referrers(subject).join(digest_file(digest) + ".json")
    }
}

/// The digest as a file name; Windows has no colons in them.
fn digest_file(digest: &Digest) -> String {
    [digest.algorithm().name(), "-", digest.hex()].concat()
}

/// The digest that a file name stands for.
pub(super) fn parse_digest_file(file: &str) -> Option<Digest> {
    let (algorithm, hex) = file.split_once('-')?;
    format!("{algorithm}:{hex}").parse().ok()
}

/// The file name for a repository name or a tag; none when it would be too long.
///
/// Different texts have file names that differ on every file system, also where upper and lower case are the same; no
/// file name is `.` or `..`, contains a separator, starts with a dot or belongs to a device. Lower-case letters, digits,
/// `.`, `_` and `-` stand for themselves and `+` for a slash, so that people can read them. Capitals become small
/// letters, and a bit mask after `^` tells which ones they were.
pub(super) fn escape(text: &str) -> Option<String> {
    let mut name = String::with_capacity(text.len() + 8);
    let device = is_device(text);
    let mut mask = Mask::default();
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'.' if index == 0 => name.push_str("%2e"),
            b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' if !(device && index == 0) => {
                name.push(char::from(byte));
            }
            b'/' => name.push('+'),
            b'A'..=b'Z' if !device || index > 0 => {
                name.push(char::from(byte.to_ascii_lowercase()));
                mask.set(index);
            }
            other => name.extend(['%', hex_digit(other >> 4), hex_digit(other & 15)]),
        }
    }
    name.push_str(&mask.finish());
    // What ends in a dot loses it on Windows; an empty mask keeps it away from the end.
    if name.ends_with('.') {
        name.push('^');
    }
    (!name.is_empty() && name.len() <= MAX_FILE_NAME).then_some(name)
}

/// What [`escape`] made a file name from; none when it cannot have made it.
pub(super) fn unescape(file: &str) -> Option<String> {
    let (name, mask) = file.split_once('^').unwrap_or((file, ""));
    let mut text = Vec::with_capacity(name.len());
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        text.push(match byte {
            b'+' => b'/',
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    for (place, digit) in mask.chars().enumerate() {
        let bits = digit.to_digit(16)?;
        for bit in (0..4).filter(|bit| bits & (1 << bit) != 0) {
            text.get_mut(place * 4 + bit)?.make_ascii_uppercase();
        }
    }
    let text = String::from_utf8(text).ok()?;
    (escape(&text)? == file).then_some(text)
}

/// Reads a file name as what was escaped into it.
pub(super) fn parse_escaped<T: FromStr>(file: &str) -> Option<T> {
    unescape(file)?.parse().ok()
}

fn hex_digit(nibble: u8) -> char {
    char::from(b"0123456789abcdef"[usize::from(nibble)])
}

fn is_device(text: &str) -> bool {
    let stem = text.split('.').next().unwrap_or_default().to_ascii_lowercase();
    RESERVED.contains(&stem.as_str())
        || RESERVED_NUMBERED.iter().any(|device| {
            stem.strip_prefix(device).is_some_and(|n| n.len() == 1 && n.bytes().all(|b| b.is_ascii_digit()))
        })
}

/// Which characters were capitals: four to a hexadecimal digit, without zeros at the end.
#[derive(Default)]
struct Mask(Vec<u8>);

impl Mask {
    fn set(&mut self, index: usize) {
        if self.0.len() <= index / 4 {
            self.0.resize(index / 4 + 1, 0);
        }
        self.0[index / 4] |= 1 << (index % 4);
    }

    fn finish(self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        std::iter::once('^').chain(self.0.iter().map(|nibble| hex_digit(*nibble))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn readable_where_possible() {
        for (text, file) in [
            ("registry.k8s.io/pause", "registry.k8s.io+pause"),
            ("docker.io/library/nginx", "docker.io+library+nginx"),
            ("localhost:5000/a", "localhost%3a5000+a"),
            ("v1.36.3-k0s.2", "v1.36.3-k0s.2"),
            ("V1", "v1^1"),
            ("aB-C", "ab-c^a"),
            ("v1.", "v1.^"),
            ("con", "%63on"),
            ("nul.txt", "%6eul.txt"),
            ("com1", "%63om1"),
            ("common", "common"),
        ] {
            assert_eq!(escape(text).as_deref(), Some(file), "{text}");
            assert_eq!(unescape(file).as_deref(), Some(text), "{file}");
        }
    }

    #[test]
    fn files_have_places_of_their_own() {
        let layout = Layout::new(Path::new("store"));
        let long = "a/".repeat(200) + "b";
        for path in ["v1.36.3/kubelet.exe", "../../etc/passwd", "a+b", "a/b", &long] {
            let place = layout.file("dl.k8s.io:8443", path).unwrap();
            assert_eq!(place.components().count(), 4, "{}", place.display());
            assert_eq!(place.file_name().unwrap(), "dl.k8s.io%3a8443.json");
        }
        assert_ne!(layout.files("a+b"), layout.files("a/b"));
        assert_eq!(layout.file(&"h".repeat(300), "a"), None);
    }

    #[test]
    fn every_tag_fits() {
        for letter in ["A", "a", "."] {
            let tag: Tag = format!("T{}", letter.repeat(127)).parse().unwrap();
            let file = escape(tag.as_str()).unwrap();
            assert_eq!(parse_escaped::<Tag>(&file).unwrap(), tag);
        }
        assert_eq!(escape(&"a".repeat(251)), None);
    }

    #[test]
    fn foreign_file_names_are_not_names() {
        for file in ["", "^", "V1", "%63ommon", "v1^0", "a%zz", "a^g", ".x", "a^f", "con"] {
            assert_eq!(unescape(file), None, "{file}");
        }
    }

    proptest! {
        #[test]
        fn escaping_is_undone_and_safe(text in "[ -~]{1,70}") {
            let file = escape(&text).unwrap();
            prop_assert_eq!(unescape(&file), Some(text));
            prop_assert!(file.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+%^._-".contains(&b)));
            prop_assert!(!file.starts_with('.') && !file.ends_with('.'));
            prop_assert!(!is_device(&file));
        }

        #[test]
        fn no_two_texts_share_a_file(texts in proptest::collection::hash_set("[aAbB./]{1,5}", 2..60)) {
            let mut files = HashMap::new();
            for text in texts {
                let file = escape(&text).unwrap().to_lowercase();
                prop_assert_eq!(files.insert(file, text.clone()), None, "{}", text);
            }
        }

        #[test]
        fn unescape_never_panics(file in "\\PC{0,80}") {
            if let Some(text) = unescape(&file) {
                prop_assert_eq!(escape(&text).unwrap(), file);
            }
        }
    }
}
