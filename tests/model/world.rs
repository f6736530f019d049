//! Guests made from bytes: tables that mostly make sense, and programs of operations. Every byte 0
//! is the plainest choice, so that proptest shrinks towards a plain guest.

use std::fmt;

use nested_vtd::unit::Features;

use crate::machine::{SOURCE_IDS, Setup};
use crate::reference::{Kind, Request, field, mask};

pub const ROOT: u64 = 1 << 12;
pub const CONTEXTS: [u64; 2] = [2 << 12, 3 << 12];
pub const DIRECTORY: u64 = 4 << 12;
pub const PASID_TABLES: [u64; 2] = [5 << 12, 6 << 12];
/// The tables of levels 1 to 5 follow each other.
pub const FIRST_SETS: [u64; 2] = [8 << 12, 13 << 12];
pub const SECOND_SETS: [u64; 2] = [18 << 12, 23 << 12];
/// Copies of the first sets' level 1, where devices cannot write.
pub const READ_ONLY_FIRST: u64 = 32 << 12;
pub const READ_ONLY_SECOND: u64 = 33 << 12;
/// What the second stage adds to the page numbers of the second first-stage set.
pub const SHIFT: u64 = 64 << 12;

pub const PASIDS: [u32; 5] = [0, 1, 5, 64, 70];

/// Where the root table has the entry of a device.
pub fn root_entry(device: usize, legacy: bool) -> u64 {
    let [bus, function] = SOURCE_IDS[device].to_be_bytes();
    let half = if legacy { 0 } else { u64::from(function / 128) };
    ROOT + u64::from(bus) * 16 + half * 8
}

/// Where the context table has the entry of a device.
pub fn context_entry(device: usize, legacy: bool) -> u64 {
    let function = u64::from(SOURCE_IDS[device] & 0xff);
    if legacy {
        CONTEXTS[device] + function * 16
    } else {
        CONTEXTS[device] + function % 128 * 32
    }
}

pub fn directory_entry(pasid: u32) -> u64 {
    DIRECTORY + u64::from(pasid / 64) * 8
}

pub fn pasid_entry(pasid: u32) -> u64 {
    PASID_TABLES[(pasid / 64) as usize] + u64::from(pasid % 64) * 64
}

/// Table of a level, 1 to 5.
pub fn table(set: u64, level: u32) -> u64 {
    set + (u64::from(level - 1) << 12)
}

/// Domain of what a PASID entry or a legacy context entry names.
pub fn domain(pgtt: u64, first: usize, second: usize) -> u16 {
    match pgtt {
        1 => 2 + first as u16,
        2 => 4 + second as u16,
        3 => 6 + 2 * first as u16 + second as u16,
        _ => 1,
    }
}

/// Choices, one byte each.
pub struct Choices<'a> {
    bytes: &'a [u8],
}

impl<'a> Choices<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.bytes.split_first() else {
            return 0;
        };
        self.bytes = rest;
        first
    }

    /// True in so many of a hundred cases.
    fn chance(&mut self, percent: u32) -> bool {
        u32::from(self.byte()) * 100 >= (100 - percent) * 256
    }

    fn pick<T: Copy>(&mut self, options: &[T]) -> T {
        options[usize::from(self.byte()) % options.len()]
    }
}

/// A guest before its first operation.
pub struct World {
    pub setup: Setup,
    pub legacy: bool,
    pub memory: Vec<(u64, u64)>,
    pub changes: Vec<Change>,
}

impl fmt::Debug for World {
    /// The tables without the second stages' level 1, which are always much the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}, legacy {}", self.setup, self.legacy)?;
        for (address, value) in &self.memory {
            let page = address & mask(63, 12);
            if !SECOND_SETS.contains(&page) && page != READ_ONLY_SECOND {
                writeln!(f, "  {address:#x}: {value:#x}")?;
            }
        }
        write!(f, "  {:x?}", self.changes)
    }
}

/// A change of a qword of the tables.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    pub address: u64,
    pub how: How,
}

#[derive(Debug, Clone, Copy)]
pub enum How {
    Toggle(u32),
    /// Another page in bits 51:12.
    Page(u64),
    Clear,
    /// As at first.
    Restore,
}

