//! A description at the begin of a file: a JSON file in a tar, padded to a fixed length, and its digest as `sha256sum`
//! writes it.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::tar;
use crate::oci::Digest;

/// The bytes that a description of `len` bytes takes: two headers, itself, its digest.
pub(super) fn framed_len(len: u64) -> Option<u64> {
    len.checked_add(3 * tar::BLOCK)
}

/// Writes `description` as the file `name` of `len` bytes, with its digest behind it.
pub(super) fn framed(name: &str, description: &impl Serialize, len: u64, mtime: u64) -> Vec<u8> {
    let mut json = serde_json::to_vec(description).expect("a description has nothing that JSON cannot hold");
    // Blanks at the end keep what follows where it is when numbers become longer.
    json.resize(usize::try_from(len).expect("a description is small") - 1, b' ');
    json.push(b'\n');
    let mut bytes = tar::header(name, len, mtime);
    let sum = summed(name, &json, mtime);
    bytes.append(&mut json);
    bytes.extend(sum);
    bytes
}

/// The file with the digest of `content`, which is the file `name`.
pub(super) fn summed(name: &str, content: &[u8], mtime: u64) -> Vec<u8> {
    let sum = format!("{}  {name}\n", Digest::sha256(content).hex());
    let mut bytes = tar::header(&format!("{name}.sha256"), sum.len() as u64, mtime);
    bytes.extend(sum.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// Reads the description at the begin of `bytes`. Whether the rest is as it should be whoever asks compares.
pub(super) fn parse<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, String> {
    let entry = tar::parse(bytes)?.filter(|entry| entry.path == name);
    let entry = entry.ok_or_else(|| format!("it does not begin with {name}"))?;
    let end = usize::try_from(entry.size).ok().and_then(|size| size.checked_add(512));
    let json = end.and_then(|end| bytes.get(512..end)).ok_or("it is shorter than its header")?;
    serde_json::from_slice(json).map_err(|error| error.to_string())
}
