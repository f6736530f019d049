//! Interrupt requests.

use core::ffi::c_int;

use super::convert::only;
use super::error::guard;
use super::outstruct::{read_sized, write_sized};
use super::{NvtdUnit, unit_ref};
use crate::Result;
use crate::interrupt::{Message, Outcome, Request};

/// NvtdMsi.flags: only look. No fault is recorded, nothing is counted or cached.
pub const NVTD_MSI_DEBUG: u32 = 1;
/// NvtdMsi.flags: the write has the PASID in NvtdMsi.pasid. It is no interrupt request
/// then and always refused.
pub const NVTD_MSI_PASID: u32 = 2;
/// NvtdMsi.flags: do not compare source_id with the table entry (SVT), for a VMM that
/// cannot tell the requester. With it any requester may use any entry.
pub const NVTD_MSI_UNVERIFIED: u32 = 4;

/// NvtdMsiAnswer.flags: the interrupt is that of a table entry. Without it, and
/// without a fault, the request is to be delivered as it is.
pub const NVTD_MSI_REMAPPED: u32 = 1;

/// An interrupt request, for nvtd_remap_msi(): a write of 32 bits to the interrupt
/// range.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NvtdMsi {
    /// sizeof(NvtdMsi).
    pub size: usize,
    /// Address the requester writes to.
    pub address: u64,
    /// What it writes.
    pub data: u32,
    /// The requester (bus << 8 | devfn); an I/O APIC or HPET has one, too.
    pub source_id: u16,
    /// Must be 0.
    pub reserved: u16,
    /// NVTD_MSI_DEBUG, NVTD_MSI_PASID and NVTD_MSI_UNVERIFIED.
    pub flags: u32,
    /// PASID (20 bits) with NVTD_MSI_PASID, else 0.
    pub pasid: u32,
}

/// Answer of nvtd_remap_msi(). Fields beyond the caller's `size` are left out.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NvtdMsiAnswer {
    /// sizeof(NvtdMsiAnswer), set by the caller.
    pub size: usize,
    /// Address of the interrupt: destination ID bits 7:0 in bits 19:12 and bits 31:8 in
    /// bits 63:40, redirection hint in bit 3, destination mode in bit 2. 0 with a fault.
    pub address: u64,
    /// Its data: vector in bits 7:0, delivery mode in bits 10:8, level in bit 14, trigger
    /// mode in bit 15. 0 with a fault.
    pub data: u32,
    /// 0, or the fault reason (VT-d 7.1.3) with which the request was refused: no
    /// interrupt is to be delivered.
    pub fault: u32,
    /// 0, or a finer reason, named by nvtd_diagnostic_name().
    pub diagnostic: u32,
    /// NVTD_MSI_REMAPPED or 0.
    pub flags: u32,
}

impl Request {
    fn from_c(request: &NvtdMsi) -> Result<Self> {
        let known = NVTD_MSI_DEBUG | NVTD_MSI_PASID | NVTD_MSI_UNVERIFIED;
        only("request->flags", request.flags.into(), known.into())?;
        only("request->reserved", request.reserved.into(), 0)?;
        let has = |flag| request.flags & flag != 0;
        let (field, bits) = if has(NVTD_MSI_PASID) {
            ("request->pasid", 0xf_ffff)
        } else {
            ("request->pasid without NVTD_MSI_PASID", 0)
        };
        only(field, request.pasid.into(), bits)?;
        Ok(Self {
            message: Message {
                address: request.address,
                data: request.data,
            },
            source_id: request.source_id,
            verify: !has(NVTD_MSI_UNVERIFIED),
            pasid: has(NVTD_MSI_PASID).then_some(request.pasid),
            look: has(NVTD_MSI_DEBUG),
        })
    }
}

impl Outcome {
    fn into_c(self) -> NvtdMsiAnswer {
        let empty = NvtdMsiAnswer {
            size: size_of::<NvtdMsiAnswer>(),
            address: 0,
            data: 0,
            fault: 0,
            diagnostic: 0,
            flags: 0,
        };
        match self.result {
            Ok(Message { address, data }) => NvtdMsiAnswer {
                address,
                data,
                flags: if self.index.is_some() {
                    NVTD_MSI_REMAPPED
                } else {
                    0
                },
                ..empty
            },
            Err(refusal) => NvtdMsiAnswer {
                fault: refusal.fault.reason.code().into(),
                diagnostic: refusal.fault.diagnostic as u32,
                ..empty
            },
        }
    }
}

/// What becomes of an interrupt request, that is of a 32-bit write by a device or an
/// I/O APIC to an address from 0xfee00000 to 0xfeefffff? A request that is refused is
/// no error: the call returns 0, out->fault holds the reason, and the fault has been
/// recorded and, if the guest wants it, signalled (not with NVTD_MSI_DEBUG). While the
/// guest has interrupt remapping off every request is to be delivered as it is,
/// whatever its address. While it is on, one with an address outside of the range is
/// refused. The unit's own interrupts (NvtdOps.msi) are not remapped and must not be
/// asked. Any thread, several at once; no lock of the VMM is needed. The answer holds
/// until NvtdOps.iec_invalidate is called for it.
///
/// Returns 0, or -EINVAL: a pointer is NULL, a `size` is wrong, request->flags has an
/// unknown bit, or a field that must be 0 is not.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_remap_msi(
    unit: *mut NvtdUnit,
    request: *const NvtdMsi,
    out: *mut NvtdMsiAnswer,
) -> c_int {
    guard(|| {
        // SAFETY: C promises a live unit or NULL.
        let unit = unsafe { unit_ref(unit) }?;
        let default = NvtdMsi {
            size: size_of::<NvtdMsi>(),
            address: 0,
            data: 0,
            source_id: 0,
            reserved: 0,
            flags: 0,
            pasid: 0,
        };
        // SAFETY: C promises that `request` is NULL or holds request->size bytes.
        let request = unsafe { read_sized(request, "request", default) }?;
        let outcome = unit.remap_msi(Request::from_c(&request)?);
        // SAFETY: C promises that `out` is NULL or points to out->size bytes.
        unsafe { write_sized(out, "out", outcome.into_c()) }
    })
}
