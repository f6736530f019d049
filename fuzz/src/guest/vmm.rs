//! The VMM around the unit under test: it counts what it is told, and notes which RAM the unit
//! has written.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use nested_vtd::event::Event;
use nested_vtd::vmm::{Holder, Invalidation, InvalidationFailure, LogLevel, PageResponse, Vmm};

use super::world::{SLOTS, SOURCE_IDS};

/// RAM that the unit wrote by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrote {
    /// The status of a wait, at this address.
    Status(u64),
    /// A page request: the two qwords of its descriptor, and PQT before it.
    PageRequest([u64; 2], u64),
}

/// What the VMM was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Told {
    pub msis: u64,
    pub lines: u64,
    pub invalidations: u64,
    pub forgotten: u64,
    pub responses: u64,
    /// Stale uses that the unit's oracle has seen.
    pub stale: u64,
}

#[derive(Default)]
pub struct Watcher {
    source_ids: [AtomicU32; SLOTS],
    msis: AtomicU64,
    lines: AtomicU64,
    invalidations: AtomicU64,
    forgotten: AtomicU64,
    responses: AtomicU64,
    stale: AtomicU64,
    /// What device TLBs answer: 0 that they have obeyed, 1 nothing in time, 2 nonsense.
    tlb: AtomicU8,
    /// Fault queues that are watched.
    pub watched: Mutex<Vec<i32>>,
    wrote: Mutex<Vec<Wrote>>,
    /// A part of the queue was left for later.
    has_more: AtomicBool,
}

impl Watcher {
    pub fn new() -> Self {
        let watcher = Self::default();
        for (to, from) in watcher.source_ids.iter().zip(SOURCE_IDS) {
            to.store(from.into(), Ordering::Relaxed);
        }
        watcher
    }

    pub fn source_id_of(&self, slot: usize) -> u16 {
        self.source_ids[slot].load(Ordering::Relaxed) as u16
    }

    /// The guest gives a device another number.
    pub fn renumber(&self, slot: usize, source_id: u16) {
        self.source_ids[slot].store(source_id.into(), Ordering::Relaxed);
    }

    pub fn answer_invalidations(&self, how: u8) {
        self.tlb.store(how % 3, Ordering::Relaxed);
    }

    pub fn told(&self) -> Told {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Told {
            msis: get(&self.msis),
            lines: get(&self.lines),
            invalidations: get(&self.invalidations),
            forgotten: get(&self.forgotten),
            responses: get(&self.responses),
            stale: get(&self.stale),
        }
    }

    /// Was a part of the queue left for later?
    pub fn take_more(&self) -> bool {
        self.has_more.swap(false, Ordering::Relaxed)
    }

    /// Another unit, whose lines are counted anew.
    pub fn begin_lines(&self) {
        self.lines.store(0, Ordering::Relaxed);
    }

    /// What the unit wrote since the last call.
    pub fn take_wrote(&self) -> Vec<Wrote> {
        std::mem::take(&mut *self.wrote.lock().unwrap())
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Vmm for Watcher {
    fn msi(&self, _address: u64, _data: u32) {
        count(&self.msis);
    }

    fn log(&self, _level: LogLevel, _message: &str) {
        count(&self.lines);
    }

    fn event(&self, event: Event, a: u64, b: u64, c: u64) {
        let wrote = match event {
            Event::WaitDone => Wrote::Status(a),
            Event::PageRequest => Wrote::PageRequest([a, b], c),
            Event::StaleUse => return count(&self.stale),
            _ => return,
        };
        self.wrote.lock().unwrap().push(wrote);
    }

    fn invalidate(&self, invalidation: &Invalidation) -> Result<(), InvalidationFailure> {
        assert!(
            invalidation.first <= invalidation.last,
            "{invalidation:x?} is no range"
        );
        count(&self.invalidations);
        match (invalidation.holder, self.tlb.load(Ordering::Relaxed)) {
            (Holder::DeviceTlb, 1) => Err(InvalidationFailure::TimedOut),
            (Holder::DeviceTlb, 2) => Err(InvalidationFailure::Failed),
            _ => Ok(()),
        }
    }

    fn iec_invalidate(&self, range: Option<(u16, u8)>) {
        assert!(range.is_none_or(|(_, mask)| mask < 16), "{range:?}");
        count(&self.forgotten);
    }

    fn more_work(&self) {
        self.has_more.store(true, Ordering::Relaxed);
    }

    fn page_response(&self, _response: PageResponse) {
        count(&self.responses);
    }

    fn watch(&self, file: i32, on: bool) {
        let mut watched = self.watched.lock().unwrap();
        let place = watched.iter().position(|&other| other == file);
        match (on, place) {
            (true, None) => watched.push(file),
            (false, Some(place)) => drop(watched.remove(place)),
            _ => panic!("file {file} is to be watched: {on}, and was: {}", !on),
        }
    }

    fn source_id(&self, tag: u64) -> Option<u16> {
        let slot = usize::try_from(tag).ok().filter(|&slot| slot < SLOTS)?;
        Some(self.source_id_of(slot))
    }
}
