//! The kernel's rules, call by call, through raw numbers and addresses; and the
//! hardware's own.

mod hardware;
mod hwpt;
mod ioas;
mod pages;
mod vfio;

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::host::uapi::*;
use crate::translate::Access;
use crate::translate::tables::Purpose;

const READ: Access = Access::new().with_read(true);
const WRITE: Access = READ.with_read(false).with_write(true);

/// Present, writable, user.
const PWU: u64 = 0b111;
/// Where guest RAM has the topmost table.
const TABLE: u64 = 0x1000;

#[repr(align(4096))]
struct Page([AtomicU64; 512]);

/// Pages of this process.
struct Ram(Box<[Page]>);

impl Ram {
    fn new(pages: usize) -> Self {
        Self(
            (0..pages)
                .map(|_| Page(std::array::from_fn(|_| AtomicU64::new(0))))
                .collect(),
        )
    }

    fn address(&self) -> u64 {
        self.0.as_ptr().expose_provenance() as u64
    }

    fn bytes(&self) -> u64 {
        self.0.len() as u64 * 4096
    }

    fn cell(&self, offset: u64) -> &AtomicU64 {
        &self.0[offset as usize / 4096].0[offset as usize % 4096 / 8]
    }

    fn poke(&self, offset: u64, value: u64) {
        self.cell(offset).store(value, Ordering::SeqCst);
    }

    fn peek(&self, offset: u64) -> u64 {
        self.cell(offset).load(Ordering::SeqCst)
    }

    /// Map the 4 KiB page at `address` (below 2 MiB) to `target`.
    fn map(&self, address: u64, target: u64) {
        self.poke(TABLE, 0x2000 | PWU);
        self.poke(0x2000, 0x3000 | PWU);
        self.poke(0x3000, 0x4000 | PWU);
        self.poke(0x4000 + (address >> 12) * 8, target | PWU);
    }
}

fn address_of<T>(value: &mut T) -> u64 {
    core::ptr::from_mut(value).expose_provenance() as u64
}

/// A twin with one iommufd.
struct Bench {
    twin: Twin,
    iommu: Fd,
}

impl Default for Bench {
    fn default() -> Self {
        Self::new(TwinConfig::default())
    }
}

impl Bench {
    fn new(config: TwinConfig) -> Self {
        let twin = Twin::new(config);
        let iommu = twin.open();
        Self { twin, iommu }
    }

    fn with(change: impl FnOnce(&mut TwinConfig)) -> Self {
        let mut config = TwinConfig::default();
        change(&mut config);
        Self::new(config)
    }

    fn call<T: Plain>(&self, request: u32, argument: &mut T) -> Result<(), Errno> {
        self.on(self.iommu, request, argument)
    }

    /// The leading size is filled in.
    fn on<T: Plain>(&self, fd: Fd, request: u32, argument: &mut T) -> Result<(), Errno> {
        let mut bytes = argument.to_bytes();
        bytes[..4].copy_from_slice(&(size_of::<T>() as u32).to_ne_bytes());
        let result = self.raw(fd, request, &mut bytes);
        *argument = T::from_bytes(&bytes);
        result
    }

    fn raw(&self, fd: Fd, request: u32, bytes: &mut [u8]) -> Result<(), Errno> {
        let address = bytes.as_mut_ptr().expose_provenance() as u64;
        self.twin
            .ioctl(fd, request, address)
            .map(|value| assert_eq!(value, 0))
    }

    fn ioas(&self) -> u32 {
        let mut alloc = IoasAlloc::default();
        self.call(request::IOAS_ALLOC, &mut alloc).unwrap();
        alloc.out_ioas_id
    }

    fn map(&self, ioas: u32, ram: &Ram, iova: u64) -> Result<(), Errno> {
        self.map_flags(
            ioas,
            ram,
            iova,
            MAP_FIXED_IOVA | MAP_READABLE | MAP_WRITEABLE,
        )
    }

