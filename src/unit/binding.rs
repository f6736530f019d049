//! Bindings: what the requests of an assigned device are attached to on the host, kept
//! in step with the guest's tables.
//!
//! PASID entries are looked up when the guest announces a change (context-cache or
//! PASID-cache invalidation, SRTP, TE): that of requests without PASID, and those of
//! every PASID that has one. A first-stage entry becomes a nested HWPT, shared by all
//! whose entries name the same table; pass-through, and translation that is off, the
//! nesting parent. Whatever cannot be done leaves the requests blocked.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::device::Device;
use super::outbox::Outbox;
use super::pasids::STEPS_AT_A_TIME;
use super::work::steps;
use super::{State, Unit};
use crate::event::Event;
use crate::host::HostError;
use crate::host::device::{HostDevice, Hwpt};
use crate::host::space::Nested;
use crate::host::uapi::{VTD_S1_EAFE, VTD_S1_SRE, VTD_S1_WPE, VtdS1};
use crate::translate::Fault;
use crate::translate::stages::Stages;
use crate::translate::tables::{Purpose, Requester, TableFault, Translated, lookup};
use crate::vmm::LogLevel;

/// PASIDs of one device that are put on the host at most.
pub(super) const MAX_PASIDS: usize = 1 << 17;

/// What requests go through.
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

/// Where the requests of one PASID, or those without one, are on the host.
#[derive(Debug, Clone)]
pub(super) struct Binding {
    pub state: BindingState,
    /// The PASID entry this comes from.
    pub translated: Option<Translated>,
    /// What they are attached to.
    pub hwpt: Option<Hwpt>,
    /// The call that was refused for what the guest configured.
    pub refused: Option<HostError>,
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
            refused: None,
        }
    }

    fn blocked(translated: Option<Translated>, refused: Option<HostError>) -> Self {
        Self {
            translated,
            refused,
            ..Self::new(true)
        }
    }

    /// Do requests of `bound` that are translated so belong where these are? To put them
    /// there again would then change nothing, neither here nor on the host: the parent of
    /// a device stays the same, a nested HWPT is found by its content for as long as
    /// somebody is attached, and what the host may not have done is in `refused`.
    pub fn is_settled(&self, bound: &HostDevice, translated: &Translated) -> bool {
        self.refused.is_none()
            && self.translated.as_ref() == Some(translated)
            && match &self.hwpt {
                Some(Hwpt::Nested(nested)) => {
                    !bound.has_given_up_page_requests() || !nested.takes_page_requests()
                }
                Some(Hwpt::Parent(_)) => true,
                None => false,
            }
    }

    /// The nested HWPT, and by which domain and PASID the guest names it.
    fn named(&self) -> Option<(u16, u32, &Arc<Nested>)> {
        let Translated {
            domain_id, pasid, ..
        } = self.translated?;
        Some((domain_id, pasid, self.hwpt.as_ref()?.nested()?))
    }
}

/// A nested HWPT, and how many bindings name it so.
#[derive(Debug)]
struct Named {
    nested: Arc<Nested>,
    bindings: usize,
}

/// Nested HWPTs by what invalidations name them by: domain and PASID.
#[derive(Debug, Default)]
pub(super) struct Index {
    by_name: BTreeMap<(u16, u32), Vec<Named>>,
}

impl Index {
    fn add(&mut self, binding: &Binding) {
        let Some((domain_id, pasid, nested)) = binding.named() else {
            return;
        };
        let list = self.by_name.entry((domain_id, pasid)).or_default();
        let known = list
            .iter_mut()
            .find(|named| named.nested.serial == nested.serial);
        match known {
            Some(named) => named.bindings = named.bindings.saturating_add(1),
            None => list.push(Named {
                nested: Arc::clone(nested),
                bindings: 1,
            }),
        }
    }

    pub fn remove(&mut self, binding: &Binding) {
        let Some((domain_id, pasid, nested)) = binding.named() else {
            return;
        };
        let Some(list) = self.by_name.get_mut(&(domain_id, pasid)) else {
            return;
        };
        list.retain_mut(|named| {
            if named.nested.serial == nested.serial {
                named.bindings = named.bindings.saturating_sub(1);
            }
            named.bindings > 0
        });
        if list.is_empty() {
            self.by_name.remove(&(domain_id, pasid));
        }
    }

    /// Those of a domain and a PASID, of a domain, or all.
    pub fn find(&self, domain_id: Option<u16>, pasid: Option<u32>) -> Vec<Arc<Nested>> {
        let (first, last) = match (domain_id, pasid) {
            (None, _) => ((0, 0), (u16::MAX, u32::MAX)),
            (Some(domain_id), None) => ((domain_id, 0), (domain_id, u32::MAX)),
            (Some(domain_id), Some(pasid)) => ((domain_id, pasid), (domain_id, pasid)),
        };
        self.by_name
            .range(first..=last)
            .flat_map(|(_, list)| list.iter().map(|named| Arc::clone(&named.nested)))
            .collect()
    }
}

