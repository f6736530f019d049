//! A guest that wants to keep its processor in the unit: the most that one call does for it, beside the bound.
//!
//! Steps are those of `src/unit/work.rs`. A call of the queue does its share of 2^22, and what the descriptor
//! takes that is executed last: of the bounds below, the second part.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::*;
use nested_vtd::host::soft::{Injection, Twin};
use nested_vtd::host::uapi::request;
use nested_vtd::unit::{
    Config, DeviceDescription, HostKind, Notify, PageRequest, Request, RequestKind, Stats,
};

const SHARE: u64 = 1 << 22;

/// Where big structures are, in the RAM of 4 MiB.
const WIDE_DIRECTORY: u64 = 0x10_0000;
const WIDE_TABLE: u64 = 0x14_0000;
const BIG_QUEUE: u64 = 0x20_0000;

/// What was seen of calls.
#[derive(Debug, Default)]
struct Worst {
    calls: u64,
    steps: u64,
    host_calls: u64,
    time: Duration,
}

impl Worst {
    /// One call of the VMM. True if it left work.
    fn see(&mut self, guest: &Guest, twin: Option<&Twin>, call: impl FnOnce(&Guest)) -> bool {
        let ioctls = || {
            twin.map_or(0, |twin| {
                let calls = twin.stats().calls;
                calls.values().map(|count| count.calls).sum::<u64>()
            })
        };
        let (before, host_before) = (guest.unit.stats(), ioctls());
        let begun = Instant::now();
        call(guest);
        self.time = self.time.max(begun.elapsed());
        let after = guest.unit.stats();
        let delta = |of: fn(&Stats) -> u64| of(&after) - of(&before);
        self.calls += 1;
        self.steps = self.steps.max(delta(|stats| stats.queue_steps));
        self.host_calls = self.host_calls.max(ioctls() - host_before);
        delta(|stats| stats.queue_pauses) > 0
    }

    /// Queue `descriptors`, and come again as long as there is work.
    fn drain(
        &mut self,
        guest: &mut Guest,
        twin: Option<&Twin>,
        descriptors: impl IntoIterator<Item = [u64; 2]>,
    ) {
        guest.queue(descriptors);
        let tail = guest.tail();
        let mut more = self.see(guest, twin, |guest| guest.write32(0x88, tail as u32));
        while more {
            more = self.see(guest, twin, |guest| guest.unit.work());
        }
        assert_eq!(guest.read64(0x80), tail, "all of it is executed in the end");
    }

    fn print(&self, action: &str, last: u64) {
        let bound = SHARE + last;
        println!(
            "{action}: {} calls; worst {} steps of {bound}, {} host calls, {} us",
            self.calls,
            self.steps,
            self.host_calls,
            self.time.as_micros()
        );
        assert!(self.steps <= bound, "{action}: {self:?}");
    }
}

/// PASID-cache invalidation of everything.
fn pasid_cache_global() -> [u64; 2] {
    [7 | 3 << 4, 0]
}

/// Context-cache invalidation of everything.
fn context_cache_global() -> [u64; 2] {
    [1 | 1 << 4, 0]
}

/// IOTLB invalidation of everything.
fn iotlb_global() -> [u64; 2] {
    [2 | 1 << 4, 0]
}

/// A device TLB is to forget everything.
fn device_tlb() -> [u64; 2] {
    [3 | u64::from(SOURCE_ID) << 32, 0x7fff_ffff_ffff_f001]
}

/// One present entry for each PASID that `bits` allow, in a single table that all of the directory
/// names.
fn fill_pasids(guest: &Guest, bits: u32) {
    let entries = (1_u64 << bits) / 64;
    for index in 0..entries {
        guest.poke(WIDE_DIRECTORY + index * 8, WIDE_TABLE | 1);
    }
    for entry in 0..64 {
        let at = WIDE_TABLE + entry * 64;
        guest.poke(at + 16, PML4);
        guest.poke(at + 8, u64::from(DOMAIN) | 1 << 23);
        guest.poke(at, 1 << 6 | 1);
    }
    // PDTS, PASIDE and P.
    let size = u64::from(bits).saturating_sub(7) << 9;
    guest.poke(
        CONTEXT + u64::from(SOURCE_ID) * 32,
        WIDE_DIRECTORY | size | 1 << 3 | 1,
    );
}

