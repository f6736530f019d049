//! DMA: nested walks, the cache, the oracle.

use super::*;
use crate::spec::fault::FaultReason;
use crate::translate::Diagnostic;

fn reason(dma: Dma) -> FaultReason {
    match dma.result {
        Err(DmaFault::Table(fault)) => fault.reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_walk_sets_accessed_and_dirty_bits_in_the_processs_memory() {
    let nest = Nest::default();
    nest.attached();
    nest.ram.map(0x5000, 0x10_0000);
    let leaf = 0x4000 + 5 * 8;
    let bench = &nest.bench;
    let look = WRITE.with_look(true);
    bench.dma(nest.fd, None, 0x5000, look);
    assert_eq!(nest.ram.peek(leaf), 0x10_0000 | PWU, "a look sets nothing");
    assert_eq!(bench.target(nest.fd, 0x5123), Some(0x10_0123));
    assert_eq!(nest.ram.peek(leaf), 0x10_0000 | PWU | 0x20);
    let write = bench.dma(nest.fd, None, 0x5000, WRITE);
    assert!(!write.cache_hit);
    assert_eq!(nest.ram.peek(leaf), 0x10_0000 | PWU | 0x60);
    assert_eq!(nest.ram.peek(TABLE), 0x2000 | PWU | 0x20);
    assert!(bench.dma(nest.fd, None, 0x5000, WRITE).cache_hit);
    let stats = bench.twin.stats();
    assert_eq!((stats.dmas, stats.faults, stats.stale_uses), (3, 0, 0));
}

#[test]
fn a_forgotten_invalidation_is_noticed() {
    let nest = Nest::default();
    let hwpt = nest.attached();
    let bench = &nest.bench;
    nest.ram.map(0x5000, 0x10_0000);
    bench.target(nest.fd, 0x5000).unwrap();
    nest.ram.map(0x5000, 0x10_1000);
    let used = bench.dma(nest.fd, None, 0x5000, READ);
    assert!(used.stale && used.cache_hit);
    assert_eq!(bench.invalidate(hwpt, &mut [page(0x5000)]), (1, Ok(())));
    let fresh = bench.dma(nest.fd, None, 0x5000, READ);
    assert!(!fresh.stale && !fresh.cache_hit);
    assert_eq!(bench.twin.stats().stale_uses, 1);
}

#[test]
fn an_invalidation_covers_the_power_of_two_around_it() {
    for wide in [true, false] {
        let mut config = TwinConfig::default();
        config.quirks.wide_invalidation = wide;
        let nest = Nest::new(config, TwinDevice::default());
        let hwpt = nest.attached();
        for address in [0x4000, 0x5000, 0x6000] {
            nest.ram.map(address, 0x10_0000);
            nest.bench.target(nest.fd, address).unwrap();
        }
        let two = VtdS1Invalidate {
            npages: 2,
            ..page(0x5000)
        };
        assert_eq!(nest.bench.invalidate(hwpt, &mut [two]), (1, Ok(())));
        let hit = |address| nest.bench.dma(nest.fd, None, address, READ).cache_hit;
        assert_eq!(
            (hit(0x4000), hit(0x5000), hit(0x6000)),
            (!wide, false, false)
        );
    }
}

#[test]
fn pasids_have_their_own_tables_and_caches() {
    let nest = Nest::default();
    let rid = nest.attached();
    nest.ram.map(0x5000, 0x10_0000);
    let bench = &nest.bench;
    let other = nest.nested(S1);
    assert_eq!(
        bench.dma(nest.fd, Some(7), 0x5000, READ).result,
        Err(DmaFault::Blocked)
    );
    bench.attach_pasid(nest.fd, 7, other).unwrap();
    assert!(bench.dma(nest.fd, Some(7), 0x5000, READ).result.is_ok());
    bench.target(nest.fd, 0x5000).unwrap();
    assert_eq!(bench.invalidate(rid, &mut [VtdS1Invalidate::ALL]).0, 1);
    assert!(bench.dma(nest.fd, Some(7), 0x5000, READ).cache_hit);
    assert!(!bench.dma(nest.fd, None, 0x5000, READ).cache_hit);
    bench.detach(nest.fd, Some(7)).unwrap();
    assert_eq!(
        bench.dma(nest.fd, Some(7), 0x5000, READ).result,
        Err(DmaFault::Blocked)
    );
}

#[test]
fn devices_that_share_a_table_are_invalidated_together() {
    let nest = Nest::default();
    let hwpt = nest.attached();
    nest.ram.map(0x5000, 0x10_0000);
    let (second, _) = nest.bench.device(TwinDevice::default());
    nest.bench.attach(second, hwpt).unwrap();
    for fd in [nest.fd, second] {
        nest.bench.target(fd, 0x5000).unwrap();
        assert!(nest.bench.dma(fd, None, 0x5000, READ).cache_hit);
    }
    assert_eq!(nest.bench.invalidate(hwpt, &mut [page(0x5000)]).0, 1);
    for fd in [nest.fd, second] {
        assert!(!nest.bench.dma(fd, None, 0x5000, READ).cache_hit);
    }
}

#[test]
fn requests_beside_invalidations_and_unmaps_never_use_what_is_gone() {
    let nest = Nest::default();
    let hwpt = nest.attached();
    nest.ram.map(0x5000, 0x10_0000);
    let extra = Ram::new(1);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for (address, access) in [(0x5000, WRITE), (0x6000, READ)] {
                        let dma = nest.bench.dma(nest.fd, None, address, access);
                        if address == 0x5000 {
                            assert!(dma.result.is_ok());
                        }
                    }
                }
            });
        }
        // Also if an assertion fails: the others must not go on for ever.
        let _stop = Stop(&done);
        for round in 0..200_u64 {
            let target = 0x10_0000 + (round % 4) * 0x1000;
            nest.ram.poke(0x4000 + 5 * 8, target | PWU);
            let mut entries = [page(0x5000), page(0x6000)];
            assert_eq!(nest.bench.invalidate(hwpt, &mut entries), (2, Ok(())));
            // What is answered from now on is what the table says.
            assert_eq!(nest.bench.target(nest.fd, 0x5000), Some(target));
            nest.bench.map(nest.ioas, &extra, 0x40_0000).unwrap();
            nest.ram.poke(0x4000 + 6 * 8, 0x40_0000 | PWU);
            nest.bench.target(nest.fd, 0x6000);
            nest.bench.unmap(nest.ioas, 0x40_0000, 4096).unwrap();
            assert_eq!(nest.bench.target(nest.fd, 0x6000), None);
        }
    });
}

