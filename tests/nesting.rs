//! The guest's first-stage tables on the host: when HWPTs come and go, what
//! reaches the host's invalidate call, and what is left when the host refuses.

mod common;

use common::*;
use nested_vtd::event::Event;
use nested_vtd::translate::Diagnostic;
use nested_vtd::unit::{BindingState, Config, DeviceDescription, HostKind, Inject, Request};

fn read(address: u64) -> Request {
    Request {
        address,
        read: true,
        write: false,
        ..Request::default()
    }
}

/// Booted as Linux does it: tables, PASID-cache and IOTLB invalidation, wait.
fn booted(config: Config) -> Guest {
    let mut guest = Guest::with(config);
    guest.build_tables();
    guest.map(0x5000, 0x10_0000);
    guest.enable();
    guest.submit(&[pasid_cache(), pasid_all(), wait(2)]);
    assert_eq!(guest.peek(STATUS), 2);
    guest
}

const SOFT: Config = Config {
    host: HostKind::Soft,
    ..Config::DEFAULT
};

fn target(guest: &Guest, iova: u64) -> Option<u64> {
    let answer = guest.unit.translate(guest.device, read(iova)).unwrap();
    answer.result.ok().map(|translation| translation.address)
}

#[test]
fn a_first_stage_entry_becomes_one_hwpt_that_devices_share() {
    let mut guest = booted(SOFT);
    let info = guest.unit.device_info(guest.device).unwrap();
    assert_eq!(
        (info.state, info.domain_id),
        (BindingState::Nested, Some(DOMAIN))
    );
    assert_eq!(guest.unit.stats().hwpt_allocs, 1);
    assert_eq!(target(&guest, 0x5123), Some(0x10_0123));

    // A second device whose context entry leads to the same PASID entry.
    let other = DeviceDescription {
        tag: 2,
        source_id: SOURCE_ID + 1,
        assigned: true,
        ..DeviceDescription::default()
    };
    let other = guest.unit.device_add(other).unwrap();
    assert_eq!(
        guest.unit.device_info(other).unwrap().state,
        BindingState::Blocked
    );
    guest.poke(CONTEXT + u64::from(SOURCE_ID + 1) * 32, DIRECTORY | 1);
    guest.submit(&[[1 | 3 << 4 | u64::from(SOURCE_ID + 1) << 32, 0], wait(3)]);
    let shared = guest.unit.device_info(other).unwrap();
    assert_eq!(
        (shared.state, shared.hwpt),
        (BindingState::Nested, info.hwpt)
    );
    assert_eq!(guest.unit.stats().hwpt_allocs, 1);

    // One invalidation of the shared HWPT is one entry of one call.
    let before = guest.unit.stats();
    guest.submit(&[page(0x5000), wait(4)]);
    let after = guest.unit.stats();
    assert_eq!(after.invalidate_calls - before.invalidate_calls, 1);
    assert_eq!(after.invalidate_entries - before.invalidate_entries, 1);

    // It lives until the last one leaves.
    guest.unit.device_remove(guest.device).unwrap();
    assert_eq!(guest.unit.stats().hwpt_destroys, 0);
    guest.unit.device_remove(other).unwrap();
    assert_eq!(guest.unit.stats().hwpt_destroys, 1);
}

#[test]
fn descriptors_up_to_a_wait_are_one_call() {
    let mut guest = booted(SOFT);
    let before = guest.unit.stats();
    guest.submit(&[
        page(0x5000),
        page(0x6000),
        page(0x9000),
        wait(3),
        page(0xa000),
        wait(4),
    ]);
    let after = guest.unit.stats();
    assert_eq!(after.invalidate_calls - before.invalidate_calls, 2);
    // The first two touch.
    assert_eq!(after.invalidate_entries - before.invalidate_entries, 3);
    assert_eq!(
        after.invalidate_descriptors - before.invalidate_descriptors,
        4
    );
    assert_eq!(guest.peek(STATUS), 4);
}

#[test]
fn the_host_has_flushed_before_the_wait_is_seen() {
    let guest = booted(SOFT);
    let events = guest.notes.events.lock().unwrap();
    let place = |wanted| {
        events
            .iter()
            .rposition(|(event, _)| *event == wanted)
            .unwrap()
    };
    assert!(place(Event::Invalidate) < place(Event::WaitDone));
}

#[test]
fn a_remapped_page_is_seen_after_its_invalidation() {
    let mut guest = booted(SOFT);
    assert_eq!(target(&guest, 0x5000), Some(0x10_0000));
    guest.map(0x5000, 0x20_0000);
    guest.submit(&[page(0x5000), wait(3)]);
    assert_eq!(target(&guest, 0x5000), Some(0x20_0000));
    assert_eq!(guest.unit.stats().stale_uses, 0);
}

#[test]
fn a_type_2_invalidation_drops_first_stage_entries_of_its_domain() {
    for (low, dropped) in [
        (2 | 1 << 4, true),
        (2 | 2 << 4 | u64::from(DOMAIN) << 16, true),
        (2 | 3 << 4 | u64::from(DOMAIN) << 16, true),
        (2 | 2 << 4 | u64::from(DOMAIN + 1) << 16, false),
    ] {
        let mut guest = booted(SOFT);
        target(&guest, 0x5000);
        guest.map(0x5000, 0x20_0000);
        guest.submit(&[[low, 0x7000], wait(3)]);
        let expected = if dropped { 0x20_0000 } else { 0x10_0000 };
        assert_eq!(target(&guest, 0x5000), Some(expected), "{low:#x}");
    }
}

