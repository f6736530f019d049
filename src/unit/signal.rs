//! Event interrupts: the control, data and address registers of one source
//! (11.4.7.2 to 11.4.7.5 and 11.4.9.5 to 11.4.9.8).

use super::outbox::Outbox;
use super::regmap::EventRegister;
use super::snapshot::format::{Fields, Section, check};
use crate::Result;
use crate::spec::registers::EventControl;

/// One interrupt source.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signal {
    control: EventControl,
    data: u32,
    address: u32,
    upper_address: u32,
}

impl Default for Signal {
    /// After reset the interrupt is masked.
    fn default() -> Self {
        Self {
            control: EventControl::new().with_masked(true),
            data: 0,
            address: 0,
            upper_address: 0,
        }
    }
}

impl Signal {
    pub fn read(&self, register: EventRegister) -> u32 {
        match register {
            EventRegister::Control => self.control.into_bits(),
            EventRegister::Data => self.data,
            EventRegister::Address => self.address,
            EventRegister::UpperAddress => self.upper_address,
        }
    }

    /// Unmasking sends the interrupt that waited.
    pub fn write(&mut self, register: EventRegister, value: u32, out: &mut Outbox) {
        match register {
            EventRegister::Control => {
                self.control
                    .set_masked(EventControl::from_bits(value).masked());
                if self.control.pending() {
                    self.raise(out);
                }
            }
            EventRegister::Data => self.data = value,
            EventRegister::Address => self.address = value & !3,
            EventRegister::UpperAddress => self.upper_address = value,
        }
    }

    /// The condition came up: send the interrupt, or remember it while masked.
    pub fn raise(&mut self, out: &mut Outbox) {
        self.control.set_pending(self.control.masked());
        if !self.control.masked() {
            let address = u64::from(self.address) | (u64::from(self.upper_address) << 32);
            out.msi(address, self.data);
        }
    }

    /// Software has dealt with the condition: an interrupt that waited is void.
    pub fn settle(&mut self) {
        self.control.set_pending(false);
    }
    /// Into a saved state.
    pub fn save(&self, section: &mut Section) {
        section.u32(self.control.into_bits());
        section.u32(self.data);
        section.u32(self.address);
        section.u32(self.upper_address);
    }

    /// From a saved state: the registers whose names begin with `letters`, and what the
    /// interrupt is for and whether that has come up.
    ///
    /// # Errors
    /// `EINVAL`: they cannot be so.
    pub fn load(fields: &mut Fields<'_>, letters: &str, cause: (&str, bool)) -> Result<Self> {
        let name = |register: &str| format!("{letters}{register}");
        let known = EventControl::new().with_masked(true).with_pending(true);
        let control = EventControl::from_bits(fields.bits32(&name("CTL"), known.into_bits())?);
        let waits = control.pending();
        check(!waits || control.masked(), || {
            format!(
                "{} is 1 while IM is 0; an interrupt that is not masked was sent",
                name("CTL.IP")
            )
        })?;
        let (of, is_up) = cause;
        check(!waits || is_up, || {
            format!(
                "{} is 1 but nothing of {of}; an interrupt waits only for what has come up",
                name("CTL.IP")
            )
        })?;
        let data = fields.u32(&name("DATA"))?;
        let address = fields.bits32(&name("ADDR"), !3)?;
        Ok(Self {
            control,
            data,
            address,
            upper_address: fields.u32(&name("UADDR"))?,
        })
    }
}
