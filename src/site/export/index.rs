//! A new index over some entries of another.

use bytes::Bytes;
use serde_json::Value;

use crate::oci::Digest;

/// The index `root` with no entries but those that have one of the digests `kept`, which may stand in it or in one of the
/// indexes `nested` in it. Entries and all other fields stay as they are, in their order.
pub(super) fn over<'a>(root: &[u8], nested: impl Iterator<Item = &'a Bytes>, kept: &[&Digest]) -> Bytes {
    let kept: Vec<String> = kept.iter().map(ToString::to_string).collect();
    let mut document: Value = serde_json::from_slice(root).unwrap_or_default();
    let mut entries = Vec::new();
    let others: Vec<Value> = nested.filter_map(|bytes| serde_json::from_slice(bytes).ok()).collect();
    for index in std::iter::once(&document).chain(&others) {
        for entry in index["manifests"].as_array().into_iter().flatten() {
            let digest = entry["digest"].as_str().unwrap_or_default();
            if kept.iter().any(|kept| kept == digest) && !entries.contains(entry) {
                entries.push(entry.clone());
            }
        }
    }
    document["manifests"] = Value::Array(entries);
    Bytes::from(document.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Document;

    #[test]
    fn entries_stay_as_they_are() {
        let whole = include_bytes!("../../oci/testdata/pause-3.10.2.json");
        let Document::Index(index) = Document::parse(None, Bytes::from_static(whole)).unwrap() else {
            panic!("not an index");
        };
        let (first, last) = (&index.manifests[0], index.manifests.last().unwrap());
        let bytes = over(whole, std::iter::empty(), &[&last.digest, &first.digest]);
        let Document::Index(smaller) = Document::parse(None, bytes.clone()).unwrap() else {
            panic!("not an index");
        };
        assert_eq!(smaller.manifests, [first.clone(), last.clone()]);
        let through = over(br#"{"manifests":[]}"#, [Bytes::from_static(whole)].iter(), &[&last.digest]);
        let value: Value = serde_json::from_slice(&through).unwrap();
        assert_eq!(value["manifests"][0]["digest"], last.digest.to_string());
        assert_eq!(over(whole, std::iter::empty(), &[&last.digest, &first.digest]), bytes);
    }
}
