//! Page requests (PRI): the queue that devices' requests for pages go into, and the
//! page group responses that go back (7.4 to 7.7, 11.4.11).
//!
//! A request is judged and queued while the state is locked. So a wait descriptor
//! finds everything in the queue that was judged by the tables as they were before
//! it. PD, page-request drain, asks for one thing more: that the unit's own answers
//! are handed out.

use super::device::Device;
use super::fault_log::Refused;
use super::outbox::Outbox;
use super::regmap::Register;
use super::signal::Signal;
use super::{State, Unit};
use crate::event::Event;
use crate::spec::fault::RecordedType;
use crate::spec::page_request::{
    PAGE_REQUEST_SIZE, PAGE_REQUEST_TYPE, PageRequestHigh, PageRequestLow, ResponseCode,
};
use crate::spec::registers::{PageQueueAddress, PageRequestStatus};
use crate::translate::tables::{Purpose, Requester, TableFault, lookup};
use crate::vmm::PageResponse;
use crate::{Error, Result};

/// Bits of PQH and PQT that hold an offset.
pub(super) const QUEUE_OFFSET: u64 = 0x7_ffe0;

/// A device asks for a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PageRequest {
    /// Any address in the page.
    pub address: u64,
    /// PASID, 20 bits, if it has one.
    pub pasid: Option<u32>,
    /// The page is to be read.
    pub read: bool,
    /// The page is to be written. A request for neither is a stop marker; it is the
    /// last of its group, and is never answered.
    pub write: bool,
    /// The page is to be executed; only with PASID and reading.
    pub execute: bool,
    /// For privileged mode; only with PASID.
    pub privileged: bool,
    /// The last request of its group: it is answered, once for the group.
    pub last: bool,
    /// Page request group index, 9 bits.
    pub group: u16,
}

impl PageRequest {
    /// Is there to be a response, for all of the group?
    fn is_answered(&self) -> bool {
        self.last && (self.read || self.write)
    }

    /// What a device can put on the bus.
    fn check(&self) -> Result<()> {
        let wrong = [
            (
                self.pasid.is_some_and(|pasid| pasid >> 20 != 0),
                "the PASID is beyond 20 bits",
            ),
            (self.group >> 9 != 0, "the group index is beyond 9 bits"),
            (
                (self.execute || self.privileged) && self.pasid.is_none(),
                "a page is asked for to be executed or in privileged mode only with a PASID",
            ),
            (
                self.execute && !self.read,
                "a page that is to be executed is also to be read",
            ),
            (
                !self.read && !self.write && !self.last,
                "a page request reads or writes; one for neither is a stop marker and the last of \
                 its group",
            ),
        ];
        match wrong.into_iter().find(|(is_wrong, _)| *is_wrong) {
            Some((_, message)) => Err(Error::invalid(message)),
            None => Ok(()),
        }
    }

    /// The page request descriptor (7.4.1.1).
    fn descriptor(&self, source_id: u16) -> [u64; 4] {
        let low = PageRequestLow::new()
            .with_kind(PAGE_REQUEST_TYPE)
            .with_pasid_present(self.pasid.is_some())
            .with_source_id(source_id)
            .with_pasid(self.pasid.unwrap_or(0))
            .with_execute(self.execute)
            .with_privileged(self.privileged);
        let high = PageRequestHigh::new()
            .with_read(self.read)
            .with_write(self.write)
            .with_last(self.last)
            .with_group(self.group)
            .with_page(self.address >> 12);
        [low.into_bits(), high.into_bits(), 0, 0]
    }
}

/// Registers of the page request queue.
#[derive(Debug, Default)]
pub(super) struct PageRequests {
    /// PQH: bytes from the start of the queue.
    pub head: u64,
    /// PQT: bytes from the start of the queue.
    pub tail: u64,
    /// PQA.
    pub queue: PageQueueAddress,
    /// PRS.
    pub status: PageRequestStatus,
    /// PECTL, PEDATA, PEADDR, PEUADDR.
    pub signal: Signal,
}

