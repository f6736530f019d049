//! Counters: one list, atomics inside, plain values outside.

use std::cell::{Cell, OnceCell};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Descriptor types have 7 bits, those that exist are below this.
pub const DESCRIPTOR_TYPES: usize = 16;

macro_rules! counters {
    (
        walks { $($(#[$walk_doc:meta])* $walk:ident,)* }
        others { $($(#[$doc:meta])* $name:ident,)* }
    ) => {
        /// The counters as they are at one time.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct Stats {
            $($(#[$walk_doc])* pub $walk: u64,)*
            $($(#[$doc])* pub $name: u64,)*
            /// Descriptors executed, by type.
            pub descriptors_by_type: [u64; DESCRIPTOR_TYPES],
        }

        /// What walks add up to.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub(crate) struct Walks {
            $($(#[$walk_doc])* pub $walk: u64,)*
        }

        /// Of each, how many.
        const WALK_COUNTERS: usize = [$(stringify!($walk)),*].len();

        impl Walks {
            fn into_array(self) -> [u64; WALK_COUNTERS] {
                [$(self.$walk),*]
            }

            fn from_array([$($walk),*]: [u64; WALK_COUNTERS]) -> Self {
                Self { $($walk),* }
            }
        }

        /// The counters as they move.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            walks: Striped<WALK_COUNTERS>,
            $(pub $name: Counter,)*
            descriptors_by_type: [Counter; DESCRIPTOR_TYPES],
        }

        impl Counters {
            pub fn read(&self) -> Stats {
                let walks = Walks::from_array(self.walks.get());
                let mut stats = Stats {
                    $($walk: walks.$walk,)*
                    $($name: self.$name.get(),)*
                    ..Stats::default()
                };
                for (to, from) in
                    stats.descriptors_by_type.iter_mut().zip(&self.descriptors_by_type)
                {
                    *to = from.get();
                }
                stats
            }

            pub fn clear(&self) {
                self.walks.clear();
                $(self.$name.clear();)*
                self.descriptors_by_type.iter().for_each(Counter::clear);
            }
        }
    };
}

counters! {
    walks {
        /// Table walks made.
        walks,
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
    others {
        /// Requests translated, debug looks excepted.
        translations,
        /// Of these, answered from a translation cache.
        cache_hits,
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
        /// Steps of work that the queue has made: entries looked at, and what takes as long.
        queue_steps,
        /// Times the queue was left for later, as one call had done its share.
        queue_pauses,
        /// PASIDs that were not attached as their device has the most it can have.
        pasids_ignored,
    }
}

impl Counters {
    /// A walk is over, or several are.
    #[inline]
    pub fn walked(&self, walks: Walks) {
        self.walks.add(walks.into_array());
    }

    /// Calls of the host that put requests somewhere, or tried.
    pub fn host_calls(&self) -> u64 {
        [
            &self.hwpt_allocs,
            &self.hwpt_alloc_errors,
            &self.attaches,
            &self.attach_errors,
            &self.detaches,
        ]
        .into_iter()
        .fold(0, |sum, counter| sum.wrapping_add(counter.get()))
    }

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

/// Counters in a cache line of their own, and the one that is fetched along with it.
#[derive(Debug)]
#[repr(align(128))]
struct Line<const N: usize>([AtomicU64; N]);

/// Counters that many threads move, always together.
#[derive(Debug)]
pub(crate) struct Striped<const N: usize> {
    /// Of so many threads one each, while they live: nobody else writes it.
    own: [Line<N>; THREADS],
    others: Line<N>,
    /// What they were when they were cleared.
    cleared: [AtomicU64; N],
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

fn zeros<const N: usize>() -> [AtomicU64; N] {
    core::array::from_fn(|_| AtomicU64::new(0))
}

impl<const N: usize> Default for Line<N> {
    fn default() -> Self {
        Self(zeros())
    }
}

impl<const N: usize> Default for Striped<N> {
    fn default() -> Self {
        Self {
            own: Default::default(),
            others: Line::default(),
            cleared: zeros(),
        }
    }
}

impl<const N: usize> Striped<N> {
    #[inline(always)]
    pub fn add(&self, counts: [u64; N]) {
        match self.own.get(thread_number()) {
            Some(Line(own)) => {
                for (own, count) in own.iter().zip(counts) {
                    if count != 0 {
                        let before = own.load(Ordering::Relaxed);
                        own.store(before.wrapping_add(count), Ordering::Relaxed);
                    }
                }
            }
            None => {
                for (other, count) in self.others.0.iter().zip(counts) {
                    other.fetch_add(count, Ordering::Relaxed);
                }
            }
        }
    }

    fn totals(&self) -> [u64; N] {
        let mut totals = [0_u64; N];
        for Line(line) in self.own.iter().chain([&self.others]) {
            for (total, counter) in totals.iter_mut().zip(line) {
                *total = total.wrapping_add(counter.load(Ordering::Relaxed));
            }
        }
        totals
    }

    pub fn get(&self) -> [u64; N] {
        let mut counts = self.totals();
        for (count, cleared) in counts.iter_mut().zip(&self.cleared) {
            *count = count.wrapping_sub(cleared.load(Ordering::Relaxed));
        }
        counts
    }

    pub fn clear(&self) {
        for (cleared, total) in self.cleared.iter().zip(self.totals()) {
            cleared.store(total, Ordering::Relaxed);
        }
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
                scope.spawn(|| (0..1000).for_each(|_| counter.add([1, 2])));
            }
        });
        let each = 2 * THREADS as u64 * 1000;
        assert_eq!(counter.get(), [each, 2 * each]);
        counter.clear();
        assert_eq!(counter.get(), [0, 0]);
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
                scope.spawn(|| counter.add([1]));
                scope.spawn(|| counter.add([1]));
            });
        }
        assert_eq!(counter.get(), [8 * THREADS as u64]);
    }
}
