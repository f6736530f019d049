//! Invalidation descriptors (section 6.5.2) and their decoding.
//!
//! A descriptor has two qwords, or four in a queue with 256-bit descriptors; the
//! upper two are reserved in every type but the page group response.

use bitfield_struct::bitfield;

use super::registers::QueueErrorInfo;

/// Fields that every descriptor has (6.5.2).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Generic {
    /// Bits 3:0 of the type.
    #[bits(4)]
    pub type_low: u8,
    #[bits(5)]
    __: u8,
    /// Bits 6:4 of the type.
    #[bits(3)]
    pub type_high: u8,
    #[bits(52)]
    __: u64,
}

impl Generic {
    /// The descriptor type.
    pub fn kind(self) -> u8 {
        self.type_low() | (self.type_high() << 4)
    }
}

/// Context-cache invalidate, type 1, low qword (6.5.2.1). The high one is reserved.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct ContextCacheLow {
    #[bits(4)]
    pub type_low: u8,
    /// G: 1 global, 2 domain, 3 device.
    #[bits(2)]
    pub granularity: u8,
    #[bits(3)]
    pub reserved0: u8,
    #[bits(3)]
    pub type_high: u8,
    #[bits(4)]
    pub reserved1: u8,
    /// DID.
    pub domain_id: u16,
    /// SID.
    pub source_id: u16,
    /// FM: function bits of SID to leave out of the comparison.
    #[bits(2)]
    pub function_mask: u8,
    #[bits(14)]
    pub reserved2: u16,
}

/// IOTLB invalidate, type 2, low qword (6.5.2.3).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct IotlbLow {
    #[bits(4)]
    pub type_low: u8,
    /// G: 1 global, 2 domain, 3 page in domain.
    #[bits(2)]
    pub granularity: u8,
    /// DW: drain writes.
    pub drain_writes: bool,
    /// DR: drain reads.
    pub drain_reads: bool,
    pub reserved0: bool,
    #[bits(3)]
    pub type_high: u8,
    #[bits(4)]
    pub reserved1: u8,
    /// DID.
    pub domain_id: u16,
    pub reserved2: u32,
}

/// Address qword of the IOTLB (6.5.2.3) and PASID-based IOTLB (6.5.2.4)
/// invalidate descriptors.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct IotlbHigh {
    /// AM: the range is 2^AM pages, aligned to its size.
    #[bits(6)]
    pub address_mask: u8,
    /// IH: only leaf entries changed.
    pub leaf_only: bool,
    #[bits(5)]
    pub reserved: u8,
    /// ADDR: bits 63:12.
    #[bits(52)]
    pub page: u64,
}

impl IotlbHigh {
    /// Byte address.
    pub fn address(self) -> u64 {
        self.into_bits() & !0xfff
    }
}

/// Device-TLB invalidate, type 3, low qword (6.5.2.5).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct DeviceTlbLow {
    #[bits(4)]
    pub type_low: u8,
    #[bits(5)]
    pub reserved0: u8,
    #[bits(3)]
    pub type_high: u8,
    /// PFSID bits 3:0.
    #[bits(4)]
    pub pf_source_low: u8,
    /// MIP: most invalidations that may be pending.
    #[bits(5)]
    pub max_pending: u8,
    #[bits(11)]
    pub reserved1: u16,
    /// SID.
    pub source_id: u16,
    #[bits(4)]
    pub reserved2: u8,
    /// PFSID bits 15:4.
    #[bits(12)]
    pub pf_source_high: u16,
}

/// Device-TLB invalidate, type 3, high qword (6.5.2.5).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct DeviceTlbHigh {
    /// S: more than one page, the size is coded in the address.
    pub size: bool,
    #[bits(11)]
    pub reserved: u16,
    /// ADDR: bits 63:12.
    #[bits(52)]
    pub page: u64,
}