    fn map_flags(&self, ioas: u32, ram: &Ram, iova: u64, flags: u32) -> Result<(), Errno> {
        let mut map = IoasMap {
            flags,
            ioas_id: ioas,
            user_va: ram.address(),
            length: ram.bytes(),
            iova,
            ..IoasMap::default()
        };
        self.call(request::IOAS_MAP, &mut map)
    }

    fn unmap(&self, ioas: u32, iova: u64, length: u64) -> Result<u64, Errno> {
        let mut unmap = IoasUnmap {
            ioas_id: ioas,
            iova,
            length,
            ..IoasUnmap::default()
        };
        self.call(request::IOAS_UNMAP, &mut unmap)?;
        Ok(unmap.length)
    }

    fn destroy(&self, id: u32) -> Result<(), Errno> {
        self.call(request::DESTROY, &mut Destroy { size: 0, id })
    }

    fn bind(&self, fd: Fd) -> Result<u32, Errno> {
        let mut bind = VfioBind {
            iommufd: self.iommu,
            ..VfioBind::default()
        };
        self.on(fd, request::VFIO_BIND, &mut bind)?;
        Ok(bind.out_devid)
    }

    /// A bound device: its file and its ID.
    fn device(&self, device: TwinDevice) -> (Fd, u32) {
        let fd = self.twin.add_device(device).unwrap();
        (fd, self.bind(fd).unwrap())
    }

    fn hwpt(&self, dev_id: u32, pt_id: u32, flags: u32) -> Result<u32, Errno> {
        let mut alloc = HwptAlloc {
            flags,
            dev_id,
            pt_id,
            ..HwptAlloc::default()
        };
        self.call(request::HWPT_ALLOC, &mut alloc)?;
        Ok(alloc.out_hwpt_id)
    }

    fn nested(&self, dev_id: u32, parent: u32, mut data: VtdS1) -> Result<u32, Errno> {
        self.nested_with(dev_id, parent, HWPT_PASID, 0, &mut data)
    }

    fn nested_with(
        &self,
        dev_id: u32,
        pt_id: u32,
        flags: u32,
        fault_id: u32,
        data: &mut VtdS1,
    ) -> Result<u32, Errno> {
        let mut alloc = HwptAlloc {
            flags,
            dev_id,
            pt_id,
            data_type: HWPT_DATA_VTD_S1,
            data_len: 24,
            data_uptr: address_of(data),
            fault_id,
            ..HwptAlloc::default()
        };
        self.call(request::HWPT_ALLOC, &mut alloc)?;
        Ok(alloc.out_hwpt_id)
    }

    fn attach(&self, fd: Fd, pt_id: u32) -> Result<u32, Errno> {
        let mut attach = VfioAttach {
            pt_id,
            ..VfioAttach::default()
        };
        self.on(fd, request::VFIO_ATTACH, &mut attach)?;
        Ok(attach.pt_id)
    }

    fn attach_pasid(&self, fd: Fd, pasid: u32, pt_id: u32) -> Result<u32, Errno> {
        let mut attach = VfioAttach {
            flags: VFIO_PASID,
            pt_id,
            pasid,
            ..VfioAttach::default()
        };
        self.on(fd, request::VFIO_ATTACH, &mut attach)?;
        Ok(attach.pt_id)
    }

    fn detach(&self, fd: Fd, pasid: Option<u32>) -> Result<(), Errno> {
        let mut detach = VfioDetach {
            flags: if pasid.is_some() { VFIO_PASID } else { 0 },
            pasid: pasid.unwrap_or(0),
            ..VfioDetach::default()
        };
        self.on(fd, request::VFIO_DETACH, &mut detach)
    }

