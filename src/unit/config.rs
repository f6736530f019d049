//! What the unit is to be, and the capabilities that follow (11.4.2, 11.4.3).

use bitfield_struct::bitfield;

use crate::host::soft::{TwinConfig, capable_iommu};
use crate::spec::descriptors::MAX_HANDLE_MASK;
use crate::spec::registers::{Cap, Ecap, offset};
use crate::translate::tables::Capabilities;
use crate::{Error, Result};

/// Fault recording registers.
pub(super) const FAULT_RECORDS: usize = 8;

/// Address width unless another is asked for.
const DEFAULT_ADDRESS_WIDTH: u32 = 48;

/// PASIDs have at most 20 bits.
const MAX_PASID_BITS: u32 = 20;

/// Which host is behind the unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostKind {
    /// None: the unit walks the tables itself.
    None,
    /// The embedded software host.
    Soft,
    /// iommufd.
    Iommufd,
}

/// Faults to inject, for tests that must fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Inject {
    /// Drop every invalidation on its way to the host.
    pub drop_invalidations: bool,
    /// The software host refuses nested allocations with `ENOMEM`.
    pub refuse_alloc: bool,
}

/// What the guest is to be offered. The bits are those of the C ABI's
/// `NVTD_FEATURE_*`; docs/capabilities.md says which of CAP and ECAP each gives.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Features {
    /// CAP.CM: the guest announces entries that become present.
    pub caching_mode: bool,
    /// CAP.FS1GP: 1 GiB first-stage pages.
    pub first_stage_1g: bool,
    /// ECAP.PT: pass-through.
    pub pass_through: bool,
    /// ECAP.SMTS: scalable mode.
    pub scalable_mode: bool,
    /// ECAP.FSTS: first-stage translation; 5-level with an address width of 57.
    pub first_stage: bool,
    /// ECAP.SSTS and CAP.SAGAW: second-stage translation, legacy mode included.
    pub second_stage: bool,
    /// ECAP.NEST: nested translation.
    pub nested: bool,
    /// CAP.SSLPS: 2 MiB second-stage pages.
    pub second_stage_2m: bool,
    /// CAP.SSLPS: 1 GiB second-stage pages.
    pub second_stage_1g: bool,
    /// ECAP.SC: snoop control.
    pub snoop_control: bool,
    /// ECAP.SSADS: second-stage accessed and dirty bits.
    pub second_stage_accessed_dirty: bool,
    /// ECAP.DT: device TLBs (ATS).
    pub device_tlb: bool,
    /// ECAP.PRS and ECAP.PDS: page requests (PRI).
    pub page_request: bool,
    /// ECAP.IR: interrupt remapping.
    pub interrupt_remapping: bool,
    /// ECAP.EIM: x2APIC destinations.
    pub extended_interrupt_mode: bool,
    /// ECAP.EAFS: extended accessed bits.
    pub extended_accessed: bool,
    /// ECAP.SRS: privileged requests.
    pub supervisor_request: bool,
    /// ECAP.ERS: execute requests.
    pub execute_request: bool,
    /// ECAP.RPS: RID_PASID of the context entry.
    pub rid_pasid: bool,
    /// ECAP.ADMS: abort-DMA mode.
    pub abort_dma: bool,
    #[bits(44)]
    unknown: u64,
}

impl Features {
    /// Every bit that is defined.
    pub const DEFINED: u64 = 0xf_ffff;
}

