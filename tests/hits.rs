//! Requests that are answered without a lock: they count and are judged as all others.

mod common;

use common::*;
use nested_vtd::event::Event;
use nested_vtd::unit::{Config, HostKind, Request};

const PAGE: u64 = 0x5000;
const TARGET: u64 = 0x10_0000;

fn read_at(address: u64) -> Request {
    Request {
        address,
        read: true,
        ..Request::default()
    }
}

/// A guest whose device has read the page often enough for hits.
fn guest() -> Guest {
    let mut guest = Guest::new(HostKind::None);
    guest.build_tables();
    guest.map(PAGE, TARGET);
    guest.enable();
    guest.submit(&[pasid_cache(), wait(1)]);
    for _ in 0..3 {
        assert_eq!(target(&guest), Some(TARGET + 8));
    }
    guest
}

fn target(guest: &Guest) -> Option<u64> {
    let answer = guest.unit.translate(guest.device, read_at(PAGE + 8));
    Some(answer.unwrap().result.ok()?.address)
}

/// Would it be answered without a lock?
fn hits(guest: &Guest) -> bool {
    let hit = guest.unit.look(guest.device, PAGE + 8, true, false);
    hit.is_ok_and(|found| found.address == TARGET + 8)
}

#[test]
fn hits_count_like_other_requests() {
    let guest = guest();
    let before = guest.unit.stats();
    let device_before = guest.unit.device_info(guest.device).unwrap();
    guest.notes.events.lock().unwrap().clear();
    for _ in 0..1000 {
        assert_eq!(target(&guest), Some(TARGET + 8));
    }
    let after = guest.unit.stats();
    assert_eq!(after.translations - before.translations, 1000);
    assert_eq!(after.cache_hits - before.cache_hits, 1000);
    assert_eq!(after.walks, before.walks);
    let device = guest.unit.device_info(guest.device).unwrap();
    assert_eq!(device.translations - device_before.translations, 1000);
    assert_eq!(device.cache_hits - device_before.cache_hits, 1000);
    let events = guest.notes.events.lock().unwrap().clone();
    let told = [u64::from(SOURCE_ID), PAGE + 8, TARGET + 8];
    assert_eq!(events, vec![(Event::Translate, told); 1000]);
    // A device takes nothing of what was counted along.
    guest.unit.device_remove(guest.device).unwrap();
    assert_eq!(guest.unit.stats().translations, after.translations);
    guest.unit.reset();
    assert_eq!(guest.unit.stats().translations, 0);
}

#[test]
fn a_page_that_may_not_be_written_is_no_hit_for_writes() {
    let guest = guest();
    // D is not set: a write has to walk.
    assert!(hits(&guest));
    assert!(guest.unit.look(guest.device, PAGE, false, true).is_err());
    let write = Request {
        write: true,
        read: false,
        ..read_at(PAGE)
    };
    let answer = guest.unit.translate(guest.device, write).unwrap();
    assert!(answer.result.unwrap().permissions.write());
    assert!(guest.unit.look(guest.device, PAGE, false, true).is_ok());
}

#[test]
fn invalidations_of_each_kind_end_hits() {
    let domain = u64::from(DOMAIN) << 16;
    for descriptor in [
        page(PAGE),
        pasid_all(),
        pasid_cache(),
        // Context cache, IOTLB of the domain, IOTLB.
        [1 | 1 << 4, 0],
        [2 | 2 << 4 | domain, 0],
        [2 | 1 << 4, 0],
    ] {
        let mut guest = guest();
        assert!(hits(&guest));
        guest.map(PAGE, TARGET + 0x1000);
        guest.submit(&[descriptor, wait(2)]);
        assert!(!hits(&guest), "{descriptor:x?}");
        assert_eq!(target(&guest), Some(TARGET + 0x1008), "{descriptor:x?}");
    }
}

