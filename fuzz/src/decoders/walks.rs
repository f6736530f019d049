//! Walks of tables that an enemy has made, and changes under the walk: they end soon, and what they find is a page.

use std::cell::Cell;
use std::ops::ControlFlow;

use nested_vtd::translate::enumerate::{Budget, runs};
use nested_vtd::translate::first_stage::FirstStage;
use nested_vtd::translate::second_stage::{Role, SecondStage};
use nested_vtd::translate::stages::{Stages, Tables};
use nested_vtd::translate::{Access, TableError, TableMemory, is_interrupt_address};

/// 35 entries of both stages, each stage 16 times at most.
const READS: u64 = 16 * (5 * (1 + 16 * 5) + 16 * 5);

/// Memory full of a few words.
struct Hostile<'a> {
    words: &'a [u64],
    /// What becomes of attempts to set bits.
    fate: u8,
    reads: Cell<u64>,
    writes: Cell<u64>,
    looking: bool,
}

impl TableMemory for Hostile<'_> {
    fn read(&self, address: u64) -> Result<u64, TableError> {
        self.reads.set(self.reads.get() + 1);
        if address >> 40 & 0xff == 0xee {
            return Err(TableError::NotRam);
        }
        let place = (address >> 3 ^ address >> 12 ^ address >> 21) % self.words.len() as u64;
        Ok(self.words[place as usize])
    }

    fn compare_exchange(&self, address: u64, old: u64, new: u64) -> Result<bool, TableError> {
        assert!(!self.looking, "a look sets bits");
        assert_eq!(old & new, old, "bits are cleared");
        self.writes.set(self.writes.get() + 1);
        match self.fate {
            0 => Ok(true),
            1 => Ok(false),
            2 => Err(TableError::ReadOnly),
            3 => Ok(address >> 3 & 1 != 0),
            _ => Ok(self.writes.get() % 3 == 0),
        }
    }
}

/// Options: stages and levels; flags of the formats, two bytes; the access; the fate of writes; words: an address, tables, memory.
pub fn run(options: [u8; 7], words: &[u64]) {
    let [kind, flags, more, asked, fate, ..] = options;
    let [address, table, below, memory @ ..] = words else {
        return;
    };
    if memory.is_empty() {
        return;
    }
    let has = |bits: u8, number: u8| bits >> number & 1 != 0;
    let width = [48, 57, 39, 52][usize::from(more >> 6)];
    let first = Tables {
        table: table & !0xfff,
        format: FirstStage {
            levels: 4 + u32::from(kind >> 3 & 1),
            huge_pages: has(flags, 0),
            address_width: width,
            write_protect: has(flags, 1),
            no_execute: has(flags, 2),
            supervisor_execute_prevention: has(flags, 3),
            extended_accessed: has(flags, 4),
            snoop: !has(flags, 5),
        },
    };
    let second = |role| Tables {
        table: below & !0xfff,
        format: SecondStage {
            levels: 3 + u32::from(kind >> 4) % 3,
            address_width: width,
            large_pages: has(more, 0),
            huge_pages: has(more, 1),
            snoop_control: has(more, 2),
            transient_mapping: has(more, 3),
            execute_enable: has(more, 4),
            accessed_dirty: has(more, 5),
            snoop: !has(flags, 6),
            role,
        },
    };
    let stages = match kind % 4 {
        0 => Stages::FirstStage(first),
        1 => Stages::SecondStage(second(if has(kind, 2) {
            Role::Legacy
        } else {
            Role::Alone
        })),
        2 => Stages::Nested(first, second(Role::Nested)),
        _ => Stages::PassThrough {
            width,
            legacy: has(kind, 2),
        },
    };
    let access = Access::new()
        .with_read(!has(asked, 0) || !has(asked, 1))
        .with_write(has(asked, 1))
        .with_execute(has(asked, 2))
        .with_privileged(has(asked, 3))
        .with_look(has(asked, 4));
    let memory = Hostile {
        words: memory,
        fate: fate % 5,
        reads: Cell::new(0),
        writes: Cell::new(0),
        looking: access.look(),
    };
    let found = stages.find(&memory, *address, access);
    let (reads, writes) = (memory.reads.get(), memory.writes.get());
    assert!(reads <= READS, "{reads} entries were read");
    assert!(writes <= reads, "{writes} entries were marked of {reads}");
    if let Ok(found) = found {
        let page = found.leaf.translation();
        let low = page.page_size - 1;
        assert!(
            [1 << 12, 1 << 21, 1 << 30].contains(&page.page_size),
            "{page:x?}"
        );
        assert_eq!(
            page.address & 0xfff,
            address & 0xfff,
            "{page:x?} of {address:#x}"
        );
        assert_eq!(
            page.address & low,
            address & low,
            "{page:x?} of {address:#x}"
        );
        assert!(!is_interrupt_address(page.address), "{page:x?}");
        let may = page.permissions;
        assert!(may.read() || !access.read(), "{page:x?} for {access:?}");
        assert!(may.write() || !access.write(), "{page:x?} for {access:?}");
        assert!(may.privileged() == access.privileged() || !may.privileged());
        if let Some(table) = found.table {
            assert_eq!(table.address() & 0xfff, 0);
            memory.reads.set(0);
            let again = stages.resume(&memory, table, *address, access);
            assert!(memory.reads.get() <= READS, "{again:x?}");
        }
    }
    enumerate(&memory, &stages, *address);
}

/// Runs come in order, do not overlap, and no more is read than is allowed.
fn enumerate(memory: &Hostile<'_>, stages: &Stages, from: u64) {
    let memory = Hostile {
        words: memory.words,
        fate: 0,
        reads: Cell::new(0),
        writes: Cell::new(0),
        looking: true,
    };
    let budget = Budget::new(2000);
    let last = from.saturating_add(1 << 32);
    let mut end = None;
    let _stop = runs(&memory, stages, from..=last, &budget, &mut |run| {
        assert!(run.length > 0, "{run:x?}");
        let run_last = run.address.checked_add(run.length - 1);
        let run_last = run_last.expect("a run ends within 64 bits");
        assert!(
            run.translated.checked_add(run.length - 1).is_some(),
            "{run:x?}"
        );
        assert!(from <= run.address && run_last <= last, "{run:x?}");
        assert!(
            end.is_none_or(|end| run.address > end),
            "{run:x?} behind {end:x?}"
        );
        assert!(
            run.permissions.read() || run.permissions.write(),
            "{run:x?}"
        );
        for at in [
            run.address,
            run_last,
            run.translated,
            run.translated + (run.length - 1),
        ] {
            assert!(!is_interrupt_address(at), "{run:x?}");
        }
        end = Some(run_last);
        ControlFlow::<()>::Continue(())
    });
    assert!(budget.left() <= 2000);
    // Each entry of a first stage is found through up to five of a second.
    assert!(
        memory.reads.get() <= 2000 * 6 + 600,
        "{} reads",
        memory.reads.get()
    );
}