/// What became of the requests that could not be settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    /// They are.
    All,
    /// Some still cannot be.
    No,
    /// Some are to be tried yet.
    Later,
}

/// Where requests belong.
enum Wanted {
    Parent(Option<Translated>),
    Nested(VtdS1, Translated),
    Blocked(Option<Fault>),
}

/// The host's form of a first-stage configuration.
fn nested_content(translated: &Translated) -> Option<VtdS1> {
    let Stages::FirstStage(first) = &translated.stages else {
        // With a host, no second stage is reported.
        return None;
    };
    let flags = [
        (translated.supervisor_request, VTD_S1_SRE),
        (first.format.extended_accessed, VTD_S1_EAFE),
        (first.format.write_protect, VTD_S1_WPE),
    ];
    Some(VtdS1 {
        flags: flags
            .into_iter()
            .fold(0, |all, (set, flag)| if set { all | flag } else { all }),
        pgtbl_addr: first.table,
        addr_width: if first.format.levels == 5 { 57 } else { 48 },
        reserved: 0,
    })
}

impl Unit {
    /// The present PASID entry of a requester without PASID; None while translation is
    /// off.
    pub(super) fn look_up(&self, source_id: u16) -> Option<Result<Translated, TableFault>> {
        self.look_up_requester(Requester::plain(source_id))
    }

