//! The reference: what the specification says of a request, written as its steps are, with no
//! thought of speed. It shares nothing with the crate: own bit extraction, own memory. The
//! section numbers are those of revision 4.1 of the specification; the steps are in our words.

pub mod capabilities;
pub mod interrupt;
pub mod lookup;
pub mod memory;
pub mod queue;
pub mod walk;

pub use capabilities::Capabilities;
pub use lookup::{Context, Paging};
pub use memory::{Memory, Region, View};
pub use walk::{Outcome, Update};

/// Bit `number` of `value`.
pub fn bit(value: u64, number: u32) -> bool {
    value >> number & 1 == 1
}

/// Bits `high` to `low` of `value`.
pub fn field(value: u64, high: u32, low: u32) -> u64 {
    value << (63 - high) >> (63 - high + low)
}

/// The bits `high` to `low` themselves.
pub fn mask(high: u32, low: u32) -> u64 {
    u64::MAX << (63 - high + low) >> (63 - high)
}

/// Address type of a request (4.2): AT of its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Untranslated,
    Translation,
    Translated,
}

/// A request of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    pub address: u64,
    pub pasid: Option<u32>,
    pub kind: Kind,
    pub read: bool,
    pub write: bool,
    pub execute: bool,
    pub privileged: bool,
}

/// A refused request. Where the specification leaves the order of two checks open there is more
/// than one code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub codes: Vec<u8>,
    /// FPD was set on the way: not recorded.
    pub quiet: bool,
}

impl Refusal {
    pub fn new(code: u8, quiet: bool) -> Self {
        Self {
            codes: vec![code],
            quiet,
        }
    }
}

/// 7.1.3: faults that are an answer, not an error, for a translation request: it gets R=W=0, and
/// nothing is recorded.
pub fn recoverable(code: u8) -> bool {
    matches!(
        code,
        0x04..=0x06 | 0x71 | 0x75..=0x77 | 0x79 | 0x80..=0x86
    )
}
