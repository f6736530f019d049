//! What the unit calls.

use core::ffi::{c_char, c_int, c_void};
use std::ffi::CStr;

use nested_vtd::ffi::types::{NvtdAttach, NvtdInvalidation, NvtdOps, NvtdPageResponse};

use super::world::World;

/// # Safety
/// `opaque` is the pointer of a world that is alive.
unsafe fn world<'a>(opaque: *mut c_void) -> &'a World {
    // SAFETY: as promised; worlds are only ever shared.
    unsafe { &*opaque.cast::<World>() }
}

unsafe extern "C" fn msi(opaque: *mut c_void, _address: u64, _data: u32) {
    // SAFETY: what was given to nvtd_unit_create().
    unsafe { world(opaque) }.react();
}

unsafe extern "C" fn log(opaque: *mut c_void, level: u32, message: *const c_char) {
    // SAFETY: valid during the call.
    let text = unsafe { CStr::from_ptr(message) };
    let text = text.to_str().expect("a line is UTF-8");
    assert!(
        level <= 2 && !text.is_empty() && !text.contains('\n'),
        "{level} {text:?}"
    );
    // The process is about to end.
    if !text.starts_with("internal error") {
        // SAFETY: what was given to nvtd_unit_create().
        unsafe { world(opaque) }.react();
    }
}

unsafe extern "C" fn event(opaque: *mut c_void, event: u32, _a: u64, _b: u64, _c: u64) {
    assert!((1..=40).contains(&event), "event {event}");
    // SAFETY: what was given to nvtd_unit_create().
    unsafe { world(opaque) }.react();
}

unsafe extern "C" fn source_id(opaque: *mut c_void, tag: u64) -> u16 {
    // SAFETY: what was given to nvtd_unit_create().
    let world = unsafe { world(opaque) };
    // Now and then the guest has renumbered its buses.
    if world.next() > 250 {
        return u16::from(world.next());
    }
    (tag & 0xffff) as u16
}

unsafe extern "C" fn iec_invalidate(opaque: *mut c_void, global: u32, index: u32, mask: u32) {
    assert!(
        global <= 1 && index <= 0xffff && mask <= 15,
        "{global} {index} {mask}"
    );
    assert!(global == 0 || (index, mask) == (0, 0));
    // SAFETY: what was given to nvtd_unit_create().
    unsafe { world(opaque) }.react();
}

unsafe extern "C" fn page_response(opaque: *mut c_void, response: *const NvtdPageResponse) {
    // SAFETY: valid during the call.
    let response = unsafe { *response };
    assert_eq!(response.size, size_of::<NvtdPageResponse>());
    assert!(matches!(response.code, 0 | 1 | 15) && response.group < 512 && response.flags <= 1);
    // SAFETY: what was given to nvtd_unit_create().
    unsafe { world(opaque) }.react();
}

unsafe extern "C" fn invalidate(opaque: *mut c_void, told: *const NvtdInvalidation) -> c_int {
    // SAFETY: valid during the call.
    let told = unsafe { *told };
    assert_eq!(
        (told.size, told.reserved),
        (size_of::<NvtdInvalidation>(), 0)
    );
    assert!(told.address <= told.last && told.address % 4096 == 0 && told.flags < 8);
    // SAFETY: what was given to nvtd_unit_create().
    let world = unsafe { world(opaque) };
    world.react();
    match world.next() {
        251 => -libc::ETIMEDOUT,
        252 => -libc::EIO,
        253 => 5,
        254 => c_int::MIN,
        _ => 0,
    }
}

unsafe extern "C" fn attach(opaque: *mut c_void, attach: *const NvtdAttach) -> c_int {
    // SAFETY: valid during the call.
    let attach = unsafe { *attach };
    assert_eq!((attach.size, attach.reserved), (size_of::<NvtdAttach>(), 0));
    assert!(attach.flags < 4 && attach.pasid < 1 << 20);
    // SAFETY: what was given to nvtd_unit_create().
    match unsafe { world(opaque) }.next() {
        240..248 => -libc::EINVAL,
        248 => 7,
        249 => c_int::MIN,
        _ => 0,
    }
}

unsafe extern "C" fn watch(opaque: *mut c_void, _fd: c_int, on: u32) {
    assert!(on <= 1);
    // SAFETY: what was given to nvtd_unit_create().
    unsafe { world(opaque) }.react();
}

unsafe extern "C" fn wants_events(opaque: *mut c_void) -> u32 {
    // SAFETY: what was given to nvtd_unit_create().
    u32::from(unsafe { world(opaque) }.next() & 1)
}

unsafe extern "C" fn more_work(opaque: *mut c_void) {
    // SAFETY: what was given to nvtd_unit_create().
    unsafe { world(opaque) }.next();
}

/// All callbacks but those that `without` has a bit for.
pub fn ops(without: u32) -> NvtdOps {
    let there = |bit: u32| without >> bit & 1 == 0;
    NvtdOps {
        size: size_of::<NvtdOps>(),
        msi: there(0).then_some(msi),
        log: there(1).then_some(log),
        event: there(2).then_some(event),
        source_id: there(3).then_some(source_id),
        iec_invalidate: there(4).then_some(iec_invalidate),
        page_response: there(5).then_some(page_response),
        invalidate: there(6).then_some(invalidate),
        attach: there(7).then_some(attach),
        watch: there(8).then_some(watch),
        wants_events: there(9).then_some(wants_events),
        more_work: there(10).then_some(more_work),
    }
}
