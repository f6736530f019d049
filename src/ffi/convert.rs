//! Between the structures of the C ABI and the unit's own values.

use crate::Result;
use crate::ffi::error::invalid;
use crate::ffi::types::*;
use crate::spec::page_request::ResponseCode;
use crate::translate::Permissions;
use crate::unit::{
    Answer, BindingState, Config, DeviceDescription, DeviceInfo, Features, HostKind, Inject,
    Notify, PageRequest, Request, RequestKind, Stats,
};
use crate::vmm::{Holder, Invalidation, PageResponse, Pasids};

/// Refuse bits that are not defined.
pub(super) fn only(name: &str, value: u64, known: u64) -> Result<()> {
    if value & !known == 0 {
        return Ok(());
    }
    Err(invalid(format!(
        "{name} is {value:#x}, of which {:#x} is not defined; leave these bits 0",
        value & !known
    )))
}

impl Config {
    pub(super) fn from_c(config: &NvtdConfig) -> Result<Self> {
        let host = match config.host {
            NVTD_HOST_NONE => HostKind::None,
            NVTD_HOST_SOFT => HostKind::Soft,
            NVTD_HOST_IOMMUFD => HostKind::Iommufd,
            other => {
                return Err(invalid(format!(
                    "config->host is {other}; use NVTD_HOST_NONE, NVTD_HOST_SOFT or \
                     NVTD_HOST_IOMMUFD"
                )));
            }
        };
        if !config.twin.is_null() && host != HostKind::Iommufd {
            return Err(invalid(
                "config->twin takes the kernel's place, so config->host is to be \
                 NVTD_HOST_IOMMUFD; set it, or leave twin NULL",
            ));
        }
        let features = Features::from_bits(config.features);
        only("config->features", config.features, Features::DEFINED)?;
        let injections = NVTD_INJECT_DROP_INVALIDATIONS | NVTD_INJECT_REFUSE_ALLOC;
        only("config->inject", config.inject.into(), injections.into())?;
        only(
            "config->checks",
            config.checks.into(),
            NVTD_CHECK_CACHED_USES.into(),
        )?;
        only("config->reserved", config.reserved.into(), 0)?;
        Ok(Self {
            host,
            oracle: config.checks & NVTD_CHECK_CACHED_USES != 0,
            inject: Inject {
                drop_invalidations: config.inject & NVTD_INJECT_DROP_INVALIDATIONS != 0,
                refuse_alloc: config.inject & NVTD_INJECT_REFUSE_ALLOC != 0,
            },
            features,
            address_width: config.address_width,
            pasid_bits: config.pasid_bits,
        })
    }
}

impl DeviceDescription {
    pub(super) fn from_c(desc: &NvtdDevice) -> Result<Self> {
        let of_host = NVTD_DEVICE_ASSIGNED | NVTD_DEVICE_IOMMUFD | NVTD_DEVICE_FD;
        let known = of_host | NVTD_DEVICE_FIXED_ID;
        only("desc->flags", desc.flags.into(), known.into())?;
        only("desc->reserved", desc.reserved.into(), 0)?;
        only("desc->reserved2", desc.reserved2.into(), 0)?;
        let has = |flag| desc.flags & flag != 0;
        if !has(NVTD_DEVICE_ASSIGNED) && desc.flags & of_host != 0 {
            return Err(invalid(
                "desc->flags says that desc has files of a host's device, but not \
                 NVTD_DEVICE_ASSIGNED; set that, or none",
            ));
        }
        if desc.dev_id != 0 && !has(NVTD_DEVICE_IOMMUFD) {
            return Err(invalid(format!(
                "desc->dev_id is {} without NVTD_DEVICE_IOMMUFD and the iommufd that it is an ID \
                 of; pass that, too, or leave it 0",
                desc.dev_id
            )));
        }
        Ok(Self {
            tag: desc.tag,
            source_id: desc.source_id,
            fixed_id: has(NVTD_DEVICE_FIXED_ID),
            assigned: has(NVTD_DEVICE_ASSIGNED),
            iommufd: has(NVTD_DEVICE_IOMMUFD).then_some(desc.iommufd),
            file: has(NVTD_DEVICE_FD).then_some(desc.device_fd),
            dev_id: (desc.dev_id != 0).then_some(desc.dev_id),
        })
    }
}

impl Request {
    #[inline]
    pub(super) fn from_c(request: &NvtdRequest) -> Result<Self> {
        only("request->flags", request.flags.into(), 0xff)?;
        let has = |flag| request.flags & flag != 0;
        let kind = match (has(NVTD_REQUEST_TRANSLATION), has(NVTD_REQUEST_TRANSLATED)) {
            (false, false) => RequestKind::Untranslated,
            (true, false) => RequestKind::Translation,
            (false, true) => RequestKind::Translated,
            (true, true) => {
                return Err(invalid(
                    "request->flags has NVTD_REQUEST_TRANSLATION and NVTD_REQUEST_TRANSLATED; a \
                     request asks for a translation or has one",
                ));
            }
        };
        if !has(NVTD_REQUEST_PASID) {
            only(
                "request->pasid without NVTD_REQUEST_PASID",
                request.pasid.into(),
                0,
            )?;
        }
        Ok(Self {
            address: request.address,
            pasid: has(NVTD_REQUEST_PASID).then_some(request.pasid),
            kind,
            read: has(NVTD_REQUEST_READ),
            write: has(NVTD_REQUEST_WRITE),
            execute: has(NVTD_REQUEST_EXECUTE),
            privileged: has(NVTD_REQUEST_PRIVILEGED),
            debug: has(NVTD_REQUEST_DEBUG),
        })
    }
}

