//! A driver that changes tables and invalidates what it has to, as Linux's does. After that nothing that is
//! cached is older than the tables, so the unit must answer as the model does without more being invalidated.
//!
//! That holds in the world's own tables only ([`Run::pristine`]): in others a page may be reached in ways that the
//! driver does not know of. There the change is made all the same.

use super::op::Op;
use super::queue::{
    CONTEXTS, INTERRUPT_ENTRIES, PASIDS as PASID_ENTRIES, TRANSLATIONS, device, domain,
    domain_pages, pasid, pasid_cache, pasid_pages,
};
use super::run::Run;
use super::world::{
    self, DATA, FIRST_SETS, INTERRUPTS, LARGE, Mode, PASIDS, PWU, READ_ONLY, SECOND_SETS, SLOTS,
    context_entry, first_page, pasid_entry, pasid_words, second_page, table,
};
use crate::input::pick;
use crate::reference::{Kind, Request, field, mask};

impl Run {
    /// `a`: what is changed; `b`: which set, device or PASID; `c`: to what; `d`: how it is invalidated; `e`: which
    /// entry.
    pub fn change(&mut self, op: &Op) {
        // Without a queue there is no way to invalidate.
        if !self.has_queue() {
            return;
        }
        let asked = if self.pristine && self.clean {
            self.affected(op)
        } else {
            Vec::new()
        };
        // What is cached before is what must be forgotten.
        self.ask_all(&asked);
        let (clean, interrupts_clean, pristine) =
            (self.clean, self.interrupts_clean, self.pristine);
        let descriptors = match op.a % 8 {
            0 | 1 => self.first_leaf(op),
            2 => self.first_table(op),
            3 => self.second_leaf(op),
            4 | 5 if !self.is_legacy() => self.pasid(op),
            6 => self.interrupt(op),
            _ => self.context(op),
        };
        if pristine {
            // What was touched is as the driver wanted it.
            self.pristine = true;
            self.clean = clean;
            self.interrupts_clean = interrupts_clean;
        }
        self.submit(&descriptors);
        self.ask_all(&asked);
    }

    /// Requests that may see the change: of some devices, with and without PASID.
    fn affected(&self, op: &Op) -> Vec<(usize, Request)> {
        let address = match op.a % 8 {
            0 | 1 => u64::from(op.e % 8) << 12,
            2 => u64::from(op.e / 2 % 4) << (21 + 9 * (op.e % 2)),
            3 if self.setup.mode != Mode::Nested => u64::from(36 + op.e % 12) << 12,
            6 => return Vec::new(),
            _ => 0x1000,
        };
        let number = pick(&PASIDS, op.b >> 1);
        let mut asked = Vec::new();
        for slot in [0, 1, 3].map(|step| (usize::from(op.b) + step) % SLOTS) {
            for pasid in [None, Some(number)] {
                let request = Request {
                    address: address | 8,
                    pasid,
                    kind: Kind::Untranslated,
                    read: true,
                    write: op.value & 1 != 0,
                    execute: false,
                    privileged: false,
                };
                asked.push((slot, request));
            }
        }
        asked
    }

    fn ask_all(&mut self, asked: &[(usize, Request)]) {
        for &(slot, request) in asked {
            self.ask(slot, request);
            self.ask_silicon(slot, request);
        }
    }

    /// Domains and PASIDs of the entries that go through a set of tables.
    fn users(&self, second: bool, set: usize) -> Vec<(u16, u32)> {
        let mut users = Vec::new();
        let base = if second {
            SECOND_SETS[set]
        } else {
            FIRST_SETS[set]
        };
        let is_of = |pointer: u64| (base..base + 0x5000).contains(&(pointer & mask(51, 12)));
        let peek = |address| self.machine.peek(address).unwrap_or(0);
        if self.is_legacy() {
            for slot in 0..SLOTS {
                let entry = context_entry(world::SOURCE_IDS[slot], true);
                if second && is_of(peek(entry)) {
                    users.push((field(peek(entry + 8), 23, 8) as u16, 0));
                }
            }
        } else {
            for directory in 0..2 {
                for pasid in PASIDS {
                    let entry = pasid_entry(directory, pasid);
                    let low = peek(entry);
                    let pointer = if second { low } else { peek(entry + 16) };
                    let staged = match field(low, 8, 6) {
                        1 => !second,
                        2 => second,
                        3 => true,
                        _ => false,
                    };
                    if low & 1 != 0 && staged && is_of(pointer) {
                        users.push((peek(entry + 8) as u16, pasid));
                    }
                }
            }
        }
        users.sort_unstable();
        users.dedup();
        users
    }