/// Largest IM of an interrupt-entry-cache invalidate: ECAP.MHMV has 4 bits, and tables
/// 2^16 entries.
pub const MAX_HANDLE_MASK: u8 = 15;

/// Interrupt-entry-cache invalidate, type 4, low qword (6.5.2.7). The high one is
/// reserved.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct InterruptEntryCacheLow {
    #[bits(4)]
    pub type_low: u8,
    /// G: 0 global, 1 by index.
    pub by_index: bool,
    #[bits(4)]
    pub reserved0: u8,
    #[bits(3)]
    pub type_high: u8,
    #[bits(15)]
    pub reserved1: u16,
    /// IM: 2^IM entries.
    #[bits(5)]
    pub index_mask: u8,
    /// IIDX: first entry.
    pub index: u16,
    pub reserved2: u16,
}

/// Invalidation wait, type 5, low qword (6.5.2.8).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct WaitLow {
    #[bits(4)]
    pub type_low: u8,
    /// IF: raise the completion interrupt.
    pub interrupt: bool,
    /// SW: write the status.
    pub status_write: bool,
    /// FN: fence.
    pub fence: bool,
    /// PD: drain page requests.
    pub page_drain: bool,
    pub reserved0: bool,
    #[bits(3)]
    pub type_high: u8,
    #[bits(20)]
    pub reserved1: u32,
    /// Status data.
    pub data: u32,
}

/// Invalidation wait, type 5, high qword (6.5.2.8).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct WaitHigh {
    #[bits(2)]
    pub reserved: u8,
    /// Status address, bits 63:2.
    #[bits(62)]
    pub dword: u64,
}

impl WaitHigh {
    /// Byte address of the status.
    pub fn address(self) -> u64 {
        self.into_bits() & !0x3
    }
}

/// PASID-based IOTLB invalidate, type 6, low qword (6.5.2.4); its high qword is
/// [`IotlbHigh`]. PASID-cache invalidate, type 7 (6.5.2.2), has the same low
/// qword and a reserved high one.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct PasidLow {
    #[bits(4)]
    pub type_low: u8,
    /// G: type 6, 2 PASID, 3 page in PASID; type 7, 0 domain, 1 PASID, 3 global.
    #[bits(2)]
    pub granularity: u8,
    #[bits(3)]
    pub reserved0: u8,
    #[bits(3)]
    pub type_high: u8,
    #[bits(4)]
    pub reserved1: u8,
    /// DID.
    pub domain_id: u16,
    /// PASID.
    #[bits(20)]
    pub pasid: u32,
    #[bits(12)]
    pub reserved2: u16,
}

/// PASID-based device-TLB invalidate, type 8, low qword (6.5.2.6).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct PasidDeviceTlbLow {
    #[bits(4)]
    pub type_low: u8,
    /// MIP: most invalidations that may be pending.
    #[bits(5)]
    pub max_pending: u8,
    #[bits(3)]
    pub type_high: u8,
    /// PFSID bits 3:0.
    #[bits(4)]
    pub pf_source_low: u8,
    /// SID.
    pub source_id: u16,
    /// PASID.
    #[bits(20)]
    pub pasid: u32,
    /// PFSID bits 15:4.
    #[bits(12)]
    pub pf_source_high: u16,
}

/// PASID-based device-TLB invalidate, type 8, high qword (6.5.2.6).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct PasidDeviceTlbHigh {
    /// G: every PASID of the device.
    pub global: bool,
    #[bits(10)]
    pub reserved: u16,
    /// S: more than one page, the size is coded in the address.
    pub size: bool,
    /// ADDR: bits 63:12.
    #[bits(52)]
    pub page: u64,
}