/// Sets a flag when it goes.
struct Stop<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn what_was_unmapped_is_reached_no_more_though_it_was_cached() {
    let nest = Nest::default();
    nest.attached();
    let extra = Ram::new(1);
    nest.bench.map(nest.ioas, &extra, 0x40_0000).unwrap();
    nest.ram.map(0x5000, 0x40_0000);
    assert_eq!(nest.bench.target(nest.fd, 0x5000), Some(0x40_0000));
    assert_eq!(nest.bench.unmap(nest.ioas, 0x40_0000, 4096), Ok(4096));
    let dma = nest.bench.dma(nest.fd, None, 0x5000, READ);
    assert_eq!(reason(dma), FaultReason::SecondStagePermission);
    assert!(!dma.stale);
    nest.ram.poke(0x3000, 0x40_0000 | PWU);
    let dma = nest.bench.dma(nest.fd, None, 0x5000, READ);
    assert_eq!(reason(dma), FaultReason::FirstStageAccess, "a table there");
}

#[test]
fn a_device_that_leaves_takes_nothing_cached_with_it() {
    let nest = Nest::default();
    let hwpt = nest.attached();
    nest.ram.map(0x5000, 0x10_0000);
    nest.bench.target(nest.fd, 0x5000).unwrap();
    nest.bench.attach(nest.fd, nest.parent).unwrap();
    assert_eq!(nest.bench.target(nest.fd, 0x5000), Some(0x5000));
    nest.bench.attach(nest.fd, hwpt).unwrap();
    assert!(!nest.bench.dma(nest.fd, None, 0x5000, READ).cache_hit);
}