/// Everything there is.
pub const ALL: Features = Features::new()
    .with_caching_mode(true)
    .with_first_stage_1g(true)
    .with_pass_through(true)
    .with_scalable_mode(true)
    .with_first_stage(true)
    .with_second_stage(true)
    .with_nested(true)
    .with_second_stage_2m(true)
    .with_second_stage_1g(true)
    .with_snoop_control(true)
    .with_second_stage_accessed_dirty(true)
    .with_device_tlb(true)
    .with_page_request(true)
    .with_interrupt_remapping(true)
    .with_extended_interrupt_mode(true)
    .with_extended_accessed(true)
    .with_supervisor_request(true)
    .with_execute_request(true)
    .with_rid_pasid(true)
    .with_abort_dma(true);

fn setup(choices: &mut Choices<'_>) -> Setup {
    let mut features = ALL;
    if choices.chance(50) {
        for number in 0..20 {
            if choices.chance(10) {
                features = Features::from_bits(features.into_bits() & !(1 << number));
            }
        }
    }
    let mut address_width = choices.pick(&[48, 57, 0, 57, 48, 39]);
    let mut pasid_bits = choices.pick(&[20, 20, 20, 10, 20, 7, 20, 0]);
    // What does not go together is refused, so it is put right.
    if address_width == 39 && choices.chance(50) {
        address_width = 48;
    }
    if address_width == 39 {
        features.set_first_stage(false);
    }
    if !features.scalable_mode() {
        features.set_second_stage(true);
        features.set_first_stage(false);
        features.set_second_stage_accessed_dirty(false);
        features.set_page_request(false);
        features.set_rid_pasid(false);
        features.set_abort_dma(false);
        pasid_bits = 0;
    }
    if !features.first_stage() {
        features.set_second_stage(true);
        features.set_nested(false);
        features.set_extended_accessed(false);
        features.set_first_stage_1g(false);
    }
    if !features.second_stage() {
        features.set_nested(false);
        features.set_second_stage_2m(false);
        features.set_second_stage_1g(false);
        features.set_second_stage_accessed_dirty(false);
    }
    if !features.device_tlb() {
        features.set_page_request(false);
    }
    if !features.interrupt_remapping() {
        features.set_extended_interrupt_mode(false);
    }
    if !features.first_stage() || pasid_bits == 0 {
        features.set_supervisor_request(false);
        features.set_execute_request(false);
    }
    Setup {
        features,
        address_width,
        pasid_bits,
    }
}

/// Present, writable, user.
const PWU: u64 = 0b111;
const LARGE: u64 = 1 << 7;

/// A first-stage set. Level 1 has pages at 0 to 7; each level above leads down at 0 and has a large
/// page or a restricted way down at 1 to 3.
fn first_set(
    choices: &mut Choices<'_>,
    memory: &mut Vec<(u64, u64)>,
    set: usize,
    shift: u64,
    one_gigabyte: bool,
) {
    let base = FIRST_SETS[set];
    let level = |level| table(base, level);
    let mut put = |address, value| memory.push((address, value));
    let random = choices.chance(60);
    for index in 0..8 {
        let mut entry = (40 + 16 * set as u64 + index) << 12 | PWU;
        if random {
            entry = match choices.byte() % 16 {
                0..=7 => entry,
                8 => entry & !0b010,
                9 => entry & !0b100,
                10 => entry | 1 << 63,
                11 => entry | 1 << 5,
                12 => entry | 0x60,
                13 => entry | 1 << 8,
                14 => 0xfee0_1000 | PWU,
                _ => entry & !0b111,
            };
        }
        put(level(1) + index * 8, entry);
        // The read-only copy serves the second 2 MiB but one.
        put(READ_ONLY_FIRST + (set as u64 * 256 + index) * 8, entry);
    }
    put(level(2), (level(1) + shift) | PWU);
    let two = choices.pick(&[0x60_0000, 0xfee0_0000, 0x20_0000]);
    put(level(2) + 8, two | PWU | LARGE);
    let way = choices.pick(&[PWU, 0b101, 0b011, PWU | 1 << 63, PWU]);
    put(level(2) + 16, (level(1) + shift) | way);
    put(level(2) + 24, READ_ONLY_FIRST | PWU);
    put(level(3), (level(2) + shift) | PWU);
    if one_gigabyte || choices.chance(10) {
        put(level(3) + 8, 0x8000_0000 | PWU | LARGE);
        put(level(3) + 16, 0xc000_0000 | PWU | LARGE);
    }
    let way = choices.pick(&[PWU, 0b101, 0b011, PWU | 1 << 63, PWU]);
    put(level(3) + 24, (level(2) + shift) | way);
    for upper in 4..=5 {
        for index in [0, 1, 0x100, 0x1ff] {
            put(level(upper) + index * 8, (level(upper - 1) + shift) | PWU);
        }
    }
}

