//! vfio devices: bound to an iommufd, attached to its HWPTs, and closed (the kernel's
//! `vfio_device` and `iommufd_device`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::dispatch::{Call, leading_size};
use super::domain::Domain;
use super::fault::{PageAnswer, TwinPageRequest};
use super::hardware::{DeviceHardware, PasidEntry};
use super::ioas::Owner;
use super::objects::Kind as Object;
use super::{File, Kernel, State, TwinDevice};
use crate::host::Errno;
use crate::host::ioctl::Fd;
use crate::host::uapi::{
    MSI_LAST, MSI_START, VFIO_PASID, VfioAttach, VfioBind, VfioDetach, request,
};
use crate::memory::user;

/// The PASID that stands for requests without one.
const NO_PASID: u32 = 0;

/// The least `argsz` of the calls, and that of attaching and detaching a PASID.
const BIND_LEAST: usize = 16;
const BIND_SIZE: usize = 24;
const ATTACH_LEAST: usize = 12;
const ATTACH_PASID: usize = 16;
const DETACH_LEAST: usize = 8;
const DETACH_PASID: usize = 12;

/// `VFIO_DEVICE_BIND_FLAG_TOKEN`.
const BIND_TOKEN: u32 = 1;
/// Bytes of a token.
const TOKEN_SIZE: usize = 16;

/// Offsets of `out_devid` and of `pt_id`.
const BIND_DEVICE_ID: u64 = 12;
const ATTACH_PT_ID: u64 = 8;

/// To which iommufd a device is bound.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    pub context: u64,
    /// Its object ID there.
    pub id: u32,
}

/// What iommufd has on record for a PASID.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    pub hwpt: u32,
    /// Number of the attachment.
    pub handle: u64,
}

/// A device.
#[derive(Debug)]
pub(super) struct Device {
    pub description: TwinDevice,
    pub hardware: Arc<DeviceHardware>,
    pub bound: Option<Bound>,
    /// iommufd's records by PASID, 0 for requests without one. The hardware may be blocked
    /// all the same.
    pub records: BTreeMap<u32, Record>,
    /// What vfio thinks: attached, and which PASIDs are.
    attached: bool,
    pasids: BTreeSet<u32>,
    /// The domain whose ID is held for each PASID.
    domain_ids: BTreeMap<u32, u64>,
    /// Page requests of groups whose last one has not come.
    pub partial: Vec<TwinPageRequest>,
    pub answers: VecDeque<PageAnswer>,
}

impl Device {
    pub fn new(description: TwinDevice, hardware: Arc<DeviceHardware>) -> Self {
        Self {
            description,
            hardware,
            bound: None,
            records: BTreeMap::new(),
            attached: false,
            pasids: BTreeSet::new(),
            domain_ids: BTreeMap::new(),
            partial: Vec::new(),
            answers: VecDeque::new(),
        }
    }

    /// Is PRI enabled?
    pub fn has_page_requests(&self) -> bool {
        self.description.ats && self.description.pri && self.hardware.iommu.has_page_requests()
    }

    /// PASIDs are below this; 0 if there are none.
    fn max_pasids(&self) -> u32 {
        let bits = self
            .hardware
            .iommu
            .pasid_bits(self.description.max_pasid_bits);
        if bits == 0 {
            0
        } else {
            1_u32.wrapping_shl(bits)
        }
    }
}

impl State {
    pub(super) fn device_ioctl(
        &mut self,
        fd: Fd,
        request: u32,
        argument: u64,
    ) -> Result<(), Errno> {
        let bound = self.device(fd)?.bound.is_some();
        match request {
            request::VFIO_BIND => self.bind(fd, argument),
            _ if !bound => Err(libc::EINVAL),
            request::VFIO_ATTACH => self.attach(fd, argument),
            request::VFIO_DETACH => self.detach_ioctl(fd, argument),
            _ => Err(libc::ENOTTY),
        }
    }

