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
    /// Lines that are no references: all of them.
    #[error("{}; write one image reference a line, # starts a comment", shown(.file, .lines))]
    Lines {
        /// The file.
        file: String,
        /// The numbers of the lines, from 1, and what is wrong with each.
        lines: Vec<(usize, String)>,
    },
}

/// The most wrong lines that a message names.
const NAMED: usize = 20;

fn shown(file: &str, lines: &[(usize, String)]) -> String {
    let named: Vec<String> =
        lines.iter().take(NAMED).map(|(line, what)| format!("{file}, line {line}: {what}")).collect();
    let more = lines.len().saturating_sub(NAMED);
    let more = if more == 0 { String::new() } else { format!("\n  and {more} more") };
    format!("{}{more}", named.join("\n  "))
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
        let (mut images, mut wrong) = (Vec::new(), Vec::new());
        for (index, line) in text.lines().enumerate() {
            let line = content(line);
            if line.is_empty() {
                continue;
            }
            match reference(line) {
                Ok(reference) if seen.insert(reference.clone()) => images.push(reference),
                Ok(_) => {}
                Err(what) => wrong.push((index + 1, what)),
            }
        }
        if wrong.is_empty() {
            Ok(Self { images })
        } else {
            Err(ImageListError::Lines { file: file.to_owned(), lines: wrong })
        }
    }
}

/// Reads one line, with or without the `docker://` that skopeo writes before a reference.
fn reference(line: &str) -> Result<Reference, String> {
    if line.contains(char::is_whitespace) {
        let shown: String = line.chars().take(80).collect();
        return Err(format!("`{shown}` is not one image reference: it has blanks"));
    }
    let plain = line.strip_prefix("docker://").unwrap_or(line);
    plain.parse().map_err(|error: ParseReferenceError| error.to_string())
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
    fn all_wrong_lines_are_named() {
        let text = "docker://quay.io/a:1\nimage: \"quay.io/b:1\"\n--platform=linux/arm64 c\nd rancher,rke2All\nUpper\n";
        let error = ImageList::parse("l", text).unwrap_err().to_string();
        for line in 2..=5 {
            assert!(error.contains(&format!("l, line {line}: ")), "{error}");
        }
        assert!(!error.contains("line 1") && !error.contains("registry host"), "{error}");
        let list = ImageList::parse("l", "docker://quay.io/a:1\nquay.io/a:1\n").unwrap();
        assert_eq!(list.images, ["quay.io/a:1".parse().unwrap()]);
        let many = "a b\n".repeat(25);
        assert!(ImageList::parse("l", &many).unwrap_err().to_string().contains("and 5 more"));
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
