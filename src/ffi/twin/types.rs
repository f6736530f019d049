//! Constants and structures of the twin's functions.

use crate::host::soft::{CallCount, TwinStats};

/// NvtdTwinConfig.kernel: the twin plays Linux 7.3.
pub const NVTD_TWIN_LINUX_7_3: u32 = 0;
/// NvtdTwinConfig.kernel: the twin plays Linux 6.12.
pub const NVTD_TWIN_LINUX_6_12: u32 = 1;

/// NvtdTwinConfig.quirks_off: a failed attach leaves the device blocked, though the
/// HWPT that it had stays on record. With the bit set it changes nothing.
pub const NVTD_TWIN_QUIRK_FAILED_ATTACH_BLOCKS: u64 = 1;
/// NvtdTwinConfig.quirks_off: attaching the HWPT that is on record does nothing and
/// succeeds. With the bit set the hardware is programmed again.
pub const NVTD_TWIN_QUIRK_SAME_HWPT_IGNORED: u64 = 2;
/// NvtdTwinConfig.quirks_off: an invalidation covers the power of two around its
/// range. With the bit set it covers the range.
pub const NVTD_TWIN_QUIRK_WIDE_INVALIDATION: u64 = 4;
/// NvtdTwinConfig.quirks_off: maps that cannot be written are refused below a
/// nesting parent. With the bit set they are not.
pub const NVTD_TWIN_QUIRK_READ_ONLY_REFUSED: u64 = 8;
/// NvtdTwinConfig.quirks_off: an HWPT without flags is a first-stage one. With the
/// bit set it is a second-stage one.
pub const NVTD_TWIN_QUIRK_FIRST_STAGE_DEFAULT: u64 = 0x10;
/// NvtdTwinConfig.quirks_off: PASID 0 is what a device has without PASID. With the
/// bit set attaching it is refused.
pub const NVTD_TWIN_QUIRK_PASID_ZERO: u64 = 0x20;
/// NvtdTwinConfig.quirks_off: attaching a PASID of a device without PASIDs succeeds
/// and does nothing. With the bit set it is refused.
pub const NVTD_TWIN_QUIRK_PASID_OF_NONE: u64 = 0x40;
/// NvtdTwinConfig.quirks_off: records of page requests with PASID have flag 4 set.
/// With the bit set they do not.
pub const NVTD_TWIN_QUIRK_FAULT_FLAG: u64 = 0x80;
/// NvtdTwinConfig.quirks_off: a failed replacement lifts the reservation of the
/// interrupt window. With the bit set it stays.
pub const NVTD_TWIN_QUIRK_UNRESERVE: u64 = 0x100;

/// NvtdTwinConfig.flags: devices' interrupts cannot be kept apart (there is no
/// interrupt remapping), so that binding a device is refused.
pub const NVTD_TWIN_UNSAFE_INTERRUPTS: u64 = 1;

/// NvtdTwinDevice.flags: the device has a device TLB (ATS).
pub const NVTD_TWIN_DEVICE_ATS: u32 = 1;
/// NvtdTwinDevice.flags: the device requests pages (PRI). Needs ATS.
pub const NVTD_TWIN_DEVICE_PRI: u32 = 2;

/// NvtdTwinInjection.flags: an attach that fails leaves the device blocked.
pub const NVTD_TWIN_INJECT_BLOCKED: u32 = 1;

/// NvtdTranslation.flags, of nvtd_twin_dma() only: the answer came from the cache.
pub const NVTD_TRANSLATION_CACHED: u32 = 2;
/// NvtdTranslation.flags, of nvtd_twin_dma() only: the answer came from the cache and
/// the tables say otherwise; an invalidation was forgotten.
pub const NVTD_TRANSLATION_STALE: u32 = 4;

/// An IOMMU of a twin.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NvtdTwinIommu {
    /// Its capability register.
    pub cap: u64,
    /// Its extended capability register.
    pub ecap: u64,
}

