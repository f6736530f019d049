//! Guests made of bytes: tables that mostly make sense. Every byte 0 is the plainest choice, so that proptest shrinks towards a plain guest.

use std::fmt;

use nested_vtd::unit::Features;

use crate::machine::{SOURCE_IDS, Setup};
use crate::program::{Change, change};
use crate::reference::{field, mask};

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

    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.bytes.split_first() else {
            return 0;
        };
        self.bytes = rest;
        first
    }

    /// True in so many of a hundred cases.
    pub fn chance(&mut self, percent: u32) -> bool {
        u32::from(self.byte()) * 100 >= (100 - percent) * 256
    }

    pub fn pick<T: Copy>(&mut self, options: &[T]) -> T {
        options[usize::from(self.byte()) % options.len()]
    }
}

/// A guest before its first operation.
pub struct World {
    pub setup: Setup,
    pub legacy: bool,
    pub memory: Vec<(u64, u64)>,
    pub changes: Vec<Change>,
    pub focus: Focus,
}

/// The page that much of the program is about.
#[derive(Debug)]
pub struct Focus {
    pub device: usize,
    pub pasid: Option<u32>,
    pub address: u64,
    pub domain: u16,
    /// Entries on the way to it.
    pub entries: Vec<u64>,
}

impl Focus {
    fn choose(choices: &mut Choices<'_>, legacy: bool, memory: &[(u64, u64)]) -> Self {
        let peek = |address| {
            let last = memory.iter().rev().find(|(at, _)| *at == address);
            last.map_or(0, |&(_, value)| value)
        };
        let device = usize::from(choices.chance(30));
        let pasid = choices.pick(&[None, Some(1), Some(5), Some(0)]);
        let pasid = pasid.filter(|_| !legacy);
        let page = u64::from(choices.byte() % 8);
        let region = u64::from(choices.pick(&[0, 0, 0, 1, 0, 2, 0, 3_u8]));
        let address = page << 12 | region << 21;
        let index = |level: u32| address >> (3 + 9 * level) & 0x1ff;
        let (entry, stages, domain) = if legacy {
            let entry = context_entry(device, true);
            (entry, [0, peek(entry)], field(peek(entry + 8), 23, 8))
        } else {
            let entry = pasid_entry(pasid.unwrap_or(0));
            let first = peek(entry + 16) & mask(63, 12);
            (entry, [first, peek(entry)], field(peek(entry + 8), 15, 0))
        };
        let mut entries = vec![entry, entry + if legacy { 8 } else { 16 }];
        // Which sets the entry names, if any.
        let within = |pointer: u64, sets: [u64; 2]| {
            let pointer = if pointer >= SHIFT + (8 << 12) {
                pointer - SHIFT
            } else {
                pointer
            };
            sets.into_iter()
                .find(|set| (0..5 << 12).contains(&(pointer & mask(63, 12)).wrapping_sub(*set)))
        };
        let first = within(stages[0], FIRST_SETS);
        let second = within(stages[1], SECOND_SETS);
        if let Some(set) = first {
            for level in [1, 1, 1, 2, 2, 3, 4] {
                entries.push(table(set, level) + index(level) * 8);
            }
        }
        match (first, second) {
            (None, Some(set)) => {
                for level in [1, 1, 1, 2, 2, 3, 4] {
                    entries.push(table(set, level) + index(level) * 8);
                }
            }
            (Some(first), Some(second)) => {
                // Those of the page, of the tables, and above.
                let leaf = field(peek(first + page * 8), 51, 12);
                for page in [leaf, leaf, leaf, first >> 12, (first >> 12) + 1] {
                    entries.push(second + page % 64 * 8);
                }
                entries.extend([table(second, 2), table(second, 3)]);
            }
            _ => {}
        }
        Self {
            device,
            pasid,
            address,
            domain: domain as u16,
            entries,
        }
    }
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
        write!(f, "  {:x?}\n  {:x?}", self.changes, self.focus)
    }
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
        let focus = Focus::choose(choices, legacy, &memory);
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
            focus,
        }
    }
}
