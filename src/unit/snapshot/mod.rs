//! The unit's architectural state as bytes, and from them again, for migration and
//! snapshots. docs/migration.md has the layout, and what is not in it.
//!
//! What follows from the guest's tables is looked up again where the state is loaded. So
//! caches, and whatever is on a host, are no part of it.

mod differences;
pub(super) mod format;
mod groups;
mod registers;

use std::collections::BTreeSet;
use std::sync::Arc;

use super::device::Device;
use super::host_faults::HostGroup;
use super::outbox::{Failures, Outbox};
use super::{State, Unit};
use crate::event::Event;
use crate::spec::page_request::ResponseCode;
use crate::vmm::LogLevel;
use crate::{Error, Result};
use format::{Opened, Writer};
use groups::Group;
use registers::Programmed;

/// A saved state that this unit can have.
struct Loaded {
    programmed: Programmed,
    /// Groups that the guest has not answered, and the devices that have asked.
    groups: Vec<(Group, Arc<Device>)>,
}

impl Unit {
    /// The architectural state: what the guest has programmed, and what it has not yet
    /// seen to. It is as it is between two accesses: an access that other threads are
    /// making is in it or not, descriptor by descriptor for one that executes the queue.
    ///
    /// An interrupt that such a thread is about to hand to [`Vmm::msi`] is no part of it. So
    /// whoever saves has the guest's processors and devices stopped, and the calls that they
    /// were making back, before the interrupt controllers are saved.
    ///
    /// [`Vmm::msi`]: crate::vmm::Vmm::msi
    pub fn save(&self) -> Vec<u8> {
        self.refresh_source_ids();
        let saved = self.with_state(|state, _| self.save_state(state));
        self.vmm.event(Event::Save, saved.len() as u64, 0, 0);
        saved
    }

    fn save_state(&self, state: &State) -> Vec<u8> {
        let (cap, ecap) = (self.capabilities.cap, self.capabilities.ecap);
        let mut writer = Writer::default();
        let (control, interrupts) = (self.control.get(), *self.interrupts.read());
        registers::save(&mut writer, ecap, &state.registers, control, &interrupts);
        if ecap.page_request() {
            groups::save(&mut writer, self.open_groups());
        }
        writer.finish([cap.into_bits(), ecap.into_bits()])
    }

    /// Groups of page requests that the guest has not answered.
    fn open_groups(&self) -> BTreeSet<Group> {
        let devices = self.devices.read().all();
        let mut groups = BTreeSet::new();
        for device in devices {
            let source_id = device.source_id();
            let waiting = device.host_groups.lock();
            let waiting = waiting.keys().map(|&(pasid, index)| Group {
                source_id,
                pasid,
                index,
            });
            groups.extend(waiting.filter(Group::is_good));
        }
        groups
    }

    /// Put the unit into a state that [`Self::save`] gave, of a unit with the same
    /// capabilities. Devices and RAM, with what the guest's tables have in it, are there
    /// already.
    ///
    /// Caches are empty then, assigned devices are where the guest's tables say, and whoever
    /// keeps answers of the unit has been told to forget them, device TLBs included. Counters
    /// stay. Nothing is sent and nothing executed: an interrupt that waits is sent when the
    /// guest unmasks it, and descriptors that wait are executed with the next access of IQT,
    /// IQH or FSTS.
    ///
    /// # Errors
    /// `EINVAL`: the state was cut or changed, is of a later release or of a unit with other
    /// capabilities, or cannot be. `EBUSY`: another call is executing what the guest has
    /// commanded. The unit is then unchanged.
    pub fn load(&self, saved: &[u8]) -> Result<()> {
        let devices = self.devices.read().all();
        for device in &devices {
            device.refresh_source_id(&*self.vmm);
        }
        let loaded = self.parse(saved)?;
        let mut out = Outbox::new(&*self.vmm);
        {
            let state = &mut self.state.lock();
            if state.draining || state.telling > 0 || state.answering > 0 {
                return Err(Error::new(
                    libc::EBUSY,
                    "another call executes what the guest has commanded; load a state when the \
                     guest's processors and devices are stopped, and not from inside a callback",
                ));
            }
            out.event(Event::Load, [saved.len() as u64, 0, 0]);
            self.apply(state, loaded, &mut out);
            state.telling = state.telling.saturating_add(1);
        }
        let failures = self.deliver(out);
        {
            let state = &mut self.state.lock();
            state.telling = state.telling.saturating_sub(1);
        }
        self.warn_of(failures);
        Ok(())
    }

    /// All that can be wrong with a saved state is found here.
    fn parse(&self, saved: &[u8]) -> Result<Loaded> {
        let (cap, ecap) = (self.capabilities.cap, self.capabilities.ecap);
        let Opened {
            capabilities,
            mut sections,
        } = Opened::new(saved)?;
        differences::compare(capabilities, cap, ecap)?;
        let programmed = registers::load(&mut sections, ecap)?;
        let groups = if ecap.page_request() {
            groups::load(&mut sections)?
        } else {
            Vec::new()
        };
        sections.end()?;
        let devices = self.devices.read();
        let groups = groups.into_iter().map(|group| {
            let Some((_, device)) = devices.find(group.source_id) else {
                let [bus, devfn] = group.source_id.to_be_bytes();
                return Err(Error::invalid(format!(
                    "in the saved state device {bus:02x}:{:02x}.{} waits for an answer to its \
                     page requests, but is not behind this unit; add it first",
                    devfn >> 3,
                    devfn & 7
                )));
            };
            Ok((group, device))
        });
        Ok(Loaded {
            groups: groups.collect::<Result<_>>()?,
            programmed,
        })
    }

    fn apply(&self, state: &mut State, loaded: Loaded, out: &mut Outbox) {
        let Loaded { programmed, groups } = loaded;
        state.registers = programmed.registers;
        self.control.set(programmed.control);
        *self.interrupts.write() = programmed.interrupts;
        self.invalidate_interrupts(None, out);
        self.contexts.clear();
        // What this host's devices have asked the guest does not know of.
        let devices = self.devices.read().all();
        for device in &devices {
            let asked = core::mem::take(&mut *device.host_groups.lock());
            for group in asked.values() {
                group.answer(ResponseCode::Invalid);
            }
        }
        self.sync_all(state, out);
        // A host's devices that stay where they were have cached what was in RAM before.
        self.invalidate_everything(state, out);
        self.tell_device_tlbs(out);
        for (group, device) in groups {
            let key = (group.pasid, group.index);
            device.host_groups.lock().insert(key, HostGroup::Elsewhere);
        }
    }

    /// The guest has not asked for what failed, so that it is the operator who is told.
    fn warn_of(&self, failures: Failures) {
        for source_id in [failures.failed, failures.timed_out].into_iter().flatten() {
            let [bus, devfn] = source_id.to_be_bytes();
            let line = format!(
                "what device {bus:02x}:{:02x}.{} keeps of translations could not be invalidated \
                 when a saved state was loaded",
                devfn >> 3,
                devfn & 7
            );
            self.vmm.log(LogLevel::Error, &line);
        }
    }
}
