//! The interrupt entry cache: bounded, indexed by what invalidations name.
//!
//! As in the translation cache, an invalidation moves the epoch on first, and what
//! was read from the table before that can no longer fill the cache.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Entry;

const SHARDS: usize = 16;
const SLOTS_PER_SHARD: usize = 64;

/// More entries than this are not looked up one by one: all are forgotten.
const MAX_ENTRIES_ONE_BY_ONE: u32 = 64;

/// The state of the cache when a request began; a fill needs it unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    generation: u64,
    epoch: u64,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    generation: u64,
    index: u16,
    entry: Entry,
}

/// Entries by their index in the table. Each has one place, which it shares with
/// those that follow it in steps of the capacity: tables are filled from their start.
#[derive(Debug)]
pub struct EntryCache {
    shards: Vec<Mutex<[Option<Slot>; SLOTS_PER_SHARD]>>,
    generation: AtomicU64,
    epoch: AtomicU64,
}

impl Default for EntryCache {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS)
                .map(|_| Mutex::new([None; SLOTS_PER_SHARD]))
                .collect(),
            generation: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
        }
    }
}

impl EntryCache {
    /// Entries the cache can hold.
    pub const CAPACITY: usize = SHARDS * SLOTS_PER_SHARD;

    /// What a request that starts now must show to fill the cache.
    pub fn ticket(&self) -> Ticket {
        Ticket {
            generation: self.generation.load(Ordering::SeqCst),
            epoch: self.epoch.load(Ordering::SeqCst),
        }
    }

    fn with_slot<T>(&self, index: u16, work: impl FnOnce(&mut Option<Slot>) -> T) -> Option<T> {
        let index = usize::from(index);
        let mut shard = self.shards.get(index % SHARDS)?.lock();
        let slot = shard.get_mut((index / SHARDS) % SLOTS_PER_SHARD)?;
        Some(work(slot))
    }

    /// The entry cached for `index`.
    pub fn get(&self, index: u16) -> Option<Entry> {
        let generation = self.generation.load(Ordering::SeqCst);
        self.with_slot(index, |slot| {
            slot.filter(|slot| slot.index == index && slot.generation == generation)
        })?
        .map(|slot| slot.entry)
    }

    /// Remember `entry`, unless something was invalidated since `ticket` was taken.
    pub fn fill(&self, ticket: Ticket, index: u16, entry: Entry) {
        self.with_slot(index, |slot| {
            // Under the shard's lock: an invalidation moves the epoch on before it
            // takes this lock, so it either is seen here or removes the entry.
            if self.ticket() == ticket {
                *slot = Some(Slot {
                    generation: ticket.generation,
                    index,
                    entry,
                });
            }
        });
    }

    /// Forget everything.
    pub fn invalidate_all(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Forget 2^`mask` entries: the block of that size, aligned to it, with `index`
    /// in it (6.5.2.7).
    pub fn invalidate(&self, index: u16, mask: u8) {
        let count = 1_u32.checked_shl(mask.into()).unwrap_or(0);
        if !(1..=MAX_ENTRIES_ONE_BY_ONE).contains(&count) {
            self.invalidate_all();
            return;
        }
        self.epoch.fetch_add(1, Ordering::SeqCst);
        let first = u32::from(index) & !count.saturating_sub(1);
        for index in first..first.saturating_add(count) {
            let Ok(index) = u16::try_from(index) else {
                return;
            };
            self.with_slot(index, |slot| {
                if slot.is_some_and(|cached| cached.index == index) {
                    *slot = None;
                }
            });
        }
    }
}
