//! What people supply: files of text, in any encoding that editors and shells write, or standard input.
//!
//! Every file that a person gives to a command is read here, so that a definition, a list of images, a key or the output
//! of `kubectl` may all be UTF-8 or UTF-16, with or without a byte order mark, with the line ends of any system, and so
//! that the messages about what is wrong with a file are the same everywhere.

mod encoding;
pub mod json;
mod kind;
mod problem;
mod read;
pub mod yaml;

pub use encoding::{EncodingError, decode};
pub use kind::FileKind;
pub use problem::{DocumentError, Problem};
pub use read::{InputError, STDIN, is_stdin, name, read_bytes, read_text, read_text_if_present, text};
