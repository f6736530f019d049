//! What holds after every operation, whatever the guest did.

use nested_vtd::unit::{HostKind, Stats};

use super::op::Code;
use super::run::{FSTS, GSTS, IQA, IQH, IQT, QIE, Run};
use super::vmm::Told;
use super::world::SLOTS;
use crate::reference::{bit, field, mask};

/// Descriptors that an access executes at most (`unit/queue.rs`, `BUDGET`).
const DESCRIPTORS: u64 = 1 << 16;

/// Log lines of a unit at most (`unit/outbox.rs`, `LogBudget`).
const LINES: u64 = 64;

/// Paging entries that a walk reads at most (docs/architecture.md, Bounds): 35 of both stages, 25 more to set
/// accessed bits; and to go on from a table that is cached another 6.
const PLAIN_READS: u64 = 35 + 25 + 6;

/// The same of tables that change under it, as they are each other's: each stage 16 times at most.
const READS: u64 = 16 * (5 * (1 + 2 * 16 * 5) + 16 * 5) + 6;

/// Walks of a request at most: reading, writing, and one more.
const WALKS: u64 = 3;

/// FSTS: PFO, PPF, IQE, ICE, ITE.
const OVERFLOW: u32 = 1;
const PENDING: u32 = 1 << 1;
const QUEUE_ERROR: u32 = 1 << 4;
const COMPLETION_ERROR: u32 = 1 << 5;
const TIMEOUT: u32 = 1 << 6;

/// Operations after each of which all registers are looked at; the most important ones are after every one.
const REGISTERS_EVERY: u32 = 8;

/// What was counted before an operation.
pub struct Before {
    stats: Stats,
    told: Told,
    calls: u64,
    stale: u64,
    clean: bool,
    bindings: u64,
    overflow: bool,
    /// Records with F.
    pending: u8,
    steps: u32,
}

/// Fault records that are pending, a bit for each.
fn pending(run: &Run) -> u8 {
    (0..8).fold(0, |all, index| {
        let high = run.machine.read32(0x22c + index * 16);
        all | ((high >> 31) as u8) << index
    })
}

impl Before {
    pub fn of(run: &Run) -> Self {
        let machine = &run.machine;
        let (calls, stale) = machine
            .twin
            .as_ref()
            .map_or((0, 0), |twin| (twin.calls(), twin.stats().stale_uses));
        Self {
            stats: machine.unit().stats(),
            told: machine.vmm.told(),
            calls,
            stale,
            clean: run.clean,
            bindings: run.bindings(),
            overflow: machine.read32(FSTS) & OVERFLOW != 0,
            pending: pending(run),
            steps: 0,
        }
    }
}

impl Run {
    /// PASIDs that are on the host, or should be, and the devices themselves.
    fn bindings(&self) -> u64 {
        let unit = self.machine.unit();
        (0..SLOTS)
            .filter(|&slot| self.machine.is_assigned(slot))
            .filter_map(|slot| self.machine.slots[slot].handle)
            .map(|handle| {
                let info = unit.device_info(handle).unwrap();
                1 + (info.pasids + info.pasids_blocked) as u64
            })
            .sum()
    }

    /// After an operation, given what was counted before; what is counted now is for the next one.
    pub fn check(&self, code: Code, before: &Before) -> Before {
        if before.steps % REGISTERS_EVERY == 0 || code == Code::Write {
            self.check_registers();
        }
        self.check_queue();
        self.check_faults(before);
        let now = Before {
            steps: before.steps + 1,
            ..Before::of(self)
        };
        self.check_work(code, before, &now);
        if before.clean && self.clean {
            assert_eq!(now.told.stale, before.told.stale, "stale uses of the unit");
            assert_eq!(now.stale, before.stale, "stale uses of the hardware");
        }
        self.check_host(&now);
        now
    }

    /// What holds of registers, however they came to be so.
    pub fn check_state(&self) {
        self.check_registers();
        self.check_queue();
        self.check_faults(&Before::of(self));
    }