/// PASIDs have 20 bits.
const LAST_PASID: u32 = 0xf_ffff;

/// The PASID of requests that have one or not.
pub(super) fn pasid_of(has: bool, pasid: u32) -> Result<Option<u32>> {
    if !has && pasid != 0 {
        return Err(invalid(format!(
            "pasid is {pasid} without the flag that says there is one; set the flag or leave \
             pasid 0"
        )));
    }
    if pasid > LAST_PASID {
        return Err(invalid(format!(
            "pasid is {pasid:#x}; PASIDs have 20 bits, the last is {LAST_PASID:#x}"
        )));
    }
    Ok(has.then_some(pasid))
}

/// NVTD_PERMISSION_*.
#[inline]
pub(super) fn permission_bits(may: Permissions) -> u32 {
    [
        (may.read(), NVTD_PERMISSION_READ),
        (may.write(), NVTD_PERMISSION_WRITE),
        (may.execute(), NVTD_PERMISSION_EXECUTE),
        (may.privileged(), NVTD_PERMISSION_PRIVILEGED),
        (may.global(), NVTD_PERMISSION_GLOBAL),
        (may.untranslated(), NVTD_PERMISSION_UNTRANSLATED),
    ]
    .into_iter()
    .fold(0, |bits, (set, bit)| if set { bits | bit } else { bits })
}

impl Answer {
    pub(super) fn into_c(self) -> NvtdTranslation {
        let empty = NvtdTranslation {
            size: size_of::<NvtdTranslation>(),
            address: 0,
            page_size: crate::spec::PAGE_SIZE,
            permissions: 0,
            fault: 0,
            diagnostic: 0,
            flags: 0,
        };
        match self.result {
            Ok(translation) => NvtdTranslation {
                address: translation.address,
                page_size: translation.page_size,
                permissions: permission_bits(translation.permissions),
                ..empty
            },
            Err(fault) => NvtdTranslation {
                fault: fault.reason.code().into(),
                diagnostic: fault.diagnostic as u32,
                flags: if self.recoverable {
                    NVTD_TRANSLATION_RECOVERABLE
                } else {
                    0
                },
                ..empty
            },
        }
    }
}

impl PageRequest {
    pub(super) fn from_c(request: &NvtdPageRequest) -> Result<Self> {
        let known = NVTD_PAGE_REQUEST_READ
            | NVTD_PAGE_REQUEST_WRITE
            | NVTD_PAGE_REQUEST_EXECUTE
            | NVTD_PAGE_REQUEST_PRIVILEGED
            | NVTD_PAGE_REQUEST_PASID
            | NVTD_PAGE_REQUEST_LAST;
        only("request->flags", request.flags.into(), known.into())?;
        only("request->reserved", request.reserved.into(), 0)?;
        only("request->reserved2", request.reserved2.into(), 0)?;
        let has = |flag| request.flags & flag != 0;
        if !has(NVTD_PAGE_REQUEST_PASID) && request.pasid != 0 {
            return Err(invalid(format!(
                "request->pasid is {:#x} without NVTD_PAGE_REQUEST_PASID; set the flag, or leave \
                 the PASID 0",
                request.pasid
            )));
        }
        Ok(Self {
            address: request.address,
            pasid: has(NVTD_PAGE_REQUEST_PASID).then_some(request.pasid),
            read: has(NVTD_PAGE_REQUEST_READ),
            write: has(NVTD_PAGE_REQUEST_WRITE),
            execute: has(NVTD_PAGE_REQUEST_EXECUTE),
            privileged: has(NVTD_PAGE_REQUEST_PRIVILEGED),
            last: has(NVTD_PAGE_REQUEST_LAST),
            group: request.group,
        })
    }
}

impl From<PageResponse> for NvtdPageResponse {
    fn from(response: PageResponse) -> Self {
        Self {
            size: size_of::<Self>(),
            tag: response.tag,
            device: response.device,
            flags: match response.pasid {
                Some(_) => NVTD_PAGE_RESPONSE_PASID,
                None => 0,
            },
            pasid: response.pasid.unwrap_or(0),
            group: response.group,
            code: match response.code {
                ResponseCode::Success => NVTD_PAGE_RESPONSE_SUCCESS,
                ResponseCode::Invalid => NVTD_PAGE_RESPONSE_INVALID,
                ResponseCode::Failure => NVTD_PAGE_RESPONSE_FAILURE,
            },
        }
    }
}

