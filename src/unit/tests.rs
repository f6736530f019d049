//! A host that fails on command: what the unit does when calls on it are refused.

use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};

use super::*;
use crate::host::{Errno, HostDevice, HwInfo, HwptId, InvalidateError, VtdS1, VtdS1Invalidate};
use crate::vmm::LogLevel;

/// The software host behind calls that can be made to fail.
struct FlakyHost {
    soft: Arc<SoftHost>,
    /// Errno of the next attachments to nested HWPTs, 0 for none.
    attach: AtomicI32,
    /// So many invalidate calls fail, with EIO at their second entry.
    invalidate: AtomicUsize,
    /// Report hardware without ECAP.NEST.
    no_nesting: bool,
}

impl Host for FlakyHost {
    fn bind(&self) -> core::result::Result<HostDevice, Errno> {
        self.soft.bind()
    }

    fn unbind(&self, device: HostDevice) {
        self.soft.unbind(device);
    }

    fn hw_info(&self, device: HostDevice) -> core::result::Result<HwInfo, Errno> {
        let mut info = self.soft.hw_info(device)?;
        info.ecap.set_nested(!self.no_nesting);
        Ok(info)
    }

    fn parent(&self) -> HwptId {
        self.soft.parent()
    }

    fn alloc_nested(
        &self,
        device: HostDevice,
        data: &VtdS1,
    ) -> core::result::Result<HwptId, Errno> {
        self.soft.alloc_nested(device, data)
    }

    fn attach(&self, device: HostDevice, hwpt: HwptId) -> core::result::Result<(), Errno> {
        match self.attach.load(Ordering::SeqCst) {
            0 => self.soft.attach(device, hwpt),
            _ if hwpt == self.parent() => self.soft.attach(device, hwpt),
            errno => Err(errno),
        }
    }

    fn detach(&self, device: HostDevice) -> core::result::Result<(), Errno> {
        self.soft.detach(device)
    }

    fn invalidate(
        &self,
        hwpt: HwptId,
        entries: &[VtdS1Invalidate],
    ) -> core::result::Result<(), InvalidateError> {
        let left = self.invalidate.load(Ordering::SeqCst);
        if left == 0 {
            return self.soft.invalidate(hwpt, entries);
        }
        self.invalidate.store(left - 1, Ordering::SeqCst);
        let handled = entries.len().min(1);
        self.soft.invalidate(hwpt, &entries[..handled])?;
        Err(InvalidateError {
            handled,
            errno: libc::EIO,
        })
    }

    fn destroy(&self, hwpt: HwptId) -> core::result::Result<(), Errno> {
        self.soft.destroy(hwpt)
    }

    fn ram_removed(&self) {
        self.soft.ram_removed();
    }
}

struct Deaf;

impl Vmm for Deaf {
    fn msi(&self, _address: u64, _data: u32) {}
    fn log(&self, _level: LogLevel, _message: &str) {}
    fn event(&self, _event: Event, _a: u64, _b: u64, _c: u64) {}
}

const ROOT: u64 = 0x1000;
const CONTEXT: u64 = 0x2000;
const DIRECTORY: u64 = 0x3000;
const PASID_TABLE: u64 = 0x4000;
const TABLE: u64 = 0x5000;
const QUEUE: u64 = 0x9000;
const STATUS: u64 = 0xa000;
const RAM_SIZE: u64 = 16 << 12;

/// A unit over a flaky host, with one device at 00:00.0 whose first-stage table maps
/// the pages at 0x5000 and 0x6000.
struct Bench {
    unit: Unit,
    host: Arc<FlakyHost>,
    device: u32,
    tail: u64,
}

impl Bench {
    fn new() -> Self {
        let (unit, host) = Self::parts(false);
        let description = DeviceDescription {
            tag: 0,
            source_id: 0,
            assigned: true,
        };
        let device = unit.device_add(description).unwrap();
        let mut bench = Self {
            unit,
            host,
            device,
            tail: 0,
        };
        for (gpa, value) in [
            (ROOT, CONTEXT | 1),
            (CONTEXT, DIRECTORY | 1),
            (DIRECTORY, PASID_TABLE | 1),
            (PASID_TABLE, 1 << 6 | 1),
            (PASID_TABLE + 8, 5),
            (PASID_TABLE + 16, TABLE),
            (TABLE, 0x6000 | 7),
            (0x6000, 0x7000 | 7),
            (0x7000, 0x8000 | 7),
            (0x8000 + 5 * 8, 0xb000 | 7),
            (0x8000 + 6 * 8, 0xc000 | 7),
        ] {
            bench.poke(gpa, value);
        }
        for (offset, size, value) in [
            (0x90, 8, QUEUE | 0x800),
            (0x18, 4, 1 << 26),
            (0x20, 8, ROOT | 1 << 10),
            (0x18, 4, 1 << 26 | 1 << 30),
            (0x18, 4, 1 << 26 | 1 << 31),
        ] {
            bench.unit.mmio_write(offset, size, value).unwrap();
        }
        bench.submit(&[PASID_CACHE]);
        bench
    }

