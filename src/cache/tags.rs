//! Tags: whose entries the translation cache has, and which of them are still valid.
//!
//! A [`Tag`] stands for one set of tables (an HWPT, or the stages of a context). Its state is in a table beside
//! the cache, so that an entry can be judged without the tag at hand:
//!
//! - the *stamp* is what the tag's entries carry. Moving it on forgets all of them at once. It only ever grows, also when the place in the
//!   table gets another tag, so an entry that was forgotten never comes back.
//! - the *epoch* moves on with every invalidation, of a few pages as well. A walk that began before may not
//!   fill the cache.

use core::num::NonZero;
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::sync::{AtomicU64, Ordering, fence, in_order};

/// Places in one piece of the table, and pieces.
const SEGMENT: usize = if cfg!(loom) { 2 } else { 1024 };
const SEGMENTS: usize = 64;

/// The upper half of a stamp: which of the tags that had the place it is of.
const LIFE: u64 = 1 << 32;

/// Entries of these kinds may exist under a tag.
pub(super) mod kinds {
    /// The kind with number 0; those up to 7 have the bits above.
    pub const FIRST: u64 = 1;
    /// A part of a larger first-stage page, so that naming one address of that page names
    /// entries elsewhere, too.
    pub const FRACTURED: u64 = 1 << 8;
}

/// What whoever made a tag wants to find with it.
pub type Note = [u64; 3];

/// What is known of the tag at a place. One request reads all of it.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct State {
    stamp: AtomicU64,
    epoch: AtomicU64,
    kinds: AtomicU64,
    note: [AtomicU64; 3],
}

impl Default for State {
    fn default() -> Self {
        Self {
            stamp: AtomicU64::new(LIFE),
            epoch: AtomicU64::new(0),
            kinds: AtomicU64::new(0),
            note: [0; 3].map(AtomicU64::new),
        }
    }
}

impl State {
    /// Begin the life of a tag.
    fn begin(&self, note: Note) {
        self.kinds.store(0, Ordering::SeqCst);
        // Whoever finds this note finds that the life before is over.
        fence(Ordering::Release);
        for (to, word) in self.note.iter().zip(note) {
            to.store(word, Ordering::Relaxed);
        }
    }

    /// The note of the tag that lives `life`, if it still does.
    #[inline]
    fn note(&self, life: u32) -> Option<Note> {
        let [first, second, third] = &self.note;
        let note = [first, second, third].map(|word| word.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        self.stamp(life).is_some().then_some(note)
    }

    /// The stamp of valid entries of the tag that lives `life`, if it still does.
    #[inline]
    fn stamp(&self, life: u32) -> Option<NonZero<u64>> {
        let stamp = self.stamp.load(Ordering::SeqCst);
        // There is no life 0.
        NonZero::new(stamp).filter(|_| life_of(stamp) == life)
    }

    /// Kinds of entries that may exist.
    #[inline]
    pub fn kinds(&self) -> u64 {
        self.kinds.load(Ordering::SeqCst)
    }

    /// Entries of these kinds exist from now on. To be called before the epoch is looked at, so
    /// that whoever moves it on sees them.
    pub fn add_kinds(&self, kinds: u64) {
        if self.kinds() & kinds != kinds {
            self.kinds.fetch_or(kinds, Ordering::SeqCst);
        }
    }

    /// No walk that began before may fill the cache.
    pub fn move_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        in_order();
    }

    /// No entry is valid any more. After 2^32 times the tag is dead, and whoever has it gets another one.
    pub fn move_stamp(&self) {
        self.stamp.fetch_add(1, Ordering::SeqCst);
    }
}

#[inline]
fn life_of(stamp: u64) -> u32 {
    (stamp >> 32) as u32
}

/// A place in the table, 0 for none.
pub(super) type Place = u16;

/// Identity of a set of tables in the cache. There are 65535 at most; a tag beyond them has no entries.
#[derive(Debug)]
pub struct Tag {
    table: Arc<Tags>,
    place: Place,
    life: u32,
}

/// The state of a tag when a walk began; a fill needs it unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// Of valid entries; None if there are none to be.
    pub(super) stamp: Option<NonZero<u64>>,
    epoch: u64,
}

/// A tag as a number other than 0 that can be kept where a tag cannot. It leads to nothing once the tag is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link(u64);

impl Link {
    /// 48 bits, not 0.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The reverse of [`Self::bits`]; 0 is none.
    pub fn from_bits(bits: u64) -> Option<Self> {
        (bits != 0).then_some(Self(bits))
    }
}

/// A tag as those see it who look entries up and add some, found without the tag.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    state: &'a State,
    place: Place,
    life: u32,
}