/// What a domain and PASID name is looked up once for descriptors in a row; the next name is another.
#[test]
fn one_drain_forgets_pages_of_several_pasids() {
    let mut guest = Guest::with(Config {
        pasid_bits: 20,
        ..Config::default()
    });
    guest.build_tables();
    let pasid_enable = 1 << 3;
    guest.poke(
        CONTEXT + u64::from(SOURCE_ID) * 32,
        DIRECTORY | pasid_enable | 1,
    );
    let others = [(3_u64, DOMAIN), (4, DOMAIN + 1)];
    for (pasid, domain) in others {
        let entry = PASID_TABLE + pasid * 64;
        guest.poke(entry + 16, guest.peek(PASID_TABLE + 16));
        guest.poke(entry + 8, u64::from(domain) | 1 << 23);
        guest.poke(entry, guest.peek(PASID_TABLE));
    }
    guest.map(PAGE, TARGET);
    guest.enable();
    let read = |guest: &Guest, pasid| {
        let request = Request {
            pasid,
            ..read_at(PAGE + 8)
        };
        let answer = guest.unit.translate(guest.device, request);
        answer.unwrap().result.unwrap().address
    };
    let all = [None, Some(3), Some(4)];
    for expected in [TARGET, TARGET + 0x1000, TARGET + 0x2000] {
        guest.map(PAGE, expected);
        let [low, high] = page(PAGE);
        let named = others.map(|(pasid, domain)| {
            let domain = u64::from(DOMAIN) ^ u64::from(domain);
            [low ^ domain << 16 | pasid << 32, high]
        });
        let [three, four] = named;
        guest.submit(&[page(PAGE), three, four, page(PAGE), wait(1)]);
        for _ in 0..2 {
            assert_eq!(all.map(|pasid| read(&guest, pasid)), [expected + 8; 3]);
        }
    }
    assert!(guest.unit.stats().cache_hits > 0);
}

#[test]
fn a_device_with_another_number_is_not_answered_by_the_old_one() {
    let guest = guest();
    *guest.notes.renumbered.lock().unwrap() = Some(SOURCE_ID + 8);
    assert!(!hits(&guest));
    assert_eq!(target(&guest), None, "that one has no context entry");
    *guest.notes.renumbered.lock().unwrap() = Some(SOURCE_ID);
    assert_eq!(target(&guest), Some(TARGET + 8));
}

#[test]
fn a_device_whose_number_is_fixed_keeps_it() {
    let mut guest = guest();
    let fixed = nested_vtd::unit::DeviceDescription {
        source_id: SOURCE_ID,
        fixed_id: true,
        ..nested_vtd::unit::DeviceDescription::default()
    };
    guest.unit.device_remove(guest.device).unwrap();
    guest.device = guest.unit.device_add(fixed).unwrap();
    *guest.notes.renumbered.lock().unwrap() = Some(SOURCE_ID + 8);
    for _ in 0..3 {
        assert_eq!(target(&guest), Some(TARGET + 8));
    }
    assert!(hits(&guest));
    let info = guest.unit.device_info(guest.device).unwrap();
    assert_eq!(info.source_id, SOURCE_ID);
}

#[test]
fn with_translation_off_nothing_hits() {
    let guest = guest();
    guest.write32(0x18, 1 << 26);
    assert!(!hits(&guest));
    assert_eq!(target(&guest), Some(PAGE + 8));
}

#[test]
fn another_device_gets_nothing_of_one_that_is_gone() {
    let guest = guest();
    let tag = nested_vtd::unit::DeviceDescription {
        source_id: SOURCE_ID + 8,
        ..nested_vtd::unit::DeviceDescription::default()
    };
    guest.unit.device_remove(guest.device).unwrap();
    assert!(guest.unit.translate(guest.device, read_at(PAGE)).is_err());
    let other = guest.unit.device_add(tag).unwrap();
    assert_ne!(other, guest.device);
    assert!(guest.unit.look(other, PAGE, true, false).is_err());
    assert!(
        guest
            .unit
            .translate(other, read_at(PAGE))
            .unwrap()
            .result
            .is_err()
    );
    assert!(guest.unit.translate(guest.device, read_at(PAGE)).is_err());
}

#[test]
fn hits_of_two_threads_are_all_counted() {
    let guest = guest();
    let before = guest.unit.stats().translations;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..20_000).for_each(|_| assert_eq!(target(&guest), Some(TARGET + 8))));
        }
    });
    assert_eq!(guest.unit.stats().translations - before, 40_000);
}
