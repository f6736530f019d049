//! What cannot be shown from C: a panic's last words.

use core::ffi::CStr;
use std::sync::Mutex;

use super::*;

unsafe extern "C" fn msi(_opaque: *mut c_void, _address: u64, _data: u32) {}

/// Keeps what it is told; `opaque` is a `Mutex<Vec<String>>`.
unsafe extern "C" fn log(opaque: *mut c_void, _level: u32, message: *const c_char) {
    // SAFETY: the test passes its list as `opaque`, and the unit a C string.
    let (lines, text) = unsafe {
        (
            &*opaque.cast::<Mutex<Vec<String>>>(),
            CStr::from_ptr(message),
        )
    };
    lines
        .lock()
        .unwrap()
        .push(text.to_string_lossy().into_owned());
}

#[test]
fn a_panic_is_told_to_the_log_of_units_that_live() {
    let lines = Mutex::new(Vec::<String>::new());
    let opaque = (&raw const lines).cast_mut().cast::<c_void>();
    let ops = NvtdOps {
        size: size_of::<NvtdOps>(),
        msi: Some(msi),
        log: Some(log),
        event: None,
        source_id: None,
    };
    let mut unit = core::ptr::null_mut();
    // SAFETY: all pointers are valid; `lines` outlives the unit.
    let created = unsafe { nvtd_unit_create(core::ptr::null(), &ops, opaque, &mut unit) };
    assert_eq!(created, 0);
    let told = |word: &str| lines.lock().unwrap().iter().any(|line| line.contains(word));

    std::panic::catch_unwind(|| panic!("last words")).unwrap_err();
    assert!(told("last words") && told("src/ffi/tests.rs"));

    // SAFETY: the unit's last use.
    unsafe { nvtd_unit_destroy(unit) };
    std::panic::catch_unwind(|| panic!("nobody listens")).unwrap_err();
    assert!(!told("nobody listens"));
}
