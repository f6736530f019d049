//! Counters: one list, atomics inside, plain values outside.

use std::sync::atomic::{AtomicU64, Ordering};

/// Descriptor types have 7 bits, those that exist are below this.
pub const DESCRIPTOR_TYPES: usize = 16;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counters as they are at one time.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
            /// Descriptors executed, by type.
            pub descriptors_by_type: [u64; DESCRIPTOR_TYPES],
        }

        /// The counters as they move.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub $name: Counter,)*
            descriptors_by_type: [Counter; DESCRIPTOR_TYPES],
        }

        impl Counters {
            pub fn read(&self) -> Stats {
                let mut stats = Stats { $($name: self.$name.get(),)* ..Stats::default() };
                for (to, from) in
                    stats.descriptors_by_type.iter_mut().zip(&self.descriptors_by_type)
                {
                    *to = from.get();
                }
                stats
            }

            pub fn clear(&self) {
                $(self.$name.clear();)*
                self.descriptors_by_type.iter().for_each(Counter::clear);
            }
        }
    };
}

counters! {
    /// Requests translated, debug looks excepted.
    translations,
    /// Of these, answered from a translation cache.
    cache_hits,
    /// Table walks made.
    walks,
    /// Cached translations used although a fresh walk answers otherwise.
    stale_uses,
    /// Requests refused.
    faults,
    /// Faults that found no free record.
    fault_overflows,
    /// Register accesses ignored.
    mmio_ignored,
    /// Invalidation descriptors executed.
    descriptors,
    /// Invalidation queue errors.
    queue_errors,
    /// Wait status writes that missed writable RAM.
    status_write_errors,
    /// Message-signalled interrupts sent.
    msis,
    /// Nested HWPTs allocated.
    hwpt_allocs,
    /// Nested HWPT allocations refused.
    hwpt_alloc_errors,
    /// Nested HWPTs destroyed.
    hwpt_destroys,
    /// Attachments, replacements included.
    attaches,
    /// Detachments.
    detaches,
    /// Attach or detach calls refused.
    attach_errors,
    /// Invalidate calls.
    invalidate_calls,
    /// Entries in them.
    invalidate_entries,
    /// Guest descriptors they came from.
    invalidate_descriptors,
    /// Invalidate calls refused, fully or in part.
    invalidate_errors,
    /// Invalidate entries dropped by injection.
    invalidate_dropped,
    /// Requests and queue fetches that found a table or the queue outside of RAM.
    memory_errors,
    /// Page requests of devices.
    page_requests,
    /// Of these, refused by the guest's tables.
    page_requests_refused,
    /// Of these, dropped as the page request queue had overflowed.
    page_request_overflows,
    /// Page group responses of the guest handed to a device.
    page_responses,
    /// Page group responses that the unit gave by itself.
    page_responses_by_unit,
    /// Page group responses of the guest to requesters that are not there.
    page_responses_ignored,
    /// Interrupt requests, looks excepted.
    interrupts,
    /// Of these, answered from the interrupt entry cache.
    interrupt_cache_hits,
    /// Of these, refused.
    interrupt_faults,
    /// Faults that a pending record told of already.
    faults_collapsed,
    /// Device-TLB invalidations that timed out or failed.
    device_tlb_errors,
    /// Objects of the host that could not be destroyed at the time.
    hwpt_destroy_errors,
    /// Invalidate calls that went on after a refused one.
    invalidate_resumed,
    /// Waits aborted as a device could be neither flushed nor blocked.
    host_timeouts,
    /// Page requests that came from the host.
    host_page_requests,
    /// Of these, answered at once as they were none or of no device.
    host_page_requests_refused,
    /// PASIDs that were not attached as their device has the most it can have.
    pasids_ignored,
    /// Of the walks that the unit made by itself, those through both stages.
    nested_walks,
    /// Walks of second-stage tables: of requests, and for each first-stage table
    /// and page of a nested one.
    second_stage_walks,
    /// Paging entries read in walks of the unit.
    table_reads,
    /// Accessed and dirty bits set in paging entries, those of one entry together.
    table_updates,
}

impl Counters {
    /// A descriptor of this type was executed.
    pub fn descriptor(&self, kind: u8) {
        self.descriptors.add(1);
        if let Some(counter) = self.descriptors_by_type.get(usize::from(kind)) {
            counter.add(1);
        }
    }
}

/// One counter; it wraps after 2^64.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}
