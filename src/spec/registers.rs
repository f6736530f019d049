//! Remapping registers (section 11.4).

use bitfield_struct::bitfield;

/// Byte offsets of the registers in the window (11.4). FRCD and the IOTLB pair
/// have no fixed place; CAP.FRO and ECAP.IRO tell it.
#[expect(missing_docs, reason = "the names are the specification's")]
pub mod offset {
    pub const VER: u64 = 0x00;
    pub const CAP: u64 = 0x08;
    pub const ECAP: u64 = 0x10;
    pub const GCMD: u64 = 0x18;
    pub const GSTS: u64 = 0x1c;
    pub const RTADDR: u64 = 0x20;
    pub const CCMD: u64 = 0x28;
    pub const FSTS: u64 = 0x34;
    pub const FECTL: u64 = 0x38;
    pub const FEDATA: u64 = 0x3c;
    pub const FEADDR: u64 = 0x40;
    pub const FEUADDR: u64 = 0x44;
    pub const IQH: u64 = 0x80;
    pub const IQT: u64 = 0x88;
    pub const IQA: u64 = 0x90;
    pub const ICS: u64 = 0x9c;
    pub const IECTL: u64 = 0xa0;
    pub const IEDATA: u64 = 0xa4;
    pub const IEADDR: u64 = 0xa8;
    pub const IEUADDR: u64 = 0xac;
    pub const IQERCD: u64 = 0xb0;
    pub const IRTA: u64 = 0xb8;
    pub const PQH: u64 = 0xc0;
    pub const PQT: u64 = 0xc8;
    pub const PQA: u64 = 0xd0;
    pub const PRS: u64 = 0xdc;
    pub const PECTL: u64 = 0xe0;
    pub const PEDATA: u64 = 0xe4;
    pub const PEADDR: u64 = 0xe8;
    pub const PEUADDR: u64 = 0xec;
    pub const IVA: u64 = 0xf0;
    pub const IOTLB: u64 = 0xf8;
    pub const FRCD: u64 = 0x220;
}

/// Capability register (11.4.2).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Cap {
    /// ND: number of domains is 2^(4 + 2 * ND).
    #[bits(3)]
    pub domains: u8,
    /// AFL: advanced fault logging.
    pub advanced_fault_log: bool,
    /// RWBF: write-buffer flushing is required.
    pub write_buffer_flush: bool,
    /// PLMR: protected low-memory region.
    pub protected_low: bool,
    /// PHMR: protected high-memory region.
    pub protected_high: bool,
    /// CM: caching mode; not-present entries may be cached.
    pub caching_mode: bool,
    /// SAGAW: bit 1 39-bit, bit 2 48-bit, bit 3 57-bit second-stage tables.
    #[bits(5)]
    pub second_stage_widths: u8,
    #[bits(3)]
    __: u8,
    /// MGAW: widest guest address in bits, minus 1.
    #[bits(6)]
    pub address_width: u8,
    /// ZLR: zero-length reads of write-only pages.
    pub zero_length_read: bool,
    __: bool,
    /// FRO: offset of the fault recording registers in units of 16 bytes.
    #[bits(10)]
    pub fault_offset: u16,
    /// SSLPS: bit 0 2 MiB, bit 1 1 GiB second-stage pages.
    #[bits(4)]
    pub second_stage_large_pages: u8,
    __: bool,
    /// PSI: page-selective invalidation of second-stage translations.
    pub page_selective: bool,
    /// NFR: number of fault recording registers, minus 1.
    #[bits(8)]
    pub fault_records: u8,
    /// MAMV: largest address mask of a page-selective invalidation.
    #[bits(6)]
    pub max_address_mask: u8,
    /// DWD: write draining.
    pub write_drain: bool,
    /// DRD: read draining.
    pub read_drain: bool,
    /// FS1GP: 1 GiB first-stage pages.
    pub first_stage_1g: bool,
    #[bits(2)]
    __: u8,
    /// PI: posted interrupts.
    pub posted_interrupts: bool,
    /// FS5LP: 5-level first-stage tables.
    pub first_stage_5_level: bool,
    /// ECMDS: enhanced commands.
    pub enhanced_commands: bool,
    /// ESIRTPS: setting the interrupt table invalidates its caches.
    pub sirtp_invalidates: bool,
    /// ESRTPS: setting the root table invalidates its caches.
    pub srtp_invalidates: bool,
}

