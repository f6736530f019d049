//! The cache's storage: sets of a few entries, read without a lock.
//!
//! A set has a version. Whoever writes makes it odd first and even again after; a reader that finds it odd, or
//! changed since it began, has read nothing (a sequence lock). Everything is an atomic, so there is nothing unsafe about it.

use super::sync::{AtomicU64, Ordering, fence, in_order, spin_loop, yield_now};

/// Entries of a set: as many as fill two cache lines along with the version.
pub(super) const WAYS: usize = if cfg!(loom) { 1 } else { 5 };

/// How often a reader that meets a writer looks again. It need not find what is there.
const TRIES: usize = if cfg!(loom) { 1 } else { 64 };

/// What an entry is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name {
    /// Page and kind; 0 is no entry's.
    pub key: u64,
    /// Stamp of the tag.
    pub stamp: u64,
    /// Place of the tag, the part of the value under [`PLACE`].
    pub place: u64,
}

/// The bits of a value that have the tag's place.
pub(super) const PLACE: u64 = 0xffff << 8;

#[derive(Debug)]
struct Way {
    key: AtomicU64,
    stamp: AtomicU64,
    value: AtomicU64,
}

impl Default for Way {
    fn default() -> Self {
        Self {
            key: AtomicU64::new(0),
            stamp: AtomicU64::new(0),
            value: AtomicU64::new(0),
        }
    }
}

impl Way {
    fn is(&self, key: u64, place: u64) -> bool {
        self.key.load(Ordering::Relaxed) == key
            && self.value.load(Ordering::Relaxed) & PLACE == place
    }
}

/// A set.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Set {
    version: AtomicU64,
    ways: [Way; WAYS],
}

impl Default for Set {
    fn default() -> Self {
        Self {
            version: AtomicU64::new(0),
            ways: Default::default(),
        }
    }
}

impl Set {
    /// The value of the entry with this name. None as well if writers are always in the way.
    #[inline(always)]
    pub fn find(&self, name: Name) -> Option<u64> {
        for _ in 0..TRIES {
            let before = self.version.load(Ordering::Acquire);
            if before & 1 != 0 {
                spin_loop();
                continue;
            }
            let mut found = None;
            for way in &self.ways {
                if way.key.load(Ordering::Relaxed) == name.key
                    && way.stamp.load(Ordering::Relaxed) == name.stamp
                {
                    let value = way.value.load(Ordering::Relaxed);
                    if value & PLACE == name.place {
                        found = Some(value);
                        break;
                    }
                }
            }
            fence(Ordering::Acquire);
            if self.version.load(Ordering::Relaxed) == before {
                return found;
            }
        }
        None
    }

    /// Put an entry in, if `still` holds once nobody else can write.
    pub fn fill(&self, name: Name, value: u64, still: impl FnOnce() -> bool) {
        let locked = self.lock();
        in_order();
        // Whoever invalidates moves the epoch on and then looks here: either that is seen now, or
        // the entry is.
        if !still() {
            return;
        }
        if let Some(way) = self.place_for(name, locked.version) {
            way.key.store(name.key, Ordering::Relaxed);
            way.stamp.store(name.stamp, Ordering::Relaxed);
            way.value.store(value, Ordering::Relaxed);
        }
    }

    /// The entry that is to be replaced: the same page's, else an empty or an old one, else any.
    fn place_for(&self, name: Name, version: u64) -> Option<&Way> {
        let same = |way: &&Way| way.is(name.key, name.place);
        let unused = |way: &&Way| {
            way.key.load(Ordering::Relaxed) == 0
                || (way.value.load(Ordering::Relaxed) & PLACE == name.place
                    && way.stamp.load(Ordering::Relaxed) != name.stamp)
        };
        let turn = (version >> 1).checked_rem(WAYS as u64).unwrap_or(0);
        self.ways
            .iter()
            .find(same)
            .or_else(|| self.ways.iter().find(unused))
            .or_else(|| self.ways.get(turn as usize))
    }

    /// Take an entry out. After the epoch moved on: nobody who began before can put it in
    /// again.
    pub fn remove(&self, key: u64, place: u64) {
        if !self.has(key, place) {
            return;
        }
        let _locked = self.lock();
        for way in &self.ways {
            if way.is(key, place) {
                way.key.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Is there such an entry, or may there be one? If not, a writer that comes later sees
    /// what the caller did before.
    fn has(&self, key: u64, place: u64) -> bool {
        let before = self.version.load(Ordering::SeqCst);
        if before & 1 != 0 {
            return true;
        }
        let found = self.ways.iter().any(|way| way.is(key, place));
        fence(Ordering::Acquire);
        found || self.version.load(Ordering::Relaxed) != before
    }

    fn lock(&self) -> Locked<'_> {
        let mut tries = 0_usize;
        loop {
            let version = self.version.load(Ordering::Relaxed);
            if version & 1 == 0
                && self
                    .version
                    .compare_exchange_weak(
                        version,
                        version.wrapping_add(1),
                        Ordering::SeqCst,
                        Ordering::Relaxed,
                    )
                    .is_ok()
            {
                // What is written next is not seen before the version is odd.
                fence(Ordering::Release);
                return Locked { set: self, version };
            }
            // Whoever has it writes a few words, but may not be running.
            tries = tries.wrapping_add(1);
            if tries % TRIES == 0 {
                yield_now();
            } else {
                spin_loop();
            }
        }
    }
}

struct Locked<'a> {
    set: &'a Set,
    version: u64,
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let next = self.version.wrapping_add(2);
        self.set.version.store(next, Ordering::Release);
    }
}
