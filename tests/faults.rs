//! Which table content gives which fault, and how faults reach the guest.

mod common;

use common::*;
use nested_vtd::unit::{Config, HostKind, Request};

const FSTS: u64 = 0x34;
const FECTL: u64 = 0x38;
const FRCD: u64 = 0x220;

fn booted(config: Config) -> Guest {
    let mut guest = Guest::with(config);
    guest.build_tables();
    guest.map(0x5000, 0x10_0000);
    guest.enable();
    guest
}

fn direct() -> Guest {
    booted(Config::default())
}

fn dma(guest: &Guest, address: u64, write: bool) -> u8 {
    let request = Request {
        address,
        read: !write,
        write,
        ..Request::default()
    };
    let answer = guest.unit.translate(guest.device, request).unwrap();
    answer.result.err().map_or(0, |fault| fault.reason.code())
}

/// Beyond the 48-bit guest-physical address width.
const BEYOND: u64 = 1 << 48;
/// In the address width, but not RAM.
const NOWHERE: u64 = 0x7000_0000_0000;

#[test]
fn every_table_error_has_its_reason() {
    let context = CONTEXT + u64::from(SOURCE_ID) * 32;
    let fs_leaf = PT + 5 * 8;
    let large = PWU | 0x80;
    // Where, what, and the fault reason of a read at 0x5000.
    let cases = [
        (ROOT, 0, 0x39),
        (ROOT, CONTEXT | 1 | 0x800, 0x3a),
        (ROOT, BEYOND | 1, 0x3a),
        (ROOT, NOWHERE | 1, 0x40),
        (context, 0, 0x41),
        (context, DIRECTORY | 1 | 0x20, 0x42),
        (context, DIRECTORY | 1 | 0x4, 0x42), // DTE without ECAP.DT
        (context, DIRECTORY | 1 | 0x8, 0x42), // PASIDE without ECAP.PASID
        (context, DIRECTORY | 1 | 0x10, 0x42), // PRE without ECAP.PRS
        (context, BEYOND | 1, 0x42),
        (context, NOWHERE | 1, 0x50),
        (context + 8, 1 << 21, 0x42),
        (context + 16, 1, 0x42),
        (context + 24, 1 << 63, 0x42),
        (DIRECTORY, 0, 0x51),
        (DIRECTORY, PASID_TABLE | 1 | 0x4, 0x52),
        (DIRECTORY, BEYOND | 1, 0x52),
        (DIRECTORY, NOWHERE | 1, 0x58),
        (PASID_TABLE, 0x40, 0x59),
        (PASID_TABLE, 0x40 | 1 | 0x400, 0x5a),
        (PASID_TABLE, 0x40 | 1 | 0x200, 0x5a), // SSADE without ECAP.SSADS
        (PASID_TABLE + 8, 1 << 16, 0x5a),
        (PASID_TABLE + 8, 1 << 26, 0x5a), // EMTE without ECAP.MTS
        (PASID_TABLE + 16, PML4 | 0x100, 0x5a),
        (PASID_TABLE + 16, PML4 | 0x1, 0x5a), // SRE without ECAP.SRS
        (PASID_TABLE + 16, PML4 | 0x2, 0x5a), // ERE without ECAP.ERS
        (PASID_TABLE + 16, PML4 | 0x80, 0x5a), // EAFE without ECAP.EAFS
        (PASID_TABLE + 24, 1, 0x5a),
        (PASID_TABLE + 56, 1 << 63, 0x5a),
        (PASID_TABLE, 1, 0x5b),               // PGTT 0
        (PASID_TABLE, 0x80 | 1, 0x5b),        // second stage without ECAP.SSTS
        (PASID_TABLE, 0xc0 | 1, 0x5b),        // nested without ECAP.NEST
        (PASID_TABLE, 0x140 | 1, 0x5b),       // PGTT 5
        (PASID_TABLE + 16, PML4 | 0x4, 0x5b), // 5-level without CAP.FS5LP
        (PASID_TABLE + 16, PML4 | 0x8, 0x5b), // FSPM 2
        (PASID_TABLE + 16, BEYOND, 0x5a),
        (PASID_TABLE + 16, NOWHERE, 0x73),
        (PML4, 0, 0x71),
        (PML4, PDPT | PWU | 0x80, 0x72), // PS in a PML4E
        (PML4, NOWHERE | PWU, 0x70),
        (PML4, PDPT | 0b011, 0x81),
        (PDPT, 0, 0x71),
        (PDPT, large | 0x2000, 0x72), // misaligned 1 GiB
        (PD, large | 0x2000, 0x72),   // misaligned 2 MiB
        (PD, 0, 0x71),
        (fs_leaf, 0, 0x71),
        (fs_leaf, BEYOND | PWU, 0x72),
        (fs_leaf, 0x10_0000 | 0b011, 0x81),
        (fs_leaf, 0xfee0_0000 | PWU, 0x87),
        (fs_leaf, 0xfeef_f000 | PWU, 0x87),
        (fs_leaf, 0xfef0_0000 | PWU, 0),
        (fs_leaf, 0xfedf_f000 | PWU, 0),
    ];
    for (gpa, value, reason) in cases {
        let guest = direct();
        guest.poke(gpa, value);
        assert_eq!(dma(&guest, 0x5000, false), reason, "{value:#x} at {gpa:#x}");
    }
}