/// Extended capability register (11.4.3).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Ecap {
    /// C: table walks are coherent with the processors' caches.
    pub coherent: bool,
    /// QI: queued invalidation.
    pub queued_invalidation: bool,
    /// DT: device TLBs.
    pub device_tlb: bool,
    /// IR: interrupt remapping.
    pub interrupt_remapping: bool,
    /// EIM: extended interrupt mode (x2APIC).
    pub extended_interrupt_mode: bool,
    __: bool,
    /// PT: pass-through.
    pub pass_through: bool,
    /// SC: snoop control.
    pub snoop_control: bool,
    /// IRO: offset of the IOTLB registers in units of 16 bytes.
    #[bits(10)]
    pub iotlb_offset: u16,
    #[bits(2)]
    __: u8,
    /// MHMV: largest interrupt-entry-cache handle mask.
    #[bits(4)]
    pub max_handle_mask: u8,
    __: bool,
    /// MTS: memory types.
    pub memory_type: bool,
    /// NEST: nested translation.
    pub nested: bool,
    #[bits(2)]
    __: u8,
    /// PRS: page requests.
    pub page_request: bool,
    /// ERS: execute requests.
    pub execute_request: bool,
    /// SRS: supervisor requests.
    pub supervisor_request: bool,
    __: bool,
    /// NWFS: no-write flag.
    pub no_write_flag: bool,
    /// EAFS: extended accessed flag.
    pub extended_accessed: bool,
    /// PSS: PASIDs are PSS + 1 bits wide.
    #[bits(5)]
    pub pasid_size: u8,
    /// PASID: requests with PASID.
    pub pasid: bool,
    /// DIT: device-TLB invalidation throttle.
    pub device_tlb_throttle: bool,
    /// PDS: page-request drain.
    pub page_request_drain: bool,
    /// SMTS: scalable mode.
    pub scalable_mode: bool,
    /// VCS: virtual commands.
    pub virtual_command: bool,
    /// SSADS: second-stage accessed and dirty bits.
    pub second_stage_accessed_dirty: bool,
    /// SSTS: second-stage translation.
    pub second_stage: bool,
    /// FSTS: first-stage translation.
    pub first_stage: bool,
    /// SMPWCS: first- and second-stage walks are coherent.
    pub page_walk_coherent: bool,
    /// RPS: RID_PASID of the context entry is used.
    pub rid_pasid: bool,
    #[bits(2)]
    __: u8,
    /// ADMS: abort-DMA mode.
    pub abort_dma: bool,
    /// RPRIVS: RID_PRIV of the context entry is used.
    pub rid_privilege: bool,
    #[bits(10)]
    __: u16,
}

/// Global command and global status registers (11.4.4); the bits of a command
/// and of its status stand at the same place.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Global {
    #[bits(23)]
    __: u32,
    /// CFI/CFIS: compatibility-format interrupts.
    pub compatibility_interrupts: bool,
    /// SIRTP/IRTPS: interrupt remapping table pointer.
    pub interrupt_table: bool,
    /// IRE/IRES: interrupt remapping.
    pub interrupt_remapping: bool,
    /// QIE/QIES: queued invalidation.
    pub queued_invalidation: bool,
    /// WBF/WBFS: write-buffer flush.
    pub write_buffer_flush: bool,
    /// EAFL/AFLS: advanced fault logging.
    pub advanced_fault_log: bool,
    /// SFL/FLS: fault log.
    pub fault_log: bool,
    /// SRTP/RTPS: root table pointer.
    pub root_table: bool,
    /// TE/TES: translation.
    pub translation: bool,
}

