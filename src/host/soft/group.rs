//! IOMMU groups, and what attaches them: the records of iommufd, the rules of the core and
//! of the Intel driver (the kernel's `iommufd_group` and `iommu_group`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::domain::Domain;
use super::hardware::PasidEntry;
use super::ioas::Owner;
use super::objects::Kind as Object;
use super::vfio::Device;
use super::{Kernel, State, TwinDevice};
use crate::host::Errno;
use crate::host::ioctl::Fd;
use crate::host::uapi::{MSI_LAST, MSI_START};

/// The PASID that stands for requests without one.
pub(super) const NO_PASID: u32 = 0;

/// What a group is attached to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attached {
    pub hwpt: u32,
    /// Number of the attachment.
    pub handle: u64,
    /// The device that was attached first.
    pub first: Fd,
}

/// What iommufd has on record for a PASID of a group.
#[derive(Debug)]
struct Record {
    attached: Attached,
    /// The devices that were attached one by one.
    devices: BTreeSet<Fd>,
}

/// An IOMMU group.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Its devices, bound or not.
    devices: BTreeSet<Fd>,
    /// The iommufd that its devices are bound to, and how many are.
    pub owner: Option<u64>,
    pub bound: usize,
    /// iommufd's records by PASID, 0 for requests without one. The hardware may be blocked
    /// all the same.
    records: BTreeMap<u32, Record>,
}

impl Group {
    pub fn attached(&self, pasid: u32) -> Option<Attached> {
        self.records.get(&pasid).map(|record| record.attached)
    }
}

/// Groups with a number have that as their key, others one that no number is.
pub(super) fn group_key(number: u32, fd: Fd) -> u64 {
    if number == 0 {
        u64::from(fd.unsigned_abs()).wrapping_add(1 << 32)
    } else {
        number.into()
    }
}

impl State {
    /// Can a device be in the group it is to be in?
    pub(super) fn check_group(&self, device: &TwinDevice) -> Result<(), Errno> {
        let others = self.groups.get(&group_key(device.group, 0));
        let other = others.and_then(|group| self.devices.get(group.devices.first()?));
        if other.is_some_and(|other| other.description.iommu != device.iommu) {
            return Err(libc::EINVAL);
        }
        Ok(())
    }

    pub(super) fn plug(&mut self, fd: Fd, device: Device) {
        let group = self.groups.entry(device.group).or_default();
        group.devices.insert(fd);
        self.devices.insert(fd, device);
    }

    /// A device's group.
    pub(super) fn group(&mut self, fd: Fd) -> Result<&mut Group, Errno> {
        let key = self.device(fd)?.group;
        self.groups.get_mut(&key).ok_or(libc::EBADF)
    }

    fn members(&mut self, fd: Fd) -> Vec<Fd> {
        self.group(fd)
            .map(|group| group.devices.iter().copied().collect())
            .unwrap_or_default()
    }

    /// `iommufd_hw_pagetable_attach`: the first device of a group attaches all of it, the
    /// others join.
    pub(super) fn do_attach(&mut self, fd: Fd, pasid: u32, hwpt: u32) -> Result<(), Errno> {
        let bound = self.bound(fd)?;
        let first = match self.group(fd)?.records.get(&pasid) {
            Some(record) if record.devices.contains(&fd) => return Err(libc::EBUSY),
            Some(record) if record.attached.hwpt != hwpt => return Err(libc::EINVAL),
            Some(_) => false,
            None => true,
        };
        let ioas = self.context(bound.context)?.paging_of(hwpt)?.ioas;
        if pasid == NO_PASID {
            self.reserve(bound.context, ioas, fd)?;
        }
        if first {
            let result = self
                .check_pasid(fd, pasid, hwpt)
                .and_then(|()| self.program(fd, pasid, hwpt, false));
            if let Err(errno) = result {
                if pasid == NO_PASID {
                    self.unreserve(bound.context, ioas, fd);
                }
                return Err(errno);
            }
            let handle = self.new_key();
            let record = Record {
                attached: Attached {
                    hwpt,
                    handle,
                    first: fd,
                },
                devices: BTreeSet::new(),
            };
            self.group(fd)?.records.insert(pasid, record);
        }
        if let Some(record) = self.group(fd)?.records.get_mut(&pasid) {
            record.devices.insert(fd);
        }
        let owner = self.context(bound.context)?;
        owner.hold(hwpt);
        owner.hold(bound.id);
        Ok(())
    }

    /// `iommufd_device_do_replace`: all devices of the group change.
    pub(super) fn do_replace(&mut self, fd: Fd, pasid: u32, hwpt: u32) -> Result<(), Errno> {
        let context = self.bound(fd)?.context;
        let record = self.group(fd)?.records.get(&pasid);
        let record = record.ok_or(libc::EINVAL)?;
        let (old, devices) = (record.attached, record.devices.clone());
        if !devices.contains(&fd) {
            return Err(libc::EINVAL);
        }
        if old.hwpt == hwpt {
            if self.config.quirks.same_hwpt_ignored {
                return Ok(());
            }
            return self.program(fd, pasid, hwpt, true);
        }
        let ioas = self.context(context)?.paging_of(hwpt)?.ioas;
        let old_ioas = self.context(context)?.paging_of(old.hwpt)?.ioas;
        let reserve = pasid == NO_PASID;
        let result = if reserve && ioas != old_ioas {
            devices
                .iter()
                .try_for_each(|&device| self.reserve(context, ioas, device))
        } else {
            Ok(())
        };
        let result = result
            .and_then(|()| self.check_pasid(fd, pasid, hwpt))
            .and_then(|()| self.program(fd, pasid, hwpt, true));
        if let Err(errno) = result {
            if reserve && (ioas != old_ioas || self.config.quirks.failed_replace_unreserves) {
                for &device in &devices {
                    self.unreserve(context, ioas, device);
                }
            }
            return Err(errno);
        }
        if reserve && ioas != old_ioas {
            for &device in &devices {
                self.unreserve(context, old_ioas, device);
            }
        }
        self.answer_record(context, old);
        let handle = self.new_key();
        if let Some(record) = self.group(fd)?.records.get_mut(&pasid) {
            record.attached = Attached {
                hwpt,
                handle,
                first: fd,
            };
        }
        for _ in &devices {
            self.context(context)?.hold(hwpt);
            self.put_hwpt(context, old.hwpt);
        }
        Ok(())
    }

