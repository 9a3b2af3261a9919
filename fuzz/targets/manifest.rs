//! A document keeps its bytes, and every client finds its way through an index from outside.
#![no_main]

use bytes::Bytes;
use dray::oci::{Document, ImageConfig};
use dray::select;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|raw: &[u8]| {
    let _ = ImageConfig::parse(raw).map(|config| config.platform());
    let Ok(document) = Document::parse(None, Bytes::copy_from_slice(raw)) else { return };
    assert_eq!(&document.raw()[..], raw);
    assert!(document.descriptor().digest.matches(raw));
    let again = Document::parse(Some(document.media_type()), document.raw().clone());
    assert!(again.is_ok_and(|again| again.media_type() == document.media_type()));
    let Document::Index(index) = document else { return };
    let entries: Vec<_> = index.manifests.into_iter().map(|entry| entry.platform).collect();
    for host in ["windows(10.0.26100)/amd64", "linux/arm/v7", "linux/amd64"] {
        let Ok(host) = host.parse() else { continue };
        for band in select::bands() {
            let choice = band.choose(&host, &entries);
            assert!(choice.picks.is_none_or(|pick| choice.fetches.contains(&pick)));
            assert!(choice.fetches.iter().all(|fetched| *fetched < entries.len()));
        }
    }
});
