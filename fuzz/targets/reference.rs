//! What a reference prints is read as the same reference.
#![no_main]

use dray::oci::{Reference, RepositoryName, Tag};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string().parse::<Reference>().as_ref(), Ok(&reference));
    }
    if let Ok(name) = text.parse::<RepositoryName>() {
        assert_eq!(name.to_string().parse::<RepositoryName>().as_ref(), Ok(&name));
    }
    if let Ok(tag) = text.parse::<Tag>() {
        assert_eq!(tag.as_str(), text);
    }
});
