#![no_main]

use dray_fuzz::{lies, mutate};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|data: &[u8]| dray_fuzz::repair::volumes(data));
fuzz_mutator!(|data: &mut [u8], size: usize, limit: usize, seed: u32| {
    mutate::in_place(data, size, limit, seed, lies::files, fuzzer_mutate)
});
