//! Lists of images as tools print them: `k0s airgap list-images`, `kubeadm config images list`, or a file that a person
//! keeps.

use std::collections::HashSet;
use std::path::Path;

use crate::input::{self, InputError};
use crate::oci::{ParseReferenceError, Reference};

/// The largest list that is read, in bytes.
pub const MAX_LIST_BYTES: u64 = 4 << 20;

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageListError {
    /// The file cannot be read, or is no text.
    #[error(transparent)]
    Input(#[from] InputError),
    /// A line is no reference.
    #[error("{file}, line {line}: {source}; write one image reference a line, # starts a comment")]
    Line {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        source: ParseReferenceError,
    },
}

/// References in the order of the list, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageList {
    /// The references, completed the way Docker completes them.
    pub images: Vec<Reference>,
}

impl ImageList {
    /// Reads a file, or standard input if it is `-`, of at most [`MAX_LIST_BYTES`].
    pub fn read(path: &Path) -> Result<Self, ImageListError> {
        let text = input::read_text(path, MAX_LIST_BYTES)?;
        Self::parse(&input::name(path), &text)
    }

    /// Reads the text of a list; `file` is what messages call it.
    pub fn parse(file: &str, text: &str) -> Result<Self, ImageListError> {
        let mut seen = HashSet::new();
        let mut images = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = content(line);
            if line.is_empty() {
                continue;
            }
            let reference: Reference = line.parse().map_err(|source| ImageListError::Line {
                file: file.to_owned(),
                line: index + 1,
                source,
            })?;
            if seen.insert(reference.clone()) {
                images.push(reference);
            }
        }
        Ok(Self { images })
    }
}

/// A line without its comment and the space around it.
fn content(line: &str) -> &str {
    line.split('#').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<String>, ImageListError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let list = ImageList::read(file.path())?;
        Ok(list.images.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn reads_what_tools_print() {
        let text = "# apps\nquay.io/k0sproject/pause:3.10.1\r\n\n  registry.k8s.io/etcd:3.6.8-0  # database\nnginx\n\
                    quay.io/k0sproject/pause:3.10.1\n";
        let expected = [
            "quay.io/k0sproject/pause:3.10.1",
            "registry.k8s.io/etcd:3.6.8-0",
            "docker.io/library/nginx:latest",
        ];
        assert_eq!(read(text.as_bytes()).unwrap(), expected);
        let little: Vec<u8> =
            [0xff, 0xfe].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect();
        assert_eq!(read(&little).unwrap(), expected);
        let big: Vec<u8> =
            [0xfe, 0xff].into_iter().chain(text.encode_utf16().flat_map(u16::to_be_bytes)).collect();
        assert_eq!(read(&big).unwrap(), expected);
        let marked: Vec<u8> = b"\xef\xbb\xbf".iter().chain(text.as_bytes()).copied().collect();
        assert_eq!(read(&marked).unwrap(), expected);
        assert_eq!(read(b"").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn names_the_line_that_is_wrong() {
        let error = ImageList::parse("apps.txt", "nginx:1\n\ntime=\"now\" level=warning\n").unwrap_err();
        assert!(error.to_string().starts_with("apps.txt, line 3: "), "{error}");
        assert!(matches!(read(&[0x80, 0x81]).unwrap_err(), ImageListError::Input(_)));
        let missing = ImageList::read(Path::new("/nonexistent/list")).unwrap_err().to_string();
        assert!(missing.contains("/nonexistent/list"), "{missing}");
    }

    proptest! {
        #[test]
        fn never_panics(text in "[ -~\n\u{e4}]{0,200}") {
            let _ = ImageList::parse("list", &text);
        }
    }
}
