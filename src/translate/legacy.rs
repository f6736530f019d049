//! Legacy mode: root entry and context entry (sections 3.4.2, 9.1 and 9.3).

use super::second_stage::{Role, SecondStage};
use super::stages::{Stages, Tables};
use super::tables::{
    Capabilities, Purpose, Requester, Translated, entry_address, no_device_tlb, read_entry,
};
use super::{Diagnostic, Fault, TableMemory};
use crate::spec::fault::FaultReason;
use crate::spec::registers::RootTableAddress;
use crate::spec::root_context::{
    LEGACY_CONTEXT_ENTRY_SIZE, LegacyContextHigh, LegacyContextLow, LegacyRootLow, ROOT_ENTRY_SIZE,
};

/// Translation types, TT (9.3).
const UNTRANSLATED_ONLY: u8 = 0;
const ALL_REQUESTS: u8 = 1;
const PASS_THROUGH: u8 = 2;

/// Decode the context entry of a requester.
pub(super) fn decode<M: TableMemory + ?Sized>(
    memory: &M,
    capabilities: &Capabilities,
    root: RootTableAddress,
    requester: Requester,
    fault_disable: &mut bool,
) -> Result<Translated, Fault> {
    let [bus, devfn] = requester.source_id.to_be_bytes();
    let table = root_entry(memory, capabilities, root, bus)?;
    let address = entry_address(table, u64::from(devfn), LEGACY_CONTEXT_ENTRY_SIZE);
    let [low, high] = read_entry(memory, address)
        .map_err(|()| Fault::new(FaultReason::LegacyContextAccess, Diagnostic::ContextAccess))?;
    let low = LegacyContextLow::from_bits(low);
    let high = LegacyContextHigh::from_bits(high);
    *fault_disable |= low.fault_disable();
    if !low.present() {
        return Err(Fault::new(
            FaultReason::LegacyContextNotPresent,
            Diagnostic::ContextNotPresent,
        ));
    }
    let translation_type = low.translation_type();
    let beyond =
        translation_type != PASS_THROUGH && capabilities.beyond_width(low.second_stage_address());
    if low.reserved() != 0 || high.reserved0() || high.reserved1() != 0 || beyond {
        return Err(Fault::new(
            FaultReason::LegacyContextReserved,
            Diagnostic::ContextReserved,
        ));
    }
    let stages = stages(capabilities, low, high)?;
    let device_tlb = translation_type == ALL_REQUESTS;
    if requester.purpose != Purpose::Untranslated && !device_tlb {
        return Err(no_device_tlb(true));
    }
    Ok(Translated {
        domain_id: high.domain_id(),
        pasid: 0,
        fault_disable: false,
        context_fault_disable: low.fault_disable(),
        device_tlb,
        supervisor_request: false,
        execute_request: false,
        legacy: true,
        stages,
    })
}

fn root_entry<M: TableMemory + ?Sized>(
    memory: &M,
    capabilities: &Capabilities,
    root: RootTableAddress,
    bus: u8,
) -> Result<u64, Fault> {
    let address = entry_address(root.address(), u64::from(bus), ROOT_ENTRY_SIZE);
    let [low, high] = read_entry(memory, address)
        .map_err(|()| Fault::new(FaultReason::LegacyRootAccess, Diagnostic::RootAccess))?;
    let low = LegacyRootLow::from_bits(low);
    if !low.present() {
        return Err(Fault::new(
            FaultReason::LegacyRootNotPresent,
            Diagnostic::RootNotPresent,
        ));
    }
    if low.reserved() != 0 || high != 0 || capabilities.beyond_width(low.address()) {
        return Err(Fault::new(
            FaultReason::LegacyRootReserved,
            Diagnostic::RootReserved,
        ));
    }
    Ok(low.address())
}

/// TT and AW: the combinations that the capabilities allow (LCT.4).
fn stages(
    capabilities: &Capabilities,
    low: LegacyContextLow,
    high: LegacyContextHigh,
) -> Result<Stages, Fault> {
    let invalid = |diagnostic| Fault::new(FaultReason::ContextInvalidLegacy, diagnostic);
    let ecap = capabilities.ecap;
    let width = high.address_width();
    match low.translation_type() {
        UNTRANSLATED_ONLY => {}
        ALL_REQUESTS if ecap.device_tlb() => {}
        PASS_THROUGH if ecap.pass_through() => {
            // The width is that of the largest tables, though there are none.
            if !capabilities.has_width(width) || width != capabilities.largest_width() {
                return Err(invalid(Diagnostic::ContextAddressWidth));
            }
            return Ok(Stages::PassThrough {
                width: capabilities.address_width,
                legacy: true,
            });
        }
        _ => return Err(invalid(Diagnostic::ContextTranslationType)),
    }
    let levels = SecondStage::levels_of(width)
        .filter(|_| capabilities.has_width(width))
        .ok_or(invalid(Diagnostic::ContextAddressWidth))?;
    Ok(Stages::SecondStage(Tables {
        table: low.second_stage_address(),
        format: SecondStage::reported(capabilities, levels, Role::Legacy),
    }))
}