#[test]
fn large_pages_and_five_levels() {
    let nest = Nest::default();
    let hwpt = nest.nested(VtdS1 {
        addr_width: 57,
        pgtbl_addr: 0x8000,
        ..S1
    });
    nest.bench.attach(nest.fd, hwpt).unwrap();
    nest.ram.poke(0x8000, TABLE | PWU);
    nest.ram.poke(TABLE, 0x2000 | PWU);
    nest.ram.poke(0x2000, 0x3000 | PWU);
    nest.ram.poke(0x3000, PWU | 0x80);
    let found = nest
        .bench
        .dma(nest.fd, None, 0x12_3456, READ)
        .result
        .unwrap();
    assert_eq!((found.address, found.page_size), (0x12_3456, 2 << 20));
    assert_eq!(
        reason(nest.bench.dma(nest.fd, None, 1 << 57, READ)),
        FaultReason::NotCanonical
    );
}

#[test]
fn supervisor_requests_need_sre_and_obey_wpe() {
    let nest = Nest::default();
    nest.ram.map(0x5000, 0x10_0000);
    nest.ram.poke(0x4000 + 5 * 8, 0x10_0000 | 0b001);
    let privileged = WRITE.with_privileged(true);
    for (flags, expected) in [
        (0, Some(FaultReason::SupervisorDisabled)),
        (VTD_S1_WPE, Some(FaultReason::SupervisorDisabled)),
        (VTD_S1_SRE, None),
        (VTD_S1_SRE | VTD_S1_WPE, Some(FaultReason::NoWrite)),
    ] {
        let hwpt = nest.nested(VtdS1 { flags, ..S1 });
        nest.bench.attach(nest.fd, hwpt).unwrap();
        let dma = nest.bench.dma(nest.fd, Some(0), 0x5000, privileged);
        match expected {
            None => assert!(dma.result.is_ok()),
            Some(expected) => assert_eq!(reason(dma), expected, "{flags:#x}"),
        }
    }
    let execute = READ.with_execute(true);
    let dma = nest.bench.dma(nest.fd, Some(0), 0x5000, execute);
    assert_eq!(reason(dma), FaultReason::ExecuteDisabled);
}

#[test]
fn eafe_sets_the_extended_accessed_bit() {
    for (flags, bit) in [(0, 0), (VTD_S1_EAFE, 1 << 10)] {
        let nest = Nest::default();
        let hwpt = nest.nested(VtdS1 { flags, ..S1 });
        nest.bench.attach(nest.fd, hwpt).unwrap();
        nest.ram.map(0x5000, 0x10_0000);
        nest.bench.target(nest.fd, 0x5000).unwrap();
        assert_eq!(nest.ram.peek(TABLE), 0x2000 | PWU | 0x20 | bit);
    }
}

#[test]
fn translated_requests_skip_the_first_stage_and_need_ats() {
    let nest = Nest::default();
    nest.attached();
    let request = TwinRequest {
        address: 0x5000,
        pasid: None,
        access: READ,
        kind: Purpose::Translated,
    };
    let found = nest.bench.twin.dma(nest.fd, &request).result.unwrap();
    assert_eq!(found.address, 0x5000);
    let plain = TwinDevice {
        ats: false,
        pri: false,
        ..TwinDevice::default()
    };
    let nest = Nest::new(TwinConfig::default(), plain);
    nest.attached();
    let dma = nest.bench.twin.dma(nest.fd, &request);
    assert_eq!(reason(dma), FaultReason::DeviceTlbDisabled);
}

