//! Translation goes off and on, or the machine is reset, while devices are at work on other threads. Once that is
//! acknowledged nobody goes the old way.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nested_vtd::host::soft::DmaFault;

use crate::common::*;
use crate::machine::*;

/// How translation goes off.
#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    /// By GCMD.TE.
    Toggle,
    /// By a reset.
    Reset,
}

/// Where the page is in each round; the tables change while translation is off.
fn page_of(round: u64) -> u64 {
    0x20_0000 + round % 256 * 0x1000
}

/// Where a read of 0x5000 goes at so many changes: even with translation off, odd with it on.
fn target(change: u64, pasid: Option<u32>) -> Option<u64> {
    match (change % 2, pasid) {
        (0, None) => Some(0x5000),
        (0, Some(_)) => None,
        _ => Some(page_of(change / 2)),
    }
}

/// Tells threads to end, also when a check fails.
pub struct Stop<'a>(pub &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn run(how: How, rounds: u64) {
    let mut machine = Machine::new();
    machine.run(&boot(3));
    let devices = machine.devices.clone();
    let readers = [
        (devices[0], None),
        (devices[0], Some(PASID)),
        (devices[1], None),
        (devices[2], None),
    ];
    machine.guest.write32(0x18, QIE as u32);
    machine.guest.set_tail(machine.guest.read64(0x88));
    // Changes that were acknowledged.
    let (changes, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let reads = AtomicU64::new(0);
    {
        let shared = &machine;
        // The driver's own, as the others only look.
        let cells = shared.guest.cells();
        let poke = |gpa: u64, value| cells[(gpa / 8) as usize].store(value, Ordering::SeqCst);
        let mut tail = shared.guest.tail();
        std::thread::scope(|scope| {
            for (device, pasid) in readers {
                let (changes, stop, reads) = (&changes, &stop, &reads);
                scope.spawn(move || {
                    let _stop = Stop(stop);
                    while !stop.load(Ordering::SeqCst) {
                        let before = changes.load(Ordering::SeqCst);
                        let tried = shared.try_read(device, pasid, 0x5000);
                        let went = tried.ok();
                        let after = changes.load(Ordering::SeqCst);
                        // The change under way may be seen early.
                        let mut allowed = (before..=after + 1).map(|change| target(change, pasid));
                        // So does Linux's driver: it blocks a device before it attaches it elsewhere.
                        let blocked = device.file.is_some() && tried == Err(DmaFault::Blocked);
                        assert!(
                            blocked || allowed.any(|to| to == went),
                            "{device:?} {pasid:?} went to {tried:x?} between changes {before} and {after}"
                        );
                        reads.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            let _stop = Stop(&stop);
            let guest = &shared.guest;
            for round in 0..rounds {
                poke(PT + 5 * 8, page_of(round) | PWU);
                if how == How::Reset && round > 0 {
                    tail = 0;
                    guest.write64(0x90, QUEUE | 0x800);
                    guest.write32(0x18, QIE as u32);
                    guest.write64(0x20, ROOT | 1 << 10);
                    guest.write32(0x18, (QIE | SRTP) as u32);
                }
                for [low, high] in EVERYTHING.into_iter().chain([wait(round as u32)]) {
                    poke(QUEUE + tail, low);
                    poke(QUEUE + tail + 8, high);
                    tail = (tail + 32) % 0x1000;
                }
                guest.write32(0x88, tail as u32);
                assert_eq!(guest.peek(STATUS) as u32, round as u32);
                let acknowledged = |change: u64| {
                    changes.store(change, Ordering::SeqCst);
                    for (device, pasid) in readers {
                        assert_eq!(shared.read(device, pasid, 0x5000), target(change, pasid));
                    }
                };
                guest.write32(0x18, (QIE | TE) as u32);
                assert_ne!(u64::from(guest.read32(0x1c)) & TE, 0);
                acknowledged(round * 2 + 1);
                assert_eq!(shared.twin.stats().nested, 1);
                match how {
                    How::Toggle => {
                        guest.write32(0x18, QIE as u32);
                        assert_eq!(u64::from(guest.read32(0x1c)) & TE, 0);
                    }
                    How::Reset => guest.unit.reset(),
                }
                acknowledged(round * 2 + 2);
                assert_eq!(shared.twin.stats().nested, 0);
                guest.notes.events.lock().unwrap().clear();
            }
        });
    }
    // The boot's own two, which a reset has forgotten.
    let faults = if how == How::Toggle { 2 } else { 0 };
    assert_eq!(machine.guest.unit.stats().faults, faults);
    assert_eq!(machine.twin.stats().stale_uses, 0);
    let (made, ended) = machine.hwpts();
    assert_eq!(made, ended);
    println!(
        "{how:?}: {} changes beside {} reads, {made} nested HWPTs made and ended",
        rounds * 2,
        reads.load(Ordering::SeqCst)
    );
    machine.open_groups();
    machine.end();
}

const ROUNDS: u64 = if cfg!(debug_assertions) { 1000 } else { 20_000 };

#[test]
fn translation_off_and_on_beside_dma() {
    run(How::Toggle, ROUNDS);
}

#[test]
fn resets_beside_dma() {
    run(How::Reset, ROUNDS);
}
