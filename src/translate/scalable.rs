//! Scalable mode: root entry, context entry, PASID directory entry and PASID entry
//! (sections 3.4.3, 9.2 and 9.4 to 9.6).

use super::first_stage::FirstStage;
use super::second_stage::{Role, SecondStage};
use super::stages::{Stages, Tables};
use super::tables::{
    Capabilities, Purpose, Requester, Translated, entry_address, no_device_tlb, read_entry,
};
use super::{Diagnostic, Fault, TableMemory};
use crate::spec::fault::FaultReason;
use crate::spec::pasid::{
    DIRECTORY_ENTRY_SIZE, DirectoryEntry, PASID_ENTRY_QWORDS, PASID_ENTRY_SIZE,
    PASID_TABLE_ENTRIES, PasidEntry0, PasidEntry1, PasidEntry2, TranslationType,
};
use crate::spec::registers::RootTableAddress;
use crate::spec::root_context::{
    CONTEXT_ENTRY_SIZE, ContextHigh, ContextLow, ROOT_ENTRY_SIZE, RootEntryHalf,
};

/// Decode the context entry and PASID entry of a requester.
pub(super) fn decode<M: TableMemory + ?Sized>(
    memory: &M,
    capabilities: &Capabilities,
    root: RootTableAddress,
    requester: Requester,
    fault_disable: &mut bool,
) -> Result<Translated, Fault> {
    let table = root_entry(memory, capabilities, root, requester.source_id)?;
    let context = context_entry(
        memory,
        capabilities,
        table,
        requester.source_id,
        fault_disable,
    )?;
    let pasid = context.judge(requester)?;
    if matches!(
        requester.purpose,
        Purpose::Translated | Purpose::PageRequest
    ) {
        return Ok(context.translated(capabilities, pasid));
    }
    let directory = context.low.directory_address();
    let table = directory_entry(memory, capabilities, directory, pasid, fault_disable)?;
    let entry = pasid_entry(memory, capabilities, table, pasid, fault_disable)?;
    context.through(capabilities, pasid, &entry)
}

pub(super) fn root_entry<M: TableMemory + ?Sized>(
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
    if entry.reserved() != 0 || capabilities.beyond_width(entry.address()) {
        return Err(Fault::new(
            FaultReason::RootReserved,
            Diagnostic::RootReserved,
        ));
    }
    Ok(entry.address())
}

/// A context entry without reserved bits.
pub(super) struct Context {
    pub(super) low: ContextLow,
    high: ContextHigh,
}

impl Context {
    /// The PASID whose entry the request goes through (6.2.1).
    fn judge(&self, requester: Requester) -> Result<u32, Fault> {
        let refuse = |reason, diagnostic| Err(Fault::new(reason, diagnostic));
        if requester.purpose != Purpose::Untranslated && !self.low.device_tlb() {
            return Err(no_device_tlb(false));
        }
        if requester.pasid.is_some() && !self.low.pasid_enable() {
            return refuse(FaultReason::PasidDisabled, Diagnostic::PasidDisabled);
        }
        let pasid = requester.pasid.unwrap_or(self.high.rid_pasid());
        let directory_entries = 1_u32 << self.low.directory_size().saturating_add(7);
        if pasid / PASID_TABLE_ENTRIES >= directory_entries {
            let reason = if requester.pasid.is_some() {
                FaultReason::PasidBeyondDirectory
            } else {
                FaultReason::RidPasidBeyondDirectory
            };
            return refuse(reason, Diagnostic::PasidBeyondDirectory);
        }
        if requester.purpose == Purpose::PageRequest && !self.low.page_request() {
            return refuse(
                FaultReason::PageRequestDisabled,
                Diagnostic::PageRequestDisabled,
            );
        }
        Ok(pasid)
    }

    /// What it says by itself of the requests that go through the entry of `pasid`.
    fn translated(&self, capabilities: &Capabilities, pasid: u32) -> Translated {
        Translated {
            domain_id: 0,
            pasid,
            fault_disable: false,
            context_fault_disable: self.low.fault_disable(),
            device_tlb: self.low.device_tlb(),
            supervisor_request: false,
            execute_request: false,
            legacy: false,
            stages: Stages::PassThrough {
                width: capabilities.address_width,
                legacy: false,
            },
        }
    }

    /// What it and the entry of `pasid` say together.
    pub(super) fn through(
        &self,
        capabilities: &Capabilities,
        pasid: u32,
        entry: &PasidEntry,
    ) -> Result<Translated, Fault> {
        Ok(Translated {
            domain_id: entry.second.domain_id(),
            supervisor_request: entry.third.supervisor_request(),
            execute_request: entry.third.execute_request(),
            stages: entry.stages(capabilities)?,
            ..self.translated(capabilities, pasid)
        })
    }
}

