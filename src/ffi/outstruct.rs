//! Structures that start with `size` and grow at the end.
//!
//! The caller's `size` is sizeof as the caller was compiled. What an older caller
//! does not have is left out or takes its default; what a newer caller has and
//! this library does not know must be 0.

use crate::ffi::dump::NvtdDump;
use crate::ffi::error::invalid;
use crate::ffi::interrupt::{NvtdMsi, NvtdMsiAnswer};
use crate::ffi::twin::types::{NvtdTwinConfig, NvtdTwinDevice, NvtdTwinInjection, NvtdTwinStats};
use crate::ffi::types::{
    NvtdConfig, NvtdDevice, NvtdDeviceInfo, NvtdOps, NvtdPageRequest, NvtdPageResponse,
    NvtdRequest, NvtdStats, NvtdTranslation,
};
use crate::{Error, Result};

/// A structure of the C ABI whose first field is `size: usize`.
///
/// # Safety
/// The type is `repr(C)`, starts with a `usize`, has no padding that matters, and
/// every bit pattern is a valid value of it (for function pointers: every one that
/// C can hand over).
pub(super) unsafe trait SizedStruct: Copy {}

macro_rules! sized {
    ($($name:ty),*) => {
        // SAFETY: these are the repr(C) structures of `types.rs`, which consist of
        // integers, pointers and optional function pointers and start with `size`.
        $(unsafe impl SizedStruct for $name {})*
    };
}

sized!(
    NvtdConfig,
    NvtdDevice,
    NvtdDeviceInfo,
    NvtdDump,
    NvtdMsi,
    NvtdMsiAnswer,
    NvtdOps,
    NvtdPageRequest,
    NvtdPageResponse,
    NvtdRequest,
    NvtdStats,
    NvtdTranslation,
    NvtdTwinConfig,
    NvtdTwinDevice,
    NvtdTwinInjection,
    NvtdTwinStats
);

/// The smallest `size`: itself and the field after it.
const SMALLEST: usize = 16;

/// The largest `size` that can be meant: more is a caller's mistake.
const LARGEST: usize = 1 << 16;

/// Read and judge the `size` at the start of a structure.
///
/// # Safety
/// `pointer` is NULL or can be read for at least a `usize`.
#[inline]
unsafe fn size_at<T: SizedStruct>(pointer: *const T, name: &str) -> Result<usize> {
    if pointer.is_null() {
        return Err(no_structure(name));
    }
    // SAFETY: the caller promises that the leading `size` can be read.
    let size = unsafe { pointer.cast::<usize>().read() };
    if (SMALLEST..=LARGEST).contains(&size) {
        Ok(size)
    } else {
        Err(wrong_size(name, size, size_of::<T>()))
    }
}

#[cold]
fn no_structure(name: &str) -> Error {
    invalid(format!(
        "{name} is NULL; pass a structure with its size set"
    ))
}

#[cold]
fn wrong_size(name: &str, size: usize, right: usize) -> Error {
    invalid(format!(
        "{name}->size is {size}; set it to sizeof the structure, which is {right} here"
    ))
}

/// Copy a structure of the caller's size over `default`.
///
/// # Errors
/// `EINVAL`: NULL, a size that cannot be meant, or unknown trailing fields that
/// are not 0.
///
/// # Safety
/// `pointer` is NULL or can be read for as many bytes as its `size` says.
#[inline]
pub(super) unsafe fn read_sized<T: SizedStruct>(
    pointer: *const T,
    name: &str,
    default: T,
) -> Result<T> {
    // SAFETY: as promised by the caller.
    let size = unsafe { size_at(pointer, name) }?;
    if size == size_of::<T>() {
        // SAFETY: the whole structure can be read, and T is valid for what C writes there.
        return Ok(unsafe { pointer.read() });
    }
    // SAFETY: as promised by the caller.
    unsafe { read_other(pointer, name, default, size) }
}

/// The same of a structure whose size is not ours.
///
/// # Safety
/// `pointer` can be read for `size` bytes.
#[cold]
unsafe fn read_other<T: SizedStruct>(
    pointer: *const T,
    name: &str,
    default: T,
    size: usize,
) -> Result<T> {
    let known = size.min(size_of::<T>());
    for offset in known..size {
        // SAFETY: `offset` is below the size that the caller promises to be readable.
        if unsafe { pointer.cast::<u8>().add(offset).read() } != 0 {
            return Err(invalid(format!(
                "{name} has a value at byte {offset} that this library does not know; it knows \
                 {} bytes, leave the rest 0",
                size_of::<T>()
            )));
        }
    }
    let mut value = default;
    // SAFETY: both sides hold `known` bytes, and T is valid for what C writes there.
    unsafe {
        core::ptr::copy_nonoverlapping(pointer.cast::<u8>(), (&raw mut value).cast::<u8>(), known);
    }
    Ok(value)
}

/// Copy `value` into a structure of the caller's size, leaving its `size` as it is.
///
/// # Errors
/// `EINVAL`: NULL or a size that cannot be meant.
///
/// # Safety
/// `pointer` is NULL or can be read and written for as many bytes as its `size`
/// says.
#[inline]
pub(super) unsafe fn write_sized<T: SizedStruct>(
    pointer: *mut T,
    name: &str,
    value: T,
) -> Result<()> {
    // SAFETY: as promised by the caller.
    let size = unsafe { size_at(pointer, name) }?;
    let skip = size_of::<usize>();
    let known = size.min(size_of::<T>());
    if known == size_of::<T>() {
        // SAFETY: the whole structure can be written; its size is as it was.
        unsafe {
            core::ptr::copy_nonoverlapping(
                (&raw const value).cast::<u8>().add(skip),
                pointer.cast::<u8>().add(skip),
                size_of::<T>().saturating_sub(skip),
            );
        }
        return Ok(());
    }
    // SAFETY: both sides hold `known` bytes, which is more than `skip`.
    unsafe {
        core::ptr::copy_nonoverlapping(
            (&raw const value).cast::<u8>().add(skip),
            pointer.cast::<u8>().add(skip),
            known.saturating_sub(skip),
        );
    }
    Ok(())
}
