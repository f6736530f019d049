//! iommufd's calls, one method each, and a vfio device's two.

use std::sync::Arc;

use super::ioctl::{Fd, System, call};
use super::uapi::{self, request};
use super::{Errno, HostError, HostInfo};
use crate::spec::registers::{Cap, Ecap};

/// An open `/dev/iommu`.
#[derive(Debug)]
pub struct Iommufd {
    system: Arc<dyn System>,
    fd: Fd,
    /// It was opened here, and is to be closed.
    owned: bool,
}

/// A piece of this process's memory that an IOAS maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Where devices see it.
    pub iova: u64,
    /// Where the process has it.
    pub address: u64,
    /// Bytes, a multiple of 4096.
    pub length: u64,
}

/// Why an `IOMMU_HWPT_INVALIDATE` was not done whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidateError {
    /// Entries that were handled before the one that failed (`entry_num`).
    pub handled: usize,
    /// Why the next one failed.
    pub errno: Errno,
}

/// An address as the kernel takes it.
fn address_of<T>(slice: &[T]) -> u64 {
    slice.as_ptr().expose_provenance() as u64
}

fn address_of_mut<T>(slice: &mut [T]) -> u64 {
    slice.as_mut_ptr().expose_provenance() as u64
}

/// The `size` that every structure begins with.
fn size<T>() -> u32 {
    size_of::<T>() as u32
}

impl Iommufd {
    /// The file that somebody else opened and keeps open, or one opened for this.
    ///
    /// # Errors
    /// The errno of opening `/dev/iommu`.
    pub fn new(system: Arc<dyn System>, lent: Option<Fd>) -> Result<Self, Errno> {
        let fd = match lent {
            Some(fd) => fd,
            None => system.open_iommu()?,
        };
        Ok(Self {
            system,
            fd,
            owned: lent.is_none(),
        })
    }

    /// Its descriptor.
    pub fn fd(&self) -> Fd {
        self.fd
    }

    /// Was it opened here?
    pub fn is_owned(&self) -> bool {
        self.owned
    }

    fn call<T: uapi::Plain>(&self, request: u32, argument: &mut T) -> Result<(), HostError> {
        call(&*self.system, self.fd, request, argument)
            .map_err(|errno| HostError { request, errno })
    }

    /// `IOMMU_DESTROY`.
    ///
    /// # Errors
    /// `EBUSY`: the object is in use. `ENOENT`: there is none.
    pub fn destroy(&self, id: u32) -> Result<(), HostError> {
        let mut destroy = uapi::Destroy {
            size: size::<uapi::Destroy>(),
            id,
        };
        self.call(request::DESTROY, &mut destroy)
    }

