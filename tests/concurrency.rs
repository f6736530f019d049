//! Translation on many threads while the guest changes its tables: once an
//! invalidation has completed, nobody is given the old page.

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::*;
use nested_vtd::unit::{HostKind, Request};

#[test]
fn nothing_old_after_a_completed_invalidation() {
    let mut guest = Guest::new(HostKind::Soft);
    guest.build_tables();
    guest.map(0x5000, 0x10_0000);
    guest.enable();
    guest.submit(&[pasid_cache(), pasid_all(), wait(2)]);

    const ROUNDS: u64 = 20_000;
    let page_of = |round: u64| 0x10_0000 + (round % 512) * 0x1000;
    // The last round whose invalidation has completed.
    let completed = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    let device = guest.device;
    let mut slot = 3 * 32;
    let guest = &guest;
    std::thread::scope(|scope| {
        for write in [false, true, false] {
            let (completed, done) = (&completed, &done);
            scope.spawn(move || {
                let request = Request {
                    address: 0x5000,
                    read: !write,
                    write,
                    ..Request::default()
                };
                while !done.load(Ordering::SeqCst) {
                    let before = completed.load(Ordering::SeqCst);
                    let answer = guest.unit.translate(device, request).unwrap();
                    let after = completed.load(Ordering::SeqCst);
                    let seen = answer.result.unwrap().address;
                    // The round under way may be seen early.
                    let allowed = (before..=after + 1).map(page_of);
                    assert!(
                        allowed.into_iter().any(|page| page == seen),
                        "{seen:#x} between rounds {before} and {after}"
                    );
                }
            });
        }
        for round in 1..=ROUNDS {
            guest.map(0x5000, page_of(round));
            for [low, high] in [page(0x5000), wait(round as u32)] {
                guest.poke(QUEUE + slot, low);
                guest.poke(QUEUE + slot + 8, high);
                slot = (slot + 32) % 0x1000;
            }
            guest.write32(0x88, slot as u32);
            assert_eq!(guest.peek(STATUS) as u32, round as u32);
            completed.store(round, Ordering::SeqCst);
        }
        done.store(true, Ordering::SeqCst);
    });
    assert_eq!(guest.unit.stats().faults, 0);
}

/// A request that meets a reset goes by the tables before it or by none, and is not refused by a root table that
/// nobody has set.
#[test]
fn a_request_beside_a_reset_is_not_refused() {
    let mut guest = Guest::new(HostKind::None);
    guest.build_tables();
    guest.map(0x5000, 0x10_0000);
    guest.enable();
    let done = AtomicBool::new(false);
    let (guest, device) = (&guest, guest.device);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    let request = Request {
                        address: 0x5000,
                        read: true,
                        // Such a request reads all tables each time.
                        debug: true,
                        ..Request::default()
                    };
                    let answer = guest.unit.translate(device, request).unwrap();
                    let address = answer.result.map(|to| to.address);
                    if !matches!(address, Ok(0x5000 | 0x10_0000)) {
                        done.store(true, Ordering::SeqCst);
                        panic!("{address:x?}");
                    }
                }
            });
        }
        for _ in 0..8_000 {
            guest.notes.events.lock().unwrap().clear();
            guest.unit.reset();
            guest.write64(0x20, ROOT | 1 << 10);
            guest.write32(0x18, 1 << 30);
            guest.write32(0x18, 1 << 31);
            if done.load(Ordering::SeqCst) {
                break;
            }
        }
        done.store(true, Ordering::SeqCst);
    });
}