    /// How many entries were handled, and the result.
    fn invalidate(&self, hwpt: u32, entries: &mut [VtdS1Invalidate]) -> (u32, Result<(), Errno>) {
        let mut invalidate = HwptInvalidate {
            hwpt_id: hwpt,
            data_uptr: entries.as_mut_ptr().expose_provenance() as u64,
            entry_len: 24,
            entry_num: entries.len() as u32,
            ..HwptInvalidate::default()
        };
        let result = self.call(request::HWPT_INVALIDATE, &mut invalidate);
        (invalidate.entry_num, result)
    }

    fn dma(&self, fd: Fd, pasid: Option<u32>, address: u64, access: Access) -> Dma {
        self.twin.dma(
            fd,
            &TwinRequest {
                address,
                pasid,
                access,
                kind: Purpose::Untranslated,
            },
        )
    }

    /// Where a read without PASID goes.
    fn target(&self, fd: Fd, address: u64) -> Option<u64> {
        let dma = self.dma(fd, None, address, READ);
        dma.result.ok().map(|found| found.address)
    }
}

/// A device on a nesting parent that maps 2 MiB of RAM at 0.
struct Nest {
    bench: Bench,
    ram: Ram,
    fd: Fd,
    device: u32,
    ioas: u32,
    parent: u32,
}

const S1: VtdS1 = VtdS1 {
    flags: 0,
    pgtbl_addr: TABLE,
    addr_width: 48,
    reserved: 0,
};

impl Default for Nest {
    fn default() -> Self {
        Self::new(TwinConfig::default(), TwinDevice::default())
    }
}

impl Nest {
    fn new(config: TwinConfig, device: TwinDevice) -> Self {
        let flags = match config.kernel {
            Kernel::V6_12 => HWPT_NEST_PARENT,
            Kernel::V7_3 => HWPT_NEST_PARENT | HWPT_PASID,
        };
        Self::flags(config, device, flags)
    }

    fn flags(config: TwinConfig, device: TwinDevice, flags: u32) -> Self {
        let bench = Bench::new(config);
        let ram = Ram::new(512);
        let ioas = bench.ioas();
        bench.map(ioas, &ram, 0).unwrap();
        let (fd, device) = bench.device(device);
        let parent = bench.hwpt(device, ioas, flags).unwrap();
        Self {
            bench,
            ram,
            fd,
            device,
            ioas,
            parent,
        }
    }

    fn nested(&self, data: VtdS1) -> u32 {
        self.bench.nested(self.device, self.parent, data).unwrap()
    }

    /// Attached to a nested HWPT.
    fn attached(&self) -> u32 {
        let hwpt = self.nested(S1);
        self.bench.attach(self.fd, hwpt).unwrap();
        hwpt
    }
}

fn page(addr: u64) -> VtdS1Invalidate {
    VtdS1Invalidate {
        addr,
        npages: 1,
        flags: 0,
        reserved: 0,
    }
}

#[test]
fn sizes_and_numbers_are_judged_before_all_else() {
    let bench = Bench::default();
    let mut bytes = [0_u8; 64];
    let mut call = |size: u32, request: u32| {
        bytes = [0; 64];
        bytes[..4].copy_from_slice(&size.to_ne_bytes());
        bench.raw(bench.iommu, request, &mut bytes)
    };
    assert_eq!(call(11, request::IOAS_ALLOC), Err(libc::EINVAL));
    assert_eq!(call(12, request::IOAS_ALLOC), Ok(()));
    assert_eq!(
        call(64, request::IOAS_ALLOC),
        Ok(()),
        "zeros beyond the end"
    );
    assert_eq!(
        call(12, 0x4000_0000 | request::IOAS_ALLOC),
        Err(libc::ENOTTY)
    );
    assert_eq!(call(12, 0x3b96), Err(libc::ENOTTY));
    assert_eq!(
        call(40, request::IOAS_NOIOMMU_GET_PA),
        Err(libc::EOPNOTSUPP)
    );
    assert_eq!(call(0, 0x3b64), Ok(()), "VFIO_GET_API_VERSION");
    bytes = [0; 64];
    bytes[0] = 64;
    bytes[63] = 1;
    assert_eq!(
        bench.raw(bench.iommu, request::IOAS_ALLOC, &mut bytes),
        Err(libc::E2BIG)
    );
    for fd in [-1, 0, bench.iommu + 1] {
        assert_eq!(
            bench.twin.ioctl(fd, request::IOAS_ALLOC, 0),
            Err(libc::EBADF)
        );
    }
    assert_eq!(
        bench.twin.ioctl(bench.iommu, request::IOAS_ALLOC, 8),
        Err(libc::EFAULT)
    );
}

