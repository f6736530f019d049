//! Which PASIDs of a device have a present entry.

use super::TableMemory;
use super::scalable::{context_entry, root_entry};
use super::tables::{Capabilities, entry_address};
use crate::spec::pasid::{
    DIRECTORY_ENTRY_SIZE, DirectoryEntry, PASID_ENTRY_SIZE, PASID_TABLE_ENTRIES, PasidEntry0,
};
use crate::spec::registers::{RootTableAddress, TableMode};

/// The PASIDs of requests with PASID of a device that have a present PASID entry, in
/// order, at most `limit` of them. Directory entries that are not present are passed
/// over 64 PASIDs at a time; what is wrong with an entry is left to looking it up.
pub fn present<M: TableMemory + ?Sized>(
    memory: &M,
    capabilities: &Capabilities,
    root: RootTableAddress,
    source_id: u16,
    limit: usize,
) -> Vec<u32> {
    let mut found = Vec::new();
    if TableMode::from(root) != TableMode::Scalable || !capabilities.ecap.pasid() {
        return found;
    }
    let context = root_entry(memory, capabilities, root, source_id)
        .and_then(|table| context_entry(memory, capabilities, table, source_id, &mut false));
    let Some(low) = context
        .ok()
        .map(|context| context.low)
        .filter(|low| low.pasid_enable())
    else {
        return found;
    };
    let pasids = 2_u32 << capabilities.ecap.pasid_size();
    let entries = (pasids / PASID_TABLE_ENTRIES)
        .max(1)
        .min(1 << low.directory_size().saturating_add(7));
    for index in 0..entries {
        let at = entry_address(low.directory_address(), index.into(), DIRECTORY_ENTRY_SIZE);
        let entry = memory
            .read(at)
            .map_or(DirectoryEntry::new(), DirectoryEntry::from_bits);
        if !entry.present() {
            continue;
        }
        for slot in 0..PASID_TABLE_ENTRIES {
            let at = entry_address(entry.address(), slot.into(), PASID_ENTRY_SIZE);
            let present = memory
                .read(at)
                .is_ok_and(|first| PasidEntry0::from_bits(first).present());
            let pasid = index.wrapping_mul(PASID_TABLE_ENTRIES).wrapping_add(slot);
            if !present || pasid >= pasids {
                continue;
            }
            if found.len() >= limit {
                return found;
            }
            found.push(pasid);
        }
    }
    found
}
