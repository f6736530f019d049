//! What the unit is to be, and the capabilities that follow (11.4.2, 11.4.3).

use crate::spec::registers::{Cap, Ecap, offset};
use crate::translate::tables::Capabilities;
use crate::{Error, Result};

/// Fault recording registers.
pub(super) const FAULT_RECORDS: usize = 8;

/// The one address width there is: 4-level tables and 48-bit guest-physical
/// addresses.
const ADDRESS_WIDTH: u32 = 48;

/// Which host is behind the unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostKind {
    /// None: the unit walks the tables itself.
    None,
    /// The embedded software host.
    Soft,
}

/// Faults to inject, for tests that must fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Inject {
    /// Drop every invalidation on its way to the host.
    pub drop_invalidations: bool,
    /// The software host refuses nested allocations with `ENOMEM`.
    pub refuse_alloc: bool,
}

/// What the unit is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Which host.
    pub host: HostKind,
    /// Faults to inject.
    pub inject: Inject,
    /// CAP.CM.
    pub caching_mode: bool,
    /// CAP.FS1GP.
    pub first_stage_1g: bool,
    /// ECAP.PT.
    pub pass_through: bool,
    /// Bits in an address: 48, or 0 for the widest supported.
    pub address_width: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            host: HostKind::None,
            inject: Inject::default(),
            caching_mode: true,
            first_stage_1g: true,
            pass_through: true,
            address_width: 0,
        }
    }
}

impl Config {
    /// The capabilities that the guest sees.
    ///
    /// # Errors
    /// `EINVAL`: values that are not supported or do not go together.
    pub fn capabilities(&self) -> Result<Capabilities> {
        let address_width = match self.address_width {
            0 => ADDRESS_WIDTH,
            ADDRESS_WIDTH => ADDRESS_WIDTH,
            other => {
                return Err(Error::invalid(format!(
                    "an address width of {other} bits is not supported; use 48, or 0 for the \
                     widest"
                )));
            }
        };
        if self.host != HostKind::None && !self.caching_mode {
            return Err(Error::invalid(
                "a host needs caching mode: without it the guest does not announce PASID-table \
                 entries that become present; turn caching mode on, or select no host",
            ));
        }
        if self.host == HostKind::None && self.inject != Inject::default() {
            return Err(Error::invalid(
                "faults can be injected only into the calls on a host; select the software host",
            ));
        }
        // Only what is there is reported. Without second-stage translation SAGAW is
        // 0, and so is everything that speaks of second-stage tables.
        let cap = Cap::new()
            .with_domains(6)
            .with_caching_mode(self.caching_mode)
            .with_address_width(47)
            .with_fault_offset((offset::FRCD >> 4) as u16)
            .with_page_selective(true)
            .with_fault_records((FAULT_RECORDS - 1) as u8)
            .with_max_address_mask(18)
            .with_write_drain(true)
            .with_read_drain(true)
            .with_first_stage_1g(self.first_stage_1g)
            .with_srtp_invalidates(true);
        let ecap = Ecap::new()
            .with_coherent(true)
            .with_queued_invalidation(true)
            .with_pass_through(self.pass_through)
            .with_iotlb_offset((offset::IVA >> 4) as u16)
            .with_scalable_mode(true)
            .with_first_stage(true)
            .with_page_walk_coherent(true);
        Ok(Capabilities {
            cap,
            ecap,
            address_width,
        })
    }
}
