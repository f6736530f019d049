//! The guest of a directed case.

use crate::machine::{RAM_END, Setup};
use crate::reference::{Kind, Request};
use crate::world::{
    ALL, FIRST_SETS, ROOT, SECOND_SETS, World, context_entry, pasid_entry, root_entry, table,
};

/// In the address width, but not RAM.
pub const NOWHERE: u64 = RAM_END;
/// Beyond the 48 bits of guest-physical addresses.
pub const BEYOND: u64 = 1 << 48;

/// A guest with tables for the first device, and a request of it.
pub struct Guest {
    pub setup: Setup,
    pub legacy: bool,
    /// RTADDR.
    pub root: u64,
    pub memory: Vec<(u64, u64)>,
    pub request: Request,
}

/// Translation of the guest before the condition is brought about.
#[derive(Debug, Clone, Copy)]
pub enum Mode {
    Legacy,
    LegacyPassThrough,
    First,
    Second,
    Nested,
    PassThrough,
}

pub const READ: Request = Request {
    address: 0x1000,
    pasid: None,
    kind: Kind::Untranslated,
    read: true,
    write: false,
    execute: false,
    privileged: false,
};
pub const WRITE: Request = Request {
    read: false,
    write: true,
    ..READ
};

/// The PASID of requests that have one.
pub const PASID: u32 = 5;

pub const WITH_PASID: Request = Request {
    pasid: Some(PASID),
    ..READ
};
pub const TRANSLATION: Request = Request {
    kind: Kind::Translation,
    ..READ
};
pub const TRANSLATED: Request = Request {
    kind: Kind::Translated,
    ..READ
};

impl Guest {
    /// Tables of 4 levels that map 0x1000 for reading and writing; a device TLB, PASIDs, 64 of
    /// the directory's entries; no snooped page walks needed.
    pub fn new(mode: Mode, request: Request) -> Self {
        let plain = World::decode(&[]);
        let legacy = matches!(mode, Mode::Legacy | Mode::LegacyPassThrough);
        let mut guest = Self {
            setup: Setup {
                features: ALL,
                address_width: 48,
                pasid_bits: 20,
            },
            legacy,
            root: ROOT | u64::from(!legacy) << 10,
            memory: plain.memory,
            request,
        };
        let second = table(SECOND_SETS[0], 4);
        if legacy {
            // The scalable-mode context entry is at another place.
            guest.poke(
                guest.context(),
                match mode {
                    Mode::Legacy => second | 1 << 2 | 1,
                    _ => 2 << 2 | 1,
                },
            );
            guest.poke(guest.context() + 8, 7 << 8 | 2);
            guest.poke(root_entry(0, true) + 8, 0);
        }
        let first = table(FIRST_SETS[0], 4);
        let (zero, two) = match mode {
            Mode::First => (1 << 6, first),
            Mode::Second => (second | 2 << 6 | 2 << 2, 0),
            Mode::Nested => (second | 3 << 6 | 2 << 2, first),
            _ => (4 << 6, 0),
        };
        if !legacy {
            for pasid in [0, PASID] {
                guest.poke(pasid_entry(pasid), zero | 1);
                guest.poke(pasid_entry(pasid) + 8, 7 | 1 << 23);
                guest.poke(pasid_entry(pasid) + 16, two);
            }
        }
        guest
    }

    pub fn poke(&mut self, address: u64, value: u64) {
        self.memory.push((address, value));
    }

    pub fn peek(&self, address: u64) -> u64 {
        let last = self.memory.iter().rev().find(|(at, _)| *at == address);
        last.map_or(0, |&(_, value)| value)
    }

    /// Set bits.
    pub fn set(&mut self, address: u64, bits: u64) {
        self.poke(address, self.peek(address) | bits);
    }

    pub fn clear(&mut self, address: u64, bits: u64) {
        self.poke(address, self.peek(address) & !bits);
    }

    pub fn context(&self) -> u64 {
        context_entry(0, self.legacy)
    }

    /// The PASID entry of the request.
    pub fn entry(&self) -> u64 {
        pasid_entry(self.request.pasid.unwrap_or(0))
    }

    /// The first-stage entry for 0x1000 at a level.
    pub fn first(level: u32) -> u64 {
        table(FIRST_SETS[0], level) + if level == 1 { 8 } else { 0 }
    }

    /// The second-stage entry for 0x1000 at a level.
    pub fn second(level: u32) -> u64 {
        table(SECOND_SETS[0], level) + if level == 1 { 8 } else { 0 }
    }

    /// The second stage's entry for the page of a first-stage table.
    pub fn second_of_table(level: u32) -> u64 {
        SECOND_SETS[0] + (table(FIRST_SETS[0], level) >> 12) * 8
    }

    /// The second stage's entry for the page that the first stage maps 0x1000 to.
    pub fn second_of_page() -> u64 {
        SECOND_SETS[0] + 41 * 8
    }
}