pub(super) fn context_entry<M: TableMemory + ?Sized>(
    memory: &M,
    capabilities: &Capabilities,
    table: u64,
    source_id: u16,
    fault_disable: &mut bool,
) -> Result<Context, Fault> {
    let address = entry_address(table, u64::from(source_id & 0x7f), CONTEXT_ENTRY_SIZE);
    let [low, high, upper0, upper1] = read_entry(memory, address)
        .map_err(|()| Fault::new(FaultReason::ContextAccess, Diagnostic::ContextAccess))?;
    let low = ContextLow::from_bits(low);
    let high = ContextHigh::from_bits(high);
    *fault_disable |= low.fault_disable();
    if !low.present() {
        return Err(Fault::new(
            FaultReason::ContextNotPresent,
            Diagnostic::ContextNotPresent,
        ));
    }
    let reserved = |diagnostic| Err(Fault::new(FaultReason::ContextReserved, diagnostic));
    if low.reserved() != 0
        || high.reserved() != 0
        || upper0 != 0
        || upper1 != 0
        || capabilities.beyond_width(low.directory_address())
    {
        return reserved(Diagnostic::ContextReserved);
    }
    let ecap = capabilities.ecap;
    if (low.device_tlb() && !ecap.device_tlb())
        || (low.pasid_enable() && !ecap.pasid())
        || (low.page_request() && !ecap.page_request())
        || (high.rid_pasid() != 0 && !ecap.rid_pasid())
        || (high.rid_privilege() && !ecap.rid_privilege())
    {
        return reserved(Diagnostic::ContextCapability);
    }
    // Page requests come from devices with a TLB.
    if low.page_request() && !low.device_tlb() {
        return Err(Fault::new(
            FaultReason::ContextInvalid,
            Diagnostic::ContextPageRequest,
        ));
    }
    Ok(Context { low, high })
}

fn directory_entry<M: TableMemory + ?Sized>(
    memory: &M,
    capabilities: &Capabilities,
    directory: u64,
    pasid: u32,
    fault_disable: &mut bool,
) -> Result<u64, Fault> {
    let index = u64::from(pasid / PASID_TABLE_ENTRIES);
    let entry = memory
        .read(entry_address(directory, index, DIRECTORY_ENTRY_SIZE))
        .map_err(|_| Fault::new(FaultReason::DirectoryAccess, Diagnostic::DirectoryAccess))?;
    pasid_table(
        capabilities,
        DirectoryEntry::from_bits(entry),
        fault_disable,
    )
}

/// The PASID table that a directory entry leads to.
pub(super) fn pasid_table(
    capabilities: &Capabilities,
    entry: DirectoryEntry,
    fault_disable: &mut bool,
) -> Result<u64, Fault> {
    *fault_disable |= entry.fault_disable();
    if !entry.present() {
        return Err(Fault::new(
            FaultReason::DirectoryNotPresent,
            Diagnostic::DirectoryNotPresent,
        ));
    }
    if entry.reserved() != 0 || capabilities.beyond_width(entry.address()) {
        return Err(Fault::new(
            FaultReason::DirectoryReserved,
            Diagnostic::DirectoryReserved,
        ));
    }
    Ok(entry.address())
}

/// A PASID entry without reserved bits.
pub(super) struct PasidEntry {
    first: PasidEntry0,
    second: PasidEntry1,
    third: PasidEntry2,
}

fn pasid_entry<M: TableMemory + ?Sized>(
    memory: &M,
    capabilities: &Capabilities,
    table: u64,
    pasid: u32,
    fault_disable: &mut bool,
) -> Result<PasidEntry, Fault> {
    let index = u64::from(pasid % PASID_TABLE_ENTRIES);
    let qwords: [u64; PASID_ENTRY_QWORDS] =
        read_entry(memory, entry_address(table, index, PASID_ENTRY_SIZE))
            .map_err(|()| Fault::new(FaultReason::PasidAccess, Diagnostic::PasidAccess))?;
    PasidEntry::decode(capabilities, qwords, fault_disable)
}

impl PasidEntry {
    pub(super) fn decode(
        capabilities: &Capabilities,
        qwords: [u64; PASID_ENTRY_QWORDS],
        fault_disable: &mut bool,
    ) -> Result<Self, Fault> {
        let [first, second, third, upper @ ..] = qwords;
        let entry = Self {
            first: PasidEntry0::from_bits(first),
            second: PasidEntry1::from_bits(second),
            third: PasidEntry2::from_bits(third),
        };
        *fault_disable |= entry.first.fault_disable();
        if !entry.first.present() {
            return Err(Fault::new(
                FaultReason::PasidNotPresent,
                Diagnostic::PasidNotPresent,
            ));
        }
        let reserved = |diagnostic| Err(Fault::new(FaultReason::PasidReserved, diagnostic));
        if entry.first.reserved() != 0
            || entry.second.reserved() != 0
            || entry.third.reserved() != 0
            || upper.iter().any(|&qword| qword != 0)
        {
            return reserved(Diagnostic::PasidReserved);
        }
        if entry.lacks_capability(capabilities) {
            return reserved(Diagnostic::PasidCapability);
        }
        if entry.has_pointer_beyond(capabilities) {
            return reserved(Diagnostic::PasidTablePointer);
        }
        Ok(entry)
    }