/// Page group response, type 9, low qword (7.7.1).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct PageGroupResponseLow {
    #[bits(4)]
    pub type_low: u8,
    /// PP: the PASID field is valid.
    pub pasid_present: bool,
    #[bits(4)]
    pub reserved0: u8,
    #[bits(3)]
    pub type_high: u8,
    /// RC: 0 success, 1 invalid, 15 failure.
    #[bits(4)]
    pub code: u8,
    /// RID: requester.
    pub source_id: u16,
    /// PASID.
    #[bits(20)]
    pub pasid: u32,
    #[bits(12)]
    pub reserved1: u16,
}

/// Page group response, type 9, high qword (7.7.1).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct PageGroupResponseHigh {
    #[bits(3)]
    pub reserved0: u8,
    /// PRGI: page request group index.
    #[bits(9)]
    pub group: u16,
    #[bits(52)]
    pub reserved1: u64,
}

/// What an invalidation names, coarse to fine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope<Fine> {
    /// Everything.
    Global,
    /// Everything of a domain.
    Domain(u16),
    /// A part of a domain.
    Fine(u16, Fine),
}

/// Requesters named by a device-selective context-cache invalidation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceMatch {
    /// SID.
    pub source_id: u16,
    /// FM: 0 to 3, the number of low function bits to ignore.
    pub function_mask: u8,
}

impl SourceMatch {
    /// Is `source_id` named? FM 1 ignores function bit 2, FM 2 bits 2:1 and FM 3
    /// bits 2:0 (6.5.2.1).
    pub fn matches(self, source_id: u16) -> bool {
        let ignored = match self.function_mask {
            0 => 0,
            1 => 0b100,
            2 => 0b110,
            _ => 0b111,
        };
        (self.source_id ^ source_id) & !ignored == 0
    }
}

/// A range of pages: 2^`address_mask` pages around `address`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRange {
    /// Byte address; its low bits may be anything.
    pub address: u64,
    /// AM, 0 to 63.
    pub address_mask: u8,
    /// IH: only leaf entries changed.
    pub leaf_only: bool,
}

impl PageRange {
    /// An address mask of this many pages covers 64 bits and everything below it.
    const WHOLE_ADDRESS_SPACE: u8 = 52;

    /// First address and number of 4 KiB pages; None for every address. Address bits
    /// below the mask are ignored (6.5.2.3).
    pub fn bounds(self) -> Option<(u64, u64)> {
        if self.address_mask >= Self::WHOLE_ADDRESS_SPACE {
            return None;
        }
        let pages = 1_u64 << self.address_mask;
        let low = pages.wrapping_mul(0x1000).wrapping_sub(1);
        Some((self.address & !low, pages))
    }
}

/// What a PASID-based IOTLB invalidation names inside its domain and PASID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasidPages {
    /// Every address.
    All,
    /// A range.
    Range(PageRange),
}

/// A decoded invalidation descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Descriptor {
    /// Type 1: forget context entries.
    ContextCache(Scope<SourceMatch>),
    /// Type 2: forget second-stage and nested translations.
    Iotlb(Scope<PageRange>),
    /// Type 3: the device forgets translations.
    DeviceTlb {
        /// SID.
        source_id: u16,
        /// First and last byte address.
        range: (u64, u64),
    },
    /// Type 4: forget interrupt entries.
    InterruptEntryCache {
        /// First entry and log2 of the number of entries; None for all.
        range: Option<(u16, u8)>,
    },
    /// Type 5: all before is done.
    Wait {
        /// Where and what to write, with SW.
        status: Option<(u64, u32)>,
        /// IF.
        interrupt: bool,
        /// FN.
        fence: bool,
        /// PD.
        page_drain: bool,
    },
    /// Type 6: forget first-stage, nested and pass-through translations of a PASID.
    PasidIotlb {
        /// DID.
        domain_id: u16,
        /// PASID.
        pasid: u32,
        /// Which addresses.
        pages: PasidPages,
    },
    /// Type 7: forget PASID table entries; `Fine` is the PASID.
    PasidCache(Scope<u32>),
    /// Type 8: the device forgets translations of a PASID.
    PasidDeviceTlb {
        /// SID.
        source_id: u16,
        /// PASID; None, with G, for every PASID of the device.
        pasid: Option<u32>,
        /// First and last byte address.
        range: (u64, u64),
    },
    /// Type 9: answer to a page request group.
    PageGroupResponse {
        /// RID.
        source_id: u16,
        /// PASID, if the requests had one.
        pasid: Option<u32>,
        /// Response code.
        code: u8,
        /// Page request group index.
        group: u16,
    },
}

