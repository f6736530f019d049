//! The objects of one open `/dev/iommu`: one space of IDs, and who uses what.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::State;
use super::domain::{Nested, Paging};
use super::fault::FaultQueue;
use super::ioas::Ioas;
use crate::host::Errno;
use crate::host::ioctl::Fd;

/// Object IDs are 31 bits wide.
const MAX_ID: u32 = i32::MAX as u32;

/// `HWPT_PAGING`.
#[derive(Debug)]
pub(super) struct PagingHwpt {
    /// The IOAS whose maps it has.
    pub ioas: u32,
    pub domain: Arc<Paging>,
    /// Made by an attachment to the IOAS, and gone with the last one.
    pub auto: bool,
    /// Allocated with `IOMMU_HWPT_ALLOC_PASID`.
    pub pasid: bool,
    pub fault: Option<u32>,
}

/// `HWPT_NESTED`.
#[derive(Debug)]
pub(super) struct NestedHwpt {
    /// The HWPT it is nested on.
    pub parent: u32,
    pub domain: Arc<Nested>,
    /// Allocated with `IOMMU_HWPT_ALLOC_PASID`.
    pub pasid: bool,
    pub fault: Option<u32>,
}

/// What an object is.
#[derive(Debug)]
pub(super) enum Kind {
    Ioas(Box<Ioas>),
    Paging(PagingHwpt),
    Nested(NestedHwpt),
    Fault(FaultQueue),
    /// A bound device; its vfio file.
    Device(Fd),
}

impl Kind {
    /// Index of the kind in the counters of [`super::TwinStats`].
    pub fn index(&self) -> usize {
        match self {
            Self::Ioas(_) => 0,
            Self::Paging(_) => 1,
            Self::Nested(_) => 2,
            Self::Fault(_) => 3,
            Self::Device(_) => 4,
        }
    }
}

/// An object, and how many others use it.
#[derive(Debug)]
pub(super) struct Object {
    /// References beside the one that `IOMMU_DESTROY` drops.
    pub users: u32,
    pub kind: Kind,
}

/// One open `/dev/iommu`. It lives as long as the file and what was made through it:
/// bound devices and the files of fault queues.
#[derive(Debug)]
pub(super) struct Context {
    objects: BTreeMap<u32, Object>,
    /// No ID below this one is free.
    lowest: u32,
    /// Files that keep it.
    pub users: u32,
    /// `IOMMU_OPTION_RLIMIT_MODE`.
    pub rlimit_mode: u64,
    /// `IOMMU_VFIO_IOAS`.
    pub vfio_ioas: Option<u32>,
}

impl Default for Context {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            lowest: 1,
            users: 1,
            rlimit_mode: 0,
            vfio_ioas: None,
        }
    }
}

impl Context {
    /// The lowest free ID from 1 on.
    pub fn free_id(&mut self) -> Result<u32, Errno> {
        while self.objects.contains_key(&self.lowest) {
            self.lowest = self.lowest.saturating_add(1);
        }
        if self.lowest > MAX_ID {
            return Err(libc::EBUSY);
        }
        Ok(self.lowest)
    }

    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    pub fn get(&self, id: u32) -> Option<&Kind> {
        self.objects.get(&id).map(|object| &object.kind)
    }

    pub fn get_mut(&mut self, id: u32) -> Option<&mut Kind> {
        self.objects.get_mut(&id).map(|object| &mut object.kind)
    }

