//! Where the guest has what in its RAM, and the tables that it begins with.
//!
//! Tables of these worlds do not share pages with each other, and each page of 4 KiB is reached by
//! one address: so a driver knows what to invalidate when it changes one ([`super::driver`]).

use nested_vtd::unit::Features;

use crate::reference::Capabilities;

/// Pages of RAM at 0.
pub const LOW_PAGES: u64 = 48;
/// Behind it: pages that devices cannot write.
pub const READ_ONLY_PAGES: u64 = 4;

pub const ROOT: u64 = 1 << 12;
pub const CONTEXTS: [u64; 2] = [2 << 12, 3 << 12];
/// Of devices with an even number, and with an odd one.
pub const DIRECTORIES: [u64; 2] = [4 << 12, 5 << 12];
/// Of PASIDs 0 to 63 and 64 to 127, by directory.
pub const PASID_TABLES: [[u64; 2]; 2] = [[6 << 12, 7 << 12], [32 << 12, 33 << 12]];
/// The tables of levels 1 to 5 follow each other.
pub const FIRST_SETS: [u64; 2] = [8 << 12, 13 << 12];
pub const SECOND_SETS: [u64; 2] = [18 << 12, 23 << 12];
pub const INTERRUPTS: u64 = 28 << 12;
pub const QUEUE: u64 = 29 << 12;
pub const STATUS: u64 = 30 << 12;
pub const PAGE_QUEUE: u64 = 31 << 12;
/// Of two pages.
pub const LARGE_QUEUE: u64 = 34 << 12;
/// Where pages of 4 KiB are: six for each set of tables.
pub const DATA: u64 = 36 << 12;
/// Level 1 of the first-stage sets once more, where devices cannot write.
pub const READ_ONLY: u64 = LOW_PAGES << 12;

/// Devices: requester IDs in both halves of a bus.
pub const SLOTS: usize = 6;
pub const SOURCE_IDS: [u16; SLOTS] = [0x18, 0x19, 0x1a, 0x198, 0x20, 0x199];

/// PASIDs that have an entry.
pub const PASIDS: [u32; 5] = [0, 1, 5, 64, 70];

/// log2 of the entries of the interrupt remapping table, less one: 16 entries.
pub const INTERRUPT_SIZE: u64 = 3;

/// What translates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// First-stage tables.
    First,
    /// First-stage tables over second-stage tables, and either alone.
    Nested,
    /// Second-stage tables in scalable mode.
    Second,
    /// Legacy mode.
    Legacy,
    /// Nothing: RAM is empty.
    Empty,
}

/// Is the page one of tables, so that the host or the unit may keep what is in it?
pub fn is_table(gpa: u64) -> bool {
    matches!(gpa >> 12, 1..=28 | 32 | 33 | 48 | 49)
}

/// Where the root table has the entry of a requester.
pub fn root_entry(source_id: u16, legacy: bool) -> u64 {
    let [bus, function] = source_id.to_be_bytes();
    let half = if legacy { 0 } else { u64::from(function / 128) };
    ROOT + u64::from(bus) * 16 + half * 8
}

/// Where the context tables have the entry of a requester.
pub fn context_entry(source_id: u16, legacy: bool) -> u64 {
    let [bus, function] = source_id.to_be_bytes();
    let table = CONTEXTS[usize::from(bus % 2)];
    if legacy {
        table + u64::from(function) * 16
    } else {
        table + u64::from(function % 128) * 32
    }
}

pub fn pasid_entry(directory: usize, pasid: u32) -> u64 {
    PASID_TABLES[directory][(pasid / 64 % 2) as usize] + u64::from(pasid % 64) * 64
}

/// Table of a level, 1 to 5.
pub fn table(set: u64, level: u32) -> u64 {
    set + (u64::from(level - 1) << 12)
}

/// Domain of what an entry names.
pub fn domain(pgtt: u64, first: usize, second: usize) -> u16 {
    match pgtt {
        1 => 2 + first as u16,
        2 => 4 + second as u16,
        3 => 6 + 2 * first as u16 + second as u16,
        _ => 1,
    }
}

/// What a unit with these capabilities can walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Levels {
    pub first: [u32; 2],
    pub second: [u32; 2],
}

