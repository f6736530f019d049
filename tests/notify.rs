//! Invalidations that leave the unit: who is told what, and that a wait does not
//! complete before.

mod common;

use std::sync::{Arc, Mutex, Weak};

use common::*;
use nested_vtd::unit::{Config, Notify, Unit};
use nested_vtd::vmm::{Holder, Invalidation, InvalidationFailure, Pasids};

const IQH: u64 = 0x80;
const FSTS: u64 = 0x34;
const IQERCD: u64 = 0xb0;
const UNIT: Notify = Notify {
    unit: true,
    device_tlb: false,
};
const DEVICE_TLB: Notify = Notify {
    unit: false,
    device_tlb: true,
};

/// Booted with second-stage tables for the device: one page, 0x5000.
fn second_stage(notify: Notify) -> Guest {
    let features = Config::DEFAULT.features;
    let mut guest = Guest::with(Config {
        features: features.with_second_stage(true).with_device_tlb(true),
        ..Config::default()
    });
    guest.build_tables();
    guest.map(0x5000, 0x10_0000);
    // PGTT 2, AW 48 bits.
    guest.poke(PASID_TABLE, PML4 | 2 << 6 | 2 << 2 | 1);
    guest.enable();
    guest.unit.device_notify(guest.device, notify).unwrap();
    guest.submit(&[wait(1)]);
    guest.notes.invalidations.lock().unwrap().clear();
    guest
}

/// First and last address of what the VMM was told, in order.
fn told(guest: &Guest) -> Vec<(u64, u64)> {
    let told = std::mem::take(&mut *guest.notes.invalidations.lock().unwrap());
    told.iter().map(|told| (told.first, told.last)).collect()
}

fn iotlb(granularity: u64, domain_id: u16) -> u64 {
    2 | granularity << 4 | u64::from(domain_id) << 16
}

#[test]
fn each_invalidation_names_its_addresses() {
    type Ranges = &'static [(u64, u64)];
    const ALL: Ranges = &[(0, u64::MAX)];
    let cases: &[([u64; 2], Ranges)] = &[
        ([iotlb(1, 0), 0], ALL),
        ([iotlb(2, DOMAIN), 0], ALL),
        ([iotlb(2, DOMAIN + 1), 0], &[]),
        ([iotlb(3, DOMAIN), 0x5000], &[(0x5000, 0x5fff)]),
        ([iotlb(3, DOMAIN), 0x7000 | 2], &[(0x4000, 0x7fff)]),
        ([iotlb(3, DOMAIN), 63], ALL),
        ([iotlb(3, DOMAIN + 1), 0x5000], &[]),
        (page(0x5000), &[(0x5000, 0x5fff)]),
        (pasid_all(), ALL),
        (pasid_cache(), ALL),
        ([1 | 1 << 4, 0], ALL),
        ([1 | 3 << 4 | u64::from(SOURCE_ID) << 32, 0], ALL),
        ([1 | 3 << 4 | u64::from(SOURCE_ID + 1) << 32, 0], &[]),
        // A device TLB, which nobody asked to be told of.
        ([3 | u64::from(SOURCE_ID) << 32, 0x5000], &[]),
    ];
    for (descriptor, expected) in cases {
        let mut guest = second_stage(UNIT);
        guest.submit(&[*descriptor, wait(2)]);
        assert_eq!(told(&guest), *expected, "{descriptor:x?}");
        assert_eq!(guest.peek(STATUS), 2);
    }
}

#[test]
fn nested_translations_go_as_a_whole() {
    let features = Config::DEFAULT.features;
    let mut guest = Guest::with(Config {
        features: features.with_second_stage(true).with_nested(true),
        ..Config::default()
    });
    guest.build_tables();
    guest.poke(PASID_TABLE, PML4 | 3 << 6 | 2 << 2 | 1);
    guest.enable();
    guest.unit.device_notify(guest.device, UNIT).unwrap();
    guest.submit(&[[iotlb(3, DOMAIN), 0x5000], wait(2)]);
    // The address is one of the second stage.
    assert_eq!(told(&guest), [(0, u64::MAX)]);
    guest.submit(&[page(0x5000), wait(3)]);
    assert_eq!(told(&guest), [(0x5000, 0x5fff)]);
}

