//! The interrupt remapping table, as Linux's `ir_translation_struct` lists it.

use super::{Lines, NAME, device_name};
use crate::spec::interrupt::{ENTRY_SIZE, EntryHigh, EntryLow};
use crate::unit::Unit;

impl Unit {
    /// The table in force, so what Linux lists as long as it has set the table that it
    /// fills. Of posted interrupts, which are not reported, there is nothing to list.
    pub(super) fn dump_interrupts(&self, lines: &mut Lines) {
        if self.capabilities.ecap.interrupt_remapping() {
            lines.push(format!("Remapped Interrupt supported on IOMMU: {NAME}"));
            let control = *self.interrupts.read();
            match control.table.filter(|_| control.enabled) {
                Some(table) => {
                    lines.push(format!(" IR table address:{:x}", table.address()));
                    lines.push(" Entry SrcID   DstID    Vct IRTE_high\t\tIRTE_low");
                    for index in 0..table.entries() {
                        self.interrupt_entry(table.address(), index, lines);
                    }
                }
                None => lines.push("Interrupt Remapping is not enabled"),
            }
            lines.push("");
        }
        lines.push("****");
        lines.push("");
    }

    fn interrupt_entry(&self, table: u64, index: u32, lines: &mut Lines) {
        let address = table.wrapping_add(u64::from(index).wrapping_mul(ENTRY_SIZE));
        let Ok([low, high]) = self.memory.read_qwords::<2>(address) else {
            return;
        };
        let entry = EntryLow::from_bits(low);
        if !entry.present() || entry.posted() {
            return;
        }
        lines.push(format!(
            " {index:<5} {} {:08x} {:02x}  {high:016x}\t{low:016x}",
            device_name(EntryHigh::from_bits(high).source_id()),
            entry.destination(),
            entry.vector(),
        ));
    }
}
