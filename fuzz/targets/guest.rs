//! libFuzzer's program for [`nested_vtd_fuzz::guest`].

#![no_main]

use libfuzzer_sys::{fuzz_crossover, fuzz_mutator, fuzz_target, fuzzer_mutate};
use nested_vtd_fuzz::guest::{SHAPE, run};

fuzz_target!(init: nested_vtd_fuzz::seeds::if_asked(), |input: &[u8]| run(input));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    SHAPE.mutate(data, size, max_size, seed, fuzzer_mutate)
});

fuzz_crossover!(|one: &[u8], two: &[u8], out: &mut [u8], seed: u32| {
    SHAPE.cross(one, two, out, seed)
});
