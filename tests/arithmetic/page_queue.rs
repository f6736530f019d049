//! The page request queue as a ring.

use nested_vtd::unit::{Config, PageRequest};

use crate::common::*;
use crate::count;

const PQH: u64 = 0xc0;
const PQT: u64 = 0xc8;
const PQA: u64 = 0xd0;
const PRS: u64 = 0xdc;
const PPR: u32 = 1;
const PRO: u32 = 2;

const RING: u64 = 0x20_0000;

fn asking() -> Guest {
    let mut guest = Guest::with(Config {
        features: Config::DEFAULT
            .features
            .with_device_tlb(true)
            .with_page_request(true),
        ..Config::DEFAULT
    });
    guest.build_tables();
    // P, DTE, PRE.
    guest.poke(CONTEXT + u64::from(SOURCE_ID) * 32, DIRECTORY | 0b1_0101);
    guest.enable();
    guest
}

/// One request with these registers: where it goes, and what becomes of the tail.
fn ask(guest: &Guest, size: u64, (head, tail): (u64, u64)) {
    let bytes = 0x1000 << size;
    guest.write64(PQA, RING | size);
    guest.write64(PQH, head);
    guest.write64(PQT, tail);
    let request = PageRequest {
        address: 0x7000,
        read: true,
        last: true,
        ..PageRequest::default()
    };
    guest.unit.page_request(guest.device, request).unwrap();
    let status = guest.read32(PRS);
    guest.write32(PRS, PPR | PRO);
    // One place stays free: a full queue is not an empty one (7.4.1).
    let next = if tail + 32 == bytes { 0 } else { tail + 32 };
    let fits = head < bytes && tail < bytes && next != head;
    let after = if fits { next } else { tail };
    let what = format!("QS {size}, {head:#x}, {tail:#x}");
    assert_eq!(status, if fits { PPR } else { PRO }, "{what}");
    assert_eq!(
        (guest.read64(PQH), guest.read64(PQT)),
        (head, after),
        "{what}"
    );
    let place = RING + tail;
    let written = guest.peek(place) != 0;
    assert_eq!(written, fits, "{what}");
    guest.poke(place, 0);
    guest.poke(place + 8, 0);
}

#[test]
fn requests_go_to_the_tail_of_a_queue_that_is_not_full() {
    let guest = asking();
    let mut cases = 0;
    // Every head and tail of the smallest, and some beyond.
    for head in (0..0x1080).step_by(32) {
        for tail in (0..0x1080).step_by(32) {
            ask(&guest, 0, (head, tail));
            cases += 1;
        }
    }
    for size in 1..8 {
        let bytes = 0x1000 << size;
        let places = [
            0,
            32,
            64,
            bytes / 2,
            bytes - 64,
            bytes - 32,
            bytes,
            bytes + 32,
            0x7_ffe0,
        ];
        let places = places.map(|place: u64| place & 0x7_ffe0);
        for head in places {
            for tail in places {
                ask(&guest, size, (head, tail));
                cases += 1;
            }
        }
    }
    let all: u64 = (0..0x10_0000 / 8)
        .map(|qword| guest.peek(RING + qword * 8))
        .sum();
    assert_eq!(all, 0, "something was written elsewhere");
    count("page requests", cases);
}
