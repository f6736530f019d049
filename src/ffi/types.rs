//! Types of the C ABI. Their documentation is written for the reader of the
//! generated header: C first, Rust second.

use core::ffi::{c_char, c_int, c_void};

use crate::ffi::twin::NvtdTwin;

/// Version of this interface: major in the upper 16 bits, minor in the lower.
/// A caller refuses to run when nvtd_abi_version() reports another major number.
pub const NVTD_ABI_VERSION: u32 = 0x0001_0000;

/// Size in bytes of the register window that nvtd_mmio_read() and
/// nvtd_mmio_write() serve; map it page-aligned.
pub const NVTD_MMIO_SIZE: u64 = 0x1000;

/// NvtdConfig.host: no host behind the unit. The unit walks the guest's tables
/// itself for every device.
pub const NVTD_HOST_NONE: u32 = 0;
/// NvtdConfig.host: the embedded software host. It plays an iommufd kernel and
/// its VT-d hardware for every device added with NVTD_DEVICE_ASSIGNED.
pub const NVTD_HOST_SOFT: u32 = 1;
/// NvtdConfig.host: iommufd. First-stage tables of devices added with
/// NVTD_DEVICE_ASSIGNED are handed to the kernel, or to NvtdConfig.twin in its place.
pub const NVTD_HOST_IOMMUFD: u32 = 2;

/// NvtdConfig.features: report CAP.CM, so that the guest announces PASID-table
/// entries that become present. Required when config.host is not NVTD_HOST_NONE.
pub const NVTD_FEATURE_CACHING_MODE: u64 = 1;
/// NvtdConfig.features: report CAP.FS1GP, 1 GiB pages in first-stage tables.
/// Without NVTD_FEATURE_FIRST_STAGE it has no effect.
pub const NVTD_FEATURE_FS1GP: u64 = 2;
/// NvtdConfig.features: report ECAP.PT, pass-through entries.
pub const NVTD_FEATURE_PASS_THROUGH: u64 = 4;
/// NvtdConfig.features: report ECAP.SMTS, scalable mode. Without it the guest has
/// legacy mode only.
pub const NVTD_FEATURE_SCALABLE_MODE: u64 = 8;
/// NvtdConfig.features: report ECAP.FSTS, first-stage tables, and CAP.FS5LP if
/// address_width is 57. Needs scalable mode.
pub const NVTD_FEATURE_FIRST_STAGE: u64 = 0x10;
/// NvtdConfig.features: report CAP.SAGAW and ECAP.SSTS, second-stage tables, and
/// with them legacy mode. Not with a host.
pub const NVTD_FEATURE_SECOND_STAGE: u64 = 0x20;
/// NvtdConfig.features: report ECAP.NEST, first-stage tables over second-stage
/// tables. Needs both.
pub const NVTD_FEATURE_NESTED: u64 = 0x40;
/// NvtdConfig.features: report CAP.SSLPS for 2 MiB second-stage pages.
pub const NVTD_FEATURE_SECOND_STAGE_2M: u64 = 0x80;
/// NvtdConfig.features: report CAP.SSLPS for 1 GiB second-stage pages.
pub const NVTD_FEATURE_SECOND_STAGE_1G: u64 = 0x100;
/// NvtdConfig.features: report ECAP.SC, snoop control.
pub const NVTD_FEATURE_SNOOP_CONTROL: u64 = 0x200;
/// NvtdConfig.features: report ECAP.SSADS, accessed and dirty bits of second-stage
/// entries. Needs second-stage tables and scalable mode.
pub const NVTD_FEATURE_SECOND_STAGE_AD: u64 = 0x400;
/// NvtdConfig.features: report ECAP.DT, device TLBs (ATS).
pub const NVTD_FEATURE_DEVICE_TLB: u64 = 0x800;
/// NvtdConfig.features: report ECAP.PRS and ECAP.PDS, page requests (PRI). Needs
/// device TLBs and scalable mode.
pub const NVTD_FEATURE_PAGE_REQUEST: u64 = 0x1000;
/// NvtdConfig.features: report ECAP.IR, interrupt remapping.
pub const NVTD_FEATURE_INTERRUPT_REMAPPING: u64 = 0x2000;
/// NvtdConfig.features: report ECAP.EIM, x2APIC destinations. Needs interrupt
/// remapping.
pub const NVTD_FEATURE_EXTENDED_INTERRUPT_MODE: u64 = 0x4000;
/// NvtdConfig.features: report ECAP.EAFS, the extended accessed bit of first-stage
/// entries.
pub const NVTD_FEATURE_EXTENDED_ACCESSED: u64 = 0x8000;
/// NvtdConfig.features: report ECAP.SRS, privileged requests. Needs first-stage
/// tables and PASIDs.
pub const NVTD_FEATURE_SUPERVISOR_REQUEST: u64 = 0x10000;
/// NvtdConfig.features: report ECAP.ERS, execute requests. Needs first-stage tables
/// and PASIDs.
pub const NVTD_FEATURE_EXECUTE_REQUEST: u64 = 0x20000;
/// NvtdConfig.features: report ECAP.RPS, RID_PASID of context entries. Needs
/// scalable mode.
pub const NVTD_FEATURE_RID_PASID: u64 = 0x40000;
/// NvtdConfig.features: report ECAP.ADMS, abort-DMA mode. Needs scalable mode.
pub const NVTD_FEATURE_ABORT_DMA: u64 = 0x80000;

