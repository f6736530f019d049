//! The twin: a software kernel with iommufd and vfio, and the VT-d hardware below it.
//!
//! It decodes raw ioctl numbers and sizes and reads arguments from the process's memory
//! as the kernel does, so that what drives `/dev/iommu` cannot tell them apart
//! ([`super::ioctl::System`]). It obeys Linux's rules in the order in which Linux checks
//! them, 6.12's or 7.3's ([`Kernel`]), with its oddities ([`Quirks`]).
//!
//! The kernel's side: [`dispatch`] finds the call, `objects` holds what the calls make
//! (`ioas`, `hwpt`, `fault`), `vfio` attaches devices to it, `iommu` checks what the Intel
//! driver checks. The silicon's side: [`hardware`].

mod dirty;
pub mod dispatch;
mod domain;
mod fault;
mod group;
pub mod hardware;
mod hwpt;
mod info;
mod inject;
mod invalidate;
mod ioas;
mod ioas_calls;
mod iommu;
mod objects;
mod vfio;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::ioctl::Fd;
use super::{Errno, HwInfo};
use crate::spec::registers::{Cap, Ecap};
use fault::FaultKey;
use group::Group;
use hardware::{DeviceHardware, Hardware};
use inject::Meters;
use iommu::Iommu;
use objects::Context;
use vfio::Device;

pub use fault::{PageAnswer, TwinPageRequest};
pub use hardware::{Dma, DmaFault, TwinRequest};
pub use inject::{CallCount, Forgotten, Injection, OPEN, READ, TwinStats};

/// First number of the twin's own files. Real ones are far below.
const FIRST_FD: Fd = 1 << 30;

/// Which Linux the twin plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Kernel {
    /// Linux 6.12: no attachment of PASIDs, second-stage HWPTs only.
    V6_12,
    /// Linux 7.3.
    #[default]
    V7_3,
}

/// Oddities of the kernel that can be switched off one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quirks {
    /// A failed attach or replace leaves the device blocked, though the HWPT that it had
    /// stays on record.
    pub failed_attach_blocks: bool,
    /// Attaching the HWPT that is on record changes nothing and succeeds.
    pub same_hwpt_ignored: bool,
    /// An invalidation covers the power-of-two hull of its range.
    pub wide_invalidation: bool,
    /// A map that cannot be written is refused while the IOAS has a nesting parent.
    pub read_only_refused: bool,
    /// An HWPT without flags is a first-stage one, if the IOMMU has first stages.
    pub first_stage_default: bool,
    /// PASID 0 is the device's requests without PASID.
    pub pasid_zero_is_rid: bool,
    /// Attaching a PASID of a device without PASIDs succeeds and does nothing.
    pub pasid_of_none_ignored: bool,
    /// Records of requests with PASID have flag 4 set.
    pub fault_flag_leaks: bool,
    /// A failed replace lifts the IOAS's reservation of the interrupt window, although the
    /// device still uses the IOAS.
    pub failed_replace_unreserves: bool,
}

impl Default for Quirks {
    /// As the kernel is.
    fn default() -> Self {
        Self {
            failed_attach_blocks: true,
            same_hwpt_ignored: true,
            wide_invalidation: true,
            read_only_refused: true,
            first_stage_default: true,
            pasid_zero_is_rid: true,
            pasid_of_none_ignored: true,
            fault_flag_leaks: true,
            failed_replace_unreserves: true,
        }
    }
}

/// What the twin plays.
#[derive(Debug, Clone)]
pub struct TwinConfig {
    /// Which Linux.
    pub kernel: Kernel,
    /// Its IOMMUs.
    pub iommus: Vec<HwInfo>,
    /// Its oddities.
    pub quirks: Quirks,
    /// Devices' interrupts cannot be kept apart, so that they must not be bound.
    pub unsafe_interrupts: bool,
}

impl Default for TwinConfig {
    /// Linux 7.3 with one IOMMU that can do all that a unit can offer a guest.
    fn default() -> Self {
        Self {
            kernel: Kernel::default(),
            iommus: vec![capable_iommu()],
            quirks: Quirks::default(),
            unsafe_interrupts: false,
        }
    }
}