impl PageRequests {
    /// Where the next request goes, and the tail after it. None if the queue is full,
    /// PQH or PQT is beyond it, or it is beyond 64 bits.
    fn slot(&self) -> Option<(u64, u64)> {
        let bytes = self.queue.bytes();
        if self.head >= bytes || self.tail >= bytes {
            return None;
        }
        let next = self.tail.wrapping_add(PAGE_REQUEST_SIZE) & bytes.wrapping_sub(1);
        let address = self.queue.address().checked_add(self.tail)?;
        (next != self.head).then_some((address, next))
    }

    /// Set PPR or PRO. They are one condition: the event is raised when the first of
    /// them comes up (7.5).
    fn raise(&mut self, condition: PageRequestStatus, out: &mut Outbox) {
        let was_settled = self.status == PageRequestStatus::new();
        self.status = PageRequestStatus::from_bits(self.status.into_bits() | condition.into_bits());
        if was_settled {
            self.signal.raise(out);
        }
    }

    /// Software writes PRS: PPR and PRO are cleared by writing 1.
    fn write_status(&mut self, written: PageRequestStatus) {
        self.status = PageRequestStatus::from_bits(self.status.into_bits() & !written.into_bits());
        if self.status == PageRequestStatus::new() {
            self.signal.settle();
        }
    }
}

impl Unit {
    /// A device asks for a page. A request that is refused or finds no room is no
    /// error: if the device is to get an answer then, [`Vmm::page_response`] has been
    /// called with it.
    ///
    /// [`Vmm::page_response`]: crate::vmm::Vmm::page_response
    ///
    /// # Errors
    /// `ENOENT`: there is no such device. `EINVAL`: no device can ask so.
    /// `EOPNOTSUPP`: the guest is not offered page requests.
    pub fn page_request(&self, handle: u32, request: PageRequest) -> Result<()> {
        if !self.capabilities.ecap.page_request() {
            return Err(Error::new(
                libc::EOPNOTSUPP,
                "the guest is not offered page requests; turn the feature on when the unit is \
                 created",
            ));
        }
        request.check()?;
        let device = self.devices.read().get(handle)?;
        device.refresh_source_id(&*self.vmm);
        self.counters.page_requests.add(1);
        let answered = self.with_state(|state, out| {
            let code = match self.judge(state, device.source_id(), &request, out) {
                Ok(()) => {
                    self.forget_requested_page(handle, request.pasid, request.address);
                    self.enqueue(state, device.source_id(), &request, out)
                }
                Err(code) => Some(code),
            };
            let code = code.filter(|_| request.is_answered());
            if let Some(code) = code {
                self.counters.page_responses_by_unit.add(1);
                state.answering = state.answering.saturating_add(1);
                self.respond(handle, &device, request.pasid, request.group, code, out);
            }
            code.is_some()
        });
        if answered {
            self.with_state(|state, _| state.answering = state.answering.saturating_sub(1));
            // A wait with PD may have stopped for the answer.
            self.run_queue();
        }
        Ok(())
    }

    /// May the device ask? A refusal is recorded and answered as an invalid request
    /// (7.4.1). While translation is off no page is missing, and there is no fault to
    /// tell of.
    fn judge(
        &self,
        state: &mut State,
        source_id: u16,
        request: &PageRequest,
        out: &mut Outbox,
    ) -> core::result::Result<(), ResponseCode> {
        let control = self.control.get();
        let refusal = if control.enabled {
            let (memory, root) = (&*self.memory, control.root);
            let requester = Requester {
                source_id,
                pasid: request.pasid,
                purpose: Purpose::PageRequest,
            };
            lookup(memory, &self.capabilities, root, requester)
                .err()
                .map(Some)
        } else {
            Some(None)
        };
        let Some(refusal) = refusal else {
            return Ok(());
        };
        self.counters.page_requests_refused.add(1);
        if let Some(TableFault {
            fault,
            fault_disable,
        }) = refusal
        {
            self.counters
                .memory_errors
                .add(u64::from(fault.diagnostic.is_table_access()));
            let why = u64::from(fault.reason.code()) | ((fault.diagnostic as u64) << 8);
            out.event(Event::Fault, [u64::from(source_id), request.address, why]);
            if !fault_disable {
                let refused = Refused {
                    source_id,
                    address: request.address,
                    reason: fault.reason,
                    kind: RecordedType::Page,
                    address_type: 0,
                    pasid: request.pasid,
                    execute: request.execute,
                    privileged: request.privileged,
                };
                self.record_fault(state, refused, out);
            }
        }
        Err(ResponseCode::Invalid)
    }

