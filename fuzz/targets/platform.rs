//! What a platform or a node kind prints is read as the same, and never steers a terminal.
#![no_main]

use dray::oci::{NodeKind, Platform, WindowsBuild};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(platform) = text.parse::<Platform>() {
        assert_eq!(platform.to_string().parse::<Platform>().as_ref(), Ok(&platform));
        assert_eq!(platform.normalized(), platform);
        assert!(!platform.shown().chars().any(char::is_control));
    }
    if let Ok(kind) = text.parse::<NodeKind>() {
        assert_eq!(kind.to_string().parse::<NodeKind>().as_ref(), Ok(&kind));
    }
    if let Ok(build) = text.parse::<WindowsBuild>() {
        assert_eq!(build.to_string().parse::<WindowsBuild>().as_ref(), Ok(&build));
    }
});
