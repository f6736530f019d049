//! The unit against an independent model of the specification.
//!
//! `reference` is the model. `world` and `program` make guests and programs of bytes, `run` runs them on both and
//! compares after each operation (`compare`; `cache` says which older answers are right), `conditions` and `faults` have a directed case for every fault, and
//! `late` lets two threads race. docs/testing.md says how to run the long mode and how to keep a
//! failure.

mod cache;
mod compare;
mod conditions;
mod coverage;
mod faults;
mod late;
mod machine;
mod others;
mod program;
mod reference;
mod run;
mod world;

use std::cell::RefCell;
use std::hash::{BuildHasher, Hasher};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use coverage::Coverage;
use program::Op;
use world::World;

const WORLD_BYTES: usize = 192;
const OP_BYTES: usize = 16;
const MOST_OPS: usize = 24;

const FIXED_CASES: u32 = 16_000;
const FRESH_CASES: u32 = 4_000;
const LONG_CASES: u32 = 1_000_000;
const MOVING_CASES: u32 = 4_000;

fn decode(world: &[u8], ops: &[Vec<u8>]) -> (World, Vec<Op>) {
    let world = World::decode(world);
    let ops = ops.iter().map(|bytes| Op::decode(bytes, &world)).collect();
    (world, ops)
}

fn hex(bytes: &[u8]) -> String {
    let used = bytes.iter().rposition(|&byte| byte != 0);
    let used = &bytes[..used.map_or(0, |last| last + 1)];
    used.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|index| u8::from_str_radix(&text[2 * index..2 * index + 2], 16).unwrap())
        .collect()
}

/// Run generated cases, and fail with the smallest that does.
fn cases(count: u32, seed: [u8; 32], moving: bool) -> Coverage {
    let config = Config {
        cases: count,
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let coverage = RefCell::new(Coverage::default());
    let strategy = (
        proptest::array::uniform(proptest::num::u8::ANY),
        proptest::collection::vec(
            proptest::array::uniform(proptest::num::u8::ANY),
            1..=MOST_OPS,
        ),
    );
    let result = runner.run(
        &strategy,
        |(world, ops): ([u8; WORLD_BYTES], Vec<[u8; OP_BYTES]>)| {
            let ops: Vec<Vec<u8>> = ops.iter().map(|op| op.to_vec()).collect();
            let (world, ops) = decode(&world, &ops);
            run::run(&world, &ops, moving, &mut coverage.borrow_mut()).map_err(TestCaseError::fail)
        },
    );
    match result {
        Ok(()) => coverage.into_inner(),
        Err(TestError::Fail(reason, (bytes, ops))) => {
            let ops: Vec<Vec<u8>> = ops.iter().map(|op| op.to_vec()).collect();
            let (world, program) = decode(&bytes, &ops);
            let program: Vec<String> = program.iter().map(|op| format!("  {op:x?}\n")).collect();
            let ops: Vec<String> = ops.iter().map(|op| hex(op)).collect();
            panic!(
                "{reason}\n{world:?}\n{}seed {}; to keep it, add to tests/model/regressions/cases.txt:\n{}:{}\n",
                program.concat(),
                hex(&seed),
                hex(&bytes),
                ops.join(",")
            );
        }
        Err(error) => panic!("{error}"),
    }
}

/// A seed that no run had before.
fn fresh_seed() -> [u8; 32] {
    let mut seed = [1; 32];
    let hasher = std::hash::RandomState::new().build_hasher();
    seed[..8].copy_from_slice(&hasher.finish().to_le_bytes());
    seed
}

/// The same cases in every run, and they must reach everything that is listed.
#[test]
fn fixed_cases() {
    let coverage = cases(FIXED_CASES, [7; 32], false);
    coverage.print();
    let missing = coverage.missing(coverage::required());
    assert!(missing.is_empty(), "never reached: {missing:#?}");
}

/// Other cases in every run.
#[test]
fn fresh_cases() {
    cases(FRESH_CASES, fresh_seed(), false);
}

/// The unit's state is saved and loaded before each third operation.
#[test]
fn fixed_cases_of_moving_guests() {
    cases(MOVING_CASES, [8; 32], true);
}

/// `cargo test --release -p nested-vtd --test model -- --ignored`.
#[test]
#[ignore = "takes minutes"]
fn long_run() {
    let coverage = cases(LONG_CASES, fresh_seed(), false);
    coverage.print();
    println!("{LONG_CASES} cases");
}

/// Cases that failed once.
#[test]
fn regressions() {
    for line in include_str!("regressions/cases.txt").lines() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (world, ops) = line.split_once(':').expect("world:operation,operation...");
        let ops: Vec<Vec<u8>> = ops.split(',').map(unhex).collect();
        let (world, ops) = decode(&unhex(world), &ops);
        for moving in [false, true] {
            let result = run::run(&world, &ops, moving, &mut Coverage::default());
            assert!(result.is_ok(), "{line}: {}", result.unwrap_err());
        }
    }
}
