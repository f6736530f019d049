//! The page request queue as the guest programs it (7.4, 11.4.11).

use super::outbox::Outbox;
use super::regmap::Register;
use super::signal::Signal;
use super::{State, Unit};
use crate::spec::registers::{PageQueueAddress, PageRequestStatus};

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

impl Unit {
    /// A write of PQH, PQT, PQA or PRS. Without ECAP.PRS there are no such registers.
    pub(super) fn write_page_queue(
        &self,
        state: &mut State,
        register: Register,
        written: u64,
        mask: u64,
        out: &mut Outbox,
    ) {
        let _ = (state, register, written, mask, out);
    }
}
