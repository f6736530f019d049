//! States of no particular moment: of whatever threads, guests and devices do.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::*;
use crate::states::{all_on, config};
use crate::*;
use nested_vtd::unit::{Config, PageRequest};

/// Tells threads to end, also when a check fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What each thread does is in the state or not: each is one that can be loaded.
#[test]
fn saved_while_threads_are_at_work() {
    let guest = all_on();
    let there = guest.elsewhere();
    let stop = AtomicBool::new(false);
    let (unit, device) = (&guest.unit, guest.device);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for index in 0..20 {
                    let _answer = ask(&guest, 0x10_0000 + (index << 12), None, index % 2 == 0);
                }
                for record in 0..8 {
                    guest.write32(FRCD + record * 16 + 12, 1 << 31);
                }
                guest.write32(FSTS, PFO);
            }
        });
        scope.spawn(|| {
            let mut value = 0;
            while !stop.load(Ordering::Relaxed) {
                value += 1;
                for (at, size) in [(FECTL, 4), (IECTL, 4), (CCMD, 8), (RTADDR, 8), (PQH, 8)] {
                    unit.mmio_write(at, size, value << (value % 60)).unwrap();
                }
                unit.mmio_write(GCMD, 4, (QIE | TE | SRTP | IRE).into())
                    .unwrap();
                let asked = PageRequest {
                    address: value << 12,
                    read: true,
                    last: true,
                    ..PageRequest::default()
                };
                unit.page_request(device, asked).unwrap();
            }
        });
        let _stop = Stop(&stop);
        for _ in 0..2000 {
            let saved = unit.save();
            there.unit.load(&saved).unwrap();
            assert_eq!(there.unit.save(), saved);
            guest.notes.events.lock().unwrap().clear();
        }
    });
}

/// Whatever a guest writes and its devices ask, its state can be saved and loaded.
#[test]
fn whatever_a_guest_does() {
    let seed = 0x9e37_79b9_7f4a_7c15;
    let mut random = Random(seed);
    for config in [
        config(),
        Config::DEFAULT,
        Config {
            features: legacy_features(),
            ..Config::DEFAULT
        },
        Config {
            features: everything()
                .with_interrupt_remapping(false)
                .with_extended_interrupt_mode(false),
            address_width: 57,
            pasid_bits: 5,
            ..Config::DEFAULT
        },
    ] {
        let guest = Guest::with(config);
        guest.build_tables();
        guest.poke(CONTEXT + u64::from(SOURCE_ID) * 32, DIRECTORY | 0b1_1101);
        guest.map(0x5000, 0x10_0000);
        for round in 0..20_000 {
            random.act(&guest);
            guest.notes.events.lock().unwrap().clear();
            if round % 10 == 0 {
                let there = guest.beside();
                load(&there, &guest.unit.save());
                assert_eq!(registers(&there), registers(&guest));
            }
        }
    }
}

fn legacy_features() -> Features {
    Features::new()
        .with_second_stage(true)
        .with_device_tlb(true)
        .with_interrupt_remapping(true)
}

/// xorshift.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Something that a guest or a device may do.
    fn act(&mut self, guest: &Guest) {
        let any = self.next();
        let value = self.pick(&[
            any,
            any & 0xfff | QUEUE,
            1 << (any & 63),
            ROOT | 1 << 10,
            QUEUE | 0x800,
            0,
            u64::MAX,
            0x40,
        ]);
        match self.below(16) {
            0..6 => {
                let at = (self.next() % 0x300) & !3;
                let size = if at % 8 == 0 && any & 1 == 0 { 8 } else { 4 };
                guest.unit.mmio_write(at, size, value).unwrap();
            }
            6..9 => {
                let control = self.pick(&[FECTL, IECTL, PECTL, FSTS, ICS, PRS, IQT, PQH]);
                guest.unit.mmio_write(control, 4, value).unwrap();
            }
            9 => {
                let bits =
                    self.pick(&[QIE, QIE | TE, QIE | SRTP, TE, SIRTP, IRE | QIE, 1 << 23, 0]);
                guest.write32(GCMD, bits);
            }
            10 => {
                let at = QUEUE + self.next() % 0x1000 / 32 * 32;
                guest.poke(at, any & 0xffff_0000_ffff_fff0 | (self.next() % 10));
                guest.poke(at + 8, self.pick(&[STATUS, any, 0]));
            }
            11 => {
                let request = PageRequest {
                    address: any,
                    pasid: (any & 1 != 0).then_some(any as u32 >> 12),
                    read: true,
                    last: any & 2 != 0,
                    group: (any >> 3) as u16 & 0x1ff,
                    ..PageRequest::default()
                };
                let _refused = guest.unit.page_request(guest.device, request);
            }
            12 => drop(remap(guest, any & 0x3ff)),
            _ => {
                let pasid = (any & 3 == 0).then_some((any >> 8) as u32 & 0xf_ffff);
                let address = self.pick(&[0x5000, any, any & 0xffff_f000]);
                let _answer = ask(guest, address, pasid, any & 4 != 0);
            }
        }
    }
}