/// An IOMMU that nests 4- and 5-level first-stage tables of every kind.
pub fn capable_iommu() -> HwInfo {
    HwInfo {
        cap: Cap::new()
            .with_domains(6)
            .with_second_stage_widths(0b01110)
            .with_address_width(56)
            .with_second_stage_large_pages(0b0011)
            .with_page_selective(true)
            .with_max_address_mask(52)
            .with_first_stage_1g(true)
            .with_first_stage_5_level(true),
        ecap: Ecap::new()
            .with_coherent(true)
            .with_queued_invalidation(true)
            .with_device_tlb(true)
            .with_interrupt_remapping(true)
            .with_extended_interrupt_mode(true)
            .with_pass_through(true)
            .with_snoop_control(true)
            .with_nested(true)
            .with_page_request(true)
            .with_page_request_drain(true)
            .with_supervisor_request(true)
            .with_extended_accessed(true)
            .with_pasid(true)
            .with_pasid_size(19)
            .with_scalable_mode(true)
            .with_second_stage(true)
            .with_second_stage_accessed_dirty(true)
            .with_first_stage(true)
            .with_page_walk_coherent(true),
    }
}

/// A device of the twin, behind one of its IOMMUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TwinDevice {
    /// Index in [`TwinConfig::iommus`].
    pub iommu: usize,
    /// Bits in its PASIDs, 0 for none, at most 20.
    pub max_pasid_bits: u32,
    /// It has a device TLB (ATS).
    pub ats: bool,
    /// It requests pages (PRI), which takes ATS.
    pub pri: bool,
    /// Devices with the same number share an IOMMU group; 0 for one of its own. What one
    /// of them is attached to all are.
    pub group: u32,
}

impl Default for TwinDevice {
    /// A device with everything.
    fn default() -> Self {
        Self {
            iommu: 0,
            max_pasid_bits: 20,
            ats: true,
            pri: true,
            group: 0,
        }
    }
}

/// An open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum File {
    /// `/dev/iommu`; which context.
    Iommu(u64),
    /// A vfio device.
    Device,
    /// A fault queue.
    Fault(FaultKey),
}

/// Everything the kernel's side knows.
#[derive(Debug)]
struct State {
    config: TwinConfig,
    hardware: Arc<Hardware>,
    iommus: Vec<Iommu>,
    contexts: BTreeMap<u64, Context>,
    files: BTreeMap<Fd, File>,
    devices: BTreeMap<Fd, Device>,
    groups: BTreeMap<u64, Group>,
    meters: Meters,
    /// Bytes that a caller without privileges may have pinned (`RLIMIT_MEMLOCK`).
    limit: Option<u64>,
    next_fd: Fd,
    /// Contexts, domains and attachments are told apart by numbers that never recur.
    next_key: u64,
}

impl State {
    /// A number that nothing had before.
    fn new_key(&mut self) -> u64 {
        self.next_key = self.next_key.wrapping_add(1);
        self.next_key
    }

    fn new_file(&mut self, file: File) -> Fd {
        let fd = self.next_fd;
        self.next_fd = fd.checked_add(1).unwrap_or(FIRST_FD);
        self.files.insert(fd, file);
        fd
    }

    fn context(&mut self, key: u64) -> Result<&mut Context, Errno> {
        self.contexts.get_mut(&key).ok_or(libc::EBADF)
    }

    fn device(&mut self, fd: Fd) -> Result<&mut Device, Errno> {
        self.devices.get_mut(&fd).ok_or(libc::EBADF)
    }
}

/// A software kernel and the hardware below it. Any thread.
///
/// Memory that is mapped into one of its address spaces must stay mapped in the process
/// until it is unmapped there, as the hardware reaches it in place.
#[derive(Debug)]
pub struct Twin {
    state: Mutex<State>,
    hardware: Arc<Hardware>,
}

impl Default for Twin {
    fn default() -> Self {
        Self::new(TwinConfig::default())
    }
}

impl Twin {
    /// A machine without devices.
    pub fn new(config: TwinConfig) -> Self {
        let hardware = Arc::new(Hardware::default());
        let iommus = config.iommus.iter().copied().map(Iommu::new).collect();
        let state = State {
            config,
            hardware: Arc::clone(&hardware),
            iommus,
            contexts: BTreeMap::new(),
            files: BTreeMap::new(),
            devices: BTreeMap::new(),
            groups: BTreeMap::new(),
            meters: Meters::default(),
            limit: None,
            next_fd: FIRST_FD,
            next_key: 0,
        };
        Self {
            state: Mutex::new(state),
            hardware,
        }
    }

    /// `open("/dev/iommu")`.
    pub fn open(&self) -> Fd {
        let mut state = self.state.lock();
        let key = state.new_key();
        state.contexts.insert(key, Context::default());
        state.new_file(File::Iommu(key))
    }

