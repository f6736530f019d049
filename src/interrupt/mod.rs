//! Interrupt remapping (chapter 5): from an interrupt request to the entry of the
//! interrupt remapping table that stands for it, and to the message that the
//! interrupt controllers get.
//!
//! No state of the guest's lives here but the entry cache ([`cache`]); what the
//! guest has programmed is handed in as [`Control`].

pub mod cache;
mod entry;

use cache::{EntryCache, Ticket};
pub use entry::Entry;

use crate::spec::fault::FaultReason;
use crate::spec::interrupt::{ENTRY_SIZE, MESSAGE_BASE, RequestAddress, RequestData};
use crate::spec::registers::InterruptTableAddress;
use crate::translate::{Diagnostic, Fault, TableMemory};

/// A memory write to the interrupt range: an interrupt request on the way in, an
/// interrupt on the way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Address.
    pub address: u64,
    /// Data.
    pub data: u32,
}

/// What an interrupt request asks for (5.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Delivery as it is.
    Compatibility,
    /// The entry with this index; up to 0x1fffe.
    Remappable(u32),
}

impl Message {
    /// Decode a request (5.1.2, 5.1.3).
    ///
    /// # Errors
    /// 20h: a reserved field is not 0. An address outside of the interrupt range is
    /// none of an interrupt request; it is refused in the same way, as its upper bits
    /// would be taken for a destination ID.
    pub fn format(self) -> Result<Format, Fault> {
        let refuse = |diagnostic| Fault::new(FaultReason::InterruptRequestReserved, diagnostic);
        let address = u32::try_from(self.address)
            .map(RequestAddress::from_bits)
            .ok()
            .filter(|address| address.base() == MESSAGE_BASE)
            .ok_or_else(|| refuse(Diagnostic::InterruptAddress))?;
        if !address.remappable() {
            return Ok(Format::Compatibility);
        }
        // Without SHV the data are ignored: an I/O APIC has its vector there (5.1.5.1).
        let data = if address.subhandle_valid() {
            RequestData::from_bits(self.data)
        } else {
            RequestData::new()
        };
        if data.reserved() != 0 {
            return Err(refuse(Diagnostic::InterruptData));
        }
        // A sum beyond 16 bits is beyond every table.
        let index = u32::from(address.handle()).saturating_add(data.subhandle().into());
        Ok(Format::Remappable(index))
    }
}

/// An interrupt remapping table, as SIRTP takes it over from IRTA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    address: u64,
    entries: u32,
    extended: bool,
}

impl From<InterruptTableAddress> for Table {
    fn from(register: InterruptTableAddress) -> Self {
        Self {
            address: register.address(),
            entries: register.entries(),
            extended: register.extended_interrupt_mode(),
        }
    }
}

impl From<Table> for InterruptTableAddress {
    fn from(table: Table) -> Self {
        // 2^(S + 1) entries.
        let size = table.entries.checked_ilog2().unwrap_or(0).saturating_sub(1);
        Self::new()
            .with_size(u8::try_from(size & 15).unwrap_or(0))
            .with_extended_interrupt_mode(table.extended)
            .with_table(table.address >> 12)
    }
}

impl Table {
    /// Byte address of the table.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Entries in the table.
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Is the index in the table, and its entry in the address width?
    fn check(&self, index: u32, address_width: u32) -> Result<u16, Fault> {
        let refuse = |diagnostic| Fault::new(FaultReason::InterruptIndex, diagnostic);
        let checked = u16::try_from(index)
            .ok()
            .filter(|_| index < self.entries)
            .ok_or_else(|| refuse(Diagnostic::InterruptIndex))?;
        if self
            .entry_address(checked)
            .checked_shr(address_width)
            .unwrap_or(0)
            != 0
        {
            return Err(refuse(Diagnostic::InterruptEntryBeyondWidth));
        }
        Ok(checked)
    }

    fn entry_address(&self, index: u16) -> u64 {
        let offset = u64::from(index).saturating_mul(ENTRY_SIZE);
        self.address.saturating_add(offset)
    }

