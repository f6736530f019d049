//! The C ABI: `extern "C"` functions over [`crate::unit::Unit`].
//!
//! Everything here checks what C handed over, turns it into safe values and
//! calls the unit; no remapping logic lives here. The item documentation is
//! copied into `include/nested_vtd.h` and therefore written for C.

#![expect(
    clippy::missing_safety_doc,
    reason = "the documentation is the C header's; what is unsafe is what every C pointer demands"
)]

mod callbacks;
mod convert;
pub mod dump;
mod error;
pub mod host;
pub mod interrupt;
pub mod mappings;
mod outstruct;
mod panic;
pub mod snapshot;
pub mod twin;
pub mod types;

use core::ffi::{c_char, c_int, c_void};
use std::sync::Arc;

use crate::event::Event;
use crate::memory::HostRam;
use crate::translate::{Diagnostic, Translation};
use crate::unit::{Config, DeviceDescription, Notify, PageRequest, Plain, Request, Unit};
use callbacks::Callbacks;
use convert::permission_bits;
use error::{guard, invalid};
use outstruct::{read_sized, write_sized};
use types::*;

/// One remapping unit: opaque, made by nvtd_unit_create() and ended by
/// nvtd_unit_destroy().
pub struct NvtdUnit {
    unit: Unit,
}

/// The unit behind a pointer from C, or the error that says it is NULL.
///
/// # Safety
/// `unit` is NULL or came from nvtd_unit_create() and was not yet destroyed.
unsafe fn unit_ref<'a>(unit: *const NvtdUnit) -> crate::Result<&'a Unit> {
    // SAFETY: the caller promises that a pointer that is not NULL is alive.
    match unsafe { unit.as_ref() } {
        Some(handle) => Ok(&handle.unit),
        None => Err(invalid(
            "unit is NULL; pass the pointer that nvtd_unit_create() stored",
        )),
    }
}

/// The interface version this archive was built with: NVTD_ABI_VERSION.
/// Any thread, from anywhere, before anything else.
#[unsafe(no_mangle)]
pub extern "C" fn nvtd_abi_version() -> u32 {
    NVTD_ABI_VERSION
}

/// Text of the last error that a nvtd_ function returned on this thread: what was
/// wrong and what would be right. Never NULL; empty before the first error. The
/// pointer is valid until the next nvtd_ call on this thread. The wording is for
/// people and not stable.
#[unsafe(no_mangle)]
pub extern "C" fn nvtd_last_error() -> *const c_char {
    error::last()
}

/// Name of a trace event given to NvtdOps.event, a static string; "unknown" for
/// a number that is none. Any thread, from anywhere.
#[unsafe(no_mangle)]
pub extern "C" fn nvtd_event_name(event: u32) -> *const c_char {
    Event::name_of(event).as_ptr()
}

/// Name of NvtdTranslation.diagnostic, a static string; "unknown" for a number
/// that is none. Any thread, from anywhere.
#[unsafe(no_mangle)]
pub extern "C" fn nvtd_diagnostic_name(diagnostic: u32) -> *const c_char {
    Diagnostic::name_of(diagnostic).as_ptr()
}

/// Fill `config` with the default for every field within config->size, which the
/// caller sets first. Any thread.
///
/// Returns 0, or -EINVAL: config is NULL or config->size is too small to hold a
/// field.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_config_default(config: *mut NvtdConfig) -> c_int {
    guard(|| {
        // SAFETY: C promises that `config` is NULL or points to `config->size` bytes.
        unsafe { write_sized(config, "config", default_config()) }
    })
}

fn default_config() -> NvtdConfig {
    NvtdConfig {
        size: size_of::<NvtdConfig>(),
        host: NVTD_HOST_NONE,
        inject: 0,
        features: Config::default().features.into_bits(),
        address_width: 0,
        pasid_bits: 0,
        twin: core::ptr::null_mut(),
        checks: 0,
        reserved: 0,
    }
}

