//! Counters: one list, atomics inside, plain values outside.

use std::cell::{Cell, OnceCell};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Descriptor types have 7 bits, those that exist are below this.
pub const DESCRIPTOR_TYPES: usize = 16;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident: $kind:ty,)*) => {
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
            $(pub $name: $kind,)*
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
    translations: Striped,
    /// Of these, answered from a translation cache.
    cache_hits: Counter,
    /// Table walks made.
    walks: Striped,
    /// Cached translations used although a fresh walk answers otherwise.
    stale_uses: Counter,
    /// Requests refused.
    faults: Counter,
    /// Faults that found no free record.
    fault_overflows: Counter,
    /// Register accesses ignored.
    mmio_ignored: Counter,
    /// Invalidation descriptors executed.
    descriptors: Counter,
    /// Invalidation queue errors.
    queue_errors: Counter,
    /// Wait status writes that missed writable RAM.
    status_write_errors: Counter,
    /// Message-signalled interrupts sent.
    msis: Counter,
    /// Nested HWPTs allocated.
    hwpt_allocs: Counter,
    /// Nested HWPT allocations refused.
    hwpt_alloc_errors: Counter,
    /// Nested HWPTs destroyed.
    hwpt_destroys: Counter,
    /// Attachments, replacements included.
    attaches: Counter,
    /// Detachments.
    detaches: Counter,
    /// Attach or detach calls refused.
    attach_errors: Counter,
    /// Invalidate calls.
    invalidate_calls: Counter,
    /// Entries in them.
    invalidate_entries: Counter,
    /// Guest descriptors they came from.
    invalidate_descriptors: Counter,
    /// Invalidate calls refused, fully or in part.
    invalidate_errors: Counter,
    /// Invalidate entries dropped by injection.
    invalidate_dropped: Counter,
    /// Requests and queue fetches that found a table or the queue outside of RAM.
    memory_errors: Counter,
    /// Page requests of devices.
    page_requests: Counter,
    /// Of these, refused by the guest's tables.
    page_requests_refused: Counter,
    /// Of these, dropped as the page request queue had overflowed.
    page_request_overflows: Counter,
    /// Page group responses of the guest handed to a device.
    page_responses: Counter,
    /// Page group responses that the unit gave by itself.
    page_responses_by_unit: Counter,
    /// Page group responses of the guest to requesters that are not there.
    page_responses_ignored: Counter,
    /// Interrupt requests, looks excepted.
    interrupts: Counter,
    /// Of these, answered from the interrupt entry cache.
    interrupt_cache_hits: Counter,
    /// Of these, refused.
    interrupt_faults: Counter,
    /// Faults that a pending record told of already.
    faults_collapsed: Counter,
    /// Device-TLB invalidations that timed out or failed.
    device_tlb_errors: Counter,
    /// Objects of the host that could not be destroyed at the time.
    hwpt_destroy_errors: Counter,
    /// Invalidate calls that went on after a refused one.
    invalidate_resumed: Counter,
    /// Waits aborted as a device could be neither flushed nor blocked.
    host_timeouts: Counter,
    /// Page requests that came from the host.
    host_page_requests: Counter,
    /// Of these, answered at once as they were none or of no device.
    host_page_requests_refused: Counter,
    /// PASIDs that were not attached as their device has the most it can have.
    pasids_ignored: Counter,
    /// Of the walks that the unit made by itself, those through both stages.
    nested_walks: Striped,
    /// Walks of second-stage tables: of requests, and for each first-stage table
    /// and page of a nested one.
    second_stage_walks: Striped,
    /// Paging entries read in walks of the unit.
    table_reads: Striped,
    /// Accessed and dirty bits set in paging entries, those of one entry together.
    table_updates: Striped,
}

