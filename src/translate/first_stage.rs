//! The first-stage page format (3.6, 9.7): the processor's own 4-level tables.

use super::walk::PageFormat;
use super::{Access, Diagnostic, Fault, Permissions, TableError};
use crate::spec::fault::FaultReason;
use crate::spec::paging::FirstStageEntry;

/// First-stage tables as the unit's capabilities allow them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FirstStage {
    /// Table levels: 4, or 5 with CAP.FS5LP.
    pub levels: u32,
    /// CAP.FS1GP: 1 GiB pages.
    pub huge_pages: bool,
    /// Bits in a guest-physical address; those above are reserved in entries.
    pub address_width: u32,
}

/// Bits of an entry that hold an address.
const ADDRESS_BITS: u64 = 0x000f_ffff_ffff_f000;

/// Level of 2 MiB pages, and of 1 GiB pages.
const LEVEL_2M: u32 = 2;
const LEVEL_1G: u32 = 3;

impl FirstStage {
    /// Bits that must be 0 in a present entry.
    fn reserved_bits(&self, entry: FirstStageEntry, level: u32) -> u64 {
        let beyond_width = ADDRESS_BITS & u64::MAX.checked_shl(self.address_width).unwrap_or(0);
        let by_level = match (level, entry.page_size()) {
            (1, _) | (_, false) => 0,
            (LEVEL_2M, true) => 0x001f_e000,
            (LEVEL_1G, true) if self.huge_pages => 0x3fff_e000,
            // PS itself is reserved.
            (_, true) => 0x80,
        };
        beyond_width | by_level
    }
}

impl PageFormat for FirstStage {
    /// Canonical: all bits from the uppermost translated one on are equal (3.6).
    fn check_address(&self, address: u64) -> Result<(), Fault> {
        let translated = self.levels.saturating_mul(9).saturating_add(12);
        let above = 64_u32.saturating_sub(translated);
        let extended = (address.wrapping_shl(above) as i64).wrapping_shr(above) as u64;
        if extended == address {
            Ok(())
        } else {
            Err(Fault::new(
                FaultReason::NotCanonical,
                Diagnostic::NotCanonical,
            ))
        }
    }

    fn levels(&self) -> u32 {
        self.levels
    }

    fn check_entry(&self, entry: u64, level: u32) -> Result<(), Fault> {
        let entry = FirstStageEntry::from_bits(entry);
        if !entry.present() {
            return Err(Fault::new(
                FaultReason::FirstStageNotPresent,
                Diagnostic::FirstStageNotPresent,
            ));
        }
        if entry.into_bits() & self.reserved_bits(entry, level) != 0 {
            return Err(Fault::new(
                FaultReason::FirstStageReserved,
                Diagnostic::FirstStageReserved,
            ));
        }
        Ok(())
    }

    fn is_leaf(&self, entry: u64, level: u32) -> bool {
        level <= 1 || FirstStageEntry::from_bits(entry).page_size()
    }

    fn address_of(&self, entry: u64) -> u64 {
        FirstStageEntry::from_bits(entry).address()
    }

    /// Requests without PASID are user requests (ECAP.RPRIVS is 0), so a
    /// supervisor page allows nothing.
    fn permissions(&self, entry: u64) -> Permissions {
        let entry = FirstStageEntry::from_bits(entry);
        Permissions {
            read: entry.user(),
            write: entry.user() && entry.writable(),
            ..Permissions::ALL
        }
    }

    fn check_access(&self, granted: Permissions, access: Access) -> Result<(), Fault> {
        if !granted.read {
            Err(Fault::new(
                FaultReason::Privilege,
                Diagnostic::FirstStageSupervisor,
            ))
        } else if access.write && !granted.write {
            Err(Fault::new(
                FaultReason::NoWrite,
                Diagnostic::FirstStageReadOnly,
            ))
        } else {
            Ok(())
        }
    }

    fn mark(&self, entry: u64, leaf: bool, write: bool) -> u64 {
        let entry = FirstStageEntry::from_bits(entry).with_accessed(true);
        entry
            .with_dirty(entry.dirty() || (leaf && write))
            .into_bits()
    }

    fn is_dirty(&self, leaf: u64) -> bool {
        FirstStageEntry::from_bits(leaf).dirty()
    }

    fn access_fault(&self, level: u32, error: TableError) -> Fault {
        match error {
            TableError::ReadOnly => Fault::new(
                FaultReason::AccessedDirty,
                Diagnostic::AccessedDirtyReadOnly,
            ),
            TableError::NotRam if level == self.levels => Fault::new(
                FaultReason::FirstStageRootAccess,
                Diagnostic::FirstStageAccess,
            ),
            TableError::NotRam => {
                Fault::new(FaultReason::FirstStageAccess, Diagnostic::FirstStageAccess)
            }
        }
    }
}
