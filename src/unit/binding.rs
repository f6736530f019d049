//! Bindings: what an assigned device is attached to on the host, kept in step with
//! the guest's tables.
//!
//! The guest's PASID entry is looked up when it announces a change (context-cache
//! or PASID-cache invalidation, SRTP, TE). A first-stage entry becomes a nested
//! HWPT, shared by the devices whose entries name the same table; pass-through, and
//! translation that is off, the nesting parent. Whatever cannot be done leaves the
//! device detached.

use std::collections::HashMap;
use std::sync::Arc;

use super::device::{Device, DeviceDescription, DeviceInfo};
use super::outbox::Outbox;
use super::{State, Unit};
use crate::event::Event;
use crate::host::{Errno, Host, HostDevice, HwptId, VtdS1};
use crate::translate::Fault;
use crate::translate::stages::Stages;
use crate::translate::tables::{Requester, TableFault, Translated, lookup};
use crate::vmm::LogLevel;
use crate::{Error, Result};

/// What a device's DMA goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindingState {
    /// No host: the unit walks the tables.
    Direct,
    /// The host's nesting parent.
    Parent,
    /// A nested HWPT.
    Nested,
    /// Nothing.
    Blocked,
}

/// An assigned device's place on the host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Binding {
    pub state: BindingState,
    /// The PASID entry this comes from.
    pub translated: Option<Translated>,
    /// The HWPT, and the content of a nested one.
    pub hwpt: Option<HwptId>,
    nested: Option<VtdS1>,
    /// Why the host refused what the guest configured.
    pub errno: Option<Errno>,
}

impl Binding {
    /// Nothing yet.
    pub fn new(assigned: bool) -> Self {
        let state = if assigned {
            BindingState::Blocked
        } else {
            BindingState::Direct
        };
        Self {
            state,
            translated: None,
            hwpt: None,
            nested: None,
            errno: None,
        }
    }

    /// The nested HWPT, if there is one and its PASID entry names the domain.
    pub fn nested_hwpt(&self, domain_id: Option<u16>) -> Option<HwptId> {
        let used = self.translated?.domain_id;
        self.nested?;
        self.hwpt
            .filter(|_| domain_id.is_none_or(|wanted| wanted == used))
    }
}

/// Nested HWPTs by their content, with the number of devices attached.
#[derive(Debug, Default)]
pub(super) struct SharedHwpts {
    by_content: HashMap<VtdS1, Shared>,
}

#[derive(Debug)]
struct Shared {
    id: HwptId,
    users: usize,
}

/// Where a device belongs.
enum Wanted {
    Parent(Option<Translated>),
    Nested(VtdS1, Translated),
    Blocked(Fault),
}

/// The host's form of a first-stage configuration.
fn nested_content(stages: &Stages) -> Option<VtdS1> {
    match stages {
        Stages::FirstStage(first) => Some(VtdS1 {
            flags: 0,
            pgtbl_addr: first.table,
            addr_width: if first.format.levels == 5 { 57 } else { 48 },
            reserved: 0,
        }),
        // With a host, no second stage is reported.
        Stages::PassThrough { .. } | Stages::SecondStage(_) | Stages::Nested(..) => None,
    }
}