/// Make a remapping unit and store it in *unit.
///
/// `config` may be NULL for the defaults. `ops` is copied; `opaque` is handed to
/// every callback. Any thread.
///
/// Returns 0, or -EINVAL: ops or unit is NULL, a `size` is wrong, ops->msi is
/// missing, a field has an unknown bit or value, or values do not go together
/// (nvtd_last_error() names them). *unit is then NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_unit_create(
    config: *const NvtdConfig,
    ops: *const NvtdOps,
    opaque: *mut c_void,
    unit: *mut *mut NvtdUnit,
) -> c_int {
    guard(|| {
        if unit.is_null() {
            return Err(invalid("unit is NULL; pass where to store the new unit"));
        }
        // SAFETY: `unit` is not NULL and C promises that it can be written.
        unsafe { unit.write(core::ptr::null_mut()) };
        // SAFETY: C promises that `config` is NULL or holds config->size bytes.
        let config = match unsafe { config.as_ref() } {
            None => default_config(),
            // SAFETY: as above.
            Some(_) => unsafe { read_sized(config, "config", default_config()) }?,
        };
        // SAFETY: C promises that `ops` is NULL or holds ops->size bytes.
        let callbacks = Arc::new(unsafe { Callbacks::new(ops, opaque) }?);
        panic::install(&callbacks);
        let wanted = Config::from_c(&config)?;
        // SAFETY: C promises a live twin or NULL.
        let made = match unsafe { config.twin.as_ref() } {
            None => Unit::new(wanted, callbacks)?,
            Some(handle) => Unit::with_system(wanted, callbacks, Arc::clone(&handle.twin) as _)?,
        };
        let handle = Box::into_raw(Box::new(NvtdUnit { unit: made }));
        // SAFETY: as above.
        unsafe { unit.write(handle) };
        Ok(())
    })
}

/// End a unit. NULL is allowed and does nothing. The caller makes sure that no
/// other call into the unit is under way and that none follows; registered RAM
/// and devices need not be removed before: assigned ones are, as by
/// nvtd_device_remove(), with its callbacks. Not from inside a callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_unit_destroy(unit: *mut NvtdUnit) {
    if !unit.is_null() {
        // SAFETY: C promises that the pointer came from nvtd_unit_create() and
        // that this is its last use.
        drop(unsafe { Box::from_raw(unit) });
    }
}

/// Put the unit into the state after power-on: registers at their reset values,
/// caches and counters empty, translation off, assigned devices on the host's
/// nesting parent. Devices and RAM regions stay. Any thread; translations that
/// run at the same time see the state before or after.
///
/// Returns 0, or -EINVAL: unit is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_unit_reset(unit: *mut NvtdUnit) -> c_int {
    guard(|| {
        // SAFETY: C promises a live unit or NULL.
        unsafe { unit_ref(unit) }?.reset();
        Ok(())
    })
}

/// Read `size` bytes (1, 2, 4 or 8) of the register window at `offset` (bytes
/// from its start) into *value. What the guest does wrong (unaligned, undefined,
/// 8 bytes of a 4-byte register) reads as the hardware would give it, never as an
/// error. Any thread; several at once are serialised.
///
/// Returns 0, or -EINVAL: unit or value is NULL, size is none of the four, or
/// offset + size is beyond NVTD_MMIO_SIZE. *value is then untouched.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_mmio_read(
    unit: *mut NvtdUnit,
    offset: u64,
    size: u32,
    value: *mut u64,
) -> c_int {
    guard(|| {
        // SAFETY: C promises a live unit or NULL.
        let unit = unsafe { unit_ref(unit) }?;
        if value.is_null() {
            return Err(invalid("value is NULL; pass where to store what was read"));
        }
        let read = unit.mmio_read(offset, size)?;
        // SAFETY: not NULL, and C promises that it can be written.
        unsafe { value.write(read) };
        Ok(())
    })
}

/// Write the low `size` bytes (1, 2, 4 or 8) of `value` to the register window at
/// `offset`. A write to IQT, GCMD or FSTS does its work before it returns:
/// invalidation descriptors are executed, at most one queue length of them, the
/// host is called, wait statuses are written and interrupts are sent through
/// NvtdOps.msi. Descriptors that make much work may be left for later, see
/// NvtdOps.more_work. Writes of the guest that hardware would ignore are ignored and
/// counted. Any thread; several at once are serialised.
///
/// Returns 0, or -EINVAL as nvtd_mmio_read(); nothing is then changed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_mmio_write(
    unit: *mut NvtdUnit,
    offset: u64,
    size: u32,
    value: u64,
) -> c_int {
    guard(|| {
        // SAFETY: C promises a live unit or NULL.
        unsafe { unit_ref(unit) }?.mmio_write(offset, size, value)
    })
}

