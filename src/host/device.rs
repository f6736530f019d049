//! A device on the host: what it is attached to, as far as the kernel can be trusted
//! with it.
//!
//! A failed attachment leaves the device's DMA blocked while the kernel still records
//! the HWPT it had before, and to attach that one again does nothing then. So after a
//! failure the only way on is to detach, and until that has succeeded whatever the
//! kernel may record is kept alive.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::ioctl::Fd;
use super::iommufd::Attach;
use super::space::{Nested, Parent, Space};
use super::uapi::request;
use super::{Errno, HostError, HostInfo};

/// An HWPT that a device can be attached to.
#[derive(Debug, Clone)]
pub enum Hwpt {
    /// Guest-physical addresses.
    Parent(Arc<Parent>),
    /// A guest's first-stage table.
    Nested(Arc<Nested>),
}

impl Hwpt {
    /// Its ID.
    pub fn id(&self) -> u32 {
        match self {
            Self::Parent(parent) => parent.id,
            Self::Nested(nested) => nested.id,
        }
    }

    /// The nested one.
    pub fn nested(&self) -> Option<&Arc<Nested>> {
        match self {
            Self::Parent(_) => None,
            Self::Nested(nested) => Some(nested),
        }
    }

    /// Is it the same one?
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Parent(one), Self::Parent(two)) => Arc::ptr_eq(one, two),
            (Self::Nested(one), Self::Nested(two)) => Arc::ptr_eq(one, two),
            _ => false,
        }
    }
}

/// What the kernel may have on record for the requests of one PASID, or those without.
#[derive(Debug, Default)]
struct Record {
    /// What is attached, or may still be recorded.
    hwpts: Vec<Hwpt>,
    /// A call failed: only detaching makes the record and the hardware agree.
    in_doubt: bool,
}

/// A device that is bound to an iommufd.
#[derive(Debug)]
pub struct HostDevice {
    /// Where it is.
    pub space: Arc<Space>,
    /// Its ID.
    pub dev_id: u32,
    /// What its host unit, and it, can do.
    pub info: HostInfo,
    /// Its vfio file, if it is attached through that.
    pub file: Option<Fd>,
    way: Box<dyn Attach>,
    parent: Mutex<Option<Arc<Parent>>>,
    records: Mutex<HashMap<Option<u32>, Record>>,
    /// Its page requests are not to be had.
    no_page_requests: AtomicBool,
}

impl HostDevice {
    pub(super) fn new(
        space: Arc<Space>,
        dev_id: u32,
        info: HostInfo,
        way: Box<dyn Attach>,
        file: Option<Fd>,
    ) -> Self {
        Self {
            space,
            dev_id,
            info,
            file,
            way,
            parent: Mutex::default(),
            records: Mutex::default(),
            no_page_requests: AtomicBool::new(!info.ecap.page_request()),
        }
    }

    pub(super) fn set_parent(&self, parent: Arc<Parent>) {
        *self.parent.lock() = Some(parent);
    }

    /// ID of the parent it shares.
    pub fn parent_id(&self) -> Option<u32> {
        self.parent.lock().as_ref().map(|parent| parent.id)
    }

    /// The parent it shares.
    pub fn parent(&self) -> Option<Hwpt> {
        self.parent.lock().clone().map(Hwpt::Parent)
    }

    /// Do its page requests go to the fault queue?
    pub fn sends_page_requests(&self) -> bool {
        !self.no_page_requests.load(Ordering::Relaxed)
    }

    /// Attach to the parent.
    ///
    /// # Errors
    /// As [`Self::attach`].
    pub fn attach_parent(&self, pasid: Option<u32>) -> Result<(), HostError> {
        match self.parent() {
            Some(parent) => self.attach(pasid, &parent).map(drop),
            None => Err(HostError {
                request: request::VFIO_ATTACH,
                errno: libc::ENOENT,
            }),
        }
    }

    /// Send requests of `pasid`, or those without one, through `hwpt`. False if they
    /// did already.
    ///
    /// # Errors
    /// The call that failed. The device is then detached, or [`Self::is_in_doubt`].
    pub fn attach(&self, pasid: Option<u32>, hwpt: &Hwpt) -> Result<bool, HostError> {
        let records = &mut *self.records.lock();
        let record = records.entry(pasid).or_default();
        if record.in_doubt {
            self.detach_record(pasid, record)?;
        }
        if record.hwpts.iter().any(|at| at.is(hwpt)) {
            return Ok(false);
        }
        if let Err(errno) = self.way.attach(pasid, hwpt.id()) {
            // The new one is no longer used, the old one may still be recorded.
            record.in_doubt = true;
            let detached = self.detach_record(pasid, record);
            if detached.is_ok() && pasid.is_some() {
                records.remove(&pasid);
            }
            return Err(HostError {
                request: request::VFIO_ATTACH,
                errno,
            });
        }
        if let Hwpt::Nested(nested) = hwpt {
            Space::joined(nested);
        }
        for old in core::mem::replace(&mut record.hwpts, vec![hwpt.clone()]) {
            self.left(&old);
        }
        Ok(true)
    }

    /// The device's unit takes no HWPT with a fault queue from it (it has no PRI): ask
    /// for one without from now on.
    pub fn give_up_page_requests(&self) {
        self.no_page_requests.store(true, Ordering::Relaxed);
    }

    /// Has it given page requests up, so that what it is attached to may still have a
    /// fault queue?
    pub fn has_given_up_page_requests(&self) -> bool {
        self.info.ecap.page_request() && !self.sends_page_requests()
    }

    /// Block the requests of `pasid`, or those without one. False if they were.
    ///
    /// # Errors
    /// The call failed, twice: whatever was attached is still in use.
    pub fn detach(&self, pasid: Option<u32>) -> Result<bool, HostError> {
        let records = &mut *self.records.lock();
        let Some(record) = records.get_mut(&pasid) else {
            return Ok(false);
        };
        if !record.in_doubt && record.hwpts.is_empty() {
            return Ok(false);
        }
        self.detach_record(pasid, record)?;
        if pasid.is_some() {
            records.remove(&pasid);
        }
        Ok(true)
    }

    fn detach_record(&self, pasid: Option<u32>, record: &mut Record) -> Result<(), HostError> {
        let detach = || self.way.detach(pasid);
        // The kernel's own never fails; another's may have a bad moment.
        if let Err(errno) = detach().or_else(|_: Errno| detach()) {
            record.in_doubt = true;
            return Err(HostError {
                request: request::VFIO_DETACH,
                errno,
            });
        }
        record.in_doubt = false;
        for old in core::mem::take(&mut record.hwpts) {
            self.left(&old);
        }
        Ok(())
    }

    /// Is it unknown what the requests of `pasid` go through?
    pub fn is_in_doubt(&self, pasid: Option<u32>) -> bool {
        let records = self.records.lock();
        records.get(&pasid).is_some_and(|record| record.in_doubt)
    }

    /// Detach everything, and let go of what it was attached to, also of what cannot be
    /// detached: who closes the device's file does.
    pub(super) fn leave(&self) {
        let records = core::mem::take(&mut *self.records.lock());
        for (pasid, mut record) in records {
            let _detached = self.detach_record(pasid, &mut record);
            for hwpt in record.hwpts {
                self.left(&hwpt);
            }
        }
    }

    fn left(&self, hwpt: &Hwpt) {
        if let Hwpt::Nested(nested) = hwpt {
            self.space.left(nested);
        }
    }
}
