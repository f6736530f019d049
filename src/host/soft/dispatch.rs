//! The way of an ioctl: which call it is, how large its structure is, and the copying of
//! it from and to the caller's memory (`iommufd_fops_ioctl` and what vfio does instead).

use super::inject::Injection;
use super::{File, Kernel, State, Twin};
use crate::host::Errno;
use crate::host::ioctl::Fd;
use crate::host::uapi::{Plain, request};
use crate::memory::user;

/// Bytes that are looked through at a time for a value that the kernel does not know.
const CHUNK: usize = 4096;

/// A call of iommufd: its number, the size of its structure, the least that a caller must
/// have, and the kernel that has it.
struct Known {
    request: u32,
    size: usize,
    least: usize,
    since: Kernel,
}

const fn known(request: u32, size: usize, least: usize) -> Known {
    Known {
        request,
        size,
        least,
        since: Kernel::V6_12,
    }
}

const fn new(request: u32, size: usize, least: usize) -> Known {
    Known {
        request,
        size,
        least,
        since: Kernel::V7_3,
    }
}

const CALLS: [Known; 22] = [
    known(request::DESTROY, 8, 8),
    known(request::IOAS_ALLOC, 12, 12),
    known(request::IOAS_ALLOW_IOVAS, 24, 24),
    known(request::IOAS_COPY, 40, 40),
    known(request::IOAS_IOVA_RANGES, 32, 32),
    known(request::IOAS_MAP, 40, 40),
    known(request::IOAS_UNMAP, 24, 24),
    known(request::OPTION, 24, 24),
    known(request::VFIO_IOAS, 12, 12),
    known(request::HWPT_ALLOC, 48, 24),
    known(request::GET_HW_INFO, 40, 32),
    known(request::HWPT_SET_DIRTY_TRACKING, 16, 16),
    known(request::HWPT_GET_DIRTY_BITMAP, 48, 48),
    known(request::HWPT_INVALIDATE, 32, 32),
    known(request::FAULT_QUEUE_ALLOC, 16, 16),
    new(request::IOAS_MAP_FILE, 40, 40),
    new(request::VIOMMU_ALLOC, 40, 24),
    new(request::VDEVICE_ALLOC, 24, 24),
    new(request::IOAS_CHANGE_PROCESS, 8, 8),
    new(request::VEVENTQ_ALLOC, 32, 28),
    new(request::HW_QUEUE_ALLOC, 40, 40),
    new(request::IOAS_NOIOMMU_GET_PA, 40, 40),
];

/// `VFIO_GET_API_VERSION`, which `/dev/iommu` answers as an old container does.
const VFIO_GET_API_VERSION: u32 = 0x3b64;

/// The argument of a call: where it is, and as much of it as the kernel knows.
#[derive(Debug)]
pub(super) struct Call {
    address: u64,
    /// Bytes the caller has room for.
    room: usize,
    bytes: Vec<u8>,
}

impl Call {
    /// Copy a structure of `size` bytes from a caller who has `room`
    /// (`copy_struct_from_user`): what is missing is 0, and what is beyond must be 0.
    pub fn read(address: u64, room: usize, size: usize) -> Result<Self, Errno> {
        let mut chunk = [0; CHUNK];
        let mut offset = size;
        while offset < room {
            let part = room.saturating_sub(offset).min(CHUNK);
            let part = chunk.get_mut(..part).unwrap_or_default();
            user::read(address.wrapping_add(offset as u64), part).map_err(|_| libc::EFAULT)?;
            if part.iter().any(|&byte| byte != 0) {
                return Err(libc::E2BIG);
            }
            offset = offset.saturating_add(part.len());
        }
        let mut bytes = vec![0; room.min(size)];
        user::read(address, &mut bytes).map_err(|_| libc::EFAULT)?;
        Ok(Self {
            address,
            room,
            bytes,
        })
    }

    /// The structure.
    pub fn get<T: Plain>(&self) -> T {
        T::from_bytes(&self.bytes)
    }

    /// Copy it back, as much as the caller has room for (`iommufd_ucmd_respond`).
    pub fn respond<T: Plain>(&self, value: &T) -> Result<(), Errno> {
        let bytes = value.to_bytes();
        let part = bytes.get(..self.room.min(bytes.len())).unwrap_or_default();
        user::write(self.address, part).map_err(|_| libc::EFAULT)
    }

