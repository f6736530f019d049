//! The invalidation queue (6.5.2): fetch, decode, execute, complete.

use super::batch::{Batch, entry_of};
use super::binding::Settled;
use super::direct::Named;
use super::outbox::{Failures, Outbox};
use super::work::steps;
use super::{State, Unit};
use crate::event::Event;
use crate::host::uapi::VtdS1Invalidate;
use crate::spec::descriptors::{Descriptor, Generic, PageRange, PasidPages, Scope, SourceMatch};
use crate::spec::registers::{QueueAddress, QueueErrorInfo, TableMode};
use crate::vmm::{LogLevel, Pasids};

/// Room for so many trace events is made before a drain.
const EVENTS_AT_ONCE: usize = 1024;

/// Why executing stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// Nothing is left to do.
    Done,
    /// The VMM has to obey before the wait at this IQH completes.
    Wait(u64),
    /// The VMM has to obey before anybody goes on.
    Full,
    /// This call has done its share.
    Spent,
}

/// Descriptors that were fetched together.
#[derive(Default)]
struct Ahead {
    descriptors: [[u64; 4]; 16],
    /// So many were fetched, and taken.
    count: usize,
    taken: usize,
}

impl Ahead {
    fn is_empty(&self) -> bool {
        self.taken >= self.count
    }

    fn next(&mut self) -> Option<&[u64; 4]> {
        let fetched = self.descriptors.get(..self.count)?;
        let next = fetched.get(self.taken)?;
        self.taken = self.taken.saturating_add(1);
        Some(next)
    }
}

impl Unit {
    /// Execute descriptors from IQH to IQT.
    ///
    /// The lock is let go where the VMM has to be told something before a wait may
    /// complete. Whoever comes meanwhile leaves the queue to this call.
    pub(super) fn run_queue(&self) {
        let mut paused: Option<(Stop, Failures)> = None;
        loop {
            let mut out = Outbox::new(&*self.vmm);
            let stop = {
                let state = &mut self.state.lock();
                match paused {
                    None if state.draining => return,
                    None => {
                        state.draining = true;
                        state.work.begin();
                    }
                    Some((stop, failures)) => self.resume(state, stop, failures, &mut out),
                }
                // A round that a wait has begun is for it to end.
                if !state.unsettled.is_empty() && !state.unsettled.is_in_round() {
                    self.settle(state, &mut out);
                }
                self.finish_commands(state);
                let mut stop = self.drain(state, &mut out);
                // A wait that another processor queues now finds them obeyed as well.
                if matches!(stop, Stop::Done | Stop::Spent) && out.has_orders() {
                    stop = Stop::Full;
                }
                state.draining = !matches!(stop, Stop::Done | Stop::Spent);
                if !state.draining {
                    self.counters.queue_steps.add(state.work.taken());
                }
                stop
            };
            let failures = self.deliver(out);
            match stop {
                Stop::Done => return,
                Stop::Spent => {
                    self.counters.queue_pauses.add(1);
                    self.vmm.more_work();
                    return;
                }
                Stop::Wait(_) | Stop::Full => {}
            }
            paused = Some((stop, failures));
        }
    }

    /// The VMM has been told. A device TLB that timed out aborts the wait that would
    /// have told software otherwise (6.5.2.10).
    fn resume(&self, state: &mut State, stop: Stop, failures: Failures, out: &mut Outbox) {
        let registers = &mut state.registers;
        let on = registers.status.queued_invalidation();
        if let (Some(_), Stop::Wait(head)) = (failures.timed_out, stop) {
            if on && registers.queue_head == head {
                registers.queue_head = after(registers.queue_address, head);
            }
        }
        self.record_failures(state, failures, out);
    }

    fn drain(&self, state: &mut State, out: &mut Outbox) -> Stop {
        let mut batch = Batch::default();
        let drained = self.drain_into(state, &mut batch, out);
        // A queue that ends without a wait has invalidated all the same.
        self.submit(state, &mut batch, out);
        drained.unwrap_or_else(|info| {
            self.queue_error(state, info, out);
            Stop::Done
        })
    }

