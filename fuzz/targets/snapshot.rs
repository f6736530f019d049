//! libFuzzer's program for [`nested_vtd_fuzz::snapshot`].

#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use nested_vtd_fuzz::snapshot::{mutate, run};

fuzz_target!(|input: &[u8]| run(input));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate(data, size, max_size, seed, fuzzer_mutate)
});