/// NvtdConfig.inject: drop every invalidation on its way to the host, while the
/// guest is told that it completed. For proving that a test notices.
pub const NVTD_INJECT_DROP_INVALIDATIONS: u32 = 1;
/// NvtdConfig.inject: the software host refuses every nested HWPT allocation
/// with ENOMEM. For proving that a refused device ends blocked.
pub const NVTD_INJECT_REFUSE_ALLOC: u32 = 2;

/// NvtdConfig.checks: an oracle beside the unit's own caches. At each use of a cached
/// translation the tables are walked once more, without setting bits; one that a fresh
/// walk contradicts, with no invalidation in between, is counted in
/// NvtdStats.stale_uses. Costs a walk for each request. The software host's hardware
/// is checked so in any case.
pub const NVTD_CHECK_CACHED_USES: u32 = 1;

/// nvtd_ram_add() flags: the region cannot be written by devices.
pub const NVTD_RAM_READ_ONLY: u32 = 1;

/// NvtdDevice.flags: the device belongs to the host selected in NvtdConfig; its
/// DMA goes through the HWPT that the host installed for it.
pub const NVTD_DEVICE_ASSIGNED: u32 = 1;
/// NvtdDevice.flags: NvtdDevice.iommufd is an open file. Only with
/// NVTD_DEVICE_ASSIGNED.
pub const NVTD_DEVICE_IOMMUFD: u32 = 2;
/// NvtdDevice.flags: NvtdDevice.device_fd is an open file. Only with
/// NVTD_DEVICE_ASSIGNED.
pub const NVTD_DEVICE_FD: u32 = 4;
/// NvtdDevice.flags: NvtdDevice.source_id holds for the life of the device, and
/// NvtdOps.source_id is not called for it.
pub const NVTD_DEVICE_FIXED_ID: u32 = 8;

/// NvtdRequest.flags: the request reads memory.
pub const NVTD_REQUEST_READ: u32 = 1;
/// NvtdRequest.flags: the request writes memory.
pub const NVTD_REQUEST_WRITE: u32 = 2;
/// NvtdRequest.flags: a debugger's look. No fault is recorded, no accessed or
/// dirty bit is set, nothing is cached.
pub const NVTD_REQUEST_DEBUG: u32 = 4;
/// NvtdRequest.flags: the request has the PASID in NvtdRequest.pasid.
pub const NVTD_REQUEST_PASID: u32 = 8;
/// NvtdRequest.flags: the request fetches instructions. Only with PASID.
pub const NVTD_REQUEST_EXECUTE: u32 = 0x10;
/// NvtdRequest.flags: the request is privileged. Only with PASID.
pub const NVTD_REQUEST_PRIVILEGED: u32 = 0x20;
/// NvtdRequest.flags: an ATS translation request; NVTD_REQUEST_WRITE then says that
/// its no-write flag is clear.
pub const NVTD_REQUEST_TRANSLATION: u32 = 0x40;
/// NvtdRequest.flags: an ATS translated request. Not with
/// NVTD_REQUEST_TRANSLATION.
pub const NVTD_REQUEST_TRANSLATED: u32 = 0x80;