/// Each descriptor makes the unit look at every PASID of the device.
#[test]
fn a_queue_of_pasid_cache_invalidations() {
    const BITS: u32 = 13;
    let twin = Arc::new(Twin::default());
    let config = Config {
        pasid_bits: BITS,
        ..Config::default()
    };
    let (mut guest, _) = Guest::on_twin(config, &twin, 1);
    guest.build_tables();
    guest.enable_queue_at(BIG_QUEUE, 2);
    fill_pasids(&guest, BITS);
    let mut worst = Worst::default();
    worst.drain(&mut guest, Some(&twin), [pasid_cache_global(), wait(1)]);
    let bound = guest.unit.device_info(guest.device).unwrap().pasids;
    assert_eq!(bound, (1 << BITS) - 1);
    // A look for each, two calls to put each elsewhere, and the comparing.
    let each = 16 + 2 * 1024 + 4;
    worst.print("binding 8191 PASIDs", (1 << BITS) * each);

    let mut worst = Worst::default();
    let all = core::iter::repeat_n(pasid_cache_global(), 500).chain([wait(2)]);
    worst.drain(&mut guest, Some(&twin), all);
    assert_eq!(guest.peek(STATUS), 2);
    assert!(worst.calls > 1, "{worst:?}");
    worst.print(
        "500 PASID-cache invalidations of 8191 PASIDs",
        (1 << BITS) * 4 + 0x10000,
    );
}

/// Many devices whose PASID entry has the same name: a descriptor of 512 pages is for each of them.
#[test]
fn a_queue_of_page_invalidations_of_many_contexts() {
    const DEVICES: u16 = 255;
    let mut guest = Guest::new(HostKind::None);
    guest.build_tables();
    (0..512).for_each(|page| guest.map(page << 12, 0x20_0000 + (page << 12)));
    let devices: Vec<u32> = (0..DEVICES)
        .map(|source_id| {
            let context = CONTEXT + u64::from(source_id % 128) * 32;
            guest.poke(context, DIRECTORY | 1);
            let description = DeviceDescription {
                source_id: source_id % 128,
                ..DeviceDescription::default()
            };
            guest.unit.device_add(description).unwrap()
        })
        .collect();
    guest.enable_queue_at(BIG_QUEUE, 2);
    for device in devices {
        let request = Request {
            address: 0x1000,
            read: true,
            ..Request::default()
        };
        guest
            .unit
            .translate(device, request)
            .unwrap()
            .result
            .unwrap();
    }
    let mut worst = Worst::default();
    // AM 9: 512 pages.
    let pages = [page(0)[0], 9];
    worst.drain(
        &mut guest,
        None,
        core::iter::repeat_n(pages, 40).chain([wait(1)]),
    );
    assert_eq!(guest.peek(STATUS), 1);
    assert!(worst.calls > 1, "{worst:?}");
    worst.print(
        "40 invalidations of 512 pages, 255 contexts",
        255 * 4 * (1 + 2 * 513),
    );

    let mut worst = Worst::default();
    let all = core::iter::repeat_n(context_cache_global(), 250)
        .chain(core::iter::repeat_n(iotlb_global(), 250));
    worst.drain(&mut guest, None, all);
    worst.print("500 global invalidations", 256 * 64);
}

/// The VMM is told of each, and has to obey.
#[test]
fn a_queue_of_orders() {
    let features = Config::DEFAULT.features.with_device_tlb(true);
    let mut guest = Guest::with(Config {
        features,
        ..Config::DEFAULT
    });
    let notify = Notify {
        unit: true,
        device_tlb: true,
    };
    guest.unit.device_notify(guest.device, notify).unwrap();
    guest.build_tables();
    guest.enable_queue_at(BIG_QUEUE, 7);
    let mut worst = Worst::default();
    let count = 16_000;
    let all = (0..count).map(|index| match index % 3 {
        0 => device_tlb(),
        1 => context_cache_global(),
        _ => iotlb_global(),
    });
    worst.drain(&mut guest, None, all);
    let orders = guest.notes.invalidations.lock().unwrap().len();
    assert!(orders >= count, "{orders}");
    worst.print("16000 orders for the VMM", 1024);
}

