//! Interrupt remapping: requests (5.1.2), the table's entries (9.10) and the messages
//! that come out.

use bitfield_struct::bitfield;

/// Address of an interrupt request in remappable format (5.1.2.2): a memory write to
/// the interrupt range. The upper half of the 64-bit address is 0.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct RequestAddress {
    #[bits(2)]
    __: u8,
    /// HANDLE bit 15.
    pub handle_high: bool,
    /// SHV: the data hold a subhandle.
    pub subhandle_valid: bool,
    /// Interrupt format: 1 remappable, 0 compatibility; then the other fields have
    /// another meaning.
    pub remappable: bool,
    /// HANDLE bits 14:0.
    #[bits(15)]
    pub handle_low: u16,
    /// 0xfee.
    #[bits(12)]
    pub base: u16,
}

impl RequestAddress {
    /// HANDLE.
    pub fn handle(self) -> u16 {
        self.handle_low() | (u16::from(self.handle_high()) << 15)
    }
}

/// Data of an interrupt request in remappable format (5.1.2.2).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct RequestData {
    /// SUBHANDLE, added to the handle if SHV is set.
    pub subhandle: u16,
    pub reserved: u16,
}

/// First qword of an interrupt remapping table entry (9.10).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct EntryLow {
    /// P: present.
    pub present: bool,
    /// FPD: do not record faults of this entry.
    pub fault_disable: bool,
    /// DM: destination mode, 0 physical, 1 logical.
    pub logical: bool,
    /// RH: redirection hint.
    pub redirection_hint: bool,
    /// TM: trigger mode, 0 edge, 1 level.
    pub level: bool,
    /// DLM: delivery mode.
    #[bits(3)]
    pub delivery_mode: u8,
    /// AVAIL: software's.
    #[bits(4)]
    pub available: u8,
    #[bits(3)]
    pub reserved0: u8,
    /// IM: 1 for the format of posted interrupts (9.11).
    pub posted: bool,
    /// V: vector.
    pub vector: u8,
    pub reserved1: u8,
    /// DST: destination ID; an 8-bit one has bits 15:8, the others are then reserved.
    pub destination: u32,
}

/// Second qword of an interrupt remapping table entry (9.10).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct EntryHigh {
    /// SID: source ID to compare with, or a first (bits 15:8) and last (7:0) bus.
    pub source_id: u16,
    /// SQ: function bits to leave out of the comparison, as FM of a context-cache
    /// invalidation.
    #[bits(2)]
    pub qualifier: u8,
    /// SVT: see [`Validation`].
    #[bits(2)]
    pub validation: u8,
    #[bits(44)]
    pub reserved: u64,
}

/// Bytes in an interrupt remapping table entry.
pub const ENTRY_SIZE: u64 = 16;

/// Source validation types, SVT (9.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Validation {
    /// Any requester may use the entry.
    None = 0,
    /// The requester is SID, but for the bits that SQ leaves out.
    SourceId = 1,
    /// The requester's bus is in the range that SID holds.
    Bus = 2,
    /// 11b.
    Reserved = 3,
}

impl From<EntryHigh> for Validation {
    fn from(value: EntryHigh) -> Self {
        match value.validation() {
            0 => Self::None,
            1 => Self::SourceId,
            2 => Self::Bus,
            _ => Self::Reserved,
        }
    }
}

/// Address of a message-signalled interrupt as the interrupt controllers take it: the
/// compatibility format (5.1.2.1), with bits 31:8 of a 32-bit destination ID where
/// FEUADDR and its like have them (11.4.7.5).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct MessageAddress {
    #[bits(2)]
    __: u8,
    /// Destination mode, 0 physical, 1 logical.
    pub logical: bool,
    /// Redirection hint.
    pub redirection_hint: bool,
    __: u8,
    /// Destination ID bits 7:0.
    pub destination_low: u8,
    /// 0xfee.
    #[bits(12)]
    pub base: u16,
    __: u8,
    /// Destination ID bits 31:8.
    #[bits(24)]
    pub destination_high: u32,
}

/// Data of a message-signalled interrupt as the interrupt controllers take it.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct MessageData {
    /// Vector.
    pub vector: u8,
    /// Delivery mode.
    #[bits(3)]
    pub delivery_mode: u8,
    #[bits(3)]
    __: u8,
    /// Level: 1 assert. Edge-triggered interrupts have it, too.
    pub assert: bool,
    /// Trigger mode, 0 edge, 1 level.
    pub level: bool,
    __: u16,
}

/// Bits 31:20 of every address in the interrupt range.
pub const MESSAGE_BASE: u16 = 0xfee;
