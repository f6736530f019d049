//! The registers and the commands that writing them gives (chapter 11).

use super::control::Control;
use super::fault_log::FaultLog;
use super::interrupts::Interrupts;
use super::notify::remaining;
use super::outbox::Outbox;
use super::page_requests::PageRequests;
use super::regmap::{Register, Source, Target, locate};
use super::signal::Signal;
use super::{State, Unit};
use crate::event::Event;
use crate::spec::descriptors::{PageRange, Scope, SourceMatch};
use crate::spec::registers::{
    ContextCommand, FaultStatus, Global, IotlbCommand, QueueAddress, QueueErrorRecord,
    RootTableAddress,
};

/// VER: architecture version 6.0, the one that calls its stages first and second.
const VERSION: u32 = 0x60;

/// ICS.IWC (11.4.9.4).
pub(super) const COMPLETED: u32 = 1;

/// Bits of IQT and IQH that hold an offset.
pub(super) const QUEUE_OFFSET: u64 = 0x7_fff0;

/// Bits of IVA that are defined (11.4.6.3): ADDR, IH and AM.
pub(super) const INVALIDATE_ADDRESS: u64 = !0xf80;

/// Register values; the fixed ones are in the capabilities.
#[derive(Debug, Default)]
pub(super) struct Registers {
    /// GSTS.
    pub status: Global,
    /// RTADDR as written; it takes effect with SRTP.
    pub root: RootTableAddress,
    pub context_command: ContextCommand,
    pub iotlb_command: IotlbCommand,
    pub invalidate_address: u64,
    pub queue_head: u64,
    pub queue_tail: u64,
    pub queue_address: QueueAddress,
    pub queue_error: QueueErrorRecord,
    pub completed: bool,
    pub completion_signal: Signal,
    pub faults: FaultLog,
    pub interrupts: Interrupts,
    pub page_requests: PageRequests,
}

impl Registers {
    /// A wait with IF completed (11.4.9.4).
    pub fn complete(&mut self, out: &mut Outbox) {
        if !self.completed {
            self.completed = true;
            self.completion_signal.raise(out);
        }
    }

    fn signal(&mut self, source: Source) -> &mut Signal {
        match source {
            Source::Fault => &mut self.faults.signal,
            Source::Completion => &mut self.completion_signal,
            Source::PageRequest => &mut self.page_requests.signal,
        }
    }
}

impl Unit {
    /// A read of the window. Eight bytes over two 4-byte registers read both;
    /// everything else that means no register reads 0.
    pub(super) fn read_window(
        &self,
        state: &State,
        offset: u64,
        size: u32,
        out: &mut Outbox,
    ) -> u64 {
        let locate = |at, size| self.locate(at, size);
        if let Some(target) = locate(offset, size) {
            return (self.read_register(state, target.register) & target.mask) >> target.shift;
        }
        let halves = [offset, offset.wrapping_add(4)].map(|at| locate(at, 4));
        if size != 8 || offset % 8 != 0 || halves.iter().all(Option::is_none) {
            self.ignored(offset, size, 0, out);
            return 0;
        }
        let [low, high] = halves.map(|half| {
            half.map_or(0, |target| {
                (self.read_register(state, target.register) & target.mask) >> target.shift
            })
        });
        low | (high << 32)
    }

    /// The register at `offset`, for a dump: nothing is counted. 0 for none.
    pub(super) fn peek_window(&self, state: &State, offset: u64, size: u32) -> u64 {
        self.locate(offset, size).map_or(0, |target| {
            (self.read_register(state, target.register) & target.mask) >> target.shift
        })
    }

    /// What an access means in this unit.
    fn locate(&self, offset: u64, size: u32) -> Option<Target> {
        locate(offset, size).filter(|target| target.register.is_offered(self.capabilities.ecap))
    }

    fn ignored(&self, offset: u64, size: u32, value: u64, out: &mut Outbox) {
        self.counters.mmio_ignored.add(1);
        out.event(Event::MmioIgnored, [offset, u64::from(size), value]);
    }

