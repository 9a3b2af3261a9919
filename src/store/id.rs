//! Names that are drawn at random: of stores, and of uploads.

use std::io;
use std::str::FromStr;

/// The name of an upload: 32 hexadecimal characters that were drawn at random.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UploadId(Box<str>);

/// A string is not the name of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no such upload")]
pub struct ParseUploadIdError;

impl UploadId {
    /// The name as a string, which is safe as a file name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn random() -> io::Result<Self> {
        Ok(Self(random_id()?.into()))
    }
}

impl FromStr for UploadId {
    type Err = ParseUploadIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if is_random_id(text) { Ok(Self(text.into())) } else { Err(ParseUploadIdError) }
    }
}

/// 128 random bits as hexadecimal characters.
pub(super) fn random_id() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

/// Whether [`random_id`] can have made `text`.
pub(super) fn is_random_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}
