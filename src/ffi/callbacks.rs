//! The VMM's callbacks, as the unit wants them.

use core::ffi::c_void;
use std::ffi::CString;

use crate::Result;
use crate::event::Event;
use crate::ffi::error::invalid;
use crate::ffi::outstruct::read_sized;
use crate::ffi::types::{
    NVTD_ATTACH_DETACH, NVTD_ATTACH_PASID, NvtdAttach, NvtdInvalidation, NvtdOps, NvtdPageResponse,
};
use crate::vmm::{Invalidation, InvalidationFailure, LogLevel, PageResponse, Vmm};

/// The ops table and the pointer that goes with it.
pub(super) struct Callbacks {
    ops: NvtdOps,
    opaque: *mut c_void,
}

// SAFETY: the header demands that callbacks can be called from any thread that
// calls into the unit; `opaque` is only handed back to them.
unsafe impl Send for Callbacks {}
// SAFETY: as above.
unsafe impl Sync for Callbacks {}

impl Callbacks {
    /// Copy the table.
    ///
    /// # Safety
    /// `ops` is NULL or can be read for ops->size bytes, and its callbacks stay
    /// callable with `opaque` until the unit is destroyed.
    pub unsafe fn new(ops: *const NvtdOps, opaque: *mut c_void) -> Result<Self> {
        let none = NvtdOps {
            size: size_of::<NvtdOps>(),
            msi: None,
            log: None,
            event: None,
            source_id: None,
            iec_invalidate: None,
            page_response: None,
            invalidate: None,
            attach: None,
            watch: None,
            wants_events: None,
            more_work: None,
        };
        // SAFETY: as promised by the caller.
        let ops = unsafe { read_sized(ops, "ops", none) }?;
        if ops.msi.is_none() {
            return Err(invalid(
                "ops->msi is NULL; it is required, to deliver interrupts",
            ));
        }
        Ok(Self { ops, opaque })
    }
}

impl Vmm for Callbacks {
    fn msi(&self, address: u64, data: u32) {
        if let Some(msi) = self.ops.msi {
            // SAFETY: the header's contract for callbacks.
            unsafe { msi(self.opaque, address, data) }
        }
    }

    fn log(&self, level: LogLevel, message: &str) {
        if let Some(log) = self.ops.log {
            let text = CString::new(message.replace('\0', "")).unwrap_or_default();
            // SAFETY: the header's contract for callbacks; the text outlives the call.
            unsafe { log(self.opaque, level as u32, text.as_ptr()) }
        }
    }

    fn event(&self, event: Event, a: u64, b: u64, c: u64) {
        if let Some(callback) = self.ops.event {
            // SAFETY: the header's contract for callbacks.
            unsafe { callback(self.opaque, event as u32, a, b, c) }
        }
    }

    fn wants_events(&self) -> bool {
        let asked = self.ops.wants_events.is_none_or(|wants_events| {
            // SAFETY: the header's contract for callbacks.
            unsafe { wants_events(self.opaque) != 0 }
        });
        self.ops.event.is_some() && asked
    }

    fn more_work(&self) {
        if let Some(more_work) = self.ops.more_work {
            // SAFETY: the header's contract for callbacks.
            unsafe { more_work(self.opaque) }
        }
    }

    fn iec_invalidate(&self, range: Option<(u16, u8)>) {
        if let Some(callback) = self.ops.iec_invalidate {
            let (index, mask) = range.unwrap_or_default();
            // SAFETY: the header's contract for callbacks.
            unsafe {
                callback(
                    self.opaque,
                    range.is_none().into(),
                    index.into(),
                    mask.into(),
                );
            }
        }
    }

    fn page_response(&self, response: PageResponse) {
        if let Some(page_response) = self.ops.page_response {
            let response = NvtdPageResponse::from(response);
            // SAFETY: the header's contract for callbacks; the response outlives the call.
            unsafe { page_response(self.opaque, &raw const response) }
        }
    }

    fn invalidate(
        &self,
        invalidation: &Invalidation,
    ) -> core::result::Result<(), InvalidationFailure> {
        let Some(callback) = self.ops.invalidate else {
            return Ok(());
        };
        let told = NvtdInvalidation::from(invalidation);
        // SAFETY: the header's contract for callbacks; `told` outlives the call.
        match unsafe { callback(self.opaque, &raw const told) } {
            0 => Ok(()),
            code if code == -libc::ETIMEDOUT => Err(InvalidationFailure::TimedOut),
            _ => Err(InvalidationFailure::Failed),
        }
    }

    fn attach(
        &self,
        tag: u64,
        pasid: Option<u32>,
        hwpt: Option<u32>,
    ) -> core::result::Result<(), i32> {
        let Some(callback) = self.ops.attach else {
            return Err(libc::ENOSYS);
        };
        let with_pasid = pasid.map_or(0, |_| NVTD_ATTACH_PASID);
        let detach = hwpt.map_or(NVTD_ATTACH_DETACH, |_| 0);
        let attach = NvtdAttach {
            size: size_of::<NvtdAttach>(),
            tag,
            flags: with_pasid | detach,
            pasid: pasid.unwrap_or(0),
            hwpt: hwpt.unwrap_or(0),
            reserved: 0,
        };
        // SAFETY: the header's contract for callbacks; `attach` outlives the call.
        match unsafe { callback(self.opaque, &raw const attach) } {
            0 => Ok(()),
            code if code < 0 => Err(code.saturating_neg()),
            // Not a value that the contract has.
            _ => Err(libc::EIO),
        }
    }

    fn watch(&self, file: i32, on: bool) {
        if let Some(watch) = self.ops.watch {
            // SAFETY: the header's contract for callbacks.
            unsafe { watch(self.opaque, file, on.into()) }
        }
    }

    fn source_id(&self, tag: u64) -> Option<u16> {
        let source_id = self.ops.source_id?;
        // SAFETY: the header's contract for callbacks.
        Some(unsafe { source_id(self.opaque, tag) })
    }
}