#[test]
fn the_address_must_be_canonical_and_writes_allowed() {
    let guest = direct();
    for address in [1 << 47, 1 << 48, 1 << 63, 0xffff_0000_0000_0000] {
        assert_eq!(dma(&guest, address, false), 0x80, "{address:#x}");
    }
    assert_eq!(dma(&guest, 0xffff_8000_0000_0000, false), 0x71);
    guest.poke(PT + 5 * 8, 0x10_0000 | 0b101);
    assert_eq!(dma(&guest, 0x5000, false), 0);
    assert_eq!(dma(&guest, 0x5000, true), 0x85);
    // Read-only further up holds for everything below.
    guest.map(0x5000, 0x10_0000);
    guest.poke(PD, PT | 0b101);
    assert_eq!(dma(&guest, 0x5000, true), 0x85);
}

#[test]
fn one_gigabyte_pages_need_the_capability() {
    for (first_stage_1g, reason) in [(true, 0), (false, 0x72)] {
        let guest = booted(Config {
            features: Config::DEFAULT.features.with_first_stage_1g(first_stage_1g),
            ..Config::default()
        });
        guest.poke(PDPT, PWU | 0x80);
        assert_eq!(dma(&guest, 0x5000, false), reason);
    }
}

#[test]
fn pass_through_needs_the_capability() {
    for (pass_through, reason) in [(true, 0), (false, 0x5b)] {
        let guest = booted(Config {
            features: Config::DEFAULT.features.with_pass_through(pass_through),
            ..Config::default()
        });
        guest.set_pasid_entry(4);
        assert_eq!(dma(&guest, 0x5000, false), reason);
    }
    let guest = direct();
    guest.set_pasid_entry(4);
    assert_eq!(dma(&guest, BEYOND - 1, false), 0);
    assert_eq!(dma(&guest, BEYOND, false), 0x83);
}

#[test]
fn table_modes_that_are_not_reported_refuse_everything() {
    // The scalable-mode tables, read as legacy ones, have no context entry there.
    for (mode, reason) in [(0, 0x02), (2, 0x30), (3, 0x30)] {
        let guest = direct();
        guest.write64(0x20, ROOT | mode << 10);
        guest.write32(0x18, 1 << 31 | 1 << 26 | 1 << 30);
        assert_eq!(dma(&guest, 0x5000, false), reason, "TTM {mode}");
    }
    let guest = direct();
    guest.write64(0x20, ROOT | 2 << 10);
    guest.write32(0x18, 1 << 31 | 1 << 26 | 1 << 30);
    guest.write32(0x88, 32);
    assert_eq!(guest.read64(0xb0) & 0xf, 7);
}

