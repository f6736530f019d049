//! What the Intel driver knows of an IOMMU, and what it checks against that.

use std::collections::BTreeMap;

use super::domain::{Format, Paging};
use crate::host::uapi::{VTD_S1_EAFE, VTD_S1_SRE, VTD_S1_WPE};
use crate::host::{Errno, HwInfo, VtdS1};
use crate::spec::fault::FaultReason;
use crate::spec::pasid::PasidEntry2;
use crate::spec::registers::Cap;
use crate::translate::first_stage::FirstStage;
use crate::translate::{Diagnostic, Fault};

/// Widths of a first-stage table's input addresses.
const FOUR_LEVELS: u32 = 48;
const FIVE_LEVELS: u32 = 57;

/// Domain IDs that the driver does not give: 0 and 1.
const RESERVED_DOMAIN_IDS: usize = 2;

/// An IOMMU.
#[derive(Debug)]
pub(super) struct Iommu {
    pub info: HwInfo,
    /// Domains that have a domain ID here, and how many attachments each.
    domain_ids: BTreeMap<u64, u32>,
}

impl Iommu {
    pub fn new(info: HwInfo) -> Self {
        Self {
            info,
            domain_ids: BTreeMap::new(),
        }
    }

    /// A domain is attached once more (`domain_attach_iommu`).
    pub fn hold_domain_id(&mut self, domain: u64) -> Result<(), Errno> {
        let most = 1_usize
            .checked_shl(
                u32::from(self.info.cap.domains())
                    .wrapping_mul(2)
                    .wrapping_add(4),
            )
            .unwrap_or(usize::MAX);
        if !self.domain_ids.contains_key(&domain)
            && self.domain_ids.len() >= most.saturating_sub(RESERVED_DOMAIN_IDS)
        {
            return Err(libc::ENOSPC);
        }
        let users = self.domain_ids.entry(domain).or_default();
        *users = users.saturating_add(1);
        Ok(())
    }

    /// Once less.
    pub fn put_domain_id(&mut self, domain: u64) {
        if let Some(users) = self.domain_ids.get_mut(&domain) {
            *users = users.saturating_sub(1);
            if *users == 0 {
                self.domain_ids.remove(&domain);
            }
        }
    }
}

/// MGAW in bits.
fn guest_width(cap: Cap) -> u32 {
    u32::from(cap.address_width()).saturating_add(1)
}

impl HwInfo {
    /// `pasid_supported`.
    pub(super) fn has_pasid(&self) -> bool {
        self.ecap.scalable_mode() && self.ecap.pasid()
    }

    /// `nested_supported`.
    pub(super) fn has_nesting(&self) -> bool {
        self.ecap.scalable_mode() && self.ecap.nested()
    }

    /// `ssads_supported`.
    pub(super) fn has_dirty_tracking(&self) -> bool {
        let Self { ecap, .. } = self;
        ecap.scalable_mode() && ecap.second_stage_accessed_dirty() && ecap.page_walk_coherent()
    }

    /// `iommu_paging_structure_coherency`.
    fn is_coherent(&self) -> bool {
        if self.ecap.scalable_mode() {
            self.ecap.page_walk_coherent()
        } else {
            self.ecap.coherent()
        }
    }

    /// Are first stages to be had?
    pub(super) fn has_first_stage(&self) -> bool {
        self.ecap.scalable_mode() && self.ecap.first_stage()
    }

    /// Are second stages to be had?
    pub(super) fn has_second_stage(&self) -> bool {
        !self.ecap.scalable_mode() || self.ecap.second_stage()
    }

    /// The first-stage format for an IOAS's maps here.
    pub(super) fn first_stage_format(&self) -> Format {
        let width = guest_width(self.cap);
        let (levels, most) = if width > FOUR_LEVELS && self.cap.first_stage_5_level() {
            (5, FIVE_LEVELS)
        } else {
            (4, FOUR_LEVELS)
        };
        Format {
            first_stage: true,
            width: width.min(most),
            levels,
            pages_2m: true,
            pages_1g: self.cap.first_stage_1g(),
            incoherent: !self.ecap.page_walk_coherent(),
            sync_map: self.cap.write_buffer_flush(),
            force_snoop: self.ecap.snoop_control(),
        }
    }

    /// The second-stage format: the widest that MGAW and SAGAW have in common.
    pub(super) fn second_stage_format(&self) -> Result<Format, Errno> {
        let width = guest_width(self.cap);
        let widths = self.cap.second_stage_widths();
        // Bit n of SAGAW is a table of n + 2 levels. The driver takes one with more levels
        // than the width needs, if there is one.
        let levels = |bit: u8| {
            let above = widths
                .checked_shr(u32::from(bit).saturating_add(1))
                .unwrap_or(0);
            let more = if above == 0 {
                0
            } else {
                above.trailing_zeros().saturating_add(1)
            };
            u32::from(bit).saturating_add(2).saturating_add(more)
        };
        let (levels, most) = if width > 48 && widths >= 1 << 3 {
            (5, 57)
        } else if width > 39 && widths >= 1 << 2 {
            (levels(2), 48)
        } else if width > 30 && widths >= 1 << 1 {
            (levels(1), 39)
        } else {
            return Err(libc::EOPNOTSUPP);
        };
        if levels > 5 {
            return Err(libc::EOPNOTSUPP);
        }
        let large = self.cap.second_stage_large_pages();
        Ok(Format {
            first_stage: false,
            width: width.min(most),
            levels,
            pages_2m: large & 1 != 0,
            pages_1g: large & 2 != 0,
            incoherent: !self.is_coherent(),
            sync_map: self.cap.write_buffer_flush() || self.cap.caching_mode(),
            force_snoop: self.ecap.snoop_control(),
        })
    }