/// NvtdTranslation.permissions: reading is allowed.
pub const NVTD_PERMISSION_READ: u32 = 1;
/// NvtdTranslation.permissions: writing is allowed.
pub const NVTD_PERMISSION_WRITE: u32 = 2;
/// NvtdTranslation.permissions: fetching instructions is allowed.
pub const NVTD_PERMISSION_EXECUTE: u32 = 4;
/// NvtdTranslation.permissions: these are the permissions of privileged requests.
pub const NVTD_PERMISSION_PRIVILEGED: u32 = 8;
/// NvtdTranslation.permissions: the translation is global (G of the leaf).
pub const NVTD_PERMISSION_GLOBAL: u32 = 0x10;
/// NvtdTranslation.permissions: a translation request's answer holds for
/// untranslated requests only (U): the address is in the interrupt range.
pub const NVTD_PERMISSION_UNTRANSLATED: u32 = 0x20;

/// NvtdTranslation.flags: the fault of a translation request is recoverable. It was
/// not recorded; the device may send a page request and try again.
pub const NVTD_TRANSLATION_RECOVERABLE: u32 = 1;

/// NvtdPageRequest.flags: the page is to be read.
pub const NVTD_PAGE_REQUEST_READ: u32 = 1;
/// NvtdPageRequest.flags: the page is to be written.
pub const NVTD_PAGE_REQUEST_WRITE: u32 = 2;
/// NvtdPageRequest.flags: the page is to be executed. Only with PASID and READ.
pub const NVTD_PAGE_REQUEST_EXECUTE: u32 = 4;
/// NvtdPageRequest.flags: the page is for privileged mode. Only with PASID.
pub const NVTD_PAGE_REQUEST_PRIVILEGED: u32 = 8;
/// NvtdPageRequest.flags: the request has the PASID in NvtdPageRequest.pasid.
pub const NVTD_PAGE_REQUEST_PASID: u32 = 0x10;
/// NvtdPageRequest.flags: the last request of its group. With neither READ nor
/// WRITE it is a stop marker, which is never answered.
pub const NVTD_PAGE_REQUEST_LAST: u32 = 0x20;

/// NvtdPageResponse.flags: NvtdPageResponse.pasid is that of the requests.
pub const NVTD_PAGE_RESPONSE_PASID: u32 = 1;
/// NvtdPageResponse.code: the pages are there; the device is to ask for their
/// translations again.
pub const NVTD_PAGE_RESPONSE_SUCCESS: u16 = 0;
/// NvtdPageResponse.code: a page of the group is not to be had.
pub const NVTD_PAGE_RESPONSE_INVALID: u16 = 1;
/// NvtdPageResponse.code: the device is to stop asking for pages.
pub const NVTD_PAGE_RESPONSE_FAILURE: u16 = 15;

/// NvtdDeviceInfo.state: the unit walks the guest's tables itself (no host).
pub const NVTD_STATE_DIRECT: u32 = 0;
/// NvtdDeviceInfo.state: attached to the nesting parent (guest-physical
/// addresses): translation is off or the PASID-table entry is pass-through.
pub const NVTD_STATE_PARENT: u32 = 1;
/// NvtdDeviceInfo.state: attached to a nested HWPT.
pub const NVTD_STATE_NESTED: u32 = 2;
/// NvtdDeviceInfo.state: detached from everything; all DMA is blocked.
pub const NVTD_STATE_BLOCKED: u32 = 3;

