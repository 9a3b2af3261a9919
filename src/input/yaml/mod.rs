//! YAML as people write it.
//!
//! A file is read into [nodes](Node) that know their lines, and only then into the fields that a program needs. So every
//! message names the file, the line and the field, several mistakes are named at once, and the words do not depend on the
//! library that parses.

mod de;
mod node;
mod parse;
mod scalar;

use serde::de::DeserializeOwned;

pub use node::{Node, Value};
pub use parse::documents;

use super::problem::DocumentError;

/// Reads the only document of `text`; `file` is what messages call it.
pub fn parse<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, DocumentError> {
    document(file, text)?.to(file)
}

/// Reads the only document of `text` as [`parse`] does, and takes an unquoted number for the text that was written.
pub fn parse_lenient<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, DocumentError> {
    document(file, text)?.to_lenient(file)
}

/// Reads the only document of `text` as a tree that knows the lines of its fields.
pub fn document(file: &str, text: &str) -> Result<Node, DocumentError> {
    let mut documents = documents(file, text)?;
    match documents.len() {
        0 => Err(DocumentError::new(file, 0, "is empty")),
        1 => Ok(documents.remove(0)),
        _ => Err(DocumentError::new(
            file,
            documents[1].line,
            "a second document begins here, after `---`; put it into a file of its own",
        )),
    }
}

#[cfg(test)]
mod tests;
