//! A walk that began before an invalidation must not be kept after it. Generated programs are run by
//! one thread and cannot show that, so here a device keeps reading a page whose entry the guest
//! keeps changing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nested_vtd::unit::{Request, Unit};

use crate::conditions::{Guest, Mode, READ};
use crate::machine::{Machine, Said};
use crate::world::{FIRST_SETS, SECOND_SETS};

/// Read the page until told to stop.
fn device(unit: &Unit, handle: u32, stop: &AtomicBool) -> u64 {
    let mut reads = 0;
    while !stop.load(Ordering::Relaxed) {
        let request = Request {
            address: READ.address,
            read: true,
            ..Request::default()
        };
        unit.translate(handle, request).unwrap().result.unwrap();
        reads += 1;
    }
    reads
}

fn race(mode: Mode, leaf: u64, permissions: u64, invalidation: [u64; 4]) {
    let guest = Guest::new(mode, READ);
    let mut machine = Machine::new(guest.setup).unwrap();
    for &(address, value) in &guest.memory {
        machine.poke(address, value);
    }
    machine.enable_queue();
    machine.set_root(guest.root);
    machine.set_translation(true);
    let stop = AtomicBool::new(false);
    let unit = Arc::clone(&machine.unit);
    let handle = machine.handle(0);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| device(&unit, handle, &stop));
        let end = Instant::now() + Duration::from_millis(1500);
        let mut changes = 0;
        while Instant::now() < end {
            let page = 0x100 + changes % 2;
            machine.poke(leaf, page << 12 | permissions);
            assert!(machine.submit_and_wait(&[invalidation]));
            for _ in 0..4 {
                let said = machine.request(0, &READ);
                let Said::Page { address, .. } = said else {
                    panic!("{said:x?}");
                };
                if address != page << 12 {
                    stop.store(true, Ordering::Relaxed);
                    panic!("after {changes} changes: {address:#x} is from before the invalidation");
                }
            }
            changes += 1;
        }
        stop.store(true, Ordering::Relaxed);
        let reads = reader.join().unwrap();
        assert!(
            changes > 100 && reads > 100,
            "{changes} changes, {reads} reads"
        );
    });
}

#[test]
fn a_first_stage_walk_is_not_kept_after_an_invalidation() {
    // By PASID and page.
    let invalidation = [6 | 3 << 4 | 7 << 16, READ.address, 0, 0];
    race(Mode::First, FIRST_SETS[0] + 8, 0b111, invalidation);
}

#[test]
fn a_second_stage_walk_is_not_kept_after_an_invalidation() {
    // By domain and page.
    let invalidation = [2 | 3 << 4 | 7 << 16, READ.address, 0, 0];
    race(Mode::Second, SECOND_SETS[0] + 8, 0b11, invalidation);
}

#[test]
fn a_nested_walk_is_not_kept_after_an_invalidation_of_its_second_stage() {
    // By domain and guest-physical page.
    let invalidation = [2 | 3 << 4 | 7 << 16, 41 << 12, 0, 0];
    race(Mode::Nested, SECOND_SETS[0] + 41 * 8, 0b11, invalidation);
}