    /// A 4 KiB page of a first stage goes somewhere else.
    fn first_leaf(&mut self, op: &Op) -> Vec<[u64; 2]> {
        let set = usize::from(op.b & 1);
        let index = u64::from(op.e % 8);
        let address = table(FIRST_SETS[set], 1) + index * 8;
        let to = DATA + (u64::from(op.c % 12) << 12);
        let entry = match op.c >> 4 {
            0..=7 => to | PWU,
            8 => 0,
            9 => to | 0b101,
            10 => to | 0b011,
            11 => first_page(set, index),
            12 => to | PWU | 1 << 63,
            13 => (READ_ONLY + (3 << 12)) | PWU,
            14 => 0xfee0_1000 | PWU,
            _ => to | PWU | 0x60,
        };
        self.poke(address, entry);
        let users = self.users(false, set);
        let named = |(domain_id, number): (u16, u32)| match op.d % 6 {
            0 | 1 => pasid_pages(domain_id, number, index << 12, 1 << 6),
            2 => pasid_pages(domain_id, number, index << 12, 0),
            // All eight of them.
            3 => pasid_pages(domain_id, number, index << 12, 3 | 1 << 6),
            4 => pasid_pages(domain_id, number, 0, 52),
            _ => pasid(domain_id, number),
        };
        users.into_iter().map(named).collect()
    }

    /// A first-stage entry above those of 4 KiB pages is changed.
    fn first_table(&mut self, op: &Op) -> Vec<[u64; 2]> {
        let set = usize::from(op.b & 1);
        let base = FIRST_SETS[set];
        let level = 2 + u32::from(op.e % 2);
        let index = u64::from(op.e / 2 % 4);
        let below = table(base, level - 1);
        let entry = match op.c % 8 {
            0 | 1 => below | PWU,
            2 => 0,
            3 => below | 0b101,
            4 => below | 0b011,
            // A large page in its place.
            5 => PWU | LARGE,
            6 => below | PWU | 1 << 63,
            _ => 0x60_0000 & !mask(8 + 9 * level, 12) | PWU | LARGE,
        };
        // Only the first entry leads to the table of the level below, so that each page has one address.
        let entry = if index > 0 && entry & mask(51, 12) == below {
            0
        } else {
            entry
        };
        self.poke(table(base, level) + index * 8, entry);
        let users = self.users(false, set);
        let shift = 12 + 9 * (level - 1);
        let named = |(domain_id, number): (u16, u32)| match op.d % 4 {
            0 | 1 => pasid(domain_id, number),
            2 => pasid_pages(domain_id, number, index << shift, u64::from(shift - 12)),
            _ => pasid_pages(domain_id, number, 0, 63),
        };
        users.into_iter().map(named).collect()
    }

    /// A 4 KiB page of a second stage goes somewhere else.
    fn second_leaf(&mut self, op: &Op) -> Vec<[u64; 2]> {
        let set = usize::from(op.b & 1);
        // Tables of a first stage are found through it, and stay where they are.
        let page = 36 + u64::from(op.e % 12);
        let address = table(SECOND_SETS[set], 1) + page * 8;
        let to = DATA + (u64::from(op.c % 12) << 12);
        let entry = match op.c >> 4 {
            0..=8 => to | 0b11,
            9 => 0,
            10 => to | 0b01,
            11 => to | 0b10,
            12 => 0xfee0_2000 | 0b11,
            13 => (READ_ONLY + (3 << 12)) | 0b11,
            _ => second_page(set, page),
        };
        self.poke(address, entry);
        let named = |(domain_id, _)| match op.d % 4 {
            0 | 1 => domain_pages(domain_id, page << 12, 1 << 6),
            2 => domain_pages(domain_id, page << 12, 4),
            _ => domain(domain_id),
        };
        let users = self.users(true, set);
        users.into_iter().map(named).collect()
    }

