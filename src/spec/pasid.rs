//! PASID directory and PASID table entries (sections 9.5 and 9.6).

use bitfield_struct::bitfield;

/// Scalable-mode PASID directory entry (9.5).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct DirectoryEntry {
    /// P: present.
    pub present: bool,
    /// FPD: do not record faults of these PASIDs.
    pub fault_disable: bool,
    #[bits(10)]
    pub reserved: u16,
    /// SMPTBLPTR: address of the PASID table, bits 63:12.
    #[bits(52)]
    pub table: u64,
}

impl DirectoryEntry {
    /// Byte address of the PASID table.
    pub fn address(self) -> u64 {
        self.into_bits() & !0xfff
    }
}

/// First qword of a scalable-mode PASID table entry (9.6).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct PasidEntry0 {
    /// P: present.
    pub present: bool,
    /// FPD: do not record faults of this PASID.
    pub fault_disable: bool,
    /// AW: second-stage width, 1 39-bit, 2 48-bit, 3 57-bit.
    #[bits(3)]
    pub address_width: u8,
    /// SSEE: second-stage execute permission.
    pub second_stage_execute: bool,
    /// PGTT: see [`TranslationType`].
    #[bits(3)]
    pub translation_type: u8,
    /// SSADE: second-stage accessed and dirty bits.
    pub second_stage_accessed_dirty: bool,
    #[bits(2)]
    pub reserved: u8,
    /// SSPTPTR: address of the second-stage table, bits 63:12.
    #[bits(52)]
    pub second_stage_table: u64,
}

/// Second qword of a scalable-mode PASID table entry (9.6).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct PasidEntry1 {
    /// DID: domain ID.
    pub domain_id: u16,
    #[bits(7)]
    pub reserved: u8,
    /// PWSNP: table walks snoop.
    pub page_walk_snoop: bool,
    /// PGSNP: requests snoop.
    pub page_snoop: bool,
    /// CD: cache disable.
    pub cache_disable: bool,
    /// EMTE: extended memory type enable.
    pub memory_type_enable: bool,
    /// EMT: extended memory type.
    #[bits(3)]
    pub memory_type: u8,
    /// PWT: page-level write-through.
    pub write_through: bool,
    /// PCD: page-level cache disable.
    pub page_cache_disable: bool,
    /// PAT: page attribute table.
    pub page_attributes: u32,
}

/// Third qword of a scalable-mode PASID table entry (9.6). The fourth to eighth
/// qwords are reserved.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct PasidEntry2 {
    /// SRE: supervisor requests.
    pub supervisor_request: bool,
    /// ERE: execute requests.
    pub execute_request: bool,
    /// FSPM: first-stage paging mode, 0 4-level, 1 5-level.
    #[bits(2)]
    pub paging_mode: u8,
    /// WPE: write protection holds for supervisor requests.
    pub write_protect: bool,
    /// NXE: no-execute.
    pub no_execute: bool,
    /// SMEP: supervisor-mode execution prevention.
    pub supervisor_execute_prevention: bool,
    /// EAFE: extended accessed flag.
    pub extended_accessed: bool,
    #[bits(4)]
    pub reserved: u8,
    /// FSPTPTR: address of the first-stage table, bits 63:12.
    #[bits(52)]
    pub first_stage_table: u64,
}

impl PasidEntry0 {
    /// Byte address of the second-stage table.
    pub fn second_stage_address(self) -> u64 {
        self.into_bits() & !0xfff
    }
}

impl PasidEntry2 {
    /// Byte address of the first-stage table.
    pub fn first_stage_address(self) -> u64 {
        self.into_bits() & !0xfff
    }
}

/// PASID granular translation types, PGTT (9.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum TranslationType {
    /// 001b.
    FirstStage = 1,
    /// 010b.
    SecondStage = 2,
    /// 011b.
    Nested = 3,
    /// 100b.
    PassThrough = 4,
}

impl TranslationType {
    /// The type of a PGTT value, None for the reserved ones.
    pub fn from_pgtt(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::FirstStage),
            2 => Some(Self::SecondStage),
            3 => Some(Self::Nested),
            4 => Some(Self::PassThrough),
            _ => None,
        }
    }
}

/// Bytes in a PASID directory entry.
pub const DIRECTORY_ENTRY_SIZE: u64 = 8;

/// Bytes in a PASID table entry.
pub const PASID_ENTRY_SIZE: u64 = 64;

/// Qwords in a PASID table entry.
pub const PASID_ENTRY_QWORDS: usize = 8;

/// PASID entries in one PASID table: the directory is indexed by PASID bits 19:6.
pub const PASID_TABLE_ENTRIES: u32 = 64;