/// NvtdOps.log level: something failed that the operator should know of.
pub const NVTD_LOG_ERROR: u32 = 0;
/// NvtdOps.log level: unusual but handled.
pub const NVTD_LOG_WARN: u32 = 1;
/// NvtdOps.log level: a change of state worth a line.
pub const NVTD_LOG_INFO: u32 = 2;

/// Callbacks into the VMM, given to nvtd_unit_create() and copied there.
///
/// Every callback gets the `opaque` of nvtd_unit_create() and is called from
/// inside a call into the unit, on that call's thread, with no lock of the unit
/// held. The unit starts no thread. Unless a callback says otherwise it may call
/// any nvtd_ function but nvtd_unit_destroy().
///
/// `size` is sizeof(NvtdOps) as the caller was compiled; callbacks are only ever
/// appended, and those beyond `size` count as NULL.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NvtdOps {
    /// sizeof(NvtdOps).
    pub size: usize,
    /// Required. Deliver a message-signalled interrupt: write `data` (32 bits) to
    /// `address`. Called from nvtd_mmio_write() (invalidation and fault events), from
    /// nvtd_translate() and nvtd_remap_msi() (fault events) and from
    /// nvtd_page_request() (all events), so possibly on any thread.
    pub msi: Option<unsafe extern "C" fn(opaque: *mut c_void, address: u64, data: u32)>,
    /// Optional. One line of text for the operator, without a newline; `level` is
    /// one of NVTD_LOG_*. The text is valid during the call only. Lines that a
    /// guest can cause are limited in number. Also called, with NVTD_LOG_ERROR,
    /// just before the process aborts on an internal error; in that case it must
    /// not call back into the unit.
    pub log: Option<unsafe extern "C" fn(opaque: *mut c_void, level: u32, message: *const c_char)>,
    /// Optional. One trace event: `event` is a number that nvtd_event_name()
    /// names; the meaning of a, b and c is listed with the event in
    /// docs/events.md. Called very often when something listens; keep it short.
    pub event:
        Option<unsafe extern "C" fn(opaque: *mut c_void, event: u32, a: u64, b: u64, c: u64)>,
    /// Optional. The present requester ID (bus << 8 | devfn) of the device that was
    /// added with `tag`. A VMM whose guest can renumber buses gives it; without it, and
    /// with NVTD_DEVICE_FIXED_ID, NvtdDevice.source_id holds for the life of the device. Must not call
    /// back into the unit. Called on any thread that calls into the unit;
    /// nvtd_translate() and nvtd_device_info() ask for their own device only.
    pub source_id: Option<unsafe extern "C" fn(opaque: *mut c_void, tag: u64) -> u16>,
    /// Optional. What nvtd_remap_msi() answered is to be forgotten and asked for
    /// again: every answer if `global` is 1, else (0) those to requests whose table
    /// index is in the block of 2^mask entries, aligned to that number, that `index` is
    /// in. `mask` is 0 to 15. Called from nvtd_mmio_write() when the guest invalidates
    /// interrupt entries, sets another table or switches interrupt remapping, and from
    /// nvtd_unit_reset(). The guest is told that an invalidation is complete when this
    /// has returned. A VMM that keeps answers, as for KVM's routes, gives it.
    pub iec_invalidate:
        Option<unsafe extern "C" fn(opaque: *mut c_void, global: u32, index: u32, mask: u32)>,
    /// Optional. A page request group of a device is answered; *response is valid
    /// during the call only. Called from nvtd_mmio_write() for the guest's answers,
    /// whose wait completes only when this returns, and from nvtd_page_request() for
    /// those that the unit gives by itself. A VMM with devices that ask for pages
    /// gives it.
    pub page_response:
        Option<unsafe extern "C" fn(opaque: *mut c_void, response: *const NvtdPageResponse)>,
    /// Optional. Translations of a device are to be forgotten before this returns: the
    /// guest's wait completes only then. *invalidation is valid during the call only.
    /// Called from nvtd_mmio_write() and nvtd_unit_reset(), for devices for which
    /// nvtd_device_notify() asked for it.
    ///
    /// Returns 0. For a device TLB (NVTD_INVALIDATION_DEVICE_TLB) also -ETIMEDOUT: it
    /// did not answer; the guest is told so (FSTS.ITE), and its wait is aborted; or
    /// another negative errno: it answered wrongly (FSTS.ICE).
    pub invalidate: Option<
        unsafe extern "C" fn(opaque: *mut c_void, invalidation: *const NvtdInvalidation) -> c_int,
    >,
    /// Needed for assigned devices without NvtdDevice.device_fd: attach the device to
    /// an HWPT of its iommufd, or detach it. *attach is valid during the call only.
    /// The one callback that is made while the unit is locked, as if it were the
    /// system call it stands for: it must not call back into the unit.
    ///
    /// Returns 0 or a negative errno. When attaching fails the requests are blocked.
    pub attach:
        Option<unsafe extern "C" fn(opaque: *mut c_void, attach: *const NvtdAttach) -> c_int>,
    /// Needed for page requests of assigned devices: call nvtd_host_faults() whenever
    /// the file `fd` is readable (`on` is 1), or do so no longer (0), before it is
    /// closed. Called from nvtd_device_add(), nvtd_device_remove() and
    /// nvtd_unit_destroy().
    pub watch: Option<unsafe extern "C" fn(opaque: *mut c_void, fd: c_int, on: u32)>,
    /// Optional. Does anything listen to `event` at present (1), or not (0)? Asked before
    /// the unit works through a queue, whose events are collected first; without it
    /// something always listens. Must not call back into the unit.
    pub wants_events: Option<unsafe extern "C" fn(opaque: *mut c_void) -> u32>,
    /// Optional. The unit has done as much of the guest's queue as one call may, and left
    /// the rest: call nvtd_work() soon, from where the VMM does what can wait (a bottom
    /// half, another thread), so that nobody waits long for the VMM's locks. Must not
    /// call back into the unit. Without it the rest is done when the guest next reads or
    /// writes IQT, IQH or FSTS, which one that waits in memory may not do.
    pub more_work: Option<unsafe extern "C" fn(opaque: *mut c_void)>,
}