    fn drain_into(
        &self,
        state: &mut State,
        batch: &mut Batch,
        out: &mut Outbox,
    ) -> Result<Stop, QueueErrorInfo> {
        let registers = &state.registers;
        let ready = registers.status.queued_invalidation() && !registers.faults.stops_queue();
        if !ready || registers.queue_head == registers.queue_tail {
            return Ok(Stop::Done);
        }
        let (queue, tail) = (registers.queue_address, registers.queue_tail);
        match TableMode::from(self.control.get().root) {
            TableMode::Scalable if !queue.wide() => return Err(QueueErrorInfo::BadWidth),
            TableMode::Reserved => return Err(QueueErrorInfo::BadTableMode),
            _ => {}
        }
        if tail >= queue.bytes() {
            return Err(QueueErrorInfo::BadTail);
        }
        if tail & queue.descriptor_size().wrapping_sub(1) != 0 {
            return Err(QueueErrorInfo::MisalignedTail);
        }
        let bytes = tail.wrapping_sub(state.registers.queue_head) & queue.bytes().wrapping_sub(1);
        // Descriptors have 16 bytes at least.
        let count = usize::try_from(bytes >> 4).unwrap_or(0);
        out.expect_events(count.min(EVENTS_AT_ONCE));
        let mut ahead = Ahead::default();
        let mut named = None;
        while state.registers.queue_head != tail {
            if state.work.is_spent() {
                return Ok(Stop::Spent);
            }
            let head = state.registers.queue_head;
            if ahead.is_empty() {
                self.fetch(queue, head, tail, &mut ahead);
            }
            let qwords = ahead.next().ok_or_else(|| {
                self.counters.memory_errors.add(1);
                QueueErrorInfo::FetchError
            })?;
            let descriptor = Descriptor::decode(*qwords)?;
            if let Descriptor::Wait { page_drain, .. } = descriptor {
                if out.has_orders() {
                    return Ok(Stop::Wait(head));
                }
                // Whoever hands the last answer out goes on with the queue.
                if page_drain && state.answering > 0 {
                    return Ok(Stop::Done);
                }
                self.submit(state, batch, out);
                if self.settle(state, out) == Settled::Later {
                    return Ok(Stop::Spent);
                }
            }
            state.work.charge(steps::DESCRIPTOR);
            let &[low, high, ..] = qwords;
            let kind = Generic::from_bits(low).kind();
            self.counters.descriptor(kind);
            out.event(Event::Descriptor, [u64::from(kind), low, high]);
            self.execute(state, descriptor, (batch, &mut named), out);
            state.registers.queue_head = after(queue, head);
            if state.registers.faults.stops_queue() {
                return Ok(Stop::Done);
            }
            if out.is_full() {
                return Ok(Stop::Full);
            }
        }
        Ok(Stop::Done)
    }

    /// The next descriptors from `head` on, up to the first that is not in RAM: software does not change what it has queued.
    fn fetch(&self, queue: QueueAddress, head: u64, tail: u64, ahead: &mut Ahead) {
        (ahead.count, ahead.taken) = (0, 0);
        let end = if tail > head { tail } else { queue.bytes() };
        let memory = self.memory.locked();
        let addresses = (head..end).step_by(if queue.wide() { 32 } else { 16 });
        for (place, offset) in ahead.descriptors.iter_mut().zip(addresses) {
            let address = queue.address().wrapping_add(offset);
            let fetched = if queue.wide() {
                memory.read_qwords::<4>(address)
            } else {
                let narrow = memory.read_qwords::<2>(address);
                narrow.map(|[low, high]| [low, high, 0, 0])
            };
            let Ok(qwords) = fetched else { break };
            *place = qwords;
            ahead.count = ahead.count.saturating_add(1);
        }
    }