    /// `IOMMU_IOAS_ALLOC`.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn ioas_alloc(&self) -> Result<u32, HostError> {
        let mut alloc = uapi::IoasAlloc {
            size: size::<uapi::IoasAlloc>(),
            ..Default::default()
        };
        self.call(request::IOAS_ALLOC, &mut alloc)?;
        Ok(alloc.out_ioas_id)
    }

    /// `IOMMU_IOAS_MAP` of a piece at its place, readable and writable. The memory stays
    /// valid until it is unmapped, or the IOAS is destroyed.
    ///
    /// # Errors
    /// `EEXIST`: something is mapped there. `EINVAL`: a reserved range, or misaligned.
    /// `EFAULT`: the memory cannot be pinned. `ENOMEM`: `RLIMIT_MEMLOCK`.
    pub fn ioas_map(&self, ioas: u32, piece: &Piece) -> Result<(), HostError> {
        let mut map = uapi::IoasMap {
            size: size::<uapi::IoasMap>(),
            flags: uapi::MAP_FIXED_IOVA | uapi::MAP_READABLE | uapi::MAP_WRITEABLE,
            ioas_id: ioas,
            reserved: 0,
            user_va: piece.address,
            length: piece.length,
            iova: piece.iova,
        };
        self.call(request::IOAS_MAP, &mut map)
    }

    /// `IOMMU_IOAS_UNMAP` of a piece that was mapped whole.
    ///
    /// # Errors
    /// `ENOENT`: it is not mapped. `EBUSY`, `EDEADLOCK`: it is in use.
    pub fn ioas_unmap(&self, ioas: u32, piece: &Piece) -> Result<(), HostError> {
        let mut unmap = uapi::IoasUnmap {
            size: size::<uapi::IoasUnmap>(),
            ioas_id: ioas,
            iova: piece.iova,
            length: piece.length,
        };
        self.call(request::IOAS_UNMAP, &mut unmap)
    }

    /// `IOMMU_GET_HW_INFO` of a device behind a VT-d unit.
    ///
    /// # Errors
    /// `ENOENT`: no such device. `ENODEV`: it is behind another kind of unit.
    pub fn hw_info(&self, dev_id: u32) -> Result<HostInfo, HostError> {
        let mut vtd = [uapi::HwInfoVtd::default()];
        let mut info = uapi::HwInfoCall {
            size: size::<uapi::HwInfoCall>(),
            dev_id,
            data_len: size::<uapi::HwInfoVtd>(),
            data_uptr: address_of_mut(&mut vtd),
            ..Default::default()
        };
        self.call(request::GET_HW_INFO, &mut info)?;
        if info.data_type != uapi::HW_INFO_INTEL_VTD {
            return Err(HostError {
                request: request::GET_HW_INFO,
                errno: libc::ENODEV,
            });
        }
        let [vtd] = vtd;
        Ok(HostInfo {
            cap: Cap::from_bits(vtd.cap_reg),
            ecap: Ecap::from_bits(vtd.ecap_reg),
            capabilities: info.out_capabilities,
            pasid_bits: info.out_max_pasid_log2.into(),
        })
    }

    /// `IOMMU_HWPT_ALLOC` of a nesting parent on an IOAS; `flags` beside
    /// `IOMMU_HWPT_ALLOC_NEST_PARENT`.
    ///
    /// # Errors
    /// `EOPNOTSUPP`: the device's unit has no nested translation, or not what `flags`
    /// ask for. `EADDRINUSE`, `EINVAL`, `EFAULT`, `ENOMEM`: what the IOAS maps cannot be
    /// mapped in it.
    pub fn parent_alloc(&self, dev_id: u32, ioas: u32, flags: u32) -> Result<u32, HostError> {
        let mut alloc = uapi::HwptAlloc {
            size: size::<uapi::HwptAlloc>(),
            flags: flags | uapi::HWPT_NEST_PARENT,
            dev_id,
            pt_id: ioas,
            ..Default::default()
        };
        self.call(request::HWPT_ALLOC, &mut alloc)?;
        Ok(alloc.out_hwpt_id)
    }

    /// `IOMMU_HWPT_ALLOC` of a nested HWPT on a parent, page requests to `fault_queue`.
    ///
    /// # Errors
    /// `EOPNOTSUPP`, `EINVAL`: the device's unit or the parent is not one for nesting.
    /// `ENOENT`: no such device or fault queue. `ENOMEM`. Most of `data` is judged only
    /// when a device is attached.
    pub fn nested_alloc(
        &self,
        dev_id: u32,
        parent: u32,
        flags: u32,
        fault_queue: Option<u32>,
        data: &uapi::VtdS1,
    ) -> Result<u32, HostError> {
        let data = [*data];
        let faults = match fault_queue {
            Some(_) => uapi::HWPT_FAULT_ID_VALID,
            None => 0,
        };
        let mut alloc = uapi::HwptAlloc {
            size: size::<uapi::HwptAlloc>(),
            flags: flags | faults,
            dev_id,
            pt_id: parent,
            data_type: uapi::HWPT_DATA_VTD_S1,
            data_len: size::<uapi::VtdS1>(),
            data_uptr: address_of(&data),
            fault_id: fault_queue.unwrap_or(0),
            ..Default::default()
        };
        self.call(request::HWPT_ALLOC, &mut alloc)?;
        Ok(alloc.out_hwpt_id)
    }

    /// `IOMMU_HWPT_INVALIDATE` of a nested HWPT: the entries in their order, at most
    /// [`uapi::MAX_INVALIDATE_ENTRIES`].
    ///
    /// # Errors
    /// How many entries were handled, and why the next one was not.
    pub fn invalidate(
        &self,
        hwpt: u32,
        entries: &[uapi::VtdS1Invalidate],
    ) -> Result<(), InvalidateError> {
        let mut invalidate = uapi::HwptInvalidate {
            size: size::<uapi::HwptInvalidate>(),
            hwpt_id: hwpt,
            data_uptr: address_of(entries),
            data_type: uapi::INVALIDATE_DATA_VTD_S1,
            entry_len: size::<uapi::VtdS1Invalidate>(),
            entry_num: u32::try_from(entries.len()).unwrap_or(u32::MAX),
            reserved: 0,
        };
        let asked = invalidate.entry_num;
        self.call(request::HWPT_INVALIDATE, &mut invalidate)
            .map_err(|error| InvalidateError {
                // A call that was refused before it began leaves the number as it was.
                handled: match invalidate.entry_num {
                    number if number < asked => number as usize,
                    _ => 0,
                },
                errno: error.errno,
            })
    }

    /// `IOMMU_FAULT_QUEUE_ALLOC`: its ID, and the file that page requests are read from.
    ///
    /// # Errors
    /// `ENOMEM`, `EMFILE`. `ENOTTY`: the kernel is too old.
    pub fn fault_queue_alloc(&self) -> Result<(u32, Fd), HostError> {
        let mut alloc = uapi::FaultAlloc {
            size: size::<uapi::FaultAlloc>(),
            ..Default::default()
        };
        self.call(request::FAULT_QUEUE_ALLOC, &mut alloc)?;
        Ok((alloc.out_fault_id, alloc.out_fault_fd))
    }

    /// Read page requests: whole groups, none if nothing is pending.
    ///
    /// # Errors
    /// The errno.
    pub fn read_faults(&self, queue: Fd) -> Result<Vec<uapi::PageFault>, Errno> {
        const RECORD: usize = size_of::<uapi::PageFault>();
        // A group has at most 512 requests.
        let mut bytes = vec![0; RECORD * 1024];
        let length = self.system.read(queue, &mut bytes)?;
        let records = bytes.get(..length).unwrap_or_default();
        Ok(records
            .chunks_exact(RECORD)
            .map(uapi::Plain::from_bytes)
            .collect())
    }

    /// Answer a group of page requests.
    ///
    /// # Errors
    /// `EINVAL`: the group was answered, or its device has left.
    pub fn answer_fault(&self, queue: Fd, cookie: u32, code: u32) -> Result<(), Errno> {
        let response = uapi::PageFaultResponse { cookie, code };
        self.system
            .write(queue, &uapi::Plain::to_bytes(&response))
            .map(drop)
    }

    /// Close a fault queue's file.
    pub fn close(&self, file: Fd) {
        let _closed = self.system.close(file);
    }

    /// `IOMMU_HWPT_SET_DIRTY_TRACKING` of a parent.
    ///
    /// # Errors
    /// `EOPNOTSUPP`: it was not allocated for that.
    pub fn set_dirty_tracking(&self, hwpt: u32, on: bool) -> Result<(), HostError> {
        let mut set = uapi::SetDirtyTracking {
            size: size::<uapi::SetDirtyTracking>(),
            flags: if on { uapi::DIRTY_TRACKING_ENABLE } else { 0 },
            hwpt_id: hwpt,
            reserved: 0,
        };
        self.call(request::HWPT_SET_DIRTY_TRACKING, &mut set)
    }

    /// `IOMMU_HWPT_GET_DIRTY_BITMAP`: set the bits of the pages of `page_size` bytes of
    /// `iova` and `length` that were written; they are clean afterwards, unless `keep`.
    ///
    /// # Errors
    /// `EINVAL`: the range and page size do not go together. `EOPNOTSUPP`: not tracked.
    pub fn dirty_bitmap(
        &self,
        hwpt: u32,
        range: (u64, u64),
        page_size: u64,
        keep: bool,
        bitmap: &mut [u64],
    ) -> Result<(), HostError> {
        let (iova, length) = range;
        let pages = length.checked_div(page_size).unwrap_or(u64::MAX);
        if pages.div_ceil(64) > bitmap.len() as u64 {
            return Err(HostError {
                request: request::HWPT_GET_DIRTY_BITMAP,
                errno: libc::EINVAL,
            });
        }
        let mut get = uapi::GetDirtyBitmap {
            size: size::<uapi::GetDirtyBitmap>(),
            hwpt_id: hwpt,
            flags: if keep { uapi::DIRTY_BITMAP_NO_CLEAR } else { 0 },
            reserved: 0,
            iova,
            length,
            page_size,
            data: address_of_mut(bitmap),
        };
        self.call(request::HWPT_GET_DIRTY_BITMAP, &mut get)
    }

    /// `VFIO_DEVICE_BIND_IOMMUFD` of a vfio device to this iommufd: its device ID.
    ///
    /// # Errors
    /// `EPERM`: interrupts are not isolated. `EBUSY`: the device is in use. `EINVAL`: it
    /// was bound already.
    pub fn bind(&self, device: Fd) -> Result<u32, HostError> {
        let mut bind = uapi::VfioBind {
            // What every kernel knows; there is no token.
            argsz: 16,
            iommufd: self.fd,
            ..Default::default()
        };
        call(&*self.system, device, request::VFIO_BIND, &mut bind).map_err(|errno| HostError {
            request: request::VFIO_BIND,
            errno,
        })?;
        Ok(bind.out_devid)
    }
}