/// NvtdAttach.flags: the requests with the PASID in NvtdAttach.pasid; without it
/// those without PASID.
pub const NVTD_ATTACH_PASID: u32 = 1;
/// NvtdAttach.flags: detach; NvtdAttach.hwpt is 0.
pub const NVTD_ATTACH_DETACH: u32 = 2;

/// What is to be attached, for NvtdOps.attach.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NvtdAttach {
    /// sizeof(NvtdAttach).
    pub size: usize,
    /// The VMM's own name for the device (NvtdDevice.tag).
    pub tag: u64,
    /// NVTD_ATTACH_* bits.
    pub flags: u32,
    /// PASID with NVTD_ATTACH_PASID, else 0.
    pub pasid: u32,
    /// ID of the HWPT (pt_id of VFIO_DEVICE_ATTACH_IOMMUFD_PT), which replaces the one
    /// that was attached.
    pub hwpt: u32,
    /// Always 0.
    pub reserved: u32,
}

/// NvtdInvalidation.flags: the device's TLB is to forget (types 3 and 8); without it
/// whoever keeps answers of the unit, as vfio's mappings and vhost's tables are.
pub const NVTD_INVALIDATION_DEVICE_TLB: u32 = 1;
/// NvtdInvalidation.flags: translations of the PASID in NvtdInvalidation.pasid.
pub const NVTD_INVALIDATION_PASID: u32 = 2;
/// NvtdInvalidation.flags: translations with and without PASID.
pub const NVTD_INVALIDATION_ALL_PASIDS: u32 = 4;

