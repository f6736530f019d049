//! The twin in the C ABI: a software kernel that a program can be tested with.

pub mod types;

use core::ffi::{c_int, c_void};
use std::sync::Arc;

use self::types::*;
use super::convert::{only, permission_bits};
use super::error::{fail, guard, invalid};
use super::outstruct::{read_sized, write_sized};
use super::types::*;
use crate::host::HwInfo;
use crate::host::soft::{
    Dma, DmaFault, Injection, Kernel, Quirks, Twin, TwinConfig, TwinDevice, TwinPageRequest,
    TwinRequest,
};
use crate::spec::fault::FaultReason;
use crate::spec::registers::{Cap, Ecap};
use crate::translate::tables::Purpose;
use crate::translate::{Access, Diagnostic};
use crate::unit::{PageRequest, Request, RequestKind};
use crate::{Error, Result};

/// Most IOMMUs of a twin.
const MAX_IOMMUS: u32 = 64;

/// A twin of the kernel's iommufd and vfio, and the VT-d hardware below it: opaque,
/// made by nvtd_twin_create() and ended by nvtd_twin_destroy(). It answers the ioctls
/// of <linux/iommufd.h> and <linux/vfio.h> as Linux does, so that what drives
/// /dev/iommu can be tested where there is none.
pub struct NvtdTwin {
    pub(super) twin: Arc<Twin>,
}

/// The twin behind a pointer from C, or the error that says it is NULL.
///
/// # Safety
/// `twin` is NULL or came from nvtd_twin_create() and was not yet destroyed.
unsafe fn twin_ref<'a>(twin: *const NvtdTwin) -> Result<&'a Twin> {
    // SAFETY: the caller promises that a pointer that is not NULL is alive.
    match unsafe { twin.as_ref() } {
        Some(handle) => Ok(&handle.twin),
        None => Err(invalid(
            "twin is NULL; pass the pointer that nvtd_twin_create() stored",
        )),
    }
}

/// Give a number that is not negative, or -errno.
fn number(body: impl FnOnce() -> Result<i64>) -> i64 {
    match body() {
        Ok(value) => value,
        Err(error) => fail(&error).into(),
    }
}

fn number_int(body: impl FnOnce() -> Result<i64>) -> c_int {
    c_int::try_from(number(body)).unwrap_or(c_int::MAX)
}

/// What a system call of the twin gave, as an error of this interface.
fn errno(what: &'static str, fd: c_int) -> impl Fn(i32) -> Error {
    move |errno| {
        let why = std::io::Error::from_raw_os_error(errno);
        Error::new(
            errno,
            format!("the twin answers {what} of file {fd}: {why}"),
        )
    }
}

fn kernel_of(kernel: u32) -> Result<Kernel> {
    match kernel {
        NVTD_TWIN_LINUX_7_3 => Ok(Kernel::V7_3),
        NVTD_TWIN_LINUX_6_12 => Ok(Kernel::V6_12),
        other => Err(invalid(format!(
            "config->kernel is {other}; use NVTD_TWIN_LINUX_7_3 or NVTD_TWIN_LINUX_6_12"
        ))),
    }
}

fn quirks_of(off: u64) -> Result<Quirks> {
    only("config->quirks_off", off, 0x1ff)?;
    let on = |bit| off & bit == 0;
    Ok(Quirks {
        failed_attach_blocks: on(NVTD_TWIN_QUIRK_FAILED_ATTACH_BLOCKS),
        same_hwpt_ignored: on(NVTD_TWIN_QUIRK_SAME_HWPT_IGNORED),
        wide_invalidation: on(NVTD_TWIN_QUIRK_WIDE_INVALIDATION),
        read_only_refused: on(NVTD_TWIN_QUIRK_READ_ONLY_REFUSED),
        first_stage_default: on(NVTD_TWIN_QUIRK_FIRST_STAGE_DEFAULT),
        pasid_zero_is_rid: on(NVTD_TWIN_QUIRK_PASID_ZERO),
        pasid_of_none_ignored: on(NVTD_TWIN_QUIRK_PASID_OF_NONE),
        fault_flag_leaks: on(NVTD_TWIN_QUIRK_FAULT_FLAG),
        failed_replace_unreserves: on(NVTD_TWIN_QUIRK_UNRESERVE),
    })
}