/// A second-stage set: pages 0 to 63 map to themselves and 64 to 127 to the same, so that tables
/// can be reached by another address than their own; 40 to 47 go somewhere else.
fn second_set(
    choices: &mut Choices<'_>,
    memory: &mut Vec<(u64, u64)>,
    set: usize,
    features: Features,
) {
    let base = SECOND_SETS[set];
    let level = |level| table(base, level);
    let mut put = |address, value| memory.push((address, value));
    let random = choices.chance(50);
    for index in 0..128 {
        let mut entry = (index % 64) << 12 | 0b11;
        if index % 64 >= 40 {
            entry = (200 + 64 * set as u64 + index % 64) << 12 | 0b11;
            if random && index < 48 {
                entry = match choices.byte() % 16 {
                    0..=7 => entry,
                    8 | 9 => entry & !0b10,
                    10 => entry & !0b01,
                    11 => entry & !0b11,
                    12 => entry | 1 << 8,
                    13 => entry | 0x300,
                    14 => 0xfee0_2000 | 0b11,
                    _ => entry | 1 << 11,
                };
            }
        }
        put(level(1) + index * 8, entry);
        put(READ_ONLY_SECOND + (set as u64 * 256 + index) * 8, entry);
    }
    // Tables that the second stage lets be read only.
    if choices.chance(10) {
        let page = choices.pick(&[8, 9, 10, 11, 12, 72, 73, 74, 75, 76, 13, 14, 15, 16, 77, 78]);
        let permitted = choices.pick(&[0b01, 0b01, 0b01, 0b10, 0b00]);
        put(level(1) + page * 8, (page % 64) << 12 | permitted);
    }
    put(level(2), level(1) | 0b11);
    if features.second_stage_2m() || choices.chance(10) {
        if choices.chance(15) {
            put(level(2), 0b11 | LARGE);
        }
        let two = choices.pick(&[0x20_0000, 0xfee0_0000]);
        put(level(2) + 8, two | 0b11 | LARGE);
        put(level(2) + 24, 0x60_0000 | 0b11 | LARGE);
    }
    let way = choices.pick(&[0b11, 0b01, 0b10, 0b11]);
    put(level(2) + 16, level(1) | way);
    put(level(2) + 32, READ_ONLY_SECOND | 0b11);
    put(level(3), level(2) | 0b11);
    if features.second_stage_1g() || choices.chance(10) {
        put(level(3) + 8, 0x1_4000_0000 | 0b11 | LARGE);
        put(level(3) + 16, 0x8000_0000 | 0b11 | LARGE);
        let third = choices.pick(&[0xc000_0000 | 0b11, 0xc000_0000 | 0b01, 0x1_c000_0000 | 0b11]);
        put(level(3) + 24, third | LARGE);
    }
    for upper in 4..=5 {
        for index in [0, 1] {
            put(level(upper) + index * 8, level(upper - 1) | 0b11);
        }
    }
}