    /// Put a request into the queue. A full queue, or one that cannot be written, is an
    /// overflow: the request is dropped, and so is every other until software clears
    /// PRO. The device is then answered as if all was well: it asks for the
    /// translation again, and then for the page (7.4.1).
    fn enqueue(
        &self,
        state: &mut State,
        source_id: u16,
        request: &PageRequest,
        out: &mut Outbox,
    ) -> Option<ResponseCode> {
        let queue = &mut state.registers.page_requests;
        let descriptor = request.descriptor(source_id);
        let slot = queue.slot().filter(|_| !queue.status.overflow());
        let next = slot.and_then(|(address, next)| {
            let written = self.memory.write_qwords(address, descriptor);
            self.counters.memory_errors.add(u64::from(written.is_err()));
            written.ok().map(|()| next)
        });
        let [low, high, ..] = descriptor;
        let Some(next) = next else {
            self.counters.page_request_overflows.add(1);
            out.event(Event::PageRequestOverflow, [low, high, 0]);
            queue.raise(PageRequestStatus::new().with_overflow(true), out);
            return Some(ResponseCode::Success);
        };
        out.event(Event::PageRequest, [low, high, queue.tail]);
        queue.tail = next;
        queue.raise(PageRequestStatus::new().with_pending(true), out);
        None
    }

    /// A page group response descriptor (7.7.1). One for a requester that is not there
    /// goes nowhere.
    pub(super) fn page_group_response(
        &self,
        source_id: u16,
        pasid: Option<u32>,
        group: u16,
        code: u8,
        out: &mut Outbox,
    ) {
        let offered = self.capabilities.ecap.page_request();
        let found = self.devices.read().find(source_id).filter(|_| offered);
        match found {
            Some((handle, device)) => {
                self.counters.page_responses.add(1);
                let code = ResponseCode::from(code);
                self.respond(handle, &device, pasid, group, code, out);
            }
            None => {
                self.counters.page_responses_ignored.add(1);
                let requester = u64::from(source_id);
                out.event(Event::PageResponseIgnored, [requester, group.into(), 0]);
            }
        }
    }

    fn respond(
        &self,
        handle: u32,
        device: &Device,
        pasid: Option<u32>,
        group: u16,
        code: ResponseCode,
        out: &mut Outbox,
    ) {
        out.event(
            Event::PageResponse,
            [device.source_id().into(), group.into(), code as u64],
        );
        if let Some(asked) = device.host_groups.lock().remove(&(pasid, group)) {
            asked.answer(code);
            return;
        }
        out.page_response(PageResponse {
            tag: device.tag(),
            device: handle,
            pasid,
            group,
            code,
        });
    }

    /// A write of PQH, PQT, PQA or PRS. PQT and PQA are software's to set up while the
    /// queue is empty (11.4.11); whatever they hold counts from the next request on.
    pub(super) fn write_page_queue(
        &self,
        state: &mut State,
        register: Register,
        written: u64,
        mask: u64,
    ) {
        let queue = &mut state.registers.page_requests;
        let merge = |old: u64| (old & !mask) | written;
        match register {
            Register::PageQueueHead => queue.head = merge(queue.head) & QUEUE_OFFSET,
            Register::PageQueueTail => queue.tail = merge(queue.tail) & QUEUE_OFFSET,
            Register::PageQueueAddress => {
                let merged = PageQueueAddress::from_bits(merge(queue.queue.into_bits()));
                queue.queue = PageQueueAddress::new()
                    .with_size(merged.size())
                    .with_queue(merged.queue());
            }
            _ => queue.write_status(PageRequestStatus::from_bits((written & 0xffff_ffff) as u32)),
        }
    }
}