#[test]
fn dropped_invalidations_are_counted_as_stale_uses() {
    let inject = Inject {
        drop_invalidations: true,
        ..Inject::default()
    };
    let mut guest = booted(Config { inject, ..SOFT });
    assert_eq!(target(&guest, 0x5000), Some(0x10_0000));
    guest.map(0x5000, 0x20_0000);
    guest.submit(&[page(0x5000), wait(3)]);
    assert_eq!(guest.peek(STATUS), 3, "the guest is told that it is done");
    assert_eq!(target(&guest, 0x5000), Some(0x10_0000));
    let stats = guest.unit.stats();
    assert_eq!((stats.stale_uses, stats.invalidate_calls), (1, 0));
    assert!(stats.invalidate_dropped >= 1);
}

#[test]
fn a_refused_allocation_leaves_the_device_blocked_and_the_guest_told() {
    let inject = Inject {
        refuse_alloc: true,
        ..Inject::default()
    };
    let guest = booted(Config { inject, ..SOFT });
    let info = guest.unit.device_info(guest.device).unwrap();
    assert_eq!(
        (info.state, info.refused.map(|refused| refused.errno)),
        (BindingState::Blocked, Some(libc::ENOMEM))
    );
    let fault = guest
        .unit
        .translate(guest.device, read(0x5000))
        .unwrap()
        .result
        .unwrap_err();
    assert_eq!(
        (fault.reason.code(), fault.diagnostic),
        (0x5b, Diagnostic::HostRefused)
    );
    assert_eq!(guest.read32(0x34) & 2, 2, "PPF");
    assert!(
        guest
            .notes
            .lines
            .lock()
            .unwrap()
            .iter()
            .any(|line| line.contains("00:03.0"))
    );
}

#[test]
fn the_next_configuration_recovers_a_blocked_device() {
    let mut guest = booted(SOFT);
    guest.poke(PASID_TABLE, 0);
    guest.submit(&[pasid_cache(), wait(3)]);
    let info = guest.unit.device_info(guest.device).unwrap();
    assert_eq!(
        (info.state, info.refused.map(|refused| refused.errno)),
        (BindingState::Blocked, None)
    );
    assert_eq!(target(&guest, 0x5000), None);
    guest.set_pasid_entry(1);
    assert_eq!(target(&guest, 0x5000), None, "not announced yet");
    guest.submit(&[pasid_cache(), pasid_all(), wait(4)]);
    assert_eq!(target(&guest, 0x5000), Some(0x10_0000));
}

#[test]
fn pass_through_and_translation_off_are_the_parent() {
    let mut guest = booted(SOFT);
    guest.set_pasid_entry(4);
    guest.submit(&[pasid_cache(), pasid_all(), wait(3)]);
    let info = guest.unit.device_info(guest.device).unwrap();
    assert_eq!(info.state, BindingState::Parent);
    assert_eq!(guest.unit.stats().hwpt_destroys, 1);
    assert_eq!(target(&guest, 0x5000), Some(0x5000));

    guest.set_pasid_entry(1);
    guest.submit(&[pasid_cache(), pasid_all(), wait(4)]);
    assert_eq!(
        guest.unit.device_info(guest.device).unwrap().state,
        BindingState::Nested
    );
    guest.write32(0x18, 1 << 26);
    assert_eq!(
        guest.unit.device_info(guest.device).unwrap().state,
        BindingState::Parent
    );
    guest.unit.reset();
    assert_eq!(
        guest.unit.device_info(guest.device).unwrap().state,
        BindingState::Parent
    );
    assert_eq!(guest.unit.stats().hwpt_allocs, 0);
}

#[test]
fn the_direct_walk_and_the_host_answer_alike() {
    let nested = booted(SOFT);
    let direct = booted(Config {
        host: HostKind::None,
        ..SOFT
    });
    for guest in [&nested, &direct] {
        guest.poke(PD + 8, 0x20_0000 | PWU | 0x80);
        guest.poke(PDPT + 8, PWU | 0x80);
        guest.poke(PT + 6 * 8, 0x30_0000 | 0b101);
        guest.poke(PT + 7 * 8, 0x30_0000 | 0b011);
        guest.poke(PT + 8 * 8, 0xfee0_0000 | PWU);
        guest.poke(PT + 9 * 8, 1 << 50 | PWU);
    }
    for address in [
        0x5fff,
        0x6000,
        0x7000,
        0x8000,
        0x9000,
        0xa000,
        0x20_1234,
        0x4000_5678,
        1 << 47,
        1 << 48,
    ] {
        for write in [false, true] {
            let request = Request {
                address,
                read: !write,
                write,
                ..Request::default()
            };
            let [a, b] = [&nested, &direct].map(|guest| {
                guest
                    .unit
                    .translate(guest.device, request)
                    .unwrap()
                    .result
                    .map(|ok| ok.address)
            });
            assert_eq!(a, b, "{address:#x} write {write}");
        }
    }
}
