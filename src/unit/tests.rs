//! What the unit does when the host refuses calls.

use super::*;
use crate::host::Errno;
use crate::host::soft::{TwinConfig, TwinStats, capable_iommu};
use crate::memory::OwnedRam;
use crate::vmm::LogLevel;

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

/// A unit over the software host, with one device at 00:00.0 whose first-stage table maps
/// the pages at 0x5000 and 0x6000.
struct Bench {
    unit: Unit,
    device: u32,
    tail: u64,
}

impl Bench {
    fn new() -> Self {
        let config = Config {
            host: HostKind::Soft,
            ..Config::default()
        };
        let unit = Unit::new(config, Arc::new(Deaf)).unwrap();
        let ram = OwnedRam::new(RAM_SIZE);
        unit.ram_add(0, ram.into(), false).unwrap();
        let device = unit.device_add(ASSIGNED).unwrap();
        let mut bench = Self {
            unit,
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

    /// The next `times` calls of `request` fail.
    fn refuse(&self, request: u32, errno: Errno, handled: u32, times: u64) {
        self.unit.twin.as_ref().unwrap().inject(Injection {
            request: Some(request),
            errno,
            handled,
            blocked: true,
            times,
            ..Injection::default()
        });
    }

    fn twin(&self) -> TwinStats {
        self.unit.twin.as_ref().unwrap().stats()
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
        (info.state, info.refused.map(|refused| refused.errno))
    }
}

const PASID_CACHE: [u64; 2] = [7 | 1 << 4 | 5 << 16, 0];
const WAIT: [u64; 2] = [5 | 1 << 5 | 1 << 32, STATUS];

fn page(address: u64) -> [u64; 2] {
    [6 | 3 << 4 | 5 << 16, address]
}

const ASSIGNED: DeviceDescription = DeviceDescription {
    tag: 0,
    source_id: 0,
    assigned: true,
    iommufd: None,
    file: None,
    dev_id: None,
    fixed_id: false,
};

#[test]
fn a_partly_refused_invalidation_goes_on_where_it_stopped() {
    let mut bench = Bench::new();
    assert_eq!(
        [0x5000, 0x6000].map(|at| bench.target(at)),
        [Some(0xb000), Some(0xc000)]
    );
    bench.poke(0x8000 + 5 * 8, 0xd000 | 7);
    bench.poke(0x8000 + 6 * 8, 0xe000 | 7);
    let before = bench.twin();
    bench.refuse(request::HWPT_INVALIDATE, libc::EIO, 1, 1);
    // Two entries, as the ranges do not touch.
    bench.submit(&[page(0x6000), page(0x5000), page(0x10_0000), WAIT]);
    assert_eq!(
        [0x5000, 0x6000].map(|at| bench.target(at)),
        [Some(0xd000), Some(0xe000)]
    );
    let stats = bench.unit.stats();
    assert_eq!((stats.invalidate_errors, stats.stale_uses), (1, 0));
    let after = bench.twin();
    assert_eq!(after.invalidate_calls - before.invalidate_calls, 2);
    assert_eq!(after.invalidate_entries - before.invalidate_entries, 2);
    assert_eq!(bench.state(), (BindingState::Nested, None));
}

#[test]
fn what_cannot_be_flushed_precisely_is_flushed_whole() {
    let mut bench = Bench::new();
    assert_eq!(bench.target(0x5000), Some(0xb000));
    bench.poke(0x8000 + 5 * 8, 0xd000 | 7);
    bench.refuse(request::HWPT_INVALIDATE, libc::EINVAL, 0, 2);
    bench.submit(&[page(0x5000), WAIT]);
    assert_eq!(bench.target(0x5000), Some(0xd000));
    let stats = bench.unit.stats();
    assert_eq!((stats.invalidate_errors, stats.invalidate_resumed), (2, 2));
    assert_eq!(bench.state(), (BindingState::Nested, None));
}

#[test]
fn what_cannot_be_invalidated_is_not_used_any_more() {
    let mut bench = Bench::new();
    assert_eq!(bench.target(0x5000), Some(0xb000));
    bench.refuse(request::HWPT_INVALIDATE, libc::EIO, 0, 3);
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
    bench.refuse(request::VFIO_ATTACH, libc::EINVAL, 0, 1);
    bench.submit(&[PASID_CACHE, WAIT]);
    assert_eq!(bench.state(), (BindingState::Blocked, Some(libc::EINVAL)));
    let stats = bench.unit.stats();
    assert_eq!(
        (stats.hwpt_allocs, stats.hwpt_destroys, stats.attach_errors),
        (2, 2, 1)
    );

    bench.poke(PASID_TABLE + 16, TABLE);
    bench.submit(&[PASID_CACHE, WAIT]);
    assert_eq!(bench.state(), (BindingState::Nested, None));
    assert_eq!(bench.target(0x6000), Some(0xc000));
}

/// A device that can be neither attached nor detached may still use what the guest takes
/// back, so the guest is not told that it has it.
#[test]
fn a_device_that_cannot_be_blocked_holds_the_wait() {
    let mut bench = Bench::new();
    bench.poke(PASID_TABLE, 0);
    bench.refuse(request::VFIO_DETACH, libc::EIO, 0, 4);
    bench.submit(&[PASID_CACHE, WAIT]);
    assert_eq!(bench.unit.memory.read_u64(STATUS), Ok(0));
    let ite = |bench: &Bench| bench.unit.mmio_read(0x34, 4).unwrap() & 0x40;
    assert_eq!(ite(&bench), 0x40, "ITE: the wait was aborted");
    assert_eq!(bench.unit.stats().host_timeouts, 1);
    // Software clears the error and asks again, as Linux does.
    bench.unit.mmio_write(0x34, 4, 0x40).unwrap();
    bench.submit(&[PASID_CACHE, WAIT]);
    assert_eq!(bench.unit.memory.read_u64(STATUS), Ok(1));
    assert_eq!(ite(&bench), 0);
    assert_eq!(bench.state(), (BindingState::Blocked, None));
    assert_eq!(bench.target(0x5000), None);
}

#[test]
fn a_host_that_cannot_nest_gets_no_device() {
    let mut iommu = capable_iommu();
    iommu.ecap.set_nested(false);
    let twin = Arc::new(Twin::new(TwinConfig {
        iommus: vec![iommu],
        ..TwinConfig::default()
    }));
    let config = Config {
        host: HostKind::Soft,
        ..Config::default()
    };
    let system = Arc::clone(&twin) as Arc<dyn System>;
    let unit = Unit::assemble(
        config,
        Arc::new(Deaf),
        Some(system),
        Some(Arc::clone(&twin)),
    );
    let unit = unit.unwrap();
    let error = unit.device_add(ASSIGNED).unwrap_err();
    assert_eq!(error.errno(), libc::EINVAL);
    assert!(error.to_string().contains("NEST"), "{error}");
    // Nothing was left behind on the host.
    let stats = twin.stats();
    assert_eq!((stats.devices, stats.ioas, stats.paging), (0, 0, 0));
}
