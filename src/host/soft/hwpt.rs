//! `IOMMU_HWPT_ALLOC`, and the end of an HWPT.

use std::sync::Arc;

use parking_lot::Mutex;

use super::dispatch::Call;
use super::domain::{Format, Nested, Paging};
use super::objects::{Kind as Object, NestedHwpt, PagingHwpt};
use super::{Kernel, State};
use crate::host::uapi::{
    HWPT_DATA_NONE, HWPT_DATA_VTD_S1, HWPT_DIRTY_TRACKING, HWPT_FAULT_ID_VALID, HWPT_NEST_PARENT,
    HWPT_PASID, HwptAlloc, Plain, VtdS1,
};
use crate::host::{Errno, HwInfo};
use crate::memory::user;

/// `sizeof(struct iommu_hwpt_vtd_s1)`, which the length must be exactly.
const VTD_S1_SIZE: u32 = 24;

/// An HWPT that is being made, with what undoes it.
struct New {
    kind: Object,
    /// The IOAS whose domain it became.
    filled: Option<u32>,
}

impl State {
    pub(super) fn hwpt_alloc(&mut self, context: u64, call: &Call) -> Result<(), Errno> {
        let mut alloc: HwptAlloc = call.get();
        if alloc.reserved != 0 {
            return Err(libc::EOPNOTSUPP);
        }
        if (alloc.data_type == HWPT_DATA_NONE) != (alloc.data_len == 0) {
            return Err(libc::EINVAL);
        }
        let owner = self.context(context)?;
        let fd = owner.device(alloc.dev_id)?;
        let id = owner.free_id()?;
        let iommu = self.device(fd)?.hardware.iommu;
        let new = match self.context(context)?.get(alloc.pt_id) {
            Some(Object::Ioas(_)) => {
                let user_data = alloc.data_len != 0;
                self.new_paging(context, alloc.pt_id, &iommu, alloc.flags, user_data)?
            }
            Some(Object::Paging(_)) => self.new_nested(context, &iommu, &alloc)?,
            _ => return Err(libc::EINVAL),
        };
        let result = self.finish(context, call, &mut alloc, id);
        if let Err(errno) = result {
            self.undo(context, &new);
            return Err(errno);
        }
        self.publish(context, new, alloc_fault(&alloc))?;
        Ok(())
    }

    /// The last things that can fail.
    fn finish(
        &mut self,
        context: u64,
        call: &Call,
        alloc: &mut HwptAlloc,
        id: u32,
    ) -> Result<(), Errno> {
        if let Some(fault) = alloc_fault(alloc) {
            self.context(context)?.fault(fault)?;
        }
        alloc.out_hwpt_id = id;
        call.respond(alloc)
    }

    /// Make a finished HWPT an object.
    fn publish(&mut self, context: u64, mut new: New, fault: Option<u32>) -> Result<u32, Errno> {
        let owner = self.context(context)?;
        if let Some(fault) = fault {
            owner.hold(fault);
        }
        match &mut new.kind {
            Object::Paging(hwpt) => {
                hwpt.fault = fault;
                owner.hold(hwpt.ioas);
            }
            Object::Nested(hwpt) => {
                hwpt.fault = fault;
                owner.hold(hwpt.parent);
                hwpt.domain.parent.add_child(&hwpt.domain);
            }
            _ => {}
        }
        let id = self.insert(context, new.kind)?;
        if let Some(ioas) = new.filled {
            self.context(context)?.ioas(ioas)?.hwpts.push(id);
        }
        Ok(id)
    }

    fn undo(&mut self, context: u64, new: &New) {
        if let (Some(ioas), Object::Paging(hwpt)) = (new.filled, &new.kind) {
            if let Ok(ioas) = self.context(context).and_then(|owner| owner.ioas(ioas)) {
                ioas.remove_domain(hwpt.domain.key);
            }
        }
    }

    /// `intel_iommu_domain_alloc_paging_flags`: the format of an HWPT on an IOAS.
    fn paging_format(&self, iommu: &HwInfo, flags: u32, user_data: bool) -> Result<Format, Errno> {
        if user_data {
            return Err(libc::EOPNOTSUPP);
        }
        let prefers_first =
            self.config.kernel != Kernel::V6_12 && self.config.quirks.first_stage_default;
        if prefers_first && flags & !HWPT_PASID == 0 && iommu.has_first_stage() {
            return Ok(iommu.first_stage_format());
        }
        let refused = (flags & HWPT_NEST_PARENT != 0 && !iommu.has_nesting())
            || (flags & HWPT_DIRTY_TRACKING != 0 && !iommu.has_dirty_tracking())
            || (!iommu.has_second_stage() && self.config.kernel != Kernel::V6_12);
        if refused {
            return Err(libc::EOPNOTSUPP);
        }
        iommu.second_stage_format()
    }

