//! Two threads beside one: with one unit for both, with a unit each, and with nothing but their registers.
//!
//! The calculation shows what the machine has for a second thread, units of their own what it has for translations.
//! One unit for both can be slower than that only by what its threads share.

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use crate::guest::{Guest, Shape};
use crate::report::{Of, Report};
use crate::{addresses, translate};

const PAGES: u64 = 512;
const OPS: u64 = 1 << 20;

/// Nanoseconds for each of the `OPS` operations of each of `works`, which begin together on threads of their own.
fn together<W: Fn() -> u64 + Sync>(works: &[W]) -> f64 {
    let ready = &AtomicUsize::new(0);
    let timed = |work: &W| {
        ready.fetch_add(1, Ordering::SeqCst);
        while ready.load(Ordering::SeqCst) < works.len() {
            spin_loop();
        }
        let start = Instant::now();
        black_box(work());
        (start, Instant::now())
    };
    let times: Vec<_> = thread::scope(|scope| {
        let start = |work| scope.spawn(move || timed(work));
        let started: Vec<_> = works.iter().map(start).collect();
        let ended = started.into_iter().map(|thread| thread.join().unwrap());
        ended.collect()
    });
    let first = times.iter().map(|(start, _)| *start).min().unwrap();
    let last = times.iter().map(|(_, end)| *end).max().unwrap();
    let all = OPS as f64 * works.len() as f64;
    last.duration_since(first).as_nanos() as f64 / all
}

/// Chains that do not wait for each other, so many that they take all that a core has for calculations in registers:
/// two processors that are one core's have no more for two threads than for one.
fn calculate() -> u64 {
    let mut chains = black_box([1_u64, 2, 3, 4, 5, 6, 7, 8]);
    for round in 0..OPS * 4 {
        for chain in &mut chains {
            *chain = chain.rotate_left(5) ^ round;
        }
    }
    chains.iter().fold(0, |sum, chain| sum ^ chain)
}

pub fn measure(report: &mut Report) {
    let shape = Shape::dense(PAGES);
    let guests = [Guest::new(shape), Guest::new(shape)];
    let addresses = addresses(shape);
    let hits = |guest| {
        let addresses = &addresses;
        move || translate(guest, addresses, OPS)
    };
    let [one, other] = [hits(&guests[0]), hits(&guests[1])];
    let mut lines = [
        ("threads-one", "translate, cached, one thread", Vec::new()),
        ("threads-shared", "two threads, one unit", Vec::new()),
        ("threads-own", "two threads, a unit each", Vec::new()),
        ("threads-spin-one", "a calculation, one thread", Vec::new()),
        ("threads-spin", "a calculation, two threads", Vec::new()),
    ];
    for round in 0..=report.rounds {
        let taken = [
            together(&[one]),
            together(&[one, one]),
            together(&[one, other]),
            together(&[calculate]),
            together(&[calculate, calculate]),
        ];
        // The first is a warm-up.
        if round > 0 {
            let lines = lines.iter_mut().zip(taken);
            lines.for_each(|((_, _, to), ns)| to.push(ns));
        }
    }
    for (name, about, values) in lines {
        report.add(name, about, Of::Time, values);
    }
}