#[test]
fn switching_translation_is_told() {
    let guest = second_stage(UNIT);
    guest.write32(0x18, 1 << 26);
    assert_eq!(told(&guest), [(0, u64::MAX)]);
    guest.unit.reset();
    assert_eq!(told(&guest), [(0, u64::MAX)]);
}

#[test]
fn device_tlbs_are_told_of_their_own() {
    let mut guest = second_stage(DEVICE_TLB);
    let sid = u64::from(SOURCE_ID);
    let other = sid + 8;
    guest.submit(&[
        [iotlb(1, 0), 0],
        [3 | sid << 32, 0x7000 | 1],
        [3 | other << 32, 0x5000],
        [8 | sid << 16 | 7 << 32, 0x5000],
        [8 | sid << 16, 0x6000 | 1],
        wait(2),
    ]);
    let told = guest.notes.invalidations.lock().unwrap().clone();
    let expected = |pasids, first, last| Invalidation {
        tag: 1,
        device: guest.device,
        source_id: SOURCE_ID,
        holder: Holder::DeviceTlb,
        pasids,
        first,
        last,
    };
    assert_eq!(
        told,
        [
            expected(Pasids::None, 0, 0xffff),
            expected(Pasids::One(7), 0x5000, 0x5fff),
            expected(Pasids::All, 0x6000, 0x6fff),
        ]
    );
}

/// Have `work` done with the unit whenever the VMM is told.
fn when_told(
    guest: &Guest,
    work: impl Fn() -> Result<(), InvalidationFailure> + Send + Sync + 'static,
) {
    *guest.notes.obey.lock().unwrap() = Some(Arc::new(work));
}

#[test]
fn a_wait_completes_after_the_vmm_has_obeyed() {
    let mut guest = second_stage(UNIT);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (status, notes) = (guest.cells(), Arc::clone(&seen));
    when_told(&guest, move || {
        let value = status[(STATUS / 8) as usize].load(std::sync::atomic::Ordering::SeqCst);
        notes.lock().unwrap().push(value as u32);
        Ok(())
    });
    guest.submit(&[[iotlb(1, 0), 0], wait(2), [iotlb(1, 0), 0], wait(3)]);
    assert_eq!(*seen.lock().unwrap(), [1, 2]);
    assert_eq!(guest.peek(STATUS), 3);
}

#[test]
fn register_commands_complete_after_the_vmm_has_obeyed() {
    let guest = second_stage(UNIT);
    let unit: Arc<Mutex<Vec<u64>>> = Arc::default();
    let (seen, weak): (_, Weak<Unit>) = (Arc::clone(&unit), Arc::downgrade(&guest.unit));
    when_told(&guest, move || {
        // Nor does another access, as of another processor, complete them.
        let unit = weak.upgrade().unwrap();
        unit.mmio_write(0x40, 4, 0).unwrap();
        let value = unit.mmio_read(0x28, 8).unwrap();
        seen.lock().unwrap().push(value >> 63);
        Ok(())
    });
    guest.write64(0x28, 1 << 63 | 1 << 61);
    assert_eq!(*unit.lock().unwrap(), [1]);
    // ICC clear, and CAIG says what was done.
    assert_eq!(guest.read64(0x28), 1 << 61 | 1 << 59);
}

#[test]
fn a_queue_that_grows_meanwhile_is_executed_by_the_same_call() {
    let mut guest = second_stage(UNIT);
    let (weak, cells) = (Arc::downgrade(&guest.unit), guest.cells());
    let tail = guest.tail() + 2 * 32;
    when_told(&guest, move || {
        // Another processor queues one more wait.
        let [low, high] = wait(9);
        let at = ((QUEUE + tail) / 8) as usize;
        cells[at].store(low, std::sync::atomic::Ordering::SeqCst);
        cells[at + 1].store(high, std::sync::atomic::Ordering::SeqCst);
        let unit = weak.upgrade().unwrap();
        unit.mmio_write(0x88, 8, tail + 32).unwrap();
        Ok(())
    });
    guest.submit(&[[iotlb(1, 0), 0], wait(2)]);
    assert_eq!(guest.read64(IQH), tail + 32);
    assert_eq!(guest.peek(STATUS), 9);
}

