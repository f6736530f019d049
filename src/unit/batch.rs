//! Invalidations on their way to the host: collected per nested HWPT and submitted
//! as one array each at the next wait descriptor.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::outbox::Outbox;
use super::work::steps;
use super::{State, Unit};
use crate::event::Event;
use crate::host::HostError;
use crate::host::ranges::merge;
use crate::host::space::Nested;
use crate::host::uapi::{VTD_INV_FLAGS_LEAF, VtdS1Invalidate, request};
use crate::spec::descriptors::PasidPages;
use crate::vmm::LogLevel;

/// More entries than this for one HWPT are submitted before the wait.
const MAX_ENTRIES: usize = 4096;

/// What the host is to forget of one HWPT.
#[derive(Debug)]
struct Call {
    nested: Arc<Nested>,
    entries: Vec<VtdS1Invalidate>,
    /// Guest descriptors the entries came from.
    descriptors: u64,
}

/// What was collected since the last wait.
#[derive(Debug, Default)]
pub(super) struct Batch {
    calls: BTreeMap<u64, Call>,
}

impl Batch {
    /// One descriptor asks to forget `entry` of `nested`. True if it is time to submit.
    pub fn add(&mut self, nested: Arc<Nested>, entry: VtdS1Invalidate) -> bool {
        let call = self.calls.entry(nested.serial).or_insert_with(|| Call {
            nested,
            entries: Vec::new(),
            descriptors: 0,
        });
        call.descriptors = call.descriptors.saturating_add(1);
        // Everything covers all.
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
        for (_, call) in core::mem::take(&mut batch.calls) {
            self.submit_call(state, &call, out);
        }
    }

    fn submit_call(&self, state: &mut State, call: &Call, out: &mut Outbox) {
        let entries = merge(&call.entries);
        let hwpt = u64::from(call.nested.id);
        if self.config.inject.drop_invalidations {
            let count = entries.len() as u64;
            self.counters.invalidate_dropped.add(count);
            out.event(Event::InvalidateDropped, [hwpt, count, 0]);
            return;
        }
        let merging = (call.entries.len() as u64).saturating_mul(steps::ENTRY);
        state.work.charge(merging.saturating_add(steps::CALL));
        self.counters.invalidate_descriptors.add(call.descriptors);
        out.event(
            Event::Invalidate,
            [hwpt, entries.len() as u64, call.descriptors],
        );
        let mut left = entries.as_slice();
        let mut tried_again = false;
        let errno = loop {
            let Err((handled, errno)) = self.invalidate(call, left, out) else {
                return;
            };
            left = left.get(handled..).unwrap_or_default();
            // An entry that was refused may have been in a bad moment, but not twice.
            if handled == 0 && tried_again {
                break errno;
            }
            tried_again = true;
            self.resumed(hwpt, left.len(), false, out);
        };
        out.log(&self.log_budget, LogLevel::Warn, || {
            format!(
                "the host refused an invalidation of HWPT {hwpt} with errno {errno} at {} of {} \
                 entries; all of the HWPT is invalidated instead",
                entries.len().saturating_sub(left.len()),
                entries.len()
            )
        });
        // What cannot be flushed precisely is flushed whole; what cannot be flushed at
        // all must not be used any more.
        self.resumed(hwpt, 1, true, out);
        if let Err((_, errno)) = self.invalidate(call, &[VtdS1Invalidate::ALL], out) {
            let refused = HostError {
                request: request::HWPT_INVALIDATE,
                errno,
            };
            self.block_users(state, &call.nested, refused, out);
        }
    }

    /// One call: how many entries were handled, and why the next was not.
    fn invalidate(
        &self,
        call: &Call,
        entries: &[VtdS1Invalidate],
        out: &mut Outbox,
    ) -> Result<(), (usize, i32)> {
        self.counters.invalidate_calls.add(1);
        self.counters.invalidate_entries.add(entries.len() as u64);
        call.nested.invalidate(entries).map_err(|error| {
            self.counters.invalidate_errors.add(1);
            let hwpt = u64::from(call.nested.id);
            out.event(
                Event::InvalidateError,
                [hwpt, error.handled as u64, error.errno as u64],
            );
            (error.handled, error.errno)
        })
    }

    fn resumed(&self, hwpt: u64, left: usize, whole: bool, out: &mut Outbox) {
        self.counters.invalidate_resumed.add(1);
        out.event(
            Event::InvalidateResumed,
            [hwpt, left as u64, u64::from(whole)],
        );
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
}
