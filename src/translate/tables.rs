//! From a requester to its translation: root entry, context entry, PASID
//! directory entry and PASID entry (section 3.4.3), decoded once into a
//! [`Translated`] value. The direct walk and the host's nested HWPT are both made
//! from that value, so they cannot drift apart.

use super::first_stage::FirstStage;
use super::{Diagnostic, Fault, TableMemory};
use crate::spec::fault::FaultReason;
use crate::spec::pasid::{
    DIRECTORY_ENTRY_SIZE, DirectoryEntry, PASID_ENTRY_QWORDS, PASID_ENTRY_SIZE,
    PASID_TABLE_ENTRIES, PasidEntry0, PasidEntry1, PasidEntry2, TranslationType,
};
use crate::spec::registers::{Cap, Ecap, RootTableAddress, TableMode};
use crate::spec::root_context::{
    CONTEXT_ENTRY_SIZE, ContextHigh, ContextLow, ROOT_ENTRY_SIZE, RootEntryHalf,
};

/// What the tables are judged against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// CAP.
    pub cap: Cap,
    /// ECAP.
    pub ecap: Ecap,
    /// Bits in a guest-physical address.
    pub address_width: u32,
}

/// How the requests of one PASID are translated: the decoded, validated content of
/// its PASID entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translated {
    /// DID.
    pub domain_id: u16,
    /// Faults are not recorded: FPD of the context, directory or PASID entry.
    pub fault_disable: bool,
    /// The stages.
    pub stages: Stages,
}

/// Which tables a request goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stages {
    /// None: addresses are guest-physical.
    PassThrough,
    /// The first stage at `table`.
    FirstStage {
        /// Address of the topmost table.
        table: u64,
        /// Its format.
        format: FirstStage,
    },
}

impl Stages {
    /// The PGTT these stages come from.
    pub fn translation_type(&self) -> TranslationType {
        match self {
            Self::PassThrough => TranslationType::PassThrough,
            Self::FirstStage { .. } => TranslationType::FirstStage,
        }
    }
}

/// A fault on the way to the PASID entry, and whether to keep quiet about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableFault {
    /// Why.
    pub fault: Fault,
    /// FPD was set in an entry that was read, present or not.
    pub fault_disable: bool,
}

/// PASID of a request without one: RID_PASID is not supported (ECAP.RPS is 0).
const RID_PASID: u32 = 0;

/// Find how requests without PASID of `source_id` are translated.
///
/// # Errors
/// The fault with which every such request is refused.
pub fn lookup<M: TableMemory + ?Sized>(
    memory: &M,
    capabilities: &Capabilities,
    root: RootTableAddress,
    source_id: u16,
) -> Result<Translated, TableFault> {
    let mut fault_disable = false;
    decode(memory, capabilities, root, source_id, &mut fault_disable)
        .map(|(domain_id, stages)| Translated {
            domain_id,
            fault_disable,
            stages,
        })
        .map_err(|fault| TableFault {
            fault,
            fault_disable,
        })
}

fn decode<M: TableMemory + ?Sized>(
    memory: &M,
    capabilities: &Capabilities,
    root: RootTableAddress,
    source_id: u16,
    fault_disable: &mut bool,
) -> Result<(u16, Stages), Fault> {
    match TableMode::from(root) {
        TableMode::Scalable => {}
        // No second stage is reported (CAP.SAGAW is 0), so no legacy context
        // entry can be valid.
        TableMode::Legacy => {
            return Err(Fault::new(
                FaultReason::ContextInvalidLegacy,
                Diagnostic::LegacyMode,
            ));
        }
        TableMode::Reserved | TableMode::AbortDma => {
            return Err(Fault::new(
                FaultReason::RootTableMode,
                Diagnostic::TableMode,
            ));
        }
    }
    let context_table = root_entry(memory, capabilities, root, source_id)?;
    let context = context_entry(
        memory,
        capabilities,
        context_table,
        source_id,
        fault_disable,
    )?;
    let directory = context.directory_address();
    let table = directory_entry(memory, capabilities, directory, fault_disable)?;
    pasid_entry(memory, capabilities, table, fault_disable)
}

/// Table addresses beyond the address width are reserved bits of their entry.
fn beyond_width(capabilities: &Capabilities, address: u64) -> bool {
    address.checked_shr(capabilities.address_width).unwrap_or(0) != 0
}

fn entry_address(table: u64, index: u64, size: u64) -> u64 {
    table.wrapping_add(index.wrapping_mul(size))
}

