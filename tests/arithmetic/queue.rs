//! The invalidation queue as a ring: heads, tails and sizes.

use nested_vtd::unit::{Config, Features};

use crate::common::*;
use crate::{EVERYTHING, count};

const IQH: u64 = 0x80;
const IQT: u64 = 0x88;
const IQA: u64 = 0x90;
const FSTS: u64 = 0x34;
const IQERCD: u64 = 0xb0;
const GCMD: u64 = 0x18;
const QIE: u32 = 1 << 26;
const IQE: u32 = 1 << 4;

/// The ring; up to 512 KiB.
const RING: u64 = 0x10_0000;
/// What descriptor n writes its number to.
const WRITTEN: u64 = 0x20_0000;

/// Descriptors of 128 or 256 bits.
#[derive(Debug, Clone, Copy)]
struct Shape {
    size: u64,
    wide: bool,
}

impl Shape {
    const ALL: fn() -> Vec<Self> = || {
        let sizes = (0..8).flat_map(|size| [false, true].map(|wide| Self { size, wide }));
        sizes.collect()
    };

    fn bytes(self) -> u64 {
        if self.wide { 32 } else { 16 }
    }

    /// 2^(QS + 8) descriptors of 128 bits, 2^(QS + 7) of 256 (11.4.9.3).
    fn descriptors(self) -> u64 {
        1 << (self.size + if self.wide { 7 } else { 8 })
    }
}

/// A ring in which descriptor n is a wait that writes n + 1 to its own place.
struct Ring {
    guest: Guest,
    shape: Shape,
}

impl Ring {
    fn new(shape: Shape) -> Self {
        let guest = Guest::with(Config {
            // Legacy mode takes both widths.
            features: Features::new().with_second_stage(true),
            ..Config::default()
        });
        for number in 0..shape.descriptors() {
            let at = RING + number * shape.bytes();
            guest.poke(at, 5 | 1 << 5 | (number + 1) << 32);
            guest.poke(at + 8, WRITTEN + number * 8);
        }
        let ring = Self { guest, shape };
        ring.restart();
        ring
    }

    fn restart(&self) {
        self.guest.write32(GCMD, 0);
        self.guest.write64(IQT, 0);
        let width = u64::from(self.shape.wide) << 11;
        self.guest.write64(IQA, RING | width | self.shape.size);
        self.guest.write32(GCMD, QIE);
        assert_eq!(self.guest.read64(IQH), 0);
    }

    /// Software moves the tail to a descriptor.
    fn go(&self, tail: u64) {
        self.guest.write64(IQT, tail * self.shape.bytes());
        // A large queue is more than one call's share.
        for _ in 0..64 {
            if self.guest.read64(IQH) == tail * self.shape.bytes() {
                return;
            }
            self.guest.unit.work();
        }
        panic!("{:?}: the queue does not get to {tail}", self.shape);
    }

    /// Was exactly what is from head to tail executed? Forgets what was.
    fn executed(&self, head: u64, tail: u64) {
        let mut number = head;
        while number != tail {
            let at = WRITTEN + number * 8;
            assert_eq!(
                self.guest.peek(at),
                number + 1,
                "{:?}: {head} to {tail}",
                self.shape
            );
            self.guest.poke(at, 0);
            number += 1;
            if number == self.shape.descriptors() {
                number = 0;
            }
        }
    }

    fn nothing_else(&self) {
        for number in 0..self.shape.descriptors() {
            assert_eq!(
                self.guest.peek(WRITTEN + number * 8),
                0,
                "{:?}: {number}",
                self.shape
            );
        }
    }
}

/// Every head and every tail of the smallest queues, of both widths.
#[test]
fn all_between_head_and_tail_is_executed() {
    let mut cases = 0;
    for wide in [true, false] {
        let ring = Ring::new(Shape { size: 0, wide });
        let count = ring.shape.descriptors();
        // At least every head, with tails that are near it on either side.
        for distance in (0..count).filter(|&it| EVERYTHING || it < 8 || it + 4 > count) {
            let mut head = 0;
            ring.restart();
            // Steps of this length, from each descriptor once.
            for start in 0..count {
                ring.go(start);
                ring.executed(head, start);
                head = (start + distance) % count;
                ring.go(head);
                ring.executed(start, head);
                cases += 1;
                if start % 64 == 0 {
                    ring.nothing_else();
                }
            }
        }
    }
    count("heads and tails", cases);
}

/// Every size: across the end, from its last descriptor, by all but one.
#[test]
fn every_size_wraps_at_its_end() {
    let mut cases = 0;
    for shape in Shape::ALL() {
        let ring = Ring::new(shape);
        let count = shape.descriptors();
        let mut head = 0;
        for tail in [
            1,
            0,
            count - 1,
            0,
            count / 2,
            count - 2,
            1,
            count - 1,
            count - 2,
        ] {
            ring.go(tail);
            ring.executed(head, tail);
            head = tail;
            cases += 1;
        }
        ring.nothing_else();
    }
    count("ways around queues", cases);
}

/// Every tail: those beyond the queue, or between two descriptors, stop it and execute nothing.
#[test]
fn tails_that_are_none_are_refused() {
    let mut cases = 0;
    for shape in Shape::ALL() {
        let ring = Ring::new(shape);
        let bytes = 0x1000 << shape.size;
        // In steps of 16: IQT has no bits below.
        for tail in (0..0x8_0000).step_by(16) {
            let good = tail < bytes && tail % shape.bytes() == 0;
            let at_an_end = !(64..0x1000 - 64).contains(&(tail % 0x1000));
            if good || !(EVERYTHING || at_an_end) {
                continue;
            }
            ring.guest.write64(IQT, tail);
            assert_eq!(ring.guest.read64(IQT), tail);
            assert_eq!(ring.guest.read64(IQH), 0, "{shape:?} {tail:#x}");
            assert_eq!(ring.guest.read32(FSTS), IQE, "{shape:?} {tail:#x}");
            let why = if tail >= bytes { 1 } else { 6 };
            assert_eq!(ring.guest.read64(IQERCD), why, "{shape:?} {tail:#x}");
            ring.guest.write64(IQT, 0);
            ring.guest.write32(FSTS, IQE);
            cases += 1;
        }
        ring.nothing_else();
    }
    count("tails that are none", cases);
}