impl DeviceInfo {
    pub(super) fn into_c(self) -> NvtdDeviceInfo {
        NvtdDeviceInfo {
            size: size_of::<NvtdDeviceInfo>(),
            source_id: self.source_id,
            domain_id: self.domain_id.unwrap_or(0),
            state: match self.state {
                BindingState::Direct => NVTD_STATE_DIRECT,
                BindingState::Parent => NVTD_STATE_PARENT,
                BindingState::Nested => NVTD_STATE_NESTED,
                BindingState::Blocked => NVTD_STATE_BLOCKED,
            },
            pgtt: self
                .stages
                .map_or(0, |stages| stages.translation_type() as u32),
            hwpt: self.hwpt.unwrap_or(0),
            table: self.stages.map_or(0, |stages| stages.table()),
            host_errno: self
                .refused
                .map_or(0, |refused| refused.errno.unsigned_abs()),
            host_request: self.refused.map_or(0, |refused| refused.request),
            translations: self.translations,
            cache_hits: self.cache_hits,
            faults: self.faults,
            stale_uses: self.stale_uses,
            pasids: u32::try_from(self.pasids).unwrap_or(u32::MAX),
            pasids_blocked: u32::try_from(self.pasids_blocked).unwrap_or(u32::MAX),
        }
    }
}

impl From<Stats> for NvtdStats {
    fn from(stats: Stats) -> Self {
        Self {
            size: size_of::<Self>(),
            translations: stats.translations,
            cache_hits: stats.cache_hits,
            walks: stats.walks,
            stale_uses: stats.stale_uses,
            faults: stats.faults,
            fault_overflows: stats.fault_overflows,
            mmio_ignored: stats.mmio_ignored,
            descriptors: stats.descriptors,
            descriptors_by_type: stats.descriptors_by_type,
            queue_errors: stats.queue_errors,
            status_write_errors: stats.status_write_errors,
            msis: stats.msis,
            hwpt_allocs: stats.hwpt_allocs,
            hwpt_alloc_errors: stats.hwpt_alloc_errors,
            hwpt_destroys: stats.hwpt_destroys,
            attaches: stats.attaches,
            detaches: stats.detaches,
            attach_errors: stats.attach_errors,
            invalidate_calls: stats.invalidate_calls,
            invalidate_entries: stats.invalidate_entries,
            invalidate_descriptors: stats.invalidate_descriptors,
            invalidate_errors: stats.invalidate_errors,
            invalidate_dropped: stats.invalidate_dropped,
            memory_errors: stats.memory_errors,
            page_requests: stats.page_requests,
            page_requests_refused: stats.page_requests_refused,
            page_request_overflows: stats.page_request_overflows,
            page_responses: stats.page_responses,
            page_responses_by_unit: stats.page_responses_by_unit,
            page_responses_ignored: stats.page_responses_ignored,
            interrupts: stats.interrupts,
            interrupt_cache_hits: stats.interrupt_cache_hits,
            interrupt_faults: stats.interrupt_faults,
            faults_collapsed: stats.faults_collapsed,
            device_tlb_errors: stats.device_tlb_errors,
            hwpt_destroy_errors: stats.hwpt_destroy_errors,
            invalidate_resumed: stats.invalidate_resumed,
            host_timeouts: stats.host_timeouts,
            host_page_requests: stats.host_page_requests,
            host_page_requests_refused: stats.host_page_requests_refused,
            pasids_ignored: stats.pasids_ignored,
            nested_walks: stats.nested_walks,
            second_stage_walks: stats.second_stage_walks,
            table_reads: stats.table_reads,
            table_updates: stats.table_updates,
            queue_pauses: stats.queue_pauses,
        }
    }
}

impl From<&Invalidation> for NvtdInvalidation {
    fn from(invalidation: &Invalidation) -> Self {
        let holder = match invalidation.holder {
            Holder::Unit => 0,
            Holder::DeviceTlb => NVTD_INVALIDATION_DEVICE_TLB,
        };
        let (pasids, pasid) = match invalidation.pasids {
            Pasids::None => (0, 0),
            Pasids::One(pasid) => (NVTD_INVALIDATION_PASID, pasid),
            Pasids::All => (NVTD_INVALIDATION_ALL_PASIDS, 0),
        };
        Self {
            size: size_of::<Self>(),
            tag: invalidation.tag,
            device: invalidation.device,
            flags: holder | pasids,
            pasid,
            reserved: 0,
            address: invalidation.first,
            last: invalidation.last,
        }
    }
}

impl Notify {
    pub(super) fn from_c(flags: u32) -> Result<Self> {
        let known = NVTD_NOTIFY_UNIT | NVTD_NOTIFY_DEVICE_TLB;
        only("flags", flags.into(), known.into())?;
        Ok(Self {
            unit: flags & NVTD_NOTIFY_UNIT != 0,
            device_tlb: flags & NVTD_NOTIFY_DEVICE_TLB != 0,
        })
    }
}
