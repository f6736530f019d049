//! RAM comes and goes while devices are at work: some of their pages are in it, and some of the guest's tables. Once
//! it is taken back nothing reaches it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nested_vtd::memory::OwnedRam;

use crate::common::*;
use crate::machine::*;
use crate::toggles::Stop;

const HIGH: u64 = 0x1_0000_0000;
const HIGH_SIZE: u64 = 0x10_0000;
/// A page in it, and the last table of 2 MiB.
const PAGE: u64 = HIGH + 0x3000;
const TABLE: u64 = HIGH + 0x8000;
/// Addresses that lead there.
const TO_PAGE: u64 = 0x7000;
const BY_TABLE: u64 = 0x20_5000;

/// What a read may find: with the RAM there (odd changes), or without.
fn allowed(device: Device, address: u64, change: u64, surprise: bool) -> [Option<u64>; 2] {
    let with = if address == TO_PAGE { PAGE } else { 0x13_0000 };
    let there = change % 2 == 1;
    match device.file {
        _ if there => [Some(with); 2],
        Some(_) => [None; 2],
        // What an emulated device reaches is for the VMM to say, which has taken the RAM away.
        None if address == TO_PAGE => [Some(with); 2],
        // A page that the guest has not taken back stays cached.
        None if surprise => [None, Some(with)],
        None => [None; 2],
    }
}

#[test]
fn ram_comes_and_goes_beside_dma() {
    let rounds = if cfg!(debug_assertions) { 600 } else { 10_000 };
    let mut machine = Machine::new();
    machine.run(&boot(3));
    let devices = machine.devices.clone();
    let ram = OwnedRam::new(HIGH_SIZE);
    let entry = &ram[((TABLE - HIGH) / 8 + 5) as usize];
    let clean = 0x13_0000 | PWU;
    machine.guest.poke(PT + (TO_PAGE >> 12) * 8, PAGE | PWU);
    let (changes, stop, reads) = (AtomicU64::new(0), AtomicBool::new(false), AtomicU64::new(0));
    // Of the change under way and those before: the guest has not taken its pages back.
    let surprises: Vec<bool> = (0..rounds * 2 + 3)
        .map(|change| change / 2 % 3 == 1)
        .collect();
    let (shared, surprises) = (&machine, &surprises);
    let cells = shared.guest.cells();
    let poke = |gpa: u64, value| cells[(gpa / 8) as usize].store(value, Ordering::SeqCst);
    let mut tail = shared.guest.read64(0x88);
    let guest = &shared.guest;
    let mut status = 100;
    let mut flush = || {
        status += 1;
        for [low, high] in EVERYTHING.into_iter().chain([wait(status)]) {
            poke(QUEUE + tail, low);
            poke(QUEUE + tail + 8, high);
            tail = (tail + 32) % 0x1000;
        }
        guest.write32(0x88, tail as u32);
        assert_eq!(guest.peek(STATUS) as u32, status);
    };
    std::thread::scope(|scope| {
        for &device in &devices {
            let (changes, stop, reads) = (&changes, &stop, &reads);
            scope.spawn(move || {
                let _stop = Stop(stop);
                while !stop.load(Ordering::SeqCst) {
                    for (address, pasid) in [
                        (TO_PAGE, None),
                        (BY_TABLE, None),
                        (TO_PAGE, Some(PASID)),
                        (BY_TABLE, Some(PASID)),
                    ] {
                        let before = changes.load(Ordering::SeqCst);
                        let went = shared.read(device, pasid, address);
                        let after = changes.load(Ordering::SeqCst);
                        let mut all = (before..=after + 1).flat_map(|change| {
                            allowed(device, address, change, surprises[change as usize])
                        });
                        assert!(
                            all.any(|to| to == went),
                            "{device:?} {address:#x} went to {went:x?} between {before} and {after}"
                        );
                        reads.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let _stop = Stop(&stop);
        let acknowledged = |change: u64| {
            changes.store(change, Ordering::SeqCst);
            for &device in &devices {
                for address in [TO_PAGE, BY_TABLE] {
                    let went = shared.read(device, None, address);
                    let surprise = surprises[change as usize];
                    assert!(
                        allowed(device, address, change, surprise).contains(&went),
                        "{device:?} {address:#x} went to {went:x?} after change {change}"
                    );
                }
            }
        };
        for round in 0..rounds {
            entry.store(clean, Ordering::SeqCst);
            guest.unit.ram_add(HIGH, ram.clone().into(), false).unwrap();
            assert_eq!(shared.twin.stats().mapped, RAM_SIZE + HIGH_SIZE);
            poke(PD + 8, TABLE | PWU);
            flush();
            acknowledged(round * 2 + 1);
            assert_ne!(entry.load(Ordering::SeqCst), clean, "the accessed bit");
            let change = round * 2 + 2;
            if !surprises[change as usize] {
                poke(PD + 8, 0);
                flush();
            }
            guest.unit.ram_remove(HIGH, HIGH_SIZE).unwrap();
            assert_eq!(shared.twin.stats().mapped, RAM_SIZE);
            entry.store(clean, Ordering::SeqCst);
            acknowledged(change);
            assert_eq!(
                entry.load(Ordering::SeqCst),
                clean,
                "reached after it was taken back"
            );
            guest.notes.events.lock().unwrap().clear();
        }
    });
    assert_eq!(machine.objects(), [1, 1, 1, 1, RAM_SIZE]);
    println!(
        "RAM added and taken back {rounds} times beside {} reads",
        reads.load(Ordering::SeqCst)
    );
    machine.open_groups();
    machine.end();
}