    /// Reserved bits are 0.
    fn check_registers(&self) {
        let machine = &self.machine;
        let ecap = machine.capabilities.ecap;
        let (remapping, extended, asking) = (bit(ecap, 3), bit(ecap, 4), bit(ecap, 29));
        let if_there = |there: bool, bits: u64| if there { bits } else { 0 };
        let table = mask(63, 12);
        let control = mask(31, 30);
        let full = [
            (
                GSTS,
                4,
                mask(26, 26) | mask(31, 30) | if_there(remapping, mask(25, 23)),
            ),
            // GCMD reads as 0.
            (0x18, 4, 0),
            (0x20, 8, table | mask(11, 10)),
            // CCMD and IOTLB: what they were asked for, and has been done.
            (0x28, 8, mask(62, 59) | mask(33, 0)),
            (0xf8, 8, mask(61, 60) | mask(58, 57) | mask(49, 32)),
            (0xf0, 8, table | mask(6, 0)),
            (FSTS, 4, mask(15, 8) | 0x73),
            (0x38, 4, control),
            (0x3c, 4, mask(31, 0)),
            (0x40, 4, mask(31, 2)),
            (0x44, 4, mask(31, 0)),
            (IQH, 8, mask(18, 4)),
            (IQT, 8, mask(18, 4)),
            (IQA, 8, table | 1 << 11 | mask(2, 0)),
            (0x9c, 4, 1),
            (0xa0, 4, control),
            (0xa8, 4, mask(31, 2)),
            (0xb0, 8, mask(63, 32) | mask(3, 0)),
            (
                0xb8,
                8,
                if_there(remapping, table | mask(3, 0) | if_there(extended, 1 << 11)),
            ),
            (0xc0, 8, if_there(asking, mask(18, 5))),
            (0xc8, 8, if_there(asking, mask(18, 5))),
            (0xd0, 8, if_there(asking, table | mask(2, 0))),
            (0xdc, 4, if_there(asking, 3)),
            (0xe0, 4, if_there(asking, control)),
            (0xe8, 4, if_there(asking, mask(31, 2))),
        ];
        for (offset, size, defined) in full {
            let value = machine.unit().mmio_read(offset, size).unwrap();
            assert_eq!(
                value & !defined,
                0,
                "reserved bits of the register at {offset:#x} that reads {value:#x}"
            );
        }
    }

    /// Head and tail are in the queue; and what was queued is done, unless the queue has stopped.
    fn check_queue(&self) {
        let machine = &self.machine;
        if machine.read32(GSTS) & QIE == 0 {
            return;
        }
        let register = machine.read64(IQA);
        let bytes = 0x1000 << (register & 7);
        let size = if bit(register, 11) { 32 } else { 16 };
        let (head, tail) = (machine.read64(IQH), machine.read64(IQT));
        assert!(
            head < bytes && head % size == 0,
            "IQH is {head:#x} with IQA {register:#x}"
        );
        let stopped = machine.read32(FSTS) & (QUEUE_ERROR | TIMEOUT) != 0;
        assert!(
            stopped || head == tail,
            "IQH is {head:#x}, IQT {tail:#x}, and the queue has not stopped"
        );
    }

    /// Fault log and queue errors (7.2, 11.4.7, 11.4.9.9).
    fn check_faults(&self, before: &Before) {
        let machine = &self.machine;
        let status = machine.read32(FSTS);
        let pending: Vec<bool> = (0..8)
            .map(|index| {
                let high = machine.read64(0x228 + index * 16);
                let low = machine.read64(0x220 + index * 16);
                let defined = mask(63, 28) | mask(15, 0);
                assert_eq!(
                    high & !defined,
                    0,
                    "reserved bits of record {index}: {high:#x}"
                );
                assert_eq!(low & 0xfff, 0, "reserved bits of record {index}: {low:#x}");
                bit(high, 63)
            })
            .collect();
        let first = field(u64::from(status), 15, 8) as usize;
        let any = pending.contains(&true);
        assert_eq!(
            status & PENDING != 0,
            any,
            "PPF of {status:#x}, records {pending:?}"
        );
        if any {
            assert!(
                pending.get(first) == Some(&true),
                "FRI of {status:#x}: {pending:?}"
            );
        } else {
            assert_eq!(first, 0, "FRI of {status:#x}, and nothing is pending");
        }
        // The first of those that came when there were none: they follow each other.
        let new = pending.iter().filter(|&&is| is).count();
        if before.pending == 0 && (1..8).contains(&new) {
            assert!(
                !pending[(first + 7) % 8],
                "FRI of {status:#x} is not the first of {pending:?}"
            );
        }
        let overflow = status & OVERFLOW != 0;
        assert!(
            !overflow || before.overflow || any,
            "PFO came up with every record free"
        );
        let error = machine.read64(0xb0);
        let (info, timed_out, failed) = (
            field(error, 3, 0),
            field(error, 47, 32),
            field(error, 63, 48),
        );
        assert_eq!(
            status & QUEUE_ERROR != 0,
            info != 0,
            "IQE, and IQEI is {info}"
        );
        assert!(info <= 7, "IQEI is {info}");
        assert!(
            status & TIMEOUT != 0 || timed_out == 0,
            "ITESID without ITE"
        );
        assert!(
            status & COMPLETION_ERROR != 0 || failed == 0,
            "ICESID without ICE"
        );
        // Commands are done when the access is.
        assert_eq!(machine.read64(0x28) >> 63, 0, "ICC");
        assert_eq!(machine.read64(0xf8) >> 63, 0, "IVT");
    }

