//! From a requester to its translation (section 3.4), decoded once into a
//! [`Translated`] value. The direct walk and the host's nested HWPT are both made
//! from that value, so they cannot drift apart.

use super::stages::Stages;
use super::{Diagnostic, Fault, TableMemory, is_beyond, legacy, scalable};
use crate::spec::fault::FaultReason;
use crate::spec::registers::{Cap, Ecap, RootTableAddress, TableMode};

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

impl Capabilities {
    /// Table addresses beyond the address width are reserved bits of their entry.
    pub(super) fn beyond_width(&self, address: u64) -> bool {
        is_beyond(address, self.address_width)
    }

    /// Is an AW value of a context or PASID entry in CAP.SAGAW?
    pub(super) fn has_width(&self, address_width: u8) -> bool {
        let widths = self.cap.second_stage_widths();
        (1..=3).contains(&address_width)
            && widths.checked_shr(u32::from(address_width)).unwrap_or(0) & 1 != 0
    }

    /// The largest AW value of CAP.SAGAW, 0 without any.
    pub(super) fn largest_width(&self) -> u8 {
        (1..=3)
            .rev()
            .find(|&width| self.has_width(width))
            .unwrap_or(0)
    }
}

/// What the requester wants, as far as its entries judge it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// An untranslated request.
    Untranslated,
    /// A translation request (ATS).
    Translation,
    /// A translated request (ATS). Its address is final: the PASID table is not read.
    Translated,
    /// A page request (PRI). The PASID table is not read.
    PageRequest,
}

/// Whose translation is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requester {
    /// Requester ID.
    pub source_id: u16,
    /// PASID, if the request has one.
    pub pasid: Option<u32>,
    /// What for.
    pub purpose: Purpose,
}

impl Requester {
    /// Untranslated requests without PASID.
    pub fn plain(source_id: u16) -> Self {
        Self {
            source_id,
            pasid: None,
            purpose: Purpose::Untranslated,
        }
    }
}

/// How the requests of one PASID are translated: the decoded, validated content of
/// its context and PASID entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translated {
    /// DID; 0 where no entry that has one was read.
    pub domain_id: u16,
    /// PASID whose entry this is: of the request, or RID_PASID; 0 in legacy mode.
    pub pasid: u32,
    /// Faults are not recorded: FPD of the context, directory or PASID entry.
    pub fault_disable: bool,
    /// FPD of the context entry alone, which judges what is wrong with that entry.
    pub context_fault_disable: bool,
    /// Translation and translated requests are allowed: DTE, or TT 01b.
    pub device_tlb: bool,
    /// SRE: privileged requests are allowed.
    pub supervisor_request: bool,
    /// ERE: execute requests are allowed.
    pub execute_request: bool,
    /// Legacy mode.
    pub legacy: bool,
    /// The stages.
    pub stages: Stages,
}

impl Translated {
    /// May requests of this purpose be made? The same that looking up decides.
    ///
    /// # Errors
    /// The fault of a device whose entry has no device TLB.
    pub fn check_purpose(&self, purpose: Purpose) -> Result<(), Fault> {
        if purpose == Purpose::Untranslated || self.device_tlb {
            return Ok(());
        }
        Err(no_device_tlb(self.legacy))
    }

    /// May requests with these attributes be made?
    ///
    /// # Errors
    /// SPT.5 and SPT.6: ERE or SRE is 0.
    pub fn check_attributes(&self, execute: bool, privileged: bool) -> Result<(), Fault> {
        if execute && !self.execute_request {
            return Err(Fault::new(
                FaultReason::ExecuteDisabled,
                Diagnostic::ExecuteDisabled,
            ));
        }
        if privileged && !self.supervisor_request {
            return Err(Fault::new(
                FaultReason::SupervisorDisabled,
                Diagnostic::SupervisorDisabled,
            ));
        }
        Ok(())
    }
}

/// LCT.5 or SCT.5: the entry does not allow the device to have a TLB.
pub(super) fn no_device_tlb(legacy: bool) -> Fault {
    let reason = if legacy {
        FaultReason::LegacyRequestBlocked
    } else {
        FaultReason::DeviceTlbDisabled
    };
    Fault::new(reason, Diagnostic::DeviceTlbDisabled)
}

/// A fault on the way to the PASID entry, and whether to keep quiet about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableFault {
    /// Why.
    pub fault: Fault,
    /// FPD was set in an entry that was read, present or not.
    pub fault_disable: bool,
}

/// Find how the requests of `requester` are translated.
///
/// # Errors
/// The fault with which every such request is refused.
pub fn lookup<M: TableMemory + ?Sized>(
    memory: &M,
    capabilities: &Capabilities,
    root: RootTableAddress,
    requester: Requester,
) -> Result<Translated, TableFault> {
    let mut fault_disable = false;
    decode(memory, capabilities, root, requester, &mut fault_disable)
        .map(|translated| Translated {
            fault_disable,
            ..translated
        })
        .map_err(|fault| TableFault {
            fault,
            fault_disable,
        })
}

/// By RTADDR.TTM (11.4.5).
fn decode<M: TableMemory + ?Sized>(
    memory: &M,
    capabilities: &Capabilities,
    root: RootTableAddress,
    requester: Requester,
    fault_disable: &mut bool,
) -> Result<Translated, Fault> {
    let refuse = |reason, diagnostic| Err(Fault::new(reason, diagnostic));
    match TableMode::from(root) {
        TableMode::Legacy => match (requester.pasid, requester.purpose) {
            (_, Purpose::PageRequest) => {
                refuse(FaultReason::PageRequestLegacy, Diagnostic::LegacyMode)
            }
            (Some(_), _) => refuse(FaultReason::PasidInLegacyMode, Diagnostic::LegacyMode),
            (None, _) => legacy::decode(memory, capabilities, root, requester, fault_disable),
        },
        TableMode::Scalable if capabilities.ecap.scalable_mode() => {
            scalable::decode(memory, capabilities, root, requester, fault_disable)
        }
        TableMode::AbortDma if capabilities.ecap.abort_dma() => {
            refuse(FaultReason::AbortDma, Diagnostic::AbortDma)
        }
        TableMode::Scalable | TableMode::Reserved | TableMode::AbortDma => {
            refuse(FaultReason::RootTableMode, Diagnostic::TableMode)
        }
    }
}

/// Address of entry `index` of a table.
pub(super) fn entry_address(table: u64, index: u64, size: u64) -> u64 {
    table.wrapping_add(index.wrapping_mul(size))
}

/// Read an entry of `N` qwords; the first, which holds P, before the others, so
/// that an entry made present last is read whole.
pub(super) fn read_entry<M: TableMemory + ?Sized, const N: usize>(
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