impl Unit {
    /// Add a device.
    ///
    /// # Errors
    /// `EINVAL`: it is assigned and there is no host, or the host lacks what the
    /// guest was promised. `ENOSPC`: too many devices.
    pub fn device_add(&self, description: DeviceDescription) -> Result<u32> {
        let host = match (&self.host, description.assigned) {
            (_, false) => None,
            (Some(host), true) => Some(self.bind(&**host)?),
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
            .insert(Arc::clone(&device))
            .inspect_err(|_| {
                if let (Some(host), Some(bound)) = (&self.host, device.host) {
                    host.unbind(bound);
                }
            })?;
        self.with_state(|state, out| self.sync(state, &device, out));
        Ok(handle)
    }

    fn bind(&self, host: &dyn Host) -> Result<HostDevice> {
        let errno = |errno| Error::new(errno, "the host cannot take another device");
        let device = host.bind().map_err(errno)?;
        let checked = host.hw_info(device).map_err(errno).and_then(|info| {
            let (cap, ecap) = (self.capabilities.cap, self.capabilities.ecap);
            let missing = [
                ("nested translation (ECAP.NEST)", !info.ecap.nested()),
                (
                    "first-stage translation (ECAP.FSTS)",
                    !info.ecap.first_stage(),
                ),
                (
                    "coherent table walks (ECAP.SMPWCS)",
                    ecap.page_walk_coherent() && !info.ecap.page_walk_coherent(),
                ),
                (
                    "1 GiB first-stage pages (CAP.FS1GP); turn fs1gp off",
                    cap.first_stage_1g() && !info.cap.first_stage_1g(),
                ),
            ];
            match missing.iter().find(|(_, lacks)| *lacks) {
                Some((what, _)) => Err(Error::invalid(format!("the host lacks {what}"))),
                None => Ok(device),
            }
        });
        checked.inspect_err(|_| host.unbind(device))
    }

    /// Remove a device.
    ///
    /// # Errors
    /// `ENOENT`: there is no such device.
    pub fn device_remove(&self, handle: u32) -> Result<()> {
        let device = self.devices.write().remove(handle)?;
        self.with_state(|state, out| {
            if let (Some(host), Some(bound)) = (&self.host, device.host) {
                let nested = device.binding.lock().nested.take();
                host.unbind(bound);
                self.release(state, nested, out);
            }
        });
        Ok(())
    }

    /// State of a device.
    ///
    /// # Errors
    /// `ENOENT`: there is no such device.
    pub fn device_info(&self, handle: u32) -> Result<DeviceInfo> {
        let device = self.devices.read().get(handle)?;
        let source_id = device.refresh_source_id(&*self.vmm);
        let binding = *device.binding.lock();
        let translated = match binding.state {
            BindingState::Direct => self.look_up(source_id).and_then(core::result::Result::ok),
            _ => binding.translated,
        };
        Ok(DeviceInfo {
            source_id,
            state: binding.state,
            domain_id: translated.map(|translated| translated.domain_id),
            stages: translated.map(|translated| translated.stages),
            hwpt: binding.hwpt,
            host_errno: binding.errno,
            translations: device.translations.get(),
            cache_hits: device.cache_hits.get(),
            faults: device.faults.get(),
            stale_uses: device.stale_uses.get(),
        })
    }

    /// The present PASID entry of a requester; None while translation is off.
    pub(super) fn look_up(
        &self,
        source_id: u16,
    ) -> Option<core::result::Result<Translated, TableFault>> {
        self.look_up_requester(Requester::plain(source_id))
    }

    /// How a requester is translated at present; None while translation is off.
    pub(super) fn look_up_requester(
        &self,
        requester: Requester,
    ) -> Option<core::result::Result<Translated, TableFault>> {
        let control = *self.control.read();
        control
            .enabled
            .then(|| lookup(&*self.memory, &self.capabilities, control.root, requester))
    }

    /// Put every assigned device where the guest's tables say.
    pub(super) fn sync_all(&self, state: &mut State, out: &mut Outbox) {
        self.sync_where(state, out, |_| true);
    }

    /// Put those devices for which `named` holds where the guest's tables say.
    pub(super) fn sync_where(
        &self,
        state: &mut State,
        out: &mut Outbox,
        named: impl Fn(&Device) -> bool,
    ) {
        let devices = self.devices.read().all();
        for device in devices.iter().filter(|device| named(device)) {
            self.sync(state, device, out);
        }
    }

    /// Put a device where the guest's tables say.
    fn sync(&self, state: &mut State, device: &Device, out: &mut Outbox) {
        let (Some(host), Some(bound)) = (self.host.as_deref(), device.host) else {
            return;
        };
        let wanted = match self.look_up(device.source_id()) {
            None => Wanted::Parent(None),
            Some(Err(fault)) => Wanted::Blocked(fault.fault),
            Some(Ok(translated)) => match nested_content(&translated.stages) {
                Some(content) => Wanted::Nested(content, translated),
                None => Wanted::Parent(Some(translated)),
            },
        };
        let before = *device.binding.lock();
        let after = match wanted {
            Wanted::Blocked(fault) => self.detach(host, bound, device, fault, out),
            Wanted::Parent(translated) => {
                let parent = Binding {
                    state: BindingState::Parent,
                    translated,
                    hwpt: Some(host.parent()),
                    nested: None,
                    errno: None,
                };
                self.attach(host, bound, device, before, parent, out)
            }
            Wanted::Nested(content, translated) => {
                match self.acquire(state, host, bound, device, content, out) {
                    Ok(hwpt) => {
                        let nested = Binding {
                            state: BindingState::Nested,
                            translated: Some(translated),
                            hwpt: Some(hwpt),
                            nested: Some(content),
                            errno: None,
                        };
                        let after = self.attach(host, bound, device, before, nested, out);
                        if after.nested.is_none() {
                            self.release(state, Some(content), out);
                        }
                        after
                    }
                    Err(errno) => self.give_up(host, bound, Some(translated), errno),
                }
            }
        };
        *device.binding.lock() = after;
        self.release(state, before.nested, out);
    }

    /// Attach to `wanted`, unless the device is there already; detach if that fails.
    fn attach(
        &self,
        host: &dyn Host,
        bound: HostDevice,
        device: &Device,
        before: Binding,
        wanted: Binding,
        out: &mut Outbox,
    ) -> Binding {
        let Some(hwpt) = wanted.hwpt else {
            return before;
        };
        if before.hwpt == wanted.hwpt {
            return wanted;
        }
        let source_id = u64::from(device.source_id());
        match host.attach(bound, hwpt) {
            Ok(()) => {
                let pgtt = wanted
                    .translated
                    .map_or(0, |translated| translated.stages.translation_type() as u64);
                self.counters.attaches.add(1);
                out.event(Event::Attach, [source_id, u64::from(hwpt.0), pgtt]);
                wanted
            }
            Err(errno) => {
                self.counters.attach_errors.add(1);
                out.event(
                    Event::AttachError,
                    [source_id, u64::from(hwpt.0), errno as u64],
                );
                self.refused(device, "attachment", errno, out);
                self.give_up(host, bound, wanted.translated, errno)
            }
        }
    }

    /// The guest's tables have nothing for the device.
    fn detach(
        &self,
        host: &dyn Host,
        bound: HostDevice,
        device: &Device,
        fault: Fault,
        out: &mut Outbox,
    ) -> Binding {
        let before = *device.binding.lock();
        if before.hwpt.is_some() {
            let arguments = [
                u64::from(device.source_id()),
                u64::from(fault.reason.code()),
                0,
            ];
            out.event(Event::Detach, arguments);
            self.counters.detaches.add(1);
        }
        // The device is known to the host, so this cannot fail.
        let _detached = host.detach(bound);
        Binding::new(true)
    }

    /// The host refused: the device stays detached, on purpose, until the guest
    /// announces another configuration.
    fn give_up(
        &self,
        host: &dyn Host,
        bound: HostDevice,
        translated: Option<Translated>,
        errno: Errno,
    ) -> Binding {
        let _detached = host.detach(bound);
        self.counters.detaches.add(1);
        Binding {
            translated,
            errno: Some(errno),
            ..Binding::new(true)
        }
    }

    fn refused(&self, device: &Device, what: &str, errno: Errno, out: &mut Outbox) {
        let [bus, devfn] = device.source_id().to_be_bytes();
        out.log(&self.log_budget, LogLevel::Error, || {
            format!(
                "the host refused the {what} of device {bus:02x}:{:02x}.{} with errno {errno}; its \
                 DMA is blocked",
                devfn >> 3,
                devfn & 7
            )
        });
    }

    /// The nested HWPT of this content, allocated if it is the first of its kind.
    fn acquire(
        &self,
        state: &mut State,
        host: &dyn Host,
        bound: HostDevice,
        device: &Device,
        content: VtdS1,
        out: &mut Outbox,
    ) -> core::result::Result<HwptId, Errno> {
        if let Some(shared) = state.hwpts.by_content.get_mut(&content) {
            shared.users = shared.users.saturating_add(1);
            return Ok(shared.id);
        }
        let source_id = u64::from(device.source_id());
        match host.alloc_nested(bound, &content) {
            Ok(id) => {
                self.counters.hwpt_allocs.add(1);
                out.event(
                    Event::HwptAlloc,
                    [u64::from(id.0), content.pgtbl_addr, source_id],
                );
                state
                    .hwpts
                    .by_content
                    .insert(content, Shared { id, users: 1 });
                Ok(id)
            }
            Err(errno) => {
                self.counters.hwpt_alloc_errors.add(1);
                out.event(
                    Event::HwptAllocError,
                    [errno as u64, content.pgtbl_addr, source_id],
                );
                self.refused(device, "nested HWPT", errno, out);
                Err(errno)
            }
        }
    }

    /// A device has left the nested HWPT of this content; the last one ends it.
    fn release(&self, state: &mut State, content: Option<VtdS1>, out: &mut Outbox) {
        let Some(content) = content else { return };
        let Some(shared) = state.hwpts.by_content.get_mut(&content) else {
            return;
        };
        shared.users = shared.users.saturating_sub(1);
        if shared.users > 0 {
            return;
        }
        let id = shared.id;
        state.hwpts.by_content.remove(&content);
        if let Some(host) = &self.host {
            if host.destroy(id).is_ok() {
                self.counters.hwpt_destroys.add(1);
                out.event(Event::HwptDestroy, [u64::from(id.0), 0, 0]);
            }
        }
    }

    /// Detach every device from an HWPT that must not be used any more.
    pub(super) fn block_users(
        &self,
        state: &mut State,
        hwpt: HwptId,
        errno: Errno,
        out: &mut Outbox,
    ) {
        let Some(host) = self.host.as_deref() else {
            return;
        };
        let devices = self.devices.read().all();
        for device in devices {
            let before = *device.binding.lock();
            let (Some(bound), true) = (device.host, before.hwpt == Some(hwpt)) else {
                continue;
            };
            self.refused(&device, "invalidation", errno, out);
            *device.binding.lock() = self.give_up(host, bound, before.translated, errno);
            self.release(state, before.nested, out);
        }
    }
}
