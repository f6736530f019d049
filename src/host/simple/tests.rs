//! The kernel's rules, call by call, and the hardware's own.

use std::sync::atomic::AtomicU64;

use super::hardware::{Dma, DmaFault};
use super::*;
use crate::translate::Access;

/// Guest RAM with a first-stage table, and a host over it.
struct Bench {
    host: SoftHost,
    memory: Arc<GuestMemory>,
}

const RAM_SIZE: u64 = 4 << 20;
const TABLE: u64 = 0x1000;
const READ: Access = Access {
    read: true,
    write: false,
    execute: false,
    privileged: false,
    look: false,
};
const WRITE: Access = Access {
    read: false,
    write: true,
    ..READ
};
/// Present, writable, user.
const PWU: u64 = 0b111;

impl Bench {
    fn new() -> Self {
        let cells: Arc<[AtomicU64]> = (0..RAM_SIZE / 8).map(|_| AtomicU64::new(0)).collect();
        let memory = Arc::new(GuestMemory::default());
        memory.add(0, cells.into(), false).unwrap();
        Self {
            host: SoftHost::new(Arc::clone(&memory)),
            memory,
        }
    }

    fn poke(&self, gpa: u64, value: u64) {
        let old = self.memory.read_u64(gpa).unwrap();
        assert!(self.memory.compare_exchange_u64(gpa, old, value).unwrap());
    }

    /// Map the 4 KiB page at `iova` (below 2 MiB) to `target`.
    fn map(&self, iova: u64, target: u64) {
        self.poke(TABLE, 0x2000 | PWU);
        self.poke(0x2000, 0x3000 | PWU);
        self.poke(0x3000, 0x4000 | PWU);
        self.poke(0x4000 + (iova >> 12) * 8, target | PWU);
    }

    /// A device on a nested HWPT over the table.
    fn nested(&self) -> (HostDevice, HwptId) {
        let device = self.host.bind().unwrap();
        let hwpt = self.host.alloc_nested(device, &S1).unwrap();
        self.host.attach(device, hwpt).unwrap();
        (device, hwpt)
    }

    fn dma(&self, device: HostDevice, address: u64, access: Access) -> Dma {
        self.host.dma(device, address, access)
    }
}

const S1: VtdS1 = VtdS1 {
    flags: 0,
    pgtbl_addr: TABLE,
    addr_width: 48,
    reserved: 0,
};

fn page(addr: u64) -> VtdS1Invalidate {
    VtdS1Invalidate {
        addr,
        npages: 1,
        flags: 0,
        reserved: 0,
    }
}

fn target(dma: Dma) -> u64 {
    dma.result.unwrap().address
}

#[test]
fn ids_are_the_lowest_free_ones() {
    let bench = Bench::new();
    let first = bench.host.bind().unwrap();
    let second = bench.host.bind().unwrap();
    assert_eq!(second.0, first.0 + 1);
    bench.host.unbind(first);
    assert_eq!(bench.host.alloc_nested(second, &S1), Ok(HwptId(first.0)));
}

#[test]
fn allocation_judges_the_device_and_attachment_the_data() {
    let bench = Bench::new();
    assert_eq!(
        bench.host.alloc_nested(HostDevice(99), &S1),
        Err(libc::ENOENT)
    );
    let (device, good) = bench.nested();
    for bad in [
        VtdS1 {
            addr_width: 39,
            ..S1
        },
        VtdS1 {
            addr_width: 57,
            ..S1
        },
        VtdS1 {
            flags: VTD_S1_SRE,
            ..S1
        },
        VtdS1 {
            flags: VTD_S1_EAFE,
            ..S1
        },
    ] {
        let hwpt = bench.host.alloc_nested(device, &bad).unwrap();
        assert_eq!(
            bench.host.attach(device, hwpt),
            Err(libc::EINVAL),
            "{bad:?}"
        );
        // The hardware is blocked, the record is not: attaching what is on record
        // changes nothing, and only detaching recovers.
        assert_eq!(bench.dma(device, 0, READ).result, Err(DmaFault::Blocked));
        assert_eq!(bench.host.attach(device, good), Ok(()));
        assert_eq!(bench.dma(device, 0, READ).result, Err(DmaFault::Blocked));
        bench.host.detach(device).unwrap();
        bench.host.attach(device, good).unwrap();
        assert_ne!(bench.dma(device, 0, READ).result, Err(DmaFault::Blocked));
        bench.host.destroy(hwpt).unwrap();
    }
}

#[test]
fn an_attached_hwpt_cannot_be_destroyed() {
    let bench = Bench::new();
    let (device, hwpt) = bench.nested();
    assert_eq!(bench.host.destroy(hwpt), Err(libc::EBUSY));
    assert_eq!(bench.host.destroy(bench.host.parent()), Err(libc::EBUSY));
    bench.host.attach(device, bench.host.parent()).unwrap();
    assert_eq!(bench.host.destroy(hwpt), Ok(()));
    assert_eq!(bench.host.destroy(hwpt), Err(libc::ENOENT));
    assert_eq!(bench.host.attach(device, hwpt), Err(libc::ENOENT));
    assert_eq!(
        bench.host.attach(device, HwptId(device.0)),
        Err(libc::EINVAL)
    );
}

