//! The second-stage page format (3.7, 9.8): tables of 3, 4 or 5 levels, in legacy
//! mode and in scalable mode, alone or below a first stage.

use super::tables::Capabilities;
use super::walk::{PageFormat, Plain, Rights};
use super::{Access, Diagnostic, Fault, Permissions, TableError, is_beyond};
use crate::spec::fault::FaultReason;
use crate::spec::paging::SecondStageEntry;

/// Where the second stage stands; decides which reason a refusal has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Legacy mode.
    Legacy,
    /// Scalable mode, alone.
    Alone,
    /// Scalable mode, for the addresses that a first stage gives.
    Nested,
}

/// Second-stage tables as the unit's capabilities and the context or PASID entry
/// allow them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SecondStage {
    /// Table levels: 3, 4 or 5, which translate 39, 48 or 57 bits.
    pub levels: u32,
    /// Bits in a physical address; those above are reserved in entries.
    pub address_width: u32,
    /// CAP.SSLPS bit 0: 2 MiB pages.
    pub large_pages: bool,
    /// CAP.SSLPS bit 1: 1 GiB pages.
    pub huge_pages: bool,
    /// ECAP.SC: SNP is not reserved in leaf entries.
    pub snoop_control: bool,
    /// ECAP.DT: TM is not reserved in leaf entries.
    pub transient_mapping: bool,
    /// SSEE: execute requests need X.
    pub execute_enable: bool,
    /// SSADE: set A and D.
    pub accessed_dirty: bool,
    /// PWSNP: walks snoop, so that bits can be set.
    pub snoop: bool,
    /// Where it stands.
    pub role: Role,
}

/// Bits of an entry that hold an address.
const ADDRESS_BITS: u64 = 0x000f_ffff_ffff_f000;

/// PS, SNP and TM.
const PAGE_SIZE_BIT: u64 = 1 << 7;
const SNOOP_BIT: u64 = 1 << 11;
const TRANSIENT_MAPPING_BIT: u64 = 1 << 62;

impl SecondStage {
    /// Tables as the capabilities report them, with nothing that an entry switches on.
    pub fn reported(capabilities: &Capabilities, levels: u32, role: Role) -> Self {
        let (cap, ecap) = (capabilities.cap, capabilities.ecap);
        Self {
            levels,
            address_width: capabilities.address_width,
            large_pages: cap.second_stage_large_pages() & 1 != 0,
            huge_pages: cap.second_stage_large_pages() & 2 != 0,
            snoop_control: ecap.snoop_control(),
            transient_mapping: ecap.device_tlb(),
            execute_enable: false,
            accessed_dirty: false,
            snoop: true,
            role,
        }
    }

    /// Levels of an AW value of a context or PASID entry.
    pub fn levels_of(address_width: u8) -> Option<u32> {
        match address_width {
            1 => Some(3),
            2 => Some(4),
            3 => Some(5),
            _ => None,
        }
    }

    /// Bits of the addresses it translates.
    pub fn width(&self) -> u32 {
        self.levels.saturating_mul(9).saturating_add(12)
    }

    /// Bits of an address that no memory has.
    fn beyond_width(&self) -> u64 {
        ADDRESS_BITS & u64::MAX.checked_shl(self.address_width).unwrap_or(0)
    }

    /// Bits that must be 0 in an entry that points to a table.
    fn reserved_above_leaves(&self) -> u64 {
        self.beyond_width() | SNOOP_BIT | TRANSIENT_MAPPING_BIT
    }

    /// Bits that must be 0 in an entry that permits anything.
    fn reserved_bits(&self, entry: SecondStageEntry, level: u32) -> u64 {
        if !self.is_leaf(entry.into_bits(), level) {
            return self.reserved_above_leaves();
        }
        let by_level = match level {
            1 => 0,
            2 if self.large_pages => 0x001f_f000,
            3 if self.huge_pages => 0x3fff_f000,
            _ => PAGE_SIZE_BIT,
        };
        let snoop = if self.snoop_control { 0 } else { SNOOP_BIT };
        let transient = if self.transient_mapping {
            0
        } else {
            TRANSIENT_MAPPING_BIT
        };
        self.beyond_width() | by_level | snoop | transient
    }

    fn fault(&self, legacy: FaultReason, scalable: FaultReason, diagnostic: Diagnostic) -> Fault {
        let reason = match self.role {
            Role::Legacy => legacy,
            Role::Alone | Role::Nested => scalable,
        };
        Fault::new(reason, diagnostic)
    }

    fn denied(&self, access: Access, diagnostic: Diagnostic) -> Fault {
        let legacy = if access.write() {
            FaultReason::LegacyNoWrite
        } else {
            FaultReason::LegacyNoRead
        };
        self.fault(legacy, FaultReason::SecondStagePermission, diagnostic)
    }
}

