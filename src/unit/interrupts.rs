//! Interrupt remapping as the guest programs it (5.1, 11.4.4, 11.4.10).

use super::outbox::Outbox;
use super::{State, Unit};
use crate::spec::registers::{Global, InterruptTableAddress};

/// Registers of interrupt remapping.
#[derive(Debug, Default)]
pub(super) struct Interrupts {
    /// IRTA as written; it takes effect with SIRTP.
    pub table: InterruptTableAddress,
}

impl Unit {
    /// A write of IRTA. Without ECAP.IR there is no such register.
    pub(super) fn write_interrupt_table(&self, state: &mut State, written: u64, mask: u64) {
        let _ = (state, written, mask);
    }

    /// The interrupt-remapping bits of a GCMD write. Without ECAP.IR they do nothing.
    pub(super) fn interrupt_command(&self, state: &mut State, command: Global, out: &mut Outbox) {
        let _ = (state, command, out);
    }
}