/// What a twin plays.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NvtdTwinConfig {
    /// sizeof(NvtdTwinConfig).
    pub size: usize,
    /// Its IOMMUs; NULL for one that can do all that a unit can offer.
    pub iommus: *const NvtdTwinIommu,
    /// How many there are, at most 64; 0 with NULL.
    pub iommu_count: u32,
    /// NVTD_TWIN_LINUX_7_3 or NVTD_TWIN_LINUX_6_12.
    pub kernel: u32,
    /// NVTD_TWIN_QUIRK_* bits of the kernel's oddities that it does not have.
    pub quirks_off: u64,
    /// NVTD_TWIN_UNSAFE_INTERRUPTS or 0.
    pub flags: u64,
}

/// A device of a twin.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NvtdTwinDevice {
    /// sizeof(NvtdTwinDevice).
    pub size: usize,
    /// Index of its IOMMU in NvtdTwinConfig.iommus.
    pub iommu: u32,
    /// Bits in its PASIDs, at most 20; 0 for none.
    pub max_pasid_bits: u32,
    /// NVTD_TWIN_DEVICE_* bits.
    pub flags: u32,
    /// Devices with the same number share an IOMMU group, and must be behind the same
    /// IOMMU; 0 for a group of its own.
    pub group: u32,
}

/// ioctls that are to fail.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NvtdTwinInjection {
    /// sizeof(NvtdTwinInjection).
    pub size: usize,
    /// Calls from now on that still go through.
    pub skip: u64,
    /// How many calls then fail, at least 1.
    pub times: u64,
    /// Count and fail only calls with this number; 0 for all.
    pub request: u32,
    /// The errno, positive.
    pub error: u32,
    /// IOMMU_HWPT_INVALIDATE: entries that are done before it fails.
    pub handled: u32,
    /// NVTD_TWIN_INJECT_* bits.
    pub flags: u32,
}

/// Counters of a twin since it was made. Fields beyond the caller's `size` are left
/// out; fields are only appended.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct NvtdTwinStats {
    /// sizeof(NvtdTwinStats), set by the caller.
    pub size: usize,
    /// ioctls.
    pub calls: u64,
    /// ioctls that failed.
    pub errors: u64,
    /// IOAS objects that exist.
    pub ioas: u64,
    /// HWPTs on an IOAS that exist.
    pub paging: u64,
    /// Nested HWPTs that exist.
    pub nested: u64,
    /// Fault queues that exist.
    pub fault_queues: u64,
    /// Bound devices.
    pub devices: u64,
    /// Most IOAS objects at a time.
    pub peak_ioas: u64,
    /// Most HWPTs on an IOAS at a time.
    pub peak_paging: u64,
    /// Most nested HWPTs at a time.
    pub peak_nested: u64,
    /// Bytes mapped into IOAS objects.
    pub mapped: u64,
    /// Bytes ever mapped.
    pub ever_mapped: u64,
    /// IOMMU_HWPT_INVALIDATE calls.
    pub invalidate_calls: u64,
    /// Entries of these that were done.
    pub invalidate_entries: u64,
    /// DMA requests, debug looks excepted.
    pub dmas: u64,
    /// DMA requests that were refused.
    pub faults: u64,
    /// Cached translations that were used although the tables say otherwise.
    pub stale_uses: u64,
    /// Page requests.
    pub page_requests: u64,
    /// Answers to groups of page requests.
    pub page_responses: u64,
}

impl From<&TwinStats> for NvtdTwinStats {
    fn from(stats: &TwinStats) -> Self {
        let total = |count: fn(&CallCount) -> u64| {
            stats
                .calls
                .values()
                .fold(0_u64, |sum, calls| sum.saturating_add(count(calls)))
        };
        Self {
            size: size_of::<Self>(),
            calls: total(|count| count.calls),
            errors: total(|count| count.errors),
            ioas: stats.ioas,
            paging: stats.paging,
            nested: stats.nested,
            fault_queues: stats.fault_queues,
            devices: stats.devices,
            peak_ioas: stats.peak_ioas,
            peak_paging: stats.peak_paging,
            peak_nested: stats.peak_nested,
            mapped: stats.mapped,
            ever_mapped: stats.ever_mapped,
            invalidate_calls: stats.invalidate_calls,
            invalidate_entries: stats.invalidate_entries,
            dmas: stats.dmas,
            faults: stats.faults,
            stale_uses: stats.stale_uses,
            page_requests: stats.page_requests,
            page_responses: stats.page_responses,
        }
    }
}
