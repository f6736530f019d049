//! One translation, entry by entry: what is read on the way, and what comes of it.
//!
//! The unit's own lookup and walk do the reading, through a memory that takes
//! notes, so the dump cannot tell another story than a request would.

use std::cell::RefCell;

use super::entries::{self, Read};
use super::{Lines, device_name};
use crate::Result;
use crate::memory::GuestMemory;
use crate::spec::registers::TableMode;
use crate::translate::stages::{Stages, Tables};
use crate::translate::tables::{Requester, Translated, lookup};
use crate::translate::walk::PageFormat;
use crate::translate::{
    Access, Diagnostic, Fault, Permissions, TableError, TableMemory, is_interrupt_address,
};
use crate::unit::Unit;

impl Unit {
    pub(super) fn dump_walk(
        &self,
        device: u32,
        pasid: Option<u32>,
        address: u64,
        lines: &mut Lines,
    ) -> Result<()> {
        let source_id = self.source_id_of(device)?;
        let with = pasid.map_or(String::new(), |pasid| format!(" with pasid {pasid:x}"));
        lines.push(format!(
            "Device {}{with} address {address:#x}",
            device_name(source_id)
        ));
        let control = self.control.get();
        if !control.enabled {
            lines.push(format!("translation is off: goes to {address:#x}"));
            return Ok(());
        }
        if is_interrupt_address(address) {
            lines.push("the address is in the interrupt range: no DMA");
            return Ok(());
        }
        let memory = Notes {
            memory: &self.memory,
            reads: RefCell::default(),
        };
        let requester = Requester {
            pasid,
            ..Requester::plain(source_id)
        };
        let found = lookup(&memory, &self.capabilities, control.root, requester);
        for text in entries::of_tables(TableMode::from(control.root), &memory.take()) {
            lines.push(text);
        }
        match found {
            Ok(translated) => walk(&memory, &translated, address, lines),
            Err(refused) => {
                let quiet = if refused.fault_disable {
                    ", not recorded (FPD)"
                } else {
                    ""
                };
                lines.push(format!("refused: {}{quiet}", fault_text(refused.fault)));
            }
        }
        Ok(())
    }
}

/// The entries of the stages, and what becomes of reading and writing.
fn walk(memory: &Notes<'_>, translated: &Translated, address: u64, lines: &mut Lines) {
    let stages = &translated.stages;
    let go = |write: bool| {
        let access = Access::new()
            .with_read(!write)
            .with_write(write)
            .with_look(true);
        let verdict = match stages.translate(memory, address, access) {
            Ok(leaf) => {
                let to = leaf.translation();
                format!(
                    "goes to {:#x}, page of {:#x} bytes, may {}",
                    to.address,
                    to.page_size,
                    permission_text(to.permissions)
                )
            }
            Err(fault) => format!("refused: {}", fault_text(fault)),
        };
        (verdict, memory.take())
    };
    let (read, reads) = go(false);
    let (write, _) = go(true);
    stage_entries(stages, &reads, lines);
    if matches!(stages, Stages::PassThrough { .. }) {
        lines.push("pass-through: no tables");
    }
    lines.push(format!("read: {read}"));
    lines.push(format!("write: {write}"));
    if translated.fault_disable {
        lines.push("faults are not recorded (FPD)");
    }
}

/// Which stage and level each entry belongs to follows from the order in which the
/// walk reads them.
fn stage_entries(stages: &Stages, reads: &[Read], lines: &mut Lines) {
    match stages {
        Stages::PassThrough { .. } => {}
        Stages::FirstStage(first) => {
            let mut levels = Levels::new(first);
            for read in reads {
                lines.push(entries::first_stage(levels.level, *read));
                levels.step(read);
            }
        }
        Stages::SecondStage(second) => {
            let mut levels = Levels::new(second);
            for read in reads {
                lines.push(entries::second_stage(levels.level, *read));
                levels.step(read);
            }
        }
        Stages::Nested(first, second) => {
            let mut above = Levels::new(first);
            let mut below = Levels::new(second);
            let mut found = false;
            for read in reads {
                if found {
                    lines.push(entries::first_stage(above.level, *read));
                    above.step(read);
                    below = Levels::new(second);
                    found = false;
                } else {
                    lines.push(entries::second_stage(below.level, *read));
                    found = below.step(read);
                }
            }
        }
    }
}

/// Where a walk down the levels of a stage is.
struct Levels<'a, F> {
    format: &'a F,
    level: u32,
}

impl<'a, F: PageFormat> Levels<'a, F> {
    fn new(tables: &'a Tables<F>) -> Self {
        Self {
            format: &tables.format,
            level: tables.format.levels(),
        }
    }

    /// After this entry: is it the leaf?
    fn step(&mut self, read: &Read) -> bool {
        let leaf = read
            .value
            .is_some_and(|entry| self.format.is_leaf(entry, self.level));
        self.level = self.level.saturating_sub(1);
        leaf
    }
}

fn permission_text(may: Permissions) -> String {
    let granted = [
        (may.read(), "read"),
        (may.write(), "write"),
        (may.execute(), "execute"),
    ];
    let names: Vec<_> = granted
        .iter()
        .filter_map(|&(granted, name)| granted.then_some(name))
        .collect();
    names.join(" ")
}

pub(super) fn fault_text(fault: Fault) -> String {
    let name = Diagnostic::name_of(fault.diagnostic as u32);
    format!(
        "fault {:#x} {}",
        fault.reason.code(),
        name.to_str().unwrap_or_default()
    )
}

/// Guest RAM that notes what is read, and is never written.
struct Notes<'a> {
    memory: &'a GuestMemory,
    reads: RefCell<Vec<Read>>,
}

impl Notes<'_> {
    /// What was read since the last time.
    fn take(&self) -> Vec<Read> {
        self.reads.take()
    }
}

impl TableMemory for Notes<'_> {
    fn read(&self, address: u64) -> core::result::Result<u64, TableError> {
        let result = self.memory.read_u64(address);
        self.reads.borrow_mut().push(Read {
            address,
            value: result.ok(),
        });
        Ok(result?)
    }

    fn compare_exchange(
        &self,
        _address: u64,
        _old: u64,
        _new: u64,
    ) -> core::result::Result<bool, TableError> {
        Err(TableError::ReadOnly)
    }
}