    /// Can a domain be used here (`paging_domain_compatible`)?
    pub(super) fn check_domain(&self, domain: &Paging) -> Result<(), Errno> {
        let format = &domain.format;
        let ok = if format.first_stage {
            self.has_first_stage()
                && (self.ecap.page_walk_coherent() || format.incoherent)
                && (self.cap.first_stage_5_level() || format.width <= FOUR_LEVELS)
                && (self.cap.first_stage_1g() || !format.pages_1g)
                && (!self.cap.write_buffer_flush() || format.sync_map)
        } else {
            let large = self.cap.second_stage_large_pages();
            let widths = self.cap.second_stage_widths();
            (domain.dirty.is_none() || self.has_dirty_tracking())
                && (!domain.nest_parent || self.has_nesting())
                && self.has_second_stage()
                && (self.is_coherent() || format.incoherent)
                && guest_width(self.cap) >= format.width
                && (widths >> format.levels.saturating_sub(2)) & 1 != 0
                && (large & 1 != 0 || !format.pages_2m)
                && (large & 2 != 0 || !format.pages_1g)
                && (!(self.cap.write_buffer_flush() || self.cap.caching_mode()) || format.sync_map)
                && (!format.force_snoop || self.ecap.snoop_control())
        };
        if ok { Ok(()) } else { Err(libc::EINVAL) }
    }

    /// What the driver checks of a guest's table, only when it programs the PASID entry
    /// (`intel_pasid_setup_nested`).
    pub(super) fn check_first_stage(&self, data: &VtdS1) -> Result<(), Errno> {
        let width = match data.addr_width {
            FOUR_LEVELS => true,
            FIVE_LEVELS => self.cap.first_stage_5_level(),
            _ => false,
        };
        if width
            && supported(data, VTD_S1_SRE, self.ecap.supervisor_request())
            && supported(data, VTD_S1_EAFE, self.ecap.extended_accessed())
        {
            Ok(())
        } else {
            Err(libc::EINVAL)
        }
    }

    /// How the hardware reads a table with this third qword of its PASID entry.
    ///
    /// # Errors
    /// The fault of every request: reserved values.
    pub(super) fn first_stage(&self, entry: PasidEntry2, snoop: bool) -> Result<FirstStage, Fault> {
        let Self { cap, ecap } = *self;
        let levels = match entry.paging_mode() {
            0 => 4,
            1 if cap.first_stage_5_level() => 5,
            _ => {
                return Err(Fault::new(
                    FaultReason::PasidInvalid,
                    Diagnostic::PasidPagingMode,
                ));
            }
        };
        let supervisor = entry.supervisor_request()
            || entry.write_protect()
            || entry.supervisor_execute_prevention();
        if entry.reserved() != 0 {
            return Err(Fault::new(
                FaultReason::PasidReserved,
                Diagnostic::PasidReserved,
            ));
        }
        if (supervisor && !ecap.supervisor_request())
            || (entry.execute_request() && !ecap.execute_request())
            || (entry.extended_accessed() && !ecap.extended_accessed())
        {
            return Err(Fault::new(
                FaultReason::PasidReserved,
                Diagnostic::PasidCapability,
            ));
        }
        Ok(FirstStage {
            write_protect: entry.write_protect(),
            no_execute: entry.no_execute(),
            supervisor_execute_prevention: entry.supervisor_execute_prevention(),
            extended_accessed: entry.extended_accessed(),
            snoop,
            ..FirstStage::new(levels, cap.first_stage_1g(), guest_width(cap))
        })
    }

    /// Bits in the PASIDs of a device with `bits`, as the driver enables them; 0 for none.
    pub(super) fn pasid_bits(&self, bits: u32) -> u32 {
        if self.has_pasid() {
            bits.min(u32::from(self.ecap.pasid_size()).saturating_add(1))
        } else {
            0
        }
    }

    /// Can a device with ATS and PRI request pages here?
    pub(super) fn has_page_requests(&self) -> bool {
        self.ecap.scalable_mode()
            && self.ecap.device_tlb()
            && self.ecap.page_request()
            && self.ecap.page_request_drain()
    }
}

/// The third qword of a PASID entry as the driver writes it
/// (`pasid_pte_config_nested`). It does not mask the low bits of the table's address, so
/// they become flags.
pub(super) fn pasid_entry(data: &VtdS1) -> PasidEntry2 {
    let supervisor = data.flags & VTD_S1_SRE != 0;
    let flags = PasidEntry2::new()
        .with_paging_mode(u8::from(data.addr_width == FIVE_LEVELS))
        .with_supervisor_request(supervisor)
        .with_write_protect(supervisor && data.flags & VTD_S1_WPE != 0)
        .with_extended_accessed(data.flags & VTD_S1_EAFE != 0);
    PasidEntry2::from_bits(flags.into_bits() | data.pgtbl_addr)
}

fn supported(data: &VtdS1, flag: u64, has: bool) -> bool {
    data.flags & flag == 0 || has
}
