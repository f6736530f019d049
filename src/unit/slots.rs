//! What a request that hits the translation cache needs to know of its device, found without a
//! lock.
//!
//! A handle is the number of a slot and how often that slot was given. Where the device's requests without PASID are cached
//! (a [`Link`]) is put here by the request that looked it up; it leads nowhere once that was forgotten.

use std::collections::VecDeque;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};

use parking_lot::Mutex;

use super::stats::Striped;
use crate::cache::tags::Link;

/// Slots in one piece of the table, and pieces: one slot for each requester ID.
const SEGMENT: usize = 32;
const SEGMENTS: usize = 2048;

/// A slot.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// Of the device that has it; 0 while it is free.
    handle: AtomicU32,
    /// How often it was given.
    times: AtomicU32,
    /// The VMM's name for the device.
    tag: AtomicU64,
    /// Its requester ID is never another one.
    fixed_id: AtomicBool,
    /// Where requests without PASID are cached, above the requester ID for which that was looked up.
    cached: AtomicU64,
    /// As [`Answers`] has them.
    answers: Striped<2>,
}

/// Requests that were answered without looking for their device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Answers {
    /// With nothing but the cache.
    pub hits: u64,
    /// After a walk, or as they were.
    pub misses: u64,
}

impl Answers {
    fn and(self, other: Self) -> Self {
        Self {
            hits: self.hits.wrapping_add(other.hits),
            misses: self.misses.wrapping_add(other.misses),
        }
    }

    pub fn all(self) -> u64 {
        self.hits.wrapping_add(self.misses)
    }
}

/// Where a device's requests are cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cached {
    /// Their tag.
    pub link: Link,
    /// The requester ID they had.
    pub source_id: u16,
}

impl Slot {
    #[inline]
    pub fn tag(&self) -> u64 {
        self.tag.load(Ordering::Relaxed)
    }

    #[inline]
    pub fn has_fixed_id(&self) -> bool {
        self.fixed_id.load(Ordering::Relaxed)
    }

    /// Where requests of the device with this handle are cached.
    #[inline]
    pub fn cached(&self, handle: u32) -> Option<Cached> {
        let word = self.cached.load(Ordering::Acquire);
        fence(Ordering::Acquire);
        // Another device may have got the slot, or none.
        if self.handle.load(Ordering::Relaxed) != handle || handle == 0 {
            return None;
        }
        Some(Cached {
            link: Link::from_bits(word >> 16)?,
            source_id: (word & 0xffff) as u16,
        })
    }

    /// Remember where requests are cached. The caller makes sure that the slot is still the
    /// device's.
    pub fn set_cached(&self, cached: Cached) {
        let word = cached.link.bits() << 16 | u64::from(cached.source_id);
        self.cached.store(word, Ordering::Release);
    }

    #[inline]
    pub fn count_hit(&self) {
        self.answers.add([1, 0]);
    }

    #[inline]
    pub fn count_miss(&self) {
        self.answers.add([0, 1]);
    }

    pub fn answers(&self) -> Answers {
        let [hits, misses] = self.answers.get();
        Answers { hits, misses }
    }

    pub fn clear_answers(&self) {
        self.answers.clear();
    }
}

/// Slots that are free.
#[derive(Debug, Default)]
struct Free {
    /// Slots below have been given.
    used: usize,
    returned: VecDeque<usize>,
}

/// All slots.
pub(super) struct Slots {
    segments: Box<[OnceLock<Box<[Slot]>>]>,
    free: Mutex<Free>,
}

impl Default for Slots {
    fn default() -> Self {
        Self {
            segments: (0..SEGMENTS).map(|_| OnceLock::new()).collect(),
            free: Mutex::default(),
        }
    }
}

impl Slots {
    /// The most devices there can be.
    pub const MOST: usize = SEGMENT * SEGMENTS;

    /// A slot for a device that the VMM calls `tag`, and whose requester ID may be fixed; its handle, which is never 0. None if
    /// all are given.
    pub fn take(&self, tag: u64, fixed_id: bool) -> Option<u32> {
        let number = self.take_number()?;
        let segment = self.segments.get(number / SEGMENT)?;
        let segment = segment.get_or_init(|| (0..SEGMENT).map(|_| Slot::default()).collect());
        let slot = segment.get(number % SEGMENT)?;
        // 1 to 0xffff.
        let times = slot.times.load(Ordering::Relaxed) % 0xffff;
        let times = times.saturating_add(1);
        slot.times.store(times, Ordering::Relaxed);
        let handle = (times << 16) | u32::try_from(number).unwrap_or(0);
        slot.tag.store(tag, Ordering::Relaxed);
        slot.fixed_id.store(fixed_id, Ordering::Relaxed);
        slot.clear_answers();
        slot.handle.store(handle, Ordering::Release);
        Some(handle)
    }