    fn bind(&mut self, fd: Fd, argument: u64) -> Result<(), Errno> {
        let old = self.config.kernel == Kernel::V6_12;
        let call = if old {
            let call = Call::read(argument, BIND_LEAST, BIND_LEAST)?;
            if (call.get::<VfioBind>().argsz as usize) < BIND_LEAST {
                return Err(libc::EINVAL);
            }
            call
        } else {
            let size = leading_size(argument)?;
            if size < BIND_LEAST {
                return Err(libc::EINVAL);
            }
            Call::read(argument, size, BIND_SIZE)?
        };
        let bind: VfioBind = call.get();
        let known = if old { 0 } else { BIND_TOKEN };
        if bind.iommufd < 0 || bind.flags & !known != 0 {
            return Err(libc::EINVAL);
        }
        if let Some(injected) = self.meters.injected(request::VFIO_BIND) {
            return Err(injected.errno);
        }
        if self.device(fd)?.bound.is_some() {
            return Err(libc::EINVAL);
        }
        if bind.flags & BIND_TOKEN != 0 {
            user::read(bind.token_uuid_ptr, &mut [0; TOKEN_SIZE]).map_err(|_| libc::EFAULT)?;
            // Tokens are for virtual functions.
            return Err(libc::EINVAL);
        }
        let context = match self.files.get(&bind.iommufd) {
            Some(File::Iommu(context)) => *context,
            Some(_) => return Err(libc::EBADFD),
            None => return Err(libc::EBADF),
        };
        if self.config.unsafe_interrupts {
            return Err(libc::EPERM);
        }
        let id = self.insert(context, Object::Device(fd))?;
        if let Err(errno) = call.write_at(BIND_DEVICE_ID, &id.to_ne_bytes()) {
            self.remove(context, id);
            return Err(errno);
        }
        let owner = self.context(context)?;
        owner.hold(id);
        owner.users = owner.users.saturating_add(1);
        self.device(fd)?.bound = Some(Bound { context, id });
        Ok(())
    }

    fn attach(&mut self, fd: Fd, argument: u64) -> Result<(), Errno> {
        let (call, with_pasid) = self.pasid_call(argument, ATTACH_LEAST, ATTACH_PASID)?;
        let mut attach: VfioAttach = call.get();
        let pasid = if with_pasid { attach.pasid } else { NO_PASID };
        if let Some(injected) = self.meters.injected(request::VFIO_ATTACH) {
            if injected.blocked {
                self.block(fd, pasid);
            }
            return Err(injected.errno);
        }
        attach.pt_id = if with_pasid {
            self.vfio_attach_pasid(fd, pasid, attach.pt_id)?
        } else {
            self.vfio_attach(fd, attach.pt_id)?
        };
        if let Err(errno) = call.write_at(ATTACH_PT_ID, &attach.pt_id.to_ne_bytes()) {
            // Also if it was a PASID that was attached.
            self.vfio_detach(fd);
            return Err(errno);
        }
        Ok(())
    }

    fn detach_ioctl(&mut self, fd: Fd, argument: u64) -> Result<(), Errno> {
        let (call, with_pasid) = self.pasid_call(argument, DETACH_LEAST, DETACH_PASID)?;
        let detach: VfioDetach = call.get();
        if let Some(injected) = self.meters.injected(request::VFIO_DETACH) {
            return Err(injected.errno);
        }
        if !with_pasid {
            self.vfio_detach(fd);
        } else if self.device(fd)?.pasids.remove(&detach.pasid) {
            self.detach(fd, detach.pasid);
        }
        Ok(())
    }