    /// Read and decode an entry.
    fn read<M: TableMemory + ?Sized>(&self, memory: &M, index: u16) -> Result<Entry, Refusal> {
        let address = self.entry_address(index);
        let read = |at| {
            memory.read(at).map_err(|_| {
                Refusal::always(Fault::new(
                    FaultReason::InterruptEntryAccess,
                    Diagnostic::InterruptEntryAccess,
                ))
            })
        };
        Entry::decode(
            [read(address)?, read(address.saturating_add(8))?],
            self.extended,
        )
    }
}

/// A refused request, and whether its table entry asks not to record that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub fault: Fault,
    /// FPD of the entry.
    pub fault_disable: bool,
}

impl Refusal {
    /// A fault for which no entry was read: FPD has no say (7.1.2).
    fn always(fault: Fault) -> Self {
        Self {
            fault,
            fault_disable: false,
        }
    }
}

/// An interrupt request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// What was written where.
    pub message: Message,
    /// The requester.
    pub source_id: u16,
    /// Compare the requester with the entry (5.1.3).
    pub verify: bool,
    /// PASID, if it has one; it is no interrupt request then.
    pub pasid: Option<u32>,
    /// It only looks: nothing is cached.
    pub look: bool,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The interrupt, or why there is none.
    pub result: Result<Message, Refusal>,
    /// Index of the table entry, if the request is in remappable format. None without
    /// a fault: it passed as it was.
    pub index: Option<u32>,
    /// The entry was cached.
    pub cached: bool,
}

/// What the guest has programmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Control {
    /// GSTS.IRES: requests are remapped.
    pub enabled: bool,
    /// GSTS.CFIS: those in compatibility format pass.
    pub compatibility: bool,
    /// The table set with the last SIRTP.
    pub table: Option<Table>,
}

impl Control {
    /// Remap a request (5.1.4). `ticket` was taken from `cache` before this value was
    /// copied.
    pub fn remap<M: TableMemory + ?Sized>(
        &self,
        memory: &M,
        cache: &EntryCache,
        ticket: Ticket,
        address_width: u32,
        request: &Request,
    ) -> Outcome {
        let mut outcome = Outcome {
            result: Ok(request.message),
            index: None,
            cached: false,
        };
        let format = match self.format(request) {
            Ok(Some(format)) => format,
            Ok(None) => return outcome,
            Err(fault) => {
                outcome.result = Err(Refusal::always(fault));
                return outcome;
            }
        };
        let index = match format {
            Format::Compatibility => {
                outcome.result = match self.compatibility() {
                    Ok(()) => Ok(request.message),
                    Err(fault) => Err(Refusal::always(fault)),
                };
                return outcome;
            }
            Format::Remappable(index) => index,
        };
        outcome.index = Some(index);
        let entry = self.table(index, address_width).and_then(|(table, index)| {
            if let Some(entry) = cache.get(index) {
                outcome.cached = true;
                return Ok(entry);
            }
            let entry = table.read(memory, index)?;
            if !request.look {
                cache.fill(ticket, index, entry);
            }
            Ok(entry)
        });
        outcome.result = entry.and_then(|entry| {
            if request.verify {
                entry.verify(request.source_id)?;
            }
            Ok(entry.message())
        });
        outcome
    }

    /// The request's format; None if it is not looked at.
    fn format(&self, request: &Request) -> Result<Option<Format>, Fault> {
        if request.pasid.is_some() {
            return Err(Fault::new(
                FaultReason::InterruptPasid,
                Diagnostic::InterruptPasid,
            ));
        }
        if !self.enabled {
            return Ok(None);
        }
        request.message.format().map(Some)
    }

    /// Do requests in compatibility format pass (5.1.2.1)?
    fn compatibility(&self) -> Result<(), Fault> {
        let blocked = if self.table.is_some_and(|table| table.extended) {
            Diagnostic::InterruptCompatibilityExtended
        } else if !self.compatibility {
            Diagnostic::InterruptCompatibility
        } else {
            return Ok(());
        };
        Err(Fault::new(FaultReason::InterruptCompatibility, blocked))
    }

    fn table(&self, index: u32, address_width: u32) -> Result<(Table, u16), Refusal> {
        let unset = Fault::new(
            FaultReason::InterruptEntryAccess,
            Diagnostic::InterruptTableUnset,
        );
        let table = self.table.ok_or(Refusal::always(unset))?;
        let index = table.check(index, address_width).map_err(Refusal::always)?;
        Ok((table, index))
    }
}

#[cfg(test)]
mod tests;