    /// All objects, by ID.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Object)> {
        self.objects.iter().map(|(&id, object)| (id, object))
    }

    /// One more user of an object.
    pub fn hold(&mut self, id: u32) {
        if let Some(object) = self.objects.get_mut(&id) {
            object.users = object.users.saturating_add(1);
        }
    }

    /// One user fewer.
    pub fn put(&mut self, id: u32) {
        if let Some(object) = self.objects.get_mut(&id) {
            object.users = object.users.saturating_sub(1);
        }
    }

    /// Has the object no users?
    pub fn is_unused(&self, id: u32) -> bool {
        self.objects
            .get(&id)
            .is_some_and(|object| object.users == 0)
    }

    /// Look for an IOAS.
    pub fn ioas(&mut self, id: u32) -> Result<&mut Ioas, Errno> {
        match self.get_mut(id) {
            Some(Kind::Ioas(ioas)) => Ok(ioas),
            _ => Err(libc::ENOENT),
        }
    }

    /// Look for an `HWPT_PAGING`.
    pub fn paging(&self, id: u32) -> Result<&PagingHwpt, Errno> {
        match self.get(id) {
            Some(Kind::Paging(hwpt)) => Ok(hwpt),
            _ => Err(libc::ENOENT),
        }
    }

    /// Look for a fault queue.
    pub fn fault(&mut self, id: u32) -> Result<&mut FaultQueue, Errno> {
        match self.get_mut(id) {
            Some(Kind::Fault(queue)) => Ok(queue),
            _ => Err(libc::ENOENT),
        }
    }

    /// Look for a device: its file.
    pub fn device(&self, id: u32) -> Result<Fd, Errno> {
        match self.get(id) {
            Some(Kind::Device(fd)) => Ok(*fd),
            _ => Err(libc::ENOENT),
        }
    }

    /// The HWPT that has the maps: the parent of a nested one.
    pub fn paging_of(&self, hwpt: u32) -> Result<&PagingHwpt, Errno> {
        match self.get(hwpt) {
            Some(Kind::Nested(nested)) => self.paging(nested.parent),
            _ => self.paging(hwpt),
        }
    }

    /// The fault queue of an HWPT.
    pub fn fault_of(&self, hwpt: u32) -> Option<u32> {
        match self.get(hwpt) {
            Some(Kind::Nested(hwpt)) => hwpt.fault,
            Some(Kind::Paging(hwpt)) => hwpt.fault,
            _ => None,
        }
    }
}

impl State {
    /// Add an object under the lowest free ID.
    pub(super) fn insert(&mut self, context: u64, kind: Kind) -> Result<u32, Errno> {
        let index = kind.index();
        let owner = self.context(context)?;
        let id = owner.free_id()?;
        owner.objects.insert(id, Object { users: 0, kind });
        self.meters.born(index);
        Ok(id)
    }

    /// `IOMMU_DESTROY`.
    pub(super) fn destroy(&mut self, context: u64, id: u32) -> Result<(), Errno> {
        let owner = self.context(context)?;
        if owner.get(id).is_none() {
            return Err(libc::ENOENT);
        }
        if !owner.is_unused(id) {
            return Err(libc::EBUSY);
        }
        self.remove(context, id);
        Ok(())
    }

    /// End an object that nothing uses.
    pub(super) fn remove(&mut self, context: u64, id: u32) {
        let Ok(owner) = self.context(context) else {
            return;
        };
        let Some(object) = owner.objects.remove(&id) else {
            return;
        };
        owner.lowest = owner.lowest.min(id);
        if owner.vfio_ioas == Some(id) {
            owner.vfio_ioas = None;
        }
        self.meters.died(object.kind.index());
        match object.kind {
            Kind::Ioas(ioas) => {
                self.meters.unmapped(ioas.bytes());
                ioas.pins.clear();
            }
            Kind::Paging(hwpt) => self.drop_paging(context, id, &hwpt),
            Kind::Nested(hwpt) => {
                if let Ok(owner) = self.context(context) {
                    owner.put(hwpt.parent);
                    if let Some(fault) = hwpt.fault {
                        owner.put(fault);
                    }
                }
                hwpt.domain.parent.forget_child(hwpt.domain.key);
            }
            Kind::Fault(queue) => self.answer_all(queue),
            Kind::Device(_) => {}
        }
    }

    /// One user of the context fewer; with the last one all of it goes, leaves first.
    pub(super) fn put_context(&mut self, key: u64) {
        let Ok(owner) = self.context(key) else {
            return;
        };
        owner.users = owner.users.saturating_sub(1);
        if owner.users != 0 {
            return;
        }
        while let Ok(owner) = self.context(key) {
            let unused: Vec<u32> = owner
                .iter()
                .filter(|(_, object)| object.users == 0)
                .map(|(id, _)| id)
                .collect();
            if unused.is_empty() {
                break;
            }
            for id in unused {
                self.remove(key, id);
            }
        }
        self.contexts.remove(&key);
    }
}
