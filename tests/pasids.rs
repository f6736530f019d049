//! PASIDs on the host after an invalidation that may be of any of them: what has changed in the guest's tables is
//! acted upon, wherever the change is, and what has not costs no call.

mod common;

use std::sync::Arc;

use common::*;
use nested_vtd::host::ioctl::Fd;
use nested_vtd::host::soft::{Injection, Twin, TwinRequest};
use nested_vtd::host::uapi::request;
use nested_vtd::translate::Access;
use nested_vtd::translate::tables::Purpose;
use nested_vtd::unit::Config;

/// In three PASID tables.
const PASIDS: [u32; 7] = [1, 2, 63, 64, 100, 127, 130];
const PASID_TABLES: u64 = 0x10_0000;
/// First-stage tables, four pages each.
const STAGES: u64 = 0x20_0000;
const IOVA: u64 = 0x5000;
const DATA: u64 = 0x30_0000;

/// PASID-cache invalidation of all.
const PASID_CACHE: [u64; 2] = [7 | 3 << 4, 0];

/// PASID-based IOTLB invalidation of a PASID.
fn pasid_iotlb(domain: u16, pasid: u32) -> [u64; 2] {
    [
        6 | 2 << 4 | u64::from(domain) << 16 | u64::from(pasid) << 32,
        0,
    ]
}

struct Machine {
    guest: Guest,
    twin: Arc<Twin>,
    file: Fd,
    waits: u32,
}

impl Machine {
    fn new() -> Self {
        Self::with(Config::default(), 0)
    }

    /// Each PASID goes through a first-stage table of its own.
    fn with(config: Config, context: u64) -> Self {
        let twin = Arc::new(Twin::default());
        let config = Config {
            pasid_bits: 10,
            ..config
        };
        let (guest, files) = Guest::on_twin(config, &twin, 1);
        guest.build_tables();
        let mut machine = Self {
            guest,
            twin,
            file: files[0].1,
            waits: 0,
        };
        machine.context(DIRECTORY | 1 << 3 | context | 1);
        for table in 0..3 {
            machine.directory(table, (PASID_TABLES + table * 0x1000) | 1);
        }
        for stage in 0..16 {
            let base = STAGES + stage * 0x4000;
            for level in [0, 0x1000, 0x2000] {
                machine
                    .guest
                    .poke(base + level, (base + level + 0x1000) | PWU);
            }
            machine.map(stage, DATA + stage * 0x1000);
        }
        for (stage, pasid) in PASIDS.into_iter().enumerate() {
            machine.bind(pasid, stage as u64);
        }
        machine.guest.enable();
        machine.announce();
        machine
    }

    fn map(&self, stage: u64, target: u64) {
        self.guest.poke(
            STAGES + stage * 0x4000 + 0x3000 + (IOVA >> 12) * 8,
            target | PWU,
        );
    }

    fn context(&self, low: u64) {
        self.guest.poke(CONTEXT + u64::from(SOURCE_ID) * 32, low);
    }

    fn directory(&self, index: u64, entry: u64) {
        self.guest.poke(DIRECTORY + index * 8, entry);
    }

    fn entry(&self, pasid: u32, qword: u64, value: u64) {
        let table = PASID_TABLES + u64::from(pasid / 64) * 0x1000;
        self.guest
            .poke(table + u64::from(pasid % 64) * 64 + qword * 8, value);
    }

    fn bind(&self, pasid: u32, stage: u64) {
        self.entry(pasid, 2, STAGES + stage * 0x4000);
        self.entry(pasid, 1, u64::from(DOMAIN) | 1 << 23);
        self.entry(pasid, 0, 1 << 6 | 1);
    }

    /// Submit and wait; is the wait done?
    fn submit(&mut self, descriptor: [u64; 2]) -> bool {
        self.waits += 1;
        self.guest.submit(&[descriptor, wait(self.waits)]);
        self.guest.peek(STATUS) == u64::from(self.waits)
    }

    fn announce(&mut self) {
        assert!(self.submit(PASID_CACHE));
    }

    fn target(&self, pasid: u32) -> Option<u64> {
        let access = Access::new().with_read(true);
        let request = TwinRequest {
            address: IOVA,
            pasid: Some(pasid),
            access,
            kind: Purpose::Untranslated,
        };
        let dma = self.twin.dma(self.file, &request);
        dma.result.ok().map(|to| to.address)
    }

    /// Where each PASID goes.
    fn targets(&self) -> [Option<u64>; PASIDS.len()] {
        PASIDS.map(|pasid| self.target(pasid))
    }

