//! Errors on their way to C: -errno, and the sentence per thread.

use core::ffi::{c_char, c_int};
use std::borrow::Cow;
use std::cell::RefCell;
use std::ffi::CString;

use crate::{Error, Result};

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// Run the body of a function of the C ABI.
pub(super) fn guard(body: impl FnOnce() -> Result<()>) -> c_int {
    match body() {
        Ok(()) => 0,
        Err(error) => fail(&error),
    }
}

/// Remember the sentence, give -errno.
pub(super) fn fail(error: &Error) -> c_int {
    let text = error.to_string().replace('\0', "");
    LAST.with(|last| *last.borrow_mut() = CString::new(text).unwrap_or_default());
    error.errno().saturating_neg()
}

/// The sentence of this thread's last error.
pub(super) fn last() -> *const c_char {
    LAST.with(|last| last.borrow().as_ptr())
}

/// `EINVAL` with a sentence.
pub(super) fn invalid(message: impl Into<Cow<'static, str>>) -> Error {
    Error::invalid(message)
}