fn root_entry<M: TableMemory + ?Sized>(
    memory: &M,
    capabilities: &Capabilities,
    root: RootTableAddress,
    source_id: u16,
) -> Result<u64, Fault> {
    let [bus, devfn] = source_id.to_be_bytes();
    let half = u64::from(devfn >= 0x80);
    let address = entry_address(root.address(), u64::from(bus), ROOT_ENTRY_SIZE)
        .wrapping_add(half.wrapping_mul(8));
    let entry = memory
        .read(address)
        .map_err(|_| Fault::new(FaultReason::RootAccess, Diagnostic::RootAccess))?;
    let entry = RootEntryHalf::from_bits(entry);
    if !entry.present() {
        return Err(Fault::new(
            FaultReason::RootNotPresent,
            Diagnostic::RootNotPresent,
        ));
    }
    if entry.reserved() != 0 || beyond_width(capabilities, entry.address()) {
        return Err(Fault::new(
            FaultReason::RootReserved,
            Diagnostic::RootReserved,
        ));
    }
    Ok(entry.address())
}

fn context_entry<M: TableMemory + ?Sized>(
    memory: &M,
    capabilities: &Capabilities,
    table: u64,
    source_id: u16,
    fault_disable: &mut bool,
) -> Result<ContextLow, Fault> {
    let address = entry_address(table, u64::from(source_id & 0x7f), CONTEXT_ENTRY_SIZE);
    let [low, high, upper0, upper1] = read_entry(memory, address)
        .map_err(|()| Fault::new(FaultReason::ContextAccess, Diagnostic::ContextAccess))?;
    let low = ContextLow::from_bits(low);
    *fault_disable |= low.fault_disable();
    if !low.present() {
        return Err(Fault::new(
            FaultReason::ContextNotPresent,
            Diagnostic::ContextNotPresent,
        ));
    }
    if low.reserved() != 0
        || ContextHigh::from_bits(high).reserved() != 0
        || upper0 != 0
        || upper1 != 0
        || beyond_width(capabilities, low.directory_address())
    {
        return Err(Fault::new(
            FaultReason::ContextReserved,
            Diagnostic::ContextReserved,
        ));
    }
    let ecap = capabilities.ecap;
    if (low.device_tlb() && !ecap.device_tlb())
        || (low.pasid_enable() && !ecap.pasid())
        || (low.page_request() && !ecap.page_request())
    {
        return Err(Fault::new(
            FaultReason::ContextReserved,
            Diagnostic::ContextCapability,
        ));
    }
    Ok(low)
}

/// May `source_id` send page requests, those with this PASID included (7.4.1)?
///
/// # Errors
/// The fault with which they are refused.
pub fn page_request_permitted<M: TableMemory + ?Sized>(
    memory: &M,
    capabilities: &Capabilities,
    root: RootTableAddress,
    source_id: u16,
    pasid: Option<u32>,
) -> Result<(), TableFault> {
    let mut fault_disable = false;
    page_request_faults(
        memory,
        capabilities,
        root,
        source_id,
        pasid,
        &mut fault_disable,
    )
    .map_err(|fault| TableFault {
        fault,
        fault_disable,
    })
}

fn page_request_faults<M: TableMemory + ?Sized>(
    memory: &M,
    capabilities: &Capabilities,
    root: RootTableAddress,
    source_id: u16,
    pasid: Option<u32>,
    fault_disable: &mut bool,
) -> Result<(), Fault> {
    let (reason, diagnostic) = match TableMode::from(root) {
        TableMode::Scalable => {
            let table = root_entry(memory, capabilities, root, source_id)?;
            let context = context_entry(memory, capabilities, table, source_id, fault_disable)?;
            let beyond = |pasid: u32| pasid >> 13 >> context.directory_size() != 0;
            if context.page_request() && !context.device_tlb() {
                (FaultReason::ContextInvalid, Diagnostic::ContextPageRequest)
            } else if !context.device_tlb() {
                (
                    FaultReason::DeviceTlbDisabled,
                    Diagnostic::DeviceTlbDisabled,
                )
            } else if !context.page_request() {
                (
                    FaultReason::PageRequestDisabled,
                    Diagnostic::PageRequestDisabled,
                )
            } else if pasid.is_some() && !context.pasid_enable() {
                (FaultReason::PasidDisabled, Diagnostic::PasidDisabled)
            } else if pasid.is_some_and(beyond) {
                (
                    FaultReason::PasidBeyondDirectory,
                    Diagnostic::PasidBeyondDirectory,
                )
            } else {
                return Ok(());
            }
        }
        TableMode::Legacy => (
            FaultReason::PageRequestLegacy,
            Diagnostic::PageRequestLegacy,
        ),
        TableMode::AbortDma if capabilities.ecap.abort_dma() => {
            (FaultReason::AbortDma, Diagnostic::AbortDma)
        }
        TableMode::Reserved | TableMode::AbortDma => {
            (FaultReason::RootTableMode, Diagnostic::TableMode)
        }
    };
    Err(Fault::new(reason, diagnostic))
}

