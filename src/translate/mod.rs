//! From a request to a guest-physical address: root entry, context entry, PASID
//! directory, PASID entry ([`tables`]) and then the stages ([`walk`]).
//!
//! Stateless: everything is read through [`TableMemory`], so the same code serves
//! a unit that walks guest RAM and a host whose hardware walks through its second
//! stage.

mod diagnostic;
pub mod first_stage;
pub mod tables;
pub mod walk;

pub use diagnostic::Diagnostic;

use crate::memory::{GuestMemory, MemoryError};
use crate::spec::fault::FaultReason;

/// Memory that holds paging entries.
pub trait TableMemory {
    /// The qword at `address`.
    ///
    /// # Errors
    /// See [`TableError`].
    fn read(&self, address: u64) -> Result<u64, TableError>;

    /// Replace `old` by `new`; false if the qword was not `old`.
    ///
    /// # Errors
    /// See [`TableError`].
    fn compare_exchange(&self, address: u64, old: u64, new: u64) -> Result<bool, TableError>;
}

/// Why a paging entry could not be accessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableError {
    /// There is no RAM at the address.
    NotRam,
    /// The entry cannot be written.
    ReadOnly,
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

impl TableMemory for GuestMemory {
    fn read(&self, address: u64) -> Result<u64, TableError> {
        Ok(self.read_u64(address)?)
    }

    fn compare_exchange(&self, address: u64, old: u64, new: u64) -> Result<bool, TableError> {
        Ok(self.compare_exchange_u64(address, old, new)?)
    }
}

/// What a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Access {
    /// It writes (a request that reads and writes is a write).
    pub write: bool,
    /// It fetches instructions.
    pub execute: bool,
    /// It is a supervisor's; else a user's.
    pub privileged: bool,
    /// It only looks: no accessed or dirty bit is set.
    pub look: bool,
}

/// What may be done with a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
}

impl Permissions {
    /// Everything, of a user.
    pub const ALL: Self = Self {
        read: true,
        write: true,
        execute: true,
        privileged: false,
        global: false,
        untranslated: false,
    };
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