/// Translations to be forgotten, for NvtdOps.invalidate.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NvtdInvalidation {
    /// sizeof(NvtdInvalidation).
    pub size: usize,
    /// The VMM's own name for the device (NvtdDevice.tag).
    pub tag: u64,
    /// Handle of the device.
    pub device: u32,
    /// NVTD_INVALIDATION_* bits.
    pub flags: u32,
    /// PASID with NVTD_INVALIDATION_PASID, else 0.
    pub pasid: u32,
    /// Always 0.
    pub reserved: u32,
    /// First byte address, a multiple of 4096.
    pub address: u64,
    /// Last byte address.
    pub last: u64,
}

/// nvtd_device_notify() flags: call NvtdOps.invalidate for translations of the unit.
pub const NVTD_NOTIFY_UNIT: u32 = 1;
/// nvtd_device_notify() flags: call NvtdOps.invalidate for the device's TLB.
pub const NVTD_NOTIFY_DEVICE_TLB: u32 = 2;

/// What the unit is to be. Start from nvtd_config_default().
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NvtdConfig {
    /// sizeof(NvtdConfig); fields beyond it take their default.
    pub size: usize,
    /// One of NVTD_HOST_*.
    pub host: u32,
    /// NVTD_INJECT_* bits; 0 outside of tests.
    pub inject: u32,
    /// NVTD_FEATURE_* bits.
    pub features: u64,
    /// Width in bits of guest-physical addresses, and of the widest second-stage
    /// tables: 39, 48 or 57, or 0 for 48.
    pub address_width: u32,
    /// Width in bits of PASIDs, 1 to 20 (ECAP.PSS plus 1), or 0: requests with PASID
    /// are not supported.
    pub pasid_bits: u32,
    /// With NVTD_HOST_IOMMUFD: the twin that answers system calls in the kernel's place,
    /// which must outlive the unit; NULL for the kernel.
    pub twin: *mut NvtdTwin,
    /// NVTD_CHECK_* bits; 0 outside of tests.
    pub checks: u32,
    /// Must be 0.
    pub reserved: u32,
}

/// A device behind the unit, for nvtd_device_add().
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NvtdDevice {
    /// sizeof(NvtdDevice).
    pub size: usize,
    /// The VMM's own name for the device, handed back to NvtdOps.source_id.
    pub tag: u64,
    /// Requester ID (bus << 8 | devfn); used when NvtdOps.source_id is NULL, or with
    /// NVTD_DEVICE_FIXED_ID.
    pub source_id: u16,
    /// Must be 0.
    pub reserved: u16,
    /// NVTD_DEVICE_* bits.
    pub flags: u32,
    /// With NVTD_DEVICE_IOMMUFD: the iommufd that the device is or is to be bound to,
    /// which stays open until the device is removed. Without it the unit opens one for
    /// itself. Devices of one iommufd share one IOAS.
    pub iommufd: c_int,
    /// With NVTD_DEVICE_FD: the device's vfio file, through which it is attached, open
    /// until the device is removed. Without it NvtdOps.attach is called instead, or the
    /// software host plugs a device in.
    pub device_fd: c_int,
    /// With NVTD_DEVICE_IOMMUFD: ID of the device on that iommufd (out_devid of VFIO_DEVICE_BIND_IOMMUFD); 0 if
    /// the unit is to bind device_fd itself, which cannot be undone but by closing it.
    pub dev_id: u32,
    /// Must be 0.
    pub reserved2: u32,
}

/// One DMA request, for nvtd_translate().
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NvtdRequest {
    /// sizeof(NvtdRequest).
    pub size: usize,
    /// Address the device put on the bus.
    pub address: u64,
    /// NVTD_REQUEST_* bits; at least one of READ and WRITE.
    pub flags: u32,
    /// PASID (20 bits) with NVTD_REQUEST_PASID, else 0.
    pub pasid: u32,
}

/// Answer of nvtd_translate(). Fields beyond the caller's `size` are left out.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NvtdTranslation {
    /// sizeof(NvtdTranslation), set by the caller.
    pub size: usize,
    /// Guest-physical address of the request's byte; 0 with a fault.
    pub address: u64,
    /// Size in bytes, a power of two from 4096, of the naturally aligned page around
    /// `address` for which the answer holds; 4096 with a fault.
    pub page_size: u64,
    /// NVTD_PERMISSION_* bits of that page; 0 with a fault.
    pub permissions: u32,
    /// 0, or the fault reason (VT-d 7.1.3) with which the request was refused.
    pub fault: u32,
    /// 0, or a finer reason, named by nvtd_diagnostic_name().
    pub diagnostic: u32,
    /// NVTD_TRANSLATION_* bits.
    pub flags: u32,
}

