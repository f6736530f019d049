//! Invalidations on their way out of the unit: to whoever keeps its answers, as vfio's
//! mappings and vhost's tables are, and to device TLBs.
//!
//! They are orders in the outbox: a wait descriptor completes only after the VMM has
//! obeyed them.

use super::Unit;
use super::device::{Device, Keepers, Notify};
use super::outbox::{Failures, Outbox};
use super::work::steps;
use super::{Result, State};
use crate::event::Event;
use crate::spec::descriptors::{PageRange, PasidPages, Scope, SourceMatch};
use crate::spec::fault::FaultReason;
use crate::spec::registers::QueueErrorRecord;
use crate::translate::stages::Stages;
use crate::translate::tables::{Requester, Translated};
use crate::vmm::{Holder, Invalidation, Pasids};

/// Every address.
const EVERYTHING: (u64, u64) = (0, u64::MAX);

impl Unit {
    /// Say who keeps a device's translations and is to be told of invalidations, with
    /// [`Vmm::invalidate`](crate::vmm::Vmm::invalidate).
    ///
    /// # Errors
    /// `ENOENT`: there is no such device.
    pub fn device_notify(&self, handle: u32, notify: Notify) -> Result<()> {
        self.devices.write().set_notify(handle, notify)
    }

    /// Tell those who keep answers of the unit, where `named` gives a range.
    fn tell(
        &self,
        state: &mut State,
        out: &mut Outbox,
        named: impl Fn(&Device) -> Option<(u64, u64)>,
    ) {
        let Some(keepers) = self.keepers(out) else {
            return;
        };
        for (handle, device) in keepers.iter().filter(|(_, device)| device.notify().unit) {
            state.work.charge(2 * steps::LOOKUP);
            if let Some(range) = named(device) {
                let pasids = Pasids::All;
                state.work.charge(steps::ORDER);
                self.order(out, *handle, device, Holder::Unit, pasids, range);
            }
        }
    }

    /// Those who keep answers, as they were when this work on the state first asked. Whoever comes later has not
    /// kept anything yet, and finds tables that are as they are after what is being executed.
    fn keepers(&self, out: &mut Outbox) -> Option<Keepers> {
        out.keepers(|| self.devices.read().keepers())
    }

    fn order(
        &self,
        out: &mut Outbox,
        handle: u32,
        device: &Device,
        holder: Holder,
        pasids: Pasids,
        (first, last): (u64, u64),
    ) {
        out.invalidation(Invalidation {
            tag: device.tag(),
            device: handle,
            source_id: device.source_id(),
            holder,
            pasids,
            first,
            last,
        });
    }

    /// Every translation of every device may be another one.
    pub(super) fn tell_everything(&self, state: &mut State, out: &mut Outbox) {
        self.tell(state, out, |_| Some(EVERYTHING));
    }

    /// Context entries are forgotten. Which domain a device was in before cannot be
    /// seen any more, so only source IDs are told apart.
    pub(super) fn tell_contexts(
        &self,
        state: &mut State,
        scope: Scope<SourceMatch>,
        out: &mut Outbox,
    ) {
        self.tell(state, out, |device| match scope {
            Scope::Fine(_, matching) if !matching.matches(device.source_id()) => None,
            _ => Some(EVERYTHING),
        });
    }

    /// Second-stage translations of a domain are forgotten. Where a first stage stands
    /// before them their addresses say nothing.
    pub(super) fn tell_translations(
        &self,
        state: &mut State,
        scope: Scope<PageRange>,
        out: &mut Outbox,
    ) {
        self.tell(state, out, |device| match scope {
            Scope::Global => Some(EVERYTHING),
            Scope::Domain(domain_id) => self.in_domain(device, domain_id, |_| EVERYTHING),
            Scope::Fine(domain_id, range) => self.in_domain(device, domain_id, |found| {
                if matches!(found.stages, Stages::SecondStage(_)) {
                    bytes(range)
                } else {
                    EVERYTHING
                }
            }),
        });
    }

    /// First-stage translations of a PASID are forgotten.
    pub(super) fn tell_pasid(
        &self,
        state: &mut State,
        domain_id: u16,
        pasid: u32,
        pages: PasidPages,
        out: &mut Outbox,
    ) {
        let range = match pages {
            PasidPages::All => EVERYTHING,
            PasidPages::Range(range) => bytes(range),
        };
        let named = |found: &Translated| found.domain_id == domain_id && found.pasid == pasid;
        self.tell(state, out, |device| {
            let plain = self.look_up(device.source_id())?;
            let told = match &plain {
                Ok(found) => named(found),
                Err(_) => true,
            };
            (told || self.uses_pasid(device, pasid, named)).then_some(range)
        });
    }