    fn refuse(&self, request: u32, errno: i32, times: u64) {
        self.twin.inject(Injection {
            request: Some(request),
            errno,
            times,
            ..Injection::default()
        });
    }

    /// PASIDs that are attached, and that the host refused.
    fn counts(&self) -> (usize, usize) {
        let info = self.guest.unit.device_info(self.guest.device).unwrap();
        (info.pasids, info.pasids_blocked)
    }
}

fn own() -> [Option<u64>; PASIDS.len()] {
    core::array::from_fn(|stage| Some(DATA + stage as u64 * 0x1000))
}

/// Those of `PASIDS` that are not `gone`.
fn own_without(gone: impl Fn(u32) -> bool) -> [Option<u64>; PASIDS.len()] {
    let mut targets = own();
    for (target, pasid) in targets.iter_mut().zip(PASIDS) {
        *target = target.filter(|_| !gone(pasid));
    }
    targets
}

#[test]
fn what_has_not_changed_costs_no_call() {
    let mut machine = Machine::new();
    assert_eq!(machine.targets(), own());
    let calls = machine.twin.calls();
    for _ in 0..3 {
        machine.announce();
    }
    assert_eq!(machine.twin.calls(), calls);
    assert_eq!(machine.counts(), (PASIDS.len(), 0));
    assert_eq!(machine.targets(), own());
}