/// A device's request for a page (PCI Express PRI), for nvtd_page_request().
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NvtdPageRequest {
    /// sizeof(NvtdPageRequest).
    pub size: usize,
    /// Any address in the page, untranslated.
    pub address: u64,
    /// NVTD_PAGE_REQUEST_* bits.
    pub flags: u32,
    /// PASID (20 bits) with NVTD_PAGE_REQUEST_PASID, else 0.
    pub pasid: u32,
    /// Page request group index (9 bits).
    pub group: u16,
    /// Must be 0.
    pub reserved: u16,
    /// Must be 0.
    pub reserved2: u32,
}

/// The answer to a page request group, given to NvtdOps.page_response.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NvtdPageResponse {
    /// sizeof(NvtdPageResponse).
    pub size: usize,
    /// NvtdDevice.tag of the device.
    pub tag: u64,
    /// Handle of the device.
    pub device: u32,
    /// NVTD_PAGE_RESPONSE_PASID or 0.
    pub flags: u32,
    /// PASID of the group's requests, 0 if they had none.
    pub pasid: u32,
    /// Page request group index.
    pub group: u16,
    /// One of NVTD_PAGE_RESPONSE_SUCCESS, INVALID and FAILURE.
    pub code: u16,
}

/// State of one device, from nvtd_device_info(). Fields beyond the caller's
/// `size` are left out.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NvtdDeviceInfo {
    /// sizeof(NvtdDeviceInfo), set by the caller.
    pub size: usize,
    /// Requester ID (bus << 8 | devfn).
    pub source_id: u16,
    /// Domain ID in the PASID-table entry in use, 0 without one.
    pub domain_id: u16,
    /// One of NVTD_STATE_*.
    pub state: u32,
    /// PGTT of the PASID-table entry in use (VT-d 9.6: 1 first-stage, 2
    /// second-stage, 3 nested, 4 pass-through), or what a legacy context entry
    /// corresponds to; 0 without one.
    pub pgtt: u32,
    /// ID of the host's HWPT the device is attached to, 0 without one.
    pub hwpt: u32,
    /// Address of the topmost table in use (of the first stage, if there is one), 0
    /// without one.
    pub table: u64,
    /// 0, or the errno (positive) with which the host refused this device's
    /// configuration; the device is then NVTD_STATE_BLOCKED.
    pub host_errno: u32,
    /// Number of the ioctl that the host refused (0x3b77 is
    /// VFIO_DEVICE_ATTACH_IOMMUFD_PT), 0 without.
    pub host_request: u32,
    /// Requests translated since the device was added or the unit reset.
    pub translations: u64,
    /// Of these, answered from the host's translation cache.
    pub cache_hits: u64,
    /// Requests refused with a fault.
    pub faults: u64,
    /// Cached translations that were used although a fresh walk answers otherwise.
    pub stale_uses: u64,
    /// PASIDs of this device that are attached on the host.
    pub pasids: u32,
    /// PASIDs of this device whose configuration the host refused; they are blocked.
    pub pasids_blocked: u32,
}

