//! Interrupt remapping as the guest programs it (5.1, 11.4.4, 11.4.10), and interrupt
//! requests.

use super::fault_log::Refused;
use super::outbox::Outbox;
use super::{State, Unit};
use crate::event::Event;
use crate::interrupt::{Control, Outcome, Refusal, Request};
use crate::spec::fault::RecordedType;
use crate::spec::registers::{Global, InterruptTableAddress};

/// Registers of interrupt remapping.
#[derive(Debug, Default)]
pub(super) struct Interrupts {
    /// IRTA as written; it takes effect with SIRTP.
    pub table: InterruptTableAddress,
}

impl Unit {
    /// A write of IRTA. Without ECAP.IR there is no such register, without ECAP.EIM no
    /// EIME.
    pub(super) fn write_interrupt_table(&self, state: &mut State, written: u64, mask: u64) {
        let ecap = self.capabilities.ecap;
        if !ecap.interrupt_remapping() {
            return;
        }
        let register = &mut state.registers.interrupts.table;
        let merged = InterruptTableAddress::from_bits((register.into_bits() & !mask) | written);
        *register = InterruptTableAddress::new()
            .with_size(merged.size())
            .with_extended_interrupt_mode(
                merged.extended_interrupt_mode() && ecap.extended_interrupt_mode(),
            )
            .with_table(merged.table());
    }

    /// The interrupt-remapping bits of a GCMD write. Without ECAP.IR they do nothing.
    ///
    /// SIRTP comes first, so that one write may set the table and switch remapping on.
    /// With IRE but no SIRTP before it remapping is on, and requests in remappable
    /// format are refused, as there is no table to read.
    pub(super) fn interrupt_command(&self, state: &mut State, command: Global, out: &mut Outbox) {
        if !self.capabilities.ecap.interrupt_remapping() {
            return;
        }
        let registers = &mut state.registers;
        let mut control = *self.interrupts.read();
        let before = control;
        if command.interrupt_table() {
            let register = registers.interrupts.table;
            control.table = Some(register.into());
            registers.status.set_interrupt_table(true);
            out.event(Event::InterruptTable, [register.into_bits(), 0, 0]);
        }
        control.compatibility = command.compatibility_interrupts();
        control.enabled = command.interrupt_remapping();
        let switched =
            (control.enabled, control.compatibility) != (before.enabled, before.compatibility);
        if switched {
            let status = &mut registers.status;
            status.set_compatibility_interrupts(control.compatibility);
            status.set_interrupt_remapping(control.enabled);
            out.event(
                Event::InterruptEnable,
                [control.enabled.into(), control.compatibility.into(), 0],
            );
        }
        if switched || command.interrupt_table() {
            *self.interrupts.write() = control;
            // CAP.ESIRTPS; and the VMM's answers depend on the switches, too.
            self.invalidate_interrupts(None, out);
        }
    }

    /// Forget interrupt entries: all, or an index and the log2 of their number.
    pub(super) fn invalidate_interrupts(&self, range: Option<(u16, u8)>, out: &mut Outbox) {
        if !self.capabilities.ecap.interrupt_remapping() {
            return;
        }
        match range {
            None => self.interrupt_entries.invalidate_all(),
            Some((index, mask)) => self.interrupt_entries.invalidate(index, mask),
        }
        out.interrupt_entries(range);
    }

    /// The state after power-on: remapping is off.
    pub(super) fn reset_interrupts(&self, out: &mut Outbox) {
        *self.interrupts.write() = Control::default();
        self.invalidate_interrupts(None, out);
    }

    /// What becomes of an interrupt request? A refusal is an answer, not an error;
    /// unless it is a look it has been recorded and signalled.
    pub fn remap_msi(&self, request: Request) -> Outcome {
        // Before the copy of the control: a table set after it is not mixed up.
        let ticket = self.interrupt_entries.ticket();
        let control = *self.interrupts.read();
        let outcome = control.remap(
            &*self.memory,
            &self.interrupt_entries,
            ticket,
            self.capabilities.address_width,
            &request,
        );
        if !request.look {
            let mut out = Outbox::new(&*self.vmm);
            self.account_interrupt(&request, &outcome, &mut out);
            self.deliver(out);
        }
        outcome
    }

    /// Count the request, and record what is to be recorded.
    fn account_interrupt(&self, request: &Request, outcome: &Outcome, out: &mut Outbox) {
        self.counters.interrupts.add(1);
        self.counters
            .interrupt_cache_hits
            .add(outcome.cached.into());
        let index = u64::from(outcome.index.unwrap_or(0));
        let source = u64::from(request.source_id) | (index << 32);
        match outcome.result {
            Ok(message) if outcome.index.is_some() => {
                out.event(
                    Event::Interrupt,
                    [source, message.address, message.data.into()],
                );
            }
            Ok(_) => {}
            Err(Refusal {
                fault,
                fault_disable,
            }) => {
                self.counters.interrupt_faults.add(1);
                self.counters
                    .memory_errors
                    .add(u64::from(fault.diagnostic.is_table_access()));
                let why = u64::from(fault.reason.code()) | ((fault.diagnostic as u64) << 8);
                out.event(
                    Event::InterruptFault,
                    [source, request.message.address, why],
                );
                if !fault_disable {
                    // FI has the index in its upper 16 bits (11.4.7.7).
                    let refused = Refused {
                        source_id: request.source_id,
                        address: index << 48,
                        reason: fault.reason,
                        kind: RecordedType::Write,
                        address_type: 0,
                        pasid: request.pasid,
                        execute: false,
                        privileged: false,
                    };
                    self.record_fault(&mut self.state.lock(), refused, out);
                }
            }
        }
    }
}