impl Descriptor {
    /// Decode the qwords of a descriptor; those a 128-bit queue lacks are 0.
    ///
    /// # Errors
    /// The IQERCD code with which the queue stops: an unknown type, or a reserved
    /// field that is not 0 or a reserved granularity.
    #[inline]
    pub fn decode(qwords: [u64; 4]) -> Result<Self, QueueErrorInfo> {
        let [low, high, upper0, upper1] = qwords;
        let kind = Generic::from_bits(low).kind();
        if kind != 9 && (upper0 != 0 || upper1 != 0) && (1..=8).contains(&kind) {
            return Err(QueueErrorInfo::ReservedField);
        }
        match kind {
            1 => context_cache(low, high),
            2 => iotlb(low, high),
            3 => device_tlb(low, high),
            4 => interrupt_entry_cache(low, high),
            5 => wait(low, high),
            6 => pasid_iotlb(low, high),
            7 => pasid_cache(low, high),
            8 => pasid_device_tlb(low, high),
            9 => Ok(page_group_response(low, high)),
            _ => Err(QueueErrorInfo::BadType),
        }
    }
}

/// The value if everything reserved is 0.
fn unless(reserved: bool, value: Descriptor) -> Result<Descriptor, QueueErrorInfo> {
    if reserved {
        Err(QueueErrorInfo::ReservedField)
    } else {
        Ok(value)
    }
}

fn context_cache(low: u64, high: u64) -> Result<Descriptor, QueueErrorInfo> {
    let d = ContextCacheLow::from_bits(low);
    let matching = SourceMatch {
        source_id: d.source_id(),
        function_mask: d.function_mask(),
    };
    let scope = match d.granularity() {
        1 => Scope::Global,
        2 => Scope::Domain(d.domain_id()),
        3 => Scope::Fine(d.domain_id(), matching),
        _ => return Err(QueueErrorInfo::ReservedField),
    };
    let reserved = d.reserved0() != 0 || d.reserved1() != 0 || d.reserved2() != 0 || high != 0;
    unless(reserved, Descriptor::ContextCache(scope))
}

fn iotlb(low: u64, high: u64) -> Result<Descriptor, QueueErrorInfo> {
    let d = IotlbLow::from_bits(low);
    let pages = page_range(high);
    let scope = match d.granularity() {
        1 => Scope::Global,
        2 => Scope::Domain(d.domain_id()),
        3 => Scope::Fine(d.domain_id(), pages),
        _ => return Err(QueueErrorInfo::ReservedField),
    };
    let reserved = d.reserved0()
        || d.reserved1() != 0
        || d.reserved2() != 0
        || IotlbHigh::from_bits(high).reserved() != 0;
    unless(reserved, Descriptor::Iotlb(scope))
}

fn page_range(high: u64) -> PageRange {
    let d = IotlbHigh::from_bits(high);
    PageRange {
        address: d.address(),
        address_mask: d.address_mask(),
        leaf_only: d.leaf_only(),
    }
}

fn device_tlb(low: u64, high: u64) -> Result<Descriptor, QueueErrorInfo> {
    let d = DeviceTlbLow::from_bits(low);
    let target = DeviceTlbHigh::from_bits(high);
    let reserved =
        d.reserved0() != 0 || d.reserved1() != 0 || d.reserved2() != 0 || target.reserved() != 0;
    unless(
        reserved,
        Descriptor::DeviceTlb {
            source_id: d.source_id(),
            range: device_tlb_range(target.page(), target.size()),
        },
    )
}

