//! What is to be told to the VMM once the unit's locks are released.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::event::Event;
use crate::vmm::{LogLevel, PageResponse, Vmm};

enum Message {
    Msi { address: u64, data: u32 },
    Log { level: LogLevel, text: String },
    Event { event: Event, arguments: [u64; 3] },
    PageResponse(PageResponse),
    InterruptEntries(Option<(u16, u8)>),
}

/// Messages in the order they came up. A call makes a bounded number of them: a
/// few for each descriptor of one queue length.
pub(crate) struct Outbox {
    messages: Vec<Message>,
    wants_events: bool,
}

impl Outbox {
    pub fn new(vmm: &dyn Vmm) -> Self {
        Self {
            messages: Vec::new(),
            wants_events: vmm.wants_events(),
        }
    }

    pub fn msi(&mut self, address: u64, data: u32) {
        self.messages.push(Message::Msi { address, data });
    }

    pub fn page_response(&mut self, response: PageResponse) {
        self.messages.push(Message::PageResponse(response));
    }

    /// Table entries of interrupts are to be forgotten: all, or an index and the log2 of
    /// their number.
    pub fn interrupt_entries(&mut self, range: Option<(u16, u8)>) {
        let (index, mask) = range.unwrap_or_default();
        self.event(
            Event::InterruptInvalidate,
            [range.is_none().into(), index.into(), mask.into()],
        );
        self.messages.push(Message::InterruptEntries(range));
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

    /// Tell the VMM; to be called with no lock held. Gives the number of MSIs sent.
    pub fn deliver(self, vmm: &dyn Vmm) -> u64 {
        let mut msis = 0_u64;
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
            }
        }
        msis
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