    /// The argument of attaching or detaching, and whether it is of a PASID. Unlike
    /// iommufd, vfio looks no further than what it needs.
    fn pasid_call(&self, argument: u64, least: usize, full: usize) -> Result<(Call, bool), Errno> {
        let call = Call::read(argument, least, least)?;
        // `argsz` and `flags` are the first of both structures.
        let head: VfioDetach = call.get();
        if (head.argsz as usize) < least {
            return Err(libc::EINVAL);
        }
        let known = match self.config.kernel {
            Kernel::V6_12 => 0,
            Kernel::V7_3 => VFIO_PASID,
        };
        if head.flags & !known != 0 {
            return Err(libc::EINVAL);
        }
        if head.flags & VFIO_PASID == 0 {
            return Ok((call, false));
        }
        if (head.argsz as usize) < full {
            return Err(libc::EINVAL);
        }
        Ok((Call::read(argument, full, full)?, true))
    }

    /// `vfio_iommufd_physical_attach_ioas`.
    fn vfio_attach(&mut self, fd: Fd, pt_id: u32) -> Result<u32, Errno> {
        let replace = self.device(fd)?.attached;
        let hwpt = self.change(fd, NO_PASID, pt_id, replace)?;
        self.device(fd)?.attached = true;
        Ok(hwpt)
    }

    /// `vfio_iommufd_physical_pasid_attach_ioas`.
    fn vfio_attach_pasid(&mut self, fd: Fd, pasid: u32, pt_id: u32) -> Result<u32, Errno> {
        // vfio's table of PASIDs has no numbers beyond these.
        if i32::try_from(pasid).is_err() {
            return Err(libc::ENOSPC);
        }
        if pasid == NO_PASID && !self.config.quirks.pasid_zero_is_rid {
            return Err(libc::EINVAL);
        }
        let replace = self.device(fd)?.pasids.contains(&pasid);
        let hwpt = self.change(fd, pasid, pt_id, replace)?;
        self.device(fd)?.pasids.insert(pasid);
        Ok(hwpt)
    }

    fn vfio_detach(&mut self, fd: Fd) {
        let attached = self
            .device(fd)
            .is_ok_and(|device| std::mem::take(&mut device.attached));
        if attached {
            self.detach(fd, NO_PASID);
        }
    }

    /// `iommufd_device_change_pt`. Gives the HWPT.
    fn change(&mut self, fd: Fd, pasid: u32, pt_id: u32, replace: bool) -> Result<u32, Errno> {
        let context = self.bound(fd)?.context;
        match self.context(context)?.get(pt_id) {
            None => Err(libc::ENOENT),
            Some(Object::Paging(_) | Object::Nested(_)) => {
                self.change_to(fd, pasid, pt_id, replace)?;
                Ok(pt_id)
            }
            Some(Object::Ioas(_)) => self.change_to_ioas(fd, pasid, pt_id, replace),
            Some(_) => Err(libc::EINVAL),
        }
    }

    fn change_to(&mut self, fd: Fd, pasid: u32, hwpt: u32, replace: bool) -> Result<(), Errno> {
        if replace {
            self.do_replace(fd, pasid, hwpt)
        } else {
            self.do_attach(fd, pasid, hwpt)
        }
    }

    /// `iommufd_device_auto_get_domain`: any automatic domain of the IOAS will do, else
    /// there is a new one.
    fn change_to_ioas(
        &mut self,
        fd: Fd,
        pasid: u32,
        ioas: u32,
        replace: bool,
    ) -> Result<u32, Errno> {
        let context = self.bound(fd)?.context;
        let owner = self.context(context)?;
        let hwpts = owner.ioas(ioas)?.hwpts.clone();
        for hwpt in hwpts {
            let automatic = self
                .context(context)?
                .paging(hwpt)
                .is_ok_and(|hwpt| hwpt.auto);
            if !automatic {
                continue;
            }
            match self.change_to(fd, pasid, hwpt, replace) {
                Ok(()) => return Ok(hwpt),
                Err(libc::EINVAL) => {}
                Err(errno) => return Err(errno),
            }
        }
        let iommu = self.device(fd)?.hardware.iommu;
        let auto = self.new_auto(context, ioas, &iommu)?;
        let domain = Arc::clone(&auto.domain);
        // The object must exist to be attached to; it goes again if anything fails. It is
        // first attached and then filled, but a replacement is filled before.
        let hwpt = self.publish_auto(context, auto)?;
        let result = if replace {
            self.fill(context, ioas, &domain)
                .and_then(|()| self.change_to(fd, pasid, hwpt, true))
        } else {
            self.change_to(fd, pasid, hwpt, false)
        };
        if let Err(errno) = result {
            self.remove(context, hwpt);
            return Err(errno);
        }
        if !replace {
            if let Err(errno) = self.fill(context, ioas, &domain) {
                self.detach(fd, pasid);
                return Err(errno);
            }
        }
        Ok(hwpt)
    }

