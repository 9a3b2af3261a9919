//! A digest that is read prints as what was read, and can name a file.
#![no_main]

use dray::oci::Digest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
        assert_eq!(digest.hex().len(), digest.algorithm().hex_len());
        assert!(digest.hex().bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
});