impl Counters {
    /// A descriptor of this type was executed, by whoever has the unit's state locked.
    pub fn descriptor(&self, kind: u8) {
        self.descriptors.add_alone(1);
        if let Some(counter) = self.descriptors_by_type.get(usize::from(kind)) {
            counter.add_alone(1);
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

    /// The same where nobody else adds at the time.
    pub fn add_alone(&self, count: u64) {
        self.0
            .store(self.get().wrapping_add(count), Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// Threads that count without disturbing each other.
const THREADS: usize = 4;

/// A counter in a cache line of its own, and the one that is fetched along with it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Line(AtomicU64);

/// A counter that many threads move.
#[derive(Debug, Default)]
pub(crate) struct Striped {
    /// Of so many threads one each, while they live: nobody else writes it.
    own: [Line; THREADS],
    others: Line,
    /// What it was when it was cleared.
    cleared: AtomicU64,
}

/// The numbers below [`THREADS`] that nobody has, a bit for each.
struct Numbers(AtomicU32);

impl Numbers {
    const fn all() -> Self {
        Self(AtomicU32::new((1 << THREADS) - 1))
    }

    fn take(&self) -> Option<u32> {
        let lowest = |free: u32| free & free.wrapping_neg();
        // Whoever had it has stored what it counted.
        let before = self
            .0
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |free| {
                (free != 0).then(|| free & !lowest(free))
            });
        before.ok().map(u32::trailing_zeros)
    }

    fn give_back(&self, number: u32) {
        self.0.fetch_or(1 << number, Ordering::Release);
    }
}

/// Those of the threads that count.
static NUMBERS: Numbers = Numbers::all();

/// Of a thread that has not counted yet.
const UNNUMBERED: u32 = u32::MAX;

thread_local! {
    static THREAD: Cell<u32> = const { Cell::new(UNNUMBERED) };
    /// Apart from the number, as it takes longer to get at what is dropped in the end.
    static TAKEN: OnceCell<Taken> = const { OnceCell::new() };
}

/// A thread's number, for the next one when the thread ends: a VMM may start many, one after the other.
struct Taken(u32);

impl Drop for Taken {
    fn drop(&mut self) {
        // The thread may still count, when the number is another's.
        THREAD.with(|thread| thread.set(THREADS as u32));
        NUMBERS.give_back(self.0);
    }
}

#[inline]
fn thread_number() -> usize {
    let number = THREAD.with(Cell::get);
    if number == UNNUMBERED {
        return new_thread_number();
    }
    number as usize
}

/// All threads that find none free have the same number, which is nobody's own.
#[cold]
fn new_thread_number() -> usize {
    let taken = NUMBERS.take().and_then(|number| {
        let taken = Taken(number);
        // Not so late in the thread's life that nobody would drop it.
        TAKEN.try_with(|keep| keep.set(taken)).ok()?.ok()?;
        Some(number)
    });
    let number = taken.unwrap_or(THREADS as u32);
    THREAD.with(|thread| thread.set(number));
    number as usize
}

impl Striped {
    #[inline(always)]
    pub fn add(&self, count: u64) {
        match self.own.get(thread_number()) {
            Some(Line(own)) => {
                let before = own.load(Ordering::Relaxed);
                own.store(before.wrapping_add(count), Ordering::Relaxed);
            }
            None => {
                self.others.0.fetch_add(count, Ordering::Relaxed);
            }
        }
    }

    fn total(&self) -> u64 {
        let lines = self.own.iter().chain([&self.others]);
        lines.fold(0, |sum, Line(line)| {
            sum.wrapping_add(line.load(Ordering::Relaxed))
        })
    }

    pub fn get(&self) -> u64 {
        let cleared = self.cleared.load(Ordering::Relaxed);
        self.total().wrapping_sub(cleared)
    }

    pub fn clear(&self) {
        self.cleared.store(self.total(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_of_many_threads_are_all_counted() {
        let counter = Striped::default();
        std::thread::scope(|scope| {
            for _ in 0..2 * THREADS {
                scope.spawn(|| (0..1000).for_each(|_| counter.add(1)));
            }
        });
        assert_eq!(counter.get(), 2 * THREADS as u64 * 1000);
        counter.clear();
        assert_eq!(counter.get(), 0);
    }

    #[test]
    fn the_number_of_a_thread_that_ended_is_another_s() {
        let numbers = Numbers::all();
        let taken: Vec<_> = (0..THREADS).filter_map(|_| numbers.take()).collect();
        assert_eq!(taken, [0, 1, 2, 3]);
        assert_eq!(numbers.take(), None);
        numbers.give_back(2);
        assert_eq!(numbers.take(), Some(2));
    }

    #[test]
    fn threads_one_after_the_other_lose_no_count() {
        let counter = Striped::default();
        for _ in 0..4 * THREADS {
            std::thread::scope(|scope| {
                scope.spawn(|| counter.add(1));
                scope.spawn(|| counter.add(1));
            });
        }
        assert_eq!(counter.get(), 8 * THREADS as u64);
    }
}