impl World {
    pub fn decode(bytes: &[u8]) -> Self {
        let mut choices = Choices::new(bytes);
        let choices = &mut choices;
        let setup = setup(choices);
        let features = setup.features;
        let width = if setup.address_width == 57 { 57 } else { 48 };
        let legacy = !features.scalable_mode() || (features.second_stage() && choices.chance(25));
        let mut memory = Vec::new();

        let shift = if choices.chance(50) { SHIFT } else { 0 };
        for set in 0..2 {
            let shift = if set == 1 { shift } else { 0 };
            first_set(choices, &mut memory, set, shift, features.first_stage_1g());
            second_set(choices, &mut memory, set, features);
        }
        let deepest = match setup.address_width {
            39 => 3,
            57 => 5,
            _ => 4,
        };
        let second_levels = [0, 1].map(|_| {
            if choices.chance(70) {
                choices.pick(&[3, 4, 5, 3, 4]).min(deepest)
            } else {
                deepest
            }
        });
        let first_levels = [0, 1].map(|_| {
            if width == 57 && choices.chance(50) {
                5
            } else {
                4
            }
        });

        for (device, contexts) in CONTEXTS.into_iter().enumerate() {
            memory.push((root_entry(device, legacy), contexts | 1));
            let context = context_entry(device, legacy);
            if legacy {
                let kind = choices.pick(&[0, 1, 2, 0, 1, 0]);
                let set = if choices.chance(40) { 1 } else { 0 };
                let levels = if kind == 2 {
                    deepest
                } else {
                    second_levels[set]
                };
                let domain = domain(if kind == 2 { 4 } else { 2 }, 0, set);
                let pointer = table(SECOND_SETS[set], levels);
                memory.push((context, pointer | kind << 2 | 1));
                memory.push((context + 8, u64::from(levels - 2) | u64::from(domain) << 8));
            } else {
                let mut low = DIRECTORY | 1;
                if features.device_tlb() && !choices.chance(15) {
                    low |= 1 << 2;
                    if features.page_request() && choices.chance(50) {
                        low |= 1 << 4;
                    }
                }
                if setup.pasid_bits > 0 && !choices.chance(10) {
                    low |= 1 << 3;
                }
                low |= choices.pick(&[0, 1, 7, 0]) << 9;
                memory.push((context, low));
                let mut rid_pasid = 0;
                if features.rid_pasid() && choices.chance(25) {
                    rid_pasid = choices.pick(&[1, 64, 0x1_0000]);
                }
                memory.push((context + 8, rid_pasid));
            }
        }
        if !legacy {
            for (index, &pointer) in PASID_TABLES.iter().enumerate() {
                memory.push((DIRECTORY + index as u64 * 8, pointer | 1));
            }
            for pasid in PASIDS {
                let entry = pasid_entry(pasid);
                let mut types = Vec::new();
                if features.first_stage() {
                    types.push(1);
                }
                if features.nested() {
                    types.extend([3, 3]);
                }
                if features.second_stage() {
                    types.push(2);
                }
                if features.pass_through() && choices.chance(15) {
                    types = vec![4];
                }
                let pgtt = choices.pick(&types);
                let first = if choices.chance(50) { 1 } else { 0 };
                let second = if choices.chance(40) { 1 } else { 0 };
                let mut zero = 1 | pgtt << 6 | u64::from(second_levels[second] - 2) << 2;
                if matches!(pgtt, 2 | 3) {
                    zero |= table(SECOND_SETS[second], second_levels[second]);
                    if features.second_stage_accessed_dirty() && choices.chance(60) {
                        zero |= 1 << 9;
                    }
                }
                let mut one = u64::from(domain(pgtt, first, second));
                if !choices.chance(6) {
                    one |= 1 << 23;
                }
                let mut two = 0;
                if matches!(pgtt, 1 | 3) {
                    two |= table(FIRST_SETS[first], first_levels[first]);
                    if first == 1 && pgtt == 3 {
                        two += shift;
                    }
                    two |= u64::from(first_levels[first] - 4) << 2;
                    two |= u64::from(choices.byte() & 0b111) << 4;
                    if features.extended_accessed() && choices.chance(50) {
                        two |= 1 << 7;
                    }
                }
                if features.supervisor_request() && !choices.chance(20) {
                    two |= 1;
                }
                if features.execute_request() && !choices.chance(20) {
                    two |= 2;
                }
                memory.extend([(entry, zero), (entry + 8, one), (entry + 16, two)]);
            }
        }
        let mut changes = Vec::new();
        if choices.chance(50) {
            let count = choices.pick(&[1, 1, 2, 4]);
            changes = (0..count).map(|_| change(choices, legacy)).collect();
        }
        Self {
            setup,
            legacy,
            memory,
            changes,
        }
    }
}