    /// How a requester is translated at present; None while translation is off.
    pub(super) fn look_up_requester(
        &self,
        requester: Requester,
    ) -> Option<Result<Translated, TableFault>> {
        let control = self.control.get();
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
            self.sync_device(state, device, out);
        }
        self.collect_hwpts(state, out);
    }

    /// Put the requests of one PASID of every device where the guest's tables say: those
    /// with it, and those without PASID that go through its entry, or may now.
    pub(super) fn sync_pasid(&self, state: &mut State, pasid: u32, out: &mut Outbox) {
        let devices = self.devices.read().all();
        for device in &devices {
            let through = device.binding.lock().translated.map(|it| it.pasid);
            if through.is_none_or(|used| used == pasid) {
                self.sync(state, device, None, out);
            }
            if self.is_pasid_of_host(pasid) {
                self.sync(state, device, Some(pasid), out);
            }
        }
        self.collect_hwpts(state, out);
    }

    /// The host has no requests with PASID 0: its entry is that of requests without.
    pub(super) fn is_pasid_of_host(&self, pasid: u32) -> bool {
        self.capabilities.ecap.pasid() && pasid != 0
    }

    /// Put all requests of a device where the guest's tables say.
    pub(super) fn sync_device(&self, state: &mut State, device: &Arc<Device>, out: &mut Outbox) {
        if device.host.is_none() {
            return;
        }
        self.sync(state, device, None, out);
        let mut scan = self.scan_pasids(device);
        while let Some(strays) = self.next_strays(device, &mut scan) {
            state.work.charge(STEPS_AT_A_TIME);
            for pasid in strays {
                self.sync(state, device, Some(pasid), out);
            }
        }
    }

    /// Put the requests of `pasid`, or those without one, where the guest's tables say.
    fn sync(&self, state: &mut State, device: &Arc<Device>, pasid: Option<u32>, out: &mut Outbox) {
        let Some(bound) = &device.host else {
            return;
        };
        let calls = self.counters.host_calls();
        let before = device.binding_of(pasid);
        let after = match self.wanted(device.source_id(), pasid) {
            Wanted::Blocked(fault) => {
                if before.is_none() && !bound.is_in_doubt(pasid) {
                    return;
                }
                self.detach(bound, device, pasid, fault, out)
            }
            _ if before.is_none() && device.count_pasids().0 >= MAX_PASIDS => {
                self.counters.pasids_ignored.add(1);
                return;
            }
            Wanted::Parent(translated) => {
                let wanted = bound.parent().map(|parent| Binding {
                    state: BindingState::Parent,
                    translated,
                    hwpt: Some(parent),
                    refused: None,
                });
                match wanted {
                    Some(wanted) => {
                        let attached = self.attach(bound, device, pasid, wanted, out);
                        attached.or_else(|(refused, translated)| {
                            self.give_up(bound, device, pasid, translated, refused, out)
                        })
                    }
                    None => Ok(Binding::blocked(translated, None)),
                }
            }
            Wanted::Nested(content, translated) => {
                self.nest(bound, device, pasid, content, translated, out)
            }
        };
        // Who cannot be detached was tried to be attached first, and is not counted.
        let refused = if after.is_err() { 2 } else { 0 };
        let calls = self.counters.host_calls().wrapping_sub(calls);
        let calls = calls.saturating_add(refused);
        state
            .work
            .charge(steps::LOOKUP.saturating_add(calls.saturating_mul(steps::CALL)));
        match after {
            Ok(after) => self.rebind(state, device, pasid, after),
            // It may still go where it went: not before that is settled has the guest's
            // command been done.
            Err(refused) => self.unsettle(state, device, pasid, refused, out),
        }
    }

    fn wanted(&self, source_id: u16, pasid: Option<u32>) -> Wanted {
        let requester = Requester {
            source_id,
            pasid,
            purpose: Purpose::Untranslated,
        };
        match self.look_up_requester(requester) {
            None if pasid.is_some() => Wanted::Blocked(None),
            None => Wanted::Parent(None),
            Some(Err(fault)) => Wanted::Blocked(Some(fault.fault)),
            Some(Ok(translated)) => match nested_content(&translated) {
                Some(content) => Wanted::Nested(content, translated),
                None => Wanted::Parent(Some(translated)),
            },
        }
    }

    /// Remember where requests are.
    fn rebind(&self, state: &mut State, device: &Device, pasid: Option<u32>, after: Binding) {
        state.index.add(&after);
        let hwpt = after.hwpt.clone();
        if let Some(before) = device.set_binding(pasid, after) {
            state.index.remove(&before);
            let stays = match (&before.hwpt, &hwpt) {
                (Some(before), Some(after)) => before.is(after),
                (before, _) => before.is_none(),
            };
            if !stays {
                device.forget_groups(pasid);
            }
        }
    }

    /// Neither attached nor detached: try again before the guest is told that its
    /// command is done.
    fn unsettle(
        &self,
        state: &mut State,
        device: &Arc<Device>,
        pasid: Option<u32>,
        refused: HostError,
        out: &mut Outbox,
    ) {
        self.refused(
            device,
            pasid,
            refused,
            "its DMA could not be blocked yet",
            out,
        );
        if let Some(binding) = device.binding_of(pasid) {
            let stuck = Binding {
                refused: Some(refused),
                ..binding
            };
            self.rebind(state, device, pasid, stuck);
        }
        state.unsettled.push((Arc::clone(device), pasid));
    }

    /// Try again what could not be settled, as far as this call's share goes.
    pub(super) fn settle(&self, state: &mut State, out: &mut Outbox) -> Settled {
        state.unsettled.begin_round();
        while !state.work.is_spent() {
            let Some((device, pasid)) = state.unsettled.next() else {
                break;
            };
            self.sync(state, &device, pasid, out);
        }
        self.collect_hwpts(state, out);
        if state.unsettled.is_in_round() {
            Settled::Later
        } else if state.unsettled.is_empty() {
            Settled::All
        } else {
            Settled::No
        }
    }

    /// Through the nested HWPT of `content`.
    fn nest(
        &self,
        bound: &HostDevice,
        device: &Device,
        pasid: Option<u32>,
        content: VtdS1,
        translated: Translated,
        out: &mut Outbox,
    ) -> Result<Binding, HostError> {
        let source_id = u64::from(device.source_id());
        loop {
            let (nested, fresh) = match bound.space.nested(bound, content) {
                Ok(found) => found,
                Err(refused) => {
                    self.counters.hwpt_alloc_errors.add(1);
                    out.event(
                        Event::HwptAllocError,
                        [refused.errno as u64, content.pgtbl_addr, source_id],
                    );
                    return self.give_up(bound, device, pasid, Some(translated), refused, out);
                }
            };
            let with_requests = nested.takes_page_requests();
            if fresh {
                self.counters.hwpt_allocs.add(1);
                out.event(
                    Event::HwptAlloc,
                    [u64::from(nested.id), content.pgtbl_addr, source_id],
                );
            }
            let wanted = Binding {
                state: BindingState::Nested,
                translated: Some(translated),
                hwpt: Some(Hwpt::Nested(nested)),
                refused: None,
            };
            let (refused, translated) = match self.attach(bound, device, pasid, wanted, out) {
                Ok(attached) => return Ok(attached),
                Err(refused) => refused,
            };
            // A device without PRI cannot have a fault queue; without one it may do.
            if refused.errno != libc::ENODEV || !with_requests {
                return self.give_up(bound, device, pasid, translated, refused, out);
            }
            bound.give_up_page_requests();
        }
    }

    /// Attach as `wanted`, unless that is so. A refusal comes with what was wanted.
    fn attach(
        &self,
        bound: &HostDevice,
        device: &Device,
        pasid: Option<u32>,
        wanted: Binding,
        out: &mut Outbox,
    ) -> Result<Binding, (HostError, Option<Translated>)> {
        let Some(hwpt) = wanted.hwpt.clone() else {
            return Ok(wanted);
        };
        let source_id = u64::from(device.source_id());
        match bound.attach(pasid, &hwpt) {
            Ok(false) => Ok(wanted),
            Ok(true) => {
                let pgtt = wanted
                    .translated
                    .map_or(0, |translated| translated.stages.translation_type() as u64);
                self.counters.attaches.add(1);
                out.event(Event::Attach, [source_id, u64::from(hwpt.id()), pgtt]);
                Ok(wanted)
            }
            Err(refused) => {
                self.counters.attach_errors.add(1);
                out.event(
                    Event::AttachError,
                    [source_id, u64::from(hwpt.id()), refused.errno as u64],
                );
                Err((refused, wanted.translated))
            }
        }
    }

    /// The guest's tables have nothing for these requests.
    fn detach(
        &self,
        bound: &HostDevice,
        device: &Device,
        pasid: Option<u32>,
        fault: Option<Fault>,
        out: &mut Outbox,
    ) -> Result<Binding, HostError> {
        if bound.detach(pasid)? {
            let reason = fault.map_or(0, |fault| u64::from(fault.reason.code()));
            out.event(Event::Detach, [u64::from(device.source_id()), reason, 0]);
            self.counters.detaches.add(1);
        }
        Ok(Binding::blocked(None, None))
    }

    /// The host refused: the requests stay blocked, on purpose, until the guest
    /// announces another configuration.
    fn give_up(
        &self,
        bound: &HostDevice,
        device: &Device,
        pasid: Option<u32>,
        translated: Option<Translated>,
        refused: HostError,
        out: &mut Outbox,
    ) -> Result<Binding, HostError> {
        let _was_attached = bound.detach(pasid)?;
        self.refused(device, pasid, refused, "its DMA is blocked", out);
        self.counters.detaches.add(1);
        Ok(Binding::blocked(translated, Some(refused)))
    }

    fn refused(
        &self,
        device: &Device,
        pasid: Option<u32>,
        refused: HostError,
        so: &str,
        out: &mut Outbox,
    ) {
        let [bus, devfn] = device.source_id().to_be_bytes();
        out.event(
            Event::HostRefused,
            [
                u64::from(device.source_id())
                    | pasid.map_or(0, |pasid| (1 << 63) | u64::from(pasid) << 16),
                u64::from(refused.request),
                refused.errno as u64,
            ],
        );
        out.log(&self.log_budget, LogLevel::Error, || {
            let whose = pasid.map_or(String::new(), |pasid| format!(" PASID {pasid:#x}"));
            format!(
                "device {bus:02x}:{:02x}.{}{whose}: {}; {so}",
                devfn >> 3,
                devfn & 7,
                crate::Error::from(refused).message()
            )
        });
    }

    /// Destroy the nested HWPTs that nobody uses any more.
    pub(super) fn collect_hwpts(&self, state: &mut State, out: &mut Outbox) {
        let Some(host) = &self.host else { return };
        let collected = host.collect();
        state
            .work
            .charge_each(collected.destroyed.len(), steps::CALL);
        state.work.charge_each(collected.refused.len(), steps::CALL);
        for id in collected.destroyed {
            self.counters.hwpt_destroys.add(1);
            out.event(Event::HwptDestroy, [u64::from(id), 0, 0]);
        }
        for refused in collected.refused {
            self.counters.hwpt_destroy_errors.add(1);
            let call = u64::from(refused.request);
            out.event(Event::HostRefused, [u64::MAX, call, refused.errno as u64]);
        }
    }

    /// Block all requests that go through an HWPT that must not be used any more.
    pub(super) fn block_users(
        &self,
        state: &mut State,
        nested: &Nested,
        refused: HostError,
        out: &mut Outbox,
    ) {
        let devices = self.devices.read().all();
        for device in devices {
            let Some(bound) = &device.host else { continue };
            for (pasid, before) in device.bindings() {
                let used = before.hwpt.as_ref().and_then(Hwpt::nested);
                if used.is_none_or(|used| used.serial != nested.serial) {
                    continue;
                }
                match self.give_up(bound, &device, pasid, before.translated, refused, out) {
                    Ok(after) => self.rebind(state, &device, pasid, after),
                    Err(refused) => self.unsettle(state, &device, pasid, refused, out),
                }
            }
        }
        self.collect_hwpts(state, out);
    }
}
