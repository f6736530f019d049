//! Operations of a guest, its devices and its VMM: the records of an input.
//!
//! A record has 16 bytes: `code`, three bytes `a`, `b`, `c`, two 16-bit numbers `d`, `e` and a 64-bit
//! `value`, all little-endian. fuzz/README.md says what they mean for each code; every record means
//! something.

use std::fmt;

use crate::input::{Bytes, Shape};

/// The form of this target's inputs.
pub const SHAPE: Shape = Shape {
    header: 16,
    record: 16,
    most: 160,
    operations: CODES,
};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What an operation is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

codes! {
    /// A register is written.
    Write,
    /// A register is read.
    Read,
    /// A qword of RAM is written.
    Poke,
    /// A bit of RAM is toggled.
    Flip,
    /// Qwords of RAM are written.
    Fill,
    /// A root entry.
    Root,
    /// A context entry.
    Context,
    /// A PASID directory entry.
    Directory,
    /// A PASID entry.
    Pasid,
    /// A paging entry.
    Table,
    /// An interrupt remapping table entry.
    Interrupt,
    /// A descriptor is put behind the tail of the queue.
    Queue,
    /// The tail is moved.
    Ring,
    /// A request of a device, answered by the unit.
    Dma,
    /// A request of an assigned device, as the twin's hardware sees it.
    Silicon,
    /// The last request but so many, once more.
    Again,
    /// An interrupt request.
    Msi,
    /// A device asks for a page.
    PageRequest,
    /// A device comes, goes, or becomes another one.
    Device,
    /// RAM comes or goes.
    Ram,
    /// The machine is reset.
    Reset,
    /// Everything is invalidated; what requests see then is what the tables say.
    Sync,
    /// Calls on the host fail.
    Inject,
    /// The VMM looks: dumps, mappings, state, dirty pages.
    Look,
    /// The driver starts the unit.
    Enable,
    /// The driver changes a table and invalidates what it has to.
    Change,
    /// What device TLBs answer from now on.
    Tlb,
    /// The unit's state is saved, and loaded where it is or elsewhere.
    Move,
}

/// Number of codes.
const CODES: u8 = Code::ALL.len() as u8;

/// A record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Op {
    pub code: Code,
    pub a: u8,
    pub b: u8,
    pub c: u8,
    pub d: u16,
    pub e: u16,
    pub value: u64,
}

impl Op {
    /// The plainest of its kind.
    pub fn new(code: Code) -> Self {
        Self {
            code,
            a: 0,
            b: 0,
            c: 0,
            d: 0,
            e: 0,
            value: 0,
        }
    }

    /// Of a record.
    pub fn decode(record: &[u8]) -> Self {
        let mut bytes = Bytes::new(record);
        Self {
            code: Code::ALL[usize::from(bytes.byte() % CODES)],
            a: bytes.byte(),
            b: bytes.byte(),
            c: bytes.byte(),
            d: bytes.u16(),
            e: bytes.u16(),
            value: bytes.u64(),
        }
    }

    /// As a record.
    pub fn encode(&self) -> [u8; 16] {
        let mut record = [0; 16];
        record[..4].copy_from_slice(&[self.code as u8, self.a, self.b, self.c]);
        record[4..6].copy_from_slice(&self.d.to_le_bytes());
        record[6..8].copy_from_slice(&self.e.to_le_bytes());
        record[8..].copy_from_slice(&self.value.to_le_bytes());
        record
    }

    /// `entry` with the bit toggled that `e` names; none with `e` 0.
    pub fn flipped<const N: usize>(&self, mut entry: [u64; N]) -> [u64; N] {
        if let Some(bit) = self.e.checked_sub(1) {
            let bit = usize::from(bit) % (N * 64);
            entry[bit / 64] ^= 1 << (bit % 64);
        }
        entry
    }
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            code,
            a,
            b,
            c,
            d,
            e,
            value,
        } = self;
        write!(
            f,
            "{code:?} a {a:#x} b {b:#x} c {c:#x} d {d:#x} e {e:#x} value {value:#x}"
        )
    }
}