/// # Safety
/// `config.iommus` is NULL or points to as many as `config.iommu_count` says.
unsafe fn config_of(config: &NvtdTwinConfig) -> Result<TwinConfig> {
    only("config->flags", config.flags, NVTD_TWIN_UNSAFE_INTERRUPTS)?;
    let mut wanted = TwinConfig {
        kernel: kernel_of(config.kernel)?,
        quirks: quirks_of(config.quirks_off)?,
        unsafe_interrupts: config.flags & NVTD_TWIN_UNSAFE_INTERRUPTS != 0,
        ..TwinConfig::default()
    };
    if config.iommus.is_null() {
        only(
            "config->iommu_count without config->iommus",
            config.iommu_count.into(),
            0,
        )?;
        return Ok(wanted);
    }
    if !(1..=MAX_IOMMUS).contains(&config.iommu_count) {
        return Err(invalid(format!(
            "config->iommu_count is {}; a twin has 1 to {MAX_IOMMUS} IOMMUs, or iommus is NULL",
            config.iommu_count
        )));
    }
    // SAFETY: as promised by the caller.
    let iommus = unsafe { core::slice::from_raw_parts(config.iommus, config.iommu_count as usize) };
    wanted.iommus = iommus
        .iter()
        .map(|iommu| HwInfo {
            cap: Cap::from_bits(iommu.cap),
            ecap: Ecap::from_bits(iommu.ecap),
        })
        .collect();
    Ok(wanted)
}

/// Make a twin and store it in *twin. `config` may be NULL for Linux 7.3 with one
/// IOMMU that can do everything. Any thread.
///
/// Returns 0, or -EINVAL: twin is NULL, config->size is wrong or a field has an
/// unknown bit or value. *twin is then NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_twin_create(
    config: *const NvtdTwinConfig,
    twin: *mut *mut NvtdTwin,
) -> c_int {
    guard(|| {
        if twin.is_null() {
            return Err(invalid("twin is NULL; pass where to store the new twin"));
        }
        // SAFETY: `twin` is not NULL and C promises that it can be written.
        unsafe { twin.write(core::ptr::null_mut()) };
        let default = NvtdTwinConfig {
            size: size_of::<NvtdTwinConfig>(),
            iommus: core::ptr::null(),
            iommu_count: 0,
            kernel: NVTD_TWIN_LINUX_7_3,
            quirks_off: 0,
            flags: 0,
        };
        let config = if config.is_null() {
            default
        } else {
            // SAFETY: C promises that `config` holds config->size bytes.
            unsafe { read_sized(config, "config", default) }?
        };
        // SAFETY: C promises that the array is as long as its count says.
        let made = Twin::new(unsafe { config_of(&config) }?);
        let handle = Box::new(NvtdTwin {
            twin: Arc::new(made),
        });
        // SAFETY: as above.
        unsafe { twin.write(Box::into_raw(handle)) };
        Ok(())
    })
}

/// End a twin, and with it all files that are still open. NULL is allowed and does
/// nothing. A unit that was made with it (NvtdConfig.twin) keeps it alive for itself.
/// The caller makes sure that no other call with this pointer is under way.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_twin_destroy(twin: *mut NvtdTwin) {
    if !twin.is_null() {
        // SAFETY: C promises that the pointer came from nvtd_twin_create() and that this
        // is its last use.
        drop(unsafe { Box::from_raw(twin) });
    }
}

/// open("/dev/iommu"). Files of a twin are for nvtd_twin_ioctl() and so on, and no file
/// descriptors of the process, except fault queues: these are, so that they can be
/// polled, but all else goes through the twin. Any thread.
///
/// Returns the file, or -EINVAL: twin is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_twin_open(twin: *mut NvtdTwin) -> c_int {
    // SAFETY: C promises a live twin or NULL.
    number_int(|| Ok(unsafe { twin_ref(twin) }?.open().into()))
}