    pub(super) fn bound(&mut self, fd: Fd) -> Result<Bound, Errno> {
        self.device(fd)?.bound.ok_or(libc::EINVAL)
    }

    /// `iommufd_hw_pagetable_attach`.
    fn do_attach(&mut self, fd: Fd, pasid: u32, hwpt: u32) -> Result<(), Errno> {
        let bound = self.bound(fd)?;
        if self.device(fd)?.records.contains_key(&pasid) {
            return Err(libc::EBUSY);
        }
        let ioas = self.context(bound.context)?.paging_of(hwpt)?.ioas;
        if pasid == NO_PASID {
            self.reserve(bound.context, ioas, fd)?;
        }
        let result = self
            .check_pasid(fd, pasid, hwpt)
            .and_then(|()| self.program(fd, pasid, hwpt, false));
        if let Err(errno) = result {
            if pasid == NO_PASID {
                self.unreserve(bound.context, ioas, fd);
            }
            return Err(errno);
        }
        self.record(fd, pasid, hwpt)?;
        let owner = self.context(bound.context)?;
        owner.hold(hwpt);
        owner.hold(bound.id);
        Ok(())
    }

    /// `iommufd_device_do_replace`.
    fn do_replace(&mut self, fd: Fd, pasid: u32, hwpt: u32) -> Result<(), Errno> {
        let context = self.bound(fd)?.context;
        let record = self.device(fd)?.records.get(&pasid).copied();
        let old = record.ok_or(libc::EINVAL)?;
        if old.hwpt == hwpt {
            if self.config.quirks.same_hwpt_ignored {
                return Ok(());
            }
            return self.program(fd, pasid, hwpt, true);
        }
        let ioas = self.context(context)?.paging_of(hwpt)?.ioas;
        let old_ioas = self.context(context)?.paging_of(old.hwpt)?.ioas;
        let reserve = pasid == NO_PASID;
        if reserve && ioas != old_ioas {
            self.reserve(context, ioas, fd)?;
        }
        let result = self
            .check_pasid(fd, pasid, hwpt)
            .and_then(|()| self.program(fd, pasid, hwpt, true));
        if let Err(errno) = result {
            if reserve && (ioas != old_ioas || self.config.quirks.failed_replace_unreserves) {
                self.unreserve(context, ioas, fd);
            }
            return Err(errno);
        }
        if reserve && ioas != old_ioas {
            self.unreserve(context, old_ioas, fd);
        }
        self.answer_record(context, old);
        self.record(fd, pasid, hwpt)?;
        self.context(context)?.hold(hwpt);
        self.put_hwpt(context, old.hwpt);
        Ok(())
    }

    fn record(&mut self, fd: Fd, pasid: u32, hwpt: u32) -> Result<(), Errno> {
        let handle = self.new_key();
        let record = Record { hwpt, handle };
        self.device(fd)?.records.insert(pasid, record);
        Ok(())
    }

    /// Page requests that came under an attachment are answered.
    fn answer_record(&mut self, context: u64, record: Record) {
        let fault = self
            .context(context)
            .ok()
            .and_then(|owner| owner.fault_of(record.hwpt));
        if let Some(fault) = fault {
            self.answer_attachment(context, fault, record.handle);
        }
    }

