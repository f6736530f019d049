//! The host behind assigned devices: what iommufd offers a VMM.
//!
//! [`Host`] is the control side, with the kernel's calls and errno values.
//! [`simple::SoftHost`] is a host inside this crate: the same calls, and behind them
//! hardware that walks guest tables and caches what it walked.

#[expect(unsafe_code, reason = "system calls take addresses")]
pub mod ioctl;
pub mod simple;
pub mod soft;
pub mod uapi;

use crate::spec::registers::{Cap, Ecap};

pub use uapi::{VTD_INV_FLAGS_LEAF, VTD_S1_EAFE, VTD_S1_SRE, VTD_S1_WPE, VtdS1, VtdS1Invalidate};

/// A positive errno, as the kernel would answer.
pub type Errno = i32;

/// ID of an HWPT object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HwptId(pub u32);

/// ID of a device object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostDevice(pub u32);

/// What `IOMMU_GET_HW_INFO` tells of the IOMMU before a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HwInfo {
    /// `cap_reg`.
    pub cap: Cap,
    /// `ecap_reg`.
    pub ecap: Ecap,
}

/// An invalidate call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidateError {
    /// Entries that were handled before the one that failed (`entry_num`).
    pub handled: usize,
    /// Why the next one failed.
    pub errno: Errno,
}

/// The calls of iommufd and vfio that nesting needs. Any thread.
///
/// Errors are positive errno values, those of the kernel for the same mistake.
pub trait Host: Send + Sync {
    /// Bind a device (`VFIO_DEVICE_BIND_IOMMUFD`). Its DMA is blocked at first.
    ///
    /// # Errors
    /// `ENOSPC`: no object ID is left.
    fn bind(&self) -> Result<HostDevice, Errno>;

    /// Close a device: it is detached and its ID ends.
    fn unbind(&self, device: HostDevice);

    /// `IOMMU_GET_HW_INFO`.
    ///
    /// # Errors
    /// `ENOENT`: no such device.
    fn hw_info(&self, device: HostDevice) -> Result<HwInfo, Errno>;

    /// The nesting parent, which maps guest RAM.
    fn parent(&self) -> HwptId;

    /// `IOMMU_HWPT_ALLOC` of a nested HWPT on the parent, with `VTD_S1` data.
    ///
    /// # Errors
    /// `ENOENT`: no such device. `ENOMEM`, `ENOSPC`: no room. As in the kernel most
    /// of `data` is judged by [`Self::attach`].
    fn alloc_nested(&self, device: HostDevice, data: &VtdS1) -> Result<HwptId, Errno>;

    /// `VFIO_DEVICE_ATTACH_IOMMUFD_PT`: attach, or replace what was attached.
    ///
    /// # Errors
    /// `ENOENT`: no such device or HWPT. `EINVAL`: not an HWPT, or the hardware does
    /// not support its configuration. The device is then blocked, although the
    /// kernel still records the HWPT it had: [`Self::detach`] before trying again.
    fn attach(&self, device: HostDevice, hwpt: HwptId) -> Result<(), Errno>;

    /// `VFIO_DEVICE_DETACH_IOMMUFD_PT`: the device's DMA is blocked.
    ///
    /// # Errors
    /// `ENOENT`: no such device.
    fn detach(&self, device: HostDevice) -> Result<(), Errno>;

    /// `IOMMU_HWPT_INVALIDATE` with an array of entries, in their order.
    ///
    /// # Errors
    /// How many entries were handled, and why the next one was not.
    fn invalidate(&self, hwpt: HwptId, entries: &[VtdS1Invalidate]) -> Result<(), InvalidateError>;

    /// `IOMMU_DESTROY` of a nested HWPT.
    ///
    /// # Errors
    /// `ENOENT`: no such object. `EBUSY`: a device is attached to it.
    fn destroy(&self, hwpt: HwptId) -> Result<(), Errno>;

    /// Guest RAM was taken out of the parent (`IOMMU_IOAS_UNMAP`): forget what was
    /// cached of it.
    fn ram_removed(&self);
}