#[test]
fn an_invalidation_stops_at_the_first_bad_entry() {
    let bench = Bench::new();
    let (device, hwpt) = bench.nested();
    bench.map(0x5000, 0x10_0000);
    bench.map(0x6000, 0x11_0000);
    bench.dma(device, 0x5000, READ);
    bench.dma(device, 0x6000, READ);
    let bad = [
        (
            VtdS1Invalidate {
                flags: 2,
                ..page(0)
            },
            libc::EOPNOTSUPP,
        ),
        (
            VtdS1Invalidate {
                reserved: 1,
                ..page(0)
            },
            libc::EOPNOTSUPP,
        ),
        (page(0x10), libc::EINVAL),
        (
            VtdS1Invalidate {
                npages: u64::MAX,
                ..page(0x1000)
            },
            libc::EINVAL,
        ),
    ];
    for (entry, errno) in bad {
        let result = bench
            .host
            .invalidate(hwpt, &[page(0x5000), entry, page(0x6000)]);
        assert_eq!(result, Err(InvalidateError { handled: 1, errno }));
    }
    assert!(
        !bench.dma(device, 0x5000, READ).cache_hit,
        "handled before the bad entry"
    );
    assert!(bench.dma(device, 0x6000, READ).cache_hit, "not reached");

    let refused = |id| bench.host.invalidate(id, &[]).unwrap_err().errno;
    assert_eq!(refused(HwptId(999)), libc::ENOENT);
    assert_eq!(refused(bench.host.parent()), libc::EINVAL);
    assert_eq!(bench.host.invalidate(hwpt, &[]), Ok(()), "the probe");
}

#[test]
fn what_was_walked_is_cached_until_it_is_invalidated() {
    let bench = Bench::new();
    let (device, hwpt) = bench.nested();
    bench.map(0x5000, 0x10_0000);
    let first = bench.dma(device, 0x5008, READ);
    assert_eq!(
        (target(first), first.cache_hit, first.walks),
        (0x10_0008, false, 1)
    );
    let second = bench.dma(device, 0x5010, READ);
    assert_eq!(
        (target(second), second.cache_hit, second.stale),
        (0x10_0010, true, false)
    );

    bench.map(0x5000, 0x20_0000);
    let stale = bench.dma(device, 0x5010, READ);
    assert_eq!(
        (target(stale), stale.cache_hit, stale.stale),
        (0x10_0010, true, true)
    );

    bench.host.invalidate(hwpt, &[page(0x5000)]).unwrap();
    let fresh = bench.dma(device, 0x5010, READ);
    assert_eq!(
        (target(fresh), fresh.cache_hit, fresh.stale),
        (0x20_0010, false, false)
    );
}

#[test]
fn an_unmapped_page_in_the_cache_is_stale_too() {
    let bench = Bench::new();
    let (device, hwpt) = bench.nested();
    bench.map(0x5000, 0x10_0000);
    bench.dma(device, 0x5000, READ);
    bench.poke(0x4000 + 5 * 8, 0);
    assert!(bench.dma(device, 0x5000, READ).stale);
    bench
        .host
        .invalidate(hwpt, &[VtdS1Invalidate::ALL])
        .unwrap();
    assert!(bench.dma(device, 0x5000, READ).result.is_err());
}

#[test]
fn growing_permissions_need_no_invalidation() {
    let bench = Bench::new();
    let (device, _) = bench.nested();
    bench.map(0x5000, 0x10_0000);
    bench.poke(0x4000 + 5 * 8, 0x10_0000 | 0b101);
    assert!(bench.dma(device, 0x5000, READ).result.is_ok());
    assert!(bench.dma(device, 0x5000, WRITE).result.is_err());
    bench.poke(0x4000 + 5 * 8, 0x10_0000 | PWU);
    let write = bench.dma(device, 0x5000, WRITE);
    assert_eq!((target(write), write.stale), (0x10_0000, false));
}

#[test]
fn the_first_write_sets_dirty_though_a_read_was_cached() {
    let bench = Bench::new();
    let (device, _) = bench.nested();
    bench.map(0x5000, 0x10_0000);
    let leaf = 0x4000 + 5 * 8;
    bench.dma(
        device,
        0x5000,
        Access {
            look: true,
            ..WRITE
        },
    );
    assert_eq!(
        bench.memory.read_u64(leaf),
        Ok(0x10_0000 | PWU),
        "a look sets nothing"
    );
    bench.dma(device, 0x5000, READ);
    assert_eq!(bench.memory.read_u64(leaf), Ok(0x10_0000 | PWU | 0x20));
    assert!(!bench.dma(device, 0x5000, WRITE).cache_hit);
    assert_eq!(bench.memory.read_u64(leaf), Ok(0x10_0000 | PWU | 0x60));
    assert_eq!(bench.memory.read_u64(TABLE), Ok(0x2000 | PWU | 0x20));
    assert!(bench.dma(device, 0x5000, WRITE).cache_hit);
}

#[test]
fn a_device_that_leaves_takes_nothing_cached_with_it() {
    let bench = Bench::new();
    let (device, hwpt) = bench.nested();
    bench.map(0x5000, 0x10_0000);
    bench.dma(device, 0x5000, READ);
    bench.host.attach(device, bench.host.parent()).unwrap();
    assert_eq!(
        target(bench.dma(device, 0x5000, READ)),
        0x5000,
        "guest-physical now"
    );
    bench.host.attach(device, hwpt).unwrap();
    assert!(!bench.dma(device, 0x5000, READ).cache_hit);
}

#[test]
fn only_registered_ram_is_reached() {
    let bench = Bench::new();
    let (device, _) = bench.nested();
    bench.map(0x5000, RAM_SIZE);
    assert!(
        bench.dma(device, 0x5000, READ).result.is_err(),
        "a page beyond the parent"
    );
    bench.poke(0x3000, RAM_SIZE | PWU);
    assert!(
        bench.dma(device, 0x5000, READ).result.is_err(),
        "a table beyond the parent"
    );
    bench.host.attach(device, bench.host.parent()).unwrap();
    assert!(bench.dma(device, RAM_SIZE, READ).result.is_err());
    assert!(bench.dma(device, RAM_SIZE - 1, READ).result.is_ok());
}
