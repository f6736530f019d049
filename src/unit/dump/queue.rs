//! The invalidation queue, as Linux's `invalidation_queue` lists it.

use super::{Lines, NAME};
use crate::spec::registers::QueueAddress;
use crate::unit::Unit;

/// Linux's status of a descriptor. The driver keeps it for itself; the unit knows
/// which descriptors it has still to execute, the driver's in-use ones.
const FREE: u32 = 0;
const IN_USE: u32 = 1;

impl Unit {
    pub(super) fn dump_queue(&self, lines: &mut Lines) {
        let (queue, head, tail, enabled, error) = {
            let registers = &self.state.lock().registers;
            (
                registers.queue_address,
                registers.queue_head,
                registers.queue_tail,
                registers.status.queued_invalidation(),
                registers
                    .faults
                    .status()
                    .queue_error()
                    .then_some(registers.queue_error),
            )
        };
        if !enabled {
            lines.push(format!("Queued invalidation is not enabled on {NAME}"));
            return;
        }
        let step = queue.descriptor_size();
        let index_of = |offset: u64| offset.checked_div(step).unwrap_or(0);
        let (head, tail) = (index_of(head), index_of(tail));
        lines.push(format!("Invalidation queue on IOMMU: {NAME}"));
        lines.push(format!(
            " Base: {:#x}\tHead: {head}\tTail: {tail}",
            queue.address()
        ));
        lines.push(if queue.wide() {
            "Index\t\tqw0\t\t\tqw1\t\t\tqw2\t\t\tqw3\t\t\tstatus"
        } else {
            "Index\t\tqw0\t\t\tqw1\t\t\tstatus"
        });
        for index in 0..index_of(queue.bytes()) {
            if lines.is_cut() {
                return;
            }
            let pending = if head <= tail {
                (head..tail).contains(&index)
            } else {
                index >= head || index < tail
            };
            let status = if pending { IN_USE } else { FREE };
            match self.descriptor_text(queue, index.wrapping_mul(step)) {
                Some(qwords) => lines.push(format!("{index:>5}{qwords}\t{status:016x}")),
                None => {
                    lines.push(format!("{index:>5}\tnot in RAM"));
                    break;
                }
            }
        }
        if let Some(error) = error {
            lines.push(format!(
                "Queue error at index {head}: IQERCD {:#018x}",
                error.into_bits()
            ));
        }
        lines.push("");
    }

    fn descriptor_text(&self, queue: QueueAddress, offset: u64) -> Option<String> {
        let address = queue.address().wrapping_add(offset);
        let qwords = if queue.wide() {
            self.memory.read_qwords::<4>(address).ok()?.to_vec()
        } else {
            self.memory.read_qwords::<2>(address).ok()?.to_vec()
        };
        Some(
            qwords
                .iter()
                .map(|qword| format!("\t{qword:016x}"))
                .collect(),
        )
    }
}