/// What the unit is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Which host.
    pub host: HostKind,
    /// Faults to inject.
    pub inject: Inject,
    /// What the guest is offered.
    pub features: Features,
    /// Bits in a guest-physical address: 39, 48, 57, or 0 for 48.
    pub address_width: u32,
    /// Bits in a PASID: 1 to 20, or 0 for no requests with PASID.
    pub pasid_bits: u32,
    /// Walk again beside each use of a cached translation, and count those that a
    /// fresh walk contradicts. The software host does so anyway.
    pub oracle: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Config {
    /// First-stage translation of requests without PASID, which every host can be
    /// given.
    pub const DEFAULT: Self = Self {
        host: HostKind::None,
        inject: Inject {
            drop_invalidations: false,
            refuse_alloc: false,
        },
        features: Features::new()
            .with_caching_mode(true)
            .with_first_stage_1g(true)
            .with_pass_through(true)
            .with_scalable_mode(true)
            .with_first_stage(true),
        address_width: 0,
        pasid_bits: 0,
        oracle: false,
    };

    /// The capabilities that the guest sees.
    ///
    /// # Errors
    /// `EINVAL`: values that are not supported or do not go together.
    pub fn capabilities(&self) -> Result<Capabilities> {
        let address_width = match self.address_width {
            0 => DEFAULT_ADDRESS_WIDTH,
            width @ (39 | 48 | 57) => width,
            other => {
                return Err(Error::invalid(format!(
                    "an address width of {other} bits is not supported; use 39, 48 or 57, or 0 \
                     for 48"
                )));
            }
        };
        if self.pasid_bits > MAX_PASID_BITS {
            return Err(Error::invalid(format!(
                "PASIDs cannot have {} bits; use 0 to {MAX_PASID_BITS}",
                self.pasid_bits
            )));
        }
        let refusals = self.combinations(address_width).into_iter();
        let refusals = refusals.chain(self.host_combinations());
        for (refused, sentence) in refusals {
            if refused {
                return Err(Error::invalid(sentence));
            }
        }
        Ok(self.report(address_width))
    }

    /// The machine that the software host plays: what the guest is offered, and all that
    /// an assigned device may need of it, with addresses of the same width.
    ///
    /// # Errors
    /// As [`Self::capabilities`].
    pub(super) fn twin(&self) -> Result<TwinConfig> {
        let mut iommu = capable_iommu();
        iommu
            .cap
            .set_address_width(self.capabilities()?.cap.address_width());
        Ok(TwinConfig {
            iommus: vec![iommu],
            ..TwinConfig::default()
        })
    }

    /// What does not go together whoever translates: a condition, and what to do.
    fn combinations(&self, address_width: u32) -> [(bool, &'static str); 14] {
        let f = self.features;
        let pasid = self.pasid_bits > 0;
        [
            (
                f.unknown() != 0,
                "a feature bit is not defined; leave the bits beyond the defined ones 0",
            ),
            (
                !f.scalable_mode() && !f.second_stage(),
                "legacy mode has only second-stage tables; turn second-stage translation or \
                 scalable mode on",
            ),
            (
                !f.scalable_mode() && f.first_stage(),
                "first-stage translation needs scalable mode; turn scalable mode on or \
                 first-stage translation off",
            ),
            (
                !f.first_stage() && !f.second_stage(),
                "a unit needs a stage to translate with; turn first-stage or second-stage \
                 translation on",
            ),
            (
                f.nested() && !(f.first_stage() && f.second_stage()),
                "nested translation needs both stages; turn first-stage and second-stage \
                 translation on, or nested translation off",
            ),
            (
                address_width == 39 && f.first_stage(),
                "first-stage tables translate 48 bits or more; use an address width of 48 or \
                 57, or turn first-stage translation off",
            ),
            (
                pasid && !f.scalable_mode(),
                "requests with PASID need scalable mode; turn scalable mode on or use 0 PASID \
                 bits",
            ),
            (
                (f.second_stage_2m() || f.second_stage_1g()) && !f.second_stage(),
                "second-stage page sizes need second-stage translation; turn it on, or the \
                 page sizes off",
            ),
            (
                f.second_stage_accessed_dirty() && !(f.second_stage() && f.scalable_mode()),
                "second-stage accessed and dirty bits need second-stage translation and \
                 scalable mode; turn both on, or the bits off",
            ),
            (
                f.page_request() && !(f.device_tlb() && f.scalable_mode()),
                "page requests need device TLBs and scalable mode; turn both on, or page \
                 requests off",
            ),
            (
                f.extended_interrupt_mode() && !f.interrupt_remapping(),
                "extended interrupt mode needs interrupt remapping; turn it on, or extended \
                 interrupt mode off",
            ),
            (
                f.extended_accessed() && !f.first_stage(),
                "extended accessed bits need first-stage translation; turn it on, or the bits \
                 off",
            ),
            (
                (f.supervisor_request() || f.execute_request()) && !(f.first_stage() && pasid),
                "privileged and execute requests need first-stage translation and PASIDs; turn \
                 it on and use 1 to 20 PASID bits, or turn them off",
            ),
            (
                (f.rid_pasid() || f.abort_dma()) && !f.scalable_mode(),
                "RID_PASID and abort-DMA mode need scalable mode; turn scalable mode on, or \
                 them off",
            ),
        ]
    }

    /// What a host cannot be given.
    fn host_combinations(&self) -> [(bool, &'static str); 6] {
        let f = self.features;
        let host = self.host != HostKind::None;
        [
            (
                host && !f.caching_mode(),
                "a host needs caching mode: without it the guest does not announce PASID-table \
                 entries that become present; turn caching mode on, or select no host",
            ),
            (
                host && (f.second_stage() || !f.first_stage()),
                "a host takes first-stage tables only; turn first-stage translation on and \
                 second-stage translation off, or select no host",
            ),
            (
                host && f.execute_request(),
                "a host cannot be told of execute requests; turn them off, or select no host",
            ),
            (
                host && f.rid_pasid(),
                "a host has requests without PASID use PASID 0; turn RID_PASID off, or select \
                 no host",
            ),
            (
                self.host != HostKind::Soft && self.inject.refuse_alloc,
                "only the software host can be made to refuse; select it",
            ),
            (
                !host && self.inject != Inject::default(),
                "faults can be injected only into the calls on a host; select one",
            ),
        ]
    }

    /// CAP and ECAP: only what is there is reported.
    fn report(&self, address_width: u32) -> Capabilities {
        let f = self.features;
        let widths = match (f.second_stage(), address_width) {
            (false, _) => 0,
            (true, 39) => 0b0010,
            (true, 57) => 0b1110,
            (true, _) => 0b0110,
        };
        let large_pages = u8::from(f.second_stage_2m()) | (u8::from(f.second_stage_1g()) << 1);
        let cap = Cap::new()
            .with_domains(6)
            .with_caching_mode(f.caching_mode())
            .with_second_stage_widths(widths)
            .with_address_width(u8::try_from(address_width.saturating_sub(1)).unwrap_or(0))
            .with_fault_offset((offset::FRCD >> 4) as u16)
            .with_second_stage_large_pages(large_pages)
            .with_page_selective(true)
            .with_fault_records((FAULT_RECORDS - 1) as u8)
            .with_max_address_mask(18)
            .with_write_drain(true)
            .with_read_drain(true)
            .with_first_stage_1g(f.first_stage_1g() && f.first_stage())
            .with_first_stage_5_level(f.first_stage() && address_width == 57)
            .with_sirtp_invalidates(f.interrupt_remapping())
            .with_srtp_invalidates(true);
        let ecap = Ecap::new()
            .with_coherent(true)
            .with_queued_invalidation(true)
            .with_device_tlb(f.device_tlb())
            .with_interrupt_remapping(f.interrupt_remapping())
            .with_extended_interrupt_mode(f.extended_interrupt_mode())
            .with_pass_through(f.pass_through())
            .with_snoop_control(f.snoop_control())
            .with_iotlb_offset((offset::IVA >> 4) as u16)
            .with_max_handle_mask(if f.interrupt_remapping() {
                MAX_HANDLE_MASK
            } else {
                0
            })
            .with_nested(f.nested())
            .with_page_request(f.page_request())
            .with_execute_request(f.execute_request())
            .with_supervisor_request(f.supervisor_request())
            .with_extended_accessed(f.extended_accessed())
            .with_pasid_size(u8::try_from(self.pasid_bits.saturating_sub(1)).unwrap_or(0))
            .with_pasid(self.pasid_bits > 0)
            .with_page_request_drain(f.page_request())
            .with_scalable_mode(f.scalable_mode())
            .with_second_stage_accessed_dirty(f.second_stage_accessed_dirty())
            .with_second_stage(f.second_stage() && f.scalable_mode())
            .with_first_stage(f.first_stage())
            .with_page_walk_coherent(f.scalable_mode())
            .with_rid_pasid(f.rid_pasid())
            .with_abort_dma(f.abort_dma());
        Capabilities {
            cap,
            ecap,
            address_width,
        }
    }
}