/// Root table address register (11.4.5).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct RootTableAddress {
    #[bits(10)]
    __: u16,
    /// TTM: see [`TableMode`].
    #[bits(2)]
    pub mode: u8,
    /// RTA: address of the root table, bits 63:12.
    #[bits(52)]
    pub table: u64,
}

impl RootTableAddress {
    /// Byte address of the root table.
    pub fn address(self) -> u64 {
        self.into_bits() & !0xfff
    }
}

/// Translation table modes, RTADDR.TTM (11.4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableMode {
    /// 00b.
    Legacy,
    /// 01b.
    Scalable,
    /// 10b.
    Reserved,
    /// 11b.
    AbortDma,
}

impl From<RootTableAddress> for TableMode {
    fn from(value: RootTableAddress) -> Self {
        match value.mode() {
            0 => Self::Legacy,
            1 => Self::Scalable,
            2 => Self::Reserved,
            _ => Self::AbortDma,
        }
    }
}

/// Context command register (11.4.6.1).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct ContextCommand {
    /// DID.
    pub domain_id: u16,
    /// SID.
    pub source_id: u16,
    /// FM: function mask.
    #[bits(2)]
    pub function_mask: u8,
    #[bits(25)]
    __: u32,
    /// CAIG: granularity that was done.
    #[bits(2)]
    pub actual_granularity: u8,
    /// CIRG: granularity asked for, 1 global, 2 domain, 3 device.
    #[bits(2)]
    pub granularity: u8,
    /// ICC: start; clear when done.
    pub invalidate: bool,
}

/// IOTLB invalidate register (11.4.6.2).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct IotlbCommand {
    __: u32,
    /// DID.
    pub domain_id: u16,
    /// DW: drain writes.
    pub drain_writes: bool,
    /// DR: drain reads.
    pub drain_reads: bool,
    #[bits(7)]
    __: u8,
    /// IAIG: granularity that was done.
    #[bits(2)]
    pub actual_granularity: u8,
    __: bool,
    /// IIRG: granularity asked for, 1 global, 2 domain, 3 page.
    #[bits(2)]
    pub granularity: u8,
    __: bool,
    /// IVT: start; clear when done.
    pub invalidate: bool,
}

/// Fault status register (11.4.7.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct FaultStatus {
    /// PFO: a fault found no free record. Write 1 to clear.
    pub overflow: bool,
    /// PPF: a record is pending. Read-only.
    pub pending: bool,
    /// AFO: advanced fault overflow.
    pub advanced_overflow: bool,
    /// APF: advanced pending fault.
    pub advanced_pending: bool,
    /// IQE: invalidation queue error. Write 1 to clear.
    pub queue_error: bool,
    /// ICE: invalidation completion error. Write 1 to clear.
    pub completion_error: bool,
    /// ITE: invalidation time-out error. Write 1 to clear.
    pub timeout_error: bool,
    /// PRO: page request overflow (moved to PRS in later revisions).
    pub page_request_overflow: bool,
    /// FRI: index of the first pending record.
    pub first_record: u8,
    __: u16,
}

/// Control register of an event: FECTL (11.4.7.2), IECTL (11.4.9.5), PECTL.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct EventControl {
    #[bits(30)]
    __: u32,
    /// IP: an interrupt waits for the mask to be lifted. Read-only.
    pub pending: bool,
    /// IM: interrupts are masked.
    pub masked: bool,
}

/// Invalidation queue address register (11.4.9.3).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct QueueAddress {
    /// QS: the queue has 2^(QS + 8) descriptors of 128 bits, or 2^(QS + 7) of 256.
    #[bits(3)]
    pub size: u8,
    __: u8,
    /// DW: 256-bit descriptors.
    pub wide: bool,
    /// IQA: address of the queue, bits 63:12.
    #[bits(52)]
    pub queue: u64,
}

impl QueueAddress {
    /// Byte address of the queue.
    pub fn address(self) -> u64 {
        self.into_bits() & !0xfff
    }