/// Go on with the queue, of which an earlier call has left a part, see
/// NvtdOps.more_work. Nothing happens if there is none. Any thread; not from inside
/// callbacks.
///
/// Returns 0, or -EINVAL: unit is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_work(unit: *mut NvtdUnit) -> c_int {
    guard(|| {
        // SAFETY: C promises a live unit or NULL.
        unsafe { unit_ref(unit) }?.work();
        Ok(())
    })
}

/// Register guest RAM: `size` bytes at guest-physical `gpa`, which the process
/// has at `host`. Tables, queues and wait statuses are read and written there
/// directly, and an assigned device may reach only registered RAM. Regions do not
/// overlap. The memory stays valid and mapped until nvtd_ram_remove() returns or
/// the unit is destroyed. Flags: NVTD_RAM_*. Any thread.
///
/// With assigned devices it is mapped for them all, once: the whole pages of regions
/// that are not read-only, the interrupt range excepted.
///
/// Returns 0; -EINVAL: unit or host is NULL, size is 0, gpa + size overflows, an
/// unknown flag, gpa, size or host is not a multiple of 8, or with a host gpa and host
/// are not at the same place within a page, or the host unit of an assigned device does
/// not map such addresses; -EEXIST: overlaps a
/// region; -ENOSPC: more than 4096 regions; any other: the host could not map it.
/// Nothing is then registered.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_ram_add(
    unit: *mut NvtdUnit,
    gpa: u64,
    size: u64,
    host: *mut c_void,
    flags: u32,
) -> c_int {
    guard(|| {
        // SAFETY: C promises a live unit or NULL.
        let unit = unsafe { unit_ref(unit) }?;
        let read_only = match flags {
            0 => false,
            NVTD_RAM_READ_ONLY => true,
            other => {
                return Err(invalid(format!(
                    "flags {other:#x} has bits that are not defined; only NVTD_RAM_READ_ONLY is"
                )));
            }
        };
        // SAFETY: C promises that the memory is mapped until it is removed or the unit
        // is destroyed.
        let ram = unsafe { HostRam::new(host.cast(), size) };
        unit.ram_add(gpa, ram, read_only)
    })
}

/// Take back a region exactly as it was registered. When the call returns the
/// unit no longer touches the memory. Cached translations into it are dropped.
/// Any thread; not from inside a callback.
///
/// Returns 0; -EINVAL: unit is NULL; -ENOENT: no region has this gpa and size; any
/// other: the host could not unmap it. The region then stays registered.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_ram_remove(unit: *mut NvtdUnit, gpa: u64, size: u64) -> c_int {
    guard(|| {
        // SAFETY: C promises a live unit or NULL.
        unsafe { unit_ref(unit) }?.ram_remove(gpa, size)
    })
}

/// Add a device behind the unit; *device becomes its handle (never 0), valid
/// until nvtd_device_remove(). An assigned device starts on the host's nesting
/// parent, or where the guest's tables put it if translation is on. Any thread.
///
/// Returns 0; -EINVAL: a pointer is NULL, a `size` is wrong, an unknown flag, fields
/// that do not go together, NVTD_DEVICE_ASSIGNED while config.host is NVTD_HOST_NONE,
/// or the host lacks what the guest is offered (nvtd_last_error() names both values and
/// the property to change); -ENOSPC: more than 65536 devices; any other: a system call
/// was refused with it. The device is then as it was, but that it may have been bound.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_device_add(
    unit: *mut NvtdUnit,
    desc: *const NvtdDevice,
    device: *mut u32,
) -> c_int {
    guard(|| {
        // SAFETY: C promises a live unit or NULL.
        let unit = unsafe { unit_ref(unit) }?;
        if device.is_null() {
            return Err(invalid(
                "device is NULL; pass where to store the new handle",
            ));
        }
        let default = NvtdDevice {
            size: size_of::<NvtdDevice>(),
            tag: 0,
            source_id: 0,
            reserved: 0,
            flags: 0,
            iommufd: 0,
            device_fd: 0,
            dev_id: 0,
            reserved2: 0,
        };
        // SAFETY: C promises that `desc` is NULL or holds desc->size bytes.
        let desc = unsafe { read_sized(desc, "desc", default) }?;
        let handle = unit.device_add(DeviceDescription::from_c(&desc)?)?;
        // SAFETY: not NULL, and C promises that it can be written.
        unsafe { device.write(handle) };
        Ok(())
    })
}

