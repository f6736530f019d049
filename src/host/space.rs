//! What the unit has on one iommufd: the IOAS that maps guest RAM, the nesting
//! parents on it, the nested HWPTs on those, and the fault queue.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::device::HostDevice;
use super::ioctl::Fd;
use super::iommufd::{InvalidateError, Iommufd, Piece};
use super::uapi::{
    HW_CAP_DIRTY_TRACKING, HWPT_DIRTY_TRACKING, HWPT_PASID, MSI_LAST, MSI_START, VtdS1,
    VtdS1Invalidate, request,
};
use super::{HostError, Offer};
use crate::memory::{GuestMemory, RegionInfo};
use crate::spec::PAGE_SIZE;

/// Numbers nested HWPTs over all iommufds, as their IDs are reused.
static SERIAL: AtomicU64 = AtomicU64::new(1);

/// A nesting parent: it maps guest RAM for the devices of host units that can share it.
#[derive(Debug)]
pub struct Parent {
    /// Its ID.
    pub id: u32,
    /// It was allocated with dirty tracking.
    tracks_dirty: bool,
}

/// A nested HWPT.
#[derive(Debug)]
pub struct Nested {
    /// Its ID, which the kernel may give again to another.
    pub id: u32,
    /// Its number, which is not given again.
    pub serial: u64,
    key: Key,
    /// Devices and PASIDs that are attached to it, or may be.
    users: AtomicUsize,
    iommufd: Arc<Iommufd>,
}

impl Nested {
    /// What it was made of.
    pub fn content(&self) -> VtdS1 {
        self.key.content
    }

    /// Do page requests that come through it go to the fault queue?
    pub fn takes_page_requests(&self) -> bool {
        self.key.faults
    }

    /// Forget the ranges of `entries`, in their order.
    ///
    /// # Errors
    /// How many were handled, and why the next one was not.
    pub fn invalidate(&self, entries: &[VtdS1Invalidate]) -> Result<(), InvalidateError> {
        self.iommufd.invalidate(self.id, entries)
    }
}

/// What nested HWPTs are shared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    content: VtdS1,
    /// The parent's ID.
    parent: u32,
    /// CAP and ECAP of the host unit: HWPTs are not shared over units that differ.
    host_unit: (u64, u64),
    /// Page requests go to the fault queue.
    faults: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FaultQueue {
    id: u32,
    file: Fd,
}

#[derive(Debug, Default)]
struct Objects {
    ioas: Option<u32>,
    /// What the IOAS maps, by address.
    pieces: BTreeMap<u64, Piece>,
    /// Of these, what is no RAM any more and could not be unmapped at the time.
    stale: Vec<Piece>,
    parents: Vec<Arc<Parent>>,
    nested: HashMap<Key, Arc<Nested>>,
    /// Nested HWPTs that may have no user any more.
    idle: Vec<Key>,
    fault_queue: Option<FaultQueue>,
    /// Other objects that could not be destroyed at the time.
    doomed: Vec<u32>,
    devices: usize,
}

/// All of the unit's objects on one iommufd.
#[derive(Debug)]
pub struct Space {
    /// The file.
    pub iommufd: Arc<Iommufd>,
    /// Its number among the host's.
    pub number: u64,
    offer: Offer,
    objects: Mutex<Objects>,
}

/// What ended, or did not.
#[derive(Debug, Default)]
pub struct Collected {
    /// IDs of nested HWPTs that were destroyed.
    pub destroyed: Vec<u32>,
    /// Calls that were refused; they are made again the next time.
    pub refused: Vec<HostError>,
}

impl Space {
    pub(super) fn new(iommufd: Iommufd, number: u64, offer: Offer) -> Self {
        Self {
            iommufd: Arc::new(iommufd),
            number,
            offer,
            objects: Mutex::default(),
        }
    }

