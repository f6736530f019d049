//! Devices that come and go, those of the host in particular.

use std::sync::Arc;

use super::Unit;
use super::binding::BindingState;
use super::device::{Device, DeviceDescription, DeviceInfo};
use super::slots::{Answers, Slot};
use crate::host::device::HostDevice;
use crate::host::iommufd::Attach;
use crate::host::soft::TwinDevice;
use crate::host::{Errno, Host, Lent, Way};
use crate::vmm::Vmm;
use crate::{Error, Result};

/// Attaches a device by asking the VMM.
struct ByVmm {
    vmm: Arc<dyn Vmm>,
    tag: u64,
}

impl core::fmt::Debug for ByVmm {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ByVmm").field("tag", &self.tag).finish()
    }
}

impl Attach for ByVmm {
    fn attach(&self, pasid: Option<u32>, hwpt: u32) -> core::result::Result<(), Errno> {
        self.vmm.attach(self.tag, pasid, Some(hwpt))
    }

    fn detach(&self, pasid: Option<u32>) -> core::result::Result<(), Errno> {
        self.vmm.attach(self.tag, pasid, None)
    }
}

impl Unit {
    /// Add a device.
    ///
    /// # Errors
    /// `EINVAL`: it is assigned and there is no host, or the host lacks what the
    /// guest was promised. `ENOSPC`: too many devices. Any other errno: the host refused
    /// a call. Nothing of the device is then left, but that it may have been bound.
    pub fn device_add(&self, description: DeviceDescription) -> Result<u32> {
        let host = match (&self.host, description.assigned) {
            (_, false) => None,
            (Some(host), true) => Some(self.take(host, &description)?),
            (None, true) => {
                return Err(Error::invalid(
                    "an assigned device needs a host; select one when the unit is created",
                ));
            }
        };
        let device = Arc::new(Device::new(description, host));
        device.refresh_source_id(&*self.vmm);
        let handle = self
            .devices
            .write()
            .insert(&self.slots, Arc::clone(&device))
            .inspect_err(|_| {
                if let (Some(host), Some(bound)) = (&self.host, &device.host) {
                    host.leave(bound);
                    host.collect();
                }
            })?;
        self.with_state(|state, out| {
            self.sync_device(state, &device, out);
            self.collect_hwpts(state, out);
        });
        self.watch_faults();
        Ok(handle)
    }

    /// Take a device from the VMM, and give it its place on a nesting parent.
    fn take(&self, host: &Host, description: &DeviceDescription) -> Result<HostDevice> {
        let way = match (&self.twin, description.file) {
            (_, Some(fd)) => Way::File(fd),
            (Some(twin), None) => {
                let plugged = twin.add_device(TwinDevice::default());
                Way::OwnFile(plugged.map_err(|errno| {
                    Error::new(errno, "the software host cannot take another device")
                })?)
            }
            (None, None) if description.dev_id.is_none() => {
                return Err(Error::invalid(
                    "desc has neither a vfio file that could be bound (NVTD_DEVICE_FD) nor the \
                     dev_id of a device that is; pass one of them",
                ));
            }
            (None, None) => Way::Vmm(Box::new(ByVmm {
                vmm: Arc::clone(&self.vmm),
                tag: description.tag,
            })),
        };
        let lent = Lent {
            iommufd: description.iommufd,
            dev_id: description.dev_id,
            way,
        };
        let device = host.take(lent)?;
        let joined = self
            .check_host(&device.info)
            .and_then(|()| host.join(&device).map_err(Error::from));
        if let Err(refusal) = joined {
            host.leave(&device);
            host.collect();
            return Err(refusal);
        }
        Ok(device)
    }

    /// Remove a device.
    ///
    /// # Errors
    /// `ENOENT`: there is no such device.
    pub fn device_remove(&self, handle: u32) -> Result<()> {
        let (device, answers) = self.devices.write().remove(&self.slots, handle)?;
        self.contexts.forget(|key, _| key.device == handle);
        self.counters.translations.add(answers.all());
        self.counters.cache_hits.add(answers.hits);
        self.unwatch_faults(&device);
        self.with_state(|state, out| {
            state.unsettled.forget(&device);
            for (_, binding) in device.bindings() {
                state.index.remove(&binding);
            }
            device.forget_bindings();
            if let (Some(host), Some(bound)) = (&self.host, &device.host) {
                host.leave(bound);
                self.collect_hwpts(state, out);
            }
        });
        Ok(())
    }

    /// Remove the host's devices, so that nothing is left on an iommufd that was lent.
    pub(super) fn give_back(&self) {
        let assigned = self.devices.read().assigned();
        for handle in assigned {
            let _removed = self.device_remove(handle);
        }
    }

    /// State of a device.
    ///
    /// # Errors
    /// `ENOENT`: there is no such device.
    pub fn device_info(&self, handle: u32) -> Result<DeviceInfo> {
        let device = self.devices.read().get(handle)?;
        let source_id = device.refresh_source_id(&*self.vmm);
        let binding = device.binding.lock().clone();
        let translated = match binding.state {
            BindingState::Direct => self.look_up(source_id).and_then(core::result::Result::ok),
            _ => binding.translated,
        };
        let (pasids, pasids_blocked) = device.count_pasids();
        let slot = self.slots.get(handle);
        let answers = slot.map_or_else(Answers::default, Slot::answers);
        Ok(DeviceInfo {
            source_id,
            state: binding.state,
            domain_id: translated.map(|translated| translated.domain_id),
            stages: translated.map(|translated| translated.stages),
            hwpt: binding.hwpt.map(|hwpt| hwpt.id()),
            refused: binding.refused,
            pasids,
            pasids_blocked,
            translations: device.translations.get().wrapping_add(answers.all()),
            cache_hits: device.cache_hits.get().wrapping_add(answers.hits),
            faults: device.faults.get(),
            stale_uses: device.stale_uses.get(),
        })
    }
}