impl PageFormat for SecondStage {
    fn check_address(&self, address: u64) -> Result<(), Fault> {
        if !is_beyond(address, self.width()) {
            return Ok(());
        }
        let reason = match self.role {
            Role::Legacy => FaultReason::LegacyBeyondWidth,
            Role::Alone => FaultReason::BeyondWidth,
            Role::Nested => FaultReason::NestedBeyondWidth,
        };
        Err(Fault::new(reason, Diagnostic::BeyondWidth))
    }

    fn levels(&self) -> u32 {
        self.levels
    }

    fn plain(&self) -> Plain {
        let set = SecondStageEntry::new()
            .with_readable(true)
            .with_accessed(self.accessed_dirty);
        Plain {
            set: set.into_bits(),
            clear: PAGE_SIZE_BIT | self.reserved_above_leaves(),
            denies: 0,
        }
    }

    fn check_entry(&self, entry: u64, level: u32, access: Access) -> Result<(), Fault> {
        let entry = SecondStageEntry::from_bits(entry);
        // There is no present bit: an entry that permits nothing maps nothing.
        let executable = self.execute_enable && entry.executable();
        if !entry.readable() && !entry.writable() && !executable {
            return Err(self.denied(access, Diagnostic::SecondStageNotPresent));
        }
        if entry.into_bits() & self.reserved_bits(entry, level) != 0 {
            return Err(self.fault(
                FaultReason::LegacyPagingReserved,
                FaultReason::SecondStageReserved,
                Diagnostic::SecondStageReserved,
            ));
        }
        Ok(())
    }

    fn is_leaf(&self, entry: u64, level: u32) -> bool {
        level <= 1 || SecondStageEntry::from_bits(entry).page_size()
    }

    fn address_of(&self, entry: u64) -> u64 {
        SecondStageEntry::from_bits(entry).address()
    }

    fn rights(&self, entry: u64) -> Rights {
        let entry = SecondStageEntry::from_bits(entry);
        Rights::new()
            .with_read(entry.readable())
            .with_write(entry.writable())
            .with_execute(entry.executable() || !self.execute_enable)
            .with_user(true)
    }

    fn permissions(&self, common: Rights, _leaf: u64, _access: Access) -> Permissions {
        Permissions::ALL
            .with_read(common.read())
            .with_write(common.write())
            .with_execute(common.execute())
    }

    fn check_access(
        &self,
        _common: Rights,
        granted: Permissions,
        access: Access,
    ) -> Result<(), Fault> {
        if access.write() && !granted.write() {
            return Err(self.denied(access, Diagnostic::SecondStageDenied));
        }
        if (access.read() && !granted.read()) || (access.execute() && !granted.execute()) {
            let reading = access.with_write(false);
            return Err(self.denied(reading, Diagnostic::SecondStageDenied));
        }
        Ok(())
    }

    fn mark(&self, entry: u64, leaf: bool, write: bool) -> u64 {
        if !self.accessed_dirty {
            return entry;
        }
        let entry = SecondStageEntry::from_bits(entry).with_accessed(true);
        entry
            .with_dirty(entry.dirty() || (leaf && write))
            .into_bits()
    }

    fn unmarkable(&self) -> Option<Fault> {
        (!self.snoop).then_some(Fault::new(
            FaultReason::SecondStageNoSnoop,
            Diagnostic::AccessedDirtyNoSnoop,
        ))
    }

    fn is_dirty(&self, leaf: u64) -> bool {
        !self.accessed_dirty || SecondStageEntry::from_bits(leaf).dirty()
    }

    fn read_fault(&self, level: u32, _error: TableError) -> Fault {
        let scalable = if level == self.levels {
            FaultReason::SecondStageRootAccess
        } else {
            FaultReason::SecondStageAccess
        };
        self.fault(
            FaultReason::LegacyPagingAccess,
            scalable,
            Diagnostic::SecondStageAccess,
        )
    }

    fn mark_fault(&self, level: u32, error: TableError) -> Fault {
        match error {
            TableError::NotRam => self.read_fault(level, error),
            _ => Fault::new(
                FaultReason::SecondStageAccessedDirty,
                Diagnostic::AccessedDirtyReadOnly,
            ),
        }
    }

    fn contention(&self) -> Fault {
        Fault::new(
            FaultReason::SecondStageAccessedDirty,
            Diagnostic::AccessedDirtyContended,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_widths_have_levels() {
        assert_eq!(
            [0, 1, 2, 3, 4, 7].map(SecondStage::levels_of),
            [None, Some(3), Some(4), Some(5), None, None]
        );
    }
}