#[test]
fn a_fault_is_recorded_and_signalled_once() {
    let guest = direct();
    guest.write32(0x3c, 0x41);
    guest.write32(0x40, 0xfee0_1000);
    assert_eq!(guest.read32(FECTL), 1 << 31, "masked after reset");
    assert_eq!(dma(&guest, 0x7123, true), 0x71);
    assert_eq!(
        guest.read32(FECTL),
        1 << 31 | 1 << 30,
        "pending while masked"
    );
    assert!(guest.notes.msis.lock().unwrap().is_empty());
    guest.write32(FECTL, 0);
    assert_eq!(*guest.notes.msis.lock().unwrap(), [(0xfee0_1000, 0x41)]);
    assert_eq!(guest.read32(FECTL), 0);

    assert_eq!(guest.read32(FSTS), 2, "PPF, FRI 0");
    assert_eq!(guest.read64(FRCD), 0x7000);
    // F, T1 0 (write), reason 71, SID 00:03.0.
    assert_eq!(guest.read64(FRCD + 8), 1 << 63 | 0x71 << 32 | 0x18);
    assert_eq!(dma(&guest, 0x8000, false), 0x71);
    assert_eq!(
        guest.read64(FRCD + 24),
        1 << 63 | 1 << 62 | 0x71 << 32 | 0x18,
        "T1 1 (read)"
    );
    assert_eq!(
        guest.notes.msis.lock().unwrap().len(),
        1,
        "not again before it is served"
    );

    // As Linux serves it: F by a 4-byte write, then FSTS.
    guest.write32(FRCD + 12, 1 << 31);
    assert_eq!(guest.read32(FSTS), 2 | 1 << 8, "FRI moves on");
    guest.write32(FRCD + 28, 1 << 31);
    guest.write32(FSTS, 0x83);
    assert_eq!(guest.read32(FSTS), 0);
    assert_eq!(dma(&guest, 0x9000, false), 0x71);
    assert_eq!(guest.notes.msis.lock().unwrap().len(), 2);
    assert_eq!(guest.read32(FSTS), 2 | 2 << 8);
}

#[test]
fn a_full_log_overflows_and_says_so() {
    let guest = direct();
    for index in 0..10 {
        dma(&guest, 0x7000 + (index << 12), false);
    }
    assert_eq!(guest.read32(FSTS), 0b11, "PFO and PPF");
    assert_eq!(guest.unit.stats().fault_overflows, 2);
    assert_eq!(guest.unit.stats().faults, 10);
    for index in 0..8 {
        guest.write32(FRCD + index * 16 + 12, 1 << 31);
    }
    assert_eq!(guest.read32(FSTS), 0b1);
    dma(&guest, 0x7000, false);
    assert_eq!(
        guest.read32(FSTS),
        0b1,
        "nothing is recorded before PFO is cleared"
    );
    guest.write32(FSTS, 1);
    dma(&guest, 0x7000, false);
    assert_eq!(guest.read32(FSTS), 0b10);
}

#[test]
fn fault_processing_disabled_keeps_quiet() {
    let context = CONTEXT + u64::from(SOURCE_ID) * 32;
    for (gpa, value) in [
        (context, DIRECTORY | 0b11),
        (context, 0b10),
        (DIRECTORY, 0b10),
        (PASID_TABLE, 0b10),
        (PASID_TABLE, 0x40 | 0b11),
    ] {
        let guest = direct();
        guest.poke(gpa, value);
        assert_ne!(dma(&guest, 0x7000, false), 0);
        assert_eq!(guest.read32(FSTS), 0, "{value:#x} at {gpa:#x}");
        assert_eq!(guest.unit.stats().faults, 1, "counted all the same");
    }
}

#[test]
fn a_debug_look_leaves_no_trace() {
    let guest = direct();
    for address in [0x5000, 0x7000] {
        let request = Request {
            address,
            read: true,
            write: false,
            debug: true,
            ..Request::default()
        };
        guest.unit.translate(guest.device, request).unwrap();
    }
    assert_eq!(guest.read32(FSTS), 0);
    assert_eq!(guest.peek(PT + 5 * 8), 0x10_0000 | PWU);
    let stats = guest.unit.stats();
    assert_eq!((stats.translations, stats.faults, stats.walks), (0, 0, 0));
}

