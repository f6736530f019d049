//! What only a VMM can do wrong, each refused with what would be right; and requests that are no DMA.

mod common;

use common::*;
use nested_vtd::unit::{Config, DeviceDescription, HostKind, Request, RequestKind};

const READ: Request = Request {
    address: 0x5000,
    pasid: None,
    kind: RequestKind::Untranslated,
    read: true,
    write: false,
    execute: false,
    privileged: false,
    debug: false,
};

/// A guest with PASIDs and device TLBs: PASID 0 and 3 are in the directory.
fn guest() -> Guest {
    let features = Config::default().features.with_device_tlb(true);
    let mut guest = Guest::with(Config {
        features,
        pasid_bits: 8,
        ..Config::default()
    });
    guest.build_tables();
    guest.map(0x5000, 0x10_0000);
    guest.poke(
        CONTEXT + u64::from(SOURCE_ID) * 32,
        DIRECTORY | 1 << 3 | 1 << 2 | 1,
    );
    for (offset, value) in [
        (16, PML4),
        (8, u64::from(DOMAIN) | 1 << 23),
        (0, 1 << 6 | 1),
    ] {
        guest.poke(PASID_TABLE + 3 * 64 + offset, value);
    }
    guest.enable();
    guest
}

fn reason(guest: &Guest, request: Request) -> u8 {
    let answer = guest.unit.translate(guest.device, request).unwrap();
    answer.result.err().map_or(0, |fault| fault.reason.code())
}

#[test]
fn impossible_requests_are_errors_not_faults() {
    let guest = guest();
    for (request, says) in [
        (
            Request {
                read: false,
                ..READ
            },
            "must read, write or do both",
        ),
        (
            Request {
                pasid: Some(1 << 20),
                ..READ
            },
            "use at most 0xfffff",
        ),
        (
            Request {
                execute: true,
                ..READ
            },
            "have a PASID; give one, or leave them out",
        ),
        (
            Request {
                privileged: true,
                ..READ
            },
            "have a PASID; give one, or leave them out",
        ),
    ] {
        let error = guest.unit.translate(guest.device, request).unwrap_err();
        assert_eq!(error.errno(), libc::EINVAL);
        assert!(error.to_string().contains(says), "{error}");
    }
    let stats = guest.unit.stats();
    assert_eq!((stats.translations, stats.faults), (0, 0));
}

#[test]
fn impossible_accesses_are_errors() {
    let guest = guest();
    for (offset, size, says) in [
        (0, 3, "access size 3 is not 1, 2, 4 or 8"),
        (
            0x1000,
            4,
            "offset 0x1000 with size 4 is beyond the register window",
        ),
        (
            0xffc,
            8,
            "offset 0xffc with size 8 is beyond the register window",
        ),
    ] {
        let read = guest.unit.mmio_read(offset, size).unwrap_err();
        let write = guest.unit.mmio_write(offset, size, 0).unwrap_err();
        assert!(read.to_string().contains(says), "{read}");
        assert!(write.to_string().contains(says), "{write}");
    }
}

#[test]
fn an_assigned_device_needs_a_host() {
    let guest = guest();
    let error = guest
        .unit
        .device_add(DeviceDescription {
            tag: 2,
            source_id: 0x20,
            assigned: true,
            ..DeviceDescription::default()
        })
        .unwrap_err();
    assert_eq!(error.errno(), libc::EINVAL);
    assert!(
        error
            .to_string()
            .contains("select one when the unit is created"),
        "{error}"
    );
}

#[test]
fn tables_in_ram_that_was_removed_are_not_used_any_more() {
    for host in [HostKind::None, HostKind::Soft] {
        let mut guest = Guest::new(host);
        guest.build_tables();
        guest.map(0x5000, 0x10_0000);
        guest.enable();
        guest.submit(&[pasid_cache()]);
        assert_eq!(reason(&guest, READ), 0);
        guest.unit.ram_remove(0, RAM_SIZE).unwrap();
        assert_ne!(reason(&guest, READ), 0, "{host:?}");
    }
}

#[test]
fn requests_to_the_interrupt_range_are_no_dma() {
    let guest = guest();
    let write = Request {
        address: 0xfee0_1000,
        read: false,
        write: true,
        ..READ
    };
    // Without PASID it is an interrupt, which the VMM sends elsewhere; with one it is refused.
    assert_eq!(
        reason(
            &guest,
            Request {
                pasid: Some(3),
                ..write
            }
        ),
        0x87
    );
    // A device TLB learns that it is to keep nothing of it.
    let ask = Request {
        kind: RequestKind::Translation,
        read: true,
        ..write
    };
    let answer = guest.unit.translate(guest.device, ask).unwrap();
    let translation = answer.result.unwrap();
    assert_eq!(translation.address, 0xfee0_1000);
    assert!(!translation.permissions.read() && translation.permissions.write());
    assert!(translation.permissions.untranslated());
    // What a device TLB has translated already is no interrupt, and no RAM.
    let translated = Request {
        kind: RequestKind::Translated,
        ..write
    };
    assert_ne!(reason(&guest, translated), 0);
}