fn directory_entry<M: TableMemory + ?Sized>(
    memory: &M,
    capabilities: &Capabilities,
    directory: u64,
    fault_disable: &mut bool,
) -> Result<u64, Fault> {
    let index = u64::from(RID_PASID / PASID_TABLE_ENTRIES);
    let entry = memory
        .read(entry_address(directory, index, DIRECTORY_ENTRY_SIZE))
        .map_err(|_| Fault::new(FaultReason::DirectoryAccess, Diagnostic::DirectoryAccess))?;
    let entry = DirectoryEntry::from_bits(entry);
    *fault_disable |= entry.fault_disable();
    if !entry.present() {
        return Err(Fault::new(
            FaultReason::DirectoryNotPresent,
            Diagnostic::DirectoryNotPresent,
        ));
    }
    if entry.reserved() != 0 || beyond_width(capabilities, entry.address()) {
        return Err(Fault::new(
            FaultReason::DirectoryReserved,
            Diagnostic::DirectoryReserved,
        ));
    }
    Ok(entry.address())
}

fn pasid_entry<M: TableMemory + ?Sized>(
    memory: &M,
    capabilities: &Capabilities,
    table: u64,
    fault_disable: &mut bool,
) -> Result<(u16, Stages), Fault> {
    let index = u64::from(RID_PASID % PASID_TABLE_ENTRIES);
    let qwords: [u64; PASID_ENTRY_QWORDS] =
        read_entry(memory, entry_address(table, index, PASID_ENTRY_SIZE))
            .map_err(|()| Fault::new(FaultReason::PasidAccess, Diagnostic::PasidAccess))?;
    let [first, second, third, upper @ ..] = qwords;
    let first = PasidEntry0::from_bits(first);
    let second = PasidEntry1::from_bits(second);
    let third = PasidEntry2::from_bits(third);
    *fault_disable |= first.fault_disable();
    if !first.present() {
        return Err(Fault::new(
            FaultReason::PasidNotPresent,
            Diagnostic::PasidNotPresent,
        ));
    }
    if first.reserved() != 0
        || second.reserved() != 0
        || third.reserved() != 0
        || upper.iter().any(|&qword| qword != 0)
    {
        return Err(Fault::new(
            FaultReason::PasidReserved,
            Diagnostic::PasidReserved,
        ));
    }
    let ecap = capabilities.ecap;
    if (third.supervisor_request() && !ecap.supervisor_request())
        || (third.execute_request() && !ecap.execute_request())
        || (third.extended_accessed() && !ecap.extended_accessed())
        || (first.second_stage_accessed_dirty() && !ecap.second_stage_accessed_dirty())
        || (second.memory_type_enable() && !ecap.memory_type())
    {
        return Err(Fault::new(
            FaultReason::PasidReserved,
            Diagnostic::PasidCapability,
        ));
    }
    let invalid = |diagnostic| Fault::new(FaultReason::PasidInvalid, diagnostic);
    let stages = match TranslationType::from_pgtt(first.translation_type()) {
        Some(TranslationType::PassThrough) if ecap.pass_through() => Stages::PassThrough,
        Some(TranslationType::FirstStage) if ecap.first_stage() => {
            first_stage(capabilities, third).map_err(invalid)?
        }
        _ => return Err(invalid(Diagnostic::PasidTranslationType)),
    };
    Ok((second.domain_id(), stages))
}

fn first_stage(capabilities: &Capabilities, entry: PasidEntry2) -> Result<Stages, Diagnostic> {
    let levels = match entry.paging_mode() {
        0 => 4,
        1 if capabilities.cap.first_stage_5_level() => 5,
        _ => return Err(Diagnostic::PasidPagingMode),
    };
    if beyond_width(capabilities, entry.first_stage_address()) {
        return Err(Diagnostic::PasidTablePointer);
    }
    Ok(Stages::FirstStage {
        table: entry.first_stage_address(),
        format: FirstStage {
            levels,
            huge_pages: capabilities.cap.first_stage_1g(),
            address_width: capabilities.address_width,
        },
    })
}

/// Read an entry of `N` qwords; the first, which holds P, before the others, so
/// that an entry made present last is read whole.
fn read_entry<M: TableMemory + ?Sized, const N: usize>(
    memory: &M,
    address: u64,
) -> Result<[u64; N], ()> {
    let mut qwords = [0; N];
    let mut at = address;
    for qword in &mut qwords {
        *qword = memory.read(at).map_err(|_| ())?;
        at = at.wrapping_add(8);
    }
    Ok(qwords)
}
