//! The leaves of a device's tables with the entries that lead to them, as Linux's
//! `domain_translation_struct` lists them.

use core::ops::{ControlFlow, RangeInclusive};

use super::walk::fault_text;
use super::{Lines, NAME, device_name};
use crate::Result;
use crate::translate::TableMemory;
use crate::translate::enumerate::{Budget, Page, Stop, pages};
use crate::translate::stages::{Stages, Tables, ThroughSecondStage};
use crate::translate::tables::{Requester, lookup};
use crate::translate::walk::PageFormat;
use crate::unit::Unit;

impl Unit {
    pub(super) fn dump_mappings(
        &self,
        device: u32,
        pasid: Option<u32>,
        range: RangeInclusive<u64>,
        lines: &mut Lines,
    ) -> Result<()> {
        let source_id = self.source_id_of(device)?;
        let control = self.control.get();
        if !control.enabled {
            lines.push(format!("DMA Remapping is not enabled on {NAME}"));
            return Ok(());
        }
        let memory = &*self.memory;
        let requester = Requester {
            pasid,
            ..Requester::plain(source_id)
        };
        let mut name = format!("Device 0000:{} ", device_name(source_id));
        let translated = match lookup(memory, &self.capabilities, control.root, requester) {
            Ok(translated) => translated,
            Err(refused) => {
                lines.push(format!("{name}refused: {}", fault_text(refused.fault)));
                return Ok(());
            }
        };
        if !translated.legacy {
            name.push_str(&format!("with pasid {:x} ", translated.pasid));
        }
        match &translated.stages {
            Stages::PassThrough { .. } => lines.push(format!("{name}pass-through")),
            Stages::FirstStage(first) => list(memory, &name, first, range, lines),
            Stages::SecondStage(second) => list(memory, &name, second, range, lines),
            // Linux lists the second stage, which is its own. All of it, as the range is
            // one of first-stage addresses.
            Stages::Nested(first, second) => {
                list(memory, &name, second, 0..=u64::MAX, lines);
                let tables = ThroughSecondStage::new(memory, second, true);
                name.push_str("first stage ");
                list(&tables, &name, first, range, lines);
            }
        }
        Ok(())
    }
}

fn list<M: TableMemory + ?Sized, F: PageFormat>(
    memory: &M,
    name: &str,
    tables: &Tables<F>,
    range: RangeInclusive<u64>,
    lines: &mut Lines,
) {
    lines.push(format!("{name}@{:#x}", tables.table));
    lines.push(format!(
        "{:<17}\t{:<18}\t{:<18}\t{:<18}\t{:<18}\tPTE",
        "IOVA_PFN", "PML5E", "PML4E", "PDPE", "PDE"
    ));
    let width = tables.format.levels().saturating_mul(9).saturating_add(12);
    let budget = Budget::new(lines.entries);
    let done = pages(memory, tables, range, &budget, &mut |page| {
        lines.push(leaf_text(page, width));
        if lines.is_cut() {
            ControlFlow::Break(Stop::Visitor(()))
        } else {
            ControlFlow::Continue(())
        }
    });
    lines.entries = budget.left();
    if done.is_break() {
        lines.cut_entries();
    }
}

/// Linux counts addresses from 0, so those of the upper half are not extended.
fn leaf_text(page: &Page, width: u32) -> String {
    let [pte, pde, pdpe, pml4e, pml5e] = page.path;
    let above = 64_u32.saturating_sub(width);
    let frame = page.address.wrapping_shl(above).wrapping_shr(above) >> 12;
    let mut text = format!("{frame:#015x} |\t{pml5e:#018x}\t{pml4e:#018x}\t{pdpe:#018x}");
    for entry in [pde, pte] {
        if entry != 0 {
            text.push_str(&format!("\t{entry:#018x}"));
        }
    }
    text
}
