//! Bytes to text, in the encodings that editors and shells write.

/// Why bytes are not text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodingError {
    /// A byte that has no place in UTF-8. Old Windows programs write one byte for `ü`.
    #[error("line {line} has a byte (0x{byte:02x}) that is not UTF-8; save the file as UTF-8")]
    Byte {
        /// The line, from 1.
        line: usize,
        /// The byte.
        byte: u8,
    },
    /// UTF-16 that ends within a character or has half of one.
    #[error("line {line} has half a character in UTF-16; save the file as UTF-8")]
    HalfCharacter {
        /// The line, from 1.
        line: usize,
    },
    /// Zeros, which no text has.
    #[error("it is not text, it has zero bytes")]
    Zeros,
}

/// Decodes UTF-8 or UTF-16, with or without a byte order mark.
///
/// Windows PowerShell writes UTF-16 with `>`; some programs write UTF-16 without a mark, which is recognised by its zero
/// bytes. Lines end with `\n` in the result whatever they ended with, marks are gone also where files were joined, and so
/// is the end-of-file character of DOS.
pub fn decode(bytes: &[u8]) -> Result<String, EncodingError> {
    let text = match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes)?,
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes)?,
        _ if !bytes.contains(&0) => utf8(bytes)?,
        // ASCII in UTF-16 has a zero in every other byte, and where these lie tells the order.
        _ => {
            let zeros = |nth: usize| bytes.iter().skip(nth).step_by(2).filter(|byte| **byte == 0).count();
            let text = if zeros(1) >= zeros(0) {
                utf16(bytes, u16::from_le_bytes)
            } else {
                utf16(bytes, u16::from_be_bytes)
            };
            text.map_err(|_| EncodingError::Zeros)?
        }
    };
    if text.contains('\0') {
        return Err(EncodingError::Zeros);
    }
    Ok(plain(text))
}

fn utf8(bytes: &[u8]) -> Result<String, EncodingError> {
    str::from_utf8(bytes).map(str::to_owned).map_err(|error| {
        let (before, after) = bytes.split_at(error.valid_up_to());
        let line = before.split(|byte| *byte == b'\n').count();
        EncodingError::Byte { line, byte: after.first().copied().unwrap_or_default() }
    })
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, EncodingError> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let mut text = String::with_capacity(pairs.len());
    let half = |text: &str| EncodingError::HalfCharacter { line: 1 + text.matches('\n').count() };
    for character in char::decode_utf16(pairs.iter().map(|pair| unit(*pair))) {
        text.push(character.map_err(|_| half(&text))?);
    }
    if rest.is_empty() { Ok(text) } else { Err(half(&text)) }
}

/// Takes out what only says how the text was stored.
fn plain(text: String) -> String {
    let text = if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n") } else { text };
    let text = if text.contains('\u{feff}') {
        text.trim_start_matches('\u{feff}').replace("\n\u{feff}", "\n")
    } else {
        text
    };
    match text.strip_suffix('\u{1a}') {
        Some(text) => text.to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `text` in every encoding that is read.
    fn encodings(text: &str) -> Vec<Vec<u8>> {
        let utf16 = |unit: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(unit).collect::<Vec<u8>>();
        let (little, big) = (utf16(u16::to_le_bytes), utf16(u16::to_be_bytes));
        vec![
            text.as_bytes().to_vec(),
            [b"\xef\xbb\xbf", text.as_bytes()].concat(),
            [b"\xff\xfe", &little[..]].concat(),
            [b"\xfe\xff", &big[..]].concat(),
            little,
            big,
        ]
    }

    #[test]
    fn line_ends_and_marks_of_any_system_are_read() {
        assert_eq!(decode(b"a\r\nb\rc\nd").unwrap(), "a\nb\nc\nd");
        assert_eq!(decode("\u{feff}\u{feff}a\r\n\u{feff}b\u{1a}".as_bytes()).unwrap(), "a\nb");
        assert_eq!(decode(b"").unwrap(), "");
    }

    #[test]
    fn what_is_not_text_is_named_with_its_line() {
        assert_eq!(decode(b"a\nb\xfc").unwrap_err(), EncodingError::Byte { line: 2, byte: 0xfc });
        assert_eq!(decode(b"\xff\xfea\0b").unwrap_err(), EncodingError::HalfCharacter { line: 1 });
        assert_eq!(
            decode(b"\xff\xfea\0\n\0\0\xd8a\0").unwrap_err(),
            EncodingError::HalfCharacter { line: 2 }
        );
        assert_eq!(decode(b"a\0\0\0b\0\0\0").unwrap_err(), EncodingError::Zeros);
        assert_eq!(decode(b"\x7fELF\x02\x01\x01\0\0\0\0").unwrap_err(), EncodingError::Zeros);
    }

    proptest! {
        /// Without a mark, text is recognised as UTF-16 as soon as it has one character of ASCII.
        #[test]
        fn every_encoding_gives_the_same_text(text in "[ -~\n\u{e4}\u{4e2d}\u{1f600}]{0,40}[a-z:]") {
            // Two CJK characters may look like one swapped; what people supply is mostly ASCII.
            prop_assume!(text.chars().filter(char::is_ascii).count() * 2 > text.chars().count());
            for bytes in encodings(&text) {
                prop_assert_eq!(decode(&bytes).unwrap(), text.clone(), "{}", bytes.escape_ascii());
            }
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(text) = decode(&bytes) {
                prop_assert!(!text.contains(['\0', '\r']));
            }
        }
    }
}
