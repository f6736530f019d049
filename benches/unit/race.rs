//! Walks that an invalidation overtakes: how many there were, and that none of them was kept.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::guest::{Guest, Shape, page};
use crate::report::Report;

const ROUNDS: u64 = 20_000;

pub fn late_fills(report: &mut Report) {
    let shape = Shape::dense(1);
    let guest = &Guest::new(shape);
    let entry = guest.entry(0);
    let iova = shape.iova(0);
    let target = |round: u64| Shape::target(round % 512);
    let completed = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    let (old, translations) = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut old, mut translations) = (0_u64, 0_u64);
            while !done.load(Ordering::SeqCst) {
                let before = completed.load(Ordering::SeqCst);
                let seen = guest.read(iova, None);
                let after = completed.load(Ordering::SeqCst);
                translations += 1;
                // The round under way may be seen early.
                let allowed = (before..=after + 1).any(|round| target(round) == seen);
                old += u64::from(!allowed);
            }
            (old, translations)
        });
        for round in 1..=ROUNDS {
            guest.remap(entry, target(round));
            guest.submit(&[page(iova)]);
            completed.store(round, Ordering::SeqCst);
        }
        done.store(true, Ordering::SeqCst);
        reader.join().unwrap()
    });
    report.count(
        "late-translations",
        "translations while the page changed 20000 times",
        translations as f64,
    );
    report.count(
        "late-old",
        "of these, given a page that had been invalidated",
        old as f64,
    );
}
