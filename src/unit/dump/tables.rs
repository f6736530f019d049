//! Root, context and PASID entries, as Linux's `dmar_translation_struct` lists
//! them: one line for each present PASID entry, or in legacy mode for each present
//! context entry.

use super::{Lines, NAME, device_name};
use crate::Result;
use crate::memory::GuestMemory;
use crate::spec::pasid::{
    DIRECTORY_ENTRY_SIZE, DirectoryEntry, PASID_ENTRY_SIZE, PASID_TABLE_ENTRIES,
};
use crate::spec::registers::{RootTableAddress, TableMode};
use crate::spec::root_context::{
    CONTEXT_ENTRY_SIZE, ContextLow, LEGACY_CONTEXT_ENTRY_SIZE, ROOT_ENTRY_SIZE, RootEntryHalf,
};
use crate::unit::Unit;

/// P is bit 0 of the first qword of every entry.
const PRESENT: u64 = 1;

/// Smallest PASID directory: 2^7 entries (9.4).
const SMALLEST_DIRECTORY: u64 = 1 << 7;

impl Unit {
    pub(super) fn dump_tables(&self, device: Option<u32>, lines: &mut Lines) -> Result<()> {
        let only = device.map(|handle| self.source_id_of(handle)).transpose()?;
        let control = self.control.get();
        if !control.enabled {
            lines.push(format!("DMA Remapping is not enabled on {NAME}"));
            return Ok(());
        }
        let root = control.root.address();
        lines.push(format!("IOMMU {NAME}: Root Table Address: {root:#x}"));
        lines.push("B.D.F\tRoot_entry\t\t\t\tContext_entry\t\t\t\tPASID\tPASID_table_entry");
        let mut walk = Walk {
            memory: &self.memory,
            root: control.root,
            scalable: TableMode::from(control.root) == TableMode::Scalable,
            lines,
        };
        match only {
            Some(source_id) => walk.device(source_id),
            None => walk.everything(),
        }
        lines.push("");
        Ok(())
    }
}

struct Walk<'a> {
    memory: &'a GuestMemory,
    root: RootTableAddress,
    scalable: bool,
    lines: &'a mut Lines,
}

impl Walk<'_> {
    fn everything(&mut self) {
        for source_id in 0..=u16::MAX {
            if self.lines.is_cut() {
                return;
            }
            self.device(source_id);
        }
    }

    /// Entry `index` of a table of entries of `size` bytes, if it is present: two
    /// qwords of it.
    fn entry(&mut self, table: u64, index: u64, size: u64) -> Option<[u64; 2]> {
        if !self.lines.spend_entry() {
            return None;
        }
        let address = table.wrapping_add(index.wrapping_mul(size));
        self.memory.read_qwords::<2>(address).ok()
    }

    fn device(&mut self, source_id: u16) {
        let [bus, devfn] = source_id.to_be_bytes();
        let Some([low, high]) = self.entry(self.root.address(), bus.into(), ROOT_ENTRY_SIZE) else {
            return;
        };
        let (half, index, size) = if !self.scalable {
            (low, devfn, LEGACY_CONTEXT_ENTRY_SIZE)
        } else {
            let half = if devfn < 0x80 { low } else { high };
            (half, devfn & 0x7f, CONTEXT_ENTRY_SIZE)
        };
        let half = RootEntryHalf::from_bits(half);
        if !half.present() {
            return;
        }
        let Some([context_low, context_high]) = self.entry(half.address(), index.into(), size)
        else {
            return;
        };
        if context_low & PRESENT == 0 {
            return;
        }
        let start = format!(
            "{}\t{high:#018x}:{low:#018x}\t{context_high:#018x}:{context_low:#018x}\t",
            device_name(source_id)
        );
        if self.scalable {
            self.directory(&start, ContextLow::from_bits(context_low));
        } else {
            // There is no PASID: -1, as Linux has it.
            self.lines
                .push(format!("{start}{}", pasid_text(-1, [0; 3])));
        }
    }

    fn directory(&mut self, start: &str, context: ContextLow) {
        for index in 0..SMALLEST_DIRECTORY << context.directory_size() {
            if !self.lines.spend_entry() {
                return;
            }
            let at = index.wrapping_mul(DIRECTORY_ENTRY_SIZE);
            let Ok(entry) = self
                .memory
                .read_u64(context.directory_address().wrapping_add(at))
            else {
                continue;
            };
            let entry = DirectoryEntry::from_bits(entry);
            if entry.present() {
                self.pasid_table(start, index, entry.address());
            }
        }
    }

    fn pasid_table(&mut self, start: &str, directory_index: u64, table: u64) {
        for index in 0..u64::from(PASID_TABLE_ENTRIES) {
            if !self.lines.spend_entry() {
                return;
            }
            let at = table.wrapping_add(index.wrapping_mul(PASID_ENTRY_SIZE));
            let Ok(qwords) = self.memory.read_qwords::<3>(at) else {
                continue;
            };
            let [first, ..] = qwords;
            if first & PRESENT != 0 {
                let pasid = directory_index
                    .wrapping_mul(u64::from(PASID_TABLE_ENTRIES))
                    .wrapping_add(index);
                let pasid = i64::try_from(pasid).unwrap_or(-1);
                self.lines
                    .push(format!("{start}{}", pasid_text(pasid, qwords)));
            }
        }
    }
}

fn pasid_text(pasid: i64, [first, second, third]: [u64; 3]) -> String {
    format!("{pasid:<6}\t{third:#018x}:{second:#018x}:{first:#018x}")
}
