//! The software host: iommufd's objects and rules in this process.
//!
//! This file is the kernel's side: objects, their IDs and lifetimes, and the errno
//! of each mistake. [`hardware`] is the silicon's side.

pub mod hardware;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use super::{
    Errno, Host, HostDevice, HwInfo, HwptId, InvalidateError, VTD_INV_FLAGS_LEAF, VTD_S1_EAFE,
    VTD_S1_SRE, VtdS1, VtdS1Invalidate,
};
use crate::cache::translations::{Tag, TranslationCache};
use crate::memory::GuestMemory;
use crate::spec::PAGE_SIZE;
use crate::spec::registers::{Cap, Ecap};
use crate::translate::first_stage::FirstStage;

/// Most entries of one invalidate call, as in the kernel.
const MAX_ENTRIES: usize = 1 << 19;

/// Object IDs are 31 bits wide.
const MAX_ID: u32 = i32::MAX as u32;

/// A nested HWPT: a guest's first-stage table on the parent.
#[derive(Debug)]
struct Nested {
    data: VtdS1,
    /// Its entries in the translation cache.
    tag: Tag,
}

/// What a device's DMA goes through.
#[derive(Debug, Clone)]
enum Attachment {
    /// Nothing: blocked.
    Blocked,
    /// The parent: guest-physical addresses.
    Parent,
    /// A nested HWPT.
    Nested(Arc<Nested>),
}

#[derive(Debug)]
struct Device {
    /// What the hardware does.
    attachment: Attachment,
    /// The HWPT that the kernel has on record. A failed attach blocks the hardware
    /// but leaves the record, and attaching what is on record changes nothing.
    recorded: Option<HwptId>,
}

/// An object in the one ID space.
#[derive(Debug)]
enum Object {
    Ioas,
    Parent,
    Nested(Arc<Nested>),
    Device(Device),
}

#[derive(Debug, Default)]
struct Objects {
    by_id: BTreeMap<u32, Object>,
}

impl Objects {
    /// Add an object under the lowest free ID from 1 on.
    fn insert(&mut self, object: Object) -> Result<u32, Errno> {
        let mut free = 1;
        for &id in self.by_id.keys() {
            if id != free {
                break;
            }
            free = id
                .checked_add(1)
                .filter(|&next| next <= MAX_ID)
                .ok_or(libc::ENOSPC)?;
        }
        self.by_id.insert(free, object);
        Ok(free)
    }

    fn device(&mut self, device: HostDevice) -> Result<&mut Device, Errno> {
        match self.by_id.get_mut(&device.0) {
            Some(Object::Device(found)) => Ok(found),
            _ => Err(libc::ENOENT),
        }
    }

    fn is_attached(&self, hwpt: HwptId) -> bool {
        self.by_id
            .values()
            .any(|object| matches!(object, Object::Device(device) if device.recorded == Some(hwpt)))
    }
}

/// The embedded host.
#[derive(Debug)]
pub struct SoftHost {
    memory: Arc<GuestMemory>,
    objects: RwLock<Objects>,
    parent: HwptId,
    cache: TranslationCache,
    refuse_alloc: AtomicBool,
}

impl SoftHost {
    /// A host whose nesting parent maps the RAM of `memory`.
    pub fn new(memory: Arc<GuestMemory>) -> Self {
        let mut objects = Objects::default();
        // An empty ID space always has room: IDs 1 and 2.
        let _ioas = objects.insert(Object::Ioas);
        let parent = objects.insert(Object::Parent).unwrap_or_default();
        Self {
            memory,
            objects: RwLock::new(objects),
            parent: HwptId(parent),
            cache: TranslationCache::default(),
            refuse_alloc: AtomicBool::new(false),
        }
    }

    /// Answer every nested allocation with `ENOMEM` from now on, for tests.
    pub fn refuse_allocations(&self, refuse: bool) {
        self.refuse_alloc.store(refuse, Ordering::Relaxed);
    }

    /// The hardware it plays: a nesting-capable unit with 4-level first-stage
    /// tables and coherent walks.
    fn capabilities() -> HwInfo {
        HwInfo {
            cap: Cap::new()
                .with_domains(6)
                .with_second_stage_widths(0b00100)
                .with_address_width(47)
                .with_second_stage_large_pages(0b0011)
                .with_page_selective(true)
                .with_max_address_mask(18)
                .with_first_stage_1g(true),
            ecap: Ecap::new()
                .with_coherent(true)
                .with_queued_invalidation(true)
                .with_pass_through(true)
                .with_nested(true)
                .with_scalable_mode(true)
                .with_second_stage(true)
                .with_first_stage(true)
                .with_page_walk_coherent(true),
        }
    }

    /// The checks the kernel makes only when it programs the PASID entry
    /// (`intel_pasid_setup_nested`).
    fn supports(data: &VtdS1) -> Result<FirstStage, Errno> {
        let HwInfo { cap, ecap } = Self::capabilities();
        let levels = match data.addr_width {
            48 => 4,
            57 if cap.first_stage_5_level() => 5,
            _ => return Err(libc::EINVAL),
        };
        if (data.flags & VTD_S1_SRE != 0 && !ecap.supervisor_request())
            || (data.flags & VTD_S1_EAFE != 0 && !ecap.extended_accessed())
        {
            return Err(libc::EINVAL);
        }
        Ok(FirstStage::new(
            levels,
            cap.first_stage_1g(),
            u32::from(cap.address_width()).saturating_add(1),
        ))
    }