    /// Stop the queue: IQH stays at the descriptor, IQERCD says why.
    fn queue_error(&self, state: &mut State, info: QueueErrorInfo, out: &mut Outbox) {
        let registers = &mut state.registers;
        let (head, tail) = (registers.queue_head, registers.queue_tail);
        self.counters.queue_errors.add(1);
        out.event(Event::QueueError, [info as u64, head, tail]);
        out.log(&self.log_budget, LogLevel::Warn, || {
            format!("invalidation queue error {info:?} with head {head:#x} and tail {tail:#x}")
        });
        registers.queue_error.set_info(info as u8);
        registers.faults.queue_error(out);
    }

    fn execute(
        &self,
        state: &mut State,
        descriptor: Descriptor,
        (batch, named): (&mut Batch, &mut Option<Named>),
        out: &mut Outbox,
    ) {
        match descriptor {
            Descriptor::ContextCache(scope) => {
                self.submit(state, batch, out);
                self.invalidate_context(state, scope, out);
            }
            Descriptor::PasidCache(scope) => {
                self.submit(state, batch, out);
                self.invalidate_pasid(state, scope, out);
            }
            Descriptor::Iotlb(scope) => self.collect_iotlb(state, scope, batch, out),
            Descriptor::PasidIotlb {
                domain_id,
                pasid,
                pages,
            } => {
                self.collect_pasid_iotlb(state, domain_id, pasid, pages, (batch, named), out);
            }
            Descriptor::Wait {
                status, interrupt, ..
            } => {
                // Everything before it is done, or was tried.
                if state.unsettled.is_empty() {
                    self.complete_wait(state, status, interrupt, out);
                } else {
                    self.abort_wait(state, out);
                }
            }
            Descriptor::InterruptEntryCache { range } => {
                state.work.charge(steps::ORDER);
                self.invalidate_interrupts(range, out);
            }
            Descriptor::PageGroupResponse {
                source_id,
                pasid,
                code,
                group,
            } => {
                state.work.charge(steps::CALL);
                self.page_group_response(source_id, pasid, group, code, out);
            }
            // A host flushes device TLBs along with its own.
            Descriptor::DeviceTlb { source_id, range } => {
                self.tell_device_tlb(state, source_id, Pasids::None, range, out);
            }
            Descriptor::PasidDeviceTlb {
                source_id,
                pasid,
                range,
            } => {
                let pasids = pasid.map_or(Pasids::All, Pasids::One);
                self.tell_device_tlb(state, source_id, pasids, range, out);
            }
        }
    }

    /// A device of the host could be neither flushed nor blocked: it may still use what
    /// the guest takes back when its wait completes. So the wait is aborted, as behind a
    /// device TLB that does not answer (6.5.2.10), and software asks again.
    fn abort_wait(&self, state: &mut State, out: &mut Outbox) {
        let Some((device, _)) = state.unsettled.first() else {
            return;
        };
        let source_id = device.source_id();
        self.counters.host_timeouts.add(1);
        out.event(Event::HostTimeout, [source_id.into(), 0, 0]);
        let registers = &mut state.registers;
        registers.queue_error.set_timeout_source(source_id);
        registers.faults.timeout_error(out);
    }

    /// Everything before the wait is done, as it is executed in order: fence and
    /// page-request drain ask for nothing more.
    fn complete_wait(
        &self,
        state: &mut State,
        status: Option<(u64, u32)>,
        interrupt: bool,
        out: &mut Outbox,
    ) {
        if let Some((address, data)) = status {
            match self.memory.write_u32(address, data) {
                Ok(()) => out.event(Event::WaitDone, [address, u64::from(data), 0]),
                Err(_) => {
                    self.counters.status_write_errors.add(1);
                    out.event(Event::WaitStatusError, [address, 0, 0]);
                }
            }
        }
        if interrupt {
            state.registers.complete(out);
        }
    }