    /// Plug in a device and open its vfio file. Closing the file unplugs it.
    ///
    /// # Errors
    /// `EINVAL`: there is no such IOMMU, more than 20 PASID bits, PRI without ATS, or the
    /// group is behind another IOMMU.
    pub fn add_device(&self, device: TwinDevice) -> Result<Fd, Errno> {
        let mut state = self.state.lock();
        let iommu = state.config.iommus.get(device.iommu).copied();
        let iommu = iommu.ok_or(libc::EINVAL)?;
        if device.max_pasid_bits > 20 || (device.pri && !device.ats) {
            return Err(libc::EINVAL);
        }
        state.check_group(&device)?;
        let fd = state.new_file(File::Device);
        let hardware = Arc::new(DeviceHardware::new(iommu, device.ats));
        self.hardware
            .devices
            .write()
            .insert(fd, Arc::clone(&hardware));
        state.plug(fd, Device::new(fd, device, hardware));
        Ok(fd)
    }

    /// close(2).
    ///
    /// # Errors
    /// `EBADF`: the twin has no such file.
    pub fn close(&self, fd: Fd) -> Result<(), Errno> {
        let mut state = self.state.lock();
        match state.files.remove(&fd).ok_or(libc::EBADF)? {
            File::Iommu(key) => state.put_context(key),
            File::Device => {
                state.close_device(fd);
                self.hardware.devices.write().remove(&fd);
            }
            File::Fault(key) => state.close_fault(key),
        }
        Ok(())
    }

    /// read(2) into memory at `address`.
    ///
    /// # Errors
    /// As the kernel's: see [`Self::read`]; `EFAULT` for memory that is not there.
    pub fn read_to(&self, fd: Fd, address: u64, length: usize) -> Result<usize, Errno> {
        self.state.lock().read(fd, length, &mut |offset, bytes| {
            let to = address.wrapping_add(offset as u64);
            crate::memory::user::write(to, bytes).map_err(|_| libc::EFAULT)
        })
    }

    /// read(2).
    ///
    /// # Errors
    /// Of a fault queue: `ESPIPE` if the length is no multiple of a record, `EINVAL` if the
    /// first group does not fit. `EBADF`, or `EINVAL` for other files.
    pub fn read(&self, fd: Fd, into: &mut [u8]) -> Result<usize, Errno> {
        let length = into.len();
        self.state.lock().read(fd, length, &mut |offset, bytes| {
            for (to, from) in into.iter_mut().skip(offset).zip(bytes) {
                *to = *from;
            }
            Ok(())
        })
    }

    /// write(2) from memory at `address`.
    ///
    /// # Errors
    /// As [`Self::write`]; `EFAULT` for memory that is not there.
    pub fn write_from(&self, fd: Fd, address: u64, length: usize) -> Result<usize, Errno> {
        self.state.lock().write(fd, length, &mut |offset, bytes| {
            let from = address.wrapping_add(offset as u64);
            crate::memory::user::read(from, bytes).map_err(|_| libc::EFAULT)
        })
    }

    /// write(2).
    ///
    /// # Errors
    /// Of a fault queue: `ESPIPE` if the length is no multiple of a response, `EINVAL` for
    /// an unknown code or cookie in the first one. `EBADF`, or `EINVAL` for other files.
    pub fn write(&self, fd: Fd, from: &[u8]) -> Result<usize, Errno> {
        self.state
            .lock()
            .write(fd, from.len(), &mut |offset, bytes| {
                for (to, from) in bytes.iter_mut().zip(from.iter().skip(offset)) {
                    *to = *from;
                }
                Ok(())
            })
    }

    /// poll(2): what a file is ready for, `POLLIN` and so on.
    ///
    /// # Errors
    /// `EBADF`: the twin has no such file.
    pub fn poll(&self, fd: Fd) -> Result<u32, Errno> {
        self.state.lock().poll(fd)
    }

    /// Take callers for root (None), as at first, or for a user without privileges who may
    /// have so many bytes pinned (`RLIMIT_MEMLOCK`).
    pub fn set_limit(&self, limit: Option<u64>) {
        self.state.lock().limit = limit;
    }

    /// Is it the file of a device?
    pub fn is_device(&self, fd: Fd) -> bool {
        self.hardware.devices.read().contains_key(&fd)
    }

    /// An iommufd object's ID of a bound device, as `VFIO_DEVICE_BIND_IOMMUFD` gave it.
    pub fn device_id(&self, device: Fd) -> Option<u32> {
        let state = self.state.lock();
        state.devices.get(&device)?.bound.map(|bound| bound.id)
    }
}

#[cfg(test)]
mod tests;