    fn translation_type(&self) -> Option<TranslationType> {
        TranslationType::from_pgtt(self.first.translation_type())
    }

    /// Fields of capabilities that are not reported are reserved.
    fn lacks_capability(&self, capabilities: &Capabilities) -> bool {
        let Self {
            first,
            second,
            third,
        } = self;
        let ecap = capabilities.ecap;
        let supervisor = third.supervisor_request()
            || third.write_protect()
            || third.supervisor_execute_prevention();
        (supervisor && !ecap.supervisor_request())
            || (third.execute_request() && !ecap.execute_request())
            || (third.extended_accessed() && !ecap.extended_accessed())
            || (first.second_stage_execute() && !ecap.execute_request())
            || (first.second_stage_accessed_dirty() && !ecap.second_stage_accessed_dirty())
            || (second.page_snoop() && !ecap.snoop_control())
            || (second.memory_type_enable() && !ecap.memory_type())
    }

    /// The pointers that are in use. That of the first stage is an address of the
    /// second in nested translation, and judged there.
    fn has_pointer_beyond(&self, capabilities: &Capabilities) -> bool {
        let first = capabilities.beyond_width(self.third.first_stage_address());
        let second = capabilities.beyond_width(self.first.second_stage_address());
        match self.translation_type() {
            Some(TranslationType::FirstStage) => first,
            Some(TranslationType::SecondStage | TranslationType::Nested) => second,
            Some(TranslationType::PassThrough) | None => false,
        }
    }

    /// PGTT, FSPM and AW: the combinations that the capabilities allow (SPT.4).
    fn stages(&self, capabilities: &Capabilities) -> Result<Stages, Fault> {
        let invalid = |diagnostic| Fault::new(FaultReason::PasidInvalid, diagnostic);
        let ecap = capabilities.ecap;
        match self.translation_type() {
            Some(TranslationType::PassThrough) if ecap.pass_through() => Ok(Stages::PassThrough {
                width: capabilities.address_width,
                legacy: false,
            }),
            Some(TranslationType::FirstStage) if ecap.first_stage() => self
                .first_stage(capabilities)
                .map(Stages::FirstStage)
                .map_err(invalid),
            Some(TranslationType::SecondStage) if ecap.second_stage() => self
                .second_stage(capabilities, Role::Alone)
                .map(Stages::SecondStage)
                .map_err(invalid),
            Some(TranslationType::Nested) if ecap.nested() => {
                let first = self.first_stage(capabilities).map_err(invalid)?;
                let second = self
                    .second_stage(capabilities, Role::Nested)
                    .map_err(invalid)?;
                Ok(Stages::Nested(first, second))
            }
            _ => Err(invalid(Diagnostic::PasidTranslationType)),
        }
    }

    fn first_stage(&self, capabilities: &Capabilities) -> Result<Tables<FirstStage>, Diagnostic> {
        let levels = match self.third.paging_mode() {
            0 => 4,
            1 if capabilities.cap.first_stage_5_level() => 5,
            _ => return Err(Diagnostic::PasidPagingMode),
        };
        Ok(Tables {
            table: self.third.first_stage_address(),
            format: FirstStage {
                write_protect: self.third.write_protect(),
                no_execute: self.third.no_execute(),
                supervisor_execute_prevention: self.third.supervisor_execute_prevention(),
                extended_accessed: self.third.extended_accessed(),
                snoop: self.second.page_walk_snoop(),
                ..FirstStage::new(
                    levels,
                    capabilities.cap.first_stage_1g(),
                    capabilities.address_width,
                )
            },
        })
    }

    fn second_stage(
        &self,
        capabilities: &Capabilities,
        role: Role,
    ) -> Result<Tables<SecondStage>, Diagnostic> {
        let width = self.first.address_width();
        let levels = SecondStage::levels_of(width)
            .filter(|_| capabilities.has_width(width))
            .ok_or(Diagnostic::PasidAddressWidth)?;
        Ok(Tables {
            table: self.first.second_stage_address(),
            format: SecondStage {
                execute_enable: self.first.second_stage_execute(),
                accessed_dirty: self.first.second_stage_accessed_dirty(),
                snoop: self.second.page_walk_snoop(),
                ..SecondStage::reported(capabilities, levels, role)
            },
        })
    }
}
