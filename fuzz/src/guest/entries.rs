//! Entries of tables as drivers write them, with a bit or a field that is wrong.

use super::op::{Code, Op};
use super::run::Run;
use super::world::{
    self, DIRECTORIES, FIRST_SETS, INTERRUPTS, PASID_TABLES, PASIDS, PWU, SECOND_SETS, SLOTS,
    context_entry, context_word, pasid_entry, pasid_words, root_entry, table,
};
use crate::input::pick;

/// A page by its number, or a default.
fn page_or(number: u16, default: u64) -> u64 {
    match number {
        0 => default,
        number => u64::from(number % 64) << 12,
    }
}

impl Run {
    /// One of the operations that write an entry.
    pub fn entry(&mut self, op: &Op) {
        match op.code {
            Code::Root => self.root_entry(op),
            Code::Context => self.context_entry(op),
            Code::Directory => self.directory_entry(op),
            Code::Pasid => self.pasid_entry(op),
            Code::Table => self.paging_entry(op),
            _ => self.interrupt_entry(op),
        }
    }

    fn put_all<const N: usize>(&mut self, address: u64, words: [u64; N]) {
        for (index, word) in words.into_iter().enumerate() {
            self.poke(address + index as u64 * 8, word);
        }
    }

    /// `a`: whose; `b`: not present if odd; `d`: the context table's page, 0 for its own.
    fn root_entry(&mut self, op: &Op) {
        let source_id = self.machine.source_id(usize::from(op.a) % SLOTS);
        let own = context_entry(source_id, true) & !0xfff;
        let low = page_or(op.d, own) | u64::from(op.b & 1 == 0);
        let address = root_entry(source_id, self.is_legacy());
        if self.is_legacy() {
            self.put_all(address, op.flipped([low, 0]));
        } else {
            self.put_all(address, op.flipped([low]));
        }
    }

    /// `a`: whose; `b`: flags that are not as usual; `c`: PDTS, and with bit 7 RID_PASID is `value`; `d`: the
    /// directory's or the second stage's page, 0 for its own.
    fn context_entry(&mut self, op: &Op) {
        let slot = usize::from(op.a) % SLOTS;
        let source_id = self.machine.source_id(slot);
        let address = context_entry(source_id, self.is_legacy());
        if self.is_legacy() {
            let set = usize::from(op.c & 1);
            let deep = self.levels.second[set];
            let low = page_or(op.d, table(SECOND_SETS[set], deep)) | 1 | u64::from(op.b % 4) << 2;
            let domain = u64::from(world::domain(2, 0, set));
            let high = u64::from(deep - 2) | domain << 8 ^ op.value << 8 & 0xffff00;
            self.put_all(address, op.flipped([low, high]));
            return;
        }
        let usual = context_word(slot, &self.machine.capabilities);
        let low = page_or(op.d, usual & !0xfff)
            | (usual & 0xfff ^ u64::from(op.b & 0x1f))
            | u64::from(op.c % 8) << 9;
        let high = if op.c & 0x80 != 0 {
            op.value & 0xf_ffff
        } else {
            0
        };
        self.put_all(address, op.flipped([low, high, 0, 0]));
    }

    /// `a`: which directory; `b`: the entry; `c`: not present if odd; `d`: the PASID table's page, 0 for
    /// its own.
    fn directory_entry(&mut self, op: &Op) {
        let number = usize::from(op.a % 2);
        let own = PASID_TABLES[number][usize::from(op.b % 2)];
        let entry = page_or(op.d, own) | u64::from(op.c & 1 == 0);
        let address = DIRECTORIES[number] + u64::from(op.b) * 8;
        self.put_all(address, op.flipped([entry]));
    }

    /// `a`: bit 0 the directory, above it the PASID's place; `b`: PGTT; `c`: sets of tables, and
    /// flags of the third qword; `d`: the topmost table's page, 0 for its own; `value`: the domain, 0 for the
    /// usual one.
    fn pasid_entry(&mut self, op: &Op) {
        let pasid = pick(&PASIDS, op.a >> 1);
        let address = pasid_entry(usize::from(op.a & 1), pasid);
        let (first, second) = (usize::from(op.c & 1), usize::from(op.c >> 1 & 1));
        let pgtt = u64::from(op.b % 8);
        let mut words = [0; 8];
        if pgtt != 0 {
            let [zero, one, two] = pasid_words(pgtt, first, second, self.levels);
            words[..3].copy_from_slice(&[zero, one, two]);
            words[2] |= match op.c >> 2 & 0xf {
                flags if flags & 8 != 0 => u64::from(flags & 7) << 4,
                flags => u64::from(flags & 3) | u64::from(flags & 4) << 5,
            };
        }
        if op.d != 0 {
            let page = page_or(op.d, 0);
            words[2] = words[2] & 0xfff | page;
            if pgtt == 2 {
                words[0] = words[0] & 0xfff | page;
            }
        }
        if op.value & 0xffff != 0 {
            words[1] = words[1] & !0xffff | op.value & 0xffff;
        }
        self.put_all(address, op.flipped(words));
    }

    /// `a`: bit 0 the stage, bit 1 the set, above them the level; `b`: the entry; `c`: flags that are not as usual;
    /// `d`: the page it leads to, 0 for the table below.
    fn paging_entry(&mut self, op: &Op) {
        let level = 1 + u32::from(op.a >> 2) % 5;
        let set = usize::from(op.a >> 1 & 1);
        let second = op.a & 1 != 0;
        let (base, usual) = if second {
            (SECOND_SETS[set], 0b11)
        } else {
            (FIRST_SETS[set], PWU)
        };
        let below = if level > 1 {
            table(base, level - 1)
        } else {
            world::DATA
        };
        let entry = page_or(op.d, below) | (usual ^ u64::from(op.c));
        let address = table(base, level) + u64::from(op.b) * 8;
        self.put_all(address, op.flipped([entry ^ op.value << 12]));
    }

    /// `a`: the entry; `b`: its vector; `c`: trigger, delivery and validation; `d`: the requester, 0 for none;
    /// `value`: bits that are not as usual.
    fn interrupt_entry(&mut self, op: &Op) {
        let low = 1 | u64::from(op.b) << 16 | u64::from(op.c & 0x3f) << 2 | 1 << 40;
        let high = if op.d == 0 {
            0
        } else {
            u64::from(op.d) | u64::from(op.c >> 6) << 18
        };
        let address = INTERRUPTS + u64::from(op.a % 16) * 16;
        self.put_all(address, op.flipped([low ^ op.value, high]));
    }
}
