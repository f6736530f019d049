//! What unit there is: the header of an input.

use nested_vtd::unit::{Config, Features, HostKind};

use super::world::Mode;
use crate::input::{Bytes, pick};
use crate::world::ALL;

/// What a header says. All zeros: the plainest unit.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    pub mode: Mode,
    pub config: Config,
    /// Assigned devices are on two iommufds that are lent.
    pub two_iommufds: bool,
    /// The driver has started the unit.
    pub enabled: bool,
    /// Devices that are there at first, a bit for each.
    pub devices: u8,
    /// RAM beside that at 0.
    pub read_only: bool,
    pub window: bool,
}

/// What a guest with a host behind its unit can be offered.
const WITH_HOST: Features = Config::DEFAULT
    .features
    .with_device_tlb(true)
    .with_page_request(true)
    .with_interrupt_remapping(true)
    .with_extended_interrupt_mode(true)
    .with_extended_accessed(true)
    .with_supervisor_request(true)
    .with_abort_dma(true);

impl Setup {
    /// Bytes: mode; host; features that are left out, 4; address width; PASID bits; flags; devices that
    /// are not there.
    pub fn decode(header: &[u8]) -> Self {
        let mut bytes = Bytes::new(header);
        let mode = pick(
            &[
                Mode::First,
                Mode::Nested,
                Mode::Second,
                Mode::Legacy,
                Mode::Empty,
            ],
            bytes.byte(),
        );
        let host = match (mode, bytes.byte() % 4) {
            (Mode::First | Mode::Empty, 0 | 3) => HostKind::Iommufd,
            (Mode::First | Mode::Empty, 1) => HostKind::Soft,
            _ => HostKind::None,
        };
        let without = u64::from(bytes.u32());
        let all = if host == HostKind::None {
            ALL
        } else {
            WITH_HOST
        };
        let features = Features::from_bits(all.into_bits() & !without);
        let address_width = pick(&[48, 57, 39, 0], bytes.byte());
        let pasid_bits = pick(&[20, 7, 0, 10], bytes.byte());
        let flags = bytes.byte();
        let config = Config {
            host,
            features,
            address_width,
            pasid_bits,
            oracle: flags & 1 == 0,
            ..Config::DEFAULT
        };
        let mut setup = Self {
            mode,
            config,
            two_iommufds: flags & 2 != 0,
            enabled: flags & 4 == 0,
            devices: !bytes.byte(),
            read_only: flags & 8 == 0,
            window: flags & 16 != 0,
        };
        // What does not go together is refused; then all there is is offered.
        if setup.config.capabilities().is_err() {
            setup.config.features = all;
            setup.config.address_width = 48;
            setup.config.pasid_bits = 20;
        }
        setup
    }
}