/// A change of some entry that requests meet.
fn change(choices: &mut Choices<'_>, legacy: bool) -> Change {
    let set = usize::from(choices.byte() % 2);
    let first = choices.chance(50);
    let base = if first {
        FIRST_SETS[set]
    } else {
        SECOND_SETS[set]
    };
    let kind = choices.byte() % 16;
    let address = match kind {
        // Pages.
        0..=6 if first => base + u64::from(choices.byte() % 4) * 8,
        0..=6 => base + (40 + u64::from(choices.byte() % 4)) * 8,
        // Tables above.
        7..=11 => {
            let level = choices.pick(&[2, 3, 2, 4, 5]);
            table(base, level) + u64::from(choices.byte() % 3) * 8
        }
        12 => {
            let word = u64::from(choices.byte() % if legacy { 2 } else { 4 });
            context_entry(set, legacy) + word * 8
        }
        13 => root_entry(set, legacy),
        14 if !legacy => directory_entry(choices.pick(&PASIDS)),
        _ if legacy => context_entry(set, legacy) + u64::from(choices.byte() % 2) * 8,
        _ => {
            let pasid = choices.pick(&PASIDS);
            pasid_entry(pasid) + u64::from(choices.pick(&[0, 0, 1, 2, 2, 3, 7_u8])) * 8
        }
    };
    let how = match choices.byte() % 8 {
        0..=3 => How::Toggle(choices.pick(&[
            0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 20, 22, 23, 24, 26, 29, 30, 38, 39, 45,
            46, 47, 48, 51, 52, 57, 62, 63,
        ])),
        4 | 5 => How::Page(u64::from(choices.byte() % 48)),
        6 => How::Clear,
        _ => How::Restore,
    };
    Change { address, how }
}

/// An operation of guest or device.
#[derive(Debug)]
pub enum Op {
    Request {
        device: usize,
        request: Request,
    },
    Change(Change),
    Invalidate {
        descriptors: Vec<[u64; 4]>,
        wait: bool,
    },
    ContextCommand(u64),
    IotlbCommand {
        address: u64,
        command: u64,
    },
    Root {
        mode: u64,
    },
    Translation(bool),
}

/// An address that the tables say something about.
fn address(choices: &mut Choices<'_>) -> u64 {
    match choices.byte() % 32 {
        // Beyond 48 or 57 bits, not canonical, at the edges.
        27 => return choices.pick(&[1 << 47, 1 << 48, 1 << 56, 1 << 57, 1 << 63, 1 << 39]),
        28 => return choices.pick(&[u64::MAX - 7, mask(63, 47), mask(63, 56)]),
        // Through a 1 GiB page to the interrupt range and its neighbours.
        29 | 30 => return choices.pick(&[0xbee0_1008, 0xbedf_f008, 0xbef0_0008, 0xbeef_fff8]),
        31 => return choices.pick(&[0x20_1008, 0x2f_fff8, 0x30_0000]),
        _ => {}
    }
    let mut address = u64::from(choices.byte() % 4) << 12;
    let up = choices.byte();
    if up >= 128 {
        address |= u64::from(choices.byte() % 8) << 12;
        address |= u64::from(choices.byte() % 5) << 21;
    }
    if up >= 192 {
        address |= u64::from(choices.byte() % 4) << 30;
        match choices.byte() % 8 {
            6 => address |= 1 << 39,
            7 => address |= mask(63, 39),
            5 => address |= 1 << 48,
            _ => {}
        }
    }
    address | u64::from(choices.byte()) << 3
}

fn request(choices: &mut Choices<'_>, legacy: bool) -> Request {
    let pasid = match choices.byte() % 16 {
        _ if legacy && !choices.chance(5) => None,
        0..=7 => None,
        8..=14 => Some(choices.pick(&[0, 1, 5, 64, 70, 1, 5])),
        _ => Some(choices.pick(&[2, 130, 0x3fff, 0xf_ffff])),
    };
    let kind = choices.pick(&[
        Kind::Untranslated,
        Kind::Untranslated,
        Kind::Translation,
        Kind::Untranslated,
        Kind::Untranslated,
        Kind::Translation,
        Kind::Untranslated,
        Kind::Translated,
    ]);
    let access = choices.byte() % 8;
    let read = kind == Kind::Translation || access % 4 != 1;
    Request {
        address: address(choices),
        pasid,
        kind,
        read,
        write: access % 2 == 1,
        execute: read && pasid.is_some() && choices.chance(20),
        privileged: pasid.is_some() && choices.chance(25),
    }
}