#[test]
fn a_short_structure_reads_as_zeros_and_is_answered_as_far_as_it_goes() {
    let nest = Nest::default();
    let alloc = HwptAlloc {
        size: 24,
        dev_id: nest.device,
        pt_id: nest.ioas,
        ..HwptAlloc::default()
    };
    let mut bytes = alloc.to_bytes();
    bytes[24..].fill(0xff);
    let (bench, fd) = (&nest.bench, nest.bench.iommu);
    bench.raw(fd, request::HWPT_ALLOC, &mut bytes).unwrap();
    assert!(bytes[24..].iter().all(|&byte| byte == 0xff));
    assert_ne!(HwptAlloc::from_bytes(&bytes).out_hwpt_id, 0);
}

#[test]
fn calls_that_6_12_does_not_have_are_unknown_there() {
    let old = Bench::with(|config| config.kernel = Kernel::V6_12);
    let mut bytes = [0_u8; 40];
    bytes[0] = 40;
    for (request, errno) in [
        (request::IOAS_MAP_FILE, libc::EINVAL),
        (request::VIOMMU_ALLOC, libc::EOPNOTSUPP),
        (request::VEVENTQ_ALLOC, libc::EOPNOTSUPP),
    ] {
        assert_eq!(old.raw(old.iommu, request, &mut bytes), Err(libc::ENOTTY));
        let new = Bench::default();
        assert_eq!(new.raw(new.iommu, request, &mut bytes), Err(errno));
    }
}

#[test]
fn ids_are_the_lowest_free_ones_in_each_iommufd() {
    let bench = Bench::default();
    assert_eq!((bench.ioas(), bench.ioas(), bench.ioas()), (1, 2, 3));
    let other = Bench {
        iommu: bench.twin.open(),
        twin: bench.twin,
    };
    assert_eq!(other.ioas(), 1);
    other.destroy(1).unwrap();
    assert_eq!(other.destroy(1), Err(libc::ENOENT));
    let bench = Bench {
        iommu: FIRST_FD,
        ..other
    };
    bench.destroy(2).unwrap();
    assert_eq!((bench.ioas(), bench.ioas()), (2, 4));
    let stats = bench.twin.stats();
    assert_eq!((stats.ioas, stats.peak_ioas), (4, 4));
}

#[test]
fn what_is_used_cannot_be_destroyed() {
    let nest = Nest::default();
    let hwpt = nest.attached();
    let bench = &nest.bench;
    for id in [nest.ioas, nest.parent, nest.device, hwpt] {
        assert_eq!(bench.destroy(id), Err(libc::EBUSY), "{id}");
    }
    bench.detach(nest.fd, None).unwrap();
    assert_eq!(bench.destroy(nest.device), Err(libc::EBUSY), "vfio has it");
    for id in [hwpt, nest.parent, nest.ioas] {
        bench.destroy(id).unwrap();
    }
    bench.twin.close(nest.fd).unwrap();
    assert_eq!(bench.destroy(nest.device), Err(libc::ENOENT));
    let TwinStats {
        ioas,
        paging,
        nested,
        devices,
        mapped,
        ..
    } = bench.twin.stats();
    assert_eq!((ioas, paging, nested, devices, mapped), (0, 0, 0, 0, 0));
}