#[test]
fn a_translation_request_gets_what_there_is() {
    let nest = Nest::default();
    nest.attached();
    nest.ram.map(0x5000, 0x10_0000);
    nest.ram.poke(0x4000 + 5 * 8, 0x10_0000 | 0b101);
    let request = TwinRequest {
        address: 0x5000,
        pasid: None,
        access: READ.with_write(true),
        kind: Purpose::Translation,
    };
    let found = nest.bench.twin.dma(nest.fd, &request).result.unwrap();
    assert!(found.permissions.read() && !found.permissions.write());
}

#[test]
fn the_interrupt_window_is_no_memory() {
    let nest = Nest::default();
    nest.attached();
    nest.ram.map(0x5000, 0xfee0_0000);
    let Err(DmaFault::Table(fault)) = nest.bench.dma(nest.fd, None, 0x5000, READ).result else {
        panic!("refused");
    };
    assert_eq!(fault.diagnostic, Diagnostic::InterruptRange);
}

#[test]
fn writes_are_tracked_by_page_on_the_parent_and_below_it() {
    let nest = Nest::flags(
        TwinConfig::default(),
        TwinDevice::default(),
        HWPT_NEST_PARENT | HWPT_PASID | HWPT_DIRTY_TRACKING,
    );
    nest.attached();
    nest.ram.map(0x5000, 0x10_0000);
    let bench = &nest.bench;
    let track = |flags| {
        let mut set = SetDirtyTracking {
            flags,
            hwpt_id: nest.parent,
            ..SetDirtyTracking::default()
        };
        bench.call(request::HWPT_SET_DIRTY_TRACKING, &mut set)
    };
    let dirty = |flags| {
        let mut bitmap = [0_u64; 8];
        let mut get = GetDirtyBitmap {
            hwpt_id: nest.parent,
            flags,
            length: nest.ram.bytes(),
            page_size: 4096,
            data: address_of(&mut bitmap),
            ..GetDirtyBitmap::default()
        };
        bench
            .call(request::HWPT_GET_DIRTY_BITMAP, &mut get)
            .unwrap();
        (0..512)
            .filter(|&bit| bitmap[bit / 64] >> (bit % 64) & 1 != 0)
            .collect::<Vec<_>>()
    };
    bench.dma(nest.fd, None, 0x5000, WRITE).result.unwrap();
    assert_eq!(dirty(0), [0; 0], "not yet");
    track(1).unwrap();
    bench.target(nest.fd, 0x5000).unwrap();
    assert_eq!(dirty(0), [0; 0], "a read, and all bits were set");
    let write = bench.dma(nest.fd, None, 0x5000, WRITE);
    assert!(!write.cache_hit, "tracking starts without cached pages");
    assert_eq!(dirty(DIRTY_BITMAP_NO_CLEAR), [0x100]);
    assert_eq!(dirty(0), [0x100]);
    assert_eq!(dirty(0), [0; 0]);
    bench.dma(nest.fd, None, 0x5000, WRITE).result.unwrap();
    assert_eq!(dirty(0), [0x100], "written again after it was cleared");
    nest.ram.map(0x6000, 0x10_1000);
    bench.target(nest.fd, 0x6000).unwrap();
    assert_eq!(dirty(0), [1, 2, 3, 4], "accessed bits in the tables");
    bench.dma(nest.fd, None, 0x5000, WRITE).result.unwrap();
    track(0).unwrap();
    assert_eq!(dirty(DIRTY_BITMAP_NO_CLEAR), [0x100], "still to be read");
    track(1).unwrap();
    assert_eq!(dirty(0), [0; 0], "tracking begins anew");
    track(0).unwrap();
    bench.dma(nest.fd, None, 0x5000, WRITE).result.unwrap();
    assert_eq!(dirty(0), [0; 0]);
}
