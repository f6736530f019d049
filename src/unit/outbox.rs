//! What is to be told to the VMM once the unit's locks are released.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::device::Keepers;
use crate::event::Event;
use crate::vmm::{Invalidation, InvalidationFailure, LogLevel, PageResponse, Vmm};

enum Message {
    Msi { address: u64, data: u32 },
    Log { level: LogLevel, text: String },
    Event { event: Event, arguments: [u64; 3] },
    PageResponse(PageResponse),
    InterruptEntries(Option<(u16, u8)>),
    Invalidation(Invalidation),
}

/// What went wrong outside, by the requester whose device TLB it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Failures {
    /// The last that did not answer in time.
    pub timed_out: Option<u16>,
    /// The last that answered wrongly.
    pub failed: Option<u16>,
}

/// More orders than this are delivered before others come up.
const MAX_ORDERS: usize = 4096;

/// Messages in the order they came up. A call makes a bounded number of them: a
/// few for each descriptor of one queue length.
pub(crate) struct Outbox {
    messages: Vec<Message>,
    wants_events: bool,
    /// Messages that the VMM has to have obeyed before a wait completes.
    orders: usize,
    /// Whom invalidations are for, once that was asked for.
    keepers: Option<Keepers>,
}

impl Outbox {
    pub fn new(vmm: &dyn Vmm) -> Self {
        Self {
            messages: Vec::new(),
            wants_events: vmm.wants_events(),
            orders: 0,
            keepers: None,
        }
    }

    /// What `find` gave the first time; None if that was nobody.
    pub fn keepers(&mut self, find: impl FnOnce() -> Keepers) -> Option<Keepers> {
        let keepers = self.keepers.get_or_insert_with(find);
        (!keepers.is_empty()).then(|| Arc::clone(keepers))
    }

    /// There will be about so many events.
    pub fn expect_events(&mut self, count: usize) {
        if self.wants_events {
            self.messages.reserve(count);
        }
    }

    pub fn msi(&mut self, address: u64, data: u32) {
        self.messages.push(Message::Msi { address, data });
    }

    /// A message that the VMM has to have obeyed before a wait completes.
    fn order(&mut self, message: Message) {
        self.orders = self.orders.saturating_add(1);
        self.messages.push(message);
    }

    /// Is there anything that has to be obeyed before a wait completes?
    pub fn has_orders(&self) -> bool {
        self.orders > 0
    }

    /// Are there so many orders that they are better delivered first?
    pub fn is_full(&self) -> bool {
        self.orders >= MAX_ORDERS
    }

    /// Translations are to be forgotten.
    pub fn invalidation(&mut self, invalidation: Invalidation) {
        let holder = invalidation.holder as u64;
        self.event(
            Event::DeviceInvalidate,
            [
                u64::from(invalidation.source_id) | (holder << 16),
                invalidation.first,
                invalidation.last,
            ],
        );
        self.order(Message::Invalidation(invalidation));
    }

    pub fn page_response(&mut self, response: PageResponse) {
        self.order(Message::PageResponse(response));
    }

    /// Table entries of interrupts are to be forgotten: all, or an index and the log2 of
    /// their number.
    pub fn interrupt_entries(&mut self, range: Option<(u16, u8)>) {
        let (index, mask) = range.unwrap_or_default();
        self.event(
            Event::InterruptInvalidate,
            [range.is_none().into(), index.into(), mask.into()],
        );
        self.order(Message::InterruptEntries(range));
    }

    /// A trace event; arguments that it does not have are 0.
    pub fn event(&mut self, event: Event, arguments: [u64; 3]) {
        if self.wants_events {
            self.messages.push(Message::Event { event, arguments });
        }
    }

    /// A line that a guest can cause, as long as `budget` lasts.
    pub fn log(&mut self, budget: &LogBudget, level: LogLevel, text: impl FnOnce() -> String) {
        match budget.take() {
            0 => {}
            1 => {
                let text = text() + "; further lines of this unit are left out, see its counters";
                self.messages.push(Message::Log { level, text });
            }
            _ => self.messages.push(Message::Log {
                level,
                text: text(),
            }),
        }
    }

    /// Tell the VMM; to be called with no lock held. Gives the number of MSIs sent, and
    /// what went wrong.
    pub fn deliver(self, vmm: &dyn Vmm) -> (u64, Failures) {
        let mut msis = 0_u64;
        let mut failures = Failures::default();
        for message in self.messages {
            match message {
                Message::Msi { address, data } => {
                    msis = msis.saturating_add(1);
                    vmm.event(Event::Msi, address, u64::from(data), 0);
                    vmm.msi(address, data);
                }
                Message::InterruptEntries(range) => vmm.iec_invalidate(range),
                Message::Log { level, text } => vmm.log(level, &text),
                Message::Event {
                    event,
                    arguments: [a, b, c],
                } => vmm.event(event, a, b, c),
                Message::PageResponse(response) => vmm.page_response(response),
                Message::Invalidation(invalidation) => {
                    let source_id = Some(invalidation.source_id);
                    match vmm.invalidate(&invalidation) {
                        Ok(()) => {}
                        Err(InvalidationFailure::TimedOut) => failures.timed_out = source_id,
                        Err(InvalidationFailure::Failed) => failures.failed = source_id,
                    }
                }
            }
        }
        (msis, failures)
    }
}

/// How many lines a guest can still cause.
pub(crate) struct LogBudget(AtomicU32);

impl LogBudget {
    const LINES: u32 = 64;

    pub fn new() -> Self {
        Self(AtomicU32::new(Self::LINES))
    }

    /// Lines that were left, this one included.
    fn take(&self) -> u32 {
        let left = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            });
        left.unwrap_or(0)
    }
}
