//! CAP and ECAP (11.4.2, 11.4.3), as the guest reads them.

use super::{bit, field, mask};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    pub cap: u64,
    pub ecap: u64,
    /// The host address width (HAW): the DMAR table has it, no register.
    pub host_width: u32,
}

impl Capabilities {
    /// CM.
    pub fn caching_mode(&self) -> bool {
        bit(self.cap, 7)
    }
    /// Widths of the second stage: SAGAW bit n is a table of n + 2 levels.
    pub fn second_stage_levels(&self, levels: u32) -> bool {
        (3..=5).contains(&levels) && bit(self.cap, 8 + levels - 2)
    }
    /// The largest of SAGAW, in levels.
    pub fn most_levels(&self) -> Option<u32> {
        (3..=5)
            .rev()
            .find(|&levels| self.second_stage_levels(levels))
    }
    /// MGAW is the number of bits less one.
    pub fn guest_width(&self) -> u32 {
        field(self.cap, 21, 16) as u32 + 1
    }
    /// SSLPS.
    pub fn second_stage_2m(&self) -> bool {
        bit(self.cap, 34)
    }
    pub fn second_stage_1g(&self) -> bool {
        bit(self.cap, 35)
    }
    /// FS1GP.
    pub fn first_stage_1g(&self) -> bool {
        bit(self.cap, 56)
    }
    /// FS5LP.
    pub fn first_stage_5_level(&self) -> bool {
        bit(self.cap, 60)
    }
    /// DT.
    pub fn device_tlb(&self) -> bool {
        bit(self.ecap, 2)
    }
    /// PT.
    pub fn pass_through(&self) -> bool {
        bit(self.ecap, 6)
    }
    /// SC.
    pub fn snoop_control(&self) -> bool {
        bit(self.ecap, 7)
    }
    /// MTS.
    pub fn memory_types(&self) -> bool {
        bit(self.ecap, 25)
    }
    /// NEST.
    pub fn nested(&self) -> bool {
        bit(self.ecap, 26)
    }
    /// PRS.
    pub fn page_requests(&self) -> bool {
        bit(self.ecap, 29)
    }
    /// ERS.
    pub fn execute(&self) -> bool {
        bit(self.ecap, 30)
    }
    /// SRS.
    pub fn supervisor(&self) -> bool {
        bit(self.ecap, 31)
    }
    /// EAFS.
    pub fn extended_accessed(&self) -> bool {
        bit(self.ecap, 34)
    }
    /// PASID.
    pub fn pasid(&self) -> bool {
        bit(self.ecap, 40)
    }
    /// SMTS.
    pub fn scalable_mode(&self) -> bool {
        bit(self.ecap, 43)
    }
    /// SSADS.
    pub fn second_stage_accessed_dirty(&self) -> bool {
        bit(self.ecap, 45)
    }
    /// SSTS.
    pub fn second_stage(&self) -> bool {
        bit(self.ecap, 46)
    }
    /// FSTS.
    pub fn first_stage(&self) -> bool {
        bit(self.ecap, 47)
    }
    /// SMPWCS.
    pub fn page_walk_snoop(&self) -> bool {
        bit(self.ecap, 48)
    }
    /// RPS.
    pub fn rid_pasid(&self) -> bool {
        bit(self.ecap, 49)
    }
    /// ADMS.
    pub fn abort_dma(&self) -> bool {
        bit(self.ecap, 52)
    }
    /// RPRIVS.
    pub fn rid_privilege(&self) -> bool {
        bit(self.ecap, 53)
    }

    /// Bits of a table's address that must be 0, being beyond the host's addresses.
    pub fn beyond_host(&self) -> u64 {
        mask(63, self.host_width)
    }

    /// The same in a paging entry, whose bits 63:52 have other meanings.
    pub fn beyond_host_in_entry(&self) -> u64 {
        if self.host_width >= 52 {
            0
        } else {
            mask(51, self.host_width)
        }
    }
}