/// A host that neither attaches nor blocks leaves as much to be tried again as there are PASIDs; the wait is aborted once each
/// was tried.
#[test]
fn a_host_that_refuses_everything() {
    const BITS: u32 = 12;
    let twin = Arc::new(Twin::default());
    let config = Config {
        pasid_bits: BITS,
        ..Config::default()
    };
    let (mut guest, _) = Guest::on_twin(config, &twin, 1);
    guest.build_tables();
    guest.enable_queue_at(BIG_QUEUE, 2);
    fill_pasids(&guest, BITS);
    let mut worst = Worst::default();
    worst.drain(&mut guest, Some(&twin), [pasid_cache_global(), wait(1)]);
    // Every entry goes away, and nothing can be detached.
    for request in [request::VFIO_DETACH, request::VFIO_ATTACH] {
        twin.inject(Injection {
            request: Some(request),
            errno: libc::EBUSY,
            times: u64::MAX,
            ..Injection::default()
        });
    }
    (0..64).for_each(|entry| guest.poke(WIDE_TABLE + entry * 64, 0));
    let mut worst = Worst::default();
    guest.queue([pasid_cache_global(), wait(2)]);
    let tail = guest.tail();
    let mut more = worst.see(&guest, Some(&twin), |guest| {
        guest.write32(0x88, tail as u32);
    });
    while more {
        more = worst.see(&guest, Some(&twin), |guest| guest.unit.work());
    }
    // FSTS.ITE.
    assert_ne!(guest.read32(0x34) & 1 << 6, 0, "the wait was aborted");
    assert_eq!(guest.peek(STATUS), 1);
    assert!(worst.calls > 1, "{worst:?}");
    worst.print(
        "4095 PASIDs that cannot be blocked",
        (1 << BITS) * (16 + 2 * 1024 + 4),
    );
}

/// Requests for pages that nobody answers, faults that nobody reads, and lines of text: no more is kept than there is room
/// for.
#[test]
fn floods_take_no_memory() {
    let features = Config::DEFAULT
        .features
        .with_device_tlb(true)
        .with_page_request(true);
    let mut guest = Guest::with(Config {
        features,
        pasid_bits: 20,
        ..Config::DEFAULT
    });
    guest.build_tables();
    // PRE and DTE; a page request queue of 127 entries.
    let context = CONTEXT + u64::from(SOURCE_ID) * 32;
    guest.poke(context, guest.peek(context) | 1 << 4 | 1 << 2);
    guest.write64(0xd0, 0xb000);
    guest.enable();
    for group in 0..10_000_u32 {
        let request = PageRequest {
            address: u64::from(group) << 12,
            read: true,
            last: true,
            group: (group % 512) as u16,
            ..PageRequest::default()
        };
        guest.unit.page_request(guest.device, request).unwrap();
        let wrong = Request {
            address: u64::from(group) << 30,
            pasid: Some(group),
            kind: RequestKind::Untranslated,
            read: true,
            ..Request::default()
        };
        assert!(
            guest
                .unit
                .translate(guest.device, wrong)
                .unwrap()
                .result
                .is_err()
        );
        // A descriptor that is none stops the queue, and is told of.
        guest.queue([[0xff, 0]]);
        let tail = guest.tail() as u32;
        guest.write32(0x88, tail);
        guest.write32(0x34, 1 << 4);
        guest.write32(0x18, 1 << 31);
        guest.write32(0x18, 1 << 31 | 1 << 26);
        guest.rewind();
    }
    let lines = guest.notes.lines.lock().unwrap().len();
    let stats = guest.unit.stats();
    println!(
        "10000 page requests, faults and queue errors: {} requests that found no room, {} faults without a record, {lines} lines",
        stats.page_request_overflows, stats.fault_overflows
    );
    assert!(lines <= 64, "{lines} lines");
    assert!(stats.queue_errors >= 10_000);
    assert!(stats.page_request_overflows > 9_000, "{stats:?}");
}