    /// Point the hardware somewhere else. What it cached of a nested HWPT that a
    /// device leaves is dropped, as tearing down a PASID entry does.
    fn program(&self, device: &mut Device, attachment: Attachment) {
        let before = core::mem::replace(&mut device.attachment, attachment);
        if let Attachment::Nested(nested) = before {
            self.cache.invalidate_all(&nested.tag);
        }
    }
}

/// One entry of an invalidate call, judged as `intel_nested_cache_invalidate_user`
/// does.
fn check_entry(entry: &VtdS1Invalidate) -> Result<(), Errno> {
    if entry.flags & !VTD_INV_FLAGS_LEAF != 0 || entry.reserved != 0 {
        return Err(libc::EOPNOTSUPP);
    }
    if entry.addr % PAGE_SIZE != 0 || (entry.npages == u64::MAX && entry.addr != 0) {
        return Err(libc::EINVAL);
    }
    Ok(())
}

impl Host for SoftHost {
    fn bind(&self) -> Result<HostDevice, Errno> {
        let device = Device {
            attachment: Attachment::Blocked,
            recorded: None,
        };
        self.objects
            .write()
            .insert(Object::Device(device))
            .map(HostDevice)
    }

    fn unbind(&self, device: HostDevice) {
        let mut objects = self.objects.write();
        if let Ok(found) = objects.device(device) {
            self.program(found, Attachment::Blocked);
            objects.by_id.remove(&device.0);
        }
    }

    fn hw_info(&self, device: HostDevice) -> Result<HwInfo, Errno> {
        self.objects
            .write()
            .device(device)
            .map(|_| Self::capabilities())
    }

    fn parent(&self) -> HwptId {
        self.parent
    }

    fn alloc_nested(&self, device: HostDevice, data: &VtdS1) -> Result<HwptId, Errno> {
        let mut objects = self.objects.write();
        objects.device(device)?;
        if self.refuse_alloc.load(Ordering::Relaxed) {
            return Err(libc::ENOMEM);
        }
        let nested = Nested {
            data: *data,
            tag: self.cache.new_tag(),
        };
        objects.insert(Object::Nested(Arc::new(nested))).map(HwptId)
    }

    fn attach(&self, device: HostDevice, hwpt: HwptId) -> Result<(), Errno> {
        let mut objects = self.objects.write();
        let target = match objects.by_id.get(&hwpt.0) {
            Some(Object::Parent) => Attachment::Parent,
            Some(Object::Nested(nested)) => Attachment::Nested(Arc::clone(nested)),
            Some(_) => return Err(libc::EINVAL),
            None => return Err(libc::ENOENT),
        };
        let found = objects.device(device)?;
        if found.recorded == Some(hwpt) {
            return Ok(());
        }
        // The old attachment is torn down before the new one can fail.
        self.program(found, Attachment::Blocked);
        if let Attachment::Nested(nested) = &target {
            Self::supports(&nested.data)?;
        }
        found.attachment = target;
        found.recorded = Some(hwpt);
        Ok(())
    }

    fn detach(&self, device: HostDevice) -> Result<(), Errno> {
        let mut objects = self.objects.write();
        let found = objects.device(device)?;
        self.program(found, Attachment::Blocked);
        found.recorded = None;
        Ok(())
    }

    fn invalidate(&self, hwpt: HwptId, entries: &[VtdS1Invalidate]) -> Result<(), InvalidateError> {
        let refuse = |handled, errno| Err(InvalidateError { handled, errno });
        if entries.len() > MAX_ENTRIES {
            return refuse(0, libc::EINVAL);
        }
        let nested = match self.objects.read().by_id.get(&hwpt.0) {
            Some(Object::Nested(nested)) => Arc::clone(nested),
            Some(_) => return refuse(0, libc::EINVAL),
            None => return refuse(0, libc::ENOENT),
        };
        for (index, entry) in entries.iter().enumerate() {
            if let Err(errno) = check_entry(entry) {
                return refuse(index, errno);
            }
            if entry.npages == u64::MAX {
                self.cache.invalidate_all(&nested.tag);
            } else {
                self.cache
                    .invalidate_range(&nested.tag, entry.addr, entry.npages);
            }
        }
        Ok(())
    }

    fn destroy(&self, hwpt: HwptId) -> Result<(), Errno> {
        let mut objects = self.objects.write();
        match objects.by_id.get(&hwpt.0) {
            Some(Object::Nested(_)) if objects.is_attached(hwpt) => return Err(libc::EBUSY),
            Some(Object::Nested(_)) => {}
            Some(_) => return Err(libc::EBUSY),
            None => return Err(libc::ENOENT),
        }
        objects.by_id.remove(&hwpt.0);
        Ok(())
    }

    fn ram_removed(&self) {
        for object in self.objects.read().by_id.values() {
            if let Object::Nested(nested) = object {
                self.cache.invalidate_all(&nested.tag);
            }
        }
    }
}

#[cfg(test)]
mod tests;