impl Levels {
    pub fn of(capabilities: &Capabilities) -> Self {
        let most = capabilities.most_levels().unwrap_or(4);
        let least = (3..=5)
            .find(|&levels| capabilities.second_stage_levels(levels))
            .unwrap_or(4);
        Self {
            first: [
                4,
                if capabilities.first_stage_5_level() {
                    5
                } else {
                    4
                },
            ],
            second: [most, least],
        }
    }
}

/// A PASID entry, as drivers make them.
pub fn pasid_words(pgtt: u64, first: usize, second: usize, levels: Levels) -> [u64; 3] {
    let mut zero = 1 | pgtt << 6;
    // PWSNP: the walks snoop, so that accessed and dirty bits can be set.
    let one = u64::from(domain(pgtt, first, second)) | 1 << 23;
    let mut two = 0;
    if matches!(pgtt, 2 | 3) {
        let deep = levels.second[second];
        zero |= table(SECOND_SETS[second], deep) | u64::from(deep - 2) << 2;
    }
    if matches!(pgtt, 1 | 3) {
        let deep = levels.first[first];
        two |= table(FIRST_SETS[first], deep) | u64::from(deep - 4) << 2;
    }
    [zero, one, two]
}

/// A context entry of scalable mode.
pub fn context_word(slot: usize, capabilities: &Capabilities) -> u64 {
    let mut low = DIRECTORIES[slot % 2] | 1;
    if capabilities.device_tlb() {
        low |= 1 << 2;
    }
    if capabilities.pasid() {
        low |= 1 << 3;
    }
    if capabilities.page_requests() && capabilities.device_tlb() {
        low |= 1 << 4;
    }
    low
}

/// Present, writable, user.
pub const PWU: u64 = 0b111;
pub const LARGE: u64 = 1 << 7;

/// What a level-1 entry of a first-stage set leads to at first.
pub fn first_page(set: usize, index: u64) -> u64 {
    match index {
        0..=5 => (DATA + ((6 * set as u64 + index) << 12)) | PWU,
        6 => (READ_ONLY + (2 << 12)) | PWU,
        _ => 0,
    }
}

/// The same of a second-stage set: pages go to themselves, so that tables can be found through it, but data
/// pages of the second set are moved.
pub fn second_page(set: usize, page: u64) -> u64 {
    let data = DATA >> 12;
    let to = match page {
        36..48 if set == 1 => data + (page - data + 3) % 12,
        _ => page,
    };
    to << 12 | 0b11
}

/// The tables of a world: addresses and values.
pub fn tables(mode: Mode, capabilities: &Capabilities, features: Features) -> Vec<(u64, u64)> {
    let mut memory = Vec::new();
    if mode == Mode::Empty {
        return memory;
    }
    for set in 0..2 {
        first_set(&mut memory, set, features);
        second_set(&mut memory, set, features);
    }
    interrupts(&mut memory);
    let levels = Levels::of(capabilities);
    let legacy = mode == Mode::Legacy;
    for (slot, &source_id) in SOURCE_IDS.iter().enumerate() {
        let [bus, _] = source_id.to_be_bytes();
        let contexts = CONTEXTS[usize::from(bus % 2)];
        memory.push((root_entry(source_id, legacy), contexts | 1));
        let context = context_entry(source_id, legacy);
        if legacy {
            let (low, high) = legacy_context(slot, capabilities, levels);
            memory.extend([(context, low), (context + 8, high)]);
        } else {
            memory.push((context, context_word(slot, capabilities)));
        }
    }
    if legacy {
        return memory;
    }
    for (number, directory) in DIRECTORIES.into_iter().enumerate() {
        for (half, entries) in PASID_TABLES[number].into_iter().enumerate() {
            memory.push((directory + half as u64 * 8, entries | 1));
        }
        for (place, pasid) in PASIDS.into_iter().enumerate() {
            let Some((pgtt, first, second)) = binding(mode, number, place) else {
                continue;
            };
            if pgtt == 4 && !capabilities.pass_through() {
                continue;
            }
            let entry = pasid_entry(number, pasid);
            let words = pasid_words(pgtt, first, second, levels);
            memory.extend((0..).step_by(8).map(|at| entry + at).zip(words));
        }
    }
    memory
}