/// Counters of the unit since it was created or reset, from nvtd_stats().
/// Fields beyond the caller's `size` are left out; fields are only appended.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct NvtdStats {
    /// sizeof(NvtdStats), set by the caller.
    pub size: usize,
    /// Requests given to nvtd_translate(), debug looks excepted.
    pub translations: u64,
    /// Of these, answered from a translation cache.
    pub cache_hits: u64,
    /// Table walks made.
    pub walks: u64,
    /// Cached translations that were used although a fresh walk answers otherwise.
    pub stale_uses: u64,
    /// Requests refused with a fault.
    pub faults: u64,
    /// Faults that found no free fault recording register.
    pub fault_overflows: u64,
    /// Register accesses that were ignored: unaligned, wrong width or not defined.
    pub mmio_ignored: u64,
    /// Invalidation descriptors executed, waits included.
    pub descriptors: u64,
    /// Of these, by type: index is the descriptor type, 1 to 9.
    pub descriptors_by_type: [u64; 16],
    /// Invalidation queue errors (FSTS.IQE raised).
    pub queue_errors: u64,
    /// Wait status writes that did not hit writable RAM.
    pub status_write_errors: u64,
    /// Message-signalled interrupts sent.
    pub msis: u64,
    /// Nested HWPTs allocated by the host.
    pub hwpt_allocs: u64,
    /// Nested HWPT allocations that the host refused.
    pub hwpt_alloc_errors: u64,
    /// Nested HWPTs destroyed.
    pub hwpt_destroys: u64,
    /// Attachments of a device to an HWPT, replacements included.
    pub attaches: u64,
    /// Detachments of a device; its DMA is blocked afterwards.
    pub detaches: u64,
    /// Attach or detach calls that the host refused.
    pub attach_errors: u64,
    /// Invalidate calls made on the host.
    pub invalidate_calls: u64,
    /// Entries in those calls.
    pub invalidate_entries: u64,
    /// Guest descriptors from which those entries came.
    pub invalidate_descriptors: u64,
    /// Invalidate calls that the host refused, fully or in part.
    pub invalidate_errors: u64,
    /// Invalidate entries that were dropped by NVTD_INJECT_DROP_INVALIDATIONS.
    pub invalidate_dropped: u64,
    /// Requests and queue fetches that found a table or the queue outside of RAM.
    pub memory_errors: u64,
    /// Page requests given to nvtd_page_request().
    pub page_requests: u64,
    /// Of these, refused by the guest's tables.
    pub page_requests_refused: u64,
    /// Of these, dropped as the page request queue had overflowed.
    pub page_request_overflows: u64,
    /// Page group responses of the guest that were handed to a device.
    pub page_responses: u64,
    /// Page group responses that the unit gave by itself.
    pub page_responses_by_unit: u64,
    /// Page group responses of the guest to requesters that are not there.
    pub page_responses_ignored: u64,
    /// Interrupt requests given to nvtd_remap_msi(), those with NVTD_MSI_DEBUG
    /// excepted.
    pub interrupts: u64,
    /// Of these, answered from the interrupt entry cache.
    pub interrupt_cache_hits: u64,
    /// Of these, refused with a fault.
    pub interrupt_faults: u64,
    /// Faults that were not recorded as a pending record told of them already.
    pub faults_collapsed: u64,
    /// Device-TLB invalidations for which NvtdOps.invalidate returned an error.
    pub device_tlb_errors: u64,
    /// Objects of the host that could not be destroyed at the time; it is tried again.
    pub hwpt_destroy_errors: u64,
    /// Invalidate calls that went on after a refused one.
    pub invalidate_resumed: u64,
    /// Waits that were aborted (FSTS.ITE) as a device of the host could be neither
    /// flushed nor blocked.
    pub host_timeouts: u64,
    /// Page requests that came from the host.
    pub host_page_requests: u64,
    /// Of these, answered at once as they were malformed or of no device.
    pub host_page_requests_refused: u64,
    /// Times that a PASID was not attached as its device has 2^17 of them, the most.
    pub pasids_ignored: u64,
    /// Of the walks that the unit made by itself, those through both stages.
    pub nested_walks: u64,
    /// Walks of second-stage tables, as a request's only stage, or for one table or page
    /// of a nested walk.
    pub second_stage_walks: u64,
    /// Paging entries read in walks of the unit; the oracle's are not counted.
    pub table_reads: u64,
    /// Times that accessed and dirty bits were set in a paging entry.
    pub table_updates: u64,
    /// Times that the rest of the queue was left for later; see NvtdOps.more_work.
    pub queue_pauses: u64,
}
