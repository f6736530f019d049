//! The unit's state as bytes, for migration and snapshots.

use core::ffi::{c_int, c_void};

use super::error::{guard, invalid};
use super::{NvtdUnit, unit_ref};
use crate::Error;

/// Save the unit's architectural state: registers and what is latched of them, the fault
/// log, the queues' heads and tails, and page requests that the guest has not answered.
/// Not in it are caches, counters, devices, guest RAM, and whatever is on a host. *needed
/// becomes its size in bytes, which is some hundred, and 8 more for each group of page
/// requests. If `size` is at least that, it is written to `buffer`, of which the caller has
/// `size` bytes; else nothing is written. To ask for the size alone pass NULL and 0. The
/// layout is described in the project's docs/migration.md, and later releases load it too.
///
/// It is the state between two accesses. An access that another thread is making is in it
/// or not, and what such a call still sends through NvtdOps.msi is not. So stop the guest's
/// processors and devices first, let calls under way return, save the unit, and after it the
/// interrupt controllers. Any thread; not from inside NvtdOps.attach.
///
/// Returns 0; -EINVAL: unit or needed is NULL, or buffer is NULL and size is not 0;
/// -ENOSPC: size is less than *needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_unit_save(
    unit: *mut NvtdUnit,
    buffer: *mut c_void,
    size: usize,
    needed: *mut usize,
) -> c_int {
    guard(|| {
        // SAFETY: C promises a live unit or NULL.
        let unit = unsafe { unit_ref(unit) }?;
        if needed.is_null() {
            return Err(invalid(
                "needed is NULL; pass where to store the size of the state",
            ));
        }
        if buffer.is_null() && size != 0 {
            return Err(invalid(format!(
                "buffer is NULL, but size is {size}; pass a buffer of that size, or 0"
            )));
        }
        let saved = unit.save();
        // SAFETY: not NULL, and C promises that it can be written.
        unsafe { needed.write(saved.len()) };
        if buffer.is_null() {
            return Ok(());
        }
        if size < saved.len() {
            return Err(Error::new(
                libc::ENOSPC,
                format!(
                    "the state has {} bytes, the buffer {size}; pass one of the size that *needed \
                     tells",
                    saved.len()
                ),
            ));
        }
        // SAFETY: not NULL, and C promises that `size` bytes can be written, which are enough.
        unsafe { core::ptr::copy_nonoverlapping(saved.as_ptr(), buffer.cast(), saved.len()) };
        Ok(())
    })
}

/// Put the unit into a state of `size` bytes at `data` that nvtd_unit_save() gave for a
/// unit of the same capabilities, here or elsewhere. Devices and RAM are to be there before,
/// the RAM with what was in it. Caches are empty then, assigned devices are where the guest's
/// tables say, and from inside the call NvtdOps.invalidate and NvtdOps.iec_invalidate are
/// called for all that was kept. Counters stay.
///
/// Nothing is sent and nothing executed by the call: a masked interrupt waits until the guest
/// unmasks it. If the state was saved in the middle of the invalidation queue, the rest is
/// executed with the next access of IQT, IQH or FSTS; a VMM that wants it done without one
/// reads FSTS when the guest goes on.
///
/// Any thread, but not from inside callbacks; translations that run at the same time see the
/// state before or after.
///
/// Returns 0; -EINVAL: unit or data is NULL, or data are no saved state, were cut or changed,
/// are of a later release or a unit with other capabilities (nvtd_last_error() names the
/// property), or are of a state that cannot be (it names the register); -EBUSY: another call
/// executes what the guest has commanded. The unit is then unchanged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_unit_load(
    unit: *mut NvtdUnit,
    data: *const c_void,
    size: usize,
) -> c_int {
    guard(|| {
        // SAFETY: C promises a live unit or NULL.
        let unit = unsafe { unit_ref(unit) }?;
        if data.is_null() {
            return Err(invalid("data is NULL; pass what nvtd_unit_save() gave"));
        }
        if isize::try_from(size).is_err() {
            return Err(invalid(format!(
                "size is {size}, which is more than memory can hold; pass the size that \
                 nvtd_unit_save() gave"
            )));
        }
        // SAFETY: not NULL, not larger than an object can be, and C promises that `size` bytes can be read.
        let saved = unsafe { core::slice::from_raw_parts(data.cast(), size) };
        unit.load(saved)
    })
}