    /// A device comes.
    pub(super) fn enter(&self) {
        let mut objects = self.objects.lock();
        objects.devices = objects.devices.saturating_add(1);
    }

    /// Give a device its place on a parent.
    pub(super) fn join(&self, device: &HostDevice, memory: &GuestMemory) -> Result<(), HostError> {
        let mut objects = self.objects.lock();
        self.prepare(&mut objects, memory)?;
        self.settle(&mut objects, device)
    }

    /// The IOAS with guest RAM in it, and the fault queue.
    fn prepare(&self, objects: &mut Objects, memory: &GuestMemory) -> Result<(), HostError> {
        if objects.ioas.is_none() {
            objects.ioas = Some(self.iommufd.ioas_alloc()?);
        }
        for region in memory.regions() {
            self.map(objects, &region)?;
        }
        if self.offer.page_requests && objects.fault_queue.is_none() {
            let (id, file) = self.iommufd.fault_queue_alloc()?;
            objects.fault_queue = Some(FaultQueue { id, file });
        }
        Ok(())
    }

    /// Attach the device to the first parent that takes it, a new one if none does.
    fn settle(&self, objects: &mut Objects, device: &HostDevice) -> Result<(), HostError> {
        for parent in &objects.parents {
            device.set_parent(Arc::clone(parent));
            match device.attach_parent(None) {
                Ok(()) => return Ok(()),
                // Of another host unit, which cannot share it.
                Err(error) if error.errno == libc::EINVAL => {}
                Err(error) => return Err(error),
            }
        }
        let Some(ioas) = objects.ioas else {
            return Ok(());
        };
        let mut flags = 0;
        if self.offer.pasid_bits > 0 {
            flags |= HWPT_PASID;
        }
        let tracks_dirty = device.info.capabilities & HW_CAP_DIRTY_TRACKING != 0;
        if tracks_dirty {
            flags |= HWPT_DIRTY_TRACKING;
        }
        let id = self.iommufd.parent_alloc(device.dev_id, ioas, flags)?;
        let parent = Arc::new(Parent { id, tracks_dirty });
        device.set_parent(Arc::clone(&parent));
        let attached = device.attach_parent(None);
        if attached.is_ok() {
            objects.parents.push(parent);
        } else {
            self.end_object(objects, id);
        }
        attached
    }

    /// Destroy an object, now or later.
    fn end_object(&self, objects: &mut Objects, id: u32) {
        if destroy(&self.iommufd, id).is_err() {
            objects.doomed.push(id);
        }
    }

    /// A device goes.
    pub(super) fn leave(&self) {
        let mut objects = self.objects.lock();
        objects.devices = objects.devices.saturating_sub(1);
    }

    /// Map a region, if it is not mapped: all of it that devices may write and an IOAS
    /// can map, or nothing.
    fn map(&self, objects: &mut Objects, region: &RegionInfo) -> Result<(), HostError> {
        let Some(ioas) = objects.ioas else {
            return Ok(());
        };
        self.unmap_stale(objects, ioas)?;
        let mut mapped = Vec::new();
        for piece in pieces(region) {
            if objects.pieces.contains_key(&piece.iova) {
                continue;
            }
            if let Err(error) = self.iommufd.ioas_map(ioas, &piece) {
                for piece in mapped {
                    if self.unmap_piece(objects, ioas, &piece).is_err() {
                        objects.stale.push(piece);
                    }
                }
                return Err(error);
            }
            objects.pieces.insert(piece.iova, piece);
            mapped.push(piece);
        }
        Ok(())
    }

    fn unmap_piece(
        &self,
        objects: &mut Objects,
        ioas: u32,
        piece: &Piece,
    ) -> Result<(), HostError> {
        self.iommufd.ioas_unmap(ioas, piece)?;
        objects.pieces.remove(&piece.iova);
        Ok(())
    }