    /// Page requests that came under an attachment are answered.
    fn answer_record(&mut self, context: u64, record: Attached) {
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

    /// `iommufd_hw_pagetable_detach`: the last device of a group detaches all of it.
    pub(super) fn detach(&mut self, fd: Fd, pasid: u32) {
        let Ok(bound) = self.bound(fd) else { return };
        let Ok(group) = self.group(fd) else { return };
        let Some(record) = group.records.get_mut(&pasid) else {
            return;
        };
        if !record.devices.remove(&fd) {
            return;
        }
        let attached = record.attached;
        if record.devices.is_empty() {
            group.records.remove(&pasid);
            self.block(fd, pasid);
            self.answer_record(bound.context, attached);
            for member in self.members(fd) {
                self.drop_partial(member, bound.context);
            }
        }
        let ioas = self
            .context(bound.context)
            .and_then(|owner| owner.paging_of(attached.hwpt).map(|hwpt| hwpt.ioas));
        if let (Ok(ioas), NO_PASID) = (ioas, pasid) {
            self.unreserve(bound.context, ioas, fd);
        }
        self.put_hwpt(bound.context, attached.hwpt);
        if let Ok(owner) = self.context(bound.context) {
            owner.put(bound.id);
        }
    }

    /// Unfinished groups of requests go when nothing that the device is attached to takes
    /// them.
    fn drop_partial(&mut self, fd: Fd, context: u64) {
        let Some(device) = self.devices.get_mut(&fd) else {
            return;
        };
        // Devices with many PASIDs lose them one by one.
        if device.partial.is_empty() {
            return;
        }
        let group = self.groups.get(&device.group);
        let takes = self.contexts.get(&context).is_some_and(|owner| {
            let mut records = group.into_iter().flat_map(|group| group.records.values());
            records.any(|record| owner.fault_of(record.attached.hwpt).is_some())
        });
        if !takes {
            device.partial.clear();
        }
    }

    pub(super) fn unplug(&mut self, fd: Fd) {
        // What is left is of the group's other devices.
        let held: Vec<u32> = self
            .device(fd)
            .map(|device| device.domain_ids.keys().copied().collect())
            .unwrap_or_default();
        for pasid in held {
            self.block_device(fd, pasid);
        }
        if let Some(device) = self.devices.remove(&fd) {
            if let Some(group) = self.groups.get_mut(&device.group) {
                group.devices.remove(&fd);
                if group.devices.is_empty() {
                    self.groups.remove(&device.group);
                }
            }
        }
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
        let group = self.group(fd)?;
        let rid = group.attached(NO_PASID).map(|record| record.hwpt);
        let others = group.records.keys().any(|&other| other != NO_PASID);
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

    /// The hardware forgets what a PASID of a group is attached to.
    pub(super) fn block(&mut self, fd: Fd, pasid: u32) {
        for member in self.members(fd) {
            self.block_device(member, pasid);
        }
    }

    fn block_device(&mut self, fd: Fd, pasid: u32) {
        let hardware = Arc::clone(&self.hardware);
        let Ok(device) = self.device(fd) else { return };
        device.hardware.set(&hardware.cache, pasid, None);
        let (iommu, domain) = (device.description.iommu, device.domain_ids.remove(&pasid));
        if let (Some(iommu), Some(domain)) = (self.iommus.get_mut(iommu), domain) {
            iommu.put_domain_id(domain);
        }
    }

    /// The core's side of attaching: one device of the group after the other, and back if
    /// one refuses. That one stays as the driver left it.
    fn program(&mut self, fd: Fd, pasid: u32, hwpt: u32, replace: bool) -> Result<(), Errno> {
        let context = self.bound(fd)?.context;
        let before = self.group(fd)?.attached(pasid);
        let mut done: Vec<Fd> = Vec::new();
        for member in self.members(fd) {
            if let Err(errno) = self.program_device(context, member, pasid, hwpt, replace) {
                for member in done {
                    let back = before.map(|before| {
                        self.program_device(context, member, pasid, before.hwpt, true)
                    });
                    if !matches!(back, Some(Ok(()))) {
                        self.block_device(member, pasid);
                    }
                }
                return Err(errno);
            }
            done.push(member);
        }
        Ok(())
    }

    /// The Intel driver's side: check, and write the PASID entry.
    fn program_device(
        &mut self,
        context: u64,
        fd: Fd,
        pasid: u32,
        hwpt: u32,
        replace: bool,
    ) -> Result<(), Errno> {
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
            self.block_device(fd, pasid);
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
