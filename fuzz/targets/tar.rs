#![no_main]

use dray_fuzz::mutate;
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|data: &[u8]| dray_fuzz::bundle::tar(data));
fuzz_mutator!(|data: &mut [u8], size: usize, limit: usize, seed: u32| {
    mutate::in_place(data, size, limit, seed, mutate::archive, fuzzer_mutate)
});
