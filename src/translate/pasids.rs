//! The PASID tables of a device: which PASIDs can be translated, and how.

use super::TableMemory;
use super::scalable::{Context, PasidEntry, context_entry, pasid_table, root_entry};
use super::tables::{Capabilities, Translated, entry_address};
use crate::spec::pasid::{
    DIRECTORY_ENTRY_SIZE, DirectoryEntry, PASID_ENTRY_QWORDS, PASID_TABLE_ENTRIES, PasidEntry0,
};
use crate::spec::registers::{RootTableAddress, TableMode};

/// Directory entries that are read at a time.
const PIECE: u32 = 64;

/// Pieces of the directory, and PASID tables, that are visited at a time at most.
const AT_A_TIME: u32 = 16;

/// Qwords of a PASID table.
const TABLE_QWORDS: usize = PASID_TABLE_ENTRIES as usize * PASID_ENTRY_QWORDS;

/// The PASID tables that a context entry leads to.
pub struct PasidTables {
    context: Context,
    /// FPD of the context entry.
    fault_disable: bool,
    /// There are none from this one on.
    end: u32,
}

impl PasidTables {
    /// Those for requests with PASID of a device; None if it can make none.
    pub fn of<M: TableMemory + ?Sized>(
        memory: &M,
        capabilities: &Capabilities,
        root: RootTableAddress,
        source_id: u16,
    ) -> Option<Self> {
        let ecap = capabilities.ecap;
        if TableMode::from(root) != TableMode::Scalable || !ecap.scalable_mode() || !ecap.pasid() {
            return None;
        }
        let mut fault_disable = false;
        let table = root_entry(memory, capabilities, root, source_id).ok()?;
        let context =
            context_entry(memory, capabilities, table, source_id, &mut fault_disable).ok()?;
        let of_directory = PASID_TABLE_ENTRIES << context.low.directory_size().saturating_add(7);
        context.low.pasid_enable().then_some(Self {
            context,
            fault_disable,
            end: of_directory.min(2 << ecap.pasid_size()),
        })
    }

    /// Visit those from `from`, a multiple of 64, that looking up does not refuse, in order
    /// and for a while; gives the PASID to go on with, or None at the end. A directory entry
    /// that is not present is passed over with its 64 PASIDs.
    pub fn visit<M: TableMemory + ?Sized>(
        &self,
        memory: &M,
        capabilities: &Capabilities,
        from: u32,
        mut visit: impl FnMut(&Translated),
    ) -> Option<u32> {
        let address = self.context.low.directory_address();
        let last = self.end.div_ceil(PASID_TABLE_ENTRIES);
        let mut directory = [0; PIECE as usize];
        let (mut pieces, mut tables) = (0_u32, 0_u32);
        let mut index = from / PASID_TABLE_ENTRIES;
        while index < last {
            if pieces >= AT_A_TIME {
                return Some(index.saturating_mul(PASID_TABLE_ENTRIES));
            }
            pieces = pieces.saturating_add(1);
            let count = last
                .saturating_sub(index)
                .min(PIECE.saturating_sub(index % PIECE));
            let piece = directory.get_mut(..count as usize).unwrap_or_default();
            let at = entry_address(address, index.into(), DIRECTORY_ENTRY_SIZE);
            read_present(memory, at, piece, 1);
            // Mostly there is none.
            let any = piece.iter().fold(0, |any, entry| any | entry);
            if !DirectoryEntry::from_bits(any).present() {
                index = index.saturating_add(count);
                continue;
            }
            for &entry in &*piece {
                let entry = DirectoryEntry::from_bits(entry);
                if entry.present() {
                    if tables >= AT_A_TIME {
                        return Some(index.saturating_mul(PASID_TABLE_ENTRIES));
                    }
                    tables = tables.saturating_add(1);
                    let first = index.saturating_mul(PASID_TABLE_ENTRIES);
                    self.visit_table(memory, capabilities, entry, first, &mut visit);
                }
                index = index.saturating_add(1);
            }
        }
        None
    }

    /// Visit those of one directory entry, the first of which is `first`.
    fn visit_table<M: TableMemory + ?Sized>(
        &self,
        memory: &M,
        capabilities: &Capabilities,
        entry: DirectoryEntry,
        first: u32,
        visit: &mut impl FnMut(&Translated),
    ) {
        let mut fault_disable = self.fault_disable;
        let Ok(address) = pasid_table(capabilities, entry, &mut fault_disable) else {
            return;
        };
        let mut table = [0; TABLE_QWORDS];
        read_present(memory, address, &mut table, PASID_ENTRY_QWORDS);
        let mut entries = table.as_slice();
        for pasid in first..self.end {
            let Some((&qwords, rest)) = entries.split_first_chunk::<PASID_ENTRY_QWORDS>() else {
                break;
            };
            entries = rest;
            if !PasidEntry0::from_bits(qwords[0]).present() {
                continue;
            }
            let mut fault_disable = fault_disable;
            let translated = PasidEntry::decode(capabilities, qwords, &mut fault_disable)
                .and_then(|entry| self.context.through(capabilities, pasid, &entry));
            if let Ok(translated) = translated {
                visit(&Translated {
                    fault_disable,
                    ..translated
                });
            }
        }
    }
}

/// Read entries of `size` qwords; those that cannot be read are as if not present, as
/// looking them up is refused, too.
fn read_present<M: TableMemory + ?Sized>(
    memory: &M,
    address: u64,
    entries: &mut [u64],
    size: usize,
) {
    if memory.read_into(address, entries).is_ok() {
        return;
    }
    let mut at = address;
    for entry in entries.chunks_mut(size) {
        if memory.read_into(at, entry).is_err() {
            entry.fill(0);
        }
        at = at.wrapping_add(size_of_val(entry) as u64);
    }
}

#[cfg(test)]
mod tests;
