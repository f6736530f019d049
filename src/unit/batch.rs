//! Invalidations on their way to the host: collected per nested HWPT and submitted
//! as one array each at the next wait descriptor.

use super::outbox::Outbox;
use super::{State, Unit};
use crate::event::Event;
use crate::host::{HwptId, VTD_INV_FLAGS_LEAF, VtdS1Invalidate};
use crate::spec::descriptors::PasidPages;
use crate::vmm::LogLevel;

/// More entries than this for one HWPT are submitted before the wait.
const MAX_ENTRIES: usize = 4096;

/// What the host is to forget of one HWPT.
#[derive(Debug)]
struct Call {
    hwpt: HwptId,
    entries: Vec<VtdS1Invalidate>,
    /// Guest descriptors the entries came from.
    descriptors: u64,
}

/// What was collected since the last wait.
#[derive(Debug, Default)]
pub(super) struct Batch {
    calls: Vec<Call>,
}

impl Batch {
    /// One descriptor asks to forget `entry` of `hwpt`. True if it is time to submit.
    pub fn add(&mut self, hwpt: HwptId, entry: VtdS1Invalidate) -> bool {
        let call = match self.calls.iter_mut().position(|call| call.hwpt == hwpt) {
            Some(index) => self.calls.get_mut(index),
            None => {
                self.calls.push(Call {
                    hwpt,
                    entries: Vec::new(),
                    descriptors: 0,
                });
                self.calls.last_mut()
            }
        };
        let Some(call) = call else { return true };
        call.descriptors = call.descriptors.saturating_add(1);
        // What was already asked for is not asked again; everything covers all.
        if entry == VtdS1Invalidate::ALL {
            call.entries.clear();
        }
        if call.entries.first() != Some(&VtdS1Invalidate::ALL) {
            call.entries.push(entry);
        }
        call.entries.len() >= MAX_ENTRIES
    }
}

/// The host's form of what a PASID-based IOTLB invalidation names.
pub(super) fn entry_of(pages: PasidPages) -> VtdS1Invalidate {
    let range = match pages {
        PasidPages::All => return VtdS1Invalidate::ALL,
        PasidPages::Range(range) => range,
    };
    match range.bounds() {
        None => VtdS1Invalidate::ALL,
        Some((addr, npages)) => VtdS1Invalidate {
            addr,
            npages,
            flags: if range.leaf_only {
                VTD_INV_FLAGS_LEAF
            } else {
                0
            },
            reserved: 0,
        },
    }
}

impl Unit {
    /// Submit what was collected: one call for each HWPT.
    pub(super) fn submit(&self, state: &mut State, batch: &mut Batch, out: &mut Outbox) {
        for call in core::mem::take(&mut batch.calls) {
            self.submit_call(state, &call, out);
        }
    }

    fn submit_call(&self, state: &mut State, call: &Call, out: &mut Outbox) {
        let Some(host) = &self.host else { return };
        let count = call.entries.len() as u64;
        let hwpt = u64::from(call.hwpt.0);
        if self.config.inject.drop_invalidations {
            self.counters.invalidate_dropped.add(count);
            out.event(Event::InvalidateDropped, [hwpt, count, 0]);
            return;
        }
        self.counters.invalidate_calls.add(1);
        self.counters.invalidate_entries.add(count);
        self.counters.invalidate_descriptors.add(call.descriptors);
        out.event(Event::Invalidate, [hwpt, count, call.descriptors]);
        let Err(error) = host.invalidate(call.hwpt, &call.entries) else {
            return;
        };
        self.counters.invalidate_errors.add(1);
        out.event(
            Event::InvalidateError,
            [hwpt, error.handled as u64, error.errno as u64],
        );
        out.log(&self.log_budget, LogLevel::Warn, || {
            format!(
                "the host refused entry {} of {count} of an invalidation of HWPT {hwpt} with errno \
                 {}; all of it is invalidated instead",
                error.handled, error.errno
            )
        });
        // What cannot be flushed precisely is flushed whole; what cannot be flushed
        // at all must not be used any more.
        if let Err(error) = host.invalidate(call.hwpt, &[VtdS1Invalidate::ALL]) {
            self.block_users(state, call.hwpt, error.errno, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::descriptors::PageRange;

    fn range(address: u64, address_mask: u8) -> VtdS1Invalidate {
        entry_of(PasidPages::Range(PageRange {
            address,
            address_mask,
            leaf_only: false,
        }))
    }

    #[test]
    fn ranges_are_aligned_to_their_mask() {
        let one = range(0x1234_5000, 0);
        assert_eq!((one.addr, one.npages), (0x1234_5000, 1));
        let two_megabytes = range(0x1234_5000, 9);
        assert_eq!(
            (two_megabytes.addr, two_megabytes.npages),
            (0x1220_0000, 512)
        );
        assert_eq!(range(0x1000, 51).addr, 0);
        for mask in 52..64 {
            assert_eq!(range(0x1000, mask), VtdS1Invalidate::ALL);
        }
    }

    #[test]
    fn everything_covers_what_was_collected() {
        let mut batch = Batch::default();
        batch.add(HwptId(3), range(0x1000, 0));
        batch.add(HwptId(4), range(0x1000, 0));
        batch.add(HwptId(3), VtdS1Invalidate::ALL);
        batch.add(HwptId(3), range(0x2000, 0));
        let call = &batch.calls[0];
        assert_eq!(
            (call.entries.as_slice(), call.descriptors),
            (&[VtdS1Invalidate::ALL][..], 3)
        );
        assert_eq!(batch.calls[1].entries.len(), 1);
    }
}