    /// Write bytes at an offset of it.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        user::write(self.address.wrapping_add(offset), bytes).map_err(|_| libc::EFAULT)
    }
}

/// The leading dword of a structure.
pub(super) fn leading_size(address: u64) -> Result<usize, Errno> {
    let mut bytes = [0; 4];
    user::read(address, &mut bytes).map_err(|_| libc::EFAULT)?;
    Ok(u32::from_ne_bytes(bytes) as usize)
}

impl Twin {
    /// ioctl(2): `argument` is an address in this process.
    ///
    /// # Errors
    /// The kernel's errno for the same call.
    pub fn ioctl(&self, fd: Fd, request: u32, argument: u64) -> Result<i32, Errno> {
        let mut state = self.state.lock();
        let file = *state.files.get(&fd).ok_or(libc::EBADF)?;
        let result = match file {
            File::Iommu(context) => state.iommu_ioctl(context, request, argument),
            File::Device => state.device_ioctl(fd, request, argument).map(|()| 0),
            File::Fault(_) => Err(libc::ENOTTY),
        };
        state.meters.called(request, result.err());
        result
    }
}

impl State {
    fn iommu_ioctl(&mut self, context: u64, request: u32, argument: u64) -> Result<i32, Errno> {
        let version = self.config.kernel;
        // The number alone decides whether it is iommufd's; then it must be exact.
        let number = request & 0xff;
        let Some(call) = CALLS
            .iter()
            .find(|call| call.request & 0xff == number && call.since <= version)
        else {
            return if request == VFIO_GET_API_VERSION {
                Ok(0)
            } else {
                Err(libc::ENOTTY)
            };
        };
        let room = leading_size(argument)?;
        if call.request != request {
            return Err(libc::ENOTTY);
        }
        if room < call.least {
            return Err(libc::EINVAL);
        }
        let argument = Call::read(argument, room, call.size)?;
        if let Some(injected) = self.meters.injected(request) {
            return self.fail_on_purpose(context, request, &argument, &injected);
        }
        self.execute(context, request, &argument).map(|()| 0)
    }

    fn fail_on_purpose(
        &mut self,
        context: u64,
        request: u32,
        argument: &Call,
        injected: &Injection,
    ) -> Result<i32, Errno> {
        if request == request::HWPT_INVALIDATE {
            self.invalidate(context, argument, Some(injected))?;
        }
        Err(injected.errno)
    }

    fn execute(&mut self, context: u64, request: u32, call: &Call) -> Result<(), Errno> {
        match request {
            request::DESTROY => {
                let destroy: crate::host::uapi::Destroy = call.get();
                self.destroy(context, destroy.id)
            }
            request::IOAS_ALLOC => self.ioas_alloc(context, call),
            request::IOAS_ALLOW_IOVAS => self.ioas_allow_iovas(context, call),
            request::IOAS_COPY => self.ioas_copy(context, call),
            request::IOAS_IOVA_RANGES => self.ioas_iova_ranges(context, call),
            request::IOAS_MAP => self.ioas_map(context, call),
            request::IOAS_MAP_FILE => self.ioas_map_file(context, call),
            request::IOAS_UNMAP => self.ioas_unmap(context, call),
            request::IOAS_CHANGE_PROCESS => self.ioas_change_process(context, call),
            request::OPTION => self.option(context, call),
            request::VFIO_IOAS => self.vfio_ioas(context, call),
            request::HWPT_ALLOC => self.hwpt_alloc(context, call),
            request::GET_HW_INFO => self.hw_info(context, call),
            request::HWPT_SET_DIRTY_TRACKING => self.set_dirty_tracking(context, call),
            request::HWPT_GET_DIRTY_BITMAP => self.get_dirty_bitmap(context, call),
            request::HWPT_INVALIDATE => self.invalidate(context, call, None),
            request::FAULT_QUEUE_ALLOC => self.fault_alloc(context, call),
            request::VIOMMU_ALLOC => self.viommu_alloc(context, call),
            request::VDEVICE_ALLOC => Self::vdevice_alloc(call),
            request::VEVENTQ_ALLOC => Self::veventq_alloc(call),
            request::HW_QUEUE_ALLOC => Self::hw_queue_alloc(call),
            _ => Err(libc::EOPNOTSUPP),
        }
    }
}