    /// First-stage translations of a PASID are to be forgotten.
    fn collect_pasid_iotlb(
        &self,
        state: &mut State,
        domain_id: u16,
        pasid: u32,
        pages: PasidPages,
        (batch, named): (&mut Batch, &mut Option<Named>),
        out: &mut Outbox,
    ) {
        let named = self.named(domain_id, pasid, named);
        let forgotten = self.forget_pasid_translations(named, pages);
        state.work.charge(forgotten);
        self.tell_pasid(state, domain_id, pasid, pages, out);
        let name = (Some(domain_id), Some(pasid));
        self.collect(state, name, entry_of(pages), batch, out);
    }

    /// Type 2 names second-stage addresses, so whatever of the domain was cached by
    /// first-stage address goes.
    fn collect_iotlb(
        &self,
        state: &mut State,
        scope: Scope<PageRange>,
        batch: &mut Batch,
        out: &mut Outbox,
    ) {
        let forgotten = self.forget_translations(scope);
        state.work.charge(forgotten);
        self.tell_translations(state, scope, out);
        let domain_id = match scope {
            Scope::Global => None,
            Scope::Domain(domain_id) | Scope::Fine(domain_id, _) => Some(domain_id),
        };
        self.collect(state, (domain_id, None), VtdS1Invalidate::ALL, batch, out);
    }

    /// Ask for `entry` of every nested HWPT of a domain and PASID, of a domain, or of
    /// every one.
    fn collect(
        &self,
        state: &mut State,
        (domain_id, pasid): (Option<u16>, Option<u32>),
        entry: VtdS1Invalidate,
        batch: &mut Batch,
        out: &mut Outbox,
    ) {
        let mut full = false;
        let named = state.index.find(domain_id, pasid);
        state.work.charge_each(named.len(), steps::ENTRY);
        for nested in named {
            full |= batch.add(nested, entry);
        }
        if full {
            self.submit(state, batch, out);
        }
    }

    /// Forget context entries: devices whose entry may have changed are looked up
    /// again. Context entries have no domain ID in scalable mode, so a domain is
    /// everything.
    pub(super) fn invalidate_context(
        &self,
        state: &mut State,
        scope: Scope<SourceMatch>,
        out: &mut Outbox,
    ) {
        let looked_at = self.forget_contexts(scope);
        state.work.charge_each(looked_at, steps::ENTRY);
        self.tell_contexts(state, scope, out);
        self.sync_where(state, out, |device| match scope {
            Scope::Global | Scope::Domain(_) => true,
            Scope::Fine(_, matching) => matching.matches(device.source_id()),
        });
    }

    /// Forget PASID entries: look up again what they may be of. An entry may have come to
    /// name another domain, so the PASID counts, and a domain is everything.
    fn invalidate_pasid(&self, state: &mut State, scope: Scope<u32>, out: &mut Outbox) {
        let looked_at = self.forget_pasids(scope);
        state.work.charge_each(looked_at, steps::ENTRY);
        self.tell_everything(state, out);
        match scope {
            Scope::Global | Scope::Domain(_) => self.sync_all(state, out),
            Scope::Fine(_, pasid) => self.sync_pasid(state, pasid, out),
        }
    }

    /// An invalidation from the IOTLB register.
    pub(super) fn invalidate_iotlb(
        &self,
        state: &mut State,
        scope: Scope<PageRange>,
        out: &mut Outbox,
    ) {
        let mut batch = Batch::default();
        self.collect_iotlb(state, scope, &mut batch, out);
        self.submit(state, &mut batch, out);
    }

    /// Forget every translation.
    pub(super) fn invalidate_everything(&self, state: &mut State, out: &mut Outbox) {
        self.invalidate_iotlb(state, Scope::Global, out);
    }
}

/// IQH after the descriptor at `head`.
fn after(queue: QueueAddress, head: u64) -> u64 {
    let next = head.wrapping_add(queue.descriptor_size());
    if next >= queue.bytes() { 0 } else { next }
}
