//! Paging entries (section 9.7 for the first stage, 9.8 for the second).

use bitfield_struct::bitfield;

/// First-stage paging entry at any level (9.7). Bits whose meaning depends on the
/// level are judged by the walker.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct FirstStageEntry {
    /// P: present.
    pub present: bool,
    /// R/W: writable.
    pub writable: bool,
    /// U/S: user.
    pub user: bool,
    /// PWT: page-level write-through.
    pub write_through: bool,
    /// PCD: page-level cache disable.
    pub cache_disable: bool,
    /// A: accessed.
    pub accessed: bool,
    /// D: dirty (leaf entries).
    pub dirty: bool,
    /// PS: the entry maps a large page; PAT in a 4 KiB entry.
    pub page_size: bool,
    /// G: global (leaf entries).
    pub global: bool,
    __: bool,
    /// EA: extended accessed.
    pub extended_accessed: bool,
    __: bool,
    /// Address of the next table or of the page, bits 51:12.
    #[bits(40)]
    pub frame: u64,
    #[bits(11)]
    __: u16,
    /// XD: execute disable.
    pub execute_disable: bool,
}

impl FirstStageEntry {
    /// Byte address of the next table; for a page, its low bits are to be masked.
    pub fn address(self) -> u64 {
        self.into_bits() & 0x000f_ffff_ffff_f000
    }
}

/// Second-stage paging entry at any level (9.8). Bits whose meaning depends on the
/// level are judged by the walker.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct SecondStageEntry {
    /// R: readable.
    pub readable: bool,
    /// W: writable.
    pub writable: bool,
    /// X: executable.
    pub executable: bool,
    /// EMT: extended memory type (leaf entries).
    #[bits(3)]
    pub memory_type: u8,
    /// IPAT: ignore PAT (leaf entries).
    pub ignore_attributes: bool,
    /// PS: the entry maps a large page.
    pub page_size: bool,
    /// A: accessed.
    pub accessed: bool,
    /// D: dirty (leaf entries).
    pub dirty: bool,
    __: bool,
    /// SNP: snoop (leaf entries).
    pub snoop: bool,
    /// Address of the next table or of the page, bits 51:12.
    #[bits(40)]
    pub frame: u64,
    #[bits(10)]
    __: u16,
    /// TM: transient mapping (leaf entries).
    pub transient_mapping: bool,
    __: bool,
}

impl SecondStageEntry {
    /// Byte address of the next table; for a page, its low bits are to be masked.
    pub fn address(self) -> u64 {
        self.into_bits() & 0x000f_ffff_ffff_f000
    }
}