/// Plug in a device and open its vfio file. Closing the file
/// unplugs it. Any thread.
///
/// Returns the file, or -EINVAL: a pointer is NULL, device->size is wrong, or a field
/// has a value that no device has.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_twin_device(
    twin: *mut NvtdTwin,
    device: *const NvtdTwinDevice,
) -> c_int {
    number_int(|| {
        // SAFETY: C promises a live twin or NULL.
        let twin = unsafe { twin_ref(twin) }?;
        let default = NvtdTwinDevice {
            size: size_of::<NvtdTwinDevice>(),
            iommu: 0,
            max_pasid_bits: 0,
            flags: 0,
            group: 0,
        };
        // SAFETY: C promises that `device` is NULL or holds device->size bytes.
        let device = unsafe { read_sized(device, "device", default) }?;
        let known = NVTD_TWIN_DEVICE_ATS | NVTD_TWIN_DEVICE_PRI;
        only("device->flags", device.flags.into(), known.into())?;
        let description = TwinDevice {
            iommu: device.iommu as usize,
            max_pasid_bits: device.max_pasid_bits,
            ats: device.flags & NVTD_TWIN_DEVICE_ATS != 0,
            pri: device.flags & NVTD_TWIN_DEVICE_PRI != 0,
            group: device.group,
        };
        let fd = twin.add_device(description).map_err(|errno| {
            Error::new(
                errno,
                "a device is behind one of config->iommus, as its group is, has at most 20 PASID \
                 bits, and PRI only with ATS",
            )
        })?;
        Ok(fd.into())
    })
}

/// ioctl(2) on a file of the twin. `argument` and the addresses inside of it are read
/// and written as the kernel does: what is not mapped is -EFAULT. Memory that is mapped
/// with IOMMU_IOAS_MAP must stay mapped in the process until it is unmapped there. Any
/// thread.
///
/// Returns what the kernel would: 0 or more, or -errno.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_twin_ioctl(
    twin: *mut NvtdTwin,
    fd: c_int,
    request: u32,
    argument: *mut c_void,
) -> c_int {
    number_int(|| {
        // SAFETY: C promises a live twin or NULL.
        let twin = unsafe { twin_ref(twin) }?;
        let address = argument.expose_provenance() as u64;
        let result = twin.ioctl(fd, request, address);
        result.map(i64::from).map_err(errno("an ioctl", fd))
    })
}

/// read(2) on a file of the twin, that is on a fault queue. Any thread.
///
/// Returns the bytes read, or -errno.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_twin_read(
    twin: *mut NvtdTwin,
    fd: c_int,
    buffer: *mut c_void,
    length: usize,
) -> i64 {
    number(|| {
        // SAFETY: C promises a live twin or NULL.
        let twin = unsafe { twin_ref(twin) }?;
        let address = buffer.expose_provenance() as u64;
        let result = twin.read_to(fd, address, length);
        result.map(|read| read as i64).map_err(errno("read", fd))
    })
}

/// write(2) on a file of the twin, that is on a fault queue. Any thread.
///
/// Returns the bytes written, or -errno.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_twin_write(
    twin: *mut NvtdTwin,
    fd: c_int,
    buffer: *const c_void,
    length: usize,
) -> i64 {
    number(|| {
        // SAFETY: C promises a live twin or NULL.
        let twin = unsafe { twin_ref(twin) }?;
        let address = buffer.expose_provenance() as u64;
        let result = twin.write_from(fd, address, length);
        result
            .map(|written| written as i64)
            .map_err(errno("write", fd))
    })
}

/// What is a file of the twin ready for? Any thread.
///
/// Returns POLLIN and so on, or -EBADF: the twin has no such file; -EINVAL: twin is
/// NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_twin_poll(twin: *mut NvtdTwin, fd: c_int) -> c_int {
    number_int(|| {
        // SAFETY: C promises a live twin or NULL.
        let twin = unsafe { twin_ref(twin) }?;
        twin.poll(fd).map(i64::from).map_err(errno("poll", fd))
    })
}

/// close(2) on a file of the twin. Closing a device detaches and unplugs it. Any thread.
///
/// Returns 0, or -EBADF: the twin has no such file; -EINVAL: twin is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_twin_close(twin: *mut NvtdTwin, fd: c_int) -> c_int {
    guard(|| {
        // SAFETY: C promises a live twin or NULL.
        let twin = unsafe { twin_ref(twin) }?;
        twin.close(fd).map_err(errno("close", fd))
    })
}

