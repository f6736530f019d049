//! The devices behind the unit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::binding::{Binding, BindingState};
use super::by_pasid::ByPasid;
use super::host_faults::HostGroup;
use super::slots::{Answers, Slots};
use super::stats::Counter;
use crate::host::HostError;
use crate::host::device::HostDevice;
use crate::host::ioctl::Fd;
use crate::translate::stages::Stages;
use crate::vmm::Vmm;
use crate::{Error, Result};

/// A device to add.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceDescription {
    /// The VMM's name for it.
    pub tag: u64,
    /// Requester ID, if the VMM does not tell it later.
    pub source_id: u16,
    /// It never has another one, and the VMM is not asked.
    pub fixed_id: bool,
    /// It belongs to the host.
    pub assigned: bool,
    /// The iommufd it is or is to be bound to; None for one of the unit's own.
    pub iommufd: Option<Fd>,
    /// Its vfio file; None if the VMM attaches it.
    pub file: Option<Fd>,
    /// Its ID on the iommufd; None if it is to be bound.
    pub dev_id: Option<u32>,
}

/// Who keeps a device's translations and is to be told of invalidations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Notify {
    /// Somebody keeps answers of the unit.
    pub unit: bool,
    /// The device has a TLB.
    pub device_tlb: bool,
}

/// State of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Requester ID.
    pub source_id: u16,
    /// What its DMA goes through.
    pub state: BindingState,
    /// DID of the PASID entry in use.
    pub domain_id: Option<u16>,
    /// Tables in use.
    pub stages: Option<Stages>,
    /// HWPT it is attached to.
    pub hwpt: Option<u32>,
    /// The call with which the host refused its configuration.
    pub refused: Option<HostError>,
    /// PASIDs that are attached on the host.
    pub pasids: usize,
    /// PASIDs that the host refused.
    pub pasids_blocked: usize,
    /// Requests translated.
    pub translations: u64,
    /// Answered from the host's cache.
    pub cache_hits: u64,
    /// Refused.
    pub faults: u64,
    /// Uses of stale translations.
    pub stale_uses: u64,
}

/// A device behind the unit.
#[derive(Debug)]
pub(super) struct Device {
    tag: u64,
    source_id: AtomicU16,
    fixed_id: bool,
    /// Who keeps its translations, see [`Notify`].
    notify: AtomicU8,
    /// The host's name for it, if it is assigned.
    pub host: Option<HostDevice>,
    /// Where requests without PASID are.
    pub binding: Mutex<Binding>,
    /// Where those of PASIDs are; only what is or should be on the host.
    pasids: Mutex<ByPasid<Binding>>,
    /// How many of them have a HWPT; changed with them.
    attached_pasids: AtomicUsize,
    /// Page requests of the host that the guest has not answered, by PASID and group.
    pub host_groups: Mutex<BTreeMap<(Option<u32>, u16), HostGroup>>,
    pub translations: Counter,
    pub cache_hits: Counter,
    pub faults: Counter,
    pub stale_uses: Counter,
}

impl Device {
    pub fn new(description: DeviceDescription, host: Option<HostDevice>) -> Self {
        Self {
            tag: description.tag,
            source_id: AtomicU16::new(description.source_id),
            fixed_id: description.fixed_id,
            notify: AtomicU8::new(0),
            binding: Mutex::new(Binding::new(host.is_some())),
            host,
            pasids: Mutex::default(),
            attached_pasids: AtomicUsize::new(0),
            host_groups: Mutex::default(),
            translations: Counter::default(),
            cache_hits: Counter::default(),
            faults: Counter::default(),
            stale_uses: Counter::default(),
        }
    }

    /// The VMM's name for it.
    pub fn tag(&self) -> u64 {
        self.tag
    }

    /// The requester ID as it was last asked for.
    pub fn source_id(&self) -> u16 {
        self.source_id.load(Ordering::Relaxed)
    }

