//! What a device's tables map, for a VMM that shadows them.

use core::ffi::{c_int, c_void};
use core::ops::ControlFlow;

use super::convert::{only, pasid_of, permission_bits};
use super::error::{guard, invalid};
use super::{NvtdUnit, unit_ref};
use crate::translate::enumerate::Run;

/// Flag of nvtd_for_each_mapping(): it is about requests with the PASID that is
/// given; without it about those that have none.
pub const NVTD_MAPPING_PASID: u32 = 1;

/// A run of addresses that a device's tables map: addresses next to each other that
/// go to addresses next to each other, with the same permissions. Neither its place
/// nor its length is a power of two in general; it is never empty.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NvtdMapping {
    /// sizeof(NvtdMapping).
    pub size: usize,
    /// First address, as the device uses it.
    pub address: u64,
    /// Where that goes: a guest-physical address.
    pub translated: u64,
    /// Length in bytes.
    pub length: u64,
    /// NVTD_PERMISSION_READ, _WRITE and _EXECUTE bits of a user's requests.
    pub permissions: u32,
    /// 0.
    pub reserved: u32,
}

impl NvtdMapping {
    fn from_run(run: &Run) -> Self {
        Self {
            size: size_of::<Self>(),
            address: run.address,
            translated: run.translated,
            length: run.length,
            permissions: permission_bits(run.permissions),
            reserved: 0,
        }
    }
}

/// Give `mapping` what the requests of a device can reach from the addresses `first`
/// to `last`, both included: in maximal runs, in rising order, clipped to the range.
/// With NVTD_MAPPING_PASID in `flags` it is about requests with `pasid`, else about
/// those without PASID. At most `limit` runs are given, any number with 0. For a VMM
/// that shadows the guest's tables: after an invalidation it asks for the range that
/// was invalidated and compares with what it has.
///
/// The tables are read as they are now, whatever is cached, and no accessed or dirty
/// bit is set; nested translation is composed of its stages. Addresses that would
/// fault are left out, and so are those in the interrupt range or that would go
/// there. While translation is off, and in pass-through, nothing is given: there are
/// no tables to shadow, and all of guest RAM is to be mapped. A debug look of
/// nvtd_translate(), which then gives the address itself, tells this from tables that
/// map nothing.
///
/// If `mapping` returns anything but 0, the enumeration ends and the call returns
/// that. Any thread; `mapping` is called with no lock held and may call anything but
/// nvtd_unit_destroy(). The structure is valid during the call of `mapping`. What the
/// guest changes meanwhile may be seen half; it then invalidates.
///
/// Returns 0 or what `mapping` returned; -EINVAL: unit or mapping is NULL, an unknown
/// flag, a PASID without NVTD_MAPPING_PASID or of more than 20 bits, or first is beyond
/// last; -ENOENT: no such device; -E2BIG: there are more than `limit` runs, or more
/// than 16777216 paging entries would be read; runs given before are good.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_for_each_mapping(
    unit: *mut NvtdUnit,
    device: u32,
    flags: u32,
    pasid: u32,
    first: u64,
    last: u64,
    limit: u64,
    mapping: Option<
        unsafe extern "C" fn(opaque: *mut c_void, mapping: *const NvtdMapping) -> c_int,
    >,
    opaque: *mut c_void,
) -> c_int {
    let mut stopped = 0;
    let result = guard(|| {
        // SAFETY: C promises a live unit or NULL.
        let unit = unsafe { unit_ref(unit) }?;
        let Some(mapping) = mapping else {
            return Err(invalid(
                "mapping is NULL; pass the function that takes the mappings",
            ));
        };
        only("flags", flags.into(), NVTD_MAPPING_PASID.into())?;
        let pasid = pasid_of(flags & NVTD_MAPPING_PASID != 0, pasid)?;
        let end = unit.for_each_mapping(device, pasid, first..=last, limit, &mut |run| {
            let given = NvtdMapping::from_run(run);
            // SAFETY: C promises that `mapping` can be called with `opaque`; the structure
            // outlives the call.
            match unsafe { mapping(opaque, &raw const given) } {
                0 => ControlFlow::Continue(()),
                code => ControlFlow::Break(code),
            }
        })?;
        if let ControlFlow::Break(code) = end {
            stopped = code;
        }
        Ok(())
    });
    if result == 0 { stopped } else { result }
}