    /// An HWPT on an IOAS (`iommufd_hwpt_paging_alloc`) up to the domain.
    fn new_domain(
        &mut self,
        context: u64,
        ioas: u32,
        iommu: &HwInfo,
        flags: u32,
        user_data: bool,
    ) -> Result<Arc<Paging>, Errno> {
        let known = match self.config.kernel {
            Kernel::V6_12 => HWPT_NEST_PARENT | HWPT_DIRTY_TRACKING,
            Kernel::V7_3 => {
                HWPT_NEST_PARENT | HWPT_DIRTY_TRACKING | HWPT_FAULT_ID_VALID | HWPT_PASID
            }
        };
        if flags & !known != 0
            || (flags & HWPT_DIRTY_TRACKING != 0 && !iommu.has_dirty_tracking())
            || (flags & HWPT_FAULT_ID_VALID != 0 && flags & HWPT_NEST_PARENT != 0)
        {
            return Err(libc::EOPNOTSUPP);
        }
        let format = self.paging_format(iommu, flags & !HWPT_FAULT_ID_VALID, user_data)?;
        let key = self.new_key();
        let pins = Arc::clone(&self.context(context)?.ioas(ioas)?.pins);
        Ok(Arc::new(Paging::new(
            key,
            pins,
            format,
            flags & HWPT_NEST_PARENT != 0,
            flags & HWPT_DIRTY_TRACKING != 0,
        )))
    }

    fn new_paging(
        &mut self,
        context: u64,
        id: u32,
        iommu: &HwInfo,
        flags: u32,
        user_data: bool,
    ) -> Result<New, Errno> {
        let domain = self.new_domain(context, id, iommu, flags, user_data)?;
        self.fill(context, id, &domain)?;
        let hwpt = PagingHwpt {
            ioas: id,
            domain,
            auto: false,
            pasid: flags & HWPT_PASID != 0,
            fault: None,
        };
        Ok(New {
            kind: Object::Paging(hwpt),
            filled: Some(id),
        })
    }

    /// A domain that an attachment to an IOAS makes, not yet with the maps.
    pub(super) fn new_auto(
        &mut self,
        context: u64,
        ioas: u32,
        iommu: &HwInfo,
    ) -> Result<PagingHwpt, Errno> {
        let domain = self.new_domain(context, ioas, iommu, 0, false)?;
        Ok(PagingHwpt {
            ioas,
            domain,
            auto: true,
            pasid: false,
            fault: None,
        })
    }

    /// Give a domain the maps of an IOAS.
    pub(super) fn fill(
        &mut self,
        context: u64,
        ioas: u32,
        domain: &Arc<Paging>,
    ) -> Result<(), Errno> {
        let limits = self.limits(context)?;
        self.context(context)?
            .ioas(ioas)?
            .add_domain(Arc::clone(domain), limits)
    }

    /// Make an automatic domain an object.
    pub(super) fn publish_auto(&mut self, context: u64, hwpt: PagingHwpt) -> Result<u32, Errno> {
        let filled = Some(hwpt.ioas);
        let kind = Object::Paging(hwpt);
        self.publish(context, New { kind, filled }, None)
    }

    /// An HWPT on an HWPT (`iommufd_hwpt_nested_alloc`).
    fn new_nested(
        &mut self,
        context: u64,
        iommu: &HwInfo,
        alloc: &HwptAlloc,
    ) -> Result<New, Errno> {
        let known = match self.config.kernel {
            Kernel::V6_12 => HWPT_FAULT_ID_VALID,
            Kernel::V7_3 => HWPT_FAULT_ID_VALID | HWPT_PASID,
        };
        if alloc.flags & !known != 0 || alloc.data_len == 0 {
            return Err(libc::EOPNOTSUPP);
        }
        let hwpt = self.context(context)?.paging(alloc.pt_id)?;
        if hwpt.auto || !hwpt.domain.nest_parent {
            return Err(libc::EINVAL);
        }
        let parent = Arc::clone(&hwpt.domain);
        if !iommu.has_nesting() || alloc.data_type != HWPT_DATA_VTD_S1 {
            return Err(libc::EOPNOTSUPP);
        }
        if parent.format.first_stage || alloc.data_len != VTD_S1_SIZE {
            return Err(libc::EINVAL);
        }
        let mut bytes = [0; VTD_S1_SIZE as usize];
        user::read(alloc.data_uptr, &mut bytes).map_err(|_| libc::EFAULT)?;
        let domain = Arc::new(Nested {
            key: self.new_key(),
            data: VtdS1::from_bytes(&bytes),
            parent,
            tags: Mutex::default(),
        });
        let hwpt = NestedHwpt {
            parent: alloc.pt_id,
            domain,
            pasid: alloc.flags & HWPT_PASID != 0,
            fault: None,
        };
        Ok(New {
            kind: Object::Nested(hwpt),
            filled: None,
        })
    }

    /// An `HWPT_PAGING` ended.
    pub(super) fn drop_paging(&mut self, context: u64, id: u32, hwpt: &PagingHwpt) {
        let Ok(owner) = self.context(context) else {
            return;
        };
        if let Ok(ioas) = owner.ioas(hwpt.ioas) {
            ioas.hwpts.retain(|&other| other != id);
            ioas.remove_domain(hwpt.domain.key);
        }
        owner.put(hwpt.ioas);
        if let Some(fault) = hwpt.fault {
            owner.put(fault);
        }
    }
}

/// The fault queue that is asked for.
fn alloc_fault(alloc: &HwptAlloc) -> Option<u32> {
    (alloc.flags & HWPT_FAULT_ID_VALID != 0).then_some(alloc.fault_id)
}