    /// Who is to be told.
    pub fn notify(&self) -> Notify {
        let bits = self.notify.load(Ordering::SeqCst);
        Notify {
            unit: bits & 1 != 0,
            device_tlb: bits & 2 != 0,
        }
    }

    /// Are translations of it kept outside of the unit?
    fn keeps(&self) -> bool {
        self.notify() != Notify::default()
    }

    /// Do commands name it?
    fn is_named(&self) -> bool {
        self.keeps() || self.host.is_some()
    }

    pub fn set_notify(&self, notify: Notify) {
        let bits = u8::from(notify.unit) | (u8::from(notify.device_tlb) << 1);
        self.notify.store(bits, Ordering::SeqCst);
    }

    /// Ask the VMM for the requester ID. Called with no lock held.
    pub fn refresh_source_id(&self, vmm: &dyn Vmm) -> u16 {
        let told = if self.fixed_id {
            None
        } else {
            vmm.source_id(self.tag)
        };
        if let Some(source_id) = told {
            self.source_id.store(source_id, Ordering::Relaxed);
        }
        self.source_id()
    }

    /// Run `work` on what is known of PASIDs.
    pub fn with_pasids<T>(&self, work: impl FnOnce(&ByPasid<Binding>) -> T) -> T {
        work(&self.pasids.lock())
    }

    /// Where the requests of `pasid`, or those without one, are; None if nothing is
    /// known of the PASID.
    pub fn binding_of(&self, pasid: Option<u32>) -> Option<Binding> {
        match pasid {
            None => Some(self.binding.lock().clone()),
            Some(pasid) => self.pasids.lock().get(pasid).cloned(),
        }
    }

    /// Remember where they are. A PASID that is nowhere, and that nothing is known of, is
    /// forgotten. Gives what was known before.
    pub fn set_binding(&self, pasid: Option<u32>, binding: Binding) -> Option<Binding> {
        let Some(pasid) = pasid else {
            return Some(core::mem::replace(&mut *self.binding.lock(), binding));
        };
        let is_attached = |binding: &Binding| usize::from(binding.hwpt.is_some());
        let mut pasids = self.pasids.lock();
        let now = is_attached(&binding);
        let before = if binding.hwpt.is_none() && binding.refused.is_none() {
            pasids.remove(pasid)
        } else {
            pasids.insert(pasid, binding)
        };
        let was = before.as_ref().map_or(0, is_attached);
        let attached = self.attached_pasids.load(Ordering::Relaxed);
        let attached = attached.saturating_add(now).saturating_sub(was);
        self.attached_pasids.store(attached, Ordering::Relaxed);
        before
    }

    /// The host has answered the page requests of `pasid`, or those without one, by itself.
    pub fn forget_groups(&self, pasid: Option<u32>) {
        self.host_groups.lock().retain(|&(of, _), _| of != pasid);
    }

    /// Nothing is known any more.
    pub fn forget_bindings(&self) {
        self.host_groups.lock().clear();
        *self.binding.lock() = Binding::new(self.host.is_some());
        let mut pasids = self.pasids.lock();
        pasids.clear();
        self.attached_pasids.store(0, Ordering::Relaxed);
    }

    /// PASIDs that are attached, and that the host refused.
    pub fn count_pasids(&self) -> (usize, usize) {
        let pasids = self.pasids.lock();
        let attached = self.attached_pasids.load(Ordering::Relaxed);
        (attached, pasids.len().saturating_sub(attached))
    }

    /// Everything that is known.
    pub fn bindings(&self) -> Vec<(Option<u32>, Binding)> {
        let mut all = vec![(None, self.binding.lock().clone())];
        let pasids = self.pasids.lock();
        all.extend(
            pasids
                .iter()
                .map(|(pasid, binding)| (Some(pasid), binding.clone())),
        );
        all
    }