/// What a PASID goes through at first.
fn binding(mode: Mode, directory: usize, place: usize) -> Option<(u64, usize, usize)> {
    match (mode, directory, place) {
        (Mode::First, 0, _) => [
            Some((1, 0, 0)),
            Some((1, 0, 0)),
            Some((1, 1, 0)),
            Some((4, 0, 0)),
            None,
        ][place],
        (Mode::First, ..) => [
            Some((1, 1, 0)),
            Some((1, 0, 0)),
            None,
            Some((1, 1, 0)),
            Some((1, 0, 0)),
        ][place],
        (Mode::Nested, 0, _) => [
            Some((3, 0, 0)),
            Some((3, 1, 0)),
            Some((2, 0, 0)),
            Some((1, 1, 0)),
            Some((4, 0, 0)),
        ][place],
        (Mode::Nested, ..) => [
            Some((3, 1, 1)),
            Some((3, 0, 0)),
            Some((3, 0, 1)),
            Some((2, 0, 1)),
            None,
        ][place],
        (_, 0, _) => [
            Some((2, 0, 0)),
            Some((2, 0, 1)),
            Some((2, 0, 0)),
            Some((4, 0, 0)),
            None,
        ][place],
        _ => [
            Some((2, 0, 1)),
            Some((2, 0, 1)),
            None,
            Some((2, 0, 0)),
            None,
        ][place],
    }
}

/// Even devices with the first set, odd ones with the second, and the last passes through if it can.
fn legacy_context(slot: usize, capabilities: &Capabilities, levels: Levels) -> (u64, u64) {
    let set = slot % 2;
    if slot == SLOTS - 1 && capabilities.pass_through() {
        let deepest = capabilities.most_levels().unwrap_or(4);
        return (2 << 2 | 1, u64::from(deepest - 2) | 1 << 8);
    }
    let kind = u64::from(capabilities.device_tlb());
    let deep = levels.second[set];
    let low = table(SECOND_SETS[set], deep) | kind << 2 | 1;
    (low, u64::from(deep - 2) | u64::from(domain(2, 0, set)) << 8)
}

fn first_set(memory: &mut Vec<(u64, u64)>, set: usize, features: Features) {
    let level = |level| table(FIRST_SETS[set], level);
    let mut put = |address, value| memory.push((address, value));
    for index in 0..8 {
        put(level(1) + index * 8, first_page(set, index));
        let read_only = READ_ONLY + ((set as u64) << 12);
        put(read_only + index * 8, first_page(set, index));
    }
    put(level(2), level(1) | PWU);
    put(level(2) + 8, 0x60_0000 | PWU | LARGE);
    put(level(2) + 16, (READ_ONLY + ((set as u64) << 12)) | PWU);
    put(level(2) + 24, PWU | LARGE);
    put(level(3), level(2) | PWU);
    if features.first_stage_1g() {
        put(level(3) + 8, 0x8000_0000 | PWU | LARGE);
        // RAM, and the interrupt range.
        put(level(3) + 16, PWU | LARGE);
        put(level(3) + 24, 0xc000_0000 | PWU | LARGE);
    }
    put(level(4), level(3) | PWU);
    put(level(5), level(4) | PWU);
}

fn second_set(memory: &mut Vec<(u64, u64)>, set: usize, features: Features) {
    let level = |level| table(SECOND_SETS[set], level);
    let mut put = |address, value| memory.push((address, value));
    for page in 0..LOW_PAGES + READ_ONLY_PAGES {
        put(level(1) + page * 8, second_page(set, page));
    }
    put(level(2), level(1) | 0b11);
    if features.second_stage_2m() {
        put(level(2) + 8, 0x20_0000 | 0b11 | LARGE);
        put(level(2) + 24, 0x60_0000 | 0b11 | LARGE);
    }
    put(level(3), level(2) | 0b11);
    if features.second_stage_1g() {
        put(level(3) + 8, 0x4000_0000 | 0b11 | LARGE);
        put(level(3) + 16, 0x8000_0000 | 0b11 | LARGE);
    }
    put(level(4), level(3) | 0b11);
    put(level(5), level(4) | 0b11);
}

/// Entries for the devices, by their number, verified; behind them others.
fn interrupts(memory: &mut Vec<(u64, u64)>) {
    for index in 0..12_u64 {
        let low = 1 | (0x30 + index) << 16 | (1 + index % 4) << 40;
        let high = match SOURCE_IDS.get(index as usize) {
            Some(&source_id) => 1 << 18 | u64::from(source_id),
            None => 0,
        };
        memory.extend([
            (INTERRUPTS + index * 16, low),
            (INTERRUPTS + index * 16 + 8, high),
        ]);
    }
}