    /// A PASID gets other tables, or none.
    fn pasid(&mut self, op: &Op) -> Vec<[u64; 2]> {
        let directory = usize::from(op.b & 1);
        let number = pick(&PASIDS, op.b >> 1);
        let entry = pasid_entry(directory, number);
        let before = [entry, entry + 8].map(|at| self.machine.peek(at).unwrap_or(0));
        let (first, second) = (usize::from(op.c & 1), usize::from(op.c >> 1 & 1));
        let capabilities = self.machine.capabilities;
        let mut types = vec![0];
        types.extend(capabilities.first_stage().then_some(1));
        types.extend(capabilities.second_stage().then_some(2));
        types.extend(capabilities.nested().then_some(3));
        types.extend(capabilities.pass_through().then_some(4));
        let pgtt = pick(&types, op.c >> 2 & 7);
        let mut words = [0; 3];
        if pgtt != 0 {
            words = pasid_words(pgtt, first, second, self.levels);
            // SRE, WPE and EAFE, FPD.
            words[0] |= u64::from(op.d >> 8 & 1) << 1;
            if capabilities.supervisor() {
                words[2] |= u64::from(op.d >> 9 & 1) | u64::from(op.d >> 10 & 1) << 4;
            }
            if capabilities.extended_accessed() {
                words[2] |= u64::from(op.d >> 11 & 1) << 7;
            }
        }
        for (index, word) in words.into_iter().enumerate().rev() {
            self.poke(entry + index as u64 * 8, word);
        }
        let mut named = Vec::new();
        let mut name = |domain_id: u16| {
            named.push(pasid_cache(domain_id, number));
            named.push(pasid(domain_id, number));
            named.push(domain(domain_id));
        };
        if before[0] & 1 != 0 {
            name(before[1] as u16);
        }
        if words[0] & 1 != 0 {
            name(words[1] as u16);
        }
        if op.d % 8 == 7 || named.is_empty() {
            return vec![PASID_ENTRIES, TRANSLATIONS];
        }
        named
    }

    /// A device may do more, or less.
    fn context(&mut self, op: &Op) -> Vec<[u64; 2]> {
        let slot = usize::from(op.b) % SLOTS;
        let source_id = world::SOURCE_IDS[slot];
        let entry = context_entry(source_id, self.is_legacy());
        let before = self.machine.peek(entry).unwrap_or(0);
        let high = self.machine.peek(entry + 8).unwrap_or(0);
        let toggled = match op.c % 6 {
            0 | 1 => before ^ 1,
            2 => before ^ 0b10,
            3 if self.machine.capabilities.device_tlb() => before ^ 0b100,
            4 => before ^ 0b1000,
            _ => before ^ 1 << (9 + op.c / 8 % 3),
        };
        self.poke(entry, toggled);
        let domain_id = if self.is_legacy() {
            field(high, 23, 8) as u16
        } else {
            0
        };
        let named = match op.d % 4 {
            0 | 1 => device(domain_id, source_id),
            // FM 3: any function of its number.
            2 => {
                let [low, high] = device(domain_id, source_id ^ 3);
                [low | 3 << 48, high]
            }
            _ => CONTEXTS,
        };
        vec![named, PASID_ENTRIES, TRANSLATIONS]
    }

    /// An interrupt goes somewhere else.
    fn interrupt(&mut self, op: &Op) -> Vec<[u64; 2]> {
        let index = u64::from(op.e % 16);
        let low = u64::from(op.c & 7 != 0) | u64::from(op.c) << 16 | u64::from(op.b) << 40;
        self.poke(INTERRUPTS + index * 16, low);
        let named = match op.d % 4 {
            0 | 1 => [4 | 1 << 4 | index << 32, 0],
            2 => [4 | 1 << 4 | 2 << 27 | index << 32, 0],
            _ => INTERRUPT_ENTRIES,
        };
        vec![named]
    }
}
