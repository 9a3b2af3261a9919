#![no_main]

use dray_fuzz::mutate;
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|data: &[u8]| dray_fuzz::bundle::archive(data));

// Bytes alone would hardly ever leave an archive whole, so most changes are made entry by entry.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    if seed % 4 == 0 {
        return fuzzer_mutate(data, size, max_size);
    }
    let changed = mutate::archive(&data[..size], seed.into(), max_size);
    data[..changed.len()].copy_from_slice(&changed);
    changed.len()
});
