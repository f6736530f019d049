//! Root and context entries of legacy mode (sections 9.1 and 9.3) and of scalable
//! mode (9.2 and 9.4).

use bitfield_struct::bitfield;

/// Half of a scalable-mode root entry (9.2): the low qword points to the context
/// table of devfn 0 to 127, the high qword to that of 128 to 255.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct RootEntryHalf {
    /// LP or UP: present.
    pub present: bool,
    #[bits(11)]
    pub reserved: u16,
    /// LCTP or UCTP: address of the context table, bits 63:12.
    #[bits(52)]
    pub table: u64,
}

impl RootEntryHalf {
    /// Byte address of the context table.
    pub fn address(self) -> u64 {
        self.into_bits() & !0xfff
    }
}

/// First qword of a scalable-mode context entry (9.4).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct ContextLow {
    /// P: present.
    pub present: bool,
    /// FPD: do not record faults of this device.
    pub fault_disable: bool,
    /// DTE: device TLB.
    pub device_tlb: bool,
    /// PASIDE: requests with PASID.
    pub pasid_enable: bool,
    /// PRE: page requests.
    pub page_request: bool,
    #[bits(4)]
    pub reserved: u8,
    /// PDTS: the PASID directory has 2^(PDTS + 7) entries.
    #[bits(3)]
    pub directory_size: u8,
    /// PASIDDIRPTR: address of the PASID directory, bits 63:12.
    #[bits(52)]
    pub directory: u64,
}

impl ContextLow {
    /// Byte address of the PASID directory.
    pub fn directory_address(self) -> u64 {
        self.into_bits() & !0xfff
    }
}

/// Second qword of a scalable-mode context entry (9.4). The third and fourth
/// qwords are reserved.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct ContextHigh {
    /// RID_PASID: PASID of requests without one (with ECAP.RPS).
    #[bits(20)]
    pub rid_pasid: u32,
    /// RID_PRIV: privilege of requests without PASID (with ECAP.RPRIVS).
    pub rid_privilege: bool,
    #[bits(43)]
    pub reserved: u64,
}

/// Low qword of a legacy-mode root entry (9.1). The high one is reserved.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct LegacyRootLow {
    /// P: present.
    pub present: bool,
    #[bits(11)]
    pub reserved: u16,
    /// CTP: address of the context table, bits 63:12.
    #[bits(52)]
    pub table: u64,
}

impl LegacyRootLow {
    /// Byte address of the context table.
    pub fn address(self) -> u64 {
        self.into_bits() & !0xfff
    }
}

/// Low qword of a legacy-mode context entry (9.3).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct LegacyContextLow {
    /// P: present.
    pub present: bool,
    /// FPD: do not record faults of this device.
    pub fault_disable: bool,
    /// TT: 0 untranslated requests, 1 all requests, 2 pass-through.
    #[bits(2)]
    pub translation_type: u8,
    pub reserved: u8,
    /// SSPTPTR: address of the second-stage table, bits 63:12.
    #[bits(52)]
    pub second_stage_table: u64,
}

impl LegacyContextLow {
    /// Byte address of the second-stage table.
    pub fn second_stage_address(self) -> u64 {
        self.into_bits() & !0xfff
    }
}

/// High qword of a legacy-mode context entry (9.3).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct LegacyContextHigh {
    /// AW: width of the second stage, 1 39-bit, 2 48-bit, 3 57-bit.
    #[bits(3)]
    pub address_width: u8,
    /// Software's own.
    #[bits(4)]
    pub available: u8,
    pub reserved0: bool,
    /// DID: domain ID.
    pub domain_id: u16,
    #[bits(40)]
    pub reserved1: u64,
}

/// Bytes in a legacy-mode context entry.
pub const LEGACY_CONTEXT_ENTRY_SIZE: u64 = 16;

/// Bytes in a root entry.
pub const ROOT_ENTRY_SIZE: u64 = 16;

/// Bytes in a scalable-mode context entry.
pub const CONTEXT_ENTRY_SIZE: u64 = 32;
