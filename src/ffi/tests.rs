//! What cannot be shown from C: a panic's last words.

use core::ffi::CStr;
use std::sync::Mutex;

use super::*;
use crate::unit::Features;

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
        iec_invalidate: None,
        page_response: None,
        invalidate: None,
        attach: None,
        watch: None,
        wants_events: None,
        more_work: None,
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

#[test]
fn feature_bits_are_those_of_the_unit() {
    let f = Features::new;
    let table = [
        (NVTD_FEATURE_CACHING_MODE, f().with_caching_mode(true)),
        (NVTD_FEATURE_FS1GP, f().with_first_stage_1g(true)),
        (NVTD_FEATURE_PASS_THROUGH, f().with_pass_through(true)),
        (NVTD_FEATURE_SCALABLE_MODE, f().with_scalable_mode(true)),
        (NVTD_FEATURE_FIRST_STAGE, f().with_first_stage(true)),
        (NVTD_FEATURE_SECOND_STAGE, f().with_second_stage(true)),
        (NVTD_FEATURE_NESTED, f().with_nested(true)),
        (NVTD_FEATURE_SECOND_STAGE_2M, f().with_second_stage_2m(true)),
        (NVTD_FEATURE_SECOND_STAGE_1G, f().with_second_stage_1g(true)),
        (NVTD_FEATURE_SNOOP_CONTROL, f().with_snoop_control(true)),
        (
            NVTD_FEATURE_SECOND_STAGE_AD,
            f().with_second_stage_accessed_dirty(true),
        ),
        (NVTD_FEATURE_DEVICE_TLB, f().with_device_tlb(true)),
        (NVTD_FEATURE_PAGE_REQUEST, f().with_page_request(true)),
        (
            NVTD_FEATURE_INTERRUPT_REMAPPING,
            f().with_interrupt_remapping(true),
        ),
        (
            NVTD_FEATURE_EXTENDED_INTERRUPT_MODE,
            f().with_extended_interrupt_mode(true),
        ),
        (
            NVTD_FEATURE_EXTENDED_ACCESSED,
            f().with_extended_accessed(true),
        ),
        (
            NVTD_FEATURE_SUPERVISOR_REQUEST,
            f().with_supervisor_request(true),
        ),
        (NVTD_FEATURE_EXECUTE_REQUEST, f().with_execute_request(true)),
        (NVTD_FEATURE_RID_PASID, f().with_rid_pasid(true)),
        (NVTD_FEATURE_ABORT_DMA, f().with_abort_dma(true)),
    ];
    let mut all = 0;
    for (bit, features) in table {
        assert_eq!(bit, features.into_bits(), "{features:?}");
        all |= bit;
    }
    assert_eq!(all, Features::DEFINED);
}
