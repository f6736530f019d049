//! Interrupt remapping as a guest programs it: IRTA, GCMD, the table, its cache and its
//! faults.

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};

use common::*;
use nested_vtd::interrupt::{Message, Request};
use nested_vtd::unit::Config;

const GCMD: u64 = 0x18;
const GSTS: u64 = 0x1c;
const FSTS: u64 = 0x34;
const IQERCD: u64 = 0xb0;
const IRTA: u64 = 0xb8;
const FRCD: u64 = 0x220;

const CFI: u32 = 1 << 23;
const SIRTP: u32 = 1 << 24;
const IRE: u32 = 1 << 25;
const QIE: u32 = 1 << 26;
const EIME: u64 = 1 << 11;

/// The table, with 2^8 entries.
const TABLE: u64 = 0x1_0000;
const SIZE: u64 = 7;

/// The I/O APIC, as QEMU numbers it.
const IOAPIC: u16 = 0xff00;

fn config(extended: bool) -> Config {
    let features = Config::DEFAULT
        .features
        .with_interrupt_remapping(true)
        .with_extended_interrupt_mode(extended);
    Config {
        features,
        ..Config::DEFAULT
    }
}

/// As Linux starts: queue on, table set, remapping on.
fn booted(extended: bool) -> Guest {
    let mut guest = Guest::with(config(extended));
    guest.enable();
    let keep = guest.read32(GSTS) & 0xa600_0000;
    let mode = if extended { EIME } else { 0 };
    guest.write64(IRTA, TABLE | mode | SIZE);
    guest.write32(GCMD, keep | SIRTP);
    guest.write32(GCMD, keep | IRE);
    assert_eq!(guest.read32(GSTS) & (SIRTP | IRE | CFI), SIRTP | IRE);
    guest.notes.forgotten.lock().unwrap().clear();
    guest
}

fn set_entry(guest: &Guest, index: u64, low: u64, high: u64) {
    guest.poke(TABLE + index * 16 + 8, high);
    guest.poke(TABLE + index * 16, low);
}

/// A present entry for the 8-bit destination 1, open to all.
fn vector(vector: u64) -> u64 {
    0x0000_0100_0000_0001 | vector << 16
}

/// An MSI with this index, from the device.
fn request(index: u16) -> Request {
    let index = u64::from(index);
    Request {
        message: Message {
            address: 0xfee0_0018 | ((index & 0x7fff) << 5) | ((index >> 15) << 2),
            data: 0,
        },
        source_id: SOURCE_ID,
        verify: true,
        pasid: None,
        look: false,
    }
}

fn write(address: u64, data: u32) -> Request {
    Request {
        message: Message { address, data },
        ..request(0)
    }
}

/// The interrupt's data, or the fault code.
fn ask(guest: &Guest, request: Request) -> Result<u32, u8> {
    let outcome = guest.unit.remap_msi(request);
    outcome
        .result
        .map(|message| message.data)
        .map_err(|refusal| refusal.fault.reason.code())
}

/// Interrupt entry cache invalidate.
fn forget(index: u16, mask: u64) -> [u64; 2] {
    [0x14 | mask << 27 | u64::from(index) << 32, 0]
}

const FORGET_ALL: [u64; 2] = [4, 0];

#[test]
fn without_the_capability_there_is_nothing_to_program() {
    let mut guest = Guest::new(nested_vtd::unit::HostKind::None);
    guest.enable();
    let keep = guest.read32(GSTS);
    guest.write64(IRTA, TABLE | SIZE);
    assert_eq!(guest.read64(IRTA), 0);
    guest.write32(GCMD, (keep & 0xa600_0000) | SIRTP | IRE | CFI);
    assert_eq!(guest.read32(GSTS), keep);
    guest.submit(&[FORGET_ALL, wait(1)]);
    assert_eq!(guest.peek(STATUS), 1);
    assert_eq!(guest.read64(0x08) >> 62 & 1, 0, "CAP.ESIRTPS");
    assert_eq!(guest.read64(0x10) & 0xf0_0018, 0, "ECAP.IR, EIM and MHMV");
    assert!(guest.notes.forgotten.lock().unwrap().is_empty());
    assert_eq!(ask(&guest, write(0xfee0_0018, 0x1234)), Ok(0x1234));
}