    /// What is no RAM any more must be gone before anything else is mapped there.
    fn unmap_stale(&self, objects: &mut Objects, ioas: u32) -> Result<(), HostError> {
        while let Some(piece) = objects.stale.last().copied() {
            self.unmap_piece(objects, ioas, &piece)?;
            objects.stale.pop();
        }
        Ok(())
    }

    /// A region that was mapped a moment ago is no RAM after all.
    pub(super) fn take_back(&self, region: &RegionInfo) {
        let objects = &mut *self.objects.lock();
        let Some(ioas) = objects.ioas else { return };
        for piece in pieces(region) {
            let refused = self.unmap_piece(objects, ioas, &piece).is_err();
            if refused && !objects.stale.contains(&piece) {
                objects.stale.push(piece);
            }
        }
    }

    pub(super) fn map_region(&self, region: &RegionInfo) -> Result<(), HostError> {
        self.map(&mut self.objects.lock(), region)
    }

    /// Unmap a region. If that is refused, what of it was unmapped stays so, and is
    /// tried to be mapped again.
    pub(super) fn unmap_region(&self, region: &RegionInfo) -> Result<(), HostError> {
        let objects = &mut *self.objects.lock();
        let Some(ioas) = objects.ioas else {
            return Ok(());
        };
        for piece in pieces(region) {
            if objects.pieces.get(&piece.iova) != Some(&piece) {
                continue;
            }
            if let Err(error) = self.unmap_piece(objects, ioas, &piece) {
                let _restored = self.map(objects, region);
                return Err(error);
            }
        }
        Ok(())
    }

    /// The nested HWPT of this content for a device, and whether it is new.
    ///
    /// # Errors
    /// `IOMMU_HWPT_ALLOC` was refused.
    pub fn nested(
        &self,
        device: &HostDevice,
        content: VtdS1,
    ) -> Result<(Arc<Nested>, bool), HostError> {
        let objects = &mut *self.objects.lock();
        let parent = device.parent_id().ok_or(HostError {
            request: request::HWPT_ALLOC,
            errno: libc::ENOENT,
        })?;
        let fault_queue = objects.fault_queue.filter(|_| device.sends_page_requests());
        let key = Key {
            content,
            parent,
            host_unit: (device.info.cap.into_bits(), device.info.ecap.into_bits()),
            faults: fault_queue.is_some(),
        };
        if let Some(nested) = objects.nested.get(&key) {
            return Ok((Arc::clone(nested), false));
        }
        let flags = if self.offer.pasid_bits > 0 {
            HWPT_PASID
        } else {
            0
        };
        let queue = fault_queue.map(|queue| queue.id);
        let id = self
            .iommufd
            .nested_alloc(device.dev_id, parent, flags, queue, &content)?;
        let nested = Arc::new(Nested {
            id,
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            key,
            users: AtomicUsize::new(0),
            iommufd: Arc::clone(&self.iommufd),
        });
        objects.nested.insert(key, Arc::clone(&nested));
        // Should nobody come to use it.
        objects.idle.push(key);
        Ok((nested, true))
    }

    /// Somebody uses a nested HWPT.
    pub(super) fn joined(nested: &Nested) {
        nested.users.fetch_add(1, Ordering::Relaxed);
    }

    /// Somebody has ceased to use a nested HWPT.
    pub(super) fn left(&self, nested: &Nested) {
        nested.users.fetch_sub(1, Ordering::Relaxed);
        self.objects.lock().idle.push(nested.key);
    }

    /// Destroy the nested HWPTs that nobody uses.
    pub(super) fn collect(&self, collected: &mut Collected) {
        let objects = &mut *self.objects.lock();
        for key in core::mem::take(&mut objects.idle) {
            let unused = objects
                .nested
                .get(&key)
                .filter(|nested| nested.users.load(Ordering::Relaxed) == 0);
            let Some(nested) = unused else { continue };
            match destroy(&self.iommufd, nested.id) {
                Ok(()) => {
                    collected.destroyed.push(nested.id);
                    objects.nested.remove(&key);
                }
                Err(error) => {
                    collected.refused.push(error);
                    objects.idle.push(key);
                }
            }
        }
        for id in core::mem::take(&mut objects.doomed) {
            if let Err(error) = destroy(&self.iommufd, id) {
                collected.refused.push(error);
                objects.doomed.push(id);
            }
        }
    }