    fn read_register(&self, state: &State, register: Register) -> u64 {
        let registers = &state.registers;
        match register {
            Register::Version => u64::from(VERSION),
            Register::Capability => self.capabilities.cap.into_bits(),
            Register::ExtendedCapability => self.capabilities.ecap.into_bits(),
            // Commands are read back as GSTS.
            Register::GlobalCommand => 0,
            Register::GlobalStatus => u64::from(registers.status.into_bits()),
            Register::RootTableAddress => registers.root.into_bits(),
            Register::ContextCommand => registers.context_command.into_bits(),
            Register::FaultStatus => u64::from(registers.faults.status().into_bits()),
            Register::Event(Source::Fault, part) => u64::from(registers.faults.signal.read(part)),
            Register::Event(Source::Completion, part) => {
                u64::from(registers.completion_signal.read(part))
            }
            Register::Event(Source::PageRequest, part) => {
                u64::from(registers.page_requests.signal.read(part))
            }
            Register::InterruptTableAddress => registers.interrupts.table.into_bits(),
            Register::PageQueueHead => registers.page_requests.head,
            Register::PageQueueTail => registers.page_requests.tail,
            Register::PageQueueAddress => registers.page_requests.queue.into_bits(),
            Register::PageRequestStatus => u64::from(registers.page_requests.status.into_bits()),
            Register::QueueHead => registers.queue_head,
            Register::QueueTail => registers.queue_tail,
            Register::QueueAddress => registers.queue_address.into_bits(),
            Register::CompletionStatus => u64::from(registers.completed),
            Register::QueueErrorRecord => registers.queue_error.into_bits(),
            Register::InvalidateAddress => registers.invalidate_address,
            Register::IotlbInvalidate => registers.iotlb_command.into_bits(),
            Register::FaultRecordLow(index) => registers.faults.read_low(index),
            Register::FaultRecordHigh(index) => registers.faults.read_high(index),
        }
    }

    /// A write of the window. What means no register is ignored.
    pub(super) fn write_window(
        &self,
        state: &mut State,
        offset: u64,
        size: u32,
        value: u64,
        out: &mut Outbox,
    ) {
        match self.locate(offset, size) {
            Some(target) => {
                let written = (value << target.shift) & target.mask;
                self.write_register(state, target.register, written, target.mask, out);
            }
            None => self.ignored(offset, size, value, out),
        }
    }

    /// `written` holds the bits that `mask` says were written; the others are 0.
    fn write_register(
        &self,
        state: &mut State,
        register: Register,
        written: u64,
        mask: u64,
        out: &mut Outbox,
    ) {
        let registers = &mut state.registers;
        let merge = |old: u64| (old & !mask) | written;
        // 4-byte registers are written whole.
        let dword = (written & 0xffff_ffff) as u32;
        match register {
            Register::GlobalCommand => self.command(state, Global::from_bits(dword), out),
            Register::RootTableAddress => {
                let merged = RootTableAddress::from_bits(merge(registers.root.into_bits()));
                registers.root = RootTableAddress::new()
                    .with_mode(merged.mode())
                    .with_table(merged.table());
            }
            Register::ContextCommand => {
                let before = registers.context_command;
                let merged = ContextCommand::from_bits(merge(before.into_bits()));
                registers.context_command = ContextCommand::new()
                    .with_domain_id(merged.domain_id())
                    .with_source_id(merged.source_id())
                    .with_function_mask(merged.function_mask())
                    .with_actual_granularity(before.actual_granularity())
                    .with_granularity(merged.granularity())
                    .with_invalidate(merged.invalidate());
                self.context_command(state, out);
            }
            Register::IotlbInvalidate => {
                let before = registers.iotlb_command;
                let merged = IotlbCommand::from_bits(merge(before.into_bits()));
                registers.iotlb_command = IotlbCommand::new()
                    .with_domain_id(merged.domain_id())
                    .with_drain_writes(merged.drain_writes())
                    .with_drain_reads(merged.drain_reads())
                    .with_actual_granularity(before.actual_granularity())
                    .with_granularity(merged.granularity())
                    .with_invalidate(merged.invalidate());
                self.iotlb_command(state, out);
            }
            Register::InvalidateAddress => {
                let merged = merge(registers.invalidate_address);
                registers.invalidate_address = merged & INVALIDATE_ADDRESS;
            }
            Register::FaultStatus => {
                // If that ends an error fetching goes on at IQH, without a new tail
                // (6.5.2.9).
                registers.faults.write_status(FaultStatus::from_bits(dword));
                registers.queue_error = remaining(registers.queue_error, registers.faults.status());
            }
            Register::FaultRecordHigh(index) => registers.faults.write_high(index, written),
            Register::Event(source, part) => registers.signal(source).write(part, dword, out),
            Register::CompletionStatus => {
                if dword & COMPLETED != 0 {
                    registers.completed = false;
                    registers.completion_signal.settle();
                }
            }
            Register::QueueTail => {
                registers.queue_tail = merge(registers.queue_tail) & QUEUE_OFFSET;
            }
            Register::QueueAddress => {
                // 11.4.9.3: to be changed only while the queue is off and empty.
                if !registers.status.queued_invalidation() {
                    let merged =
                        QueueAddress::from_bits(merge(registers.queue_address.into_bits()));
                    registers.queue_address = QueueAddress::new()
                        .with_size(merged.size())
                        .with_wide(merged.wide())
                        .with_queue(merged.queue());
                }
            }
            Register::InterruptTableAddress => self.write_interrupt_table(state, written, mask),
            Register::PageQueueHead
            | Register::PageQueueTail
            | Register::PageQueueAddress
            | Register::PageRequestStatus => {
                self.write_page_queue(state, register, written, mask);
            }
            Register::Version
            | Register::Capability
            | Register::ExtendedCapability
            | Register::GlobalStatus
            | Register::QueueHead
            | Register::QueueErrorRecord
            | Register::FaultRecordLow(_) => {}
        }
    }