/// A change, what undoes it, and whose requests have no way in between.
type Change = (&'static str, fn(&Machine), fn(&Machine), fn(u32) -> bool);

#[test]
fn what_has_changed_is_acted_upon() {
    let changes: [Change; 9] = [
        (
            "entry not present",
            |machine| machine.entry(64, 0, 0),
            |machine| machine.bind(64, 3),
            |pasid| pasid == 64,
        ),
        (
            "the last entry of a table not present",
            |machine| machine.entry(127, 0, 0),
            |machine| machine.bind(127, 5),
            |pasid| pasid == 127,
        ),
        (
            "reserved bit in the entry",
            |machine| machine.entry(2, 1, u64::from(DOMAIN) | 1 << 16),
            |machine| machine.bind(2, 1),
            |pasid| pasid == 2,
        ),
        (
            "directory entry not present",
            |machine| machine.directory(1, 0),
            |machine| machine.directory(1, (PASID_TABLES + 0x1000) | 1),
            |pasid| pasid / 64 == 1,
        ),
        (
            "reserved bit in the directory entry",
            |machine| machine.directory(0, PASID_TABLES | 0b101),
            |machine| machine.directory(0, PASID_TABLES | 1),
            |pasid| pasid < 64,
        ),
        (
            "PASID table outside RAM",
            |machine| machine.directory(2, RAM_SIZE | 1),
            |machine| machine.directory(2, (PASID_TABLES + 0x2000) | 1),
            |pasid| pasid >= 128,
        ),
        (
            "directory outside RAM",
            |machine| machine.context(RAM_SIZE | 1 << 3 | 1),
            |machine| machine.context(DIRECTORY | 1 << 3 | 1),
            |_| true,
        ),
        (
            "PASIDE",
            |machine| machine.context(DIRECTORY | 1),
            |machine| machine.context(DIRECTORY | 1 << 3 | 1),
            |_| true,
        ),
        (
            "translation off",
            |machine| machine.guest.write32(0x18, 1 << 26),
            |machine| machine.guest.write32(0x18, 1 << 26 | 1 << 31),
            |_| true,
        ),
    ];
    let mut machine = Machine::new();
    for (name, change, back, gone) in changes {
        change(&machine);
        machine.announce();
        assert_eq!(machine.targets(), own_without(gone), "{name}");
        let left = PASIDS.iter().filter(|&&pasid| !gone(pasid)).count();
        assert_eq!(machine.counts(), (left, 0), "{name}");
        back(&machine);
        machine.announce();
        assert_eq!(machine.targets(), own(), "{name}, undone");
    }
    // To the table of another, to one of its own, and to none.
    for (pasid, stage) in [(63, 4), (63, 9), (130, 10), (1, 8)] {
        machine.bind(pasid, stage);
        machine.announce();
        assert_eq!(
            machine.target(pasid),
            Some(DATA + stage * 0x1000),
            "{pasid}"
        );
    }
    machine.entry(100, 0, 4 << 6 | 1);
    machine.announce();
    assert_eq!(machine.target(100), Some(IOVA), "pass-through");
    machine.bind(100, 4);
    // One that is new, in a table with others and in one without.
    machine.directory(9, (PASID_TABLES + 9 * 0x1000) | 1);
    machine.bind(65, 11);
    machine.bind(9 * 64, 12);
    machine.announce();
    let new = [100, 65, 9 * 64].map(|pasid| machine.target(pasid));
    assert_eq!(new, [4, 11, 12].map(|stage| Some(DATA + stage * 0x1000)));
    assert_eq!(machine.counts(), (PASIDS.len() + 2, 0));
}

#[test]
fn an_entry_that_changes_its_domain_only_is_invalidated_by_the_new_one() {
    let mut machine = Machine::new();
    machine.entry(64, 1, u64::from(DOMAIN + 1) | 1 << 23);
    machine.announce();
    assert_eq!(machine.target(64), Some(DATA + 0x3000));
    machine.map(3, DATA);
    assert!(machine.submit(pasid_iotlb(DOMAIN, 64)));
    assert_eq!(machine.target(64), Some(DATA + 0x3000), "not yet");
    assert!(machine.submit(pasid_iotlb(DOMAIN + 1, 64)));
    assert_eq!(machine.target(64), Some(DATA));
}

#[test]
fn flags_of_an_entry_that_are_a_hwpts_get_another_one() {
    let features = Config::default().features.with_supervisor_request(true);
    let config = Config {
        features,
        ..Config::default()
    };
    let mut machine = Machine::with(config, 0);
    let allocs = machine.guest.unit.stats().hwpt_allocs;
    // NXE is no flag of a HWPT; FPD is none of its entry's content.
    for (qword, value) in [(2, (STAGES + 3 * 0x4000) | 1 << 5), (0, 1 << 6 | 0b11)] {
        let attaches = machine.guest.unit.stats().attaches;
        machine.entry(64, qword, value);
        machine.announce();
        assert_eq!(machine.guest.unit.stats().attaches, attaches);
    }
    // SRE is one.
    machine.entry(64, 2, (STAGES + 3 * 0x4000) | 1 << 5 | 1);
    machine.announce();
    assert_eq!(machine.guest.unit.stats().hwpt_allocs, allocs + 1);
    assert_eq!(machine.targets(), own());
}

#[test]
fn what_the_host_refused_is_tried_again() {
    for call in [request::VFIO_ATTACH, request::HWPT_ALLOC] {
        let mut machine = Machine::new();
        machine.bind(64, 9);
        machine.refuse(call, libc::ENOMEM, 1);
        machine.announce();
        assert_eq!(machine.targets(), own_without(|pasid| pasid == 64));
        assert_eq!(machine.counts(), (PASIDS.len() - 1, 1));
        machine.announce();
        assert_eq!(machine.target(64), Some(DATA + 9 * 0x1000));
        assert_eq!(machine.counts(), (PASIDS.len(), 0));
    }
}

/// The kernel may have it detached or not, so it is both before the guest goes on, also if the guest's entry is again
/// what it was.
#[test]
fn what_could_not_be_detached_is_detached_later() {
    let mut machine = Machine::new();
    machine.entry(64, 0, 0);
    machine.refuse(request::VFIO_DETACH, libc::EIO, u64::MAX);
    assert!(!machine.submit(PASID_CACHE));
    machine.bind(64, 3);
    machine.guest.write32(0x34, 0x40);
    assert!(!machine.submit(PASID_CACHE));
    machine.twin.clear_injections();
    let detached = machine.twin.count(request::VFIO_DETACH).calls;
    machine.guest.write32(0x34, 0x40);
    machine.announce();
    assert_eq!(machine.twin.count(request::VFIO_DETACH).calls, detached + 1);
    assert_eq!(machine.targets(), own());
    assert_eq!(machine.counts(), (PASIDS.len(), 0));
}

/// Once a device turns out to be without PRI, its other PASIDs need no fault queue either.
#[test]
fn page_requests_that_are_given_up_are_for_all() {
    let features = Config::default().features;
    let config = Config {
        features: features.with_device_tlb(true).with_page_request(true),
        ..Config::default()
    };
    let mut machine = Machine::with(config, 0b10100);
    let before = machine.guest.unit.stats();
    machine.bind(129, 9);
    machine.refuse(request::VFIO_ATTACH, libc::ENODEV, 1);
    machine.announce();
    assert_eq!(machine.target(129), Some(DATA + 9 * 0x1000));
    machine.announce();
    let after = machine.guest.unit.stats();
    // The new one's first HWPT went as it came.
    let moved = PASIDS.len() as u64;
    assert_eq!(after.hwpt_allocs - before.hwpt_allocs, moved + 2);
    assert_eq!(after.attaches - before.attaches, moved + 1);
    assert_eq!(machine.targets(), own());
    let calls = machine.twin.calls();
    machine.announce();
    assert_eq!(machine.twin.calls(), calls);
}
