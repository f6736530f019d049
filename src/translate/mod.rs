//! From a request to the address it means: root and context entry, PASID directory
//! and PASID entry ([`tables`]), and then the stages ([`stages`], [`walk`]).
//!
//! Stateless: everything is read through [`TableMemory`], so the same code serves
//! a unit that walks guest RAM, a host whose hardware walks through its second
//! stage, and the first stage of a nested translation, whose tables are found
//! through the second.

mod diagnostic;
pub mod enumerate;
pub mod first_stage;
mod legacy;
pub mod packed;
pub mod pasids;
mod scalable;
pub mod second_stage;
pub mod stages;
pub mod tables;
pub mod walk;

pub use diagnostic::Diagnostic;

use bitfield_struct::bitfield;

use crate::memory::{GuestMemory, LockedMemory, MemoryError};
use crate::spec::fault::FaultReason;
use crate::spec::{INTERRUPT_RANGE_FIRST, INTERRUPT_RANGE_LAST};

/// Memory that holds paging entries.
pub trait TableMemory {
    /// The qword at `address`.
    ///
    /// # Errors
    /// See [`TableError`].
    fn read(&self, address: u64) -> Result<u64, TableError>;

    /// The qwords from `address` on, in the order of their addresses.
    ///
    /// # Errors
    /// See [`TableError`]; some of them may then have been read.
    fn read_into(&self, address: u64, qwords: &mut [u64]) -> Result<(), TableError> {
        let mut at = address;
        for qword in qwords {
            *qword = self.read(at)?;
            at = at.wrapping_add(8);
        }
        Ok(())
    }

    /// Replace `old` by `new`; false if the qword was not `old`.
    ///
    /// # Errors
    /// See [`TableError`].
    fn compare_exchange(&self, address: u64, old: u64, new: u64) -> Result<bool, TableError>;

    /// A walk of a second-stage table begins, for those who count them.
    fn second_stage_walk(&self) {}
}

/// Why a paging entry could not be accessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableError {
    /// There is no RAM at the address.
    NotRam,
    /// The entry cannot be written.
    ReadOnly,
    /// A second stage denies the access.
    Denied,
    /// A second stage could not be walked.
    Refused(Fault),
}

impl From<MemoryError> for TableError {
    fn from(error: MemoryError) -> Self {
        match error {
            MemoryError::ReadOnly => Self::ReadOnly,
            // Table addresses are aligned by their layout.
            MemoryError::NotRam | MemoryError::Misaligned => Self::NotRam,
        }
    }
}

impl TableMemory for LockedMemory<'_> {
    fn read(&self, address: u64) -> Result<u64, TableError> {
        Ok(self.read_u64(address)?)
    }

    fn read_into(&self, address: u64, qwords: &mut [u64]) -> Result<(), TableError> {
        Ok(LockedMemory::read_into(self, address, qwords)?)
    }

    fn compare_exchange(&self, address: u64, old: u64, new: u64) -> Result<bool, TableError> {
        Ok(self.compare_exchange_u64(address, old, new)?)
    }
}

impl TableMemory for GuestMemory {
    fn read(&self, address: u64) -> Result<u64, TableError> {
        Ok(self.read_u64(address)?)
    }

    fn compare_exchange(&self, address: u64, old: u64, new: u64) -> Result<bool, TableError> {
        Ok(self.compare_exchange_u64(address, old, new)?)
    }
}

/// What a request wants. Like what is permitted it is bits of one byte: as a byte each they would be gathered
/// again for every call.
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct Access {
    /// It reads.
    pub read: bool,
    /// It writes.
    pub write: bool,
    /// It fetches instructions.
    pub execute: bool,
    /// It is a supervisor's; else a user's.
    pub privileged: bool,
    /// It only looks: no accessed or dirty bit is set.
    pub look: bool,
    #[bits(3)]
    __: u8,
}

/// What may be done with a page.
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct Permissions {
    /// Reading.
    pub read: bool,
    /// Writing.
    pub write: bool,
    /// Fetching instructions.
    pub execute: bool,
    /// These hold for supervisor requests.
    pub privileged: bool,
    /// The first-stage leaf is global.
    pub global: bool,
    /// Not to be kept in the device: the page holds for untranslated requests only.
    pub untranslated: bool,
    #[bits(2)]
    __: u8,
}

impl Permissions {
    /// Everything, of a user.
    pub const ALL: Self = Self::new()
        .with_read(true)
        .with_write(true)
        .with_execute(true);

    /// What two stages permit together.
    #[must_use]
    pub fn and(self, second: Self) -> Self {
        self.with_read(self.read() && second.read())
            .with_write(self.write() && second.write())
            .with_execute(self.execute() && second.execute())
    }
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translation {
    /// Address of the request's byte.
    pub address: u64,
    /// Bytes in the naturally aligned page for which this holds.
    pub page_size: u64,
    /// What may be done with the page.
    pub permissions: Permissions,
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The architectural reason.
    pub reason: FaultReason,
    /// The finer one.
    pub diagnostic: Diagnostic,
}

impl Fault {
    /// A fault from its two reasons.
    pub fn new(reason: FaultReason, diagnostic: Diagnostic) -> Self {
        Self { reason, diagnostic }
    }
}

/// Does the address raise interrupts rather than reach memory (3.15)?
pub fn is_interrupt_address(address: u64) -> bool {
    (INTERRUPT_RANGE_FIRST..=INTERRUPT_RANGE_LAST).contains(&address)
}

/// Is the address beyond `width` bits?
pub(crate) fn is_beyond(address: u64, width: u32) -> bool {
    address.checked_shr(width).unwrap_or(0) != 0
}
