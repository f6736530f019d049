//! Target `c_abi`: the functions of the C interface in any order, with any arguments that the header permits a
//! caller to pass, right or wrong: NULL, sizes of other versions, unknown flags, handles of nothing.
//!
//! Structures are in memory that ends with their last byte. Whatever is passed, a call gives 0 or one of the errors that
//! the header lists, with a sentence, and has then changed nothing that it was lent. Callbacks call back into the unit where the header
//! lets them.

mod arena;
mod callbacks;
mod snapshot;
mod twin;
mod unit;
mod world;

use crate::input::{Bytes, Shape};

/// The form of this target's inputs.
pub const SHAPE: Shape = Shape {
    header: 32,
    record: 24,
    most: 120,
    operations: FUNCTIONS,
};

/// Functions, and what else an operation can be.
const FUNCTIONS: u8 = 40;

/// A record: which function, and what its arguments are made of.
#[derive(Debug, Clone, Copy)]
pub struct Op {
    pub code: u8,
    pub a: u8,
    /// Sizes of the structures that are passed: see [`world::World::size`].
    pub sizes: u8,
    /// Which pointers are NULL, and other things that are wrong.
    pub wrong: u8,
    pub number: u32,
    pub v: u64,
    pub w: u64,
}

impl Op {
    fn decode(record: &[u8]) -> Self {
        let mut bytes = Bytes::new(record);
        Self {
            code: bytes.byte() % FUNCTIONS,
            a: bytes.byte(),
            sizes: bytes.byte(),
            wrong: bytes.byte(),
            number: bytes.u32(),
            v: bytes.u64(),
            w: bytes.u64(),
        }
    }

    /// As a record, for seeds.
    pub fn encode(&self) -> [u8; 24] {
        let mut record = [0; 24];
        record[..4].copy_from_slice(&[self.code, self.a, self.sizes, self.wrong]);
        record[4..8].copy_from_slice(&self.number.to_le_bytes());
        record[8..16].copy_from_slice(&self.v.to_le_bytes());
        record[16..].copy_from_slice(&self.w.to_le_bytes());
        record
    }
}

/// Run an input.
///
/// # Panics
/// A function did what the header does not say.
pub fn run(input: &[u8]) {
    let header = &input[..input.len().min(SHAPE.header)];
    let world = world::World::new(header);
    for record in SHAPE.records(input) {
        let op = Op::decode(record);
        if crate::is_printing() {
            eprintln!("{op:x?}");
        }
        world.call(&op);
    }
    world.end();
}
