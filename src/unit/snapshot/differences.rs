//! A saved state is of a unit with the same capabilities, or is refused with the property
//! that differs.

use crate::spec::registers::{Cap, Ecap};
use crate::{Error, Result};

/// A field of CAP or ECAP, and the property of docs/capabilities.md that gives it.
struct Field {
    name: &'static str,
    property: &'static str,
    value: fn(Cap, Ecap) -> u64,
    /// What the property is to be for such a value.
    setting: fn(u64) -> String,
}

fn switch(value: u64) -> String {
    if value == 0 { "off" } else { "on" }.to_owned()
}

fn bits(value: u64) -> String {
    value.to_string()
}

macro_rules! fields {
    ($($name:literal, $property:literal, $setting:ident, $value:expr;)*) => {
        &[$(Field {
            name: $name,
            property: $property,
            value: $value,
            setting: $setting,
        }),*]
    };
}

/// In such an order that the first to differ is of the property that makes others differ.
const FIELDS: &[Field] = fields! {
    "CAP.MGAW+1", "aw-bits", bits, |cap, _| u64::from(cap.address_width()).saturating_add(1);
    "ECAP.SMTS", "scalable-mode", switch, |_, ecap| ecap.scalable_mode().into();
    "ECAP.FSTS", "first-stage", switch, |_, ecap| ecap.first_stage().into();
    "CAP.SAGAW", "second-stage", switch, |cap, _| cap.second_stage_widths().into();
    "ECAP.NEST", "nest", switch, |_, ecap| ecap.nested().into();
    "CAP.FS1GP", "fs1gp", switch, |cap, _| cap.first_stage_1g().into();
    "CAP.SSLPS(0)", "ss2m", switch, |cap, _| (cap.second_stage_large_pages() & 1).into();
    "CAP.SSLPS(1)", "ss1g", switch, |cap, _| (cap.second_stage_large_pages() & 2).into();
    "ECAP.SSADS", "slads", switch, |_, ecap| ecap.second_stage_accessed_dirty().into();
    "ECAP.EAFS", "eafs", switch, |_, ecap| ecap.extended_accessed().into();
    "ECAP.SC", "snoop-control", switch, |_, ecap| ecap.snoop_control().into();
    "CAP.CM", "caching-mode", switch, |cap, _| cap.caching_mode().into();
    "ECAP.PT", "pt", switch, |_, ecap| ecap.pass_through().into();
    "ECAP.DT", "device-iotlb", switch, |_, ecap| ecap.device_tlb().into();
    "ECAP.PRS", "prs", switch, |_, ecap| ecap.page_request().into();
    "ECAP.PSS+1", "pasid-bits", bits, |_, ecap| pasid_bits(ecap);
    "ECAP.SRS", "srs", switch, |_, ecap| ecap.supervisor_request().into();
    "ECAP.ERS", "ers", switch, |_, ecap| ecap.execute_request().into();
    "ECAP.RPS", "rid-pasid", switch, |_, ecap| ecap.rid_pasid().into();
    "ECAP.ADMS", "abort-dma", switch, |_, ecap| ecap.abort_dma().into();
    "ECAP.IR", "intremap", switch, |_, ecap| ecap.interrupt_remapping().into();
    "ECAP.EIM", "eim", switch, |_, ecap| ecap.extended_interrupt_mode().into();
};

fn pasid_bits(ecap: Ecap) -> u64 {
    if ecap.pasid() {
        u64::from(ecap.pasid_size()).saturating_add(1)
    } else {
        0
    }
}

/// Is `saved`, CAP and ECAP, what this unit has?
///
/// # Errors
/// `EINVAL`: the first thing that differs.
pub(super) fn compare(saved: [u64; 2], cap: Cap, ecap: Ecap) -> Result<()> {
    let [saved_cap, saved_ecap] = saved;
    if saved == [cap.into_bits(), ecap.into_bits()] {
        return Ok(());
    }
    let old = (Cap::from_bits(saved_cap), Ecap::from_bits(saved_ecap));
    for field in FIELDS {
        let (was, is) = ((field.value)(old.0, old.1), (field.value)(cap, ecap));
        if was != is {
            return Err(Error::invalid(format!(
                "the state was saved of a unit with {} {was:#x}, in this one it is {is:#x}; make \
                 the unit with {}={}",
                field.name,
                field.property,
                (field.setting)(was)
            )));
        }
    }
    Err(Error::invalid(format!(
        "the state was saved of a unit with CAP {saved_cap:#x} and ECAP {saved_ecap:#x}, this one \
         has {:#x} and {:#x}, and no property makes the difference; load it with the release that \
         saved it",
        cap.into_bits(),
        ecap.into_bits()
    )))
}