/// First and last byte address of a device-TLB invalidation. With S the lowest clear
/// bit of the page number says how many pages there are, as ATS has it: none set two
/// pages, one set four, and so on; all of them every address.
fn device_tlb_range(page: u64, size: bool) -> (u64, u64) {
    let bits = if size {
        page.trailing_ones().saturating_add(13)
    } else {
        12
    };
    let low = 1_u64.checked_shl(bits).unwrap_or(0).wrapping_sub(1);
    let address = page << 12;
    (address & !low, address | low)
}

fn interrupt_entry_cache(low: u64, high: u64) -> Result<Descriptor, QueueErrorInfo> {
    let d = InterruptEntryCacheLow::from_bits(low);
    let range = d.by_index().then(|| (d.index(), d.index_mask()));
    let reserved = d.reserved0() != 0
        || d.reserved1() != 0
        || d.reserved2() != 0
        || high != 0
        || range.is_some_and(|(_, mask)| mask > MAX_HANDLE_MASK);
    unless(reserved, Descriptor::InterruptEntryCache { range })
}

fn wait(low: u64, high: u64) -> Result<Descriptor, QueueErrorInfo> {
    let d = WaitLow::from_bits(low);
    let target = WaitHigh::from_bits(high);
    let value = Descriptor::Wait {
        status: d.status_write().then(|| (target.address(), d.data())),
        interrupt: d.interrupt(),
        fence: d.fence(),
        page_drain: d.page_drain(),
    };
    unless(
        d.reserved0() || d.reserved1() != 0 || target.reserved() != 0,
        value,
    )
}

fn pasid_reserved(d: PasidLow) -> bool {
    d.reserved0() != 0 || d.reserved1() != 0 || d.reserved2() != 0
}

fn pasid_iotlb(low: u64, high: u64) -> Result<Descriptor, QueueErrorInfo> {
    let d = PasidLow::from_bits(low);
    let pages = match d.granularity() {
        2 => PasidPages::All,
        3 => PasidPages::Range(page_range(high)),
        _ => return Err(QueueErrorInfo::ReservedField),
    };
    unless(
        pasid_reserved(d) || IotlbHigh::from_bits(high).reserved() != 0,
        Descriptor::PasidIotlb {
            domain_id: d.domain_id(),
            pasid: d.pasid(),
            pages,
        },
    )
}

fn pasid_cache(low: u64, high: u64) -> Result<Descriptor, QueueErrorInfo> {
    let d = PasidLow::from_bits(low);
    let scope = match d.granularity() {
        0 => Scope::Domain(d.domain_id()),
        1 => Scope::Fine(d.domain_id(), d.pasid()),
        3 => Scope::Global,
        _ => return Err(QueueErrorInfo::ReservedField),
    };
    unless(
        pasid_reserved(d) || high != 0,
        Descriptor::PasidCache(scope),
    )
}

fn pasid_device_tlb(low: u64, high: u64) -> Result<Descriptor, QueueErrorInfo> {
    let d = PasidDeviceTlbLow::from_bits(low);
    let target = PasidDeviceTlbHigh::from_bits(high);
    unless(
        target.reserved() != 0,
        Descriptor::PasidDeviceTlb {
            source_id: d.source_id(),
            pasid: (!target.global()).then_some(d.pasid()),
            range: device_tlb_range(target.page(), target.size()),
        },
    )
}

/// Lenient on reserved fields: revisions of the specification differ in where
/// private data stands.
fn page_group_response(low: u64, high: u64) -> Descriptor {
    let d = PageGroupResponseLow::from_bits(low);
    Descriptor::PageGroupResponse {
        source_id: d.source_id(),
        pasid: d.pasid_present().then(|| d.pasid()),
        code: d.code(),
        group: PageGroupResponseHigh::from_bits(high).group(),
    }
}