    /// GCMD (11.4.4.1): one-shot commands first, then the switches that differ from
    /// their status. Commands whose capability is not reported do nothing.
    fn command(&self, state: &mut State, command: Global, out: &mut Outbox) {
        if command.root_table() {
            self.set_root_table(state, out);
        }
        if command.queued_invalidation() != state.registers.status.queued_invalidation() {
            self.switch_queue(state, command.queued_invalidation(), out);
        }
        if command.translation() != state.registers.status.translation() {
            state
                .registers
                .status
                .set_translation(command.translation());
            out.event(
                Event::TranslationEnable,
                [u64::from(command.translation()), 0, 0],
            );
            self.control.set(Control {
                enabled: command.translation(),
                ..self.control.get()
            });
            self.contexts.clear();
            self.tell_everything(state, out);
            self.sync_all(state, out);
        }
        self.interrupt_command(state, command, out);
    }

    /// SRTP. With CAP.ESRTPS it invalidates every cache.
    fn set_root_table(&self, state: &mut State, out: &mut Outbox) {
        let root = state.registers.root;
        out.event(Event::RootTable, [root.into_bits(), 0, 0]);
        state.registers.status.set_root_table(true);
        self.control.set(Control {
            root,
            ..self.control.get()
        });
        self.contexts.clear();
        self.tell_everything(state, out);
        self.sync_all(state, out);
        self.invalidate_everything(state, out);
    }

    fn switch_queue(&self, state: &mut State, on: bool, out: &mut Outbox) {
        let registers = &mut state.registers;
        out.event(
            Event::QueueEnable,
            [u64::from(on), registers.queue_address.into_bits(), 0],
        );
        registers.status.set_queued_invalidation(on);
        registers.queue_head = 0;
    }

    /// CCMD with ICC (11.4.6.1).
    fn context_command(&self, state: &mut State, out: &mut Outbox) {
        let command = state.registers.context_command;
        if !command.invalidate() {
            return;
        }
        let scope = match command.granularity() {
            1 => Some(Scope::Global),
            2 => Some(Scope::Domain(command.domain_id())),
            3 => Some(Scope::Fine(
                command.domain_id(),
                SourceMatch {
                    source_id: command.source_id(),
                    function_mask: command.function_mask(),
                },
            )),
            _ => None,
        };
        if let Some(scope) = scope {
            self.invalidate_context(state, scope, out);
        }
        // ICC is cleared when the VMM has obeyed, see `finish_commands`.
        state.registers.context_command = command.with_actual_granularity(command.granularity());
    }

    /// IOTLB with IVT (11.4.6.2).
    fn iotlb_command(&self, state: &mut State, out: &mut Outbox) {
        let command = state.registers.iotlb_command;
        if !command.invalidate() {
            return;
        }
        let address = state.registers.invalidate_address;
        let pages = PageRange {
            address: address & !0xfff,
            address_mask: (address & 0x3f) as u8,
            leaf_only: address & 0x40 != 0,
        };
        let scope = match command.granularity() {
            1 => Some(Scope::Global),
            2 => Some(Scope::Domain(command.domain_id())),
            3 => Some(Scope::Fine(command.domain_id(), pages)),
            _ => None,
        };
        if let Some(scope) = scope {
            self.invalidate_iotlb(state, scope, out);
        }
        state.registers.iotlb_command = command.with_actual_granularity(command.granularity());
    }

    /// What ICC and IVT asked for is done, unless the VMM is still being told of it.
    pub(super) fn finish_commands(&self, state: &mut State) {
        if state.telling > 0 {
            return;
        }
        let registers = &mut state.registers;
        registers.context_command.set_invalidate(false);
        registers.iotlb_command.set_invalidate(false);
    }
}