    /// Bytes in one descriptor: 16 or 32.
    pub fn descriptor_size(self) -> u64 {
        if self.wide() { 32 } else { 16 }
    }

    /// Bytes in the queue: 2^QS pages of 4 KiB with either width.
    pub fn bytes(self) -> u64 {
        0x1000 << self.size()
    }
}

/// Invalidation queue error record register (11.4.9.9).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct QueueErrorRecord {
    /// IQEI: see [`QueueErrorInfo`].
    #[bits(4)]
    pub info: u8,
    #[bits(28)]
    __: u32,
    /// ITESID: source ID of an invalidation time-out.
    pub timeout_source: u16,
    /// ICESID: source ID of an invalidation completion error.
    pub completion_source: u16,
}

/// Codes of IQERCD.IQEI (11.4.9.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum QueueErrorInfo {
    /// IQT is beyond the queue.
    BadTail = 1,
    /// The descriptor could not be fetched.
    FetchError = 2,
    /// Unknown descriptor type.
    BadType = 3,
    /// A reserved field is not 0, or a field has a reserved value.
    ReservedField = 4,
    /// 128-bit descriptors in scalable mode.
    BadWidth = 5,
    /// IQT is not a multiple of the descriptor size.
    MisalignedTail = 6,
    /// RTADDR.TTM has a reserved value.
    BadTableMode = 7,
}

/// Interrupt remapping table address register (11.4.10.1).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct InterruptTableAddress {
    /// S: the table has 2^(S + 1) entries.
    #[bits(4)]
    pub size: u8,
    #[bits(7)]
    __: u8,
    /// EIME: extended interrupt mode (x2APIC).
    pub extended_interrupt_mode: bool,
    /// IRTA: address of the table, bits 63:12.
    #[bits(52)]
    pub table: u64,
}

impl InterruptTableAddress {
    /// Byte address of the table.
    pub fn address(self) -> u64 {
        self.into_bits() & !0xfff
    }

    /// Entries in the table: 2 to 65536.
    pub fn entries(self) -> u32 {
        2 << self.size()
    }
}

/// Page request queue address register (11.4.11.3).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct PageQueueAddress {
    /// PQS: the queue has 2^PQS pages of 4 KiB.
    #[bits(3)]
    pub size: u8,
    #[bits(9)]
    __: u16,
    /// PQA: address of the queue, bits 63:12.
    #[bits(52)]
    pub queue: u64,
}

impl PageQueueAddress {
    /// Byte address of the queue.
    pub fn address(self) -> u64 {
        self.into_bits() & !0xfff
    }

    /// Bytes in the queue.
    pub fn bytes(self) -> u64 {
        0x1000 << self.size()
    }
}

/// Page request status register (11.4.11.4).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct PageRequestStatus {
    /// PPR: a page request is pending. Write 1 to clear.
    pub pending: bool,
    /// PRO: a page request found the queue full. Write 1 to clear.
    pub overflow: bool,
    #[bits(30)]
    __: u32,
}

/// Low half of a fault recording register (11.4.7.7).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct FaultRecordLow {
    #[bits(12)]
    __: u16,
    /// FI: bits 63:12 of the faulting address.
    #[bits(52)]
    pub page: u64,
}

/// High half of a fault recording register (11.4.7.7).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct FaultRecordHigh {
    /// SID: requester.
    pub source_id: u16,
    #[bits(12)]
    __: u16,
    /// T2: lower bit of the request type.
    pub type2: bool,
    /// PRIV: privileged request.
    pub privileged: bool,
    /// EXE: execute request.
    pub execute: bool,
    /// PP: the request had a PASID.
    pub pasid_present: bool,
    /// FR: fault reason.
    pub reason: u8,
    /// PV: PASID.
    #[bits(20)]
    pub pasid: u32,
    /// AT: address type of the request.
    #[bits(2)]
    pub address_type: u8,
    /// T1: 1 for a read, 0 for a write.
    pub read: bool,
    /// F: the record is pending. Write 1 to clear.
    pub fault: bool,
}