#[test]
fn registers_hold_what_is_defined() {
    for extended in [false, true] {
        let guest = Guest::with(config(extended));
        assert_eq!(guest.read64(0x08) >> 62 & 1, 1, "CAP.ESIRTPS");
        let ecap = 0xf0_0008 | u64::from(extended) << 4;
        assert_eq!(guest.read64(0x10) & 0xf0_0018, ecap);
        guest.write64(IRTA, u64::MAX);
        let eime = if extended { EIME } else { 0 };
        assert_eq!(guest.read64(IRTA), 0xffff_ffff_ffff_f00f | eime);
        guest.write32(IRTA, 0x5002);
        assert_eq!(guest.read64(IRTA), 0xffff_ffff_0000_5002);
        guest.write32(IRTA + 4, 0x12);
        assert_eq!(guest.read64(IRTA), 0x12_0000_5002);
        guest.unit.reset();
        assert_eq!(guest.read64(IRTA), 0);
    }
}

#[test]
fn status_follows_the_switches_and_the_table_is_latched() {
    let guest = Guest::with(config(false));
    let told = || std::mem::take(&mut *guest.notes.forgotten.lock().unwrap()).len();
    let status = |command: u32| {
        guest.write32(GCMD, command);
        guest.read32(GSTS)
    };
    set_entry(&guest, 0, vector(0x31), 0);
    guest.poke(0x2_0000, vector(0x32));
    guest.write64(IRTA, TABLE | SIZE);
    assert_eq!(status(SIRTP), SIRTP);
    assert_eq!(told(), 1, "CAP.ESIRTPS");
    assert_eq!(status(0), SIRTP, "one-shot, its status stays");
    assert_eq!(told(), 0);
    assert_eq!(status(IRE), SIRTP | IRE);
    assert_eq!(told(), 1, "what passed is remapped now");
    assert_eq!(status(IRE | CFI), SIRTP | IRE | CFI);
    assert_eq!(told(), 1);
    assert_eq!(status(IRE), SIRTP | IRE);
    assert_eq!(told(), 1);
    // Another table takes effect with SIRTP, and what was cached of the first goes.
    assert_eq!(ask(&guest, request(0)), Ok(0x4031));
    guest.write64(IRTA, 0x2_0000 | SIZE);
    assert_eq!(ask(&guest, request(0)), Ok(0x4031));
    assert_eq!(status(IRE | SIRTP), SIRTP | IRE);
    assert_eq!(ask(&guest, request(0)), Ok(0x4032));
    // Off again, and after a reset.
    assert_eq!(status(0), SIRTP);
    assert_eq!(ask(&guest, write(0xfee0_0018, 0x77)), Ok(0x77));
    assert_eq!(status(IRE), SIRTP | IRE);
    told();
    guest.unit.reset();
    assert_eq!(guest.read32(GSTS), 0);
    assert_eq!(told(), 1);
    assert_eq!(ask(&guest, write(0xfee0_0018, 0x77)), Ok(0x77));
    // On without a table: nothing gets through.
    assert_eq!(status(IRE), IRE);
    assert_eq!(ask(&guest, request(0)), Err(0x23));
}

#[test]
fn table_and_switch_may_come_in_one_write() {
    let guest = Guest::with(config(true));
    set_entry(&guest, 9, 0x0001_0203_0044_0001, 0);
    guest.write64(IRTA, TABLE | EIME | SIZE);
    guest.write32(GCMD, SIRTP | IRE);
    let outcome = guest.unit.remap_msi(request(9));
    let message = Message {
        address: 0x0001_0200_fee0_3000,
        data: 0x4044,
    };
    assert_eq!(outcome.result, Ok(message));
}