    pub fn clear_counters(&self) {
        for counter in [
            &self.translations,
            &self.cache_hits,
            &self.faults,
            &self.stale_uses,
        ] {
            counter.clear();
        }
    }
}

/// Those who keep translations, with their handles.
pub(super) type Keepers = Arc<[(u32, Arc<Device>)]>;

/// All devices, by handle.
#[derive(Debug, Default)]
pub(super) struct Devices {
    by_handle: BTreeMap<u32, Arc<Device>>,
    keepers: Keepers,
    /// Those that commands name: the keepers, and those of the host.
    named: Arc<[Arc<Device>]>,
}

impl Devices {
    /// A handle is not used again before its slot was given 65535 times.
    pub fn insert(&mut self, slots: &Slots, device: Arc<Device>) -> Result<u32> {
        let handle = slots.take(device.tag(), device.fixed_id).ok_or_else(|| {
            Error::new(
                libc::ENOSPC,
                format!(
                    "there are {} devices already; remove one first",
                    Slots::MOST
                ),
            )
        })?;
        let is_named = device.is_named();
        self.by_handle.insert(handle, device);
        if is_named {
            self.list();
        }
        Ok(handle)
    }

    pub fn get(&self, handle: u32) -> Result<Arc<Device>> {
        self.by_handle
            .get(&handle)
            .cloned()
            .ok_or_else(|| unknown(handle))
    }

    /// Gives the device, and what its slot counted.
    pub fn remove(&mut self, slots: &Slots, handle: u32) -> Result<(Arc<Device>, Answers)> {
        let device = self.by_handle.remove(&handle);
        let device = device.ok_or_else(|| unknown(handle))?;
        if device.is_named() {
            self.list();
        }
        Ok((device, slots.give_back(handle)))
    }

    /// The device with this requester ID, and its handle.
    pub fn find(&self, source_id: u16) -> Option<(u32, Arc<Device>)> {
        self.find_by(|device| device.source_id() == source_id)
    }

    /// The first device for which `is` holds, and its handle.
    pub fn find_by(&self, is: impl Fn(&Device) -> bool) -> Option<(u32, Arc<Device>)> {
        self.by_handle
            .iter()
            .find(|(_, device)| is(device))
            .map(|(&handle, device)| (handle, Arc::clone(device)))
    }

    /// Those who keep translations, with their handles.
    pub fn keepers(&self) -> Keepers {
        Arc::clone(&self.keepers)
    }

    /// Say who is to be told of a device's invalidations.
    pub fn set_notify(&mut self, handle: u32, notify: Notify) -> Result<()> {
        self.get(handle)?.set_notify(notify);
        self.list();
        Ok(())
    }

    /// Those whose present requester ID commands need.
    pub fn named(&self) -> Arc<[Arc<Device>]> {
        Arc::clone(&self.named)
    }

    fn list(&mut self) {
        let all = self.by_handle.iter();
        self.keepers = all
            .clone()
            .filter(|(_, device)| device.keeps())
            .map(|(&handle, device)| (handle, Arc::clone(device)))
            .collect();
        self.named = all
            .filter(|(_, device)| device.is_named())
            .map(|(_, device)| Arc::clone(device))
            .collect();
    }

    /// Every device, for work that must not hold the table.
    pub fn all(&self) -> Vec<Arc<Device>> {
        self.by_handle.values().cloned().collect()
    }

    /// Handles of those of the host.
    pub fn assigned(&self) -> Vec<u32> {
        self.by_handle
            .iter()
            .filter(|(_, device)| device.host.is_some())
            .map(|(&handle, _)| handle)
            .collect()
    }

    pub fn clear_counters(&self) {
        for device in self.by_handle.values() {
            device.clear_counters();
        }
    }
}

fn unknown(handle: u32) -> Error {
    Error::new(
        libc::ENOENT,
        format!("there is no device {handle}; pass a handle that adding a device gave"),
    )
}