    /// One user of an HWPT fewer; an automatic one goes with the last.
    fn put_hwpt(&mut self, context: u64, hwpt: u32) {
        let Ok(owner) = self.context(context) else {
            return;
        };
        owner.put(hwpt);
        let automatic = owner.paging(hwpt).is_ok_and(|hwpt| hwpt.auto);
        if automatic && owner.is_unused(hwpt) {
            self.remove(context, hwpt);
        }
    }

    /// `iommufd_hw_pagetable_detach`.
    fn detach(&mut self, fd: Fd, pasid: u32) {
        let Ok(bound) = self.bound(fd) else { return };
        let record = self
            .device(fd)
            .ok()
            .and_then(|device| device.records.remove(&pasid));
        let Some(record) = record else { return };
        self.block(fd, pasid);
        self.answer_record(bound.context, record);
        let ioas = self
            .context(bound.context)
            .and_then(|owner| owner.paging_of(record.hwpt).map(|hwpt| hwpt.ioas));
        if let (Ok(ioas), NO_PASID) = (ioas, pasid) {
            self.unreserve(bound.context, ioas, fd);
        }
        self.put_hwpt(bound.context, record.hwpt);
        if let Ok(owner) = self.context(bound.context) {
            owner.put(bound.id);
        }
        self.drop_partial(fd, bound.context);
    }

    /// Unfinished groups go when nothing that the device is attached to takes requests.
    fn drop_partial(&mut self, fd: Fd, context: u64) {
        let records: Vec<u32> = match self.device(fd) {
            Ok(device) if !device.partial.is_empty() => {
                device.records.values().map(|record| record.hwpt).collect()
            }
            _ => return,
        };
        let takes = self
            .context(context)
            .is_ok_and(|owner| records.iter().any(|&hwpt| owner.fault_of(hwpt).is_some()));
        if !takes {
            if let Ok(device) = self.device(fd) {
                device.partial.clear();
            }
        }
    }

    /// The device's file is closed.
    pub(super) fn close_device(&mut self, fd: Fd) {
        if let Ok(bound) = self.bound(fd) {
            let pasids = self
                .device(fd)
                .map(|device| std::mem::take(&mut device.pasids))
                .unwrap_or_default();
            for pasid in pasids {
                self.detach(fd, pasid);
            }
            self.vfio_detach(fd);
            if let Ok(owner) = self.context(bound.context) {
                owner.put(bound.id);
            }
            self.remove(bound.context, bound.id);
            self.put_context(bound.context);
        }
        self.devices.remove(&fd);
    }

    /// The interrupt window of a device is taken out of an IOAS.
    fn reserve(&mut self, context: u64, ioas: u32, fd: Fd) -> Result<(), Errno> {
        let ioas = self.context(context)?.ioas(ioas)?;
        ioas.reserve(MSI_START, MSI_LAST, Owner::Device(fd))
    }

    fn unreserve(&mut self, context: u64, ioas: u32, fd: Fd) {
        if let Ok(ioas) = self.context(context).and_then(|owner| owner.ioas(ioas)) {
            ioas.unreserve(Owner::Device(fd));
        }
    }

    /// `iommufd_hwpt_pasid_compat`.
    fn check_pasid(&mut self, fd: Fd, pasid: u32, hwpt: u32) -> Result<(), Errno> {
        let context = self.bound(fd)?.context;
        let device = self.device(fd)?;
        let rid = device.records.get(&NO_PASID).map(|record| record.hwpt);
        let others = device.records.keys().any(|&other| other != NO_PASID);
        let owner = self.context(context)?;
        let allows = |hwpt: u32| match owner.get(hwpt) {
            Some(Object::Paging(hwpt)) => hwpt.pasid,
            Some(Object::Nested(hwpt)) => hwpt.pasid,
            _ => false,
        };
        let ok = if pasid == NO_PASID {
            allows(hwpt) || !others
        } else {
            allows(hwpt) && rid.is_none_or(allows)
        };
        if ok { Ok(()) } else { Err(libc::EINVAL) }
    }