/// A DMA request of a device arrives at the hardware. The answer's address is the one
/// in the IOAS that the device, or the PASID, is attached to. A request that is refused
/// is no error: the call returns 0 and out->fault holds the reason; 59h (the PASID entry
/// is not present) if the device or PASID is attached to nothing, or is blocked.
/// out->flags has NVTD_TRANSLATION_CACHED and NVTD_TRANSLATION_STALE. Any thread, several at once.
///
/// Returns 0, or -EINVAL: a pointer is NULL, a `size` is wrong or request->flags is not
/// a valid combination; -EBADF: the twin has no such device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_twin_dma(
    twin: *mut NvtdTwin,
    device_fd: c_int,
    request: *const NvtdRequest,
    out: *mut NvtdTranslation,
) -> c_int {
    guard(|| {
        // SAFETY: C promises a live twin or NULL.
        let twin = unsafe { twin_ref(twin) }?;
        let default = NvtdRequest {
            size: size_of::<NvtdRequest>(),
            address: 0,
            flags: 0,
            pasid: 0,
        };
        // SAFETY: C promises that `request` is NULL or holds request->size bytes.
        let request = unsafe { read_sized(request, "request", default) }?;
        let request = Request::from_c(&request)?;
        if !twin.is_device(device_fd) {
            return Err(errno("a DMA request", device_fd)(libc::EBADF));
        }
        let dma = twin.dma(device_fd, &dma_request(&request));
        // SAFETY: C promises that `out` is NULL or points to out->size bytes.
        unsafe { write_sized(out, "out", dma_answer(&dma)) }
    })
}

fn dma_request(request: &Request) -> TwinRequest {
    TwinRequest {
        address: request.address,
        pasid: request.pasid,
        access: Access::new()
            .with_read(request.read)
            .with_write(request.write)
            .with_execute(request.execute)
            .with_privileged(request.privileged)
            .with_look(request.debug),
        kind: match request.kind {
            RequestKind::Untranslated => Purpose::Untranslated,
            RequestKind::Translation => Purpose::Translation,
            RequestKind::Translated => Purpose::Translated,
        },
    }
}

fn dma_answer(dma: &Dma) -> NvtdTranslation {
    let flag = |set: bool, flag: u32| if set { flag } else { 0 };
    let refused = |reason: FaultReason, diagnostic: Diagnostic| NvtdTranslation {
        size: size_of::<NvtdTranslation>(),
        address: 0,
        page_size: crate::spec::PAGE_SIZE,
        permissions: 0,
        fault: reason.code().into(),
        diagnostic: diagnostic as u32,
        flags: 0,
    };
    match dma.result {
        Ok(found) => NvtdTranslation {
            size: size_of::<NvtdTranslation>(),
            address: found.address,
            page_size: found.page_size,
            permissions: permission_bits(found.permissions),
            fault: 0,
            diagnostic: 0,
            flags: flag(dma.cache_hit, NVTD_TRANSLATION_CACHED)
                | flag(dma.stale, NVTD_TRANSLATION_STALE),
        },
        Err(DmaFault::Blocked) => {
            refused(FaultReason::PasidNotPresent, Diagnostic::PasidNotPresent)
        }
        Err(DmaFault::Table(fault)) => refused(fault.reason, fault.diagnostic),
    }
}

/// A device requests a page. The request goes to the fault queue of the HWPT it is
/// attached to, or is answered at once if there is none. Any thread.
///
/// Returns 0, or -EINVAL: a pointer is NULL, a `size` is wrong or a field has an unknown
/// bit or value; -EBADF: the twin has no such device; -EOPNOTSUPP: it, or its IOMMU, has
/// no page requests.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_twin_page_request(
    twin: *mut NvtdTwin,
    device_fd: c_int,
    request: *const NvtdPageRequest,
) -> c_int {
    guard(|| {
        // SAFETY: C promises a live twin or NULL.
        let twin = unsafe { twin_ref(twin) }?;
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
        let request = PageRequest::from_c(&request)?;
        let request = TwinPageRequest {
            address: request.address,
            pasid: request.pasid,
            group: request.group,
            read: request.read,
            write: request.write,
            execute: request.execute,
            privileged: request.privileged,
            last: request.last,
        };
        twin.page_request(device_fd, request)
            .map_err(errno("a page request", device_fd))
    })
}