    fn take_number(&self) -> Option<usize> {
        let mut free = self.free.lock();
        if let Some(number) = free.returned.pop_front() {
            return Some(number);
        }
        let number = free.used;
        free.used = number.saturating_add(1).min(Self::MOST);
        (number < Self::MOST).then_some(number)
    }

    /// The slot of a device.
    #[inline]
    pub fn get(&self, handle: u32) -> Option<&Slot> {
        let slot = self.place(handle)?;
        (handle != 0 && slot.handle.load(Ordering::Acquire) == handle).then_some(slot)
    }

    /// The slot that a handle names, whose device may be another one.
    #[inline]
    fn place(&self, handle: u32) -> Option<&Slot> {
        let number = (handle & 0xffff) as usize;
        let segment = self.segments.get(number / SEGMENT)?.get()?;
        segment.get(number % SEGMENT)
    }

    /// The slot of a device, and where its requests are cached if that is known.
    #[inline]
    pub fn cached(&self, handle: u32) -> Option<(&Slot, Cached)> {
        let slot = self.place(handle)?;
        Some((slot, slot.cached(handle)?))
    }

    /// Give the slot back. Gives what was counted.
    pub fn give_back(&self, handle: u32) -> Answers {
        let Some(slot) = self.get(handle) else {
            return Answers::default();
        };
        slot.handle.store(0, Ordering::Release);
        slot.cached.store(0, Ordering::Release);
        let answers = slot.answers();
        slot.clear_answers();
        let number = (handle & 0xffff) as usize;
        self.free.lock().returned.push_back(number);
        answers
    }

    /// The sum of [`Slot::answers`].
    pub fn answers(&self) -> Answers {
        self.all()
            .fold(Answers::default(), |sum, slot| sum.and(slot.answers()))
    }

    /// All of them, free ones included.
    pub fn all(&self) -> impl Iterator<Item = &Slot> {
        self.segments
            .iter()
            .filter_map(OnceLock::get)
            .flat_map(|segment| segment.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_not_0_and_end_with_their_device() {
        let slots = Slots::default();
        let first = slots.take(7, false).unwrap();
        let second = slots.take(8, false).unwrap();
        assert!(first != 0 && second != 0 && first != second);
        assert_eq!(slots.get(first).unwrap().tag(), 7);
        slots.give_back(first);
        assert!(slots.get(first).is_none());
        let third = slots.take(9, false).unwrap();
        assert!(third != first && slots.get(first).is_none());
        assert_eq!(slots.get(third).unwrap().tag(), 9);
        assert!(slots.get(0).is_none());
    }

    #[test]
    fn what_is_cached_goes_with_the_device() {
        let slots = Slots::default();
        let cache = crate::cache::translations::TranslationCache::default();
        let tag = cache.new_tag();
        let first = slots.take(1, false).unwrap();
        let slot = slots.get(first).unwrap();
        assert_eq!(slot.cached(first), None);
        let cached = Cached {
            link: tag.link().unwrap(),
            source_id: 0x0800,
        };
        slot.set_cached(cached);
        assert_eq!(slot.cached(first), Some(cached));
        slots.give_back(first);
        let second = slots.take(2, false).unwrap();
        assert_eq!(slot.cached(first), None);
        assert_eq!(slots.get(second).unwrap().cached(second), None);
    }

    /// All that there are: each has a number of its own, and finds its own slot.
    #[test]
    fn every_requester_id_can_have_a_slot() {
        let slots = Slots::default();
        let mut seen = vec![false; Slots::MOST];
        for tag in 0..Slots::MOST as u64 {
            let handle = slots.take(tag, false).unwrap();
            let number = (handle & 0xffff) as usize;
            assert!(!std::mem::replace(&mut seen[number], true), "{handle:#x}");
            assert_eq!(slots.get(handle).unwrap().tag(), tag);
        }
        assert_eq!(slots.take(0, false), None);
        assert_eq!(slots.all().count(), Slots::MOST);
        // The one that is given back is the only one that is free, however often.
        let mut handle = 1 << 16 | 0xffff;
        for times in 1..0x2_0000_u32 {
            slots.give_back(handle);
            assert!(slots.get(handle).is_none());
            handle = slots.take(times.into(), false).unwrap();
            assert_eq!(handle & 0xffff, 0xffff);
            assert_eq!(handle >> 16, times % 0xffff + 1, "{times:#x}");
            assert_eq!(slots.get(handle).unwrap().tag(), times.into());
        }
    }
}