    /// The hardware forgets what a PASID is attached to.
    fn block(&mut self, fd: Fd, pasid: u32) {
        let hardware = Arc::clone(&self.hardware);
        let Ok(device) = self.device(fd) else { return };
        device.hardware.set(&hardware.cache, pasid, None);
        let (iommu, domain) = (device.description.iommu, device.domain_ids.remove(&pasid));
        if let (Some(iommu), Some(domain)) = (self.iommus.get_mut(iommu), domain) {
            iommu.put_domain_id(domain);
        }
    }

    /// The core's and the Intel driver's side of attaching: check, and write the PASID
    /// entry.
    fn program(&mut self, fd: Fd, pasid: u32, hwpt: u32, replace: bool) -> Result<(), Errno> {
        let context = self.bound(fd)?.context;
        let owner = self.context(context)?;
        let domain = match owner.get(hwpt) {
            Some(Object::Paging(hwpt)) => Domain::Paging(Arc::clone(&hwpt.domain)),
            Some(Object::Nested(hwpt)) => Domain::Nested(Arc::clone(&hwpt.domain)),
            _ => return Err(libc::EINVAL),
        };
        let faults = owner.fault_of(hwpt).is_some();
        let old_kernel = self.config.kernel == Kernel::V6_12;
        // 6.12 attaches what was attached before once more.
        let blocks = self.config.quirks.failed_attach_blocks && !old_kernel;
        let device = self.device(fd)?;
        let (iommu, max_pasids) = (device.hardware.iommu, device.max_pasids());
        let takes_requests = device.has_page_requests();
        let no_requests = faults && !takes_requests;
        if no_requests && old_kernel {
            return Err(libc::ENODEV);
        }
        if pasid != NO_PASID {
            if max_pasids == 0 {
                return if self.config.quirks.pasid_of_none_ignored {
                    Ok(())
                } else {
                    Err(libc::EOPNOTSUPP)
                };
            }
            if pasid >= max_pasids && !replace {
                return Err(libc::EINVAL);
            }
        } else if blocks {
            self.block(fd, pasid);
        }
        iommu.check_domain(domain.paging())?;
        self.hold_domain_id(fd, &domain)?;
        let result = if no_requests {
            Err(libc::ENODEV)
        } else {
            self.write_entry(fd, pasid, &domain, blocks)
        };
        if result.is_err() {
            self.put_domain_id(fd, domain.key());
        }
        result
    }

    /// The last step, which tears down a PASID's entry before it can fail
    /// (`domain_setup_nested`).
    fn write_entry(
        &mut self,
        fd: Fd,
        pasid: u32,
        domain: &Domain,
        blocks: bool,
    ) -> Result<(), Errno> {
        let hardware = Arc::clone(&self.hardware);
        let device = self.device(fd)?;
        if blocks {
            device.hardware.set(&hardware.cache, pasid, None);
        }
        let entry = PasidEntry::new(&hardware.cache, &device.hardware.iommu, domain)?;
        device.hardware.set(&hardware.cache, pasid, Some(entry));
        let before = device.domain_ids.insert(pasid, domain.key());
        if let Some(before) = before {
            self.put_domain_id(fd, before);
        }
        Ok(())
    }

    fn hold_domain_id(&mut self, fd: Fd, domain: &Domain) -> Result<(), Errno> {
        let iommu = self.device(fd)?.description.iommu;
        let iommu = self.iommus.get_mut(iommu).ok_or(libc::ENODEV)?;
        iommu.hold_domain_id(domain.key())
    }

    fn put_domain_id(&mut self, fd: Fd, key: u64) {
        let index = self.device(fd).map(|device| device.description.iommu);
        if let Some(iommu) = index.ok().and_then(|index| self.iommus.get_mut(index)) {
            iommu.put_domain_id(key);
        }
    }
}

const _: () = assert!(size_of::<VfioBind>() == BIND_SIZE);