#[test]
fn a_device_tlb_that_times_out_aborts_the_wait() {
    let mut guest = second_stage(DEVICE_TLB);
    when_told(&guest, || Err(InvalidationFailure::TimedOut));
    let start = guest.tail();
    let flush = [3 | u64::from(SOURCE_ID) << 32, 0x5000];
    guest.submit(&[flush, wait(2), wait(3)]);
    // IQH is behind the wait that was aborted, and stays there.
    assert_eq!(guest.read64(IQH), start + 2 * 32);
    assert_eq!(guest.peek(STATUS), 1);
    assert_eq!(guest.read32(FSTS) & 0x70, 0x40);
    assert_eq!(guest.read64(IQERCD), u64::from(SOURCE_ID) << 32);
    // Clearing ITE lets the queue go on.
    guest.write32(FSTS, 0x40);
    assert_eq!(guest.peek(STATUS), 3);
    assert_eq!(guest.read64(IQERCD), 0);
    assert_eq!(guest.unit.stats().device_tlb_errors, 1);
}

#[test]
fn a_device_tlb_that_answers_wrongly_is_reported() {
    let mut guest = second_stage(DEVICE_TLB);
    when_told(&guest, || Err(InvalidationFailure::Failed));
    guest.submit(&[[3 | u64::from(SOURCE_ID) << 32, 0x5000], wait(2)]);
    assert_eq!(guest.peek(STATUS), 2);
    assert_eq!(guest.read32(FSTS) & 0x70, 0x20);
    assert_eq!(guest.read64(IQERCD), u64::from(SOURCE_ID) << 48);
    guest.write32(FSTS, 0x20);
    assert_eq!(guest.read64(IQERCD), 0);
}

#[test]
fn many_orders_are_delivered_in_parts() {
    let guest = second_stage(UNIT);
    // 4095 descriptors of 256 bits in a queue of 2^7 pages.
    let queue = 0x20_0000;
    guest.write32(0x18, 1 << 31);
    guest.write64(0x90, queue | 0x800 | 7);
    let last = 0x8_0000 - 64;
    for at in (0..last).step_by(32) {
        guest.poke(queue + at, iotlb(1, 0));
    }
    let [low, high] = wait(7);
    guest.poke(queue + last, low);
    guest.poke(queue + last + 8, high);
    told(&guest);
    guest.write32(0x18, 1 << 31 | 1 << 26);
    guest.write64(0x88, last + 32);
    assert_eq!(told(&guest).len() as u64, last / 32);
    assert_eq!(guest.peek(STATUS), 7);
}

#[test]
fn requests_with_pasid_are_told_of_theirs() {
    let features = Config::DEFAULT.features;
    let mut guest = Guest::with(Config {
        features: features.with_second_stage(true),
        pasid_bits: 8,
        ..Config::default()
    });
    guest.build_tables();
    // Requests without PASID pass through in domain 1; those of PASID 7 are in DOMAIN.
    guest.poke(PASID_TABLE + 8, 1 | 1 << 23);
    guest.poke(PASID_TABLE, 4 << 6 | 1);
    guest.poke(PASID_TABLE + 7 * 64 + 16, PML4);
    guest.poke(PASID_TABLE + 7 * 64 + 8, u64::from(DOMAIN) | 1 << 23);
    guest.poke(PASID_TABLE + 7 * 64, 1 << 6 | 1);
    let context = CONTEXT + u64::from(SOURCE_ID) * 32;
    guest.poke(context, DIRECTORY | 1 << 3 | 1);
    guest.enable();
    guest.unit.device_notify(guest.device, UNIT).unwrap();
    let of_pasid = |pasid: u64| [page(0x5000)[0] | pasid << 32, 0x5000];
    let domain = [iotlb(2, DOMAIN), 0];
    guest.submit(&[of_pasid(7), wait(2)]);
    assert_eq!(told(&guest), [(0x5000, 0x5fff)]);
    guest.submit(&[domain, wait(3)]);
    assert_eq!(told(&guest), [(0, u64::MAX)]);
    // Without PASIDE there are no such requests.
    guest.poke(context, DIRECTORY | 1);
    guest.submit(&[of_pasid(7), domain, wait(4)]);
    assert_eq!(told(&guest), []);
}