#[test]
fn entries_are_used_until_they_are_invalidated() {
    let mut guest = booted(false);
    for index in 0..256 {
        set_entry(&guest, index, vector(0x40), 0);
    }
    let all = |guest: &Guest| -> Vec<u32> {
        let data = |index| ask(guest, request(index)).unwrap() & 0xff;
        (0..256).map(data).collect()
    };
    assert!(all(&guest).iter().all(|&vector| vector == 0x40));
    for index in 0..256 {
        set_entry(&guest, index, vector(0x41), 0);
    }
    assert!(all(&guest).iter().all(|&vector| vector == 0x40), "cached");
    // A look sees the same.
    let look = Request {
        look: true,
        ..request(7)
    };
    assert_eq!(ask(&guest, look), Ok(0x4040));
    guest.submit(&[forget(7, 0), forget(0x26, 3), wait(1)]);
    assert_eq!(guest.peek(STATUS), 1);
    let fresh: Vec<usize> = (0..256).filter(|&i| all(&guest)[i] == 0x41).collect();
    assert_eq!(fresh, [7, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27]);
    guest.submit(&[FORGET_ALL, wait(2)]);
    assert!(all(&guest).iter().all(|&vector| vector == 0x41));
    let told = guest.notes.forgotten.lock().unwrap().clone();
    assert_eq!(told, [Some((7, 0)), Some((0x26, 3)), None]);
    let stats = guest.unit.stats();
    assert_eq!(stats.descriptors_by_type[4], 3);
    assert_eq!(stats.interrupt_faults, 0);
    // Nine entries were read again, then all.
    assert_eq!(stats.interrupts - stats.interrupt_cache_hits, 256 + 9 + 256);
}

#[test]
fn not_present_is_not_cached() {
    let guest = booted(false);
    assert_eq!(ask(&guest, request(3)), Err(0x22));
    set_entry(&guest, 3, vector(0x50), 0);
    assert_eq!(ask(&guest, request(3)), Ok(0x4050));
}

#[test]
fn a_handle_mask_beyond_the_capability_stops_the_queue() {
    let mut guest = booted(false);
    guest.submit(&[forget(0, 15), wait(1)]);
    assert_eq!(guest.peek(STATUS), 1);
    guest.submit(&[forget(0, 16), wait(2)]);
    assert_eq!(guest.peek(STATUS), 1);
    assert_eq!(guest.read32(FSTS) & 0x10, 0x10, "IQE");
    assert_eq!(guest.read64(IQERCD) & 0xf, 4, "a reserved field");
    assert_eq!(guest.notes.forgotten.lock().unwrap().len(), 1);
}