    fn parts(no_nesting: bool) -> (Unit, Arc<FlakyHost>) {
        let cells: Arc<[AtomicU64]> = (0..RAM_SIZE / 8).map(|_| AtomicU64::new(0)).collect();
        let memory = Arc::new(GuestMemory::default());
        memory.add(0, cells.into(), false).unwrap();
        let soft = Arc::new(SoftHost::new(Arc::clone(&memory)));
        let host = Arc::new(FlakyHost {
            soft: Arc::clone(&soft),
            attach: AtomicI32::new(0),
            invalidate: AtomicUsize::new(0),
            no_nesting,
        });
        let config = Config {
            host: HostKind::Soft,
            ..Config::default()
        };
        let control = Arc::clone(&host) as Arc<dyn Host>;
        let unit = Unit::assemble(config, Arc::new(Deaf), memory, Some(control), Some(soft));
        (unit.unwrap(), host)
    }

    fn poke(&self, gpa: u64, value: u64) {
        let old = self.unit.memory.read_u64(gpa).unwrap();
        assert!(
            self.unit
                .memory
                .compare_exchange_u64(gpa, old, value)
                .unwrap()
        );
    }

    fn submit(&mut self, descriptors: &[[u64; 2]]) {
        for &[low, high] in descriptors {
            self.poke(QUEUE + self.tail, low);
            self.poke(QUEUE + self.tail + 8, high);
            self.tail += 32;
        }
        self.unit.mmio_write(0x88, 4, self.tail).unwrap();
    }

    fn target(&self, address: u64) -> Option<u64> {
        let request = Request {
            address,
            read: true,
            write: false,
            ..Request::default()
        };
        let answer = self.unit.translate(self.device, request).unwrap();
        answer.result.ok().map(|translation| translation.address)
    }

    fn state(&self) -> (BindingState, Option<Errno>) {
        let info = self.unit.device_info(self.device).unwrap();
        (info.state, info.host_errno)
    }
}

const PASID_CACHE: [u64; 2] = [7 | 1 << 4 | 5 << 16, 0];
const WAIT: [u64; 2] = [5 | 1 << 5 | 1 << 32, STATUS];

fn page(address: u64) -> [u64; 2] {
    [6 | 3 << 4 | 5 << 16, address]
}

#[test]
fn a_partly_refused_invalidation_is_made_whole() {
    let mut bench = Bench::new();
    assert_eq!(
        [0x5000, 0x6000].map(|at| bench.target(at)),
        [Some(0xb000), Some(0xc000)]
    );
    bench.poke(0x8000 + 5 * 8, 0xd000 | 7);
    bench.poke(0x8000 + 6 * 8, 0xe000 | 7);
    bench.host.invalidate.store(1, Ordering::SeqCst);
    bench.submit(&[page(0x5000), page(0x6000), WAIT]);
    assert_eq!(
        [0x5000, 0x6000].map(|at| bench.target(at)),
        [Some(0xd000), Some(0xe000)]
    );
    let stats = bench.unit.stats();
    assert_eq!((stats.invalidate_errors, stats.stale_uses), (1, 0));
    assert_eq!(bench.state(), (BindingState::Nested, None));
}

#[test]
fn what_cannot_be_invalidated_is_not_used_any_more() {
    let mut bench = Bench::new();
    assert_eq!(bench.target(0x5000), Some(0xb000));
    bench.host.invalidate.store(2, Ordering::SeqCst);
    bench.submit(&[page(0x5000), page(0x6000), WAIT]);
    assert_eq!(
        bench.unit.memory.read_u64(STATUS),
        Ok(1),
        "the guest goes on"
    );
    assert_eq!(bench.state(), (BindingState::Blocked, Some(libc::EIO)));
    assert_eq!(bench.target(0x5000), None);
    assert_eq!(bench.unit.stats().hwpt_destroys, 1);
    // The next configuration that the guest announces is tried afresh.
    bench.submit(&[PASID_CACHE, WAIT]);
    assert_eq!(bench.state(), (BindingState::Nested, None));
    assert_eq!(bench.target(0x5000), Some(0xb000));
}

#[test]
fn a_refused_attachment_leaves_nothing_behind() {
    let mut bench = Bench::new();
    bench.poke(PASID_TABLE + 16, 0xf000);
    bench.host.attach.store(libc::EINVAL, Ordering::SeqCst);
    bench.submit(&[PASID_CACHE, WAIT]);
    assert_eq!(bench.state(), (BindingState::Blocked, Some(libc::EINVAL)));
    let stats = bench.unit.stats();
    assert_eq!(
        (stats.hwpt_allocs, stats.hwpt_destroys, stats.attach_errors),
        (2, 2, 1)
    );

    bench.poke(PASID_TABLE + 16, TABLE);
    bench.host.attach.store(0, Ordering::SeqCst);
    bench.submit(&[PASID_CACHE, WAIT]);
    assert_eq!(bench.state(), (BindingState::Nested, None));
    assert_eq!(bench.target(0x6000), Some(0xc000));
}

#[test]
fn a_host_that_cannot_nest_gets_no_device() {
    let (unit, host) = Bench::parts(true);
    let description = DeviceDescription {
        tag: 0,
        source_id: 0,
        assigned: true,
    };
    let error = unit.device_add(description).unwrap_err();
    assert_eq!(error.errno(), libc::EINVAL);
    assert!(error.to_string().contains("NEST"), "{error}");
    // It was not left behind on the host: its ID is free.
    assert_eq!(host.bind(), Ok(HostDevice(3)));
}
