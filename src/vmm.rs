//! What the unit asks of the VMM it is linked into.

use crate::event::Event;
use crate::spec::page_request::ResponseCode;

/// How serious a line for the operator is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum LogLevel {
    /// Something failed that the operator should know of.
    Error = 0,
    /// Unusual but handled.
    Warn = 1,
    /// A change of state worth a line.
    Info = 2,
}

/// A page group response on its way to a device (7.7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageResponse {
    /// The VMM's name for the device.
    pub tag: u64,
    /// Handle of the device.
    pub device: u32,
    /// PASID of the group, if its requests had one.
    pub pasid: Option<u32>,
    /// Page request group index.
    pub group: u16,
    /// What became of the group.
    pub code: ResponseCode,
}

/// Whose translations are to be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// Whoever keeps answers of the unit, as vfio's mappings are.
    Unit,
    /// The device's TLB.
    DeviceTlb,
}

/// Which requests' translations are to be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pasids {
    /// Those without PASID.
    None,
    /// Those of one PASID.
    One(u32),
    /// All of the device.
    All,
}

/// Translations of a device that are to be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invalidation {
    /// The VMM's name for the device.
    pub tag: u64,
    /// Handle of the device.
    pub device: u32,
    /// Requester ID.
    pub source_id: u16,
    /// Who is to forget.
    pub holder: Holder,
    /// Which requests'.
    pub pasids: Pasids,
    /// First byte address.
    pub first: u64,
    /// Last byte address.
    pub last: u64,
}

/// Why the VMM could not invalidate a device's TLB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidationFailure {
    /// The device did not answer in time (FSTS.ITE).
    TimedOut,
    /// It answered wrongly (FSTS.ICE).
    Failed,
}

/// Callbacks into the VMM. The unit calls them with none of its locks held, on
/// the thread of the call it is working for.
pub trait Vmm: Send + Sync {
    /// Write the 32-bit `data` of a message-signalled interrupt to `address`.
    fn msi(&self, address: u64, data: u32);

    /// A line of text for the operator.
    fn log(&self, level: LogLevel, message: &str);

    /// A trace event; the arguments are listed with each [`Event`].
    fn event(&self, event: Event, a: u64, b: u64, c: u64);

    /// Does anybody listen to [`Vmm::event`]? Asked before many events are collected.
    fn wants_events(&self) -> bool {
        true
    }

    /// Translations of a device are to be forgotten before this returns: the guest's
    /// wait completes only then. Called for devices for which it was asked for with
    /// `Unit::device_notify`.
    ///
    /// # Errors
    /// Why a device TLB did not do it. The failure of any other holder is the VMM's own
    /// affair, and taken as [`InvalidationFailure::Failed`].
    fn invalidate(&self, invalidation: &Invalidation) -> Result<(), InvalidationFailure> {
        let _ = invalidation;
        Ok(())
    }

    /// What interrupt requests were remapped to is to be forgotten: everything, or
    /// that of the 2^mask table entries, aligned to their number, with the index in
    /// them. `Unit::remap_msi` answers anew.
    fn iec_invalidate(&self, range: Option<(u16, u8)>) {
        let _ = range;
    }

    /// A page request group of a device is answered.
    fn page_response(&self, response: PageResponse) {
        let _ = response;
    }

    /// Attach an assigned device that the VMM attaches itself to an HWPT of its iommufd,
    /// or detach it (None): its requests with `pasid`, or those without. The one callback
    /// that is made while the unit is locked, as a system call would be: it must not call
    /// back into the unit.
    ///
    /// # Errors
    /// The errno. After a failed attachment the requests are blocked.
    fn attach(&self, tag: u64, pasid: Option<u32>, hwpt: Option<u32>) -> Result<(), i32> {
        let _ = (tag, pasid, hwpt);
        Err(libc::ENOSYS)
    }

    /// Call `Unit::host_faults` whenever this file is readable, or do so no longer.
    fn watch(&self, file: i32, on: bool) {
        let _ = (file, on);
    }

    /// A call has done as much for the guest as one call may, and left the rest: call
    /// `Unit::work` soon, but not before this one has returned to whoever made it. Without that the
    /// rest is done with the guest's next access of IQT, IQH or FSTS.
    fn more_work(&self) {}

    /// The present requester ID of the device added with `tag`, or None if the
    /// one given when it was added holds.
    fn source_id(&self, tag: u64) -> Option<u16> {
        let _ = tag;
        None
    }
}