impl<'a> Owner<'a> {
    #[inline]
    pub(super) fn state(self) -> &'a State {
        self.state
    }

    #[inline]
    pub(super) fn place(self) -> Place {
        self.place
    }

    /// The stamp of valid entries, if there are any to be.
    #[inline]
    pub(super) fn stamp(self) -> Option<NonZero<u64>> {
        self.state.stamp(self.life)
    }

    /// What a walk that starts now must show to fill the cache.
    #[inline]
    pub fn ticket(self) -> Ticket {
        Ticket {
            stamp: self.stamp(),
            epoch: self.state.epoch.load(Ordering::SeqCst),
        }
    }

    /// Was nothing of the tag invalidated since `ticket`?
    #[inline]
    pub fn unchanged_since(self, ticket: Ticket) -> bool {
        self.ticket() == ticket
    }

    /// What the tag was made with. None once it is dead.
    #[inline]
    pub fn note(self) -> Option<Note> {
        self.state.note(self.life)
    }
}

impl<'a> From<&'a Tag> for Option<Owner<'a>> {
    fn from(tag: &'a Tag) -> Self {
        tag.owner()
    }
}

impl Ticket {
    /// Of tags that have no entries.
    pub const NONE: Self = Self {
        stamp: None,
        epoch: 0,
    };
}

impl Tag {
    fn state(&self) -> Option<&State> {
        self.table.state(self.place)
    }

    /// The owner of its entries. None if it can have none.
    pub fn owner(&self) -> Option<Owner<'_>> {
        Some(Owner {
            state: self.state()?,
            place: self.place,
            life: self.life,
        })
    }

    /// As [`Owner::ticket`].
    pub fn ticket(&self) -> Ticket {
        self.owner().map_or(Ticket::NONE, Owner::ticket)
    }

    /// Was nothing of this tag invalidated since `ticket`?
    pub fn unchanged_since(&self, ticket: Ticket) -> bool {
        self.ticket() == ticket
    }

    /// Is it of no more use, as somebody retired it or too much was invalidated?
    pub fn is_dead(&self) -> bool {
        self.state()
            .is_some_and(|state| state.stamp(self.life).is_none())
    }

    /// It, as a number.
    pub fn link(&self) -> Option<Link> {
        let life = u64::from(self.life) << 16;
        (self.place != 0).then_some(Link(life | u64::from(self.place)))
    }

    /// Forget all of its entries, for good: none can be added, and no [`Link`] to it leads anywhere.
    pub fn retire(&self) {
        if let Some(state) = self.state() {
            state.move_epoch();
            state.stamp.fetch_add(LIFE, Ordering::SeqCst);
        }
    }
}

impl Drop for Tag {
    fn drop(&mut self) {
        self.retire();
        self.table.give_back(self.place);
    }
}

/// Places that are free.
#[derive(Debug, Default)]
struct Free {
    /// Places up to this one have had a tag.
    used: Place,
    returned: VecDeque<Place>,
}

/// The table.
pub(super) struct Tags {
    segments: [OnceLock<Box<[State]>>; SEGMENTS],
    free: Mutex<Free>,
}

impl core::fmt::Debug for Tags {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Tags").finish_non_exhaustive()
    }
}

impl Default for Tags {
    fn default() -> Self {
        Self {
            segments: [const { OnceLock::new() }; SEGMENTS],
            free: Mutex::default(),
        }
    }
}

impl Tags {
    /// A tag that no entry has yet.
    pub fn new_tag(self: &Arc<Self>, note: Note) -> Tag {
        let place = self.take();
        if let Some(segment) = self.segments.get(usize::from(place) / SEGMENT) {
            segment.get_or_init(|| (0..SEGMENT).map(|_| State::default()).collect());
        }
        let life = self.state(place).map_or(0, |state| {
            state.begin(note);
            life_of(state.stamp.load(Ordering::SeqCst))
        });
        Tag {
            table: Arc::clone(self),
            place,
            life,
        }
    }

    fn take(&self) -> Place {
        let mut free = self.free.lock();
        match free.returned.pop_front() {
            Some(place) => place,
            None => match free.used.checked_add(1) {
                Some(place) => {
                    free.used = place;
                    place
                }
                None => 0,
            },
        }
    }

    /// A place whose stamps are used up stays empty.
    fn give_back(&self, place: Place) {
        let lives = self.state(place).map_or(u32::MAX, |state| {
            life_of(state.stamp.load(Ordering::SeqCst))
        });
        if lives < u32::MAX - 4 {
            self.free.lock().returned.push_back(place);
        }
    }

    #[inline]
    fn state(&self, place: Place) -> Option<&State> {
        if place == 0 {
            return None;
        }
        let place = usize::from(place);
        let segment = self.segments.get(place / SEGMENT)?.get()?;
        segment.get(place % SEGMENT)
    }

    /// Where a link leads.
    #[inline]
    pub fn owner(&self, link: Link) -> Option<Owner<'_>> {
        let place = (link.0 & 0xffff) as Place;
        Some(Owner {
            state: self.state(place)?,
            place,
            life: (link.0 >> 16) as u32,
        })
    }
}