/// Remove a device: it is detached from the host and its handle ends.
/// Translations for it that are under way on other threads still finish. Any thread.
///
/// Returns 0; -EINVAL: unit is NULL; -ENOENT: no such device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_device_remove(unit: *mut NvtdUnit, device: u32) -> c_int {
    guard(|| {
        // SAFETY: C promises a live unit or NULL.
        unsafe { unit_ref(unit) }?.device_remove(device)
    })
}

/// Say who keeps the device's translations and is to be told of invalidations
/// through NvtdOps.invalidate: flags are NVTD_NOTIFY_* bits, 0 for nobody. For
/// devices that the unit translates for; an assigned device's host flushes by itself.
/// Any thread, also from inside callbacks.
///
/// Returns 0; -EINVAL: unit is NULL or an unknown flag; -ENOENT: no such device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_device_notify(unit: *mut NvtdUnit, device: u32, flags: u32) -> c_int {
    guard(|| {
        // SAFETY: C promises a live unit or NULL.
        unsafe { unit_ref(unit) }?.device_notify(device, Notify::from_c(flags)?)
    })
}

/// Where is this device, and what became of its requests? Fills *info up to
/// info->size. Any thread, also from inside callbacks.
///
/// Returns 0; -EINVAL: a pointer is NULL or info->size is wrong; -ENOENT: no such
/// device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_device_info(
    unit: *mut NvtdUnit,
    device: u32,
    info: *mut NvtdDeviceInfo,
) -> c_int {
    guard(|| {
        // SAFETY: C promises a live unit or NULL.
        let found = unsafe { unit_ref(unit) }?.device_info(device)?;
        // SAFETY: C promises that `info` is NULL or points to info->size bytes.
        unsafe { write_sized(info, "info", found.into_c()) }
    })
}

/// The answer to plain DMA, field by field: what most requests are is not to wait for copies
/// of structures. False if it is none, or anything is not as it mostly is.
///
/// # Safety
/// As nvtd_translate().
#[inline]
unsafe fn translate_plain(
    unit: *const NvtdUnit,
    device: u32,
    request: *const NvtdRequest,
    out: *mut NvtdTranslation,
) -> bool {
    // SAFETY: a pointer that is not NULL can be read for at least a size.
    let (unit, sizes) = unsafe {
        if request.is_null() || out.is_null() {
            return false;
        }
        (unit.as_ref(), ((*request).size, (*out).size))
    };
    let Some(NvtdUnit { unit }) = unit else {
        return false;
    };
    if sizes != (size_of::<NvtdRequest>(), size_of::<NvtdTranslation>()) {
        return false;
    }
    // SAFETY: both have the size of the whole structure.
    let (request, out) = unsafe { (&*request, &mut *out) };
    let (read, write) = match request.flags {
        NVTD_REQUEST_READ => (true, false),
        NVTD_REQUEST_WRITE => (false, true),
        _ => return false,
    };
    if request.pasid != 0 {
        return false;
    }
    let address = request.address;
    let plain = match unit.look(device, address, read, write) {
        Ok(found) => {
            tell(found, out);
            return true;
        }
        Err(Some(known)) => unit.walk_plain(known, device, address, read, write),
        Err(None) => Plain::Unknown,
    };
    match plain {
        Plain::Found(leaf) => tell(leaf.told_plainly(), out),
        Plain::Answered(answer) => *out = answer.into_c(),
        Plain::Unknown => return false,
    }
    true
}