#[test]
fn accessed_and_dirty_bits_are_set_as_the_access_asks() {
    let guest = direct();
    dma(&guest, 0x5000, false);
    for (gpa, entry) in [(PML4, PDPT), (PDPT, PD), (PD, PT), (PT + 5 * 8, 0x10_0000)] {
        assert_eq!(guest.peek(gpa), entry | PWU | 0x20, "{gpa:#x}");
    }
    dma(&guest, 0x5000, true);
    assert_eq!(guest.peek(PT + 5 * 8), 0x10_0000 | PWU | 0x60);
    assert_eq!(guest.peek(PD), PT | PWU | 0x20, "dirty is the leaf's");
    dma(&guest, 0x7000, true);
    assert_eq!(guest.peek(PT + 7 * 8), 0);
}

#[test]
fn a_queue_error_stops_the_queue_until_it_is_cleared() {
    let mut guest = Guest::new(HostKind::None);
    guest.build_tables();
    guest.enable();
    guest.submit(&[wait(1), [0xa, 0], wait(2)]);
    assert_eq!(guest.peek(STATUS), 1);
    assert_eq!((guest.read64(0x80), guest.read64(0xb0) & 0xf), (32, 3));
    assert_eq!(guest.read32(FSTS), 0x10);
    // The guest replaces the descriptor and clears IQE; no new tail follows.
    let [low, high] = wait(7);
    guest.poke(QUEUE + 32, low);
    guest.poke(QUEUE + 40, high);
    guest.write32(FSTS, 0x10);
    assert_eq!(guest.peek(STATUS), 2);
    assert_eq!((guest.read64(0x80), guest.read64(0xb0)), (96, 0));

    // Tails: beyond the ring, and not a multiple of 32.
    guest.write32(0x88, 0x1000);
    assert_eq!(guest.read64(0xb0) & 0xf, 1);
    guest.write32(0x88, 96);
    guest.write32(FSTS, 0x10);
    guest.write32(0x88, 0x70);
    assert_eq!(guest.read64(0xb0) & 0xf, 6);
}

#[test]
fn completion_events_follow_their_mask() {
    let mut guest = Guest::new(HostKind::None);
    guest.build_tables();
    guest.enable();
    let interrupting = [5 | 1 << 4, 0];
    guest.write32(0xa4, 0x52);
    guest.write32(0xa8, 0xfee0_2000);
    guest.submit(&[interrupting]);
    assert_eq!((guest.read32(0x9c), guest.read32(0xa0)), (1, 0xc000_0000));
    guest.write32(0xa0, 0);
    assert_eq!(*guest.notes.msis.lock().unwrap(), [(0xfee0_2000, 0x52)]);
    guest.submit(&[interrupting]);
    assert_eq!(
        guest.notes.msis.lock().unwrap().len(),
        1,
        "IWC is still set"
    );
    guest.write32(0x9c, 1);
    guest.submit(&[interrupting, [5 | 1 << 6, 0]]);
    assert_eq!(guest.notes.msis.lock().unwrap().len(), 2);
}

#[test]
fn narrow_descriptors_serve_until_scalable_mode_is_set() {
    let guest = Guest::new(HostKind::None);
    guest.write64(0x90, QUEUE);
    guest.write32(0x18, 1 << 26);
    guest.poke(QUEUE, wait(9)[0]);
    guest.poke(QUEUE + 8, STATUS);
    guest.write32(0x88, 16);
    assert_eq!((guest.peek(STATUS), guest.read64(0x80)), (9, 16));
    guest.write64(0x20, ROOT | 1 << 10);
    guest.write32(0x18, 1 << 26 | 1 << 30);
    guest.write32(0x88, 32);
    assert_eq!(guest.read64(0xb0) & 0xf, 5);
}