#[test]
fn everything_goes_with_the_last_file() {
    let nest = Nest::default();
    nest.attached();
    let twin = &nest.bench.twin;
    twin.close(nest.bench.iommu).unwrap();
    assert_eq!(twin.stats().nested, 1, "the device still has it");
    nest.ram.map(0x5000, 0x6000);
    assert_eq!(nest.bench.target(nest.fd, 0x5000), Some(0x6000));
    twin.close(nest.fd).unwrap();
    let stats = twin.stats();
    assert_eq!((stats.ioas, stats.paging, stats.nested), (0, 0, 0));
    assert_eq!(twin.close(nest.fd), Err(libc::EBADF));
}

#[test]
fn calls_fail_on_purpose() {
    let bench = Bench::default();
    bench.twin.record(true);
    bench.twin.inject(Injection {
        skip: 1,
        request: Some(request::IOAS_ALLOC),
        errno: libc::ENOMEM,
        times: 2,
        ..Injection::default()
    });
    let alloc = || bench.call(request::IOAS_ALLOC, &mut IoasAlloc::default());
    assert_eq!(alloc(), Ok(()));
    assert_eq!(bench.destroy(9), Err(libc::ENOENT), "not counted");
    assert_eq!(alloc(), Err(libc::ENOMEM));
    assert_eq!(alloc(), Err(libc::ENOMEM));
    assert_eq!(alloc(), Ok(()));
    let stats = bench.twin.stats();
    assert_eq!(stats.ioas, 2);
    assert_eq!(
        stats.calls[&request::IOAS_ALLOC],
        CallCount {
            calls: 4,
            errors: 2
        }
    );
    assert_eq!(bench.twin.calls(), 5);
    assert_eq!(bench.twin.recorded()[1], request::DESTROY);
    assert!(bench.twin.recorded().is_empty());
}

#[test]
fn an_attachment_that_fails_on_purpose_can_block_the_device() {
    let nest = Nest::default();
    let hwpt = nest.attached();
    nest.ram.map(0x5000, 0x6000);
    let bench = &nest.bench;
    for blocked in [false, true] {
        bench.twin.inject(Injection {
            request: Some(request::VFIO_ATTACH),
            errno: libc::ENOMEM,
            blocked,
            times: 1,
            ..Injection::default()
        });
        assert_eq!(bench.attach(nest.fd, nest.parent), Err(libc::ENOMEM));
        let expected = (!blocked).then_some(0x6000);
        assert_eq!(bench.target(nest.fd, 0x5000), expected);
    }
    bench.attach(nest.fd, hwpt).unwrap();
    assert_eq!(bench.target(nest.fd, 0x5000), None, "it is on record");
}

#[test]
fn an_invalidation_fails_on_purpose_after_some_entries() {
    let nest = Nest::default();
    let hwpt = nest.attached();
    let bench = &nest.bench;
    for address in [0x5000, 0x6000] {
        nest.ram.map(address, 0x10_0000 + address);
        bench.target(nest.fd, address).unwrap();
        nest.ram.map(address, 0x11_0000 + address);
    }
    bench.twin.inject(Injection {
        request: Some(request::HWPT_INVALIDATE),
        errno: libc::EIO,
        handled: 1,
        times: 1,
        ..Injection::default()
    });
    let mut entries = [page(0x5000), page(0x6000)];
    assert_eq!(bench.invalidate(hwpt, &mut entries), (1, Err(libc::EIO)));
    assert_eq!(bench.target(nest.fd, 0x5000), Some(0x11_5000));
    assert_eq!(bench.target(nest.fd, 0x6000), Some(0x10_6000));
    assert_eq!(bench.twin.stats().stale_uses, 1);
    bench.twin.record_forgotten(true);
    assert_eq!(bench.invalidate(hwpt, &mut entries), (2, Ok(())));
    let forgotten = bench.twin.forgotten();
    assert_eq!(forgotten[1].address, 0x6000);
    assert_eq!((forgotten[1].hwpt, forgotten[1].pages), (hwpt, 1));
}