    /// Does the device make requests with this PASID, of which `named` holds or nobody
    /// can tell?
    fn uses_pasid(&self, device: &Device, pasid: u32, named: impl Fn(&Translated) -> bool) -> bool {
        if !self.capabilities.ecap.pasid() {
            return false;
        }
        let requester = Requester {
            pasid: Some(pasid),
            ..Requester::plain(device.source_id())
        };
        match self.look_up_requester(requester) {
            None => false,
            Some(Ok(found)) => named(&found),
            Some(Err(refused)) => refused.fault.reason != FaultReason::PasidDisabled,
        }
    }

    /// The range, if the device is in the domain or nobody can tell. Which domains its
    /// requests with PASID are in is not looked for: they are told of every one.
    fn in_domain(
        &self,
        device: &Device,
        domain_id: u16,
        range: impl Fn(&Translated) -> (u64, u64),
    ) -> Option<(u64, u64)> {
        let plain = self.look_up(device.source_id())?;
        if self.uses_pasid(device, 0, |_| true) {
            return Some(EVERYTHING);
        }
        match plain {
            Ok(found) if found.domain_id != domain_id => None,
            Ok(found) => Some(range(&found)),
            Err(_) => Some(EVERYTHING),
        }
    }

    /// The TLB of a device is to forget.
    pub(super) fn tell_device_tlb(
        &self,
        state: &mut State,
        source_id: u16,
        pasids: Pasids,
        range: (u64, u64),
        out: &mut Outbox,
    ) {
        let Some(keepers) = self.keepers(out) else {
            return;
        };
        state.work.charge_each(keepers.len(), steps::ENTRY);
        for (handle, device) in keepers.iter() {
            let Notify { device_tlb, .. } = device.notify();
            if device_tlb && device.source_id() == source_id {
                state.work.charge(steps::ORDER);
                self.order(out, *handle, device, Holder::DeviceTlb, pasids, range);
            }
        }
    }

    /// Every device TLB is to forget everything.
    pub(super) fn tell_device_tlbs(&self, out: &mut Outbox) {
        let Some(keepers) = self.keepers(out) else {
            return;
        };
        for (handle, device) in keepers.iter() {
            if device.notify().device_tlb {
                let holder = Holder::DeviceTlb;
                self.order(out, *handle, device, holder, Pasids::All, EVERYTHING);
            }
        }
    }

    /// Device TLBs that did not do as they were told: FSTS and IQERCD (6.5.2.10).
    pub(super) fn record_failures(&self, state: &mut State, failures: Failures, out: &mut Outbox) {
        let registers = &mut state.registers;
        if let Some(source_id) = failures.failed {
            self.counters.device_tlb_errors.add(1);
            out.event(Event::DeviceInvalidateError, [source_id.into(), 0, 0]);
            registers.queue_error.set_completion_source(source_id);
            registers.faults.completion_error(out);
        }
        if let Some(source_id) = failures.timed_out {
            self.counters.device_tlb_errors.add(1);
            out.event(Event::DeviceInvalidateError, [source_id.into(), 1, 0]);
            registers.queue_error.set_timeout_source(source_id);
            registers.faults.timeout_error(out);
        }
    }
}

/// First and last byte of a range.
fn bytes(range: PageRange) -> (u64, u64) {
    match range.bounds() {
        None => EVERYTHING,
        Some((first, pages)) => {
            let bytes = pages.wrapping_mul(crate::spec::PAGE_SIZE);
            (first, first.wrapping_add(bytes.wrapping_sub(1)))
        }
    }
}

/// IQERCD after software has written FSTS: fields of errors that are gone are 0.
pub(super) fn remaining(
    record: QueueErrorRecord,
    status: crate::spec::registers::FaultStatus,
) -> QueueErrorRecord {
    let keep = |set: bool, value: u16| if set { value } else { 0 };
    QueueErrorRecord::new()
        .with_info(if status.queue_error() {
            record.info()
        } else {
            0
        })
        .with_timeout_source(keep(status.timeout_error(), record.timeout_source()))
        .with_completion_source(keep(status.completion_error(), record.completion_source()))
}
