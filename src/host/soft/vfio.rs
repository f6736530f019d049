//! vfio devices: bound to an iommufd, attached to its HWPTs, and closed (the kernel's
//! `vfio_device` and `iommufd_device`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::dispatch::{Call, leading_size};
use super::fault::{PageAnswer, TwinPageRequest};
use super::group::{NO_PASID, group_key};
use super::hardware::DeviceHardware;
use super::objects::Kind as Object;
use super::{File, Kernel, State, TwinDevice};
use crate::host::Errno;
use crate::host::ioctl::Fd;
use crate::host::uapi::{VFIO_PASID, VfioAttach, VfioBind, VfioDetach, request};
use crate::memory::user;

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

/// A device.
#[derive(Debug)]
pub(super) struct Device {
    pub description: TwinDevice,
    pub hardware: Arc<DeviceHardware>,
    /// Its group's key.
    pub group: u64,
    pub bound: Option<Bound>,
    /// What vfio thinks: attached, and which PASIDs are.
    attached: bool,
    pasids: BTreeSet<u32>,
    /// The domain whose ID is held for each PASID.
    pub domain_ids: BTreeMap<u32, u64>,
    /// Page requests of groups whose last one has not come.
    pub partial: Vec<TwinPageRequest>,
    pub answers: VecDeque<PageAnswer>,
}

impl Device {
    pub fn new(fd: Fd, description: TwinDevice, hardware: Arc<DeviceHardware>) -> Self {
        Self {
            description,
            hardware,
            group: group_key(description.group, fd),
            bound: None,
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
    pub fn max_pasids(&self) -> u32 {
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
        // The group belongs to one iommufd (iommu_device_claim_dma_owner).
        let group = self.group(fd)?;
        if group.owner.is_some_and(|owner| owner != context) {
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
        let group = self.group(fd)?;
        group.owner = Some(context);
        group.bound = group.bound.saturating_add(1);
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
        // vfio's table of PASIDs has no numbers beyond these. Its lookup returns an error there, and is taken
        // to have found the one number that looks like that error (ida_exists).
        match i32::try_from(pasid) {
            Err(_) if pasid == libc::EINVAL.unsigned_abs().wrapping_neg() => {
                return self.change(fd, pasid, pt_id, true);
            }
            Err(_) => return Err(libc::ENOSPC),
            Ok(_) => {}
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

    /// The device's file is closed, and the device unplugged.
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
            if let Ok(group) = self.group(fd) {
                group.bound = group.bound.saturating_sub(1);
                if group.bound == 0 {
                    group.owner = None;
                }
            }
            self.put_context(bound.context);
        }
        self.unplug(fd);
    }
}

const _: () = assert!(size_of::<VfioBind>() == BIND_SIZE);