#[test]
fn every_refusal_has_its_reason_and_its_record() {
    let no_ram = RAM_SIZE | SIZE;
    let open = (vector(0x40), 0);
    let plain = request(5);
    let shifted = |data| Request {
        message: Message {
            data,
            ..plain.message
        },
        ..plain
    };
    let pasid = Request {
        pasid: Some(0x1_2345),
        ..plain
    };
    // IRTA; entry 5; the request; reason and the index in the record.
    let table = TABLE | SIZE;
    let cases = [
        (table, open, shifted(0x1_0000), 0x20, 0),
        (table, open, write(0x1_fee0_0018, 0), 0x20, 0),
        (table, open, request(0x100), 0x21, 0x100),
        (table, open, shifted(0xfb), 0x21, 0x100),
        (table, open, write(0xfeef_fffc, 6), 0x21, 5),
        (1 << 48 | SIZE, open, plain, 0x21, 5),
        (table, (0, 0), plain, 0x22, 5),
        (no_ram, open, plain, 0x23, 5),
        (table, (vector(0x40) | 0x8000, 0), plain, 0x24, 5),
        (table, (vector(0x40), 0xc_0000), plain, 0x24, 5),
        (table, open, write(0xfee0_1000, 0x40), 0x25, 0),
        (table, (vector(0x40), 0x4_0019), plain, 0x26, 5),
        (table, (vector(0x40), 0x8_0102), plain, 0x26, 5),
        (table, open, pasid, 0x29, 0),
    ];
    for (irta, (low, high), request, reason, index) in cases {
        let at = format!("{irta:#x} {low:#x} {high:#x} {request:x?}");
        for fault_disable in [false, true] {
            let guest = booted(false);
            guest.write64(IRTA, irta);
            guest.write32(GCMD, guest.read32(GSTS) & 0xa600_0000 | SIRTP);
            set_entry(&guest, 5, low | u64::from(fault_disable) << 1, high);
            let look = Request {
                look: true,
                ..request
            };
            assert_eq!(ask(&guest, look), Err(reason), "{at}");
            assert_eq!(guest.read32(FSTS), 0, "{at}: a look records nothing");
            assert_eq!(guest.unit.stats().interrupts, 0);
            assert_eq!(ask(&guest, request), Err(reason), "{at}");
            let stats = guest.unit.stats();
            assert_eq!((stats.interrupts, stats.interrupt_faults), (1, 1), "{at}");
            assert_eq!(stats.memory_errors, u64::from(reason == 0x23));
            // FPD qualifies what an entry says, and nothing that comes before it.
            let recorded = !fault_disable || matches!(reason, 0x20 | 0x21 | 0x23 | 0x25 | 0x29);
            assert_eq!(guest.read32(FSTS) & 2 != 0, recorded, "{at}");
            if recorded {
                assert_eq!(guest.read64(FRCD), index << 48, "{at}");
                let record = guest.read64(FRCD + 8);
                assert_eq!(record & 0xffff, SOURCE_ID.into(), "{at}");
                assert_eq!(record >> 32 & 0xff, reason.into(), "{at}");
                // Pending; neither a read nor a page request.
                assert_eq!(record >> 60, 0b1000, "{at}");
                assert_eq!(record >> 28 & 1, 0, "{at}");
                let pasid = request
                    .pasid
                    .map_or(0, |pasid| 1 << 31 | u64::from(pasid) << 40);
                assert_eq!(record & 0x0fff_ff00_8000_0000, pasid, "{at}");
            }
        }
    }
}

#[test]
fn fault_events_are_sent_as_programmed() {
    let guest = booted(false);
    guest.write32(0x3c, 0x4321); // FEDATA
    guest.write32(0x40, 0xfee0_0018); // FEADDR: remappable format, if it were a request
    guest.write32(0x38, 0); // FECTL
    assert_eq!(ask(&guest, request(1)), Err(0x22));
    assert_eq!(
        *guest.notes.msis.lock().unwrap(),
        [(0xfee0_0018, 0x4321)],
        "the unit's own interrupts are not remapped"
    );
}

#[test]
fn requesters_are_verified_unless_the_vmm_cannot_tell_them() {
    let guest = booted(false);
    set_entry(&guest, 2, vector(0x60), 0x4_0000 | u64::from(IOAPIC));
    // An I/O APIC has the vector and trigger mode in its data and no subhandle.
    let pin = Request {
        source_id: IOAPIC,
        ..write(0xfee0_0050, 0x8060)
    };
    assert_eq!(ask(&guest, pin), Ok(0x4060));
    let other = Request {
        source_id: SOURCE_ID,
        ..pin
    };
    assert_eq!(ask(&guest, other), Err(0x26));
    assert_eq!(
        ask(
            &guest,
            Request {
                verify: false,
                ..other
            }
        ),
        Ok(0x4060)
    );
}

#[test]
fn compatibility_format_needs_cfi_and_no_eime() {
    let old = write(0xfee0_1000, 0x40);
    for (extended, cfi, result) in [
        (false, 0, Err(0x25)),
        (false, CFI, Ok(0x40)),
        (true, 0, Err(0x25)),
        (true, CFI, Err(0x25)),
    ] {
        let guest = booted(extended);
        guest.write32(GCMD, QIE | IRE | cfi);
        assert_eq!(guest.read32(GSTS) & CFI, cfi);
        assert_eq!(ask(&guest, old), result, "EIME {extended} CFI {cfi:#x}");
        let outcome = guest.unit.remap_msi(old);
        assert_eq!(outcome.index, None);
    }
}