impl Drop for Iommufd {
    fn drop(&mut self) {
        if self.owned {
            let _closed = self.system.close(self.fd);
        }
    }
}

/// How a device is attached to an HWPT: requests without PASID, or those of one PASID.
pub trait Attach: Send + Sync + core::fmt::Debug {
    /// Attach, or replace what was attached.
    ///
    /// # Errors
    /// The errno.
    fn attach(&self, pasid: Option<u32>, hwpt: u32) -> Result<(), Errno>;

    /// Detach: DMA is blocked.
    ///
    /// # Errors
    /// The errno.
    fn detach(&self, pasid: Option<u32>) -> Result<(), Errno>;
}

/// A vfio device, by its file.
#[derive(Debug)]
pub struct VfioDevice {
    /// Who answers.
    pub system: Arc<dyn System>,
    /// The device's file.
    pub fd: Fd,
    /// It is to be closed with this; else somebody else keeps it open.
    pub owned: bool,
}

impl Drop for VfioDevice {
    fn drop(&mut self) {
        if self.owned {
            let _closed = self.system.close(self.fd);
        }
    }
}

impl Attach for VfioDevice {
    /// `VFIO_DEVICE_ATTACH_IOMMUFD_PT`.
    fn attach(&self, pasid: Option<u32>, hwpt: u32) -> Result<(), Errno> {
        let mut attach = uapi::VfioAttach {
            // Linux 6.12 has no PASID.
            argsz: if pasid.is_some() { 16 } else { 12 },
            flags: if pasid.is_some() { uapi::VFIO_PASID } else { 0 },
            pt_id: hwpt,
            pasid: pasid.unwrap_or(0),
        };
        call(&*self.system, self.fd, request::VFIO_ATTACH, &mut attach)
    }

    /// `VFIO_DEVICE_DETACH_IOMMUFD_PT`.
    fn detach(&self, pasid: Option<u32>) -> Result<(), Errno> {
        let mut detach = uapi::VfioDetach {
            argsz: if pasid.is_some() { 12 } else { 8 },
            flags: if pasid.is_some() { uapi::VFIO_PASID } else { 0 },
            pasid: pasid.unwrap_or(0),
        };
        call(&*self.system, self.fd, request::VFIO_DETACH, &mut detach)
    }
}
