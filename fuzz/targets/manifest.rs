#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dray_fuzz::text::manifest(data));
