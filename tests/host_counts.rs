//! What the unit asks of the kernel, counted: calls, objects, and what is covered.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::*;
use nested_vtd::host::ioctl::Fd;
use nested_vtd::host::soft::Twin;
use nested_vtd::host::uapi::request;
use nested_vtd::unit::Config;

/// A guest whose devices all go through the same first-stage table.
fn sharing(devices: u16) -> (Guest, Arc<Twin>, Vec<(u32, Fd)>) {
    let twin = Arc::new(Twin::default());
    let (mut guest, files) = Guest::on_twin(Config::default(), &twin, devices);
    guest.build_tables();
    for index in 0..u64::from(devices) {
        guest.poke(CONTEXT + (u64::from(SOURCE_ID) + index) * 32, DIRECTORY | 1);
    }
    // A queue of 512 descriptors, beyond the small layout.
    guest.enable_queue_at(0x10_0000, 2);
    guest.submit(&[pasid_cache(), pasid_all(), wait(1)]);
    (guest, twin, files)
}

fn calls(twin: &Twin, request: u32) -> u64 {
    twin.stats()
        .calls
        .get(&request)
        .map_or(0, |count| count.calls)
}

/// 255 page-selective descriptors and a wait, whatever the number of devices: one call,
/// which covers those pages and no other.
#[test]
fn a_drain_is_one_call() {
    for devices in [1, 8] {
        let (mut guest, twin, _) = sharing(devices);
        let pages: BTreeSet<u64> = (0..255_u64).map(|index| 0x4000 + index * 3 % 301).collect();
        assert_eq!(pages.len(), 255);
        let mut descriptors: Vec<_> = pages.iter().map(|iova| page(iova << 12)).collect();
        descriptors.reverse();
        descriptors.push(wait(2));
        let before = calls(&twin, request::HWPT_INVALIDATE);
        twin.record_forgotten(true);
        guest.submit(&descriptors);
        assert_eq!(guest.peek(STATUS), 2);
        let made = calls(&twin, request::HWPT_INVALIDATE) - before;
        assert_eq!(made, 1, "{devices} devices");
        let forgotten = twin.forgotten();
        let mut covered = BTreeSet::new();
        for range in &forgotten {
            for index in 0..range.pages {
                covered.insert((range.address >> 12) + index);
            }
        }
        assert_eq!(covered, pages, "{devices} devices");
        println!(
            "255 page-selective invalidations and a wait, {devices} devices: {made} call of {} \
             entries, 255 pages covered",
            forgotten.len()
        );
    }
}

/// One IOAS, one nesting parent and one nested HWPT, RAM mapped once, for two devices.
#[test]
fn devices_share_one_second_stage() {
    let (guest, twin, devices) = sharing(2);
    let stats = twin.stats();
    assert_eq!((stats.ioas, stats.paging, stats.nested), (1, 1, 1));
    assert_eq!((stats.mapped, stats.ever_mapped), (RAM_SIZE, RAM_SIZE));
    assert_eq!(calls(&twin, request::IOAS_MAP), 1);
    println!(
        "2 devices: {} IOAS, {} parent, {} nested HWPT, {} bytes of RAM mapped in {} map",
        stats.ioas, stats.paging, stats.nested, stats.ever_mapped, 1
    );
    for (handle, file) in devices {
        guest.unit.device_remove(handle).unwrap();
        twin.close(file).unwrap();
    }
    let stats = twin.stats();
    assert_eq!((stats.ioas, stats.paging, stats.nested), (0, 0, 0));
    assert_eq!((stats.devices, stats.mapped), (0, 0));
}
