//! Interrupt remapping table entries, decoded and checked (9.10).

use super::{Message, Refusal};
use crate::spec::descriptors::SourceMatch;
use crate::spec::fault::FaultReason;
use crate::spec::interrupt::{
    EntryHigh, EntryLow, MESSAGE_BASE, MessageAddress, MessageData, Validation,
};
use crate::translate::{Diagnostic, Fault};

/// Who may use an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Requesters {
    All,
    Matching(SourceMatch),
    Buses { first: u8, last: u8 },
}

/// A present entry without fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    message: Message,
    requesters: Requesters,
    fault_disable: bool,
}

impl Entry {
    /// Decode an entry; `extended` is IRTA.EIME.
    ///
    /// Delivery modes are handed on as they are: which of them are reserved is the
    /// interrupt controllers' business.
    ///
    /// # Errors
    /// 22h: it is not present. 24h: reserved bits are set; the entry is for a posted
    /// interrupt; the destination ID has more than 8 bits without EIME; or SVT is 11b,
    /// which is an error of the entry, whoever asks.
    pub fn decode([low, high]: [u64; 2], extended: bool) -> Result<Self, Refusal> {
        let (low, high) = (EntryLow::from_bits(low), EntryHigh::from_bits(high));
        let refuse = |reason, diagnostic| {
            Err(Refusal {
                fault: Fault::new(reason, diagnostic),
                fault_disable: low.fault_disable(),
            })
        };
        if !low.present() {
            return refuse(
                FaultReason::InterruptEntryNotPresent,
                Diagnostic::InterruptEntryNotPresent,
            );
        }
        let reserved = |diagnostic| refuse(FaultReason::InterruptEntryReserved, diagnostic);
        if low.posted() {
            return reserved(Diagnostic::InterruptEntryPosted);
        }
        if low.reserved0() != 0 || low.reserved1() != 0 || high.reserved() != 0 {
            return reserved(Diagnostic::InterruptEntryReserved);
        }
        if !extended && low.destination() & !0xff00 != 0 {
            return reserved(Diagnostic::InterruptEntryDestination);
        }
        let requesters = match Validation::from(high) {
            Validation::None => Requesters::All,
            Validation::SourceId => Requesters::Matching(SourceMatch {
                source_id: high.source_id(),
                function_mask: high.qualifier(),
            }),
            Validation::Bus => {
                let [first, last] = high.source_id().to_be_bytes();
                Requesters::Buses { first, last }
            }
            Validation::Reserved => return reserved(Diagnostic::InterruptEntryValidation),
        };
        let destination = if extended {
            low.destination()
        } else {
            low.destination() >> 8
        };
        Ok(Self {
            message: message(low, destination),
            requesters,
            fault_disable: low.fault_disable(),
        })
    }

    /// May this requester use the entry?
    ///
    /// # Errors
    /// 26h: it may not.
    pub fn verify(&self, source_id: u16) -> Result<(), Refusal> {
        let [bus, _] = source_id.to_be_bytes();
        let diagnostic = match self.requesters {
            Requesters::All => return Ok(()),
            Requesters::Matching(matching) if matching.matches(source_id) => return Ok(()),
            Requesters::Buses { first, last } if (first..=last).contains(&bus) => return Ok(()),
            Requesters::Matching(_) => Diagnostic::InterruptSourceId,
            Requesters::Buses { .. } => Diagnostic::InterruptSourceBus,
        };
        Err(Refusal {
            fault: Fault::new(FaultReason::InterruptSource, diagnostic),
            fault_disable: self.fault_disable,
        })
    }

    /// The interrupt.
    pub fn message(&self) -> Message {
        self.message
    }
}

/// The message of an entry. Its level is assert, as that of every interrupt that is sent
/// as a message.
fn message(low: EntryLow, destination: u32) -> Message {
    let address = MessageAddress::new()
        .with_logical(low.logical())
        .with_redirection_hint(low.redirection_hint())
        .with_destination_low((destination & 0xff) as u8)
        .with_base(MESSAGE_BASE)
        .with_destination_high(destination >> 8);
    let data = MessageData::new()
        .with_vector(low.vector())
        .with_delivery_mode(low.delivery_mode())
        .with_assert(true)
        .with_level(low.level());
    Message {
        address: address.into_bits(),
        data: data.into_bits(),
    }
}
