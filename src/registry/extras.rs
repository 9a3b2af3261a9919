//! What a server answers beside images and plain files: things that are made of the content when somebody asks.
//!
//! The registry knows the forms of such answers, and somebody else what they mean.

use bytes::Bytes;

use crate::oci::{Digest, RepositoryName};
use crate::store::ContentError;

/// Makes answers.
pub trait Extras: Send + Sync + 'static {
    /// Whether a request for `path`, as it was sent, may be meant. Every request is asked about, so this is quick.
    fn may_have(&self, path: &str) -> bool;

    /// The answer to a `GET` or a `HEAD`; none when it is about something else. This may block.
    fn answer(&self, question: &Question<'_>) -> Result<Option<Extra>, ExtraError>;
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The path, decoded.
    pub path: &'a str,
    /// How the client reached the server: `https://registry.site.local:5000`. None when it did not say.
    pub base: Option<&'a str>,
}

/// An answer.
#[derive(Debug)]
pub enum Extra {
    /// What is asked for has another address.
    Elsewhere(String),
    /// A short text.
    Text {
        /// What the text is.
        media_type: &'static str,
        /// The text.
        text: String,
    },
    /// A file.
    File(Composition),
}

/// A file that is put together while it is sent.
#[derive(Clone, Debug)]
pub struct Composition {
    /// Is the same for the same bytes and for no others.
    pub identity: Digest,
    /// Its content, in order.
    pub pieces: Vec<Piece>,
}

/// A part of a file.
#[derive(Clone, Debug)]
pub enum Piece {
    /// A few bytes: texts, the headers of an archive.
    Bytes(Bytes),
    /// A blob, which is verified before its first byte is sent.
    Blob {
        /// A repository that has it.
        repository: RepositoryName,
        /// Its digest.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
    },
}

impl Piece {
    /// The size in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Blob { size, .. } => *size,
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExtraError {
    /// It is not here.
    #[error("{message}")]
    NotHere {
        /// What is not here, and what to do.
        message: String,
        /// The paths that may be meant.
        candidates: Vec<String>,
    },
    /// It is being worked out for somebody else.
    #[error("this is being worked out; ask again")]
    Busy,
    /// The content cannot be read.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// Something else is wrong here, which the log says.
    #[error("{0}")]
    Failed(String),
}