#[test]
fn no_old_interrupt_after_a_completed_invalidation() {
    const ROUNDS: u64 = 20_000;
    let guest = &booted(false);
    set_entry(guest, 5, vector(0), 0);
    // The last round whose invalidation has completed.
    let completed = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (completed, done) = (&completed, &done);
            scope.spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    let before = completed.load(Ordering::SeqCst);
                    let seen = ask(guest, request(5)).unwrap() & 0xff;
                    let after = completed.load(Ordering::SeqCst);
                    // The round under way may be seen early.
                    let mut allowed = before..=after + 1;
                    assert!(
                        allowed.any(|round| round & 0xff == u64::from(seen)),
                        "{seen:#x} between rounds {before} and {after}"
                    );
                }
            });
        }
        let mut slot = 0;
        for round in 1..=ROUNDS {
            set_entry(guest, 5, vector(round & 0xff), 0);
            for [low, high] in [forget(5, 0), wait(round as u32)] {
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
    let stats = guest.unit.stats();
    assert_eq!(stats.interrupt_faults, 0);
    assert!(stats.interrupt_cache_hits > 0);
}

#[test]
fn the_vmm_forgets_before_the_wait_completes() {
    let mut guest = booted(false);
    let (ram, seen) = (guest.cells(), Arc::new(Mutex::new(Vec::new())));
    let see = Arc::clone(&seen);
    let look = move || {
        let status = ram[(STATUS / 8) as usize].load(Ordering::SeqCst);
        see.lock().unwrap().push(status);
    };
    assert!(guest.notes.on_forget.set(Box::new(look)).is_ok());
    guest.submit(&[
        forget(1, 0),
        forget(2, 0),
        wait(1),
        wait(2),
        FORGET_ALL,
        wait(3),
    ]);
    assert_eq!(*seen.lock().unwrap(), [0, 0, 2]);
    assert_eq!(guest.peek(STATUS), 3);
    // Nor does the wait of another tail overtake one that is being told.
    guest.submit(&[forget(1, 0)]);
    guest.submit(&[wait(4)]);
    assert_eq!(guest.peek(STATUS), 4);
    assert_eq!(
        guest.unit.stats().descriptors_by_type[5],
        4,
        "each wait once"
    );
}

#[test]
fn another_threads_wait_is_held_up_by_what_is_being_told() {
    let guest = booted(false);
    let (inside, go_on) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (enter, leave) = (Arc::clone(&inside), Arc::clone(&go_on));
    let stay = move || {
        enter.wait();
        leave.wait();
    };
    assert!(guest.notes.on_forget.set(Box::new(stay)).is_ok());
    for (slot, [low, high]) in [forget(1, 0), wait(7)].into_iter().enumerate() {
        guest.poke(QUEUE + slot as u64 * 32, low);
        guest.poke(QUEUE + slot as u64 * 32 + 8, high);
    }
    let guest = &guest;
    let meanwhile = std::thread::scope(|scope| {
        let unit = &guest.unit;
        scope.spawn(move || unit.mmio_write(0x88, 4, 32).unwrap());
        inside.wait();
        // The other thread is in the callback: its wait may not complete here.
        unit.mmio_write(0x88, 4, 64).unwrap();
        let meanwhile = (
            guest.peek(STATUS),
            guest.read64(0x80),
            ask(guest, request(1)),
        );
        go_on.wait();
        meanwhile
    });
    assert_eq!(meanwhile.0, 0, "the wait is held up");
    assert_eq!(meanwhile.1, 32, "IQH is at the wait");
    assert_eq!(meanwhile.2, Err(0x22), "no lock is held");
    assert_eq!(guest.peek(STATUS), 7);
    assert_eq!(guest.read64(0x80), 64);
}
