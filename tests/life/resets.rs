//! The machine is reset at every point of a boot, and at any point of whatever a guest does. Afterwards it is as
//! after power-on, and boots.

use std::sync::Arc;

use nested_vtd::unit::{Config, Stats};

use crate::common::*;
use crate::machine::*;

/// A machine, and what it was at power-on.
struct Fresh {
    machine: Machine,
    registers: Vec<u64>,
    state: Vec<u8>,
    objects: [u64; 5],
    program: Vec<Op>,
    resets: u64,
    boots: u64,
}

impl Fresh {
    fn new() -> Self {
        let machine = Machine::new();
        let (registers, state) = (machine.registers(), machine.guest.unit.save());
        // An IOAS, the parent, no nested HWPT, a fault queue.
        let objects = [1, 1, 0, 1, RAM_SIZE];
        assert_eq!(machine.objects(), objects);
        machine.check_off();
        Self {
            machine,
            registers,
            state,
            objects,
            program: boot(3),
            resets: 0,
            boots: 0,
        }
    }

    /// Reset; all is as at power-on, and whoever waited for a page was answered.
    fn reset(&mut self) {
        let machine = &mut self.machine;
        machine.guest.unit.reset();
        self.resets += 1;
        assert_eq!(machine.guest.unit.stats(), Stats::default());
        machine.check_off();
        assert_eq!(machine.guest.unit.save(), self.state);
        assert_eq!(machine.registers(), self.registers);
        assert_eq!(machine.objects(), self.objects);
        assert_eq!(machine.open_groups(), 0);
        machine.guest.notes.msis.lock().unwrap().clear();
        machine.guest.notes.events.lock().unwrap().clear();
        machine.guest.notes.invalidations.lock().unwrap().clear();
    }

    /// All of the boot, after which the machine is in use.
    fn boot(&mut self) {
        let stale = self.machine.twin.stats().stale_uses;
        self.machine.run(&self.program.clone());
        self.boots += 1;
        let info = self
            .machine
            .guest
            .unit
            .device_info(self.machine.devices[0].handle);
        assert_eq!(info.unwrap().pasids, 1);
        let host = self.machine.twin.stats();
        assert_eq!((host.nested, host.stale_uses), (1, stale));
        let stats = self.machine.guest.unit.stats();
        // The emulated device's, without PASID and with it.
        assert_eq!(
            (stats.faults, stats.stale_uses, stats.queue_errors),
            (2, 0, 0)
        );
        assert_eq!(
            self.machine.guest.notes.msis.lock().unwrap().first(),
            Some(&(0xfee0_3000, 0x43))
        );
    }

    fn end(self, what: &str) {
        let (made, ended) = self.machine.hwpts();
        assert_eq!(made, ended, "nested HWPTs");
        println!(
            "{what}: {} resets, {} boots, {made} nested HWPTs made and ended",
            self.resets, self.boots
        );
        self.machine.end();
    }
}

#[test]
fn at_every_point_of_a_boot() {
    let mut fresh = Fresh::new();
    for point in 0..=fresh.program.len() {
        let begun = fresh.program[..point].to_vec();
        fresh.machine.run(&begun);
        fresh.reset();
        // Twice is as once.
        if point % 8 == 0 {
            fresh.reset();
        }
        fresh.boot();
        fresh.reset();
    }
    fresh.end("at every point of a boot");
}

#[test]
fn at_any_point_of_whatever_a_guest_does() {
    let rounds = if cfg!(debug_assertions) { 600 } else { 6000 };
    let mut fresh = Fresh::new();
    let mut random = Random(0x6a09_e667_f3bc_c909);
    for _ in 0..rounds {
        // From a machine that is off, or in use.
        if random.below(2) == 0 {
            fresh.boot();
        }
        for _ in 0..random.below(60) {
            random.act(&mut fresh.machine);
        }
        fresh.reset();
        if random.below(3) == 0 {
            fresh.boot();
            fresh.reset();
        }
    }
    fresh.end("at any point of whatever a guest does");
}

/// A queue that is so long that a part of it was left for later is not gone on with.
#[test]
fn in_the_middle_of_a_long_queue() {
    const TABLE: u64 = 0x14_0000;
    const WIDE: u64 = 0x10_0000;
    let config = Config {
        pasid_bits: 13,
        ..Config::DEFAULT
    };
    let twin = Arc::default();
    let (mut guest, _devices) = Guest::on_twin(config, &twin, 1);
    guest.build_tables();
    (0..128).for_each(|index| guest.poke(WIDE + index * 8, TABLE | 1));
    for entry in 0..64 {
        let at = TABLE + entry * 64;
        guest.poke(at + 16, PML4);
        guest.poke(at + 8, u64::from(DOMAIN) | 1 << 23);
        guest.poke(at, 1 << 6 | 1);
    }
    // PASIDE, and a directory of 2^7 entries.
    guest.poke(CONTEXT + u64::from(SOURCE_ID) * 32, WIDE | 1 << 3 | 1);
    guest.enable_queue_at(0x20_0000, 2);
    guest.poke(STATUS, 0);
    guest.queue(core::iter::repeat_n(EVERYTHING[1], 500).chain([wait(1)]));
    guest.write32(0x88, guest.tail() as u32);
    assert!(guest.unit.stats().queue_pauses > 0);
    guest.unit.reset();
    guest.unit.work();
    assert_eq!((guest.read64(0x80), guest.peek(STATUS)), (0, 0));
    let info = guest.unit.device_info(guest.device).unwrap();
    assert_eq!((info.pasids, info.pasids_blocked), (0, 0));
    assert_eq!(twin.stats().nested, 0);
    assert_eq!(guest.unit.stats().descriptors, 0);
}