/// Fetch the oldest answer that a device got to its page requests. Fills *out up to
/// out->size; out->tag and out->device are 0. Any thread.
///
/// Returns 0, or -EAGAIN: there is none; -EINVAL: a pointer is NULL or out->size is
/// wrong; -EBADF: the twin has no such device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_twin_page_response(
    twin: *mut NvtdTwin,
    device_fd: c_int,
    out: *mut NvtdPageResponse,
) -> c_int {
    guard(|| {
        // SAFETY: C promises a live twin or NULL.
        let twin = unsafe { twin_ref(twin) }?;
        let answer = twin
            .page_response(device_fd)
            .map_err(errno("a look for page responses", device_fd))?
            .ok_or(Error::new(
                libc::EAGAIN,
                "the device got no answer that was not fetched; answer its group first",
            ))?;
        let response = NvtdPageResponse {
            size: size_of::<NvtdPageResponse>(),
            tag: 0,
            device: 0,
            flags: match answer.pasid {
                Some(_) => NVTD_PAGE_RESPONSE_PASID,
                None => 0,
            },
            pasid: answer.pasid.unwrap_or(0),
            group: answer.group,
            // The numbers are those of the specification in both places.
            code: u16::try_from(answer.code).unwrap_or(NVTD_PAGE_RESPONSE_FAILURE),
        };
        // SAFETY: C promises that `out` is NULL or points to out->size bytes.
        unsafe { write_sized(out, "out", response) }
    })
}

/// Let ioctls fail. Several injections count side by side; the first that is due
/// decides. A call fails after its structure was read and before anything is done. NULL
/// takes back all that have not fired. Any thread.
///
/// Returns 0, or -EINVAL: twin is NULL, injection->size is wrong, times is 0, error is
/// none, or flags has an unknown bit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_twin_inject(
    twin: *mut NvtdTwin,
    injection: *const NvtdTwinInjection,
) -> c_int {
    guard(|| {
        // SAFETY: C promises a live twin or NULL.
        let twin = unsafe { twin_ref(twin) }?;
        if injection.is_null() {
            twin.clear_injections();
            return Ok(());
        }
        let default = NvtdTwinInjection {
            size: size_of::<NvtdTwinInjection>(),
            skip: 0,
            times: 0,
            request: 0,
            error: 0,
            handled: 0,
            flags: 0,
        };
        // SAFETY: C promises that `injection` holds injection->size bytes.
        let injection = unsafe { read_sized(injection, "injection", default) }?;
        only(
            "injection->flags",
            injection.flags.into(),
            NVTD_TWIN_INJECT_BLOCKED.into(),
        )?;
        if injection.times == 0 || !(1..4096).contains(&injection.error) {
            return Err(invalid(format!(
                "injection->times is {} and injection->error {}; at least one call fails, with a \
                 positive errno",
                injection.times, injection.error
            )));
        }
        twin.inject(Injection {
            skip: injection.skip,
            request: (injection.request != 0).then_some(injection.request),
            errno: i32::try_from(injection.error).unwrap_or(libc::EINVAL),
            handled: injection.handled,
            blocked: injection.flags & NVTD_TWIN_INJECT_BLOCKED != 0,
            times: injection.times,
        });
        Ok(())
    })
}

/// Take those who make system calls for a user without privileges, who may have
/// `locked` bytes pinned (RLIMIT_MEMLOCK), instead of root; UINT64_MAX for root again.
/// Any thread.
///
/// Returns 0, or -EINVAL: twin is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_twin_limit(twin: *mut NvtdTwin, locked: u64) -> c_int {
    guard(|| {
        // SAFETY: C promises a live twin or NULL.
        let twin = unsafe { twin_ref(twin) }?;
        twin.set_limit((locked != u64::MAX).then_some(locked));
        Ok(())
    })
}

/// Fill *stats up to stats->size. Any thread.
///
/// Returns 0, or -EINVAL: a pointer is NULL or stats->size is wrong.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_twin_stats(twin: *mut NvtdTwin, stats: *mut NvtdTwinStats) -> c_int {
    guard(|| {
        // SAFETY: C promises a live twin or NULL.
        let found = unsafe { twin_ref(twin) }?.stats();
        // SAFETY: C promises that `stats` is NULL or points to stats->size bytes.
        unsafe { write_sized(stats, "stats", (&found).into()) }
    })
}

/// How many ioctls were made with this number, failed ones included? Any thread.
///
/// Returns the number of calls, or -EINVAL: twin is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_twin_calls(twin: *mut NvtdTwin, request: u32) -> i64 {
    number(|| {
        // SAFETY: C promises a live twin or NULL.
        let count = unsafe { twin_ref(twin) }?.count(request);
        Ok(i64::try_from(count.calls).unwrap_or(i64::MAX))
    })
}