    /// Work is bounded.
    fn check_work(&self, code: Code, before: &Before, now: &Before) {
        let machine = &self.machine;
        let stats = now.stats;
        if matches!(code, Code::Reset | Code::Move) {
            // Counters begin anew.
            return;
        }
        let of = |count: fn(&Stats) -> u64| count(&stats) - count(&before.stats);
        let descriptors = of(|stats| stats.descriptors);
        // An operation of several accesses.
        let accesses = match code {
            Code::Sync | Code::Enable | Code::Again => 1000,
            Code::Change | Code::Write | Code::Ring => 64,
            _ => 16,
        };
        assert!(
            descriptors <= DESCRIPTORS.min(4096 * accesses),
            "{descriptors} descriptors were executed"
        );
        let requests = of(|stats| stats.translations);
        let walks = of(|stats| stats.walks);
        assert!(
            walks <= WALKS * requests,
            "{walks} walks for {requests} requests"
        );
        let reads = of(|stats| stats.table_reads);
        assert!(
            reads <= READS * walks,
            "{reads} entries were read in {walks} walks"
        );
        if self.pristine {
            assert!(
                reads <= PLAIN_READS * walks,
                "{reads} entries were read in {walks} walks of plain tables"
            );
        }
        let told = now.told;
        assert!(told.lines <= LINES, "{} lines were logged", told.lines);
        let keepers = machine.slots.iter().filter(|slot| slot.notify).count() as u64;
        let orders = told.invalidations - before.told.invalidations;
        assert!(
            orders <= (descriptors + 8 * accesses) * keepers,
            "{orders} invalidations for {keepers} devices and {descriptors} descriptors"
        );
        let msis = told.msis - before.told.msis;
        assert!(
            msis <= descriptors + 4 * accesses + requests,
            "{msis} interrupts"
        );
        // Each descriptor goes through the bindings once, and each of them is a few calls.
        let calls = now.calls - before.calls;
        let bindings = before.bindings + now.bindings + 8;
        let most = 8 * (descriptors + accesses) * bindings;
        assert!(
            calls <= most,
            "{calls} calls on the host for {bindings} bindings and {descriptors} descriptors"
        );
    }

    /// What is on the host is used.
    fn check_host(&self, now: &Before) {
        let machine = &self.machine;
        let Some(twin) = &machine.twin else { return };
        assert_eq!(machine.config.host, HostKind::Iommufd);
        if self.injected {
            return;
        }
        let stats = twin.stats();
        let devices = (2..SLOTS)
            .filter(|&slot| machine.slots[slot].handle.is_some())
            .count() as u64;
        assert_eq!(stats.devices, devices, "devices on the host");
        assert!(stats.ioas <= devices.min(3), "{} IOAS", stats.ioas);
        if self.parted {
            assert!(stats.paging >= stats.ioas, "{} parents", stats.paging);
        } else {
            assert_eq!(stats.paging, stats.ioas, "parents");
        }
        let bindings = now.bindings;
        assert!(
            stats.nested <= bindings,
            "{} nested HWPTs of {bindings} bindings",
            stats.nested
        );
        let asking = bit(machine.capabilities.ecap, 29);
        assert_eq!(
            stats.fault_queues,
            if asking { stats.ioas } else { 0 },
            "fault queues"
        );
        assert_eq!(
            stats.mapped,
            stats.ioas * machine.mapped_bytes(),
            "bytes mapped"
        );
    }
}
