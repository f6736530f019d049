//! The first-stage page format (3.6, 9.7): the processor's own tables of 4 or 5
//! levels.

use super::walk::{PageFormat, Plain, Rights};
use super::{Access, Diagnostic, Fault, Permissions, TableError};
use crate::spec::fault::FaultReason;
use crate::spec::paging::FirstStageEntry;

/// First-stage tables as the unit's capabilities and the PASID entry allow them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FirstStage {
    /// Table levels: 4, or 5 with CAP.FS5LP.
    pub levels: u32,
    /// CAP.FS1GP: 1 GiB pages.
    pub huge_pages: bool,
    /// Bits in a guest-physical address; those above are reserved in entries.
    pub address_width: u32,
    /// WPE: supervisor requests need R/W to write.
    pub write_protect: bool,
    /// NXE: XD denies execution.
    pub no_execute: bool,
    /// SMEP: supervisor requests cannot execute user pages.
    pub supervisor_execute_prevention: bool,
    /// EAFE: set EA along with A.
    pub extended_accessed: bool,
    /// PWSNP: walks snoop, so that bits can be set.
    pub snoop: bool,
}

impl FirstStage {
    /// Tables without anything special: user requests, snooped walks.
    pub fn new(levels: u32, huge_pages: bool, address_width: u32) -> Self {
        Self {
            levels,
            huge_pages,
            address_width,
            write_protect: false,
            no_execute: false,
            supervisor_execute_prevention: false,
            extended_accessed: false,
            snoop: true,
        }
    }
}

/// Bits of an entry that hold an address.
const ADDRESS_BITS: u64 = 0x000f_ffff_ffff_f000;

/// Level of 2 MiB pages, and of 1 GiB pages.
const LEVEL_2M: u32 = 2;
const LEVEL_1G: u32 = 3;

impl FirstStage {
    /// Bits of an address that no memory has.
    fn beyond_width(&self) -> u64 {
        ADDRESS_BITS & u64::MAX.checked_shl(self.address_width).unwrap_or(0)
    }

    /// Bits that must be 0 in a present entry.
    fn reserved_bits(&self, entry: FirstStageEntry, level: u32) -> u64 {
        let by_level = match (level, entry.page_size()) {
            (1, _) | (_, false) => 0,
            (LEVEL_2M, true) => 0x001f_e000,
            (LEVEL_1G, true) if self.huge_pages => 0x3fff_e000,
            // PS itself is reserved.
            (_, true) => 0x80,
        };
        self.beyond_width() | by_level
    }

    /// The reasons for a table that a second stage keeps from being accessed.
    fn nested_fault(error: TableError, denied: FaultReason) -> Option<Fault> {
        match error {
            TableError::Denied => Some(Fault::new(denied, Diagnostic::NestedTableDenied)),
            TableError::Refused(fault) => Some(fault),
            TableError::NotRam | TableError::ReadOnly => None,
        }
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

    fn plain(&self) -> Plain {
        let set = FirstStageEntry::new()
            .with_present(true)
            .with_accessed(true)
            .with_extended_accessed(self.extended_accessed);
        let page = FirstStageEntry::new().with_page_size(true);
        Plain {
            set: set.into_bits(),
            clear: page.into_bits() | self.beyond_width(),
            denies: FirstStageEntry::new()
                .with_execute_disable(true)
                .into_bits(),
        }
    }

    fn check_entry(&self, entry: u64, level: u32, _access: Access) -> Result<(), Fault> {
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

    fn rights(&self, entry: u64) -> Rights {
        let entry = FirstStageEntry::from_bits(entry);
        Rights::new()
            .with_read(true)
            .with_write(entry.writable())
            .with_execute(!(self.no_execute && entry.execute_disable()))
            .with_user(entry.user())
    }

    fn permissions(&self, common: Rights, leaf: u64, access: Access) -> Permissions {
        let global = FirstStageEntry::from_bits(leaf).global();
        if access.privileged() {
            Permissions::ALL
                .with_write(common.write() || !self.write_protect)
                .with_execute(
                    common.execute() && !(self.supervisor_execute_prevention && common.user()),
                )
                .with_privileged(true)
                .with_global(global)
        } else {
            Permissions::ALL
                .with_read(common.user())
                .with_write(common.user() && common.write())
                .with_execute(common.user() && common.execute())
                .with_global(global)
        }
    }

    fn check_access(
        &self,
        common: Rights,
        granted: Permissions,
        access: Access,
    ) -> Result<(), Fault> {
        if !access.privileged() && !common.user() {
            Err(Fault::new(
                FaultReason::Privilege,
                Diagnostic::FirstStageSupervisor,
            ))
        } else if access.execute() && !granted.execute() {
            Err(Fault::new(
                FaultReason::NoExecute,
                Diagnostic::FirstStageNoExecute,
            ))
        } else if access.write() && !granted.write() {
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
            .with_extended_accessed(entry.extended_accessed() || self.extended_accessed)
            .with_dirty(entry.dirty() || (leaf && write))
            .into_bits()
    }

    fn unmarkable(&self) -> Option<Fault> {
        (!self.snoop).then_some(Fault::new(
            FaultReason::FirstStageNoSnoop,
            Diagnostic::AccessedDirtyNoSnoop,
        ))
    }

    fn is_dirty(&self, leaf: u64) -> bool {
        FirstStageEntry::from_bits(leaf).dirty()
    }

    fn read_fault(&self, level: u32, error: TableError) -> Fault {
        let (access, denied) = if level == self.levels {
            (
                FaultReason::FirstStageRootAccess,
                FaultReason::NestedRootRead,
            )
        } else {
            (FaultReason::FirstStageAccess, FaultReason::NestedRead)
        };
        Self::nested_fault(error, denied)
            .unwrap_or(Fault::new(access, Diagnostic::FirstStageAccess))
    }

    fn mark_fault(&self, level: u32, error: TableError) -> Fault {
        match error {
            TableError::NotRam => self.read_fault(level, error),
            _ => Self::nested_fault(error, FaultReason::NestedWrite).unwrap_or(Fault::new(
                FaultReason::AccessedDirty,
                Diagnostic::AccessedDirtyReadOnly,
            )),
        }
    }

    fn contention(&self) -> Fault {
        Fault::new(
            FaultReason::AccessedDirty,
            Diagnostic::AccessedDirtyContended,
        )
    }
}
