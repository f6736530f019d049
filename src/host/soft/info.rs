//! `IOMMU_GET_HW_INFO`, and the calls for virtual IOMMUs, which the Intel driver lacks.

use super::dispatch::Call;
use super::{Kernel, State};
use crate::host::Errno;
use crate::host::uapi::{
    HW_CAP_ATS_NOT_SUPPORTED, HW_CAP_DIRTY_TRACKING, HW_INFO_INTEL_VTD, HwInfoCall, HwInfoVtd,
    HwQueueAlloc, Plain, VdeviceAlloc, VeventqAlloc, ViommuAlloc,
};
use crate::memory::user;

/// `IOMMU_HW_INFO_FLAG_INPUT_TYPE`.
const INPUT_TYPE: u32 = 1;
/// `IOMMU_HW_INFO_TYPE_DEFAULT`.
const TYPE_DEFAULT: u32 = 0;
/// `IOMMU_HW_INFO_VTD_ERRATA_772415_SPR17`, which the driver reports of every IOMMU.
const ERRATA_READ_ONLY: u32 = 1;
/// `sizeof(struct iommu_hw_info_vtd)`.
const INFO_SIZE: u32 = 24;
/// Bytes that are cleared at a time beyond that.
const CHUNK: u64 = 4096;

/// Most events of a queue, as in the kernel.
const MAX_EVENTS: u32 = 1 << 19;

impl State {
    pub(super) fn hw_info(&mut self, context: u64, call: &Call) -> Result<(), Errno> {
        let mut info: HwInfoCall = call.get();
        let old = self.config.kernel == Kernel::V6_12;
        let known = if old { 0 } else { INPUT_TYPE };
        // What are a byte and three reserved ones in 7.3 are four reserved ones in 6.12.
        let reserved = info.reserved != [0; 3] || (old && info.out_max_pasid_log2 != 0);
        if info.flags & !known != 0 || reserved {
            return Err(libc::EOPNOTSUPP);
        }
        if info.flags & INPUT_TYPE == 0 {
            info.data_type = TYPE_DEFAULT;
        }
        let fd = self.context(context)?.device(info.dev_id)?;
        if ![TYPE_DEFAULT, HW_INFO_INTEL_VTD].contains(&info.data_type) {
            return Err(libc::EOPNOTSUPP);
        }
        let device = self.device(fd)?;
        let (description, iommu) = (device.description, device.hardware.iommu);
        let data = HwInfoVtd {
            flags: ERRATA_READ_ONLY,
            reserved: 0,
            cap_reg: iommu.cap.into_bits(),
            ecap_reg: iommu.ecap.into_bits(),
        };
        copy_out(&data.to_bytes(), info.data_uptr, info.data_len)?;
        info.data_len = INFO_SIZE;
        info.data_type = HW_INFO_INTEL_VTD;
        info.out_capabilities = 0;
        if iommu.has_dirty_tracking() {
            info.out_capabilities |= HW_CAP_DIRTY_TRACKING;
        }
        if !old {
            if !(description.ats && iommu.ecap.device_tlb()) {
                info.out_capabilities |= HW_CAP_ATS_NOT_SUPPORTED;
            }
            let bits = iommu.pasid_bits(description.max_pasid_bits);
            info.out_max_pasid_log2 = u8::try_from(bits).unwrap_or(0);
        }
        call.respond(&info)
    }

    /// There are no virtual IOMMUs of this kind.
    pub(super) fn viommu_alloc(&mut self, context: u64, call: &Call) -> Result<(), Errno> {
        let alloc: ViommuAlloc = call.get();
        if alloc.flags != 0 || alloc.kind == 0 {
            return Err(libc::EOPNOTSUPP);
        }
        self.context(context)?.device(alloc.dev_id)?;
        Err(libc::EOPNOTSUPP)
    }

    pub(super) fn vdevice_alloc(call: &Call) -> Result<(), Errno> {
        let _: VdeviceAlloc = call.get();
        Err(libc::ENOENT)
    }

    pub(super) fn veventq_alloc(call: &Call) -> Result<(), Errno> {
        let alloc: VeventqAlloc = call.get();
        if alloc.flags != 0 || alloc.reserved != 0 || alloc.kind == 0 {
            Err(libc::EOPNOTSUPP)
        } else if alloc.veventq_depth == 0 || alloc.veventq_depth > MAX_EVENTS {
            Err(libc::EINVAL)
        } else {
            Err(libc::ENOENT)
        }
    }

    pub(super) fn hw_queue_alloc(call: &Call) -> Result<(), Errno> {
        let alloc: HwQueueAlloc = call.get();
        if alloc.flags != 0 || alloc.kind == 0 {
            return Err(libc::EOPNOTSUPP);
        }
        if alloc.length == 0 {
            return Err(libc::EINVAL);
        }
        alloc
            .nesting_parent_iova
            .checked_add(alloc.length.wrapping_sub(1))
            .ok_or(libc::EOVERFLOW)?;
        Err(libc::ENOENT)
    }
}

/// Fill the caller's `room` bytes with `data` and zeros.
fn copy_out(data: &[u8], to: u64, room: u32) -> Result<(), Errno> {
    let part = data.get(..data.len().min(room as usize)).unwrap_or(data);
    user::write(to, part).map_err(|_| libc::EFAULT)?;
    let zeros = [0; CHUNK as usize];
    let mut done = part.len() as u64;
    while done < u64::from(room) {
        let part = u64::from(room).wrapping_sub(done).min(CHUNK);
        let bytes = zeros.get(..part as usize).unwrap_or_default();
        user::write(to.wrapping_add(done), bytes).map_err(|_| libc::EFAULT)?;
        done = done.wrapping_add(part);
    }
    Ok(())
}
