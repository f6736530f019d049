//! The host behind assigned devices: page requests and dirty pages.

use core::ffi::c_int;

use super::error::{guard, invalid};
use super::{NvtdUnit, unit_ref};

/// nvtd_dirty_bitmap() flags: ask without making the pages clean.
pub const NVTD_DIRTY_KEEP: u32 = 1;

/// Read the page requests that assigned devices have sent to the host, and put them into
/// the guest's page request queue. To be called when a file of NvtdOps.watch is
/// readable; without anything to read it does nothing. Any thread; not from inside
/// NvtdOps.attach.
///
/// Returns 0; -EINVAL: unit is NULL; any other: a fault queue could not be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_host_faults(unit: *mut NvtdUnit) -> c_int {
    guard(|| {
        // SAFETY: C promises a live unit or NULL.
        unsafe { unit_ref(unit) }?.host_faults()
    })
}

/// Track which pages assigned devices write (`on` is 1), or stop it (0). Tracking begins
/// with every page clean. Any thread.
///
/// Returns 0; -EINVAL: unit is NULL or on is neither; -EOPNOTSUPP: there is no host, or a
/// host unit cannot track; any other: the host refused.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_dirty_tracking(unit: *mut NvtdUnit, on: u32) -> c_int {
    guard(|| {
        // SAFETY: C promises a live unit or NULL.
        let unit = unsafe { unit_ref(unit) }?;
        match on {
            0 | 1 => unit.set_dirty_tracking(on == 1),
            other => Err(invalid(format!("on is {other}; use 1 or 0"))),
        }
    })
}

/// Which pages of the `length` bytes of guest RAM at `gpa` have assigned devices written
/// since this was asked last, or tracking began? Sets bit n of `bitmap`, an array of
/// 64-bit words of which the caller has `words`, for page n; bits are only set, never
/// cleared. `page_size` is a power of two of at least 4096, of which gpa and length are
/// multiples. Flags: NVTD_DIRTY_KEEP. Any thread.
///
/// Returns 0; -EINVAL: a pointer is NULL, an unknown flag, or gpa, length, page_size and
/// words do not go together; -EOPNOTSUPP: nothing is tracked; any other: the host
/// refused.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_dirty_bitmap(
    unit: *mut NvtdUnit,
    gpa: u64,
    length: u64,
    page_size: u64,
    flags: u32,
    bitmap: *mut u64,
    words: usize,
) -> c_int {
    guard(|| {
        // SAFETY: C promises a live unit or NULL.
        let unit = unsafe { unit_ref(unit) }?;
        if bitmap.is_null() {
            return Err(invalid("bitmap is NULL; pass where to set the bits"));
        }
        super::convert::only("flags", flags.into(), NVTD_DIRTY_KEEP.into())?;
        let pages_fit = page_size.is_power_of_two()
            && page_size >= 4096
            && (gpa | length) & page_size.wrapping_sub(1) == 0;
        if !pages_fit || length == 0 {
            return Err(invalid(format!(
                "gpa {gpa:#x} and length {length:#x} must be multiples of page_size \
                 {page_size:#x}, a power of two from 4096, and length not 0"
            )));
        }
        let pages = length.checked_div(page_size).unwrap_or(u64::MAX);
        if gpa.checked_add(length).is_none() || pages.div_ceil(64) > words as u64 {
            return Err(invalid(format!(
                "{pages} pages need {} words of bitmap, there are {words}; ask for fewer",
                pages.div_ceil(64)
            )));
        }
        // SAFETY: not NULL, and C promises `words` words that nobody else uses.
        let bitmap = unsafe { core::slice::from_raw_parts_mut(bitmap, words) };
        let keep = flags & NVTD_DIRTY_KEEP != 0;
        unit.dirty_bitmap(gpa, length, page_size, keep, bitmap)
    })
}