fn invalidations(choices: &mut Choices<'_>, legacy: bool) -> Vec<[u64; 4]> {
    let domain = u64::from(choices.byte() % 10 + 1) << 16;
    let pasid = u64::from(choices.pick(&PASIDS)) << 32;
    let source = u64::from(choices.pick(&SOURCE_IDS)) << 32;
    let page = address(choices) & mask(63, 12);
    let order = u64::from(choices.pick(&[0, 0, 1, 2, 9, 18_u8]));
    let all_translations = [2 | 1 << 4, 0, 0, 0];
    let mut list = match choices.byte() % 12 {
        // As a driver does after each change of the configuration.
        0 | 1 => vec![
            [1 | 1 << 4, 0, 0, 0],
            [7 | 3 << 4, 0, 0, 0],
            all_translations,
        ],
        2 => vec![
            [7 | 1 << 4 | domain | pasid, 0, 0, 0],
            [6 | 2 << 4 | domain | pasid, 0, 0, 0],
        ],
        3 | 4 => vec![[6 | 3 << 4 | domain | pasid, page | order, 0, 0]],
        5 => vec![[
            6 | 3 << 4 | domain | pasid,
            page | u64::from(choices.byte() % 64),
            0,
            0,
        ]],
        6 => vec![[6 | 2 << 4 | domain | pasid, 0, 0, 0]],
        7 | 8 => vec![[2 | 3 << 4 | domain, page | order, 0, 0]],
        9 => vec![[2 | 2 << 4 | domain | 0b11 << 6, 0, 0, 0]],
        10 => vec![[
            1 | u64::from(choices.pick(&[3, 2, 3_u8])) << 4
                | if legacy { domain } else { 0 }
                | source
                | u64::from(choices.byte() % 4) << 48,
            0,
            0,
            0,
        ]],
        _ => vec![[
            7 | u64::from(choices.pick(&[3, 0, 1_u8])) << 4 | domain | pasid,
            0,
            0,
            0,
        ]],
    };
    if legacy {
        list.retain(|descriptor| field(descriptor[0], 3, 0) < 6);
    }
    if choices.chance(8) {
        // A bit that may be wrong.
        if let Some(descriptor) = list.first_mut() {
            let number = choices.byte();
            descriptor[usize::from(number / 64 % 4)] ^= 1 << (number % 64);
        }
    }
    list
}

impl Op {
    pub fn decode(bytes: &[u8], legacy: bool) -> Self {
        let mut choices = Choices::new(bytes);
        let choices = &mut choices;
        match choices.byte() {
            0..=149 => Self::Request {
                device: usize::from(choices.chance(30)),
                request: request(choices, legacy),
            },
            150..=189 => Self::Change(change(choices, legacy)),
            190..=235 => Self::Invalidate {
                descriptors: invalidations(choices, legacy),
                wait: !choices.chance(10),
            },
            236..=239 => Self::ContextCommand(
                1 << 63
                    | u64::from(choices.pick(&[1, 2, 3_u8])) << 61
                    | u64::from(choices.byte() % 10 + 1)
                    | u64::from(choices.pick(&SOURCE_IDS)) << 16,
            ),
            240..=245 => Self::IotlbCommand {
                address: address(choices) & mask(63, 12) | u64::from(choices.pick(&[0, 1, 9_u8])),
                command: 1 << 63
                    | u64::from(choices.pick(&[1, 2, 3_u8])) << 60
                    | u64::from(choices.byte() % 10 + 1) << 32,
            },
            246..=251 => Self::Root {
                mode: if choices.chance(15) {
                    choices.pick(&[0, 1, 3])
                } else {
                    u64::from(!legacy)
                },
            },
            _ => Self::Translation(choices.chance(60)),
        }
    }
}
