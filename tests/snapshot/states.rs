//! Guests in states that have something in every field.

use crate::common::*;
use crate::*;
use nested_vtd::unit::{Config, PageRequest};

/// The interrupt remapping table, with 2^8 entries, and the page request queue.
pub const IRT: u64 = 0x1_0000;
pub const RING: u64 = 0x20_0000;

pub const FAULT_MSI: (u64, u32) = (0x1_fee0_1000, 0x41);
pub const WAIT_MSI: (u64, u32) = (0xfee0_2000, 0x42);
pub const PAGE_MSI: (u64, u32) = (0xfee0_3000, 0x43);

/// A unit with all that there is.
pub fn config() -> Config {
    Config {
        features: everything(),
        pasid_bits: 20,
        ..Config::DEFAULT
    }
}

/// A unit with all that there is, and a guest whose device goes through a first-stage table,
/// has page requests, and whose interrupts are remapped; the events are masked.
pub fn all_on() -> Guest {
    let mut guest = Guest::with(config());
    guest.build_tables();
    // DTE, PASIDE, PRE.
    guest.poke(CONTEXT + u64::from(SOURCE_ID) * 32, DIRECTORY | 0b1_1101);
    guest.map(0x5000, 0x10_0000);
    for (at, value) in [
        (FEDATA, FAULT_MSI.1),
        (FEADDR, FAULT_MSI.0 as u32),
        (FEUADDR, (FAULT_MSI.0 >> 32) as u32),
        (IEDATA, WAIT_MSI.1),
        (IEADDR, WAIT_MSI.0 as u32),
        (PEDATA, PAGE_MSI.1),
        (PEADDR, PAGE_MSI.0 as u32),
    ] {
        guest.write32(at, value);
    }
    guest.write64(PQH, 0);
    guest.write64(PQT, 0);
    guest.write64(PQA, RING);
    guest.enable();
    guest.write64(IRTA, IRT | 7);
    let on = QIE | TE;
    guest.write32(GCMD, on | SIRTP);
    guest.write32(GCMD, on | IRE);
    // Present, vector 0x55, destination 1.
    guest.poke(IRT + 3 * 16, 0x0000_0100_0055_0001);
    guest
}

/// A wait that raises the completion event.
pub fn wait_with_interrupt() -> [u64; 2] {
    [5 | 1 << 4, 0]
}

pub fn page_request(guest: &Guest, address: u64, group: u16) {
    let request = PageRequest {
        address,
        group,
        read: true,
        last: true,
        ..PageRequest::default()
    };
    guest.unit.page_request(guest.device, request).unwrap();
}

/// Faults of different pages.
pub fn fault(guest: &Guest, count: u64) {
    for index in 0..count {
        assert_eq!(read(guest, 0x10_0000 + (index << 12)), Err(0x71));
    }
}

/// Something is in every field: a full fault log whose third record is the oldest, a queue that
/// stopped in the middle, masked events that wait, half-written registers, page requests.
pub fn busy() -> Guest {
    let mut guest = all_on();
    fault(&guest, 8);
    for record in 0..2 {
        guest.write32(FRCD + record * 16 + 12, 1 << 31);
    }
    // Into the two that are free, and beyond.
    assert_eq!(ask(&guest, 0x7777_7000, Some(0), true), Err(0x71));
    assert_eq!(ask(&guest, 0x7777_8000, None, true), Err(0x71));
    assert_eq!(ask(&guest, 0x7777_9000, None, true), Err(0x71));
    page_request(&guest, 0x1_2000, 5);
    page_request(&guest, 0x1_3000, 6);
    guest.write64(PQH, 32);
    // A type that there is not, behind some that there are.
    guest.submit(&[wait(7), wait_with_interrupt(), [0xf, 0], wait(8)]);
    guest.write64(CCMD, 0x4000_0001_0018_0005);
    guest.write64(IVA, 0x5000);
    guest.write64(IOTLB, 0x3000_0005_0000_0000);
    // Not in force.
    guest.write32(RTADDR + 4, 0x17);
    guest.write32(IRTA, 0x7_0000 | 1 << 11);
    assert_eq!(guest.read32(FSTS) & 0xff, PFO | PPF | IQE);
    assert_eq!(guest.read64(IQH), 64);
    for control in [FECTL, IECTL, PECTL] {
        assert_eq!(guest.read32(control), IM | IP);
    }
    assert_eq!(sent(&guest), []);
    guest
}

/// Legacy mode, 39 bits, 128-bit descriptors, nothing else.
pub fn legacy() -> Guest {
    let guest = Guest::with(Config {
        features: Features::new()
            .with_second_stage(true)
            .with_second_stage_2m(true),
        address_width: 39,
        ..Config::DEFAULT
    });
    // Root, context (AW 39 bits, domain 5), three levels, 0x5000.
    guest.poke(ROOT, CONTEXT | 1);
    guest.poke(CONTEXT + u64::from(SOURCE_ID) * 16, PDPT | 1);
    guest.poke(
        CONTEXT + u64::from(SOURCE_ID) * 16 + 8,
        u64::from(DOMAIN) << 8 | 1,
    );
    guest.poke(PDPT, PD | 3);
    guest.poke(PD, PT | 3);
    guest.poke(PT + 5 * 8, 0x10_0000 | 3);
    guest.write64(IQA, QUEUE | 2);
    guest.write32(GCMD, QIE);
    guest.write64(RTADDR, ROOT);
    guest.write32(GCMD, QIE | SRTP);
    guest.write32(GCMD, QIE | TE);
    // Nine descriptors of 16 bytes, the first an invalidation of the domain's translations.
    guest.poke(QUEUE, 2 | 2 << 4 | u64::from(DOMAIN) << 16);
    for index in 1..9 {
        guest.poke(QUEUE + index * 16, 5 | 1 << 6);
    }
    guest.write64(IQT, 9 * 16);
    assert_eq!(guest.read64(IQH), 9 * 16);
    guest
}

/// The rest of the lists of damaged and of kept states.
pub fn first_stage() -> Guest {
    let mut guest = Guest::with(Config::DEFAULT);
    guest.build_tables();
    guest.map(0x5000, 0x10_0000);
    guest.enable();
    guest.submit(&[wait(1)]);
    fault(&guest, 1);
    guest
}