/// The answer that DMA is to go there.
#[inline(always)]
fn tell(found: Translation, out: &mut NvtdTranslation) {
    out.address = found.address;
    out.page_size = found.page_size;
    out.permissions = permission_bits(found.permissions);
    out.fault = 0;
    out.diagnostic = 0;
    out.flags = 0;
}

/// Where does this DMA go? Addresses of the interrupt range (0xfee00000 to
/// 0xfeefffff) are no DMA and must not be asked. A request that is refused is no
/// error: the call returns 0, out->fault holds the reason, and the fault has been
/// recorded and, if the guest wants it, signalled (not with NVTD_REQUEST_DEBUG).
/// Any thread, several at once; no lock of the VMM is needed. The answer holds
/// until the guest's invalidation of it completes.
///
/// Returns 0; -EINVAL: a pointer is NULL, a `size` is wrong or request->flags is
/// not a valid combination; -ENOENT: no such device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_translate(
    unit: *mut NvtdUnit,
    device: u32,
    request: *const NvtdRequest,
    out: *mut NvtdTranslation,
) -> c_int {
    // SAFETY: C promises live pointers or NULL, and that each structure has as many bytes as its size says.
    if unsafe { translate_plain(unit, device, request, out) } {
        return 0;
    }
    guard(|| {
        // SAFETY: C promises a live unit or NULL.
        let unit = unsafe { unit_ref(unit) }?;
        let default = NvtdRequest {
            size: size_of::<NvtdRequest>(),
            address: 0,
            flags: 0,
            pasid: 0,
        };
        // SAFETY: C promises that `request` is NULL or holds request->size bytes.
        let request = unsafe { read_sized(request, "request", default) }?;
        let answer = unit.translate_other(device, Request::from_c(&request)?)?;
        // SAFETY: C promises that `out` is NULL or points to out->size bytes.
        unsafe { write_sized(out, "out", answer.into_c()) }
    })
}

/// A device asks for a page, after a translation request that was answered with a
/// recoverable fault (PCI Express PRI). The request goes into the guest's page
/// request queue; the guest answers the group of requests later, through
/// NvtdOps.page_response. If the guest's tables do not let the device ask, or the
/// queue overflows, the request is dropped; if it is the last of its group the unit
/// answers by itself, from inside this call, with NVTD_PAGE_RESPONSE_INVALID or,
/// after an overflow, NVTD_PAGE_RESPONSE_SUCCESS. If the guest's invalidation queue
/// stopped for such an answer (a wait with PD) the call goes on with it, as
/// nvtd_mmio_write() does. Any thread, several at once.
///
/// Returns 0; -EINVAL: a pointer is NULL, a `size` is wrong, a field has an unknown
/// bit or value, or no device can ask so; -ENOENT: no such device; -EOPNOTSUPP: the
/// unit was made without NVTD_FEATURE_PAGE_REQUEST.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_page_request(
    unit: *mut NvtdUnit,
    device: u32,
    request: *const NvtdPageRequest,
) -> c_int {
    guard(|| {
        // SAFETY: C promises a live unit or NULL.
        let unit = unsafe { unit_ref(unit) }?;
        let default = NvtdPageRequest {
            size: size_of::<NvtdPageRequest>(),
            address: 0,
            flags: 0,
            pasid: 0,
            group: 0,
            reserved: 0,
            reserved2: 0,
        };
        // SAFETY: C promises that `request` is NULL or holds request->size bytes.
        let request = unsafe { read_sized(request, "request", default) }?;
        unit.page_request(device, PageRequest::from_c(&request)?)
    })
}

/// The unit's counters. Fills *stats up to stats->size. Any thread, also from
/// inside callbacks; counters that move at the same time may be of different
/// moments.
///
/// Returns 0, or -EINVAL: a pointer is NULL or stats->size is wrong.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_stats(unit: *mut NvtdUnit, stats: *mut NvtdStats) -> c_int {
    guard(|| {
        // SAFETY: C promises a live unit or NULL.
        let counted = unsafe { unit_ref(unit) }?.stats();
        // SAFETY: C promises that `stats` is NULL or points to stats->size bytes.
        unsafe { write_sized(stats, "stats", counted.into()) }
    })
}

#[cfg(test)]
mod tests;