    /// Destroy what nobody uses; without devices that is everything. True if nothing is
    /// left; what is left is tried again the next time.
    pub(super) fn end(&self, collected: &mut Collected) -> bool {
        self.collect(collected);
        let objects = &mut *self.objects.lock();
        if objects.devices > 0 || !objects.nested.is_empty() {
            return false;
        }
        let mut ended = |id| {
            destroy(&self.iommufd, id)
                .map_err(|error| collected.refused.push(error))
                .is_ok()
        };
        objects.parents.retain(|parent| !ended(parent.id));
        if !objects.parents.is_empty() {
            return false;
        }
        if let Some(queue) = objects.fault_queue.take() {
            // The file holds the queue.
            self.iommufd.close(queue.file);
            if !ended(queue.id) {
                objects.doomed.push(queue.id);
            }
        }
        if let Some(ioas) = objects.ioas.filter(|_| objects.doomed.is_empty()) {
            if !ended(ioas) {
                return false;
            }
            objects.ioas = None;
            objects.pieces.clear();
            objects.stale.clear();
        }
        objects.doomed.is_empty()
    }

    /// Devices that have joined.
    pub fn devices(&self) -> usize {
        self.objects.lock().devices
    }

    /// The fault queue's file, if there is one.
    pub fn fault_file(&self) -> Option<Fd> {
        self.objects.lock().fault_queue.map(|queue| queue.file)
    }

    /// Run `work` on the ID of every parent that tracks dirty pages.
    ///
    /// # Errors
    /// `EOPNOTSUPP`: a parent does not. Those of `work`.
    pub(super) fn for_each_tracking(
        &self,
        request: u32,
        mut work: impl FnMut(&Iommufd, u32) -> Result<(), HostError>,
    ) -> Result<(), HostError> {
        let parents = self.objects.lock().parents.clone();
        if parents.iter().any(|parent| !parent.tracks_dirty) {
            return Err(HostError {
                request,
                errno: libc::EOPNOTSUPP,
            });
        }
        parents
            .iter()
            .try_for_each(|parent| work(&self.iommufd, parent.id))
    }
}

/// Destroy an object. One that is not there any more, or whose file is not, as whoever
/// lent it has closed it, has ended.
fn destroy(iommufd: &Iommufd, id: u32) -> Result<(), HostError> {
    match iommufd.destroy(id) {
        Err(error) if matches!(error.errno, libc::ENOENT | libc::EBADF | libc::ENOTTY) => Ok(()),
        other => other,
    }
}

/// What an IOAS maps of a region: whole pages, nothing that is read-only, as nesting
/// parents cannot have that, and nothing of the interrupt window.
fn pieces(region: &RegionInfo) -> Vec<Piece> {
    if region.read_only {
        return Vec::new();
    }
    let after_window = MSI_LAST.saturating_add(1);
    let last = region.gpa.saturating_add(region.size);
    let parts = [
        (region.gpa, last.min(MSI_START)),
        (region.gpa.max(after_window), last),
    ];
    parts
        .into_iter()
        .filter_map(|(start, end)| {
            let iova = start.checked_next_multiple_of(PAGE_SIZE)?;
            let end = end & !PAGE_SIZE.wrapping_sub(1);
            let length = end.checked_sub(iova).filter(|&length| length > 0)?;
            let address = region.address.checked_add(iova.checked_sub(region.gpa)?)?;
            Some(Piece {
                iova,
                address,
                length,
            })
        })
        .collect()
}
