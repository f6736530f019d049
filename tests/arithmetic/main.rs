//! Arithmetic on addresses, indices and rings, held against definitions that are too slow to use: exhaustively where a
//! domain is small, at every edge where it is not. Each test prints how many cases it had.

#[path = "../common/mod.rs"]
mod common;

mod caches;
mod faults;
mod masks;
mod page_queue;
mod queue;
mod widths;

/// A build that is optimised takes every case of the larger domains, another one those at their ends.
const EVERYTHING: bool = !cfg!(debug_assertions);

/// How many cases a test had, for whoever asks for it with `--nocapture`.
fn count(what: &str, cases: u64) {
    assert!(cases > 0, "{what}: no cases");
    println!("{what}: {cases} cases");
}

/// Numbers of `bits` bits at which carries begin and end: around each power of two from both ends, and patterns.
fn edges(bits: u32) -> Vec<u64> {
    let all = u64::MAX >> (64 - bits);
    let mut edges = vec![0x5555_5555_5555_5555, 0xaaaa_aaaa_aaaa_aaaa];
    for bit in 0..bits {
        let power = 1_u64 << bit;
        edges.extend([
            power - 1,
            power,
            power + 1,
            !power,
            all - power,
            all - power + 1,
        ]);
    }
    edges.iter_mut().for_each(|edge| *edge &= all);
    edges.sort_unstable();
    edges.dedup();
    edges
}
